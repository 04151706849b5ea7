/*
 * instructions [calls]: how many instructions a call takes, from the caller's first to the return, as
 * lines "NAME COUNT". With an argument only calls that are no queue's, for a run without the library.
 *
 * A child makes the calls between two breakpoints, and is single-stepped from the first to the second. What
 * is not counted: the kernel, the vDSO, which is the kernel's too, and the repetitions of a string instruction.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <mqueue.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/epoll.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The smallest of so many counts: the first ones bind symbols and grow the queue. */
enum { TIMES = 5, BIGGEST = 1024 };

static char out[BIGGEST] __attribute__((aligned(64))), in[BIGGEST] __attribute__((aligned(64)));
static mqd_t queue;
static int zero, ep;

#define MUST(condition) ((condition) ? (void)0 : (perror(#condition), _exit(2)))

static void pair(size_t size)
{
	MUST(mq_send(queue, out, size, 0) == 0);
	MUST(mq_receive(queue, in, sizeof in, NULL) == (ssize_t)size);
}

static void pair_8(void) { pair(8); }
static void pair_64(void) { pair(64); }
static void pair_1024(void) { pair(1024); }

static void getattr_(void)
{
	struct mq_attr attr;
	MUST(mq_getattr(queue, &attr) == 0);
}

static void expired(void)
{
	struct timespec past = {.tv_sec = 1};
	MUST(mq_timedreceive(queue, in, sizeof in, NULL, &past) == -1 && errno == ETIMEDOUT);
}

static void nonblocking(void)
{
	struct mq_attr attr = {.mq_flags = O_NONBLOCK};
	MUST(mq_setattr(queue, &attr, NULL) == 0);
}

static void eagain(void) { MUST(mq_receive(queue, in, sizeof in, NULL) == -1 && errno == EAGAIN); }

static void read_(void) { MUST(read(zero, in, 1) == 1); }
static void fcntl_(void) { MUST(fcntl(zero, F_GETFL) >= 0); }

static void poll_(void)
{
	struct pollfd p = {.fd = zero, .events = POLLIN};
	MUST(poll(&p, 1, 0) == 1);
}

static void epoll(void)
{
	struct epoll_event event;
	MUST(epoll_wait(ep, &event, 1, 0) == 0);
}

static void open_close(void)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	MUST(fd >= 0 && close(fd) == 0);
}

static void stat_(void)
{
	struct stat st;
	MUST(stat("/dev/null", &st) == 0);
}

static void use_queue(void)
{
	struct mq_attr attr = {.mq_maxmsg = 10, .mq_msgsize = BIGGEST};
	queue = mq_open("/instructions", O_RDWR | O_CREAT | O_EXCL, 0600, &attr);
	MUST(queue != (mqd_t)-1 && mq_unlink("/instructions") == 0);
}

static void named(const char *name, int oflag)
{
	struct mq_attr attr = {.mq_maxmsg = 1, .mq_msgsize = 8};
	mqd_t q = mq_open(name, oflag, 0600, &attr);
	MUST(q != (mqd_t)-1 && mq_close(q) == 0);
}

static void make_one(void) { named("/instructions-0", O_RDWR | O_CREAT | O_EXCL); }

static void make_hundred(void)
{
	char name[32];
	for (int i = 1; i <= 100; i++) {
		snprintf(name, sizeof name, "/instructions-%d", i);
		named(name, O_RDWR | O_CREAT | O_EXCL);
	}
}

static void reopen_first(void) { named("/instructions-0", O_RDWR); }
static void reopen_last(void) { named("/instructions-100", O_RDWR); }

/* In this order, in one process. Without a name: not counted. */
static const struct step { const char *name; void (*call)(void); } steps[] = {
	{"read", read_}, {"fcntl", fcntl_}, {"poll", poll_}, {"epoll_wait", epoll}, {"open+close", open_close}, {"stat", stat_},
	{NULL, use_queue},
	{"pair-8", pair_8}, {"pair-64", pair_64}, {"pair-1024", pair_1024}, {"getattr", getattr_}, {"expired", expired},
	{NULL, nonblocking},
	{"eagain", eagain},
	{"read-beside-queue", read_}, {"fcntl-beside-queue", fcntl_}, {"poll-beside-queue", poll_},
	{"epoll_wait-beside-queue", epoll}, {"open+close-beside-queue", open_close}, {"stat-beside-queue", stat_},
	{NULL, make_one},
	{"mq_open+mq_close", reopen_first},
	{NULL, make_hundred},
	{"mq_open+mq_close-among-100", reopen_last},
};
enum { STEPS = sizeof steps / sizeof *steps, CALLS = 6 };

static void child(size_t n)
{
	MUST(ptrace(PTRACE_TRACEME, 0, 0, 0) == 0 && raise(SIGSTOP) == 0);
	MUST((zero = open("/dev/zero", O_RDONLY | O_CLOEXEC)) >= 0 && (ep = epoll_create1(EPOLL_CLOEXEC)) >= 0);
	for (const struct step *s = steps; s < steps + n; s++) {
		if (!s->name)
			s->call();
		for (int i = 0; s->name && i < TIMES; i++) {
			/* Once without counting: what is looked up now and then, by the clock, has just been. */
			s->call();
			__asm__ volatile("int3" ::: "memory");
			s->call();
			__asm__ volatile("int3" ::: "memory");
		}
	}
	_exit(0);
}

/* Runs the child to its next breakpoint, in one go or counting. */
static long to_breakpoint(pid_t pid, int counting)
{
	unsigned long vdso = getauxval(AT_SYSINFO_EHDR), last = 0;
	long count = 0;

	for (;;) {
		int status;
		siginfo_t info;
		MUST(ptrace(counting ? PTRACE_SINGLESTEP : PTRACE_CONT, pid, 0, 0) == 0);
		MUST(waitpid(pid, &status, 0) == pid);
		MUST(WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
		MUST(ptrace(PTRACE_GETSIGINFO, pid, 0, &info) == 0);
		if (info.si_code == SI_KERNEL)
			return count;
		unsigned long at = ptrace(PTRACE_PEEKUSER, pid, offsetof(struct user_regs_struct, rip), 0);
		count += at != last && at - vdso >= 0x4000;
		last = at;
	}
}

int main(int argc, char **argv)
{
	size_t n = argc > 1 ? CALLS : STEPS;
	pid_t pid = fork();

	(void)argv;
	MUST(pid >= 0);
	if (pid == 0)
		child(n);
	int status;
	MUST(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status));
	for (const struct step *s = steps; s < steps + n; s++) {
		long least = LONG_MAX;
		for (int i = 0; s->name && i < TIMES; i++) {
			to_breakpoint(pid, 0);
			long count = to_breakpoint(pid, 1);
			least = count < least ? count : least;
		}
		if (s->name)
			printf("%s %ld\n", s->name, least);
	}
	MUST(ptrace(PTRACE_CONT, pid, 0, 0) == 0);
	MUST(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
	return 0;
}
