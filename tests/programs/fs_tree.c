/*
 * fs_tree [-p MS] [-v] [-u] DIR SEED OPS      so many random operations
 * fs_tree [-p MS] [-u] DIR -f FILE            those that FILE names: a trace of an earlier run, or any
 *                                             of its lines
 * fs_tree --look                              only looks for remains
 *
 * DIR is an empty directory that every user may search; it is left full. -p is how long one step may
 * take (20000 ms). -v leaves out what mounts that are not the kernel's cannot do: bind mounts,
 * remounts, mount namespaces. -u gives up CAP_SYS_ADMIN first.
 *
 * A coordinator grows a tree of tasks and has them do things that concern the mqueue file system: its
 * mounts, the files in them, the same queues by mq_open, the namespaces behind them, one operation at
 * a time. Each makes a line of the trace,
 *
 *   t3 chmod m0/a 0640 -> -1 EPERM
 *
 * task, operation, what came of it. Nothing that differs from run to run appears: tasks, namespaces
 * (N0 is the one that all begins in) and users (u1, u2) are numbered, paths begin at DIR, times and
 * inode numbers are left out. What is said of inodes is which slots have the same one. The same seed
 * makes the same trace wherever the file system behaves the same.
 *
 * The paths of operations:
 *
 *   m0/a      below DIR: m0 … m3 are to be mounted on, s0 … s3 symbolic links to them, d is a
 *             directory with a file f and symbolic links la, lb into m0, m1
 *   ./a       relative to the working directory, also ../m1/a; =a is plain "a"
 *   D1:a      relative to the directory descriptor in slot 1, by the *at functions
 *   E1:a      the same by way of /proc/self/fd
 *   C:a       by way of /proc/self/cwd
 *   Q2        /proc/self/fd of queue slot 2
 *
 * Every task has a socket of its own to the coordinator. A new one connects to an abstract address,
 * so that it needs nothing inherited; only exec hands over its socket's number. Nobody reaps a task
 * before the end, so that a process number means one task for good. A step is over when all it
 * started and ended is known to be so: a new task has said hello; a dead process is a zombie and a
 * dead thread is gone, and neither holds its namespaces, descriptors or working directory any more.
 *
 * What the kernel takes apart later (the superblock of a namespace that nobody mounted) shows in one
 * place only, what a user has charged to RLIMIT_MSGQUEUE; who asks for that waits first (settled).
 *
 * Slots of namespace, queue and directory descriptors are fixed descriptor numbers.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <grp.h>
#include <linux/capability.h>
#include <mqueue.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
	TASKS = 300,   /* labels of a run */
	SPACES = 4096, /* namespaces of a run */
	ALIVE = 7,     /* tasks that live at a time */
	DIRS = 4,      /* to be mounted on */
	STACK = 256 << 10,
	TEXT = 4096,
	WORDS = 12,
	MQUEUE_MAGIC = 0x19800202,
	LEAST = 97,    /* what a queue of one message of one byte costs */
	COPIES = 60,   /* entries of a directory that are looked at */
};

/* Kinds of slots: first descriptor number, and how many. */
enum kind { NS, MQ, DIRECTORY, KINDS };
static const int first_slot[KINDS] = {300, 310, 320}, slots_of[KINDS] = {2, 4, 2};
static const char kind_letter[] = "nqd";

extern char **environ;

static int patience = 20000;
static int without_kernel_mounts;
static char program[512];
/* The coordinator's abstract address, without the leading NUL. */
static char address[64];
static char base[256];
static dev_t base_dev;
/* Users of this run's own, so that what they have queued is nobody else's sum. */
static uid_t users[3];

static void die(const char *what)
{
	fprintf(stderr, "fs_tree: %s: %s\n", what, strerror(errno));
	exit(2);
}

static int split(char *text, char **word)
{
	int n = 0;
	char *at;

	for (char *w = strtok_r(text, " \n", &at); w && n < WORDS; w = strtok_r(NULL, " \n", &at))
		word[n++] = w;
	return n;
}

/* A packet with at most one descriptor. */
static ssize_t send_packet(int sock, const char *text, int fd)
{
	struct iovec iov = {(char *)text, strlen(text)};
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (fd >= 0) {
		msg.msg_control = &control;
		msg.msg_controllen = sizeof control;
		struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof fd);
	}
	return sendmsg(sock, &msg, MSG_NOSIGNAL);
}

/* Length, 0 at the end, -1; *fd is -1 or a descriptor that came along. */
static ssize_t receive_packet(int sock, char *text, int *fd)
{
	struct iovec iov = {text, TEXT - 1};
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
			     .msg_controllen = sizeof control};
	ssize_t n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);

	*fd = -1;
	if (n < 0)
		return n;
	text[n] = 0;
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	if (c && c->cmsg_type == SCM_RIGHTS)
		memcpy(fd, CMSG_DATA(c), sizeof *fd);
	return n;
}

/* ---- tasks ---------------------------------------------------------------------------------- */

/* All sockets of this process: a forked child closes its parent's. */
static int socks[TASKS], nsocks;
static _Thread_local int my_label, my_sock;
static _Thread_local char reply[TEXT];

static void task(int label) __attribute__((noreturn));

static unsigned long own_namespace(void)
{
	struct stat st;
	return stat("/proc/thread-self/ns/ipc", &st) ? 0 : st.st_ino;
}

