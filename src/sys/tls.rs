//! The calling thread's state: one block with initial-exec addressing, and its set-up.
//!
//! The block is defined in `cshim/` (`#[thread_local]` is not stable, and `thread_local!` would
//! take the slower general-dynamic path). It is plain data without destructors, so it may be used
//! in signal handlers, before `main` and while a thread is being torn down.
//!
//! A child made by fork or a raw clone inherits a copy in which thread id and robust list are
//! those of its parent. It is found out by a page that the kernel wipes on fork
//! (MADV_WIPEONFORK): `generation` differs, and [`ready`] sets the block up again.

use super::gettid;
use crate::abi::{Errno, Result};
use crate::machine::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::syscall;

/// State of the calling thread.
///
/// Fields are atomics because a signal handler of the same thread may look in at any instruction;
/// no other thread writes them.
#[repr(C, align(64))]
pub struct Tls {
    /// Equal to the process's generation while `tid` and `robust` are right; 0: never set up.
    pub generation: AtomicU64,
    /// Address of this task's `robust_list_head`, as the kernel has it.
    pub robust: AtomicUsize,
    /// Address of this thread's [`super::local::Hazard`], in which it says which mapping it uses.
    pub hazard: AtomicUsize,
    /// Nonzero while inside a critical section, where signal handlers are put off.
    pub crit: AtomicU32,
    /// Nonzero when a signal was put off: `saved_mask` holds the mask to restore at the end of the
    /// critical section.
    pub deferred: AtomicU32,
    /// The signal mask of the interrupted code (valid while `deferred`).
    pub saved_mask: AtomicU64,
    /// Kernel thread id (valid while `generation` is current).
    pub tid: AtomicU32,
    /// Blocked calls whose spinning has not paid off lately, see `queue::wait`.
    pub spin_skip: AtomicU32,
    /// Address of the [`crate::queue::Wait`] of the blocked call this thread is in, 0 if none.
    pub waiter: AtomicUsize,
    /// Thread id of a thread that is forking, for its child (`ns::member`).
    pub forking: AtomicUsize,
    /// A `robust_list_head` for tasks that come without one (raw clone).
    pub own_robust: RobustHead,
    /// Used by `interpose::signal`.
    pub reserved: [AtomicU64; 4],
    /// `list_op_pending` as it was before the lock that is held now: locks of the kind of
    /// `shm::lock` don't nest in a thread.
    pub outer_pending: AtomicUsize,
    /// Address of the last lock word that this thread gave up waiting for, and who was said to have it; in the upper half when
    /// that was, seconds (`shm::lock`).
    pub doubted: AtomicUsize,
    pub doubted_owner: AtomicU64,
    /// Room to grow without touching `cshim/`.
    pub spare: [AtomicU64; 5],
}
const _: () = assert!(core::mem::size_of::<Tls>() == 192);

/// `struct robust_list_head` of the kernel (linux/futex.h).
#[repr(C)]
pub struct RobustHead {
    /// The list of robust mutexes held; empty = its own address.
    pub next: AtomicUsize,
    /// From a list entry to its futex word, bytes.
    pub futex_offset: AtomicUsize,
    /// The entry being locked or unlocked, 0 if none.
    pub list_op_pending: AtomicUsize,
}

unsafe extern "C" {
    #[cfg_attr(target_arch = "x86_64", allow(dead_code))]
    fn cshim_tls() -> *mut Tls;
}

/// The calling thread's block, set up or not.
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

/// The page that holds the process generation; null before the first use.
static WIPED: AtomicPtr<AtomicU64> = AtomicPtr::new(core::ptr::null_mut());
/// The last generation given out; copied by fork, so that a child's differs from its parent's.
static LAST_GENERATION: AtomicU64 = AtomicU64::new(0);

/// The process generation; 0 in a child that nobody has set up yet, and before the first use.
#[inline(always)]
pub fn generation() -> u64 {
    let page = WIPED.load(Ordering::Acquire);
    if page.is_null() {
        return 0;
    }
    // SAFETY: once published the page stays mapped for the life of the process.
    unsafe { (*page).load(Ordering::Relaxed) }
}

