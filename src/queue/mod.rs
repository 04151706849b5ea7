//! The queue engine: what a message queue does, as operations on a mapped segment.
//!
//! Knows nothing of preloading, environment, names or namespaces. A descriptor is only the number
//! through which the queue's FIFO is reached, for pollers (`poll`) and for the registration of
//! mq_notify (`notify`).
//!
//! Lock order: the queue's lock is the innermost; nothing is taken inside it. Wakes and signals go
//! out after it is released.
//!
//! ```text
//! send      slot: FREE -> FILLING -> READY (in the queue) | TAKEN (a sleeping receiver's)
//! receive   slot: READY -> FREE, or for large messages READY -> TAKEN -> FREE
//! ```
//!
//! Async-signal-safe: no allocation, no libc call but clock_gettime(2); a handler that interrupts
//! a critical section is put off by `interpose::signal`.

pub mod look;
pub mod notify;
pub mod poll;
pub mod repair;
pub mod store;
pub mod tap;
pub mod wait;

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;

use crate::machine::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::abi::{Errno, Result};
use crate::shm::layout::{
    F_ARMED, F_CORRUPT, F_DEAD, F_FIRING, F_MIXED_PIDS, F_NOTIFY, F_POLLED, F_SLOW, F_TAPPED, NONE, READY, Slot, TAKEN,
};
use crate::shm::lock::{Held, lock};
use crate::shm::{Map, prefetch_for_write};
use crate::sys::fault;
use crate::sys::tls::Tls;
use store::{first, give_back, link, take_free, unlink_first};
pub use wait::Wait;
use wait::Wake;

/// Messages up to this many bytes are copied while the lock is held; longer ones outside, for the
/// price of taking it twice.
const COPY_LOCKED: u32 = 4096;

/// The queue lock, held; the queue is in order.
///
/// Two words, so that it travels in registers; the lock is the map's.
pub(crate) struct Section<'a> {
    map: &'a Map,
    tls: &'a Tls,
}

impl<'a> Section<'a> {
    /// The lock itself, to be released in another way than by dropping.
    fn into_held(self) -> Held<'a> {
        let held = Held::of(&self.map.header().lock, self.tls);
        core::mem::forget(self);
        held
    }
}

impl Drop for Section<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        drop(Held::of(&self.map.header().lock, self.tls));
    }
}

/// Takes the queue's lock, and repairs what a dead owner has left.
///
/// # Errors
///
/// EIO: the queue is damaged beyond repair, or was destroyed. EDEADLK: see `shm::lock`.
#[inline(always)]
pub(crate) fn enter<'a>(map: &'a Map, tls: &'a Tls) -> Result<Section<'a>> {
    let h = map.header();
    let foreign = || h.flags.load(Relaxed) & F_MIXED_PIDS != 0;
    let held = lock(&h.lock, tls, foreign, || repair::repair(map, tls))?;
    if h.flags.load(Relaxed) & (F_CORRUPT | F_DEAD) != 0 {
        drop(held);
        return Err(Errno::EIO);
    }
    core::mem::forget(held);
    Ok(Section { map, tls })
}

/// The wall clock's seconds, as cheap as the machine has them.
#[inline(always)]
pub(crate) fn coarse_seconds() -> u64 {
    crate::machine::clock(libc::CLOCK_REALTIME_COARSE).tv_sec as u64
}

/// What an operation leaves to do once the lock is released.
#[derive(Default)]
pub(crate) struct After<'a> {
    wake: Option<Wake<'a>>,
    fire: Option<notify::Fired>,
    tell: Option<poll::Tell>,
    tapped: Option<tap::Tapped>,
}

impl<'a> Section<'a> {
    /// Releases the lock, then wakes whom the operation served, tells those who poll, or delivers the notification
    /// that it has set off.
    #[inline(always)]
    fn finish(self, after: After<'a>, fd: i32) {
        let (map, tls) = (self.map, self.tls);
        let has_to_tell = after.tapped.is_some() || after.fire.as_ref().is_some_and(notify::Fired::is_for_others);
        if has_to_tell {
            // A handler might not come back, and those who tap sleep on, or the owner of a registration does.
            tls.enter_critical();
        }
        // A message that was put into the queue sets off one of them at most.
        match (after.wake, after.tell, after.fire) {
            (Some(wake), ..) => wake.release_and_wake(self, fd),
            (None, Some(tell), _) => self.tell(fd, tell),
            (None, None, Some(fired)) => fired.release_and_deliver(self, fd),
            (None, None, None) => drop(self),
        }
        if let Some(tapped) = after.tapped {
            tapped.tell(map, tls, fd);
        }
        if has_to_tell {
            tls.leave_critical();
        }
    }
}

