/*
 * trust OP…: what users may do to each other. One thing after the other, a line for each: "ok", a text, or the name
 * of an error. An OP is one argument, its words separated by blanks.
 *
 *   ids UID          real, effective and saved, groups dropped
 *   umask MODE
 *   create NAME MODE     4 x 64 bytes, O_CREAT | O_EXCL, O_NONBLOCK; kept open
 *   big NAME MODE        10 x 8192 bytes
 *   open NAME        for reading and writing, O_NONBLOCK; kept open
 *   close            what was opened last
 *   send TEXT        receive
 *   unlink NAME
 *   inode PATH       of a file, in hexadecimal
 *   stat PATH        by a path, as any program does
 *   unshare          a namespace of its own
 *   enter PID        that of a process
 *   mount DIR        the queues there
 *   cat FILE         nothing is printed of it
 *   tell FILE        makes a file with the process's id
 *   await FILE       waits for one
 *   lease FILE       takes a read lease, and sits on it
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <mqueue.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

static mqd_t q = (mqd_t)-1;

static void say(long result)
{
	puts(result < 0 ? strerrorname_np(errno) : "ok");
}

static void create(const char *name, const char *mode, long maxmsg, long msgsize)
{
	struct mq_attr attr = {.mq_maxmsg = maxmsg, .mq_msgsize = msgsize};

	q = mq_open(name, O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK, strtoul(mode, NULL, 8), &attr);
	say(q);
}

static void receive(void)
{
	char text[8193];
	ssize_t n = mq_receive(q, text, 8192, NULL);

	if (n < 0)
		say(-1);
	else
		printf("%.*s\n", (int)n, text);
}

static void cat(const char *file)
{
	char text[4096];
	int fd = open(file, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0) {
		say(-1);
		return;
	}
	while ((n = read(fd, text, sizeof text)) > 0)
		;
	say(n);
	close(fd);
}

static int tell(const char *file)
{
	char draft[4096];
	FILE *f;

	snprintf(draft, sizeof draft, "%s.draft", file);
	f = fopen(draft, "w");
	if (!f || fprintf(f, "%d", (int)getpid()) < 0 || fclose(f) != 0)
		return -1;
	return rename(draft, file);
}

static void await(const char *file)
{
	for (int i = 0; i < 1000; i++) {
		if (access(file, F_OK) == 0) {
			puts("ok");
			return;
		}
		usleep(10000);
	}
	puts("late");
}

static void lease(const char *file)
{
	int fd = open(file, O_RDONLY);

	signal(SIGIO, SIG_IGN);
	say(fd < 0 ? -1 : fcntl(fd, F_SETLEASE, F_RDLCK));
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int i = 1; i < argc; i++) {
		char *op = strtok(argv[i], " "), *a = strtok(NULL, " "), *b = strtok(NULL, " ");
		struct stat st;
		int fd;
		uid_t id;

#define IS(name) (op && !strcmp(op, name))
		if (IS("ids") && a) {
			id = (uid_t)atoi(a);
			say(setgroups(0, NULL) || setresgid(id, id, id) || setresuid(id, id, id) ? -1 : 0);
		} else if (IS("umask") && a) {
			umask((mode_t)strtoul(a, NULL, 8));
			puts("ok");
		} else if (IS("create") && b) {
			create(a, b, 4, 64);
		} else if (IS("big") && b) {
			create(a, b, 10, 8192);
		} else if (IS("open") && a) {
			q = mq_open(a, O_RDWR | O_NONBLOCK);
			say(q);
		} else if (IS("close")) {
			say(mq_close(q));
		} else if (IS("send") && a) {
			say(mq_send(q, a, strlen(a), 0));
		} else if (IS("receive")) {
			receive();
		} else if (IS("unlink") && a) {
			say(mq_unlink(a));
		} else if (IS("inode") && a) {
			if (stat(a, &st))
				say(-1);
			else
				printf("%llx\n", (unsigned long long)st.st_ino);
		} else if (IS("stat") && a) {
			say(stat(a, &st));
		} else if (IS("unshare")) {
			say(unshare(CLONE_NEWIPC));
		} else if (IS("enter") && a) {
			fd = (int)syscall(SYS_pidfd_open, atoi(a), 0);
			say(fd < 0 ? -1 : setns(fd, CLONE_NEWIPC));
		} else if (IS("mount") && a) {
			say(mount("queues", a, "mqueue", 0, NULL));
		} else if (IS("cat") && a) {
			cat(a);
		} else if (IS("tell") && a) {
			say(tell(a));
		} else if (IS("await") && a) {
			await(a);
		} else if (IS("lease") && a) {
			lease(a);
		} else {
			fprintf(stderr, "trust: %s?\n", op ? op : "");
			return 2;
		}
	}
	return 0;
}
