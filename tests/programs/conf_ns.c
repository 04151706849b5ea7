/* Contract section 13: namespaces. Inheritance: conf_ns_roads.c; the end: conf_ns_leave.c. */
#include "conf.h"
#include <sys/mount.h>
#include <threads.h>

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif
#define ATTR(m, s) (&(struct mq_attr){.mq_maxmsg = (m), .mq_msgsize = (s)})

/* ---- Limits as files --------------------------------------------------------------------- */

static const char *limit_path(const char *name)
{
	static _Thread_local char path[64];
	snprintf(path, sizeof path, "/proc/sys/fs/mqueue/%s", name);
	return path;
}
static void limit_text(const char *name, char *b, size_t len)
{
	int fd = OK(open(limit_path(name), O_RDONLY));
	ssize_t n = OK(read(fd, b, len - 1));
	b[n] = 0;
	close(fd);
}
#define limit_is(name, want)                                                                     \
	do {                                                                                     \
		char li_b[64];                                                                   \
		limit_text(name, li_b, sizeof li_b);                                             \
		if (strcmp(li_b, want "\n"))                                                     \
			FAIL("%s: expected %s, got %s", name, want, li_b);                       \
	} while (0)
/* One write; what it returns. */
static ssize_t limit_write(const char *name, const char *text)
{
	int fd = OK(open(limit_path(name), O_WRONLY));
	ssize_t n = write(fd, text, strlen(text));
	int e = errno;
	close(fd);
	errno = e;
	return n;
}
#define limit_set(name, text) EQ(limit_write(name, text), strlen(text))
#define limits_are_defaults()                                                                    \
	do {                                                                                     \
		limit_is("msg_default", "10");                                                   \
		limit_is("msg_max", "10");                                                       \
		limit_is("msgsize_default", "8192");                                             \
		limit_is("msgsize_max", "8192");                                                 \
		limit_is("queues_max", "256");                                                   \
	} while (0)

/* ---- unshare ----------------------------------------------------------------------------- */

ROOT_CASE("13", unshare_makes_another_namespace)
{
	unsigned long before = my_ns();
	EQ(unshare(CLONE_NEWIPC), 0);
	unsigned long first = my_ns();
	TRUE(first != before);
	EQ(my_ns(), first);
	EQ(unshare(CLONE_NEWIPC), 0);
	TRUE(my_ns() != first);
	TRUE(my_ns() != before);
}

ROOT_CASE("13", link_is_the_same_on_every_path_to_the_caller)
{
	for (int i = 0; i < 2; i++) {
		unsigned long n = my_ns();
		char path[96];
		EQ(leader_ns(), n);
		EQ(ns_of(getpid()), n);
		snprintf(path, sizeof path, "/proc/self/task/%d/ns/ipc", gettid());
		EQ(ns_number(path), n);
		snprintf(path, sizeof path, "/proc/%d/task/%d/ns/ipc", getpid(), gettid());
		EQ(ns_number(path), n);
		EQ(unshare(CLONE_NEWIPC), 0);
	}
}

ROOT_CASE("13", new_namespace_is_empty)
{
	const char *n = qname("a");
	make(n, O_RDWR, 1, 8);
	EQ(unshare(CLONE_NEWIPC), 0);
	missing(n);
	FAILS(mq_unlink(n), ENOENT);
	FAILS(mq_open(n, O_RDONLY), ENOENT);
}

ROOT_CASE("13", unshare_of_a_child_leaves_the_parent)
{
	const char *n = qname("a"), *m = qname("b");
	unsigned long mine = my_ns();
	mqd_t q = make(n, O_RDWR, 1, 8);
	CHILD {
		EQ(my_ns(), mine);
		EQ(unshare(CLONE_NEWIPC), 0);
		make(m, O_RDWR, 1, 8);
		EQ(ns_of(getppid()), mine);
		TRUE(my_ns() != mine);
	}
	EQ(my_ns(), mine);
	present(n);
	missing(m);
	put(q, "x", 0);
	take(q, "x", 0);
}

ROOT_CASE("13", parent_sees_the_number_of_a_child_that_unshared)
{
	pid_t p;
	ASYNC(p) {
		EQ(unshare(CLONE_NEWIPC), 0);
		shared->value[0] = my_ns();
		mark(0);
		await_mark(1);
	}
	await_mark(0);
	EQ(ns_of(p), shared->value[0]);
	TRUE(ns_of(p) != my_ns());
	mark(1);
	join(p);
}

ROOT_CASE("13", unshare_of_the_parent_leaves_the_child)
{
	const char *n = qname("a");
	unsigned long old = my_ns();
	make(n, O_RDWR, 1, 8);
	pid_t p;
	ASYNC(p) {
		await_mark(0);
		EQ(my_ns(), old);
		present(n);
		TRUE(ns_of(getppid()) != old);
	}
	EQ(unshare(CLONE_NEWIPC), 0);
	mark(0);
	join(p);
	missing(n);
}

ROOT_CASE("13", siblings_have_two_namespaces)
{
	const char *n = qname("a");
	pid_t p[2];
	for (int i = 0; i < 2; i++)
		ASYNC(p[i]) {
			EQ(unshare(CLONE_NEWIPC), 0);
			mqd_t q = make(n, O_RDWR, 1, 8);
			put(q, number(i), i);
			shared->value[i] = my_ns();
			mark(0);
			await_marks(0, 2);
			q = OK(mq_open(n, O_RDWR));
			EQ(curmsgs(q), 1);
			take(q, number(i), i);
			/* As long as both live. */
			mark(1);
			await_marks(1, 2);
		}
	join(p[0]);
	join(p[1]);
	TRUE(shared->value[0] != shared->value[1]);
	missing(n);
}

ROOT_CASE("13", unshare_by_syscall)
{
	const char *n = qname("a");
	unsigned long before = my_ns();
	make(n, O_RDWR, 1, 8);
	EQ(syscall(SYS_unshare, CLONE_NEWIPC), 0);
	TRUE(my_ns() != before);
	missing(n);
}

CASE("13", unshare_of_nothing_changes_nothing)
{
	const char *n = qname("a");
	unsigned long before = my_ns();
	make(n, O_RDWR, 1, 8);
	EQ(unshare(0), 0);
	EQ(unshare(CLONE_FS), 0);
	EQ(unshare(CLONE_FILES), 0);
	EQ(unshare(CLONE_SYSVSEM), 0);
	EQ(my_ns(), before);
	present(n);
}

ROOT_CASE("13", unshare_of_other_namespaces_leaves_this_one)
{
	const char *n = qname("a");
	unsigned long before = my_ns();
	make(n, O_RDWR, 1, 8);
	EQ(unshare(CLONE_NEWUTS), 0);
	EQ(unshare(CLONE_NEWNS), 0);
	EQ(unshare(CLONE_NEWNET), 0);
	EQ(unshare(CLONE_NEWPID), 0);
	EQ(my_ns(), before);
	present(n);
	CHILD {
		EQ(my_ns(), before);
		present(n);
	}
}

ROOT_CASE("13", a_hundred_in_a_row_are_each_new)
{
	unsigned long last = my_ns();
	const char *n = qname("a");
	for (int i = 0; i < 100; i++) {
		EQ(unshare(CLONE_NEWIPC), 0);
		TRUE(my_ns() != last);
		last = my_ns();
		missing(n);
		EQ(mq_close(make(n, O_RDWR, 1, 1)), 0);
	}
}

ROOT_CASE("13", forty_live_at_once)
{
	enum { N = 40 };
	const char *n = qname("a");
	pid_t p[N];
	for (int i = 0; i < N; i++)
		ASYNC(p[i]) {
			EQ(unshare(CLONE_NEWIPC), 0);
			mqd_t q = make(n, O_RDWR, 1, 8);
			put(q, number(i), 0);
			EQ(mq_close(q), 0);
			mark(0);
			await_mark(1);
			q = OK(mq_open(n, O_RDWR));
			take(q, number(i), 0);
		}
	await_marks(0, N);
	for (int i = 0; i < N; i++) {
		TRUE(ns_of(p[i]) != my_ns());
		for (int j = 0; j < i; j++)
			TRUE(ns_of(p[i]) != ns_of(p[j]));
	}
	missing(n);
	mark(1);
	for (int i = 0; i < N; i++)
		join(p[i]);
}

/* ---- Combined with other flags ----------------------------------------------------------- */

static void link_text(const char *path, char *b)
{
	ssize_t n = OK(readlink(path, b, 63));
	b[n] = 0;
}
/* What each flag makes anew besides; NULL where no link tells. */
static const struct {
	int flag;
	const char *link;
} with[] = {
	{CLONE_NEWUTS, "/proc/thread-self/ns/uts"},
	{CLONE_NEWNS, "/proc/thread-self/ns/mnt"},
	{CLONE_NEWNET, "/proc/thread-self/ns/net"},
	{CLONE_NEWCGROUP, "/proc/thread-self/ns/cgroup"},
	{CLONE_NEWPID, "/proc/thread-self/ns/pid_for_children"},
	{CLONE_NEWUSER, "/proc/thread-self/ns/user"},
	{CLONE_NEWUTS | CLONE_NEWNS, "/proc/thread-self/ns/uts"},
	{CLONE_NEWNET | CLONE_NEWPID, "/proc/thread-self/ns/net"},
	{CLONE_FS, NULL},
	{CLONE_FILES, NULL},
};
enum { WITH = sizeof with / sizeof *with };

static void unshare_with(int i)
{
	const char *n = qname(number(i));
	char was[64], is[64];
	unsigned long before = my_ns();
	make(n, O_RDWR, 1, 8);
	if (with[i].link)
		link_text(with[i].link, was);
	EQ(unshare(CLONE_NEWIPC | with[i].flag), 0);
	if (with[i].link) {
		/* A new pid namespace has no number before its first process. */
		if (with[i].flag & CLONE_NEWPID) {
			pid_t p;
			ASYNC(p) await_mark(40 + i);
			link_text(with[i].link, is);
			mark(40 + i);
			join(p);
		} else {
			link_text(with[i].link, is);
		}
		TRUE(strcmp(was, is));
	}
	TRUE(my_ns() != before);
	missing(n);
}

