/* Contract section 8, at more length: epoll sets that hold queues only, and what can happen to them; sleeps of
 * poll and epoll_wait that end, and that do not. */
#include "conf.h"

static int set_of(int q, unsigned events)
{
	int e = OK(epoll_create1(EPOLL_CLOEXEC));
	struct epoll_event ev = {.events = events, .data.fd = q};
	OK(epoll_ctl(e, EPOLL_CTL_ADD, q, &ev));
	return e;
}

static void add(int e, int fd, unsigned events)
{
	struct epoll_event ev = {.events = events, .data.fd = fd};
	OK(epoll_ctl(e, EPOLL_CTL_ADD, fd, &ev));
}

/* The descriptor of the one event that there is, or -1. */
static int told(int e, int timeout)
{
	struct epoll_event ev[8];
	int n = epoll_wait(e, ev, 8, timeout);
	if (n < 0)
		FAIL("epoll_wait: %s", errno_name(errno));
	if (n > 1)
		FAIL("epoll_wait returned %d events", n);
	return n ? ev[0].data.fd : -1;
}

static long elapsed_ms(const struct timespec *since)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (now.tv_sec - since->tv_sec) * 1000 + (now.tv_nsec - since->tv_nsec) / 1000000;
}

ROOT_CASE("8", a_message_that_comes_and_goes_wakes_no_sleeper_for_good)
{
	/* On one CPU, where the sleepers cannot run before the message is gone again. */
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	cpu_set_t cpus;
	pid_t p[2];
	OK(sched_getaffinity(0, sizeof cpus, &cpus));
	for (int i = CPU_SETSIZE - 1, found = 0; i >= 0; i--) {
		if (found)
			CPU_CLR(i, &cpus);
		found |= CPU_ISSET(i, &cpus);
	}
	OK(sched_setaffinity(0, sizeof cpus, &cpus));
	ASYNC(p[0]) {
		struct pollfd f = {.fd = q, .events = POLLIN};
		EQ(poll(&f, 1, -1), 1);
		EQ(curmsgs(q), 1);
		EQ(f.revents, POLLIN);
	}
	ASYNC(p[1]) {
		EQ(told(set_of(q, EPOLLIN), -1), q);
		EQ(curmsgs(q), 1);
	}
	OK(sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){.sched_priority = 1}));
	for (int round = 0; round < 50; round++) {
		await_asleep(p[0]);
		await_asleep(p[1]);
		put(q, "gone", 0);
		take(q, "gone", 0);
		usleep(1000);
	}
	await_asleep(p[0]);
	await_asleep(p[1]);
	put(q, "stays", 0);
	join(p[0]);
	join(p[1]);
}

CASE("8", poll_in_vain_takes_its_time)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	struct timespec t, ms30 = {0, 30000000};
	struct pollfd f = {.fd = q, .events = POLLIN, .revents = 7};
	struct epoll_event ev;
	int e = set_of(q, EPOLLIN);
	clock_gettime(CLOCK_MONOTONIC, &t);
	EQ(poll(&f, 1, 30), 0);
	EQ(f.revents, 0);
	TRUE(elapsed_ms(&t) >= 30);
	clock_gettime(CLOCK_MONOTONIC, &t);
	EQ(ppoll(&f, 1, &ms30, NULL), 0);
	TRUE(elapsed_ms(&t) >= 30);
	clock_gettime(CLOCK_MONOTONIC, &t);
	EQ(epoll_wait(e, &ev, 1, 30), 0);
	TRUE(elapsed_ms(&t) >= 30);
	clock_gettime(CLOCK_MONOTONIC, &t);
	EQ(epoll_pwait2(e, &ev, 1, &ms30, NULL), 0);
	TRUE(elapsed_ms(&t) >= 30);
}

