/* Contract section 6: mq_notify. */
#include "conf.h"

#define SIG (SIGRTMIN + 3)

static struct sigevent none = {.sigev_notify = SIGEV_NONE};

static struct sigevent by_signal(int signo, int value)
{
	return (struct sigevent){.sigev_notify = SIGEV_SIGNAL, .sigev_signo = signo,
				 .sigev_value.sival_int = value};
}
static int arm(mqd_t q)
{
	struct sigevent e = by_signal(SIG, 4711);
	return mq_notify(q, &e);
}
/* Queued before mq_send returns: there, or not at all. */
#define signalled() pending_signal(SIG, NULL)

/* Registering is what tells whether anybody is registered. */
static int registered(const char *name)
{
	mqd_t q = OK(mq_open(name, O_RDONLY));
	int r = mq_notify(q, &none), e = errno;
	close(q); /* takes the registration back */
	if (r == 0)
		return 0;
	if (e != EBUSY)
		FAIL("mq_notify: %s", errno_name(e));
	return 1;
}

/* QSIZE, NOTIFY, SIGNO, NOTIFY_PID of the text. Read through the same descriptor: the close of a
 * second one would end a registration of the caller. */
#define text_is(q, qsize, notify, signo, pid) text_is_at(__LINE__, q, qsize, notify, signo, pid)
static void text_is_at(int line, mqd_t q, long qsize, int notify, int signo, int pid)
{
	char b[128], want[128];
	ssize_t n = pread(q, b, sizeof b - 1, 0);
	b[n < 0 ? 0 : n] = 0;
	snprintf(want, sizeof want, "QSIZE:%-10lu NOTIFY:%-5d SIGNO:%-5d NOTIFY_PID:%-6d\n", qsize,
		 notify, signo, pid);
	if (strcmp(b, want))
		fail_at(__FILE__, line, "text: expected \"%s\", got \"%s\"", want, b);
}

CASE("6", unknown_kind_is_EINVAL_before_EBADF)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	static const int bad[] = {3, 5, -1, INT_MAX, INT_MIN, SIGEV_THREAD_ID};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct sigevent e = {.sigev_notify = bad[i], .sigev_signo = SIG};
		FAILS(mq_notify(q, &e), EINVAL);
		FAILS(mq_notify(-1, &e), EINVAL);
		FAILS(mq_notify(0, &e), EINVAL);
	}
}

CASE("6", signal_number_out_of_range_is_EINVAL_before_EBADF)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	static const int bad[] = {65, 1000, -1, INT_MIN, INT_MAX};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct sigevent e = by_signal(bad[i], 0);
		FAILS(mq_notify(q, &e), EINVAL);
		FAILS(mq_notify(-1, &e), EINVAL);
	}
	struct sigevent e = by_signal(64, 0);
	EQ(mq_notify(q, &e), 0);
}

CASE("6", what_is_no_queue_is_EBADF)
{
	int p[2];
	OK(pipe(p));
	int fds[] = {-1, 900, p[0], p[1], open("/dev/null", O_RDWR)};
	for (int i = 0; i < 5; i++) {
		FAILS(mq_notify(fds[i], &none), EBADF);
		FAILS(mq_notify(fds[i], NULL), EBADF);
		FAILS(arm(fds[i]), EBADF);
	}
}

CASE("6", signal_number_0_is_consumed_without_a_signal)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 2, 8);
	struct sigevent e = by_signal(0, 1);
	EQ(mq_notify(q, &e), 0);
	FAILS(mq_notify(q, &none), EBUSY);
	put(q, "x", 0);
	sigset_t s;
	OK(sigpending(&s));
	for (int i = 1; i < 65; i++)
		TRUE(sigismember(&s, i) != 1);
	EQ(registered(n), 0);
}

CASE("6", second_registration_is_EBUSY)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 2, 8);
	block(SIG);
	EQ(arm(q), 0);
	FAILS(arm(q), EBUSY);
	FAILS(mq_notify(q, &none), EBUSY);
	CHILD {
		FAILS(arm(q), EBUSY);
		FAILS(mq_notify(q, &none), EBUSY);
		mqd_t r = OK(mq_open(n, O_RDONLY));
		FAILS(mq_notify(r, &none), EBUSY);
	}
	put(q, "x", 0);
	TRUE(signalled());
}

