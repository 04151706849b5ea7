//! Preloaded into programs that use no queue, the library changes nothing: output, exit status,
//! descriptors, threads, signals, files, and what is handed on to children stay as they are.
//!
//! Each program runs twice in the same surroundings, with and without the library.

mod harness;

use harness::StateDir;
use std::ffi::OsString;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs a command, with the library in it or not, in `dir`. A program that never ends is killed.
fn run(preload: bool, dir: &Path, state: &StateDir, command: &[&str]) -> Output {
    let mut run = Command::new("timeout");
    run.args(["-s", "KILL", "120", "env"]);
    if preload {
        let mut variable = OsString::from("LD_PRELOAD=");
        variable.push(harness::library());
        run.arg(variable);
    }
    run.args(command).current_dir(dir).stdin(Stdio::null());
    run.env_remove("LD_PRELOAD").env("MQNS_DIR", state.path()).env("LC_ALL", "C");
    run.output().expect("run timeout(1)")
}

fn text(output: &Output) -> String {
    let how = match (output.status.code(), output.status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, signal) => format!("signal {signal:?}"),
    };
    let [out, err] = [&output.stdout, &output.stderr].map(|b| String::from_utf8_lossy(b).into_owned());
    format!("{how}\n--- stdout\n{out}--- stderr\n{err}")
}

/// Runs the command without and with the library, each in a fresh directory, and compares what they
/// do after `normal` has made it comparable. Returns what both did.
#[track_caller]
fn compare(command: &[&str], normal: impl Fn(String) -> String) -> String {
    let state = StateDir::new();
    let [without, with] = [false, true].map(|preload| {
        let dir = StateDir::new();
        let said = text(&run(preload, dir.path(), &state, command));
        // Where it ran is not what it did.
        normal(said.replace(&*dir.path().to_string_lossy(), "DIR"))
    });
    if without != with {
        let other = without.lines().zip(with.lines()).find(|(a, b)| a != b);
        panic!("{command:?}: differs at {other:?}\n=== without\n{without}\n=== with\n{with}");
    }
    let left: Vec<_> = fs::read_dir(state.path()).expect("the state directory").flatten().collect();
    assert!(left.is_empty(), "{command:?} made {left:?}");
    with
}

#[track_caller]
fn unchanged(command: &[&str]) -> String {
    compare(command, |said| said)
}

/// Unchanged, and it did what it was to do.
#[track_caller]
fn works(command: &[&str]) -> String {
    let said = unchanged(command);
    assert!(said.starts_with("exit status 0\n"), "{command:?}: {said}");
    said
}

fn program(name: &str) -> String {
    harness::program(name).to_str().expect("a path in UTF-8").into()
}

fn installed(tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").output().is_ok_and(|o| o.status.success());
    if !found {
        eprintln!("skipped: no {tool}");
    }
    found
}

/// The loader passes over what it cannot preload; then all the rest would prove nothing.
#[test]
fn library_is_really_there() {
    let state = StateDir::new();
    let [without, with] = [false, true]
        .map(|preload| run(preload, state.path(), &state, &["grep", "-q", "libmqns", "/proc/self/maps"]).status.code());
    assert_eq!((without, with), (Some(1), Some(0)));
}

