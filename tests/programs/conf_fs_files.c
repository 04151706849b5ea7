/* Contract section 15: queues as files. Mounts: conf_fs_mount.c; namespaces: conf_fs_ns.c. */
#include "conf.h"
#include <dirent.h>
#include <glob.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>

#define ATTR(m, s) (&(struct mq_attr){.mq_maxmsg = (m), .mq_msgsize = (s)})

static const char *dir; /* where the caller's queues are mounted */
#define at(name) path_in(dir, name)

static void start(void)
{
	fresh_namespace();
	dir = mounted_at();
}
/* A queue of one message of eight bytes, all its descriptors closed. */
static const char *queue(const char *suffix, mode_t mode)
{
	const char *n = qname(suffix);
	mqd_t q = OK(mq_open(n, O_RDWR | O_CREAT | O_EXCL, 0600, ATTR(1, 8)));
	OK(fchmod(q, mode));
	EQ(mq_close(q), 0);
	return n;
}
static struct stat stat_at(const char *path)
{
	struct stat st;
	if (lstat(path, &st))
		FAIL("lstat %s: expected success, got -1 %s", path, errno_name(errno));
	return st;
}
static struct stat stat_of(int fd)
{
	struct stat st;
	if (fstat(fd, &st))
		FAIL("fstat: expected success, got -1 %s", errno_name(errno));
	return st;
}
static int exists(const char *path)
{
	struct stat st;
	return lstat(path, &st) == 0;
}
#define absent(path)                                                                             \
	do {                                                                                     \
		struct stat ab_st;                                                               \
		FAILS(lstat(path, &ab_st), ENOENT);                                              \
	} while (0)

static const char *text(long qsize, int notify, int signo, int pid)
{
	static char b[128];
	sprintf(b, "QSIZE:%-10lu NOTIFY:%-5d SIGNO:%-5d NOTIFY_PID:%-6d\n", qsize, notify, signo, pid);
	return b;
}
/* What `cat` prints. */
#define shows(path, want)                                                                        \
	do {                                                                                     \
		char sh_b[256] = "";                                                             \
		int sh_fd = OK(open(path, O_RDONLY | O_CLOEXEC));                                \
		ssize_t sh_n = OK(read(sh_fd, sh_b, sizeof sh_b - 1));                           \
		EQ(read(sh_fd, sh_b + sh_n, sizeof sh_b - 1 - sh_n), 0);                         \
		close(sh_fd);                                                                    \
		if (strcmp(sh_b, want))                                                          \
			FAIL("%s: expected \"%s\", got \"%s\"", #path, want, sh_b);              \
	} while (0)

/* How often the directory lists a name, and how many it lists but `.` and `..`. */
static int listed(const char *name, int *all)
{
	int n = 0;
	DIR *d = opendir(dir);
	if (!d)
		FAIL("opendir: %s", errno_name(errno));
	*all = 0;
	errno = 0;
	for (struct dirent *e; (e = readdir(d));) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		++*all;
		n += !strcmp(e->d_name, name + (name[0] == '/'));
	}
	EQ(errno, 0);
	closedir(d);
	return n;
}
static int count_listed(void)
{
	int all;
	listed("", &all);
	return all;
}
static int lists(const char *name)
{
	int all;
	return listed(name, &all);
}

/* ---- The directory ----------------------------------------------------------------------- */

FILE_CASE("15 (root directory)", directory_is_sticky_and_open_to_all)
{
	start();
	struct stat st = stat_at(dir);
	EQ(st.st_mode, S_IFDIR | 01777);
	EQ(st.st_nlink, 2);
	EQ(st.st_uid, 0);
	EQ(st.st_gid, 0);
	EQ(st.st_size, 40);
	EQ(st.st_blksize, 4096);
	EQ(st.st_blocks, 0);
	EQ(st.st_rdev, 0);
}

FILE_CASE("15 (root directory)", directory_is_a_file_system_of_its_own)
{
	start();
	struct stat st = stat_at(dir), up = stat_at("/tmp");
	TRUE(st.st_dev != up.st_dev);
	EQ(stat_at(at("..")).st_ino, up.st_ino);
	EQ(stat_at(at("..")).st_dev, up.st_dev);
}

FILE_CASE("15 (root directory)", directory_size_counts_queues)
{
	start();
	const char *n[3] = {qname("a"), qname("b"), qname("c")};
	for (int i = 0; i < 3; i++) {
		make(n[i], O_RDWR, 1, 8);
		EQ(stat_at(dir).st_size, 60 + 20 * i);
	}
	EQ(stat_at(dir).st_nlink, 2);
	EQ(mq_unlink(n[1]), 0);
	EQ(stat_at(dir).st_size, 80);
	EQ(unlink(at(n[0])), 0);
	EQ(stat_at(dir).st_size, 60);
	EQ(close(OK(creat(at(n[0]), 0600))), 0);
	EQ(stat_at(dir).st_size, 80);
}

