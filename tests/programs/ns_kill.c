/*
 * ns_kill KILLS [SEED]: SIGKILL at random instants into processes that make, join, hand on and leave
 * IPC namespaces, with queues.
 *
 * Each round starts one group of victims, kills it whole after up to four milliseconds, and waits for its
 * end. The next processes that make a namespace (in every other round: a queue) clear away what the victims have
 * left in $MQNS_DIR, if set. Meanwhile three bystanders go on: one in a
 * namespace of its own, one in the namespace that victims join and leave, one in the first namespace.
 * None of them stands still for more than STUCK milliseconds, and what they have sent is there.
 *
 * Prints the kills and the longest wait for a bystander. Exit status 0 if all is well.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <fcntl.h>
#include <mqueue.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ALONE, HOST, FIRST, BYSTANDERS, STUCK = 10000 };

static struct shared {
	atomic_uint beat[BYSTANDERS];
	atomic_int stop;
} *shared;

static char *self;
static int home, host = -1;
static double longest;
static long round_number;
static const char *kind_name = "";
static struct mq_attr attr = {.mq_maxmsg = 1, .mq_msgsize = 8};

static void fail(const char *format, ...)
{
	va_list args;
	int error = errno;

	fprintf(stderr, "round %ld, %s: ", round_number, kind_name);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, " (%s)\n", error ? strerrorname_np(error) : "0");
	_exit(1);
}

#define MUST(call) do { if ((call) < 0) fail("%s", #call); } while (0)

static void make(const char *name)
{
	time_t start = time(NULL);
	mqd_t q;

	/* Natively what dead namespaces are charged is given back some time after their end. */
	do
		q = mq_open(name, O_RDWR | O_CREAT | O_NONBLOCK, 0600, &attr);
	while (q == (mqd_t)-1 && errno == EMFILE && time(NULL) - start < 10 && sched_yield() == 0);
	MUST(q);
	if (mq_send(q, "victim", 7, 0) != 0 && errno != EAGAIN)
		fail("mq_send");
	MUST(mq_close(q));
}

static void there(const char *name)
{
	mqd_t q;

	MUST(q = mq_open(name, O_RDONLY));
	MUST(mq_close(q));
}

/* ---- victims: each goes on until it is killed ---- */

static void unshares(void)
{
	for (;;) {
		MUST(unshare(CLONE_NEWIPC));
		make("/q");
	}
}

static void joins(void)
{
	for (unsigned i = 0;; i++) {
		char name[16];

		snprintf(name, sizeof name, "/v%u", i % 8);
		MUST(setns(host, CLONE_NEWIPC));
		there("/q");
		make(name);
		if (mq_unlink(name) != 0 && errno != ENOENT)
			fail("mq_unlink");
		MUST(setns(home, CLONE_NEWIPC));
	}
}

static void forks(void)
{
	MUST(setns(host, CLONE_NEWIPC));
	for (;;) {
		pid_t pid = fork();

		if (pid == 0) {
			there("/q");
			_exit(0);
		}
		MUST(pid);
		MUST(waitpid(pid, NULL, 0));
	}
}

static void execs(void)
{
	MUST(unshare(CLONE_NEWIPC));
	make("/q");
	MUST(execl(self, self, "exec", (char *)NULL));
}

static void exits(void)
{
	for (;;) {
		pid_t pids[3];

		MUST(unshare(CLONE_NEWIPC));
		make("/q");
		for (int i = 0; i < 3; i++) {
			pids[i] = fork();
			if (pids[i] == 0) {
				there("/q");
				if (i == 2)
					exit(0);
				if (i == 1)
					unshare(CLONE_NEWIPC);
				_exit(0);
			}
			MUST(pids[i]);
		}
		for (int i = 0; i < 3; i++)
			MUST(waitpid(pids[i], NULL, 0));
	}
}

static void *heir(void *unused)
{
	there("/q");
	return unused;
}

static void *thread_unshares(void *unused)
{
	pthread_t thread;

	for (;;) {
		MUST(unshare(CLONE_NEWIPC));
		make("/q");
		if (pthread_create(&thread, NULL, heir, NULL) == 0)
			pthread_join(thread, NULL);
	}
	return unused;
}

static void *thread_ends(void *unused)
{
	MUST(unshare(CLONE_NEWIPC));
	make("/q");
	return unused;
}

