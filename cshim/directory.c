/* glob(3), scandir(3) and mkstemp(3) with our own opendir(3) and open(2): libc opens behind every hook. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

extern int mqns_any_virtual(void);
extern void *mqns_next_directory(int);

static void *open_directory(const char *path) { return opendir(path); }
static struct dirent *read_directory(void *dir) { return readdir(dir); }
static void close_directory(void *dir) { closedir(dir); }

int cshim_glob(const char *pattern, int flags, int (*on_error)(const char *, int), glob_t *found)
{
    int (*next)(const char *, int, int (*)(const char *, int), glob_t *) = mqns_next_directory(0);
    if (!mqns_any_virtual() || flags & GLOB_ALTDIRFUNC)
        return next(pattern, flags, on_error, found);
    found->gl_opendir = open_directory;
    found->gl_readdir = read_directory;
    found->gl_closedir = close_directory;
    found->gl_lstat = lstat;
    found->gl_stat = stat;
    return next(pattern, flags | GLOB_ALTDIRFUNC, on_error, found);
}

int cshim_scandir(const char *path, struct dirent ***list, int (*choose)(const struct dirent *),
                  int (*compare)(const struct dirent **, const struct dirent **))
{
    if (!mqns_any_virtual()) {
        int (*next)(const char *, struct dirent ***, int (*)(const struct dirent *),
                    int (*)(const struct dirent **, const struct dirent **)) = mqns_next_directory(1);
        return next(path, list, choose, compare);
    }
    struct dirent **entries = NULL, *entry;
    size_t n = 0, room = 0;
    int error = 0;
    DIR *dir = opendir(path);
    if (dir == NULL)
        return -1;
    while (errno = 0, (entry = readdir(dir)) != NULL) {
        if (choose != NULL && !choose(entry))
            continue;
        if (n == room) {
            struct dirent **more = realloc(entries, (room = room ? 2 * room : 16) * sizeof *entries);
            if (more == NULL)
                break;
            entries = more;
        }
        if ((entries[n] = malloc(entry->d_reclen)) == NULL)
            break;
        memcpy(entries[n++], entry, entry->d_reclen);
    }
    error = errno;
    closedir(dir);
    if (entry != NULL || error != 0) {
        while (n > 0)
            free(entries[--n]);
        free(entries);
        errno = error ? error : ENOMEM;
        return -1;
    }
    if (compare != NULL && n > 1)
        qsort(entries, n, sizeof *entries, (int (*)(const void *, const void *))compare);
    *list = entries;
    return (int)n;
}

extern int mqns_is_target(const char *);

/* mkstemp(3) and its kin: a file in a superblock is a queue, and made by open(2). */
static int make_temporary(char *template, int suffix, int flags, int next)
{
    size_t length = strlen(template);
    if (suffix < 0 || length < (size_t)suffix + 6 || strncmp(template + length - suffix - 6, "XXXXXX", 6) != 0
        || !mqns_is_target(template))
        return ((int (*)(char *, int, int))mqns_next_directory(next))(template, suffix, flags);
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    char *place = template + length - suffix - 6;
    for (int tries = 0; tries < 1000; tries++) {
        unsigned char bytes[6];
        if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes)
            break;
        for (int i = 0; i < 6; i++)
            place[i] = letters[bytes[i] % (sizeof letters - 1)];
        int fd = open(template, (flags & ~O_ACCMODE) | O_RDWR | O_CREAT | O_EXCL, 0600);
        if (fd >= 0 || errno != EEXIST)
            return fd;
    }
    errno = EEXIST;
    return -1;
}

int cshim_mkstemp(char *template) { return make_temporary(template, 0, 0, 2); }
int cshim_mkostemp(char *template, int flags) { return make_temporary(template, 0, flags, 2); }
int cshim_mkstemps(char *template, int suffix) { return make_temporary(template, suffix, 0, 2); }
int cshim_mkostemps(char *template, int suffix, int flags) { return make_temporary(template, suffix, flags, 2); }

/* mkdtemp(3): no directory is made there. */
char *cshim_mkdtemp(char *template)
{
    size_t length = strlen(template);
    if (length >= 6 && strcmp(template + length - 6, "XXXXXX") == 0 && mqns_is_target(template)) {
        int error = mkdir(template, 0700) == 0 ? EEXIST : errno;
        errno = error == EEXIST ? EPERM : error;
        return NULL;
    }
    return ((char *(*)(char *))mqns_next_directory(3))(template);
}
