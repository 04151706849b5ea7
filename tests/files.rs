//! The mqueue file system as unmodified programs use it: coreutils, findutils, the shells, python3, inotifywait,
//! mount, umount and findmnt; programs without the library on a mount made by one with it; the end of a namespace
//! that is mounted: step by step, as a race, and by SIGKILL. The same natively, where the kernel has message
//! queues and IPC namespaces.

mod harness;

use harness::{Mode, Outcome, Run, StateDir, program};
use std::fs;
use std::process::Command;
use std::time::Duration;

/// Each of these tests, once for each [`Mode`].
macro_rules! both {
    ($($name:ident,)*) => {
        $(mod $name {
            #[test]
            fn native() {
                super::$name(super::Mode::Native);
            }
            #[test]
            fn shim() {
                super::$name(super::Mode::Shim);
            }
        })*
    };
}

both!(
    coreutils_list_and_remove,
    coreutils_make_and_change,
    coreutils_are_refused_what_is_no_queue,
    names_of_any_bytes,
    find_finds_and_deletes,
    bash_globs_and_tests,
    dash_globs_and_redirects,
    python_os_and_pathlib,
    python_sends_through_what_it_opens,
    inotifywait_sees_files_come_and_go,
    inotifywait_sees_queues_come_and_go,
    inotifywait_waits_for_a_queue,
    mount_and_umount_commands,
    findmnt_and_the_tables_show_mounts,
    mount_command_binds_moves_and_remounts,
    two_namespaces_side_by_side,
    commands_on_a_dead_namespaces_mount,
    read_only_file_system_of_the_dead,
    mount_goes_with_its_mount_namespace,
    programs_without_the_library_list,
    programs_without_the_library_remove,
    bytes_of_what_a_program_without_the_library_removes_come_back,
    programs_without_the_library_change_modes,
    queue_removed_by_a_program_without_the_library_stays_usable,
    programs_without_the_library_make_queues,
    dead_mount_goes_by_a_program_without_the_library,
    story_of_a_mount,
    story_of_a_detached_mount,
    story_of_a_mount_in_a_user_namespace,
    first_mount_is_seen_by_the_next_path,
    last_exit_against_creators,
    last_exit_against_openers,
    last_exit_against_readers,
    last_exit_against_unlinkers,
    last_exit_against_umount,
    last_exit_against_detaching,
    last_exit_against_a_bind_mount,
    last_exit_against_a_second_mount,
    last_exit_against_all_at_once,
    killed_mounters_are_cleaned_up_after,
);

