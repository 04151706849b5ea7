/*
 * An ordinary program that uses POSIX message queues, and times them. It knows nothing of mqns: the
 * same binary runs on the kernel's queues, and on mqns with libmqns.so preloaded.
 *
 * Besides the workloads of workloads.h:
 *   eagain             mq_receive on an empty non-blocking queue
 *   getattr            mq_getattr
 *   expired            mq_timedreceive on an empty queue with a deadline in the past
 *   epoll-self         send, epoll_wait, receive in one process
 *   epoll-WHERE        round trip between two processes that each wait in epoll_wait
 *   notify-self        mq_notify, send, signal handler, receive
 *   notify-WHERE       round trip: send, the other is told by a signal, re-arms, receives, answers
 *   open               mq_open and mq_close of an existing queue
 *   create             mq_open(O_CREAT), mq_close, mq_unlink
 *   queues-N           pairs on N queues in turn
 *   among-N            mq_open and mq_close of one of N queues; making one more
 *   priorities-N       a pair with 4,000 messages of N priorities waiting, or N of them if that is more
 *   spaces-N           a pair, mq_open and unshare(CLONE_NEWIPC) beside N IPC namespaces in use
 *   processes-N        round trip with the longest asleep of N processes that wait at one queue, one CPU
 *   threads-N          the same with threads
 *   beside-SIZE        small pairs on one CPU, while two processes on the other send and receive SIZE on the same queue
 *   idle               CPU time that a process blocked in mq_receive uses, per second
 *   memory             N queues, at stages which the standard input steps through; scripts/bench looks at the memory
 *   tax-CALL           calls that are no business of a queue: read fcntl poll epoll open stat fork thread exec (posix_spawn of true)
 */
#include "bench.h"

#include <fcntl.h>
#include <mqueue.h>
#include <poll.h>
#include <pthread.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/stat.h>

struct chan {
    mqd_t queue;
    char name[48];
};

#define CHAN_PRIORITIES 1

static int chan_open(struct chan *c, int depth, size_t size) {
    static int serial;
    struct mq_attr attr = {.mq_maxmsg = depth, .mq_msgsize = (long)size};
    snprintf(c->name, sizeof c->name, "/bench-%d-%d", (int)getpid(), serial++);
    c->queue = mq_open(c->name, O_CREAT | O_EXCL | O_RDWR, 0600, &attr);
    return c->queue == (mqd_t)-1 ? -1 : 0;
}

static void chan_close(struct chan *c) {
    mq_unlink(c->name);
    mq_close(c->queue);
}

static inline void chan_send(struct chan *c, const void *message, size_t size, unsigned priority) {
    if (mq_send(c->queue, (const char *)message, size, priority) < 0) die("mq_send");
}

static inline size_t chan_recv(struct chan *c, void *message, size_t size) {
    ssize_t n = mq_receive(c->queue, (char *)message, size, NULL);
    if (n < 0) die("mq_receive");
    return (size_t)n;
}

#include "workloads.h"

/* ---- single calls ---- */

static void eagain_loop(void *ctx, uint64_t n) {
    struct pair *p = ctx;
    for (uint64_t i = 0; i < n; i++)
        if (mq_receive(p->chan.queue, p->in, p->size, NULL) != -1 || errno != EAGAIN) die("mq_receive, expected EAGAIN");
}

static void getattr_loop(void *ctx, uint64_t n) {
    struct pair *p = ctx;
    struct mq_attr attr;
    for (uint64_t i = 0; i < n; i++) CHECK(mq_getattr(p->chan.queue, &attr));
}

static void expired_loop(void *ctx, uint64_t n) {
    struct pair *p = ctx;
    struct timespec past = {1, 0};
    for (uint64_t i = 0; i < n; i++)
        if (mq_timedreceive(p->chan.queue, p->in, p->size, NULL, &past) != -1 || errno != ETIMEDOUT)
            die("mq_timedreceive, expected ETIMEDOUT");
}

