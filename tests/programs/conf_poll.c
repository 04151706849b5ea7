/* Contract section 8: poll, select, epoll. */
#include "conf.h"

#define IN (POLLIN | POLLRDNORM)
#define OUT (POLLOUT | POLLWRNORM)
#define ALL (IN | OUT | POLLPRI | POLLRDBAND | POLLWRBAND | POLLRDHUP)

/* What poll says now, of everything one can ask for. */
static int polled(int fd)
{
	struct pollfd p = {.fd = fd, .events = ALL};
	int n = poll(&p, 1, 0);
	if (n < 0)
		FAIL("poll: %s", errno_name(errno));
	if (n != (p.revents != 0))
		FAIL("poll returned %d with revents %#x", n, p.revents);
	return p.revents;
}

/* The ready set that select reports: 1 readable, 2 writable, 4 exceptional. */
static int selected(int fd)
{
	fd_set r, w, x;
	FD_ZERO(&r);
	FD_ZERO(&w);
	FD_ZERO(&x);
	FD_SET(fd, &r);
	FD_SET(fd, &w);
	FD_SET(fd, &x);
	struct timeval t = {0, 0};
	int n = select(fd + 1, &r, &w, &x, &t);
	if (n < 0)
		FAIL("select: %s", errno_name(errno));
	return !!FD_ISSET(fd, &r) + 2 * !!FD_ISSET(fd, &w) + 4 * !!FD_ISSET(fd, &x);
}

static int epolled(int e)
{
	struct epoll_event ev[8];
	int n = epoll_wait(e, ev, 8, 0);
	if (n < 0)
		FAIL("epoll_wait: %s", errno_name(errno));
	if (n > 1)
		FAIL("epoll_wait returned %d events", n);
	return n ? (int)ev[0].events : 0;
}

static int watch(int q, unsigned events)
{
	int e = OK(epoll_create1(EPOLL_CLOEXEC));
	struct epoll_event ev = {.events = events, .data.fd = q};
	OK(epoll_ctl(e, EPOLL_CTL_ADD, q, &ev));
	return e;
}

CASE("8", poll_shows_empty_some_and_full)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	EQ(polled(q), OUT);
	put(q, "1", 0);
	EQ(polled(q), IN | OUT);
	put(q, "2", 0);
	EQ(polled(q), IN);
	take(q, "1", 0);
	EQ(polled(q), IN | OUT);
	take(q, "2", 0);
	EQ(polled(q), OUT);
}

CASE("8", poll_of_a_queue_of_one_message)
{
	mqd_t q = make(qname("a"), O_RDWR, 1, 8);
	EQ(polled(q), OUT);
	put(q, "1", 0);
	EQ(polled(q), IN);
	take(q, "1", 0);
	EQ(polled(q), OUT);
}

CASE("8", poll_reports_only_what_was_asked)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	put(q, "1", 0);
	struct pollfd p = {.fd = q, .events = POLLIN};
	EQ(poll(&p, 1, 0), 1);
	EQ(p.revents, POLLIN);
	p.events = POLLOUT;
	EQ(poll(&p, 1, 0), 1);
	EQ(p.revents, POLLOUT);
	p.events = 0;
	EQ(poll(&p, 1, 0), 0);
	EQ(p.revents, 0);
	p.events = POLLPRI;
	EQ(poll(&p, 1, 0), 0);
}

CASE("8", access_mode_is_irrelevant)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 2, 8), r = OK(mq_open(n, O_RDONLY)), w = OK(mq_open(n, O_WRONLY));
	EQ(polled(r), OUT);
	EQ(polled(w), OUT);
	put(q, "1", 0);
	EQ(polled(r), IN | OUT);
	EQ(polled(w), IN | OUT);
	put(w, "2", 0);
	EQ(polled(r), IN);
	EQ(polled(w), IN);
	EQ(polled(q), IN);
	EQ(selected(w), 1);
	take(r, "1", 0);
	EQ(polled(w), IN | OUT);
	EQ(selected(r), 3);
}

CASE("8", closed_number_is_POLLNVAL_and_minus_one_is_ignored)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8), o = make(qname("b"), O_RDWR, 2, 8);
	EQ(mq_close(q), 0);
	struct pollfd p[3] = {{.fd = q, .events = POLLIN}, {.fd = -1, .events = POLLIN},
			      {.fd = o, .events = POLLIN | POLLOUT}};
	EQ(poll(p, 3, 0), 2);
	EQ(p[0].revents, POLLNVAL);
	EQ(p[1].revents, 0);
	EQ(p[2].revents, POLLOUT);
}

