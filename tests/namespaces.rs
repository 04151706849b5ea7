//! IPC namespaces as unmodified programs of util-linux, coreutils, procps, the shells, perl and python3 use
//! them, and at the limits: ten thousand in a row, a thousand at once, races with the last exit, members
//! killed at any instant, strangers. The same natively, where the kernel has namespaces.

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
    unshare_command_makes_an_empty_namespace,
    status_of_a_command_in_a_namespace_is_handed_on,
    programs_started_by_programs_stay_in_the_namespace,
    bind_mount_of_a_namespace_file_keeps_the_namespace,
    nsenter_command_joins_a_process,
    namespace_lives_as_long_as_one_who_joined,
    program_that_goes_home_leaves_nothing,
    every_view_of_a_namespace_shows_the_same_number,
    thread_has_its_own_namespace_file,
    queue_left_open_at_exit_goes_with_the_namespace,
    open_namespace_file_keeps_nothing_beyond_its_end,
    ended_process_has_no_namespace_file,
    lsns_command_counts_the_members,
    lsns_command_shows_the_namespaces_of_others,
    limits_files_are_the_namespaces,
    perl_unshares_and_returns,
    python_unshares_and_returns,
    system_v_is_isolated_where_the_kernel_can,
    program_started_without_descriptors_stays_in_the_namespace,
    command_that_drops_its_user_stays_in_the_namespace,
    ten_thousand_in_a_row_cost_the_same,
    ten_thousand_processes_leave_nothing,
    thousand_live_at_once_and_are_entered,
    last_exit_against_open_and_setns,
    last_exit_against_a_pidfd,
    last_exit_against_two,
    last_exit_against_a_mount,
    heirs_of_the_last_member_keep_the_namespace,
    killed_members_are_cleaned_up_after,
    members_that_drop_their_user_stay,
    strangers_reach_no_queue,
    strangers_learn_nothing_from_a_mounted_namespace,
    strangers_reach_no_more_than_they_were_given,
    strangers_reach_no_queue_of_a_users_namespace,
);

