//! Blocked senders and receivers: the line, the hand-over, the sleep.
//!
//! Whoever can complete a sleeper's call does it for the sleeper, under the lock: a sender gives
//! its message to the first receiver in line, a receiver puts the first sender's message into the
//! queue. So nobody who comes later overtakes, and a sleeper that dies takes nothing with it that
//! another one needs:
//!
//! * While it waits, a sleeper's `list_op_pending` points at its own wait word, which holds its
//!   thread id; the kernel takes the id out if the thread dies. Serving is a compare-exchange on
//!   that word, so the dead are never served.
//! * While that pointer has to be elsewhere (at the lock, on the way in and out) the word says so, and
//!   whoever meets the sleeper in line sends it out of it, to try again.
//! * A sleeper that was stopped (SIGSTOP) is found out when the wake finds nobody asleep: it is then
//!   taken out of the line and its message goes elsewhere.
//! * A signal handler first takes its thread out of the line ([`handler_begins`]), and gives back all that the call
//!   has in the segment, for it may never return there (siglongjmp(3)). A restarted call begins anew, at the end of the
//!   line, as in the kernel.

use super::store::{give_back, link, restore, unlink_ready};
use super::{After, Buffer, COPY_LOCKED, Section, commit_send, deliver_taken, enter, fill, poll, receive_first};
use crate::abi::{Errno, MQ_PRIO_MAX, Result};
use crate::machine::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::machine::atomic::{AtomicI64, AtomicU32, AtomicUsize};
use crate::machine::{cpu, patience};
use crate::shm::Map;
use crate::shm::layout::{
    F_ARMED, F_FIRING, F_MIXED_PIDS, F_NOTIFY, F_POLLED, F_TAPPED, FILLING, Line, NONE, Slot, TAKEN, TID_MASK, W_FREE,
    W_OUT, W_QUEUED, W_SERVED, WORD_ASLEEP, WORD_OUT, WORD_UNARMED, Waiter,
};
use crate::shm::lock::task_state;
use crate::sys::futex::{self, Timespec};
use crate::sys::tls::Tls;
use crate::syscall;

/// Result of a sleep that the kernel would have begun anew: its thread was stopped and continued, or
/// woken by a signal without a handler. The same in `cshim/`.
const RESTARTED: i32 = -512;

/// A blocked call. Lives in the frame of `cshim/` that sleeps; the first four fields are read there.
#[repr(C)]
pub struct Wait {
    /// The word to sleep on.
    pub word: *const AtomicU32,
    /// Sleep only while the word holds this.
    pub expected: u32,
    /// Nonzero: until `deadline` at most.
    pub timed: u32,
    /// CLOCK_REALTIME, absolute.
    pub deadline: Timespec,
    map: *const Map,
    /// Its record, or [`NONE`]: a handler has run, or it has just ended. Changed by this thread alone, in its handlers too.
    waiter: AtomicU32,
    sender: u32,
    fd: i32,
    /// A handler without SA_RESTART has run: the call ends with EINTR unless it was served before.
    interrupted: AtomicU32,
    /// Where a message goes; of a sender (`data` alone) where it is.
    buffer: Buffer,
    /// Of a sender: bytes and priority of its message.
    len: u32,
    priority: u32,
    /// It was served, and has its message, since before a handler ran: the result. Else [`OPEN`].
    result: AtomicI64,
    /// `Tls::waiter` of the blocked call that this one's signal handler has interrupted.
    outer: AtomicUsize,
    outer_pending: usize,
}

/// `Wait::result`: none yet.
const OPEN: i64 = i64::MIN;

/// What a step of a blocking call has come to.
pub enum Step {
    /// The call is over: bytes received, or 0.
    Done(usize),
    /// Sleep on the [`Wait`]'s word, then call [`resume`].
    Sleep,
}

/// Somebody was served and may be asleep.
pub(crate) struct Wake<'a> {
    waiter: &'a Waiter,
    index: u32,
    ticket: u64,
    /// The message that was let in for a sender: its slot and `Slot::seq`.
    slot: u32,
    seq: u64,
    tid: u32,
    asleep: bool,
}

