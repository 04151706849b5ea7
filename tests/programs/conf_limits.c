/* Contract section 12: limits. queues_max: conf_open.c. */
#include "conf.h"

#define ATTR(m, s) (&(struct mq_attr){.mq_maxmsg = (m), .mq_msgsize = (s)})

static void soft_limit(rlim_t n)
{
	struct rlimit r;
	OK(getrlimit(RLIMIT_MSGQUEUE, &r));
	r.rlim_cur = n;
	OK(setrlimit(RLIMIT_MSGQUEUE, &r));
}
static mqd_t creates(const char *n, long maxmsg, long msgsize)
{
	return mq_open(n, O_RDWR | O_CREAT | O_EXCL, 0600, ATTR(maxmsg, msgsize));
}

/* A queue of this shape costs this much, to the byte. */
ROOT_CASE("12", cost_of_a_queue)
{
	static const struct {
		long maxmsg, msgsize, cost;
	} t[] = {{1, 1, 97},	   {4, 16, 448},       {10, 128, 2240}, {10, 8192, 82880},
		 {1, 8192, 8288},  {10, 1, 970},       {2, 1, 194},	{7, 4097, 29351}};
	become(user(0));
	for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
		const char *n = qname(number(i));
		soft_limit(t[i].cost - 1);
		FAILS(creates(n, t[i].maxmsg, t[i].msgsize), EMFILE);
		soft_limit(t[i].cost);
		mqd_t q = OK(creates(n, t[i].maxmsg, t[i].msgsize));
		EQ(mq_close(q), 0);
		EQ(mq_unlink(n), 0);
	}
}

ROOT_CASE("12", cost_of_the_default_queue)
{
	become(user(0));
	const char *n = qname("a");
	soft_limit(82879);
	FAILS(mq_open(n, O_RDWR | O_CREAT, 0600, NULL), EMFILE);
	soft_limit(82880);
	OK(mq_open(n, O_RDWR | O_CREAT, 0600, NULL));
}

ROOT_CASE("12", default_limit_takes_9_default_queues)
{
	become(user(0));
	soft_limit(819200);
	for (int i = 0; i < 9; i++)
		OK(mq_open(qname(number(i)), O_RDWR | O_CREAT, 0600, NULL));
	FAILS(mq_open(qname("9"), O_RDWR | O_CREAT, 0600, NULL), EMFILE);
	/* A smaller one still fits: 819200 - 9 * 82880 = 73280. */
	FAILS(creates(qname("b"), 10, 7233), EMFILE);
	OK(creates(qname("c"), 10, 7232));
	FAILS(creates(qname("d"), 1, 1), EMFILE);
}

ROOT_CASE("12", queues_of_one_user_add_up)
{
	become(user(0));
	soft_limit(3 * 97 + 96);
	for (int i = 0; i < 3; i++)
		OK(creates(qname(number(i)), 1, 1));
	FAILS(creates(qname("3"), 1, 1), EMFILE);
	soft_limit(4 * 97);
	OK(creates(qname("4"), 1, 1));
}

ROOT_CASE("12", cost_is_returned_when_name_and_descriptors_are_gone)
{
	become(user(0));
	const char *n = qname("a"), *m = qname("b");
	soft_limit(97);
	mqd_t q = OK(creates(n, 1, 1));
	FAILS(creates(m, 1, 1), EMFILE);
	int d = OK(dup(q));
	EQ(mq_unlink(n), 0);
	FAILS(creates(m, 1, 1), EMFILE);
	EQ(mq_close(q), 0);
	FAILS(creates(m, 1, 1), EMFILE);
	EQ(mq_close(d), 0);
	q = OK(creates(m, 1, 1));
	EQ(mq_close(q), 0);
	/* The name alone keeps it. */
	FAILS(creates(n, 1, 1), EMFILE);
	EQ(mq_unlink(m), 0);
	OK(creates(n, 1, 1));
}

ROOT_CASE("12", cost_is_returned_when_the_last_process_is_killed)
{
	become(user(0));
	const char *n = qname("a");
	soft_limit(97);
	pid_t p;
	ASYNC(p) {
		OK(creates(n, 1, 1));
		EQ(mq_unlink(n), 0);
		mark(0);
		pause();
	}
	await_mark(0);
	FAILS(creates(n, 1, 1), EMFILE);
	EQ(kill(p, SIGKILL), 0);
	join_killed(p, SIGKILL);
	OK(creates(n, 1, 1));
}

ROOT_CASE("12", messages_cost_nothing_more)
{
	become(user(0));
	soft_limit(448);
	mqd_t q = OK(creates(qname("a"), 4, 16));
	for (int i = 0; i < 4; i++)
		put(q, "0123456789abcdef", i);
}

