//! `mqns bench`: the kernel's queues and the library's under the same client, in the same minutes.
//!
//! The client is benches/client.c, as scripts/bench runs it: an ordinary program on mq_open, mq_send … of libc. It is
//! part of this executable, which starts itself for each measurement, once as it is and once with libmqns.so preloaded.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{CString, OsString, c_char, c_int};
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicI32, Ordering};

use indicatif::{ProgressBar, ProgressStyle};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use serde_json::{Value, json};

use super::preloaded::OURSELVES;
use super::run::Library;
use super::table::{Heading, Kind, Table};
use super::{Bench, Cause, Exit, Failure};

/// What is measured.
struct Workload {
    /// As benches/client.c calls it.
    name: &'static str,
    /// What its `ns` are the time of.
    title: &'static str,
    /// Takes queues deeper than the default limits permit: without privilege the kernel cannot.
    deep: bool,
}

const fn workload(name: &'static str, title: &'static str) -> Workload {
    Workload { name, title, deep: false }
}

const fn deep(name: &'static str, title: &'static str) -> Workload {
    Workload { name, title, deep: true }
}

const WORKLOADS: [Workload; 26] = [
    workload("pair-8", "send + receive, one thread, 8 bytes"),
    workload("pair-64", "send + receive, one thread, 64 bytes"),
    workload("pair-1K", "send + receive, one thread, 1 KiB"),
    workload("pair-8K", "send + receive, one thread, 8 KiB"),
    deep("waiting-100", "the same, 64 bytes, with 100 messages waiting"),
    deep("fill-1000", "fill and drain 1,000, random priorities, per message"),
    workload("eagain", "receive on an empty queue: EAGAIN"),
    workload("getattr", "mq_getattr"),
    workload("expired", "receive on an empty queue, deadline in the past"),
    workload("stream-10-one", "a process sends to another, depth 10, one CPU"),
    workload("stream-10-two", "the same, two CPUs"),
    deep("stream-1000-one", "the same, depth 1,000, one CPU"),
    deep("stream-1000-two", "the same, depth 1,000, two CPUs"),
    workload("many-2-both", "two senders, two receivers, two CPUs"),
    workload("many-4-both", "four senders, four receivers, two CPUs"),
    workload("pingpong-one", "round trip between processes, one CPU"),
    workload("pingpong-two", "the same, two CPUs"),
    workload("wake-two", "waking a receiver that slept for 1 ms, two CPUs"),
    workload("epoll-self", "send + epoll_wait + receive, one process"),
    workload("epoll-one", "round trip by epoll_wait, one CPU"),
    workload("epoll-two", "round trip by epoll_wait, two CPUs"),
    workload("notify-self", "mq_notify + send + signal handler + receive"),
    workload("notify-one", "round trip by mq_notify, one CPU"),
    workload("queues-100", "pairs on 100 queues in turn"),
    workload("open", "mq_open + mq_close of an existing queue"),
    workload("create", "mq_open(O_CREAT) + mq_close + mq_unlink"),
];

/// One side of a comparison: figures by name, one of each round; and why there are none.
#[derive(Default)]
struct Side {
    figures: BTreeMap<String, Vec<f64>>,
    skipped: Option<String>,
}

impl Side {
    fn median(&self, figure: &str) -> Option<f64> {
        let mut values = self.figures.get(figure)?.clone();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        Some(if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 })
    }

    fn medians(&self) -> Value {
        self.figures.keys().map(|name| (name.clone(), Value::from(self.median(name)))).collect()
    }
}

/// A workload and what was measured.
struct Outcome {
    workload: &'static Workload,
    kernel: Side,
    mqns: Side,
}

impl Outcome {
    /// How many times the library's time the kernel's is: the median of the rounds, the least, the most.
    fn ratio(&self) -> Option<(f64, f64, f64)> {
        let (kernel, mqns) = (self.kernel.figures.get("ns")?, self.mqns.figures.get("ns")?);
        let ratios = kernel.iter().zip(mqns).map(|(kernel, mqns)| kernel / mqns);
        let least = ratios.clone().min_by(f64::total_cmp)?;
        let most = ratios.max_by(f64::total_cmp)?;
        Some((self.kernel.median("ns")? / self.mqns.median("ns")?, least, most))
    }
}

/// The signal by which the measurement is to end; 0: none.
static ENDED_BY: AtomicI32 = AtomicI32::new(0);

extern "C" fn end(signal: c_int) {
    ENDED_BY.store(signal, Ordering::Relaxed);
}

