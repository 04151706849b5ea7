//! Namespaces for tests and by names: `mqns run --fresh`, `mqns run --ns NAME`, `--ns NAME` of the other commands, and
//! the tree of `mqns lsns`. For the command the kernel has neither queues nor IPC namespaces.

mod harness;

use harness::StateDir;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

const MQNS: &str = env!("CARGO_BIN_EXE_mqns");

/// `mqns ARGUMENTS…` as that user, with the library under test, away from any queues of others.
fn mqns(state: &StateDir, user: &[&str], arguments: &[&str]) -> Command {
    let mut command = Command::new(harness::program("nokernel"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MQNS_") {
            command.env_remove(name);
        }
    }
    command.env_remove("LD_PRELOAD").env("MQNS_LIB", harness::library()).env("MQNS_DIR", state.path());
    command.args(user).arg(MQNS).args(arguments).stdin(Stdio::null());
    command
}

fn output(state: &StateDir, arguments: &[&str]) -> Output {
    mqns(state, &[], arguments).output().expect("run mqns")
}

/// What it prints; nothing is wrong.
#[track_caller]
fn says(state: &StateDir, arguments: &[&str]) -> String {
    ok(output(state, arguments))
}

#[track_caller]
fn ok(output: Output) -> String {
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// It fails by itself, with one line that has all these parts.
#[track_caller]
fn refuses(output: &Output, parts: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(125), 0), "{output:?}");
    assert!(said.starts_with("mqns: ") && said.lines().count() == 1 && said.contains("; "), "{said:?}");
    for part in parts {
        assert!(said.contains(part), "{part:?} is not in {said:?}");
    }
}

const SOMEBODY: &[&str] = &["setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups"];

/// An ordinary user, who may run the tests' programs.
fn somebody_or_skip() -> Option<&'static [&'static str]> {
    // SAFETY: no arguments.
    if unsafe { libc::geteuid() } != 0 {
        return Some(&[]);
    }
    let mut setpriv = Command::new(SOMEBODY[0]);
    setpriv.args(&SOMEBODY[1..]).arg(harness::program("ns_probe")).env("LD_PRELOAD", harness::library());
    let can = setpriv.output().is_ok_and(|o| o.status.success() && o.stderr.is_empty());
    if !can {
        eprintln!("skipped: needs a build directory that is open to other users");
    }
    can.then_some(SOMEBODY)
}

fn probe() -> String {
    harness::program("ns_probe").display().to_string()
}

/// What is left in the users' directories, but for the files of names.
fn left(state: &StateDir) -> Vec<String> {
    let list = |dir: &Path| fs::read_dir(dir).expect("list").flatten().map(|e| e.path()).collect::<Vec<_>>();
    let is_of_user = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('u'));
    let users = list(state.path()).into_iter().filter(|path| is_of_user(path));
    let inside = users.flat_map(|user| list(&user)).filter(|path| !path.ends_with("names"));
    inside.map(|path| path.display().to_string()).collect()
}

/// How many names users have.
fn names(state: &StateDir) -> usize {
    let files = state.files().into_iter().filter(|(path, ..)| path.ends_with("names"));
    let records = files.map(|(path, ..)| fs::read(state.path().join(path)).expect("read"));
    records.map(|bytes| bytes.chunks(128).filter(|record| record[0] != 0).count()).sum()
}

/// A command that stays until its standard input ends.
struct Held {
    child: Child,
    _out: BufReader<ChildStdout>,
}

impl Held {
    /// `mqns ARGUMENTS… ns_probe OPERATIONS… hold`; all of them succeed.
    fn start(state: &StateDir, user: &[&str], arguments: &[&str], operations: &[&str]) -> Held {
        let mut command = mqns(state, user, arguments);
        command.arg(probe()).args(operations).arg("hold").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("run mqns");
        let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
        for _ in 0..=operations.len() {
            let mut line = String::new();
            out.read_line(&mut line).expect("read a line");
            assert_eq!(line, "ok\n", "{operations:?}");
        }
        Held { child, _out: out }
    }

    fn pid(&self) -> String {
        self.child.id().to_string()
    }

