/* Contract section 9: sleeping in mq_send and mq_receive. */
#include "conf.h"

/* A child asleep in mq_receive, which must get this text. */
static pid_t receiver_of(mqd_t q, const char *want)
{
	pid_t p;
	ASYNC(p) {
		char b[64];
		ssize_t n = mq_receive(q, b, sizeof b, NULL);
		if (n < 0)
			FAIL("mq_receive: expected \"%s\", got %s", want, errno_name(errno));
		if (n != (ssize_t)strlen(want) || memcmp(b, want, n))
			FAIL("receiver expected \"%s\", got \"%.*s\"", want, (int)n, b);
	}
	await_asleep(p);
	return p;
}
static pid_t sender_of(mqd_t q, const char *text, unsigned prio)
{
	pid_t p;
	ASYNC(p) put(q, text, prio);
	await_asleep(p);
	return p;
}

CASE("9", receivers_are_served_longest_asleep_first_one_per_message)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	pid_t a = receiver_of(q, "1"), b = receiver_of(q, "2"), c = receiver_of(q, "3");
	put(q, "1", 0);
	join(a);
	await_asleep(b);
	await_asleep(c);
	put(q, "2", 9);
	put(q, "3", 4);
	join(b);
	join(c);
	EQ(curmsgs(q), 0);
}

CASE("9", receivers_get_messages_as_sent_not_by_priority)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	pid_t a = receiver_of(q, "low"), b = receiver_of(q, "high");
	put(q, "low", 0);
	put(q, "high", 9);
	join(a);
	join(b);
}

CASE("9", senders_are_served_longest_asleep_first_whatever_the_priority)
{
	mqd_t q = make(qname("a"), O_RDWR, 1, 8);
	put(q, "0", 5);
	pid_t a = sender_of(q, "a", 1), b = sender_of(q, "b", 9), c = sender_of(q, "c", 4);
	take(q, "0", 5);
	join(a);
	EQ(curmsgs(q), 1);
	take(q, "a", 1);
	join(b);
	take(q, "b", 9);
	join(c);
	take(q, "c", 4);
}

CASE("9", messages_of_sleeping_senders_enter_by_priority)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	put(q, "m", 5);
	put(q, "n", 5);
	pid_t a = sender_of(q, "low", 1), b = sender_of(q, "high", 9);
	take(q, "m", 5);
	join(a);
	take(q, "n", 5);
	join(b);
	take(q, "high", 9);
	take(q, "low", 1);
}

CASE("9", receive_from_a_full_queue_takes_in_the_sender_s_message_in_one_step)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	put(q, "1", 0);
	put(q, "2", 0);
	pid_t a = sender_of(q, "3", 0);
	take(q, "1", 0);
	EQ(curmsgs(q), 2);
	join(a);
	EQ(curmsgs(q), 2);
	take(q, "2", 0);
	take(q, "3", 0);
}

static pid_t nice_receiver_of(mqd_t q, const char *want, int nice_)
{
	pid_t p;
	ASYNC(p) {
		OK(setpriority(PRIO_PROCESS, 0, nice_));
		char b[64];
		ssize_t n = OK(mq_receive(q, b, sizeof b, NULL));
		if (n != (ssize_t)strlen(want) || memcmp(b, want, n))
			FAIL("receiver of nice %d expected \"%s\", got \"%.*s\"", nice_, want,
			     (int)n, b);
	}
	await_asleep(p);
	return p;
}

CASE("9", receivers_of_lower_nice_come_first)
{
	mqd_t q = make(qname("a"), O_RDWR, 5, 8);
	pid_t p[5];
	p[0] = nice_receiver_of(q, "5", 15);
	p[1] = nice_receiver_of(q, "2", 5);
	p[2] = nice_receiver_of(q, "4", 10);
	p[3] = nice_receiver_of(q, "1", 1);
	p[4] = nice_receiver_of(q, "3", 5);
	for (int i = 0; i < 5; i++)
		put(q, number(i + 1), 0);
	for (int i = 0; i < 5; i++)
		join(p[i]);
}

