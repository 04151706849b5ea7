//! A signal that the kernel sends for whoever may not, or cannot name its receiver.
//!
//! A bell is an empty file with a lease on it (fcntl(2), F_SETLEASE): to open the file for writing breaks the
//! lease, and the kernel signals the process that holds it, by the credentials with which that process
//! asked for it. The lease belongs to the open file description, which a mapping keeps: a bell takes no descriptor
//! number, is not inherited (MADV_DONTFORK) and ends with exec and with the process.
//!
//! The file lies beside the FIFO, one of each user who has registered; the queue's end takes it away.

use core::sync::atomic::Ordering::Relaxed;

use crate::abi::{Errno, F_SETSIG, Result};
use crate::ns::Place;
use crate::ns::queues::keyed;
use crate::shm::Map;
use crate::sys::getpid;
use crate::sys::path::Path;
use crate::syscall;

/// Of this process, hanging.
pub struct Bell {
    /// Where it is mapped.
    pub address: usize,
    /// What `Notify::bell` is while it is the queue's.
    pub number: u32,
    /// What its signal says in si_fd.
    pub fd: i32,
}

const F_SETLEASE: i32 = 1024;
const PAGE: usize = 4096;

fn path(map: &Map, uid: u32) -> Result<Path> {
    let mut path = keyed(Place::of(map.place.load(Relaxed))?, map.key, b".b")?;
    path.push_decimal(uid.into())?;
    Ok(path)
}

/// Hangs a new bell for the queue, under its lock, in the place of the last: ringing it sends signal `signo`
/// to this process.
///
/// # Errors
///
/// Those of the file calls; EINVAL: the file system has no leases.
pub fn hang(map: &Map, signo: i32) -> Result<Bell> {
    let n = &map.header().notify;
    // SAFETY: no pointers. (The user of file access is the effective one, but for NFS servers.)
    let uid = unsafe { syscall!(SYS_geteuid)? } as u32;
    remove(map);
    n.bell_uid.store(0, Relaxed);
    let path = path(map, uid)?;
    let flags = libc::O_RDONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
    let file = match path.open_own(flags) {
        Err(Errno::EEXIST) => {
            path.unlink()?;
            path.open_own(flags)?
        }
        other => other?,
    };
    let number = n.bell.load(Relaxed).wrapping_add(1);
    n.bell.store(number, Relaxed);
    n.bell_uid.store(uid.wrapping_add(1), Relaxed);
    crate::crash_point!("bell.made");
    file.chmod(0o622)?;
    // SAFETY: no pointers; a fresh mapping, whose pages nobody touches.
    let address = unsafe {
        syscall!(SYS_fcntl, file.0, libc::F_SETOWN, getpid())?;
        syscall!(SYS_fcntl, file.0, F_SETSIG, signo)?;
        syscall!(SYS_fcntl, file.0, F_SETLEASE, libc::F_RDLCK)?;
        let address = syscall!(SYS_mmap, 0, PAGE, libc::PROT_NONE, libc::MAP_SHARED, file.0, 0)?;
        if let Err(errno) = syscall!(SYS_madvise, address, PAGE, libc::MADV_DONTFORK) {
            take_down(address);
            return Err(errno);
        }
        address
    };
    crate::crash_point!("bell.hung");
    Ok(Bell { address, number, fd: file.0 })
}

/// Takes a bell down; it can be rung no more.
pub fn take_down(address: usize) {
    // SAFETY: a mapping that `hang` has made, and nobody uses.
    let _ = unsafe { syscall!(SYS_munmap, address, PAGE) };
}

/// Rings the queue's bell.
pub fn ring(map: &Map) {
    let uid = map.header().notify.bell_uid.load(Relaxed);
    if uid != 0
        && let Ok(path) = path(map, uid.wrapping_sub(1))
    {
        // EWOULDBLOCK: the lease is being broken, which is all that was wanted.
        let _ = path.open_own(libc::O_WRONLY | libc::O_NONBLOCK | libc::O_NOFOLLOW);
        crate::crash_point!("bell.rung");
    }
}

/// Takes the file of the queue's bell away, if this user may.
pub fn remove(map: &Map) {
    let uid = map.header().notify.bell_uid.load(Relaxed);
    if uid != 0
        && let Ok(path) = path(map, uid.wrapping_sub(1))
    {
        let _ = path.unlink();
    }
}