ROOT_CASE("13", unshare_combined_with_each_other_flag)
{
	for (int i = 0; i < WITH; i++)
		CHILD unshare_with(i);
}

ROOT_CASE("13", unshare_combined_with_SYSVSEM)
{
	unsigned long before = my_ns();
	EQ(unshare(CLONE_NEWIPC | CLONE_SYSVSEM), 0);
	TRUE(my_ns() != before);
}

ROOT_CASE("13", unshare_combined_with_all_others)
{
	const char *n = qname("a");
	unsigned long before = my_ns();
	make(n, O_RDWR, 1, 8);
	EQ(unshare(CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWCGROUP |
		   CLONE_NEWPID | CLONE_FS | CLONE_FILES | CLONE_SYSVSEM),
	   0);
	TRUE(my_ns() != before);
	missing(n);
	CHILD {
		EQ(getpid(), 1);
		missing(n);
		EQ(mq_close(make(n, O_RDWR, 1, 8)), 0);
	}
	present(n);
}

ROOT_CASE("13", unshare_of_thread_bits_in_a_single_thread)
{
	static const int bits[] = {CLONE_THREAD, CLONE_SIGHAND, CLONE_VM,
				   CLONE_THREAD | CLONE_SIGHAND | CLONE_VM};
	for (int i = 0; i < 4; i++) {
		unsigned long before = my_ns();
		EQ(unshare(bits[i]), 0);
		EQ(my_ns(), before);
		EQ(unshare(CLONE_NEWIPC | bits[i]), 0);
		TRUE(my_ns() != before);
	}
}

ROOT_CASE("13", unshare_combined_with_NEWTIME)
{
	if (access("/proc/self/ns/time_for_children", F_OK))
		return; /* a kernel without */
	char was[64], is[64];
	unsigned long before = my_ns();
	link_text("/proc/self/ns/time_for_children", was);
	EQ(unshare(CLONE_NEWIPC | CLONE_NEWTIME), 0);
	link_text("/proc/self/ns/time_for_children", is);
	TRUE(strcmp(was, is));
	TRUE(my_ns() != before);
}

ROOT_CASE("13", child_in_a_new_pid_namespace_has_its_queues)
{
	const char *n = qname("a");
	EQ(unshare(CLONE_NEWIPC | CLONE_NEWPID), 0);
	unsigned long mine = my_ns();
	mqd_t q = make(n, O_RDWR, 1, 8);
	CHILD {
		EQ(getpid(), 1);
		EQ(my_ns(), mine);
		mqd_t r = OK(mq_open(n, O_RDWR));
		put(r, "x", 0);
		CHILD {
			EQ(getpid(), 2);
			EQ(my_ns(), mine);
			take(r, "x", 0);
			EQ(unshare(CLONE_NEWIPC), 0);
			TRUE(my_ns() != mine);
			missing(n);
		}
		put(r, "y", 0);
	}
	take(q, "y", 0);
}

/* ---- Refusals ---------------------------------------------------------------------------- */

static unsigned long kept_ns;
static const char *kept;

/* In a namespace that differs from a new one in every way. */
static void something_to_keep(void)
{
	EQ(unshare(CLONE_NEWIPC), 0);
	kept_ns = my_ns();
	kept = qname("kept");
	make(kept, O_RDWR, 1, 8);
	limit_set("msg_max", "77");
}
#define REFUSED(call, err)                                                                       \
	do {                                                                                     \
		FAILS(call, err);                                                                \
		EQ(my_ns(), kept_ns);                                                            \
		present(kept);                                                                   \
		limit_is("msg_max", "77");                                                       \
		/* Nor was there a child. */                                                     \
		FAILS(waitpid(-1, NULL, WNOHANG | __WALL), ECHILD);                              \
	} while (0)

ROOT_CASE("13", unshare_refuses_bad_bits_as_a_whole)
{
	something_to_keep();
	REFUSED(unshare(1), EINVAL);
	REFUSED(unshare(CLONE_PARENT), EINVAL);
	REFUSED(unshare(CLONE_NEWIPC | 1), EINVAL);
	REFUSED(unshare(CLONE_NEWIPC | SIGCHLD), EINVAL);
	REFUSED(unshare(CLONE_NEWIPC | CLONE_PARENT), EINVAL);
	REFUSED(unshare(CLONE_NEWIPC | CLONE_VFORK), EINVAL);
	REFUSED(unshare(CLONE_NEWIPC | CLONE_PTRACE), EINVAL);
	REFUSED(unshare(CLONE_NEWIPC | CLONE_SETTLS), EINVAL);
	REFUSED(unshare(CLONE_NEWIPC | CLONE_IO), EINVAL);
	REFUSED(syscall(SYS_unshare, CLONE_NEWIPC | CLONE_PARENT), EINVAL);
}

static void *waits(void *mark_no)
{
	await_mark((int)(intptr_t)mark_no);
	return NULL;
}

ROOT_CASE("13", unshare_of_thread_bits_with_threads_is_refused_as_a_whole)
{
	pthread_t t;
	something_to_keep();
	EQ(pthread_create(&t, NULL, waits, (void *)(intptr_t)0), 0);
	REFUSED(unshare(CLONE_NEWIPC | CLONE_THREAD), EINVAL);
	REFUSED(unshare(CLONE_NEWIPC | CLONE_SIGHAND), EINVAL);
	REFUSED(unshare(CLONE_NEWIPC | CLONE_VM), EINVAL);
	REFUSED(unshare(CLONE_NEWIPC | CLONE_NEWUSER), EINVAL);
	mark(0);
	EQ(pthread_join(t, NULL), 0);
}

/* The kernel's own refusal of the other half, for want of room. */
ROOT_CASE("13", unshare_refused_for_another_namespace_fails_as_a_whole)
{
	EQ(unshare(CLONE_NEWUSER), 0);
	map_ids(0, 0);
	something_to_keep();
	int fd = OK(open("/proc/sys/user/max_uts_namespaces", O_WRONLY));
	EQ(write(fd, "0", 1), 1);
	REFUSED(unshare(CLONE_NEWIPC | CLONE_NEWUTS), ENOSPC);
	REFUSED(raw_clone(CLONE_NEWIPC | CLONE_NEWUTS), ENOSPC);
	REFUSED(raw_clone3(CLONE_NEWIPC | CLONE_NEWUTS), ENOSPC);
	EQ(unshare(CLONE_NEWIPC), 0);
	TRUE(my_ns() != kept_ns);
}

static int never(void *arg UNUSED)
{
	FAIL("a child ran that should not be");
}

/* Combinations which clone refuses. */
static const struct {
	unsigned long flags;
} bad_clone[] = {
	{CLONE_NEWIPC | CLONE_SYSVSEM},
	{CLONE_NEWIPC | CLONE_NEWNS | CLONE_FS},
	{CLONE_NEWIPC | CLONE_NEWUSER | CLONE_FS},
	{CLONE_NEWIPC | CLONE_SIGHAND},
	{CLONE_NEWIPC | CLONE_THREAD},
	{CLONE_NEWIPC | CLONE_THREAD | CLONE_VM},
	{CLONE_NEWIPC | CLONE_THREAD | CLONE_SIGHAND | CLONE_VM | CLONE_NEWPID},
	{CLONE_NEWIPC | CLONE_NEWUTS | CLONE_SYSVSEM},
};

ROOT_CASE("13", clone_refuses_bad_combinations_as_a_whole)
{
	something_to_keep();
	for (size_t i = 0; i < sizeof bad_clone / sizeof *bad_clone; i++)
		REFUSED(clone_with_stack(bad_clone[i].flags, never, NULL), EINVAL);
}

ROOT_CASE("13", raw_clone_refuses_bad_combinations_as_a_whole)
{
	something_to_keep();
	for (size_t i = 0; i < sizeof bad_clone / sizeof *bad_clone; i++)
		REFUSED(raw_clone(bad_clone[i].flags), EINVAL);
}

ROOT_CASE("13", clone3_refuses_bad_combinations_as_a_whole)
{
	something_to_keep();
	for (size_t i = 0; i < sizeof bad_clone / sizeof *bad_clone; i++)
		REFUSED(raw_clone3(bad_clone[i].flags), EINVAL);
}

ROOT_CASE("13", clone_without_a_stack_or_function_is_EINVAL)
{
	static char stack[16384];
	something_to_keep();
	REFUSED(clone(never, NULL, CLONE_NEWIPC | SIGCHLD, NULL), EINVAL);
	REFUSED(clone(NULL, stack + sizeof stack, CLONE_NEWIPC | SIGCHLD, NULL), EINVAL);
}

ROOT_CASE("13", clone_that_finds_no_room_for_a_process_fails_as_a_whole)
{
	something_to_keep();
	OK(fchmod(OK(mq_open(kept, O_RDWR)), 0666));
	CHILD {
		become_ordinary(user(0));
		OK(setrlimit(RLIMIT_NPROC, &(struct rlimit){0, 0}));
		REFUSED(raw_clone(CLONE_NEWUSER | CLONE_NEWIPC), EAGAIN);
		REFUSED(raw_clone3(CLONE_NEWUSER | CLONE_NEWIPC), EAGAIN);
		REFUSED(clone_with_stack(CLONE_NEWUSER | CLONE_NEWIPC, never, NULL), EAGAIN);
	}
}

/* ---- clone ------------------------------------------------------------------------------- */

static unsigned long parent_ns;
static const char *parent_queue;

