/* cc-flags: -rdynamic */
/*
 * faults_many CASE: many of a kind, a state directory that changes under its users, a clock that
 * jumps. Says how often, a tab, and what it has seen; exits 0 if that is right.
 *
 *   children      1,000 children write to one queue at once; each message arrives once, in its
 *                 sender's order
 *   processes     1,000 processes sleep in mq_receive on one queue, then in mq_send; each is served once
 *   threads       the same with threads
 *   queues [N]    N queues at a time (10,000): made, opened, used, removed
 *   epolls        1,000 epoll sets with one queue, half of them edge-triggered
 *   nproc         RLIMIT_NPROC lets no task begin (needs root, to be somebody else)
 *   clock         CLOCK_REALTIME as the program sees it goes an hour back and forth. The program's own
 *                 clock_gettime stands in front of libc's; the kernel's clock is not touched
 *   directory     (the library only; needs the right to mount) the state directory is read-only, missing,
 *                 not a directory, emptied, replaced, mounted noexec,nosuid,nodev
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <mqueue.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MANY = 1000, MOST = 8000 };

#define NEED(what)                                                                               \
	do {                                                                                     \
		if (!(what)) {                                                                   \
			dprintf(1, "%s:%d: %s: %s\n", __FILE__, __LINE__, #what,                 \
				strerrorname_np(errno));                                         \
			_exit(1);                                                                \
		}                                                                                \
	} while (0)

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static mqd_t make(const char *name, long maxmsg, long msgsize, int flags)
{
	struct mq_attr a = {.mq_maxmsg = maxmsg, .mq_msgsize = msgsize};
	mqd_t q = mq_open(name, O_RDWR | O_CREAT | O_EXCL | flags, 0600, &a);
	NEED(q != (mqd_t)-1);
	return q;
}

static long messages(mqd_t q)
{
	struct mq_attr a;
	NEED(!mq_getattr(q, &a));
	return a.mq_curmsgs;
}

static void reap(pid_t p)
{
	int status;
	NEED(waitpid(p, &status, 0) == p);
	NEED(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* ---- Many ------------------------------------------------------------------------------------ */

static int children(void)
{
	enum { EACH = 10 };
	static int next[MANY];
	static pid_t pids[MANY];
	int m[2];
	mqd_t q = make("/children", 10, sizeof m, 0);

	for (int i = 0; i < MANY; i++) {
		NEED((pids[i] = fork()) >= 0);
		if (pids[i] == 0) {
			for (int k = 0; k < EACH; k++) {
				int own[2] = {i, k};
				NEED(!mq_send(q, (char *)own, sizeof own, 0));
			}
			_exit(0);
		}
	}
	for (int i = 0; i < MANY * EACH; i++) {
		NEED(mq_receive(q, (char *)m, sizeof m, NULL) == sizeof m);
		NEED(m[0] >= 0 && m[0] < MANY && m[1] == next[m[0]]++);
	}
	for (int i = 0; i < MANY; i++)
		reap(pids[i]);
	NEED(messages(q) == 0 && !mq_unlink("/children"));
	printf("%d messages\teach once, in the order of its sender\n", MANY * EACH);
	return 0;
}

static _Atomic int *served, *started;
static mqd_t waited;

static void receive_one(void)
{
	int n = -1;
	atomic_fetch_add(started, 1);
	NEED(mq_receive(waited, (char *)&n, sizeof n, NULL) == sizeof n && n >= 0 && n < MOST);
	/* Each number once. */
	NEED(atomic_fetch_add(&served[n], 1) == 0);
}

static void send_one(int n)
{
	atomic_fetch_add(started, 1);
	NEED(!mq_send(waited, (char *)&n, sizeof n, 0));
}

static void *receiver(void *arg)
{
	receive_one();
	return arg;
}

static void *sender(void *arg)
{
	send_one((long)arg);
	return arg;
}

/* All have begun, and have had the time to fall asleep. */
static void all_asleep(int many)
{
	while (atomic_load(started) < many)
		usleep(1000);
	usleep(100000);
	atomic_store(started, 0);
}

