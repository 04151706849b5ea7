/*
 * ns_race HOW ROUNDS [SEED]: the last exit of an IPC namespace against those who come from outside.
 *
 * Each round a child makes a namespace with a queue in it, then leaves by one of the ways below, while
 * this process, after a delay that hovers where both outcomes are as likely, comes in:
 *
 *   file     open /proc/PID/ns/ipc, setns
 *   pidfd    setns on a pidfd
 *   mount    bind mount of /proc/PID/ns/ipc, open, setns (wants a mount namespace of its own)
 *   both     file, and another process by pidfd at the same time
 *   member   nobody comes from outside: the child's own child, thread or program opens the queue
 *
 * Whoever comes finds the namespace alive, with its queue, which then lives as long as he stays; or is
 * refused (ENOENT by file, ESRCH by pidfd), and so is he who tries again. After each round nothing is
 * left in $MQNS_DIR, if set: at once, or, after SIGKILL, when the next namespace is made.
 *
 * Prints how many came in and how many were refused. Exit status 0 if all is well.
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
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

extern char **environ;

enum how { BY_FILE, BY_PIDFD, BY_MOUNT, BY_BOTH, BY_MEMBER };
enum way { IS_UNDERSCORE_EXIT, IS_EXIT, IS_SIGKILL, IS_SETNS, IS_UNSHARE, IS_EXEC, IS_THREAD_EXIT, WAYS };
enum outcome { REFUSED, JOINED };

static const char *const way_names[] = {"_exit", "exit", "SIGKILL", "setns", "unshare", "exec", "pthread_exit"};
static atomic_int *go;
static int home, said[2];
static char *target, *self;
static long round_number;
static enum way way;

static void fail(const char *format, ...)
{
	va_list args;

	fprintf(stderr, "round %ld, %s: ", round_number, way_names[way]);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	if (target) {
		umount2(target, MNT_DETACH);
		unlink(target);
	}
	_exit(1);
}

/* The queue of a round is known by its message size, so that several may look at once. */
static long size_of_round(void)
{
	return 8 + round_number % 100;
}

/* Natively what dead namespaces are charged is given back some time after their end. */
static mqd_t create(const char *name, struct mq_attr *attr)
{
	time_t start = time(NULL);
	mqd_t q;

	do
		q = mq_open(name, O_RDWR | O_CREAT | O_EXCL, 0600, attr);
	while (q == (mqd_t)-1 && errno == EMFILE && time(NULL) - start < 10 && sched_yield() == 0);
	return q;
}

static void settle(void)
{
	struct mq_attr attr = {.mq_maxmsg = 1, .mq_msgsize = size_of_round()};
	mqd_t q = create("/q", &attr);

	if (q == (mqd_t)-1 || mq_send(q, "", 1, 0) != 0)
		fail("a queue in a new namespace: %s", strerrorname_np(errno));
	mq_close(q);
}

/* The queue of this round is here, with its message. */
static void check(const char *when)
{
	struct mq_attr attr;
	mqd_t q = mq_open("/q", O_RDWR | O_NONBLOCK);

	if (q == (mqd_t)-1)
		fail("%s: mq_open: %s", when, strerrorname_np(errno));
	if (mq_getattr(q, &attr) != 0)
		fail("%s: mq_getattr: %s", when, strerrorname_np(errno));
	if (attr.mq_msgsize != size_of_round() || attr.mq_curmsgs != 1)
		fail("%s: a queue of size %ld with %ld messages", when, attr.mq_msgsize, attr.mq_curmsgs);
	mq_close(q);
}

static ino_t number_of_fd(int fd)
{
	struct stat st;

	if (fstat(fd, &st) != 0)
		fail("fstat of a namespace file: %s", strerrorname_np(errno));
	return st.st_ino;
}

static ino_t number_of(const char *file)
{
	int fd = open(file, O_RDONLY | O_CLOEXEC);
	ino_t number;

	if (fd < 0)
		fail("%s: %s", file, strerrorname_np(errno));
	number = number_of_fd(fd);
	close(fd);
	return number;
}

