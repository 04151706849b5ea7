/* Contract section 7: the descriptor as a file. */
#include "conf.h"
#include <dirent.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>

#define MQUEUE_MAGIC_NUMBER 0x19800202

static struct stat stat_of(int fd)
{
	struct stat st;
	if (fstat(fd, &st))
		FAIL("fstat: %s", errno_name(errno));
	return st;
}

static void text(char *b, long qsize, int notify, int signo, int pid)
{
	sprintf(b, "QSIZE:%-10lu NOTIFY:%-5d SIGNO:%-5d NOTIFY_PID:%-6d\n", qsize, notify, signo,
		pid);
}

CASE("7", fstat_shows_an_80_byte_regular_file)
{
	become_somebody();
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	put(q, "x", 0);
	struct stat st = stat_of(q);
	EQ(st.st_mode, S_IFREG | 0600);
	EQ(st.st_size, 80);
	EQ(st.st_blocks, 0);
	EQ(st.st_blksize, 4096);
	EQ(st.st_nlink, 1);
	EQ(st.st_uid, geteuid());
	EQ(st.st_gid, getegid());
	EQ(st.st_rdev, 0);
}

CASE("7", the_fstat_family_agrees)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	struct stat a = stat_of(q), b;
	char link[64];
	EQ(fstatat(q, "", &b, AT_EMPTY_PATH), 0);
	EQ(memcmp(&a, &b, sizeof a), 0);
	snprintf(link, sizeof link, "/proc/self/fd/%d", q);
	EQ(stat(link, &b), 0);
	EQ(memcmp(&a, &b, sizeof a), 0);
	struct stat64 c;
	EQ(fstat64(q, &c), 0);
	EQ(c.st_ino, a.st_ino);
	EQ(c.st_size, 80);
	struct statx x;
	EQ(statx(q, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &x), 0);
	EQ(x.stx_mode, a.st_mode);
	EQ(x.stx_size, 80);
	EQ(x.stx_ino, a.st_ino);
	EQ(x.stx_nlink, 1);
	EQ(x.stx_blksize, 4096);
	EQ(x.stx_blocks, 0);
}

CASE("7", two_descriptors_of_one_queue_are_one_file)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 3, 8), r = OK(mq_open(n, O_RDONLY)), o = make(qname("b"), O_RDWR, 3, 8);
	struct stat a = stat_of(q), b = stat_of(r), c = stat_of(o), d = stat_of(dup(q));
	EQ(a.st_dev, b.st_dev);
	EQ(a.st_ino, b.st_ino);
	EQ(a.st_ino, d.st_ino);
	EQ(a.st_dev, c.st_dev);
	TRUE(a.st_ino != c.st_ino);
}

/* ---- Time stamps ------------------------------------------------------------------------- */

enum { A = 1, M = 2, C = 4 };

/* Makes access and modification old, and waits until the change time would show, too: time
 * stamps are whole seconds. */
static time_t age(mqd_t q)
{
	struct timespec old[2] = {{1000, 0}, {1000, 0}};
	OK(futimens(q, old));
	struct stat st = stat_of(q);
	EQ(st.st_atim.tv_sec, 1000);
	EQ(st.st_mtim.tv_sec, 1000);
	while (time(NULL) <= st.st_ctim.tv_sec)
		nanosleep(&(struct timespec){0, 2000000}, NULL);
	return st.st_ctim.tv_sec;
}

static void changed(mqd_t q, time_t ctime, int what)
{
	struct stat st = stat_of(q);
	int got = (st.st_atim.tv_sec != 1000) * A | (st.st_mtim.tv_sec != 1000) * M |
		  (st.st_ctim.tv_sec != ctime) * C;
	if (got != what)
		FAIL("time stamps changed: expected %s%s%s., got %s%s%s.", what & A ? "a" : "",
		     what & M ? "m" : "", what & C ? "c" : "", got & A ? "a" : "",
		     got & M ? "m" : "", got & C ? "c" : "");
	EQ(st.st_atim.tv_nsec, 0);
	EQ(st.st_mtim.tv_nsec, 0);
	EQ(st.st_ctim.tv_nsec, 0);
	time_t now = time(NULL);
	if (what & A)
		TRUE(st.st_atim.tv_sec > ctime && st.st_atim.tv_sec <= now);
	if (what & M)
		TRUE(st.st_mtim.tv_sec > ctime && st.st_mtim.tv_sec <= now);
	if (what & C)
		TRUE(st.st_ctim.tv_sec > ctime && st.st_ctim.tv_sec <= now);
}

