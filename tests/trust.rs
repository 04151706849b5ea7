//! What users can and cannot do to each other: the claims of docs/security.md, each with a user who tries. The attacker
//! is uid 1234, whose programs need no library; the others are root, and uid 65534.

mod harness;

use harness::row::row;
use harness::{Mode, Run, StateDir, program};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

const ATTACKER: u32 = 1234;

fn root_or_skip() -> bool {
    // SAFETY: no arguments.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

fn mounts_or_skip() -> bool {
    let can = harness::may_mount();
    if !can {
        eprintln!("skipped: cannot mount in a mount namespace of its own");
    }
    can
}

/// Runs `trust` with these operations to its end, which must come soon and be no signal.
#[track_caller]
fn ops(state: &StateDir, operations: &[&str]) -> Vec<String> {
    ops_of(Run::new(Mode::Shim, program("trust")).args(operations).dir(state), operations)
}

#[track_caller]
fn ops_of(run: Run, operations: &[&str]) -> Vec<String> {
    let outcome = run.timeout(Duration::from_secs(20)).run();
    if let Err(why) = outcome.check() {
        panic!("{operations:?}: {why}");
    }
    outcome.stdout.lines().map(str::to_string).collect()
}

/// Runs `trust` beside the test, until `go` is made in the state directory; returns when it has come as far as
/// `ready`, with its process id.
struct Beside {
    thread: Option<thread::JoinHandle<harness::Outcome>>,
    go: PathBuf,
    pid: String,
}

impl Beside {
    fn start(state: &StateDir, operations: &[&str]) -> Beside {
        let (ready, go) = (state.path().join("ready"), state.path().join("go"));
        for file in [&ready, &go] {
            let _ = fs::remove_file(file);
        }
        let (tell, wait) = (format!("tell {}", ready.display()), format!("await {}", go.display()));
        let operations = operations.iter().copied().chain([tell.as_str(), wait.as_str()]);
        let run = Run::new(Mode::Shim, program("trust")).args(operations).dir(state);
        let run = run.env("MQNS_PRIVILEGES", "generous");
        let thread = thread::spawn(move || run.run());
        let start = Instant::now();
        while !ready.exists() {
            assert!(start.elapsed() < Duration::from_secs(20), "not ready");
            thread::sleep(Duration::from_millis(5));
        }
        Beside { thread: Some(thread), go, pid: fs::read_to_string(&ready).expect("read") }
    }

    fn end(mut self) -> Vec<String> {
        fs::write(&self.go, "").expect("go");
        let outcome = self.thread.take().expect("once").join().expect("the run");
        outcome.check().expect("it ends well");
        outcome.stdout.lines().map(str::to_string).collect()
    }
}

/// What the attacker does, in the state directory `$D`, with a directory of others `$V`. It may fail.
fn attack(state: &StateDir, victim: &Path, script: &str) {
    let id = ATTACKER.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "sh", "-c", script]);
    command.env("D", state.path()).env("V", victim).current_dir(state.path());
    command.output().expect("run setpriv");
}

/// A directory with files and directories of the names that the library uses, and a picture of it.
struct Victim(StateDir);

