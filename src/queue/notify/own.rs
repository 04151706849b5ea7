//! The registrations of this process, as far as only it can know them.
//!
//! Two things need them. exec keeps a registration whose descriptors survive but never signals the
//! new image, so the records have to be marked on the way ([`exec_begins`]). And a sender may be
//! one that must not signal this process (another user) or cannot name it (an inner pid namespace),
//! which the kernel's notifications do not care about. For their sake the description that
//! registers is *armed*: with O_ASYNC the kernel itself sends the signal of F_SETSIG to the process
//! of F_SETOWN, by the credentials of whoever set that, for each packet that goes into or out of
//! the FIFO (fcntl(2)). Such a signal says POLL_IN; [`on_signal`] tells who sent the message, or
//! that the signal is none (a packet moved for a poller's sake).
//!
//! An armed description stays so until its registration is removed, or moves to another descriptor
//! or signal: programs that register again after each message pay once.
//!
//! Entries of a queue change under its lock. A fork child inherits entries that are not its own, which
//! the process generation tells.

use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize};

use super::{Registration, fired};
use crate::abi::{Errno, F_GETSIG, F_SETSIG, Result};
use crate::queue::{Section, enter};
use crate::shm::Map;
use crate::shm::layout::{F_NOTIFY, F_POLLED};
use crate::sys::getpid;
use crate::sys::path::stat_fd;
use crate::sys::tls::{self, Tls, generation};
use crate::syscall;

/// `Own::state`: not in use.
const FREE: u32 = 0;
/// `Own::state`: somebody is filling it in.
const CLAIMED: u32 = 1;
/// `Own::state`: registered, or was until a message came.
const REGISTERED: u32 = 2;
/// `Own::state`: a sender has fired it through the FIFO, and it was removed before the signal was taken.
const SPENT: u32 = 3;

/// `Own::state`: it was armed, and signals for nobody may be pending.
const MUTED: u32 = 4;

/// `Own::armed`: not.
const PLAIN: u32 = 0;
/// `Own::armed`: the description sends signals.
const ARMED: u32 = 1;
/// `Own::armed`: it did, and shall again if exec fails.
const SUSPENDED: u32 = 2;
/// `Own::armed`: it did, and signals may be pending.
const DISARMED: u32 = 3;

/// `Notify::rare`: it says something.
const SAVED: u32 = 1 << 31;
/// `Notify::rare`: the signal number that the description had before.
const SIGNAL: u32 = 0xff;

/// `struct f_owner_ex` of fcntl(2).
#[repr(C)]
struct Owner {
    kind: i32,
    pid: u32,
}
const F_SETOWN_EX: i32 = 15;
const F_GETOWN_EX: i32 = 16;
/// What the kernel says of a description that has never had an owner.
const OWNER_THREAD: i32 = 0;
const OWNER_PROCESS: i32 = 1;

/// The process that a description's signals go to (0: one that has died, or that we cannot see).
fn owner(fd: i32) -> Option<u32> {
    let mut owner = Owner { kind: 0, pid: 0 };
    // SAFETY: the result goes to a local.
    unsafe { syscall!(SYS_fcntl, fd, F_GETOWN_EX, &raw mut owner) }.ok()?;
    (owner.kind == OWNER_PROCESS).then_some(owner.pid)
}

fn set_owner(fd: i32, kind: i32, pid: u32) -> Result<()> {
    let owner = Owner { kind, pid };
    // SAFETY: the structure is a local.
    unsafe { syscall!(SYS_fcntl, fd, F_SETOWN_EX, &raw const owner) }.map(|_| ())
}

struct Own {
    state: AtomicU32,
    armed: AtomicU32,
    /// The descriptor that registered; what the kernel says in si_fd.
    fd: AtomicI32,
    signo: AtomicI32,
    /// The process, and its generation.
    pid: AtomicU32,
    /// See `Notify::rare`.
    rare: AtomicU32,
    generation: AtomicU64,
    /// Pinned while `REGISTERED`.
    map: AtomicPtr<Map>,
    /// 0: it has fired, and the signal has been taken.
    ticket: AtomicU64,
    value: AtomicU64,
    /// While `SPENT`: the sender's process id, and its uid in the upper half.
    sender: AtomicU64,
}

