/* Contract section 15: mounting and unmounting. Files: conf_fs_files.c; namespaces: conf_fs_ns.c. */
#include "conf.h"
#include <mntent.h>
#include <sys/inotify.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>

#define ATTR(m, s) (&(struct mq_attr){.mq_maxmsg = (m), .mq_msgsize = (s)})

/* What all but cases of user namespaces begin with: queues of default attributes are small. */
static void begin(void)
{
	static int done;
	if (!done)
		fresh_namespace();
	done = 1;
	private_mounts();
}
static const char *at_a_directory(void)
{
	begin();
	return mounted_at();
}
static const char *queue(const char *suffix)
{
	begin();
	const char *n = qname(suffix);
	EQ(mq_close(make(n, O_RDWR, 1, 8)), 0);
	return n;
}
static int exists(const char *path)
{
	struct stat st;
	return lstat(path, &st) == 0;
}
static struct stat stat_at(const char *path)
{
	struct stat st;
	if (lstat(path, &st))
		FAIL("lstat %s: expected success, got -1 %s", path, errno_name(errno));
	return st;
}
/* The directory is one of the mqueue file system, or is not. */
static int is_mounted(const char *dir)
{
	struct statfs s;
	EQ(statfs(dir, &s), 0);
	return s.f_type == 0x19800202;
}

/* ---- Lines in /proc ---------------------------------------------------------------------- */

/* The line of a mount on a directory, the topmost if there are several; NULL if there is none.
 * The mount point is word `word` of a line, counting from 0. */
static const char *line_in(const char *file, const char *dir, int word)
{
	static char found[4096], line[4096];
	FILE *f = fopen(file, "re");
	int any = 0;
	if (!f)
		FAIL("%s: %s", file, errno_name(errno));
	while (fgets(line, sizeof line, f)) {
		const char *p = line;
		for (int i = 0; i < word && p; i++)
			if ((p = strchr(p, ' ')))
				p++;
		if (p && !strncmp(p, dir, strlen(dir)) && p[strlen(dir)] == ' ') {
			strcpy(found, line);
			any = 1;
		}
	}
	fclose(f);
	return any ? found : NULL;
}
#define mounts_line(dir) line_in("/proc/self/mounts", dir, 1)
#define mounts_line_is(dir, fmt, ...)                                                            \
	do {                                                                                     \
		char ml_w[1024];                                                                 \
		snprintf(ml_w, sizeof ml_w, fmt "\n", __VA_ARGS__);                              \
		const char *ml_l = mounts_line(dir);                                             \
		if (!ml_l || strcmp(ml_l, ml_w))                                                 \
			FAIL("expected line \"%s\", got \"%s\"", ml_w, ml_l ? ml_l : "none");    \
	} while (0)

FILE_CASE("15 (/proc)", mounts_shows_source_directory_type_and_options)
{
	begin();
	const char *d = directory("m");
	TRUE(mounts_line(d) == NULL);
	EQ(mount("some-source", d, "mqueue", 0, NULL), 0);
	mounts_line_is(d, "some-source %s mqueue rw,relatime 0 0", d);
	EQ(umount(d), 0);
	TRUE(mounts_line(d) == NULL);
}

FILE_CASE("15 (/proc)", every_name_of_the_list_shows_it)
{
	begin();
	const char *d = directory("m");
	EQ(mount("src", d, "mqueue", 0, NULL), 0);
	char b[4][64];
	snprintf(b[0], 64, "/proc/%d/mounts", getpid());
	snprintf(b[1], 64, "/proc/self/task/%d/mounts", gettid());
	snprintf(b[2], 64, "/proc/thread-self/mounts");
	snprintf(b[3], 64, "/proc/mounts");
	for (int i = 0; i < 4; i++) {
		const char *l = line_in(b[i], d, 1);
		TRUE(l && !strncmp(l, "src ", 4) && strstr(l, " mqueue rw"));
	}
	CHILD {
		snprintf(b[0], 64, "/proc/%d/mounts", getppid());
		TRUE(line_in(b[0], d, 1) != NULL);
		TRUE(mounts_line(d) != NULL);
	}
}

