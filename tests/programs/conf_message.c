/* Contract section 4: sending and receiving, the order of checks, timeouts. */
#include "conf.h"

typedef int send_fn(mqd_t, const char *, size_t, unsigned, const struct timespec *);
typedef ssize_t receive_fn(mqd_t, char *, size_t, unsigned *, const struct timespec *);

static int raw_send(mqd_t q, const char *m, size_t n, unsigned p, const struct timespec *t)
{
	return syscall(SYS_mq_timedsend, q, m, n, p, t);
}
static ssize_t raw_receive(mqd_t q, char *m, size_t n, unsigned *p, const struct timespec *t)
{
	return syscall(SYS_mq_timedreceive, q, m, n, p, t);
}

/* Every reason to fail, in the order in which they are looked at. */
enum {
	T_FAULT = 1, /* timeout pointer */
	T_INVAL = 2, /* timeout value */
	PRIO = 4,
	BADF = 8,
	SIZE = 16,
	M_FAULT = 32, /* message pointer */
	NOT_NOW = 64, /* full or empty */
	REASONS = 128,
};

static void order_of_send_checks(send_fn *send)
{
	const char *n = qname("q");
	int p[2];
	OK(pipe(p));
	mqd_t rw = make(n, O_RDWR, 1, 8), ro = OK(mq_open(n, O_RDONLY)),
	      nb = OK(mq_open(n, O_RDWR | O_NONBLOCK));
	int bad_fds[] = {-1, 900, p[1], ro, open("/dev/null", O_RDWR)};
	char m[16] = "message";
	struct timespec invalid = {.tv_nsec = 1000000000};

	for (int why = 1; why < REASONS; why++) {
		if ((why & T_FAULT) && (why & T_INVAL))
			continue; /* a value that cannot be read is neither */
		for (int variant = 0; variant < 5; variant++) {
			mqd_t q = rw;
			int nonblock = 0;
			if (why & BADF)
				q = bad_fds[variant];
			else if (variant == 1)
				q = nb, nonblock = 1;
			else if (variant > 1)
				continue;
			if (why & NOT_NOW)
				EQ(mq_send(rw, "f", 1, 0), 0);
			const struct timespec *t = why & T_FAULT   ? nowhere()
						   : why & T_INVAL ? &invalid
								   : &past;
			int want = why & T_FAULT   ? EFAULT
				   : why & T_INVAL ? EINVAL
				   : why & PRIO    ? EINVAL
				   : why & BADF    ? EBADF
				   : why & SIZE    ? EMSGSIZE
				   : why & M_FAULT ? EFAULT
				   : nonblock      ? EAGAIN
						   : ETIMEDOUT;
			errno = 0;
			int r = send(q, why & M_FAULT ? nowhere() : m, why & SIZE ? 9 : 8,
				     why & PRIO ? 32768 : 1, t);
			if (r != -1 || errno != want)
				FAIL("timedsend, reasons to fail %#x, descriptor variant %d: expected "
				     "-1 %s, got %d %s",
				     why, variant, errno_name(want), r, errno_name(errno));
			EQ(curmsgs(rw), why & NOT_NOW ? 1 : 0);
			if (why & NOT_NOW)
				take(rw, "f", 0);
		}
	}
}

CASE("4 (order of checks, every combination)", timedsend_checks_in_order)
{
	order_of_send_checks(mq_timedsend);
}

CASE("4 (order of checks, every combination)", raw_timedsend_checks_in_order)
{
	order_of_send_checks(raw_send);
}