const LEN: usize = 256;
static TABLE: [Own; LEN] = [const {
    Own {
        state: AtomicU32::new(FREE),
        armed: AtomicU32::new(PLAIN),
        fd: AtomicI32::new(0),
        signo: AtomicI32::new(0),
        pid: AtomicU32::new(0),
        rare: AtomicU32::new(0),
        generation: AtomicU64::new(0),
        map: AtomicPtr::new(core::ptr::null_mut()),
        ticket: AtomicU64::new(0),
        value: AtomicU64::new(0),
        sender: AtomicU64::new(0),
    }
}; LEN];
/// Entries ever used.
static HIGH: AtomicUsize = AtomicUsize::new(0);

/// The entries of this process.
fn entries() -> impl Iterator<Item = &'static Own> {
    let generation = generation();
    TABLE[..HIGH.load(Acquire).min(LEN)].iter().filter(move |own| own.generation.load(Acquire) == generation)
}

fn find(map: &Map) -> Option<&'static Own> {
    let at = (&raw const *map).cast_mut();
    entries().find(|own| own.state.load(Acquire) == REGISTERED && own.map.load(Relaxed) == at)
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
    [MUTED, SPENT].into_iter().find_map(|state| TABLE.iter().find(|own| take(own, state)))
}

impl Own {
    fn is_live(&self, map: &Map) -> bool {
        let h = map.header();
        h.flags.load(Relaxed) & F_NOTIFY != 0 && h.notify.ticket.load(Relaxed) == self.ticket.load(Relaxed)
    }

    /// Whether a sender has fired it through the FIFO: who.
    fn fired(&self, map: &Map) -> Option<u64> {
        let ticket = self.ticket.load(Relaxed);
        if ticket == 0 { None } else { fired(map, ticket) }
    }

    /// Ends it, under the queue's lock.
    fn retire(&self, map: &Map) {
        let armed = self.armed.swap(PLAIN, Relaxed);
        if armed == ARMED {
            self.disarm(map);
        }
        let polled = map.header().flags.load(Relaxed) & F_POLLED != 0;
        let mut state = if armed != PLAIN && polled { MUTED } else { FREE };
        if let Some(sender) = self.fired(map) {
            self.sender.store(sender, Relaxed);
            state = SPENT;
        }
        self.state.store(state, Release);
        map.pins.fetch_sub(1, Release);
    }

    /// Has the kernel signal this process from now on. False: it does not want to.
    fn arm(&self, map: &Map) -> bool {
        let n = &map.header().notify;
        let (fd, pid) = (self.fd.load(Relaxed), self.pid.load(Relaxed));
        // SAFETY: no pointers, all along.
        let armed = || unsafe {
            let flags = syscall!(SYS_fcntl, fd, libc::F_GETFL)?;
            let mut rare = syscall!(SYS_fcntl, fd, F_GETSIG)? as u32 & SIGNAL | SAVED;
            if flags as i32 & libc::O_ASYNC != 0 {
                // Left over by a process that has died; or the program has opened the queue with
                // it, and then the kernel lets nobody change it.
                rare = n.rare.load(Relaxed);
                if owner(fd).is_none() || rare & SAVED == 0 {
                    return Err(Errno::EINVAL);
                }
                syscall!(SYS_fcntl, fd, libc::F_SETFL, flags & !(libc::O_ASYNC as usize))?;
            }
            syscall!(SYS_fcntl, fd, F_SETSIG, self.signo.load(Relaxed))?;
            set_owner(fd, OWNER_PROCESS, pid)?;
            syscall!(SYS_fcntl, fd, libc::F_SETFL, flags | libc::O_ASYNC as usize)?;
            Ok::<u32, Errno>(rare)
        };
        let Ok(rare) = armed() else { return false };
        self.rare.store(rare, Relaxed);
        n.rare.store(rare, Relaxed);
        n.armed.store(pid, Relaxed);
        self.armed.store(ARMED, Relaxed);
        true
    }

