/*
 * harmless_paths: prints what calls say to a path that is a bad pointer, or null, in a program that uses no queue.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/xattr.h>
#include <unistd.h>

#define SAYS(call)                                                                                             \
	do {                                                                                                   \
		errno = 0;                                                                                     \
		long r = (long)(call);                                                                         \
		printf("%s: %ld %s\n", #call, r, strerror(errno));                                             \
	} while (0)

int main(void)
{
	const char *volatile bad[] = {(const char *)8, NULL};
	struct stat st;
	struct statfs fs;
	struct statx stx;
	char text[16];
	for (int i = 0; i < 2; i++) {
		const char *p = bad[i];
		SAYS(open(p, O_RDONLY));
		SAYS(open(p, O_RDWR | O_CREAT, 0600));
		SAYS(open64(p, O_RDONLY));
		SAYS(openat(AT_FDCWD, p, O_RDONLY));
		SAYS(creat(p, 0600));
		SAYS(syscall(SYS_openat, AT_FDCWD, p, O_RDONLY));
		SAYS(fopen(p, "r"));
		SAYS(fopen(p, "w"));
		SAYS(stat(p, &st));
		SAYS(lstat(p, &st));
		SAYS(fstatat(AT_FDCWD, p, &st, 0));
		SAYS(statfs(p, &fs));
		SAYS(statx(AT_FDCWD, p, 0, STATX_BASIC_STATS, &stx));
		SAYS(access(p, R_OK));
		SAYS(faccessat(AT_FDCWD, p, R_OK, 0));
		SAYS(readlink(p, text, sizeof text));
		SAYS(chdir(p));
		SAYS(chmod(p, 0600));
		SAYS(chown(p, 0, 0));
		SAYS(truncate(p, 0));
		SAYS(unlink(p));
		SAYS(rename(p, "x"));
		SAYS(rename("x", p));
		SAYS(link(p, "x"));
		SAYS(symlink("x", p));
		SAYS(mkdir(p, 0700));
		SAYS(rmdir(p));
		SAYS(mknod(p, S_IFIFO | 0600, 0));
		SAYS(getxattr(p, "user.x", text, sizeof text));
	}
}