FILE_CASE("15 (root directory)", directory_times_tell_of_creation_and_removal)
{
	start();
	if (geteuid())
		return; /* the directory is root's */
	const char *n = qname("a");
	struct timespec old[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
	time_t now = time(NULL);
	for (int i = 0; i < 4; i++) {
		EQ(utimensat(AT_FDCWD, dir, old, 0), 0);
		EQ(stat_at(dir).st_mtime, 1000);
		if (i == 0)
			make(n, O_RDWR, 1, 8);
		else if (i == 1)
			EQ(mq_unlink(n), 0);
		else if (i == 2)
			close(OK(creat(at(n), 0600)));
		else
			EQ(unlink(at(n)), 0);
		struct stat st = stat_at(dir);
		TRUE(st.st_mtime >= now);
		TRUE(st.st_ctime >= now);
		TRUE(st.st_atime >= now);
		EQ(st.st_mtim.tv_nsec, 0);
	}
}

FILE_CASE("15 (readdir)", empty_directory_lists_itself_and_its_parent)
{
	start();
	DIR *d = opendir(dir);
	TRUE(d != NULL);
	int dot = 0, dots = 0, more = 0;
	for (struct dirent *e; (e = readdir(d));) {
		if (!strcmp(e->d_name, ".")) {
			dot++;
			EQ(e->d_ino, stat_at(dir).st_ino);
			EQ(e->d_type, DT_DIR);
		} else if (!strcmp(e->d_name, "..")) {
			dots++;
			EQ(e->d_type, DT_DIR);
		} else {
			more++;
		}
	}
	EQ(dot, 1);
	EQ(dots, 1);
	EQ(more, 0);
	EQ(closedir(d), 0);
}

FILE_CASE("15 (readdir)", queues_are_listed_as_regular_files_with_their_inodes)
{
	start();
	const char *n = queue("a", 0600), *m = queue("b", 0600);
	int seen = 0;
	DIR *d = opendir(dir);
	TRUE(d != NULL);
	for (struct dirent *e; (e = readdir(d));) {
		if (e->d_name[0] == '.')
			continue;
		TRUE(!strcmp(e->d_name, n + 1) || !strcmp(e->d_name, m + 1));
		EQ(e->d_type, DT_REG);
		EQ(e->d_ino, stat_at(at(e->d_name)).st_ino);
		seen++;
	}
	EQ(seen, 2);
	closedir(d);
}

FILE_CASE("15 (readdir)", listing_follows_creation_and_removal)
{
	start();
	const char *n = qname("a"), *m = qname("b");
	EQ(count_listed(), 0);
	make(n, O_RDWR, 1, 8);
	EQ(lists(n), 1);
	close(OK(creat(at(m), 0600)));
	EQ(lists(m), 1);
	EQ(count_listed(), 2);
	EQ(mq_unlink(n), 0);
	EQ(lists(n), 0);
	EQ(unlink(at(m)), 0);
	EQ(count_listed(), 0);
}

FILE_CASE("15 (readdir)", many_queues_are_listed_once_each)
{
	enum { N = 120 };
	start();
	const char *n[N];
	char seen[N] = {0};
	for (int i = 0; i < N; i++) {
		n[i] = qname(number(i));
		EQ(mq_close(make(n[i], O_RDWR, 1, 1)), 0);
	}
	EQ(stat_at(dir).st_size, 40 + 20 * N);
	DIR *d = opendir(dir);
	TRUE(d != NULL);
	for (struct dirent *e; (e = readdir(d));) {
		if (e->d_name[0] == '.')
			continue;
		int i = 0;
		while (i < N && strcmp(n[i] + 1, e->d_name))
			i++;
		TRUE(i < N);
		EQ(seen[i]++, 0);
	}
	closedir(d);
	for (int i = 0; i < N; i++)
		EQ(seen[i], 1);
}

FILE_CASE("15 (readdir)", directory_stream_rewinds_to_what_is_there_now)
{
	start();
	const char *n = queue("a", 0600);
	DIR *d = opendir(dir);
	TRUE(d != NULL);
	int seen[3] = {0};
	for (int i = 0; i < 3; i++) {
		rewinddir(d);
		for (struct dirent *e; (e = readdir(d));)
			seen[i] += !strcmp(e->d_name, n + 1);
		if (i == 0)
			EQ(mq_unlink(n), 0);
		else if (i == 1)
			make(n, O_RDWR, 1, 1);
	}
	EQ(seen[0], 1);
	EQ(seen[1], 0);
	EQ(seen[2], 1);
}

FILE_CASE("15 (readdir)", removing_what_is_read_removes_all)
{
	start();
	for (int i = 0; i < 40; i++)
		queue(number(i), 0600);
	DIR *d = opendir(dir);
	TRUE(d != NULL);
	int removed = 0;
	for (struct dirent *e; (e = readdir(d));)
		if (e->d_name[0] != '.') {
			EQ(unlinkat(dirfd(d), e->d_name, 0), 0);
			removed++;
		}
	EQ(removed, 40);
	EQ(count_listed(), 0);
}

FILE_CASE("15 (readdir)", scandir_glob_and_nftw_find_queues)
{
	start();
	const char *n = queue("x", 0600);
	queue("y", 0600);
	struct dirent **list;
	EQ(scandir(dir, &list, NULL, alphasort), 4);
	TRUE(!strcmp(list[0]->d_name, "."));
	TRUE(!strcmp(list[1]->d_name, ".."));
	TRUE(!strcmp(list[2]->d_name, n + 1));
	glob_t g = {0};
	EQ(glob(at("*"), 0, NULL, &g), 0);
	EQ(g.gl_pathc, 2);
	TRUE(!strcmp(g.gl_pathv[0], at(n)));
	globfree(&g);
	EQ(glob(at("*-[x]"), 0, NULL, &g), 0);
	EQ(g.gl_pathc, 1);
	globfree(&g);
	EQ(glob(at("*-z"), 0, NULL, &g), GLOB_NOMATCH);
}

static int walked;
static int walk(const char *path UNUSED, const struct stat *st, int type, struct FTW *f)
{
	if (f->level == 0) {
		TRUE(type == FTW_D);
	} else {
		TRUE(type == FTW_F);
		EQ(st->st_size, 80);
		walked++;
	}
	return 0;
}
FILE_CASE("15 (readdir)", nftw_walks_queues)
{
	start();
	queue("x", 0600);
	queue("y", 0600);
	EQ(nftw(dir, walk, 8, FTW_PHYS | FTW_MOUNT), 0);
	EQ(walked, 2);
}

FILE_CASE("15 (readdir)", every_user_may_list)
{
	start();
	const char *n = queue("a", 0);
	CHILD {
		become_somebody();
		EQ(lists(n), 1);
		struct stat st = stat_at(at(n));
		EQ(st.st_mode, S_IFREG);
		EQ(access(dir, R_OK | W_OK | X_OK), 0);
	}
}

FILE_CASE("15 (root directory)", directory_refuses_what_directories_refuse)
{
	start();
	char b[16];
	int fd = OK(open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	FAILS(read(fd, b, 1), EISDIR);
	FAILS(write(fd, b, 1), EBADF);
	FAILS(open(dir, O_RDWR), EISDIR);
	FAILS(open(dir, O_WRONLY), EISDIR);
	FAILS(open(dir, O_RDONLY | O_CREAT, 0600), EISDIR);
	FAILS(creat(dir, 0600), EISDIR);
	FAILS(truncate(dir, 0), EISDIR);
	FAILS(mkdir(dir, 0700), EEXIST);
	FAILS(mq_send(fd, "x", 1, 0), EBADF);
	struct mq_attr a;
	FAILS(mq_getattr(fd, &a), EBADF);
}

FILE_CASE("15 (root directory)", rmdir_and_unlink_of_the_mount_point)
{
	start();
	FAILS(rmdir(dir), EBUSY);
	FAILS(unlink(dir), EISDIR);
	FAILS(rmdir(at(".")), EINVAL);
	FAILS(rmdir(at("..")), ENOTEMPTY);
	FAILS(unlink(at(".")), EISDIR);
	const char *other = directory("other");
	FAILS(rename(dir, path_in(other, "x")), EBUSY);
	FAILS(rename(other, dir), EBUSY);
}

ROOT_FILE_CASE("15 (root directory)", directory_mode_can_be_changed_and_governs_mq_open_too)
{
	start();
	const char *n = qname("a"), *old = queue("old", 0666);
	EQ(chmod(dir, 0755), 0);
	EQ(stat_at(dir).st_mode, S_IFDIR | 0755);
	CHILD {
		become(user(0));
		FAILS(mq_open(n, O_RDWR | O_CREAT, 0600, ATTR(1, 1)), EACCES);
		FAILS(creat(at(n), 0600), EACCES);
		FAILS(mq_unlink(old), EACCES);
		FAILS(unlink(at(old)), EACCES);
		OK(mq_open(old, O_RDWR));
		OK(mq_open(old, O_RDWR | O_CREAT, 0600, NULL));
		OK(open(at(old), O_RDWR));
	}
	EQ(chmod(dir, 01777), 0);
	CHILD {
		become(user(0));
		make(n, O_RDWR, 1, 1);
	}
}

ROOT_FILE_CASE("15 (root directory)", directory_without_search_permission_hides_files_not_queues)
{
	start();
	const char *n = queue("a", 0666);
	EQ(chmod(dir, 0700), 0);
	CHILD {
		become(user(0));
		struct stat st;
		FAILS(stat(at(n), &st), EACCES);
		FAILS(open(at(n), O_RDONLY), EACCES);
		TRUE(opendir(dir) == NULL);
		TRUE(errno == EACCES);
		OK(mq_open(n, O_RDWR));
		FAILS(mq_open(qname("missing"), O_RDWR), ENOENT);
	}
}

ROOT_FILE_CASE("15 (root directory)", without_the_sticky_bit_anybody_unlinks)
{
	start();
	const char *n = queue("a", 0600), *m = queue("b", 0600);
	EQ(chmod(dir, 0777), 0);
	CHILD {
		become(user(0));
		EQ(unlink(at(n)), 0);
		EQ(mq_unlink(m), 0);
	}
	EQ(count_listed(), 0);
}

ROOT_FILE_CASE("15 (root directory)", owner_of_the_directory_unlinks_everything)
{
	start();
	const char *n = queue("a", 0600), *m = queue("b", 0600);
	EQ(chown(dir, user(0), user(0)), 0);
	EQ(stat_at(dir).st_uid, user(0));
	EQ(stat_at(dir).st_mode, S_IFDIR | 01777);
	CHILD {
		become(user(0));
		EQ(unlink(at(n)), 0);
		EQ(mq_unlink(m), 0);
	}
}

ROOT_FILE_CASE("15 (root directory)", others_cannot_change_the_directory)
{
	start();
	CHILD {
		become(user(0));
		FAILS(chmod(dir, 0777), EPERM);
		FAILS(chown(dir, user(0), -1), EPERM);
		FAILS(utimensat(AT_FDCWD, dir, (struct timespec[2]){{.tv_sec = 1}, {.tv_sec = 1}}, 0), EPERM);
		EQ(utimensat(AT_FDCWD, dir, NULL, 0), 0);
	}
}

/* ---- stat -------------------------------------------------------------------------------- */

FILE_CASE("15 (file)", stat_shows_an_80_byte_regular_file)
{
	start();
	const char *n = qname("a");
	time_t now = time(NULL);
	make(n, O_RDWR, 1, 8);
	struct stat st = stat_at(at(n));
	EQ(st.st_mode, S_IFREG | 0600);
	EQ(st.st_size, 80);
	EQ(st.st_nlink, 1);
	EQ(st.st_uid, geteuid());
	EQ(st.st_gid, getegid());
	EQ(st.st_blocks, 0);
	EQ(st.st_blksize, 4096);
	EQ(st.st_dev, stat_at(dir).st_dev);
	TRUE(st.st_mtime >= now - 1 && st.st_mtime <= time(NULL));
	EQ(st.st_mtim.tv_nsec, 0);
	EQ(st.st_ctim.tv_nsec, 0);
	EQ(st.st_atim.tv_nsec, 0);
}

FILE_CASE("15 (file)", stat_equals_fstat_of_the_descriptor)
{
	start();
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 1, 8);
	int fd = OK(open(at(n), O_RDWR));
	struct stat a = stat_of(q), b = stat_at(at(n)), c = stat_of(fd), d;
	EQ(memcmp(&a, &b, sizeof a), 0);
	EQ(memcmp(&a, &c, sizeof a), 0);
	int top = OK(open(dir, O_PATH));
	EQ(fstatat(top, n + 1, &d, AT_SYMLINK_NOFOLLOW), 0);
	EQ(memcmp(&a, &d, sizeof a), 0);
	EQ(stat(at(n), &d), 0);
	EQ(memcmp(&a, &d, sizeof a), 0);
}

FILE_CASE("15 (file)", statx_agrees)
{
	start();
	const char *n = queue("a", 0640);
	struct stat st = stat_at(at(n));
	struct statx x;
	EQ(statx(AT_FDCWD, at(n), 0, STATX_BASIC_STATS, &x), 0);
	EQ(x.stx_mode, S_IFREG | 0640);
	EQ(x.stx_ino, st.st_ino);
	EQ(x.stx_size, 80);
	EQ(x.stx_nlink, 1);
	EQ(x.stx_uid, st.st_uid);
	EQ(x.stx_mtime.tv_sec, st.st_mtime);
	EQ(((uint64_t)x.stx_dev_major << 32 | x.stx_dev_minor),
	   ((uint64_t)(st.st_dev >> 8 & 0xfff) << 32 | (st.st_dev & 0xff) | (st.st_dev >> 12 & 0xfff00)));
}

FILE_CASE("15 (file)", queues_have_inodes_of_their_own)
{
	start();
	const char *n = queue("a", 0600), *m = queue("b", 0600);
	struct stat a = stat_at(at(n)), b = stat_at(at(m)), d = stat_at(dir);
	EQ(a.st_dev, b.st_dev);
	TRUE(a.st_ino != b.st_ino);
	TRUE(a.st_ino != d.st_ino && b.st_ino != d.st_ino);
}

FILE_CASE("15 (file)", name_made_anew_is_another_file)
{
	start();
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 1, 8);
	EQ(unlink(at(n)), 0);
	mqd_t r = make(n, O_RDWR, 1, 8);
	TRUE(stat_of(q).st_ino != stat_of(r).st_ino);
	EQ(stat_at(at(n)).st_ino, stat_of(r).st_ino);
	EQ(stat_of(q).st_nlink, 0);
	EQ(stat_of(r).st_nlink, 1);
}

FILE_CASE("15 (file)", stat_needs_no_permission_on_the_queue)
{
	start();
	const char *n = queue("a", 0);
	CHILD {
		become_somebody();
		EQ(stat_at(at(n)).st_mode, S_IFREG);
		EQ(stat_at(at(n)).st_size, 80);
	}
}

FILE_CASE("15 (file)", missing_file_is_missing)
{
	start();
	const char *n = qname("a");
	absent(at(n));
	FAILS(open(at(n), O_RDONLY), ENOENT);
	FAILS(access(at(n), F_OK), ENOENT);
	FAILS(chmod(at(n), 0600), ENOENT);
	FAILS(chown(at(n), -1, -1), ENOENT);
	FAILS(unlink(at(n)), ENOENT);
	FAILS(truncate(at(n), 0), ENOENT);
	FAILS(utimensat(AT_FDCWD, at(n), NULL, 0), ENOENT);
	FAILS(rename(at(n), at("other")), ENOENT);
	FAILS(link(at(n), at("other")), ENOENT);
	FAILS(rmdir(at(n)), ENOENT);
	FAILS(readlink(at(n), (char[9]){0}, 9), ENOENT);
	FAILS(open(path_in(at(n), "x"), O_RDONLY), ENOENT);
}

FILE_CASE("15 (file)", queue_is_no_directory)
{
	start();
	const char *n = queue("a", 0777);
	struct stat st;
	char slash[700];
	snprintf(slash, sizeof slash, "%s/", at(n));
	FAILS(stat(path_in(at(n), "x"), &st), ENOTDIR);
	FAILS(open(path_in(at(n), "x"), O_RDWR | O_CREAT, 0600), ENOTDIR);
	FAILS(open(path_in(at(n), ".."), O_RDONLY), ENOTDIR);
	FAILS(stat(slash, &st), ENOTDIR);
	FAILS(open(slash, O_RDONLY), ENOTDIR);
	FAILS(unlink(slash), ENOTDIR);
	FAILS(open(at(n), O_RDONLY | O_DIRECTORY), ENOTDIR);
	FAILS(rmdir(at(n)), ENOTDIR);
	FAILS(chdir(at(n)), ENOTDIR);
	FAILS(readlink(at(n), slash, sizeof slash), EINVAL);
	TRUE(opendir(at(n)) == NULL);
	TRUE(errno == ENOTDIR);
}

FILE_CASE("15 (statfs)", statfs_tells_the_file_system)
{
	start();
	const char *n = queue("a", 0600);
	struct statfs a, b, c;
	EQ(statfs(dir, &a), 0);
	EQ(a.f_type, 0x19800202);
	EQ(a.f_bsize, 4096);
	EQ(a.f_frsize, 4096);
	EQ(a.f_namelen, 255);
	EQ(a.f_blocks, 0);
	EQ(a.f_bfree, 0);
	EQ(a.f_files, 0);
	EQ(statfs(at(n), &b), 0);
	EQ(b.f_type, 0x19800202);
	EQ(fstatfs(OK(open(at(n), O_RDONLY)), &c), 0);
	EQ(c.f_type, 0x19800202);
	EQ(memcmp(&a.f_fsid, &c.f_fsid, sizeof a.f_fsid), 0);
	EQ(fstatfs(OK(open(dir, O_RDONLY)), &c), 0);
	EQ(c.f_type, 0x19800202);
	struct statvfs v;
	EQ(statvfs(dir, &v), 0);
	EQ(v.f_namemax, 255);
	EQ(v.f_blocks, 0);
	EQ(v.f_flag & (ST_RDONLY | ST_NOSUID | ST_NOEXEC | ST_NODEV), 0);
	EQ(pathconf(dir, _PC_NAME_MAX), 255);
}

/* ---- Open: the descriptor is one of the queue -------------------------------------------- */