FILE_CASE("15 (/proc)", mountinfo_shows_root_device_and_super_options)
{
	begin();
	const char *d = directory("m");
	EQ(mount("src", d, "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL), 0);
	const char *l = line_in("/proc/self/mountinfo", d, 4);
	TRUE(l != NULL);
	int id, parent;
	unsigned major_, minor_;
	char want[256], rest[512];
	EQ(sscanf(l, "%d %d %u:%u %511[^\n]", &id, &parent, &major_, &minor_, rest), 5);
	snprintf(want, sizeof want, "/ %s rw,nosuid,nodev,noexec,relatime - mqueue src rw", d);
	if (strcmp(rest, want))
		FAIL("expected \"%s\", got \"%s\"", want, rest);
	EQ(makedev(major_, minor_), stat_at(d).st_dev);
	TRUE(id != parent);
}

FILE_CASE("15 (/proc)", mount_flags_show)
{
	static const struct {
		unsigned long flags;
		const char *text;
		unsigned long vfs;
	} t[] = {
		{MS_NOSUID, "rw,nosuid,relatime", ST_NOSUID},
		{MS_NODEV, "rw,nodev,relatime", ST_NODEV},
		{MS_NOEXEC, "rw,noexec,relatime", ST_NOEXEC},
		{MS_RDONLY, "ro,relatime", ST_RDONLY},
		{MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "ro,nosuid,nodev,noexec,relatime",
		 ST_RDONLY | ST_NOSUID | ST_NODEV | ST_NOEXEC},
		{MS_NOATIME, "rw,noatime", ST_NOATIME},
		{MS_NODIRATIME, "rw,nodiratime,relatime", ST_NODIRATIME},
		{MS_STRICTATIME, "rw", 0},
		{MS_SILENT, "rw,relatime", 0},
		{0xc0ed0000, "rw,relatime", 0},
	};
	begin();
	const char *d = directory("m");
	for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
		EQ(mount("src", d, "mqueue", t[i].flags, NULL), 0);
		mounts_line_is(d, "src %s mqueue %s 0 0", d, t[i].text);
		struct statvfs v;
		EQ(statvfs(d, &v), 0);
		EQ(v.f_flag & (ST_RDONLY | ST_NOSUID | ST_NODEV | ST_NOEXEC | ST_NOATIME | ST_NODIRATIME),
		   t[i].vfs);
		EQ(umount(d), 0);
	}
}

FILE_CASE("15 (/proc)", odd_bytes_are_octal)
{
	begin();
	char d[128];
	snprintf(d, sizeof d, "%s/a b\t\\#", directory("m"));
	EQ(mkdir(d, 0700), 0);
	EQ(mount("s r\\c", d, "mqueue", 0, NULL), 0);
	char e[160];
	snprintf(e, sizeof e, "%.*s/a\\040b\\011\\134\\043", (int)(strrchr(d, '/') - d), d);
	const char *l = mounts_line(e);
	if (!l) {
		e[strlen(e) - 4] = 0;
		strcat(e, "#");
		l = mounts_line(e);
	}
	TRUE(l && !strncmp(l, "s\\040r\\134c ", 11));
	TRUE(is_mounted(d));
	EQ(umount(d), 0);
}

FILE_CASE("15 (/proc)", getmntent_finds_it)
{
	begin();
	const char *d = directory("m");
	EQ(mount("src", d, "mqueue", MS_NOSUID, NULL), 0);
	FILE *f = setmntent("/proc/self/mounts", "r");
	TRUE(f != NULL);
	int n = 0;
	for (struct mntent *m; (m = getmntent(f));)
		if (!strcmp(m->mnt_dir, d)) {
			TRUE(!strcmp(m->mnt_type, "mqueue"));
			TRUE(!strcmp(m->mnt_fsname, "src"));
			TRUE(hasmntopt(m, "nosuid") != NULL);
			n++;
		}
	EQ(n, 1);
	endmntent(f);
}

FILE_CASE("15 (/proc)", mountstats_shows_it)
{
	begin();
	const char *d = directory("m");
	EQ(mount("src", d, "mqueue", 0, NULL), 0);
	char want[160];
	const char *l = line_in("/proc/self/mountstats", d, 4);
	snprintf(want, sizeof want, "device src mounted on %s with fstype mqueue\n", d);
	TRUE(l && !strcmp(l, want));
}

FILE_CASE("15 (/proc)", the_kernel_knows_the_type)
{
	char b[64];
	int seen = 0;
	FILE *f = fopen("/proc/filesystems", "r");
	TRUE(f != NULL);
	while (fgets(b, sizeof b, f))
		seen += !strcmp(b, "nodev\tmqueue\n");
	EQ(seen, 1);
}

/* ---- mount ------------------------------------------------------------------------------- */

FILE_CASE("15 (mount)", mount_shows_the_callers_queues)
{
	const char *n = queue("a");
	begin();
	const char *d = directory("m");
	EQ(is_mounted(d), 0);
	EQ(exists(path_in(d, n)), 0);
	EQ(mount("x", d, "mqueue", 0, NULL), 0);
	EQ(is_mounted(d), 1);
	EQ(exists(path_in(d, n)), 1);
	EQ(umount(d), 0);
	EQ(is_mounted(d), 0);
	EQ(exists(path_in(d, n)), 0);
	present(n);
}

FILE_CASE("15 (mount)", any_source_will_do)
{
	begin();
	const char *d = directory("m");
	static const char *const src[][2] = {
		{"mqueue", "mqueue"}, {"none", "none"}, {"/dev/null", "/dev/null"}, {"no/such", "no/such"}, {NULL, "none"},
	};
	for (size_t i = 0; i < sizeof src / sizeof *src; i++) {
		EQ(mount(src[i][0], d, "mqueue", 0, NULL), 0);
		mounts_line_is(d, "%s %s mqueue rw,relatime 0 0", src[i][1], d);
		EQ(umount(d), 0);
	}
}

FILE_CASE("15 (mount)", empty_source_shows_as_nothing)
{
	begin();
	const char *d = directory("m");
	EQ(mount("", d, "mqueue", 0, NULL), 0);
	const char *l = line_in("/proc/self/mountinfo", d, 4);
	TRUE(l && strstr(l, " - mqueue  rw\n"));
}

FILE_CASE("15 (mount)", data)
{
	begin();
	const char *d = directory("m");
	EQ(mount("x", d, "mqueue", 0, ""), 0);
	EQ(umount(d), 0);
	EQ(mount("x", d, "mqueue", 0, ","), 0);
	EQ(umount(d), 0);
	FAILS(mount("x", d, "mqueue", 0, "foo=1"), EINVAL);
	FAILS(mount("x", d, "mqueue", 0, "foo"), EINVAL);
	FAILS(mount("x", d, "mqueue", 0, "mode=755"), EINVAL);
	FAILS(mount("x", d, "mqueue", 0, "size=10,ro"), EINVAL);
	FAILS(mount("x", d, "mqueue", 0, "source=y"), EINVAL);
	FAILS(mount("x", d, "mqueue", 0, nowhere()), EFAULT);
	EQ(is_mounted(d), 0);
}

FILE_CASE("15 (mount)", general_words_in_data_are_taken_and_change_nothing)
{
	begin();
	const char *d = directory("m");
	static const char *const word[] = {"ro", "rw", "sync", "async", "dirsync", "lazytime", "mand", "ro,sync"};
	for (size_t i = 0; i < sizeof word / sizeof *word; i++) {
		EQ(mount("x", d, "mqueue", 0, word[i]), 0);
		mounts_line_is(d, "x %s mqueue rw,relatime 0 0", d);
		EQ(umount(d), 0);
	}
	EQ(mount(NULL, d, "mqueue", 0, "source=y"), 0);
	mounts_line_is(d, "y %s mqueue rw,relatime 0 0", d);
}

FILE_CASE("15 (mount)", type)
{
	begin();
	const char *d = directory("m");
	FAILS(mount("x", d, "mqueueX", 0, NULL), ENODEV);
	FAILS(mount("x", d, "mqueu", 0, NULL), ENODEV);
	FAILS(mount("x", d, "MQUEUE", 0, NULL), ENODEV);
	FAILS(mount("x", d, "", 0, NULL), ENODEV);
	FAILS(mount("x", d, NULL, 0, NULL), EINVAL);
	FAILS(mount("x", d, nowhere(), 0, NULL), EFAULT);
	FAILS(mount(nowhere(), d, "mqueue", 0, NULL), EFAULT);
	EQ(is_mounted(d), 0);
}

FILE_CASE("15 (mount)", subtypes_are_refused)
{
	begin();
	FAILS(mount("x", directory("m"), "mqueue.sub", 0, NULL), ENODEV);
}

FILE_CASE("15 (mount)", directory_to_mount_on)
{
	begin();
	const char *d = directory("m"), *f = path_in(d, "file"), *l = path_in(d, "loop");
	close(OK(creat(f, 0600)));
	EQ(symlink("loop", l), 0);
	FAILS(mount("x", path_in(d, "missing"), "mqueue", 0, NULL), ENOENT);
	FAILS(mount("x", "", "mqueue", 0, NULL), ENOENT);
	FAILS(mount("x", NULL, "mqueue", 0, NULL), EFAULT);
	FAILS(mount("x", nowhere(), "mqueue", 0, NULL), EFAULT);
	FAILS(mount("x", f, "mqueue", 0, NULL), ENOTDIR);
	FAILS(mount("x", path_in(f, "x"), "mqueue", 0, NULL), ENOTDIR);
	FAILS(mount("x", l, "mqueue", 0, NULL), ELOOP);
	char name[300];
	memset(name, 'n', 256);
	name[256] = 0;
	FAILS(mount("x", path_in(d, name), "mqueue", 0, NULL), ENAMETOOLONG);
}

FILE_CASE("15 (mount)", on_a_queue_is_refused)
{
	const char *n = queue("a"), *d = at_a_directory();
	FAILS(mount("x", path_in(d, n), "mqueue", 0, NULL), ENOTDIR);
}

FILE_CASE("15 (mount)", order_of_checks)
{
	begin();
	const char *d = directory("m"), *f = path_in(d, "file");
	close(OK(creat(f, 0600)));
	FAILS(mount("x", path_in(d, "missing"), "mqueueX", 0, "foo=1"), ENOENT);
	FAILS(mount("x", f, "mqueueX", 0, NULL), ENODEV);
	FAILS(mount("x", f, "mqueue", 0, "foo=1"), EINVAL);
	FAILS(mount("x", f, NULL, 0, NULL), EINVAL);
}

FILE_CASE("15 (mount)", through_a_relative_path_and_a_symbolic_link)
{
	const char *n = queue("a");
	begin();
	const char *d = directory("m"), *o = directory("o");
	EQ(chdir(o), 0);
	EQ(mkdir("sub", 0755), 0);
	EQ(mount("x", "sub", "mqueue", 0, NULL), 0);
	mounts_line_is(path_in(o, "sub"), "x %s mqueue rw,relatime 0 0", path_in(o, "sub"));
	EQ(exists(path_in("sub", n)), 1);
	EQ(umount("./sub/"), 0);
	EQ(symlink(d, "link"), 0);
	EQ(mount("x", "link", "mqueue", 0, NULL), 0);
	mounts_line_is(d, "x %s mqueue rw,relatime 0 0", d);
	EQ(exists(path_in(d, n)), 1);
	FAILS(umount2("link", UMOUNT_NOFOLLOW), EINVAL);
	EQ(umount2("link", 0), 0);
	EQ(is_mounted(d), 0);
}

FILE_CASE("15 (mount)", working_directory_underneath_stays_underneath)
{
	const char *n = queue("a");
	begin();
	const char *d = directory("m");
	close(OK(creat(path_in(d, "under"), 0600)));
	EQ(chdir(d), 0);
	int under = OK(open(".", O_RDONLY));
	EQ(mount("x", ".", "mqueue", 0, NULL), 0);
	EQ(exists("under"), 1);
	EQ(exists(n + 1), 0);
	EQ(exists(path_in(d, n)), 1);
	EQ(exists(path_in(d, "under")), 0);
	struct stat st;
	EQ(fstatat(under, "under", &st, 0), 0);
	FAILS(fstatat(under, n + 1, &st, 0), ENOENT);
	EQ(chdir(d), 0);
	EQ(exists(n + 1), 1);
	EQ(chdir("/"), 0);
	EQ(umount(d), 0);
	EQ(exists(path_in(d, "under")), 1);
}

FILE_CASE("15 (mount)", covers_what_the_directory_holds)
{
	begin();
	const char *d = directory("m");
	close(OK(creat(path_in(d, "under"), 0600)));
	EQ(mount("x", d, "mqueue", 0, NULL), 0);
	EQ(exists(path_in(d, "under")), 0);
	EQ(umount(d), 0);
	EQ(exists(path_in(d, "under")), 1);
}

FILE_CASE("15 (mount)", several_mounts_are_one_file_system)
{
	const char *n = queue("a"), *d = at_a_directory(), *e = at_a_directory();
	EQ(stat_at(d).st_dev, stat_at(e).st_dev);
	EQ(stat_at(d).st_ino, stat_at(e).st_ino);
	EQ(stat_at(path_in(d, n)).st_ino, stat_at(path_in(e, n)).st_ino);
	EQ(chmod(path_in(d, n), 0640), 0);
	EQ(stat_at(path_in(e, n)).st_mode, S_IFREG | 0640);
	int fd = OK(open(path_in(d, n), O_RDWR));
	put(fd, "x", 0);
	take(OK(open(path_in(e, n), O_RDWR)), "x", 0);
	EQ(umount2(e, MNT_DETACH), 0);
	EQ(exists(path_in(e, n)), 0);
	EQ(exists(path_in(d, n)), 1);
	EQ(unlink(path_in(d, n)), 0);
	missing(n);
}

FILE_CASE("15 (mount)", same_namespace_twice_on_one_directory_is_busy)
{
	const char *n = queue("a"), *d = at_a_directory();
	FAILS(mount("x", d, "mqueue", 0, NULL), EBUSY);
	FAILS(mount("other", d, "mqueue", MS_RDONLY, NULL), EBUSY);
	FAILS(mount("x", path_in(d, "."), "mqueue", 0, NULL), EBUSY);
	EQ(exists(path_in(d, n)), 1);
	EQ(umount(d), 0);
	EQ(mount("x", d, "mqueue", 0, NULL), 0);
}

ROOT_FILE_CASE("15 (mount)", other_namespaces_stack_up)
{
	const char *n[3];
	begin();
	const char *d = directory("m");
	int first = OK(open("/proc/self/ns/ipc", O_RDONLY | O_CLOEXEC));
	for (int i = 0; i < 3; i++) {
		if (i)
			EQ(unshare(CLONE_NEWIPC), 0);
		n[i] = queue(number(i));
		EQ(mount(number(i), d, "mqueue", 0, NULL), 0);
		FAILS(mount(number(i), d, "mqueue", 0, NULL), EBUSY);
	}
	/* The first again, on top of the others. */
	EQ(setns(first, CLONE_NEWIPC), 0);
	EQ(mount("3", d, "mqueue", 0, NULL), 0);
	for (int i = 3; i >= 0; i--) {
		mounts_line_is(d, "%d %s mqueue rw,relatime 0 0", i, d);
		for (int j = 0; j < 3; j++)
			EQ(exists(path_in(d, n[j])), j == i % 3);
		EQ(umount(d), 0);
	}
	EQ(is_mounted(d), 0);
}

ROOT_FILE_CASE("15 (mount)", mounts_of_several_namespaces_side_by_side)
{
	const char *n = qname("same"), *d[3];
	begin();
	for (int i = 0; i < 3; i++) {
		EQ(unshare(CLONE_NEWIPC), 0);
		d[i] = at_a_directory();
		mqd_t q = make(n, O_RDWR, 4, 8);
		for (int j = 0; j < i; j++)
			put(q, "xx", 0);
	}
	for (int i = 0; i < 3; i++) {
		char b[64] = "";
		EQ(read(OK(open(path_in(d[i], n), O_RDONLY)), b, 60), 60);
		EQ(atoi(b + 6), 2 * i);
		for (int j = 0; j < i; j++)
			TRUE(stat_at(d[i]).st_dev != stat_at(d[j]).st_dev);
	}
}

ROOT_FILE_CASE("15 (mount)", ordinary_users_do_not_mount)
{
	begin();
	const char *d = directory("m");
	EQ(chmod(d, 0777), 0);
	EQ(mount("x", d, "mqueue", 0, NULL), 0);
	const char *e = directory("e");
	EQ(chmod(e, 0777), 0);
	CHILD {
		become(user(0));
		FAILS(mount("x", e, "mqueue", 0, NULL), EPERM);
		FAILS(mount("x", e, "mqueueX", 0, "foo=1"), EPERM);
		FAILS(mount("x", path_in(e, "missing"), "mqueue", 0, NULL), ENOENT);
		FAILS(umount(d), EPERM);
		FAILS(umount2(d, MNT_DETACH), EPERM);
		FAILS(umount(e), EPERM);
		FAILS(umount(path_in(e, "missing")), ENOENT);
		FAILS(umount2(d, 0x100), EINVAL);
		FAILS(fsopen("mqueue", 0), EPERM);
		FAILS(open_tree(AT_FDCWD, d, OPEN_TREE_CLONE), EPERM);
	}
	EQ(is_mounted(d), 1);
}

/* ---- umount ------------------------------------------------------------------------------ */

FILE_CASE("15 (umount)", what_is_not_mounted)
{
	const char *n = queue("a"), *d = at_a_directory(), *e = directory("e");
	FAILS(umount(e), EINVAL);
	FAILS(umount(path_in(e, "missing")), ENOENT);
	FAILS(umount(path_in(d, n)), EINVAL);
	FAILS(umount(""), ENOENT);
	FAILS(umount(NULL), EFAULT);
	FAILS(umount2(e, MNT_DETACH), EINVAL);
	EQ(umount(d), 0);
	FAILS(umount(d), EINVAL);
	FAILS(umount2(d, MNT_DETACH), EINVAL);
}

FILE_CASE("15 (umount)", flags)
{
	const char *d = at_a_directory();
	FAILS(umount2(d, 0x10), EINVAL);
	FAILS(umount2(d, MNT_DETACH | 0x100), EINVAL);
	FAILS(umount2(d, MNT_EXPIRE | MNT_DETACH), EINVAL);
	FAILS(umount2(d, MNT_EXPIRE | MNT_FORCE), EINVAL);
	EQ(umount2(d, UMOUNT_NOFOLLOW), 0);
	d = at_a_directory();
	EQ(umount2(d, MNT_FORCE), 0);
	d = at_a_directory();
	EQ(umount2(d, MNT_DETACH | MNT_FORCE | UMOUNT_NOFOLLOW), 0);
	EQ(is_mounted(d), 0);
}

MOUNT_CASE("15 (umount)", expiry_takes_two_calls)
{
	const char *d = at_a_directory();
	FAILS(umount2(d, MNT_EXPIRE), EAGAIN);
	EQ(is_mounted(d), 1); /* a use, which starts it anew */
	FAILS(umount2(d, MNT_EXPIRE), EAGAIN);
	EQ(umount2(d, MNT_EXPIRE), 0);
}

FILE_CASE("15 (umount)", descriptors_opened_through_it_keep_it_busy)
{
	const char *n = queue("a"), *d = at_a_directory();
	static const int how[] = {O_RDONLY, O_RDWR, O_PATH, O_WRONLY | O_NONBLOCK};
	for (int i = 0; i < 6; i++) {
		int fd = i < 4 ? OK(open(path_in(d, n), how[i])) : OK(open(d, i == 4 ? O_PATH : O_RDONLY));
		FAILS(umount(d), EBUSY);
		FAILS(umount2(d, MNT_FORCE), EBUSY);
		close(fd);
	}
	int fd = OK(open(path_in(d, n), O_RDONLY));
	EQ(unlink(path_in(d, n)), 0);
	FAILS(umount(d), EBUSY);
	int e = dup(fd);
	close(fd);
	FAILS(umount(d), EBUSY);
	close(e);
	EQ(umount(d), 0);
}

FILE_CASE("15 (umount)", a_file_made_through_it_keeps_it_busy)
{
	const char *d = at_a_directory(), *n = qname("a");
	int fd = OK(open(path_in(d, n), O_RDWR | O_CREAT, 0600));
	FAILS(umount(d), EBUSY);
	close(fd);
	EQ(umount(d), 0);
	present(n);
}

FILE_CASE("15 (umount)", descriptors_of_mq_open_do_not)
{
	const char *d = at_a_directory(), *n = qname("a");
	mqd_t q = make(n, O_RDWR, 1, 8);
	pid_t p;
	ASYNC(p) {
		take(q, "x", 0);
	}
	await_asleep(p);
	EQ(umount(d), 0);
	put(q, "x", 0);
	join(p);
}

FILE_CASE("15 (umount)", working_directories_keep_it_busy)
{
	const char *d = at_a_directory();
	EQ(chdir(d), 0);
	FAILS(umount(d), EBUSY);
	FAILS(umount("."), EBUSY);
	EQ(chdir(".."), 0);
	pid_t p;
	ASYNC(p) {
		EQ(chdir(d), 0);
		mark(0);
		await_mark(1);
	}
	await_mark(0);
	FAILS(umount(d), EBUSY);
	mark(1);
	join(p);
	EQ(umount(d), 0);
}

FILE_CASE("15 (umount)", a_sleeper_on_its_descriptor_keeps_it_busy)
{
	const char *d = at_a_directory(), *n = queue("a");
	pid_t p;
	ASYNC(p) {
		take(OK(open(path_in(d, n), O_RDONLY)), "x", 0);
	}
	await_asleep(p);
	FAILS(umount(d), EBUSY);
	put(OK(mq_open(n, O_RDWR)), "x", 0);
	join(p);
	EQ(umount(d), 0);
}

FILE_CASE("15 (umount)", a_descriptor_elsewhere_keeps_it_busy)
{
	const char *d = at_a_directory(), *n = queue("a");
	int s[2];
	EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
	int fd = OK(open(path_in(d, n), O_RDWR));
	pass_fd(s[0], fd);
	close(fd);
	FAILS(umount(d), EBUSY);
	fd = accept_fd(s[1]);
	FAILS(umount(d), EBUSY);
	pid_t p;
	ASYNC(p) {
		take(fd, "x", 0);
	}
	await_asleep(p);
	put(fd, "x", 0);
	join(p);
	close(fd);
	EQ(umount(d), 0);
}

FILE_CASE("15 (umount)", other_mounts_of_the_file_system_do_not)
{
	const char *d = at_a_directory(), *e = at_a_directory(), *n = queue("a");
	int fd = OK(open(path_in(d, n), O_RDWR));
	EQ(chdir(d), 0);
	EQ(umount(e), 0);
	FAILS(umount(d), EBUSY);
	put(fd, "x", 0);
}

FILE_CASE("15 (umount)", a_watch_does_not)
{
	const char *d = at_a_directory(), *n = queue("a");
	int w = OK(inotify_init1(IN_NONBLOCK));
	OK(inotify_add_watch(w, d, IN_ALL_EVENTS));
	OK(inotify_add_watch(w, path_in(d, n), IN_MODIFY));
	EQ(umount(d), 0);
	char b[4096];
	FAILS(read(w, b, sizeof b), EAGAIN);
	EQ(mq_unlink(n), 0);
	TRUE(read(w, b, sizeof b) > 0);
}

FILE_CASE("15 (umount)", detached_at_once_and_used_on)
{
	const char *d = at_a_directory(), *n = queue("a"), *m = qname("b");
	int fd = OK(open(path_in(d, n), O_RDWR)), top = OK(open(d, O_RDONLY));
	EQ(chdir(d), 0);
	EQ(umount2(d, MNT_DETACH), 0);
	EQ(is_mounted(d), 0);
	EQ(exists(path_in(d, n)), 0);
	put(fd, "x", 0);
	take(fd, "x", 0);
	struct stat st;
	EQ(fstatat(top, n + 1, &st, 0), 0);
	EQ(exists(n + 1), 1);
	close(OK(creat(m + 1, 0600)));
	present(m);
	EQ(unlinkat(top, m + 1, 0), 0);
	missing(m);
	EQ(is_mounted("."), 1);
	EQ(exists(".."), 1);
	EQ(stat_at("..").st_ino, stat_at(".").st_ino);
	EQ(mount("x", d, "mqueue", 0, NULL), 0);
	EQ(exists(path_in(d, n)), 1);
}

FILE_CASE("15 (umount)", queues_outlive_the_mount)
{
	const char *d = at_a_directory(), *n = qname("a");
	int fd = OK(open(path_in(d, n), O_RDWR | O_CREAT | O_NONBLOCK, 0600));
	put(fd, "x", 5);
	close(fd);
	EQ(umount(d), 0);
	take(OK(mq_open(n, O_RDWR)), "x", 5);
	EQ(mount("x", d, "mqueue", 0, NULL), 0);
	EQ(exists(path_in(d, n)), 1);
}

FILE_CASE("15 (umount)", unmounts_the_mount_it_stands_in)
{
	const char *d = at_a_directory();
	EQ(umount2(path_in(d, "."), 0), 0);
	EQ(is_mounted(d), 0);
}

/* ---- Bind mounts, moved mounts ----------------------------------------------------------- */

MOUNT_CASE("15 (bind)", a_bound_mount_is_the_same)
{
	const char *d = at_a_directory(), *e = directory("e"), *n = queue("a");
	EQ(mount(d, e, NULL, MS_BIND, NULL), 0);
	EQ(is_mounted(e), 1);
	EQ(stat_at(path_in(d, n)).st_ino, stat_at(path_in(e, n)).st_ino);
	mounts_line_is(e, "mqueue %s mqueue rw,relatime 0 0", e);
	EQ(umount(d), 0);
	EQ(exists(path_in(e, n)), 1);
	put(OK(open(path_in(e, n), O_RDWR)), "x", 0);
	FAILS(umount(e), EBUSY);
}

MOUNT_CASE("15 (bind)", bound_onto_itself_stacks)
{
	const char *d = at_a_directory(), *n = queue("a");
	EQ(mount(d, d, NULL, MS_BIND, NULL), 0);
	EQ(umount(d), 0);
	EQ(exists(path_in(d, n)), 1);
	EQ(umount(d), 0);
	EQ(is_mounted(d), 0);
}

MOUNT_CASE("15 (bind)", bound_with_what_is_above)
{
	begin();
	const char *o = directory("o"), *e = directory("e"), *n = queue("a");
	EQ(mkdir(path_in(o, "m"), 0755), 0);
	EQ(mount("x", path_in(o, "m"), "mqueue", 0, NULL), 0);
	EQ(mount(o, e, NULL, MS_BIND, NULL), 0);
	EQ(is_mounted(path_in(e, "m")), 0);
	EQ(umount(e), 0);
	EQ(mount(o, e, NULL, MS_BIND | MS_REC, NULL), 0);
	EQ(exists(path_in(path_in(e, "m"), n)), 1);
	FAILS(umount(e), EBUSY);
	EQ(umount2(e, MNT_DETACH), 0);
	EQ(exists(path_in(path_in(o, "m"), n)), 1);
}

MOUNT_CASE("15 (bind)", a_single_queue_is_bound)
{
	const char *d = at_a_directory(), *o = directory("o"), *n = queue("a"), *f = path_in(o, "f");
	close(OK(creat(f, 0600)));
	EQ(mount(path_in(d, n), f, NULL, MS_BIND, NULL), 0);
	EQ(umount(d), 0);
	EQ(stat_at(f).st_size, 80);
	int fd = OK(open(f, O_RDWR));
	put(fd, "x", 0);
	char b[64];
	EQ(read(fd, b, 64), 60);
	SAME(b, "QSIZE:1 ", 8);
	const char *l = line_in("/proc/self/mountinfo", f, 4);
	char want[160];
	snprintf(want, sizeof want, " %s %s rw,relatime - mqueue mqueue rw\n", n, f);
	TRUE(l && strstr(l, want));
	EQ(mq_unlink(n), 0);
	EQ(stat_at(f).st_nlink, 0);
	take(fd, "x", 0);
	FAILS(umount(f), EBUSY);
	close(fd);
	EQ(umount(f), 0);
	EQ(stat_at(f).st_size, 0);
}

MOUNT_CASE("15 (bind)", a_queue_that_is_a_mount_point_cannot_be_unlinked)
{
	const char *d = at_a_directory(), *o = directory("o"), *n = queue("a"), *f = path_in(o, "f");
	close(OK(creat(f, 0600)));
	EQ(mount(f, path_in(d, n), NULL, MS_BIND, NULL), 0);
	EQ(stat_at(path_in(d, n)).st_size, 0);
	FAILS(unlink(path_in(d, n)), EBUSY);
	FAILS(mq_unlink(n), EBUSY);
	present(n);
	EQ(umount(path_in(d, n)), 0);
	EQ(mq_unlink(n), 0);
}

MOUNT_CASE("15 (bind)", a_moved_mount)
{
	begin();
	const char *n = queue("a"), *d = at_a_directory(), *e = directory("e");
	int fd = OK(open(path_in(d, n), O_RDWR));
	EQ(mount(d, e, NULL, MS_MOVE, NULL), 0);
	EQ(is_mounted(d), 0);
	EQ(exists(path_in(e, n)), 1);
	mounts_line_is(e, "mqueue %s mqueue rw,relatime 0 0", e);
	TRUE(mounts_line(d) == NULL);
	char link[64], b[256];
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t len = OK(readlink(link, b, 255));
	b[len] = 0;
	TRUE(!strcmp(b, path_in(e, n)));
}

MOUNT_CASE("15 (bind)", the_root_of_a_process)
{
	const char *d = at_a_directory(), *n = queue("a");
	CHILD {
		EQ(chroot(d), 0);
		EQ(chdir("/"), 0);
		EQ(stat_at(n).st_size, 80);
		put(OK(open(n, O_RDWR)), "x", 0);
		EQ(unlink(n), 0);
		close(OK(creat(n, 0600)));
	}
	present(n);
}

/* ---- The mount calls by descriptor ------------------------------------------------------- */

/* What mount(8) of util-linux 2.39 and later does for `mount -t mqueue SOURCE DIR`. */
static int new_mount(const char *source, unsigned attr)
{
	int fs = OK(fsopen("mqueue", FSOPEN_CLOEXEC));
	EQ(fsconfig(fs, FSCONFIG_SET_STRING, "source", source, 0), 0);
	EQ(fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0), 0);
	int m = OK(fsmount(fs, FSMOUNT_CLOEXEC, attr));
	close(fs);
	return m;
}

