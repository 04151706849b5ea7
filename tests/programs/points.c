/*
 * points --list | OPERATION [--every N | --stop PREFIX | POINT:N [POINT:N]]: kills a process at each named point that an operation passes.
 *
 * Wants a library with the feature crash-points. Each run has a state directory of its own: a survivor prepares
 * (queues, sleepers, pollers), a victim forked by it does the operation and dies by SIGKILL at the N-th pass of POINT, the
 * survivor goes on at once and looks at everything. Then another process makes a queue in a limit that has room for
 * exactly that, and what lies in the directory is what lies there after a run in which nobody has died.
 *
 * The first run, in which nobody dies, tells which points the operation passes, and how often; each of the first
 * PASSES passes gets a run. After each death a process mends what there is to mend; in further runs it dies as well, at
 * each point that it passes only because somebody has died before. POINT:N asks for one of these runs.
 *
 * --stop PREFIX stops the victim by SIGSTOP, at each point of that beginning, instead: while it is stopped others make and remove
 * queues, then it goes on to the end. A line "stopped" for each: point, whether it has happened, µs.
 *
 * A survivor's call may take LATE ms, without the time that it and the helpers wait for a CPU.
 *
 * --list prints the operations, with "root" where they want a superuser. Else a line for each point that is passed: "passes
 * POINT" in the operation, "mends POINT" by whoever mends. And for each run a line "dead": point and pass, the same of the
 * second death or "-", whether the operation has happened ("done", "undone", "-" if that is not to be told), and the longest of
 * the survivors' calls in µs. --every N leaves out all but each Nth second death, and one at each point of a
 * queue's repair. Exit status 0 if all is well.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <linux/capability.h>
#include <mqueue.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PASSES = 2, LATE = 100, SMALL = 64, LARGE = 8192, TEXT = 1 << 16 };

static struct shared {
	char trace[TEXT]; /* points passed, a line each */
	char left[TEXT];  /* what lies in the directory */
	char done[16];
	atomic_int ready, told, longest_us, failed;
} *shared;

static const char *op_name = "", *first_point = "-", *second_point = "-", *stop_point;
static char base[PATH_MAX], root[PATH_MAX + 16], trace_file[PATH_MAX + 16], point_dir[PATH_MAX + 16];

static void fail(const char *format, ...)
{
	va_list args;
	int error = errno;
	char text[512];

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	dprintf(2, "%s, dead at %s, %s: %s (%s)\n", op_name, first_point, second_point, text,
		error ? strerrorname_np(error) : "0");
	shared->failed = 1;
	_exit(1);
}

#define NEED(what) do { errno = 0; if (!(what)) fail("line %d: %s", __LINE__, #what); } while (0)

/* ---- time ---- */

static double now_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static ssize_t read_file(const char *path, char *to, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, to, size - 1);
	if (fd >= 0)
		close(fd);
	to[n < 0 ? 0 : n] = 0;
	return n;
}

/* For how long this thread has waited for a CPU, and CPUs for their machine (a virtual one's: steal, proc(5)). */
static double delayed_us(void)
{
	char text[512];
	unsigned long long waited = 0, stolen = 0;

	read_file("/proc/thread-self/schedstat", text, sizeof text);
	if (sscanf(text, "%*u %llu", &waited) != 1)
		waited = 0;
	read_file("/proc/stat", text, sizeof text);
	if (sscanf(text, "cpu %*u %*u %*u %*u %*u %*u %*u %llu", &stolen) != 1)
		stolen = 0;
	return waited / 1e3 + stolen * 1e6 / sysconf(_SC_CLK_TCK);
}

static pid_t helpers[4];
static int helper_count;
/* What those of them that are no more had waited. */
static double gone_us;

/* For how long the threads of a process have waited for a CPU; one that has ended is asked before anybody has waited for it. */
static double waited_us(pid_t pid)
{
	char path[64], text[128];
	unsigned long long waited;
	double sum = 0;

	snprintf(path, sizeof path, "/proc/%d/task", pid);
	DIR *d = opendir(path);
	for (struct dirent *e; d && (e = readdir(d));) {
		char file[sizeof path + sizeof e->d_name + 16];
		snprintf(file, sizeof file, "%s/%s/schedstat", path, e->d_name);
		if (e->d_name[0] != '.' && read_file(file, text, sizeof text) > 0 && sscanf(text, "%*u %llu", &waited) == 1)
			sum += waited / 1e3;
	}
	if (d)
		closedir(d);
	return sum;
}

/* The same of the helpers, for whom the survivor's calls may have to wait. */
static double helpers_waited_us(void)
{
	double sum = gone_us;
	for (int i = 0; i < helper_count; i++)
		sum += waited_us(helpers[i]);
	return sum;
}

static double began_us, began_delayed_us, began_helpers_us;

static void begin(void)
{
	began_delayed_us = delayed_us();
	began_helpers_us = helpers_waited_us();
	began_us = now_us();
}

static void in_time(int line, const char *what)
{
	int took = (int)(now_us() - began_us), most = shared->longest_us;
	if (took > LATE * 1000)
		took -= (int)(delayed_us() - began_delayed_us + helpers_waited_us() - began_helpers_us);
	while (took > most && !atomic_compare_exchange_weak(&shared->longest_us, &most, took))
		;
	errno = 0;
	if (took > LATE * 1000)
		fail("line %d: %s took %d us", line, what, took);
}

/* A call of a survivor's. */
#define QUICK(call) ({ begin(); __typeof__(call) r_ = (call); int e_ = errno; in_time(__LINE__, #call); errno = e_; r_; })

/* ---- queues ---- */

static mqd_t q = (mqd_t)-1;
static long maxmsg = 4, msgsize = SMALL;
static size_t length = 24;

static struct mq_attr attr(void)
{
	return (struct mq_attr){.mq_maxmsg = maxmsg, .mq_msgsize = msgsize};
}

static unsigned long cost(void)
{
	return maxmsg * (msgsize + 96);
}

static mqd_t make_queue(const char *name, int flags)
{
	struct mq_attr a = attr();
	mqd_t made = mq_open(name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC | flags, 0666, &a);
	if (made < 0)
		fail("mq_open of a new %s", name);
	return made;
}

static void fill(char *to, int number)
{
	for (size_t i = 0; i < length; i++)
		to[i] = (char)(number * 7 + i * (number + 1) % 251);
}

/* Messages are numbers; the number is the priority as well, but for the last digit. */
static int send_number(mqd_t to, int number)
{
	char text[LARGE];
	fill(text, number);
	return mq_send(to, text, length, number / 10);
}

/* The number of a message that was received, whole. */
static int number_of(const char *text, ssize_t n, unsigned priority)
{
	char want[LARGE];
	if (n != (ssize_t)length)
		fail("a message of %zd bytes", n);
	for (int number = priority * 10; number < (int)priority * 10 + 10; number++) {
		fill(want, number);
		if (memcmp(text, want, length) == 0)
			return number;
	}
	fail("a torn message of priority %u", priority);
	return -1;
}

