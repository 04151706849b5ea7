//! The registrations of this process, as far as only it can know them.
//!
//! Three things need them. A process that knows that it still has the record lock of its last registration
//! need not take it again, nor ask whether it is there ([`lock_kept`]). exec keeps a registration whose descriptors survive but never signals the
//! new image, so the records have to be marked on the way ([`exec_begins`]). And a sender may be
//! one that must not signal this process (another user) or cannot name it (an inner pid namespace),
//! which the kernel's notifications do not care about. For their sake a registration has a *bell*
//! ([`bell`]), by which the kernel sends the signal for them. Such a signal says POLL_MSG, and
//! [`on_signal`] tells who sent the message.
//!
//! A bell hangs until it has been rung or its registration is removed: programs that register again
//! after each message pay once. They get one in any case: to ask each time whether one is needed would cost more
//! ([`wants_bell`]).
//!
//! Entries of a queue change under its lock. A fork child inherits entries that are not its own, which
//! the process generation tells.

use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize};

use super::bell::{self, Bell};
use super::{EXECED, Lock, Registration, fired};
use crate::queue::{Section, enter};
use crate::shm::Map;
use crate::shm::layout::F_NOTIFY;
use crate::sys::getpid;
use crate::sys::tls::{self, Tls, generation};

/// `Own::state`: not in use.
const FREE: u32 = 0;
/// `Own::state`: somebody is filling it in.
const CLAIMED: u32 = 1;
/// `Own::state`: registered, or was until a message came.
const REGISTERED: u32 = 2;
/// `Own::state`: its bell was rung, and it was removed before the signal was taken.
const SPENT: u32 = 3;

struct Own {
    state: AtomicU32,
    signo: AtomicI32,
    /// The process, and its generation.
    pid: AtomicU32,
    /// What the bell's signal says in si_fd.
    fd: AtomicI32,
    generation: AtomicU64,
    /// Pinned while `REGISTERED`.
    map: AtomicPtr<Map>,
    /// 0: it has fired, and the signal has been taken.
    ticket: AtomicU64,
    value: AtomicU64,
    /// While `SPENT`: the sender's process id, and its uid in the upper half.
    sender: AtomicU64,
    /// [`Bell::address`], 0 if none hangs.
    bell: AtomicUsize,
    /// [`Bell::number`].
    number: AtomicU32,
    /// 1: to hang one has failed.
    bell_failed: AtomicU32,
    /// [`Lock::number`] of the lock that was taken for it, 0 if that has been dropped.
    lock: AtomicU64,
    /// [`Lock::closes`].
    closes: AtomicU64,
}

const LEN: usize = 256;
static TABLE: [Own; LEN] = [const {
    Own {
        state: AtomicU32::new(FREE),
        signo: AtomicI32::new(0),
        pid: AtomicU32::new(0),
        fd: AtomicI32::new(0),
        generation: AtomicU64::new(0),
        map: AtomicPtr::new(core::ptr::null_mut()),
        ticket: AtomicU64::new(0),
        value: AtomicU64::new(0),
        sender: AtomicU64::new(0),
        bell: AtomicUsize::new(0),
        number: AtomicU32::new(0),
        bell_failed: AtomicU32::new(0),
        lock: AtomicU64::new(0),
        closes: AtomicU64::new(0),
    }
}; LEN];
/// Entries ever used.
static HIGH: AtomicUsize = AtomicUsize::new(0);

/// How many descriptors this process has closed, since it has registered for the first time, of which it did not
/// know whose they are: each may have been the queue's.
static CLOSES: AtomicU64 = AtomicU64::new(0);

/// See [`CLOSES`].
pub(super) fn closes() -> u64 {
    CLOSES.load(Acquire)
}

/// A descriptor has been closed that is not known as a queue's.
#[inline(always)]
pub fn other_closed() {
    if any() {
        CLOSES.fetch_add(1, Release);
    }
}

/// Whether this process, or the one that has forked it, has ever registered for a signal.
#[inline(always)]
pub fn any() -> bool {
    HIGH.load(Relaxed) != 0
}

/// The entries of this process.
fn entries() -> impl Iterator<Item = &'static Own> {
    let generation = generation();
    TABLE[..HIGH.load(Acquire).min(LEN)].iter().filter(move |own| own.generation.load(Acquire) == generation)
}

fn find(map: &Map) -> Option<&'static Own> {
    let at = (&raw const *map).cast_mut();
    entries().find(|own| own.state.load(Acquire) == REGISTERED && own.map.load(Relaxed) == at)
}

