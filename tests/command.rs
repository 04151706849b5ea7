//! The command `mqns`: what it starts, what it refuses to start and why, its exit status.

mod harness;

use harness::StateDir;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

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

fn write(dir: &Path, name: &str, content: &[u8], mode: u32) -> String {
    let file = dir.join(name);
    fs::File::create(&file).and_then(|mut f| f.write_all(content)).expect("write a file");
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
    fs::copy(env!("CARGO_BIN_EXE_mqns"), &command).expect("copy mqns");
    let installed = |state: &StateDir| {
        let mut run = mqns(state);
        run.env_remove("MQNS_LIB");
        let mut with = Command::new(&command);
        with.args(["run", "sh", "-c", "echo $LD_PRELOAD"]).env_remove("MQNS_LIB").env_remove("LD_PRELOAD");
        with.env("MQNS_DIR", state.path()).output().expect("run mqns")
    };
    refuses(&installed(&state), 125, &["libmqns.so: not found", "MQNS_LIB"]);
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

#[test]
fn program_with_another_c_library() {
    let state = StateDir::new();
    let dir = StateDir::new();
    let with_loader = |name: &str, loader: &str| {
        altered(&dir, name, |bytes| {
            let at = bytes.windows(3).position(|w| w == b"/ld").expect("a loader's name");
            let start = bytes[..at].iter().rposition(|&b| b == 0).expect("its start") + 1;
            let len = bytes[start..].iter().position(|&b| b == 0).expect("its end");
            let mut new = loader.as_bytes().to_vec();
            assert!(new.len() <= len, "too long for the place");
            new.resize(len, 0);
            bytes[start..start + len].copy_from_slice(&new);
        })
    };
    let program = with_loader("musl", "/lib/ld-musl-x86.so.1");
    let parts = ["musl: runs with musl (/lib/ld-musl-x86.so.1), libmqns.so with glibc; ", "set MQNS_LIB"];
    refuses(&run(&state, &[&program]), 126, &parts);
    let program = with_loader("bionic", "/system/ld");
    refuses(&run(&state, &[&program]), 126, &["bionic: runs with another C library (/system/ld)"]);
    let program = with_loader("moved", "/no/ld-linux.so");
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
    fs::copy(harness::program("command_probe"), &program).expect("copy");
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

// The command itself.

#[test]
fn version_help_and_usage() {
    let mqns = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_mqns")).args(arguments).output().expect("run mqns");
        (output.status.code(), out(&output).to_string(), err(&output).to_string())
    };
    let version = concat!("mqns ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(mqns(&["--version"]), (Some(0), version.into(), String::new()));
    for arguments in [&["--help"][..], &["run", "--help"], &["help", "run"], &["run", "-h"]] {
        let (status, out, err) = mqns(arguments);
        assert_eq!((status, err.as_str()), (Some(0), ""));
        assert!(out.contains("Usage: mqns") && (arguments == ["run", "-h"] || out.contains("126 ")), "{out}");
    }
    for arguments in [&[][..], &["run"], &["run", "--limits", "none", "true"], &["fly"], &["run", "--fly", "true"]] {
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