static void order_of_receive_checks(receive_fn *receive)
{
	const char *n = qname("q");
	int p[2];
	OK(pipe(p));
	mqd_t rw = make(n, O_RDWR, 1, 8), wo = OK(mq_open(n, O_WRONLY)),
	      nb = OK(mq_open(n, O_RDWR | O_NONBLOCK));
	int bad_fds[] = {-1, 900, p[0], wo, open("/dev/null", O_RDWR)};
	struct timespec invalid = {.tv_sec = -1};
	char m[16];

	for (int why = 1; why < REASONS; why++) {
		if (((why & T_FAULT) && (why & T_INVAL)) || (why & PRIO))
			continue;
		for (int variant = 0; variant < 5; variant++) {
			mqd_t q = rw;
			int nonblock = 0;
			if (why & BADF)
				q = bad_fds[variant];
			else if (variant == 1)
				q = nb, nonblock = 1;
			else if (variant > 1)
				continue;
			if (!(why & NOT_NOW))
				EQ(mq_send(rw, "f", 1, 0), 0);
			const struct timespec *t = why & T_FAULT   ? nowhere()
						   : why & T_INVAL ? &invalid
								   : &past;
			int want = why & T_FAULT   ? EFAULT
				   : why & T_INVAL ? EINVAL
				   : why & BADF    ? EBADF
				   : why & SIZE    ? EMSGSIZE
				   : why & NOT_NOW ? (nonblock ? EAGAIN : ETIMEDOUT)
						   : EFAULT;
			unsigned prio = 77;
			errno = 0;
			ssize_t r = receive(q, why & M_FAULT ? nowhere() : m, why & SIZE ? 7 : 8,
					    &prio, t);
			if (r != -1 || errno != want)
				FAIL("timedreceive, reasons to fail %#x, descriptor variant %d: "
				     "expected -1 %s, got %zd %s",
				     why, variant, errno_name(want), r, errno_name(errno));
			/* A copy that faults has taken the message and its priority. */
			int taken = why == M_FAULT;
			EQ(prio, taken ? 0 : 77);
			EQ(curmsgs(rw), taken || (why & NOT_NOW) ? 0 : 1);
			if (!taken && !(why & NOT_NOW))
				take(rw, "f", 0);
		}
	}
}

CASE("4 (order of checks, every combination)", timedreceive_checks_in_order)
{
	order_of_receive_checks(mq_timedreceive);
}

CASE("4 (order of checks, every combination)", raw_timedreceive_checks_in_order)
{
	order_of_receive_checks(raw_receive);
}

CASE("4", priority_32767_is_the_highest)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	EQ(mq_send(q, "x", 1, 32767), 0);
	take(q, "x", 32767);
	FAILS(mq_send(q, "x", 1, 32768), EINVAL);
	FAILS(mq_send(q, "x", 1, UINT_MAX), EINVAL);
	FAILS(mq_send(q, "x", 1, 0x80000000u), EINVAL);
	EQ(sysconf(_SC_MQ_PRIO_MAX), 32768);
}

CASE("4", bad_priority_is_EINVAL_before_EBADF)
{
	FAILS(mq_send(-1, "x", 1, 32768), EINVAL);
	FAILS(mq_send(0, "x", 1, UINT_MAX), EINVAL);
}

CASE("4", message_of_length_0_is_a_message)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	EQ(mq_send(q, NULL, 0, 4), 0);
	EQ(mq_send(q, nowhere(), 0, 3), 0);
	EQ(curmsgs(q), 2);
	FAILS(mq_timedsend(q, NULL, 0, 0, &past), ETIMEDOUT);
	char b[8] = "untouch";
	unsigned p;
	EQ(mq_receive(q, b, 8, &p), 0);
	EQ(p, 4);
	SAME(b, "untouch", 8);
	EQ(mq_receive(q, b, 8, &p), 0);
	EQ(p, 3);
	EQ(curmsgs(q), 0);
}

CASE("4", message_of_msgsize_works_and_one_more_is_EMSGSIZE)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	EQ(mq_send(q, "12345678", 8, 0), 0);
	FAILS(mq_send(q, "123456789", 9, 0), EMSGSIZE);
	FAILS(mq_send(q, "1", (size_t)-1, 0), EMSGSIZE);
	FAILS(mq_send(q, "1", (size_t)SSIZE_MAX + 1, 0), EMSGSIZE);
	take(q, "12345678", 0);
}

CASE("4", too_long_is_EMSGSIZE_also_when_full_or_unreadable)
{
	mqd_t q = make(qname("a"), O_RDWR | O_NONBLOCK, 1, 8);
	FAILS(mq_send(q, nowhere(), 9, 0), EMSGSIZE);
	put(q, "x", 0);
	FAILS(mq_send(q, "123456789", 9, 0), EMSGSIZE);
	FAILS(mq_send(q, nowhere(), 9, 0), EMSGSIZE);
}

