/* Contract section 10: fork, exec, SCM_RIGHTS. */
#include "conf.h"
#include <spawn.h>

static long flags_of(mqd_t q)
{
	struct mq_attr a;
	if (mq_getattr(q, &a))
		FAIL("mq_getattr: %s", errno_name(errno));
	return a.mq_flags;
}

/* ---- fork -------------------------------------------------------------------------------- */

CASE("10", child_shares_the_description)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	CHILD {
		EQ(mq_setattr(q, &(struct mq_attr){.mq_flags = O_NONBLOCK}, NULL), 0);
		EQ(lseek(q, 11, SEEK_SET), 11);
		put(q, "x", 1);
	}
	EQ(flags_of(q), O_NONBLOCK);
	EQ(lseek(q, 0, SEEK_CUR), 11);
	take(q, "x", 1);
}

CASE("10", queue_lives_until_the_last_copy_closes)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 3, 8);
	pid_t p;
	put(q, "x", 1);
	ASYNC(p) {
		await_mark(0);
		take(q, "x", 1);
		put(q, "y", 2);
		take(q, "y", 2);
		FAILS(mq_open(n, O_RDWR), ENOENT);
	}
	EQ(mq_unlink(n), 0);
	EQ(mq_close(q), 0);
	mark(0);
	join(p);
}

CASE("10", grandchild_uses_the_queue_after_its_parent_s_end)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	CHILD {
		pid_t p;
		ASYNC(p) {
			await_mark(0);
			put(q, "x", 1);
		}
	}
	mark(0);
	take(q, "x", 1);
}

CASE("10", close_in_the_child_leaves_the_parent_s_descriptor)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	CHILD {
		EQ(mq_close(q), 0);
		FAILS(mq_send(q, "x", 1, 0), EBADF);
	}
	put(q, "x", 1);
	take(q, "x", 1);
}

CASE("10", vfork_child_may_send)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	pid_t p = vfork();
	if (p == 0)
		_exit(mq_send(q, "x", 1, 3) != 0);
	join(p);
	take(q, "x", 3);
}

CASE("10", raw_fork_child_may_send_and_receive)
{
	mqd_t q = make(qname("a"), O_RDWR, 1, 8);
	put(q, "first", 0);
	pid_t p = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	if (p == 0) {
		take(q, "first", 0);
		mark(0);
		for (int i = 0; i < 100; i++)
			put(q, number(i), 0);
		_exit(0);
	}
	TRUE(p > 0);
	await_mark(0);
	for (int i = 0; i < 100; i++)
		take(q, number(i), 0);
	join(p);
}

/* ---- exec -------------------------------------------------------------------------------- */

/* arg: a descriptor that must be closed, one that must be a queue that holds "x" at priority 5
 * with O_NONBLOCK set. */
HELPER(has)
{
	int closed = atoi(argv[0]), q = atoi(argv[1]);
	(void)argc;
	FAILS(fcntl(closed, F_GETFD), EBADF);
	FAILS(mq_send(closed, "x", 1, 0), EBADF);
	EQ(fcntl(q, F_GETFD), 0);
	EQ(flags_of(q), O_NONBLOCK);
	EQ(fcntl(q, F_GETFL), O_RDWR | O_NONBLOCK);
	take(q, "x", 5);
	put(q, "from exec", 6);
	struct pollfd p = {.fd = q, .events = POLLIN | POLLOUT};
	EQ(poll(&p, 1, 0), 1);
	EQ(p.revents, POLLIN | POLLOUT);
	return 0;
}

CASE("10", exec_closes_queues_unless_the_flag_was_cleared)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 16), gone = make(qname("b"), O_RDWR, 3, 8);
	put(q, "x", 5);
	CHILD {
		EQ(fcntl(q, F_SETFD, 0), 0);
		EQ(mq_setattr(q, &(struct mq_attr){.mq_flags = O_NONBLOCK}, NULL), 0);
		exec_helper("has", number(gone), number(q));
	}
	take(q, "from exec", 6);
	EQ(flags_of(q), O_NONBLOCK);
}