CASE("8", queues_are_polled_among_other_descriptors)
{
	mqd_t a = make(qname("a"), O_RDWR, 2, 8), b = make(qname("b"), O_RDWR, 2, 8);
	int pp[2];
	OK(pipe(pp));
	put(b, "x", 0);
	struct pollfd p[3] = {{.fd = pp[0], .events = POLLIN}, {.fd = a, .events = POLLIN},
			      {.fd = b, .events = POLLIN}};
	EQ(poll(p, 3, -1), 1);
	EQ(p[2].revents, POLLIN);
	EQ(write(pp[1], "x", 1), 1);
	EQ(poll(p, 3, -1), 2);
	EQ(p[0].revents, POLLIN);
	EQ(p[1].revents, 0);
}

CASE("8", poll_times_out)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	struct pollfd p = {.fd = q, .events = POLLIN};
	struct timespec t0, t1, ten_ms = {0, 10000000};
	clock_gettime(CLOCK_MONOTONIC, &t0);
	EQ(poll(&p, 1, 10), 0);
	EQ(ppoll(&p, 1, &ten_ms, NULL), 0);
	clock_gettime(CLOCK_MONOTONIC, &t1);
	TRUE((t1.tv_sec - t0.tv_sec) * 1000000000 + t1.tv_nsec - t0.tv_nsec >= 20000000);
}

CASE("8", select_shows_readable_and_writable_never_exceptional)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	EQ(selected(q), 2);
	put(q, "1", 0);
	EQ(selected(q), 3);
	put(q, "2", 0);
	EQ(selected(q), 1);
	take(q, "1", 0);
	EQ(selected(q), 3);
}

CASE("8", pselect_and_ppoll_agree)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	fd_set r;
	struct timespec zero = {0, 0};
	struct pollfd p = {.fd = q, .events = POLLIN};
	FD_ZERO(&r);
	FD_SET(q, &r);
	EQ(pselect(q + 1, &r, NULL, NULL, &zero, NULL), 0);
	EQ(ppoll(&p, 1, &zero, NULL), 0);
	put(q, "1", 0);
	FD_SET(q, &r);
	EQ(pselect(q + 1, &r, NULL, NULL, NULL, NULL), 1);
	EQ(ppoll(&p, 1, NULL, NULL), 1);
	EQ(p.revents, POLLIN);
}

CASE("8", select_of_a_closed_number_is_EBADF)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	EQ(mq_close(q), 0);
	fd_set r;
	FD_ZERO(&r);
	FD_SET(q, &r);
	FAILS(select(q + 1, &r, NULL, NULL, &(struct timeval){0, 0}), EBADF);
}

CASE("8", every_sleeping_poller_is_woken_by_a_message)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	pid_t p[5];
	ASYNC(p[0]) {
		struct pollfd f = {.fd = q, .events = POLLIN};
		EQ(poll(&f, 1, -1), 1);
		EQ(f.revents, POLLIN);
	}
	ASYNC(p[1]) {
		struct pollfd f = {.fd = q, .events = POLLIN};
		EQ(ppoll(&f, 1, NULL, NULL), 1);
	}
	ASYNC(p[2]) {
		fd_set s;
		FD_ZERO(&s);
		FD_SET(q, &s);
		EQ(select(q + 1, &s, NULL, NULL, NULL), 1);
		TRUE(FD_ISSET(q, &s));
	}
	ASYNC(p[3]) {
		fd_set s;
		FD_ZERO(&s);
		FD_SET(q, &s);
		EQ(pselect(q + 1, &s, NULL, NULL, NULL, NULL), 1);
	}
	ASYNC(p[4]) {
		struct epoll_event ev;
		EQ(epoll_wait(watch(q, EPOLLIN), &ev, 1, -1), 1);
		EQ(ev.events, EPOLLIN);
		EQ(ev.data.fd, q);
	}
	for (int i = 0; i < 5; i++)
		await_asleep(p[i]);
	put(q, "x", 0);
	for (int i = 0; i < 5; i++)
		join(p[i]);
}