/// The record lock that this process, or one that shares its memory, has kept from its last registration for the
/// queue. It is gone when the process closes a descriptor of the queue: with one that it knows goes the entry, and
/// any other counts. Under the queue's lock.
pub(super) fn lock_kept(map: &Map) -> Option<Lock> {
    let own = find(map)?;
    let lock = Lock { number: own.lock.load(Relaxed), pid: own.pid.load(Relaxed), closes: own.closes.load(Relaxed) };
    (lock.number != 0 && lock.closes == closes()).then_some(lock)
}

/// This process drops its record locks on the queue, under the queue's lock.
pub(super) fn lock_dropped(map: &Map) {
    if let Some(own) = find(map) {
        own.lock.store(0, Relaxed);
    }
}

/// Whether a bell is to hang at the queue whoever may send: one does already, or this process registers again.
pub fn wants_bell(map: &Map) -> bool {
    find(map).is_some_and(|own| {
        let again = own.lock.load(Relaxed) != 0 && own.bell_failed.load(Relaxed) == 0;
        again || own.has_bell(map)
    })
}

/// An entry for this process to fill in.
fn claim() -> Option<&'static Own> {
    let take = |own: &Own, state| own.state.compare_exchange(state, CLAIMED, AcqRel, Relaxed).is_ok();
    let generation = generation();
    for own in &TABLE[..HIGH.load(Acquire).min(LEN)] {
        let state = own.state.load(Acquire);
        let inherited = state != CLAIMED && own.generation.load(Acquire) != generation;
        if (state == FREE || inherited) && take(own, state) {
            if state == REGISTERED {
                // SAFETY: a pinned mapping, of which fork has made a copy.
                unsafe { (*own.map.load(Relaxed)).pins.fetch_sub(1, Release) };
            }
            return Some(own);
        }
    }
    let fresh = HIGH.fetch_add(1, AcqRel);
    if let Some(own) = TABLE.get(fresh) {
        own.state.store(CLAIMED, Relaxed);
        return Some(own);
    }
    HIGH.store(LEN, Release);
    // Signals that nobody takes are forgotten, rather than a registration.
    TABLE.iter().find(|own| take(own, SPENT))
}

impl Own {
    fn is_live(&self, map: &Map) -> bool {
        let h = map.header();
        h.flags.load(Relaxed) & F_NOTIFY != 0 && h.notify.ticket.load(Relaxed) == self.ticket.load(Relaxed)
    }

    /// Whether its bell was rung, and the signal has not been taken: by whom.
    fn rung(&self, map: &Map) -> Option<u64> {
        let ticket = self.ticket.load(Relaxed);
        if ticket == 0 { None } else { fired(map, ticket) }
    }

    fn has_bell(&self, map: &Map) -> bool {
        self.bell.load(Relaxed) != 0 && map.header().notify.bell.load(Relaxed) == self.number.load(Relaxed)
    }

    fn hang_bell(&self, map: &Map) -> bool {
        self.take_down();
        let Ok(Bell { address, number, fd }) = bell::hang(map, self.signo.load(Relaxed)) else {
            self.bell_failed.store(1, Relaxed);
            return false;
        };
        self.number.store(number, Relaxed);
        self.fd.store(fd, Relaxed);
        self.bell.store(address, Relaxed);
        true
    }

    fn take_down(&self) {
        let address = self.bell.swap(0, Relaxed);
        if address != 0 {
            bell::take_down(address);
        }
    }

    /// Ends it, under the queue's lock.
    fn retire(&self, map: &Map) {
        self.take_down();
        let mut state = FREE;
        if let Some(sender) = self.rung(map) {
            self.sender.store(sender, Relaxed);
            state = SPENT;
        }
        self.state.store(state, Release);
        map.pins.fetch_sub(1, Release);
    }
}

/// Enters a registration that this process is making, under the queue's lock. `foreign`: senders may
/// be unable to signal it. Returns whether it has a bell.
pub(super) fn entered(section: &Section<'_>, what: Registration, ticket: u64, lock: Lock, foreign: bool) -> bool {
    let map = section.map;
    let signals = what.kind == libc::SIGEV_SIGNAL && what.signo > 0;
    let mut entry = find(map);
    if let Some(own) = entry
        && (!signals || own.rung(map).is_some() || own.signo.load(Relaxed) != what.signo)
    {
        own.retire(map);
        entry = None;
    }
    if !signals {
        return false;
    }
    let own = match entry {
        Some(own) => own,
        None => {
            let Some(own) = claim() else { return false };
            // Not what the segment says of it, which may be another's by now.
            own.pid.store(lock.pid, Relaxed);
            own.bell.store(0, Relaxed);
            own.bell_failed.store(0, Relaxed);
            own.map.store((&raw const *map).cast_mut(), Relaxed);
            own.generation.store(generation(), Release);
            map.pins.fetch_add(1, Relaxed);
            own
        }
    };
    own.signo.store(what.signo, Relaxed);
    own.ticket.store(ticket, Relaxed);
    // The entry may be that of a process whose memory this one shares.
    let is_owner = own.pid.load(Relaxed) == lock.pid;
    own.lock.store(if is_owner { lock.number } else { 0 }, Relaxed);
    own.closes.store(lock.closes, Relaxed);
    own.value.store(what.value, Relaxed);
    own.state.store(REGISTERED, Release);
    foreign && (own.has_bell(map) || own.hang_bell(map))
}

