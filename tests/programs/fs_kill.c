/*
 * fs_kill KILLS [SEED [KIND]]: SIGKILL at random instants into processes that mount, unmount and use mqueue file
 * systems, some of them the last members of their namespaces.
 *
 * Each round starts one group of victims (of that kind), kills it whole after up to four milliseconds, and
 * waits for its end. What is still mounted then lists and opens: what was made there is a queue, what was unlinked is
 * gone, creating is EACCES. After umount the next processes that make a namespace (in every other round: a
 * queue) clear away what the victims have left in $MQNS_DIR, if set. Meanwhile three bystanders go on: one in a
 * namespace of its own with a mount of it, one in the namespace whose mount the victims work in, one in the first
 * namespace. None of them stands still for more than STUCK milliseconds, and what they have made is there.
 * In the end nothing that victims were charged for is.
 *
 * Wants a mount namespace of its own, and the right to mount. Prints the kills, the mounts that were left
 * behind, and the longest wait for a bystander. Exit status 0 if all is well.
 */
#define _GNU_SOURCE
#include <ctype.h>
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
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ALONE, HOST, FIRST, BYSTANDERS, STUCK = 10000 };
enum {
	DIRS = 4,     /* where victims mount */
	FULL = 40,    /* queues of the largest size that the victims' limit has room for */
	WHOLE = 8288, /* what one of them is charged */
	SECONDS = 20,
	MQUEUE_MAGIC = 0x19800202,
};

static struct shared {
	atomic_uint beat[BYSTANDERS];
	atomic_int stop[BYSTANDERS];
} *shared;

static char *program;
static int home, host_ns = -1;
static double longest;
static long round_number, left_mounted;
static const char *kind_name = "";
static pid_t killer;
static char base[] = "/tmp/fs_kill.XXXXXX", host[48], alone[48], dirs[DIRS][48];
static const struct mq_attr small = {.mq_maxmsg = 1, .mq_msgsize = 8};

static void clean_up(void)
{
	for (int i = 0; i < DIRS; i++)
		while (umount2(dirs[i], MNT_DETACH) == 0)
			;
	umount2(host, MNT_DETACH);
	umount2(alone, MNT_DETACH);
	umount2(base, MNT_DETACH);
	rmdir(base);
}

static void fail(const char *format, ...)
{
	va_list args;
	int error = errno;

	fprintf(stderr, "round %ld, %s: ", round_number, kind_name);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, " (%s)\n", error ? strerrorname_np(error) : "0");
	if (getpid() == killer)
		clean_up();
	_exit(1);
}

#define MUST(call) ({ __typeof__(call) r_ = (call); if (r_ < 0) fail("%s", #call); r_; })
/* Works, or fails with one of these. */
#define MAY(call, ...) may((call), #call, (const int[]){__VA_ARGS__, 0})

static int may(int result, const char *call, const int *errors)
{
	while (result < 0 && *errors && errno != *errors)
		errors++;
	if (result < 0 && !*errors)
		fail("%s", call);
	return result;
}

static const char *in(const char *dir, const char *name)
{
	static _Thread_local char paths[4][320];
	static _Thread_local unsigned turn;
	char *path = paths[turn++ % 4];

	snprintf(path, sizeof *paths, "%s/%s", dir, name);
	return path;
}

