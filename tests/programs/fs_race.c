/*
 * fs_race HOW ROUNDS [SEED]: the last exit of an IPC namespace against those who use a mount of it.
 *
 * Each round a child makes a namespace with queues, mounts it, and leaves by one of the ways below, while
 * this process, after a delay that hovers where it comes before or after the end as often, does one thing:
 *
 *   create   makes a queue: open, creat, mknod, openat, fopen
 *   open     opens a queue, takes its message and puts it back, changes its mode
 *   read     reads the text of a queue; lists
 *   unlink   unlinks a queue
 *   umount   unmounts
 *   detach   unmounts with MNT_DETACH, a queue open
 *   bind     bind mounts the mount on another directory
 *   second   setns by the namespace file, and mounts the namespace on another directory
 *   all      processes that do these at the same time, two of them making queues
 *
 * Creating works while the namespace is alive and is EACCES afterwards, for good; everything else works at
 * any time. Unmounted, nothing is left in $MQNS_DIR, if set, nor of what was charged: at once, or, where
 * nobody could have seen the end (SIGKILL), when the next namespace is made. Natively what was charged
 * comes back some time later.
 *
 * Wants a mount namespace of its own, and the right to mount. Prints how many came before the end and how many
 * after. Exit status 0 if all is well.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
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
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum how { CREATE, OPEN, READ, UNLINK, UMOUNT, DETACH, BIND, SECOND, HOWS, ALL = HOWS };
enum way { IS_UNDERSCORE_EXIT, IS_EXIT, IS_SIGKILL, IS_SETNS, IS_UNSHARE, IS_EXEC, IS_THREAD_EXIT, WAYS };
/* What one who comes finds: the namespace alive, dead, or no mount. */
enum outcome { ALIVE, DEAD, UNMOUNTED };
enum {
	FULL = 8,     /* queues of the largest size that the limit has room for */
	WHOLE = 8288, /* what one of them is charged */
	SECONDS = 20,
};

static const char *const hows[] = {"create", "open", "read", "unlink", "umount", "detach", "bind", "second", "all"};
static const char *const way_names[] = {"_exit", "exit", "SIGKILL", "setns", "unshare", "exec", "pthread_exit"};
/* Queues that processes of a round create, each its own. */
enum name { FIRST, OTHER, MADE_BY_SECOND, MADE_THROUGH_SECOND, PROBE, NAMES };
static const char *const names[] = {"n0", "n1", "n2", "n3", "n4"};

static struct shared {
	atomic_int go;
	/* Of this round: what has been created, is unlinked; who has unmounted; who has joined. */
	atomic_int made[NAMES], unlinked, unmounts, unmounted, second;
} *shared;
static int home, said[2];
static char base[] = "/tmp/fs_race.XXXXXX", one[32], two[32];
static pid_t self;
static long round_number;
static enum how how;
static enum way way;

static void fail(const char *format, ...)
{
	va_list args;

	fprintf(stderr, "round %ld, %s: ", round_number, way_names[way]);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	if (getpid() == self) {
		umount2(two, MNT_DETACH);
		umount2(one, MNT_DETACH);
		umount2(base, MNT_DETACH);
		rmdir(base);
	}
	_exit(1);
}

#define ERROR strerrorname_np(errno)
#define MUST(call) ({ __typeof__(call) r_ = (call); if (r_ < 0) fail("%s: %s", #call, ERROR); r_; })

static const char *in(const char *dir, const char *name)
{
	static char paths[4][48];
	static unsigned turn;
	char *path = paths[turn++ % 4];

	snprintf(path, sizeof *paths, "%s/%s", dir, name);
	return path;
}

/* The queue of a round is known by its message size. */
static long size_of_round(void)
{
	return 8 + round_number % 100;
}

/* For as long as what dead namespaces were charged has not come back, which is natively a moment later. */
static int try_again(time_t start)
{
	return errno == EMFILE && !getenv("MQNS_DIR") && time(NULL) - start < SECONDS && sched_yield() == 0;
}