CASE("6", NULL_without_own_registration_leaves_another_s_alone)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 2, 8);
	EQ(mq_notify(q, NULL), 0);
	block(SIG);
	EQ(arm(q), 0);
	CHILD {
		EQ(mq_notify(q, NULL), 0);
		mqd_t r = OK(mq_open(n, O_RDWR));
		EQ(mq_notify(r, NULL), 0);
	}
	FAILS(arm(q), EBUSY);
	put(q, "x", 0);
	TRUE(signalled());
}

CASE("6", NULL_removes_the_own_registration)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	block(SIG);
	EQ(arm(q), 0);
	EQ(mq_notify(q, NULL), 0);
	text_is(q, 0, 0, 0, 0);
	put(q, "x", 0);
	TRUE(!signalled());
	EQ(arm(q), 0);
	EQ(mq_notify(q, NULL), 0);
}

CASE("6", every_access_mode_can_register)
{
	const char *n = qname("a");
	block(SIG);
	mqd_t q = make(n, 3, 2, 8), w = OK(mq_open(n, O_WRONLY)), r = OK(mq_open(n, O_RDONLY));
	EQ(arm(q), 0);
	put(w, "x", 0);
	TRUE(signalled());
	take(r, "x", 0);
	EQ(arm(w), 0);
	put(w, "x", 0);
	TRUE(signalled());
	take(r, "x", 0);
	EQ(arm(r), 0);
	put(w, "x", 0);
	TRUE(signalled());
}

CASE("6", registration_on_a_non_empty_queue_waits_for_the_next_change_from_empty)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	block(SIG);
	put(q, "1", 0);
	EQ(arm(q), 0);
	TRUE(!signalled());
	put(q, "2", 0);
	TRUE(!signalled());
	take(q, "1", 0);
	TRUE(!signalled());
	take(q, "2", 0);
	TRUE(!signalled());
	FAILS(arm(q), EBUSY);
	put(q, "3", 0);
	TRUE(signalled());
}

CASE("6", notification_comes_once)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	block(SIG);
	EQ(arm(q), 0);
	put(q, "1", 0);
	TRUE(signalled());
	take(q, "1", 0);
	put(q, "2", 0);
	TRUE(!signalled());
	take(q, "2", 0);
	EQ(arm(q), 0);
	put(q, "3", 0);
	TRUE(signalled());
}

CASE("6", SIGEV_NONE_is_consumed_as_well)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 3, 8);
	EQ(mq_notify(q, &none), 0);
	text_is(q, 0, 1, 0, getpid());
	FAILS(mq_notify(q, &none), EBUSY);
	put(q, "1", 0);
	text_is(q, 1, 0, 0, 0);
	EQ(registered(n), 0);
}

CASE("6", siginfo_tells_the_sender)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	siginfo_t si;
	block(SIG);
	EQ(arm(q), 0);
	put(q, "1", 0);
	memset(&si, 0xff, sizeof si);
	TRUE(pending_signal(SIG, &si));
	EQ(si.si_signo, SIG);
	EQ(si.si_code, SI_MESGQ);
	EQ(si.si_errno, 0);
	EQ(si.si_pid, getpid());
	EQ(si.si_uid, getuid());
	EQ(si.si_int, 4711);
	take(q, "1", 0);
	EQ(arm(q), 0);
	pid_t p;
	ASYNC(p) put(q, "2", 0);
	join(p);
	TRUE(pending_signal(SIG, &si));
	EQ(si.si_code, SI_MESGQ);
	EQ(si.si_pid, p);
	EQ(si.si_uid, getuid());
}

CASE("6", siginfo_carries_a_pointer_value)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	siginfo_t si;
	block(SIGUSR2);
	struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2,
			     .sigev_value.sival_ptr = &si};
	EQ(mq_notify(q, &e), 0);
	put(q, "1", 0);
	TRUE(pending_signal(SIGUSR2, &si));
	TRUE(si.si_ptr == &si);
	EQ(si.si_signo, SIGUSR2);
}