static void go_home(void)
{
	if (setns(home, CLONE_NEWIPC) != 0)
		fail("setns home: %s", strerrorname_np(errno));
}

static void wait_for(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) != pid)
		fail("waitpid: %s", strerrorname_np(errno));
	if (status != 0 && !(way == IS_SIGKILL && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL))
		fail("a process ended with status %#x", status);
}

/* Waits for the end of a process without reaping it. */
static void await_end(pid_t pid)
{
	siginfo_t info;

	if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) != 0)
		fail("waitid: %s", strerrorname_np(errno));
}

static void spin(long ns)
{
	struct timespec t;
	long long until;

	clock_gettime(CLOCK_MONOTONIC, &t);
	until = t.tv_sec * 1000000000ll + t.tv_nsec + ns;
	do
		clock_gettime(CLOCK_MONOTONIC, &t);
	while (t.tv_sec * 1000000000ll + t.tv_nsec < until);
}

static void await_go(void)
{
	while (!atomic_load(go))
		sched_yield();
}

/* Those who leave. */

static void *leave_in_a_thread(void *unused)
{
	(void)unused;
	await_go();
	_exit(0);
}

static void *move_and_exit(void *unused)
{
	(void)unused;
	go_home();
	return NULL;
}

static void leave(void)
{
	pthread_t thread;

	switch (way) {
	case IS_EXIT:
		await_go();
		exit(0);
	case IS_SIGKILL:
		await_go();
		raise(SIGKILL);
		_exit(1);
	case IS_SETNS:
		await_go();
		go_home();
		_exit(0);
	case IS_UNSHARE:
		await_go();
		if (unshare(CLONE_NEWIPC) != 0)
			fail("unshare: %s", strerrorname_np(errno));
		_exit(0);
	case IS_EXEC:
		await_go();
		execl("/bin/true", "true", (char *)NULL);
		fail("exec: %s", strerrorname_np(errno));
		break;
	case IS_THREAD_EXIT:
		/* The leader ends before the other thread, and one that has moved away was there. */
		if (pthread_create(&thread, NULL, move_and_exit, NULL) || pthread_join(thread, NULL) ||
		    pthread_create(&thread, NULL, leave_in_a_thread, NULL))
			fail("pthread_create");
		pthread_exit(NULL);
	default:
		await_go();
		_exit(0);
	}
}

/* Those who come. */

static enum outcome refused(const char *what, int expected)
{
	if (errno != expected)
		fail("%s: %s", what, strerrorname_np(errno));
	return REFUSED;
}

static enum outcome enter_fd(int fd, ino_t number)
{
	if (number_of_fd(fd) != number) {
		/* He has moved; this is where he is now. */
		if (way != IS_SETNS && way != IS_UNSHARE)
			fail("the process shows another namespace");
		close(fd);
		return REFUSED;
	}
	if (setns(fd, CLONE_NEWIPC) != 0)
		fail("setns with an open namespace file: %s", strerrorname_np(errno));
	close(fd);
	return JOINED;
}

static enum outcome come(enum how how, pid_t pid, int pidfd, ino_t number)
{
	char path[64];
	int fd;

