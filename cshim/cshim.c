/* What stable Rust cannot define: see build.rs.
 *
 * Names are cshim_<symbol>, all hidden; src/interpose exports the symbols and jumps here. A blocked
 * call sleeps in a frame of this file, so that pthread_cancel(3) finds only C frames to unwind; the
 * Rust functions called from here (mqns_*) return promptly.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <mqueue.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif
#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif

/* struct Tls of src/sys/tls.rs: 192 bytes, zero to begin with. */
__thread struct { uint64_t words[24]; } cshim_tls_block
    __attribute__((tls_model("initial-exec"), aligned(64)));

void *cshim_tls(void) { return &cshim_tls_block; }

/* ---- results -------------------------------------------------------------------------------- */

/* Results of mqns_* functions: >= 0, a negated errno, or one of these. */
#define SLEEP INTPTR_MIN
#define BYPASS (INTPTR_MIN + 1)

int *cshim_errno(void) { return __errno_location(); }

static inline long finish(long r)
{
    if (__builtin_expect(r < 0, 0)) {
        errno = (int)-r;
        return -1;
    }
    return r;
}

long cshim_fail(long r) { return finish(r); }

/* A raw system call: libc's syscall() is our own export here. */
static inline long raw(long nr, long a, long b, long c, long d, long e, long f)
{
#if defined(__x86_64__)
    long ret;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall" : "=a"(ret) : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return ret;
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = nr;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
    return x0;
#else
#error "architecture not supported"
#endif
}

/* ---- sleeping -------------------------------------------------------------------------------- */

/* The first fields of struct Wait of src/queue/wait.rs; the rest is private to it. */
struct wait {
    uint32_t *word;
    uint32_t expected;
    uint32_t timed;
    struct timespec deadline;
    uint64_t rest[16];
};
const size_t cshim_wait_size = sizeof(struct wait);

extern long mqns_send(mqd_t, const char *, size_t, unsigned, const struct timespec *, struct wait *);
extern long mqns_receive(mqd_t, char *, size_t, unsigned *, const struct timespec *, struct wait *);
extern long mqns_resume(struct wait *, int);
extern void mqns_cancel(void *);
extern int mqns_restarting(struct wait *);

/* What raw_restartable says of a call that the kernel has begun again (the number that it has for this
 * itself, and never shows). The same in src/queue/wait.rs. */
#define RESTARTED (-512L)

/* A raw system call that ends when the kernel would begin it anew: after SIGSTOP and SIGCONT, or any
 * signal without a handler, which programs are not told of otherwise.
 *
 * The instruction `syscall` alone is a critical section of rseq(2). Behind it a thread is outside,
 * however long it has slept. To begin the call anew the kernel sets the thread back to the instruction,
 * finds it in a critical section that was left in between, and sends it to the abort handler. So it does
 * with a thread that has not got as far as the call, where it sets the thread down again: rcx tells,
 * which the instruction overwrites. (Kernels that look into critical sections after interrupts only
 * restart the call as they always did.) */
#if defined(__x86_64__)
extern const long __rseq_offset __attribute__((weak, visibility("default")));
extern const unsigned __rseq_size __attribute__((weak, visibility("default")));

static inline long raw_restartable(long nr, long a, long b, long c, long d, long e)
{
    char *thread;
    long ret = nr, called = 0;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    /* libc is older than 2.35, or was told to leave rseq alone. */
    if (&__rseq_size == NULL || __rseq_size == 0)
        return raw(nr, a, b, c, d, e, 0);
    __asm__("mov %%fs:0, %0" : "=r"(thread));
    /* struct rseq: the critical section's descriptor is its second word. */
    volatile uint64_t *section = (uint64_t *)(thread + __rseq_offset + 8);
    __asm__ volatile(".pushsection .data.rel.ro.mqns_rseq, \"aw\", @progbits\n"
                     ".balign 32\n"
                     "3: .long 0, 0\n" /* version, flags */
                     ".quad 1f, 2, 4f\n" /* begin, length, abort handler */
                     ".popsection\n"
                     "0: lea 3b(%%rip), %%r11\n"
                     "mov %%r11, (%[section])\n"
                     "1: syscall\n"
                     "jmp 5f\n"
                     ".byte 0x0f, 0xb9, 0x3d\n" /* ud1, with the signature that libc has told the kernel */
                     ".long 0x53053053\n"
                     "4: test %%rcx, %%rcx\n"
                     "jz 0b\n"
                     "mov %[restarted], %%rax\n"
                     "5:\n"
                     : "+a"(ret), "+c"(called)
                     : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), [section] "r"(section), [restarted] "i"(RESTARTED)
                     : "r11", "cc", "memory");
    *section = 0;
    return ret;
}
#else
static inline long raw_restartable(long nr, long a, long b, long c, long d, long e)
{
    return raw(nr, a, b, c, d, e, 0);
}
#endif

