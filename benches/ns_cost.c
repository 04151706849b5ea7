/*
 * ns_cost ROUNDS LIB: what IPC namespaces cost, natively and with LIB preloaded, in interleaved rounds.
 *
 *   unshare    unshare(CLONE_NEWIPC), which leaves the namespace of the round before
 *   exec       fork, exec of /bin/true, wait: without the library; with it, in the first namespace; with
 *              it, in another one
 *
 * Prints medians in microseconds, and of the differences to the first side within a round. The library
 * gets a state directory of its own. For root. Where the kernel takes CLONE_NEWIPC the library's unshare
 * contains the kernel's; under tests/programs/nokernel it is the library's alone, and the kernel's refused.
 *
 * The sides are processes that stay and do a step each time they are told to: started once with the
 * environment that makes the difference (ns_cost --side WHAT).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct side {
	const char *name, *what;
	int preload;
	int in, out;
	pid_t pid;
	double *us;
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static void die(const char *what)
{
	fprintf(stderr, "ns_cost: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* One step for each byte of stdin; its time in microseconds to stdout. */
static int be_side(const char *what)
{
	char byte;

	if (!strcmp(what, "exec-inside") && unshare(CLONE_NEWIPC) != 0)
		die("unshare");
	while (read(0, &byte, 1) == 1) {
		double start = now(), us;

		int refused = 0;

		if (!strcmp(what, "unshare")) {
			refused = unshare(CLONE_NEWIPC) != 0;
		} else {
			pid_t pid = fork();
			int status;

			if (pid == 0) {
				execl("/bin/true", "true", (char *)NULL);
				_exit(127);
			}
			if (waitpid(pid, &status, 0) != pid || status != 0)
				die("/bin/true");
		}
		us = refused ? -1 : now() - start;
		if (write(1, &us, sizeof us) != sizeof us)
			die("write");
	}
	return 0;
}

static void start(struct side *side, const char *self, const char *lib, const char *dir)
{
	int in[2], out[2];

	if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC))
		die("pipe");
	side->pid = fork();
	if (side->pid == 0) {
		unsetenv("LD_PRELOAD");
		if (side->preload) {
			setenv("LD_PRELOAD", lib, 1);
			setenv("MQNS_DIR", dir, 1);
		}
		dup2(in[0], 0);
		dup2(out[1], 1);
		execl(self, self, "--side", side->what, (char *)NULL);
		die(self);
	}
	close(in[0]);
	close(out[1]);
	side->in = in[1];
	side->out = out[0];
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(const double *values, int n)
{
	double *v = malloc((size_t)n * sizeof *v), m;

	memcpy(v, values, (size_t)n * sizeof *v);
	qsort(v, (size_t)n, sizeof *v, compare);
	m = v[n / 2];
	free(v);
	return m;
}

int main(int argc, char **argv)
{
	struct side sides[] = {
		{.name = "unshare, kernel", .what = "unshare"},
		{.name = "unshare, library", .what = "unshare", .preload = 1},
		{.name = "fork+exec+wait, no library", .what = "exec"},
		{.name = "fork+exec+wait, library, first namespace", .what = "exec", .preload = 1},
		{.name = "fork+exec+wait, library, another namespace", .what = "exec-inside", .preload = 1},
	};
	enum { SIDES = sizeof sides / sizeof *sides, WARM_UP = 20 };
	char dir[] = "/dev/shm/ns_cost.XXXXXX", command[64];
	int rounds = argc == 3 ? atoi(argv[1]) : 0;

	if (argc == 3 && !strcmp(argv[1], "--side"))
		return be_side(argv[2]);
	if (rounds < 1) {
		fprintf(stderr, "usage: ns_cost ROUNDS LIB\n");
		return 2;
	}
	if (!mkdtemp(dir))
		die(dir);
	for (int s = 0; s < SIDES; s++) {
		sides[s].us = calloc((size_t)rounds, sizeof(double));
		start(&sides[s], argv[0], argv[2], dir);
	}
	for (int r = -WARM_UP; r < rounds; r++)
		for (int k = 0; k < SIDES; k++) {
			/* Each side comes first as often as the others. */
			struct side *side = &sides[(k + r + WARM_UP) % SIDES];
			double us;

			if (write(side->in, "", 1) != 1 || read(side->out, &us, sizeof us) != sizeof us) {
				fprintf(stderr, "ns_cost: %s has ended\n", side->name);
				snprintf(command, sizeof command, "rm -rf %s", dir);
				return system(command) || 1;
			}
			if (r >= 0)
				side->us[r] = us;
		}
	for (int s = 0; s < SIDES; s++) {
		struct side *side = &sides[s];
		const struct side *first = s < 2 ? &sides[0] : &sides[2];

		if (median(side->us, rounds) < 0)
			printf("%-46s refused", side->name);
		else
			printf("%-46s %7.1f us", side->name, median(side->us, rounds));
		if (side != first && median(side->us, rounds) >= 0 && median(first->us, rounds) >= 0) {
			double *difference = calloc((size_t)rounds, sizeof(double));
			for (int r = 0; r < rounds; r++)
				difference[r] = side->us[r] - first->us[r];
			printf("  %+7.1f", median(difference, rounds));
			free(difference);
		}
		putchar('\n');
		close(side->in);
		waitpid(side->pid, NULL, 0);
	}
	snprintf(command, sizeof command, "rm -rf %s", dir);
	return system(command) != 0;
}
