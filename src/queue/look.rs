//! Looking into a queue without changing it, for those who want to see what is in it and who sleeps on it.

use core::sync::atomic::Ordering::Relaxed;

use super::{Section, enter, notify, ready_slots};
use crate::abi::{Errno, MQ_PRIO_MAX, Result};
use crate::look::{Message, Sleeper, State};
use crate::shm::Map;
use crate::shm::layout::{F_MIXED_PIDS, NONE, READY, TID_MASK, WAITERS};
use crate::sys::fault;
use crate::sys::tls::Tls;

/// The queue's state, and its sleepers in the order in which they will be served, as far as `sleepers` has room.
///
/// # Errors
///
/// EIO: damaged.
pub fn state(map: &Map, tls: &Tls, fd: i32, sleepers: &mut [Sleeper]) -> Result<State> {
    let registered = notify::current(map, tls, fd)?;
    let (notify, signo, notify_pid) = registered.map_or((0, 0, -1), |(what, pid)| (what.kind, what.signo, pid));
    let _section = enter(map, tls)?;
    let h = map.header();
    let is_mixed = h.flags.load(Relaxed) & F_MIXED_PIDS != 0;
    let mut counts = [0; 2];
    let mut room = sleepers.iter_mut();
    for (sends, line) in [&h.receivers, &h.senders].into_iter().enumerate() {
        let mut at = line.head.load(Relaxed);
        for _ in 0..WAITERS {
            if at == NONE {
                break;
            }
            let waiter = map.waiter(at)?;
            at = waiter.next.load(Relaxed);
            let tid = waiter.word.load(Relaxed) & TID_MASK;
            if tid == 0 {
                // It has died, and nobody has needed its place yet.
                continue;
            }
            counts[sends] += 1;
            if let Some(sleeper) = room.next() {
                *sleeper = Sleeper { tid: if is_mixed { 0 } else { tid }, sends: sends as u32 };
            }
        }
    }
    Ok(State {
        bytes: h.qsize.load(Relaxed),
        created: h.created_sec.load(Relaxed),
        used: h.used_sec.load(Relaxed),
        sent: h.seq.load(Relaxed).wrapping_sub(h.retracted.load(Relaxed)),
        messages: super::curmsgs(map),
        receivers: counts[0],
        senders: counts[1],
        notify,
        signo,
        notify_pid,
    })
}

/// All messages of one moment, in no order, as far as `to` has room. Returns how many there are.
///
/// # Errors
///
/// EIO: damaged.
pub fn messages(map: &Map, tls: &Tls, to: &mut [Message]) -> Result<usize> {
    Ok(messages_locked(&enter(map, tls)?, to))
}

/// The same, under the lock.
pub(super) fn messages_locked(section: &Section<'_>, to: &mut [Message]) -> usize {
    let map = section.map;
    let mut count = 0;
    ready_slots(map, |index, slot| {
        if let Some(message) = to.get_mut(count) {
            *message = Message {
                number: slot.seq.load(Relaxed),
                slot: index,
                len: slot.len.load(Relaxed).min(map.msgsize),
                priority: slot.priority.load(Relaxed) & (MQ_PRIO_MAX - 1),
            };
        }
        count += 1;
    });
    count
}

/// Copies a message that [`messages`] has told of. Returns its length.
///
/// Nobody waits for that: it is copied without the lock, and looked for afterwards, under the lock. If it is in the
/// queue still, it was there all the time (a number is never given twice), and nobody writes to a message that is
/// in the queue: the copy is whole.
///
/// # Errors
///
/// ENOENT: it is not in the queue any more. EFAULT. EIO: damaged.
///
/// # Safety
///
/// `to` is a user pointer, see [`super::try_receive`].
pub unsafe fn message(map: &Map, tls: &Tls, message: Message, to: *mut u8) -> Result<usize> {
    let len = message.len.min(map.msgsize) as usize;
    let slot = map.slot(message.slot)?;
    // SAFETY: the caller's contract; a slot has room for `msgsize` bytes.
    unsafe { fault::copy(to, map.data(message.slot)?, len)? };
    let _section = enter(map, tls)?;
    if slot.state.load(Relaxed) == READY && slot.seq.load(Relaxed) == message.number {
        Ok(len)
    } else {
        Err(Errno::ENOENT)
    }
}
