//! Differential tester of the mqueue file system: random trees of tasks that mount, unmount, bind,
//! enter and leave namespaces and work on queues by their files and by their names, natively and
//! under the library.
//!
//! `tests/programs/fs_tree.c` grows the tree and prints a trace; the same seed makes the same trace
//! on the kernel's file system and on ours where the kernel offers neither namespaces nor queues, or
//! it is a difference. The running kernel is the oracle: nothing here says what a result ought to
//! be. Under the library no namespace may be left in the state directory, once all its tasks and
//! mounts have gone politely, or somebody has looked for the remains of those that did not.
//!
//! Three groups of trials: `kernel`, the tester against itself; `shim`, the library with the right
//! to mount; `virtual`, the library without it and with `MQNS_PRIVILEGES=generous`, where the
//! operations leave out what virtual mounts cannot do. The kernel's side has the right always.
//!
//! ```text
//! cargo test --test fstree                          the fixed set of seeds
//! MQNS_DIFF_SEEDS=0..2000 cargo test --test fstree shim
//! MQNS_DIFF_SEEDS=0..300  cargo test --test fstree kernel
//! ```
//!
//! Environment: `MQNS_DIFF_OPS` operations a seed (150); `MQNS_DIFF_MINIMISE=1` shortens a sequence
//! that differs, as long as it still does; `MQNS_DIFF_ONLY=op,op` leaves out the operations of
//! other names (tasks are always made) and `MQNS_DIFF_WITHOUT=op,op` those of these.

mod harness;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};

use harness::{Mode, Run, StateDir};

/// Seeds of every test run.
const SEEDS: Range<u64> = 0..48;
/// The same without the right to mount: those of the first hundred in which nothing happens that virtual mounts
/// cannot do (docs/filesystem.md says what; docs/tests.md how the others end).
const VIRTUAL_SEEDS: [u64; 30] =
    [0, 1, 5, 8, 9, 14, 15, 17, 19, 24, 25, 27, 30, 34, 38, 42, 43, 44, 58, 59, 60, 70, 74, 77, 82, 87, 88, 90, 93, 99];
/// Those of them with which the tester is held against itself.
const SELF_CHECK: Range<u64> = 0..10;
/// Operations a seed.
const OPS: u64 = 150;
/// Lines shown before one that differs.
const CONTEXT: usize = 12;
/// Most tries of the minimiser.
const MINIMISER_RUNS: usize = 500;
/// What stands between an operation and its result.
const ARROW: &str = " -> ";
/// The lines added here about what is left at the end, and once somebody has looked.
const LEFT: &str = "namespaces left";
const LEFT_FOR_GOOD: &str = "namespaces left for good";
/// And where the program did not come to its end.
const BROKEN: &str = "program";

/// Whose file system, and with which rights, is held against the kernel's; and which operations.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    /// The kernel's own.
    Kernel,
    /// The kernel's own, with the operations of [`Side::Virtual`].
    KernelVirtual,
    /// The library's, by real mounts.
    Shim,
    /// The library's, in processes without CAP_SYS_ADMIN.
    Virtual,
}

impl Side {
    fn mode(self) -> Mode {
        match self {
            Side::Kernel | Side::KernelVirtual => Mode::Native,
            Side::Shim | Side::Virtual => Mode::Shim,
        }
    }

    /// The side that stands for what is right.
    fn reference(self) -> Side {
        match self {
            Side::Kernel | Side::Shim => Side::Kernel,
            Side::KernelVirtual | Side::Virtual => Side::KernelVirtual,
        }
    }

    /// In names of trials.
    fn group(self) -> &'static str {
        match self {
            Side::Kernel => "kernel",
            // Not by the name of the virtual side, which selects that one alone.
            Side::KernelVirtual => "kernel_less",
            Side::Shim => "shim",
            Side::Virtual => "virtual",
        }
    }

    fn without_kernel_mounts(self) -> bool {
        self.reference() == Side::KernelVirtual
    }
}

/// What the environment asks for, and the files of this process.
struct Settings {
    ops: u64,
    minimise: bool,
    only: Vec<String>,
    without: Vec<String>,
    dir: PathBuf,
    /// Program and library where every user can read them: tasks that became another user
    /// execute the program.
    program: PathBuf,
    library: PathBuf,
}

