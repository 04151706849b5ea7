/*
 * ns_isolation WHAT: who reaches the queues of an IPC namespace. For root; the others are users 12345, 12346.
 *
 *   member     a member that has dropped its user goes on, also after exec, fork, in threads
 *   stranger   a process of another user, who is no member, with every call for it
 *   mounted    the same while the namespace file is mounted where that user sees it
 *   given      the same with a descriptor of one queue and one of the namespace; these show a path to who looks
 *              past the library (docs/limitations.md), so that he doesn't look there
 *   userns     a namespace that user 12345 has made (with CLONE_NEWUSER), and user 12346
 *
 *   after, walk ROOT HOLDER: its own further programs
 *
 * Where $MQNS_DIR is set the stranger, without the library, tries everything there that opendir and open
 * allow, every path that /proc tells, and below each of them the names that it sees elsewhere. Prints what
 * is wrong. Exit status 0 if all is well.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <mqueue.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

enum { USER = 12345, OTHER = 12346 };

static struct mq_attr attr = {.mq_maxmsg = 4, .mq_msgsize = 64};
static int wrong;
static char *self;

static void say(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
	wrong = 1;
}

/* The result is the error expected, or not negative for 0. */
static void gives(const char *who, const char *what, long result, int expected)
{
	int error = result < 0 ? errno : 0;

	if (error != expected)
		say("%s: %s: %s, not %s", who, what, error ? strerrorname_np(error) : "ok",
		    expected ? strerrorname_np(expected) : "ok");
}

static void must(const char *what, long result)
{
	if (result < 0) {
		say("%s: %s", what, strerrorname_np(errno));
		_exit(1);
	}
}

static void become(uid_t id)
{
	must("setgroups", setgroups(0, NULL));
	must("setresgid", setresgid(id, id, id));
	must("setresuid", setresuid(id, id, id));
}

static int create(const char *name, mode_t mode)
{
	mqd_t q = mq_open(name, O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK, mode, &attr);

	if (q != (mqd_t)-1)
		must("mq_send", mq_send(q, name, strlen(name), 0));
	return q;
}

static int ends_well(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) != pid || status != 0) {
		say("a process ended with status %#x", status);
		return 0;
	}
	return 1;
}

/* ---- members ---- */

/* What user 12345 can do in the namespace in which root has made /all and /own. */
static void as_member(const char *who)
{
	char text[64], name[64];
	mqd_t q = mq_open("/all", O_RDWR | O_NONBLOCK);

	gives(who, "open of a queue for all", q, 0);
	gives(who, "receive", mq_receive(q, text, sizeof text, NULL), 0);
	gives(who, "send", mq_send(q, "again", 5, 0), 0);
	mq_close(q);
	gives(who, "open of root's own queue", mq_open("/own", O_RDWR), EACCES);
	snprintf(name, sizeof name, "/%.60s", who);
	for (char *c = name; *c; c++)
		if (*c == ' ')
			*c = '_';
	q = create(name, 0600);
	gives(who, "creating a queue", q, 0);
	mq_close(q);
	gives(who, "unlinking it", mq_unlink(name), 0);
	gives(who, "unlinking root's", mq_unlink("/all"), EACCES);
	gives(who, "unshare", unshare(CLONE_NEWIPC), EPERM);
}

static void *member_thread(void *unused)
{
	as_member("a thread of a member");
	return unused;
}

static void member(void)
{
	struct stat before, after;
	char number[32];
	pthread_t thread;
	pid_t pid;

	must("unshare", unshare(CLONE_NEWIPC));
	must("create", create("/all", 0666));
	must("create", create("/own", 0600));
	must("stat", stat("/proc/self/ns/ipc", &before));
	become(USER);
	as_member("a member that has dropped its user");
	must("stat", stat("/proc/self/ns/ipc", &after));
	if (before.st_ino != after.st_ino)
		say("dropping the user has changed the namespace file");
	pid = fork();
	if (pid == 0) {
		as_member("a child of a member");
		_exit(wrong);
	}
	ends_well(pid);
	if (pthread_create(&thread, NULL, member_thread, NULL) == 0)
		pthread_join(thread, NULL);
	snprintf(number, sizeof number, "%lu", (unsigned long)before.st_ino);
	pid = vfork();
	if (pid == 0) {
		execl(self, self, "after", number, (char *)NULL);
		_exit(1);
	}
	ends_well(pid);
	if (wrong)
		_exit(1);
	execl(self, self, "after", number, (char *)NULL);
	must("exec", -1);
}