impl Wake<'_> {
    /// Releases the lock and wakes; if nobody was asleep there, finds out why.
    #[cold]
    pub(crate) fn release_and_wake(self, section: Section<'_>, fd: i32) {
        let (map, tls) = (section.map, section.tls);
        if !self.asleep {
            return;
        }
        if map.header().flags.load(Relaxed) & F_MIXED_PIDS != 0 {
            // Nobody could find out that the lock's owner is dead, so its death must not be missed:
            // wake under the lock, slow as that is.
            return self.wake_locked();
        }
        let outer = section.into_held().release_towards(&self.waiter.word);
        crate::crash_point!("wake.unlocked");
        let woken = futex::wake(&self.waiter.word, 1);
        tls.robust().list_op_pending.store(outer, Relaxed);
        if woken == 0 {
            self.unresponsive(map, tls, fd);
        }
    }

    /// Wakes while the lock is held.
    pub(super) fn wake_locked(self) {
        futex::wake(&self.waiter.word, 1);
    }

    /// The served waiter said that it sleeps, and does not: it is on its way in or out (then it
    /// will see that it was served), stopped, or dead. In the last two cases the service is undone.
    #[cold]
    fn unresponsive(self, map: &Map, tls: &Tls, fd: i32) {
        if map.header().flags.load(Relaxed) & F_MIXED_PIDS != 0 {
            return;
        }
        let stopped = match task_state(self.tid) {
            None | Some(b'Z' | b'X' | b'x') => false,
            Some(b'T' | b't') => true,
            Some(_) => return,
        };
        let Ok(section) = enter(map, tls) else { return };
        let w = self.waiter;
        if w.state.load(Relaxed) != W_SERVED || w.ticket.load(Relaxed) != self.ticket {
            return;
        }
        let sender = w.kind.load(Relaxed) == 1;
        let index = if sender { self.slot } else { w.slot.load(Relaxed) };
        let Ok(slot) = map.slot(index) else { return };
        if sender {
            if stopped && unlink_ready(map, index, slot, self.seq) {
                slot.holder.store(self.tid, Relaxed);
                w.slot.store(index, Relaxed);
                slot.state.store(FILLING, Release);
                w.state.store(W_OUT, Relaxed);
                let retracted = &map.header().retracted;
                retracted.store(retracted.load(Relaxed).wrapping_add(1), Relaxed);
            } else if stopped {
                return;
            }
        } else {
            // Ours again: if we die in here, so does the message, which is not sent yet.
            slot.holder.store(tls.tid.load(Relaxed), Relaxed);
            slot.state.store(FILLING, Release);
            w.slot.store(NONE, Relaxed);
            w.state.store(W_OUT, Relaxed);
        }
        if stopped {
            w.word.store(self.tid | WORD_OUT, Release);
        } else {
            free_waiter(map, self.index, w);
        }
        let mut after = After::default();
        if sender {
            let _ = let_sender_in(&section, &mut after);
            if map.header().flags.load(Relaxed) & (F_POLLED | F_ARMED) != 0 {
                poll::sync(&section, fd, true);
            }
        } else {
            // As old as it was: others may have been queued meanwhile.
            let _ = put_back(&section, fd, index, slot, &mut after);
        }
        section.finish(after, fd);
    }
}

/// Takes a waiter out of the line.
pub(super) fn leave_line(map: &Map, line: &Line, w: &Waiter) -> Result<()> {
    let (prev, next) = (w.prev.load(Relaxed), w.next.load(Relaxed));
    if prev == NONE { &line.head } else { &map.waiter(prev)?.next }.store(next, Relaxed);
    if next == NONE { &line.tail } else { &map.waiter(next)?.prev }.store(prev, Relaxed);
    Ok(())
}

/// Puts a waiter behind all that are of the same or a better rank ("highest priority process that
/// has been waiting the longest", mq_send(3)).
pub(super) fn join_line(map: &Map, line: &Line, index: u32, w: &Waiter) -> Result<()> {
    let mut prev = line.tail.load(Relaxed);
    // Whoever is alone in the line needs no rank, and has asked for none.
    let rank = if prev == NONE { 0 } else { rank_of(map, w) };
    let mut next = NONE;
    let mut steps = 0;
    while prev != NONE && rank_of(map, map.waiter(prev)?) > rank {
        next = prev;
        prev = map.waiter(prev)?.prev.load(Relaxed);
        steps += 1;
        if steps > crate::shm::layout::WAITERS {
            return Err(Errno::EIO);
        }
    }
    w.prev.store(prev, Relaxed);
    w.next.store(next, Relaxed);
    if prev == NONE { &line.head } else { &map.waiter(prev)?.next }.store(index, Relaxed);
    if next == NONE { &line.tail } else { &map.waiter(next)?.prev }.store(index, Relaxed);
    w.state.store(W_QUEUED, Relaxed);
    Ok(())
}

/// Gives a record that is in no line back.
pub(super) fn free_waiter(map: &Map, index: u32, w: &Waiter) {
    let h = map.header();
    w.state.store(W_FREE, Relaxed);
    w.next.store(h.waiter_free.load(Relaxed), Relaxed);
    h.waiter_free.store(index, Relaxed);
}

pub(super) fn line_of<'a>(map: &'a Map, w: &Waiter) -> &'a Line {
    let h = map.header();
    if w.kind.load(Relaxed) == 1 { &h.senders } else { &h.receivers }
}

