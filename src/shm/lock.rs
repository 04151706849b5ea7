//! The robust lock: one futex word in shared memory, and nothing else there.
//!
//! The word holds the owner's thread id, plus FUTEX_WAITERS while others sleep on it. Around the
//! critical section the owner points `list_op_pending` of its thread's robust list at the word, so
//! that the kernel puts FUTEX_OWNER_DIED there if the thread dies, by whatever road. No list is
//! linked through shared memory, so no process ever follows a pointer that another one wrote.
//! While it sleeps on the word, a thread keeps the pending pointer there too: when a woken sleeper
//! is killed before it runs, the kernel passes the wake on.
//!
//! Signal handlers of the owner are put off until the unlock (`interpose::signal`). A handler
//! installed behind our back that asks for the lock its own thread holds gets EDEADLK.

use super::layout::TID_MASK;
use crate::abi::{Errno, Result};
use crate::machine::atomic::{AtomicU32, Ordering};
use crate::machine::patience;
use crate::sys::futex;
use crate::sys::path::Path;
use crate::sys::tls::{RobustHead, Tls};
use crate::syscall;

const WAITERS: u32 = 0x8000_0000;
const OWNER_DIED: u32 = 0x4000_0000;
/// Looks at a lock that is held before sleeping on it; more costs a peer on the same CPU.
const SPINS: u32 = patience(16);
/// Times it lets others run before sleeping.
const YIELDS: u32 = patience(3);
/// How long a sleeper trusts the kernel to announce its owner's death, ns. Two deaths are not
/// announced (see DESIGN: exec by a thread that is not the leader, a mapping gone): the sleeper
/// then looks for the owner itself.
const TRUST_NS: u64 = 20_000_000;
/// Each look in vain doubles that, up to here: thousands may wait at a time, and the looks are not to be what the
/// owner gets no time for.
const MOST_TRUST_NS: u64 = 160_000_000;
/// Asleep for so long, all in all, with the lock said to be its own, or so long at work (by its own CPU time), nobody is inside a section.
const TOO_LONG_NS: u64 = 1_000_000_000;
/// The same where nobody can tell what it does: among several pid namespaces.
const TOO_LONG_UNSEEN_NS: u64 = 2_400_000_000;
/// The same, about, for the owner at which this thread has given up the last time.
const KNOWN_NS: u64 = 80_000_000;
/// For so long, seconds.
const KNOWN_FOR_SEC: u64 = 10;

/// The lock, held. Unlocks when dropped.
pub struct Held<'a> {
    word: &'a AtomicU32,
    tls: &'a Tls,
}

/// Takes the lock. `foreign` says whether thread ids may be those of another pid namespace, in
/// which case a silent owner is never presumed dead. `repair` is called with the lock held when the
/// last owner died inside: it puts in order what the lock protects.
///
/// # Errors
///
/// EDEADLK: the calling thread holds it already. EIO: whoever is said to hold it does not. And what `repair` fails
/// with; the lock is free then.
#[inline(always)]
pub fn lock<'a>(
    word: &'a AtomicU32,
    tls: &'a Tls,
    foreign: impl Fn() -> bool,
    repair: impl FnOnce() -> Result<()>,
) -> Result<Held<'a>> {
    let (robust, outer) = begin(word, tls);
    let tid = tls.tid.load(Ordering::Relaxed);
    if word.compare_exchange(0, tid, Ordering::Acquire, Ordering::Relaxed).is_ok() {
        return Ok(Held { word, tls });
    }
    match lock_slow(word, tls, tid, foreign) {
        Ok(owner_died) => {
            let held = Held { word, tls };
            if owner_died {
                repair()?;
            }
            Ok(held)
        }
        Err(errno) => {
            robust.list_op_pending.store(outer, Ordering::Relaxed);
            tls.leave_critical();
            Err(errno)
        }
    }
}

