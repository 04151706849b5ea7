//! mq_notify(3): one registration a queue.
//!
//! The record in the segment counts only while its owner holds a POSIX record lock on the FIFO, at
//! a byte that nobody else locks ([`LOCK_BASE`] + `Notify::lock`). The kernel keeps that lock by the very
//! rule it has for notifications: one process, not inherited by fork, released when the process
//! closes any descriptor of the queue or dies, kept over exec if every descriptor survives.
//!
//! A process that registers again and again after each signal keeps its lock meanwhile, and knows that it does
//! ([`own`]): neither the lock nor its holder is asked for again.
//!
//! A signal goes out by rt_sigqueueinfo(2) after the lock is released. Where the sender may not signal the
//! owner, or cannot name it, the kernel is made to do it: see [`bell`]. If the sender dies before, its message is in the
//! queue and the registration used up; whoever uses the queue next tells the owner in its place ([`catch_up`]).

pub mod bell;
mod own;

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use super::{Section, enter};
use crate::abi::{Errno, Result};
use crate::shm::Map;
use crate::shm::layout::{F_FIRING, F_MIXED_PIDS, F_NOTIFY, FIRED};
use crate::sys::{futex, getpid, path::Path, tls::Tls};
use crate::syscall;

pub use own::{Meaning, any, exec_begins, exec_failed, on_signal, other_closed, settle, wants_bell};

/// Where the record locks of registrations begin; locks of the program itself are kept below.
pub const LOCK_BASE: i64 = 1 << 62;
/// How many there are: what follows is `crate::offset`'s. Counting never gets that far; the last one is for those who
/// tap.
pub(super) const LOCKS: u64 = 1 << 61;
/// `si_code` of a notification (asm-generic/siginfo.h).
pub const SI_MESGQ: i32 = -3;
/// `Notify::state`: the registration has a bell.
const HAS_BELL: u32 = 1;
/// `Notify::state`: the owner has called exec since it registered; the new image gets no signal.
const EXECED: u32 = 2;

/// What to do when the registration fires.
#[derive(Clone, Copy)]
pub struct Registration {
    /// SIGEV_SIGNAL, SIGEV_NONE or SIGEV_THREAD.
    pub kind: i32,
    /// For SIGEV_SIGNAL; 0 sends nothing.
    pub signo: i32,
    /// `sigev_value`.
    pub value: u64,
}

/// A registration that has just been consumed by a message.
pub(crate) struct Fired {
    what: Registration,
    lock: u64,
    pid_ns: u64,
    proc_dev: u32,
    /// The owner's process id as we see it, if that has been found out already.
    owner: Option<i32>,
    /// [`register`]'s.
    ticket: u64,
    /// The owner is the calling process.
    to_self: bool,
    /// The signal is the bell's.
    by_bell: bool,
    /// The signal has been sent, or there shall be none.
    done: bool,
    /// [`Header::firer`](crate::shm::layout::Header::firer) while it is this thread's to tell; marked as if that were dead
    /// where it tells under the lock.
    firer: u32,
}

pub(super) fn flock(number: u64, kind: i32) -> libc::flock {
    // SAFETY: plain integers; zero is valid for all of them.
    let mut lock: libc::flock = unsafe { core::mem::zeroed() };
    lock.l_type = kind as i16;
    lock.l_whence = libc::SEEK_SET as i16;
    lock.l_start = LOCK_BASE + (number % LOCKS) as i64;
    lock.l_len = 1;
    lock
}

/// Process id of whoever holds record lock `number` (0: somebody whom this pid namespace does not show), or
/// `None`.
fn holder(fd: i32, number: u64) -> Option<i32> {
    // An open-file-description query conflicts with the locks of every process, the caller's
    // included.
    let mut lock = flock(number, libc::F_WRLCK);
    // SAFETY: the structure is a local of the right type.
    match unsafe { syscall!(SYS_fcntl, fd, libc::F_OFD_GETLK, &raw mut lock) } {
        Ok(_) if lock.l_type != libc::F_UNLCK as i16 => Some(lock.l_pid),
        _ => None,
    }
}