static int is_mounted(const char *dir)
{
	struct statfs fs;

	MUST(statfs(dir, &fs));
	return fs.f_type == MQUEUE_MAGIC;
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

/* A namespace of one's own where queues of default attributes are small. */
static void enter(void)
{
	MUST(unshare(CLONE_NEWIPC));
	limit("msg_default", "1");
	limit("msgsize_default", "128");
}

/* Uses a queue that may be full and may be empty. */
static void use(int fd)
{
	struct mq_attr attr;
	char text[256];

	MUST(mq_getattr(fd, &attr));
	MAY(mq_send(fd, "victim", 6, 0), EAGAIN);
	MAY((int)mq_receive(fd, text, sizeof text, NULL), EAGAIN);
	if (pread(fd, text, sizeof text, 0) != 60 || strncmp(text, "QSIZE:", 6))
		fail("the text");
}

/* Makes a queue through a mount, in turn by each call, and uses it. EMFILE: natively what dead namespaces were charged
 * is given back some time after their end. */
static void make(const char *dir, const char *name, unsigned turn)
{
	const char *path = in(dir, name);
	int fd;

	if (turn % 3 == 2) {
		MAY(mknod(path, S_IFREG | 0600, 0), EMFILE, EEXIST);
		return;
	}
	fd = turn % 3 == 0 ? open(path, O_RDWR | O_CREAT | O_NONBLOCK, 0600) : creat(path, 0600);
	if (MAY(fd, EMFILE) < 0)
		return;
	if (turn % 3 == 0)
		use(fd);
	MUST(close(fd));
}

static void mount_on(const char *dir)
{
	MUST(mount("victim", dir, "mqueue", 0, NULL));
}

/* ---- victims: each goes on until it is killed ---- */

static void mounts(void)
{
	for (unsigned i = 0;; i++) {
		const char *dir = dirs[i % DIRS];

		enter();
		mount_on(dir);
		make(dir, "a", i);
		make(dir, "b", i + 1);
		MAY(unlink(in(dir, "a")), ENOENT);
		if (i % 2)
			MUST(unshare(CLONE_NEWIPC)); /* dies mounted */
		MUST(umount2(dir, i % 4 < 2 ? 0 : MNT_DETACH));
	}
}

static void mounts_of_its_own(void)
{
	MUST(unshare(CLONE_NEWNS));
	mounts();
}

static void creates(void)
{
	for (unsigned i = 0;; i++) {
		char name[16];

		snprintf(name, sizeof name, "x%u", i % 8);
		make(host, name, i);
		if (i % 2)
			MAY(unlink(in(host, name)), ENOENT);
	}
}

static void many_create(void)
{
	for (int i = 0; i < 2; i++)
		if (MUST(fork()) == 0)
			break;
	for (unsigned i = (unsigned)getpid();; i++) {
		int fd = open(in(host, "x"), O_RDWR | O_CREAT | (i % 2 ? O_EXCL : 0) | O_NONBLOCK, 0600);

		if (MAY(fd, EMFILE, EEXIST) >= 0) {
			use(fd);
			MUST(close(fd));
		}
		MAY(unlink(in(host, "x")), ENOENT);
	}
}

static void opens(void)
{
	struct sigevent event = {.sigev_notify = SIGEV_NONE};

	for (unsigned i = 0;; i++) {
		int fd;

		make(host, "x1", 0);
		fd = MAY(open(in(host, "x1"), O_RDWR | O_NONBLOCK), ENOENT);
		if (fd < 0)
			continue;
		MUST(mq_notify(fd, &event));
		use(fd);
		MUST(chmod(in(host, "x1"), i % 2 ? 0600 : 0640));
		MUST(truncate(in(host, "x1"), i % 100));
		if (i % 4 == 0)
			MUST(unlink(in(host, "x1")));
		use(fd);
		MUST(close(fd));
	}
}

static void joins(void)
{
	for (unsigned i = 0;; i++) {
		const char *dir = dirs[i % DIRS];

		MUST(setns(host_ns, CLONE_NEWIPC));
		mount_on(dir);
		make(dir, "x2", i);
		MUST(setns(home, CLONE_NEWIPC));
		MAY(unlink(in(dir, "x2")), ENOENT);
		MUST(umount(dir));
	}
}

static void last_members(void)
{
	for (unsigned i = 0;; i++) {
		pid_t pids[3];

		enter();
		mount_on(dirs[0]);
		for (unsigned k = 0; k < 3; k++) {
			MUST(pids[k] = fork());
			if (pids[k] == 0) {
				static const char *const names[] = {"a", "b", "c"};
				make(dirs[0], names[k], i + k);
				if (k == 1)
					MUST(unshare(CLONE_NEWIPC));
				MAY(unlink(in(dirs[0], names[k])), ENOENT);
				_exit(0);
			}
		}
		MUST(setns(home, CLONE_NEWIPC));
		for (int k = 0; k < 3; k++) {
			int status;

			MUST(waitpid(pids[k], &status, 0));
			if (status != 0)
				fail("a child of a victim ended with status %#x", status);
		}
		if (creat(in(dirs[0], "late"), 0600) >= 0 || errno != EACCES)
			fail("creating in a dead namespace");
		MUST(umount(dirs[0]));
	}
}

static void execs(void)
{
	enter();
	mount_on(dirs[0]);
	make(dirs[0], "a", 0);
	/* With another real user nothing would be preloaded into the next image. */
	MUST(setresuid(geteuid(), (uid_t)-1, (uid_t)-1));
	MUST(execl(program, program, "exec", dirs[0], (char *)NULL));
}

static void detaches(void)
{
	for (unsigned i = 0;; i++) {
		int fd;

		enter();
		mount_on(dirs[0]);
		fd = open(in(dirs[0], "a"), O_RDWR | O_CREAT | O_NONBLOCK, 0600);
		MUST(umount2(dirs[0], MNT_DETACH));
		if (MAY(fd, EMFILE) < 0)
			continue;
		use(fd);
		if (i % 2)
			MUST(unshare(CLONE_NEWIPC));
		use(fd);
		MUST(close(fd));
	}
}

static void binds(void)
{
	enter();
	for (unsigned i = 0;; i++) {
		mount_on(dirs[0]);
		MUST(mount(dirs[0], dirs[1], NULL, MS_BIND, NULL));
		MUST(umount(dirs[0]));
		make(dirs[1], "a", i);
		MUST(mount(NULL, dirs[1], NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL));
		if (creat(in(dirs[1], "b"), 0600) >= 0 || errno != EROFS)
			fail("creating through a read-only mount");
		MUST(umount(dirs[1]));
		MAY(mq_unlink("/a"), ENOENT);
	}
}

static void steps(void)
{
	for (unsigned i = 0;; i++) {
		int fs, tree;

		enter();
		MUST(fs = fsopen("mqueue", FSOPEN_CLOEXEC));
		MUST(fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0));
		MUST(tree = fsmount(fs, FSMOUNT_CLOEXEC, 0));
		MUST(close(fs));
		MUST(move_mount(tree, "", AT_FDCWD, dirs[1], MOVE_MOUNT_F_EMPTY_PATH));
		MUST(close(tree));
		make(dirs[1], "a", i);
		MUST(umount(dirs[1]));
	}
}

