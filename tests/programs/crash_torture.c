/* cc-flags: -O1 */
/*
 * crash_torture [-x SHAPE] [-t SECONDS] [-k KILLS] [-q QUEUES] [-p PRODUCERS] [-c CONSUMERS] [-m MAXMSG] [-z MSGSIZE]
 *               [-l LENGTH] [-s] [-i] [-e] [-g] [-w STUCK] [-u UID] [-r SEED]
 *
 * Producers and consumers (so many for each queue), killed at random instants by SIGKILL and started anew; half of
 * them open their queue by its name, the others have the parent's descriptor. -s stops and continues them as well, -i
 * interrupts them with a handler that looks at the same queue; with -e they never block in a queue, but in poll or
 * epoll_wait, each in another way. Shapes (-x):
 *
 *   spaces  IPC namespaces, joined by setns; now and then all processes of one are killed, and it ends
 *   fork    they fork in the middle; the child goes on with the descriptor, whoever of the two is killed
 *   exec    threads blocked in mq_receive and mq_send while another thread of theirs calls exec
 *   close   mq_close, close, dup2 of a descriptor under a call that is blocked in another thread
 *   cancel  pthread_cancel of blocked threads, at random and just after they were woken
 *   woken   kills of those who have just been woken, by the waker
 *   timed   deadlines of up to 300 us, so that many run out just when the call is served
 *   storm   a timer's signals, whose handlers send to and receive from the queue that they interrupt
 *   notify  consumers that do nothing but wait for mq_notify, and are killed while they are registered
 *   names   mq_open, mq_unlink and close of the same three names by all
 *   room    calls that block and end in any way, millions of them, by threads that live; then 8,000 block at a time
 *
 * Ends after so many kills or seconds, whichever comes first. Checks that
 *
 *   nothing that mq_send said was sent is lost, but for what those had in hand who died inside mq_receive: the
 *   message that lies in its buffer, or else one at most for each; with -g nothing by threads that were cancelled, which the kernel
 *   lets take a message with them;
 *   nothing is received twice, torn, that nobody sent, or in a namespace in which it was not sent;
 *   each consumer receives the messages of one producer and one priority in order, but for one message at most for
 *   each stop or cancellation of a consumer (it may give back what others have overtaken);
 *   no queue stands still for more than STUCK seconds (10), and whenever the killing pauses, as it does four times a
 *   second, every single thread gets on within that time, as told by the probe's clock (see probe());
 *   in the end the queue holds mq_maxmsg messages, no more, no less, and of what RLIMIT_MSGQUEUE counts nothing is left.
 *
 * Works on the kernel's queues as well as on ours. Exit status 0 if all is well. The last line of output is for scripts/torture.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* PER: actors of one worker, which are its threads, its forked child, its signal handler. */
enum { WORKERS = 32, PER = 4, CONTROL = WORKERS * PER, ACTORS, QUEUES = 8, NUMBERS = 1 << 26, PRIORITIES = 3, LONGEST = 8192, HALT = 2, ALIVE = 2 };

struct message {
	uint32_t actor, number, priority, where;
};
static const uint32_t anywhere = ~0u;

/* Whoever sends or receives, one at a time. What it was about outlives it here. */
struct actor {
	/* Last number it was about to send, and the last that mq_send said was sent. */
	atomic_uint intent, done;
	atomic_uint receiving;
	/* It is at work, and has completed so many operations, the last of them then: ns by the wall's clock and by the probe's. */
	atomic_uint active, ops;
	atomic_ullong wall, probed;
	/* Last number seen of each actor and priority, plus one; of this incarnation. */
	uint32_t seen[ACTORS][PRIORITIES];
	char out[LONGEST], in[LONGEST];
};

static struct shared {
	struct actor actor[ACTORS];
	struct {
		/* A child that it has forked; whether it has arrived in its namespace; a descriptor kept over exec. */
		atomic_int child, joined, kept;
	} worker[WORKERS];
	struct {
		char name[64];
		/* When the last message came out of it. */
		atomic_ullong wall, probed;
		/* Which namespace its messages are of. */
		atomic_uint where;
	} queue[QUEUES];
	atomic_uint calm, failed, received, doubled, torn, late, may_be_late, gone, blocked, waiting, others;
	/* Longest standstill so far, ns. */
	atomic_ullong longest, longest_probed;
	/* Nanoseconds: see probe(). */
	atomic_ullong clock;
	/* A bit for each message: it came; its sender died in mq_send; its receiver died with it in hand. */
	atomic_ullong got[ACTORS][NUMBERS / 64], doubt[ACTORS][NUMBERS / 64], hand[ACTORS][NUMBERS / 64];
} *shared;

enum shape { PLAIN, SPACES, FORK, EXEC, CLOSE, CANCEL, WOKEN, TIMED, STORM, NOTIFY, NAMES, ROOM };
static const char *const shapes[] = {"plain", "spaces", "fork",  "exec",  "close",  "cancel",
                                     "woken", "timed",  "storm", "notify", "names", "room"};

static enum shape shape;
static int queues = 1, producers = 3, consumers = 3, interrupt, stops, polling, give_back;
static double stuck = 10;
static long maxmsg = 4, msgsize = 64, length = 32;
static mqd_t queue[QUEUES];
static pid_t pids[WORKERS], prober;
static char **arguments;
static int world;
/* The queue that the handlers of a worker are about. */
static mqd_t handlers_queue;
static int handlers_actor;

#define FAIL(...) (fprintf(stderr, __VA_ARGS__), fputc('\n', stderr), atomic_store(&shared->failed, 1))
#define DIE(...) (FAIL(__VA_ARGS__), _exit(1))

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static __thread uint64_t seed = 88172645463325252u;
static unsigned below(unsigned n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (unsigned)((seed >> 20) % n);
}

static struct timespec in_us(unsigned us)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	t.tv_nsec += us % 1000000 * 1000L;
	t.tv_sec += us / 1000000 + t.tv_nsec / 1000000000;
	t.tv_nsec %= 1000000000;
	return t;
}

/* A deadline so long ago that a call does not block. */
static const struct timespec at_once;