static void run_call(void (*loop)(void *, uint64_t), int nonblock) {
    struct pair p;
    pair_open(&p, 10, SMALL);
    struct mq_attr attr = {.mq_flags = nonblock ? O_NONBLOCK : 0};
    CHECK(mq_setattr(p.chan.queue, &attr, NULL));
    report("ns", measure(loop, &p));
    chan_close(&p.chan);
}

static void open_loop(void *ctx, uint64_t n) {
    struct pair *p = ctx;
    for (uint64_t i = 0; i < n; i++) {
        mqd_t q = mq_open(p->chan.name, O_RDWR);
        if (q == (mqd_t)-1) die("mq_open");
        mq_close(q);
    }
}

static void create_loop(void *ctx, uint64_t n) {
    (void)ctx;
    for (uint64_t i = 0; i < n; i++) {
        struct chan c;
        if (chan_open(&c, 10, SMALL) < 0) die("mq_open");
        chan_close(&c);
    }
}

/* ---- many queues ---- */

static struct { struct chan *chan; uint64_t n; } many;

static void queues_loop(void *ctx, uint64_t n) {
    struct pair *p = ctx;
    static uint64_t next;
    for (uint64_t i = 0; i < n; i++) {
        struct chan *c = &many.chan[next++ % many.n];
        chan_send(c, p->out, SMALL, 0);
        chan_recv(c, p->in, SMALL);
    }
}

static void open_many(int n, int depth) {
    many.chan = calloc((size_t)n, sizeof *many.chan);
    for (many.n = 0; many.n < (uint64_t)n; many.n++)
        if (chan_open(&many.chan[many.n], depth, SMALL) < 0) {
            int e = errno;
            while (many.n > 0) chan_close(&many.chan[--many.n]);
            errno = e;
            skip("mq_open");
        }
}

static void close_many(void) {
    for (uint64_t i = 0; i < many.n; i++) chan_close(&many.chan[i]);
}

static void run_queues(int n) {
    struct pair p = {.out = buffer(SMALL), .in = buffer(SMALL)};
    open_many(n, 1);
    queues_loop(&p, 2 * (uint64_t)n);
    report("ns", measure(queues_loop, &p));
    close_many();
}

/* Opening one of N queues, and making one more. */
static void run_among(int n) {
    struct pair p = {0};
    open_many(n, 1);
    for (uint64_t i = 0; i < many.n; i++) mq_close(many.chan[i].queue);
    p.chan = many.chan[many.n / 2];
    report("ns", measure(open_loop, &p));
    report("create_ns", measure(create_loop, &p));
    for (uint64_t i = 0; i < many.n; i++) mq_unlink(many.chan[i].name);
}

/* ---- many priorities ---- */

static void run_priorities(int n) {
    struct pair p;
    int waiting = n > 4000 ? n : 4000;
    pair_open(&p, waiting + 1, SMALL);
    for (int i = 0; i < PRIORITIES; i++) p.priority[i] = (uint16_t)(p.priority[i] % n * (32768 / n));
    for (int i = 0; i < waiting; i++) chan_send(&p.chan, p.out, SMALL, (unsigned)(i % n * (32768 / n)));
    report("ns", measure(pair_random_loop, &p));
    chan_close(&p.chan);
}

/* ---- many namespaces ---- */

static void unshare_loop(void *ctx, uint64_t n) {
    (void)ctx;
    for (uint64_t i = 0; i < n; i++) CHECK(unshare(CLONE_NEWIPC));
}

/* N other namespaces, each with a process and a queue in it. */
static void run_spaces(int n) {
    struct pair p;
    int ready[2], over[2];
    char c;
    CHECK(pipe(ready));
    CHECK(pipe(over));
    pair_open(&p, 10, SMALL);
    for (int i = 0; i < n; i++) {
        pid_t pid = fork();
        CHECK(pid);
        if (pid == 0) {
            struct chan own;
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            close(over[1]);
            int failed = unshare(CLONE_NEWIPC) < 0 || chan_open(&own, 1, SMALL) < 0;
            if (write(ready[1], failed ? "f" : "", 1) != 1 || failed || read(over[0], &c, 1) != 0) _exit(1);
            chan_close(&own);
            exit(0);
        }
    }
    int failed = 0;
    for (int i = 0; i < n; i++) failed += read(ready[0], &c, 1) != 1 || c != 0;
    if (!failed) {
        report("ns", measure(pair_loop, &p));
        report("open_ns", measure(open_loop, &p));
        mq_unlink(p.chan.name);
        report("unshare_ns", measure(unshare_loop, NULL));
    }
    close(over[1]);
    while (wait(NULL) > 0) continue;
    mq_close(p.chan.queue);
    if (failed) skip("a process for each namespace");
}