/// Whether a queue that seems to be empty is so for certain, without a look under the lock: the count is right
/// unless its last owner died. (Somebody may be changing it just now; then it was so before.)
#[inline(always)]
fn is_as_it_seems(map: &Map) -> bool {
    let h = map.header();
    h.lock.load(Acquire) & libc::FUTEX_OWNER_DIED == 0 && h.flags.load(Relaxed) & (F_CORRUPT | F_DEAD) == 0
}

/// Whether somebody has died who was changing the queue, or about to tell those who poll or are registered for
/// notification: what is read without the lock need not be right then, until [`settle`] has put it right.
#[inline(always)]
pub fn is_in_doubt(map: &Map) -> bool {
    let h = map.header();
    (h.lock.load(Acquire) | h.teller.load(Relaxed) | h.firer.load(Relaxed)) & libc::FUTEX_OWNER_DIED != 0
}

/// Puts right what a dead one has left, and does what it did not come to do. `fd` is a descriptor of the queue.
#[cold]
#[inline(never)]
pub fn settle(map: &Map, fd: i32) {
    if let Ok(tls) = crate::sys::tls::ready()
        && let Ok(section) = enter(map, tls)
    {
        stand_in(&section, fd);
    }
}

/// Does what a dead one did not come to do once its change was made. Under the lock.
#[inline(always)]
fn stand_in(section: &Section<'_>, fd: i32) {
    if is_in_doubt(section.map) || section.map.header().flags.load(Relaxed) & F_FIRING != 0 {
        notify::stand_in(section, fd);
        poll::stand_in(section, fd);
    }
}

/// Sends, unless that would block.
///
/// `len` is at most `msgsize` and `priority` below MQ_PRIO_MAX.
///
/// # Errors
///
/// EAGAIN: the queue is full. EFAULT: `msg` cannot be read (found out before the queue's state is
/// looked at, as in the kernel). ENOMEM, ENOSPC: no memory for the message. EIO: damaged.
///
/// # Safety
///
/// `msg` is a user pointer: it may be anything, but must not point into memory that Rust code holds
/// references to.
#[inline(always)]
pub unsafe fn try_send(map: &Map, tls: &Tls, fd: i32, msg: *const u8, len: u32, priority: u32) -> Result<()> {
    if len > COPY_LOCKED {
        // SAFETY: the caller's contract.
        return unsafe { send_large(map, tls, fd, msg, len, priority) };
    }
    let h = map.header();
    let section = enter(map, tls)?;
    if h.curmsgs.load(Relaxed) >= map.maxmsg {
        catch_up(section, fd);
        // SAFETY: the caller's contract.
        unsafe { probe(msg, len as usize)? };
        return Err(Errno::EAGAIN);
    }
    // SAFETY: the caller's contract.
    let (index, slot) = unsafe { fill(&section, msg, len, priority)? };
    if h.receivers.head.load(Relaxed) == NONE && h.flags.load(Relaxed) & F_SLOW == 0 {
        // Nobody to wake, nobody to tell.
        h.used_sec.store(coarse_seconds(), Relaxed);
        return link(map, index, slot);
    }
    send_and_tell(section, fd, index, slot)
}

#[cold]
#[inline(never)]
fn send_and_tell(section: Section<'_>, fd: i32, index: u32, slot: &Slot) -> Result<()> {
    let after = commit_send(&section, fd, index, slot)?;
    section.finish(after, fd);
    Ok(())
}

/// A sender finds the queue full: if one before died before it had told those who poll, or whom it notifies, nobody else may
/// come to do it. Releases the lock.
#[cold]
#[inline(never)]
fn catch_up(section: Section<'_>, fd: i32) {
    stand_in(&section, fd);
    if section.map.header().flags.load(Relaxed) & (F_POLLED | F_ARMED) != 0 {
        poll::sync(&section, fd, false);
    }
}

/// Whether a message could be read: a byte of each page.
///
/// # Safety
///
/// As [`try_send`].
#[cold]
unsafe fn probe(msg: *const u8, len: usize) -> Result<()> {
    let mut at = 0;
    while at < len {
        // SAFETY: the caller's contract.
        unsafe { fault::read_user(msg.wrapping_add(at))? };
        at += 4096 - (msg as usize + at) % 4096;
    }
    Ok(())
}