static int worker_queue(int w) { return w / (producers + consumers); }
static int sends(int w) { return w % (producers + consumers) < producers; }
static int workers(void) { return queues * (producers + consumers); }

static unsigned long long wall_clock(void) { return (unsigned long long)(now() * 1e9); }

static void longer(atomic_ullong *longest, unsigned long long from, unsigned long long to)
{
	unsigned long long so_far = atomic_load(longest);
	while (to > from && to - from > so_far && !atomic_compare_exchange_weak(longest, &so_far, to - from))
		;
}

/* ---- one operation ---- */

static void fill(char *buffer, uint32_t actor, uint32_t number, uint32_t where)
{
	struct message m = {actor, number, number % PRIORITIES, where};
	memset(buffer, (int)(number * 7 + actor), (size_t)length);
	memcpy(buffer, &m, sizeof m);
}

static int is_whole(const char *buffer)
{
	struct message m;
	char expected[LONGEST];
	memcpy(&m, buffer, sizeof m);
	if (m.actor >= ACTORS || m.number >= NUMBERS)
		return 0;
	fill(expected, m.actor, m.number, m.where);
	return memcmp(buffer, expected, (size_t)length) == 0;
}

static void mark(atomic_ullong *bits, uint32_t number) { atomic_fetch_or(&bits[number / 64], 1ull << number % 64); }

/* It has received nothing so far. `active`: calm() is to wait for it. */
static void begin(int a, unsigned active)
{
	memset(shared->actor[a].seen, 0, sizeof shared->actor[a].seen);
	atomic_store(&shared->actor[a].active, active);
}

/* Whoever this was is dead: notes what it may have had in hand. With `gives_back` it was cancelled, and has lost nothing. */
static void end(int a, int gives_back)
{
	struct actor *it = &shared->actor[a];
	unsigned intent = atomic_load(&it->intent);
	atomic_store(&it->active, 0);
	if (intent != atomic_load(&it->done)) {
		mark(shared->doubt[a], intent);
		atomic_store(&it->done, intent);
	}
	if (atomic_load(&it->receiving)) {
		struct message m;
		memcpy(&m, it->in, sizeof m);
		if (gives_back)
			;
		else if (is_whole(it->in))
			mark(shared->hand[m.actor], m.number);
		else
			atomic_fetch_add(&shared->gone, 1);
		atomic_store(&it->receiving, 0);
	}
}

static void completes(struct actor *it)
{
	atomic_store(&it->wall, wall_clock());
	atomic_store(&it->probed, atomic_load(&shared->clock));
	atomic_fetch_add(&it->ops, 1);
}

static int send_one(int a, mqd_t q, uint32_t where, const struct timespec *deadline)
{
	struct actor *me = &shared->actor[a];
	uint32_t number = atomic_load(&me->done) + 1;
	if (number >= NUMBERS)
		DIE("too many messages");
	fill(me->out, (uint32_t)a, number, where);
	atomic_store(&me->intent, number);
	if ((deadline ? mq_timedsend(q, me->out, (size_t)length, number % PRIORITIES, deadline)
	              : mq_send(q, me->out, (size_t)length, number % PRIORITIES)) != 0) {
		int failed = errno;
		atomic_store(&me->intent, number - 1);
		return failed;
	}
	atomic_store(&me->done, number);
	completes(me);
	return 0;
}

static void take(int a, int q, ssize_t got, unsigned priority)
{
	struct actor *me = &shared->actor[a];
	struct message m;
	memcpy(&m, me->in, sizeof m);
	if (got != length || !is_whole(me->in) || priority != m.priority) {
		atomic_fetch_add(&shared->torn, 1);
		FAIL("a message of %zd bytes and priority %u, from %u, number %u, is torn", got, priority, m.actor, m.number);
		return;
	}
	if (m.where != anywhere && m.where != atomic_load(&shared->queue[q].where))
		FAIL("message %u of %u is from another queue or namespace: %u, not %u", m.number, m.actor, m.where,
		     atomic_load(&shared->queue[q].where));
	if (atomic_fetch_or(&shared->got[m.actor][m.number / 64], 1ull << m.number % 64) >> m.number % 64 & 1) {
		atomic_fetch_add(&shared->doubled, 1);
		FAIL("message %u of %u came twice", m.number, m.actor);
	}
	uint32_t *seen = &me->seen[m.actor][priority];
	if (m.number < *seen && atomic_fetch_add(&shared->late, 1) >= atomic_load(&shared->may_be_late))
		FAIL("%d: message %u of %u, priority %u, came after %u", a, m.number, m.actor, priority, *seen - 1);
	*seen = m.number + 1;
	atomic_fetch_add(&shared->received, 1);
	/* It has moved; who takes a message knows how long it has stood still. */
	unsigned long long wall = wall_clock(), probed = atomic_load(&shared->clock);
	longer(&shared->longest, atomic_exchange(&shared->queue[q].wall, wall), wall);
	longer(&shared->longest_probed, atomic_exchange(&shared->queue[q].probed, probed), probed);
}

static int receive_one(int a, mqd_t d, int q, const struct timespec *deadline)
{
	struct actor *me = &shared->actor[a];
	unsigned priority;
	memset(me->in, 0xff, sizeof(struct message));
	atomic_store(&me->receiving, 1);
	ssize_t got = deadline ? mq_timedreceive(d, me->in, (size_t)msgsize, &priority, deadline)
	                       : mq_receive(d, me->in, (size_t)msgsize, &priority);
	int failed = got < 0 ? errno : 0;
	if (got >= 0)
		take(a, q, got, priority);
	atomic_store(&me->receiving, 0);
	if (got >= 0)
		completes(me);
	return failed;
}

static int operate(int a, int sending, mqd_t d, int q, const struct timespec *deadline)
{
	int failed = sending ? send_one(a, d, atomic_load(&shared->queue[q].where), deadline) : receive_one(a, d, q, deadline);
	if (failed == EINTR || failed == ETIMEDOUT) {
		atomic_fetch_add(&shared->blocked, 1);
		/* Who waits for microseconds at a time may be served by chance only: it gets on if its calls end. */
		if (shape == TIMED || shape == ROOM)
			completes(&shared->actor[a]);
	}
	else if (failed && failed != EAGAIN && !(shape == CLOSE && failed == EBADF))
		DIE("%s: %s", sending ? "mq_send" : "mq_receive", strerror(failed));
	return failed;
}