/// Registers the calling process. Returns the ticket, which a SIGEV_THREAD helper waits with.
/// `foreign`: there may be senders who cannot signal this process.
///
/// # Errors
///
/// EBUSY: a process is registered (mq_notify(3)). ENOLCK and the like from fcntl(2). EIO: damaged.
pub fn register(map: &Map, tls: &Tls, fd: i32, what: Registration, pid_ns: u64, foreign: bool) -> Result<u64> {
    let section = enter(map, tls)?;
    let h = map.header();
    let n = &h.notify;
    if h.flags.load(Relaxed) & F_NOTIFY != 0 {
        if holder(fd, n.lock.load(Relaxed)).is_some() {
            return Err(Errno::EBUSY);
        }
        forget(&section);
    }
    let pid = getpid();
    if h.flags.load(Relaxed) & F_FIRING != 0 {
        // The one before may have fired without anybody having been told (who registers again needs not be). What is
        // noted of it goes: whoever is about to tell knows it.
        if n.pid.load(Relaxed) != pid {
            stand_in(&section, fd);
        }
        if n.kind.load(Relaxed) == libc::SIGEV_THREAD {
            // Before the ticket is another one: its helper thread is to see that it is not over without that.
            mark_told(map, n.ticket.load(Relaxed));
        }
        h.firer.store(0, Relaxed);
        h.flags.fetch_and(!F_FIRING, Relaxed);
    }
    let ticket = n.ticket.load(Relaxed).wrapping_add(1);
    // First: whoever is killed in the middle of this has the byte locked until it has quite gone, and its number must
    // not be the next one's.
    n.ticket.store(ticket, Relaxed);
    let lock = match own::lock_kept(map) {
        Some(kept) if kept.pid == pid => kept,
        _ => take_lock(&section, fd, ticket, pid)?,
    };
    crate::crash_point!("notify.locked");
    n.lock.store(lock.number, Relaxed);
    n.kind.store(what.kind, Relaxed);
    n.signo.store(what.signo, Relaxed);
    n.value.store(what.value, Relaxed);
    n.pid.store(pid, Relaxed);
    n.pid_ns.store(pid_ns, Relaxed);
    if what.kind == libc::SIGEV_SIGNAL {
        n.proc_dev.store(proc_dev(), Relaxed);
    }
    let has_bell = own::entered(&section, what, ticket, lock, foreign);
    n.state.store(if has_bell { HAS_BELL } else { 0 }, Relaxed);
    h.touched_sec.store(super::coarse_seconds(), Relaxed);
    crate::crash_point!("notify.recorded");
    h.flags.fetch_or(F_NOTIFY, Relaxed);
    crate::crash_point!("notify.registered");
    Ok(ticket)
}

/// The registration, if it is live, and its owner's process id as the caller sees it (0: cannot).
///
/// # Errors
///
/// EIO: damaged.
pub fn current(map: &Map, tls: &Tls, fd: i32) -> Result<Option<(Registration, i32)>> {
    let h = map.header();
    if h.flags.load(Relaxed) & F_NOTIFY == 0 {
        return Ok(None);
    }
    let _section = enter(map, tls)?;
    let n = &h.notify;
    if h.flags.load(Relaxed) & F_NOTIFY == 0 {
        return Ok(None);
    }
    let what = Registration { kind: n.kind.load(Relaxed), signo: n.signo.load(Relaxed), value: n.value.load(Relaxed) };
    Ok(holder(fd, n.lock.load(Relaxed)).map(|pid| (what, pid)))
}