/// Measures; what is to be printed.
pub fn bench(bench: Bench) -> Result<String, Failure> {
    if bench.list {
        let table = Table {
            name: "workloads",
            headings: vec![text("WORKLOAD"), text("TIME OF")],
            rows: WORKLOADS.iter().map(|workload| vec![workload.name.into(), workload.title.into()]).collect(),
        };
        return Ok(if bench.json { table.json() } else { table.aligned(true, None) });
    }
    let library = Library::find()?;
    library.check(Path::new(OURSELVES))?;
    let cpus = cpus();
    let mut outcomes = chosen(&bench.workloads)?;
    let before = outcomes.len();
    if cpus < 2 {
        outcomes
            .retain(|outcome| !outcome.workload.name.ends_with("-two") && !outcome.workload.name.ends_with("-both"));
    }
    let left_out = before - outcomes.len();
    if let Some(path) = &bench.plot {
        // Said before the minute, not after it.
        fs::write(path, "").map_err(|e| cannot_draw(path, &Cause(&e)))?;
    }
    // The directory of the queues is to be taken away, and the terminal to be left as it was.
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler stores an integer.
        unsafe { libc::signal(signal, end as extern "C" fn(c_int) as libc::sighandler_t) };
    }
    let measured = measure(&mut outcomes, &library, &bench);
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: no handler.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    match ENDED_BY.load(Ordering::Relaxed) {
        0 => measured?,
        signal => {
            // SAFETY: the default disposition was set above: this ends the process, as whoever sent it expects.
            unsafe { libc::raise(signal) };
        }
    }
    if let Some(path) = &bench.plot {
        plot(path, &outcomes).map_err(|e| cannot_draw(path, &e))?;
    }
    Ok(show(&bench, &outcomes, left_out, cpus))
}

fn cannot_draw(path: &Path, cause: &dyn std::fmt::Display) -> Failure {
    Failure::new(Exit::Failed, path.display(), cause, "--plot takes a file that can be written")
}

fn text(name: &'static str) -> Heading {
    Heading { name, kind: Kind::Text }
}

fn number(name: &'static str) -> Heading {
    Heading { name, kind: Kind::Number }
}

/// The workloads that are asked for: by name, or by the first words of it.
fn chosen(asked: &[String]) -> Result<Vec<Outcome>, Failure> {
    let is = |name: &str, asked: &str| {
        name.strip_prefix(asked).is_some_and(|rest| !asked.is_empty() && (rest.is_empty() || rest.starts_with('-')))
    };
    if let Some(unknown) = asked.iter().find(|asked| !WORKLOADS.iter().any(|workload| is(workload.name, asked))) {
        return Err(Failure::new(Exit::Failed, unknown, "no such workload", "`mqns bench --list` shows them"));
    }
    let wanted = |workload: &&Workload| asked.is_empty() || asked.iter().any(|asked| is(workload.name, asked));
    let outcome = |workload| Outcome { workload, kernel: Side::default(), mqns: Side::default() };
    Ok(WORKLOADS.iter().filter(wanted).map(outcome).collect())
}

/// Each workload once on each side in each round, in alternating order: what comes and goes on the machine then
/// meets both.
fn measure(outcomes: &mut [Outcome], library: &Library, bench: &Bench) -> Result<(), Failure> {
    // Seen on a terminal only.
    let style = ProgressStyle::with_template("{pos}/{len} {msg}").expect("a template without a mistake");
    let progress = ProgressBar::new((bench.rounds as usize * outcomes.len()) as u64).with_style(style);
    for round in 0..bench.rounds {
        for outcome in outcomes.iter_mut() {
            progress.set_message(outcome.workload.name);
            progress.tick();
            for side in if round % 2 == 0 { [true, false] } else { [false, true] } {
                let into = if side { &mut outcome.kernel } else { &mut outcome.mqns };
                if into.skipped.is_none() {
                    run(outcome.workload, (!side).then_some(library), bench.ms, into)?;
                }
                if ENDED_BY.load(Ordering::Relaxed) != 0 {
                    progress.finish_and_clear();
                    return Ok(());
                }
            }
            progress.inc(1);
        }
    }
    progress.finish_and_clear();
    Ok(())
}

