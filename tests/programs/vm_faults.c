/*
 * vm_faults CASE: faults of a whole machine, in one of its own (scripts/vm-faults). As root. Exit status 0 if all
 * is as it should be; then it says how often, a tab, and what it came to.
 *
 *   clock-forward  CLOCK_REALTIME is set beyond the deadline of calls that sleep: they end
 *   clock-back     it is set an hour back meanwhile: they sleep on, and end at their deadline by the new clock
 *   enfile         the machine has no more open files (fs.file-max), for another user
 *   oom            the machine has no more memory: the kernel kills a process that uses a queue
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NEED(what)                                                                               \
	do {                                                                                     \
		if (!(what)) {                                                                   \
			dprintf(1, "%s:%d: %s: %s\n", __FILE__, __LINE__, #what,                 \
				strerrorname_np(errno));                                         \
			_exit(1);                                                                \
		}                                                                                \
	} while (0)

static mqd_t make(const char *name, mode_t mode)
{
	struct mq_attr a = {.mq_maxmsg = 2, .mq_msgsize = 8};
	mq_unlink(name);
	mqd_t q = mq_open(name, O_RDWR | O_CREAT | O_EXCL, mode, &a);
	NEED(q != (mqd_t)-1);
	return q;
}

static struct timespec clock_of(clockid_t clock, long ahead_ms)
{
	struct timespec t;
	NEED(!clock_gettime(clock, &t));
	t.tv_sec += ahead_ms / 1000;
	t.tv_nsec += ahead_ms % 1000 * 1000000;
	if (t.tv_nsec >= 1000000000)
		t.tv_sec++, t.tv_nsec -= 1000000000;
	return t;
}

/* By the clock that nobody sets. */
static void wait_ms(long ms)
{
	struct timespec until = clock_of(CLOCK_MONOTONIC, ms);
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL))
		;
}

static void shift(long seconds)
{
	struct timespec t = clock_of(CLOCK_REALTIME, 0);
	t.tv_sec += seconds;
	NEED(!clock_settime(CLOCK_REALTIME, &t));
}

/* ---- The clock is set ------------------------------------------------------------------------ */

enum { SLEEPERS = 8 };
static pid_t sleeper[SLEEPERS];

/* Half of them receive from an empty queue, the others send to a full one. */
static void sleepers(mqd_t empty, mqd_t full, long ms)
{
	for (int i = 0; i < SLEEPERS; i++) {
		NEED((sleeper[i] = fork()) >= 0);
		if (sleeper[i] == 0) {
			char b[8];
			struct timespec t = clock_of(CLOCK_REALTIME, ms);
			int r = i % 2 ? (int)mq_timedreceive(empty, b, 8, NULL, &t) : mq_timedsend(full, "x", 1, 0, &t);
			_exit(r == -1 && errno == ETIMEDOUT ? 0 : 1);
		}
	}
	wait_ms(500);
}

static int asleep(void)
{
	int n = 0;
	for (int i = 0; i < SLEEPERS; i++) {
		int status;
		if (sleeper[i] && waitpid(sleeper[i], &status, WNOHANG) == sleeper[i]) {
			NEED(WIFEXITED(status) && WEXITSTATUS(status) == 0);
			sleeper[i] = 0;
		}
		n += sleeper[i] != 0;
	}
	return n;
}

/* All end, within that time. */
static void end(long ms)
{
	while (asleep() && ms > 0) {
		wait_ms(10);
		ms -= 10;
	}
	NEED(asleep() == 0);
}

static void clock_case(int back)
{
	mqd_t empty = make("/empty", 0600), full = make("/full", 0600);
	NEED(!mq_send(full, "1", 1, 0) && !mq_send(full, "2", 1, 0));
	/* Forward: an hour's wait. Back: two seconds, half a second of which is over. */
	sleepers(empty, full, back ? 2000 : 3600000);
	NEED(asleep() == SLEEPERS);
	if (back) {
		shift(-3600);
		wait_ms(3000);
		NEED(asleep() == SLEEPERS);
		shift(3600);
	} else {
		shift(7200);
	}
	end(3000);
	/* In the same order as ever. */
	struct mq_attr a;
	NEED(!mq_getattr(empty, &a) && a.mq_curmsgs == 0);
	NEED(!mq_getattr(full, &a) && a.mq_curmsgs == 2);
	if (!back)
		shift(-7200);
	printf("%d calls\t%s\n", SLEEPERS,
	       back ? "sleep on; ETIMEDOUT when the clock has come to the deadline" : "ETIMEDOUT, at once");
}

static void clock_forward(void)
{
	clock_case(0);
}

static void clock_back(void)
{
	clock_case(1);
}

/* ---- No more files ---------------------------------------------------------------------------- */

static unsigned long number_in(const char *path, const char *set)
{
	char b[64] = "";
	int f = open(path, set ? O_RDWR : O_RDONLY);
	NEED(f >= 0 && read(f, b, sizeof b - 1) > 0);
	if (set)
		NEED(pwrite(f, set, strlen(set), 0) == (ssize_t)strlen(set));
	close(f);
	return strtoul(b, NULL, 10);
}

