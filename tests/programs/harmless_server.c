/*
 * harmless_server: a server on the loopback with a thread that waits in epoll and three workers;
 * eight clients in threads of their own, which wait in poll, ppoll, select and pselect. Prints what
 * went through. Uses no queue.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CLIENTS = 8, ROUNDS = 200, WORKERS = 3 };

static int listener, epoll, work[2];
static struct sockaddr_in address = {.sin_family = AF_INET};

static void die(const char *what)
{
	perror(what);
	_exit(1);
}

static void *worker(void *arg)
{
	long served = 0;
	int fd;

	while (read(work[0], &fd, sizeof fd) == sizeof fd) {
		unsigned n;
		ssize_t r = recv(fd, &n, sizeof n, 0);
		if (r == 0) {
			close(fd);
			continue;
		}
		if (r != sizeof n)
			die("recv");
		n = n * 2 + 1;
		if (send(fd, &n, sizeof n, 0) != sizeof n)
			die("send");
		served++;
		struct epoll_event e = {.events = EPOLLIN | EPOLLONESHOT, .data.fd = fd};
		if (epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &e))
			die("epoll_ctl");
	}
	*(long *)arg = served;
	return NULL;
}

static void *server(void *arg)
{
	int gone = 0;

	while (gone < CLIENTS) {
		struct epoll_event e[4];
		int n = epoll_wait(epoll, e, 4, -1);
		for (int i = 0; i < n; i++) {
			int fd = e[i].data.fd;
			if (fd == listener) {
				fd = accept(listener, NULL, NULL);
				struct epoll_event c = {.events = EPOLLIN | EPOLLONESHOT, .data.fd = fd};
				if (fd < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &c))
					die("accept");
				continue;
			}
			char c;
			gone += recv(fd, &c, 1, MSG_PEEK) == 0;
			if (write(work[1], &fd, sizeof fd) != sizeof fd)
				die("write");
		}
	}
	close(work[1]);
	return arg;
}

static void *client(void *arg)
{
	unsigned id = (size_t)arg, sum = 0;
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (connect(fd, (struct sockaddr *)&address, sizeof address))
		die("connect");
	for (unsigned i = 0; i < ROUNDS; i++) {
		unsigned n = id * ROUNDS + i;
		struct pollfd p = {.fd = fd, .events = POLLIN};
		struct timespec t = {.tv_sec = 30};
		struct timeval v = {.tv_sec = 30};
		fd_set set;
		sigset_t none;
		int r = 0;
		if (send(fd, &n, sizeof n, 0) != sizeof n)
			die("send");
		FD_ZERO(&set);
		FD_SET(fd, &set);
		sigemptyset(&none);
		switch (i % 4) {
		case 0: r = poll(&p, 1, 30000); break;
		case 1: r = ppoll(&p, 1, &t, &none); break;
		case 2: r = select(fd + 1, &set, NULL, NULL, &v); break;
		case 3: r = pselect(fd + 1, &set, NULL, NULL, &t, &none); break;
		}
		if (r != 1 || recv(fd, &n, sizeof n, 0) != sizeof n)
			die("recv");
		sum += n;
	}
	close(fd);
	return (void *)(size_t)sum;
}

int main(void)
{
	pthread_t s, w[WORKERS], c[CLIENTS];
	long served[WORKERS], all = 0;
	unsigned sum = 0;
	socklen_t len = sizeof address;
	struct epoll_event e = {.events = EPOLLIN};

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	listener = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(listener, (struct sockaddr *)&address, len) || listen(listener, CLIENTS) ||
	    getsockname(listener, (struct sockaddr *)&address, &len) || pipe(work))
		die("listen");
	epoll = epoll_create1(EPOLL_CLOEXEC);
	e.data.fd = listener;
	if (epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &e))
		die("epoll_ctl");
	pthread_create(&s, NULL, server, NULL);
	for (int i = 0; i < WORKERS; i++)
		pthread_create(&w[i], NULL, worker, &served[i]);
	for (size_t i = 0; i < CLIENTS; i++)
		pthread_create(&c[i], NULL, client, (void *)i);
	for (int i = 0; i < CLIENTS; i++) {
		void *got;
		pthread_join(c[i], &got);
		sum += (size_t)got;
	}
	pthread_join(s, NULL);
	for (int i = 0; i < WORKERS; i++) {
		pthread_join(w[i], NULL);
		all += served[i];
	}
	printf("served %ld, sum %u, next descriptor %d\n", all, sum, dup(0));
	return 0;
}