/* ---- workers ---- */

static void look(void)
{
	struct mq_attr attr;
	if (mq_getattr(handlers_queue, &attr) != 0 || attr.mq_curmsgs < 0 || attr.mq_curmsgs > maxmsg)
		FAIL("in a handler: mq_getattr: %s, %ld messages", strerror(errno), attr.mq_curmsgs);
}

static void on_signal(int sig)
{
	int saved = errno;
	(void)sig;
	look();
	errno = saved;
}

static void on_storm(int sig)
{
	static unsigned n;
	int saved = errno, q = worker_queue(handlers_actor / PER);
	struct timespec soon = in_us(n % 5 * 20);
	(void)sig;
	look();
	operate(handlers_actor + 1 + n % 2, n % 2, handlers_queue, q, n % 3 ? &at_once : &soon);
	n++;
	errno = saved;
}

static void handle(int sig, void (*handler)(int), int flags)
{
	struct sigaction sa = {.sa_handler = handler, .sa_flags = flags};
	sigfillset(&sa.sa_mask);
	sigaction(sig, &sa, NULL);
}

/* Waits for the queue to be ready, in one of several ways. */
static void await(int me, mqd_t q, int sending)
{
	static int set = -1;
	struct epoll_event event = {.events = sending ? EPOLLOUT : EPOLLIN};
	struct pollfd fds[2] = {{.fd = q, .events = sending ? POLLOUT : POLLIN}, {.fd = -1, .events = POLLIN}};
	if (set < 0) {
		static int nothing[2];
		set = epoll_create1(EPOLL_CLOEXEC);
		if (me % 5 == 2)
			event.events |= EPOLLET;
		if (set < 0 || epoll_ctl(set, EPOLL_CTL_ADD, q, &event) != 0 || pipe(nothing) != 0)
			DIE("epoll: %s", strerror(errno));
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
	if (ready < 0 && errno != EINTR)
		DIE("while polling: %s", strerror(errno));
}

static mqd_t open_by_name(int q, int flags)
{
	mqd_t d = mq_open(shared->queue[q].name, O_RDWR | flags);
	if (d < 0)
		DIE("mq_open: %s", strerror(errno));
	return d;
}

static mqd_t open_mine(int w)
{
	int q = worker_queue(w);
	return below(2) ? queue[q] : open_by_name(q, polling ? O_NONBLOCK : 0);
}

static void breathe(unsigned us)
{
	struct timespec t = {0, (long)below(us + 1) * 1000};
	nanosleep(&t, NULL);
}

static void work(int w, int a, mqd_t d) __attribute__((noreturn));

/* Sends a child ahead, by fork or by a bare clone, that goes on with what there is. */
static void send_child(int w, int a, mqd_t d)
{
	/* One is to come: whatever happens to us, there is never a second one for the same actor. */
	atomic_store(&shared->worker[w].child, -1);
	pid_t pid = below(2) ? fork() : (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	if (pid == 0) {
		pid = (pid_t)syscall(SYS_getpid);
		atomic_store(&shared->worker[w].child, pid);
		seed += (uint64_t)pid;
		work(w, a + 1, d);
	}
	if (pid < 0)
		DIE("fork: %s", strerror(errno));
	while (atomic_load(&shared->worker[w].child) == -1)
		sched_yield();
}

/* Plain, timed, woken, storm, fork, spaces. */
static void work(int w, int a, mqd_t d)
{
	int q = worker_queue(w), sending = sends(w);
	begin(a, 1);
	for (unsigned n = 0;; n++) {
		struct timespec soon;
		if (shape == TIMED)
			soon = in_us(below(300));
		int failed = operate(a, sending, d, q, shape == TIMED ? &soon : NULL);
		if (failed == EAGAIN)
			await(w, d, sending);
		if (shape == TIMED && below(3) == 0)
			breathe(300);
		/* The one whose peers are to be woken is slow. */
		if (shape == WOKEN && sending == (q % 2 == 0))
			breathe(400);
		if (shape == FORK && below(64) == 0 && a % PER == 0 && !atomic_load(&shared->calm)
		    && atomic_load(&shared->worker[w].child) == 0)
			send_child(w, a, d);
	}
}

struct thread {
	int w, a, sending, n;
	mqd_t d;
	uint64_t seed;
};

/* One of several threads of a worker: blocks, and is left blocked. */
static void *thread_works(void *arg)
{
	struct thread *me = arg;
	int q = worker_queue(me->w), impatient = 0;
	seed = me->seed;
	begin(me->a, 1);
	for (;;) {
		if (shape == ROOM) {
			struct timespec soon = in_us(below(50) ? below(20) : 2000);
			while (atomic_load(&shared->calm) == HALT)
				breathe(10000);
			operate(me->a, me->sending, me->d, q, &soon);
			continue;
		}
		int failed = operate(me->a, me->sending, me->d, q, NULL);
		if (failed == EAGAIN)
			breathe(100);
		impatient = failed == EAGAIN ? impatient + 1 : 0;
		if (failed == EBADF || impatient > 3) {
			/* On the very same number another one. (Who does not wait in line may find the queue full for ever.) */
			impatient = 0;
			mqd_t fresh = open_by_name(q, 0);
			if (dup3(fresh, me->d, O_CLOEXEC) < 0)
				DIE("dup3: %s", strerror(errno));
			mq_close(fresh);
		}
	}
	return NULL;
}

static void start_thread(pthread_t *t, struct thread *what, int w, int n, int sending, mqd_t d)
{
	pthread_attr_t small;
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 131072);
	*what = (struct thread){.w = w, .a = w * PER + n, .sending = sending, .n = n, .d = d, .seed = seed ^ below(1 << 30)};
	if (pthread_create(t, &small, thread_works, what) != 0)
		DIE("pthread_create: %s", strerror(errno));
	pthread_attr_destroy(&small);
}

static void while_calm(void)
{
	while (atomic_load(&shared->calm))
		breathe(500);
}

static void *exec_again(void *arg)
{
	char number[32], *again[64];
	int n = 0, w = *(int *)arg;
	for (; arguments[n] && n < 60; n++)
		again[n] = arguments[n];
	snprintf(number, sizeof number, "%d:%d", world, w);
	again[n++] = "-X";
	again[n++] = number;
	again[n] = NULL;
	execv("/proc/self/exe", again);
	DIE("exec: %s", strerror(errno));
	return NULL;
}

static void exec_worker(int w, mqd_t d)
{
	pthread_t t[3];
	struct thread what[2];
	start_thread(&t[0], &what[0], w, 1, 1, d);
	start_thread(&t[1], &what[1], w, 2, 0, d);
	breathe(3000);
	while_calm();
	int keep = (int)below(2);
	if (keep)
		fcntl(d, F_SETFD, 0);
	atomic_store(&shared->worker[w].kept, keep ? d : -1);
	atomic_fetch_add(&shared->others, 2);
	if (below(2))
		pthread_create(&t[2], NULL, exec_again, &w);
	else
		exec_again(&w);
	for (;;)
		pause();
}

static void close_worker(int w)
{
	enum { FIRST = 100 };
	pthread_t t[3];
	struct thread what[3];
	mqd_t spare = open_by_name(worker_queue(w), 0), quick = open_by_name(worker_queue(w), O_NONBLOCK);
	int null = open("/dev/null", O_RDWR);
	for (int n = 0; n < 3; n++) {
		dup2(spare, FIRST + n);
		start_thread(&t[n], &what[n], w, n + 1, n != 1, FIRST + n);
	}
	for (;;) {
		breathe(400);
		while_calm();
		int d = FIRST + (int)below(3);
		switch (below(5)) {
		case 0: close(d); break;
		case 1: mq_close(d); break;
		case 2: dup2(spare, d); break;
		case 3: dup2(quick, d); break;
		case 4: dup2(null, d); break;
		}
		atomic_fetch_add(&shared->others, 1);
	}
}

static void cancel_worker(int w, mqd_t d)
{
	pthread_t t[3];
	struct thread what[3];
	int q = worker_queue(w), a = w * PER;
	begin(a, 0);
	for (int n = 0; n < 3; n++)
		start_thread(&t[n], &what[n], w, n + 1, n == 0, d);
	for (;;) {
		breathe(200);
		while_calm();
		int n = (int)below(3), sending = n == 0;
		/* Half of them just after it may have been woken. */
		if (below(2))
			operate(a, !sending, d, q, &at_once);
		for (unsigned i = below(200); i > 0; i--)
			atomic_load(&shared->calm);
		if (!sending)
			atomic_fetch_add(&shared->may_be_late, 1);
		pthread_cancel(t[n]);
		pthread_join(t[n], NULL);
		end(a + n + 1, give_back);
		atomic_fetch_add(&shared->others, 1);
		start_thread(&t[n], &what[n], w, n + 1, sending, d);
	}
}

/* Lives, and has its threads interrupted and cancelled. */
static void room_worker(int w, mqd_t d)
{
	pthread_t t[3];
	struct thread what[3];
	handle(SIGUSR2, on_signal, SA_RESTART);
	handlers_queue = d;
	for (int n = 0; n < 3; n++)
		start_thread(&t[n], &what[n], w, n + 1, n == 0, d);
	for (;;) {
		breathe(100);
		while (atomic_load(&shared->calm) == HALT)
			breathe(10000);
		int n = (int)below(3);
		if (below(8)) {
			pthread_kill(t[n], below(2) ? SIGUSR1 : SIGUSR2);
			continue;
		}
		atomic_fetch_add(&shared->may_be_late, 1);
		pthread_cancel(t[n]);
		pthread_join(t[n], NULL);
		end(w * PER + n + 1, give_back);
		atomic_fetch_add(&shared->others, 1);
		start_thread(&t[n], &what[n], w, n + 1, n == 0, d);
	}
}

static sem_t called;
static void on_notification(union sigval value)
{
	(void)value;
	sem_post(&called);
}

/* Knows of messages by notification alone. */
static void notify_worker(int w)
{
	int a = w * PER, q = worker_queue(w), no_threads = 0;
	mqd_t d = open_by_name(q, O_NONBLOCK);
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGRTMIN);
	sigprocmask(SIG_BLOCK, &set, NULL);
	sem_init(&called, 0, 0);
	/* Each but one waits for its turn. */
	begin(a, 0);
	for (;;) {
		int threads = !no_threads && below(4) == 0;
		struct sigevent by_signal = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN},
		                by_thread = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = on_notification};
		if (mq_notify(d, threads ? &by_thread : &by_signal) != 0) {
			if (threads && errno == ENOSYS)
				no_threads = 1;
			else if (errno != EBUSY)
				DIE("mq_notify: %s", strerror(errno));
			breathe(300);
			continue;
		}
		atomic_fetch_add(&shared->others, 1);
		while (operate(a, 0, d, q, NULL) == 0)
			;
		if (below(16) == 0) {
			if (below(2))
				mq_notify(d, NULL);
			else {
				mq_close(d);
				d = open_by_name(q, O_NONBLOCK);
			}
			/* It may have fired before. */
			struct timespec none = {0, 0};
			while (sigtimedwait(&set, NULL, &none) > 0 || sem_trywait(&called) == 0)
				;
			continue;
		}
		struct timespec long_time = {3600, 0}, until = in_us(3600u * 1000000u);
		while (threads ? sem_timedwait(&called, &until) != 0 && errno == EINTR
		               : sigtimedwait(&set, NULL, &long_time) < 0 && errno == EINTR)
			;
	}
}

