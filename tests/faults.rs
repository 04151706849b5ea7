//! Resources that are short: descriptors, memory, room in the file system, tasks; a state directory that is
//! taken away; many of a kind (`tests/programs/faults.c`, `faults_many.c`). What they come to:
//! `docs/faults.md`, which `scripts/faults` makes.

mod harness;

use std::collections::BTreeMap;
use std::time::Duration;

use harness::row::row;
use harness::{Mode, Run};

#[track_caller]
fn run(mode: Mode, program: &str, arguments: &str, limits: &str) -> harness::Outcome {
    let run = Run::new(mode, harness::program(program)).args(arguments.split_whitespace());
    // Thousands of processes, one after the other: a machine that does other things as well takes its time.
    let outcome = run.env("MQNS_LIMITS", limits).timeout(Duration::from_secs(240)).run();
    if let Err(why) = outcome.check() {
        panic!("{}: {program} {arguments}: {why}", mode.name());
    }
    outcome
}

/// What the lines `KIND CALL: N refused, N worked[, ERROR…]` come to: attempts refused and not, and in words.
fn summary(said: &str) -> (u32, u32, String) {
    let (mut refused, mut worked, mut all) = (0, 0, 0);
    // The calls by what they say; those that are never refused are the rest.
    let mut calls: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for line in said.lines() {
        let (name, counts) = line.split_once(": ").expect("a call");
        let mut counts = counts.split(", ");
        let mut count = |of: &str| {
            let text = counts.next().and_then(|count| count.strip_suffix(of)).unwrap_or_else(|| panic!("{line}"));
            text.parse::<u32>().expect("a number")
        };
        (refused, worked, all) = (refused + count(" refused"), worked + count(" worked"), all + 1);
        let errors = counts.collect::<Vec<_>>().join(" or ");
        if !errors.is_empty() {
            calls.entry(errors).or_default().push(name.split_once(' ').expect("a kind and a call").1);
        }
    }
    assert!(all > 10, "{said}");
    let rest = all - calls.values().map(Vec::len).sum::<usize>();
    let mut words: Vec<String> =
        calls.iter().map(|(errors, calls)| format!("{errors}: {}", calls.join(", "))).collect();
    words.push(if rest == all { format!("all {all} work") } else { format!("the other {rest} work") });
    (refused, worked, words.join("; "))
}

/// What happens to each call while a resource is short.
#[track_caller]
fn each_call(modes: &[Mode], kind: &str, fault: &str, how: &str) {
    let (mut times, mut mqns, mut native) = (String::new(), String::new(), None);
    for &mode in modes {
        if mode == Mode::Native && !harness::kernel_has_queues() {
            continue;
        }
        let (refused, worked, words) = summary(&run(mode, "faults", kind, "exact").stdout);
        match mode {
            Mode::Shim => (times, mqns) = (format!("{} attempts, {refused} refused", refused + worked), words),
            Mode::Native => native = Some(words),
        }
    }
    row(fault, how, &times, &mqns, native.as_deref());
}

/// Root, with the right to mount.
fn mounts_or_skip() -> bool {
    // SAFETY: no arguments.
    let may = unsafe { libc::geteuid() } == 0 && harness::may_mount();
    if !may {
        eprintln!("skipped: needs root, and the right to mount");
    }
    may
}

#[test]
fn descriptors_run_out_for_the_moment() {
    each_call(&Mode::ALL, "nofile", "no descriptor (EMFILE)", "RLIMIT_NOFILE, soft, upward from none free");
}

#[test]
fn descriptors_run_out_for_good() {
    each_call(
        &Mode::ALL,
        "nofile-hard",
        "no descriptor (EMFILE)",
        "RLIMIT_NOFILE, soft and hard, upward from none free",
    );
}

#[test]
fn address_space_runs_out() {
    each_call(&Mode::ALL, "as", "no address space", "RLIMIT_AS, upward by pages");
}

#[test]
fn file_size_is_limited_for_the_moment() {
    each_call(&Mode::ALL, "fsize-soft", "file size", "RLIMIT_FSIZE, soft, upward from 0");
}

#[test]
fn file_size_is_limited_for_good() {
    each_call(&Mode::ALL, "fsize", "file size", "RLIMIT_FSIZE, soft and hard, upward from 0");
}

#[test]
fn file_system_has_no_pages() {
    if mounts_or_skip() {
        each_call(&[Mode::Shim], "blocks", "file system full", "tmpfs of its own with N pages left");
    }
}