CASE("8", every_sleeping_poller_is_woken_by_a_free_place)
{
	mqd_t q = make(qname("a"), O_RDWR, 1, 8);
	pid_t p[3];
	put(q, "x", 0);
	ASYNC(p[0]) {
		struct pollfd f = {.fd = q, .events = POLLOUT};
		EQ(poll(&f, 1, -1), 1);
		EQ(f.revents, POLLOUT);
	}
	ASYNC(p[1]) {
		fd_set s;
		FD_ZERO(&s);
		FD_SET(q, &s);
		EQ(select(q + 1, NULL, &s, NULL, NULL), 1);
	}
	ASYNC(p[2]) {
		struct epoll_event ev;
		EQ(epoll_wait(watch(q, EPOLLOUT), &ev, 1, -1), 1);
		EQ(ev.events, EPOLLOUT);
	}
	for (int i = 0; i < 3; i++)
		await_asleep(p[i]);
	take(q, "x", 0);
	for (int i = 0; i < 3; i++)
		join(p[i]);
}

CASE("8", poller_is_woken_by_a_message_from_a_process_that_opened_later)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 1, 8);
	pid_t p;
	ASYNC(p) {
		struct pollfd f = {.fd = q, .events = POLLIN};
		EQ(poll(&f, 1, -1), 1);
	}
	await_asleep(p);
	CHILD put(OK(mq_open(n, O_WRONLY)), "x", 0);
	join(p);
}

CASE("8", message_handed_to_a_sleeping_receiver_wakes_no_poller)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	pid_t poller, receiver, edge;
	ASYNC(poller) {
		struct pollfd f = {.fd = q, .events = POLLIN};
		EQ(poll(&f, 1, -1), 1);
		EQ(curmsgs(q), 1);
	}
	ASYNC(edge) {
		/* An edge triggered entry would show even a change that is over. */
		struct epoll_event ev;
		EQ(epoll_wait(watch(q, EPOLLIN | EPOLLET), &ev, 1, -1), 1);
		EQ(curmsgs(q), 1);
	}
	ASYNC(receiver) take(q, "1", 0);
	await_asleep(poller);
	await_asleep(edge);
	await_asleep(receiver);
	put(q, "1", 0);
	join(receiver);
	await_asleep(poller);
	await_asleep(edge);
	put(q, "2", 0);
	join(poller);
	join(edge);
}

CASE("8", place_taken_by_a_sleeping_sender_wakes_no_poller)
{
	mqd_t q = make(qname("a"), O_RDWR, 1, 8);
	pid_t poller, sender, edge;
	put(q, "1", 0);
	ASYNC(poller) {
		struct pollfd f = {.fd = q, .events = POLLOUT};
		EQ(poll(&f, 1, -1), 1);
		EQ(curmsgs(q), 0);
	}
	int e = watch(q, EPOLLOUT | EPOLLET);
	ASYNC(edge) {
		struct epoll_event ev;
		EQ(epoll_wait(e, &ev, 1, -1), 1);
		EQ(curmsgs(q), 0);
	}
	ASYNC(sender) put(q, "2", 0);
	await_asleep(poller);
	await_asleep(edge);
	await_asleep(sender);
	take(q, "1", 0);
	join(sender);
	await_asleep(poller);
	await_asleep(edge);
	take(q, "2", 0);
	join(poller);
	join(edge);
}

CASE("8", poll_is_interrupted_by_a_handler)
{
	mqd_t q = make(qname("a"), O_RDWR, 1, 8);
	pid_t p;
	ASYNC(p) {
		handle(SIGUSR1, SA_RESTART);
		struct pollfd f = {.fd = q, .events = POLLIN};
		FAILS(poll(&f, 1, -1), EINTR);
		FAILS(ppoll(&f, 1, NULL, NULL), EINTR);
	}
	await_asleep(p);
	EQ(kill(p, SIGUSR1), 0);
	await_marks(63, 1);
	await_asleep(p);
	EQ(kill(p, SIGUSR1), 0);
	join(p);
}

CASE("8", poll_of_an_unlinked_queue_goes_on)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 1, 8);
	pid_t p;
	ASYNC(p) {
		struct pollfd f = {.fd = q, .events = POLLIN};
		EQ(poll(&f, 1, -1), 1);
	}
	await_asleep(p);
	EQ(mq_unlink(n), 0);
	await_asleep(p);
	put(q, "x", 0);
	join(p);
	EQ(polled(q), IN);
}

/* ---- epoll ------------------------------------------------------------------------------- */

CASE("8", epoll_level_triggered_shows_the_state)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	int e = watch(q, EPOLLIN | EPOLLOUT);
	EQ(epolled(e), EPOLLOUT);
	EQ(epolled(e), EPOLLOUT);
	put(q, "1", 0);
	EQ(epolled(e), EPOLLIN | EPOLLOUT);
	put(q, "2", 0);
	EQ(epolled(e), EPOLLIN);
	EQ(epolled(e), EPOLLIN);
	take(q, "1", 0);
	EQ(epolled(e), EPOLLIN | EPOLLOUT);
	take(q, "2", 0);
	EQ(epolled(e), EPOLLOUT);
}

