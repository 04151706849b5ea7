//! The machine itself: system calls, shared memory, processors. Nothing else of the engine (`sys`, `shm`, `queue`) reaches
//! them by another way, so that a model of a kernel can stand in their place and run the engine's own code
//! (`tests/model`). Here they are what they are everywhere.

/// Atomics that other threads or processes see, or the kernel when a thread dies.
pub use core::sync::atomic;

/// How often to look again before sleeping. (A model, in which nothing takes any time, has no use for more than once.)
pub const fn patience(times: u32) -> u32 {
    times
}

/// How long a table in shared memory is. (A model makes do with a few.)
pub const fn room(many: usize, _few: usize) -> usize {
    many
}

/// Lets others run.
pub fn give_way() {
    // SAFETY: no arguments.
    unsafe { raw6(libc::SYS_sched_yield, 0, 0, 0, 0, 0, 0) };
}

/// Number of the CPU that the caller runs on, -1 if unknown.
#[inline(always)]
pub fn cpu() -> i32 {
    // SAFETY: no arguments.
    unsafe { libc::sched_getcpu() }
}

/// What a clock says.
#[inline(always)]
pub fn clock(id: libc::clockid_t) -> libc::timespec {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the result goes to a local; the call is the vDSO's and cannot fail for the clocks asked for.
    unsafe { libc::clock_gettime(id, &mut now) };
    now
}

/// A raw system call; the kernel's result, `-errno` on failure.
///
/// # Safety
///
/// The arguments are what system call `nr` expects; pointers are valid for it or may fault.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub unsafe fn raw6(nr: i64, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> isize {
    let ret: isize;
    // SAFETY: the syscall instruction clobbers rcx and r11 only; the caller vouches for the rest.
    unsafe {
        core::arch::asm!("syscall", inlateout("rax") nr as isize => ret, in("rdi") a, in("rsi") b,
            in("rdx") c, in("r10") d, in("r8") e, in("r9") f, lateout("rcx") _, lateout("r11") _,
            options(nostack));
    }
    ret
}

/// A raw system call; the kernel's result, `-errno` on failure.
///
/// # Safety
///
/// The arguments are what system call `nr` expects; pointers are valid for it or may fault.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub unsafe fn raw6(nr: i64, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> isize {
    let ret: isize;
    // SAFETY: the svc instruction changes x0 only; the caller vouches for the rest.
    unsafe {
        core::arch::asm!("svc 0", in("x8") nr, inlateout("x0") a as isize => ret, in("x1") b,
            in("x2") c, in("x3") d, in("x4") e, in("x5") f, options(nostack));
    }
    ret
}
