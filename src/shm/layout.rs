//! Every structure that lives in a queue's segment, and where each part of a segment lies.
//!
//! Fixed width, pointer-free, atomics only: another process may write any byte at any time, so a
//! value read from here is an input like any other. Changes to this file must be reflected in
//! [`VERSION`].

use core::mem::{offset_of, size_of};

use crate::abi::NAME_MAX;
use crate::machine::atomic::{AtomicI32, AtomicU16, AtomicU32, AtomicU64};

/// First bytes of every segment; shows a foreign file or byte order.
pub const MAGIC: u64 = u64::from_ne_bytes(*b"mqnsseg\n");
/// Layout version: raise it with any change of meaning or place in this file.
pub const VERSION: u64 = 6;
/// What `Header::format` holds once the segment is complete: the version and the sizes.
pub const FORMAT: u64 =
    VERSION << 48 | (size_of::<Header>() as u64) << 32 | (size_of::<Slot>() as u64) << 16 | size_of::<Waiter>() as u64;

/// The absent index in chains and lists.
pub const NONE: u32 = u32::MAX;

/// `Header::flags`: the name is gone; the last close destroys the queue.
pub const F_UNLINKED: u32 = 1;
/// `Header::flags`: destroyed; its memory is given back, nobody may use it.
pub const F_DEAD: u32 = 2;
/// `Header::flags`: somebody has polled: the FIFO's tokens follow the state.
pub const F_POLLED: u32 = 4;
/// `Header::flags`: somebody polls edge-triggered: every operation makes an edge.
pub const F_POLLED_EDGE: u32 = 8;
/// `Header::flags`: a notification is registered (as far as anybody has noticed).
pub const F_NOTIFY: u32 = 16;
/// `Header::flags`: found damaged beyond repair; every operation fails with EIO.
pub const F_CORRUPT: u32 = 32;
/// `Header::flags`: used from several pid namespaces: thread ids cannot be looked up.
pub const F_MIXED_PIDS: u32 = 64;
/// `Header::flags`: it has been taken off the accounts.
pub const F_UNCHARGED: u32 = 128;
/// `Header::flags`: somebody may be asleep in poll(2) until the queue has a message, and looks for itself when
/// woken: the next message makes a packet.
pub const F_ARMED: u32 = 256;
/// `Header::flags`: a message has used up the registration, and whoever sent it ([`Header::firer`]) has not told the
/// owner yet.
pub const F_FIRING: u32 = 512;
/// `Header::flags`: somebody may be tapping (`queue::tap`): every message sent is recorded, too.
pub const F_TAPPED: u32 = 1024;
/// Flags that send a fast path to its slow sibling.
pub const F_SLOW: u32 = F_POLLED | F_POLLED_EDGE | F_NOTIFY | F_CORRUPT | F_DEAD | F_ARMED | F_FIRING | F_TAPPED;

/// `Header::tokens`: a writer has died, or is under way.
pub const TOKENS_UNKNOWN: u32 = u32::MAX;

/// A line of blocked callers, longest asleep of the highest scheduling priority first.
#[repr(C)]
pub struct Line {
    /// First waiter record, or [`NONE`]. Lock.
    pub head: AtomicU32,
    /// Last waiter record, or [`NONE`]. Lock.
    pub tail: AtomicU32,
}

/// The registration made by mq_notify(3). All under the lock, valid while [`F_NOTIFY`] is set
/// *and* its owner holds the record lock on the FIFO.
#[repr(C)]
pub struct Notify {
    /// What the owner's helper thread sleeps on: bumped when the registration fires or is removed.
    pub word: AtomicU32,
    /// `sigev_notify`: SIGEV_SIGNAL, SIGEV_NONE or SIGEV_THREAD.
    pub kind: AtomicI32,
    /// `sigev_signo`.
    pub signo: AtomicI32,
    /// Process id of the owner, in its own pid namespace.
    pub pid: AtomicU32,
    /// `sigev_value`, as an integer.
    pub value: AtomicU64,
    /// Tells registrations of one queue apart.
    pub ticket: AtomicU64,
    /// Which byte the owner's record lock is on: the ticket of the registration that it took it for.
    pub lock: AtomicU64,
    /// Inode of the owner's pid namespace.
    pub pid_ns: AtomicU64,
    /// Number of the last bell that was hung for the queue (`queue::notify::bell`).
    pub bell: AtomicU32,
    /// Its owner's uid and 1, 0 if there is none.
    pub bell_uid: AtomicU32,
    /// 1: the registration has a bell. 2: the owner has called exec since it registered.
    pub state: AtomicU32,
    /// Device number of the `/proc` that shows the owner's pid namespace, 0 if it knows none.
    pub proc_dev: AtomicU32,
    /// The last registrations whose owners have to look for themselves, each at its number modulo the
    /// length: an owner that is slow finds its own here, whoever has registered since.
    pub fired: [Mark; FIRED],
}

