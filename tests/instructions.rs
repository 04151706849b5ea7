//! Instructions of the paths that have to be short, counted by single steps
//! (`tests/programs/instructions.c`): a measure that no other load on the machine disturbs.
//!
//! A call of the queue's is counted as it is, any other with the library less without it. No count may
//! exceed the one recorded in `tests/instructions.txt` by more than a twentieth and two, which leaves
//! room for another compiler. `MQNS_RECORD=1 cargo test --release --test instructions` records anew.

mod harness;

use std::collections::BTreeMap;
use std::fmt::Write;

use harness::{Mode, Run};

const RECORDED: &str = "tests/instructions.txt";

fn parse(text: &str) -> Vec<(String, i64)> {
    let pair = |line: &str| {
        let (name, count) = line.split_once(' ')?;
        Some((name.to_string(), count.trim().parse().ok()?))
    };
    text.lines().map(|line| pair(line).unwrap_or_else(|| panic!("not a name and a count: {line}"))).collect()
}

fn count(mode: Mode, arguments: &[&str]) -> Vec<(String, i64)> {
    // Symbols are bound before the first count, and libc copies and compares by the same functions on every processor.
    let run = Run::new(mode, harness::program("instructions")).args(arguments).env("LD_BIND_NOW", "1");
    let outcome = run.env("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-AVX2,-AVX512VL,-AVX512BW,-ERMS,-FSRM,-RTM").run();
    if let Err(why) = outcome.check() {
        panic!("{}: {why}", mode.name());
    }
    parse(&outcome.stdout)
}

#[test]
fn no_path_has_become_longer() {
    let without: BTreeMap<_, _> = count(Mode::Native, &["calls"]).into_iter().collect();
    let mut counts = count(Mode::Shim, &[]);
    for (name, count) in &mut counts {
        let call = name.strip_suffix("-beside-queue").unwrap_or(name);
        *count -= without.get(call).unwrap_or(&0);
    }
    let mut table = String::new();
    for (name, count) in &counts {
        writeln!(table, "{name} {count}").unwrap();
    }
    let file = format!("{}/{RECORDED}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("MQNS_RECORD").is_some() {
        std::fs::write(file, table).expect("write the record");
        return;
    }
    let recorded: BTreeMap<_, _> = parse(&std::fs::read_to_string(file).expect(RECORDED)).into_iter().collect();
    let mut longer = String::new();
    for (name, count) in counts {
        // Copies are made with AVX where the processor has it, as on the machine of the record.
        if name == "pair-1024" && !std::arch::is_x86_feature_detected!("avx") {
            continue;
        }
        let before = *recorded.get(&name).unwrap_or_else(|| panic!("{name} is not in {RECORDED}"));
        if count > before + before.abs() / 20 + 2 {
            writeln!(longer, "{name}: {count} instructions, {before} recorded").unwrap();
        }
    }
    assert!(longer.is_empty(), "{longer}now:\n{table}If that is meant: MQNS_RECORD=1 records it.");
}
