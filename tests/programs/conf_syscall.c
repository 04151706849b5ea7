/* The same calls by syscall(2), as test suites make them. Contract sections 1 to 6. */
#include "conf.h"

#define ATTR(m, s) (&(struct mq_attr){.mq_maxmsg = (m), .mq_msgsize = (s)})

#define raw_open(name, oflag, mode, attr) syscall(SYS_mq_open, name, oflag, mode, attr)
#define raw_unlink(name) syscall(SYS_mq_unlink, name)
#define raw_send(q, m, n, p, t) syscall(SYS_mq_timedsend, q, m, n, p, t)
#define raw_receive(q, m, n, p, t) syscall(SYS_mq_timedreceive, q, m, n, p, t)
#define raw_notify(q, e) syscall(SYS_mq_notify, q, e)
#define raw_getsetattr(q, n, o) syscall(SYS_mq_getsetattr, q, n, o)

/* The kernel's name is libc's without the slash. */
#define RAW(name) ((name) + 1)

CASE("1 (syscall)", raw_names_have_no_leading_slash)
{
	const char *n = qname("a");
	long q = OK(raw_open(RAW(n), O_RDWR | O_CREAT | O_EXCL, 0600, ATTR(2, 8)));
	mqd_t r = OK(mq_open(n, O_RDWR));
	EQ(raw_send(q, "x", 1, 3, NULL), 0);
	take(r, "x", 3);
	FAILS(raw_open(n, O_RDWR, 0, NULL), EACCES);
	FAILS(raw_open(n, O_RDWR | O_CREAT, 0600, ATTR(2, 8)), EACCES);
	FAILS(raw_unlink(n), EACCES);
	EQ(raw_unlink(RAW(n)), 0);
	FAILS(mq_open(n, O_RDWR), ENOENT);
}

CASE("1 (syscall)", raw_bad_names)
{
	static char long_[5000];
	struct {
		const char *name;
		int err;
	} t[] = {{"", ENOENT}, {".", EACCES},  {"..", EACCES}, {"a/b", EACCES},
		 {"/", EACCES}, {"a/", EACCES}, {"/a", EACCES}, {long_, ENAMETOOLONG},
		 {NULL, EFAULT}, {nowhere(), EFAULT}};
	memset(long_, 'n', 256);
	for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
		FAILS(raw_open(t[i].name, O_RDWR, 0, NULL), t[i].err);
		FAILS(raw_open(t[i].name, O_RDWR | O_CREAT, 0600, ATTR(1, 1)), t[i].err);
		FAILS(raw_unlink(t[i].name), t[i].err);
	}
	memset(long_, 'n', 4999);
	FAILS(raw_open(long_, O_RDWR, 0, NULL), ENAMETOOLONG);
	long_[1] = '/';
	FAILS(raw_unlink(long_), ENAMETOOLONG);
	char *e = edge(3);
	memcpy(e, "abc", 3);
	FAILS(raw_open(e, O_RDWR, 0, NULL), EFAULT);
	FAILS(raw_unlink(e), EFAULT);
}

CASE("2 (syscall)", raw_open_errors)
{
	const char *n = qname("a");
	FAILS(raw_open(RAW(n), O_RDWR, 0, NULL), ENOENT);
	FAILS(raw_open(RAW(n), O_RDWR | O_CREAT, 0600, nowhere()), EFAULT);
	FAILS(raw_open(".", O_RDWR | O_CREAT, 0600, nowhere()), EFAULT);
	FAILS(raw_open(RAW(n), O_RDWR | O_CREAT, 0600, ATTR(0, 1)), EINVAL);
	FAILS(raw_open(RAW(n), O_RDWR | O_CREAT, 0600, ATTR(11, 1)), EINVAL);
	long q = OK(raw_open(RAW(n), O_RDWR | O_CREAT, 07777, ATTR(2, 8)));
	FAILS(raw_open(RAW(n), O_RDWR | O_CREAT | O_EXCL, 0600, ATTR(2, 8)), EEXIST);
	FAILS(raw_open(RAW(n), 3, 0, NULL), EINVAL);
	/* It is libc that passes on no attributes without O_CREAT: the call itself copies them,
	 * and then doesn't look at them. */
	FAILS(raw_open(RAW(n), O_RDWR, 0, nowhere()), EFAULT);
	FAILS(raw_open("missing", O_RDWR, 0, nowhere()), EFAULT);
	OK(raw_open(RAW(n), O_RDWR, 0, ATTR(-1, -1)));
	EQ(fcntl(q, F_GETFD), FD_CLOEXEC);
	EQ(fcntl(q, F_GETFL), O_RDWR);
	struct stat st;
	OK(fstat(q, &st));
	EQ(st.st_mode, S_IFREG | 07755);
}

