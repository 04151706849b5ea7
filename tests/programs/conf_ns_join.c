/* Contract sections 13 (files of a namespace) and 14: setns. */
#include "conf.h"
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <linux/nsfs.h>

#define NSFS 0x6e736673

/* ---- Places ------------------------------------------------------------------------------ */

/*
 * A queue named `mark_name` tells one namespace from another: it holds the word of the one it is in.
 */
static const char *mark_name;

static void signpost(const char *text)
{
	mqd_t q = make(mark_name, O_RDWR, 2, 16);
	put(q, text, 0);
	EQ(mq_close(q), 0);
}
/* The caller is where `text` stands. */
#define at(text)                                                                                 \
	do {                                                                                     \
		mqd_t at_q = OK(mq_open(mark_name, O_RDWR));                                     \
		take(at_q, text, 0);                                                             \
		put(at_q, text, 0);                                                              \
		EQ(mq_close(at_q), 0);                                                           \
	} while (0)

/*
 * The usual scene: the case is in a namespace "home" of number `home`; a child of it holds one
 * called "there" until it is told to leave.
 */
static unsigned long home;
static pid_t there;

static pid_t somewhere(const char *text, int i)
{
	pid_t p;
	ASYNC(p) {
		EQ(unshare(CLONE_NEWIPC), 0);
		signpost(text);
		shared->value[40 + i] = my_ns();
		mark(40 + i);
		await_mark(50);
	}
	await_mark(40 + i);
	return p;
}
static void scene(void)
{
	mark_name = qname("mark");
	home = my_ns();
	signpost("home");
	there = somewhere("there", 0);
}
static void end_of(pid_t p)
{
	mark(50);
	join(p);
}
static int ns_fd(pid_t pid)
{
	return OK(open(ns_path(pid), O_RDONLY | O_CLOEXEC));
}
static int pidfd_of(pid_t pid)
{
	return OK(syscall(434 /* pidfd_open */, pid, 0));
}
#define there_ns ((unsigned long)shared->value[40])

/* ---- setns by descriptor ----------------------------------------------------------------- */

ROOT_CASE("14", setns_joins_a_child_s_namespace)
{
	scene();
	EQ(setns(ns_fd(there), CLONE_NEWIPC), 0);
	at("there");
	EQ(my_ns(), there_ns);
	EQ(leader_ns(), there_ns);
	end_of(there);
}

ROOT_CASE("14", setns_of_type_0_joins)
{
	scene();
	EQ(setns(ns_fd(there), 0), 0);
	at("there");
	EQ(my_ns(), there_ns);
	end_of(there);
}

ROOT_CASE("14", setns_by_syscall_joins)
{
	scene();
	EQ(syscall(SYS_setns, ns_fd(there), CLONE_NEWIPC), 0);
	at("there");
	end_of(there);
}

ROOT_CASE("14", setns_joins_the_parent_s_namespace)
{
	scene();
	CHILD {
		EQ(unshare(CLONE_NEWIPC), 0);
		missing(mark_name);
		EQ(setns(ns_fd(getppid()), CLONE_NEWIPC), 0);
		at("home");
		EQ(my_ns(), home);
	}
	end_of(there);
}

ROOT_CASE("14", setns_joins_a_sibling_s_namespace)
{
	scene();
	CHILD {
		EQ(unshare(CLONE_NEWIPC), 0);
		EQ(setns(ns_fd(there), CLONE_NEWIPC), 0);
		at("there");
		EQ(ns_of(getpid()), there_ns);
	}
	at("home");
	end_of(there);
}

ROOT_CASE("14", setns_to_the_own_namespace_changes_nothing)
{
	scene();
	EQ(setns(ns_fd(getpid()), CLONE_NEWIPC), 0);
	EQ(setns(ns_fd(getpid()), 0), 0);
	at("home");
	EQ(my_ns(), home);
	EQ(unshare(CLONE_NEWIPC), 0);
	unsigned long n = my_ns();
	signpost("new");
	for (int i = 0; i < 5; i++) {
		EQ(setns(ns_fd(getpid()), CLONE_NEWIPC), 0);
		EQ(my_ns(), n);
		at("new");
	}
	end_of(there);
}

ROOT_CASE("14", setns_goes_back_by_a_descriptor_opened_before_unshare)
{
	scene();
	int back = ns_fd(getpid());
	for (int i = 0; i < 3; i++) {
		EQ(unshare(CLONE_NEWIPC), 0);
		missing(mark_name);
		EQ(setns(back, i % 2 ? 0 : CLONE_NEWIPC), 0);
		at("home");
		EQ(my_ns(), home);
	}
	end_of(there);
}

ROOT_CASE("14", setns_goes_to_and_fro)
{
	scene();
	int fd[2] = {ns_fd(getpid()), ns_fd(there)};
	for (int i = 1; i < 50; i++) {
		EQ(setns(fd[i & 1], CLONE_NEWIPC), 0);
		if (i & 1)
			at("there");
		else
			at("home");
	}
	end_of(there);
}

ROOT_CASE("14", setns_shows_in_the_caller_s_link_to_others)
{
	scene();
	pid_t p;
	ASYNC(p) {
		EQ(setns(ns_fd(there), CLONE_NEWIPC), 0);
		mark(0);
		await_mark(1);
	}
	await_mark(0);
	EQ(ns_of(p), there_ns);
	mark(1);
	join(p);
	end_of(there);
}

ROOT_CASE("14", joined_namespace_is_inherited)
{
	scene();
	EQ(setns(ns_fd(there), CLONE_NEWIPC), 0);
	CHILD {
		EQ(leader_ns(), there_ns);
		at("there");
		CHILD at("there");
	}
	end_of(there);
	/* Its maker has left, this process is still in it. */
	at("there");
}

HELPER(must_be_at)
{
	(void)argc;
	mark_name = argv[0];
	EQ(leader_ns(), strtoul(argv[1], NULL, 10));
	at("there");
	return 0;
}

ROOT_CASE("14", joined_namespace_is_exec_ed_into)
{
	scene();
	CHILD {
		EQ(setns(ns_fd(there), CLONE_NEWIPC), 0);
		exec_helper("must_be_at", mark_name, number(there_ns));
	}
	end_of(there);
}