/* Makes, uses and unlinks queues of three names. Their messages may vanish with them. */
static void names_worker(int w)
{
	int a = w * PER, n = 0;
	mqd_t held[2];
	struct mq_attr attr = {.mq_maxmsg = maxmsg, .mq_msgsize = msgsize};
	begin(a, 1);
	for (;;) {
		char name[80];
		snprintf(name, sizeof name, "%s-%u", shared->queue[0].name, below(3));
		unsigned what = below(5);
		if (what == 4) {
			if (mq_unlink(name) != 0 && errno != ENOENT)
				DIE("mq_unlink: %s", strerror(errno));
			continue;
		}
		mqd_t d = mq_open(name, (what < 3 ? O_CREAT : 0) | (what == 0 ? O_EXCL : 0) | O_RDWR, 0600, &attr);
		if (d < 0) {
			if (errno != (what == 0 ? EEXIST : what < 3 ? 0 : ENOENT))
				DIE("mq_open, %u: %s", what, strerror(errno));
			completes(&shared->actor[a]);
			continue;
		}
		mark(shared->doubt[a], atomic_load(&shared->actor[a].done) + 1);
		operate(a, 1, d, 0, &at_once);
		/* Another queue has an order of its own. */
		memset(shared->actor[a].seen, 0, sizeof shared->actor[a].seen);
		operate(a, 0, d, 0, &at_once);
		if (n < 2 && below(2))
			held[n++] = d;
		else
			mq_close(d);
		if (n > 0 && below(3) == 0)
			mq_close(held[--n]);
	}
}

