/*
 * command_probe WHAT: what `mqns run` has handed on.
 *
 *   state      signals ignored and blocked, descriptors, LD_PRELOAD, ASAN_OPTIONS
 *   queue      makes a queue and takes a message through it; prints it
 *   create MAXMSG MSGSIZE   "ok" or the error
 *   notify NAME    asks for SIGUSR1 at the first message of a queue, "ok"; stays until stdin ends
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int state(void)
{
	sigset_t blocked;

	sigprocmask(SIG_BLOCK, NULL, &blocked);
	printf("ignored:");
	for (int s = 1; s < 32; s++) {
		struct sigaction a;
		if (sigaction(s, NULL, &a) == 0 && a.sa_handler == SIG_IGN)
			printf(" %d", s);
	}
	printf("\nblocked:");
	for (int s = 1; s < 32; s++)
		if (sigismember(&blocked, s))
			printf(" %d", s);
	printf("\ndescriptors:");
	for (int fd = 0; fd < 20; fd++)
		if (fcntl(fd, F_GETFD) >= 0)
			printf(" %d", fd);
	char *preload = getenv("LD_PRELOAD"), *asan = getenv("ASAN_OPTIONS");
	printf("\npreload: %s\nasan: %s\n", preload ? preload : "-", asan ? asan : "-");
	return 0;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "state";

	if (!strcmp(what, "state"))
		return state();
	if (!strcmp(what, "notify") && argc > 2) {
		struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
		mqd_t watched = mq_open(argv[2], O_RDONLY);
		puts(watched == (mqd_t)-1 || mq_notify(watched, &event) ? strerrorname_np(errno) : "ok");
		fflush(stdout);
		return getchar() != EOF;
	}
	struct mq_attr a = {.mq_maxmsg = argc > 3 ? atol(argv[2]) : 1, .mq_msgsize = argc > 3 ? atol(argv[3]) : 64};
	mqd_t q = mq_open("/probe", O_RDWR | O_CREAT | O_EXCL, 0600, &a);
	if (q == (mqd_t)-1) {
		puts(strerrorname_np(errno));
		return 1;
	}
	if (!strcmp(what, "queue")) {
		char text[64] = "";
		if (mq_send(q, "through a queue", 15, 0) || mq_receive(q, text, 64, NULL) != 15)
			return 1;
		puts(text);
	} else {
		puts("ok");
	}
	return mq_unlink("/probe") || mq_close(q);
}
