/*
 * Contract section 13: a namespace is inherited by every road.
 *
 * Who arrives proves where it is: its link reads as the sender's did, and it finds a queue which
 * exists in that namespace only; there it leaves word, which the sender receives.
 */
#include "conf.h"
#include <dirent.h>
#include <spawn.h>
#include <wordexp.h>

#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC 4
#endif

/* ---- Departure and arrival --------------------------------------------------------------- */

static char program[PATH_MAX];
static const char *word;     /* the queue's name */
static char where[32];	     /* the number in the link */
static mqd_t box = -1;	     /* the sender's end of it */
static char preload[PATH_MAX + 16]; /* LD_PRELOAD=…, or nothing */

/* Goes to a new namespace, leaves the outer one a queue of another shape at the same name. */
static void depart(void)
{
	ssize_t n = OK(readlink("/proc/self/exe", program, sizeof program - 1));
	program[n] = 0;
	if (getenv("LD_PRELOAD"))
		snprintf(preload, sizeof preload, "LD_PRELOAD=%s", getenv("LD_PRELOAD"));
	word = qname("word");
	EQ(mq_close(make(word, O_RDWR, 1, 1)), 0);
	EQ(unshare(CLONE_NEWIPC), 0);
	snprintf(where, sizeof where, "%lu", my_ns());
	box = make(word, O_RDWR, 4, 64);
}
static void arrive(const char *ns, const char *name)
{
	EQ(leader_ns(), strtoul(ns, NULL, 10));
	EQ(my_ns(), strtoul(ns, NULL, 10));
	mqd_t q = OK(mq_open(name, O_WRONLY));
	EQ(mq_send(q, "here", 4, 0), 0);
	EQ(mq_close(q), 0);
}
static void await_word(void)
{
	char b[64];
	struct timespec t = in_ms(15000);
	EQ(mq_timedreceive(box, b, sizeof b, NULL, &t), 4);
	SAME(b, "here", 4);
}

/* `conf_ns_roads @here … NS NAME` */
HELPER(here)
{
	TRUE(argc >= 2);
	arrive(argv[argc - 2], argv[argc - 1]);
	return 0;
}
/* argv of it, and its environment where the program makes its own. */
#define HERE ((char *[]){"conf", "@here", where, (char *)word, NULL})
#define ONLY_PRELOAD ((char *[]){preload[0] ? preload : NULL, NULL})

/* The block runs in a child, which the caller waits for and hears from. */
#define ARRIVES for (int arr_ = 0; arr_ == 0; arr_ = 1, await_word()) CHILD
/* The block execs; it does not come back. */
#define EXECS for (int exe_ = 0; exe_ == 0; exe_ = 1, await_word())                              \
		for (pid_t child_ = conf_fork(); child_ == 0 || (join(child_), 0);               \
		     FAIL("exec came back: %s", errno_name(errno)))

/* ---- Children that stay the same program ------------------------------------------------- */

ROOT_CASE("13", by_fork)
{
	depart();
	ARRIVES arrive(where, word);
}

ROOT_CASE("13", by_fork_of_fork)
{
	depart();
	ARRIVES CHILD CHILD arrive(where, word);
}

ROOT_CASE("13", by_raw_fork)
{
	depart();
#ifdef SYS_fork
	CHILD_BY(syscall(SYS_fork)) arrive(where, word);
	await_word();
#endif
	CHILD_BY(raw_clone(0)) arrive(where, word);
	await_word();
}

ROOT_CASE("13", by_raw_clone_with_other_namespaces)
{
	depart();
	static const int flags[] = {CLONE_NEWUTS, CLONE_NEWNS, CLONE_NEWNET,  CLONE_NEWPID,
				    CLONE_FS,	  CLONE_FILES, CLONE_SYSVSEM, CLONE_FS | CLONE_FILES | CLONE_SYSVSEM};
	for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
		CHILD_BY(raw_clone(flags[i])) arrive(where, word);
		await_word();
	}
}

ROOT_CASE("13", by_clone3)
{
	depart();
	CHILD_BY(raw_clone3(0)) arrive(where, word);
	await_word();
	CHILD_BY(raw_clone3(CLONE_NEWUTS)) arrive(where, word);
	await_word();
}

ROOT_CASE("13", by_vfork)
{
	depart();
	pid_t p = vfork();
	if (p == 0) {
		arrive(where, word);
		_exit(0);
	}
	join(p);
	await_word();
	arrive(where, word);
	await_word();
}