/// Takes the first living waiter of a line out of it and marks it served with `slot`.
fn serve_first<'a>(
    section: &Section<'a>,
    line: &Line,
    slot: Option<u32>,
) -> Result<Option<(u32, &'a Waiter, Wake<'a>)>> {
    let map = section.map;
    'line: loop {
        let index = line.head.load(Relaxed);
        if index == NONE {
            return Ok(None);
        }
        let w = map.waiter(index)?;
        if w.state.load(Relaxed) != W_QUEUED {
            return Err(Errno::EIO);
        }
        leave_line(map, line, w)?;
        if let Some(slot) = slot {
            w.slot.store(slot, Relaxed);
        }
        w.state.store(W_SERVED, Relaxed);
        crate::crash_point!("handover.marked");
        let ticket = w.ticket.load(Relaxed);
        let mut seen = w.word.load(Relaxed);
        while seen & TID_MASK != 0 {
            let tid = seen & TID_MASK;
            // One that is on its way into its sleep, or out of it, could die with what it is given:
            // it finds itself out of the line, and makes its call anew.
            let unarmed = seen & WORD_UNARMED != 0;
            if let Some(slot) = slot
                && !unarmed
            {
                // Before the commit, by which the message is its own.
                map.slot(slot)?.holder.store(tid, Relaxed);
            }
            match w.word.compare_exchange(seen, if unarmed { tid | WORD_OUT } else { 0 }, AcqRel, Relaxed) {
                Ok(_) if unarmed => {
                    if slot.is_some() {
                        w.slot.store(NONE, Relaxed);
                    }
                    w.state.store(W_OUT, Relaxed);
                    continue 'line;
                }
                Ok(_) => {
                    let asleep = seen & WORD_ASLEEP != 0;
                    let wake = Wake { waiter: w, index, ticket, slot: NONE, seq: 0, tid, asleep };
                    return Ok(Some((index, w, wake)));
                }
                Err(now) => seen = now,
            }
        }
        // Died in the line; a dead sender's message never appears.
        if w.kind.load(Relaxed) == 1 {
            let staged = w.slot.load(Relaxed);
            if let Ok(staged_slot) = map.slot(staged)
                && staged_slot.state.load(Relaxed) == FILLING
            {
                give_back(map, staged, staged_slot);
            }
        }
        free_waiter(map, index, w);
    }
}

/// What was given to a receiver that will not take it goes to the next in line, or to its place in
/// the queue.
fn put_back<'a>(section: &Section<'a>, fd: i32, index: u32, slot: &Slot, after: &mut After<'a>) -> Result<()> {
    let map = section.map;
    let h = map.header();
    if h.receivers.head.load(Relaxed) != NONE {
        after.wake = hand_over(section, index, slot)?;
        if after.wake.is_some() {
            return Ok(());
        }
    }
    let was_empty = h.curmsgs.load(Relaxed) == 0;
    let flags = h.flags.load(Relaxed);
    if flags & (F_NOTIFY | F_FIRING) != 0 {
        after.fire = super::fire(section, fd, slot, flags, was_empty)?;
    }
    restore(map, index, slot)?;
    if flags & (F_POLLED | F_ARMED) != 0 {
        super::tell_pollers(section, fd, after);
    }
    Ok(())
}

/// Gives a filled slot to the first sleeping receiver, if one is alive.
#[cold]
#[inline(never)]
pub(super) fn hand_over<'a>(section: &Section<'a>, index: u32, slot: &Slot) -> Result<Option<Wake<'a>>> {
    slot.state.store(TAKEN, Release);
    crate::crash_point!("handover.taken");
    note_cpu(section.map, true);
    match serve_first(section, &section.map.header().receivers, Some(index))? {
        Some((_, _, wake)) => {
            crate::crash_point!("handover.served");
            Ok(Some(wake))
        }
        None => {
            slot.holder.store(section.tls.tid.load(Relaxed), Relaxed);
            slot.state.store(FILLING, Release);
            Ok(None)
        }
    }
}

/// Puts the first sleeping sender's message into the queue, if there is room and one is alive.
#[cold]
#[inline(never)]
pub(super) fn let_sender_in<'a>(section: &Section<'a>, after: &mut After<'a>) -> Result<()> {
    let map = section.map;
    if map.header().curmsgs.load(Relaxed) >= map.maxmsg {
        return Ok(());
    }
    note_cpu(map, false);
    match serve_first(section, &map.header().senders, None)? {
        Some((_, w, mut wake)) => {
            crate::crash_point!("letin.served");
            let index = w.slot.load(Relaxed);
            let slot = map.slot(index)?;
            if slot.state.load(Relaxed) != FILLING {
                return Err(Errno::EIO);
            }
            link(map, index, slot)?;
            wake.seq = slot.seq.load(Relaxed);
            wake.slot = index;
            // The slot is the queue's now, and may be another sender's before this one wakes.
            w.slot.store(NONE, Relaxed);
            after.wake = Some(wake);
            if map.header().flags.load(Relaxed) & F_TAPPED != 0 {
                after.tapped = Some(super::tap::record(map, index, slot));
            }
        }
        None => after.wake = None,
    }
    Ok(())
}

/// `Waiter::rank`: not asked for yet.
const UNRANKED: i32 = i32::MIN;
/// The rank of an ordinary thread that is not nice.
const ORDINARY: i32 = 120;

/// A thread's scheduling rank: lower is served first, as `task->prio` in the kernel. 0: the caller's own.
fn ask_rank(tid: u32) -> i32 {
    let mut attr = [0u32; 12];
    // SAFETY: the buffer is as long as said.
    if unsafe { syscall!(SYS_sched_getattr, tid, attr.as_mut_ptr(), size_of_val(&attr), 0) }.is_err() {
        return ORDINARY;
    }
    // struct sched_attr: size, policy, flags (64 bits), nice, priority.
    match attr[1] as i32 {
        libc::SCHED_FIFO | libc::SCHED_RR => 99 - attr[5] as i32,
        6 => -1,
        _ => ORDINARY + attr[4] as i32,
    }
}