/* Into the namespace of a living worker of the same one. */
static void join(int w, pid_t peer)
{
	char path[64];
	int fd;
	snprintf(path, sizeof path, "/proc/%d/ns/ipc", (int)peer);
	fd = below(2) ? open(path, O_RDONLY | O_CLOEXEC) : (int)syscall(SYS_pidfd_open, peer, 0);
	/* It may have been killed by now, which pidfd_open does not tell before setns. */
	if (fd < 0 || setns(fd, CLONE_NEWIPC) != 0) {
		if (errno != ENOENT && errno != ESRCH)
			DIE("joining: %s", strerror(errno));
		_exit(0);
	}
	close(fd);
}

static void run_worker(int w)
{
	mqd_t d;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	seed += (uint64_t)getpid() * 0x9e3779b97f4a7c15u;
	signal(SIGCHLD, SIG_IGN);
	switch (shape) {
	case CLOSE: close_worker(w); break;
	case NAMES: names_worker(w); break;
	case NOTIFY:
		if (!sends(w))
			notify_worker(w);
		break;
	default: break;
	}
	d = open_mine(w);
	handlers_queue = d;
	handlers_actor = w * PER;
	handle(SIGUSR1, on_signal, 0);
	if (shape == STORM) {
		struct itimerval often = {{0, 100 + below(400)}, {0, 100}};
		begin(handlers_actor + 1, 0);
		begin(handlers_actor + 2, 0);
		handle(SIGALRM, on_storm, below(2) ? SA_RESTART : 0);
		setitimer(ITIMER_REAL, &often, NULL);
	}
	if (shape == EXEC)
		exec_worker(w, d);
	if (shape == CANCEL)
		cancel_worker(w, d);
	if (shape == ROOM && w < ALIVE)
		room_worker(w, d);
	work(w, w * PER, d);
}

/* ---- the parent ---- */

/*
 * A process that always has a little to do tells how long the machine has really been at the disposal of processes like the
 * workers: each turn it wants 0.2 ms of CPU time and then sleeps for 8 ms, and for each it moves the clock by what it took,
 * but by 20 ms at most. On a machine that has time this is the wall's clock. On one that is so busy that whoever is
 * runnable has to wait, the turns get rarer, and the clock slow; a standstill of one second on it means that a process
 * that wanted to run has been let run fifty times, and the workers have not.
 */
static void probe(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (double last = now();;) {
		struct timespec used, until;
		clock_gettime(CLOCK_THREAD_CPUTIME_ID, &until);
		until.tv_nsec += 200000;
		do
			clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
		while ((used.tv_sec - until.tv_sec) * 1000000000 + used.tv_nsec - until.tv_nsec < 0);
		double t = now(), took = t - last;
		atomic_fetch_add(&shared->clock, (unsigned long long)((took < 0.02 ? took : 0.02) * 1e9));
		last = t;
		usleep(8000);
	}
}

static int kills, spaces, is_inside;

/* A worker of a namespace that has arrived there, or 0. */
static pid_t has_joined(int q)
{
	int per = producers + consumers, first = q * per;
	for (int i = 0, at = (int)below((unsigned)per); i < per; i++)
		if (atomic_load(&shared->worker[first + (at + i) % per].joined))
			return pids[first + (at + i) % per];
	return 0;
}

static void start(int w)
{
	pid_t peer = shape == SPACES && !is_inside ? has_joined(worker_queue(w)) : 0;
	below(2);
	pids[w] = fork();
	if (pids[w] == 0) {
		if (peer)
			join(w, peer);
		atomic_store(&shared->worker[w].joined, 1);
		run_worker(w);
	}
	if (pids[w] < 0) {
		perror("fork");
		exit(2);
	}
}

static void strike(int w)
{
	kill(pids[w], SIGKILL);
	kills++;
}

static void reap(int w)
{
	while (waitpid(pids[w], NULL, 0) < 0 && errno == EINTR)
		;
	atomic_store(&shared->worker[w].joined, 0);
	for (int n = 0; n < PER; n++)
		if (shape != FORK || n != 1)
			end(w * PER + n, 0);
}

/* Whether there is a child of ours that has not said yet whose it is: that of a worker killed in the middle of fork. */
static int has_unknown_child(void)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
	FILE *list = fopen(path, "re");
	int known = 1;
	for (int pid; list && known && fscanf(list, "%d", &pid) == 1;) {
		known = pid == prober;
		for (int w = 0; w < workers() && !known; w++)
			known = pids[w] == pid || atomic_load(&shared->worker[w].child) == pid;
	}
	if (list)
		fclose(list);
	return !known;
}