ROOT_CASE("12", processes_of_one_user_see_one_total_each_with_its_own_limit)
{
	const char *a = qname("a"), *b = qname("b"), *c = qname("c");
	CHILD {
		become(user(0));
		soft_limit(97);
		OK(creates(a, 1, 1));
		FAILS(creates(b, 1, 1), EMFILE);
	}
	CHILD {
		become(user(0));
		soft_limit(2 * 97);
		OK(creates(b, 1, 1));
		FAILS(creates(c, 1, 1), EMFILE);
	}
	CHILD {
		become(user(0));
		soft_limit(97);
		FAILS(creates(c, 1, 1), EMFILE);
		soft_limit(3 * 97);
		OK(creates(c, 1, 1));
	}
}

ROOT_CASE("12", users_have_separate_totals)
{
	CHILD {
		become(user(0));
		soft_limit(97);
		OK(creates(qname("a"), 1, 1));
		FAILS(creates(qname("b"), 1, 1), EMFILE);
	}
	CHILD {
		become(user(1));
		soft_limit(97);
		OK(creates(qname("c"), 1, 1));
		FAILS(creates(qname("d"), 1, 1), EMFILE);
	}
}

ROOT_CASE("12", real_user_is_charged)
{
	const char *a = qname("a"), *b = qname("b");
	CHILD {
		OK(setresuid(user(0), user(1), 0));
		soft_limit(97);
		OK(creates(a, 1, 1));
		FAILS(creates(b, 1, 1), EMFILE);
	}
	CHILD {
		become(user(1));
		soft_limit(97);
		OK(creates(b, 1, 1));
	}
	CHILD {
		become(user(0));
		soft_limit(97);
		FAILS(creates(qname("c"), 1, 1), EMFILE);
	}
}

ROOT_CASE("12", creator_stays_charged_whoever_owns_or_unlinks)
{
	const char *a = qname("a");
	CHILD {
		become(user(0));
		soft_limit(97);
		mq_close(OK(creates(a, 1, 1)));
	}
	mqd_t q = OK(mq_open(a, O_RDWR));
	EQ(fchown(q, user(1), user(1)), 0);
	CHILD {
		become(user(0));
		soft_limit(97);
		FAILS(creates(qname("b"), 1, 1), EMFILE);
	}
	CHILD {
		become(user(1));
		soft_limit(97);
		OK(creates(qname("c"), 1, 1));
		EQ(mq_unlink(a), 0);
	}
	EQ(mq_close(q), 0);
	CHILD {
		become(user(0));
		soft_limit(97);
		OK(creates(qname("d"), 1, 1));
	}
}

ROOT_CASE("12", root_has_no_exemption)
{
	/* Other processes of root may have queues, so only the two ends are told. */
	soft_limit(0);
	FAILS(creates(qname("a"), 1, 1), EMFILE);
	soft_limit(96);
	FAILS(creates(qname("a"), 1, 1), EMFILE);
}

ROOT_CASE("12", opening_costs_nothing)
{
	become(user(0));
	const char *n = qname("a");
	soft_limit(97);
	OK(creates(n, 1, 1));
	for (int i = 0; i < 20; i++)
		OK(mq_open(n, O_RDWR | O_CREAT, 0600, ATTR(1, 1)));
	soft_limit(0);
	OK(mq_open(n, O_RDWR));
}

ROOT_CASE("12", failed_creation_costs_nothing)
{
	become(user(0));
	const char *n = qname("a");
	soft_limit(97);
	for (int i = 0; i < 3; i++) {
		FAILS(creates(n, 0, 1), EINVAL);
		FAILS(creates(n, 10, 8192), EMFILE);
	}
	OK(creates(n, 1, 1));
}

static void reads(const char *name, const char *want)
{
	char path[64], b[32];
	snprintf(path, sizeof path, "/proc/sys/fs/mqueue/%s", name);
	int fd = OK(open(path, O_RDONLY));
	EQ(read(fd, b, sizeof b), strlen(want));
	SAME(b, want, strlen(want));
	EQ(read(fd, b, sizeof b), 0);
	EQ(lseek(fd, 0, SEEK_SET), 0);
	EQ(read(fd, b, 1), 1);
	close(fd);
}

CASE("12 (/proc/sys)", limits_are_readable_by_all)
{
	become_somebody();
	reads("msg_default", "10\n");
	reads("msg_max", "10\n");
	reads("msgsize_default", "8192\n");
	reads("msgsize_max", "8192\n");
	reads("queues_max", "256\n");
}

ROOT_CASE("12 (/proc/sys)", limits_are_not_writable_by_ordinary_users)
{
	become(user(0));
	FAILS(open("/proc/sys/fs/mqueue/msg_max", O_WRONLY), EACCES);
	FAILS(open("/proc/sys/fs/mqueue/queues_max", O_RDWR), EACCES);
}
