//! The contract, case by case: `tests/programs/conf_*.c`, each case once on the kernel's queues
//! (which shows that the case is right) and once on libmqns.so's in a process for which the
//! kernel has none.
//!
//! A trial is `native::PROGRAM::CASE` or `shim::PROGRAM::CASE`; cases of the mqueue file system are tried once more
//! without the right to mount, as `virtual::PROGRAM::CASE`. `PROGRAM --list` tells the section
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

/// Where the library differs from the kernel and says so (docs/filesystem.md): these trials are ignored, by
/// name and with the reason.
const DEVIATIONS: [(&str, &str); 5] = [
    ("directory_without_search_permission_hides_files_not_queues", "mq_open needs the directory's search permission"),
    ("file_watch_sees_files_operations", "no IN_ACCESS and IN_CLOSE of queue descriptors"),
    ("a_descriptor_elsewhere_keeps_it_busy", "a descriptor in flight, or received, does not keep a mount busy"),
    ("a_single_queue_is_bound", "a queue's file by itself can be bound, but is only a file there"),
    ("the_root_of_a_process", "after chroot into a mount the library's own files are out of reach"),
];
/// The same for virtual mounts.
const VIRTUAL_DEVIATIONS: [(&str, &str); 6] = [
    ("working_directory_underneath_stays_underneath", "a directory is covered for those, too, who were in it before"),
    ("detached_at_once_and_used_on", "who is in a directory that was covered is in what it covered"),
    ("lazily_unmounted_it_lives_by_a_working_directory", "the same"),
    ("ordinary_users_do_not_mount", "they do, by MQNS_PRIVILEGES=generous"),
    ("nftw_walks_queues", "libc's own walk looks behind the mount"),
    ("relative_to_a_directory_descriptor", "`..` of a descriptor of the mount's root is the library's own directory"),
];

fn deviates(case: &str, mounted_virtually: bool) -> bool {
    DEVIATIONS.iter().any(|(name, _)| *name == case)
        || mounted_virtually && VIRTUAL_DEVIATIONS.iter().any(|(name, _)| *name == case)
}

/// A case without the right to mount: mounts are the library's own.
fn run_virtual(program: &str, case: &str) -> Result<(), Failed> {
    let dir = StateDir::new();
    let run = Run::new(Mode::Shim, "/usr/bin/setpriv").args(["--bounding-set", "-sys_admin"]);
    let run = run.arg(harness::program(program)).arg(case).env("MQNS_PRIVILEGES", "generous");
    Ok(run.dir(&dir).timeout(Duration::from_secs(30)).run().check()?)
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
                    || kernel_mounts && !may_mount
                    || mode == Mode::Shim && deviates(&case.name, false);
                let (p, c) = (program.clone(), case.name.clone());
                let name = format!("{}::{}::{}", mode.name(), program, case.name);
                trials.push(Trial::test(name, move || run(mode, &p, &c)).with_ignored_flag(ignored));
            }
            if case.mounts && !case.real_mount {
                let ignored = !root || deviates(&case.name, true);
                let (p, c) = (program.clone(), case.name.clone());
                let name = format!("virtual::{}::{}", program, case.name);
                trials.push(Trial::test(name, move || run_virtual(&p, &c)).with_ignored_flag(ignored));
            }
        }
    }
    for (case, visit) in LEAVE_NOTHING {
        trials.push(Trial::test(format!("leaves_nothing::{case}"), move || leaves_nothing(case, visit)));
    }
    libtest_mimic::run(&args, trials).exit();
}
