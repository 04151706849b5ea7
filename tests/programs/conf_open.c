/* Contract section 2: mq_open. */
#include "conf.h"
#include <sys/statfs.h>

#define ATTR(m, s) (&(struct mq_attr){.mq_maxmsg = (m), .mq_msgsize = (s)})

static mode_t mode_of(int fd)
{
	struct stat st;
	OK(fstat(fd, &st));
	return st.st_mode;
}

CASE("2", open_of_missing_without_creat_is_ENOENT)
{
	const char *n = qname("a");
	FAILS(mq_open(n, O_RDWR), ENOENT);
	FAILS(mq_open(n, O_RDONLY), ENOENT);
	FAILS(mq_open(n, O_WRONLY | O_NONBLOCK), ENOENT);
	FAILS(mq_open(n, 3), ENOENT);
}

CASE("2", excl_without_creat_is_ignored)
{
	const char *n = qname("a");
	FAILS(mq_open(n, O_RDWR | O_EXCL), ENOENT);
	make(n, O_RDWR, 1, 8);
	OK(mq_open(n, O_RDWR | O_EXCL));
}

CASE("2", creat_opens_what_exists)
{
	const char *n = qname("a");
	mqd_t a = OK(mq_open(n, O_RDWR | O_CREAT, 0600, ATTR(2, 8)));
	mqd_t b = OK(mq_open(n, O_RDWR | O_CREAT, 0600, ATTR(2, 8)));
	put(a, "x", 3);
	take(b, "x", 3);
}

CASE("2", creat_excl_of_existing_is_EEXIST)
{
	const char *n = qname("a");
	make(n, O_RDWR, 1, 8);
	FAILS(mq_open(n, O_RDWR | O_CREAT | O_EXCL, 0600, ATTR(1, 8)), EEXIST);
	FAILS(mq_open(n, O_RDWR | O_CREAT | O_EXCL, 0600, NULL), EEXIST);
}

CASE("2", creat_excl_of_existing_is_EEXIST_before_access_mode_and_attributes)
{
	const char *n = qname("a");
	make(n, O_RDWR, 1, 8);
	FAILS(mq_open(n, 3 | O_CREAT | O_EXCL, 0600, ATTR(1, 8)), EEXIST);
	FAILS(mq_open(n, O_RDWR | O_CREAT | O_EXCL, 0600, ATTR(-1, 0)), EEXIST);
}

ROOT_CASE("2", creat_excl_of_existing_is_EEXIST_before_permission)
{
	const char *n = qname("a");
	make(n, O_RDWR, 1, 8);
	CHILD {
		become(user(0));
		FAILS(mq_open(n, O_RDWR | O_CREAT | O_EXCL, 0600, ATTR(1, 8)), EEXIST);
		FAILS(mq_open(n, O_RDWR), EACCES);
	}
}

CASE("2", access_mode_3_of_existing_is_EINVAL)
{
	const char *n = qname("a");
	make(n, O_RDWR, 1, 8);
	FAILS(mq_open(n, 3), EINVAL);
	FAILS(mq_open(n, 3 | O_CREAT, 0600, ATTR(1, 8)), EINVAL);
	FAILS(mq_open(n, 3 | O_NONBLOCK), EINVAL);
}

ROOT_CASE("2", access_mode_3_of_existing_is_EINVAL_before_permission)
{
	const char *n = qname("a");
	make(n, O_RDWR, 1, 8);
	CHILD {
		become(user(0));
		FAILS(mq_open(n, 3), EINVAL);
	}
}

CASE("2", access_mode_3_creates_a_queue_that_neither_sends_nor_receives)
{
	char b[64];
	mqd_t q = make(qname("a"), 3, 2, 8);
	FAILS(mq_send(q, "x", 1, 0), EBADF);
	FAILS(mq_receive(q, b, sizeof b, NULL), EBADF);
	FAILS(read(q, b, sizeof b), EBADF);
	EQ(fcntl(q, F_GETFL), 3);
	EQ(fcntl(q, F_GETFD), FD_CLOEXEC);
}