ROOT_CASE("6", siginfo_uid_is_the_real_user_of_the_sender)
{
	const char *n = qname("a");
	umask(0);
	mqd_t q = OK(mq_open(n, O_RDWR | O_CREAT | O_EXCL, 0666,
			     (&(struct mq_attr){.mq_maxmsg = 3, .mq_msgsize = 8})));
	siginfo_t si;
	block(SIG);
	EQ(arm(q), 0);
	CHILD {
		OK(setresuid(user(0), user(1), user(2)));
		put(OK(mq_open(n, O_WRONLY)), "x", 0);
	}
	TRUE(pending_signal(SIG, &si));
	EQ(si.si_uid, user(0));
}

ROOT_CASE("6", notification_by_another_user_needs_no_kill_permission)
{
	const char *n = qname("a");
	umask(0);
	mqd_t q = OK(mq_open(n, O_RDWR | O_CREAT | O_EXCL, 0666,
			     (&(struct mq_attr){.mq_maxmsg = 3, .mq_msgsize = 8})));
	siginfo_t si;
	block(SIG);
	EQ(arm(q), 0);
	pid_t parent = getpid(), p;
	ASYNC(p) {
		become(user(0));
		FAILS(kill(parent, 0), EPERM);
		put(OK(mq_open(n, O_WRONLY)), "x", 0);
	}
	join(p);
	TRUE(pending_signal(SIG, &si));
	EQ(si.si_pid, p);
	EQ(si.si_uid, user(0));
}

ROOT_CASE("6", notification_between_two_ordinary_users)
{
	const char *n = qname("a");
	pid_t p;
	umask(0);
	OK(mq_open(n, O_RDWR | O_CREAT | O_EXCL, 0666,
		   (&(struct mq_attr){.mq_maxmsg = 3, .mq_msgsize = 8})));
	ASYNC(p) {
		become(user(1));
		block(SIG);
		mqd_t r = OK(mq_open(n, O_RDWR));
		EQ(arm(r), 0);
		mark(1);
		await_mark(2);
		siginfo_t si;
		TRUE(pending_signal(SIG, &si));
		EQ(si.si_uid, user(2));
	}
	await_mark(1);
	CHILD {
		become(user(2));
		FAILS(kill(p, 0), EPERM);
		put(OK(mq_open(n, O_WRONLY)), "x", 0);
	}
	mark(2);
	join(p);
}

ROOT_CASE("6, 16", sender_outside_the_receiver_s_pid_namespace_has_pid_0)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	pid_t p;
	ASYNC(p) {
		OK(unshare(CLONE_NEWPID));
		CHILD {
			siginfo_t si;
			EQ(getpid(), 1);
			block(SIG);
			EQ(arm(q), 0);
			text_is(q, 0, 0, SIG, 1);
			mark(0);
			await_mark(1);
			TRUE(pending_signal(SIG, &si));
			EQ(si.si_code, SI_MESGQ);
			EQ(si.si_pid, 0);
			EQ(si.si_uid, 0);
			EQ(si.si_int, 4711);
		}
	}
	await_mark(0);
	put(q, "x", 0);
	mark(1);
	join(p);
}

ROOT_CASE("6, 16", sender_in_an_inner_pid_namespace_has_the_pid_the_receiver_sees)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	siginfo_t si;
	block(SIG);
	EQ(arm(q), 0);
	CHILD {
		pid_t inner;
		OK(unshare(CLONE_NEWPID));
		ASYNC(inner) {
			EQ(getpid(), 1);
			put(q, "x", 0);
		}
		atomic_store(&shared->value[0], inner);
		join(inner);
	}
	TRUE(pending_signal(SIG, &si));
	EQ(si.si_pid, atomic_load(&shared->value[0]));
}

CASE("6", signal_runs_the_handler_before_send_returns)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	handle(SIG, 0);
	EQ(arm(q), 0);
	put(q, "1", 0);
	EQ(signals_handled(), 1);
}