impl Victim {
    fn new(owner: u32) -> Victim {
        let victim = Victim(StateDir::new());
        for dir in ["sb", "q", "q/x", "q/f", "x", "f", "m"] {
            fs::create_dir(victim.path().join(dir)).expect("mkdir");
            fs::write(victim.path().join(dir).join("precious"), "precious").expect("a file");
        }
        for file in ["precious", "control", "accounts"] {
            fs::write(victim.path().join(file), "precious").expect("a file");
        }
        let id = format!("{owner}:{owner}");
        for (program, what) in [("chown", id.as_str()), ("chmod", "go-w,-t")] {
            let status = Command::new(program).args(["-R", what]).arg(victim.path()).status();
            assert!(status.expect("run it").success());
        }
        victim
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn picture(&self) -> Vec<String> {
        fn see(path: &Path, out: &mut Vec<String>) {
            let st = path.symlink_metadata().expect("stat");
            out.push(format!("{} {:o} {} {} {}", path.display(), st.mode(), st.uid(), st.gid(), st.nlink()));
            if st.is_dir() {
                fs::read_dir(path).expect("list").flatten().for_each(|e| see(&e.path(), out));
            } else if st.is_file() {
                out.push(fs::read_to_string(path).expect("read"));
            }
        }
        let mut out = Vec::new();
        see(self.path(), &mut out);
        out.sort();
        out
    }
}

/// The name of the initial namespace's directory.
fn initial() -> String {
    let state = StateDir::new();
    assert_eq!(ops(&state, &["create /q 0600"]), ["ok"]);
    let names =
        fs::read_dir(state.path()).expect("list").flatten().map(|e| e.file_name().into_string().expect("UTF-8"));
    names.into_iter().find(|name| name.starts_with('i')).expect("an initial namespace")
}

/// Bytes charged to a user.
fn charged(state: &StateDir, uid: u32) -> u64 {
    harness::charged(state).iter().find(|(of, _)| *of == uid).map_or(0, |(_, bytes)| *bytes)
}

/// What can be put under a name, and how.
const KINDS: &[(&str, &str)] = &[
    ("a link to a directory", "ln -s $V $N"),
    ("a link to a file", "ln -s $V/precious $N"),
    ("a link to nothing", "ln -s $V/none $N"),
    ("a FIFO", "mkfifo -m 0666 $N"),
    ("a directory", "mkdir -m 0777 $N; touch $N/junk"),
    ("a file", "echo junk >$N; chmod 0666 $N"),
    ("an empty file", ": >$N; chmod 0600 $N"),
    ("a second name", "echo junk >$D/own; ln $D/own $N"),
    ("a file with a lease", "echo junk >$N; chmod 0666 $N"),
];

/// In a directory for everybody whoever comes first may take the names that the library will use.
fn plant(state: &StateDir, victim: &Path, initial: &str, name: &str, how: &str) {
    let name = name.replace("iN", initial);
    let above = Path::new(&name).parent().expect("above").display().to_string();
    let above = if above.is_empty() { String::new() } else { format!("mkdir -p $D/{above}; ") };
    attack(state, victim, &format!("umask 0; {above}N=$D/{name}; {how}"));
}

const NAMES: &[&str] = &["accounts", "m", "iN", "iN/control", "iN/sb", "iN/q", "iN/q/x", "iN/q/f"];

/// Root takes over what others have made under those names, and is led nowhere. Nobody waits.
#[test]
fn planted_names_neither_lead_nor_stop_root() {
    if !root_or_skip() {
        return;
    }
    let initial = initial();
    for name in NAMES {
        for (what, how) in KINDS {
            let (state, victim) = (StateDir::new(), Victim::new(0));
            let before = victim.picture();
            plant(&state, victim.path(), &initial, name, how);
            let lease = what.ends_with("lease").then(|| {
                let own = state.path().join(name.replace("iN", &initial));
                Beside::start(&state, &[&format!("ids {ATTACKER}"), &format!("lease {}", own.display())])
            });
            let said = ops(
                &state,
                &["stat /", "umask 0", "create /q 0666", "send hello", "receive", "unlink /q", "close", "stat /"],
            );
            assert_eq!(said, ["ok", "ok", "ok", "ok", "hello", "ok", "ok", "ok"], "{name}: {what}");
            assert_eq!(victim.picture(), before, "{name}: {what}");
            // Root's from now on.
            for name in ["accounts", "iN", "iN/control", "iN/sb", "iN/q", "iN/q/x"] {
                let st = state.path().join(name.replace("iN", &initial)).symlink_metadata().expect("stat");
                assert_eq!((st.uid(), st.nlink() == 1 || st.is_dir()), (0, true), "{name}: {what}");
            }
            assert_eq!(ops(&state, &["ids 65534", "create /p 0600", "unlink /p"]), ["ok"; 3], "{name}: {what}");
            if let Some(lease) = lease {
                lease.end();
            }
        }
    }
    row(
        "names taken by another user",
        "accounts, m, iN … as links, FIFOs, directories, files, with a lease; then root",
        &format!("{} names", NAMES.len() * KINDS.len()),
        "root takes them over: its calls work, and other users' afterwards; the files that links lead to are as they were",
        None,
    );
}

/// Another user may be refused queues there, but is led nowhere either, and waits for nobody.
#[test]
fn planted_names_do_not_lead_users() {
    if !root_or_skip() {
        return;
    }
    let initial = initial();
    for name in NAMES {
        for (what, how) in KINDS {
            let (state, victim) = (StateDir::new(), Victim::new(65534));
            let before = victim.picture();
            plant(&state, victim.path(), &initial, name, how);
            let start = Instant::now();
            ops(&state, &["ids 65534", "stat /", "create /q 0600", "send x", "unlink /precious", "close", "unlink /q"]);
            assert!(start.elapsed() < Duration::from_secs(5), "{name}: {what}");
            assert_eq!(victim.picture(), before, "{name}: {what}");
        }
    }
    row(
        "names taken by another user",
        "the same; then another user",
        &format!("{} names", NAMES.len() * KINDS.len()),
        "works or is refused, within 5 s; the files that links lead to are as they were",
        None,
    );
}

/// The default directories' names can be guessed, in a directory where everybody may make some.
#[test]
fn planted_default_directories_are_refused() {
    if !root_or_skip() || !mounts_or_skip() {
        return;
    }
    for plant in ["mkfifo -m 0666 $N", "ln -s $V $N", "echo x >$N", "mkdir -m 0777 $N"] {
        let script = r#"
            set -e; mount -t tmpfs -o mode=1777 none /dev/shm; export V=/dev/shm/v
            mkdir -m 0777 $V; touch $V/precious
            for N in /dev/shm/mqns /dev/shm/mqns-65534; do
                export N; setpriv --reuid 1234 --regid 1234 --clear-groups sh -c "$PLANT"
            done
            "$1" 'create /q 0600' 'stat /'; "$1" 'ids 65534' 'create /q 0600' 'stat /'
            ls $V; find $N -mindepth 1"#;
        let run = Run::new(Mode::Shim, "unshare").env("PLANT", plant);
        let run = run.args(["-m", "env", "-u", "MQNS_DIR", "sh", "-c", script, "sh"]).arg(program("trust"));
        assert_eq!(ops_of(run, &[plant]), ["EACCES", "ok", "ok", "EACCES", "ok", "precious"], "{plant}");
    }
    row(
        "names taken by another user",
        "/dev/shm/mqns and mqns-UID as FIFO, link, file, directory",
        "4 kinds",
        "mq_open: EACCES; the files are as they were",
        None,
    );
}

/// What a program makes has the documented modes, whatever its umask.
#[test]
fn modes_are_those_documented() {
    if !root_or_skip() {
        return;
    }
    let initial = initial();
    for (uid, umask) in [0, 65534].into_iter().flat_map(|uid| [0, 0o022, 0o077, 0o777].map(|umask| (uid, umask))) {
        let state = StateDir::new();
        let (ids, set) = (format!("ids {uid}"), format!("umask {umask:o}"));
        if uid != 0 {
            // A directory of that user's alone.
            fs::set_permissions(state.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("chmod");
            std::os::unix::fs::chown(state.path(), Some(uid), Some(uid)).expect("chown");
        }
        let all = ["create /all 0666", "create /read 0644", "create /own 0600", "create /gone 0666", "unlink /gone"];
        let mut operations = vec![ids.as_str(), set.as_str()];
        operations.extend(all);
        operations.extend(["unshare", "create /inner 0640"]);
        let beside = Beside::start(&state, &operations);
        let mut seen = 0;
        check(
            state.path(),
            state.path(),
            &|name, st| {
                let parts: Vec<_> = name.split('/').collect();
                let public = uid == 0;
                let inner = parts[0].starts_with('u');
                let of_mode = |mode: u32| mode & !umask;
                let last = parts[parts.len() - 1];
                let within = if inner { &parts[1..] } else { &parts[..] };
                let want = match within {
                    [] => {
                        if public {
                            0o711
                        } else {
                            0o700
                        }
                    }
                    ["accounts"] => {
                        if public {
                            0o666
                        } else {
                            0o600
                        }
                    }
                    [_] if !inner && ["ready", "go", "ready.draft"].contains(&last) => return,
                    [_] => {
                        if public {
                            0o755
                        } else {
                            0o700
                        }
                    }
                    [_, "control"] => {
                        if public {
                            0o666
                        } else {
                            0o600
                        }
                    }
                    [_, "sb"] => 0o1777,
                    [_, "q"] => {
                        if public {
                            0o1777
                        } else {
                            0o1700
                        }
                    }
                    [_, "q", "x"] => {
                        if public {
                            0o1733
                        } else {
                            0o1700
                        }
                    }
                    [_, "q", "f"] => {
                        if public {
                            0o777
                        } else {
                            0o700
                        }
                    }
                    [_, "sb", "all"] => of_mode(0o666),
                    [_, "sb", "read"] => of_mode(0o644),
                    [_, "sb", "own"] => of_mode(0o600),
                    [_, "sb", "inner"] => of_mode(0o640),
                    // Of the one without a name.
                    [_, "q", file] if file.ends_with(".x") => of_mode(0o666),
                    [_, "q", file] if file.ends_with(".k") => {
                        // Reading for those who may open the queue, and no more.
                        assert_eq!(st.mode() & 0o7333 & !0o400 | 0o400, 0o400, "{name}");
                        seen_key(st.mode() & 0o7777, umask);
                        return;
                    }
                    [_, "q", "x", _] => 0o666,
                    [_, "q", "f", _] => 0o666,
                    _ => panic!("{name}: what is that?"),
                };
                assert_eq!(format!("{:o}", st.mode() & 0o7777), format!("{want:o}"), "{name}, umask {umask:o}");
                assert_eq!((st.uid(), st.gid()), (uid, uid), "{name}");
            },
            &mut seen,
        );
        assert!(seen >= 20, "{seen}");
        assert!(state.path().join(&initial).is_dir());
        assert!(beside.end().iter().all(|line| line == "ok"));
    }
    row("any umask", "0, 022, 077, 0777; root and a user", "8", "each file has the documented mode and owner", None);
}

/// Keys of queues with modes 0666, 0644, 0600 and 0640.
fn seen_key(mode: u32, umask: u32) {
    let of = |mode: u32| [3, 0].into_iter().filter(|s| (mode & !umask) >> s & 6 != 0).fold(0o400, |m, s| m | 4 << s);
    assert!([0o666, 0o644, 0o600, 0o640].into_iter().any(|queue| of(queue) == mode), "{mode:o}");
}

fn check(root: &Path, dir: &Path, see: &dyn Fn(&str, &fs::Metadata), seen: &mut usize) {
    for entry in fs::read_dir(dir).expect("list").flatten() {
        let st = entry.path().symlink_metadata().expect("stat");
        see(entry.path().strip_prefix(root).expect("below").to_str().expect("UTF-8"), &st);
        *seen += 1;
        if st.is_dir() {
            check(root, &entry.path(), see, seen);
        }
    }
}

/// Hidden names go by inode numbers, which all may see: a stranger may have taken them.
#[test]
fn taken_hidden_names_keep_nobody_from_unlinking() {
    if !root_or_skip() {
        return;
    }
    let initial = initial();
    for (what, how) in KINDS {
        for uid in [65534, 0] {
            let (state, victim) = (StateDir::new(), Victim::new(uid));
            assert_eq!(ops(&state, &["create /first 0600", "unlink /first"]), ["ok"; 2]);
            let ids = format!("ids {uid}");
            assert_eq!(ops(&state, &[&ids, "umask 0", "create /q 0600", "create /open 0600"]), ["ok"; 4]);
            let before = victim.picture();
            for name in ["q", "open"] {
                let ino = state.path().join(&initial).join("sb").join(name).metadata().expect("stat").ino();
                plant(&state, victim.path(), &initial, &format!("iN/q/{ino:x}.x"), how);
            }
            assert_ne!(charged(&state, uid), 0);
            let said =
                ops(&state, &[&ids, "unlink /q", "open /q", "open /open", "unlink /open", "close", "open /open"]);
            assert_eq!(said, ["ok", "ok", "ENOENT", "ok", "ok", "ok", "ENOENT"], "{what}, uid {uid}");
            assert_eq!(charged(&state, uid), 0, "{what}, uid {uid}");
            assert_eq!(victim.picture(), before, "{what}");
            let left = state.files().into_iter().filter(|(path, ..)| path.extension().is_some_and(|e| e == "s"));
            assert_eq!(left.count(), 0, "{what}, uid {uid}");
        }
    }
    row(
        "hidden names taken by another user",
        "the name to which mq_unlink moves a queue",
        &format!("{} names", KINDS.len() * 4),
        "mq_unlink works; nothing is left, nor charged",
        None,
    );
}

/// The same of the next numbers: a few that are taken are passed over.
#[test]
fn taken_hidden_names_keep_nobody_from_creating() {
    if !root_or_skip() {
        return;
    }
    let initial = initial();
    let state = StateDir::new();
    let victim = Victim::new(0);
    assert_eq!(ops(&state, &["create /first 0600"]), ["ok"]);
    // Each of these takes a number itself.
    let script = format!(
        r#"cd $D/{initial}/q; : >probe; n=$(stat -c %i probe)
        for i in $(seq 1 12); do ln probe $(printf %x $((n + i))).k; done"#
    );
    attack(&state, victim.path(), &script);
    assert_eq!(ops(&state, &["ids 65534", "create /q 0600", "send x", "receive"]), ["ok", "ok", "ok", "x"]);
    row("hidden names taken by another user", "keys of the next 12 inode numbers", "1", "mq_open works", None);
}

fn gc(state: &StateDir, uid: u32) {
    let id = uid.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups", env!("CARGO_BIN_EXE_mqns"), "gc", "-q"]);
    command.env("MQNS_DIR", state.path()).env("MQNS_LIB", harness::library());
    let output = command.output().expect("run mqns");
    assert!(output.status.success(), "{output:?}");
}

/// What a killed maker has left is taken off the accounts by whoever may remove it, once.
#[test]
fn dead_draft_is_discharged_once() {
    if !root_or_skip() {
        return;
    }
    let initial = initial();
    let state = StateDir::new();
    let victim = Victim::new(0);
    assert_eq!(ops(&state, &["create /first 0600"]), ["ok"]);
    // Three queues of the attacker's, and what is left of a fourth, as its maker has charged it.
    let ids = format!("ids {ATTACKER}");
    assert_eq!(ops(&state, &[&ids, "create /a 0600", "create /b 0600", "create /c 0600"]), ["ok"; 4]);
    let cost = charged(&state, ATTACKER) / 3;
    let draft = format!("q=$D/{initial}/q/t0123456789abcdef.{ATTACKER}.{cost}; umask 0; truncate -s 80 $q");
    attack(&state, victim.path(), &draft);
    for _ in 0..3 {
        gc(&state, 65534);
        assert_eq!(charged(&state, ATTACKER), 3 * cost);
    }
    gc(&state, ATTACKER);
    assert_eq!(charged(&state, ATTACKER), 2 * cost);
    gc(&state, 0);
    assert_eq!(charged(&state, ATTACKER), 2 * cost);
    row(
        "a maker killed before its queue had a name",
        "what it has left is found by three users, repeatedly",
        "1",
        "taken off the account once, by who may remove it",
        None,
    );
}

/// A draft that names another's queue takes nothing of that away.
#[test]
fn forged_draft_removes_nothing_of_others() {
    if !root_or_skip() {
        return;
    }
    let initial = initial();
    let state = StateDir::new();
    let victim = Victim::new(0);
    assert_eq!(ops(&state, &["umask 0", "create /q 0644", "send hello"]), ["ok"; 3]);
    // Who may read it knows its key.
    let script = format!(
        r#"cd $D/{initial}; k=$(printf %x $(stat -c %i sb/q)).k; head -c 16 q/$k >q/tffffffffffffffff.0.1; truncate -s 17 q/tff*"#
    );
    attack(&state, victim.path(), &script);
    gc(&state, 0);
    assert_eq!(ops(&state, &["open /q", "receive"]), ["ok", "hello"]);
    row("a forged draft", "with the key of another's queue; then mqns gc as root", "1", "the queue is as it was", None);
}

/// A user without rights to a queue finds neither message nor key.
#[test]
fn queue_without_rights_is_closed() {
    if !root_or_skip() {
        return;
    }
    let initial = initial();
    let state = StateDir::new();
    let victim = Victim::new(0);
    let keep = Beside::start(&state, &["umask 0", "create /q 0600", "send secret", "unshare", "create /in 0666"]);
    let (spied, spy) = (
        state.path().join("spied"),
        r#"
        exec >$D/spied 2>/dev/null
        cat $D/i*/q/*.k; ls $D/i*/q/x; cat $D/i*/q/x/*; cat $D/i*/sb/q; ls $D/u0; cat $D/u0/*/control
        find $D -name '*.s'; ls $D/proc; true"#,
    );
    attack(&state, victim.path(), spy);
    assert_eq!(fs::read_to_string(&spied).expect("it ran"), "");
    let ids = format!("ids {ATTACKER}");
    assert_eq!(ops(&state, &[&ids, "open /q", "unlink /q", "open /in"]), ["ok", "EACCES", "EACCES", "ENOENT"]);
    assert_eq!(ops(&state, &[&ids, &format!("enter {}", keep.pid)]), ["ok", "EPERM"]);
    keep.end();
    // Unlink and rename are the sticky bit's.
    attack(&state, victim.path(), &format!("cd $D/{initial}; rm -f sb/q q/*.k; mv sb/q sb/r; mv q/x q/y; mv sb s"));
    assert_eq!(ops(&state, &["open /q", "receive"]), ["ok", "secret"]);
    row(
        "a user without rights to a queue",
        "reads, lists, opens, unlinks, enters, renames what there is",
        "1",
        "EACCES, ENOENT, EPERM; nothing read; the message is there",
        None,
    );
}

/// Root in a namespace of a user's: the user may put links into all of its directories at any moment.
#[test]
fn root_in_a_users_namespace_is_not_led_elsewhere() {
    if !root_or_skip() {
        return;
    }
    let swaps = [
        ("sb", "cd $NS; mv sb s; ln -s $V sb"),
        ("sb into a directory of it", "cd $NS; mv sb s; ln -s $V/sb sb"),
        ("q", "cd $NS; mv q r; ln -s $V/q q"),
        ("q/x", "cd $NS; mv q/x q/y; ln -s $V/x q/x"),
        ("q/f", "cd $NS; rm -rf q/f; ln -s $V/f q/f"),
        ("all", "cd $NS; mv sb s; mv q r; ln -s $V sb; ln -s $V q"),
        ("control", "cd $NS; rm control; ln -s $V/control control"),
        ("itself", "cd $D/u1234; mv $NS n; ln -s $V $NS"),
        ("the user's directory", "cd $D; mv u1234 v; mkdir -p w; ln -s $V w/${NS##*/}; ln -s w u1234"),
    ];
    for (what, swap) in &swaps {
        let (state, victim) = (StateDir::new(), Victim::new(0));
        assert_eq!(ops(&state, &["create /first 0600"]), ["ok"]);
        let ids = format!("ids {ATTACKER}");
        let keep = Beside::start(&state, &[&ids, "umask 0", "unshare", "create /q 0666", "create /kept 0666"]);
        let before = victim.picture();
        let inside = state.path().join("in");
        let swapped = state.path().join("swapped");
        let root = {
            let operations = [
                format!("enter {}", keep.pid),
                "open /kept".into(),
                format!("tell {}", inside.display()),
                format!("await {}", swapped.display()),
                "open /q".into(),
                "unlink /q".into(),
                "unlink /kept".into(),
                "close".into(),
                "unlink /precious".into(),
                "create /new 0600".into(),
                "unlink /new".into(),
            ];
            let run = Run::new(Mode::Shim, program("trust")).args(&operations).dir(&state);
            thread::spawn(move || run.timeout(Duration::from_secs(30)).run())
        };
        let start = Instant::now();
        while !inside.exists() && start.elapsed() < Duration::from_secs(10) {
            thread::sleep(Duration::from_millis(5));
        }
        attack(&state, victim.path(), &format!("NS=$(echo $D/u1234/n*); {swap}"));
        fs::write(&swapped, "").expect("go");
        let outcome = root.join().expect("the run");
        outcome.check().unwrap_or_else(|why| panic!("{what}: {why}"));
        assert_eq!(outcome.stdout.lines().take(4).collect::<Vec<_>>(), ["ok"; 4], "{what}");
        assert_eq!(victim.picture(), before, "{what}: {}", outcome.stdout);
        // Nor is one who comes afterwards.
        ops(&state, &[&format!("enter {}", keep.pid), "create /new 0600", "open /q", "unlink /precious", "unlink /q"]);
        assert_eq!(victim.picture(), before, "{what}");
        keep.end();
        gc(&state, 0);
        assert_eq!(victim.picture(), before, "{what}");
    }
    row(
        "root in a user's namespace",
        "whose directories and files the user replaces by links",
        &format!("{} ways", swaps.len()),
        "files outside are as they were, also after mqns gc",
        None,
    );
}

/// The register of mounts lies beside what others make there.
#[test]
fn planted_records_of_mounts_do_not_matter() {
    if !root_or_skip() || !mounts_or_skip() {
        return;
    }
    let initial = initial();
    for (what, how) in KINDS {
        let (state, victim) = (StateDir::new(), Victim::new(0));
        assert_eq!(ops(&state, &["create /first 0600"]), ["ok"]);
        let ino = state.path().join(&initial).join("sb").metadata().expect("stat").ino();
        let before = victim.picture();
        attack(&state, victim.path(), "mkdir -m 1777 $D/m");
        for name in [format!("{ino:x}"), format!("{ino:x}.0")] {
            plant(&state, victim.path(), &initial, &format!("m/{name}"), how);
        }
        let all = ["mount /mnt", "cat /proc/self/mounts", "stat /mnt/first", "unlink /first"];
        let run = Run::new(Mode::Shim, "unshare").arg("-m").arg(program("trust")).args(all).dir(&state);
        let said = ops_of(run, &all);
        assert_eq!(said[1..], ["ok", "ok", "ok"], "{what}: {said:?}");
        assert_eq!(victim.picture(), before, "{what}");
        let run = Run::new(Mode::Shim, program("trust")).args(["ids 65534", "cat /proc/self/mounts"]).dir(&state);
        assert_eq!(ops_of(run, &[what]), ["ok", "ok"], "{what}");
    }
    row(
        "forged records of mounts",
        "links, FIFOs, directories, files … in the register",
        &format!("{} names", 2 * KINDS.len()),
        "mounts work; files outside are as they were",
        None,
    );
}

/// A file that a user has made where queues are mounted becomes a queue when somebody opens it: the file's owner's, whoever
/// that is, and for whom its mode says.
#[test]
fn queue_made_of_a_users_file_is_that_users() {
    if !root_or_skip() || !mounts_or_skip() {
        return;
    }
    let initial = initial();
    let (state, victim) = (StateDir::new(), Victim::new(0));
    let run = Run::new(Mode::Shim, "unshare").arg("-m").arg(program("trust")).arg("mount /mnt").dir(&state);
    assert_eq!(ops_of(run, &["mount /mnt"]), ["ok"]);
    attack(&state, victim.path(), &format!("umask 0; : >$D/{initial}/sb/f; chmod 0660 $D/{initial}/sb/f"));
    assert_eq!(ops(&state, &["open /f"]), ["ok"]);
    let keys: Vec<_> = glob(state.path(), "i*/q/*.k").iter().map(|key| key.metadata().expect("stat")).collect();
    let seen: Vec<_> = keys.iter().map(|st| (st.uid(), st.gid(), st.mode() & 0o7777)).collect();
    assert_eq!(seen, [(ATTACKER, ATTACKER, 0o440)]);
    assert_eq!(ops(&state, &["ids 65534", "open /f"]), ["ok", "EACCES"]);
    assert_eq!(
        ops(&state, &[&format!("ids {ATTACKER}"), "open /f", "send x", "receive", "unlink /f"])[1..],
        ["ok", "ok", "x", "ok"]
    );
    row(
        "a file of a user's among the queues",
        "made in the mqueue file system, then opened by root",
        "1",
        "a queue of that user, for whom its mode says",
        None,
    );
}

/// Who may write a file may shorten it: those who have it mapped see zeros, and go on.
#[test]
fn shortened_files_kill_nobody() {
    if !root_or_skip() {
        return;
    }
    for what in ["i*/q/x/*.s", "i*/control", "accounts"] {
        let state = StateDir::new();
        let victim = Victim::new(0);
        let (cut, done) = (state.path().join("cut"), state.path().join("done"));
        let (cut, done) = (format!("tell {}", cut.display()), format!("await {}", done.display()));
        // The queue's own user does it, whose right it is; the other files are for all.
        let run = Run::new(Mode::Shim, program("trust")).dir(&state).args([
            "umask 0",
            "create /q 0666",
            "send one",
            &cut,
            &done,
            "send two",
            "receive",
            "create /r 0600",
            "open /q",
            "stat /",
        ]);
        let run = thread::spawn(move || run.timeout(Duration::from_secs(20)).run());
        let start = Instant::now();
        while !state.path().join("cut").exists() && start.elapsed() < Duration::from_secs(10) {
            thread::sleep(Duration::from_millis(5));
        }
        for file in glob(state.path(), what) {
            attack(&state, victim.path(), &format!("truncate -s 0 {}", file.display()));
            if what.ends_with(".s") {
                // Whose names cannot be listed.
                fs::File::options().write(true).open(&file).expect("open").set_len(0).expect("truncate");
            }
            assert_eq!(file.metadata().expect("stat").len(), 0, "{what}");
        }
        fs::write(state.path().join("done"), "").expect("go");
        let outcome = run.join().expect("the run");
        outcome.check().unwrap_or_else(|why| panic!("{what}: {why}"));
        assert_eq!(outcome.stdout.lines().count(), 10, "{what}: {}", outcome.stdout);
    }
    row(
        "files cut short in use",
        "segment, control, accounts, to 0",
        "3",
        "whoever has them mapped goes on, by no signal",
        None,
    );
}

fn glob(dir: &Path, pattern: &str) -> Vec<PathBuf> {
    let script = format!("ls -d {}/{pattern}", dir.display());
    let output = Command::new("sh").args(["-c", &script]).output().expect("run sh");
    String::from_utf8(output.stdout).expect("UTF-8").lines().map(PathBuf::from).collect()
}

/// Documented: the accounts are every user's to write. They refuse others what root then mends.
#[test]
fn accounts_are_no_protection_and_root_mends_them() {
    if !root_or_skip() {
        return;
    }
    let state = StateDir::new();
    let victim = Victim::new(0);
    assert_eq!(ops(&state, &["create /first 0600"]), ["ok"]);
    attack(&state, victim.path(), "dd if=/dev/zero of=$D/accounts bs=1k count=4 conv=notrunc");
    assert_eq!(ops(&state, &["ids 65534", "create /q 0600"]), ["ok", "EIO"]);
    assert_eq!(ops(&state, &["create /second 0600"]), ["ok"]);
    assert_eq!(ops(&state, &["ids 65534", "create /q 0600"]), ["ok", "ok"]);
    row("accounts spoilt", "4 KiB of zeros", "1", "mq_open by others: EIO, until root makes a queue", None);
}

/// A container that shares the directory and not the process ids shares the queues, and nothing is found dead there
/// that lives.
#[test]
fn container_with_its_own_process_ids_shares_queues() {
    if !root_or_skip() || !mounts_or_skip() {
        return;
    }
    let state = StateDir::new();
    assert_eq!(ops(&state, &["umask 0", "create /q 0666", "send out"]), ["ok"; 3]);
    let keep = Beside::start(&state, &["unshare", "create /in 0600"]);
    let inside = ["open /q", "receive", "send back", &format!("enter {}", keep.pid), "create /r 0600"];
    let run = Run::new(Mode::Shim, "unshare").args(["--pid", "--fork", "--mount-proc"]).arg(program("trust"));
    let said = ops_of(run.args(inside).dir(&state), &inside);
    // There is no such process there.
    assert_eq!(said, ["ok", "out", "ok", "ESRCH", "ok"]);
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc", env!("CARGO_BIN_EXE_mqns"), "gc", "-q"]);
    command.env("MQNS_DIR", state.path()).env("MQNS_LIB", harness::library());
    assert!(command.output().expect("run mqns").status.success());
    assert_eq!(glob(state.path(), "u0/n*").len(), 1, "it lives, though not to be seen from there");
    assert!(keep.end().iter().all(|line| line == "ok"));
    assert_eq!(ops(&state, &["open /q", "receive"]), ["ok", "back"]);
    let fifos = state
        .files()
        .into_iter()
        .filter(|(path, ..)| state.path().join(path).symlink_metadata().is_ok_and(|st| st.file_type().is_fifo()));
    assert_eq!(fifos.count(), 2);
    row(
        "a container that shares the directory",
        "with its own process ids; then mqns gc in it",
        "1",
        "the queues are shared; nothing that lives is taken for dead",
        None,
    );
}

/// `mqns` as that user.
fn mqns(state: &StateDir, uid: u32, arguments: &[&str]) -> std::process::Output {
    let id = uid.to_string();
    let mut command = Command::new("timeout");
    command.args(["20", "setpriv", "--reuid", &id, "--regid", &id, "--clear-groups", env!("CARGO_BIN_EXE_mqns")]);
    command.args(arguments).env("MQNS_DIR", state.path()).env("MQNS_LIB", harness::library());
    command.stdin(std::process::Stdio::null()).output().expect("run mqns")
}

const WHERE: [&str; 5] = ["run", "--ns", "ci", "readlink", "/proc/self/ns/ipc"];

/// A name leads to a namespace of one's own, whatever others have put where names are kept.
#[test]
fn planted_names_of_namespaces_lead_nowhere() {
    if !root_or_skip() {
        return;
    }
    for (what, how) in KINDS {
        let (state, victim) = (StateDir::new(), Victim::new(0));
        let before = victim.picture();
        plant(&state, victim.path(), "", "u0/names", how);
        let output = mqns(&state, 0, &WHERE);
        assert!(output.stdout.starts_with(b"ipc:[") && output.status.success(), "{what}: {output:?}");
        let st = state.path().join("u0/names").symlink_metadata().expect("stat");
        assert_eq!((st.uid(), st.mode() & 0o7777, st.nlink(), st.is_file()), (0, 0o600, 1, true), "{what}");
        assert_eq!(victim.picture(), before, "{what}");
        // Another user's directory stays the attacker's, and is not used.
        plant(&state, victim.path(), "", "u65534/names", how);
        let output = mqns(&state, 65534, &WHERE);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(125), 0), "{what}: {output:?}");
        assert!(said.contains("namespace ci: your directory in that of the queues is somebody else's; "), "{said}");
        assert_eq!(victim.picture(), before, "{what}");
    }
    // A directory with a namespace in it that has the name.
    let (state, victim) = (StateDir::new(), Victim::new(0));
    let script = format!(
        "{} run --ns ci sh -c 'readlink /proc/self/ns/ipc >{}/theirs; cp -r u{ATTACKER} u0; cp -r u{ATTACKER} u65534'",
        env!("CARGO_BIN_EXE_mqns"),
        state.path().display()
    );
    let script = format!("export MQNS_DIR=$D MQNS_LIB={}; {script}", harness::library().display());
    attack(&state, victim.path(), &script);
    let theirs = fs::read(state.path().join("theirs")).expect("it ran");
    assert!(theirs.starts_with(b"ipc:[") && state.path().join("u0/names").exists());
    let output = mqns(&state, 0, &WHERE);
    assert!(output.stdout.starts_with(b"ipc:[") && output.stdout != theirs, "{output:?}");
    assert_eq!(mqns(&state, 65534, &WHERE).status.code(), Some(125));
}

