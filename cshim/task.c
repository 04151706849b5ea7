/* Tasks and their namespaces: clone(2), which is variadic; threads, which begin in a function of the
 * program's; system(3) and popen(3), which start programs behind every hook. */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

/* struct Birth of src/ns/enter.rs. */
struct birth {
    size_t place, map;
    uint32_t parent, shares_memory;
};
/* 0: nothing to do; 1: birth is filled in; or a negated errno. */
extern long mqns_clone_begins(unsigned long flags, struct birth *);
extern long mqns_thread_begins(struct birth *);
extern void mqns_clone_in_child(const struct birth *);
extern void mqns_clone_in_parent(const struct birth *, int succeeded);
extern void mqns_clone_ends(const struct birth *);
extern int mqns_may_go_without(int error);
extern void mqns_fork_prepare(void);
extern void mqns_fork_child(void);
extern void mqns_task_ends(void);
extern void *mqns_next_task(int);
enum { NEXT_CLONE, NEXT_PTHREAD_CREATE, NEXT_THRD_CREATE };

/* ---- who is who ------------------------------------------------------------------------------- */

/* The thread id that libc has noted for the caller. It is the caller's own unless the caller is a
 * process that has been made with the memory of this thread, shared or copied by a raw clone.
 * (A thread's CPU clock is named by its id, clock_getres(2).) */
uint32_t cshim_tid(void)
{
    clockid_t clock;
    if (pthread_getcpuclockid(pthread_self(), &clock) != 0)
        return 0;
    return (uint32_t)~(clock >> 3);
}

static pthread_key_t key;

/* The thread's other data may have destructors that use queues: the last round is ours. */
static void thread_ends(void *round)
{
    if ((char *)round < (char *)PTHREAD_DESTRUCTOR_ITERATIONS)
        pthread_setspecific(key, (char *)round + 1);
    else
        mqns_task_ends();
}

static void track_threads(void)
{
    pthread_key_create(&key, thread_ends);
    pthread_atfork(mqns_fork_prepare, NULL, mqns_fork_child);
}

/* From the first thread with a namespace of its own on. */
void cshim_track_threads(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, track_threads);
}

/* The calling thread has one: it leaves it at its end. */
void cshim_track_thread(void) { pthread_setspecific(key, (void *)1); }

/* ---- clone(2) --------------------------------------------------------------------------------- */

struct start {
    int (*function)(void *);
    void *argument;
    struct birth birth;
};

static int start_child(void *argument)
{
    struct start *s = argument;
    mqns_clone_in_child(&s->birth);
    int status = s->function(s->argument);
    mqns_clone_ends(&s->birth);
    return status;
}

int cshim_clone(int (*function)(void *), void *stack, int flags, void *argument, ...)
{
    typedef int clone_function(int (*)(void *), void *, int, void *, ...);
    va_list ap;
    va_start(ap, argument);
    void *ptid = va_arg(ap, void *);
    void *tls = va_arg(ap, void *);
    void *ctid = va_arg(ap, void *);
    va_end(ap);
    struct birth birth;
    clone_function *next = (clone_function *)mqns_next_task(NEXT_CLONE);
    long r = function != NULL && stack != NULL ? mqns_clone_begins((unsigned)flags, &birth) : 0;
    if (r < 0) {
        errno = (int)-r;
        return -1;
    }
    if (r == 0)
        return next(function, stack, flags, argument, ptid, tls, ctid);
    /* On the child's stack: it may share the memory, and this frame will be gone. */
    struct start *s = (struct start *)(((uintptr_t)stack - sizeof *s) & ~(uintptr_t)63);
    *s = (struct start){ function, argument, birth };
    int pid = next(start_child, s, flags, s, ptid, tls, ctid);
    if (pid < 0 && (flags & CLONE_NEWIPC) && mqns_may_go_without(errno))
        pid = next(start_child, s, flags & ~CLONE_NEWIPC, s, ptid, tls, ctid);
    int error = errno;
    mqns_clone_in_parent(&birth, pid >= 0);
    errno = error;
    return pid;
}