/// The registration of this process for a queue has been removed, under the queue's lock.
pub(super) fn removed(section: &Section<'_>) {
    if let Some(own) = find(section.map) {
        own.retire(section.map);
    }
}

/// This process has closed a descriptor of the queue, which ends its registration.
#[cold]
pub(super) fn closed(map: &Map, tls: &Tls) {
    let Some(own) = find(map) else { return };
    // A child that shares our memory closes a copy of its own.
    if own.pid.load(Relaxed) != getpid() {
        return;
    }
    let section = enter(map, tls);
    if own.state.load(Acquire) == REGISTERED {
        own.retire(map);
    }
    drop(section);
}

/// What a signal of a descriptor is.
pub enum Meaning {
    /// What it says.
    Itself,
    /// A notification: the sender's process id and real uid, and `sigev_value`.
    Notification(u32, u32, u64),
    /// Somebody has touched a bell who had no message: nobody's business.
    Nothing,
}

/// The meaning of a signal that says that something is up with descriptor `fd` (POLL_MSG or SI_SIGIO).
/// Async-signal-safe, outside critical sections.
#[cold]
pub fn on_signal(signo: i32, fd: i32) -> Meaning {
    let of_sender =
        |own: &Own, sender: u64| Meaning::Notification(sender as u32, (sender >> 32) as u32, own.value.load(Relaxed));
    let is_it = |own: &&Own| own.signo.load(Relaxed) == signo && own.fd.load(Relaxed) == fd;
    // What came first goes first.
    for own in entries().filter(is_it) {
        if own.state.load(Acquire) == SPENT {
            let meaning = of_sender(own, own.sender.load(Relaxed));
            if own.state.compare_exchange(SPENT, FREE, AcqRel, Relaxed).is_ok() {
                return meaning;
            }
        }
    }
    let Ok(tls) = tls::ready() else { return Meaning::Itself };
    let mut meaning = Meaning::Itself;
    for own in entries().filter(is_it) {
        with_map(tls, own, |map| {
            if let Some(sender) = own.rung(map) {
                meaning = of_sender(own, sender);
                own.ticket.store(0, Relaxed);
                own.take_down();
            } else if own.bell.load(Relaxed) != 0 {
                meaning = Meaning::Nothing;
            }
        });
        if matches!(meaning, Meaning::Notification(..)) {
            break;
        }
    }
    meaning
}

/// Calls `f` under the lock of an entry's queue, if the entry is still registered then.
fn with_map(tls: &'static Tls, own: &Own, f: impl FnOnce(&Map)) {
    let hazard = tls.hazard();
    let outer = hazard.at.load(Relaxed);
    let at = own.map.load(Acquire);
    hazard.set(at as usize);
    let is_registered = || own.state.load(Acquire) == REGISTERED && own.map.load(Relaxed) == at;
    if is_registered() {
        // SAFETY: registered entries have their mapping pinned, and from now on it stays because
        // our record says so (see `desc::known_by`).
        let map = unsafe { &*at };
        let section = enter(map, tls);
        if is_registered() {
            f(map);
        }
        drop(section);
    }
    hazard.set(outer);
}

/// Calls `f` for each registration of this process, under the lock.
#[cold]
fn each(f: impl Fn(&Own, &Map)) {
    let Ok(tls) = tls::ready() else { return };
    for own in entries() {
        with_map(tls, own, |map| f(own, map));
    }
}

/// The same for those that are live, and not of a process whose memory this one shares.
fn each_live(f: impl Fn(&Map)) {
    if !any() {
        return;
    }
    let pid = getpid();
    each(|own, map| {
        if own.pid.load(Relaxed) == pid && own.is_live(map) {
            f(map);
        }
    });
}

/// A call that polls has returned with something ready: a notification that goes with it is here before this
/// returns.
#[inline(always)]
pub fn settle(ready: i32) {
    if ready > 0 && any() {
        each(|_, _| {});
    }
}

/// This process is about to call exec: registrations whose descriptors all survive stay, but the new
/// image gets no signal. (Bells go with the memory that they hang in.)
pub fn exec_begins() {
    each_live(|map| {
        map.header().notify.state.fetch_or(EXECED, Relaxed);
    });
}

/// exec has failed: undoes [`exec_begins`].
pub fn exec_failed() {
    each_live(|map| {
        map.header().notify.state.fetch_and(!EXECED, Relaxed);
    });
}