CASE("2", access_mode_3_descriptor_does_all_else)
{
	const char *n = qname("a");
	mqd_t q = make(n, 3, 2, 8);
	struct mq_attr a = {0}, old;
	EQ(mq_getattr(q, &a), 0);
	EQ(a.mq_maxmsg, 2);
	a.mq_flags = O_NONBLOCK;
	EQ(mq_setattr(q, &a, &old), 0);
	EQ(old.mq_flags, 0);
	EQ(mq_getattr(q, &a), 0);
	EQ(a.mq_flags, O_NONBLOCK);
	struct pollfd p = {.fd = q, .events = POLLIN | POLLOUT};
	EQ(poll(&p, 1, 0), 1);
	EQ(p.revents, POLLOUT);
	EQ(mq_notify(q, &(struct sigevent){.sigev_notify = SIGEV_NONE}), 0);
	EQ(mq_notify(q, NULL), 0);
	mqd_t r = OK(mq_open(n, O_RDWR));
	put(r, "x", 0);
	EQ(curmsgs(q), 1);
}

CASE("2", creat_of_existing_ignores_attributes_and_mode)
{
	const char *n = qname("a");
	make(n, O_RDWR, 2, 8);
	mqd_t q = OK(mq_open(n, O_RDWR | O_CREAT, 0777, ATTR(0, -5)));
	struct mq_attr a;
	EQ(mq_getattr(q, &a), 0);
	EQ(a.mq_maxmsg, 2);
	EQ(a.mq_msgsize, 8);
	EQ(mode_of(q), S_IFREG | 0600);
}

CASE("2", creat_of_existing_with_unreadable_attributes_is_EFAULT)
{
	const char *n = qname("a");
	make(n, O_RDWR, 2, 8);
	FAILS(mq_open(n, O_RDWR | O_CREAT, 0600, nowhere()), EFAULT);
	FAILS(mq_open(n, O_RDWR | O_CREAT | O_EXCL, 0600, nowhere()), EFAULT);
}

CASE("2", attributes_without_creat_are_not_looked_at)
{
	const char *n = qname("a");
	FAILS(mq_open(n, O_RDWR, 0600, nowhere()), ENOENT);
	make(n, O_RDWR, 2, 8);
	OK(mq_open(n, O_RDWR, 0600, nowhere()));
	OK(mq_open(n, O_RDWR, 0600, ATTR(-1, -1)));
}

CASE("2", unreadable_attributes_are_EFAULT_before_a_bad_name)
{
	FAILS(mq_open("/.", O_RDWR | O_CREAT, 0600, nowhere()), EFAULT);
	FAILS(mq_open("/", O_RDWR | O_CREAT, 0600, nowhere()), EFAULT);
	FAILS(mq_open("/a/b", O_RDWR | O_CREAT, 0600, nowhere()), EFAULT);
}

CASE("2", attributes_that_straddle_into_unmapped_memory_are_EFAULT_and_nothing_is_made)
{
	const char *n = qname("a");
	struct mq_attr *a = (struct mq_attr *)edge(24);
	memset(a, 0, 24);
	a->mq_maxmsg = a->mq_msgsize = 1;
	FAILS(mq_open(n, O_RDWR | O_CREAT, 0600, a), EFAULT);
	FAILS(mq_open(n, O_RDWR), ENOENT);
}

CASE("2", no_attributes_give_10_messages_of_8192_bytes)
{
	become_somebody();
	mqd_t q = OK(mq_open(qname("a"), O_RDWR | O_CREAT | O_EXCL, 0600, NULL));
	struct mq_attr a;
	EQ(mq_getattr(q, &a), 0);
	EQ(a.mq_maxmsg, 10);
	EQ(a.mq_msgsize, 8192);
	EQ(a.mq_curmsgs, 0);
	EQ(a.mq_flags, 0);
}

CASE("2", attr_flags_and_curmsgs_are_ignored)
{
	struct mq_attr a = {.mq_maxmsg = 1, .mq_msgsize = 8, .mq_curmsgs = 7, .mq_flags = O_NONBLOCK};
	mqd_t q = OK(mq_open(qname("a"), O_RDWR | O_CREAT | O_EXCL, 0600, &a));
	EQ(mq_getattr(q, &a), 0);
	EQ(a.mq_flags, 0);
	EQ(a.mq_curmsgs, 0);
	EQ(fcntl(q, F_GETFL), O_RDWR);
	a.mq_flags = -1;
	a.mq_curmsgs = -1;
	OK(mq_open(qname("b"), O_RDWR | O_CREAT | O_EXCL, 0600, &a));
}

CASE("2", nonblock_is_taken_from_oflag)
{
	mqd_t q = make(qname("a"), O_RDWR | O_NONBLOCK, 1, 8);
	struct mq_attr a;
	EQ(mq_getattr(q, &a), 0);
	EQ(a.mq_flags, O_NONBLOCK);
	char b[8];
	FAILS(mq_receive(q, b, sizeof b, NULL), EAGAIN);
}

