//! What is charged and counted for a queue, exactly once, whoever dies in the middle of it.
//!
//! Three things change together: the account of a uid (in the file `accounts`, one for all namespaces), the namespace's
//! count of queues (in `control`), and what says of the queue itself that it is charged (a size, a flag, a link: the
//! *mark*). The first two change under a robust lock, by a note that says beforehand what they will be. Who takes the lock
//! of a dead owner brings the account to what the note says; the count of another namespace, which it need not know, is left
//! to the next who changes that. The note stays until the mark is made: as long as it is there it counts, and not the mark.
//!
//! ```text
//! lock · note · account · count · unlock          mark          lock · note gone · unlock
//! ```
//!
//! A lock that is not to be had for a tenth of a second (whoever may use the directory can write to the file) is done without:
//! then a death may leave a charge, as a full table of notes may.

use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU32, AtomicU64};

use super::control::{Accounts, Control};
use super::member;
use crate::abi::Errno;
use crate::shm::lock::{Held, lock_within};
use crate::sys::tls::{self, RobustHead, Tls};
use crate::syscall;

/// Changes that may be under way at a time, those included that the dead have left.
pub const NOTES: usize = 32;

/// How long the lock is waited for, ns: who has it makes a system call or two at most.
const PATIENCE_NS: u64 = 100_000_000;

/// A change of what is charged: see the module.
#[repr(C)]
pub struct Note {
    /// [`Change::queue`].
    queue: AtomicU64,
    /// [`Control::number`] of the namespace.
    place: AtomicU64,
    /// What the account will hold.
    bytes: AtomicU64,
    /// Its place in the table; beyond it: there is none.
    account: AtomicU32,
    /// What the count of queues will be.
    count: AtomicU32,
    /// [`FREE`], or how far it is.
    state: AtomicU32,
    pad: AtomicU32,
}
const _: () = assert!(size_of::<Note>() == 40);

const FREE: u32 = 0;
/// It is being charged: neither account nor count need have changed. The next two states follow it, in this order:
/// the account has; both have.
const CHARGING: u32 = 1;
/// Charged, and nothing else may say so.
const CHARGED: u32 = CHARGING + 2;
/// As [`CHARGING`], for what is given back.
const GIVING: u32 = 4;
/// Given back, and nothing else may say so.
const GIVEN: u32 = GIVING + 2;

/// What is to be charged, or given back.
pub struct Change<'a> {
    /// The namespace.
    pub control: &'a Control,
    /// Who pays.
    pub uid: u32,
    /// How much, bytes.
    pub cost: u64,
    /// A number that no other queue of the namespace has while it changes.
    pub queue: u64,
}

/// Why a queue cannot be charged for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// There are as many as `queues_max`.
    TooMany,
    /// RLIMIT_MSGQUEUE: so much is charged already.
    TooMuch(u64),
}

/// A change that is made, and whose mark is to be made: then it is [`Noted::settle`]d.
#[must_use]
pub struct Noted<'a> {
    accounts: &'a Accounts,
    /// The note, unless there was no room for one.
    at: Option<usize>,
    queue: u64,
}

impl Noted<'_> {
    /// The mark is made.
    pub fn settle(self) {
        let Some(note) = self.at.map(|at| &self.accounts.notes[at]) else { return };
        let guest = Guest::new();
        let held = self.accounts.enter(&guest);
        // Somebody who has come to the same end may have done so.
        if held.is_some() && note.queue.load(Relaxed) == self.queue && is_made(note.state.load(Relaxed)) {
            note.state.store(FREE, Relaxed);
        }
    }
}

fn is_made(state: u32) -> bool {
    matches!(state, CHARGED | GIVEN)
}

/// A robust list for a task that has the memory of another one ([`member::is_guest`]), and whose own block is that
/// one's.
struct Guest(Option<Tls>);

impl Guest {
    fn new() -> Guest {
        Guest(member::is_guest().then(Tls::blank))
    }

    /// The calling task's block. Nothing: there is none.
    fn tls(&self) -> Option<&Tls> {
        let Some(tls) = &self.0 else { return tls::ready().ok() };
        let own = &tls.own_robust;
        own.next.store(&raw const *own as usize, Relaxed);
        // SAFETY: the head stays where it is until `drop` takes it back: the caller borrows it.
        unsafe { syscall!(SYS_set_robust_list, &raw const *own, size_of::<RobustHead>()).ok()? };
        tls.robust.store(&raw const *own as usize, Relaxed);
        tls.tid.store(crate::sys::gettid(), Relaxed);
        Some(tls)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if self.0.is_some() {
            // SAFETY: no pointer. Such a task has had no list before: libc makes none for it.
            let _ = unsafe { syscall!(SYS_set_robust_list, 0, size_of::<RobustHead>()) };
        }
    }
}