static void threads(void)
{
	pthread_t thread;

	for (int i = 0; i < 2; i++)
		if (pthread_create(&thread, NULL, thread_unshares, NULL) != 0)
			fail("pthread_create");
	for (;;)
		if (pthread_create(&thread, NULL, thread_ends, NULL) == 0)
			pthread_join(thread, NULL);
}

static void tree(void)
{
	int child = 1;

	for (int level = 0; child && level < 4; level++) {
		MUST(unshare(CLONE_NEWIPC));
		make("/q");
		child = 0;
		for (int i = 0; i < 2 && !child && level < 3; i++) {
			pid_t pid = fork();

			MUST(pid);
			child = pid == 0;
		}
		if (child)
			there("/q");
	}
	for (;;)
		pause();
}

static int cloned(void *unused)
{
	(void)unused;
	make("/q");
	return 0;
}

static void clones(void)
{
	static char stack[65536] __attribute__((aligned(16)));

	for (;;) {
		pid_t pid = clone(cloned, stack + sizeof stack, CLONE_NEWIPC | SIGCHLD, NULL);

		MUST(pid);
		MUST(waitpid(pid, NULL, 0));
	}
}

static void descriptors(void)
{
	int fds[8], n = 0;

	for (;; n++) {
		MUST(unshare(CLONE_NEWIPC));
		make("/q");
		if (n >= 8)
			MUST(close(fds[n % 8]));
		MUST(fds[n % 8] = open("/proc/self/ns/ipc", O_RDONLY | O_CLOEXEC));
		if (n >= 8) {
			MUST(setns(fds[(n + 1) % 8], CLONE_NEWIPC));
			there("/q");
		}
	}
}