static atomic_int handler_took, handler_armed;
static mqd_t handler_queue;
static void receive_and_rearm(int sig UNUSED)
{
	char b[8];
	int e = errno;
	struct sigevent ev = by_signal(SIG, 0);
	handler_armed = mq_notify(handler_queue, &ev);
	if (mq_receive(handler_queue, b, 8, NULL) == 1)
		handler_took++;
	errno = e;
}

CASE("6", handler_may_rearm_and_receive)
{
	handler_queue = make(qname("a"), O_RDWR | O_NONBLOCK, 3, 8);
	OK(sigaction(SIG, &(struct sigaction){.sa_handler = receive_and_rearm}, NULL));
	EQ(arm(handler_queue), 0);
	for (int i = 1; i <= 100; i++) {
		put(handler_queue, "x", 0);
		EQ(handler_took, i);
		EQ(handler_armed, 0);
		EQ(curmsgs(handler_queue), 0);
	}
}

CASE("6", sleeping_receiver_gets_the_message_and_nobody_is_notified)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	pid_t p;
	block(SIG);
	EQ(arm(q), 0);
	ASYNC(p) take(q, "1", 0);
	await_asleep(p);
	put(q, "1", 0);
	join(p);
	TRUE(!signalled());
	text_is(q, 0, 0, SIG, getpid());
	FAILS(arm(q), EBUSY);
	put(q, "2", 0);
	TRUE(signalled());
}

static void *receiver_thread(void *arg)
{
	char b[8];
	mqd_t q = *(mqd_t *)arg;
	atomic_store(&shared->value[0], gettid());
	EQ(mq_receive(q, b, 8, NULL), 1);
	return NULL;
}

CASE("6", sleeping_thread_of_the_own_process_gets_the_message_too)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	pthread_t t;
	block(SIG);
	EQ(arm(q), 0);
	EQ(pthread_create(&t, NULL, receiver_thread, &q), 0);
	AWAIT(atomic_load(&shared->value[0]));
	await_asleep(atomic_load(&shared->value[0]));
	put(q, "1", 0);
	EQ(pthread_join(t, NULL), 0);
	TRUE(!signalled());
	FAILS(arm(q), EBUSY);
}

CASE("6", second_message_to_a_queue_with_one_sleeping_receiver_notifies)
{
	/* The first goes straight to the sleeper, so the queue is empty when the second comes. */
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	pid_t p;
	block(SIG);
	EQ(arm(q), 0);
	ASYNC(p) {
		take(q, "1", 0);
		await_mark(0);
	}
	await_asleep(p);
	put(q, "1", 0);
	TRUE(!signalled());
	put(q, "2", 0);
	TRUE(signalled());
	mark(0);
	join(p);
	take(q, "2", 0);
}

CASE("6", sleeping_sender_s_message_that_enters_an_emptied_queue_does_not_notify)
{
	mqd_t q = make(qname("a"), O_RDWR, 1, 8);
	pid_t p;
	block(SIG);
	put(q, "1", 0);
	EQ(arm(q), 0);
	ASYNC(p) put(q, "2", 0);
	await_asleep(p);
	take(q, "1", 0);
	EQ(curmsgs(q), 1);
	TRUE(!signalled());
	FAILS(arm(q), EBUSY);
	join(p);
	TRUE(!signalled());
	take(q, "2", 0);
	put(q, "3", 0);
	TRUE(signalled());
}

CASE("6", pollers_do_not_suppress_notification)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	pid_t a, b, c;
	block(SIG);
	ASYNC(a) {
		struct pollfd f = {.fd = q, .events = POLLIN};
		EQ(poll(&f, 1, -1), 1);
	}
	ASYNC(b) {
		fd_set s;
		FD_ZERO(&s);
		FD_SET(q, &s);
		EQ(select(q + 1, &s, NULL, NULL, NULL), 1);
	}
	ASYNC(c) {
		int e = OK(epoll_create1(0));
		struct epoll_event ev = {.events = EPOLLIN};
		OK(epoll_ctl(e, EPOLL_CTL_ADD, q, &ev));
		EQ(epoll_wait(e, &ev, 1, -1), 1);
	}
	await_asleep(a);
	await_asleep(b);
	await_asleep(c);
	EQ(arm(q), 0);
	put(q, "1", 0);
	TRUE(signalled());
	join(a);
	join(b);
	join(c);
}

