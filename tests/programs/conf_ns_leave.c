/*
 * Contract section 13: a namespace dies with its last task, descriptor and bind mount.
 *
 * What tells: the queue in it costs 97 bytes of its creator's RLIMIT_MSGQUEUE. As long as the
 * namespace lives, a user whose limit is 97 makes no other; once it is dead he does. The kernel
 * takes a dead namespace apart a moment later, so the return is awaited.
 */
#include "conf.h"
#include <sys/mount.h>

#define ATTR(m, s) (&(struct mq_attr){.mq_maxmsg = (m), .mq_msgsize = (s)})
enum { COST = 97 }; /* of a queue of one message of one byte */

static const char *inside;  /* the name of the queue in the namespace */
static const char *outside; /* of the one the observer tries to make */

/* The observer, root but for its real user, who pays; as do the children. */
static void observe(int queues)
{
	inside = qname("inside");
	outside = qname("outside");
	OK(setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}));
	OK(setresuid(user(0), -1, -1));
	OK(setrlimit(RLIMIT_MSGQUEUE, &(struct rlimit){COST * queues, COST * queues}));
}
static mqd_t another(void)
{
	return mq_open(outside, O_RDWR | O_CREAT | O_EXCL, 0600, ATTR(1, 1));
}
static int another_fits(void)
{
	mqd_t q = another();
	if (q == -1) {
		TRUE(errno == EMFILE);
		return 0;
	}
	EQ(mq_close(q), 0);
	EQ(mq_unlink(outside), 0);
	return 1;
}
/* The queue inside exists, and so does the namespace. */
#define alive() FAILS(another(), EMFILE)
#define gone() AWAIT(another_fits())

/* A queue of a byte in the caller's namespace. */
static void settle(void)
{
	EQ(mq_close(make(inside, O_RDWR, 1, 1)), 0);
}
/* A namespace for the caller with a queue in it. */
static void enter(void)
{
	EQ(unshare(CLONE_NEWIPC), 0);
	settle();
}
/* Wholly the user who pays: a program exec'ed by half of one would run as if setuid. */
static void drop_user(void)
{
	OK(fchmod(OK(mq_open(inside, O_RDWR)), 0666));
	become(user(0));
}

/* A member that leaves in one way, when mark 1 is set. */
static pid_t member(void (*leave)(void))
{
	pid_t p;
	ASYNC(p) {
		enter();
		mark(0);
		await_mark(1);
		present(inside);
		leave();
	}
	await_mark(0);
	return p;
}
/* Its death is seen before it is reaped; then the status is as expected. */
static void leaves(void (*leave)(void), int status)
{
	int st;
	observe(1);
	pid_t p = member(leave);
	alive();
	missing(inside);
	mark(1);
	gone();
	EQ(waitpid(p, &st, 0), p);
	EQ(st, status);
	missing(inside);
}
#define EXIT(n) ((n) << 8)

/* ---- The end of a process ---------------------------------------------------------------- */

static void by__exit(void)
{
	_exit(3);
}
ROOT_CASE("13 (death)", at__exit)
{
	leaves(by__exit, EXIT(3));
}

static void by__Exit(void)
{
	_Exit(3);
}
ROOT_CASE("13 (death)", at__Exit)
{
	leaves(by__Exit, EXIT(3));
}

static void by_exit(void)
{
	exit(3);
}
ROOT_CASE("13 (death)", at_exit)
{
	leaves(by_exit, EXIT(3));
}

static void by_quick_exit(void)
{
	quick_exit(3);
}
ROOT_CASE("13 (death)", at_quick_exit_)
{
	leaves(by_quick_exit, EXIT(3));
}

static void by_exit_group(void)
{
	syscall(SYS_exit_group, 3);
}
ROOT_CASE("13 (death)", at_raw_exit_group)
{
	leaves(by_exit_group, EXIT(3));
}

static void by_raw_exit(void)
{
	syscall(SYS_exit, 3);
}
ROOT_CASE("13 (death)", at_raw_exit_of_the_only_thread)
{
	leaves(by_raw_exit, EXIT(3));
}

HELPER(returns)
{
	/* In the namespace still. */
	EQ(argc, 1);
	present(argv[0]);
	return 3;
}
static void by_exec_and_return(void)
{
	drop_user();
	exec_helper("returns", inside, NULL);
}
ROOT_CASE("13 (death)", at_return_from_main)
{
	leaves(by_exec_and_return, EXIT(3));
}

static void by_abort(void)
{
	abort();
}
ROOT_CASE("13 (death)", at_abort)
{
	leaves(by_abort, SIGABRT);
}

static void by_SIGKILL(void)
{
	kill(getpid(), SIGKILL);
	pause();
}
ROOT_CASE("13 (death)", at_SIGKILL)
{
	leaves(by_SIGKILL, SIGKILL);
}

static void by_SIGSEGV(void)
{
	*(volatile char *)nowhere() = 1;
}
ROOT_CASE("13 (death)", at_SIGSEGV)
{
	leaves(by_SIGSEGV, SIGSEGV);
}

static void by_SIGTERM(void)
{
	raise(SIGTERM);
}
ROOT_CASE("13 (death)", at_SIGTERM)
{
	leaves(by_SIGTERM, SIGTERM);
}

static void by_SIGALRM(void)
{
	OK(setitimer(ITIMER_REAL, &(struct itimerval){.it_value.tv_usec = 1000}, NULL));
	for (;;)
		pause();
}
ROOT_CASE("13 (death)", at_a_timer_s_signal)
{
	leaves(by_SIGALRM, SIGALRM);
}

