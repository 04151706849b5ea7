/*
 * crash_cases CASE: what else may happen to a thread inside a queue call. Exit status 0 if all is well; then it says how
 * often, a tab, and what it came to.
 * Each case works on the kernel's queues as well.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <mqueue.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHECK(what)                                                                                            \
	do {                                                                                                   \
		if (!(what)) {                                                                                 \
			fprintf(stderr, "line %d: %s: %s\n", __LINE__, #what, strerror(errno));                \
			_exit(1);                                                                              \
		}                                                                                              \
	} while (0)

static char name[64];
static mqd_t queue;

static void open_queue(long maxmsg, long msgsize)
{
	struct mq_attr attr = {.mq_maxmsg = maxmsg, .mq_msgsize = msgsize};
	snprintf(name, sizeof name, "/crash-cases-%d", (int)getpid());
	queue = mq_open(name, O_CREAT | O_EXCL | O_RDWR, 0600, &attr);
	CHECK(queue >= 0);
}

static struct timespec in(long ms)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	t.tv_nsec += ms % 1000 * 1000000;
	t.tv_sec += ms / 1000 + t.tv_nsec / 1000000000;
	t.tv_nsec %= 1000000000;
	return t;
}

static long messages(void)
{
	struct mq_attr attr;
	CHECK(mq_getattr(queue, &attr) == 0);
	return attr.mq_curmsgs;
}

static void timer(long us)
{
	struct itimerval t = {{0, us}, {0, us}};
	CHECK(setitimer(ITIMER_REAL, &t, NULL) == 0);
}

static void handle(int sig, void (*handler)(int), int flags)
{
	struct sigaction sa = {.sa_handler = handler, .sa_flags = flags};
	CHECK(sigaction(sig, &sa, NULL) == 0);
}

/* ---- a handler that jumps out of a blocked call ---- */

static sigjmp_buf back;
static void jump(int sig) { (void)sig; siglongjmp(back, 1); }
static void nothing(int sig) { (void)sig; }

/* Runs with a frame of its own, so that what the call leaves on the stack is overwritten. */
static __attribute__((noinline)) void scribble(void)
{
	volatile char trash[16384];
	memset((char *)trash, 0xa5, sizeof trash);
}

static void jump_out(void)
{
	char buffer[64];
	open_queue(2, 64);
	for (volatile int i = 0; i < 200; i++) {
		handle(SIGALRM, jump, 0);
		if (sigsetjmp(back, 1) == 0) {
			timer(1000);
			mq_receive(queue, buffer, sizeof buffer, NULL);
			CHECK(!"received something");
		}
		timer(0);
		scribble();
		/* Further handlers, inside and outside of calls. */
		handle(SIGUSR1, nothing, SA_RESTART);
		raise(SIGUSR1);
		scribble();
		/* Nobody waits any more: what is sent is there for others. */
		CHECK(mq_send(queue, "a", 1, 0) == 0);
		raise(SIGUSR1);
		CHECK(messages() == 1);
		CHECK(mq_receive(queue, buffer, sizeof buffer, NULL) == 1);
		struct timespec soon = in(1);
		CHECK(mq_timedreceive(queue, buffer, sizeof buffer, NULL, &soon) == -1 && errno == ETIMEDOUT);
		raise(SIGUSR1);
	}
	/* The same for senders. */
	CHECK(mq_send(queue, "a", 1, 0) == 0 && mq_send(queue, "b", 1, 0) == 0);
	for (volatile int i = 0; i < 200; i++) {
		if (sigsetjmp(back, 1) == 0) {
			timer(1000);
			mq_send(queue, "c", 1, 0);
			CHECK(!"sent");
		}
		timer(0);
		scribble();
		raise(SIGUSR1);
		CHECK(messages() == 2);
		CHECK(mq_receive(queue, buffer, sizeof buffer, NULL) == 1 && buffer[0] != 'c');
		CHECK(messages() == 1);
		CHECK(mq_send(queue, "a", 1, 0) == 0);
	}
	/* A child, whose thread was never blocked here. */
	pid_t pid = fork();
	if (pid == 0) {
		raise(SIGUSR1);
		CHECK(mq_receive(queue, buffer, sizeof buffer, NULL) == 1);
		_exit(0);
	}
	int status;
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	CHECK(mq_unlink(name) == 0 && mq_close(queue) == 0);
	puts("400 jumps\tnobody waits any more; the queue works");
}

