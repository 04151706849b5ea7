/* libevent's default backend (epoll) on message queue descriptors: a persistent read event fed by a
 * child, an edge-triggered one, a write event on a full queue, and a time-out on a queue that stays empty. */
#include <assert.h>
#include <event2/event.h>
#include <fcntl.h>
#include <mqueue.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define MESSAGES 500
#define CHECK(x) do { if (!(x)) { perror(#x); fprintf(stderr, "line %d\n", __LINE__); exit(1); } } while (0)

static struct event_base *base;
static int got, timed_out, room;
static mqd_t queue;

static void take_one(evutil_socket_t fd, short what, void *arg)
{
	char body[64];
	int value;

	CHECK(what == EV_READ);
	CHECK(mq_receive(fd, body, sizeof body, NULL) == sizeof value);
	value = *(int *)body;
	CHECK(value == got);
	if (++got == MESSAGES)
		event_base_loopbreak(base);
}

static void drain(evutil_socket_t fd, short what, void *arg)
{
	char body[64];

	CHECK(what & EV_READ);
	while (mq_receive(fd, body, sizeof body, NULL) >= 0)
		got++;
	if (got >= MESSAGES)
		event_base_loopbreak(base);
}

static void writable(evutil_socket_t fd, short what, void *arg)
{
	CHECK(what == EV_WRITE);
	room = 1;
}

static void waited(evutil_socket_t fd, short what, void *arg)
{
	CHECK(what == EV_TIMEOUT);
	timed_out = 1;
}

static pid_t produce(const char *name)
{
	pid_t pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		mqd_t out = mq_open(name, O_WRONLY);
		CHECK(out >= 0);
		for (int i = 0; i < MESSAGES; i++)
			CHECK(mq_send(out, (char *)&i, sizeof i, 0) == 0);
		_exit(0);
	}
	return pid;
}

static void reap(pid_t pid)
{
	int status;
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

int main(void)
{
	struct mq_attr attr = { .mq_maxmsg = 5, .mq_msgsize = 64 };
	struct timeval soon = { .tv_usec = 50000 };
	char name[64], body[64];

	alarm(20);
	snprintf(name, sizeof name, "/clients-libevent-%d", getpid());
	queue = mq_open(name, O_CREAT | O_EXCL | O_RDWR | O_NONBLOCK, 0600, &attr);
	CHECK(queue >= 0);
	base = event_base_new();
	CHECK(base);
	printf("backend %s\n", event_base_get_method(base));

	struct event *idle = event_new(base, queue, EV_READ, waited, NULL);
	event_add(idle, &soon);
	event_base_dispatch(base);
	CHECK(timed_out);

	struct event *level = event_new(base, queue, EV_READ | EV_PERSIST, take_one, NULL);
	event_add(level, NULL);
	pid_t pid = produce(name);
	event_base_dispatch(base);
	CHECK(got == MESSAGES);
	reap(pid);
	event_free(level);

	got = 0;
	struct event *edge = event_new(base, queue, EV_READ | EV_ET | EV_PERSIST, drain, NULL);
	event_add(edge, NULL);
	pid = produce(name);
	event_base_dispatch(base);
	CHECK(got == MESSAGES);
	reap(pid);
	event_free(edge);

	for (int i = 0; i < 5; i++)
		CHECK(mq_send(queue, "x", 1, 0) == 0);
	timed_out = 0;
	struct event *full = event_new(base, queue, EV_WRITE, waited, NULL);
	event_add(full, &soon);
	event_base_dispatch(base);
	CHECK(timed_out);
	struct event *write_event = event_new(base, queue, EV_WRITE, writable, NULL);
	event_add(write_event, NULL);
	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		CHECK(mq_receive(queue, body, sizeof body, NULL) == 1);
		_exit(0);
	}
	event_base_dispatch(base);
	CHECK(room);
	reap(pid);
	CHECK(mq_send(queue, "y", 1, 0) == 0);

	event_free(write_event);
	event_free(full);
	event_free(idle);
	event_base_free(base);
	CHECK(mq_close(queue) == 0 && mq_unlink(name) == 0);
	puts("ok");
	return 0;
}
