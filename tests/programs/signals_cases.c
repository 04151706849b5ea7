/*
 * Signal dispositions as a program sees them, before and after its first queue operation.
 *
 * Prints a trace that must be the same natively and under the library. Each case runs in a child
 * of its own, so that it may die: the last line of a case is its wait status. Every case runs
 * twice: queue first ("late": dispositions are set after a queue has been used) and dispositions
 * first ("early": the queue is used in the middle, at the call of use_queue()).
 *
 * usage: signals_cases [case...]
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define CHECK(e) do { if (!(e)) { printf("line %d: %s fails: %s\n", __LINE__, #e, strerror(errno)); } } while (0)

/* Async-signal-safe enough: formats into a local buffer, one write. */
static void say(const char *format, ...)
{
    char line[256];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (write(1, line, n) != n)
        abort();
}

static int late;
static char queue_name[64];

/* A whole life of a queue, among it a bad pointer. */
static void queue_round(void)
{
    struct mq_attr attr = {.mq_maxmsg = 2, .mq_msgsize = 16};
    char text[16];
    unsigned prio = 0;
    mqd_t mqd = mq_open(queue_name, O_CREAT | O_RDWR | O_EXCL, 0600, &attr);
    CHECK(mqd != (mqd_t)-1);
    CHECK(mq_getattr(mqd, &attr) == 0);
    CHECK(mq_send(mqd, "hello", 5, 3) == 0);
    CHECK(mq_receive(mqd, text, sizeof text, &prio) == 5 && prio == 3 && !memcmp(text, "hello", 5));
    errno = 0;
    CHECK(mq_send(mqd, (char *)16, 5, 3) == -1 && errno == EFAULT);
    CHECK(mq_unlink(queue_name) == 0);
    CHECK(mq_close(mqd) == 0);
}

/* In "early" runs the first use of a queue is where this stands. */
static void use_queue(void)
{
    queue_round();
}

static void flags_of(int sig, const char *when)
{
    struct sigaction act;
    memset(&act, 0xff, sizeof act);
    CHECK(sigaction(sig, NULL, &act) == 0);
    /* The restorer flag is libc's business, but must not change either. */
    uint64_t mask;
    memcpy(&mask, &act.sa_mask, 8);
    say("  %s: sig %d %s flags %x mask %llx\n", when, sig,
        act.sa_handler == SIG_DFL ? "default" : act.sa_handler == SIG_IGN ? "ignore" : "handler",
        (unsigned)act.sa_flags, (unsigned long long)mask);
}

static volatile sig_atomic_t count, count2;
static void plain(int sig) { count++; say("  plain %d, errno %d\n", sig, errno); }
static void quiet(int sig) { (void)sig; count++; }
static void quiet2(int sig) { (void)sig; count2++; }
static void with_info(int sig, siginfo_t *info, void *context)
{
    uint64_t mask, now;
    sigset_t set;
    memcpy(&mask, &((ucontext_t *)context)->uc_sigmask, 8);
    pthread_sigmask(SIG_SETMASK, NULL, &set);
    memcpy(&now, &set, 8);
    say("  info %d code %d own %d value %d, interrupted mask %llx, mask %llx\n", sig, info->si_code,
        info->si_pid == getpid(), info->si_code == SI_QUEUE ? info->si_value.sival_int : 0,
        (unsigned long long)mask, (unsigned long long)now);
}

static void set_info(int sig, void (*handler)(int, siginfo_t *, void *), int flags)
{
    struct sigaction act = {.sa_sigaction = handler, .sa_flags = flags | SA_SIGINFO};
    sigemptyset(&act.sa_mask);
    CHECK(sigaction(sig, &act, NULL) == 0);
}

static void set_plain(int sig, void (*handler)(int), int flags)
{
    struct sigaction act = {.sa_handler = handler, .sa_flags = flags};
    sigemptyset(&act.sa_mask);
    CHECK(sigaction(sig, &act, NULL) == 0);
}

/* ------------------------------------------------------------------------------------------ */

