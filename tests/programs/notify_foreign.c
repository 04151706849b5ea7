/* Notifications whose senders could not signal the process that registered: of another user, or in
 * an inner pid namespace. Prints what comes; to be run as root. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SENDER 12345
#define OWNER 23456

static const char *const name = "/notify_foreign";
static pid_t sender;
static volatile sig_atomic_t handled;
static siginfo_t seen;

#define CHECK(call)                                                                                 \
    do {                                                                                            \
        if ((call) == -1) {                                                                         \
            printf("line %d: %s: %s\n", __LINE__, #call, strerror(errno));                          \
            exit(1);                                                                                \
        }                                                                                           \
    } while (0)

static void show(const char *what, const siginfo_t *i)
{
    printf("%s: signo %s code %d errno %d from %s uid %d value %d\n", what,
           i->si_signo == SIGUSR1 ? "USR1" : i->si_signo == SIGRTMIN ? "RTMIN" : i->si_signo == SIGIO ? "IO" : "?",
           i->si_code, i->si_errno, i->si_pid == sender ? "the sender" : "somebody", (int)i->si_uid,
           i->si_value.sival_int);
}

static void handler(int signo, siginfo_t *info, void *context)
{
    seen = *info;
    handled++;
}

static mqd_t create(int flags)
{
    struct mq_attr attr = { .mq_maxmsg = 3, .mq_msgsize = 16 };
    mode_t before = umask(0);
    mqd_t d = mq_open(name, O_CREAT | O_EXCL | O_RDWR | O_NONBLOCK | flags, 0666, &attr);
    CHECK(d);
    umask(before);
    return d;
}

static void destroy(mqd_t d)
{
    mq_close(d);
    CHECK(mq_unlink(name));
}

static void enroll(mqd_t d, int signo, int value)
{
    struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = signo, .sigev_value.sival_int = value };
    CHECK(mq_notify(d, &event));
}

/* Runs `f` as a child of user `uid`, to its end. */
static void as(uid_t uid, void (*f)(mqd_t), mqd_t d)
{
    int status;
    fflush(stdout);
    CHECK(sender = fork());
    if (sender == 0) {
        if (uid != 0) {
            CHECK(setgid(uid));
            CHECK(setuid(uid));
        }
        f(d);
        fflush(stdout);
        _exit(0);
    }
    CHECK(TEMP_FAILURE_RETRY(waitpid(sender, &status, 0)));
    if (status != 0)
        printf("the sender ended with %x\n", status);
}

static void send_one(mqd_t d) { CHECK(mq_send(d, "x", 1, 0)); }

static void open_and_send(mqd_t unused)
{
    mqd_t d = mq_open(name, O_WRONLY);
    CHECK(d);
    send_one(d);
    mq_close(d);
}

static void send_from_inner_namespace(mqd_t d)
{
    CHECK(unshare(CLONE_NEWPID));
    as(0, send_one, d);
}

static void drain(mqd_t d)
{
    char buffer[16];
    while (mq_receive(d, buffer, sizeof buffer, NULL) >= 0)
        ;
}

/* What waits for sigwaitinfo, without waiting. */
static void pending(const char *what, int signo)
{
    const struct timespec now = { 0, 0 };
    sigset_t set;
    siginfo_t info;
    sigemptyset(&set);
    sigaddset(&set, signo);
    if (sigtimedwait(&set, &info, &now) > 0)
        show(what, &info);
    else
        printf("%s: %s\n", what, strerror(errno));
}

static void block(int how, int signo)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signo);
    sigprocmask(how, &set, NULL);
}

static void by_handler(void)
{
    struct sigaction action = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO };
    static const int signals[] = { SIGUSR1, SIGIO };
    mqd_t d = create(0);
    CHECK(sigaction(SIGUSR1, &action, NULL));
    CHECK(sigaction(SIGIO, &action, NULL));
    for (int round = 0; round < 4; round++) {
        handled = 0;
        enroll(d, signals[round / 2], round);
        as(SENDER, round % 2 ? open_and_send : send_one, d);
        show("handler", &seen);
        printf("handler ran %d times\n", (int)handled);
        drain(d);
    }
    /* And one who could signal. */
    handled = 0;
    enroll(d, SIGUSR1, 7);
    as(0, send_one, d);
    show("of the same user", &seen);
    printf("handler ran %d times\n", (int)handled);
    drain(d);
    /* SA_RESETHAND is used up by the notification. */
    action.sa_flags |= SA_RESETHAND;
    CHECK(sigaction(SIGUSR1, &action, NULL));
    enroll(d, SIGUSR1, 8);
    as(SENDER, send_one, d);
    show("once", &seen);
    CHECK(sigaction(SIGUSR1, NULL, &action));
    printf("then %s\n", action.sa_handler == SIG_DFL ? "the default" : "a handler");
    destroy(d);
}

static void by_waiting(void)
{
    const struct timespec second = { 1, 0 };
    mqd_t d = create(0);
    sigset_t set;
    siginfo_t info;
    int signo;
    block(SIG_BLOCK, SIGRTMIN);
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN);
    enroll(d, SIGRTMIN, 10);
    as(SENDER, send_one, d);
    CHECK(sigwaitinfo(&set, &info));
    show("sigwaitinfo", &info);
    drain(d);
    enroll(d, SIGRTMIN, 11);
    as(SENDER, send_one, d);
    CHECK(sigtimedwait(&set, &info, &second));
    show("sigtimedwait", &info);
    drain(d);
    enroll(d, SIGRTMIN, 12);
    as(SENDER, send_one, d);
    printf("without siginfo: %d\n", sigtimedwait(&set, NULL, &second) == SIGRTMIN);
    drain(d);
    enroll(d, SIGRTMIN, 13);
    as(SENDER, send_one, d);
    CHECK(-sigwait(&set, &signo));
    printf("sigwait: %d\n", signo == SIGRTMIN);
    pending("nothing is left", SIGRTMIN);
    destroy(d);
}

