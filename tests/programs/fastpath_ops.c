/*
 * fastpath_ops STAGE [SIZE]: makes queue calls that need not block, after a seccomp filter has
 * taken every system call but write and exit_group away: any other one kills the process with
 * SIGSYS. Exit status 0: not one was made.
 *
 *   pairs SIZE     1,000 sends and receives, of one message each
 *   batches SIZE   100 times ten sends, then ten receives, priorities in any order
 *   priorities     a pair for each of the 32,768 priorities
 *   attributes     mq_getattr of an empty, a part-filled and a full queue
 *   nonblocking    EAGAIN on an empty and on a full queue, O_NONBLOCK
 *   deadlines      the timed calls, with deadlines past and to come, where they need not block
 *   expired        ETIMEDOUT at once, for a deadline in the past (this reads the clock: allowed too)
 *   refused        what is refused by its arguments
 *   self-check     pairs, then getppid(2): must die of SIGSYS
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <mqueue.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { DEPTH = 10, BIGGEST = 8192 };

static char out[BIGGEST], in[BIGGEST];

/* By number: _exit has queues to see to. */
static void finish(int status)
{
	syscall(SYS_exit_group, status);
}

/* No stdio after the filter: it may call fstat or write late. */
static void say(const char *text)
{
	if (write(1, text, strlen(text)) < 0)
		finish(3);
}

#define CHECK(condition)                                                                         \
	do {                                                                                     \
		if (!(condition)) {                                                              \
			say("failed: " #condition "\n");                                         \
			finish(1);                                                               \
		}                                                                                \
	} while (0)
#define FAILS(call, err) CHECK((call) == -1 && errno == (err))

static void close_the_gates(int clock_too)
{
#define ALLOW(nr) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		ALLOW(SYS_write),
		ALLOW(SYS_exit_group),
		/* Where the vDSO cannot read the clock by itself. */
		ALLOW(clock_too ? SYS_clock_gettime : SYS_exit_group),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
	};
	struct sock_fprog prog = {.len = sizeof code / sizeof *code, .filter = code};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog)) {
		perror("seccomp");
		exit(2);
	}
}

static const unsigned prios[DEPTH] = {5, 0, 32767, 5, 31, 64, 4095, 0, 5, 32767};

static void pairs(mqd_t q, size_t size, int rounds)
{
	for (int i = 0; i < rounds; i++) {
		unsigned want = prios[i % DEPTH], prio = ~0u;

		out[0] = i;
		out[size - 1] = i >> 8;
		CHECK(mq_send(q, out, size, want) == 0);
		CHECK(mq_receive(q, in, sizeof in, &prio) == (ssize_t)size);
		CHECK(prio == want && in[size - 1] == out[size - 1] && (size == 1 || in[0] == out[0]));
	}
}

static void batches(mqd_t q, size_t size, int rounds)
{
	for (int i = 0; i < rounds; i++) {
		unsigned last = 32768, prio;
		int from = -1;

		for (int m = 0; m < DEPTH; m++) {
			out[0] = m;
			CHECK(mq_send(q, out, size, prios[m]) == 0);
		}
		for (int m = 0; m < DEPTH; m++) {
			CHECK(mq_receive(q, in, sizeof in, &prio) == (ssize_t)size);
			CHECK(prio == prios[(int)in[0]]);
			/* Highest first, oldest first within one. */
			CHECK(prio < last || (prio == last && in[0] > from));
			last = prio;
			from = in[0];
		}
	}
}

static void priorities(mqd_t q)
{
	unsigned prio;

	for (unsigned p = 0; p < 32768; p++) {
		CHECK(mq_send(q, out, 1, p) == 0);
		CHECK(mq_receive(q, in, sizeof in, &prio) == 1 && prio == p);
	}
}

static void fill(mqd_t q, int n)
{
	while (n--)
		CHECK(mq_send(q, out, BIGGEST, n) == 0);
}

static void drain(mqd_t q, int n)
{
	while (n--)
		CHECK(mq_receive(q, in, sizeof in, NULL) >= 0);
}

