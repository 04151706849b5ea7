/* libuv's uv_poll on message queue descriptors: readable and writable events of two queues in one loop,
 * with a child at the other end that answers each message. */
#include <fcntl.h>
#include <mqueue.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#define MESSAGES 500
#define CHECK(x) do { if (!(x)) { perror(#x); fprintf(stderr, "line %d\n", __LINE__); exit(1); } } while (0)

static mqd_t requests, answers;
static uv_poll_t request_poll, answer_poll;
static uv_timer_t timer;
static int sent, received, quiet;

static void send_some(uv_poll_t *poll, int status, int events)
{
	CHECK(status == 0 && events == UV_WRITABLE);
	CHECK(mq_send(requests, (char *)&sent, sizeof sent, 0) == 0);
	if (++sent == MESSAGES)
		uv_poll_stop(poll);
}

static void take_answer(uv_poll_t *poll, int status, int events)
{
	int value[16];

	CHECK(status == 0 && events == UV_READABLE);
	CHECK(mq_receive(answers, (char *)value, sizeof value, NULL) == sizeof(int));
	CHECK(value[0] == received * 2);
	if (++received == MESSAGES)
		uv_poll_stop(poll);
}

static void unexpected(uv_poll_t *poll, int status, int events)
{
	fprintf(stderr, "event %d on an empty queue\n", events);
	exit(1);
}

static void time_up(uv_timer_t *handle)
{
	quiet = 1;
	uv_poll_stop(&answer_poll);
}

int main(void)
{
	struct mq_attr attr = { .mq_maxmsg = 4, .mq_msgsize = 64 };
	char name[2][64];
	int status;

	alarm(20);
	for (int i = 0; i < 2; i++)
		snprintf(name[i], sizeof name[i], "/clients-libuv-%d-%d", getpid(), i);
	requests = mq_open(name[0], O_CREAT | O_EXCL | O_WRONLY | O_NONBLOCK, 0600, &attr);
	answers = mq_open(name[1], O_CREAT | O_EXCL | O_RDONLY | O_NONBLOCK, 0600, &attr);
	CHECK(requests >= 0 && answers >= 0);

	uv_loop_t *loop = uv_default_loop();
	CHECK(uv_poll_init(loop, &request_poll, requests) == 0);
	CHECK(uv_poll_init(loop, &answer_poll, answers) == 0);
	CHECK(uv_timer_init(loop, &timer) == 0);

	CHECK(uv_poll_start(&answer_poll, UV_READABLE, unexpected) == 0);
	CHECK(uv_timer_start(&timer, time_up, 50, 0) == 0);
	CHECK(uv_run(loop, UV_RUN_DEFAULT) == 0 && quiet);

	pid_t pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		mqd_t in = mq_open(name[0], O_RDONLY), out = mq_open(name[1], O_WRONLY);
		CHECK(in >= 0 && out >= 0);
		for (int i = 0; i < MESSAGES; i++) {
			int value[16];
			CHECK(mq_receive(in, (char *)value, sizeof value, NULL) == sizeof(int));
			value[0] *= 2;
			CHECK(mq_send(out, (char *)value, sizeof(int), 0) == 0);
		}
		_exit(0);
	}
	CHECK(uv_poll_start(&request_poll, UV_WRITABLE, send_some) == 0);
	CHECK(uv_poll_start(&answer_poll, UV_READABLE, take_answer) == 0);
	CHECK(uv_run(loop, UV_RUN_DEFAULT) == 0);
	CHECK(sent == MESSAGES && received == MESSAGES);
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);

	uv_close((uv_handle_t *)&request_poll, NULL);
	uv_close((uv_handle_t *)&answer_poll, NULL);
	uv_close((uv_handle_t *)&timer, NULL);
	CHECK(uv_run(loop, UV_RUN_DEFAULT) == 0);
	CHECK(uv_loop_close(loop) == 0);
	CHECK(mq_close(requests) == 0 && mq_close(answers) == 0);
	CHECK(mq_unlink(name[0]) == 0 && mq_unlink(name[1]) == 0);
	puts("ok");
	return 0;
}