/// Runs the client once, with the library or without.
fn run(workload: &Workload, library: Option<&Library>, ms: u64, side: &mut Side) -> Result<(), Failure> {
    let fail = |cause: &dyn std::fmt::Display, remedy: &str| {
        let on = if library.is_some() { "mqns" } else { "the kernel" };
        Err(Failure::new(Exit::Refused, format_args!("{} on {on}", workload.name), cause, remedy))
    };
    let mut command = Command::new(OURSELVES);
    command.args(["bench-client", "-t", &ms.to_string(), workload.name]);
    for (name, _) in
        env::vars_os().filter(|(name, _)| name == "LD_PRELOAD" || name.to_string_lossy().starts_with("MQNS_"))
    {
        command.env_remove(name);
    }
    let mut directory = None;
    if let Some(library) = library {
        let mut new = tempfile::Builder::new();
        new.prefix("mqns-bench-");
        let new = match new.tempdir_in("/dev/shm").or_else(|_| new.tempdir()) {
            Ok(new) => new,
            Err(e) => return fail(&Cause(&e), "make room in /dev/shm"),
        };
        command.env("LD_PRELOAD", library.path()).env("MQNS_DIR", new.path());
        if workload.deep {
            command.env("MQNS_LIMITS", "generous");
        }
        directory = Some(new);
    }
    let done = match command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).output() {
        Ok(done) => done,
        Err(e) => return fail(&Cause(&e), "see whether processes can be started"),
    };
    drop(directory);
    if ENDED_BY.load(Ordering::Relaxed) != 0 {
        return Ok(());
    }
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        let cause = if said.trim().is_empty() { done.status.to_string() } else { said.trim().replace('\n', "; ") };
        return fail(&cause, "the rest was not measured; try again with less running");
    }
    for line in String::from_utf8_lossy(&done.stdout).lines() {
        let mut fields = line.splitn(3, '\t').skip(1);
        if let (Some(figure), Some(value)) = (fields.next(), fields.next()) {
            match value.parse() {
                Ok(value) => side.figures.entry(figure.into()).or_default().push(value),
                Err(_) => side.skipped = Some(value.into()),
            }
        }
    }
    Ok(())
}

unsafe extern "C" {
    /// `main` of benches/client.c.
    fn mqns_bench_client(argc: c_int, argv: *mut *mut c_char) -> c_int;
}

/// The client, in a process of its own.
pub fn client(arguments: Vec<OsString>) -> c_int {
    // On the kernel's queues: a namespace and limits of its own, where that may be had; elsewhere some workloads find
    // the kernel's limits too small, and say so. With the library these calls reach it, and do the same there.
    // SAFETY: no pointers.
    if unsafe { libc::unshare(libc::CLONE_NEWIPC) } == 0 {
        let _ = fs::write("/proc/sys/fs/mqueue/msg_max", "65536");
    }
    // SAFETY: a structure of two integers, on the stack.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_MSGQUEUE, &mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_MSGQUEUE, &limit);
    }
    let arguments = std::iter::once("mqns".into()).chain(arguments);
    let strings: Vec<_> = arguments.filter_map(|word: OsString| CString::new(word.into_vec()).ok()).collect();
    let mut pointers: Vec<*mut c_char> = strings.iter().map(|word| word.as_ptr().cast_mut()).collect();
    pointers.push(std::ptr::null_mut());
    // SAFETY: strings that end, in a list that ends, as C's main gets them; both live until it returns.
    unsafe { mqns_bench_client(strings.len() as c_int, pointers.as_mut_ptr()) }
}

/// How many CPUs this process may use.
fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The processor, as it calls itself, and the kernel.
fn machine() -> (String, String) {
    let file = |path| fs::read_to_string(path).unwrap_or_default();
    let about = file("/proc/cpuinfo");
    let model = about.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(" : unknown processor");
    let model = model.split_once(':').map_or("", |(_, model)| model.trim());
    (model.into(), file("/proc/sys/kernel/osrelease").trim().into())
}

/// Three digits of a time.
fn time(ns: f64) -> String {
    let (value, unit) = match ns {
        ns if ns < 1e3 => (ns, "ns"),
        ns if ns < 1e6 => (ns / 1e3, "µs"),
        ns => (ns / 1e6, "ms"),
    };
    format!("{} {unit}", digits(value))
}

fn digits(value: f64) -> String {
    let places = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.places$}")
}