/// A critical section begins: should the thread die, the kernel looks at the word. The robust list, and what was pending there.
#[inline(always)]
fn begin<'a>(word: &AtomicU32, tls: &'a Tls) -> (&'a RobustHead, usize) {
    let robust = tls.robust();
    let outer = robust.list_op_pending.load(Ordering::Relaxed);
    tls.enter_critical();
    tls.outer_pending.store(outer, Ordering::Relaxed);
    let entry = (word.as_ptr() as usize).wrapping_sub(robust.futex_offset.load(Ordering::Relaxed));
    robust.list_op_pending.store(entry, Ordering::Relaxed);
    core::sync::atomic::compiler_fence(Ordering::SeqCst);
    (robust, outer)
}

/// Takes a lock that nobody holds, or one who has died; what he may have left is the caller's to look for. Nothing: somebody
/// holds it.
pub fn take<'a>(word: &'a AtomicU32, tls: &'a Tls) -> Option<Held<'a>> {
    let seen = word.load(Ordering::Relaxed);
    if seen & TID_MASK != 0 && !has_died(seen) {
        return None;
    }
    let (robust, outer) = begin(word, tls);
    let tid = tls.tid.load(Ordering::Relaxed);
    if word.compare_exchange(seen, tid, Ordering::Acquire, Ordering::Relaxed).is_ok() {
        return Some(Held { word, tls });
    }
    robust.list_op_pending.store(outer, Ordering::Relaxed);
    tls.leave_critical();
    None
}

/// Whether the word of a lock says that its owner has died.
pub fn has_died(word: u32) -> bool {
    word & OWNER_DIED != 0
}

#[cold]
#[inline(never)]
fn lock_slow(word: &AtomicU32, tls: &Tls, tid: u32, foreign: impl Fn() -> bool) -> Result<bool> {
    let outer = tls.outer_pending.load(Ordering::Relaxed);
    let mut spins = 0;
    let mut yields = 0;
    // Once we have slept there may be others asleep: keep the mark when taking the lock.
    let mut mark = 0;
    let mut trust_ns = TRUST_NS;
    let mut doubt = Doubt::default();
    loop {
        let seen = word.load(Ordering::Relaxed);
        let owner = seen & TID_MASK;
        if owner == 0 || (seen & OWNER_DIED) != 0 {
            let mine = tid | mark | (seen & WAITERS);
            if word.compare_exchange(seen, mine, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                tls.doubted.store(0, Ordering::Relaxed);
                return Ok(seen & OWNER_DIED != 0);
            }
            continue;
        }
        if owner == tid {
            return Err(Errno::EDEADLK);
        }
        if spins < SPINS {
            spins += 1;
            for _ in 0..spins {
                core::hint::spin_loop();
            }
            continue;
        }
        if yields < YIELDS {
            // The owner may have been preempted on this very CPU, by us: a section is short, so let
            // it finish rather than go through two system calls and two switches.
            yields += 1;
            tls.leave_critical();
            // SAFETY: no arguments.
            let _ = unsafe { syscall!(SYS_sched_yield) };
            tls.enter_critical();
            tls.outer_pending.store(outer, Ordering::Relaxed);
            continue;
        }
        let asleep = seen | WAITERS;
        if seen != asleep && word.compare_exchange(seen, asleep, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            continue;
        }
        mark = WAITERS;
        // A handler may run while we sleep (and take other locks: it restores the pending pointer).
        tls.leave_critical();
        let slept = futex::wait_for(word, asleep, trust_ns);
        tls.enter_critical();
        tls.outer_pending.store(outer, Ordering::Relaxed);
        if slept != Err(Errno::ETIMEDOUT) || word.load(Ordering::Relaxed) != asleep {
            (trust_ns, doubt) = (TRUST_NS, Doubt::default());
            continue;
        }
        let state = if foreign() { Some(b'?') } else { task_state(owner) };
        if is_over(state) {
            let mine = tid | WAITERS;
            if word.compare_exchange(asleep, mine, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                return Ok(true);
            }
        }
        // A call may come by several times, and a program call again: what has been found out need not be again at once. (Later it
        // may be true. Who is stopped was not found to be none by that.)
        let now = crate::machine::clock(libc::CLOCK_MONOTONIC_COARSE).tv_sec as u64;
        let told = tls.doubted_owner.load(Ordering::Relaxed);
        let known = tls.doubted.load(Ordering::Relaxed) == word.as_ptr() as usize
            && told as u32 == owner
            && now.wrapping_sub(told >> 32) < KNOWN_FOR_SEC
            && trust_ns >= KNOWN_NS
            && !matches!(state, Some(b'T' | b't' | b'D'));
        if (doubt.grows(owner, state, trust_ns) || known) && word.load(Ordering::Relaxed) == asleep {
            tls.doubted.store(word.as_ptr() as usize, Ordering::Relaxed);
            tls.doubted_owner.store(owner as u64 | now << 32, Ordering::Relaxed);
            return Err(Errno::EIO);
        }
        trust_ns = (trust_ns * 2).min(MOST_TRUST_NS);
    }
}