MOUNT_CASE("15 (fsopen)", mounted_step_by_step)
{
	begin();
	const char *d = directory("m"), *n = queue("a");
	int m = new_mount("src", 0);
	struct statx x;
	EQ(statx(m, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &x), 0);
	EQ(x.stx_mode, S_IFDIR | 01777);
	EQ(is_mounted(d), 0);
	EQ(move_mount(m, "", AT_FDCWD, d, MOVE_MOUNT_F_EMPTY_PATH), 0);
	mounts_line_is(d, "src %s mqueue rw,relatime 0 0", d);
	EQ(exists(path_in(d, n)), 1);
	FAILS(umount(d), EBUSY);
	close(m);
	EQ(umount(d), 0);
}

MOUNT_CASE("15 (fsopen)", mounted_step_by_step_by_raw_calls)
{
	begin();
	const char *d = directory("m"), *n = queue("a");
	int fs = OK(syscall(SYS_fsopen, "mqueue", FSOPEN_CLOEXEC));
	EQ(syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, "source", "src", 0), 0);
	EQ(syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0), 0);
	int m = OK(syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, 0));
	EQ(syscall(SYS_move_mount, m, "", AT_FDCWD, d, MOVE_MOUNT_F_EMPTY_PATH), 0);
	EQ(exists(path_in(d, n)), 1);
	EQ(syscall(SYS_umount2, d, MNT_DETACH), 0);
	EQ(syscall(SYS_mount, "src", d, "mqueue", 0, NULL), 0);
	EQ(exists(path_in(d, n)), 1);
	close(m);
}