/// Whether the memory is the calling process's own for certain: it came by fork or a raw clone and has
/// not been looked at yet, or the block has been set up by this very task.
pub fn is_own_process() -> bool {
    let page = WIPED.load(Ordering::Acquire);
    if page.is_null() {
        return false;
    }
    let (tls, generation) = (tls(), generation());
    generation == 0
        || tls.generation.load(Ordering::Relaxed) == generation && tls.tid.load(Ordering::Relaxed) == gettid()
}

/// Thread id of the task that has set the block up last, 0 if none has since the last fork.
pub fn last_known_tid() -> u32 {
    let tls = tls();
    if tls.generation.load(Ordering::Relaxed) == generation() { tls.tid.load(Ordering::Relaxed) } else { 0 }
}

/// Whether any thread of the process, or of one that it came from by fork, has been set up.
pub fn is_in_use() -> bool {
    !WIPED.load(Ordering::Acquire).is_null()
}

/// The calling thread's block, set up for this task.
///
/// # Errors
///
/// ENOMEM: no memory for the page of the first use.
#[inline(always)]
pub fn ready() -> Result<&'static Tls> {
    let tls = tls();
    let generation = generation();
    if generation != 0 && tls.generation.load(Ordering::Relaxed) == generation {
        return Ok(tls);
    }
    set_up(tls)
}

/// In the page instead of a generation, with a thread id: that thread is putting the process's own
/// records right.
const BUSY: u64 = 1 << 63;

/// What the process's own records need when it turns out to be a new one, made by thread `parent`.
fn after_fork(parent: u32) {
    super::local::forget_hazards();
    let hook = AFTER_FORK.load(Ordering::Acquire);
    if !hook.is_null() {
        // SAFETY: only functions of this type are stored there.
        unsafe { core::mem::transmute::<*mut (), fn(u32)>(hook)(parent) };
    }
}

/// A function that [`set_up`] calls in a fork child, with the thread id of its maker.
pub static AFTER_FORK: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

