/*
 * ns_many WHAT COUNT: many IPC namespaces.
 *
 *   row COUNT     one process makes COUNT namespaces one after the other, with a queue in each
 *   forks COUNT   COUNT children, one after the other, make one each, with a queue, and end
 *   live COUNT    COUNT processes at once, each in its own, with a queue of the same name and a text of
 *                 its own; this one enters them all, twice through their processes, then, when those have
 *                 ended, through descriptors that alone keep the namespaces
 *
 * row and forks print the median times of the first and of the last namespaces (a twentieth of them each),
 * in microseconds, of the unshare and of the whole; and that of the processor, which does not depend on what
 * else the machine does. Every namespace is left politely. Exit status 0 if all is well.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static struct mq_attr attr = {.mq_maxmsg = 1, .mq_msgsize = 8};

static void die(const char *what, long of)
{
	fprintf(stderr, "%s (%ld): %s\n", what, of, strerror(errno));
	_exit(1);
}

static double us_of(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static double now_us(void)
{
	return us_of(CLOCK_MONOTONIC);
}

/* Of this process and those that it has waited for. */
static double processor_us(void)
{
	struct rusage use;

	getrusage(RUSAGE_CHILDREN, &use);
	return us_of(CLOCK_PROCESS_CPUTIME_ID) + (use.ru_utime.tv_sec + use.ru_stime.tv_sec) * 1e6 +
	       use.ru_utime.tv_usec + use.ru_stime.tv_usec;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void report(const char *what, double *us, long count)
{
	long part = count / 20;

	qsort(us, (size_t)part, sizeof *us, compare);
	qsort(us + count - part, (size_t)part, sizeof *us, compare);
	printf("%s first %.1f last %.1f\n", what, us[part / 2], us[count - part + part / 2]);
}

/* In a namespace that has just been made: nothing of the one before, and a queue for this one. */
static void settle(long number)
{
	char text[9];
	int length = snprintf(text, sizeof text, "%ld", number % 10000000);
	double start = now_us();
	mqd_t q;

	/* Natively what dead namespaces are charged is given back some time after their end. */
	do
		q = mq_open("/q", O_RDWR | O_CREAT | O_EXCL, 0600, &attr);
	while (q == (mqd_t)-1 && errno == EMFILE && now_us() - start < 10e6 && sched_yield() == 0);
	if (q == (mqd_t)-1)
		die("mq_open in a new namespace", number);
	if (mq_send(q, text, (size_t)length, 0) != 0)
		die("mq_send", number);
	mq_close(q);
}

/* The namespace that the caller is in is the one of that number. */
static void check(long number, const char *how)
{
	char text[9] = "";
	mqd_t q = mq_open("/q", O_RDWR | O_NONBLOCK);
	ssize_t n = q == (mqd_t)-1 ? -1 : mq_receive(q, text, 8, NULL);

	if (n < 0)
		die(how, number);
	text[n] = 0;
	if (atol(text) != number) {
		fprintf(stderr, "%s: namespace %ld has the queue of %s\n", how, number, text);
		_exit(1);
	}
	if (mq_send(q, text, (size_t)n, 0) != 0)
		die("mq_send", number);
	mq_close(q);
}

static ino_t number_of(const char *file)
{
	struct stat st;

	if (stat(file, &st) != 0)
		die(file, 0);
	return st.st_ino;
}

static void row(long count)
{
	double *one = calloc((size_t)count, sizeof *one), *whole = calloc((size_t)count, sizeof *whole);
	double *busy = calloc((size_t)count, sizeof *busy);
	ino_t last = number_of("/proc/self/ns/ipc");
	int home = open("/proc/self/ns/ipc", O_RDONLY | O_CLOEXEC);

	if (!one || !whole || !busy || home < 0)
		die("row", count);
	for (long i = 0; i < count; i++) {
		double before = processor_us(), start = now_us();
		if (unshare(CLONE_NEWIPC) != 0)
			die("unshare", i);
		one[i] = now_us() - start;
		busy[i] = processor_us() - before;
		settle(i);
		whole[i] = now_us() - start;
		ino_t mine = number_of("/proc/self/ns/ipc");
		if (mine == last) {
			fprintf(stderr, "unshare %ld has not moved the process\n", i);
			_exit(1);
		}
		last = mine;
	}
	check(count - 1, "after the last");
	if (setns(home, CLONE_NEWIPC) != 0)
		die("setns home", 0);
	report("unshare", one, count);
	report("processor", busy, count);
	report("unshare with a queue", whole, count);
}

static void forks(long count)
{
	double *whole = calloc((size_t)count, sizeof *whole), *busy = calloc((size_t)count, sizeof *busy);

	if (!whole || !busy)
		die("forks", count);
	for (long i = 0; i < count; i++) {
		double before = processor_us(), start = now_us();
		pid_t pid = fork();
		int status;

		if (pid < 0)
			die("fork", i);
		if (pid == 0) {
			if (unshare(CLONE_NEWIPC) != 0)
				die("unshare", i);
			settle(i);
			_exit(0);
		}
		if (waitpid(pid, &status, 0) != pid || status != 0)
			die("child", i);
		whole[i] = now_us() - start;
		busy[i] = processor_us() - before;
	}
	report("fork, unshare, queue, exit", whole, count);
	report("processor", busy, count);
}

static int by_number(const void *a, const void *b)
{
	ino_t x = *(const ino_t *)a, y = *(const ino_t *)b;

	return (x > y) - (x < y);
}

static void live(long count)
{
	struct rlimit files;
	pid_t *pids = calloc((size_t)count, sizeof *pids);
	int *fds = calloc((size_t)count, sizeof *fds);
	ino_t *numbers = calloc((size_t)count + 1, sizeof *numbers);
	int said[2], gate[2], home = open("/proc/self/ns/ipc", O_RDONLY | O_CLOEXEC);
	char path[64], byte;

	getrlimit(RLIMIT_NOFILE, &files);
	if ((long)files.rlim_cur < count + 64) {
		files.rlim_cur = (rlim_t)count + 64;
		if (setrlimit(RLIMIT_NOFILE, &files) != 0)
			die("RLIMIT_NOFILE", count + 64);
	}
	if (!pids || !fds || !numbers || home < 0 || pipe(said) || pipe(gate))
		die("live", count);
	numbers[count] = number_of("/proc/self/ns/ipc");
	for (long i = 0; i < count; i++) {
		pids[i] = fork();
		if (pids[i] < 0)
			die("fork", i);
		if (pids[i] == 0) {
			close(gate[1]);
			if (unshare(CLONE_NEWIPC) != 0)
				die("unshare", i);
			settle(i);
			if (write(said[1], "", 1) != 1 || read(gate[0], &byte, 1) != 0)
				die("pipe", i);
			check(i, "a member after everybody has looked");
			_exit(0);
		}
	}
	close(said[1]);
	for (long i = 0; i < count; i++)
		if (read(said[0], &byte, 1) != 1)
			die("only so many children are ready", i);

	for (int round = 0; round < 2; round++) {
		for (long i = 0; i < count; i++) {
			long which = round ? count - 1 - i : i;
			snprintf(path, sizeof path, "/proc/%d/ns/ipc", (int)pids[which]);
			fds[which] = open(path, O_RDONLY | O_CLOEXEC);
			if (fds[which] < 0 || setns(fds[which], round ? 0 : CLONE_NEWIPC) != 0)
				die("setns to a process", which);
			check(which, "through a process");
			numbers[which] = number_of("/proc/self/ns/ipc");
			if (numbers[which] != number_of(path))
				die("not the number of that process", which);
			if (round == 0)
				close(fds[which]);
		}
	}
	if (setns(home, CLONE_NEWIPC) != 0)
		die("setns home", 0);
	qsort(numbers, (size_t)count + 1, sizeof *numbers, by_number);
	for (long i = 0; i < count; i++)
		if (numbers[i] == numbers[i + 1]) {
			fprintf(stderr, "two namespaces have the number %lu\n", (unsigned long)numbers[i]);
			_exit(1);
		}

	close(gate[1]);
	for (long i = 0; i < count; i++) {
		int status;
		if (waitpid(pids[i], &status, 0) != pids[i] || status != 0)
			die("child", i);
	}
	for (long i = 0; i < count; i++) {
		if (setns(fds[i], CLONE_NEWIPC) != 0)
			die("setns to a descriptor", i);
		check(i, "through a descriptor alone");
	}
	if (setns(home, CLONE_NEWIPC) != 0)
		die("setns home", 0);
	for (long i = 0; i < count; i++)
		close(fds[i]);
	printf("%ld namespaces\n", count);
}

int main(int argc, char **argv)
{
	long count = argc == 3 ? atol(argv[2]) : 0;

	if (count >= 20 && !strcmp(argv[1], "row"))
		row(count);
	else if (count >= 20 && !strcmp(argv[1], "forks"))
		forks(count);
	else if (count >= 1 && !strcmp(argv[1], "live"))
		live(count);
	else
		return 2;
	return 0;
}