CASE("7 (timestamps)", new_queue_has_three_equal_whole_second_times)
{
	time_t before = time(NULL);
	struct stat st = stat_of(make(qname("a"), O_RDWR, 3, 8));
	TRUE(st.st_ctim.tv_sec >= before && st.st_ctim.tv_sec <= time(NULL));
	EQ(st.st_atim.tv_sec, st.st_ctim.tv_sec);
	EQ(st.st_mtim.tv_sec, st.st_ctim.tv_sec);
	EQ(st.st_atim.tv_nsec, 0);
	EQ(st.st_mtim.tv_nsec, 0);
	EQ(st.st_ctim.tv_nsec, 0);
}

CASE("7 (timestamps)", send_changes_all_times)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	time_t c = age(q);
	put(q, "x", 0);
	changed(q, c, A | M | C);
}

CASE("7 (timestamps)", receive_changes_all_times)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	put(q, "x", 0);
	time_t c = age(q);
	take(q, "x", 0);
	changed(q, c, A | M | C);
}

CASE("7 (timestamps)", setattr_changes_access_and_change_time)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	time_t c = age(q);
	EQ(mq_setattr(q, &(struct mq_attr){0}, NULL), 0);
	changed(q, c, A | C);
}

CASE("7 (timestamps)", notify_changes_access_and_change_time)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	time_t c = age(q);
	EQ(mq_notify(q, &(struct sigevent){.sigev_notify = SIGEV_NONE}), 0);
	changed(q, c, A | C);
}

CASE("7 (timestamps)", read_changes_access_and_change_time)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	char b[80];
	time_t c = age(q);
	EQ(read(q, b, 80), 60);
	changed(q, c, A | C);
}

CASE("7 (timestamps)", chmod_changes_the_change_time)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	time_t c = age(q);
	EQ(fchmod(q, 0640), 0);
	changed(q, c, C);
}

CASE("7 (timestamps)", getattr_open_close_unlink_and_EAGAIN_change_none)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR | O_NONBLOCK, 1, 8);
	char b[8];
	struct mq_attr at;
	time_t c = age(q);
	EQ(mq_getattr(q, &at), 0);
	FAILS(mq_receive(q, b, 8, NULL), EAGAIN);
	FAILS(mq_receive(q, b, 7, NULL), EMSGSIZE);
	FAILS(mq_send(q, "123456789", 9, 0), EMSGSIZE);
	EQ(mq_close(OK(mq_open(n, O_RDWR))), 0);
	struct pollfd p = {.fd = q, .events = POLLIN | POLLOUT};
	EQ(poll(&p, 1, 0), 1);
	EQ(mq_unlink(n), 0);
	changed(q, c, 0);
}

/* ---- Reading and writing ----------------------------------------------------------------- */

CASE("7", read_gives_60_bytes_of_text)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	char b[128], want[128];
	text(want, 0, 0, 0, 0);
	EQ(strlen(want), 60);
	EQ(read(q, b, sizeof b), 60);
	SAME(b, want, 60);
	EQ(read(q, b, sizeof b), 0);
}

CASE("7", read_counts_the_bytes_queued)
{
	mqd_t q = make(qname("a"), O_RDWR, 5, 100);
	char b[128], want[128], m[100] = "";
	EQ(mq_send(q, m, 100, 0), 0);
	EQ(mq_send(q, m, 17, 3), 0);
	EQ(mq_send(q, m, 0, 2), 0);
	text(want, 117, 0, 0, 0);
	EQ(pread(q, b, sizeof b, 0), 60);
	SAME(b, want, 60);
	EQ(mq_receive(q, m, 100, NULL), 17);
	text(want, 100, 0, 0, 0);
	EQ(pread(q, b, sizeof b, 0), 60);
	SAME(b, want, 60);
	EQ(mq_receive(q, m, 100, NULL), 0);
	EQ(mq_receive(q, m, 100, NULL), 100);
	text(want, 0, 0, 0, 0);
	EQ(pread(q, b, sizeof b, 0), 60);
	SAME(b, want, 60);
}

