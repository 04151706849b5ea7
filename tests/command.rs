//! The command `mqns`: what it starts, what it refuses to start and why, its exit status; the namespaces
//! that it makes, enters, lists, mounts and ends.

mod harness;

use harness::StateDir;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::FromRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

/// `mqns` with the library under test, away from any queues of others.
fn mqns(state: &StateDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mqns"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MQNS_") {
            command.env_remove(name);
        }
    }
    command.env_remove("LD_PRELOAD").env_remove("ASAN_OPTIONS");
    command.env("MQNS_LIB", harness::library()).env("MQNS_DIR", state.path()).stdin(Stdio::null());
    command
}

fn run(state: &StateDir, arguments: &[&str]) -> Output {
    mqns(state).arg("run").args(arguments).output().expect("run mqns")
}

fn out(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).expect("UTF-8")
}

fn err(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).expect("UTF-8")
}

/// It ran nothing, for this reason: the message is one line with all these parts.
#[track_caller]
fn refuses(output: &Output, status: i32, parts: &[&str]) {
    assert_eq!(output.status.code(), Some(status), "{output:?}");
    assert_eq!(out(output), "");
    let said = err(output);
    assert!(said.starts_with("mqns: ") && said.lines().count() == 1 && said.contains("; "), "{said:?}");
    for part in parts {
        assert!(said.contains(part), "{part:?} is not in {said:?}");
    }
}

fn probe() -> String {
    path(harness::program("command_probe"))
}

fn path(path: PathBuf) -> String {
    path.into_os_string().into_string().expect("a path in UTF-8")
}

/// By another process: a child that another thread makes meanwhile must not have a file open for writing
/// that is to be executed (ETXTBSY).
fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg(from).arg(to).status().expect("run cp").success());
}

fn write(dir: &Path, name: &str, content: &[u8], mode: u32) -> String {
    let file = dir.join(name);
    let draft = dir.join(format!("{name}.draft"));
    fs::write(&draft, content).expect("write a file");
    copy(&draft, &file);
    fs::remove_file(&draft).expect("remove a file");
    fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("chmod");
    path(file)
}

fn is_root() -> bool {
    // SAFETY: no arguments.
    unsafe { libc::geteuid() == 0 }
}

// What it starts.

#[test]
fn runs_a_program_on_the_librarys_queues() {
    let state = StateDir::new();
    let output = run(&state, &["--", &probe(), "queue"]);
    assert_eq!((output.status.code(), out(&output), err(&output)), (Some(0), "through a queue\n", ""));
    assert!(!state.files().is_empty(), "no state of the library");
    // Without `--`, and found in PATH, and by a relative path.
    let binaries = harness::binaries();
    let mut command = mqns(&state);
    command.args(["run", "command_probe", "queue"]).env("PATH", &binaries);
    assert_eq!(out(&command.output().expect("run mqns")), "through a queue\n");
    let mut command = mqns(&state);
    command.args(["run", "./command_probe", "queue"]).current_dir(&binaries);
    assert_eq!(out(&command.output().expect("run mqns")), "through a queue\n");
}

#[test]
fn runs_scripts_and_what_they_start() {
    let dir = StateDir::new();
    let state = StateDir::new();
    let scripts = [
        ("sh", format!("#!/bin/sh\nexec '{}' \"$@\"\n", probe())),
        ("env", format!("#!/usr/bin/env sh\n'{}' \"$@\"\n", probe())),
        ("env-split", format!("#!/usr/bin/env -S A=1 sh -e\n'{}' \"$@\"\n", probe())),
        ("bare", format!("'{}' \"$@\"\n", probe())),
    ];
    for (name, text) in scripts {
        let script = write(dir.path(), name, text.as_bytes(), 0o755);
        let output = run(&state, &[&script, "queue"]);
        assert_eq!((out(&output), err(&output)), ("through a queue\n", ""), "{name}");
    }
}

#[test]
fn exit_status_and_signals_are_the_commands() {
    let state = StateDir::new();
    for status in [0, 1, 2, 77, 125, 126, 127, 255] {
        let output = run(&state, &["sh", "-c", &format!("exit {status}")]);
        assert_eq!(output.status.code(), Some(status));
    }
    for signal in ["TERM", "KILL", "PIPE"] {
        let output = run(&state, &["sh", "-c", &format!("kill -{signal} $$")]);
        let number = output.status.signal().expect("ended by a signal");
        assert_eq!(number, [("TERM", 15), ("KILL", 9), ("PIPE", 13)].iter().find(|s| s.0 == signal).expect("known").1);
    }
    // It is the same process: a signal for mqns reaches the command.
    let mut command = mqns(&state);
    let child = command.args(["run", "sh", "-c", "echo $$"]).stdout(Stdio::piped()).spawn().expect("run mqns");
    let pid = child.id();
    assert_eq!(out(&child.wait_with_output().expect("wait")), format!("{pid}\n"));
}

#[test]
fn signals_and_descriptors_are_handed_on_as_they_are() {
    let state = StateDir::new();
    let library = harness::library().display().to_string();
    let run = |change: fn()| {
        let mut command = mqns(&state);
        command.args(["run", &probe(), "state"]);
        // SAFETY: system calls only.
        unsafe {
            command.pre_exec(move || {
                // Whatever the test runner has handed on.
                libc::close_range(3, u32::MAX, 0);
                change();
                Ok(())
            })
        };
        out(&command.output().expect("run mqns")).to_string()
    };
    // std resets SIGPIPE and the mask in a child, before `change`.
    let plain = run(|| ());
    assert_eq!(plain, format!("ignored:\nblocked:\ndescriptors: 0 1 2\npreload: {library}\nasan: -\n"));
    let changed = run(|| {
        // SAFETY: system calls only, on locals.
        unsafe {
            libc::signal(libc::SIGPIPE, libc::SIG_IGN);
            libc::signal(libc::SIGUSR1, libc::SIG_IGN);
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            libc::sigaddset(&mut set, libc::SIGTERM);
            libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
            libc::close(0);
            libc::dup2(1, 7);
        }
    });
    assert_eq!(changed, format!("ignored: 10 13\nblocked: 15\ndescriptors: 1 2 7\npreload: {library}\nasan: -\n"));
}

#[test]
fn comes_first_in_ld_preload_and_only_once() {
    let state = StateDir::new();
    let library = harness::library().display().to_string();
    // A library that is loaded anyway, under two names that the loader knows.
    for (before, after) in [
        ("libc.so.6", format!("{library}:libc.so.6")),
        ("libc.so.6 libm.so.6", format!("{library}:libc.so.6:libm.so.6")),
        (library.as_str(), library.clone()),
        (&format!("libc.so.6:{library}"), format!("{library}:libc.so.6")),
        ("", library.clone()),
    ] {
        let mut command = mqns(&state);
        command.args(["run", "sh", "-c", "echo $LD_PRELOAD"]).env("LD_PRELOAD", before);
        let output = command.output().expect("run mqns");
        assert_eq!((out(&output), err(&output)), (format!("{after}\n").as_str(), ""), "{before:?}");
    }
    // Nested.
    let output = run(&state, &[env!("CARGO_BIN_EXE_mqns"), "run", "sh", "-c", "echo $LD_PRELOAD"]);
    assert_eq!(out(&output), format!("{library}\n"));
}

#[test]
fn options_set_the_environment() {
    let state = StateDir::new();
    let show = "echo ${MQNS_DIR-unset} ${MQNS_LIMITS-unset} ${MQNS_POLL-unset} ${MQNS_LOG-unset}";
    let said = |arguments: &[&str]| {
        let mut command = mqns(&state);
        command.current_dir(state.path()).arg("run").args(arguments).args(["sh", "-c", show]);
        command.env("MQNS_LIMITS", "generous");
        let output = command.output().expect("run mqns");
        assert_eq!(err(&output), "");
        out(&output).trim().replace(&*state.path().to_string_lossy(), "S")
    };
    assert_eq!(said(&[]), "S generous unset unset");
    assert_eq!(said(&["--limits", "exact", "--poll", "always", "--log", "stderr"]), "S exact always stderr");
    assert_eq!(said(&["--dir", "new", "--limits=generous", "--poll=auto", "--log=log"]), "S/new generous auto S/log");
}

#[test]
fn generous_limits_by_option() {
    let state = StateDir::new();
    let output = run(&state, &["--limits", "exact", &probe(), "create", "65536", "16777216"]);
    assert!(matches!(out(&output), "EINVAL\n" | "EMFILE\n"), "{output:?}");
    let output = run(
        &state,
        &["--limits", "generous", "--dir", &path(state.path().join("d")), &probe(), "create", "65536", "16777216"],
    );
    assert_eq!(out(&output), "ok\n", "{output:?}");
}

#[test]
fn address_sanitizer_gets_its_option() {
    let state = StateDir::new();
    let asan = path(harness::program("harmless_asan"));
    let output = run(&state, &[&asan]);
    assert_eq!((output.status.code(), err(&output)), (Some(0), ""), "{output:?}");
    // Only such programs do, and what the user says stays.
    assert!(out(&run(&state, &[&probe(), "state"])).ends_with("asan: -\n"));
    let mut command = mqns(&state);
    command.args(["run", &asan, "leak"]).env("ASAN_OPTIONS", "exitcode=55:detect_leaks=1");
    assert_eq!(command.output().expect("run mqns").status.code(), Some(55));
    let mut command = mqns(&state);
    command.args(["run", &asan]).env("ASAN_OPTIONS", "verify_asan_link_order=1");
    assert_ne!(command.output().expect("run mqns").status.code(), Some(0));
}

// Where the library is looked for.

#[test]
fn library_is_found_in_an_installation() {
    let state = StateDir::new();
    let prefix = StateDir::new();
    for dir in ["bin", "lib/x86_64-linux-gnu/mqns", "lib/mqns"] {
        fs::create_dir_all(prefix.path().join(dir)).expect("mkdir");
    }
    let command = prefix.path().join("bin/mqns");
    copy(Path::new(env!("CARGO_BIN_EXE_mqns")), &command);
    let installed = |state: &StateDir| {
        let mut with = Command::new(&command);
        with.args(["run", "sh", "-c", "echo $LD_PRELOAD"]).env_remove("MQNS_LIB").env_remove("LD_PRELOAD");
        with.env("MQNS_DIR", state.path()).output().expect("run mqns")
    };
    // `cargo install` installs it alone: then it takes the library where that was built.
    let built = path(Path::new(env!("CARGO_BIN_EXE_mqns")).with_file_name("libmqns.so"));
    let output = installed(&state);
    assert_eq!((out(&output), err(&output)), (format!("{built}\n").as_str(), ""));
    // Unless it is gone, or somebody else has put one there.
    if is_root() {
        let copied = path(prefix.path().join("copy"));
        copy(harness::library(), Path::new(&copied));
        let gone = |then: &str| {
            let script = format!(
                "mount -t tmpfs none \"$(dirname '{built}')\" && {then} && exec '{}' run sh -c 'echo $LD_PRELOAD'",
                command.display()
            );
            let mut shell = Command::new("unshare");
            shell.args(["--mount", "sh", "-c", &script]).env_remove("MQNS_LIB").env_remove("LD_PRELOAD");
            shell.env("MQNS_DIR", state.path()).output().expect("run unshare")
        };
        refuses(&gone("true"), 125, &["libmqns.so: not found", "MQNS_LIB", "scripts/install"]);
        refuses(&gone(&format!("cp '{copied}' '{built}' && chown 65534 '{built}'")), 125, &["libmqns.so: not found"]);
        let output = gone(&format!("cp '{copied}' '{built}'"));
        assert_eq!((out(&output), err(&output)), (format!("{built}\n").as_str(), ""));
    }
    // Later ones are looked at first.
    for place in ["lib/x86_64-linux-gnu/mqns", "lib/mqns", "lib", "bin"] {
        let library = prefix.path().join(place).join("libmqns.so");
        fs::copy(harness::library(), &library).expect("copy the library");
        let output = installed(&state);
        assert_eq!((out(&output), err(&output)), (format!("{}\n", library.display()).as_str(), ""));
    }
}

#[test]
fn library_that_cannot_be_used() {
    let state = StateDir::new();
    let dir = StateDir::new();
    let with = |library: &str| mqns(&state).args(["run", "true"]).env("MQNS_LIB", library).output().expect("run mqns");
    refuses(&with("/nonexistent/libmqns.so"), 125, &["/nonexistent/libmqns.so: No such file", "MQNS_LIB"]);
    let text = write(dir.path(), "libmqns.so", b"text", 0o644);
    refuses(&with(&text), 125, &["libmqns.so: not a shared library"]);
    let blank = dir.path().join("a b.so");
    symlink(harness::library(), &blank).expect("symlink");
    refuses(&with(&path(blank)), 125, &["a blank or colon in the path"]);
}

// What it refuses to start.

#[test]
fn command_not_found() {
    let state = StateDir::new();
    refuses(&run(&state, &["no-such-command-here"]), 127, &["no-such-command-here: no such command in PATH"]);
    refuses(&run(&state, &["/no/such"]), 127, &["/no/such: No such file or directory; "]);
    refuses(&run(&state, &[""]), 127, &["'': no such command"]);
    let script = write(state.path(), "script", b"#!/no/interpreter\n", 0o755);
    refuses(&run(&state, &[&script]), 127, &["its interpreter /no/interpreter does not exist"]);
}

#[test]
fn command_that_cannot_be_executed() {
    let state = StateDir::new();
    let dir = StateDir::new();
    refuses(&run(&state, &["/"]), 126, &["/: is a directory"]);
    let file = write(dir.path(), "plain", b"echo\n", 0o644);
    refuses(&run(&state, &[&file]), 126, &["plain: permission to execute is denied; chmod +x"]);
    let mut command = mqns(&state);
    command.args(["run", "plain"]).env("PATH", dir.path());
    refuses(&command.output().expect("run mqns"), 126, &["plain: permission to execute is denied"]);
    let file = write(dir.path(), "data", b"\0\x01\x02", 0o755);
    refuses(&run(&state, &[&file]), 126, &["data: neither an ELF program nor a script"]);
    let file = write(dir.path(), "truncated", b"\x7fELF\x02\x01\x01", 0o755);
    refuses(&run(&state, &[&file]), 126, &["truncated: "]);
    let file = path(dir.path().join("loop"));
    write(dir.path(), "loop", format!("#!{file}\n").as_bytes(), 0o755);
    refuses(&run(&state, &[&file]), 126, &["loop: too many interpreters"]);
}

