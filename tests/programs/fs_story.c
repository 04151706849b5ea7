/*
 * fs_story MADE ENDS LEAVES: what the mqueue file system was made for, step by step, a line each.
 *
 * Task a, alone in its IPC namespace ns1, mounts it and clones b into another one, ns2. The last task of ns1
 * leaves it: ns1 is gone, its superblock is not. Through the mount b still lists, reads, opens, sends,
 * receives, changes modes and unlinks, but creates nothing. With the mount goes all that was in it: the
 * files, what they were charged (RLIMIT_MSGQUEUE), and what lay in $MQNS_DIR, if set.
 *
 *   MADE    unshare, clone: how a has come into ns1
 *   ENDS    exit, kill, setns, unshare, exec: how it leaves; member: another task of ns1 outlives it
 *   LEAVES  umount; detach: b unmounts with a queue open, and closes it afterwards
 *
 * Wants a mount namespace of its own. What it prints says nothing that differs between two runs.
 * Exit status 0 if the story came to its end.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <mqueue.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SMALL = 97, LETTER = 320, DEFAULT = 82880, SECONDS = 20 };

/* Who waits for word of whom. */
enum pipe { TO_MAIN, TO_A, TO_B, TO_MEMBER, PIPES };

static int pipes[PIPES][2], home, audience;
static const char *made, *ends, *leaves;
static char dir[] = "/tmp/fs_story.XXXXXX";

static void say(const char *format, ...)
{
	char line[512];
	va_list args;

	va_start(args, format);
	int n = vsnprintf(line, sizeof line - 1, format, args);
	va_end(args);
	line[n++] = '\n';
	if (write(1, line, (size_t)n) != n)
		_exit(3);
}

static void fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerrorname_np(errno));
	_exit(1);
}

#define MUST(call) ({ __typeof__(call) r_ = (call); if (r_ < 0) fail(#call); r_; })

/* Prints how a call came out, and hands its result on. */
static int went(const char *step, int result)
{
	say("%s: %s", step, result < 0 ? strerrorname_np(errno) : "ok");
	return result;
}

static void tell(enum pipe who)
{
	if (write(pipes[who][1], "", 1) != 1)
		fail("write to a pipe");
}

static void await(enum pipe who)
{
	struct pollfd p = {.fd = pipes[who][0], .events = POLLIN};
	char byte;

	if (poll(&p, 1, SECONDS * 1000) != 1 || read(pipes[who][0], &byte, 1) != 1) {
		fprintf(stderr, "waited too long\n");
		_exit(1);
	}
}

static const char *at(const char *name)
{
	static char paths[4][64];
	static unsigned turn;
	char *path = paths[turn++ % 4];

	snprintf(path, sizeof *paths, "%s/%s", dir, name);
	return path;
}

/* Runs a shell command and prints what it prints, the directory called DIR, and its status if it is not 0. */
static void sh(const char *command)
{
	char line[256], *found;
	int status, out[2];
	pid_t pid;
	FILE *f;

	say("$ %s", command);
	MUST(pipe2(out, O_CLOEXEC));
	pid = MUST(fork());
	if (pid == 0) {
		/* A shell would drop to the real user, and nothing would be preloaded into it. */
		MUST(setresuid(geteuid(), (uid_t)-1, (uid_t)-1));
		MUST(dup2(out[1], 1));
		MUST(dup2(out[1], 2));
		setenv("LC_ALL", "C", 1);
		setenv("D", dir, 1);
		execlp("sh", "sh", "-c", command, (char *)NULL);
		_exit(126);
	}
	close(out[1]);
	f = fdopen(out[0], "r");
	while (fgets(line, sizeof line, f)) {
		line[strcspn(line, "\n")] = 0;
		while ((found = strstr(line, dir))) {
			memcpy(found, "DIR", 3);
			memmove(found + 3, found + strlen(dir), strlen(found + strlen(dir)) + 1);
		}
		say("  %s", line);
	}
	fclose(f);
	MUST(waitpid(pid, &status, 0));
	if (status != 0)
		say("  status %d", WIFEXITED(status) ? WEXITSTATUS(status) : -status);
}

static mqd_t queue(const char *name, long maxmsg, long msgsize)
{
	struct mq_attr attr = {.mq_maxmsg = maxmsg, .mq_msgsize = msgsize};

	return mq_open(name, O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK, 0600, &attr);
}