CASE("4", unreadable_message_is_EFAULT_even_when_full)
{
	mqd_t q = make(qname("a"), O_RDWR | O_NONBLOCK, 1, 8);
	FAILS(mq_send(q, nowhere(), 8, 0), EFAULT);
	FAILS(mq_send(q, NULL, 1, 0), EFAULT);
	EQ(curmsgs(q), 0);
	put(q, "x", 0);
	FAILS(mq_send(q, nowhere(), 8, 0), EFAULT);
	FAILS(mq_send(q, "x", 1, 0), EAGAIN);
	take(q, "x", 0);
}

CASE("4", message_that_straddles_into_unmapped_memory_is_EFAULT_and_not_sent)
{
	mqd_t q = make(qname("a"), O_RDWR | O_NONBLOCK, 2, 64);
	char *m = edge(16);
	memset(m, 'm', 16);
	EQ(mq_send(q, m, 16, 0), 0);
	FAILS(mq_send(q, m, 17, 0), EFAULT);
	FAILS(mq_send(q, m, 64, 0), EFAULT);
	EQ(curmsgs(q), 1);
	take(q, "mmmmmmmmmmmmmmmm", 0);
}

CASE("4", receive_buffer_below_msgsize_is_EMSGSIZE_and_loses_nothing)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	char b[8];
	put(q, "x", 1);
	FAILS(mq_receive(q, b, 7, NULL), EMSGSIZE);
	FAILS(mq_receive(q, b, 0, NULL), EMSGSIZE);
	FAILS(mq_receive(q, NULL, 0, NULL), EMSGSIZE);
	FAILS(mq_receive(q, nowhere(), 7, nowhere()), EMSGSIZE);
	EQ(curmsgs(q), 1);
	take(q, "x", 1);
}

CASE("4", receive_buffer_below_msgsize_is_EMSGSIZE_on_an_empty_queue)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	char b[8];
	FAILS(mq_receive(q, b, 7, NULL), EMSGSIZE);
	EQ(fcntl(q, F_SETFL, O_NONBLOCK), 0);
	FAILS(mq_receive(q, b, 7, NULL), EMSGSIZE);
	FAILS(mq_receive(q, b, 0, NULL), EMSGSIZE);
}

CASE("4", receive_length_has_no_upper_bound)
{
	mqd_t q = make(qname("a"), O_RDWR, 4, 8);
	char b[8];
	put(q, "a", 0);
	put(q, "b", 0);
	put(q, "c", 0);
	EQ(mq_receive(q, b, (size_t)SSIZE_MAX + 1, NULL), 1);
	SAME(b, "a", 1);
	EQ(mq_receive(q, b, (size_t)-1, NULL), 1);
	SAME(b, "b", 1);
	EQ(mq_receive(q, b, SSIZE_MAX, NULL), 1);
	SAME(b, "c", 1);
}

CASE("4", receive_into_bad_buffer_is_EFAULT_and_the_message_is_lost)
{
	mqd_t q = make(qname("a"), O_RDWR, 4, 8);
	put(q, "a", 2);
	put(q, "b", 1);
	FAILS(mq_receive(q, nowhere(), 8, NULL), EFAULT);
	EQ(curmsgs(q), 1);
	FAILS(mq_receive(q, NULL, 8, NULL), EFAULT);
	EQ(curmsgs(q), 0);
	/* The queue is none the worse. */
	put(q, "c", 3);
	take(q, "c", 3);
}

CASE("4", receive_into_read_only_memory_is_EFAULT_and_the_message_is_lost)
{
	mqd_t q = make(qname("a"), O_RDWR, 4, 8);
	char *ro = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	put(q, "a", 2);
	FAILS(mq_receive(q, ro, 4096, NULL), EFAULT);
	EQ(curmsgs(q), 0);
}

CASE("4", receive_into_bad_priority_is_EFAULT_and_neither_prio_nor_body_arrives)
{
	mqd_t q = make(qname("a"), O_RDWR, 4, 8);
	char b[8] = "untouch";
	put(q, "a", 2);
	FAILS(mq_receive(q, b, 8, nowhere()), EFAULT);
	SAME(b, "untouch", 8);
	EQ(curmsgs(q), 0);
}

CASE("4", receive_into_bad_buffer_writes_the_priority)
{
	mqd_t q = make(qname("a"), O_RDWR, 4, 8);
	unsigned p = 77;
	put(q, "a", 2);
	FAILS(mq_receive(q, nowhere(), 8, &p), EFAULT);
	EQ(p, 2);
}

