/* Contract section 3: mq_close, mq_unlink, life time. */
#include "conf.h"

CASE("3", close_works_on_any_descriptor)
{
	int p[2];
	OK(pipe(p));
	EQ(mq_close(p[0]), 0);
	FAILS(fcntl(p[0], F_GETFD), EBADF);
	EQ(mq_close(p[1]), 0);
	FAILS(fcntl(p[1], F_GETFD), EBADF);
	int n = OK(open("/dev/null", O_RDWR));
	EQ(mq_close(n), 0);
	FAILS(fcntl(n, F_GETFD), EBADF);
	int f = OK(open("/proc/self/exe", O_RDONLY));
	EQ(mq_close(f), 0);
	FAILS(fcntl(f, F_GETFD), EBADF);
}

CASE("3", close_of_a_queue_frees_the_number)
{
	char b[8];
	mqd_t q = make(qname("a"), O_RDWR, 1, 8);
	EQ(mq_close(q), 0);
	FAILS(mq_close(q), EBADF);
	FAILS(fcntl(q, F_GETFD), EBADF);
	FAILS(mq_send(q, "x", 1, 0), EBADF);
	FAILS(mq_receive(q, b, 8, NULL), EBADF);
	FAILS(mq_getattr(q, &(struct mq_attr){0}), EBADF);
	FAILS(mq_notify(q, NULL), EBADF);
	EQ(dup(0), q);
}

CASE("3", close_of_what_is_not_open_is_EBADF)
{
	FAILS(mq_close(-1), EBADF);
	FAILS(mq_close(900), EBADF);
	FAILS(mq_close(INT_MAX), EBADF);
	FAILS(mq_close(INT_MIN), EBADF);
}

CASE("3", plain_close_closes_a_queue)
{
	mqd_t q = make(qname("a"), O_RDWR, 1, 8);
	EQ(close(q), 0);
	FAILS(mq_send(q, "x", 1, 0), EBADF);
	FAILS(mq_close(q), EBADF);
}

CASE("3", number_reused_by_a_file_is_no_queue)
{
	mqd_t q = make(qname("a"), O_RDWR, 1, 8);
	EQ(close(q), 0);
	EQ(open("/dev/null", O_RDWR), q);
	FAILS(mq_send(q, "x", 1, 0), EBADF);
	FAILS(mq_getattr(q, &(struct mq_attr){0}), EBADF);
	EQ(write(q, "x", 1), 1);
}

CASE("3", number_replaced_by_dup2_is_the_other_queue)
{
	mqd_t a = make(qname("a"), O_RDWR, 2, 8), b = make(qname("b"), O_RDWR, 3, 16);
	EQ(dup2(b, a), a);
	struct mq_attr at;
	EQ(mq_getattr(a, &at), 0);
	EQ(at.mq_maxmsg, 3);
	put(a, "to b", 1);
	take(b, "to b", 1);
	int n = OK(open("/dev/null", O_RDWR));
	EQ(dup2(n, a), a);
	FAILS(mq_getattr(a, &at), EBADF);
	EQ(dup3(b, a, O_CLOEXEC), a);
	EQ(mq_getattr(a, &at), 0);
	EQ(at.mq_maxmsg, 3);
}

CASE("3", close_range_and_closefrom_close_queues)
{
	mqd_t a = make(qname("a"), O_RDWR, 2, 8), b = make(qname("b"), O_RDWR, 2, 8);
	EQ(close_range(a, a, 0), 0);
	FAILS(mq_send(a, "x", 1, 0), EBADF);
	put(b, "x", 0);
	a = make(qname("c"), O_RDWR, 2, 8);
	closefrom(3);
	FAILS(mq_send(a, "x", 1, 0), EBADF);
	FAILS(mq_send(b, "x", 1, 0), EBADF);
	a = make(qname("d"), O_RDWR, 2, 8);
	EQ(a, 3);
	put(a, "x", 0);
}

CASE("3", close_range_cloexec_leaves_queues_open)
{
	mqd_t a = make(qname("a"), O_RDWR, 2, 8);
	EQ(fcntl(a, F_SETFD, 0), 0);
	EQ(close_range(3, ~0u, CLOSE_RANGE_CLOEXEC), 0);
	EQ(fcntl(a, F_GETFD), FD_CLOEXEC);
	put(a, "x", 0);
	take(a, "x", 0);
}