/* More often than there are records of waiters (8,192), or slots for their messages, in one thread that lives. */
static void jump_often(void)
{
	char buffer[64];
	struct timespec soon;
	open_queue(2, 64);
	handle(SIGALRM, jump, 0);
	for (volatile int sending = 0; sending < 2; sending++) {
		for (volatile int i = 0; i < 9000; i++) {
			if (sigsetjmp(back, 1) == 0) {
				struct itimerval once = {{0, 0}, {0, 60}};
				CHECK(setitimer(ITIMER_REAL, &once, NULL) == 0);
				if (sending)
					mq_send(queue, "c", 1, 0);
				else
					mq_receive(queue, buffer, sizeof buffer, NULL);
				CHECK(!"returned");
			}
		}
		soon = in(1);
		if (sending) {
			CHECK(messages() == 2);
			CHECK(mq_timedsend(queue, "c", 1, 0, &soon) == -1 && errno == ETIMEDOUT);
		} else {
			CHECK(messages() == 0);
			CHECK(mq_timedreceive(queue, buffer, sizeof buffer, NULL, &soon) == -1 && errno == ETIMEDOUT);
			CHECK(mq_send(queue, "a", 1, 0) == 0 && mq_send(queue, "b", 1, 0) == 0);
		}
	}
	/* None of those that were given up is there. */
	CHECK(mq_receive(queue, buffer, sizeof buffer, NULL) == 1 && buffer[0] == 'a');
	CHECK(mq_receive(queue, buffer, sizeof buffer, NULL) == 1 && buffer[0] == 'b');
	CHECK(messages() == 0);
	CHECK(mq_unlink(name) == 0 && mq_close(queue) == 0);
	puts("18000 jumps\tthere is room for waiters, and none of the messages that were given up");
}

/* ---- handlers that use the queue they have interrupted ---- */

static atomic_long balance, handled;
static void use_queue(int sig)
{
	char buffer[64];
	int saved = errno;
	struct timespec past = {0, 0};
	static unsigned n;
	(void)sig;
	handled++;
	if (n++ % 2) {
		if (mq_timedsend(queue, "h", 1, n % 3, &past) == 0)
			balance++;
		else
			CHECK(errno == ETIMEDOUT);
	} else {
		if (mq_timedreceive(queue, buffer, sizeof buffer, NULL, &past) >= 0)
			balance--;
		else
			CHECK(errno == ETIMEDOUT);
	}
	errno = saved;
}

static void handlers(void)
{
	char buffer[64];
	open_queue(4, 64);
	handle(SIGALRM, use_queue, SA_RESTART);
	timer(150);
	struct timespec end = in(1500), now;
	unsigned i = 0;
	do {
		struct timespec soon = in(2);
		if (i++ / 7 % 2) {
			if (mq_timedsend(queue, "m", 1, i % 3, &soon) == 0)
				balance++;
			else
				CHECK(errno == ETIMEDOUT);
		} else {
			if (mq_timedreceive(queue, buffer, sizeof buffer, NULL, &soon) >= 0)
				balance--;
			else
				CHECK(errno == ETIMEDOUT);
		}
		clock_gettime(CLOCK_REALTIME, &now);
	} while (now.tv_sec < end.tv_sec || (now.tv_sec == end.tv_sec && now.tv_nsec < end.tv_nsec));
	timer(0);
	CHECK(messages() == balance);
	CHECK(mq_unlink(name) == 0 && mq_close(queue) == 0);
	printf("%ld signals\tas many messages as there should be\n", (long)handled);
}