/* Whether queues of so many bytes can be created, and not one more. They are removed again. */
static int fits(long bytes)
{
	int ok = 1, n = 0;
	char name[24];

	for (; ok && bytes > 0; n++) {
		int is_default = bytes == DEFAULT || bytes >= DEFAULT + SMALL;
		long size = is_default ? 8192 : bytes - 96;
		mqd_t q;

		snprintf(name, sizeof name, "/fits%d", n);
		q = queue(name, is_default ? 10 : 1, size);
		ok = q != (mqd_t)-1;
		if (!ok && errno != EMFILE)
			fail("a queue to fill the limit");
		if (ok)
			mq_close(q);
		bytes -= is_default ? DEFAULT : bytes;
	}
	if (ok) {
		mqd_t q = queue("/more", 1, 1);
		if (q != (mqd_t)-1) {
			mq_close(q);
			mq_unlink("/more");
			ok = 0;
		}
	}
	while (n-- > 0) {
		snprintf(name, sizeof name, "/fits%d", n);
		mq_unlink(name);
	}
	return ok;
}

/* The same; natively what has gone is given back some time after its end. */
static int come_back(long bytes)
{
	time_t start = time(NULL);
	int ok;

	while (!(ok = fits(bytes)) && !getenv("MQNS_DIR") && time(NULL) - start < SECONDS)
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	return ok;
}

/* Namespaces in $MQNS_DIR, of whichever user, beside that of the audience; as many as are alive if there is none. */
static int in_directory(int alive)
{
	const char *root = getenv("MQNS_DIR");
	char path[PATH_MAX];
	glob_t found;
	int count;

	if (!root)
		return alive;
	snprintf(path, sizeof path, "%s/u*/n*", root);
	if (glob(path, 0, NULL, &found) != 0)
		return 0;
	count = (int)found.gl_pathc;
	globfree(&found);
	return count - audience;
}

/* Waits for the end of a child, any if -1. */
static void wait_for(pid_t pid, int expected)
{
	int status;

	if (waitpid(pid, &status, 0) < 0)
		fail("waitpid");
	if (status != expected) {
		fprintf(stderr, "a task ended with status %#x\n", status);
		umount2(dir, MNT_DETACH);
		rmdir(dir);
		_exit(1);
	}
}

/* Another process makes a namespace and leaves it. */
static void look(void)
{
	pid_t pid = MUST(fork());

	if (pid == 0) {
		MUST(unshare(CLONE_NEWIPC));
		_exit(0);
	}
	wait_for(pid, 0);
}