static void from_inner_namespace(void)
{
    mqd_t d = create(0);
    sigset_t set;
    siginfo_t info;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN);
    enroll(d, SIGRTMIN, 20);
    as(0, send_from_inner_namespace, d);
    CHECK(sigwaitinfo(&set, &info));
    printf("inner namespace: code %d uid %d value %d\n", info.si_code, (int)info.si_uid, info.si_value.sival_int);
    destroy(d);
}

/* The signal is pending; what becomes of the registration afterwards doesn't matter to it. */
static void taken_late(void)
{
    mqd_t d = create(0);
    enroll(d, SIGRTMIN, 30);
    as(SENDER, send_one, d);
    drain(d);
    enroll(d, SIGRTMIN, 31);
    pending("after the next registration", SIGRTMIN);
    pending("only one", SIGRTMIN);
    as(SENDER, send_one, d);
    mq_notify(d, NULL);
    pending("after its removal", SIGRTMIN);
    drain(d);
    enroll(d, SIGRTMIN, 32);
    as(SENDER, send_one, d);
    destroy(d);
    pending("after the close", SIGRTMIN);
    pending("nothing is left", SIGRTMIN);
}

static void removed(void)
{
    mqd_t d = create(0);
    enroll(d, SIGRTMIN, 40);
    CHECK(mq_notify(d, NULL));
    as(SENDER, send_one, d);
    pending("removed", SIGRTMIN);
    drain(d);
    enroll(d, SIGRTMIN, 41);
    CHECK(close(dup(d)));
    as(SENDER, send_one, d);
    pending("duplicate closed", SIGRTMIN);
    drain(d);
    mqd_t other = mq_open(name, O_RDONLY);
    CHECK(other);
    enroll(other, SIGRTMIN, 42);
    CHECK(dup2(1, other));
    as(SENDER, send_one, d);
    pending("replaced by dup2", SIGRTMIN);
    close(other);
    destroy(d);
}

static void poll_it(mqd_t d)
{
    struct pollfd poll_in = { d, POLLIN, 0 };
    CHECK(poll(&poll_in, 1, 0));
}

/* Somebody polls, so that every change shows; the process that is registered hears of none of it. */
static void polled(void)
{
    mqd_t d = create(0);
    struct sigaction action = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO };
    CHECK(sigaction(SIGUSR1, &action, NULL));
    handled = 0;
    send_one(d);
    enroll(d, SIGUSR1, 50);
    as(SENDER, poll_it, d);
    as(SENDER, send_one, d);
    as(SENDER, send_one, d);
    drain(d);
    printf("polled: handler ran %d times\n", (int)handled);
    as(SENDER, send_one, d);
    show("polled", &seen);
    printf("polled: handler ran %d times\n", (int)handled);
    drain(d);
    as(SENDER, send_one, d);
    printf("polled: handler ran %d times\n", (int)handled);
    destroy(d);
}

static void flags(void)
{
    mqd_t d = create(O_CLOEXEC | O_NOFOLLOW);
    printf("flags %o owner %d", fcntl(d, F_GETFL), fcntl(d, F_GETOWN));
    enroll(d, SIGRTMIN, 60);
    printf(", registered %o owner %d signal %d", fcntl(d, F_GETFL), fcntl(d, F_GETOWN), fcntl(d, F_GETSIG));
    CHECK(mq_notify(d, NULL));
    printf(", afterwards %o\n", fcntl(d, F_GETFL));
    enroll(d, SIGRTMIN, 61);
    as(SENDER, send_one, d);
    printf("fired %o", fcntl(d, F_GETFL));
    pending("", SIGRTMIN);
    CHECK(close(dup(d)));
    printf("closed %o\n", fcntl(d, F_GETFL));
    destroy(d);
    d = create(0);
    printf("flags %o", fcntl(d, F_GETFL));
    enroll(d, SIGRTMIN, 62);
    printf(", registered %o", fcntl(d, F_GETFL));
    CHECK(fcntl(d, F_SETFL, 0));
    printf(", blocking %o", fcntl(d, F_GETFL));
    CHECK(fcntl(d, F_SETFL, O_NONBLOCK));
    as(SENDER, send_one, d);
    pending(", still armed", SIGRTMIN);
    destroy(d);
}

/* Neither of them is root. */
static void register_and_wait(mqd_t d)
{
    char byte;
    int ready[2];
    sigset_t set;
    siginfo_t info;
    CHECK(pipe(ready));
    CHECK(sender = fork());
    if (sender == 0) {
        /* Still root: the caller becomes somebody else below. */
        CHECK(read(ready[0], &byte, 1));
        CHECK(setgid(SENDER));
        CHECK(setuid(SENDER));
        open_and_send(d);
        _exit(0);
    }
    CHECK(setgid(OWNER));
    CHECK(setuid(OWNER));
    enroll(d, SIGRTMIN, 70);
    CHECK(write(ready[1], "", 1));
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN);
    CHECK(sigwaitinfo(&set, &info));
    show("two users", &info);
    CHECK(waitpid(sender, NULL, 0));
}

static void two_users(void)
{
    mqd_t d = create(0);
    as(0, register_and_wait, d);
    destroy(d);
}

int main(void)
{
    alarm(30);
    by_handler();
    by_waiting();
    from_inner_namespace();
    taken_late();
    removed();
    polled();
    flags();
    two_users();
    return 0;
}