static int arriving(void *arg UNUSED)
{
	arrive(where, word);
	return 0;
}

ROOT_CASE("13", by_clone)
{
	depart();
	join(OK(clone_with_stack(0, arriving, NULL)));
	await_word();
	join(OK(clone_with_stack(CLONE_FS | CLONE_FILES, arriving, NULL)));
	await_word();
}

ROOT_CASE("13", by_clone_VM)
{
	depart();
	join(OK(clone_with_stack(CLONE_VM, arriving, NULL)));
	await_word();
	join(OK(clone_with_stack(CLONE_VM | CLONE_VFORK, arriving, NULL)));
	await_word();
	join(OK(clone_with_stack(CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND, arriving, NULL)));
	await_word();
	arrive(where, word);
	await_word();
}

static void *arriving_thread(void *arg UNUSED)
{
	arrive(where, word);
	return NULL;
}

ROOT_CASE("13", by_pthread_create)
{
	depart();
	in_thread(arriving_thread, NULL);
	await_word();
	CHILD in_thread(arriving_thread, NULL);
	await_word();
}

static void *detached_thread(void *arg)
{
	pthread_attr_t a;
	pthread_t t;
	/* A grandchild thread which nobody joins. */
	EQ(pthread_attr_init(&a), 0);
	EQ(pthread_attr_setdetachstate(&a, PTHREAD_CREATE_DETACHED), 0);
	EQ(pthread_create(&t, &a, arriving_thread, arg), 0);
	return NULL;
}

ROOT_CASE("13", by_detached_threads_whose_creator_has_ended)
{
	depart();
	in_thread(detached_thread, NULL);
	await_word();
}

static void *forking_thread(void *arg UNUSED)
{
	CHILD arrive(where, word);
	return NULL;
}

ROOT_CASE("13", by_fork_in_a_thread)
{
	depart();
	in_thread(forking_thread, NULL);
	await_word();
}

static void arrive_at_exit(void)
{
	arrive(where, word);
}

ROOT_CASE("13", by_fork_up_to_atexit)
{
	depart();
	CHILD {
		atexit(arrive_at_exit);
		exit(0);
	}
	await_word();
}

static void arrive_in_handler(int sig UNUSED)
{
	arrive(where, word);
}

ROOT_CASE("13", by_fork_into_a_signal_handler)
{
	depart();
	ARRIVES {
		OK(sigaction(SIGUSR1, &(struct sigaction){.sa_handler = arrive_in_handler}, NULL));
		raise(SIGUSR1);
	}
}

/* ---- Each exec --------------------------------------------------------------------------- */

ROOT_CASE("13", by_execl)
{
	depart();
	EXECS execl(program, "conf", "@here", where, word, (char *)NULL);
}

ROOT_CASE("13", by_execlp)
{
	depart();
	EXECS execlp(program, "conf", "@here", where, word, (char *)NULL);
}

ROOT_CASE("13", by_execle)
{
	depart();
	EXECS execle(program, "conf", "@here", where, word, (char *)NULL, environ);
}

ROOT_CASE("13", by_execv)
{
	depart();
	EXECS execv(program, HERE);
}

ROOT_CASE("13", by_execve)
{
	depart();
	EXECS execve(program, HERE, environ);
}

ROOT_CASE("13", by_execvp)
{
	depart();
	EXECS execvp(program, HERE);
}

ROOT_CASE("13", by_execvpe)
{
	depart();
	EXECS execvpe(program, HERE, environ);
}

/* The three that look in PATH find it there. */
static void path_to_program(const char **base)
{
	char *slash = strrchr(program, '/'), env[PATH_MAX + 64];
	snprintf(env, sizeof env, "/nonexistent:%.*s:/bin", (int)(slash - program), program);
	OK(setenv("PATH", env, 1));
	*base = slash + 1;
}

ROOT_CASE("13", by_execlp_through_PATH)
{
	const char *base;
	depart();
	path_to_program(&base);
	EXECS execlp(base, "conf", "@here", where, word, (char *)NULL);
}

ROOT_CASE("13", by_execvp_through_PATH)
{
	const char *base;
	depart();
	path_to_program(&base);
	EXECS execvp(base, HERE);
}

