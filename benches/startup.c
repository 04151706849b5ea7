/*
 * startup ROUNDS LIB PROGRAM ARG…: what preloading LIB adds to starting PROGRAM and waiting for its end,
 * with posix_spawn. Each round runs it once without and once with the library, in alternating order;
 * prints the medians in microseconds, and that of the differences within a round.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

/* Microseconds; the child's page faults are added to *faults. */
static double once(char **argv, char **env, posix_spawn_file_actions_t *quiet, long *faults)
{
	struct rusage use;
	pid_t pid;
	int status;
	double start = now();

	if (posix_spawnp(&pid, argv[0], quiet, NULL, argv, env) || wait4(pid, &status, 0, &use) != pid || status) {
		fprintf(stderr, "startup: %s failed\n", argv[0]);
		exit(1);
	}
	*faults += use.ru_minflt;
	return now() - start;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *v, int n)
{
	qsort(v, n, sizeof *v, compare);
	return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

int main(int argc, char **argv)
{
	if (argc < 4) {
		fprintf(stderr, "usage: startup ROUNDS LIB PROGRAM ARG...\n");
		return 2;
	}
	int n = atoi(argv[1]), count = 0;
	double *time[2], *difference = calloc(n, sizeof(double));
	char **env[2], preload[4096];
	long faults[2] = {0, 0};
	posix_spawn_file_actions_t quiet;

	while (environ[count])
		count++;
	for (int side = 0; side < 2; side++) {
		time[side] = calloc(n, sizeof(double));
		env[side] = calloc(count + 2, sizeof(char *));
		memcpy(env[side], environ, count * sizeof(char *));
	}
	snprintf(preload, sizeof preload, "LD_PRELOAD=%s", argv[2]);
	env[1][count] = preload;
	posix_spawn_file_actions_init(&quiet);
	posix_spawn_file_actions_addopen(&quiet, 1, "/dev/null", O_WRONLY, 0);

	for (int i = -10; i < n; i++)
		for (int turn = 0; turn < 2; turn++) {
			int side = (i & 1) ^ turn;
			long f = 0;
			double t = once(argv + 3, env[side], &quiet, &f);
			if (i < 0)
				continue;
			time[side][i] = t;
			faults[side] += f;
			difference[i] += side ? t : -t;
		}
	printf("%-8s without %7.1f us, with %7.1f us, difference %6.1f us (page faults %ld, %ld)\n", argv[3],
	       median(time[0], n), median(time[1], n), median(difference, n), faults[0] / n, faults[1] / n);
	return 0;
}
