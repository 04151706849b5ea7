/*
 * Conformance programs: what all of them share.
 *
 * A program is a list of cases. `conf_x --list` prints one line a case: name, contract section,
 * flags; `conf_x NAME` runs one case in a child process and exits 0 if it holds, 1 if not;
 * `conf_x` alone runs them all. A case states what a caller of mqueue.h sees on Linux. The
 * programs know nothing of how queues are made: they are plain clients, run once on the kernel's
 * queues and once on libmqns.so's.
 *
 * A check that fails prints where, what was expected and what came, and ends the process.
 */
#ifndef CONF_H
#define CONF_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <grp.h>
#include <limits.h>
#include <mqueue.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/fsuid.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <linux/capability.h>
#include <time.h>
#include <unistd.h>

#define UNUSED __attribute__((unused))

/* Cases pass NULL and overlapping objects on purpose. */
#pragma GCC diagnostic ignored "-Wnonnull"
#pragma GCC diagnostic ignored "-Wrestrict"

/* ---- Cases ------------------------------------------------------------------------------- */

enum {
	NEEDS_ROOT = 1, /* changes uid or creates queues of another user */
	SHIM_ONLY = 2,  /* the C library crashes natively; mqns promises better */
	MOUNTS = 4,     /* mounts queues as files: the kernel asks for the right to */
	REAL_MOUNT = 8, /* is about mounts that the kernel has to know of */
};

struct conf_case {
	const char *section; /* of the contract, with the row in words where it isn't plain */
	const char *name;
	void (*run)(void);
	int flags;
	struct conf_case *next;
};

static struct conf_case *conf_first, **conf_last = &conf_first;

static UNUSED void conf_register(struct conf_case *c)
{
	*conf_last = c;
	conf_last = &c->next;
}