static void by_SIGXCPU(void)
{
	OK(setrlimit(RLIMIT_CPU, &(struct rlimit){0, 0}));
	for (;;)
		;
}
ROOT_CASE("13 (death)", at_the_limit_of_processor_time)
{
	int st;
	observe(1);
	pid_t p = member(by_SIGXCPU);
	alive();
	mark(1);
	gone();
	EQ(waitpid(p, &st, 0), p);
	TRUE(WIFSIGNALED(st));
}

static void exits_in_handler(int sig UNUSED)
{
	present(inside);
	_exit(3);
}
static void by__exit_in_a_handler(void)
{
	OK(sigaction(SIGUSR1, &(struct sigaction){.sa_handler = exits_in_handler}, NULL));
	raise(SIGUSR1);
}
ROOT_CASE("13 (death)", at__exit_in_a_signal_handler)
{
	leaves(by__exit_in_a_handler, EXIT(3));
}

static void by_sleep(void)
{
	mqd_t q = OK(mq_open(inside, O_RDWR));
	mq_receive(q, (char[1]){0}, 1, NULL);
}
ROOT_CASE("13 (death)", at_SIGKILL_of_a_sleeper)
{
	observe(1);
	pid_t p = member(by_sleep);
	mark(1);
	await_asleep(p);
	alive();
	EQ(kill(p, SIGKILL), 0);
	gone();
	join_killed(p, SIGKILL);
}

ROOT_CASE("13 (death)", at_SIGKILL_of_a_stopped_process)
{
	observe(1);
	pid_t p = member(by_sleep);
	EQ(kill(p, SIGSTOP), 0);
	AWAIT(proc_state(p) == 'T');
	alive();
	EQ(kill(p, SIGKILL), 0);
	gone();
	join_killed(p, SIGKILL);
}

ROOT_CASE("13 (death)", at_SIGKILL_with_queues_open)
{
	observe(3);
	pid_t p;
	ASYNC(p) {
		EQ(unshare(CLONE_NEWIPC), 0);
		for (int i = 0; i < 3; i++) {
			mqd_t q = make(qname(number(i)), O_RDWR, 1, 1);
			put(q, "x", 0);
			EQ(mq_notify(q, &(struct sigevent){.sigev_notify = SIGEV_NONE}), 0);
		}
		mark(0);
		pause();
	}
	await_mark(0);
	alive();
	EQ(kill(p, SIGKILL), 0);
	gone();
	join_killed(p, SIGKILL);
}

/* ---- Still a member until the very end --------------------------------------------------- */

static void last_thing(void)
{
	present(inside);
	EQ(mq_unlink(inside), 0);
	settle();
	mark(5);
}
static void by_exit_with_a_handler(void)
{
	EQ(atexit(last_thing), 0);
	exit(3);
}
ROOT_CASE("13 (death)", atexit_functions_are_in_the_namespace)
{
	leaves(by_exit_with_a_handler, EXIT(3));
	await_mark(5);
}

static void by_quick_exit_with_a_handler(void)
{
	EQ(at_quick_exit(last_thing), 0);
	quick_exit(3);
}
ROOT_CASE("13 (death)", at_quick_exit_functions_are_in_the_namespace)
{
	leaves(by_quick_exit_with_a_handler, EXIT(3));
	await_mark(5);
}

static int destructor_checks;
__attribute__((destructor)) static void destructor(void)
{
	if (destructor_checks)
		last_thing();
}
static void by_exit_with_a_destructor(void)
{
	destructor_checks = 1;
	exit(3);
}
ROOT_CASE("13 (death)", destructors_are_in_the_namespace)
{
	leaves(by_exit_with_a_destructor, EXIT(3));
	await_mark(5);
}

