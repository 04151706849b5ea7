//! Readiness: the FIFO behind a descriptor holds as many packets as poll(2) has to show.
//!
//! None: empty (POLLOUT). One: some (POLLIN and POLLOUT). Two, which is all it takes: full (POLLIN).
//! A packet costs two system calls, so there are packets only for those who need them:
//!
//! * Who sleeps in poll(2) for a message, and looks into the queue itself before and after, [`arm`]s the
//!   queue: the next message makes a packet, once. It lies there until the next who arms takes it out.
//! * For all others (edge-triggered, waiting for room, or in a set of the kernel's that holds other
//!   things as well) the packets have to follow the queue all the time, from [`watch`] on.
//!
//! The packet of a message that makes the queue ready is written after the unlock ([`Tell`]): whoever is
//! woken may run at once, on this CPU, and wants the lock. `Header::teller` says that it is under way. All
//! other packets are written, and all are read, under the lock. `Header::tokens` says how many there
//! are; the FIFO itself tells for certain, and is asked before anything is read from it.

use super::wait::note_cpu;
use super::{Section, enter};
use crate::abi::{Errno, Result};
use crate::machine::atomic::{AtomicU32, Ordering::Relaxed};
use crate::shm::Map;
use crate::shm::layout::{F_ARMED, F_MIXED_PIDS, F_POLLED, F_POLLED_EDGE, TID_MASK, TOKENS_UNKNOWN};
use crate::shm::lock::is_gone;
use crate::sys::futex::{self, Timespec};
use crate::sys::tls::Tls;
use crate::syscall;

/// Two pages: with packets of one page each, room for two.
const FIFO_BYTES: usize = 8192;
/// `Header::teller`: somebody waits for it to be done.
const WAITED_FOR: u32 = libc::FUTEX_WAITERS;
/// How long such a one trusts the kernel to announce the teller's death, ns.
const TRUST_NS: u64 = 20_000_000;
/// And how often. (Among several pid namespaces nobody can tell otherwise.)
const MOST_ROUNDS: u32 = 50;

/// What poll(2) shows of a queue.
pub const IN: u32 = (libc::POLLIN | libc::POLLRDNORM) as u32;
/// See [`IN`].
pub const OUT: u32 = (libc::POLLOUT | libc::POLLWRNORM) as u32;

/// The events that a queue is ready for now, [`IN`] and [`OUT`].
#[inline(always)]
pub fn readiness(map: &Map) -> u32 {
    let curmsgs = map.header().curmsgs.load(Relaxed);
    (if curmsgs != 0 { IN } else { 0 }) | (if curmsgs < map.maxmsg { OUT } else { 0 })
}

/// Adds a packet. Whoever may use the queue may have filled the FIFO, or made it smaller, so that the kernel is asked
/// first whether there is room: a write that blocks would never end.
///
/// # Errors
///
/// EAGAIN: there is none.
fn add(fd: i32) -> Result<()> {
    let mut room = libc::pollfd { fd, events: libc::POLLOUT, revents: 0 };
    let now = Timespec { sec: 0, nsec: 0 };
    // SAFETY: one structure and a time, both locals. (poll(2) itself is not on every architecture.)
    let ready = unsafe { syscall!(SYS_ppoll, &raw mut room, 1, &raw const now, 0, 8) };
    if ready != Ok(1) || room.revents & libc::POLLOUT == 0 {
        return Err(Errno::EAGAIN);
    }
    let byte = 0u8;
    // SAFETY: one byte of a local.
    unsafe { syscall!(SYS_write, fd, &raw const byte, 1) }.map(|_| ())
}

/// Removes a packet; `have` is what [`count`] has just said, and what it would say now. It need not be one of ours,
/// with one byte: what is counted are the bytes.
fn remove(fd: i32, have: &mut u32) -> Result<()> {
    let mut bytes = [0u8; 16];
    // SAFETY: the buffer is as long as said.
    let got = unsafe { syscall!(SYS_read, fd, bytes.as_mut_ptr(), bytes.len())? };
    // Of a longer packet the rest is gone as well.
    *have = if got == bytes.len() { count(fd) } else { have.saturating_sub(got.max(1) as u32) };
    Ok(())
}