ROOT_CASE("14", queues_made_after_setns_are_the_other_members_queues)
{
	mark_name = qname("mark");
	const char *n = qname("a");
	pid_t p;
	ASYNC(p) {
		EQ(unshare(CLONE_NEWIPC), 0);
		mark(0);
		await_mark(1);
		mqd_t q = OK(mq_open(n, O_RDWR));
		take(q, "hello", 1);
		EQ(mq_unlink(n), 0);
	}
	await_mark(0);
	CHILD {
		EQ(setns(ns_fd(p), CLONE_NEWIPC), 0);
		mqd_t q = make(n, O_RDWR, 1, 8);
		put(q, "hello", 1);
		mark(1);
		AWAIT(mq_open(n, O_RDWR) == -1 && errno == ENOENT);
	}
	missing(n);
	join(p);
}

static void *joins_there(void *fd)
{
	EQ(setns((int)(intptr_t)fd, CLONE_NEWIPC), 0);
	at("there");
	EQ(my_ns(), there_ns);
	EQ(leader_ns(), home);
	CHILD {
		EQ(leader_ns(), there_ns);
		at("there");
	}
	return NULL;
}

ROOT_CASE("14", setns_moves_the_calling_thread_only)
{
	scene();
	in_thread(joins_there, (void *)(intptr_t)ns_fd(there));
	at("home");
	EQ(my_ns(), home);
	end_of(there);
}

ROOT_CASE("14", old_descriptors_work_after_setns)
{
	scene();
	mqd_t q = OK(mq_open(mark_name, O_RDWR));
	EQ(setns(ns_fd(there), CLONE_NEWIPC), 0);
	at("there");
	take(q, "home", 0);
	put(q, "home", 0);
	struct pollfd f = {.fd = q, .events = POLLIN};
	EQ(poll(&f, 1, 0), 1);
	EQ(f.revents, POLLIN);
	pid_t p;
	mqd_t e = make(qname("b"), O_RDWR, 1, 8);
	ASYNC(p) {
		EQ(unshare(CLONE_NEWIPC), 0);
		take(e, "x", 0);
	}
	await_asleep(p);
	put(e, "x", 0);
	join(p);
	end_of(there);
}

ROOT_CASE("14", limits_are_those_of_the_joined_namespace)
{
	int fd, back;
	char b[8];
	EQ(unshare(CLONE_NEWIPC), 0);
	scene();
	fd = OK(open("/proc/sys/fs/mqueue/msg_max", O_WRONLY));
	EQ(write(fd, "20", 2), 2);
	back = ns_fd(getpid());
	EQ(setns(ns_fd(there), CLONE_NEWIPC), 0);
	EQ(read(OK(open("/proc/sys/fs/mqueue/msg_max", O_RDONLY)), b, 8), 3);
	SAME(b, "10\n", 3);
	EQ(setns(back, 0), 0);
	EQ(read(OK(open("/proc/sys/fs/mqueue/msg_max", O_RDONLY)), b, 8), 3);
	SAME(b, "20\n", 3);
	end_of(there);
}

/* ---- Which descriptors ------------------------------------------------------------------- */

#define STAYS(call, err)                                                                         \
	do {                                                                                     \
		FAILS(call, err);                                                                \
		EQ(my_ns(), home);                                                               \
		at("home");                                                                      \
	} while (0)

ROOT_CASE("14", another_type_or_more_than_one_is_EINVAL)
{
	scene();
	int fd = ns_fd(there);
	STAYS(setns(fd, CLONE_NEWUTS), EINVAL);
	STAYS(setns(fd, CLONE_NEWNET), EINVAL);
	STAYS(setns(fd, CLONE_NEWUSER), EINVAL);
	STAYS(setns(fd, CLONE_NEWIPC | CLONE_NEWUTS), EINVAL);
	STAYS(setns(fd, CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWNS), EINVAL);
	STAYS(setns(fd, CLONE_NEWIPC | 1), EINVAL);
	STAYS(setns(fd, CLONE_NEWIPC | CLONE_FS), EINVAL);
	STAYS(setns(fd, 1), EINVAL);
	STAYS(setns(fd, -1), EINVAL);
	end_of(there);
}

ROOT_CASE("14", namespace_of_another_kind_leaves_this_one)
{
	scene();
	int uts = OK(open("/proc/self/ns/uts", O_RDONLY)), net = OK(open("/proc/self/ns/net", O_RDONLY));
	EQ(setns(uts, 0), 0);
	EQ(setns(uts, CLONE_NEWUTS), 0);
	EQ(setns(net, CLONE_NEWNET), 0);
	EQ(my_ns(), home);
	at("home");
	STAYS(setns(uts, CLONE_NEWIPC), EINVAL);
	STAYS(setns(net, CLONE_NEWIPC), EINVAL);
	STAYS(setns(uts, CLONE_NEWUTS | CLONE_NEWIPC), EINVAL);
	EQ(unshare(CLONE_NEWIPC), 0);
	unsigned long n = my_ns();
	EQ(setns(uts, 0), 0);
	EQ(my_ns(), n);
	end_of(there);
}

ROOT_CASE("14", closed_and_impossible_descriptors_are_EBADF)
{
	scene();
	int fd = ns_fd(there);
	STAYS(setns(-1, CLONE_NEWIPC), EBADF);
	STAYS(setns(-1, 0), EBADF);
	STAYS(setns(9999, CLONE_NEWIPC), EBADF);
	STAYS(setns(-1, 12345), EBADF);
	close(fd);
	STAYS(setns(fd, CLONE_NEWIPC), EBADF);
	end_of(there);
}

ROOT_CASE("14", O_PATH_descriptor_is_EBADF)
{
	scene();
	STAYS(setns(OK(open(ns_path(there), O_PATH)), CLONE_NEWIPC), EBADF);
	STAYS(setns(OK(open(ns_path(there), O_PATH)), 0), EBADF);
	STAYS(setns(OK(open(ns_path(there), O_PATH | O_NOFOLLOW)), CLONE_NEWIPC), EBADF);
	end_of(there);
}

ROOT_CASE("14", other_files_are_EINVAL)
{
	scene();
	int p[2];
	OK(pipe(p));
	static const int types[] = {CLONE_NEWIPC, 0};
	for (int i = 0; i < 2; i++) {
		STAYS(setns(OK(open("/proc/self/exe", O_RDONLY)), types[i]), EINVAL);
		STAYS(setns(OK(open("/dev/null", O_RDONLY)), types[i]), EINVAL);
		STAYS(setns(OK(open("/proc/self/ns", O_RDONLY | O_DIRECTORY)), types[i]), EINVAL);
		STAYS(setns(OK(open("/proc/self", O_RDONLY | O_DIRECTORY)), types[i]), EINVAL);
		STAYS(setns(p[0], types[i]), EINVAL);
	}
	end_of(there);
}