/* ---- cancellation at any moment ---- */

static atomic_long sent, received;
static void *receiver(void *arg)
{
	char buffer[8192];
	(void)arg;
	for (;;)
		if (mq_receive(queue, buffer, sizeof buffer, NULL) >= 0)
			received++;
	return NULL;
}

static void *sender(void *arg)
{
	static const char message[5000];
	for (;;)
		if (mq_send(queue, message, (size_t)arg, 0) == 0)
			sent++;
	return NULL;
}

static void cancel(void)
{
	char buffer[8192];
	long threads = 0;
	/* 5000: copied outside the lock. */
	for (size_t length = 16; length <= 5000; length += 4984) {
		open_queue(2, 8192);
		sent = received = 0;
		long cancelled = 0;
		unsigned seed = 1;
		for (int i = 0; i < 300; i++) {
			pthread_t r, s;
			CHECK(pthread_create(&r, NULL, receiver, NULL) == 0);
			CHECK(pthread_create(&s, NULL, sender, (void *)length) == 0);
			usleep((useconds_t)rand_r(&seed) % 500);
			CHECK(pthread_cancel(i % 2 ? r : s) == 0 && pthread_join(i % 2 ? r : s, NULL) == 0);
			usleep((useconds_t)rand_r(&seed) % 100);
			CHECK(pthread_cancel(i % 2 ? s : r) == 0 && pthread_join(i % 2 ? s : r, NULL) == 0);
			cancelled += 2;
		}
		struct timespec soon = in(0);
		while (mq_timedreceive(queue, buffer, sizeof buffer, NULL, &soon) >= 0)
			received++;
		/* One cancelled just after its message was on its way, or before it counted it. */
		long difference = sent - received;
		if (difference > cancelled || difference < -cancelled) {
			fprintf(stderr, "%ld sent, %ld received, %ld cancelled\n", (long)sent, (long)received, cancelled);
			_exit(1);
		}
		/* Nothing is left in the line or in the slots. */
		for (int i = 0; i < 2; i++)
			CHECK(mq_timedsend(queue, buffer, 8192, 0, &soon) == 0);
		CHECK(mq_timedsend(queue, buffer, 8192, 0, &soon) == -1 && errno == ETIMEDOUT);
		CHECK(mq_unlink(name) == 0 && mq_close(queue) == 0);
		threads += cancelled;
	}
	printf("%ld threads\tno place in the line and no room in the queue is lost\n", threads);
}

/* ---- more waiters than there are records, were those of the dead not taken back ---- */

static void killed_waiters(void)
{
	char buffer[64];
	open_queue(2, 64);
	for (int round = 0; round < 2; round++) {
		/* 9,000 receivers, then 5,000 senders, die in line; nobody ever serves them. */
		for (int i = 0; i < (round ? 50 : 90); i++) {
			pid_t pid = fork();
			if (pid == 0) {
				pthread_t t;
				pthread_attr_t small;
				pthread_attr_init(&small);
				pthread_attr_setstacksize(&small, 65536);
				for (int n = 0; n < 100; n++)
					CHECK(pthread_create(&t, &small, round ? sender : receiver, (void *)16) == 0);
				usleep(30000);
				_exit(0);
			}
			CHECK(pid > 0 && waitpid(pid, NULL, 0) == pid);
			if (round == 0)
				CHECK(messages() == 0);
		}
		struct timespec soon = in(20);
		if (round == 0) {
			CHECK(mq_timedreceive(queue, buffer, sizeof buffer, NULL, &soon) == -1 && errno == ETIMEDOUT);
			CHECK(mq_send(queue, "a", 1, 0) == 0 && mq_send(queue, "b", 1, 0) == 0);
		} else {
			CHECK(mq_timedsend(queue, "c", 1, 0, &soon) == -1 && errno == ETIMEDOUT);
			CHECK(mq_receive(queue, buffer, sizeof buffer, NULL) == 1 && buffer[0] == 'a');
			CHECK(mq_receive(queue, buffer, sizeof buffer, NULL) == 1 && buffer[0] == 'b');
			CHECK(messages() == 0);
		}
	}
	CHECK(mq_unlink(name) == 0 && mq_close(queue) == 0);
	puts("14,000 threads\tthe line is empty; the queue works");
}