static void queries(void)
{
    static const int sigs[] = {SIGUSR1, SIGSEGV, SIGBUS, SIGCHLD, SIGALRM};
    static const int flags[] = {0, SA_RESTART, SA_SIGINFO, SA_RESETHAND, SA_NODEFER | SA_ONSTACK,
        SA_SIGINFO | SA_RESTART | SA_RESETHAND, SA_NOCLDSTOP | SA_NOCLDWAIT, 0x20000000};
    for (unsigned i = 0; i < sizeof sigs / sizeof *sigs; i++)
        flags_of(sigs[i], "at first");
    use_queue();
    for (unsigned i = 0; i < sizeof sigs / sizeof *sigs; i++)
        flags_of(sigs[i], "unset");
    for (unsigned i = 0; i < sizeof sigs / sizeof *sigs; i++)
        for (unsigned f = 0; f < sizeof flags / sizeof *flags; f++)
            for (int h = 0; h < 3; h++) {
                struct sigaction act = {.sa_flags = flags[f]}, old;
                act.sa_handler = h == 0 ? SIG_DFL : h == 1 ? SIG_IGN : quiet;
                sigemptyset(&act.sa_mask);
                sigaddset(&act.sa_mask, SIGHUP + f);
                CHECK(sigaction(sigs[i], &act, &old) == 0);
                say("  old %s %x\n", old.sa_handler == SIG_DFL ? "default" : old.sa_handler == SIG_IGN
                    ? "ignore" : old.sa_handler == quiet ? "quiet" : "?", (unsigned)old.sa_flags);
                flags_of(sigs[i], "set");
                /* act and oact the same object */
                act.sa_handler = quiet2;
                struct sigaction *same = &act;
                CHECK(sigaction(sigs[i], same, &act) == 0);
                say("  same %d\n", h == 0 ? act.sa_handler == SIG_DFL : h == 1 ? act.sa_handler == SIG_IGN
                    : act.sa_handler == quiet);
                CHECK(sigaction(sigs[i], &act, NULL) == 0);
            }
}

static void queries_of_early_handlers(void)
{
    set_plain(SIGUSR1, quiet, SA_RESETHAND | SA_NODEFER);
    set_info(SIGUSR2, with_info, SA_RESTART);
    set_plain(SIGSEGV, quiet, SA_ONSTACK);
    signal(SIGBUS, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGTERM, quiet2);
    use_queue();
    static const int sigs[] = {SIGUSR1, SIGUSR2, SIGSEGV, SIGBUS, SIGPIPE, SIGTERM, SIGINT};
    for (unsigned i = 0; i < sizeof sigs / sizeof *sigs; i++)
        flags_of(sigs[i], "later");
    CHECK(signal(SIGTERM, SIG_DFL) == quiet2);
    CHECK(signal(SIGUSR1, SIG_DFL) == quiet);
    CHECK(signal(SIGSEGV, SIG_DFL) == quiet);
    CHECK(signal(SIGSEGV, SIG_DFL) == SIG_DFL);
    CHECK(signal(SIGBUS, quiet) == SIG_IGN);
    CHECK(signal(SIGBUS, SIG_DFL) == quiet);
}

static void errors(void)
{
    struct sigaction act = {.sa_handler = quiet}, old;
    static const int bad[] = {-1, 0, 32, 33, 65, 1000, INT32_MIN, SIGKILL, SIGSTOP};
    use_queue();
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        int sig = bad[i];
        errno = 0;
        say("  %d:", sig);
        say(" set %d %d", sigaction(sig, &act, NULL), errno), errno = 0;
        say(" get %d %d", sigaction(sig, NULL, &old), errno), errno = 0;
        say(" signal %d %d", signal(sig, quiet) == SIG_ERR, errno), errno = 0;
        say(" sysv %d %d", sysv_signal(sig, quiet) == SIG_ERR, errno), errno = 0;
        say(" ignore %d %d", sigignore(sig), errno), errno = 0;
        say(" set %d %d", sigset(sig, quiet) == SIG_ERR, errno), errno = 0;
        say(" hold %d %d", sigset(sig, SIG_HOLD) == SIG_ERR, errno), errno = 0;
        say(" interrupt %d %d\n", siginterrupt(sig, 1), errno), errno = 0;
    }
    errno = 0;
    say("  SIG_ERR: %d %d", signal(SIGUSR1, SIG_ERR) == SIG_ERR, errno), errno = 0;
    say(" %d %d\n", sysv_signal(SIGUSR1, SIG_ERR) == SIG_ERR, errno);
    errno = 1234;
    CHECK(sigaction(SIGUSR1, &act, &old) == 0 && errno == 1234);
}

static void bad_pointer_set(void)
{
    use_queue();
    say("  sigaction(SIGUSR1, bad, NULL)\n");
    sigaction(SIGUSR1, (struct sigaction *)16, NULL);
    say("  still here\n");
}