ROOT_CASE("14", queue_descriptor_is_EINVAL)
{
	scene();
	mqd_t q = OK(mq_open(mark_name, O_RDWR));
	STAYS(setns(q, CLONE_NEWIPC), EINVAL);
	STAYS(setns(q, 0), EINVAL);
	STAYS(setns(OK(dup(q)), CLONE_NEWIPC), EINVAL);
	end_of(there);
}

ROOT_CASE("14", copies_of_a_descriptor_join)
{
	scene();
	int fd = ns_fd(there), d = OK(dup(fd)), back = ns_fd(getpid());
	EQ(dup2(fd, 77), 77);
	int e = OK(fcntl(fd, F_DUPFD_CLOEXEC, 100));
	close(fd);
	const int copy[] = {d, 77, e};
	for (int i = 0; i < 3; i++) {
		EQ(setns(copy[i], CLONE_NEWIPC), 0);
		at("there");
		EQ(setns(back, CLONE_NEWIPC), 0);
		at("home");
	}
	/* What is put over it is what counts. */
	EQ(dup2(back, 77), 77);
	EQ(setns(77, CLONE_NEWIPC), 0);
	at("home");
	OK(dup2(OK(open("/dev/null", O_RDONLY)), 77));
	STAYS(setns(77, CLONE_NEWIPC), EINVAL);
	end_of(there);
}

/* ---- pidfds ------------------------------------------------------------------------------ */

ROOT_CASE("14 (pidfd)", setns_by_pidfd_joins)
{
	scene();
	EQ(setns(pidfd_of(there), CLONE_NEWIPC), 0);
	at("there");
	EQ(my_ns(), there_ns);
	end_of(there);
}

ROOT_CASE("14 (pidfd)", setns_by_pidfd_with_another_type_as_well)
{
	scene();
	EQ(setns(pidfd_of(there), CLONE_NEWIPC | CLONE_NEWUTS), 0);
	at("there");
	end_of(there);
}

ROOT_CASE("14 (pidfd)", setns_by_pidfd_of_another_type_leaves_this_namespace)
{
	scene();
	EQ(setns(pidfd_of(there), CLONE_NEWUTS), 0);
	at("home");
	EQ(my_ns(), home);
	end_of(there);
}

ROOT_CASE("14 (pidfd)", setns_by_own_pidfd_changes_nothing)
{
	scene();
	EQ(setns(pidfd_of(getpid()), CLONE_NEWIPC), 0);
	at("home");
	EQ(unshare(CLONE_NEWIPC), 0);
	unsigned long n = my_ns();
	EQ(setns(pidfd_of(getpid()), CLONE_NEWIPC), 0);
	EQ(my_ns(), n);
	end_of(there);
}

ROOT_CASE("14 (pidfd)", no_type_bad_types_and_the_own_user_namespace_are_EINVAL)
{
	scene();
	int fd = pidfd_of(there);
	STAYS(setns(fd, 0), EINVAL);
	STAYS(setns(fd, 1), EINVAL);
	STAYS(setns(fd, CLONE_NEWIPC | 1), EINVAL);
	STAYS(setns(fd, CLONE_NEWIPC | CLONE_FS), EINVAL);
	STAYS(setns(fd, CLONE_NEWIPC | CLONE_SYSVSEM), EINVAL);
	STAYS(setns(fd, CLONE_NEWUSER), EINVAL);
	STAYS(setns(fd, CLONE_NEWIPC | CLONE_NEWUSER), EINVAL);
	end_of(there);
}

ROOT_CASE("14 (pidfd)", pidfd_of_a_reaped_process_is_ESRCH)
{
	scene();
	int fd = pidfd_of(there);
	end_of(there);
	STAYS(setns(fd, CLONE_NEWIPC), ESRCH);
	STAYS(setns(fd, CLONE_NEWIPC | CLONE_NEWUTS), ESRCH);
	STAYS(setns(fd, 0), EINVAL);
}

ROOT_CASE("14 (pidfd)", pidfd_of_a_zombie_is_ESRCH)
{
	scene();
	int fd = pidfd_of(there);
	siginfo_t si;
	mark(50);
	OK(waitid(P_PID, there, &si, WEXITED | WNOWAIT));
	STAYS(setns(fd, CLONE_NEWIPC), ESRCH);
	join(there);
}

static void *goes_there_and_waits(void *arg UNUSED)
{
	EQ(unshare(CLONE_NEWIPC), 0);
	signpost("thread");
	shared->value[0] = gettid();
	shared->value[1] = my_ns();
	mark(0);
	await_mark(1);
	return NULL;
}

ROOT_CASE("14 (pidfd)", pidfd_leads_to_the_leader_s_namespace)
{
	scene();
	pid_t p;
	pthread_t t;
	ASYNC(p) {
		EQ(setns(ns_fd(there), CLONE_NEWIPC), 0);
		EQ(pthread_create(&t, NULL, goes_there_and_waits, NULL), 0);
		EQ(pthread_join(t, NULL), 0);
	}
	await_mark(0);
	EQ(setns(pidfd_of(p), CLONE_NEWIPC), 0);
	at("there");
	mark(1);
	join(p);
	end_of(there);
}

ROOT_CASE("14 (pidfd)", setns_refused_for_another_type_fails_as_a_whole)
{
	scene();
	pid_t p;
	pthread_t t;
	ASYNC(p) {
		EQ(unshare(CLONE_NEWUSER | CLONE_NEWIPC), 0);
		mark(2);
		await_mark(3);
	}
	await_mark(2);
	int fd = pidfd_of(p);
	/* No thread of several enters another user namespace. */
	EQ(pthread_create(&t, NULL, goes_there_and_waits, NULL), 0);
	await_mark(0);
	STAYS(setns(fd, CLONE_NEWIPC | CLONE_NEWUSER), EINVAL);
	mark(1);
	EQ(pthread_join(t, NULL), 0);
	EQ(setns(fd, CLONE_NEWIPC), 0);
	mark(3);
	join(p);
	end_of(there);
}

/* ---- Paths ------------------------------------------------------------------------------- */

ROOT_CASE("14", thread_s_namespace_is_joined_by_its_task_directory)
{
	char path[96];
	pthread_t t;
	scene();
	EQ(pthread_create(&t, NULL, goes_there_and_waits, NULL), 0);
	await_mark(0);
	snprintf(path, sizeof path, "/proc/self/task/%ld/ns/ipc", shared->value[0]);
	CHILD {
		snprintf(path, sizeof path, "/proc/%d/task/%ld/ns/ipc", getppid(), shared->value[0]);
		EQ(setns(OK(open(path, O_RDONLY)), CLONE_NEWIPC), 0);
		at("thread");
		EQ(my_ns(), shared->value[1]);
	}
	int fd = OK(open(path, O_RDONLY)), leader = OK(open("/proc/self/ns/ipc", O_RDONLY));
	EQ(setns(fd, CLONE_NEWIPC), 0);
	at("thread");
	EQ(setns(leader, CLONE_NEWIPC), 0);
	at("home");
	mark(1);
	EQ(pthread_join(t, NULL), 0);
	end_of(there);
}