static void waiters(int threads, int many)
{
	static pthread_t ts[MOST];
	static pid_t pids[MOST];
	pthread_attr_t small;

	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 64 << 10);
	served = mmap(NULL, (MOST + 1) * sizeof *served, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	started = served + MOST;
	waited = make("/waiters", 10, sizeof(int), 0);
	for (int sending = 0; sending < 2; sending++) {
		int room = sending ? 10 : 0, n;

		memset((void *)served, 0, many * sizeof *served);
		for (n = 0; n < room; n++)
			NEED(!mq_send(waited, "full", 4, 0));
		for (long i = 0; i < many; i++) {
			if (threads) {
				NEED(!pthread_create(&ts[i], &small, sending ? sender : receiver, (void *)i));
				continue;
			}
			NEED((pids[i] = fork()) >= 0);
			if (pids[i] == 0) {
				if (sending)
					send_one(i);
				else
					receive_one();
				_exit(0);
			}
		}
		all_asleep(many);
		for (int i = 0; i < many + room; i++) {
			if (!sending) {
				NEED(!mq_send(waited, (char *)&i, sizeof i, 0));
			} else {
				NEED(mq_receive(waited, (char *)&n, sizeof n, NULL) == sizeof n);
				NEED(i < room ? !memcmp(&n, "full", 4) : n >= 0 && n < many && served[n]++ == 0);
			}
		}
		for (int i = 0; i < many; i++) {
			if (threads)
				pthread_join(ts[i], NULL);
			else
				reap(pids[i]);
		}
		for (int i = 0; i < many; i++)
			NEED(served[i] == 1);
		NEED(messages(waited) == 0);
	}
	NEED(!mq_unlink("/waiters"));
	printf("%d waits\teach is served once\n", 2 * many);
}

static int processes(void)
{
	waiters(0, MANY);
	return 0;
}

static int most_threads(void)
{
	waiters(1, MOST);
	return 0;
}

static int threads(void)
{
	waiters(1, MANY);
	return 0;
}

static int queues(int n)
{
	char name[32], b[8];
	double start = now();
	/* As far as that is allowed. */
	int f = open("/proc/sys/fs/mqueue/queues_max", O_WRONLY);

	if (f >= 0 && write(f, "20000", 5) != 5)
		perror("queues_max");
	close(f);

	for (int i = 0; i < n; i++) {
		snprintf(name, sizeof name, "/many.%d", i);
		mqd_t q = make(name, 1, 8, O_NONBLOCK);
		NEED(!mq_send(q, (char *)&i, sizeof i, 0));
		mq_close(q);
	}
	double made = now();
	for (int i = n; i-- > 0;) {
		snprintf(name, sizeof name, "/many.%d", i);
		mqd_t q = mq_open(name, O_RDWR | O_NONBLOCK);
		NEED(q != (mqd_t)-1 && mq_receive(q, b, 8, NULL) == sizeof i && !memcmp(b, &i, sizeof i));
		NEED(messages(q) == 0);
		mq_close(q);
	}
	double used = now();
	for (int i = 0; i < n; i++) {
		snprintf(name, sizeof name, "/many.%d", i);
		NEED(!mq_unlink(name));
		NEED(mq_open(name, O_RDWR) == (mqd_t)-1 && errno == ENOENT);
	}
	fprintf(stderr, "made in %.2f s, used in %.2f s, removed in %.2f s\n", made - start, used - made, now() - used);
	printf("%d queues\tmade, used, removed\n", n);
	return 0;
}

static int epolls(void)
{
	static int sets[MANY];
	struct rlimit r;
	struct epoll_event e, got;
	char b[8];
	mqd_t q = make("/epolls", 10, 8, O_NONBLOCK);

	NEED(!getrlimit(RLIMIT_NOFILE, &r));
	r.rlim_cur = r.rlim_max;
	NEED(!setrlimit(RLIMIT_NOFILE, &r) && r.rlim_cur > MANY + 100);
	for (int i = 0; i < MANY; i++) {
		e = (struct epoll_event){.events = EPOLLIN | (i % 2 ? EPOLLET : 0), .data.u32 = i};
		NEED((sets[i] = epoll_create1(0)) >= 0 && !epoll_ctl(sets[i], EPOLL_CTL_ADD, q, &e));
	}
	for (int turn = 0; turn < 3; turn++) {
		for (int i = 0; i < MANY; i++)
			NEED(epoll_wait(sets[i], &got, 1, 0) == 0);
		NEED(!mq_send(q, "x", 1, 0));
		for (int i = 0; i < MANY; i++)
			NEED(epoll_wait(sets[i], &got, 1, 1000) == 1 && got.data.u32 == (unsigned)i && got.events == EPOLLIN);
		/* The edge is over, the level is not. */
		for (int i = 0; i < MANY; i++)
			NEED(epoll_wait(sets[i], &got, 1, 0) == (i % 2 ? 0 : 1));
		NEED(mq_receive(q, b, 8, NULL) == 1);
	}
	for (int i = 0; i < MANY; i++)
		close(sets[i]);
	NEED(!mq_close(q) && !mq_unlink("/epolls"));
	printf("%d waits\tlevels and edges as they should be\n", 9 * MANY);
	return 0;
}