static void parent_has_a_queue(void)
{
	parent_ns = my_ns();
	parent_queue = qname("parent");
	make(parent_queue, O_RDWR, 1, 8);
}
/* What holds in a child with a namespace of its own. */
static void in_a_new_namespace(void)
{
	TRUE(my_ns() != parent_ns);
	EQ(leader_ns(), my_ns());
	missing(parent_queue);
	limits_are_defaults();
	mqd_t q = make(parent_queue, O_RDWR, 2, 8);
	put(q, "child's", 3);
	unsigned long mine = my_ns();
	CHILD {
		EQ(my_ns(), mine);
		mqd_t r = OK(mq_open(parent_queue, O_RDWR));
		take(r, "child's", 3);
	}
	EQ(curmsgs(q), 0);
}
static int new_namespace_child(void *arg)
{
	if (arg)
		EQ((intptr_t)arg, 4711);
	in_a_new_namespace();
	return 0;
}
#define parent_is_unchanged()                                                                    \
	do {                                                                                     \
		EQ(my_ns(), parent_ns);                                                          \
		mqd_t piu_q = OK(mq_open(parent_queue, O_RDWR));                                 \
		EQ(curmsgs(piu_q), 0);                                                           \
		EQ(mq_close(piu_q), 0);                                                          \
	} while (0)

ROOT_CASE("13", clone_makes_a_namespace_for_the_child)
{
	parent_has_a_queue();
	join(OK(clone_with_stack(CLONE_NEWIPC, new_namespace_child, (void *)4711)));
	parent_is_unchanged();
}

ROOT_CASE("13", raw_clone_makes_a_namespace_for_the_child)
{
	parent_has_a_queue();
	CHILD_BY(raw_clone(CLONE_NEWIPC)) in_a_new_namespace();
	parent_is_unchanged();
}

ROOT_CASE("13", clone3_makes_a_namespace_for_the_child)
{
	parent_has_a_queue();
	CHILD_BY(raw_clone3(CLONE_NEWIPC)) in_a_new_namespace();
	parent_is_unchanged();
}

ROOT_CASE("13", clone_writes_the_child_s_pid_where_asked)
{
	parent_has_a_queue();
	static pid_t ptid, ctid;
#ifdef __x86_64__
	pid_t p = syscall(SYS_clone, CLONE_NEWIPC | CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | SIGCHLD, 0,
			  &ptid, &ctid, 0);
#else
	pid_t p = syscall(SYS_clone, CLONE_NEWIPC | CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | SIGCHLD, 0,
			  &ptid, 0, &ctid);
#endif
	if (p == 0) {
		EQ(ctid, getpid());
		in_a_new_namespace();
		_exit(0);
	}
	TRUE(p > 0);
	EQ(ptid, p);
	EQ(ctid, 0);
	join(p);
	parent_is_unchanged();
}

ROOT_CASE("13", clone_gives_a_pidfd_where_asked)
{
	parent_has_a_queue();
	int pidfd = -1;
	pid_t p = syscall(SYS_clone, CLONE_NEWIPC | CLONE_PIDFD | SIGCHLD, 0, &pidfd, 0, 0);
	if (p == 0) {
		in_a_new_namespace();
		_exit(0);
	}
	TRUE(p > 0);
	struct pollfd f = {.fd = pidfd, .events = POLLIN};
	EQ(poll(&f, 1, 15000), 1);
	join(p);
	parent_is_unchanged();
}

/* With whatever else clone makes anew. */
static const int clone_with[] = {
	CLONE_NEWUTS,	       CLONE_NEWNS,  CLONE_NEWNET, CLONE_NEWCGROUP, CLONE_NEWPID, CLONE_NEWUSER,
	CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWPID, CLONE_FS, CLONE_PARENT_SETTID,
};
enum { CLONE_WITH = sizeof clone_with / sizeof *clone_with };
static const char *const made_anew[] = {"uts", "mnt", "net", "cgroup", "pid", "user"};

static int combined_child(void *arg)
{
	int i = (int)(intptr_t)arg;
	TRUE(my_ns() != parent_ns);
	missing(parent_queue);
	if (i < 6) {
		char path[64], b[64];
		snprintf(path, sizeof path, "/proc/self/ns/%s", made_anew[i]);
		link_text(path, b);
		TRUE(strcmp(b, shared->name[511]));
	}
	if (clone_with[i] & CLONE_NEWPID)
		EQ(getpid(), 1);
	/* Unmapped users create nothing. */
	if (!(clone_with[i] & CLONE_NEWUSER))
		EQ(mq_close(make(parent_queue, O_RDWR, 1, 8)), 0);
	return 0;
}
static void note_link(int i)
{
	char path[64];
	if (i >= 6)
		return;
	snprintf(path, sizeof path, "/proc/self/ns/%s", made_anew[i]);
	link_text(path, shared->name[511]);
}

ROOT_CASE("13", clone_combined_with_other_flags)
{
	parent_has_a_queue();
	for (int i = 0; i < CLONE_WITH; i++) {
		note_link(i);
		int f = clone_with[i] == CLONE_PARENT_SETTID ? 0 : clone_with[i];
		join(OK(clone_with_stack(CLONE_NEWIPC | f, combined_child, (void *)(intptr_t)i)));
		parent_is_unchanged();
	}
}

ROOT_CASE("13", raw_clone_combined_with_other_flags)
{
	parent_has_a_queue();
	for (int i = 0; i < CLONE_WITH - 1; i++) {
		note_link(i);
		CHILD_BY(raw_clone(CLONE_NEWIPC | clone_with[i])) combined_child((void *)(intptr_t)i);
		parent_is_unchanged();
	}
}

ROOT_CASE("13", clone3_combined_with_other_flags)
{
	parent_has_a_queue();
	for (int i = 0; i < CLONE_WITH - 1; i++) {
		note_link(i);
		CHILD_BY(raw_clone3(CLONE_NEWIPC | clone_with[i])) combined_child((void *)(intptr_t)i);
		parent_is_unchanged();
	}
}

ROOT_CASE("13", clone_that_shares_descriptors_makes_a_namespace_for_the_child_only)
{
	parent_has_a_queue();
	mqd_t q = make(qname("b"), O_RDWR, 1, 8);
	CHILD_BY(raw_clone(CLONE_NEWIPC | CLONE_FILES)) {
		put(q, "x", 0);
		TRUE(my_ns() != parent_ns);
		missing(parent_queue);
	}
	take(q, "x", 0);
	parent_is_unchanged();
}

/*
 * Memory shared: the child runs on a stack of its own in the parent's memory, the parent waits.
 */
static int memory_sharing_child(void *arg)
{
	*(unsigned long *)arg = my_ns();
	TRUE(my_ns() != parent_ns);
	missing(parent_queue);
	mqd_t q = make(parent_queue, O_RDWR, 1, 8);
	put(q, "child's", 0);
	return 0;
}

ROOT_CASE("13", clone_VM_makes_a_namespace_for_the_child_only)
{
	unsigned long child = 0;
	parent_has_a_queue();
	join(OK(clone_with_stack(CLONE_NEWIPC | CLONE_VM, memory_sharing_child, &child)));
	TRUE(child && child != parent_ns);
	parent_is_unchanged();
}

ROOT_CASE("13", clone_VM_VFORK_makes_a_namespace_for_the_child_only)
{
	unsigned long child = 0;
	parent_has_a_queue();
	join(OK(clone_with_stack(CLONE_NEWIPC | CLONE_VM | CLONE_VFORK, memory_sharing_child, &child)));
	TRUE(child && child != parent_ns);
	parent_is_unchanged();
}

/* Parent and child share memory and take turns. */
static int alternating_child(void *arg UNUSED)
{
	for (int i = 0; i < 10; i++) {
		TRUE(my_ns() != parent_ns);
		if (i)
			present(parent_queue);
		else
			missing(parent_queue);
		mqd_t q = OK(mq_open(parent_queue, O_RDWR | O_CREAT, 0600, ATTR(10, 8)));
		EQ(curmsgs(q), i);
		put(q, "child's", 0);
		EQ(mq_close(q), 0);
		mark(0);
		await_marks(1, i + 1);
	}
	return 0;
}

ROOT_CASE("13", clone_VM_child_and_parent_each_stay_where_they_are)
{
	parent_has_a_queue();
	pid_t p = OK(clone_with_stack(CLONE_NEWIPC | CLONE_VM, alternating_child, NULL));
	for (int i = 0; i < 10; i++) {
		await_marks(0, i + 1);
		parent_is_unchanged();
		TRUE(ns_of(p) != parent_ns);
		mark(1);
	}
	join(p);
	parent_is_unchanged();
}

ROOT_CASE("13", vfork_child_that_unshares_leaves_the_parent)
{
	parent_has_a_queue();
	volatile unsigned long child = 0;
	pid_t p = vfork();
	if (p == 0) {
		if (unshare(CLONE_NEWIPC))
			_exit(11);
		child = my_ns();
		errno = 0;
		_exit(mq_open(parent_queue, O_RDWR) == -1 && errno == ENOENT ? 0 : 12);
	}
	join(p);
	TRUE(child && child != parent_ns);
	parent_is_unchanged();
}

static int unsharing_child(void *arg)
{
	EQ(my_ns(), parent_ns);
	present(parent_queue);
	EQ(unshare(CLONE_NEWIPC), 0);
	return memory_sharing_child(arg);
}

ROOT_CASE("13", clone_VM_child_that_unshares_leaves_the_parent)
{
	unsigned long child = 0;
	parent_has_a_queue();
	join(OK(clone_with_stack(CLONE_VM, unsharing_child, &child)));
	TRUE(child && child != parent_ns);
	parent_is_unchanged();
	join(OK(clone_with_stack(CLONE_VM | CLONE_VFORK, unsharing_child, &child)));
	parent_is_unchanged();
}

ROOT_CASE("13", clone_in_a_new_namespace_makes_a_third)
{
	unsigned long first = my_ns();
	EQ(unshare(CLONE_NEWIPC), 0);
	parent_has_a_queue();
	CHILD_BY(raw_clone(CLONE_NEWIPC)) {
		in_a_new_namespace();
		TRUE(my_ns() != first);
		unsigned long second = my_ns();
		CHILD_BY(raw_clone(CLONE_NEWIPC)) {
			in_a_new_namespace();
			TRUE(my_ns() != first && my_ns() != second);
		}
		EQ(my_ns(), second);
	}
	parent_is_unchanged();
}

