/*
 * Contract section 15: whose queues a mount shows, and what becomes of them when the namespace dies.
 *
 * What tells that queues are gone is what they cost: a user whose limit they fill makes no other
 * queue before. The kernel takes things apart a moment later, so that is awaited. That creating
 * through the mount has come to an end is seen at once.
 */
#include "conf.h"
#include <dirent.h>
#include <sys/inotify.h>
#include <sys/statfs.h>

#define ATTR(m, s) (&(struct mq_attr){.mq_maxmsg = (m), .mq_msgsize = (s)})
enum {
	COST = 97,          /* of a queue of one message of one byte */
	DEFAULT_COST = 224, /* of one with default attributes, where those are 1 and 128 */
};

static struct stat stat_at(const char *path)
{
	struct stat st;
	if (lstat(path, &st))
		FAIL("lstat %s: expected success, got -1 %s", path, errno_name(errno));
	return st;
}
static int exists(const char *path)
{
	struct stat st;
	return lstat(path, &st) == 0;
}
static int count_listed(const char *dir)
{
	int n = 0;
	DIR *d = opendir(dir);
	if (!d)
		FAIL("opendir: %s", errno_name(errno));
	while (readdir(d))
		n++;
	closedir(d);
	return n - 2;
}
/* A namespace of the caller's own where queues of default attributes are small. */
static void enter(void)
{
	EQ(unshare(CLONE_NEWIPC), 0);
	write_limit("msg_default", "1");
	write_limit("msgsize_default", "128");
}
static const char *queue(const char *suffix)
{
	const char *n = qname(suffix);
	EQ(mq_close(make(n, O_RDWR, 1, 1)), 0);
	return n;
}

/* ---- Whose ------------------------------------------------------------------------------- */

ROOT_FILE_CASE("15 (whose)", after_unshare_the_mount_shows_the_old_namespace)
{
	enter();
	const char *n = queue("a"), *m = qname("b"), *d = mounted_at();
	EQ(unshare(CLONE_NEWIPC), 0);
	missing(n);
	EQ(exists(path_in(d, n)), 1);
	make(m, O_RDWR, 1, 1);
	EQ(exists(path_in(d, m)), 0);
	EQ(count_listed(d), 1);
	const char *e = mounted_at();
	EQ(exists(path_in(e, m)), 1);
	EQ(exists(path_in(e, n)), 0);
	TRUE(stat_at(d).st_dev != stat_at(e).st_dev);
}

ROOT_FILE_CASE("15 (whose)", a_child_in_a_new_namespace_sees_the_parents_queues)
{
	enter();
	const char *n = queue("a"), *d = mounted_at();
	CHILD_BY(raw_clone(CLONE_NEWIPC)) {
		missing(n);
		EQ(stat_at(path_in(d, n)).st_size, 80);
		int fd = OK(open(path_in(d, n), O_RDWR));
		put(fd, "x", 0);
	}
	take(OK(mq_open(n, O_RDWR)), "x", 0);
}

ROOT_FILE_CASE("15 (whose)", every_operation_acts_in_the_mounts_namespace)
{
	enter();
	const char *n = queue("a"), *m = qname("b"), *d = mounted_at();
	CHILD {
		enter();
		make(n, O_RDWR, 1, 1); /* the same name, another queue */
		make(m, O_RDWR, 1, 1);
		ino_t ino = stat_at(path_in(d, n)).st_ino;
		close(OK(creat(path_in(d, m), 0640)));
		FAILS(open(path_in(d, m), O_RDWR | O_CREAT | O_EXCL, 0600), EEXIST);
		EQ(chmod(path_in(d, n), 0604), 0);
		EQ(chown(path_in(d, n), user(1), user(2)), 0);
		EQ(truncate(path_in(d, n), 3), 0);
		EQ(utimensat(AT_FDCWD, path_in(d, n), (struct timespec[2]){{.tv_sec = 5}, {.tv_sec = 6}}, 0), 0);
		struct stat mine;
		EQ(fstat(OK(mq_open(n, O_RDWR)), &mine), 0);
		EQ(mine.st_mode, S_IFREG | 0600);
		EQ(mine.st_size, 80);
		EQ(mine.st_uid, 0);
		EQ(stat_at(path_in(d, n)).st_ino, ino);
	}
	struct stat st;
	EQ(fstat(OK(mq_open(n, O_RDWR)), &st), 0);
	EQ(st.st_mode, S_IFREG | 0604);
	EQ(st.st_uid, user(1));
	EQ(st.st_gid, user(2));
	EQ(st.st_size, 3);
	EQ(st.st_mtime, 6);
	present(m);
	CHILD {
		enter();
		make(n, O_RDWR, 1, 1);
		EQ(unlink(path_in(d, n)), 0);
		EQ(unlink(path_in(d, m)), 0);
		present(n);
	}
	missing(n);
	missing(m);
}

