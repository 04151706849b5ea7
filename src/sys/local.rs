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
static TABLE: Hazards<HAZARDS> = Hazards::new();
/// For threads that found none: while one of them has used it, nothing counts as unused.
static SHARED: Hazard = Hazard::new();

/// The records. Who needs one asks about all others only when there are twice as many as were in use the last time, so that many
/// threads at once do not ask about each other.
struct Hazards<const N: usize> {
    table: [Hazard; N],
    /// Records ever used; or more.
    high: AtomicUsize,
    /// Those before are in use, or will be looked at after the next time that all are asked about.
    from: AtomicUsize,
    /// With so many used, all are asked about.
    ask_at: AtomicUsize,
}

/// Owner of a record that is being freed: no thread's id.
const NOBODY: u32 = u32::MAX;
/// See [`Hazards::ask_at`].
const FEW: usize = 16;

impl<const N: usize> Hazards<N> {
    const fn new() -> Self {
        Hazards {
            table: [const { Hazard::new() }; N],
            high: AtomicUsize::new(0),
            from: AtomicUsize::new(0),
            ask_at: AtomicUsize::new(FEW),
        }
    }

    fn used(&self) -> &[Hazard] {
        &self.table[..self.high.load(Ordering::Acquire).min(N)]
    }

    /// A record for thread `tid`. Nothing: all are in use.
    fn take(&self, tid: u32, is_gone: impl Fn(u32) -> bool) -> Option<&Hazard> {
        if let Some(record) = self.take_free(tid) {
            return Some(record);
        }
        if self.high.load(Ordering::Relaxed) >= self.ask_at.load(Ordering::Relaxed).min(N) {
            self.ask_about_all(tid, is_gone);
            if let Some(record) = self.take_free(tid) {
                return Some(record);
            }
        }
        loop {
            let Some(record) = self.table.get(self.high.fetch_add(1, Ordering::AcqRel)) else {
                self.high.store(N, Ordering::Release);
                return None;
            };
            // Unless another thread has come upon it meanwhile.
            if record.is_taken(0, tid) {
                return Some(record);
            }
        }
    }

    fn take_free(&self, tid: u32) -> Option<&Hazard> {
        let used = self.used();
        if self.from.load(Ordering::Relaxed) >= used.len() {
            return None;
        }
        loop {
            let record = used.get(self.from.fetch_add(1, Ordering::Relaxed))?;
            if record.tid.load(Ordering::Relaxed) == 0 && record.is_taken(0, tid) {
                return Some(record);
            }
        }
    }

    /// Frees the records of threads that are gone; the caller has none.
    #[cold]
    fn ask_about_all(&self, tid: u32, is_gone: impl Fn(u32) -> bool) {
        let mut living = 0;
        for record in self.used() {
            let owner = record.tid.load(Ordering::Relaxed);
            if owner != 0 && (owner == tid || is_gone(owner)) {
                // Nobody else's until it is empty.
                if record.is_taken(owner, NOBODY) {
                    record.at.store(0, Ordering::Relaxed);
                    record.tid.store(0, Ordering::Release);
                }
            } else {
                living += usize::from(owner != 0);
            }
        }
        self.ask_at.store((2 * living).max(FEW), Ordering::Relaxed);
        self.from.store(0, Ordering::Relaxed);
    }
}

/// A record for the calling thread.
pub fn hazard_record() -> &'static Hazard {
    if SHARED.at.load(Ordering::Relaxed) != 0 {
        return &SHARED;
    }
    let (tid, pid) = (gettid(), getpid());
    // SAFETY: signal 0 only asks.
    let is_gone = |tid: u32| unsafe { syscall!(SYS_tgkill, pid, tid, 0) == Err(Errno::ESRCH) };
    TABLE.take(tid, is_gone).unwrap_or_else(|| {
        SHARED.at.store(1, Ordering::Relaxed);
        &SHARED
    })
}

/// In a fork child: forgets the records of threads that are not here.
pub fn forget_hazards() {
    for record in TABLE.used() {
        record.tid.store(0, Ordering::Relaxed);
        record.at.store(0, Ordering::Relaxed);
    }
    TABLE.from.store(0, Ordering::Relaxed);
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
    TABLE.used().iter().all(|record| record.at.load(Ordering::Acquire) != address)
}

impl Hazard {
    const fn new() -> Hazard {
        Hazard { tid: AtomicU32::new(0), at: AtomicUsize::new(0) }
    }

    fn is_taken(&self, from: u32, tid: u32) -> bool {
        self.tid.compare_exchange(from, tid, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

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

    /// However many threads there are, each asks about a few; and what the dead have left is used again.
    #[test]
    fn threads_ask_about_few_others() {
        static HAZARDS: Hazards<4096> = Hazards::new();
        let asked = AtomicUsize::new(0);
        // Threads 1 to 1000 live all the time.
        let take = |tid, oldest: u32| {
            HAZARDS.take(tid, |other| {
                asked.fetch_add(1, Ordering::Relaxed);
                other > 1000 && other < oldest
            })
        };
        for tid in 1..=1000 {
            assert!(take(tid, 0).is_some());
        }
        let of_many = asked.swap(0, Ordering::Relaxed);
        assert!(of_many <= 2 * 1000, "{of_many}");
        // And two at a time of the others.
        for tid in 1001..=21000 {
            let record = take(tid, tid - 1).expect("there are enough");
            assert_eq!(record.tid.load(Ordering::Relaxed), tid);
        }
        let (asked, used) = (asked.load(Ordering::Relaxed), HAZARDS.used().len());
        assert!(asked <= 3 * 20000, "{asked}");
        assert!(used <= 2 * 1002, "{used}");
        let has = |tid| HAZARDS.used().iter().filter(|record| record.tid.load(Ordering::Relaxed) == tid).count();
        assert!((1..=1000).chain([20999, 21000]).all(|tid| has(tid) == 1));
        // All are in use, once who is gone has been asked about.
        let fresh = (0..5000).take_while(|i| HAZARDS.take(30000 + i, |other| (1001..20999).contains(&other)).is_some());
        assert_eq!(fresh.count(), 4096 - 1002);
        assert!(HAZARDS.take(50000, |other| other == 500).is_some() && has(500) == 0 && has(50000) == 1);
    }
}
