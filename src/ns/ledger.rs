//! What is charged and counted for a queue, exactly once, whoever dies or is stopped in the middle of it.
//!
//! Three things change together: the account of a uid (in the file `accounts`, one for all namespaces), the namespace's
//! count of queues (in `control`), and what says of the queue itself that it is charged (a size, a flag, a link: the
//! *mark*). Who changes them has a *note* in `accounts`, which says what is to be added or taken away. A sum (account or
//! count) has in its low bits by which note it was changed last, so that a change and the proof of it are one
//! compare-and-exchange; whoever changes the sum next first tells that note, for the proof goes with its change.
//!
//! ```text
//! note · account · count · note let go          mark          note gone
//! ```
//!
//! So nobody waits for anybody, as long as there are notes: who gives back and finds all of them in use by the living lets others run, some
//! thousand times at most. A note has a robust futex word: the kernel says which are of the dead, and whoever comes by brings
//! to an end what such a one says. The count of another namespace, which he need not know, he leaves to the next who
//! changes that. The note stays until the mark is made: as long as it is there it counts, and not the mark. Who is stopped has his
//! note for as long as that takes, and goes on with it.
//!
//! Where all notes are of the dead, and of other namespaces, a change is made without; then a death may leave a charge.

use crate::machine::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use crate::machine::atomic::{AtomicU32, AtomicU64};
use crate::machine::{give_way, room};
use crate::shm::lock::{self, Held};
use crate::sys::tls::Tls;

/// Changes that may be under way at a time, those included that the dead have left.
const NOTES: usize = room(32, 2);
/// Uids that can be charged.
const ACCOUNTS: usize = room(941, 2);

/// A number, and which note has changed it last: 49 bits, 9 of the note's [`SEQ`], and 1 + the note's place or 0.
#[repr(transparent)]
#[derive(Default)]
pub struct Sum(AtomicU64);

const NOTE_BITS: u32 = 6;
const MARK_BITS: u32 = NOTE_BITS + room(9, 2) as u32;
/// The most that a sum can be.
const MOST: u64 = u64::MAX >> MARK_BITS;
const _: () = assert!(NOTES < 1 << NOTE_BITS);

impl Sum {
    /// The number.
    pub fn get(&self) -> u64 {
        Sum::of(self.0.load(Acquire))
    }

    /// The number in a word that was read otherwise.
    pub fn of(word: u64) -> u64 {
        word >> MARK_BITS
    }

    fn mark(seen: u64) -> u64 {
        seen & ((1 << MARK_BITS) - 1)
    }
}

/// One uid's account.
#[repr(C)]
struct Account {
    /// 1 + uid, 0: free.
    key: AtomicU64,
    /// Bytes charged.
    bytes: Sum,
}

/// A change of what is charged: see the module.
#[repr(C)]
struct Note {
    /// Its owner, as the word of [`crate::shm::lock`]. Who has none may be anybody's who can say what becomes of it.
    owner: AtomicU32,
    /// What it is for, how far it is, and in which use of the note, see [`FREE`] and [`SEQ`].
    state: AtomicU32,
    /// [`Change::queue`].
    queue: AtomicU64,
    /// [`Change::place`].
    place: AtomicU64,
    /// [`Change::cost`].
    cost: AtomicU64,
    /// The account's place in the table; beyond it: there is none.
    account: AtomicU64,
}
const _: () = assert!(size_of::<Note>() == 40);

/// Nothing is on it.
const FREE: u32 = 0;
/// Somebody would give something back, and looks whether he is the only one.
const ASKING: u32 = 1;
/// As [`ASKING`], but another one has come, and it was not to be told who of the two was first.
const CALLED_OFF: u32 = 2;
/// A queue is being charged for; it is, once both sums are changed.
const CHARGING: u32 = 3;
/// The same of what is given back.
const GIVING: u32 = 4;
const KIND: u32 = 7;
/// The account is changed.
const ACCOUNT: u32 = 8;
/// The count is changed.
const COUNT: u32 = 16;
const DONE: u32 = ACCOUNT | COUNT;
/// The mark is made: nobody needs the note when all is done.
const MARKED: u32 = 32;
/// What is above counts the uses.
const SEQ: u32 = 64;