impl Accounts {
    /// Charges for a new queue, up to so many bytes and queues.
    ///
    /// # Errors
    ///
    /// See [`Refused`].
    pub fn charge(&self, what: &Change<'_>, limit: u64, queues_max: u32) -> Result<Noted<'_>, Refused> {
        self.change(what, CHARGING, |_, bytes, count| {
            if count >= queues_max {
                return Err(Refused::TooMany);
            }
            let sum = bytes.checked_add(what.cost).filter(|&sum| sum <= limit).ok_or(Refused::TooMuch(bytes))?;
            Ok((sum, count.saturating_add(1)))
        })
    }

    /// Gives back what was charged. `is_due` is asked under the lock whether it was, as far as the mark says, and has not
    /// been given back yet; it is told whether a note says so. Nothing: it was not due.
    pub fn give_back(&self, what: &Change<'_>, is_due: impl Fn(bool) -> bool) -> Option<Noted<'_>> {
        let less = |noted, bytes: u64, count: u32| {
            if is_due(noted) { Ok((bytes.saturating_sub(what.cost), count.saturating_sub(1))) } else { Err(()) }
        };
        self.change(what, GIVING, less).ok()
    }

    /// Brings the count of a namespace up to date, should somebody have died who was changing it.
    pub fn catch_up(&self, control: &Control) {
        let guest = Guest::new();
        if let Some(_held) = self.enter(&guest) {
            self.finish_counts(control);
        }
    }

    /// The lock. Nothing: it is not to be had.
    fn enter<'a>(&'a self, guest: &'a Guest) -> Option<Held<'a>> {
        let settle = || {
            self.finish_accounts();
            Ok(())
        };
        // Thread ids may be those of any pid namespace: the kernel tells who has died.
        match lock_within(&self.lock, guest.tls()?, || true, settle, PATIENCE_NS) {
            Ok(held) => Some(held),
            Err(errno) => {
                if errno == Errno::EIO {
                    // Nobody is inside for so long: the next need not wait.
                    self.lock.store(libc::FUTEX_OWNER_DIED, Release);
                }
                None
            }
        }
    }

    /// The owner of the lock has died: what it had noted is done, as far as it is in this file.
    #[cold]
    fn finish_accounts(&self) {
        for note in &self.notes {
            let state = note.state.load(Relaxed);
            if matches!(state, CHARGING | GIVING) {
                if let Some(account) = self.table.get(note.account.load(Relaxed) as usize) {
                    account.bytes.store(note.bytes.load(Relaxed), Relaxed);
                }
                note.state.store(state + 1, Release);
            }
        }
    }

    /// The same for what is in `control`. The lock is held.
    fn finish_counts(&self, control: &Control) {
        let number = control.number();
        for note in &self.notes {
            let state = note.state.load(Relaxed);
            if matches!(state.wrapping_sub(1), CHARGING | GIVING) && note.place.load(Relaxed) == number {
                control.queues_count.store(note.count.load(Relaxed), Relaxed);
                note.state.store(state + 1, Release);
            }
        }
    }

    /// Changes account and count to what `to` says, which is told whether a note says that the queue is charged, and
    /// what they are now.
    fn change<E>(
        &self,
        what: &Change<'_>,
        kind: u32,
        to: impl Fn(bool, u64, u32) -> Result<(u64, u32), E>,
    ) -> Result<Noted<'_>, E> {
        let account = self.account(what.uid, kind == CHARGING);
        let count = &what.control.queues_count;
        let guest = Guest::new();
        let Some(held) = self.enter(&guest) else {
            loop {
                let now = account.map_or(0, |it| it.bytes.load(Acquire));
                let (bytes, _) = to(false, now, count.load(Acquire))?;
                if account.is_some_and(|it| it.bytes.compare_exchange(now, bytes, AcqRel, Relaxed).is_err()) {
                    continue;
                }
                let one = |n: u32| if kind == CHARGING { n.saturating_add(1) } else { n.saturating_sub(1) };
                let _ = count.fetch_update(AcqRel, Acquire, |n| Some(one(n)));
                return Ok(Noted { accounts: self, at: None, queue: what.queue });
            }
        };
        crate::crash_point!("ledger.locked");
        self.finish_counts(what.control);
        let number = what.control.number();
        let is_it = |note: &Note| {
            let (queue, place) = (note.queue.load(Relaxed), note.place.load(Relaxed));
            note.state.load(Relaxed) != FREE && queue == what.queue && place == number
        };
        let known = self.notes.iter().position(is_it);
        let noted = |at: Option<usize>| Noted { accounts: self, at, queue: what.queue };
        let state = known.map_or(FREE, |at| self.notes[at].state.load(Relaxed));
        if state == GIVEN && kind == GIVING {
            // By one who has died since, or has not come to the mark yet.
            return Ok(noted(known));
        }
        let now = account.map_or(0, |it| it.bytes.load(Relaxed));
        let (bytes, counted) = to(state == CHARGED, now, count.load(Relaxed))?;
        let at = known.or_else(|| self.notes.iter().position(|note| note.state.load(Relaxed) == FREE));
        let note = at.map(|at| &self.notes[at]);
        if let Some(note) = note {
            // A table full of uids charges nobody: better than refusing everybody.
            let index = account.and_then(|it| self.table.iter().position(|other| core::ptr::eq(other, it)));
            note.queue.store(what.queue, Relaxed);
            note.place.store(number, Relaxed);
            note.account.store(index.map_or(u32::MAX, |index| index as u32), Relaxed);
            note.bytes.store(bytes, Relaxed);
            note.count.store(counted, Relaxed);
            note.state.store(kind, Release);
        }
        crate::crash_point!("ledger.noted");
        if let Some(account) = account {
            account.bytes.store(bytes, Release);
        }
        crate::crash_point!("ledger.account");
        count.store(counted, Release);
        crate::crash_point!("ledger.count");
        if let Some(note) = note {
            note.state.store(kind + 2, Release);
        }
        crate::crash_point!("ledger.settled");
        drop(held);
        crate::crash_point!("ledger.unlocked");
        Ok(noted(at))
    }
}
