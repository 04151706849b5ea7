/* One who uses queues while somebody else damages their files (tests/hostile.rs).
 *
 * hostile setup          makes the queues
 * hostile use SEED MS    every call there is, for MS milliseconds or once; "ready" when the queues are open
 * hostile check          the queue that nobody has damaged is as it was
 *
 * A call may fail, but not take longer than five seconds, nor write anything but the message. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LIMIT_MS 5000
#define CANARY 0xee

static const char *const call_names[] = {"none", "open", "create", "send", "receive", "timedsend", "timedreceive",
	"getattr", "setattr", "notify", "poll", "epoll", "unlink", "close", "stat", "read", "list"};
enum { NONE, OPEN, CREATE, SEND, RECEIVE, TIMEDSEND, TIMEDRECEIVE, GETATTR, SETATTR, NOTIFY, POLL, EPOLL, UNLINK, CLOSE,
	STAT, READ, LIST };

static volatile int current;
static volatile uint64_t since;
static unsigned long calls, failed;
/* What must not be seen in any message. */
static char secret[4096];

static uint64_t now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000ull + t.tv_nsec / 1000000;
}

static void *watch(void *unused)
{
	(void)unused;
	for (;;) {
		usleep(20000);
		uint64_t began = since;
		if (current != NONE && now_ms() > began + LIMIT_MS) {
			fprintf(stderr, "hostile: %s does not return\n", call_names[current]);
			_exit(99);
		}
	}
	return NULL;
}

static void begin(int call)
{
	since = now_ms();
	current = call;
	calls++;
}

static int end(long result)
{
	current = NONE;
	if (result < 0) {
		failed++;
		if (errno <= 0 || errno > 133) {
			fprintf(stderr, "hostile: errno %d\n", errno);
			_exit(98);
		}
	}
	return result < 0 ? -1 : 0;
}

#define CALL(which, expression) (begin(which), end((long)(expression)))

static uint64_t state;

static uint64_t below(uint64_t n)
{
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return (state * 0x2545f4914f6cdd1dull >> 11) % n;
}

static struct timespec soon(void)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	t.tv_nsec += 3000000;
	if (t.tv_nsec >= 1000000000) {
		t.tv_nsec -= 1000000000;
		t.tv_sec++;
	}
	return t;
}

static unsigned char buffer[1 << 17];

/* Only the message was written, and it is nobody's memory. */
static void look(long got, long room)
{
	long len = got < 0 ? room : got;

	for (long at = len; at < (long)sizeof buffer; at++)
		if (buffer[at] != CANARY) {
			fprintf(stderr, "hostile: a message of %ld bytes has written byte %ld\n", got, at);
			_exit(97);
		}
	if (got > 0 && memmem(buffer, got, "SECRET", 6)) {
		fprintf(stderr, "hostile: a message holds memory of the process\n");
		_exit(96);
	}
	memset(buffer, CANARY, len);
}

static const char *const names[] = {"/target", "/large"};
static mqd_t open_queues[2] = {-1, -1};
static const char *mount_point;

static void one_call(void)
{
	int which = below(2);
	mqd_t q = open_queues[which];
	long room = which ? 8192 : 64;
	char message[8192];
	struct mq_attr attr;
	struct timespec until = soon();
	char path[512];
	long got;

	memset(message, 'm', sizeof message);
	switch (below(21)) {
	case 0 ... 2:
		CALL(TIMEDSEND, mq_timedsend(q, message, below(room + 1), below(32768), &until));
		break;
	case 3 ... 5:
		begin(TIMEDRECEIVE);
		got = mq_timedreceive(q, (char *)buffer, room, NULL, &until);
		end(got);
		look(got, room);
		break;
	case 6:
		CALL(GETATTR, mq_getattr(q, &attr));
		break;
	case 7:
		memset(&attr, 0, sizeof attr);
		attr.mq_flags = O_NONBLOCK;
		CALL(SETATTR, mq_setattr(q, &attr, NULL));
		CALL(SEND, mq_send(q, message, room, 1));
		begin(RECEIVE);
		got = mq_receive(q, (char *)buffer, room, NULL);
		end(got);
		look(got, room);
		attr.mq_flags = 0;
		CALL(SETATTR, mq_setattr(q, &attr, NULL));
		break;
	case 8: {
		struct sigevent none = {.sigev_notify = SIGEV_NONE};
		struct sigevent signal = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
		CALL(NOTIFY, mq_notify(q, below(2) ? &none : &signal));
		break;
	}
	case 9:
		CALL(NOTIFY, mq_notify(q, NULL));
		break;
	case 10: {
		struct pollfd p[2] = {{q, POLLIN, 0}, {open_queues[!which], POLLOUT, 0}};
		CALL(POLL, poll(p, 2, 3));
		break;
	}
	case 11: {
		int set = epoll_create1(EPOLL_CLOEXEC);
		struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | (below(2) ? EPOLLET : 0)};
		CALL(EPOLL, epoll_ctl(set, EPOLL_CTL_ADD, q, &e));
		CALL(EPOLL, epoll_wait(set, &e, 1, 3));
		close(set);
		break;
	}
	case 12 ... 13:
		if (q >= 0)
			CALL(CLOSE, mq_close(q));
		open_queues[which] = -1;
		/* fall through */
	case 14:
		if (open_queues[which] >= 0)
			break;
		begin(OPEN);
		open_queues[which] = mq_open(names[which], O_RDWR | O_CREAT, 0600, NULL);
		end(open_queues[which]);
		break;
	case 15: {
		begin(CREATE);
		mqd_t fresh = mq_open("/fresh", O_RDWR | O_CREAT | (below(2) ? O_EXCL : 0), 0600, NULL);
		end(fresh);
		if (fresh >= 0)
			CALL(CLOSE, mq_close(fresh));
		break;
	}
	case 16:
		CALL(UNLINK, mq_unlink(below(3) ? "/fresh" : names[which]));
		break;
	case 17: {
		struct stat st;
		snprintf(path, sizeof path, "%s%s", mount_point, below(2) ? names[which] : "");
		CALL(STAT, stat(path, &st));
		break;
	}
	case 18: {
		snprintf(path, sizeof path, "%s%s", mount_point, names[which]);
		begin(READ);
		int fd = open(path, O_RDONLY | O_NONBLOCK);
		end(fd);
		if (fd >= 0) {
			begin(READ);
			got = read(fd, buffer, 128);
			end(got);
			look(got, 128);
			CALL(CLOSE, close(fd));
		}
		break;
	}
	case 19: {
		begin(LIST);
		DIR *dir = opendir(mount_point);
		end(dir ? 0 : -1);
		for (int n = 0; dir && n < 1000; n++) {
			begin(LIST);
			struct dirent *e = readdir(dir);
			end(0);
			if (!e)
				break;
		}
		if (dir)
			CALL(LIST, closedir(dir));
		break;
	}
	default:
		begin(READ);
		got = read(q, buffer, 128);
		end(got);
		look(got, 128);
	}
}