FILE_CASE("15 (open)", opened_file_sends_and_receives)
{
	start();
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR | O_NONBLOCK, 2, 8);
	int fd = OK(open(at(n), O_RDWR | O_NONBLOCK));
	put(fd, "one", 1);
	put(q, "two", 2);
	FAILS(mq_send(fd, "x", 1, 0), EAGAIN);
	take(q, "two", 2);
	take(fd, "one", 1);
	char b[8];
	FAILS(mq_receive(fd, b, 8, NULL), EAGAIN);
	FAILS(mq_receive(fd, b, 7, NULL), EMSGSIZE);
	EQ(mq_close(fd), 0);
	FAILS(fcntl(fd, F_GETFD), EBADF);
}

FILE_CASE("15 (open)", opened_file_has_the_queues_attributes)
{
	start();
	const char *n = queue("a", 0600);
	struct mq_attr a;
	int fd = OK(open(at(n), O_RDWR));
	EQ(mq_getattr(fd, &a), 0);
	EQ(a.mq_flags, 0);
	EQ(a.mq_maxmsg, 1);
	EQ(a.mq_msgsize, 8);
	EQ(a.mq_curmsgs, 0);
	EQ(mq_setattr(fd, &(struct mq_attr){.mq_flags = O_NONBLOCK}, NULL), 0);
	TRUE(fcntl(fd, F_GETFL) & O_NONBLOCK);
	fd = OK(open(at(n), O_RDWR | O_NONBLOCK));
	EQ(mq_getattr(fd, &a), 0);
	EQ(a.mq_flags, O_NONBLOCK);
}

FILE_CASE("15 (open)", access_mode_of_the_open_counts)
{
	start();
	const char *n = queue("a", 0600);
	int r = OK(open(at(n), O_RDONLY | O_NONBLOCK)), w = OK(open(at(n), O_WRONLY | O_NONBLOCK));
	char b[64];
	FAILS(mq_send(r, "x", 1, 0), EBADF);
	FAILS(mq_receive(w, b, 8, NULL), EBADF);
	FAILS(read(w, b, sizeof b), EBADF);
	put(w, "x", 0);
	take(r, "x", 0);
	EQ(read(r, b, sizeof b), 60);
	FAILS(write(w, "x", 1), EINVAL);
	FAILS(write(r, "x", 1), EBADF);
}

FILE_CASE("15 (open)", access_mode_three_neither_reads_nor_writes)
{
	start();
	const char *n = queue("a", 0600);
	int fd = OK(open(at(n), 3));
	char b[64];
	struct mq_attr a;
	FAILS(mq_send(fd, "x", 1, 0), EBADF);
	FAILS(mq_receive(fd, b, 8, NULL), EBADF);
	FAILS(read(fd, b, sizeof b), EBADF);
	EQ(mq_getattr(fd, &a), 0);
	EQ(fcntl(fd, F_GETFL) & O_ACCMODE, 3);
}

FILE_CASE("15 (open)", status_flags_of_the_open)
{
	start();
	const char *n = queue("a", 0600);
	EQ(fcntl(OK(open(at(n), O_RDWR)), F_GETFL) & ~O_LARGEFILE & ~0100000, O_RDWR);
	EQ(fcntl(OK(open(at(n), O_RDWR)), F_GETFD), 0);
	EQ(fcntl(OK(open(at(n), O_RDONLY | O_CLOEXEC)), F_GETFD), FD_CLOEXEC);
	EQ(fcntl(OK(open(at(n), O_WRONLY | O_APPEND)), F_GETFL) & ~0100000, O_WRONLY | O_APPEND);
	EQ(fcntl(OK(open(at(n), O_RDWR | O_CREAT | O_NOCTTY, 0600)), F_GETFL) & ~0100000, O_RDWR);
	EQ(fcntl(OK(open(at(n), O_RDWR | O_CLOEXEC)), F_GETFL) & ~0100000, O_RDWR);
	EQ(fcntl(OK(open(at(n), O_RDONLY | O_NOFOLLOW)), F_GETFL) & ~0100000, O_RDONLY | O_NOFOLLOW);
	EQ(fcntl(OK(open(at(n), O_RDWR | O_NOATIME)), F_GETFL) & ~0100000, O_RDWR | O_NOATIME);
	FAILS(open(at(n), O_RDWR | O_DIRECT), EINVAL);
	FAILS(open(at(n), O_RDWR | O_CREAT | O_EXCL, 0600), EEXIST);
}

FILE_CASE("15 (open)", open_shows_the_large_file_bit)
{
	start();
	const char *n = queue("a", 0600);
	EQ(fcntl(OK(open(at(n), O_RDWR)), F_GETFL), O_RDWR | 0100000);
	EQ(fcntl(OK(mq_open(n, O_RDWR)), F_GETFL), O_RDWR);
}

FILE_CASE("15 (open)", lowest_free_number_is_used)
{
	start();
	const char *n = queue("a", 0600);
	int a = OK(open(at(n), O_RDWR)), b = OK(open(at(n), O_RDWR)), c = OK(open(at(n), O_RDWR));
	EQ(b, a + 1);
	EQ(c, a + 2);
	close(b);
	EQ(open(at(n), O_RDWR), b);
	fill_descriptors();
	FAILS(open(at(n), O_RDWR), EMFILE);
	FAILS(creat(at("new"), 0600), EMFILE);
	absent(at("new"));
}

FILE_CASE("15 (open)", path_descriptor_is_no_queue)
{
	start();
	const char *n = queue("a", 0);
	int fd = OK(open(at(n), O_PATH));
	struct mq_attr a;
	FAILS(mq_getattr(fd, &a), EBADF);
	FAILS(mq_send(fd, "x", 1, 0), EBADF);
	EQ(stat_of(fd).st_ino, stat_at(at(n)).st_ino);
	struct pollfd p = {.fd = fd, .events = POLLIN};
	EQ(poll(&p, 1, 0), 1);
	EQ(p.revents, POLLNVAL);
	char link[64];
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	EQ(chmod(link, 0600), 0);
	int q = OK(open(link, O_RDWR));
	EQ(mq_getattr(q, &a), 0);
}

FILE_CASE("15 (open)", polls_as_the_queue_does)
{
	start();
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 2, 8);
	struct pollfd p = {.fd = OK(open(at(n), O_RDONLY)), .events = -1};
	EQ(poll(&p, 1, 0), 1);
	EQ(p.revents, POLLOUT | POLLWRNORM);
	put(q, "x", 0);
	EQ(poll(&p, 1, 0), 1);
	EQ(p.revents, POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM);
	put(q, "x", 0);
	EQ(poll(&p, 1, 0), 1);
	EQ(p.revents, POLLIN | POLLRDNORM);
}

FILE_CASE("15 (open)", a_sleeping_poll_wakes)
{
	start();
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 1, 8);
	pid_t p;
	ASYNC(p) {
		struct pollfd f = {.fd = OK(open(at(n), O_RDONLY)), .events = POLLIN};
		EQ(poll(&f, 1, -1), 1);
		EQ(f.revents, POLLIN);
		take(f.fd, "x", 0);
	}
	await_asleep(p);
	put(q, "x", 0);
	join(p);
}

FILE_CASE("15 (open)", epoll_and_select_take_it)
{
	start();
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 1, 8);
	int fd = OK(open(at(n), O_RDWR)), e = OK(epoll_create1(0));
	struct epoll_event ev = {.events = EPOLLIN};
	EQ(epoll_ctl(e, EPOLL_CTL_ADD, fd, &ev), 0);
	EQ(epoll_wait(e, &ev, 1, 0), 0);
	put(q, "x", 0);
	EQ(epoll_wait(e, &ev, 1, 0), 1);
	EQ(ev.events, EPOLLIN);
	fd_set r, w;
	FD_ZERO(&r);
	FD_ZERO(&w);
	FD_SET(fd, &r);
	FD_SET(fd, &w);
	EQ(select(fd + 1, &r, &w, NULL, &(struct timeval){0}), 1);
	TRUE(FD_ISSET(fd, &r) && !FD_ISSET(fd, &w));
}

FILE_CASE("15 (open)", blocked_receiver_on_an_opened_file_is_served)
{
	start();
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 1, 8);
	pid_t p;
	ASYNC(p) {
		int fd = OK(open(at(n), O_RDONLY));
		take(fd, "hello", 3);
	}
	await_asleep(p);
	put(q, "hello", 3);
	join(p);
}

FILE_CASE("15 (open)", notification_is_asked_for_through_an_opened_file)
{
	start();
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 1, 8);
	int fd = OK(open(at(n), O_RDONLY));
	block(SIGUSR1);
	struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_int = 7};
	EQ(mq_notify(fd, &ev), 0);
	FAILS(mq_notify(q, &ev), EBUSY);
	put(q, "x", 0);
	siginfo_t si;
	TRUE(pending_signal(SIGUSR1, &si));
	EQ(si.si_code, SI_MESGQ);
	EQ(si.si_value.sival_int, 7);
}

FILE_CASE("15 (open)", close_of_an_opened_file_ends_the_own_registration)
{
	start();
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 1, 8);
	struct sigevent ev = {.sigev_notify = SIGEV_NONE};
	EQ(mq_notify(q, &ev), 0);
	int fd = OK(open(at(n), O_RDONLY));
	FAILS(mq_notify(q, &ev), EBUSY);
	close(fd);
	EQ(mq_notify(q, &ev), 0);
	CHILD {
		shows(at(n), text(0, 1, 0, getppid()));
		FAILS(mq_notify(q, &ev), EBUSY);
	}
	FAILS(mq_notify(q, &ev), EBUSY);
	shows(at(n), text(0, 1, 0, getpid()));
	EQ(mq_notify(q, &ev), 0);
}

FILE_CASE("15 (open)", opened_file_outlives_the_name)
{
	start();
	const char *n = queue("a", 0600);
	int fd = OK(open(at(n), O_RDWR));
	EQ(unlink(at(n)), 0);
	put(fd, "x", 0);
	take(fd, "x", 0);
	EQ(stat_of(fd).st_nlink, 0);
	missing(n);
	char b[64];
	EQ(pread(fd, b, sizeof b, 0), 60);
}

FILE_CASE("15 (open)", opened_file_crosses_fork_dup_and_sockets)
{
	start();
	const char *n = queue("a", 0600);
	int fd = OK(open(at(n), O_RDWR | O_NONBLOCK)), s[2];
	EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
	CHILD {
		put(dup(fd), "x", 0);
	}
	take(fd, "x", 0);
	pid_t p;
	ASYNC(p) {
		close(fd);
		put(accept_fd(s[1]), "y", 0);
	}
	pass_fd(s[0], fd);
	join(p);
	take(fd, "y", 0);
}

HELPER(take_from)
{
	(void)argc;
	take(atoi(argv[0]), "x", 0);
	return 0;
}
FILE_CASE("15 (open)", opened_file_survives_exec)
{
	start();
	const char *n = queue("a", 0600);
	int fd = OK(open(at(n), O_RDWR));
	put(fd, "x", 0);
	CHILD {
		exec_helper("take_from", number(fd), NULL);
	}
	EQ(curmsgs(fd), 0);
}

FILE_CASE("15 (open)", streams_read_it)
{
	start();
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 1, 8);
	put(q, "12345", 0);
	char b[128];
	FILE *f = fopen(at(n), "r");
	TRUE(f != NULL);
	TRUE(fgets(b, sizeof b, f) != NULL);
	TRUE(!strcmp(b, text(5, 0, 0, 0)));
	TRUE(fgets(b, sizeof b, f) == NULL);
	TRUE(feof(f));
	fclose(f);
	f = fopen(at(n), "r+");
	TRUE(f != NULL);
	fclose(f);
}