/// Removes the calling process's registration, if it has one (mq_notify with a null pointer).
///
/// # Errors
///
/// EIO: damaged.
pub fn unregister(map: &Map, tls: &Tls, fd: i32) -> Result<()> {
    let section = enter(map, tls)?;
    super::stand_in(&section, fd);
    let h = map.header();
    if h.flags.load(Relaxed) & F_NOTIFY != 0 && h.notify.pid.load(Relaxed) == getpid() {
        // A process of another pid namespace may have the same id: then the lock is not ours, and
        // dropping ours leaves it.
        drop_locks(&section, fd);
        crate::crash_point!("notify.unlocked");
        if holder(fd, h.notify.lock.load(Relaxed)).is_none() {
            forget(&section);
            own::removed(&section);
            h.touched_sec.store(super::coarse_seconds(), Relaxed);
        }
    }
    Ok(())
}

/// This process has closed a descriptor of the queue, which ends its registration ("by closing any
/// descriptor": the record lock is gone already).
pub fn closed(map: &Map, tls: &Tls) {
    if any() {
        own::closed(map, tls);
    }
    let h = map.header();
    if h.notify.pid.load(Relaxed) != getpid() || h.notify.pid_ns.load(Relaxed) != crate::sys::pid_namespace() {
        return;
    }
    if let Ok(section) = enter(map, tls)
        && h.flags.load(Relaxed) & F_NOTIFY != 0
        && h.notify.pid.load(Relaxed) == getpid()
    {
        forget(&section);
    }
}

/// What has become of a registration with SIGEV_THREAD, for its helper thread.
#[derive(PartialEq, Eq)]
pub enum Fate {
    /// Nothing yet: sleep while the word holds this.
    Waits(u32),
    /// A message has come.
    Fired,
    /// It was removed.
    Over,
}

/// See [`Fate`]. `ticket` is what [`register`] returned.
pub fn fate(map: &Map, ticket: u64) -> Fate {
    let h = map.header();
    let n = &h.notify;
    let word = n.word.load(Acquire);
    // It is marked as fired before it is over: the other way round, both could come in between. Used up and not told of is
    // neither: its message may not come in, if its sender dies.
    let is_over = h.flags.load(Acquire) & (F_NOTIFY | F_FIRING) == 0 || n.ticket.load(Acquire) != ticket;
    if fired(map, ticket).is_some() {
        return Fate::Fired;
    }
    if is_over { Fate::Over } else { Fate::Waits(word) }
}

/// Marks a registration as fired, for an owner with a bell to see. `sender`: process id, and uid in the upper half.
fn mark_fired(map: &Map, ticket: u64, sender: u64) {
    let mark = &map.header().notify.fired[(ticket % FIRED as u64) as usize];
    if mark.ticket.load(Relaxed) == ticket && mark.sender.load(Relaxed) == sender {
        // By one who has died since; its owner may be looking at it.
        return;
    }
    // A reader that meets the next registration but `FIRED` here takes neither.
    mark.ticket.store(0, Release);
    mark.sender.store(sender, Release);
    mark.ticket.store(ticket, Release);
}

/// The same for its helper thread, which need not know whose message it is, and may be told by several at a time.
fn mark_told(map: &Map, ticket: u64) {
    map.header().notify.fired[(ticket % FIRED as u64) as usize].ticket.store(ticket, Release);
}

/// Whether a registration has been marked as fired: the sender.
fn fired(map: &Map, ticket: u64) -> Option<u64> {
    let mark = &map.header().notify.fired[(ticket % FIRED as u64) as usize];
    if mark.ticket.load(Acquire) != ticket {
        return None;
    }
    let sender = mark.sender.load(Acquire);
    (mark.ticket.load(Relaxed) == ticket).then_some(sender)
}

/// A record lock of this process.
#[derive(Clone, Copy)]
struct Lock {
    /// Which byte.
    number: u64,
    /// The process.
    pid: u32,
    /// [`own::closes`] when it was taken; `u64::MAX` if closes were not counted yet.
    closes: u64,
}

