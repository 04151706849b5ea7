//! One block of thread-local state, with initial-exec addressing.
//!
//! The block itself is defined in `cshim/` (`#[thread_local]` is not stable, and `thread_local!`
//! would take the slower general-dynamic path). It is plain data without destructors, so it may be
//! used in signal handlers, before `main` and while a thread is being torn down.

use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize};

/// State of the calling thread. A child made by fork, vfork or clone inherits a copy (or, with
/// CLONE_VM and no new TLS, the very block): whatever depends on the task's identity counts only
/// while `generation` equals the process's.
///
/// Fields are atomics because a signal handler of the same thread may look in at any instruction;
/// no other thread writes them.
#[repr(C, align(64))]
pub struct Tls {
    /// [`super::tls`]'s notion of "set up in this process": 0 = never, else the process generation.
    pub generation: AtomicU64,
    /// Address of this task's `robust_list_head`, as the kernel has it.
    pub robust: AtomicUsize,
    /// Address of the queue mapping that an operation is using right now, 0 if none: whoever wants
    /// to unmap one looks here first.
    pub in_op: AtomicUsize,
    /// Nonzero while inside a critical section, where signal handlers are put off.
    pub crit: AtomicU32,
    /// Nonzero when a signal was put off: `saved_mask` holds the mask to restore at the end of the
    /// critical section.
    pub deferred: AtomicU32,
    /// The signal mask of the interrupted code (valid while `deferred`).
    pub saved_mask: AtomicU64,
    /// Kernel thread id (valid while `generation` is current).
    pub tid: AtomicU32,
    /// 1 + index of this thread's waiter record, while it sleeps in a queue; else 0.
    pub waiter: AtomicU32,
    /// Address of the mapping in which that waiter record lies.
    pub waiter_map: AtomicUsize,
    /// Signal handlers currently running on this thread that have interrupted a blocked mq_* call.
    pub reserved: [AtomicU64; 8],
}
const _: () = assert!(core::mem::size_of::<Tls>() == 128);

unsafe extern "C" {
    #[cfg_attr(target_arch = "x86_64", allow(dead_code))]
    fn cshim_tls() -> *mut Tls;
}

/// The calling thread's block.
#[inline(always)]
pub fn tls() -> &'static Tls {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: `cshim_tls_block` is the thread-local block of cshim.c, addressed by the
    // initial-exec sequence of the ELF TLS ABI; it lives as long as the thread, and all of its
    // fields are atomics.
    unsafe {
        let block: *const Tls;
        core::arch::asm!("mov {0}, qword ptr [rip + cshim_tls_block@GOTTPOFF]",
            "add {0}, qword ptr fs:[0]", out(reg) block, options(pure, readonly, nostack));
        &*block
    }
    #[cfg(not(target_arch = "x86_64"))]
    // SAFETY: as above, by a function of cshim.c.
    unsafe {
        &*cshim_tls()
    }
}