/// The rank of one who is about to join a line, if it matters: somebody is there already.
fn my_rank(map: &Map, line: &Line) -> i32 {
    let alone = line.head.load(Relaxed) == NONE && map.header().flags.load(Relaxed) & F_MIXED_PIDS == 0;
    if alone { UNRANKED } else { ask_rank(0) }
}

/// The rank of a waiter, asked for now if it has not been.
fn rank_of(map: &Map, w: &Waiter) -> i32 {
    let mut rank = w.rank.load(Relaxed);
    if rank == UNRANKED {
        let foreign = map.header().flags.load(Relaxed) & F_MIXED_PIDS != 0;
        rank = if foreign { ORDINARY } else { ask_rank(w.tid.load(Relaxed)) };
        w.rank.store(rank, Relaxed);
    }
    rank
}

/// The number of one who joins a line.
fn next_ticket(map: &Map) -> u64 {
    let last = &map.header().waiter_seq;
    let ticket = last.load(Relaxed).wrapping_add(1);
    last.store(ticket, Relaxed);
    ticket
}

/// Takes a record and joins the line; the caller's `Wait` is complete then.
fn enqueue(section: &Section<'_>, wait: &mut Wait, slot: u32, rank: i32) -> Result<()> {
    let map = section.map;
    let h = map.header();
    let tls = section.tls;
    let mut head = h.waiter_free.load(Relaxed);
    if head == NONE && h.waiter_high.load(Relaxed) >= crate::shm::layout::WAITERS {
        super::repair::sweep(section)?;
        head = h.waiter_free.load(Relaxed);
        if head == NONE {
            return Err(Errno::ENOMEM);
        }
    }
    let index = if head != NONE {
        h.waiter_free.store(map.waiter(head)?.next.load(Relaxed), Relaxed);
        head
    } else {
        let fresh = h.waiter_high.load(Relaxed);
        map.commit_waiter(fresh).map_err(|_| Errno::ENOMEM)?;
        h.waiter_high.store(fresh + 1, Relaxed);
        fresh
    };
    let w = map.waiter(index)?;
    let tid = tls.tid.load(Relaxed);
    w.ticket.store(next_ticket(map), Relaxed);
    w.kind.store(wait.sender, Relaxed);
    w.slot.store(slot, Relaxed);
    w.rank.store(rank, Relaxed);
    w.tid.store(tid, Relaxed);
    w.word.store(tid | WORD_UNARMED, Relaxed);
    join_line(map, line_of(map, w), index, w)?;
    note_cpu(map, wait.sender == 1);
    wait.map = map;
    wait.waiter.store(index, Relaxed);
    wait.word = &w.word;
    // Whatever the word holds by then, it is not what it sleeps for until `announce_sleep`.
    wait.expected = tid | WORD_ASLEEP;
    wait.outer.store(tls.waiter.load(Relaxed), Relaxed);
    wait.outer_pending = tls.outer_pending.load(Relaxed);
    map.pins.fetch_add(1, Relaxed);
    // From here on a handler takes us out of the line before it runs (put off until the unlock).
    tls.waiter.store(wait as *const Wait as usize, Release);
    crate::crash_point!("wait.queued");
    Ok(())
}

/// After the unlock: a death from here on is announced in the wait word. (Before, nobody serves us.)
/// Spins where that pays, then says that it sleeps.
fn prepare_sleep(map: &Map, tls: &Tls, wait: &mut Wait) -> Result<()> {
    crate::crash_point!("wait.unlocked");
    let index = wait.waiter.load(Relaxed);
    if index == NONE {
        // A handler has run since the unlock: the sleep ends at once.
        return Ok(());
    }
    let w = map.waiter(index)?;
    let robust = tls.robust();
    let entry = (w.word.as_ptr() as usize).wrapping_sub(robust.futex_offset.load(Relaxed));
    robust.list_op_pending.store(entry, Relaxed);
    announce_sleep(map, w, tls, wait);
    Ok(())
}

/// `pause` instructions before others are let run, about 2 µs.
const PAUSES: u32 = patience(80);
/// Times others are let run before sleeping. Together longer than a wake from another CPU takes:
/// two that answer each other then stay awake, once one of them has waited for the other's wake.
const YIELDS: u32 = patience(100);
/// More than this many cost more CPU time than a sleep.
const YIELDS_WORTH: u32 = 4;
/// The same where the peer has to run on this very CPU to get on.
const YIELDS_SAME_CPU: u32 = 2;
/// After a spin in vain, this many at most are left out.
const MOST_SKIPPED: u32 = 63;

/// What a thread remembers of its spins, in `Tls::spin_skip`: how many waits to go without one, how
/// many it was the last time, and whether the last spin took longer than it was worth.
struct Spins {
    left: u32,
    backoff: u32,
    late: bool,
}

impl Spins {
    fn of(tls: &Tls) -> Spins {
        let bits = tls.spin_skip.load(Relaxed);
        Spins { left: bits & 0xff, backoff: bits >> 8 & 0xff, late: bits >> 16 != 0 }
    }

    fn store(&self, tls: &Tls) {
        tls.spin_skip.store(self.left | self.backoff << 8 | u32::from(self.late) << 16, Relaxed);
    }

    /// In vain, or twice in a row hardly better: a slow peer.
    fn in_vain(&self, tls: &Tls) {
        let backoff = (self.backoff * 2 + 1).min(MOST_SKIPPED);
        Spins { left: backoff, backoff, late: false }.store(tls);
    }
}