CASE("2", attributes_of_zero_or_below_are_EINVAL)
{
	const char *n = qname("a");
	static const long bad[] = {0, -1, -5, LONG_MIN};
	for (int i = 0; i < 4; i++) {
		FAILS(mq_open(n, O_RDWR | O_CREAT, 0600, ATTR(bad[i], 8)), EINVAL);
		FAILS(mq_open(n, O_RDWR | O_CREAT, 0600, ATTR(1, bad[i])), EINVAL);
	}
	FAILS(mq_open(n, O_RDWR), ENOENT);
}

CASE("2", attributes_above_the_limits_are_EINVAL)
{
	const char *n = qname("a");
	static const long bad[] = {65537, 1L << 32, (1L << 32) + 1, LONG_MAX, 16777217};
	FAILS(mq_open(n, O_RDWR | O_CREAT, 0600, ATTR(11, 8)), EINVAL);
	FAILS(mq_open(n, O_RDWR | O_CREAT, 0600, ATTR(1, 8193)), EINVAL);
	for (int i = 0; i < 5; i++) {
		FAILS(mq_open(n, O_RDWR | O_CREAT, 0600, ATTR(bad[i], 8)), EINVAL);
		FAILS(mq_open(n, O_RDWR | O_CREAT, 0600, ATTR(1, bad[i])), EINVAL);
	}
	FAILS(mq_open(n, O_RDWR), ENOENT);
}

CASE("2", attributes_at_the_limits_work)
{
	become_somebody();
	mqd_t q = make(qname("a"), O_RDWR, 10, 8192);
	make(qname("b"), O_RDWR, 1, 1);
	static char big[8192], got[8192];
	memset(big, 'b', sizeof big);
	for (int i = 0; i < 10; i++)
		EQ(mq_send(q, big, sizeof big, 0), 0);
	FAILS(mq_timedsend(q, big, 1, 0, &past), ETIMEDOUT);
	for (int i = 0; i < 10; i++) {
		EQ(mq_receive(q, got, sizeof got, NULL), 8192);
		SAME(got, big, sizeof big);
	}
}

ROOT_CASE("2, 12", queues_max_is_ENOSPC_before_the_attributes_and_leaves_no_name)
{
	const char *first = qname("first"), *n = qname("n");
	become(user(0));
	mqd_t keep = make(first, O_RDWR, 1, 1);
	char m[64];
	for (int i = 1; i < 256; i++) {
		snprintf(m, sizeof m, "max%d", i);
		mq_close(make(qname(m), O_RDWR, 1, 1));
	}
	FAILS(mq_open(n, O_RDWR | O_CREAT, 0600, ATTR(1, 1)), ENOSPC);
	FAILS(mq_open(n, O_RDWR | O_CREAT, 0600, ATTR(0, 0)), ENOSPC);
	FAILS(mq_open(n, O_RDWR), ENOENT);
	/* What exists can be opened all the same. */
	OK(mq_open(first, O_RDWR | O_CREAT, 0600, ATTR(1, 1)));
	/* An unlinked queue counts while it is open. */
	EQ(mq_unlink(first), 0);
	FAILS(mq_open(n, O_RDWR | O_CREAT, 0600, ATTR(1, 1)), ENOSPC);
	EQ(mq_close(keep), 0);
	EQ(mq_close(keep + 1), 0);
	OK(mq_open(n, O_RDWR | O_CREAT, 0600, ATTR(1, 1)));
}

ROOT_CASE("2, 12", queues_max_counts_the_queues_of_all_users)
{
	char m[64];
	CHILD {
		become(user(0));
		for (int i = 0; i < 128; i++) {
			snprintf(m, sizeof m, "a%d", i);
			mq_close(make(qname(m), O_RDWR, 1, 1));
		}
	}
	become(user(1));
	for (int i = 0; i < 128; i++) {
		snprintf(m, sizeof m, "b%d", i);
		mq_close(make(qname(m), O_RDWR, 1, 1));
	}
	FAILS(mq_open(qname("n"), O_RDWR | O_CREAT, 0600, ATTR(1, 1)), ENOSPC);
}

