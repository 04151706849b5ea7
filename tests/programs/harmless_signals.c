/*
 * harmless_signals: sets, reads back and takes signals in every way that libc has, and prints what
 * it sees. Uses no queue.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

static volatile sig_atomic_t seen, code, value, nested;
static void *volatile address;
static sigjmp_buf jump;
static char *page;

static void simple(int s)
{
	seen = s;
}

static void informed(int s, siginfo_t *i, void *context)
{
	seen = s;
	code = i->si_code;
	value = i->si_value.sival_int;
	address = i->si_addr;
	(void)context;
}

static void mends(int s, siginfo_t *i, void *context)
{
	ucontext_t *u = context;

	informed(s, i, u);
	/* The mask while the handler runs, and the one that will be restored. */
	sigset_t now;
	sigprocmask(SIG_BLOCK, NULL, &now);
	nested = sigismember(&now, s) << 1 | sigismember(&u->uc_sigmask, SIGUSR2);
	mprotect(page, 4096, PROT_READ | PROT_WRITE);
}

static void leaps(int s)
{
	seen = s;
	siglongjmp(jump, 7);
}

static void on_stack(int s)
{
	stack_t st;

	seen = s;
	sigaltstack(NULL, &st);
	nested = st.ss_flags == SS_ONSTACK;
}

static void show(const char *what, int s)
{
	struct sigaction a;

	memset(&a, 0, sizeof a);
	int r = sigaction(s, NULL, &a);
	/* SA_RESTORER is the C library's own. */
	printf("%s: %d %s flags %x usr1 %d usr2 %d\n", what, r,
	       a.sa_handler == SIG_DFL ? "default" :
	       a.sa_handler == SIG_IGN ? "ignored" :
	       a.sa_handler == simple ? "simple" :
	       a.sa_sigaction == informed ? "informed" :
	       a.sa_sigaction == mends ? "mends" :
	       a.sa_handler == leaps ? "leaps" :
	       a.sa_handler == on_stack ? "on_stack" : "something else",
	       a.sa_flags & ~0x04000000, sigismember(&a.sa_mask, SIGUSR1), sigismember(&a.sa_mask, SIGUSR2));
}

static void set(int s, void (*handler)(int), int flags)
{
	struct sigaction a = {.sa_handler = handler, .sa_flags = flags};

	sigaddset(&a.sa_mask, SIGUSR2);
	if (sigaction(s, &a, NULL))
		printf("sigaction %d: %s\n", s, strerrorname_np(errno));
}

static void *thread(void *arg)
{
	pthread_kill(pthread_self(), SIGUSR1);
	printf("thread saw %d\n", seen == SIGUSR1);
	return arg;
}

int main(void)
{
	setvbuf(stdout, NULL, _IONBF, 0);
	for (int s = 1; s <= SIGRTMAX; s++)
		show("at first", s);

	set(SIGUSR1, simple, 0);
	show("simple", SIGUSR1);
	raise(SIGUSR1);
	printf("saw %d\n", seen);

	set(SIGUSR1, (void (*)(int))informed, SA_SIGINFO | SA_RESTART | SA_NODEFER);
	show("informed", SIGUSR1);
	sigqueue(getpid(), SIGUSR1, (union sigval){.sival_int = 42});
	printf("saw %d code %d value %d\n", seen, code, value);

	set(SIGUSR1, simple, SA_RESETHAND);
	raise(SIGUSR1);
	show("after SA_RESETHAND", SIGUSR1);

	void (*old)(int) = signal(SIGUSR1, SIG_IGN);
	printf("signal: %d\n", old == SIG_DFL);
	old = signal(SIGUSR1, simple);
	printf("signal: %d\n", old == SIG_IGN);
	show("signal", SIGUSR1);
	old = sysv_signal(SIGUSR1, simple);
	printf("sysv_signal: %d\n", old == simple);
	show("sysv_signal", SIGUSR1);
	set(SIGUSR1, simple, 0);
	printf("siginterrupt: %d\n", siginterrupt(SIGUSR1, 0));
	show("siginterrupt", SIGUSR1);

	/* SIGSEGV and SIGBUS are the program's own. */
	page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	set(SIGSEGV, (void (*)(int))mends, SA_SIGINFO);
	show("mends", SIGSEGV);
	page[5] = 1;
	printf("saw %d code %d at %d nested %d\n", seen, code, (int)((char *)address - page), nested);
	set(SIGBUS, leaps, 0);
	if (sigsetjmp(jump, 1) == 0) {
		raise(SIGBUS);
		printf("not reached\n");
	}
	printf("leapt, saw %d\n", seen);

	stack_t st = {.ss_sp = malloc(1 << 16), .ss_size = 1 << 16};
	sigaltstack(&st, NULL);
	set(SIGUSR1, on_stack, SA_ONSTACK);
	raise(SIGUSR1);
	printf("on stack %d\n", nested);

	/* Interrupted, and restarted. */
	struct timespec t = {.tv_nsec = 20000000};
	timer_t timer;
	struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
	timer_create(CLOCK_MONOTONIC, &ev, &timer);
	struct itimerspec it = {.it_value = t};
	int p[2];
	char c;
	if (pipe(p))
		return 1;
	set(SIGUSR1, simple, 0);
	seen = 0;
	timer_settime(timer, 0, &it, NULL);
	int r = read(p[0], &c, 1);
	printf("read: %d %s, saw %d\n", r, strerrorname_np(errno), seen);

	/* By other means: sigwait, signalfd, a child's exit. */
	sigset_t m;
	sigemptyset(&m);
	sigaddset(&m, SIGUSR2);
	sigprocmask(SIG_BLOCK, &m, NULL);
	kill(getpid(), SIGUSR2);
	int got = 0;
	printf("sigwait: %d", sigwait(&m, &got));
	printf(" %d\n", got);
	int sfd = signalfd(-1, &m, 0);
	struct signalfd_siginfo si;
	kill(getpid(), SIGUSR2);
	printf("signalfd: %zd\n", read(sfd, &si, sizeof si));
	set(SIGCHLD, simple, SA_RESTART);
	pid_t child = fork();
	if (child == 0) {
		show("in the child", SIGSEGV);
		signal(SIGSEGV, SIG_DFL);
		*(volatile char *)16 = 0;
		_exit(0);
	}
	int status;
	waitpid(child, &status, 0);
	printf("child: signal %d, saw %d\n", WTERMSIG(status), seen == SIGCHLD);

	pthread_t th;
	seen = 0;
	pthread_create(&th, NULL, thread, NULL);
	pthread_join(th, NULL);

	errno = 0;
	struct sigaction a = {.sa_handler = simple};
	r = sigaction(SIGKILL, &a, NULL);
	printf("SIGKILL: %d %s\n", r, strerrorname_np(errno));
	r = sigaction(65, &a, NULL);
	printf("65: %d %s\n", r, strerrorname_np(errno));
	r = sigaction(32, &a, NULL);
	printf("32: %d %s\n", r, strerrorname_np(errno));
	for (int s = 1; s <= SIGRTMAX; s++)
		show("at last", s);
	/* Dies of a signal that it has never touched. */
	abort();
}