/// Others neither learn where a namespace with a name is, nor can they keep anybody from it.
#[test]
fn names_of_namespaces_are_closed_to_others() {
    if !root_or_skip() {
        return;
    }
    let (state, victim) = (StateDir::new(), Victim::new(0));
    let spied = state.path().join("spied");
    let script = r#"exec >$D/spied 2>/dev/null; cat $D/u0/names; ls $D/u0; readlink $D/u0/*; flock -n $D/u0/names echo locked
        flock -n $D/u0 echo locked; echo junk >$D/u0/names; rm -f $D/u0/names; mv $D/u0 $D/u1; true"#;
    let inner = "create /q 0666";
    let keep = "touch $MQNS_DIR/there; while ! [ -e $MQNS_DIR/done ]; do sleep 0.01; done";
    let name = state.path().display().to_string();
    let held = thread::spawn({
        let arguments = format!("{} '{inner}'; {keep}", program("trust").display());
        let dir = name.clone();
        move || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_mqns"));
            command.args(["run", "--ns", "ci", "sh", "-c", &arguments]);
            command.env("MQNS_DIR", dir).env("MQNS_LIB", harness::library()).output().expect("run mqns")
        }
    });
    while !state.path().join("there").exists() {
        assert!(!held.is_finished());
        thread::sleep(Duration::from_millis(5));
    }
    attack(&state, victim.path(), script);
    assert_eq!(fs::read_to_string(&spied).expect("it ran"), "");
    let output = mqns(&state, ATTACKER, &["ls", "--ns", "ci"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("none of yours has this name"), "{output:?}");
    let output = mqns(&state, 0, &["ls", "-nro", "NAME", "--ns", "ci"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "/q\n", "{output:?}");
    fs::write(state.path().join("done"), "").expect("let it go");
    assert!(held.join().expect("the run").status.success());
}

/// Root looks at names that users have made, and takes away those of the dead: whatever is in the file.
#[test]
fn root_reads_names_of_users_with_care() {
    if !root_or_skip() {
        return;
    }
    let record = r#"printf 'a\033[31m' | dd of=$N conv=notrunc 2>/dev/null"#;
    let others = [
        ("a name with escapes", record),
        ("a large file", "truncate -s 1T $N"),
        ("bytes", "head -c 200000 /dev/urandom >$N"),
    ];
    for (what, how) in KINDS.iter().chain(&others) {
        let (state, victim) = (StateDir::new(), Victim::new(0));
        let before = victim.picture();
        assert_eq!(ops(&state, &["create /first 0600"]), ["ok"]);
        let script = format!(
            "umask 0; N=$D/u{ATTACKER}/names; {} run --ns ci sh -c 'touch $D/there; while ! [ -e $D/done ]; do sleep 0.01; done' {} & \
            while ! [ -e $D/there ]; do sleep 0.01; done; {}; {how}; touch $D/ready; wait",
            env!("CARGO_BIN_EXE_mqns"),
            // Tells it from those of other tests.
            state.path().display(),
            if what.starts_with("a name") { ":" } else { "rm -f $N" },
        );
        let script = format!("export MQNS_DIR=$D MQNS_LIB={}; {script}", harness::library().display());
        let output = thread::scope(|scope| {
            let attack = scope.spawn(|| attack(&state, victim.path(), &script));
            while !state.path().join("ready").exists() {
                assert!(!attack.is_finished(), "{what}");
                thread::sleep(Duration::from_millis(5));
            }
            let output = mqns(&state, 0, &["lsns", "-nro", "USER,NAME,NS,NPROCS,PID,COMMAND"]);
            fs::write(state.path().join("done"), "").expect("let it go");
            output
        });
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let here = format!("\\x20{}", state.path().display());
        let lines: Vec<_> = said.lines().filter(|line| line.ends_with(&here)).collect();
        assert!(lines.len() == 1 && lines[0].starts_with(&format!("{ATTACKER} - ")), "{what}: {said}");
        let output = mqns(&state, 0, &["gc"]);
        assert!(output.status.success(), "{what}: {output:?}");
        assert_eq!(victim.picture(), before, "{what}");
    }
}
