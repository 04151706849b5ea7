/*
 * fs_first DIR: another process makes the first mount of queues while this one looks at paths all the time, and
 * this one sees it with the next path that it uses: the answer comes through shared memory, so that no system call
 * lies between.
 *
 * Wants a mount namespace of its own, and the right to mount. Exit status 0 if all is well.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void check(int good, const char *what)
{
	if (!good) {
		perror(what);
		exit(1);
	}
}

int main(int argc, char **argv)
{
	struct stat st;
	check(argc == 2 && chdir(argv[1]) == 0, "fs_first DIR");
	check(mkdir("mnt", 0755) == 0, "mkdir");
	volatile int *done = mmap(NULL, sizeof *done, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check(done != MAP_FAILED, "mmap");
	check(stat("mnt", &st) == 0, "stat");
	pid_t child = fork();
	check(child >= 0, "fork");
	if (child == 0) {
		check(mount("none", "mnt", "mqueue", 0, NULL) == 0, "mount");
		*done = 1;
		_exit(0);
	}
	while (!*done) {
		check(access("mnt", F_OK) == 0, "access");
		if (waitpid(child, NULL, WNOHANG) != 0 && !*done)
			return 1;
	}
	int fd = open("mnt/queue", O_CREAT | O_EXCL | O_RDONLY, 0600);
	check(fd >= 0, "open");
	check(fstat(fd, &st) == 0, "fstat");
	char text[80];
	ssize_t n = read(fd, text, sizeof text);
	printf("size %ld, read %ld\n", (long)st.st_size, (long)n);
	close(fd);
	unlink("mnt/queue");
	umount("mnt");
	return st.st_size != 80 || n <= 0;
}
