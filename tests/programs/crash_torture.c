/* cc-flags: -O1 */
/*
 * crash_torture [-t SECONDS] [-k KILLS] [-p PRODUCERS] [-c CONSUMERS] [-m MAXMSG] [-z MSGSIZE] [-l LENGTH]
 *               [-s] [-i] [-e] [-w STUCK] [-r SEED]
 *
 * Producers and consumers on one queue, killed at random instants by SIGKILL and started anew; -s stops
 * and continues them as well, -i interrupts them with a handler that looks at the same queue; with -e they
 * never block in a queue, but in poll or epoll_wait, each in another way. Ends
 * after so many kills or seconds, whichever comes first. Checks that
 *
 *   nothing that mq_send said was sent is lost, but for one message at most for each consumer that
 *   died inside mq_receive;
 *   nothing is received twice, torn, or that nobody sent;
 *   each consumer receives the messages of one producer and one priority in order;
 *   the queue never stands still for more than STUCK seconds (10);
 *   in the end the queue holds mq_maxmsg messages, no more, no less.
 *
 * Works on the kernel's queues as well as on ours. Exit status 0 if all is well.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { WORKERS = 32, MESSAGES = 1 << 23, PRIORITIES = 3 };

struct message {
	uint32_t producer, number, priority, check;
};

/* What survives the workers. */
static struct shared {
	struct {
		/* Last number it was about to send, and the last that mq_send said was sent. */
		atomic_uint intent, done;
		atomic_uint in_receive;
		/* Last number seen of each producer and priority, plus one; of this incarnation. */
		uint32_t seen[WORKERS][PRIORITIES];
	} worker[WORKERS];
	atomic_uint received, stop, failed;
	/* How often each message came. */
	atomic_uchar count[WORKERS][MESSAGES];
	/* Messages that a killed producer was sending: may be there or not. */
	unsigned char doubtful[WORKERS][MESSAGES];
} *shared;

static char name[64];
static int producers = 3, consumers = 3, interrupt, polling;
static double stuck = 10;
static long maxmsg = 4, msgsize = 64, length = 32;
static mqd_t queue;
static pid_t pids[WORKERS];

#define FAIL(...) (fprintf(stderr, __VA_ARGS__), fputc('\n', stderr), atomic_store(&shared->failed, 1))

static void on_signal(int sig)
{
	struct mq_attr attr;
	int saved = errno;
	(void)sig;
	if (mq_getattr(queue, &attr) != 0 || attr.mq_curmsgs < 0 || attr.mq_curmsgs > maxmsg)
		FAIL("in a handler: mq_getattr: %s, %ld messages", strerror(errno), attr.mq_curmsgs);
	errno = saved;
}

static void fill(char *buffer, uint32_t producer, uint32_t number)
{
	struct message m = {producer, number, number % PRIORITIES, producer * 2654435761u ^ number};
	memset(buffer, (int)(number * 7 + producer), (size_t)length);
	memcpy(buffer, &m, sizeof m);
}

/* Waits for the queue to be ready, in one of several ways. */
static void await(int me, int sending)
{
	static int set = -1;
	struct epoll_event event = {.events = sending ? EPOLLOUT : EPOLLIN};
	struct pollfd fds[2] = {{.fd = queue, .events = sending ? POLLOUT : POLLIN}, {.fd = -1, .events = POLLIN}};
	if (set < 0) {
		static int nothing[2];
		set = epoll_create1(EPOLL_CLOEXEC);
		if (me % 5 == 2)
			event.events |= EPOLLET;
		if (set < 0 || epoll_ctl(set, EPOLL_CTL_ADD, queue, &event) != 0 || pipe(nothing) != 0) {
			FAIL("epoll: %s", strerror(errno));
			_exit(1);
		}
		if (me % 5 == 1 && epoll_ctl(set, EPOLL_CTL_ADD, nothing[0], &event) != 0)
			FAIL("epoll_ctl: %s", strerror(errno));
	}
	/* Levels alone, a set with other things in it, edges, poll, poll of two. */
	int ready;
	if (me % 5 < 3)
		ready = epoll_wait(set, &event, 1, -1);
	else {
		if (me % 5 == 4)
			fds[1].fd = set;
		ready = poll(fds, 2, -1);
	}
	if (ready < 0 && errno != EINTR) {
		FAIL("while polling: %s", strerror(errno));
		_exit(1);
	}
}

