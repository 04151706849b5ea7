//! Message storage of one queue: slots, free list, priority order.
//!
//! Used under the queue lock by the rest of `queue`; knows nothing of waiters, descriptors or
//! names. Highest priority first, oldest first within a priority, both in constant time: a bitmap
//! of three levels finds the priority, a ring of slots holds its messages.
//!
//! A slot's `state` is the truth; rings, bitmaps, free list and counters can be rebuilt from the
//! slots (`queue::repair`). The store to `state` is the commit point of each operation.
//!
//! Async-signal-safe: no allocation; system calls only where a slot or group is used for the first
//! time.

use core::sync::atomic::Ordering::{Relaxed, Release};

use crate::abi::{Errno, MQ_PRIO_MAX, Result};
use crate::shm::Map;
use crate::shm::layout::{FILLING, FREE, NONE, READY, Slot};

/// Takes a slot out of the free list, for `len` bytes by thread `tid`; it is FILLING then.
///
/// # Errors
///
/// ENOSPC, ENOMEM: no slot left, or no memory for it. EIO: the segment is damaged.
#[inline(always)]
pub fn take_free(map: &Map, len: u32, tid: u32) -> Result<(u32, &Slot)> {
    let h = map.header();
    let head = h.free.load(Relaxed);
    let (index, slot) = if head != NONE {
        let slot = map.slot(head)?;
        if slot.state.load(Relaxed) != FREE {
            return Err(Errno::EIO);
        }
        map.commit_data(slot, head, len)?;
        h.free.store(slot.next.load(Relaxed), Relaxed);
        (head, slot)
    } else {
        take_untouched(map, len)?
    };
    slot.holder.store(tid, Relaxed);
    slot.state.store(FILLING, Relaxed);
    Ok((index, slot))
}

#[cold]
fn take_untouched(map: &Map, len: u32) -> Result<(u32, &Slot)> {
    let h = map.header();
    let index = h.high.load(Relaxed);
    if index >= map.slots() {
        return Err(Errno::ENOMEM);
    }
    map.commit_slot(index)?;
    let slot = map.slot(index)?;
    map.commit_data(slot, index, len)?;
    h.high.store(index + 1, Relaxed);
    Ok((index, slot))
}

/// Gives a slot that is in no ring back.
#[inline(always)]
pub fn give_back(map: &Map, index: u32, slot: &Slot) {
    let h = map.header();
    slot.state.store(FREE, Release);
    slot.next.store(h.free.load(Relaxed), Relaxed);
    h.free.store(index, Relaxed);
}

/// Makes a filled slot the youngest message of its priority.
///
/// # Errors
///
/// ENOSPC, ENOMEM: no memory for the index. EIO: the segment is damaged.
#[inline(always)]
pub fn link(map: &Map, index: u32, slot: &Slot) -> Result<()> {
    let h = map.header();
    let seq = h.seq.load(Relaxed).wrapping_add(1);
    slot.seq.store(seq, Relaxed);
    link_in_ring(map, index, slot)?;
    crate::crash_point!("send.linked");
    // Commit: from here on the message is in the queue, whatever happens to the sender.
    slot.state.store(READY, Release);
    crate::crash_point!("send.ready");
    // Afterwards, so that it is the number of messages sent whoever dies where: repair finds it by the slots.
    h.seq.store(h.seq.load(Relaxed).wrapping_add(1), Relaxed);
    h.curmsgs.store(h.curmsgs.load(Relaxed).wrapping_add(1), Relaxed);
    h.qsize.store(h.qsize.load(Relaxed).wrapping_add(slot.len.load(Relaxed) as u64), Relaxed);
    Ok(())
}

/// Takes the memory that [`link`] may want for a message of this priority.
///
/// # Errors
///
/// ENOMEM, ENOSPC: there is none.
pub fn make_room(map: &Map, slot: &Slot) -> Result<()> {
    map.commit_group((slot.priority.load(Relaxed) & (MQ_PRIO_MAX - 1)) >> 6)
}

/// The part of [`link`] that repair needs as well.
#[inline(always)]
pub fn link_in_ring(map: &Map, index: u32, slot: &Slot) -> Result<()> {
    let h = map.header();
    let priority = slot.priority.load(Relaxed) & (MQ_PRIO_MAX - 1);
    let (g, bit) = (priority >> 6, priority & 63);
    let word = &h.level1[(g >> 6) as usize & 7];
    let group = map.group(g);
    if word.load(Relaxed) >> (g & 63) & 1 == 0 {
        map.commit_group(g)?;
        group.bits.store(0, Relaxed);
    }
    let bits = group.bits.load(Relaxed);
    let tail = &group.tails[bit as usize];
    if bits >> bit & 1 == 0 {
        slot.next.store(index, Relaxed);
        tail.store(index, Relaxed);
        group.bits.store(bits | 1 << bit, Relaxed);
        word.store(word.load(Relaxed) | 1 << (g & 63), Relaxed);
        h.level0.store(h.level0.load(Relaxed) | 1 << (g >> 6), Relaxed);
    } else {
        let last = map.slot(tail.load(Relaxed))?;
        slot.next.store(last.next.load(Relaxed), Relaxed);
        last.next.store(index, Relaxed);
        tail.store(index, Relaxed);
    }
    Ok(())
}