CASE("9", senders_of_lower_nice_come_first)
{
	mqd_t q = make(qname("a"), O_RDWR, 1, 8);
	static const int nices[] = {12, 3, 12, 0, 7};
	static const char *text[] = {"4", "2", "5", "1", "3"};
	pid_t p[5];
	put(q, "0", 0);
	for (int i = 0; i < 5; i++) {
		ASYNC(p[i]) {
			OK(setpriority(PRIO_PROCESS, 0, nices[i]));
			put(q, text[i], 0);
		}
		await_asleep(p[i]);
	}
	for (int i = 0; i < 6; i++)
		take(q, number(i), 0);
	for (int i = 0; i < 5; i++)
		join(p[i]);
}

ROOT_CASE("9 (a real-time task before any other)", real_time_receiver_comes_first)
{
	mqd_t q = make(qname("a"), O_RDWR, 5, 8);
	pid_t p[3];
	p[0] = receiver_of(q, "3");
	for (int i = 1; i < 3; i++) {
		ASYNC(p[i]) {
			struct sched_param s = {.sched_priority = i};
			OK(sched_setscheduler(0, SCHED_FIFO, &s));
			take(q, i == 2 ? "1" : "2", 0);
		}
		await_asleep(p[i]);
	}
	for (int i = 1; i <= 3; i++)
		put(q, number(i), 0);
	for (int i = 0; i < 3; i++)
		join(p[i]);
}

/* ---- Signals ----------------------------------------------------------------------------- */

/* Runs one call in a child with a handler of these flags. */
#define WITH_HANDLER(p, flags)                                                                   \
	for ((p) = conf_fork(); (p) == 0 && (handle(SIGUSR1, flags), 1); _exit(0))

/* The signal has been handled and the task sleeps again. */
static void interrupt(pid_t p, int times)
{
	EQ(kill(p, SIGUSR1), 0);
	await_marks(63, times);
}

CASE("9", handler_without_restart_gives_EINTR)
{
	mqd_t q = make(qname("a"), O_RDWR, 1, 8);
	struct timespec later = in_ms(3600000);
	char b[8];
	pid_t p;
	WITH_HANDLER(p, 0) {
		FAILS(mq_receive(q, b, 8, NULL), EINTR);
	}
	await_asleep(p);
	interrupt(p, 1);
	join(p);
	WITH_HANDLER(p, 0) {
		FAILS(mq_timedreceive(q, b, 8, NULL, &later), EINTR);
	}
	await_asleep(p);
	interrupt(p, 2);
	join(p);
	put(q, "full", 0);
	WITH_HANDLER(p, 0) {
		FAILS(mq_send(q, "x", 1, 9), EINTR);
	}
	await_asleep(p);
	interrupt(p, 3);
	join(p);
	WITH_HANDLER(p, 0) {
		FAILS(mq_timedsend(q, "x", 1, 9, &later), EINTR);
	}
	await_asleep(p);
	interrupt(p, 4);
	join(p);
	/* What was interrupted was not sent, and nobody is left in line. */
	take(q, "full", 0);
	EQ(curmsgs(q), 0);
	put(q, "y", 0);
	EQ(curmsgs(q), 1);
}

CASE("9", handler_with_restart_sleeps_on_untimed)
{
	mqd_t q = make(qname("a"), O_RDWR, 1, 8);
	pid_t p;
	WITH_HANDLER(p, SA_RESTART) take(q, "x", 2);
	await_asleep(p);
	for (int i = 1; i <= 3; i++) {
		interrupt(p, i);
		await_asleep(p);
	}
	put(q, "x", 2);
	join(p);
	put(q, "full", 0);
	WITH_HANDLER(p, SA_RESTART) put(q, "y", 3);
	await_asleep(p);
	interrupt(p, 4);
	await_asleep(p);
	take(q, "full", 0);
	join(p);
	take(q, "y", 3);
}