/* Kills the child that a worker has forked; the worker itself is dead, or lives on. */
static void reap_child(int w, int is_dead)
{
	pid_t child = atomic_load(&shared->worker[w].child);
	while (child == -1 && is_dead) {
		int unknown = has_unknown_child();
		if ((child = atomic_load(&shared->worker[w].child)) == -1 && !unknown)
			child = 0;
	}
	if (child > 0) {
		kill(child, SIGKILL);
		kills++;
		/* Ours, if its maker is dead, who does not wait for it. */
		while (waitpid(child, NULL, WNOHANG) != child && kill(child, 0) == 0)
			sched_yield();
		end(w * PER + 1, 0);
	}
	if (child >= 0)
		atomic_store(&shared->worker[w].child, 0);
}

static void drain(int q, mqd_t d)
{
	int failed;
	while ((failed = receive_one(CONTROL, d, q, &at_once)) == 0)
		;
	if (failed != ETIMEDOUT && failed != EAGAIN)
		FAIL("draining: %s", strerror(failed));
}

/* Counts what is lost of the messages of some actors since the last time; those of a namespace that is over, or all. */
static long lost, in_hand;
static uint64_t sent;
static uint32_t settled[ACTORS];
static void settle(int from, int to)
{
	for (int a = from; a < to; a++) {
		uint32_t done = atomic_load(&shared->actor[a].done);
		for (uint32_t n = settled[a] + 1; n <= done; n++) {
			unsigned long long bit = 1ull << n % 64;
			if ((shared->got[a][n / 64] | shared->doubt[a][n / 64]) & bit)
				continue;
			if (shared->hand[a][n / 64] & bit)
				in_hand++;
			else
				lost++;
		}
		sent += done - settled[a];
		settled[a] = done;
	}
	if (lost > atomic_load(&shared->gone))
		FAIL("%ld messages are lost, %u died inside mq_receive with nothing in the buffer", lost, atomic_load(&shared->gone));
}

static mqd_t make(int q, int flags)
{
	struct mq_attr attr = {.mq_maxmsg = maxmsg, .mq_msgsize = msgsize};
	atomic_store(&shared->queue[q].where, (unsigned)(q + QUEUES * spaces++));
	atomic_store(&shared->queue[q].wall, wall_clock());
	atomic_store(&shared->queue[q].probed, atomic_load(&shared->clock));
	mqd_t d = mq_open(shared->queue[q].name, O_CREAT | O_EXCL | O_RDWR | flags, 0600, &attr);
	if (d < 0) {
		perror("mq_open");
		exit(2);
	}
	return d;
}

/* A namespace with a queue and workers, in which nobody else is; the parent keeps a descriptor of the queue. */
static void make_space(int q)
{
	int per = producers + consumers, here = open("/proc/self/ns/ipc", O_RDONLY | O_CLOEXEC);
	if (here < 0 || unshare(CLONE_NEWIPC) != 0) {
		perror("unshare");
		exit(2);
	}
	is_inside = 1;
	queue[q] = make(q, 0);
	for (int w = q * per; w < (q + 1) * per; w++)
		start(w);
	if (setns(here, CLONE_NEWIPC) != 0) {
		perror("setns");
		exit(2);
	}
	close(here);
	is_inside = 0;
}

/* Kills all that are in it; its queue lives by our descriptor alone. */
static void end_space(int q)
{
	int per = producers + consumers;
	for (int w = q * per; w < (q + 1) * per; w++)
		strike(w);
	for (int w = q * per; w < (q + 1) * per; w++)
		reap(w);
	drain(q, queue[q]);
	settle(q * per * PER, (q + 1) * per * PER);
	mq_close(queue[q]);
}

/* Who was to join a namespace by way of one who was killed meanwhile has left: another one comes. */
static void replace_leavers(void)
{
	for (int w = 0; w < workers(); w++)
		if (has_joined(worker_queue(w)) && waitpid(pids[w], NULL, WNOHANG) == pids[w])
			start(w);
}

static void stuck_for_too_long(int q, const char *what, int a)
{
	struct mq_attr attr = {0};
	mq_getattr(queue[q], &attr);
	FAIL("%s %d for %g s; queue %d has %ld messages; worker %d is process %d and %s", what, a, stuck, q, attr.mq_curmsgs,
	     a / PER, (int)pids[a / PER], sends(a / PER) ? "sends" : "receives");
	/* For a debugger. */
	if (getenv("TORTURE_HALT"))
		pause();
}

/* Nobody is killed until each has got on. */
static void calm(void)
{
	static unsigned before[ACTORS];
	unsigned long long wall = wall_clock(), probed = atomic_load(&shared->clock);
	atomic_store(&shared->calm, 1);
	for (int a = 0; a < CONTROL; a++)
		before[a] = atomic_load(&shared->actor[a].active) ? atomic_load(&shared->actor[a].ops) : ~0u;
	for (int a = 0; a < CONTROL; a++) {
		struct actor *it = &shared->actor[a];
		if (before[a] == ~0u)
			continue;
		while (atomic_load(&it->ops) == before[a] && atomic_load(&it->active) && !atomic_load(&shared->failed)) {
			usleep(200);
			if (shape == SPACES)
				replace_leavers();
			if ((double)(atomic_load(&shared->clock) - probed) / 1e9 > stuck)
				stuck_for_too_long(worker_queue(a / PER), "nothing is completed by", a);
		}
		/* Of those who have completed more the first one may be long over. */
		if (atomic_load(&it->ops) == before[a] + 1) {
			longer(&shared->longest, wall, atomic_load(&it->wall));
			longer(&shared->longest_probed, probed, atomic_load(&it->probed));
		}
	}
	atomic_store(&shared->calm, 0);
}

/* ---- in the end ---- */

static void *waits(void *arg)
{
	char buffer[LONGEST];
	(void)arg;
	atomic_fetch_add(&shared->waiting, 1);
	if (mq_receive(queue[0], buffer, (size_t)msgsize, NULL) < 0)
		DIE("one of many waiters: %s", strerror(errno));
	return NULL;
}