CASE("8", wakes_in_vain_do_not_prolong_the_time)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	int e = set_of(q, EPOLLIN);
	pid_t p;
	ASYNC(p) {
		for (int i = 0; i < 400; i++) {
			put(q, "gone", 0);
			take(q, "gone", 0);
			usleep(5000);
		}
	}
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	/* It may see one of them. */
	told(e, 50);
	TRUE(elapsed_ms(&t) < 1000);
	OK(kill(p, SIGKILL));
	join_killed(p, SIGKILL);
}

CASE("8", several_queues_are_told_apart)
{
	mqd_t a = make(qname("a"), O_RDWR, 2, 8), b = make(qname("b"), O_RDWR, 2, 8);
	int e = set_of(a, EPOLLIN);
	add(e, b, EPOLLIN);
	EQ(told(e, 0), -1);
	put(b, "1", 0);
	EQ(told(e, 0), b);
	put(a, "1", 0);
	struct epoll_event ev[3];
	EQ(epoll_wait(e, ev, 3, -1), 2);
	EQ(ev[0].data.fd + ev[1].data.fd, a + b);
	take(b, "1", 0);
	EQ(told(e, 0), a);
}

CASE("8", each_queue_gets_its_turn_where_there_is_room_for_one)
{
	mqd_t q[3] = {make(qname("a"), O_RDWR, 2, 8), make(qname("b"), O_RDWR, 2, 8), make(qname("c"), O_RDWR, 2, 8)};
	int e = set_of(q[0], EPOLLIN), seen[3] = {0};
	add(e, q[1], EPOLLIN);
	add(e, q[2], EPOLLIN);
	for (int i = 0; i < 3; i++)
		put(q[i], "x", 0);
	for (int i = 0; i < 9; i++) {
		struct epoll_event ev;
		EQ(epoll_wait(e, &ev, 1, 0), 1);
		for (int k = 0; k < 3; k++)
			seen[k] += ev.data.fd == q[k];
	}
	EQ(seen[0], 3);
	EQ(seen[1], 3);
	EQ(seen[2], 3);
}

CASE("8", interest_in_room_and_in_messages)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	int e = set_of(q, EPOLLIN | EPOLLOUT | EPOLLRDNORM);
	struct epoll_event ev;
	EQ(epoll_wait(e, &ev, 1, 0), 1);
	EQ(ev.events, EPOLLOUT);
	put(q, "1", 0);
	EQ(epoll_wait(e, &ev, 1, 0), 1);
	EQ(ev.events, EPOLLIN | EPOLLOUT | EPOLLRDNORM);
	put(q, "2", 0);
	EQ(epoll_wait(e, &ev, 1, 0), 1);
	EQ(ev.events, EPOLLIN | EPOLLRDNORM);
}

CASE("8", a_set_without_members_sleeps)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	int e = set_of(q, EPOLLIN);
	put(q, "x", 0);
	OK(epoll_ctl(e, EPOLL_CTL_DEL, q, NULL));
	EQ(told(e, 0), -1);
	EQ(told(e, 10), -1);
	FAILS(epoll_ctl(e, EPOLL_CTL_DEL, q, NULL), ENOENT);
	add(e, q, EPOLLIN);
	EQ(told(e, 0), q);
	struct epoll_event ev = {.events = 0, .data.fd = q};
	OK(epoll_ctl(e, EPOLL_CTL_MOD, q, &ev));
	EQ(told(e, 10), -1);
	FAILS(epoll_ctl(e, EPOLL_CTL_ADD, q, &ev), EEXIST);
	EQ(told(e, 0), -1);
}

static int seen[3], seen_set;

static void *sleeper(void *arg)
{
	for (int i = 0; i < 3; i++) {
		seen[i] = told(seen_set, -1);
		mark(i);
		if (i < 2)
			await_mark(8 + i);
	}
	return arg;
}

