/*
 * harmless_daemon FILE: becomes a daemon as daemons do, closing every descriptor by number, by
 * closefrom and by close_range in turn; reports to FILE, which it prints at the end.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void daemonise(int how)
{
	pid_t p = fork();
	if (p)
		_exit(0);
	setsid();
	for (int s = 1; s < 65; s++)
		signal(s, SIG_DFL);
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	p = fork();
	if (p)
		_exit(0);
	umask(027);
	if (chdir("/"))
		_exit(1);
	long failed = 0;
	if (how == 0)
		for (int fd = 0; fd < 1024; fd++)
			failed += close(fd) != 0 && errno != EBADF;
	else if (how == 1)
		closefrom(0);
	else
		failed = close_range(0, ~0u, 0);
	if (failed)
		_exit(1);
	/* The first three numbers are free again, in order. */
	if (open("/dev/null", O_RDWR) != 0 || dup(0) != 1 || dup(0) != 2)
		_exit(2);
}

int main(int argc, char **argv)
{
	if (argc < 2)
		return 2;
	char *path = realpath(argv[1], NULL);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	for (int how = 0; how < 3; how++) {
		pid_t p = fork();
		if (p == 0) {
			daemonise(how);
			FILE *f = fopen(path, "a");
			DIR *d = opendir("/proc/self/fd");
			for (struct dirent *e; (e = readdir(d));)
				if (e->d_name[0] != '.' && atoi(e->d_name) != dirfd(d))
					fprintf(f, "daemon %d: fd %s\n", how, e->d_name);
			fprintf(f, "daemon %d: session %d leader %d\n", how, getsid(0) != 0, getsid(0) == getpid());
			_exit(fclose(f) != 0);
		}
		int status;
		while ((p = wait(&status)) > 0)
			printf("a process ended: %x\n", status);
	}
	FILE *f = fopen(path, "r");
	for (int c; (c = getc(f)) != EOF;)
		putchar(c);
	return 0;
}