/// Namespaces and mounts are root's to make.
fn root_or_skip() -> bool {
    // SAFETY: no arguments.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

/// Whether a shell command works for programs without the library.
fn works(command: &str) -> bool {
    Command::new("sh").args(["-c", command]).output().is_ok_and(|o| o.status.success())
}

/// Whether this machine has namespaces of that kind, and lets us mount.
fn can_or_skip(mode: Mode) -> bool {
    if !root_or_skip() {
        return false;
    }
    let has = mode == Mode::Shim || harness::kernel_has_queues() && works("unshare -i true");
    if !has {
        eprintln!("skipped: the kernel has no message queues or no IPC namespaces");
    }
    let mounts = works("unshare -m mount -t tmpfs none /mnt");
    if !mounts {
        eprintln!("skipped: cannot mount in a mount namespace of its own");
    }
    has && mounts
}

/// Whether a command is there.
fn has_or_skip(command: &str) -> bool {
    let has = works(&format!("command -v {command}"));
    if !has {
        eprintln!("skipped: no {command}");
    }
    has
}

/// Whether another user may run the tests' programs with the library.
fn others_may_run() -> bool {
    let mut setpriv = Command::new("setpriv");
    setpriv.args(["--reuid", "12345", "--regid", "12345", "--clear-groups"]).arg(program("ns_probe"));
    setpriv.env("LD_PRELOAD", harness::library());
    let can = setpriv.output().is_ok_and(|o| o.status.success() && o.stderr.is_empty());
    if !can {
        eprintln!("skipped: the build directory is closed to other users");
    }
    can
}

/// What namespaces have left in the state directory: all that lies in the users' directories, `u<UID>`.
fn left(dir: &StateDir) -> Vec<String> {
    let names = |dir: &std::path::Path| {
        let entries = fs::read_dir(dir).expect("list a directory").flatten();
        entries.filter_map(|e| e.file_name().into_string().ok()).collect::<Vec<_>>()
    };
    let users = names(dir.path()).into_iter().filter(|n| n.starts_with('u'));
    let mut all: Vec<_> = users.flat_map(|user| names(&dir.path().join(user))).collect();
    all.sort();
    all
}

#[derive(Clone, Copy, PartialEq)]
enum Look {
    /// Everybody has left politely, and the library has seen every umount.
    AtOnce,
    /// Somebody was killed, or a mount went with its mount namespace: what is left goes when other processes make
    /// namespaces.
    Next,
}

/// Nothing is left: at once, or after some looks. One need not see all, but each sees some.
#[track_caller]
fn nothing_is_left(dir: &StateDir, look: Look) {
    let looks = if look == Look::Next { left(dir).len() } else { 0 };
    for _ in 0..looks {
        let outcome = Run::new(Mode::Shim, program("ns_probe")).args(["unshare"]).dir(dir).run();
        assert!(outcome.ok() && outcome.stdout == "ok\n", "{outcome:?}");
    }
    let left = left(dir);
    assert!(left.is_empty(), "{} left after {looks} looks, the first {}", left.len(), left[0]);
}

/// If no queue is left by its name, nobody is charged for anything after `mqns gc`, which finds what programs without
/// the library have removed.
#[track_caller]
fn nothing_is_charged(dir: &StateDir) {
    if dir.files().iter().any(|(path, ..)| path.parent().is_some_and(|above| above.ends_with("sb"))) {
        return;
    }
    let gc = Command::new(env!("CARGO_BIN_EXE_mqns")).args(["gc", "-q"]).env("MQNS_DIR", dir.path()).status();
    assert!(gc.is_ok_and(|status| status.success()), "mqns gc");
    let charged = harness::charged(dir);
    assert!(charged.is_empty(), "uid and bytes: {charged:?}");
}

/// What scripts begin with. The working directory is a tmpfs, with two empty directories to mount on, `m` and
/// `n`. `probe OPERATION…` is tests/programs/ns_probe.c, its answers on one line; `hold OPERATION…` starts one
/// that stays until `let_go`, as process `$held`. `bare COMMAND…` runs a program without the library; `fails
/// COMMAND…` prints how a command fails.
const PRELUDE: &str = r#"
set -e
umask 022
export LC_ALL=C TZ=UTC
mount -t tmpfs none /mnt; cd /mnt; mkdir m n
probe() { "$PROBE" "$@" | paste -sd' ' -; }
hold() {
    mkfifo gate said
    "$PROBE" "$@" hold <gate >said &
    held=$!
    exec 8>gate 9<said
    rm gate said
    for _ in "$@"; do read -r answer <&9; [ "$answer" = ok ] || echo "hold: $answer"; done
    read -r answer <&9
}
let_go() { exec 8>&-; wait $held; exec 9<&-; }
bare() { env -u LD_PRELOAD "$@"; }
fails() { if "$@" 2>/mnt/error; then echo 'it worked'; else echo "$?: $(cat /mnt/error)"; fi; }
"#;

/// Runs a script in mount and IPC namespaces of its own, under a shell.
fn script(mode: Mode, shell: &str, text: &str, dir: &StateDir) -> Outcome {
    let whole = format!("{PRELUDE}{text}");
    let mut probe = std::ffi::OsString::from("PROBE=");
    probe.push(program("ns_probe"));
    Run::new(mode, "unshare").args(["-m", "env"]).arg(probe).args([shell, "-c", &whole, shell]).dir(dir).run()
}

/// Runs a script, expects these lines, and nothing left behind.
#[track_caller]
fn prints(mode: Mode, shell: &str, look: Look, text: &str, want: &[&str]) {
    if !can_or_skip(mode) {
        return;
    }
    let dir = StateDir::new();
    let outcome = script(mode, shell, text, &dir);
    let lines: Vec<_> = outcome.stdout.lines().collect();
    assert_eq!(lines, want, "{shell}: {:?}, stderr: {}", outcome.status, outcome.stderr);
    assert!(outcome.ok() && outcome.stderr.is_empty(), "{shell}: {outcome:?}");
    if mode == Mode::Shim {
        nothing_is_left(&dir, look);
        nothing_is_charged(&dir);
    }
}

// Coreutils.

fn coreutils_list_and_remove(mode: Mode) {
    let text = r#"
        mount -t mqueue none m
        ls -A m
        probe 'create /one 12345' 'create /two x' 'create /.three x'
        ls m; ls -A m | paste -sd' ' -
        ls -ln m | sed 's/  */ /g' | cut -d' ' -f1-5
        stat -c '%n %F %s %a %h %b %u' m/one m
        stat -f -c '%T %l' m
        cat m/one m/two
        head -qc 8 m/one m/.three; echo
        cat m/one | wc -c
        [ $(stat -c %i m/one) = $(ls -i m/one | cut -d' ' -f1) ] && echo same
        du -s m | cut -f1
        df --output=fstype,target,size m | tail -n 1 | sed 's/  */ /g'
        rm m/one
        fails rm m/one
        probe 'open /one' 'peek /two'
        rm -v m/* m/.three
        fails unlink m/none
        rm -f m/none
        ls -A m
        fails rmdir m
        umount m
        ls -A m
        "#;
    let want = [
        "ok ok ok",
        "one",
        "two",
        ".three one two",
        "total 0",
        "-rw-rw-rw- 1 0 0 80",
        "-rw-rw-rw- 1 0 0 80",
        "m/one regular file 80 666 1 0 0",
        "m directory 100 1777 2 0 0",
        "mqueue 255",
        "QSIZE:5          NOTIFY:0     SIGNO:0     NOTIFY_PID:0     ",
        "QSIZE:1          NOTIFY:0     SIGNO:0     NOTIFY_PID:0     ",
        "QSIZE:5 QSIZE:1 ",
        "60",
        "same",
        "0",
        "mqueue /mnt/m 0",
        "1: rm: cannot remove 'm/one': No such file or directory",
        "ENOENT x",
        "removed 'm/two'",
        "removed 'm/.three'",
        "1: unlink: cannot unlink 'm/none': No such file or directory",
        "1: rmdir: failed to remove 'm': Device or resource busy",
    ];
    prints(mode, "sh", Look::AtOnce, text, &want);
}

fn coreutils_make_and_change(mode: Mode) {
    let text = r#"
        mount -t mqueue none m
        touch m/q
        probe 'open /q' 'create /q x'
        cat m/q
        stat -c '%s %a' m/q
        touch -d '2001-02-03 04:05:06' m/q; stat -c '%x, %y' m/q
        touch -r m/q m/r; stat -c %y m/r
        touch -c m/none; ls m
        install -m 600 /dev/null m/s; stat -c '%s %a' m/s; probe 'open /s'
        chmod 640 m/q; stat -c %A m/q
        chmod u=r,g+w,o= m/q; stat -c %A m/q
        chmod -R a+rw m/q; stat -c %A m/q
        chown 12345:23456 m/q; stat -c '%u %g' m/q
        truncate -s 33 m/q; stat -c %s m/q
        cp m/q text; cat text
        fails cp m/q m/t
        mv m/t text; cat text; ls m
        dd if=m/q bs=6 count=1 status=none; echo
        sort m/r m/q | uniq -c | sed 's/^ *//'
        tee m/q </dev/null
        echo x >text; fails dd if=text of=m/q status=none
        rm m/*
        umount m
        "#;
    let want = [
        "ok EEXIST",
        "QSIZE:0          NOTIFY:0     SIGNO:0     NOTIFY_PID:0     ",
        "80 644",
        "2001-02-03 04:05:06.000000000 +0000, 2001-02-03 04:05:06.000000000 +0000",
        "2001-02-03 04:05:06.000000000 +0000",
        "q",
        "r",
        "80 600",
        "ok",
        "-rw-r-----",
        "-r--rw----",
        "-rw-rw-rw-",
        "12345 23456",
        "33",
        "QSIZE:0          NOTIFY:0     SIGNO:0     NOTIFY_PID:0     ",
        "1: cp: error writing 'm/t': Invalid argument",
        "QSIZE:0          NOTIFY:0     SIGNO:0     NOTIFY_PID:0     ",
        "q",
        "r",
        "s",
        "QSIZE:",
        "2 QSIZE:0          NOTIFY:0     SIGNO:0     NOTIFY_PID:0     ",
        "1: dd: error writing 'm/q': Invalid argument",
    ];
    prints(mode, "sh", Look::AtOnce, text, &want);
}

fn coreutils_are_refused_what_is_no_queue(mode: Mode) {
    let text = r#"
        mount -t mqueue none m
        probe 'create /q x'
        fails mkdir m/d
        fails mkdir m/q
        mkdir -p m
        fails mkfifo m/d
        fails mknod m/d p
        fails ln -s x m/d
        fails ln m/q m/d
        fails ln m/q d
        fails mv m/q m/d
        fails mkdir m/q/d
        fails cat m/q/d
        fails ls m/q/
        fails rmdir m/q
        fails cat m
        mktemp -d m/XXX 2>/dev/null || echo refused
        t=$(mktemp m/XXX); stat -c '%a %s' $t; rm $t
        fails env m/q
        ls m
        probe 'peek /q'
        rm m/q
        umount m
        "#;
    let want = [
        "ok",
        "1: mkdir: cannot create directory 'm/d': Operation not permitted",
        "1: mkdir: cannot create directory 'm/q': File exists",
        "1: mkfifo: cannot create fifo 'm/d': Operation not permitted",
        "1: mknod: m/d: Operation not permitted",
        "1: ln: failed to create symbolic link 'm/d': Operation not permitted",
        "1: ln: failed to create hard link 'm/d' => 'm/q': Operation not permitted",
        "1: ln: failed to create hard link 'd' => 'm/q': Invalid cross-device link",
        "1: mv: cannot move 'm/q' to 'm/d': Operation not permitted",
        "1: mkdir: cannot create directory 'm/q/d': Not a directory",
        "1: cat: m/q/d: Not a directory",
        "2: ls: cannot access 'm/q/': Not a directory",
        "1: rmdir: failed to remove 'm/q': Not a directory",
        "1: cat: m: Is a directory",
        "refused",
        "600 80",
        "126: env: 'm/q': Permission denied",
        "q",
        "x",
    ];
    prints(mode, "sh", Look::AtOnce, text, &want);
}

fn names_of_any_bytes(mode: Mode) {
    let text = r#"
        mount -t mqueue none m
        touch 'm/a b' m/$'c\nd' m/$'\xff' m/...  m/-rf "m/'\"\\*?" m/$(printf %0255d 0)
        touch m/$(printf %0256d 0) 2>/dev/null || echo refused
        ls -Ab m | cut -c1-20
        for f in m/*; do [ -f "$f" ] && cut -c1-8 "$f"; done | uniq -c | sed 's/^ *//'
        probe 'open /...' 'open /-rf'
        find m -type f -print0 | xargs -0 -n1 rm --
        ls -A m
        umount m
        "#;
    let want = [
        "refused",
        "'\"\\\\*?",
        "-rf",
        "...",
        "00000000000000000000",
        "a\\ b",
        "c\\nd",
        "\\377",
        "6 QSIZE:0 ",
        "ok ok",
    ];
    prints(mode, "bash", Look::AtOnce, text, &want);
}

// Findutils.

fn find_finds_and_deletes(mode: Mode) {
    let text = r#"
        mount -t mqueue none m
        probe 'create /a1 12345' 'create /a2 x' 'create /b x'
        find m | sort
        find m -xdev -type f -name 'a*' -size 80c | sort
        find . -xdev | sort
        find . -fstype mqueue -type f | sort
        find m -type f -printf '%f %s %m %n %F\n' | sort
        find m -name 'a*' -exec cut -c1-8 {} + | sort
        find m -name b -exec sh -c 'cat "$1"; rm "$1"' sh {} ';'
        find m -name 'a1' -delete
        find m -newermt 2001-01-01 -type f -empty; find m -type f -print0 | xargs -0 cat
        (cd m; find . -name 'a2' -execdir rm {} ';'; ls -A)
        probe 'open /a1' 'open /a2' 'open /b'
        umount m
        "#;
    let want = [
        "ok ok ok",
        "m",
        "m/a1",
        "m/a2",
        "m/b",
        "m/a1",
        "m/a2",
        ".",
        "./m",
        "./n",
        "./m/a1",
        "./m/a2",
        "./m/b",
        "a1 80 666 1 mqueue",
        "a2 80 666 1 mqueue",
        "b 80 666 1 mqueue",
        "QSIZE:1 ",
        "QSIZE:5 ",
        "QSIZE:1          NOTIFY:0     SIGNO:0     NOTIFY_PID:0     ",
        "QSIZE:1          NOTIFY:0     SIGNO:0     NOTIFY_PID:0     ",
        "ENOENT ENOENT ENOENT",
    ];
    prints(mode, "sh", Look::AtOnce, text, &want);
}

// The shells.

fn bash_globs_and_tests(mode: Mode) {
    let text = r#"
        mount -t mqueue none m
        shopt -s extglob nullglob globstar dotglob
        echo m/*
        probe 'create /q1 12345' 'create /q2 x' 'create /.x x'
        echo m/*; echo m/q?; echo m/[!q]*; echo m/!(q*) m/none*; echo **
        (cd m; echo *; pwd; /bin/pwd)
        cd m; cd ..; pwd
        for f in m/q*; do echo "${f##*/} $(<"$f")"; done | cut -c1-11
        [[ -e m/q1 && -f m/q1 && -s m/q1 && -r m/q1 && -w m/q1 && ! -x m/q1 && ! -d m/q1 && ! -L m/q1 ]] && echo file
        [[ -d m && -k m && -x m && -w m && ! -e m/none ]] && echo directory
        [[ m/q1 -ef m/./q1 ]] && echo same
        read -r first rest <m/q1; echo "$first"
        mapfile -t lines <m/q2; echo ${#lines[@]} "${lines[0]%% *}"
        exec 7<m/q1; cat <&7; exec 7<&-
        : >m/made; : >>m/more; ls m
        set -C; fails eval ': >m/made' | sed 's/.*: m/m/'; set +C
        stat -c %s m/q1; : >m/q1; stat -c %s m/q1
        cat <(cat m/q1) | cut -c1-8
        rm m/*
        ls -A m
        umount m
        "#;
    let want = [
        "",
        "ok ok ok",
        "m/.x m/q1 m/q2",
        "m/q1 m/q2",
        "m/.x",
        "m/.x",
        "m m/.x m/q1 m/q2 n",
        ".x q1 q2",
        "/mnt/m",
        "/mnt/m",
        "/mnt",
        "q1 QSIZE:5 ",
        "q2 QSIZE:1 ",
        "file",
        "directory",
        "same",
        "QSIZE:5",
        "1 QSIZE:1",
        "QSIZE:5          NOTIFY:0     SIGNO:0     NOTIFY_PID:0     ",
        "made",
        "more",
        "q1",
        "q2",
        "m/made: cannot overwrite existing file",
        "80",
        "0",
        "QSIZE:5 ",
    ];
    prints(mode, "bash", Look::AtOnce, text, &want);
}

fn dash_globs_and_redirects(mode: Mode) {
    let text = r#"
        mount -t mqueue none m
        probe 'create /q1 12345' 'create /q2 x'
        echo m/* m/q[12] m/z*
        for f in m/q*; do read -r a b <$f; echo "$f $a"; done
        : >m/made; ls m
        cat <m/made
        if [ -s m/made ] && [ -r m/made ] && ! [ -x m/made ]; then echo file; fi
        cd m; echo *; cd ..; pwd
        dash -c 'exec 7<m/q1; cat <&7'
        rm m/*; ls -A m
        umount m
        "#;
    let want = [
        "ok ok",
        "m/q1 m/q2 m/q1 m/q2 m/z*",
        "m/q1 QSIZE:5",
        "m/q2 QSIZE:1",
        "made",
        "q1",
        "q2",
        "QSIZE:0          NOTIFY:0     SIGNO:0     NOTIFY_PID:0     ",
        "file",
        "made q1 q2",
        "/mnt",
        "QSIZE:5          NOTIFY:0     SIGNO:0     NOTIFY_PID:0     ",
    ];
    prints(mode, "dash", Look::AtOnce, text, &want);
}

// Python.

fn python_os_and_pathlib(mode: Mode) {
    let text = r#"
        mount -t mqueue none m
        probe 'create /q 12345'
        cat >client.py <<'END'
import errno, os, pathlib, stat
from pathlib import Path
def refused(f, *args):
    try:
        f(*args)
    except OSError as e:
        return errno.errorcode[e.errno]
    return "it worked"
m = Path("m")
print(os.listdir("m"), [(e.name, e.is_file(), e.is_dir(), e.stat().st_size) for e in os.scandir("m")])
st = os.stat("m/q")
print(stat.filemode(st.st_mode), st.st_size, st.st_nlink, st.st_dev == os.stat("m").st_dev, os.statvfs("m").f_namemax)
print(open("m/q").read(), end="")
print((m / "q").read_text().split()[0], (m / "q").read_bytes()[:7], (m / "q").stat().st_ino == st.st_ino)
print((m / "q").exists(), (m / "none").exists(), (m / "q").is_file(), m.is_dir(), m.is_mount(), os.path.ismount("n"))
(m / "r").touch(0o600)
print(sorted(p.name for p in m.iterdir()), sorted(str(p) for p in Path(".").glob("m/*")), (m / "r").owner())
print(refused((m / "r").touch, 0o600, False), refused((m / "d").mkdir), refused((m / "d").symlink_to, "q"))
print(refused(os.rename, "m/q", "m/s"), refused(os.link, "m/q", "m/s"), refused(os.rename, "m/q", "s"), refused(os.rmdir, "m"))
print(refused(os.mkfifo, "m/s"), refused(os.listdir, "m/q"), refused(os.readlink, "m/q"), refused(os.rmdir, "m/q"))
print(refused(os.setxattr, "m/q", "user.x", b"x"), refused((m / "q").write_text, "x"), refused(open, "m/q", "x"))
os.chmod("m/q", 0o640)
os.utime("m/q", (5, 6))
st = os.stat("m/q")
print(oct(st.st_mode), st.st_atime, st.st_mtime)
os.truncate("m/q", 7)
print(os.path.getsize("m/q"), os.access("m/q", os.R_OK | os.W_OK), os.access("m/q", os.X_OK))
d = os.open("m", os.O_RDONLY | os.O_DIRECTORY)
print(sorted(os.listdir(d)), os.stat("q", dir_fd=d).st_size, os.path.realpath("m/../m/q"))
fd = os.open("t", os.O_RDWR | os.O_CREAT, 0o600, dir_fd=d)
print(os.readlink("/proc/self/fd/%d" % fd), os.pread(fd, 8, 0), refused(os.write, fd, b"x"), os.lseek(fd, 0, os.SEEK_END))
os.close(fd)
os.unlink("t", dir_fd=d)
os.close(d)
os.chdir("m")
print(os.getcwd(), sorted(os.listdir()), open("q").read(7))
os.chdir("..")
(m / "r").unlink()
os.remove("m/q")
(m / "q").unlink(missing_ok=True)
print(refused(os.unlink, "m/q"), os.listdir("m"))
END
        python3 client.py
        umount m
        "#;
    let want = [
        "ok",
        "['q'] [('q', True, False, 80)]",
        "-rw-rw-rw- 80 1 True 255",
        "QSIZE:5          NOTIFY:0     SIGNO:0     NOTIFY_PID:0     ",
        "QSIZE:5 b'QSIZE:5' True",
        "True False True True True False",
        "['q', 'r'] ['m/q', 'm/r'] root",
        "EEXIST EPERM EPERM",
        "EPERM EPERM EXDEV EBUSY",
        "EPERM ENOTDIR EINVAL ENOTDIR",
        "ENOTSUP EINVAL EEXIST",
        "0o100640 5.0 6.0",
        "7 True False",
        "['q', 'r'] 7 /mnt/m/q",
        "/mnt/m/t b'QSIZE:0 ' EINVAL 80",
        "/mnt/m ['q', 'r'] QSIZE:5",
        "ENOENT []",
    ];
    prints(mode, "sh", Look::AtOnce, text, &want);
}

fn python_sends_through_what_it_opens(mode: Mode) {
    let text = r#"
        mount -t mqueue none m
        probe 'create /q 12345'
        cat >client.py <<'END'
import ctypes, os, select, shutil, subprocess
libc = ctypes.CDLL(None, use_errno=True)
fd = os.open("m/q", os.O_RDWR | os.O_NONBLOCK)
poll = select.poll()
poll.register(fd, select.POLLIN | select.POLLOUT)
def events():
    return sorted({select.POLLIN: "in", select.POLLOUT: "out"}[e] for e in (1, 4) for f, r in poll.poll(0) if r & e)
text = ctypes.create_string_buffer(64)
print(events(), libc.mq_receive(fd, text, 64, None), text.value, events())
for i in range(4):
    assert libc.mq_send(fd, b"abc", 3, i) == 0
print(events(), libc.mq_send(fd, b"abc", 3, 0), ctypes.get_errno() == 11, open("m/q").read(8))
print(select.select([fd], [fd], [], 0) == ([fd], [], []))
print([(root, dirs, files) for root, dirs, files in os.walk("m")])
os.unlink("m/q")
print(libc.mq_receive(fd, text, 64, None), os.fstat(fd).st_nlink, os.readlink("/proc/self/fd/%d" % fd))
os.close(fd)
subprocess.run(["touch", "m/made"], check=True)
print(shutil.copyfileobj(open("m/made"), open("copy", "w")), os.path.getsize("copy"))
shutil.move("m/made", "moved")
print(os.listdir("m"), open("moved").read(), end="")
END
        python3 client.py
        umount m
        "#;
    let want = [
        "ok",
        "['in', 'out'] 5 b'12345' ['out']",
        "['in'] -1 True QSIZE:12",
        "True",
        "[('m', [], ['q'])]",
        "3 0 /mnt/m/q (deleted)",
        "None 60",
        "[] QSIZE:0          NOTIFY:0     SIGNO:0     NOTIFY_PID:0     ",
    ];
    prints(mode, "sh", Look::AtOnce, text, &want);
}

// inotify-tools.

fn inotifywait_sees_files_come_and_go(mode: Mode) {
    if !has_or_skip("inotifywait") {
        return;
    }
    let text = r#"
        mount -t mqueue none m
        mkfifo events established
        inotifywait -m -e create -e delete -e attrib -e move --format '%e %f' m >events 2>established & watcher=$!
        exec 7<events 6<established
        while read -r line <&6 && [ "$line" != 'Watches established.' ]; do :; done
        next() { for _ in $(seq $1); do read -r event <&7; echo "$event"; done; }
        touch m/a; next 2
        mkdir m/d 2>/dev/null || true
        : >m/b; next 1
        chmod 600 m/b; next 1
        mknod m/p p 2>/dev/null || true
        mv m/a m/c 2>/dev/null || true
        python3 -c 'import os; os.mknod("m/c")'; next 1
        rm m/a m/b; next 2
        find m -name c -delete; next 1
        kill $watcher; wait $watcher 2>/dev/null || true
        cat <&7
        umount m
        "#;
    let want = ["CREATE a", "ATTRIB a", "CREATE b", "ATTRIB b", "CREATE c", "DELETE a", "DELETE b", "DELETE c"];
    prints(mode, "sh", Look::AtOnce, text, &want);
}

fn inotifywait_sees_queues_come_and_go(mode: Mode) {
    if !has_or_skip("inotifywait") {
        return;
    }
    let text = r#"
        mount -t mqueue none m
        mkfifo events established
        inotifywait -m -e create -e delete -e move --format '%e %f' m >events 2>established & watcher=$!
        exec 7<events 6<established
        while read -r line <&6 && [ "$line" != 'Watches established.' ]; do :; done
        next() { for _ in $(seq $1); do read -r event <&7; echo "$event"; done; }
        probe 'create /a x'; next 1
        probe 'peek /a' 'create /b x' 'unlink /a'; next 2
        probe 'unlink /b' 'create /b y'; next 2
        unshare -i "$PROBE" 'create /other x'
        probe 'unlink /b'; next 1
        kill $watcher; wait $watcher 2>/dev/null || true
        cat <&7
        umount m
        "#;
    let want =
        ["ok", "CREATE a", "x ok ok", "CREATE b", "DELETE a", "ok ok", "DELETE b", "CREATE b", "ok", "ok", "DELETE b"];
    prints(mode, "sh", Look::AtOnce, text, &want);
}

fn inotifywait_waits_for_a_queue(mode: Mode) {
    if !has_or_skip("inotifywait") {
        return;
    }
    let text = r#"
        mount -t mqueue none m
        mkfifo established
        inotifywait -e create --format '%w%f' m >event 2>established & watcher=$!
        exec 6<established
        while read -r line <&6 && [ "$line" != 'Watches established.' ]; do :; done
        probe 'create /a x'
        wait $watcher && cat event
        cat $(cat event) | cut -c1-8
        rm m/a
        umount m
        "#;
    let want = ["ok", "m/a", "QSIZE:1 "];
    prints(mode, "sh", Look::AtOnce, text, &want);
}

// util-linux.

fn mount_and_umount_commands(mode: Mode) {
    let text = r#"
        probe 'create /q x'
        mount -t mqueue none m && ls m
        fails mount -t mqueue none m | head -n 1 | cut -d: -f1-3
        fails mount -t mqueue none none | head -n 1
        mount -t mqueue -o foo=1 none n 2>/dev/null || echo refused; ls n
        fails mount -t mqueueX none n | head -n 1
        mount -t mqueue -o ro,nosuid second n && ls n
        fails rm -f n/q
        fails touch n/r
        umount n
        mountpoint m; mountpoint n || true
        (cd m; fails umount ../m)
        exec 7<m/q; fails umount m; exec 7<&-
        umount m; ls m
        fails umount m
        mount -t mqueue none m; exec 7<m/q; umount -l m; ls m; cut -c1-8 <&7; exec 7<&-
        ln -s m link; mount -t mqueue none link/; ls m; umount ./link; ls m
        mount -t mqueue none /mnt/m/../n; ls n; umount /mnt/n; ls n
        mount none n -t mqueue --make-private; umount n
        setpriv --reuid 12345 --regid 12345 --clear-groups mount -t mqueue none n 2>/dev/null || echo refused
        probe 'peek /q'
        "#;
    let want = [
        "ok",
        "q",
        "32: mount: /mnt/m",
        "32: mount: none: mount point does not exist.",
        "refused",
        "32: mount: /mnt/n: unknown filesystem type 'mqueueX'.",
        "q",
        "1: rm: cannot remove 'n/q': Read-only file system",
        "1: touch: cannot touch 'n/r': Read-only file system",
        "m is a mountpoint",
        "n is not a mountpoint",
        "32: umount: /mnt/m: target is busy.",
        "32: umount: /mnt/m: target is busy.",
        "32: umount: m: not mounted.",
        "QSIZE:1 ",
        "q",
        "q",
        "refused",
        "x",
    ];
    prints(mode, "sh", Look::AtOnce, text, &want);
}

fn findmnt_and_the_tables_show_mounts(mode: Mode) {
    let text = r#"
        findmnt -t mqueue -n -o TARGET | grep '^/mnt' || echo none
        mount -t mqueue source m; mount -t mqueue -o ro,nosuid,nodev none n
        findmnt -n -o TARGET,SOURCE,FSTYPE,OPTIONS --raw m n | cat
        findmnt -n -o TARGET,SOURCE,FSTYPE,OPTIONS --raw m
        findmnt -n -o TARGET,SOURCE,FSTYPE,OPTIONS --raw n
        findmnt -n -o TARGET -t mqueue --raw | grep '^/mnt'
        touch m/q; findmnt -n -o FSTYPE,TARGET --raw -T m/q
        grep ' /mnt/[mn] ' /proc/mounts
        grep ' /mnt/[mn] ' /proc/self/mountinfo | sed 's/.* - //'
        grep ' /mnt/[mn] ' /proc/$$/mounts | cut -d' ' -f3
        mount -t mqueue | grep ' /mnt/[mn] '
        mount | grep -c ' on /mnt/[mn] type mqueue '
        cat /proc/self/mounts | awk '$2 == "/mnt/m" { print $3 }'
        python3 -c 'for line in open("/proc/self/mountinfo"):
    f = line.split()
    if f[4] in ("/mnt/m", "/mnt/n"): print(f[3], f[4], f[f.index("-") + 1])'
        python3 -c 'import os; d = os.stat("m").st_dev; print("%d:%d" % (os.major(d), os.minor(d)))' >device
        [ "$(findmnt -n -o MAJ:MIN m | tr -d ' ')" = "$(cat device)" ] && echo same
        stat -c %m m/q
        rm m/q
        umount m n
        findmnt m || echo none
        grep -c ' /mnt/[mn] ' /proc/mounts || true
        "#;
    let want = [
        "none",
        "/mnt/m source mqueue rw,relatime",
        "/mnt/n none mqueue ro,nosuid,nodev,relatime",
        "/mnt/m",
        "/mnt/n",
        "mqueue /mnt/m",
        "source /mnt/m mqueue rw,relatime 0 0",
        "none /mnt/n mqueue ro,nosuid,nodev,relatime 0 0",
        "mqueue source rw",
        "mqueue none rw",
        "mqueue",
        "mqueue",
        "source on /mnt/m type mqueue (rw,relatime)",
        "none on /mnt/n type mqueue (ro,nosuid,nodev,relatime)",
        "2",
        "mqueue",
        "/ /mnt/m mqueue",
        "/ /mnt/n mqueue",
        "same",
        "/mnt/m",
        "none",
        "0",
    ];
    prints(mode, "sh", Look::AtOnce, text, &want);
}

fn mount_command_binds_moves_and_remounts(mode: Mode) {
    let text = r#"
        probe 'create /q x'
        mount -t mqueue none m
        mount --bind m n; ls n; findmnt -n -o FSTYPE n
        mount -o remount,ro,bind n; findmnt -n -o OPTIONS n
        fails rm -f n/q; fails touch n/new
        touch m/new; ls n
        mount -o remount,rw,bind n; rm n/new; ls m
        umount n; ls n
        mount --move m n; ls m; ls n; umount n
        mount -t mqueue none m
        mount -o remount,ro m
        fails touch m/new; probe 'create /new x' 'unlink /q' 'peek /q'
        mount -o remount,rw m; touch m/new; ls m; rm m/new
        umount m
        "#;
    let want = [
        "ok",
        "q",
        "mqueue",
        "ro,relatime",
        "1: rm: cannot remove 'n/q': Read-only file system",
        "1: touch: cannot touch 'n/new': Read-only file system",
        "new",
        "q",
        "q",
        "q",
        "1: touch: cannot touch 'm/new': Read-only file system",
        "EROFS EROFS EROFS",
        "new",
        "q",
    ];
    prints(mode, "sh", Look::AtOnce, text, &want);
}

// Namespaces.

fn two_namespaces_side_by_side(mode: Mode) {
    let text = r#"
        probe 'create /q ours'
        mount -t mqueue ours m
        hold unshare 'create /q theirs' 'create /r theirs'
        nsenter -i -t $held mount -t mqueue theirs n
        ls m; ls n
        [ $(stat -c %d m) != $(stat -c %d n) ] && echo apart
        nsenter -i -t $held sh -c 'ls m n; cut -c1-8 n/q; touch m/made n/made; rm m/q'
        ls m n
        probe 'open /q' 'open /made' 'open /r'
        nsenter -i -t $held "$PROBE" 'peek /q' 'open /made' | paste -sd' ' -
        nsenter -i -t $held sh -c 'mount -t mqueue above m; ls m; umount m; ls m'
        unshare -i sh -c 'ls m n; mount -t mqueue third m; ls m; touch m/third; ls m; umount m; ls m'
        unshare -m sh -c 'umount m; ls m; ls n; mount -t mqueue x m; ls m'
        ls m
        rm m/*
        let_go
        fails touch n/late
        ls n
        umount n m
        ls m n
        "#;
    let want = [
        "ok",
        "q",
        "q",
        "r",
        "apart",
        "m:",
        "q",
        "",
        "n:",
        "q",
        "r",
        "QSIZE:6 ",
        "m:",
        "made",
        "",
        "n:",
        "made",
        "q",
        "r",
        "ENOENT ok ENOENT",
        "theirs ok",
        "made",
        "q",
        "r",
        "made",
        "m:",
        "made",
        "",
        "n:",
        "made",
        "q",
        "r",
        "third",
        "made",
        "made",
        "q",
        "r",
        "made",
        "made",
        "1: touch: cannot touch 'n/late': Permission denied",
        "made",
        "q",
        "r",
        "m:",
        "",
        "n:",
    ];
    prints(mode, "sh", Look::AtOnce, text, &want);
}

fn commands_on_a_dead_namespaces_mount(mode: Mode) {
    let text = r#"
        unshare -i sh -c '"$PROBE" "create /q 12345" "create /r x"; mount -t mqueue dead m; touch m/s; ls m'
        ls m
        fails touch m/new
        fails cp /dev/null m/new
        fails mkdir m/new
        bash -c ': >m/new' 2>/dev/null || echo refused
        python3 -c 'import pathlib
try: pathlib.Path("m/new").touch()
except OSError as e: print(e)'
        touch m/q; cat m/q
        chmod 640 m/r; stat -c '%a %s' m/r
        : >m/r; stat -c %s m/r
        find m -type f | sort
        rm m/q; find m -name s -delete; ls m
        mount --bind m n; umount m; ls n
        fails touch n/new
        unshare -i "$PROBE" 'open /r'
        unshare -m sh -c 'umount n; ls n'
        ls n
        umount n; ls n
        "#;
    let want = [
        "ok",
        "ok",
        "q",
        "r",
        "s",
        "q",
        "r",
        "s",
        "1: touch: cannot touch 'm/new': Permission denied",
        "1: cp: cannot create regular file 'm/new': Permission denied",
        "1: mkdir: cannot create directory 'm/new': Operation not permitted",
        "refused",
        "[Errno 13] Permission denied: 'm/new'",
        "QSIZE:5          NOTIFY:0     SIGNO:0     NOTIFY_PID:0     ",
        "640 80",
        "0",
        "m/q",
        "m/r",
        "m/s",
        "r",
        "r",
        "1: touch: cannot touch 'n/new': Permission denied",
        "ENOENT",
        "r",
    ];
    prints(mode, "sh", Look::AtOnce, text, &want);
}

fn read_only_file_system_of_the_dead(mode: Mode) {
    let text = r#"
        unshare -i sh -c '"$PROBE" "create /q 12345"; mount -t mqueue dead m; mount -o remount,ro m'
        fails rm m/q
        umount m; ls m
        "#;
    prints(mode, "sh", Look::AtOnce, text, &["ok", "1: rm: cannot remove 'm/q': Read-only file system"]);
}

fn mount_goes_with_its_mount_namespace(mode: Mode) {
    let text = r#"
        unshare -m -i sh -c '"$PROBE" "create /q x"; mount -t mqueue none m; ls m'
        unshare -i sh -c '"$PROBE" "create /q x"; mount -t mqueue none m; unshare -i unshare -m true'
        unshare -m sh -c 'ls m; umount m; ls m'
        ls m
        mkfifo go ready
        unshare -m sh -c 'echo >ready; read -r _ <go; ls m; fails() { "$@" 2>/dev/null || echo refused; }; fails touch m/new
            umount m; ls m' & other=$!
        read -r _ <ready
        umount m; ls m
        echo >go; wait $other
        "#;
    let want = ["ok", "q", "ok", "q", "q", "q", "refused"];
    prints(mode, "sh", Look::Next, text, &want);
}

// Programs without the library, on a mount made by one with it.

fn programs_without_the_library_list(mode: Mode) {
    let text = r#"
        mount -t mqueue none m
        bare ls -A m
        probe 'create /q 12345' 'create /r x'; touch m/s; chmod 600 m/s; chown 12345:23456 m/s
        bare ls m | paste -sd' ' -
        bare stat -c '%n %F %s %a %h %u %g' m/q m/s
        bare sh -c 'cd m; echo *; test -f q && test -s q && echo file'
        bare find m -type f -size 80c | sort
        bare python3 -c 'import os; print(sorted(os.listdir("m")))'
        [ $(bare stat -c %i m/q) = $(stat -c %i m/q) ] && echo same
        fails env -u LD_PRELOAD m/q
        rm m/r; bare ls m | paste -sd' ' -
        bare umount m; bare ls m
        probe 'peek /q'
        "#;
    let want = [
        "ok ok",
        "q r s",
        "m/q regular file 80 666 1 0 0",
        "m/s regular file 80 600 1 12345 23456",
        "q r s",
        "file",
        "m/q",
        "m/r",
        "m/s",
        "['q', 'r', 's']",
        "same",
        "126: env: 'm/q': Permission denied",
        "q s",
        "12345",
    ];
    prints(mode, "sh", Look::AtOnce, text, &want);
}

fn programs_without_the_library_remove(mode: Mode) {
    let text = r#"
        mount -t mqueue none m
        probe 'create /q 12345' 'create /r x'
        bare rm m/q
        ls m
        probe 'open /q' 'peek /r' 'unlink /q'
        probe 'create /q again' 'peek /q'
        bare find m -type f -delete; ls -A m
        probe 'open /q' 'open /r' 'create /q once-more' 'peek /q'
        fails bare rm m/none
        bare python3 -c 'import os; os.unlink("m/q")'
        fails cat m/q
        for i in $(seq 50); do probe 'create /q x' >/dev/null; bare rm m/q; done
        probe 'create /q x' 'peek /q'
        rm m/q
        umount m
        "#;
    let want = [
        "ok ok",
        "r",
        "ENOENT x ENOENT",
        "ok again",
        "ENOENT ENOENT ok once-more",
        "1: rm: cannot remove 'm/none': No such file or directory",
        "1: cat: m/q: No such file or directory",
        "ok x",
    ];
    prints(mode, "sh", Look::AtOnce, text, &want);
}

fn bytes_of_what_a_program_without_the_library_removes_come_back(mode: Mode) {
    let text = r#"
        mount -t mqueue none m
        cat >client.py <<'END'
import ctypes, os, resource, subprocess
libc = ctypes.CDLL(None, use_errno=True)
def queue(name, size):
    attr = (ctypes.c_long * 8)(0, 1, size, 0)
    fd = libc.mq_open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600, attr)
    print(name.decode(), "EMFILE" if fd < 0 and ctypes.get_errno() == 24 else "ok" if fd >= 0 else ctypes.get_errno(), flush=True)
    if fd >= 0:
        os.close(fd)
# Nobody else's queues are charged to that real user, as whom nothing is preloaded into programs.
os.setresuid(200000 + os.getpid(), -1, -1)
resource.setrlimit(resource.RLIMIT_MSGQUEUE, (1000 + 96, 1000 + 96))
for i in range(3):
    queue(b"/q", 1000)
    queue(b"/r", 1)
    subprocess.run(["rm", "m/q"], check=True)
    queue(b"/r", 1)
    subprocess.run(["rm", "m/r"], check=True)
END
        python3 client.py
        umount m
        "#;
    let want = ["/q ok", "/r EMFILE", "/r ok", "/q ok", "/r EMFILE", "/r ok", "/q ok", "/r EMFILE", "/r ok"];
    prints(mode, "sh", Look::AtOnce, text, &want);
}

/// What they set with chmod and chown is what mq_open obeys.
fn programs_without_the_library_change_modes(mode: Mode) {
    if !others_may_run() {
        return;
    }
    let text = r#"
        chmod 755 .
        mount -t mqueue none m
        probe 'create /q x'
        user='setpriv --reuid 12345 --regid 12345 --clear-groups'
        $user "$PROBE" 'peek /q'
        bare chmod 600 m/q; stat -c %a m/q
        $user "$PROBE" 'open /q'
        bare chown 12345 m/q; stat -c %u m/q
        $user "$PROBE" 'peek /q'
        bare chmod 0444 m/q
        $user "$PROBE" 'open /q' 'peek /q' | paste -sd' ' -
        bare chown 0:12345 m/q; bare chmod 0060 m/q
        $user "$PROBE" 'peek /q'
        bare python3 -c 'import os; os.chmod("m/q", 0o604)'
        $user "$PROBE" 'open /q'
        fails $user env -u LD_PRELOAD rm -f m/q
        fails $user env -u LD_PRELOAD chmod 666 m/q
        $user "$PROBE" 'unlink /q'
        probe 'unlink /q'
        umount m
        "#;
    let want = [
        "ok",
        "x",
        "600",
        "EACCES",
        "12345",
        "x",
        "ok EACCES",
        "x",
        "EACCES",
        "1: rm: cannot remove 'm/q': Operation not permitted",
        "1: chmod: changing permissions of 'm/q': Operation not permitted",
        "EACCES",
        "ok",
    ];
    prints(mode, "sh", Look::AtOnce, text, &want);
}

fn queue_removed_by_a_program_without_the_library_stays_usable(mode: Mode) {
    let text = r#"
        mount -t mqueue none m
        cat >client.py <<'END'
import ctypes, os, subprocess, threading
libc = ctypes.CDLL(None, use_errno=True)
def check(result):
    if result < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
def bare(*command):
    env = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    subprocess.run(command, env=env, check=True)
text = ctypes.create_string_buffer(64)
attr = (ctypes.c_long * 8)(0, 2, 64, 0)
fd = check(libc.mq_open(b"/q", os.O_RDWR | os.O_CREAT, 0o600, attr))
other = os.open("m/q", os.O_RDWR)
check(libc.mq_send(fd, b"before", 6, 0))
bare("rm", "m/q")
print(os.listdir("m"), os.fstat(fd).st_nlink)
check(libc.mq_send(fd, b"after", 5, 1))
def receive(fd):
    n = check(libc.mq_receive(fd, text, 64, None))
    return text.raw[:n]
print(receive(other), receive(fd))
new = check(libc.mq_open(b"/q", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NONBLOCK, 0o600, attr))
print(libc.mq_receive(new, text, 64, None), ctypes.get_errno() == 11, os.listdir("m"))
print(os.fstat(new).st_ino != os.fstat(fd).st_ino, os.fstat(fd).st_ino == os.fstat(other).st_ino)
# One who sleeps when it is removed.
sleeper = threading.Thread(target=lambda: received.append(receive(fd)))
received = []
sleeper.start()
bare("rm", "m/q")
child = os.fork()
if not child:
    os._exit(libc.mq_send(other, b"wake", 4, 0))
print(os.waitpid(child, 0)[1])
sleeper.join()
print(received)
print(libc.mq_open(b"/q", os.O_RDWR), ctypes.get_errno())
for fd in fd, other, new:
    os.close(fd)
print(os.listdir("m"))
END
        python3 -u client.py
        umount m
        "#;
    let want = ["[] 0", "b'after' b'before'", "-1 True ['q']", "True True", "0", "[b'wake']", "-1 2", "[]"];
    prints(mode, "sh", Look::AtOnce, text, &want);
}

/// An empty file is a queue with default attributes.
fn programs_without_the_library_make_queues(mode: Mode) {
    let text = r#"
        mount -t mqueue none m
        bare touch m/q; bare sh -c ': >m/r'
        probe 'create /q x' 'open /q' 'open /r'
        cat m/q; cat m/r
        stat -c '%s %a' m/q m/r
        python3 -c 'import os, ctypes
libc, attr = ctypes.CDLL(None), (ctypes.c_long * 8)()
print(libc.mq_getattr(os.open("m/q", os.O_RDONLY), attr), list(attr)[:4])'
        rm m/q; probe 'unlink /r' 'open /q'
        umount m
        "#;
    let want = [
        "EEXIST ok ok",
        "QSIZE:0          NOTIFY:0     SIGNO:0     NOTIFY_PID:0     ",
        "QSIZE:0          NOTIFY:0     SIGNO:0     NOTIFY_PID:0     ",
        "80 644",
        "80 644",
        "0 [0, 10, 8192, 0]",
        "ok ENOENT",
    ];
    prints(mode, "sh", Look::AtOnce, text, &want);
}

fn dead_mount_goes_by_a_program_without_the_library(mode: Mode) {
    let text = r#"
        for how in bare ''; do
            unshare -i sh -c '"$PROBE" "create /q 12345"; mount -t mqueue dead m'
            ls m
            $how umount m
            ls m
        done
        unshare -i sh -c '"$PROBE" "create /q 12345"; mount -t mqueue dead m'
        mount --move m n; ls m n; bare rm n/q; ls n
        bare umount -l n
        "#;
    let want = ["ok", "q", "ok", "q", "ok", "m:", "", "n:", "q"];
    prints(mode, "sh", Look::Next, text, &want);
}

// The story that the file system was made for.

/// What tests/programs/fs_story.c prints: the lines for all, and those that begin with one of the arguments, in
/// brackets.
fn story(arguments: &[&str]) -> Vec<&'static str> {
    let lines = include_str!("programs/fs_story.expected").lines();
    let applies = |line: &'static str| match line.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        None => Some(line),
        Some((whose, line)) => whose.split(' ').any(|w| arguments.contains(&w)).then_some(line),
    };
    lines.filter_map(applies).collect()
}

/// Tells the story, with the namespace made and left in each way, as started by `prefix`.
#[track_caller]
fn tells(mode: Mode, prefix: &[&str], leaves: &str) {
    for made in ["unshare", "clone"] {
        for ends in ["exit", "kill", "setns", "unshare", "exec", "member"] {
            let arguments = [&format!("by-{made}"), ends, leaves];
            let dir = StateDir::new();
            let run = Run::new(mode, prefix[0]).args(&prefix[1..]).arg(program("fs_story"));
            let outcome = run.args([made, ends, leaves]).dir(&dir).run();
            let lines: Vec<_> = outcome.stdout.lines().collect();
            assert_eq!(lines, story(&arguments.map(|a| a as &str)), "{arguments:?}, stderr: {}", outcome.stderr);
            assert!(outcome.ok() && outcome.stderr.is_empty(), "{arguments:?}: {outcome:?}");
            if mode == Mode::Shim {
                nothing_is_left(&dir, Look::AtOnce);
            }
        }
    }
}

fn story_of_a_mount(mode: Mode) {
    if can_or_skip(mode) {
        tells(mode, &["unshare", "-m"], "umount");
    }
}

fn story_of_a_detached_mount(mode: Mode) {
    if can_or_skip(mode) {
        tells(mode, &["unshare", "-m"], "detach");
    }
}

/// An ordinary user may mount there.
fn story_of_a_mount_in_a_user_namespace(mode: Mode) {
    let user = ["setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups"];
    let inside = ["unshare", "-U", "-r", "-i", "-m"];
    if !can_or_skip(mode) || !others_may_run() {
        return;
    }
    if !works(&format!("{} {} true", user.join(" "), inside.join(" "))) {
        eprintln!("skipped: users may not make user namespaces");
        return;
    }
    tells(mode, &[&user[..], &inside[..]].concat(), "umount");
}

// Races and death. Each round is checked by the program, the state directory included.

/// Runs a program in a mount namespace of its own, to its end. Nothing is left behind.
#[track_caller]
fn runs(mode: Mode, command: &[&str]) {
    if !can_or_skip(mode) {
        return;
    }
    let dir = StateDir::new();
    let run = Run::new(mode, "unshare").arg("-m").arg(program(command[0])).args(&command[1..]);
    let outcome = run.dir(&dir).timeout(Duration::from_secs(120)).run();
    if let Err(why) = outcome.check() {
        panic!("{command:?}: {why}");
    }
    print!("{}", outcome.stdout);
    if mode == Mode::Shim {
        nothing_is_left(&dir, Look::AtOnce);
        nothing_is_charged(&dir);
    }
}

/// By a process that has just seen that there is none.
fn first_mount_is_seen_by_the_next_path(mode: Mode) {
    if !can_or_skip(mode) {
        return;
    }
    for _ in 0..20 {
        let (state, place) = (StateDir::new(), StateDir::new());
        let run = Run::new(mode, "unshare").arg("-m").arg(program("fs_first")).arg(place.path());
        let outcome = run.dir(&state).run();
        assert!(outcome.ok() && outcome.stderr.is_empty(), "{outcome:?}");
    }
}

fn last_exit_against_creators(mode: Mode) {
    runs(mode, &["fs_race", "create", "300"]);
}

fn last_exit_against_openers(mode: Mode) {
    runs(mode, &["fs_race", "open", "200"]);
}

fn last_exit_against_readers(mode: Mode) {
    runs(mode, &["fs_race", "read", "200"]);
}

fn last_exit_against_unlinkers(mode: Mode) {
    runs(mode, &["fs_race", "unlink", "200"]);
}

fn last_exit_against_umount(mode: Mode) {
    runs(mode, &["fs_race", "umount", "300"]);
}

fn last_exit_against_detaching(mode: Mode) {
    runs(mode, &["fs_race", "detach", "200"]);
}

fn last_exit_against_a_bind_mount(mode: Mode) {
    runs(mode, &["fs_race", "bind", "200"]);
}

fn last_exit_against_a_second_mount(mode: Mode) {
    runs(mode, &["fs_race", "second", "300"]);
}

fn last_exit_against_all_at_once(mode: Mode) {
    runs(mode, &["fs_race", "all", "200"]);
}

fn killed_mounters_are_cleaned_up_after(mode: Mode) {
    runs(mode, &["fs_kill", "260"]);
}
