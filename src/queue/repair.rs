//! After the owner of a queue's lock died inside: what is left in order, what is put in order.
//!
//! The states of slots and waiters are the truth; everything else is rebuilt from them. Whatever
//! instruction the dead thread had reached, its own operation has then happened wholly or not at
//! all:
//!
//! | died | left behind | afterwards |
//! |---|---|---|
//! | sending, before the slot is READY | FILLING | not sent; the slot is freed |
//! | sending, after | READY, counts stale | sent |
//! | handing over, before the wait word is 0 | TAKEN, waiter SERVED with its id in the word | not sent; the waiter is back in line |
//! | handing over, after | TAKEN, waiter SERVED, word 0 | received by the waiter, who is woken |
//! | receiving, before the slot is FREE or TAKEN | READY, ring stale | still in the queue |
//! | receiving, after | FREE or TAKEN | received; senders in line are let in |
//! | letting a sender in, word 0, slot FILLING | | the sender was told: its message is linked now |
//! | joining or leaving a line | record not in its line | by its state: in line, or free; the dead one's own is free |
//! | sending, the registration used up, before the slot is READY | F_FIRING, queue empty | not sent; the registration stands |
//! | the same, after, its owner not told | F_FIRING | sent; the next who comes tells the owner (`notify::catch_up`) |
//! | taking back from a stopped receiver | SERVED, word 0, slot not TAKEN by it | not sent; the receiver tries again |
//!
//! [`sweep`] also takes back what died outside the lock: messages being copied, waiters served but
//! never heard of again.

use core::mem::ManuallyDrop;
use core::sync::atomic::Ordering::{Relaxed, Release};

use super::store::{give_back, link_in_ring};
use super::tap;
use super::wait::{free_waiter, join_line, leave_line, let_sender_in, line_of};
use super::{After, Section};
use crate::abi::{Errno, Result};
use crate::shm::Map;
use crate::shm::layout::{
    F_ARMED, F_CORRUPT, F_FIRING, F_MIXED_PIDS, F_NOTIFY, F_TAPPED, FILLING, FREE, NONE, READY, TAKEN, TID_MASK,
    TOKENS_UNKNOWN, W_FREE, W_OUT, W_QUEUED, W_SERVED, WAITERS, WORD_OUT, WORD_UNARMED, Waiter,
};
use crate::shm::lock::is_gone;
use crate::sys::futex;
use crate::sys::tls::Tls;
use crate::syscall;

/// Rebuilds the queue. The lock is held.
///
/// # Errors
///
/// EIO: it cannot be rebuilt; the queue is marked and refuses every operation from now on.
#[cold]
#[inline(never)]
pub(super) fn repair(map: &Map, tls: &Tls) -> Result<()> {
    crate::crash_point!("lock.inherited");
    // The lock is the caller's, and stays so.
    let section = ManuallyDrop::new(Section { map, tls });
    let result = rebuild(&section);
    if result.is_err() {
        map.header().flags.fetch_or(F_CORRUPT, Relaxed);
    }
    // The dead one may not have come to wake those who tap.
    tap::look_again(map);
    result.map_err(|_| Errno::EIO)
}