static int receive_number(mqd_t from)
{
	char text[LARGE];
	unsigned priority;
	ssize_t n = mq_receive(from, text, sizeof text, &priority);
	return n < 0 ? -1 : number_of(text, n, priority);
}

/* A list of numbers that ends with a 0, in the order in which they are to be received. */
typedef int list[16];

static void text_of(const int *numbers, char *to)
{
	*to = 0;
	for (; *numbers; numbers++)
		to += sprintf(to, "%d ", *numbers);
}

/* All that poll(2) and the like say of a queue. */
static void shows(mqd_t of, int n)
{
	short want = (n > 0 ? POLLIN | POLLRDNORM : 0) | (n < maxmsg ? POLLOUT | POLLWRNORM : 0);
	struct pollfd p = {.fd = of, .events = POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM};
	int set, ready = QUICK(poll(&p, 1, 0));
	if (ready != (want != 0) || p.revents != want)
		fail("poll shows %#x of %d messages", p.revents, n);
	struct epoll_event e = {.events = EPOLLIN | EPOLLOUT}, got = {.events = 0};
	NEED((set = epoll_create1(EPOLL_CLOEXEC)) >= 0 && epoll_ctl(set, EPOLL_CTL_ADD, of, &e) == 0);
	ready = QUICK(epoll_wait(set, &got, 1, 0));
	if (ready != 1 || got.events != (unsigned)(want & (POLLIN | POLLOUT)))
		fail("epoll shows %#x of %d messages", got.events, n);
	close(set);
	/* Whoever uses select(2) has the kernel know, from now on. */
	fd_set in, out;
	struct timeval none = {0, 0};
	FD_ZERO(&in);
	FD_ZERO(&out);
	FD_SET(of, &in);
	FD_SET(of, &out);
	ready = QUICK(select(of + 1, &in, &out, NULL, &none));
	if (!!FD_ISSET(of, &in) != (n > 0) || !!FD_ISSET(of, &out) != (n < maxmsg))
		fail("select shows %d of %d messages", ready, n);
	struct timespec zero = {0, 0};
	p.revents = 0;
	syscall(SYS_ppoll, &p, 1, &zero, NULL, 8);
	if (p.revents != want)
		fail("the kernel shows %#x of %d messages", p.revents, n);
}

/* The queue holds one of these, neither more nor less; then it is empty, and has room for all it should have. */
static const char *holds(mqd_t in, const int *undone, const int *done)
{
	struct mq_attr a;
	char text[200], want[100], got_text[100];
	list got = {0};
	int n = 0, bytes = 0, fl = fcntl(in, F_GETFL);

	NEED(fcntl(in, F_SETFL, fl | O_NONBLOCK) == 0);
	NEED(QUICK(mq_getattr(in, &a)) == 0);
	lseek(in, 0, SEEK_SET);
	ssize_t len = QUICK(read(in, text, sizeof text - 1));
	NEED(len > 0);
	text[len] = 0;
	if (sscanf(text, "QSIZE:%d", &bytes) != 1 || bytes != a.mq_curmsgs * (int)length)
		fail("%ld messages, and %s", a.mq_curmsgs, text);
	shows(in, a.mq_curmsgs);
	for (int number; (number = QUICK(receive_number(in))) > 0; n++) {
		if (n == 15)
			fail("no end of messages");
		got[n] = number;
	}
	if (errno != EAGAIN)
		fail("mq_receive");
	text_of(got, got_text);
	if (n != a.mq_curmsgs)
		fail("%ld messages, but %s", a.mq_curmsgs, got_text);
	const int *which = undone && memcmp(got, undone, (n + 1) * sizeof *got) == 0 ? undone
		: done && memcmp(got, done, (n + 1) * sizeof *got) == 0 ? done : NULL;
	if (!which) {
		text_of(undone ? undone : done, want);
		fail("holds %s not %s", got_text, want);
	}
	for (int i = 0; i < maxmsg; i++)
		if (QUICK(send_number(in, 11 + i)) != 0)
			fail("room for %d of %ld", i, maxmsg);
	NEED(QUICK(send_number(in, 1)) == -1 && errno == EAGAIN);
	shows(in, maxmsg);
	for (int i = maxmsg; i-- > 0;)
		NEED(QUICK(receive_number(in)) > 0);
	NEED(QUICK(receive_number(in)) == -1 && errno == EAGAIN);
	shows(in, 0);
	fcntl(in, F_SETFL, fl);
	return which == undone ? "undone" : "done";
}

static void happened(const char *how)
{
	snprintf(shared->done, sizeof shared->done, "%s", how);
}

/* Nobody is registered for notification: one can be, and is told. */
static void nobody_is_registered(mqd_t of)
{
	struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2, .sigev_value.sival_int = 5};
	struct timespec second = {1, 0};
	siginfo_t info;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, NULL);
	if (QUICK(mq_notify(of, &e)) != 0)
		fail("mq_notify");
	if (QUICK(send_number(of, 12)) != 0)
		fail("mq_send for a notification");
	NEED(QUICK(sigtimedwait(&set, &info, &second)) == SIGUSR2 && info.si_value.sival_int == 5);
	NEED(receive_number(of) == 12);
}

/* ---- processes ---- */

static pid_t victim;

/* Starts a helper that runs `act` and reports by its exit status; returns when it sleeps in that. */
static pid_t helper(void (*act)(void))
{
	char path[64], text[512];
	int was = shared->ready;
	pid_t pid = fork();

	NEED(pid >= 0);
	if (pid == 0) {
		shared->ready++;
		act();
		_exit(0);
	}
	helpers[helper_count++] = pid;
	while (shared->ready == was)
		sched_yield();
	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	for (;;) {
		NEED(read_file(path, text, sizeof text) > 0);
		char state = strrchr(text, ')')[2];
		if (state == 'S' || state == 'Z')
			return pid;
		sched_yield();
	}
}

