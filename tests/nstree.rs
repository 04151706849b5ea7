//! Differential tester of namespaces: a random tree of processes and threads that unshare, join,
//! look at, keep and leave IPC namespaces, natively and under the library.
//!
//! `tests/programs/ns_tree.c` grows the tree and prints a trace; the same seed makes the same trace
//! on the kernel's namespaces and on ours where the kernel offers neither namespaces nor queues, or
//! it is a difference. The running kernel is the oracle: nothing here says what a result ought to
//! be. Under the library no namespace may be left in the state directory, once all its tasks have
//! ended politely, or somebody has looked for the remains of those that did not.
//!
//! ```text
//! cargo test --test nstree                          the fixed set of seeds
//! MQNS_DIFF_SEEDS=0..2000 cargo test --test nstree shim
//! MQNS_DIFF_SEEDS=0..300  cargo test --test nstree kernel     the tester against itself
//! ```
//!
//! Environment: `MQNS_DIFF_OPS` operations a seed (120); `MQNS_DIFF_MINIMISE=1` shortens a sequence
//! that differs, as long as it still does.

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
const SEEDS: Range<u64> = 0..40;
/// Those of them with which the tester is held against itself.
const SELF_CHECK: Range<u64> = 0..10;
/// Operations a seed.
const OPS: u64 = 120;
/// Lines shown before one that differs.
const CONTEXT: usize = 12;
/// Most tries of the minimiser.
const MINIMISER_RUNS: usize = 500;
/// What stands between an operation and its result.
const ARROW: &str = " -> ";
/// The lines added here about what is left at the end, and once somebody has looked.
const LEFT: &str = "namespaces left";
const LEFT_FOR_GOOD: &str = "namespaces left for good";