CASE("7", read_shows_the_registration)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	char b[128], want[128];
	struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
	EQ(mq_notify(q, &e), 0);
	text(want, 0, 0, SIGUSR1, getpid());
	EQ(pread(q, b, sizeof b, 0), strlen(want));
	SAME(b, want, 60);
	EQ(mq_notify(q, NULL), 0);
	e.sigev_notify = SIGEV_NONE;
	EQ(mq_notify(q, &e), 0);
	text(want, 0, 1, 0, getpid());
	CHILD {
		EQ(pread(q, b, sizeof b, 0), strlen(want));
		SAME(b, want, 60);
	}
	EQ(mq_notify(q, NULL), 0);
	text(want, 0, 0, 0, 0);
	EQ(pread(q, b, sizeof b, 0), 60);
	SAME(b, want, 60);
}

CASE("7", read_honours_the_offset)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	char b[128], want[128];
	text(want, 0, 0, 0, 0);
	EQ(read(q, b, 6), 6);
	SAME(b, "QSIZE:", 6);
	EQ(lseek(q, 0, SEEK_CUR), 6);
	EQ(read(q, b, 100), 54);
	SAME(b, want + 6, 54);
	EQ(lseek(q, 0, SEEK_CUR), 60);
	EQ(read(q, b, 100), 0);
	EQ(pread(q, b, 100, 10), 50);
	SAME(b, want + 10, 50);
	EQ(pread(q, b, 100, 59), 1);
	EQ(pread(q, b, 100, 60), 0);
	EQ(pread(q, b, 100, 1000), 0);
	FAILS(pread(q, b, 100, -1), EINVAL);
	EQ(lseek(q, 0, SEEK_CUR), 60);
	EQ(lseek(q, 17, SEEK_SET), 17);
	EQ(read(q, b, 3), 3);
	SAME(b, want + 17, 3);
	EQ(read(q, b, 0), 0);
}

CASE("7", readv_and_preadv_read_the_text)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	char a[10], b[100], want[128];
	struct iovec v[2] = {{a, 10}, {b, 100}};
	text(want, 0, 0, 0, 0);
	EQ(readv(q, v, 2), 60);
	SAME(a, want, 10);
	SAME(b, want + 10, 50);
	EQ(preadv(q, v, 2, 5), 55);
	SAME(a, want + 5, 10);
}

CASE("7", read_into_bad_buffer_is_EFAULT)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	FAILS(read(q, nowhere(), 60), EFAULT);
	FAILS(pread(q, nowhere(), 1, 0), EFAULT);
	EQ(lseek(q, 0, SEEK_CUR), 0);
}

CASE("7", read_of_a_write_only_descriptor_is_EBADF)
{
	char b[80];
	const char *n = qname("a");
	make(n, O_RDWR, 3, 8);
	mqd_t q = OK(mq_open(n, O_WRONLY));
	FAILS(read(q, b, 80), EBADF);
	FAILS(pread(q, b, 80, 0), EBADF);
	FAILS(read(q, nowhere(), 80), EBADF);
	FAILS(read(q, b, 0), EBADF);
}

CASE("7", write_is_EINVAL)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 3, 8), w = OK(mq_open(n, O_WRONLY));
	FAILS(write(q, "x", 1), EINVAL);
	FAILS(write(q, "x", 0), EINVAL);
	FAILS(write(w, "x", 1), EINVAL);
	FAILS(pwrite(q, "x", 1, 0), EINVAL);
	FAILS(pwrite(q, "x", 0, 0), EINVAL);
	FAILS(writev(q, &(struct iovec){"x", 1}, 1), EINVAL);
	EQ(curmsgs(q), 0);
}

CASE("7", write_of_a_read_only_descriptor_is_EBADF)
{
	const char *n = qname("a");
	make(n, O_RDWR, 3, 8);
	mqd_t q = OK(mq_open(n, O_RDONLY));
	FAILS(write(q, "x", 1), EBADF);
	FAILS(write(q, "x", 0), EBADF);
	FAILS(pwrite(q, "x", 1, 0), EBADF);
}

