//! Queue calls that neither block nor wake anybody make no system call: shown by a seccomp filter
//! under which any system call is fatal (`tests/programs/fastpath_ops.c`).

mod harness;

use harness::{Mode, Outcome, Run};
use std::os::unix::process::ExitStatusExt;

fn run(mode: Mode, arguments: &[&str]) -> Outcome {
    Run::new(mode, harness::program("fastpath_ops")).args(arguments).run()
}

#[track_caller]
fn no_system_call(arguments: &[&str]) {
    if let Err(why) = run(Mode::Shim, arguments).check() {
        panic!("{arguments:?}: {why} (signal 31 is SIGSYS: a system call was made)");
    }
}

#[track_caller]
fn dies_of_sigsys(outcome: &Outcome) {
    assert_eq!(outcome.status.signal(), Some(libc::SIGSYS), "{outcome:?}");
}

#[test]
fn thousand_pairs_of_64_bytes() {
    no_system_call(&["pairs", "64"]);
}

#[test]
fn thousand_pairs_of_4_kib() {
    no_system_call(&["pairs", "4096"]);
}

#[test]
fn thousand_pairs_of_8_kib() {
    no_system_call(&["pairs", "8192"]);
}

#[test]
fn batches_of_several_priorities() {
    no_system_call(&["batches", "64"]);
    no_system_call(&["batches", "8192"]);
}

#[test]
fn every_priority() {
    no_system_call(&["priorities"]);
}

#[test]
fn getattr() {
    no_system_call(&["attributes"]);
}

#[test]
fn eagain_on_empty_and_full() {
    no_system_call(&["nonblocking"]);
}

#[test]
fn timed_calls_that_need_not_wait() {
    no_system_call(&["deadlines", "64"]);
}

#[test]
fn deadlines_expired_on_empty_and_full() {
    no_system_call(&["expired"]);
}

#[test]
fn calls_refused_by_their_arguments() {
    no_system_call(&["refused"]);
}

/// The filter catches one system call after a thousand pairs without any.
#[test]
fn one_extra_system_call_is_caught() {
    let outcome = run(Mode::Shim, &["self-check", "64"]);
    assert_eq!(outcome.stdout, "pairs done\n");
    dies_of_sigsys(&outcome);
}

/// The filter sees queue calls where they are system calls.
#[test]
fn the_kernels_own_queues_are_caught() {
    if !harness::kernel_has_queues() {
        eprintln!("skipped: this kernel has no message queues");
        return;
    }
    for stage in ["pairs", "attributes", "nonblocking", "deadlines", "expired", "refused"] {
        dies_of_sigsys(&run(Mode::Native, &[stage]));
    }
}