/// Takes record lock `number`, and drops whatever an earlier registration of this process has left.
fn take_lock(section: &Section<'_>, fd: i32, number: u64, pid: u32) -> Result<Lock> {
    drop_locks(section, fd);
    // First: a close from now on is one that may take it away.
    let closes = if own::any() { own::closes() } else { u64::MAX };
    let mut lock = flock(number, libc::F_WRLCK);
    // SAFETY: as in `holder`.
    unsafe { syscall!(SYS_fcntl, fd, libc::F_SETLK, &raw mut lock)? };
    Ok(Lock { number, pid, closes })
}

fn drop_locks(section: &Section<'_>, fd: i32) {
    own::lock_dropped(section.map);
    let mut lock = flock(0, libc::F_UNLCK);
    lock.l_len = LOCKS as i64;
    // SAFETY: as in `holder`.
    let _ = unsafe { syscall!(SYS_fcntl, fd, libc::F_SETLK, &raw mut lock) };
}

/// Ends the registration; its helper thread, if any, wakes and sees that it is over.
fn forget(section: &Section<'_>) {
    let h = section.map.header();
    h.flags.fetch_and(!F_NOTIFY, Relaxed);
    h.notify.word.fetch_add(1, AcqRel);
    if h.notify.kind.load(Relaxed) == libc::SIGEV_THREAD {
        futex::wake(&h.notify.word, u32::MAX >> 1);
    }
}

/// A registration may have fired, and whoever was about to tell its owner have died: tells it. Under the lock.
#[cold]
pub(super) fn stand_in(section: &Section<'_>, fd: i32) {
    let h = section.map.header();
    if h.flags.load(Relaxed) & F_FIRING == 0 {
        // Nothing to tell, whatever stands there.
        h.firer.store(0, Relaxed);
    } else if let Some(mut fired) = catch_up(section, fd) {
        // If we die as well it is the next one's.
        fired.firer = libc::FUTEX_OWNER_DIED;
        h.firer.store(fired.firer, Relaxed);
        fired.deliver_locked(section, fd);
    }
}

/// A message is about to come into an empty queue that nobody is waiting at: the registration is used up.
#[cold]
#[inline(never)]
pub(super) fn take(section: &Section<'_>, fd: i32) -> Option<Fired> {
    let h = section.map.header();
    let fired = about_to_fire(section, fd);
    // Used up, and to be told of, at one blow.
    h.firer.store(fired.firer, Relaxed);
    h.flags.fetch_xor(F_NOTIFY | (!h.flags.load(Relaxed) & F_FIRING), Release);
    crate::crash_point!("notify.fired");
    Some(fired)
}

/// A registration has fired ([`F_FIRING`]; then there is no other one yet): if whoever was about to tell its owner has died, that is the caller's task.
#[cold]
#[inline(never)]
pub(super) fn catch_up(section: &Section<'_>, fd: i32) -> Option<Fired> {
    let h = section.map.header();
    let firer = h.firer.load(Acquire);
    if firer == 0 {
        // Told, but for the flag.
        h.flags.fetch_and(!F_FIRING, Relaxed);
        return None;
    }
    if !super::repair::is_dead(firer, h.flags.load(Relaxed) & F_MIXED_PIDS != 0) {
        return None;
    }
    let fired = about_to_fire(section, fd);
    h.firer.store(fired.firer, Relaxed);
    Some(fired)
}