CASE("9", handler_with_restart_sleeps_on_timed)
{
	mqd_t q = make(qname("a"), O_RDWR, 1, 8);
	struct timespec later = in_ms(3600000);
	pid_t p;
	WITH_HANDLER(p, SA_RESTART) {
		char b[8];
		EQ(mq_timedreceive(q, b, 8, NULL, &later), 1);
	}
	await_asleep(p);
	interrupt(p, 1);
	await_asleep(p);
	put(q, "x", 2);
	join(p);
	put(q, "full", 0);
	WITH_HANDLER(p, SA_RESTART) EQ(mq_timedsend(q, "y", 1, 3, &later), 0);
	await_asleep(p);
	interrupt(p, 2);
	await_asleep(p);
	take(q, "full", 0);
	join(p);
	take(q, "y", 3);
}

CASE("9", restarted_timed_call_keeps_its_deadline)
{
	mqd_t q = make(qname("a"), O_RDWR, 1, 8);
	pid_t p, s;
	put(q, "full", 0);
	/* Signals come all the time from the first sleep to the deadline. */
	WITH_HANDLER(p, SA_RESTART) {
		pid_t me = getpid();
		ASYNC(s) {
			while (kill(me, SIGUSR1) == 0)
				nanosleep(&(struct timespec){0, 2000000}, NULL);
		}
		struct timespec t = in_ms(150), now;
		char b[8];
		mqd_t e = make(qname("b"), O_RDWR, 1, 8);
		FAILS(mq_timedsend(q, "y", 1, 3, &t), ETIMEDOUT);
		clock_gettime(CLOCK_REALTIME, &now);
		TRUE(now.tv_sec > t.tv_sec || (now.tv_sec == t.tv_sec && now.tv_nsec >= t.tv_nsec));
		t = in_ms(150);
		FAILS(mq_timedreceive(e, b, 8, NULL, &t), ETIMEDOUT);
		clock_gettime(CLOCK_REALTIME, &now);
		TRUE(now.tv_sec > t.tv_sec || (now.tv_sec == t.tv_sec && now.tv_nsec >= t.tv_nsec));
		TRUE(signals_handled() > 0);
		EQ(kill(s, SIGKILL), 0);
		EQ(waitpid(s, NULL, 0), s);
	}
	join(p);
}

CASE("9", restarted_receiver_goes_to_the_end_of_the_line)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	pid_t a, b;
	WITH_HANDLER(a, SA_RESTART) take(q, "2", 0);
	await_asleep(a);
	b = receiver_of(q, "1");
	interrupt(a, 1);
	await_asleep(a);
	put(q, "1", 0);
	join(b);
	put(q, "2", 0);
	join(a);
}

CASE("9", restarted_sender_goes_to_the_end_of_the_line)
{
	mqd_t q = make(qname("a"), O_RDWR, 1, 8);
	pid_t a, b;
	put(q, "0", 0);
	WITH_HANDLER(a, SA_RESTART) put(q, "2", 0);
	await_asleep(a);
	b = sender_of(q, "1", 0);
	interrupt(a, 1);
	await_asleep(a);
	take(q, "0", 0);
	take(q, "1", 0);
	take(q, "2", 0);
	join(a);
	join(b);
}

CASE("9", ignored_signals_do_not_disturb)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	pid_t a, b;
	ASYNC(a) {
		signal(SIGUSR1, SIG_IGN);
		take(q, "1", 0);
	}
	await_asleep(a);
	b = receiver_of(q, "2");
	static const int sigs[] = {SIGUSR1, SIGCHLD, SIGWINCH, SIGURG, SIGCONT};
	for (int i = 0; i < 5; i++)
		EQ(kill(a, sigs[i]), 0);
	await_asleep(a);
	/* Still the first in line. */
	put(q, "1", 0);
	join(a);
	put(q, "2", 0);
	join(b);
}

CASE("9", blocked_signals_do_not_disturb)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	pid_t a, b;
	WITH_HANDLER(a, 0) {
		block(SIGUSR1);
		take(q, "1", 0);
		TRUE(pending_signal(SIGUSR1, NULL));
	}
	await_asleep(a);
	b = receiver_of(q, "2");
	EQ(kill(a, SIGUSR1), 0);
	await_asleep(a);
	put(q, "1", 0);
	join(a);
	put(q, "2", 0);
	join(b);
}