CASE("8", epoll_of_a_queue_with_messages_from_before)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	put(q, "1", 0);
	EQ(epolled(watch(q, EPOLLIN)), EPOLLIN);
	EQ(epolled(watch(q, EPOLLIN | EPOLLET)), EPOLLIN);
	put(q, "2", 0);
	EQ(epolled(watch(q, EPOLLIN | EPOLLOUT)), EPOLLIN);
	EQ(epolled(watch(q, EPOLLOUT)), 0);
}

CASE("8", epoll_ctl_errors)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8), o = make(qname("b"), O_RDWR, 2, 8);
	int e = watch(q, EPOLLIN);
	struct epoll_event ev = {.events = EPOLLIN};
	FAILS(epoll_ctl(e, EPOLL_CTL_ADD, q, &ev), EEXIST);
	FAILS(epoll_ctl(e, EPOLL_CTL_MOD, o, &ev), ENOENT);
	FAILS(epoll_ctl(e, EPOLL_CTL_DEL, o, &ev), ENOENT);
	FAILS(epoll_ctl(e, EPOLL_CTL_ADD, 900, &ev), EBADF);
	FAILS(epoll_ctl(q, EPOLL_CTL_ADD, o, &ev), EINVAL);
	EQ(epoll_ctl(e, EPOLL_CTL_DEL, q, NULL), 0);
	FAILS(epoll_ctl(e, EPOLL_CTL_DEL, q, NULL), ENOENT);
}

CASE("8", epoll_mod_changes_the_interest)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	int e = watch(q, EPOLLIN);
	EQ(epolled(e), 0);
	struct epoll_event ev = {.events = EPOLLOUT};
	EQ(epoll_ctl(e, EPOLL_CTL_MOD, q, &ev), 0);
	EQ(epolled(e), EPOLLOUT);
	ev.events = 0;
	EQ(epoll_ctl(e, EPOLL_CTL_MOD, q, &ev), 0);
	put(q, "1", 0);
	EQ(epolled(e), 0);
	EQ(epoll_ctl(e, EPOLL_CTL_DEL, q, NULL), 0);
	EQ(epolled(e), 0);
}

CASE("8", epoll_holds_a_dup_as_a_separate_entry)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	int d = OK(dup(q)), e = watch(q, EPOLLIN);
	struct epoll_event ev = {.events = EPOLLIN, .data.fd = d}, got[4];
	EQ(epoll_ctl(e, EPOLL_CTL_ADD, d, &ev), 0);
	put(q, "1", 0);
	EQ(epoll_wait(e, got, 4, 0), 2);
	TRUE((got[0].data.fd == q && got[1].data.fd == d) ||
	     (got[0].data.fd == d && got[1].data.fd == q));
}

CASE("8", epoll_goes_on_after_close_while_a_dup_lives)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	int d = OK(dup(q)), e = watch(q, EPOLLIN);
	EQ(mq_close(q), 0);
	put(d, "1", 0);
	EQ(epolled(e), EPOLLIN);
	EQ(mq_close(d), 0);
	EQ(epolled(e), 0);
}

CASE("8", epoll_entry_goes_with_the_last_close_though_the_queue_lives)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 2, 8), r = OK(mq_open(n, O_RDWR));
	int e = watch(q, EPOLLIN);
	put(r, "1", 0);
	EQ(epolled(e), EPOLLIN);
	EQ(mq_close(q), 0);
	EQ(epolled(e), 0);
}

CASE("8", epoll_oneshot_fires_once)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	int e = watch(q, EPOLLIN | EPOLLONESHOT);
	put(q, "1", 0);
	EQ(epolled(e), EPOLLIN);
	put(q, "2", 0);
	EQ(epolled(e), 0);
	struct epoll_event ev = {.events = EPOLLIN | EPOLLONESHOT};
	EQ(epoll_ctl(e, EPOLL_CTL_MOD, q, &ev), 0);
	EQ(epolled(e), EPOLLIN);
}

CASE("8", epoll_instance_itself_is_pollable)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	int e = watch(q, EPOLLIN);
	EQ(polled(e) & POLLIN, 0);
	put(q, "1", 0);
	EQ(polled(e) & POLLIN, POLLIN);
	take(q, "1", 0);
	EQ(polled(e) & POLLIN, 0);
}