static void bad_pointer_old(void)
{
    use_queue();
    say("  sigaction(SIGUSR1, NULL, bad)\n");
    sigaction(SIGUSR1, NULL, (struct sigaction *)16);
    say("  still here\n");
}

static void delivery(void)
{
    set_plain(SIGUSR1, plain, 0);
    set_info(SIGUSR2, with_info, 0);
    errno = 77;
    raise(SIGUSR1);
    raise(SIGUSR2);
    use_queue();
    errno = 77;
    raise(SIGUSR1);
    raise(SIGUSR2);
    CHECK(errno == 77);
    sigqueue(getpid(), SIGUSR2, (union sigval){.sival_int = 42});
    struct sigaction act = {.sa_sigaction = with_info, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigfillset(&act.sa_mask);
    CHECK(sigaction(SIGRTMIN + 3, &act, NULL) == 0);
    sigqueue(getpid(), SIGRTMIN + 3, (union sigval){.sival_int = 43});
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 3);
    sigprocmask(SIG_BLOCK, &set, NULL);
    for (int i = 0; i < 5; i++)
        sigqueue(getpid(), SIGRTMIN + 3, (union sigval){.sival_int = i});
    say("  blocked\n");
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    signal(SIGUSR1, SIG_IGN);
    raise(SIGUSR1);
    say("  ignored\n");
    signal(SIGUSR1, SIG_DFL);
    raise(SIGUSR1);
    say("  not reached\n");
}

static void old_interfaces(void)
{
    use_queue();
    CHECK(signal(SIGUSR1, quiet) == SIG_DFL);
    flags_of(SIGUSR1, "signal");
    CHECK(siginterrupt(SIGUSR1, 1) == 0);
    flags_of(SIGUSR1, "siginterrupt 1");
    CHECK(signal(SIGUSR1, quiet2) == quiet);
    flags_of(SIGUSR1, "signal");
    CHECK(siginterrupt(SIGUSR1, 0) == 0);
    flags_of(SIGUSR1, "siginterrupt 0");
    CHECK(ssignal(SIGUSR1, quiet) == quiet2);
    flags_of(SIGUSR1, "ssignal");
    CHECK(sysv_signal(SIGUSR1, quiet2) == quiet);
    flags_of(SIGUSR1, "sysv_signal");
    raise(SIGUSR1);
    flags_of(SIGUSR1, "sysv_signal raised");
    CHECK(count2 == 1);
    CHECK(sigset(SIGUSR1, quiet) == SIG_DFL);
    flags_of(SIGUSR1, "sigset");
    CHECK(sigset(SIGUSR1, SIG_HOLD) == quiet);
    count = 0;
    raise(SIGUSR1);
    CHECK(count == 0);
    flags_of(SIGUSR1, "sigset hold");
    CHECK(sigset(SIGUSR1, SIG_HOLD) == SIG_HOLD);
    CHECK(sigset(SIGUSR1, quiet2) == SIG_HOLD);
    CHECK(count2 == 2);
    CHECK(sigset(SIGUSR1, SIG_IGN) == quiet2);
    CHECK(sigignore(SIGUSR2) == 0);
    flags_of(SIGUSR2, "sigignore");
    raise(SIGUSR2);
    raise(SIGUSR1);
}

static void siginterrupt_before(void)
{
    CHECK(siginterrupt(SIGUSR1, 1) == 0);
    CHECK(signal(SIGUSR1, quiet) == SIG_DFL);
    use_queue();
    CHECK(signal(SIGUSR1, quiet2) == quiet);
    flags_of(SIGUSR1, "set before");
}

static void resethand(void)
{
    use_queue();
    set_plain(SIGUSR1, plain, SA_RESETHAND);
    set_info(SIGSEGV, with_info, SA_RESETHAND | SA_RESTART);
    set_plain(SIGURG, plain, SA_RESETHAND | SA_RESTART | SA_NODEFER);
    raise(SIGURG);
    flags_of(SIGURG, "after");
    raise(SIGURG);
    raise(SIGSEGV);
    flags_of(SIGSEGV, "after");
    raise(SIGUSR1);
    flags_of(SIGUSR1, "after");
    queue_round();
    raise(SIGSEGV);
    say("  not reached\n");
}