static void *keeps_a_way_back(void *arg UNUSED)
{
	int leader = OK(open("/proc/self/ns/ipc", O_RDONLY));
	EQ(unshare(CLONE_NEWIPC), 0);
	signpost("thread");
	int mine = OK(open("/proc/thread-self/ns/ipc", O_RDONLY));
	EQ(setns(leader, CLONE_NEWIPC), 0);
	at("home");
	EQ(setns(mine, CLONE_NEWIPC), 0);
	at("thread");
	/* /proc/self is the leader's, also when a thread that is elsewhere opens it. */
	EQ(setns(OK(open("/proc/self/ns/ipc", O_RDONLY)), CLONE_NEWIPC), 0);
	at("home");
	return NULL;
}

ROOT_CASE("14", thread_self_and_self_lead_to_thread_and_leader)
{
	scene();
	in_thread(keeps_a_way_back, NULL);
	end_of(there);
}

/* Every way to spell the path leads to the same place. */
ROOT_CASE("14", relative_and_roundabout_paths_join)
{
	char path[96];
	scene();
	int back = ns_fd(getpid()), fd[12], n = 0;
	snprintf(path, sizeof path, "/proc/%d", there);
	int dir = OK(open(path, O_RDONLY | O_DIRECTORY)), proc = OK(open("/proc", O_PATH | O_DIRECTORY));
	fd[n++] = OK(openat(dir, "ns/ipc", O_RDONLY));
	fd[n++] = OK(openat(dir, "./ns/../ns//ipc", O_RDONLY));
	fd[n++] = OK(openat(OK(openat(dir, "ns", O_PATH | O_DIRECTORY)), "ipc", O_RDONLY));
	snprintf(path, sizeof path, "%d/ns/ipc", there);
	fd[n++] = OK(openat(proc, path, O_RDONLY));
	snprintf(path, sizeof path, "%d/task/%d/ns/ipc", there, there);
	fd[n++] = OK(openat(proc, path, O_RDONLY));
	snprintf(path, sizeof path, "/proc/self/../%d/ns/ipc", there);
	fd[n++] = OK(open(path, O_RDONLY));
	snprintf(path, sizeof path, "//proc///%d/./ns/ipc", there);
	fd[n++] = OK(open(path, O_RDONLY));
	OK(chdir("/proc"));
	snprintf(path, sizeof path, "%d/ns/ipc", there);
	fd[n++] = OK(open(path, O_RDONLY));
	OK(fchdir(dir));
	fd[n++] = OK(open("ns/ipc", O_RDONLY));
	OK(chdir("ns"));
	fd[n++] = OK(open("ipc", O_RDONLY));
	OK(chdir("/"));
	snprintf(path, sizeof path, "proc/%d/ns/ipc", there);
	fd[n++] = OK(open(path, O_RDONLY));
	for (int i = 0; i < n; i++) {
		if (setns(fd[i], CLONE_NEWIPC))
			FAIL("descriptor %d: setns: %s", i, errno_name(errno));
		at("there");
		EQ(setns(back, CLONE_NEWIPC), 0);
	}
	end_of(there);
}

ROOT_CASE("14", own_path_after_chdir_follows_the_caller)
{
	scene();
	OK(chdir("/proc/self/ns"));
	EQ(ns_number("ipc"), home);
	int back = OK(open("ipc", O_RDONLY));
	EQ(unshare(CLONE_NEWIPC), 0);
	TRUE(ns_number("ipc") != home);
	EQ(ns_number("ipc"), my_ns());
	EQ(setns(back, 0), 0);
	EQ(ns_number("ipc"), home);
	at("home");
	end_of(there);
}

ROOT_CASE("14", descriptor_s_own_link_names_the_namespace_and_opens_it)
{
	char path[64];
	scene();
	int fd = ns_fd(there), back = ns_fd(getpid());
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	EQ(ns_number(path), there_ns);
	EQ(setns(OK(open(path, O_RDONLY)), CLONE_NEWIPC), 0);
	at("there");
	EQ(setns(back, 0), 0);
	/* An O_PATH descriptor becomes good that way. */
	fd = OK(open(ns_path(there), O_PATH));
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	EQ(ns_number(path), there_ns);
	EQ(setns(OK(open(path, O_RDONLY)), CLONE_NEWIPC), 0);
	at("there");
	end_of(there);
}

ROOT_CASE("14", open_flags_of_a_namespace_file)
{
	const char *self = "/proc/self/ns/ipc";
	for (int i = 0; i < 2; i++) {
		EQ(fcntl(OK(open(self, O_RDONLY)), F_GETFD), 0);
		EQ(fcntl(OK(open(self, O_RDONLY | O_CLOEXEC)), F_GETFD), FD_CLOEXEC);
		EQ(fcntl(OK(open(self, O_RDONLY)), F_GETFL) & (O_ACCMODE | O_NONBLOCK | O_PATH), O_RDONLY);
		FAILS(open(self, O_RDONLY | O_NOFOLLOW), ELOOP);
		FAILS(open(self, O_RDONLY | O_DIRECTORY), ENOTDIR);
		FAILS(open(self, O_RDONLY | O_CREAT | O_EXCL, 0600), EEXIST);
		FAILS(open("/proc/self/ns/ipc/", O_RDONLY), ENOTDIR);
		FAILS(open("/proc/self/ns/ipc/x", O_RDONLY), ENOTDIR);
		EQ(setns(OK(open(self, O_RDONLY | O_NONBLOCK)), 0), 0);
		EQ(setns(OK(open64(self, O_RDONLY)), 0), 0);
		EQ(setns(OK(openat64(AT_FDCWD, self, O_RDONLY)), 0), 0);
		EQ(setns(OK(syscall(SYS_openat, AT_FDCWD, self, O_RDONLY)), 0), 0);
		EQ(unshare(CLONE_NEWIPC), 0);
	}
}

ROOT_CASE("14", stdio_opens_a_namespace_file)
{
	scene();
	FILE *f = fopen(ns_path(there), "re");
	TRUE(f);
	EQ(setns(fileno(f), CLONE_NEWIPC), 0);
	at("there");
	EQ(fgetc(f), EOF);
	EQ(fclose(f), 0);
	end_of(there);
}