MOUNT_CASE("15 (fsopen)", used_before_it_is_attached)
{
	const char *n = queue("a");
	begin();
	int m = new_mount("src", 0);
	put(OK(openat(m, n + 1, O_RDWR)), "x", 0);
	EQ(unlinkat(m, n + 1, 0), 0);
	missing(n);
	close(OK(openat(m, n + 1, O_RDWR | O_CREAT, 0600)));
	present(n);
}

MOUNT_CASE("15 (fsopen)", attributes)
{
	begin();
	const char *d = directory("m"), *n = queue("a");
	int m = new_mount("src", MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
	EQ(move_mount(m, "", AT_FDCWD, d, MOVE_MOUNT_F_EMPTY_PATH), 0);
	mounts_line_is(d, "src %s mqueue ro,nosuid,nodev,noexec,relatime 0 0", d);
	FAILS(unlink(path_in(d, n)), EROFS);
	struct mount_attr a = {.attr_clr = MOUNT_ATTR_RDONLY};
	EQ(syscall(SYS_mount_setattr, AT_FDCWD, d, 0, &a, sizeof a), 0);
	mounts_line_is(d, "src %s mqueue rw,nosuid,nodev,noexec,relatime 0 0", d);
	EQ(unlink(path_in(d, n)), 0);
}

MOUNT_CASE("15 (fsopen)", mistakes)
{
	begin();
	const char *d = directory("m");
	FAILS(fsopen("mqueueX", 0), ENODEV);
	FAILS(fsopen("mqueue", 0x10), EINVAL);
	FAILS(fsopen(NULL, 0), EFAULT);
	int fs = OK(fsopen("mqueue", 0));
	EQ(fcntl(fs, F_GETFD), 0);
	FAILS(fsmount(fs, 0, 0), EINVAL);
	FAILS(fsconfig(fs, FSCONFIG_SET_STRING, "foo", "1", 0), EINVAL);
	FAILS(fsconfig(fs, FSCONFIG_SET_FLAG, "foo", NULL, 0), EINVAL);
	EQ(fsconfig(fs, FSCONFIG_SET_FLAG, "ro", NULL, 0), 0);
	EQ(fsconfig(fs, FSCONFIG_SET_STRING, "source", "a", 0), 0);
	FAILS(fsconfig(fs, FSCONFIG_SET_STRING, "source", "b", 0), EINVAL);
	EQ(fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0), 0);
	FAILS(fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0), EBUSY);
	FAILS(fsconfig(fs, FSCONFIG_SET_FLAG, "ro", NULL, 0), EBUSY);
	FAILS(fsmount(fs, 0x10, 0), EINVAL);
	FAILS(fsmount(fs, 0, 1 << 30), EINVAL);
	int m = OK(fsmount(fs, 0, 0));
	FAILS(fsmount(fs, 0, 0), EBUSY);
	FAILS(move_mount(m, "", AT_FDCWD, path_in(d, "missing"), MOVE_MOUNT_F_EMPTY_PATH), ENOENT);
	close(OK(creat(path_in(d, "f"), 0600)));
	FAILS(move_mount(m, "", AT_FDCWD, path_in(d, "f"), MOVE_MOUNT_F_EMPTY_PATH), EINVAL);
	EQ(move_mount(m, "", AT_FDCWD, d, MOVE_MOUNT_F_EMPTY_PATH), 0);
	mounts_line_is(d, "a %s mqueue rw,relatime 0 0", d);
}