static void produce(int me)
{
	char *buffer = malloc((size_t)length);
	for (;;) {
		uint32_t number = atomic_load(&shared->worker[me].intent) + 1;
		if (number >= MESSAGES || atomic_load(&shared->stop))
			_exit(0);
		fill(buffer, (uint32_t)me, number);
		atomic_store(&shared->worker[me].intent, number);
		while (mq_send(queue, buffer, (size_t)length, number % PRIORITIES) != 0)
			if (polling && errno == EAGAIN)
				await(me, 1);
			else if (errno != EINTR) {
				FAIL("mq_send: %s", strerror(errno));
				_exit(1);
			}
		atomic_store(&shared->worker[me].done, number);
	}
}

static void take(int me, const char *buffer, ssize_t got, unsigned priority, int in_order)
{
	static char *expected;
	struct message m;
	if (expected == NULL)
		expected = malloc((size_t)length);
	memcpy(&m, buffer, sizeof m);
	if (got != length || m.producer >= WORKERS || m.number >= MESSAGES) {
		FAIL("a message of %zd bytes from producer %u, number %u", got, m.producer, m.number);
		return;
	}
	fill(expected, m.producer, m.number);
	if (memcmp(buffer, expected, (size_t)length) != 0 || priority != m.priority)
		FAIL("message %u of producer %u is torn", m.number, m.producer);
	if (atomic_fetch_add(&shared->count[m.producer][m.number], 1) != 0)
		FAIL("message %u of producer %u came twice", m.number, m.producer);
	if (in_order) {
		uint32_t *seen = &shared->worker[me].seen[m.producer][priority];
		if (m.number < *seen)
			FAIL("consumer %d: message %u of producer %u, priority %u, came after %u", me, m.number, m.producer,
			     priority, *seen - 1);
		*seen = m.number + 1;
	}
	atomic_fetch_add(&shared->received, 1);
}

static void consume(int me, int in_order)
{
	char *buffer = malloc((size_t)msgsize);
	unsigned priority;
	memset(shared->worker[me].seen, 0, sizeof shared->worker[me].seen);
	for (;;) {
		atomic_store(&shared->worker[me].in_receive, 1);
		ssize_t got = mq_receive(queue, buffer, (size_t)msgsize, &priority);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0 && polling && errno == EAGAIN) {
			/* Nothing is in its hands while it waits. */
			atomic_store(&shared->worker[me].in_receive, 0);
			await(me, 0);
			continue;
		}
		if (got < 0) {
			FAIL("mq_receive: %s", strerror(errno));
			_exit(1);
		}
		take(me, buffer, got, priority, in_order);
		atomic_store(&shared->worker[me].in_receive, 0);
	}
}

static void start(int who, int in_order)
{
	pids[who] = fork();
	if (pids[who] == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		signal(SIGUSR1, on_signal);
		if (who < producers)
			produce(who);
		consume(who, in_order);
	}
	if (pids[who] < 0) {
		perror("fork");
		exit(2);
	}
}

static int lost_by_deaths;

