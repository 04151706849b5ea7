/*
 * What the benchmark programs share: clock, repetition, processes, CPUs, output.
 *
 * Each program is run as  PROGRAM [-t MS] [-c A,B] WORKLOAD  and prints one line per figure,
 *     WORKLOAD <tab> METRIC <tab> VALUE
 * or, where the machine's limits do not allow the workload,
 *     WORKLOAD <tab> skip <tab> REASON
 * Times are in nanoseconds. A figure is the median of at least nine batches, so that a batch in
 * which somebody else had the CPU does not count. scripts/bench runs the programs and compares.
 */
#ifndef BENCH_H
#define BENCH_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define UNUSED __attribute__((unused))

static const char *workload;   /* the name as given: first field of each line */
static uint64_t span_ns = 200000000; /* how long a workload measures */
static int cpus[2] = {0, 1};   /* "the two CPUs" */

static inline uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static UNUSED uint64_t cpu_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static UNUSED void report(const char *metric, double value) {
    printf("%s\t%s\t%.2f\n", workload, metric, value);
    fflush(stdout);
}

/* The machine does not allow it (limits): no failure, no figure. */
static UNUSED void skip(const char *what) {
    printf("%s\tskip\t%s: %s\n", workload, what, strerror(errno));
    fflush(stdout);
    exit(0);
}

static UNUSED void die(const char *what) {
    fprintf(stderr, "%s: %s: %s\n", workload, what, strerror(errno));
    exit(1);
}

#define CHECK(call) do { if ((call) < 0) die(#call); } while (0)

/* ---- repetition ---- */

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts the samples and gives the one below which the given share of them lies. */
static UNUSED double quantile(double *sample, size_t n, double share) {
    if (n == 0) die("no samples");
    qsort(sample, n, sizeof *sample, by_value);
    size_t i = (size_t)(share * (double)n);
    return sample[i < n ? i : n - 1];
}

/* Nanoseconds per turn of a loop: `loop(ctx, n)` turns n times. */
static UNUSED double measure(void (*loop)(void *, uint64_t), void *ctx) {
    uint64_t n = 1, took;
    for (;;) {
        uint64_t start = now_ns();
        loop(ctx, n);
        took = now_ns() - start;
        if (took >= span_ns / 20 || n > (1ull << 40)) break;
        n *= 2;
    }
    enum { BATCHES = 15 };
    double batch[BATCHES];
    size_t done = 0;
    uint64_t end = now_ns() + 3 * span_ns; /* a slow spell ends it early, with no fewer than nine */
    while (done < BATCHES && (done < 9 || now_ns() < end)) {
        uint64_t start = now_ns();
        loop(ctx, n);
        batch[done++] = (double)(now_ns() - start) / (double)n;
    }
    return quantile(batch, done, 0.5);
}

/* Round trips or the like, timed one by one. */
struct samples {
    double *value;
    size_t n, room;
};

static UNUSED void sample_init(struct samples *s) {
    s->room = 1u << 20;
    s->n = 0;
    s->value = (double *)malloc(s->room * sizeof *s->value);
    if (!s->value) die("malloc");
    memset(s->value, 0, s->room * sizeof *s->value); /* no page faults while measuring */
}

static inline void sample(struct samples *s, double v) {
    if (s->n < s->room) s->value[s->n++] = v;
}

/* Leaves out the first tenth (caches, spinning that adapts), then reports median and p99. */
static UNUSED void report_samples(struct samples *s, const char *median, const char *p99) {
    size_t cold = s->n / 10;
    double *v = s->value + cold;
    size_t n = s->n - cold;
    report(median, quantile(v, n, 0.5));
    if (p99) report(p99, quantile(v, n, 0.99));
}

/* ---- processes and CPUs ---- */

enum where { ON_FIRST, ON_SECOND, ON_BOTH, ANYWHERE };

static UNUSED void pin(enum where w) {
    if (w == ANYWHERE) return;
    cpu_set_t set;
    CPU_ZERO(&set);
    if (w != ON_SECOND) CPU_SET(cpus[0], &set);
    if (w != ON_FIRST) CPU_SET(cpus[1], &set);
    CHECK(sched_setaffinity(0, sizeof set, &set));
}