#[cfg(test)]
mod tests {
    use super::super::{SI_MESGQ, current, register};
    use super::*;
    use crate::queue::try_send;
    use crate::sys::pid_namespace;

    const SIGNO: i32 = 40;

    /// Signals belong to the process: runs `test` in a child with all of them blocked, with a queue of its
    /// own that has a pipe for its FIFO. It returns the line number of what failed, or 0.
    fn in_child(test: fn(&Map, i32) -> u32) {
        // SAFETY: glibc lets the child of a threaded process allocate; it takes no lock of the test
        // harness and ends in _exit. The descriptors have room in the array.
        unsafe {
            let pid = libc::fork();
            assert!(pid >= 0);
            if pid == 0 {
                let mut all = core::mem::zeroed();
                libc::sigfillset(&mut all);
                libc::sigprocmask(libc::SIG_BLOCK, &all, core::ptr::null_mut());
                let mut ends = [0; 2];
                if libc::pipe(ends.as_mut_ptr()) != 0 {
                    libc::_exit(255);
                }
                // The end for writing: record locks need no other.
                libc::_exit(test(&Map::anonymous(4, 16), ends[1]) as i32);
            }
            let mut status = 0;
            assert_eq!(libc::waitpid(pid, &mut status, 0), pid);
            assert_eq!(status, 0, "line modulo 256: {}", status >> 8 & 0xff);
        }
    }

    macro_rules! expect {
        ($condition:expr) => {
            if !$condition {
                return line!() & 0xff | 1;
            }
        };
    }

    fn enroll(map: &Map, fd: i32) -> bool {
        let what = Registration { kind: libc::SIGEV_SIGNAL, signo: SIGNO, value: 17 };
        register(map, tls::ready().unwrap(), fd, what, pid_namespace(), false).is_ok()
    }

    /// Whether `f` runs in a child and is true there.
    fn in_another(f: impl FnOnce() -> bool) -> bool {
        // SAFETY: the child only makes calls of ours.
        unsafe {
            let pid = libc::fork();
            if pid == 0 {
                libc::_exit(i32::from(!f()));
            }
            let mut status = 0;
            libc::waitpid(pid, &mut status, 0) == pid && status == 0
        }
    }

    fn send(map: &Map, fd: i32) -> bool {
        // SAFETY: the message is a constant.
        unsafe { try_send(map, tls::ready().unwrap(), fd, b"x".as_ptr(), 1, 0) }.is_ok()
    }

    /// si_code of the signal that waits, 0 if none does.
    fn pending() -> i32 {
        // SAFETY: locals.
        unsafe {
            let mut set = core::mem::zeroed();
            libc::sigaddset(&mut set, SIGNO);
            let mut info: libc::siginfo_t = core::mem::zeroed();
            let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            if libc::sigtimedwait(&set, &mut info, &now) == SIGNO { info.si_code } else { 0 }
        }
    }

    fn owner_in_text(map: &Map, fd: i32) -> i32 {
        match current(map, tls::ready().unwrap(), fd) {
            Ok(Some((_, pid))) => pid,
            _ => -1,
        }
    }

    #[test]
    fn a_registration_survives_exec_but_signals_nobody() {
        in_child(|map, fd| {
            expect!(enroll(map, fd));
            exec_begins();
            expect!(owner_in_text(map, fd) == getpid() as i32);
            expect!(in_another(|| send(map, fd)));
            expect!(owner_in_text(map, fd) == -1);
            expect!(pending() == 0);
            0
        });
    }

    #[test]
    fn a_failed_exec_changes_nothing() {
        in_child(|map, fd| {
            expect!(enroll(map, fd));
            exec_begins();
            exec_failed();
            expect!(in_another(|| send(map, fd)));
            expect!(pending() == SI_MESGQ);
            0
        });
    }

    #[test]
    fn a_child_that_calls_exec_ends_nothing_of_its_parent() {
        in_child(|map, fd| {
            expect!(enroll(map, fd));
            expect!(in_another(|| {
                exec_begins();
                true
            }));
            expect!(in_another(|| send(map, fd)));
            expect!(pending() == SI_MESGQ);
            0
        });
    }

    #[test]
    fn entries_are_given_back() {
        in_child(|map, fd| {
            let tls = tls::ready().unwrap();
            for _ in 0..2 * LEN {
                expect!(enroll(map, fd) && map.pins.load(Relaxed) == 1);
                expect!(super::super::unregister(map, tls, fd).is_ok() && map.pins.load(Relaxed) == 0);
                expect!(enroll(map, fd));
                super::super::closed(map, tls);
                expect!(map.pins.load(Relaxed) == 0);
            }
            expect!(HIGH.load(Relaxed) == 1);
            expect!(matches!(on_signal(SIGNO, 3), Meaning::Itself));
            0
        });
    }
}