#[test]
fn static_program() {
    let state = StateDir::new();
    let program = path(harness::program("command_static"));
    refuses(&run(&state, &[&program]), 126, &["command_static: statically linked", "; link it dynamically"]);
    // As the interpreter of a script as well, and by way of env.
    let script = write(state.path(), "script", format!("#!{program}\n").as_bytes(), 0o755);
    refuses(&run(&state, &[&script]), 126, &["command_static: statically linked"]);
    let script = write(state.path(), "script", format!("#!/usr/bin/env {program}\n").as_bytes(), 0o755);
    refuses(&run(&state, &[&script]), 126, &["command_static: statically linked"]);
}

/// A copy of the probe in which some bytes are others.
fn altered(dir: &StateDir, name: &str, alter: impl Fn(&mut Vec<u8>)) -> String {
    let mut bytes = fs::read(harness::program("command_probe")).expect("the probe");
    alter(&mut bytes);
    write(dir.path(), name, &bytes, 0o755)
}

#[test]
fn program_for_another_machine() {
    let state = StateDir::new();
    let dir = StateDir::new();
    let program = altered(&dir, "arm", |bytes| bytes[4] = 1);
    refuses(&run(&state, &[&program]), 126, &["arm: a program for 32-bit ", ", libmqns.so is for 64-bit "]);
    let program = altered(&dir, "riscv", |bytes| bytes[18..20].copy_from_slice(&[243, 0]));
    refuses(&run(&state, &[&program]), 126, &["riscv: a program for 64-bit RISC-V, libmqns.so is for "]);
    let program = altered(&dir, "big", |bytes| {
        bytes[5] = 2;
        bytes[18..20].copy_from_slice(&[0, 22]);
    });
    refuses(&run(&state, &[&program]), 126, &["big: a program for 64-bit s390, big-endian, "]);
}

/// A copy of the probe with another loader.
fn with_loader(dir: &StateDir, name: &str, loader: &str) -> String {
    altered(dir, name, |bytes| {
        let at = bytes.windows(3).position(|w| w == b"/ld").expect("a loader's name");
        let start = bytes[..at].iter().rposition(|&b| b == 0).expect("its start") + 1;
        let len = bytes[start..].iter().position(|&b| b == 0).expect("its end");
        let mut new = loader.as_bytes().to_vec();
        assert!(new.len() <= len, "too long for the place");
        new.resize(len, 0);
        bytes[start..start + len].copy_from_slice(&new);
    })
}

#[test]
fn program_with_another_c_library() {
    let state = StateDir::new();
    let dir = StateDir::new();
    let program = with_loader(&dir, "musl", "/lib/ld-musl-x86.so.1");
    let parts = ["musl: runs with musl (/lib/ld-musl-x86.so.1), libmqns.so with glibc; ", "set MQNS_LIB"];
    refuses(&run(&state, &[&program]), 126, &parts);
    let program = with_loader(&dir, "bionic", "/system/ld");
    refuses(&run(&state, &[&program]), 126, &["bionic: runs with another C library (/system/ld)"]);
    let program = with_loader(&dir, "moved", "/no/ld-linux.so");
    refuses(&run(&state, &[&program]), 127, &["moved: its loader /no/ld-linux.so does not exist"]);
}

#[test]
fn program_that_gains_privilege() {
    if !is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let state = StateDir::new();
    // Not in /dev/shm, which is often mounted nosuid: there the bits mean nothing.
    let dir = std::env::temp_dir().join(format!("mqns-test-suid-{}", std::process::id()));
    fs::create_dir(&dir).expect("mkdir");
    let program = dir.join("program");
    copy(&harness::program("command_probe"), &program);
    let name = path(program.clone());
    let owned = |uid: u32, mode: u32| {
        std::os::unix::fs::chown(&program, Some(uid), Some(uid)).expect("chown");
        fs::set_permissions(&program, fs::Permissions::from_mode(mode)).expect("chmod");
        run(&state, &[&name, "queue"])
    };
    let outcomes = [(12345, 0o4755), (12345, 0o2755), (0, 0o6755), (12345, 0o755)].map(|(u, m)| owned(u, m));
    fs::remove_dir_all(&dir).expect("clean up");
    refuses(
        &outcomes[0],
        126,
        &["program: set-user-ID, to uid 12345: the loader preloads nothing", "; run it as that user"],
    );
    refuses(&outcomes[1], 126, &["program: set-group-ID, to gid 12345: "]);
    // Root gains nothing by being root.
    assert_eq!(out(&outcomes[2]), "through a queue\n", "{:?}", outcomes[2]);
    assert_eq!(out(&outcomes[3]), "through a queue\n", "{:?}", outcomes[3]);
}

#[test]
fn directory_that_cannot_be_used() {
    let state = StateDir::new();
    refuses(&run(&state, &["--dir", "/no/such/dir", "true"]), 125, &["/no/such/dir: No such file or directory; "]);
    let file = write(state.path(), "file", b"", 0o644);
    refuses(&run(&state, &["--dir", &file, "true"]), 125, &["file: not a directory; --dir takes"]);
}

// Namespaces. Where the command is to make or enter one, the kernel has none.

/// `mqns`, with the library under test, in a process for which the kernel has neither queues nor IPC
/// namespaces. Who isn't root may make namespaces nevertheless.
fn mqns_alone(state: &StateDir, user: &[&str]) -> Command {
    let mut command = Command::new(harness::program("nokernel"));
    let plain = mqns(state);
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    if !is_root() {
        command.env("MQNS_PRIVILEGES", "generous");
    }
    command.args(user).arg(plain.get_program()).stdin(Stdio::null());
    command
}

fn alone(state: &StateDir, arguments: &[&str]) -> Output {
    mqns_alone(state, &[]).args(arguments).output().expect("run mqns")
}

/// An ordinary user.
const SOMEBODY: &[&str] = &["setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups"];

/// Whether this process can become that user, and that user may run the tests' programs with the library.
fn somebody_or_skip() -> bool {
    let can = is_root() && {
        let mut setpriv = Command::new(SOMEBODY[0]);
        setpriv.args(&SOMEBODY[1..]).arg(harness::program("ns_probe")).env("LD_PRELOAD", harness::library());
        setpriv.output().is_ok_and(|o| o.status.success() && o.stderr.is_empty())
    };
    if !can {
        eprintln!("skipped: needs root, and a build directory that is open to other users");
    }
    can
}

fn ns_probe() -> String {
    path(harness::program("ns_probe"))
}

/// The virtual namespaces that have a directory.
fn namespaces(state: &StateDir) -> Vec<String> {
    let names = |dir: &Path| {
        let entries = fs::read_dir(dir).expect("list a directory").flatten();
        entries.map(|e| e.file_name().into_string().expect("UTF-8")).collect::<Vec<_>>()
    };
    let users = names(state.path()).into_iter().filter(|name| name.starts_with('u'));
    users.flat_map(|user| names(&state.path().join(user))).collect()
}

/// It printed these lines, and nothing was wrong.
#[track_caller]
fn prints(output: &Output, lines: &[&str]) {
    assert_eq!((out(output).lines().collect::<Vec<_>>(), err(output)), (lines.to_vec(), ""), "{output:?}");
    assert_eq!(output.status.code(), Some(0));
}

/// What `readlink /proc/PID/ns/ipc` says, in numbers.
fn number(link: &str) -> u64 {
    let number = link.trim().strip_prefix("ipc:[").and_then(|rest| rest.strip_suffix(']'));
    number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{link:?} is no namespace"))
}

const LINK: &str = "/proc/self/ns/ipc";

/// A command that stays until it is let go: ns_probe with operation `hold` as the last.
struct Held {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Held {
    /// Waits until it has said so many lines, which are returned.
    fn start(mut command: Command, lines: usize) -> (Held, Vec<String>) {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("run mqns");
        let mut held = Held { out: BufReader::new(child.stdout.take().expect("a pipe")), child };
        let mut said = Vec::new();
        for _ in 0..lines {
            let mut line = String::new();
            held.out.read_line(&mut line).expect("read a line");
            said.push(line.trim_end().to_string());
        }
        (held, said)
    }

    /// `mqns ARGUMENTS… ns_probe OPERATIONS… hold`; all of them succeed.
    fn probe(state: &StateDir, user: &[&str], arguments: &[&str], operations: &[&str]) -> Held {
        let mut command = mqns_alone(state, user);
        command.args(arguments).arg(ns_probe()).args(operations).arg("hold");
        let (held, said) = Held::start(command, operations.len() + 1);
        assert!(said.iter().all(|line| line == "ok"), "{said:?}");
        held
    }

    fn pid(&self) -> String {
        self.child.id().to_string()
    }

    fn number(&self) -> u64 {
        self.number_with(&format!("/proc/{}/ns/ipc", self.child.id()))
    }

    /// By a process with the library, which need not be in any namespace, nor have a directory.
    fn number_with(&self, link: &str) -> u64 {
        let mut readlink = Command::new("readlink");
        readlink.arg(link).env("LD_PRELOAD", harness::library());
        number(out(&readlink.output().expect("run readlink")))
    }

    fn let_go(mut self) {
        drop(self.child.stdin.take());
        let status = self.child.wait().expect("wait");
        assert!(status.success(), "{status:?}");
    }