static int ended(pid_t pid)
{
	int status;
	siginfo_t info;
	if (waitid(P_PID, pid, &info, WEXITED | WNOWAIT) != 0)
		fail("waitid");
	for (int i = 0; i < helper_count; i++)
		gone_us += helpers[i] == pid ? waited_us(pid) : 0;
	if (waitpid(pid, &status, 0) != pid)
		fail("waitpid");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

/* A helper is done, and has been told what it waited for. */
static void helper_ends(pid_t pid)
{
	if (QUICK(ended(pid)) != 0)
		fail("a helper has failed");
}

static void helper_is_ended(pid_t pid)
{
	kill(pid, SIGKILL);
	NEED(ended(pid) == 1000 + SIGKILL);
}

/* Runs `act` in a process, which is to succeed. */
static void in_child(void (*act)(void))
{
	pid_t pid = fork();
	NEED(pid >= 0);
	if (pid == 0) {
		act();
		_exit(0);
	}
	if (ended(pid) != 0)
		_exit(1);
}

static void limit(unsigned long bytes)
{
	struct rlimit r;
	NEED(getrlimit(RLIMIT_MSGQUEUE, &r) == 0);
	r.rlim_cur = bytes < r.rlim_max ? bytes : r.rlim_max;
	NEED(setrlimit(RLIMIT_MSGQUEUE, &r) == 0);
}

static int charged_queues;

static void room_for_one(void)
{
	struct mq_attr a = attr();
	limit(cost() * (charged_queues + 1));
	/* Not in time: to find out whether something is mounted anywhere it looks at each process. */
	mqd_t one = mq_open("/exact", O_CREAT | O_EXCL | O_RDWR, 0600, &a);
	if (one < 0)
		fail("no room for one queue beside %d", charged_queues);
	mqd_t two = mq_open("/more", O_CREAT | O_EXCL | O_RDWR, 0600, &a);
	if (two >= 0 || errno != EMFILE)
		fail("room for more than one queue beside %d", charged_queues);
	NEED(mq_close(one) == 0 && QUICK(mq_unlink("/exact")) == 0);
	NEED(mq_unlink("/more") == -1 && errno == ENOENT);
}

/* What is charged is what `queues` cost: another process can make exactly one more. */
static void exactly_charged(int queues)
{
	charged_queues = queues;
	in_child(room_for_one);
}

/* ---- the directory ---- */

static int look_at(const char *path, const struct stat *st, int type, struct FTW *where)
{
	char *to = shared->left + strlen(shared->left);
	size_t from = strlen(root);
	(void)st;
	(void)where;
	if (type == FTW_D && strstr(path + from, "/u") == NULL)
		return 0;
	/* Numbers differ from run to run. */
	for (int in_number = 0; path[from] && to < shared->left + TEXT - 300; from++) {
		int digit = strchr("0123456789abcdef", path[from]) != NULL;
		if (!digit || !in_number)
			*to++ = digit ? '#' : path[from];
		in_number = digit;
	}
	*to++ = '\n';
	*to = 0;
	return 0;
}

static void look_at_directory(void)
{
	shared->left[0] = 0;
	nftw(root, look_at, 16, FTW_PHYS);
	/* The first namespace counts its queues in a word of `control`, above 15 bits (src/ns/control.rs, ledger.rs). */
	DIR *d = opendir(root);
	for (struct dirent *e; d && (e = readdir(d));) {
		char path[2 * PATH_MAX];
		unsigned long long count = 0;
		if (e->d_name[0] != 'i')
			continue;
		snprintf(path, sizeof path, "%s/%s/control", root, e->d_name);
		int fd = open(path, O_RDONLY);
		if (fd >= 0 && pread(fd, &count, sizeof count, 8) == sizeof count && count >> 15 != 0)
			fail("%llu queues are counted, there is none", count >> 15);
		close(fd);
	}
}

static int take_away(const char *path, const struct stat *st, int type, struct FTW *where)
{
	(void)st;
	(void)type;
	(void)where;
	return remove(path);
}

static void clear(void)
{
	nftw(root, take_away, 16, FTW_PHYS | FTW_DEPTH);
	unlink(trace_file);
}

/* Each line of `some` stands as often in `all`. */
static void nothing_but(const char *all, const char *some)
{
	const char *line = some;
	for (const char *end; (end = strchr(line, '\n')); line = end + 1) {
		int here = 0, there = 0;
		size_t len = end + 1 - line;
		for (const char *at = some; *at; at = strchr(at, '\n') + 1)
			here += strncmp(at, line, len) == 0;
		for (const char *at = all; *at; at = strchr(at, '\n') + 1)
			there += strncmp(at, line, len) == 0;
		errno = 0;
		if (here > there)
			fail("left behind: %d times %.*s (otherwise %d)", here, (int)len - 1, line, there);
	}
}

/* ---- what the operations have in common ---- */

static void nothing(void) {}

static void stage_queue(void)
{
	q = make_queue("/q", O_NONBLOCK);
}

static void send_all(const int *numbers)
{
	for (; *numbers; numbers++)
		NEED(send_number(q, *numbers) == 0);
}

static void drop_queue(void)
{
	NEED(QUICK(mq_close(q)) == 0);
	NEED(QUICK(mq_unlink("/q")) == 0);
}

/* ---- creating ---- */

static void stage_used(void)
{
	mqd_t m = make_queue("/used", 0);
	NEED(mq_close(m) == 0 && mq_unlink("/used") == 0);
}

static void act_create(void)
{
	make_queue("/q", 0);
}

static void after_create(void)
{
	struct mq_attr a = attr();
	q = QUICK(mq_open("/q", O_RDWR | O_NONBLOCK));
	happened(q >= 0 ? "done" : "undone");
	if (q < 0 && errno != ENOENT)
		fail("mq_open of what a dead one may have made");
	if (q < 0)
		q = QUICK(mq_open("/q", O_CREAT | O_EXCL | O_RDWR | O_NONBLOCK, 0600, &a));
	NEED(q >= 0);
	NEED(mq_getattr(q, &a) == 0 && a.mq_maxmsg == maxmsg && a.mq_msgsize == msgsize);
	holds(q, (list){0}, NULL);
	exactly_charged(1);
	drop_queue();
}

static void stage_mounted(void)
{
	NEED(mount("none", point_dir, "mqueue", 0, NULL) == 0);
	stage_used();
}

static void is_unmounted(void)
{
	NEED(umount2(point_dir, 0) == 0);
}

static void after_create_mounted(void)
{
	after_create();
	is_unmounted();
}

/* The victim stops when all but the name is there, and another one takes that. */
static void act_create_late(void)
{
	struct mq_attr a = attr();
	setenv("MQNS_STOP", "create.published", 1);
	mqd_t m = mq_open("/q", O_CREAT | O_EXCL | O_RDWR, 0600, &a);
	if (m >= 0 || errno != EEXIST)
		fail("made what was there");
}

static void meanwhile_stopped(void)
{
	int status;
	NEED(waitpid(victim, &status, WUNTRACED) == victim);
	if (!WIFSTOPPED(status))
		/* It has died before; for the common code. */
		return (void)(victim = -status);
	q = QUICK(make_queue("/q", O_NONBLOCK));
	kill(victim, SIGCONT);
}

static void after_create_late(void)
{
	if (q < 0)
		q = QUICK(make_queue("/q", O_NONBLOCK));
	holds(q, (list){0}, NULL);
	exactly_charged(1);
	drop_queue();
}

/* A file that a program without the library makes in the superblock. */
static void touch(void)
{
	char path[PATH_MAX + 32];
	snprintf(path, sizeof path, "%s/q", point_dir);
	execle("/bin/touch", "touch", path, NULL, (char *[]){NULL});
	fail("exec of touch");
}

static void stage_foreign_file(void)
{
	stage_mounted();
	in_child(touch);
	maxmsg = 10;
	msgsize = LARGE;
}

static void act_open(void)
{
	NEED((q = mq_open("/q", O_RDWR)) >= 0);
}

static void after_furnish(void)
{
	q = QUICK(mq_open("/q", O_RDWR | O_NONBLOCK));
	if (q < 0)
		fail("mq_open of a file that somebody has made");
	holds(q, (list){0}, NULL);
	exactly_charged(1);
	drop_queue();
	is_unmounted();
}

/* ---- opening ---- */

static void stage_closed(void)
{
	stage_queue();
	send_all((list){21, 22, 11});
	NEED(mq_close(q) == 0);
}

static void after_closed(void)
{
	NEED((q = QUICK(mq_open("/q", O_RDWR | O_NONBLOCK))) >= 0);
	holds(q, (list){21, 22, 11}, NULL);
	exactly_charged(1);
	drop_queue();
}

static void stage_open(void)
{
	stage_queue();
	send_all((list){21, 22, 11});
}

static void after_open(void)
{
	holds(q, (list){21, 22, 11}, NULL);
	nobody_is_registered(q);
	exactly_charged(1);
	drop_queue();
}

/* ---- sending and receiving ---- */

static void act_send(void)
{
	NEED(send_number(q, 23) == 0);
}

static void after_send_to_empty(void)
{
	happened(holds(q, (list){0}, (list){23}));
	nobody_is_registered(q);
	exactly_charged(1);
	drop_queue();
}

static void after_send(void)
{
	happened(holds(q, (list){21, 22, 11}, (list){21, 22, 23, 11}));
	nobody_is_registered(q);
	exactly_charged(1);
	drop_queue();
}

static void large(void)
{
	msgsize = LARGE;
	length = 5000;
}

static void stage_large(void)
{
	large();
	stage_open();
}

static void stage_empty_large(void)
{
	large();
	stage_queue();
}

static void act_receive(void)
{
	NEED(receive_number(q) == 21);
}

static void after_receive(void)
{
	happened(holds(q, (list){21, 22, 11}, (list){22, 11}));
	nobody_is_registered(q);
	exactly_charged(1);
	drop_queue();
}

/* ---- pollers ---- */

static void poll_for_message(void)
{
	struct pollfd p = {.fd = q, .events = POLLIN};
	if (poll(&p, 1, -1) != 1 || p.revents != POLLIN)
		_exit(3);
}

static void epoll_for_message(void)
{
	struct epoll_event e = {.events = EPOLLIN | EPOLLET}, got;
	int set = epoll_create1(0);
	if (set < 0 || epoll_ctl(set, EPOLL_CTL_ADD, q, &e) != 0)
		_exit(3);
	/* Of a queue that is not empty it says so once. */
	while (epoll_wait(set, &got, 1, 0) == 1)
		;
	if (epoll_wait(set, &got, 1, -1) != 1 || got.events != EPOLLIN)
		_exit(4);
}

static void poll_for_room(void)
{
	struct pollfd p = {.fd = q, .events = POLLOUT};
	if (poll(&p, 1, -1) != 1 || p.revents != POLLOUT)
		_exit(3);
}

static void stage_polled(void)
{
	stage_queue();
	helper(poll_for_message);
}

static void stage_watched(void)
{
	stage_queue();
	helper(epoll_for_message);
}

/* Whoever looks at the queue sees the message, and so do those who poll; or neither. */
static void after_send_polled(void)
{
	struct mq_attr a;
	NEED(QUICK(mq_getattr(q, &a)) == 0);
	if (a.mq_curmsgs > 0)
		helper_ends(helpers[0]);
	happened(holds(q, (list){0}, (list){23}));
	if (a.mq_curmsgs == 0) {
		/* It may have missed those that have come and gone since. */
		NEED(send_number(q, 11) == 0);
		helper_ends(helpers[0]);
		NEED(receive_number(q) == 11);
	}
	nobody_is_registered(q);
	exactly_charged(1);
	drop_queue();
}

static void stage_full(void)
{
	stage_queue();
	send_all((list){21, 22, 11, 12});
}

static void stage_full_polled(void)
{
	stage_full();
	helper(poll_for_room);
}

static void after_receive_polled(void)
{
	struct mq_attr a;
	NEED(QUICK(mq_getattr(q, &a)) == 0);
	if (a.mq_curmsgs < maxmsg)
		helper_ends(helpers[0]);
	happened(holds(q, (list){21, 22, 11, 12}, (list){22, 11, 12}));
	if (a.mq_curmsgs == maxmsg)
		helper_ends(helpers[0]);
	exactly_charged(1);
	drop_queue();
}

/* ---- sleepers ---- */

static void receive_asleep(void)
{
	mqd_t own = mq_open("/q", O_RDWR);
	shared->told = receive_number(own);
}

static void send_asleep(void)
{
	mqd_t own = mq_open("/q", O_RDWR);
	shared->told = send_number(own, 13) == 0 ? 13 : -1;
}

static void stage_receiver(void)
{
	stage_queue();
	helper(receive_asleep);
}

static void stage_large_receiver(void)
{
	stage_empty_large();
	helper(receive_asleep);
}

/* The sleeper has the message, or sleeps on, and gets the next. */
static void after_hand_over(void)
{
	struct mq_attr a;
	begin();
	NEED(QUICK(mq_getattr(q, &a)) == 0);
	/* Any call puts right what is not: this one does nothing else. */
	NEED(QUICK(mq_notify(q, NULL)) == 0);
	NEED(QUICK(send_number(q, 31)) == 0);
	helper_ends(helpers[0]);
	if (shared->told == 23)
		happened(holds(q, NULL, (list){31}));
	else if (shared->told == 31)
		happened(holds(q, (list){0}, NULL));
	else
		fail("the sleeper has got %d", shared->told);
	nobody_is_registered(q);
	exactly_charged(1);
	drop_queue();
}

static void stage_sender(void)
{
	stage_full();
	helper(send_asleep);
}

static void after_let_in(void)
{
	int first = QUICK(receive_number(q));
	NEED(first == 21 || first == 22);
	helper_ends(helpers[0]);
	NEED(shared->told == 13);
	if (first == 21)
		happened(holds(q, (list){22, 11, 12, 13}, NULL));
	else
		happened(holds(q, NULL, (list){11, 12, 13}));
	exactly_charged(1);
	drop_queue();
}

static void blocking(void)
{
	NEED(fcntl(q, F_SETFL, 0) == 0);
}

static void stage_blocking(void)
{
	stage_queue();
	blocking();
}

static void stage_blocking_large(void)
{
	stage_empty_large();
	blocking();
}

static void stage_blocking_full(void)
{
	stage_full();
	blocking();
}

/* Returns when the victim sleeps, or is no more: whether it sleeps. */
static int victim_sleeps(void)
{
	char path[64], text[512];
	int status;
	snprintf(path, sizeof path, "/proc/%d/stat", victim);
	for (;;) {
		if (waitpid(victim, &status, WNOHANG) == victim) {
			victim = -status;
			return 0;
		}
		if (read_file(path, text, sizeof text) > 0 && shared->ready && strrchr(text, ')')[2] == 'S')
			return 1;
		sched_yield();
	}
}

static void act_receive_asleep(void)
{
	shared->ready = 1;
	shared->told = receive_number(q);
	NEED(shared->told == 23);
}

static void meanwhile_send(void)
{
	victim_sleeps();
	NEED(QUICK(send_number(q, 23)) == 0);
}

/* Whoever is killed when it was being served may take the message with it. */
static void after_receive_asleep(void)
{
	happened(holds(q, (list){23}, (list){0}));
	nobody_is_registered(q);
	exactly_charged(1);
	drop_queue();
}

static void act_send_asleep(void)
{
	shared->ready = 1;
	NEED(send_number(q, 23) == 0);
}

static void meanwhile_receive(void)
{
	victim_sleeps();
	NEED(QUICK(receive_number(q)) == 21);
}

static void after_send_asleep(void)
{
	happened(holds(q, (list){22, 11, 12}, (list){22, 23, 11, 12}));
	exactly_charged(1);
	drop_queue();
}

static struct timespec soon(void)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	t.tv_nsec += 10000000;
	if (t.tv_nsec >= 1000000000)
		t.tv_sec++, t.tv_nsec -= 1000000000;
	return t;
}