/* ---- Limits ------------------------------------------------------------------------------ */

ROOT_CASE("13 (limits)", new_namespace_has_default_limits_whatever_the_parent_s)
{
	EQ(unshare(CLONE_NEWIPC), 0);
	limits_are_defaults();
	limit_set("msg_default", "3");
	limit_set("msg_max", "30");
	limit_set("msgsize_default", "300");
	limit_set("msgsize_max", "30000");
	limit_set("queues_max", "33");
	CHILD {
		limit_is("msg_max", "30");
		EQ(unshare(CLONE_NEWIPC), 0);
		limits_are_defaults();
		missing(qname("a"));
		EQ(mq_close(make(qname("b"), O_RDWR, 10, 16)), 0);
		FAILS(mq_open(qname("c"), O_RDWR | O_CREAT, 0600, ATTR(11, 16)), EINVAL);
		FAILS(mq_open(qname("d"), O_RDWR | O_CREAT, 0600, ATTR(1, 8193)), EINVAL);
	}
	CHILD_BY(raw_clone(CLONE_NEWIPC)) limits_are_defaults();
	CHILD_BY(raw_clone3(CLONE_NEWIPC)) limits_are_defaults();
	EQ(unshare(CLONE_NEWIPC), 0);
	limits_are_defaults();
}

ROOT_CASE("13 (limits)", limits_are_set_for_one_namespace)
{
	EQ(unshare(CLONE_NEWIPC), 0);
	pid_t p;
	ASYNC(p) {
		EQ(unshare(CLONE_NEWIPC), 0);
		limit_set("msg_max", "20");
		limit_set("queues_max", "5");
		mark(0);
		await_mark(1);
		limit_is("msg_max", "20");
		limit_is("queues_max", "5");
		limit_is("msgsize_max", "8192");
	}
	await_mark(0);
	limits_are_defaults();
	limit_set("msg_max", "15");
	limit_set("msgsize_max", "9000");
	mark(1);
	join(p);
	limit_is("msg_max", "15");
	limit_is("queues_max", "256");
}

ROOT_CASE("13 (limits)", limits_are_seen_by_all_of_the_namespace)
{
	EQ(unshare(CLONE_NEWIPC), 0);
	pid_t p;
	ASYNC(p) {
		await_mark(0);
		limit_is("msg_max", "20");
		limit_set("msg_default", "7");
	}
	limit_set("msg_max", "20");
	mark(0);
	join(p);
	limit_is("msg_default", "7");
	CHILD limit_is("msg_default", "7");
}

ROOT_CASE("13 (limits)", msg_max_and_msgsize_max_bound_creation_in_their_namespace)
{
	EQ(unshare(CLONE_NEWIPC), 0);
	limit_set("msg_max", "12");
	limit_set("msgsize_max", "9000");
	EQ(mq_close(make(qname("a"), O_RDWR, 12, 16)), 0);
	EQ(mq_close(make(qname("b"), O_RDWR, 1, 9000)), 0);
	FAILS(mq_open(qname("c"), O_RDWR | O_CREAT, 0600, ATTR(13, 16)), EINVAL);
	FAILS(mq_open(qname("d"), O_RDWR | O_CREAT, 0600, ATTR(1, 9001)), EINVAL);
	limit_set("msg_max", "4");
	limit_set("msgsize_max", "128");
	FAILS(mq_open(qname("e"), O_RDWR | O_CREAT, 0600, ATTR(5, 16)), EINVAL);
	FAILS(mq_open(qname("f"), O_RDWR | O_CREAT, 0600, ATTR(1, 129)), EINVAL);
	EQ(unshare(CLONE_NEWIPC), 0);
	EQ(mq_close(make(qname("g"), O_RDWR, 5, 129)), 0);
}

ROOT_CASE("13 (limits)", defaults_shape_queues_made_without_attributes)
{
	struct mq_attr a;
	EQ(unshare(CLONE_NEWIPC), 0);
	limit_set("msg_default", "3");
	limit_set("msgsize_default", "200");
	EQ(mq_getattr(OK(mq_open(qname("a"), O_RDWR | O_CREAT, 0600, NULL)), &a), 0);
	EQ(a.mq_maxmsg, 3);
	EQ(a.mq_msgsize, 200);
	EQ(unshare(CLONE_NEWIPC), 0);
	EQ(mq_getattr(OK(mq_open(qname("a"), O_RDWR | O_CREAT, 0600, NULL)), &a), 0);
	EQ(a.mq_maxmsg, 10);
	EQ(a.mq_msgsize, 8192);
}

ROOT_CASE("13 (limits)", queues_max_counts_one_namespace)
{
	EQ(unshare(CLONE_NEWIPC), 0);
	limit_set("queues_max", "2");
	EQ(mq_close(make(qname("a"), O_RDWR, 1, 1)), 0);
	EQ(mq_close(make(qname("b"), O_RDWR, 1, 1)), 0);
	CHILD {
		EQ(unshare(CLONE_NEWIPC), 0);
		for (int i = 0; i < 4; i++)
			EQ(mq_close(make(qname(number(i)), O_RDWR, 1, 1)), 0);
	}
	/* Under CAP_SYS_RESOURCE it would not count; it is dropped. */
	FAILS(mq_open(qname("c"), O_RDWR | O_CREAT, 0600, ATTR(1, 1)), ENOSPC);
	limit_set("queues_max", "1");
	FAILS(mq_open(qname("d"), O_RDWR | O_CREAT, 0600, ATTR(1, 1)), ENOSPC);
	limit_set("queues_max", "3");
	EQ(mq_close(make(qname("e"), O_RDWR, 1, 1)), 0);
}

ROOT_CASE("13 (limits)", queues_held_from_another_namespace_still_count_in_theirs)
{
	EQ(unshare(CLONE_NEWIPC), 0);
	limit_set("queues_max", "1");
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 1, 1);
	EQ(mq_unlink(n), 0);
	pid_t p;
	ASYNC(p) {
		await_mark(0);
		FAILS(mq_open(n, O_RDWR | O_CREAT, 0600, ATTR(1, 1)), ENOSPC);
		mark(1);
		await_mark(2);
		EQ(mq_close(q), 0);
		EQ(mq_close(make(n, O_RDWR, 1, 1)), 0);
	}
	EQ(unshare(CLONE_NEWIPC), 0);
	limit_set("queues_max", "1");
	EQ(mq_close(make(n, O_RDWR, 1, 1)), 0);
	mark(0);
	await_mark(1);
	EQ(mq_close(q), 0);
	mark(2);
	join(p);
}

static const struct {
	const char *name, *text;
	int taken; /* what write returns */
	const char *reads;
} accepted[] = {
	{"msg_max", "1", 1, "1\n"},
	{"msg_max", "65536", 5, "65536\n"},
	{"msg_max", "20\n", 3, "20\n"},
	{"msg_max", "  21", 4, "21\n"},
	{"msg_max", "\t22\n", 4, "22\n"},
	{"msg_max", "3 4", 2, "3\n"},
	{"msg_max", "0x20", 4, "32\n"},
	{"msg_max", "010", 3, "8\n"},
	{"msg_max", "", 0, "10\n"},
	{"msg_default", "1", 1, "1\n"},
	{"msg_default", "65536", 5, "65536\n"},
	{"msgsize_max", "128", 3, "128\n"},
	{"msgsize_max", "16777216", 8, "16777216\n"},
	{"msgsize_default", "128", 3, "128\n"},
	{"msgsize_default", "16777216", 8, "16777216\n"},
	{"queues_max", "0", 1, "0\n"},
	{"queues_max", "-1", 2, "-1\n"},
	{"queues_max", "2147483647", 10, "2147483647\n"},
	{"queues_max", "-2147483648", 11, "-2147483648\n"},
};

ROOT_CASE("13 (limits)", accepted_values)
{
	for (size_t i = 0; i < sizeof accepted / sizeof *accepted; i++) {
		char b[64];
		EQ(unshare(CLONE_NEWIPC), 0);
		ssize_t n = limit_write(accepted[i].name, accepted[i].text);
		if (n != accepted[i].taken)
			FAIL("\"%s\" > %s: expected %d, got %zd %s", accepted[i].text, accepted[i].name,
			     accepted[i].taken, n, n < 0 ? errno_name(errno) : "");
		limit_text(accepted[i].name, b, sizeof b);
		if (strcmp(b, accepted[i].reads))
			FAIL("\"%s\" > %s: expected %s, got %s", accepted[i].text, accepted[i].name,
			     accepted[i].reads, b);
	}
}

static const struct {
	const char *name, *text;
} refused[] = {
	{"msg_max", "0"},	    {"msg_max", "65537"},      {"msg_max", "-1"},
	{"msg_max", "x"},	    {"msg_max", "4294967306"}, {"msg_max", "20x"},
	{"msg_max", "99999999999"}, {"msg_max", "-"},	       {"msg_max", "+5"},
	{"msg_default", "0"},	    {"msg_default", "65537"},  {"msg_default", "-1"},
	{"msgsize_max", "127"},	    {"msgsize_max", "16777217"}, {"msgsize_max", "0"},
	{"msgsize_max", "-1"},	    {"msgsize_default", "127"}, {"msgsize_default", "16777217"},
	{"queues_max", "2147483648"}, {"queues_max", "x"},     {"queues_max", "-2147483649"},
};

ROOT_CASE("13 (limits)", refused_values_leave_the_limit)
{
	EQ(unshare(CLONE_NEWIPC), 0);
	for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
		errno = 0;
		ssize_t n = limit_write(refused[i].name, refused[i].text);
		if (n != -1 || errno != EINVAL)
			FAIL("\"%s\" > %s: expected -1 EINVAL, got %zd %s", refused[i].text, refused[i].name, n,
			     errno_name(errno));
		limits_are_defaults();
	}
}