/// Packets that are there.
fn count(fd: i32) -> u32 {
    let mut bytes = 0i32;
    // SAFETY: the result goes to a local.
    match unsafe { syscall!(SYS_ioctl, fd, libc::FIONREAD, &raw mut bytes) } {
        Ok(_) => bytes.max(0) as u32,
        Err(Errno(_)) => 0,
    }
}

/// Packets that should be there now, if they follow the queue.
fn wanted(map: &Map) -> u32 {
    match map.header().curmsgs.load(Relaxed) {
        0 => 0,
        n if n < map.maxmsg => 1,
        _ => 2,
    }
}

/// Whether somebody writes a packet just now; one that has died does not.
fn is_being_told(map: &Map) -> bool {
    let h = map.header();
    let teller = h.teller.load(Relaxed);
    if teller == 0 {
        return false;
    }
    let tid = teller & TID_MASK;
    if tid == 0 || h.flags.load(Relaxed) & F_MIXED_PIDS == 0 && is_gone(tid) {
        h.teller.store(0, Relaxed);
        h.tokens.store(TOKENS_UNKNOWN, Relaxed);
        return false;
    }
    true
}

/// A packet that is to be written once the lock is released, see [`Section::tell`].
pub(super) struct Tell;

/// A message was put into the queue: what is to be done for those who poll, as far as that cannot be done
/// at once. Under the lock.
#[cold]
#[inline(never)]
pub(super) fn sent(section: &Section<'_>, fd: i32) -> Option<Tell> {
    let h = section.map.header();
    let flags = h.flags.load(Relaxed);
    let edge = flags & F_POLLED_EDGE != 0;
    if flags & F_POLLED == 0 {
        note_cpu(section.map, true);
    }
    if edge || h.tokens.load(Relaxed) != 0 || h.teller.load(Relaxed) != 0 {
        sync(section, fd, edge);
        return None;
    }
    h.teller.store(section.tls.tid.load(Relaxed), Relaxed);
    h.tokens.store(1, Relaxed);
    Some(Tell)
}

impl Section<'_> {
    /// Releases the lock and writes the packet; then looks again. Signal handlers are put off
    /// until it is done, for they might not come back.
    ///
    /// If the thread dies before it has looked again, the kernel marks the teller's word, and the next operation
    /// counts the packets (as it does after a death in a critical section).
    #[cold]
    #[inline(never)]
    pub(super) fn tell(self, fd: i32, _: Tell) {
        let (map, tls) = (self.map, self.tls);
        tls.enter_critical();
        let outer = self.into_held().release_towards(&map.header().teller);
        crate::crash_point!("tell.unlocked");
        let written = add(fd).is_ok();
        crate::crash_point!("tell.written");
        told(map, tls, fd, written);
        tls.robust().list_op_pending.store(outer, Relaxed);
        tls.leave_critical();
    }
}

fn told(map: &Map, tls: &Tls, fd: i32, written: bool) {
    let Ok(section) = enter(map, tls) else { return };
    let h = map.header();
    let mut waited_for = false;
    let teller = h.teller.load(Relaxed);
    if teller & TID_MASK == tls.tid.load(Relaxed) {
        h.teller.store(0, Relaxed);
        waited_for = teller & WAITED_FOR != 0;
    }
    if !written {
        h.tokens.store(TOKENS_UNKNOWN, Relaxed);
    }
    if h.tokens.load(Relaxed) == 1 && h.flags.load(Relaxed) & F_POLLED == 0 {
        // Nobody has armed since: all who did are awake.
        h.flags.fetch_and(!F_ARMED, Relaxed);
    } else {
        sync(&section, fd, false);
    }
    drop(section);
    if waited_for {
        futex::wake(&h.teller, u32::MAX >> 1);
    }
}

/// Whoever was to tell those who poll may be dead: tells them.
#[cold]
pub(super) fn stand_in(section: &Section<'_>, fd: i32) {
    let told = !is_being_told(section.map);
    if told && section.map.header().flags.load(Relaxed) & (F_POLLED | F_ARMED) != 0 {
        sync(section, fd, true);
    }
}