/* The raw calls, without a stack and memory of the parent's (src/interpose/mod.rs lets no others come
 * here): they return twice, each time in memory of its own. */
static long finish_clone(const struct birth *birth, long pid)
{
    if (pid == 0)
        mqns_clone_in_child(birth);
    else
        mqns_clone_in_parent(birth, pid > 0);
    return pid;
}

long cshim_raw_clone(long (*raw)(long, long, long, long, long, long, long), long flags, long stack, long a, long b,
                     long c)
{
    struct birth birth;
    long r = mqns_clone_begins((unsigned long)flags, &birth);
    if (r < 0)
        return r;
    if (r == 0)
        return raw(SYS_clone, flags, stack, a, b, c, 0);
    long pid = raw(SYS_clone, flags, stack, a, b, c, 0);
    if (pid < 0 && (flags & CLONE_NEWIPC) && mqns_may_go_without((int)-pid))
        pid = raw(SYS_clone, flags & ~CLONE_NEWIPC, stack, a, b, c, 0);
    return finish_clone(&birth, pid);
}

/* struct clone_args of linux/sched.h: flags first; grows. */
struct clone3_arguments {
    uint64_t words[32];
};
extern int mqns_copy(void *to, const void *from, size_t n);

long cshim_raw_clone3(long (*raw)(long, long, long, long, long, long, long), long arguments, long size)
{
    struct clone3_arguments copy;
    struct birth birth;
    if (size < 64 || size > (long)sizeof copy || mqns_copy(&copy, (void *)arguments, (size_t)size) != 0)
        return raw(SYS_clone3, arguments, size, 0, 0, 0, 0);
    /* Where the kernel lacks it, callers know what to do. */
    if ((copy.words[0] & CLONE_NEWIPC) && raw(SYS_clone3, 0, 0, 0, 0, 0, 0) == -ENOSYS)
        return -ENOSYS;
    long r = mqns_clone_begins(copy.words[0], &birth);
    if (r < 0)
        return r;
    long pid = raw(SYS_clone3, arguments, size, 0, 0, 0, 0);
    if (r == 0)
        return pid;
    if (pid < 0 && (copy.words[0] & CLONE_NEWIPC) && mqns_may_go_without((int)-pid)) {
        copy.words[0] &= ~(uint64_t)CLONE_NEWIPC;
        pid = raw(SYS_clone3, (long)&copy, size, 0, 0, 0, 0);
    }
    return finish_clone(&birth, pid);
}

/* ---- threads ---------------------------------------------------------------------------------- */

struct thread_start {
    union {
        void *(*posix)(void *);
        int (*c11)(void *);
    } function;
    void *argument;
    struct birth birth;
};

static struct thread_start begin_thread(struct thread_start *s)
{
    struct thread_start copy = *s;
    free(s);
    mqns_clone_in_child(&copy.birth);
    return copy;
}

static void *start_posix_thread(void *argument)
{
    struct thread_start s = begin_thread(argument);
    return s.function.posix(s.argument);
}

static int start_c11_thread(void *argument)
{
    struct thread_start s = begin_thread(argument);
    return s.function.c11(s.argument);
}

