/*
 * The workloads that make sense for any bounded message channel, written once, so that the kernel's
 * queue, mqns and every peer run the same loops. The program that includes this defines
 *
 *   struct chan;                                                    one channel
 *   int     chan_open(struct chan *, int depth, size_t size);       0, or -1 with errno
 *   void    chan_close(struct chan *);
 *   void    chan_send(struct chan *, const void *, size_t, unsigned priority);   blocks; dies on error
 *   size_t  chan_recv(struct chan *, void *, size_t size);          blocks; dies on error
 *   CHAN_PRIORITIES                                                 1 if it orders by priority
 *
 * pair-SIZE          send and receive one message, one thread
 * waiting-N          the same with N messages of random priorities waiting
 * waitfifo-N         the same with N messages of one priority waiting: every pair moves to another slot
 * fill-N             fill with N messages of random priorities, then drain; time per message
 * stream-DEPTH-WHERE one process sends 64-byte messages to another as fast as it goes; time per message
 * many-N-WHERE       N senders, N receivers, one channel of depth 10
 * pingpong-WHERE     round trip of 64 bytes over two channels
 * wake-WHERE         from the send to the return of a receiver that slept for 1 ms
 * slow-WHERE         a sender that works for 20 us between messages: what waiting costs
 * WHERE is one (both sides on the first CPU), two (one CPU each), both (free on the two), any.
 */
#ifndef WORKLOADS_H
#define WORKLOADS_H

#include "bench.h"

enum { SMALL = 64, PRIORITIES = 65536 };

static void open_or_skip(struct chan *c, int depth, size_t size) {
    if (chan_open(c, depth, size) < 0) skip("open");
}

/* ---- one thread ---- */

struct pair {
    struct chan chan;
    char *out, *in;
    size_t size;
    uint16_t *priority; /* a table, so that no random numbers are drawn while measuring */
};

static uint16_t *random_priorities(void) {
    uint16_t *table = (uint16_t *)malloc(PRIORITIES * sizeof *table);
    uint64_t x = 88172645463325252ull;
    for (int i = 0; i < PRIORITIES; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        table[i] = (uint16_t)(x >> 20 & 32767);
    }
    return table;
}

static void pair_loop(void *ctx, uint64_t n) {
    struct pair *p = (struct pair *)ctx;
    for (uint64_t i = 0; i < n; i++) {
        chan_send(&p->chan, p->out, p->size, 0);
        chan_recv(&p->chan, p->in, p->size);
    }
}

static void pair_random_loop(void *ctx, uint64_t n) {
    struct pair *p = (struct pair *)ctx;
    for (uint64_t i = 0; i < n; i++) {
        chan_send(&p->chan, p->out, p->size, p->priority[i % PRIORITIES]);
        chan_recv(&p->chan, p->in, p->size);
    }
}

static void pair_open(struct pair *p, int depth, size_t size) {
    open_or_skip(&p->chan, depth, size);
    p->size = size;
    p->out = (char *)buffer(size);
    p->in = (char *)buffer(size);
    p->priority = random_priorities();
}

static void run_pair(size_t size) {
    struct pair p;
    pair_open(&p, size > 8192 ? 1 : 10, size);
    report("ns", measure(pair_loop, &p));
    chan_close(&p.chan);
}

static void run_waiting(int waiting, int fifo) {
    struct pair p;
    pair_open(&p, waiting + 1, SMALL);
    for (int i = 0; i < waiting; i++) chan_send(&p.chan, p.out, SMALL, fifo ? 0 : p.priority[i]);
    report("ns", measure(fifo ? pair_loop : pair_random_loop, &p));
    chan_close(&p.chan);
}

static void run_fill(int n) {
    struct pair p;
    pair_open(&p, n, SMALL);
    enum { PASSES = 64 };
    double sum[PASSES], fill[PASSES];
    int passes = 0;
    /* The first pass touches fresh memory and is reported apart. */
    double first = 0;
    for (uint64_t end = now_ns() + span_ns; passes < PASSES && (passes < 2 || now_ns() < end); passes++) {
        uint64_t start = now_ns();
        for (int i = 0; i < n; i++) chan_send(&p.chan, p.out, SMALL, p.priority[i]);
        uint64_t full = now_ns();
        for (int i = 0; i < n; i++) chan_recv(&p.chan, p.in, SMALL);
        uint64_t empty = now_ns();
        sum[passes] = (double)(empty - start) / n;
        fill[passes] = (double)(full - start) / n;
        if (passes == 0) first = sum[0];
    }
    report("ns", quantile(sum + 1, (size_t)passes - 1, 0.5));
    report("fill_ns", quantile(fill + 1, (size_t)passes - 1, 0.5));
    report("first_ns", first);
    chan_close(&p.chan);
}

/* ---- streams ---- */

static uint64_t stream_sender(void *ctx) {
    struct chan *c = (struct chan *)ctx;
    char message[SMALL] = {0};
    uint64_t n = 0, end = now_ns() + span_ns;
    do {
        for (int i = 0; i < 64; i++) chan_send(c, message, SMALL, 0);
        n += 64;
    } while (now_ns() < end);
    return n;
}

static uint64_t stream_receiver(void *ctx) {
    struct chan *c = (struct chan *)ctx;
    char message[SMALL];
    for (uint64_t n = 0;; n++) {
        chan_recv(c, message, SMALL);
        if (message[0]) return n; /* the parent's farewell: everything sent has been received */
    }
}

