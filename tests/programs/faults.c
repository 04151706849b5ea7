/*
 * faults KIND [OP]: what happens to each of the calls below (or to one) when a resource is short.
 *
 *   nofile       RLIMIT_NOFILE's soft limit, from one at which no descriptor is free upward until the
 *                call works twice in a row: EMFILE
 *   nofile-hard  the same with the hard limit, which cannot be raised for a moment
 *   as           RLIMIT_AS, from the present size upward until the call works: ENOMEM
 *   fsize        RLIMIT_FSIZE, from 0 upward until the call works twice in a row: ENOSPC, no SIGXFSZ
 *   fsize-soft   the same with the soft limit, which can be raised for a moment: it works
 *   blocks       a tmpfs for the state directory, with N pages left: ENOSPC
 *   inodes       the same with N inodes left
 *   enfile       the Nth system call of this call that makes a descriptor says ENFILE, for each N
 *   enomem       the Nth mmap says ENOMEM
 *   enospc       the Nth system call that takes room in a file system says ENOSPC
 *
 * The last three by ptrace(2), x86-64 only. In each attempt a
 * child prepares, calls while the fault lasts, and calls again without it. A call may fail with the
 * error of its fault, and then again; it may work in spite of it. It must not leave a descriptor, a
 * mapping (10 failures take no more than one), a file, a charge (RLIMIT_MSGQUEUE has room for what
 * is made once), or hang; afterwards, without the fault, it must work. Where it cannot be repeated
 * in the process (the hard limit), another process shows that nothing is charged.
 *
 * For each call a line: name, attempts that were refused, attempts that worked, the errors of those refused.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <mqueue.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

/* What a queue of 4 messages of 64 bytes is charged with (getrlimit(2)). */
enum { COST = 4 * 48 + 4 * 48 + 4 * 64 };

static struct mq_attr attr = {.mq_maxmsg = 4, .mq_msgsize = 64};
static mqd_t q = (mqd_t)-1, q2 = (mqd_t)-1;
static int fd = -1;
static char dir[] = "/tmp/mqns-faults-XXXXXX";

#define NEED(what)                                                                               \
	do {                                                                                     \
		if (!(what)) {                                                                   \
			dprintf(1, "%s:%d: %s: %s\n", __FILE__, __LINE__, #what,                 \
				strerrorname_np(errno));                                         \
			_exit(1);                                                                \
		}                                                                                \
	} while (0)

/* The limit RLIMIT_MSGQUEUE, where the account is this program's own: natively it is one with those of all that run
 * beside it. */
static void charge_up_to(unsigned long bytes)
{
	struct rlimit r;

	NEED(!getrlimit(RLIMIT_MSGQUEUE, &r));
	r.rlim_cur = bytes;
	if (getenv("MQNS_DIR"))
		NEED(!setrlimit(RLIMIT_MSGQUEUE, &r));
}

/* ---- The calls: 0, or -1 and errno ---------------------------------------------------------- */

static void nothing(void)
{
}

static int call_create(void)
{
	q = mq_open("/new", O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK, 0600, &attr);
	return q == (mqd_t)-1 ? -1 : 0;
}

static void undo_create(void)
{
	NEED(!mq_close(q) && !mq_unlink("/new"));
}

static int call_open(void)
{
	q = mq_open("/there", O_RDWR);
	return q == (mqd_t)-1 ? -1 : 0;
}

static int call_open_or_create(void)
{
	q = mq_open("/there", O_RDWR | O_CREAT, 0600, &attr);
	return q == (mqd_t)-1 ? -1 : 0;
}

static void undo_open(void)
{
	NEED(!mq_close(q));
}

static int call_open_nothing(void)
{
	q = mq_open("/missing", O_RDWR);
	if (q == (mqd_t)-1 && errno == ENOENT)
		return 0;
	NEED(q == (mqd_t)-1);
	return -1;
}

static void setup_closed(void)
{
	NEED(!call_create());
	NEED(!mq_close(q));
}

static void setup_open(void)
{
	NEED(!call_create());
}

static int call_unlink(void)
{
	if (!mq_unlink("/new"))
		return 0;
	NEED(errno != ENOENT);
	return -1;
}

