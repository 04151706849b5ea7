//! Tasks and namespaces: unshare, setns, clone, threads; and what starts programs without exec:
//! system, popen.

use core::ffi::{c_char, c_int, c_long, c_ulong, c_void};
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::{find_next, jump, next, raw_result, ret};
use crate::abi::{Errno, Result};
use crate::ns::across::{self, Across, Bridge};
use crate::ns::enter::{self, Birth};
use crate::ns::member;
use crate::sys::local::LocalLock;
use crate::sys::tls::{self, Tls};

jump! {
    /// clone(2).
    clone => cshim_clone;
    /// clone(2), by its older name.
    __clone => cshim_clone;
    /// pthread_create(3).
    pthread_create => cshim_pthread_create;
    /// thrd_create(3).
    thrd_create => cshim_thrd_create;
}

/// The calling task's block. Set up, so that a child made by a raw clone is told apart later; but not
/// that of a guest, which is its maker's.
fn ready() -> Result<&'static Tls> {
    if member::is_guest() { Ok(member::tls()) } else { super::mq::ready() }
}

/// unshare(2).
#[unsafe(no_mangle)]
pub extern "C" fn mqns_unshare(flags: c_int) -> isize {
    let copied = (flags & libc::CLONE_NEWNS != 0 && crate::vfs::any()).then(crate::vfs::mount::Copied::new);
    let done = ready_for(flags).and_then(|tls| enter::unshare(tls, flags));
    if done.is_ok()
        && let Some(copied) = copied
    {
        copied.done();
    }
    raw_result(done.map(|()| 0))
}

/// Without CLONE_NEWIPC nothing is ours.
fn ready_for(flags: c_int) -> Result<&'static Tls> {
    if flags & enter::NEWIPC == 0 { Ok(tls::tls()) } else { ready() }
}

/// unshare(2).
#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn unshare(flags: c_int) -> c_int {
    ret(crate::sys::check(mqns_unshare(flags))) as c_int
}

/// setns(2).
#[unsafe(no_mangle)]
pub extern "C" fn mqns_setns(fd: c_int, kinds: c_int) -> isize {
    let done = ready().and_then(|tls| enter::setns(tls, fd, kinds));
    crate::vfs::look_again();
    raw_result(done.map(|()| 0))
}

/// setns(2).
#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn setns(fd: c_int, kinds: c_int) -> c_int {
    ret(crate::sys::check(mqns_setns(fd, kinds))) as c_int
}

fn begins(birth: *mut Birth, begun: Result<Option<Birth>>) -> c_long {
    match begun {
        Ok(None) => 0,
        Ok(Some(begun)) => {
            // SAFETY: a local of the calling C frame.
            unsafe { birth.write(begun) };
            1
        }
        Err(Errno(errno)) => -c_long::from(errno),
    }
}

/// For `cshim/task.c`: before clone(2).
#[unsafe(no_mangle)]
pub extern "C" fn mqns_clone_begins(flags: c_ulong, birth: *mut Birth) -> c_long {
    begins(birth, ready_for(flags as c_int).and_then(|tls| enter::clone_begins(tls, flags)))
}

/// For `cshim/task.c`: before pthread_create(3).
#[unsafe(no_mangle)]
pub extern "C" fn mqns_thread_begins(birth: *mut Birth) -> c_long {
    if !member::anybody_for_itself() {
        return 0;
    }
    begins(birth, enter::thread_begins(member::tls()))
}

/// For `cshim/task.c`: in the new task.
///
/// # Safety
///
/// `birth` is what the maker was given.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mqns_clone_in_child(birth: *const Birth) {
    // SAFETY: the caller's contract.
    enter::clone_in_child(member::tls(), unsafe { &*birth });
}

/// For `cshim/task.c`: in the maker, afterwards.
///
/// # Safety
///
/// `birth` is what the maker was given.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mqns_clone_in_parent(birth: *const Birth, succeeded: c_int) {
    // SAFETY: the caller's contract.
    enter::clone_in_parent(unsafe { &*birth }, succeeded != 0);
}