static mqd_t queue(const char *name, long maxmsg, long msgsize)
{
	struct mq_attr attr = {.mq_maxmsg = maxmsg, .mq_msgsize = msgsize};
	time_t start = time(NULL);
	mqd_t q;

	do
		q = mq_open(name, O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK, 0600, &attr);
	while (q == (mqd_t)-1 && try_again(start));
	if (q == (mqd_t)-1)
		fail("a new queue %s: %s", name, ERROR);
	return q;
}

static void limit(const char *file, const char *value)
{
	char path[64];
	int fd;

	snprintf(path, sizeof path, "/proc/sys/fs/mqueue/%s", file);
	MUST(fd = open(path, O_WRONLY | O_CLOEXEC));
	MUST(write(fd, value, strlen(value)));
	close(fd);
}

static void wait_for(pid_t pid)
{
	int status;

	MUST(waitpid(pid, &status, 0));
	if (status != 0 && !(way == IS_SIGKILL && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL))
		fail("a process ended with status %#x", status);
}

/* Whether a process has ended, which is not reaped. */
static int has_ended(pid_t pid, int wait)
{
	siginfo_t info = {.si_pid = 0};

	MUST(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT | (wait ? 0 : WNOHANG)));
	return info.si_pid == pid;
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
	while (!atomic_load(&shared->go))
		sched_yield();
}

static void go_home(void)
{
	MUST(setns(home, CLONE_NEWIPC));
}

/* ---- The one who leaves ---- */

static void settle(void)
{
	mqd_t q;

	MUST(unshare(CLONE_NEWIPC));
	limit("msg_default", "1");
	limit("msgsize_default", "128");
	q = queue("/q", 1, size_of_round());
	MUST(mq_send(q, "q", 1, 0));
	mq_close(q);
	mq_close(queue("/o", 2, 8));
	mq_close(queue("/u0", 1, 1));
	mq_close(queue("/u1", 1, 1));
	MUST(mount("race", one, "mqueue", 0, NULL));
}

static void *leave_in_a_thread(void *unused)
{
	(void)unused;
	await_go();
	_exit(0);
}

static void leave(void)
{
	pthread_t thread;

	if (way == IS_THREAD_EXIT) {
		if (pthread_create(&thread, NULL, leave_in_a_thread, NULL) != 0)
			fail("pthread_create");
		pthread_exit(NULL);
	}
	/* With another real user nothing would be preloaded into the next image. */
	if (way == IS_EXEC)
		MUST(setresuid(geteuid(), (uid_t)-1, (uid_t)-1));
	await_go();
	switch (way) {
	case IS_EXIT:
		exit(0);
	case IS_SIGKILL:
		raise(SIGKILL);
		_exit(1);
	case IS_SETNS:
		go_home();
		_exit(0);
	case IS_UNSHARE:
		MUST(unshare(CLONE_NEWIPC));
		_exit(0);
	case IS_EXEC:
		MUST(execl("/bin/true", "true", (char *)NULL));
		break;
	default:
		_exit(0);
	}
}

/* ---- Those who come ---- */

/* What is not there any more, if somebody unmounts in this round. */
static enum outcome gone(const char *what, int expected)
{
	if (errno != expected || !atomic_load(&shared->unmounts))
		fail("%s: %s", what, ERROR);
	return UNMOUNTED;
}

/* Beneath the mount lies a directory of a read-only file system. */
static enum outcome create(const char *dir, enum name which)
{
	static const char *const means[] = {"open", "creat", "mknod", "openat", "open, exclusively", "fopen"};
	unsigned mean = (unsigned)(round_number + which) % 6;
	const char *path = in(dir, names[which]);
	time_t start = time(NULL);
	int fd, at = -1;
	FILE *stream;
	struct mq_attr attr;