fn show(bench: &Bench, outcomes: &[Outcome], left_out: usize, cpus: usize) -> String {
    let (model, kernel) = machine();
    if bench.json {
        let workloads: Vec<_> = outcomes
            .iter()
            .map(|outcome| {
                let ratio = outcome.ratio();
                json!({
                    "workload": outcome.workload.name, "what": outcome.workload.title,
                    "kernel": outcome.kernel.medians(), "mqns": outcome.mqns.medians(),
                    "times": ratio.map(|(median, _, _)| median),
                    "least": ratio.map(|(_, least, _)| least), "most": ratio.map(|(_, _, most)| most),
                    "kernel_cannot": outcome.kernel.skipped, "mqns_cannot": outcome.mqns.skipped,
                })
            })
            .collect();
        let all = json!({ "processor": model, "cpus": cpus, "kernel": kernel, "rounds": bench.rounds, "ms": bench.ms,
                          "workloads": workloads });
        return format!("{all:#}\n");
    }
    let cell = |ns: Option<f64>| ns.map_or(Value::Null, |ns| time(ns).into());
    let row = |outcome: &Outcome| {
        let ratio = outcome.ratio();
        vec![
            outcome.workload.name.into(),
            outcome.workload.title.into(),
            cell(outcome.kernel.median("ns")),
            cell(outcome.mqns.median("ns")),
            ratio.map_or(Value::Null, |(median, _, _)| format!("{}×", digits(median)).into()),
            ratio.map_or(Value::Null, |(_, least, most)| format!("{}–{}", digits(least), digits(most)).into()),
        ]
    };
    let table = Table {
        name: "workloads",
        headings: vec![
            text("WORKLOAD"),
            text("TIME OF"),
            number("KERNEL"),
            number("MQNS"),
            number("TIMES"),
            number("ROUNDS"),
        ],
        rows: outcomes.iter().map(row).collect(),
    };
    let mut out = table.aligned(true, None);
    out.push_str(&format!(
        "\n{model}, {cpus} CPUs, Linux {kernel}; medians of {} rounds of {} ms; TIMES: as fast as the kernel's queue.\n",
        bench.rounds, bench.ms
    ));
    for (side, of) in [("the kernel", (|o: &Outcome| &o.kernel) as fn(&Outcome) -> &Side), ("mqns", |o| &o.mqns)] {
        // Alike for most workloads: each reason once.
        let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for outcome in outcomes {
            if let Some(reason) = &of(outcome).skipped {
                reasons.entry(reason).or_default().push(outcome.workload.name);
            }
        }
        for (reason, names) in reasons {
            let which = if names.len() == outcomes.len() { "all".into() } else { names.join(", ") };
            out.push_str(&format!("Not measured on {side}: {which} ({reason}).\n"));
        }
    }
    if left_out > 0 {
        out.push_str(&format!("Only one CPU may be used: {left_out} workloads need two.\n"));
    }
    out
}

/// Draws the times: two bars for each workload, on a logarithmic scale.
fn plot(path: &Path, outcomes: &[Outcome]) -> Result<(), Box<dyn std::error::Error>> {
    const ROW: u32 = 34;
    const KERNEL: RGBColor = RGBColor(154, 154, 154);
    const MQNS: RGBColor = RGBColor(21, 101, 192);
    let times = |outcome: &Outcome| [(outcome.kernel.median("ns"), KERNEL), (outcome.mqns.median("ns"), MQNS)];
    let all: Vec<f64> =
        outcomes.iter().flat_map(|outcome| times(outcome).into_iter().filter_map(|(ns, _)| ns)).collect();
    let low = all.iter().copied().fold(f64::MAX, f64::min).min(1e9) / 2.0;
    let high = all.iter().copied().fold(low, f64::max) * 4.0;
    let root = SVGBackend::new(path, (1000, 110 + ROW * outcomes.len() as u32)).into_drawing_area();
    root.fill(&WHITE)?;
    let (model, kernel) = machine();
    let small = ("sans-serif", 12).into_font();
    let mut chart = ChartBuilder::on(&root)
        .caption(format!("POSIX message queues: grey Linux {kernel}, blue mqns; {model}"), ("sans-serif", 15))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(330)
        .build_cartesian_2d((low..high).log_scale(), 0.0..outcomes.len() as f64)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(0)
        .x_label_formatter(&|ns| time(*ns))
        .x_desc("time, less is better")
        .draw()?;
    for (at, outcome) in outcomes.iter().enumerate() {
        let top = (outcomes.len() - at) as f64;
        for ((ns, colour), from) in times(outcome).into_iter().zip([0.1, 0.5]) {
            if let Some(ns) = ns {
                let bar = [(low, top - from), (ns, top - from - 0.4)];
                chart.draw_series([Rectangle::new(bar, colour.filled())])?;
            }
        }
        let longest = times(outcome).into_iter().filter_map(|(ns, _)| ns).fold(low, f64::max);
        if let Some((ratio, _, _)) = outcome.ratio() {
            let style = small.clone().into_text_style(&root).pos(Pos::new(HPos::Left, VPos::Center));
            let place = (longest * 1.1, top - 0.5);
            chart.draw_series([Text::new(format!("{}×", digits(ratio)), place, style)])?;
        }
        let (x, y) = chart.backend_coord(&(low, top - 0.5));
        let style = small.clone().into_text_style(&root).pos(Pos::new(HPos::Right, VPos::Center));
        root.draw(&Text::new(outcome.workload.title, (x - 8, y), style))?;
    }
    root.present()?;
    Ok(())
}