static void resethand_early(void)
{
    set_plain(SIGUSR1, plain, SA_RESETHAND);
    use_queue();
    raise(SIGUSR1);
    flags_of(SIGUSR1, "after");
    raise(SIGUSR1);
    say("  not reached\n");
}

static volatile int depth;
static void nesting(int sig)
{
    int level = ++depth;
    say("  enter %d at %d\n", sig, level);
    if (count++ < 3)
        raise(sig);
    say("  leave %d at %d\n", sig, level);
    depth--;
}

static void nodefer(void)
{
    use_queue();
    set_plain(SIGUSR1, nesting, SA_NODEFER);
    raise(SIGUSR1);
    set_plain(SIGUSR1, nesting, 0);
    count = 0;
    raise(SIGUSR1);
}

static void changing(int sig)
{
    struct sigaction act = {.sa_handler = plain}, old;
    sigemptyset(&act.sa_mask);
    CHECK(sigaction(sig, &act, &old) == 0 && old.sa_handler == changing);
    raise(sig);
    say("  changed\n");
}

static void handler_changes_itself(void)
{
    use_queue();
    set_plain(SIGUSR1, changing, 0);
    raise(SIGUSR1);
    raise(SIGUSR1);
    set_plain(SIGUSR1, changing, SA_NODEFER);
    raise(SIGUSR1);
}

static void mixed(int sig)
{
    say("  enter %d\n", sig);
    if (sig == SIGUSR1) {
        queue_round();
        raise(SIGUSR2);
    }
    say("  leave %d\n", sig);
}

static void nested_masks(void)
{
    struct sigaction act = {.sa_handler = mixed};
    use_queue();
    sigemptyset(&act.sa_mask);
    CHECK(sigaction(SIGUSR2, &act, NULL) == 0);
    CHECK(sigaction(SIGUSR1, &act, NULL) == 0);
    raise(SIGUSR1);
    sigaddset(&act.sa_mask, SIGUSR2);
    CHECK(sigaction(SIGUSR1, &act, NULL) == 0);
    raise(SIGUSR1);
}

static void many_handlers(void)
{
    /* More (handler, flags) pairs than anybody remembers. */
    static const int flags[] = {0, SA_SIGINFO, SA_RESTART, SA_RESTART | SA_SIGINFO, SA_RESETHAND,
        SA_RESETHAND | SA_SIGINFO, SA_RESETHAND | SA_RESTART, SA_RESETHAND | SA_RESTART | SA_SIGINFO};
    void (*const handlers[])(int) = {quiet, quiet2, (void (*)(int))0x1000, (void (*)(int))0x2000};
    use_queue();
    struct sigaction last = {.sa_handler = SIG_DFL}, old;
    for (int round = 0; round < 200; round++) {
        struct sigaction act = {.sa_handler = handlers[round * 7 % 4], .sa_flags = flags[round * 5 % 8]};
        CHECK(sigaction(SIGUSR1, &act, &old) == 0);
        CHECK(old.sa_handler == last.sa_handler);
        CHECK((old.sa_flags & ~0x4000000) == last.sa_flags);
        last = act;
        if (act.sa_handler == quiet) {
            int before = count;
            raise(SIGUSR1);
            CHECK(count == before + 1);
            if (act.sa_flags & SA_RESETHAND)
                last.sa_handler = SIG_DFL;
        }
    }
}

/* ---- faults ------------------------------------------------------------------------------- */

static sigjmp_buf env;
static void *fault_at;
static void jump(int sig, siginfo_t *info, void *context)
{
    (void)context;
    say("  fault %d code %d %s\n", sig, info->si_code, info->si_addr == fault_at ? "there" : "elsewhere");
    siglongjmp(env, 1);
}

static void touch(volatile char *at)
{
    fault_at = (void *)at;
    if (sigsetjmp(env, 1) == 0) {
        *at = 1;
        say("  no fault\n");
    }
}

static void *truncated(void)
{
    int fd = memfd_create("truncated", 0);
    CHECK(ftruncate(fd, 4096) == 0);
    void *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(ftruncate(fd, 0) == 0);
    close(fd);
    return at;
}