ROOT_CASE("13", by_execvpe_through_PATH)
{
	const char *base;
	depart();
	path_to_program(&base);
	EXECS execvpe(base, HERE, ONLY_PRELOAD);
}

ROOT_CASE("13", by_fexecve)
{
	depart();
	EXECS fexecve(OK(open(program, O_RDONLY | O_CLOEXEC)), HERE, environ);
}

ROOT_CASE("13", by_execveat)
{
	depart();
	EXECS execveat(AT_FDCWD, program, HERE, environ, 0);
	EXECS execveat(OK(open(program, O_PATH)), "", HERE, environ, AT_EMPTY_PATH);
	EXECS execveat(OK(open("/", O_PATH | O_DIRECTORY)), program + 1, HERE, environ, 0);
}

ROOT_CASE("13", by_syscall_execve)
{
	depart();
	EXECS syscall(SYS_execve, program, HERE, environ);
	EXECS syscall(SYS_execveat, AT_FDCWD, program, HERE, environ, 0);
}

/* A script: its interpreter is what runs. */
ROOT_CASE("13", by_exec_of_a_script)
{
	depart();
	char script[PATH_MAX + 128];
	int n = snprintf(script, sizeof script, "#!%s @here\n", program);
	if (n > 120)
		return; /* too long a path for a first line */
	int fd = OK(memfd_create("script", 0));
	EQ(write(fd, script, n), n);
	/* The program gets the script's path besides. */
	EXECS {
		char *argv[] = {"script", where, (char *)word, NULL};
		char path[64];
		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
		fchmod(fd, 0700);
		execve(path, argv, environ);
	}
}

ROOT_CASE("13", by_exec_of_a_shell)
{
	depart();
	char cmd[PATH_MAX + 128];
	snprintf(cmd, sizeof cmd, "'%s' @here %s %s", program, where, word);
	EXECS execl("/bin/sh", "sh", "-c", cmd, (char *)NULL);
	snprintf(cmd, sizeof cmd, "exec '%s' @here %s %s", program, where, word);
	EXECS execl("/bin/sh", "sh", "-c", cmd, (char *)NULL);
	snprintf(cmd, sizeof cmd, "('%s' @here %s %s) & wait $!", program, where, word);
	EXECS execl("/bin/sh", "sh", "-c", cmd, (char *)NULL);
	snprintf(cmd, sizeof cmd, "true | '%s' @here %s %s | cat", program, where, word);
	EXECS execl("/bin/sh", "sh", "-c", cmd, (char *)NULL);
}

ROOT_CASE("13", by_vfork_and_exec)
{
	depart();
	char **argv = HERE;
	pid_t p = vfork();
	if (p == 0) {
		execve(program, argv, environ);
		_exit(127);
	}
	join(p);
	await_word();
	/* And the parent is none the worse for it. */
	arrive(where, word);
	await_word();
}

static int execs(void *argv)
{
	execve(program, argv, environ);
	return 127;
}

ROOT_CASE("13", by_clone_VM_VFORK_and_exec)
{
	depart();
	char **argv = HERE;
	join(OK(clone_with_stack(CLONE_VM | CLONE_VFORK, execs, argv)));
	await_word();
	join(OK(clone_with_stack(CLONE_VM, execs, argv)));
	await_word();
	join(OK(clone_with_stack(0, execs, argv)));
	await_word();
	arrive(where, word);
	await_word();
}

ROOT_CASE("13", by_raw_clone_and_exec)
{
	depart();
	CHILD_BY(raw_clone(0)) execs(HERE);
	await_word();
	CHILD_BY(raw_clone3(0)) execs(HERE);
	await_word();
}

static void *execs_at_once(void *arg)
{
	execs(arg);
	FAIL("exec came back: %s", errno_name(errno));
}

ROOT_CASE("13", by_exec_in_a_thread)
{
	depart();
	EXECS in_thread(execs_at_once, HERE);
}

/* The program that a thread execs is where the thread was, wherever the leader was. */
static void *unshares_and_execs(void *arg UNUSED)
{
	EQ(unshare(CLONE_NEWIPC), 0);
	snprintf(where, sizeof where, "%lu", my_ns());
	make(word, O_RDWR, 1, 64);
	execs_at_once(HERE);
	return NULL;
}

ROOT_CASE("13", by_exec_in_a_thread_that_is_elsewhere)
{
	depart();
	CHILD in_thread(unshares_and_execs, NULL);
	/* Not here. */
	EQ(curmsgs(box), 0);
}