static void *arm_thread(void *arg)
{
	EQ(arm(*(mqd_t *)arg), 0);
	return NULL;
}

CASE("6", registration_belongs_to_the_process_not_the_thread)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	block(SIG);
	pthread_t t;
	EQ(pthread_create(&t, NULL, arm_thread, &q), 0);
	EQ(pthread_join(t, NULL), 0);
	text_is(q, 0, 0, SIG, getpid());
	FAILS(arm(q), EBUSY);
	put(q, "1", 0);
	TRUE(signalled());
}

/* ---- What ends a registration ------------------------------------------------------------ */

CASE("6", close_of_the_descriptor_removes)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 3, 8);
	block(SIG);
	EQ(arm(q), 0);
	EQ(mq_close(q), 0);
	EQ(registered(n), 0);
	put(OK(mq_open(n, O_RDWR)), "1", 0);
	TRUE(!signalled());
}

CASE("6", close_of_a_dup_removes)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 3, 8);
	block(SIG);
	int d = OK(dup(q));
	EQ(arm(q), 0);
	EQ(close(d), 0);
	text_is(q, 0, 0, 0, 0);
	put(q, "1", 0);
	TRUE(!signalled());
	EQ(registered(n), 0);
}

CASE("6", close_of_a_second_open_removes)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 3, 8), r = OK(mq_open(n, O_RDONLY));
	block(SIG);
	EQ(arm(q), 0);
	EQ(mq_close(r), 0);
	put(q, "1", 0);
	TRUE(!signalled());
	EQ(registered(n), 0);
}

CASE("6", replacing_a_descriptor_by_dup2_removes)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 3, 8);
	int d = OK(dup(q));
	EQ(mq_notify(q, &none), 0);
	EQ(dup2(0, d), d);
	EQ(registered(n), 0);
	EQ(mq_notify(q, &none), 0);
	EQ(dup3(0, q, 0), q);
	EQ(registered(n), 0);
}

CASE("6", close_range_removes)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 3, 8);
	int d = OK(dup(q));
	EQ(mq_notify(q, &none), 0);
	EQ(close_range(d, d, 0), 0);
	EQ(registered(n), 0);
}

/* dup(2) that no function of libc sees. */
static int silent_dup(int fd)
{
#ifdef __x86_64__
	int r;
	__asm__ volatile("syscall" : "=a"(r) : "0"(SYS_dup), "D"(fd) : "rcx", "r11", "memory");
	return r;
#else
	return dup(fd);
#endif
}

/* Registered, signalled, emptied: as often as one likes. */
static void round_of(mqd_t q)
{
	EQ(arm(q), 0);
	text_is(q, 0, 0, SIG, getpid());
	put(q, "1", 0);
	TRUE(signalled());
	take(q, "1", 0);
}

CASE("6", close_removes_a_registration_that_is_one_of_many)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 3, 8);
	int d[3];
	block(SIG);
	for (int i = 0; i < 3; i++)
		d[i] = OK(i == 2 ? dup(q) : silent_dup(q));
	round_of(q);
	round_of(q);
	/* Between two registrations, and after one. */
	for (int i = 0; i < 3; i++) {
		if (i == 0)
			EQ(dup2(0, d[i]), d[i]);
		else
			EQ(close(d[i]), 0);
		EQ(arm(q), 0);
		CHILD {
			FAILS(arm(q), EBUSY);
			put(q, "1", 0);
		}
		TRUE(signalled());
		take(q, "1", 0);
		round_of(q);
		int silent = silent_dup(q);
		EQ(arm(q), 0);
		EQ(close(silent), 0);
		put(q, "1", 0);
		TRUE(!signalled());
		take(q, "1", 0);
		round_of(q);
	}
}