    fn kill(mut self, signal: i32) {
        // SAFETY: no memory is passed; it has not been reaped.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
        assert_eq!(self.child.wait().expect("wait").signal(), Some(signal));
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn run_ipc_has_queues_of_its_own() {
    let state = StateDir::new();
    let probe = ns_probe();
    prints(&alone(&state, &["run", &probe, "create /q outer"]), &["ok"]);
    let inside = alone(&state, &["run", "--ipc", "--", &probe, "peek /q", "create /q inner", "peek /q"]);
    prints(&inside, &["ENOENT", "ok", "inner"]);
    assert!(namespaces(&state).is_empty());
    prints(&alone(&state, &["run", &probe, "peek /q"]), &["outer"]);

    let initial = number(out(&alone(&state, &["run", "readlink", LINK])));
    let script =
        format!("readlink {LINK}; '{}' run --ipc readlink {LINK}; readlink {LINK}", env!("CARGO_BIN_EXE_mqns"));
    let nested = alone(&state, &["run", "--ipc", "sh", "-c", &script]);
    let numbers: Vec<_> = out(&nested).lines().map(number).collect();
    let [first, inner, again] = numbers[..] else { panic!("{nested:?}") };
    assert!(first == again && first != inner && first != initial && inner != initial, "{numbers:?}, {initial}");
    assert!(namespaces(&state).is_empty());
}

#[test]
fn run_ipc_lasts_as_long_as_any_process_in_it() {
    let state = StateDir::new();
    // The command ends before the one that it has started.
    let mut command = mqns_alone(&state, &[]);
    let script = format!("exec 3<&0; '{}' 'create /q here' hold <&3 & echo $!", ns_probe());
    command.args(["run", "--ipc", "sh", "-c", &script]);
    let (mut held, said) = Held::start(command, 3);
    let gate = held.child.stdin.take();
    assert!(held.child.wait().expect("wait").success());
    let pid = said.iter().find(|line| *line != "ok").expect("a process id");
    prints(&alone(&state, &["enter", "-t", pid, &ns_probe(), "peek /q"]), &["here"]);
    assert_eq!(namespaces(&state).len(), 1);
    drop(gate);
    // The end of the pipe is that of the process, which has left before.
    held.out.read_to_end(&mut Vec::new()).expect("read");
    assert!(namespaces(&state).is_empty());
}

#[test]
fn exit_status_and_signals_are_the_commands_in_a_namespace() {
    let state = StateDir::new();
    for status in [0, 1, 77, 125, 126, 127, 255] {
        let output = alone(&state, &["run", "--ipc", "sh", "-c", &format!("exit {status}")]);
        assert_eq!((output.status.code(), out(&output), err(&output)), (Some(status), "", ""));
    }
    let output = alone(&state, &["run", "--ipc", "false"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(namespaces(&state).is_empty());
    // From within, and from outside: it is the same process.
    let output = alone(&state, &["run", "--ipc", "sh", "-c", "kill -TERM $$"]);
    assert_eq!(output.status.signal(), Some(libc::SIGTERM));
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGUSR1] {
        Held::probe(&state, &[], &["run", "--ipc"], &[]).kill(signal);
    }
    // Stopped and continued.
    let held = Held::probe(&state, &[], &["run", "--ipc"], &[]);
    for signal in [libc::SIGSTOP, libc::SIGCONT] {
        let mut status = 0;
        // SAFETY: a variable for the result; it has not been reaped.
        unsafe {
            assert_eq!(libc::kill(held.child.id() as i32, signal), 0);
            libc::waitpid(held.child.id() as i32, &mut status, libc::WUNTRACED | libc::WCONTINUED);
        }
        assert!(if signal == libc::SIGSTOP { libc::WIFSTOPPED(status) } else { libc::WIFCONTINUED(status) });
    }
    held.let_go();
    alone(&state, &["gc"]);
    assert!(namespaces(&state).is_empty());
}

#[test]
fn command_in_a_namespace_gets_what_any_command_gets() {
    let state = StateDir::new();
    let library = harness::library().display().to_string();
    let other = Held::probe(&state, &[], &["run", "--ipc"], &[]);
    let pid = other.pid();
    for how in [&["run"][..], &["run", "--ipc"], &["enter", "-t", &pid]] {
        let output = |command: &[&str], change: bool| {
            let mut mqns = mqns_alone(&state, &[]);
            mqns.args(how).args(command).env("LD_PRELOAD", "libm.so.6").env("KEPT", "a=b c");
            // SAFETY: system calls only, on locals.
            unsafe {
                mqns.pre_exec(move || {
                    libc::close_range(3, u32::MAX, 0);
                    if change {
                        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
                        libc::signal(libc::SIGSEGV, libc::SIG_IGN);
                        let mut set = std::mem::zeroed();
                        libc::sigemptyset(&mut set);
                        libc::sigaddset(&mut set, libc::SIGTERM);
                        libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
                        libc::close(0);
                        libc::dup2(1, 7);
                    }
                    Ok(())
                })
            };
            let output = mqns.output().expect("run mqns");
            assert_eq!(err(&output), "", "{how:?}");
            let mut lines: Vec<_> = out(&output).lines().map(str::to_string).collect();
            if command[0] == "env" {
                lines.retain(|line| ["MQNS_", "LD_PRELOAD", "KEPT", "PATH"].iter().any(|name| line.starts_with(name)));
                lines.sort();
            }
            lines
        };
        let preload = format!("preload: {library}:libm.so.6");
        let plain = ["ignored:", "blocked:", "descriptors: 0 1 2", &preload, "asan: -"];
        assert_eq!(output(&[&probe(), "state"], false), plain, "{how:?}");
        let changed = ["ignored: 11 13", "blocked: 15", "descriptors: 1 2 7", &preload, "asan: -"];
        assert_eq!(output(&[&probe(), "state"], true), changed, "{how:?}");
        let mut expected = vec![
            "KEPT=a=b c".to_string(),
            format!("LD_PRELOAD={library}:libm.so.6"),
            format!("MQNS_DIR={}", state.path().display()),
            format!("MQNS_LIB={library}"),
            format!("PATH={}", std::env::var("PATH").expect("PATH")),
        ];
        if !is_root() {
            expected.insert(4, "MQNS_PRIVILEGES=generous".into());
        }
        assert_eq!(output(&["env"], false), expected, "{how:?}");
        let name = output(&["sh", "-c", "echo $0 $@", "a", "-t", "--", "b"], false);
        assert_eq!(name, ["a -t -- b"], "{how:?}");
    }
    other.let_go();
    assert!(namespaces(&state).is_empty());
}

#[test]
fn options_hold_in_a_namespace() {
    let state = StateDir::new();
    let show = "echo $MQNS_DIR $MQNS_PRIVILEGES $MQNS_LIMITS $MQNS_POLL $MQNS_LOG";
    let options = ["--privileges=generous", "--limits=generous", "--poll=always", "--log=log", "--dir=new"];
    let mut command = mqns_alone(&state, &[]);
    command.args(["run", "--ipc"]).args(options).args(["sh", "-c", show]).current_dir(state.path());
    let said = command.output().expect("run mqns");
    let said = out(&said).trim().replace(&*state.path().to_string_lossy(), "S");
    assert_eq!(said, "S/new generous generous always S/log");
    let create = [&probe(), "create", "65536", "16777216"];
    let output = mqns_alone(&state, &[]).args(["run", "--ipc", "--limits=generous"]).args(create).output();
    assert_eq!(out(&output.expect("run mqns")), "ok\n");
    assert!(namespaces(&state).is_empty());
}

#[test]
fn command_that_cannot_be_executed_leaves_no_namespace() {
    let state = StateDir::new();
    refuses(&alone(&state, &["run", "--ipc", "/no/such"]), 127, &["/no/such: No such file"]);
    refuses(&alone(&state, &["run", "--ipc", "/"]), 126, &["/: is a directory"]);
    // Only execve(2) finds out, when the namespace has been made: the loader may not be executed.
    let program = with_loader(&state, "broken", "ld-linux.so");
    write(state.path(), "ld-linux.so", b"", 0o644);
    let mut command = mqns_alone(&state, &[]);
    let output = command.args(["run", "--ipc", &program]).current_dir(state.path()).output().expect("run mqns");
    refuses(&output, 126, &["broken: Permission denied; "]);
    assert!(namespaces(&state).is_empty());
}

#[test]
fn privileges_are_the_kernels_unless_generous() {
    if !somebody_or_skip() {
        return;
    }
    let state = StateDir::new();
    let somebody = |arguments: &[&str]| mqns_alone(&state, SOMEBODY).args(arguments).output().expect("run mqns");
    let unshare = |how: &str| somebody(&["run", "--privileges", how, &ns_probe(), "unshare"]);
    prints(&unshare("exact"), &["EPERM"]);
    prints(&unshare("generous"), &["ok"]);
    let limits = "id -u; echo 20 >/proc/sys/fs/mqueue/msg_max; cat /proc/sys/fs/mqueue/msg_max";
    prints(&somebody(&["run", "--ipc", "--privileges", "generous", "sh", "-c", limits]), &["12345", "20"]);
    let unshare = ["run", "--privileges", "generous", &ns_probe(), "create /q a", "unshare", "peek /q"];
    prints(&somebody(&unshare), &["ok", "ok", "ENOENT"]);
    assert!(namespaces(&state).is_empty());
    // Of one's own processes, and of others'.
    let own = Held::probe(&state, SOMEBODY, &["run", "--ipc", "--privileges=generous"], &["create /q own"]);
    let others = Held::probe(&state, &[], &["run", "--ipc"], &[]);
    let parts = [&format!("the IPC namespace of process {}: not permitted", own.pid()), "`--privileges generous`"];
    refuses(&somebody(&["enter", "-t", &own.pid(), "true"]), 125, &parts);
    prints(&somebody(&["enter", "-t", &own.pid(), "--privileges=generous", &ns_probe(), "peek /q"]), &["own"]);
    prints(&alone(&state, &["enter", "-t", &own.pid(), &ns_probe(), "peek /q"]), &["own"]);
    let parts = [&format!("process {}: it may not be looked into", others.pid()), "; do it as root"];
    refuses(&somebody(&["enter", "-t", &others.pid(), "--privileges=generous", "true"]), 125, &parts);
    own.let_go();
    others.let_go();
    assert!(namespaces(&state).is_empty());
}

#[test]
fn enter_joins_the_namespace_of_a_process() {
    let state = StateDir::new();
    let held = Held::probe(&state, &[], &["run", "--ipc"], &["create /q inner"]);
    let pid = held.pid();
    let probe = ns_probe();
    prints(&alone(&state, &["run", &probe, "peek /q"]), &["ENOENT"]);
    for target in [&["-t", &pid][..], &["--target", &pid], &["--target", &pid, "--"]] {
        let mut command = mqns_alone(&state, &[]);
        let output = command.arg("enter").args(target).args([&probe, "peek /q", "create /from outside"]).output();
        prints(&output.expect("run mqns"), &["inner", if target[0] == "-t" { "ok" } else { "EEXIST" }]);
    }
    assert_eq!(number(out(&alone(&state, &["enter", "-t", &pid, "readlink", LINK]))), held.number());
    let output = alone(&state, &["enter", "-t", &pid, "sh", "-c", "exit 77"]);
    assert_eq!(output.status.code(), Some(77));
    // A shell.
    for (shell, expected) in [("/bin/sh", "/bin/sh\n"), ("", "/bin/sh\n")] {
        let mut command = mqns_alone(&state, &[]);
        command.args(["enter", "-t", &pid]).env("SHELL", shell).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("run mqns");
        let text = format!("echo $0; readlink {LINK}; exit 5\n");
        child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("write");
        let output = child.wait_with_output().expect("wait");
        assert_eq!(output.status.code(), Some(5));
        let link = out(&output).strip_prefix(expected).unwrap_or_else(|| panic!("{output:?}"));
        assert_eq!(number(link), held.number());
    }
    // Who has entered keeps it, too.
    let second = Held::probe(&state, &[], &["enter", "-t", &pid], &[]);
    held.let_go();
    prints(&alone(&state, &["enter", "-t", &second.pid(), &probe, "peek /q", "peek /from"]), &["inner", "outside"]);
    second.let_go();
    assert!(namespaces(&state).is_empty());
    refuses(&alone(&state, &["enter", "-t", &pid, "true"]), 125, &[&format!("process {pid}: no such process; ")]);
}

#[test]
fn enter_goes_where_the_process_is() {
    let (state, elsewhere) = (StateDir::new(), StateDir::new());
    let (probe, peek) = (ns_probe(), "peek /q");
    // In its initial namespace, which is another one by another directory.
    let held = Held::probe(&state, &[], &["run"], &["create /q initial"]);
    prints(&alone(&elsewhere, &["enter", "-t", &held.pid(), &probe, peek]), &["initial"]);
    let dir = path(elsewhere.path().into());
    prints(&alone(&state, &["enter", "-t", &held.pid(), "--dir", &dir, &probe, peek]), &["ENOENT"]);
    // One without the library is in the initial namespace of whoever asks, also for one who comes from a
    // namespace.
    let mut sleep = Command::new("sleep").arg("1000").env_remove("LD_PRELOAD").spawn().expect("run sleep");
    let pid = sleep.id().to_string();
    let outside = alone(&state, &["enter", "-t", &pid, &probe, peek]);
    let command = env!("CARGO_BIN_EXE_mqns");
    let back = alone(&state, &["run", "--ipc", command, "enter", "-t", &pid, "--", &probe, peek]);
    sleep.kill().and_then(|()| sleep.wait()).expect("end sleep");
    prints(&outside, &["initial"]);
    prints(&back, &["initial"]);
    held.let_go();
    let held = Held::probe(&state, &[], &["run", "--ipc"], &["create /q inner"]);
    for dir in [&state, &elsewhere] {
        prints(&alone(dir, &["enter", "-t", &held.pid(), &probe, peek]), &["inner"]);
    }
    held.let_go();
    assert!(namespaces(&state).is_empty() && namespaces(&elsewhere).is_empty());
}

/// `mqns lsns --json`, as far as it concerns a namespace.
fn listed(state: &StateDir, arguments: &[&str], number: u64) -> Option<Value> {
    let output = mqns_alone(state, &[]).args(["lsns", "--json"]).args(arguments).output().expect("run mqns");
    assert_eq!((output.status.code(), err(&output)), (Some(0), ""));
    let list: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let list = list["namespaces"].as_array().expect("a list").clone();
    let numbers: Vec<_> = list.iter().map(|entry| entry["ns"].as_u64().expect("a number")).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    list.into_iter().find(|entry| entry["ns"] == number)
}

#[test]
fn lsns_lists_namespaces() {
    let state = StateDir::new();
    // Two processes, of which one has come in; two queues, and one without a name.
    let operations = ["create /a x", "create /b x", "create /c x", "keep /c", "unlink /c"];
    let held = Held::probe(&state, &[], &["run", "--ipc"], &operations);
    let number = held.number();
    let second = Held::probe(&state, &[], &["enter", "-t", &held.pid()], &[]);
    let lowest = held.child.id().min(second.child.id());
    let command = |pid: u32| {
        let operations = if pid == second.child.id() { String::new() } else { operations.join(" ") + " " };
        format!("{} {operations}hold", ns_probe())
    };
    let me = String::from_utf8(Command::new("id").arg("-un").output().expect("run id").stdout).expect("UTF-8");
    let mut expected = json!({
        "ns": number,
        "nprocs": 2,
        "pid": lowest,
        "user": me.trim(),
        "queues": 3,
        "name": null,
        "command": command(lowest),
    });
    let entry = listed(&state, &[], number).expect("listed");
    assert_eq!(entry.to_string(), expected.to_string());
    // By another directory as well, and by another order.
    assert_eq!(listed(&StateDir::new(), &[], number), Some(expected.clone()));
    let entry = listed(&state, &["-o", "QUEUES,ns"], number).expect("listed");
    assert_eq!(entry.to_string(), json!({ "queues": 3, "ns": number }).to_string());

    // The initial namespace.
    prints(&alone(&state, &["run", &ns_probe(), "create /initial x"]), &["ok"]);
    let initial = self::number(out(&alone(&state, &["run", "readlink", LINK])));
    let entry = listed(&state, &[], initial).expect("listed");
    assert_eq!(entry["queues"], 1);
    assert!(entry["pid"].as_u64().expect("a number") <= u64::from(std::process::id()));
    assert_eq!(listed(&StateDir::new(), &[], initial).expect("listed")["queues"], 0);

    // As a table.
    let lsns = |arguments: &[&str]| {
        let output = mqns_alone(&state, &[]).arg("lsns").args(arguments).output().expect("run mqns");
        assert_eq!((output.status.code(), err(&output)), (Some(0), ""));
        out(&output).lines().map(str::to_string).collect::<Vec<_>>()
    };
    let pick = |lines: Vec<String>| {
        let mine = lines.iter().filter(|line| line.split_whitespace().any(|word| word == number.to_string()));
        mine.cloned().collect::<Vec<_>>()
    };
    let lines = lsns(&[]);
    let headings: Vec<_> = lines[0].split_whitespace().collect();
    assert_eq!(headings, ["NS", "NPROCS", "PID", "USER", "QUEUES", "NAME", "COMMAND"]);
    let [line] = &pick(lines.clone())[..] else { panic!("{lines:?}") };
    let words = format!("{number} 2 {lowest} {} 3 - {}", me.trim(), command(lowest));
    assert_eq!(line.split_whitespace().collect::<Vec<_>>(), words.split(' ').collect::<Vec<_>>());
    // Numbers end, and text begins, below the heading.
    let ends = |line: &str, word: &str| line.find(word).expect("in the line") + word.len();
    assert_eq!(ends(&lines[0], "NS"), ends(line, &number.to_string()));
    assert_eq!(lines[0].find("COMMAND"), line.find(&ns_probe()));
    let lines = lsns(&["-n", "-o", "pid,NPROCS,ns"]);
    assert_eq!(pick(lines)[0].split_whitespace().collect::<Vec<_>>().join(" "), format!("{lowest} 2 {number}"));
    let lines = lsns(&["-r", "-o", "NS,COMMAND,NPROCS"]);
    assert_eq!(lines[0], "NS COMMAND NPROCS");
    assert_eq!(pick(lines), [format!("{number} {} 2", command(lowest).replace(' ', "\\x20"))]);
    assert_eq!(pick(lsns(&["-nro", "NS,QUEUES"])), [format!("{number} 3")]);

    held.let_go();
    // What was open without a name is gone.
    expected["nprocs"] = 1.into();
    expected["queues"] = 2.into();
    expected["pid"] = second.child.id().into();
    expected["command"] = command(second.child.id()).into();
    assert_eq!(listed(&state, &[], number), Some(expected));
    second.let_go();
    assert_eq!(listed(&state, &[], number), None);
    assert!(namespaces(&state).is_empty());
}

#[test]
fn lsns_shows_users_what_is_theirs() {
    if !somebody_or_skip() {
        return;
    }
    let state = StateDir::new();
    let own = Held::probe(&state, SOMEBODY, &["run", "--ipc", "--privileges=generous"], &["create /q x"]);
    let others = Held::probe(&state, &[], &["run", "--ipc"], &[]);
    let (own_number, others_number) = (own.number(), others.number());
    // A user without a name.
    let known = Command::new("id").args(["-un", "12345"]).output().expect("run id");
    let name = if known.status.success() { out(&known).trim().to_string() } else { "12345".into() };
    let entry = listed(&state, &["-o", "ns,user,queues"], own_number).expect("listed");
    assert_eq!((&entry["user"], &entry["queues"]), (&json!(name), &json!(1)));
    assert!(listed(&state, &[], others_number).is_some());
    let output = mqns_alone(&state, SOMEBODY).args(["lsns", "-nro", "NS"]).output().expect("run mqns");
    let numbers: Vec<_> = out(&output).lines().collect();
    assert!(numbers.contains(&&*own_number.to_string()), "{output:?}");
    assert!(!numbers.contains(&&*others_number.to_string()), "{output:?}");
    own.let_go();
    others.let_go();
}

/// Runs a command with a terminal of so many columns as its output; what it has written.
fn on_terminal(mut command: Command, columns: u16) -> String {
    let (mut master, mut slave) = (0, 0);
    let size = libc::winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: variables for two descriptors, a structure, and nothing else.
    let opened = unsafe { libc::openpty(&mut master, &mut slave, std::ptr::null_mut(), std::ptr::null_mut(), &size) };
    assert_eq!(opened, 0);
    // SAFETY: just opened, nobody else's.
    let (mut master, slave) = unsafe { (fs::File::from_raw_fd(master), Stdio::from_raw_fd(slave)) };
    let mut child = command.stdout(slave).spawn().expect("run mqns");
    drop(command);
    let mut text = Vec::new();
    // Ends by EIO, when nobody has the other end open.
    let _ = master.read_to_end(&mut text);
    assert!(child.wait().expect("wait").success());
    String::from_utf8(text).expect("UTF-8").replace("\r\n", "\n")
}

#[test]
fn lsns_cuts_commands_off_at_the_end_of_the_terminal() {
    let state = StateDir::new();
    let held = Held::probe(&state, &[], &["run", "--ipc"], &["create /\u{e4}\u{1b}[31m x"]);
    let lines = |columns: u16, arguments: &[&str]| {
        let mut command = mqns_alone(&state, &[]);
        command.arg("lsns").args(arguments);
        on_terminal(command, columns).lines().map(str::to_string).collect::<Vec<_>>()
    };
    let length = |line: &String| line.chars().count();
    let cut = lines(60, &[]);
    assert!(cut.iter().all(|line| length(line) <= 60), "{cut:?}");
    assert!(cut.iter().any(|line| line.contains(&held.number().to_string())), "{cut:?}");
    // What would change colours or move the cursor is no part of it.
    let shown = "create /\u{e4}\\x1b[31m x hold";
    let whole = lines(60, &["--notruncate"]);
    assert!(whole.iter().any(|line| line.ends_with(shown)), "{whole:?}");
    assert!(lines(1000, &[]).iter().any(|line| line.ends_with(shown)));
    // In the middle of a line it is cut as well.
    let cut = lines(30, &["-o", "command,ns"]);
    assert!(cut.iter().all(|line| length(line) <= 30), "{cut:?}");
    assert!(cut.iter().any(|line| line.ends_with(&held.number().to_string())), "{cut:?}");
    held.let_go();
}

#[test]
fn lsns_changes_nothing_and_says_what_fails() {
    let state = StateDir::new();
    assert!(alone(&state, &["lsns"]).status.success());
    assert!(fs::read_dir(state.path()).expect("list a directory").next().is_none());
    let mut command = mqns_alone(&state, &[]);
    let full = fs::File::options().write(true).open("/dev/full").expect("open /dev/full");
    let output = command.arg("lsns").stdout(full).output().expect("run mqns");
    refuses(&output, 125, &["standard output: No space left on device"]);
    for verb in ["lsns", "gc"] {
        refuses(&alone(&state, &[verb, "--dir", "/no/such"]), 125, &["/no/such: No such file or directory; --dir"]);
    }
}

#[test]
fn gc_ends_what_was_left_by_violence() {
    let state = StateDir::new();
    let gc = |arguments: &[&str]| {
        let output = mqns_alone(&state, &[]).arg("gc").args(arguments).output().expect("run mqns");
        assert_eq!((output.status.code(), err(&output)), (Some(0), ""));
        out(&output).to_string()
    };
    let ended = |n: u32| format!("ended {n} namespace{} that had no process left\n", if n == 1 { "" } else { "s" });
    assert_eq!(gc(&[]), ended(0));
    let start = || Held::probe(&state, &[], &["run", "--ipc"], &["create /q x", "keep /q"]);
    let (one, two, living) = (start(), start(), start());
    one.kill(libc::SIGKILL);
    two.kill(libc::SIGKILL);
    assert_eq!(namespaces(&state).len(), 3);
    assert_eq!(gc(&[]), ended(2));
    assert_eq!(namespaces(&state).len(), 1);
    assert_eq!(gc(&[]), ended(0));
    prints(&alone(&state, &["enter", "-t", &living.pid(), &ns_probe(), "peek /q"]), &["x"]);
    living.kill(libc::SIGKILL);
    let elsewhere = StateDir::new();
    assert_eq!(gc(&["--dir", &path(elsewhere.path().into())]), ended(0));
    let output = alone(&elsewhere, &["gc", "--dir", &path(state.path().into())]);
    assert_eq!(out(&output), ended(1));
    assert!(namespaces(&state).is_empty());
    start().kill(libc::SIGKILL);
    assert_eq!(gc(&["-q"]), "");
    assert!(namespaces(&state).is_empty());
}

#[test]
fn gc_takes_away_queues_without_a_name() {
    let state = StateDir::new();
    // The file of each open queue without a name.
    let nameless =
        || state.files().iter().filter(|(path, ..)| path.parent().is_some_and(|p| p.ends_with("q/f"))).count();
    let held = Held::probe(&state, &[], &["run"], &["create /q x", "keep /q", "unlink /q"]);
    let other = Held::probe(&state, &[], &["run"], &["create /q x", "keep /q", "unlink /q"]);
    held.kill(libc::SIGKILL);
    let before = nameless();
    assert!(before > 0, "{:?}", state.files());
    assert!(alone(&state, &["gc", "--quiet"]).status.success());
    assert_eq!(nameless(), before - 1);
    other.let_go();
    assert_eq!(nameless(), 0);
}

#[test]
fn gc_of_root_serves_everybody() {
    if !somebody_or_skip() {
        return;
    }
    let state = StateDir::new();
    let start = |user: &[&str]| Held::probe(&state, user, &["run", "--ipc", "--privileges=generous"], &[]);
    for held in [start(SOMEBODY), start(&[])] {
        held.kill(libc::SIGKILL);
    }
    // Nor does it need a privilege for what is one's own.
    let output = mqns_alone(&state, SOMEBODY).arg("gc").output().expect("run mqns");
    assert_eq!((out(&output), err(&output)), ("ended 1 namespace that had no process left\n", ""));
    start(SOMEBODY).kill(libc::SIGKILL);
    assert_eq!(namespaces(&state).len(), 2);
    assert_eq!(out(&alone(&state, &["gc"])), "ended 2 namespaces that had no process left\n");
    assert!(namespaces(&state).is_empty());
}

/// A user's directory is the user's: what looks like a namespace there may lead anywhere.
#[test]
fn gc_of_root_follows_no_user() {
    use std::os::unix::fs::{chown, lchown};
    if !is_root() {
        return;
    }
    let state = StateDir::new();
    assert!(alone(&state, &["gc", "-q"]).status.success());
    let own = state.path().join("u12345");
    let victim = state.path().join("victim");
    fs::create_dir(&own).expect("the user's directory");
    chown(&own, Some(12345), Some(12345)).expect("chown");
    for sub in ["q", "sb"] {
        fs::create_dir_all(victim.join(sub)).expect("a directory");
        fs::write(victim.join(sub).join("precious"), "").expect("a file");
    }
    fs::write(victim.join("control"), "").expect("a file");
    fs::set_permissions(victim.join("control"), fs::Permissions::from_mode(0o600)).expect("chmod");
    // Itself a link; and a directory with links in it.
    symlink(&victim, own.join(format!("n1000000001-{:032x}", 1))).expect("a link");
    let dir = own.join(format!("n1000000002-{:032x}", 2));
    fs::create_dir(&dir).expect("a directory");
    fs::write(dir.join("control"), "").expect("a file");
    for sub in ["q", "sb"] {
        symlink(victim.join(sub), dir.join(sub)).expect("a link");
    }
    for entry in [&dir, &dir.join("control")] {
        chown(entry, Some(12345), Some(12345)).expect("chown");
    }
    lchown(own.join(format!("n1000000001-{:032x}", 1)), Some(12345), Some(12345)).expect("lchown");
    assert!(alone(&state, &["gc", "-q"]).status.success());
    for file in ["control", "q/precious", "sb/precious"] {
        assert!(victim.join(file).exists(), "{file}");
    }
}

/// Whoever makes a queue holds its file meanwhile.
#[test]
fn gc_takes_away_what_a_killed_maker_left() {
    use std::os::unix::fs::MetadataExt;
    let state = StateDir::new();
    assert!(alone(&state, &["gc", "-q"]).status.success());
    let initial = fs::read_dir(state.path()).expect("list").flatten().map(|e| e.path());
    let initial = initial.into_iter().find(|p| p.join("control").exists()).expect("the initial namespace");
    let (key, q) = (format!("{:032x}", 7), initial.join("q"));
    let draft = q.join(format!("t{}.0.1280", &key[..16]));
    let maker = fs::File::create(&draft).expect("a file");
    let of_key = q.join(format!("{:x}.k", maker.metadata().expect("stat").ino()));
    fs::write(&of_key, [0u64.to_ne_bytes(), 7u64.to_ne_bytes()].concat()).expect("a file");
    let left = [draft, of_key, q.join(format!("x/{key}.s")), q.join(format!("x/{key}.p"))];
    left[2..].iter().for_each(|path| fs::write(path, "").expect("a file"));
    maker.lock().expect("flock");
    let gc = || assert!(alone(&state, &["gc", "-q"]).status.success());
    gc();
    assert!(left.iter().all(|path| path.exists()), "it is being made");
    drop(maker);
    gc();
    assert!(left.iter().all(|path| !path.exists()));
}

/// A damaged directory is an error, in a bounded time, to whoever opens the queue.
#[test]
fn queue_without_its_fifo() {
    let state = StateDir::new();
    let probe = |operation: &str| {
        let run = harness::Run::new(harness::Mode::Shim, harness::program("ns_probe")).arg(operation).dir(&state);
        run.timeout(std::time::Duration::from_secs(10)).run().stdout
    };
    assert_eq!(probe("create /q x"), "ok\n");
    let fifo = state.files().into_iter().map(|(path, ..)| path).find(|path| path.extension().is_some_and(|e| e == "p"));
    fs::remove_file(state.path().join(fifo.expect("a FIFO"))).expect("remove");
    assert_eq!(probe("open /q"), "EIO\n");
}

/// Virtual mounts lie in a table, which knows nothing of the end of a mount namespace.
#[test]
fn gc_takes_away_mounts_of_ended_mount_namespaces() {
    // SAFETY: no arguments.
    if unsafe { libc::geteuid() } != 0 || !harness::may_mount() {
        eprintln!("skipped: needs root, and the right to mount");
        return;
    }
    let state = StateDir::new();
    let script = "mqns=$1; exec setpriv --bounding-set -sys_admin $mqns mount --privileges generous /mnt";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_mqns")]);
    command.env("MQNS_DIR", state.path()).env("MQNS_LIB", harness::library());
    assert!(command.output().expect("run unshare").status.success());
    let mounts = || {
        let names = fs::read_dir(state.path().join("m")).expect("m").flatten().map(|e| e.file_name());
        names.filter(|name| name.to_string_lossy().starts_with('v')).count()
    };
    assert_eq!(mounts(), 1);
    assert!(alone(&state, &["gc", "-q"]).status.success());
    assert_eq!(mounts(), 0);
}

/// Who has write access to the register could else have root's programs led through his own links.
#[test]
fn superblocks_that_other_users_have_registered_do_not_count() {
    // SAFETY: no arguments.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("skipped: needs root");
        return;
    }
    use std::os::unix::fs::{FileExt, MetadataExt, lchown, symlink};
    let state = StateDir::new();
    assert!(alone(&state, &["gc", "-q"]).status.success());
    let initial = fs::read_dir(state.path()).expect("list").flatten().map(|e| e.path());
    let initial = initial.into_iter().find(|p| p.join("control").exists()).expect("the initial namespace");
    let superblock = initial.join("sb");
    let accounts = fs::File::options().write(true).open(state.path().join("accounts")).expect("accounts");
    // The count of mounts.
    accounts.write_all_at(&1u64.to_ne_bytes(), 16).expect("write");
    let register = state.path().join("m");
    fs::create_dir(&register).expect("m");
    let link = register.join(format!("{:x}", superblock.metadata().expect("sb").ino()));
    symlink(&initial, &link).expect("a link");
    let mkdir = |name: &str| {
        let run = harness::Run::new(harness::Mode::Shim, "mkdir").arg(superblock.join(name)).dir(&state);
        run.run().status.success()
    };
    assert!(!mkdir("a"), "root's own: there are queues only");
    lchown(&link, Some(12345), Some(12345)).expect("lchown");
    assert!(mkdir("a"), "another user's: any directory");
}

/// It does not take itself for the second image where the library isn't there.
#[test]
fn library_that_is_not_preloaded() {
    let state = StateDir::new();
    let maps = fs::read_to_string("/proc/self/maps").expect("read maps");
    let another = maps.lines().filter_map(|line| line.split_whitespace().nth(5)).find(|path| path.contains("libc.so"));
    let another = another.expect("libc among the mappings");
    for arguments in [
        &["run", "--ipc", "true"][..],
        &["enter", "-t", "1", "true"],
        &["lsns"],
        &["mount", "/proc"],
        &["umount", "/proc"],
        &["gc"],
    ] {
        let mut command = mqns_alone(&state, &[]);
        let output = command.args(arguments).env("MQNS_LIB", another).output().expect("run mqns");
        refuses(&output, 125, &["the loader has not preloaded libmqns.so", "; set MQNS_LIB"]);
        let mut command = mqns_alone(&state, &[]);
        let output = command.args(arguments).env("MQNS_LIB", "/no/such.so").output().expect("run mqns");
        refuses(&output, 125, &["/no/such.so: No such file"]);
    }
    let mut command = mqns_alone(&state, &[]);
    let output = command.args(["run", "env"]).env("MQNS_SECOND_IMAGE", "1").output().expect("run mqns");
    assert!(!out(&output).contains("MQNS_SECOND_IMAGE"), "{output:?}");
}

#[test]
fn directory_that_no_namespace_can_be_in() {
    let state = StateDir::new();
    let with = |dir: &str, arguments: &[&str]| {
        mqns_alone(&state, &[]).args(arguments).env("MQNS_DIR", dir).output().expect("run mqns")
    };
    for arguments in [&["run", "--ipc", "true"][..], &["gc"]] {
        refuses(&with("relative", arguments), 125, &["MQNS_DIR=relative: not an absolute path; "]);
        refuses(&with("/no/such/dir", arguments), 125, &["No such file or directory; check /no/such/dir"]);
    }
}

#[test]
fn directory_that_is_another_user_s() {
    if !somebody_or_skip() {
        return;
    }
    let state = StateDir::new();
    // Not to be entered; to be entered, but with a namespace in it that is not; nothing to be made in it.
    let dirs =
        [("closed", 0o700, true), ("open", 0o755, true), ("empty", 0o755, false)].map(|(name, mode, is_used)| {
            let dir = state.path().join(name);
            fs::create_dir(&dir).expect("make a directory");
            fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).expect("chmod");
            if is_used {
                says(&state, &["mk", "--dir", &path(dir.clone()), "--mode", "666", "/q"]);
            }
            path(dir)
        });
    fs::set_permissions(state.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let below = format!("{}/below", dirs[0]);
    let commands: [&[&str]; 15] = [
        &["ls"],
        &["stat", "/q"],
        &["mk", "/new"],
        &["mk", "--maxmsg", "1", "--msgsize", "1", "/new"],
        &["rm", "/q"],
        &["send", "/q", "x"],
        &["recv", "/q"],
        &["peek", "/q"],
        &["purge", "/q"],
        &["tap", "/q"],
        &["limits"],
        &["limits", "msg_max"],
        &["limits", "msg_max=20"],
        &["gc"],
        &["run", "--fresh", "true"],
    ];
    for dir in dirs.iter().chain([&below]) {
        for arguments in commands {
            let output = mqns_alone(&state, SOMEBODY).env("MQNS_DIR", dir).args(arguments).output().expect("run mqns");
            let named = format!("mqns: {dir}: this user may not use the queues in this directory; do it as ");
            refuses(&output, 125, &[&named, " another directory by --dir"]);
        }
    }
}

// Mounts: as root those of the kernel, in a mount namespace of their own; virtual ones without the right to mount.

/// Who mounts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mounts {
    /// Root.
    Real,
    /// Somebody without CAP_SYS_ADMIN, under `MQNS_PRIVILEGES=generous`.
    Virtual,
    /// The same without that.
    Refused,
}

impl Mounts {
    /// Those that can be had here.
    fn all() -> &'static [Mounts] {
        if is_root() && harness::may_mount() {
            &[Mounts::Real, Mounts::Virtual]
        } else {
            eprintln!("skipped in part: needs root, and the right to mount");
            &[Mounts::Virtual]
        }
    }

