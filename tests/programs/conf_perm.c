/* Contract section 11: permissions. */
#include "conf.h"

static mqd_t make_mode(const char *n, mode_t mode)
{
	umask(0);
	return OK(mq_open(n, O_RDWR | O_CREAT | O_EXCL, mode,
			  (&(struct mq_attr){.mq_maxmsg = 2, .mq_msgsize = 8})));
}

/* The three ways to open, against the bits of one class. */
static void opens(const char *n, int bits)
{
	static const struct {
		int oflag, bits;
	} way[] = {{O_RDONLY, 4}, {O_WRONLY, 2}, {O_RDWR, 6}};
	for (int i = 0; i < 3; i++) {
		if ((bits & way[i].bits) == way[i].bits) {
			mqd_t q = OK(mq_open(n, way[i].oflag));
			EQ(mq_close(q), 0);
			q = OK(mq_open(n, way[i].oflag | O_CREAT, 0666, NULL));
			EQ(mq_close(q), 0);
		} else {
			FAILS(mq_open(n, way[i].oflag), EACCES);
			FAILS(mq_open(n, way[i].oflag | O_CREAT, 0666, NULL), EACCES);
		}
	}
}

static void identity(uid_t u, gid_t g, gid_t extra)
{
	OK(setgroups(extra != (gid_t)-1, &extra));
	OK(setresgid(g, g, g));
	OK(setresuid(u, u, u));
}

/* A queue of user 0 and group 0 for each of the 8 values of one class, the others `rest`. */
static void one_class(int shift, uid_t u, gid_t g, gid_t extra, mode_t rest)
{
	const char *names[8];
	CHILD {
		identity(user(0), user(0), -1);
		for (mode_t bits = 0; bits < 8; bits++)
			make_mode(qname(number(bits)), (rest & ~(7u << shift)) | bits << shift);
	}
	for (int i = 0; i < 8; i++)
		names[i] = shared->name[i];
	CHILD {
		identity(u, g, extra);
		for (int bits = 0; bits < 8; bits++)
			opens(names[bits], bits);
	}
}

ROOT_CASE("11", owner_needs_the_owner_bits) { one_class(6, user(0), user(0), -1, 0); }
ROOT_CASE("11", owner_gets_nothing_from_group_and_other)
{
	one_class(6, user(0), user(0), -1, 0077);
}
ROOT_CASE("11", group_needs_the_group_bits) { one_class(3, user(1), user(0), -1, 0); }
ROOT_CASE("11", group_gets_nothing_from_owner_and_other)
{
	one_class(3, user(1), user(0), -1, 0707);
}
ROOT_CASE("11", supplementary_group_counts) { one_class(3, user(1), user(2), user(0), 0707); }
ROOT_CASE("11", others_need_the_other_bits) { one_class(0, user(1), user(1), -1, 0); }
ROOT_CASE("11", others_get_nothing_from_owner_and_group)
{
	one_class(0, user(1), user(1), -1, 0770);
}

ROOT_CASE("11", first_class_that_fits_counts)
{
	const char *n = qname("a");
	CHILD {
		identity(user(0), user(0), -1);
		make_mode(n, 0066);
		opens(n, 0);
	}
	CHILD {
		identity(user(1), user(0), -1);
		opens(n, 6);
	}
}

ROOT_CASE("11", effective_user_decides)
{
	const char *n = qname("a"), *m = qname("b");
	CHILD {
		identity(user(0), user(0), -1);
		make_mode(n, 0600);
	}
	CHILD {
		identity(user(1), user(1), -1);
		make_mode(m, 0600);
	}
	CHILD {
		OK(setgroups(0, NULL));
		OK(setresgid(user(1), user(1), user(1)));
		OK(setresuid(user(1), user(0), user(1)));
		opens(n, 6);
		opens(m, 0);
		EQ(seteuid(user(1)), 0);
		opens(n, 0);
		opens(m, 6);
	}
}

ROOT_CASE("11", execute_bits_are_irrelevant)
{
	const char *n = qname("a"), *m = qname("b");
	CHILD {
		identity(user(0), user(0), -1);
		make_mode(n, 0111);
		opens(n, 0);
		make_mode(m, 0666);
	}
	CHILD {
		identity(user(1), user(1), -1);
		opens(n, 0);
		opens(m, 6);
	}
}

ROOT_CASE("11", root_may_open_everything)
{
	const char *n = qname("a");
	CHILD {
		identity(user(0), user(0), -1);
		put(make_mode(n, 0), "x", 0);
	}
	opens(n, 6);
	take(OK(mq_open(n, O_RDWR)), "x", 0);
}

ROOT_CASE("11", root_may_unlink_everything)
{
	const char *n = qname("a");
	CHILD {
		identity(user(0), user(0), -1);
		make_mode(n, 0);
	}
	EQ(mq_unlink(n), 0);
}

ROOT_CASE("11", privilege_is_a_capability_not_uid_0)
{
	const char *n = qname("a"), *m = qname("b");
	make_mode(m, 0);
	CHILD {
		identity(user(0), user(0), -1);
		make_mode(n, 0);
	}
	CHILD {
		struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
		struct __user_cap_data_struct d[2] = {{0}};
		OK(syscall(SYS_capset, &h, d));
		EQ(geteuid(), 0);
		opens(n, 0);
		opens(m, 0);
		/* The directory is uid 0's, and its owner may unlink. */
		EQ(mq_unlink(n), 0);
		EQ(mq_unlink(m), 0);
	}
}

