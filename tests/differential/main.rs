//! Differential tester: the same random operations on the kernel's queues and under the library.
//!
//! A seed makes a sequence of operations, valid and invalid, for two to four worker processes in
//! lockstep. It is generated while it runs natively, in an IPC namespace of its own; the record,
//! operations and results, is then replayed under `libmqns.so` where the kernel offers no message
//! queues, and must come out the same to the letter. The running kernel is the oracle: nothing
//! here says what a result ought to be.
//!
//! ```text
//! cargo test --test differential                       the fixed set of seeds
//! MQNS_DIFF_SEEDS=0..2000 cargo test --test differential shim
//! MQNS_DIFF_SEEDS=0..300  cargo test --test differential kernel    the tester against itself
//! ```
//!
//! Environment: `MQNS_DIFF_OPS` operations a seed (300); `MQNS_DIFF_MINIMISE=1` shortens a
//! sequence that differs, as long as it still does; `MQNS_DIFF_WITHOUT=stop,nice` leaves out
//! classes of operations (names in `generate.rs`); `MQNS_DIFF_KEEP=1` keeps the traces;
//! `MQNS_DIFF_PATIENCE_MS` is how long an answer may take (20000).

mod coordinator;
mod generate;
#[path = "../harness/mod.rs"]
mod harness;
mod shared;
mod worker;

use std::fmt::Write as _;
use std::fs;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};

use coordinator::{ENV_EXPECT, ENV_OPS, ENV_PATIENCE, ENV_SCRIPT, ENV_SEED, ENV_TRACE, Step};
use generate::ENV_WITHOUT;
use harness::Mode;
use shared::sys;
use worker::{ENV_PRELOAD, ENV_ROLE};

/// Seeds of every test run.
const SEEDS: Range<u64> = 0..40;
/// Those of them with which the tester is held against itself.
const SELF_CHECK: Range<u64> = 0..8;
/// Operations a seed.
const OPS: u64 = 300;
/// Steps shown before one that differs.
const CONTEXT: usize = 10;
/// Most tries of the minimiser.
const MINIMISER_RUNS: usize = 600;

/// Where a sequence runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum On {
    /// The kernel's queues, in a namespace of their own.
    Kernel,
    /// The library, without the kernel's queues.
    Shim,
}