ROOT_CASE("14", namespace_file_is_not_read_or_written)
{
	char b[8];
	int fd = OK(open("/proc/self/ns/ipc", O_RDONLY));
	FAILS(read(fd, b, sizeof b), EINVAL);
	FAILS(write(fd, b, 1), EBADF);
	FAILS(mq_send(fd, b, 1, 0), EBADF);
	FAILS(mq_receive(fd, b, sizeof b, NULL), EBADF);
	EQ(unshare(CLONE_NEWIPC), 0);
	fd = OK(open("/proc/self/ns/ipc", O_RDONLY));
	FAILS(read(fd, b, sizeof b), EINVAL);
	FAILS(write(fd, b, 1), EBADF);
	FAILS(mq_send(fd, b, 1, 0), EBADF);
	FAILS(mq_receive(fd, b, sizeof b, NULL), EBADF);
}

ROOT_CASE("14", process_that_has_ended_has_no_namespace_file)
{
	char b[64];
	scene();
	siginfo_t si;
	mark(50);
	OK(waitid(P_PID, there, &si, WEXITED | WNOWAIT));
	FAILS(open(ns_path(there), O_RDONLY), ENOENT);
	FAILS(readlink(ns_path(there), b, sizeof b), ENOENT);
	join(there);
	FAILS(open(ns_path(there), O_RDONLY), ENOENT);
	FAILS(readlink(ns_path(there), b, sizeof b), ENOENT);
}

/* ---- The file ---------------------------------------------------------------------------- */

ROOT_CASE("13 (file)", readlink_cuts_to_the_buffer)
{
	char b[64];
	for (int i = 0; i < 2; i++) {
		char want[64];
		memset(b, 'z', sizeof b);
		int len = snprintf(want, sizeof want, "ipc:[%lu]", my_ns());
		EQ(readlink("/proc/self/ns/ipc", b, sizeof b), len);
		SAME(b, want, len);
		EQ(b[len], 'z');
		memset(b, 'z', sizeof b);
		EQ(readlink("/proc/self/ns/ipc", b, 5), 5);
		SAME(b, want, 5);
		EQ(b[5], 'z');
		FAILS(readlink("/proc/self/ns/ipc", b, 0), EINVAL);
		FAILS(readlink("/proc/self/ns/ipc", nowhere(), 64), EFAULT);
		EQ(readlinkat(AT_FDCWD, "/proc/self/ns/ipc", b, sizeof b), len);
		EQ(readlinkat(OK(open("/proc/self/ns", O_PATH)), "ipc", b, sizeof b), len);
		EQ(readlinkat(OK(open("/proc/self/ns/ipc", O_PATH | O_NOFOLLOW)), "", b, sizeof b), len);
		SAME(b, want, len);
		EQ(syscall(SYS_readlinkat, AT_FDCWD, "/proc/self/ns/ipc", b, sizeof b), len);
		SAME(b, want, len);
		EQ(unshare(CLONE_NEWIPC), 0);
	}
}

/* A regular file 0444 of root on the file system of namespaces, its inode number in the link. */
static void is_ns_file(const struct stat *st, unsigned long number)
{
	EQ(st->st_mode, S_IFREG | 0444);
	EQ(st->st_ino, number);
	EQ(st->st_nlink, 1);
	EQ(st->st_uid, 0);
	EQ(st->st_gid, 0);
	EQ(st->st_size, 0);
}

ROOT_CASE("13 (file)", stat_shows_a_regular_file_with_the_link_s_number)
{
	scene();
	struct stat own, other, st;
	struct stat64 st64;
	OK(stat("/proc/self/ns/ipc", &own));
	is_ns_file(&own, home);
	OK(stat(ns_path(there), &other));
	is_ns_file(&other, there_ns);
	EQ(own.st_dev, other.st_dev);
	OK(stat64(ns_path(there), &st64));
	EQ(st64.st_ino, there_ns);
	OK(fstat(ns_fd(there), &st));
	is_ns_file(&st, there_ns);
	EQ(st.st_dev, own.st_dev);
	OK(fstat(ns_fd(getpid()), &st));
	is_ns_file(&st, home);
	EQ(st.st_dev, own.st_dev);
	OK(fstat(OK(open(ns_path(there), O_PATH)), &st));
	is_ns_file(&st, there_ns);
	EQ(st.st_dev, own.st_dev);
	/* On the device of the other kinds, too. */
	OK(stat("/proc/self/ns/uts", &st));
	EQ(st.st_dev, own.st_dev);
	end_of(there);
}

ROOT_CASE("13 (file)", fstatat_and_statx_show_the_same)
{
	scene();
	struct stat st, dev;
	struct statx x;
	OK(stat("/proc/self/ns/ipc", &dev));
	OK(fstatat(AT_FDCWD, ns_path(there), &st, 0));
	is_ns_file(&st, there_ns);
	int dir = OK(open("/proc", O_PATH | O_DIRECTORY));
	OK(fstatat(dir, ns_path(there) + 6, &st, 0));
	is_ns_file(&st, there_ns);
	EQ(st.st_dev, dev.st_dev);
	int fd = ns_fd(there);
	OK(fstatat(fd, "", &st, AT_EMPTY_PATH));
	is_ns_file(&st, there_ns);
	EQ(st.st_dev, dev.st_dev);
	for (int i = 0; i < 3; i++) {
		memset(&x, 0, sizeof x);
		if (i == 0)
			OK(statx(AT_FDCWD, ns_path(there), 0, STATX_BASIC_STATS, &x));
		else if (i == 1)
			OK(statx(dir, ns_path(there) + 6, 0, STATX_BASIC_STATS, &x));
		else
			OK(statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &x));
		EQ(x.stx_mode, S_IFREG | 0444);
		EQ(x.stx_ino, there_ns);
		EQ(makedev(x.stx_dev_major, x.stx_dev_minor), dev.st_dev);
	}
	end_of(there);
}

ROOT_CASE("13 (file)", lstat_shows_a_link)
{
	struct stat st, st2;
	for (int i = 0; i < 2; i++) {
		OK(lstat("/proc/self/ns/ipc", &st));
		EQ(st.st_mode, S_IFLNK | 0777);
		TRUE(st.st_ino != my_ns());
		OK(fstatat(AT_FDCWD, "/proc/self/ns/ipc", &st2, AT_SYMLINK_NOFOLLOW));
		EQ(st2.st_mode, S_IFLNK | 0777);
		EQ(st2.st_ino, st.st_ino);
		EQ(unshare(CLONE_NEWIPC), 0);
	}
}