CASE("2 (syscall)", raw_open_with_full_table_is_EMFILE)
{
	const char *n = qname("a");
	fill_descriptors();
	FAILS(raw_open(RAW(n), O_RDWR, 0, NULL), EMFILE);
	FAILS(raw_open(".", O_RDWR, 0, NULL), EMFILE);
	FAILS(raw_open("", O_RDWR, 0, NULL), ENOENT);
}

CASE("3 (syscall)", raw_unlink_of_missing_is_ENOENT)
{
	FAILS(raw_unlink(RAW(qname("a"))), ENOENT);
}

ROOT_CASE("3 (syscall)", raw_unlink_by_another_user_is_EPERM)
{
	const char *n = qname("a");
	make(n, O_RDWR, 1, 1);
	CHILD {
		become(user(0));
		FAILS(raw_unlink(RAW(n)), EPERM);
		FAILS(mq_unlink(n), EACCES);
		FAILS(raw_open(RAW(n), O_RDWR, 0, NULL), EACCES);
	}
}

CASE("4 (syscall)", raw_send_and_receive)
{
	mqd_t q = make(qname("a"), O_RDWR | O_NONBLOCK, 2, 8);
	char b[8];
	unsigned p;
	EQ(raw_send(q, "low", 3, 1, NULL), 0);
	EQ(raw_send(q, "high", 4, 9, &past), 0);
	FAILS(raw_send(q, "x", 1, 0, NULL), EAGAIN);
	EQ(raw_receive(q, b, 8, &p, NULL), 4);
	SAME(b, "high", 4);
	EQ(p, 9);
	EQ(raw_receive(q, b, 8, NULL, NULL), 3);
	FAILS(raw_receive(q, b, 8, &p, NULL), EAGAIN);
	FAILS(raw_receive(q, b, 7, &p, NULL), EMSGSIZE);
	FAILS(raw_send(q, b, 9, 0, NULL), EMSGSIZE);
	FAILS(raw_send(q, b, 1, 32768, NULL), EINVAL);
	FAILS(raw_send(-1, b, 1, 0, NULL), EBADF);
	FAILS(raw_receive(-1, b, 8, NULL, NULL), EBADF);
}

CASE("4 (syscall)", raw_timed_calls_time_out)
{
	mqd_t q = make(qname("a"), O_RDWR, 1, 8);
	char b[8];
	struct timespec t = in_ms(10);
	FAILS(raw_receive(q, b, 8, NULL, &t), ETIMEDOUT);
	FAILS(raw_receive(q, b, 8, NULL, &past), ETIMEDOUT);
	FAILS(raw_receive(q, b, 8, NULL, (&(struct timespec){0, -1})), EINVAL);
	FAILS(raw_receive(q, b, 8, NULL, nowhere()), EFAULT);
	put(q, "x", 0);
	t = in_ms(10);
	FAILS(raw_send(q, "y", 1, 0, &t), ETIMEDOUT);
	FAILS(raw_send(q, "y", 1, 0, (&(struct timespec){0, 1000000000})), EINVAL);
}

CASE("4 (syscall)", raw_calls_sleep_and_are_served)
{
	mqd_t q = make(qname("a"), O_RDWR, 1, 8);
	pid_t p;
	ASYNC(p) {
		char b[8];
		EQ(raw_receive(q, b, 8, NULL, NULL), 1);
		EQ(b[0], 'x');
	}
	await_asleep(p);
	EQ(raw_send(q, "x", 1, 0, NULL), 0);
	join(p);
	EQ(raw_send(q, "1", 1, 0, NULL), 0);
	ASYNC(p) EQ(raw_send(q, "2", 1, 0, NULL), 0);
	await_asleep(p);
	take(q, "1", 0);
	join(p);
	take(q, "2", 0);
}

