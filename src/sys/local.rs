//! What the threads of one process share among themselves: a lock, and the records by which one
//! finds out what the others are using. Both are sound after fork.

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering, compiler_fence};

use super::tls::Tls;
use super::{getpid, gettid};
use crate::abi::Errno;
use crate::syscall;

/// A lock of this process, for cold paths. Signal handlers are put off while it is held, so that a
/// handler never meets it held by its own thread.
pub struct LocalLock(AtomicU32);

/// [`LocalLock`], held.
pub struct LocalHeld<'a>(&'a LocalLock, &'a Tls);

impl Default for LocalLock {
    fn default() -> LocalLock {
        LocalLock::new()
    }
}

impl LocalLock {
    /// Free.
    pub const fn new() -> LocalLock {
        LocalLock(AtomicU32::new(0))
    }

    /// Takes the lock; sleeps while another thread has it.
    pub fn lock<'a>(&'a self, tls: &'a Tls) -> LocalHeld<'a> {
        // Who has slept may not be the only one: from then on it leaves a 2, so that the next is woken.
        let mut alone = true;
        loop {
            tls.enter_critical();
            if alone && self.0.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok()
                || self.0.swap(2, Ordering::Acquire) == 0
            {
                return LocalHeld(self, tls);
            }
            alone = false;
            tls.leave_critical();
            // SAFETY: the word is static.
            let _ = unsafe {
                syscall!(SYS_futex, self.0.as_ptr(), libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG, 2, 0, 0, 0)
            };
        }
    }

    /// In a fork child: whoever held it is not here.
    pub fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

impl Drop for LocalHeld<'_> {
    fn drop(&mut self) {
        if self.0.0.swap(0, Ordering::Release) == 2 {
            // SAFETY: the word is static.
            let _ = unsafe { syscall!(SYS_futex, self.0.0.as_ptr(), libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, 1) };
        }
        self.1.leave_critical();
    }
}

/// What a thread is using right now. The records outlive the threads: one whose thread is gone is
/// taken over by the next that needs one.
pub struct Hazard {
    tid: AtomicU32,
    /// Address of the mapping in use, 0 if none.
    pub at: AtomicUsize,
}

const HAZARDS: usize = 4096;
static TABLE: [Hazard; HAZARDS] = [const { Hazard { tid: AtomicU32::new(0), at: AtomicUsize::new(0) } }; HAZARDS];
/// Records ever used.
static HIGH: AtomicUsize = AtomicUsize::new(0);
/// For threads that found none: while one of them has used it, nothing counts as unused.
static SHARED: Hazard = Hazard { tid: AtomicU32::new(0), at: AtomicUsize::new(0) };

/// A record for the calling thread.
pub fn hazard_record() -> &'static Hazard {
    let tid = gettid();
    let high = HIGH.load(Ordering::Acquire).min(HAZARDS);
    for record in &TABLE[..high] {
        let owner = record.tid.load(Ordering::Relaxed);
        if owner != 0 && owner != tid && !thread_is_gone(owner) {
            continue;
        }
        if record.tid.compare_exchange(owner, tid, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            record.at.store(0, Ordering::Relaxed);
            return record;
        }
    }
    let fresh = HIGH.fetch_add(1, Ordering::AcqRel);
    let Some(record) = TABLE.get(fresh) else {
        HIGH.store(HAZARDS, Ordering::Release);
        SHARED.at.store(1, Ordering::Relaxed);
        return &SHARED;
    };
    record.tid.store(tid, Ordering::Release);
    record
}

fn thread_is_gone(tid: u32) -> bool {
    // SAFETY: signal 0 only asks.
    unsafe { syscall!(SYS_tgkill, getpid(), tid, 0) == Err(Errno::ESRCH) }
}

/// In a fork child: forgets the records of threads that are not here.
pub fn forget_hazards() {
    for record in &TABLE[..HIGH.load(Ordering::Acquire).min(HAZARDS)] {
        record.tid.store(0, Ordering::Relaxed);
        record.at.store(0, Ordering::Relaxed);
    }
    SHARED.at.store(0, Ordering::Relaxed);
}

/// Whether no thread of the process uses the mapping at `address`, which nobody can find any more:
/// whoever had found it before has said so in its record by the time this looks (membarrier(2)
/// stands in for the fence that readers do without).
pub fn is_unused(address: usize) -> bool {
    const REGISTER_PRIVATE_EXPEDITED: i32 = 1 << 4;
    const PRIVATE_EXPEDITED: i32 = 1 << 3;
    // SAFETY: no pointers.
    let fence = unsafe {
        syscall!(SYS_membarrier, PRIVATE_EXPEDITED, 0, 0).or_else(|_| {
            syscall!(SYS_membarrier, REGISTER_PRIVATE_EXPEDITED, 0, 0)?;
            syscall!(SYS_membarrier, PRIVATE_EXPEDITED, 0, 0)
        })
    };
    if fence.is_err() || SHARED.at.load(Ordering::Acquire) != 0 {
        return false;
    }
    let high = HIGH.load(Ordering::Acquire).min(HAZARDS);
    TABLE[..high].iter().all(|record| record.at.load(Ordering::Acquire) != address)
}

impl Hazard {
    /// Says what is in use; the compiler may not move accesses to it in front of this.
    #[inline(always)]
    pub fn set(&self, address: usize) {
        self.at.store(address, Ordering::Release);
        compiler_fence(Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// Whoever is woken leaves word for those who still sleep: else this hangs.
    #[test]
    fn nobody_sleeps_for_ever() {
        let (lock, count) = (Arc::new(LocalLock::new()), Arc::new(AtomicUsize::new(0)));
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let (lock, count) = (lock.clone(), count.clone());
                std::thread::spawn(move || {
                    for _ in 0..2000 {
                        let held = lock.lock(super::super::tls::tls());
                        let now = count.load(Ordering::Relaxed);
                        // So that the others come to sleep.
                        std::thread::yield_now();
                        count.store(now + 1, Ordering::Relaxed);
                        drop(held);
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(count.load(Ordering::Relaxed), 8 * 2000);
    }
}