static void *waits_for_ever(void *arg UNUSED)
{
	for (;;)
		pause();
	return NULL;
}

ROOT_CASE("13", by_exec_with_other_threads)
{
	depart();
	EXECS {
		pthread_t t;
		for (int i = 0; i < 3; i++)
			EQ(pthread_create(&t, NULL, waits_for_ever, NULL), 0);
		execs(HERE);
	}
}

static void *goes_elsewhere_and_waits(void *arg UNUSED)
{
	EQ(unshare(CLONE_NEWIPC), 0);
	mark(3);
	return waits_for_ever(NULL);
}

ROOT_CASE("13", by_exec_with_threads_elsewhere)
{
	depart();
	EXECS {
		pthread_t t;
		for (int i = 0; i < 3; i++)
			EQ(pthread_create(&t, NULL, goes_elsewhere_and_waits, NULL), 0);
		await_marks(3, 3);
		execs(HERE);
	}
}

/* ---- Rebuilt environments ---------------------------------------------------------------- */

ROOT_CASE("13 (environment)", by_execve_with_a_rebuilt_environment)
{
	depart();
	EXECS execve(program, HERE, ONLY_PRELOAD);
}

ROOT_CASE("13 (environment)", by_execle_with_a_rebuilt_environment)
{
	depart();
	EXECS execle(program, "conf", "@here", where, word, (char *)NULL, ONLY_PRELOAD);
}

ROOT_CASE("13 (environment)", by_execvpe_with_a_rebuilt_environment)
{
	depart();
	EXECS execvpe(program, HERE, ONLY_PRELOAD);
}

ROOT_CASE("13 (environment)", by_fexecve_with_a_rebuilt_environment)
{
	depart();
	EXECS fexecve(OK(open(program, O_RDONLY | O_CLOEXEC)), HERE, ONLY_PRELOAD);
}

ROOT_CASE("13 (environment)", by_execveat_with_a_rebuilt_environment)
{
	depart();
	EXECS execveat(OK(open(program, O_PATH)), "", HERE, ONLY_PRELOAD, AT_EMPTY_PATH);
}

ROOT_CASE("13 (environment)", by_syscall_execve_with_a_rebuilt_environment)
{
	depart();
	EXECS syscall(SYS_execve, program, HERE, ONLY_PRELOAD);
}

ROOT_CASE("13 (environment)", by_posix_spawn_with_a_rebuilt_environment)
{
	pid_t p;
	depart();
	EQ(posix_spawn(&p, program, NULL, NULL, HERE, ONLY_PRELOAD), 0);
	join(p);
	await_word();
}

ROOT_CASE("13 (environment)", by_vfork_and_exec_with_a_rebuilt_environment)
{
	depart();
	char **argv = HERE, **env = ONLY_PRELOAD;
	pid_t p = vfork();
	if (p == 0) {
		execve(program, argv, env);
		_exit(127);
	}
	join(p);
	await_word();
}

ROOT_CASE("13 (environment)", by_exec_after_clearenv)
{
	depart();
	EXECS {
		EQ(clearenv(), 0);
		if (preload[0])
			EQ(putenv(preload), 0);
		execv(program, HERE);
	}
}

ROOT_CASE("13 (environment)", by_env_i)
{
	depart();
	char cmd[2 * PATH_MAX + 128];
	snprintf(cmd, sizeof cmd, "env -i %s '%s' @here %s %s", preload, program, where, word);
	EQ(system(cmd), 0);
	await_word();
}

/* argv: NS NAME, then what the environment must be. Goes on with the same one. */
HELPER(again_and_here)
{
	int n = 0;
	for (char **e = environ; *e; e++)
		n++;
	EQ(n, getenv("LD_PRELOAD") != NULL);
	arrive(argv[0], argv[1]);
	char at[] = "@here";
	(void)argc;
	execve("/proc/self/exe", (char *[]){"conf", at, argv[0], argv[1], NULL}, environ);
	FAIL("exec: %s", errno_name(errno));
}

ROOT_CASE("13 (environment)", rebuilt_environment_is_what_arrives)
{
	depart();
	char *argv[] = {"conf", "@again_and_here", where, (char *)word, NULL};
	EXECS execve(program, argv, ONLY_PRELOAD);
	await_word();
}