    /// Undoes [`Own::arm`], unless the descriptor is another by now, or another process has armed
    /// the description for itself.
    fn disarm(&self, map: &Map) {
        let (fd, pid) = (self.fd.load(Relaxed), self.pid.load(Relaxed));
        let n = &map.header().notify;
        if n.armed.load(Relaxed) == pid {
            n.armed.store(0, Relaxed);
        }
        if !stat_fd(fd).is_ok_and(|st| st.st_ino == map.fifo_ino && st.st_dev == map.dev) {
            return;
        }
        let rare = self.rare.load(Relaxed);
        // SAFETY: no pointers, all along.
        let _ = unsafe {
            let disarmed = || {
                if owner(fd) != Some(pid) {
                    return Ok(());
                }
                set_owner(fd, OWNER_THREAD, 0)?;
                let flags = syscall!(SYS_fcntl, fd, libc::F_GETFL)?;
                syscall!(SYS_fcntl, fd, libc::F_SETFL, flags & !(libc::O_ASYNC as usize))?;
                syscall!(SYS_fcntl, fd, F_SETSIG, rare & SIGNAL)?;
                Ok::<(), Errno>(())
            };
            disarmed()
        };
    }
}

/// Enters a registration that this process is making, under the queue's lock. `foreign`: senders may
/// be unable to signal it. Returns whether its description is armed.
pub(super) fn entered(section: &Section<'_>, fd: i32, what: Registration, ticket: u64, foreign: bool) -> bool {
    let map = section.map;
    let n = &map.header().notify;
    let pid = n.pid.load(Relaxed);
    let signals = what.kind == libc::SIGEV_SIGNAL && what.signo > 0;
    // While the packets follow the queue each of them would signal: then senders that cannot signal
    // are let down rather than the program bothered.
    let arms = foreign && signals && map.header().flags.load(Relaxed) & F_POLLED == 0;
    let mut entry = find(map);
    if let Some(own) = entry {
        let armed = own.armed.load(Relaxed) == ARMED;
        let same =
            arms && own.fd.load(Relaxed) == fd && own.signo.load(Relaxed) == what.signo && n.armed.load(Relaxed) == pid;
        if !signals || own.fired(map).is_some() || armed && !same {
            own.retire(map);
            entry = None;
        }
    }
    if !signals {
        return false;
    }
    let own = match entry {
        Some(own) => own,
        None => {
            let Some(own) = claim() else { return false };
            own.armed.store(PLAIN, Relaxed);
            own.pid.store(pid, Relaxed);
            own.map.store((&raw const *map).cast_mut(), Relaxed);
            own.generation.store(generation(), Release);
            map.pins.fetch_add(1, Relaxed);
            own
        }
    };
    own.fd.store(fd, Relaxed);
    own.signo.store(what.signo, Relaxed);
    own.ticket.store(ticket, Relaxed);
    own.value.store(what.value, Relaxed);
    own.state.store(REGISTERED, Release);
    arms && (own.armed.load(Relaxed) == ARMED || own.arm(map))
}

/// The registration of this process for a queue has been removed, under the queue's lock.
pub(super) fn removed(section: &Section<'_>) {
    if let Some(own) = find(section.map) {
        own.retire(section.map);
    }
}

/// Whether this process has a description of the queue armed.
pub(super) fn is_armed(map: &Map) -> bool {
    find(map).is_some_and(|own| own.armed.load(Relaxed) == ARMED)
}

/// This process polls the queue from now on, under the queue's lock: see [`entered`].
pub(super) fn polled(section: &Section<'_>) {
    let map = section.map;
    if let Some(own) = find(map)
        && own.armed.load(Relaxed) == ARMED
    {
        own.disarm(map);
        own.armed.store(DISARMED, Relaxed);
    }
}

/// Whether this process, or the one that has forked it, has ever registered for a signal.
#[inline(always)]
pub fn any() -> bool {
    HIGH.load(Relaxed) != 0
}

/// This process is about to close a descriptor of the queue, which ends its registration.
#[cold]
pub fn closing(map: &Map) {
    let Some(own) = find(map) else { return };
    // A child that shares our memory closes a copy of its own.
    if own.pid.load(Relaxed) != getpid() {
        return;
    }
    let Ok(tls) = tls::ready() else { return };
    let _section = enter(map, tls);
    if own.state.load(Acquire) == REGISTERED {
        own.retire(map);
    }
}