/* ---- No more tasks --------------------------------------------------------------------------- */

static void nothing(union sigval v)
{
	(void)v;
}

static int nproc(void)
{
	struct sigevent e = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = nothing};
	struct rlimit none, most;
	char b[8];
	/* Another user, without privilege: the limit does not hold for root. */
	if (setgroups(0, NULL) || setresgid(12347, 12347, 12347) || setresuid(12347, 12347, 12347)) {
		puts("skipped: needs root");
		return 0;
	}
	NEED(!getrlimit(RLIMIT_NPROC, &most));
	none = most;
	none.rlim_cur = 0;
	NEED(!setrlimit(RLIMIT_NPROC, &none));
	pid_t p = fork();
	if (p == 0)
		_exit(0);
	NEED(p == -1 && errno == EAGAIN);
	mqd_t q = make("/nproc", 4, 8, O_NONBLOCK);
	NEED(!mq_send(q, "x", 1, 0) && mq_receive(q, b, 8, NULL) == 1);
	int r = mq_notify(q, &e);
	int err = errno;
	if (getenv("MQNS_DIR"))
		NEED(r == -1 && err == EAGAIN);
	NEED(!setrlimit(RLIMIT_NPROC, &most));
	/* Nothing is registered. */
	if (getenv("MQNS_DIR"))
		NEED(!mq_notify(q, &e));
	p = fork();
	if (p == 0)
		_exit(mq_send(q, "y", 1, 0));
	NEED(p > 0);
	reap(p);
	NEED(mq_receive(q, b, 8, NULL) == 1 && b[0] == 'y');
	NEED(!mq_unlink("/nproc"));
	printf("1\tfork: EAGAIN; queues work; mq_notify with SIGEV_THREAD: %s\n", r ? strerrorname_np(err) : "works");
	return 0;
}

/* ---- A clock that jumps ---------------------------------------------------------------------- */

static _Atomic long shift;

/* In front of libc's, for the library as well. */
int clock_gettime(clockid_t clock, struct timespec *t)
{
	int r = syscall(SYS_clock_gettime, clock, t);
	if (!r && clock == CLOCK_REALTIME)
		t->tv_sec += shift;
	return r;
}

static double timed(mqd_t q, double ahead)
{
	struct timespec t;
	char b[8];
	double start = now();

	NEED(!syscall(SYS_clock_gettime, CLOCK_REALTIME, &t));
	t.tv_nsec += (long)(ahead * 1e9);
	if (t.tv_nsec >= 1000000000)
		t.tv_sec++, t.tv_nsec -= 1000000000;
	NEED(mq_timedreceive(q, b, 8, NULL, &t) == -1 && errno == ETIMEDOUT);
	return now() - start;
}

static void *jump(void *arg)
{
	for (int i = 0; i < 100; i++) {
		shift = i % 3 * 3600 - 3600;
		usleep(2000);
	}
	return arg;
}

static int jumps(void)
{
	mqd_t q = make("/clock", 4, 8, 0);
	pthread_t t;

	for (int i = 0; i < 3; i++) {
		shift = i * 3600 - 3600;
		double took = timed(q, 0.05);
		NEED(took >= 0.049 && took < 5);
	}
	/* While it sleeps. */
	NEED(!pthread_create(&t, NULL, jump, NULL));
	for (int i = 0; i < 4; i++) {
		double took = timed(q, 0.05);
		NEED(took >= 0.049 && took < 5);
	}
	pthread_join(t, NULL);
	/* Queues are made, used and removed as ever. */
	for (int i = 0; i < 3; i++) {
		char b[8];
		shift = 3600 - i * 3600;
		mqd_t other = make("/other", 4, 8, O_NONBLOCK);
		NEED(!mq_send(other, "x", 1, 0) && mq_receive(other, b, 8, NULL) == 1);
		NEED(!mq_unlink("/other") && !mq_close(other));
	}
	NEED(!mq_unlink("/clock"));
	puts("7 calls\tend at their deadlines by the kernel's clock");
	return 0;
}