    /// Runs a script of sh, with the library under test in all that `$MQNS` starts, and `$PROBE`, `$STATE`
    /// and whatever else is given.
    fn script(self, state: &StateDir, variables: &[(&str, &str)], text: &str) -> Output {
        let mut command = Command::new(harness::program("nokernel"));
        let plain = mqns(state);
        for (name, value) in plain.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        match self {
            Mounts::Real => command.args(["unshare", "--mount", "--propagation", "private"]),
            _ if is_root() => command.args(["setpriv", "--bounding-set", "-sys_admin"]),
            _ => &mut command,
        };
        if self == Mounts::Virtual {
            command.env("MQNS_PRIVILEGES", "generous");
        }
        command.args(["sh", "-c", text]).stdin(Stdio::null()).env("LC_ALL", "C");
        command.env("MQNS", plain.get_program()).env("PROBE", ns_probe()).env("STATE", state.path());
        command.envs(variables.iter().copied()).output().expect("run sh")
    }
}

#[test]
fn mount_shows_the_queues_of_a_namespace() {
    for &mounts in Mounts::all() {
        let (state, dir) = (StateDir::new(), StateDir::new());
        let held = Held::probe(&state, &[], &["run", "--ipc"], &["create /inner x"]);
        let (dir, pid, number) = (path(dir.path().into()), held.pid(), held.number().to_string());
        let variables = [("D", dir.as_str()), ("PID", &pid), ("NUMBER", &number)];
        let text = r#"
            for ns in "$PID" "/proc/$PID/ns/ipc" "$NUMBER"; do
                "$MQNS" mount -q --ns "$ns" "$D" && "$MQNS" run ls "$D"
                echo "without: $(ls "$D")"
                "$MQNS" umount "$D"
            done
            # That of the caller, by default.
            "$MQNS" run "$PROBE" 'create /outer x'
            "$MQNS" mount --quiet "$D" && "$MQNS" run ls "$D"
            "$MQNS" run rm "$D/outer"
            # On top of it another, that outlives its namespace.
            "$MQNS" run --ipc sh -c '"$PROBE" "create /own x"; "$MQNS" mount -q "$D"; ls "$D"'
            "$MQNS" run sh -c 'ls "$D"; cat "$D/own"; : >"$D/new"; rm "$D/own"; ls "$D"'
            "$MQNS" umount "$D" && "$MQNS" run stat -f -c %T "$D"
            "$MQNS" umount "$D" && ls "$D"
        "#;
        let output = mounts.script(&state, &variables, text);
        let seen = if mounts == Mounts::Real { "without: inner" } else { "without: " };
        let mut lines = ["inner", seen].repeat(3);
        lines.extend([
            "ok",
            "outer",
            "ok",
            "own",
            "own",
            "QSIZE:1          NOTIFY:0     SIGNO:0     NOTIFY_PID:0     ",
        ]);
        lines.push("mqueue");
        assert_eq!(out(&output).lines().collect::<Vec<_>>(), lines, "{mounts:?} {output:?}");
        let [error] = err(&output).lines().collect::<Vec<_>>()[..] else { panic!("{output:?}") };
        assert!(error.ends_with("/new: Permission denied"), "{error}");
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(namespaces(&state).len(), 1);
        held.let_go();
        assert!(namespaces(&state).is_empty());
    }
}

#[test]
fn mount_says_that_it_is_virtual() {
    for &mounts in Mounts::all() {
        let (state, dir) = (StateDir::new(), StateDir::new());
        let dir = path(dir.path().into());
        let output = mounts.script(&state, &[("D", &dir)], r#""$MQNS" mount "$D"; "$MQNS" umount "$D""#);
        let notice = format!(
            "mqns: {dir}: a virtual mount, seen by programs with the library only; do it as root for one that all see\n"
        );
        let expected = if mounts == Mounts::Virtual { notice.as_str() } else { "" };
        assert_eq!((out(&output), err(&output), output.status.code()), ("", expected, Some(0)), "{mounts:?}");
    }
}

#[test]
fn mount_takes_options_and_a_source() {
    for &mounts in Mounts::all() {
        let (state, dir) = (StateDir::new(), StateDir::new());
        let dir = path(dir.path().into());
        let text = r#"
            "$MQNS" run "$PROBE" 'create /q x'
            show() {
                "$MQNS" mount -q "$@" "$D" && "$MQNS" run sed -n "\\,$D,p" /proc/mounts && "$MQNS" umount "$D"
            }
            show
            show -o rw
            show -o ro,nosuid,nodev,noexec --source 'some queues'
            show -o ro -o rw,noatime,nodiratime
            show -o strictatime --source=''
            show -o noatime,relatime
            "$MQNS" mount -q -o ro "$D"
            "$MQNS" run rm "$D/q" 2>&1
            "$MQNS" umount "$D"
        "#;
        let output = mounts.script(&state, &[("D", &dir)], text);
        let mut lines = vec!["ok".to_string()];
        for (source, options) in [
            ("mqueue", "rw,relatime"),
            ("mqueue", "rw,relatime"),
            ("some\\040queues", "ro,nosuid,nodev,noexec,relatime"),
            ("mqueue", "rw,noatime,nodiratime"),
            ("", "rw"),
            ("mqueue", "rw,relatime"),
        ] {
            lines.push(format!("{source} {dir} mqueue {options} 0 0"));
        }
        lines.push(format!("rm: cannot remove '{dir}/q': Read-only file system"));
        prints(&output, &lines.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

#[test]
fn mount_and_umount_say_what_fails() {
    for &mounts in Mounts::all() {
        let (state, dir) = (StateDir::new(), StateDir::new());
        write(dir.path(), "file", b"", 0o644);
        let dir = path(dir.path().into());
        let text = r#"
            exec 2>&1
            cd "$D" && mkdir d
            mount() { "$MQNS" mount "$@"; echo $?; }
            umount() { "$MQNS" umount "$@"; echo $?; }
            mount none
            mount file
            umount none
            umount file
            umount d
            umount /proc
            mount --ns 4194304 d
            mount --ns 4194305 d
            mount --ns ./none d
            mount --ns ./file d
            mount --ns /proc/self/ns/uts d
            "$MQNS" mount -q d
            mount -q d
            # Another directory's are not its own.
            mkdir other; umount --dir other d
            MQNS_MOUNT=/x:$D/d umount d
            umount d
        "#;
        let output = mounts.script(&state, &[("D", &dir)], text);
        let not_mounted = |dir: &str| {
            format!(
                "{dir}: the library's queues are not mounted there; see `mqns run cat /proc/mounts`, or name by --dir \
                 the directory that programs were run with"
            )
        };
        let mut lines = Vec::new();
        for said in [
            "none: no such directory; make it first (mkdir)",
            "file: not a directory; name a directory",
            "none: No such file or directory; see `mqns run cat /proc/mounts`",
            &not_mounted("file"),
            &not_mounted("d"),
            &not_mounted("/proc"),
            "process 4194304: no such process; see `mqns lsns` or ps(1) for one that is there",
            "namespace 4194305: no process in it that may be looked into; see `mqns lsns`; of other users' processes \
             only root finds the namespaces",
            "namespace ./none: no such file; --ns takes a name or number of `mqns lsns`, a process id, or a namespace \
             file (/proc/PID/ns/ipc)",
            "namespace ./file: not the file of an IPC namespace, or of one that has ended; --ns takes /proc/PID/ns/ipc, \
             or what that was bind mounted on; see `mqns lsns`",
            "namespace /proc/self/ns/uts: not the file of an IPC namespace, or of one that has ended; --ns takes \
             /proc/PID/ns/ipc, or what that was bind mounted on; see `mqns lsns`",
            "d: the queues of this namespace are mounted there already; `mqns umount` it first, or name another \
             directory",
            &not_mounted("d"),
            "d: shown by MQNS_MOUNT, not mounted; unset MQNS_MOUNT (env -u MQNS_MOUNT …) to see what is mounted",
        ] {
            lines.push(format!("mqns: {said}"));
            lines.push("125".into());
        }
        lines.push("0".into());
        assert_eq!(out(&output).lines().collect::<Vec<_>>(), lines, "{mounts:?}");
    }
}

#[test]
fn umount_leaves_other_mounts_alone() {
    if !Mounts::all().contains(&Mounts::Real) {
        return;
    }
    let (state, dir) = (StateDir::new(), StateDir::new());
    let dir = path(dir.path().into());
    let text = r#"
        mount -t tmpfs other "$D"
        "$MQNS" umount "$D" || "$MQNS" umount --lazy "$D" || stat -f -c %T "$D"
        "$MQNS" mount "$D" && "$MQNS" umount "$D" && stat -f -c %T "$D"
    "#;
    let output = Mounts::Real.script(&state, &[("D", &dir)], text);
    assert_eq!((out(&output), err(&output).lines().count()), ("tmpfs\ntmpfs\n", 2), "{output:?}");
    assert!(err(&output).lines().all(|line| line.contains("the library's queues are not mounted there")));
}

#[test]
fn umount_names_who_is_in_the_way() {
    for &mounts in Mounts::all() {
        let (state, dir) = (StateDir::new(), StateDir::new());
        let dir = path(dir.path().into());
        let text = r#"
            exec 2>&1
            "$MQNS" run "$PROBE" 'create /q x'
            "$MQNS" mount -q "$D"
            env -C "$D" "$MQNS" umount "$D"
            "$MQNS" run sh -c '
                echo $$
                # Somebody in the directory, and then with a queue open.
                cd "$D"
                env -C / "$MQNS" umount "$D"
                cd /
                exec 3<"$D/q"
                "$MQNS" umount "$D"
                "$MQNS" umount -l "$D" && "$MQNS" run ls "$D" && read -r line <&3 && echo "$line"
            '
        "#;
        let output = mounts.script(&state, &[("D", &dir)], text);
        let pid = out(&output).lines().nth(2).unwrap_or_else(|| panic!("{output:?}"));
        let end = "end these uses, or give --lazy: then it goes with the last of them";
        let own = format!("mqns: {dir}: in use: it is the current directory; {end}");
        let busy = format!("mqns: {dir}: in use by process {pid}; {end}");
        prints(&output, &["ok", &own, pid, &busy, &busy, "QSIZE:1          NOTIFY:0     SIGNO:0     NOTIFY_PID:0"]);
    }
}

#[test]
fn mount_takes_the_right_to_mount() {
    if !is_root() {
        return;
    }
    let (state, dir) = (StateDir::new(), StateDir::new());
    let dir = path(dir.path().into());
    let refused = |text: &str| Mounts::Refused.script(&state, &[("D", &dir)], text);
    let parts =
        ["not permitted without CAP_SYS_ADMIN; do it as root, or give `--privileges generous` for a mount that"];
    refuses(&refused(r#""$MQNS" mount "$D""#), 125, &parts);
    // Whatever the environment says.
    let text = r#"MQNS_PRIVILEGES=generous "$MQNS" mount --privileges exact "$D""#;
    refuses(&refused(text), 125, &parts);
    let text = r#""$MQNS" mount -q --privileges generous "$D" && "$MQNS" umount "$D""#;
    refuses(&refused(text), 125, &["not permitted without CAP_SYS_ADMIN; do it as root"]);
    prints(&refused(r#""$MQNS" umount --privileges generous "$D""#), &[]);
    if harness::may_mount() {
        // One of the kernel's, for somebody who may take off virtual ones only.
        let text = r#"
            "$MQNS" mount "$D"
            setpriv --bounding-set -sys_admin "$MQNS" umount --privileges generous "$D"
        "#;
        let parts = ["mounted by somebody with the right to mount", "; do it as root"];
        refuses(&Mounts::Real.script(&state, &[("D", &dir)], text), 125, &parts);
    }
}

/// By another directory the queues are others, and so is the table of what is mounted.
#[test]
fn mount_takes_the_directory_of_the_process() {
    for &mounts in Mounts::all() {
        let (state, elsewhere, dir) = (StateDir::new(), StateDir::new(), StateDir::new());
        let held = Held::probe(&state, &[], &["run", "--ipc"], &["create /inner x"]);
        let initial = Held::probe(&state, &[], &["run"], &["create /outer x"]);
        let (own, dir, pid) = (path(state.path().into()), path(dir.path().into()), held.pid());
        let (number, initial_pid) = (held.number().to_string(), initial.pid());
        let variables = [("D", dir.as_str()), ("OWN", &own), ("PID", &pid), ("N", &number), ("INITIAL", &initial_pid)];
        let text = r#"
            for ns in "$PID" "$N" "$INITIAL"; do
                "$MQNS" mount -q --ns "$ns" "$D" && "$MQNS" run --dir "$OWN" sh -c 'stat -f -c %T "$D"; ls "$D"'
                "$MQNS" umount --dir "$OWN" "$D"
            done
            # If it is named, that counts.
            "$MQNS" mount -q --ns "$INITIAL" --dir "$STATE" "$D" && "$MQNS" run sh -c 'stat -f -c %T "$D"; ls "$D"'
            "$MQNS" umount "$D"
        "#;
        let output = mounts.script(&elsewhere, &variables, text);
        prints(&output, &["mqueue", "inner", "mqueue", "inner", "mqueue", "outer", "mqueue"]);
        held.let_go();
        initial.let_go();
    }
}

#[test]
fn run_mount_shows_a_command_its_own_queues() {
    let (state, dir) = (StateDir::new(), StateDir::new());
    let at = |name: &str| path(dir.path().join(name));
    fs::create_dir(at("there")).expect("mkdir");
    let (there, none) = (at("there"), at("none"));
    let script = format!("'{}' 'create /q x'; ls {there} {none}; echo $MQNS_MOUNT", ns_probe());
    let mut command = mqns_alone(&state, &[]);
    command.args(["run", "--mount", "there", "--mount", &none, "sh", "-c", &script]).current_dir(dir.path());
    let listed = [&format!("{none}:"), "q", "", &format!("{there}:"), "q", &format!("{there}:{none}")];
    prints(&command.output().expect("run mqns"), &[&["ok"], &listed[..]].concat());
    // Nobody else does, and it is not mounted.
    assert_eq!(fs::read_dir(&there).expect("list").count(), 0);
    // Those of the namespace that it enters, or is the first in.
    let held = Held::probe(&state, &[], &["run", "--ipc"], &["create /inner x"]);
    prints(&alone(&state, &["enter", "-t", &held.pid(), "--mount", &there, "ls", &there]), &["inner"]);
    held.let_go();
    prints(&alone(&state, &["run", "--ipc", "--mount", &there, "ls", &there]), &[]);

    write(dir.path(), "file", b"", 0o644);
    refuses(&alone(&state, &["run", "--mount", &at("file"), "true"]), 125, &["file: not a directory; --mount takes"]);
    refuses(&alone(&state, &["run", "--mount", &at("a:b"), "true"]), 125, &["a:b: a colon in the path, which"]);
}

// The command itself.

// Queues.

/// What it printed; nothing was wrong.
#[track_caller]
fn says(state: &StateDir, arguments: &[&str]) -> String {
    let output = alone(state, arguments);
    assert_eq!((output.status.code(), err(&output)), (Some(0), ""), "{arguments:?}");
    out(&output).to_string()
}

/// The same, as JSON.
#[track_caller]
fn tells(state: &StateDir, arguments: &[&str]) -> Value {
    serde_json::from_str(&says(state, arguments)).expect("JSON")
}

/// A JSON object in each line.
#[track_caller]
fn lines_of(state: &StateDir, arguments: &[&str]) -> Vec<Value> {
    says(state, arguments).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// `mqns` with something in its standard input.
fn fed(state: &StateDir, arguments: &[&str], input: &[u8]) -> Output {
    let mut command = mqns_alone(state, &[]);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("run mqns");
    child.stdin.take().expect("a pipe").write_all(input).expect("write to mqns");
    child.wait_with_output().expect("wait")
}

/// The name of the user with this number, or the number.
fn user_name(uid: u32) -> String {
    let known = Command::new("id").args(["-un", &uid.to_string()]).output().expect("run id");
    if known.status.success() { out(&known).trim().to_string() } else { uid.to_string() }
}

fn own_name() -> String {
    // SAFETY: no arguments.
    user_name(unsafe { libc::getuid() })
}

/// A child in the background, which is ended.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `mqns ARGUMENTS…`, which sleeps on a queue: until `key` of `mqns stat` has an entry for it.
fn asleep(state: &StateDir, queue: &str, key: &str, arguments: &[&str]) -> Ended {
    let sleepers = || tells(state, &["stat", "-J", queue])["queues"][0][key].as_array().expect("a list").len();
    let before = sleepers();
    let mut command = mqns_alone(state, &[]);
    let child = Ended(command.args(arguments).stdout(Stdio::piped()).spawn().expect("run mqns"));
    while sleepers() == before {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child
}

#[test]
fn ls_lists_queues() {
    let state = StateDir::new();
    let empty = "NAME OWNER MODE MSGS BYTES MAXMSG MSGSIZE RECV SEND NOTIFY OPENERS\n";
    assert_eq!(says(&state, &["ls"]), empty);
    assert_eq!(says(&state, &["mk", "/b", "--maxmsg", "1", "--msgsize", "2048", "--mode", "0640"]), "");
    assert_eq!(says(&state, &["mk", "/a b\u{e4}\u{1b}", "--mode=600"]), "");
    assert_eq!(says(&state, &["send", "/b", "hello"]), "");
    let sender = asleep(&state, "b", "senders", &["send", "/b", "more"]);
    let receivers = ["1", "2"].map(|_| asleep(&state, "/a b\u{e4}\u{1b}", "receivers", &["recv", "/a b\u{e4}\u{1b}"]));
    let mut notified = mqns_alone(&state, &[]);
    notified.args(["run", &probe(), "notify", "/b"]);
    let (notified, said) = Held::start(notified, 1);
    assert_eq!(said, ["ok"]);

    let me = own_name();
    let list = tells(&state, &["ls", "-J"]);
    let expected = json!({ "queues": [
        { "name": "/a b\u{e4}\u{1b}", "owner": me, "mode": "0600", "msgs": 0, "bytes": 0, "maxmsg": 10,
          "msgsize": 8192, "recv": 2, "send": 0, "notify": null, "openers": 2 },
        { "name": "/b", "owner": me, "mode": "0640", "msgs": 1, "bytes": 5, "maxmsg": 1,
          "msgsize": 2048, "recv": 0, "send": 1, "notify": notified.child.id(), "openers": 2 },
    ]});
    assert_eq!(list.to_string(), expected.to_string());
    let lines = says(&state, &["ls"]);
    let words: Vec<Vec<&str>> = lines.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[0].join(" "), empty.trim());
    assert_eq!(words[1].join(" "), format!("/a b\u{e4}\\x1b {me} 0600 0 0B 10 8K 2 0 - 2"));
    let pid = notified.pid();
    assert_eq!(words[2].join(" "), format!("/b {me} 0640 1 5B 1 2K 0 1 {pid} 2"));
    assert_eq!(says(&state, &["ls", "-b", "-n", "-o", "msgsize"]), "8192\n2048\n");
    assert_eq!(
        says(&state, &["ls", "-r", "-o", "NAME,msgsize,NOTIFY"]),
        format!("NAME MSGSIZE NOTIFY\n/a\\x20b\u{e4}\\x1b 8192 -\n/b 2048 {pid}\n")
    );
    assert_eq!(says(&state, &["ls", "-nro", "MSGS"]), "0\n1\n");

    drop(receivers);
    drop(sender);
    notified.let_go();
    // What has been killed in its sleep does not count.
    assert_eq!(says(&state, &["ls", "-nro", "RECV,SEND,NOTIFY,OPENERS"]), "0 0 - 0\n0 0 - 0\n");
}

#[test]
fn ls_shows_users_what_is_theirs() {
    if !somebody_or_skip() {
        return;
    }
    let state = StateDir::new();
    fs::set_permissions(state.path(), fs::Permissions::from_mode(0o1777)).expect("chmod");
    for (queue, mode) in [("/all", "666"), ("/read", "644"), ("/secret", "600"), ("/send", "622")] {
        says(&state, &["mk", queue, "--mode", mode]);
        says(&state, &["send", queue, "hello"]);
    }
    let list = |arguments: &[&str]| {
        let output = mqns_alone(&state, SOMEBODY).args(arguments).output().expect("run mqns");
        assert_eq!((output.status.code(), err(&output)), (Some(0), ""));
        out(&output).to_string()
    };
    let me = own_name();
    assert_eq!(
        list(&["ls", "-nro", "NAME,OWNER,MODE,MSGS,BYTES,RECV,OPENERS"]),
        format!(
            "/all {me} 0666 1 5 0 0\n/read {me} 0644 1 5 0 0\n/secret {me} 0600 - - - -\n/send {me} 0622 1 - - 0\n"
        )
    );
    let secret = list(&["stat", "secret"]);
    assert!(secret.contains(&format!("Owner      {me}, group ")) && secret.contains("not for this user to know"));
    let secret: Value = serde_json::from_str(&list(&["stat", "-J", "secret"])).expect("JSON");
    assert_eq!((&secret["queues"][0]["mode"], &secret["queues"][0]["msgs"]), (&json!("0600"), &Value::Null));
    // It is not taken for empty, nor for zero.
    let metrics = list(&["stat", "--prometheus"]);
    assert!(metrics.contains("mqns_queue_bytes{queue=\"/read\"} 5\n") && !metrics.contains("/secret"), "{metrics}");
    let refused = |arguments: &[&str], parts: &[&str]| {
        let output = mqns_alone(&state, SOMEBODY).args(arguments).output().expect("run mqns");
        refuses(&output, 1, parts);
    };
    for arguments in
        [&["recv", "/send"][..], &["peek", "/send"], &["purge", "/send"], &["send", "/read", "x"], &["peek", "/secret"]]
    {
        refused(arguments, &[": permission denied; see `mqns ls` for its owner and mode"]);
    }
    // As unlink(2) in a directory with the sticky bit.
    refused(&["rm", "/all"], &["/all: it is another user's; only its owner and root"]);
    assert_eq!(list(&["send", "/send", "x"]) + &list(&["recv", "/all"]), "hello\n");
    refused(&["limits", "msg_max=20"], &["msg_max: only root of the namespace may set it; do it as root"]);
    assert_eq!(list(&["limits", "--privileges", "generous", "msg_max=20"]) + &list(&["limits", "msg_max"]), "20\n");
}

#[test]
fn stat_tells_all_about_queues() {
    let state = StateDir::new();
    says(&state, &["mk", "jobs", "--maxmsg", "2", "--msgsize", "64", "--mode", "600"]);
    says(&state, &["send", "jobs", "one"]);
    says(&state, &["send", "jobs", "two"]);
    let senders = ["3", "4"].map(|text| asleep(&state, "jobs", "senders", &["send", "jobs", text]));
    let pids = senders.each_ref().map(|sender| sender.0.id());
    let mut sorted = pids;
    sorted.sort_unstable();
    let answer = tells(&state, &["stat", "--json", "jobs"]);
    let queue = &answer["queues"][0];
    let times = ["created", "used"].map(|key| queue[key].as_u64().expect("a number"));
    assert!(times[0] > 1_700_000_000 && times[0] <= times[1], "{times:?}");
    // SAFETY: no arguments.
    let (uid, gid) = unsafe { (libc::getuid(), libc::getgid()) };
    let expected = json!({ "queues": [{
        "name": "/jobs", "owner": own_name(), "uid": uid, "gid": gid, "mode": "0600", "msgs": 2, "bytes": 6,
        "maxmsg": 2, "msgsize": 64, "charged": 320, "receivers": [], "senders": pids, "notify": null,
        "openers": sorted, "sent": 2, "received": 0, "created": times[0], "used": times[1],
    }]});
    assert_eq!(answer.to_string(), expected.to_string());
    says(&state, &["mk", "other", "--mode", "644"]);
    let mut notified = mqns_alone(&state, &[]);
    notified.args(["run", &probe(), "notify", "/other"]);
    let (notified, _) = Held::start(notified, 1);
    let sheets = says(&state, &["stat", "/jobs", "/other"]);
    for line in [
        "Queue      /jobs".to_string(),
        "Messages   2 of 2, of up to 64 bytes".into(),
        "Content    6 bytes".into(),
        "Charged    320 bytes, to its maker's RLIMIT_MSGQUEUE".into(),
        "Receivers  none wait".into(),
        format!("Senders    2 wait: {} {}", pids[0], pids[1]),
        "Notify     nobody is registered".into(),
        format!("Openers    {} {}", sorted[0], sorted[1]),
        "Sent       2 messages; 0 received".into(),
        "Senders    none wait".into(),
        format!("Notify     process {}, SIGEV_SIGNAL, signal {}", notified.pid(), libc::SIGUSR1),
    ] {
        assert!(sheets.lines().any(|there| there == line), "{line:?} is not in\n{sheets}");
    }
    assert_eq!(sheets.split("\n\n").count(), 2);
    // It has not set the notification off, nor taken it away.
    let notify = &tells(&state, &["stat", "-J", "other"])["queues"][0]["notify"];
    assert_eq!(notify, &json!({ "pid": notified.child.id(), "kind": "SIGEV_SIGNAL", "signal": libc::SIGUSR1 }));
    notified.let_go();
    refuses(&alone(&state, &["stat", "jobs", "no"]), 1, &["/no: no such queue in this namespace; see `mqns ls`"]);
    refuses(&alone(&state, &["stat", "a/b"]), 1, &["/a/b: no queue can have this name; "]);
}

#[test]
fn stat_has_metrics_for_prometheus() {
    let state = StateDir::new();
    says(&state, &["mk", "q\"\\\n", "--maxmsg", "3", "--msgsize", "100"]);
    says(&state, &["send", "q\"\\\n", "hello"]);
    let text = says(&state, &["stat", "--prometheus"]);
    let lines: Vec<_> = text.lines().collect();
    for (name, value) in [
        ("messages", 1),
        ("bytes", 5),
        ("max_messages", 3),
        ("max_message_bytes", 100),
        ("receivers_waiting", 0),
        ("senders_waiting", 0),
        ("openers", 0),
    ] {
        let at = lines.iter().position(|line| *line == format!("# TYPE mqns_queue_{name} gauge")).expect("a type");
        assert!(lines[at - 1].starts_with(&format!("# HELP mqns_queue_{name} ")));
        assert_eq!(lines[at + 1], format!("mqns_queue_{name}{{queue=\"/q\\\"\\\\\\n\"}} {value}"));
    }
    says(&state, &["recv", "q\"\\\n"]);
    let text = says(&state, &["stat", "--prometheus"]);
    for name in ["sent_total", "received_total"] {
        let counted = format!("# TYPE mqns_queue_{name} counter\nmqns_queue_{name}{{queue=\"/q\\\"\\\\\\n\"}} 1\n");
        assert!(text.contains(&counted), "{counted:?} is not in {text}");
    }
}

#[test]
fn mk_makes_queues() {
    let state = StateDir::new();
    let made = |arguments: &[&str], umask: libc::mode_t| {
        let mut command = mqns_alone(&state, &[]);
        command.arg("mk").args(arguments);
        // SAFETY: a system call only.
        unsafe {
            command.pre_exec(move || {
                libc::umask(umask);
                Ok(())
            })
        };
        command.output().expect("run mqns")
    };
    for (name, more, umask, expected) in [
        ("/plain", &[][..], 0o022, "0644 10 8192"),
        ("/masked", &[], 0o077, "0600 10 8192"),
        ("/exact", &["--mode", "1622"], 0o077, "1622 10 8192"),
        ("/some", &["--maxmsg", "1"], 0o022, "0644 1 8192"),
        ("/small", &["--maxmsg=1", "--msgsize=1"], 0o022, "0644 1 1"),
    ] {
        let output = made(&[&[name][..], more].concat(), umask);
        assert_eq!((output.status.code(), out(&output), err(&output)), (Some(0), "", ""));
        let queue = &tells(&state, &["stat", "-J", name])["queues"][0];
        let has = format!("{} {} {}", queue["mode"].as_str().expect("a mode"), queue["maxmsg"], queue["msgsize"]);
        assert_eq!(has, expected, "{name}");
    }
    refuses(&made(&["plain"], 0), 1, &["/plain: there is one already; "]);
    for name in ["", "/", ".", "..", "a/b", "//a"] {
        refuses(&made(&[name], 0), 1, &["no queue can have this name; "]);
    }
    refuses(&made(&[&"x".repeat(256)], 0), 1, &["the name is longer than 255 bytes; "]);
    refuses(&made(&["/q", "--maxmsg", "0"], 0), 1, &["0 messages of 8192 bytes are not within msg_max (10) and"]);
    refuses(&made(&["/q", "--msgsize", "-1"], 0), 1, &["10 messages of -1 bytes are not within msg_max"]);
    says(&state, &["limits", "queues_max=5"]);
    let full = made(&["/q"], 0);
    // Who has CAP_SYS_RESOURCE is not bound.
    if full.status.code() != Some(0) {
        refuses(&full, 1, &["/q: there are 5 queues, and queues_max is 5; see `mqns limits`"]);
    }
    let mut command = mqns_alone(&state, &[]);
    command.args(["mk", "/r", "--maxmsg", "1", "--msgsize", "1"]);
    says(&state, &["limits", "queues_max=256"]);
    // SAFETY: a system call only, on a local.
    unsafe {
        command.pre_exec(|| {
            let limit = libc::rlimit { rlim_cur: 1000, rlim_max: 1000 };
            libc::setrlimit(libc::RLIMIT_MSGQUEUE, &limit);
            Ok(())
        })
    };
    let output = command.output().expect("run mqns");
    refuses(
        &output,
        1,
        &["/r: RLIMIT_MSGQUEUE: it takes 97 bytes, and ", " of 1000 are charged already; see `mqns limits`"],
    );
}

#[test]
fn rm_takes_queues_away() {
    let state = StateDir::new();
    for name in ["a", "b", "c"] {
        says(&state, &["mk", name]);
    }
    says(&state, &["rm", "/a"]);
    assert_eq!(says(&state, &["ls", "-nro", "NAME"]), "/b\n/c\n");
    // The others go nevertheless.
    let output = alone(&state, &["rm", "/b", "/no", "/c"]);
    refuses(&output, 1, &["/no: no such queue in this namespace"]);
    assert_eq!(says(&state, &["ls", "-n"]), "");
    let output = alone(&state, &["rm", "/no", "/neither"]);
    assert_eq!((output.status.code(), err(&output).lines().count()), (Some(1), 2), "{output:?}");
}

#[test]
fn messages_are_bytes() {
    let state = StateDir::new();
    says(&state, &["mk", "q", "--maxmsg", "4", "--msgsize", "8000"]);
    let all: Vec<u8> = (0..8000u32).map(|n| (n % 256) as u8).collect();
    for message in [&b""[..], b"\n", b"a\0\xff\n\x1b[31m\\", &all] {
        for arguments in [&["recv", "--raw", "q"][..], &["peek", "--raw", "q"], &["peek", "--index", "0", "--raw", "q"]]
        {
            let sent = fed(&state, &["send", "--stdin", "q"], message);
            assert_eq!((sent.status.code(), err(&sent)), (Some(0), ""));
            let output = alone(&state, arguments);
            assert_eq!((output.status.code(), err(&output)), (Some(0), ""));
            assert!(output.stdout == message, "{arguments:?}");
            says(&state, &["recv", "--all", "q"]);
        }
    }
    use std::os::unix::ffi::OsStringExt;
    let mut command = mqns_alone(&state, &[]);
    command.args(["send", "q"]).arg(OsString::from_vec(b"a\xff\n".to_vec()));
    assert!(command.status().expect("run mqns").success());
    says(&state, &["send", "q", "--priority", "32767", "--", "--help"]);
    says(&state, &["send", "q", "-p1", "\u{e4}\\"]);
    assert_eq!(says(&state, &["peek", "--text", "q"]), "--help\n\u{e4}\\\na\\xff\\x0a\n");
    assert_eq!(says(&state, &["peek", "--hex", "q"]), "2d2d68656c70\nc3a45c\n61ff0a\n");
    let list = [
        json!({ "priority": 32767, "bytes": 6, "text": "--help" }),
        json!({ "priority": 1, "bytes": 3, "text": "\u{e4}\\" }),
        json!({ "priority": 0, "bytes": 3, "hex": "61ff0a" }),
    ];
    assert_eq!(lines_of(&state, &["recv", "--count", "3", "--json", "q"]), list);
}

#[test]
fn who_waits_for_a_queue_says_how_long() {
    let state = StateDir::new();
    says(&state, &["mk", "q", "--maxmsg", "1", "--msgsize", "10"]);
    let start = std::time::Instant::now();
    let over = |arguments: &[&str], part: &str| refuses(&alone(&state, arguments), 124, &[part]);
    let took = |least: u64| assert!(start.elapsed() >= std::time::Duration::from_millis(least));
    over(&["recv", "--nonblock", "q"], "/q: the queue is empty; ");
    over(&["recv", "--timeout", "0.1", "q"], "/q: the queue is empty; ");
    took(100);
    says(&state, &["send", "--timeout", "0", "q", "first"]);
    over(&["send", "--nonblock", "q", "x"], "/q: the queue is full; ");
    over(&["send", "--timeout", "0.1", "q", "x"], "/q: the queue is full; ");
    took(200);
    refuses(
        &alone(&state, &["send", "q", "0123456789a"]),
        1,
        &["/q: a message of 11 bytes is longer than its msgsize of 10; "],
    );
    // It waits, and gets in when there is room.
    let sender = asleep(&state, "q", "senders", &["send", "q", "second"]);
    assert_eq!(says(&state, &["recv", "--count", "2", "q"]), "first\nsecond\n");
    drop(sender);
    let mut receiver = asleep(&state, "q", "receivers", &["recv", "q", "-t", "60"]);
    says(&state, &["send", "q", "third"]);
    let mut text = String::new();
    receiver.0.stdout.take().expect("a pipe").read_to_string(&mut text).expect("read");
    assert_eq!(text, "third\n");
    // What has come is printed, though more was asked for.
    says(&state, &["send", "q", "fourth"]);
    let output = alone(&state, &["recv", "--count", "2", "--timeout", "0.1", "q"]);
    assert_eq!((output.status.code(), out(&output)), (Some(124), "fourth\n"));
    // All, be it nothing.
    assert_eq!(says(&state, &["recv", "--all", "q"]), "");
    let mut follower = asleep(&state, "q", "receivers", &["recv", "--all", "-t", "0.5", "q"]);
    says(&state, &["send", "q", "fifth"]);
    says(&state, &["send", "q", "sixth"]);
    let mut text = String::new();
    follower.0.stdout.take().expect("a pipe").read_to_string(&mut text).expect("read");
    assert_eq!((text.as_str(), follower.0.wait().expect("wait").code()), ("fifth\nsixth\n", Some(0)));
    let output = alone(&state, &["recv", "no"]);
    refuses(&output, 1, &["/no: no such queue in this namespace; see `mqns ls` (--ns, --dir), or make it: mqns mk"]);
}

#[test]
fn peek_leaves_messages_where_they_are() {
    let state = StateDir::new();
    says(&state, &["mk", "q", "--maxmsg", "5", "--msgsize", "20"]);
    assert_eq!(says(&state, &["peek", "q"]), "INDEX PRIORITY BYTES MESSAGE\n");
    refuses(&alone(&state, &["peek", "--index", "0", "q"]), 1, &["/q: it has no message; "]);
    for (priority, text) in [("0", "old"), ("7", "urgent\u{1b}"), ("0", "new"), ("7", "as urgent")] {
        says(&state, &["send", "q", "-p", priority, text]);
    }
    let before = tells(&state, &["stat", "-J", "q"]);
    let table = "INDEX PRIORITY BYTES MESSAGE\n    0        7     7 urgent\\x1b\n    1        7     9 as urgent\n    \
                 2        0     3 old\n    3        0     3 new\n";
    assert_eq!(says(&state, &["peek", "q"]), table);
    assert_eq!(says(&state, &["peek", "q"]), table);
    assert_eq!(says(&state, &["peek", "q", "--index", "2", "--text"]), "old\n");
    assert_eq!(
        lines_of(&state, &["peek", "q", "-i3", "-J"]),
        [json!({ "index": 3, "priority": 0, "bytes": 3, "text": "new" })]
    );
    refuses(&alone(&state, &["peek", "--index", "4", "q"]), 1, &["/q: it has no message 4, only 0 to 3; "]);
    assert_eq!(tells(&state, &["stat", "-J", "q"]), before);
    assert_eq!(says(&state, &["recv", "--all", "q"]), "urgent\\x1b\nas urgent\nold\nnew\n");
    let mut command = mqns_alone(&state, &[]);
    says(&state, &["send", "q", "a message too long"]);
    command.args(["peek", "q"]);
    let cut = on_terminal(command, 30);
    assert!(cut.lines().all(|line| line.len() <= 30) && cut.contains("a messa"), "{cut}");
    let mut command = mqns_alone(&state, &[]);
    command.env("MQNS_LIMITS", "generous").args(["mk", "long", "--msgsize", "1000000"]);
    assert!(command.status().expect("run mqns").success());
    let long = "x".repeat(1_000_000);
    assert!(fed(&state, &["send", "--stdin", "long"], long.as_bytes()).status.success());
    assert!(says(&state, &["peek", "long"]).ends_with(&format!("0        0 1000000 {long}\n")));
}

/// While others send and receive, what is peeked at is whole, in order, and what was sent.
#[test]
fn peek_shows_no_torn_message() {
    let state = StateDir::new();
    // Longer than what is copied under the queue's lock.
    says(&state, &["mk", "q", "--maxmsg", "8", "--msgsize", "6000"]);
    let script = r#"
        i=0
        while [ $i -lt 250 ]; do
            head -c 6000 /dev/zero | tr '\0' $((i % 10)) | "$0" send --stdin q
            i=$((i + 1))
        done"#;
    let shell = |script: &str| {
        let mut command = mqns_alone(&state, &[]);
        command.args(["run", "sh", "-c", script, env!("CARGO_BIN_EXE_mqns")]);
        Ended(command.stdout(Stdio::null()).spawn().expect("run mqns"))
    };
    let mut sender = shell(script);
    let _receiver = shell(r#"while "$0" recv --all -t 0.01 q; do :; done"#);
    let mut seen = 0;
    while sender.0.try_wait().expect("wait").is_none() {
        for message in lines_of(&state, &["peek", "-J", "q"]) {
            let text = message["text"].as_str().expect("digits");
            assert_eq!(text.len(), 6000);
            assert!(text.bytes().all(|digit| digit == text.as_bytes()[0]), "{text}");
            seen += 1;
        }
    }
    println!("{seen} messages peeked at");
}

#[test]
fn purge_empties_a_queue() {
    let state = StateDir::new();
    says(&state, &["mk", "q", "--maxmsg", "2"]);
    assert_eq!(says(&state, &["purge", "q"]), "/q: took away 0 messages\n");
    for text in ["1", "2"] {
        says(&state, &["send", "q", text]);
    }
    let mut sender = asleep(&state, "q", "senders", &["send", "q", "3"]);
    assert_eq!(says(&state, &["purge", "/q"]), "/q: took away 3 messages\n");
    assert!(sender.0.wait().expect("wait").success());
    says(&state, &["send", "q", "4"]);
    assert_eq!(says(&state, &["purge", "--quiet", "q"]), "");
    assert_eq!(says(&state, &["ls", "-nro", "MSGS,BYTES"]), "0 0\n");
    refuses(&alone(&state, &["purge", "no"]), 1, &["/no: no such queue"]);
}

#[test]
fn limits_are_shown_and_set() {
    let state = StateDir::new();
    let names = ["msg_max", "msgsize_max", "queues_max", "msg_default", "msgsize_default"];
    assert_eq!(says(&state, &[&["limits"][..], &names].concat()), "10\n8192\n256\n10\n8192\n");
    says(&state, &["mk", "q", "--maxmsg", "10", "--msgsize", "100"]);
    assert_eq!(says(&state, &["limits", "msg_max=20", "queues_max=-1", "msg_default=15"]), "");
    assert_eq!(says(&state, &["limits", "msg_max", "msgsize_max=9000", "msg_default"]), "20\n15\n");
    says(&state, &["mk", "as-default"]);
    let queue = &tells(&state, &["stat", "-J", "as-default"])["queues"][0];
    assert_eq!((&queue["maxmsg"], &queue["msgsize"]), (&json!(15), &json!(8192)));
    let limits = tells(&state, &["limits", "--json"]);
    assert_eq!(
        limits["limits"],
        json!({ "msg_max": 20, "msgsize_max": 9000, "queues_max": -1, "msg_default": 15, "msgsize_default": 8192 })
    );
    assert_eq!(limits["queues"], 2);
    let charged = 10 * 196 + 15 * (8192 + 96);
    let account = &limits["rlimit_msgqueue"][0];
    assert_eq!((&account["user"], &account["charged"]), (&json!(own_name()), &json!(charged)));
    let text = says(&state, &["limits"]);
    let words: Vec<_> = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for line in ["LIMIT VALUE USED", "msg_max 20 -", "queues_max -1 2", "msgsize_default 8192 -"] {
        assert!(words.iter().any(|there| there == line), "{line} is not in\n{text}");
    }
    assert!(words.iter().any(|line| line.starts_with(&format!("{} {charged} ", own_name()))), "{text}");
    refuses(&alone(&state, &["limits", "msg_max=0"]), 1, &["msg_max: 0 is out of range; it may be 1 to 65536"]);
    refuses(&alone(&state, &["limits", "msgsize_max=127"]), 1, &["msgsize_max: 127 is out of range; it may be 128 to"]);
    // Why EMFILE.
    let mut command = mqns_alone(&state, &[]);
    command.arg("limits");
    // SAFETY: a system call only, on a local.
    unsafe {
        command.pre_exec(|| {
            let limit = libc::rlimit { rlim_cur: 300_000, rlim_max: 300_000 };
            libc::setrlimit(libc::RLIMIT_MSGQUEUE, &limit);
            Ok(())
        })
    };
    let output = command.output().expect("run mqns");
    let left = 300_000 - charged;
    assert!(out(&output).contains(&format!(" 300000 {left}\n")), "{output:?}");
    let last = "A default queue, 15 x 8192, is charged 124320 bytes: 1 more can be made, then mq_open is EMFILE.\n";
    assert!(out(&output).ends_with(last), "{output:?}");
    let output = mqns_alone(&state, &[]).env("MQNS_LIMITS", "generous").arg("limits").output().expect("run mqns");
    assert!(out(&output).ends_with("\nMQNS_LIMITS=generous: who makes a queue here is bound by none of these.\n"));
}

#[test]
fn queues_of_other_namespaces_and_directories() {
    let state = StateDir::new();
    let held = Held::probe(&state, &[], &["run", "--ipc"], &["create /there x"]);
    says(&state, &["mk", "here"]);
    assert_eq!(says(&state, &["ls", "-nro", "NAME"]), "/here\n");
    let link = format!("/proc/{}/ns/ipc", held.pid());
    // By another directory in the environment as well: that of the process holds.
    for (state, ns) in
        [(&state, held.pid()), (&state, link), (&state, held.number().to_string()), (&StateDir::new(), held.pid())]
    {
        assert_eq!(says(state, &["ls", "-nro", "NAME,MSGS", "--ns", &ns]), "/there 1\n");
    }
    let ns = held.pid();
    says(&state, &["mk", "more", "--ns", &ns]);
    says(&state, &["send", "more", "y", "--ns", &ns]);
    assert_eq!(says(&state, &["peek", "more", "--text", "--ns", &ns]), "y\n");
    assert_eq!(says(&state, &["purge", "more", "--ns", &ns]), "/more: took away 1 message\n");
    assert_eq!(says(&state, &["recv", "there", "--ns", &ns]), "x\n");
    says(&state, &["limits", "msg_max=11", "--ns", &ns]);
    assert_eq!(says(&state, &["limits", "msg_max"]) + &says(&state, &["limits", "msg_max", "--ns", &ns]), "10\n11\n");
    says(&state, &["rm", "more", "there", "--ns", &ns]);
    assert_eq!(says(&state, &["stat", "--prometheus", "--ns", &ns]).matches("} ").count(), 0);
    held.let_go();
    let elsewhere = StateDir::new();
    assert_eq!(says(&elsewhere, &["ls", "-nro", "NAME", "--dir", &path(state.path().into())]), "/here\n");
    refuses(&alone(&state, &["ls", "--dir", "/no/such"]), 125, &["/no/such: No such file or directory; --dir"]);
    refuses(&alone(&state, &["ls", "--ns", "/no/such"]), 125, &["namespace /no/such: no such file; --ns takes"]);
}

#[test]
fn queue_commands_say_when_output_fails_and_are_quiet_in_a_pipe() {
    let state = StateDir::new();
    says(&state, &["mk", "q"]);
    for arguments in [
        &["ls"][..],
        &["stat", "q"],
        &["peek", "q"],
        // Before it is full.
        &["purge", "q"],
        &["tap", "q", "-c1"],
        &["top", "-bn1", "-d0.1"],
        &["limits"],
        &["recv", "q"],
    ] {
        says(&state, &["send", "q", "x"]);
        let mut command = mqns_alone(&state, &[]);
        let full = fs::File::options().write(true).open("/dev/full").expect("open /dev/full");
        let output = command.args(arguments).stdout(full).output().expect("run mqns");
        refuses(&output, 125, &["standard output: No space left on device"]);
        // Somebody has read enough.
        says(&state, &["send", "q", "x"]);
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = mqns_alone(&state, &[]).args(arguments).stdout(writer).output().expect("run mqns");
        assert_eq!((output.status.signal(), err(&output)), (Some(libc::SIGPIPE), ""), "{arguments:?}");
    }
}

#[test]
fn version_help_and_usage() {
    let mqns = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_mqns")).args(arguments).output().expect("run mqns");
        (output.status.code(), out(&output).to_string(), err(&output).to_string())
    };
    let version = concat!("mqns ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(mqns(&["--version"]), (Some(0), version.into(), String::new()));
    for arguments in [&["--help"][..], &["run", "--help"], &["help", "run"], &["run", "-h"], &["enter", "--help"]] {
        let (status, out, err) = mqns(arguments);
        assert_eq!((status, err.as_str()), (Some(0), ""));
        assert!(out.contains("Usage: mqns") && (arguments == ["run", "-h"] || out.contains("126 ")), "{out}");
    }
    for verb in [
        "run", "enter", "lsns", "ls", "stat", "mk", "rm", "send", "recv", "peek", "purge", "limits", "mount", "umount",
        "gc", "tap", "top", "bench", "doctor",
    ] {
        let (status, out, err) = mqns(&[verb, "--help"]);
        assert_eq!((status, err.as_str()), (Some(0), ""));
        assert!(out.contains(&format!("Examples:\n  mqns {verb}")), "{out}");
    }
    for arguments in [
        &[][..],
        &["run"],
        &["run", "--limits", "none", "true"],
        &["fly"],
        &["run", "--fly", "true"],
        &["run", "--ipc"],
        &["run", "--fresh"],
        &["run", "--fresh", "--ns", "ci", "true"],
        &["run", "--privileges", "some", "true"],
        &["enter", "true"],
        &["enter", "-t", "1", "--ns", "ci", "true"],
        &["enter", "-t", "0", "true"],
        &["enter", "-t", "self", "true"],
        &["lsns", "-o", "NS,FLY"],
        &["lsns", "--json", "--raw"],
        &["lsns", "1"],
        &["lsns", "--tree=owner"],
        &["ls", "-o", "NAME,FLY"],
        &["ls", "--json", "--raw"],
        &["ls", "/q"],
        &["stat"],
        &["stat", "--prometheus", "/q"],
        &["mk"],
        &["mk", "/q", "--mode", "8"],
        &["mk", "/q", "--mode", "10000"],
        &["mk", "/q", "--maxmsg", "many"],
        &["rm"],
        &["send", "/q"],
        &["send", "/q", "x", "--stdin"],
        &["send", "/q", "x", "--priority", "32768"],
        &["send", "/q", "x", "--timeout", "-1"],
        &["send", "/q", "x", "--timeout", "soon"],
        &["send", "/q", "x", "--timeout", "1", "--nonblock"],
        &["recv"],
        &["recv", "/q", "--all", "--count", "2"],
        &["recv", "/q", "--raw", "--hex"],
        &["peek", "/q", "--index", "-1"],
        &["peek", "/q", "--text", "--json"],
        &["tap"],
        &["tap", "/q", "--count", "0"],
        &["tap", "/q", "--raw", "--priority"],
        &["top", "/q"],
        &["top", "-d", "0.01"],
        &["purge"],
        &["limits", "msg_most"],
        &["limits", "msg_max=many"],
        &["limits", "msg_max", "--json"],
        &["bench", "--rounds", "0"],
        &["bench", "--list", "pair-64"],
        &["mount"],
        &["mount", "-o", "ro,fly", "/proc"],
        &["mount", "-o", "", "/proc"],
        &["mount", "--ns"],
        &["umount"],
        &["umount", "-o", "ro", "/proc"],
        &["gc", "now"],
        &["doctor", "0"],
        &["doctor", "self"],
    ] {
        let (status, out, err) = mqns(arguments);
        assert_eq!((status, out.as_str()), (Some(125), ""), "{arguments:?}");
        assert!(err.contains("Usage") || err.contains("--help"), "{err}");
    }
}

/// Arguments need not be text.
#[test]
fn arguments_are_bytes() {
    let state = StateDir::new();
    use std::os::unix::ffi::OsStringExt;
    let odd = OsString::from_vec(vec![b'a', 0xff, b'\n', b'b']);
    let output = mqns(&state).args(["run", "--", "printf", "%s"]).arg(odd).output().expect("run mqns");
    assert_eq!(output.stdout, b"a\xff\nb");
}

// Measuring.

#[test]
fn bench_measures_both_sides() {
    let state = StateDir::new();
    let picture = path(state.path().join("times.svg"));
    let output = mqns(&state)
        .args(["bench", "--rounds", "1", "--ms", "1", "--plot", &picture, "pair-64", "getattr", "stream-1000"])
        .output()
        .expect("run mqns");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let lines: Vec<&str> = out(&output).lines().collect();
    let names: Vec<_> = lines.iter().map(|line| line.split(' ').next().unwrap_or("")).take(5).collect();
    assert_eq!(names, ["WORKLOAD", "pair-64", "getattr", "stream-1000-one", "stream-1000-two"], "{lines:?}");
    // Times of both, and how many times as fast.
    let times = lines[1].matches(" ns").count() + lines[1].matches(" µs").count();
    assert!(times == 2 && lines[1].contains('×'), "{lines:?}");
    // Of which the progress is seen on a terminal only.
    assert_eq!(err(&output), "");
    let drawn = fs::read_to_string(&picture).expect("the picture");
    assert!(drawn.starts_with("<svg") && drawn.trim_end().ends_with("</svg>"), "{drawn:.80}");
    assert!(drawn.contains("mq_getattr"), "{drawn}");
}

#[test]
fn bench_without_queues_of_the_kernel() {
    let state = StateDir::new();
    let output = alone(&state, &["bench", "--rounds", "1", "--ms", "1", "--json", "pair-64", "epoll-self"]);
    assert_eq!((output.status.code(), err(&output)), (Some(0), ""), "{output:?}");
    let all: Value = serde_json::from_str(out(&output)).expect("JSON");
    let workloads = all["workloads"].as_array().expect("a list");
    assert_eq!(workloads.len(), 2);
    for workload in workloads {
        assert_eq!(workload["kernel_cannot"], json!("open: Function not implemented"), "{workload}");
        assert_eq!((&workload["times"], &workload["kernel"]), (&Value::Null, &json!({})), "{workload}");
        let ns = workload["mqns"]["ns"].as_f64().expect("a time");
        assert!(ns > 1.0 && ns < 1e9, "{workload}");
    }
    let output = alone(&state, &["bench", "--rounds", "1", "--ms", "1", "pair-64"]);
    assert!(out(&output).contains("Not measured on the kernel: all (open: Function not implemented)."), "{output:?}");
}

/// What the measurement has put into shared memory goes with it.
#[test]
fn bench_ends_by_a_signal() {
    let state = StateDir::new();
    let mut command = mqns(&state);
    command.args(["bench", "--rounds", "1000", "--ms", "20", "pair-64"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut bench = command.spawn().expect("run mqns");
    // The directory of a client's queues, from its environment.
    let pid = bench.id();
    let directory = || {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let child = children.split(' ').next()?.to_string();
        let environment = fs::read(format!("/proc/{child}/environ")).ok()?;
        let mut variables = environment.split(|&byte| byte == 0);
        let dir = variables.find_map(|variable| variable.strip_prefix(b"MQNS_DIR="))?;
        let dir = PathBuf::from(String::from_utf8_lossy(dir).into_owned());
        (dir != state.path()).then_some(dir)
    };
    let found = loop {
        if let Some(dir) = directory() {
            break dir;
        }
        assert_eq!(bench.try_wait().expect("wait"), None);
    };
    // SAFETY: no pointers; the process is a child that has not been waited for.
    unsafe { libc::kill(bench.id() as i32, libc::SIGTERM) };
    assert_eq!(bench.wait().expect("wait").signal(), Some(libc::SIGTERM));
    assert!(!found.exists(), "{}", found.display());
}

#[test]
fn bench_refuses_what_it_cannot_do() {
    let state = StateDir::new();
    let bench = |arguments: &[&str]| mqns(&state).arg("bench").args(arguments).output().expect("run mqns");
    refuses(&bench(&["nonsense"]), 125, &["nonsense: no such workload", "--list"]);
    refuses(&bench(&["pair-6"]), 125, &["pair-6: no such workload"]);
    let nowhere = ["--plot", "/no/such/directory/x.svg", "pair-64"];
    refuses(&bench(&nowhere), 125, &["/no/such/directory/x.svg: No such file or directory", "--plot"]);
    assert!(out(&bench(&["--list"])).contains("pingpong-two"));
}