/* ---- posix_spawn, system, popen ---------------------------------------------------------- */

ROOT_CASE("13", by_posix_spawn)
{
	pid_t p;
	depart();
	EQ(posix_spawn(&p, program, NULL, NULL, HERE, environ), 0);
	join(p);
	await_word();
	EQ(posix_spawn(&p, "/proc/self/exe", NULL, NULL, HERE, environ), 0);
	join(p);
	await_word();
	arrive(where, word);
	await_word();
}

ROOT_CASE("13", by_posix_spawnp)
{
	pid_t p;
	const char *base;
	depart();
	path_to_program(&base);
	EQ(posix_spawnp(&p, base, NULL, NULL, HERE, environ), 0);
	join(p);
	await_word();
	EQ(posix_spawnp(&p, program, NULL, NULL, HERE, ONLY_PRELOAD), 0);
	join(p);
	await_word();
}

ROOT_CASE("13", by_posix_spawn_with_attributes)
{
	static const short flags[] = {POSIX_SPAWN_SETSID, POSIX_SPAWN_SETPGROUP, POSIX_SPAWN_RESETIDS,
				      POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF};
	pid_t p;
	depart();
	for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
		posix_spawnattr_t a;
		EQ(posix_spawnattr_init(&a), 0);
		EQ(posix_spawnattr_setflags(&a, flags[i]), 0);
		EQ(posix_spawn(&p, program, NULL, &a, HERE, environ), 0);
		join(p);
		await_word();
	}
}

ROOT_CASE("13", by_posix_spawn_that_closes_everything)
{
	posix_spawn_file_actions_t fa;
	pid_t p;
	depart();
	OK(fcntl(box, F_SETFD, 0));
	EQ(posix_spawn_file_actions_init(&fa), 0);
	EQ(posix_spawn_file_actions_addclosefrom_np(&fa, 3), 0);
	EQ(posix_spawn(&p, program, &fa, NULL, HERE, environ), 0);
	join(p);
	await_word();
	EQ(posix_spawn(&p, program, &fa, NULL, HERE, ONLY_PRELOAD), 0);
	join(p);
	await_word();
}

ROOT_CASE("13", by_posix_spawn_with_file_actions)
{
	posix_spawn_file_actions_t fa;
	pid_t p;
	depart();
	EQ(posix_spawn_file_actions_init(&fa), 0);
	for (int fd = 3; fd < 100; fd++)
		if (fd != box)
			EQ(posix_spawn_file_actions_addclose(&fa, fd), 0);
	EQ(posix_spawn_file_actions_addopen(&fa, 5, "/dev/null", O_RDONLY, 0), 0);
	EQ(posix_spawn_file_actions_adddup2(&fa, 5, 80), 0);
	EQ(posix_spawn_file_actions_addchdir_np(&fa, "/"), 0);
	EQ(posix_spawn(&p, program, &fa, NULL, HERE, environ), 0);
	join(p);
	await_word();
}

ROOT_CASE("13", failed_posix_spawn_leaves_the_caller_where_it_was)
{
	pid_t p;
	depart();
	for (int i = 0; i < 20; i++)
		EQ(posix_spawn(&p, "/nonexistent", NULL, NULL, HERE, environ), ENOENT);
	arrive(where, word);
	await_word();
	EQ(posix_spawn(&p, program, NULL, NULL, HERE, environ), 0);
	join(p);
	await_word();
}

ROOT_CASE("13", by_system)
{
	depart();
	char cmd[2 * PATH_MAX + 256];
	snprintf(cmd, sizeof cmd, "'%s' @here %s %s", program, where, word);
	EQ(system(cmd), 0);
	await_word();
	snprintf(cmd, sizeof cmd, "'%s' @here %s %s && '%s' @here %s %s; exit $?", program, where, word, program,
		 where, word);
	EQ(system(cmd), 0);
	await_word();
	await_word();
	arrive(where, word);
	await_word();
}

ROOT_CASE("13", by_popen)
{
	depart();
	char cmd[PATH_MAX + 128];
	snprintf(cmd, sizeof cmd, "'%s' @here %s %s", program, where, word);
	for (int i = 0; i < 3; i++) {
		FILE *f = popen(cmd, i == 0 ? "r" : i == 1 ? "w" : "re");
		TRUE(f);
		EQ(pclose(f), 0);
		await_word();
	}
}