ROOT_FILE_CASE("15 (whose)", created_there_by_the_limits_there)
{
	enter();
	write_limit("msg_default", "3");
	write_limit("queues_max", "2");
	const char *d = mounted_at();
	CHILD {
		enter();
		write_limit("queues_max", "0");
		struct mq_attr a;
		EQ(mq_getattr(OK(creat(path_in(d, "a"), 0600)), &a), 0);
		EQ(a.mq_maxmsg, 3);
		EQ(a.mq_msgsize, 128);
		EQ(mknod(path_in(d, "b"), S_IFREG | 0600, 0), 0);
		FAILS(creat(path_in(d, "c"), 0600), ENOSPC);
		FAILS(mq_open("/a", O_RDWR | O_CREAT, 0600, ATTR(1, 1)), ENOSPC);
	}
	present("/a");
	FAILS(mq_open("/c", O_RDWR | O_CREAT, 0600, ATTR(1, 1)), ENOSPC);
	EQ(mq_unlink("/a"), 0);
	CHILD {
		enter();
		close(OK(creat(path_in(d, "c"), 0600)));
	}
	present("/c");
}

ROOT_FILE_CASE("15 (whose)", created_there_by_who_pays_here)
{
	enter();
	const char *d = mounted_at();
	CHILD {
		become(user(0));
		OK(setrlimit(RLIMIT_MSGQUEUE, &(struct rlimit){DEFAULT_COST, DEFAULT_COST}));
		close(OK(creat(path_in(d, "a"), 0600)));
		FAILS(creat(path_in(d, "b"), 0600), EMFILE);
	}
	EQ(stat_at(path_in(d, "a")).st_uid, user(0));
	CHILD {
		enter();
		OK(setresuid(user(0), -1, -1));
		OK(setrlimit(RLIMIT_MSGQUEUE, &(struct rlimit){DEFAULT_COST, DEFAULT_COST}));
		FAILS(mq_open("/a", O_RDWR | O_CREAT, 0600, ATTR(1, 1)), EMFILE);
		EQ(unlink(path_in(d, "a")), 0);
		OK(mq_open("/a", O_RDWR | O_CREAT, 0600, ATTR(1, 1)));
	}
}

ROOT_FILE_CASE("15 (whose)", going_back_changes_nothing_about_the_mount)
{
	enter();
	int back = OK(open("/proc/self/ns/ipc", O_RDONLY));
	const char *n = queue("a"), *d = mounted_at();
	enter();
	const char *m = queue("b"), *e = mounted_at();
	EQ(setns(back, CLONE_NEWIPC), 0);
	for (int i = 0; i < 2; i++) {
		EQ(exists(path_in(d, n)), 1);
		EQ(exists(path_in(d, m)), 0);
		EQ(exists(path_in(e, n)), 0);
		EQ(exists(path_in(e, m)), 1);
	}
	present(n);
	missing(m);
}

ROOT_FILE_CASE("15 (whose)", after_setns_the_joined_namespace_is_mounted)
{
	pid_t p;
	ASYNC(p) {
		enter();
		queue("a");
		mark(0);
		await_mark(1);
		present("/made");
	}
	await_mark(0);
	enter();
	int ns = OK(open(ns_path(p), O_RDONLY | O_CLOEXEC));
	EQ(setns(ns, CLONE_NEWIPC), 0);
	close(ns);
	const char *d = mounted_at();
	EQ(unshare(CLONE_NEWIPC), 0);
	EQ(count_listed(d), 1);
	close(OK(creat(path_in(d, "made"), 0600)));
	mark(1);
	join(p);
	FAILS(creat(path_in(d, "more"), 0600), EACCES);
}

static void *mount_in_another(void *d)
{
	enter();
	make("/thread", O_RDWR, 1, 1);
	EQ(mount("x", d, "mqueue", 0, NULL), 0);
	return NULL;
}
ROOT_FILE_CASE("15 (whose)", a_thread_mounts_its_own_namespace)
{
	enter();
	const char *n = queue("a");
	private_mounts();
	const char *d = directory("m");
	in_thread(mount_in_another, (void *)d);
	EQ(exists(path_in(d, n)), 0);
	EQ(exists(path_in(d, "thread")), 1);
	missing("/thread");
}