/* So many can wait at a time (ours: 8,192 records), whatever has been before. */
static void wait_together(int processes, int threads)
{
	char *message = calloc(1, (size_t)msgsize);
	atomic_store(&shared->waiting, 0);
	for (int p = 0; p < processes; p++) {
		pid_t pid = fork();
		if (pid == 0) {
			pthread_t t[1024];
			pthread_attr_t small;
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			pthread_attr_init(&small);
			pthread_attr_setstacksize(&small, 65536);
			for (int i = 0; i < threads; i++)
				if (pthread_create(&t[i], &small, waits, NULL) != 0)
					DIE("a thread that waits: %s", strerror(errno));
			for (int i = 0; i < threads; i++)
				pthread_join(t[i], NULL);
			_exit(0);
		}
	}
	while (atomic_load(&shared->waiting) < (unsigned)(processes * threads) && !atomic_load(&shared->failed))
		usleep(1000);
	/* The last ones are on their way. */
	usleep(100000);
	for (int i = 0; i < processes * threads && !atomic_load(&shared->failed); i++)
		if (mq_send(queue[0], message, (size_t)msgsize, 0) != 0)
			FAIL("to one of many waiters: %s", strerror(errno));
	for (int p = 0; p < processes && !atomic_load(&shared->failed); p++) {
		int status;
		if (wait(&status) < 0 || status != 0)
			FAIL("many waiters: %x", status);
	}
	free(message);
}

/* Under a limit that has room for one queue alone there is room for one. */
static void nothing_is_charged(void)
{
	struct mq_attr of_448_bytes = {.mq_maxmsg = 4, .mq_msgsize = 16};
	struct rlimit was, l;
	char name[80];
	getrlimit(RLIMIT_MSGQUEUE, &was);
	l = was;
	l.rlim_cur = 448;
	setrlimit(RLIMIT_MSGQUEUE, &l);
	snprintf(name, sizeof name, "%s-charge", shared->queue[0].name);
	mqd_t d = mq_open(name, O_CREAT | O_EXCL | O_RDWR, 0600, &of_448_bytes);
	if (d < 0)
		FAIL("something is still charged: %s", strerror(errno));
	else {
		strcat(name, "s");
		if (mq_open(name, O_CREAT | O_EXCL | O_RDWR, 0600, &of_448_bytes) >= 0 || errno != EMFILE)
			FAIL("nothing is charged at all");
		mq_close(d);
		name[strlen(name) - 1] = 0;
		mq_unlink(name);
	}
	setrlimit(RLIMIT_MSGQUEUE, &was);
}

static void read_arguments(int argc, char **argv, double *seconds, int *most, int *uid, const char **again)
{
	int c;
	while ((c = getopt(argc, argv, "x:t:k:q:p:c:m:z:l:siegw:u:r:X:")) != -1)
		switch (c) {
		case 'x':
			while (shape < ROOM && strcmp(shapes[shape], optarg) != 0)
				shape++;
			if (strcmp(shapes[shape], optarg) != 0)
				exit(2);
			break;
		case 't': *seconds = atof(optarg); break;
		case 'k': *most = atoi(optarg); break;
		case 'q': queues = atoi(optarg); break;
		case 'p': producers = atoi(optarg); break;
		case 'c': consumers = atoi(optarg); break;
		case 'm': maxmsg = atol(optarg); break;
		case 'z': msgsize = atol(optarg); break;
		case 'l': length = atol(optarg); break;
		case 's': stops = 1; break;
		case 'i': interrupt = 1; break;
		case 'e': polling = 1; break;
		case 'g': give_back = 1; break;
		case 'w': stuck = atof(optarg); break;
		case 'u': *uid = atoi(optarg); break;
		case 'r': seed ^= (uint64_t)atol(optarg) * 0x9e3779b97f4a7c15u; break;
		case 'X': *again = optarg; break;
		default: exit(2);
		}
	if (queues < 1 || queues > QUEUES || workers() > WORKERS || length < (long)sizeof(struct message) || length > msgsize
	    || msgsize > LONGEST)
		exit(2);
}

static void go_on_after_exec(const char *where)
{
	int w = 0;
	sscanf(where, "%d:%d", &world, &w);
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, world, 0);
	/* The threads are no more. */
	for (int n = 0; n < PER; n++)
		end(w * PER + n, 0);
	int kept = atomic_load(&shared->worker[w].kept);
	struct mq_attr attr;
	if (kept >= 0 && mq_getattr(kept, &attr) != 0)
		DIE("a descriptor kept over exec: %s", strerror(errno));
	queue[worker_queue(w)] = kept >= 0 ? kept : open_by_name(worker_queue(w), 0);
	run_worker(w);
}