CASE("7", lseek_moves_as_in_an_80_byte_file)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	EQ(lseek(q, 0, SEEK_CUR), 0);
	EQ(lseek(q, 5, SEEK_SET), 5);
	EQ(lseek(q, 5, SEEK_CUR), 10);
	EQ(lseek(q, 0, SEEK_END), 80);
	EQ(lseek(q, -10, SEEK_END), 70);
	EQ(lseek(q, 1000, SEEK_END), 1080);
	EQ(lseek(q, 123456789, SEEK_SET), 123456789);
	FAILS(lseek(q, -1, SEEK_SET), EINVAL);
	FAILS(lseek(q, -81, SEEK_END), EINVAL);
	FAILS(lseek(q, 0, 9), EINVAL);
	EQ(lseek(q, 0, SEEK_CUR), 123456789);
}

CASE("7", offset_is_shared_by_dups_and_children_only)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 3, 8), r = OK(mq_open(n, O_RDWR));
	int d = OK(dup(q));
	EQ(lseek(q, 7, SEEK_SET), 7);
	EQ(lseek(d, 0, SEEK_CUR), 7);
	EQ(lseek(r, 0, SEEK_CUR), 0);
	CHILD EQ(lseek(q, 3, SEEK_CUR), 10);
	EQ(lseek(d, 0, SEEK_CUR), 10);
}

CASE("7", ftruncate_changes_only_the_size)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 3, 8), r = OK(mq_open(n, O_RDONLY));
	char b[128], want[128];
	put(q, "x", 0);
	text(want, 1, 0, 0, 0);
	EQ(ftruncate(q, 0), 0);
	EQ(stat_of(r).st_size, 0);
	EQ(lseek(q, 0, SEEK_END), 0);
	EQ(pread(q, b, sizeof b, 0), 60);
	SAME(b, want, 60);
	EQ(ftruncate(q, 4000), 0);
	EQ(stat_of(r).st_size, 4000);
	EQ(lseek(r, 0, SEEK_END), 4000);
	EQ(pread(q, b, sizeof b, 0), 60);
	SAME(b, want, 60);
	FAILS(ftruncate(r, 80), EINVAL);
	FAILS(ftruncate(q, -1), EINVAL);
	mqd_t t = OK(mq_open(n, O_RDWR));
	EQ(stat_of(t).st_size, 4000);
	take(t, "x", 0);
	put(q, "y", 1);
	take(t, "y", 1);
}

CASE("7", ftruncate_of_a_write_only_descriptor_works)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 3, 8), w = OK(mq_open(n, O_WRONLY));
	EQ(ftruncate(w, 12), 0);
	EQ(stat_of(q).st_size, 12);
}

/* ---- Attributes of the file -------------------------------------------------------------- */

CASE("7", fchmod_changes_the_mode)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 3, 8), r = OK(mq_open(n, O_RDONLY));
	EQ(fchmod(q, 0640), 0);
	EQ(stat_of(r).st_mode, S_IFREG | 0640);
	EQ(fchmod(r, 01604), 0);
	EQ(stat_of(q).st_mode, S_IFREG | 01604);
}

CASE("7", fchown_of_minus_one_and_of_itself_is_allowed)
{
	become_somebody();
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	EQ(fchown(q, -1, -1), 0);
	EQ(fchown(q, geteuid(), getegid()), 0);
	EQ(stat_of(q).st_uid, geteuid());
}

ROOT_CASE("7", fchown_by_root_gives_the_queue_away)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 3, 8);
	EQ(fchown(q, user(0), user(1)), 0);
	EQ(stat_of(q).st_uid, user(0));
	EQ(stat_of(q).st_gid, user(1));
	CHILD {
		become(user(0));
		put(OK(mq_open(n, O_RDWR)), "x", 0);
		EQ(mq_unlink(n), 0);
	}
	take(q, "x", 0);
}

CASE("7", futimens_sets_the_times)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	struct timespec t[2] = {{1111, 999}, {2222, 999}};
	EQ(futimens(q, t), 0);
	struct stat st = stat_of(q);
	EQ(st.st_atim.tv_sec, 1111);
	EQ(st.st_mtim.tv_sec, 2222);
	EQ(st.st_atim.tv_nsec, 0);
	EQ(st.st_mtim.tv_nsec, 0);
	t[0].tv_nsec = UTIME_OMIT;
	t[1].tv_nsec = UTIME_NOW;
	EQ(futimens(q, t), 0);
	st = stat_of(q);
	EQ(st.st_atim.tv_sec, 1111);
	TRUE(st.st_mtim.tv_sec > 2222);
}