/* ---- many waiting ---- */

/* Answers each message until one says to end. */
static void *answer(void *ctx) {
    struct duplex *d = ctx;
    char message[SMALL];
    for (;;) {
        chan_recv(&d->there, message, SMALL);
        if (message[0]) return NULL;
        chan_send(&d->back, message, SMALL, 0);
    }
}

/* Round trip with the longest asleep of N that wait at one queue, all on one CPU. */
static void run_waiters(int n, int threads) {
    struct duplex d;
    struct samples s;
    pthread_attr_t small;
    pthread_t *thread = calloc((size_t)n, sizeof *thread);
    char message[SMALL] = {0};
    open_or_skip(&d.there, 10, SMALL);
    open_or_skip(&d.back, 10, SMALL);
    sample_init(&s);
    pin(ON_FIRST);
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 64 << 10);
    fflush(stdout);
    for (int i = 0; i < n; i++)
        if (threads) {
            if (pthread_create(&thread[i], &small, answer, &d)) die("pthread_create");
        } else {
            pid_t pid = fork();
            CHECK(pid);
            if (pid == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                answer(&d);
                _exit(0);
            }
        }
    /* Everybody has come to wait when everybody has answered, twice. */
    for (int i = 0; i < 2 * n; i++) {
        chan_send(&d.there, message, SMALL, 0);
        chan_recv(&d.back, message, SMALL);
    }
    uint64_t first = now_ns(), before = first;
    do {
        chan_send(&d.there, message, SMALL, 0);
        chan_recv(&d.back, message, SMALL);
        uint64_t t = now_ns();
        sample(&s, (double)(t - before));
        before = t;
    } while (before - first < span_ns);
    message[0] = 1;
    for (int i = 0; i < n; i++) chan_send(&d.there, message, SMALL, 0);
    for (int i = 0; threads && i < n; i++) pthread_join(thread[i], NULL);
    while (!threads && wait(NULL) > 0) continue;
    report_samples(&s, "ns", "p99_ns");
    chan_close(&d.there);
    chan_close(&d.back);
}

static void stage(const char *name) {
    printf("%s\tstage\t%s\n", workload, name);
    fflush(stdout);
    if (getchar() == EOF) exit(1);
}

static void run_memory(void) {
    enum { N = 200 };
    struct pair p;
    pair_open(&p, 10, SMALL);
    pair_loop(&p, 10);
    p.size = SMALL;
    /* What a second queue needs once and for all is not counted either. */
    stage("none");
    open_many(N, 10);
    stage("opened");
    queues_loop(&p, N);
    stage("used");
    for (uint64_t i = 0; i < many.n; i++)
        for (int k = 0; k < 10; k++) chan_send(&many.chan[i], p.out, SMALL, 0);
    for (uint64_t i = 0; i < many.n; i++)
        for (int k = 0; k < 10; k++) chan_recv(&many.chan[i], p.in, SMALL);
    stage("filled");
    report("queues", N);
    close_many();
    chan_close(&p.chan);
}

/* ---- epoll ---- */

static int watch(struct chan *c) {
    struct epoll_event e = {.events = EPOLLIN};
    int ep = epoll_create1(EPOLL_CLOEXEC);
    CHECK(ep);
    CHECK(epoll_ctl(ep, EPOLL_CTL_ADD, c->queue, &e));
    return ep;
}

static inline void await(int ep) {
    struct epoll_event e;
    if (epoll_wait(ep, &e, 1, -1) != 1) die("epoll_wait");
}

struct watched { struct pair pair; int ep; };