/// Brings the packets in step with the queue, under its lock. `edge`: the operation is one after
/// which an edge-triggered poller gets an event even though the state may look the same.
#[cold]
#[inline(never)]
pub(super) fn sync(section: &Section<'_>, fd: i32, edge: bool) {
    let map = section.map;
    let h = map.header();
    let flags = h.flags.load(Relaxed);
    let edge = edge && flags & F_POLLED_EDGE != 0;
    let follows = flags & F_POLLED != 0;
    let want = wanted(map);
    let being_told = is_being_told(map);
    if follows && h.tokens.load(Relaxed) == want && !edge && !being_told {
        return;
    }
    let mut have = count(fd);
    if !follows {
        // One is enough, and it stays.
        if want > 0 && (have > 0 || add(fd).is_ok()) {
            crate::crash_point!("packets.added");
            have = have.max(1);
            h.flags.fetch_and(!F_ARMED, Relaxed);
        }
        h.tokens.store(if being_told { TOKENS_UNKNOWN } else { have }, Relaxed);
        return;
    }
    // Room for the one that is under way; who writes it looks again.
    let most = if being_told { 1 } else { 2 };
    if edge {
        // A write wakes those who wait for POLLIN, a read from a full FIFO those for POLLOUT.
        if have == 2 {
            let _ = remove(fd, &mut have);
        }
        while have < most && add(fd).is_ok() {
            crate::crash_point!("packets.added");
            have += 1;
        }
    }
    while have < want.min(most) && add(fd).is_ok() {
        crate::crash_point!("packets.added");
        have += 1;
    }
    while have > want && remove(fd, &mut have).is_ok() {
        crate::crash_point!("packets.removed");
    }
    // If a call failed somebody else has interfered with the FIFO: count anew next time.
    h.tokens.store(if have == want && !being_told { want } else { TOKENS_UNKNOWN }, Relaxed);
}

/// The caller is going to sleep in poll(2) until there is a message, and has looked; false: there is one. It looks
/// again when it wakes: what the kernel says may be out of date.
///
/// # Errors
///
/// EIO: the queue is damaged.
pub fn arm(map: &Map, tls: &Tls, fd: i32) -> Result<bool> {
    let section = enter(map, tls)?;
    let h = map.header();
    if h.curmsgs.load(Relaxed) != 0 {
        return Ok(false);
    }
    if h.flags.load(Relaxed) & F_POLLED != 0 {
        sync(&section, fd, false);
        return Ok(true);
    }
    if h.tokens.load(Relaxed) != 0 || h.teller.load(Relaxed) != 0 {
        let being_told = is_being_told(map);
        let mut have = count(fd);
        while have > 0 && remove(fd, &mut have).is_ok() {}
        h.tokens.store(if being_told { TOKENS_UNKNOWN } else { have }, Relaxed);
    }
    h.flags.fetch_or(F_ARMED, Relaxed);
    note_cpu(map, false);
    Ok(true)
}

/// Has those who sleep in poll(2) on `fd` look at the queue: it is new to them.
///
/// # Errors
///
/// EIO: the queue is damaged.
pub fn show(map: &Map, tls: &Tls, fd: i32) -> Result<()> {
    let section = enter(map, tls)?;
    map.header().flags.fetch_or(F_ARMED, Relaxed);
    sync(&section, fd, false);
    Ok(())
}