static mqd_t handler_queue;
static void sending_handler(int sig UNUSED)
{
	int e = errno;
	put(handler_queue, "handler", 1);
	errno = e;
	mark(5);
}

CASE("9", handler_may_send_to_the_queue_its_thread_sleeps_on)
{
	handler_queue = make(qname("a"), O_RDWR, 2, 8);
	pid_t p;
	ASYNC(p) {
		struct sigaction sa = {.sa_handler = sending_handler, .sa_flags = SA_RESTART};
		OK(sigaction(SIGUSR1, &sa, NULL));
		/* The restarted call finds the message that the handler sent. */
		take(handler_queue, "handler", 1);
	}
	await_asleep(p);
	EQ(kill(p, SIGUSR1), 0);
	join(p);
}

static void jump_handler(int sig UNUSED)
{
	mark(6);
}

CASE("9", interrupted_receiver_can_receive_again)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	pid_t p;
	ASYNC(p) {
		OK(sigaction(SIGUSR1, &(struct sigaction){.sa_handler = jump_handler}, NULL));
		char b[8];
		FAILS(mq_receive(q, b, 8, NULL), EINTR);
		take(q, "x", 0);
	}
	await_asleep(p);
	EQ(kill(p, SIGUSR1), 0);
	await_mark(6);
	await_asleep(p);
	put(q, "x", 0);
	join(p);
}

static void stop(pid_t p)
{
	int st;
	EQ(kill(p, SIGSTOP), 0);
	EQ(waitpid(p, &st, WUNTRACED), p);
	TRUE(WIFSTOPPED(st));
}

CASE("9", SIGSTOP_leaves_the_line_and_SIGCONT_takes_what_came)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	pid_t p = receiver_of(q, "x");
	stop(p);
	put(q, "x", 0);
	EQ(curmsgs(q), 1);
	EQ(kill(p, SIGCONT), 0);
	join(p);
	EQ(curmsgs(q), 0);
}

CASE("9", stopped_receiver_is_passed_over)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	pid_t a = receiver_of(q, "2"), b = receiver_of(q, "1");
	stop(a);
	put(q, "1", 0);
	join(b);
	EQ(kill(a, SIGCONT), 0);
	await_asleep(a);
	put(q, "2", 0);
	join(a);
}

CASE("9", stopped_sender_leaves_the_line)
{
	mqd_t q = make(qname("a"), O_RDWR, 1, 8);
	put(q, "0", 0);
	pid_t p = sender_of(q, "1", 0);
	stop(p);
	take(q, "0", 0);
	EQ(curmsgs(q), 0);
	EQ(kill(p, SIGCONT), 0);
	join(p);
	take(q, "1", 0);
}

CASE("9", stopped_timed_sleeper_keeps_its_deadline)
{
	mqd_t q = make(qname("a"), O_RDWR, 1, 8);
	pid_t p;
	struct timespec t = in_ms(2000), now;
	ASYNC(p) {
		char b[8];
		FAILS(mq_timedreceive(q, b, 8, NULL, &t), ETIMEDOUT);
	}
	await_asleep(p);
	stop(p);
	do {
		nanosleep(&(struct timespec){0, 10000000}, NULL);
		clock_gettime(CLOCK_REALTIME, &now);
	} while (now.tv_sec < t.tv_sec || (now.tv_sec == t.tv_sec && now.tv_nsec < t.tv_nsec));
	EQ(kill(p, SIGCONT), 0);
	join(p);
}

/* ---- SIGKILL ----------------------------------------------------------------------------- */

static void murder(pid_t p)
{
	EQ(kill(p, SIGKILL), 0);
	join_killed(p, SIGKILL);
}

CASE("9", killed_receiver_leaves_the_line_to_the_next)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	pid_t a = receiver_of(q, ""), b = receiver_of(q, "1");
	murder(a);
	put(q, "1", 0);
	join(b);
	EQ(curmsgs(q), 0);
}

