//! `mqns doctor`: finds each of these problems, where there is one, and no other.

mod harness;

use harness::StateDir;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

const MQNS: &str = env!("CARGO_BIN_EXE_mqns");

/// A command with the library under test, away from any queues of others.
fn command(state: &StateDir, program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MQNS_") {
            command.env_remove(name);
        }
    }
    command.env_remove("LD_PRELOAD").env("MQNS_LIB", harness::library()).env("MQNS_DIR", state.path());
    command.stdin(Stdio::null());
    command
}

fn doctor(state: &StateDir, arguments: &[&str]) -> Command {
    let mut command = command(state, MQNS);
    command.args(["doctor", "--json"]).args(arguments);
    command
}

/// `STATE TOPIC: TEXT -> REMEDY` of each finding; the exit status says whether there is a problem.
#[track_caller]
fn findings(output: Output) -> Vec<String> {
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let all: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let text = |one: &Value, key: &str| one[key].as_str().map(str::to_string);
    let line = |one: &Value| {
        let [state, topic, said] = ["state", "topic", "text"].map(|key| text(one, key).expect("a text"));
        assert!(["ok", "note", "problem"].contains(&&*state));
        // What is not well has a remedy.
        assert_eq!(one["remedy"].is_null(), state == "ok", "{one}");
        let remedy = text(one, "remedy").unwrap_or_default();
        assert!(state == "ok" || !remedy.is_empty(), "{one}");
        format!("{state} {topic}: {said} -> {remedy}")
    };
    let lines: Vec<_> = all["findings"].as_array().expect("a list").iter().map(line).collect();
    let is_problem = |line: &String| line.starts_with("problem ");
    assert_eq!(output.status.code(), Some(i32::from(lines.iter().any(is_problem))), "{lines:?}");
    lines
}

#[track_caller]
fn finds(mut command: Command) -> Vec<String> {
    findings(command.output().expect("run mqns"))
}

/// There is one problem, which is this one.
#[track_caller]
fn problem(command: Command, parts: &[&str]) {
    let lines = finds(command);
    let problems: Vec<_> = lines.iter().filter(|line| line.starts_with("problem ")).collect();
    let [problem] = problems[..] else { panic!("{parts:?}: {lines:?}") };
    for part in parts {
        assert!(problem.contains(part), "{part:?} is not in {problem:?}");
    }
}

#[track_caller]
fn has(lines: &[String], state: &str, part: &str) {
    let is_it = |line: &&String| line.starts_with(&format!("{state} ")) && line.contains(part);
    assert!(lines.iter().any(|line| is_it(&line)), "{state} {part}: {lines:?}");
}