/// Takes a slot and copies the message into it.
///
/// # Safety
///
/// As [`try_send`].
#[inline(always)]
unsafe fn fill<'a>(section: &Section<'a>, msg: *const u8, len: u32, priority: u32) -> Result<(u32, &'a Slot)> {
    let map = section.map;
    let tid = section.tls.tid.load(Relaxed);
    let (index, slot) = match take_free(map, len, tid) {
        Ok(taken) => taken,
        // Slots may be in the hands of the dead.
        Err(Errno::ENOMEM) if repair::sweep(section)? > 0 => take_free(map, len, tid)?,
        Err(errno) => return Err(errno),
    };
    // SAFETY: the destination is a slot of at least `len` bytes that is ours (FILLING).
    if let Err(fault) = unsafe { fault::copy(map.data(index)?, msg, len as usize) } {
        give_back(map, index, slot);
        return Err(blame(map, fault));
    }
    slot.len.store(len, Relaxed);
    slot.priority.store(priority, Relaxed);
    crate::crash_point!("send.filled");
    Ok((index, slot))
}

/// Hands a filled slot to a sleeping receiver, or puts it into the queue, which has room.
#[inline(always)]
fn commit_send<'a>(section: &Section<'a>, fd: i32, index: u32, slot: &'a Slot) -> Result<After<'a>> {
    let map = section.map;
    let h = map.header();
    h.used_sec.store(coarse_seconds(), Relaxed);
    let mut after = After::default();
    if h.receivers.head.load(Relaxed) != NONE {
        // "A receiver that waits gets the message, no notification" (mq_notify(3)). Numbered all the
        // same, for it may come back.
        let seq = h.seq.load(Relaxed).wrapping_add(1);
        slot.seq.store(seq, Relaxed);
        if let Some(wake) = wait::hand_over(section, index, slot)? {
            h.seq.store(seq, Relaxed);
            after.wake = Some(wake);
            if h.flags.load(Relaxed) & F_TAPPED != 0 {
                after.tapped = Some(tap::record(map, index, slot));
            }
            return Ok(after);
        }
    }
    let was_empty = h.curmsgs.load(Relaxed) == 0;
    let flags = h.flags.load(Relaxed);
    if flags & (F_NOTIFY | F_FIRING) != 0 {
        after.fire = fire(section, fd, slot, flags, was_empty)?;
    }
    link(map, index, slot)?;
    crate::crash_point!("send.committed");
    if flags & F_SLOW != 0 {
        if flags & (F_POLLED | F_ARMED) != 0 {
            tell_pollers(section, fd, &mut after);
        }
        if flags & F_TAPPED != 0 {
            after.tapped = Some(tap::record(map, index, slot));
        }
    }
    Ok(after)
}

/// A message is about to enter a queue that has a registration, or had one until just now.
///
/// Before it is in there, so that there is no message that uses up a registration without a trace if we die. (If we die before it is
/// in there, the owner is told of nothing.)
#[cold]
#[inline(never)]
fn fire(section: &Section<'_>, fd: i32, slot: &Slot, flags: u32, was_empty: bool) -> Result<Option<notify::Fired>> {
    // Nothing may fail once the registration is used up.
    store::make_room(section.map, slot)?;
    Ok(if flags & F_FIRING != 0 {
        notify::catch_up(section, fd)
    } else if was_empty {
        notify::take(section, fd)
    } else {
        None
    })
}

/// A message was put into a queue that somebody polls. If it has set off a notification, both reach a process that
/// has asked for both at once: poll(2) neither ends with EINTR, nor before the signal.
fn tell_pollers(section: &Section<'_>, fd: i32, after: &mut After<'_>) {
    match &mut after.fire {
        None => after.tell = poll::sent(section, fd),
        Some(fired) => {
            poll::sync(section, fd, true);
            fired.signal_poller(section, fd);
        }
    }
}

/// The same for messages that are copied outside the lock.
///
/// # Safety
///
/// As [`try_send`].
#[cold]
#[inline(never)]
unsafe fn send_large(map: &Map, tls: &Tls, fd: i32, msg: *const u8, len: u32, priority: u32) -> Result<()> {
    // SAFETY: the caller's contract.
    let (index, slot) = unsafe { stage_large(map, tls, fd, msg, len, priority, true)? };
    let section = enter(map, tls)?;
    if map.header().curmsgs.load(Relaxed) >= map.maxmsg {
        give_back(map, index, slot);
        return Err(Errno::EAGAIN);
    }
    let after = commit_send(&section, fd, index, slot)?;
    section.finish(after, fd);
    Ok(())
}

