//! Taps: those who see what is sent, and take nothing away.
//!
//! Nobody taps as a rule, and then nobody pays: [`F_TAPPED`] is one of the flags that the fast paths look at anyway.
//! While it is set, whoever sends, and whoever lets a sleeping sender in, copies the message, once it is sent, into a
//! ring in the segment, and wakes those who tap after the unlock. The ring's memory is taken as it is used, and given
//! back when nobody taps any more.
//!
//! Nobody waits for those who tap: the oldest records make room for the new. A reader copies a record without the
//! lock, and looks afterwards whether it was whole: `Taps::tail` moves on before anything is overwritten. All
//! messages are numbered, so that it knows how many it has missed. Those count as missed, too, whose sender has died
//! between sending and recording, and those for which there was no memory.
//!
//! Who taps holds a lock on the FIFO, at a byte of its own, shared with the others; its open file description keeps
//! it, so that it goes with the process. Whoever finds nobody asleep now and then looks whether anybody is left.
//!
//! A sender that dies after it has recorded a message, before it wakes those who tap: they are woken by the next
//! operation (if it died inside its section), or the next message.

use crate::machine::atomic::AtomicU32;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::fence;

use super::notify::{self, LOCKS};
use super::{Section, enter, look};
use crate::abi::{Errno, MQ_PRIO_MAX, Result};
use crate::look::{Message, Tap, TapEvent, TappedMessage};
use crate::shm::Map;
use crate::shm::layout::{F_CORRUPT, F_DEAD, F_TAPPED, F_UNLINKED, RECORD_UNIT, Slot, record_size};
use crate::sys::fault;
use crate::sys::futex;
use crate::sys::tls::Tls;
use crate::syscall;

/// The byte of those who tap, among the locks of `notify`.
const LOCK: u64 = LOCKS - 1;
/// With every so many messages that wake nobody a sender looks whether anybody taps still.
const LOOK_EVERY: u64 = 16;
/// Times that a record was overwritten while it was copied before a reader lets go of all of them.
const PATIENCE: u32 = 8;

/// A message has been recorded: those who tap are to be woken once the lock is released.
pub(super) struct Tapped {
    number: u64,
}

/// Records a message that has just been sent, under the lock. If there is no memory for it, it is one that was missed.
#[cold]
#[inline(never)]
pub(super) fn record(map: &Map, index: u32, slot: &Slot) -> Tapped {
    let taps = &map.header().taps;
    let number = slot.seq.load(Relaxed);
    if write(map, index, slot, number).is_ok() {
        taps.word.fetch_add(1, Release);
    }
    Tapped { number }
}

fn write(map: &Map, index: u32, slot: &Slot, number: u64) -> Result<()> {
    let taps = &map.header().taps;
    let len = slot.len.load(Relaxed).min(map.msgsize);
    let size = record_size(len);
    let head = position(taps.head.load(Relaxed));
    let mut tail = position(taps.tail.load(Relaxed));
    loop {
        let used = head.wrapping_sub(tail);
        if used > map.ring_len {
            // Nothing that we have written.
            tail = head;
        } else if used + size <= map.ring_len {
            break;
        } else {
            tail = tail.wrapping_add(record_size(map.record(tail).len.load(Relaxed).min(map.msgsize)));
        }
    }
    map.commit_ring(head, size)?;
    taps.tail.store(tail, Relaxed);
    // SYNC: tap_overwrite. Whoever sees anything of what follows sees the tail, too.
    fence(Release);
    let record = map.record(head);
    record.number.store(number, Relaxed);
    record.time_ns.store(now_ns(), Relaxed);
    record.len.store(len, Relaxed);
    record.priority.store(slot.priority.load(Relaxed), Relaxed);
    let mut from = map.data(index)?;
    for (to, bytes) in map.ring(content(head), len) {
        // SAFETY: both lie in the segment; a slot has room for `msgsize` bytes.
        unsafe { fault::copy(to, from, bytes)? };
        from = from.wrapping_add(bytes);
    }
    // SYNC: tap_record.
    taps.head.store(head.wrapping_add(size), Release);
    Ok(())
}