CASE("8", what_is_added_while_another_thread_sleeps_wakes_it)
{
	mqd_t a = make(qname("a"), O_RDWR, 2, 8), b = make(qname("b"), O_RDWR, 2, 8), c = make(qname("c"), O_RDWR, 2, 8);
	int e = set_of(a, EPOLLIN), fds[2];
	OK(pipe(fds));
	put(c, "x", 0);
	pthread_t thread;
	seen_set = e;
	EQ(pthread_create(&thread, NULL, sleeper, NULL), 0);
	usleep(20000);
	add(e, b, EPOLLIN);
	usleep(20000);
	put(b, "x", 0);
	await_mark(0);
	EQ(seen[0], b);
	take(b, "x", 0);
	mark(8);
	usleep(20000);
	add(e, c, EPOLLIN); /* ready from the start */
	await_mark(1);
	EQ(seen[1], c);
	take(c, "x", 0);
	mark(9);
	usleep(20000);
	add(e, fds[0], EPOLLIN); /* no queue */
	EQ(write(fds[1], "x", 1), 1);
	await_mark(2);
	EQ(seen[2], fds[0]);
	pthread_join(thread, NULL);
}

CASE("8", queues_and_others_in_one_set)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	int fds[2];
	OK(pipe(fds));
	int e = set_of(q, EPOLLIN);
	EQ(told(e, 0), -1);
	add(e, fds[0], EPOLLIN);
	EQ(told(e, 0), -1);
	put(q, "1", 0);
	EQ(told(e, -1), q);
	take(q, "1", 0);
	EQ(told(e, 0), -1);
	EQ(write(fds[1], "x", 1), 1);
	EQ(told(e, -1), fds[0]);
	put(q, "1", 0);
	struct epoll_event ev[2];
	EQ(epoll_wait(e, ev, 2, -1), 2);
	/* The other way round: the queue comes second. */
	int other = set_of(fds[0], EPOLLIN);
	add(other, q, EPOLLIN);
	EQ(epoll_wait(other, ev, 2, -1), 2);
}

CASE("8", a_set_in_a_set)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	int inner = set_of(q, EPOLLIN), outer;
	EQ(told(inner, 0), -1);
	outer = set_of(inner, EPOLLIN);
	EQ(told(outer, 0), -1);
	put(q, "x", 0);
	EQ(told(outer, -1), inner);
	EQ(told(inner, 0), q);
	take(q, "x", 0);
	EQ(told(outer, 0), -1);
	pid_t p;
	ASYNC(p) EQ(told(outer, -1), inner);
	await_asleep(p);
	put(q, "x", 0);
	join(p);
}

CASE("8", a_set_that_is_polled)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	int e = set_of(q, EPOLLIN);
	struct pollfd f = {.fd = e, .events = POLLIN};
	EQ(told(e, 0), -1);
	EQ(poll(&f, 1, 0), 0);
	pid_t p;
	ASYNC(p) EQ(poll(&f, 1, -1), 1);
	await_asleep(p);
	put(q, "x", 0);
	join(p);
	EQ(poll(&f, 1, -1), 1);
	fd_set s;
	FD_ZERO(&s);
	FD_SET(e, &s);
	EQ(select(e + 1, &s, NULL, NULL, NULL), 1);
}

CASE("8", a_duplicate_of_a_set_is_the_same_set)
{
	mqd_t a = make(qname("a"), O_RDWR, 2, 8), b = make(qname("b"), O_RDWR, 2, 8);
	int e = set_of(a, EPOLLIN), d;
	EQ(told(e, 0), -1);
	d = OK(dup(e));
	add(d, b, EPOLLIN);
	put(b, "x", 0);
	EQ(told(e, -1), b);
	EQ(told(d, -1), b);
	close(e);
	put(a, "x", 0);
	struct epoll_event ev[2];
	EQ(epoll_wait(d, ev, 2, -1), 2);
	/* By the other way, and added to behind the back of the first number. */
	mqd_t c = make(qname("c"), O_RDWR, 2, 8);
	int f = set_of(c, EPOLLIN);
	EQ(told(f, 0), -1);
	add(OK(fcntl(f, F_DUPFD_CLOEXEC, 0)), b, EPOLLIN);
	EQ(told(f, 0), b);
	/* The number anew, for an empty set. */
	EQ(dup2(OK(epoll_create1(0)), e), e);
	EQ(told(e, 0), -1);
}