fn rebuild(section: &Section<'_>) -> Result<()> {
    let map = section.map;
    let h = map.header();
    let foreign = h.flags.load(Relaxed) & F_MIXED_PIDS != 0;
    let high = h.high.load(Relaxed).min(map.slots());
    let waiter_high = h.waiter_high.load(Relaxed).min(WAITERS);
    h.high.store(high, Relaxed);
    h.waiter_high.store(waiter_high, Relaxed);

    // Waiters first: they say which slots are theirs. The dead owner may have been about to serve
    // one: its wait word tells whether it did.
    for index in 0..waiter_high {
        let w = map.waiter(index)?;
        if w.state.load(Relaxed) != W_SERVED {
            continue;
        }
        let receiver = w.kind.load(Relaxed) == 0;
        let word = w.word.load(Relaxed);
        if word != 0 {
            // Or about to send it out of the line, for it was on its way: then it does not sleep, and tries again.
            w.state.store(if word & WORD_OUT == WORD_OUT { W_OUT } else { W_QUEUED }, Relaxed);
            if receiver {
                let given = w.slot.swap(NONE, Relaxed);
                if let Ok(slot) = map.slot(given)
                    && slot.state.load(Relaxed) == TAKEN
                {
                    slot.state.store(FREE, Relaxed);
                }
            }
        } else if receiver && !is_given_to(map, w) {
            w.slot.store(NONE, Relaxed);
            w.word.store(w.tid.load(Relaxed) | WORD_OUT, Relaxed);
            w.state.store(W_OUT, Relaxed);
            futex::wake(&w.word, 1);
        }
    }

    crate::crash_point!("repair.waiters");

    // Slots.
    let mut newest = h.seq.load(Relaxed);
    let order = Scratch::new(high.max(waiter_high) as usize)?;
    let mut ready = 0;
    h.free.store(NONE, Relaxed);
    for index in (0..high).rev() {
        let slot = map.slot(index)?;
        match slot.state.load(Relaxed) {
            READY => {
                if slot.len.load(Relaxed) > map.msgsize {
                    return Err(Errno::EIO);
                }
                newest = newest.max(slot.seq.load(Relaxed));
                order.set(ready, slot.seq.load(Relaxed), index);
                ready += 1;
            }
            FILLING if !is_dead(slot.holder.load(Relaxed), foreign) => {}
            // Sent, if just now.
            TAKEN if !is_dead(slot.holder.load(Relaxed), foreign) => newest = newest.max(slot.seq.load(Relaxed)),
            _ => give_back(map, index, slot),
        }
    }
    crate::crash_point!("repair.slots");
    h.level0.store(0, Relaxed);
    h.level1.iter().for_each(|word| word.store(0, Relaxed));
    h.seq.store(newest, Relaxed);
    order.sort(ready);
    let mut bytes = 0;
    for at in 0..ready {
        let index = order.index(at);
        let slot = map.slot(index)?;
        link_in_ring(map, index, slot)?;
        bytes += slot.len.load(Relaxed) as u64;
    }
    h.curmsgs.store(ready as u32, Relaxed);
    h.qsize.store(bytes, Relaxed);

    crate::crash_point!("repair.rebuilt");

    // Lines.
    for line in [&h.receivers, &h.senders] {
        line.head.store(NONE, Relaxed);
        line.tail.store(NONE, Relaxed);
    }
    h.waiter_free.store(NONE, Relaxed);
    let mut queued = 0;
    for index in (0..waiter_high).rev() {
        let w = map.waiter(index)?;
        let word = w.word.load(Relaxed);
        // The dead owner may have been a waiter on its way in or out.
        let dead = w.state.load(Relaxed) != W_FREE && waiter_is_dead(w, foreign);
        match w.state.load(Relaxed) {
            W_QUEUED if !dead && foreign && word & WORD_UNARMED != 0 => {
                // It or another one: the living try again.
                w.word.store(word & TID_MASK | WORD_OUT, Relaxed);
                w.state.store(W_OUT, Relaxed);
            }
            W_QUEUED if !dead => {
                order.set(queued, w.ticket.load(Relaxed), index);
                queued += 1;
            }
            W_SERVED => {
                let slot = map.slot(w.slot.load(Relaxed));
                if w.kind.load(Relaxed) == 1
                    && let Ok(slot) = slot
                    && slot.state.load(Relaxed) == FILLING
                {
                    // Told that its message is in the queue: now it is.
                    let index = w.slot.load(Relaxed);
                    super::store::link(map, index, slot)?;
                    w.slot.store(NONE, Relaxed);
                    if h.flags.load(Relaxed) & F_TAPPED != 0 {
                        tap::record(map, index, slot);
                    }
                }
                if dead {
                    free_waiter(map, index, w);
                } else {
                    futex::wake(&w.word, 1);
                }
            }
            W_OUT if !dead => {}
            state => {
                if state == W_QUEUED || state == W_OUT {
                    free_staged(map, w);
                }
                free_waiter(map, index, w);
            }
        }
    }
    crate::crash_point!("repair.lines");
    order.sort(queued);
    for at in 0..queued {
        let index = order.index(at);
        let w = map.waiter(index)?;
        let line = if w.kind.load(Relaxed) == 1 { &h.senders } else { &h.receivers };
        join_line(map, line, index, w)?;
    }
    // The dead one may have made room, and not come to let the next sender in: nobody else would, before a message
    // is received. (Stopped ones among them are let in as well.)
    loop {
        let mut after = After::default();
        let_sender_in(section, &mut after)?;
        let Some(wake) = after.wake else { break };
        wake.wake_locked();
    }
    // Tokens in the FIFO are counted anew at the next chance.
    h.tokens.store(TOKENS_UNKNOWN, Release);
    let firer = h.firer.load(Relaxed);
    if h.flags.load(Relaxed) & F_FIRING != 0 && firer != 0 && is_dead(firer, foreign) {
        if ready == 0 && (foreign || firer & TID_MASK != 0) {
            // Its message did not get there (or its death would be marked): the registration stands. The flags first:
            // without them the word means nothing.
            h.flags.fetch_xor(F_FIRING | (!h.flags.load(Relaxed) & F_NOTIFY), Relaxed);
            h.firer.store(0, Relaxed);
        } else {
            // The next who looks tells its owner.
            h.firer.store(libc::FUTEX_OWNER_DIED, Relaxed);
        }
    }
    if h.curmsgs.load(Relaxed) > 0 {
        h.flags.fetch_or(F_ARMED, Relaxed);
    }
    // The dead one may not have come to tell those who poll either (`is_in_doubt`).
    h.teller.store(libc::FUTEX_OWNER_DIED, Relaxed);
    crate::crash_point!("repair.done");
    Ok(())
}