static int check(void)
{
	char got[64];
	unsigned priority;
	mqd_t q = mq_open("/other", O_RDWR | O_NONBLOCK);

	if (q == (mqd_t)-1) {
		perror("hostile: /other");
		return 1;
	}
	for (int n = 2; n >= 0; n--)
		if (mq_receive(q, got, sizeof got, &priority) != 9 || memcmp(got, "bystander", 9) || priority != (unsigned)n) {
			perror("hostile: a message of /other");
			return 1;
		}
	for (int n = 0; n < 3; n++)
		if (mq_send(q, "bystander", 9, n)) {
			perror("hostile: /other");
			return 1;
		}
	return 0;
}

static int setup(void)
{
	struct mq_attr small = {.mq_maxmsg = 8, .mq_msgsize = 64}, large = {.mq_maxmsg = 4, .mq_msgsize = 8192};
	char message[8192] = "first";
	mqd_t q[3] = {mq_open("/target", O_RDWR | O_CREAT | O_EXCL, 0600, &small),
		mq_open("/large", O_RDWR | O_CREAT | O_EXCL, 0600, &large),
		mq_open("/other", O_RDWR | O_CREAT | O_EXCL, 0600, &small)};

	for (int n = 0; n < 3; n++) {
		if (q[n] == (mqd_t)-1 || mq_send(q[0], message, 64, n) || mq_send(q[1], message, 8192, n * 100) ||
		    mq_send(q[2], "bystander", 9, n)) {
			perror("hostile: setup");
			return 1;
		}
	}
	return 0;
}

int main(int argc, char **argv)
{
	pthread_t watcher;

	if (argc > 1 && !strcmp(argv[1], "setup"))
		return setup();
	if (argc > 1 && !strcmp(argv[1], "check"))
		return check();
	if (argc < 4)
		return 2;
	state = strtoull(argv[2], NULL, 10) * 0x9e3779b97f4a7c15ull | 1;
	uint64_t until = now_ms() + atoi(argv[3]);
	int least = 40;

	for (size_t at = 0; at + 6 <= sizeof secret; at += 6)
		memcpy(secret + at, "SECRET", 6);
	char *heap = malloc(1 << 16);
	for (int n = 0; n < 16; n++)
		memcpy(heap + n * sizeof secret, secret, sizeof secret);
	memset(buffer, CANARY, sizeof buffer);
	signal(SIGUSR1, SIG_IGN);
	mount_point = getenv("MQNS_MOUNT");
	pthread_create(&watcher, NULL, watch, NULL);
	for (int n = 0; n < 2; n++) {
		begin(OPEN);
		open_queues[n] = mq_open(names[n], O_RDWR);
		end(open_queues[n]);
	}
	printf("ready\n");
	fflush(stdout);
	/* Where each call waits a second for a lock, not all of them. */
	while (now_ms() < until || (least-- > 0 && now_ms() < until + 3000))
		one_call();
	for (int n = 0; n < 2; n++) {
		if (open_queues[n] != (mqd_t)-1)
			CALL(CLOSE, mq_close(open_queues[n]));
		CALL(UNLINK, mq_unlink(names[n]));
	}
	CALL(UNLINK, mq_unlink("/fresh"));
	printf("%lu %lu\n", calls, failed);
	free(heap);
	return 0;
}