/// The registration in the segment, for the caller to tell its owner of.
fn about_to_fire(section: &Section<'_>, fd: i32) -> Fired {
    let n = &section.map.header().notify;
    let ticket = n.ticket.load(Relaxed);
    let mut fired = Fired {
        what: Registration { kind: n.kind.load(Relaxed), signo: n.signo.load(Relaxed), value: n.value.load(Relaxed) },
        lock: n.lock.load(Relaxed),
        pid_ns: n.pid_ns.load(Relaxed),
        proc_dev: n.proc_dev.load(Relaxed),
        owner: None,
        ticket,
        to_self: false,
        by_bell: false,
        done: false,
        firer: match section.map.header().flags.load(Relaxed) & F_MIXED_PIDS {
            0 => section.tls.tid.load(Relaxed),
            // Nobody could find out that we are dead: told under the lock, slow as that is; if we die, by the next one.
            _ => libc::FUTEX_OWNER_DIED,
        },
    };
    let state = n.state.load(Relaxed);
    match fired.what.kind {
        libc::SIGEV_THREAD => {}
        libc::SIGEV_SIGNAL if fired.what.signo > 0 && state & EXECED == 0 => {
            if own::any()
                && let Some(kept) = own::lock_kept(section.map)
                && kept.number == fired.lock
                && kept.pid == getpid()
            {
                fired.owner = Some(kept.pid as i32);
                fired.to_self = true;
            }
            if state & HAS_BELL != 0 && !fired.to_self {
                fired.owner = holder(fd, fired.lock);
                fired.done = fired.owner.is_none();
                fired.by_bell = fired.owner.is_some_and(|owner| !can_signal(owner));
                if fired.by_bell {
                    mark_fired(section.map, ticket, fired.sender());
                }
            }
        }
        _ => fired.done = true,
    }
    fired
}

/// Whether the caller may signal process `pid` (0: one that it cannot name).
fn can_signal(pid: i32) -> bool {
    // SAFETY: signal 0 only asks.
    pid > 0 && unsafe { syscall!(SYS_kill, pid, 0) }.is_ok()
}

/// Device number of `/proc`, if it shows the process ids of the caller's own namespace, else 0. Looked up
/// once a process.
fn proc_dev() -> u32 {
    static KNOWN: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
    let generation = crate::sys::tls::generation();
    if KNOWN[0].load(Acquire) != generation {
        let own = crate::sys::namespace_inode(c"/proc/self") == u64::from(getpid());
        KNOWN[1].store(if own { dev_of_proc().into() } else { 0 }, Relaxed);
        KNOWN[0].store(generation, Release);
    }
    KNOWN[1].load(Relaxed) as u32
}

fn dev_of_proc() -> u32 {
    Path::new(&[b"/proc"]).and_then(|path| path.stat()).map_or(0, |st| st.st_dev as u32)
}