/// Copies a message into a slot of its own, outside the lock; it is not in the queue yet.
///
/// # Safety
///
/// As [`try_send`].
unsafe fn stage_large<'a>(
    map: &'a Map,
    tls: &Tls,
    fd: i32,
    msg: *const u8,
    len: u32,
    priority: u32,
    only_if_room: bool,
) -> Result<(u32, &'a Slot)> {
    let tid = tls.tid.load(Relaxed);
    let (index, slot) = {
        let section = enter(map, tls)?;
        if only_if_room && map.header().curmsgs.load(Relaxed) >= map.maxmsg {
            catch_up(section, fd);
            // SAFETY: the caller's contract.
            unsafe { probe(msg, len as usize)? };
            return Err(Errno::EAGAIN);
        }
        match take_free(map, len, tid) {
            Ok(taken) => taken,
            Err(Errno::ENOMEM) if repair::sweep(&section)? > 0 => take_free(map, len, tid)?,
            Err(errno) => return Err(errno),
        }
    };
    let data = map.data(index)?;
    // SAFETY: the destination is a slot of at least `len` bytes that is ours (FILLING).
    let copied = while_holding(tls, &slot.holder, || unsafe { fault::copy(data, msg, len as usize) });
    if let Err(fault) = copied {
        let _section = enter(map, tls)?;
        give_back(map, index, slot);
        return Err(blame(map, fault));
    }
    slot.len.store(len, Relaxed);
    slot.priority.store(priority, Relaxed);
    crate::crash_point!("send.filled");
    Ok((index, slot))
}

/// Runs `work` with the robust list's pending pointer at a word that holds the thread's id, so that the kernel
/// marks it if the thread dies meanwhile. Signal handlers may run: they restore the pointer.
fn while_holding<T>(tls: &Tls, word: &AtomicU32, work: impl FnOnce() -> T) -> T {
    let robust = tls.robust();
    let outer = robust.list_op_pending.load(Relaxed);
    let entry = (word.as_ptr() as usize).wrapping_sub(robust.futex_offset.load(Relaxed));
    robust.list_op_pending.store(entry, Relaxed);
    let result = work();
    robust.list_op_pending.store(outer, Relaxed);
    result
}

/// Where a received message goes.
#[derive(Clone, Copy)]
pub struct Buffer {
    /// At least `msgsize` bytes, says the caller's caller.
    pub data: *mut u8,
    /// Where the priority goes, or null.
    pub priority: *mut u32,
}

/// Receives the oldest message of the highest priority, unless that would block; returns its
/// length in bytes.
///
/// # Errors
///
/// EAGAIN: the queue is empty. EFAULT: `buffer` cannot be written; the message is gone, as in the
/// kernel. EIO: damaged.
///
/// # Safety
///
/// The pointers of `buffer` are user pointers: see [`try_send`].
#[inline(always)]
pub unsafe fn try_receive(map: &Map, tls: &Tls, fd: i32, buffer: Buffer) -> Result<usize> {
    let h = map.header();
    // The line is wanted for the lock: looking first would have it come twice from another CPU.
    prefetch_for_write(&h.lock);
    if h.curmsgs.load(Relaxed) == 0 && is_as_it_seems(map) {
        return Err(Errno::EAGAIN);
    }
    let section = enter(map, tls)?;
    if map.header().curmsgs.load(Relaxed) == 0 {
        return Err(Errno::EAGAIN);
    }
    // SAFETY: the caller's contract.
    unsafe { receive_first(section, fd, buffer) }
}