	do {
		switch (mean) {
		case 0:
			fd = open(path, O_RDWR | O_CREAT | O_NONBLOCK, 0600);
			break;
		case 1:
			fd = creat(path, 0600);
			break;
		case 2:
			fd = mknod(path, S_IFREG | 0600, 0);
			break;
		case 3:
			MUST(at = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC));
			fd = openat(at, names[which], O_RDWR | O_CREAT | O_NONBLOCK, 0600);
			break;
		case 4:
			fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK, 0600);
			break;
		default:
			stream = fopen(path, "w");
			fd = stream ? dup(fileno(stream)) : -1;
			if (stream)
				fclose(stream);
		}
		if (at >= 0) {
			int error = errno;
			close(at);
			at = -1;
			errno = error;
		}
	} while (fd < 0 && try_again(start));
	if (fd < 0 && errno == EACCES)
		return DEAD;
	if (fd < 0)
		return gone(means[mean], EROFS);
	atomic_store(&shared->made[which], 1);
	if (mean != 2) {
		if (mq_getattr(fd, &attr) != 0 || attr.mq_maxmsg != 1 || attr.mq_msgsize != 128 || attr.mq_curmsgs != 0)
			fail("what %s has made is no queue of default attributes: %s", means[mean], ERROR);
		if (mq_send(fd, "x", 1, 0) != 0)
			fail("mq_send to what %s has made: %s", means[mean], ERROR);
		close(fd);
	}
	return ALIVE;
}

/* Creating is over. */
static void creates_no_more(const char *dir, const char *when)
{
	for (int i = 0; i < 2; i++) {
		int fd = i ? mknod(in(dir, "late"), S_IFREG | 0600, 0) : open(in(dir, "late"), O_RDWR | O_CREAT, 0600);
		if (fd >= 0)
			fail("%s: created", when);
		if (errno != EACCES)
			fail("%s: %s", when, ERROR);
	}
}

static enum outcome exchange(const char *dir)
{
	char text[256];
	struct mq_attr attr;
	struct stat st;
	int fd = open(in(dir, "o"), O_RDWR | O_NONBLOCK);

	if (fd < 0)
		return gone("open", ENOENT);
	for (int i = 0; i < 2; i++) {
		MUST(mq_send(fd, "12345678", 8, 7));
		if (mq_receive(fd, text, sizeof text, NULL) != 8)
			fail("mq_receive: %s", ERROR);
	}
	MUST(fchmod(fd, 0640));
	close(fd);
	fd = open(in(dir, "q"), O_RDWR | O_CREAT | O_NONBLOCK, 0600);
	if (fd < 0)
		return gone("open of what exists, with O_CREAT", EROFS);
	MUST(mq_getattr(fd, &attr));
	if (attr.mq_msgsize != size_of_round() || attr.mq_curmsgs != 1)
		fail("a queue of size %ld with %ld messages", attr.mq_msgsize, attr.mq_curmsgs);
	close(fd);
	if (chmod(in(dir, "q"), 0644) != 0)
		return gone("chmod", ENOENT);
	if (stat(in(dir, "q"), &st) != 0)
		return gone("stat", ENOENT);
	if (st.st_mode != (S_IFREG | 0644) || st.st_size != 80 || st.st_nlink != 1)
		fail("mode %o, size %ld, %ld names", st.st_mode, (long)st.st_size, (long)st.st_nlink);
	return ALIVE;
}

static enum outcome read_text(const char *dir)
{
	char text[64] = "";
	int fd = open(in(dir, "q"), O_RDONLY);

	if (fd < 0)
		return gone("open for reading", ENOENT);
	if (MUST(read(fd, text, sizeof text)) != 60 || strncmp(text, "QSIZE:1 ", 8) != 0)
		fail("the text is \"%s\"", text);
	close(fd);
	return ALIVE;
}

/* What a directory must hold, and nothing else: letters for q, o, u0, u1 and digits for what was created. */
static void expected(char *list)
{
	strcpy(list, atomic_load(&shared->unlinked) ? "oqv" : "oquv");
	for (int i = 0; i < NAMES; i++)
		if (atomic_load(&shared->made[i]))
			sprintf(list + strlen(list), "%d", i);
}

static void listed(const char *dir, char *list)
{
	char found[128] = "";
	struct dirent *entry;
	DIR *d = opendir(dir);

	if (!d)
		fail("opendir: %s", ERROR);
	while ((entry = readdir(d))) {
		const char *n = entry->d_name;
		if (!strcmp(n, "q") || !strcmp(n, "o"))
			found[(unsigned char)n[0]] = 1;
		else if (!strcmp(n, "u0") || !strcmp(n, "u1"))
			found['u' + n[1] - '0'] = 1;
		else if (n[0] == 'n' && n[1] >= '0' && n[1] < '0' + NAMES && !n[2])
			found[(unsigned char)n[1]] = 1;
		else if (n[0] != '.')
			fail("%s is listed", n);
	}
	closedir(d);
	for (const char *c = "oquv01234"; *c; c++)
		if (found[(unsigned char)*c])
			*list++ = *c;
	*list = 0;
}