static void faults_and_longjmp(void)
{
    set_info(SIGSEGV, jump, 0);
    use_queue();
    for (int i = 0; i < 3; i++) {
        touch((char *)8);
        queue_round();
    }
    set_info(SIGBUS, jump, SA_ONSTACK);
    char *bus = truncated();
    touch(bus);
    touch(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    queue_round();
    signal(SIGSEGV, SIG_DFL);
    touch((char *)8);
}

static void fixing(int sig, siginfo_t *info, void *context)
{
    (void)sig, (void)context;
    say("  mapping the page\n");
    CHECK(mprotect((void *)((uintptr_t)info->si_addr & ~4095ul), 4096, PROT_READ | PROT_WRITE) == 0);
}

static void fault_fixed_by_handler(void)
{
    use_queue();
    set_info(SIGSEGV, fixing, 0);
    volatile char *at = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    at[100] = 7;
    say("  %d\n", at[100]);
}

static void fault_default(void) { use_queue(); *(volatile char *)8 = 1; }
static void bus_default(void) { use_queue(); *(volatile char *)truncated() = 1; }
static void fault_ignored(void) { use_queue(); signal(SIGSEGV, SIG_IGN); *(volatile char *)8 = 1; }
static void fault_ignored_early(void) { signal(SIGSEGV, SIG_IGN); use_queue(); *(volatile char *)8 = 1; }
static void sent_default(void) { use_queue(); kill(getpid(), SIGSEGV); say("  not reached\n"); }
static void sent_bus_default(void) { use_queue(); raise(SIGBUS); say("  not reached\n"); }
static void sent_ignored(void)
{
    signal(SIGSEGV, SIG_IGN);
    use_queue();
    kill(getpid(), SIGSEGV);
    raise(SIGSEGV);
    say("  alive\n");
    queue_round();
    signal(SIGSEGV, SIG_DFL);
    queue_round();
    raise(SIGSEGV);
    say("  not reached\n");
}
static void sent_handled(void)
{
    set_info(SIGSEGV, with_info, 0);
    use_queue();
    kill(getpid(), SIGSEGV);
    sigqueue(getpid(), SIGSEGV, (union sigval){.sival_int = 5});
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGSEGV);
    sigprocmask(SIG_BLOCK, &set, NULL);
    kill(getpid(), SIGSEGV);
    say("  pending\n");
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}
static void fault_blocked(void)
{
    set_info(SIGSEGV, jump, 0);
    use_queue();
    sigset_t set;
    sigfillset(&set);
    sigprocmask(SIG_BLOCK, &set, NULL);
    touch((char *)8);
}
static void crash_again(int sig, siginfo_t *info, void *context)
{
    (void)context, (void)info;
    say("  reporting a crash\n");
    signal(sig, SIG_DFL);
}
static void crash_reporter(void)
{
    set_info(SIGSEGV, crash_again, SA_ONSTACK);
    use_queue();
    *(volatile char *)8 = 1;
}
static void queue_again(int sig, siginfo_t *info, void *context)
{
    (void)context;
    say("  queueing it again\n");
    signal(sig, SIG_DFL);
    syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), sig, info);
    *(char **)(&((ucontext_t *)context)->uc_mcontext.gregs[REG_RAX]) = queue_name;
}
static void crash_reporter_queueing(void)
{
    set_info(SIGSEGV, queue_again, 0);
    use_queue();
    char *at = (char *)8;
    __asm__ volatile("movb $1, (%0)" : "+a"(at) : : "memory");
    say("  not reached\n");
}
static void other_faults(void)
{
    set_info(SIGILL, jump, 0);
    set_info(SIGTRAP, with_info, 0);
    use_queue();
    if (sigsetjmp(env, 1) == 0) {
        fault_at = NULL;
        __asm__ volatile("ud2");
    }
    __asm__ volatile("int3");
    queue_round();
}

static char alternate[65536] __attribute__((aligned(16)));
static void overflowed(int sig, siginfo_t *info, void *context)
{
    (void)info, (void)context;
    char here;
    say("  fault %d on the %s stack\n", sig, &here >= alternate && &here < alternate + sizeof alternate ? "alternate" : "usual");
    siglongjmp(env, 1);
}

static volatile int forever = 1;
static int recurse(int n)
{
    volatile char pad[4096];
    pad[0] = n;
    if (!forever)
        return n;
    return recurse(n + 1) + pad[0];
}

static void stack_overflow(void)
{
    stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate};
    CHECK(sigaltstack(&stack, NULL) == 0);
    set_info(SIGSEGV, overflowed, SA_ONSTACK);
    use_queue();
    for (int i = 0; i < 3; i++)
        if (sigsetjmp(env, 1) == 0)
            recurse(0);
    queue_round();
    set_info(SIGSEGV, overflowed, 0);
    if (sigsetjmp(env, 1) == 0)
        recurse(0);
}