/// The same with nothing on it.
fn freed(state: u32) -> u32 {
    state / SEQ * SEQ + FREE
}

fn is_under_way(state: u32) -> bool {
    matches!(state & KIND, CHARGING | GIVING) && state & DONE != DONE
}

fn is_made(state: u32) -> bool {
    matches!(state & KIND, CHARGING | GIVING) && state & DONE == DONE
}

/// What a sum says that note `at` has changed.
fn mark(at: usize, state: u32) -> u64 {
    (at as u64 + 1) | (((state / SEQ) as u64) << NOTE_BITS & ((1 << MARK_BITS) - 1))
}

/// How often what others do may come between before it is taken for malice.
const PATIENCE: u32 = 10_000;

/// What is to be charged, or given back.
pub struct Change<'a> {
    /// A number that no other namespace under the root has.
    pub place: u64,
    /// Its count of queues.
    pub count: &'a Sum,
    /// Who pays.
    pub uid: u32,
    /// How much, bytes.
    pub cost: u64,
    /// A number that no other queue of the namespace has while it changes.
    pub queue: u64,
    /// What is marked in the namespace.
    pub marks: &'a dyn Marks,
}

/// What says of the queues of a namespace that they are charged.
pub trait Marks {
    /// Whether the mark is made for certain of a queue that has been given back (see [`Change::queue`]), by one who has died.
    fn is_made(&self, queue: u64, uid: u32, cost: u64) -> bool;
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
pub struct Noted<'a>(Option<(&'a Note, u32)>);

impl Noted<'_> {
    /// The mark is made.
    pub fn settle(self) {
        let Some((note, before)) = self.0 else { return };
        loop {
            let state = note.state.load(Acquire);
            // Somebody who has come to the same end may have done so.
            if state / SEQ != before / SEQ || !matches!(state & KIND, CHARGING | GIVING) {
                return;
            }
            let next = if is_made(state) { freed(state) } else { state | MARKED };
            if next == state || note.state.compare_exchange(state, next, AcqRel, Relaxed).is_ok() {
                return;
            }
        }
    }
}

/// What there is among the notes.
#[derive(Default)]
struct Survey {
    /// A note of the queue, and its state.
    known: Option<(usize, u32)>,
    /// One with nothing on it.
    room: Option<usize>,
    /// Whether some note has an owner.
    busy: bool,
}

/// One of the two sums of a change.
struct Target<'a> {
    sum: &'a Sum,
    /// [`ACCOUNT`] or [`COUNT`].
    bit: u32,
    /// What a note says that is about the same.
    of: u64,
}

impl Target<'_> {
    fn concerns(&self, note: &Note) -> bool {
        self.of == if self.bit == ACCOUNT { note.account.load(Relaxed) } else { note.place.load(Relaxed) }
    }
}

/// A note, taken.
struct Taken<'a, 't> {
    ledger: &'a Ledger,
    at: usize,
    note: &'a Note,
    _held: Held<'t>,
}

/// Notes and accounts, in the file `accounts`.
#[repr(C)]
pub struct Ledger {
    notes: [Note; NOTES],
    table: [Account; ACCOUNTS],
}

