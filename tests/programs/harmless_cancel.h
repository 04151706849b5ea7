/*
 * harmless_cancel [queue]: what ends a thread that sleeps in a call of libc passes through a preloaded library's
 * frames, and the thread's clean-up handlers run: pthread_cancel, and pthread_exit in a signal handler. Prints
 * one line for each call and way. In C++ (harmless_cancel_cxx) destructors run as well, and a third way is an
 * exception that a signal handler throws.
 *
 * With "queue", after a queue has been opened, which is among the descriptors that are polled.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#ifdef __cplusplus
#define C extern "C"
#else
#define C extern
#endif
/* What programs call that are built with _FORTIFY_SOURCE. */
C ssize_t __read_chk(int, void *, size_t, size_t);
C int __poll_chk(struct pollfd *, nfds_t, int, size_t);
C int __ppoll_chk(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *, size_t);
C int __open_2(const char *, int);
C int __openat_2(int, const char *, int);

#define MUST(call) do { if ((long)(call) == -1) { perror(#call); exit(1); } } while (0)

static int empty[2], full[2], sockets[2], epoll, locked, queue = -1;
static const char fifo[] = "fifo";
static char byte;
static sigset_t awaited;
static const struct timespec never = {1000000, 0};

static struct pollfd *polled(void)
{
	static struct pollfd p[2];
	p[0].fd = empty[0];
	p[1].fd = queue;
	p[0].events = p[1].events = POLLIN;
	return p;
}
static fd_set *selected(void)
{
	static fd_set set;
	FD_ZERO(&set);
	FD_SET(empty[0], &set);
	if (queue >= 0)
		FD_SET(queue, &set);
	return &set;
}
static struct iovec *vector(void)
{
	static struct iovec v = {&byte, 1};
	return &v;
}
static struct mmsghdr *message(void)
{
	static struct mmsghdr m;
	m.msg_hdr.msg_iov = vector();
	m.msg_hdr.msg_iovlen = 1;
	return &m;
}
static struct flock *whole(void)
{
	static struct flock lock;
	memset(&lock, 0, sizeof lock);
	lock.l_type = F_WRLCK;
	return &lock;
}

static struct epoll_event event;
static int sig;

/* Calls that sleep for ever as things are. */
#define CALLS                                                                                    \
	CALL(read, read(empty[0], &byte, 1))                                                     \
	CALL(read_chk, __read_chk(empty[0], &byte, 1, 1))                                        \
	CALL(readv, readv(empty[0], vector(), 1))                                                \
	CALL(preadv2, preadv2(empty[0], vector(), 1, -1, 0))                                     \
	CALL(write, write(full[1], &byte, 1))                                                    \
	CALL(writev, writev(full[1], vector(), 1))                                               \
	CALL(pwritev2, pwritev2(full[1], vector(), 1, -1, 0))                                    \
	CALL(poll, poll(polled(), 2, -1))                                                        \
	CALL(poll_chk, __poll_chk(polled(), 2, -1, 2 * sizeof(struct pollfd)))                   \
	CALL(ppoll, ppoll(polled(), 2, &never, NULL))                                            \
	CALL(ppoll_chk, __ppoll_chk(polled(), 2, NULL, NULL, 2 * sizeof(struct pollfd)))         \
	CALL(select, select(FD_SETSIZE, selected(), NULL, NULL, NULL))                           \
	CALL(pselect, pselect(FD_SETSIZE, selected(), NULL, NULL, &never, NULL))                 \
	CALL(epoll_wait, epoll_wait(epoll, &event, 1, -1))                                       \
	CALL(epoll_pwait, epoll_pwait(epoll, &event, 1, -1, NULL))                               \
	CALL(recvmsg, recvmsg(sockets[0], &message()->msg_hdr, 0))                               \
	CALL(recvmmsg, recvmmsg(sockets[0], message(), 1, 0, NULL))                              \
	CALL(sigwait, sigwait(&awaited, &sig))                                                   \
	CALL(sigwaitinfo, sigwaitinfo(&awaited, NULL))                                           \
	CALL(sigtimedwait, sigtimedwait(&awaited, NULL, &never))                                 \
	CALL(open, open(fifo, O_RDONLY))                                                         \
	CALL(open_2, __open_2(fifo, O_RDONLY))                                                   \
	CALL(openat, openat(AT_FDCWD, fifo, O_WRONLY))                                           \
	CALL(openat_2, __openat_2(AT_FDCWD, fifo, O_WRONLY))                                     \
	CALL(creat, creat(fifo, 0600))                                                           \
	CALL(fopen, fopen(fifo, "r"))                                                            \
	CALL(fcntl_setlkw, fcntl(locked, F_SETLKW, whole()))                                     \
	CALL(fcntl_ofd_setlkw, fcntl(locked, F_OFD_SETLKW, whole()))                             \
	CALL(lockf, lockf(locked, F_LOCK, 0))

#define CALL(name, expression) static void sleep_in_##name(void) { (void)!(expression); }
CALLS
#undef CALL
#define CALL(name, expression) {#name, sleep_in_##name},
static const struct call {
	const char *name;
	void (*sleep)(void);
} calls[] = {CALLS};

