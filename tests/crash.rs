//! Processes that are killed, stopped, cancelled and interrupted in the middle of queue calls
//! (`tests/programs/crash_*.c`): what is left must be in order. The engine by itself, killed at every
//! instruction, is tested in `src/queue/tests.rs`; longer runs are `scripts/torture`'s.

mod harness;

use std::path::PathBuf;

use harness::row::row;
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
fn run(program: &str, arguments: &str, fault: &str) {
    run_in(&Mode::ALL, program, arguments, fault);
}

#[track_caller]
fn run_in(modes: &[Mode], program: &str, arguments: &str, fault: &str) {
    let (mut times, mut mqns, mut native) = (String::new(), String::new(), None);
    for &mode in modes {
        if mode == Mode::Native && !harness::kernel_has_queues() {
            continue;
        }
        let outcome = Run::new(mode, harness::program(program)).args(arguments.split_whitespace()).run();
        if let Err(why) = outcome.check() {
            panic!("{}: {program} {arguments}: {why}", mode.name());
        }
        no_queue_is_left(&outcome);
        // How often, and what it came to.
        let said = outcome.stdout.lines().rfind(|line| !line.starts_with("= ")).unwrap_or_default();
        let (often, words) = said.split_once('\t').or(said.split_once(", ")).unwrap_or_else(|| panic!("{outcome:?}"));
        match mode {
            Mode::Shim => (times, mqns) = (often.to_string(), words.to_string()),
            Mode::Native => native = Some(words.to_string()),
        }
    }
    row(fault, &format!("{program} {arguments}"), &times, &mqns, native.as_deref());
}

#[test]
fn processes_killed_at_random_lose_nothing() {
    run("crash_torture", "-k 150 -r 1", "processes killed at random");
}

#[test]
fn processes_killed_at_a_queue_of_one_lose_nothing() {
    run("crash_torture", "-k 150 -m 1 -p 4 -c 4 -r 2", "processes killed at a queue of one");
}

#[test]
fn processes_killed_with_large_messages_lose_nothing() {
    run("crash_torture", "-k 100 -z 8192 -l 5000 -m 2 -r 3", "processes killed with large messages");
}

#[test]
fn processes_killed_and_stopped_lose_nothing() {
    run("crash_torture", "-k 100 -s -r 4", "processes killed and stopped");
}

#[test]
fn processes_killed_and_interrupted_lose_nothing() {
    run("crash_torture", "-k 100 -i -m 2 -r 5", "processes killed and interrupted");
}

#[test]
fn processes_killed_while_they_poll_lose_nothing() {
    run("crash_torture", "-e -k 100 -m 2 -p 5 -c 5 -r 6", "processes killed while they poll");
    run("crash_torture", "-e -k 100 -s -i -p 5 -c 5 -r 7", "processes killed while they poll, stopped and interrupted");
}

#[test]
fn a_handler_may_jump_out_of_a_blocked_call() {
    run("crash_cases", "jump-out", "a handler jumps out of a blocked call");
}

#[test]
fn what_a_handler_has_jumped_out_of_leaves_nothing_behind() {
    run("crash_cases", "jump-often", "handlers jump out of blocked calls, again and again");
}

#[test]
fn handlers_may_use_the_queue_they_have_interrupted() {
    run("crash_cases", "handlers", "handlers use the queue that they have interrupted");
}

#[test]
fn cancelled_threads_leave_the_queue_in_order() {
    run("crash_cases", "cancel", "threads are cancelled in blocked calls");
}

#[test]
fn waiters_that_were_killed_are_taken_back() {
    run("crash_cases", "killed-waiters", "threads die in line");
}

#[test]
fn queues_come_and_go_in_a_storm_of_signals_and_forks() {
    run("crash_cases", "storm", "signals and forks while queues come and go");
}

/// Not natively: there the account is one with those of all that run beside this.
#[test]
fn queues_made_and_unlinked_under_common_names_are_charged_once() {
    run_in(&[Mode::Shim], "crash_cases", "common-names", "processes make and unlink the same names");
}

/// Nothing is left to find natively.
#[test]
fn a_maker_who_was_not_first_may_be_killed_at_any_system_call() {
    run_in(&[Mode::Shim], "crash_cases", "beaten", "a maker who was not first is killed at each system call");
}

#[test]
fn processes_killed_at_several_queues_lose_nothing() {
    run("crash_torture", "-q 3 -p 2 -c 2 -k 200 -r 8", "processes killed at several queues");
}

#[test]
fn children_forked_in_the_middle_lose_nothing() {
    run("crash_torture", "-x fork -k 200 -r 9", "processes killed that fork in the middle");
}

#[test]
fn exec_over_blocked_threads_loses_nothing() {
    run("crash_torture", "-x exec -k 100 -r 10", "exec over blocked threads");
}

#[test]
fn descriptors_closed_under_blocked_calls_lose_nothing() {
    run("crash_torture", "-x close -k 150 -r 11", "descriptors closed under blocked calls");
}

#[test]
fn threads_cancelled_when_they_are_woken_lose_nothing() {
    run("crash_torture", "-x cancel -k 150 -r 12", "threads cancelled when they are woken");
}

#[test]
fn waiters_killed_when_they_are_woken_lose_nothing() {
    run("crash_torture", "-x woken -q 2 -k 400 -r 13", "waiters killed when they are woken");
}

#[test]
fn deadlines_that_run_out_at_the_hand_over_lose_nothing() {
    run("crash_torture", "-x timed -k 200 -r 14", "deadlines that run out at the hand-over");
}

#[test]
fn a_storm_of_handlers_that_send_and_receive_loses_nothing() {
    run("crash_torture", "-x storm -k 200 -r 15", "a storm of handlers that send and receive");
}

#[test]
fn notifications_of_killed_registrants_pass_to_the_next() {
    run("crash_torture", "-x notify -k 300 -r 16", "registrants of notifications killed");
}

#[test]
fn common_names_made_and_unlinked_by_the_killed_leave_nothing_behind() {
    run("crash_torture", "-x names -k 60 -r 17", "makers and removers of common names killed");
}

#[test]
fn calls_that_block_and_end_in_any_way_leave_room_for_others() {
    run("crash_torture", "-x room -m 1 -t 1.5 -r 18", "blocked calls end in every way");
}

/// As root: the namespaces are made without user namespaces.
#[test]
fn namespaces_whose_members_are_killed_lose_nothing_and_end() {
    // SAFETY: no arguments.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("skipped: needs the right to make namespaces");
        return;
    }
    run("crash_torture", "-x spaces -q 3 -p 2 -c 2 -k 200 -r 19", "members of namespaces killed");
}

/// There is no such directory natively.
#[test]
fn names_that_all_may_list_tell_no_keys() {
    run_in(&[Mode::Shim], "crash_cases", "no-keys-to-see", "a look at the names in the directory");
}
