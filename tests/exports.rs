//! The library exports what the table of interposed symbols says, and nothing else of libc's.

#[path = "../src/interpose/symbols.rs"]
mod symbols;

mod harness;

use std::collections::BTreeSet;
use std::process::Command;

#[test]
fn exported_symbols_are_those_of_the_table() {
    let output = Command::new("nm").args(["-D", "--defined-only"]).arg(harness::library()).output().expect("nm runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("nm prints text");
    // What is called from `cshim/` alone has the library's own prefix.
    let exported: BTreeSet<&str> =
        text.lines().filter_map(|line| line.split(' ').nth(2)).filter(|name| !name.starts_with("mqns_")).collect();
    let table: BTreeSet<&str> = symbols::SYMBOLS.iter().flat_map(|(_, _, names)| names.iter().copied()).collect();
    assert_eq!(exported, table);
}

#[test]
fn no_symbol_stands_in_the_table_twice() {
    let mut seen = BTreeSet::new();
    for name in symbols::SYMBOLS.iter().flat_map(|(_, _, names)| *names) {
        assert!(seen.insert(name), "{name}");
    }
}
