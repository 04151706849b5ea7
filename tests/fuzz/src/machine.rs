//! A machine for the engine to run on, in the place of `src/machine.rs`. The kernel is the real one, but that
//!
//! * nobody sleeps: a sleep ends at once, as the input says;
//! * before any access to a word of the segment a hostile peer may write into it, or cut it short, as the input says
//!   ([`Peer`]): what a peer on another CPU does;
//! * segments lie between pages that nobody may touch;
//! * no signal leaves the process, no file is opened, and who asks about tasks, users, namespaces or the time gets made-up
//!   answers: the same input does the same in any process ([`trace`]);
//! * a system call that the engine has no business with, or that would touch other memory or block, is a finding.

use core::cell::UnsafeCell;

#[path = "../../model/src/machine/atomic.rs"]
pub mod atomic;
pub mod kernel;
pub mod trace;

pub use kernel::{clock, raw6};

/// See `src/machine.rs`: there is nobody to wait for.
pub const fn patience(_: u32) -> u32 {
    1
}

/// There is one.
pub fn cpu() -> i32 {
    0
}

/// Something of the one thread that there is.
pub struct Alone<T>(UnsafeCell<T>);

// SAFETY: there is one thread.
unsafe impl<T> Sync for Alone<T> {}

impl<T> Alone<T> {
    pub const fn new(value: T) -> Alone<T> {
        Alone(UnsafeCell::new(value))
    }

    /// Calls `f`, which does not come here again.
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        // SAFETY: there is one thread, and one call at a time.
        f(unsafe { &mut *self.0.get() })
    }
}
