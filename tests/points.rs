//! Kill at every named point: `tests/programs/points.c` on a library with the feature `crash-points`
//! (`scripts/points` builds it). Each point of `src/points.rs` has to be passed by some operation, and a process that dies
//! there, or dies while it mends what another one has left, must leave nothing that others notice.
//!
//! Of the second deaths each [`EVERY`]th is tried; `MQNS_POINTS_EVERY=1` tries all (some 8,000, ten minutes). `--nocapture`
//! prints the matrix. `MQNS_RECORD=1` writes it to `docs/faults.md`, which has to say the same.

mod harness;
#[path = "../src/points.rs"]
#[allow(dead_code)]
mod points;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use harness::{Mode, Run};

/// Of the second deaths in CI each so-manieth.
const EVERY: u32 = 40;
/// Operations at a time.
const WORKERS: usize = 3;

const DOCS: &str = "docs/faults.md";
const BEGIN: &str = "<!-- points -->\n";
const END: &str = "<!-- end of points -->\n";

/// What is known of one point.
#[derive(Default, Clone)]
struct Known {
    /// Operations that pass it.
    passed: BTreeSet<String>,
    /// Operations after whose deaths it is passed by whoever mends.
    mended: BTreeSet<String>,
    /// Whether the operation had happened.
    seen: BTreeSet<String>,
    first: usize,
    second: usize,
    longest_us: u64,
}

fn run(arguments: &[&str]) -> harness::Outcome {
    let program = harness::program("points");
    let run = Run::new(Mode::Shim, program).library(harness::library_with_points()).args(arguments);
    run.timeout(Duration::from_secs(600)).run()
}

fn every() -> u32 {
    let given = std::env::var("MQNS_POINTS_EVERY").ok();
    given.map_or(EVERY, |n| n.parse().expect("MQNS_POINTS_EVERY is a number"))
}

/// The operations that this user may try, and whether those are all.
fn operations() -> (Vec<String>, bool) {
    let outcome = run(&["--list"]);
    outcome.check().expect("the list of operations");
    // SAFETY: no arguments.
    let all = unsafe { libc::geteuid() } == 0 && harness::may_mount();
    let lines = outcome.stdout.lines().map(|line| line.split_once(' ').map_or((line, false), |(name, _)| (name, true)));
    (lines.filter(|(_, wants_root)| all || !wants_root).map(|(name, _)| name.to_string()).collect(), all)
}

/// Takes in what the program says of an operation.
fn read(operation: &str, stdout: &str, known: &mut BTreeMap<String, Known>) {
    for line in stdout.lines() {
        let words: Vec<_> = line.split(' ').collect();
        let name = |word: &str| word.split(':').next().expect("a part").to_string();
        match words[..] {
            ["passes", point] => _ = known.entry(point.into()).or_default().passed.insert(operation.into()),
            ["mends", point] => _ = known.entry(point.into()).or_default().mended.insert(operation.into()),
            ["dead", first, second, seen, us] => {
                let at = known.entry(name(if second == "-" { first } else { second })).or_default();
                if second == "-" {
                    at.first += 1;
                    at.seen.insert(seen.into());
                } else {
                    at.second += 1;
                }
                at.longest_us = at.longest_us.max(us.parse().expect("µs"));
            }
            _ => panic!("{operation}: {line}"),
        }
    }
}

/// What others see of the operation.
fn outcome(known: &Known) -> &'static str {
    let has = |word| known.seen.contains(word);
    match (has("undone"), has("done")) {
        (true, true) => "not done, or done",
        (true, false) => "not done",
        (false, true) => "done",
        (false, false) if known.first == 0 => "mended by the next",
        (false, false) => "all in order",
    }
}

fn table(known: &BTreeMap<String, Known>) -> String {
    let mut table = String::from("| point | what is so there | in | the operation |\n| --- | --- | --- | --- |\n");
    for (name, what) in points::ALL {
        let known = known.get(*name).cloned().unwrap_or_default();
        let mut list: Vec<_> = known.passed.iter().cloned().collect();
        let mends = known.mended.difference(&known.passed).count();
        if mends > 0 {
            list.push(format!("mending after {mends}"));
        }
        writeln!(table, "| `{name}` | {what} | {} | {} |", list.join(" "), outcome(&known)).unwrap();
    }
    table
}

