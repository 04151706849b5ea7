/*
 * ns_tree [-p MS] SEED OPS      so many random operations
 * ns_tree [-p MS] -f FILE       those that FILE names: a trace of an earlier run, or any of its lines
 *
 * ns_tree --look                only looks for remains
 *
 * -p is how long one step may take (20000 ms).
 *
 * A coordinator grows a tree of tasks, processes and threads, by every road there is, and has them
 * do things that concern IPC namespaces and the message queues inside, one operation at a time.
 * Each makes a line of the trace,
 *
 *   t3 setns 1 0x8000000 -> 0 N2
 *
 * task, operation, what came of it. Process and inode numbers don't appear: tasks are numbered as
 * they are made, and so are namespaces (N0 is the one that all begins in). The same seed makes the
 * same trace wherever namespaces and queues behave the same.
 *
 * Every task has a socket of its own to the coordinator. A new one connects to an abstract address,
 * so that it needs nothing inherited; only exec in place hands over its socket's number. Nobody
 * reaps a task before the end, so that a process number means one task for good. A step is over
 * when all it started and ended is known to be so: a new task has said hello; a dead process is a
 * zombie and a dead thread is gone, and neither holds its namespace any more.
 *
 * Slots of namespace descriptors and of queue descriptors are fixed descriptor numbers.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/nsfs.h>
#include <mqueue.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
	TASKS = 400,      /* labels of a run */
	SPACES = 4096,    /* namespaces of a run */
	ALIVE = 12,       /* tasks that live at a time */
	NS_SLOT = 300,    /* first descriptor number of the namespace slots */
	NS_SLOTS = 3,
	MQ_SLOT = 310,    /* and of the queue slots */
	MQ_SLOTS = 4,
	NOBODY = 65534,
	STACK = 256 << 10,
	TEXT = 2048,
	WORDS = 12,
};

extern char **environ;

static int patience = 20000;
static char program[512];
/* The coordinator's abstract address, without the leading NUL. */
static char address[64];

static void die(const char *what)
{
	fprintf(stderr, "ns_tree: %s: %s\n", what, strerror(errno));
	exit(2);
}

static int split(char *text, char **word)
{
	int n = 0;
	char *at;

	for (char *w = strtok_r(text, " \n", &at); w && n < WORDS; w = strtok_r(NULL, " \n", &at))
		word[n++] = w;
	return n;
}

/* A packet with at most one descriptor. */
static ssize_t send_packet(int sock, const char *text, int fd)
{
	struct iovec iov = {(char *)text, strlen(text)};
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (fd >= 0) {
		msg.msg_control = &control;
		msg.msg_controllen = sizeof control;
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof fd);
	}
	return sendmsg(sock, &msg, MSG_NOSIGNAL);
}

/* Length, 0 at the end, -1; *fd is -1 or a descriptor that came along. */
static ssize_t receive_packet(int sock, char *text, int *fd)
{
	struct iovec iov = {text, TEXT - 1};
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
			     .msg_controllen = sizeof control};
	ssize_t n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);

	*fd = -1;
	if (n < 0)
		return n;
	text[n] = 0;
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	if (c && c->cmsg_type == SCM_RIGHTS)
		memcpy(fd, CMSG_DATA(c), sizeof *fd);
	return n;
}

/* ---- tasks ---------------------------------------------------------------------------------- */

/* All sockets of this process: a forked child closes its parent's. */
static int socks[TASKS], nsocks;
static pthread_t thread_of[TASKS];
static _Thread_local int my_label, my_sock;
static _Thread_local char reply[TEXT];

static void task(int label) __attribute__((noreturn));

static unsigned long own_namespace(void)
{
	struct stat st;
	return stat("/proc/thread-self/ns/ipc", &st) ? 0 : st.st_ino;
}

