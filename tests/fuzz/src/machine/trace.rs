//! What a run does, in one number: the same input does the same, in any process and after any other.

use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicU8, AtomicU64};

static HASH: AtomicU64 = AtomicU64::new(0);

/// MQNS_FUZZ_TRACE: `hash` says what each run comes to, `all` what it does as well; anything else, each step of it.
const UNKNOWN: u8 = 0;
const NOTHING: u8 = 1;
const STEPS: u8 = 2;
const HASHES: u8 = 3;
const ALL: u8 = 4;

fn level() -> u8 {
    static LEVEL: AtomicU8 = AtomicU8::new(UNKNOWN);
    if LEVEL.load(Relaxed) == UNKNOWN {
        let level = match std::env::var("MQNS_FUZZ_TRACE").as_deref() {
            Err(_) => NOTHING,
            Ok("hash") => HASHES,
            Ok("all") => ALL,
            Ok(_) => STEPS,
        };
        LEVEL.store(level, Relaxed);
    }
    LEVEL.load(Relaxed)
}

/// Whether accesses are to be noted.
pub fn is_on() -> bool {
    level() >= HASHES
}

/// Whether steps are to be told.
pub fn tells_steps() -> bool {
    matches!(level(), STEPS | ALL)
}

/// An access (its kind, where, what was there), or a system call (2, which, its result).
pub fn note(what: [u64; 3]) {
    if !is_on() {
        return;
    }
    if level() == ALL {
        eprintln!("  {} {:#x} {:#x}", what[0], what[1], what[2]);
    }
    HASH.store(hash(HASH.load(Relaxed), &what.map(u64::to_le_bytes).concat()), Relaxed);
}

/// FNV-1a.
fn hash(before: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(before ^ 0xcbf2_9ce4_8422_2325, |hash, &b| (hash ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

/// A run begins.
pub fn begin() {
    HASH.store(0, Relaxed);
}

/// It is over.
pub fn end(input: &[u8]) {
    if is_on() {
        eprintln!("run of {:016x}: {:016x}", hash(0, input), HASH.load(Relaxed));
    }
}