/// What a sleeper has found its living owner at, each time that it has looked.
///
/// A section never sleeps, and takes no time worth mentioning. So who sleeps for a second, or has had a second of CPU time, and
/// holds the lock all the while is no owner: the word is one that somebody has written. An owner that gets no CPU time is
/// waited for, however long (a machine may be as busy as it likes), and so is one that was stopped, or frozen with its cgroup,
/// or waits for a page.
#[derive(Default)]
struct Doubt {
    owner: u32,
    /// For how long it seemed to sleep, all in all: who is busy now and then is no owner for that.
    asleep_ns: u64,
    unseen_ns: u64,
    /// 1 + its CPU time at the first look.
    had_ns: u64,
}

impl Doubt {
    /// Takes in a look at an owner, so long after the last one; whether it is certain now that it is none.
    fn grows(&mut self, owner: u32, state: Option<u8>, since_ns: u64) -> bool {
        if owner != self.owner {
            *self = Doubt { owner, ..Doubt::default() };
        }
        match state {
            Some(b'T' | b't' | b'D') => self.asleep_ns = 0,
            Some(b'S') => {
                self.asleep_ns += since_ns;
                if self.asleep_ns >= TOO_LONG_NS {
                    self.asleep_ns = 0;
                    return !is_frozen(owner);
                }
            }
            Some(b'?') | None => {
                self.unseen_ns += since_ns;
                return self.unseen_ns >= TOO_LONG_UNSEEN_NS;
            }
            Some(_) => {
                let Some(has_ns) = cpu_time_ns(owner) else {
                    self.unseen_ns += since_ns;
                    return self.unseen_ns >= TOO_LONG_UNSEEN_NS;
                };
                if self.had_ns == 0 {
                    self.had_ns = has_ns + 1;
                }
                return has_ns + 1 >= self.had_ns + TOO_LONG_NS;
            }
        }
        false
    }
}

/// Whether no task of this thread id runs in the caller's pid namespace: there is none, or a zombie.
pub fn is_gone(tid: u32) -> bool {
    is_over(task_state(tid))
}

/// Whether a task is none, a zombie, or an idle thread of the kernel's, which has never been one of a program.
fn is_over(state: Option<u8>) -> bool {
    matches!(state, None | Some(b'Z' | b'X' | b'x' | b'I'))
}

/// The state letter of a task as in proc(5), or `None` if there is no such task.
pub fn task_state(tid: u32) -> Option<u8> {
    // SAFETY: signal 0 only asks.
    if unsafe { syscall!(SYS_tkill, tid, 0) == Err(Errno::ESRCH) } {
        return None;
    }
    let mut text = [0u8; 256];
    let text = match about(tid, b"/stat", &mut text) {
        Ok(text) => text,
        // Ended since.
        Err(Errno::ESRCH) => return None,
        // No proc file system, or no descriptor left: nothing known, so nothing is presumed.
        Err(_) => return Some(b'?'),
    };
    // "pid (comm) S …": comm may contain anything, so look for the last parenthesis.
    let Some(close) = text.iter().rposition(|&b| b == b')') else { return Some(b'?') };
    Some(text.get(close + 2).copied().unwrap_or(b'?'))
}