CASE("2", rlimit_msgqueue_exceeded_is_EMFILE_after_the_attributes_and_leaves_no_name)
{
	const char *n = qname("a");
	OK(setrlimit(RLIMIT_MSGQUEUE, &(struct rlimit){0, 0}));
	FAILS(mq_open(n, O_RDWR | O_CREAT, 0600, ATTR(1, 1)), EMFILE);
	FAILS(mq_open(n, O_RDWR | O_CREAT, 0600, NULL), EMFILE);
	FAILS(mq_open(n, O_RDWR | O_CREAT, 0600, ATTR(0, 1)), EINVAL);
	FAILS(mq_open(n, O_RDWR | O_CREAT, 0600, ATTR(1, 8193)), EINVAL);
	FAILS(mq_open(n, O_RDWR), ENOENT);
	FAILS(mq_unlink(n), ENOENT);
}

CASE("2", failed_creation_takes_no_descriptor)
{
	int free_fd = OK(dup(0));
	close(free_fd);
	FAILS(mq_open(qname("a"), O_RDWR | O_CREAT, 0600, ATTR(0, 1)), EINVAL);
	FAILS(mq_open(qname("b"), O_RDWR), ENOENT);
	EQ(dup(0), free_fd);
	FAILS(fcntl(free_fd + 1, F_GETFD), EBADF);
}

CASE("2", creat_with_O_DIRECT_is_EINVAL_but_the_queue_exists)
{
	const char *n = qname("a");
	FAILS(mq_open(n, O_RDWR | O_CREAT | O_DIRECT, 0600, ATTR(2, 8)), EINVAL);
	mqd_t q = OK(mq_open(n, O_RDWR));
	struct mq_attr a;
	EQ(mq_getattr(q, &a), 0);
	EQ(a.mq_maxmsg, 2);
	put(q, "x", 0);
	FAILS(mq_open(n, O_RDWR | O_DIRECT), EINVAL);
}

CASE("2", full_descriptor_table_is_EMFILE_before_the_name)
{
	const char *n = qname("a");
	fill_descriptors();
	FAILS(mq_open(n, O_RDWR), EMFILE);
	FAILS(mq_open("/.", O_RDWR), EMFILE);
	FAILS(mq_open(n, O_RDWR | O_CREAT, 0600, ATTR(1, 1)), EMFILE);
	FAILS(mq_open(n, O_RDWR | O_CREAT, 0600, ATTR(0, 0)), EMFILE);
	FAILS(mq_open(n, O_RDWR | O_CREAT, 0600, nowhere()), EFAULT);
	/* Nothing was created. */
	close(5);
	FAILS(mq_open(n, O_RDWR), ENOENT);
	EQ(make(n, O_RDWR, 1, 1), 5);
}

CASE("2", mode_is_masked_by_umask)
{
	static const struct {
		mode_t mode, mask, want;
	} t[] = {{0666, 022, 0644},    {0777, 0, 0777},      {0777, 077, 0700},
		 {07777, 022, 07755},  {0100644, 0, 0644},   {0100644, 022, 0644},
		 {0, 0, 0},            {04600, 0, 04600},    {02600, 0, 02600},
		 {01600, 0777, 01000}, {0177777, 0, 07777},  {0660, 0117, 0660}};
	for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
		char s[16];
		snprintf(s, sizeof s, "m%zu", i);
		umask(t[i].mask);
		mqd_t q = OK(mq_open(qname(s), O_RDWR | O_CREAT | O_EXCL, t[i].mode, ATTR(1, 1)));
		EQ(mode_of(q), S_IFREG | t[i].want);
		EQ(umask(022), t[i].mask);
	}
}

CASE("2", owner_is_the_creator)
{
	become_somebody();
	struct stat st;
	OK(fstat(make(qname("a"), O_RDWR, 1, 1), &st));
	EQ(st.st_uid, geteuid());
	EQ(st.st_gid, getegid());
}

ROOT_CASE("2", owner_is_the_effective_user)
{
	struct stat st;
	OK(setresgid(user(0), user(1), user(2)));
	OK(setresuid(user(3), user(4), 0));
	OK(fstat(make(qname("a"), O_RDWR, 1, 1), &st));
	EQ(st.st_uid, user(4));
	EQ(st.st_gid, user(1));
}

ROOT_CASE("2", owner_is_the_file_system_user)
{
	struct stat st;
	setfsgid(user(1));
	setfsuid(user(0));
	OK(fstat(make(qname("a"), O_RDWR, 1, 1), &st));
	EQ(st.st_uid, user(0));
	EQ(st.st_gid, user(1));
}