/// A registration that has fired.
#[repr(C)]
pub struct Mark {
    /// `Notify::ticket`.
    pub ticket: AtomicU64,
    /// Process id of the sender as the owner sees it (0: cannot), and its real uid in the upper half.
    pub sender: AtomicU64,
}

/// Length of [`Notify::fired`].
pub const FIRED: usize = 15;

/// The record of what was sent, for those who tap (`queue::tap`), valid while [`F_TAPPED`] is set. Positions
/// count bytes ever written; where they lie in the ring is their remainder.
#[repr(C)]
pub struct Taps {
    /// Where the oldest record that is whole begins. Written under the lock, read anywhere.
    pub tail: AtomicU64,
    /// Where the next one will. Likewise.
    pub head: AtomicU64,
    /// Bytes of the ring known to have memory behind them. Lock.
    pub committed: AtomicU64,
    /// What those who tap sleep on: bumped when there is something to look at.
    pub word: AtomicU32,
    /// Zero.
    pub pad: AtomicU32,
}

/// One message in the ring, at a multiple of its own size; the bytes of the message follow.
#[repr(C)]
pub struct Record {
    /// `Slot::seq`.
    pub number: AtomicU64,
    /// When it was sent, CLOCK_REALTIME, ns.
    pub time_ns: AtomicU64,
    /// Bytes of the message.
    pub len: AtomicU32,
    /// Its priority.
    pub priority: AtomicU32,
}
const _: () = assert!(size_of::<Record>() == 24);

/// Records begin at multiples of this, so that none wraps round but for its message.
pub const RECORD_UNIT: u64 = 32;

/// Bytes of a record with a message of `len` bytes.
pub const fn record_size(len: u32) -> u64 {
    align(size_of::<Record>() as u64 + len as u64, RECORD_UNIT)
}

/// Bytes of the ring, at the least.
const RING: u64 = 1 << 20;

/// First page of a segment.
#[repr(C, align(64))]
pub struct Header {
    /// [`MAGIC`]. Immutable.
    pub magic: AtomicU64,
    /// [`FORMAT`], 0 while under construction. SYNC: publish_segment (Release in `init`, Acquire in
    /// `validate`).
    pub format: AtomicU64,
    /// Random number of this queue. Immutable.
    pub queue_id: AtomicU64,
    /// `mq_maxmsg`. Immutable.
    pub maxmsg: AtomicU32,
    /// `mq_msgsize`, bytes. Immutable.
    pub msgsize: AtomicU32,
    /// Inode of the queue's file in the superblock directory. Immutable.
    pub ino: AtomicU64,
    /// Inode of the queue's FIFO. Immutable.
    pub fifo_ino: AtomicU64,
    /// Real uid that pays for the queue under RLIMIT_MSGQUEUE. Immutable.
    pub owner_uid: AtomicU32,
    /// `F_*`. Changed under the lock; `F_UNLINKED` and `F_DEAD` by anybody.
    pub flags: AtomicU32,
    /// Seconds of the last chmod, chown, utimes or truncate (changes ctime only).
    pub changed_sec: AtomicU64,