ROOT_CASE("13 (file)", statfs_shows_the_file_system_of_namespaces)
{
	scene();
	struct statfs f;
	OK(statfs("/proc/self/ns/ipc", &f));
	EQ(f.f_type, NSFS);
	OK(statfs(ns_path(there), &f));
	EQ(f.f_type, NSFS);
	OK(fstatfs(ns_fd(there), &f));
	EQ(f.f_type, NSFS);
	OK(fstatfs(ns_fd(getpid()), &f));
	EQ(f.f_type, NSFS);
	end_of(there);
}

ROOT_CASE("13 (file)", files_are_the_same_exactly_if_the_namespace_is)
{
	scene();
	struct stat a, b;
	pid_t other = somewhere("other", 1);
	OK(stat(ns_path(there), &a));
	OK(stat(ns_path(other), &b));
	TRUE(a.st_ino != b.st_ino);
	EQ(a.st_dev, b.st_dev);
	CHILD {
		EQ(setns(ns_fd(there), 0), 0);
		OK(fstat(ns_fd(getpid()), &b));
		EQ(a.st_ino, b.st_ino);
		EQ(a.st_dev, b.st_dev);
	}
	mark(50);
	join(there);
	join(other);
}

ROOT_CASE("13 (file)", access_of_the_file)
{
	for (int i = 0; i < 2; i++) {
		EQ(access("/proc/self/ns/ipc", F_OK), 0);
		EQ(access("/proc/self/ns/ipc", R_OK), 0);
		FAILS(access("/proc/self/ns/ipc", X_OK), EACCES);
		EQ(unshare(CLONE_NEWIPC), 0);
	}
}

ROOT_CASE("13 (file)", ioctl_tells_the_type)
{
	scene();
	EQ(ioctl(ns_fd(getpid()), NS_GET_NSTYPE), CLONE_NEWIPC);
	EQ(ioctl(ns_fd(there), NS_GET_NSTYPE), CLONE_NEWIPC);
	end_of(there);
}

ROOT_CASE("13 (file)", ioctl_gives_the_user_namespace)
{
	struct stat st, user;
	scene();
	OK(stat("/proc/self/ns/user", &user));
	int u = OK(ioctl(ns_fd(there), NS_GET_USERNS));
	OK(fstat(u, &st));
	EQ(st.st_ino, user.st_ino);
	EQ(ioctl(u, NS_GET_NSTYPE), CLONE_NEWUSER);
	EQ(fcntl(u, F_GETFD), FD_CLOEXEC);
	CHILD {
		EQ(unshare(CLONE_NEWUSER | CLONE_NEWIPC), 0);
		map_ids(0, 0);
		OK(stat("/proc/self/ns/user", &user));
		OK(fstat(OK(ioctl(ns_fd(getpid()), NS_GET_USERNS)), &st));
		EQ(st.st_ino, user.st_ino);
		/* It is of the user namespace that it was made in; from below, that is out of reach. */
		int fd = ns_fd(getpid());
		EQ(unshare(CLONE_NEWUSER), 0);
		FAILS(ioctl(fd, NS_GET_USERNS), EPERM);
	}
	end_of(there);
}

ROOT_CASE("13 (file)", ioctl_finds_no_parent)
{
	scene();
	FAILS(ioctl(ns_fd(getpid()), NS_GET_PARENT), EINVAL);
	FAILS(ioctl(ns_fd(there), NS_GET_PARENT), EINVAL);
	end_of(there);
}

/* ---- What keeps a namespace -------------------------------------------------------------- */

ROOT_CASE("14 (kept)", descriptor_keeps_the_namespace_and_its_queues)
{
	scene();
	int fd = ns_fd(there), back = ns_fd(getpid());
	unsigned long n = there_ns;
	end_of(there);
	for (int i = 0; i < 2; i++) {
		EQ(setns(fd, i ? 0 : CLONE_NEWIPC), 0);
		at("there");
		EQ(my_ns(), n);
		EQ(mq_close(make(qname(number(i)), O_RDWR, 1, 8)), 0);
		/* And once more nobody is in it. */
		EQ(setns(back, 0), 0);
		at("home");
	}
	struct stat st;
	OK(fstat(fd, &st));
	EQ(st.st_ino, n);
}

ROOT_CASE("14 (kept)", copy_of_a_descriptor_keeps_the_namespace)
{
	scene();
	int fd = ns_fd(there), d = OK(dup(fd));
	end_of(there);
	close(fd);
	EQ(setns(d, CLONE_NEWIPC), 0);
	at("there");
}

ROOT_CASE("14 (kept)", descriptor_of_the_own_namespace_keeps_it)
{
	mark_name = qname("mark");
	EQ(unshare(CLONE_NEWIPC), 0);
	signpost("first");
	int first = ns_fd(getpid());
	EQ(unshare(CLONE_NEWIPC), 0);
	signpost("second");
	int second = ns_fd(getpid());
	EQ(setns(first, 0), 0);
	at("first");
	EQ(setns(second, 0), 0);
	at("second");
	EQ(setns(first, 0), 0);
	at("first");
}

ROOT_CASE("14 (kept)", limits_are_kept_with_the_namespace)
{
	char b[8];
	int fd, ns;
	EQ(unshare(CLONE_NEWIPC), 0);
	fd = OK(open("/proc/sys/fs/mqueue/msg_max", O_WRONLY));
	EQ(write(fd, "20", 2), 2);
	close(fd);
	ns = ns_fd(getpid());
	EQ(unshare(CLONE_NEWIPC), 0);
	EQ(setns(ns, CLONE_NEWIPC), 0);
	EQ(read(OK(open("/proc/sys/fs/mqueue/msg_max", O_RDONLY)), b, 8), 3);
	SAME(b, "20\n", 3);
}

ROOT_CASE("14 (kept)", descriptor_travels_over_a_socket)
{
	scene();
	int s[2];
	pid_t p;
	OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	ASYNC(p) {
		EQ(unshare(CLONE_NEWIPC), 0);
		int fd = accept_fd(s[1]);
		struct stat st;
		OK(fstat(fd, &st));
		EQ(st.st_ino, there_ns);
		await_mark(0);
		EQ(setns(fd, CLONE_NEWIPC), 0);
		at("there");
		EQ(my_ns(), there_ns);
	}
	int fd = ns_fd(there);
	pass_fd(s[0], fd);
	close(fd);
	end_of(there);
	mark(0);
	join(p);
}