static void undo_close(void)
{
	NEED(!mq_close(q));
}

/* Without a name: the close takes the queue away. */
static void setup_nameless(void)
{
	setup_open();
	NEED(!mq_unlink("/new"));
}

static int call_close(void)
{
	NEED(!mq_close(q));
	return 0;
}

static int call_notify_signal(void)
{
	struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
	return mq_notify(q, &e);
}

static void thread_function(union sigval v)
{
	(void)v;
}

static int call_notify_thread(void)
{
	struct sigevent e = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = thread_function};
	return mq_notify(q, &e);
}

static void undo_notify(void)
{
	NEED(!mq_notify(q, NULL));
	undo_create();
}

static struct sigevent by_signal = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};

/* Registered for a signal that is waited for. */
static void setup_registered(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	NEED(!sigprocmask(SIG_BLOCK, &set, NULL));
	NEED((q = mq_open("/new", O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK, 0600, &attr)) != (mqd_t)-1);
	NEED(!mq_notify(q, &by_signal));
}

static int told(void)
{
	sigset_t set;
	siginfo_t info;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	int n = sigtimedwait(&set, &info, &(struct timespec){0});
	NEED(n == SIGUSR1 ? info.si_code == SI_MESGQ : n == -1 && errno == EAGAIN);
	return n == SIGUSR1;
}

/* Sets off the notification, once; or is refused, and it is still to come. Of a priority for which a queue so small has
 * no memory yet. */
static int call_notified(void)
{
	char b[64];
	unsigned priority;

	if (mq_send(q, "x", 1, 32767)) {
		int err = errno;
		NEED(!told());
		NEED(mq_notify(q, &by_signal) && errno == EBUSY);
		errno = err;
		return -1;
	}
	NEED(told() && !told());
	NEED(mq_receive(q, b, 64, &priority) == 1 && b[0] == 'x' && priority == 32767);
	return 0;
}

/* It was used up. */
static void undo_notified(void)
{
	NEED(!mq_notify(q, &by_signal));
	undo_create();
}

static int call_exchange(void)
{
	char b[64];

	if (mq_send(q, "x", 1, 3))
		return -1;
	NEED(mq_receive(q, b, 64, NULL) == 1 && b[0] == 'x');
	return 0;
}

static void setup_sleep(void)
{
	NEED((q = mq_open("/new", O_RDWR | O_CREAT | O_EXCL, 0600, &attr)) != (mqd_t)-1);
}

/* The first to sleep in its queue. */
static int call_sleep(void)
{
	struct timespec t;
	char b[64];

	clock_gettime(CLOCK_REALTIME, &t);
	t.tv_nsec += 1000000;
	if (t.tv_nsec >= 1000000000)
		t.tv_sec++, t.tv_nsec -= 1000000000;
	NEED(mq_timedreceive(q, b, 64, NULL, &t) == -1);
	return errno == ETIMEDOUT ? 0 : -1;
}

/* Each message takes two pages more. */
static void setup_large(void)
{
	struct mq_attr large = {.mq_maxmsg = 4, .mq_msgsize = 8192};

	charge_up_to(400000);
	q = mq_open("/new", O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK, 0600, &large);
	NEED(q != (mqd_t)-1);
}

static int call_large(void)
{
	static char b[8192];
	int n = 0, err;

	while (n < 4 && (b[0] = b[8191] = n, !mq_send(q, b, 8192, n)))
		n++;
	err = errno;
	/* What was taken is there, whatever came then. */
	for (int i = n; i-- > 0;)
		NEED(mq_receive(q, b, 8192, NULL) == 8192 && b[0] == i && b[8191] == i);
	NEED(mq_receive(q, b, 8192, NULL) == -1 && errno == EAGAIN);
	errno = err;
	return n < 4 ? -1 : 0;
}

/* A process that has a queue open which this one has never seen: descriptor 100 there. */
static pid_t holder;

static void start_holder(void)
{
	int ready[2];
	char b;

	NEED(!pipe(ready));
	holder = fork();
	if (holder == 0) {
		mqd_t m = mq_open("/held", O_RDWR | O_CREAT | O_NONBLOCK, 0600, &attr);
		NEED(m != (mqd_t)-1 && dup2(m, 100) == 100 && write(ready[1], "", 1) == 1);
		for (;;)
			pause();
	}
	close(ready[1]);
	NEED(read(ready[0], &b, 1) == 1);
	close(ready[0]);
}