CASE("8", a_child_shares_the_set)
{
	mqd_t a = make(qname("a"), O_RDWR, 2, 8), b = make(qname("b"), O_RDWR, 2, 8);
	int e = set_of(a, EPOLLIN);
	EQ(told(e, 0), -1);
	pid_t p;
	ASYNC(p) {
		EQ(told(e, -1), a);
		mark(0);
		await_mark(1);
		EQ(told(e, -1), b);
	}
	await_asleep(p);
	put(a, "x", 0);
	await_mark(0);
	take(a, "x", 0);
	add(e, b, EPOLLIN);
	mark(1);
	await_asleep(p);
	put(b, "x", 0);
	join(p);
	EQ(told(e, -1), b);
}

CASE("8", what_a_child_adds_its_parent_sees)
{
	mqd_t a = make(qname("a"), O_RDWR, 2, 8), b = make(qname("b"), O_RDWR, 2, 8);
	int e = set_of(a, EPOLLIN);
	EQ(told(e, 0), -1);
	CHILD add(e, b, EPOLLIN);
	pid_t p;
	ASYNC(p) {
		usleep(50000);
		put(b, "x", 0);
	}
	EQ(told(e, -1), b);
	join(p);
}

CASE("8", edges_beside_levels)
{
	mqd_t q = make(qname("a"), O_RDWR, 4, 8);
	int level = set_of(q, EPOLLIN), edge = set_of(q, EPOLLIN | EPOLLET);
	EQ(told(level, 0), -1);
	EQ(told(edge, 0), -1);
	for (int i = 0; i < 3; i++) {
		put(q, "x", 0);
		EQ(told(level, 0), q);
		EQ(told(edge, 0), q);
		EQ(told(edge, 0), -1);
		EQ(told(level, 0), q);
	}
	struct epoll_event ev = {.events = EPOLLIN | EPOLLONESHOT, .data.fd = q};
	OK(epoll_ctl(level, EPOLL_CTL_MOD, q, &ev));
	EQ(told(level, 0), q);
	EQ(told(level, 0), -1);
	ev.events = EPOLLIN;
	OK(epoll_ctl(level, EPOLL_CTL_MOD, q, &ev));
	EQ(told(level, 0), q);
	EQ(told(level, 0), q);
}

CASE("8", the_set_goes_on_after_its_queue_is_closed)
{
	mqd_t a = make(qname("a"), O_RDWR, 2, 8), b = make(qname("b"), O_RDWR, 2, 8);
	int e = set_of(a, EPOLLIN);
	add(e, b, EPOLLIN);
	put(a, "x", 0);
	EQ(told(e, 0), a);
	OK(mq_close(a));
	EQ(told(e, 0), -1);
	put(b, "x", 0);
	EQ(told(e, -1), b);
	/* Closed here, open in a child: for the kernel it is still in the set. */
	mqd_t c = make(qname("c"), O_RDWR, 2, 8);
	take(b, "x", 0);
	add(e, c, EPOLLIN);
	EQ(told(e, 0), -1);
	pid_t p;
	ASYNC(p) {
		await_mark(0);
		put(c, "x", 0);
		mark(1);
		await_mark(2);
	}
	OK(mq_close(c));
	mark(0);
	await_mark(1);
	EQ(told(e, -1), c);
	mark(2);
	join(p);
}