/* ---- queues come and go in threads, under a storm of signals and forks ---- */

static void *open_and_close(void *arg)
{
	char own[80], buffer[64];
	for (int i = 0; i < 400; i++) {
		struct mq_attr attr = {.mq_maxmsg = 1 + i % 10, .mq_msgsize = 64};
		snprintf(own, sizeof own, "/crash-cases-%d-%ld-%d", (int)getpid(), (long)arg, i % 3);
		mqd_t q;
		while ((q = mq_open(own, O_CREAT | O_RDWR, 0600, &attr)) < 0 && errno == EINTR)
			;
		CHECK(q >= 0);
		CHECK(mq_send(q, "x", 1, 0) == 0);
		CHECK(mq_receive(q, buffer, sizeof buffer, NULL) == 1);
		if (i % 2)
			CHECK(mq_unlink(own) == 0);
		CHECK(mq_close(q) == 0);
	}
	for (int i = 0; i < 3; i++) {
		snprintf(own, sizeof own, "/crash-cases-%d-%ld-%d", (int)getpid(), (long)arg, i);
		mq_unlink(own);
	}
	return NULL;
}

static void storm(void)
{
	pthread_t t[4];
	struct timespec pause = {0, 2000000};
	int children = 0;
	/* Some descriptors more than RLIMIT_MSGQUEUE would allow are never open at a time. */
	handle(SIGALRM, nothing, SA_RESTART);
	timer(100);
	for (long i = 0; i < 4; i++)
		CHECK(pthread_create(&t[i], NULL, open_and_close, (void *)i) == 0);
	for (int i = 0; i < 30; i++) {
		pid_t pid = fork();
		if (pid == 0) {
			open_and_close((void *)9);
			_exit(0);
		}
		if (pid < 0)
			continue;
		int status;
		while (waitpid(pid, &status, 0) != pid)
			CHECK(errno == EINTR);
		CHECK(status == 0);
		children++;
		nanosleep(&pause, NULL);
	}
	for (int i = 0; i < 4; i++)
		CHECK(pthread_join(t[i], NULL) == 0);
	timer(0);
	printf("%d openings\teach works\n", (4 + children) * 400);
}

/* ---- several processes make and unlink the same names: what is charged is right afterwards ---- */

static struct mq_attr of_448_bytes = {.mq_maxmsg = 4, .mq_msgsize = 16};

static void limit(rlim_t bytes)
{
	struct rlimit l;
	CHECK(getrlimit(RLIMIT_MSGQUEUE, &l) == 0);
	l.rlim_cur = bytes < l.rlim_max ? bytes : l.rlim_max;
	CHECK(setrlimit(RLIMIT_MSGQUEUE, &l) == 0);
}

/* Makes queues until the limit is reached, and takes them away unless told to keep them. */
static int room(const char *as, int keep)
{
	char own[80];
	int n = 0;
	for (mqd_t q;; n++) {
		snprintf(own, sizeof own, "%s-%s-%d", name, as, n);
		if ((q = mq_open(own, O_CREAT | O_EXCL | O_RDWR, 0600, &of_448_bytes)) < 0)
			break;
		CHECK(mq_close(q) == 0);
	}
	CHECK(errno == EMFILE);
	for (int i = 0; !keep && i < n; i++) {
		snprintf(own, sizeof own, "%s-%s-%d", name, as, i);
		CHECK(mq_unlink(own) == 0);
	}
	return n;
}