static void after(const char *number)
{
	struct stat st;

	as_member("a member after exec");
	must("stat", stat("/proc/self/ns/ipc", &st));
	if (st.st_ino != strtoul(number, NULL, 10))
		say("exec has changed the namespace");
	_exit(wrong);
}

/* ---- strangers, with the library ---- */

static void as_stranger(pid_t holder, int ns)
{
	static const char who[] = "a stranger";
	char path[64], text[64];
	struct stat st;
	int pidfd = (int)syscall(SYS_pidfd_open, holder, 0);

	gives(who, "mq_open", mq_open("/all", O_RDONLY), ENOENT);
	gives(who, "mq_unlink", mq_unlink("/all"), ENOENT);
	snprintf(path, sizeof path, "/proc/%d/ns/ipc", (int)holder);
	gives(who, "open of the namespace file", open(path, O_RDONLY), EACCES);
	gives(who, "readlink", readlink(path, text, sizeof text), EACCES);
	gives(who, "stat", stat(path, &st), EACCES);
	gives(who, "setns on a pidfd", setns(pidfd, CLONE_NEWIPC), EPERM);
	if (ns >= 0)
		gives(who, "setns on a descriptor that was given", setns(ns, CLONE_NEWIPC), EPERM);
	gives(who, "mq_open afterwards", mq_open("/all", O_RDONLY), ENOENT);
	close(pidfd);
}

/* ---- strangers, without it ---- */

static char seen[4096][256]; /* paths below a namespace directory that anybody may list */
static int seen_count;

/* Everything below a directory that is open to all: which names there are. */
static void remember(const char *dir, const char *below)
{
	char path[PATH_MAX], rel[PATH_MAX];
	struct dirent *entry;
	DIR *d = opendir(dir);

	while (d && (entry = readdir(d))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		snprintf(path, sizeof path, "%.2000s/%s", dir, entry->d_name);
		snprintf(rel, sizeof rel, "%.2000s%s%s", below, *below ? "/" : "", entry->d_name);
		if (seen_count < 4096 && strlen(rel) < sizeof seen[0])
			strcpy(seen[seen_count++], rel);
		remember(path, rel);
	}
	if (d)
		closedir(d);
}

/* ROOT/uUID/bID: what is bind mounted in the place of a namespace. */
static int is_stand_in(const char *path)
{
	const char *name = strrchr(path, '/') + 1;
	return name[0] == 'b' && isdigit((unsigned char)name[1]) && strspn(name + 1, "0123456789") == strlen(name + 1);
}

/* Tries one path in every manner, and what is below it. */
static void attack(const char *path)
{
	static const int modes[] = {O_RDONLY, O_WRONLY, O_RDWR};
	struct dirent *entry;
	struct stat st;
	DIR *d;

	d = opendir(path);
	while (d && (entry = readdir(d))) {
		char below[PATH_MAX];
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		snprintf(below, sizeof below, "%.2000s/%s", path, entry->d_name);
		say("listed: %s", below);
		attack(below);
	}
	if (d)
		closedir(d);
	for (int i = 0; i < 3; i++) {
		int fd = open(path, modes[i] | O_NONBLOCK | O_NOFOLLOW);
		/* What is mounted is for all to read, wherever; it tells nothing. */
		if (fd >= 0 && fstat(fd, &st) == 0 && !S_ISDIR(st.st_mode) && !(i == 0 && is_stand_in(path)))
			say("opened: %s (%s)", path, (const char *[]){"r", "w", "rw"}[i]);
		if (fd >= 0)
			close(fd);
	}
	if (lstat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
		char file[PATH_MAX];
		int fd;
		snprintf(file, sizeof file, "%.2000s/stranger", path);
		fd = open(file, O_RDWR | O_CREAT | O_EXCL, 0600);
		if (fd >= 0)
			say("created: %s", file);
		if (fd >= 0)
			close(fd);
		unlink(file);
		if (chmod(path, 0777) == 0)
			say("chmod: %s", path);
	}
}

/* A namespace's directory, or something that was found to lead to it. */
static void attack_below(const char *dir)
{
	char path[PATH_MAX];

	attack(dir);
	for (int i = 0; i < seen_count; i++) {
		snprintf(path, sizeof path, "%.2000s/%s", dir, seen[i]);
		attack(path);
	}
}