/// What the environment asks for, and the files of this process.
struct Settings {
    ops: u64,
    minimise: bool,
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

/// A directory that goes when its owner does.
struct TempDir(PathBuf);

impl TempDir {
    fn new() -> TempDir {
        let path = std::env::temp_dir().join(format!("mqns-nstree-{}", std::process::id()));
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
fn trace(settings: &Settings, mode: Mode, source: &Source) -> Result<Vec<String>, Failed> {
    static SERIAL: AtomicU32 = AtomicU32::new(0);
    let state = StateDir::new();
    let start = || {
        let run = match mode {
            Mode::Native => Run::new(mode, &settings.program),
            Mode::Shim => {
                let mut preload = OsString::from("LD_PRELOAD=");
                preload.push(&settings.library);
                Run::new(mode, "env").arg(preload).arg(&settings.program)
            }
        };
        run.dir(&state).timeout(Duration::from_secs(120))
    };
    let outcome = match source {
        Source::Seed(seed) => start().arg(seed.to_string()).arg(settings.ops.to_string()).run(),
        Source::Lines(lines) => {
            let script = settings.dir.join(format!("script-{}", SERIAL.fetch_add(1, Ordering::Relaxed)));
            fs::write(&script, lines.join("\n") + "\n")?;
            let outcome = start().args(["-p", "2000", "-f"]).arg(&script).run();
            let _ = fs::remove_file(&script);
            outcome
        }
    };
    let mut lines: Vec<String> = outcome.stdout.lines().map(str::to_string).collect();
    if outcome.ok() {
        // Who has become somebody else cannot take away what it made before: its directories wait for a
        // look of their owner, or of root.
        if namespaces_in(state.path()) > 0 && lines.iter().any(|line| line.ends_with(" drop -> 0")) {
            start().arg("--look").run().check()?;
        }
        let left = namespaces_in(state.path());
        lines.push(format!("{LEFT}{ARROW}{left}"));
        if left > 0 {
            start().arg("--look").run().check()?;
            lines.push(format!("{LEFT_FOR_GOOD}{ARROW}{}", namespaces_in(state.path())));
        }
    } else if let Err(why) = outcome.check() {
        let last = why.lines().next().unwrap_or("").to_string();
        lines.push(format!("program{ARROW}{last}: {}", outcome.stderr.trim()));
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
        let plain = |text: &str| text.chars().filter(|c| !c.is_ascii_digit()).collect();
        let (op, expected) = op_and_result(self.kernel.get(self.at));
        let (_, result) = op_and_result(self.other.get(self.at));
        (op.split(' ').nth(1).unwrap_or("").to_string(), plain(expected), plain(result))
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

fn attempt(settings: &Settings, mode: Mode, source: &Source) -> Result<Option<Difference>, Failed> {
    let kernel = trace(settings, Mode::Native, source)?;
    let other = trace(settings, mode, source)?;
    Ok(first_difference(&kernel, &other).map(|at| Difference { kernel, other, at }))
}

/// The operations of a difference up to the line that differs, and that one.
fn operations(found: &Difference) -> Vec<String> {
    let lines = found.kernel.iter().take(found.at + 1);
    lines.filter(|l| l.starts_with("c ") || l.starts_with('t')).cloned().collect()
}

/// Drops operations for as long as one of the same kind still differs.
fn minimise(settings: &Settings, mode: Mode, first: &Difference) -> Result<Option<Difference>, Failed> {
    let mut steps = operations(first);
    let Some(mut best) = attempt(settings, mode, &Source::Lines(&steps))? else { return Ok(None) };
    steps = operations(&best);
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
            match attempt(settings, mode, &Source::Lines(&candidate)) {
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

/// One seed, natively and then on the other side.
fn compare(settings: &Settings, seed: u64, mode: Mode) -> Result<(), Failed> {
    let Some(found) = attempt(settings, mode, &Source::Seed(seed))? else { return Ok(()) };
    let filter = if mode == Mode::Native { "kernel" } else { "shim" };
    let mut text = format!("seed {seed}, line {} of {}\n{}", found.at + 1, found.kernel.len(), found.describe(CONTEXT));
    let _ = writeln!(
        text,
        "reproduce: MQNS_DIFF_SEEDS={seed}..{} MQNS_DIFF_OPS={} MQNS_DIFF_MINIMISE=1 cargo test --test nstree {filter}",
        seed + 1,
        settings.ops
    );
    if settings.minimise {
        match minimise(settings, mode, &found)? {
            None => text.push_str("minimised: the difference did not come again\n"),
            Some(least) => {
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

/// Why this machine cannot be the oracle, if so.
fn obstacle() -> Option<&'static str> {
    // SAFETY: no memory is passed.
    if unsafe { libc::geteuid() } != 0 {
        return Some("needs root, for users and namespaces");
    }
    if !harness::kernel_has_queues() || !Path::new("/proc/self/ns/ipc").exists() {
        return Some("this kernel has no message queues or no IPC namespaces to compare with");
    }
    None
}

fn main() {
    let args = Arguments::from_args();
    let obstacle = obstacle();
    if let Some(reason) = obstacle {
        eprintln!("differential tests of namespaces ignored: {reason}");
    }
    let base = TempDir::new();
    let settings = Arc::new(Settings {
        ops: variable("MQNS_DIFF_OPS").map_or(OPS, |n| n.parse().expect("MQNS_DIFF_OPS")),
        minimise: variable("MQNS_DIFF_MINIMISE").is_some_and(|value| value != "0"),
        dir: base.0.clone(),
        program: copy(&harness::program("ns_tree"), &base.0),
        library: copy(harness::library(), &base.0),
    });
    let asked = variable("MQNS_DIFF_SEEDS").map(|text| seeds_of(&text));
    let mut trials = Vec::new();
    for (name, mode, default) in [("kernel", Mode::Native, SELF_CHECK), ("shim", Mode::Shim, SEEDS)] {
        for seed in asked.clone().unwrap_or(default) {
            let settings = Arc::clone(&settings);
            let trial = Trial::test(format!("{name}::seed_{seed:05}"), move || compare(&settings, seed, mode));
            trials.push(trial.with_ignored_flag(obstacle.is_some()));
        }
    }
    let conclusion = libtest_mimic::run(&args, trials);
    drop(base);
    conclusion.exit();
}
