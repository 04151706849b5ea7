/*
 * harmless_spawn PROBE: starts PROBE by vfork, posix_spawn, system, popen, double fork and a raw
 * clone, with descriptors, signals and sessions changed on the way. Uses no queue.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static void handler(int s)
{
	(void)s;
}

static void finish(const char *what, pid_t pid)
{
	int status = 0;

	waitpid(pid, &status, 0);
	printf("== %s: status %x\n", what, status);
}

int main(int argc, char **argv)
{
	char *probe = argc > 1 ? argv[1] : "/bin/true", *args[] = {probe, NULL};
	struct rlimit r = {64, 64};

	setvbuf(stdout, NULL, _IONBF, 0);
	setrlimit(RLIMIT_NOFILE, &r);
	signal(SIGUSR1, handler);
	signal(SIGUSR2, SIG_IGN);
	int null = open("/dev/null", O_RDWR);
	int extra = open("/dev/null", O_RDONLY | O_CLOEXEC);

	pid_t p = vfork();
	if (p == 0) {
		/* What programs do between vfork and exec. */
		dup2(null, 20);
		close(null);
		fcntl(20, F_SETFD, 0);
		signal(SIGUSR1, SIG_DFL);
		close_range(21, ~0u, 0);
		execv(probe, args);
		_exit(127);
	}
	finish("vfork", p);
	printf("parent's: %d %d\n", fcntl(null, F_GETFD), fcntl(20, F_GETFD));

	p = vfork();
	if (p == 0) {
		execv("/nonexistent", args);
		_exit(errno);
	}
	finish("vfork and nothing to run", p);

	posix_spawn_file_actions_t fa;
	posix_spawnattr_t at;
	sigset_t set;
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_adddup2(&fa, null, 10);
	posix_spawn_file_actions_addopen(&fa, 11, "/dev/zero", O_RDONLY, 0);
	posix_spawn_file_actions_addclose(&fa, null);
	posix_spawn_file_actions_addclosefrom_np(&fa, 12);
	posix_spawnattr_init(&at);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	posix_spawnattr_setsigmask(&at, &set);
	sigfillset(&set);
	posix_spawnattr_setsigdefault(&at, &set);
	posix_spawnattr_setflags(&at, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID);
	int spawned = posix_spawn(&p, probe, &fa, &at, args, environ);
	finish("posix_spawn", p);
	/* Not before: the child has the same output. */
	printf("posix_spawn: %d\n", spawned);
	printf("posix_spawnp: %s\n", strerrorname_np(posix_spawnp(&p, "no such program", NULL, NULL, args, environ)));

	printf("system: %d\n", system("exit 3"));
	char command[4096], line[4096];
	snprintf(command, sizeof command, "'%s'", probe);
	FILE *f = popen(command, "r");
	while (fgets(line, sizeof line, f))
		printf("popen: %s", line);
	printf("pclose: %d\n", pclose(f));

	p = fork();
	if (p == 0) {
		setsid();
		pid_t q = fork();
		if (q == 0) {
			execv(probe, args);
			_exit(127);
		}
		waitpid(q, NULL, 0);
		_exit(4);
	}
	finish("double fork", p);

	p = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	if (p == 0) {
		close(null);
		close(extra);
		execv(probe, args);
		_exit(127);
	}
	finish("raw clone", p);
	char *no_environment[] = {NULL};
	p = fork();
	if (p == 0) {
		execve(probe, args, no_environment);
		_exit(127);
	}
	finish("without an environment", p);
	return 0;
}