static void make_and_unlink(unsigned seed)
{
	char own[80], buffer[16];
	mqd_t held[4];
	int n = 0;
	for (int i = 0; i < 6000; i++) {
		snprintf(own, sizeof own, "%s-%d", name, rand_r(&seed) % 3);
		int what = rand_r(&seed) % 4, create = what < 2 ? O_CREAT : 0;
		if (what == 3) {
			CHECK(mq_unlink(own) == 0 || errno == ENOENT);
			if (n > 0 && rand_r(&seed) % 2)
				CHECK(mq_close(held[--n]) == 0);
			continue;
		}
		mqd_t q = mq_open(own, create | O_RDWR | O_NONBLOCK, 0600, &of_448_bytes);
		if (q < 0) {
			CHECK(!create && errno == ENOENT);
			continue;
		}
		CHECK(mq_send(q, "x", 1, 0) == 0 || errno == EAGAIN);
		CHECK(what < 2 || mq_receive(q, buffer, sizeof buffer, NULL) == 1 || errno == EAGAIN);
		if (n < 4 && rand_r(&seed) % 2)
			held[n++] = q;
		else
			CHECK(mq_close(q) == 0);
	}
}

/* Names in the directory that everybody may list, while queues are made and taken away: none tells the whole of the
 * number under which a queue's segment lies. */
static int drafts;

static int look_at_name(const char *path, const struct stat *st, int type, struct FTW *where)
{
	(void)st;
	(void)type;
	const char *last = path + where->base;
	if (strncmp(last - 3, "/q/", 3) == 0 && last[0] == 't' && strchr(last, '.')) {
		drafts++;
		CHECK(strspn(last + 1, "0123456789abcdef") == 16);
	}
	return 0;
}

static void no_keys_to_see(void)
{
	open_queue(4, 8);
	for (int maker = 0; maker < 2; maker++) {
		pid_t pid = fork();
		CHECK(pid >= 0);
		if (pid == 0) {
			char mine[64];
			struct mq_attr attr = {.mq_maxmsg = 4, .mq_msgsize = 8};
			snprintf(mine, sizeof mine, "/crash-cases-%d", (int)getpid());
			for (;;) {
				mqd_t q = mq_open(mine, O_CREAT | O_EXCL | O_RDWR, 0600, &attr);
				CHECK(q >= 0);
				CHECK(mq_unlink(mine) == 0);
				CHECK(mq_close(q) == 0);
				if (getppid() == 1)
					_exit(1);
				/* When the parent has seen enough. */
				mqd_t stop = mq_open(name, O_RDONLY);
				if (stop < 0)
					_exit(0);
				mq_close(stop);
			}
		}
	}
	while (drafts < 20)
		nftw(getenv("MQNS_DIR"), look_at_name, 16, FTW_PHYS);
	CHECK(mq_unlink(name) == 0);
	for (int maker = 0; maker < 2; maker++) {
		int status;
		CHECK(wait(&status) > 0);
		CHECK(status == 0);
	}
	printf("%d names seen\tnone tells more than half of a key\n", drafts);
}

/* Makes a queue in a child, and is faster with a queue of the same name. Kills the child when it has made so many system calls
 * from there on; returns whether it came as far. */