fn root_or_skip() -> bool {
    // SAFETY: no arguments.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

const SOMEBODY: &[&str] = &["setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups"];

/// `mqns doctor --json` as an ordinary user, who may run the tests' programs.
fn somebodys(state: &StateDir, arguments: &[&str]) -> Option<Command> {
    let can = root_or_skip() && {
        let mut probe = Command::new(SOMEBODY[0]);
        probe.args(&SOMEBODY[1..]).arg(harness::program("ns_probe")).env("LD_PRELOAD", harness::library());
        probe.output().is_ok_and(|o| o.status.success() && o.stderr.is_empty())
    };
    let mut command = command(state, SOMEBODY[0]);
    command.args(&SOMEBODY[1..]).arg(MQNS).args(["doctor", "--json"]).args(arguments);
    can.then_some(command)
}

/// In a mount namespace of its own, after this script, in which `$D` is the directory of the queues.
fn mounted(state: &StateDir, script: &str, arguments: &[&str]) -> Option<Command> {
    if !harness::may_mount() {
        eprintln!("skipped: cannot mount in a mount namespace of its own");
        return None;
    }
    let mut command = command(state, "unshare");
    let script = format!("set -e; {script}; exec \"$0\" doctor --json \"$@\"");
    command.args(["--mount", "sh", "-c", &script, MQNS]).args(arguments).env("D", state.path());
    Some(command)
}

/// A process that stays until this goes away; its id, and what it has printed first.
struct Staying(Child, String);

impl Staying {
    /// One that prints so many lines first.
    fn start(mut command: Command, lines: usize) -> Staying {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start it");
        let out = BufReader::new(child.stdout.as_mut().expect("a pipe"));
        let said: Vec<_> = out.lines().take(lines).map(|line| line.expect("a line")).collect();
        assert_eq!(said.len(), lines);
        Staying(child, said[0].clone())
    }

    /// One that prints nothing.
    fn silent(mut command: Command) -> Staying {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("start it");
        Staying(child, String::new())
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Staying {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn nothing_is_wrong() {
    let state = StateDir::new();
    let lines = finds(doctor(&state, &[]));
    assert!(lines.iter().all(|line| !line.starts_with("problem")), "{lines:?}");
    has(&lines, "ok", &format!("directory: {}: ", state.path().display()));
    has(&lines, "ok", &format!("library: {}, version {}; ", harness::library().display(), env!("CARGO_PKG_VERSION")));
    has(&lines, "ok", "limits: 0 of 256 queues");
    // For people.
    let output = command(&state, MQNS).arg("doctor").output().expect("run mqns");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let last = said.lines().last().expect("a line");
    assert!(last == "All is well." || last.starts_with("0 problems, "), "{said}");
    // A directory that is not there is not made.
    let new = state.path().join("new");
    let lines = finds(doctor(&state, &["--dir", new.to_str().expect("UTF-8")]));
    has(&lines, "ok", "new: not there yet; made when");
    assert!(!new.exists());
}

#[test]
fn kernel_without_queues_is_no_problem() {
    let state = StateDir::new();
    let mut launcher = command(&state, harness::program("nokernel").to_str().expect("UTF-8"));
    launcher.args([MQNS, "doctor", "--json"]);
    let lines = finds(launcher);
    has(&lines, "note", "kernel: has no message queues (Function not implemented): programs without the library");
    has(&lines, "note", "kernel: makes no IPC namespace here (Invalid argument): those of the library");
    has(&lines, "ok", "kernel: a seccomp filter is on; what sleepers need passes it");
}

#[test]
fn filters_that_forbid_what_sleepers_need() {
    let state = StateDir::new();
    let filtered = |error: i32| {
        let mut command = command(&state, harness::program("doctor_filter").to_str().expect("UTF-8"));
        command.args([&error.to_string(), MQNS, "doctor", "--json"]);
        command
    };
    for error in [libc::ENOSYS, libc::EPERM] {
        has(&finds(filtered(error)), "ok", "kernel: a seccomp filter is on; what sleepers need passes it");
    }
    problem(
        filtered(libc::EACCES),
        &["kernel: a seccomp filter refuses futex_waitv (Permission denied)", "ENOSYS or EPERM"],
    );
    problem(filtered(0), &["kernel: a seccomp filter refuses futex_waitv (who asks is killed)"]);
}

#[test]
fn proc_that_hides_processes_is_noted() {
    let state = StateDir::new();
    if somebodys(&state, &[]).is_none() || !harness::may_mount() {
        return;
    }
    let mut command = command(&state, "unshare");
    let script = "set -e; mount -t proc -o hidepid=2 proc /proc; exec \"$@\"";
    command
        .args(["--pid", "--fork", "--mount", "sh", "-c", script, "sh"])
        .args(SOMEBODY)
        .args([MQNS, "doctor", "--json"]);
    has(&finds(command), "note", "/proc hides processes of others (hidepid)");
}

#[test]
fn directories_that_cannot_be_used() {
    let state = StateDir::new();
    let file = state.path().join("file");
    fs::write(&file, "").expect("write");
    let dir = |path: &str| doctor(&state, &["--dir", path]);
    problem(dir(file.to_str().expect("UTF-8")), &["directory: ", "file: not a directory", "by --dir"]);
    problem(dir("/no/such/dir"), &["/no/such/dir: not there, and cannot be made in /no/such: No such file"]);
    let mut relative = doctor(&state, &[]);
    relative.env("MQNS_DIR", "queues");
    problem(relative, &["MQNS_DIR=queues is not an absolute path -> write it out"]);
    let mut limited = command(&state, "sh");
    limited.args(["-c", "ulimit -f 100; exec \"$0\" doctor --json", MQNS]);
    problem(limited, &["RLIMIT_FSIZE allows files of ", "raise the hard limit"]);
    // Others may replace what is there.
    let open = state.path().join("open");
    fs::create_dir(&open).expect("mkdir");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).expect("chmod");
    let lines = finds(dir(open.to_str().expect("UTF-8")));
    has(&lines, "note", "open: others may replace what is in it (mode 0777) -> chmod 1777");
}

#[test]
fn directories_of_others() {
    let state = StateDir::new();
    let closed = state.path().join("closed");
    fs::create_dir(&closed).expect("mkdir");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o755)).expect("chmod");
    let closed = closed.to_str().expect("UTF-8");
    let Some(command) = somebodys(&state, &["--dir", closed]) else { return };
    problem(command, &["directory: ", "closed: Permission denied"]);
    let plant =
        "mount -t tmpfs -o mode=1777 none /dev/shm; mkdir /dev/shm/mqns; chown 1234 /dev/shm/mqns; unset MQNS_DIR";
    let Some(mounted) = mounted(&state, plant, &[]) else { return };
    problem(mounted, &["/dev/shm/mqns is 1234's, not root's: it is not used -> remove it"]);
}

#[test]
fn file_systems_that_cannot_be_used() {
    let state = StateDir::new();
    let Some(command) = mounted(&state, "mount -t tmpfs -o ro none $D", &[]) else { return };
    problem(command, &["directory: ", "Read-only file system"]);
    for (options, parts) in [
        ("size=64k,mode=1777", ["full: 65536 of 65536 bytes are free", "make room"]),
        ("nr_inodes=8,mode=1777", ["full: 7 of 8 inodes are free", "make room"]),
    ] {
        let command = mounted(&state, &format!("mount -t tmpfs -o {options} none $D"), &[]).expect("as before");
        problem(command, &parts);
    }
    // Filled up.
    let fill = "mount -t tmpfs -o size=1m,mode=1777 none $D; head -c 1m /dev/zero >$D/filler || :";
    problem(mounted(&state, fill, &[]).expect("as before"), &["full: 0 of 1048576 bytes are free"]);
}

#[test]
fn libraries_that_cannot_be_used() {
    let state = StateDir::new();
    let with = |library: &str| {
        let mut command = doctor(&state, &[]);
        command.env("MQNS_LIB", library);
        command
    };
    problem(with("/no/such/libmqns.so"), &["library: /no/such/libmqns.so: No such file", "set MQNS_LIB"]);
    let text = state.path().join("libmqns.so");
    fs::write(&text, "text").expect("write");
    problem(with(text.to_str().expect("UTF-8")), &["libmqns.so: not a shared library"]);
    // Another library altogether.
    let maps = fs::read_to_string("/proc/self/maps").expect("maps");
    let libc = maps.split_whitespace().find(|word| word.ends_with("/libc.so.6")).expect("libc");
    problem(with(libc), &["library: ", "the loader has not preloaded libmqns.so into it", "of this version"]);
    let script = "mkdir -p $D/lib; mount -t tmpfs -o noexec none $D/lib; cp $MQNS_LIB $D/lib/libmqns.so; export MQNS_LIB=$D/lib/libmqns.so";
    let Some(command) = mounted(&state, script, &[]) else { return };
    problem(command, &["library: ", "on a file system without execution (noexec)", "set MQNS_LIB"]);
}

#[test]
fn library_that_others_cannot_read() {
    let state = StateDir::new();
    let library = state.path().join("libmqns.so");
    fs::copy(harness::library(), &library).expect("copy");
    fs::set_permissions(&library, fs::Permissions::from_mode(0o700)).expect("chmod");
    let mut command = doctor(&state, &[]);
    command.env("MQNS_LIB", &library);
    has(&finds(command), "note", "cannot be read by all users");
}

#[test]
fn settings_that_mean_nothing() {
    let state = StateDir::new();
    for name in ["MQNS_LIMITS", "MQNS_PRIVILEGES", "MQNS_POLL"] {
        let mut command = doctor(&state, &[]);
        command.env(name, "generos");
        problem(command, &["settings: ", &format!("{name}=generos means nothing, and counts as "), "set it to "]);
        let mut run = command_of(&state, name);
        run.args(["run", "sh", "-c", "echo; read x"]);
        let staying = Staying::start(run, 1);
        problem(doctor(&state, &[&staying.pid()]), &["process: ", "=generos means nothing"]);
    }
}

/// `mqns` with a variable that is misspelt.
fn command_of(state: &StateDir, name: &str) -> Command {
    let mut command = command(state, MQNS);
    command.env(name, "generos");
    command
}

/// Makes default queues, as many as there is room for under RLIMIT_MSGQUEUE.
fn fill(state: &StateDir, queues: usize) {
    for n in 0..queues {
        let output = command(state, MQNS).args(["mk", &format!("/q{n}")]).output().expect("run mqns");
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn limits_say_who_else_is_charged() {
    let state = StateDir::new();
    if somebodys(&state, &[]).is_none() {
        return;
    }
    fill(&state, 1);
    let command = somebodys(&state, &[]).expect("as before");
    has(
        &finds(command),
        "ok",
        "limits: RLIMIT_MSGQUEUE: 0 of 819200 bytes are charged to 12345, a default queue takes 82880 (others: root 82880)",
    );
}

#[test]
fn limits_that_are_reached() {
    let state = StateDir::new();
    let limited = |arguments: &str| {
        let mut sh = command(&state, "bash");
        sh.args(["-c", &format!("ulimit -q 200000; exec \"$0\" doctor --json {arguments}"), MQNS]);
        sh
    };
    fill(&state, 1);
    let lines = finds(limited(""));
    has(&lines, "ok", "limits: RLIMIT_MSGQUEUE: 82880 of 200000 bytes are charged to ");
    let output = command(&state, MQNS).args(["mk", "/second"]).output().expect("run mqns");
    assert!(output.status.success());
    problem(
        limited(""),
        &[
            "limits: RLIMIT_MSGQUEUE: 165760 of 200000 bytes",
            "a default queue takes 82880: mq_open is EMFILE",
            "mqns rm",
        ],
    );
    // It is the limit of the process that counts.
    let mut sh = command(&state, "bash");
    sh.args(["-c", "ulimit -q 170000; exec \"$0\" run sh -c 'echo; read x'", MQNS]);
    let limited_one = Staying::start(sh, 1);
    problem(doctor(&state, &[&limited_one.pid()]), &["165760 of 170000 bytes are charged to", "EMFILE"]);
    let mut generous = limited("");
    generous.env("MQNS_LIMITS", "generous");
    has(&finds(generous), "ok", "limits: MQNS_LIMITS=generous");
    let mut set = command(&state, MQNS);
    let output = set.args(["limits", "--privileges", "generous", "queues_max=2"]).output().expect("run mqns");
    assert!(output.status.success(), "{output:?}");
    problem(doctor(&state, &[]), &["limits: 2 queues, and queues_max is 2: mq_open is ENOSPC", "mqns limits"]);
}

#[test]
fn files_of_another_version() {
    let of_version = |file: &str, at: usize| {
        let state = StateDir::new();
        fill(&state, 1);
        let files = state.files();
        let is_it = |path: &&Path| path.to_string_lossy().ends_with(file);
        let found = files.iter().map(|(path, ..)| path.as_path()).find(is_it).unwrap_or_else(|| panic!("no {file}"));
        let path = state.path().join(found);
        let mut bytes = fs::read(&path).expect("read");
        bytes[at] ^= 0x7f;
        // In place: others may have it open.
        fs::write(&path, bytes).expect("write");
        problem(doctor(&state, &[]), &["directory: ", file, "of another version of the library", "remove"]);
    };
    of_version("accounts", 7);
    of_version("control", 7);
    of_version(".s", 8);
}

/// The process with that id runs without the library, and why.
#[track_caller]
fn without(state: &StateDir, pid: &str, parts: &[&str]) {
    problem(doctor(state, &[pid]), &[&["process: ", pid, "runs without the library: "], parts].concat());
}

fn cat(state: &StateDir) -> Command {
    command(state, "cat")
}

#[test]
fn processes_without_the_library() {
    let state = StateDir::new();
    let plain = Staying::silent(cat(&state));
    without(&state, &plain.pid(), &["it was started without LD_PRELOAD -> start it by `mqns run`"]);
    // Its environment was cleaned.
    let mut cleaned = command(&state, MQNS);
    cleaned.args(["run", "sh", "-c", "exec 3<&0; env -i cat <&3 & echo $!; wait"]);
    let cleaned = Staying::start(cleaned, 1);
    let parent = cleaned.pid();
    without(&state, &cleaned.1, &["LD_PRELOAD was taken out of its environment", &format!("process {parent} above")]);
    // The library was not there.
    let mut missing = command(&state, "env");
    missing.args(["LD_PRELOAD=/no/such/libmqns.so", "sh", "-c", "echo; read x"]).stderr(Stdio::null());
    let missing = Staying::start(missing, 1);
    without(&state, &missing.pid(), &["LD_PRELOAD names it, but the loader did not find it"]);
    // Statically linked.
    let program = harness::program("doctor_static");
    let fixed = Staying::start(command(&state, program.to_str().expect("UTF-8")), 1);
    without(&state, &fixed.pid(), &["doctor_static) ", "it is statically linked -> link it dynamically"]);
}

#[test]
fn process_that_has_gained_privilege() {
    let state = StateDir::new();
    if somebodys(&state, &[]).is_none() {
        return;
    }
    // Not in /dev/shm, which is often mounted nosuid.
    let dir = std::env::temp_dir().join(format!("mqns-test-doctor-{}", std::process::id()));
    fs::create_dir(&dir).expect("mkdir");
    let program = dir.join("cat");
    let copied = Command::new("cp").args(["-L", "/bin/cat"]).arg(&program).status();
    assert!(copied.expect("run cp").success());
    chown(&program, Some(1234), Some(1234)).expect("chown");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).expect("chmod");
    let mut start = command(&state, SOMEBODY[0]);
    start
        .args(&SOMEBODY[1..])
        .arg(MQNS)
        .args(["run", "sh", "-c", "exec 3<&0; \"$0\" <&3 & echo $!; wait"])
        .arg(&program);
    let staying = Staying::start(start, 1);
    without(&state, &staying.1, &["it has gained privilege when it was started (set-user-ID", "run it as that user"]);
    fs::remove_dir_all(&dir).expect("clean up");
}

#[test]
fn processes_of_others_and_none() {
    let state = StateDir::new();
    let plain = Staying::silent(cat(&state));
    if let Some(command) = somebodys(&state, &[&plain.pid()]) {
        problem(command, &["process: ", "may not be looked into: Permission denied -> ask as root"]);
    }
    let output = doctor(&state, &["4194304"]).output().expect("run mqns");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125));
    assert!(said.starts_with("mqns: process 4194304: no such process; "), "{said}");
}