static void act_receive_in_vain(void)
{
	char text[LARGE];
	struct timespec t = soon();
	NEED(mq_timedreceive(q, text, sizeof text, NULL, &t) == -1 && errno == ETIMEDOUT);
}

static void act_send_in_vain(void)
{
	char text[LARGE];
	struct timespec t = soon();
	fill(text, 23);
	NEED(mq_timedsend(q, text, length, 2, &t) == -1 && errno == ETIMEDOUT);
}

static void after_receive_in_vain(void)
{
	holds(q, (list){0}, NULL);
	nobody_is_registered(q);
	exactly_charged(1);
	drop_queue();
}

static void after_send_in_vain(void)
{
	holds(q, (list){21, 22, 11, 12}, NULL);
	exactly_charged(1);
	drop_queue();
}

/* ---- notification ---- */

static void act_notify_signal(void)
{
	struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
	NEED(mq_notify(q, &e) == 0);
}

static void act_notify_none(void)
{
	struct sigevent e = {.sigev_notify = SIGEV_NONE};
	NEED(mq_notify(q, &e) == 0);
}

static void told(union sigval v)
{
	shared->told = v.sival_int;
}

static void act_notify_thread(void)
{
	struct sigevent e = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = told, .sigev_value.sival_int = 9};
	NEED(mq_notify(q, &e) == 0);
}