#[test]
fn file_system_has_no_inodes() {
    if mounts_or_skip() {
        each_call(&[Mode::Shim], "inodes", "no inodes", "tmpfs of its own with N inodes left");
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn nth_descriptor_is_refused() {
    each_call(&[Mode::Shim], "enfile", "no descriptor (ENFILE)", "each open, dup, socket … in turn fails (ptrace)");
}

#[test]
#[cfg(target_arch = "x86_64")]
fn nth_mapping_is_refused() {
    each_call(&[Mode::Shim], "enomem", "mmap fails", "each mmap in turn (ptrace)");
}

#[test]
#[cfg(target_arch = "x86_64")]
fn nth_call_that_takes_room_is_refused() {
    each_call(
        &[Mode::Shim],
        "enospc",
        "each call that takes room fails",
        "openat with O_CREAT, ftruncate, mknod, link, populate … in turn (ptrace)",
    );
}

/// What it says: how often, and what it came to.
fn told(outcome: &harness::Outcome) -> (String, String) {
    let (times, words) = outcome.stdout.trim_end().split_once('\t').unwrap_or_else(|| panic!("{outcome:?}"));
    (times.to_string(), words.to_string())
}

/// In both modes, with nothing left behind.
#[track_caller]
fn many(arguments: &str, fault: &str, how: &str) {
    let run = |mode| {
        let outcome = run(mode, "faults_many", arguments, "exact");
        let of_a_queue =
            |p: &&std::path::PathBuf| p.parent().is_some_and(|dir| dir.ends_with("q") || dir.ends_with("sb"));
        let left: Vec<_> = outcome.files.iter().filter(of_a_queue).collect();
        assert!(left.is_empty(), "left behind: {left:?}");
        told(&outcome)
    };
    let native = harness::kernel_has_queues().then(|| run(Mode::Native).1);
    let (times, words) = run(Mode::Shim);
    row(fault, how, &times, &words, native.as_deref());
}

#[test]
fn thousand_children_write_to_one_queue() {
    many("children", "1,000 children at once", "fork, each 10 messages to one queue of 10");
}

#[test]
fn thousand_processes_wait_at_one_queue() {
    many("processes", "1,000 waiters", "processes asleep in mq_receive, then in mq_send, on one queue");
}

#[test]
fn thousand_threads_wait_at_one_queue() {
    many("threads", "1,000 waiters", "threads asleep in mq_receive, then in mq_send, on one queue");
}

#[test]
fn as_many_threads_as_can_wait_at_one_queue() {
    many("most-threads", "8,000 waiters", "threads asleep in mq_receive, then in mq_send, on one queue");
}

#[test]
fn thousand_epoll_sets_watch_one_queue() {
    many("epolls", "1,000 epoll sets", "with one queue, half of them edge-triggered, three rounds");
}

#[test]
fn no_task_can_begin() {
    many("nproc", "no tasks", "RLIMIT_NPROC 0, as another user");
}

#[test]
fn clock_jumps() {
    many(
        "clock",
        "clock jumps",
        "CLOCK_REALTIME of the program (its own clock_gettime) an hour forward and back, before and during timed calls",
    );
}

/// Natively a hundred: RLIMIT_MSGQUEUE's account is one with those of all that run beside this.
#[test]
fn ten_thousand_queues_in_a_namespace() {
    let outcome = run(Mode::Shim, "faults_many", "queues 10000", "generous");
    let of_a_queue = |p: &&std::path::PathBuf| p.to_string_lossy().contains("many.");
    assert_eq!(outcome.files.iter().find(of_a_queue), None);
    assert!(outcome.files.len() < 10, "left behind: {:?}", outcome.files);
    let (times, words) = told(&outcome);
    let native = harness::kernel_has_queues().then(|| told(&run(Mode::Native, "faults_many", "queues 100", "exact")));
    let native = native.map(|(times, words)| format!("{words} ({times})"));
    row("10,000 queues", "in one namespace", &times, &words, native.as_deref());
}

#[test]
fn state_directory_changes_under_its_users() {
    if mounts_or_skip() {
        for line in run(Mode::Shim, "faults_many", "directory", "exact").stdout.lines() {
            let (times, said) = line.split_once('\t').expect("a count");
            let (how, outcome) = said.rsplit_once(": ").expect("an outcome");
            row("state directory changes", how, times, outcome, None);
        }
    }
}