#[test]
fn process_with_the_library() {
    let state = StateDir::new();
    let probe = harness::program("ns_probe");
    let library = state.path().join("libmqns.so");
    fs::copy(harness::library(), &library).expect("copy");
    let mut run = command(&state, MQNS);
    run.args(["run", "--ns", "ci", "--poll", "always"]).arg(&probe).args(["create /jobs x", "keep /jobs", "hold"]);
    run.env("MQNS_LIB", &library);
    let staying = Staying::start(run, 3);
    let lines = finds(doctor(&state, &[&staying.pid()]));
    assert!(lines.iter().all(|line| !line.starts_with("problem")), "{lines:?}");
    has(&lines, "ok", &format!("has the library: {}", library.display()));
    has(&lines, "ok", "its settings: ");
    has(&lines, "ok", "MQNS_POLL=always");
    has(&lines, "ok", "with the name ci");
    has(&lines, "ok", "it has open: /jobs");
    has(&lines, "ok", "limits: 1 of 256 queues");
    // By another directory in the environment as well.
    has(&finds(doctor(&StateDir::new(), &[&staying.pid()])), "ok", "it has open: /jobs");
    fs::remove_file(&library).expect("rm");
    has(&finds(doctor(&state, &[&staying.pid()])), "note", "has a library that has been replaced meanwhile");
}