ROOT_CASE("13 (limits)", queues_max_of_zero_forbids_all_creation)
{
	EQ(unshare(CLONE_NEWIPC), 0);
	const char *n = qname("a");
	EQ(mq_close(make(n, O_RDWR, 1, 1)), 0);
	limit_set("queues_max", "0");
	FAILS(mq_open(qname("b"), O_RDWR | O_CREAT, 0600, ATTR(1, 1)), ENOSPC);
	present(n);
	limit_set("queues_max", "-1");
	EQ(mq_close(make(qname("c"), O_RDWR, 1, 1)), 0);
}

ROOT_CASE("13 (limits)", file_opened_before_unshare_stays_with_its_namespace)
{
	char b[8];
	EQ(unshare(CLONE_NEWIPC), 0);
	limit_set("msg_max", "20");
	int old = OK(open(limit_path("msg_max"), O_RDWR));
	pid_t p;
	ASYNC(p) {
		await_mark(0);
		limit_is("msg_max", "33");
	}
	EQ(unshare(CLONE_NEWIPC), 0);
	EQ(read(old, b, sizeof b), 3);
	SAME(b, "20\n", 3);
	EQ(lseek(old, 0, SEEK_SET), 0);
	EQ(write(old, "33", 2), 2);
	limits_are_defaults();
	mark(0);
	join(p);
}

ROOT_CASE("13 (limits)", other_programs_read_and_write_them)
{
	char b[16] = "";
	EQ(unshare(CLONE_NEWIPC), 0);
	EQ(system("echo 12 > /proc/sys/fs/mqueue/msg_max"), 0);
	limit_is("msg_max", "12");
	FILE *f = popen("cat /proc/sys/fs/mqueue/msg_max", "r");
	TRUE(f && fgets(b, sizeof b, f));
	SAME(b, "12\n", 4);
	EQ(pclose(f), 0);
	f = fopen("/proc/sys/fs/mqueue/msg_max", "w");
	TRUE(f);
	EQ(fprintf(f, "%d\n", 13), 3);
	EQ(fclose(f), 0);
	limit_is("msg_max", "13");
	TRUE(system("echo 0 2> /dev/null > /proc/sys/fs/mqueue/msg_max") != 0);
	limit_is("msg_max", "13");
	EQ(unshare(CLONE_NEWIPC), 0);
	limit_is("msg_max", "10");
}

/* ---- Same names -------------------------------------------------------------------------- */

ROOT_CASE("13", same_name_in_two_namespaces_is_two_queues)
{
	const char *n = qname("a");
	struct mq_attr a;
	struct stat st, st2;
	mqd_t old = OK(mq_open(n, O_RDWR | O_CREAT | O_EXCL, 0640, ATTR(3, 8)));
	put(old, "old", 1);
	EQ(unshare(CLONE_NEWIPC), 0);
	mqd_t new = OK(mq_open(n, O_RDWR | O_CREAT | O_EXCL, 0604, ATTR(4, 16)));
	EQ(curmsgs(new), 0);
	put(new, "new", 2);
	EQ(fchown(new, user(0), user(0)), 0);
	EQ(mq_getattr(old, &a), 0);
	EQ(a.mq_maxmsg, 3);
	EQ(a.mq_curmsgs, 1);
	EQ(mq_getattr(new, &a), 0);
	EQ(a.mq_maxmsg, 4);
	EQ(a.mq_msgsize, 16);
	OK(fstat(old, &st));
	OK(fstat(new, &st2));
	EQ(st.st_mode & 07777, 0640);
	EQ(st2.st_mode & 07777, 0604);
	EQ(st.st_uid, 0);
	EQ(st2.st_uid, user(0));
	TRUE(st.st_dev != st2.st_dev || st.st_ino != st2.st_ino);
	take(old, "old", 1);
	take(new, "new", 2);
}

ROOT_CASE("13", unlink_of_the_same_name_leaves_the_other_namespace_s)
{
	const char *n = qname("a");
	struct stat st;
	mqd_t old = make(n, O_RDWR, 1, 8);
	CHILD {
		EQ(unshare(CLONE_NEWIPC), 0);
		FAILS(mq_unlink(n), ENOENT);
		EQ(mq_close(make(n, O_RDWR, 1, 8)), 0);
		EQ(mq_unlink(n), 0);
		missing(n);
		OK(fstat(old, &st));
		EQ(st.st_nlink, 1);
	}
	present(n);
}

ROOT_CASE("13", same_name_has_a_notification_in_each_namespace)
{
	const char *n = qname("a");
	block(SIGUSR1);
	block(SIGUSR2);
	mqd_t old = make(n, O_RDWR, 3, 8);
	EQ(mq_notify(old, &(struct sigevent){.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1}), 0);
	EQ(unshare(CLONE_NEWIPC), 0);
	mqd_t new = make(n, O_RDWR, 3, 8);
	EQ(mq_notify(new, &(struct sigevent){.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2}), 0);
	put(new, "x", 0);
	EQ(pending_signal(SIGUSR2, NULL), 1);
	EQ(pending_signal(SIGUSR1, NULL), 0);
	put(old, "x", 0);
	EQ(pending_signal(SIGUSR1, NULL), 1);
}

ROOT_CASE("13", message_wakes_nobody_at_the_same_name_elsewhere)
{
	const char *n = qname("a");
	mqd_t old = make(n, O_RDWR, 1, 8);
	pid_t p;
	ASYNC(p) {
		EQ(unshare(CLONE_NEWIPC), 0);
		mqd_t q = make(n, O_RDWR, 1, 8);
		pid_t sleeper;
		ASYNC(sleeper) take(q, "right", 0);
		await_asleep(sleeper);
		mark(0);
		await_mark(1);
		await_asleep(sleeper);
		put(q, "right", 0);
		join(sleeper);
	}
	await_mark(0);
	put(old, "wrong", 0);
	mark(1);
	join(p);
	take(old, "wrong", 0);
}

/* ---- Old descriptors --------------------------------------------------------------------- */

ROOT_CASE("13 (descriptors)", old_descriptor_sends_and_receives_after_unshare)
{
	const char *n = qname("a");
	struct mq_attr a;
	mqd_t q = make(n, O_RDWR, 2, 8);
	put(q, "before", 1);
	pid_t p;
	ASYNC(p) {
		await_mark(0);
		mqd_t r = OK(mq_open(n, O_RDWR));
		take(r, "after", 2);
		put(r, "back", 3);
	}
	EQ(unshare(CLONE_NEWIPC), 0);
	missing(n);
	take(q, "before", 1);
	put(q, "after", 2);
	EQ(curmsgs(q), 1);
	mark(0);
	join(p);
	take(q, "back", 3);
	EQ(mq_setattr(q, &(struct mq_attr){.mq_flags = O_NONBLOCK}, NULL), 0);
	EQ(mq_getattr(q, &a), 0);
	EQ(a.mq_flags, O_NONBLOCK);
	EQ(a.mq_maxmsg, 2);
	FAILS(mq_receive(q, (char[8]){0}, 8, NULL), EAGAIN);
}

ROOT_CASE("13 (descriptors)", old_descriptor_and_its_namespace_s_name_are_one_queue)
{
	const char *n = qname("a");
	struct stat st, st2;
	mqd_t q = make(n, O_RDWR, 1, 8);
	int s[2];
	OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	pid_t p;
	ASYNC(p) pass_fd(s[1], OK(mq_open(n, O_RDWR)));
	EQ(unshare(CLONE_NEWIPC), 0);
	int r = accept_fd(s[0]);
	join(p);
	OK(fstat(q, &st));
	OK(fstat(r, &st2));
	EQ(st.st_ino, st2.st_ino);
	EQ(st.st_dev, st2.st_dev);
	put(q, "x", 0);
	take(r, "x", 0);
}

ROOT_CASE("13 (descriptors)", old_descriptor_polls_after_unshare)
{
	mqd_t q = make(qname("a"), O_RDWR, 1, 8);
	struct pollfd f = {.fd = q, .events = POLLIN | POLLOUT};
	EQ(unshare(CLONE_NEWIPC), 0);
	EQ(poll(&f, 1, 0), 1);
	EQ(f.revents, POLLOUT);
	put(q, "x", 0);
	EQ(poll(&f, 1, 0), 1);
	EQ(f.revents, POLLIN);
	int ep = OK(epoll_create1(0));
	struct epoll_event e = {.events = EPOLLIN};
	OK(epoll_ctl(ep, EPOLL_CTL_ADD, q, &e));
	EQ(epoll_wait(ep, &e, 1, 0), 1);
}

ROOT_CASE("13 (descriptors)", unlink_in_the_old_namespace_shows_on_the_old_descriptor)
{
	const char *n = qname("a");
	struct stat st;
	mqd_t q = make(n, O_RDWR, 1, 8);
	pid_t p;
	ASYNC(p) {
		await_mark(0);
		EQ(mq_unlink(n), 0);
	}
	EQ(unshare(CLONE_NEWIPC), 0);
	mark(0);
	join(p);
	OK(fstat(q, &st));
	EQ(st.st_nlink, 0);
	put(q, "x", 0);
	take(q, "x", 0);
}

ROOT_CASE("13 (descriptors)", sleeper_on_an_old_descriptor_is_woken)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 1, 8);
	pid_t p;
	ASYNC(p) {
		EQ(unshare(CLONE_NEWIPC), 0);
		take(q, "x", 5);
		put(q, "1", 0);
		put(q, "2", 0);
	}
	await_asleep(p);
	put(q, "x", 5);
	/* Now it sleeps in the send. */
	await_asleep(p);
	take(q, "1", 0);
	take(q, "2", 0);
	join(p);
}

ROOT_CASE("13 (descriptors)", sleeper_in_the_old_namespace_is_woken_from_the_new)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 1, 8);
	pid_t p;
	ASYNC(p) {
		EQ(mq_close(q), 0);
		mqd_t r = OK(mq_open(n, O_RDWR));
		take(r, "x", 5);
	}
	EQ(unshare(CLONE_NEWIPC), 0);
	await_asleep(p);
	put(q, "x", 5);
	join(p);
}

