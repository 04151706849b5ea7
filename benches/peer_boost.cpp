/* Boost.Interprocess message_queue: priorities, bounded, in shared memory; the nearest relative of a user-space mqueue. */
#include "bench.h"

#include <boost/interprocess/ipc/message_queue.hpp>

using boost::interprocess::message_queue;

struct chan {
    message_queue *queue;
    char name[48];
};

#define CHAN_PRIORITIES 1

static int chan_open(struct chan *c, int depth, size_t size) {
    static int serial;
    snprintf(c->name, sizeof c->name, "bench-boost-%d-%d", (int)getpid(), serial++);
    try {
        message_queue::remove(c->name);
        c->queue = new message_queue(boost::interprocess::create_only, c->name, (size_t)depth, size);
    } catch (const boost::interprocess::interprocess_exception &e) {
        errno = e.get_native_error();
        return -1;
    }
    return 0;
}

static void chan_close(struct chan *c) {
    message_queue::remove(c->name);
    delete c->queue;
}

static inline void chan_send(struct chan *c, const void *message, size_t size, unsigned priority) {
    c->queue->send(message, size, priority);
}

static inline size_t chan_recv(struct chan *c, void *message, size_t size) {
    message_queue::size_type got;
    unsigned priority;
    c->queue->receive(message, size, got, priority);
    return got;
}

#include "workloads.h"

int main(int argc, char **argv) {
    char *word[4];
    int words = bench_args(argc, argv, word, 4);
    return run_common(words, word) ? 0 : 2;
}
