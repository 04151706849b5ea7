/*
 * nokernel [-e NAME=VALUE]… CMD ARG…: runs CMD on a kernel without POSIX message queues and
 * without IPC namespaces.
 *
 * A seccomp filter stands in for such a kernel: mq_open, mq_unlink, mq_timedsend,
 * mq_timedreceive, mq_notify, mq_getsetattr and clone3 are ENOSYS; unshare and clone with
 * CLONE_NEWIPC are EINVAL, as where CONFIG_IPC_NS is off. So is every call of a foreign
 * architecture or ABI. What works under it was not done by the kernel's queues.
 *
 * -e sets a variable for CMD only (LD_PRELOAD, which must not reach this program itself).
 * `nokernel --check` launches itself and reports whether each refusal really happens.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <mqueue.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef CLONE_NEWIPC
#define CLONE_NEWIPC 0x08000000
#endif
#ifndef SYS_clone3
#define SYS_clone3 435
#endif

#if defined __x86_64__
#define THIS_ARCH AUDIT_ARCH_X86_64
#elif defined __aarch64__
#define THIS_ARCH AUDIT_ARCH_AARCH64
#else
#error "architecture not known to the filter"
#endif
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the low word of an argument is elsewhere"
#endif

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define REFUSE(err) BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (err))
#define ALLOW BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
/* With the call number loaded: this one does not exist. */
#define MISSING(nr) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1), REFUSE(ENOSYS)
/* With the call number loaded: this one refuses CLONE_NEWIPC in its first argument. */
#define NO_NEWIPC(nr)                                                                            \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 4), LOAD(args[0]),                            \
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, CLONE_NEWIPC, 0, 1), REFUSE(EINVAL), ALLOW

static int install(void)
{
	struct sock_filter code[] = {
		LOAD(arch),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, THIS_ARCH, 1, 0),
		REFUSE(ENOSYS),
		LOAD(nr),
#ifdef __x86_64__
		/* x32 numbers name the same calls a second time. */
		BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 1),
		REFUSE(ENOSYS),
#endif
		MISSING(SYS_mq_open),
		MISSING(SYS_mq_unlink),
		MISSING(SYS_mq_timedsend),
		MISSING(SYS_mq_timedreceive),
		MISSING(SYS_mq_notify),
		MISSING(SYS_mq_getsetattr),
		MISSING(SYS_clone3),
		NO_NEWIPC(SYS_unshare),
		NO_NEWIPC(SYS_clone),
		ALLOW,
	};
	struct sock_fprog prog = {.len = sizeof code / sizeof *code, .filter = code};

	/* no_new_privs would change what the command's exec does; only without privilege. */
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog) == 0)
		return 0;
	if (errno != EACCES || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -1;
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog);
}

static int bad;

static void expect(const char *what, long ret, int err, int want)
{
	int ok = ret == -1 && err == want;
	printf("%-4s %s: %s\n", ok ? "ok" : "FAIL", what,
	       ret == -1 ? strerrorname_np(err) : "it worked");
	bad += !ok;
}

static void *thread(void *arg)
{
	*(int *)arg = 1;
	return NULL;
}

/* Runs in the launched process. */
static int probe(void)
{
#define EXPECT(call, want)                                                                       \
	do {                                                                                     \
		errno = 0;                                                                       \
		long r_ = (call);                                                                \
		expect(#call, r_, errno, want);                                                  \
	} while (0)
	char b[8] = "";
	struct mq_attr a = {.mq_maxmsg = 1, .mq_msgsize = 1};

	/* Arguments with which a kernel that has the call would not say ENOSYS. */
	EXPECT(syscall(SYS_mq_open, "nokernel-check", O_RDWR | O_CREAT, 0600, &a), ENOSYS);
	EXPECT(syscall(SYS_mq_unlink, "nokernel-check"), ENOSYS);
	EXPECT(syscall(SYS_mq_timedsend, -1, b, 1, 0, NULL), ENOSYS);
	EXPECT(syscall(SYS_mq_timedreceive, -1, b, 1, NULL, NULL), ENOSYS);
	EXPECT(syscall(SYS_mq_notify, -1, NULL), ENOSYS);
	EXPECT(syscall(SYS_mq_getsetattr, -1, NULL, NULL), ENOSYS);
	EXPECT(syscall(SYS_clone3, NULL, 0), ENOSYS);
	EXPECT(syscall(SYS_unshare, CLONE_NEWIPC), EINVAL);
	EXPECT(syscall(SYS_unshare, CLONE_NEWIPC | CLONE_FS), EINVAL);
	errno = 0;
	long r = syscall(SYS_clone, (unsigned long)(CLONE_NEWIPC | SIGCHLD), 0, 0, 0, 0);
	if (r == 0)
		_exit(0);
	expect("clone(CLONE_NEWIPC | SIGCHLD)", r, errno, EINVAL);

	/* And nothing else is refused: unshare, fork, threads. */
	pid_t p = fork();
	if (p == 0)
		_exit(syscall(SYS_unshare, CLONE_FS) ? 1 : 0);
	int st = -1, ran = 0;
	pthread_t t;
	waitpid(p, &st, 0);
	if (!pthread_create(&t, NULL, thread, &ran))
		pthread_join(t, NULL);
	printf("%-4s fork, unshare(CLONE_FS)\n", st ? "FAIL" : "ok");
	printf("%-4s pthread_create\n", ran ? "ok" : "FAIL");
	return bad || st || !ran;
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "--probe"))
		return probe();
	char *self[] = {argv[0], "--probe", NULL};
	char **cmd = argv + 1;
	if (argc == 2 && !strcmp(argv[1], "--check")) {
		cmd = self;
		self[0] = "/proc/self/exe";
	}
	if (install()) {
		perror("nokernel: seccomp");
		return 125;
	}
	for (; cmd[0] && !strcmp(cmd[0], "-e") && cmd[1]; cmd += 2)
		if (putenv(cmd[1])) {
			perror("nokernel: putenv");
			return 125;
		}
	if (!cmd[0]) {
		fprintf(stderr, "usage: nokernel [-e NAME=VALUE]... CMD ARG...\n       nokernel --check\n");
		return 125;
	}
	execvp(cmd[0], cmd);
	fprintf(stderr, "nokernel: %s: %s\n", cmd[0], strerror(errno));
	return 127;
}