static int beaten_and_killed(int after)
{
	pid_t pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		CHECK(ptrace(PTRACE_TRACEME, 0, 0, 0) == 0);
		raise(SIGSTOP);
		_exit(mq_open(name, O_CREAT | O_RDWR, 0600, NULL) < 0);
	}
	int status, beaten = 0;
	CHECK(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status));
	CHECK(ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD) == 0);
	while (!beaten || after-- > 0) {
		CHECK(ptrace(PTRACE_SYSCALL, pid, 0, 0) == 0 && waitpid(pid, &status, 0) == pid);
		if (!WIFSTOPPED(status)) {
			CHECK(beaten && WIFEXITED(status) && WEXITSTATUS(status) == 0);
			return 0;
		}
		struct { char bytes[512]; } info;
		struct __ptrace_syscall_info *call = (void *)&info;
		if (WSTOPSIG(status) == (SIGTRAP | 0x80) && !beaten) {
			CHECK(ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof info, &info) > 0);
			/* Its FIFO is the last thing that it makes before the name. */
			if (call->op == PTRACE_SYSCALL_INFO_ENTRY
			    && (call->entry.nr == SYS_mknodat
#ifdef SYS_mknod
			        || call->entry.nr == SYS_mknod
#endif
			        )) {
				beaten = 1;
				queue = mq_open(name, O_CREAT | O_EXCL | O_RDWR, 0600, NULL);
				CHECK(queue >= 0);
			}
		}
	}
	CHECK(kill(pid, SIGKILL) == 0 && waitpid(pid, &status, 0) == pid);
	return 1;
}

static void beaten(void)
{
	char other[80];
	snprintf(name, sizeof name, "/crash-cases-%d", (int)getpid());
	snprintf(other, sizeof other, "%s-other", name);
	int after = 1;
	for (int more = 1; more; after++) {
		more = beaten_and_killed(after);
		CHECK(mq_unlink(name) == 0 && mq_close(queue) == 0);
		CHECK(after < 1000);
	}
	/* Whoever makes a queue while there are some without a name looks for what others have left. */
	mqd_t nameless = mq_open(other, O_CREAT | O_EXCL | O_RDWR, 0600, NULL);
	CHECK(nameless >= 0 && mq_unlink(other) == 0);
	mqd_t q = mq_open(name, O_CREAT | O_EXCL | O_RDWR, 0600, NULL);
	CHECK(q >= 0 && mq_close(q) == 0 && mq_unlink(name) == 0 && mq_close(nameless) == 0);
	limit(82880);
	q = mq_open(name, O_CREAT | O_EXCL | O_RDWR, 0600, NULL);
	CHECK(q >= 0 && mq_close(q) == 0 && mq_unlink(name) == 0);
	printf("%d kills\tnothing is left, nothing charged\n", after - 2);
}

static void common_names(void)
{
	snprintf(name, sizeof name, "/crash-cases-%d", (int)getpid());
	limit(10 * 448);
	int kept = room("kept", 1);
	CHECK(kept == 10);
	limit(20 * 448);
	CHECK(room("more", 0) == 10);
	limit(RLIM_INFINITY);
	for (unsigned i = 0; i < 4; i++) {
		pid_t pid = fork();
		CHECK(pid >= 0);
		if (pid == 0) {
			make_and_unlink(i + 1);
			_exit(0);
		}
	}
	for (int i = 0, status; i < 4; i++)
		CHECK(wait(&status) > 0 && status == 0);
	char own[80];
	for (int i = 0; i < 3; i++) {
		snprintf(own, sizeof own, "%s-%d", name, i);
		CHECK(mq_unlink(own) == 0 || errno == ENOENT);
	}
	limit(20 * 448);
	CHECK(room("more", 0) == 10);
	for (int i = 0; i < kept; i++) {
		snprintf(own, sizeof own, "%s-kept-%d", name, i);
		CHECK(mq_unlink(own) == 0);
	}
	puts("24,000 calls\teach queue is charged once");
}

int main(int argc, char **argv)
{
	static const struct { const char *name; void (*run)(void); } cases[] = {
		{"jump-out", jump_out}, {"jump-often", jump_often}, {"handlers", handlers}, {"cancel", cancel}, {"killed-waiters", killed_waiters}, {"storm", storm},
		{"common-names", common_names}, {"beaten", beaten}, {"no-keys-to-see", no_keys_to_see},
	};
	for (size_t i = 0; argc > 1 && i < sizeof cases / sizeof *cases; i++)
		if (strcmp(argv[1], cases[i].name) == 0) {
			cases[i].run();
			return 0;
		}
	fprintf(stderr, "usage: crash_cases CASE\n");
	return 2;
}