/* futex_waitv(2) restarts after a handler with SA_RESTART, and takes an absolute deadline; where it
 * is missing, FUTEX_WAIT_BITSET ends with EINTR after any handler and mqns_restarting decides. */
static long futex_sleep(struct wait *w)
{
    static int no_waitv;
    /* Served while it still looked on: the kernel would say so too, for the price of a system call. */
    if (__atomic_load_n(w->word, __ATOMIC_RELAXED) != w->expected)
        return -EAGAIN;
    if (!__atomic_load_n(&no_waitv, __ATOMIC_RELAXED)) {
        struct { uint64_t val, uaddr; uint32_t flags, reserved; } one = {
            w->expected, (uintptr_t)w->word, 2 /* FUTEX_32, shared */, 0 };
        long r = raw_restartable(SYS_futex_waitv, (long)&one, 1, 0, w->timed ? (long)&w->deadline : 0, CLOCK_REALTIME);
        if (r != -ENOSYS && r != -EPERM)
            return r < 0 ? r : 0;
        __atomic_store_n(&no_waitv, 1, __ATOMIC_RELAXED);
    }
    long r = raw(SYS_futex, (long)w->word, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME, w->expected,
                 w->timed ? (long)&w->deadline : 0, 0, FUTEX_BITSET_MATCH_ANY);
    if (r == -EINTR && mqns_restarting(w))
        return 0;
    return r;
}

static long sleep_until_done(struct wait *w)
{
    long r;
    do {
        r = mqns_resume(w, (int)futex_sleep(w));
    } while (r == SLEEP);
    return r;
}

/* The same as a cancellation point: as libc does around a system call, cancellation is made
 * asynchronous for the sleep alone. */
static long sleep_cancellable(struct wait *w)
{
    long r;
    pthread_cleanup_push(mqns_cancel, w);
    do {
        int type;
        pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &type);
        long slept = futex_sleep(w);
        pthread_setcanceltype(type, NULL);
        r = mqns_resume(w, (int)slept);
    } while (r == SLEEP);
    pthread_cleanup_pop(0);
    return r;
}

/* A system call that is a cancellation point. */
static long raw_cancellable(long nr, long a, long b, long c, long d, long e, long f)
{
    int type;
    pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &type);
    long r = raw(nr, a, b, c, d, e, f);
    pthread_setcanceltype(type, NULL);
    return r;
}

/* A descriptor that is not ours: the kernel's queue, or no queue. */
static long kernel_queue(long r) { return r == -ENOSYS ? -EBADF : r; }

static __attribute__((noinline)) long send_slow(long r, struct wait *w, int cancellable, mqd_t d, const char *msg,
                                                size_t len, unsigned prio, const struct timespec *t)
{
    if (r == SLEEP)
        return cancellable ? sleep_cancellable(w) : sleep_until_done(w);
    if (r == BYPASS)
        return kernel_queue((cancellable ? raw_cancellable : raw)(SYS_mq_timedsend, d, (long)msg, (long)len, prio,
                                                                  (long)t, 0));
    return r;
}

static __attribute__((noinline)) long receive_slow(long r, struct wait *w, int cancellable, mqd_t d, char *msg,
                                                   size_t len, unsigned *prio, const struct timespec *t)
{
    if (r == SLEEP)
        return cancellable ? sleep_cancellable(w) : sleep_until_done(w);
    if (r == BYPASS)
        return kernel_queue((cancellable ? raw_cancellable : raw)(SYS_mq_timedreceive, d, (long)msg, (long)len,
                                                                  (long)prio, (long)t, 0));
    return r;
}