static void stop_holder(void)
{
	kill(holder, SIGKILL);
	waitpid(holder, NULL, 0);
}

/* By system calls that the library doesn't look at. */
static void setup_foreign(void)
{
	int pidfd = syscall(SYS_pidfd_open, holder, 0);

	NEED(pidfd >= 0);
	q = syscall(SYS_pidfd_getfd, pidfd, 100, 0);
	NEED(q >= 0);
	close(pidfd);
}

static int call_getattr(void)
{
	struct mq_attr a;
	int r = mq_getattr(q, &a);
	NEED(r || a.mq_maxmsg == 4);
	return r;
}


static int call_poll(void)
{
	struct pollfd p = {.fd = q, .events = POLLIN | POLLOUT};
	int n = poll(&p, 1, 0);
	NEED(n < 0 || (n == 1 && p.revents == POLLOUT));
	return n < 0 ? -1 : 0;
}

static int call_select(void)
{
	fd_set w;
	struct timeval t = {0};
	FD_ZERO(&w);
	FD_SET(q, &w);
	int n = select(q + 1, NULL, &w, NULL, &t);
	NEED(n < 0 || n == 1);
	return n < 0 ? -1 : 0;
}

static int call_epoll(void)
{
	struct epoll_event e = {.events = EPOLLOUT}, got;
	int set = epoll_create1(0), n = -1;

	if (set < 0)
		return -1;
	if (!epoll_ctl(set, EPOLL_CTL_ADD, q, &e)) {
		n = epoll_wait(set, &got, 1, 0);
		NEED(n < 0 || n == 1);
	}
	int err = errno;
	close(set);
	errno = err;
	return n < 0 ? -1 : 0;
}

static int call_dup(void)
{
	q2 = dup(q);
	if (q2 == -1)
		return -1;
	struct mq_attr a;
	NEED(!mq_getattr(q2, &a) && a.mq_flags == O_NONBLOCK);
	close(q2);
	return 0;
}

static int call_reopen(void)
{
	char path[40];
	snprintf(path, sizeof path, "/proc/self/fd/%d", q);
	q2 = open(path, O_RDWR | O_NONBLOCK);
	return q2 == -1 ? -1 : 0;
}

static void undo_reopen(void)
{
	close(q2);
	undo_create();
}

static int call_unshare(void)
{
	return unshare(CLONE_NEWIPC);
}

static int call_ns_file(void)
{
	fd = open("/proc/self/ns/ipc", O_RDONLY);
	return fd < 0 ? -1 : 0;
}

static void undo_fd(void)
{
	close(fd);
}

static void setup_unshare(void)
{
	NEED(!unshare(CLONE_NEWIPC));
}

static void setup_setns(void)
{
	NEED(!call_ns_file());
	setup_unshare();
}

static int call_setns(void)
{
	return setns(fd, CLONE_NEWIPC);
}