/// 1 + the CPU we run on.
fn this_cpu() -> u16 {
    (cpu() + 1) as u16
}

/// Notes where this side of the queue runs.
pub(super) fn note_cpu(map: &Map, sender: bool) {
    let h = map.header();
    if sender { &h.sender_cpu } else { &h.receiver_cpu }.store(this_cpu(), Relaxed);
}

/// Whether the other side of a queue ran on this CPU last, as far as is known: then it has to run here to get on.
pub fn is_peer_here(map: &Map, sending: bool) -> bool {
    let h = map.header();
    let peer = if sending { &h.receiver_cpu } else { &h.sender_cpu }.load(Relaxed);
    peer == 0 || peer == this_cpu()
}

/// Looks a moment, while `waits`, where that costs less than a sleep and a wake. Whoever waits for a slow peer
/// soon stops trying: each vain attempt doubles how many waits go without one. `same_cpu`: see
/// [`is_peer_here`].
pub fn spin(tls: &Tls, same_cpu: bool, waits: impl Fn() -> bool) {
    let spins = Spins::of(tls);
    if spins.left > 0 {
        return Spins { left: spins.left - 1, ..spins }.store(tls);
    }
    if !same_cpu {
        for _ in 0..PAUSES {
            if !waits() {
                return tls.spin_skip.store(0, Relaxed);
            }
            core::hint::spin_loop();
        }
    }
    for yields in 0..if same_cpu { YIELDS_SAME_CPU } else { YIELDS } {
        // SAFETY: no arguments.
        let _ = unsafe { syscall!(SYS_sched_yield) };
        if !waits() {
            return if yields < YIELDS_WORTH {
                tls.spin_skip.store(0, Relaxed);
            } else if spins.late {
                spins.in_vain(tls);
            } else {
                Spins { late: true, ..spins }.store(tls);
            };
        }
    }
    spins.in_vain(tls);
}

/// Before a call that would block joins the line: where the other side runs on this very CPU, lets it run. What
/// it does then it does for many messages at once, and wakes nobody. (The call has not begun yet, so to say.)
fn let_peer_run(map: &Map, tls: &Tls, sending: bool) {
    if is_peer_here(map, sending) {
        let h = map.header();
        let full = || h.curmsgs.load(Relaxed) >= map.maxmsg;
        spin(tls, true, || if sending { full() } else { h.curmsgs.load(Relaxed) == 0 });
    }
}

fn announce_sleep(map: &Map, w: &Waiter, tls: &Tls, wait: &mut Wait) {
    let tid = tls.tid.load(Relaxed);
    wait.expected = tid | WORD_ASLEEP;
    // Each step fails if we were served or taken out of the line meanwhile, or a handler has given the record
    // back; the sleep then ends at once.
    if w.word.compare_exchange(tid | WORD_UNARMED, tid, AcqRel, Relaxed).is_ok() {
        if !is_peer_here(map, w.kind.load(Relaxed) == 1) {
            spin(tls, false, || w.word.load(Acquire) == tid && w.state.load(Relaxed) == W_QUEUED);
        }
        if w.state.load(Relaxed) == W_QUEUED {
            let _ = w.word.compare_exchange(tid, tid | WORD_ASLEEP, AcqRel, Relaxed);
            crate::crash_point!("wait.asleep");
        }
    }
}

/// Before a sleeper's thread takes the queue's lock, for which its pending pointer leaves the wait
/// word: it is not to be served until it sleeps again.
fn disarm(map: &Map, tls: &Tls, wait: &Wait) {
    if let Ok(w) = map.waiter(wait.waiter.load(Relaxed)) {
        let tid = tls.tid.load(Relaxed);
        for armed in [tid | WORD_ASLEEP, tid] {
            let _ = w.word.compare_exchange(armed, tid | WORD_UNARMED, AcqRel, Relaxed);
        }
    }
}

/// Sends, or joins the line of senders. As [`super::try_send`], which found the queue full.
///
/// # Safety
///
/// As [`super::try_send`]; `wait` stays where it is until the call is over.
#[cold]
#[inline(never)]
pub unsafe fn send_or_wait(
    map: &Map,
    tls: &Tls,
    fd: i32,
    msg: *const u8,
    len: u32,
    priority: u32,
    wait: &mut Wait,
) -> Result<Step> {
    wait.init(fd, 1, Buffer { data: msg.cast_mut(), priority: core::ptr::null_mut() });
    (wait.len, wait.priority) = (len, priority);
    let_peer_run(map, tls, true);
    let rank = my_rank(map, &map.header().senders);
    let (index, slot, section);
    if len > COPY_LOCKED {
        // SAFETY: the caller's contract.
        (index, slot) = unsafe { super::stage_large(map, tls, fd, msg, len, priority, false)? };
        section = enter(map, tls)?;
    } else {
        section = enter(map, tls)?;
        // SAFETY: the caller's contract.
        (index, slot) = unsafe { fill(&section, msg, len, priority)? };
    }
    if map.header().curmsgs.load(Relaxed) < map.maxmsg {
        let after = commit_send(&section, fd, index, slot)?;
        section.finish(after, fd);
        return Ok(Step::Done(0));
    }
    if let Err(errno) = enqueue(&section, wait, index, rank) {
        give_back(map, index, slot);
        return Err(errno);
    }
    drop(section);
    prepare_sleep(map, tls, wait)?;
    Ok(Step::Sleep)
}