CASE("4", receive_of_length_0_into_NULL_works)
{
	mqd_t q = make(qname("a"), O_RDWR, 4, 8);
	unsigned p = 77;
	EQ(mq_send(q, NULL, 0, 5), 0);
	EQ(mq_receive(q, NULL, 8, &p), 0);
	EQ(p, 5);
	EQ(mq_send(q, NULL, 0, 5), 0);
	EQ(mq_receive(q, nowhere(), 8, NULL), 0);
	EQ(curmsgs(q), 0);
}

CASE("4", receive_needs_only_the_message_s_bytes_of_the_buffer)
{
	mqd_t q = make(qname("a"), O_RDWR, 4, 64);
	char *b = edge(4);
	put(q, "abcd", 0);
	EQ(mq_receive(q, b, 64, NULL), 4);
	SAME(b, "abcd", 4);
	put(q, "abcde", 0);
	FAILS(mq_receive(q, b, 64, NULL), EFAULT);
	EQ(curmsgs(q), 0);
}

CASE("4", receive_into_bad_buffer_on_empty_queue_is_EAGAIN)
{
	mqd_t q = make(qname("a"), O_RDWR | O_NONBLOCK, 4, 8);
	FAILS(mq_receive(q, nowhere(), 8, NULL), EAGAIN);
	FAILS(mq_receive(q, NULL, 8, nowhere()), EAGAIN);
}

CASE("4", receive_writes_only_the_message_s_bytes)
{
	mqd_t q = make(qname("a"), O_RDWR, 4, 16);
	char b[32];
	memset(b, '#', sizeof b);
	put(q, "abc", 0);
	EQ(mq_receive(q, b, sizeof b, NULL), 3);
	SAME(b, "abc#############################", 32);
}

CASE("4", errors_leave_the_priority_alone)
{
	mqd_t q = make(qname("a"), O_RDWR | O_NONBLOCK, 4, 16);
	char b[16];
	unsigned p = 77;
	FAILS(mq_receive(q, b, 16, &p), EAGAIN);
	FAILS(mq_receive(q, b, 15, &p), EMSGSIZE);
	FAILS(mq_receive(-1, b, 16, &p), EBADF);
	FAILS(mq_timedreceive(q, b, 16, &p, &(struct timespec){.tv_nsec = -1}), EINVAL);
	EQ(p, 77);
}

CASE("4", receive_returns_oldest_of_highest_priority)
{
	mqd_t q = make(qname("a"), O_RDWR, 10, 8);
	put(q, "l1", 1);
	put(q, "h1", 9);
	put(q, "l2", 1);
	put(q, "0", 0);
	put(q, "h2", 9);
	put(q, "m", 5);
	take(q, "h1", 9);
	put(q, "h3", 9);
	put(q, "top", 32767);
	take(q, "top", 32767);
	take(q, "h2", 9);
	take(q, "h3", 9);
	take(q, "m", 5);
	take(q, "l1", 1);
	take(q, "l2", 1);
	take(q, "0", 0);
}

CASE("4", all_32768_priorities_are_kept_in_order)
{
	mqd_t q = make(qname("a"), O_RDWR | O_NONBLOCK, 10, 8);
	unsigned seed = 12345;
	/* Eight priorities at a time from all over the range, each once in the end. */
	for (unsigned i = 0; i < 4096; i++) {
		unsigned set[8];
		for (int k = 0; k < 8; k++)
			set[k] = i + 4096 * k;
		for (int k = 7; k > 0; k--) {
			seed = seed * 1103515245 + 12345;
			unsigned j = (seed >> 16) % (k + 1), t = set[k];
			set[k] = set[j];
			set[j] = t;
		}
		for (int k = 0; k < 8; k++)
			EQ(mq_send(q, (char *)&set[k], 4, set[k]), 0);
		for (int k = 7; k >= 0; k--) {
			unsigned got, p;
			char b[8];
			EQ(mq_receive(q, b, 8, &p), 4);
			memcpy(&got, b, 4);
			EQ(p, i + 4096 * k);
			EQ(got, p);
		}
	}
}