static int wait_for(pid_t p)
{
	int status = -1;

	if (p < 0)
		return -1;
	NEED(waitpid(p, &status, 0) == p);
	/* A program whose libraries cannot be loaded: natively as well. */
	if (WIFEXITED(status) && WEXITSTATUS(status) == 127) {
		errno = 0;
		return -1;
	}
	NEED(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	return 0;
}

static int call_fork(void)
{
	pid_t p = fork();
	if (p == 0)
		_exit(0);
	return wait_for(p);
}

static int clone_child(void *arg)
{
	(void)arg;
	return 0;
}

static int call_clone(void)
{
	static char stack[65536] __attribute__((aligned(16)));
	return wait_for(clone(clone_child, stack + sizeof stack, CLONE_NEWIPC | SIGCHLD, NULL));
}

static void *thread(void *arg)
{
	return arg;
}

static int call_thread(void)
{
	pthread_t t;
	int err = pthread_create(&t, NULL, thread, NULL);
	if (err) {
		/* pthread_create(3) says EAGAIN where memory is short. */
		errno = err;
		return -1;
	}
	NEED(!pthread_join(t, NULL));
	return 0;
}

static int call_spawn(void)
{
	pid_t p;
	char *args[] = {"true", NULL};
	int err = posix_spawn(&p, "/bin/true", NULL, NULL, args, environ);
	if (err) {
		errno = err;
		return -1;
	}
	return wait_for(p);
}

static void setup_dir(void)
{
	NEED(!unshare(CLONE_NEWNS) && !mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
}

static int call_mount(void)
{
	return mount("none", dir, "mqueue", 0, NULL);
}

static void undo_mount(void)
{
	NEED(!umount(dir));
}

static void setup_mount(void)
{
	setup_dir();
	NEED(!call_mount());
}

static int call_list(void)
{
	DIR *d = opendir(dir);
	int n = 0;

	if (!d)
		return -1;
	while (readdir(d))
		n++;
	closedir(d);
	NEED(n == 4);
	return 0;
}

/* The fault is ENFILE, which may keep the library from finding out that a path leads to a mount: then the program sees
 * the file that is there, as programs without the library do. */
static int without_library;

static int call_cat(void)
{
	char path[64], b[100];
	snprintf(path, sizeof path, "%s/there", dir);
	int f = open(path, O_RDONLY);
	if (f < 0)
		return -1;
	ssize_t n = read(f, b, sizeof b);
	int err = errno;
	close(f);
	errno = err;
	if (n < 0)
		return -1;
	NEED((n > 5 && !memcmp(b, "QSIZE", 5)) || (without_library && n == 80));
	return 0;
}

/* Whose queue has the default attributes. */
static void setup_creat(void)
{
	charge_up_to(400000);
	setup_mount();
}

static int call_creat(void)
{
	char path[64];
	snprintf(path, sizeof path, "%s/new", dir);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
	return fd < 0 ? -1 : 0;
}

static void undo_creat(void)
{
	close(fd);
	NEED(!mq_unlink("/new"));
	undo_mount();
}

static void setup_rm(void)
{
	setup_mount();
	setup_closed();
}

static int call_rm(void)
{
	char path[64];
	snprintf(path, sizeof path, "%s/new", dir);
	return unlink(path);
}

static int call_sysctl(void)
{
	char b[20];
	int f = open("/proc/sys/fs/mqueue/msg_max", O_RDONLY);
	if (f < 0)
		return -1;
	NEED(read(f, b, sizeof b) >= 2);
	close(f);
	return 0;
}

/* FIRST: of all in its directory, where that is a fresh one. FOREIGN: on a queue that another process holds. */
enum { ROOT = 1, FIRST = 2, FOREIGN = 4 };

static const struct op {
	const char *name;
	void (*setup)(void);
	int (*call)(void);
	void (*undo)(void);
	int flags;
} ops[] = {
	{"create", nothing, call_create, undo_create, FIRST},
	{"open", nothing, call_open, undo_open, 0},
	{"open-or-create", nothing, call_open_or_create, undo_open, 0},
	{"open-nothing", nothing, call_open_nothing, nothing, FIRST},
	{"unlink", setup_closed, call_unlink, nothing, 0},
	{"unlink-open", setup_open, call_unlink, undo_close, 0},
	{"close-last", setup_nameless, call_close, nothing, 0},
	{"notify-signal", setup_open, call_notify_signal, undo_notify, 0},
	{"notify-thread", setup_open, call_notify_thread, undo_notify, 0},
	{"send-receive", setup_open, call_exchange, undo_create, 0},
	{"send-notified", setup_registered, call_notified, undo_notified, 0},
	{"send-large", setup_large, call_large, undo_create, 0},
	{"sleep", setup_sleep, call_sleep, undo_create, 0},
	{"foreign-send", setup_foreign, call_exchange, undo_close, FOREIGN},
	{"foreign-getattr", setup_foreign, call_getattr, undo_close, FOREIGN},
	{"poll", setup_open, call_poll, undo_create, 0},
	{"select", setup_open, call_select, undo_create, 0},
	{"epoll", setup_open, call_epoll, undo_create, 0},
	{"dup", setup_open, call_dup, undo_create, 0},
	{"reopen", setup_open, call_reopen, undo_reopen, 0},
	{"sysctl", nothing, call_sysctl, nothing, FIRST},
	{"ns-file", nothing, call_ns_file, undo_fd, 0},
	{"unshare", nothing, call_unshare, nothing, ROOT | FIRST},
	{"setns", setup_setns, call_setns, undo_fd, ROOT},
	{"fork", setup_unshare, call_fork, nothing, ROOT},
	{"clone", nothing, call_clone, nothing, ROOT | FIRST},
	{"thread", setup_unshare, call_thread, nothing, ROOT},
	{"spawn", setup_unshare, call_spawn, nothing, ROOT},
	{"mount", setup_dir, call_mount, undo_mount, ROOT},
	{"list", setup_mount, call_list, undo_mount, ROOT},
	{"cat", setup_mount, call_cat, undo_mount, ROOT},
	{"creat", setup_creat, call_creat, undo_creat, ROOT},
	{"rm", setup_rm, call_rm, undo_mount, ROOT},
};

/* ---- What must be as before ------------------------------------------------------------------ */

static int descriptors(void)
{
	int n = 0;

	for (int i = 0; i < 256; i++)
		n += fcntl(i, F_GETFD) >= 0;
	return n;
}

/* Pages of address space. */
static long size(void)
{
	char b[64] = "";
	int f = open("/proc/self/statm", O_RDONLY);

	if (f >= 0 && read(f, b, sizeof b - 1) < 0)
		b[0] = 0;
	close(f);
	return atol(b);
}

static int files_n;

static int count_file(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)path, (void)st, (void)at;
	/* Notes of mounts: the next mount clears them. */
	files_n += type == FTW_F && !strstr(path, "/m/");
	return 0;
}

static int files(void)
{
	const char *root = getenv("MQNS_DIR");

	files_n = 0;
	if (root)
		nftw(root, count_file, 8, FTW_PHYS);
	return files_n;
}

static int make_there(void)
{
	return mq_open("/there", O_RDWR | O_CREAT, 0600, &attr) == (mqd_t)-1;
}

static int make_held(void)
{
	return mq_open("/held", O_RDWR | O_CREAT, 0600, &attr) == (mqd_t)-1;
}

/* ---- Faults ---------------------------------------------------------------------------------- */

enum kind { NOFILE, NOFILE_HARD, AS, FSIZE, FSIZE_SOFT, BLOCKS, INODES, ENFILE_, ENOMEM_, ENOSPC_, KINDS };
static const char *const names[] = {"nofile", "nofile-hard", "as", "fsize", "fsize-soft", "blocks", "inodes", "enfile", "enomem", "enospc"};
static const int errors[] = {EMFILE, EMFILE, ENOMEM, ENOSPC, 0, ENOSPC, ENOSPC, ENFILE, ENOMEM, ENOSPC};
enum { FAULT_MARK = 9999 };

static struct rlimit before;

static int resource(enum kind kind)
{
	return kind == AS ? RLIMIT_AS : kind == FSIZE || kind == FSIZE_SOFT ? RLIMIT_FSIZE : RLIMIT_NOFILE;
}

/* Which cannot be taken back. */
static int is_hard(enum kind kind)
{
	return kind == NOFILE_HARD || kind == FSIZE;
}

static int is_tmpfs(enum kind kind)
{
	return kind == BLOCKS || kind == INODES;
}

/* The state directory's file system, with so many pages and inodes. */
static int remount(unsigned long pages, unsigned long inodes)
{
	char options[80];

	snprintf(options, sizeof options, "size=%lu,nr_inodes=%lu", pages * 4096, inodes);
	return mount("none", getenv("MQNS_DIR"), NULL, MS_REMOUNT, options);
}

/* An own one, with the two queues of the others unless the call is to be the first of all. */
static void setup_tmpfs(const struct op *op)
{
	setup_dir();
	NEED(!mount("none", getenv("MQNS_DIR"), "tmpfs", 0, "size=4m,nr_inodes=1000,mode=1777"));
	if (!(op->flags & FIRST)) {
		int status;
		pid_t p = fork();
		if (p == 0)
			_exit(make_there() || make_held());
		NEED(waitpid(p, &status, 0) == p && status == 0);
	}
}

static int is_limit(enum kind kind)
{
	return kind <= INODES;
}

static void begin(enum kind kind, long n)
{
	if (!is_limit(kind)) {
		syscall(FAULT_MARK, 1);
		return;
	}
	if (is_tmpfs(kind)) {
		struct statvfs s;
		NEED(!statvfs(getenv("MQNS_DIR"), &s));
		unsigned long pages = s.f_blocks - s.f_bfree + n;
		/* None would mean no limit. */
		if (kind == BLOCKS)
			NEED(!remount(pages ? pages : 1, 1000));
		else
			NEED(!remount(1024, s.f_files - s.f_ffree + n));
		return;
	}
	getrlimit(resource(kind), &before);
	struct rlimit r = before;
	if (kind == AS) {
		r.rlim_cur = (size() + n) * 4096;
	} else if (kind == FSIZE || kind == FSIZE_SOFT) {
		/* Small steps for the small files, then twice as much each. What the program says itself is no matter:
		 * standard output is a pipe. */
		r.rlim_cur = n < 64 ? n * 8 : 512ul << (n - 63);
		if (kind == FSIZE)
			r.rlim_max = r.rlim_cur;
	} else {
		int lowest = dup(0);
		close(lowest);
		r.rlim_cur = lowest + n;
		if (kind == NOFILE_HARD)
			r.rlim_max = r.rlim_cur;
	}
	NEED(!setrlimit(resource(kind), &r));
}

static void end(enum kind kind)
{
	if (!is_limit(kind))
		syscall(FAULT_MARK, 0);
	else if (is_tmpfs(kind))
		NEED(!remount(1024, 1000));
	else if (!is_hard(kind))
		NEED(!setrlimit(resource(kind), &before));
}

static long used_inodes(enum kind kind)
{
	struct statvfs s;

	if (!is_tmpfs(kind))
		return 0;
	NEED(!statvfs(getenv("MQNS_DIR"), &s));
	return s.f_files - s.f_ffree;
}

/* Exit status of a child whose call was refused as it may be: this and the error (0 if the call has none to say). */
enum { REFUSED = 100 };

/* In the child: 0 if the call has worked in spite of the fault, REFUSED and the error, or 1. */
static int attempt(const struct op *op, enum kind kind, long n)
{
	alarm(20);
	op->setup();
	int fds = descriptors();
	begin(kind, n);
	errno = 0;
	int failed = op->call();
	int err = errno;
	if (failed && err == ENOSYS && op->call == call_notify_thread) {
		/* A kernel without netlink sockets. */
		undo_create();
		return 0;
	}
	if (!failed) {
		end(kind);
		op->undo();
		return 0;
	}
	/* A place in the line that finds no room is ENOMEM whatever is full. */
	int expected = err == errors[kind] || err == 0 || (op->call == call_sleep && err == ENOMEM) || (op->call == call_thread && err == EAGAIN) ||
		       (op->call == call_notify_thread && err == EAGAIN);
	if (!expected)
		dprintf(1, "%s %s %ld: %s\n", names[kind], op->name, n, strerrorname_np(err));
	if (descriptors() != fds)
		dprintf(1, "%s %s %ld: %d descriptors, %d before\n", names[kind], op->name, n, descriptors(), fds),
			expected = 0;
	if (is_limit(kind)) {
		/* Again, and again: nothing adds up. */
		long pages = 0, inodes = 0;
		for (int i = 0; i < 10; i++) {
			int r = op->call();
			if (!r || (errno != err)) {
				dprintf(1, "%s %s %ld: %s the first time, then %s\n", names[kind], op->name, n,
					strerrorname_np(err), r ? strerrorname_np(errno) : "it worked");
				return 1;
			}
			if (i == 0)
				pages = is_hard(kind) ? 0 : size(), inodes = used_inodes(kind);
		}
		if (pages && size() > pages)
			dprintf(1, "%s %s %ld: %ld pages leaked\n", names[kind], op->name, n, size() - pages),
				expected = 0;
		if (used_inodes(kind) != inodes)
			dprintf(1, "%s %s %ld: inodes %ld, then %ld\n", names[kind], op->name, n, inodes,
				used_inodes(kind)),
				expected = 0;
	}
	end(kind);
	if (is_hard(kind) && op->undo == undo_mount && op->setup != setup_dir)
		undo_mount();
	if (!is_hard(kind)) {
		errno = 0;
		if (op->call()) {
			dprintf(1, "%s %s %ld: still %s without the fault\n", names[kind], op->name, n,
				strerrorname_np(errno));
			return 1;
		}
		op->undo();
	}
	return expected ? REFUSED + err : 1;
}

#ifdef __x86_64__
static int takes_descriptor(unsigned long nr, const struct user_regs_struct *r)
{
	switch (nr) {
	case SYS_openat: case SYS_open: case SYS_dup: case SYS_dup2: case SYS_dup3: case SYS_epoll_create1:
	case SYS_memfd_create: case SYS_pipe2: case SYS_socket: case SYS_pidfd_open: case SYS_eventfd2:
	case SYS_signalfd4: case SYS_timerfd_create: case SYS_userfaultfd: case SYS_inotify_init1: case SYS_open_tree:
		return 1;
	case SYS_fcntl:
		return r->rsi == F_DUPFD || r->rsi == F_DUPFD_CLOEXEC;
	}
	return 0;
}

static int takes_room(unsigned long nr, const struct user_regs_struct *r)
{
	switch (nr) {
	case SYS_ftruncate: case SYS_pwrite64: case SYS_mkdirat: case SYS_mknodat: case SYS_linkat: case SYS_symlinkat:
	case SYS_fallocate: case SYS_mkdir: case SYS_link:
		return 1;
	case SYS_openat:
		return (r->rdx & O_CREAT) != 0;
	case SYS_madvise:
		return r->rdx == MADV_POPULATE_WRITE;
	}
	return 0;
}

static int is_hit(enum kind kind, const struct user_regs_struct *r)
{
	unsigned long nr = r->orig_rax;
	if (kind == ENFILE_)
		return takes_descriptor(nr, r);
	if (kind == ENOMEM_)
		return nr == SYS_mmap || nr == SYS_mremap;
	return takes_room(nr, r);
}

/* Lets a traced child run, with the fault at the nth of its calls. Whether it happened. */
static int inject(pid_t child, enum kind kind, long n, int *status)
{
	struct user_regs_struct r;
	int on = 0, entering = 1, hit = 0, deliver = 0;
	long seen = 0;

	NEED(waitpid(child, status, 0) == child && WIFSTOPPED(*status));
	NEED(!ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL));
	for (;;) {
		ptrace(PTRACE_SYSCALL, child, 0, deliver);
		deliver = 0;
		NEED(waitpid(child, status, __WALL) == child);
		if (!WIFSTOPPED(*status))
			return hit;
		if (WSTOPSIG(*status) != (SIGTRAP | 0x80)) {
			deliver = WSTOPSIG(*status);
			continue;
		}
		NEED(!ptrace(PTRACE_GETREGS, child, 0, &r));
		if (entering) {
			if (r.orig_rax == FAULT_MARK) {
				on = r.rdi == 1;
			} else if (on && is_hit(kind, &r) && seen++ == n) {
				hit = 1;
				r.orig_rax = -1;
				NEED(!ptrace(PTRACE_SETREGS, child, 0, &r));
			}
		} else if (hit == 1) {
			hit = 2;
			r.rax = -errors[kind];
			NEED(!ptrace(PTRACE_SETREGS, child, 0, &r));
		}
		entering = !entering;
	}
}

