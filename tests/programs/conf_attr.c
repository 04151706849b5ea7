/* Contract section 5: mq_getattr, mq_setattr. */
#include "conf.h"

static long flags_of(mqd_t q)
{
	struct mq_attr a;
	if (mq_getattr(q, &a))
		FAIL("mq_getattr: %s", errno_name(errno));
	return a.mq_flags;
}
static int set_flags(mqd_t q, long f)
{
	return mq_setattr(q, &(struct mq_attr){.mq_flags = f}, NULL);
}

CASE("5", getattr_fills_everything_and_the_pads_are_0)
{
	mqd_t q = make(qname("a"), O_RDWR | O_NONBLOCK, 3, 17);
	put(q, "x", 0);
	put(q, "y", 0);
	struct mq_attr a, want = {.mq_flags = O_NONBLOCK, .mq_maxmsg = 3, .mq_msgsize = 17,
				  .mq_curmsgs = 2};
	memset(&a, 0xff, sizeof a);
	EQ(mq_getattr(q, &a), 0);
	EQ(memcmp(&a, &want, sizeof a), 0);
	memset(&a, 0xff, sizeof a);
	EQ(mq_setattr(q, &(struct mq_attr){0}, &a), 0);
	EQ(memcmp(&a, &want, sizeof a), 0);
}

CASE("5", setattr_of_other_flags_is_EINVAL_before_EBADF)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 17);
	static const long bad[] = {1, O_RDWR, O_APPEND, O_NONBLOCK | 1, -1, 1L << 32, 1L << 33,
				   (1L << 40) | O_NONBLOCK, LONG_MIN, O_CLOEXEC};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		FAILS(set_flags(q, bad[i]), EINVAL);
		FAILS(set_flags(-1, bad[i]), EINVAL);
		FAILS(set_flags(0, bad[i]), EINVAL);
	}
	EQ(flags_of(q), 0);
}

CASE("5", setattr_ignores_the_other_fields)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 17);
	put(q, "x", 0);
	struct mq_attr n, a, want = {.mq_flags = O_NONBLOCK, .mq_maxmsg = 3, .mq_msgsize = 17,
				     .mq_curmsgs = 1};
	memset(&n, 0xff, sizeof n);
	n.mq_flags = O_NONBLOCK;
	EQ(mq_setattr(q, &n, NULL), 0);
	EQ(mq_getattr(q, &a), 0);
	EQ(memcmp(&a, &want, sizeof a), 0);
}

CASE("5", getattr_NULL_and_setattr_NULL_NULL_succeed)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 17);
	struct mq_attr *volatile none = NULL;
	EQ(mq_getattr(q, none), 0);
	EQ(mq_setattr(q, none, NULL), 0);
	FAILS(mq_getattr(-1, none), EBADF);
	FAILS(mq_setattr(-1, none, NULL), EBADF);
	FAILS(mq_getattr(0, none), EBADF);
}

CASE("5", setattr_NULL_with_old_reads_the_attributes)
{
	mqd_t q = make(qname("a"), O_RDWR | O_NONBLOCK, 3, 17);
	struct mq_attr a, *volatile none = NULL;
	EQ(mq_setattr(q, none, &a), 0);
	EQ(a.mq_flags, O_NONBLOCK);
	EQ(a.mq_maxmsg, 3);
}

CASE("5", setattr_new_and_old_may_be_one_object)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 17);
	struct mq_attr a = {.mq_flags = O_NONBLOCK, .mq_maxmsg = 99};
	EQ(mq_setattr(q, &a, &a), 0);
	EQ(a.mq_flags, 0);
	EQ(a.mq_maxmsg, 3);
	EQ(flags_of(q), O_NONBLOCK);
}

CASE("5", setattr_with_unreadable_new_is_EFAULT_and_changes_nothing)
{
	mqd_t q = make(qname("a"), O_RDWR | O_NONBLOCK, 3, 17);
	struct mq_attr old;
	FAILS(mq_setattr(q, nowhere(), NULL), EFAULT);
	FAILS(mq_setattr(q, nowhere(), &old), EFAULT);
	FAILS(mq_setattr(-1, nowhere(), &old), EFAULT);
	struct mq_attr *half = (struct mq_attr *)edge(16);
	half->mq_flags = 0;
	FAILS(mq_setattr(q, half, NULL), EFAULT);
	EQ(flags_of(q), O_NONBLOCK);
}

CASE("5", setattr_with_unwritable_old_is_EFAULT_but_has_changed_the_flag)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 17);
	FAILS(mq_setattr(q, &(struct mq_attr){.mq_flags = O_NONBLOCK}, nowhere()), EFAULT);
	EQ(flags_of(q), O_NONBLOCK);
}