CASE("4", order_survives_mixed_sends_and_receives)
{
	/* Against a plain list: the first of the highest priority. */
	mqd_t q = make(qname("a"), O_RDWR | O_NONBLOCK, 10, 8);
	struct {
		unsigned prio, id;
	} list[10];
	int n = 0;
	unsigned id = 0, seed = 7;
	for (int i = 0; i < 20000; i++) {
		seed = seed * 1103515245 + 12345;
		unsigned r = seed >> 16;
		if (r & 1) {
			unsigned prio = (r >> 1) % 5 * 7000;
			id++;
			if (n == 10) {
				FAILS(mq_send(q, (char *)&id, 4, prio), EAGAIN);
				continue;
			}
			EQ(mq_send(q, (char *)&id, 4, prio), 0);
			list[n].prio = prio;
			list[n++].id = id;
		} else {
			char b[8];
			unsigned p, got;
			if (n == 0) {
				FAILS(mq_receive(q, b, 8, &p), EAGAIN);
				continue;
			}
			EQ(mq_receive(q, b, 8, &p), 4);
			memcpy(&got, b, 4);
			int best = 0;
			for (int k = 1; k < n; k++)
				if (list[k].prio > list[best].prio)
					best = k;
			EQ(p, list[best].prio);
			EQ(got, list[best].id);
			n--;
			memmove(&list[best], &list[best + 1], (n - best) * sizeof *list);
		}
		EQ(curmsgs(q), n);
	}
}

CASE("4", every_length_arrives_unchanged)
{
	mqd_t q = make(qname("a"), O_RDWR | O_NONBLOCK, 3, 5000);
	char *m = malloc(5000), *b = malloc(5001);
	for (int i = 0; i < 5000; i++)
		m[i] = i * 31 >> 3;
	for (int len = 0; len <= 5000; len += len < 300 ? 1 : 97) {
		int off = len < 4000 ? len % 64 : 0;
		EQ(mq_send(q, m + off, len, 0), 0);
		memset(b, 0x55, 5001);
		EQ(mq_receive(q, b, 5000, NULL), len);
		SAME(b, m + off, len);
		EQ(b[len], 0x55);
	}
}

CASE("4", wrong_access_mode_is_EBADF_before_EMSGSIZE)
{
	const char *n = qname("a");
	char b[8];
	make(n, O_RDWR, 1, 8);
	mqd_t r = OK(mq_open(n, O_RDONLY)), w = OK(mq_open(n, O_WRONLY));
	FAILS(mq_send(r, "x", 1, 0), EBADF);
	FAILS(mq_send(r, "123456789", 9, 0), EBADF);
	FAILS(mq_receive(w, b, 8, NULL), EBADF);
	FAILS(mq_receive(w, b, 0, NULL), EBADF);
	put(w, "x", 0);
	FAILS(mq_receive(w, b, 8, NULL), EBADF);
	take(r, "x", 0);
}

CASE("4", what_is_no_queue_is_EBADF)
{
	int p[2], s[2];
	char b[16];
	OK(pipe(p));
	OK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, s));
	int fds[] = {-1,   INT_MIN, INT_MAX, 900, p[0], p[1], s[0], open("/dev/null", O_RDWR),
		     open("/proc/self/exe", O_RDONLY), epoll_create1(0)};
	for (size_t i = 0; i < sizeof fds / sizeof *fds; i++) {
		FAILS(mq_send(fds[i], "x", 1, 0), EBADF);
		FAILS(mq_receive(fds[i], b, 16, NULL), EBADF);
		FAILS(mq_timedsend(fds[i], "x", 1, 0, &past), EBADF);
		FAILS(mq_timedreceive(fds[i], b, 16, NULL, &past), EBADF);
	}
	/* Nothing was written into the pipe. */
	OK(fcntl(p[0], F_SETFL, O_NONBLOCK));
	FAILS(read(p[0], b, 16), EAGAIN);
}

CASE("4", full_and_empty_are_EAGAIN_without_blocking)
{
	mqd_t q = make(qname("a"), O_RDWR | O_NONBLOCK, 2, 8);
	char b[8];
	FAILS(mq_receive(q, b, 8, NULL), EAGAIN);
	put(q, "1", 0);
	put(q, "2", 0);
	FAILS(mq_send(q, "3", 1, 0), EAGAIN);
	take(q, "1", 0);
	put(q, "3", 0);
	take(q, "2", 0);
	take(q, "3", 0);
	FAILS(mq_receive(q, b, 8, NULL), EAGAIN);
}