CASE("9 (syscall)", raw_sleep_is_interrupted)
{
	mqd_t q = make(qname("a"), O_RDWR, 1, 8);
	pid_t p;
	ASYNC(p) {
		char b[8];
		handle(SIGUSR1, 0);
		FAILS(raw_receive(q, b, 8, NULL, NULL), EINTR);
		handle(SIGUSR1, SA_RESTART);
		EQ(raw_receive(q, b, 8, NULL, NULL), 1);
	}
	await_asleep(p);
	EQ(kill(p, SIGUSR1), 0);
	await_marks(63, 1);
	await_asleep(p);
	EQ(kill(p, SIGUSR1), 0);
	await_marks(63, 2);
	await_asleep(p);
	put(q, "x", 0);
	join(p);
}

CASE("5 (syscall)", raw_getsetattr_reads_and_sets)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	struct mq_attr a = {.mq_flags = O_NONBLOCK}, old;
	memset(&old, 0xff, sizeof old);
	EQ(raw_getsetattr(q, &a, &old), 0);
	EQ(old.mq_flags, 0);
	EQ(old.mq_maxmsg, 2);
	EQ(old.mq_msgsize, 8);
	EQ(old.mq_curmsgs, 0);
	EQ(raw_getsetattr(q, NULL, &old), 0);
	EQ(old.mq_flags, O_NONBLOCK);
	EQ(raw_getsetattr(q, NULL, NULL), 0);
	a.mq_flags = 1;
	FAILS(raw_getsetattr(q, &a, NULL), EINVAL);
	FAILS(raw_getsetattr(-1, &a, NULL), EINVAL);
	FAILS(raw_getsetattr(-1, NULL, NULL), EBADF);
	FAILS(raw_getsetattr(0, NULL, &old), EBADF);
	FAILS(raw_getsetattr(q, nowhere(), NULL), EFAULT);
	FAILS(raw_getsetattr(q, NULL, nowhere()), EFAULT);
	a.mq_flags = 0;
	FAILS(raw_getsetattr(q, &a, nowhere()), EFAULT);
	EQ(fcntl(q, F_GETFL), O_RDWR);
}

CASE("6 (syscall)", raw_notify_by_signal_and_none)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1,
			     .sigev_value.sival_int = 5};
	siginfo_t si;
	block(SIGUSR1);
	EQ(raw_notify(q, &e), 0);
	FAILS(raw_notify(q, &e), EBUSY);
	EQ(raw_notify(q, NULL), 0);
	EQ(raw_notify(q, &e), 0);
	EQ(raw_send(q, "x", 1, 0, NULL), 0);
	TRUE(pending_signal(SIGUSR1, &si));
	EQ(si.si_code, SI_MESGQ);
	EQ(si.si_int, 5);
	e.sigev_notify = SIGEV_NONE;
	EQ(raw_notify(q, &e), 0);
	EQ(raw_notify(q, NULL), 0);
	e.sigev_notify = 9;
	FAILS(raw_notify(q, &e), EINVAL);
	FAILS(raw_notify(-1, &e), EINVAL);
	FAILS(raw_notify(-1, NULL), EBADF);
	FAILS(raw_notify(q, nowhere()), EFAULT);
}

CASE("10 (syscall)", raw_close_and_dup_are_seen)
{
	mqd_t q = make(qname("a"), O_RDWR, 2, 8);
	int d = OK(syscall(SYS_dup, q));
	put(d, "x", 0);
	EQ(syscall(SYS_close, q), 0);
	FAILS(mq_send(q, "x", 1, 0), EBADF);
	take(d, "x", 0);
	EQ(syscall(SYS_close, d), 0);
	FAILS(mq_receive(d, NULL, 8, NULL), EBADF);
}