static mqd_t sleepers_queue;
static void *sleeps_in_receive(void *arg UNUSED)
{
	shared->value[1] = gettid();
	mark(1);
	take(sleepers_queue, "x", 5);
	return NULL;
}

ROOT_CASE("13 (descriptors)", thread_sleeps_on_while_another_unshares)
{
	pthread_t t;
	const char *n = qname("a");
	sleepers_queue = make(n, O_RDWR, 1, 8);
	unsigned long old = my_ns();
	EQ(pthread_create(&t, NULL, sleeps_in_receive, NULL), 0);
	await_mark(1);
	await_asleep(shared->value[1]);
	EQ(unshare(CLONE_NEWIPC), 0);
	missing(n);
	EQ(ns_of(shared->value[1]), old);
	put(sleepers_queue, "x", 5);
	EQ(pthread_join(t, NULL), 0);
}

ROOT_CASE("13 (descriptors)", notification_asked_for_before_unshare_comes)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 1, 8);
	siginfo_t si;
	pid_t p;
	block(SIGUSR1);
	ASYNC(p) {
		await_mark(0);
		mqd_t r = OK(mq_open(n, O_RDWR));
		FAILS(mq_notify(r, &(struct sigevent){.sigev_notify = SIGEV_NONE}), EBUSY);
		put(r, "x", 0);
	}
	EQ(mq_notify(q, &(struct sigevent){.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1}), 0);
	EQ(unshare(CLONE_NEWIPC), 0);
	mark(0);
	join(p);
	EQ(pending_signal(SIGUSR1, &si), 1);
	EQ(si.si_pid, p);
	EQ(si.si_code, SI_MESGQ);
}

ROOT_CASE("13 (descriptors)", notification_asked_for_on_an_old_descriptor_comes)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 1, 8);
	pid_t p;
	block(SIGUSR1);
	ASYNC(p) {
		await_mark(0);
		put(OK(mq_open(n, O_RDWR)), "x", 0);
	}
	EQ(unshare(CLONE_NEWIPC), 0);
	EQ(mq_notify(q, &(struct sigevent){.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1}), 0);
	FAILS(mq_notify(q, &(struct sigevent){.sigev_notify = SIGEV_NONE}), EBUSY);
	mark(0);
	join(p);
	EQ(pending_signal(SIGUSR1, NULL), 1);
	EQ(mq_notify(q, &(struct sigevent){.sigev_notify = SIGEV_NONE}), 0);
	EQ(mq_notify(q, NULL), 0);
}

ROOT_CASE("13 (descriptors)", close_of_an_old_descriptor_ends_its_notification)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 1, 8);
	pid_t p;
	ASYNC(p) {
		await_mark(0);
		mqd_t r = OK(mq_open(n, O_RDWR));
		EQ(mq_notify(r, &(struct sigevent){.sigev_notify = SIGEV_NONE}), 0);
	}
	EQ(unshare(CLONE_NEWIPC), 0);
	EQ(mq_notify(q, &(struct sigevent){.sigev_notify = SIGEV_NONE}), 0);
	EQ(mq_close(q), 0);
	mark(0);
	join(p);
}

static void where_am_i(union sigval v UNUSED)
{
	shared->value[2] = my_ns();
	mark(2);
}

ROOT_CASE("13 (descriptors)", notification_thread_is_in_the_namespace_of_the_process)
{
	EQ(unshare(CLONE_NEWIPC), 0);
	mqd_t q = make(qname("a"), O_RDWR, 1, 8);
	struct sigevent ev = {.sigev_notify = SIGEV_THREAD};
	ev.sigev_notify_function = where_am_i;
	EQ(mq_notify(q, &ev), 0);
	put(q, "x", 0);
	await_mark(2);
	EQ(shared->value[2], my_ns());
}

ROOT_CASE("13 (descriptors)", old_descriptor_works_in_children_made_after_unshare)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 2, 8);
	EQ(unshare(CLONE_NEWIPC), 0);
	CHILD {
		put(q, "fork", 1);
		missing(n);
		CHILD put(q, "again", 2);
	}
	take(q, "again", 2);
	take(q, "fork", 1);
	CHILD_BY(raw_clone(CLONE_NEWIPC)) put(q, "clone", 0);
	take(q, "clone", 0);
	pid_t p;
	ASYNC(p) take(q, "woken", 5);
	await_asleep(p);
	put(q, "woken", 5);
	join(p);
}

HELPER(uses_old)
{
	(void)argc;
	mqd_t q = atoi(argv[0]);
	missing(argv[1]);
	take(q, "x", 1);
	put(q, "exec'ed", 2);
	return 0;
}

ROOT_CASE("13 (descriptors)", old_descriptor_works_in_programs_exec_ed_after_unshare)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 2, 8);
	put(q, "x", 1);
	OK(fcntl(q, F_SETFD, 0));
	CHILD {
		EQ(unshare(CLONE_NEWIPC), 0);
		exec_helper("uses_old", number(q), n);
	}
	take(q, "exec'ed", 2);
}

ROOT_CASE("13 (descriptors)", descriptor_passed_to_another_namespace_works_there)
{
	const char *n = qname("a");
	int s[2];
	pid_t p;
	OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	block(SIGUSR1);
	ASYNC(p) {
		EQ(unshare(CLONE_NEWIPC), 0);
		mqd_t q = accept_fd(s[1]);
		missing(n);
		take(q, "x", 1);
		put(q, "back", 2);
		mark(0);
		await_mark(1);
		take(q, "slept", 3);
		EQ(mq_notify(q, &(struct sigevent){.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1}), 0);
		mark(2);
		await_mark(3);
		EQ(pending_signal(SIGUSR1, NULL), 1);
		struct pollfd f = {.fd = q, .events = POLLIN};
		EQ(poll(&f, 1, 0), 1);
	}
	mqd_t q = make(n, O_RDWR, 2, 8);
	put(q, "x", 1);
	pass_fd(s[0], q);
	await_mark(0);
	take(q, "back", 2);
	mark(1);
	await_asleep(p);
	put(q, "slept", 3);
	await_mark(2);
	put(q, "y", 0);
	mark(3);
	join(p);
}

ROOT_CASE("13 (descriptors)", descriptors_of_three_namespaces_side_by_side)
{
	const char *n = qname("a");
	mqd_t q[3];
	for (int i = 0; i < 3; i++) {
		if (i)
			EQ(unshare(CLONE_NEWIPC), 0);
		q[i] = make(n, O_RDWR, 2, 8);
		put(q[i], number(i), i);
	}
	for (int i = 0; i < 3; i++) {
		EQ(curmsgs(q[i]), 1);
		take(q[i], number(i), i);
	}
}

/* ---- Privilege --------------------------------------------------------------------------- */

ROOT_CASE("13 (privilege)", ordinary_user_may_not_make_one)
{
	something_to_keep();
	OK(fchmod(OK(mq_open(kept, O_RDWR)), 0666));
	CHILD {
		become_ordinary(user(0));
		REFUSED(unshare(CLONE_NEWIPC), EPERM);
		REFUSED(syscall(SYS_unshare, CLONE_NEWIPC), EPERM);
		REFUSED(unshare(CLONE_NEWIPC | CLONE_FS), EPERM);
		REFUSED(clone_with_stack(CLONE_NEWIPC, never, NULL), EPERM);
		REFUSED(clone_with_stack(CLONE_NEWIPC | CLONE_VM | CLONE_VFORK, never, NULL), EPERM);
		REFUSED(raw_clone(CLONE_NEWIPC), EPERM);
		REFUSED(raw_clone3(CLONE_NEWIPC), EPERM);
		EQ(unshare(0), 0);
		EQ(unshare(CLONE_FS), 0);
		EQ(my_ns(), kept_ns);
	}
}

ROOT_CASE("13 (privilege)", bad_bits_are_found_before_the_privilege)
{
	something_to_keep();
	OK(fchmod(OK(mq_open(kept, O_RDWR)), 0666));
	CHILD {
		become_ordinary(user(0));
		REFUSED(unshare(CLONE_NEWIPC | 1), EINVAL);
		REFUSED(unshare(CLONE_NEWIPC | CLONE_PARENT), EINVAL);
		REFUSED(raw_clone(CLONE_NEWIPC | CLONE_NEWNS | CLONE_FS), EINVAL);
		REFUSED(raw_clone(CLONE_NEWIPC | CLONE_SIGHAND), EINVAL);
		/* This one after it. */
		REFUSED(raw_clone(CLONE_NEWIPC | CLONE_SYSVSEM), EPERM);
	}
}

static void without_cap_sys_admin(void)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2];
	OK(syscall(SYS_capget, &h, d));
	d[0].effective &= ~(1u << CAP_SYS_ADMIN);
	OK(syscall(SYS_capset, &h, d));
}

ROOT_CASE("13 (privilege)", root_without_CAP_SYS_ADMIN_may_not_make_one)
{
	something_to_keep();
	without_cap_sys_admin();
	REFUSED(unshare(CLONE_NEWIPC), EPERM);
	REFUSED(raw_clone(CLONE_NEWIPC), EPERM);
	REFUSED(clone_with_stack(CLONE_NEWIPC, never, NULL), EPERM);
}

ROOT_CASE("13 (privilege)", user_with_CAP_SYS_ADMIN_may_make_one)
{
	unsigned long before = my_ns();
	OK(prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0));
	OK(setresgid(user(0), user(0), user(0)));
	OK(setresuid(user(0), user(0), user(0)));
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2] = {{0}, {0}};
	d[0].permitted = d[0].effective = 1u << CAP_SYS_ADMIN;
	OK(syscall(SYS_capset, &h, d));
	EQ(unshare(CLONE_NEWIPC), 0);
	TRUE(my_ns() != before);
	EQ(mq_close(make(qname("a"), O_RDWR, 1, 8)), 0);
	CHILD_BY(raw_clone(CLONE_NEWIPC)) missing(qname("a"));
}