MOUNT_CASE("15 (fsopen)", without_a_source)
{
	begin();
	const char *d = directory("m");
	int fs = OK(fsopen("mqueue", 0));
	EQ(fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0), 0);
	EQ(move_mount(OK(fsmount(fs, 0, 0)), "", AT_FDCWD, d, MOVE_MOUNT_F_EMPTY_PATH), 0);
	mounts_line_is(d, "none %s mqueue rw,relatime 0 0", d);
}

MOUNT_CASE("15 (fsopen)", twice_on_one_directory_is_not_busy)
{
	begin();
	const char *d = at_a_directory();
	int m = new_mount("src", 0);
	EQ(move_mount(m, "", AT_FDCWD, d, MOVE_MOUNT_F_EMPTY_PATH), 0);
	close(m);
	EQ(umount(d), 0);
	EQ(is_mounted(d), 1);
	EQ(umount(d), 0);
	EQ(is_mounted(d), 0);
}

MOUNT_CASE("15 (fsopen)", never_attached_goes_with_its_descriptor)
{
	const char *n = queue("a");
	begin();
	int m = new_mount("src", 0);
	int fd = OK(openat(m, n + 1, O_RDWR));
	close(m);
	put(fd, "x", 0);
	present(n);
}

MOUNT_CASE("15 (fsopen)", open_tree_binds)
{
	const char *d = at_a_directory(), *e = directory("e"), *n = queue("a");
	int t = OK(open_tree(AT_FDCWD, d, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
	EQ(fcntl(t, F_GETFD), FD_CLOEXEC);
	struct mount_attr a = {.attr_set = MOUNT_ATTR_RDONLY};
	EQ(syscall(SYS_mount_setattr, t, "", AT_EMPTY_PATH, &a, sizeof a), 0);
	EQ(move_mount(t, "", AT_FDCWD, e, MOVE_MOUNT_F_EMPTY_PATH), 0);
	mounts_line_is(e, "mqueue %s mqueue ro,relatime 0 0", e);
	mounts_line_is(d, "mqueue %s mqueue rw,relatime 0 0", d);
	FAILS(unlink(path_in(e, n)), EROFS);
	EQ(unlink(path_in(d, n)), 0);
}

MOUNT_CASE("15 (fsopen)", open_tree_without_clone_is_the_mount_itself)
{
	const char *d = at_a_directory(), *e = directory("e"), *n = queue("a");
	int t = OK(open_tree(AT_FDCWD, d, 0));
	FAILS(umount(d), EBUSY);
	EQ(move_mount(t, "", AT_FDCWD, e, MOVE_MOUNT_F_EMPTY_PATH), 0);
	EQ(is_mounted(d), 0);
	EQ(exists(path_in(e, n)), 1);
	EQ(move_mount(AT_FDCWD, e, AT_FDCWD, d, 0), 0);
	EQ(exists(path_in(d, n)), 1);
}

MOUNT_CASE("15 (fsopen)", fspick_reconfigures)
{
	EQ(unshare(CLONE_NEWIPC), 0);
	const char *d = at_a_directory();
	int fs = OK(fspick(AT_FDCWD, d, FSPICK_CLOEXEC));
	EQ(fsconfig(fs, FSCONFIG_SET_FLAG, "ro", NULL, 0), 0);
	EQ(fsconfig(fs, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0), 0);
	FAILS(mq_open("/a", O_RDWR | O_CREAT, 0600, ATTR(1, 1)), EROFS);
	mounts_line_is(d, "mqueue %s mqueue ro,relatime 0 0", d);
	fs = OK(fspick(AT_FDCWD, d, FSPICK_CLOEXEC));
	EQ(fsconfig(fs, FSCONFIG_SET_FLAG, "rw", NULL, 0), 0);
	EQ(fsconfig(fs, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0), 0);
	OK(mq_open("/a", O_RDWR | O_CREAT, 0600, ATTR(1, 1)));
}

/* ---- Read-only --------------------------------------------------------------------------- */

/* All that a read-only mount refuses, on a directory that shows queue n. */
static void read_only(const char *d, const char *n)
{
	const char *p = path_in(d, n), *new = path_in(d, "new");
	FAILS(creat(new, 0600), EROFS);
	FAILS(open(new, O_RDWR | O_CREAT, 0600), EROFS);
	FAILS(mknod(new, S_IFREG | 0600, 0), EROFS);
	FAILS(mkdir(new, 0700), EROFS);
	FAILS(symlink("x", new), EROFS);
	FAILS(mkfifo(new, 0600), EROFS);
	FAILS(link(p, new), EROFS);
	FAILS(rename(p, new), EROFS);
	FAILS(unlink(p), EROFS);
	FAILS(open(p, O_RDWR), EROFS);
	FAILS(open(p, O_WRONLY), EROFS);
	FAILS(open(p, O_RDONLY | O_TRUNC), EROFS);
	FAILS(creat(p, 0600), EROFS);
	FAILS(truncate(p, 0), EROFS);
	FAILS(chmod(p, 0600), EROFS);
	FAILS(chown(p, -1, -1), EROFS);
	FAILS(utimensat(AT_FDCWD, p, NULL, 0), EROFS);
	FAILS(access(p, W_OK), EROFS);
	FAILS(chmod(d, 0700), EROFS);
	/* What says so first. */
	FAILS(mkdir(p, 0700), EEXIST);
	FAILS(mknod(p, S_IFREG | 0600, 0), EEXIST);
	FAILS(open(p, O_RDWR | O_CREAT | O_EXCL, 0600), EEXIST);
	FAILS(open(new, O_RDWR), ENOENT);
	FAILS(truncate(new, 0), ENOENT);
	/* What stays. */
	EQ(access(p, R_OK), 0);
	int fd = OK(open(p, O_RDONLY | O_NONBLOCK));
	char b[64];
	EQ(read(fd, b, 64), 60);
	FAILS(mq_receive(fd, b, 8, NULL), EAGAIN);
	close(fd);
	EQ(close(OK(open(p, O_RDONLY | O_CREAT, 0600))), 0);
	EQ(stat_at(p).st_size, 80);
}

FILE_CASE("15 (read-only)", unlink_of_the_missing_on_a_read_only_mount)
{
	begin();
	const char *d = directory("m");
	EQ(mount("x", d, "mqueue", MS_RDONLY, NULL), 0);
	FAILS(unlink(path_in(d, "missing")), EROFS);
	FAILS(rename(path_in(d, "missing"), path_in(d, "new")), EROFS);
	FAILS(link(path_in(d, "missing"), path_in(d, "new")), ENOENT);
	FAILS(rmdir(path_in(d, "missing")), EROFS);
}

FILE_CASE("15 (read-only)", mounted_read_only_is_so_through_that_mount_only)
{
	const char *n = queue("a"), *m = qname("b"), *d = at_a_directory(), *e = directory("e");
	EQ(mount("ro", e, "mqueue", MS_RDONLY, NULL), 0);
	mounts_line_is(e, "ro %s mqueue ro,relatime 0 0", e);
	read_only(e, n);
	close(OK(creat(path_in(d, m), 0600)));
	EQ(exists(path_in(e, m)), 1);
	EQ(unlink(path_in(d, m)), 0);
	mqd_t q = OK(mq_open(n, O_RDWR));
	put(q, "x", 0);
	int fd = OK(open(path_in(e, n), O_RDONLY));
	take(fd, "x", 0);
	EQ(fchmod(q, 0640), 0);
	FAILS(fchmod(fd, 0600), EROFS);
	EQ(mq_unlink(n), 0);
	EQ(exists(path_in(e, n)), 0);
}

MOUNT_CASE("15 (read-only)", bind_remount_read_only_and_back)
{
	const char *n = queue("a"), *d = at_a_directory(), *e = at_a_directory();
	EQ(mount(NULL, e, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL), 0);
	const char *l = line_in("/proc/self/mountinfo", e, 4);
	TRUE(l && strstr(l, " ro,relatime - mqueue mqueue rw\n"));
	read_only(e, n);
	OK(open(path_in(d, n), O_RDWR));
	EQ(mount(NULL, e, NULL, MS_REMOUNT | MS_BIND, NULL), 0);
	OK(open(path_in(e, n), O_RDWR));
	EQ(unlink(path_in(e, n)), 0);
}

MOUNT_CASE("15 (read-only)", bind_remount_is_busy_while_something_is_open_for_writing_through_it)
{
	const char *n = queue("a"), *d = at_a_directory();
	int fd = OK(open(path_in(d, n), O_WRONLY));
	FAILS(mount(NULL, d, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL), EBUSY);
	close(fd);
	fd = OK(open(path_in(d, n), O_RDONLY));
	mqd_t q = OK(mq_open(n, O_RDWR));
	EQ(mount(NULL, d, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL), 0);
	put(q, "x", 0);
	take(fd, "x", 0);
}

MOUNT_CASE("15 (read-only)", remounted_file_system_is_read_only_in_the_whole_namespace)
{
	EQ(unshare(CLONE_NEWIPC), 0);
	const char *n = queue("a"), *d = at_a_directory(), *e = at_a_directory();
	mqd_t r = OK(mq_open(n, O_RDONLY | O_NONBLOCK));
	EQ(mount(NULL, d, NULL, MS_REMOUNT | MS_RDONLY, NULL), 0);
	const char *l = line_in("/proc/self/mountinfo", d, 4);
	TRUE(l && strstr(l, " ro,relatime - mqueue mqueue ro\n"));
	l = line_in("/proc/self/mountinfo", e, 4);
	TRUE(l && strstr(l, " rw,relatime - mqueue mqueue ro\n"));
	mounts_line_is(e, "mqueue %s mqueue ro,relatime 0 0", e);
	read_only(d, n);
	read_only(e, n);
	FAILS(mq_open("/new", O_RDWR | O_CREAT, 0600, ATTR(1, 1)), EROFS);
	FAILS(mq_open(n, O_RDWR), EROFS);
	FAILS(mq_open(n, O_WRONLY), EROFS);
	FAILS(mq_open("/new", O_RDWR), ENOENT);
	FAILS(mq_open(n, O_RDWR | O_CREAT | O_EXCL, 0600, ATTR(1, 1)), EEXIST);
	EQ(mq_close(OK(mq_open(n, O_RDONLY))), 0);
	EQ(mq_close(OK(mq_open(n, O_RDONLY | O_CREAT, 0600, NULL))), 0);
	FAILS(mq_unlink(n), EROFS);
	FAILS(mq_unlink("/missing"), EROFS);
	FAILS(fchmod(r, 0600), EROFS);
	FAILS(mq_receive(r, (char[8]){0}, 8, NULL), EAGAIN);
	EQ(mount(NULL, e, NULL, MS_REMOUNT, NULL), 0);
	l = line_in("/proc/self/mountinfo", d, 4);
	TRUE(l && strstr(l, " ro,relatime - mqueue mqueue rw\n"));
	present(n);
	FAILS(unlink(path_in(d, n)), EROFS);
	EQ(unlink(path_in(e, n)), 0);
}

MOUNT_CASE("15 (read-only)", remount_is_busy_while_a_queue_is_open_for_writing)
{
	EQ(unshare(CLONE_NEWIPC), 0);
	const char *n = queue("a"), *d = at_a_directory();
	mqd_t q = OK(mq_open(n, O_WRONLY));
	FAILS(mount(NULL, d, NULL, MS_REMOUNT | MS_RDONLY, NULL), EBUSY);
	EQ(exists(path_in(d, n)), 1);
	mq_close(q);
	q = OK(mq_open(n, O_RDONLY));
	EQ(mount(NULL, d, NULL, MS_REMOUNT | MS_RDONLY, NULL), 0);
	EQ(mount(NULL, d, NULL, MS_REMOUNT, NULL), 0);
	EQ(mq_close(OK(mq_open(n, O_RDWR))), 0);
}

MOUNT_CASE("15 (read-only)", remount_is_busy_while_a_queue_without_a_name_is_open)
{
	EQ(unshare(CLONE_NEWIPC), 0);
	const char *n = queue("a"), *d = at_a_directory();
	mqd_t q = OK(mq_open(n, O_RDONLY));
	EQ(mq_unlink(n), 0);
	FAILS(mount(NULL, d, NULL, MS_REMOUNT | MS_RDONLY, NULL), EBUSY);
	mq_close(q);
	EQ(mount(NULL, d, NULL, MS_REMOUNT | MS_RDONLY, NULL), 0);
}

MOUNT_CASE("15 (remount)", remount_changes_flags)
{
	const char *d = at_a_directory();
	EQ(mount(NULL, d, NULL, MS_REMOUNT | MS_NOSUID | MS_NOEXEC, NULL), 0);
	mounts_line_is(d, "mqueue %s mqueue rw,nosuid,noexec,relatime 0 0", d);
	EQ(mount("other", d, "mqueue", MS_REMOUNT | MS_BIND | MS_NODEV, NULL), 0);
	mounts_line_is(d, "mqueue %s mqueue rw,nodev,relatime 0 0", d);
	FAILS(mount(NULL, path_in(d, ".."), NULL, MS_REMOUNT | MS_BIND, NULL), EINVAL);
	FAILS(mount(NULL, d, NULL, MS_REMOUNT, "foo=1"), EINVAL);
}

/* ---- Mount namespaces -------------------------------------------------------------------- */

MOUNT_CASE("15 (mount namespace)", a_copied_mount_namespace_has_the_mount)
{
	const char *d = at_a_directory(), *n = queue("a");
	CHILD {
		EQ(unshare(CLONE_NEWNS), 0);
		EQ(exists(path_in(d, n)), 1);
		mounts_line_is(d, "mqueue %s mqueue rw,relatime 0 0", d);
		EQ(umount(d), 0);
		EQ(exists(path_in(d, n)), 0);
	}
	EQ(exists(path_in(d, n)), 1);
}

MOUNT_CASE("15 (mount namespace)", a_copy_outlives_the_original)
{
	const char *d = at_a_directory(), *n = queue("a");
	pid_t p;
	ASYNC(p) {
		EQ(unshare(CLONE_NEWNS), 0);
		mark(0);
		await_mark(1);
		EQ(exists(path_in(d, n)), 1);
		EQ(umount(d), 0);
	}
	await_mark(0);
	EQ(umount(d), 0);
	mark(1);
	join(p);
}

MOUNT_CASE("15 (mount namespace)", a_mount_elsewhere_is_not_seen)
{
	begin();
	const char *d = directory("m"), *n = queue("a");
	pid_t p;
	char other[64];
	ASYNC(p) {
		EQ(unshare(CLONE_NEWNS), 0);
		EQ(mount("x", d, "mqueue", 0, NULL), 0);
		mark(0);
		await_mark(1);
	}
	await_mark(0);
	EQ(exists(path_in(d, n)), 0);
	TRUE(mounts_line(d) == NULL);
	FAILS(umount(d), EINVAL);
	snprintf(other, sizeof other, "/proc/%d/mounts", p);
	TRUE(line_in(other, d, 1) != NULL);
	snprintf(other, sizeof other, "/proc/%d/root%s", p, d);
	EQ(stat_at(path_in(other, n)).st_size, 80);
	put(OK(open(path_in(other, n), O_RDWR)), "x", 0);
	snprintf(other, sizeof other, "/proc/%d/ns/mnt", p);
	CHILD {
		EQ(setns(OK(open(other, O_RDONLY)), CLONE_NEWNS), 0);
		EQ(exists(path_in(d, n)), 1);
	}
	mark(1);
	join(p);
}

FILE_CASE("15 (mount namespace)", a_childs_mount_is_the_parents)
{
	begin();
	const char *d = directory("m"), *n = queue("a");
	CHILD {
		EQ(mount("x", d, "mqueue", 0, NULL), 0);
	}
	EQ(exists(path_in(d, n)), 1);
	CHILD {
		EQ(exists(path_in(d, n)), 1);
		EQ(umount(d), 0);
	}
	EQ(exists(path_in(d, n)), 0);
}

static void *mount_there(void *d)
{
	EQ(mount("x", d, "mqueue", 0, NULL), 0);
	return NULL;
}
FILE_CASE("15 (mount namespace)", a_threads_mount_is_the_process)
{
	begin();
	const char *d = directory("m"), *n = queue("a");
	in_thread(mount_there, (void *)d);
	EQ(exists(path_in(d, n)), 1);
	EQ(umount(d), 0);
}

MOUNT_CASE("15 (mount namespace)", mounts_spread_to_peers)
{
	begin();
	const char *o = directory("o"), *n = queue("a");
	EQ(mount("tmp", o, "tmpfs", 0, NULL), 0);
	EQ(mount(NULL, o, NULL, MS_SHARED, NULL), 0);
	const char *d = path_in(o, "m");
	EQ(mkdir(d, 0755), 0);
	pid_t p;
	ASYNC(p) {
		EQ(unshare(CLONE_NEWNS), 0);
		EQ(mount("x", d, "mqueue", 0, NULL), 0);
		mark(0);
		await_mark(1);
		EQ(exists(path_in(d, n)), 0);
	}
	await_mark(0);
	EQ(exists(path_in(d, n)), 1);
	EQ(umount(d), 0);
	mark(1);
	join(p);
}

HELPER(sees)
{
	(void)argc;
	EQ(stat_at(argv[0]).st_size, 80);
	put(OK(open(argv[0], O_RDWR)), "x", 0);
	return 0;
}
FILE_CASE("15 (mount namespace)", a_program_execed_sees_the_mount)
{
	const char *d = at_a_directory(), *n = queue("a");
	CHILD {
		exec_helper("sees", path_in(d, n), NULL);
	}
	take(OK(mq_open(n, O_RDWR)), "x", 0);
}

FILE_CASE("15 (mount namespace)", a_mount_outlives_who_mounted)
{
	begin();
	const char *d = directory("m"), *n = queue("a");
	CHILD {
		CHILD {
			EQ(mount("x", d, "mqueue", 0, NULL), 0);
		}
	}
	EQ(exists(path_in(d, n)), 1);
}

/* ---- User namespaces --------------------------------------------------------------------- */

MOUNT_CASE("15 (user namespace)", its_root_mounts_its_own_queues)
{
	const char *d = directory("m"), *n = qname("a");
	uid_t u = user(0);
	EQ(chmod(d, 0777), 0);
	CHILD {
		become_ordinary(u);
		EQ(unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWIPC), 0);
		map_ids(u, u);
		EQ(mount("x", d, "mqueue", 0, NULL), 0);
		EQ(is_mounted(d), 1);
		struct stat st = stat_at(d);
		EQ(st.st_mode, S_IFDIR | 01777);
		EQ(st.st_uid, 0);
		EQ(st.st_gid, 0);
		make(n, O_RDWR, 1, 8);
		st = stat_at(path_in(d, n));
		EQ(st.st_uid, 0);
		EQ(unlink(path_in(d, n)), 0);
		close(OK(creat(path_in(d, n), 0600)));
		present(n);
		const char *l = mounts_line(d);
		char want[128];
		snprintf(want, sizeof want, "x %s mqueue rw,relatime 0 0\n", d);
		TRUE(l && !strcmp(l, want));
		EQ(umount(d), 0);
	}
	EQ(is_mounted(d), 0);
}

MOUNT_CASE("15 (user namespace)", step_by_step_too)
{
	const char *d = directory("m"), *n = qname("a");
	uid_t u = user(0);
	CHILD {
		become_ordinary(u);
		EQ(unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWIPC), 0);
		map_ids(u, u);
		EQ(move_mount(new_mount("src", 0), "", AT_FDCWD, d, MOVE_MOUNT_F_EMPTY_PATH), 0);
		make(n, O_RDWR, 1, 8);
		EQ(exists(path_in(d, n)), 1);
	}
}

