/* AF_UNIX SOCK_SEQPACKET pair. Depth is a send buffer: a 64-byte packet is charged about 768 bytes of it. */
#include "bench.h"

#include <sys/socket.h>

struct chan {
    int fd[2];
};

#define CHAN_PRIORITIES 0

static int chan_open(struct chan *c, int depth, size_t size) {
    int bytes = depth * (int)(size + 704) / 2; /* the kernel doubles it */
    if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, c->fd) < 0) return -1;
    return setsockopt(c->fd[0], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
}

static void chan_close(struct chan *c) {
    close(c->fd[0]);
    close(c->fd[1]);
}

static inline void chan_send(struct chan *c, const void *message, size_t size, unsigned priority) {
    (void)priority;
    if (send(c->fd[0], message, size, 0) != (ssize_t)size) die("send");
}

static inline size_t chan_recv(struct chan *c, void *message, size_t size) {
    ssize_t n = recv(c->fd[1], message, size, 0);
    if (n < 0) die("recv");
    return (size_t)n;
}

#include "workloads.h"

int main(int argc, char **argv) {
    char *word[4];
    int words = bench_args(argc, argv, word, 4);
    return run_common(words, word) ? 0 : 2;
}