static void by_exit_that_makes_a_child(void)
{
	EQ(atexit(last_thing), 0);
	if (conf_fork())
		exit(3);
	/* The child goes by the same functions, later. */
	await_marks(5, 1);
	mark(6);
	await_mark(7);
	exit(0);
}
ROOT_CASE("13 (death)", namespace_outlives_its_maker_s_exit_functions_with_a_child)
{
	int st;
	observe(1);
	OK(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
	pid_t p = member(by_exit_that_makes_a_child);
	mark(1);
	EQ(waitpid(p, &st, 0), p);
	EQ(st, EXIT(3));
	await_mark(6);
	alive();
	mark(7);
	TRUE(waitpid(-1, &st, 0) > 0);
	EQ(st, 0);
	await_marks(5, 2);
	gone();
}

static void destructs(void *arg UNUSED)
{
	present(inside);
	mark(5);
}
static void *with_specific_data(void *arg UNUSED)
{
	pthread_key_t k;
	enter();
	EQ(pthread_key_create(&k, destructs), 0);
	EQ(pthread_setspecific(k, "x"), 0);
	return NULL;
}
ROOT_CASE("13 (death)", destructors_of_thread_data_are_in_the_namespace)
{
	observe(1);
	in_thread(with_specific_data, NULL);
	await_mark(5);
	gone();
}

static void cleans(void *arg UNUSED)
{
	present(inside);
	mark(5);
}
static void *with_cleanup(void *arg UNUSED)
{
	enter();
	pthread_cleanup_push(cleans, NULL);
	mark(0);
	for (;;)
		pause();
	pthread_cleanup_pop(0);
	return NULL;
}
ROOT_CASE("13 (death)", cleanup_handlers_are_in_the_namespace)
{
	pthread_t t;
	observe(1);
	EQ(pthread_create(&t, NULL, with_cleanup, NULL), 0);
	await_mark(0);
	alive();
	EQ(pthread_cancel(t), 0);
	EQ(pthread_join(t, NULL), 0);
	await_mark(5);
	gone();
}

/* ---- exec -------------------------------------------------------------------------------- */

/* argv: name of the queue. */
HELPER(stays)
{
	EQ(argc, 1);
	present(argv[0]);
	/* It says so on a queue, as it shares no memory, and goes when it takes the answer. */
	raise(SIGSTOP);
	present(argv[0]);
	return 3;
}
static void by_exec_and_stop(void)
{
	drop_user();
	exec_helper("stays", inside, NULL);
}
static void await_stop(pid_t p)
{
	int st;
	EQ(waitpid(p, &st, WUNTRACED), p);
	TRUE(WIFSTOPPED(st));
}

ROOT_CASE("13 (death)", exec_is_no_end)
{
	observe(1);
	int st;
	pid_t p = member(by_exec_and_stop);
	mark(1);
	await_stop(p);
	alive();
	EQ(kill(p, SIGCONT), 0);
	EQ(waitpid(p, &st, 0), p);
	EQ(st, EXIT(3));
	gone();
}

ROOT_CASE("13 (death)", at_SIGKILL_of_an_exec_ed_program)
{
	observe(1);
	pid_t p = member(by_exec_and_stop);
	mark(1);
	await_stop(p);
	alive();
	EQ(kill(p, SIGKILL), 0);
	gone();
	join_killed(p, SIGKILL);
}

/* argv: name. Does nothing with queues. */
HELPER(knows_nothing)
{
	(void)argc;
	(void)argv;
	raise(SIGSTOP);
	return 3;
}
static void by_exec_of_what_never_uses_queues(void)
{
	drop_user();
	exec_helper("knows_nothing", NULL, NULL);
}
ROOT_CASE("13 (death)", program_that_uses_no_queue_is_a_member)
{
	observe(1);
	int st;
	pid_t p = member(by_exec_of_what_never_uses_queues);
	mark(1);
	await_stop(p);
	alive();
	EQ(kill(p, SIGCONT), 0);
	EQ(waitpid(p, &st, 0), p);
	EQ(st, EXIT(3));
	gone();
}

static void *enters_and_waits(void *arg UNUSED)
{
	enter();
	mark(0);
	for (;;)
		pause();
	return NULL;
}

/* A thread elsewhere ends when another execs. */
ROOT_CASE("13 (death)", of_a_thread_at_another_s_exec)
{
	observe(1);
	int st;
	pid_t p;
	ASYNC(p) {
		pthread_t t;
		EQ(pthread_create(&t, NULL, enters_and_waits, NULL), 0);
		await_mark(0);
		await_mark(1);
		become(user(0));
		exec_helper("knows_nothing", NULL, NULL);
	}
	await_mark(0);
	alive();
	mark(1);
	await_stop(p);
	gone();
	EQ(kill(p, SIGCONT), 0);
	EQ(waitpid(p, &st, 0), p);
	EQ(st, EXIT(3));
}

static void *execs(void *arg UNUSED)
{
	await_mark(1);
	missing(inside);
	become(user(0));
	exec_helper("knows_nothing", NULL, NULL);
	return NULL;
}
/* The leader is the one that ends, and the thread, which is elsewhere, takes its place. */
ROOT_CASE("13 (death)", of_the_leader_at_a_thread_s_exec)
{
	observe(1);
	int st;
	pid_t p;
	ASYNC(p) {
		pthread_t t;
		EQ(pthread_create(&t, NULL, execs, NULL), 0);
		enter();
		mark(0);
		for (;;)
			pause();
	}
	await_mark(0);
	alive();
	mark(1);
	await_stop(p);
	gone();
	EQ(kill(p, SIGCONT), 0);
	EQ(waitpid(p, &st, 0), p);
	EQ(st, EXIT(3));
}

/* ---- Threads ----------------------------------------------------------------------------- */

static void *enters_and_returns(void *arg UNUSED)
{
	enter();
	mark(0);
	await_mark(1);
	present(inside);
	return NULL;
}
static void *enters_and_pthread_exits(void *arg)
{
	enters_and_returns(arg);
	pthread_exit(NULL);
}
static void *enters_and_raw_exits(void *arg)
{
	enters_and_returns(arg);
	syscall(SYS_exit, 0);
	return NULL;
}
static void *enters_and_sleeps(void *arg UNUSED)
{
	enter();
	mqd_t q = OK(mq_open(inside, O_RDWR));
	shared->value[1] = gettid();
	shared->value[2] = q;
	mark(0);
	mq_receive(q, (char[1]){0}, 1, NULL);
	FAIL("the sleeper woke");
}

static void thread_leaves(void *(*how)(void *))
{
	pthread_t t;
	observe(1);
	EQ(pthread_create(&t, NULL, how, NULL), 0);
	await_mark(0);
	alive();
	missing(inside);
	mark(1);
	EQ(pthread_join(t, NULL), 0);
	gone();
}

ROOT_CASE("13 (threads' death)", at_return_from_a_thread)
{
	thread_leaves(enters_and_returns);
}

ROOT_CASE("13 (threads' death)", at_pthread_exit)
{
	thread_leaves(enters_and_pthread_exits);
}

ROOT_CASE("13 (threads' death)", at_raw_exit_of_a_thread)
{
	thread_leaves(enters_and_raw_exits);
}

ROOT_CASE("13 (threads' death)", at_pthread_cancel)
{
	pthread_t t;
	void *r;
	observe(1);
	EQ(pthread_create(&t, NULL, enters_and_waits, NULL), 0);
	await_mark(0);
	alive();
	EQ(pthread_cancel(t), 0);
	EQ(pthread_join(t, &r), 0);
	EQ((intptr_t)r, (intptr_t)PTHREAD_CANCELED);
	gone();
}

/* The descriptor that it slept on is the process's, and so is the queue. */
ROOT_CASE("13 (threads' death)", at_pthread_cancel_in_mq_receive)
{
	pthread_t t;
	observe(1);
	EQ(pthread_create(&t, NULL, enters_and_sleeps, NULL), 0);
	await_mark(0);
	await_asleep(shared->value[1]);
	alive();
	EQ(pthread_cancel(t), 0);
	EQ(pthread_join(t, NULL), 0);
	mqd_t q = shared->value[2];
	put(q, "x", 1);
	take(q, "x", 1);
	alive();
	EQ(mq_close(q), 0);
	gone();
}

static void *enters_cancelled_asynchronously(void *arg UNUSED)
{
	EQ(pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL), 0);
	EQ(pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL), 0);
	enter();
	EQ(pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL), 0);
	mark(0);
	for (;;)
		;
	return NULL;
}
ROOT_CASE("13 (threads' death)", at_asynchronous_pthread_cancel)
{
	pthread_t t;
	observe(1);
	EQ(pthread_create(&t, NULL, enters_cancelled_asynchronously, NULL), 0);
	await_mark(0);
	alive();
	EQ(pthread_cancel(t), 0);
	EQ(pthread_join(t, NULL), 0);
	gone();
}