CASE("10", exec_keeps_dups)
{
	mqd_t q = make(qname("a"), O_RDWR | O_NONBLOCK, 3, 16);
	put(q, "x", 5);
	CHILD {
		int d = OK(dup(q));
		exec_helper("has", number(q), number(d));
	}
	take(q, "from exec", 6);
}

CASE("10", exec_keeps_an_unlinked_queue)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR | O_NONBLOCK, 3, 16);
	put(q, "x", 5);
	EQ(mq_unlink(n), 0);
	CHILD {
		EQ(dup2(q, 60), 60);
		exec_helper("has", number(q), "60");
	}
	take(q, "from exec", 6);
}

HELPER(mode)
{
	/* The access mode survives, too. */
	int r = atoi(argv[0]), w = atoi(argv[1]);
	char b[64];
	(void)argc;
	FAILS(mq_send(r, "x", 1, 0), EBADF);
	FAILS(mq_receive(w, b, sizeof b, NULL), EBADF);
	FAILS(read(w, b, sizeof b), EBADF);
	EQ(fcntl(r, F_GETFL), O_RDONLY);
	EQ(fcntl(w, F_GETFL), O_WRONLY | O_APPEND | O_CLOEXEC);
	put(w, "x", 0);
	take(r, "x", 0);
	return 0;
}

CASE("10", exec_keeps_access_mode_and_flags)
{
	const char *n = qname("a");
	make(n, O_RDWR, 3, 16);
	CHILD {
		mqd_t r = OK(mq_open(n, O_RDONLY)), w = OK(mq_open(n, O_WRONLY | O_APPEND | O_CLOEXEC));
		OK(fcntl(r, F_SETFD, 0));
		OK(fcntl(w, F_SETFD, 0));
		exec_helper("mode", number(r), number(w));
	}
}

CASE("10", posix_spawn_passes_dups_made_by_file_actions)
{
	mqd_t q = make(qname("a"), O_RDWR | O_NONBLOCK, 3, 16);
	posix_spawn_file_actions_t fa;
	char *argv[] = {"conf", "@has", (char *)number(q), "70", NULL};
	pid_t p;
	put(q, "x", 5);
	EQ(posix_spawn_file_actions_init(&fa), 0);
	EQ(posix_spawn_file_actions_adddup2(&fa, q, 70), 0);
	EQ(posix_spawn(&p, "/proc/self/exe", &fa, NULL, argv, environ), 0);
	join(p);
	take(q, "from exec", 6);
}

HELPER(open_by_name)
{
	(void)argc;
	mqd_t q = OK(mq_open(argv[0], O_RDWR));
	take(q, argv[1], 0);
	return 0;
}

CASE("10", exec_ed_program_opens_by_name)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 3, 16);
	put(q, "hello", 0);
	CHILD exec_helper("open_by_name", n, "hello");
}

/* ---- SCM_RIGHTS -------------------------------------------------------------------------- */

static ssize_t send_fd(int sock, int fd)
{
	char c = 'f', buf[CMSG_SPACE(sizeof fd)] = {0};
	struct iovec v = {&c, 1};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = buf,
			   .msg_controllen = sizeof buf};
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = CMSG_LEN(sizeof fd);
	memcpy(CMSG_DATA(h), &fd, sizeof fd);
	return sendmsg(sock, &m, 0);
}
static int receive_fd(int sock, int flags)
{
	char c, buf[CMSG_SPACE(sizeof(int))];
	struct iovec v = {&c, 1};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = buf,
			   .msg_controllen = sizeof buf};
	int fd;
	EQ(recvmsg(sock, &m, flags), 1);
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	TRUE(h && h->cmsg_type == SCM_RIGHTS);
	memcpy(&fd, CMSG_DATA(h), sizeof fd);
	return fd;
}

CASE("10", descriptor_travels_over_a_socket)
{
	int s[2];
	pid_t p;
	mqd_t q;
	OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	const char *n = qname("a");
	ASYNC(p) {
		/* This process never opened the queue. */
		int r = receive_fd(s[1], 0);
		EQ(fcntl(r, F_GETFD), 0);
		EQ(flags_of(r), 0);
		take(r, "x", 5);
		EQ(mq_setattr(r, &(struct mq_attr){.mq_flags = O_NONBLOCK}, NULL), 0);
		EQ(lseek(r, 9, SEEK_SET), 9);
		put(r, "back", 6);
	}
	q = make(n, O_RDWR, 3, 8);
	put(q, "x", 5);
	EQ(send_fd(s[0], q), 1);
	join(p);
	take(q, "back", 6);
	EQ(flags_of(q), O_NONBLOCK);
	EQ(lseek(q, 0, SEEK_CUR), 9);
}