/* ---- Timeouts ---------------------------------------------------------------------------- */

static const struct timespec invalid[] = {
	{0, -1},	{0, 1000000000}, {0, LONG_MIN},		{0, LONG_MAX},
	{-1, 0},	{LONG_MIN, 0},	 {-1, 999999999},	{4000000000, 1000000000},
	{-1, 1000000000},
};
#define INVALIDS (sizeof invalid / sizeof *invalid)

CASE("4 (timeouts)", invalid_timeout_is_EINVAL_whether_or_not_the_call_would_block)
{
	const char *n = qname("a");
	char b[8];
	mqd_t q = make(n, O_RDWR, 1, 8), nb = OK(mq_open(n, O_RDWR | O_NONBLOCK));
	for (size_t i = 0; i < INVALIDS; i++) {
		/* Empty, then full. */
		for (int full = 0; full < 2; full++) {
			if (full)
				put(q, "x", 0);
			FAILS(mq_timedsend(q, "y", 1, 0, &invalid[i]), EINVAL);
			FAILS(mq_timedreceive(q, b, 8, NULL, &invalid[i]), EINVAL);
			FAILS(mq_timedsend(nb, "y", 1, 0, &invalid[i]), EINVAL);
			FAILS(mq_timedreceive(nb, b, 8, NULL, &invalid[i]), EINVAL);
			EQ(curmsgs(q), full);
		}
		take(q, "x", 0);
	}
}

CASE("4 (timeouts)", invalid_timeout_is_EINVAL_before_a_bad_descriptor_or_priority)
{
	char b[8];
	for (size_t i = 0; i < INVALIDS; i++) {
		FAILS(mq_timedsend(-1, "y", 1, 0, &invalid[i]), EINVAL);
		FAILS(mq_timedsend(-1, "y", 1, 99999, &invalid[i]), EINVAL);
		FAILS(mq_timedreceive(-1, b, 8, NULL, &invalid[i]), EINVAL);
		FAILS(mq_timedreceive(0, b, 8, NULL, &invalid[i]), EINVAL);
	}
}

CASE("4 (timeouts)", unreadable_timeout_is_EFAULT_before_all_else)
{
	char b[8];
	mqd_t q = make(qname("a"), O_RDWR, 1, 8);
	FAILS(mq_timedsend(q, "y", 1, 0, nowhere()), EFAULT);
	FAILS(mq_timedsend(-1, "y", 1, 99999, nowhere()), EFAULT);
	FAILS(mq_timedsend(q, "y", 1, 0, (struct timespec *)edge(8)), EFAULT);
	put(q, "x", 0);
	FAILS(mq_timedreceive(q, b, 8, NULL, nowhere()), EFAULT);
	FAILS(mq_timedreceive(-1, b, 0, NULL, nowhere()), EFAULT);
	take(q, "x", 0);
}

CASE("4 (timeouts)", past_timeout_succeeds_if_the_call_need_not_block)
{
	mqd_t q = make(qname("a"), O_RDWR, 1, 8);
	char b[8];
	EQ(mq_timedsend(q, "x", 1, 0, &past), 0);
	EQ(mq_timedreceive(q, b, 8, NULL, &past), 1);
	EQ(mq_timedsend(q, "x", 1, 0, &(struct timespec){0, 0}), 0);
	EQ(mq_timedreceive(q, b, 8, NULL, &(struct timespec){0, 0}), 1);
}

CASE("4 (timeouts)", past_timeout_is_ETIMEDOUT_at_once_if_it_would_block)
{
	mqd_t q = make(qname("a"), O_RDWR, 1, 8);
	char b[8];
	FAILS(mq_timedreceive(q, b, 8, NULL, &past), ETIMEDOUT);
	FAILS(mq_timedreceive(q, b, 8, NULL, &(struct timespec){0, 0}), ETIMEDOUT);
	put(q, "x", 0);
	FAILS(mq_timedsend(q, "x", 1, 0, &past), ETIMEDOUT);
	FAILS(mq_timedsend(q, "x", 1, 0, &(struct timespec){0, 0}), ETIMEDOUT);
	EQ(curmsgs(q), 1);
}

