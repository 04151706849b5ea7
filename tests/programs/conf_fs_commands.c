/*
 * Contract section 15: unmodified commands on mounted queues.
 *
 * Needs a shell, GNU coreutils and findutils, grep, util-linux and python3.
 */
#include "conf.h"

#define ATTR(m, s) (&(struct mq_attr){.mq_maxmsg = (m), .mq_msgsize = (s)})

static const char *dir;

/* The directory is $D to the commands; queues are called /q, /r and so on. */
static void environment(void)
{
	OK(setenv("D", dir, 1));
	OK(setenv("LC_ALL", "C", 1));
	OK(setenv("TZ", "UTC", 1));
	OK(setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin", 1));
}
/* Its parent is the case's own, too: commands look through it, and files of others in /tmp come and go. */
static void start(void)
{
	fresh_namespace();
	private_mounts();
	static char path[96];
	snprintf(path, sizeof path, "%s/mqueue", directory("above"));
	OK(mkdir(path, 0755));
	OK(mount("mqueue", path, "mqueue", 0, NULL));
	dir = path;
	environment();
}
static mqd_t queue(const char *name)
{
	return OK(mq_open(name, O_RDWR | O_CREAT | O_EXCL, 0600, ATTR(2, 8)));
}

/* What a shell command prints, errors too, and its exit status. */
static void sh_at(int line, const char *command, int status, const char *want)
{
	static char got[65536];
	size_t n = 0;
	char c[8192];
	snprintf(c, sizeof c, "exec 2>&1\n%s", command);
	FILE *f = popen(c, "r");
	if (!f)
		fail_at(__FILE__, line, "popen: %s", errno_name(errno));
	for (size_t r; (r = fread(got + n, 1, sizeof got - 1 - n, f)) > 0;)
		n += r;
	got[n] = 0;
	int st = pclose(f);
	if (st != status << 8)
		fail_at(__FILE__, line, "%s: expected status %d, got %d (%#x): %s", command, status, st >> 8, st, got);
	/* $D in the expectation stands for the directory. */
	char wanted[8192] = "";
	size_t w = 0;
	for (const char *p = want; *p; p++) {
		if (p[0] == '$' && p[1] == 'D') {
			w += sprintf(wanted + w, "%s", dir);
			p++;
		} else {
			wanted[w++] = *p;
		}
	}
	wanted[w] = 0;
	if (strcmp(got, wanted))
		fail_at(__FILE__, line, "%s: expected \"%s\", got \"%s\"", command, wanted, got);
}
#define sh(command, want) sh_at(__LINE__, command, 0, want)
#define sh_fails(command, status, want) sh_at(__LINE__, command, status, want)

#define EMPTY "QSIZE:0          NOTIFY:0     SIGNO:0     NOTIFY_PID:0     \n"

/* ---- ls ---------------------------------------------------------------------------------- */

FILE_CASE("15 (ls)", ls_lists)
{
	start();
	sh("ls $D", "");
	sh("ls -A $D", "");
	queue("/q");
	queue("/.hidden");
	queue("/r");
	sh("ls $D", "q\nr\n");
	sh("ls -A $D", ".hidden\nq\nr\n");
	sh("ls -a $D", ".\n..\n.hidden\nq\nr\n");
	sh("ls -F $D; ls -d $D/q", "q\nr\n$D/q\n");
	sh("cd $D && ls && ls . | wc -l", "q\nr\n2\n");
}

FILE_CASE("15 (ls)", ls_long_lists)
{
	start();
	queue("/q");
	sh("touch -d '2001-02-03 04:05:06' $D/q", "");
	sh("ls -lan --time-style=long-iso $D | sed -n '/^-/s/  */ /gp' | sed \"s/ $(id -u) / U /; s/ $(id -g) / G /\"",
	   "-rw------- 1 U G 80 2001-02-03 04:05 q\n");
	sh("ls -ld $D | cut -c1-12", "drwxrwxrwt 2\n");
	sh("ls -lA $D | head -1", "total 0\n");
	sh("test $(ls -i $D/q | cut -d' ' -f1) = $(stat -c %i $D/q)", "");
	sh("ls -s $D/q", "0 $D/q\n");
}

FILE_CASE("15 (ls)", ls_of_the_missing)
{
	start();
	sh_fails("ls $D/q", 2, "ls: cannot access '$D/q': No such file or directory\n");
	sh_fails("ls $D/*", 2, "ls: cannot access '$D/*': No such file or directory\n");
}

FILE_CASE("15 (ls)", ls_follows_changes)
{
	start();
	for (int i = 0; i < 5; i++) {
		EQ(mq_close(queue("/q")), 0);
		sh("ls $D", "q\n");
		EQ(mq_unlink("/q"), 0);
		sh("ls $D", "");
	}
}

FILE_CASE("15 (ls)", ls_of_odd_names)
{
	start();
	queue("/a b");
	queue("/c\nd");
	queue("/\xff");
	sh("ls -b $D", "a\\ b\nc\\nd\n\\377\n");
	sh("for f in $D/*; do test -f \"$f\" && cat \"$f\"; done", EMPTY EMPTY EMPTY);
	sh("find $D -type f -print0 | xargs -0 rm; ls -A $D", "");
	missing("/c\nd");
}

/* ---- cat and its like -------------------------------------------------------------------- */

FILE_CASE("15 (cat)", cat_prints_the_text)
{
	start();
	mqd_t q = queue("/q");
	sh("cat $D/q", EMPTY);
	sh("cat <$D/q", EMPTY);
	put(q, "12345", 0);
	sh("cat $D/q", "QSIZE:5          NOTIFY:0     SIGNO:0     NOTIFY_PID:0     \n");
	put(q, "1234567", 0);
	sh("cat $D/q", "QSIZE:12         NOTIFY:0     SIGNO:0     NOTIFY_PID:0     \n");
	take(q, "12345", 0);
	sh("cd $D; cat q", "QSIZE:7          NOTIFY:0     SIGNO:0     NOTIFY_PID:0     \n");
	EQ(curmsgs(q), 1);
	sh_fails("cat $D/none", 1, "cat: $D/none: No such file or directory\n");
	sh_fails("cat $D", 1, "cat: $D: Is a directory\n");
}

FILE_CASE("15 (cat)", cat_shows_notification)
{
	start();
	mqd_t q = queue("/q");
	block(SIGUSR1);
	EQ(mq_notify(q, &(struct sigevent){.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1}), 0);
	char want[128];
	sprintf(want, "QSIZE:0          NOTIFY:0     SIGNO:%-5d NOTIFY_PID:%-6d\n", SIGUSR1, getpid());
	sh("cat $D/q", want);
	sh("cat $D/q", want);
	put(q, "x", 0);
	TRUE(pending_signal(SIGUSR1, NULL));
}

FILE_CASE("15 (cat)", other_readers)
{
	start();
	put(queue("/q"), "123", 0);
	queue("/r");
	sh("head -c 7 $D/q", "QSIZE:3");
	sh("head -n1 $D/q | tail -n1 | cut -d' ' -f1", "QSIZE:3\n");
	sh("grep -l QSIZE:3 $D/*", "$D/q\n");
	sh("grep -c NOTIFY $D/q $D/r", "$D/q:1\n$D/r:1\n");
	sh("read -r a b <$D/q; echo $a", "QSIZE:3\n");
	sh("sed 's/ .*//' $D/q", "QSIZE:3\n");
	sh("dd if=$D/q bs=8 count=1 status=none", "QSIZE:3 ");
	sh("cat $D/q | wc -c", "60\n");
	sh("od -An -c -N6 $D/q", "   Q   S   I   Z   E   :\n");
	sh("cp $D/q $D.copy && cat $D.copy && rm $D.copy", "QSIZE:3          NOTIFY:0     SIGNO:0     NOTIFY_PID:0     \n");
	sh_fails("cmp -s $D/q $D/r", 1, "");
	sh("sort $D/r $D/q | head -c 7", "QSIZE:0");
}

/* ---- rm ---------------------------------------------------------------------------------- */

FILE_CASE("15 (rm)", rm_unlinks)
{
	start();
	mqd_t q = queue("/q");
	queue("/r");
	queue("/s");
	sh("rm $D/q", "");
	missing("/q");
	put(q, "x", 0);
	take(q, "x", 0);
	sh_fails("rm $D/q", 1, "rm: cannot remove '$D/q': No such file or directory\n");
	sh("rm -f $D/q", "");
	sh("rm -v $D/*", "removed '$D/r'\nremoved '$D/s'\n");
	missing("/s");
	queue("/q");
	sh_fails("rm -rf $D", 1, "rm: cannot remove '$D': Device or resource busy\n");
	missing("/q");
	sh_fails("rmdir $D", 1, "rmdir: failed to remove '$D': Device or resource busy\n");
	queue("/-rf");
	sh("cd $D && unlink ./-rf && ls", "");
}

/* ---- touch and other makers -------------------------------------------------------------- */

FILE_CASE("15 (touch)", touch_makes_a_queue)
{
	start();
	sh("touch $D/q", "");
	mqd_t q = OK(mq_open("/q", O_RDWR));
	struct stat st;
	EQ(fstat(q, &st), 0);
	EQ(st.st_mode, S_IFREG | 0644);
	EQ(st.st_size, 80);
	put(q, "x", 0);
	sh("touch $D/q && cat $D/q | cut -c1-8", "QSIZE:1 \n");
	sh("touch -c $D/none; ls $D", "q\n");
	sh("touch -d @1000 $D/q && stat -c '%X %Y' $D/q", "1000 1000\n");
	sh("touch -r $D/q $D/r && stat -c %Y $D/r", "1000\n");
}

FILE_CASE("15 (touch)", redirection_makes_a_queue_and_writing_fails)
{
	start();
	sh(": >$D/q && ls $D", "q\n");
	sh(": >>$D/r && ls $D", "q\nr\n");
	present("/q");
	sh("stat -c %s $D/q $D/r; : >$D/q; stat -c %s $D/q", "80\n80\n0\n");
	sh_fails("/bin/echo x >$D/q", 1, "/bin/echo: write error: Invalid argument\n");
	sh_fails("bash -c 'set -C; : >$D/q'", 1, "bash: line 1: $D/q: cannot overwrite existing file\n");
	sh("truncate -s 33 $D/q && stat -c %s $D/q", "33\n");
}

FILE_CASE("15 (touch)", makers_of_other_things_fail)
{
	start();
	queue("/q");
	sh_fails("mkdir $D/n", 1, "mkdir: cannot create directory '$D/n': Operation not permitted\n");
	sh_fails("mkdir $D/q", 1, "mkdir: cannot create directory '$D/q': File exists\n");
	sh("mkdir -p $D", "");
	sh_fails("ln -s x $D/n", 1, "ln: failed to create symbolic link '$D/n': Operation not permitted\n");
	sh_fails("ln $D/q $D/n", 1, "ln: failed to create hard link '$D/n' => '$D/q': Operation not permitted\n");
	sh_fails("mkfifo $D/n", 1, "mkfifo: cannot create fifo '$D/n': Operation not permitted\n");
	sh_fails("mv $D/q $D/n", 1, "mv: cannot move '$D/q' to '$D/n': Operation not permitted\n");
	sh("ls $D", "q\n");
}

FILE_CASE("15 (touch)", moving_out_copies_the_text_and_removes_the_queue)
{
	start();
	put(queue("/q"), "123", 0);
	sh("mv $D/q $D.moved && cut -c1-8 $D.moved && rm $D.moved; ls $D", "QSIZE:3 \n");
	missing("/q");
}

FILE_CASE("15 (chmod)", chmod_and_chown)
{
	start();
	mqd_t q = queue("/q");
	struct stat st;
	sh("chmod 640 $D/q && stat -c %a $D/q", "640\n");
	sh("chmod u=r,g+w,o= $D/q && stat -c %A $D/q", "-r--rw----\n");
	EQ(fstat(q, &st), 0);
	EQ(st.st_mode, S_IFREG | 0460);
	sh("chmod -R 600 $D/*; stat -c %a $D/q", "600\n");
	if (geteuid() == 0) {
		sh("chown 12345:23456 $D/q && stat -c %u:%g $D/q", "12345:23456\n");
		EQ(fstat(q, &st), 0);
		EQ(st.st_uid, 12345);
		EQ(st.st_gid, 23456);
	}
}

/* ---- stat, find, test -------------------------------------------------------------------- */

FILE_CASE("15 (stat)", stat_prints)
{
	start();
	queue("/q");
	sh("stat -c '%F %s %h %b %o %a %n' $D/q", "regular file 80 1 0 4096 600 $D/q\n");
	sh("stat -c '%F %s %h %a' $D", "directory 60 2 1777\n");
	sh("stat -f -c '%T %t %s %l' $D $D/q", "mqueue 19800202 4096 255\nmqueue 19800202 4096 255\n");
	sh("test $(stat -c %m $D/q) = $D", "");
	sh("test $(stat -c %d $D) = $(stat -c %d $D/q) && test $(stat -c %d $D) != $(stat -c %d $D/..)", "");
	sh_fails("stat $D/n", 1, "stat: cannot statx '$D/n': No such file or directory\n");
	sh("realpath $D/q; readlink -f $D/../$(basename $D)/q", "$D/q\n$D/q\n");
	sh("du -s $D | cut -f1", "0\n");
}

FILE_CASE("15 (find)", find_finds)
{
	start();
	queue("/q1");
	queue("/q2");
	queue("/r");
	sh("find $D | sort", "$D\n$D/q1\n$D/q2\n$D/r\n");
	sh("find $D -xdev -type f -name 'q*' -size 80c | sort", "$D/q1\n$D/q2\n");
	sh("find $D -fstype mqueue -type d", "$D\n");
	sh("find $D -type f -printf '%f %s %m\\n' | sort", "q1 80 600\nq2 80 600\nr 80 600\n");
	sh("find $D/.. -maxdepth 1 -xdev -path $D/q1", "");
	sh("find $D -name 'q*' -exec cat {} +", EMPTY EMPTY);
	sh("cd $D && find . -name 'q*' -delete && find . -type f", "./r\n");
	missing("/q1");
	present("/r");
	sh("find $D -newermt 2001-01-01 -type f; find $D -empty", "$D/r\n");
}

FILE_CASE("15 (test)", shell_tests_and_globs)
{
	start();
	queue("/q1");
	queue("/q2");
	queue("/x");
	sh("cd $D && echo *", "q1 q2 x\n");
	sh("echo $D/q? $D/[x-z]", "$D/q1 $D/q2 $D/x\n");
	sh("bash -O extglob -O nullglob -c 'cd $D; echo !(q*) {q1,x} q* none*'", "x q1 x q1 q2\n");
	sh("test -e $D/q1 && test -f $D/q1 && test -s $D/q1 && test -r $D/q1 && test -w $D/q1", "");
	sh_fails("test -x $D/q1 || test -d $D/q1 || test -L $D/q1 || test -p $D/q1", 1, "");
	sh("test -d $D && test -k $D && test -x $D", "");
	sh_fails("test -e $D/none", 1, "");
	sh("test $D/q1 -ef $D/./q1", "");
	sh("cd $D/ && pwd && /bin/pwd && cd .. && test $(pwd) = ${D%/*}", "$D\n$D\n");
	sh("for f in $D/*; do echo ${f##*/}; done | tr '\\n' ' '", "q1 q2 x ");
	sh("bash -c 'exec 7<$D/q1; cat <&7; exec 7<&-'", EMPTY);
	sh_fails("$D/q1", 126, "sh: 2: $D/q1: Permission denied\n");
}

/* ---- Python ------------------------------------------------------------------------------ */

static void python(const char *script)
{
	char file[128];
	snprintf(file, sizeof file, "%s/script.py", directory("py"));
	FILE *f = fopen(file, "w");
	TRUE(f != NULL);
	fputs("import os, stat, pathlib, glob, shutil, errno, sys\nD = os.environ['D']\nP = pathlib.Path(D)\n"
	      "def fails(code, call, *a, **k):\n"
	      "    try:\n"
	      "        call(*a, **k)\n"
	      "    except OSError as e:\n"
	      "        assert e.errno == code, e\n"
	      "    else:\n"
	      "        raise AssertionError('no error')\n",
	      f);
	fputs(script, f);
	fclose(f);
	char c[256];
	snprintf(c, sizeof c, "python3 -I %s", file);
	sh(c, "");
}

FILE_CASE("15 (python)", python_os)
{
	start();
	put(queue("/q"), "123", 0);
	python("assert os.listdir(D) == ['q']\n"
	       "s = os.stat(D + '/q')\n"
	       "assert stat.S_ISREG(s.st_mode) and s.st_size == 80 and s.st_nlink == 1\n"
	       "assert [(e.name, e.is_file(), e.is_dir(), e.inode(), e.stat().st_size) for e in os.scandir(D)] == "
	       "[('q', True, False, s.st_ino, 80)]\n"
	       "assert os.path.ismount(D) and os.path.exists(D + '/q') and not os.path.islink(D + '/q')\n"
	       "assert list(os.walk(D)) == [(D, [], ['q'])]\n"
	       "assert open(D + '/q').read().startswith('QSIZE:3 ')\n"
	       "assert open(D + '/q', 'rb').readline() == "
	       "b'QSIZE:3          NOTIFY:0     SIGNO:0     NOTIFY_PID:0     \\n'\n"
	       "os.close(os.open(D + '/r', os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o640))\n"
	       "fails(errno.EEXIST, os.open, D + '/r', os.O_CREAT | os.O_EXCL)\n"
	       "assert sorted(glob.glob(D + '/*')) == [D + '/q', D + '/r']\n"
	       "os.chmod(D + '/r', 0o600)\n"
	       "os.utime(D + '/r', (5, 6))\n"
	       "assert os.stat(D + '/r').st_mtime_ns == 6000000000\n"
	       "fails(errno.EPERM, os.mkdir, D + '/n')\n"
	       "fails(errno.EPERM, os.symlink, 'x', D + '/n')\n"
	       "fails(errno.EPERM, os.rename, D + '/r', D + '/n')\n"
	       "fails(errno.EINVAL, os.readlink, D + '/r')\n"
	       "assert not os.access(D + '/r', os.X_OK) and os.access(D + '/r', os.R_OK | os.W_OK)\n"
	       "os.remove(D + '/r')\n"
	       "fails(errno.ENOENT, os.remove, D + '/r')\n"
	       "d = os.open(D, os.O_RDONLY)\n"
	       "assert os.listdir(d) == ['q']\n"
	       "assert os.stat('q', dir_fd=d).st_ino == s.st_ino\n"
	       "os.chdir(D)\n"
	       "assert os.getcwd() == D and os.path.abspath('q') == D + '/q' and os.path.exists('q')\n"
	       "os.unlink('q', dir_fd=d)\n"
	       "assert os.listdir() == []\n"
	       "assert os.statvfs(D).f_namemax == 255\n");
	missing("/q");
}

FILE_CASE("15 (python)", python_pathlib)
{
	start();
	queue("/q");
	python("q = P / 'q'\n"
	       "assert [p for p in P.iterdir()] == [q] and list(P.glob('q*')) == [q] and list(P.rglob('*')) == [q]\n"
	       "assert q.is_file() and q.exists() and not q.is_dir() and P.is_dir() and P.is_mount()\n"
	       "assert q.read_text().startswith('QSIZE:0 ') and len(q.read_bytes()) == 60\n"
	       "assert q.stat().st_size == 80 and q.resolve() == q and q.samefile(P / '.' / 'q')\n"
	       "(P / 'r').touch()\n"
	       "assert (P / 'r').stat().st_size == 80\n"
	       "fails(errno.EEXIST, (P / 'r').touch, exist_ok=False)\n"
	       "fails(errno.EINVAL, (P / 'r').write_text, 'x')\n"
	       "(P / 'r').chmod(0o600)\n"
	       "(P / 'r').unlink()\n"
	       "fails(errno.EPERM, (P / 'n').mkdir)\n"
	       "P.mkdir(exist_ok=True)\n"
	       "q.unlink()\n"
	       "q.unlink(missing_ok=True)\n"
	       "assert not q.exists() and not list(P.iterdir())\n");
	missing("/q");
}

FILE_CASE("15 (python)", python_shutil)
{
	start();
	put(queue("/q"), "123", 0);
	python("t = D + '.copy'\n"
	       "shutil.copyfile(D + '/q', t)\n"
	       "assert os.path.getsize(t) == 60\n"
	       "os.unlink(t)\n"
	       "shutil.copytree(D, t)\n"
	       "assert os.listdir(t) == ['q']\n"
	       "shutil.rmtree(t)\n"
	       "fails(errno.EBUSY, shutil.rmtree, D)\n"
	       "assert os.listdir(D) == []\n");
	missing("/q");
}

FILE_CASE("15 (python)", python_sends_through_an_opened_file)
{
	start();
	mqd_t q = queue("/q");
	python("import ctypes, select\n"
	       "c = ctypes.CDLL(None, use_errno=True)\n"
	       "fd = os.open(D + '/q', os.O_RDWR)\n"
	       "p = select.poll()\n"
	       "p.register(fd)\n"
	       "assert p.poll(0) == [(fd, select.POLLOUT)]\n"
	       "assert c.mq_send(fd, b'hello', 5, 3) == 0\n"
	       "assert p.poll(0) == [(fd, select.POLLIN | select.POLLOUT)]\n"
	       "assert os.pread(fd, 8, 0) == b'QSIZE:5 '\n");
	take(q, "hello", 3);
}

/* ---- mount, umount, findmnt -------------------------------------------------------------- */

FILE_CASE("15 (mount)", mount_and_umount)
{
	fresh_namespace();
	private_mounts();
	dir = directory("m");
	environment();
	queue("/q");
	sh("mount -t mqueue none $D", "");
	sh("ls $D", "q\n");
	sh("mount -t mqueue", "none on $D type mqueue (rw,relatime)\n");
	sh("grep ' mqueue ' /proc/mounts", "none $D mqueue rw,relatime 0 0\n");
	sh("mountpoint $D", "$D is a mountpoint\n");
	sh("umount $D && ls $D", "");
	sh_fails("umount $D", 32, "umount: $D: not mounted.\n");
	sh_fails("mountpoint $D", 32, "$D is not a mountpoint\n");
	sh("mount -t mqueue -o nosuid,nodev,noexec mqueue $D && grep ' mqueue ' /proc/mounts",
	   "mqueue $D mqueue rw,nosuid,nodev,noexec,relatime 0 0\n");
	sh("cd /tmp && umount ./$(basename $D)/", "");
	sh("mount -t mqueue -o ro x $D && grep ' mqueue ' /proc/mounts", "x $D mqueue ro,relatime 0 0\n");
	sh_fails("rm -f $D/q", 1, "rm: cannot remove '$D/q': Read-only file system\n");
	sh("umount -l $D", "");
	present("/q");
}

FILE_CASE("15 (mount)", mount_fails)
{
	start();
	sh_fails("mount -t mqueue x $D 2>/dev/null", 32, "");
	sh("mount -t mqueue x $D 2>&1 | grep -c 'already mounted'", "1\n");
	sh("mount -t mqueue x $D/none 2>&1 | head -1", "mount: $D/none: mount point does not exist.\n");
	sh_fails("mount -t mqueue x $D/none 2>/dev/null", 32, "");
	sh("mount -t mqueueX x $D 2>&1 | head -1", "mount: $D: unknown filesystem type 'mqueueX'.\n");
	sh_fails("umount $D; mount -t mqueue -o foo=1 x $D 2>/dev/null", 32, "");
}

FILE_CASE("15 (mount)", umount_of_a_busy_mount)
{
	start();
	queue("/q");
	int fd = OK(open(path_in(dir, "q"), O_RDONLY));
	sh_fails("umount $D", 32, "umount: $D: target is busy.\n");
	sh_fails("cd $D; umount $D", 32, "umount: $D: target is busy.\n");
	sh("umount -l $D; ls $D", "");
	close(fd);
}

FILE_CASE("15 (mount)", findmnt_finds)
{
	start();
	queue("/q");
	sh("findmnt -n -o TARGET,SOURCE,FSTYPE,OPTIONS $D", "$D mqueue mqueue rw,relatime\n");
	sh("findmnt -n -o TARGET -t mqueue", "$D\n");
	sh("findmnt -n -o FSTYPE -T $D/q", "mqueue\n");
	sh("test \"$(findmnt -n -o MAJ:MIN $D | tr -d ' ')\" = \"$(mountpoint -d $D)\"", "");
	sh_fails("umount $D; findmnt $D", 1, "");
}

MOUNT_CASE("15 (mount)", mount_binds_and_remounts)
{
	start();
	queue("/q");
	OK(setenv("E", directory("e"), 1));
	sh("mount --bind $D $E && ls $E", "q\n");
	sh("mount -o remount,ro,bind $E && findmnt -n -o OPTIONS $E", "ro,relatime\n");
	sh_fails("rm -f $E/q 2>/dev/null", 1, "");
	sh("mount -o remount,rw,bind $E && rm $E/q && ls $D", "");
	sh("umount $E && ls $E", "");
	sh("mount --move $D $E && ls $D && findmnt -n -o FSTYPE $E && umount $E && ls $E", "mqueue\n");
}

MOUNT_CASE("15 (mount)", unshare_gives_a_namespace_and_its_mount)
{
	start();
	queue("/q");
	sh("unshare -m -i sh -c 'ls $D; mount -t mqueue x $D && ls $D && touch $D/in && ls $D && umount $D && ls $D'",
	   "q\nin\nq\n");
	sh("ls $D", "q\n");
	missing("/in");
}

ROOT_FILE_CASE("15 (whose)", commands_in_another_namespace_act_on_the_mounts)
{
	start();
	queue("/q");
	sh("unshare -i sh -c 'ls $D && cat $D/q && touch $D/r && rm $D/q && ls $D'", "q\n" EMPTY "r\n");
	missing("/q");
	present("/r");
}

ROOT_FILE_CASE("15 (permission)", commands_of_other_users)
{
	start();
	queue("/q");
	CHILD {
		become_ordinary(user(0));
		sh("ls $D", "q\n");
		sh_fails("cat $D/q", 1, "cat: $D/q: Permission denied\n");
		sh_fails("rm -f $D/q", 1, "rm: cannot remove '$D/q': Operation not permitted\n");
		sh_fails("chmod 666 $D/q", 1, "chmod: changing permissions of '$D/q': Operation not permitted\n");
		sh_fails("touch $D/q", 1, "touch: cannot touch '$D/q': Permission denied\n");
		sh("touch $D/mine && rm $D/mine", "");
	}
}

ROOT_FILE_CASE("15 (death)", commands_on_a_dead_namespaces_mount)
{
	private_mounts();
	dir = directory("m");
	environment();
	CHILD {
		EQ(unshare(CLONE_NEWIPC), 0);
		queue("/q");
		put(queue("/r"), "123", 0);
		EQ(mount("x", dir, "mqueue", 0, NULL), 0);
	}
	sh("ls $D", "q\nr\n");
	sh("cat $D/r", "QSIZE:3          NOTIFY:0     SIGNO:0     NOTIFY_PID:0     \n");
	sh_fails("touch $D/new", 1, "touch: cannot touch '$D/new': Permission denied\n");
	sh_fails(": >$D/new", 2, "sh: 2: cannot create $D/new: Permission denied\n");
	sh("touch $D/q && chmod 640 $D/q && stat -c %a $D/q", "640\n");
	sh("rm $D/q && ls $D", "r\n");
	sh("umount $D && ls $D", "");
}