ROOT_CASE("13 (privilege)", member_that_drops_its_user_stays)
{
	EQ(unshare(CLONE_NEWIPC), 0);
	unsigned long mine = my_ns();
	const char *n = qname("a"), *m = qname("b");
	OK(fchmod(make(n, O_RDWR, 1, 8), 0666));
	EQ(mq_close(make(m, O_RDWR, 1, 8)), 0);
	CHILD {
		become_ordinary(user(0));
		EQ(my_ns(), mine);
		present(n);
		FAILS(mq_open(m, O_RDWR), EACCES);
		FAILS(mq_unlink(n), EACCES);
		EQ(mq_close(make(qname("c"), O_RDWR, 1, 8)), 0);
		CHILD {
			EQ(my_ns(), mine);
			present(n);
		}
	}
}

ROOT_CASE("13 (privilege)", link_of_another_user_s_process_is_EACCES)
{
	pid_t p;
	char b[64];
	ASYNC(p) await_mark(0);
	CHILD {
		become_ordinary(user(0));
		FAILS(readlink(ns_path(p), b, sizeof b), EACCES);
		FAILS(open(ns_path(p), O_RDONLY), EACCES);
		EQ(leader_ns(), my_ns());
	}
	mark(0);
	join(p);
}

ROOT_CASE("13 (NEWUSER)", ordinary_user_makes_one_with_a_user_namespace)
{
	unsigned long before = my_ns();
	const char *n = qname("a");
	OK(fchmod(make(n, O_RDWR, 1, 8), 0666));
	become_ordinary(user(0));
	present(n);
	EQ(unshare(CLONE_NEWUSER | CLONE_NEWIPC), 0);
	TRUE(my_ns() != before);
	missing(n);
	limits_are_defaults();
}

ROOT_CASE("13 (NEWUSER)", ordinary_user_clones_with_a_user_namespace)
{
	parent_has_a_queue();
	become_ordinary(user(0));
	for (int i = 0; i < 2; i++) {
		CHILD_BY((i ? raw_clone3 : raw_clone)(CLONE_NEWUSER | CLONE_NEWIPC)) {
			TRUE(my_ns() != parent_ns);
			missing(parent_queue);
			map_ids(user(0), user(0));
			EQ(mq_close(make(parent_queue, O_RDWR, 1, 8)), 0);
		}
		EQ(my_ns(), parent_ns);
	}
}

ROOT_CASE("13 (NEWUSER)", ordinary_user_makes_a_user_namespace_first)
{
	unsigned long before = my_ns();
	become_ordinary(user(0));
	EQ(unshare(CLONE_NEWUSER), 0);
	EQ(my_ns(), before);
	/* No mapping is asked for by this one. */
	EQ(unshare(CLONE_NEWIPC), 0);
	TRUE(my_ns() != before);
}

ROOT_CASE("13 (NEWUSER)", unmapped_users_create_nothing)
{
	char b[64];
	const char *n = qname("a");
	uid_t u = user(0);
	become_ordinary(u);
	EQ(unshare(CLONE_NEWUSER | CLONE_NEWIPC), 0);
	FAILS(mq_open(n, O_RDWR | O_CREAT, 0600, ATTR(1, 8)), EOVERFLOW);
	missing(n);
	int len = snprintf(b, sizeof b, "0 %u 1", u);
	int fd = OK(open("/proc/self/uid_map", O_WRONLY));
	EQ(write(fd, b, len), len);
	/* The group is still without. */
	FAILS(mq_open(n, O_RDWR | O_CREAT, 0600, ATTR(1, 8)), EOVERFLOW);
	EQ(write(OK(open("/proc/self/setgroups", O_WRONLY)), "deny", 4), 4);
	fd = OK(open("/proc/self/gid_map", O_WRONLY));
	EQ(write(fd, b, len), len);
	EQ(mq_close(make(n, O_RDWR, 1, 8)), 0);
	present(n);
	EQ(mq_unlink(n), 0);
}

ROOT_CASE("13 (NEWUSER)", mapped_user_is_root_of_its_namespace)
{
	struct stat st;
	uid_t u = user(0);
	become_ordinary(u);
	EQ(unshare(CLONE_NEWUSER | CLONE_NEWIPC), 0);
	map_ids(u, u);
	EQ(geteuid(), 0);
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 1, 8);
	OK(fstat(q, &st));
	EQ(st.st_uid, 0);
	EQ(st.st_gid, 0);
	put(q, "x", 0);
	take(q, "x", 0);
	limit_set("msg_max", "20");
	limit_is("msg_max", "20");
	EQ(mq_close(make(qname("b"), O_RDWR, 20, 8)), 0);
	unsigned long mine = my_ns();
	EQ(unshare(CLONE_NEWIPC), 0);
	TRUE(my_ns() != mine);
	missing(n);
	limits_are_defaults();
	EQ(mq_close(make(n, O_RDWR, 1, 8)), 0);
}

ROOT_CASE("13 (NEWUSER)", bytes_of_a_user_count_through_user_namespaces)
{
	uid_t u = user(0);
	const char *n = qname("a");
	CHILD {
		become_ordinary(u);
		struct rlimit r = {97, 97};
		OK(setrlimit(RLIMIT_MSGQUEUE, &r));
		OK(mq_open(n, O_RDWR | O_CREAT, 0600, ATTR(1, 1)));
		EQ(unshare(CLONE_NEWUSER | CLONE_NEWIPC), 0);
		map_ids(u, u);
		FAILS(mq_open(n, O_RDWR | O_CREAT, 0600, ATTR(1, 1)), EMFILE);
	}
}

ROOT_CASE("13 (NEWUSER)", parent_s_namespace_file_is_out_of_reach)
{
	uid_t u = user(0);
	become_ordinary(u);
	int own = OK(open("/proc/self/ns/ipc", O_RDONLY));
	pid_t p;
	ASYNC(p) {
		EQ(unshare(CLONE_NEWUSER | CLONE_NEWIPC), 0);
		map_ids(u, u);
		char b[64];
		FAILS(open(ns_path(getppid()), O_RDONLY), EACCES);
		FAILS(readlink(ns_path(getppid()), b, sizeof b), EACCES);
		FAILS(setns(own, CLONE_NEWIPC), EPERM);
		unsigned long n = my_ns();
		EQ(leader_ns(), n);
	}
	join(p);
}

ROOT_CASE("13 (NEWUSER)", user_s_child_namespace_is_seen_by_the_user)
{
	uid_t u = user(0);
	become_ordinary(u);
	pid_t p;
	ASYNC(p) {
		EQ(unshare(CLONE_NEWUSER | CLONE_NEWIPC), 0);
		shared->value[0] = my_ns();
		mark(0);
		await_mark(1);
	}
	await_mark(0);
	EQ(ns_of(p), shared->value[0]);
	/* Seen, not entered: that asks for privilege where it comes from, too. */
	FAILS(setns(OK(open(ns_path(p), O_RDONLY)), CLONE_NEWIPC), EPERM);
	mark(1);
	join(p);
}

ROOT_CASE("13 (NEWUSER)", user_mounts_with_a_mount_namespace)
{
	uid_t u = user(0);
	become_ordinary(u);
	EQ(unshare(CLONE_NEWUSER | CLONE_NEWIPC | CLONE_NEWNS), 0);
	map_ids(u, u);
	EQ(mount("none", "/mnt", "tmpfs", 0, NULL), 0);
	EQ(mq_close(make(qname("a"), O_RDWR, 1, 8)), 0);
}

ROOT_CASE("13 (NEWUSER)", limits_are_closed_to_users_outside)
{
	EQ(unshare(CLONE_NEWIPC), 0);
	become_ordinary(user(0));
	FAILS(open("/proc/sys/fs/mqueue/msg_max", O_WRONLY), EACCES);
	FAILS(open("/proc/sys/fs/mqueue/msg_max", O_RDWR), EACCES);
	limit_is("msg_max", "10");
	/* A user namespace alone makes nobody master of what was there before. */
	EQ(unshare(CLONE_NEWUSER), 0);
	map_ids(user(0), user(0));
	FAILS(open("/proc/sys/fs/mqueue/msg_max", O_WRONLY), EACCES);
	EQ(unshare(CLONE_NEWIPC), 0);
	limit_set("msg_max", "11");
}

/* ---- Threads ----------------------------------------------------------------------------- */

/* Marks 10: has unshared. Ends at mark 11. value[10]: its tid, value[11]: its namespace. */
static void *unshares_and_waits(void *name)
{
	EQ(unshare(CLONE_NEWIPC), 0);
	shared->value[10] = gettid();
	shared->value[11] = my_ns();
	if (name) {
		missing(name);
		mqd_t q = make(name, O_RDWR, 1, 16);
		put(q, "thread's", 0);
		EQ(mq_close(q), 0);
	}
	mark(10);
	await_mark(11);
	EQ(my_ns(), shared->value[11]);
	if (name) {
		mqd_t q = OK(mq_open(name, O_RDWR));
		take(q, "thread's", 0);
		EQ(mq_close(q), 0);
	}
	return NULL;
}
static pthread_t unshared_thread(const char *name)
{
	pthread_t t;
	EQ(pthread_create(&t, NULL, unshares_and_waits, (void *)name), 0);
	await_mark(10);
	return t;
}
static void end_unshared_thread(pthread_t t)
{
	mark(11);
	EQ(pthread_join(t, NULL), 0);
}

ROOT_CASE("13 (threads)", unshare_in_a_thread_leaves_the_others)
{
	const char *n = qname("a");
	unsigned long mine = my_ns();
	mqd_t q = make(n, O_RDWR, 1, 16);
	pthread_t t = unshared_thread(n);
	EQ(my_ns(), mine);
	TRUE(shared->value[11] != mine);
	EQ(curmsgs(q), 0);
	present(n);
	end_unshared_thread(t);
	EQ(my_ns(), mine);
	present(n);
}