/// Namespaces are root's to make.
fn root_or_skip() -> bool {
    // SAFETY: no arguments.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

/// Whether `unshare FLAG` works for programs without the library.
fn unshares(flag: &str) -> bool {
    Command::new("unshare").args([flag, "true"]).output().is_ok_and(|o| o.status.success())
}

/// Whether a process here can mount in a namespace of its own.
fn mounts_or_skip() -> bool {
    let script = "mount -t tmpfs none /mnt";
    let can = Command::new("unshare").args(["-m", "sh", "-c", script]).output().is_ok_and(|o| o.status.success());
    if !can {
        eprintln!("skipped: cannot mount in a mount namespace of its own");
    }
    can
}

/// Whether this machine has namespaces of that kind.
fn can_or_skip(mode: Mode) -> bool {
    if !root_or_skip() {
        return false;
    }
    let can = mode == Mode::Shim || harness::kernel_has_queues() && unshares("-i");
    if !can {
        eprintln!("skipped: the kernel has no message queues or no IPC namespaces");
    }
    can
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

/// Nothing is left: at once if everybody left politely, else after some looks. One need not see all, but each
/// sees some.
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

#[derive(Clone, Copy, PartialEq)]
enum Look {
    /// Everybody has left politely.
    AtOnce,
    /// Somebody was killed: what is left goes when other processes make namespaces.
    Next,
}

/// What scripts begin with. `probe OPERATION…` is tests/programs/ns_probe.c, its answers on one line; `hold
/// OPERATION…` starts one that stays until `let_go`, as process `$held`. The working directory is empty.
const PRELUDE: &str = r#"
set -e
mount -t tmpfs none /mnt; cd /mnt
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
of() { readlink "/proc/$1/ns/ipc"; }
"#;

/// Which processes a script sees. lsns stops its search at one that ends meanwhile.
#[derive(Clone, Copy)]
enum Proc {
    /// All of the machine.
    Shared,
    /// Its own, in a pid namespace.
    Own,
}

/// Runs a script in a mount namespace of its own, under a shell.
fn script(mode: Mode, proc: Proc, shell: &str, text: &str, dir: &StateDir) -> Outcome {
    // What went past the library to the kernel, as a limit written, would stay in the machine's namespace.
    // SAFETY: no memory is passed; it moves this thread and what it starts, if it may.
    unsafe { libc::unshare(libc::CLONE_NEWIPC) };
    let whole = format!("{PRELUDE}{text}");
    let mut probe = std::ffi::OsString::from("PROBE=");
    probe.push(program("ns_probe"));
    let own: &[&str] = match proc {
        Proc::Shared => &["-m"],
        Proc::Own => &["-m", "-p", "--fork", "--mount-proc"],
    };
    let run = Run::new(mode, "unshare").args(own).arg("env").arg(probe).args([shell, "-c", &whole, shell]);
    run.dir(dir).run()
}

/// Runs a script with each shell, expects these lines, and nothing left behind.
#[track_caller]
fn prints(mode: Mode, shells: &[&str], look: Look, text: &str, want: &[&str]) {
    prints_with(mode, Proc::Shared, shells, look, text, want);
}

#[track_caller]
fn prints_with(mode: Mode, proc: Proc, shells: &[&str], look: Look, text: &str, want: &[&str]) {
    if !can_or_skip(mode) || !mounts_or_skip() {
        return;
    }
    for shell in shells {
        let dir = StateDir::new();
        let outcome = script(mode, proc, shell, text, &dir);
        let lines: Vec<_> = outcome.stdout.lines().collect();
        assert_eq!(lines, want, "{shell}: {:?}, stderr: {}", outcome.status, outcome.stderr);
        assert!(outcome.ok() && outcome.stderr.is_empty(), "{shell}: {outcome:?}");
        if mode == Mode::Shim {
            nothing_is_left(&dir, look);
        }
    }
}

const SHELLS: &[&str] = &["dash", "bash"];
const SH: &[&str] = &["sh"];

// unshare(1).

fn unshare_command_makes_an_empty_namespace(mode: Mode) {
    prints(
        mode,
        SH,
        Look::AtOnce,
        r#"
        probe 'create /q outer'
        unshare -i "$PROBE" 'peek /q' 'create /q inner' 'peek /q'
        unshare -i --fork "$PROBE" 'peek /q' 'create /q inner' 'peek /q'
        unshare -i sh -c 'unshare --ipc "$PROBE" "create /q nested"; "$PROBE" "peek /q"'
        unshare -iu "$PROBE" 'open /q'
        probe 'peek /q'
        "#,
        &["ok", "ENOENT", "ok", "inner", "ENOENT", "ok", "inner", "ok", "ENOENT", "ENOENT", "outer"],
    );
}

fn status_of_a_command_in_a_namespace_is_handed_on(mode: Mode) {
    prints(
        mode,
        SH,
        Look::Next,
        r#"
        for how in '-i' '-i --fork'; do
            unshare $how sh -c 'exit 7' || echo $?
            unshare $how sh -c 'kill -TERM $$' 2>/dev/null || echo $?
            unshare $how /nonexistent 2>/dev/null || echo $?
        done
        "#,
        &["7", "143", "127", "7", "143", "127"],
    );
}

/// The roads that commands take from one program to the next.
fn programs_started_by_programs_stay_in_the_namespace(mode: Mode) {
    let text = r#"
        cat >inside <<'END'
        set -e
        "$PROBE" 'create /q in'
        ("$PROBE" 'peek /q')
        echo "$("$PROBE" 'peek /q')" | cat
        "$PROBE" 'peek /q' & wait
        setsid -w "$PROBE" 'peek /q'
        timeout 30 "$PROBE" 'peek /q'
        nohup nice -n 1 "$PROBE" 'peek /q'
        env -i LD_PRELOAD="$LD_PRELOAD" "$PROBE" 'peek /q'
        echo 'peek /q' | xargs -d '\n' "$PROBE"
        find /mnt -maxdepth 0 -exec "$PROBE" 'peek /q' ';'
        chroot / "$PROBE" 'peek /q'
        perl -e 'system $ENV{PROBE}, "peek /q"'
        perl -e 'print `"$ENV{PROBE}" "peek /q"`'
        python3 -c 'import os, subprocess; subprocess.run([os.environ["PROBE"], "peek /q"])'
        python3 -c 'import os; os.system("\"$PROBE\" \"peek /q\"")'
        python3 -c 'import os; p = os.environ["PROBE"]; os.waitpid(os.posix_spawn(p, [p, "peek /q"], os.environ), 0)'
        exec "$PROBE" 'peek /q'
END
        unshare -i "$SHELL_NAME" inside
        "#;
    let want = ["ok"].into_iter().chain(["in"; 16]).collect::<Vec<_>>();
    for shell in SHELLS {
        prints(mode, &[shell], Look::AtOnce, &format!("export SHELL_NAME={shell}\n{text}"), &want);
    }
}

/// posix_spawn with closefrom (python3's subprocess from 3.13), close_range, and close by close.
fn program_started_without_descriptors_stays_in_the_namespace(mode: Mode) {
    let text = r#"
        probe 'create /q outer'
        for how in spawn range loop; do
            probe unshare 'create /q inner' "$how peek /q" "$how $how peek /q"
        done
        "#;
    prints(mode, SH, Look::AtOnce, text, &["ok", "ok ok inner inner", "ok ok inner inner", "ok ok inner inner"]);
}

/// setpriv(1) in the place of su, sudo and the like.
fn command_that_drops_its_user_stays_in_the_namespace(mode: Mode) {
    if !others_may_run() {
        return;
    }
    prints(
        mode,
        SH,
        // In a directory of root's an ordinary user, the last to leave, cannot clear away.
        Look::Next,
        r#"
        cat >inside <<'END'
        "$PROBE" 'create /q root' 'ids 12345' 'peek /q' 'create /r user'
        drop='setpriv --reuid 12345 --regid 12345 --clear-groups'
        $drop "$PROBE" 'peek /q' 'peek /r' unshare
        $drop unshare -i true 2>/dev/null || echo refused
        $drop sh -c 'cat /proc/sys/fs/mqueue/msg_max; echo 9 >/proc/sys/fs/mqueue/msg_max' 2>/dev/null || echo refused
        "$PROBE" 'peek /r'
        exec $drop "$PROBE" 'peek /q'
END
        unshare -i sh inside
        "#,
        &["ok", "ok", "root", "ok", "root", "user", "EPERM", "refused", "10", "refused", "user", "root"],
    );
}

// Namespace files.

fn bind_mount_of_a_namespace_file_keeps_the_namespace(mode: Mode) {
    prints(
        mode,
        SH,
        Look::Next,
        r#"
        touch f
        unshare --ipc=f "$PROBE" 'create /q kept'
        nsenter --ipc=f "$PROBE" 'peek /q' 'create /r more'
        nsenter --ipc=f sh -c '"$PROBE" "peek /r"; unshare -i "$PROBE" "peek /r"'
        probe 'open /q' 'enter f' 'peek /q'
        [ "$(nsenter --ipc=f readlink /proc/self/ns/ipc)" = "ipc:[$(stat -c %i f)]" ] && echo same
        [ "$(probe 'number f')" = "$(stat -c %i f)" ] && echo same
        stat -c '%F %a' f
        stat -f -c %t f
        touch g; mount --bind f g
        umount f
        nsenter --ipc=g "$PROBE" 'peek /q'
        umount g
        nsenter --ipc=f true 2>/dev/null || echo refused
        stat -c '%F %a' f
        "#,
        &[
            "ok",
            "kept",
            "ok",
            "more",
            "ENOENT",
            "ENOENT ok kept",
            "same",
            "same",
            "regular empty file 444",
            "6e736673",
            "kept",
            "refused",
            "regular empty file 644",
        ],
    );
}

/// It was started in the namespace, is its last member, and has used no queue in it.
fn program_that_goes_home_leaves_nothing(mode: Mode) {
    prints(
        mode,
        SHELLS,
        Look::AtOnce,
        r#"
        exec 7</proc/self/ns/ipc
        unshare -i sh -c 'exec nsenter --ipc=/proc/self/fd/7 readlink /proc/self/ns/ipc' >link
        [ "$(cat link)" = "$(readlink /proc/self/ns/ipc)" ] && echo home
        "#,
        &["home"],
    );
}

fn nsenter_command_joins_a_process(mode: Mode) {
    prints(
        mode,
        SH,
        Look::AtOnce,
        r#"
        probe 'create /q ours'
        hold unshare 'create /q theirs'
        nsenter -i -t $held "$PROBE" 'peek /q' 'create /r mine' | paste -sd' ' -
        nsenter -t $held --ipc sh -c '"$PROBE" "peek /q"; "$PROBE" "peek /r"' | paste -sd' ' -
        nsenter --ipc=/proc/$held/ns/ipc "$PROBE" 'peek /r'
        nsenter --all -t $held "$PROBE" 'peek /r'
        probe "enter-pid $held" 'peek /r' "enter /proc/$$/ns/ipc" 'peek /q'
        probe 'open /r' 'peek /q'
        nsenter -i -t $$ "$PROBE" 'peek /q'
        let_go
        nsenter -i -t $held true 2>/dev/null || echo refused
        "#,
        &["ok", "theirs ok", "theirs mine", "mine", "mine", "ok mine ok ours", "ENOENT ours", "ours", "refused"],
    );
}

/// Whoever has joined keeps the namespace when its maker has left.
fn namespace_lives_as_long_as_one_who_joined(mode: Mode) {
    prints(
        mode,
        SH,
        Look::AtOnce,
        r#"
        hold unshare 'create /q theirs'
        mkfifo go ready
        nsenter -i -t $held sh -c 'echo >ready; read -r _ <go; "$PROBE" "peek /q"; readlink /proc/self/ns/ipc' >out \
            8>&- 9<&- &
        other=$!
        read -r _ <ready
        number=$(of $held)
        let_go
        echo >go
        wait $other
        head -n 1 out
        [ "$(tail -n 1 out)" = "$number" ] && echo same
        "#,
        &["theirs", "same"],
    );
}

fn every_view_of_a_namespace_shows_the_same_number(mode: Mode) {
    prints(
        mode,
        SHELLS,
        Look::AtOnce,
        r#"
        hold unshare
        cat >views <<'END'
        p=/proc/$1/ns/ipc
        readlink $p
        readlink -v -n $p; echo
        ls -l $p | sed 's/.* -> //'
        ls -l /proc/$1/ns | sed -n 's/.* ipc -> //p'
        find $p -printf '%l\n'
        find /proc/$1/ns -name ipc -printf '%l\n'
        for n in $(stat -L -c %i $p) $(ls -iL $p | cut -d' ' -f1) $(find -L $p -printf %i) $("$PROBE" "number $p") \
            $("$PROBE" "number /proc/$1/task/$1/ns/ipc") $(stat -L -c %i - <$p) $(perl -e 'print((stat shift)[1])' $p)
        do echo "ipc:[$n]"; done
        perl -e 'print readlink(shift), "\n"' $p
        python3 -c 'import os, sys; p = sys.argv[1]; print(os.readlink(p)); print("ipc:[%d]" % os.stat(p).st_ino)
with open(p) as f: print("ipc:[%d]" % os.fstat(f.fileno()).st_ino)
d = os.open(os.path.dirname(p), os.O_RDONLY); print(os.readlink("ipc", dir_fd=d))' $p
        cd /proc/$1/ns; readlink ipc
END
        # From outside, from inside, and of oneself.
        { sh views $held; nsenter -i -t $held sh views $held; nsenter -i -t $held sh -c 'sh views $$'; } >out 2>&1 ||
            cat out
        echo $(grep -c 'ipc:\[[0-9]*\]$' out) $(sort -u out | wc -l)
        { sh views $$; nsenter -i -t $held sh views $$; } >ours
        echo $(grep -c 'ipc:\[[0-9]*\]$' ours) $(sort -u ours | wc -l)
        sort -u out ours | wc -l
        stat -L -c '%F %a %s %h' /proc/$held/ns/ipc
        stat -f -L -c %t /proc/$held/ns/ipc
        [ "$(stat -L -c %d /proc/$held/ns/ipc)" = "$(stat -L -c %d /proc/self/ns/ipc)" ] && echo 'same device'
        let_go
        "#,
        &["57 1", "38 1", "2", "regular empty file 444 0 1", "6e736673", "same device"],
    );
}

/// The last member ends with a queue open, as most programs do.
fn queue_left_open_at_exit_goes_with_the_namespace(mode: Mode) {
    prints(mode, SH, Look::AtOnce, r#"unshare -i "$PROBE" 'create /q x' 'keep /q'"#, &["ok", "ok"]);
}

/// A namespace whose members end with its file open, or whose file is closed last.
fn open_namespace_file_keeps_nothing_beyond_its_end(mode: Mode) {
    prints(
        mode,
        SH,
        Look::AtOnce,
        r#"
        unshare -i sh -c 'exec 7</proc/self/ns/ipc; "$PROBE" "create /q x"'
        unshare -i sh -c 'exec 7</proc/self/ns/ipc; exec "$PROBE" "create /q x"'
        hold unshare 'create /q theirs'
        exec 7</proc/$held/ns/ipc
        let_go
        probe 'enter /proc/self/fd/7' 'peek /q'
        exec 7<&-
        "#,
        &["ok", "ok", "ok theirs"],
    );
}

/// A process that has ended, and is not reaped yet, is in no namespace.
fn ended_process_has_no_namespace_file(mode: Mode) {
    let text = r#"
        cat >ended.py <<'END'
import ctypes, os, signal
libc = ctypes.CDLL(None, use_errno=True)
NEWIPC = 0x08000000
for ending in "exit", "kill":
    ready, go = os.pipe()
    pid = os.fork()
    if not pid:
        assert libc.unshare(NEWIPC) == 0
        os.write(go, b"x")
        if ending == "kill":
            signal.pause()
        os._exit(0)
    os.read(ready, 1)
    pidfd = os.pidfd_open(pid)
    if ending == "kill":
        os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    for look in os.readlink, os.stat, lambda path: os.open(path, os.O_RDONLY):
        try:
            print(ending, look("/proc/%d/ns/ipc" % pid))
        except OSError as e:
            print(ending, e.errno)
    print(ending, libc.setns(pidfd, NEWIPC), ctypes.get_errno())
    os.waitpid(pid, 0)
    print(ending, libc.setns(pidfd, NEWIPC), ctypes.get_errno())
END
        python3 ended.py
        "#;
    let want = [
        "exit 2",
        "exit 2",
        "exit 2",
        "exit -1 3",
        "exit -1 3",
        "kill 2",
        "kill 2",
        "kill 2",
        "kill -1 3",
        "kill -1 3",
    ];
    prints(mode, SH, Look::Next, text, &want);
}

/// /proc/self and /proc/PID show the first thread's, /proc/thread-self and /proc/PID/task/TID the thread's.
fn thread_has_its_own_namespace_file(mode: Mode) {
    let text = r#"
        cat >threads.py <<'END'
import ctypes, os, subprocess, threading
libc = ctypes.CDLL(None, use_errno=True)
NEWIPC = 0x08000000
def peek():
    subprocess.run([os.environ["PROBE"], "peek /q"])
def body():
    assert libc.unshare(NEWIPC) == 0, os.strerror(ctypes.get_errno())
    subprocess.run([os.environ["PROBE"], "create /q thread's"])
    seen.update(own=os.readlink("/proc/thread-self/ns/ipc"), leader=os.readlink("/proc/self/ns/ipc"),
        task=os.readlink("/proc/self/task/%d/ns/ipc" % threading.get_native_id()))
    seen["fd"] = os.open("/proc/thread-self/ns/ipc", os.O_RDONLY)
    inner = threading.Thread(target=peek)
    inner.start()
    inner.join()
seen = {}
before = os.readlink("/proc/self/ns/ipc")
subprocess.run([os.environ["PROBE"], "create /q leader's"])
thread = threading.Thread(target=body)
thread.start()
thread.join()
print(seen["own"] == seen["task"], seen["own"] == before, seen["leader"] == before, flush=True)
peek()
os.set_inheritable(seen["fd"], True)
subprocess.run([os.environ["PROBE"], "enter /proc/self/fd/%d" % seen["fd"], "peek /q"], close_fds=False)
assert libc.setns(seen["fd"], 0) == 0
os.close(seen["fd"])
peek()
print(os.readlink("/proc/self/ns/ipc") == seen["own"])
END
        python3 threads.py
        "#;
    let want = ["ok", "ok", "thread's", "True False True", "leader's", "ok", "thread's", "thread's", "True"];
    prints(mode, SH, Look::AtOnce, text, &want);
}

// lsns(8).

fn lsns_command_counts_the_members(mode: Mode) {
    prints_with(
        mode,
        Proc::Own,
        SH,
        Look::AtOnce,
        r#"
        cat >members <<'END'
        mkfifo gate
        "$PROBE" hold <gate >/dev/null & one=$!
        unshare -u "$PROBE" hold <gate >/dev/null & two=$!
        exec 8>gate
        lsns -t ipc -J -l >all
        lsns -n -t ipc -o NS,NPROCS,TYPE >columns
        lsns -J -l -p $one >of-one
        number=$(stat -L -c %i /proc/self/ns/ipc)
        lsns -n -o PID $number >pids
        python3 - $number $$ $one $two <<'PYTHON'
import json, sys
number, *members = map(int, sys.argv[1:])
(mine,) = [n for n in json.load(open("all"))["namespaces"] if int(n["ns"]) == number]
print(mine["type"], mine["nprocs"], int(mine["pid"]) in members, mine["user"])
for line in open("columns"):
    if line.split()[0] == str(number):
        print(*line.split()[1:])
print([int(n["nprocs"]) for n in json.load(open("of-one"))["namespaces"] if n["type"] == "ipc"])
print(len(set(members) - set(map(int, open("pids").read().split()))), "not listed")
PYTHON
        exec 8>&-
        wait
END
        unshare -i sh members
        "#,
        &["ipc 4 True root", "4 ipc", "[4]", "0 not listed"],
    );
}

/// From outside, and with two namespaces of one member each.
fn lsns_command_shows_the_namespaces_of_others(mode: Mode) {
    prints_with(
        mode,
        Proc::Own,
        SH,
        Look::AtOnce,
        r#"
        hold unshare
        number=$(stat -L -c %i /proc/$held/ns/ipc)
        # From the first namespace and from a third.
        lsns -n -t ipc -o NS,NPROCS,PID | awk "\$1 == $number { print \$2, \$3 == $held }"
        unshare -i lsns -n -t ipc -o NS,NPROCS,PID | awk "\$1 == $number { print \$2, \$3 == $held }"
        lsns -n -t ipc -o NS -p $held | grep -c $number
        let_go
        lsns -n -t ipc -o NS | grep -c $number || true
        "#,
        &["1 1", "1 1", "1", "0"],
    );
}

// /proc/sys/fs/mqueue.

fn limits_files_are_the_namespaces(mode: Mode) {
    prints(
        mode,
        SHELLS,
        Look::AtOnce,
        r#"
        f=/proc/sys/fs/mqueue
        all() { echo $(cat $f/msg_default $f/msg_max $f/msgsize_default $f/msgsize_max $f/queues_max); }
        all
        sysctl -n fs.mqueue.msg_max
        sysctl -q -w fs.mqueue.msg_max=20
        echo 30 >$f/queues_max
        echo 3 | tee $f/msg_default
        perl -e 'open F, ">", shift or die; print F "256\n"; close F or die' $f/msgsize_default
        python3 -c 'import sys; open(sys.argv[1], "w").write("512")' $f/msgsize_max
        all
        probe 'default /q'
        hold unshare 'create /q theirs'
        export f
        nsenter -i -t $held sh -c 'cat $f/*; echo 5 >$f/msg_default; cat $f/msg_default' | paste -sd' ' -
        nsenter -i -t $held sysctl fs.mqueue | sort
        nsenter -i -t $held "$PROBE" 'default /r'
        unshare -i sysctl -n fs.mqueue.queues_max
        all
        # What is out of range changes nothing. (That it is refused cannot be seen in bash's echo, which writes
        # past the library.)
        for wrong in 'msg_max 0' 'msg_max 65537' 'msgsize_max 127' 'msg_default many'; do
            set -- $wrong
            (echo $2 >$f/$1) 2>/dev/null || true
            dash -c 'echo $2 >$1' dash $f/$1 $2 2>/dev/null || echo refused
        done
        sysctl -q -w fs.mqueue.msgsize_default=16777217 2>/dev/null || echo refused
        echo -1 >$f/queues_max; cat $f/queues_max
        echo 30 >$f/queues_max
        all
        ls $f | paste -sd' ' -
        [ -w $f/msg_max ] && stat -c '%a %s' $f/msg_max
        let_go
        "#,
        &[
            "10 10 8192 8192 256",
            "10",
            "3",
            "3 20 256 512 30",
            "3 256",
            "10 10 8192 8192 256 5",
            "fs.mqueue.msg_default = 5",
            "fs.mqueue.msg_max = 10",
            "fs.mqueue.msgsize_default = 8192",
            "fs.mqueue.msgsize_max = 8192",
            "fs.mqueue.queues_max = 256",
            "5 8192",
            "256",
            "3 20 256 512 30",
            "refused",
            "refused",
            "refused",
            "refused",
            "refused",
            "-1",
            "3 20 256 512 30",
            "msg_default msg_max msgsize_default msgsize_max queues_max",
            "644 0",
        ],
    );
}

// Interpreters as clients.

fn perl_unshares_and_returns(mode: Mode) {
    let text = r#"
        cat >client.pl <<'END'
use strict;
my ($unshare, $setns) = `uname -m` =~ /^x86_64/ ? (272, 308) : (97, 268);
$| = 1;
sub probe { system($ENV{PROBE}, @_) == 0 or die }
sub mine { (stat "/proc/self/ns/ipc")[1] }
probe "create /q outer";
open my $home, "<", "/proc/self/ns/ipc" or die $!;
my $outer = mine;
syscall($unshare, 0x08000000) == 0 or die $!;
probe "peek /q", "create /q inner";
print mine() != $outer ? "moved\n" : "stayed\n", (stat $home)[1] == $outer ? "home\n" : "lost\n";
my $pid = fork // die;
if (!$pid) { exec $ENV{PROBE}, "peek /q" or die }
waitpid $pid, 0;
open my $pipe, "-|", $ENV{PROBE}, "peek /q" or die;
print <$pipe>;
close $pipe;
syscall($setns, fileno $home, 0) == 0 or die $!;
print mine() == $outer ? "back\n" : "lost\n";
probe "peek /q";
END
        perl client.pl
        "#;
    let want = ["ok", "ENOENT", "ok", "moved", "home", "inner", "inner", "back", "outer"];
    prints(mode, SH, Look::AtOnce, text, &want);
}

/// os.unshare and os.setns, where this python3 has them (3.12), else libc's through ctypes.
fn python_unshares_and_returns(mode: Mode) {
    let text = r#"
        cat >client.py <<'END'
import ctypes, os, subprocess, sys
NEWIPC = 0x08000000
def of(library):
    libc = ctypes.CDLL(library, use_errno=True)
    def check(result):
        if result: raise OSError(ctypes.get_errno(), "")
    return lambda flags: check(libc.unshare(flags)), lambda fd, kind: check(libc.setns(fd, kind))
roads = [of(None), of("libc.so.6")]
roads.append((os.unshare, os.setns) if hasattr(os, "unshare") else roads[0])
def probe(*operations):
    print(subprocess.run([os.environ["PROBE"], *operations], capture_output=True, text=True).stdout.split())
def mine():
    return os.stat("/proc/self/ns/ipc").st_ino
probe("create /q outer")
outer = mine()
for unshare, setns in roads:
    home = os.open("/proc/self/ns/ipc", os.O_RDONLY)
    unshare(NEWIPC)
    probe("peek /q", "create /q inner", "peek /q")
    print(mine() != outer, os.fstat(home).st_ino == outer)
    pid = os.fork()
    if not pid:
        probe("peek /q")
        os._exit(0)
    os.waitpid(pid, 0)
    setns(home, NEWIPC)
    os.close(home)
    print(mine() == outer)
    probe("peek /q")
try:
    roads[2][1](0, NEWIPC)
except OSError as e:
    print(e.errno == 22)
END
        python3 -u client.py
        "#;
    let round = ["['ENOENT', 'ok', 'inner']", "True True", "['inner']", "True", "['outer']"];
    let want: Vec<_> = ["['ok']"].into_iter().chain(round).chain(round).chain(round).chain(["True"]).collect();
    prints(mode, SH, Look::AtOnce, text, &want);
}

// System V.

/// Where the kernel has IPC namespaces, System V's objects are kept apart as well: the kernel alone, then
/// with the library in front of it, this time without the launcher that takes them away.
fn system_v_is_isolated_where_the_kernel_can(mode: Mode) {
    if !can_or_skip(Mode::Native) || !mounts_or_skip() {
        return;
    }
    let text = r#"
        count() { ipcs -q | grep -c '^0x' || true; }
        ipcmk -Q >/dev/null; ipcmk -Q >/dev/null; probe 'create /q outer'
        count
        unshare -i sh -c 'ipcs -q | grep -c ^0x; ipcmk -Q >/dev/null; ipcs -q | grep -c ^0x
            "$PROBE" "peek /q" "create /q inner" "peek /q"'
        hold unshare 'create /q theirs'
        nsenter -i -t $held sh -c 'ipcs -q | grep -c ^0x; ipcmk -Q >/dev/null; "$PROBE" "peek /q"
            readlink /proc/self/ns/ipc' >out
        head -n 2 out
        nsenter -i -t $held ipcs -q | grep -c ^0x
        [ "$(of $held)" = "$(tail -n 1 out)" ] && echo same
        count
        probe "enter-pid $held" 'peek /q' "enter /proc/$$/ns/ipc" 'peek /q'
        let_go
        count
        "#;
    let want =
        ["ok", "2", "0", "1", "ENOENT", "ok", "inner", "0", "theirs", "1", "same", "2", "ok theirs ok outer", "2"];
    let dir = StateDir::new();
    let whole = format!("{PRELUDE}{text}");
    let mut run = Run::new(Mode::Native, "unshare").args(["-m", "sh", "-c", &whole]).env("PROBE", program("ns_probe"));
    if mode == Mode::Shim {
        run = run.env("LD_PRELOAD", harness::library()).env("MQNS_DIR", dir.path());
    }
    let outcome = run.run();
    assert_eq!(outcome.stdout.lines().collect::<Vec<_>>(), want, "{outcome:?}");
    assert!(outcome.ok() && outcome.stderr.is_empty(), "{outcome:?}");
    nothing_is_left(&dir, Look::AtOnce);
}

// Many.

/// Runs a program to its end; what it printed. Nothing is left behind.
#[track_caller]
fn runs(mode: Mode, look: Look, command: &[&str]) -> Option<String> {
    if !can_or_skip(mode) {
        return None;
    }
    let dir = StateDir::new();
    let (name, arguments) = command.split_first().expect("a program");
    let run = match arguments {
        ["mount" | "mounted", ..] => Run::new(mode, "unshare").arg("-m").arg(program(name)),
        _ => Run::new(mode, program(name)),
    };
    let outcome = run.args(arguments).dir(&dir).timeout(Duration::from_secs(120)).run();
    if let Err(why) = outcome.check() {
        panic!("{command:?}: {why}");
    }
    print!("{}", outcome.stdout);
    if mode == Mode::Shim {
        nothing_is_left(&dir, look);
    }
    Some(outcome.stdout)
}

/// The last cost what the first did, in time of the processor: the machine is shared.
#[track_caller]
fn flat(said: &str) {
    let line = said.lines().find(|l| l.starts_with("processor")).expect("a line");
    let (first, last) = line.split_once(" first ").and_then(|(_, two)| two.split_once(" last ")).expect("medians");
    let [first, last]: [f64; 2] = [first, last].map(|n| n.parse().expect("microseconds"));
    assert!(last < 2.0 * first, "{said}");
}

fn ten_thousand_in_a_row_cost_the_same(mode: Mode) {
    if let Some(said) = runs(mode, Look::AtOnce, &["ns_many", "row", "10000"]) {
        flat(&said);
    }
}

fn ten_thousand_processes_leave_nothing(mode: Mode) {
    if let Some(said) = runs(mode, Look::AtOnce, &["ns_many", "forks", "10000"]) {
        flat(&said);
    }
}

fn thousand_live_at_once_and_are_entered(mode: Mode) {
    runs(mode, Look::AtOnce, &["ns_many", "live", "1000"]);
}

// Races. Each round is checked by the program, the directory included.

fn last_exit_against_open_and_setns(mode: Mode) {
    runs(mode, Look::AtOnce, &["ns_race", "file", "300"]);
}

fn last_exit_against_a_pidfd(mode: Mode) {
    runs(mode, Look::AtOnce, &["ns_race", "pidfd", "200"]);
}

fn last_exit_against_two(mode: Mode) {
    runs(mode, Look::AtOnce, &["ns_race", "both", "200"]);
}

fn last_exit_against_a_mount(mode: Mode) {
    if mounts_or_skip() {
        runs(mode, Look::AtOnce, &["ns_race", "mount", "200"]);
    }
}

fn heirs_of_the_last_member_keep_the_namespace(mode: Mode) {
    runs(mode, Look::AtOnce, &["ns_race", "member", "200"]);
}

// Death.

fn killed_members_are_cleaned_up_after(mode: Mode) {
    runs(mode, Look::AtOnce, &["ns_kill", "450"]);
}

// Users.

fn members_that_drop_their_user_stay(mode: Mode) {
    if others_may_run() {
        // Not theirs to clear away.
        runs(mode, Look::Next, &["ns_isolation", "member"]);
    }
}

fn strangers_reach_no_queue(mode: Mode) {
    if others_may_run() {
        runs(mode, Look::AtOnce, &["ns_isolation", "stranger"]);
    }
}

/// The table of mounts is for all to read.
fn strangers_learn_nothing_from_a_mounted_namespace(mode: Mode) {
    if others_may_run() && mounts_or_skip() {
        runs(mode, Look::Next, &["ns_isolation", "mounted"]);
    }
}

/// A descriptor of one queue, and one of the namespace file, lead to no other queue.
fn strangers_reach_no_more_than_they_were_given(mode: Mode) {
    if others_may_run() {
        runs(mode, Look::Next, &["ns_isolation", "given"]);
    }
}

fn strangers_reach_no_queue_of_a_users_namespace(mode: Mode) {
    if !others_may_run() {
        return;
    }
    let script = "setpriv --reuid 12345 --regid 12345 --clear-groups unshare -U true";
    if !Command::new("sh").args(["-c", script]).output().is_ok_and(|o| o.status.success()) {
        eprintln!("skipped: users may not make user namespaces");
        return;
    }
    runs(mode, Look::Next, &["ns_isolation", "userns"]);
}