ROOT_CASE("14 (kept)", descriptor_in_flight_keeps_the_namespace)
{
	scene();
	int s[2], fd = ns_fd(there);
	OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	pass_fd(s[0], fd);
	close(fd);
	end_of(there);
	EQ(setns(accept_fd(s[1]), CLONE_NEWIPC), 0);
	at("there");
}

HELPER(joins)
{
	(void)argc;
	mark_name = argv[1];
	EQ(setns(atoi(argv[0]), CLONE_NEWIPC), 0);
	at("there");
	return 0;
}

ROOT_CASE("14 (kept)", descriptor_is_inherited_over_exec)
{
	scene();
	int fd = ns_fd(there);
	OK(fcntl(fd, F_SETFD, 0));
	end_of(there);
	CHILD {
		EQ(dup2(fd, 50), 50);
		close(fd);
		exec_helper("joins", "50", mark_name);
	}
	/* The program is gone, the descriptor is still here. */
	EQ(setns(fd, CLONE_NEWIPC), 0);
	at("there");
}

HELPER(has_not)
{
	(void)argc;
	FAILS(fcntl(atoi(argv[0]), F_GETFD), EBADF);
	FAILS(setns(atoi(argv[0]), CLONE_NEWIPC), EBADF);
	return 0;
}

ROOT_CASE("14 (kept)", close_on_exec_closes_it)
{
	scene();
	int fd = ns_fd(there);
	CHILD exec_helper("has_not", number(fd), NULL);
	end_of(there);
}

ROOT_CASE("14 (kept)", descriptor_is_inherited_by_fork)
{
	scene();
	int fd = ns_fd(there);
	pid_t p;
	ASYNC(p) {
		await_mark(0);
		EQ(setns(fd, CLONE_NEWIPC), 0);
		at("there");
	}
	close(fd);
	end_of(there);
	mark(0);
	join(p);
}