/// Somebody is going to poll `fd` who only knows what the kernel says: from now on the packets follow the
/// queue. `edge`: with EPOLLET.
///
/// # Errors
///
/// EIO: the queue is damaged.
pub fn watch(map: &Map, tls: &Tls, fd: i32, edge: bool) -> Result<()> {
    let need = if edge { F_POLLED | F_POLLED_EDGE } else { F_POLLED };
    let h = map.header();
    // Somebody may have died between queue and packets, which would show poll(2) the wrong state.
    let in_step = || {
        h.tokens.load(Relaxed) == wanted(map)
            && h.teller.load(Relaxed) == 0
            && h.lock.load(Relaxed) & libc::FUTEX_OWNER_DIED == 0
    };
    if h.flags.load(Relaxed) & need == need && in_step() {
        return Ok(());
    }
    for round in 0.. {
        let section = enter(map, tls)?;
        if round < MOST_ROUNDS && is_being_told(map) {
            // It might be the third packet, for which there is no room.
            let waited_for = h.teller.load(Relaxed) | WAITED_FOR;
            h.teller.store(waited_for, Relaxed);
            drop(section);
            wait_for_teller(&h.teller, waited_for);
            continue;
        }
        h.teller.store(0, Relaxed);
        h.flags.fetch_or(need, Relaxed);
        h.flags.fetch_and(!F_ARMED, Relaxed);
        resize_and_sync(&section, fd);
        break;
    }
    Ok(())
}

#[cold]
fn wait_for_teller(teller: &AtomicU32, value: u32) {
    let _ = futex::wait_for(teller, value, TRUST_NS);
}

/// A description was opened anew. If nobody had the FIFO open its packets are gone, and its size.
pub fn reopened(map: &Map, tls: &Tls, fd: i32) -> Result<()> {
    let h = map.header();
    if h.flags.load(Relaxed) & (F_POLLED | F_ARMED) == 0 && h.tokens.load(Relaxed) == 0 {
        return Ok(());
    }
    let section = enter(map, tls)?;
    if h.flags.load(Relaxed) & F_POLLED != 0 {
        resize_and_sync(&section, fd);
    } else {
        h.tokens.store(TOKENS_UNKNOWN, Relaxed);
    }
    Ok(())
}