MOUNT_CASE("15 (user namespace)", its_root_does_not_mount_the_parents_queues)
{
	const char *d = directory("m");
	uid_t u = user(0);
	CHILD {
		become_ordinary(u);
		EQ(unshare(CLONE_NEWUSER | CLONE_NEWNS), 0);
		map_ids(u, u);
		FAILS(mount("x", d, "mqueue", 0, NULL), EPERM);
		FAILS(mount("x", d, "mqueue", 0, "foo=1"), EINVAL);
		FAILS(mount("x", d, "mqueueX", 0, NULL), ENODEV);
		EQ(mount("x", d, "tmpfs", 0, NULL), 0);
		EQ(unshare(CLONE_NEWIPC), 0);
		EQ(mount("x", d, "mqueue", 0, NULL), 0);
	}
}

MOUNT_CASE("15 (user namespace)", without_a_mount_namespace_of_its_own_it_mounts_nothing)
{
	const char *d = directory("m");
	uid_t u = user(0);
	CHILD {
		become_ordinary(u);
		EQ(unshare(CLONE_NEWUSER | CLONE_NEWIPC), 0);
		map_ids(u, u);
		FAILS(mount("x", d, "mqueue", 0, NULL), EPERM);
		FAILS(umount(d), EPERM);
	}
}