CASE("7", flock_works_between_descriptions)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 3, 8), r = OK(mq_open(n, O_RDWR));
	EQ(flock(q, LOCK_EX | LOCK_NB), 0);
	FAILS(flock(r, LOCK_EX | LOCK_NB), EWOULDBLOCK);
	FAILS(flock(r, LOCK_SH | LOCK_NB), EWOULDBLOCK);
	EQ(flock(q, LOCK_SH | LOCK_NB), 0);
	EQ(flock(r, LOCK_SH | LOCK_NB), 0);
	EQ(flock(q, LOCK_UN), 0);
	EQ(flock(r, LOCK_EX | LOCK_NB), 0);
}

CASE("7", record_locks_work_between_processes)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 10};
	EQ(fcntl(q, F_SETLK, &l), 0);
	CHILD {
		struct flock m = l;
		FAILS(fcntl(q, F_SETLK, &m), EAGAIN);
		m.l_start = 10;
		EQ(fcntl(q, F_SETLK, &m), 0);
		m = l;
		EQ(fcntl(q, F_GETLK, &m), 0);
		EQ(m.l_type, F_WRLCK);
		EQ(m.l_pid, getppid());
	}
	l.l_len = 0;
	EQ(fcntl(q, F_SETLK, &l), 0);
	l.l_type = F_UNLCK;
	EQ(fcntl(q, F_SETLK, &l), 0);
	CHILD {
		struct flock m = l;
		m.l_type = F_WRLCK;
		EQ(fcntl(q, F_SETLK, &m), 0);
	}
}

CASE("7", fsync_is_EINVAL)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	FAILS(fsync(q), EINVAL);
	FAILS(fdatasync(q), EINVAL);
}

CASE("7", mmap_is_ENODEV_and_EACCES_when_write_only)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 3, 8), w = OK(mq_open(n, O_WRONLY));
	FAILS(mmap(NULL, 80, PROT_READ, MAP_SHARED, q, 0), ENODEV);
	FAILS(mmap(NULL, 80, PROT_READ | PROT_WRITE, MAP_SHARED, q, 0), ENODEV);
	FAILS(mmap(NULL, 80, PROT_READ, MAP_PRIVATE, q, 0), ENODEV);
	FAILS(mmap(NULL, 80, PROT_READ, MAP_SHARED, w, 0), EACCES);
	FAILS(mmap(NULL, 80, PROT_WRITE, MAP_SHARED, w, 0), EACCES);
}

CASE("7", fallocate_is_EOPNOTSUPP)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	FAILS(fallocate(q, 0, 0, 100), EOPNOTSUPP);
}

CASE("7", is_no_terminal_directory_or_socket)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	char b[8];
	errno = 0;
	TRUE(isatty(q) == 0 && errno == ENOTTY);
	FAILS(fchdir(q), ENOTDIR);
	errno = 0;
	TRUE(fdopendir(q) == NULL && errno == ENOTDIR);
	FAILS(recv(q, b, 8, 0), ENOTSOCK);
	FAILS(send(q, b, 8, 0), ENOTSOCK);
	FAILS(openat(q, "x", O_RDONLY), ENOTDIR);
}

CASE("7", FIONREAD_is_the_rest_of_the_file)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	int n = -1;
	EQ(ioctl(q, FIONREAD, &n), 0);
	EQ(n, 80);
	put(q, "x", 0);
	EQ(lseek(q, 30, SEEK_SET), 30);
	EQ(ioctl(q, FIONREAD, &n), 0);
	EQ(n, 50);
	EQ(lseek(q, 90, SEEK_SET), 90);
	EQ(ioctl(q, FIONREAD, &n), 0);
	EQ(n, -10);
}

CASE("7", FIONBIO_sets_nonblock)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	struct mq_attr a;
	int on = 1;
	EQ(ioctl(q, FIONBIO, &on), 0);
	EQ(fcntl(q, F_GETFL), O_RDWR | O_NONBLOCK);
	EQ(mq_getattr(q, &a), 0);
	EQ(a.mq_flags, O_NONBLOCK);
	on = 0;
	EQ(ioctl(q, FIONBIO, &on), 0);
	EQ(fcntl(q, F_GETFL), O_RDWR);
}