int cshim_mq_timedsend(mqd_t d, const char *msg, size_t len, unsigned prio, const struct timespec *t)
{
    struct wait w;
    pthread_testcancel();
    long r = mqns_send(d, msg, len, prio, t, &w);
    if (__builtin_expect(r < 0, 0))
        r = send_slow(r, &w, 1, d, msg, len, prio, t);
    return (int)finish(r);
}

int cshim_mq_send(mqd_t d, const char *msg, size_t len, unsigned prio)
{
    return cshim_mq_timedsend(d, msg, len, prio, NULL);
}

ssize_t cshim_mq_timedreceive(mqd_t d, char *msg, size_t len, unsigned *prio, const struct timespec *t)
{
    struct wait w;
    pthread_testcancel();
    long r = mqns_receive(d, msg, len, prio, t, &w);
    if (__builtin_expect(r < 0, 0))
        r = receive_slow(r, &w, 1, d, msg, len, prio, t);
    return finish(r);
}

ssize_t cshim_mq_receive(mqd_t d, char *msg, size_t len, unsigned *prio)
{
    return cshim_mq_timedreceive(d, msg, len, prio, NULL);
}

/* ---- mq_notify with SIGEV_THREAD ---------------------------------------------------------------
 *
 * A helper thread for each registration sleeps on a word of the queue; when the registration fires it
 * starts a thread with the user's attributes for the user's function, as mq_notify(3) has it. It ends
 * when the registration does. A forked child has no such thread, and no registration either.
 */

/* struct Registered of src/interpose/mq.rs. */
struct registered {
    const void *map;
    uint64_t ticket;
    uint32_t *word;
};
extern long mqns_notify(mqd_t, const struct sigevent *, struct registered *);
extern int mqns_notify_fate(const struct registered *, uint32_t *expected);
extern void mqns_notify_done(const struct registered *);
extern int mqns_copy(void *to, const void *from, size_t n);
struct notification {
    struct registered registered;
    void (*function)(union sigval);
    union sigval value;
    int has_attr;
    pthread_attr_t attr;
};

/* A copy that outlives the original: pthread_attr_t may point to memory of its own. */
static int copy_attributes(pthread_attr_t *to, const pthread_attr_t *from)
{
    int i, r = pthread_attr_init(to);
    size_t size;
    void *address;
    struct sched_param param;
    cpu_set_t cpus;
    sigset_t mask;
    if (r != 0)
        return r;
    if (pthread_attr_getdetachstate(from, &i) == 0)
        pthread_attr_setdetachstate(to, i);
    if (pthread_attr_getguardsize(from, &size) == 0)
        pthread_attr_setguardsize(to, size);
    if (pthread_attr_getschedpolicy(from, &i) == 0)
        pthread_attr_setschedpolicy(to, i);
    if (pthread_attr_getschedparam(from, &param) == 0)
        pthread_attr_setschedparam(to, &param);
    if (pthread_attr_getinheritsched(from, &i) == 0)
        pthread_attr_setinheritsched(to, i);
    if (pthread_attr_getscope(from, &i) == 0)
        pthread_attr_setscope(to, i);
    if (pthread_attr_getstack(from, &address, &size) == 0 && address != NULL && size != 0
        && (uintptr_t)address + size != 0 && (uintptr_t)address < UINTPTR_MAX - size)
        pthread_attr_setstack(to, address, size);
    else if (pthread_attr_getstacksize(from, &size) == 0 && size != 0)
        pthread_attr_setstacksize(to, size);
    if (pthread_attr_getaffinity_np(from, sizeof cpus, &cpus) == 0 && CPU_COUNT(&cpus) != 0
        && CPU_COUNT(&cpus) != CPU_SETSIZE)
        pthread_attr_setaffinity_np(to, sizeof cpus, &cpus);
    if (pthread_attr_getsigmask_np(from, &mask) == 0)
        pthread_attr_setsigmask_np(to, &mask);
    return 0;
}

static void free_notification(struct notification *n)
{
    if (n->registered.map != NULL)
        mqns_notify_done(&n->registered);
    if (n->has_attr)
        pthread_attr_destroy(&n->attr);
    free(n);
}