MOUNT_CASE("15 (user namespace)", inherited_mounts_cannot_be_taken_off)
{
	const char *d = at_a_directory(), *n = queue("a"), *e = directory("e");
	uid_t u = user(0);
	CHILD {
		become_ordinary(u);
		EQ(unshare(CLONE_NEWUSER | CLONE_NEWNS), 0);
		map_ids(u, u);
		EQ(exists(path_in(d, n)), 1);
		FAILS(umount(d), EINVAL);
		FAILS(umount2(d, MNT_DETACH), EINVAL);
		FAILS(mount(NULL, d, NULL, MS_REMOUNT | MS_RDONLY, NULL), EPERM);
		EQ(mount(d, e, NULL, MS_BIND, NULL), 0);
		EQ(umount(e), 0);
		EQ(mount(d, e, NULL, MS_BIND | MS_REC, NULL), 0);
		EQ(exists(path_in(e, n)), 1);
		EQ(umount(e), 0);
	}
}

MOUNT_CASE("15 (user namespace)", before_ids_are_mapped_mounting_works_and_creating_does_not)
{
	const char *d = directory("m"), *n = qname("a");
	uid_t u = user(0);
	CHILD {
		become_ordinary(u);
		EQ(unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWIPC), 0);
		EQ(mount("x", d, "mqueue", 0, NULL), 0);
		FAILS(creat(path_in(d, n), 0600), EOVERFLOW);
		EQ(stat_at(d).st_uid, 65534);
		map_ids(u, u);
		EQ(stat_at(d).st_uid, 0);
		close(OK(creat(path_in(d, n), 0600)));
	}
}