ROOT_CASE("13 (threads)", links_tell_leader_and_thread_apart)
{
	char path[96];
	unsigned long mine = my_ns();
	pthread_t t = unshared_thread(NULL);
	unsigned long its = shared->value[11];
	EQ(leader_ns(), mine);
	EQ(ns_of(getpid()), mine);
	EQ(my_ns(), mine);
	snprintf(path, sizeof path, "/proc/self/task/%ld/ns/ipc", shared->value[10]);
	EQ(ns_number(path), its);
	snprintf(path, sizeof path, "/proc/%d/task/%ld/ns/ipc", getpid(), shared->value[10]);
	EQ(ns_number(path), its);
	snprintf(path, sizeof path, "/proc/%d/task/%d/ns/ipc", getpid(), getpid());
	EQ(ns_number(path), mine);
	/* /proc/TID is the thread's, though no listing of /proc shows it. */
	EQ(ns_of(shared->value[10]), its);
	CHILD {
		EQ(ns_of(getppid()), mine);
		snprintf(path, sizeof path, "/proc/%d/task/%ld/ns/ipc", getppid(), shared->value[10]);
		EQ(ns_number(path), its);
	}
	end_unshared_thread(t);
}

static void *sees_from_inside(void *arg)
{
	unsigned long old = *(unsigned long *)arg;
	char path[96];
	EQ(unshare(CLONE_NEWIPC), 0);
	TRUE(my_ns() != old);
	/* The leader is elsewhere. */
	EQ(leader_ns(), old);
	EQ(ns_of(getpid()), old);
	EQ(ns_of(gettid()), my_ns());
	snprintf(path, sizeof path, "/proc/self/task/%d/ns/ipc", gettid());
	EQ(ns_number(path), my_ns());
	return NULL;
}

ROOT_CASE("13 (threads)", thread_sees_the_leader_s_namespace_at_proc_self)
{
	unsigned long mine = my_ns();
	in_thread(sees_from_inside, &mine);
}

ROOT_CASE("13 (threads)", unshare_of_the_leader_leaves_the_threads)
{
	const char *n = qname("a");
	make(n, O_RDWR, 1, 8);
	pthread_t t;
	unsigned long old = my_ns();
	sleepers_queue = make(qname("b"), O_RDWR, 1, 8);
	EQ(pthread_create(&t, NULL, sleeps_in_receive, NULL), 0);
	await_mark(1);
	EQ(unshare(CLONE_NEWIPC), 0);
	TRUE(leader_ns() != old);
	EQ(ns_of(shared->value[1]), old);
	missing(n);
	put(sleepers_queue, "x", 5);
	EQ(pthread_join(t, NULL), 0);
}

static void *must_be_in(void *arg)
{
	EQ(my_ns(), ((unsigned long *)arg)[0]);
	present((const char *)((void **)arg)[1]);
	return NULL;
}
static int c11_must_be_in(void *arg)
{
	must_be_in(arg);
	return 0;
}
static void *creates_children(void *arg UNUSED)
{
	EQ(unshare(CLONE_NEWIPC), 0);
	const char *n = qname("thread");
	make(n, O_RDWR, 1, 8);
	void *where[2] = {(void *)my_ns(), (void *)n};
	in_thread(must_be_in, where);
	/* Detached; C11's. */
	thrd_t c11;
	EQ(thrd_create(&c11, c11_must_be_in, where), thrd_success);
	EQ(thrd_join(c11, NULL), thrd_success);
	/* A child process is led by a copy of this thread. */
	CHILD {
		EQ((void *)leader_ns(), where[0]);
		must_be_in(where);
		in_thread(must_be_in, where);
	}
	CHILD_BY(raw_clone(0)) must_be_in(where);
	join(OK(clone_with_stack(0, c11_must_be_in, where)));
	pid_t p = vfork();
	if (p == 0)
		_exit(mq_open(n, O_RDWR) == -1);
	join(p);
	return NULL;
}

ROOT_CASE("13 (threads)", threads_and_children_inherit_from_the_creating_thread)
{
	unsigned long mine = my_ns();
	in_thread(creates_children, NULL);
	EQ(my_ns(), mine);
	CHILD EQ(leader_ns(), mine);
}

static void *must_be_elsewhere(void *arg)
{
	TRUE(my_ns() != *(unsigned long *)arg);
	TRUE(leader_ns() != *(unsigned long *)arg);
	return NULL;
}

ROOT_CASE("13 (threads)", thread_created_by_the_leader_after_unshare_is_in_the_new)
{
	unsigned long old = my_ns();
	EQ(unshare(CLONE_NEWIPC), 0);
	in_thread(must_be_elsewhere, &old);
}

/* Two threads and one name: each goes on in its own namespace. */
static void *plays_alone(void *arg)
{
	int i = (int)(intptr_t)arg;
	EQ(unshare(CLONE_NEWIPC), 0);
	for (int k = 0; k < 50; k++) {
		/* In step, so that both are in the middle. */
		mark(20);
		await_marks(20, 2 * k + 2);
		mqd_t q = make(shared->name[0], O_RDWR, 2, 8);
		put(q, number(i), i);
		EQ(curmsgs(q), 1);
		take(q, number(i), i);
		EQ(mq_unlink(shared->name[0]), 0);
		EQ(mq_close(q), 0);
	}
	return NULL;
}

ROOT_CASE("13 (threads)", two_threads_use_one_name_in_two_namespaces)
{
	pthread_t t[2];
	qname("a");
	for (intptr_t i = 0; i < 2; i++)
		EQ(pthread_create(&t[i], NULL, plays_alone, (void *)i), 0);
	for (int i = 0; i < 2; i++)
		EQ(pthread_join(t[i], NULL), 0);
}

static void *opens_there(void *name)
{
	EQ(unshare(CLONE_NEWIPC), 0);
	mqd_t q = make(name, O_RDWR, 2, 8);
	put(q, "there", 1);
	return (void *)(intptr_t)q;
}

ROOT_CASE("13 (threads)", descriptors_opened_by_a_thread_elsewhere_are_everybody_s)
{
	const char *n = qname("a");
	pthread_t t;
	void *q;
	EQ(pthread_create(&t, NULL, opens_there, (void *)n), 0);
	EQ(pthread_join(t, &q), 0);
	/* Its namespace ended with it; the queue goes on. */
	take((intptr_t)q, "there", 1);
	put((intptr_t)q, "here", 1);
	take((intptr_t)q, "here", 1);
	missing(n);
}

static void *limits_elsewhere(void *arg UNUSED)
{
	EQ(unshare(CLONE_NEWIPC), 0);
	limits_are_defaults();
	limit_set("msg_max", "44");
	mark(0);
	await_mark(1);
	limit_is("msg_max", "44");
	EQ(mq_close(make(qname("t"), O_RDWR, 44, 8)), 0);
	return NULL;
}

ROOT_CASE("13 (threads)", limits_are_the_thread_s_namespace_s)
{
	pthread_t t;
	EQ(unshare(CLONE_NEWIPC), 0);
	limit_set("msg_max", "33");
	EQ(pthread_create(&t, NULL, limits_elsewhere, NULL), 0);
	await_mark(0);
	limit_is("msg_max", "33");
	FAILS(mq_open(qname("a"), O_RDWR | O_CREAT, 0600, ATTR(44, 8)), EINVAL);
	mark(1);
	EQ(pthread_join(t, NULL), 0);
	limit_is("msg_max", "33");
}

static void *keeps_its_own(void *arg UNUSED)
{
	unsigned long mine;
	EQ(unshare(CLONE_NEWIPC), 0);
	mine = my_ns();
	mark(30);
	await_marks(30, 8);
	EQ(my_ns(), mine);
	mark(31);
	await_marks(31, 8);
	return (void *)mine;
}

ROOT_CASE("13 (threads)", eight_threads_have_eight_namespaces)
{
	pthread_t t[8];
	void *ns[8];
	for (int i = 0; i < 8; i++)
		EQ(pthread_create(&t[i], NULL, keeps_its_own, NULL), 0);
	for (int i = 0; i < 8; i++)
		EQ(pthread_join(t[i], &ns[i]), 0);
	for (int i = 0; i < 8; i++)
		for (int j = 0; j < i; j++)
			TRUE(ns[i] != ns[j]);
}

static void *fork_in_thread(void *name)
{
	EQ(unshare(CLONE_NEWIPC), 0);
	mqd_t q = make(name, O_RDWR, 1, 8);
	put(q, "x", 0);
	CHILD {
		/* The other threads are not in the child, nor is their namespace. */
		EQ(leader_ns(), my_ns());
		EQ(ns_of(getpid()), my_ns());
		mqd_t r = OK(mq_open(name, O_RDWR));
		take(r, "x", 0);
	}
	return NULL;
}

ROOT_CASE("13 (threads)", child_of_a_thread_elsewhere_is_led_from_there)
{
	const char *n = qname("a");
	pthread_t t = unshared_thread(n);
	in_thread(fork_in_thread, (void *)n);
	end_unshared_thread(t);
	missing(n);
}

static void *open_below_self(void *arg)
{
	/* The directory /proc/self was entered as the leader's; the thread's is another. */
	EQ(unshare(CLONE_NEWIPC), 0);
	int self = OK(open("/proc/self/ns", O_RDONLY | O_DIRECTORY));
	int thread = OK(open("/proc/thread-self/ns", O_RDONLY | O_DIRECTORY));
	char a[64] = "", b[64] = "";
	OK(readlinkat(self, "ipc", a, 63));
	OK(readlinkat(thread, "ipc", b, 63));
	TRUE(strcmp(a, b));
	unsigned long n;
	EQ(sscanf(a, "ipc:[%lu]", &n), 1);
	EQ(n, *(unsigned long *)arg);
	EQ(sscanf(b, "ipc:[%lu]", &n), 1);
	EQ(n, my_ns());
	return NULL;
}

ROOT_CASE("13 (threads)", directories_of_leader_and_thread_show_each_its_own)
{
	unsigned long mine = my_ns();
	in_thread(open_below_self, &mine);
}