int main(int argc, char **argv)
{
	const char *stage = argc > 1 ? argv[1] : "pairs";
	size_t size = argc > 2 ? strtoul(argv[2], NULL, 10) : 64;
	struct mq_attr attr = {.mq_maxmsg = DEPTH, .mq_msgsize = BIGGEST}, now;
	struct timespec past = {.tv_sec = 1}, later = {.tv_sec = 1L << 40}, bad = {.tv_nsec = -1};
	mqd_t q = mq_open("/fastpath", O_RDWR | O_CREAT | O_EXCL, 0600, &attr);
	mqd_t n = mq_open("/fastpath", O_RDWR | O_NONBLOCK);
#define IS(name) (!strcmp(stage, name))

	if (q == (mqd_t)-1 || n == (mqd_t)-1 || mq_unlink("/fastpath")) {
		perror("mq_open");
		return 2;
	}
	/*
	 * A queue asks for memory when it first grows, for a message or for a priority whose like it has
	 * not had; libc's symbols are bound at their first call.
	 */
	fill(q, DEPTH);
	drain(q, DEPTH);
	batches(q, size, 1);
	if (IS("priorities"))
		priorities(q);
	CHECK(mq_getattr(q, &now) == 0);
	CHECK(mq_timedsend(q, out, 1, 0, &later) == 0 && mq_timedreceive(n, in, sizeof in, NULL, &later) == 1);
	FAILS(mq_receive(n, in, sizeof in, NULL), EAGAIN);
	FAILS(mq_timedreceive(q, in, sizeof in, NULL, &past), ETIMEDOUT);

	close_the_gates(IS("expired"));

	if (IS("pairs")) {
		pairs(q, size, 1000);
	} else if (IS("batches")) {
		batches(q, size, 100);
	} else if (IS("priorities")) {
		priorities(q);
	} else if (IS("attributes")) {
		for (int i = 0; i <= DEPTH; i++) {
			for (int k = 0; k < 100; k++)
				CHECK(mq_getattr(q, &now) == 0 && now.mq_curmsgs == i && now.mq_flags == 0);
			if (i < DEPTH)
				fill(q, 1);
		}
		CHECK(mq_getattr(n, &now) == 0 && now.mq_flags == O_NONBLOCK);
	} else if (IS("nonblocking")) {
		for (int k = 0; k < 1000; k++)
			FAILS(mq_receive(n, in, sizeof in, NULL), EAGAIN);
		fill(q, DEPTH);
		for (int k = 0; k < 1000; k++)
			FAILS(mq_send(n, out, 64, 0), EAGAIN);
	} else if (IS("deadlines")) {
		for (int k = 0; k < 1000; k++) {
			const struct timespec *t = k % 3 == 0 ? &past : k % 3 == 1 ? &later : NULL;
			CHECK(mq_timedsend(q, out, size, prios[k % DEPTH], t) == 0);
			CHECK(mq_timedreceive(q, in, sizeof in, NULL, t) == (ssize_t)size);
		}
	} else if (IS("expired")) {
		for (int k = 0; k < 1000; k++)
			FAILS(mq_timedreceive(q, in, sizeof in, NULL, &past), ETIMEDOUT);
		fill(q, DEPTH);
		for (int k = 0; k < 1000; k++)
			FAILS(mq_timedsend(q, out, 64, 0, &past), ETIMEDOUT);
	} else if (IS("refused")) {
		for (int k = 0; k < 100; k++) {
			FAILS(mq_send(q, out, BIGGEST + 1, 0), EMSGSIZE);
			FAILS(mq_receive(q, in, BIGGEST - 1, NULL), EMSGSIZE);
			FAILS(mq_send(q, out, 1, 32768), EINVAL);
			FAILS(mq_timedsend(q, out, 1, 0, &bad), EINVAL);
			FAILS(mq_timedreceive(q, in, sizeof in, NULL, &bad), EINVAL);
		}
	} else if (IS("self-check")) {
		pairs(q, size, 1000);
		say("pairs done\n");
		syscall(SYS_getppid);
		say("getppid was let through\n");
	} else {
		say("no such stage\n");
		finish(2);
	}
	finish(0);
}