/* Whether a mount is there. */
static int is_mounted(const char *dir)
{
	struct statfs fs;

	MUST(statfs(dir, &fs));
	return fs.f_type == 0x19800202;
}

static enum outcome list(const char *dir)
{
	char found[32];

	listed(dir, found);
	if (!found[0] && atomic_load(&shared->unmounts))
		return UNMOUNTED;
	if (found[0] != 'o' || found[1] != 'q')
		fail("listed: %s", found);
	return ALIVE;
}

static void lists_all(const char *dir)
{
	char found[32], wanted[32];

	listed(dir, found);
	expected(wanted);
	if (strcmp(found, wanted))
		fail("listed %s, not %s", found, wanted);
}

static enum outcome unlink_one(const char *dir)
{
	if (unlink(in(dir, "u0")) == 0)
		atomic_fetch_add(&shared->unlinked, 1);
	else if (how != ALL || errno != ENOENT) /* of a crowd, one succeeds */
		return gone("unlink", EROFS);
	if (unlink(in(dir, "u0")) == 0)
		fail("unlinked twice");
	return errno == ENOENT ? ALIVE : gone("unlink of what is gone", EROFS);
}

/* Joins the child's namespace and mounts it on the other directory; or it is dead, and so it stays. */
static enum outcome join_and_mount(pid_t pid, ino_t number)
{
	char path[64];
	struct stat st;
	int fd;

	snprintf(path, sizeof path, "/proc/%d/ns/ipc", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		if (errno != ENOENT)
			fail("open of the namespace file: %s", ERROR);
		return DEAD;
	}
	MUST(fstat(fd, &st));
	if (st.st_ino != number) {
		if (way != IS_SETNS && way != IS_UNSHARE)
			fail("the process shows another namespace");
		close(fd);
		return DEAD;
	}
	MUST(setns(fd, CLONE_NEWIPC));
	close(fd);
	atomic_store(&shared->second, 1);
	MUST(mount("second", two, "mqueue", 0, NULL));
	if (create(two, MADE_THROUGH_SECOND) != ALIVE)
		fail("a member cannot create through its own mount");
	return ALIVE;
}

/* ---- After a round ---- */

static void look(void)
{
	pid_t pid = MUST(fork());

	if (pid == 0) {
		MUST(unshare(CLONE_NEWIPC));
		_exit(0);
	}
	wait_for(pid);
}

static void nothing_is_left(void)
{
	const char *root = getenv("MQNS_DIR");
	char own[PATH_MAX];
	struct dirent *entry;
	DIR *d;

	if (!root)
		return;
	snprintf(own, sizeof own, "%s/u%d", root, (int)geteuid());
	d = opendir(own);
	if (!d)
		fail("%s: %s", own, ERROR);
	while ((entry = readdir(d)))
		if (entry->d_name[0] != '.')
			fail("%s is left", entry->d_name);
	closedir(d);
}

/* The whole limit can be used. */
static void nothing_is_charged(void)
{
	char name[24];

	for (int i = 0; i < FULL; i++) {
		snprintf(name, sizeof name, "/full%d", i);
		mq_close(queue(name, 1, 8192));
	}
	while (mq_unlink(name) == 0 && --name[5] >= '0')
		;
}

static void unmount(const char *dir)
{
	if (umount(dir) != 0)
		fail("umount: %s", ERROR);
	if (is_mounted(dir))
		fail("still mounted");
}

/* ---- A round with one who comes ---- */

static enum outcome come(pid_t pid, ino_t number, long delay)
{
	enum outcome outcome;
	char text[256];
	int fd = -1;