/// Positions are multiples of the unit, whatever shared memory says.
fn position(word: u64) -> u64 {
    word / RECORD_UNIT * RECORD_UNIT
}

/// Where the message of a record begins.
fn content(position: u64) -> u64 {
    position.wrapping_add(size_of::<crate::shm::layout::Record>() as u64)
}

fn now_ns() -> u64 {
    let now = crate::machine::clock(libc::CLOCK_REALTIME);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

impl Tapped {
    /// After the unlock: wakes those who tap; if there seems to be nobody, makes sure of that now and then.
    #[cold]
    #[inline(never)]
    pub(super) fn tell(self, map: &Map, tls: &Tls, fd: i32) {
        let woken = futex::wake(&map.header().taps.word, EVERYBODY);
        if woken == 0
            && self.number.is_multiple_of(LOOK_EVERY)
            && !anybody(fd)
            && let Ok(section) = enter(map, tls)
        {
            end_if_last(&section, fd);
        }
    }
}

const EVERYBODY: u32 = u32::MAX >> 1;

/// Has those who tap look at the queue.
pub fn look_again(map: &Map) {
    if map.header().flags.load(Acquire) & F_TAPPED != 0 {
        wake(map);
    }
}

/// Has everybody who is in [`next`] look at what has changed.
pub fn wake(map: &Map) {
    let word = &map.header().taps.word;
    word.fetch_add(1, AcqRel);
    futex::wake(word, EVERYBODY);
}

/// Whether anybody taps, as far as that can be asked.
fn anybody(fd: i32) -> bool {
    let mut lock = notify::flock(LOCK, libc::F_WRLCK);
    // SAFETY: the structure is a local of the right type.
    let asked = unsafe { syscall!(SYS_fcntl, fd, libc::F_OFD_GETLK, &raw mut lock) };
    asked.is_err() || lock.l_type != libc::F_UNLCK as i16
}

fn end_if_last(section: &Section<'_>, fd: i32) {
    let map = section.map;
    if !anybody(fd) && map.header().flags.fetch_and(!F_TAPPED, Relaxed) & F_TAPPED != 0 {
        map.release_ring();
    }
}

/// Begins to tap: all messages from now on are recorded. `fd` refers to a description of the caller's own, open for
/// reading. Fills in the messages that are there now, in no order, as far as `to` has room; how many there are.
///
/// # Errors
///
/// EIO: damaged. ENOLCK and the like from fcntl(2).
pub fn start(map: &Map, tls: &Tls, fd: i32, to: &mut [Message]) -> Result<(Tap, usize)> {
    set_lock(fd, libc::F_RDLCK)?;
    let section = enter(map, tls)?;
    let h = map.header();
    if h.flags.load(Relaxed) & F_TAPPED == 0 {
        h.taps.tail.store(0, Relaxed);
        h.taps.head.store(0, Relaxed);
        h.taps.committed.store(0, Relaxed);
        h.flags.fetch_or(F_TAPPED, Relaxed);
    }
    let tap = Tap {
        fd,
        seen_unlinked: 0,
        at: position(h.taps.head.load(Relaxed)),
        next: h.seq.load(Relaxed).wrapping_add(1),
    };
    Ok((tap, look::messages_locked(&section, to)))
}

fn set_lock(fd: i32, kind: i32) -> Result<()> {
    let mut lock = notify::flock(LOCK, kind);
    // SAFETY: the structure is a local of the right type.
    unsafe { syscall!(SYS_fcntl, fd, libc::F_OFD_SETLK, &raw mut lock) }.map(|_| ())
}

/// Waits for what comes next. `stop` is looked at whenever the caller is woken ([`wake`]): 1, nothing more is going to
/// be sent; 2, nothing more is wanted.
///
/// # Errors
///
/// EFAULT: `to`. EIO: damaged.
///
/// # Safety
///
/// `to` is a user pointer, see [`super::try_receive`].
pub unsafe fn next(
    map: &Map,
    tap: &mut Tap,
    stop: &AtomicU32,
    message: &mut TappedMessage,
    to: *mut u8,
) -> Result<TapEvent> {
    let h = map.header();
    loop {
        let seen = h.taps.word.load(Acquire);
        let stopped = stop.load(Acquire);
        if stopped == 2 {
            return Ok(TapEvent::Over);
        }
        // SAFETY: the caller's contract.
        if unsafe { read(map, tap, message, to)? } {
            return Ok(TapEvent::Message);
        }
        if stopped == 1 {
            return Ok(TapEvent::Over);
        }
        let flags = h.flags.load(Acquire);
        if flags & (F_CORRUPT | F_DEAD) != 0 {
            return Err(Errno::EIO);
        }
        if flags & F_UNLINKED != 0 && tap.seen_unlinked == 0 {
            tap.seen_unlinked = 1;
            return Ok(TapEvent::Unlinked);
        }
        // However it ends, we look again.
        let _ = futex::wait_for(&h.taps.word, seen, u64::MAX);
    }
}

/// The next record, if there is one.
///
/// # Safety
///
/// As [`next`].
unsafe fn read(map: &Map, tap: &mut Tap, message: &mut TappedMessage, to: *mut u8) -> Result<bool> {
    let taps = &map.header().taps;
    for _ in 0..PATIENCE {
        // SYNC: tap_record.
        let head = position(taps.head.load(Acquire));
        if tap.at == head {
            return Ok(false);
        }
        let unread = head.wrapping_sub(tap.at);
        if unread <= map.ring_len {
            let record = map.record(tap.at);
            let len = record.len.load(Relaxed).min(map.msgsize);
            let (number, time_ns) = (record.number.load(Relaxed), record.time_ns.load(Relaxed));
            let priority = record.priority.load(Relaxed) & (MQ_PRIO_MAX - 1);
            let mut to = to;
            for (from, bytes) in map.ring(content(tap.at), len) {
                // SAFETY: the caller's contract; the source lies in the segment.
                unsafe { fault::copy(to, from, bytes)? };
                to = to.wrapping_add(bytes);
            }
            // SYNC: tap_overwrite.
            fence(Acquire);
            let tail = position(taps.tail.load(Relaxed));
            if tap.at.wrapping_sub(tail) <= map.ring_len && record_size(len) <= unread {
                let missed = number.wrapping_sub(tap.next);
                *message = TappedMessage {
                    number,
                    time_ns,
                    missed: if missed > u64::MAX / 2 { 0 } else { missed },
                    len,
                    priority,
                };
                tap.next = number.wrapping_add(1);
                tap.at = tap.at.wrapping_add(record_size(len));
                return Ok(true);
            }
        }
        // Overwritten: on with the oldest that is there.
        tap.at = position(taps.tail.load(Acquire));
    }
    tap.at = position(taps.head.load(Acquire));
    Ok(false)
}

/// Ends tapping; how many messages were missed that no record tells of.
///
/// # Errors
///
/// EIO: damaged.
pub fn end(map: &Map, tls: &Tls, tap: &Tap) -> Result<u64> {
    let _ = set_lock(tap.fd, libc::F_UNLCK);
    let section = enter(map, tls)?;
    let h = map.header();
    let sent = h.seq.load(Relaxed).wrapping_add(1).wrapping_sub(tap.next);
    let is_at_end = tap.at == position(h.taps.head.load(Relaxed));
    end_if_last(&section, tap.fd);
    Ok(if is_at_end && sent <= u64::MAX / 2 { sent } else { 0 })
}

/// Waits until nobody else has the queue open. `fd` is a description for reading alone (and so are those of all who
/// tap): the kernel says when the FIFO has no writer left.
pub fn wait_until_alone(fd: i32) {
    let mut one = libc::pollfd { fd, events: 0, revents: 0 };
    while one.revents == 0 {
        // SAFETY: one structure, a local; no time, no signals.
        if unsafe { syscall!(SYS_ppoll, &raw mut one, 1, 0, 0, 8) }.is_err_and(|errno| errno != Errno::EINTR) {
            return;
        }
    }
}