/* Adds to the reply. */
static void add(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void add(const char *format, ...)
{
	size_t at = strlen(reply);
	va_list ap;

	va_start(ap, format);
	vsnprintf(reply + at, sizeof reply - at, format, ap);
	va_end(ap);
}

/* Adds a result: 0 or a number as it is, -1 with errno. Whether it is not -1. */
static int result(long ret)
{
	const char *space = *reply ? " " : "";

	if (ret != -1)
		add("%s%ld", space, ret);
	else
		add("%s-1 %s", space, strerrorname_np(errno) ?: "?");
	return ret != -1;
}

/* Numbers of processes and descriptors say nothing. */
static int made(long ret)
{
	return result(ret > 0 ? 0 : ret);
}

static void add_own(void)
{
	add(" {%lu}", own_namespace());
}

/* A link's text; the number of an IPC namespace is marked for the coordinator. */
static void add_link(const char *text)
{
	unsigned long ino;
	int end = 0;

	if (sscanf(text, "ipc:[%lu]%n", &ino, &end) == 1 && end && !text[end])
		add(" ipc:[{%lu}]", ino);
	else if (!strncmp(text, "uts:[", 5))
		add(" uts");
	else
		add(" \"%s\"", text);
}

static void add_stat(const struct stat *st)
{
	add(" {%lu} mode %o nlink %lu uid %u size %ld", (unsigned long)st->st_ino, st->st_mode,
	    (unsigned long)st->st_nlink, st->st_uid, (long)st->st_size);
}

/* Moves a new descriptor into its slot. */
static int settle(int fd, int slot, int cloexec)
{
	if (fd < 0 || fd == slot)
		return fd;
	int r = cloexec ? dup3(fd, slot, O_CLOEXEC) : dup2(fd, slot);
	int e = errno;
	close(fd);
	errno = e;
	return r;
}

/* Roads to a namespace file; who is pid:tid. */
enum { OF_PROCESS, OF_TASK, OF_SELF, OF_THREAD_SELF, OF_DIRECTORY, OF_UTS, ROADS };

static const char *ns_path(int road, const char *who, char *path)
{
	int pid = 0, tid = 0;

	sscanf(who, "%d:%d", &pid, &tid);
	switch (road) {
	case OF_TASK:
		sprintf(path, "/proc/%d/task/%d/ns/ipc", pid, tid);
		break;
	case OF_SELF:
		strcpy(path, "/proc/self/ns/ipc");
		break;
	case OF_THREAD_SELF:
		strcpy(path, "/proc/thread-self/ns/ipc");
		break;
	case OF_UTS:
		sprintf(path, "/proc/%d/ns/uts", pid);
		break;
	default:
		sprintf(path, "/proc/%d/ns/ipc", pid);
	}
	return path;
}

static int ns_open(int road, const char *who, int flags)
{
	char path[64];

	ns_path(road, who, path);
	if (road != OF_DIRECTORY)
		return open(path, flags);
	*strrchr(path, '/') = 0;
	int dir = open(path, O_RDONLY | O_DIRECTORY);
	if (dir < 0)
		return -1;
	int fd = openat(dir, "ipc", flags), e = errno;
	close(dir);
	errno = e;
	return fd;
}

static const char *const limits[] = {"queues_max", "msg_max", "msgsize_max", "msg_default", "msgsize_default"};
enum { LIMITS = sizeof limits / sizeof *limits };

static int read_limit(const char *name, char *value, size_t size)
{
	char path[64];

	snprintf(path, sizeof path, "/proc/sys/fs/mqueue/%s", name);
	int fd = open(path, O_RDONLY);
	if (fd < 0)
		return -1;
	ssize_t n = read(fd, value, size - 1);
	close(fd);
	if (n < 0)
		return -1;
	value[n] = 0;
	value[strcspn(value, "\n")] = 0;
	return 0;
}

static int write_limit(const char *name, const char *value, int how)
{
	char path[64], line[160];

	snprintf(path, sizeof path, "/proc/sys/fs/mqueue/%s", name);
	if (how == 1) {
		FILE *f = fopen(path, "w");
		if (!f)
			return -1;
		fprintf(f, "%s\n", value);
		return fclose(f);
	}
	if (how == 2) {
		snprintf(line, sizeof line, "(echo %s >%s) 2>/dev/null", value, path);
		return system(line);
	}
	int fd = open(path, O_WRONLY);
	if (fd < 0)
		return -1;
	snprintf(line, sizeof line, "%s\n", value);
	ssize_t n = write(fd, line, strlen(line));
	int e = errno;
	close(fd);
	errno = e;
	return n < 0 ? -1 : 0;
}

static const char *queue_name(const char *letter, char *name)
{
	sprintf(name, "/%s", letter);
	return name;
}

/* Makes the caller root of its new user namespace. */
static int map_ids(unsigned uid, unsigned gid)
{
	char text[32];
	const struct {
		const char *path, *format;
		unsigned id;
	} files[] = {
		{"/proc/self/setgroups", "deny", 0},
		{"/proc/self/uid_map", "0 %u 1", uid},
		{"/proc/self/gid_map", "0 %u 1", gid},
	};

	for (int i = 0; i < 3; i++) {
		int fd = open(files[i].path, O_WRONLY);
		if (fd < 0)
			return -1;
		int n = snprintf(text, sizeof text, files[i].format, files[i].id);
		n = write(fd, text, n);
		int e = errno;
		close(fd);
		errno = e;
		if (n < 0)
			return -1;
	}
	return 0;
}

/* How many queues the namespace has: the least queues_max that admits one more, less one. */
static void count_queues(void)
{
	struct mq_attr attr = {.mq_maxmsg = 1, .mq_msgsize = 16};
	char old[32], value[16];
	int n = -1;

	if (!result(read_limit("queues_max", old, sizeof old)))
		return;
	for (int max = 1; max < 300 && n < 0; max++) {
		sprintf(value, "%d", max);
		if (write_limit("queues_max", value, 0)) {
			result(-1);
			return;
		}
		mqd_t q = mq_open("/probe", O_CREAT | O_EXCL | O_RDWR, 0600, &attr);
		if (q == -1 && errno == ENOSPC)
			continue;
		if (q == -1) {
			result(-1);
			break;
		}
		mq_close(q);
		mq_unlink("/probe");
		n = max - 1;
	}
	result(write_limit("queues_max", old, 0));
	add(" queues %d", n);
}

/* What each name stands for here. */
static void probe(void)
{
	struct mq_attr a;
	char name[8];

	for (char c = 'a'; c <= 'd'; c++) {
		sprintf(name, "/%c", c);
		mqd_t q = mq_open(name, O_RDONLY | O_NONBLOCK);
		if (q == -1) {
			add("%s%c %s", *reply ? ", " : "", c, strerrorname_np(errno));
			continue;
		}
		mq_getattr(q, &a);
		add("%s%c %ldx%ld has %ld", *reply ? ", " : "", c, a.mq_maxmsg, a.mq_msgsize, a.mq_curmsgs);
		mq_close(q);
	}
}

/* The queue that O_CREAT without attributes makes, unless it is so large that other users' queues
 * would matter to RLIMIT_MSGQUEUE. */
static void default_queue(void)
{
	char n[4][32];
	struct mq_attr a;

	for (int i = 0; i < 4; i++)
		if (read_limit(limits[i + 1], n[i], 32)) {
			result(-1);
			return;
		}
	long msgs = atol(n[0]) < atol(n[2]) ? atol(n[0]) : atol(n[2]);
	long size = atol(n[1]) < atol(n[3]) ? atol(n[1]) : atol(n[3]);
	if (msgs * (size + 96) > 20000) {
		add("large");
		return;
	}
	mqd_t q = mq_open("/default", O_CREAT | O_EXCL | O_RDWR, 0600, NULL);
	if (!made(q))
		return;
	mq_getattr(q, &a);
	add(" %ldx%ld", a.mq_maxmsg, a.mq_msgsize);
	mq_close(q);
	result(mq_unlink("/default"));
}

/* The program anew, in a process that may share memory with its parent. */
static void exec_new(int label, char **env)
{
	char number[16];
	char *argv[] = {program, "--task", number, address, NULL};

	sprintf(number, "%d", label);
	execve(program, argv, env);
}

/* Only what the dynamic linker and the library need, if they are there. */
static char **sparse_environment(void)
{
	static char *env[8];
	int n = 0;

	for (char **e = environ; *e && n < 6; e++)
		if (!strncmp(*e, "LD_PRELOAD=", 11) || !strncmp(*e, "MQNS_DIR=", 9))
			env[n++] = *e;
	env[n++] = "NS_TREE=1";
	env[n] = NULL;
	return env;
}

static void exec_in_place(int mode)
{
	char number[16], sock[16];
	char *argv[] = {program, "--task", number, address, sock, NULL};

	sprintf(number, "%d", my_label);
	sprintf(sock, "%d", my_sock);
	fcntl(my_sock, F_SETFD, 0);
	if (mode == 0)
		execv(program, argv);
	else if (mode == 1)
		execve(program, argv, sparse_environment());
	else if (mode == 2)
		execlp(program, program, "--task", number, address, sock, (char *)NULL);
	else {
		int fd = open(program, O_RDONLY | O_CLOEXEC);
		fexecve(fd, argv, environ);
		int e = errno;
		close(fd);
		errno = e;
	}
	int e = errno;
	fcntl(my_sock, F_SETFD, FD_CLOEXEC);
	errno = e;
}

/* A child made by fork: only its own thread, and nothing of its parent's connections. */
static void child(int label) __attribute__((noreturn));
static void child(int label)
{
	for (int i = 0; i < nsocks; i++)
		close(socks[i]);
	nsocks = 0;
	task(label);
}

static int child_fn(void *arg)
{
	child((int)(intptr_t)arg);
}

struct vm_child {
	int label, unshare;
	/* Why it didn't get there. */
	volatile int error;
};

static int vm_child_fn(void *arg)
{
	struct vm_child *c = arg;

	if (!c->unshare || !unshare(CLONE_NEWIPC))
		exec_new(c->label, environ);
	c->error = errno;
	_exit(127);
}

static void made_vm(pid_t p, struct vm_child *c)
{
	if (p > 0 && c->error)
		add("child: %s", strerrorname_np(c->error) ?: "?");
	else
		made(p);
}

static void *thread_fn(void *arg)
{
	task((int)(intptr_t)arg);
}

static void in_shell(int label, char *line)
{
	sprintf(line, "'%s' --task %d %s </dev/null >/dev/null 2>&1 &", program, label, address);
}

/* Double fork; the grandchild belongs to whoever reaps orphans. */
static int orphan(int label, int daemon)
{
	pid_t p = fork();

	if (p == 0) {
		if (daemon)
			setsid();
		p = fork();
		if (p)
			_exit(p < 0);
		if (daemon == 1)
			closefrom(3);
		else if (daemon == 2)
			for (int fd = 1023; fd > 2; fd--)
				close(fd);
		if (daemon)
			nsocks = 0;
		child(label);
	}
	int st = -1;
	if (p > 0)
		waitpid(p, &st, 0);
	return p < 0 || st ? -1 : 0;
}

static int drop(void)
{
	if (setgroups(0, NULL) || setgid(NOBODY) || setuid(NOBODY))
		return -1;
	return 0;
}

/* Carries out one operation; the reply is what it leaves there. *fd goes along with the reply. */
static void act(char *text, int got, int *give)
{
	char *w[WORDS] = {0}, path[PATH_MAX], buf[PATH_MAX], name[16];
	int words = split(text, w);
	struct stat st;
	long n[WORDS] = {0};

	for (int i = 1; i < words; i++)
		n[i] = strtol(w[i], NULL, 0);
#define IS(s) (!strcmp(w[0], s))
	/* Making tasks: the new one's label comes first. */
	if (IS("fork")) {
		pid_t p = fork();
		if (p == 0)
			child(n[1]);
		made(p);
	} else if (IS("vfork")) {
		struct vm_child c = {n[1], n[2], 0};
		pid_t p = vfork();
		if (p == 0)
			vm_child_fn(&c);
		made_vm(p, &c);
	} else if (IS("clone")) {
		char *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		made(clone(child_fn, stack + STACK, n[2] | SIGCHLD, (void *)n[1]));
		munmap(stack, STACK);
	} else if (IS("clonevm")) {
		struct vm_child c = {n[1], 0, 0};
		char *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		made_vm(clone(vm_child_fn, stack + STACK, n[2] | CLONE_VM | CLONE_VFORK | SIGCHLD, &c), &c);
		munmap(stack, STACK);
	} else if (IS("rawclone")) {
		long p = syscall(SYS_clone, n[2] | SIGCHLD, 0L, 0L, 0L, 0L);
		if (p == 0)
			child(n[1]);
		made(p);
	} else if (IS("spawn")) {
		char number[16];
		char *argv[] = {program, "--task", number, address, NULL};
		pid_t p;
		sprintf(number, "%ld", n[1]);
		int e = (n[2] ? posix_spawnp : posix_spawn)(&p, program, NULL, NULL, argv, environ);
		errno = e;
		result(e ? -1 : 0);
	} else if (IS("system")) {
		in_shell(n[1], buf);
		result(system(buf));
	} else if (IS("popen")) {
		in_shell(n[1], buf);
		FILE *f = popen(buf, n[2] ? "w" : "r");
		result(f ? pclose(f) : -1);
	} else if (IS("orphan")) {
		result(orphan(n[1], n[2]));
	} else if (IS("thread")) {
		pthread_attr_t a;
		pthread_t t;
		pthread_attr_init(&a);
		pthread_attr_setdetachstate(&a, PTHREAD_CREATE_DETACHED);
		pthread_attr_setstacksize(&a, STACK);
		int e = pthread_create(&t, &a, thread_fn, (void *)n[1]);
		errno = e;
		result(e ? -1 : 0);
	} else if (IS("exec")) {
		exec_in_place(n[1]);
		result(-1);
	}
	/* Ending them. */
	else if (IS("exit"))
		exit(n[1]);
	else if (IS("_exit"))
		_exit(n[1]);
	else if (IS("abort"))
		abort();
	else if (IS("texit"))
		pthread_exit(NULL);
	else if (IS("cancel")) {
		int e = pthread_cancel(thread_of[n[1]]);
		errno = e;
		result(e ? -1 : 0);
	}
	/* Namespaces. */
	else if (IS("unshare")) {
		if (result(unshare(n[1])))
			add(n[1] & CLONE_NEWIPC ? " {!%lu}" : " {%lu}", own_namespace());
		else
			add_own();
	} else if (IS("newuser")) {
		unsigned uid = geteuid(), gid = getegid();
		if (result(unshare(CLONE_NEWUSER | n[1])))
			add(n[1] & CLONE_NEWIPC ? " {!%lu}" : " {%lu}", own_namespace());
		else
			add_own();
		if (n[2])
			result(map_ids(uid, gid));
	} else if (IS("nsopen")) {
		int fd = settle(ns_open(n[2], w[3], n[4] ? O_PATH : O_RDONLY), NS_SLOT + n[1], n[5]);
		if (made(fd) && n[2] != OF_UTS && result(fstat(fd, &st)))
			add(" {%lu}", (unsigned long)st.st_ino);
	} else if (IS("nsclose")) {
		result(close(NS_SLOT + n[1]));
	} else if (IS("nsstat")) {
		struct statfs fs;
		if (result(fstat(NS_SLOT + n[1], &st)) && result(fstatfs(NS_SLOT + n[1], &fs))) {
			if (S_ISREG(st.st_mode))
				add(" fs %lx", (unsigned long)fs.f_type);
			int type = ioctl(NS_SLOT + n[1], NS_GET_NSTYPE);
			if (type == CLONE_NEWIPC)
				add_stat(&st);
			else if (type >= 0)
				add(" type %x", (unsigned)type);
			else
				result(-1);
		}
	} else if (IS("nslink")) {
		sprintf(path, "/proc/self/fd/%ld", NS_SLOT + n[1]);
		ssize_t len = readlink(path, buf, sizeof buf - 1);
		if (made(len)) {
			buf[len] = 0;
			add_link(buf);
		}
	} else if (IS("setns")) {
		result(setns(NS_SLOT + n[1], n[2]));
		add_own();
	} else if (IS("setnsmq")) {
		result(setns(MQ_SLOT + n[1], n[2]));
		add_own();
	} else if (IS("enter")) {
		/* As nsenter does. */
		int fd = ns_open(n[1], w[2], O_RDONLY | O_CLOEXEC);
		if (made(fd)) {
			result(setns(fd, n[3]));
			close(fd);
		}
		add_own();
	} else if (IS("enterpid")) {
		int fd = syscall(SYS_pidfd_open, atoi(w[1]), 0);
		if (made(fd)) {
			result(setns(fd, n[2]));
			close(fd);
		}
		add_own();
	} else if (IS("readlink")) {
		ssize_t len = readlink(ns_path(n[1], w[2], path), buf, sizeof buf - 1);
		if (made(len)) {
			buf[len] = 0;
			add_link(buf);
		}
	} else if (IS("stat")) {
		if (result(stat(ns_path(n[1], w[2], path), &st)) && n[1] != OF_UTS)
			add_stat(&st);
	} else if (IS("drop")) {
		result(drop());
	}
	/* Queues. */
	else if (IS("open")) {
		/* slot name oflag mode maxmsg msgsize cloexec */
		struct mq_attr a = {.mq_maxmsg = n[5], .mq_msgsize = n[6]};
		int q = mq_open(queue_name(w[2], name), n[3] | O_NONBLOCK, (mode_t)n[4], &a);
		made(settle(q, MQ_SLOT + n[1], n[7]));
	} else if (IS("unlink")) {
		result(mq_unlink(queue_name(w[1], name)));
	} else if (IS("close")) {
		result(mq_close(MQ_SLOT + n[1]));
	} else if (IS("send")) {
		snprintf(buf, sizeof buf, "%s.t%d", w[2], my_label);
		result(mq_send(MQ_SLOT + n[1], buf, strlen(buf), n[3]));
	} else if (IS("receive")) {
		unsigned prio = 0;
		ssize_t len = mq_receive(MQ_SLOT + n[1], buf, sizeof buf - 1, &prio);
		if (result(len)) {
			buf[len] = 0;
			add(" %s prio %u", buf, prio);
		}
	} else if (IS("attr")) {
		struct mq_attr a;
		if (result(mq_getattr(MQ_SLOT + n[1], &a)))
			add(" %ldx%ld has %ld flags %lx", a.mq_maxmsg, a.mq_msgsize, a.mq_curmsgs, a.mq_flags);
	} else if (IS("mqstat")) {
		if (result(fstat(MQ_SLOT + n[1], &st)))
			add(" mode %o nlink %lu uid %u size %ld", st.st_mode, (unsigned long)st.st_nlink, st.st_uid,
			    (long)st.st_size);
	} else if (IS("probe")) {
		probe();
	} else if (IS("default")) {
		default_queue();
	} else if (IS("limits")) {
		for (int i = 0; i < LIMITS; i++)
			if (read_limit(limits[i], buf, sizeof buf))
				result(-1);
			else
				add("%s%s", i ? " " : "", buf);
	} else if (IS("setlimit")) {
		result(write_limit(w[1], w[2], n[3]));
		if (!read_limit(w[1], buf, sizeof buf))
			add(" %s", buf);
	} else if (IS("count")) {
		count_queues();
	}
	/* Descriptors on their way. */
	else if (IS("give")) {
		*give = (*w[1] == 'n' ? NS_SLOT : MQ_SLOT) + n[2];
		result(fcntl(*give, F_GETFD) < 0 ? -1 : 0);
	} else if (IS("take")) {
		made(settle(got, (*w[1] == 'n' ? NS_SLOT : MQ_SLOT) + n[2], 1));
	} else {
		add("what is %s?", w[0]);
	}
#undef IS
}

static void say_hello(void)
{
	char hello[128];

	snprintf(hello, sizeof hello, "hello %d %d %d %lu", my_label, getpid(), (int)gettid(), own_namespace());
	if (send_packet(my_sock, hello, -1) < 0)
		_exit(2);
}

static void serve(void) __attribute__((noreturn));
static void serve(void)
{
	char text[TEXT];
	int got, give;

	for (;;) {
		if (receive_packet(my_sock, text, &got) <= 0)
			_exit(0);
		*reply = 0;
		give = -1;
		act(text, got, &give);
		/* What cannot be given is an answer like any other. */
		if (send_packet(my_sock, *reply ? reply : "-", give) < 0 && errno == EBADF)
			send_packet(my_sock, reply, -1);
	}
}

static void enlist(int label, int sock)
{
	my_label = label;
	my_sock = sock;
	socks[nsocks++ % TASKS] = sock;
	thread_of[label] = pthread_self();
	say_hello();
	serve();
}

static socklen_t make_address(struct sockaddr_un *a)
{
	memset(a, 0, sizeof *a);
	a->sun_family = AF_UNIX;
	strncpy(a->sun_path + 1, address, sizeof a->sun_path - 2);
	return offsetof(struct sockaddr_un, sun_path) + 1 + strlen(address);
}

static void task(int label)
{
	struct sockaddr_un a;
	socklen_t len = make_address(&a);
	int s = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	if (s < 0 || connect(s, (struct sockaddr *)&a, len))
		_exit(2);
	enlist(label, s);
	_exit(2);
}

/* ---- coordinator ---------------------------------------------------------------------------- */

struct process {
	pid_t pid;
	int pidfd, tasks, dropped;
	/* Its main thread may have a stale idea of itself, as the C library says of clone(). */
	int raw;
	/* The main thread has gone ahead. */
	int headless;
	/* Slots that are probably in use, as bits, and those of them that exec closes. */
	unsigned used[2], cloexec[2];
};

static struct known {
	int used, alive, sock;
	pid_t pid, tid;
	struct process *of;
	unsigned long ino;
} known[TASKS];
static struct process processes[TASKS];

static int listener, labels, violent, deaths, failed;
/* Canonical numbers of namespaces, by inode number; the latest stands. */
static struct {
	unsigned long ino;
	int number;
} spaces[SPACES];
static int nspaces, next_space;

static int alive_tasks(void)
{
	int n = 0;
	for (int i = 0; i < labels; i++)
		n += known[i].alive;
	return n;
}

/* A namespace just made: it has a number of its own even where an earlier one had the inode. Nobody
 * else is in it, and its maker (here -1) has left another one for it. */
static const char *new_space(unsigned long ino, int newborn)
{
	const char *clash = "";
	int i;

	for (i = 0; i < labels; i++)
		if (i != newborn && known[i].alive && known[i].ino == ino)
			clash = " that is not new";
	for (i = 0; i < nspaces && spaces[i].ino != ino; i++)
		;
	if (i == SPACES) {
		errno = ENOSPC;
		die("namespaces");
	}
	if (i == nspaces)
		nspaces++;
	spaces[i].ino = ino;
	spaces[i].number = next_space++;
	return clash;
}

static int space(unsigned long ino)
{
	for (int i = 0; i < nspaces; i++)
		if (spaces[i].ino == ino)
			return spaces[i].number;
	return -1;
}

/* Inode numbers {1234} in an answer as N2, {!1234} as the number of a new one. */
static void canonical(const char *in, char *out, int t, int moves)
{
	char *end;

	while (*in) {
		if (*in != '{') {
			*out++ = *in++;
			continue;
		}
		int fresh = *++in == '!';
		unsigned long ino = strtoul(in + fresh, &end, 10);
		const char *clash = fresh ? new_space(ino, -1) : "";
		if (moves)
			known[t].ino = ino;
		int number = space(ino);
		out += number < 0 ? sprintf(out, "N?") : sprintf(out, "N%d%s", number, clash);
		in = end + (*end == '}');
	}
	*out = 0;
}

static int readable(int fd)
{
	struct pollfd p = {fd, POLLIN, 0};
	int r;

	while ((r = poll(&p, 1, patience)) < 0 && errno == EINTR)
		;
	return r == 1;
}

/* What a task that does not answer is at. */
static void stuck(const char *what, int t, char *out)
{
	char path[64], call[64] = "";

	failed = 1;
	if (t >= 0) {
		sprintf(path, "/proc/%d/task/%d/syscall", known[t].pid, known[t].tid);
		int fd = open(path, O_RDONLY);
		if (fd >= 0 && read(fd, call, sizeof call - 1) > 0)
			call[strcspn(call, " \n")] = 0;
	}
	sprintf(out, "STUCK: %s (system call %s)", what, call);
}

/* The greeting of the new task t, or of its new image on the socket it has. */
static int hello(int t, int sock, int fresh, char *out)
{
	char text[TEXT];
	int label = -1, fd;
	pid_t pid, tid;
	unsigned long ino;

	if (sock < 0) {
		if (!readable(listener)) {
			stuck("no new task came", -1, out);
			return -1;
		}
		sock = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	}
	if (!readable(sock) || receive_packet(sock, text, &fd) <= 0 ||
	    sscanf(text, "hello %d %d %d %lu", &label, &pid, &tid, &ino) != 4 || label != t) {
		stuck("no hello", -1, out);
		return -1;
	}
	known[t] = (struct known){.used = 1, .alive = 1, .sock = sock, .pid = pid, .tid = tid, .of = known[t].of, .ino = ino};
	const char *clash = fresh ? new_space(ino, t) : "";
	sprintf(out, "0 N%d%s", space(ino), clash);
	if (space(ino) < 0)
		sprintf(out, "0 N?");
	return 0;
}

static void adopt(int t)
{
	struct process *p = &processes[t];

	*p = (struct process){.pid = known[t].pid, .tasks = 1};
	p->pidfd = syscall(SYS_pidfd_open, p->pid, 0);
	if (p->pidfd < 0)
		die("pidfd_open");
	fcntl(p->pidfd, F_SETFD, FD_CLOEXEC);
	known[t].of = p;
}

static void forget(int t)
{
	known[t].alive = 0;
	close(known[t].sock);
	known[t].of->tasks--;
}

/* The end of a whole process. */
static void await_process(struct process *p, char *out)
{
	if (!readable(p->pidfd)) {
		stuck("does not die", p - processes, out);
		return;
	}
	for (int i = 0; i < labels; i++)
		if (known[i].alive && known[i].of == p)
			forget(i);
	deaths++;
	strcpy(out, "gone");
}

static char main_state(pid_t pid)
{
	char path[64], text[512];

	sprintf(path, "/proc/%d/task/%d/stat", pid, pid);
	int fd = open(path, O_RDONLY);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	if (fd >= 0)
		close(fd);
	if (n <= 0)
		return 0;
	text[n] = 0;
	char *paren = strrchr(text, ')');
	return paren ? paren[2] : 0;
}

/* The end of one thread. */
static void await_thread(int t, char *out)
{
	struct process *p = known[t].of;
	struct timespec pause = {0, 50000};

	if (p->tasks == 1) {
		await_process(p, out);
		return;
	}
	/* Nothing announces it: look again and again. */
	for (long i = 0; i < patience * 10L; i++) {
		int gone = known[t].tid == known[t].pid ? main_state(known[t].pid) == 'Z'
							: syscall(SYS_tgkill, known[t].pid, known[t].tid, 0) != 0;
		if (gone) {
			if (known[t].tid == known[t].pid)
				p->headless = 1;
			forget(t);
			deaths++;
			strcpy(out, "gone");
			return;
		}
		nanosleep(&pause, NULL);
	}
	stuck("thread does not end", t, out);
}

/* Sends a command and gets its answer. */
static int ask(int t, const char *text, int fd, char *answer, int *got)
{
	if (send_packet(known[t].sock, text, fd) < 0) {
		stuck("cannot be told", t, answer);
		return -1;
	}
	*got = -1;
	if (!readable(known[t].sock)) {
		stuck("no answer", t, answer);
		return -1;
	}
	if (receive_packet(known[t].sock, answer, got) <= 0) {
		failed = 1;
		strcpy(answer, "DIED");
		return -1;
	}
	return 0;
}

/* A label's number, -1 if it isn't one. */
static int number_of(const char *word, char kind)
{
	char *end;

	if (!word || *word != kind)
		return -1;
	long n = strtol(word + 1, &end, 10);
	return *end || n < 0 || n >= TASKS ? -1 : n;
}

static int slot_kind(const char *word)
{
	return *word == 'm';
}

/* What is in use, as far as results tell. */
static void slot_filled(struct process *p, int kind, int slot, int cloexec)
{
	p->used[kind] |= 1u << slot;
	p->cloexec[kind] = (p->cloexec[kind] & ~(1u << slot)) | (unsigned)!!cloexec << slot;
}

static int one_of(const char *word, const char *list)
{
	char with[40];

	snprintf(with, sizeof with, " %s ", word);
	return strstr(list, with) != NULL;
}

static void own_operation(char **w, char *out)
{
	int t = number_of(w[2], 't'), new = number_of(w[2], '+');

	if (!strcmp(w[1], "spawn") && new >= 0 && !known[new].used) {
		pid_t p = fork();
		if (p < 0)
			die("fork");
		if (p == 0) {
			closefrom(3);
			nsocks = 0;
			task(new);
		}
		if (labels <= new)
			labels = new + 1;
		if (!hello(new, -1, 0, out))
			adopt(new);
	} else if (!strcmp(w[1], "signal") && t >= 0 && known[t].alive) {
		violent = 1;
		kill(known[t].pid, atoi(w[3]));
		await_process(known[t].of, out);
	} else
		strcpy(out, "not possible");
}

/* Carries out one line and leaves its result. */
static void execute(const char *line, char *out)
{
	char copy[TEXT], text[TEXT] = "", answer[TEXT], *w[WORDS] = {0};
	int got = -1, words, t;

	snprintf(copy, sizeof copy, "%s", line);
	words = split(copy, w);
	if (words < 2) {
		strcpy(out, "not possible");
		return;
	}
	if (!strcmp(w[0], "c")) {
		own_operation(w, out);
		return;
	}
	t = number_of(w[0], 't');
	if (t < 0 || !known[t].alive) {
		strcpy(out, "no such task");
		return;
	}
	struct process *p = known[t].of;
	int single = p->tasks == 1 && !p->headless;
	int new = number_of(w[2], '+'), target = -1;

	/* Tasks are named by number here and by process and thread there. */
	for (int i = 1; i < words; i++) {
		int other = number_of(w[i], 't');
		size_t at = strlen(text);
		if (other >= 0 && !known[other].used) {
			strcpy(out, "no such target");
			return;
		}
		if (other >= 0) {
			target = other;
			snprintf(text + at, sizeof text - at, "%s%d:%d", i > 1 ? " " : "", known[other].pid, known[other].tid);
		} else
			snprintf(text + at, sizeof text - at, "%s%s", i > 1 ? " " : "", *w[i] == '+' ? w[i] + 1 : w[i]);
	}

	if (one_of(w[1], " fork vfork clone clonevm rawclone spawn system popen orphan thread ")) {
		if (new < 0 || known[new].used) {
			strcpy(out, "not possible");
			return;
		}
		long flags = w[3] ? strtol(w[3], NULL, 0) : 0;
		int fresh = one_of(w[1], " clone clonevm rawclone ") ? !!(flags & CLONE_NEWIPC)
								   : !strcmp(w[1], "vfork") && flags;
		if (ask(t, text, -1, answer, &got) || *answer != '0') {
			strcpy(out, answer);
			return;
		}
		if (labels <= new)
			labels = new + 1;
		if (hello(new, -1, fresh, out))
			return;
		if (!strcmp(w[1], "thread")) {
			known[new].of = p;
			p->tasks++;
		} else {
			adopt(new);
			processes[new].dropped = p->dropped;
			for (int i = 0; i < 2; i++) {
				int forked = one_of(w[1], " fork clone rawclone ") || (!strcmp(w[1], "orphan") && !flags);
				processes[new].used[i] = strcmp(w[1], "orphan") && !forked ? p->used[i] & ~p->cloexec[i]
									: forked ? p->used[i] : 0;
				processes[new].cloexec[i] = forked ? p->cloexec[i] : 0;
			}
			processes[new].raw = one_of(w[1], " clone rawclone ");
		}
	} else if (!strcmp(w[1], "exec")) {
		if (send_packet(known[t].sock, text, -1) < 0 || !readable(known[t].sock)) {
			stuck("exec", t, out);
			return;
		}
		int others = p->tasks > 1;
		unsigned long before = known[t].ino;
		char first[8] = "";
		recv(known[t].sock, first, sizeof first - 1, MSG_PEEK);
		if (strncmp(first, "hello", 5)) {
			receive_packet(known[t].sock, answer, &got);
			strcpy(out, answer);
			return;
		}
		for (int i = 0; i < labels; i++)
			if (i != t && known[i].alive && known[i].of == p)
				forget(i);
		if (hello(t, known[t].sock, 0, out))
			return;
		if (known[t].pid != p->pid || known[t].tid != p->pid)
			strcat(out, " with another number");
		if (known[t].ino != before)
			strcat(out, " moved");
		p->raw = p->headless = 0;
		for (int i = 0; i < 2; i++) {
			p->used[i] &= ~p->cloexec[i];
			p->cloexec[i] = 0;
		}
		if (others) {
			violent = 1;
			deaths++;
		}
	} else if (one_of(w[1], " exit _exit abort texit ")) {
		if (!strcmp(w[1], "abort") || (!strcmp(w[1], "texit") && p->raw))
			violent = 1;
		send_packet(known[t].sock, text, -1);
		if (!strcmp(w[1], "texit"))
			await_thread(t, out);
		else
			await_process(p, out);
	} else if (!strcmp(w[1], "cancel")) {
		if (target < 0 || target == t || !known[target].alive || known[target].of != p ||
		    (p->raw && known[target].tid == p->pid)) {
			strcpy(out, "not possible");
			return;
		}
		sprintf(text, "cancel %d", target);
		if (!ask(t, text, -1, answer, &got) && *answer == '0')
			await_thread(target, out);
		else
			strcpy(out, answer);
	} else if (!strcmp(w[1], "pass")) {
		/* n|m slot tN slot */
		if (target < 0 || !known[target].alive || words < 6) {
			strcpy(out, "not possible");
			return;
		}
		sprintf(text, "give %s %s", w[2], w[3]);
		if (ask(t, text, -1, answer, &got) || got < 0) {
			strcpy(out, answer);
			return;
		}
		int fd = got;
		sprintf(text, "take %s %s", w[2], w[5]);
		ask(target, text, fd, answer, &got);
		if (*answer == '0')
			slot_filled(known[target].of, slot_kind(w[2]), atoi(w[5]), 1);
		strcpy(out, answer);
		close(fd);
	} else {
		if ((one_of(w[1], " drop newuser ") || (!strcmp(w[1], "unshare") && strtol(w[2], NULL, 0) & CLONE_FILES)) && !single) {
			strcpy(out, "not possible");
			return;
		}
		if (ask(t, text, -1, answer, &got)) {
			strcpy(out, answer);
			return;
		}
		if (*answer == '0') {
			if (!strcmp(w[1], "drop"))
				p->dropped = 1;
			else if (!strcmp(w[1], "open"))
				slot_filled(p, 1, atoi(w[2]), atoi(w[8]));
			else if (!strcmp(w[1], "nsopen"))
				slot_filled(p, 0, atoi(w[2]), atoi(w[6]));
			else if (one_of(w[1], " close nsclose "))
				p->used[*w[1] == 'c'] &= ~(1u << atoi(w[2]));
		}
		canonical(answer, out, t, one_of(w[1], " unshare newuser setns setnsmq enter enterpid "));
	}
}

/* ---- what happens next ---------------------------------------------------------------------- */

static uint64_t state;

static unsigned below(unsigned n)
{
	/* splitmix64 */
	uint64_t z = state += 0x9e3779b97f4a7c15;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return (z ^ z >> 31) % n;
}

#define PICK(...) ((const long[]){__VA_ARGS__}[below(sizeof((const long[]){__VA_ARGS__}) / sizeof(long))])
#define WORD(...) ((const char *[]){__VA_ARGS__}[below(sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *))])

static int pick_alive(void)
{
	int n = below(alive_tasks());

	for (int i = 0; i < labels; i++)
		if (known[i].alive && n-- == 0)
			return i;
	return 0;
}

/* A task to look at: mostly a living one. */
static int pick_target(void)
{
	return below(8) ? pick_alive() : (int)below(labels);
}

static int pick_mate(int t)
{
	int n = below(TASKS), found = -1;

	for (int i = 0; i < labels; i++)
		if (i != t && known[i].alive && known[i].of == known[t].of && (found < 0 || n-- % 3 == 0))
			found = i;
	return found;
}

/* A slot: mostly one that is in use. */
static int pick_slot(int t, int kind)
{
	unsigned used = known[t].of->used[kind];
	int slots = kind ? MQ_SLOTS : NS_SLOTS, n = below(slots);

	if (!used || !below(10))
		return n;
	while (!(used & 1u << n))
		n = (n + 1) % slots;
	return n;
}

static const char *pick_name(void)
{
	return WORD("a", "a", "a", "b", "b", "c", "d");
}

enum kind { MAKE, END, SPACE, LOOK, QUEUE, LIMIT, PASS, DROP };

static void generate(char *line, int calm, int users, int number)
{
	static int looks;
	int alive = alive_tasks();

	if (!alive || (below(60) == 0 && alive < ALIVE && labels < TASKS)) {
		sprintf(line, "c spawn +%d", labels);
		return;
	}
	/* Each kind's part of a hundred. */
	int part = below(100);
	enum kind kind = part < 12 ? MAKE : part < 20 ? END : part < 42 ? SPACE : part < 54 ? LOOK : part < 84 ? QUEUE
			 : part < 92 ? LIMIT : part < (users ? 95 : 98) ? PASS : DROP;
	if (kind == MAKE && (alive >= ALIVE || labels >= TASKS))
		kind = END;
	if (kind == END && alive < 3)
		kind = labels < TASKS ? MAKE : QUEUE;
	/* After a death, those who are left say what is still there. */
	if (deaths) {
		deaths = 0;
		looks = 2;
	} else if (looks && kind != SPACE) {
		looks--;
		kind = below(3) ? LOOK : LIMIT;
	}
	int t = pick_alive();
	/* Somebody who has what the operation is about. */
	if (kind == SPACE || kind == QUEUE || kind == PASS)
		for (int i = 0; i < 6 && !known[t].of->used[kind == QUEUE || (kind == PASS && number % 2)]; i++)
			t = pick_alive();
	char *start = line;
	line += sprintf(line, "t%d ", t);
	const long newipc = CLONE_NEWIPC;
	switch (kind) {
	case MAKE:
		switch (below(15)) {
		case 0:
			sprintf(line, "fork +%d", labels);
			break;
		case 1:
			sprintf(line, "vfork +%d %d", labels, below(3) == 0);
			break;
		case 2:
		case 3:
			sprintf(line, "clone +%d %#lx", labels,
				PICK(0, newipc, newipc, newipc | CLONE_FS, newipc | CLONE_NEWUTS, newipc | CLONE_IO,
				     newipc | CLONE_SYSVSEM, newipc | CLONE_NEWNS | CLONE_FS, newipc | CLONE_SIGHAND));
			break;
		case 4:
			sprintf(line, "clonevm +%d %#lx", labels, PICK(0, newipc, newipc, newipc | CLONE_SYSVSEM));
			break;
		case 5:
		case 6:
			sprintf(line, "rawclone +%d %#lx", labels,
				PICK(0, newipc, newipc, newipc | CLONE_NEWUTS, newipc | CLONE_SYSVSEM,
				     newipc | CLONE_THREAD));
			break;
		case 7:
			sprintf(line, "spawn +%d %d", labels, below(2));
			break;
		case 8:
			sprintf(line, "%s +%d %d", WORD("system", "popen"), labels, below(2));
			break;
		case 9:
			sprintf(line, "orphan +%d %d", labels, below(3));
			break;
		default:
			sprintf(line, "thread +%d", labels);
		}
		break;
	case END: {
		int mate = pick_mate(t), raw = known[t].of->raw;
		switch (below(calm ? 9 : 12)) {
		case 0:
			sprintf(line, "exit %d", below(3));
			break;
		case 1:
			sprintf(line, "_exit %d", below(3));
			break;
		case 2:
		case 3:
			sprintf(line, calm && raw ? "exit 0" : "texit");
			break;
		case 4:
		case 5:
			if (mate >= 0) {
				sprintf(line, "cancel t%d", mate);
				break;
			}
			/* fall through */
		case 6:
		case 7:
		case 8:
			if (!calm || mate < 0) {
				sprintf(line, "exec %d", below(4));
				break;
			}
			sprintf(line, raw ? "exit 0" : "texit");
			break;
		case 9:
			sprintf(line, "abort");
			break;
		default:
			sprintf(start, "c signal t%d %d", t,
				below(4) ? SIGKILL : SIGTERM);
		}
		break;
	}
	case SPACE: {
		long types = PICK(0, newipc, newipc, newipc, newipc, CLONE_NEWUTS, newipc | CLONE_NEWUTS);
		long harmless = PICK(0, 0, CLONE_SYSVSEM, CLONE_FS, CLONE_FILES, CLONE_NEWUTS, CLONE_NEWNS);
		switch (below(12)) {
		case 0:
		case 1:
			sprintf(line, "unshare %#lx", newipc | harmless | (below(4) ? 0 : CLONE_FS | CLONE_SYSVSEM));
			break;
		case 2:
			sprintf(line, "unshare %#lx",
				PICK(0, harmless, newipc | 1, newipc | CLONE_PARENT, newipc | CLONE_VM,
				     newipc | CLONE_THREAD, newipc | CLONE_SIGHAND, newipc | CLONE_VFORK));
			break;
		case 3:
		case 4:
		case 5:
			sprintf(line, "nsopen %d %ld t%d %d %d", below(NS_SLOTS),
				PICK(OF_PROCESS, OF_TASK, OF_TASK, OF_SELF, OF_THREAD_SELF, OF_DIRECTORY, OF_UTS),
				pick_target(), below(9) == 0, below(2));
			break;
		case 6:
			sprintf(line, "nsclose %d", pick_slot(t, 0));
			break;
		case 7:
		case 8:
			sprintf(line, "setns %d %#lx", pick_slot(t, 0), types);
			break;
		case 9:
			sprintf(line, "enter %ld t%d %#lx",
				PICK(OF_PROCESS, OF_TASK, OF_TASK, OF_DIRECTORY, OF_SELF, OF_UTS), pick_target(), types);
			break;
		case 10:
			sprintf(line, "enterpid t%d %#lx", pick_target(), types);
			break;
		default:
			if (below(3))
				sprintf(line, "setns %d %#lx", pick_slot(t, 0), below(2) * newipc);
			else
				sprintf(line, "setnsmq %d %#lx", pick_slot(t, 1), types);
		}
		break;
	}
	case LOOK:
		switch (below(8)) {
		case 0:
		case 1:
			sprintf(line, "readlink %d t%d", below(ROADS), pick_target());
			break;
		case 2:
			sprintf(line, "stat %d t%d", below(ROADS), pick_target());
			break;
		case 3:
			sprintf(line, "nsstat %d", pick_slot(t, 0));
			break;
		case 4:
			sprintf(line, "nslink %d", pick_slot(t, 0));
			break;
		default:
			sprintf(line, "probe");
		}
		break;
	case QUEUE:
		switch (below(12)) {
		case 0:
		case 1:
		case 2:
			sprintf(line, "open %d %s %#lx 0%lo %ld %ld %d", below(MQ_SLOTS), pick_name(),
				PICK(O_CREAT, O_CREAT, O_CREAT | O_EXCL) | PICK(O_RDWR, O_RDWR, O_RDWR, O_RDONLY, O_WRONLY),
				PICK(0600, 0600, 0644, 0666, 0666, 0000), PICK(1, 2, 2, 4, 4, 10, 11),
				PICK(16, 32, 32, 32, 32, 128, 129, 8193), below(2));
			break;
		case 3:
		case 4:
			sprintf(line, "open %d %s %#lx 0 0 0 %d", below(MQ_SLOTS), pick_name(),
				PICK(O_RDWR, O_RDWR, O_RDONLY, O_WRONLY), below(2));
			break;
		case 5:
			sprintf(line, "unlink %s", pick_name());
			break;
		case 6:
			sprintf(line, "close %d", pick_slot(t, 1));
			break;
		case 7:
		case 8:
			sprintf(line, "send %d m%d %d", pick_slot(t, 1), number, below(4));
			break;
		case 9:
			sprintf(line, "receive %d", pick_slot(t, 1));
			break;
		case 10:
			sprintf(line, "attr %d", pick_slot(t, 1));
			break;
		default:
			sprintf(line, "mqstat %d", pick_slot(t, 1));
		}
		break;
	case LIMIT:
		switch (below(6)) {
		case 0:
			sprintf(line, "limits");
			break;
		case 1:
			sprintf(line, "default");
			break;
		case 2:
		case 3:
			sprintf(line, "count");
			break;
		default:
		{
			int i = below(LIMITS);
			const char *value = i == 0 ? WORD("0", "1", "3", "5", "256", "256", "-1", "x")
					    : strstr(limits[i], "size")
						    ? WORD("127", "128", "128", "256", "256", "8192", "16777217", "x")
						    : WORD("0", "1", "2", "3", "5", "10", "10", "65537", "-1");
			sprintf(line, "setlimit %s %s %ld", limits[i], value, PICK(0, 0, 0, 1, 1, 2));
		}
		}
		break;
	case PASS: {
		int space = number % 2 == 0;
		sprintf(line, "pass %c %d t%d %d", space ? 'n' : 'm', pick_slot(t, !space), pick_alive(),
			below(space ? NS_SLOTS : MQ_SLOTS));
		break;
	}
	case DROP:
		if (users && below(2))
			sprintf(line, "newuser %#lx %d", below(3) ? newipc : 0, below(3) > 0);
		else
			sprintf(line, "drop");
	}
}

static void step(const char *line)
{
	char out[2 * TEXT];

	execute(line, out);
	printf("%s -> %s\n", line, out);
	fflush(stdout);
	if (!failed)
		return;
	/* The rest would mean nothing; and nobody may be left. */
	for (int i = 0; i < labels; i++)
		if (known[i].alive)
			kill(known[i].pid, SIGKILL);
	exit(1);
}

/* Namespaces whose tasks were killed are found by whoever makes a namespace or a queue. */
static void look(void)
{
	struct mq_attr attr = {.mq_maxmsg = 1, .mq_msgsize = 16};

	for (int i = 0; i < 3; i++) {
		pid_t p = fork();
		if (p == 0)
			_exit(unshare(CLONE_NEWIPC));
		waitpid(p, NULL, 0);
		mqd_t q = mq_open("/look", O_CREAT | O_RDWR, 0600, &attr);
		if (q != -1)
			mq_close(q);
		mq_unlink("/look");
	}
}

static void coordinate(int argc, char **argv)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	socklen_t len = sizeof a;
	struct rlimit no_core = {0, 0};
	struct stat st;
	char line[TEXT];

	/* An address that the kernel chooses. */
	listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (listener < 0 || bind(listener, (struct sockaddr *)&a, sizeof a.sun_family) || listen(listener, 16) ||
	    getsockname(listener, (struct sockaddr *)&a, &len))
		die("socket");
	snprintf(address, sizeof address, "%.*s", (int)(len - offsetof(struct sockaddr_un, sun_path) - 1), a.sun_path + 1);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	setrlimit(RLIMIT_CORE, &no_core);
	umask(022);
	if (stat("/proc/self/ns/ipc", &st))
		die("/proc/self/ns/ipc");
	new_space(st.st_ino, -1);

	if (!strcmp(argv[1], "-f")) {
		FILE *f = fopen(argv[2], "r");
		if (!f)
			die(argv[2]);
		while (fgets(line, sizeof line, f)) {
			char *arrow = strstr(line, " -> ");
			line[arrow ? (size_t)(arrow - line) : strcspn(line, "\n")] = 0;
			step(line);
		}
		fclose(f);
	} else {
		state = strtoull(argv[1], NULL, 0);
		int ops = atoi(argv[2]);
		/* Every second tree hears of no violence, and has to be tidy by itself. */
		int calm = state % 2;
		/* Some have user namespaces in them. */
		int users = state % 10 == 7;
		for (int i = 0; i < 2; i++) {
			sprintf(line, "c spawn +%d", i);
			step(line);
		}
		for (int i = 0; i < ops; i++) {
			generate(line, calm, users, i);
			step(line);
		}
	}
	for (int i = 0; i < labels; i++)
		if (known[i].alive) {
			sprintf(line, "t%d exit 0", i);
			char out[TEXT];
			execute(line, out);
			if (failed) {
				printf("%s -> %s\n", line, out);
				exit(1);
			}
		}
	while (wait(NULL) > 0)
		;
	if (violent)
		look();
	printf("end %s\n", violent ? "after violence" : "in peace");
}

int main(int argc, char **argv)
{
	ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);

	if (n < 0)
		die("/proc/self/exe");
	program[n] = 0;
	if (argc >= 4 && !strcmp(argv[1], "--task")) {
		snprintf(address, sizeof address, "%s", argv[3]);
		if (argc == 4)
			task(atoi(argv[2]));
		fcntl(atoi(argv[4]), F_SETFD, FD_CLOEXEC);
		enlist(atoi(argv[2]), atoi(argv[4]));
	}
	if (argc == 2 && !strcmp(argv[1], "--look")) {
		look();
		return 0;
	}
	if (argc == 5 && !strcmp(argv[1], "-p")) {
		patience = atoi(argv[2]);
		argv += 2;
		argc -= 2;
	}
	if (argc != 3) {
		fprintf(stderr, "usage: ns_tree [-p MS] SEED OPS\n       ns_tree [-p MS] -f FILE\n       ns_tree --look\n");
		return 2;
	}
	coordinate(argc, argv);
	return 0;
}
