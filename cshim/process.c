/* The variadic members of the exec family: their arguments become a vector. */
#include <alloca.h>
#include <stdarg.h>
#include <stddef.h>

extern int execv(const char *, char *const[]);
extern int execvp(const char *, char *const[]);
extern int execve(const char *, char *const[], char *const[]);

/* Collects `first` and what follows, up to and with the null pointer. */
#define VECTOR(argv, first, after)                                    \
    va_list ap;                                                       \
    size_t n = 1;                                                     \
    va_start(ap, first);                                              \
    while (va_arg(ap, char *) != NULL)                                \
        n++;                                                          \
    va_end(ap);                                                       \
    char **argv = alloca((n + 1) * sizeof *argv);                     \
    argv[0] = (char *)first;                                          \
    va_start(ap, first);                                              \
    for (size_t i = 1; i <= n; i++)                                   \
        argv[i] = va_arg(ap, char *);                                 \
    after;                                                            \
    va_end(ap)

int cshim_execl(const char *path, const char *arg, ...)
{
    VECTOR(argv, arg, (void)0);
    return execv(path, argv);
}

int cshim_execlp(const char *file, const char *arg, ...)
{
    VECTOR(argv, arg, (void)0);
    return execvp(file, argv);
}

int cshim_execle(const char *path, const char *arg, ...)
{
    char **envp;
    VECTOR(argv, arg, envp = va_arg(ap, char **));
    return execve(path, argv, envp);
}