static void act_unregister(void)
{
	NEED(mq_notify(q, NULL) == 0);
}

/* What the victim does before its call. */
static void prepare_registered(void)
{
	signal(SIGUSR1, SIG_IGN);
	act_notify_signal();
}

/* A helper is registered: it ends when it has been told. */
static void wait_for_signal(void)
{
	struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_int = 7};
	siginfo_t info;
	sigset_t set;

	shared->ready--;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	NEED(mq_notify(q, &e) == 0);
	shared->ready++;
	if (sigwaitinfo(&set, &info) != SIGUSR1 || info.si_code != SI_MESGQ || info.si_value.sival_int != 7)
		_exit(3);
	/* It is used up. */
	NEED(mq_notify(q, &e) == 0);
}

static atomic_int called;

static void call_back(union sigval v)
{
	called = v.sival_int;
	syscall(SYS_futex, &called, 1 /* FUTEX_WAKE */, 1);
}

static void wait_for_thread(void)
{
	struct sigevent e = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = call_back, .sigev_value.sival_int = 7};
	shared->ready--;
	NEED(mq_notify(q, &e) == 0);
	shared->ready++;
	while (called == 0)
		syscall(SYS_futex, &called, 0 /* FUTEX_WAIT */, 0, NULL);
	NEED(mq_notify(q, &e) == 0);
}

static void stage_registered(void)
{
	stage_queue();
	helper(wait_for_signal);
}

static void stage_registered_thread(void)
{
	stage_queue();
	helper(wait_for_thread);
}

/* Whoever sees the message sees to it that the registered one is told; or there is none, and it is registered still. */
static void after_notified(void)
{
	struct mq_attr a;
	NEED(QUICK(mq_getattr(q, &a)) == 0);
	if (a.mq_curmsgs == 0)
		NEED(QUICK(send_number(q, 23)) == 0);
	helper_ends(helpers[0]);
	happened(a.mq_curmsgs == 0 ? "undone" : "done");
	holds(q, (list){23}, NULL);
	nobody_is_registered(q);
	exactly_charged(1);
	drop_queue();
}

/* The victim may not signal the helper. */
static void prepare_nobody(void)
{
	NEED(setgid(65534) == 0 && setuid(65534) == 0);
}

/* ---- closing and removing ---- */

static void prepare_nameless(void)
{
	q = make_queue("/q", O_NONBLOCK);
	send_all((list){21, 22});
	NEED(mq_unlink("/q") == 0);
}

static void act_close(void)
{
	NEED(mq_close(q) == 0);
}

static void after_gone(void)
{
	NEED(QUICK(mq_open("/q", O_RDWR)) == -1 && errno == ENOENT);
	exactly_charged(0);
	after_create();
}

static void act_unlink(void)
{
	NEED(mq_unlink("/q") == 0);
}

static void after_unlink(void)
{
	mqd_t m = QUICK(mq_open("/q", O_RDWR | O_NONBLOCK));
	happened(m < 0 ? "done" : "undone");
	if (m >= 0) {
		q = m;
		after_open();
		return;
	}
	if (errno != ENOENT)
		fail("mq_open");
	exactly_charged(0);
	after_create();
	happened("done");
}

static void after_unlink_open(void)
{
	mqd_t m = QUICK(mq_open("/q", O_RDWR | O_NONBLOCK));
	int is_there = m >= 0;
	if (!is_there && errno != ENOENT)
		fail("mq_open");
	if (is_there)
		NEED(mq_close(m) == 0);
	exactly_charged(1);
	/* The name is free, or it is this queue's. */
	holds(q, (list){21, 22, 11}, NULL);
	nobody_is_registered(q);
	if (is_there)
		NEED(QUICK(mq_unlink("/q")) == 0);
	NEED(QUICK(mq_close(q)) == 0);
	exactly_charged(0);
	after_create();
	happened(is_there ? "undone" : "done");
}

static void stage_closed_mounted(void)
{
	stage_mounted();
	stage_closed();
}

static void stage_open_mounted(void)
{
	stage_mounted();
	stage_open();
}

static void after_unlink_mounted(void)
{
	after_unlink();
	is_unmounted();
}

static void after_unlink_open_mounted(void)
{
	after_unlink_open();
	is_unmounted();
}

/* ---- namespaces ---- */

static void act_unshare(void)
{
	NEED(unshare(CLONE_NEWIPC) == 0);
}

static void after_namespace(void)
{
	exactly_charged(0);
	after_create();
	happened("-");
}

static void prepare_own(void)
{
	act_unshare();
	q = make_queue("/q", O_NONBLOCK);
	send_all((list){21, 22, 11});
}

/* The namespace of a helper, with a queue. */
static int ns_fd = -1;

static void host(void)
{
	shared->ready--;
	act_unshare();
	q = make_queue("/q", O_NONBLOCK);
	send_all((list){21, 22, 11});
	shared->ready++;
	pause();
}