static int handlers, destructors, returned, thrown;
static pid_t sleeper;

static void clean(void *arg)
{
	(void)arg;
	handlers++;
}

#ifdef __cplusplus
struct Scope {
	~Scope() { destructors++; }
};
#define SCOPE Scope scope;
#define CATCH(statement)                                                                         \
	try {                                                                                    \
		statement;                                                                       \
	} catch (int) {                                                                          \
		thrown++;                                                                        \
	}
#else
#define SCOPE
#define CATCH(statement) statement;
#endif

static __attribute__((noinline)) void sleep_with_scope(const struct call *call)
{
	SCOPE
	pthread_cleanup_push(clean, NULL);
	call->sleep();
	__asm__ volatile("" ::: "memory"); /* no tail call */
	pthread_cleanup_pop(0);
}

static void *run(void *arg)
{
	SCOPE
	pthread_cleanup_push(clean, NULL);
	__atomic_store_n(&sleeper, gettid(), __ATOMIC_SEQ_CST);
	CATCH(sleep_with_scope((const struct call *)arg))
	returned++;
	pthread_cleanup_pop(0);
	return NULL;
}

/* Waits until the thread sleeps: in state S for four looks, without having been awake in between. */
static void await_sleep(void)
{
	struct timespec pause = {0, 1000000};
	char path[64], line[256];
	long seen = -1;
	for (int looks = 0, same = 0; same < 4; looks++) {
		pid_t tid = __atomic_load_n(&sleeper, __ATOMIC_SEQ_CST);
		char state = 0;
		long switches = -1;
		if (tid != 0) {
			snprintf(path, sizeof path, "/proc/self/task/%d/status", tid);
			FILE *f = fopen(path, "r");
			while (f != NULL && fgets(line, sizeof line, f))
				if (sscanf(line, "State: %c", &state) != 1)
					sscanf(line, "voluntary_ctxt_switches: %ld", &switches);
			if (f != NULL)
				fclose(f);
		}
		if (looks > 20000) {
			printf("does not sleep: state %c\n", state);
			exit(1);
		}
		same = state == 'S' && switches == seen ? same + 1 : 0;
		seen = switches;
		nanosleep(&pause, NULL);
	}
}

static void exit_thread(int s)
{
	(void)s;
	pthread_exit(PTHREAD_CANCELED);
}

#ifdef __cplusplus
static void throw_number(int s) { throw s; }
#endif

static const struct way {
	const char *name;
	void (*handler)(int); /* NULL: pthread_cancel */
} ways[] = {
	{"cancel", NULL},
	{"exit", exit_thread},
#ifdef __cplusplus
	{"throw", throw_number},
#endif
};

int main(int argc, char **argv)
{
	static char filler[4096];
	struct epoll_event in;

	memset(&in, 0, sizeof in);
	in.events = EPOLLIN;
	sigemptyset(&awaited);
	sigaddset(&awaited, SIGUSR2);
	MUST(sigprocmask(SIG_BLOCK, &awaited, NULL));
	MUST(pipe(empty));
	MUST(pipe2(full, O_NONBLOCK));
	while (write(full[1], filler, sizeof filler) > 0)
		;
	MUST(fcntl(full[1], F_SETFL, O_WRONLY));
	MUST(socketpair(AF_UNIX, SOCK_DGRAM, 0, sockets));
	MUST(mkfifo(fifo, 0600));
	/* A lock of another open file description. */
	int holder = open("lock", O_RDWR | O_CREAT, 0600);
	MUST(fcntl(holder, F_OFD_SETLK, whole()));
	MUST(locked = open("lock", O_RDWR));
	MUST(epoll = epoll_create1(0));
	MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, empty[0], &in));
	if (argc > 1 && strcmp(argv[1], "queue") == 0) {
		char name[64];
		snprintf(name, sizeof name, "/harmless-cancel-%d", getpid());
		MUST(queue = mq_open(name, O_RDWR | O_CREAT | O_EXCL, 0600, NULL));
		MUST(mq_unlink(name));
		MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, queue, &in));
	}

	for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
		if (ways[w].handler != NULL) {
			struct sigaction action;
			memset(&action, 0, sizeof action);
			action.sa_handler = ways[w].handler;
			MUST(sigaction(SIGUSR1, &action, NULL));
		}
		for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
			pthread_t thread;
			void *result;
			handlers = destructors = returned = thrown = 0;
			sleeper = 0;
			if (pthread_create(&thread, NULL, run, (void *)&calls[i]) != 0)
				return 1;
			await_sleep();
			if (ways[w].handler == NULL)
				pthread_cancel(thread);
			else
				pthread_kill(thread, SIGUSR1);
			pthread_join(thread, &result);
			printf("%s %s: %s, handlers %d, destructors %d, thrown %d, returned %d\n", calls[i].name,
			       ways[w].name, result == PTHREAD_CANCELED ? "cancelled" : "not cancelled", handlers,
			       destructors, thrown, returned);
			fflush(stdout);
		}
	}
	return 0;
}