/* A text that may tell paths below the root: ROOT's last name, then u<UID>, then more. */
static void learn(const char *root, const char *where, const char *text, size_t length)
{
	const char *base = strrchr(root, '/') + 1, *end = text + length;
	size_t base_length = strlen(base);

	for (const char *p = text; (p = memmem(p, (size_t)(end - p), base, base_length)); p++) {
		const char *at = p + base_length;
		char path[PATH_MAX];
		size_t n = 0;

		if (end - at < 3 || at[0] != '/' || at[1] != 'u' || !isdigit((unsigned char)at[2]))
			continue;
		while (at + n < end && !isspace((unsigned char)at[n]) && at[n] && n < 1000)
			n++;
		snprintf(path, sizeof path, "%s%.*s", root, (int)n, at);
		int before = wrong;
		/* It and the directories above, up to the namespace's. */
		for (char *slash = path + strlen(path); slash > path + strlen(root) + 1; slash = strrchr(path, '/')) {
			*slash = 0;
			attack_below(path);
		}
		if (wrong != before)
			say("through: %s: %.*s", where, (int)n, at);
	}
}

static void learn_from(const char *root, const char *format, const char *pid)
{
	static char buffer[1 << 20];
	char path[PATH_MAX];
	ssize_t n, all = 0;
	int fd;

	snprintf(path, sizeof path, format, pid);
	fd = open(path, O_RDONLY | O_NONBLOCK);
	while (fd >= 0 && all < (ssize_t)sizeof buffer && (n = read(fd, buffer + all, sizeof buffer - (size_t)all)) > 0)
		all += n;
	if (fd >= 0)
		close(fd);
	learn(root, path, buffer, (size_t)all);
}

static void learn_from_links(const char *root, const char *format, const char *pid)
{
	char dir[PATH_MAX], path[PATH_MAX], target[PATH_MAX];
	struct dirent *entry;
	DIR *d;

	snprintf(dir, sizeof dir, format, pid);
	d = opendir(dir);
	while (d && (entry = readdir(d))) {
		snprintf(path, sizeof path, "%.2000s/%s", dir, entry->d_name);
		ssize_t n = readlink(path, target, sizeof target);
		if (n > 0)
			learn(root, path, target, (size_t)n);
	}
	if (d)
		closedir(d);
}

static void walk(const char *root, const char *holder)
{
	char path[PATH_MAX], moved[PATH_MAX];
	struct dirent *entry;
	DIR *d = opendir(root);
	int found = 0;

	while (d && (entry = readdir(d)))
		if (entry->d_name[0] == 'i') {
			snprintf(path, sizeof path, "%.2000s/%s", root, entry->d_name);
			remember(path, "");
		}
	if (d)
		rewinddir(d);
	while (d && (entry = readdir(d))) {
		if (entry->d_name[0] != 'u' || !isdigit((unsigned char)entry->d_name[1]))
			continue;
		found++;
		snprintf(path, sizeof path, "%.2000s/%s", root, entry->d_name);
		attack_below(path);
		snprintf(moved, sizeof moved, "%.2000s/stranger", root);
		if (rename(path, moved) == 0)
			say("renamed: %s", path);
		if (rmdir(path) == 0)
			say("removed: %s", path);
	}
	if (d)
		closedir(d);
	/* An unreadable root hides as well; the tests' is readable. */
	if (!found || !seen_count)
		say("nothing to attack in %s: %d namespaces, %d known names", root, found, seen_count);
	for (const char *const *pid = (const char *const[]){"self", holder, NULL}; *pid; pid++) {
		static const char *const files[] = {"/proc/%s/maps",      "/proc/%s/smaps", "/proc/%s/environ",   "/proc/%s/cmdline",
						    "/proc/%s/mountinfo", "/proc/%s/mounts", "/proc/%s/mountstats", NULL};
		for (int i = 0; files[i]; i++)
			learn_from(root, files[i], *pid);
		learn_from_links(root, "/proc/%s/fd", *pid);
		learn_from_links(root, "/proc/%s/map_files", *pid);
		learn_from_links(root, "/proc/%s/ns", *pid);
	}
	learn_from(root, "/proc/locks%.0s", "");
	learn_from(root, "/proc/net/unix%.0s", "");
	_exit(wrong);
}

/* From here on the process is a stranger: first with the library, then without it. */
static void be_stranger(uid_t id, pid_t holder, int ns)
{
	const char *root = getenv("MQNS_DIR");
	char pid[16];

	become(id);
	as_stranger(holder, ns);
	/* Now the names that the first namespace shows are those of the other's queues. */
	must("create", create("/all", 0666));
	snprintf(pid, sizeof pid, "%d", (int)holder);
	if (!root || wrong || ns >= 0)
		_exit(wrong);
	execle(self, self, "walk", root, pid, (char *)NULL, (char *[]){NULL});
	must("exec", -1);
}