#else
static int inject(pid_t child, enum kind kind, long n, int *status)
{
	(void)child, (void)kind, (void)n, (void)status;
	fputs("faults: not for this machine\n", stderr);
	exit(2);
}
#endif

/* The parent itself uses no queue, so that each child is the first of its kind to do so. */
static int child(int (*run)(void))
{
	int status;
	pid_t p = fork();

	NEED(p >= 0);
	if (p == 0)
		_exit(run());
	NEED(waitpid(p, &status, 0) == p);
	return status != 0;
}

static int unlink_new(void)
{
	return mq_unlink("/new");
}

static int unshare_once(void)
{
	return unshare(CLONE_NEWIPC);
}

static int mount_once(void)
{
	setup_mount();
	undo_mount();
	return 0;
}

static int probe(void)
{
	mqd_t m = mq_open("/probe", O_RDWR | O_CREAT | O_EXCL, 0600, &attr);
	if (m == (mqd_t)-1) {
		printf("%s for a queue afterwards\n", strerrorname_np(errno));
		return 1;
	}
	NEED(!mq_unlink("/probe") && !mq_close(m));
	return 0;
}

static int test(const struct op *op, enum kind kind)
{
	int refused = 0, worked = 0, in_row = 0, bad = 0, at = files();
	char seen[156] = "";
	long n = 0;

	for (;;) {
		pid_t p = fork();
		NEED(p >= 0);
		if (p == 0) {
			if (!is_limit(kind)) {
				ptrace(PTRACE_TRACEME, 0, 0, 0);
				raise(SIGSTOP);
			}
			if (is_tmpfs(kind)) {
				/* In a program that has not seen another directory under that name. */
				char number[24];
				setup_tmpfs(op);
				snprintf(number, sizeof number, "%ld", n);
				execl("/proc/self/exe", "faults", names[kind], op->name, number, dir, NULL);
				NEED(0);
			}
			_exit(attempt(op, kind, n));
		}
		int status, hit = 1;
		if (is_limit(kind))
			NEED(waitpid(p, &status, 0) == p);
		else
			hit = inject(p, kind, n, &status);
		int code = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
		if (WIFSIGNALED(status))
			printf("%s %s %ld: killed by signal %d\n", names[kind], op->name, n, WTERMSIG(status));
		bad += code == 1;
		if (code >= REFUSED) {
			refused++;
			seen[code - REFUSED] = 1;
			if (is_hard(kind))
				child(unlink_new);
		}
		/* What waits for the next creation goes with that; a namespace that could not be taken away at its end with
		 * the look that some later unshare takes. */
		if (!is_tmpfs(kind))
			bad += child(probe);
		for (int i = 0; i < 4 && geteuid() == 0 && files() != at; i++)
			child(unshare_once);
		if (files() != at) {
			if (getenv("FAULTS_SHOW") && system("find $MQNS_DIR -type f -o -type p -o -type l"))
				printf("no find\n");
			printf("%s %s %ld: %d files, %d before\n", names[kind], op->name, n, files(), at);
			bad++;
			at = files();
		}
		if (!hit)
			break;
		worked += code == 0;
		in_row = code == 0 ? in_row + 1 : 0;
		if (is_limit(kind) && in_row == 2)
			break;
		/* Small steps first: a stack for a thread is far away. */
		n += kind != AS || n < 320 ? 1 : n < 1024 ? 32 : 512;
		if (n > 100000 || bad > 5) {
			printf("%s %s: given up at %ld\n", names[kind], op->name, n);
			bad++;
			break;
		}
	}
	printf("%s %s: %d refused, %d worked%s", names[kind], op->name, refused, worked, bad ? " BAD" : "");
	for (int e = 0; e < (int)sizeof seen; e++)
		if (seen[e])
			printf(", %s", e ? strerrorname_np(e) : "failed");
	printf("\n");
	return bad;
}

static int run_kind(enum kind kind, const char *only, long n)
{
	int bad = 0;

	if (n >= 0)
		for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
			if (!strcmp(only, ops[i].name))
				return attempt(&ops[i], kind, n);
	without_library = kind == ENFILE_;
	/* One queue is there, a second is held by another process, and there is room for a third. */
	child(make_there);
	start_holder();
	charge_up_to(3 * COST);
	NEED(mkdtemp(dir));
	/* The first mount makes a file that stays. */
	if (geteuid() == 0)
		child(mount_once);
	for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
		if ((!only || !strcmp(only, ops[i].name)) && (geteuid() == 0 || !(ops[i].flags & ROOT)) &&
		    !(is_tmpfs(kind) && ops[i].flags & FOREIGN))
			bad += test(&ops[i], kind);
	rmdir(dir);
	stop_holder();
	return bad != 0;
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int k = 0; argc > 1 && k < KINDS; k++)
		if (!strcmp(argv[1], names[k]))
			return run_kind(k, argv[2], argc > 4 ? (strcpy(dir, argv[4]), atol(argv[3])) : -1);
	fprintf(stderr, "usage: faults KIND [OP]\n");
	return 2;
}