static const struct {
	const char *name;
	void (*run)(void);
} kinds[] = {
	{"unshare", unshares}, {"setns", joins},   {"fork", forks},     {"exec", execs}, {"exit", exits},
	{"threads", threads},  {"tree", tree},     {"clone", clones},   {"descriptors", descriptors},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

/* ---- bystanders ---- */

static void bystand(int which, int ready)
{
	struct mq_attr own = {.mq_maxmsg = 2, .mq_msgsize = 16};
	unsigned sent = 0, got;
	mqd_t q;

	kind_name = "bystander";
	MUST(prctl(PR_SET_PDEATHSIG, SIGKILL));
	if (which != FIRST)
		MUST(unshare(CLONE_NEWIPC));
	MUST(q = mq_open("/q", O_RDWR | O_CREAT | O_EXCL, 0600, &attr));
	MUST(mq_close(q));
	MUST(q = mq_open("/own", O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK, 0600, &own));
	MUST(write(ready, "", 1));
	while (!atomic_load(&shared->stop)) {
		char text[16];
		mqd_t more;

		sent++;
		MUST(mq_send(q, (char *)&sent, sizeof sent, 0));
		while ((more = mq_open("/more", O_RDWR | O_CREAT | O_EXCL, 0600, &attr)) < 0 && errno == EMFILE)
			sched_yield(); /* as in make(); the killer sees it if this takes long */
		MUST(more);
		there("/q");
		MUST(mq_close(more));
		MUST(mq_unlink("/more"));
		if (mq_receive(q, text, sizeof text, NULL) != sizeof got)
			fail("mq_receive");
		memcpy(&got, text, sizeof got);
		if (got != sent)
			fail("%u came for %u", got, sent);
		atomic_fetch_add(&shared->beat[which], 1);
		nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
	}
	MUST(mq_unlink("/own"));
	MUST(mq_unlink("/q"));
	_exit(0);
}

/* ---- the killer ---- */

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

/* Waits until each bystander has ended two rounds of work, one of which began after this; milliseconds. */
static double bystanders_go_on(void)
{
	unsigned before[BYSTANDERS];
	double start = now_ms(), passed = 0;

	for (int i = 0; i < BYSTANDERS; i++)
		before[i] = atomic_load(&shared->beat[i]);
	for (int i = 0; i < BYSTANDERS; i++)
		while (atomic_load(&shared->beat[i]) - before[i] < 2) {
			passed = now_ms() - start;
			if (passed > STUCK)
				fail("bystander %d has stood still for %.0f ms", i, passed);
			sched_yield();
		}
	return passed;
}

/* Another process makes a namespace, or a queue in the first one. */
static void look(int by_queue)
{
	int status;
	pid_t pid = fork();

	MUST(pid);
	if (pid == 0) {
		if (by_queue) {
			make("/look");
			MUST(mq_unlink("/look"));
		} else {
			MUST(unshare(CLONE_NEWIPC));
		}
		_exit(0);
	}
	MUST(waitpid(pid, &status, 0));
	if (status != 0)
		fail("the next look ended with status %#x", status);
}

/* Namespaces of this user in the state directory; as many as are alive if there is none. */
static int in_directory(int alive)
{
	const char *root = getenv("MQNS_DIR");
	char own[PATH_MAX];
	DIR *dir;
	struct dirent *entry;
	int found = 0;

	if (!root)
		return alive;
	snprintf(own, sizeof own, "%s/u%d", root, (int)geteuid());
	dir = opendir(own);
	if (!dir)
		fail("%s", own);
	while ((entry = readdir(dir)))
		found += entry->d_name[0] == 'n' && isdigit((unsigned char)entry->d_name[1]);
	closedir(dir);
	return found;
}

/* One look need not see all, but each sees some: after as many as there were namespaces, all are seen. */
static void looks_clear_away(int by_queue, int alive)
{
	int first = in_directory(alive), now = first;

	for (int looks = 0; looks == 0 || (now > alive && looks <= first); looks++) {
		look(by_queue);
		/* A bystander that makes a queue looks as well: what it has begun to clear away is gone now. */
		double waited = alive ? bystanders_go_on() : 0;
		longest = waited > longest ? waited : longest;
		now = in_directory(alive);
	}
	errno = 0;
	if (now != alive)
		fail("%d namespaces in the directory after the kill, %d after as many looks, %d alive", first, now, alive);
}

int main(int argc, char **argv)
{
	pid_t bystanders[BYSTANDERS];
	long kills = argc > 1 ? atol(argv[1]) : 0;
	int ready[2], status;
	char path[64], byte;

	self = argv[0];
	if (argc == 2 && !strcmp(argv[1], "exec")) {
		kind_name = "after exec";
		there("/q");
		MUST(execl(self, self, "exec", (char *)NULL));
	}
	if (kills <= 0)
		return 2;
	srand(argc > 2 ? (unsigned)atoi(argv[2]) : 1);
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		fail("mmap");
	MUST(prctl(PR_SET_CHILD_SUBREAPER, 1));
	MUST(home = open("/proc/self/ns/ipc", O_RDONLY | O_CLOEXEC));
	MUST(pipe(ready));
	for (int i = 0; i < BYSTANDERS; i++) {
		MUST(bystanders[i] = fork());
		if (bystanders[i] == 0)
			bystand(i, ready[1]);
		if (read(ready[0], &byte, 1) != 1)
			fail("no bystander");
	}
	snprintf(path, sizeof path, "/proc/%d/ns/ipc", (int)bystanders[HOST]);
	MUST(host = open(path, O_RDONLY | O_CLOEXEC));

	for (round_number = 0; round_number < kills; round_number++) {
		int kind = (int)(round_number % KINDS), died = 0;
		long us = rand() % 4000;
		pid_t pid, end;

		kind_name = kinds[kind].name;
		MUST(pid = fork());
		if (pid == 0) {
			setpgid(0, 0);
			MUST(write(ready[1], "", 1));
			kinds[kind].run();
		}
		setpgid(pid, pid);
		if (read(ready[0], &byte, 1) != 1)
			fail("no victim");
		nanosleep(&(struct timespec){.tv_nsec = us * 1000}, NULL);
		MUST(kill(-pid, SIGKILL));
		/* Orphans of the group come to us. */
		while ((end = waitpid(-pid, &status, 0)) > 0) {
			died += WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
			if (!WIFSIGNALED(status) ? status != 0 : WTERMSIG(status) != SIGKILL)
				fail("a victim ended with status %#x", status);
		}
		if (died == 0)
			fail("nobody was killed");
		looks_clear_away(round_number / KINDS % 2, 2);
	}

	kind_name = "end";
	atomic_store(&shared->stop, 1);
	for (int i = 0; i < BYSTANDERS; i++) {
		MUST(waitpid(bystanders[i], &status, 0));
		if (status != 0)
			fail("bystander %d ended with status %#x", i, status);
	}
	MUST(close(host));
	looks_clear_away(0, 0);
	printf("%ld kills, bystanders waited for at most %.1f ms\n", kills, longest);
	return 0;
}