fn resize_and_sync(section: &Section<'_>, fd: i32) {
    // Only if need be: a change of size wakes pollers.
    // SAFETY: no pointers.
    unsafe {
        if syscall!(SYS_fcntl, fd, libc::F_GETPIPE_SZ) != Ok(FIFO_BYTES) {
            let _ = syscall!(SYS_fcntl, fd, libc::F_SETPIPE_SZ, FIFO_BYTES);
        }
    }
    section.map.header().tokens.store(TOKENS_UNKNOWN, Relaxed);
    sync(section, fd, false);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::store::{link, take_free};
    use crate::queue::{Buffer, try_receive};
    use crate::shm::layout::TOKENS_UNKNOWN;
    use crate::sys::tls;

    /// A FIFO as queues have them, but for O_NONBLOCK: a third packet is an error here.
    fn fifo(name: &str) -> i32 {
        let path = std::ffi::CString::new(format!("/dev/shm/mqns-test-{name}-{}", std::process::id())).unwrap();
        // SAFETY: a NUL-terminated path.
        unsafe {
            assert_eq!(libc::mkfifo(path.as_ptr(), 0o600), 0);
            let fd = libc::open(path.as_ptr(), libc::O_RDWR | libc::O_NONBLOCK);
            assert_eq!(libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK | libc::O_DIRECT), 0);
            libc::unlink(path.as_ptr());
            fd
        }
    }

    /// Puts a message into the queue, up to the unlock.
    fn send(map: &Map, tls: &'static Tls, fd: i32) -> Option<Tell> {
        let section = enter(map, tls).unwrap();
        let (index, slot) = take_free(map, 8, tls.tid.load(Relaxed)).unwrap();
        slot.len.store(0, Relaxed);
        slot.priority.store(0, Relaxed);
        link(map, index, slot).unwrap();
        if map.header().flags.load(Relaxed) & (F_POLLED | F_ARMED) != 0 { sent(&section, fd) } else { None }
    }

    fn receive(map: &Map, tls: &'static Tls, fd: i32) {
        let mut bytes = [0u8; 8];
        let buffer = Buffer { data: bytes.as_mut_ptr(), priority: core::ptr::null_mut() };
        // SAFETY: the buffer has room for the longest message.
        unsafe { try_receive(map, tls, fd, buffer) }.unwrap();
    }

    /// One who writes a packet is overtaken by all the others at each step, at random; nobody is ever left
    /// asleep beside a message, and packets that follow are right whenever nobody is about to write one.
    #[test]
    fn nobody_sleeps_beside_a_message() {
        let tls = tls::ready().unwrap();
        let fd = fifo("poll");
        for seed in 1..400u64 {
            let map = Map::anonymous(1 + (seed % 3) as u32, 8);
            let h = map.header();
            let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut below = |n: u64| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random % n
            };
            // One who has claimed the packet, and whether it has written it.
            let mut teller: Option<bool> = None;
            let mut asleep = false;
            for step in 0..300 {
                let follows = h.flags.load(Relaxed) & F_POLLED != 0;
                match below(8) {
                    0..=2 if h.curmsgs.load(Relaxed) < map.maxmsg => {
                        let tell = send(&map, tls, fd).map(|_| false);
                        assert!(tell.is_none() || teller.is_none(), "one at a time");
                        teller = tell.or(teller);
                    }
                    3 | 4 if h.curmsgs.load(Relaxed) > 0 => receive(&map, tls, fd),
                    5 => asleep |= arm(&map, tls, fd).unwrap(),
                    6 | 7 => match teller {
                        Some(false) => {
                            add(fd).expect("room for the packet");
                            teller = Some(true);
                        }
                        Some(true) => {
                            told(&map, tls, fd, true);
                            teller = None;
                        }
                        None if seed % 2 == 0 && step > 150 && !follows => watch(&map, tls, fd, false).unwrap(),
                        None => {}
                    },
                    _ => {}
                }
                let packets = count(fd);
                asleep &= packets == 0;
                let at = format!("seed {seed}, step {step}");
                assert!(packets <= 2, "{at}");
                if teller.is_none() {
                    assert_eq!(h.teller.load(Relaxed), 0, "{at}");
                    assert!(!asleep || h.curmsgs.load(Relaxed) == 0, "{at}: asleep beside a message");
                    if h.flags.load(Relaxed) & F_POLLED != 0 {
                        assert_eq!((packets, h.tokens.load(Relaxed)), (wanted(&map), wanted(&map)), "{at}");
                    }
                }
            }
            while count(fd) > 0 {
                remove(fd, &mut 2).unwrap();
            }
            map.unmap();
        }
        // SAFETY: ours.
        unsafe { libc::close(fd) };
    }

    /// Who dies between claiming the packet and writing it is found out: by the kernel's mark, by its absence, or by
    /// the death in a critical section that follows.
    #[test]
    fn packets_of_the_dead_are_written_by_the_next() {
        let tls = tls::ready().unwrap();
        let fd = fifo("dead");
        for how in 0..3 {
            let map = Map::anonymous(4, 8);
            let h = map.header();
            assert_eq!(arm(&map, tls, fd), Ok(true));
            assert!(send(&map, tls, fd).is_some());
            match how {
                0 => h.teller.store(libc::FUTEX_OWNER_DIED, Relaxed),
                1 => h.teller.store(TID_MASK, Relaxed),
                _ => h.lock.store(libc::FUTEX_OWNER_DIED, Relaxed),
            }
            assert_eq!(count(fd), 0);
            assert!(send(&map, tls, fd).is_none(), "{how}: at once");
            assert_eq!((count(fd), h.teller.load(Relaxed)), (1, 0), "{how}");
            assert_eq!(h.flags.load(Relaxed) & F_ARMED, 0, "{how}");
            // And for those whose packets follow.
            watch(&map, tls, fd, false).unwrap();
            receive(&map, tls, fd);
            receive(&map, tls, fd);
            assert_eq!(count(fd), 0);
            assert!(send(&map, tls, fd).is_some());
            h.teller.store(libc::FUTEX_OWNER_DIED, Relaxed);
            assert_eq!(h.tokens.load(Relaxed), 1);
            watch(&map, tls, fd, false).unwrap();
            assert_eq!((count(fd), h.tokens.load(Relaxed)), (1, 1), "{how}");
            assert_ne!(h.tokens.load(Relaxed), TOKENS_UNKNOWN);
            receive(&map, tls, fd);
            assert_eq!(count(fd), 0);
            map.unmap();
        }
        // SAFETY: ours.
        unsafe { libc::close(fd) };
    }
}