FILE_CASE("15 (open)", link_in_proc_is_the_full_path)
{
	start();
	const char *n = queue("a", 0600);
	char link[64], b[600];
	int fd = OK(open(at(n), O_RDWR));
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t len = OK(readlink(link, b, sizeof b - 1));
	b[len] = 0;
	if (strcmp(b, at(n)))
		FAIL("expected %s, got %s", at(n), b);
	EQ(unlink(at(n)), 0);
	len = OK(readlink(link, b, sizeof b - 1));
	b[len] = 0;
	if (strncmp(b, at(n), strlen(at(n))) || strcmp(b + strlen(at(n)), " (deleted)"))
		FAIL("expected %s (deleted), got %s", at(n), b);
}

FILE_CASE("15 (open)", opened_again_through_proc)
{
	start();
	const char *n = queue("a", 0600);
	char link[64];
	int fd = OK(open(at(n), O_RDONLY));
	EQ(unlink(at(n)), 0);
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	int again = OK(open(link, O_WRONLY));
	put(again, "x", 0);
	take(fd, "x", 0);
}

/* ---- The text ---------------------------------------------------------------------------- */

FILE_CASE("15 (text)", text_of_an_empty_queue)
{
	start();
	shows(at(queue("a", 0400)), text(0, 0, 0, 0));
}

FILE_CASE("15 (text)", text_counts_bytes_queued)
{
	start();
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 4, 8);
	put(q, "abc", 0);
	shows(at(n), text(3, 0, 0, 0));
	put(q, "", 9);
	shows(at(n), text(3, 0, 0, 0));
	put(q, "12345678", 9);
	shows(at(n), text(11, 0, 0, 0));
	take(q, "", 9);
	take(q, "12345678", 9);
	shows(at(n), text(3, 0, 0, 0));
	take(q, "abc", 0);
	shows(at(n), text(0, 0, 0, 0));
}

FILE_CASE("15 (text)", text_is_current_at_each_read_of_an_open_file)
{
	start();
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 4, 8);
	int fd = OK(open(at(n), O_RDONLY));
	char b[128];
	for (int i = 0; i < 4; i++) {
		EQ(pread(fd, b, sizeof b, 0), 60);
		SAME(b, text(2 * i, 0, 0, 0), 60);
		EQ(lseek(fd, 0, SEEK_SET), 0);
		EQ(read(fd, b, sizeof b), 60);
		SAME(b, text(2 * i, 0, 0, 0), 60);
		EQ(read(fd, b, sizeof b), 0);
		put(q, "ab", 0);
	}
}

FILE_CASE("15 (text)", text_is_read_in_pieces)
{
	start();
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 4, 8);
	int fd = OK(open(at(n), O_RDONLY));
	char b[128];
	EQ(read(fd, b, 6), 6);
	SAME(b, "QSIZE:", 6);
	put(q, "abcd", 0);
	EQ(read(fd, b, 1), 1);
	SAME(b, "4", 1);
	EQ(lseek(fd, 0, SEEK_CUR), 7);
	EQ(pread(fd, b, 100, 17), 43);
	SAME(b, "NOTIFY:0", 8);
	EQ(pread(fd, b, 100, 59), 1);
	SAME(b, "\n", 1);
	EQ(pread(fd, b, 100, 60), 0);
	EQ(pread(fd, b, 100, 80), 0);
	EQ(lseek(fd, 0, SEEK_END), 80);
	EQ(readv(fd, (struct iovec[2]){{b, 3}, {b + 3, 100}}, 2), 0);
}

FILE_CASE("15 (text)", vectored_read_of_the_text)
{
	start();
	const char *n = queue("a", 0400);
	int fd = OK(open(at(n), O_RDONLY));
	char b[128];
	EQ(readv(fd, (struct iovec[2]){{b, 3}, {b + 3, 100}}, 2), 60);
	SAME(b, text(0, 0, 0, 0), 60);
}

FILE_CASE("15 (text)", text_shows_who_is_notified_and_how)
{
	start();
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 1, 8);
	CHILD {
		struct sigevent s = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2};
		EQ(mq_notify(q, &s), 0);
		mark(0);
		pid_t me = getpid();
		CHILD {
			shows(at(n), text(0, 0, SIGUSR2, me));
		}
		EQ(mq_notify(q, NULL), 0);
		s.sigev_notify = SIGEV_NONE;
		EQ(mq_notify(q, &s), 0);
		CHILD {
			shows(at(n), text(0, 1, 0, me));
			put(q, "x", 0);
			shows(at(n), text(1, 0, 0, 0));
			take(q, "x", 0);
		}
		EQ(mq_notify(q, &s), 0);
	}
	shows(at(n), text(0, 0, 0, 0));
}

FILE_CASE("15 (text)", writes_are_refused)
{
	start();
	const char *n = queue("a", 0600);
	int fd = OK(open(at(n), O_RDWR | O_APPEND));
	FAILS(write(fd, "x", 1), EINVAL);
	FAILS(write(fd, "", 0), EINVAL);
	FAILS(pwrite(fd, "x", 1, 0), EINVAL);
	FAILS(writev(fd, &(struct iovec){"x", 1}, 1), EINVAL);
	EQ(curmsgs(fd), 0);
	FILE *f = fopen(at(n), "w");
	TRUE(f != NULL);
	fputs("x", f);
	EQ(fclose(f), EOF);
	TRUE(errno == EINVAL);
}

FILE_CASE("15 (text)", shortcuts_of_copying_are_refused)
{
	start();
	const char *n = queue("a", 0600), *other = directory("other");
	int fd = OK(open(at(n), O_RDWR)), out = OK(open(path_in(other, "f"), O_RDWR | O_CREAT, 0600)), p[2];
	EQ(pipe(p), 0);
	FAILS(sendfile(out, fd, NULL, 100), EINVAL);
	FAILS(splice(fd, NULL, p[1], NULL, 100, 0), EINVAL);
	EQ(write(p[1], "x", 1), 1);
	FAILS(splice(p[0], NULL, fd, NULL, 1, 0), EINVAL);
	FAILS(mmap(NULL, 80, PROT_READ, MAP_PRIVATE, fd, 0) == MAP_FAILED ? -1 : 0, ENODEV);
	FAILS(fsync(fd), EINVAL);
	FAILS(copy_file_range(fd, NULL, out, NULL, 100, 0), EXDEV);
	FAILS(copy_file_range(fd, NULL, OK(creat(at("b"), 0600)), NULL, 100, 0), EINVAL);
	EQ(unlink(at("b")), 0);
}

/* ---- Creating ---------------------------------------------------------------------------- */

/* These ask what a queue with default attributes costs and has: a user of one's own pays. */
static void start_with_defaults(void)
{
	if (geteuid() == 0)
		OK(setresuid(user(0), -1, -1));
	if (unshare(CLONE_NEWIPC))
		TRUE(errno == EPERM);
	dir = mounted_at();
}
#define has_attributes(fd, maxmsg, msgsize)                                                      \
	do {                                                                                     \
		struct mq_attr ha_a;                                                             \
		EQ(mq_getattr(fd, &ha_a), 0);                                                    \
		EQ(ha_a.mq_maxmsg, maxmsg);                                                      \
		EQ(ha_a.mq_msgsize, msgsize);                                                    \
		EQ(ha_a.mq_curmsgs, 0);                                                          \
	} while (0)

FILE_CASE("15 (creation)", creat_makes_a_queue_with_default_attributes)
{
	start_with_defaults();
	const char *n = qname("a");
	int fd = OK(creat(at(n), 0640));
	has_attributes(fd, 10, 8192);
	EQ(stat_of(fd).st_mode, S_IFREG | 0640);
	EQ(stat_of(fd).st_size, 80);
	mqd_t q = OK(mq_open(n, O_RDWR));
	EQ(stat_of(q).st_ino, stat_of(fd).st_ino);
	put(fd, "x", 0);
	take(q, "x", 0);
	char b[8192];
	FAILS(mq_receive(fd, b, sizeof b, NULL), EBADF);
}

FILE_CASE("15 (creation)", open_with_create_makes_a_queue)
{
	start();
	const char *n[3] = {qname("a"), qname("b"), qname("c")};
	OK(open(at(n[0]), O_RDWR | O_CREAT, 0600));
	OK(open(at(n[1]), O_RDONLY | O_CREAT | O_EXCL, 0600));
	OK(open(at(n[2]), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0600));
	for (int i = 0; i < 3; i++)
		present(n[i]);
	int fd = OK(open(at(n[0]), O_RDWR));
	put(fd, "x", 0);
	EQ(close(fd), 0);
	take(OK(mq_open(n[0], O_RDWR)), "x", 0);
}

FILE_CASE("15 (creation)", mknod_makes_a_queue)
{
	start();
	const char *n = qname("a"), *m = qname("b"), *l = qname("c");
	EQ(mknod(at(n), S_IFREG | 0640, 0), 0);
	EQ(mknod(at(m), 0604, 0), 0);
	EQ(mknodat(OK(open(dir, O_PATH)), l + 1, S_IFREG | 0600, 5), 0);
	present(n);
	present(m);
	present(l);
	EQ(stat_at(at(n)).st_mode, S_IFREG | 0640);
	EQ(stat_at(at(m)).st_mode, S_IFREG | 0604);
	EQ(stat_at(at(l)).st_rdev, 0);
	FAILS(mknod(at(n), S_IFREG | 0600, 0), EEXIST);
}

ROOT_FILE_CASE("15 (creation)", defaults_are_those_of_the_namespace_now)
{
	EQ(unshare(CLONE_NEWIPC), 0);
	write_limit("msg_default", "3");
	write_limit("msgsize_default", "150");
	dir = mounted_at();
	has_attributes(OK(creat(at("a"), 0600)), 3, 150);
	write_limit("msg_default", "5");
	has_attributes(OK(creat(at("b"), 0600)), 5, 150);
	write_limit("msg_max", "2");
	write_limit("msgsize_max", "128");
	has_attributes(OK(creat(at("c"), 0600)), 2, 128);
}

FILE_CASE("15 (creation)", umask_and_mode_bits)
{
	start();
	static const struct {
		mode_t mask, asked, got;
	} t[] = {{022, 0666, 0644}, {077, 0777, 0700}, {0, 0, 0}, {022, 07777, 07755}, {0, 0123456, 03456}};
	for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
		const char *n = qname(number(i));
		umask(t[i].mask);
		OK(open(at(n), O_RDWR | O_CREAT | O_EXCL, t[i].asked));
		EQ(stat_at(at(n)).st_mode, S_IFREG | t[i].got);
	}
}

FILE_CASE("15 (creation)", creator_opens_whatever_the_mode)
{
	start();
	become_somebody();
	const char *n = qname("a");
	int fd = OK(open(at(n), O_RDWR | O_CREAT, 0));
	put(fd, "x", 0);
	FAILS(open(at(n), O_RDONLY), EACCES);
	FAILS(open(at(n), O_RDONLY | O_CREAT, 0600), EACCES);
}

ROOT_FILE_CASE("15 (creation)", owner_is_the_creator)
{
	start();
	const char *n = qname("a"), *m = qname("b");
	CHILD {
		become(user(0));
		close(OK(creat(at(n), 0600)));
	}
	EQ(stat_at(at(n)).st_uid, user(0));
	EQ(stat_at(at(n)).st_gid, user(0));
	setfsuid(user(1));
	setfsgid(user(2));
	close(OK(creat(at(m), 0600)));
	EQ(stat_at(at(m)).st_uid, user(1));
	EQ(stat_at(at(m)).st_gid, user(2));
}