/// What a signal of a descriptor is.
pub enum Meaning {
    /// What it says.
    Itself,
    /// A notification: the sender's process id and real uid, and `sigev_value`.
    Notification(u32, u32, u64),
    /// A packet in the FIFO has moved, which is nobody's business.
    Nothing,
}

/// The meaning of a signal that says that something is up with descriptor `fd` (POLL_IN, POLL_OUT, or
/// SI_SIGIO). Async-signal-safe, outside critical sections.
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
            if own.armed.load(Relaxed) == PLAIN {
                return;
            }
            meaning = match own.fired(map) {
                Some(sender) => {
                    let meaning = of_sender(own, sender);
                    own.ticket.store(0, Relaxed);
                    meaning
                }
                None => Meaning::Nothing,
            };
            if matches!(meaning, Meaning::Notification(..)) {
                return;
            }
            if !own.is_live(map) {
                own.retire(map);
            }
        });
        if !matches!(meaning, Meaning::Itself) {
            return meaning;
        }
    }
    for own in entries().filter(is_it) {
        if own.state.compare_exchange(MUTED, FREE, AcqRel, Relaxed).is_ok() {
            return Meaning::Nothing;
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

/// The program is about to give signal `signo` its default action: what is armed for a registration
/// that is over must not set it off.
#[cold]
pub fn on_default(signo: i32) {
    if !any() {
        return;
    }
    let Ok(tls) = tls::ready() else { return };
    for own in entries() {
        if own.armed.load(Relaxed) == ARMED && own.signo.load(Relaxed) == signo {
            with_map(tls, own, |map| {
                if !own.is_live(map) {
                    own.retire(map);
                }
            });
        }
    }
}

/// This process (not a child that shares its memory) is about to call exec: registrations whose
/// descriptors all survive stay, but the new image gets no signal.
pub fn exec_begins() {
    if !any() {
        return;
    }
    let Ok(tls) = tls::ready() else { return };
    let pid = getpid();
    for own in entries().filter(|own| own.pid.load(Relaxed) == pid) {
        with_map(tls, own, |map| {
            if own.armed.load(Relaxed) == ARMED {
                own.disarm(map);
                own.armed.store(SUSPENDED, Relaxed);
            }
            if own.is_live(map) {
                map.header().notify.state.store(super::EXECED, Relaxed);
            }
        });
    }
}

/// exec has failed: undoes [`exec_begins`].
pub fn exec_failed() {
    if !any() {
        return;
    }
    let Ok(tls) = tls::ready() else { return };
    let pid = getpid();
    for own in entries().filter(|own| own.pid.load(Relaxed) == pid) {
        with_map(tls, own, |map| {
            if own.is_live(map) {
                map.header().notify.state.store(0, Relaxed);
            }
            if own.armed.load(Relaxed) == SUSPENDED {
                own.armed.store(PLAIN, Relaxed);
                if own.is_live(map) && map.header().flags.load(Relaxed) & F_POLLED == 0 {
                    own.arm(map);
                }
            }
        });
    }
}

/// The signal number that an armed description had before. `None`: the description, which has O_ASYNC
/// set, is not armed.
pub fn kept_by_armed(map: &Map, fd: i32) -> Option<i32> {
    let rare = map.header().notify.rare.load(Relaxed);
    (rare & SAVED != 0 && owner(fd).is_some()).then_some((rare & SIGNAL) as i32)
}

#[cfg(test)]
mod tests {
    use super::super::{SI_MESGQ, current, register};
    use super::*;
    use crate::queue::try_send;
    use crate::sys::pid_namespace;

    /// Signals belong to the process: runs `test` in a child with all of them blocked. It returns the
    /// line number of what failed, or 0.
    fn in_child(test: fn() -> u32) {
        // SAFETY: glibc lets the child of a threaded process allocate; it takes no lock of the test
        // harness and ends in _exit.
        unsafe {
            let pid = libc::fork();
            assert!(pid >= 0);
            if pid == 0 {
                let mut all = core::mem::zeroed();
                libc::sigfillset(&mut all);
                libc::sigprocmask(libc::SIG_BLOCK, &all, core::ptr::null_mut());
                libc::_exit(test() as i32);
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

    const SIGNO: i32 = 40;

    /// A queue with a pipe for its FIFO.
    fn queue() -> (Map, i32) {
        let mut ends = [0; 2];
        // SAFETY: room for two descriptors; the mode of opening makes it one for both ways, as a FIFO.
        let fd = unsafe {
            assert_eq!(libc::pipe2(ends.as_mut_ptr(), libc::O_DIRECT), 0);
            let path = std::ffi::CString::new(format!("/proc/self/fd/{}", ends[0])).unwrap();
            libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC)
        };
        assert!(fd >= 0);
        let st = stat_fd(fd).unwrap();
        let mut map = Map::anonymous(4, 16);
        (map.fifo_ino, map.dev) = (st.st_ino, st.st_dev);
        (map, fd)
    }

    fn enroll(map: &Map, fd: i32) -> bool {
        let what = Registration { kind: libc::SIGEV_SIGNAL, signo: SIGNO, value: 17 };
        register(map, tls::ready().unwrap(), fd, what, pid_namespace(), true).is_ok()
    }

    fn is_asynchronous(fd: i32) -> bool {
        // SAFETY: no pointers.
        unsafe { libc::fcntl(fd, libc::F_GETFL) & libc::O_ASYNC != 0 }
    }

    /// Another process of the same user sends.
    fn sent_by_another(map: &Map, fd: i32) -> bool {
        // SAFETY: the child only sends; the message is a constant.
        unsafe {
            let pid = libc::fork();
            if pid == 0 {
                let sent = try_send(map, tls::ready().unwrap(), fd, b"x".as_ptr(), 1, 0);
                libc::_exit(i32::from(sent.is_err()));
            }
            let mut status = 0;
            libc::waitpid(pid, &mut status, 0) == pid && status == 0
        }
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
        in_child(|| {
            let (map, fd) = queue();
            expect!(enroll(&map, fd) && is_asynchronous(fd));
            exec_begins();
            expect!(!is_asynchronous(fd));
            expect!(owner_in_text(&map, fd) == getpid() as i32);
            expect!(sent_by_another(&map, fd));
            expect!(owner_in_text(&map, fd) == -1);
            expect!(pending() == 0);
            0
        });
    }

    #[test]
    fn a_failed_exec_changes_nothing() {
        in_child(|| {
            let (map, fd) = queue();
            expect!(enroll(&map, fd));
            exec_begins();
            exec_failed();
            expect!(is_asynchronous(fd));
            expect!(sent_by_another(&map, fd));
            expect!(pending() == SI_MESGQ);
            0
        });
    }

    #[test]
    fn a_child_that_calls_exec_ends_nothing_of_its_parent() {
        in_child(|| {
            let (map, fd) = queue();
            expect!(enroll(&map, fd));
            // SAFETY: the child makes no calls but ours.
            unsafe {
                let pid = libc::fork();
                if pid == 0 {
                    exec_begins();
                    libc::_exit(0);
                }
                let mut status = 0;
                expect!(libc::waitpid(pid, &mut status, 0) == pid);
            }
            expect!(is_asynchronous(fd));
            expect!(sent_by_another(&map, fd));
            expect!(pending() == SI_MESGQ);
            0
        });
    }

    #[test]
    fn what_moves_packets_is_no_notification() {
        in_child(|| {
            let (map, fd) = queue();
            expect!(enroll(&map, fd));
            // SAFETY: one byte of a constant.
            expect!(unsafe { libc::write(fd, b"x".as_ptr().cast(), 1) } == 1);
            expect!(pending() == 1);
            expect!(matches!(on_signal(SIGNO, fd), Meaning::Nothing));
            expect!(is_asynchronous(fd));
            expect!(matches!(on_signal(SIGNO + 1, fd), Meaning::Itself));
            expect!(matches!(on_signal(SIGNO, fd + 1), Meaning::Itself));
            closing(&map);
            expect!(!is_asynchronous(fd));
            expect!(matches!(on_signal(SIGNO, fd), Meaning::Itself));
            0
        });
    }
}