CASE("3", unlink_of_missing_is_ENOENT)
{
	const char *n = qname("a");
	FAILS(mq_unlink(n), ENOENT);
	make(n, O_RDWR, 1, 8);
	EQ(mq_unlink(n), 0);
	FAILS(mq_unlink(n), ENOENT);
}

ROOT_CASE("3", unlink_by_another_user_is_EACCES_whatever_the_mode)
{
	const char *n = qname("a"), *m = qname("b");
	umask(0);
	mq_close(OK(mq_open(n, O_RDWR | O_CREAT | O_EXCL, 0777,
			    (&(struct mq_attr){.mq_maxmsg = 1, .mq_msgsize = 1}))));
	CHILD {
		become(user(0));
		FAILS(mq_unlink(n), EACCES);
		OK(mq_open(n, O_RDWR));
		OK(mq_open(m, O_RDWR | O_CREAT | O_EXCL, 0777,
			   (&(struct mq_attr){.mq_maxmsg = 1, .mq_msgsize = 1})));
	}
	CHILD {
		become(user(1));
		FAILS(mq_unlink(n), EACCES);
		FAILS(mq_unlink(m), EACCES);
	}
}

ROOT_CASE("3", unlink_by_a_member_of_the_group_is_EACCES)
{
	const char *n = qname("a");
	umask(0);
	CHILD {
		become(user(0));
		OK(mq_open(n, O_RDWR | O_CREAT | O_EXCL, 0770,
			   (&(struct mq_attr){.mq_maxmsg = 1, .mq_msgsize = 1})));
	}
	CHILD {
		OK(setgroups(0, NULL));
		OK(setresgid(user(0), user(0), user(0)));
		OK(setresuid(user(1), user(1), user(1)));
		OK(mq_open(n, O_RDWR));
		FAILS(mq_unlink(n), EACCES);
	}
}

ROOT_CASE("3", unlink_by_the_owner_works_without_any_permission)
{
	const char *n = qname("a");
	become(user(0));
	OK(mq_open(n, O_RDWR | O_CREAT | O_EXCL, 0,
		   (&(struct mq_attr){.mq_maxmsg = 1, .mq_msgsize = 1})));
	FAILS(mq_open(n, O_RDONLY), EACCES);
	EQ(mq_unlink(n), 0);
	FAILS(mq_open(n, O_RDONLY), ENOENT);
}

CASE("3", unlink_while_open_leaves_the_descriptors_working)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 2, 8), r = OK(mq_open(n, O_RDONLY));
	put(q, "old", 1);
	EQ(mq_unlink(n), 0);
	FAILS(mq_open(n, O_RDWR), ENOENT);
	FAILS(mq_unlink(n), ENOENT);
	put(q, "new", 0);
	take(r, "old", 1);
	take(r, "new", 0);
	struct stat st;
	OK(fstat(q, &st));
	EQ(st.st_nlink, 0);
	EQ(mq_close(q), 0);
	EQ(curmsgs(r), 0);
}

CASE("3", link_count_is_1_until_the_unlink)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 2, 8);
	struct stat st;
	OK(fstat(q, &st));
	EQ(st.st_nlink, 1);
	EQ(mq_unlink(n), 0);
	OK(fstat(q, &st));
	EQ(st.st_nlink, 0);
}

CASE("3", name_is_free_at_once_for_a_different_queue)
{
	const char *n = qname("a");
	mqd_t old = make(n, O_RDWR, 2, 8);
	put(old, "old", 0);
	EQ(mq_unlink(n), 0);
	mqd_t new = make(n, O_RDWR, 5, 32);
	struct mq_attr a;
	EQ(mq_getattr(new, &a), 0);
	EQ(a.mq_maxmsg, 5);
	EQ(a.mq_curmsgs, 0);
	EQ(mq_getattr(old, &a), 0);
	EQ(a.mq_maxmsg, 2);
	EQ(a.mq_curmsgs, 1);
	put(new, "new", 0);
	take(old, "old", 0);
	take(new, "new", 0);
	struct stat s, t;
	OK(fstat(old, &s));
	OK(fstat(new, &t));
	TRUE(s.st_ino != t.st_ino);
}

