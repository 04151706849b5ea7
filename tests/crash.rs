//! Processes that are killed, stopped, cancelled and interrupted in the middle of queue calls
//! (`tests/programs/crash_*.c`): what is left must be in order. The engine by itself, killed at every
//! instruction, is tested in `src/queue/tests.rs`; longer runs are `scripts/torture`'s.

mod harness;

use std::path::PathBuf;

use harness::{Mode, Run};

/// Files that stand for one queue.
fn no_queue_is_left(outcome: &harness::Outcome) {
    let left: Vec<_> = outcome.files.iter().filter(|p| p.to_string_lossy().contains("crash-")).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    let is_part =
        |p: &&PathBuf| p.parent().is_some_and(|d| d.ends_with("q") || d.ends_with("q/x") || d.ends_with("sb"));
    let parts: Vec<_> = outcome.files.iter().filter(is_part).collect();
    assert!(parts.is_empty(), "left behind: {parts:?}");
}

#[track_caller]
fn run(program: &str, arguments: &str) {
    run_in(&Mode::ALL, program, arguments);
}

#[track_caller]
fn run_in(modes: &[Mode], program: &str, arguments: &str) {
    for &mode in modes {
        if mode == Mode::Native && !harness::kernel_has_queues() {
            continue;
        }
        let outcome = Run::new(mode, harness::program(program)).args(arguments.split_whitespace()).run();
        if let Err(why) = outcome.check() {
            panic!("{}: {program} {arguments}: {why}", mode.name());
        }
        no_queue_is_left(&outcome);
    }
}

#[test]
fn processes_killed_at_random_lose_nothing() {
    run("crash_torture", "-k 150 -r 1");
}

#[test]
fn processes_killed_at_a_queue_of_one_lose_nothing() {
    run("crash_torture", "-k 150 -m 1 -p 4 -c 4 -r 2");
}

#[test]
fn processes_killed_with_large_messages_lose_nothing() {
    run("crash_torture", "-k 100 -z 8192 -l 5000 -m 2 -r 3");
}

#[test]
fn processes_killed_and_stopped_lose_nothing() {
    run("crash_torture", "-k 100 -s -r 4");
}

#[test]
fn processes_killed_and_interrupted_lose_nothing() {
    run("crash_torture", "-k 100 -i -m 2 -r 5");
}

#[test]
fn processes_killed_while_they_poll_lose_nothing() {
    run("crash_torture", "-e -k 100 -m 2 -p 5 -c 5 -r 6");
    run("crash_torture", "-e -k 100 -s -i -p 5 -c 5 -r 7");
}

#[test]
fn a_handler_may_jump_out_of_a_blocked_call() {
    run("crash_cases", "jump-out");
}

#[test]
fn what_a_handler_has_jumped_out_of_leaves_nothing_behind() {
    run("crash_cases", "jump-often");
}

#[test]
fn handlers_may_use_the_queue_they_have_interrupted() {
    run("crash_cases", "handlers");
}

#[test]
fn cancelled_threads_leave_the_queue_in_order() {
    run("crash_cases", "cancel");
}

#[test]
fn waiters_that_were_killed_are_taken_back() {
    run("crash_cases", "killed-waiters");
}

#[test]
fn queues_come_and_go_in_a_storm_of_signals_and_forks() {
    run("crash_cases", "storm");
}

/// Not natively: there the account is one with those of all that run beside this.
#[test]
fn queues_made_and_unlinked_under_common_names_are_charged_once() {
    run_in(&[Mode::Shim], "crash_cases", "common-names");
}

/// Nothing is left to find natively.
#[test]
fn a_maker_who_was_not_first_may_be_killed_at_any_system_call() {
    run_in(&[Mode::Shim], "crash_cases", "beaten");
}

#[test]
fn processes_killed_at_several_queues_lose_nothing() {
    run("crash_torture", "-q 3 -p 2 -c 2 -k 200 -r 8");
}

#[test]
fn children_forked_in_the_middle_lose_nothing() {
    run("crash_torture", "-x fork -k 200 -r 9");
}

#[test]
fn exec_over_blocked_threads_loses_nothing() {
    run("crash_torture", "-x exec -k 100 -r 10");
}

#[test]
fn descriptors_closed_under_blocked_calls_lose_nothing() {
    run("crash_torture", "-x close -k 150 -r 11");
}

#[test]
fn threads_cancelled_when_they_are_woken_lose_nothing() {
    run("crash_torture", "-x cancel -k 150 -r 12");
}

#[test]
fn waiters_killed_when_they_are_woken_lose_nothing() {
    run("crash_torture", "-x woken -q 2 -k 400 -r 13");
}

#[test]
fn deadlines_that_run_out_at_the_hand_over_lose_nothing() {
    run("crash_torture", "-x timed -k 200 -r 14");
}

#[test]
fn a_storm_of_handlers_that_send_and_receive_loses_nothing() {
    run("crash_torture", "-x storm -k 200 -r 15");
}

#[test]
fn notifications_of_killed_registrants_pass_to_the_next() {
    run("crash_torture", "-x notify -k 300 -r 16");
}

#[test]
fn common_names_made_and_unlinked_by_the_killed_leave_nothing_behind() {
    run("crash_torture", "-x names -k 60 -r 17");
}

#[test]
fn calls_that_block_and_end_in_any_way_leave_room_for_others() {
    run("crash_torture", "-x room -m 1 -t 1.5 -r 18");
}

/// As root: the namespaces are made without user namespaces.
#[test]
fn namespaces_whose_members_are_killed_lose_nothing_and_end() {
    // SAFETY: no arguments.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("skipped: needs the right to make namespaces");
        return;
    }
    run("crash_torture", "-x spaces -q 3 -p 2 -c 2 -k 200 -r 19");
}

/// There is no such directory natively.
#[test]
fn names_that_all_may_list_tell_no_keys() {
    run_in(&[Mode::Shim], "crash_cases", "no-keys-to-see");
}