/// The beginning of a file in a task's directory of proc(5). That of the thread: in the one above it `stat` tells of all threads of
/// the process, for which the kernel goes through them, and thousands may be asking.
fn about<'a>(tid: u32, name: &[u8], text: &'a mut [u8]) -> Result<&'a [u8]> {
    let mut path = Path::new(&[b"/proc/"])?;
    path.push_decimal(tid as u64)?;
    path.push(b"/task/")?;
    path.push_decimal(tid as u64)?;
    path.push(name)?;
    read(&path, text)
}

fn read<'a>(path: &Path, text: &'a mut [u8]) -> Result<&'a [u8]> {
    let file = path.open_own(libc::O_RDONLY)?;
    // SAFETY: the buffer is as long as said.
    let got = unsafe { syscall!(SYS_read, file.0, text.as_mut_ptr(), text.len()) }?;
    Ok(text.get(..got).unwrap_or_default())
}

/// CPU time that a task has had, ns; `None` if nothing tells.
fn cpu_time_ns(tid: u32) -> Option<u64> {
    let mut text = [0u8; 64];
    let text = about(tid, b"/schedstat", &mut text).ok()?;
    let digits = text.iter().position(|&b| b == b' ')?;
    core::str::from_utf8(text.get(..digits)?).ok()?.parse().ok()
}

/// Whether a task's cgroup is frozen (`cgroup.freeze`, cgroup v2), which its state does not show: it seems to sleep. (Who is frozen by
/// the freezer of v1 is in state D.)
fn is_frozen(tid: u32) -> bool {
    let mut text = [0u8; 1024];
    let Ok(text) = about(tid, b"/cgroup", &mut text) else { return false };
    // "0::/path", among those of other hierarchies.
    let Some(path) = text.split(|&b| b == b'\n').find_map(|line| line.strip_prefix(b"0::")) else { return false };
    [&b"/sys/fs/cgroup"[..], b"/sys/fs/cgroup/unified"].iter().any(|mount| {
        let mut events = [0u8; 256];
        Path::new(&[mount, path, b"/cgroup.events"])
            .and_then(|file| read(&file, &mut events).map(|text| text.split(|&b| b == b'\n').any(|l| l == b"frozen 1")))
            .unwrap_or(false)
    })
}

impl<'a> Held<'a> {
    /// The guard of a lock that the calling thread holds, whose own guard was forgotten.
    #[inline(always)]
    pub fn of(word: &'a AtomicU32, tls: &'a Tls) -> Held<'a> {
        Held { word, tls }
    }

    /// Unlocks, and leaves the pending pointer at `next`, a word that is 0 and whose sleeper the
    /// caller is about to wake: if the caller dies before it does, the kernel wakes in its place
    /// (`handle_futex_death`: "pending_op && !uval"). Returns what to put the pointer back to.
    ///
    /// The pointer moves first: a death between the two leaves the lock to those who look for a
    /// silent owner, which is late, but a lost wake would never be noticed.
    pub fn release_towards(self, next: &AtomicU32) -> usize {
        let robust = self.tls.robust();
        let entry = (next.as_ptr() as usize).wrapping_sub(robust.futex_offset.load(Ordering::Relaxed));
        robust.list_op_pending.store(entry, Ordering::Relaxed);
        core::sync::atomic::compiler_fence(Ordering::SeqCst);
        let (word, tls) = (self.word, self.tls);
        let outer = tls.outer_pending.load(Ordering::Relaxed);
        core::mem::forget(self);
        let old = word.swap(0, Ordering::Release);
        if old & WAITERS != 0 {
            futex::wake(word, 1);
        }
        tls.leave_critical();
        outer
    }
}

impl Drop for Held<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        let old = self.word.swap(0, Ordering::Release);
        core::sync::atomic::compiler_fence(Ordering::SeqCst);
        if old & WAITERS != 0 {
            // Still pending: if we die before the wake, the kernel wakes in our place.
            futex::wake(self.word, 1);
        }
        let outer = self.tls.outer_pending.load(Ordering::Relaxed);
        self.tls.robust().list_op_pending.store(outer, Ordering::Relaxed);
        self.tls.leave_critical();
    }
}