/// The calling process's id in the pid namespace whose `/proc` has device number `dev`, if that is the one
/// we see as well: an outer namespace of ours. Otherwise 0, as of a process that the owner cannot see.
#[cold]
fn outer_pid(dev: u32) -> u32 {
    const KEY: &[u8] = b"\nNSpid:\t";
    if dev == 0 || dev != dev_of_proc() {
        return 0;
    }
    let mut text = [0u8; 4096];
    // SAFETY: the path is NUL-terminated, the buffer as long as said.
    let got = unsafe {
        let open =
            syscall!(SYS_openat, libc::AT_FDCWD, c"/proc/self/status".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        let Ok(fd) = open else { return 0 };
        let got = syscall!(SYS_read, fd, text.as_mut_ptr(), text.len()).unwrap_or(0);
        let _ = syscall!(SYS_close, fd);
        got
    };
    // From the namespace of `/proc` inwards (proc(5)).
    let text = &text[..got];
    let Some(at) = text.windows(KEY.len()).position(|window| window == KEY) else { return 0 };
    let digits = text[at + KEY.len()..].iter().take_while(|b| b.is_ascii_digit());
    digits.fold(0u32, |n, b| n.wrapping_mul(10).wrapping_add(u32::from(b - b'0')))
}

/// The beginning of `siginfo_t` as the kernel fills it in for SI_MESGQ.
#[repr(C)]
struct Siginfo {
    signo: i32,
    errno: i32,
    code: i32,
    pad: i32,
    pid: u32,
    uid: u32,
    value: u64,
    rest: [u64; 12],
}
const _: () = assert!(size_of::<Siginfo>() == 128);

impl Fired {
    /// Whether there is somebody to be told in our place, should we die before: our own process would die with us.
    pub(super) fn is_for_others(&self) -> bool {
        !self.to_self
    }

    /// Releases the lock and tells the owner. Signal handlers are put off, if it is for others.
    #[cold]
    pub(super) fn release_and_deliver(mut self, section: Section<'_>, fd: i32) {
        if self.firer == libc::FUTEX_OWNER_DIED {
            return self.deliver_locked(&section, fd);
        }
        let (map, tls) = (section.map, section.tls);
        if !self.is_for_others() {
            map.header().firer.store(0, Relaxed);
            map.header().flags.fetch_and(!F_FIRING, Relaxed);
            drop(section);
            return self.tell(map, fd);
        }
        // Without a gap in which the kernel would not mark our death.
        let outer = section.into_held().release_towards(&map.header().firer);
        crate::crash_point!("firer.unlocked");
        self.tell(map, fd);
        self.told(map);
        tls.robust().list_op_pending.store(outer, Relaxed);
    }

    /// The same under the lock.
    fn deliver_locked(mut self, section: &Section<'_>, fd: i32) {
        self.tell(section.map, fd);
        self.told(section.map);
        section.map.header().flags.fetch_and(!F_FIRING, Relaxed);
    }

    fn tell(&mut self, map: &Map, fd: i32) {
        self.signal(map, fd);
        if self.what.kind == libc::SIGEV_THREAD {
            let n = &map.header().notify;
            mark_told(map, self.ticket);
            crate::crash_point!("notify.marked");
            n.word.fetch_add(1, AcqRel);
            futex::wake(&n.word, u32::MAX >> 1);
            crate::crash_point!("notify.signalled");
        }
    }

    /// The flag stays where this is not under the lock, for by now it may be another registration's: the next who looks
    /// takes it away ([`catch_up`]).
    fn told(&self, map: &Map) {
        let _ = map.header().firer.compare_exchange(self.firer, 0, Release, Relaxed);
    }

    /// Pollers have been told of the message, under the lock. An owner that is one of them must not return
    /// from poll(2) without the signal: it comes under the same lock, for which such an owner waits
    /// ([`settle`]).
    #[cold]
    pub(super) fn signal_poller(&mut self, section: &Section<'_>, fd: i32) {
        self.signal(section.map, fd);
    }

    /// The calling process, as it stands in si_pid, and its real uid in the upper half.
    fn sender(&self) -> u64 {
        // SAFETY: no pointers.
        let uid = unsafe { syscall!(SYS_getuid) }.unwrap_or(0) as u64;
        let pid = match self.owner {
            Some(own) if self.to_self => own as u32,
            _ if self.pid_ns == crate::sys::pid_namespace() => getpid(),
            _ => outer_pid(self.proc_dev),
        };
        u64::from(pid) | uid << 32
    }

    fn signal(&mut self, map: &Map, fd: i32) {
        if self.done || self.what.kind != libc::SIGEV_SIGNAL {
            return;
        }
        self.done = true;
        if self.by_bell {
            return bell::ring(map);
        }
        // The record lock names its holder as we see it; one that we cannot see we cannot signal.
        let Some(owner @ 1..) = self.owner.or_else(|| holder(fd, self.lock)) else { return };
        let sender = self.sender();
        let info = Siginfo {
            signo: self.what.signo,
            errno: 0,
            code: SI_MESGQ,
            pad: 0,
            pid: sender as u32,
            uid: (sender >> 32) as u32,
            value: self.what.value,
            rest: [0; 12],
        };
        // SAFETY: the structure is a local of the size of siginfo_t.
        let _ = unsafe { syscall!(SYS_rt_sigqueueinfo, owner, self.what.signo, &raw const info) };
        crate::crash_point!("notify.signalled");
    }
}