/* Adds to the reply. */
static void add(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void add(const char *format, ...)
{
	size_t at = strlen(reply);
	va_list ap;

	va_start(ap, format);
	vsnprintf(reply + at, sizeof reply - at, format, ap);
	va_end(ap);
}

/* Adds a result: 0 or a number as it is, -1 with errno. Whether it is not -1. */
static int result(long ret)
{
	const char *space = *reply ? " " : "";

	if (ret != -1)
		add("%s%ld", space, ret);
	else
		add("%s-1 %s", space, strerrorname_np(errno) ?: "?");
	return ret != -1;
}

/* Numbers of processes and descriptors say nothing. */
static int made(long ret)
{
	return result(ret > 0 ? 0 : ret);
}

static void add_own(void)
{
	add(" {%lu}", own_namespace());
}

static int slot(enum kind kind, long n)
{
	return first_slot[kind] + (int)n;
}

/* Moves a new descriptor into its slot. */
static int settle(int fd, int to, int cloexec)
{
	if (fd < 0 || fd == to)
		return fd;
	int r = cloexec ? dup3(fd, to, O_CLOEXEC) : dup2(fd, to);
	int e = errno;
	close(fd);
	errno = e;
	return r;
}

static const char *user_name(unsigned id)
{
	static _Thread_local char text[2][16];
	static _Thread_local int turn;

	if (id == 0)
		return "root";
	if (id == (unsigned)-1)
		return "-";
	turn = !turn;
	for (int i = 1; i <= 2; i++)
		if (id == users[i]) {
			sprintf(text[turn], "u%d", i);
			return text[turn];
		}
	sprintf(text[turn], "%u", id);
	return text[turn];
}

static unsigned user_id(const char *name)
{
	if (*name == 'u')
		return users[name[1] == '2' ? 2 : 1];
	return *name == '-' ? (unsigned)-1 : 0;
}

/* The path without what is above. */
static const char *below_base(const char *path)
{
	size_t n = strlen(base);

	if (strncmp(path, base, n))
		return path;
	if (!path[n])
		return "DIR";
	return path[n] == '/' ? path + n + 1 : path;
}

/* Directory descriptor and path of what the head of this file explains. */
static int locate(const char *token, char *path)
{
	int dir = AT_FDCWD;

	*path = 0;
	if (!token)
		return dir;
	if (*token == '.')
		strcpy(path, token);
	else if (*token == '=')
		strcpy(path, token + 1);
	else if (*token == 'D') {
		dir = slot(DIRECTORY, token[1] - '0');
		strcpy(path, token + 3);
	} else if (*token == 'E')
		sprintf(path, "/proc/self/fd/%d/%s", slot(DIRECTORY, token[1] - '0'), token + 3);
	else if (*token == 'Q')
		sprintf(path, "/proc/self/fd/%d", slot(MQ, token[1] - '0'));
	else if (*token == 'C')
		sprintf(path, "/proc/self/cwd/%s", token + 2);
	else
		sprintf(path, "%s/%s", base, token);
	return dir;
}

static const char *kind_of(mode_t mode)
{
	return S_ISREG(mode) ? "file" : S_ISDIR(mode) ? "dir" : S_ISLNK(mode) ? "link" : S_ISFIFO(mode) ? "fifo" : "other";
}

/* What stat shows, and which slots are the same inode. */
static void add_stat(const struct stat *st)
{
	struct stat other;

	add(" %s %o %s:%s", kind_of(st->st_mode), st->st_mode & 07777, user_name(st->st_uid), user_name(st->st_gid));
	if (st->st_dev == base_dev) {
		add(" plain");
		if (S_ISREG(st->st_mode))
			add(" nlink %lu size %ld", (unsigned long)st->st_nlink, (long)st->st_size);
		return;
	}
	/* A link of proc(5), its directories. */
	if (!S_ISREG(st->st_mode) && !S_ISDIR(st->st_mode))
		return;
	add(" nlink %lu size %ld blocks %ld of %ld", (unsigned long)st->st_nlink, (long)st->st_size, (long)st->st_blocks,
	    (long)st->st_blksize);
	for (enum kind k = MQ; k <= DIRECTORY; k++)
		for (int i = 0; i < slots_of[k]; i++)
			if (!fstat(slot(k, i), &other) && other.st_dev == st->st_dev && other.st_ino == st->st_ino)
				add(" =%c%d", kind_letter[k], i);
}

/* What a queue's file reads as, or another's. */
static void add_text(char *text, ssize_t n)
{
	char same[128];
	unsigned long size;
	int notify, signo, pid = 0;

	text[n] = 0;
	if (sscanf(text, "QSIZE:%lu NOTIFY:%d SIGNO:%d NOTIFY_PID:%d", &size, &notify, &signo, &pid) == 4) {
		sprintf(same, "QSIZE:%-10lu NOTIFY:%-5d SIGNO:%-5d NOTIFY_PID:%-6d\n", size, notify, signo, pid);
		if (!strcmp(same, text)) {
			add(" QSIZE %lu NOTIFY %d SIGNO %d PID <%d>", size, notify, signo, pid);
			return;
		}
	}
	/* The end of such a text. */
	char *last = strstr(text, "NOTIFY_PID:");
	if (last && sscanf(last += 11, "%d", &pid) == 1) {
		sprintf(same, "%-6d\n", pid);
		if (!strcmp(same, last))
			*last = 0;
		else
			last = NULL;
	}
	for (char *c = text; *c; c++)
		if (*c < '!' || *c > '~')
			*c = '_';
	add(last ? " \"%.80s<%d>\"" : " \"%.80s\"", text, pid);
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* A directory's entries, sorted. */
static void list(int dir, const char *path)
{
	char *line[COPIES];
	int n = 0;
	DIR *d;
	struct stat st;

	if (dir == AT_FDCWD)
		d = opendir(path);
	else {
		int fd = openat(dir, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		d = fd < 0 ? NULL : fdopendir(fd);
	}
	if (!d) {
		result(-1);
		return;
	}
	errno = 0;
	for (struct dirent *e; (e = readdir(d)) && n < COPIES; errno = 0) {
		const char *wrong = "";
		int dots = !strcmp(e->d_name, ".") || !strcmp(e->d_name, "..");
		/* Of what is above a mount other things are true. */
		if (!dots && fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW))
			wrong = "(gone)";
		else if (!dots && st.st_ino != e->d_ino)
			wrong = "(not it)";
		const char *type = e->d_type == DT_REG ? "" : e->d_type == DT_DIR ? "/" : e->d_type == DT_LNK ? "@" : e->d_type == DT_FIFO ? "|" : "?";
		if (asprintf(&line[n], "%s%s%s", e->d_name, type, wrong) < 0)
			die("memory");
		n++;
	}
	int e = errno;
	closedir(d);
	add("%d:", n);
	if (e)
		add(" %s", strerrorname_np(e));
	qsort(line, n, sizeof *line, by_text);
	for (int i = 0; i < n; i++) {
		add(" %s", line[i]);
		free(line[i]);
	}
}

static void globbed(const char *path)
{
	glob_t found;
	char pattern[PATH_MAX + 4];

	sprintf(pattern, "%s/*", path);
	int r = glob(pattern, GLOB_MARK, NULL, &found);
	add("%d", r);
	if (r)
		return;
	for (size_t i = 0; i < found.gl_pathc; i++)
		add(" %s", below_base(found.gl_pathv[i]));
	globfree(&found);
}

/* The lines about mounts below DIR, sorted. */
static void mounts(const char *file)
{
	char path[64], *line = NULL, *lines[COPIES], *w[32];
	size_t size = 0;
	int n = 0, info = strstr(file, "info") != NULL;

	sprintf(path, "/proc/%s", file);
	FILE *f = fopen(path, "re");
	if (!f) {
		result(-1);
		return;
	}
	while (getline(&line, &size, f) > 0 && n < COPIES) {
		int words = 0, dash = 0;
		char *at;
		for (char *x = strtok_r(line, " \n", &at); x && words < 31; x = strtok_r(NULL, " \n", &at))
			w[words++] = x;
		const char *point = words < 6 ? "" : info ? w[4] : w[1];
		if (below_base(point) == point)
			continue;
		/* Optional fields end with a dash. */
		for (int i = 6; info && i < words; i++)
			if (!strcmp(w[i], "-"))
				dash = i;
		if (info && words != dash + 4)
			continue;
		/* What else is bound there is told by its type alone. */
		if (strcmp(info ? w[dash + 1] : w[2], "mqueue")) {
			if (asprintf(&lines[n++], "other on %s", below_base(point)) < 0)
				die("memory");
			continue;
		}
		if ((info ? asprintf(&lines[n], "%s on %s type %s (%s) root %s (%s)", w[dash + 2], below_base(point),
				     w[dash + 1], w[5], w[3], w[dash + 3])
			  : asprintf(&lines[n], "%s on %s type %s (%s)", w[0], below_base(point), w[2], w[3])) < 0)
			die("memory");
		n++;
	}
	free(line);
	fclose(f);
	add("%d", n);
	qsort(lines, n, sizeof *lines, by_text);
	for (int i = 0; i < n; i++) {
		add("; %s", lines[i]);
		free(lines[i]);
	}
}

static void add_statfs(const struct statfs *fs)
{
	if (fs->f_type == MQUEUE_MAGIC)
		add(" mqueue %ld %ld %ld", (long)fs->f_bsize, (long)fs->f_namelen, (long)fs->f_blocks);
	else
		add(" other");
}

/* As mount(8) does it today. */
static int new_mount(const char *source, const char *path)
{
	int fs = fsopen("mqueue", FSOPEN_CLOEXEC), mnt = -1, r = -1;

	if (fs < 0)
		return -1;
	if (!fsconfig(fs, FSCONFIG_SET_STRING, "source", source, 0) && !fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
		mnt = fsmount(fs, FSMOUNT_CLOEXEC, 0);
	if (mnt >= 0)
		r = move_mount(mnt, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH);
	int e = errno;
	if (mnt >= 0)
		close(mnt);
	close(fs);
	errno = e;
	return r;
}

static int new_bind(const char *from, const char *to, int recursive)
{
	int tree = open_tree(AT_FDCWD, from, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (recursive ? AT_RECURSIVE : 0));

	if (tree < 0)
		return -1;
	int r = move_mount(tree, "", AT_FDCWD, to, MOVE_MOUNT_F_EMPTY_PATH), e = errno;
	close(tree);
	errno = e;
	return r;
}

static const char *const limits[] = {"queues_max", "msg_max", "msgsize_max", "msg_default", "msgsize_default"};
enum { LIMITS = sizeof limits / sizeof *limits };

static int read_limit(const char *name, char *value, size_t size)
{
	char path[64];

	snprintf(path, sizeof path, "/proc/sys/fs/mqueue/%s", name);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	ssize_t n = read(fd, value, size - 1);
	close(fd);
	if (n < 0)
		return -1;
	value[n] = 0;
	value[strcspn(value, "\n")] = 0;
	return 0;
}

static int write_limit(const char *name, const char *value)
{
	char path[64];

	snprintf(path, sizeof path, "/proc/sys/fs/mqueue/%s", name);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	ssize_t n = write(fd, value, strlen(value));
	int e = errno;
	close(fd);
	errno = e;
	return n < 0 ? -1 : 0;
}

/* Who makes a namespace makes its default queues small: all of root's are one sum. */
static int small_defaults(void)
{
	return write_limit("msg_default", "2") || write_limit("msgsize_default", "128") ? -1 : 0;
}

static const char *queue_name(const char *letter, char *name)
{
	sprintf(name, "/%s", letter);
	return name;
}

/* How many queues the namespace has: the least queues_max that admits one more, less one. */
static void count_queues(void)
{
	struct mq_attr attr = {.mq_maxmsg = 1, .mq_msgsize = 16};
	char old[32], value[16];
	int n = -1;

	if (!result(read_limit("queues_max", old, sizeof old)))
		return;
	for (int max = 1; max < 300 && n < 0; max++) {
		sprintf(value, "%d", max);
		if (write_limit("queues_max", value)) {
			result(-1);
			return;
		}
		mqd_t q = mq_open("/probe", O_CREAT | O_EXCL | O_RDWR, 0600, &attr);
		if (q == -1 && errno == ENOSPC)
			continue;
		if (q == -1) {
			result(-1);
			break;
		}
		mq_close(q);
		mq_unlink("/probe");
		n = max - 1;
	}
	result(write_limit("queues_max", old));
	add(" queues %d", n);
}

/* What each name stands for here. */
static void probe(void)
{
	struct mq_attr a;
	struct stat st;
	char name[8];

	for (char c = 'a'; c <= 'd'; c++) {
		sprintf(name, "/%c", c);
		mqd_t q = mq_open(name, O_RDONLY | O_NONBLOCK);
		add("%s%c", *reply ? ", " : "", c);
		if (q == -1) {
			add(" %s", strerrorname_np(errno));
			continue;
		}
		mq_getattr(q, &a);
		add(" %ldx%ld has %ld", a.mq_maxmsg, a.mq_msgsize, a.mq_curmsgs);
		if (!fstat(q, &st))
			add_stat(&st);
		mq_close(q);
	}
}

static void exec_in_place(int mode)
{
	char number[16], sock[16];
	char *argv[] = {program, "--task", number, address, base, sock, NULL};

	sprintf(number, "%d", my_label);
	sprintf(sock, "%d", my_sock);
	fcntl(my_sock, F_SETFD, 0);
	if (mode == 0)
		execv(program, argv);
	else {
		int fd = open(program, O_RDONLY | O_CLOEXEC);
		fexecve(fd, argv, environ);
		int e = errno;
		close(fd);
		errno = e;
	}
	int e = errno;
	fcntl(my_sock, F_SETFD, FD_CLOEXEC);
	errno = e;
}

/* A child made by fork: only its own thread, and nothing of its parent's connections. */
static void child(int label) __attribute__((noreturn));
static void child(int label)
{
	for (int i = 0; i < nsocks; i++)
		close(socks[i]);
	nsocks = 0;
	task(label);
}

struct clone_child {
	int label;
	long flags;
};

static int child_fn(void *arg)
{
	struct clone_child *c = arg;

	if (c->flags & CLONE_NEWIPC && small_defaults())
		_exit(3);
	child(c->label);
}

static void *thread_fn(void *arg)
{
	task((int)(intptr_t)arg);
}

static int become(uid_t u)
{
	return setgroups(0, NULL) || setresgid(u, u, u) || setresuid(u, u, u) ? -1 : 0;
}

static void on_notification(int signo)
{
}

static int ask_for_notification(int q, const char *how)
{
	struct sigevent e = {.sigev_notify = SIGEV_NONE};

	if (!strcmp(how, "off"))
		return mq_notify(q, NULL);
	if (!strcmp(how, "signal")) {
		e.sigev_notify = SIGEV_SIGNAL;
		e.sigev_signo = SIGUSR1;
	}
	return mq_notify(q, &e);
}

/* Carries out one operation; the reply is what it leaves there. *give goes along with the reply. */
static void act(char *text, int got, int *give)
{
	char *w[WORDS] = {0}, path[PATH_MAX], path2[PATH_MAX], buf[PATH_MAX], name[64];
	int words = split(text, w);
	struct stat st, st2;
	struct statfs fs;
	long n[WORDS] = {0};

	for (int i = 1; i < words; i++)
		n[i] = strtol(w[i], NULL, 0);
#define IS(s) (!strcmp(w[0], s))
/* The function, or its *at variant with a directory descriptor. */
#define BY(dir, plain, at) ((dir) == AT_FDCWD ? (plain) : (at))
	/* Making tasks: the new one's label comes first. */
	if (IS("fork")) {
		pid_t p = fork();
		if (p == 0)
			child(n[1]);
		made(p);
	} else if (IS("clone")) {
		struct clone_child c = {n[1], n[2]};
		char *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		made(clone(child_fn, stack + STACK, n[2] | SIGCHLD, &c));
		munmap(stack, STACK);
	} else if (IS("thread")) {
		pthread_attr_t a;
		pthread_t t;
		pthread_attr_init(&a);
		pthread_attr_setdetachstate(&a, PTHREAD_CREATE_DETACHED);
		pthread_attr_setstacksize(&a, STACK);
		int e = pthread_create(&t, &a, thread_fn, (void *)n[1]);
		errno = e;
		result(e ? -1 : 0);
	} else if (IS("exec")) {
		exec_in_place(n[1]);
		result(-1);
	}
	/* Ending them. */
	else if (IS("exit"))
		exit(n[1]);
	else if (IS("_exit"))
		_exit(n[1]);
	else if (IS("texit"))
		pthread_exit(NULL);
	/* Namespaces. */
	else if (IS("unshare")) {
		int r = unshare(n[1]);
		if (result(r)) {
			add(n[1] & CLONE_NEWIPC ? " {!%lu}" : " {%lu}", own_namespace());
			if (n[1] & CLONE_NEWIPC && small_defaults())
				result(-1);
		} else
			add_own();
	} else if (IS("nsopen")) {
		sprintf(path, "/proc/%s/ns/ipc", w[2]);
		int fd = settle(open(path, O_RDONLY | O_CLOEXEC), slot(NS, n[1]), n[3]);
		if (made(fd) && !fstat(fd, &st))
			add(" {%lu}", (unsigned long)st.st_ino);
	} else if (IS("nsclose")) {
		result(close(slot(NS, n[1])));
	} else if (IS("setns")) {
		result(setns(slot(NS, n[1]), n[2]));
		add_own();
	} else if (IS("enter")) {
		/* ipc or mnt */
		sprintf(path, "/proc/%s/ns/%s", w[1], w[2]);
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		if (made(fd)) {
			/* A mount namespace is entered at its root, where nothing is to be done. */
			if (result(setns(fd, 0)) && !strcmp(w[2], "mnt"))
				result(chdir(base));
			close(fd);
		}
		add_own();
	} else if (IS("drop")) {
		result(become(user_id(w[1])));
	} else if (IS("euid")) {
		result(seteuid(user_id(w[1])));
	}
	/* Mounts. */
	else if (IS("mount")) {
		/* path flags source data */
		locate(w[1], path);
		result(mount(!strcmp(w[3], "NULL") ? NULL : w[3], path, "mqueue", n[2], w[4]));
	} else if (IS("newmount")) {
		locate(w[1], path);
		result(new_mount(w[2], path));
	} else if (IS("umount")) {
		locate(w[1], path);
		result(n[2] ? umount2(path, n[2]) : umount(path));
	} else if (IS("bind")) {
		locate(w[1], path);
		locate(w[2], path2);
		result(n[4] ? new_bind(path, path2, n[3] & MS_REC) : mount(path, path2, NULL, MS_BIND | n[3], NULL));
	} else if (IS("move")) {
		locate(w[1], path);
		locate(w[2], path2);
		result(mount(path, path2, NULL, MS_MOVE, NULL));
	} else if (IS("remount")) {
		locate(w[1], path);
		result(mount(NULL, path, NULL, MS_REMOUNT | n[2], NULL));
	} else if (IS("mounts")) {
		mounts(w[1]);
	} else if (IS("statfs")) {
		locate(w[1], path);
		if (result(statfs(path, &fs)))
			add_statfs(&fs);
	}
	/* Directories. */
	else if (IS("chdir")) {
		locate(w[1], path);
		result(chdir(path));
	} else if (IS("fchdir")) {
		result(fchdir(slot(DIRECTORY, n[1])));
	} else if (IS("getcwd")) {
		char *r = getcwd(buf, sizeof buf);
		if (result(r ? 0 : -1))
			add(" %s", below_base(buf));
	} else if (IS("dopen")) {
		int d = locate(w[2], path);
		made(settle(BY(d, open(path, n[3] | O_CLOEXEC), openat(d, path, n[3] | O_CLOEXEC)), slot(DIRECTORY, n[1]), n[4]));
	} else if (IS("dclose")) {
		result(close(slot(DIRECTORY, n[1])));
	} else if (IS("dstat")) {
		if (result(fstat(slot(DIRECTORY, n[1]), &st)))
			add_stat(&st);
	} else if (IS("ls")) {
		int d = locate(w[1], path);
		list(d, path);
	} else if (IS("glob")) {
		locate(w[1], path);
		globbed(path);
	}
	/* Files. */
	else if (IS("open")) {
		/* slot path flags mode cloexec */
		int d = locate(w[2], path), flags = n[3] | O_NONBLOCK | O_NOCTTY;
		made(settle(BY(d, open(path, flags, (mode_t)n[4]), openat(d, path, flags, (mode_t)n[4])), slot(MQ, n[1]), n[5]));
	} else if (IS("creat")) {
		/* slot path mode */
		locate(w[2], path);
		int fd = creat(path, n[3]);
		/* Nobody is to wait. */
		if (fd >= 0)
			fcntl(fd, F_SETFL, O_NONBLOCK);
		made(settle(fd, slot(MQ, n[1]), 1));
	} else if (IS("make")) {
		/* path mode: as touch does */
		int d = locate(w[1], path), flags = O_WRONLY | O_CREAT | O_NOCTTY | O_NONBLOCK;
		int fd = BY(d, open(path, flags, (mode_t)n[2]), openat(d, path, flags, (mode_t)n[2]));
		if (made(fd))
			close(fd);
	} else if (IS("limited")) {
		/* path bytes: creation within them */
		struct rlimit old, r;
		locate(w[1], path);
		getrlimit(RLIMIT_MSGQUEUE, &old);
		r = (struct rlimit){n[2], old.rlim_max};
		if (setrlimit(RLIMIT_MSGQUEUE, &r))
			result(-1);
		int fd = open(path, O_RDWR | O_CREAT | O_NONBLOCK | O_CLOEXEC, 0600);
		if (made(fd))
			close(fd);
		setrlimit(RLIMIT_MSGQUEUE, &old);
	} else if (IS("stat") || IS("lstat")) {
		int d = locate(w[1], path), l = *w[0] == 'l';
		if (result(BY(d, (l ? lstat : stat)(path, &st), fstatat(d, path, &st, l ? AT_SYMLINK_NOFOLLOW : 0))))
			add_stat(&st);
	} else if (IS("fstat")) {
		if (result(fstat(slot(MQ, n[1]), &st)))
			add_stat(&st);
	} else if (IS("same")) {
		int d = locate(w[1], path), d2 = locate(w[2], path2);
		if (result(fstatat(d, path, &st, 0)) && result(fstatat(d2, path2, &st2, 0)))
			add(st.st_dev != st2.st_dev ? " other file system" : st.st_ino != st2.st_ino ? " other" : " same");
	} else if (IS("chmod")) {
		int d = locate(w[1], path);
		result(BY(d, chmod(path, n[2]), fchmodat(d, path, n[2], 0)));
	} else if (IS("fchmod")) {
		result(fchmod(slot(MQ, n[1]), n[2]));
	} else if (IS("chown") || IS("lchown")) {
		int d = locate(w[1], path), l = *w[0] == 'l';
		unsigned u = user_id(w[2]), g = user_id(w[3]);
		result(BY(d, (l ? lchown : chown)(path, u, g), fchownat(d, path, u, g, l ? AT_SYMLINK_NOFOLLOW : 0)));
	} else if (IS("fchown")) {
		result(fchown(slot(MQ, n[1]), user_id(w[2]), user_id(w[3])));
	} else if (IS("access")) {
		int d = locate(w[1], path);
		result(BY(d, n[3] ? euidaccess(path, n[2]) : access(path, n[2]), faccessat(d, path, n[2], n[3] ? AT_EACCESS : 0)));
	} else if (IS("unlink")) {
		int d = locate(w[1], path);
		result(BY(d, unlink(path), unlinkat(d, path, 0)));
	} else if (IS("remove")) {
		locate(w[1], path);
		result(remove(path));
	} else if (IS("rmdir")) {
		int d = locate(w[1], path);
		result(BY(d, rmdir(path), unlinkat(d, path, AT_REMOVEDIR)));
	} else if (IS("mkdir")) {
		int d = locate(w[1], path);
		result(BY(d, mkdir(path, n[2]), mkdirat(d, path, n[2])));
	} else if (IS("symlink")) {
		/* path text */
		int d = locate(w[1], path);
		result(BY(d, symlink(w[2], path), symlinkat(w[2], d, path)));
	} else if (IS("link")) {
		int d = locate(w[1], path), d2 = locate(w[2], path2);
		result(d == AT_FDCWD && d2 == AT_FDCWD && !n[3] ? link(path, path2)
								: linkat(d, path, d2, path2, n[3] ? AT_SYMLINK_FOLLOW : 0));
	} else if (IS("rename")) {
		int d = locate(w[1], path), d2 = locate(w[2], path2);
		result(n[3] ? renameat2(d, path, d2, path2, n[3]) : d == AT_FDCWD && d2 == AT_FDCWD ? rename(path, path2)
												  : renameat(d, path, d2, path2));
	} else if (IS("mknod")) {
		int d = locate(w[1], path);
		result(BY(d, mknod(path, n[2], 0), mknodat(d, path, n[2], 0)));
	} else if (IS("mkfifo")) {
		int d = locate(w[1], path);
		result(BY(d, mkfifo(path, n[2]), mkfifoat(d, path, n[2])));
	} else if (IS("truncate")) {
		locate(w[1], path);
		result(truncate(path, n[2]));
	} else if (IS("ftruncate")) {
		result(ftruncate(slot(MQ, n[1]), n[2]));
	} else if (IS("utimes")) {
		int d = locate(w[1], path);
		result(utimensat(d, path, n[2] ? (struct timespec[2]){{n[2], 0}, {n[2], 0}} : NULL, 0));
	} else if (IS("readlink")) {
		int d = locate(w[1], path);
		ssize_t len = BY(d, readlink(path, buf, sizeof buf - 1), readlinkat(d, path, buf, sizeof buf - 1));
		if (made(len)) {
			buf[len] = 0;
			add(" %s", below_base(buf));
		}
	} else if (IS("realpath")) {
		locate(w[1], path);
		char *r = realpath(path, buf);
		if (result(r ? 0 : -1))
			add(" %s", below_base(buf));
	} else if (IS("cat")) {
		int d = locate(w[1], path), flags = O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
		int fd = BY(d, open(path, flags), openat(d, path, flags));
		if (made(fd)) {
			ssize_t len = read(fd, buf, 200);
			if (result(len))
				add_text(buf, len);
			close(fd);
		}
	} else if (IS("text")) {
		/* slot offset */
		ssize_t len = pread(slot(MQ, n[1]), buf, 200, n[2]);
		if (result(len))
			add_text(buf, len);
	} else if (IS("write")) {
		result(write(slot(MQ, n[1]), "text", 4));
	} else if (IS("run")) {
		locate(w[1], path);
		execv(path, (char *[]){path, NULL});
		result(-1);
	}
	/* Queues, by name or by a descriptor of either kind. */
	else if (IS("mqopen")) {
		/* slot name oflag mode maxmsg msgsize cloexec */
		struct mq_attr a = {.mq_maxmsg = n[5], .mq_msgsize = n[6]};
		int q = mq_open(queue_name(w[2], name), n[3] | O_NONBLOCK, (mode_t)n[4], n[5] ? &a : NULL);
		made(settle(q, slot(MQ, n[1]), n[7]));
	} else if (IS("mqunlink")) {
		result(mq_unlink(queue_name(w[1], name)));
	} else if (IS("close")) {
		result(n[2] ? mq_close(slot(MQ, n[1])) : close(slot(MQ, n[1])));
	} else if (IS("send")) {
		snprintf(buf, sizeof buf, "%s.t%d", w[2], my_label);
		result(mq_send(slot(MQ, n[1]), buf, strlen(buf), n[3]));
	} else if (IS("receive")) {
		unsigned prio = 0;
		ssize_t len = mq_receive(slot(MQ, n[1]), buf, sizeof buf - 1, &prio);
		if (result(len)) {
			buf[len] = 0;
			add(" %s prio %u", buf, prio);
		}
	} else if (IS("attr")) {
		struct mq_attr a;
		if (result(mq_getattr(slot(MQ, n[1]), &a)))
			add(" %ldx%ld has %ld flags %lx", a.mq_maxmsg, a.mq_msgsize, a.mq_curmsgs, a.mq_flags);
	} else if (IS("notify")) {
		result(ask_for_notification(slot(MQ, n[1]), w[2]));
	} else if (IS("poll")) {
		struct pollfd p = {slot(MQ, n[1]), POLLIN | POLLOUT, 0};
		if (result(poll(&p, 1, 0)))
			add(" %x", p.revents);
	} else if (IS("getfl")) {
		int flags = fcntl(slot(MQ, n[1]), F_GETFL);
		if (made(flags))
			add(" 0%o", flags);
	} else if (IS("fdlink")) {
		sprintf(path, "/proc/self/fd/%d", slot(MQ, n[1]));
		ssize_t len = readlink(path, buf, sizeof buf - 1);
		if (made(len)) {
			buf[len] = 0;
			add(" %s", below_base(buf));
		}
	} else if (IS("fstatfs")) {
		if (result(fstatfs(slot(MQ, n[1]), &fs)))
			add_statfs(&fs);
	} else if (IS("probe")) {
		probe();
	} else if (IS("limits")) {
		for (int i = 0; i < LIMITS; i++)
			if (read_limit(limits[i], buf, sizeof buf))
				result(-1);
			else
				add("%s%s", i ? " " : "", buf);
	} else if (IS("setlimit")) {
		result(write_limit(w[1], w[2]));
		if (!read_limit(w[1], buf, sizeof buf))
			add(" %s", buf);
	} else if (IS("count")) {
		count_queues();
	}
	/* Descriptors on their way. */
	else if (IS("give")) {
		*give = slot(strchr(kind_letter, *w[1]) - kind_letter, n[2]);
		result(fcntl(*give, F_GETFD) < 0 ? -1 : 0);
	} else if (IS("take")) {
		made(settle(got, slot(strchr(kind_letter, *w[1]) - kind_letter, n[2]), 1));
	} else {
		add("what is %s?", w[0]);
	}
#undef IS
#undef BY
}

static void say_hello(void)
{
	char hello[128];

	snprintf(hello, sizeof hello, "hello %d %d %d %lu", my_label, getpid(), (int)gettid(), own_namespace());
	if (send_packet(my_sock, hello, -1) < 0)
		_exit(2);
}

static void serve(void) __attribute__((noreturn));
static void serve(void)
{
	char text[TEXT];
	int got, give;

	for (;;) {
		if (receive_packet(my_sock, text, &got) <= 0)
			_exit(0);
		*reply = 0;
		give = -1;
		act(text, got, &give);
		/* What cannot be given is an answer like any other. */
		if (send_packet(my_sock, *reply ? reply : "-", give) < 0 && errno == EBADF)
			send_packet(my_sock, reply, -1);
	}
}

static void enlist(int label, int sock) __attribute__((noreturn));
static void enlist(int label, int sock)
{
	struct sigaction act = {.sa_handler = on_notification, .sa_flags = SA_RESTART};

	my_label = label;
	my_sock = sock;
	socks[nsocks++ % TASKS] = sock;
	sigaction(SIGUSR1, &act, NULL);
	signal(SIGPIPE, SIG_IGN);
	say_hello();
	serve();
}

static void task(int label)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	socklen_t len = offsetof(struct sockaddr_un, sun_path) + 1 + strlen(address);
	int s = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	strncpy(a.sun_path + 1, address, sizeof a.sun_path - 2);
	if (s < 0 || connect(s, (struct sockaddr *)&a, len))
		_exit(2);
	enlist(label, s);
}

/* ---- coordinator ---------------------------------------------------------------------------- */

struct process {
	pid_t pid;
	int pidfd, tasks;
	/* Its real and its effective user: 0, 1, 2. */
	int user, acts_as;
	/* Made by clone(): the C library does not know about it all. */
	int raw;
	/* Slots that are probably in use, as bits, and those of them that exec closes. */
	unsigned used[KINDS], cloexec[KINDS];
	/* Where it probably is: 'm' and a digit, or empty. */
	char cwd[8];
};

static struct known {
	int used, alive, sock;
	pid_t pid, tid;
	struct process *of;
	unsigned long ino;
	/* Number of its mount namespace. */
	int mounts;
} known[TASKS];
static struct process processes[TASKS];

/* How many mounts there probably are on each directory, by mount namespace. */
static int mounted[TASKS * 8][DIRS];
static int mount_spaces = 1;

static int listener, labels, violent, deaths, failed;
/* Canonical numbers of namespaces, by inode number; the latest stands. */
static struct {
	unsigned long ino;
	int number;
} spaces[SPACES];
static int nspaces, next_space;

static int alive_tasks(void)
{
	int n = 0;
	for (int i = 0; i < labels; i++)
		n += known[i].alive;
	return n;
}

/* A namespace just made: it has a number of its own even where an earlier one had the inode. Nobody
 * else is in it, and its maker (here -1) has left another one for it. */
static const char *new_space(unsigned long ino, int newborn)
{
	const char *clash = "";
	int i;

	for (i = 0; i < labels; i++)
		if (i != newborn && known[i].alive && known[i].ino == ino)
			clash = " that is not new";
	for (i = 0; i < nspaces && spaces[i].ino != ino; i++)
		;
	if (i == SPACES) {
		errno = ENOSPC;
		die("namespaces");
	}
	if (i == nspaces)
		nspaces++;
	spaces[i].ino = ino;
	spaces[i].number = next_space++;
	return clash;
}

static int space(unsigned long ino)
{
	for (int i = 0; i < nspaces; i++)
		if (spaces[i].ino == ino)
			return spaces[i].number;
	return -1;
}

/* Inode numbers {1234} in an answer as N2, {!1234} as the number of a new one; process numbers <1234>
 * as t3. */
static void canonical(const char *in, char *out, int t, int moves)
{
	char *end;

	while (*in) {
		if (*in == '<') {
			pid_t pid = strtol(in + 1, &end, 10);
			int i;
			for (i = 0; i < labels && (!known[i].used || processes[i].pid != pid); i++)
				;
			if (pid && i == labels)
				out += sprintf(out, "t?");
			else
				out += sprintf(out, pid ? "t%d" : "0", i);
			in = end + (*end == '>');
			continue;
		}
		if (*in != '{') {
			*out++ = *in++;
			continue;
		}
		int fresh = *++in == '!';
		unsigned long ino = strtoul(in + fresh, &end, 10);
		const char *clash = fresh ? new_space(ino, -1) : "";
		if (moves)
			known[t].ino = ino;
		int number = space(ino);
		out += number < 0 ? sprintf(out, "N?") : sprintf(out, "N%d%s", number, clash);
		in = end + (*end == '}');
	}
	*out = 0;
}

static int readable(int fd)
{
	struct pollfd p = {fd, POLLIN, 0};
	int r;

	while ((r = poll(&p, 1, patience)) < 0 && errno == EINTR)
		;
	return r == 1;
}

/* What a task that does not answer is at. */
static void stuck(const char *what, int t, char *out)
{
	char path[64], call[64] = "";

	failed = 1;
	if (t >= 0) {
		sprintf(path, "/proc/%d/task/%d/syscall", known[t].pid, known[t].tid);
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd >= 0 && read(fd, call, sizeof call - 1) > 0)
			call[strcspn(call, " \n")] = 0;
	}
	sprintf(out, "STUCK: %s (system call %s)", what, call);
}

/* The greeting of the new task t, or of its new image on the socket it has. */
static int hello(int t, int sock, int fresh, char *out)
{
	char text[TEXT];
	int label = -1, fd;
	pid_t pid, tid;
	unsigned long ino;

	if (sock < 0) {
		if (!readable(listener)) {
			stuck("no new task came", -1, out);
			return -1;
		}
		sock = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	}
	if (!readable(sock) || receive_packet(sock, text, &fd) <= 0 ||
	    sscanf(text, "hello %d %d %d %lu", &label, &pid, &tid, &ino) != 4 || label != t) {
		stuck("no hello", -1, out);
		return -1;
	}
	known[t] = (struct known){.used = 1, .alive = 1, .sock = sock, .pid = pid, .tid = tid, .of = known[t].of, .ino = ino,
				  .mounts = known[t].mounts};
	const char *clash = fresh ? new_space(ino, t) : "";
	sprintf(out, "0 N%d%s", space(ino), clash);
	if (space(ino) < 0)
		sprintf(out, "0 N?");
	return 0;
}

static void adopt(int t)
{
	struct process *p = &processes[t];

	*p = (struct process){.pid = known[t].pid, .tasks = 1};
	p->pidfd = syscall(SYS_pidfd_open, p->pid, 0);
	if (p->pidfd < 0)
		die("pidfd_open");
	fcntl(p->pidfd, F_SETFD, FD_CLOEXEC);
	known[t].of = p;
}

static void forget(int t)
{
	known[t].alive = 0;
	close(known[t].sock);
	known[t].of->tasks--;
}

/* The end of a whole process. */
static void await_process(struct process *p, char *out)
{
	if (!readable(p->pidfd)) {
		stuck("does not die", p - processes, out);
		return;
	}
	for (int i = 0; i < labels; i++)
		if (known[i].alive && known[i].of == p)
			forget(i);
	deaths++;
	strcpy(out, "gone");
}

/* The end of one thread. */
static void await_thread(int t, char *out)
{
	struct timespec pause = {0, 50000};

	/* Nothing announces it: look again and again. */
	for (long i = 0; i < patience * 10L; i++) {
		if (syscall(SYS_tgkill, known[t].pid, known[t].tid, 0)) {
			forget(t);
			deaths++;
			strcpy(out, "gone");
			return;
		}
		nanosleep(&pause, NULL);
	}
	stuck("thread does not end", t, out);
}

/* Sends a command and gets its answer. */
static int ask(int t, const char *text, int fd, char *answer, int *got)
{
	if (send_packet(known[t].sock, text, fd) < 0) {
		stuck("cannot be told", t, answer);
		return -1;
	}
	*got = -1;
	if (!readable(known[t].sock)) {
		stuck("no answer", t, answer);
		return -1;
	}
	if (receive_packet(known[t].sock, answer, got) <= 0) {
		failed = 1;
		strcpy(answer, "DIED");
		return -1;
	}
	return 0;
}

/* A label's number, -1 if it isn't one. */
static int number_of(const char *word, char kind)
{
	char *end;

	if (!word || *word != kind)
		return -1;
	long n = strtol(word + 1, &end, 10);
	return *end || n < 0 || n >= TASKS || end == word + 1 ? -1 : n;
}

static enum kind slot_kind(const char *word)
{
	return strchr(kind_letter, *word) - kind_letter;
}

/* What is in use, as far as results tell. */
static void slot_filled(struct process *p, enum kind kind, int slot, int cloexec)
{
	p->used[kind] |= 1u << slot;
	p->cloexec[kind] = (p->cloexec[kind] & ~(1u << slot)) | (unsigned)!!cloexec << slot;
}

static int one_of(const char *word, const char *list)
{
	char with[40];

	snprintf(with, sizeof with, " %s ", word);
	return strstr(list, with) != NULL;
}

/* ---- what a user has charged */

/* Runs in a child, in a namespace of its own and as that user; what it returns is the exit status. */
static int in_child(uid_t u, int (*what)(long), long arg)
{
	int st = -1;
	pid_t p = fork();

	if (p == 0) {
		closefrom(3);
		if (unshare(CLONE_NEWIPC) || become(u))
			_exit(100);
		_exit(what(arg));
	}
	waitpid(p, &st, 0);
	return WIFEXITED(st) ? WEXITSTATUS(st) : 101;
}

static int queue_within(long bytes)
{
	struct mq_attr least = {.mq_maxmsg = 1, .mq_msgsize = 1};
	struct rlimit r = {bytes, 819200};

	if (setrlimit(RLIMIT_MSGQUEUE, &r))
		return 102;
	mqd_t q = mq_open("/settle", O_CREAT | O_EXCL | O_RDWR, 0600, &least);
	if (q == -1)
		return 1;
	mq_close(q);
	return 0;
}

static int no_queue_within(long bytes)
{
	int r = queue_within(bytes);

	mq_unlink("/settle");
	return r;
}

/* What is under way is done in order, each batch from its end: when a namespace that came later has
 * gone twice, what was left to do before has been done. */
static int settled(void)
{
	struct timespec pause = {0, 200000};

	for (int i = 0; i < 2; i++) {
		if (in_child(users[0], queue_within, LEAST))
			return -1;
		long tries = 0;
		while (in_child(users[0], no_queue_within, LEAST)) {
			if (tries++ > patience)
				return -1;
			nanosleep(&pause, NULL);
		}
	}
	return 0;
}

static int measure(long out)
{
	long low = LEAST - 1, high = 819200;

	/* Not enough, enough. */
	while (high - low > 1) {
		long middle = (low + high) / 2;
		if (no_queue_within(middle))
			low = middle;
		else
			high = middle;
	}
	high -= LEAST;
	return write(out, &high, sizeof high) != sizeof high;
}

/* Bytes that a user has charged. */
static long charge(int user)
{
	int pipe[2], st = -1;
	long n = -1;

	if (settled() || pipe2(pipe, O_CLOEXEC))
		return -1;
	pid_t p = fork();
	if (p == 0) {
		if (dup2(pipe[1], 3) < 0)
			_exit(103);
		closefrom(4);
		if (unshare(CLONE_NEWIPC) || become(users[user]))
			_exit(100);
		_exit(measure(3));
	}
	close(pipe[1]);
	if (read(pipe[0], &n, sizeof n) != sizeof n)
		n = -1;
	close(pipe[0]);
	waitpid(p, &st, 0);
	return n;
}

/* The coordinator's own operations. */
static void own_operation(char **w, char *out)
{
	int t = number_of(w[2], 't'), new = number_of(w[2], '+'), u = number_of(w[2], 'u');

	if (!strcmp(w[1], "newipc")) {
		*reply = 0;
		result(unshare(CLONE_NEWIPC));
		result(small_defaults());
		sprintf(out, "%s N%d%s", reply, next_space, new_space(own_namespace(), -1));
	} else if (!strcmp(w[1], "stay")) {
		struct stat st;
		/* Not what the machine works with. */
		if (!getenv("MQNS_DIR") && !stat("/proc/1/ns/ipc", &st) && st.st_ino == own_namespace()) {
			failed = 1;
			strcpy(out, "this needs a namespace of its own, or the library");
			return;
		}
		*reply = 0;
		result(small_defaults());
		sprintf(out, "%s N%d%s", reply, next_space, new_space(own_namespace(), -1));
	} else if (!strcmp(w[1], "spawn") && new >= 0 && !known[new].used) {
		pid_t p = fork();
		if (p < 0)
			die("fork");
		if (p == 0) {
			closefrom(3);
			nsocks = 0;
			task(new);
		}
		if (labels <= new)
			labels = new + 1;
		known[new].mounts = 0;
		if (!hello(new, -1, 0, out))
			adopt(new);
	} else if (!strcmp(w[1], "signal") && t >= 0 && known[t].alive) {
		violent = 1;
		kill(known[t].pid, atoi(w[3]));
		await_process(known[t].of, out);
	} else if (!strcmp(w[1], "charge") && (u == 1 || u == 2)) {
		sprintf(out, "%ld", charge(u));
	} else
		strcpy(out, "not possible");
}

/* The number of a directory to mount on, as a token names it. */
static int dir_of(const char *token)
{
	return token && (*token == 'm' || *token == 's') && token[1] >= '0' && token[1] < '0' + DIRS &&
			       (!token[2] || token[2] == '/')
		       ? token[1] - '0'
		       : -1;
}

static void guess(int t, char **w)
{
	struct process *p = known[t].of;
	int (*m)[DIRS] = &mounted[known[t].mounts];
	int d = dir_of(w[2]), d2 = dir_of(w[3]);

	if (one_of(w[1], " mount newmount ") && d >= 0)
		(*m)[d]++;
	else if (!strcmp(w[1], "umount") && d >= 0 && (*m)[d])
		(*m)[d]--;
	else if (!strcmp(w[1], "bind") && d2 >= 0)
		(*m)[d2]++;
	else if (!strcmp(w[1], "move") && d >= 0 && d2 >= 0) {
		(*m)[d]--;
		(*m)[d2]++;
	} else if (!strcmp(w[1], "chdir"))
		snprintf(p->cwd, sizeof p->cwd, "%.*s", d >= 0 ? 2 : 0, w[2]);
	else if (!strcmp(w[1], "fchdir"))
		strcpy(p->cwd, "m");
	else if (one_of(w[1], " mqopen open creat "))
		slot_filled(p, MQ, atoi(w[2]), *w[1] == 'c' ? 1 : atoi(*w[1] == 'm' ? w[8] : w[6]));
	else if (!strcmp(w[1], "dopen"))
		slot_filled(p, DIRECTORY, atoi(w[2]), atoi(w[5]));
	else if (!strcmp(w[1], "nsopen"))
		slot_filled(p, NS, atoi(w[2]), atoi(w[4]));
	else if (one_of(w[1], " close nsclose dclose "))
		p->used[*w[1] == 'c' ? MQ : *w[1] == 'n' ? NS : DIRECTORY] &= ~(1u << atoi(w[2]));
	else if (!strcmp(w[1], "drop"))
		p->user = p->acts_as = w[2][1] - '0';
	else if (!strcmp(w[1], "euid"))
		p->acts_as = *w[2] == 'u' ? w[2][1] - '0' : 0;
	else if (!strcmp(w[1], "unshare") && strtol(w[2], NULL, 0) & CLONE_NEWNS && mount_spaces < TASKS * 8) {
		memcpy(mounted[mount_spaces], *m, sizeof *m);
		known[t].mounts = mount_spaces++;
	} else if (!strcmp(w[1], "enter") && !strcmp(w[3], "mnt")) {
		known[t].mounts = known[number_of(w[2], 't')].mounts;
		*p->cwd = 0;
	}
}

/* Carries out one line and leaves its result. */
static void execute(const char *line, char *out)
{
	char copy[TEXT], text[TEXT] = "", answer[TEXT], *w[WORDS + 1] = {0};
	int got = -1, words, t;

	snprintf(copy, sizeof copy, "%s", line);
	words = split(copy, w);
	if (words < 2) {
		strcpy(out, "not possible");
		return;
	}
	if (!strcmp(w[0], "c")) {
		own_operation(w, out);
		return;
	}
	t = number_of(w[0], 't');
	if (t < 0 || !known[t].alive) {
		strcpy(out, "no such task");
		return;
	}
	struct process *p = known[t].of;
	int single = p->tasks == 1;
	int new = number_of(w[2], '+'), target = -1;

	/* Tasks are named by number here and by process and thread there. */
	for (int i = 1; i < words; i++) {
		int other = number_of(w[i], 't');
		size_t at = strlen(text);
		if (other >= 0 && !known[other].used) {
			strcpy(out, "no such target");
			return;
		}
		if (other >= 0) {
			target = other;
			/* A thread as a process has it. */
			snprintf(text + at, sizeof text - at, "%s%d/task/%d", i > 1 ? " " : "", known[other].pid, known[other].tid);
		} else
			snprintf(text + at, sizeof text - at, "%s%s", i > 1 ? " " : "", *w[i] == '+' ? w[i] + 1 : w[i]);
	}

	if (one_of(w[1], " fork clone thread ")) {
		if (new < 0 || known[new].used || (!strcmp(w[1], "clone") && !single) || (!strcmp(w[1], "thread") && p->raw)) {
			strcpy(out, "not possible");
			return;
		}
		long flags = w[3] ? strtol(w[3], NULL, 0) : 0;
		if (ask(t, text, -1, answer, &got) || *answer != '0') {
			strcpy(out, answer);
			return;
		}
		if (labels <= new)
			labels = new + 1;
		known[new].mounts = known[t].mounts;
		if (flags & CLONE_NEWNS) {
			memcpy(mounted[mount_spaces], mounted[known[t].mounts], sizeof *mounted);
			known[new].mounts = mount_spaces++;
		}
		if (hello(new, -1, !!(flags & CLONE_NEWIPC), out))
			return;
		if (!strcmp(w[1], "thread")) {
			known[new].of = p;
			p->tasks++;
			return;
		}
		adopt(new);
		struct process *q = &processes[new];
		q->user = p->user;
		q->acts_as = p->acts_as;
		memcpy(q->used, p->used, sizeof q->used);
		memcpy(q->cloexec, p->cloexec, sizeof q->cloexec);
		strcpy(q->cwd, p->cwd);
		q->raw = p->raw || !strcmp(w[1], "clone");
	} else if (!strcmp(w[1], "exec")) {
		/* With two users the dynamic linker would take no library along. */
		if (!single || p->acts_as != p->user) {
			strcpy(out, "not possible");
			return;
		}
		if (send_packet(known[t].sock, text, -1) < 0 || !readable(known[t].sock)) {
			stuck("exec", t, out);
			return;
		}
		unsigned long before = known[t].ino;
		char first[8] = "";
		recv(known[t].sock, first, sizeof first - 1, MSG_PEEK);
		if (strncmp(first, "hello", 5)) {
			receive_packet(known[t].sock, answer, &got);
			strcpy(out, answer);
			return;
		}
		if (hello(t, known[t].sock, 0, out))
			return;
		if (known[t].ino != before)
			strcat(out, " moved");
		p->raw = 0;
		for (int i = 0; i < KINDS; i++) {
			p->used[i] &= ~p->cloexec[i];
			p->cloexec[i] = 0;
		}
	} else if (one_of(w[1], " exit _exit texit ")) {
		int thread = !strcmp(w[1], "texit");
		if (thread && known[t].tid == known[t].pid) {
			strcpy(out, "not possible");
			return;
		}
		send_packet(known[t].sock, text, -1);
		if (thread)
			await_thread(t, out);
		else
			await_process(p, out);
	} else if (!strcmp(w[1], "pass")) {
		/* n|q|d slot tN slot */
		if (target < 0 || !known[target].alive || words < 6) {
			strcpy(out, "not possible");
			return;
		}
		sprintf(text, "give %s %s", w[2], w[3]);
		if (ask(t, text, -1, answer, &got) || got < 0) {
			strcpy(out, answer);
			return;
		}
		int fd = got;
		sprintf(text, "take %s %s", w[2], w[5]);
		ask(target, text, fd, answer, &got);
		if (*answer == '0')
			slot_filled(known[target].of, slot_kind(w[2]), atoi(w[5]), 1);
		strcpy(out, answer);
		close(fd);
	} else {
		char before[32] = "";
		if ((one_of(w[1], " drop euid ") || (!strcmp(w[1], "unshare") && strtol(w[2], NULL, 0) & CLONE_FILES)) && !single) {
			strcpy(out, "not possible");
			return;
		}
		if (!strcmp(w[1], "limited")) {
			/* path and how much more than is charged */
			if (!p->user || words < 4) {
				strcpy(out, "not possible");
				return;
			}
			long charged = charge(p->user);
			sprintf(before, "%ld, ", charged);
			sprintf(text, "limited %s %ld", w[2], charged + atol(w[3]));
		}
		if (ask(t, text, -1, answer, &got)) {
			strcpy(out, answer);
			return;
		}
		if (*answer == '0')
			guess(t, w);
		out += sprintf(out, "%s", before);
		canonical(answer, out, t, one_of(w[1], " unshare setns enter "));
	}
}

/* ---- what happens next ---------------------------------------------------------------------- */

static uint64_t state;

static unsigned below(unsigned n)
{
	/* splitmix64 */
	uint64_t z = state += 0x9e3779b97f4a7c15;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return (z ^ z >> 31) % n;
}

#define PICK(...) ((const long[]){__VA_ARGS__}[below(sizeof((const long[]){__VA_ARGS__}) / sizeof(long))])
#define WORD(...) ((const char *[]){__VA_ARGS__}[below(sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *))])

static int pick_alive(void)
{
	int n = below(alive_tasks());

	for (int i = 0; i < labels; i++)
		if (known[i].alive && n-- == 0)
			return i;
	return 0;
}

/* A slot: mostly one that is in use. */
static int pick_slot(int t, enum kind kind)
{
	unsigned used = known[t].of->used[kind];
	int slots = slots_of[kind], n = below(slots);

	if (!used || !below(12))
		return n;
	while (!(used & 1u << n))
		n = (n + 1) % slots;
	return n;
}

static const char *pick_name(void)
{
	return WORD("a", "a", "a", "a", "a", "a", "a", "a", "b", "b", "b", "b", "b", "c", "d");
}

/* A directory to mount on: mostly one that is mounted, or isn't. */
static int pick_dir(int t, int want)
{
	int n = below(DIRS);

	if (!below(8))
		return n;
	for (int i = 0; i < DIRS; i++, n = (n + 1) % DIRS)
		if (!mounted[known[t].mounts][n] == !want)
			return n;
	return n;
}

/* The path of something in such a directory. */
static void pick_path(int t, char *path)
{
	struct process *p = known[t].of;
	const char *name = pick_name();
	int d = pick_dir(t, 1), kernel = !without_kernel_mounts;

	switch (below(24)) {
	case 0:
	case 1:
		sprintf(path, "s%d/%s", d, name);
		break;
	case 2:
		sprintf(path, "%s", WORD("d/f", "d/f", "d/new", "d/la", "d/lb", "m0/.", "m1/..", "d/f/x"));
		break;
	case 3:
		sprintf(path, "m%d%s%s", d, WORD("//", "/./", "/../d/../s1/", "/.//"), name);
		break;
	case 4:
		sprintf(path, "m%d/%s%s", d, name, WORD("/", "/x", "/.", "/.."));
		break;
	case 5:
		sprintf(path, "m%d/../m%d/%s", d, pick_dir(t, 1), name);
		break;
	case 6:
		sprintf(path, "Q%d", pick_slot(t, MQ));
		break;
	case 7:
		sprintf(path, "m%d/%s", d, WORD(".keep", "e", "no"));
		break;
	case 8:
	case 9:
	case 10:
		if (p->used[DIRECTORY]) {
			sprintf(path, "%c%d:%s", kernel && !below(5) ? 'E' : 'D', pick_slot(t, DIRECTORY), name);
			break;
		}
		/* fall through */
	case 11:
	case 12:
	case 13:
		if (*p->cwd) {
			const char *how = WORD("./", "./", "=", "=", "=", "C:");
			sprintf(path, "%s%s", kernel || *how != 'C' ? how : "=", name);
			if (!below(8))
				sprintf(path, "../m%d/%s", d, name);
			break;
		}
		/* fall through */
	default:
		sprintf(path, "m%d/%s", d, name);
	}
}

/* Sometimes the directory itself. */
static void pick_place(int t, char *path)
{
	int d = pick_dir(t, 1);

	if (below(7)) {
		pick_path(t, path);
		return;
	}
	switch (below(5)) {
	case 0:
		if (known[t].of->used[DIRECTORY]) {
			sprintf(path, "D%d:.", pick_slot(t, DIRECTORY));
			break;
		}
		/* fall through */
	case 1:
		strcpy(path, "=.");
		break;
	case 2:
		sprintf(path, "s%d/", d);
		break;
	default:
		sprintf(path, "m%d%s", d, WORD("", "", "/"));
	}
}

static const char *pick_mode(void)
{
	return WORD("0600", "0600", "0644", "0666", "0666", "0622", "0640", "0000", "0066", "0777", "04711", "01666");
}

static const char *pick_user(void)
{
	return WORD("root", "u1", "u1", "u2", "-");
}

enum sort { MAKE, END, SPACE, MOUNT, WALK, FILES, QUEUES, LIMIT, PASS, DROP };

/* An operation on the files of a mount. */
static void generate_file(char *line, int t)
{
	char path[64], other[64];
	/* Without a descriptor one is made first. */
	int which = below(52), of_slot = which == 14 || which == 15 || which == 20 || which == 23 || which == 39 ||
					 (which >= 47 && which <= 50);

	pick_path(t, path);
	pick_path(t, other);
	if (of_slot && !known[t].of->used[MQ] && below(8))
		which = below(8);
	switch (which) {
	case 0:
	case 1:
	case 2:
	case 3:
		sprintf(line, "open %d %s %#lx %s %d", below(slots_of[MQ]), path,
			PICK(O_CREAT, O_CREAT, O_CREAT, O_CREAT | O_EXCL, O_CREAT | O_TRUNC, O_CREAT | O_NOFOLLOW) |
				PICK(O_RDWR, O_RDWR, O_RDWR, O_RDONLY, O_WRONLY, 3),
			pick_mode(), below(2));
		break;
	case 4:
	case 5:
	case 6:
		sprintf(line, "open %d %s %#lx 0 %d", below(slots_of[MQ]), path,
			PICK(O_RDWR, O_RDWR, O_RDONLY, O_WRONLY, O_RDWR | O_TRUNC, O_RDONLY | O_TRUNC, O_RDWR | O_APPEND, O_RDWR | O_EXCL,
			     O_RDWR | O_DIRECT, O_PATH, O_RDONLY | O_DIRECTORY, O_RDWR | O_NOFOLLOW),
			below(2));
		break;
	case 7:
		sprintf(line, "creat %d %s %s", below(slots_of[MQ]), path, pick_mode());
		break;
	case 8:
	case 9:
		sprintf(line, "make %s %s", path, pick_mode());
		break;
	case 10:
	case 11:
	case 12:
	case 13:
		pick_place(t, path);
		sprintf(line, "%s %s", WORD("stat", "stat", "lstat"), path);
		break;
	case 14:
	case 15:
		sprintf(line, "fstat %d", pick_slot(t, MQ));
		break;
	case 16:
	case 17:
		pick_place(t, path);
		pick_place(t, other);
		sprintf(line, "same %s %s", path, other);
		break;
	case 18:
	case 19:
		if (!below(6)) {
			sprintf(line, "chmod m%d %s", pick_dir(t, 1), WORD("01777", "01777", "0777", "0755", "01733"));
			break;
		}
		sprintf(line, "chmod %s %s", path, pick_mode());
		break;
	case 20:
		sprintf(line, "fchmod %d %s", pick_slot(t, MQ), pick_mode());
		break;
	case 21:
	case 22:
		if (!below(8))
			sprintf(path, "m%d", pick_dir(t, 1));
		sprintf(line, "%s %s %s %s", WORD("chown", "chown", "lchown"), path, pick_user(), pick_user());
		break;
	case 23:
		sprintf(line, "fchown %d %s %s", pick_slot(t, MQ), pick_user(), pick_user());
		break;
	case 24:
	case 25:
		pick_place(t, path);
		sprintf(line, "access %s %ld %d", path, PICK(F_OK, R_OK, W_OK, X_OK, R_OK | W_OK), below(2));
		break;
	case 26:
	case 27:
	case 28:
		sprintf(line, "unlink %s", path);
		break;
	case 29:
		sprintf(line, "%s %s", WORD("remove", "remove", "rmdir"), path);
		break;
	case 30:
		sprintf(line, "mkdir %s 0755", path);
		break;
	case 31:
		sprintf(line, "symlink %s %s", path, WORD("../m1/a", "b", "../m0/b", "nowhere"));
		break;
	case 32:
		sprintf(line, "link %s %s %d", path, other, below(4) == 0);
		break;
	case 33:
	case 34:
		sprintf(line, "rename %s %s %ld", path, other, PICK(0, 0, 0, 1 /* RENAME_NOREPLACE */, 2 /* RENAME_EXCHANGE */));
		break;
	case 35:
	case 36:
		sprintf(line, "mknod %s %#lo", path, PICK(S_IFREG | 0600, S_IFREG | 0666, S_IFREG | 0640, S_IFIFO | 0600, 0644));
		break;
	case 37:
		sprintf(line, "mkfifo %s 0600", path);
		break;
	case 38:
		sprintf(line, "truncate %s %ld", path, PICK(0, 5, 80, 100, -1));
		break;
	case 39:
		sprintf(line, "ftruncate %d %ld", pick_slot(t, MQ), PICK(0, 5, 80, -1));
		break;
	case 40:
		sprintf(line, "utimes %s %ld", path, PICK(0, 1000));
		break;
	case 41:
		pick_place(t, path);
		sprintf(line, "readlink %s", path);
		break;
	case 42:
		pick_place(t, path);
		sprintf(line, "realpath %s", path);
		break;
	case 43:
	case 44:
	case 45:
	case 46:
		sprintf(line, "cat %s", path);
		break;
	case 47:
	case 48:
		sprintf(line, "text %d %ld", pick_slot(t, MQ), PICK(0, 0, 10, 60));
		break;
	case 49:
		sprintf(line, "write %d", pick_slot(t, MQ));
		break;
	case 50:
		sprintf(line, "fdlink %d", pick_slot(t, MQ));
		break;
	default:
		sprintf(line, "run %s", path);
	}
}

static void generate_queue(char *line, int t, int number)
{
	switch (known[t].of->used[MQ] || !below(12) ? below(18) : below(4)) {
	case 0:
	case 1:
	case 2:
		sprintf(line, "mqopen %d %s %#lx %s %ld %ld %d", below(slots_of[MQ]), pick_name(),
			PICK(O_CREAT, O_CREAT, O_CREAT | O_EXCL) | PICK(O_RDWR, O_RDWR, O_RDWR, O_RDONLY, O_WRONLY), pick_mode(),
			PICK(0, 1, 2, 2, 4, 4, 11), PICK(16, 32, 32, 32, 128), below(2));
		break;
	case 3:
	case 4:
		sprintf(line, "mqopen %d %s %#lx 0 0 0 %d", below(slots_of[MQ]), pick_name(),
			PICK(O_RDWR, O_RDWR, O_RDONLY, O_WRONLY), below(2));
		break;
	case 5:
		sprintf(line, "mqunlink %s", pick_name());
		break;
	case 6:
	case 7:
		sprintf(line, "close %d %d", pick_slot(t, MQ), below(2));
		break;
	case 8:
	case 9:
	case 10:
		sprintf(line, "send %d m%d %d", pick_slot(t, MQ), number, below(4));
		break;
	case 11:
	case 12:
		sprintf(line, "receive %d", pick_slot(t, MQ));
		break;
	case 13:
		sprintf(line, "%s %d", WORD("attr", "attr", "getfl", "fstatfs"), pick_slot(t, MQ));
		break;
	case 14:
	case 15:
		sprintf(line, "notify %d %s", pick_slot(t, MQ), WORD("none", "signal", "signal", "off"));
		break;
	case 16:
		sprintf(line, "poll %d", pick_slot(t, MQ));
		break;
	default:
		sprintf(line, "probe");
	}
}

static void generate_mount(char *line, int t)
{
	char point[16];
	int kernel = !without_kernel_mounts, free = pick_dir(t, 0), taken = pick_dir(t, 1);

	switch (below(kernel ? 30 : 20)) {
	case 0:
	case 1:
	case 2:
	case 3:
	case 4:
	case 5:
		sprintf(point, "%c%d", below(8) ? 'm' : 's', below(6) ? free : taken);
		sprintf(line, "mount %s %#lx %s %s", point, PICK(0, 0, 0, 0, MS_RDONLY, MS_NOSUID | MS_NODEV | MS_NOEXEC),
			WORD("mqueue", "x", "none", "NULL"), WORD("", "", "", "", "ro", "foo=1"));
		/* Nothing stays nothing. */
		while (line[strlen(line) - 1] == ' ')
			line[strlen(line) - 1] = 0;
		break;
	case 6:
		sprintf(line, "newmount m%d %s", below(6) ? free : taken, WORD("mqueue", "x"));
		break;
	case 7:
		sprintf(line, "mount %s 0 x", WORD("d/f", "m0/no", "m1/a", "=../m3", "d/f/"));
		break;
	case 8:
	case 9:
	case 10:
	case 11:
		sprintf(line, "umount m%d 0", taken);
		break;
	case 12:
	case 13:
		sprintf(line, "umount %c%d %#lx", below(4) ? 'm' : 's', taken, PICK(MNT_DETACH, MNT_DETACH, MNT_DETACH, UMOUNT_NOFOLLOW));
		break;
	case 14:
		sprintf(line, "umount %s 0", WORD("d", "m0/a", "d/f", "=../m3", "m2/no"));
		break;
	case 15:
	case 16:
		sprintf(line, "mounts %s", WORD("self/mounts", "mounts", "self/mountinfo", "thread-self/mountinfo"));
		break;
	case 17:
		sprintf(line, "statfs %s%d", WORD("m", "s", "m"), pick_dir(t, 1));
		break;
	case 18:
		sprintf(line, "ls m%d", taken);
		break;
	case 19:
		sprintf(line, "statfs m%d/%s", taken, pick_name());
		break;
	case 20:
	case 21:
	case 22:
	case 23:
		sprintf(line, "bind m%d m%d %#lx %d", taken, below(4) ? free : taken, PICK(0, 0, MS_REC), below(3) == 0);
		break;
	case 24:
		sprintf(line, "move m%d m%d", taken, free);
		break;
	case 25:
	case 26:
	case 27:
		sprintf(line, "remount m%d %#lx", taken, PICK(MS_BIND | MS_RDONLY, MS_BIND | MS_RDONLY, MS_BIND));
		break;
	default:
		sprintf(line, "remount m%d %#lx", taken, PICK(MS_RDONLY, 0, 0));
	}
}

static void generate_walk(char *line, int t)
{
	char path[64];
	int d = pick_dir(t, 1), which = below(15), has = known[t].of->used[DIRECTORY] != 0;

	sprintf(path, "%c%d", below(4) ? 'm' : 's', d);
	if (!below(8) && has)
		sprintf(path, "D%d:.", pick_slot(t, DIRECTORY));
	if (!has && (which == 3 || (which >= 7 && which <= 9)) && below(8))
		which = 5;
	switch (which) {
	case 0:
	case 1:
	case 2:
		/* No path leads above DIR, where relative paths would name what isn't ours. */
		sprintf(line, "chdir %s", below(3) ? (*path == 'D' ? "=../m2" : path) : WORD("d", "d", ".", "../m1", "m0/a", "m1/a", "m2/.."));
		break;
	case 3:
		sprintf(line, "fchdir %d", pick_slot(t, DIRECTORY));
		break;
	case 4:
		sprintf(line, "getcwd");
		break;
	case 5:
	case 6:
		sprintf(line, "dopen %d %s %#lx %d", below(slots_of[DIRECTORY]), path,
			PICK(O_RDONLY | O_DIRECTORY, O_RDONLY | O_DIRECTORY, O_RDONLY, O_PATH | O_DIRECTORY, O_RDWR, O_TMPFILE | O_RDWR), below(2));
		break;
	case 7:
	case 8:
		sprintf(line, "dclose %d", pick_slot(t, DIRECTORY));
		break;
	case 9:
		sprintf(line, "dstat %d", pick_slot(t, DIRECTORY));
		break;
	case 10:
		sprintf(line, "glob %s", *path == 'D' ? "=." : path);
		break;
	default:
		if (!below(8))
			strcpy(path, WORD("=.", "=.", "d", "m0/a", "=../m1"));
		sprintf(line, "ls %s", path);
	}
}

static void generate(char *line, int number)
{
	static int looks;
	int alive = alive_tasks(), kernel = !without_kernel_mounts;

	if (!alive || (below(60) == 0 && alive < ALIVE && labels < TASKS)) {
		sprintf(line, "c spawn +%d", labels);
		return;
	}
	if (below(150) == 0) {
		sprintf(line, "c charge u%d", 1 + below(2));
		return;
	}
	/* Each sort's part of a hundred. */
	int part = below(100);
	enum sort sort = part < 5 ? MAKE : part < 9 ? END : part < 17 ? SPACE : part < 32 ? MOUNT : part < 42 ? WALK
			 : part < 75 ? FILES : part < 92 ? QUEUES : part < 95 ? LIMIT : part < 97 ? PASS : DROP;
	if (sort == MAKE && (alive >= ALIVE || labels >= TASKS))
		sort = END;
	if (sort == END && alive < 3)
		sort = labels < TASKS ? MAKE : FILES;
	/* After a death, those who are left try what is still there. */
	if (deaths) {
		deaths = 0;
		looks = 2;
	} else if (looks && sort != SPACE && sort != MOUNT) {
		looks--;
		sort = FILES;
	}
	int t = pick_alive();
	/* Somebody who has what the operation is about. */
	if (sort == QUEUES)
		for (int i = 0; i < 4 && !known[t].of->used[MQ]; i++)
			t = pick_alive();
	/* To whom it isn't only refused; where privileges are given generously, root alone. */
	if (sort == SPACE || sort == MOUNT || sort == LIMIT)
		for (int i = 0; known[t].of->acts_as && (kernel ? i < 4 : 1); i++) {
			if (i == 50) {
				sprintf(line, "c spawn +%d", labels);
				return;
			}
			t = pick_alive();
		}
	char *start = line, path[64];
	struct process *p = known[t].of;
	int single = p->tasks == 1;
	line += sprintf(line, "t%d ", t);
	const long newipc = CLONE_NEWIPC, newns = kernel ? CLONE_NEWNS : 0;
	switch (sort) {
	case MAKE:
		if (below(5) < 3 || (!single && p->raw))
			sprintf(line, "fork +%d", labels);
		else if (!single || (!p->raw && below(2)))
			sprintf(line, "thread +%d", labels);
		else
			sprintf(line, "clone +%d %#lx", labels,
				kernel || !p->acts_as ? PICK(newipc, newipc, newipc | newns, newns, newipc | CLONE_FS, CLONE_FS) : 0);
		break;
	case END:
		switch (below(6)) {
		case 0:
			sprintf(line, "exit 0");
			break;
		case 1:
			sprintf(line, known[t].pid == known[t].tid ? "_exit 0" : "texit");
			break;
		case 2:
			if (single && p->acts_as == p->user) {
				sprintf(line, "exec %d", below(2));
				break;
			}
			/* fall through */
		case 3:
			sprintf(line, known[t].pid == known[t].tid ? "exit 0" : "texit");
			break;
		default:
			sprintf(start, "c signal t%d %d", t, below(4) ? SIGKILL : SIGTERM);
		}
		break;
	case SPACE:
		switch (below(10)) {
		case 0:
		case 1:
		case 2:
			sprintf(line, "unshare %#lx",
				PICK(newipc, newipc, newipc, newipc, newipc | newns, newns, newns, CLONE_FS, newipc | CLONE_FS));
			break;
		case 3:
		case 4:
			sprintf(line, "nsopen %d t%d %d", below(slots_of[NS]), pick_alive(), below(2));
			break;
		case 5:
			sprintf(line, "nsclose %d", pick_slot(t, NS));
			break;
		case 6:
			sprintf(line, "setns %d %#lx", pick_slot(t, NS), PICK(0, newipc, newipc, CLONE_NEWUTS));
			break;
		default:
			sprintf(line, "enter t%d %s", pick_alive(), kernel && !below(3) ? "mnt" : "ipc");
		}
		break;
	case MOUNT:
		generate_mount(line, t);
		break;
	case WALK:
		generate_walk(line, t);
		break;
	case FILES:
		generate_file(line, t);
		break;
	case QUEUES:
		generate_queue(line, t, number);
		break;
	case LIMIT:
		switch (below(5)) {
		case 0:
			sprintf(line, "limits");
			break;
		case 1:
		case 2:
			sprintf(line, "count");
			break;
		default:
		{
			int i = below(LIMITS);
			const char *value = i == 0 ? WORD("0", "1", "2", "3", "5", "256", "256", "256", "256", "256")
					    : strstr(limits[i], "size") ? WORD("127", "128", "128", "256")
									: WORD("0", "1", "2", "3");
			sprintf(line, "setlimit %s %s", limits[i], value);
		}
		}
		break;
	case PASS: {
		enum kind k = number % 2 ? MQ : number % 4 ? DIRECTORY : NS;
		sprintf(line, "pass %c %d t%d %d", kind_letter[k], pick_slot(t, k), pick_alive(), below(slots_of[k]));
		break;
	}
	case DROP:
		for (int i = 0; i < 6 && (known[t].of->tasks > 1 || !known[t].of->user); i++)
			t = pick_alive();
		p = known[t].of;
		line = start + sprintf(start, "t%d ", t);
		if (p->user) {
			pick_path(t, path);
			/* What a default queue costs, more or less. */
			sprintf(line, "limited %s %ld", path, PICK(0, 223, 224, 447, 448, 449, 1000));
		} else if (p->acts_as)
			sprintf(line, "euid root");
		else
			sprintf(line, "%s u%d", WORD("drop", "drop", "euid"), 1 + below(2));
	}
}

/* Namespaces whose tasks were killed are found by whoever makes a namespace or a queue. */
static void look(void)
{
	struct mq_attr attr = {.mq_maxmsg = 1, .mq_msgsize = 16};

	for (int i = 0; i < 3; i++) {
		pid_t p = fork();
		if (p == 0)
			_exit(unshare(CLONE_NEWIPC));
		waitpid(p, NULL, 0);
		mqd_t q = mq_open("/look", O_CREAT | O_RDWR, 0600, &attr);
		if (q != -1)
			mq_close(q);
		mq_unlink("/look");
	}
}

static void kill_all(void)
{
	for (int i = 0; i < labels; i++)
		if (known[i].alive)
			kill(known[i].pid, SIGKILL);
}

static void unmount_all(void)
{
	char path[PATH_MAX];

	for (int i = 0; i < DIRS; i++) {
		snprintf(path, sizeof path, "%s/m%d", base, i);
		while (!umount2(path, MNT_DETACH))
			;
	}
}

static void step(const char *line)
{
	char out[2 * TEXT];

	execute(line, out);
	printf("%s -> %s\n", line, out);
	fflush(stdout);
	if (!failed)
		return;
	/* The rest would mean nothing; and nobody may be left. */
	kill_all();
	unmount_all();
	exit(1);
}

static void write_file(const char *name, const char *text)
{
	char path[PATH_MAX];

	snprintf(path, sizeof path, "%s/%s", base, name);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		die(path);
	close(fd);
}

/* DIR's content. */
static void furnish(void)
{
	char path[PATH_MAX], text[PATH_MAX];

	for (int i = 0; i <= DIRS; i++) {
		snprintf(path, sizeof path, i < DIRS ? "%s/m%d" : "%s/d", base, i);
		if (mkdir(path, 0777) || chmod(path, 01777))
			die(path);
		if (i == DIRS)
			break;
		/* It is never empty, so that it isn't removed. */
		sprintf(text, "m%d/.keep", i);
		write_file(text, "");
		sprintf(text, "m%d", i);
		snprintf(path, sizeof path, "%s/s%d", base, i);
		if (symlink(text, path))
			die(path);
	}
	write_file("d/f", "a file\n");
	snprintf(path, sizeof path, "%s/d/la", base);
	snprintf(text, sizeof text, "%s/d/lb", base);
	char absolute[PATH_MAX];
	snprintf(absolute, sizeof absolute, "%s/m1/b", base);
	if (symlink("../m0/a", path) || symlink(absolute, text))
		die(path);
}

static void drop_sys_admin(char **argv)
{
	struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct data[2];

	if (syscall(SYS_capget, &head, data))
		die("capget");
	if (!(data[0].permitted & 1u << CAP_SYS_ADMIN))
		return;
	/* exec takes the library into the new state as it will be found. */
	if (prctl(PR_CAPBSET_DROP, CAP_SYS_ADMIN, 0, 0, 0))
		die("PR_CAPBSET_DROP");
	data[0].permitted &= ~(1u << CAP_SYS_ADMIN);
	data[0].effective &= ~(1u << CAP_SYS_ADMIN);
	data[0].inheritable &= ~(1u << CAP_SYS_ADMIN);
	if (syscall(SYS_capset, &head, data))
		die("capset");
	execv(program, argv);
	die("exec");
}

static void set_users(pid_t pid)
{
	for (int i = 0; i < 3; i++)
		users[i] = 3000000 + (uid_t)pid * 4 + i;
}

static void set_base(const char *dir)
{
	struct stat st;

	snprintf(base, sizeof base, "%s", dir);
	/* What the run began with, whatever it did since. */
	if (!stat(dir, &st))
		base_dev = st.st_dev;
	const char *number = getenv("FS_TREE_USERS");
	set_users(number ? atoi(number) : getpid());
}

static void coordinate(int argc, char **argv)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	socklen_t len = sizeof a;
	struct rlimit no_core = {0, 0};
	char line[TEXT];

	set_base(argv[0]);
	sprintf(line, "%d", getpid());
	setenv("FS_TREE_USERS", line, 1);
	/* Where mounting is not permitted it is not in a namespace of one's own either. */
	if (unshare(CLONE_NEWNS) ? errno != EPERM : mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		die("mount namespace");
	/* An address that the kernel chooses. */
	listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (listener < 0 || bind(listener, (struct sockaddr *)&a, sizeof a.sun_family) || listen(listener, 16) ||
	    getsockname(listener, (struct sockaddr *)&a, &len))
		die("socket");
	snprintf(address, sizeof address, "%.*s", (int)(len - offsetof(struct sockaddr_un, sun_path) - 1), a.sun_path + 1);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	setrlimit(RLIMIT_CORE, &no_core);
	umask(022);
	furnish();
	if (chdir(base))
		die(base);

	if (!strcmp(argv[1], "-f")) {
		FILE *f = fopen(argv[2], "re");
		if (!f)
			die(argv[2]);
		while (fgets(line, sizeof line, f)) {
			char *arrow = strstr(line, " -> ");
			line[arrow ? (size_t)(arrow - line) : strcspn(line, "\n")] = 0;
			step(line);
		}
		fclose(f);
	} else {
		state = strtoull(argv[1], NULL, 0);
		int ops = atoi(argv[2]);
		/* Some begin in the namespace that they find. */
		step(state % 4 == 3 ? "c stay" : "c newipc");
		for (int i = 0; i < 2; i++) {
			sprintf(line, "c spawn +%d", i);
			step(line);
		}
		step("t0 mount m0 0 mqueue");
		step("t1 mqopen 0 a 0x42 0666 4 32 0");
		for (int i = 0; i < ops; i++) {
			generate(line, i);
			step(line);
		}
	}
	for (int i = 0; i < labels; i++)
		if (known[i].alive) {
			sprintf(line, "t%d exit 0", i);
			char out[TEXT];
			execute(line, out);
			if (failed) {
				printf("%s -> %s\n", line, out);
				kill_all();
				unmount_all();
				exit(1);
			}
		}
	unmount_all();
	while (wait(NULL) > 0)
		;
	if (violent)
		look();
	printf("end %s\n", violent ? "after violence" : "in peace");
}

int main(int argc, char **argv)
{
	ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
	int opt, unprivileged = 0;

	if (n < 0)
		die("/proc/self/exe");
	program[n] = 0;
	if (argc == 6 && !strcmp(argv[1], "--task")) {
		snprintf(address, sizeof address, "%s", argv[3]);
		set_base(argv[4]);
		fcntl(atoi(argv[5]), F_SETFD, FD_CLOEXEC);
		enlist(atoi(argv[2]), atoi(argv[5]));
	}
	if (argc == 2 && !strcmp(argv[1], "--look")) {
		look();
		return 0;
	}
	while ((opt = getopt(argc, argv, "+p:vu")) != -1)
		if (opt == 'p')
			patience = atoi(optarg);
		else if (opt == 'v')
			without_kernel_mounts = 1;
		else if (opt == 'u')
			unprivileged = 1;
		else
			optind = argc;
	if (argc - optind != 3) {
		fprintf(stderr, "usage: fs_tree [-p MS] [-v] [-u] DIR SEED OPS\n"
				"       fs_tree [-p MS] [-u] DIR -f FILE\n"
				"       fs_tree --look\n");
		return 2;
	}
	if (unprivileged)
		drop_sys_admin(argv);
	coordinate(3, argv + optind);
	return 0;
}