    // What one operation changes lies in one cache line: between two CPUs it travels once, with the lock.
    /// The robust lock: owner's thread id, FUTEX_WAITERS, FUTEX_OWNER_DIED.
    pub lock: AtomicU32,
    /// Messages in the queue (`mq_curmsgs`). Lock; read anywhere.
    pub curmsgs: AtomicU32,
    /// First free slot that was used before, or [`NONE`]. Lock.
    pub free: AtomicU32,
    /// Bit g/64: some group of `level1[g/64]` is not empty. Lock.
    pub level0: AtomicU32,
    /// Number given to the last message, to keep the order within a priority; so many have been sent. Lock; read
    /// anywhere.
    pub seq: AtomicU64,
    /// Bytes in the queue (`QSIZE`). Lock; read anywhere.
    pub qsize: AtomicU64,
    /// Seconds of the last send or receive, CLOCK_REALTIME. Lock; read anywhere.
    pub used_sec: AtomicU64,
    /// Blocked receivers. Lock; head read anywhere.
    pub receivers: Line,
    /// Blocked senders. Lock; head read anywhere.
    pub senders: Line,
    /// First free waiter record used before, or [`NONE`]. Lock.
    pub waiter_free: AtomicU32,
    /// 1 + the CPU that a blocked sender, or one that served a receiver, ran on last.
    pub sender_cpu: AtomicU16,
    /// The same of receivers.
    pub receiver_cpu: AtomicU16,

    /// Bit g%64 of word g/64: group g is not empty. Lock.
    pub level1: [AtomicU64; 8],

    /// Slots ever used: those from here on are untouched. Lock.
    pub high: AtomicU32,
    /// Packets that the FIFO holds, [`TOKENS_UNKNOWN`] if they have to be counted. Lock.
    pub tokens: AtomicU32,
    /// Seconds of the last setattr, notify or read (changes atime and ctime only).
    pub touched_sec: AtomicU64,
    /// Bytes of the data area known to have memory behind them (while a slot is at most a page).
    pub committed: AtomicU64,
    /// Waiter records ever used. Lock.
    pub waiter_high: AtomicU32,
    /// Bumped whenever O_NONBLOCK of some description of this queue may have changed.
    pub nonblock_epoch: AtomicU32,
    /// Bit p: page p of the groups has memory behind it. Lock.
    pub groups_committed: AtomicU64,
    /// Seconds of creation.
    pub created_sec: AtomicU64,
    /// Inode of the creator's pid namespace. Immutable.
    pub pid_ns: AtomicU64,

    /// See [`Notify`].
    pub notify: Notify,
    /// Bytes of `name`.
    pub name_len: AtomicU32,
    /// Thread id of whoever writes a packet, outside the lock, and FUTEX_WAITERS if somebody waits for that to
    /// be over; the kernel marks it if the thread dies. Lock.
    pub teller: AtomicU32,
    /// The name it was created under, without the slash; for people, not for lookups.
    pub name: [u8; NAME_MAX + 1],
    /// 1 + `st_size`, where ftruncate(2) through a descriptor could not change the file's own; else 0.
    pub size: AtomicU64,
    /// Number given to the last waiter. Lock.
    pub waiter_seq: AtomicU64,
    /// Messages that were put into the queue for a sender, and taken out again because it was stopped: each has
    /// been given a number, and will get another one. Lock; read anywhere.
    pub retracted: AtomicU64,
    /// See [`Taps`].
    pub taps: Taps,
    /// Thread id of whoever is about to tell the owner of a registration that has fired, 0 once that is done; the kernel
    /// marks it if the thread dies meanwhile.
    pub firer: AtomicU32,
    /// When all who have a slot or a record were last asked whether they live, seconds. Lock.
    pub swept_sec: AtomicU32,
}
const _: () = assert!(size_of::<Header>() == 896);
const _: () = assert!(offset_of!(Header, lock) == 64);
const _: () = assert!(offset_of!(Header, level1) == 128);
const _: () = assert!(offset_of!(Header, high) == 192);
const _: () = assert!(offset_of!(Header, notify) == 248);
const _: () = assert!(offset_of!(Header, name) == 560);

/// `Slot::state`: nothing in it.
pub const FREE: u32 = 0;
/// `Slot::state`: a message of the queue.
pub const READY: u32 = 1;
/// `Slot::state`: a sender is writing it, or sleeps with its message in it; not in the queue.
pub const FILLING: u32 = 2;
/// `Slot::state`: given to one receiver; not in the queue any more.
pub const TAKEN: u32 = 3;