MOUNT_CASE("15 (fsopen)", the_namespace_of_fsopen_counts)
{
	enter();
	const char *n = queue("a");
	private_mounts();
	const char *d = directory("m");
	int fs = OK(fsopen("mqueue", FSOPEN_CLOEXEC));
	EQ(unshare(CLONE_NEWIPC), 0);
	EQ(fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0), 0);
	EQ(move_mount(OK(fsmount(fs, 0, 0)), "", AT_FDCWD, d, MOVE_MOUNT_F_EMPTY_PATH), 0);
	EQ(exists(path_in(d, n)), 1);
}

MOUNT_CASE("15 (fsopen)", a_context_keeps_the_namespace_until_fsmount)
{
	for (int i = 0; i < 3; i++) {
		enter();
		const char *d = mounted_at();
		int fs = OK(fsopen("mqueue", FSOPEN_CLOEXEC));
		EQ(unshare(CLONE_NEWIPC), 0);
		close(OK(creat(path_in(d, "one"), 0600)));
		EQ(fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0), 0);
		close(OK(creat(path_in(d, "two"), 0600)));
		if (i == 0)
			OK(fsmount(fs, 0, 0));
		else
			close(fs);
		FAILS(creat(path_in(d, "three"), 0600), EACCES);
		EQ(count_listed(d), 2);
	}
}

ROOT_FILE_CASE("15 (whose)", opened_through_it_a_descriptor_is_one_of_that_namespace)
{
	enter();
	const char *n = queue("a"), *d = mounted_at();
	pid_t p;
	ASYNC(p) {
		take(OK(mq_open(n, O_RDWR)), "x", 0);
		put(OK(mq_open(n, O_RDWR)), "y", 0);
	}
	await_asleep(p);
	enter();
	int fd = OK(open(path_in(d, n), O_RDWR));
	block(SIGUSR1);
	struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
	EQ(mq_notify(fd, &ev), 0);
	put(fd, "x", 0);
	join(p);
	siginfo_t si;
	TRUE(pending_signal(SIGUSR1, &si));
	EQ(si.si_pid, p);
	take(fd, "y", 0);
}

ROOT_FILE_CASE("15 (whose)", permissions_hold_from_elsewhere)
{
	enter();
	const char *n = queue("a"), *d = mounted_at();
	CHILD {
		enter();
		become(user(0));
		FAILS(open(path_in(d, n), O_RDONLY), EACCES);
		FAILS(unlink(path_in(d, n)), EPERM);
		FAILS(chmod(path_in(d, n), 0666), EPERM);
		close(OK(creat(path_in(d, "b"), 0600)));
	}
	EQ(stat_at(path_in(d, "b")).st_uid, user(0));
	present("/b");
}

ROOT_FILE_CASE("15 (root directory)", directory_belongs_to_who_made_the_namespace)
{
	setfsgid(user(2));
	setfsuid(user(1));
	int r = unshare(CLONE_NEWIPC);
	setfsuid(0);
	setfsgid(0);
	EQ(r, 0);
	struct stat st = stat_at(mounted_at());
	EQ(st.st_uid, user(1));
	EQ(st.st_gid, user(2));
}

/* ---- The end of the namespace ------------------------------------------------------------ */

static const char *outside;

/* The observer, root but for its real user, who pays for all that these processes make. */
static void observe(long bytes)
{
	outside = qname("outside");
	OK(setresuid(user(0), -1, -1));
	OK(setrlimit(RLIMIT_MSGQUEUE, &(struct rlimit){bytes, bytes}));
	private_mounts();
}
static int another_fits(void)
{
	mqd_t q = mq_open(outside, O_RDWR | O_CREAT | O_EXCL, 0600, ATTR(1, 1));
	if (q == -1) {
		TRUE(errno == EMFILE);
		return 0;
	}
	EQ(mq_close(q), 0);
	EQ(mq_unlink(outside), 0);
	return 1;
}
#define held() EQ(another_fits(), 0)
#define gone() AWAIT(another_fits())

/* A namespace with queues of a byte, /q0 and so on, mounted on a directory. Its only member lives
 * until mark 1. */
static pid_t member(const char *dir, int queues)
{
	pid_t p;
	ASYNC(p) {
		enter();
		for (int i = 0; i < queues; i++)
			EQ(mq_close(make(path_in("", number(i)), O_RDWR, 1, 1)), 0);
		EQ(mount("dead", dir, "mqueue", 0, NULL), 0);
		mark(0);
		await_mark(1);
	}
	await_mark(0);
	return p;
}
/* The same, dead. */
static const char *dead(int queues)
{
	private_mounts();
	const char *d = directory("dead");
	pid_t p = member(d, queues);
	mark(1);
	join(p);
	return d;
}