FILE_CASE("15 (creation)", existing_is_opened)
{
	start();
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 3, 16);
	put(q, "x", 0);
	int fd = OK(open(at(n), O_RDWR | O_CREAT, 0777));
	EQ(curmsgs(fd), 1);
	EQ(stat_of(fd).st_mode, S_IFREG | 0600);
	FAILS(open(at(n), O_RDWR | O_CREAT | O_EXCL, 0600), EEXIST);
	FAILS(open(at(n), O_RDONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600), EEXIST);
}

ROOT_FILE_CASE("15 (creation)", queues_max_counts_files_made)
{
	start();
	write_limit("queues_max", "2");
	int fd = OK(creat(at("a"), 0600));
	EQ(mknod(at("b"), S_IFREG | 0600, 0), 0);
	FAILS(creat(at("c"), 0600), ENOSPC);
	FAILS(mknod(at("c"), S_IFREG | 0600, 0), ENOSPC);
	FAILS(mq_open("/c", O_RDWR | O_CREAT, 0600, ATTR(1, 1)), ENOSPC);
	absent(at("c"));
	OK(open(at("a"), O_RDWR | O_CREAT, 0600));
	EQ(unlink(at("b")), 0);
	OK(mq_open("/c", O_RDWR | O_CREAT, 0600, ATTR(1, 1)));
	EQ(unlink(at("a")), 0);
	FAILS(creat(at("d"), 0600), ENOSPC);
	close(fd);
	FAILS(creat(at("d"), 0600), ENOSPC); /* opened twice */
	EQ(stat_at(dir).st_size, 60);
}

FILE_CASE("15 (creation)", bytes_limit_counts_files_made)
{
	start_with_defaults();
	const char *n = qname("a"), *m = qname("b");
	OK(setrlimit(RLIMIT_MSGQUEUE, &(struct rlimit){82879, 82880}));
	FAILS(creat(at(n), 0600), EMFILE);
	FAILS(mknod(at(n), S_IFREG | 0600, 0), EMFILE);
	absent(at(n));
	missing(n);
	OK(setrlimit(RLIMIT_MSGQUEUE, &(struct rlimit){82880, 82880}));
	EQ(mknod(at(n), S_IFREG | 0600, 0), 0);
	FAILS(creat(at(m), 0600), EMFILE);
	FAILS(mq_open(m, O_RDWR | O_CREAT, 0600, ATTR(1, 1)), EMFILE);
	EQ(unlink(at(n)), 0);
	make(m, O_RDWR, 1, 1);
}

FILE_CASE("15 (creation)", direct_creation_fails_but_creates)
{
	start();
	const char *n = qname("a");
	FAILS(open(at(n), O_RDWR | O_CREAT | O_DIRECT, 0600), EINVAL);
	EQ(exists(at(n)), 1);
	present(n);
}

FILE_CASE("15 (creation)", create_with_directory_flag_is_refused)
{
	start();
	const char *n = qname("a");
	FAILS(open(at(n), O_RDONLY | O_CREAT | O_DIRECTORY, 0600), EINVAL);
	absent(at(n));
	char slash[700];
	snprintf(slash, sizeof slash, "%s/", at(n));
	FAILS(open(slash, O_RDWR | O_CREAT, 0600), EISDIR);
	absent(at(n));
}

FILE_CASE("15 (creation)", creation_with_access_mode_three)
{
	start();
	const char *n = qname("a");
	int fd = OK(open(at(n), O_CREAT | 3, 0600));
	present(n);
	FAILS(mq_send(fd, "x", 1, 0), EBADF);
}

FILE_CASE("15 (creation)", fopen_for_writing_makes_a_queue)
{
	start();
	const char *n = qname("a");
	FILE *f = fopen(at(n), "w");
	TRUE(f != NULL);
	EQ(fclose(f), 0);
	present(n);
	TRUE(fopen(at(n), "wx") == NULL);
	TRUE(errno == EEXIST);
}

FILE_CASE("15 (creation)", unnamed_files_are_refused)
{
	start();
	FAILS(open(dir, O_RDWR | O_TMPFILE, 0600), EOPNOTSUPP);
	char t[600];
	snprintf(t, sizeof t, "%s/conf-XXXXXX", dir);
	int fd = OK(mkstemp(t));
	struct mq_attr a;
	EQ(mq_getattr(fd, &a), 0);
	EQ(unlink(t), 0);
}

FILE_CASE("15 (creation)", racing_creators_make_one)
{
	start();
	const char *n = qname("a");
	for (int i = 0; i < 50; i++) {
		pid_t p;
		ASYNC(p) {
			mark(1);
			await_marks(0, i + 1);
			int fd = open(at(n), O_RDWR | O_CREAT | O_EXCL, 0600);
			if (fd >= 0)
				atomic_fetch_add(&shared->value[0], 1);
			else
				TRUE(errno == EEXIST);
		}
		await_marks(1, i + 1);
		mark(0);
		mqd_t q = mq_open(n, O_RDWR | O_CREAT | O_EXCL, 0600, ATTR(1, 1));
		if (q >= 0)
			atomic_fetch_add(&shared->value[0], 1);
		else
			TRUE(errno == EEXIST);
		join(p);
		EQ(shared->value[0], i + 1);
		if (q >= 0)
			mq_close(q);
		EQ(unlink(at(n)), 0);
	}
}

/* ---- Truncating -------------------------------------------------------------------------- */

FILE_CASE("15 (O_TRUNC)", truncating_open_changes_the_size_only)
{
	start();
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 2, 8);
	put(q, "abc", 0);
	int fd = OK(open(at(n), O_RDWR | O_TRUNC));
	EQ(stat_at(at(n)).st_size, 0);
	EQ(stat_of(q).st_size, 0);
	EQ(curmsgs(fd), 1);
	EQ(stat_at(at(n)).st_size, 0);
	char b[64];
	EQ(pread(q, b, 64, 0), 60);
	SAME(b, text(3, 0, 0, 0), 60);
	put(q, "abc", 0);
	EQ(stat_of(q).st_size, 0);
}

FILE_CASE("15 (O_TRUNC)", creat_of_an_existing_queue_sets_size_zero)
{
	start();
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 2, 8);
	put(q, "abc", 0);
	int fd = OK(creat(at(n), 0644));
	EQ(stat_of(fd).st_size, 0);
	EQ(stat_of(q).st_mode, S_IFREG | 0600);
	take(q, "abc", 0);
}

FILE_CASE("15 (truncate)", truncate_changes_the_size_only)
{
	start();
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 2, 8);
	put(q, "abc", 0);
	static const off_t size[] = {0, 5, 80, 81, 1 << 20, INT32_MAX};
	for (size_t i = 0; i < sizeof size / sizeof *size; i++) {
		EQ(truncate(at(n), size[i]), 0);
		EQ(stat_of(q).st_size, size[i]);
		EQ(stat_at(at(n)).st_size, size[i]);
		EQ(stat_at(at(n)).st_blocks, 0);
	}
	int fd = OK(open(at(n), O_WRONLY));
	EQ(ftruncate(fd, 7), 0);
	EQ(stat_at(at(n)).st_size, 7);
	EQ(lseek(fd, 0, SEEK_END), 7);
	FAILS(truncate(at(n), -1), EINVAL);
	FAILS(ftruncate(OK(open(at(n), O_RDONLY)), 7), EINVAL);
	shows(at(n), text(3, 0, 0, 0));
	take(q, "abc", 0);
}

FILE_CASE("15 (truncate)", truncate_ends_at_two_gigabytes)
{
	start();
	const char *n = queue("a", 0600);
	FAILS(truncate(at(n), INT32_MAX + 1L), EFBIG);
	FAILS(truncate(at(n), LONG_MAX), EFBIG);
	int fd = OK(open(at(n), O_RDWR));
	FAILS(ftruncate(fd, INT32_MAX + 1L), EFBIG);
	EQ(stat_at(at(n)).st_size, 80);
	EQ(lseek(fd, INT32_MAX + 1L, SEEK_SET), INT32_MAX + 1L);
	EQ(lseek(fd, LONG_MAX, SEEK_SET), LONG_MAX);
}

ROOT_FILE_CASE("15 (truncate)", truncate_needs_permission_to_write)
{
	start();
	const char *n = queue("a", 0644);
	CHILD {
		become(user(0));
		FAILS(truncate(at(n), 0), EACCES);
		FAILS(open(at(n), O_RDONLY | O_TRUNC), EACCES);
		FAILS(creat(at(n), 0666), EACCES);
	}
	EQ(stat_at(at(n)).st_size, 80);
	EQ(close(OK(open(at(n), O_RDONLY | O_TRUNC))), 0);
	EQ(stat_at(at(n)).st_size, 0);
}

FILE_CASE("15 (truncate)", truncation_sets_times_but_by_path)
{
	start();
	const char *n = queue("a", 0600);
	int fd = OK(open(at(n), O_RDWR));
	struct timespec old[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
	time_t now = time(NULL);
	for (int i = 0; i < 4; i++) {
		EQ(utimensat(AT_FDCWD, at(n), old, 0), 0);
		if (i == 0)
			EQ(truncate(at(n), 5), 0);
		else if (i == 1)
			EQ(ftruncate(fd, 5), 0);
		else if (i == 2)
			close(OK(open(at(n), O_RDWR | O_TRUNC)));
		else
			close(OK(creat(at(n), 0600)));
		struct stat st = stat_at(at(n));
		EQ(st.st_mtime >= now, i > 0);
		EQ(st.st_atime, 1000);
	}
}

/* ---- Removing ---------------------------------------------------------------------------- */

FILE_CASE("15 (unlink)", unlink_is_mq_unlink)
{
	start();
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 1, 8);
	EQ(unlink(at(n)), 0);
	missing(n);
	FAILS(mq_unlink(n), ENOENT);
	FAILS(unlink(at(n)), ENOENT);
	put(q, "x", 0);
	take(q, "x", 0);
	EQ(stat_of(q).st_nlink, 0);
	mqd_t r = make(n, O_RDWR | O_NONBLOCK, 1, 8);
	put(q, "x", 0);
	FAILS(mq_receive(r, (char[8]){0}, 8, NULL), EAGAIN);
}

FILE_CASE("15 (unlink)", mq_unlink_removes_the_file)
{
	start();
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 1, 8);
	EQ(mq_unlink(n), 0);
	absent(at(n));
	EQ(stat_of(q).st_nlink, 0);
}

FILE_CASE("15 (unlink)", remove_and_unlinkat_remove)
{
	start();
	const char *n = queue("a", 0600), *m = queue("b", 0600);
	int top = OK(open(dir, O_RDONLY));
	EQ(remove(at(n)), 0);
	FAILS(unlinkat(top, m + 1, AT_REMOVEDIR), ENOTDIR);
	EQ(unlinkat(top, m + 1, 0), 0);
	FAILS(remove(at(n)), ENOENT);
	FAILS(unlinkat(top, m + 1, AT_REMOVEDIR), ENOENT);
	missing(n);
	missing(m);
}

FILE_CASE("15 (unlink)", bytes_come_back_with_the_last_close)
{
	start_with_defaults();
	const char *n = qname("a"), *m = qname("b");
	OK(setrlimit(RLIMIT_MSGQUEUE, &(struct rlimit){82880, 82880}));
	int fd = OK(creat(at(n), 0600));
	EQ(unlink(at(n)), 0);
	FAILS(creat(at(m), 0600), EMFILE);
	close(fd);
	OK(creat(at(m), 0600));
}