/// For `cshim/task.c`: the task's function has returned.
///
/// # Safety
///
/// `birth` is what the maker was given.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mqns_clone_ends(birth: *const Birth) {
    super::process::close_passing();
    // SAFETY: the caller's contract.
    enter::clone_ends(member::tls(), unsafe { &*birth });
    // Its namespace may have ended by that.
    super::process::close_passing();
}

/// For `cshim/task.c`: whether to try again without CLONE_NEWIPC.
#[unsafe(no_mangle)]
pub extern "C" fn mqns_may_go_without(errno: c_int) -> c_int {
    c_int::from(enter::may_go_without(Errno(errno)))
}

/// For `cshim/task.c`: a thread of a process that tracks them forks.
#[unsafe(no_mangle)]
pub extern "C" fn mqns_fork_prepare() {
    tls::tls().forking.store(crate::sys::gettid() as usize, Relaxed);
}

/// For `cshim/task.c`: in the child, whose block is a copy of that thread's.
#[unsafe(no_mangle)]
pub extern "C" fn mqns_fork_child() {
    SPAWNING.reset();
    member::after_fork(tls::tls().forking.load(Relaxed) as u32);
}

/// For `cshim/task.c`: a thread with a namespace of its own ends.
#[unsafe(no_mangle)]
pub extern "C" fn mqns_task_ends() {
    member::task_ends(member::tls());
}

/// For `cshim/task.c`: the next definitions.
#[unsafe(no_mangle)]
pub extern "C" fn mqns_next_task(which: c_int) -> usize {
    const NAMES: [&core::ffi::CStr; 3] = [c"clone", c"pthread_create", c"thrd_create"];
    static NEXT: [AtomicUsize; NAMES.len()] = [const { AtomicUsize::new(0) }; NAMES.len()];
    let slot = &NEXT[which as usize % NAMES.len()];
    let mut at = slot.load(Relaxed);
    if at == 0 {
        at = find_next(NAMES[which as usize % NAMES.len()]);
        slot.store(at, Relaxed);
    }
    at
}

/// Where the threads of a process are in several namespaces, the descriptor that one thread leaves
/// open for its child must not get into another's.
static SPAWNING: LocalLock = LocalLock::new();

/// Runs `start`, which starts a program in a child, with a descriptor that takes the namespace along.
pub fn spawning<T>(start: impl FnOnce(Option<&Bridge>) -> T) -> T {
    if member::nobody_has_moved() {
        return start(None);
    }
    let tls = member::tls();
    let held = member::anybody_for_itself().then(|| SPAWNING.lock(tls));
    let bridge = across::bridge(tls, Across::Child, super::fd::has_high_numbers());
    let result = start(bridge.as_ref());
    drop(bridge);
    drop(held);
    result
}

/// wordexp(3), which runs commands.
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn wordexp(words: *const c_char, to: *mut c_void, flags: c_int) -> c_int {
    let next = next!(c"wordexp": unsafe extern "C" fn(*const c_char, *mut c_void, c_int) -> c_int);
    // SAFETY: the caller's contract.
    spawning(|_| unsafe { next(words, to, flags) })
}

unsafe extern "C-unwind" {
    fn cshim_system(command: *const c_char) -> c_int;
}

/// system(3).
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C-unwind" fn system(command: *const c_char) -> c_int {
    // SAFETY: the caller's contract.
    unsafe {
        if member::nobody_has_moved() || command.is_null() {
            return next!(c"system": unsafe extern "C-unwind" fn(*const c_char) -> c_int)(command);
        }
        cshim_system(command)
    }
}

/// popen(3).
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn popen(command: *const c_char, kind: *const c_char) -> *mut c_void {
    let next = next!(c"popen": unsafe extern "C" fn(*const c_char, *const c_char) -> *mut c_void);
    // SAFETY: the caller's contract.
    spawning(|_| unsafe { next(command, kind) })
}