    fn end(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().expect("wait").success());
    }

    fn kill(mut self) {
        self.child.kill().expect("kill");
        assert_eq!(self.child.wait().expect("wait").signal(), Some(libc::SIGKILL));
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn fresh_takes_no_privilege_and_gives_none() {
    let Some(user) = somebody_or_skip() else { return };
    let state = StateDir::new();
    for (how, privileges, inside) in
        [("--fresh", "exact", "EPERM"), ("--ipc", "exact", "EPERM"), ("--fresh", "generous", "ok")]
    {
        let arguments = ["run", how, "--privileges", privileges, &probe(), "peek /q", "create /q x", "unshare"];
        let said = ok(mqns(&state, user, &arguments).output().expect("run mqns"));
        assert_eq!(said, format!("ENOENT\nok\n{inside}\n"), "{how} {privileges}");
    }
    // What the variable was it stays, in the command as well.
    let show = ["run", "--fresh", "sh", "-c", "echo ${MQNS_PRIVILEGES-unset}"];
    assert_eq!(ok(mqns(&state, user, &show).output().expect("run mqns")), "unset\n");
    let show = mqns(&state, user, &show).env("MQNS_PRIVILEGES", "exact").output().expect("run mqns");
    assert_eq!(ok(show), "exact\n");
    assert_eq!(left(&state), [""; 0]);
}

#[test]
fn fresh_ends_with_all_that_was_started_whoever_is_killed() {
    let state = StateDir::new();
    // The command is killed; its child has the queue still, and ends a little later.
    let script = format!("'{}' 'create /q x' 'keep /q' hold & wait", probe());
    let mut command =
        mqns(&state, &[], &["run", "--fresh", "sh", "-c", &format!("exec 3<&0; {}", script.replace('&', "<&3 &"))]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("run mqns");
    let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
    for _ in 0..3 {
        out.read_line(&mut String::new()).expect("read a line");
    }
    let gate = child.stdin.take();
    child.kill().expect("kill");
    child.wait().expect("wait");
    assert_eq!(left(&state).len(), 1);
    assert_eq!(says(&state, &["gc"]), "ended 0 namespaces that had no process left\n");
    drop(gate);
    // The end of the pipe is that of the process.
    std::io::copy(&mut out, &mut std::io::sink()).expect("read");
    assert_eq!(left(&state), [""; 0]);
    // The only process is killed: the next look takes all away.
    Held::start(&state, &[], &["run", "--fresh"], &["create /q x", "keep /q"]).kill();
    assert_eq!(left(&state).len(), 1);
    says(&state, &["run", "--fresh", "true"]);
    assert_eq!(left(&state), [""; 0]);
}

#[test]
fn named_namespace_is_made_once_and_gone_with_its_last_process() {
    let Some(user) = somebody_or_skip() else { return };
    let state = StateDir::new();
    let says = |arguments: &[&str]| ok(mqns(&state, user, arguments).output().expect("run mqns"));
    let held = Held::start(&state, user, &["run", "--ns", "ci"], &["create /q inner"]);
    assert_eq!(says(&["run", "--ns", "ci", &probe(), "peek /q"]), "inner\n");
    assert_eq!(says(&["run", &probe(), "peek /q"]), "ENOENT\n");
    assert_eq!(says(&["run", "--ns", "other", &probe(), "peek /q"]), "ENOENT\n");
    assert_eq!((left(&state).len(), names(&state)), (1, 1));
    let second = Held::start(&state, user, &["run", "--ns", "ci"], &[]);
    held.end();
    assert_eq!(says(&["run", "--ns", "ci", &probe(), "peek /q"]), "inner\n");
    // Killed: it has ended all the same, and the next begins anew.
    second.kill();
    assert_eq!(says(&["run", "--ns", "ci", &probe(), "peek /q"]), "ENOENT\n");
    assert_eq!((left(&state).len(), names(&state)), (0, 0));
    Held::start(&state, user, &["run", "--ns", "ci"], &["create /q x", "keep /q"]).kill();
    let parts = ["namespace ci: none of yours has this name; ", "mqns run --ns NAME"];
    refuses(&mqns(&state, user, &["ls", "--ns", "ci"]).output().expect("run mqns"), &parts);
    assert_eq!((left(&state).len(), names(&state)), (0, 0));
    Held::start(&state, user, &["run", "--ns", "ci"], &["create /q x", "keep /q"]).kill();
    assert_eq!(says(&["gc"]), "ended 1 namespace that had no process left\n");
    assert_eq!((left(&state).len(), names(&state)), (0, 0));
}

#[test]
fn queue_that_outlives_a_namespace_does_not_keep_its_name() {
    let state = StateDir::new();
    // A process of another namespace has a queue of it open.
    let script = format!("'{MQNS}' run --ns ci '{0}' 'create /q old' && '{MQNS}' lsns -nro NAME", probe());
    let keeper = ["run", "--ns", "ci", &probe(), "create /q old", "keep /q", "unshare", "create /p x", "hold"];
    let mut command = mqns(&state, &[], &keeper);
    let mut child =
        command.env("MQNS_PRIVILEGES", "generous").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("run");
    let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
    for _ in 0..5 {
        let mut line = String::new();
        out.read_line(&mut line).expect("read a line");
        assert_eq!(line, "ok\n");
    }
    assert_eq!(names(&state), 0);
    assert_eq!(says(&state, &["run", "--ns", "ci", &probe(), "peek /q"]), "ENOENT\n");
    assert!(says(&state, &["run", "sh", "-c", &script]).starts_with("ok\n"));
    drop(child.stdin.take());
    assert!(child.wait().expect("wait").success());
    assert_eq!((left(&state).len(), names(&state)), (0, 0));
}

#[test]
fn two_who_name_it_at_once_are_in_one_namespace() {
    let state = StateDir::new();
    const AT_ONCE: usize = 6;
    for round in 0..10 {
        let name = if round % 2 == 0 { "same".to_string() } else { format!("round{round}") };
        // Each stays until all have said where they are.
        let start = |_| {
            let script = "readlink /proc/self/ns/ipc; read x";
            let mut command = mqns(&state, &[], &["run", "--ns", &name, "sh", "-c", script]);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("run mqns")
        };
        let mut children: Vec<Child> = (0..AT_ONCE).map(start).collect();
        let mut links = BTreeSet::new();
        for child in &mut children {
            let mut line = String::new();
            BufReader::new(child.stdout.as_mut().expect("a pipe")).read_line(&mut line).expect("read a line");
            assert!(line.starts_with("ipc:["), "{line:?}");
            links.insert(line);
        }
        assert_eq!(links.len(), 1, "{links:?}");
        for mut child in children {
            drop(child.stdin.take());
            child.wait().expect("wait");
        }
        assert_eq!((left(&state).len(), names(&state)), (0, 0));
    }
}

/// Killed at any moment, of making, joining and leaving.
#[test]
fn killed_makers_and_joiners_of_names_leave_nothing_that_gc_does_not_take() {
    let state = StateDir::new();
    let start = Instant::now();
    for round in 0..60u64 {
        let children: Vec<_> =
            (0..3).map(|_| mqns(&state, &[], &["run", "--ns", "k", "true"]).spawn().expect("run")).collect();
        let until = Duration::from_micros(round * 331 % 12_000);
        std::thread::sleep(until);
        for mut child in children {
            let _ = child.kill();
            child.wait().expect("wait");
        }
        // Nobody is kept waiting, or in a namespace of the dead.
        assert_eq!(says(&state, &["run", "--ns", "k", &probe(), "peek /q", "create /q x"]), "ENOENT\nok\n");
    }
    says(&state, &["gc"]);
    assert_eq!((left(&state).len(), names(&state)), (0, 0), "after {:?}", start.elapsed());
}

#[test]
fn names_go_wherever_numbers_do() {
    let state = StateDir::new();
    let held = Held::start(&state, &[], &["run", "--ns", "ci"], &["create /q inner"]);
    let says = |arguments: &[&str]| says(&state, arguments);
    let ns = ["--ns", "ci"];
    let with = |arguments: &[&str]| says(&[arguments, &ns].concat());
    assert_eq!(with(&["ls", "-nro", "NAME,MSGS"]), "/q 1\n");
    assert!(with(&["stat", "/q"]).starts_with("Queue      /q\n"));
    assert!(with(&["stat", "--prometheus"]).contains("mqns_queue_messages{queue=\"/q\"} 1\n"));
    assert_eq!(with(&["mk", "/more"]) + &with(&["send", "/more", "y"]) + &with(&["peek", "--text", "/more"]), "y\n");
    assert_eq!(with(&["recv", "/more"]), "y\n");
    assert_eq!(with(&["purge", "/more"]), "/more: took away 0 messages\n");
    assert_eq!(with(&["limits", "msg_max=12"]) + &with(&["limits", "msg_max"]), "12\n");
    with(&["rm", "/more"]);
    assert_eq!(says(&["enter", "--ns", "ci", "--", &probe(), "peek /q"]), "inner\n");
    // And all the others wherever a name does.
    let number = says(&["lsns", "-nro", "NS,NAME"]);
    let number = number.lines().find_map(|line| line.strip_suffix(" ci")).expect("listed").to_string();
    for ns in [held.pid(), format!("/proc/{}/ns/ipc", held.pid()), number] {
        assert_eq!(says(&["run", "--ns", &ns, &probe(), "peek /q"]), "inner\n", "{ns}");
        assert_eq!(says(&["enter", "--ns", &ns, &probe(), "peek /q"]), "inner\n", "{ns}");
    }
    if harness::may_mount() {
        let dir = StateDir::new();
        let script = r#""$0" mount --ns ci "$1" && ls "$1""#;
        let mut command = Command::new("unshare");
        let there = mqns(&state, &[], &[]);
        command
            .args(["--mount", "sh", "-c", script, MQNS])
            .arg(dir.path())
            .envs(there.get_envs().filter_map(|(n, v)| Some((n, v?))));
        assert_eq!(ok(command.output().expect("run unshare")), "q\n");
    }
    held.end();
    for arguments in [&["ls"][..], &["mk", "/q"], &["limits"]] {
        refuses(&output(&state, &[arguments, &ns].concat()), &["namespace ci: none of yours has this name; "]);
    }
    refuses(&output(&state, &["enter", "--ns", "ci", "true"]), &["namespace ci: none of yours"]);
    // What is no name is a file.
    refuses(&output(&state, &["ls", "--ns", "4x"]), &["namespace 4x: no such file; --ns takes a name or number"]);
    refuses(&output(&state, &["run", "--ns", "./ci", "true"]), &["namespace ./ci: no such file; --ns takes a name"]);
    assert_eq!((left(&state).len(), names(&state)), (0, 0));
}

#[test]
fn names_are_a_users_own() {
    let Some(user) = somebody_or_skip().filter(|user| !user.is_empty()) else { return };
    let state = StateDir::new();
    let roots = Held::start(&state, &[], &["run", "--ns", "ci"], &["create /q root"]);
    let users = Held::start(&state, user, &["run", "--ns", "ci"], &["create /q user"]);
    assert_eq!(ok(mqns(&state, user, &["run", "--ns", "ci", &probe(), "peek /q"]).output().expect("run")), "user\n");
    assert_eq!(says(&state, &["run", "--ns", "ci", &probe(), "peek /q"]), "root\n");
    // Root sees both.
    let listed = says(&state, &["lsns", "-nro", "USER,NAME"]);
    assert_eq!(listed.lines().filter(|line| line.ends_with(" ci")).count(), 2, "{listed}");
    let listed = ok(mqns(&state, user, &["lsns", "-nro", "NAME"]).output().expect("run"));
    assert_eq!(listed.lines().filter(|line| *line == "ci").count(), 1, "{listed}");
    users.kill();
    // Root clears up for all.
    assert_eq!(says(&state, &["gc"]), "ended 1 namespace that had no process left\n");
    assert_eq!(names(&state), 1);
    roots.end();
    assert_eq!((left(&state).len(), names(&state)), (0, 0));
}

#[test]
fn names_do_not_depend_on_the_umask() {
    let Some(user) = somebody_or_skip() else { return };
    let state = StateDir::new();
    let script = format!("umask 777; '{MQNS}' run --ns a '{MQNS}' run --ns b true && '{MQNS}' run --ns a true");
    let mut command = mqns(&state, user, &["run", "sh", "-c", &script]);
    assert_eq!(ok(command.output().expect("run mqns")), "");
    let files = state.files();
    let file = files.iter().find(|(path, ..)| path.ends_with("names")).expect("names");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(state.path().join(&file.0)).expect("stat").permissions());
    assert_eq!(mode & 0o7777, 0o600);
    assert_eq!((left(&state).len(), names(&state)), (0, 0));
}

#[test]
fn many_names_at_a_time_and_one_too_many() {
    let state = StateDir::new();
    says(&state, &["run", "--ns", "first", "true"]);
    let file =
        state.path().join(state.files().into_iter().find(|(path, ..)| path.ends_with("names")).expect("names").0);
    let held = Held::start(&state, &[], &["run", "--ns", "live"], &["create /q x"]);
    // As many as there can be, all of them in the one that lives; and words that are none.
    let record = fs::read(&file).expect("read");
    assert_eq!(record.len(), 128);
    let many: Vec<u8> = (0..1023)
        .flat_map(|n| {
            let mut record = record.clone();
            record[..64].fill(0);
            record[..6].copy_from_slice(format!("n{n:05}").as_bytes());
            record
        })
        .collect();
    fs::write(&file, [&record[..], &many].concat()).expect("write");
    assert_eq!(says(&state, &["run", "--ns", "n01022", &probe(), "peek /q"]), "x\n");
    refuses(&output(&state, &["run", "--ns", "more", "true"]), &["namespace more: 1024 of yours have names already; "]);
    fs::write(&file, [&[0xff; 128 * 3 + 5][..], &record].concat()).expect("write");
    let second = Held::start(&state, &[], &["run", "--ns", "live"], &["peek /q"][..0]);
    second.end();
    held.end();
    assert_eq!(left(&state).len(), 0);
}

#[test]
fn tree_shows_where_namespaces_come_from() {
    let state = StateDir::new();
    // `outer` has two children, of which one has one of its own. All stay until standard input ends.
    let run = |name: &str, then: &str| format!("'{MQNS}' run --ns {name} sh -c '{then}' <&3 &");
    let held = "echo ready; read x";
    let first = run("first", &format!("{MQNS} run --ns inner sh -c \"{held}\"; :"));
    let script = format!("exec 3<&0; {first} {} wait", run("second", held));
    let mut command = mqns(&state, &[], &["run", "--ns", "outer", "sh", "-c", &script]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("run mqns");
    let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
    for _ in 0..2 {
        let mut line = String::new();
        out.read_line(&mut line).expect("read a line");
        assert_eq!(line, "ready\n");
    }
    let flat = says(&state, &["lsns", "-nro", "NS,NAME"]);
    let number = |name: &str| -> u64 {
        let of = |line: &str| line.strip_suffix(&format!(" {name}"))?.parse().ok();
        flat.lines().find_map(of).unwrap_or_else(|| panic!("{name}: {flat}"))
    };
    let [outer, first, inner, second] = ["outer", "first", "inner", "second"].map(number);
    // Those below `outer`, from the column of its number on.
    let shown = |arguments: &[&str]| -> Vec<String> {
        let text = says(&state, arguments).replace("\\x20", " ");
        let mut lines = text.lines().skip_while(|line| !line.ends_with(" outer"));
        let own = lines.next().expect("listed");
        let indent = own.chars().position(|c| c.is_ascii_digit()).expect("its number");
        assert!(own.chars().take(indent).any(|c| c != ' '), "not below the namespace of the test: {text}");
        lines.take(3).map(|line| line.chars().skip(indent).collect()).collect()
    };
    for (options, [branch, end, below]) in [("-nT", ["├─", "└─", "│ "]), ("-nTr", ["|-", "`-", "| "])] {
        let line = |art: &str, number: u64, name: &str| (format!("{art}{number}"), name.to_string());
        let wanted = if first < second {
            let inner = line(&format!("{below}{end}"), inner, "inner");
            [line(branch, first, "first"), inner, line(end, second, "second")]
        } else {
            let inner = line(&format!("  {end}"), inner, "inner");
            [line(branch, second, "second"), line(end, first, "first"), inner]
        };
        let shown = shown(&["lsns", options, "-o", "NS,NAME"]);
        let halves = shown.iter().filter_map(|line| line.rsplit_once(' '));
        let halves: Vec<_> = halves.map(|(left, name)| (left.trim_end().to_string(), name.to_string())).collect();
        assert_eq!(halves, wanted, "{shown:?}");
    }

    fn find(list: &Value, ns: u64) -> Option<&Value> {
        let below = |entry| -> Option<&Value> { find(Value::get(entry, "children")?, ns) };
        list.as_array()?.iter().find_map(|entry| if entry["ns"] == ns { Some(entry) } else { below(entry) })
    }
    let json: Value = serde_json::from_str(&says(&state, &["lsns", "-TJ", "-o", "NS,NAME"])).expect("JSON");
    let mut below = [
        json!({ "ns": first, "name": "first", "children": [{ "ns": inner, "name": "inner" }] }),
        json!({ "ns": second, "name": "second" }),
    ];
    below.sort_by_key(|entry| entry["ns"].as_u64());
    assert_eq!(find(&json["namespaces"], outer).expect("listed")["children"], json!(below));
    drop(child.stdin.take());
    child.wait().expect("wait");
}