static void create_in_every_way(const char *who)
{
	char step[64];
	int fd, d;
	FILE *f;

#define AS(what) (snprintf(step, sizeof step, "%s creates by %s", who, what), step)
	if (went(AS("creat"), fd = creat(at("new"), 0600)) >= 0)
		close(fd);
	if (went(AS("open"), fd = open(at("new"), O_RDWR | O_CREAT, 0600)) >= 0)
		close(fd);
	if (went(AS("open, exclusively"), fd = open(at("newer"), O_RDWR | O_CREAT | O_EXCL, 0600)) >= 0)
		close(fd);
	d = MUST(open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	if (went(AS("openat"), fd = openat(d, "newest", O_RDWR | O_CREAT, 0600)) >= 0)
		close(fd);
	close(d);
	went(AS("mknod"), mknod(at("node"), S_IFREG | 0600, 0));
	f = fopen(at("stream"), "w");
	went(AS("fopen"), f ? 0 : -1);
	if (f)
		fclose(f);
#undef AS
}

/* ---- b, in ns2 ---- */

static void dead_superblock(void)
{
	struct stat st;
	struct mq_attr attr;
	struct pollfd p;
	unsigned prio;
	char text[64] = "";
	int fd, other;

	sh("ls $D");
	sh("stat -c '%n: %F, %s bytes, mode %a, %h name' $D/letter");
	sh("stat -c 'DIR: %F, %s bytes, mode %a' $D; stat -f -c %T $D");
	sh("cat $D/letter");

	fd = MUST(went("b opens the letter", open(at("letter"), O_RDWR | O_CREAT | O_NONBLOCK, 0600)));
	MUST(mq_getattr(fd, &attr));
	say("it holds %ld of %ld messages of %ld bytes", attr.mq_curmsgs, attr.mq_maxmsg, attr.mq_msgsize);
	if (mq_receive(fd, text, sizeof text, &prio) < 0)
		fail("mq_receive");
	say("b receives \"%s\" of priority %u", text, prio);
	went("b receives again", (int)mq_receive(fd, text, sizeof text, NULL));
	went("b sends", mq_send(fd, "from b", 7, 1));
	p = (struct pollfd){.fd = fd, .events = POLLIN | POLLOUT};
	MUST(poll(&p, 1, 0));
	say("it polls as %s%s", p.revents & POLLIN ? "in" : "", p.revents & POLLOUT ? "out" : "");
	sh("cut -d' ' -f1 $D/letter");
	went("b creates what is there, exclusively", open(at("letter"), O_RDWR | O_CREAT | O_EXCL, 0600));
	other = MUST(went("b opens it once more", open(at("letter"), O_RDONLY | O_NONBLOCK)));
	if (mq_receive(other, text, sizeof text, &prio) < 0)
		fail("mq_receive");
	say("b receives \"%s\" of priority %u", text, prio);
	close(other);
	went("b sends by a descriptor that may not", mq_send(MUST(other = open(at("letter"), O_RDONLY)), "", 1, 0));
	close(other);

	went("b chmods", chmod(at("letter"), 0640));
	went("b truncates", truncate(at("letter"), 5));
	MUST(fstat(fd, &st));
	say("its mode is %o, its size %ld", st.st_mode & 07777, (long)st.st_size);
	went("b opens what is not there", open(at("none"), O_RDWR));
	went("b unlinks what is not there", unlink(at("none")));
	went("b makes a directory", mkdir(at("none"), 0700));
	went("b renames", rename(at("letter"), at("none")));
	went("b links", link(at("letter"), at("none")));

	say("b cannot pay for another queue: %s", fits(0) ? "yes" : "no");
	went("b unlinks", unlink(at("other")));
	say("its bytes are back: %s", come_back(SMALL) ? "yes" : "no");
	sh("rm $D/third; ls $D");
	say("and those of the one removed: %s", come_back(2 * SMALL) ? "yes" : "no");

	create_in_every_way("b");
	sh("touch $D/touched; ls $D");
	pid_t pid = MUST(fork());
	if (pid == 0) {
		went("a child of b creates", creat(at("new"), 0600));
		went("a child of b opens", open(at("letter"), O_RDONLY));
		_exit(0);
	}
	wait_for(pid, 0);

	went("b unmounts with a queue open", umount(dir));
	if (!strcmp(leaves, "detach")) {
		went("b detaches", umount2(dir, MNT_DETACH));
		sh("ls $D");
		went("b sends by what it has open", mq_send(fd, "late", 5, 2));
		if (mq_receive(fd, text, sizeof text, &prio) < 0)
			fail("mq_receive");
		say("b receives \"%s\" of priority %u", text, prio);
		say("nothing else is given back: %s", fits(2 * SMALL) ? "yes" : "no");
		MUST(close(fd));
		look();
	} else {
		MUST(close(fd));
		went("b unmounts", umount(dir));
		sh("ls $D");
		went("b unmounts again", umount(dir));
	}
}

static int b(void *unused)
{
	mqd_t q;

	(void)unused;
	await(TO_B);
	went("b looks for the letter in ns2", mq_open("/letter", O_RDWR));
	MUST(q = queue("/letter", 1, 1));
	mq_close(q);
	say("b makes a letter of its own");
	sh("ls $D");
	went("b creates through the mount while a lives", q = creat(at("made"), 0600));
	close(q);
	went("b finds it in ns2", mq_open("/made", O_RDONLY));
	tell(TO_A);

	if (!strcmp(ends, "member")) {
		await(TO_B);
		went("a has gone; b unlinks", unlink(at("made")));
		went("b creates it again", q = creat(at("made"), 0600));
		close(q);
		tell(TO_MEMBER);
	}
	await(TO_B);
	say("ns1 has lost its last task");
	/* Nothing that b did before has told anybody. */
	went("b creates", creat(at("first"), 0600));
	tell(TO_MAIN);
	await(TO_B);

	dead_superblock();
	say("namespaces in the directory: %d", in_directory(1));
	say("all that was charged is back: %s", come_back(2 * SMALL + LETTER + DEFAULT) ? "yes" : "no");
	went("b's own letter is there", mq_unlink("/letter"));
	say("its bytes are back: %s", come_back(3 * SMALL + LETTER + DEFAULT) ? "yes" : "no");
	return 0;
}

/* ---- a, in ns1 ---- */

static int a(void *unused)
{
	static char stack[262144] __attribute__((aligned(16)));
	mqd_t q;
	pid_t pid;

	(void)unused;
	if (!strcmp(made, "unshare"))
		MUST(unshare(CLONE_NEWIPC));
	went("a mounts ns1", mount("ns1", dir, "mqueue", 0, NULL));
	sh("ls $D");
	MUST(q = queue("/letter", 2, 64));
	MUST(mq_send(q, "from a", 7, 3));
	MUST(mq_close(q));
	MUST(mq_close(MUST(queue("/other", 1, 1))));
	MUST(mq_close(MUST(queue("/third", 1, 1))));
	sh("ls $D");
	if (!strcmp(ends, "member")) {
		pid = MUST(fork());
		if (pid == 0) {
			await(TO_MEMBER);
			_exit(0);
		}
	}
	went("a clones b into ns2", pid = clone(b, stack + sizeof stack, CLONE_NEWIPC | SIGCHLD, NULL));
	MUST(pid);
	tell(TO_B);
	await(TO_A);
	went("a finds what b has made", mq_open("/made", O_RDWR));
	went("a's own letter is there", mq_open("/letter", O_RDWR));

	if (!strcmp(ends, "kill"))
		raise(SIGKILL);
	if (!strcmp(ends, "exec")) {
		/* Else nothing would be preloaded into the next image. */
		MUST(setresuid(geteuid(), (uid_t)-1, (uid_t)-1));
		MUST(execl("/bin/true", "true", (char *)NULL));
	}
	if (!strcmp(ends, "setns") || !strcmp(ends, "unshare")) {
		/* It lives on, elsewhere. */
		MUST(!strcmp(ends, "setns") ? setns(home, CLONE_NEWIPC) : unshare(CLONE_NEWIPC));
		went("a looks for the letter elsewhere", mq_open("/letter", O_RDWR));
		tell(TO_MAIN);
		await(TO_A);
	}
	if (!strcmp(ends, "exit"))
		exit(0);
	_exit(0);
}

int main(int argc, char **argv)
{
	static char stack[262144] __attribute__((aligned(16)));
	struct rlimit limit = {.rlim_cur = LETTER + 3 * SMALL + DEFAULT, .rlim_max = LETTER + 3 * SMALL + DEFAULT};
	int lives_on, expected;
	pid_t first;

	if (argc != 4)
		return 2;
	made = argv[1];
	ends = argv[2];
	leaves = argv[3];
	lives_on = !strcmp(ends, "setns") || !strcmp(ends, "unshare");
	umask(022);
	/* A real user whom nobody else's queues are charged to; in a user namespace nobody else's are anyway. */
	if (geteuid() == 0 && setresuid(200000 + (uid_t)getpid(), (uid_t)-1, (uid_t)-1) != 0 && errno != EINVAL)
		fail("setresuid");
	MUST(setrlimit(RLIMIT_MSGQUEUE, &limit));
	MUST(prctl(PR_SET_CHILD_SUBREAPER, 1));
	MUST(home = open("/proc/self/ns/ipc", O_RDONLY | O_CLOEXEC));
	audience = in_directory(0);
	for (int i = 0; i < PIPES; i++)
		MUST(pipe2(pipes[i], O_CLOEXEC));
	if (!mkdtemp(dir))
		fail("mkdtemp");

	if (!strcmp(made, "unshare")) {
		first = MUST(fork());
		if (first == 0)
			a(NULL);
	} else {
		first = MUST(clone(a, stack + sizeof stack, CLONE_NEWIPC | SIGCHLD, NULL));
	}
	expected = !strcmp(ends, "kill") ? SIGKILL : 0;
	if (lives_on)
		await(TO_MAIN);
	else
		wait_for(first, expected);
	tell(TO_B);
	if (!strcmp(ends, "member")) {
		/* The other member is an orphan now, as is b. */
		wait_for(-1, 0);
		tell(TO_B);
	}
	await(TO_MAIN);
	if (lives_on) {
		tell(TO_A);
		wait_for(first, 0);
	}
	tell(TO_B);
	wait_for(-1, 0);
	say("b has ended; namespaces in the directory: %d", in_directory(0));
	say("everything is free: %s", come_back((long)limit.rlim_cur) ? "yes" : "no");
	if (rmdir(dir) != 0)
		fail("rmdir");
	return 0;
}