CASE("9", message_for_a_killed_receiver_stays_in_the_queue)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	murder(receiver_of(q, ""));
	put(q, "1", 7);
	EQ(curmsgs(q), 1);
	take(q, "1", 7);
}

CASE("9", killed_sender_s_message_never_appears)
{
	mqd_t q = make(qname("a"), O_RDWR, 1, 8);
	put(q, "0", 0);
	pid_t a = sender_of(q, "dead", 9), b = sender_of(q, "live", 1);
	murder(a);
	take(q, "0", 0);
	join(b);
	take(q, "live", 1);
	EQ(curmsgs(q), 0);
	put(q, "0", 0);
	murder(sender_of(q, "dead", 9));
	take(q, "0", 0);
	EQ(curmsgs(q), 0);
}

CASE("9", many_killed_sleepers_leave_no_trace)
{
	mqd_t q = make(qname("a"), O_RDWR, 1, 8);
	pid_t p[8];
	for (int i = 0; i < 8; i++)
		p[i] = receiver_of(q, "");
	for (int i = 0; i < 8; i++)
		murder(p[(i * 5) % 8]);
	put(q, "x", 0);
	for (int i = 0; i < 8; i++)
		p[i] = sender_of(q, "dead", 1);
	for (int i = 0; i < 8; i++)
		murder(p[(i * 3) % 8]);
	take(q, "x", 0);
	EQ(curmsgs(q), 0);
	p[0] = receiver_of(q, "y");
	put(q, "y", 0);
	join(p[0]);
}

/* ---- unlink and close meanwhile ---------------------------------------------------------- */

CASE("9", sleeper_stays_with_an_unlinked_queue)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 1, 8);
	pid_t p = receiver_of(q, "old");
	EQ(mq_unlink(n), 0);
	mqd_t new = make(n, O_RDWR, 1, 8);
	put(new, "new", 0);
	await_asleep(p);
	EQ(curmsgs(new), 1);
	put(q, "old", 0);
	join(p);
	take(new, "new", 0);
}

CASE("9", sleeping_sender_stays_with_an_unlinked_queue)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 1, 8);
	put(q, "1", 0);
	pid_t p = sender_of(q, "2", 0);
	EQ(mq_unlink(n), 0);
	make(n, O_RDWR, 1, 8);
	await_asleep(p);
	take(q, "1", 0);
	join(p);
	take(q, "2", 0);
}

struct thread {
	pthread_t t;
	mqd_t q;
	atomic_int tid, done, cleaned;
	int kind;
	char got[64];
	ssize_t ret;
};

static void *receive_in_thread(void *arg)
{
	struct thread *t = arg;
	t->tid = gettid();
	t->ret = mq_receive(t->q, t->got, sizeof t->got, NULL);
	t->done = 1;
	return NULL;
}

CASE("9", sleeper_stays_when_another_thread_closes_the_descriptor)
{
	const char *n = qname("a");
	struct thread t = {.q = make(n, O_RDWR, 1, 8)};
	EQ(pthread_create(&t.t, NULL, receive_in_thread, &t), 0);
	AWAIT(t.tid);
	await_asleep(t.tid);
	EQ(mq_close(t.q), 0);
	await_asleep(t.tid);
	put(OK(mq_open(n, O_RDWR)), "x", 0);
	EQ(pthread_join(t.t, NULL), 0);
	EQ(t.ret, 1);
	SAME(t.got, "x", 1);
}

CASE("9", threads_of_one_process_are_served_in_order)
{
	mqd_t q = make(qname("a"), O_RDWR, 1, 8);
	struct thread t[4] = {{.q = q}, {.q = q}, {.q = q}, {.q = q}};
	for (int i = 0; i < 4; i++) {
		EQ(pthread_create(&t[i].t, NULL, receive_in_thread, &t[i]), 0);
		AWAIT(t[i].tid);
		await_asleep(t[i].tid);
	}
	for (int i = 0; i < 4; i++)
		put(q, number(i), 0);
	for (int i = 0; i < 4; i++) {
		EQ(pthread_join(t[i].t, NULL), 0);
		SAME(t[i].got, number(i), 1);
	}
}