static void run_stream(int depth, int senders, int receivers, struct sides where) {
    struct chan c;
    open_or_skip(&c, depth, SMALL);
    int who = 0;
    for (int i = 0; i < receivers; i++) who = spawn(where.b, stream_receiver, &c);
    for (int i = 0; i < senders; i++) who = spawn(where.a, stream_sender, &c);
    uint64_t start = go();
    for (int i = receivers; i <= who; i++) join(i);
    char farewell[SMALL] = {1};
    for (int i = 0; i < receivers; i++) chan_send(&c, farewell, SMALL, 0);
    uint64_t sent = 0, received = 0, end = 0, cpu = 0;
    for (int i = 0; i <= who; i++) {
        if (i < receivers) {
            join(i);
            received += shared->who[i].count;
            if (shared->who[i].end > end) end = shared->who[i].end;
        } else {
            sent += shared->who[i].count;
        }
        cpu += shared->who[i].cpu;
    }
    if (sent != received) {
        fprintf(stderr, "%s: sent %llu, received %llu\n", workload, (unsigned long long)sent, (unsigned long long)received);
        exit(1);
    }
    report("ns", (double)(end - start) / (double)received);
    report("cpu_ns", (double)cpu / (double)received);
    chan_close(&c);
}

/* ---- round trips ---- */

struct duplex { struct chan there, back; };

static uint64_t pong(void *ctx) {
    struct duplex *d = (struct duplex *)ctx;
    char message[SMALL];
    for (uint64_t n = 0;; n++) {
        chan_recv(&d->there, message, SMALL);
        if (message[0]) return n;
        chan_send(&d->back, message, SMALL, 0);
    }
}

static void run_pingpong(struct sides where) {
    struct duplex d;
    struct samples s;
    char message[SMALL] = {0};
    open_or_skip(&d.there, 10, SMALL);
    open_or_skip(&d.back, 10, SMALL);
    sample_init(&s);
    int who = spawn(where.b, pong, &d);
    pin(where.a);
    uint64_t before = go(), first = before, cpu = cpu_ns(CLOCK_PROCESS_CPUTIME_ID), n = 0;
    do {
        chan_send(&d.there, message, SMALL, 0);
        chan_recv(&d.back, message, SMALL);
        uint64_t t = now_ns();
        sample(&s, (double)(t - before));
        before = t;
        n++;
    } while (before - first < span_ns);
    cpu = cpu_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    message[0] = 1;
    chan_send(&d.there, message, SMALL, 0);
    join(who);
    report_samples(&s, "ns", "p99_ns");
    report("cpu_ns", (double)(cpu + shared->who[who].cpu) / (double)(2 * n));
    chan_close(&d.there);
    chan_close(&d.back);
}

static uint64_t wake_receiver(void *ctx) {
    struct chan *c = (struct chan *)ctx;
    struct samples s;
    uint64_t message[SMALL / 8];
    sample_init(&s);
    for (;;) {
        chan_recv(c, message, SMALL);
        uint64_t t = now_ns();
        if (!message[0]) break;
        sample(&s, (double)(t - message[0]));
    }
    report_samples(&s, "ns", "p99_ns");
    return s.n;
}

static void run_wake(struct sides where) {
    struct chan c;
    uint64_t message[SMALL / 8] = {0};
    struct timespec nap = {0, 1000000};
    open_or_skip(&c, 10, SMALL);
    int who = spawn(where.b, wake_receiver, &c);
    pin(where.a);
    uint64_t end = go() + (span_ns < 100000000 ? 100000000 : 2 * span_ns);
    while (now_ns() < end) {
        nanosleep(&nap, NULL);
        message[0] = now_ns();
        chan_send(&c, message, SMALL, 0);
    }
    message[0] = 0;
    chan_send(&c, message, SMALL, 0);
    join(who);
    chan_close(&c);
}

static uint64_t slow_receiver(void *ctx) {
    return stream_receiver(ctx);
}

static void run_slow(struct sides where) {
    struct chan c;
    char message[SMALL] = {0};
    open_or_skip(&c, 10, SMALL);
    int who = spawn(where.b, slow_receiver, &c);
    pin(where.a);
    uint64_t start = go(), end = start + span_ns, n = 0;
    for (uint64_t t = start; t < end; t = now_ns(), n++) {
        while (now_ns() - t < 20000) {}
        chan_send(&c, message, SMALL, 0);
    }
    message[0] = 1;
    chan_send(&c, message, SMALL, 0);
    join(who);
    report("ns", (double)(shared->who[who].end - start) / (double)n);
    report("receiver_cpu_ns", (double)shared->who[who].cpu / (double)n);
    chan_close(&c);
}

/* Runs the workload if it is one of these; 0 if it is not. */
static int run_common(int words, char **word) {
    if (words == 2 && !strcmp(word[0], "pair")) run_pair(size_of(word[1]));
    else if (words == 2 && CHAN_PRIORITIES && !strcmp(word[0], "waiting")) run_waiting(atoi(word[1]), 0);
    else if (words == 2 && !strcmp(word[0], "waitfifo")) run_waiting(atoi(word[1]), 1);
    else if (words == 2 && CHAN_PRIORITIES && !strcmp(word[0], "fill")) run_fill(atoi(word[1]));
    else if (words == 3 && !strcmp(word[0], "stream")) run_stream(atoi(word[1]), 1, 1, sides_of(word[2]));
    else if (words == 3 && !strcmp(word[0], "many")) run_stream(10, atoi(word[1]), atoi(word[1]), sides_of(word[2]));
    else if (words == 2 && !strcmp(word[0], "pingpong")) run_pingpong(sides_of(word[1]));
    else if (words == 2 && !strcmp(word[0], "wake")) run_wake(sides_of(word[1]));
    else if (words == 2 && !strcmp(word[0], "slow")) run_slow(sides_of(word[1]));
    else return 0;
    return 1;
}

#endif