CASE("6", two_processes_take_turns)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	pid_t p;
	block(SIG);
	round_of(q);
	round_of(q);
	ASYNC(p) {
		for (int i = 0; i < 3; i++) {
			await_marks(0, i + 1);
			round_of(q);
			round_of(q);
			EQ(arm(q), 0);
			mark(1);
			await_marks(2, i + 1);
			TRUE(signalled());
			take(q, "1", 0);
			mark(3);
		}
	}
	for (int i = 0; i < 3; i++) {
		round_of(q);
		mark(0);
		await_marks(1, i + 1);
		FAILS(arm(q), EBUSY);
		text_is(q, 0, 0, SIG, p);
		put(q, "1", 0);
		TRUE(!signalled());
		mark(2);
		await_marks(3, i + 1);
	}
	join(p);
}

CASE("6", close_of_another_queue_does_not_remove)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8), o = make(qname("b"), O_RDWR, 3, 8);
	block(SIG);
	EQ(arm(q), 0);
	EQ(mq_close(o), 0);
	put(q, "1", 0);
	TRUE(signalled());
}

CASE("6", close_by_another_process_does_not_remove)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 3, 8);
	block(SIG);
	EQ(arm(q), 0);
	CHILD {
		EQ(mq_close(q), 0);
		EQ(mq_close(OK(mq_open(n, O_RDWR))), 0);
	}
	FAILS(arm(q), EBUSY);
	text_is(q, 0, 0, SIG, getpid());
	put(q, "1", 0);
	TRUE(signalled());
}

CASE("6", exit_removes)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 3, 8);
	CHILD {
		EQ(arm(q), 0);
	}
	text_is(q, 0, 0, 0, 0);
	EQ(registered(n), 0);
	put(q, "1", 0);
}

CASE("6", SIGKILL_removes)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 3, 8);
	pid_t p;
	ASYNC(p) {
		EQ(arm(q), 0);
		mark(0);
		pause();
	}
	await_mark(0);
	text_is(q, 0, 0, SIG, p);
	FAILS(mq_notify(q, &none), EBUSY);
	EQ(kill(p, SIGKILL), 0);
	join_killed(p, SIGKILL);
	EQ(registered(n), 0);
	text_is(q, 0, 0, 0, 0);
	put(q, "1", 0);
}

CASE("6", fork_does_not_copy_the_registration)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	block(SIG);
	EQ(arm(q), 0);
	CHILD {
		EQ(mq_notify(q, NULL), 0);
		FAILS(arm(q), EBUSY);
		put(q, "1", 0);
		TRUE(!signalled());
	}
	TRUE(signalled());
}

CASE("6", unlink_leaves_the_registration_with_the_old_queue)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 3, 8);
	block(SIG);
	EQ(arm(q), 0);
	EQ(mq_unlink(n), 0);
	mqd_t new = make(n, O_RDWR, 3, 8);
	EQ(mq_notify(new, &none), 0);
	put(new, "n", 0);
	TRUE(!signalled());
	FAILS(arm(q), EBUSY);
	put(q, "1", 0);
	TRUE(signalled());
}

/* ---- exec -------------------------------------------------------------------------------- */

/* arg: a descriptor to write to once running, and one to wait on. */
HELPER(wait)
{
	(void)argc;
	char c;
	if (write(atoi(argv[0]), "r", 1) != 1 || read(atoi(argv[1]), &c, 1) != 1)
		return 1;
	sigset_t s;
	sigpending(&s);
	for (int i = 1; i < 65; i++)
		if (sigismember(&s, i) == 1) {
			fprintf(stderr, "signal %d is pending\n", i);
			return 1;
		}
	return 0;
}

static void exec_and_wait(int running, int go_on)
{
	OK(fcntl(running, F_SETFD, 0));
	OK(fcntl(go_on, F_SETFD, 0));
	exec_helper("wait", number(running), number(go_on));
}

CASE("6", exec_that_closes_a_descriptor_removes)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 3, 8);
	int run[2], go[2];
	char c;
	pid_t p;
	OK(pipe(run));
	OK(pipe(go));
	ASYNC(p) {
		block(SIG);
		EQ(arm(q), 0);
		exec_and_wait(run[1], go[0]);
	}
	EQ(read(run[0], &c, 1), 1);
	EQ(registered(n), 0);
	text_is(q, 0, 0, 0, 0);
	put(q, "x", 0);
	EQ(write(go[1], "g", 1), 1);
	join(p);
}