static void stranger(const char *what)
{
	int said[2], gate[2], home = open("/proc/self/ns/ipc", O_RDONLY | O_CLOEXEC);
	int given = !strcmp(what, "given");
	char byte, path[64], target[] = "/tmp/ns_isolation.XXXXXX";
	pid_t holder, pid;

	umask(0);
	must("create", create("/own", 0600));
	must("create", create("/given", 0666));
	must("pipe", pipe2(said, O_CLOEXEC) | pipe2(gate, O_CLOEXEC));
	holder = fork();
	must("fork", holder);
	if (holder == 0) {
		close(gate[1]);
		must("unshare", unshare(CLONE_NEWIPC));
		must("create", create("/all", 0666));
		must("create", create("/own", 0600));
		mqd_t q = create("/given", 0666);
		must("create", q);
		if (given) {
			int ns = open("/proc/self/ns/ipc", O_RDONLY | O_CLOEXEC);
			must("open", ns);
			/* A child that goes home is a member no more. */
			holder = getpid();
			pid = fork();
			if (pid == 0) {
				must("setns", setns(home, CLONE_NEWIPC));
				fcntl(q, F_SETFD, 0);
				fcntl(ns, F_SETFD, 0);
				be_stranger(USER, holder, ns);
			}
			_exit(!ends_well(pid));
		}
		must("write", write(said[1], "", 1));
		must("read", read(gate[0], &byte, 1));
		_exit(0);
	}
	close(said[1]);
	if (!given) {
		must("the holder", read(said[0], &byte, 1) == 1 ? 0 : -1);
		if (!strcmp(what, "mounted")) {
			int fd = mkstemp(target);
			must("mkstemp", fd);
			close(fd);
			snprintf(path, sizeof path, "/proc/%d/ns/ipc", (int)holder);
			must("mount", mount(path, target, NULL, MS_BIND, NULL));
		}
		pid = fork();
		must("fork", pid);
		if (pid == 0) {
			be_stranger(USER, holder, -1);
		}
		ends_well(pid);
		if (!strcmp(what, "mounted")) {
			must("umount", umount(target));
			unlink(target);
		}
	}
	close(gate[1]);
	ends_well(holder);
	_exit(wrong);
}

static void write_map(pid_t pid, const char *file, const char *text)
{
	char path[64];
	int fd;

	snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
	must(path, fd = open(path, O_WRONLY | O_CLOEXEC));
	must(path, write(fd, text, strlen(text)));
	close(fd);
}

static void userns(void)
{
	int said[2], gate[2];
	pid_t holder, pid;
	char byte;

	umask(0);
	must("create", create("/own", 0600));
	must("pipe", pipe2(said, O_CLOEXEC) | pipe2(gate, O_CLOEXEC));
	holder = fork();
	must("fork", holder);
	if (holder == 0) {
		become(USER);
		if (unshare(CLONE_NEWUSER | CLONE_NEWIPC) != 0) {
			say("unshare: %s", strerrorname_np(errno));
			_exit(1);
		}
		must("write", write(said[1], "", 1));
		must("the maps", read(gate[0], &byte, 1) == 1 ? 0 : -1);
		gives("the maker", "mq_open before creation", mq_open("/all", O_RDONLY), ENOENT);
		must("create", create("/all", 0666));
		must("create", create("/own", 0600));
		must("write", write(said[1], "", 1));
		must("read", read(gate[0], &byte, 1));
		gives("the maker", "mq_open at the end", mq_open("/own", O_RDONLY), 0);
		_exit(wrong);
	}
	close(said[1]);
	close(gate[0]);
	if (read(said[0], &byte, 1) != 1) {
		int status;
		waitpid(holder, &status, 0);
		_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
	}
	write_map(holder, "uid_map", "0 12345 1");
	write_map(holder, "setgroups", "deny");
	write_map(holder, "gid_map", "0 12345 1");
	must("write", write(gate[1], "", 1));
	must("the holder", read(said[0], &byte, 1) == 1 ? 0 : -1);
	pid = fork();
	must("fork", pid);
	if (pid == 0) {
		be_stranger(OTHER, holder, -1);
	}
	ends_well(pid);
	must("write", write(gate[1], "", 1));
	ends_well(holder);
	_exit(wrong);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	self = argv[0];
	umask(0);
	if (!strcmp(what, "member"))
		member();
	if (!strcmp(what, "after") && argc > 2)
		after(argv[2]);
	if (!strcmp(what, "walk") && argc > 3)
		walk(argv[2], argv[3]);
	if (!strcmp(what, "stranger") || !strcmp(what, "mounted") || !strcmp(what, "given"))
		stranger(what);
	if (!strcmp(what, "userns"))
		userns();
	return 2;
}