CASE("3", messages_stay_while_the_name_exists)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 3, 8);
	put(q, "low", 1);
	put(q, "high", 9);
	EQ(mq_close(q), 0);
	CHILD {
		mqd_t r = OK(mq_open(n, O_RDWR));
		EQ(curmsgs(r), 2);
		take(r, "high", 9);
	}
	q = OK(mq_open(n, O_RDWR));
	take(q, "low", 1);
}

CASE("3", messages_vanish_with_the_last_descriptor_and_the_name)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 3, 8);
	put(q, "x", 1);
	EQ(mq_close(q), 0);
	EQ(mq_unlink(n), 0);
	q = make(n, O_RDWR, 3, 8);
	EQ(curmsgs(q), 0);
}

CASE("3", name_outlives_its_creator)
{
	const char *n = qname("a");
	pid_t p;
	ASYNC(p) {
		put(make(n, O_RDWR, 3, 8), "x", 1);
		raise(SIGKILL);
	}
	join_killed(p, SIGKILL);
	take(OK(mq_open(n, O_RDWR)), "x", 1);
}

CASE("3", two_opens_and_two_processes_see_one_queue)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 3, 8);
	CHILD {
		mqd_t r = OK(mq_open(n, O_WRONLY));
		put(r, "child", 2);
	}
	take(q, "child", 2);
	CHILD {
		put(q, "again", 3);
	}
	take(q, "again", 3);
}

CASE("3", close_then_unlink_ends_the_queue)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 3, 8);
	put(q, "x", 1);
	EQ(mq_close(q), 0);
	EQ(mq_unlink(n), 0);
	FAILS(mq_open(n, O_RDWR), ENOENT);
}

CASE("3", unlink_then_close_ends_the_queue)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 3, 8), r = OK(mq_open(n, O_RDONLY));
	put(q, "x", 1);
	EQ(mq_unlink(n), 0);
	EQ(mq_close(q), 0);
	take(r, "x", 1);
	EQ(mq_close(r), 0);
	FAILS(mq_open(n, O_RDWR), ENOENT);
}

CASE("3", unlink_then_close_of_dups_and_copies_ends_the_queue)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 3, 8);
	int d = OK(dup(q));
	EQ(dup2(q, 40), 40);
	put(q, "x", 1);
	EQ(mq_unlink(n), 0);
	CHILD {
		EQ(mq_close(q), 0);
		EQ(mq_close(d), 0);
		EQ(mq_close(40), 0);
	}
	EQ(mq_close(q), 0);
	EQ(mq_close(d), 0);
	take(40, "x", 1);
	EQ(mq_close(40), 0);
}

CASE("3", failed_creation_makes_no_queue)
{
	struct mq_attr bad = {.mq_maxmsg = 0, .mq_msgsize = 1}, good = {.mq_maxmsg = 1, .mq_msgsize = 1};
	const char *n = qname("a");
	FAILS(mq_open(n, O_RDWR | O_CREAT, 0600, &bad), EINVAL);
	OK(setrlimit(RLIMIT_MSGQUEUE, &(struct rlimit){0, 0}));
	FAILS(mq_open(n, O_RDWR | O_CREAT, 0600, &good), EMFILE);
	fill_descriptors();
	FAILS(mq_open(n, O_RDWR | O_CREAT, 0600, &good), EMFILE);
}

CASE("3", unlink_then_exit_ends_the_queue)
{
	const char *n = qname("a");
	CHILD {
		put(make(n, O_RDWR, 3, 8), "x", 1);
		EQ(mq_unlink(n), 0);
	}
	FAILS(mq_open(n, O_RDWR), ENOENT);
}

CASE("3", unlink_then_SIGKILL_ends_the_queue)
{
	const char *n = qname("a");
	pid_t p;
	ASYNC(p) {
		put(make(n, O_RDWR, 3, 8), "x", 1);
		EQ(mq_unlink(n), 0);
		raise(SIGKILL);
	}
	join_killed(p, SIGKILL);
	FAILS(mq_open(n, O_RDWR), ENOENT);
}