CASE("6", exec_that_closes_only_a_dup_removes)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 3, 8);
	int run[2], go[2];
	char c;
	pid_t p;
	OK(pipe(run));
	OK(pipe(go));
	ASYNC(p) {
		block(SIG);
		/* q itself goes, the dup stays. */
		OK(dup(q));
		EQ(arm(q), 0);
		exec_and_wait(run[1], go[0]);
	}
	EQ(read(run[0], &c, 1), 1);
	EQ(registered(n), 0);
	EQ(write(go[1], "g", 1), 1);
	join(p);
}

CASE("6", exec_that_keeps_every_descriptor_keeps_the_registration_but_sends_no_signal)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 3, 8);
	int run[2], go[2];
	char c;
	pid_t p;
	OK(pipe(run));
	OK(pipe(go));
	ASYNC(p) {
		block(SIG);
		OK(fcntl(q, F_SETFD, 0));
		EQ(arm(q), 0);
		exec_and_wait(run[1], go[0]);
	}
	EQ(read(run[0], &c, 1), 1);
	text_is(q, 0, 0, SIG, p);
	FAILS(mq_notify(q, &none), EBUSY);
	put(q, "x", 0);
	/* The first message has consumed it. */
	text_is(q, 1, 0, 0, 0);
	EQ(registered(n), 0);
	EQ(write(go[1], "g", 1), 1);
	join(p);
}

/* ---- SIGEV_THREAD ------------------------------------------------------------------------ */

static atomic_int calls[2];
static atomic_long called_value, called_tid, called_stack;
static mqd_t called_queue;

static void callback(union sigval v)
{
	pthread_attr_t a;
	void *addr;
	size_t size;
	pthread_getattr_np(pthread_self(), &a);
	pthread_attr_getstack(&a, &addr, &size);
	pthread_attr_destroy(&a);
	atomic_store(&called_value, v.sival_int);
	atomic_store(&called_tid, gettid());
	atomic_store(&called_stack, size);
	atomic_fetch_add(&calls[0], 1);
}
static void other_callback(union sigval v)
{
	(void)v;
	atomic_fetch_add(&calls[1], 1);
}
static struct sigevent by_thread(void (*fn)(union sigval), int value, pthread_attr_t *a)
{
	return (struct sigevent){.sigev_notify = SIGEV_THREAD, .sigev_notify_function = fn,
				 .sigev_value.sival_int = value, .sigev_notify_attributes = a};
}

CASE("6", thread_notification_calls_back_in_another_thread)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	struct sigevent e = by_thread(callback, 99, NULL);
	EQ(mq_notify(q, &e), 0);
	text_is(q, 0, 2, 0, getpid());
	FAILS(mq_notify(q, &e), EBUSY);
	put(q, "x", 0);
	AWAIT(calls[0] == 1);
	EQ(called_value, 99);
	TRUE(called_tid != gettid());
	text_is(q, 1, 0, 0, 0);
	/* Once only. */
	take(q, "x", 0);
	struct sigevent f = by_thread(other_callback, 0, NULL);
	EQ(mq_notify(q, &f), 0);
	put(q, "y", 0);
	AWAIT(calls[1] == 1);
	EQ(calls[0], 1);
}

CASE("6", thread_notification_by_another_process)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	struct sigevent e = by_thread(callback, -5, NULL);
	EQ(mq_notify(q, &e), 0);
	CHILD put(q, "x", 0);
	AWAIT(calls[0] == 1);
	EQ(called_value, -5);
}

static void rearming_callback(union sigval v)
{
	char b[8];
	int n = v.sival_int;
	/* Registered again while the message is still there: already removed. */
	struct sigevent e = by_thread(rearming_callback, n + 1, NULL);
	EQ(mq_notify(called_queue, &e), 0);
	EQ(mq_receive(called_queue, b, 8, NULL), 1);
	atomic_fetch_add(&calls[0], 1);
}