impl Ledger {
    /// Charges for a new queue, up to so many bytes and queues.
    ///
    /// # Errors
    ///
    /// See [`Refused`].
    pub fn charge(
        &self,
        tls: Option<&Tls>,
        what: &Change<'_>,
        limit: u64,
        queues_max: u32,
    ) -> Result<Noted<'_>, Refused> {
        let limit = limit.min(MOST);
        let account = self.account(what.uid, true);
        let charged = |sum: u64| sum.checked_add(what.cost).filter(|&sum| sum <= limit).ok_or(Refused::TooMuch(sum));
        let counted = |sum: u64| if sum < queues_max as u64 { Ok(sum + 1) } else { Err(Refused::TooMany) };
        // It may be taken by another one before.
        let mut tries = 0..NOTES;
        let taken = loop {
            let room = self.survey(tls, what).room;
            let taken = room.and_then(|at| self.take_free(tls, at));
            if taken.is_some() || room.is_none() || tries.next().is_none() {
                break taken;
            }
        };
        // As in the kernel: this first.
        counted(what.count.get())?;
        let Some(taken) = taken else {
            let count = self.count_of(what);
            if let Some(account) = &account {
                self.change(account, None, charged)?;
            }
            if let Err(refused) = self.change(&count, None, counted) {
                if let Some(account) = &account {
                    let _ = self.change(account, None, |sum| Ok::<_, ()>(sum.saturating_sub(what.cost)));
                }
                return Err(refused);
            }
            return Ok(Noted(None));
        };
        crate::crash_point!("ledger.taken");
        taken.publish(what, account.as_ref(), CHARGING);
        crate::crash_point!("ledger.noted");
        if let Err(refused) = taken.apply(account.as_ref(), charged) {
            taken.wipe();
            return Err(refused);
        }
        if let Err(refused) = taken.apply(Some(&self.count_of(what)), counted) {
            // Others were faster. Nobody will make a mark of it.
            taken.renew(GIVING | COUNT | MARKED, account.as_ref(), what);
            taken.finish(None);
            return Err(refused);
        }
        Ok(taken.noted())
    }

    /// Gives back what was charged. `is_due` is asked whether it was, as far as the mark says, and has not been given back yet,
    /// when nobody else can be giving it back; it is told whether a note says so. Nothing: it was not due.
    pub fn give_back(&self, tls: Option<&Tls>, what: &Change<'_>, is_due: impl Fn(bool) -> bool) -> Option<Noted<'_>> {
        let account = self.account(what.uid, false);
        for _ in 0..PATIENCE {
            let found = self.survey(tls, what);
            let taken = match found.known {
                // By one who has died since, or has not come to the mark yet.
                Some((at, state)) if state & KIND == GIVING => return Some(Noted(Some((&self.notes[at], state)))),
                Some((at, state)) => {
                    if !is_made(state) || !is_due(true) {
                        return None;
                    }
                    let Some(taken) = self.take(tls, at) else {
                        give_way();
                        continue;
                    };
                    if taken.note.state.load(Acquire) != state {
                        taken.finish(Some(what));
                        continue;
                    }
                    taken.renew(GIVING, account.as_ref(), what);
                    taken
                }
                None => {
                    let Some(room) = found.room else {
                        // Others, who may be giving back the same, come to an end. The dead don't.
                        if tls.is_none() || !found.busy {
                            break;
                        }
                        give_way();
                        continue;
                    };
                    let Some(taken) = self.take_free(tls, room) else {
                        if tls.is_none() {
                            break;
                        }
                        continue;
                    };
                    taken.publish(what, account.as_ref(), ASKING);
                    crate::crash_point!("ledger.asked");
                    match taken.ask(what) {
                        Asked::First if !is_due(false) => {
                            taken.wipe();
                            return None;
                        }
                        Asked::First if taken.becomes_giving() => taken,
                        Asked::Given(noted) => {
                            taken.wipe();
                            return Some(noted);
                        }
                        _ => {
                            taken.wipe();
                            drop(taken);
                            give_way();
                            continue;
                        }
                    }
                }
            };
            crate::crash_point!("ledger.noted");
            taken.finish(Some(what));
            return Some(taken.noted());
        }
        if !is_due(false) {
            return None;
        }
        let less = |by: u64| move |sum: u64| Ok::<_, ()>(sum.saturating_sub(by));
        if let Some(account) = &account {
            let _ = self.change(account, None, less(what.cost));
        }
        let _ = self.change(&self.count_of(what), None, less(1));
        Some(Noted(None))
    }

    /// Brings account and count of a namespace up to date, should somebody have died who was changing them.
    pub fn catch_up(&self, tls: Option<&Tls>, what: &Change<'_>) {
        self.survey(tls, what);
        self.sweep(what);
    }

    /// Does away with what the dead have left of this namespace that nobody would miss.
    fn sweep(&self, what: &Change<'_>) {
        for note in &self.notes {
            let state = note.state.load(Acquire);
            if !is_made(state) || state & KIND != GIVING || note.place.load(Relaxed) != what.place {
                continue;
            }
            let account = self.table.get(note.account.load(Relaxed) as usize);
            let uid = account.map_or(0, |account| account.key.load(Relaxed).wrapping_sub(1) as u32);
            if note.owner.load(Acquire) == 0
                && what.marks.is_made(note.queue.load(Relaxed), uid, note.cost.load(Relaxed))
            {
                Noted(Some((note, state))).settle();
            }
        }
    }

    /// Bytes charged to a uid.
    pub fn used(&self, uid: u32) -> u64 {
        self.account(uid, false).map_or(0, |account| account.sum.get())
    }

    /// Calls `see` with each uid that something is charged to, and how many bytes.
    pub fn each(&self, mut see: impl FnMut(u32, u64)) {
        for account in &self.table {
            let (key, bytes) = (account.key.load(Acquire), account.bytes.get());
            if key != 0 && bytes != 0 {
                see((key - 1) as u32, bytes);
            }
        }
    }

    /// Notes that are in use.
    #[allow(dead_code)]
    pub fn notes_in_use(&self) -> usize {
        self.notes.iter().filter(|note| note.state.load(Acquire) & KIND != FREE).count()
    }

    /// Nothing: the table is full of other uids. Those charge nobody: better than refusing everybody.
    fn account(&self, uid: u32, make: bool) -> Option<Target<'_>> {
        let key = 1 + uid as u64;
        let start = (uid.wrapping_mul(0x9e37_79b9) >> 16) as usize % ACCOUNTS;
        for at in (start..ACCOUNTS).chain(0..start) {
            let account = &self.table[at];
            let found = account.key.load(Acquire);
            let is_it = found == key
                || found == 0
                    && make
                    && match account.key.compare_exchange(0, key, AcqRel, Acquire) {
                        Ok(_) => true,
                        Err(other) => other == key,
                    };
            if is_it {
                return Some(Target { sum: &account.bytes, bit: ACCOUNT, of: at as u64 });
            }
            if found == 0 && !make {
                return None;
            }
        }
        None
    }

    fn count_of<'a>(&self, what: &Change<'a>) -> Target<'a> {
        Target { sum: what.count, bit: COUNT, of: what.place }
    }

    /// Brings to an end what the dead have left; what is known of the queue, and which note is free.
    fn survey(&self, tls: Option<&Tls>, what: &Change<'_>) -> Survey {
        let found = self.look(tls, what);
        if found.room.is_some() {
            return found;
        }
        self.sweep(what);
        self.look(tls, what)
    }

    fn look(&self, tls: Option<&Tls>, what: &Change<'_>) -> Survey {
        let mut found = Survey::default();
        for (at, note) in self.notes.iter().enumerate() {
            let (mut owner, mut state) = (note.owner.load(Acquire), note.state.load(SeqCst));
            let is_left = |owner: u32| owner == 0 && is_under_way(state) && note.place.load(Relaxed) == what.place;
            if lock::has_died(owner) || is_left(owner) {
                if let Some(taken) = self.take(tls, at) {
                    taken.finish(Some(what));
                }
                (owner, state) = (note.owner.load(Acquire), note.state.load(SeqCst));
            }
            match state & KIND {
                FREE if owner == 0 && found.room.is_none() => found.room = Some(at),
                CHARGING | GIVING if self.is_of(note, state, what) => found.known = Some((at, state)),
                _ => {}
            }
            found.busy |= owner != 0;
        }
        found
    }

    /// Whether a note is about this queue.
    fn is_of(&self, note: &Note, state: u32, what: &Change<'_>) -> bool {
        let (queue, place) = (note.queue.load(Acquire), note.place.load(Acquire));
        queue == what.queue && place == what.place && note.state.load(SeqCst) / SEQ == state / SEQ
    }

    /// Takes a note that nobody has. Nothing: somebody does.
    fn take<'a: 't, 't>(&'a self, tls: Option<&'t Tls>, at: usize) -> Option<Taken<'a, 't>> {
        let note = &self.notes[at];
        lock::take(&note.owner, tls?).map(|held| Taken { ledger: self, at, note, _held: held })
    }

    /// The same if there is nothing on it.
    fn take_free<'a: 't, 't>(&'a self, tls: Option<&'t Tls>, at: usize) -> Option<Taken<'a, 't>> {
        let taken = self.take(tls, at)?;
        if taken.note.state.load(Acquire) & KIND == FREE {
            return Some(taken);
        }
        // Somebody was faster, and has died since.
        taken.finish(None);
        None
    }

    /// Changes a sum, and leaves a mark of the note that says so. Without one: the mark that was there.
    fn change<E>(&self, target: &Target<'_>, mark: Option<u64>, to: impl Fn(u64) -> Result<u64, E>) -> Result<(), E> {
        let word = &target.sum.0;
        let mut tries = 0;
        loop {
            tries += 1;
            let seen = word.load(Acquire);
            let before = Sum::mark(seen);
            if mark.is_some() && !self.tell(target, seen) && tries < PATIENCE {
                continue;
            }
            let next = to(seen >> MARK_BITS)?.min(MOST) << MARK_BITS | mark.unwrap_or(before);
            if word.compare_exchange(seen, next, SeqCst, Relaxed).is_ok() {
                return Ok(());
            }
            if tries >= PATIENCE {
                // Somebody is at it who does nothing else: then it is his.
                word.store(next, SeqCst);
                return Ok(());
            }
        }
    }

    /// Tells the note that has changed a sum last that it has. False: look again.
    fn tell(&self, target: &Target<'_>, seen: u64) -> bool {
        let at = (seen & ((1 << NOTE_BITS) - 1)) as usize;
        let Some(other) = self.notes.get(at.wrapping_sub(1)) else { return true };
        let state = other.state.load(Acquire);
        let is_news = is_under_way(state)
            && state & target.bit == 0
            && mark(at - 1, state) == Sum::mark(seen)
            && target.concerns(other);
        // The mark is there after that has been said by the note, and was not there before: see `renew`.
        if target.sum.0.load(Acquire) != seen {
            return false;
        }
        !is_news || other.state.compare_exchange(state, state | target.bit, AcqRel, Relaxed).is_ok()
    }
}