/* The thread of one notification: detached, with no signal blocked, as libc has it. */
static void *call_function(void *arg)
{
    struct notification *n = arg;
    void (*function)(union sigval) = n->function;
    union sigval value = n->value;
    sigset_t none;
    free_notification(n);
    pthread_detach(pthread_self());
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, NULL);
    function(value);
    return NULL;
}

static void *await_notification(void *arg)
{
    struct notification *n = arg;
    uint32_t expected;
    for (;;) {
        switch (mqns_notify_fate(&n->registered, &expected)) {
        case 0:
            raw(SYS_futex, (long)n->registered.word, FUTEX_WAIT, expected, 0, 0, 0);
            break;
        case 1: {
            pthread_t thread;
            if (pthread_create(&thread, n->has_attr ? &n->attr : NULL, call_function, n) != 0)
                free_notification(n);
            return NULL;
        }
        default:
            free_notification(n);
            return NULL;
        }
    }
}

static long notify_by_thread(mqd_t d, const struct sigevent *event)
{
    struct notification *n = calloc(1, sizeof *n);
    pthread_attr_t attr;
    pthread_t thread;
    sigset_t all, before;
    int r;
    if (n == NULL)
        return -ENOMEM;
    n->function = event->sigev_notify_function;
    n->value = event->sigev_value;
    if (event->sigev_notify_attributes != NULL) {
        if ((r = copy_attributes(&n->attr, event->sigev_notify_attributes)) != 0) {
            free(n);
            return -r;
        }
        n->has_attr = 1;
    }
    long result = mqns_notify(d, event, &n->registered);
    if (result < 0 || n->registered.map == NULL) {
        free_notification(n);
        return result;
    }
    /* A helper that handles no signal of the program and needs little room. */
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, 64 * 1024);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(&thread, &attr, await_notification, n);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    if (r != 0) {
        mqns_notify(d, NULL, NULL);
        free_notification(n);
        return -r;
    }
    return 0;
}

int cshim_mq_notify(mqd_t d, const struct sigevent *event)
{
    struct sigevent copy;
    if (event != NULL && mqns_copy(&copy, event, sizeof copy) != 0) {
        errno = EFAULT;
        return -1;
    }
    if (event != NULL && copy.sigev_notify == SIGEV_THREAD)
        return (int)finish(notify_by_thread(d, &copy));
    return (int)finish(mqns_notify(d, event, NULL));
}

/* ---- variadic functions ----------------------------------------------------------------------- */

extern long mqns_open(const char *, int, mode_t, const struct mq_attr *, int);
extern long mqns_unlink(const char *, int);
extern long mqns_getsetattr(mqd_t, const struct mq_attr *, struct mq_attr *);

mqd_t cshim_mq_open(const char *name, int oflag, ...)
{
    mode_t mode = 0;
    struct mq_attr *attr = NULL;
    if (oflag & O_CREAT) {
        va_list ap;
        va_start(ap, oflag);
        mode = va_arg(ap, mode_t);
        attr = va_arg(ap, struct mq_attr *);
        va_end(ap);
    }
    return (mqd_t)finish(mqns_open(name, oflag, mode, attr, 0));
}

/* What a program built with _FORTIFY_SOURCE calls when it passes two arguments. */
mqd_t cshim___mq_open_2(const char *name, int oflag)
{
    if (oflag & O_CREAT) {
        static const char text[] = "*** invalid mq_open call: O_CREAT without mode and attr ***: terminated\n";
        raw(SYS_write, 2, (long)text, sizeof text - 1, 0, 0, 0);
        abort();
    }
    return (mqd_t)finish(mqns_open(name, oflag, 0, NULL, 0));
}

extern long mqns_close(int);
extern long mqns_close_range(unsigned, unsigned, int);
extern long mqns_dup(int);
extern long mqns_dup3(int, int, int, int);
extern long mqns_fcntl(int, int, long);

/* fcntl(2): the third argument is an int, a pointer or nothing; a long holds any of them. */
int cshim_fcntl(int fd, int cmd, ...)
{
    va_list ap;
    va_start(ap, cmd);
    long arg = va_arg(ap, long);
    va_end(ap);
    long r = mqns_fcntl(fd, cmd, arg);
    if (r == BYPASS)
        r = cmd == F_SETLKW || cmd == F_OFD_SETLKW ? raw_cancellable(SYS_fcntl, fd, cmd, arg, 0, 0, 0)
                                                  : raw(SYS_fcntl, fd, cmd, arg, 0, 0, 0);
    return (int)finish(r);
}