CASE("7", FIOCLEX_and_FIONCLEX_set_close_on_exec)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	EQ(ioctl(q, FIONCLEX), 0);
	EQ(fcntl(q, F_GETFD), 0);
	EQ(ioctl(q, FIOCLEX), 0);
	EQ(fcntl(q, F_GETFD), FD_CLOEXEC);
}

CASE("7", other_ioctls_are_ENOTTY)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	char b[256];
	FAILS(ioctl(q, TCGETS, b), ENOTTY);
	FAILS(ioctl(q, TIOCGWINSZ, b), ENOTTY);
}

CASE("7", fstatfs_shows_the_mqueue_file_system)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	struct statfs s;
	EQ(fstatfs(q, &s), 0);
	EQ(s.f_type, MQUEUE_MAGIC_NUMBER);
	EQ(s.f_bsize, 4096);
	EQ(s.f_blocks, 0);
	EQ(s.f_bfree, 0);
	EQ(s.f_namelen, 255);
	struct statvfs v;
	EQ(fstatvfs(q, &v), 0);
	EQ(v.f_bsize, 4096);
	EQ(v.f_blocks, 0);
	EQ(v.f_namemax, 255);
}

/* ---- fcntl ------------------------------------------------------------------------------- */

CASE("7", setfl_changes_nonblock_append_noatime_only)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	EQ(fcntl(q, F_SETFL, O_NONBLOCK | O_APPEND | O_NOATIME), 0);
	EQ(fcntl(q, F_GETFL), O_RDWR | O_NONBLOCK | O_APPEND | O_NOATIME);
	EQ(fcntl(q, F_SETFL, 0), 0);
	EQ(fcntl(q, F_GETFL), O_RDWR);
	EQ(fcntl(q, F_SETFL, O_WRONLY | O_CREAT | O_EXCL | O_TRUNC | O_SYNC | O_DSYNC), 0);
	EQ(fcntl(q, F_GETFL), O_RDWR);
	EQ(fcntl(q, F_SETFL, 3), 0);
	EQ(fcntl(q, F_GETFL), O_RDWR);
	put(q, "x", 0);
	take(q, "x", 0);
}

CASE("7", setfl_keeps_what_it_cannot_change)
{
	const char *n = qname("a");
	make(n, O_RDWR, 3, 8);
	mqd_t q = OK(mq_open(n, O_RDONLY | O_CLOEXEC | O_SYNC | O_DIRECTORY));
	EQ(fcntl(q, F_SETFL, O_NONBLOCK), 0);
	EQ(fcntl(q, F_GETFL), O_RDONLY | O_CLOEXEC | O_SYNC | O_DIRECTORY | O_NONBLOCK);
}

CASE("7", setfl_async_is_ignored)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	EQ(fcntl(q, F_SETFL, O_ASYNC), 0);
	EQ(fcntl(q, F_GETFL), O_RDWR);
}

CASE("7", setfl_direct_is_EINVAL)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	FAILS(fcntl(q, F_SETFL, O_DIRECT), EINVAL);
	FAILS(fcntl(q, F_SETFL, O_DIRECT | O_NONBLOCK), EINVAL);
	EQ(fcntl(q, F_GETFL), O_RDWR);
}

CASE("7", dups_are_not_close_on_exec_unless_asked)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	EQ(fcntl(q, F_GETFD), FD_CLOEXEC);
	int a = OK(dup(q)), b = OK(dup2(q, 50)), c = OK(fcntl(q, F_DUPFD, 40)),
	    d = OK(fcntl(q, F_DUPFD_CLOEXEC, 40)), e = OK(dup3(q, 51, O_CLOEXEC)), f = OK(dup3(q, 52, 0));
	EQ(fcntl(a, F_GETFD), 0);
	EQ(fcntl(b, F_GETFD), 0);
	EQ(fcntl(c, F_GETFD), 0);
	EQ(fcntl(d, F_GETFD), FD_CLOEXEC);
	EQ(fcntl(e, F_GETFD), FD_CLOEXEC);
	EQ(fcntl(f, F_GETFD), 0);
	EQ(a, q + 1);
	EQ(c, 40);
	EQ(d, 41);
	EQ(dup2(q, q), q);
	EQ(fcntl(q, F_GETFD), FD_CLOEXEC);
	FAILS(dup3(q, q, 0), EINVAL);
	FAILS(dup2(q, -1), EBADF);
	int all[] = {q, a, b, c, d, e, f};
	for (int i = 0; i < 7; i++) {
		put(all[i], "x", i);
		take(all[6 - i], "x", i);
	}
}