/* Leaves exactly these capabilities, over the change to an ordinary user. */
static void become_capable(uid_t u, unsigned caps)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2] = {{.effective = caps, .permitted = caps}};
	OK(prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0));
	become(u);
	OK(syscall(SYS_capset, &h, d));
}

ROOT_CASE("11", dac_override_opens_but_does_not_unlink)
{
	const char *n = qname("a");
	make_mode(n, 0);
	CHILD {
		become_capable(user(0), 1u << CAP_DAC_OVERRIDE);
		opens(n, 6);
		FAILS(mq_unlink(n), EACCES);
	}
}

ROOT_CASE("11", dac_read_search_opens_for_reading_only)
{
	const char *n = qname("a");
	make_mode(n, 0);
	CHILD {
		become_capable(user(0), 1u << CAP_DAC_READ_SEARCH);
		opens(n, 4);
	}
}

ROOT_CASE("11", fowner_unlinks_and_changes_the_mode)
{
	const char *n = qname("a");
	mqd_t q = make_mode(n, 0);
	CHILD {
		become_capable(user(0), 1u << CAP_FOWNER);
		opens(n, 0);
		EQ(fchmod(q, 0606), 0);
		opens(n, 6);
		EQ(mq_unlink(n), 0);
	}
}

ROOT_CASE("11", chown_capability_gives_away)
{
	mqd_t q = make_mode(qname("a"), 0);
	become_capable(user(0), 1u << CAP_CHOWN);
	EQ(fchown(q, user(1), user(2)), 0);
}

ROOT_CASE("11", creator_s_own_descriptor_is_not_checked)
{
	become(user(0));
	mqd_t q = make_mode(qname("a"), 0);
	put(q, "x", 0);
	take(q, "x", 0);
}

ROOT_CASE("11", fchmod_by_another_user_is_EPERM)
{
	const char *n = qname("a");
	make_mode(n, 0666);
	CHILD {
		become(user(0));
		mqd_t q = OK(mq_open(n, O_RDWR));
		FAILS(fchmod(q, 0600), EPERM);
		FAILS(fchown(q, user(0), -1), EPERM);
		FAILS(fchown(q, -1, user(0)), EPERM);
		FAILS(futimens(q, (struct timespec[2]){{1, 0}, {1, 0}}), EPERM);
		struct stat st;
		OK(fstat(q, &st));
		EQ(st.st_mode, S_IFREG | 0666);
		EQ(st.st_uid, 0);
	}
}

ROOT_CASE("11", fchown_by_the_owner_is_EPERM_but_for_itself)
{
	become(user(0));
	mqd_t q = make_mode(qname("a"), 0666);
	FAILS(fchown(q, user(1), -1), EPERM);
	FAILS(fchown(q, -1, user(1)), EPERM);
	EQ(fchown(q, -1, -1), 0);
	EQ(fchown(q, user(0), user(0)), 0);
}

ROOT_CASE("11", owner_may_give_the_queue_to_its_groups)
{
	identity(user(0), user(0), user(1));
	mqd_t q = make_mode(qname("a"), 0666);
	EQ(fchown(q, -1, user(1)), 0);
	struct stat st;
	OK(fstat(q, &st));
	EQ(st.st_gid, user(1));
}

ROOT_CASE("11", chmod_decides_the_next_open_but_no_descriptor_that_is_open)
{
	const char *n = qname("a");
	CHILD {
		become(user(0));
		mqd_t q = make_mode(n, 0600), r = OK(mq_open(n, O_RDONLY));
		EQ(fchmod(q, 0), 0);
		opens(n, 0);
		put(q, "x", 0);
		take(r, "x", 0);
		EQ(fchmod(r, 0200), 0);
		opens(n, 2);
		EQ(fchmod(r, 0606), 0);
	}
	CHILD {
		become(user(1));
		opens(n, 6);
	}
}

ROOT_CASE("11", chown_decides_the_next_open)
{
	const char *n = qname("a");
	mqd_t q = make_mode(n, 0640);
	EQ(fchown(q, user(0), user(1)), 0);
	CHILD {
		identity(user(0), user(0), -1);
		opens(n, 6);
	}
	CHILD {
		identity(user(2), user(1), -1);
		opens(n, 4);
	}
	CHILD {
		identity(user(2), user(2), -1);
		opens(n, 0);
	}
}

ROOT_CASE("11", descriptor_stays_open_for_a_user_who_may_not_open_it)
{
	mqd_t q = make_mode(qname("a"), 0);
	CHILD {
		become(user(0));
		put(q, "x", 3);
		EQ(curmsgs(q), 1);
	}
	take(q, "x", 3);
}

ROOT_CASE("11", users_exchange_messages_through_a_queue_open_to_all)
{
	const char *n = qname("a");
	CHILD {
		become(user(0));
		make_mode(n, 0666);
	}
	pid_t p;
	ASYNC(p) {
		become(user(1));
		mqd_t q = OK(mq_open(n, O_RDONLY));
		take(q, "hello", 1);
		take(q, "again", 2);
	}
	await_asleep(p);
	CHILD {
		become(user(2));
		mqd_t q = OK(mq_open(n, O_WRONLY));
		put(q, "hello", 1);
		put(q, "again", 2);
	}
	join(p);
}