/* The story that the file system was made for. */
ROOT_FILE_CASE("15 (death)", the_whole_story)
{
	observe(COST);
	OK(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
	const char *d = directory("m");
	pid_t a;
	ASYNC(a) {
		/* Task a, alone in its namespace, mounts it and makes a queue. */
		enter();
		EQ(mount("mqueue", d, "mqueue", 0, NULL), 0);
		EQ(mq_close(make("/ab", O_RDWR, 1, 1)), 0);
		pid_t b = OK(raw_clone(CLONE_NEWIPC));
		if (b)
			_exit(0);
		/* Task b, in another namespace, has seen it die. */
		await_mark(0);
		missing("/ab");
		EQ(count_listed(d), 1);
		EQ(stat_at(path_in(d, "ab")).st_size, 80);
		int fd = OK(open(path_in(d, "ab"), O_RDWR | O_CREAT, 0600));
		char b64[64];
		EQ(read(fd, b64, 64), 60);
		put(fd, "x", 0);
		take(fd, "x", 0);
		close(fd);
		FAILS(creat(path_in(d, "cd"), 0600), EACCES);
		EQ(another_fits(), 0);
		EQ(umount(d), 0);
		EQ(exists(path_in(d, "ab")), 0);
		gone();
	}
	join(a);
	mark(0);
	int st;
	TRUE(wait(&st) > 0);
	EQ(st, 0);
}

ROOT_FILE_CASE("15 (death)", files_stay_visible)
{
	const char *d = dead(3);
	EQ(count_listed(d), 3);
	struct stat st = stat_at(d);
	EQ(st.st_mode, S_IFDIR | 01777);
	EQ(st.st_size, 100);
	st = stat_at(path_in(d, "0"));
	EQ(st.st_mode, S_IFREG | 0600);
	EQ(st.st_size, 80);
	EQ(st.st_nlink, 1);
	TRUE(st.st_ino != stat_at(path_in(d, "1")).st_ino);
	struct statfs s;
	EQ(statfs(d, &s), 0);
	EQ(s.f_type, 0x19800202);
}

ROOT_FILE_CASE("15 (death)", files_stay_readable)
{
	const char *d = dead(1);
	char b[64] = "";
	int fd = OK(open(path_in(d, "0"), O_RDWR));
	EQ(read(fd, b, 64), 60);
	SAME(b, "QSIZE:0 ", 8);
	put(fd, "x", 0);
	EQ(pread(fd, b, 64, 0), 60);
	SAME(b, "QSIZE:1 ", 8);
}

ROOT_FILE_CASE("15 (death)", files_stay_queues)
{
	const char *d = dead(1);
	int fd = OK(open(path_in(d, "0"), O_RDWR)), other = OK(open(path_in(d, "0"), O_RDONLY));
	struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT};
	EQ(poll(&p, 1, 0), 1);
	EQ(p.revents, POLLOUT);
	block(SIGUSR1);
	struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
	EQ(mq_notify(fd, &ev), 0);
	put(fd, "x", 3);
	siginfo_t si;
	TRUE(pending_signal(SIGUSR1, &si));
	take(other, "x", 3);
	pid_t c;
	ASYNC(c) {
		take(other, "y", 0);
	}
	await_asleep(c);
	put(fd, "y", 0);
	join(c);
	FAILS(mq_timedsend(fd, "12", 2, 0, &past), EMSGSIZE);
}

ROOT_FILE_CASE("15 (death)", messages_stay)
{
	private_mounts();
	const char *d = directory("m");
	CHILD {
		enter();
		put(make("/q", O_RDWR, 3, 8), "one", 5);
		put(OK(mq_open("/q", O_RDWR)), "two", 7);
		EQ(mount("x", d, "mqueue", 0, NULL), 0);
	}
	int fd = OK(open(path_in(d, "q"), O_RDWR));
	take(fd, "two", 7);
	take(fd, "one", 5);
}

ROOT_FILE_CASE("15 (death)", creating_is_refused_to_root_as_well)
{
	const char *d = dead(1);
	FAILS(creat(path_in(d, "new"), 0600), EACCES);
	FAILS(open(path_in(d, "new"), O_RDWR | O_CREAT, 0600), EACCES);
	FAILS(open(path_in(d, "new"), O_RDONLY | O_CREAT | O_EXCL, 0600), EACCES);
	FAILS(mknod(path_in(d, "new"), S_IFREG | 0600, 0), EACCES);
	FAILS(openat(OK(open(d, O_PATH)), "new", O_RDWR | O_CREAT, 0600), EACCES);
	TRUE(fopen(path_in(d, "new"), "w") == NULL);
	TRUE(errno == EACCES);
	EQ(exists(path_in(d, "new")), 0);
	EQ(count_listed(d), 1);
	EQ(stat_at(d).st_size, 60);
	CHILD {
		become(user(1));
		FAILS(creat(path_in(d, "new"), 0600), EACCES);
	}
}

