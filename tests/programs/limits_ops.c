/*
 * limits_ops OP…: does one thing after the other and prints a line for each: "ok", a number, a
 * text, or the name of an error. An OP is one argument, its words separated by blanks. "The
 * descriptor" is that of the last open, O_NONBLOCK.
 *
 *   umask MODE                 ids UID             (real, effective and saved, groups dropped)
 *   euid UID                   rlimit-msgqueue N   rlimit-nofile N
 *   create NAME MODE [MAXMSG MSGSIZE]    O_CREAT | O_EXCL
 *   create-many N MAXMSG MSGSIZE         /many.0 …, all kept open; prints how many, then the error
 *   unlink-many                all of them, closed too
 *   open NAME                  O_RDWR
 *   unlink NAME                close
 *   send TEXT                  receive             prints the text
 *   fill LENGTH                sends messages of a letter each until refused; prints how many,
 *                              then the error
 *   drain FROM                 receives what fill has sent, from message FROM on; prints how many,
 *                              then what came instead of the next
 *   take-descriptors           opens /dev/null until refused
 *   give-descriptors           closes them all
 *   descriptors                how many are open
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <mqueue.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MANY = 1024, NULLS = 4096 };

static mqd_t q = (mqd_t)-1, many[MANY];
static int many_n, nulls[NULLS], nulls_n;
static char *buffer;
static long buffer_len;

static const char *error(void)
{
	return strerrorname_np(errno);
}

static void report(int failed)
{
	puts(failed ? error() : "ok");
}

static void set_limit(int which, unsigned long value)
{
	struct rlimit r;

	getrlimit(which, &r);
	r.rlim_cur = value;
	report(setrlimit(which, &r));
}

static void set_queue(mqd_t new)
{
	struct mq_attr a;

	q = new;
	if (q != (mqd_t)-1 && mq_getattr(q, &a) == 0 && a.mq_msgsize > buffer_len) {
		buffer_len = a.mq_msgsize;
		buffer = realloc(buffer, buffer_len);
	}
	report(q == (mqd_t)-1);
}

static void create_many(int n, long maxmsg, long msgsize)
{
	struct mq_attr a = {.mq_maxmsg = maxmsg, .mq_msgsize = msgsize};
	char name[32];
	int made = 0;

	for (; made < n && many_n < MANY; made++) {
		snprintf(name, sizeof name, "/many.%d", many_n);
		mqd_t m = mq_open(name, O_RDWR | O_CREAT | O_EXCL, 0600, &a);
		if (m == (mqd_t)-1)
			break;
		many[many_n++] = m;
	}
	printf("%d %s\n", made, made < n ? error() : "ok");
}

static void unlink_many(void)
{
	char name[32];
	int bad = 0;

	while (many_n) {
		snprintf(name, sizeof name, "/many.%d", --many_n);
		bad |= mq_unlink(name) || mq_close(many[many_n]);
	}
	report(bad);
}

static void fill(long len)
{
	long n = 0;

	for (;; n++) {
		memset(buffer, 'a' + n % 26, len);
		if (mq_send(q, buffer, len, 0))
			break;
	}
	printf("%ld %s\n", n, error());
}

static ssize_t receive(void)
{
	return mq_receive(q, buffer, buffer_len, NULL);
}

/* A long message of one byte is printed as its length and that byte. */
static void print_message(ssize_t len)
{
	if (len < 0)
		puts(error());
	else if (len > 32 && !memcmp(buffer, buffer + 1, len - 1))
		printf("%zd %c\n", len, buffer[0]);
	else
		printf("%.*s\n", (int)len, buffer);
}

static void drain(long from)
{
	long n = from;
	ssize_t len;

	for (; (len = receive()) > 0; n++)
		if (buffer[0] != 'a' + n % 26 || memcmp(buffer, buffer + 1, len - 1))
			break;
	printf("%ld ", n - from);
	print_message(len);
}

static int descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n - 3; /* ".", ".." and the directory itself */
}

static void op(char *text)
{
	char *w[5] = {0}, *save = NULL;
	int n = 0;

	for (char *t = strtok_r(text, " ", &save); t && n < 5; t = strtok_r(NULL, " ", &save))
		w[n++] = t;
#define IS(name, words) (n && !strcmp(w[0], name) && n == 1 + (words))
	if (IS("umask", 1)) {
		umask(strtoul(w[1], NULL, 8));
		puts("ok");
	} else if (IS("ids", 1)) {
		uid_t id = atoi(w[1]);
		report(setgroups(0, NULL) || setresgid(id, id, id) || setresuid(id, id, id));
	} else if (IS("euid", 1)) {
		report(seteuid(atoi(w[1])));
	} else if (IS("rlimit-msgqueue", 1)) {
		set_limit(RLIMIT_MSGQUEUE, strtoul(w[1], NULL, 10));
	} else if (IS("rlimit-nofile", 1)) {
		set_limit(RLIMIT_NOFILE, strtoul(w[1], NULL, 10));
	} else if (IS("create", 2) || IS("create", 4)) {
		struct mq_attr a = {.mq_maxmsg = n > 3 ? atol(w[3]) : 0, .mq_msgsize = n > 3 ? atol(w[4]) : 0};
		set_queue(mq_open(w[1], O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK, strtoul(w[2], NULL, 8),
				  n > 3 ? &a : NULL));
	} else if (IS("create-many", 3)) {
		create_many(atoi(w[1]), atol(w[2]), atol(w[3]));
	} else if (IS("unlink-many", 0)) {
		unlink_many();
	} else if (IS("open", 1)) {
		set_queue(mq_open(w[1], O_RDWR | O_NONBLOCK));
	} else if (IS("unlink", 1)) {
		report(mq_unlink(w[1]));
	} else if (IS("close", 0)) {
		report(mq_close(q));
	} else if (IS("send", 1)) {
		report(mq_send(q, w[1], strlen(w[1]), 0));
	} else if (IS("receive", 0)) {
		print_message(receive());
	} else if (IS("fill", 1)) {
		fill(atol(w[1]));
	} else if (IS("drain", 1)) {
		drain(atol(w[1]));
	} else if (IS("take-descriptors", 0)) {
		int fd;
		while (nulls_n < NULLS && (fd = open("/dev/null", O_RDONLY)) >= 0)
			nulls[nulls_n++] = fd;
		puts(error());
	} else if (IS("give-descriptors", 0)) {
		while (nulls_n)
			close(nulls[--nulls_n]);
		puts("ok");
	} else if (IS("descriptors", 0)) {
		printf("%d\n", descriptors());
	} else {
		fprintf(stderr, "limits_ops: what is \"%s\"?\n", text);
		exit(2);
	}
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int i = 1; i < argc; i++)
		op(argv[i]);
	return 0;
}
