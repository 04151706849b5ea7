/* cc-flags: -fsanitize=address -fno-omit-frame-pointer */
/*
 * harmless_asan [use-after-free | leak | overflow]: a program with AddressSanitizer in it, clean or
 * with that fault. Uses no queue.
 */
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t seen;
static char *volatile lost;

static void handler(int s)
{
	seen = s;
}

static void *thread(void *arg)
{
	char *p = malloc(100);
	strcpy(p, "from a thread");
	puts(p);
	free(p);
	return arg;
}

int main(int argc, char **argv)
{
	const char *fault = argc > 1 ? argv[1] : "";
	pthread_t t;

	setvbuf(stdout, NULL, _IONBF, 0);
	signal(SIGUSR1, handler);
	raise(SIGUSR1);
	struct pollfd p = {.fd = 1, .events = POLLOUT};
	printf("saw %d, poll %d\n", seen == SIGUSR1, poll(&p, 1, 0));
	pthread_create(&t, NULL, thread, NULL);
	pthread_join(t, NULL);
	close(dup(1));
	char *volatile m = malloc(10);
	if (!strcmp(fault, "use-after-free")) {
		free(m);
		return m[3];
	}
	if (!strcmp(fault, "overflow"))
		return m[10];
	if (!strcmp(fault, "leak")) {
		m = NULL;
		lost = NULL;
		return 0;
	}
	free(m);
	return 0;
}
