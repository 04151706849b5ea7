/* fopen(3) of /proc/sys/fs/mqueue and of queues: stdio calls the kernel behind our hooks, so such a stream
 * gets its own functions. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define BYPASS (INTPTR_MIN + 1)

extern long mqns_sysctl_open(const char *, int);
extern long mqns_sysctl_write(int, const char *, size_t);
extern void mqns_sysctl_refresh(int);
extern void *mqns_next_stream(int);
extern int mqns_is_queue(int);
extern long mqns_ns_opened(int, const char *, int, int);
extern long mqns_vfs_open(int, const char *, int, mode_t);
extern int mqns_is_mount_table(const char *);

static ssize_t stream_read(void *cookie, char *to, size_t n)
{
    mqns_sysctl_refresh((int)(intptr_t)cookie);
    return read((int)(intptr_t)cookie, to, n);
}

static ssize_t stream_write(void *cookie, const char *from, size_t n)
{
    long r = mqns_sysctl_write((int)(intptr_t)cookie, from, n);
    if (r < 0) {
        errno = (int)-r;
        return 0;
    }
    return r;
}

static int stream_seek(void *cookie, off64_t *to, int whence)
{
    off64_t at = lseek64((int)(intptr_t)cookie, *to, whence);
    if (at < 0)
        return -1;
    *to = at;
    return 0;
}

static ssize_t queue_read(void *cookie, char *to, size_t n) { return read((int)(intptr_t)cookie, to, n); }

static ssize_t queue_write(void *cookie, const char *from, size_t n)
{
    ssize_t r = write((int)(intptr_t)cookie, from, n);
    return r < 0 ? 0 : r;
}

static int stream_close(void *cookie) { return close((int)(intptr_t)cookie); }

/* Streams with functions of their own, which have no descriptor to stdio's knowledge. */
static struct { FILE *stream; int fd; } known[64];
static int any_known;

static void remember(FILE *stream, int fd)
{
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        FILE *none = NULL;
        if (__atomic_compare_exchange_n(&known[i].stream, &none, stream, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) {
            known[i].fd = fd;
            __atomic_store_n(&any_known, 1, __ATOMIC_RELEASE);
            return;
        }
    }
}

static int queue_close(void *cookie)
{
    int fd = (int)(intptr_t)cookie;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].stream != NULL && known[i].fd == fd)
            __atomic_store_n(&known[i].stream, NULL, __ATOMIC_RELEASE);
    return close(fd);
}

/* fileno(3). */
int cshim_fileno(FILE *stream)
{
    if (__atomic_load_n(&any_known, __ATOMIC_ACQUIRE))
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            if (__atomic_load_n(&known[i].stream, __ATOMIC_ACQUIRE) == stream)
                return known[i].fd;
    return ((int (*)(FILE *))mqns_next_stream(4))(stream);
}

/* A stream of a queue descriptor. */
static FILE *queue_stream(int fd, const char *mode)
{
    static const cookie_io_functions_t functions = { queue_read, queue_write, stream_seek, queue_close };
    FILE *stream = fopencookie((void *)(intptr_t)fd, mode, functions);
    if (stream != NULL)
        remember(stream, fd);
    return stream;
}

/* fdopen(3). */
FILE *cshim_fdopen(int fd, const char *mode)
{
    if (mqns_is_queue(fd))
        return queue_stream(fd, mode);
    return ((FILE *(*)(int, const char *))mqns_next_stream(3))(fd, mode);
}

/* A program that is started with a queue as one of its standard streams. */
void cshim_standard_streams(void)
{
    if (mqns_is_queue(0))
        stdin = queue_stream(0, "r");
    if (mqns_is_queue(1))
        stdout = queue_stream(1, "w");
    if (mqns_is_queue(2)) {
        stderr = queue_stream(2, "w");
        setvbuf(stderr, NULL, _IONBF, 0);
    }
}

/* A stream of a file of limits: what is written is looked at when it is, what is read is of the moment. */
static FILE *limit_stream(long fd, const char *mode)
{
    static const cookie_io_functions_t functions = { stream_read, stream_write, stream_seek, stream_close };
    if (fd < 0) {
        errno = (int)-fd;
        return NULL;
    }
    FILE *stream = fopencookie((void *)(intptr_t)fd, mode, functions);
    if (stream == NULL)
        close((int)fd);
    return stream;
}

static FILE *open_stream(const char *path, const char *mode, int next)
{
    int flags = strchr(mode, '+') ? O_RDWR : mode[0] == 'r' ? O_RDONLY : O_WRONLY;
    int made = mode[0] == 'w' ? O_CREAT | O_TRUNC : mode[0] == 'a' ? O_CREAT | O_APPEND : 0;
    long queue = mqns_vfs_open(AT_FDCWD, path,
                               flags | made | (strchr(mode, 'x') ? O_EXCL : 0) | (strchr(mode, 'e') ? O_CLOEXEC : 0), 0666);
    if (queue != BYPASS) {
        if (queue < 0) {
            errno = (int)-queue;
            return NULL;
        }
        FILE *stream = queue_stream((int)queue, mode);
        if (stream == NULL)
            close((int)queue);
        return stream;
    }
    FILE *stream = ((FILE *(*)(const char *, const char *))mqns_next_stream(next))(path, mode);
    /* Not before: the path may be a bad pointer. */
    if ((stream != NULL || errno == ENOENT || errno == EACCES) && strncmp(path, "/proc/sys/fs/mqueue/", 20) == 0) {
        int error = errno;
        long fd = mqns_sysctl_open(path, strchr(mode, 'e') ? flags | O_CLOEXEC : flags);
        if (fd != BYPASS) {
            if (stream != NULL)
                fclose(stream);
            return limit_stream(fd, mode);
        }
        errno = error;
    }
    if (stream != NULL && mqns_is_mount_table(path)) {
        int error = errno;
        mqns_ns_opened(AT_FDCWD, path, 0, fileno(stream));
        errno = error;
    }
    size_t length = stream != NULL || errno == ENOENT ? strlen(path) : 0;
    if (length >= 3 && strcmp(path + length - 3, "ipc") == 0) {
        /* A namespace of ours takes the place of the kernel's. */
        int error = errno, flags = strchr(mode, 'e') ? O_CLOEXEC : 0;
        int copy = stream != NULL ? dup(fileno(stream)) : -ENOENT;
        long fd = mqns_ns_opened(AT_FDCWD, path, flags, copy);
        if (fd == BYPASS) {
            if (copy >= 0)
                close(copy);
        } else if (fd < 0) {
            if (stream != NULL)
                fclose(stream);
            stream = NULL;
            error = (int)-fd;
        } else if (stream != NULL) {
            dup3((int)fd, fileno(stream), flags);
            close((int)fd);
        } else {
            stream = fdopen((int)fd, mode);
            error = errno;
        }
        errno = error;
    }
    return stream;
}

FILE *cshim_fopen(const char *path, const char *mode) { return open_stream(path, mode, 0); }
FILE *cshim_fopen64(const char *path, const char *mode) { return open_stream(path, mode, 1); }

/* setmntent(3) of a table of mounts: it would open the kernel's. */
FILE *cshim_setmntent(const char *path, const char *mode)
{
    if (!mqns_is_mount_table(path))
        return ((FILE *(*)(const char *, const char *))mqns_next_stream(2))(path, mode);
    char cloexec[16] = "";
    size_t length = strlen(mode);
    if (length > sizeof cloexec - 2)
        length = sizeof cloexec - 2;
    memcpy(cloexec, mode, length);
    cloexec[length] = 'e';
    return cshim_fopen64(path, cloexec);
}