#[test]
fn process_looks_the_same() {
    let said = works(&[&program("harmless_probe")]);
    assert!(said.contains("Threads:\t1\n") && said.contains("SigCgt:\t0000000000000000\n"), "{said}");
    // Whatever it inherits.
    works(&["sh", "-c", r#"trap '' USR1 PIPE; exec 5</dev/null 9>&1; exec "$0""#, &program("harmless_probe")]);
    unchanged(&["sh", "-c", r#"exec 0<&- 1>&2 2>&-; exec "$0" >&3"#, &program("harmless_probe")]);
    unchanged(&["sh", "-c", r#"exec 0<&- 1>out 2>&-; "$0"; exec cat out"#, &program("harmless_probe")]);
}

/// What reads a path reads it after the kernel has.
#[test]
fn paths_that_are_bad_pointers() {
    let said = unchanged(&[&program("harmless_paths")]);
    assert_eq!(said.matches("Bad address").count(), 2 * 29, "{said}");
}

#[test]
fn signals() {
    let said = unchanged(&[&program("harmless_signals")]);
    for part in ["saw 11 code 2 at 5 nested 2", "leapt, saw 7", "child: signal 11, saw 1", "SIGKILL: -1 EINVAL"] {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
}

#[test]
fn vfork_posix_spawn_system_popen_clone() {
    let said = works(&[&program("harmless_spawn"), &program("harmless_probe")]);
    for part in ["== vfork: status 0", "== posix_spawn: status 0", "== raw clone: status 0", "parent's: 0 -1"] {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
}

#[test]
fn daemon_that_closes_everything() {
    let said = works(&["sh", "-c", r#": > report; exec "$0" report"#, &program("harmless_daemon")]);
    for how in 0..3 {
        let part = format!("daemon {how}: fd 0\ndaemon {how}: fd 1\ndaemon {how}: fd 2\ndaemon {how}: fd 3\n");
        assert!(said.contains(&part), "{part:?} is not in {said}");
    }
}

#[test]
fn threaded_server_on_the_loopback() {
    let said = works(&[&program("harmless_server")]);
    assert!(said.contains("served 1600, "), "{said}");
}

/// Cancellation unwinds the stack of a thread that sleeps in a hook, and runs the clean-up handlers and
/// destructors above; so do pthread_exit and an exception, in a signal handler.
#[test]
fn what_ends_a_sleeping_thread_passes_through_the_hooks() {
    for (name, all) in
        [("harmless_cancel", "handlers 2, destructors 0"), ("harmless_cancel_cxx", "handlers 2, destructors 2")]
    {
        let said = works(&[&program(name)]);
        assert!(said.contains("\nread cancel: cancelled, ") && said.contains("\nlockf exit: cancelled, "), "{said}");
        for line in said.lines().filter(|line| line.contains(": cancelled, ")) {
            assert!(line.ends_with(&format!("{all}, thrown 0, returned 0")), "{line}");
        }
        // The same with a queue among the descriptors, when hooks do more and signals are taken over.
        let (dir, state) = (StateDir::new(), StateDir::new());
        let with_queue = run(true, dir.path(), &state, &[&program(name), "queue"]);
        assert_eq!(text(&with_queue), said);
    }
}

#[test]
fn setsid() {
    works(&["setsid", "-w", &program("harmless_probe")]);
}

#[test]
fn bash() {
    if !installed("bash") {
        return;
    }
    let script = r#"
        trap 'echo caught USR1' USR1; kill -USR1 $$
        trap 'echo leaving' EXIT
        echo one | tr a-z A-Z; (exit 3); echo $?
        exec 7<>/dev/null; ls /proc/self/fd; exec 7>&-
        coproc { read x; echo "got $x"; }; echo hello >&"${COPROC[1]}"; read -u "${COPROC[0]}" y; echo "$y"
        sleep 0 & wait $!; echo $?
        kill -9 $BASHPID & wait $! 2>/dev/null; echo $?
        cat <<<"here"; diff <(echo a) <(echo b); ulimit -n; set -o pipefail; false | true; echo $?
        exit 5
    "#;
    let said = unchanged(&["bash", "-c", script]);
    assert!(said.starts_with("exit status 5\n") && said.contains("got hello\n"), "{said}");
}

#[test]
fn git() {
    if !installed("git") {
        return;
    }
    let script = r#"
        set -e
        export HOME=$PWD GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_DATE='2001-01-01T00:00:00Z' \
            GIT_COMMITTER_DATE='2001-01-01T00:00:00Z' GIT_PAGER=cat
        git config --global user.name A; git config --global user.email a@example.org
        git config --global init.defaultBranch main
        git init -q r; cd r
        for i in 1 2 3; do echo $i > f$i; git add .; git commit -qm "commit $i"; done
        git log --stat; git branch b HEAD~1; git merge-base main b; git status --short
        git repack -qad; git fsck --no-progress; git clone -q . ../c; git -C ../c rev-parse HEAD
        git grep -n 2 || true; git diff HEAD~2 | cat; git show nothing
    "#;
    let said = unchanged(&["sh", "-c", script]);
    assert!(said.starts_with("exit status 128\n") && said.contains("commit 3"), "{said}");
}

#[test]
fn python() {
    if !installed("python3") {
        return;
    }
    let script = r#"
import asyncio, multiprocessing, os, select, signal, socket, subprocess, sys, threading
print(sorted(os.listdir("/proc/self/fd")), threading.active_count())
print([(s, signal.getsignal(s)) for s in (signal.SIGINT, signal.SIGPIPE, signal.SIGSEGV, signal.SIGUSR1)])
signal.signal(signal.SIGUSR1, lambda s, f: print("caught", s)); os.kill(os.getpid(), signal.SIGUSR1)
print(subprocess.run(["sh", "-c", "ls /proc/self/fd; exit 4"], capture_output=True))
print(subprocess.run("exit 5", shell=True, close_fds=False, preexec_fn=os.setsid).returncode)
a, b = socket.socketpair()
e = select.epoll(); e.register(b, select.EPOLLIN); a.send(b"x"); print(e.poll(5)[0][1], select.select([b], [], [], 5)[0] == [b])
p = select.poll(); p.register(b, select.POLLIN); print(p.poll(5000)[0][1])
t = [threading.Thread(target=print, args=("thread",)) for _ in range(4)]
for x in t: x.start(); x.join()
async def main():
    process = await asyncio.create_subprocess_exec("echo", "async", stdout=subprocess.PIPE)
    print(await process.communicate(), await asyncio.gather(*(asyncio.sleep(0, i) for i in range(3))))
asyncio.run(main())
def work(q, n): q.put(n * n)
if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    q = context.Queue(); ps = [context.Process(target=work, args=(q, n)) for n in range(4)]
    [x.start() for x in ps]; print(sorted(q.get() for _ in ps)); [x.join() for x in ps]; print([x.exitcode for x in ps])
    pid = os.fork()
    if not pid: os.abort()
    print(os.waitpid(pid, 0)[1] & 127); sys.exit(6)
"#;
    let said = unchanged(&["python3", "-c", script]);
    assert!(said.starts_with("exit status 6\n") && said.contains("[0, 1, 4, 9]"), "{said}");
}

#[test]
fn perl() {
    if !installed("perl") {
        return;
    }
    let script = r#"
        use POSIX; $| = 1;
        $SIG{USR1} = sub { print "caught\n" }; kill "USR1", $$;
        opendir my $d, "/proc/self/fd"; print join(" ", sort grep { !/^\./ } readdir $d), "\n"; closedir $d;
        pipe my $r, my $w; my $pid = fork // die; unless ($pid) { print $w "child\n"; POSIX::_exit(3) }
        close $w; print <$r>; waitpid $pid, 0; print $? >> 8, "\n"; print `echo backticks`;
        my $in = ""; vec($in, 0, 1) = 1; print select($in, undef, undef, 0), "\n";
        $SIG{ALRM} = sub { die "alarm\n" }; eval { alarm 1; pause }; print $@; exec "sh", "-c", "exit 7";
    "#;
    let said = unchanged(&["perl", "-e", script]);
    assert!(said.starts_with("exit status 7\n") && said.contains("alarm\n"), "{said}");
}

#[test]
fn compiler() {
    let script = r#"
        set -e
        printf '#include <stdio.h>\nint main(void) { printf("hello, world\\n"); return 0; }\n' > hello.c
        ${CC:-cc} -O2 -Wall -pipe hello.c -o hello; ./hello; cksum < hello
        printf 'int f(void) { return x; }\n' > wrong.c; ${CC:-cc} -c wrong.c
    "#;
    let said = unchanged(&["sh", "-c", script]);
    assert!(said.starts_with("exit status 1\n") && said.contains("hello, world\n"), "{said}");
}

/// With the option that the documentation names; the runtime's reports stay.
#[test]
fn address_sanitizer() {
    let asan = program("harmless_asan");
    let option = "ASAN_OPTIONS=verify_asan_link_order=0";
    let said = works(&["env", option, &asan]);
    assert!(said.contains("saw 1, poll 1\nfrom a thread\n"), "{said}");
    for fault in ["use-after-free", "overflow", "leak"] {
        // Of a report only the kind: the rest is addresses.
        let kind = |said: String| {
            let known = |l: &&str| !l.starts_with("==") && !l.contains("0x") || l.contains("ERROR: ");
            let line = |l: &str| match l.split_once("ERROR: ") {
                Some((_, report)) => report.split(" on address").next().unwrap_or(report).to_string(),
                None => l.to_string(),
            };
            said.lines().filter(known).map(line).filter(|l| !l.contains(" in ")).collect::<Vec<_>>().join("\n")
        };
        let said = compare(&["env", option, &asan, fault], kind);
        let report = match fault {
            "use-after-free" => "AddressSanitizer: heap-use-after-free",
            "overflow" => "AddressSanitizer: heap-buffer-overflow",
            _ => "LeakSanitizer: detected memory leaks",
        };
        assert!(!said.starts_with("exit status 0") && said.contains(report), "{fault}: {said}");
    }
}

/// Nothing is made in the default directory either.
#[test]
fn default_directory_stays_unmade() {
    let script = r#"mount -t tmpfs none /dev/shm && export LD_PRELOAD="$1" && unset MQNS_DIR && "$2" >/dev/null &&
        "$3" >/dev/null && bash -c 'echo | cat' >/dev/null && ls -A /dev/shm"#;
    let script = |preload: &str| {
        Command::new("unshare")
            .args(["-m", "sh", "-c", script, "sh", preload])
            .args([program("harmless_probe"), program("harmless_server")])
            .output()
            .expect("run unshare(1)")
    };
    if !script("").status.success() {
        eprintln!("skipped: cannot mount in a mount namespace of its own");
        return;
    }
    let output = script(harness::library().to_str().expect("a path in UTF-8"));
    assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(), "{}", text(&output));
}