ROOT_FILE_CASE("15 (unlink)", only_the_owner_unlinks)
{
	start();
	const char *n = queue("a", 0777), *m = qname("b");
	CHILD {
		become(user(0));
		FAILS(unlink(at(n)), EPERM);
		FAILS(remove(at(n)), EPERM);
		FAILS(mq_unlink(n), EACCES);
		close(OK(creat(at(m), 0)));
		EQ(unlink(at(m)), 0);
		close(OK(creat(at(m), 0)));
	}
	CHILD {
		become(user(1));
		FAILS(unlink(at(m)), EPERM);
	}
	EQ(chown(at(n), user(1), -1), 0);
	CHILD {
		become(user(1));
		EQ(unlink(at(n)), 0);
	}
	EQ(unlink(at(m)), 0);
}

/* ---- What cannot be done ----------------------------------------------------------------- */

FILE_CASE("15 (refused)", other_kinds_of_file_are_refused)
{
	start();
	int top = OK(open(dir, O_PATH));
	FAILS(mkdir(at("new"), 0700), EPERM);
	FAILS(mkdirat(top, "new", 0700), EPERM);
	FAILS(symlink("x", at("new")), EPERM);
	FAILS(symlinkat("x", top, "new"), EPERM);
	FAILS(mkfifo(at("new"), 0600), EPERM);
	FAILS(mknod(at("new"), S_IFIFO | 0600, 0), EPERM);
	FAILS(mknod(at("new"), S_IFSOCK | 0600, 0), EPERM);
	FAILS(mknod(at("new"), S_IFDIR | 0600, 0), EPERM);
	FAILS(mknod(at("new"), S_IFLNK | 0600, 0), EINVAL);
	absent(at("new"));
	EQ(count_listed(), 0);
}

ROOT_FILE_CASE("15 (refused)", devices_are_refused)
{
	start();
	FAILS(mknod(at("new"), S_IFCHR | 0600, 0x103), EPERM);
	FAILS(mknod(at("new"), S_IFBLK | 0600, 0x103), EPERM);
	CHILD {
		become(user(0));
		FAILS(mknod(at("new"), S_IFCHR | 0600, 0x103), EPERM);
	}
	absent(at("new"));
}

FILE_CASE("15 (refused)", a_socket_is_not_bound_there)
{
	start();
	struct sockaddr_storage a = {.ss_family = AF_UNIX};
	const char *p = at("s");
	memcpy((char *)&a + 2, p, strlen(p) + 1);
	FAILS(bind(OK(socket(AF_UNIX, SOCK_STREAM, 0)), (struct sockaddr *)&a, 2 + strlen(p) + 1), EPERM);
	p = at(queue("a", 0600));
	memcpy((char *)&a + 2, p, strlen(p) + 1);
	FAILS(bind(OK(socket(AF_UNIX, SOCK_STREAM, 0)), (struct sockaddr *)&a, 2 + strlen(p) + 1), EADDRINUSE);
	FAILS(connect(OK(socket(AF_UNIX, SOCK_STREAM, 0)), (struct sockaddr *)&a, 2 + strlen(p) + 1), ECONNREFUSED);
}

FILE_CASE("15 (refused)", existing_name_comes_before_refusal)
{
	start();
	const char *n = queue("a", 0600), *m = queue("b", 0600);
	FAILS(mkdir(at(n), 0700), EEXIST);
	FAILS(symlink("x", at(n)), EEXIST);
	FAILS(mkfifo(at(n), 0600), EEXIST);
	FAILS(mknod(at(n), S_IFREG | 0600, 0), EEXIST);
	FAILS(link(at(m), at(n)), EEXIST);
	FAILS(link(at(m), at(m)), EEXIST);
	FAILS(link(at("missing"), at(n)), ENOENT);
}

FILE_CASE("15 (refused)", hard_links_are_refused)
{
	start();
	const char *n = queue("a", 0600);
	FAILS(link(at(n), at("new")), EPERM);
	FAILS(linkat(AT_FDCWD, at(n), AT_FDCWD, at("new"), AT_SYMLINK_FOLLOW), EPERM);
	absent(at("new"));
	EQ(stat_at(at(n)).st_nlink, 1);
}

FILE_CASE("15 (refused)", a_descriptor_is_not_linked)
{
	start();
	const char *n = queue("a", 0600);
	int fd = OK(open(at(n), O_RDWR));
	char link[64];
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	FAILS(linkat(AT_FDCWD, link, AT_FDCWD, at("new"), AT_SYMLINK_FOLLOW), EPERM);
	absent(at("new"));
}

FILE_CASE("15 (refused)", links_do_not_leave_or_enter)
{
	start();
	const char *n = queue("a", 0600), *other = directory("other");
	close(OK(creat(path_in(other, "f"), 0600)));
	FAILS(link(at(n), path_in(other, "new")), EXDEV);
	FAILS(link(path_in(other, "f"), at("new")), EXDEV);
}

FILE_CASE("15 (refused)", renaming_is_refused)
{
	start();
	const char *n = queue("a", 0600), *m = queue("b", 0600);
	FAILS(rename(at(n), at("new")), EPERM);
	FAILS(rename(at(n), at(m)), EPERM);
	int top = OK(open(dir, O_PATH));
	FAILS(renameat(top, n + 1, top, "new"), EPERM);
	FAILS(renameat2(top, n + 1, top, "new", RENAME_NOREPLACE), EPERM);
	FAILS(renameat2(top, n + 1, top, m + 1, RENAME_NOREPLACE), EEXIST);
	FAILS(renameat2(top, n + 1, top, m + 1, RENAME_EXCHANGE), EPERM);
	FAILS(renameat2(top, n + 1, top, "new", RENAME_EXCHANGE), ENOENT);
	FAILS(renameat2(top, n + 1, top, "new", RENAME_WHITEOUT), EPERM);
	FAILS(renameat2(top, n + 1, top, m + 1, RENAME_EXCHANGE | RENAME_NOREPLACE), EINVAL);
	FAILS(renameat2(top, n + 1, top, "new", 1 << 20), EINVAL);
	present(n);
	present(m);
	absent(at("new"));
}

FILE_CASE("15 (refused)", renaming_onto_itself_does_nothing)
{
	start();
	const char *n = queue("a", 0600);
	EQ(rename(at(n), at(n)), 0);
	present(n);
}

FILE_CASE("15 (refused)", renaming_does_not_leave_or_enter)
{
	start();
	const char *n = queue("a", 0600), *other = directory("other");
	close(OK(creat(path_in(other, "f"), 0600)));
	EQ(mkdir(path_in(other, "d"), 0700), 0);
	FAILS(rename(at(n), path_in(other, "new")), EXDEV);
	FAILS(rename(at(n), path_in(other, "f")), EXDEV);
	FAILS(rename(path_in(other, "f"), at("new")), EXDEV);
	FAILS(rename(path_in(other, "f"), at(n)), EXDEV);
	FAILS(rename(path_in(other, "d"), at("new")), EXDEV);
	FAILS(rename(at("missing"), path_in(other, "new")), EXDEV);
	FAILS(rename(path_in(other, "missing"), at("new")), EXDEV);
	present(n);
	EQ(exists(path_in(other, "f")), 1);
}

FILE_CASE("15 (refused)", rename_of_dots)
{
	start();
	FAILS(rename(at("."), at("new")), EBUSY);
	FAILS(rename(at(".."), at("new")), EBUSY);
}

FILE_CASE("15 (refused)", extended_attributes_are_refused)
{
	start();
	const char *n = queue("a", 0600);
	char b[64];
	FAILS(setxattr(at(n), "user.x", "v", 1, 0), EOPNOTSUPP);
	FAILS(getxattr(at(n), "user.x", b, sizeof b), EOPNOTSUPP);
	FAILS(removexattr(at(n), "user.x"), EOPNOTSUPP);
	EQ(listxattr(at(n), b, sizeof b), 0);
	FAILS(setxattr(dir, "user.x", "v", 1, 0), EOPNOTSUPP);
	EQ(listxattr(dir, b, sizeof b), 0);
	FAILS(getxattr(at(n), "system.posix_acl_access", b, sizeof b), EOPNOTSUPP);
	FAILS(getxattr(at("missing"), "user.x", b, sizeof b), ENOENT);
	int fd = OK(open(at(n), O_RDWR));
	FAILS(fsetxattr(fd, "user.x", "v", 1, 0), EOPNOTSUPP);
	EQ(flistxattr(fd, b, sizeof b), 0);
}

FILE_CASE("15 (noexec)", queues_are_not_executable)
{
	start();
	const char *n = queue("a", 0777);
	FAILS(access(at(n), X_OK), EACCES);
	FAILS(faccessat(AT_FDCWD, at(n), X_OK, AT_EACCESS), EACCES);
	char *const argv[] = {"x", NULL};
	FAILS(execv(at(n), argv), EACCES);
	FAILS(execvp(at(n), argv), EACCES);
	int fd = OK(open(at(n), O_RDONLY));
	FAILS(fexecve(fd, argv, environ), EACCES);
	FAILS(execv(dir, argv), EACCES);
	FAILS(mmap(NULL, 80, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0) == MAP_FAILED ? -1 : 0, EPERM);
}

/* ---- Permissions ------------------------------------------------------------------------- */

FILE_CASE("15 (permission)", access_tells_what_open_would)
{
	start();
	become_somebody();
	static const struct {
		mode_t mode;
		int r, w;
	} t[] = {{0600, 1, 1}, {0400, 1, 0}, {0200, 0, 1}, {0, 0, 0}, {0066, 0, 0}};
	for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
		const char *p = at(queue(number(i), t[i].mode));
		EQ(access(p, F_OK), 0);
		EQ(access(p, R_OK) == 0, t[i].r);
		EQ(access(p, W_OK) == 0, t[i].w);
		EQ(access(p, R_OK | W_OK) == 0, t[i].r & t[i].w);
		EQ(faccessat(AT_FDCWD, p, R_OK, AT_EACCESS) == 0, t[i].r);
		EQ(open(p, O_RDONLY) >= 0, t[i].r);
		EQ(open(p, O_WRONLY) >= 0, t[i].w);
		EQ(open(p, O_RDWR) >= 0, t[i].r & t[i].w);
		EQ(open(p, 3) >= 0, t[i].r & t[i].w);
		if (!t[i].w)
			FAILS(open(p, O_WRONLY), EACCES);
	}
}

ROOT_FILE_CASE("15 (permission)", the_first_class_that_fits_counts)
{
	start();
	const char *n = queue("a", 0600);
	EQ(chown(at(n), user(0), user(1)), 0);
	static const struct {
		mode_t mode;
		int who, r, w;
	} t[] = {
		{0066, 0, 0, 0}, {0606, 1, 0, 0}, {0660, 2, 0, 0}, {0400, 0, 1, 0},
		{0020, 1, 0, 1}, {0004, 2, 1, 0}, {0060, 1, 1, 1}, {0006, 2, 1, 1},
	};
	for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
		EQ(chmod(at(n), t[i].mode), 0);
		CHILD {
			gid_t g = user(1);
			OK(setgroups(t[i].who == 1, &g));
			OK(setresgid(user(5), user(5), user(5)));
			uid_t u = user(t[i].who == 0 ? 0 : 3);
			OK(setresuid(u, u, u));
			int fd = open(at(n), O_RDONLY);
			EQ(fd >= 0, t[i].r);
			EQ(open(at(n), O_WRONLY) >= 0, t[i].w);
			EQ(mq_open(n, O_RDONLY) >= 0, t[i].r);
			EQ(access(at(n), W_OK) == 0, t[i].w);
		}
	}
}