/// What [`Taken::ask`] has found.
enum Asked<'a> {
    /// Nobody else is at it.
    First,
    /// Somebody is, or was, and has not come to the mark.
    Given(Noted<'a>),
    /// Look again.
    Unclear,
}

impl<'a> Taken<'a, '_> {
    /// Nothing is on it any more.
    fn wipe(&self) {
        self.note.state.store(freed(self.note.state.load(Relaxed)), Release);
    }

    /// Writes the note, on which there is nothing.
    fn publish(&self, what: &Change<'_>, account: Option<&Target<'_>>, state: u32) {
        let note = self.note;
        note.queue.store(what.queue, Release);
        note.place.store(what.place, Release);
        note.cost.store(what.cost, Release);
        note.account.store(account.map_or(u64::MAX, |account| account.of), Release);
        self.renew(state, account, what);
    }

    /// Begins a new use of the note.
    fn renew(&self, state: u32, account: Option<&Target<'_>>, what: &Change<'_>) {
        let mut seq = self.note.state.load(Relaxed) / SEQ;
        loop {
            seq = seq.wrapping_add(1);
            let next = seq.wrapping_mul(SEQ) | state;
            // Its mark must not be there already, from uses long ago. Nobody else makes one.
            let is_there = |sum: &Sum| Sum::mark(sum.0.load(SeqCst)) == mark(self.at, next);
            if !account.is_some_and(|account| is_there(account.sum)) && !is_there(what.count) {
                return self.note.state.store(next, SeqCst);
            }
        }
    }

    /// Whether nobody else gives the same back. Who is only asking, too, is called off: of two who ask at a time each has seen the other.
    fn ask(&self, what: &Change<'_>) -> Asked<'a> {
        for (at, note) in self.ledger.notes.iter().enumerate() {
            let state = note.state.load(SeqCst);
            if at == self.at || matches!(state & KIND, FREE | CALLED_OFF) || !self.ledger.is_of(note, state, what) {
                continue;
            }
            match state & KIND {
                GIVING => return Asked::Given(Noted(Some((note, state)))),
                ASKING if note.state.compare_exchange(state, state - ASKING + CALLED_OFF, SeqCst, Relaxed).is_ok() => {}
                _ => return Asked::Unclear,
            }
        }
        Asked::First
    }

    /// The only one who asks gives it back. False: it was called off.
    fn becomes_giving(&self) -> bool {
        let state = self.note.state.load(Relaxed) / SEQ * SEQ;
        self.note.state.compare_exchange(state | ASKING, state | GIVING, SeqCst, Relaxed).is_ok()
    }

    /// Changes a sum as the note says.
    fn apply<E>(&self, target: Option<&Target<'_>>, to: impl Fn(u64) -> Result<u64, E>) -> Result<(), E> {
        let bit = target.map_or(ACCOUNT, |target| target.bit);
        if let Some(target) = target {
            self.ledger.change(target, Some(mark(self.at, self.note.state.load(Relaxed))), to)?;
        }
        if bit == ACCOUNT {
            crate::crash_point!("ledger.account");
        } else {
            crate::crash_point!("ledger.count");
        }
        self.is_done(bit);
        Ok(())
    }

    fn is_done(&self, bit: u32) {
        let before = self.note.state.load(Relaxed);
        loop {
            let state = self.note.state.load(Acquire);
            // What is done may be settled by another one.
            if state / SEQ != before / SEQ || state & KIND == FREE {
                return;
            }
            let done = state | bit;
            let next = if is_made(done) && done & MARKED != 0 { freed(state) } else { done };
            if next == state || self.note.state.compare_exchange(state, next, AcqRel, Relaxed).is_ok() {
                return;
            }
        }
    }

    /// Does what the note says and is not done: the count of another namespace than that of `what` is left as it is.
    fn finish(&self, what: Option<&Change<'_>>) {
        let (note, ledger) = (self.note, self.ledger);
        let state = note.state.load(Acquire);
        if !matches!(state & KIND, CHARGING | GIVING) {
            return self.wipe();
        }
        let at = note.account.load(Relaxed);
        let account = ledger.table.get(at as usize).map(|it| Target { sum: &it.bytes, bit: ACCOUNT, of: at });
        let count = what.filter(|what| what.place == note.place.load(Relaxed)).map(|what| ledger.count_of(what));
        for (target, bit, by) in [(account, ACCOUNT, note.cost.load(Relaxed)), (count, COUNT, 1)] {
            // In this order: who changes the sum next tells the note before.
            let is_applied =
                target.as_ref().is_some_and(|target| Sum::mark(target.sum.0.load(SeqCst)) == mark(self.at, state));
            let now = note.state.load(SeqCst);
            // Nothing is on it any more when the first was the last.
            if now & bit != 0 || !is_under_way(now) {
                continue;
            }
            match &target {
                Some(target) if !is_applied => {
                    let _ = self.apply(Some(target), |sum: u64| {
                        Ok::<_, ()>(if state & KIND == CHARGING {
                            sum.saturating_add(by)
                        } else {
                            sum.saturating_sub(by)
                        })
                    });
                }
                // Of another namespace.
                None if bit == COUNT => {}
                _ => self.is_done(bit),
            }
        }
    }

    /// All is done but for the mark.
    fn noted(self) -> Noted<'a> {
        let noted = Noted(Some((self.note, self.note.state.load(Relaxed))));
        crate::crash_point!("ledger.settled");
        drop(self);
        crate::crash_point!("ledger.unlocked");
        noted
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::AtomicBool;

    use super::*;
    use crate::sys::tls;

    struct World {
        ledger: Box<Ledger>,
        count: Sum,
        gone: AtomicBool,
    }

    impl Marks for World {
        fn is_made(&self, _: u64, _: u32, _: u64) -> bool {
            self.gone.load(SeqCst)
        }
    }

    impl World {
        fn new() -> World {
            // SAFETY: plain words, of which 0 is a value.
            let ledger = unsafe { Box::new_zeroed().assume_init() };
            World { ledger, count: Sum::default(), gone: AtomicBool::new(false) }
        }

        fn of(&self, queue: u64, uid: u32, cost: u64) -> Change<'_> {
            Change { place: 77, count: &self.count, uid, cost, queue, marks: self }
        }

        fn words(&self) -> &[AtomicU64] {
            // SAFETY: the ledger is 8-byte words or halves of such, all of them atomics.
            unsafe { core::slice::from_raw_parts((&raw const *self.ledger).cast(), size_of::<Ledger>() / 8) }
        }
    }

    #[test]
    fn limits_are_exact() {
        let world = World::new();
        let ready = Some(tls::ready().expect("a block"));
        let charge = |queue, uid, cost, limit, most| {
            world.ledger.charge(ready, &world.of(queue, uid, cost), limit, most).map(Noted::settle)
        };
        assert_eq!(charge(1, 5, 60, 100, 3), Ok(()));
        assert_eq!(charge(2, 5, 41, 100, 3), Err(Refused::TooMuch(60)));
        assert_eq!(charge(2, 5, 40, 100, 3), Ok(()));
        assert_eq!(charge(3, 6, MOST - 1, u64::MAX, 3), Ok(()));
        assert_eq!(charge(4, 6, 2, u64::MAX, 4), Err(Refused::TooMuch(MOST - 1)));
        assert_eq!(charge(4, 7, 1, 100, 3), Err(Refused::TooMany));
        assert_eq!(
            (world.ledger.used(5), world.ledger.used(6), world.ledger.used(7), world.count.get()),
            (100, MOST - 1, 0, 3)
        );
        let give =
            |queue, uid, cost| world.ledger.give_back(ready, &world.of(queue, uid, cost), |_| true).map(Noted::settle);
        assert_eq!(give(1, 5, 60), Some(()));
        assert_eq!((world.ledger.used(5), world.count.get()), (40, 2));
        assert_eq!(world.ledger.give_back(ready, &world.of(2, 5, 40), |_| false).map(Noted::settle), None);
        // More than is there.
        assert_eq!(give(2, 5, 50), Some(()));
        assert_eq!((world.ledger.used(5), world.count.get()), (0, 1));
        assert_eq!(world.ledger.notes_in_use(), 0);
    }

    /// What is charged and not marked counts, and is given back by whoever finds it; what nobody would miss goes when notes run out.
    #[test]
    fn notes_of_the_dead_are_used_again() {
        let world = World::new();
        let ready = Some(tls::ready().expect("a block"));
        for queue in 0..NOTES as u64 {
            // Dead before the mark.
            let _ = world.ledger.charge(ready, &world.of(queue, 5, 1), 1000, 1000).expect("room");
        }
        assert_eq!((world.ledger.notes_in_use(), world.ledger.used(5)), (NOTES, NOTES as u64));
        // Without a note.
        world.ledger.charge(ready, &world.of(999, 5, 1), 1000, 1000).expect("room").settle();
        assert_eq!(world.ledger.used(5), NOTES as u64 + 1);
        for queue in 0..NOTES as u64 {
            // It is told that a note says so. Dead before the mark of this.
            let given = world.ledger.give_back(ready, &world.of(queue, 5, 1), |noted| noted);
            let _ = given.expect("it was charged");
            // The next finds that it is done.
            let _ = world.ledger.give_back(ready, &world.of(queue, 5, 1), |_| unreachable!("it is known"));
        }
        assert_eq!((world.ledger.notes_in_use(), world.ledger.used(5)), (NOTES, 1));
        world.gone.store(true, SeqCst);
        world.ledger.charge(ready, &world.of(1000, 5, 1), 1000, 1000).expect("room").settle();
        assert_eq!((world.ledger.notes_in_use(), world.ledger.used(5)), (0, 2));
    }

    /// All notes are said to be the living's, who never let go: what is given back is given back all the same, and soon.
    #[test]
    fn notes_that_nobody_lets_go_are_done_without() {
        let world = World::new();
        let ready = Some(tls::ready().expect("a block"));
        world.ledger.charge(ready, &world.of(1, 5, 60), 100, 3).expect("room").settle();
        for note in &world.ledger.notes {
            note.owner.store(1, SeqCst);
        }
        let begun = std::time::Instant::now();
        world.ledger.give_back(ready, &world.of(1, 5, 60), |_| true).expect("it is due").settle();
        println!("{:?}", begun.elapsed());
        assert_eq!((world.ledger.used(5), world.count.get()), (0, 0));
        world.ledger.charge(None, &world.of(1, 5, 60), 100, 3).expect("room").settle();
        world.ledger.give_back(None, &world.of(1, 5, 60), |_| true).expect("it is due").settle();
        assert_eq!((world.ledger.used(5), world.count.get()), (0, 0));
    }

    /// Whatever others write there, at any time: a call ends, and takes no more than the words of the file for what they are.
    #[test]
    fn hostile_notes_keep_nobody() {
        let seeds = if cfg!(sanitized) { 200 } else { 2000 };
        for seed in 0..seeds {
            let world = World::new();
            let mut state = (seed as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut random = move || {
                state ^= state >> 12;
                state ^= state << 25;
                state ^= state >> 27;
                state.wrapping_mul(0x2545_f491_4f6c_dd1d)
            };
            let mut spoil = |words: &[AtomicU64]| {
                let value = match random() % 6 {
                    0 => random(),
                    1 => u64::MAX,
                    // A living owner, a dead one.
                    2 => crate::sys::gettid() as u64 | (random() % 256) << 32,
                    3 => 0x4000_0000 | (random() % 256) << 32,
                    4 => (random() % 8) << 32,
                    _ => 77,
                };
                // Notes rather than accounts.
                let at = if random().is_multiple_of(4) { random() as usize } else { random() as usize % (NOTES * 5) };
                words[at % words.len()].store(value, SeqCst);
            };
            for _ in 0..seed % 64 {
                spoil(world.words());
            }
            let over = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !over.load(SeqCst) {
                        spoil(world.words());
                    }
                });
                let ready = Some(tls::ready().expect("a block"));
                for queue in 0..20 {
                    let what = world.of(queue % 3, (queue % 5) as u32, queue);
                    if let Ok(noted) = world.ledger.charge(ready, &what, 1 << 40, 1000) {
                        noted.settle();
                    }
                    if let Some(noted) = world.ledger.give_back(ready, &what, |noted| noted || queue % 2 == 0) {
                        noted.settle();
                    }
                    world.ledger.catch_up(ready, &what);
                }
                over.store(true, SeqCst);
            });
        }
    }
}