static void on_stack(int sig)
{
    char here;
    say("  %d on the %s stack\n", sig, &here >= alternate && &here < alternate + sizeof alternate ? "alternate" : "usual");
}

static void onstack(void)
{
    stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate};
    CHECK(sigaltstack(&stack, NULL) == 0);
    set_plain(SIGUSR1, on_stack, SA_ONSTACK);
    set_plain(SIGUSR2, on_stack, 0);
    set_plain(SIGSEGV, on_stack, SA_ONSTACK);
    use_queue();
    raise(SIGUSR1);
    raise(SIGUSR2);
    raise(SIGSEGV);
    set_plain(SIGSEGV, on_stack, 0);
    raise(SIGSEGV);
}

/* ---- system calls -------------------------------------------------------------------------- */

/* Signals a thread once it sleeps in read(2); when its handler has run, lets the read end. */
struct poke { pid_t tid; int sig; int pipe; };
static void *poke(void *arg)
{
    struct poke *poke = arg;
    char path[64], text[32] = "";
    long number = -1;
    snprintf(path, sizeof path, "/proc/self/task/%d/syscall", poke->tid);
    for (int i = 0; i < 20000 && number != SYS_read; i++) {
        int fd = open(path, O_RDONLY);
        ssize_t n = read(fd, text, sizeof text - 1);
        close(fd);
        text[n > 0 ? n : 0] = 0;
        /* "running", or the number of the call in which the thread sleeps. */
        if (sscanf(text, "%ld", &number) != 1)
            number = -1;
        if (number != SYS_read)
            usleep(100);
    }
    CHECK(number == SYS_read);
    syscall(SYS_tgkill, getpid(), poke->tid, poke->sig);
    while (!count)
        usleep(100);
    CHECK(write(poke->pipe, "x", 1) == 1);
    return NULL;
}

static void interrupted_read(int flags, int sig)
{
    int ends[2];
    char byte;
    CHECK(pipe(ends) == 0);
    count = 0;
    set_plain(sig, quiet, flags);
    struct poke arg = {gettid(), sig, ends[1]};
    pthread_t thread;
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    CHECK(pthread_create(&thread, NULL, poke, &arg) == 0);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    errno = 0;
    int n = read(ends[0], &byte, 1);
    say("  flags %x sig %d: read %d errno %d\n", (unsigned)flags, sig, n, n < 0 ? errno : 0);
    pthread_join(thread, NULL);
    close(ends[0]);
    close(ends[1]);
}

static void restarting(void)
{
    use_queue();
    interrupted_read(SA_RESTART, SIGUSR1);
    interrupted_read(0, SIGUSR1);
    interrupted_read(SA_RESTART | SA_RESETHAND, SIGUSR1);
    interrupted_read(SA_RESETHAND, SIGUSR2);
    interrupted_read(SA_RESTART, SIGSEGV);
    interrupted_read(0, SIGSEGV);
}

static void children(void)
{
    int status;
    set_plain(SIGCHLD, quiet, SA_NOCLDWAIT);
    use_queue();
    pid_t pid = fork();
    if (pid == 0)
        _exit(3);
    errno = 0;
    pid_t got = waitpid(pid, &status, 0);
    say("  NOCLDWAIT: %d errno %d, handler ran %d\n", got == pid, errno, count > 0);
    set_plain(SIGCHLD, quiet, SA_NOCLDSTOP | SA_RESTART);
    count = 0;
    pid = fork();
    if (pid == 0) {
        raise(SIGSTOP);
        _exit(4);
    }
    CHECK(waitpid(pid, &status, WUNTRACED) == pid && WIFSTOPPED(status));
    say("  NOCLDSTOP: handler ran %d\n", count);
    kill(pid, SIGCONT);
    CHECK(waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == 4);
    say("  exited: handler ran %d\n", count);
    set_plain(SIGCHLD, SIG_IGN, 0);
    pid = fork();
    if (pid == 0)
        _exit(5);
    errno = 0;
    got = waitpid(pid, &status, 0);
    say("  ignored: %d errno %d\n", got, errno);
}