#[cold]
#[inline(never)]
fn set_up(tls: &'static Tls) -> Result<&'static Tls> {
    let page = wiped_page()?;
    let busy = BUSY | gettid() as u64;
    let generation = loop {
        match page.compare_exchange(0, busy, Ordering::Acquire, Ordering::Acquire) {
            // The page has been wiped: this is a fork child, and nobody goes on before its records are
            // right.
            Ok(_) => {
                after_fork(tls.tid.load(Ordering::Relaxed));
                let fresh = LAST_GENERATION.fetch_add(1, Ordering::Relaxed) + 1;
                page.store(fresh, Ordering::Release);
                // SAFETY: the page is mapped; its first half is the low word.
                let _ = unsafe {
                    syscall!(SYS_futex, page.as_ptr(), libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, i32::MAX)
                };
                break fresh;
            }
            // A signal handler of the very thread that is at it sees what there is.
            Err(other) if other & BUSY == 0 || other == busy => break other,
            Err(other) => {
                // SAFETY: as above.
                let _ = unsafe {
                    syscall!(
                        SYS_futex,
                        page.as_ptr(),
                        libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
                        other as u32,
                        0,
                        0,
                        0
                    )
                };
            }
        }
    };
    tls.tid.store(gettid(), Ordering::Relaxed);
    tls.hazard.store(super::local::hazard_record() as *const _ as usize, Ordering::Relaxed);
    tls.robust.store(robust_head(tls)? as usize, Ordering::Relaxed);
    tls.generation.store(generation, Ordering::Relaxed);
    Ok(tls)
}

fn wiped_page() -> Result<&'static AtomicU64> {
    let page = WIPED.load(Ordering::Acquire);
    if !page.is_null() {
        // SAFETY: as in `generation`.
        return Ok(unsafe { &*page });
    }
    // SAFETY: a fresh anonymous mapping; the advice only concerns that page.
    let fresh = unsafe {
        let at = syscall!(
            SYS_mmap,
            0,
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            usize::MAX,
            0
        )?;
        // Where the kernel lacks it (before 4.14), a fork child keeps its parent's generation:
        // its thread id would be wrong. Refuse rather than corrupt.
        if let Err(errno) = syscall!(SYS_madvise, at, 4096, libc::MADV_WIPEONFORK) {
            let _ = syscall!(SYS_munmap, at, 4096);
            return Err(if errno == Errno::EINVAL { Errno::ENOSYS } else { errno });
        }
        let page = at as *mut AtomicU64;
        // Not zero, as it is in a fork child.
        (*page).store(LAST_GENERATION.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        page
    };
    match WIPED.compare_exchange(core::ptr::null_mut(), fresh, Ordering::AcqRel, Ordering::Acquire) {
        // SAFETY: both pages are mapped; the losing one is ours alone.
        Ok(_) => Ok(unsafe { &*fresh }),
        Err(other) => {
            // SAFETY: nobody else has seen the page.
            unsafe {
                let _ = syscall!(SYS_munmap, fresh, 4096);
                Ok(&*other)
            }
        }
    }
}

/// The task's robust list head: libc's, or, where libc has none for this task, our own.
fn robust_head(tls: &'static Tls) -> Result<*const RobustHead> {
    let mut head: *const RobustHead = core::ptr::null();
    let mut len = 0usize;
    // SAFETY: both results are written to locals.
    unsafe { syscall!(SYS_get_robust_list, 0, &raw mut head, &raw mut len)? };
    if !head.is_null() && len == core::mem::size_of::<RobustHead>() {
        return Ok(head);
    }
    let own = &tls.own_robust;
    own.next.store(&raw const *own as usize, Ordering::Relaxed);
    own.futex_offset.store(0, Ordering::Relaxed);
    own.list_op_pending.store(0, Ordering::Relaxed);
    // SAFETY: the head is thread-local and lives as long as the task.
    unsafe { syscall!(SYS_set_robust_list, &raw const *own, core::mem::size_of::<RobustHead>())? };
    Ok(own)
}

impl Tls {
    /// A block that belongs to no thread.
    pub const fn blank() -> Tls {
        Tls {
            generation: AtomicU64::new(0),
            robust: AtomicUsize::new(0),
            hazard: AtomicUsize::new(0),
            crit: AtomicU32::new(0),
            deferred: AtomicU32::new(0),
            saved_mask: AtomicU64::new(0),
            tid: AtomicU32::new(0),
            spin_skip: AtomicU32::new(0),
            waiter: AtomicUsize::new(0),
            forking: AtomicUsize::new(0),
            own_robust: RobustHead {
                next: AtomicUsize::new(0),
                futex_offset: AtomicUsize::new(0),
                list_op_pending: AtomicUsize::new(0),
            },
            reserved: [const { AtomicU64::new(0) }; 4],
            outer_pending: AtomicUsize::new(0),
            doubted: AtomicUsize::new(0),
            doubted_owner: AtomicU64::new(0),
            spare: [const { AtomicU64::new(0) }; 5],
        }
    }

    /// The robust list head in use. Only after [`ready`].
    #[inline(always)]
    pub fn robust(&self) -> &RobustHead {
        // SAFETY: `ready` has stored the address of the head that the kernel knows for this
        // thread, which lives as long as the thread.
        unsafe { &*(self.robust.load(Ordering::Relaxed) as *const RobustHead) }
    }

    /// This thread's hazard record. Only after [`ready`].
    #[inline(always)]
    pub fn hazard(&self) -> &'static super::local::Hazard {
        // SAFETY: `ready` has stored the address of a static record.
        unsafe { &*(self.hazard.load(Ordering::Relaxed) as *const super::local::Hazard) }
    }

    /// Enters a section in which signal handlers are put off; sections may nest.
    #[inline(always)]
    pub fn enter_critical(&self) {
        self.crit.store(self.crit.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        core::sync::atomic::compiler_fence(Ordering::SeqCst);
    }

    /// Leaves it; a signal put off meanwhile is delivered now.
    #[inline(always)]
    pub fn leave_critical(&self) {
        core::sync::atomic::compiler_fence(Ordering::SeqCst);
        let depth = self.crit.load(Ordering::Relaxed) - 1;
        self.crit.store(depth, Ordering::Relaxed);
        core::sync::atomic::compiler_fence(Ordering::SeqCst);
        if depth == 0 && self.deferred.load(Ordering::Relaxed) != 0 {
            deliver(self);
        }
    }
}

/// A function that delivers put-off signals; whoever sets `deferred` has stored it before.
pub static ON_DEFERRED: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

#[cold]
fn deliver(tls: &Tls) {
    let hook = ON_DEFERRED.load(Ordering::Acquire);
    if !hook.is_null() {
        // SAFETY: only functions of this type are stored there.
        unsafe { core::mem::transmute::<*mut (), fn(&Tls)>(hook)(tls) };
    }
}
