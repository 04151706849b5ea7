/* cc-flags: -O2 -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2 */
/* Contract section 2: mq_open as fortified programs call it (__mq_open_2). */
#include "conf.h"

/* Not known at compile time, so that the check is made at run time. */
static volatile int run_time;

CASE("2 (fortified)", fortified_open_of_existing_works)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 2, 8);
	mqd_t r = OK(mq_open(n, O_RDWR | run_time));
	put(q, "x", 1);
	take(r, "x", 1);
	EQ(fcntl(r, F_GETFL), O_RDWR);
	EQ(fcntl(r, F_GETFD), FD_CLOEXEC);
	mqd_t nb = OK(mq_open(n, O_RDONLY | O_NONBLOCK | run_time));
	EQ(fcntl(nb, F_GETFL), O_RDONLY | O_NONBLOCK);
}

CASE("2 (fortified)", fortified_open_errors)
{
	const char *n = qname("a");
	FAILS(mq_open(n, O_RDWR | run_time), ENOENT);
	FAILS(mq_open("x", O_RDWR | run_time), EINVAL);
	FAILS(mq_open("/.", O_RDWR | run_time), EACCES);
	make(n, O_RDWR, 2, 8);
	FAILS(mq_open(n, 3 | run_time), EINVAL);
}

CASE("2 (fortified)", fortified_open_with_creat_but_no_mode_aborts)
{
	const char *n = qname("a");
	pid_t p = conf_fork();
	if (p == 0) {
		close(2);
		OK(setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}));
		mq_open(n, O_RDWR | O_CREAT | run_time);
		_exit(0);
	}
	join_killed(p, SIGABRT);
	FAILS(mq_open(n, O_RDWR), ENOENT);
}

CASE("2 (fortified)", fortified_open_is_the_checked_one)
{
	/* Else this program would test nothing. */
	TRUE(__USE_FORTIFY_LEVEL == 2);
}