#define CONF_CASE(sec, name_, flags_)                                                            \
	static void name_(void);                                                                 \
	static struct conf_case conf_##name_ = {.section = sec, .name = #name_, .run = name_,    \
						.flags = flags_};                                \
	__attribute__((constructor)) static void conf_add_##name_(void)                          \
	{                                                                                        \
		conf_register(&conf_##name_);                                                    \
	}                                                                                        \
	static void name_(void)

/* CASE("4", name) { … } and its variants. */
#define CASE(sec, name) CONF_CASE(sec, name, 0)
#define ROOT_CASE(sec, name) CONF_CASE(sec, name, NEEDS_ROOT)
#define SHIM_CASE(sec, name) CONF_CASE(sec, name, SHIM_ONLY)
#define FILE_CASE(sec, name) CONF_CASE(sec, name, MOUNTS)
#define ROOT_FILE_CASE(sec, name) CONF_CASE(sec, name, MOUNTS | NEEDS_ROOT)
#define MOUNT_CASE(sec, name) CONF_CASE(sec, name, MOUNTS | NEEDS_ROOT | REAL_MOUNT)

/* Programs that a case execs: `conf_x @name args…`, see exec_helper(). */
struct conf_helper {
	const char *name;
	int (*run)(int argc, char **argv);
	struct conf_helper *next;
};
static struct conf_helper *conf_helpers;
#define HELPER(name_)                                                                            \
	static int helper_##name_(int argc, char **argv);                                        \
	static struct conf_helper conf_helper_##name_ = {.name = #name_, .run = helper_##name_}; \
	__attribute__((constructor)) static void conf_add_helper_##name_(void)                   \
	{                                                                                        \
		conf_helper_##name_.next = conf_helpers;                                         \
		conf_helpers = &conf_helper_##name_;                                             \
	}                                                                                        \
	static int helper_##name_(int argc UNUSED, char **argv UNUSED)

/* Memory that the processes of one case share. */
struct conf_shared {
	atomic_int names;
	char name[512][64];
	atomic_int stage[64]; /* progress marks, see mark() and await_mark() */
	atomic_long value[64];
	atomic_int dirs;
	char dir[32][64];
};
static struct conf_shared *shared;
static pid_t conf_pid; /* of the case */

/* ---- Checks ------------------------------------------------------------------------------ */

static __attribute__((noreturn, format(printf, 3, 4))) void fail_at(const char *file, int line,
								     const char *fmt, ...)
{
	char text[2048];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	const char *base = strrchr(file, '/');
	dprintf(2, "%s:%d: %s\n", base ? base + 1 : file, line, text);
	_exit(1);
}
#define FAIL(...) fail_at(__FILE__, __LINE__, __VA_ARGS__)

static UNUSED const char *errno_name(int e)
{
	const char *n = e ? strerrorname_np(e) : "no error";
	return n ? n : "unknown errno";
}

/* The call succeeds (anything but -1); its value. */
#define OK(call)                                                                                 \
	({                                                                                       \
		errno = 0;                                                                       \
		__typeof__(call) ok_r = (call);                                                  \
		if (ok_r == (__typeof__(call))-1)                                                \
			FAIL("%s: expected success, got -1 %s", #call, errno_name(errno));       \
		ok_r;                                                                            \
	})

/* The call returns -1 with this errno. */
#define FAILS(call, err)                                                                         \
	do {                                                                                     \
		errno = 0;                                                                       \
		long long fails_r = (long long)(call);                                           \
		int fails_e = errno;                                                             \
		if (fails_r != -1)                                                               \
			FAIL("%s: expected -1 %s, got %lld", #call, errno_name(err), fails_r);   \
		if (fails_e != (err))                                                            \
			FAIL("%s: expected -1 %s, got -1 %s", #call, errno_name(err),            \
			     errno_name(fails_e));                                               \
	} while (0)

/* The call returns exactly this. */
#define EQ(expr, want)                                                                           \
	do {                                                                                     \
		errno = 0;                                                                       \
		long long eq_r = (long long)(expr);                                              \
		int eq_e = errno;                                                                \
		long long eq_w = (long long)(want);                                              \
		if (eq_r != eq_w)                                                                \
			FAIL("%s: expected %lld (%#llx), got %lld (%#llx)%s%s", #expr, eq_w,     \
			     eq_w, eq_r, eq_r, eq_r == -1 ? " " : "",                            \
			     eq_r == -1 ? errno_name(eq_e) : "");                                \
	} while (0)

#define TRUE(cond)                                                                               \
	do {                                                                                     \
		if (!(cond))                                                                     \
			FAIL("expected %s", #cond);                                              \
	} while (0)

/* Same bytes. */
#define SAME(got, want, len)                                                                     \
	do {                                                                                     \
		if (memcmp(got, want, len))                                                      \
			FAIL("%s: expected \"%.*s\", got \"%.*s\"", #got, (int)(len),            \
			     (const char *)(want), (int)(len), (const char *)(got));             \
	} while (0)

/* ---- Queues ------------------------------------------------------------------------------ */

/* A name of this case's own, unlinked when the case is over. */
static UNUSED const char *qname(const char *suffix)
{
	int i = atomic_fetch_add(&shared->names, 1);
	if (i >= 512)
		FAIL("too many names");
	snprintf(shared->name[i], sizeof shared->name[i], "/conf-%d-%s", (int)conf_pid, suffix);
	return shared->name[i];
}

/* Creates a queue, mode 0600. Queues are small: RLIMIT_MSGQUEUE is one sum for all of a user's. */
#define make(name, oflag, maxmsg, msgsize)                                                       \
	OK(mq_open(name, (oflag) | O_CREAT | O_EXCL, 0600,                                       \
		   (&(struct mq_attr){.mq_maxmsg = (maxmsg), .mq_msgsize = (msgsize)})))

#define put(q, text, prio) EQ(mq_send(q, text, strlen(text), prio), 0)

#define take(q, text, prio)                                                                      \
	do {                                                                                     \
		char take_b[65536];                                                              \
		unsigned take_p = 77777;                                                         \
		EQ(mq_receive(q, take_b, sizeof take_b, &take_p), strlen(text));                 \
		SAME(take_b, text, strlen(text));                                                \
		EQ(take_p, prio);                                                                \
	} while (0)

static UNUSED long curmsgs(mqd_t q)
{
	struct mq_attr a;
	if (mq_getattr(q, &a))
		FAIL("mq_getattr: expected success, got -1 %s", errno_name(errno));
	return a.mq_curmsgs;
}

/* Absolute CLOCK_REALTIME, so many milliseconds from now. */
static UNUSED struct timespec in_ms(long ms)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	t.tv_sec += ms / 1000;
	t.tv_nsec += ms % 1000 * 1000000;
	if (t.tv_nsec >= 1000000000) {
		t.tv_nsec -= 1000000000;
		t.tv_sec++;
	}
	return t;
}
static const struct timespec past UNUSED = {.tv_sec = 1};

/* An address where nothing is. Two pages, the first one good, for objects that straddle. */
static UNUSED void *nowhere(void)
{
	static void *p;
	if (!p)
		p = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return p;
}
/* The last `n` bytes before an unmapped page. */
static UNUSED char *edge(size_t n)
{
	char *p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	mprotect(p + 4096, 4096, PROT_NONE);
	return p + 4096 - n;
}

/* Leaves no descriptor free. */
static UNUSED void fill_descriptors(void)
{
	OK(setrlimit(RLIMIT_NOFILE, &(struct rlimit){64, 64}));
	while (dup(0) >= 0)
		;
	TRUE(errno == EMFILE);
}

/* ---- Processes --------------------------------------------------------------------------- */

static UNUSED pid_t conf_fork(void)
{
	pid_t p = fork();
	if (p < 0)
		FAIL("fork: %s", errno_name(errno));
	return p;
}

/* Waits for a child that must exit with 0. */
#define join(pid) join_at(__FILE__, __LINE__, pid)
static UNUSED void join_at(const char *file, int line, pid_t pid)
{
	int st;
	if (waitpid(pid, &st, 0) != pid)
		fail_at(file, line, "waitpid: %s", errno_name(errno));
	if (WIFSIGNALED(st))
		fail_at(file, line, "child was killed by signal %d", WTERMSIG(st));
	if (WEXITSTATUS(st))
		fail_at(file, line, "child failed (exit %d)", WEXITSTATUS(st));
}
/* Waits for a child that must die of this signal. */
#define join_killed(pid, sig)                                                                    \
	do {                                                                                     \
		int jk_st;                                                                       \
		EQ(waitpid(pid, &jk_st, 0), pid);                                                \
		TRUE(WIFSIGNALED(jk_st));                                                        \
		EQ(WTERMSIG(jk_st), sig);                                                        \
	} while (0)

/* CHILD { … } runs the block in a child and waits for it; ASYNC(pid) { … } does not wait. */
#define CHILD                                                                                    \
	for (pid_t child_ = conf_fork(); child_ == 0 || (join(child_), 0); _exit(0))
#define ASYNC(pid) for ((pid) = conf_fork(); (pid) == 0; _exit(0))

/* Progress marks between the processes of a case. */
static UNUSED void mark(int i)
{
	atomic_fetch_add(&shared->stage[i], 1);
}
#define await_mark(i) await_marks_at(__FILE__, __LINE__, i, 1)
#define await_marks(i, n) await_marks_at(__FILE__, __LINE__, i, n)

/* Polls a condition which comes about by itself; the bound is for failures only. */
#define AWAIT(cond)                                                                              \
	do {                                                                                     \
		int await_n = 0;                                                                 \
		while (!(cond)) {                                                                \
			if (++await_n > 15000)                                                   \
				FAIL("waited too long for %s", #cond);                           \
			struct timespec await_t = {0, 1000000};                                  \
			nanosleep(&await_t, NULL);                                               \
		}                                                                                \
	} while (0)

static UNUSED void await_marks_at(const char *file, int line, int i, int n)
{
	for (int k = 0; atomic_load(&shared->stage[i]) < n; k++) {
		if (k > 15000)
			fail_at(file, line, "waited too long for mark %d", i);
		nanosleep(&(struct timespec){0, 1000000}, NULL);
	}
}

/* One line of /proc/TID/…; 0 if the task is gone. */
static UNUSED int proc_read(pid_t tid, const char *what, char *buf, size_t len)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/%s", (int)tid, what);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	ssize_t n = read(fd, buf, len - 1);
	close(fd);
	if (n <= 0)
		return 0;
	buf[n] = 0;
	return 1;
}
static UNUSED char proc_state(pid_t tid)
{
	char b[512], *p;
	if (!proc_read(tid, "stat", b, sizeof b) || !(p = strrchr(b, ')')))
		return 0;
	return p[2];
}
static UNUSED long proc_switches(pid_t tid)
{
	char b[4096], *p;
	if (!proc_read(tid, "status", b, sizeof b) ||
	    !(p = strstr(b, "\nvoluntary_ctxt_switches:")))
		return -1;
	return atol(p + sizeof "\nvoluntary_ctxt_switches:");
}
/* The task sleeps in a call that waits for a queue, however such a call is made. */
static UNUSED int in_waiting_call(pid_t tid)
{
	static const long calls[] = {
		SYS_mq_timedsend, SYS_mq_timedreceive, SYS_futex, 449 /* futex_waitv */,
#ifdef SYS_poll
		SYS_poll, SYS_select, SYS_epoll_wait,
#endif
		SYS_ppoll, SYS_pselect6, SYS_epoll_pwait, 441 /* epoll_pwait2 */,
	};
	char b[256];
	if (!proc_read(tid, "syscall", b, sizeof b))
		return 0;
	if (b[0] < '0' || b[0] > '9')
		return 0;
	long nr = atol(b);
	for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
		if (calls[i] == nr)
			return 1;
	return 0;
}
/*
 * Waits until a task is asleep in a queue call or a poll, for good: the same sleep is seen several
 * times running, so that a short wait for a lock does not count. A task that ends instead fails
 * the case.
 */
#define await_asleep(tid) await_asleep_at(__FILE__, __LINE__, tid)
static UNUSED void await_asleep_at(const char *file, int line, pid_t tid)
{
	long seen = -1;
	for (int k = 0, same = 0; same < 4; k++) {
		char s = proc_state(tid);
		if (s == 0 || s == 'Z' || s == 'X')
			fail_at(file, line, "task should be asleep in the call but has ended");
		if (k > 10000)
			fail_at(file, line, "task should be asleep in the call but is in state %c", s);
		long sw = proc_switches(tid);
		if (s == 'S' && in_waiting_call(tid) && sw == seen)
			same++;
		else
			same = 0;
		seen = sw;
		nanosleep(&(struct timespec){0, 1000000}, NULL);
	}
}

/* Runs `conf_x @name arg…` in place of the caller. */
static UNUSED void exec_helper(const char *name, const char *a, const char *b)
{
	char at[64];
	snprintf(at, sizeof at, "@%s", name);
	execl("/proc/self/exe", "conf", at, a, b, (char *)NULL);
	FAIL("exec: %s", errno_name(errno));
}
static UNUSED const char *number(long n)
{
	static _Thread_local char b[8][24];
	static _Thread_local int i;
	i = (i + 1) & 7;
	snprintf(b[i], sizeof b[i], "%ld", n);
	return b[i];
}

/* ---- Users ------------------------------------------------------------------------------- */

/* Users of this case's own, so that what they have queued is nobody else's sum. */
static UNUSED uid_t user(int i)
{
	return 100000 + (uid_t)conf_pid * 8 + i;
}
/* Becomes that user wholly, with a group of the same number. */
static UNUSED void become(uid_t u)
{
	OK(setgroups(0, NULL));
	OK(setresgid(u, u, u));
	OK(setresuid(u, u, u));
}
/* For cases which need their own sum but no privilege: a user of their own where we may. */
static UNUSED void become_somebody(void)
{
	if (geteuid() == 0)
		become(user(7));
}

/* ---- Signals ----------------------------------------------------------------------------- */

static UNUSED void block(int sig)
{
	sigset_t s;
	sigemptyset(&s);
	sigaddset(&s, sig);
	OK(pthread_sigmask(SIG_BLOCK, &s, NULL));
}
/* Takes a blocked signal that is pending now; 0 if there is none. */
static UNUSED int pending_signal(int sig, siginfo_t *si)
{
	sigset_t s;
	sigemptyset(&s);
	sigaddset(&s, sig);
	siginfo_t mine;
	return sigtimedwait(&s, si ? si : &mine, &(struct timespec){0, 0}) == sig;
}
static atomic_int *handler_count; /* in shared memory: shared->value would do as well */
static UNUSED void count_signal(int sig UNUSED)
{
	atomic_fetch_add(handler_count, 1);
}
/* Counts signals at stage[63]. */
static UNUSED void handle(int sig, int flags)
{
	handler_count = &shared->stage[63];
	struct sigaction sa = {.sa_handler = count_signal, .sa_flags = flags};
	OK(sigaction(sig, &sa, NULL));
}
#define signals_handled() atomic_load(&shared->stage[63])

/* ---- Namespaces -------------------------------------------------------------------------- */

/* The number in a link `ipc:[N]`. */
#define ns_number(path) ns_number_at(__FILE__, __LINE__, path)
static UNUSED unsigned long ns_number_at(const char *file, int line, const char *path)
{
	char b[64] = "";
	unsigned long n = 0;
	ssize_t len = readlink(path, b, sizeof b - 1);
	if (len < 0)
		fail_at(file, line, "readlink %s: expected success, got -1 %s", path, errno_name(errno));
	if (sscanf(b, "ipc:[%lu]", &n) != 1 || len != snprintf(NULL, 0, "ipc:[%lu]", n))
		fail_at(file, line, "readlink %s: expected ipc:[N], got %s", path, b);
	return n;
}
/* Of the calling thread, of this process's leader, of another task. */
#define my_ns() ns_number("/proc/thread-self/ns/ipc")
#define leader_ns() ns_number("/proc/self/ns/ipc")
#define ns_of(pid) ns_number(ns_path(pid))
static UNUSED const char *ns_path(pid_t pid)
{
	static _Thread_local char path[64];
	snprintf(path, sizeof path, "/proc/%d/ns/ipc", (int)pid);
	return path;
}

/* The name is that of a queue in the caller's namespace, or of none. */
#define present(name) EQ(mq_close(OK(mq_open(name, O_RDWR))), 0)
#define missing(name) FAILS(mq_open(name, O_RDWR), ENOENT)

/* A child made by a call that returns twice, waited for; see CHILD. */
#define CHILD_BY(call)                                                                           \
	for (pid_t child_ = OK(call); child_ == 0 || (join(child_), 0); _exit(0))

/* A system call that makes a child on the caller's own stack, as fork does. */
static UNUSED pid_t raw_clone(unsigned long flags)
{
	return syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
}
/* The same by clone3, or by clone where there is none. */
static UNUSED pid_t raw_clone3(unsigned long flags)
{
	uint64_t args[8] = {[0] = flags, [4] = SIGCHLD}; /* flags … exit_signal … */
	pid_t p = syscall(435 /* clone3 */, args, sizeof args);
	return p < 0 && errno == ENOSYS ? raw_clone(flags) : p;
}
/* The C library's clone, with a stack of its own. */
static UNUSED pid_t clone_with_stack(int flags, int (*fn)(void *), void *arg)
{
	enum { SIZE = 256 * 1024 };
	char *p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		FAIL("mmap: %s", errno_name(errno));
	return clone(fn, p + SIZE, flags | SIGCHLD, arg);
}

/* Runs a function in a thread of its own, to its end. */
static UNUSED void in_thread(void *(*fn)(void *), void *arg)
{
	pthread_t t;
	EQ(pthread_create(&t, NULL, fn, arg), 0);
	EQ(pthread_join(t, NULL), 0);
}

/* One descriptor over a socket. */
static UNUSED void pass_fd(int sock, int fd)
{
	char c = 'f', buf[CMSG_SPACE(sizeof fd)] = {0};
	struct iovec v = {&c, 1};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = buf,
			   .msg_controllen = sizeof buf};
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = CMSG_LEN(sizeof fd);
	memcpy(CMSG_DATA(h), &fd, sizeof fd);
	EQ(sendmsg(sock, &m, 0), 1);
}
static UNUSED int accept_fd(int sock)
{
	char c, buf[CMSG_SPACE(sizeof(int))];
	struct iovec v = {&c, 1};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = buf,
			   .msg_controllen = sizeof buf};
	int fd;
	EQ(recvmsg(sock, &m, 0), 1);
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	TRUE(h && h->cmsg_type == SCM_RIGHTS);
	memcpy(&fd, CMSG_DATA(h), sizeof fd);
	return fd;
}

/* Maps one user and group of the caller's new user namespace to 0 in it. */
static UNUSED void map_ids(uid_t u, gid_t g)
{
	char b[64];
	const char *const file[] = {"/proc/self/setgroups", "/proc/self/uid_map", "/proc/self/gid_map"};
	for (int i = 0; i < 3; i++) {
		int n = i ? snprintf(b, sizeof b, "0 %u 1", i == 1 ? u : g) : snprintf(b, sizeof b, "deny");
		int fd = OK(open(file[i], O_WRONLY));
		EQ(write(fd, b, n), n);
		close(fd);
	}
}
/* An ordinary user whose own /proc files are its own, though it has been somebody else. */
static UNUSED void become_ordinary(uid_t u)
{
	become(u);
	OK(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
}

/* `conf_x @visit` makes a queue and takes it away again: the next user, who finds what a process
 * without a chance to clean up has left. */
HELPER(visit)
{
	(void)argc;
	(void)argv;
	char n[64];
	snprintf(n, sizeof n, "/conf-visit-%d", (int)getpid());
	EQ(mq_close(make(n, O_RDWR, 1, 1)), 0);
	EQ(mq_unlink(n), 0);
	return 0;
}

/* ---- Mounts ------------------------------------------------------------------------------ */

/* A directory of this case's own, which goes with all that is in it when the case is over. */
static UNUSED const char *directory(const char *suffix)
{
	int i = atomic_fetch_add(&shared->dirs, 1);
	if (i >= 32)
		FAIL("too many directories");
	snprintf(shared->dir[i], sizeof shared->dir[i], "/tmp/conf-%d-%d-%s", (int)conf_pid, i, suffix);
	OK(mkdir(shared->dir[i], 0755));
	return shared->dir[i];
}
/* `dir/name`; names of queues may have their slash. */
static UNUSED const char *path_in(const char *dir, const char *name)
{
	static _Thread_local char path[16][640];
	static _Thread_local int i;
	i = (i + 1) & 15;
	snprintf(path[i], sizeof path[i], "%s%s%s", dir, name[0] == '/' ? "" : "/", name);
	return path[i];
}
/* From here on what the caller mounts is seen by itself and its children only, and goes with them.
 * Who may not have that may not mount either: what it mounts is a view of its own. */
static UNUSED void private_mounts(void)
{
	static int done;
	if (done)
		return;
	done = 1;
	if (unshare(CLONE_NEWNS)) {
		TRUE(errno == EPERM);
		return;
	}
	OK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
}
/* The queues of the caller's namespace as files in a directory. */
static UNUSED const char *mounted_at(void)
{
	private_mounts();
	const char *dir = directory("mqueue");
	OK(mount("mqueue", dir, "mqueue", 0, NULL));
	return dir;
}
static UNUSED void write_limit(const char *name, const char *text)
{
	int fd = OK(open(path_in("/proc/sys/fs/mqueue", name), O_WRONLY | O_CLOEXEC));
	EQ(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}
/* A namespace of the caller's own, with no queue in it, in which a queue with default attributes is
 * small. Where that is not permitted, the caller's queues are the only ones all the same, but a
 * default queue costs 82880 bytes. */
static UNUSED void fresh_namespace(void)
{
	if (unshare(CLONE_NEWIPC)) {
		TRUE(errno == EPERM);
		return;
	}
	write_limit("msg_default", "2");
	write_limit("msgsize_default", "128");
}

/* ---- The runner -------------------------------------------------------------------------- */

/* Limits must be the same whoever runs this: CAP_SYS_RESOURCE lifts some of them. */
static void conf_drop_sys_resource(void)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2];
	if (syscall(SYS_capget, &h, d))
		return;
	d[0].effective &= ~(1u << CAP_SYS_RESOURCE);
	d[0].permitted &= ~(1u << CAP_SYS_RESOURCE);
	d[0].inheritable &= ~(1u << CAP_SYS_RESOURCE);
	prctl(PR_CAPBSET_DROP, CAP_SYS_RESOURCE, 0, 0, 0);
	syscall(SYS_capset, &h, d);
}

static int conf_remove(const char *path, const struct stat *st UNUSED, int type UNUSED,
		       struct FTW *f UNUSED)
{
	return remove(path);
}

static int conf_run(struct conf_case *c)
{
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED) {
		perror("mmap");
		return 2;
	}
	pid_t p = fork();
	if (p < 0) {
		perror("fork");
		return 2;
	}
	if (p == 0) {
		conf_pid = getpid();
		umask(022);
		c->run();
		_exit(0);
	}
	int st;
	while (waitpid(p, &st, 0) < 0 && errno == EINTR)
		;
	int n = atomic_load(&shared->names);
	for (int i = 0; i < n && i < 512; i++)
		mq_unlink(shared->name[i]);
	n = atomic_load(&shared->dirs);
	for (int i = 0; i < n && i < 32; i++) {
		while (umount2(shared->dir[i], MNT_DETACH) == 0)
			;
		nftw(shared->dir[i], conf_remove, 8, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
	}
	munmap(shared, sizeof *shared);
	if (WIFSIGNALED(st)) {
		fprintf(stderr, "%s: killed by signal %d (%s)\n", c->name, WTERMSIG(st),
			strsignal(WTERMSIG(st)));
		return 1;
	}
	return WEXITSTATUS(st);
}

int main(int argc, char **argv)
{
	if (argc > 1 && argv[1][0] == '@') {
		for (struct conf_helper *h = conf_helpers; h; h = h->next)
			if (!strcmp(h->name, argv[1] + 1))
				return h->run(argc - 2, argv + 2);
		fprintf(stderr, "no helper %s\n", argv[1]);
		return 2;
	}
	if (argc > 1 && !strcmp(argv[1], "--list")) {
		for (struct conf_case *c = conf_first; c; c = c->next)
			printf("%s\t%s\t%s%s%s%s\n", c->name, c->section,
			       c->flags & NEEDS_ROOT ? "root " : "",
			       c->flags & SHIM_ONLY ? "shim-only " : "",
			       c->flags & MOUNTS ? "mounts " : "",
			       c->flags & REAL_MOUNT ? "real-mount" : "");
		return 0;
	}
	/* Whatever else the caller had open would shift the numbers that cases expect. */
	closefrom(3);
	conf_drop_sys_resource();
	int failed = 0, ran = 0;
	for (struct conf_case *c = conf_first; c; c = c->next) {
		if (argc > 1 && strcmp(argv[1], c->name))
			continue;
		/* Alone, this is for a look at the kernel's queues. */
		if (argc == 1 && (c->flags & SHIM_ONLY) && !getenv("LD_PRELOAD"))
			continue;
		int r = conf_run(c);
		ran++;
		failed += r != 0;
		if (argc == 1 || r)
			fprintf(stderr, "%s %s (section %s)\n", r ? "FAIL" : "ok  ", c->name, c->section);
	}
	if (!ran) {
		fprintf(stderr, "no case %s\n", argc > 1 ? argv[1] : "");
		return 2;
	}
	return failed != 0;
}

#endif