/// Receives, or joins the line of receivers. As [`super::try_receive`], which found the queue
/// empty.
///
/// # Safety
///
/// As [`super::try_receive`]; `wait` stays where it is until the call is over.
#[cold]
#[inline(never)]
pub unsafe fn receive_or_wait(map: &Map, tls: &Tls, fd: i32, buffer: Buffer, wait: &mut Wait) -> Result<Step> {
    wait.init(fd, 0, buffer);
    let_peer_run(map, tls, false);
    let rank = my_rank(map, &map.header().receivers);
    let section = enter(map, tls)?;
    if map.header().curmsgs.load(Relaxed) != 0 {
        // SAFETY: the caller's contract.
        return unsafe { receive_first(section, fd, buffer) }.map(Step::Done);
    }
    enqueue(&section, wait, NONE, rank)?;
    drop(section);
    prepare_sleep(map, tls, wait)?;
    Ok(Step::Sleep)
}

/// Goes on after a sleep that ended with `slept` (0, or a negated errno of futex(2)).
///
/// # Errors
///
/// EINTR, ETIMEDOUT, and those of the non-blocking siblings.
///
/// # Safety
///
/// `wait` was filled in by [`send_or_wait`] or [`receive_or_wait`], and has not been finished.
pub unsafe fn resume(tls: &Tls, wait: &mut Wait, slept: i32) -> Result<Step> {
    // SAFETY: `map` is pinned while the call is blocked.
    let map = unsafe { &*wait.map };
    crate::crash_point!("wait.woken");
    disarm(map, tls, wait);
    let section = match enter(map, tls) {
        Ok(section) => section,
        Err(errno) => {
            wait.finish(map, tls);
            return Err(errno);
        }
    };
    if wait.waiter.load(Relaxed) == NONE {
        drop(section);
        tls.robust().list_op_pending.store(wait.outer_pending, Relaxed);
        // SAFETY: the caller's contract.
        let result = unsafe { begin_anew(map, tls, wait) };
        // The pin of the first time; if it sleeps it has one more.
        map.pins.fetch_sub(1, Relaxed);
        return result;
    }
    // SAFETY: the caller's contract.
    let result = unsafe { resume_locked(section, wait, slept) };
    if !matches!(result, Ok(Step::Sleep)) {
        wait.finish(map, tls);
    }
    result
}

/// A handler has run, and has left nothing of the call ([`handler_begins`]): it is over, or is made anew.
///
/// # Safety
///
/// As [`resume`].
unsafe fn begin_anew(map: &Map, tls: &Tls, wait: &mut Wait) -> Result<Step> {
    match wait.result.load(Relaxed) {
        OPEN => {}
        result @ 0.. => return Ok(Step::Done(result as usize)),
        errno => return Err(Errno(-errno as i32)),
    }
    if !wait.is_restarting() {
        return Err(Errno::EINTR);
    }
    let (fd, buffer) = (wait.fd, wait.buffer);
    // SAFETY: the caller's contract, all along.
    unsafe {
        if wait.sender == 1 {
            let (len, priority) = (wait.len, wait.priority);
            match super::try_send(map, tls, fd, buffer.data, len, priority) {
                Err(Errno::EAGAIN) if !is_nonblocking(fd) => {
                    send_or_wait(map, tls, fd, buffer.data, len, priority, wait)
                }
                done => done.map(|()| Step::Done(0)),
            }
        } else {
            match super::try_receive(map, tls, fd, buffer) {
                Err(Errno::EAGAIN) if !is_nonblocking(fd) => receive_or_wait(map, tls, fd, buffer, wait),
                done => done.map(Step::Done),
            }
        }
    }
}

/// # Safety
///
/// As [`resume`].
unsafe fn resume_locked(section: Section<'_>, wait: &mut Wait, slept: i32) -> Result<Step> {
    let (map, tls) = (section.map, section.tls);
    let record = wait.waiter.load(Relaxed);
    let w = map.waiter(record)?;
    let index = w.slot.load(Relaxed);
    match w.state.load(Relaxed) {
        // SAFETY: the caller's contract.
        W_SERVED => unsafe { take_served(section, wait, w) }.map(Step::Done),
        state @ (W_QUEUED | W_OUT) => {
            let ended = if slept == -libc::EINTR || wait.interrupted.load(Relaxed) != 0 {
                Some(Errno::EINTR)
            } else if slept == -libc::ETIMEDOUT {
                Some(Errno::ETIMEDOUT)
            } else {
                None
            };
            if ended.is_none() && state == W_QUEUED && slept != RESTARTED {
                // Woken for nothing: go on sleeping, in the same place.
                drop(section);
                announce_sleep(map, w, tls, wait);
                return Ok(Step::Sleep);
            }
            if state == W_QUEUED {
                leave_line(map, line_of(map, w), w)?;
                w.state.store(W_OUT, Relaxed);
                crate::crash_point!("wait.left");
            }
            if ended.is_none() {
                // SAFETY: the caller's contract.
                return unsafe { start_over(section, wait, w, index) };
            }
            if wait.sender == 1 {
                give_back(map, index, map.slot(index)?);
            }
            wait.give_record_back(map, w);
            Err(ended.unwrap_or(Errno::EINTR))
        }
        _ => Err(Errno::EIO),
    }
}