/// The text of the documentation before, in and behind the table.
fn documentation() -> (String, String, String) {
    let file = format!("{}/{DOCS}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(file).expect(DOCS);
    let (before, rest) = text.split_once(BEGIN).expect("the mark of the table");
    let (table, after) = rest.split_once(END).expect("the mark of its end");
    (format!("{before}{BEGIN}"), table.into(), format!("{END}{after}"))
}

#[test]
fn who_dies_at_any_point_leaves_all_in_order() {
    let (operations, all) = operations();
    if !all {
        eprintln!("skipped in part: namespaces and mounts need root, and the right to mount");
    }
    let next = AtomicUsize::new(0);
    let results = Mutex::new((BTreeMap::new(), String::new()));
    let every = every().to_string();
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(operation) = operations.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = run(&[operation, "--every", &every]);
                    let mut results = results.lock().expect("no panic");
                    read(operation, &outcome.stdout, &mut results.0);
                    if let Err(why) = outcome.check() {
                        let last: Vec<_> = why.lines().filter(|line| !line.starts_with("dead ")).collect();
                        writeln!(results.1, "{operation}: {}", last.join("\n")).unwrap();
                    }
                }
            });
        }
    });
    let (known, failures) = results.into_inner().expect("no panic");
    let (mut first, mut second) = (0, 0);
    for (name, known) in &known {
        first += known.first;
        second += known.second;
        let operations: Vec<_> = known.passed.union(&known.mended).map(String::as_str).collect();
        let (deaths, again, us) = (known.first, known.second, known.longest_us);
        println!("{name:24} {deaths:4} deaths {again:5} second {us:7} us  {}", operations.join(" "));
    }
    let longest = known.values().map(|known: &Known| known.longest_us).max().unwrap_or(0);
    println!("{first} deaths, {second} second ones, the longest call of a survivor's {longest} us");
    assert!(failures.is_empty(), "{failures}");

    let unknown: Vec<_> = known.keys().filter(|name| points::ALL.iter().all(|(listed, _)| listed != name)).collect();
    assert!(unknown.is_empty(), "not in the list: {unknown:?}");
    let is_reached = |name: &str| known.get(name).is_some_and(|known| known.first + known.second > 0);
    let missed: Vec<_> = points::ALL.iter().map(|(name, _)| *name).filter(|name| !is_reached(name)).collect();
    if !all {
        println!("not reached without root: {missed:?}");
        return;
    }
    assert!(missed.is_empty(), "nobody has died at {missed:?}");

    let table = table(&known);
    if std::env::var_os("MQNS_RECORD").is_some() {
        let (before, _, after) = documentation();
        std::fs::write(format!("{}/{DOCS}", env!("CARGO_MANIFEST_DIR")), format!("{before}{table}{after}"))
            .expect(DOCS);
    }
}

/// Who is stopped while account and count change keeps nobody waiting, and stores nothing old when he goes on.
#[test]
fn who_is_stopped_in_the_ledger_goes_on_where_others_have_been() {
    let (_, all) = operations();
    let operations: &[_] = if all {
        &["create", "unlink", "close-last", "unlink-mounted", "exit"]
    } else {
        &["create", "unlink", "close-last"]
    };
    let mut stopped = BTreeSet::new();
    for operation in operations {
        let outcome = run(&[operation, "--stop", "ledger."]);
        outcome.check().unwrap_or_else(|why| panic!("{operation}: {why}"));
        println!("{operation}:\n{}", outcome.stdout);
        let points = outcome.stdout.lines().filter_map(|line| line.strip_prefix("stopped ")?.split(' ').next());
        stopped.extend(points.map(str::to_string));
    }
    let listed: BTreeSet<_> =
        points::ALL.iter().map(|(name, _)| name.to_string()).filter(|name| name.starts_with("ledger.")).collect();
    assert_eq!(stopped, listed, "points of the ledger that nobody passes");
}

/// The table in the documentation is of these points, and says of them what their list says.
#[test]
fn documentation_has_each_point() {
    let (_, table, _) = documentation();
    let rows: Vec<_> =
        table.lines().skip(2).map(|row| row.split(" | ").take(2).collect::<Vec<_>>().join(" | ")).collect();
    let listed: Vec<_> = points::ALL.iter().map(|(name, what)| format!("| `{name}` | {what}")).collect();
    assert_eq!(rows, listed, "MQNS_RECORD=1 cargo test --release --test points writes it anew");
}

#[test]
fn points_have_different_names() {
    let names: BTreeSet<_> = points::ALL.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), points::ALL.len());
}

/// The library that is used can be told nothing of all this.
#[test]
fn library_has_no_points() {
    let mentions = |library: &std::path::Path, what: &str| {
        let bytes = std::fs::read(library).expect("the library");
        bytes.windows(what.len()).any(|window| window == what.as_bytes())
    };
    for what in ["MQNS_CRASH", "MQNS_STOP", "create.drafted", "repair.rebuilt"] {
        assert!(!mentions(harness::library(), what), "{what}");
        assert!(mentions(harness::library_with_points(), what), "{what}");
    }
}
