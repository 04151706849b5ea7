//! The machine below: raw system calls, thread state, futexes, copies that survive bad pointers.
//!
//! Inside a preloaded library every libc call may be our own hook, so system calls are made
//! directly. Nothing here touches `errno`. Async-signal-safe throughout.

pub mod fault;
pub mod futex;
pub mod local;
pub mod path;
pub mod point;
pub mod proc;
pub mod tls;

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::abi::{Errno, Result};
pub use crate::machine::raw6;

/// Turns a raw result into a `Result`.
#[inline(always)]
pub fn check(ret: isize) -> Result<usize> {
    if (-4095..0).contains(&ret) { Err(Errno(-ret as i32)) } else { Ok(ret as usize) }
}

/// `syscall!(NAME, args…)`: `SYS_NAME` with up to six arguments cast to usize, as
/// `Result<usize, Errno>`. Must stand in an `unsafe` block.
#[macro_export]
macro_rules! syscall {
    ($nr:ident $(, $a:expr)*) => { $crate::syscall!(@pad $nr; $($a as usize),*) };
    (@pad $nr:ident; ) => { $crate::syscall!(@call $nr; 0, 0, 0, 0, 0, 0) };
    (@pad $nr:ident; $a:expr) => { $crate::syscall!(@call $nr; $a, 0, 0, 0, 0, 0) };
    (@pad $nr:ident; $a:expr, $b:expr) => { $crate::syscall!(@call $nr; $a, $b, 0, 0, 0, 0) };
    (@pad $nr:ident; $a:expr, $b:expr, $c:expr) => { $crate::syscall!(@call $nr; $a, $b, $c, 0, 0, 0) };
    (@pad $nr:ident; $a:expr, $b:expr, $c:expr, $d:expr) => { $crate::syscall!(@call $nr; $a, $b, $c, $d, 0, 0) };
    (@pad $nr:ident; $a:expr, $b:expr, $c:expr, $d:expr, $e:expr) => { $crate::syscall!(@call $nr; $a, $b, $c, $d, $e, 0) };
    (@pad $nr:ident; $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f:expr) => { $crate::syscall!(@call $nr; $a, $b, $c, $d, $e, $f) };
    (@call $nr:ident; $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f:expr) => {
        $crate::sys::check($crate::sys::raw6(libc::$nr as i64, $a, $b, $c, $d, $e, $f))
    };
}

/// Thread id of the caller, asked of the kernel (glibc's cached one is wrong after a raw clone).
pub fn gettid() -> u32 {
    // SAFETY: no pointers.
    unsafe { raw6(libc::SYS_gettid, 0, 0, 0, 0, 0, 0) as u32 }
}

/// Process id of the caller, asked of the kernel.
pub fn getpid() -> u32 {
    // SAFETY: no pointers.
    unsafe { raw6(libc::SYS_getpid, 0, 0, 0, 0, 0, 0) as u32 }
}

/// Writes a number in decimal, without a NUL; returns how many bytes.
pub fn write_decimal(to: &mut [u8], mut value: u64) -> usize {
    let mut digits = [0u8; 20];
    let mut n = 0;
    loop {
        digits[n] = b'0' + (value % 10) as u8;
        value /= 10;
        n += 1;
        if value == 0 {
            break;
        }
    }
    for at in 0..n {
        if let Some(byte) = to.get_mut(at) {
            *byte = digits[n - 1 - at];
        }
    }
    n.min(to.len())
}

/// The number in a namespace link such as `ipc:[4026531839]` of proc(5); 0 without a proc file
/// system.
pub fn namespace_inode(link: &core::ffi::CStr) -> u64 {
    let mut text = [0u8; 64];
    // SAFETY: the path is NUL-terminated, the buffer as long as said.
    let got =
        unsafe { syscall!(SYS_readlinkat, libc::AT_FDCWD, link.as_ptr(), text.as_mut_ptr(), text.len()).unwrap_or(0) };
    text[..got].iter().filter(|b| b.is_ascii_digit()).fold(0, |n, b| n * 10 + (b - b'0') as u64)
}

/// A namespace of the calling process, by inode, looked up once a process.
struct Namespace {
    /// The process generation to which the answer belongs: a fork child may be in another one.
    generation: AtomicU64,
    inode: AtomicU64,
}

impl Namespace {
    const fn new() -> Namespace {
        Namespace { generation: AtomicU64::new(0), inode: AtomicU64::new(0) }
    }

    fn get(&self, link: &core::ffi::CStr) -> u64 {
        let generation = tls::generation();
        if generation == 0 || self.generation.load(Relaxed) != generation {
            self.inode.store(namespace_inode(link), Relaxed);
            self.generation.store(generation, Relaxed);
        }
        self.inode.load(Relaxed)
    }
}

static PID_NAMESPACE: Namespace = Namespace::new();
static USER_NAMESPACE: Namespace = Namespace::new();

/// Inode of the calling process's pid namespace.
pub fn pid_namespace() -> u64 {
    PID_NAMESPACE.get(c"/proc/thread-self/ns/pid")
}

/// Inode of the calling process's user namespace, 0 without a proc file system.
pub fn user_namespace() -> u64 {
    USER_NAMESPACE.get(c"/proc/thread-self/ns/user")
}

/// The process may have gone to another user namespace.
pub fn forget_user_namespace() {
    USER_NAMESPACE.generation.store(0, Relaxed);
}