CASE("8", seventeen_queues_in_a_set)
{
	mqd_t q[17];
	char name[8];
	int e = OK(epoll_create1(0));
	for (int i = 0; i < 17; i++) {
		snprintf(name, sizeof name, "q%d", i);
		q[i] = make(qname(name), O_RDWR, 2, 8);
		add(e, q[i], EPOLLIN);
		EQ(told(e, 0), -1);
	}
	for (int i = 0; i < 17; i++) {
		put(q[i], "x", 0);
		EQ(told(e, -1), q[i]);
		take(q[i], "x", 0);
		EQ(told(e, 0), -1);
	}
}

CASE("8", errors_of_waiting_on_sets)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	int e = set_of(q, EPOLLIN);
	struct epoll_event ev;
	volatile int less = -1;
	put(q, "x", 0);
	FAILS(epoll_wait(e, &ev, 0, 0), EINVAL);
	FAILS(epoll_wait(e, &ev, less, 0), EINVAL);
	FAILS(epoll_wait(e, nowhere(), 1, 0), EFAULT);
	FAILS(epoll_pwait2(e, &ev, 1, &(struct timespec){.tv_nsec = -1}, NULL), EINVAL);
	FAILS(ppoll(&(struct pollfd){.fd = q, .events = POLLIN}, 1, &(struct timespec){.tv_nsec = -1}, NULL), EINVAL);
	FAILS(epoll_wait(q, &ev, 1, 0), EINVAL);
	close(e);
	FAILS(epoll_wait(e, &ev, 1, 0), EBADF);
	FAILS(epoll_wait(-1, &ev, 1, 0), EBADF);
	FAILS(poll(nowhere(), 1, 0), EFAULT);
}

static void ignore(int signo)
{
	(void)signo;
}

CASE("8", a_handler_ends_the_wait)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	int e = set_of(q, EPOLLIN);
	struct sigaction act = {.sa_handler = ignore, .sa_flags = SA_RESTART};
	OK(sigaction(SIGALRM, &act, NULL));
	struct epoll_event ev;
	ualarm(30000, 30000);
	FAILS(epoll_wait(e, &ev, 1, -1), EINTR);
	FAILS(epoll_pwait(e, &ev, 1, -1, NULL), EINTR);
	FAILS(poll(&(struct pollfd){.fd = q, .events = POLLIN}, 1, -1), EINTR);
	/* Blocked for the time of the call. */
	sigset_t all;
	sigfillset(&all);
	EQ(epoll_pwait(e, &ev, 1, 80, &all), 0);
	ualarm(0, 0);
}

CASE("8", raw_calls_on_a_set)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	int e = OK(epoll_create1(0));
	struct epoll_event ev = {.events = EPOLLIN, .data.fd = q};
	EQ(syscall(SYS_epoll_ctl, e, EPOLL_CTL_ADD, q, &ev), 0);
	EQ(syscall(SYS_epoll_pwait, e, &ev, 1, 0, NULL, 8), 0);
	pid_t p;
	ASYNC(p) {
		struct epoll_event got;
		EQ(syscall(SYS_epoll_pwait, e, &got, 1, -1, NULL, 8), 1);
	}
	await_asleep(p);
	put(q, "x", 0);
	join(p);
	EQ(syscall(SYS_epoll_pwait, e, &ev, 1, -1, NULL, 8), 1);
	FAILS(syscall(SYS_epoll_pwait, e, &ev, 1, -1, &ev, 7), EINVAL);
	EQ(syscall(SYS_epoll_pwait2, e, &ev, 1, NULL, NULL, 8), 1);
}