static void stage_host(void)
{
	char path[64];
	stage_used();
	snprintf(path, sizeof path, "/proc/%d/ns/ipc", helper(host));
	NEED((ns_fd = open(path, O_RDONLY | O_CLOEXEC)) >= 0);
}

static void act_setns(void)
{
	NEED(setns(ns_fd, CLONE_NEWIPC) == 0);
}

static void prepare_back(void)
{
	int guest = ns_fd;
	NEED((ns_fd = open("/proc/self/ns/ipc", O_RDONLY | O_CLOEXEC)) >= 0);
	NEED(setns(guest, CLONE_NEWIPC) == 0);
	close(guest);
}

/* And from one of its own. */
static void prepare_from_own(void)
{
	prepare_own();
}

static void look_into_host(void)
{
	NEED(QUICK(setns(ns_fd, CLONE_NEWIPC)) == 0);
	NEED((q = QUICK(mq_open("/q", O_RDWR | O_NONBLOCK))) >= 0);
	holds(q, (list){21, 22, 11}, NULL);
}

static void after_host(void)
{
	in_child(look_into_host);
	exactly_charged(1);
	close(ns_fd);
	helper_is_ended(helpers[0]);
	after_namespace();
}

static void act_exit(void)
{
	exit(0);
}

static void prepare_own_mounted(void)
{
	prepare_own();
	NEED(mount("none", point_dir, "mqueue", 0, NULL) == 0);
}

static void after_mounted_namespace(void)
{
	char path[PATH_MAX + 32];
	/* It outlives its namespace, with the queue, as long as it is mounted. */
	snprintf(path, sizeof path, "%s/q", point_dir);
	q = QUICK(open(path, O_RDWR | O_NONBLOCK));
	if (q < 0)
		fail("open of a queue in a mount that has outlived its namespace");
	holds(q, (list){21, 22, 11}, NULL);
	NEED(QUICK(close(q)) == 0);
	NEED(umount2(point_dir, 0) == 0);
	after_namespace();
}

static int waits_for_child(pid_t pid)
{
	int status = ended(pid);
	/* The child has died instead. */
	if (status == 1000 + SIGKILL)
		_exit(77);
	return status;
}

static void *fork_in_own(void *unused)
{
	act_unshare();
	mqd_t m = make_queue("/q", 0);
	pid_t pid = fork();
	NEED(pid >= 0);
	if (pid == 0) {
		mqd_t there = mq_open("/q", O_RDWR);
		_exit(there >= 0 ? 0 : 3);
	}
	NEED(waits_for_child(pid) == 0);
	mq_close(m);
	return unused;
}

static void act_fork_thread(void)
{
	pthread_t t;
	NEED(pthread_create(&t, NULL, fork_in_own, NULL) == 0 && pthread_join(t, NULL) == 0);
}

static void act_fork(void)
{
	pid_t pid = fork();
	NEED(pid >= 0);
	if (pid == 0) {
		mqd_t there = mq_open("/q", O_RDWR);
		NEED(there >= 0 && receive_number(there) == 21);
		exit(0);
	}
	NEED(waits_for_child(pid) == 0);
	exit(0);
}

static int cloned(void *unused)
{
	(void)unused;
	make_queue("/q", 0);
	return 0;
}

static void act_clone(void)
{
	static char stack[1 << 17] __attribute__((aligned(16)));
	pid_t pid = clone(cloned, stack + sizeof stack, CLONE_NEWIPC | SIGCHLD, NULL);
	NEED(pid >= 0 && waits_for_child(pid) == 0);
}

static void act_exec(void)
{
	execl("/proc/self/exe", "points", "--in-new-image", NULL);
	fail("exec");
}

/* ---- mounts ---- */

static void act_mount(void)
{
	NEED(mount("none", point_dir, "mqueue", 0, NULL) == 0);
}

static void act_umount(void)
{
	NEED(umount2(point_dir, 0) == 0);
}

static void after_mount(void)
{
	int there = umount2(point_dir, 0) == 0;
	happened(there ? "done" : "undone");
	/* It can be mounted, whatever was. */
	NEED(mount("none", point_dir, "mqueue", 0, NULL) == 0);
	is_unmounted();
	after_closed();
	happened(there ? "done" : "undone");
}

static void after_umount(void)
{
	int there = umount2(point_dir, 0) == 0;
	after_closed();
	happened(there ? "undone" : "done");
}

/* One of a namespace that has ended. */
static void make_orphan(void)
{
	prepare_own_mounted();
}

static void stage_orphan_mounted(void)
{
	in_child(make_orphan);
}

static void after_umount_orphan(void)
{
	int there = umount2(point_dir, 0) == 0;
	after_namespace();
	happened(there ? "undone" : "done");
}

/* Without the right to mount. */
static void without_rights(void)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2];
	setenv("MQNS_PRIVILEGES", "generous", 1);
	NEED(syscall(SYS_capget, &h, d) == 0);
	d[CAP_SYS_ADMIN / 32].effective &= ~(1u << CAP_SYS_ADMIN % 32);
	NEED(syscall(SYS_capset, &h, d) == 0);
}

static void stage_virtual(void)
{
	without_rights();
	stage_closed();
}

static void stage_virtual_mounted(void)
{
	stage_virtual();
	act_mount();
}

/* ---- the operations ---- */

enum { ROOT = 1, MOUNTS = 3 };

