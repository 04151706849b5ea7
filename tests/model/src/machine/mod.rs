//! A machine for the engine to run on: the modelled counterpart of `src/machine.rs` and of the kernel behind it.
//!
//! Threads of the model are shuttle's; one runs at a time. Before each access to a word that several of them use, and
//! each system call, a thread asks who goes on ([`Kernel::pick`]). What else may happen to a thread (it is killed, its
//! sleep times out, a signal comes) is a choice of the same kind, made at the same places.
//!
//! The memory is sequentially consistent. That is enough as long as whatever is not meant for it is touched under the
//! lock only, which [`Class::Locked`] checks of every access.

pub mod atomic;
pub mod explore;
pub mod kernel;

pub use kernel::{Class, Sleep, Sleeper, give_way, raw6};

/// See `src/machine.rs`: nothing takes any time here.
pub const fn patience(_: u32) -> u32 {
    1
}

/// See `src/machine.rs`: tables are looked through often.
pub const fn room(_: usize, few: usize) -> usize {
    few
}

/// Every thread of the model has a CPU to itself.
pub fn cpu() -> i32 {
    kernel::current() as i32
}

/// What a clock says: the real one.
#[inline(always)]
pub fn clock(id: libc::clockid_t) -> libc::timespec {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the result goes to a local; the call is the vDSO's and cannot fail for the clocks asked for.
    unsafe { libc::clock_gettime(id, &mut now) };
    now
}