ROOT_FILE_CASE("15 (death)", what_exists_opens_with_create)
{
	const char *d = dead(1);
	int fd = OK(open(path_in(d, "0"), O_RDWR | O_CREAT, 0644));
	put(fd, "x", 0);
	EQ(stat_at(path_in(d, "0")).st_size, 80);
	close(OK(creat(path_in(d, "0"), 0600)));
	take(fd, "x", 0);
	EQ(stat_at(path_in(d, "0")).st_size, 0);
	FAILS(open(path_in(d, "0"), O_RDWR | O_CREAT | O_EXCL, 0600), EEXIST);
	FAILS(mknod(path_in(d, "0"), S_IFREG | 0600, 0), EEXIST);
}

ROOT_FILE_CASE("15 (death)", other_refusals_are_as_before)
{
	const char *d = dead(2), *p = path_in(d, "0"), *new = path_in(d, "new");
	FAILS(mkdir(new, 0700), EPERM);
	FAILS(symlink("x", new), EPERM);
	FAILS(mkfifo(new, 0600), EPERM);
	FAILS(link(p, new), EPERM);
	FAILS(rename(p, new), EPERM);
	FAILS(open(d, O_RDWR | O_TMPFILE, 0600), EOPNOTSUPP);
	FAILS(open(new, O_RDWR), ENOENT);
	FAILS(unlink(new), ENOENT);
	FAILS(mkdir(p, 0700), EEXIST);
	FAILS(access(p, X_OK), EACCES);
}

ROOT_FILE_CASE("15 (death)", attributes_of_files_still_change)
{
	const char *d = dead(1), *p = path_in(d, "0");
	EQ(chmod(p, 0640), 0);
	EQ(chown(p, user(1), user(2)), 0);
	EQ(truncate(p, 7), 0);
	EQ(utimensat(AT_FDCWD, p, (struct timespec[2]){{.tv_sec = 5}, {.tv_sec = 6}}, 0), 0);
	struct stat st = stat_at(p);
	EQ(st.st_mode, S_IFREG | 0640);
	EQ(st.st_uid, user(1));
	EQ(st.st_size, 7);
	EQ(st.st_mtime, 6);
	CHILD {
		become(user(1));
		OK(open(p, O_RDWR));
		EQ(chmod(p, 0400), 0);
		FAILS(open(p, O_RDWR), EACCES);
	}
	CHILD {
		become(user(3));
		FAILS(open(p, O_RDONLY), EACCES);
		FAILS(unlink(p), EPERM);
	}
}

ROOT_FILE_CASE("15 (death)", unlinking_gives_bytes_back)
{
	observe(2 * COST);
	const char *d = dead(2);
	held();
	EQ(unlink(path_in(d, "0")), 0);
	gone();
	EQ(exists(path_in(d, "0")), 0);
	EQ(count_listed(d), 1);
	EQ(stat_at(d).st_size, 60);
	int fd = OK(open(path_in(d, "1"), O_RDWR));
	EQ(unlink(path_in(d, "1")), 0);
	EQ(count_listed(d), 0);
	put(fd, "x", 0);
	take(fd, "x", 0);
	FAILS(creat(path_in(d, "1"), 0600), EACCES);
}

ROOT_FILE_CASE("15 (death)", last_umount_frees_all)
{
	observe(3 * COST);
	const char *d = dead(3);
	held();
	EQ(umount(d), 0);
	gone();
	EQ(exists(path_in(d, "0")), 0);
	FAILS(umount(d), EINVAL);
}

ROOT_FILE_CASE("15 (death)", lazy_umount_frees_all)
{
	observe(3 * COST);
	const char *d = dead(3);
	held();
	EQ(umount2(d, MNT_DETACH), 0);
	gone();
}

ROOT_FILE_CASE("15 (death)", lazily_unmounted_it_lives_by_an_open_descriptor)
{
	observe(2 * COST);
	const char *d = dead(2);
	int fd = OK(open(path_in(d, "0"), O_RDWR));
	EQ(umount2(d, MNT_DETACH), 0);
	held();
	put(fd, "x", 0);
	take(fd, "x", 0);
	close(fd);
	gone();
}