	if (how == DETACH)
		MUST(fd = open(in(one, "q"), O_RDWR | O_NONBLOCK));
	atomic_store(&shared->go, 1);
	spin(delay);
	switch (how) {
	case CREATE:
		outcome = create(one, FIRST);
		if (outcome == DEAD && create(one, OTHER) != DEAD)
			fail("refused, then alive");
		break;
	case OPEN:
		exchange(one);
		outcome = create(one, PROBE);
		MUST(fd = open(in(one, "q"), O_RDWR | O_NONBLOCK));
		break;
	case READ:
		read_text(one);
		list(one);
		outcome = create(one, PROBE);
		break;
	case UNLINK:
		unlink_one(one);
		outcome = create(one, PROBE);
		break;
	case UMOUNT:
		unmount(one);
		outcome = has_ended(pid, 0) ? DEAD : ALIVE;
		break;
	case DETACH:
		MUST(umount2(one, MNT_DETACH));
		outcome = has_ended(pid, 0) ? DEAD : ALIVE;
		break;
	case BIND:
		MUST(mount(one, two, NULL, MS_BIND, NULL));
		outcome = create(two, PROBE);
		break;
	default:
		outcome = join_and_mount(pid, number);
		if (outcome == ALIVE && create(one, MADE_BY_SECOND) != ALIVE)
			fail("dead with a member");
	}
	has_ended(pid, 1);
	if (how == SECOND && outcome == ALIVE) {
		/* The member who has come keeps it alive. */
		if (create(one, FIRST) != ALIVE || create(two, OTHER) != ALIVE)
			fail("dead with a member, the first one gone");
		mq_close(MUST(mq_open("/n1", O_RDWR)));
		lists_all(one);
		go_home();
	}
	if (how == UMOUNT || how == DETACH) {
		if (is_mounted(one) || open(in(one, "q"), O_RDWR) >= 0)
			fail("still mounted");
	} else {
		creates_no_more(one, "after the end");
		exchange(one);
		read_text(one);
		lists_all(one);
		MUST(unlink(in(one, "u1")));
	}
	if (fd >= 0) {
		if (mq_receive(fd, text, sizeof text, NULL) != 1 || mq_send(fd, "q", 1, 0) != 0)
			fail("a descriptor after the end: %s", ERROR);
		if (how == OPEN && (umount(one) == 0 || errno != EBUSY))
			fail("unmounted with a queue open");
		close(fd);
	}
	if (how != UMOUNT && how != DETACH)
		unmount(one);
	if (is_mounted(two)) {
		creates_no_more(two, "after the end, on the second mount");
		exchange(two);
		read_text(two);
		MUST(unlink(in(two, "q")));
		unmount(two);
	}
	return outcome;
}

/* ---- A round with many ---- */

static _Noreturn void member_of_crowd(int role, pid_t pid, ino_t number, long delay)
{
	await_go();
	spin(delay);
	switch (role) {
	case 0:
	case 1:
		if (create(one, role ? OTHER : FIRST) == DEAD && create(one, PROBE) == ALIVE)
			fail("refused, then alive");
		break;
	case 2:
		exchange(one);
		break;
	case 3:
		read_text(one);
		list(one);
		break;
	case 4:
		unlink_one(one);
		break;
	case 5:
		if (!atomic_load(&shared->unmounts))
			break;
		if (umount2(one, round_number % 2 ? 0 : MNT_DETACH) == 0)
			atomic_store(&shared->unmounted, 1);
		else if (round_number % 2 == 0 || errno != EBUSY)
			fail("umount: %s", ERROR);
		break;
	default:
		if (join_and_mount(pid, number) == ALIVE) {
			exchange(two);
			unlink_one(two);
		}
	}
	_exit(0);
}

static enum outcome crowd(pid_t pid, ino_t number, long delay)
{
	enum { ROLES = 7 };
	pid_t pids[ROLES];
	int created;