ROOT_FILE_CASE("15 (permission)", root_opens_everything)
{
	start();
	const char *n = qname("a");
	CHILD {
		become(user(0));
		close(OK(creat(at(n), 0)));
	}
	OK(open(at(n), O_RDWR));
	EQ(access(at(n), R_OK | W_OK), 0);
	EQ(chmod(at(n), 0604), 0);
	EQ(unlink(at(n)), 0);
}

FILE_CASE("15 (permission)", chmod_by_path_governs_mq_open)
{
	start();
	become_somebody();
	const char *n = queue("a", 0600);
	mqd_t q = OK(mq_open(n, O_RDWR));
	EQ(chmod(at(n), 0), 0);
	EQ(stat_of(q).st_mode, S_IFREG);
	FAILS(mq_open(n, O_RDWR), EACCES);
	FAILS(mq_open(n, O_RDONLY), EACCES);
	put(q, "x", 0);
	take(q, "x", 0);
	EQ(chmod(at(n), 0400), 0);
	OK(mq_open(n, O_RDONLY));
	FAILS(mq_open(n, O_WRONLY), EACCES);
	EQ(fchmod(q, 0200), 0);
	EQ(stat_at(at(n)).st_mode, S_IFREG | 0200);
	FAILS(open(at(n), O_RDONLY), EACCES);
	OK(open(at(n), O_WRONLY));
	EQ(fchmodat(OK(open(dir, O_PATH)), n + 1, 0640, 0), 0);
	EQ(stat_of(q).st_mode, S_IFREG | 0640);
}

FILE_CASE("15 (permission)", chmod_keeps_all_twelve_bits)
{
	start();
	const char *n = queue("a", 0600);
	EQ(chmod(at(n), 07777), 0);
	EQ(stat_at(at(n)).st_mode, S_IFREG | 07777);
	EQ(chmod(at(n), 0), 0);
	EQ(stat_at(at(n)).st_mode, S_IFREG);
}

ROOT_FILE_CASE("15 (permission)", chown_by_path_governs_mq_open)
{
	start();
	const char *n = queue("a", 0600);
	mqd_t q = OK(mq_open(n, O_RDWR));
	CHILD {
		become(user(0));
		FAILS(mq_open(n, O_RDWR), EACCES);
	}
	EQ(chown(at(n), user(0), user(1)), 0);
	EQ(stat_of(q).st_uid, user(0));
	EQ(stat_of(q).st_gid, user(1));
	CHILD {
		become(user(0));
		OK(mq_open(n, O_RDWR));
		EQ(chmod(at(n), 0060), 0);
		FAILS(chown(at(n), user(1), -1), EPERM);
		FAILS(chown(at(n), -1, user(2)), EPERM);
		EQ(chown(at(n), -1, user(1)), 0);
		EQ(chown(at(n), -1, user(0)), 0);
		EQ(chown(at(n), -1, -1), 0);
	}
	EQ(stat_at(at(n)).st_gid, user(0));
	EQ(lchown(at(n), -1, user(1)), 0);
	EQ(fchownat(AT_FDCWD, at(n), user(2), -1, AT_SYMLINK_NOFOLLOW), 0);
	EQ(stat_of(q).st_uid, user(2));
	EQ(fchown(q, user(3), -1), 0);
	EQ(stat_at(at(n)).st_uid, user(3));
}

ROOT_FILE_CASE("15 (permission)", chown_clears_set_id_bits)
{
	start();
	const char *n = queue("a", 0600);
	EQ(chmod(at(n), 06755), 0);
	EQ(chown(at(n), user(0), user(0)), 0);
	EQ(stat_at(at(n)).st_mode, S_IFREG | 0755);
}

ROOT_FILE_CASE("15 (permission)", others_cannot_change_a_file)
{
	start();
	const char *n = queue("a", 0644);
	CHILD {
		become(user(0));
		FAILS(chmod(at(n), 0666), EPERM);
		FAILS(chown(at(n), user(0), -1), EPERM);
		FAILS(utimensat(AT_FDCWD, at(n), (struct timespec[2]){{.tv_sec = 1}, {.tv_sec = 1}}, 0), EPERM);
		FAILS(utimensat(AT_FDCWD, at(n), NULL, 0), EACCES);
		FAILS(open(at(n), O_RDWR), EACCES);
		FAILS(open(at(n), O_RDONLY | O_NOATIME), EPERM);
		OK(open(at(n), O_RDONLY));
	}
	EQ(chmod(at(n), 0666), 0);
	CHILD {
		become(user(0));
		EQ(utimensat(AT_FDCWD, at(n), NULL, 0), 0);
		FAILS(chmod(at(n), 0), EPERM);
	}
}

/* ---- Times ------------------------------------------------------------------------------- */

FILE_CASE("15 (times)", times_set_by_path_show_on_the_descriptor)
{
	start();
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 1, 8);
	struct timespec t[2] = {{1000, 123456789}, {2000, 987654321}};
	EQ(utimensat(AT_FDCWD, at(n), t, 0), 0);
	struct stat st = stat_of(q);
	EQ(st.st_atime, 1000);
	EQ(st.st_mtime, 2000);
	EQ(st.st_atim.tv_nsec, 0);
	EQ(st.st_mtim.tv_nsec, 0);
	EQ(futimens(q, (struct timespec[2]){{3000, 0}, {0, UTIME_OMIT}}), 0);
	st = stat_at(at(n));
	EQ(st.st_atime, 3000);
	EQ(st.st_mtime, 2000);
	EQ(utimes(at(n), (struct timeval[2]){{.tv_sec = 5}, {.tv_sec = 6}}), 0);
	EQ(stat_of(q).st_mtime, 6);
	time_t now = time(NULL);
	EQ(utimensat(AT_FDCWD, at(n), NULL, 0), 0);
	TRUE(stat_of(q).st_mtime >= now && stat_of(q).st_atime >= now);
}

FILE_CASE("15 (times)", use_through_the_file_sets_times_as_use_of_the_descriptor_does)
{
	start();
	const char *n = queue("a", 0600);
	struct timespec old[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
	char b[64];
	time_t now = time(NULL);
	int fd = OK(open(at(n), O_RDWR));
#define AFTER(action, atime, mtime)                                                              \
	do {                                                                                     \
		EQ(utimensat(AT_FDCWD, at(n), old, 0), 0);                                       \
		action;                                                                          \
		struct stat af = stat_at(at(n));                                                 \
		EQ(af.st_atime >= now, atime);                                                   \
		EQ(af.st_mtime >= now, mtime);                                                   \
	} while (0)
	AFTER(put(fd, "x", 0), 1, 1);
	AFTER(take(fd, "x", 0), 1, 1);
	AFTER(EQ(pread(fd, b, 64, 0), 60), 1, 0);
	AFTER(close(OK(open(at(n), O_RDWR))), 0, 0);
	AFTER(stat_at(at(n)), 0, 0);
	AFTER(curmsgs(fd), 0, 0);
	AFTER(EQ(chmod(at(n), 0600), 0), 0, 0);
	TRUE(stat_at(at(n)).st_ctime >= now);
}

/* ---- Names ------------------------------------------------------------------------------- */

FILE_CASE("15 (names)", any_byte_makes_a_name_both_ways)
{
	start();
	for (int c = 1; c < 256; c++) {
		char n[8] = {'/', c, 'q', 0}, b[128];
		if (c == '/')
			continue;
		mqd_t q = OK(mq_open(n, O_RDWR | O_CREAT | O_EXCL, 0600, ATTR(1, 1)));
		EQ(stat_at(at(n)).st_ino, stat_of(q).st_ino);
		EQ(lists(n), 1);
		int fd = OK(open(at(n), O_RDONLY));
		EQ(read(fd, b, sizeof b), 60);
		close(fd);
		mq_close(q);
		EQ(unlink(at(n)), 0);
		close(OK(creat(at(n), 0600)));
		present(n);
		EQ(mq_unlink(n), 0);
		absent(at(n));
	}
}

FILE_CASE("15 (names)", single_bytes_are_names)
{
	start();
	for (int c = 1; c < 256; c++) {
		char n[4] = {'/', c, 0};
		if (c == '/' || c == '.')
			continue;
		EQ(mq_close(OK(mq_open(n, O_RDWR | O_CREAT | O_EXCL, 0600, ATTR(1, 1)))), 0);
		EQ(exists(at(n)), 1);
		EQ(unlink(at(n)), 0);
	}
}

FILE_CASE("15 (names)", odd_names)
{
	start();
	static const char *const t[] = {
		"/...", "/..a", "/.hidden", "/ ", "/a b", "/a\nb", "/\n", "/-rf", "/*", "/%s%n", "/\xff\xfe",
		"/\xc3\xa4", "/a\\b", "/~", "/a:b", "/con", "/QUEUE", "/queue", "/control", "/a.tmp", "/0", "/,",
	};
	for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
		EQ(mq_close(OK(mq_open(t[i], O_RDWR | O_CREAT | O_EXCL, 0600, ATTR(1, 1)))), 0);
		EQ(lists(t[i]), 1);
		EQ(stat_at(at(t[i])).st_size, 80);
	}
	EQ(count_listed(), sizeof t / sizeof *t);
	for (size_t i = 0; i < sizeof t / sizeof *t; i++)
		EQ(unlink(at(t[i])), 0);
}

FILE_CASE("15 (names)", names_up_to_255_bytes)
{
	start();
	char n[300] = "/";
	for (int len = 253; len < 258; len++) {
		memset(n + 1, 'n', len);
		n[len + 1] = 0;
		if (len > 255) {
			FAILS(open(at(n), O_RDONLY), ENAMETOOLONG);
			FAILS(creat(at(n), 0600), ENAMETOOLONG);
			FAILS(unlink(at(n)), ENAMETOOLONG);
			struct stat st;
			FAILS(lstat(at(n), &st), ENAMETOOLONG);
			FAILS(mkdir(at(n), 0700), ENAMETOOLONG);
			continue;
		}
		EQ(mq_close(make(n, O_RDWR, 1, 1)), 0);
		EQ(lists(n), 1);
		EQ(unlink(at(n)), 0);
		close(OK(creat(at(n), 0600)));
		EQ(mq_unlink(n), 0);
	}
}

FILE_CASE("15 (names)", names_differ_by_case)
{
	start();
	EQ(mq_close(make("/conf-Case", O_RDWR, 1, 1)), 0);
	absent(at("conf-case"));
	close(OK(creat(at("conf-case"), 0600)));
	EQ(count_listed(), 2);
	EQ(unlink(at("conf-case")), 0);
	EQ(unlink(at("conf-Case")), 0);
}

/* ---- Paths ------------------------------------------------------------------------------- */

FILE_CASE("15 (paths)", relative_to_the_working_directory)
{
	start();
	const char *n = queue("a", 0600), *m = qname("b");
	char b[PATH_MAX];
	ino_t ino = stat_at(at(n)).st_ino;
	EQ(chdir(dir), 0);
	TRUE(getcwd(b, sizeof b) && !strcmp(b, dir));
	EQ(stat_at(n + 1).st_ino, ino);
	char dotted[128];
	snprintf(dotted, sizeof dotted, "./%s", n + 1);
	EQ(stat_at(dotted).st_ino, ino);
	snprintf(dotted, sizeof dotted, "..//%s///%s", strrchr(dir, '/') + 1, n + 1);
	EQ(stat_at(dotted).st_ino, ino);
	int fd = OK(open(n + 1, O_RDWR));
	put(fd, "x", 0);
	close(OK(creat(m + 1, 0600)));
	present(m);
	EQ(access(m + 1, R_OK), 0);
	EQ(chmod(m + 1, 0640), 0);
	EQ(unlink(m + 1), 0);
	missing(m);
	CHILD {
		EQ(stat_at(n + 1).st_ino, ino);
		EQ(chdir(".."), 0);
		TRUE(getcwd(b, sizeof b) && !strcmp(b, "/tmp"));
		FAILS(open(n + 1, O_RDONLY), ENOENT);
	}
	DIR *d = opendir(".");
	int seen = 0;
	for (struct dirent *e; (e = readdir(d));)
		seen += !strcmp(e->d_name, n + 1);
	EQ(seen, 1);
}

