//! Futexes on words in shared memory.

use crate::abi::Result;
use crate::machine::atomic::AtomicU32;
use crate::syscall;

/// An absolute CLOCK_REALTIME instant, as in `struct timespec`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Timespec {
    /// Seconds since the epoch.
    pub sec: i64,
    /// Nanoseconds, 0..1_000_000_000.
    pub nsec: i64,
}

/// Sleeps while `word` holds `expected`, for at most `timeout_ns`.
///
/// # Errors
///
/// EAGAIN: the word held something else. EINTR: a signal handler ran. ETIMEDOUT.
pub fn wait_for(word: &AtomicU32, expected: u32, timeout_ns: u64) -> Result<()> {
    let ts = Timespec { sec: (timeout_ns / 1_000_000_000) as i64, nsec: (timeout_ns % 1_000_000_000) as i64 };
    // SAFETY: the word and the timeout outlive the call.
    unsafe { syscall!(SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, expected, &raw const ts, 0, 0) }.map(|_| ())
}

/// Wakes up to `count` sleepers on `word`; returns how many were asleep.
pub fn wake(word: &AtomicU32, count: u32) -> usize {
    // SAFETY: the kernel only uses the address as a key.
    unsafe { syscall!(SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, count) }.unwrap_or_default()
}