CASE("10", received_descriptor_keeps_its_access_mode)
{
	int s[2];
	pid_t p;
	OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	const char *n = qname("a");
	ASYNC(p) {
		char b[8];
		int r = receive_fd(s[1], 0), w = receive_fd(s[1], 0);
		FAILS(mq_send(r, "x", 1, 0), EBADF);
		FAILS(mq_receive(w, b, 8, NULL), EBADF);
		put(w, "x", 0);
		take(r, "x", 0);
	}
	make(n, O_RDWR, 3, 8);
	EQ(send_fd(s[0], OK(mq_open(n, O_RDONLY))), 1);
	EQ(send_fd(s[0], OK(mq_open(n, O_WRONLY))), 1);
	join(p);
}

CASE("10", queue_lives_in_flight_though_unlinked_and_closed)
{
	int s[2];
	OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 3, 8);
	put(q, "x", 5);
	EQ(send_fd(s[0], q), 1);
	EQ(mq_unlink(n), 0);
	EQ(mq_close(q), 0);
	FAILS(mq_open(n, O_RDWR), ENOENT);
	int r = receive_fd(s[1], 0);
	take(r, "x", 5);
	struct stat st;
	OK(fstat(r, &st));
	EQ(st.st_nlink, 0);
	put(r, "y", 0);
	take(r, "y", 0);
}

CASE("10", close_on_exec_only_with_MSG_CMSG_CLOEXEC)
{
	int s[2];
	OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	EQ(send_fd(s[0], q), 1);
	EQ(send_fd(s[0], q), 1);
	EQ(fcntl(receive_fd(s[1], 0), F_GETFD), 0);
	EQ(fcntl(receive_fd(s[1], MSG_CMSG_CLOEXEC), F_GETFD), FD_CLOEXEC);
}

CASE("10", sending_descriptor_minus_one_is_EBADF)
{
	int s[2];
	OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	FAILS(send_fd(s[0], -1), EBADF);
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	EQ(mq_close(q), 0);
	FAILS(send_fd(s[0], q), EBADF);
}

ROOT_CASE("10", descriptor_gives_another_user_what_it_may_not_open)
{
	int s[2];
	pid_t p;
	OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	const char *n = qname("a");
	ASYNC(p) {
		become(user(0));
		FAILS(mq_open(n, O_RDWR), ENOENT);
		mark(0);
		int r = receive_fd(s[1], 0);
		FAILS(mq_open(n, O_RDWR), EACCES);
		take(r, "x", 5);
		put(r, "back", 6);
	}
	await_mark(0);
	mqd_t q = make(n, O_RDWR, 3, 8);
	put(q, "x", 5);
	EQ(send_fd(s[0], q), 1);
	join(p);
	take(q, "back", 6);
}

ROOT_CASE("10", descriptor_goes_on_after_the_process_changes_its_user)
{
	mqd_t q = make(qname("a"), O_RDWR, 1, 8), empty = make(qname("b"), O_RDWR, 1, 8);
	put(q, "0", 0);
	CHILD {
		become(user(0));
		take(q, "0", 0);
		put(q, "1", 0);
		EQ(mq_notify(empty, &(struct sigevent){.sigev_notify = SIGEV_NONE}), 0);
		struct pollfd f = {.fd = q, .events = POLLIN};
		EQ(poll(&f, 1, 0), 1);
	}
	take(q, "1", 0);
}

CASE("10", sleeper_on_a_received_descriptor_is_served)
{
	int s[2];
	pid_t p;
	OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	const char *n = qname("a");
	ASYNC(p) take(receive_fd(s[1], 0), "x", 5);
	mqd_t q = make(n, O_RDWR, 3, 8);
	EQ(send_fd(s[0], q), 1);
	await_asleep(p);
	put(q, "x", 5);
	join(p);
}