ROOT_FILE_CASE("15 (death)", lazily_unmounted_it_lives_by_a_working_directory)
{
	observe(COST);
	const char *d = dead(1);
	EQ(chdir(d), 0);
	EQ(umount2(d, MNT_DETACH), 0);
	held();
	EQ(stat_at("0").st_size, 80);
	FAILS(creat("new", 0600), EACCES);
	EQ(count_listed("."), 1);
	EQ(chdir("/"), 0);
	gone();
}

ROOT_FILE_CASE("15 (death)", a_descriptor_of_mq_open_keeps_all_the_queues)
{
	observe(3 * COST);
	int s[2];
	EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
	CHILD {
		enter();
		pass_fd(s[0], make("/a", O_RDWR, 1, 1));
		make("/b", O_RDWR, 1, 1);
	}
	int fd = accept_fd(s[1]);
	CHILD { /* a namespace that dies later and is gone */
		enter();
		make("/c", O_RDWR, 1, 1);
	}
	gone();
	put(fd, "x", 0);
	take(fd, "x", 0);
	EQ(mq_close(make(qname("third"), O_RDWR, 1, 1)), 0);
	held();
	close(fd);
	gone();
}

ROOT_FILE_CASE("15 (death)", descriptor_of_a_queue_outlives_the_last_umount)
{
	observe(COST);
	const char *d = directory("m");
	int s[2];
	EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
	CHILD {
		enter();
		pass_fd(s[0], make("/a", O_RDWR, 1, 1));
		EQ(mount("x", d, "mqueue", 0, NULL), 0);
	}
	int fd = accept_fd(s[1]);
	EQ(umount(d), 0);
	put(fd, "x", 0);
	take(fd, "x", 0);
	held();
	close(fd);
	gone();
}

MOUNT_CASE("15 (death)", lives_by_a_bind_mount)
{
	observe(COST);
	const char *d = dead(1), *e = directory("e");
	EQ(mount(d, e, NULL, MS_BIND, NULL), 0);
	EQ(umount(d), 0);
	held();
	EQ(stat_at(path_in(e, "0")).st_size, 80);
	FAILS(creat(path_in(e, "new"), 0600), EACCES);
	EQ(umount(e), 0);
	gone();
}

ROOT_FILE_CASE("15 (death)", lives_by_a_second_mount)
{
	observe(COST);
	const char *d = directory("d"), *e = directory("e");
	CHILD {
		enter();
		EQ(mq_close(make("/0", O_RDWR, 1, 1)), 0);
		EQ(mount("x", d, "mqueue", 0, NULL), 0);
		EQ(mount("x", e, "mqueue", MS_RDONLY, NULL), 0);
	}
	EQ(umount(d), 0);
	held();
	FAILS(creat(path_in(e, "new"), 0600), EROFS);
	FAILS(unlink(path_in(e, "0")), EROFS);
	EQ(count_listed(e), 1);
	EQ(umount(e), 0);
	gone();
}

MOUNT_CASE("15 (death)", lives_by_a_copied_mount_namespace)
{
	observe(COST);
	const char *d = directory("m");
	pid_t p = member(d, 1), c;
	ASYNC(c) {
		EQ(unshare(CLONE_NEWNS), 0);
		mark(2);
		await_mark(3);
		EQ(stat_at(path_in(d, "0")).st_size, 80);
		FAILS(creat(path_in(d, "new"), 0600), EACCES);
	}
	await_mark(2);
	mark(1);
	join(p);
	EQ(umount(d), 0);
	held();
	mark(3);
	join(c);
	gone();
}

MOUNT_CASE("15 (death)", ends_with_the_last_mount_namespace)
{
	observe(COST);
	const char *d = directory("m");
	pid_t c;
	ASYNC(c) {
		EQ(unshare(CLONE_NEWNS), 0);
		pid_t p = member(d, 1);
		mark(1);
		join(p);
		mark(2);
		for (;;)
			pause();
	}
	await_mark(2);
	held();
	EQ(exists(path_in(d, "0")), 0);
	kill(c, SIGKILL);
	join_killed(c, SIGKILL);
	gone();
}

ROOT_FILE_CASE("15 (death)", stacked_mounts_of_the_dead)
{
	observe(3 * COST);
	const char *d = directory("m");
	for (int i = 0; i < 3; i++)
		CHILD {
			enter();
			EQ(mq_close(make(path_in("", number(i)), O_RDWR, 1, 1)), 0);
			EQ(mount("x", d, "mqueue", 0, NULL), 0);
		}
	for (int i = 2; i >= 0; i--) {
		EQ(count_listed(d), 1);
		EQ(exists(path_in(d, number(i))), 1);
		if (i == 2)
			held();
		EQ(umount(d), 0);
		gone();
	}
}

/* ---- Roads to the end; what prevents it -------------------------------------------------- */