static void fork_and_vfork(void)
{
    int status;
    set_plain(SIGUSR1, plain, 0);
    signal(SIGSEGV, SIG_IGN);
    use_queue();
    pid_t pid = fork();
    if (pid == 0) {
        raise(SIGUSR1);
        raise(SIGSEGV);
        queue_round();
        set_plain(SIGUSR1, quiet, 0);
        raise(SIGUSR1);
        say("  child counts %d\n", count);
        _exit(6);
    }
    CHECK(waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == 6);
    raise(SIGUSR1);
    pid = vfork();
    if (pid == 0) {
        signal(SIGUSR1, SIG_DFL);
        signal(SIGSEGV, SIG_DFL);
        signal(SIGUSR2, quiet);
        _exit(7);
    }
    CHECK(waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == 7);
    raise(SIGUSR1);
    raise(SIGSEGV);
    flags_of(SIGUSR1, "parent");
    flags_of(SIGUSR2, "parent");
    flags_of(SIGSEGV, "parent");
    queue_round();
    CHECK(system("kill -USR1 $$") != 0);
    raise(SIGUSR1);
}

/* ---- threads ------------------------------------------------------------------------------- */

static void *cancelled_in_handler(void *arg)
{
    pthread_cleanup_push((void (*)(void *))say, "  cleanup ran\n");
    (void)arg;
    raise(SIGUSR1);
    say("  not reached\n");
    pthread_cleanup_pop(0);
    return NULL;
}

static void cancel_point(int sig)
{
    pthread_cleanup_push((void (*)(void *))say, "  cleanup of the handler ran\n");
    say("  handler %d\n", sig);
    pthread_cancel(pthread_self());
    pthread_testcancel();
    say("  not reached in the handler\n");
    pthread_cleanup_pop(0);
}

static void cancellation(void)
{
    void *result;
    pthread_t thread;
    set_plain(SIGUSR1, cancel_point, 0);
    use_queue();
    for (int i = 0; i < 2; i++) {
        CHECK(pthread_create(&thread, NULL, cancelled_in_handler, NULL) == 0);
        CHECK(pthread_join(thread, &result) == 0);
        say("  %s\n", result == PTHREAD_CANCELED ? "cancelled" : "ended");
        set_plain(SIGUSR1, cancel_point, SA_RESETHAND);
    }
}

static void exiting(int sig) { (void)sig; pthread_exit((void *)5); }
static void *exits_in_handler(void *arg) { (void)arg; raise(SIGUSR2); return NULL; }
static void thread_exit(void)
{
    void *result;
    pthread_t thread;
    set_plain(SIGUSR2, exiting, 0);
    use_queue();
    CHECK(pthread_create(&thread, NULL, exits_in_handler, NULL) == 0);
    CHECK(pthread_join(thread, &result) == 0);
    say("  %ld\n", (long)result);
}

/* Threads that set dispositions while others raise: each raise must run one of the handlers. */
static volatile int stop;
static __thread int ran;
static void first(int sig) { (void)sig; ran++; }
static void second(int sig, siginfo_t *info, void *context)
{
    (void)context;
    ran += info->si_signo == sig && info->si_code == SI_TKILL && info->si_pid == getpid() ? 1 : 1000;
}
static void *setter(void *arg)
{
    (void)arg;
    while (!stop) {
        struct sigaction old;
        set_plain(SIGUSR1, first, 0);
        CHECK(sigaction(SIGUSR1, NULL, &old) == 0);
        CHECK(old.sa_handler == first || old.sa_sigaction == second);
        CHECK(!(old.sa_flags & SA_SIGINFO) == (old.sa_handler == first));
        set_info(SIGUSR1, second, SA_NODEFER);
    }
    return NULL;
}
static void *raiser(void *arg)
{
    (void)arg;
    for (int i = 0; i < 20000; i++)
        raise(SIGUSR1);
    return (void *)(long)ran;
}
static void threads(void)
{
    pthread_t setters[2], raisers[2];
    set_plain(SIGUSR1, first, 0);
    for (int i = 0; i < 2; i++)
        CHECK(pthread_create(&setters[i], NULL, setter, NULL) == 0);
    for (int i = 0; i < 2; i++)
        CHECK(pthread_create(&raisers[i], NULL, raiser, NULL) == 0);
    use_queue();
    for (int i = 0; i < 2; i++) {
        void *result;
        CHECK(pthread_join(raisers[i], &result) == 0);
        say("  %ld handled\n", (long)result);
    }
    stop = 1;
    for (int i = 0; i < 2; i++)
        CHECK(pthread_join(setters[i], NULL) == 0);
}

/* ---- waiting for signals -------------------------------------------------------------------- */