CASE("8 (epoll ET)", edge_in_fires_after_every_message_queued)
{
	mqd_t q = make(qname("a"), O_RDWR, 4, 8);
	int e = watch(q, EPOLLIN | EPOLLET);
	EQ(epolled(e), 0);
	put(q, "1", 0);
	EQ(epolled(e), EPOLLIN);
	EQ(epolled(e), 0);
	put(q, "2", 0);
	EQ(epolled(e), EPOLLIN);
	EQ(epolled(e), 0);
	put(q, "3", 0);
	put(q, "4", 0);
	EQ(epolled(e), EPOLLIN);
	EQ(epolled(e), 0);
}

CASE("8 (epoll ET)", edge_in_fires_after_a_receive_that_leaves_messages)
{
	mqd_t q = make(qname("a"), O_RDWR, 4, 8);
	put(q, "1", 0);
	put(q, "2", 0);
	put(q, "3", 0);
	int e = watch(q, EPOLLIN | EPOLLET);
	EQ(epolled(e), EPOLLIN);
	EQ(epolled(e), 0);
	take(q, "1", 0);
	EQ(epolled(e), EPOLLIN);
	EQ(epolled(e), 0);
	take(q, "2", 0);
	EQ(epolled(e), EPOLLIN);
	take(q, "3", 0);
	EQ(epolled(e), 0);
}

CASE("8 (epoll ET)", edge_out_fires_after_a_send_that_leaves_room)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	int e = watch(q, EPOLLOUT | EPOLLET);
	EQ(epolled(e), EPOLLOUT);
	EQ(epolled(e), 0);
	put(q, "1", 0);
	EQ(epolled(e), EPOLLOUT);
	EQ(epolled(e), 0);
	put(q, "2", 0);
	EQ(epolled(e), EPOLLOUT);
	put(q, "3", 0);
	EQ(epolled(e), 0);
}

CASE("8 (epoll ET)", edge_out_fires_after_every_receive)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	put(q, "1", 0);
	put(q, "2", 0);
	int e = watch(q, EPOLLOUT | EPOLLET);
	EQ(epolled(e), 0);
	take(q, "1", 0);
	EQ(epolled(e), EPOLLOUT);
	EQ(epolled(e), 0);
	take(q, "2", 0);
	EQ(epolled(e), EPOLLOUT);
	EQ(epolled(e), 0);
}

CASE("8 (epoll ET)", edge_both_shows_the_whole_mask)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	int e = watch(q, EPOLLIN | EPOLLOUT | EPOLLET);
	EQ(epolled(e), EPOLLOUT);
	put(q, "1", 0);
	EQ(epolled(e), EPOLLIN | EPOLLOUT);
	EQ(epolled(e), 0);
	put(q, "2", 0);
	EQ(epolled(e), EPOLLIN);
	take(q, "1", 0);
	EQ(epolled(e), EPOLLIN | EPOLLOUT);
	EQ(epolled(e), 0);
	take(q, "2", 0);
	EQ(epolled(e), EPOLLOUT);
}

CASE("8 (epoll ET)", edge_is_not_seen_if_the_state_is_over)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	int e = watch(q, EPOLLIN | EPOLLET);
	put(q, "1", 0);
	take(q, "1", 0);
	EQ(epolled(e), 0);
	put(q, "2", 0);
	EQ(epolled(e), EPOLLIN);
}

CASE("8 (epoll ET)", edge_fires_for_messages_of_other_processes)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 3, 8);
	int e = watch(q, EPOLLIN | EPOLLET);
	for (int i = 0; i < 3; i++) {
		CHILD put(OK(mq_open(n, O_WRONLY)), "x", 0);
		EQ(epolled(e), EPOLLIN);
		EQ(epolled(e), 0);
	}
}

CASE("8 (epoll ET)", failed_calls_are_no_edges)
{
	mqd_t q = make(qname("a"), O_RDWR | O_NONBLOCK, 1, 8);
	char b[8];
	int e = watch(q, EPOLLIN | EPOLLOUT | EPOLLET);
	EQ(epolled(e), EPOLLOUT);
	FAILS(mq_receive(q, b, 8, NULL), EAGAIN);
	EQ(epolled(e), 0);
	put(q, "1", 0);
	EQ(epolled(e), EPOLLIN);
	FAILS(mq_send(q, "2", 1, 0), EAGAIN);
	EQ(epolled(e), 0);
}
