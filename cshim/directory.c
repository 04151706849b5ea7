/* glob(3) and scandir(3) with our own opendir(3): libc's opens directories behind every hook, and what a
 * virtual mount covers is not seen there. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>
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