/* A member that leaves one way or another; then files are not made any more, at once. */
static void leaves(void (*how)(void), int status)
{
	private_mounts();
	const char *d = directory("m");
	pid_t p;
	int st;
	ASYNC(p) {
		enter();
		EQ(mount("x", d, "mqueue", 0, NULL), 0);
		mark(0);
		await_mark(1);
		how();
		mark(2);
		await_mark(3);
	}
	await_mark(0);
	close(OK(creat(path_in(d, "before"), 0600)));
	mark(1);
	if (status >= 0) {
		EQ(waitpid(p, &st, 0), p);
		EQ(st, status);
	} else {
		await_mark(2);
	}
	FAILS(creat(path_in(d, "after"), 0600), EACCES);
	EQ(stat_at(path_in(d, "before")).st_size, 80);
	if (status < 0) {
		mark(3);
		join(p);
	}
}
static void by_exit(void)
{
	exit(3);
}
ROOT_FILE_CASE("15 (death)", by_exit_of_the_last)
{
	leaves(by_exit, 3 << 8);
}
static void by_signal(void)
{
	raise(SIGKILL);
}
ROOT_FILE_CASE("15 (death)", by_a_violent_death_of_the_last)
{
	leaves(by_signal, SIGKILL);
}
static void by_unshare(void)
{
	EQ(unshare(CLONE_NEWIPC), 0);
}
ROOT_FILE_CASE("15 (death)", by_unshare_of_the_last)
{
	leaves(by_unshare, -1);
}
static void by_setns(void)
{
	EQ(setns(OK(open(ns_path(getppid()), O_RDONLY | O_CLOEXEC)), CLONE_NEWIPC), 0);
}
ROOT_FILE_CASE("15 (death)", by_setns_of_the_last)
{
	leaves(by_setns, -1);
}