/* Mounts of its own, gone with the process: /mnt is an empty file system. */
static void own_mounts(void)
{
	EQ(unshare(CLONE_NEWNS), 0);
	EQ(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	EQ(mount("none", "/mnt", "tmpfs", 0, NULL), 0);
	close(OK(open("/mnt/ns", O_RDONLY | O_CREAT, 0600)));
}
static __attribute__((noreturn)) void leave_mounts(void)
{
	umount2("/mnt/ns", MNT_DETACH);
	_exit(0);
}
/* The block runs in a child, which takes the mount away; the next queue finds nobody there. */
#define MOUNTER                                                                                  \
	for (pid_t child_ = conf_fork();                                                         \
	     child_ == 0 || (join(child_), mq_close(make(qname("next"), O_RDWR, 1, 1)), 0);      \
	     leave_mounts())

ROOT_CASE("14 (bind mount)", bind_mount_is_a_namespace_file)
{
	MOUNTER {
		struct stat st, own;
		struct statfs f;
		own_mounts();
		scene();
		EQ(mount(ns_path(there), "/mnt/ns", NULL, MS_BIND, NULL), 0);
		OK(stat("/proc/self/ns/ipc", &own));
		OK(stat("/mnt/ns", &st));
		is_ns_file(&st, there_ns);
		EQ(st.st_dev, own.st_dev);
		OK(lstat("/mnt/ns", &st));
		is_ns_file(&st, there_ns);
		OK(statfs("/mnt/ns", &f));
		EQ(f.f_type, NSFS);
		int fd = OK(open("/mnt/ns", O_RDONLY));
		OK(fstat(fd, &st));
		is_ns_file(&st, there_ns);
		EQ(ioctl(fd, NS_GET_NSTYPE), CLONE_NEWIPC);
		end_of(there);
	}
}

ROOT_CASE("14 (bind mount)", bind_mount_is_joined)
{
	MOUNTER {
		own_mounts();
		scene();
		EQ(mount(ns_path(there), "/mnt/ns", NULL, MS_BIND, NULL), 0);
		EQ(setns(OK(open("/mnt/ns", O_RDONLY)), CLONE_NEWIPC), 0);
		at("there");
		EQ(my_ns(), there_ns);
		end_of(there);
	}
}

ROOT_CASE("14 (bind mount)", bind_mount_keeps_the_namespace)
{
	MOUNTER {
		own_mounts();
		scene();
		unsigned long n = there_ns;
		EQ(mount(ns_path(there), "/mnt/ns", NULL, MS_BIND, NULL), 0);
		end_of(there);
		int back = ns_fd(getpid());
		for (int i = 0; i < 2; i++) {
			int fd = OK(open("/mnt/ns", O_RDONLY));
			EQ(setns(fd, CLONE_NEWIPC), 0);
			close(fd);
			at("there");
			EQ(my_ns(), n);
			EQ(setns(back, 0), 0);
		}
		CHILD {
			EQ(setns(OK(open("/mnt/ns", O_RDONLY)), 0), 0);
			at("there");
		}
	}
}

ROOT_CASE("14 (bind mount)", bind_mount_by_the_member_itself)
{
	MOUNTER {
		own_mounts();
		mark_name = qname("mark");
		CHILD {
			EQ(unshare(CLONE_NEWIPC), 0);
			signpost("there");
			EQ(mount("/proc/self/ns/ipc", "/mnt/ns", NULL, MS_BIND, NULL), 0);
		}
		missing(mark_name);
		EQ(setns(OK(open("/mnt/ns", O_RDONLY)), CLONE_NEWIPC), 0);
		at("there");
	}
}

ROOT_CASE("14 (bind mount)", namespace_outlives_its_bind_mount_while_used)
{
	MOUNTER {
		own_mounts();
		scene();
		EQ(mount(ns_path(there), "/mnt/ns", NULL, MS_BIND, NULL), 0);
		end_of(there);
		int fd = OK(open("/mnt/ns", O_RDONLY));
		EQ(umount2("/mnt/ns", MNT_DETACH), 0);
		EQ(setns(fd, CLONE_NEWIPC), 0);
		at("there");
		/* What was underneath is a file like any other. */
		FAILS(setns(OK(open("/mnt/ns", O_RDONLY)), CLONE_NEWIPC), EINVAL);
	}
}

ROOT_CASE("14 (bind mount)", made_together_with_the_mount_namespace)
{
	MOUNTER {
		mark_name = qname("mark");
		EQ(unshare(CLONE_NEWNS | CLONE_NEWIPC), 0);
		EQ(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
		EQ(mount("none", "/mnt", "tmpfs", 0, NULL), 0);
		close(OK(open("/mnt/ns", O_RDONLY | O_CREAT, 0600)));
		signpost("first");
		EQ(mount("/proc/self/ns/ipc", "/mnt/ns", NULL, MS_BIND, NULL), 0);
		EQ(unshare(CLONE_NEWIPC), 0);
		missing(mark_name);
		EQ(setns(OK(open("/mnt/ns", O_RDONLY)), CLONE_NEWIPC), 0);
		at("first");
	}
}

/* ---- Privilege --------------------------------------------------------------------------- */

ROOT_CASE("14 (privilege)", ordinary_user_may_not_open_another_s_namespace_file)
{
	scene();
	CHILD {
		struct stat st;
		char b[64];
		become_ordinary(user(0));
		FAILS(open(ns_path(there), O_RDONLY), EACCES);
		FAILS(open(ns_path(there), O_PATH), EACCES);
		FAILS(readlink(ns_path(there), b, sizeof b), EACCES);
		FAILS(stat(ns_path(there), &st), EACCES);
		OK(lstat(ns_path(there), &st));
		FAILS(open("/proc/1/ns/ipc", O_RDONLY), EACCES);
	}
	end_of(there);
}

ROOT_CASE("14 (privilege)", ordinary_user_may_not_join)
{
	scene();
	OK(fchmod(OK(mq_open(mark_name, O_RDWR)), 0666));
	int fd = ns_fd(there), pidfd = pidfd_of(there);
	CHILD {
		become_ordinary(user(0));
		STAYS(setns(fd, CLONE_NEWIPC), EPERM);
		STAYS(setns(fd, 0), EPERM);
		STAYS(setns(pidfd, CLONE_NEWIPC), EPERM);
		/* Not even where it is already. */
		STAYS(setns(ns_fd(getpid()), CLONE_NEWIPC), EPERM);
		STAYS(setns(pidfd_of(getpid()), CLONE_NEWIPC), EPERM);
		/* What is wrong otherwise is found first. */
		STAYS(setns(fd, CLONE_NEWUTS), EINVAL);
		STAYS(setns(-1, CLONE_NEWIPC), EBADF);
		STAYS(setns(OK(mq_open(mark_name, O_RDWR)), CLONE_NEWIPC), EINVAL);
	}
	end_of(there);
}

ROOT_CASE("14 (privilege)", ordinary_user_reads_its_own_link)
{
	scene();
	CHILD {
		struct stat st;
		become_ordinary(user(0));
		EQ(my_ns(), home);
		EQ(leader_ns(), home);
		OK(fstat(OK(open("/proc/self/ns/ipc", O_RDONLY)), &st));
		is_ns_file(&st, home);
	}
	CHILD {
		/* As does one that has changed its user and whose /proc files are root's. */
		become(user(0));
		EQ(my_ns(), home);
	}
	end_of(there);
}

ROOT_CASE("14 (privilege)", ordinary_user_reads_the_link_of_its_own_processes)
{
	pid_t p;
	EQ(unshare(CLONE_NEWIPC), 0);
	unsigned long n = my_ns();
	become_ordinary(user(0));
	ASYNC(p) await_mark(0);
	EQ(ns_of(p), n);
	FAILS(setns(ns_fd(p), CLONE_NEWIPC), EPERM);
	mark(0);
	join(p);
}

ROOT_CASE("14 (privilege)", root_without_CAP_SYS_ADMIN_may_not_join)
{
	scene();
	CHILD {
		struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
		struct __user_cap_data_struct d[2];
		int fd = ns_fd(there);
		OK(syscall(SYS_capget, &h, d));
		d[0].effective &= ~(1u << CAP_SYS_ADMIN);
		OK(syscall(SYS_capset, &h, d));
		STAYS(setns(fd, CLONE_NEWIPC), EPERM);
		STAYS(setns(fd, 0), EPERM);
	}
	end_of(there);
}

ROOT_CASE("14 (privilege)", root_joins_a_user_s_namespace)
{
	mark_name = qname("mark");
	uid_t u = user(0);
	pid_t p;
	ASYNC(p) {
		become_ordinary(u);
		EQ(unshare(CLONE_NEWUSER | CLONE_NEWIPC), 0);
		map_ids(u, u);
		signpost("user's");
		mark(0);
		await_mark(1);
	}
	await_mark(0);
	CHILD {
		EQ(setns(ns_fd(p), CLONE_NEWIPC), 0);
		at("user's");
		EQ(my_ns(), ns_of(p));
	}
	CHILD {
		EQ(setns(pidfd_of(p), CLONE_NEWIPC), 0);
		at("user's");
	}
	missing(mark_name);
	mark(1);
	join(p);
}

ROOT_CASE("14 (privilege)", user_namespace_s_root_joins_what_is_its_own)
{
	mark_name = qname("mark");
	uid_t u = user(0);
	become_ordinary(u);
	int before = ns_fd(getpid());
	EQ(unshare(CLONE_NEWUSER | CLONE_NEWIPC), 0);
	map_ids(u, u);
	signpost("first");
	int first = ns_fd(getpid());
	unsigned long n = my_ns();
	EQ(unshare(CLONE_NEWIPC), 0);
	missing(mark_name);
	FAILS(setns(before, CLONE_NEWIPC), EPERM);
	missing(mark_name);
	EQ(setns(first, CLONE_NEWIPC), 0);
	EQ(my_ns(), n);
	at("first");
	EQ(setns(pidfd_of(getpid()), CLONE_NEWIPC), 0);
	at("first");
}

ROOT_CASE("14 (privilege)", process_enters_a_user_namespace_and_its_namespace_together)
{
	mark_name = qname("mark");
	uid_t u = user(0);
	pid_t p;
	ASYNC(p) {
		become_ordinary(u);
		EQ(unshare(CLONE_NEWUSER | CLONE_NEWIPC), 0);
		map_ids(u, u);
		signpost("user's");
		mark(0);
		await_mark(1);
	}
	await_mark(0);
	CHILD {
		/* The user comes from outside: nothing but its being the owner lets it in. */
		become_ordinary(u);
		FAILS(setns(ns_fd(p), CLONE_NEWIPC), EPERM);
		EQ(setns(pidfd_of(p), CLONE_NEWUSER | CLONE_NEWIPC), 0);
		at("user's");
		EQ(geteuid(), 0);
	}
	CHILD {
		become_ordinary(u);
		int fd = ns_fd(p), user_ns;
		char path[64];
		snprintf(path, sizeof path, "/proc/%d/ns/user", p);
		user_ns = OK(open(path, O_RDONLY));
		EQ(setns(user_ns, CLONE_NEWUSER), 0);
		missing(mark_name);
		EQ(setns(fd, CLONE_NEWIPC), 0);
		at("user's");
	}
	mark(1);
	join(p);
}