/// What a served call returns: a receiver fetches its message. Releases the lock.
///
/// # Safety
///
/// As [`resume`].
unsafe fn take_served(section: Section<'_>, wait: &Wait, w: &Waiter) -> Result<usize> {
    let (map, tls) = (section.map, section.tls);
    if wait.sender == 1 {
        wait.give_record_back(map, w);
        return Ok(0);
    }
    let index = w.slot.load(Relaxed);
    let slot = map.slot(index)?;
    let (len, priority) = (slot.len.load(Relaxed), slot.priority.load(Relaxed) & (MQ_PRIO_MAX - 1));
    if slot.state.load(Relaxed) != TAKEN || len > map.msgsize {
        return Err(Errno::EIO);
    }
    wait.give_record_back(map, w);
    if len > COPY_LOCKED {
        drop(section);
        // SAFETY: the slot was given to us; the buffer is the caller's.
        return unsafe { deliver_taken(map, tls, (index, slot), (len, priority), wait.buffer) };
    }
    // SAFETY: as above.
    let copied = unsafe { super::copy_out(map, index, len, priority, wait.buffer) };
    crate::crash_point!("wait.taken");
    give_back(map, index, slot);
    copied.map(|()| len as usize)
}

/// A restarted call: as if made anew, at the end of the line (its record and slot are kept).
///
/// # Safety
///
/// As [`resume`].
unsafe fn start_over(section: Section<'_>, wait: &mut Wait, w: &Waiter, index: u32) -> Result<Step> {
    let (map, tls) = (section.map, section.tls);
    let record = wait.waiter.load(Relaxed);
    let curmsgs = map.header().curmsgs.load(Relaxed);
    let blocks = if wait.sender == 1 { curmsgs >= map.maxmsg } else { curmsgs == 0 };
    if blocks && is_nonblocking(wait.fd) {
        if wait.sender == 1 {
            give_back(map, index, map.slot(index)?);
        }
        wait.give_record_back(map, w);
        return Err(Errno::EAGAIN);
    }
    if wait.sender == 1 && curmsgs < map.maxmsg {
        wait.give_record_back(map, w);
        let after = commit_send(&section, wait.fd, index, map.slot(index)?)?;
        section.finish(after, wait.fd);
        return Ok(Step::Done(0));
    }
    if wait.sender == 0 && curmsgs != 0 {
        wait.give_record_back(map, w);
        // SAFETY: the caller's contract.
        return unsafe { receive_first(section, wait.fd, wait.buffer) }.map(Step::Done);
    }
    w.ticket.store(next_ticket(map), Relaxed);
    w.word.store(tls.tid.load(Relaxed) | WORD_UNARMED, Relaxed);
    join_line(map, line_of(map, w), record, w)?;
    drop(section);
    announce_sleep(map, w, tls, wait);
    Ok(Step::Sleep)
}

fn is_nonblocking(fd: i32) -> bool {
    // SAFETY: no pointers.
    unsafe { syscall!(SYS_fcntl, fd, libc::F_GETFL) }.is_ok_and(|flags| flags as i32 & libc::O_NONBLOCK != 0)
}

/// O_NONBLOCK was set on some description of the queue. Whoever sleeps goes on sleeping, but who is
/// stopped has left its call, and makes it anew when continued: it must look at the flag then.
pub fn nonblocking_set(map: &Map, tls: &Tls) {
    let h = map.header();
    if h.receivers.head.load(Relaxed) == NONE && h.senders.head.load(Relaxed) == NONE {
        return;
    }
    let Ok(_section) = enter(map, tls) else { return };
    for index in 0..h.waiter_high.load(Relaxed).min(crate::shm::layout::WAITERS) {
        let Ok(w) = map.waiter(index) else { return };
        if w.state.load(Relaxed) == W_QUEUED
            && matches!(task_state(w.tid.load(Relaxed)), Some(b'T' | b't'))
            && leave_line(map, line_of(map, w), w).is_ok()
        {
            w.state.store(W_OUT, Relaxed);
            w.word.fetch_or(WORD_OUT, AcqRel);
        }
    }
}

/// pthread_cancel(3) ended the sleep: the call never happened. A message given to the receiver
/// goes back to its place, or to the next in line.
///
/// # Safety
///
/// As [`resume`].
pub unsafe fn cancel(tls: &Tls, wait: &mut Wait) {
    // SAFETY: `map` is pinned while the call is blocked.
    let map = unsafe { &*wait.map };
    // A handler would take the message for a call that never returns it.
    tls.enter_critical();
    disarm(map, tls, wait);
    if let Ok(section) = enter(map, tls) {
        let mut after = After::default();
        let _ = cancel_locked(&section, wait, &mut after);
        section.finish(after, wait.fd);
    }
    wait.finish(map, tls);
    tls.leave_critical();
}

