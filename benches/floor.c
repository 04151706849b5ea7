/*
 * What the machine itself takes, below which no queue can go:
 *   copy-SIZE          two memcpys: a buffer into shared memory, from there into another buffer
 *   syscall            a system call that does nothing
 *   cacheline          round trip of a cache line between the two CPUs, both polling
 *   futex-WHERE        round trip of two processes that sleep on futexes (never polling)
 */
#include "bench.h"

#include <linux/futex.h>
#include <sys/syscall.h>

struct copy { char *a, *b, *c; size_t size; };

static void copy_loop(void *ctx, uint64_t n) {
    struct copy *p = ctx;
    for (uint64_t i = 0; i < n; i++) {
        memcpy(p->b, p->a, p->size);
        __asm__ volatile("" : : : "memory");
        memcpy(p->c, p->b, p->size);
        __asm__ volatile("" : : : "memory");
    }
}

static void run_copy(size_t size) {
    struct copy p = {.a = buffer(size), .c = buffer(size), .size = size};
    p.b = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (p.b == MAP_FAILED) die("mmap");
    report("ns", measure(copy_loop, &p));
}

static void syscall_loop(void *ctx, uint64_t n) {
    (void)ctx;
    for (uint64_t i = 0; i < n; i++) syscall(SYS_getppid);
}

static struct { uint32_t there __attribute__((aligned(64))), back __attribute__((aligned(64))); } *line;

static void relax(void) {
#if defined __x86_64__ || defined __i386__
    __builtin_ia32_pause();
#endif
}

static uint64_t line_pong(void *ctx) {
    (void)ctx;
    for (uint32_t i = 1;; i++) {
        uint32_t v;
        while ((v = __atomic_load_n(&line->there, __ATOMIC_ACQUIRE)) < i) relax();
        if (v == UINT32_MAX) return i;
        __atomic_store_n(&line->back, i, __ATOMIC_RELEASE);
    }
}

static void line_loop(void *ctx, uint64_t n) {
    uint32_t *i = ctx;
    while (n-- > 0) {
        __atomic_store_n(&line->there, ++*i, __ATOMIC_RELEASE);
        while (__atomic_load_n(&line->back, __ATOMIC_ACQUIRE) < *i) relax();
    }
}

static void run_cacheline(void) {
    uint32_t i = 0;
    int who = spawn(ON_SECOND, line_pong, NULL);
    pin(ON_FIRST);
    go();
    report("ns", measure(line_loop, &i));
    __atomic_store_n(&line->there, UINT32_MAX, __ATOMIC_RELEASE);
    join(who);
}

static void futex_await(uint32_t *word, uint32_t until) {
    uint32_t v;
    while ((v = __atomic_load_n(word, __ATOMIC_ACQUIRE)) < until) syscall(SYS_futex, word, FUTEX_WAIT, v, NULL, NULL, 0);
}

static void futex_set(uint32_t *word, uint32_t v) {
    __atomic_store_n(word, v, __ATOMIC_RELEASE);
    syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static uint64_t futex_pong(void *ctx) {
    (void)ctx;
    for (uint32_t i = 1;; i++) {
        futex_await(&line->there, i);
        if (__atomic_load_n(&line->there, __ATOMIC_ACQUIRE) == UINT32_MAX) return i;
        futex_set(&line->back, i);
    }
}

static void run_futex(struct sides where) {
    struct samples s;
    sample_init(&s);
    int who = spawn(where.b, futex_pong, NULL);
    pin(where.a);
    uint64_t first = go(), before = first;
    for (uint32_t i = 1; before - first < span_ns; i++) {
        futex_set(&line->there, i);
        futex_await(&line->back, i);
        uint64_t t = now_ns();
        sample(&s, (double)(t - before));
        before = t;
    }
    futex_set(&line->there, UINT32_MAX);
    join(who);
    report_samples(&s, "ns", "p99_ns");
}

int main(int argc, char **argv) {
    char *word[4];
    int words = bench_args(argc, argv, word, 4);
    line = mmap(NULL, sizeof *line, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (line == MAP_FAILED) die("mmap");
    if (words == 2 && !strcmp(word[0], "copy")) run_copy(size_of(word[1]));
    else if (!strcmp(workload, "syscall")) report("ns", measure(syscall_loop, NULL));
    else if (!strcmp(workload, "cacheline")) run_cacheline();
    else if (words == 2 && !strcmp(word[0], "futex")) run_futex(sides_of(word[1]));
    else return 2;
    return 0;
}