/// Whether a served receiver's message is (still) its own.
fn is_given_to(map: &Map, w: &Waiter) -> bool {
    map.slot(w.slot.load(Relaxed)).is_ok_and(|slot| {
        slot.state.load(Relaxed) == TAKEN && slot.holder.load(Relaxed) & TID_MASK == w.tid.load(Relaxed)
    })
}

fn free_staged(map: &Map, w: &Waiter) {
    if w.kind.load(Relaxed) == 1 {
        let index = w.slot.load(Relaxed);
        if let Ok(slot) = map.slot(index)
            && slot.state.load(Relaxed) == FILLING
        {
            give_back(map, index, slot);
        }
    }
}

/// Whether a holder word tells of a thread that is no more: the kernel's mark, or (where thread ids
/// mean something) nobody of that id.
pub(super) fn is_dead(holder: u32, foreign: bool) -> bool {
    holder & TID_MASK == 0 || (!foreign && is_gone(holder & TID_MASK))
}

/// The same for a waiter: its wait word may have the kernel's mark.
fn waiter_is_dead(w: &Waiter, foreign: bool) -> bool {
    is_marked(w.word.load(Relaxed)) || is_dead(w.tid.load(Relaxed), foreign)
}

/// Whether the kernel has marked a word as that of a dead one.
fn is_marked(word: u32) -> bool {
    word & TID_MASK == 0 && word != 0
}

/// Takes back slots and waiter records whose threads have died outside the lock; returns how many.
/// The lock is held. Called when something runs out. Which threads live is asked once a second at most: there may be
/// thousands, and as many who find nothing left. In between those are found that the kernel has marked.
///
/// # Errors
///
/// EIO: damaged.
#[cold]
pub(super) fn sweep(section: &Section<'_>) -> Result<u32> {
    let map = section.map;
    let h = map.header();
    let foreign = h.flags.load(Relaxed) & F_MIXED_PIDS != 0;
    let now = super::coarse_seconds() as u32;
    let asks = h.swept_sec.swap(now, Relaxed) != now;
    let mut freed = 0;
    for index in 0..h.waiter_high.load(Relaxed).min(WAITERS) {
        let w = map.waiter(index)?;
        let state = w.state.load(Relaxed);
        let is_dead = || if asks { waiter_is_dead(w, foreign) } else { is_marked(w.word.load(Relaxed)) };
        if matches!(state, W_QUEUED | W_SERVED | W_OUT) && is_dead() {
            if state == W_QUEUED {
                leave_line(map, line_of(map, w), w)?;
            }
            // A served receiver's slot is found below by its holder.
            if state != W_SERVED {
                free_staged(map, w);
            }
            free_waiter(map, index, w);
            freed += 1;
        }
    }
    for index in 0..h.high.load(Relaxed).min(map.slots()) {
        let slot = map.slot(index)?;
        if matches!(slot.state.load(Relaxed), FILLING | TAKEN)
            && (is_marked(slot.holder.load(Relaxed)) || asks && is_dead(slot.holder.load(Relaxed), foreign))
        {
            give_back(map, index, slot);
            freed += 1;
        }
    }
    Ok(freed)
}

/// Room to sort in, taken from the kernel: repair may run anywhere, so it does not allocate.
struct Scratch {
    at: *mut (u64, u32),
    bytes: usize,
}

impl Scratch {
    fn new(entries: usize) -> Result<Scratch> {
        let bytes = (entries.max(1) * size_of::<(u64, u32)>()).next_multiple_of(4096);
        // SAFETY: a fresh private mapping.
        let at = unsafe {
            syscall!(
                SYS_mmap,
                0,
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                usize::MAX,
                0
            )?
        };
        Ok(Scratch { at: at as *mut (u64, u32), bytes })
    }

    fn entries(&self) -> usize {
        self.bytes / size_of::<(u64, u32)>()
    }

    fn set(&self, at: usize, key: u64, index: u32) {
        if at < self.entries() {
            // SAFETY: inside the mapping, which is ours alone and aligned to a page.
            unsafe { self.at.add(at).write((key, index)) };
        }
    }

    fn index(&self, at: usize) -> u32 {
        if at < self.entries() {
            // SAFETY: as in `set`; the mapping began as zeros.
            unsafe { (*self.at.add(at)).1 }
        } else {
            NONE
        }
    }

    fn sort(&self, count: usize) {
        let count = count.min(self.entries());
        // SAFETY: the first `count` entries lie in the mapping; nobody else refers to them.
        let all = unsafe { core::slice::from_raw_parts_mut(self.at, count) };
        all.sort_unstable();
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // SAFETY: our own mapping, unused from here on.
        let _ = unsafe { syscall!(SYS_munmap, self.at, self.bytes) };
    }
}