	if (how == BY_PIDFD) {
		if (setns(pidfd, CLONE_NEWIPC) != 0)
			return refused("setns on a pidfd", ESRCH);
		if (number_of("/proc/thread-self/ns/ipc") == number)
			return JOINED;
		if (way != IS_SETNS && way != IS_UNSHARE)
			fail("setns on a pidfd has led to another namespace");
		go_home();
		return REFUSED;
	}
	snprintf(path, sizeof path, "/proc/%d/ns/ipc", (int)pid);
	if (how == BY_MOUNT) {
		if (mount(path, target, NULL, MS_BIND, NULL) != 0)
			return refused("mount", ENOENT);
		fd = open(target, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			fail("open of a mounted namespace file: %s", strerrorname_np(errno));
		enum outcome outcome = enter_fd(fd, number);
		if (outcome == REFUSED && umount(target) != 0)
			fail("umount: %s", strerrorname_np(errno));
		return outcome;
	}
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? refused("open", ENOENT) : enter_fd(fd, number);
}

/* Inside, after the last member has left. */
static void stay(void)
{
	struct mq_attr attr = {.mq_maxmsg = 1, .mq_msgsize = 8};
	pid_t pid;
	mqd_t q;

	check("after the last exit");
	q = create("/r", &attr);
	if (q == (mqd_t)-1 || mq_send(q, "r", 1, 0) != 0)
		fail("a queue of one's own: %s", strerrorname_np(errno));
	mq_close(q);
	pid = fork();
	if (pid == 0) {
		check("in a child");
		_exit(0);
	}
	wait_for(pid);
}

/* Makes a namespace and leaves it. */
static void look(void)
{
	pid_t pid = fork();

	if (pid == 0) {
		if (unshare(CLONE_NEWIPC) != 0)
			fail("unshare: %s", strerrorname_np(errno));
		_exit(0);
	}
	wait_for(pid);
}

static void nothing_is_left(void)
{
	const char *root = getenv("MQNS_DIR");
	char own[PATH_MAX];
	DIR *dir;
	struct dirent *entry;

	snprintf(own, sizeof own, "%s/u%d", root ? root : "", (int)geteuid());
	dir = root ? opendir(own) : NULL;
	if (root && !dir)
		fail("%s: %s", own, strerrorname_np(errno));
	while (dir && (entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			fail("%s is left", entry->d_name);
	if (dir)
		closedir(dir);
}

static enum outcome race(enum how how, long delay)
{
	enum how mine = how == BY_BOTH ? BY_FILE : how;
	ino_t number;
	pid_t pid, other = 0;
	int pidfd;
	enum outcome outcome;

	atomic_store(go, 0);
	pid = fork();
	if (pid == 0) {
		if (unshare(CLONE_NEWIPC) != 0)
			fail("unshare: %s", strerrorname_np(errno));
		settle();
		number = number_of("/proc/self/ns/ipc");
		if (write(said[1], &number, sizeof number) != sizeof number)
			fail("write");
		leave();
	}
	if (pid < 0 || read(said[0], &number, sizeof number) != sizeof number)
		fail("the child has not made a namespace");
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (pidfd < 0)
		fail("pidfd_open: %s", strerrorname_np(errno));
	if (how == BY_BOTH) {
		other = fork();
		if (other == 0) {
			await_go();
			spin(delay);
			if (come(BY_PIDFD, pid, pidfd, number) == JOINED)
				check("the other one");
			_exit(0);
		}
	}
	atomic_store(go, 1);
	spin(delay);
	outcome = come(mine, pid, pidfd, number);
	if (outcome == JOINED) {
		check("at once");
		await_end(pid);
		stay();
	} else {
		if (way == IS_SETNS || way == IS_UNSHARE) /* another namespace until he ends */
			await_end(pid);
		if (come(mine, pid, pidfd, number) == JOINED)
			fail("refused, then alive");
		await_end(pid);
	}
	wait_for(pid);
	if (other)
		wait_for(other);
	if (outcome == JOINED) {
		check("after everybody else has gone");
		go_home();
		if (mine == BY_MOUNT) {
			/* The mount alone keeps it, too. */
			int fd = open(target, O_RDONLY | O_CLOEXEC);
			if (fd < 0 || enter_fd(fd, number) != JOINED)
				fail("a mounted namespace: %s", strerrorname_np(errno));
			check("kept by a mount");
			go_home();
			if (umount(target) != 0)
				fail("umount: %s", strerrorname_np(errno));
		}
	}
	close(pidfd);
	if (way == IS_SIGKILL || mine == BY_MOUNT)
		look();
	nothing_is_left();
	return outcome;
}

/* Heirs of the last member: they are members before it has gone. */

static void *heir_thread(void *unused)
{
	(void)unused;
	spin(rand() % 50000);
	check("a thread after its leader");
	_exit(0);
}

static void heir(long delay)
{
	char number[24];
	char *argv[] = {self, "heir", number, NULL};
	pthread_t thread;
	pid_t pid = fork(), end;
	int status, ended = 0;

	snprintf(number, sizeof number, "%ld", round_number);
	if (pid == 0) {
		pid_t heir = 0;
		if (unshare(CLONE_NEWIPC) != 0)
			fail("unshare: %s", strerrorname_np(errno));
		settle();
		switch (round_number % 5) {
		case 0:
			heir = fork();
			if (heir == 0) {
				spin(delay);
				check("a child after its parent");
				_exit(0);
			}
			break;
		case 1:
			heir = vfork();
			if (heir == 0) {
				execv(self, argv);
				_exit(1);
			}
			break;
		case 2:
			if (posix_spawn(&heir, self, NULL, NULL, argv, environ) != 0)
				heir = -1;
			break;
		case 3:
			if (pthread_create(&thread, NULL, heir_thread, NULL) != 0)
				fail("pthread_create");
			pthread_exit(NULL);
		default:
			heir = fork();
			if (heir == 0) {
				if (fork() == 0) {
					execv(self, argv);
					_exit(1);
				}
				_exit(0);
			}
		}
		if (heir < 0)
			fail("no heir: %s", strerrorname_np(errno));
		if (way == IS_SIGKILL)
			raise(SIGKILL);
		_exit(0);
	}
	/* The orphans come here. */
	while ((end = waitpid(-1, &status, 0)) > 0) {
		ended++;
		if (status != 0 && !(end == pid && way == IS_SIGKILL && WIFSIGNALED(status)))
			fail("process %d of this round ended with status %#x", ended, status);
	}
	if (ended != 2 - (round_number % 5 == 3) + (round_number % 5 == 4))
		fail("%d processes have ended", ended);
	if (way == IS_SIGKILL)
		look();
	nothing_is_left();
}

int main(int argc, char **argv)
{
	static const char *const hows[] = {"file", "pidfd", "mount", "both", "member"};
	long rounds, joined = 0, delay[WAYS];
	int how = 0;

	self = argv[0];
	if (argc == 3 && !strcmp(argv[1], "heir")) {
		round_number = atol(argv[2]);
		check("a program after the one that has started it");
		return 0;
	}
	while (argc > 2 && how < 5 && strcmp(argv[1], hows[how]) != 0)
		how++;
	if (argc < 3 || how == 5)
		return 2;
	rounds = atol(argv[2]);
	srand(argc > 3 ? (unsigned)atoi(argv[3]) : 1);
	go = mmap(NULL, sizeof *go, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	home = open("/proc/self/ns/ipc", O_RDONLY | O_CLOEXEC);
	if (go == MAP_FAILED || home < 0 || pipe2(said, O_CLOEXEC) != 0 || prctl(PR_SET_CHILD_SUBREAPER, 1) != 0)
		fail("setting up: %s", strerrorname_np(errno));
	if (how == BY_MOUNT) {
		static char name[] = "/tmp/ns_race.XXXXXX";
		int fd = mkstemp(name);
		if (fd < 0)
			fail("mkstemp: %s", strerrorname_np(errno));
		close(fd);
		target = name;
	}
	for (int i = 0; i < WAYS; i++)
		delay[i] = 20000;
	for (round_number = 0; round_number < rounds; round_number++) {
		way = (enum way)(round_number / 5 % WAYS);
		long wait = rand() % (2 * delay[way] + 1);
		if (how == BY_MEMBER) {
			heir(rand() % 100000);
			continue;
		}
		enum outcome outcome = race((enum how)how, wait);
		joined += outcome == JOINED;
		/* Towards the instant where both are as likely. */
		delay[way] += outcome == JOINED ? delay[way] / 10 + 100 : -delay[way] / 10;
		if (delay[way] > 20000000)
			delay[way] = 20000000;
	}
	if (target)
		unlink(target);
	if (how == BY_MEMBER)
		printf("%ld heirs found their queue\n", rounds);
	else
		printf("%ld came in, %ld were refused\n", joined, rounds - joined);
	return 0;
}