fn cancel_locked<'a>(section: &Section<'a>, wait: &Wait, after: &mut After<'a>) -> Result<()> {
    let map = section.map;
    let record = wait.waiter.load(Relaxed);
    if record == NONE {
        // A handler has run: there is nothing left.
        return Ok(());
    }
    let w = map.waiter(record)?;
    let index = w.slot.load(Relaxed);
    let state = w.state.load(Relaxed);
    if state == W_QUEUED {
        leave_line(map, line_of(map, w), w)?;
    }
    wait.give_record_back(map, w);
    match (state, wait.sender) {
        (W_SERVED, 0) => put_back(section, wait.fd, index, map.slot(index)?, after)?,
        (W_QUEUED | W_OUT, 1) => give_back(map, index, map.slot(index)?),
        _ => {}
    }
    Ok(())
}

/// A signal handler is about to run on a thread that is blocked: the kernel would have taken it out
/// of the line. Called by `interpose::signal` with the handler's `sa_flags`, outside critical
/// sections.
///
/// The handler may never return (siglongjmp(3)), and the frame with the `Wait` be gone. So nothing refers to that from here
/// on, and the call has nothing in the segment any more; if it goes on, it begins anew ([`begin_anew`]), with the message
/// as it is by then. A call that was served before ends as in the kernel: a receiver's message is copied before the handler runs.
/// (What a jump leaves behind is the pin of the mapping, in this process.)
pub fn handler_begins(tls: &Tls, sa_flags: i32) {
    let wait = tls.waiter.load(Acquire) as *const Wait;
    if wait.is_null() {
        return;
    }
    // SAFETY: `tls.waiter` points to the `Wait` of a call of this thread that has not finished,
    // and whose map is pinned.
    let (wait, map) = unsafe { (&*wait, &*(*wait).map) };
    tls.waiter.store(wait.outer.load(Relaxed), Relaxed);
    if sa_flags & libc::SA_RESTART == 0 {
        wait.interrupted.store(1, Relaxed);
    }
    disarm(map, tls, wait);
    let Ok(section) = enter(map, tls) else { return };
    let record = wait.waiter.load(Relaxed);
    let Ok(w) = map.waiter(record) else { return };
    match w.state.load(Relaxed) {
        state @ (W_QUEUED | W_OUT) => {
            if state == W_QUEUED && leave_line(map, line_of(map, w), w).is_err() {
                return;
            }
            if wait.sender == 1
                && let Ok(slot) = map.slot(w.slot.load(Relaxed))
            {
                give_back(map, w.slot.load(Relaxed), slot);
            }
            // Not what the sleep expects: a restarted sleep ends at once.
            w.word.store(tls.tid.load(Relaxed) | WORD_OUT, Release);
            wait.give_record_back(map, w);
            drop(section);
        }
        W_SERVED => {
            // The program's handler may have faults blocked that a bad buffer would raise.
            let faults = 1u64 << (libc::SIGSEGV - 1) | 1u64 << (libc::SIGBUS - 1);
            let mut blocked = 0u64;
            // SAFETY: the masks are locals of the size said.
            let _ = unsafe { syscall!(SYS_rt_sigprocmask, libc::SIG_UNBLOCK, &raw const faults, &raw mut blocked, 8) };
            // SAFETY: the call is blocked, and its buffer the caller's.
            let result = unsafe { take_served(section, wait, w) };
            // SAFETY: as above.
            let _ = unsafe { syscall!(SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const blocked, 0, 8) };
            let result = result.map_or_else(|errno| -i64::from(errno.0), |len| len as i64);
            wait.result.store(result, Relaxed);
        }
        _ => return,
    }
    tls.robust().list_op_pending.store(wait.outer_pending, Relaxed);
}

impl Wait {
    fn init(&mut self, fd: i32, sender: u32, buffer: Buffer) {
        self.fd = fd;
        self.sender = sender;
        self.buffer = buffer;
        self.interrupted.store(0, Relaxed);
        self.result.store(OPEN, Relaxed);
    }

    /// Gives the call's record back, which is in no line. Under the lock, so that a handler that comes at the unlock does
    /// not take for its own what is another's by then.
    fn give_record_back(&self, map: &Map, w: &Waiter) {
        free_waiter(map, self.waiter.swap(NONE, Relaxed), w);
    }

    /// Whether no handler without SA_RESTART has run.
    pub fn is_restarting(&self) -> bool {
        self.interrupted.load(Relaxed) == 0
    }

    /// The call is over, however: this thread waits for nothing (or for what it waited before).
    fn finish(&mut self, map: &Map, tls: &Tls) {
        tls.waiter.store(self.outer.load(Relaxed), Release);
        tls.robust().list_op_pending.store(self.outer_pending, Relaxed);
        map.pins.fetch_sub(1, Relaxed);
    }
}

/// Whether anybody is blocked: (receivers, senders), counted. For people who look into a queue.
pub fn count(map: &Map) -> (u32, u32) {
    let high = map.header().waiter_high.load(Relaxed).min(crate::shm::layout::WAITERS);
    let mut counts = (0, 0);
    for index in 0..high {
        if let Ok(w) = map.waiter(index)
            && w.state.load(Relaxed) == W_QUEUED
        {
            if w.kind.load(Relaxed) == 1 { counts.1 += 1 } else { counts.0 += 1 }
        }
    }
    counts
}