CASE("8", queues_and_others_in_one_poll)
{
	mqd_t a = make(qname("a"), O_RDWR, 1, 8), b = make(qname("b"), O_RDWR, 1, 8);
	int fds[2];
	OK(pipe(fds));
	struct pollfd f[5] = {{.fd = a, .events = POLLIN},   {.fd = fds[0], .events = POLLIN}, {.fd = -1, .events = POLLIN},
			      {.fd = b, .events = POLLOUT}, {.fd = fds[1], .events = POLLOUT}};
	EQ(poll(f, 5, -1), 2);
	EQ(f[0].revents, 0);
	EQ(f[1].revents, 0);
	EQ(f[2].revents, 0);
	EQ(f[3].revents, POLLOUT);
	EQ(f[4].revents, POLLOUT);
	put(a, "x", 0);
	put(b, "x", 0);
	EQ(poll(f, 5, -1), 2);
	EQ(f[0].revents, POLLIN);
	EQ(f[3].revents, 0);
	take(a, "x", 0);
	pid_t p;
	ASYNC(p) {
		EQ(poll(f, 4, -1), 1);
		EQ(f[1].revents, POLLIN);
		EQ(f[0].revents | f[3].revents, 0);
	}
	await_asleep(p);
	EQ(write(fds[1], "x", 1), 1);
	join(p);
	ASYNC(p) {
		f[1].fd = -1;
		EQ(poll(f, 4, -1), 1);
		EQ(f[3].revents, POLLOUT);
	}
	await_asleep(p);
	take(b, "x", 0);
	join(p);
}

CASE("8", the_notification_comes_before_the_event)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	int e = set_of(q, EPOLLIN);
	EQ(told(e, 0), -1);
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	OK(sigprocmask(SIG_BLOCK, &set, NULL));
	struct timespec none = {0, 0};
	pid_t p;
	for (int i = 0; i < 50; i++) {
		struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
		OK(mq_notify(q, &ev));
		ASYNC(p) put(q, "x", 0);
		EQ(told(e, -1), q);
		EQ(sigtimedwait(&set, NULL, &none), SIGUSR1);
		take(q, "x", 0);
		join(p);
	}
}

static mqd_t polled_queue;
static int polled_set;

static void *poll_in_one_way(void *way)
{
	struct epoll_event ev;
	struct pollfd f = {.fd = polled_queue, .events = POLLIN};
	fd_set s;
	mark(0);
	switch ((long)way) {
	case 0: epoll_wait(polled_set, &ev, 1, -1); break;
	case 1: epoll_pwait(polled_set, &ev, 1, -1, NULL); break;
	case 2: epoll_pwait2(polled_set, &ev, 1, NULL, NULL); break;
	case 3: poll(&f, 1, -1); break;
	case 4: ppoll(&f, 1, NULL, NULL); break;
	default:
		FD_ZERO(&s);
		FD_SET(polled_queue, &s);
		select(polled_queue + 1, &s, NULL, NULL, NULL);
	}
	return NULL;
}

CASE("8", a_thread_that_polls_can_be_cancelled)
{
	polled_queue = make(qname("a"), O_RDWR, 2, 8);
	polled_set = set_of(polled_queue, EPOLLIN);
	for (long way = 0; way < 6; way++) {
		pthread_t thread;
		void *result;
		EQ(pthread_create(&thread, NULL, poll_in_one_way, (void *)way), 0);
		await_marks(0, (int)way + 1);
		if (way % 2)
			usleep(10000);
		EQ(pthread_cancel(thread), 0);
		EQ(pthread_join(thread, &result), 0);
		TRUE(result == PTHREAD_CANCELED);
	}
	put(polled_queue, "x", 0);
	EQ(told(polled_set, -1), polled_queue);
}

CASE("8", a_vfork_child_closes_the_set_for_itself)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	int e = set_of(q, EPOLLIN);
	EQ(told(e, 0), -1);
	pid_t p = vfork();
	if (p == 0) {
		close(e);
		close(q);
		_exit(0);
	}
	join(p);
	EQ(told(e, 0), -1);
	ASYNC(p) EQ(told(e, 2000), q);
	await_asleep(p);
	put(q, "x", 0);
	join(p);
	EQ(told(e, 0), q);
	take(q, "x", 0);
	ASYNC(p) {
		usleep(50000);
		put(q, "x", 0);
	}
	EQ(told(e, 2000), q);
	EQ(curmsgs(q), 1);
	join(p);
}