ROOT_CASE("13 (threads' death)", of_a_detached_thread)
{
	pthread_t t;
	observe(1);
	EQ(pthread_create(&t, NULL, enters_and_returns, NULL), 0);
	EQ(pthread_detach(t), 0);
	await_mark(0);
	alive();
	mark(1);
	gone();
}

/* The leader ends, a thread that was made before the leader's unshare goes on. */
static void *outlives_the_leader(void *arg UNUSED)
{
	missing(inside);
	await_mark(2);
	missing(inside);
	_exit(3);
}
ROOT_CASE("13 (threads' death)", at_pthread_exit_of_the_leader)
{
	int st;
	observe(1);
	pid_t p;
	ASYNC(p) {
		pthread_t t;
		EQ(pthread_create(&t, NULL, outlives_the_leader, NULL), 0);
		enter();
		mark(0);
		await_mark(1);
		pthread_exit(NULL);
	}
	await_mark(0);
	alive();
	mark(1);
	gone();
	/* The process lives. */
	EQ(waitpid(p, &st, WNOHANG), 0);
	mark(2);
	EQ(waitpid(p, &st, 0), p);
	EQ(st, EXIT(3));
}

static void *stays_inside(void *arg UNUSED)
{
	await_mark(2);
	AWAIT(proc_state(getpid()) == 'Z');
	present(inside);
	mark(3);
	await_mark(4);
	present(inside);
	CHILD present(inside);
	return NULL;
}
ROOT_CASE("13 (threads' death)", thread_keeps_the_namespace_after_the_leader_s_end)
{
	int st;
	observe(1);
	pid_t p;
	ASYNC(p) {
		pthread_t t;
		enter();
		EQ(pthread_create(&t, NULL, stays_inside, NULL), 0);
		mark(2);
		pthread_exit(NULL);
	}
	await_mark(3);
	alive();
	mark(4);
	gone();
	EQ(waitpid(p, &st, 0), p);
	EQ(st, 0);
}

static void *exits_the_process(void *arg UNUSED)
{
	present(inside);
	exit(3);
}
static void by_exit_in_a_thread(void)
{
	pthread_t t;
	EQ(pthread_create(&t, NULL, exits_the_process, NULL), 0);
	for (;;)
		pause();
}
ROOT_CASE("13 (threads' death)", at_exit_in_a_thread)
{
	leaves(by_exit_in_a_thread, EXIT(3));
}

static void *enters_one_of_three(void *arg)
{
	EQ(unshare(CLONE_NEWIPC), 0);
	EQ(mq_close(make(arg, O_RDWR, 1, 1)), 0);
	mark(0);
	for (;;)
		pause();
	return NULL;
}
static const char *three[3];
static pid_t three_threads(void (*leave)(void))
{
	pid_t p;
	observe(3);
	for (int i = 0; i < 3; i++)
		three[i] = qname(number(i));
	ASYNC(p) {
		pthread_t t;
		for (int i = 0; i < 3; i++)
			EQ(pthread_create(&t, NULL, enters_one_of_three, (void *)inside), 0);
		await_marks(0, 3);
		await_mark(1);
		leave();
	}
	await_marks(0, 3);
	alive();
	return p;
}
/* All three are gone when three fit. */
static int three_fit(void)
{
	int n = 0;
	mqd_t q[3];
	for (; n < 3; n++) {
		q[n] = mq_open(three[n], O_RDWR | O_CREAT | O_EXCL, 0600, ATTR(1, 1));
		if (q[n] == -1)
			break;
		EQ(mq_unlink(three[n]), 0);
	}
	for (int i = 0; i < n; i++)
		EQ(mq_close(q[i]), 0);
	return n == 3;
}

ROOT_CASE("13 (threads' death)", SIGKILL_ends_each_thread_s_namespace)
{
	pid_t p = three_threads(by_SIGKILL);
	mark(1);
	AWAIT(three_fit());
	join_killed(p, SIGKILL);
}

