//! Rows of the table in `docs/faults.md`: what a test has provoked, how, how often, and what it came to.
//!
//! `scripts/faults` runs the tests with `MQNS_FAULTS=FILE`, to which each row is added: five fields, with tabs between
//! them. In any other run the row is looked up: what is provoked here has to be in the table.

use std::fs::{self, OpenOptions};
use std::io::Write;

/// Adds a row, or finds it in the table. To be called when all has been checked.
///
/// `fault` and `how` name it. `times` begins with a number: of rows that agree in all else one is made, with the sum.
/// `native` is `None` where the kernel has no such thing, or this kernel no queues.
///
/// # Panics
///
/// If `docs/faults.md` has no such row.
#[track_caller]
pub fn row(fault: &str, how: &str, times: &str, mqns: &str, native: Option<&str>) {
    let fields = [fault, how, times, mqns, native.unwrap_or("–")];
    for field in fields {
        assert!(!field.contains(['\t', '\n', '|']), "{field:?} in a table");
    }
    let Some(file) = std::env::var_os("MQNS_FAULTS") else {
        let table = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/faults.md");
        let text = fs::read_to_string(table).expect("docs/faults.md");
        let start = format!("| {fault} | {how} | ");
        assert!(
            text.lines().any(|line| line.starts_with(&start)),
            "docs/faults.md has no row {start}: scripts/faults --write"
        );
        return;
    };
    let mut file = OpenOptions::new().append(true).create(true).open(file).expect("the file of MQNS_FAULTS");
    // At one blow: other tests do the same.
    file.write_all(format!("{}\n", fields.join("\t")).as_bytes()).expect("write a row");
}