CASE("4 (timeouts)", past_timeout_is_EAGAIN_with_nonblock)
{
	mqd_t q = make(qname("a"), O_RDWR | O_NONBLOCK, 1, 8);
	char b[8];
	struct timespec later = in_ms(3600000);
	FAILS(mq_timedreceive(q, b, 8, NULL, &past), EAGAIN);
	FAILS(mq_timedreceive(q, b, 8, NULL, &later), EAGAIN);
	put(q, "x", 0);
	FAILS(mq_timedsend(q, "x", 1, 0, &past), EAGAIN);
	FAILS(mq_timedsend(q, "x", 1, 0, &later), EAGAIN);
}

CASE("4 (timeouts)", null_timeout_is_like_the_untimed_call)
{
	mqd_t q = make(qname("a"), O_RDWR, 1, 8);
	char b[8];
	pid_t p;
	EQ(mq_timedsend(q, "1", 1, 0, NULL), 0);
	ASYNC(p) EQ(mq_timedsend(q, "2", 1, 0, NULL), 0);
	await_asleep(p);
	take(q, "1", 0);
	join(p);
	EQ(mq_timedreceive(q, b, 8, NULL, NULL), 1);
	ASYNC(p) EQ(mq_timedreceive(q, b, 8, NULL, NULL), 1);
	await_asleep(p);
	put(q, "3", 0);
	join(p);
}

CASE("4 (timeouts)", timeout_of_LONG_MAX_seconds_is_valid)
{
	mqd_t q = make(qname("a"), O_RDWR, 1, 8);
	struct timespec forever = {LONG_MAX, 999999999};
	char b[8];
	pid_t p;
	EQ(mq_timedsend(q, "x", 1, 0, &forever), 0);
	EQ(mq_timedreceive(q, b, 8, NULL, &forever), 1);
	ASYNC(p) {
		EQ(mq_timedreceive(q, b, 8, NULL, &forever), 1);
		EQ(mq_timedsend(q, "full", 4, 0, &forever), 0);
		EQ(mq_timedsend(q, "waits", 5, 0, &forever), 0);
	}
	await_asleep(p);
	put(q, "x", 0);
	AWAIT(curmsgs(q) == 1);
	await_asleep(p);
	take(q, "full", 0);
	join(p);
	take(q, "waits", 0);
}

static void not_before(struct timespec t)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	if (now.tv_sec < t.tv_sec || (now.tv_sec == t.tv_sec && now.tv_nsec < t.tv_nsec))
		FAIL("timed out early");
}

CASE("4 (timeouts)", receive_times_out_never_early)
{
	mqd_t q = make(qname("a"), O_RDWR, 1, 8);
	char b[8];
	for (int i = 0; i < 5; i++) {
		struct timespec t = in_ms(10);
		FAILS(mq_timedreceive(q, b, 8, NULL, &t), ETIMEDOUT);
		not_before(t);
	}
	/* The line is left in order. */
	put(q, "x", 0);
	EQ(curmsgs(q), 1);
}

CASE("4 (timeouts)", send_times_out_never_early_and_sends_nothing)
{
	mqd_t q = make(qname("a"), O_RDWR, 1, 8);
	put(q, "x", 0);
	for (int i = 0; i < 5; i++) {
		struct timespec t = in_ms(10);
		FAILS(mq_timedsend(q, "late", 4, 9, &t), ETIMEDOUT);
		not_before(t);
	}
	take(q, "x", 0);
	EQ(curmsgs(q), 0);
}

CASE("4 (timeouts)", timed_sleeper_is_served_before_its_deadline)
{
	mqd_t q = make(qname("a"), O_RDWR, 1, 8);
	struct timespec later = in_ms(3600000);
	pid_t p;
	ASYNC(p) {
		char b[8];
		unsigned prio;
		EQ(mq_timedreceive(q, b, 8, &prio, &later), 1);
		EQ(prio, 6);
	}
	await_asleep(p);
	put(q, "x", 6);
	join(p);
	put(q, "x", 0);
	ASYNC(p) EQ(mq_timedsend(q, "y", 1, 7, &later), 0);
	await_asleep(p);
	take(q, "x", 0);
	join(p);
	take(q, "y", 7);
}