ROOT_CASE("13", by_wordexp)
{
	wordexp_t w;
	depart();
	char cmd[PATH_MAX + 128];
	snprintf(cmd, sizeof cmd, "$('%s' @here %s %s)", program, where, word);
	EQ(wordexp(cmd, &w, WRDE_SHOWERR), 0);
	await_word();
}

/* ---- Daemons ----------------------------------------------------------------------------- */

static void close_loop(void)
{
	for (int fd = 1023; fd >= 0; fd--)
		close(fd);
}
static void close_from_0(void)
{
	closefrom(0);
}
static void close_range_all(void)
{
	OK(syscall(436 /* close_range */, 0, ~0u, 0));
}
static void close_range_on_exec(void)
{
	OK(syscall(436, 0, ~0u, CLOSE_RANGE_CLOEXEC));
}
static void close_listed(void)
{
	/* As programs do that look which ones are open. */
	DIR *d = opendir("/proc/self/fd");
	struct dirent *e;
	TRUE(d);
	while ((e = readdir(d)))
		if (e->d_name[0] != '.' && atoi(e->d_name) != dirfd(d))
			close(atoi(e->d_name));
	closedir(d);
}
static void close_with_system_calls(void)
{
	for (int fd = 0; fd < 1024; fd++)
		syscall(SYS_close, fd);
}
static void dup_over_everything(void)
{
	int null = OK(open("/dev/null", O_RDWR));
	for (int fd = 0; fd < 256; fd++)
		if (fd != null)
			OK(dup2(null, fd));
}
static void (*const close_everything[])(void) = {
	close_loop,   close_from_0,	       close_range_all,	    close_range_on_exec,
	close_listed, close_with_system_calls, dup_over_everything,
};
enum { WAYS_TO_CLOSE = sizeof close_everything / sizeof *close_everything };