extern long mqns_file(long, int, long, long, long);

/* Numbers that `syscall` (src/interpose) sends here instead of to the kernel. */
const unsigned char cshim_intercepted[512] = {
    [SYS_mq_open] = 1, [SYS_mq_unlink] = 1, [SYS_mq_timedsend] = 1, [SYS_mq_timedreceive] = 1,
    [SYS_mq_notify] = 1, [SYS_mq_getsetattr] = 1, [SYS_close] = 1, [SYS_close_range] = 1,
    [SYS_dup] = 1, [SYS_dup3] = 1, [SYS_fcntl] = 1,
#ifdef SYS_dup2
    [SYS_dup2] = 1,
#endif
    [SYS_read] = 1, [SYS_pread64] = 1, [SYS_write] = 1, [SYS_pwrite64] = 1, [SYS_lseek] = 1, [SYS_fstat] = 1,
    [SYS_ftruncate] = 1, [SYS_fchmod] = 1, [SYS_fchown] = 1, [SYS_fsync] = 1, [SYS_fdatasync] = 1,
    [SYS_unshare] = 1, [SYS_setns] = 1, [SYS_clone] = 1, [SYS_clone3] = 1, [SYS_execve] = 1, [SYS_execveat] = 1,
    [SYS_openat] = 1, [SYS_readlinkat] = 1, [SYS_newfstatat] = 1, [SYS_openat2] = 1,
    [SYS_statx] = 1, [SYS_statfs] = 1, [SYS_fstatfs] = 1, [SYS_truncate] = 1, [SYS_utimensat] = 1,
    [SYS_mount] = 1, [SYS_umount2] = 1, [SYS_fsopen] = 1, [SYS_fsconfig] = 1, [SYS_fsmount] = 1, [SYS_fspick] = 1,
    [SYS_unlinkat] = 1, [SYS_mkdirat] = 1, [SYS_renameat2] = 1, [SYS_linkat] = 1, [SYS_symlinkat] = 1,
    [SYS_mknodat] = 1, [SYS_fchmodat] = 1, [SYS_fchownat] = 1, [SYS_faccessat] = 1, [SYS_faccessat2] = 1,
    [SYS_sendfile] = 1, [SYS_splice] = 1, [SYS_copy_file_range] = 1,
    [SYS_epoll_ctl] = 1, [SYS_epoll_pwait] = 1, [SYS_epoll_pwait2] = 1,
#ifdef SYS_epoll_wait
    [SYS_epoll_wait] = 1,
#endif
#ifdef SYS_renameat
    [SYS_renameat] = 1,
#endif
#ifdef SYS_open
    [SYS_open] = 1, [SYS_readlink] = 1, [SYS_stat] = 1, [SYS_lstat] = 1, [SYS_creat] = 1, [SYS_unlink] = 1,
    [SYS_mkdir] = 1, [SYS_rename] = 1, [SYS_link] = 1, [SYS_symlink] = 1, [SYS_mknod] = 1, [SYS_chmod] = 1,
    [SYS_chown] = 1, [SYS_lchown] = 1, [SYS_access] = 1,
#endif
};

extern long mqns_unshare(int);
extern long mqns_setns(int, int);
extern long mqns_splice(int, int);
extern long mqns_copy_file_range(int, int);
extern long mqns_vfs_open(int, const char *, int, mode_t);
/* Of libc 2.35 or 2.36 and later, and our own anyway. */
extern int epoll_pwait2(int, struct epoll_event *, int, const struct timespec *, const sigset_t *);
extern int fsopen(const char *, unsigned);
extern int fsconfig(int, unsigned, const char *, const void *, int);
extern int fsmount(int, unsigned, unsigned);
extern int fspick(int, const char *, unsigned);
extern long cshim_raw_clone(long (*)(long, long, long, long, long, long, long), long, long, long, long, long);
extern long cshim_raw_clone3(long (*)(long, long, long, long, long, long, long), long, long);
static long raw_function(long nr, long a, long b, long c, long d, long e, long f) { return raw(nr, a, b, c, d, e, f); }