/// What the environment asks for.
struct Settings {
    ops: u64,
    minimise: bool,
    keep: bool,
    /// How long an answer may take, milliseconds.
    patience_ms: Option<u64>,
    /// Directory for this process's files, removed at the end.
    dir: PathBuf,
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn flag(name: &str) -> bool {
    variable(name).is_some_and(|value| value != "0")
}

/// The library where every user can read it: a worker that became another user executes itself.
fn readable_library(dir: &Path) -> Result<PathBuf, Failed> {
    static COPY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let made = COPY.get_or_init(|| {
        let (built, copy) = (harness::library(), dir.join("libmqns.so"));
        fs::copy(built, &copy).map_err(|e| format!("{}: {e}", built.display()))?;
        Ok(copy)
    });
    made.clone().map_err(Failed::from)
}

/// A directory that goes when its owner does.
struct TempDir {
    path: PathBuf,
    keep: bool,
}

impl TempDir {
    fn new(base: &Path, keep: bool) -> Result<TempDir, Failed> {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let n = SERIAL.fetch_add(1, Ordering::Relaxed);
        let path = base.join(format!("mqns-differential-{}-{n}", std::process::id()));
        fs::create_dir(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(TempDir { path, keep })
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        if self.keep {
            eprintln!("kept: {}", self.path.display());
        } else {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// One execution of a sequence: generated (no script), its operations only, or expected results
/// as well.
struct Run<'a> {
    on: On,
    seed: u64,
    ops: u64,
    script: Option<&'a [Step]>,
    expect: bool,
    patience_ms: Option<u64>,
}

impl Run<'_> {
    /// The trace.
    fn execute(&self, settings: &Settings) -> Result<Vec<Step>, Failed> {
        let work = TempDir::new(&settings.dir, settings.keep)?;
        let trace = work.path.join("trace");
        let mode = match self.on {
            On::Kernel => Mode::Native,
            On::Shim => Mode::Shim,
        };
        let mut run = harness::Run::new(mode, std::env::current_exe()?)
            .timeout(Duration::from_secs(300))
            .env(ENV_ROLE, "coordinator")
            .env(ENV_SEED, self.seed.to_string())
            .env(ENV_OPS, self.ops.to_string())
            .env(ENV_TRACE, &trace)
            .env(ENV_EXPECT, if self.expect { "1" } else { "0" })
            .env(ENV_WITHOUT, variable(ENV_WITHOUT).unwrap_or_default());
        if self.on == On::Shim {
            run = run.env(ENV_PRELOAD, readable_library(&settings.dir)?);
        }
        if let Some(ms) = self.patience_ms.or(settings.patience_ms) {
            run = run.env(ENV_PATIENCE, ms.to_string());
        }
        if let Some(steps) = self.script {
            let path = work.path.join("script");
            fs::write(&path, steps.iter().map(Step::to_text).collect::<String>())?;
            run = run.env(ENV_SCRIPT, path);
        }
        let ended = run.run().check();
        let text = fs::read_to_string(&trace).unwrap_or_default();
        if let Err(how) = ended {
            let last: Vec<&str> = text.lines().rev().take(4).collect();
            return Err(format!("seed {}: {how}\nlast lines: {last:#?}", self.seed).into());
        }
        Ok(Step::parse_all(&text))
    }
}

/// Index of the first step that differs.
fn first_difference(kernel: &[Step], other: &[Step]) -> Option<usize> {
    let both = kernel.len().max(other.len());
    (0..both).find(|i| kernel.get(*i) != other.get(*i))
}

fn outcome(step: Option<&Step>) -> String {
    let Some(step) = step else { return "nothing".to_string() };
    let mut text = step.result.clone();
    for (worker, result) in &step.completed {
        let _ = write!(text, "; w{worker} wakes: {result}");
    }
    text
}

/// What to read when two traces differ.
fn describe(seed: u64, ops: u64, on: On, kernel: &[Step], other: &[Step], at: usize) -> String {
    let (name, filter) = match on {
        On::Kernel => ("again: ", "kernel"),
        On::Shim => ("shim:  ", "shim"),
    };
    let mut text = format!("seed {seed}, operation {} of {}\n", at + 1, kernel.len());
    for (i, step) in kernel.iter().enumerate().take(at).skip(at.saturating_sub(CONTEXT)) {
        let _ = writeln!(text, "  {:4}  {} => {}", i + 1, step.op, outcome(Some(step)));
    }
    let op = kernel.get(at).map_or("", |step| &step.op);
    let _ = writeln!(text, "  {:4}  {op}", at + 1);
    let _ = writeln!(text, "        kernel: {}", outcome(kernel.get(at)));
    let _ = writeln!(text, "        {name} {}", outcome(other.get(at)));
    let _ = writeln!(
        text,
        "reproduce: MQNS_DIFF_SEEDS={seed}..{} MQNS_DIFF_OPS={ops} MQNS_DIFF_MINIMISE=1 \
         cargo test --test differential {filter}",
        seed + 1,
    );
    text
}

/// Two traces and the index of the first step that differs.
struct Difference {
    kernel: Vec<Step>,
    other: Vec<Step>,
    at: usize,
}

impl Difference {
    /// The operation at which the traces part, without its arguments.
    fn kind(&self) -> &str {
        let op = self.kernel.get(self.at).map_or("", |step| &step.op);
        op.split(' ').nth(1).unwrap_or("")
    }
}

/// Runs the operations natively and then the result on the other side.
fn attempt(settings: &Settings, seed: u64, on: On, steps: &[Step]) -> Result<Option<Difference>, Failed> {
    let run = |on, script, expect| Run { on, seed, ops: 0, script: Some(script), expect, patience_ms: Some(2000) };
    let kernel = run(On::Kernel, steps, false).execute(settings)?;
    let other = run(on, &kernel, true).execute(settings)?;
    Ok(first_difference(&kernel, &other).map(|at| Difference { kernel, other, at }))
}

/// Drops operations for as long as one of the same kind still differs at the end.
fn minimise(settings: &Settings, seed: u64, on: On, mut steps: Vec<Step>) -> Result<Option<Difference>, Failed> {
    let Some(mut best) = attempt(settings, seed, on, &steps)? else { return Ok(None) };
    steps.truncate(best.at + 1);
    let mut chunk = steps.len() / 2;
    let mut runs = 0;
    while chunk >= 1 && runs < MINIMISER_RUNS {
        let mut from = 0;
        let mut shorter = false;
        while from + 1 < steps.len() && runs < MINIMISER_RUNS {
            let to = (from + chunk).min(steps.len() - 1);
            let mut candidate = steps.clone();
            candidate.drain(from..to);
            runs += 1;
            match attempt(settings, seed, on, &candidate) {
                Ok(Some(found)) if found.kind() == best.kind() => {
                    candidate.truncate(found.at + 1);
                    steps = candidate;
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
fn compare(settings: &Settings, seed: u64, on: On) -> Result<(), Failed> {
    let run = |on, script, expect| Run { on, seed, ops: settings.ops, script, expect, patience_ms: None };
    let kernel = run(On::Kernel, None, false).execute(settings)?;
    let other = run(on, Some(&kernel), true).execute(settings)?;
    let Some(at) = first_difference(&kernel, &other) else { return Ok(()) };
    let mut text = describe(seed, settings.ops, on, &kernel, &other, at);
    if settings.minimise {
        match minimise(settings, seed, on, kernel)? {
            None => text.push_str("minimised: the difference did not come again\n"),
            Some(Difference { kernel, other, at }) => {
                text.push_str("minimised:\n");
                for step in &kernel[..at] {
                    let _ = writeln!(text, "    {} => {}", step.op, outcome(Some(step)));
                }
                let _ = writeln!(text, "    {}", kernel[at].op);
                let _ = writeln!(text, "        kernel: {}", outcome(kernel.get(at)));
                let _ = writeln!(text, "        other:  {}", outcome(other.get(at)));
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
    if sys!(geteuid()) != 0 {
        return Some("needs root, for users and a namespace of its own");
    }
    if !harness::kernel_has_queues() {
        return Some("this kernel has no message queues to compare with");
    }
    None
}

fn main() {
    match variable(ENV_ROLE).as_deref() {
        Some("coordinator") => return coordinator::run(),
        Some("worker") => worker::resume(),
        _ => {}
    }
    let args = Arguments::from_args();
    let keep = flag("MQNS_DIFF_KEEP");
    let base = TempDir::new(&std::env::temp_dir(), keep).expect("temporary directory");
    let settings = Arc::new(Settings {
        ops: variable("MQNS_DIFF_OPS").map_or(OPS, |n| n.parse().expect("MQNS_DIFF_OPS")),
        minimise: flag("MQNS_DIFF_MINIMISE"),
        keep,
        patience_ms: variable(ENV_PATIENCE).map(|n| n.parse().expect(ENV_PATIENCE)),
        dir: base.path.clone(),
    });
    let asked = variable("MQNS_DIFF_SEEDS").map(|text| seeds_of(&text));
    let obstacle = obstacle();
    if let Some(reason) = obstacle {
        eprintln!("differential tests ignored: {reason}");
    }
    let mut trials = Vec::new();
    for (name, on, default) in [("kernel", On::Kernel, SELF_CHECK), ("shim", On::Shim, SEEDS)] {
        for seed in asked.clone().unwrap_or(default) {
            let settings = Arc::clone(&settings);
            let trial = Trial::test(format!("{name}::seed_{seed:05}"), move || compare(&settings, seed, on));
            trials.push(trial.with_ignored_flag(obstacle.is_some()));
        }
    }
    let conclusion = libtest_mimic::run(&args, trials);
    drop(base);
    conclusion.exit();
}