/// Where the operations come from.
enum Source<'a> {
    Seed(u64),
    /// Lines of a trace, results included or not.
    Lines(&'a [String]),
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn list(name: &str) -> Vec<String> {
    variable(name).map(|text| text.split(',').map(str::to_string).collect()).unwrap_or_default()
}

/// A directory that goes when its owner does.
struct TempDir(PathBuf);

impl TempDir {
    fn new() -> TempDir {
        let path = std::env::temp_dir().join(format!("mqns-fstree-{}", std::process::id()));
        fs::create_dir(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod of a temporary directory");
        TempDir(path)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A copy that every user can read and execute.
fn copy(from: &Path, dir: &Path) -> PathBuf {
    let to = dir.join(from.file_name().expect("a file"));
    fs::copy(from, &to).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
    fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).expect("chmod of a copy");
    to
}

/// Virtual namespaces in a state directory: what lies in the directories of the users, `uUID`.
fn namespaces_in(dir: &Path) -> usize {
    let entries = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten();
    let users = entries(dir).filter(|e| e.file_name().to_string_lossy().starts_with('u'));
    users.map(|user| entries(&user.path()).count()).sum()
}

/// One run: the trace, with a line about what is left at the end.
fn trace(settings: &Settings, side: Side, source: &Source) -> Result<Vec<String>, Failed> {
    static SERIAL: AtomicU32 = AtomicU32::new(0);
    let state = StateDir::new();
    let work = settings.dir.join(format!("run-{}", SERIAL.fetch_add(1, Ordering::Relaxed)));
    let start = || {
        let mode = side.mode();
        let mut run = match mode {
            Mode::Native => Run::new(mode, &settings.program),
            Mode::Shim => {
                let mut preload = OsString::from("LD_PRELOAD=");
                preload.push(&settings.library);
                Run::new(mode, "env").arg(preload).arg(&settings.program)
            }
        };
        if side == Side::Virtual {
            run = run.env("MQNS_PRIVILEGES", "generous");
        }
        run.dir(&state).timeout(Duration::from_secs(120))
    };
    let look = || start().arg("--look").run().check();
    fs::create_dir(&work)?;
    fs::set_permissions(&work, fs::Permissions::from_mode(0o755))?;
    let begin = || {
        let mut run = start();
        if side == Side::Virtual {
            run = run.arg("-u");
        }
        if side.without_kernel_mounts() {
            run = run.arg("-v");
        }
        run
    };
    let outcome = match source {
        Source::Seed(seed) => begin().arg(&work).arg(seed.to_string()).arg(settings.ops.to_string()).run(),
        Source::Lines(lines) => {
            let script = work.with_extension("script");
            fs::write(&script, lines.join("\n") + "\n")?;
            let outcome = begin().args(["-p", "3000"]).arg(&work).arg("-f").arg(&script).run();
            let _ = fs::remove_file(&script);
            outcome
        }
    };
    let _ = fs::remove_dir_all(&work);
    let mut lines: Vec<String> = outcome.stdout.lines().map(str::to_string).collect();
    if outcome.ok() {
        // Who has become somebody else cannot take away what it made before: its directories wait for a
        // look of their owner, or of root.
        let became = |line: &String| {
            let (op, result) = op_and_result(Some(line));
            result == "0" && matches!(op.split(' ').nth(1), Some("drop" | "euid"))
        };
        if namespaces_in(state.path()) > 0 && lines.iter().any(became) {
            look()?;
        }
        let left = namespaces_in(state.path());
        lines.push(format!("{LEFT}{ARROW}{left}"));
        if left > 0 {
            look()?;
            lines.push(format!("{LEFT_FOR_GOOD}{ARROW}{}", namespaces_in(state.path())));
        }
    } else if let Err(why) = outcome.check() {
        let last = why.lines().next().unwrap_or("").to_string();
        lines.push(format!("{BROKEN}{ARROW}{last}: {}", outcome.stderr.trim()));
    }
    Ok(lines)
}

/// Index of the first line that differs.
fn first_difference(a: &[String], b: &[String]) -> Option<usize> {
    (0..a.len().max(b.len())).find(|i| a.get(*i) != b.get(*i))
}

fn op_and_result(line: Option<&String>) -> (&str, &str) {
    line.map_or(("nothing", "nothing"), |l| l.split_once(ARROW).unwrap_or((l, "")))
}

/// Two traces that part at line `at`.
struct Difference {
    kernel: Vec<String>,
    other: Vec<String>,
    at: usize,
}

impl Difference {
    /// What makes it the same difference: the operation at which they part, without its
    /// arguments, and both results, without their numbers.
    fn kind(&self) -> (String, String, String) {
        let (op, expected) = op_and_result(self.kernel.get(self.at));
        let (_, result) = op_and_result(self.other.get(self.at));
        let name = op.split(' ').nth(1).unwrap_or("").to_string();
        // Long results tell of more than what differs.
        let most = if matches!(name.as_str(), "mounts" | "realpath" | "ls" | "probe") { 0 } else { usize::MAX };
        let plain = |text: &str| text.chars().filter(|c| !c.is_ascii_digit()).take(most).collect();
        (name, plain(expected), plain(result))
    }

    /// What to read about it: so many lines before, then both.
    fn describe(&self, context: usize) -> String {
        let mut text = String::new();
        for line in &self.kernel[self.at.saturating_sub(context)..self.at] {
            let _ = writeln!(text, "    {line}");
        }
        let (op, expected) = op_and_result(self.kernel.get(self.at));
        let (other_op, other) = op_and_result(self.other.get(self.at));
        let _ = writeln!(text, "    {op}\n        kernel: {expected}\n        other:  {other}");
        if op != other_op {
            let _ = writeln!(text, "        of:     {other_op}");
        }
        // Both go on.
        for (name, lines) in [("kernel", &self.kernel), ("other", &self.other)] {
            for line in lines.iter().skip(self.at + 1).take(context / 4) {
                let _ = writeln!(text, "      {name}: {line}");
            }
        }
        text
    }
}

fn attempt(settings: &Settings, side: Side, source: &Source) -> Result<Option<Difference>, Failed> {
    let kernel = trace(settings, side.reference(), source)?;
    // A step that nobody can end is the tester's mistake, whatever the other side makes of it.
    if let Some(last) = kernel.last()
        && last.starts_with(BROKEN)
    {
        return Err(format!("natively: {}\n{last}", kernel[kernel.len().saturating_sub(2)]).into());
    }
    let other = trace(settings, side, source)?;
    Ok(first_difference(&kernel, &other).map(|at| Difference { kernel, other, at }))
}

/// Whether a line of a trace is an operation that can be carried out again.
fn is_operation(line: &str) -> bool {
    line.starts_with("c ") || line.starts_with('t')
}

/// The operations of a difference up to the line that differs, and that one.
fn operations(found: &Difference) -> Vec<String> {
    let lines = found.kernel.iter().take(found.at + 1);
    lines.filter(|l| is_operation(l)).cloned().collect()
}

/// Without the making of task `from`, whose part `to` takes.
fn replace_task(steps: &[String], from: usize, to: usize) -> Vec<String> {
    let (label, made, other) = (format!("t{from}"), format!("+{from}"), format!("t{to}"));
    let lines = steps.iter().map(|line| line.split(ARROW).next().unwrap_or(""));
    let kept = lines.filter(|line| !line.split(' ').any(|word| word == made));
    let word = |word: &str| if word == label { other.clone() } else { word.to_string() };
    kept.map(|line| line.split(' ').map(word).collect::<Vec<_>>().join(" ")).collect()
}

/// Has fewer tasks do the same, as long as it still differs.
fn merge_tasks(settings: &Settings, side: Side, mut best: Difference) -> Difference {
    let highest = best.kernel.iter().flat_map(|l| l.split(' ')).filter_map(|w| w.strip_prefix('+')?.parse().ok()).max();
    for from in (1..=highest.unwrap_or(0)).rev() {
        for to in 0..from {
            let steps = operations(&best);
            let candidate = replace_task(&steps, from, to);
            if candidate.len() == steps.len() {
                break;
            }
            if let Ok(Some(found)) = attempt(settings, side, &Source::Lines(&candidate))
                && found.kind() == best.kind()
            {
                best = found;
                break;
            }
        }
    }
    best
}

/// Drops operations for as long as one of the same kind still differs.
fn minimise(settings: &Settings, side: Side, first: &Difference) -> Result<Option<Difference>, Failed> {
    let mut steps = operations(first);
    let Some(mut best) = attempt(settings, side, &Source::Lines(&steps))? else { return Ok(None) };
    steps = operations(&best);
    // What was done without effect goes first.
    let mut effective = steps.clone();
    let last = effective.pop();
    effective.retain(|line| !op_and_result(Some(line)).1.starts_with("-1"));
    effective.extend(last);
    if let Ok(Some(found)) = attempt(settings, side, &Source::Lines(&effective))
        && found.kind() == best.kind()
    {
        steps = operations(&found);
        best = found;
    }
    let mut chunk = steps.len().div_ceil(2).max(1);
    let mut runs = 0;
    while runs < MINIMISER_RUNS {
        let mut from = 0;
        let mut shorter = false;
        while from < steps.len() && runs < MINIMISER_RUNS {
            let to = (from + chunk).min(steps.len());
            let mut candidate = steps.clone();
            candidate.drain(from..to);
            runs += 1;
            match attempt(settings, side, &Source::Lines(&candidate)) {
                Ok(Some(found)) if found.kind() == best.kind() => {
                    steps = operations(&found);
                    best = found;
                    shorter = true;
                }
                _ => from += chunk,
            }
        }
        if chunk > 1 {
            chunk /= 2;
        } else if !shorter {
            break;
        }
    }
    Ok(Some(best))
}

/// Whether an operation is among those asked for.
fn wanted(settings: &Settings, line: &str) -> bool {
    let name = line.split(' ').nth(1).unwrap_or("");
    let among = |names: &[String]| names.iter().any(|n| n == name);
    let makes = matches!(name, "newipc" | "stay" | "spawn" | "fork" | "clone" | "thread");
    (makes || settings.only.is_empty() || among(&settings.only)) && !among(&settings.without)
}

/// One seed, natively and then on the other side.
fn compare(settings: &Settings, seed: u64, side: Side) -> Result<(), Failed> {
    let found = if settings.only.is_empty() && settings.without.is_empty() {
        attempt(settings, side, &Source::Seed(seed))?
    } else {
        let whole = trace(settings, side.reference(), &Source::Seed(seed))?;
        let some: Vec<String> = whole.into_iter().filter(|l| is_operation(l) && wanted(settings, l)).collect();
        attempt(settings, side, &Source::Lines(&some))?
    };
    let Some(found) = found else { return Ok(()) };
    let mut text = format!("seed {seed}, line {} of {}\n{}", found.at + 1, found.kernel.len(), found.describe(CONTEXT));
    let _ = writeln!(
        text,
        "reproduce: MQNS_DIFF_SEEDS={seed}..{} MQNS_DIFF_OPS={} MQNS_DIFF_MINIMISE=1 cargo test --test fstree {}::",
        seed + 1,
        settings.ops,
        side.group()
    );
    if settings.minimise {
        match minimise(settings, side, &found)? {
            None => text.push_str("minimised: the difference did not come again\n"),
            Some(least) => {
                let least = merge_tasks(settings, side, least);
                let _ = write!(text, "minimised:\n{}", least.describe(least.at));
            }
        }
    }
    Err(text.into())
}

/// `from..to`.
fn seeds_of(text: &str) -> Range<u64> {
    let parse = |part: &str| part.trim().parse().ok();
    let range = text.split_once("..").and_then(|(a, b)| Some(parse(a)?..parse(b)?));
    range.unwrap_or_else(|| panic!("MQNS_DIFF_SEEDS={text}: wanted from..to"))
}

/// Whether mount namespaces and mounts in them are permitted here.
fn may_mount() -> bool {
    let status = std::process::Command::new("unshare").args(["--mount", "--ipc", "true"]).status();
    status.is_ok_and(|status| status.success())
}

/// Why this machine cannot be the oracle, if so.
fn obstacle() -> Option<&'static str> {
    // SAFETY: no memory is passed.
    if unsafe { libc::geteuid() } != 0 {
        return Some("needs root, for users, namespaces and mounts");
    }
    if !harness::kernel_has_queues() || !Path::new("/proc/self/ns/ipc").exists() {
        return Some("this kernel has no message queues or no IPC namespaces to compare with");
    }
    if !may_mount() {
        return Some("mounting is not permitted here");
    }
    None
}

fn main() {
    let args = Arguments::from_args();
    let obstacle = obstacle();
    if let Some(reason) = obstacle {
        eprintln!("differential tests of the mqueue file system ignored: {reason}");
    }
    let base = TempDir::new();
    let settings = Arc::new(Settings {
        ops: variable("MQNS_DIFF_OPS").map_or(OPS, |n| n.parse().expect("MQNS_DIFF_OPS")),
        minimise: variable("MQNS_DIFF_MINIMISE").is_some_and(|value| value != "0"),
        only: list("MQNS_DIFF_ONLY"),
        without: list("MQNS_DIFF_WITHOUT"),
        dir: base.0.clone(),
        program: copy(&harness::program("fs_tree"), &base.0),
        library: copy(harness::library(), &base.0),
    });
    let asked = variable("MQNS_DIFF_SEEDS").map(|text| seeds_of(&text));
    let mut trials = Vec::new();
    for side in [Side::Kernel, Side::KernelVirtual, Side::Shim, Side::Virtual] {
        let default: Vec<u64> = match side {
            Side::Kernel | Side::KernelVirtual => SELF_CHECK.collect(),
            Side::Shim => SEEDS.collect(),
            Side::Virtual => VIRTUAL_SEEDS.to_vec(),
        };
        for seed in asked.clone().map_or(default, Range::collect) {
            let settings = Arc::clone(&settings);
            let trial =
                Trial::test(format!("{}::seed_{seed:05}", side.group()), move || compare(&settings, seed, side));
            trials.push(trial.with_ignored_flag(obstacle.is_some()));
        }
    }
    let conclusion = libtest_mimic::run(&args, trials);
    drop(base);
    conclusion.exit();
}