ROOT_FILE_CASE("15 (death)", not_before_the_last)
{
	private_mounts();
	const char *d = directory("m");
	pid_t a, b;
	ASYNC(a) {
		enter();
		EQ(mount("x", d, "mqueue", 0, NULL), 0);
		ASYNC(b) {
			mark(0);
			await_mark(1);
		}
		await_mark(0);
		shared->value[0] = b;
		await_mark(2);
	}
	OK(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
	await_mark(0);
	AWAIT(shared->value[0]);
	mark(2);
	join(a);
	close(OK(creat(path_in(d, "one"), 0600)));
	mark(1);
	join(shared->value[0]);
	FAILS(creat(path_in(d, "two"), 0600), EACCES);
	EQ(count_listed(d), 1);
}

ROOT_FILE_CASE("15 (death)", a_descriptor_of_the_namespace_prevents_it)
{
	private_mounts();
	const char *d = directory("m");
	pid_t p = member(d, 1);
	int ns = OK(open(ns_path(p), O_RDONLY | O_CLOEXEC));
	mark(1);
	join(p);
	close(OK(creat(path_in(d, "new"), 0600)));
	CHILD {
		EQ(setns(ns, CLONE_NEWIPC), 0);
		present("/new");
		present("/0");
		EQ(mq_close(make("/newer", O_RDWR, 1, 1)), 0);
	}
	EQ(count_listed(d), 3);
	close(ns);
	FAILS(creat(path_in(d, "newest"), 0600), EACCES);
	EQ(count_listed(d), 3);
}

MOUNT_CASE("15 (death)", a_mount_of_the_namespace_prevents_it)
{
	private_mounts();
	const char *d = directory("m"), *f = path_in(directory("n"), "ns");
	close(OK(creat(f, 0600)));
	pid_t p = member(d, 1);
	EQ(mount(ns_path(p), f, NULL, MS_BIND, NULL), 0);
	mark(1);
	join(p);
	close(OK(creat(path_in(d, "new"), 0600)));
	EQ(umount(f), 0);
	FAILS(creat(path_in(d, "newest"), 0600), EACCES);
	EQ(count_listed(d), 2);
}

ROOT_FILE_CASE("15 (death)", a_descriptor_of_its_queue_does_not_prevent_it)
{
	private_mounts();
	const char *d = directory("m");
	pid_t p = member(d, 1);
	int fd = OK(open(path_in(d, "0"), O_RDWR)), top = OK(open(d, O_RDONLY));
	EQ(chdir(d), 0);
	mark(1);
	join(p);
	put(fd, "x", 0);
	FAILS(creat("new", 0600), EACCES);
	FAILS(openat(top, "new", O_RDWR | O_CREAT, 0600), EACCES);
}

ROOT_FILE_CASE("15 (death)", a_zombie_does_not_prevent_it)
{
	private_mounts();
	const char *d = directory("m");
	pid_t p = member(d, 1);
	mark(1);
	siginfo_t si;
	EQ(waitid(P_PID, p, &si, WEXITED | WNOWAIT), 0);
	FAILS(creat(path_in(d, "new"), 0600), EACCES);
	join(p);
}

ROOT_FILE_CASE("15 (death)", the_dead_namespaces_queues_are_watched)
{
	const char *d = dead(1);
	int w = OK(inotify_init1(IN_NONBLOCK));
	OK(inotify_add_watch(w, d, IN_CREATE | IN_DELETE));
	FAILS(creat(path_in(d, "new"), 0600), EACCES);
	char b[4096] __attribute__((aligned(8)));
	FAILS(read(w, b, sizeof b), EAGAIN);
	EQ(unlink(path_in(d, "0")), 0);
	TRUE(read(w, b, sizeof b) > 0);
	EQ(((struct inotify_event *)b)->mask, IN_DELETE);
}

/* ---- Races ------------------------------------------------------------------------------- */

/* One round: the last member leaves while files are made through the mount. Each creation works
 * or is refused, none works after a refusal, and what was made is there. */
static void race(const char *d, int round, int creators)
{
	pid_t p, c[4];
	ASYNC(p) {
		enter();
		EQ(mount("x", d, "mqueue", 0, NULL), 0);
		mark(0);
		await_marks(1, round * (creators + 1) + creators + 1);
	}
	await_marks(0, round + 1);
	for (int i = 0; i < creators; i++)
		ASYNC(c[i]) {
			char name[600];
			int made = 0, fd;
			snprintf(name, sizeof name, "%s/%d-", d, i);
			size_t len = strlen(name);
			mark(1);
			for (;;) {
				snprintf(name + len, sizeof name - len, "%d", made);
				fd = open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
				if (fd < 0)
					break;
				put(fd, "x", 0);
				close(fd);
				if (made >= 20) {
					EQ(unlink(name), 0);
					continue;
				}
				made++;
			}
			TRUE(errno == EACCES);
			EQ(exists(name), 0);
			for (int k = 0; k < 5; k++)
				FAILS(open(name, O_RDWR | O_CREAT | O_EXCL, 0600), EACCES);
			while (made--) {
				snprintf(name + len, sizeof name - len, "%d", made);
				take(OK(open(name, O_RDWR)), "x", 0);
				EQ(unlink(name), 0);
			}
		}
	mark(1);
	join(p);
	for (int i = 0; i < creators; i++)
		join(c[i]);
	EQ(count_listed(d), 0);
	EQ(stat_at(d).st_size, 40);
	EQ(umount(d), 0);
}
ROOT_FILE_CASE("15 (race)", last_exit_against_a_creator)
{
	private_mounts();
	const char *d = directory("m");
	for (int i = 0; i < 40; i++)
		race(d, i, 1);
}
ROOT_FILE_CASE("15 (race)", last_exit_against_three_creators)
{
	private_mounts();
	const char *d = directory("m");
	for (int i = 0; i < 20; i++)
		race(d, i, 3);
}

ROOT_FILE_CASE("15 (race)", last_exit_against_umount)
{
	observe(COST);
	const char *d = directory("m");
	for (int i = 0; i < 40; i++) {
		pid_t p;
		ASYNC(p) {
			enter();
			EQ(mq_close(make("/0", O_RDWR, 1, 1)), 0);
			EQ(mount("x", d, "mqueue", 0, NULL), 0);
			mark(0);
			await_marks(1, i + 1);
		}
		await_marks(0, i + 1);
		mark(1);
		EQ(umount(d), 0);
		join(p);
		gone();
	}
}

ROOT_FILE_CASE("15 (race)", last_exit_against_readers)
{
	private_mounts();
	const char *d = directory("m");
	for (int i = 0; i < 20; i++) {
		pid_t p = 0;
		ASYNC(p) {
			enter();
			EQ(mq_close(make("/0", O_RDWR, 1, 1)), 0);
			EQ(mount("x", d, "mqueue", 0, NULL), 0);
			mark(0);
			await_marks(1, i + 1);
		}
		await_marks(0, i + 1);
		mark(1);
		siginfo_t si = {0};
		while (si.si_pid == 0) {
			EQ(count_listed(d), 1);
			int fd = OK(open(path_in(d, "0"), O_RDWR));
			char b[64];
			EQ(read(fd, b, 64), 60);
			close(fd);
			EQ(waitid(P_PID, p, &si, WEXITED | WNOHANG), 0);
		}
		EQ(unlink(path_in(d, "0")), 0);
		EQ(umount(d), 0);
	}
}