/// What is known of one message. The data lies elsewhere, at the slot's place.
#[repr(C)]
pub struct Slot {
    /// [`FREE`], [`READY`], [`FILLING`] or [`TAKEN`]: the truth that repair goes by.
    pub state: AtomicU32,
    /// Thread id of whoever fills or took it: the kernel marks it FUTEX_OWNER_DIED when that
    /// thread dies while copying.
    pub holder: AtomicU32,
    /// Bytes of the message.
    pub len: AtomicU32,
    /// Priority, 0..32768.
    pub priority: AtomicU32,
    /// Age within the priority.
    pub seq: AtomicU64,
    /// Next slot of the chain (priority's ring, or free list).
    pub next: AtomicU32,
    /// Bytes at its place known to have memory behind them.
    pub committed: AtomicU32,
}
const _: () = assert!(size_of::<Slot>() == 32);

/// 64 priorities: which of them have messages, and the last slot of each one's ring.
#[repr(C)]
pub struct Group {
    /// Bit p%64: priority p has messages.
    pub bits: AtomicU64,
    /// Last slot of the ring of each priority; its `next` is the oldest.
    pub tails: [AtomicU32; 64],
}
const _: () = assert!(size_of::<Group>() == 264);
/// Number of groups.
pub const GROUPS: u32 = 512;

/// `Waiter::state`: not in use.
pub const W_FREE: u32 = 0;
/// `Waiter::state`: in the line.
pub const W_QUEUED: u32 = 1;
/// `Waiter::state`: served, has not noticed yet.
pub const W_SERVED: u32 = 2;
/// `Waiter::state`: out of the line (a signal handler runs, or it was stopped); will try again.
pub const W_OUT: u32 = 3;

/// One blocked caller.
#[repr(C, align(64))]
pub struct Waiter {
    /// What it sleeps on: its thread id, with [`WORD_ASLEEP`] when it needs a wake, or
    /// [`WORD_UNARMED`] while its death would go unnoticed; 0 once it is served. The kernel replaces
    /// the thread id by FUTEX_OWNER_DIED when the thread dies.
    pub word: AtomicU32,
    /// `W_*`. Lock.
    pub state: AtomicU32,
    /// Neighbours in the line, or [`NONE`]. Lock.
    pub next: AtomicU32,
    /// See `next`.
    pub prev: AtomicU32,
    /// 0 receiver, 1 sender.
    pub kind: AtomicU32,
    /// The slot with its message (sender), or given to it (receiver), or [`NONE`].
    pub slot: AtomicU32,
    /// Scheduling priority as the kernel orders it: lower is served first.
    pub rank: AtomicI32,
    /// Its thread id, for those who show waiters.
    pub tid: AtomicU32,
    /// Order of arrival.
    pub ticket: AtomicU64,
    /// Inode of its pid namespace (a thread id means nothing outside).
    pub pid_ns: AtomicU64,
    /// Zero.
    pub pad: [AtomicU64; 2],
}
const _: () = assert!(size_of::<Waiter>() == 64);

/// `Waiter::word`: sleeps in the kernel and needs a wake (the futex bit FUTEX_WAITERS).
pub const WORD_ASLEEP: u32 = 0x8000_0000;
/// `Waiter::word`, beside a thread id: the kernel would not announce the thread's death here now.
/// (Alone it is the kernel's FUTEX_OWNER_DIED, whose meaning it completes.)
pub const WORD_UNARMED: u32 = 0x4000_0000;
/// `Waiter::word`, beside a thread id: out of the line. No sleep begins on it.
pub const WORD_OUT: u32 = WORD_ASLEEP | WORD_UNARMED;
/// Thread id in a futex word.
pub const TID_MASK: u32 = 0x3fff_ffff;

/// Waiter records of a queue.
pub const WAITERS: u32 = 8192;
const PAGE: u64 = 4096;
/// Data up to this many bytes lies in the first page.
const SMALL_DATA: u64 = 1024;