int cshim_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*function)(void *), void *argument)
{
    typedef int create(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    create *next = (create *)mqns_next_task(NEXT_PTHREAD_CREATE);
    struct birth birth;
    long r = mqns_thread_begins(&birth);
    if (r == 0)
        return next(thread, attr, function, argument);
    struct thread_start *s = r < 0 ? NULL : malloc(sizeof *s);
    if (s == NULL) {
        if (r > 0)
            mqns_clone_in_parent(&birth, 0);
        return EAGAIN;
    }
    *s = (struct thread_start){ { .posix = function }, argument, birth };
    int result = next(thread, attr, start_posix_thread, s);
    if (result != 0) {
        mqns_clone_in_parent(&birth, 0);
        free(s);
    }
    return result;
}

int cshim_thrd_create(thrd_t *thread, int (*function)(void *), void *argument)
{
    typedef int create(thrd_t *, int (*)(void *), void *);
    create *next = (create *)mqns_next_task(NEXT_THRD_CREATE);
    struct birth birth;
    long r = mqns_thread_begins(&birth);
    if (r == 0)
        return next(thread, function, argument);
    struct thread_start *s = r < 0 ? NULL : malloc(sizeof *s);
    if (s == NULL) {
        if (r > 0)
            mqns_clone_in_parent(&birth, 0);
        return thrd_nomem;
    }
    *s = (struct thread_start){ { .c11 = function }, argument, birth };
    int result = next(thread, start_c11_thread, s);
    if (result != thrd_success) {
        mqns_clone_in_parent(&birth, 0);
        free(s);
    }
    return result;
}

/* ---- system(3) -------------------------------------------------------------------------------- */

static void end_command(void *pid)
{
    pid_t child = *(pid_t *)pid;
    kill(child, SIGKILL);
    while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
        ;
}

static struct {
    pthread_mutex_t lock;
    int users;
    struct sigaction interrupt, quit;
} ignoring = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* "During execution of the command, SIGCHLD will be blocked, and SIGINT and SIGQUIT will be ignored". */
static void begin_ignoring(void)
{
    struct sigaction ignore = { .sa_handler = SIG_IGN };
    pthread_mutex_lock(&ignoring.lock);
    if (ignoring.users++ == 0) {
        sigaction(SIGINT, &ignore, &ignoring.interrupt);
        sigaction(SIGQUIT, &ignore, &ignoring.quit);
    }
    pthread_mutex_unlock(&ignoring.lock);
}

static void end_ignoring(void *mask)
{
    pthread_mutex_lock(&ignoring.lock);
    if (--ignoring.users == 0) {
        sigaction(SIGINT, &ignoring.interrupt, NULL);
        sigaction(SIGQUIT, &ignoring.quit, NULL);
    }
    pthread_mutex_unlock(&ignoring.lock);
    pthread_sigmask(SIG_SETMASK, mask, NULL);
}

/* system(3) by way of posix_spawn(3), the hook of which takes the namespace along. */
int cshim_system(const char *command)
{
    static char shell[] = "sh", option[] = "-c", end[] = "--";
    char *argv[] = { shell, option, end, (char *)command, NULL };
    extern char **environ;
    posix_spawnattr_t attr;
    sigset_t chld, before, defaults;
    pid_t pid;
    int status = -1;
    volatile int error; /* pthread_cleanup_push may be a setjmp */
    sigemptyset(&chld);
    sigaddset(&chld, SIGCHLD);
    pthread_sigmask(SIG_BLOCK, &chld, &before);
    begin_ignoring();
    pthread_cleanup_push(end_ignoring, &before);
    sigemptyset(&defaults);
    if (ignoring.interrupt.sa_handler != SIG_IGN)
        sigaddset(&defaults, SIGINT);
    if (ignoring.quit.sa_handler != SIG_IGN)
        sigaddset(&defaults, SIGQUIT);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setsigmask(&attr, &before);
    posix_spawnattr_setsigdefault(&attr, &defaults);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
    error = posix_spawn(&pid, "/bin/sh", NULL, &attr, argv, environ);
    posix_spawnattr_destroy(&attr);
    if (error == 0) {
        pthread_cleanup_push(end_command, &pid);
        pid_t got;
        while ((got = waitpid(pid, &status, 0)) < 0 && errno == EINTR)
            ;
        if (got < 0) {
            error = errno;
            status = -1;
        }
        pthread_cleanup_pop(0);
    } else if (error != ENOMEM && error != EAGAIN) {
        /* "as though the command interpreter had terminated by _exit(127)" */
        status = 127 << 8;
        error = 0;
    }
    pthread_cleanup_pop(1);
    if (error != 0)
        errno = error;
    return status;
}