/// The oldest message of the highest priority, and that, which the slot need not say any more when it is asked again;
/// the queue is not empty.
///
/// # Errors
///
/// EIO: the segment is damaged.
#[inline(always)]
pub fn first(map: &Map) -> Result<(u32, &Slot, u32)> {
    let h = map.header();
    let level0 = h.level0.load(Relaxed) & 0xff;
    if level0 == 0 {
        return Err(Errno::EIO);
    }
    let top = 31 - level0.leading_zeros();
    let level1 = h.level1[top as usize & 7].load(Relaxed);
    if level1 == 0 {
        return Err(Errno::EIO);
    }
    let g = top << 6 | (63 - level1.leading_zeros());
    let group = map.group(g);
    let bits = group.bits.load(Relaxed);
    if bits == 0 {
        return Err(Errno::EIO);
    }
    let bit = 63 - bits.leading_zeros();
    let last = map.slot(group.tails[bit as usize & 63].load(Relaxed))?;
    let index = last.next.load(Relaxed);
    let slot = map.slot(index)?;
    let priority = g << 6 | bit;
    if slot.state.load(Relaxed) != READY || slot.priority.load(Relaxed) != priority {
        return Err(Errno::EIO);
    }
    Ok((index, slot, priority))
}

/// Takes the [`first`] message, slot `index`, out of its ring and the counts; `state` is to be
/// changed by the caller, before or after.
///
/// # Errors
///
/// EIO: the segment is damaged.
#[inline(always)]
pub fn unlink_first(map: &Map, index: u32, slot: &Slot) -> Result<()> {
    let h = map.header();
    let priority = slot.priority.load(Relaxed) & (MQ_PRIO_MAX - 1);
    let (g, bit) = (priority >> 6, priority & 63);
    let group = map.group(g);
    let tail = group.tails[bit as usize].load(Relaxed);
    if tail == index {
        let bits = group.bits.load(Relaxed) & !(1 << bit);
        group.bits.store(bits, Relaxed);
        if bits == 0 {
            let word = &h.level1[(g >> 6) as usize & 7];
            let left = word.load(Relaxed) & !(1 << (g & 63));
            word.store(left, Relaxed);
            if left == 0 {
                h.level0.store(h.level0.load(Relaxed) & !(1 << (g >> 6)), Relaxed);
            }
        }
    } else {
        map.slot(tail)?.next.store(slot.next.load(Relaxed), Relaxed);
    }
    h.curmsgs.store(h.curmsgs.load(Relaxed).wrapping_sub(1), Relaxed);
    h.qsize.store(h.qsize.load(Relaxed).wrapping_sub(slot.len.load(Relaxed) as u64), Relaxed);
    Ok(())
}

/// Puts a message that was taken off, but could not be delivered, back to where it was: in front
/// of the younger ones of its priority.
///
/// # Errors
///
/// EIO: the segment is damaged.
pub fn restore(map: &Map, index: u32, slot: &Slot) -> Result<()> {
    let h = map.header();
    let priority = slot.priority.load(Relaxed) & (MQ_PRIO_MAX - 1);
    let (g, bit) = (priority >> 6, priority & 63);
    let bits_set = h.level1[(g >> 6) as usize & 7].load(Relaxed) >> (g & 63) & 1 == 1
        && map.group(g).bits.load(Relaxed) >> bit & 1 == 1;
    if !bits_set {
        link_in_ring(map, index, slot)?;
    } else {
        // Walk from the oldest to the first younger one. Short: only messages handed out at about
        // the same time can be older than this one.
        let tail = map.group(g).tails[bit as usize].load(Relaxed);
        let seq = slot.seq.load(Relaxed);
        let mut before = tail;
        let mut steps = 0;
        loop {
            let next = map.slot(before)?.next.load(Relaxed);
            if map.slot(next)?.seq.load(Relaxed) > seq {
                break;
            }
            before = next;
            if before == tail {
                break;
            }
            steps += 1;
            if steps > map.slots() {
                return Err(Errno::EIO);
            }
        }
        let prior = map.slot(before)?;
        let after = prior.next.load(Relaxed);
        let older_than_all = map.slot(after)?.seq.load(Relaxed) > seq;
        slot.next.store(after, Relaxed);
        prior.next.store(index, Relaxed);
        if before == tail && !older_than_all {
            map.group(g).tails[bit as usize].store(index, Relaxed);
        }
    }
    slot.state.store(READY, Release);
    h.curmsgs.store(h.curmsgs.load(Relaxed).wrapping_add(1), Relaxed);
    h.qsize.store(h.qsize.load(Relaxed).wrapping_add(slot.len.load(Relaxed) as u64), Relaxed);
    Ok(())
}

/// Takes a message that was linked as number `seq` out of its ring again, from wherever it is;
/// false if it isn't there any more. Its state is to be changed by the caller.
pub fn unlink_ready(map: &Map, index: u32, slot: &Slot, seq: u64) -> bool {
    if slot.state.load(Relaxed) != READY || slot.seq.load(Relaxed) != seq {
        return false;
    }
    let priority = slot.priority.load(Relaxed) & (MQ_PRIO_MAX - 1);
    let tail = &map.group(priority >> 6).tails[(priority & 63) as usize];
    // Find the one before it in the ring.
    let mut before = index;
    for _ in 0..map.slots() {
        let Ok(at) = map.slot(before) else { return false };
        let next = at.next.load(Relaxed);
        if next == index {
            break;
        }
        before = next;
    }
    let Ok(prior) = map.slot(before) else { return false };
    if prior.next.load(Relaxed) != index {
        return false;
    }
    if before != index && tail.load(Relaxed) == index {
        // Make it the oldest, so that the common code applies.
        tail.store(before, Relaxed);
    }
    if before == index {
        return unlink_first(map, index, slot).is_ok();
    }
    prior.next.store(slot.next.load(Relaxed), Relaxed);
    let h = map.header();
    h.curmsgs.store(h.curmsgs.load(Relaxed).wrapping_sub(1), Relaxed);
    h.qsize.store(h.qsize.load(Relaxed).wrapping_sub(slot.len.load(Relaxed) as u64), Relaxed);
    true
}