/// Where the parts of a segment lie, bytes from its beginning. A function of the attributes alone,
/// so nothing of it is stored in (or believed from) shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// `mq_maxmsg`.
    pub maxmsg: u32,
    /// `mq_msgsize`, bytes.
    pub msgsize: u32,
    /// Bytes from one slot's data to the next.
    pub stride: u64,
    /// `maxmsg` and those that blocked senders and messages under way use.
    pub slots: u32,
    /// Slots below `maxmsg`.
    pub slots_at: u64,
    /// Slots from `maxmsg` on.
    pub spare_slots_at: u64,
    /// Data of the slots below `maxmsg`.
    pub data_at: u64,
    /// Data of the slots from `maxmsg` on.
    pub spare_data_at: u64,
    /// The groups of the priority index.
    pub groups_at: u64,
    /// Waiter records.
    pub waiters_at: u64,
    /// The ring of those who tap.
    pub ring_at: u64,
    /// Its length, a multiple of the page size; two messages fit at the least.
    pub ring_len: u64,
    /// Whole length, a multiple of the page size.
    pub len: u64,
}

const fn align(value: u64, to: u64) -> u64 {
    value.div_ceil(to) * to
}

impl Layout {
    /// The layout for these attributes, which are within 1..=HARD_MSGMAX and 1..=HARD_MSGSIZEMAX.
    pub const fn new(maxmsg: u32, msgsize: u32) -> Layout {
        // Slots that hold whole cache lines don't share them; tiny messages are packed instead.
        let unit = if msgsize <= 64 { 8 } else { 64 };
        let stride = align(msgsize as u64, unit);
        // A sleeping sender's message waits in a slot of its own, so that a receive can put it into
        // the queue in one step, as the kernel does.
        let spare = match stride {
            ..=8192 => WAITERS,
            8193..=65536 => WAITERS / 2,
            _ => WAITERS / 8,
        };
        let data_len = maxmsg as u64 * stride;
        let slots_at = size_of::<Header>() as u64;
        let slots_end = slots_at + maxmsg as u64 * size_of::<Slot>() as u64;
        let small = data_len <= SMALL_DATA && slots_end + data_len + 2 * size_of::<Group>() as u64 <= PAGE;
        let small_at = align(slots_end, 64);
        let groups_at = if small { align(small_at + data_len, 8) } else { align(slots_end, 8) };
        let waiters_at = align(groups_at + GROUPS as u64 * size_of::<Group>() as u64, PAGE);
        let after = waiters_at + WAITERS as u64 * size_of::<Waiter>() as u64;
        let data_at = if small { small_at } else { after };
        let spare_slots_at = if small { after } else { align(data_at + data_len, PAGE) };
        let spare_data_at = align(spare_slots_at + spare as u64 * size_of::<Slot>() as u64, PAGE);
        let ring_at = align(spare_data_at + spare as u64 * stride, PAGE);
        let two = 2 * record_size(msgsize);
        let ring_len = align(if two > RING { two } else { RING }, PAGE);
        Layout {
            maxmsg,
            msgsize,
            stride,
            slots: maxmsg + spare,
            slots_at,
            spare_slots_at,
            data_at,
            spare_data_at,
            groups_at,
            waiters_at,
            ring_at,
            ring_len,
            len: ring_at + ring_len,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_overlap() {
        for &(maxmsg, msgsize) in &[(1, 1), (10, 64), (10, 8192), (16, 64), (65536, 8192), (65536, 16 << 20), (60, 16)]
        {
            let l = Layout::new(maxmsg, msgsize);
            let mut parts = [
                (0, size_of::<Header>() as u64),
                (l.slots_at, maxmsg as u64 * 32),
                (l.data_at, maxmsg as u64 * l.stride),
                (l.groups_at, 512 * 264),
                (l.waiters_at, WAITERS as u64 * 64),
                (l.spare_slots_at, (l.slots - maxmsg) as u64 * 32),
                (l.spare_data_at, (l.slots - maxmsg) as u64 * l.stride),
                (l.ring_at, l.ring_len),
            ];
            parts.sort();
            for pair in parts.windows(2) {
                assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{maxmsg}x{msgsize}: {parts:?}");
            }
            assert!(parts[7].0 + parts[7].1 <= l.len);
        }
    }

    #[test]
    fn a_small_queue_fits_into_one_page() {
        let l = Layout::new(10, 64);
        assert!(l.groups_at + size_of::<Group>() as u64 <= 4096 && l.data_at < 4096);
    }
}
