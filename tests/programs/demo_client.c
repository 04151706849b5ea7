/*
 * demo_client [DEPTH]: jobs for a worker process, by POSIX message queues. Plain POSIX; natively it is
 * built and run like any program: cc demo_client.c && ./a.out
 *
 * With DEPTH: one queue that holds so many messages, filled and emptied.
 */
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static mqd_t open_queue(const char *name, long depth)
{
	struct mq_attr attr = {.mq_maxmsg = depth, .mq_msgsize = 64};
	mqd_t q = mq_open(name, O_RDWR | O_CREAT, 0600, &attr);

	if (q == (mqd_t)-1) {
		fprintf(stderr, "mq_open: %s\n", strerror(errno));
		exit(1);
	}
	mq_unlink(name);
	return q;
}

static volatile sig_atomic_t notified;

static void on_message(int signo, siginfo_t *info, void *context)
{
	(void)signo;
	(void)context;
	notified = info->si_code == SI_MESGQ ? info->si_value.sival_int : -1;
}

static void worker(mqd_t jobs, mqd_t results)
{
	char job[64], result[64];
	unsigned priority;

	for (;;) {
		if (mq_receive(jobs, job, sizeof job, &priority) < 0)
			exit(1);
		int n = snprintf(result, sizeof result, "%s (priority %u) done", job, priority);
		if (mq_send(results, result, n + 1, priority) < 0)
			exit(1);
		if (priority == 0)
			exit(0);
	}
}

static void deep(long depth)
{
	char message[64] = "";
	mqd_t q = open_queue("/demo-deep", depth);
	long sent = 0, received = 0;

	for (; sent < depth && mq_send(q, message, sizeof message, sent % 32768) == 0; sent++)
		;
	for (; received < sent && mq_receive(q, message, sizeof message, NULL) >= 0; received++)
		;
	printf("a queue of %ld messages: %ld sent, %ld received\n", depth, sent, received);
	exit(sent != depth || received != depth);
}

int main(int argc, char **argv)
{
	if (argc > 1)
		deep(atol(argv[1]));

	mqd_t jobs = open_queue("/demo-jobs", 10), results = open_queue("/demo-results", 10);
	const char *names[] = {"sweep", "answer the phone", "put out the fire", "go home"};
	const unsigned priorities[] = {1, 20, 32767, 0};
	char result[64];

	for (int i = 0; i < 4; i++)
		if (mq_send(jobs, names[i], strlen(names[i]) + 1, priorities[i]))
			return 1;

	/* A signal when the first result comes. */
	struct sigaction action = {.sa_sigaction = on_message, .sa_flags = SA_SIGINFO | SA_RESTART};
	sigaction(SIGUSR1, &action, NULL);
	struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_int = 1};
	if (mq_notify(results, &event))
		return 1;

	pid_t child = fork();
	if (child == 0)
		worker(jobs, results);
	int status;
	if (waitpid(child, &status, 0) != child || status)
		return 1;

	printf("notified: %s\n", notified == 1 ? "yes" : "no");
	for (int i = 0; i < 4 && mq_receive(results, result, sizeof result, NULL) > 0; i++)
		printf("%s\n", result);

	struct timespec deadline;
	clock_gettime(CLOCK_REALTIME, &deadline);
	deadline.tv_nsec += 50 * 1000 * 1000;
	if (deadline.tv_nsec >= 1000000000) {
		deadline.tv_nsec -= 1000000000;
		deadline.tv_sec++;
	}
	if (mq_timedreceive(results, result, sizeof result, NULL, &deadline) == -1)
		printf("then nothing: %s\n", strerror(errno));
	return 0;
}