	atomic_store(&shared->unmounts, rand() % 3 == 0);
	for (int i = 0; i < ROLES; i++) {
		long mine = rand() % (2 * delay + 1);

		MUST(pids[i] = fork());
		if (pids[i] == 0)
			member_of_crowd(i, pid, number, mine);
	}
	atomic_store(&shared->go, 1);
	for (int i = 0; i < ROLES; i++)
		wait_for(pids[i]);
	has_ended(pid, 1);
	created = atomic_load(&shared->made[FIRST]) + atomic_load(&shared->made[OTHER]);
	if (atomic_load(&shared->unlinked) > 1)
		fail("one queue was unlinked twice");
	if (is_mounted(one) == atomic_load(&shared->unmounted))
		fail("mounted: %d, unmounted: %d", is_mounted(one), atomic_load(&shared->unmounted));
	if (is_mounted(two) != atomic_load(&shared->second))
		fail("the second mount: %d, made: %d", is_mounted(two), atomic_load(&shared->second));
	for (int i = 0; i < 2; i++) {
		const char *dir = i == (int)(round_number / 2 % 2) ? one : two;
		if (!is_mounted(dir))
			continue;
		creates_no_more(dir, "after the end");
		lists_all(dir);
		atomic_store(&shared->unmounts, 0);
		exchange(dir);
		read_text(dir);
		unmount(dir);
	}
	return created ? ALIVE : DEAD;
}

static enum outcome race(long delay)
{
	ino_t number;
	enum outcome outcome;
	pid_t pid;

	memset((void *)shared, 0, sizeof *shared);
	MUST(pid = fork());
	if (pid == 0) {
		struct stat st;

		settle();
		MUST(stat("/proc/self/ns/ipc", &st));
		number = st.st_ino;
		MUST(write(said[1], &number, sizeof number));
		leave();
	}
	if (read(said[0], &number, sizeof number) != sizeof number)
		fail("the child has not made a namespace");
	outcome = how == ALL ? crowd(pid, number, delay) : come(pid, number, delay);
	wait_for(pid);
	/* Nobody was there to see the end of what was unmounted or open before. */
	if (way == IS_SIGKILL || how == DETACH || how == ALL)
		look();
	nothing_is_left();
	if (getenv("MQNS_DIR"))
		nothing_is_charged();
	return outcome;
}

int main(int argc, char **argv)
{
	struct rlimit rlimit = {.rlim_cur = FULL * WHOLE, .rlim_max = FULL * WHOLE};
	long rounds, before = 0, delay[WAYS];
	int which = 0;

	while (argc > 2 && which <= HOWS && strcmp(argv[1], hows[which]) != 0)
		which++;
	if (argc < 3 || which > HOWS)
		return 2;
	how = (enum how)which;
	rounds = atol(argv[2]);
	srand(argc > 3 ? (unsigned)atoi(argv[3]) : 1);
	umask(022);
	self = getpid();
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED || !mkdtemp(base))
		fail("setting up: %s", ERROR);
	/* A real user whom nobody else's queues are charged to. */
	MUST(setresuid(200000 + (uid_t)self, (uid_t)-1, (uid_t)-1));
	MUST(setrlimit(RLIMIT_MSGQUEUE, &rlimit));
	MUST(home = open("/proc/self/ns/ipc", O_RDONLY | O_CLOEXEC));
	MUST(pipe2(said, O_CLOEXEC));
	snprintf(one, sizeof one, "%s/1", base);
	snprintf(two, sizeof two, "%s/2", base);
	MUST(mount("race", base, "tmpfs", 0, NULL));
	MUST(mkdir(one, 0755));
	MUST(mkdir(two, 0755));
	MUST(mount(NULL, base, NULL, MS_REMOUNT | MS_RDONLY, NULL));
	for (int i = 0; i < WAYS; i++)
		delay[i] = 50000;
	for (round_number = 0; round_number < rounds; round_number++) {
		way = (enum way)(round_number / 5 % WAYS);
		enum outcome outcome = race(how == ALL ? delay[way] : rand() % (2 * delay[way] + 1));
		before += outcome == ALIVE;
		/* Towards the instant where both are as likely. */
		delay[way] += outcome == ALIVE ? delay[way] / 5 + 100 : -delay[way] / 5;
		if (delay[way] > 20000000)
			delay[way] = 20000000;
	}
	nothing_is_charged();
	MUST(umount(base));
	MUST(rmdir(base));
	printf("%ld before the end, %ld after\n", before, rounds - before);
	return 0;
}