FILE_CASE("15 (paths)", working_directory_by_descriptor)
{
	start();
	const char *n = queue("a", 0600);
	int top = OK(open(dir, O_RDONLY | O_DIRECTORY)), here = OK(open(".", O_RDONLY));
	char b[PATH_MAX];
	EQ(fchdir(top), 0);
	TRUE(getcwd(b, sizeof b) && !strcmp(b, dir));
	EQ(stat_at(n + 1).st_size, 80);
	present(n);
	EQ(fchdir(here), 0);
	struct stat st;
	FAILS(stat(n + 1, &st), ENOENT);
}

FILE_CASE("15 (paths)", relative_to_a_directory_descriptor)
{
	start();
	const char *n = queue("a", 0600), *m = qname("b");
	for (int i = 0; i < 3; i++) {
		int top = i == 2 ? dirfd(opendir(dir)) : OK(open(dir, i ? O_PATH : O_RDONLY));
		put(OK(openat(top, n + 1, O_RDWR)), "x", 0);
		take(OK(openat(top, n + 1, O_RDWR)), "x", 0);
		EQ(faccessat(top, n + 1, R_OK, 0), 0);
		close(OK(openat(top, m + 1, O_RDWR | O_CREAT | O_EXCL, 0600)));
		present(m);
		struct stat st;
		EQ(fstatat(top, m + 1, &st, 0), 0);
		EQ(st.st_size, 80);
		EQ(utimensat(top, m + 1, NULL, 0), 0);
		EQ(fchownat(top, m + 1, -1, -1, 0), 0);
		EQ(unlinkat(top, m + 1, 0), 0);
		missing(m);
		FAILS(openat(top, m + 1, O_RDONLY), ENOENT);
		EQ(fstatat(top, "", &st, AT_EMPTY_PATH), 0);
		EQ(st.st_mode, S_IFDIR | 01777);
		EQ(fstatat(top, "..", &st, 0), 0);
		EQ(st.st_ino, stat_at("/tmp").st_ino);
	}
}

FILE_CASE("15 (paths)", relative_to_a_directory_above)
{
	start();
	const char *n = queue("a", 0600);
	int tmp = OK(open("/tmp", O_PATH));
	char b[600];
	snprintf(b, sizeof b, "%s%s", strrchr(dir, '/') + 1, n);
	put(OK(openat(tmp, b, O_RDWR)), "x", 0);
	EQ(chdir("/tmp"), 0);
	take(OK(open(b, O_RDWR)), "x", 0);
	EQ(unlinkat(tmp, b, 0), 0);
	missing(n);
}

FILE_CASE("15 (paths)", through_symbolic_links)
{
	start();
	const char *n = queue("a", 0600), *m = qname("b"), *other = directory("other");
	EQ(symlink(dir, path_in(other, "d")), 0);
	EQ(symlink(at(n), path_in(other, "f")), 0);
	EQ(symlink("d", path_in(other, "dd")), 0);
	EQ(symlink(at(m), path_in(other, "new")), 0);
	ino_t ino = stat_at(at(n)).st_ino;
	EQ(stat_at(path_in(path_in(other, "d"), n)).st_ino, ino);
	EQ(stat_at(path_in(path_in(other, "dd"), n)).st_ino, ino);
	TRUE(S_ISLNK(stat_at(path_in(other, "d")).st_mode));
	TRUE(S_ISLNK(stat_at(path_in(other, "f")).st_mode));
	struct stat st;
	EQ(stat(path_in(other, "f"), &st), 0);
	EQ(st.st_ino, ino);
	put(OK(open(path_in(other, "f"), O_RDWR)), "x", 0);
	FAILS(open(path_in(other, "f"), O_RDWR | O_NOFOLLOW), ELOOP);
	close(OK(open(path_in(other, "new"), O_RDWR | O_CREAT, 0600)));
	present(m);
	FAILS(open(path_in(other, "new"), O_RDWR | O_CREAT | O_EXCL, 0600), EEXIST);
	EQ(unlink(path_in(path_in(other, "dd"), m)), 0);
	missing(m);
	FAILS(open(path_in(other, "new"), O_RDWR), ENOENT);
	EQ(unlink(path_in(other, "f")), 0);
	present(n);
	EQ(chdir(path_in(other, "d")), 0);
	char b[PATH_MAX];
	TRUE(getcwd(b, sizeof b) && !strcmp(b, dir));
	TRUE(realpath(path_in(path_in(other, "dd"), n), b) && !strcmp(b, at(n)));
	EQ(stat_at("..").st_ino, stat_at("/tmp").st_ino);
}

FILE_CASE("15 (paths)", odd_spellings_of_the_path)
{
	start();
	const char *n = queue("a", 0600);
	ino_t ino = stat_at(at(n)).st_ino;
	static const char *const form[] = {
		"%s/./%s", "%s//%s", "%s/../%s/%s", "/.%s/%s", "/..%s/%s", "//%s/%s", "/proc/self/root%s/%s",
		"/tmp/..%s/%s",
	};
	for (size_t i = 0; i < sizeof form / sizeof *form; i++) {
		char b[700];
		if (i == 2)
			snprintf(b, sizeof b, "%s/../%s/%s", dir, strrchr(dir, '/') + 1, n + 1);
		else
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
			snprintf(b, sizeof b, form[i], dir, n + 1);
#pragma GCC diagnostic pop
		EQ(stat_at(b).st_ino, ino);
		EQ(close(OK(open(b, O_RDWR))), 0);
	}
	EQ(chdir(dir), 0);
	EQ(stat_at(path_in("/proc/self/cwd", n)).st_ino, ino);
	int top = OK(open(dir, O_PATH));
	char b[64];
	snprintf(b, sizeof b, "/proc/self/fd/%d", top);
	EQ(stat_at(path_in(b, n)).st_ino, ino);
	put(OK(open(path_in(b, n), O_RDWR)), "x", 0);
}

FILE_CASE("15 (paths)", working_directory_is_inherited_by_exec)
{
	start();
	const char *n = queue("a", 0600);
	put(OK(open(at(n), O_RDWR)), "x", 0);
	EQ(chdir(dir), 0);
	CHILD {
		execl("/bin/sh", "sh", "-c",
		      "IFS=: read -r a b <\"$0\" && case $b in '1 '*) exit 0;; esac; exit 1", n + 1, (char *)NULL);
		_exit(127);
	}
}

/* ---- inotify ----------------------------------------------------------------------------- */

/* The next event has this mask and name; or there is none. */
static int watch;
static void event(uint32_t mask, const char *name)
{
	static char b[4096] __attribute__((aligned(8)));
	static ssize_t have, pos;
	if (pos >= have) {
		have = read(watch, b, sizeof b);
		pos = 0;
		if (have < 0) {
			TRUE(errno == EAGAIN);
			if (mask)
				FAIL("expected event %#x of %s, got none", mask, name);
			return;
		}
	}
	struct inotify_event *e = (void *)(b + pos);
	pos += sizeof *e + e->len;
	if (!mask)
		FAIL("expected no event, got %#x %s", e->mask, e->len ? e->name : "");
	if (e->mask != mask || strcmp(e->len ? e->name : "", name))
		FAIL("expected event %#x of %s, got %#x of %s", mask, name, e->mask, e->len ? e->name : "");
}

FILE_CASE("15 (inotify)", directory_watch_sees_creation_and_removal_of_both_faces)
{
	start();
	const char *n = qname("a");
	watch = OK(inotify_init1(IN_NONBLOCK));
	OK(inotify_add_watch(watch, dir, IN_CREATE | IN_DELETE | IN_MOVE));
	event(0, "");
	mqd_t q = make(n, O_RDWR, 1, 8);
	event(IN_CREATE, n + 1);
	put(q, "x", 0);
	take(q, "x", 0);
	EQ(mq_unlink(n), 0);
	event(IN_DELETE, n + 1);
	mq_close(q);
	close(OK(creat(at(n), 0600)));
	event(IN_CREATE, n + 1);
	EQ(unlink(at(n)), 0);
	event(IN_DELETE, n + 1);
	EQ(mknod(at(n), S_IFREG | 0600, 0), 0);
	event(IN_CREATE, n + 1);
	FAILS(mkdir(at("new"), 0700), EPERM);
	event(0, "");
}

FILE_CASE("15 (inotify)", file_watch_sees_files_operations)
{
	start();
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 1, 8);
	char b[64];
	watch = OK(inotify_init1(IN_NONBLOCK));
	OK(inotify_add_watch(watch, at(n), IN_ALL_EVENTS));
	put(q, "x", 0);
	take(q, "x", 0);
	curmsgs(q);
	event(0, "");
	EQ(read(q, b, 64), 60);
	event(IN_ACCESS, "");
	int fd = OK(open(at(n), O_RDONLY));
	event(IN_OPEN, "");
	close(fd);
	event(IN_CLOSE_NOWRITE, "");
	EQ(mq_close(OK(mq_open(n, O_RDWR))), 0);
	event(IN_OPEN, "");
	event(IN_CLOSE_WRITE, "");
	EQ(chmod(at(n), 0640), 0);
	event(IN_ATTRIB, "");
	EQ(truncate(at(n), 3), 0);
	event(IN_MODIFY, "");
	EQ(unlink(at(n)), 0);
	event(IN_ATTRIB, "");
	mq_close(q);
	event(IN_CLOSE_WRITE, "");
	event(IN_DELETE_SELF, "");
	event(IN_IGNORED, "");
	event(0, "");
}

/* ---- Locks and the rest ------------------------------------------------------------------ */

FILE_CASE("15 (locks)", locks_are_of_the_file_whichever_face)
{
	start();
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 1, 8);
	EQ(flock(q, LOCK_EX), 0);
	int fd = OK(open(at(n), O_RDWR));
	FAILS(flock(fd, LOCK_EX | LOCK_NB), EWOULDBLOCK);
	EQ(flock(q, LOCK_UN), 0);
	EQ(flock(fd, LOCK_EX | LOCK_NB), 0);
	struct flock l = {.l_type = F_WRLCK, .l_len = 10};
	EQ(fcntl(fd, F_SETLK, &l), 0);
	CHILD {
		int f = OK(open(at(n), O_RDWR));
		FAILS(fcntl(f, F_SETLK, &l), EAGAIN);
		EQ(fcntl(f, F_GETLK, &l), 0);
		EQ(l.l_type, F_WRLCK);
		EQ(l.l_pid, getppid());
	}
}

FILE_CASE("15 (file)", descriptor_calls_on_an_opened_file)
{
	start();
	const char *n = queue("a", 0600);
	int fd = OK(open(at(n), O_RDWR)), v = 0;
	EQ(ioctl(fd, FIONREAD, &v), 0);
	EQ(v, 80);
	EQ(isatty(fd), 0);
	FAILS(fchdir(fd), ENOTDIR);
	FAILS(fallocate(fd, 0, 0, 10), EOPNOTSUPP);
	EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_NORMAL), 0);
	EQ(fchmod(fd, 0640), 0);
	EQ(fchown(fd, -1, -1), 0);
	EQ(stat_at(at(n)).st_mode, S_IFREG | 0640);
	v = 1;
	EQ(ioctl(fd, FIONBIO, &v), 0);
	FAILS(mq_receive(fd, (char[8]){0}, 8, NULL), EAGAIN);
}