static const struct op {
	const char *name;
	int wants;
	void (*stage)(void);    /* the survivor, before */
	void (*prepare)(void);  /* the victim, before */
	void (*act)(void);      /* the victim */
	void (*meanwhile)(void); /* the survivor */
	void (*after)(void);    /* the survivor, afterwards */
} ops[] = {
	{"create-first", 0, nothing, nothing, act_create, nothing, after_create},
	{"create", 0, stage_used, nothing, act_create, nothing, after_create},
	{"create-mounted", MOUNTS, stage_mounted, nothing, act_create, nothing, after_create_mounted},
	{"create-too-late", 0, stage_used, nothing, act_create_late, meanwhile_stopped, after_create_late},
	{"create-from-file", MOUNTS, stage_foreign_file, nothing, act_open, nothing, after_furnish},
	{"open", 0, stage_open, nothing, act_open, nothing, after_open},
	{"open-unused", 0, stage_closed, nothing, act_open, nothing, after_closed},
	{"send", 0, stage_open, nothing, act_send, nothing, after_send},
	{"send-to-empty", 0, stage_queue, nothing, act_send, nothing, after_send_to_empty},
	{"send-large", 0, stage_large, nothing, act_send, nothing, after_send},
	{"send-polled", 0, stage_polled, nothing, act_send, nothing, after_send_polled},
	{"send-watched", 0, stage_watched, nothing, act_send, nothing, after_send_polled},
	{"send-to-sleeper", 0, stage_receiver, nothing, act_send, nothing, after_hand_over},
	{"send-large-to-sleeper", 0, stage_large_receiver, nothing, act_send, nothing, after_hand_over},
	{"send-asleep", 0, stage_blocking_full, nothing, act_send_asleep, meanwhile_receive, after_send_asleep},
	{"send-in-vain", 0, stage_blocking_full, nothing, act_send_in_vain, nothing, after_send_in_vain},
	{"receive", 0, stage_open, nothing, act_receive, nothing, after_receive},
	{"receive-large", 0, stage_large, nothing, act_receive, nothing, after_receive},
	{"receive-polled", 0, stage_full_polled, nothing, act_receive, nothing, after_receive_polled},
	{"receive-letting-in", 0, stage_sender, nothing, act_receive, nothing, after_let_in},
	{"receive-asleep", 0, stage_blocking, nothing, act_receive_asleep, meanwhile_send, after_receive_asleep},
	{"receive-large-asleep", 0, stage_blocking_large, nothing, act_receive_asleep, meanwhile_send, after_receive_asleep},
	{"receive-in-vain", 0, stage_blocking, nothing, act_receive_in_vain, nothing, after_receive_in_vain},
	{"notify-signal", 0, stage_queue, nothing, act_notify_signal, nothing, after_receive_in_vain},
	{"notify-thread", 0, stage_queue, nothing, act_notify_thread, nothing, after_receive_in_vain},
	{"notify-none", 0, stage_queue, nothing, act_notify_none, nothing, after_receive_in_vain},
	{"notify-null", 0, stage_queue, prepare_registered, act_unregister, nothing, after_receive_in_vain},
	{"send-notifies", 0, stage_registered, nothing, act_send, nothing, after_notified},
	{"send-notifies-thread", 0, stage_registered_thread, nothing, act_send, nothing, after_notified},
	{"send-notifies-other", ROOT, stage_registered, prepare_nobody, act_send, nothing, after_notified},
	{"close", 0, stage_open, nothing, act_close, nothing, after_open},
	{"close-registered", 0, stage_queue, prepare_registered, act_close, nothing, after_receive_in_vain},
	{"close-last", 0, stage_used, prepare_nameless, act_close, nothing, after_gone},
	{"unlink", 0, stage_closed, nothing, act_unlink, nothing, after_unlink},
	{"unlink-open", 0, stage_open, nothing, act_unlink, nothing, after_unlink_open},
	{"unlink-mounted", MOUNTS, stage_closed_mounted, nothing, act_unlink, nothing, after_unlink_mounted},
	{"unlink-open-mounted", MOUNTS, stage_open_mounted, nothing, act_unlink, nothing, after_unlink_open_mounted},
	{"unshare-first", ROOT, nothing, nothing, act_unshare, nothing, after_namespace},
	{"unshare", ROOT, stage_used, nothing, act_unshare, nothing, after_namespace},
	{"unshare-again", ROOT, stage_used, prepare_own, act_unshare, nothing, after_namespace},
	{"setns", ROOT, stage_host, nothing, act_setns, nothing, after_host},
	{"setns-from-own", ROOT, stage_host, prepare_from_own, act_setns, nothing, after_host},
	{"setns-back", ROOT, stage_host, prepare_back, act_setns, nothing, after_host},
	{"fork", ROOT, stage_used, prepare_own, act_fork, nothing, after_namespace},
	{"fork-thread", ROOT, stage_used, nothing, act_fork_thread, nothing, after_namespace},
	{"clone", ROOT, stage_used, nothing, act_clone, nothing, after_namespace},
	{"exec", ROOT, stage_used, prepare_own, act_exec, nothing, after_namespace},
	{"exit", ROOT, stage_used, prepare_own, act_exit, nothing, after_namespace},
	{"exit-mounted", MOUNTS, stage_used, prepare_own_mounted, act_exit, nothing, after_mounted_namespace},
	{"mount", MOUNTS, stage_closed, nothing, act_mount, nothing, after_mount},
	{"umount", MOUNTS, stage_closed_mounted, nothing, act_umount, nothing, after_umount},
	{"umount-ended", MOUNTS, stage_orphan_mounted, nothing, act_umount, nothing, after_umount_orphan},
	{"mount-virtual", ROOT, stage_virtual, nothing, act_mount, nothing, after_mount},
	{"umount-virtual", ROOT, stage_virtual_mounted, nothing, act_umount, nothing, after_umount},
};

static const struct op *op;

/* ---- one run ---- */

/* What the next one might do who comes along: calls that put right what is not, and change nothing else. */
static void mend(void)
{
	struct mq_attr a = attr();
	if (q >= 0)
		mq_notify(q, NULL);
	mqd_t m = mq_open("/q", O_RDWR | O_NONBLOCK);
	if (m >= 0)
		mq_close(m);
	limit(0);
	NEED(mq_open("/mend", O_CREAT | O_EXCL | O_RDWR, 0600, &a) == -1 && errno == EMFILE);
}

static void arm(const char *point)
{
	unsetenv("MQNS_STOP");
	if (point && strcmp(point, "-") != 0)
		setenv("MQNS_CRASH", point, 1);
}

static void trace(int on)
{
	if (on)
		setenv("MQNS_CRASH_TRACE", trace_file, 1);
	else
		unsetenv("MQNS_CRASH_TRACE");
}

static int is_dead(int status)
{
	return (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) || (WIFEXITED(status) && WEXITSTATUS(status) == 77);
}

/* The victim is stopped, and others go on. */
static void others_go_on(void)
{
	int status;
	NEED(waitpid(victim, &status, WUNTRACED) == victim);
	if (!WIFSTOPPED(status))
		fail("does not stop");
	for (int i = 0; i < 20; i++) {
		char name[32];
		snprintf(name, sizeof name, "/beside%d", i % 3);
		mqd_t one = QUICK(make_queue(name, O_NONBLOCK));
		NEED(one >= 0 && mq_close(one) == 0 && QUICK(mq_unlink(name)) == 0);
	}
	kill(victim, SIGCONT);
}

/* Returns 0, or 1 where nobody has died who was told to. */
static int survive(int trace_victim, int trace_mender)
{
	int status, died = 0;

	op->stage();
	shared->ready = helper_count;
	victim = fork();
	NEED(victim >= 0);
	if (victim == 0) {
		shared->ready = 0;
		op->prepare();
		trace(trace_victim);
		arm(first_point);
		if (stop_point)
			setenv("MQNS_STOP", stop_point, 1);
		op->act();
		_exit(0);
	}
	if (stop_point)
		others_go_on();
	op->meanwhile();
	if (victim > 0)
		NEED(waitpid(victim, &status, 0) == victim);
	else
		status = -victim;
	died = is_dead(status);
	if (!died && status != 0)
		_exit(1);
	if (trace_mender || (died && strcmp(second_point, "-") != 0)) {
		pid_t mender = fork();
		NEED(mender >= 0);
		if (mender == 0) {
			trace(trace_mender);
			arm(second_point);
			mend();
			_exit(0);
		}
		NEED(waitpid(mender, &status, 0) == mender);
		if (!is_dead(status) && status != 0)
			_exit(1);
		died = strcmp(second_point, "-") != 0 ? is_dead(status) : died;
	}
	op->after();
	return !died;
}