CASE("6", thread_callback_may_rearm)
{
	called_queue = make(qname("a"), O_RDWR, 3, 8);
	struct sigevent e = by_thread(rearming_callback, 0, NULL);
	EQ(mq_notify(called_queue, &e), 0);
	for (int i = 1; i <= 20; i++) {
		put(called_queue, "x", 0);
		AWAIT(calls[0] == i);
		EQ(curmsgs(called_queue), 0);
	}
	text_is(called_queue, 0, 2, 0, getpid());
}

/* A later notification has been delivered: an earlier one would have been, too. */
static void other_notification(void)
{
	mqd_t o = make(qname("barrier"), O_RDWR, 3, 8);
	struct sigevent f = by_thread(other_callback, 0, NULL);
	EQ(mq_notify(o, &f), 0);
	put(o, "y", 0);
	AWAIT(calls[1] == 1);
}

CASE("6", thread_registration_removed_by_NULL_is_never_called)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	struct sigevent e = by_thread(callback, 0, NULL);
	EQ(mq_notify(q, &e), 0);
	EQ(mq_notify(q, NULL), 0);
	text_is(q, 0, 0, 0, 0);
	put(q, "x", 0);
	other_notification();
	EQ(calls[0], 0);
}

CASE("6", thread_registration_removed_by_close_is_never_called)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 3, 8);
	struct sigevent e = by_thread(callback, 0, NULL);
	EQ(mq_notify(q, &e), 0);
	EQ(mq_close(q), 0);
	EQ(registered(n), 0);
	put(OK(mq_open(n, O_RDWR)), "x", 0);
	other_notification();
	EQ(calls[0], 0);
}

CASE("6", thread_attributes_are_copied_and_honoured)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	pthread_attr_t a;
	EQ(pthread_attr_init(&a), 0);
	EQ(pthread_attr_setstacksize(&a, 1234 * 1024), 0);
	struct sigevent e = by_thread(callback, 0, &a);
	EQ(mq_notify(q, &e), 0);
	EQ(pthread_attr_setstacksize(&a, 64 * 1024), 0);
	EQ(pthread_attr_destroy(&a), 0);
	put(q, "x", 0);
	AWAIT(calls[0] == 1);
	TRUE(called_stack > 1200 * 1024 && called_stack <= 1234 * 1024);
}

static void exiting_callback(union sigval v)
{
	exit(v.sival_int);
}

CASE("6", thread_callback_may_exit_the_process)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	pid_t p = conf_fork();
	if (p == 0) {
		struct sigevent e = by_thread(exiting_callback, 42, NULL);
		EQ(mq_notify(q, &e), 0);
		put(q, "x", 0);
		for (;;)
			pause();
	}
	int st;
	EQ(waitpid(p, &st, 0), p);
	TRUE(WIFEXITED(st));
	EQ(WEXITSTATUS(st), 42);
}

CASE("6", thread_notification_on_a_bad_descriptor_is_EBADF)
{
	struct sigevent e = by_thread(callback, 0, NULL);
	FAILS(mq_notify(-1, &e), EBADF);
	FAILS(mq_notify(0, &e), EBADF);
}

/* ---- Bad pointers ------------------------------------------------------------------------ */

CASE("6", sigevent_that_straddles_into_unmapped_memory_is_EFAULT)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	/* sigev_value, sigev_signo, sigev_notify are there, the rest is not. */
	struct sigevent *e = (struct sigevent *)edge(16);
	e->sigev_notify = SIGEV_NONE;
	FAILS(mq_notify(q, e), EFAULT);
	FAILS(mq_notify(-1, e), EFAULT);
	e->sigev_notify = 77;
	FAILS(mq_notify(q, e), EFAULT);
	EQ(mq_notify(q, &none), 0);
}

SHIM_CASE("6 (a crash in the C library natively)", unmapped_sigevent_is_EFAULT)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	FAILS(mq_notify(q, nowhere()), EFAULT);
	FAILS(mq_notify(-1, nowhere()), EFAULT);
	EQ(mq_notify(q, &none), 0);
}
