//! Notifications reach the process that registered, whoever sends (`tests/programs/notify_foreign.c`):
//! what it prints on the kernel's queues it prints on ours.

mod harness;

use harness::{Mode, Run};

#[track_caller]
fn output(mode: Mode) -> String {
    let outcome = Run::new(mode, harness::program("notify_foreign")).run();
    if let Err(why) = outcome.check() {
        panic!("{}: {why}", mode.name());
    }
    outcome.stdout
}

/// What Linux 6.18 does, line by line.
const EXPECTED: &str = include_str!("programs/notify_foreign.expected");

fn is_root() -> bool {
    // SAFETY: no arguments.
    unsafe { libc::geteuid() == 0 }
}

#[test]
fn on_the_kernels_queues() {
    if is_root() && harness::kernel_has_queues() {
        assert_eq!(output(Mode::Native), EXPECTED);
    }
}

#[test]
fn on_ours() {
    if is_root() {
        assert_eq!(output(Mode::Shim), EXPECTED);
    }
}