/* ---- The state directory --------------------------------------------------------------------- */

static const char *root;

/* In a process that has used no queue before: 0 or the error of making a queue (and of removing it). */
static int fresh(const char *name, int remove)
{
	int status;
	pid_t p = fork();

	if (p == 0) {
		struct mq_attr a = {.mq_maxmsg = 4, .mq_msgsize = 8};
		alarm(10);
		mqd_t q = mq_open(name, O_RDWR | O_CREAT, 0600, &a);
		_exit(q == (mqd_t)-1 ? errno : remove && mq_unlink(name) ? errno : 0);
	}
	NEED(waitpid(p, &status, 0) == p);
	NEED(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void said(const char *what, int err)
{
	printf("1\t%s: %s\n", what, err ? strerrorname_np(err) : "works");
}

static void tmpfs(unsigned long flags)
{
	NEED(!mount("none", root, "tmpfs", flags, "size=8m,mode=1777"));
}

static void use(mqd_t q)
{
	char b[8];
	NEED(!mq_send(q, "x", 1, 0) && mq_receive(q, b, 8, NULL) == 1 && b[0] == 'x');
}

/* By system calls, in a process of its own: this one has looked at nothing. */
static void run(const char *script)
{
	int status;
	pid_t p = fork();
	if (p == 0) {
		unsetenv("LD_PRELOAD");
		execl("/bin/sh", "sh", "-c", script, NULL);
		_exit(127);
	}
	NEED(waitpid(p, &status, 0) == p && status == 0);
}

/* Each in a mount namespace of its own. */
static void in_child(void (*what)(void))
{
	int status;
	pid_t p = fork();
	if (p == 0) {
		alarm(30);
		NEED(!unshare(CLONE_NEWNS) && !mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
		what();
		_exit(0);
	}
	NEED(waitpid(p, &status, 0) == p);
	NEED(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void read_only(void)
{
	tmpfs(0);
	NEED(!mount("none", root, NULL, MS_REMOUNT | MS_RDONLY, NULL));
	int err = fresh("/a", 1);
	said("read-only, empty: create", err);
	NEED(err == EROFS);
	NEED(!mount("none", root, NULL, MS_REMOUNT, NULL));
	mqd_t q = make("/a", 4, 8, O_NONBLOCK);
	NEED(!mount("none", root, NULL, MS_REMOUNT | MS_RDONLY, NULL) || errno == EBUSY);
	/* A shared writable mapping keeps a file system from it; but not one mount. */
	NEED(!mount(root, root, NULL, MS_BIND, NULL));
	NEED(!mount("none", root, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL));
	use(q);
	err = fresh("/b", 1);
	said("read-only, in use: create", err);
	NEED(err == EROFS);
	err = mq_unlink("/a") ? errno : 0;
	said("read-only, in use: unlink", err);
	NEED(err == EROFS);
	use(q);
	NEED(!mount("none", root, NULL, MS_REMOUNT | MS_BIND, NULL));
	NEED(fresh("/b", 1) == 0 && !mq_unlink("/a"));
}

static void missing(void)
{
	char path[256];

	snprintf(path, sizeof path, "%s/one", root);
	setenv("MQNS_DIR", path, 1);
	NEED(fresh("/a", 1) == 0);
	said("missing: create", 0);
	snprintf(path, sizeof path, "%s/two/three", root);
	setenv("MQNS_DIR", path, 1);
	int err = fresh("/a", 1);
	said("missing, and what it would lie in: create", err);
	NEED(err == ENOENT);
	snprintf(path, sizeof path, "%s/file", root);
	close(open(path, O_CREAT | O_RDWR, 0600));
	setenv("MQNS_DIR", path, 1);
	err = fresh("/a", 1);
	said("a file: create", err);
	NEED(err == ENOTDIR);
	setenv("MQNS_DIR", "relative", 1);
	err = fresh("/a", 1);
	said("not absolute: create", err);
	NEED(err == EINVAL);
}

static void *sleeper(void *arg)
{
	char b[8];
	NEED(mq_receive(*(mqd_t *)arg, b, 8, NULL) == 1 && b[0] == 'w');
	return NULL;
}

static void emptied(void)
{
	pthread_t t;

	tmpfs(0);
	mqd_t q = make("/a", 4, 8, 0), b = make("/b", 4, 8, 0);
	NEED(!pthread_create(&t, NULL, sleeper, &b));
	usleep(50000);
	run("rm -r \"$MQNS_DIR\"/*");
	/* What is open works on. */
	use(q);
	NEED(!mq_send(b, "w", 1, 0));
	pthread_join(t, NULL);
	struct mq_attr a = {.mq_maxmsg = 4, .mq_msgsize = 8};
	double start = now();
	int err = mq_open("/c", O_RDWR | O_CREAT, 0600, &a) == (mqd_t)-1 ? errno : 0;
	said("emptied: create by who was there", err);
	NEED(err == ENOENT || err == 0);
	err = mq_open("/a", O_RDWR) == (mqd_t)-1 ? errno : 0;
	said("emptied: open by who was there", err);
	NEED(err == ENOENT);
	err = mq_unlink("/a") ? errno : 0;
	said("emptied: unlink by who was there", err);
	NEED(err == ENOENT);
	NEED(now() - start < 2);
	NEED(!mq_close(q) && !mq_close(b));
	pid_t p = fork();
	if (p == 0) {
		/* An image that begins now. */
		execl("/proc/self/exe", "faults_many", "one-queue", NULL);
		_exit(127);
	}
	reap(p);
	said("emptied: create by a program that starts then", 0);
}

static int one_queue(void)
{
	mqd_t q = make("/new", 4, 8, O_NONBLOCK);
	use(q);
	NEED(!mq_unlink("/new"));
	return 0;
}

static int queue_a(void)
{
	mqd_t q = make("/a", 4, 8, O_NONBLOCK);
	NEED(!mq_send(q, "new", 3, 0));
	return 0;
}

static void replaced(void)
{
	char b[8];

	tmpfs(0);
	mqd_t held = make("/a", 4, 8, O_NONBLOCK);
	NEED(!mq_send(held, "old", 3, 0));
	/* The mapping stays for a while. */
	NEED(!mq_close(held));
	/* A new file system numbers its inodes from the start, and /a gets the same. */
	tmpfs(0);
	pid_t p = fork();
	if (p == 0) {
		execl("/proc/self/exe", "faults_many", "queue-a", NULL);
		_exit(127);
	}
	reap(p);
	double start = now();
	mqd_t q = mq_open("/a", O_RDWR | O_NONBLOCK);
	int err = errno;
	said("replaced: open by who was there", q == (mqd_t)-1 ? err : 0);
	NEED(now() - start < 2 && q != (mqd_t)-1);
	if (q != (mqd_t)-1) {
		NEED(mq_receive(q, b, 8, NULL) == 3 && !memcmp(b, "new", 3));
		NEED(!mq_close(q));
	}
	struct mq_attr a = {.mq_maxmsg = 4, .mq_msgsize = 8};
	start = now();
	q = mq_open("/c", O_RDWR | O_CREAT, 0600, &a);
	err = errno;
	said("replaced: create by who was there", q == (mqd_t)-1 ? err : 0);
	NEED(now() - start < 2);
	if (q != (mqd_t)-1)
		use(q);
}

static void restricted(void)
{
	tmpfs(MS_NOEXEC | MS_NOSUID | MS_NODEV);
	mqd_t q = make("/a", 4, 8, O_NONBLOCK);
	struct pollfd p = {.fd = q, .events = POLLIN | POLLOUT};
	use(q);
	NEED(poll(&p, 1, 0) == 1 && p.revents == POLLOUT);
	NEED(fresh("/b", 1) == 0 && !mq_unlink("/a") && !mq_close(q));
	said("noexec, nosuid, nodev", 0);
}

static int directory(void)
{
	NEED(root = getenv("MQNS_DIR"));
	in_child(read_only);
	in_child(missing);
	in_child(emptied);
	in_child(replaced);
	in_child(restricted);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(void);
	} cases[] = {
		{"children", children},   {"processes", processes}, {"threads", threads},     {"most-threads", most_threads}, {"epolls", epolls},
		{"nproc", nproc},	  {"clock", jumps},	    {"directory", directory}, {"one-queue", one_queue},
		{"queue-a", queue_a},
	};

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc > 1 && !strcmp(argv[1], "queues"))
		return queues(argc > 2 ? atoi(argv[2]) : 10000);
	for (size_t i = 0; argc > 1 && i < sizeof cases / sizeof *cases; i++)
		if (!strcmp(argv[1], cases[i].name))
			return cases[i].run();
	fprintf(stderr, "usage: faults_many CASE\n");
	return 2;
}