/* "one", "two", "any" in a workload's name: where the two sides run. */
struct sides { enum where a, b; };

static UNUSED struct sides sides_of(const char *word) {
    struct sides s = {ANYWHERE, ANYWHERE};
    if (!strcmp(word, "one")) s.a = s.b = ON_FIRST;
    else if (!strcmp(word, "two")) s.a = ON_FIRST, s.b = ON_SECOND;
    else if (!strcmp(word, "both")) s.a = s.b = ON_BOTH;
    return s;
}

enum { MAX_PROCESSES = 32 };

static struct shared {
    int ready, go, stop;
    struct { uint64_t count, end, cpu; } who[MAX_PROCESSES] __attribute__((aligned(64)));
} *shared;

static pid_t child[MAX_PROCESSES];
static int children;

/* A child that waits for go(), runs body(ctx), and leaves its count, end and CPU time in shared->who. */
static UNUSED int spawn(enum where w, uint64_t (*body)(void *), void *ctx) {
    int me = children++;
    pid_t parent = getpid();
    fflush(stdout);
    pid_t p = fork();
    if (p < 0) die("fork");
    if (p == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) _exit(1);
        pin(w);
        __atomic_fetch_add(&shared->ready, 1, __ATOMIC_SEQ_CST);
        while (!__atomic_load_n(&shared->go, __ATOMIC_SEQ_CST)) sched_yield();
        uint64_t cpu = cpu_ns(CLOCK_PROCESS_CPUTIME_ID);
        shared->who[me].count = body(ctx);
        shared->who[me].end = now_ns();
        shared->who[me].cpu = cpu_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu;
        _exit(0);
    }
    child[me] = p;
    return me;
}

/* Lets the children start together and gives the time they did. */
static UNUSED uint64_t go(void) {
    while (__atomic_load_n(&shared->ready, __ATOMIC_SEQ_CST) < children) sched_yield();
    uint64_t start = now_ns();
    __atomic_store_n(&shared->go, 1, __ATOMIC_SEQ_CST);
    return start;
}

static UNUSED void join(int who) {
    int status;
    CHECK(waitpid(child[who], &status, 0));
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        fprintf(stderr, "%s: child ended with status %#x\n", workload, status);
        exit(1);
    }
}

/* ---- names ---- */

/* "64", "8K", "16M" */
static UNUSED size_t size_of(const char *word) {
    char *end;
    size_t n = strtoul(word, &end, 10);
    return *end == 'K' ? n << 10 : *end == 'M' ? n << 20 : n;
}

static UNUSED void *buffer(size_t n) {
    void *p = mmap(NULL, n ? n : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) die("mmap");
    memset(p, 1, n);
    return p;
}

/* Splits the workload's name at '-' after taking the options; argv[0] is the name's first word. */
static int bench_args(int argc, char **argv, char **word, int room) {
    int opt;
    cpu_set_t mine;
    CHECK(sched_getaffinity(0, sizeof mine, &mine));
    for (int c = 0, n = 0; c < CPU_SETSIZE && n < 2; c++)
        if (CPU_ISSET(c, &mine)) cpus[n++] = c;
    while ((opt = getopt(argc, argv, "t:c:")) != -1) {
        if (opt == 't') span_ns = strtoull(optarg, NULL, 10) * 1000000u;
        else if (opt == 'c') sscanf(optarg, "%d,%d", &cpus[0], &cpus[1]);
        else exit(2);
    }
    if (optind != argc - 1) {
        fprintf(stderr, "usage: %s [-t MS] [-c CPU,CPU] WORKLOAD\n", argv[0]);
        exit(2);
    }
    workload = argv[optind];
    shared = (struct shared *)mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) die("mmap");
    alarm(30 + (unsigned)(span_ns / 50000000)); /* a hang is a failure, not a wait */
    char *copy = strdup(workload);
    int n = 0;
    for (char *w = strtok(copy, "-"); w && n < room; w = strtok(NULL, "-")) word[n++] = w;
    return n;
}

#endif