static void said(char *out, const char *what, int failed)
{
	sprintf(out + strlen(out), "%s%s: %s", *out ? "; " : "", what, failed ? strerrorname_np(errno) : "works");
}

static void enfile(void)
{
	char b[8], was[32], outcome[512] = "";
	umask(0);
	mqd_t q = make("/there", 0666);
	NEED(!close(open("/dev/null", O_RDONLY)));
	int shared[2], go[2];
	NEED(!pipe(shared) && !pipe(go));
	pid_t p = fork();
	if (p == 0) {
		/* Root is not refused. */
		NEED(!setresgid(1000, 1000, 1000) && !setresuid(1000, 1000, 1000));
		NEED(!mq_send(q, "x", 1, 0) && mq_receive(q, b, 8, NULL) == 1);
		NEED(write(shared[1], "r", 1) == 1 && read(go[0], b, 1) == 1);
		/* As many as there may be, until there are no more. */
		while (open("/dev/null", O_RDONLY) >= 0)
			;
		NEED(errno == ENFILE);
		struct mq_attr a = {.mq_maxmsg = 2, .mq_msgsize = 8};
		struct pollfd pfd = {.fd = q, .events = POLLIN | POLLOUT};
		mqd_t r = mq_open("/new", O_RDWR | O_CREAT, 0600, &a);
		said(outcome, "mq_open of a new queue", r == (mqd_t)-1);
		NEED(r == (mqd_t)-1 && errno == ENFILE);
		r = mq_open("/there", O_RDWR);
		said(outcome, "of another", r == (mqd_t)-1);
		NEED(r == (mqd_t)-1 && errno == ENFILE);
		int failed = mq_send(q, "y", 1, 0) || poll(&pfd, 1, 0) != 1 || mq_receive(q, b, 8, NULL) != 1;
		said(outcome, "mq_send, poll, mq_receive", failed);
		NEED(!failed);
		failed = mq_getattr(q, &a);
		said(outcome, "mq_getattr", failed);
		NEED(!failed);
		NEED(write(shared[1], "d", 1) == 1 && read(go[0], b, 1) == 1);
		/* There are files again. Linux makes a queue before it finds no file for its descriptor. */
		int left = !mq_unlink("/new");
		NEED(left || errno == ENOENT);
		r = mq_open("/new", O_RDWR | O_CREAT | O_EXCL, 0600, &(struct mq_attr){.mq_maxmsg = 2, .mq_msgsize = 8});
		NEED(r != (mqd_t)-1 && !mq_unlink("/new"));
		printf("1\t%s; all works afterwards%s\n", outcome, left ? "; the new queue is there in spite of its error" : "");
		fflush(stdout);
		_exit(0);
	}
	close(shared[1]);
	NEED(read(shared[0], b, 1) == 1);
	sprintf(was, "%lu", number_in("/proc/sys/fs/file-max", NULL));
	char few[32];
	sprintf(few, "%lu", number_in("/proc/sys/fs/file-nr", NULL) + 100);
	number_in("/proc/sys/fs/file-max", few);
	NEED(write(go[1], "g", 1) == 1 && read(shared[0], b, 1) == 1);
	number_in("/proc/sys/fs/file-max", was);
	NEED(write(go[1], "g", 1) == 1);
	int status;
	NEED(waitpid(p, &status, 0) == p && status == 0);
}

/* ---- No more memory --------------------------------------------------------------------------- */

static void oom(void)
{
	enum { TIMES = 3 };
	char b[8];
	int status, lost = 0;
	mqd_t q = make("/oom", 0600);
	for (int i = 0; i < TIMES; i++) {
		NEED(!mq_send(q, "kept", 4, 0));
		pid_t p = fork();
		if (p == 0) {
			int f = open("/proc/self/oom_score_adj", O_WRONLY);
			NEED(f >= 0 && write(f, "1000", 4) == 4);
			for (;;) {
				char *m = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
				if (m != MAP_FAILED)
					memset(m, 1, 1 << 20);
				NEED(!mq_send(q, "more", 4, 1) && mq_receive(q, b, 8, NULL) == 4);
			}
		}
		NEED(p > 0 && waitpid(p, &status, 0) == p);
		NEED(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		/* The message that was there, and perhaps the one that it was about to receive. */
		struct mq_attr a;
		NEED(!mq_getattr(q, &a) && (a.mq_curmsgs == 1 || a.mq_curmsgs == 2));
		if (a.mq_curmsgs == 2)
			NEED(mq_receive(q, b, 8, NULL) == 4 && !memcmp(b, "more", 4));
		NEED(mq_receive(q, b, 8, NULL) == 4);
		lost += memcmp(b, "kept", 4) != 0;
	}
	NEED(lost == 0);
	printf("%d kills\tSIGKILL by the kernel; its peer goes on, with all messages that were there\n", TIMES);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} cases[] = {{"clock-forward", clock_forward}, {"clock-back", clock_back}, {"enfile", enfile}, {"oom", oom}};

	for (size_t i = 0; argc > 1 && i < sizeof cases / sizeof *cases; i++)
		if (!strcmp(argv[1], cases[i].name)) {
			alarm(60);
			cases[i].run();
			return 0;
		}
	fprintf(stderr, "usage: vm_faults CASE\n");
	return 2;
}