static void *thread(void *dir)
{
	for (unsigned i = 0;; i++) {
		enter();
		mount_on(dir);
		make(dir, "a", i);
		MUST(umount(dir));
	}
	return NULL;
}

static void threads(void)
{
	pthread_t id;

	for (int i = 1; i < 3; i++)
		if (pthread_create(&id, NULL, thread, dirs[i]) != 0)
			fail("pthread_create");
	thread(dirs[0]);
}

/* Members who do nothing but be there: of one namespace two, of others one. */
static void stays(void)
{
	for (int i = 0; i < DIRS; i++) {
		pid_t pid = MUST(fork());

		if (pid != 0)
			continue;
		enter();
		mount_on(dirs[i]);
		make(dirs[i], "a", 0);
		make(dirs[i], "b", 2);
		if (i == 0)
			MUST(fork());
		for (;;)
			pause();
	}
	for (;;)
		pause();
}

static const struct {
	const char *name;
	void (*run)(void);
} kinds[] = {
	{"mount", mounts},	{"mounts of its own", mounts_of_its_own},
	{"create", creates},	{"many create", many_create},
	{"open", opens},	{"join", joins},
	{"last", last_members}, {"exec", execs},
	{"detach", detaches},	{"bind", binds},
	{"steps", steps},	{"threads", threads},
	{"stay", stays},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

/* ---- bystanders ---- */

/* What a bystander's mount lists beside what victims make there. */
static void lists_own(const char *dir)
{
	struct dirent *entry;
	DIR *d = opendir(dir);
	int found = 0;

	if (!d)
		fail("%s", dir);
	while ((entry = readdir(d)))
		found += !strcmp(entry->d_name, "q") || !strcmp(entry->d_name, "own") || !strcmp(entry->d_name, "more");
	closedir(d);
	errno = 0;
	if (found != 3)
		fail("%d of three queues are listed", found);
}

static void bystand(int which, int ready)
{
	struct mq_attr own = {.mq_maxmsg = 2, .mq_msgsize = 16};
	const char *dir = which == ALONE ? alone : host;
	unsigned sent = 0, got;
	mqd_t q, more;

	kind_name = "bystander";
	MUST(setresuid(300000 + (uid_t)killer, (uid_t)-1, (uid_t)-1));
	MUST(prctl(PR_SET_PDEATHSIG, SIGKILL));
	if (which != FIRST) {
		enter();
		MUST(mount("bystander", dir, "mqueue", 0, NULL));
	}
	MUST(q = mq_open("/q", O_RDWR | O_CREAT | O_EXCL, 0600, &small));
	MUST(mq_close(q));
	MUST(q = mq_open("/own", O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK, 0600, &own));
	MUST(write(ready, "", 1));
	while (!atomic_load(&shared->stop[which])) {
		char text[64];

		sent++;
		MUST(mq_send(q, (char *)&sent, sizeof sent, 0));
		if (which == FIRST) {
			MUST(more = mq_open("/more", O_RDWR | O_CREAT | O_EXCL, 0600, &small));
			MUST(mq_close(more));
			MUST(mq_unlink("/more"));
		} else {
			/* By the mount what it makes by name, and the other way round. */
			if (sent % 2) {
				MUST(more = open(in(dir, "more"), O_RDWR | O_CREAT | O_EXCL, 0600));
				MUST(close(more));
				MUST(more = mq_open("/more", O_RDONLY));
				MUST(mq_close(more));
				lists_own(dir);
				MUST(mq_unlink("/more"));
			} else {
				MUST(more = mq_open("/more", O_RDWR | O_CREAT | O_EXCL, 0600, &small));
				MUST(mq_close(more));
				MUST(more = open(in(dir, "more"), O_RDONLY));
				MUST(close(more));
				lists_own(dir);
				MUST(unlink(in(dir, "more")));
			}
		}
		MUST(more = open(in(dir, "own"), O_RDONLY));
		got = (unsigned)MUST(read(more, text, sizeof text));
		MUST(close(more));
		errno = 0;
		if (got != 60 || (which != FIRST && strncmp(text, "QSIZE:4 ", 8)))
			fail("the text is %u bytes: \"%.*s\"", got, (int)got, text);
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

/* Waits until each bystander has ended two rounds of work, one of which began after this. */
static void bystanders_go_on(void)
{
	unsigned before[BYSTANDERS];
	double start = now_ms(), passed = 0;

	for (int i = 0; i < BYSTANDERS; i++)
		before[i] = atomic_load(&shared->beat[i]);
	errno = 0;
	for (int i = 0; i < BYSTANDERS; i++)
		while (atomic_load(&shared->beat[i]) - before[i] < 2) {
			passed = now_ms() - start;
			if (passed > STUCK)
				fail("bystander %d has stood still for %.0f ms", i, passed);
			sched_yield();
		}
	longest = passed > longest ? passed : longest;
}

/* A queue of the killer's, who pays what the victims pay. */
static mqd_t queue(const char *name, long msgsize)
{
	struct mq_attr attr = {.mq_maxmsg = 1, .mq_msgsize = msgsize};
	time_t start = time(NULL);
	mqd_t q;

	do
		q = mq_open(name, O_RDWR | O_CREAT | O_EXCL, 0600, &attr);
	while (q < 0 && errno == EMFILE && !getenv("MQNS_DIR") && time(NULL) - start < SECONDS && sched_yield() == 0);
	return MUST(q);
}

static void look(int by_queue)
{
	int status;
	pid_t pid = MUST(fork());

	if (pid == 0) {
		if (by_queue) {
			MUST(mq_close(queue("/look", 8)));
			MUST(mq_unlink("/look"));
		} else {
			MUST(unshare(CLONE_NEWIPC));
		}
		_exit(0);
	}
	MUST(waitpid(pid, &status, 0));
	errno = 0;
	if (status != 0)
		fail("the next look ended with status %#x", status);
}

/* Namespaces of this user in the state directory; as many as are alive if there is none. */
static int in_directory(int alive)
{
	const char *root = getenv("MQNS_DIR");
	char own[PATH_MAX];
	struct dirent *entry;
	DIR *dir;
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
		if (alive)
			bystanders_go_on();
		now = in_directory(alive);
	}
	errno = 0;
	if (now != alive)
		fail("%d namespaces in the directory after the kill, %d after as many looks, %d alive", first, now, alive);
}

/* What lies in a mount is queues. Unlinks those of victims, all or every other one. */
static void holds_queues(const char *dir, int every)
{
	struct statvfs fs;
	struct dirent *entry;
	DIR *d = opendir(dir);
	int turn = 0;

	MUST(statvfs(dir, &fs));
	if (!d)
		fail("%s", dir);
	while ((entry = readdir(d))) {
		const char *name = entry->d_name, *path = in(dir, name);
		struct stat st;
		int fd;

		if (name[0] == '.' || !strcmp(name, "q") || !strcmp(name, "own") || !strcmp(name, "more"))
			continue;
		if (!strchr("abcx", name[0]) || (name[0] != 'x' && name[1]) || (name[0] == 'x' && name[1] && name[2]))
			fail("%s is listed", name);
		MUST(stat(path, &st));
		errno = 0;
		/* Those of the host's mount are truncated now and then. */
		if (!S_ISREG(st.st_mode) || st.st_nlink != 1 || (name[0] != 'x' && st.st_size != 80))
			fail("%s has mode %o, size %ld, %ld names", name, st.st_mode, (long)st.st_size, (long)st.st_nlink);
		if (!(fs.f_flag & ST_RDONLY)) {
			fd = MUST(open(path, O_RDWR | O_NONBLOCK));
			use(fd);
			MUST(close(fd));
			if (every || turn++ % 2 == 0) {
				MUST(unlink(path));
				if (access(path, F_OK) == 0)
					fail("%s is there after it was unlinked", name);
			}
		}
	}
	closedir(d);
}

/* What victims have left mounted. */
static void unmount(const char *dir)
{
	struct stat here, there;

	while (is_mounted(dir)) {
		struct statvfs fs;

		left_mounted++;
		MUST(stat(dir, &here));
		MUST(stat(host, &there));
		MUST(statvfs(dir, &fs));
		/* In every third round nobody sees the end before the umount. */
		if (here.st_dev == there.st_dev && here.st_ino == there.st_ino) {
			holds_queues(dir, 1);
		} else if (round_number % 3) {
			int error = fs.f_flag & ST_RDONLY ? EROFS : EACCES;

			if (creat(in(dir, "late"), 0600) >= 0)
				fail("created in a dead namespace");
			if (errno != error)
				fail("creating in a dead namespace");
			holds_queues(dir, 0);
			if (mknod(in(dir, "late"), S_IFREG | 0600, 0) == 0 || errno != error)
				fail("mknod in a dead namespace");
		}
		MUST(umount2(dir, round_number % 2 ? 0 : MNT_DETACH));
	}
}

static void nothing_is_charged(void)
{
	char name[24];

	for (int i = 0; i < FULL; i++) {
		snprintf(name, sizeof name, "/full%d", i);
		MUST(mq_close(queue(name, 8192)));
	}
	for (int i = 0; i < FULL; i++) {
		snprintf(name, sizeof name, "/full%d", i);
		MUST(mq_unlink(name));
	}
}

int main(int argc, char **argv)
{
	struct rlimit rlimit = {.rlim_cur = FULL * WHOLE, .rlim_max = FULL * WHOLE};
	pid_t bystanders[BYSTANDERS];
	long kills = argc > 1 ? atol(argv[1]) : 0;
	int ready[2], status, only = KINDS;
	char path[64], byte;

	program = argv[0];
	if (argc == 3 && !strcmp(argv[1], "exec")) {
		kind_name = "after exec";
		make(argv[2], "a", 0);
		make(argv[2], "b", 1);
		MAY(unlink(in(argv[2], "b")), ENOENT);
		MAY(open(in(argv[2], "a"), O_RDWR), ENOENT);
		MUST(execl(program, program, "exec", argv[2], (char *)NULL));
	}
	if (kills <= 0)
		return 2;
	srand(argc > 2 ? (unsigned)atoi(argv[2]) : 1);
	if (argc > 3)
		for (only = 0; only < KINDS && strcmp(argv[3], kinds[only].name) != 0; only++)
			;
	umask(022);
	killer = getpid();
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED || !mkdtemp(base))
		fail("setting up");
	MUST(mount("kill", base, "tmpfs", 0, NULL));
	snprintf(host, sizeof host, "%s/host", base);
	snprintf(alone, sizeof alone, "%s/alone", base);
	MUST(mkdir(host, 0755));
	MUST(mkdir(alone, 0755));
	for (int i = 0; i < DIRS; i++) {
		snprintf(dirs[i], sizeof dirs[i], "%s/%d", base, i);
		MUST(mkdir(dirs[i], 0755));
	}
	MUST(mount(NULL, base, NULL, MS_REMOUNT | MS_RDONLY, NULL));
	MUST(prctl(PR_SET_CHILD_SUBREAPER, 1));
	MUST(home = open("/proc/self/ns/ipc", O_RDONLY | O_CLOEXEC));
	MUST(pipe2(ready, O_CLOEXEC));
	/* FIRST reads in HOST's mount. */
	for (int i = 0; i < BYSTANDERS; i++) {
		MUST(bystanders[i] = fork());
		if (bystanders[i] == 0)
			bystand(i, ready[1]);
		if (read(ready[0], &byte, 1) != 1)
			fail("no bystander");
	}
	snprintf(path, sizeof path, "/proc/%d/ns/ipc", (int)bystanders[HOST]);
	MUST(host_ns = open(path, O_RDONLY | O_CLOEXEC));
	/* Real users whom nobody else's queues are charged to: one for the bystanders, one for the victims. */
	MUST(setresuid(200000 + (uid_t)killer, (uid_t)-1, (uid_t)-1));
	MUST(setrlimit(RLIMIT_MSGQUEUE, &rlimit));

	for (round_number = 0; round_number < kills; round_number++) {
		int kind = only < KINDS ? only : (int)(round_number % KINDS), died = 0;
		long us = rand() % 4000;
		pid_t pid, end;

		kind_name = kinds[kind].name;
		MUST(pid = fork());
		if (pid == 0) {
			setpgid(0, 0);
			MUST(prctl(PR_SET_PDEATHSIG, SIGKILL));
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
		holds_queues(host, 1);
		for (int i = 0; i < DIRS; i++)
			unmount(dirs[i]);
		looks_clear_away(round_number / KINDS % 2, 2);
	}

	kind_name = "end";
	/* FIRST first, who reads in the mount of HOST. */
	for (int i = FIRST; i >= 0; i--) {
		atomic_store(&shared->stop[i], 1);
		MUST(waitpid(bystanders[i], &status, 0));
		if (status != 0)
			fail("bystander %d ended with status %#x", i, status);
	}
	MUST(close(host_ns));
	for (const char *dir = host; dir; dir = dir == host ? alone : NULL) {
		if (creat(in(dir, "late"), 0600) >= 0 || errno != EACCES)
			fail("creating in a bystander's dead namespace");
		MUST(umount(dir));
	}
	looks_clear_away(0, 0);
	nothing_is_charged();
	MUST(umount(base));
	MUST(rmdir(base));
	printf("%ld kills, %ld mounts left behind, bystanders waited for at most %.1f ms\n", kills, left_mounted, longest);
	return 0;
}