CASE("5", getattr_into_bad_memory_is_EFAULT)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 17);
	FAILS(mq_getattr(q, nowhere()), EFAULT);
	FAILS(mq_getattr(q, (struct mq_attr *)edge(32)), EFAULT);
	FAILS(mq_getattr(-1, nowhere()), EBADF);
}

CASE("5", flags_show_only_nonblock)
{
	const char *n = qname("a");
	make(n, O_RDWR, 3, 17);
	mqd_t q = OK(mq_open(n, O_RDWR | O_APPEND | O_CLOEXEC | O_SYNC));
	EQ(flags_of(q), 0);
	EQ(set_flags(q, O_NONBLOCK), 0);
	EQ(flags_of(q), O_NONBLOCK);
	EQ(fcntl(q, F_GETFL), O_RDWR | O_APPEND | O_CLOEXEC | O_SYNC | O_NONBLOCK);
}

CASE("5", attributes_of_what_is_no_queue_are_EBADF)
{
	struct mq_attr a = {0};
	int p[2];
	OK(pipe(p));
	int fds[] = {-1, 900, p[0], p[1], open("/dev/null", O_RDWR)};
	for (int i = 0; i < 5; i++) {
		FAILS(mq_getattr(fds[i], &a), EBADF);
		FAILS(mq_setattr(fds[i], &a, NULL), EBADF);
		FAILS(mq_setattr(fds[i], &a, &a), EBADF);
	}
}

CASE("5", attributes_are_readable_through_every_access_mode)
{
	const char *n = qname("a");
	make(n, O_RDWR, 3, 17);
	for (int m = O_RDONLY; m <= O_RDWR; m++) {
		mqd_t q = OK(mq_open(n, m));
		EQ(flags_of(q), 0);
		EQ(set_flags(q, O_NONBLOCK), 0);
		EQ(flags_of(q), O_NONBLOCK);
	}
}

CASE("5", nonblock_is_shared_by_dup)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 17), d = OK(dup(q));
	EQ(set_flags(q, O_NONBLOCK), 0);
	EQ(flags_of(d), O_NONBLOCK);
	char b[17];
	FAILS(mq_receive(d, b, 17, NULL), EAGAIN);
	EQ(set_flags(d, 0), 0);
	EQ(flags_of(q), 0);
	EQ(mq_close(q), 0);
	EQ(flags_of(d), 0);
}

CASE("5", nonblock_is_shared_with_a_child)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 17);
	CHILD {
		EQ(set_flags(q, O_NONBLOCK), 0);
	}
	EQ(flags_of(q), O_NONBLOCK);
	EQ(set_flags(q, 0), 0);
	CHILD {
		EQ(flags_of(q), 0);
	}
}

CASE("5", nonblock_is_seen_by_fcntl_and_set_by_it)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 17);
	EQ(set_flags(q, O_NONBLOCK), 0);
	EQ(fcntl(q, F_GETFL), O_RDWR | O_NONBLOCK);
	EQ(set_flags(q, 0), 0);
	EQ(fcntl(q, F_GETFL), O_RDWR);
	EQ(fcntl(q, F_SETFL, O_NONBLOCK), 0);
	EQ(flags_of(q), O_NONBLOCK);
	EQ(fcntl(q, F_SETFL, O_RDWR), 0);
	EQ(flags_of(q), 0);
	EQ(fcntl(q, F_SETFL, O_RDONLY | O_NONBLOCK), 0);
	EQ(fcntl(q, F_GETFL), O_RDWR | O_NONBLOCK);
}

CASE("5", nonblock_belongs_to_one_open_description)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 3, 17), r = OK(mq_open(n, O_RDWR));
	EQ(set_flags(q, O_NONBLOCK), 0);
	EQ(flags_of(r), 0);
	EQ(set_flags(q, 0), 0);
	EQ(set_flags(r, O_NONBLOCK), 0);
	EQ(flags_of(q), 0);
}

CASE("5", nonblock_governs_the_calls)
{
	mqd_t q = make(qname("a"), O_RDWR, 1, 8);
	char b[8];
	EQ(set_flags(q, O_NONBLOCK), 0);
	FAILS(mq_receive(q, b, 8, NULL), EAGAIN);
	put(q, "x", 0);
	FAILS(mq_send(q, "y", 1, 0), EAGAIN);
	EQ(set_flags(q, 0), 0);
	FAILS(mq_timedsend(q, "y", 1, 0, &past), ETIMEDOUT);
}

CASE("5", sleeper_sleeps_on_when_nonblock_is_set)
{
	mqd_t q = make(qname("a"), O_RDWR, 1, 8);
	pid_t p;
	ASYNC(p) take(q, "late", 3);
	await_asleep(p);
	EQ(set_flags(q, O_NONBLOCK), 0);
	await_asleep(p);
	EQ(fcntl(q, F_SETFL, 0), 0);
	EQ(fcntl(q, F_SETFL, O_NONBLOCK), 0);
	await_asleep(p);
	put(q, "late", 3);
	join(p);
}