CASE("7", a_dup_goes_on_when_the_original_is_closed)
{
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	int d = OK(dup(q));
	put(q, "x", 0);
	EQ(mq_close(q), 0);
	FAILS(mq_send(q, "x", 1, 0), EBADF);
	take(d, "x", 0);
	EQ(mq_close(d), 0);
}

/* ---- /proc/self/fd ----------------------------------------------------------------------- */

CASE("7 (/proc)", readlink_is_the_queue_s_name)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 3, 8);
	char link[64], b[256], want[256];
	snprintf(link, sizeof link, "/proc/self/fd/%d", q);
	EQ(readlink(link, b, sizeof b), strlen(n));
	SAME(b, n, strlen(n));
	EQ(mq_unlink(n), 0);
	snprintf(want, sizeof want, "%s (deleted)", n);
	EQ(readlink(link, b, sizeof b), strlen(want));
	SAME(b, want, strlen(want));
}

CASE("7 (/proc)", readlink_through_other_paths)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 3, 8);
	char link[64], b[256];
	snprintf(link, sizeof link, "/proc/%d/fd/%d", (int)getpid(), q);
	EQ(readlink(link, b, sizeof b), strlen(n));
	SAME(b, n, strlen(n));
	snprintf(link, sizeof link, "/dev/fd/%d", q);
	EQ(readlink(link, b, sizeof b), strlen(n));
	EQ(readlinkat(AT_FDCWD, link, b, 5), 5);
	SAME(b, n, 5);
	int dir = OK(open("/proc/self/fd", O_RDONLY | O_DIRECTORY));
	EQ(readlinkat(dir, number(q), b, sizeof b), strlen(n));
	SAME(b, n, strlen(n));
}

CASE("7 (/proc)", open_gives_a_new_description_of_the_queue)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 3, 8);
	char link[64];
	snprintf(link, sizeof link, "/proc/self/fd/%d", q);
	int r = OK(open(link, O_RDWR | O_NONBLOCK));
	EQ(r, q + 1);
	EQ(fcntl(r, F_GETFD), 0);
	struct mq_attr a;
	EQ(mq_getattr(q, &a), 0);
	EQ(a.mq_flags, 0);
	EQ(mq_getattr(r, &a), 0);
	EQ(a.mq_flags, O_NONBLOCK);
	put(q, "x", 4);
	take(r, "x", 4);
	EQ(lseek(q, 9, SEEK_SET), 9);
	EQ(lseek(r, 0, SEEK_CUR), 0);
	int ro = OK(open(link, O_RDONLY | O_CLOEXEC));
	EQ(fcntl(ro, F_GETFD), FD_CLOEXEC);
	FAILS(mq_send(ro, "x", 1, 0), EBADF);
	put(r, "y", 5);
	take(ro, "y", 5);
	EQ(stat_of(ro).st_ino, stat_of(q).st_ino);
}

CASE("7 (/proc)", open_works_after_unlink)
{
	const char *n = qname("a");
	mqd_t q = make(n, O_RDWR, 3, 8);
	char link[64];
	put(q, "x", 4);
	EQ(mq_unlink(n), 0);
	snprintf(link, sizeof link, "/proc/self/fd/%d", q);
	int r = OK(open(link, O_RDWR));
	take(r, "x", 4);
	EQ(mq_close(q), 0);
	put(r, "y", 0);
	take(r, "y", 0);
}

ROOT_CASE("7 (/proc)", open_checks_the_mode_bits)
{
	become(user(0));
	/* A process which changed its user owns its /proc files only once it says so. */
	OK(prctl(PR_SET_DUMPABLE, 1));
	mqd_t q = make(qname("a"), O_RDWR, 3, 8);
	char link[64];
	snprintf(link, sizeof link, "/proc/self/fd/%d", q);
	OK(open(link, O_RDWR));
	EQ(fchmod(q, 0400), 0);
	FAILS(open(link, O_RDWR), EACCES);
	FAILS(open(link, O_WRONLY), EACCES);
	int r = OK(open(link, O_RDONLY));
	FAILS(mq_send(r, "x", 1, 0), EBADF);
	EQ(fchmod(q, 0), 0);
	FAILS(open(link, O_RDONLY), EACCES);
	put(q, "x", 0);
}