ROOT_CASE("13 (threads' death)", _exit_ends_each_thread_s_namespace)
{
	pid_t p = three_threads(by__exit);
	int st;
	mark(1);
	AWAIT(three_fit());
	EQ(waitpid(p, &st, 0), p);
	EQ(st, EXIT(3));
}

ROOT_CASE("13 (threads' death)", exit_ends_each_thread_s_namespace)
{
	pid_t p = three_threads(by_exit);
	int st;
	mark(1);
	AWAIT(three_fit());
	EQ(waitpid(p, &st, 0), p);
	EQ(st, EXIT(3));
}

/* ---- Going elsewhere --------------------------------------------------------------------- */

ROOT_CASE("13 (death)", at_unshare_of_the_only_member)
{
	observe(1);
	enter();
	alive();
	EQ(unshare(CLONE_NEWIPC), 0);
	gone();
	missing(inside);
}

ROOT_CASE("13 (death)", at_setns_of_the_only_member)
{
	observe(1);
	int back = OK(open("/proc/self/ns/ipc", O_RDONLY));
	for (int i = 0; i < 5; i++) {
		enter();
		alive();
		EQ(setns(back, CLONE_NEWIPC), 0);
		gone();
		missing(inside);
	}
}

static void *enters_and_goes_back(void *fd)
{
	for (int i = 0; i < 5; i++) {
		enter();
		alive();
		EQ(setns((int)(intptr_t)fd, 0), 0);
		gone();
	}
	return NULL;
}
ROOT_CASE("13 (death)", at_setns_of_a_thread)
{
	observe(1);
	in_thread(enters_and_goes_back, (void *)(intptr_t)OK(open("/proc/self/ns/ipc", O_RDONLY)));
}

ROOT_CASE("13 (death)", thirty_unshares_leave_one)
{
	observe(1);
	for (int i = 0; i < 30; i++) {
		/* The one before must have gone for this one's queue. */
		EQ(unshare(CLONE_NEWIPC), 0);
		gone();
		settle();
	}
	alive();
}

/* ---- Not the last ------------------------------------------------------------------------ */

