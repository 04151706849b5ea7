//! Resources that are short: descriptors, memory, room in the file system, tasks; a state directory that is
//! taken away; many of a kind (`tests/programs/faults.c`, `faults_many.c`). What they come to:
//! `docs/faults.md`. To see the counts: `cargo test --release --test faults -- --nocapture`.

mod harness;

use harness::{Mode, Run};

#[track_caller]
fn run(mode: Mode, program: &str, arguments: &str, limits: &str) -> harness::Outcome {
    let run = Run::new(mode, harness::program(program)).args(arguments.split_whitespace());
    let outcome = run.env("MQNS_LIMITS", limits).run();
    if let Err(why) = outcome.check() {
        panic!("{}: {program} {arguments}: {why}", mode.name());
    }
    println!("{} {arguments}:\n{}", mode.name(), outcome.stdout);
    outcome
}

/// What happens to each call while a resource is short.
#[track_caller]
fn each_call(modes: &[Mode], kind: &str) {
    for &mode in modes {
        if mode == Mode::Shim || harness::kernel_has_queues() {
            let outcome = run(mode, "faults", kind, "exact");
            assert!(outcome.stdout.lines().count() > 10, "{outcome:?}");
        }
    }
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
    each_call(&Mode::ALL, "nofile");
}

#[test]
fn descriptors_run_out_for_good() {
    each_call(&Mode::ALL, "nofile-hard");
}

#[test]
fn address_space_runs_out() {
    each_call(&Mode::ALL, "as");
}

#[test]
fn file_size_is_limited_for_the_moment() {
    each_call(&Mode::ALL, "fsize-soft");
}

#[test]
fn file_size_is_limited_for_good() {
    each_call(&Mode::ALL, "fsize");
}

#[test]
fn file_system_has_no_pages() {
    if mounts_or_skip() {
        each_call(&[Mode::Shim], "blocks");
    }
}

#[test]
fn file_system_has_no_inodes() {
    if mounts_or_skip() {
        each_call(&[Mode::Shim], "inodes");
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn nth_descriptor_is_refused() {
    each_call(&[Mode::Shim], "enfile");
}

#[test]
#[cfg(target_arch = "x86_64")]
fn nth_mapping_is_refused() {
    each_call(&[Mode::Shim], "enomem");
}

#[test]
#[cfg(target_arch = "x86_64")]
fn nth_call_that_takes_room_is_refused() {
    each_call(&[Mode::Shim], "enospc");
}

/// In both modes, with nothing left behind.
#[track_caller]
fn many(arguments: &str) {
    for mode in Mode::ALL {
        if mode == Mode::Native && !harness::kernel_has_queues() {
            continue;
        }
        let outcome = run(mode, "faults_many", arguments, "exact");
        let of_a_queue =
            |p: &&std::path::PathBuf| p.parent().is_some_and(|dir| dir.ends_with("q") || dir.ends_with("sb"));
        let left: Vec<_> = outcome.files.iter().filter(of_a_queue).collect();
        assert!(left.is_empty(), "left behind: {left:?}");
    }
}

#[test]
fn thousand_children_write_to_one_queue() {
    many("children");
}

#[test]
fn thousand_processes_wait_at_one_queue() {
    many("processes");
}

#[test]
fn thousand_threads_wait_at_one_queue() {
    many("threads");
}

#[test]
fn thousand_epoll_sets_watch_one_queue() {
    many("epolls");
}

#[test]
fn no_task_can_begin() {
    many("nproc");
}

#[test]
fn clock_jumps() {
    many("clock");
}

/// Natively as many as RLIMIT_MSGQUEUE allows, and not beside others that use up the same account.
#[test]
fn ten_thousand_queues_in_a_namespace() {
    let outcome = run(Mode::Shim, "faults_many", "queues 10000", "generous");
    let of_a_queue = |p: &&std::path::PathBuf| p.to_string_lossy().contains("many.");
    assert_eq!(outcome.files.iter().find(of_a_queue), None);
    assert!(outcome.files.len() < 10, "left behind: {:?}", outcome.files);
}

#[test]
fn state_directory_changes_under_its_users() {
    if mounts_or_skip() {
        run(Mode::Shim, "faults_many", "directory", "exact");
    }
}