static void epoll_loop(void *ctx, uint64_t n) {
    struct watched *w = ctx;
    for (uint64_t i = 0; i < n; i++) {
        chan_send(&w->pair.chan, w->pair.out, SMALL, 0);
        await(w->ep);
        chan_recv(&w->pair.chan, w->pair.in, SMALL);
    }
}

static void run_epoll_self(void) {
    struct watched w;
    pair_open(&w.pair, 10, SMALL);
    w.ep = watch(&w.pair.chan);
    report("ns", measure(epoll_loop, &w));
    chan_close(&w.pair.chan);
}

static uint64_t epoll_pong(void *ctx) {
    struct duplex *d = ctx;
    char message[SMALL];
    int ep = watch(&d->there);
    for (uint64_t n = 0;; n++) {
        await(ep);
        chan_recv(&d->there, message, SMALL);
        if (message[0]) return n;
        chan_send(&d->back, message, SMALL, 0);
    }
}

static void run_epoll(struct sides where) {
    struct duplex d;
    struct samples s;
    char message[SMALL] = {0};
    open_or_skip(&d.there, 10, SMALL);
    open_or_skip(&d.back, 10, SMALL);
    sample_init(&s);
    int who = spawn(where.b, epoll_pong, &d), ep = watch(&d.back);
    pin(where.a);
    uint64_t first = go(), before = first;
    do {
        chan_send(&d.there, message, SMALL, 0);
        await(ep);
        chan_recv(&d.back, message, SMALL);
        uint64_t t = now_ns();
        sample(&s, (double)(t - before));
        before = t;
    } while (before - first < span_ns);
    message[0] = 1;
    chan_send(&d.there, message, SMALL, 0);
    join(who);
    report_samples(&s, "ns", "p99_ns");
    chan_close(&d.there);
    chan_close(&d.back);
}

/* ---- notification ---- */

static volatile sig_atomic_t told;

static void on_signal(int signo) {
    (void)signo;
    told++;
}

static void arm(struct chan *c) {
    struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    CHECK(mq_notify(c->queue, &e));
}

static void notify_loop(void *ctx, uint64_t n) {
    struct pair *p = ctx;
    for (uint64_t i = 0; i < n; i++) {
        int before = told;
        arm(&p->chan);
        chan_send(&p->chan, p->out, SMALL, 0);
        if (told == before) die("the signal did not come before mq_send returned");
        chan_recv(&p->chan, p->in, SMALL);
    }
}

static void run_notify_self(void) {
    struct pair p;
    struct sigaction act = {.sa_handler = on_signal};
    CHECK(sigaction(SIGUSR1, &act, NULL));
    pair_open(&p, 10, SMALL);
    report("ns", measure(notify_loop, &p));
    chan_close(&p.chan);
}

static int armed_pipe[2];

static uint64_t notify_pong(void *ctx) {
    struct duplex *d = ctx;
    char message[SMALL];
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    arm(&d->there);
    if (write(armed_pipe[1], "", 1) != 1) die("write");
    for (uint64_t n = 0;; n++) {
        if (sigwaitinfo(&set, NULL) < 0) die("sigwaitinfo");
        arm(&d->there);
        chan_recv(&d->there, message, SMALL);
        if (message[0]) return n;
        chan_send(&d->back, message, SMALL, 0);
    }
}

static void run_notify(struct sides where) {
    struct duplex d;
    struct samples s;
    char message[SMALL] = {0};
    CHECK(pipe(armed_pipe));
    open_or_skip(&d.there, 10, SMALL);
    open_or_skip(&d.back, 10, SMALL);
    sample_init(&s);
    int who = spawn(where.b, notify_pong, &d);
    pin(where.a);
    go();
    if (read(armed_pipe[0], message, 1) != 1) die("read");
    uint64_t first = now_ns(), before = first;
    do {
        chan_send(&d.there, message, SMALL, 0);
        chan_recv(&d.back, message, SMALL);
        uint64_t t = now_ns();
        sample(&s, (double)(t - before));
        before = t;
    } while (before - first < span_ns);
    message[0] = 1;
    chan_send(&d.there, message, SMALL, 0);
    join(who);
    report_samples(&s, "ns", "p99_ns");
    chan_close(&d.there);
    chan_close(&d.back);
}

