//! Readiness: the FIFO behind a descriptor holds as many packets as poll(2) has to show.
//!
//! None: empty (POLLOUT). One: some (POLLIN and POLLOUT). Two, which is all it takes: full (POLLIN).
//! Kept in step with the queue only once somebody has polled ([`watch`]), because a packet costs
//! two system calls. `Header::tokens` says how many there should be; the FIFO itself tells how many
//! there are, so a crash in between is made good by the next who counts.

use core::sync::atomic::Ordering::Relaxed;

use super::{Section, enter};
use crate::abi::{Errno, Result};
use crate::shm::Map;
use crate::shm::layout::{F_POLLED, F_POLLED_EDGE};
use crate::sys::tls::Tls;
use crate::syscall;

/// Two pages: with packets of one page each, room for two.
const FIFO_BYTES: usize = 8192;

/// Adds or removes one packet. Does not block, because there is room, or one, by [`count`]: all who
/// write or read packets hold the queue's lock.
fn token(fd: i32, write: bool) -> Result<()> {
    let mut byte = 0u8;
    // SAFETY: one byte to or from a local.
    unsafe {
        if write {
            syscall!(SYS_write, fd, &raw const byte, 1)?;
        } else {
            syscall!(SYS_read, fd, &raw mut byte, 1)?;
        }
    }
    Ok(())
}

/// Packets that should be there now.
fn wanted(map: &Map) -> u32 {
    match map.header().curmsgs.load(Relaxed) {
        0 => 0,
        n if n < map.maxmsg => 1,
        _ => 2,
    }
}

/// Brings the packets in step with the queue, under its lock. `edge`: the operation is one after
/// which an edge-triggered poller gets an event even though the state may look the same.
#[cold]
#[inline(never)]
pub(super) fn sync(section: &Section<'_>, fd: i32, edge: bool) {
    let map = section.map;
    let h = map.header();
    let want = wanted(map);
    let edge = edge && h.flags.load(Relaxed) & F_POLLED_EDGE != 0;
    if h.tokens.load(Relaxed) == want && !edge {
        return;
    }
    let mut have = count(fd);
    if edge {
        // A write wakes those who wait for POLLIN, a read from a full FIFO those for POLLOUT.
        if have == 2 && token(fd, false).is_ok() {
            have = 1;
        }
        while have < 2 && token(fd, true).is_ok() {
            have += 1;
        }
    }
    while have < want && token(fd, true).is_ok() {
        have += 1;
    }
    while have > want && token(fd, false).is_ok() {
        have -= 1;
    }
    // If a call failed somebody else has interfered with the FIFO: count anew next time.
    h.tokens.store(if have == want { want } else { u32::MAX }, Relaxed);
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

/// Somebody is going to poll `fd`: from now on the packets follow the queue. `edge`: with EPOLLET.
///
/// # Errors
///
/// EIO: the queue is damaged.
pub fn watch(map: &Map, tls: &Tls, fd: i32, edge: bool) -> Result<()> {
    let need = if edge { F_POLLED | F_POLLED_EDGE } else { F_POLLED };
    let h = map.header();
    // Somebody may have died between queue and packets, which would show poll(2) the wrong state.
    let in_step = h.tokens.load(Relaxed) == wanted(map) && h.lock.load(Relaxed) & libc::FUTEX_OWNER_DIED == 0;
    if h.flags.load(Relaxed) & need == need && in_step {
        return Ok(());
    }
    let section = enter(map, tls)?;
    map.header().flags.fetch_or(need, Relaxed);
    resize_and_sync(&section, fd);
    Ok(())
}

/// A description was opened anew. If nobody had the FIFO open its packets are gone, and its size.
pub fn reopened(map: &Map, tls: &Tls, fd: i32) -> Result<()> {
    if map.header().flags.load(Relaxed) & F_POLLED == 0 {
        return Ok(());
    }
    let section = enter(map, tls)?;
    resize_and_sync(&section, fd);
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
    section.map.header().tokens.store(u32::MAX, Relaxed);
    sync(section, fd, false);
}