CASE("9", sleepers_on_different_queues_do_not_mix)
{
	mqd_t a = make(qname("a"), O_RDWR, 1, 8), b = make(qname("b"), O_RDWR, 1, 8);
	pid_t p = receiver_of(a, "for a"), q = receiver_of(b, "for b");
	put(b, "for b", 0);
	join(q);
	await_asleep(p);
	put(a, "for a", 0);
	join(p);
}

CASE("9", ping_pong_loses_nothing)
{
	mqd_t a = make(qname("a"), O_RDWR, 1, 8), b = make(qname("b"), O_RDWR, 1, 8);
	pid_t p;
	ASYNC(p) {
		for (int i = 0; i < 2000; i++) {
			take(a, number(i), i);
			put(b, number(-i), i);
		}
	}
	for (int i = 0; i < 2000; i++) {
		put(a, number(i), i);
		take(b, number(-i), i);
	}
	join(p);
}

CASE("9", many_senders_and_receivers_lose_nothing)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	pid_t s[3], r[3];
	enum { EACH = 1000 };
	for (int i = 0; i < 3; i++) {
		ASYNC(r[i]) {
			int last[3] = {-1, -1, -1};
			for (int k = 0; k < EACH; k++) {
				int b[2];
				EQ(mq_receive(q, (char *)b, 8, NULL), 8);
				/* What one sender sends, one receiver sees in order. */
				TRUE(b[0] >= 0 && b[0] < 3 && b[1] > last[b[0]]);
				last[b[0]] = b[1];
				atomic_fetch_add(&shared->value[0], b[1]);
			}
		}
	}
	for (int i = 0; i < 3; i++) {
		ASYNC(s[i]) {
			for (int k = 0; k < EACH; k++) {
				int b[2] = {i, k};
				EQ(mq_send(q, (char *)b, 8, 0), 0);
			}
		}
	}
	for (int i = 0; i < 3; i++) {
		join(s[i]);
		join(r[i]);
	}
	EQ(curmsgs(q), 0);
	EQ(atomic_load(&shared->value[0]), 3L * EACH * (EACH - 1) / 2);
}

/* ---- Cancellation ------------------------------------------------------------------------ */

enum { RECEIVE, TIMEDRECEIVE, SEND, TIMEDSEND };
static const struct timespec never = {LONG_MAX, 0};

static long blocking_call(int kind, mqd_t q)
{
	char b[8];
	switch (kind) {
	case RECEIVE: return mq_receive(q, b, 8, NULL);
	case TIMEDRECEIVE: return mq_timedreceive(q, b, 8, NULL, &never);
	case SEND: return mq_send(q, "cancel", 6, 3);
	default: return mq_timedsend(q, "cancel", 6, 3, &never);
	}
}
static void clean(void *arg)
{
	((struct thread *)arg)->cleaned++;
}
static void *cancelled_thread(void *arg)
{
	struct thread *t = arg;
	pthread_cleanup_push(clean, t);
	t->tid = gettid();
	blocking_call(t->kind, t->q);
	t->done = 1;
	pthread_cleanup_pop(0);
	return NULL;
}
static void *async_cancelled_thread(void *arg)
{
	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
	return cancelled_thread(arg);
}

static void cancel_while_asleep(void *(*thread)(void *), int kind)
{
	mqd_t q = make(qname(number(kind)), O_RDWR, 1, 8);
	struct thread t = {.q = q, .kind = kind};
	void *ret;
	if (kind >= SEND)
		put(q, "0", 0);
	EQ(pthread_create(&t.t, NULL, thread, &t), 0);
	AWAIT(t.tid);
	await_asleep(t.tid);
	EQ(pthread_cancel(t.t), 0);
	EQ(pthread_join(t.t, &ret), 0);
	TRUE(ret == PTHREAD_CANCELED);
	EQ(t.cleaned, 1);
	EQ(t.done, 0);
	/* Nobody in line, nothing lost, nothing sent. */
	if (kind >= SEND) {
		take(q, "0", 0);
		EQ(curmsgs(q), 0);
	}
	put(q, "1", 1);
	EQ(curmsgs(q), 1);
	take(q, "1", 1);
	/* And the queue still works between processes. */
	pid_t p = receiver_of(q, "2");
	put(q, "2", 0);
	join(p);
}