/* Runs all that a run is in processes of its own; returns 1 if nobody has died. */
static int run(const char *first, const char *second, int trace_victim, int trace_mender, const char *otherwise)
{
	static int runs;
	int status;

	first_point = first;
	second_point = second;
	shared->trace[0] = shared->done[0] = 0;
	shared->ready = shared->told = shared->longest_us = 0;
	runs++;
	pid_t pid = fork();
	NEED(pid >= 0);
	if (pid == 0) {
		snprintf(root, sizeof root, "%s/%s.%d", base, op_name, runs);
		snprintf(trace_file, sizeof trace_file, "%s/%s.trace", base, op_name);
		snprintf(point_dir, sizeof point_dir, "%s/%s.mnt", base, op_name);
		setenv("MQNS_DIR", root, 1);
		NEED(mkdir(root, 0777) == 0 && chmod(root, 01777) == 0);
		mkdir(point_dir, 0777);
		pid_t survivor = fork();
		NEED(survivor >= 0);
		if (survivor == 0) {
			if (op->wants == MOUNTS)
				NEED(unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
			/* A limit counts for root as well. */
			limit(1 << 30);
			_exit(survive(trace_victim, trace_mender) ? 2 : 0);
		}
		int how = ended(survivor);
		if (how == 1 || how > 2)
			_exit(1);
		limit(1 << 30);
		exactly_charged(0);
		in_child(look_at_directory);
		int fd = open(trace_file, O_RDONLY | O_CLOEXEC);
		ssize_t n = fd < 0 ? 0 : read(fd, shared->trace, TEXT - 1);
		shared->trace[n < 0 ? 0 : n] = 0;
		if (otherwise)
			nothing_but(otherwise, shared->left);
		in_child(clear);
		_exit(how);
	}
	NEED(waitpid(pid, &status, 0) == pid);
	if (!WIFEXITED(status) || WEXITSTATUS(status) == 1) {
		dprintf(2, "%s: failed, dead at %s, %s\n", op_name, first, second);
		shared->failed = 1;
		return 1;
	}
	return WEXITSTATUS(status) == 2;
}

static void report(void)
{
	printf("dead %s %s %s %d\n", first_point, second_point, shared->done[0] ? shared->done : "-", shared->longest_us);
}

static int times(const char *trace, const char *line, size_t len)
{
	int n = 0;
	for (const char *at = trace; *at; at = strchr(at, '\n') + 1)
		n += strncmp(at, line, len) == 0;
	return n;
}

/* Each point of `trace`, and pass, that `usual` does not have. */
static void each_pass(const char *trace, const char *usual, void (*see)(const char *point))
{
	for (const char *at = trace, *end; (end = strchr(at, '\n')); at = end + 1) {
		char point[96];
		size_t len = end + 1 - at;
		int before = 0;
		for (const char *earlier = trace; earlier < at; earlier = strchr(earlier, '\n') + 1)
			before += strncmp(earlier, at, len) == 0;
		if (before >= PASSES || before < times(usual, at, len))
			continue;
		snprintf(point, sizeof point, "%.*s:%d", (int)len - 1, at, before + 1);
		see(point);
	}
}

static char usual[TEXT], usual_left[TEXT], mended[TEXT];
static char first_copy[96];

static unsigned every = 1, second_deaths;

static void second_death(const char *point)
{
	char copy[96];
	size_t len = strchr(point, ':') - point;
	printf("mends %.*s\n", (int)len, point);
	/* Of those in the repair of a queue, each once in any case. */
	static char tried[TEXT];
	int fresh = strncmp(point, "repair.", 7) == 0 && times(tried, point, len) == 0;
	if (fresh)
		snprintf(tried + strlen(tried), sizeof tried - strlen(tried), "%.*s\n", (int)len, point);
	if (second_deaths++ % every != 0 && !fresh)
		return;
	snprintf(copy, sizeof copy, "%s", point);
	if (!run(first_copy, copy, 0, 0, usual_left))
		report();
}

static void first_death(const char *point)
{
	snprintf(first_copy, sizeof first_copy, "%s", point);
	printf("passes %.*s\n", (int)(strchr(point, ':') - point), point);
	if (run(first_copy, "-", 0, 0, usual_left))
		return;
	report();
	if (run(first_copy, "-", 0, 1, usual_left))
		return;
	strcpy(mended, shared->trace);
	each_pass(mended, usual, second_death);
}

static const char *stop_prefix;

static void stop(const char *point)
{
	char copy[96];
	snprintf(copy, sizeof copy, "%.*s", (int)(strchr(point, ':') - point), point);
	/* At the first pass alone. */
	if (strncmp(copy, stop_prefix, strlen(stop_prefix)) != 0 || strcmp(strchr(point, ':'), ":1") != 0)
		return;
	stop_point = copy;
	run("-", "-", 0, 0, usual_left);
	printf("stopped %s %s %d\n", copy, shared->done[0] ? shared->done : "-", shared->longest_us);
	stop_point = NULL;
}

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "--in-new-image") == 0) {
		mqd_t there = mq_open("/q", O_RDWR);
		_exit(there >= 0 && receive_number(there) == 21 ? 0 : 3);
	}
	if (argc == 2 && strcmp(argv[1], "--list") == 0) {
		for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
			printf("%s%s\n", ops[i].name, ops[i].wants ? " root" : "");
		return 0;
	}
	for (size_t i = 0; argc > 1 && i < sizeof ops / sizeof *ops; i++)
		if (strcmp(argv[1], ops[i].name) == 0)
			op = &ops[i];
	if (!op || !getenv("MQNS_DIR")) {
		fprintf(stderr, "usage: MQNS_DIR=DIR points --list | OPERATION [--every N | --stop PREFIX | POINT:N [POINT:N]]\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	op_name = op->name;
	snprintf(base, sizeof base, "%s", getenv("MQNS_DIR"));
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		return 2;
	char *passed = malloc(TEXT);
	run("-", "-", 1, 0, NULL);
	if (shared->failed || !shared->trace[0]) {
		fprintf(stderr, "%s: %s\n", op_name, shared->failed ? "fails with nobody dead" : "passes no point: is this a library with the feature crash-points?");
		return 1;
	}
	strcpy(passed, shared->trace);
	strcpy(usual_left, shared->left);
	if (argc > 3 && strcmp(argv[2], "--every") == 0) {
		every = atoi(argv[3]) > 0 ? atoi(argv[3]) : 1;
	} else if (argc > 3 && strcmp(argv[2], "--stop") == 0) {
		stop_prefix = argv[3];
		each_pass(passed, "", stop);
		return shared->failed;
	} else if (argc > 2) {
		first_point = argv[2];
		if (!run(argv[2], argc > 3 ? argv[3] : "-", 0, 0, usual_left))
			report();
		return shared->failed;
	}
	/* What mending passes where nobody has died before is not worth a second death. */
	run("-", "-", 0, 1, usual_left);
	strcpy(usual, shared->trace);
	each_pass(passed, "", first_death);
	return shared->failed;
}