int main(int argc, char **argv)
{
	double seconds = 20;
	int most = 1 << 30, uid = -1;
	const char *again = NULL;
	read_arguments(argc, argv, &seconds, &most, &uid, &again);
	arguments = argv;
	if (again)
		go_on_after_exec(again);
	/* A real uid of its own has an account of its own. */
	if (uid >= 0 && setresuid((uid_t)uid, (uid_t)-1, (uid_t)-1) != 0) {
		perror("setresuid");
		return 2;
	}
	world = (int)syscall(SYS_memfd_create, "torture", 0);
	if (world < 0 || ftruncate(world, sizeof *shared) != 0
	    || (shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, world, 0)) == MAP_FAILED) {
		perror("memory");
		return 2;
	}
	/* Until a worker has its handler. */
	signal(SIGUSR1, SIG_IGN);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	prober = fork();
	if (prober == 0)
		probe();
	for (int q = 0; q < queues; q++) {
		snprintf(shared->queue[q].name, sizeof shared->queue[q].name, "/crash-torture-%d-%d", (int)getpid(),
		         shape == SPACES ? 0 : q);
		if (shape == SPACES)
			make_space(q);
		else
			queue[q] = make(q, polling ? O_NONBLOCK : 0);
	}
	for (int w = 0; w < workers() && shape != SPACES; w++)
		start(w);
	double begun = now(), last_calm = begun;
	int stopped = -1;
	begin(CONTROL, 0);
	while (now() < begun + seconds && kills < most && !atomic_load(&shared->failed)) {
		usleep(below(shape == WOKEN ? 500 : 2000));
		if (now() > last_calm + 0.25) {
			if (stopped >= 0)
				kill(pids[stopped], SIGCONT);
			stopped = -1;
			calm();
			last_calm = now();
		}
		for (int q = 0; q < queues; q++)
			if ((double)(atomic_load(&shared->clock) - atomic_load(&shared->queue[q].probed)) / 1e9 > stuck)
				stuck_for_too_long(q, "nothing moves, says", 0);
		int w = (int)below((unsigned)workers());
		if (interrupt && below(2)) {
			kill(pids[w], SIGUSR1);
			continue;
		}
		if (stops && below(2)) {
			if (stopped >= 0)
				kill(pids[stopped], SIGCONT);
			stopped = w;
			atomic_fetch_add(&shared->may_be_late, 1);
			kill(pids[w], SIGSTOP);
			continue;
		}
		if (shape == SPACES)
			replace_leavers();
		if (shape == SPACES && below(30) == 0) {
			end_space(worker_queue(w));
			make_space(worker_queue(w));
			continue;
		}
		if (shape == WOKEN) {
			/* Of those whom our own call may have woken one is killed at once. */
			int q = worker_queue(w), per = producers + consumers;
			operate(CONTROL, q % 2 == 0, queue[q], q, &at_once);
			w = q * per + (q % 2 == 0 ? producers + (int)below((unsigned)consumers) : (int)below((unsigned)producers));
			for (unsigned i = below(300); i > 0; i--)
				atomic_load(&shared->calm);
		}
		int victims[6], n = 0, wanted = shape == WOKEN ? 1 : 1 + (int)below(6);
		for (; n < wanted && n < workers(); n++, w = (w + 1) % workers()) {
			if (shape == ROOM && w < ALIVE)
				break;
			if (shape == FORK && below(4) == 0)
				reap_child(w, 0);
			strike(victims[n] = w);
		}
		for (int i = 0; i < n; i++) {
			reap(victims[i]);
			/* Half of the children go on without their makers, for the next ones to kill. */
			if (shape == FORK && (atomic_load(&shared->worker[victims[i]].child) == -1 || below(2)))
				reap_child(victims[i], 1);
			if (victims[i] == stopped)
				stopped = -1;
		}
		for (int i = 0; i < n; i++)
			if (shape != SPACES || has_joined(worker_queue(victims[i])))
				start(victims[i]);
			else {
				/* Those that were left had not arrived: it is over. */
				int q = worker_queue(victims[i]);
				end_space(q);
				make_space(q);
				while (i + 1 < n && worker_queue(victims[i + 1]) == q)
					i++;
			}
	}
	double took = now() - begun;
	if (stopped >= 0)
		kill(pids[stopped], SIGCONT);
	calm();
	if (shape == ROOM) {
		/* While those live who have made the millions of calls. */
		for (int w = ALIVE; w < workers(); w++)
			strike(w), reap(w);
		atomic_store(&shared->calm, HALT);
		usleep(100000);
		drain(0, queue[0]);
		wait_together(8, 1000);
	}
	for (int w = 0; w < (shape == ROOM ? ALIVE : workers()) && shape != SPACES; w++)
		strike(w), reap(w);
	for (int q = 0; q < queues && shape == SPACES; q++)
		end_space(q);
	for (int w = 0; w < workers(); w++)
		reap_child(w, 1);
	/* The parent waits in the queue itself. */
	for (int q = 0; q < queues && shape != SPACES; q++) {
		mqd_t d = open_by_name(q, 0);
		drain(q, d);
		mq_close(d);
	}
	settle(0, ACTORS);
	/* Room for maxmsg, no more. */
	char *buffer = calloc(1, (size_t)msgsize);
	for (int q = 0; q < queues && shape != SPACES; q++) {
		mqd_t d = open_by_name(q, O_NONBLOCK);
		for (long i = 0; i < maxmsg; i++)
			if (mq_send(d, buffer, (size_t)msgsize, 0) != 0)
				FAIL("in the end, message %ld of %ld: %s", i, maxmsg, strerror(errno));
		if (mq_send(d, buffer, (size_t)msgsize, 0) == 0 || errno != EAGAIN)
			FAIL("in the end: more than %ld messages", maxmsg);
		for (long i = 0; i < maxmsg; i++)
			if (mq_receive(d, buffer, (size_t)msgsize, NULL) != msgsize)
				FAIL("in the end, receiving: %s", strerror(errno));
		mq_close(d);
	}
	kill(prober, SIGKILL);
	waitpid(prober, NULL, 0);
	for (int q = 0; q < queues && shape != SPACES; q++) {
		mq_close(queue[q]);
		mq_unlink(shared->queue[q].name);
	}
	for (unsigned i = 0; i < 3 && shape == NAMES; i++) {
		char name[80];
		snprintf(name, sizeof name, "%s-%u", shared->queue[0].name, i);
		mq_unlink(name);
	}
	if (uid >= 0 || getenv("MQNS_DIR"))
		nothing_is_charged();
	printf("%d kills, %u others in %.1f s; %llu messages sent, %u received; gone with %u who died in mq_receive: %ld, and %ld that "
	       "lay in their buffers; %u late of %u; %u calls ended blocked\n",
	       kills, atomic_load(&shared->others), took, (unsigned long long)sent, atomic_load(&shared->received),
	       atomic_load(&shared->gone), lost, in_hand, atomic_load(&shared->late), atomic_load(&shared->may_be_late),
	       atomic_load(&shared->blocked));
	/* Too many lost were a failure already. */
	long too_many = lost - (long)atomic_load(&shared->gone);
	printf("= %d %u %u %u %.0f %.0f %ld %ld %u %u\n", kills, atomic_load(&shared->others), atomic_load(&shared->received),
	       atomic_load(&shared->blocked), (double)atomic_load(&shared->longest) / 1e6,
	       (double)atomic_load(&shared->longest_probed) / 1e6, lost + in_hand, too_many > 0 ? too_many : 0,
	       atomic_load(&shared->doubled) + atomic_load(&shared->torn), atomic_load(&shared->late));
	return atomic_load(&shared->failed) ? 1 : 0;
}