CASE("9", mq_receive_is_cancelled_in_its_sleep) { cancel_while_asleep(cancelled_thread, RECEIVE); }
CASE("9", mq_timedreceive_is_cancelled_in_its_sleep)
{
	cancel_while_asleep(cancelled_thread, TIMEDRECEIVE);
}
CASE("9", mq_send_is_cancelled_in_its_sleep) { cancel_while_asleep(cancelled_thread, SEND); }
CASE("9", mq_timedsend_is_cancelled_in_its_sleep)
{
	cancel_while_asleep(cancelled_thread, TIMEDSEND);
}
CASE("9", asynchronous_cancellation_in_all_four_calls)
{
	for (int kind = RECEIVE; kind <= TIMEDSEND; kind++)
		cancel_while_asleep(async_cancelled_thread, kind);
}

static void *pending_cancel_thread(void *arg)
{
	struct thread *t = arg;
	pthread_cleanup_push(clean, t);
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	t->tid = gettid();
	AWAIT(t->ret); /* cancelled now */
	pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
	blocking_call(t->kind, t->q);
	t->done = 1;
	pthread_cleanup_pop(0);
	return NULL;
}

CASE("9", pending_cancellation_acts_though_the_call_would_not_block)
{
	for (int kind = RECEIVE; kind <= TIMEDSEND; kind++) {
		mqd_t q = make(qname(number(kind)), O_RDWR, 2, 8);
		struct thread t = {.q = q, .kind = kind};
		void *ret;
		put(q, "0", 0);
		EQ(pthread_create(&t.t, NULL, pending_cancel_thread, &t), 0);
		AWAIT(t.tid);
		EQ(pthread_cancel(t.t), 0);
		t.ret = 1;
		EQ(pthread_join(t.t, &ret), 0);
		TRUE(ret == PTHREAD_CANCELED);
		EQ(t.done, 0);
		EQ(t.cleaned, 1);
		EQ(curmsgs(q), 1);
		take(q, "0", 0);
	}
}

static void *no_cancel_thread(void *arg)
{
	struct thread *t = arg;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	t->tid = gettid();
	t->ret = blocking_call(t->kind, t->q);
	t->done = 1;
	return NULL;
}

CASE("9", disabled_cancellation_sleeps_on)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	struct thread t = {.q = q, .kind = RECEIVE};
	void *ret;
	EQ(pthread_create(&t.t, NULL, no_cancel_thread, &t), 0);
	AWAIT(t.tid);
	await_asleep(t.tid);
	EQ(pthread_cancel(t.t), 0);
	await_asleep(t.tid);
	put(q, "x", 0);
	EQ(pthread_join(t.t, &ret), 0);
	TRUE(ret == NULL);
	EQ(t.ret, 1);
	EQ(t.done, 1);
}

static void *bad_calls_thread(void *arg)
{
	struct thread *t = arg;
	pthread_cleanup_push(clean, t);
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	t->tid = gettid();
	AWAIT(t->ret);
	pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
	/* None of these is a cancellation point. */
	struct mq_attr a;
	mq_getattr(t->q, &a);
	mq_setattr(t->q, &a, NULL);
	mq_notify(t->q, NULL);
	t->done = 1;
	pthread_testcancel();
	pthread_cleanup_pop(0);
	return NULL;
}

CASE("9", getattr_setattr_and_notify_are_no_cancellation_points)
{
	struct thread t = {.q = make(qname("a"), O_RDWR, 2, 8)};
	void *ret;
	EQ(pthread_create(&t.t, NULL, bad_calls_thread, &t), 0);
	AWAIT(t.tid);
	EQ(pthread_cancel(t.t), 0);
	t.ret = 1;
	EQ(pthread_join(t.t, &ret), 0);
	TRUE(ret == PTHREAD_CANCELED);
	EQ(t.done, 1);
}