ROOT_CASE("13 (death)", namespace_lives_in_the_last_of_its_children)
{
	observe(1);
	pid_t p;
	OK(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
	ASYNC(p) {
		enter();
		for (int i = 0; i < 3; i++)
			if (conf_fork() == 0) {
				await_mark(10 + i);
				present(inside);
				_exit(0);
			}
	}
	join(p);
	alive();
	for (int i = 0; i < 3; i++) {
		int st;
		mark(10 + i);
		TRUE(waitpid(-1, &st, 0) > 0);
		EQ(st, 0);
		if (i < 2)
			alive();
	}
	gone();
}

ROOT_CASE("13 (death)", members_killed_one_by_one)
{
	enum { N = 5 };
	observe(1);
	pid_t p[N];
	ASYNC(p[0]) {
		enter();
		for (int i = 1; i < N; i++) {
			pid_t c = conf_fork();
			if (c == 0) {
				mark(0);
				for (;;)
					pause();
			}
			shared->value[i] = c;
		}
		mark(0);
		for (;;)
			pause();
	}
	OK(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
	await_marks(0, N);
	for (int i = 1; i < N; i++)
		p[i] = shared->value[i];
	/* The maker in the middle. */
	static const int order[N] = {3, 1, 0, 4, 2};
	for (int i = 0; i < N; i++) {
		alive();
		EQ(kill(p[order[i]], SIGKILL), 0);
		AWAIT(proc_state(p[order[i]]) == 'Z' || proc_state(p[order[i]]) == 0);
	}
	gone();
	while (waitpid(-1, NULL, 0) > 0)
		;
}

/* Whatever a member's children and threads do at their end, the member's own place stays. */
static void *ends_at_once(void *arg UNUSED)
{
	return NULL;
}
static int clone_ends(void *arg UNUSED)
{
	return 0;
}
static int clone_VM_unshares(void *arg UNUSED)
{
	return unshare(CLONE_NEWIPC) != 0;
}
HELPER(ends)
{
	(void)argc;
	(void)argv;
	return 0;
}

ROOT_CASE("13 (death)", ends_of_others_leave_the_member)
{
	observe(1);
	pid_t p;
	ASYNC(p) {
		enter();
		drop_user();
		for (int i = 0; i < 5; i++) {
			CHILD;
			CHILD exit(0);
			CHILD_BY(raw_clone(0));
			CHILD_BY(raw_clone3(0));
			pid_t c = vfork();
			if (c == 0)
				_exit(0);
			join(c);
			c = vfork();
			if (c == 0) {
				execl("/proc/self/exe", "conf", "@ends", (char *)NULL);
				_exit(127);
			}
			join(c);
			c = vfork();
			if (c == 0) {
				execl("/nonexistent", "conf", (char *)NULL);
				_exit(0);
			}
			join(c);
			CHILD exec_helper("ends", NULL, NULL);
			join(OK(clone_with_stack(0, clone_ends, NULL)));
			join(OK(clone_with_stack(CLONE_VM, clone_ends, NULL)));
			join(OK(clone_with_stack(CLONE_VM | CLONE_VFORK, clone_ends, NULL)));
			in_thread(ends_at_once, NULL);
			ASYNC(c) for (;;) pause();
			EQ(kill(c, SIGKILL), 0);
			join_killed(c, SIGKILL);
			FAILS(execl("/nonexistent", "conf", (char *)NULL), ENOENT);
			EQ(system("true"), 0);
			present(inside);
		}
		mark(0);
		await_mark(1);
		present(inside);
	}
	await_mark(0);
	alive();
	mark(1);
	gone();
	join(p);
}

ROOT_CASE("13 (death)", children_that_go_elsewhere_leave_the_member)
{
	observe(1);
	pid_t p;
	ASYNC(p) {
		int back = OK(open("/proc/self/ns/ipc", O_RDONLY));
		enter();
		for (int i = 0; i < 5; i++) {
			CHILD EQ(unshare(CLONE_NEWIPC), 0);
			CHILD EQ(setns(back, 0), 0);
			CHILD_BY(raw_clone(CLONE_NEWIPC));
			CHILD_BY(raw_clone3(CLONE_NEWIPC));
			join(OK(clone_with_stack(CLONE_NEWIPC, clone_ends, NULL)));
			join(OK(clone_with_stack(CLONE_NEWIPC | CLONE_VM, clone_ends, NULL)));
			join(OK(clone_with_stack(CLONE_NEWIPC | CLONE_VM | CLONE_VFORK, clone_ends, NULL)));
			join(OK(clone_with_stack(CLONE_VM, clone_VM_unshares, NULL)));
			FAILS(unshare(CLONE_NEWIPC | CLONE_PARENT), EINVAL);
			FAILS(raw_clone(CLONE_NEWIPC | CLONE_SYSVSEM), EINVAL);
			present(inside);
		}
		mark(0);
		await_mark(1);
		present(inside);
	}
	await_mark(0);
	alive();
	mark(1);
	gone();
	join(p);
}

ROOT_CASE("13 (death)", namespaces_of_ended_clones_are_gone)
{
	observe(1);
	for (int i = 0; i < 5; i++) {
		CHILD_BY(raw_clone(CLONE_NEWIPC)) settle();
		gone();
		CHILD_BY(raw_clone3(CLONE_NEWIPC)) settle();
		gone();
		CHILD enter();
		gone();
	}
}

static int clone_settles(void *arg UNUSED)
{
	settle();
	return 0;
}
static int clone_enters(void *arg UNUSED)
{
	enter();
	return 0;
}
static int clone_settles_and_is_killed(void *arg UNUSED)
{
	settle();
	syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
	return 1;
}
ROOT_CASE("13 (death)", namespaces_of_ended_clones_that_shared_memory_are_gone)
{
	static const int how[] = {0, CLONE_VM, CLONE_VM | CLONE_VFORK};
	observe(1);
	for (int i = 0; i < 3; i++) {
		join(OK(clone_with_stack(CLONE_NEWIPC | how[i], clone_settles, NULL)));
		gone();
		join(OK(clone_with_stack(how[i], clone_enters, NULL)));
		gone();
		pid_t p = OK(clone_with_stack(CLONE_NEWIPC | how[i], clone_settles_and_is_killed, NULL));
		join_killed(p, SIGKILL);
		gone();
	}
}

/* ---- Descriptors and mounts -------------------------------------------------------------- */

/* A member's namespace, which the observer holds by `fd`; the member has left. */
static int hold(int flags)
{
	pid_t p = member(by_exit);
	int fd = OK(open(ns_path(p), flags));
	int st;
	mark(1);
	EQ(waitpid(p, &st, 0), p);
	EQ(st, EXIT(3));
	alive();
	return fd;
}

ROOT_CASE("14 (kept)", at_close_of_the_last_descriptor)
{
	observe(1);
	int fd = hold(O_RDONLY), d = OK(dup(fd));
	close(fd);
	alive();
	close(d);
	gone();
}

ROOT_CASE("14 (kept)", at_close_of_the_last_descriptor_by_other_means)
{
	observe(1);
	int fd = hold(O_RDONLY);
	OK(dup2(0, fd));
	gone();
}

ROOT_CASE("14 (kept)", at_closefrom)
{
	observe(1);
	hold(O_RDONLY);
	closefrom(3);
	gone();
}

ROOT_CASE("14 (kept)", at_the_end_of_the_process_with_the_descriptor)
{
	observe(1);
	pid_t p;
	ASYNC(p) {
		hold(O_RDONLY);
		mark(5);
		await_mark(6);
	}
	await_mark(5);
	alive();
	mark(6);
	gone();
	join(p);
}

ROOT_CASE("14 (kept)", at_SIGKILL_of_the_process_with_the_descriptor)
{
	observe(1);
	pid_t p;
	ASYNC(p) {
		hold(O_RDONLY);
		mark(5);
		pause();
	}
	await_mark(5);
	alive();
	EQ(kill(p, SIGKILL), 0);
	gone();
	join_killed(p, SIGKILL);
}

ROOT_CASE("14 (kept)", at_close_on_exec_of_the_descriptor)
{
	observe(1);
	pid_t p;
	int st;
	ASYNC(p) {
		hold(O_RDONLY | O_CLOEXEC);
		mark(5);
		await_mark(6);
		become(user(0));
		exec_helper("knows_nothing", NULL, NULL);
	}
	await_mark(5);
	alive();
	mark(6);
	await_stop(p);
	gone();
	EQ(kill(p, SIGCONT), 0);
	EQ(waitpid(p, &st, 0), p);
}

ROOT_CASE("14 (kept)", descriptor_kept_over_exec_keeps_the_namespace)
{
	observe(1);
	pid_t p;
	int st;
	ASYNC(p) {
		hold(O_RDONLY);
		become(user(0));
		exec_helper("knows_nothing", NULL, NULL);
	}
	await_stop(p);
	alive();
	EQ(kill(p, SIGCONT), 0);
	EQ(waitpid(p, &st, 0), p);
	gone();
}

ROOT_CASE("14 (kept)", at_the_end_of_a_flight)
{
	observe(1);
	int s[2], fd = hold(O_RDONLY);
	OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	pass_fd(s[0], fd);
	close(fd);
	alive();
	close(s[0]);
	close(s[1]);
	gone();
}

ROOT_CASE("14 (kept)", O_PATH_descriptor_keeps_the_namespace)
{
	observe(1);
	int fd = hold(O_PATH);
	close(fd);
	gone();
}

ROOT_CASE("14 (kept)", at_the_visitor_s_return)
{
	observe(1);
	int back = OK(open("/proc/self/ns/ipc", O_RDONLY)), fd = hold(O_RDONLY);
	EQ(setns(fd, CLONE_NEWIPC), 0);
	close(fd);
	/* The visitor is the last member now. */
	present(inside);
	alive();
	EQ(setns(back, CLONE_NEWIPC), 0);
	gone();
}

ROOT_CASE("14 (kept)", pidfd_keeps_nothing)
{
	observe(1);
	int st;
	pid_t p = member(by_exit);
	int fd = OK(syscall(434 /* pidfd_open */, p, 0));
	int dir;
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/ns", p);
	dir = OK(open(path, O_RDONLY | O_DIRECTORY));
	mark(1);
	gone();
	EQ(waitpid(p, &st, 0), p);
	FAILS(setns(fd, CLONE_NEWIPC), ESRCH);
	FAILS(openat(dir, "ipc", O_RDONLY), ENOENT);
}

static void own_mounts(void)
{
	EQ(unshare(CLONE_NEWNS), 0);
	EQ(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	EQ(mount("none", "/mnt", "tmpfs", 0, NULL), 0);
	close(OK(open("/mnt/ns", O_RDONLY | O_CREAT, 0600)));
}
static void hold_by_mount(void)
{
	int st;
	own_mounts();
	pid_t p = member(by_exit);
	EQ(mount(ns_path(p), "/mnt/ns", NULL, MS_BIND, NULL), 0);
	mark(1);
	EQ(waitpid(p, &st, 0), p);
	EQ(st, EXIT(3));
	alive();
}

ROOT_CASE("14 (bind mount)", at_umount)
{
	observe(1);
	hold_by_mount();
	EQ(umount("/mnt/ns"), 0);
	gone();
}

ROOT_CASE("14 (bind mount)", at_lazy_umount)
{
	observe(1);
	hold_by_mount();
	EQ(umount2("/mnt/ns", MNT_DETACH), 0);
	gone();
}

ROOT_CASE("14 (bind mount)", at_close_of_a_descriptor_opened_through_it)
{
	observe(1);
	hold_by_mount();
	int fd = OK(open("/mnt/ns", O_RDONLY));
	EQ(umount2("/mnt/ns", MNT_DETACH), 0);
	alive();
	close(fd);
	gone();
}

ROOT_CASE("14 (bind mount)", at_the_end_of_the_mount_namespace)
{
	observe(1);
	pid_t p;
	ASYNC(p) {
		hold_by_mount();
		mark(5);
		await_mark(6);
	}
	await_mark(5);
	alive();
	mark(6);
	join(p);
	gone();
}

ROOT_CASE("14 (bind mount)", member_goes_and_comes_by_the_mount)
{
	observe(1);
	own_mounts();
	int back = OK(open("/proc/self/ns/ipc", O_RDONLY));
	enter();
	EQ(mount("/proc/self/ns/ipc", "/mnt/ns", NULL, MS_BIND, NULL), 0);
	for (int i = 0; i < 3; i++) {
		EQ(setns(back, 0), 0);
		alive();
		missing(inside);
		EQ(setns(OK(open("/mnt/ns", O_RDONLY | O_CLOEXEC)), 0), 0);
		present(inside);
	}
	closefrom(back + 1);
	EQ(setns(back, 0), 0);
	EQ(umount2("/mnt/ns", MNT_DETACH), 0);
	gone();
}

/* ---- Queues that outlive their namespace ------------------------------------------------- */

/* A queue held by a descriptor; its namespace has died by this time. */
static mqd_t survivor(int maxmsg, int sig)
{
	int s[2];
	pid_t p;
	OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	ASYNC(p) {
		EQ(unshare(CLONE_NEWIPC), 0);
		mqd_t q = make(inside, O_RDWR, maxmsg, 1);
		put(q, "a", 7);
		pass_fd(s[1], q);
		if (sig)
			kill(getpid(), sig);
	}
	close(s[1]);
	mqd_t q = accept_fd(s[0]);
	if (sig)
		join_killed(p, sig);
	else
		join(p);
	close(s[0]);
	return q;
}

ROOT_CASE("13 (survivors)", held_queue_sends_and_receives)
{
	observe(2);
	for (int i = 0; i < 2; i++) {
		struct mq_attr a;
		mqd_t q = survivor(2, i ? SIGKILL : 0);
		missing(inside);
		EQ(mq_getattr(q, &a), 0);
		EQ(a.mq_curmsgs, 1);
		EQ(a.mq_maxmsg, 2);
		take(q, "a", 7);
		put(q, "b", 1);
		put(q, "c", 2);
		take(q, "c", 2);
		take(q, "b", 1);
		EQ(mq_setattr(q, &(struct mq_attr){.mq_flags = O_NONBLOCK}, NULL), 0);
		FAILS(mq_receive(q, (char[1]){0}, 1, NULL), EAGAIN);
		struct pollfd f = {.fd = q, .events = POLLIN | POLLOUT};
		EQ(poll(&f, 1, 0), 1);
		EQ(f.revents, POLLOUT);
		EQ(mq_close(q), 0);
		gone();
	}
}

ROOT_CASE("13 (survivors)", held_queue_costs_until_it_is_closed)
{
	observe(1);
	for (int i = 0; i < 2; i++) {
		mqd_t q = survivor(1, i ? SIGKILL : 0), d = OK(dup(q));
		alive();
		EQ(mq_close(q), 0);
		alive();
		take(d, "a", 7);
		EQ(mq_close(d), 0);
		gone();
	}
}

ROOT_CASE("13 (survivors)", held_queue_wakes_sleepers)
{
	observe(3);
	mqd_t q = survivor(1, 0);
	pid_t p;
	take(q, "a", 7);
	ASYNC(p) take(q, "b", 1);
	await_asleep(p);
	put(q, "b", 1);
	join(p);
	put(q, "c", 1);
	ASYNC(p) put(q, "d", 1);
	await_asleep(p);
	take(q, "c", 1);
	join(p);
	take(q, "d", 1);
}

ROOT_CASE("13 (survivors)", held_queue_notifies)
{
	observe(3);
	block(SIGUSR1);
	mqd_t q = survivor(1, 0);
	take(q, "a", 7);
	EQ(mq_notify(q, &(struct sigevent){.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1}), 0);
	FAILS(mq_notify(q, &(struct sigevent){.sigev_notify = SIGEV_NONE}), EBUSY);
	CHILD put(q, "b", 1);
	EQ(pending_signal(SIGUSR1, NULL), 1);
	EQ(mq_notify(q, &(struct sigevent){.sigev_notify = SIGEV_NONE}), 0);
	EQ(mq_notify(q, NULL), 0);
}

HELPER(has_survivor)
{
	(void)argc;
	mqd_t q = atoi(argv[0]);
	missing(argv[1]);
	take(q, "a", 7);
	put(q, "b", 1);
	return 0;
}

ROOT_CASE("13 (survivors)", held_queue_is_inherited_and_passed_on)
{
	observe(3);
	mqd_t q = survivor(1, 0);
	OK(fcntl(q, F_SETFD, 0));
	CHILD {
		become(user(0));
		exec_helper("has_survivor", number(q), inside);
	}
	take(q, "b", 1);
	int s[2];
	pid_t p;
	OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	ASYNC(p) {
		EQ(mq_close(q), 0);
		EQ(unshare(CLONE_NEWIPC), 0);
		put(accept_fd(s[1]), "c", 2);
	}
	pass_fd(s[0], q);
	join(p);
	take(q, "c", 2);
}

ROOT_CASE("13 (survivors)", sleeper_outlives_the_namespace_of_its_queue)
{
	observe(3);
	int s[2];
	pid_t p, sleeper;
	OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	OK(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
	ASYNC(p) {
		enter();
		mqd_t q = OK(mq_open(inside, O_RDWR));
		pid_t c;
		ASYNC(c) {
			EQ(unshare(CLONE_NEWIPC), 0);
			take(q, "x", 5);
		}
		shared->value[0] = c;
		pass_fd(s[1], q);
		await_asleep(c);
	}
	mqd_t q = accept_fd(s[0]);
	join(p);
	sleeper = shared->value[0];
	await_asleep(sleeper);
	missing(inside);
	put(q, "x", 5);
	join(sleeper);
}

ROOT_CASE("13 (survivors)", unlinked_queue_of_a_dead_namespace_costs_until_closed)
{
	observe(1);
	int s[2];
	pid_t p;
	OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	ASYNC(p) {
		EQ(unshare(CLONE_NEWIPC), 0);
		mqd_t q = make(inside, O_RDWR, 1, 1);
		EQ(mq_unlink(inside), 0);
		pass_fd(s[1], q);
	}
	mqd_t q = accept_fd(s[0]);
	join(p);
	alive();
	put(q, "x", 1);
	take(q, "x", 1);
	EQ(mq_close(q), 0);
	gone();
}

ROOT_CASE("13 (survivors)", name_of_a_survivor_is_free_everywhere)
{
	observe(3);
	mqd_t q = survivor(1, 0);
	missing(inside);
	FAILS(mq_unlink(inside), ENOENT);
	mqd_t r = make(inside, O_RDWR, 1, 1);
	EQ(curmsgs(r), 0);
	CHILD {
		EQ(unshare(CLONE_NEWIPC), 0);
		missing(inside);
		EQ(mq_close(make(inside, O_RDWR, 1, 1)), 0);
	}
	put(r, "z", 0);
	take(q, "a", 7);
	take(r, "z", 0);
}

ROOT_CASE("13 (survivors)", limits_file_opened_before_does_not_bring_the_namespace_back)
{
	observe(1);
	int fd, st;
	pid_t p = member(by_exit);
	int ns = OK(open(ns_path(p), O_RDONLY)), back = OK(open("/proc/self/ns/ipc", O_RDONLY));
	EQ(setns(ns, 0), 0);
	fd = OK(open("/proc/sys/fs/mqueue/msg_max", O_RDONLY));
	EQ(setns(back, 0), 0);
	close(ns);
	mark(1);
	gone();
	EQ(waitpid(p, &st, 0), p);
	close(fd);
	missing(inside);
}
