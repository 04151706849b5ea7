//! Limits, what is said of them, what a queue costs, and whose queues they are
//! (`tests/programs/limits_ops.c` does the calls).

mod harness;

use harness::{Mode, Outcome, Run, StateDir};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

fn program() -> PathBuf {
    harness::program("limits_ops")
}

/// The operations in a process of an ordinary user, who has no capability.
fn as_user(operations: &[&'static str]) -> Vec<&'static str> {
    // SAFETY: no arguments.
    let root = unsafe { libc::geteuid() } == 0;
    root.then_some("ids 12345").into_iter().chain(operations.iter().copied()).collect()
}

/// What the run printed, line by line, without the answer to the `ids` of [`as_user`].
#[track_caller]
fn answers(operations: &[&str], outcome: &Outcome) -> Vec<String> {
    if let Err(why) = outcome.check() {
        panic!("{operations:?}: {why}");
    }
    let mut lines: Vec<_> = outcome.stdout.lines().map(str::to_string).collect();
    assert_eq!(lines.len(), operations.len(), "{operations:?}: {outcome:?}");
    if operations[0] == "ids 12345" {
        assert_eq!(lines.remove(0), "ok");
    }
    lines
}

fn root_or_skip() -> bool {
    // SAFETY: no arguments.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

/// Whether a process here can have a mount namespace of its own, as root's needs.
fn mounts_or_skip() -> bool {
    let script = "mount -t tmpfs none /tmp";
    let can = Command::new("unshare").args(["-m", "sh", "-c", script]).output().is_ok_and(|o| o.status.success());
    if !can {
        eprintln!("skipped: cannot mount in a mount namespace of its own");
    }
    can
}

// MQNS_LOG.

#[test]
fn log_gives_the_numbers_of_rlimit_msgqueue() {
    let operations = as_user(&["rlimit-msgqueue 1000", "create /a 0600 1 1", "create /b 0600 10 8192"]);
    let outcome = Run::new(Mode::Shim, program()).args(&operations).env("MQNS_LOG", "stderr").run();
    assert_eq!(answers(&operations, &outcome), ["ok", "ok", "EMFILE"]);
    let said = &outcome.stderr;
    assert_eq!(said.lines().count(), 1, "{said}");
    for part in ["mqns[", "mq_open: EMFILE: RLIMIT_MSGQUEUE of uid ", "need 82880 bytes, used 97 of 1000"] {
        assert!(said.contains(part), "{part:?} is not in {said:?}");
    }
}

#[test]
fn log_gives_the_numbers_of_refused_attributes() {
    let operations = as_user(&["create /a 0600 11 8192", "create /a 0600 10 8193", "create /a 0600 0 1"]);
    let outcome = Run::new(Mode::Shim, program()).args(&operations).env("MQNS_LOG", "1").run();
    assert_eq!(answers(&operations, &outcome), ["EINVAL", "EINVAL", "EINVAL"]);
    let said: Vec<_> = outcome.stderr.lines().collect();
    assert_eq!(said.len(), 3, "{said:?}");
    for (line, (maxmsg, msgsize)) in said.iter().zip([(11, 8192), (10, 8193), (0, 1)]) {
        let part =
            format!("mq_open: EINVAL: mq_maxmsg {maxmsg} (1..=10 allowed), mq_msgsize {msgsize} (1..=8192 allowed)");
        assert!(line.contains(&part), "{part:?} is not in {line:?}");
    }
}

#[test]
fn log_gives_the_numbers_of_queues_max() {
    let operations = as_user(&["rlimit-nofile 1024", "create-many 300 1 1", "unlink-many"]);
    let outcome = Run::new(Mode::Shim, program()).args(&operations).env("MQNS_LOG", "stderr").run();
    assert_eq!(answers(&operations, &outcome), ["ok", "256 ENOSPC", "ok"]);
    let part = "mq_open: ENOSPC: 256 queues exist in this namespace, queues_max is 256";
    assert!(outcome.stderr.contains(part), "{part:?} is not in {:?}", outcome.stderr);
}

#[test]
fn log_goes_to_a_file_and_lines_are_added() {
    let dir = StateDir::new();
    let file = dir.path().join("log");
    let operations = as_user(&["create /a 0600 11 1", "create /a 0600 12 1"]);
    for _ in 0..2 {
        let outcome = Run::new(Mode::Shim, program()).args(&operations).env("MQNS_LOG", &file).run();
        assert_eq!(answers(&operations, &outcome), ["EINVAL", "EINVAL"]);
        assert_eq!(outcome.stderr, "");
    }
    let text = fs::read_to_string(&file).expect("the log");
    let told: Vec<_> = text.lines().map(|l| l.contains("mq_maxmsg 11 ") as u32).collect();
    assert_eq!(told, [1, 0, 1, 0], "{text}");
    assert_eq!(fs::metadata(&file).expect("the log").permissions().mode() & 0o777, 0o600);
}

#[test]
fn nothing_is_logged_unless_asked_for() {
    let operations = as_user(&["create /a 0600 11 1"]);
    for value in [None, Some(""), Some("0")] {
        let mut run = Run::new(Mode::Shim, program()).args(&operations);
        if let Some(value) = value {
            run = run.env("MQNS_LOG", value);
        }
        let outcome = run.run();
        assert_eq!(answers(&operations, &outcome), ["EINVAL"]);
        assert_eq!(outcome.stderr, "");
    }
}

// MQNS_LIMITS.

/// In a directory that the library makes for an ordinary user.
#[test]
fn generous_lifts_all_limits_of_an_ordinary_user() {
    let dir = StateDir::new();
    let operations = as_user(&[
        "rlimit-nofile 1024",
        "rlimit-msgqueue 0",
        "create-many 300 1 1",
        "create /deep 0600 65536 8192",
        "create /wide 0600 1 16777216",
        "fill 16777216",
        "drain 0",
        "create /both 0600 65536 16777216",
        "send hello",
        "receive",
        "create /no 0600 65537 1",
        "create /no 0600 1 16777217",
        "create /no 0600 0 1",
    ]);
    let own = format!("MQNS_DIR={}/own", dir.path().display());
    let run = Run::new(Mode::Shim, "env").arg(own).arg(program()).args(&operations).env("MQNS_LIMITS", "generous");
    let want =
        ["ok", "ok", "300 ok", "ok", "ok", "1 EAGAIN", "1 EAGAIN", "ok", "ok", "hello", "EINVAL", "EINVAL", "EINVAL"];
    assert_eq!(answers(&operations, &run.run()), want);
    let mode = fs::metadata(dir.path().join("own")).expect("made by the library").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

/// The same without the switch: refused as by the kernel.
#[test]
fn exact_limits_are_the_kernels() {
    for mode in Mode::ALL {
        if mode == Mode::Native && !harness::kernel_has_queues() {
            continue;
        }
        let operations = as_user(&[
            "rlimit-nofile 1024",
            "create /deep 0600 11 1",
            "create /wide 0600 1 8193",
            "create-many 300 1 1",
            "unlink-many",
            "rlimit-msgqueue 0",
            "create /none 0600 1 1",
        ]);
        let outcome = Run::new(mode, program()).args(&operations).env("MQNS_LIMITS", "exact").run();
        let want = ["ok", "EINVAL", "EINVAL", "256 ENOSPC", "ok", "ok", "EMFILE"];
        assert_eq!(answers(&operations, &outcome), want, "{mode:?}");
    }
}

// What a queue costs.

/// Bytes that the files of a state directory occupy.
fn occupied(dir: &StateDir) -> u64 {
    dir.files().iter().map(|(_, _, allocated)| allocated).sum()
}

fn generous(dir: &StateDir, operations: &[&str]) -> Vec<String> {
    let run = Run::new(Mode::Shim, program()).args(operations).dir(dir).env("MQNS_LIMITS", "generous");
    answers(operations, &run.run())
}

#[test]
fn deep_queue_costs_little_until_it_is_filled() {
    let dir = StateDir::new();
    assert_eq!(generous(&dir, &["create /deep 0600 65536 8192"]), ["ok"]);
    let idle = occupied(&dir);
    assert_eq!(generous(&dir, &["open /deep", "send hello", "receive"]), ["ok", "ok", "hello"]);
    let used = occupied(&dir);
    println!("queue of 65,536 x 8,192 bytes: {idle} bytes idle, {used} after a message");
    assert!(used < 1 << 20, "{idle} bytes, {used} after a message");
}

#[test]
fn idle_small_queue_costs_a_few_pages() {
    let dir = StateDir::new();
    assert_eq!(generous(&dir, &["create /one 0600 10 8192"]), ["ok"]);
    let one = occupied(&dir);
    assert_eq!(generous(&dir, &["create-many 100 10 8192"]), ["100 ok"]);
    let each = (occupied(&dir) - one) / 100;
    println!("idle queue of 10 x 8,192 bytes: {each} bytes; all files with one queue: {one}");
    assert!(each <= 12 << 10, "{each} bytes for an idle queue");
}

// A full file system.

/// Runs the operations with the state directory on a file system of one mebibyte.
#[track_caller]
fn on_a_small_file_system(operations: &[&str]) -> Vec<String> {
    let script = r#"mount -t tmpfs -o size=1m,mode=1777 none "$MQNS_DIR" && exec "$@""#;
    let run = Run::new(Mode::Shim, "unshare").args(["-m", "sh", "-c", script, "sh"]).arg(program());
    let run = run.args(operations).env("MQNS_LIMITS", "generous");
    answers(operations, &run.run())
}

/// The count and the error of an answer of `fill` or `create-many`.
#[track_caller]
fn count_and_error(answer: &str) -> (u32, &str) {
    let (count, error) = answer.split_once(' ').expect("two words");
    (count.parse().expect("a count"), error)
}

#[track_caller]
fn full_file_system_refuses_messages_of(len: u32) {
    if !root_or_skip() || !mounts_or_skip() {
        return;
    }
    let fill = format!("fill {len}");
    let said = on_a_small_file_system(&[
        "create /q 0600 65536 8192",
        &fill,
        "receive",
        "send again",
        "close",
        "open /q",
        "drain 1",
        "receive",
        &fill,
        "drain 0",
        "send last",
        "receive",
    ]);
    let (count, error) = count_and_error(&said[1]);
    assert!(error == "ENOSPC" || error == "ENOMEM", "{said:?}");
    assert!(count > 100, "{count} messages of {len} bytes in a mebibyte");
    let (again, _) = count_and_error(&said[9]);
    assert!(again >= count, "{again} messages the second time, {count} the first");
    let want = [
        "ok".into(),
        format!("{count} {error}"),
        format!("{len} a"),
        "ok".into(),
        "ok".into(),
        "ok".into(),
        format!("{} again", count - 1),
        "EAGAIN".into(),
        format!("{again} {error}"),
        format!("{again} EAGAIN"),
        "ok".into(),
        "last".into(),
    ];
    assert_eq!(said, want);
}

#[test]
fn full_file_system_refuses_small_messages() {
    full_file_system_refuses_messages_of(64);
}

#[test]
fn full_file_system_refuses_large_messages() {
    full_file_system_refuses_messages_of(8192);
}

/// What is left of the file system takes a short message; that place, too small for a long one,
/// does not stand in the way of those that had room before.
#[test]
fn short_message_on_a_full_file_system_keeps_no_long_one_out() {
    if !root_or_skip() || !mounts_or_skip() {
        return;
    }
    let said = on_a_small_file_system(&[
        "create /q 0600 65536 8192",
        "fill 8192",
        "send short",
        "drain 0",
        "drain 0",
        "fill 8192",
        "drain 0",
    ]);
    let (count, error) = count_and_error(&said[1]);
    let all = format!("{count} {error}");
    // Whether the short one finds room depends on the pages that are left.
    let drained = if said[2] == "ok" { format!("{count} short") } else { format!("{count} EAGAIN") };
    assert_eq!(said[3..], [&drained, "0 EAGAIN", &all, &format!("{count} EAGAIN")], "{said:?}");
}

#[test]
fn full_file_system_refuses_queues_and_keeps_nothing_of_them() {
    if !root_or_skip() || !mounts_or_skip() {
        return;
    }
    let said = on_a_small_file_system(&[
        "rlimit-nofile 1024",
        "create-many 900 10 8192",
        "unlink-many",
        "create-many 900 10 8192",
        "unlink-many",
    ]);
    let (count, error) = count_and_error(&said[1]);
    assert!(error == "ENOSPC" || error == "ENOMEM", "{said:?}");
    assert!(count > 50, "{count} queues in a mebibyte");
    assert_eq!(said, ["ok", &said[1], "ok", &said[1], "ok"]);
}

// Descriptors.

#[test]
fn no_free_descriptor_is_emfile_and_leaves_nothing_behind() {
    let dir = StateDir::new();
    let operations = as_user(&["umask 0", "create /there 0666 1 1"]);
    answers(&operations, &Run::new(Mode::Shim, program()).args(&operations).dir(&dir).run());
    let names = |dir: &StateDir| dir.files().into_iter().map(|(path, ..)| path).collect::<Vec<_>>();
    let before = names(&dir);
    let operations = as_user(&[
        "rlimit-msgqueue 194",
        "rlimit-nofile 64",
        "descriptors",
        "take-descriptors",
        "create /missing 0600 1 1",
        "open /missing",
        "open /there",
        "give-descriptors",
        "descriptors",
        "open /missing",
        // Neither is the failed creation charged.
        "create /missing 0600 1 1",
        "close",
        "unlink /missing",
    ]);
    let outcome = Run::new(Mode::Shim, program()).args(&operations).dir(&dir).run();
    let said = answers(&operations, &outcome);
    let open = said[2].as_str();
    let want = ["ok", "ok", open, "EMFILE", "EMFILE", "EMFILE", "EMFILE", "ok", open, "ENOENT", "ok", "ok", "ok"];
    assert_eq!(said, want);
    assert_eq!(names(&dir), before);
}

/// As natively: a queue needs one descriptor, at no time another.
#[test]
fn one_free_descriptor_is_enough() {
    for mode in Mode::ALL {
        if mode == Mode::Native && !harness::kernel_has_queues() {
            continue;
        }
        let operations = as_user(&["rlimit-nofile 4", "create /a 0600 1 8", "send x", "receive", "close", "open /a"]);
        let outcome = Run::new(mode, program()).args(&operations).run();
        assert_eq!(answers(&operations, &outcome), ["ok", "ok", "ok", "x", "ok", "ok"], "{mode:?}");
    }
}

// Users. The default directory lies in /dev/shm, which each of these runs has for itself.

/// Runs a shell script in which `ops` stands for the program; natively, too, where the kernel has
/// queues, if the script is about them alone.
fn script(mode: Mode, text: &str) -> String {
    let own_shm = "mount -t tmpfs -o mode=1777 none /dev/shm";
    let whole = format!("set -e; {own_shm}; OPS=$1; ops() {{ \"$OPS\" \"$@\" | paste -sd, -; }}\n{text}");
    let run = Run::new(mode, "unshare").args(["-m", "env", "-u", "MQNS_DIR", "sh", "-c", &whole, "sh"]);
    let outcome = run.arg(program()).run();
    if let Err(why) = outcome.check() {
        panic!("{text}: {why}");
    }
    assert_eq!(outcome.stderr, "");
    outcome.stdout
}

#[track_caller]
fn same_in_both_modes(text: &str, want: &[&str]) {
    if !root_or_skip() || !mounts_or_skip() {
        return;
    }
    for mode in Mode::ALL {
        if mode == Mode::Shim || harness::kernel_has_queues() {
            assert_eq!(script(mode, text).lines().collect::<Vec<_>>(), want, "{mode:?}");
        }
    }
}

#[test]
fn queues_of_root_are_shared_by_all_users() {
    same_in_both_modes(
        r#"
        ops 'umask 0' 'create /all 0666 10 64' 'create /own 0600 10 64' 'create /group 0060 10 64'
        ops 'ids 12345' 'open /all' 'send hello' 'open /own' 'open /group' 'unlink /all'
        ops 'ids 12346' 'open /all' 'receive' 'open /own' 'unlink /own'
        ops 'ids 12346' 'umask 0' 'create /theirs 0622 10 64'
        ops 'ids 12345' 'open /theirs'
        ops 'open /theirs' 'open /own' 'unlink /theirs'
        "#,
        &[
            "ok,ok,ok,ok",
            "ok,ok,ok,EACCES,EACCES,EACCES",
            "ok,ok,hello,EACCES,EACCES",
            "ok,ok,ok",
            "ok,EACCES",
            "ok,ok,ok",
        ],
    );
}

#[test]
fn changed_effective_user_reaches_the_same_queues() {
    same_in_both_modes(
        r#"
        ops 'umask 0' 'create /all 0666 10 64' 'create /own 0600 10 64' \
            'euid 12345' 'open /all' 'send low' 'open /own' 'create /mine 0600 10 64' \
            'euid 0' 'open /all' 'receive' 'open /own' 'open /mine' \
            'euid 12346' 'open /mine' 'unlink /mine' 'euid 0' 'euid 12345' 'unlink /mine'
        ops 'euid 12345' 'open /all' 'send low' 'open /own' 'euid 0' 'open /own' 'open /all' 'receive'
        "#,
        &["ok,ok,ok,ok,ok,ok,EACCES,ok,ok,ok,low,ok,ok,ok,EACCES,EACCES,ok,ok,ok", "ok,ok,ok,EACCES,ok,ok,ok,low"],
    );
}

#[test]
fn users_without_roots_directory_have_private_ones() {
    if !root_or_skip() || !mounts_or_skip() {
        return;
    }
    let text = r#"
        ops 'ids 12345' 'umask 0' 'create /q 0666 10 64' 'send hello'
        ops 'ids 12346' 'open /q'
        ops 'ids 12345' 'open /q' 'receive'
        stat -c '%n %u %a' /dev/shm/*
        "#;
    let want =
        ["ok,ok,ok,ok", "ok,ENOENT", "ok,ok,hello", "/dev/shm/mqns-12345 12345 700", "/dev/shm/mqns-12346 12346 700"];
    assert_eq!(script(Mode::Shim, text).lines().collect::<Vec<_>>(), want);
}

#[test]
fn root_makes_the_directory_for_everybody() {
    if !root_or_skip() || !mounts_or_skip() {
        return;
    }
    let text = r#"
        ops 'create /q 0600 10 64'
        ops 'ids 12345' 'create /r 0600 10 64'
        stat -c '%n %u %a' /dev/shm/*
        "#;
    assert_eq!(script(Mode::Shim, text).lines().collect::<Vec<_>>(), ["ok", "ok,ok", "/dev/shm/mqns 0 1777"]);
}

/// A user who makes a directory of the name first does not get others' queues into it.
#[test]
fn directories_made_by_strangers_are_not_used() {
    if !root_or_skip() || !mounts_or_skip() {
        return;
    }
    let text = r#"
        mkdir /dev/shm/mqns /dev/shm/mqns-12346 /dev/shm/elsewhere
        chown 12345 /dev/shm/mqns /dev/shm/mqns-12346 /dev/shm/elsewhere
        chmod 1777 /dev/shm/mqns /dev/shm/mqns-12346 /dev/shm/elsewhere
        ln -s elsewhere /dev/shm/mqns-12347
        ops 'create /q 0600 10 64' >/dev/null
        ops 'ids 12346' 'create /q 0600 10 64' >/dev/null
        ops 'ids 12347' 'create /q 0600 10 64' >/dev/null
        find /dev/shm/mqns/ /dev/shm/mqns-12346/ /dev/shm/elsewhere -mindepth 1
        "#;
    assert_eq!(script(Mode::Shim, text), "");
}