/* ---- small beside large ---- */

struct beside { struct chan chan; size_t size; };

/* Sends one and receives one in turn: the queue never holds more than one message per process, so nobody finds it
 * full or empty. The small ones have the higher priority; whoever gets another's message has received one all the same. */
static uint64_t large_pairs(void *ctx) {
    struct beside *b = ctx;
    char *out = buffer(b->size), *in = buffer(b->size);
    uint64_t n = 0;
    while (!__atomic_load_n(&shared->stop, __ATOMIC_RELAXED)) {
        chan_send(&b->chan, out, b->size, 0);
        chan_recv(&b->chan, in, b->size);
        n++;
    }
    return n;
}

static void run_beside(size_t size) {
    struct beside b = {.size = size};
    struct samples send, receive;
    char *in = buffer(size), out[SMALL] = {0};
    open_or_skip(&b.chan, 6, size);
    sample_init(&send);
    sample_init(&receive);
    spawn(ON_SECOND, large_pairs, &b);
    spawn(ON_SECOND, large_pairs, &b);
    pin(ON_FIRST);
    uint64_t start = go(), end = start + span_ns;
    for (uint64_t t = start; t < end;) {
        t = now_ns();
        chan_send(&b.chan, out, SMALL, 1);
        uint64_t sent = now_ns();
        size_t got = chan_recv(&b.chan, in, size);
        uint64_t received = now_ns();
        sample(&send, (double)(sent - t));
        if (got == SMALL) sample(&receive, (double)(received - sent));
    }
    __atomic_store_n(&shared->stop, 1, __ATOMIC_RELAXED);
    join(0);
    join(1);
    report_samples(&send, "ns", "p99_ns");
    if (receive.n) report_samples(&receive, "receive_ns", "receive_p99_ns");
    report("large", (double)(shared->who[0].count + shared->who[1].count));
    chan_close(&b.chan);
}

/* ---- idle ---- */

static void run_idle(void) {
    struct chan c;
    struct timespec settle = {0, 50000000}, span = {0, (long)(span_ns % 1000000000)};
    clockid_t clock;
    char farewell[SMALL] = {1};
    open_or_skip(&c, 10, SMALL);
    int who = spawn(ANYWHERE, stream_receiver, &c);
    go();
    nanosleep(&settle, NULL);
    if (clock_getcpuclockid(child[who], &clock)) die("clock_getcpuclockid");
    uint64_t cpu = cpu_ns(clock), start = now_ns();
    nanosleep(&span, NULL);
    cpu = cpu_ns(clock) - cpu;
    report("cpu_ns", (double)cpu * 1e9 / (double)(now_ns() - start));
    chan_send(&c, farewell, SMALL, 0);
    join(who);
    chan_close(&c);
}

/* ---- calls of others ---- */

static struct { int null, zero, ep; } tax;

static void tax_read(void *ctx, uint64_t n) {
    char c;
    (void)ctx;
    for (uint64_t i = 0; i < n; i++) CHECK(read(tax.zero, &c, 1));
}

static void tax_fcntl(void *ctx, uint64_t n) {
    (void)ctx;
    for (uint64_t i = 0; i < n; i++) CHECK(fcntl(tax.zero, F_GETFL));
}

static void tax_poll(void *ctx, uint64_t n) {
    (void)ctx;
    for (uint64_t i = 0; i < n; i++) {
        struct pollfd p = {.fd = tax.zero, .events = POLLIN};
        CHECK(poll(&p, 1, 0));
    }
}

static void tax_epoll(void *ctx, uint64_t n) {
    struct epoll_event e;
    (void)ctx;
    for (uint64_t i = 0; i < n; i++) CHECK(epoll_wait(tax.ep, &e, 1, 0));
}

static void tax_open(void *ctx, uint64_t n) {
    (void)ctx;
    for (uint64_t i = 0; i < n; i++) {
        int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        CHECK(fd);
        close(fd);
    }
}