/* Kills a worker, and notes what it may have had in hand. */
static void end(int who)
{
	kill(pids[who], SIGKILL);
	while (waitpid(pids[who], NULL, 0) < 0 && errno == EINTR)
		;
	if (who < producers) {
		unsigned intent = atomic_load(&shared->worker[who].intent);
		if (intent != atomic_load(&shared->worker[who].done)) {
			shared->doubtful[who][intent] = 1;
			atomic_store(&shared->worker[who].done, intent);
		}
	} else if (atomic_exchange(&shared->worker[who].in_receive, 0))
		lost_by_deaths++;
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint64_t seed = 88172645463325252u;
static unsigned below(unsigned n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (unsigned)((seed >> 20) % n);
}

static void drain(void)
{
	char *buffer = malloc((size_t)msgsize);
	unsigned priority;
	struct timespec soon;
	for (;;) {
		clock_gettime(CLOCK_REALTIME, &soon);
		soon.tv_nsec += 100000000;
		if (soon.tv_nsec >= 1000000000)
			soon.tv_sec++, soon.tv_nsec -= 1000000000;
		ssize_t got = mq_timedreceive(queue, buffer, (size_t)msgsize, &priority, &soon);
		if (got < 0 && errno == ETIMEDOUT)
			break;
		if (got < 0) {
			FAIL("draining: %s", strerror(errno));
			break;
		}
		take(0, buffer, got, priority, 0);
	}
	free(buffer);
}

int main(int argc, char **argv)
{
	double seconds = 20;
	int kills = 1 << 30, stops = 0, done = 0, c;
	while ((c = getopt(argc, argv, "t:k:p:c:m:z:l:siew:r:")) != -1)
		switch (c) {
		case 't': seconds = atof(optarg); break;
		case 'k': kills = atoi(optarg); break;
		case 'p': producers = atoi(optarg); break;
		case 'c': consumers = atoi(optarg); break;
		case 'm': maxmsg = atol(optarg); break;
		case 'z': msgsize = atol(optarg); break;
		case 'l': length = atol(optarg); break;
		case 's': stops = 1; break;
		case 'i': interrupt = 1; break;
		case 'e': polling = 1; break;
		case 'w': stuck = atof(optarg); break;
		case 'r': seed ^= (uint64_t)atol(optarg) * 0x9e3779b97f4a7c15u; break;
		default: return 2;
		}
	if (producers + consumers > WORKERS || length < (long)sizeof(struct message) || length > msgsize)
		return 2;
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	snprintf(name, sizeof name, "/crash-torture-%d", (int)getpid());
	struct mq_attr attr = {.mq_maxmsg = maxmsg, .mq_msgsize = msgsize};
	queue = mq_open(name, O_CREAT | O_EXCL | O_RDWR, 0600, &attr);
	mqd_t blocking = mq_open(name, O_RDWR);
	if (queue < 0 || blocking < 0) {
		perror("mq_open");
		return 2;
	}
	if (polling && fcntl(queue, F_SETFL, O_NONBLOCK) != 0) {
		perror("fcntl");
		return 2;
	}
	/* A stopped consumer may give back what others have overtaken by then. */
	int in_order = !stops;
	for (int i = 0; i < producers + consumers; i++)
		start(i, in_order);
	double begin = now(), moved = begin;
	unsigned last = 0;
	int stopped = -1;
	while (now() < begin + seconds && done < kills && !atomic_load(&shared->failed)) {
		usleep(below(4000));
		int who = (int)below((unsigned)(producers + consumers));
		if (interrupt && below(2))
			kill(pids[who], SIGUSR1);
		else if (stops && below(2)) {
			if (stopped >= 0)
				kill(pids[stopped], SIGCONT);
			stopped = who;
			kill(pids[who], SIGSTOP);
		} else {
			end(who);
			done++;
			if (who == stopped)
				stopped = -1;
			start(who, in_order);
		}
		unsigned received = atomic_load(&shared->received);
		if (received != last) {
			last = received;
			moved = now();
		} else if (now() > moved + stuck) {
			mq_getattr(queue, &attr);
			FAIL("nothing has moved for %g s; the queue has %ld messages", stuck, attr.mq_curmsgs);
		}
	}
	if (stopped >= 0)
		kill(pids[stopped], SIGCONT);
	atomic_store(&shared->stop, 1);
	/* The parent waits in the queue itself. */
	mqd_t theirs = queue;
	queue = blocking;
	for (int i = producers; i < producers + consumers; i++)
		end(i);
	/* Producers come to their end when there is room. */
	double until = now() + 10;
	for (int i = 0; i < producers; i++)
		for (;;) {
			drain();
			if (waitpid(pids[i], NULL, WNOHANG) == pids[i])
				break;
			if (now() > until) {
				FAIL("producer %d does not end", i);
				end(i);
				break;
			}
		}
	drain();
	long lost = 0, sent = 0;
	for (int p = 0; p < producers; p++) {
		unsigned to = atomic_load(&shared->worker[p].done);
		for (unsigned n = 1; n <= to; n++) {
			int count = atomic_load(&shared->count[p][n]);
			sent++;
			if (count == 0 && !shared->doubtful[p][n])
				lost++;
		}
	}
	if (lost > lost_by_deaths)
		FAIL("%ld messages are lost, %d consumers died inside mq_receive", lost, lost_by_deaths);
	/* Room for maxmsg, no more. */
	char *buffer = calloc(1, (size_t)msgsize);
	mqd_t again = mq_open(name, O_RDWR | O_NONBLOCK);
	for (long i = 0; i < maxmsg; i++)
		if (mq_send(again, buffer, (size_t)msgsize, 0) != 0)
			FAIL("in the end, message %ld of %ld: %s", i, maxmsg, strerror(errno));
	if (mq_send(again, buffer, (size_t)msgsize, 0) == 0 || errno != EAGAIN)
		FAIL("in the end: more than %ld messages", maxmsg);
	mq_close(again);
	mq_close(queue);
	mq_close(theirs);
	mq_unlink(name);
	printf("%d kills, %ld messages sent, %u received, %ld lost with %d consumers killed inside mq_receive\n", done, sent,
	       atomic_load(&shared->received), lost, lost_by_deaths);
	return atomic_load(&shared->failed) ? 1 : 0;
}