CASE("2", creator_may_do_what_the_mode_forbids)
{
	become_somebody();
	const char *n = qname("a");
	mqd_t q = OK(mq_open(n, O_RDWR | O_CREAT | O_EXCL, 0, ATTR(1, 8)));
	put(q, "x", 0);
	take(q, "x", 0);
	FAILS(mq_open(n, O_RDWR), EACCES);
	FAILS(mq_open(n, O_RDONLY), EACCES);
	FAILS(mq_open(n, O_RDWR | O_CREAT, 0600, ATTR(1, 8)), EACCES);
}

CASE("2", descriptor_is_the_lowest_free_number_and_the_only_one_taken)
{
	int fd[8];
	for (int i = 0; i < 8; i++)
		fd[i] = OK(dup(0));
	for (int i = 1; i < 8; i++)
		EQ(fd[i], fd[0] + i);
	close(fd[1]);
	close(fd[4]);
	EQ(make(qname("a"), O_RDWR, 1, 1), fd[1]);
	FAILS(fcntl(fd[4], F_GETFD), EBADF);
	EQ(make(qname("b"), O_RDWR, 1, 1), fd[4]);
	mqd_t q = make(qname("c"), O_RDWR, 1, 8);
	EQ(q, fd[7] + 1);
	FAILS(fcntl(q + 1, F_GETFD), EBADF);
	put(q, "x", 0);
	take(q, "x", 0);
	struct pollfd p = {.fd = q, .events = POLLIN};
	EQ(poll(&p, 1, 0), 0);
	FAILS(fcntl(q + 1, F_GETFD), EBADF);
}

CASE("2", descriptor_may_be_0)
{
	close(0);
	mqd_t q = make(qname("a"), O_RDWR, 1, 8);
	EQ(q, 0);
	put(q, "x", 1);
	take(q, "x", 1);
	EQ(mq_close(q), 0);
}

CASE("2", descriptor_is_always_close_on_exec)
{
	const char *n = qname("a");
	EQ(fcntl(make(n, O_RDWR, 1, 1), F_GETFD), FD_CLOEXEC);
	EQ(fcntl(OK(mq_open(n, O_RDWR | O_CLOEXEC)), F_GETFD), FD_CLOEXEC);
	EQ(fcntl(OK(mq_open(n, O_RDONLY)), F_GETFD), FD_CLOEXEC);
}

/* F_GETFL of a queue opened so. */
static int flags_of(const char *n, int oflag)
{
	mqd_t q = oflag & O_CREAT ? OK(mq_open(n, oflag, 0600, ATTR(1, 8))) : OK(mq_open(n, oflag));
	int f = OK(fcntl(q, F_GETFL));
	close(q);
	return f;
}

CASE("2", getfl_is_the_access_mode)
{
	const char *n = qname("a");
	EQ(flags_of(n, O_RDWR | O_CREAT), O_RDWR);
	EQ(flags_of(n, O_RDONLY), O_RDONLY);
	EQ(flags_of(n, O_WRONLY), O_WRONLY);
	EQ(flags_of(n, O_RDWR | O_NONBLOCK), O_RDWR | O_NONBLOCK);
	EQ(flags_of(n, O_WRONLY | O_NONBLOCK), O_WRONLY | O_NONBLOCK);
}

CASE("2", getfl_drops_creat_excl_trunc_noctty)
{
	const char *n = qname("a");
	EQ(flags_of(n, O_RDWR | O_CREAT | O_EXCL | O_TRUNC | O_NOCTTY), O_RDWR);
	EQ(flags_of(n, O_RDONLY | O_CREAT | O_TRUNC | O_NOCTTY), O_RDONLY);
	EQ(flags_of(n, O_WRONLY | O_EXCL | O_TRUNC | O_NOCTTY), O_WRONLY);
}

CASE("2", getfl_keeps_cloexec)
{
	const char *n = qname("a");
	EQ(flags_of(n, O_RDWR | O_CREAT | O_CLOEXEC), O_RDWR | O_CLOEXEC);
	EQ(flags_of(n, O_RDONLY | O_CLOEXEC), O_RDONLY | O_CLOEXEC);
}

CASE("2", getfl_keeps_flags_that_have_no_meaning)
{
	const char *n = qname("a");
	make(n, O_RDWR, 1, 8);
	static const int keep[] = {O_APPEND,  O_SYNC,      O_DSYNC,   O_ASYNC,
				   O_NOATIME, O_DIRECTORY, O_TMPFILE, O_NOFOLLOW,
				   O_APPEND | O_NOATIME | O_SYNC | O_NONBLOCK};
	for (size_t i = 0; i < sizeof keep / sizeof *keep; i++) {
		EQ(flags_of(n, O_RDWR | keep[i]), O_RDWR | keep[i]);
		EQ(flags_of(n, O_RDONLY | keep[i]), O_RDONLY | keep[i]);
		EQ(flags_of(n, O_WRONLY | keep[i]), O_WRONLY | keep[i]);
	}
}