static void waiting(void)
{
    sigset_t set, old, pending;
    siginfo_t info;
    set_plain(SIGUSR1, plain, 0);
    use_queue();
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, &old);
    raise(SIGUSR1);
    CHECK(sigpending(&pending) == 0 && sigismember(&pending, SIGUSR1) == 1);
    CHECK(sigwaitinfo(&set, &info) == SIGUSR1 && info.si_signo == SIGUSR1);
    raise(SIGUSR1);
    errno = 0;
    CHECK(sigsuspend(&old) == -1 && errno == EINTR);
    struct timespec soon = {0, 0};
    errno = 0;
    CHECK(sigtimedwait(&set, &info, &soon) == -1 && errno == EAGAIN);
    sigprocmask(SIG_SETMASK, &old, NULL);
}

/* A timer whose handlers interrupt queue operations everywhere, and use queues themselves. */
enum { TICKS = 300 };
static timer_t timer;
static void tick(void)
{
    /* One shot, so that the interrupted code gets on however slow the machine is. */
    struct itimerspec soon = {.it_value.tv_nsec = 100000};
    CHECK(timer_settime(timer, 0, &soon, NULL) == 0);
}
static void timed(int sig)
{
    (void)sig;
    queue_round();
    if (++count < TICKS)
        tick();
}
static void timer_storm(void)
{
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    struct mq_attr attr = {.mq_maxmsg = 4, .mq_msgsize = 64};
    char name[80], text[64];
    use_queue();
    snprintf(name, sizeof name, "%s-storm", queue_name);
    mqd_t mqd = mq_open(name, O_CREAT | O_RDWR | O_EXCL | O_NONBLOCK, 0600, &attr);
    CHECK(mqd != (mqd_t)-1);
    CHECK(mq_unlink(name) == 0);
    set_plain(SIGUSR1, timed, SA_RESTART);
    CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    tick();
    for (long i = 0; count < TICKS; i++) {
        long got = -1;
        memset(text, 0, sizeof text);
        memcpy(text, &i, sizeof i);
        CHECK(mq_send(mqd, text, 64, i % 5) == 0);
        CHECK(mq_receive(mqd, text, sizeof text, NULL) == 64);
        memcpy(&got, text, sizeof got);
        CHECK(got == i);
    }
    timer_delete(timer);
    mq_close(mqd);
    say("  done\n");
}

/* ---------------------------------------------------------------------------------------------- */

#define CASE(name) {#name, name}
static const struct { const char *name; void (*run)(void); } cases[] = {
    CASE(queries), CASE(queries_of_early_handlers), CASE(errors), CASE(bad_pointer_set), CASE(bad_pointer_old),
    CASE(delivery), CASE(old_interfaces), CASE(siginterrupt_before), CASE(resethand), CASE(resethand_early),
    CASE(nodefer), CASE(handler_changes_itself), CASE(nested_masks), CASE(many_handlers),
    CASE(faults_and_longjmp), CASE(fault_fixed_by_handler), CASE(fault_default), CASE(bus_default),
    CASE(fault_ignored), CASE(fault_ignored_early), CASE(sent_default), CASE(sent_bus_default),
    CASE(sent_ignored), CASE(sent_handled), CASE(fault_blocked), CASE(crash_reporter), CASE(crash_reporter_queueing),
    CASE(other_faults), CASE(stack_overflow), CASE(onstack), CASE(restarting), CASE(children), CASE(fork_and_vfork),
    CASE(cancellation), CASE(thread_exit), CASE(threads), CASE(waiting), CASE(timer_storm),
};

static void run(int number)
{
    int status;
    struct rusage usage;
    say("%s (%s)\n", cases[number].name, late ? "late" : "early");
    pid_t pid = fork();
    if (pid == 0) {
        /* Wait status tells of a core dump, but none is to be left behind. */
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        setvbuf(stdout, NULL, _IONBF, 0);
        snprintf(queue_name, sizeof queue_name, "/signals-%d", getpid());
        if (late)
            queue_round();
        cases[number].run();
        say("  end\n");
        exit(0);
    }
    CHECK(wait4(pid, &status, 0, &usage) == pid);
    say("  status %x\n", status);
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    for (late = 0; late < 2; late++)
        for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
            int wanted = argc == 1;
            for (int a = 1; a < argc; a++)
                wanted |= !strcmp(argv[a], cases[i].name);
            if (wanted)
                run(i);
        }
    return 0;
}