/// Takes the first message of a queue that is not empty; lets a sleeping sender in.
///
/// # Safety
///
/// As [`try_receive`].
#[inline(always)]
unsafe fn receive_first(section: Section<'_>, fd: i32, buffer: Buffer) -> Result<usize> {
    let (map, tls) = (section.map, section.tls);
    let (index, slot, priority) = first(map)?;
    let len = slot.len.load(Relaxed);
    if len > map.msgsize {
        return Err(Errno::EIO);
    }
    if len > COPY_LOCKED {
        unlink_first(map, index, slot)?;
        slot.holder.store(tls.tid.load(Relaxed), Relaxed);
        // Commit: the message is this thread's.
        slot.state.store(TAKEN, Release);
        crate::crash_point!("receive.taken");
        receive_and_tell(section, fd)?;
        // SAFETY: the caller's contract; the slot is ours.
        return unsafe { deliver_taken(map, tls, (index, slot), (len, priority), buffer) };
    }
    // SAFETY: the caller's contract; the slot has `len` bytes.
    let copied = unsafe { copy_out(map, index, len, priority, buffer) };
    crate::crash_point!("receive.copied");
    unlink_first(map, index, slot)?;
    crate::crash_point!("receive.unlinked");
    // Commit: the message is gone from the queue.
    give_back(map, index, slot);
    crate::crash_point!("receive.freed");
    let h = map.header();
    if h.senders.head.load(Relaxed) == NONE && h.flags.load(Relaxed) & (F_POLLED | F_ARMED | F_FIRING) == 0 {
        h.used_sec.store(coarse_seconds(), Relaxed);
        drop(section);
    } else {
        receive_and_tell(section, fd)?;
    }
    copied.map(|()| len as usize)
}

#[cold]
#[inline(never)]
fn receive_and_tell(section: Section<'_>, fd: i32) -> Result<()> {
    let mut after = After::default();
    after_receive(&section, fd, &mut after)?;
    section.finish(after, fd);
    Ok(())
}

/// What follows every removal: stamp, one sleeping sender's message in, pollers told.
#[inline(always)]
fn after_receive<'a>(section: &Section<'a>, fd: i32, after: &mut After<'a>) -> Result<()> {
    let h = section.map.header();
    h.used_sec.store(coarse_seconds(), Relaxed);
    if h.flags.load(Relaxed) & F_FIRING != 0 {
        notify::stand_in(section, fd);
    }
    let mut passed_on = false;
    if h.senders.head.load(Relaxed) != NONE {
        wait::let_sender_in(section, after)?;
        passed_on = after.wake.is_some();
    }
    if h.flags.load(Relaxed) & (F_POLLED | F_ARMED) != 0 {
        poll::sync(section, fd, !passed_on);
    }
    Ok(())
}

/// Copies priority, then message, to the user; the kernel's order, which a bad pointer shows.
///
/// # Safety
///
/// As [`try_receive`].
#[inline(always)]
unsafe fn copy_out(map: &Map, index: u32, len: u32, priority: u32, buffer: Buffer) -> Result<()> {
    if !buffer.priority.is_null() {
        // SAFETY: the caller's contract.
        unsafe { fault::write_user(buffer.priority, priority)? };
    }
    // SAFETY: the caller's contract; `len` is at most the slot's size.
    unsafe { fault::copy(buffer.data, map.data(index)?, len as usize).map_err(|fault| blame(map, fault)) }
}

/// Why a copy has failed: the caller's memory, unless the segment has been cut short (`shm::gone`).
#[cold]
fn blame(map: &Map, fault: fault::Fault) -> Errno {
    if map.header().flags.load(Relaxed) & F_CORRUPT != 0 { Errno::EIO } else { fault.into() }
}

/// Delivers a message whose slot is TAKEN by this thread, outside the lock, and frees the slot.
///
/// # Safety
///
/// As [`try_receive`].
#[cold]
unsafe fn deliver_taken(
    map: &Map,
    tls: &Tls,
    (index, slot): (u32, &Slot),
    (len, priority): (u32, u32),
    buffer: Buffer,
) -> Result<usize> {
    // SAFETY: the caller's contract.
    let copied = while_holding(tls, &slot.holder, || unsafe { copy_out(map, index, len, priority, buffer) });
    crate::crash_point!("receive.delivered");
    let section = enter(map, tls)?;
    give_back(map, index, slot);
    drop(section);
    copied.map(|()| len as usize)
}

/// `mq_curmsgs`, as of now.
pub fn curmsgs(map: &Map) -> u32 {
    map.header().curmsgs.load(Relaxed).min(map.maxmsg)
}

/// Calls `see` with index and slot of each message, in no order; nothing changes. The caller has the lock.
pub fn ready_slots(map: &Map, mut see: impl FnMut(u32, &Slot)) {
    let high = map.header().high.load(Relaxed).min(map.slots());
    for index in 0..high {
        if let Ok(slot) = map.slot(index)
            && slot.state.load(Relaxed) == READY
        {
            see(index, slot);
        }
    }
}