static void tax_stat(void *ctx, uint64_t n) {
    struct stat st;
    (void)ctx;
    for (uint64_t i = 0; i < n; i++) CHECK(stat("/dev/null", &st));
}

static void tax_fork(void *ctx, uint64_t n) {
    (void)ctx;
    for (uint64_t i = 0; i < n; i++) {
        pid_t p = fork();
        CHECK(p);
        if (p == 0) _exit(0);
        CHECK(waitpid(p, NULL, 0));
    }
}

static void *nothing(void *arg) { return arg; }

static void tax_thread(void *ctx, uint64_t n) {
    (void)ctx;
    for (uint64_t i = 0; i < n; i++) {
        pthread_t t;
        if (pthread_create(&t, NULL, nothing, NULL)) die("pthread_create");
        pthread_join(t, NULL);
    }
}

static void tax_exec(void *ctx, uint64_t n) {
    (void)ctx;
    for (uint64_t i = 0; i < n; i++) {
        pid_t p;
        char *args[] = {"true", NULL};
        if (posix_spawn(&p, "/bin/true", NULL, NULL, args, environ)) die("posix_spawn");
        int status;
        CHECK(waitpid(p, &status, 0));
        if (status) die("/bin/true");
    }
}

static int run_tax(const char *call) {
    static const struct { const char *name; void (*loop)(void *, uint64_t); } calls[] = {
        {"read", tax_read}, {"fcntl", tax_fcntl}, {"poll", tax_poll},     {"epoll", tax_epoll}, {"open", tax_open},
        {"stat", tax_stat}, {"fork", tax_fork},   {"thread", tax_thread}, {"exec", tax_exec},
    };
    CHECK(tax.zero = open("/dev/zero", O_RDONLY | O_CLOEXEC));
    CHECK(tax.ep = epoll_create1(EPOLL_CLOEXEC));
    pin(ON_FIRST);
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        if (!strcmp(call, calls[i].name)) {
            report("ns", measure(calls[i].loop, NULL));
            return 1;
        }
    return 0;
}

int main(int argc, char **argv) {
    char *word[4];
    int words = bench_args(argc, argv, word, 4);
    if (run_common(words, word)) return 0;
    if (!strcmp(workload, "eagain")) run_call(eagain_loop, 1);
    else if (!strcmp(workload, "getattr")) run_call(getattr_loop, 0);
    else if (!strcmp(workload, "expired")) run_call(expired_loop, 0);
    else if (!strcmp(workload, "open")) run_call(open_loop, 0);
    else if (!strcmp(workload, "create")) run_call(create_loop, 0);
    else if (!strcmp(workload, "epoll-self")) run_epoll_self();
    else if (!strcmp(workload, "notify-self")) run_notify_self();
    else if (!strcmp(workload, "memory")) run_memory();
    else if (!strcmp(workload, "idle")) run_idle();
    else if (words == 2 && !strcmp(word[0], "epoll")) run_epoll(sides_of(word[1]));
    else if (words == 2 && !strcmp(word[0], "notify")) run_notify(sides_of(word[1]));
    else if (words == 2 && !strcmp(word[0], "queues")) run_queues(atoi(word[1]));
    else if (words == 2 && !strcmp(word[0], "among")) run_among(atoi(word[1]));
    else if (words == 2 && !strcmp(word[0], "priorities")) run_priorities(atoi(word[1]));
    else if (words == 2 && !strcmp(word[0], "spaces")) run_spaces(atoi(word[1]));
    else if (words == 2 && !strcmp(word[0], "processes")) run_waiters(atoi(word[1]), 0);
    else if (words == 2 && !strcmp(word[0], "threads")) run_waiters(atoi(word[1]), 1);
    else if (words == 2 && !strcmp(word[0], "beside")) run_beside(size_of(word[1]));
    else if (words == 2 && !strcmp(word[0], "tax") && run_tax(word[1])) return 0;
    else {
        fprintf(stderr, "no such workload: %s\n", workload);
        return 2;
    }
    return 0;
}
