//! Mappings of files that others may cut short: an access beyond the new end raises SIGBUS.
//!
//! Whoever may use a queue may truncate its segment. The handler of SIGBUS (`interpose::signal`) asks [`replace`],
//! which puts memory of zeros in the place of the whole mapping, and the access is made again. A segment that has
//! been replaced is marked [`F_CORRUPT`], in this process alone: every operation on the queue fails with EIO from
//! then on, and no fast path has to look for it.
//!
//! Async-signal-safe: no locks. Entries are found by address; those of mappings in use do not change.

use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use super::layout::{F_CORRUPT, Header};
use crate::syscall;

/// What a mapping shows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The segment of a queue.
    Segment,
    /// Another file, whose zeros mean something harmless.
    Other,
}

struct Entry {
    /// Address of the mapping; [`FREE`], or [`CLAIMED`] while somebody fills the entry in.
    base: AtomicUsize,
    len: AtomicUsize,
    /// 1: a segment.
    segment: AtomicU8,
}

const FREE: usize = 0;
const CLAIMED: usize = 1;
/// As many queues as this, open at a time, are looked after.
const ENTRIES: usize = 8192;
static TABLE: [Entry; ENTRIES] =
    [const { Entry { base: AtomicUsize::new(FREE), len: AtomicUsize::new(0), segment: AtomicU8::new(0) } }; ENTRIES];
/// Entries ever used.
static HIGH: AtomicUsize = AtomicUsize::new(0);
/// The entry that was given back last.
static LAST: AtomicUsize = AtomicUsize::new(usize::MAX);

/// Notes a mapping; the number of its entry, `usize::MAX` if there is none left.
pub fn note(base: usize, len: usize, kind: Kind) -> usize {
    let claim = |at: &usize| {
        let entry = TABLE.get(*at);
        entry.is_some_and(|e| e.base.compare_exchange(FREE, CLAIMED, Ordering::AcqRel, Ordering::Relaxed).is_ok())
    };
    let fresh = || HIGH.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < ENTRIES).then_some(n + 1)).ok();
    let found = Some(LAST.load(Ordering::Acquire))
        .filter(claim)
        .or_else(|| fresh().filter(claim))
        .or_else(|| (0..ENTRIES).find(claim));
    let Some(at) = found else { return usize::MAX };
    TABLE[at].len.store(len, Ordering::Relaxed);
    TABLE[at].segment.store(u8::from(kind == Kind::Segment), Ordering::Relaxed);
    TABLE[at].base.store(base, Ordering::Release);
    at
}

/// Before a mapping is taken away. `at`: what [`note`] has returned.
pub fn forget(at: usize) {
    if let Some(entry) = TABLE.get(at) {
        entry.base.store(FREE, Ordering::Release);
        LAST.store(at, Ordering::Release);
    }
}

/// The number of the entry of the mapping at `base`.
pub fn entry_of(base: usize) -> usize {
    let high = HIGH.load(Ordering::Acquire).min(ENTRIES);
    TABLE[..high].iter().position(|entry| entry.base.load(Ordering::Acquire) == base).unwrap_or(usize::MAX)
}

/// An access to `address` has found nothing behind it. True: now it will.
#[cold]
pub fn replace(address: usize) -> bool {
    let high = HIGH.load(Ordering::Acquire).min(ENTRIES);
    for entry in &TABLE[..high] {
        let base = entry.base.load(Ordering::Acquire);
        let len = entry.len.load(Ordering::Relaxed);
        if base <= CLAIMED || address.wrapping_sub(base) >= len || entry.base.load(Ordering::Acquire) != base {
            continue;
        }
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
        // SAFETY: in the place of a mapping of ours, of which only atomics and raw bytes are accessed, with any value.
        let mapped = unsafe { syscall!(SYS_mmap, base, len, libc::PROT_READ | libc::PROT_WRITE, flags, usize::MAX, 0) };
        if mapped.is_err() {
            return false;
        }
        if entry.segment.load(Ordering::Relaxed) == 1 {
            // SAFETY: a segment is longer than a header, and consists of atomics only.
            unsafe { &*(base as *const Header) }.flags.store(F_CORRUPT, Ordering::Release);
        }
        return true;
    }
    false
}