CASE("2", meaningless_flags_do_not_disturb_the_queue)
{
	const char *n = qname("a");
	make(n, O_RDWR, 1, 8);
	static const int keep[] = {O_APPEND,  O_SYNC,      O_DSYNC,   O_ASYNC,   O_CLOEXEC,
				   O_NOATIME, O_DIRECTORY, O_TMPFILE, O_NOFOLLOW};
	for (size_t i = 0; i < sizeof keep / sizeof *keep; i++) {
		mqd_t q = OK(mq_open(n, O_RDWR | keep[i]));
		put(q, "x", i);
		take(q, "x", i);
		struct mq_attr a;
		EQ(mq_getattr(q, &a), 0);
		EQ(a.mq_flags, 0);
		close(q);
	}
}

CASE("2", trunc_has_no_effect)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 2, 8);
	put(q, "x", 5);
	mqd_t r = OK(mq_open(n, O_RDWR | O_TRUNC));
	OK(mq_open(n, O_RDWR | O_TRUNC | O_CREAT, 0600, ATTR(2, 8)));
	struct stat st;
	OK(fstat(r, &st));
	EQ(st.st_size, 80);
	EQ(curmsgs(r), 1);
	take(r, "x", 5);
}

CASE("2", O_PATH_gives_a_descriptor_without_queue_operations)
{
	const char *n = qname("a");
	char b[64];
	struct mq_attr a = {0};
	make(n, O_RDWR, 1, 8);
	mqd_t q = OK(mq_open(n, O_RDWR | O_PATH));
	FAILS(mq_send(q, "x", 1, 0), EBADF);
	FAILS(mq_receive(q, b, sizeof b, NULL), EBADF);
	FAILS(mq_getattr(q, &a), EBADF);
	FAILS(mq_setattr(q, &a, NULL), EBADF);
	FAILS(mq_notify(q, NULL), EBADF);
	FAILS(mq_notify(q, &(struct sigevent){.sigev_notify = SIGEV_NONE}), EBADF);
	FAILS(read(q, b, sizeof b), EBADF);
	FAILS(lseek(q, 0, SEEK_SET), EBADF);
	struct pollfd p = {.fd = q, .events = POLLIN | POLLOUT};
	EQ(poll(&p, 1, 0), 1);
	EQ(p.revents, POLLNVAL);
	int e = OK(epoll_create1(0));
	FAILS(epoll_ctl(e, EPOLL_CTL_ADD, q, &(struct epoll_event){.events = EPOLLIN}), EBADF);
	EQ(fcntl(q, F_GETFD), FD_CLOEXEC);
	EQ(mq_close(q), 0);
}

CASE("2", O_PATH_getfl)
{
	const char *n = qname("a");
	make(n, O_RDWR, 1, 8);
	EQ(flags_of(n, O_PATH), O_PATH);
	EQ(flags_of(n, O_PATH | O_RDWR) & O_PATH, O_PATH);
	EQ(flags_of(n, O_PATH | O_RDWR | O_CREAT) & (O_PATH | O_CREAT), O_PATH | O_CREAT);
}

CASE("2", O_PATH_descriptor_can_be_statted)
{
	const char *n = qname("a");
	struct stat a, b;
	OK(fstat(make(n, O_RDWR, 1, 8), &a));
	OK(fstat(OK(mq_open(n, O_PATH)), &b));
	EQ(a.st_ino, b.st_ino);
	EQ(a.st_dev, b.st_dev);
	EQ(b.st_mode, S_IFREG | 0600);
}

CASE("2", success_leaves_errno_alone)
{
	errno = 1234;
	mqd_t q = make(qname("a"), O_RDWR, 1, 8);
	/* make() sets errno to 0 before the call. */
	EQ(q >= 0 && errno == 0, 1);
	errno = 1234;
	TRUE(mq_send(q, "x", 1, 0) == 0 && errno == 1234);
	char b[8];
	TRUE(mq_receive(q, b, 8, NULL) == 1 && errno == 1234);
	struct mq_attr a;
	TRUE(mq_getattr(q, &a) == 0 && errno == 1234);
	TRUE(mq_close(q) == 0 && errno == 1234);
}