/* syscall(2) with one of those numbers: not a cancellation point, and errno as the kernel has it. */
long cshim_syscall(long nr, long a, long b, long c, long d, long e, long f)
{
    struct wait w;
    long r;
    switch (nr) {
    case SYS_mq_open:
        r = mqns_open((const char *)a, (int)b, (mode_t)c, (const struct mq_attr *)d, 1);
        break;
    case SYS_mq_unlink:
        r = mqns_unlink((const char *)a, 1);
        break;
    case SYS_mq_timedsend:
        r = mqns_send((mqd_t)a, (const char *)b, (size_t)c, (unsigned)d, (const struct timespec *)e, &w);
        if (r < 0)
            r = send_slow(r, &w, 0, (mqd_t)a, (const char *)b, (size_t)c, (unsigned)d, (const struct timespec *)e);
        break;
    case SYS_mq_timedreceive:
        r = mqns_receive((mqd_t)a, (char *)b, (size_t)c, (unsigned *)d, (const struct timespec *)e, &w);
        if (r < 0)
            r = receive_slow(r, &w, 0, (mqd_t)a, (char *)b, (size_t)c, (unsigned *)d, (const struct timespec *)e);
        break;
    case SYS_mq_notify:
        r = mqns_notify((mqd_t)a, (const struct sigevent *)b, NULL);
        break;
    case SYS_mq_getsetattr:
        r = mqns_getsetattr((mqd_t)a, (const struct mq_attr *)b, (struct mq_attr *)c);
        break;
    case SYS_close:
        r = mqns_close((int)a);
        break;
    case SYS_close_range:
        r = mqns_close_range((unsigned)a, (unsigned)b, (int)c);
        break;
    case SYS_dup:
        r = mqns_dup((int)a);
        break;
#ifdef SYS_dup2
    case SYS_dup2:
        r = mqns_dup3((int)a, (int)b, 0, 1);
        break;
#endif
    case SYS_dup3:
        r = mqns_dup3((int)a, (int)b, (int)c, 0);
        break;
    case SYS_fcntl:
        r = mqns_fcntl((int)a, (int)b, c);
        if (r == BYPASS)
            r = raw(SYS_fcntl, a, b, c, 0, 0, 0);
        break;
    case SYS_unshare:
        r = mqns_unshare((int)a);
        break;
    case SYS_setns:
        r = mqns_setns((int)a, (int)b);
        break;
    case SYS_clone:
        r = cshim_raw_clone(raw_function, a, b, c, d, e);
        break;
    case SYS_clone3:
        r = cshim_raw_clone3(raw_function, a, b);
        break;
    /* By the functions of libc that do nothing else. */
    case SYS_execve:
        return execve((const char *)a, (char *const *)b, (char *const *)c);
    case SYS_execveat:
        return execveat((int)a, (const char *)b, (char *const *)c, (char *const *)d, (int)e);
    case SYS_openat:
        return openat((int)a, (const char *)b, (int)c, (mode_t)d);
    case SYS_readlinkat:
        return readlinkat((int)a, (const char *)b, (char *)c, (size_t)d);
    case SYS_newfstatat:
        return fstatat((int)a, (const char *)b, (struct stat *)c, (int)d);
    case SYS_statx:
        return statx((int)a, (const char *)b, (int)c, (unsigned)d, (struct statx *)e);
    case SYS_statfs:
        return statfs((const char *)a, (struct statfs *)b);
    case SYS_fstatfs:
        return fstatfs((int)a, (struct statfs *)b);
    case SYS_truncate:
        return truncate((const char *)a, b);
    case SYS_utimensat:
        /* libc refuses what this system call takes: the descriptor itself. */
        if (b == 0)
            return futimens((int)a, (const struct timespec *)c);
        return utimensat((int)a, (const char *)b, (const struct timespec *)c, (int)d);
    case SYS_mount:
        return mount((const char *)a, (const char *)b, (const char *)c, (unsigned long)d, (const void *)e);
    case SYS_umount2:
        return umount2((const char *)a, (int)b);
    case SYS_fsopen:
        return fsopen((const char *)a, (unsigned)b);
    case SYS_fsconfig:
        return fsconfig((int)a, (unsigned)b, (const char *)c, (const void *)d, (int)e);
    case SYS_fsmount:
        return fsmount((int)a, (unsigned)b, (unsigned)c);
    case SYS_fspick:
        return fspick((int)a, (const char *)b, (unsigned)c);
    case SYS_unlinkat:
        return unlinkat((int)a, (const char *)b, (int)c);
    case SYS_mkdirat:
        return mkdirat((int)a, (const char *)b, (mode_t)c);
    case SYS_renameat2:
        return renameat2((int)a, (const char *)b, (int)c, (const char *)d, (unsigned)e);
#ifdef SYS_renameat
    case SYS_renameat:
        return renameat((int)a, (const char *)b, (int)c, (const char *)d);
#endif
    case SYS_linkat:
        return linkat((int)a, (const char *)b, (int)c, (const char *)d, (int)e);
    case SYS_symlinkat:
        return symlinkat((const char *)a, (int)b, (const char *)c);
    case SYS_mknodat:
        return mknodat((int)a, (const char *)b, (mode_t)c, (dev_t)d);
    case SYS_fchmodat:
        return fchmodat((int)a, (const char *)b, (mode_t)c, 0);
    case SYS_fchownat:
        return fchownat((int)a, (const char *)b, (uid_t)c, (gid_t)d, (int)e);
    case SYS_faccessat:
        return faccessat((int)a, (const char *)b, (int)c, 0);
    case SYS_faccessat2:
        return faccessat((int)a, (const char *)b, (int)c, (int)d);
    case SYS_sendfile:
        return sendfile((int)a, (int)b, (off_t *)c, (size_t)d);
    case SYS_openat2: {
        /* struct open_how: flags, mode, resolve. */
        uint64_t how[3];
        r = BYPASS;
        if (d >= 24 && mqns_copy(how, (const void *)c, sizeof how) == 0 && how[2] == 0)
            r = mqns_vfs_open((int)a, (const char *)b, (int)how[0], (mode_t)how[1]);
        if (r == BYPASS)
            r = raw(nr, a, b, c, d, 0, 0);
        break;
    }
#ifdef SYS_open
    case SYS_lstat:
        return lstat((const char *)a, (struct stat *)b);
    case SYS_creat:
        return creat((const char *)a, (mode_t)b);
    case SYS_unlink:
        return unlink((const char *)a);
    case SYS_mkdir:
        return mkdir((const char *)a, (mode_t)b);
    case SYS_rename:
        return rename((const char *)a, (const char *)b);
    case SYS_link:
        return link((const char *)a, (const char *)b);
    case SYS_symlink:
        return symlink((const char *)a, (const char *)b);
    case SYS_mknod:
        return mknod((const char *)a, (mode_t)b, (dev_t)c);
    case SYS_chmod:
        return chmod((const char *)a, (mode_t)b);
    case SYS_chown:
        return chown((const char *)a, (uid_t)b, (gid_t)c);
    case SYS_lchown:
        return lchown((const char *)a, (uid_t)b, (gid_t)c);
    case SYS_access:
        return access((const char *)a, (int)b);
    case SYS_open:
        return open((const char *)a, (int)b, (mode_t)c);
    case SYS_readlink:
        return readlink((const char *)a, (char *)b, (size_t)c);
    case SYS_stat:
        return stat((const char *)a, (struct stat *)b);
#endif
    case SYS_epoll_ctl:
        return epoll_ctl((int)a, (int)b, (int)c, (struct epoll_event *)d);
#ifdef SYS_epoll_wait
    case SYS_epoll_wait:
        return epoll_wait((int)a, (struct epoll_event *)b, (int)c, (int)d);
#endif
    case SYS_epoll_pwait:
        if (e == 0 || f == sizeof(uint64_t))
            return epoll_pwait((int)a, (struct epoll_event *)b, (int)c, (int)d, (const sigset_t *)e);
        r = raw(nr, a, b, c, d, e, f);
        break;
    case SYS_epoll_pwait2:
        if (e == 0 || f == sizeof(uint64_t))
            return epoll_pwait2((int)a, (struct epoll_event *)b, (int)c, (const struct timespec *)d, (const sigset_t *)e);
        r = raw(nr, a, b, c, d, e, f);
        break;
    case SYS_splice:
    case SYS_copy_file_range:
        r = nr == SYS_splice ? mqns_splice((int)a, (int)c) : mqns_copy_file_range((int)a, (int)c);
        if (r == BYPASS)
            r = raw(nr, a, b, c, d, e, f);
        break;
    default:
        r = mqns_file(nr, (int)a, b, c, d);
        if (r == BYPASS)
            r = raw(nr, a, b, c, d, e, 0);
        break;
    }
    return finish(r);
}