/* An orphan of this case comes to it in the end. */
static void adopt_orphans(void)
{
	OK(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
}
static void join_orphan(void)
{
	int st;
	TRUE(waitpid(-1, &st, 0) > 0);
	EQ(st, 0);
}
/* Forks twice, leaves session, directory and descriptors behind, and does the work. */
static void daemonize(void (*closing)(void), void (*work)(void))
{
	adopt_orphans();
	CHILD {
		OK(setsid());
		if (conf_fork())
			_exit(0);
		OK(chdir("/"));
		umask(0);
		closing();
		work();
		_exit(0);
	}
	await_word();
	join_orphan();
}
static void arrives(void)
{
	arrive(where, word);
}
static void execs_here(void)
{
	execs(HERE);
}
static void execs_here_bare(void)
{
	execve(program, HERE, ONLY_PRELOAD);
}
static void forks_and_execs(void)
{
	CHILD execs(HERE);
}
static void spawns(void)
{
	pid_t p;
	EQ(posix_spawn(&p, program, NULL, NULL, HERE, environ), 0);
	join(p);
}

ROOT_CASE("13 (daemon)", by_a_daemon_that_has_closed_everything)
{
	depart();
	for (int i = 0; i < WAYS_TO_CLOSE; i++)
		daemonize(close_everything[i], arrives);
}

ROOT_CASE("13 (daemon)", by_exec_of_a_daemon_that_has_closed_everything)
{
	depart();
	for (int i = 0; i < WAYS_TO_CLOSE; i++)
		daemonize(close_everything[i], execs_here);
}

ROOT_CASE("13 (daemon)", by_exec_of_a_daemon_with_a_rebuilt_environment)
{
	depart();
	for (int i = 0; i < WAYS_TO_CLOSE; i++)
		daemonize(close_everything[i], execs_here_bare);
}

ROOT_CASE("13 (daemon)", by_children_of_a_daemon)
{
	depart();
	for (int i = 0; i < WAYS_TO_CLOSE; i++) {
		daemonize(close_everything[i], forks_and_execs);
		daemonize(close_everything[i], spawns);
	}
}

ROOT_CASE("13 (daemon)", by_daemon_3)
{
	depart();
	adopt_orphans();
	CHILD {
		OK(daemon(0, 0));
		closefrom(3);
		execs(HERE);
	}
	await_word();
	join_orphan();
}

static void waits_for_the_sender(void)
{
	/* The sender is about to leave; nobody but this daemon is left here. */
	await_mark(5);
	mqd_t q = make("/daemon-s-own", O_RDWR, 1, 8);
	EQ(leader_ns(), strtoul(where, NULL, 10));
	TRUE(mq_open(word, O_WRONLY) >= 0);
	put(q, "x", 0);
	CHILD {
		EQ(leader_ns(), strtoul(where, NULL, 10));
		take(OK(mq_open("/daemon-s-own", O_RDWR)), "x", 0);
	}
	arrive(where, word);
}

ROOT_CASE("13 (daemon)", daemon_keeps_the_namespace_when_all_others_have_left)
{
	depart();
	adopt_orphans();
	CHILD {
		OK(setsid());
		if (conf_fork())
			_exit(0);
		closefrom(0);
		waits_for_the_sender();
		_exit(0);
	}
	EQ(unshare(CLONE_NEWIPC), 0);
	mark(5);
	await_word();
	join_orphan();
}

/* ---- What comes along -------------------------------------------------------------------- */

/* argv: NS NAME. No descriptor is open but the three that were. */
HELPER(finds_no_descriptors)
{
	arrive(argv[0], argv[1]);
	EQ(open("/dev/null", O_RDONLY), 3);
	DIR *d = opendir("/proc/self/fd");
	struct dirent *e;
	TRUE(d);
	(void)argc;
	while ((e = readdir(d)))
		if (e->d_name[0] != '.' && atoi(e->d_name) > 3 && atoi(e->d_name) != dirfd(d))
			FAIL("descriptor %s is open", e->d_name);
	closedir(d);
	return 0;
}

ROOT_CASE("13", exec_brings_no_descriptors_along)
{
	depart();
	char *argv[] = {"conf", "@finds_no_descriptors", where, (char *)word, NULL};
	EXECS execve(program, argv, environ);
	EXECS execve(program, argv, ONLY_PRELOAD);
	pid_t p;
	EQ(posix_spawn(&p, program, NULL, NULL, argv, environ), 0);
	join(p);
	await_word();
}

static int lowest_free(void)
{
	int fd = OK(dup(0));
	close(fd);
	return fd;
}

ROOT_CASE("13", inheriting_costs_the_parent_no_descriptors)
{
	depart();
	int free = lowest_free();
	CHILD arrive(where, word);
	await_word();
	EXECS execs(HERE);
	pid_t p;
	EQ(posix_spawn(&p, program, NULL, NULL, HERE, environ), 0);
	join(p);
	await_word();
	EQ(system("true"), 0);
	char **argv = HERE;
	p = vfork();
	if (p == 0) {
		execve(program, argv, environ);
		_exit(127);
	}
	join(p);
	await_word();
	in_thread(arriving_thread, NULL);
	await_word();
	EQ(lowest_free(), free);
}

ROOT_CASE("13", exec_without_a_free_descriptor_arrives)
{
	depart();
	EXECS {
		fill_descriptors();
		/* All of them open; only the three survive. */
		for (int fd = 3; fd < 64; fd++)
			OK(fcntl(fd, F_SETFD, FD_CLOEXEC));
		execs(HERE);
	}
}

ROOT_CASE("13", failed_exec_leaves_the_caller_where_it_was)
{
	depart();
	int free = lowest_free();
	CHILD {
		for (int i = 0; i < 20; i++) {
			FAILS(execve("/nonexistent", HERE, environ), ENOENT);
			FAILS(execve("/etc/passwd", HERE, environ), EACCES);
			FAILS(execveat(AT_FDCWD, "/nonexistent", HERE, environ, 0), ENOENT);
			FAILS(fexecve(9999, HERE, environ), EBADF);
			FAILS(execlp("conf-no-such-program", "conf", (char *)NULL), ENOENT);
		}
		EQ(lowest_free(), free);
		arrive(where, word);
		CHILD arrive(where, word);
		execs(HERE);
		FAIL("exec came back");
	}
	await_word();
	await_word();
	await_word();
}

ROOT_CASE("13", failed_exec_of_a_vfork_child_leaves_the_parent_where_it_was)
{
	depart();
	int free = lowest_free();
	for (int i = 0; i < 5; i++) {
		char **argv = HERE;
		pid_t p = vfork();
		if (p == 0) {
			execve("/nonexistent", argv, environ);
			_exit(0);
		}
		join(p);
	}
	EQ(lowest_free(), free);
	arrive(where, word);
	await_word();
	EXECS execs(HERE);
}

/* ---- Far down ---------------------------------------------------------------------------- */

/* argv: levels left, NS NAME. Every odd level is the child of a fork, every even one exec'ed. */
HELPER(deeper)
{
	(void)argc;
	int left = atoi(argv[0]);
	if (left == 0) {
		arrive(argv[1], argv[2]);
		return 0;
	}
	EQ(leader_ns(), strtoul(argv[1], NULL, 10));
	CHILD {
		EQ(leader_ns(), strtoul(argv[1], NULL, 10));
		execl("/proc/self/exe", "conf", "@deeper", number(left - 2), argv[1], argv[2], (char *)NULL);
		FAIL("exec: %s", errno_name(errno));
	}
	return 0;
}

ROOT_CASE("13", a_hundred_levels_of_fork_and_exec)
{
	depart();
	EXECS execl(program, "conf", "@deeper", "100", where, word, (char *)NULL);
}

static void down(int left)
{
	if (left == 0) {
		arrive(where, word);
		return;
	}
	if (left % 10 == 0)
		EQ(leader_ns(), strtoul(where, NULL, 10));
	CHILD down(left - 1);
}

ROOT_CASE("13", a_hundred_levels_of_fork)
{
	depart();
	down(100);
	await_word();
}

/* argv: execs left, NS NAME. One process all along. */
HELPER(again)
{
	(void)argc;
	int left = atoi(argv[0]);
	if (left == 0) {
		arrive(argv[1], argv[2]);
		return 0;
	}
	execl("/proc/self/exe", "conf", "@again", number(left - 1), argv[1], argv[2], (char *)NULL);
	FAIL("exec: %s", errno_name(errno));
}

ROOT_CASE("13", a_hundred_execs_of_one_process)
{
	depart();
	EXECS execl(program, "conf", "@again", "100", where, word, (char *)NULL);
}

/* argv: levels left, outer NS NAME. Each level makes a namespace of its own. */
HELPER(each_its_own)
{
	(void)argc;
	int left = atoi(argv[0]);
	unsigned long outer = strtoul(argv[1], NULL, 10);
	char inner[32];
	EQ(leader_ns(), outer);
	TRUE(mq_open(argv[2], O_RDWR) >= 0);
	if (left == 0)
		return 0;
	EQ(unshare(CLONE_NEWIPC), 0);
	TRUE(leader_ns() != outer);
	missing(argv[2]);
	EQ(mq_close(make(argv[2], O_RDWR, 1, 8)), 0);
	snprintf(inner, sizeof inner, "%lu", leader_ns());
	CHILD {
		execl("/proc/self/exe", "conf", "@each_its_own", number(left - 1), inner, argv[2], (char *)NULL);
		FAIL("exec: %s", errno_name(errno));
	}
	EQ(leader_ns(), strtoul(inner, NULL, 10));
	present(argv[2]);
	return 0;
}

ROOT_CASE("13", twenty_levels_each_in_a_namespace_of_its_own)
{
	depart();
	CHILD {
		execl(program, "conf", "@each_its_own", "20", where, word, (char *)NULL);
		FAIL("exec: %s", errno_name(errno));
	}
	arrive(where, word);
	await_word();
}

ROOT_CASE("13", grandchildren_stay_when_their_parents_are_gone)
{
	depart();
	adopt_orphans();
	CHILD {
		CHILD {
			pid_t p;
			ASYNC(p) {
				await_mark(6);
				arrive(where, word);
				execs(HERE);
			}
		}
	}
	mark(6);
	await_word();
	await_word();
	join_orphan();
}

ROOT_CASE("13", program_exec_ed_by_another_user_stays)
{
	depart();
	OK(fchmod(box, 0622));
	EXECS {
		become(user(0));
		execs(HERE);
	}
}

ROOT_CASE("13", program_unshares_for_those_it_execs)
{
	depart();
	CHILD {
		EQ(unshare(CLONE_NEWIPC), 0);
		mqd_t q = make(word, O_RDWR, 2, 64);
		snprintf(where, sizeof where, "%lu", my_ns());
		CHILD execs(HERE);
		EQ(curmsgs(q), 1);
		pid_t p;
		EQ(posix_spawn(&p, program, NULL, NULL, HERE, ONLY_PRELOAD), 0);
		join(p);
		EQ(curmsgs(q), 2);
	}
	EQ(curmsgs(box), 0);
}
