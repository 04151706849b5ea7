/* A pipe of fixed-size records (below PIPE_BUF, so atomic). The smallest capacity is a page: 64 records where "depth 10" is asked. */
#include "bench.h"

#include <fcntl.h>

struct chan {
    int fd[2];
};

#define CHAN_PRIORITIES 0

static int chan_open(struct chan *c, int depth, size_t size) {
    if (pipe(c->fd) < 0) return -1;
    return fcntl(c->fd[1], F_SETPIPE_SZ, (int)((size_t)depth * size)) < 0 ? -1 : 0;
}

static void chan_close(struct chan *c) {
    close(c->fd[0]);
    close(c->fd[1]);
}

static inline void chan_send(struct chan *c, const void *message, size_t size, unsigned priority) {
    (void)priority;
    if (write(c->fd[1], message, size) != (ssize_t)size) die("write");
}

static inline size_t chan_recv(struct chan *c, void *message, size_t size) {
    if (read(c->fd[0], message, size) != (ssize_t)size) die("read");
    return size;
}

#include "workloads.h"

int main(int argc, char **argv) {
    char *word[4];
    int words = bench_args(argc, argv, word, 4);
    return run_common(words, word) ? 0 : 2;
}