/* ---- the descriptor as a file ------------------------------------------------------------------ */

extern long mqns_open_ours(int, const char *, int, mode_t);
extern long mqns_ioctl(int, unsigned long, long);
extern long mqns_ns_opened(int, const char *, int, int);
extern long mqns_vfs_open(int, const char *, int, mode_t);
extern long mqns_ns_ioctl(int, unsigned long);
extern void *mqns_find_next(int);

/* The next open (0), open64, openat, openat64, ioctl. */
static inline void *next_of(int which)
{
    static void *known[5];
    void *next = __atomic_load_n(&known[which], __ATOMIC_RELAXED);
    if (__builtin_expect(next == NULL, 0)) {
        next = mqns_find_next(which);
        __atomic_store_n(&known[which], next, __ATOMIC_RELAXED);
    }
    return next;
}

/* open(2) takes a mode only where a file may be made. */
#define MODE(flags)                                                                                 \
    mode_t mode = 0;                                                                                \
    if ((flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE) {                                    \
        va_list ap;                                                                                 \
        va_start(ap, flags);                                                                        \
        mode = va_arg(ap, mode_t);                                                                  \
        va_end(ap);                                                                                 \
    }

/* Of a path that leads to no queue descriptor the next definition opens what it leads to. */
/* ... and what it has found in /proc/PID/ns is looked at again. */
static inline int opened(int dir, const char *path, int flags, int result)
{
    if (result >= 0 || errno == ENOENT || errno == EACCES) {
        long r = mqns_ns_opened(dir, path, flags, result >= 0 ? result : -errno);
        if (__builtin_expect(r != BYPASS, 0))
            return (int)finish(r);
    }
    return result;
}

#define OPEN(name, next)                                                                            \
    int cshim_##name(const char *path, int flags, ...)                                              \
    {                                                                                               \
        MODE(flags)                                                                                 \
        long r = mqns_open_ours(AT_FDCWD, path, flags, mode);                                       \
        if (__builtin_expect(r == BYPASS, 1))                                                       \
            return opened(AT_FDCWD, path, flags,                                                    \
                          ((int (*)(const char *, int, ...))next_of(next))(path, flags, mode));   \
        return (int)finish(r);                                                                      \
    }
#define OPENAT(name, next)                                                                          \
    int cshim_##name(int dir, const char *path, int flags, ...)                                     \
    {                                                                                               \
        MODE(flags)                                                                                 \
        long r = mqns_open_ours(dir, path, flags, mode);                                            \
        if (__builtin_expect(r == BYPASS, 1))                                                       \
            return opened(dir, path, flags,                                                         \
                          ((int (*)(int, const char *, int, ...))next_of(next))(dir, path, flags, mode)); \
        return (int)finish(r);                                                                      \
    }
OPEN(open, 0)
OPEN(open64, 1)
OPENAT(openat, 2)
OPENAT(openat64, 3)

/* ioctl(2): the third argument is an int, a pointer or nothing; a long holds any of them. */
int cshim_ioctl(int fd, unsigned long request, ...)
{
    va_list ap;
    va_start(ap, request);
    long arg = va_arg(ap, long);
    va_end(ap);
    long r = mqns_ioctl(fd, request, arg);
    /* ioctl_ns(2) */
    if (r == BYPASS && (request & ~0xfful) == 0xb700)
        r = mqns_ns_ioctl(fd, request);
    if (__builtin_expect(r == BYPASS, 1))
        return ((int (*)(int, unsigned long, ...))next_of(4))(fd, request, arg);
    return (int)finish(r);
}
