//! The contract, case by case: `tests/programs/conf_*.c`, each case once on the kernel's queues
//! (which shows that the case is right) and once on libmqns.so's in a process for which the
//! kernel has none.
//!
//! A trial is `native::PROGRAM::CASE` or `shim::PROGRAM::CASE`; `PROGRAM --list` tells the section
//! of the contract for each case. Cases that change users are ignored without root; native ones where the kernel has
//! no queues; those for which the C library itself crashes have no native trial.

mod harness;

use harness::{Mode, Run, StateDir};
use libtest_mimic::{Arguments, Failed, Trial};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// One case of one program, as `--list` prints it.
struct Case {
    name: String,
    needs_root: bool,
    shim_only: bool,
    /// It mounts queues: natively that takes root.
    mounts: bool,
    /// It does with mounts what only real ones can.
    real_mount: bool,
}

fn programs() -> Vec<String> {
    let names = fs::read_dir(harness::sources()).expect("tests/programs").flatten();
    let names = names.filter_map(|e| e.file_name().into_string().ok());
    let mut names: Vec<String> =
        names.filter_map(|n| Some(n.strip_suffix(".c")?.to_string())).filter(|n| n.starts_with("conf_")).collect();
    names.sort();
    names
}

fn cases(program: &str) -> Vec<Case> {
    let output = Command::new(harness::program(program)).arg("--list").output().expect("list the cases");
    assert!(output.status.success(), "{program} --list");
    let text = String::from_utf8(output.stdout).expect("names are ASCII");
    text.lines()
        .map(|line| {
            let mut field = line.split('\t');
            let mut next = || field.next().expect("three fields a line").to_string();
            let (name, _section, flags) = (next(), next(), next());
            let has = |flag| flags.split_whitespace().any(|f| f == flag);
            Case {
                name,
                needs_root: has("root"),
                shim_only: has("shim-only"),
                mounts: has("mounts"),
                real_mount: has("real-mount"),
            }
        })
        .collect()
}

/// What stands for queues in the state directory: everything but the files of the namespace itself,
/// which lie at its top.
fn queue_files(dir: &StateDir) -> Vec<PathBuf> {
    dir.files().into_iter().map(|(path, ..)| path).filter(|path| path.components().count() > 2).collect()
}

fn run_case(mode: Mode, program: &str, case: &str, dir: &StateDir) -> Result<(), String> {
    let run = Run::new(mode, harness::program(program)).arg(case).dir(dir);
    run.timeout(Duration::from_secs(30)).run().check()
}

fn run(mode: Mode, program: &str, case: &str) -> Result<(), Failed> {
    let dir = StateDir::new();
    run_case(mode, program, case, &dir)?;
    // The program has unlinked every name it made.
    let names: Vec<_> = queue_files(&dir).into_iter().filter(|p| p.to_string_lossy().contains("conf-")).collect();
    if names.is_empty() { Ok(()) } else { Err(format!("names left behind: {names:?}").into()) }
}

/// Cases whose queues are wholly gone when they end. `true`: by the end of a process which had a
/// queue without a name open, so that the next user of the namespace is the first who can tell.
const LEAVE_NOTHING: [(&str, bool); 6] = [
    ("close_then_unlink_ends_the_queue", false),
    ("unlink_then_close_ends_the_queue", false),
    ("unlink_then_close_of_dups_and_copies_ends_the_queue", false),
    ("failed_creation_makes_no_queue", false),
    ("unlink_then_exit_ends_the_queue", true),
    ("unlink_then_SIGKILL_ends_the_queue", true),
];

fn leaves_nothing(case: &str, visit: bool) -> Result<(), Failed> {
    let dir = StateDir::new();
    run_case(Mode::Shim, "conf_life", case, &dir)?;
    if visit {
        run_case(Mode::Shim, "conf_life", "@visit", &dir)?;
    }
    let left = queue_files(&dir);
    if left.is_empty() { Ok(()) } else { Err(format!("left behind: {left:?}").into()) }
}

/// The launcher refuses what it says it refuses; without this the shim's trials prove nothing.
fn launcher() -> Result<(), Failed> {
    Ok(Run::new(Mode::Native, harness::program("nokernel")).arg("--check").run().check()?)
}

fn main() {
    let args = Arguments::from_args();
    // SAFETY: no arguments.
    let root = unsafe { libc::geteuid() } == 0;
    let may_mount = root && harness::may_mount();
    harness::program("nokernel");
    let mut trials = vec![Trial::test("launcher::refuses_queues_and_ipc_namespaces", launcher)];
    for program in programs() {
        for case in cases(&program) {
            for mode in Mode::ALL {
                if mode == Mode::Native && case.shim_only {
                    continue;
                }
                let kernel_mounts = case.real_mount || case.mounts && mode == Mode::Native;
                let ignored = case.needs_root && !root
                    || mode == Mode::Native && !harness::kernel_has_queues()
                    || kernel_mounts && !may_mount;
                let (p, c) = (program.clone(), case.name.clone());
                let name = format!("{}::{}::{}", mode.name(), program, case.name);
                trials.push(Trial::test(name, move || run(mode, &p, &c)).with_ignored_flag(ignored));
            }
        }
    }
    for (case, visit) in LEAVE_NOTHING {
        trials.push(Trial::test(format!("leaves_nothing::{case}"), move || leaves_nothing(case, visit)));
    }
    libtest_mimic::run(&args, trials).exit();
}
