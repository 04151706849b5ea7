/*
 * ns_probe OPERATION…: queues and IPC namespaces for scripts. An operation is one argument, its words
 * separated by blanks; each prints a line: "ok", a value, or the name of the error.
 *
 *   create NAME TEXT     a new queue of 4 x 64 bytes, mode 0666, with a message in it
 *   default NAME         a new queue with the namespace's default attributes; prints them
 *   peek NAME            the first message, which is put back
 *   open NAME            opens for reading and closes again
 *   keep NAME            opens and leaves open
 *   unlink NAME
 *   unshare              a namespace of its own
 *   enter FILE           that of a namespace file
 *   enter-pid PID        that of a process, by pidfd
 *   number FILE          the namespace's, by open and fstat
 *   ids UID              drops to that user and group
 *   hold                 waits for the end of stdin
 *   spawn OPERATION      in another program, started by posix_spawn with no descriptor above 2
 *   range OPERATION      the same, by fork, close_range and exec
 *   loop OPERATION       the same, closing one descriptor after the other
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <mqueue.h>
#include <sched.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

static int say(int result)
{
	puts(result < 0 ? strerrorname_np(errno) : "ok");
	return result;
}

static void create(const char *name, const char *text)
{
	struct mq_attr attr = {.mq_maxmsg = 4, .mq_msgsize = 64};
	umask(0);
	mqd_t q = mq_open(name, O_RDWR | O_CREAT | O_EXCL, 0666, text ? &attr : NULL);

	if (q == (mqd_t)-1) {
		say(-1);
	} else if (text) {
		say(mq_send(q, text, strlen(text), 0));
		mq_close(q);
	} else {
		mq_getattr(q, &attr);
		printf("%ld %ld\n", attr.mq_maxmsg, attr.mq_msgsize);
		mq_close(q);
	}
}

static void peek(const char *name)
{
	char text[65];
	mqd_t q = mq_open(name, O_RDWR | O_NONBLOCK);
	ssize_t n = q == (mqd_t)-1 ? -1 : mq_receive(q, text, 64, NULL);

	if (n < 0 || mq_send(q, text, (size_t)n, 0) != 0)
		say(-1);
	else
		printf("%.*s\n", (int)n, text);
	if (q != (mqd_t)-1)
		mq_close(q);
}

static void enter(int fd)
{
	if (say(fd < 0 ? -1 : setns(fd, CLONE_NEWIPC)) == 0)
		close(fd);
}

static void number(const char *file)
{
	struct stat st;
	int fd = open(file, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st) != 0) {
		say(-1);
		return;
	}
	printf("%llu\n", (unsigned long long)st.st_ino);
	close(fd);
}

static void ids(uid_t id)
{
	say(setgroups(0, NULL) || setresgid(id, id, id) || setresuid(id, id, id) ? -1 : 0);
}

static void hold(void)
{
	char byte;

	puts("ok");
	fflush(stdout);
	while (read(0, &byte, 1) > 0)
		;
}

static void start(const char *how, char *operation)
{
	char *argv[] = {"ns_probe", operation, NULL};
	posix_spawn_file_actions_t actions;
	int status;
	pid_t pid;

	if (!strcmp(how, "spawn")) {
		posix_spawn_file_actions_init(&actions);
		posix_spawn_file_actions_addclosefrom_np(&actions, 3);
		errno = posix_spawn(&pid, "/proc/self/exe", &actions, NULL, argv, environ);
		if (errno)
			pid = -1;
		posix_spawn_file_actions_destroy(&actions);
	} else {
		pid = fork();
		if (pid == 0) {
			if (!strcmp(how, "range"))
				close_range(3, ~0U, 0);
			for (int fd = 3; !strcmp(how, "loop") && fd < 1024; fd++)
				close(fd);
			execv("/proc/self/exe", argv);
			_exit(127);
		}
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		say(-1);
	else if (status != 0)
		printf("status %#x\n", status);
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		char *op = strtok(argv[i], " "), *rest = strtok(NULL, ""), *a, *b;
		char words[256] = "";

		if (rest)
			snprintf(words, sizeof words, "%s", rest);
		a = strtok(words, " ");
		b = strtok(NULL, " ");

		if (!op)
			op = "";
		if (!strcmp(op, "create") && b)
			create(a, b);
		else if (!strcmp(op, "default") && a)
			create(a, NULL);
		else if (!strcmp(op, "peek") && a)
			peek(a);
		else if (!strcmp(op, "open") && a) {
			mqd_t q = mq_open(a, O_RDONLY);
			if (say(q) >= 0)
				mq_close(q);
		} else if (!strcmp(op, "keep") && a)
			say(mq_open(a, O_RDWR));
		else if (!strcmp(op, "unlink") && a)
			say(mq_unlink(a));
		else if (!strcmp(op, "unshare"))
			say(unshare(CLONE_NEWIPC));
		else if (!strcmp(op, "enter") && a)
			enter(open(a, O_RDONLY | O_CLOEXEC));
		else if (!strcmp(op, "enter-pid") && a)
			enter((int)syscall(SYS_pidfd_open, atoi(a), 0));
		else if (!strcmp(op, "number") && a)
			number(a);
		else if (!strcmp(op, "ids") && a)
			ids((uid_t)atoi(a));
		else if ((!strcmp(op, "spawn") || !strcmp(op, "range") || !strcmp(op, "loop")) && rest) {
			start(op, rest);
		} else if (!strcmp(op, "hold"))
			hold();
		else {
			fprintf(stderr, "ns_probe: %s?\n", op);
			return 2;
		}
		fflush(stdout);
	}
	return 0;
}
