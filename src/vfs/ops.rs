//! What path calls do in a superblock, in the kernel's order of checks.
//!
//! Where a directory of any file system gives the answer of the mqueue file system the kernel is left to it;
//! here is the rest. Nothing here is a place of its own: queues are opened, made and removed by
//! [`crate::ns::queues`], and changed by [`crate::face`].

use super::{Target, through};
use crate::abi::{Errno, Result};
use crate::desc;
use crate::face;
use crate::maps::Pinned;
use crate::ns::{self, life, member, queues};
use crate::sys::path::Fd;
use crate::sys::tls::Tls;
use crate::syscall;

/// Gives a descriptor the flag that the caller asked for: they are opened close-on-exec.
fn keep_over_exec(fd: i32, flags: i32) {
    if flags & libc::O_CLOEXEC == 0 {
        // SAFETY: no pointers.
        let _ = unsafe { syscall!(SYS_fcntl, fd, libc::F_SETFD, 0) };
    }
}

/// open(2), creat(2): a queue descriptor.
///
/// # Errors
///
/// As open(2); EACCES: to be made in a namespace that has ended; ENOSPC, EMFILE: the limits of that
/// namespace.
pub fn open(tls: &'static Tls, target: &Target, flags: i32, mode: u32) -> Result<usize> {
    let create = flags & libc::O_CREAT != 0;
    if target.beneath {
        return Err(Errno::ENOTDIR);
    }
    if target.slash && !create {
        return Err(target.stat().map_or_else(|errno| errno, |_| Errno::ENOTDIR));
    }
    if flags & libc::O_PATH != 0 || flags & libc::O_TMPFILE == libc::O_TMPFILE {
        return kernel_open(target, flags).map(|fd| fd.release() as usize);
    }
    if create && flags & libc::O_DIRECTORY != 0 {
        return Err(Errno::EINVAL);
    }
    if create && target.slash {
        return Err(Errno(libc::EISDIR));
    }
    let exclusive = create && flags & libc::O_EXCL != 0;
    // Of a file that never becomes a queue nothing is known but that somebody has damaged it.
    for _ in 0..1000 {
        let exists = match target.stat() {
            Ok(_) => true,
            Err(Errno::ENOENT) if create => false,
            Err(errno) => return Err(errno),
        };
        if exists && exclusive {
            return Err(Errno::EEXIST);
        }
        let opened = if exists { open_existing(tls, target, flags) } else { make(tls, target, flags, mode).map(Some) };
        match opened {
            // Unlinked or made just now: each turn somebody else has made progress.
            Ok(None) => {}
            Err(Errno::EEXIST) if !exists && !exclusive => {}
            Ok(Some(fd)) => {
                keep_over_exec(fd, flags);
                return Ok(fd as usize);
            }
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::EIO)
}

fn kernel_open(target: &Target, flags: i32) -> Result<Fd> {
    let path = target.path();
    // SAFETY: the path is NUL-terminated.
    let fd = unsafe { syscall!(SYS_openat, target.dir.0, path.as_ptr(), flags, 0)? };
    Ok(Fd(fd as i32))
}

/// What of the flags of open(2) stays with the descriptor.
fn kept(flags: i32) -> i32 {
    const GONE: i32 =
        libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC | libc::O_NOCTTY | libc::O_CLOEXEC | libc::O_DIRECTORY;
    flags & !GONE | desc::LARGEFILE
}

fn is_for_writing(flags: i32) -> bool {
    matches!(flags & libc::O_ACCMODE, libc::O_WRONLY | libc::O_RDWR)
}

/// Nothing: it is gone again.
fn open_existing(tls: &'static Tls, target: &Target, flags: i32) -> Result<Option<i32>> {
    let truncating = flags & libc::O_TRUNC != 0;
    // The kernel checks on the file itself what its mode, and the mount, allow. "O_RDONLY | O_TRUNC" needs
    // the permission to write as well.
    let access = match flags & libc::O_ACCMODE {
        libc::O_RDONLY if truncating => libc::O_RDWR,
        access => access,
    };
    if access != libc::O_RDONLY && target.place.is_read_only() || truncating && target.is_read_only() {
        return Err(Errno::EROFS);
    }
    let checked = access | flags & (libc::O_DIRECTORY | libc::O_NOATIME);
    let look = checked | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    let file = match kernel_open(target, look) {
        Err(Errno::ENOENT) => return Ok(None),
        other => other?,
    };
    if access != libc::O_RDONLY && target.covered_read_only {
        return Err(Errno::EROFS);
    }
    let st = file.stat()?;
    if st.st_mode & libc::S_IFMT != libc::S_IFREG {
        // Nothing of ours.
        return Err(Errno::EACCES);
    }
    let map = match queues::map_queue(tls, target.place.place(), st.st_ino, Some(st.st_dev)) {
        Err(Errno::ENOENT) => match queues::furnish(tls, target.place.place(), target.name(), &st) {
            Err(Errno::ENOENT) => return Ok(None),
            other => other?,
        },
        other => other?,
    };
    if flags & libc::O_DIRECT != 0 {
        return Err(Errno::EINVAL);
    }
    if truncating {
        face::set_size(&map, 0)?;
    }
    // The lowest number is the queue's.
    let pin = through::pin(&file, target, is_for_writing(flags));
    drop(file);
    match queues::open_named(tls, &map, kept(flags)) {
        Ok(fd) => {
            through::enter(fd, pin);
            Ok(Some(fd))
        }
        Err(errno) => {
            through::unpin(pin);
            // Unlinked meanwhile.
            if errno == Errno::ENOENT { Ok(None) } else { Err(errno) }
        }
    }
}

/// A file of a superblock that was opened by calls without a hook, or by a program without the library, becomes
/// a queue descriptor. Nothing: it is none of a superblock.
pub fn convert(tls: &'static Tls, fd: i32, st: &libc::stat) -> Option<()> {
    let target = super::target_of_descriptor(fd)?;
    // SAFETY: no pointers.
    let flags = unsafe { syscall!(SYS_fcntl, fd, libc::F_GETFL).ok()? } as i32;
    if flags & libc::O_PATH != 0 {
        return None;
    }
    let place = target.place.place();
    let map = match queues::map_queue(tls, place, st.st_ino, Some(st.st_dev)) {
        Err(Errno::ENOENT) => queues::furnish(tls, place, target.name(), st),
        other => other,
    }
    .ok()?;
    // SAFETY: no pointers.
    let cloexec = unsafe { syscall!(SYS_fcntl, fd, libc::F_GETFD).ok()? };
    let pin = through::pin(&core::mem::ManuallyDrop::new(Fd(fd)), &target, flags & libc::O_ACCMODE != libc::O_RDONLY);
    let queue = queues::reopen(tls, map.map(), kept(flags)).ok()?;
    let dup = crate::interpose::fd::mqns_dup3(queue, fd, if cloexec != 0 { libc::O_CLOEXEC } else { 0 }, 0);
    crate::interpose::fd::mqns_close(queue);
    through::enter(fd, pin);
    (dup >= 0).then_some(())
}

/// Makes a queue with default attributes, and opens it.
fn make(tls: &'static Tls, target: &Target, flags: i32, mode: u32) -> Result<i32> {
    if target.is_read_only() {
        return Err(Errno::EROFS);
    }
    let place = target.place.place();
    // While it is made the namespace cannot end; if it has ended nothing is made.
    let foreign = place.is_virtual() && !ns::current(tls).is_ok_and(|own| core::ptr::eq(own, place));
    if foreign {
        // Should all its tasks have died without a word, it is to be found out now.
        life::teardown(place.dir());
    }
    let held = match foreign.then(|| member::hold(place, 0)).transpose() {
        Err(Errno::ENOENT) => return Err(Errno::EACCES),
        other => other?,
    };
    let made = queues::create(tls, place, target.name(), kept(flags) | flags & libc::O_DIRECT, mode & 0o7777);
    if held.is_some() {
        drop(held);
        // Its last task may have left meanwhile, and have found that somebody is there.
        life::teardown(place.dir());
    }
    let fd = made?;
    let writing = is_for_writing(flags);
    let access = if writing { libc::O_RDWR } else { libc::O_RDONLY };
    let open = |access| kernel_open(target, access | libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK);
    if let Ok(file) = open(access).or_else(|_| open(libc::O_RDONLY)) {
        through::enter(fd, through::pin(&file, target, writing));
    }
    Ok(fd)
}

/// mknod(2) of a regular file: a queue with default attributes. Of anything else: the refusal.
///
/// # Errors
///
/// EEXIST, EROFS, EPERM; as [`open`].
pub fn make_node(tls: &'static Tls, target: &Target, mode: u32) -> Result<usize> {
    match mode & libc::S_IFMT {
        0 | libc::S_IFREG if !target.slash => {
            if target.stat().is_ok() {
                return Err(Errno::EEXIST);
            }
            let fd = make(tls, target, libc::O_RDONLY, mode)?;
            crate::interpose::fd::mqns_close(fd);
            Ok(0)
        }
        libc::S_IFLNK => Err(Errno::EINVAL),
        _ => refuse(target),
    }
}

/// mkdir(2), symlink(2), mkfifo(3), bind(2): nothing but queues can be made.
///
/// # Errors
///
/// EEXIST, EROFS, EACCES (the directory's mode), or EPERM.
pub fn refuse(target: &Target) -> Result<usize> {
    match target.stat() {
        Ok(_) => return Err(Errno::EEXIST),
        // "name/" can only become a directory.
        Err(Errno::ENOENT) if !target.slash => {}
        Err(errno) => return Err(errno),
    }
    refuse_directory(target)
}

/// mkdir(2): as [`refuse`].
///
/// # Errors
///
/// The same.
pub fn refuse_directory(target: &Target) -> Result<usize> {
    match target.stat() {
        Ok(_) => return Err(Errno::EEXIST),
        Err(Errno::ENOENT) => {}
        Err(errno) => return Err(errno),
    }
    if target.is_read_only() {
        return Err(Errno::EROFS);
    }
    may_change(target)?;
    Err(Errno::EPERM)
}

/// Whether the directory's mode lets the caller change it.
fn may_change(target: &Target) -> Result<()> {
    let mut link = crate::sys::path::Path::new(&[b"/proc/thread-self/fd/"])?;
    link.push_decimal(target.dir.0 as u64)?;
    const AT_EACCESS: i32 = 0x200;
    // SAFETY: a NUL-terminated path.
    unsafe { syscall!(SYS_faccessat2, libc::AT_FDCWD, link.as_ptr(), libc::W_OK | libc::X_OK, AT_EACCESS) }.map(|_| ())
}

/// unlink(2): as mq_unlink(3) in that namespace.
///
/// # Errors
///
/// EROFS, ENOENT, EPERM (not the owner; the directory is sticky), EACCES, EBUSY (mounted upon).
pub fn unlink(tls: &'static Tls, target: &Target) -> Result<usize> {
    if target.is_read_only() {
        return Err(Errno::EROFS);
    }
    if target.slash {
        return Err(target.stat().map_or_else(|errno| errno, |_| Errno::ENOTDIR));
    }
    match queues::unlink(tls, target.place.place(), target.name()) {
        // Which of the two reasons it is.
        Err(Errno::EPERM) => may_change(target).and(Err(Errno::EPERM)),
        other => other.map(|()| 0),
    }
}

/// link(2) within a mount.
///
/// # Errors
///
/// ENOENT: no source. As [`refuse`].
pub fn link(from: &Target, to: &Target) -> Result<usize> {
    from.stat()?;
    refuse(to)
}

/// renameat2(2) within a mount.
///
/// # Errors
///
/// EINVAL, ENOENT, EEXIST, EROFS, EPERM.
pub fn rename(from: &Target, to: &Target, flags: u32) -> Result<usize> {
    const NOREPLACE: u32 = 1;
    const EXCHANGE: u32 = 2;
    const WHITEOUT: u32 = 4;
    if flags & !(NOREPLACE | EXCHANGE | WHITEOUT) != 0 || flags & EXCHANGE != 0 && flags & (NOREPLACE | WHITEOUT) != 0 {
        return Err(Errno::EINVAL);
    }
    if from.is_read_only() {
        return Err(Errno::EROFS);
    }
    let source = from.stat()?;
    let over = to.stat();
    if flags & NOREPLACE != 0 && over.is_ok() {
        return Err(Errno::EEXIST);
    }
    if flags & EXCHANGE != 0 {
        over?;
    }
    if from.slash || to.slash {
        return Err(Errno::ENOTDIR);
    }
    if over.is_ok_and(|over| over.st_ino == source.st_ino) {
        return Ok(0);
    }
    may_change(from)?;
    // "if (!old_dir->i_op->rename) return -EPERM", after who may remove the source.
    Err(Errno::EPERM)
}

/// The file, which is no directory.
fn existing(target: &Target) -> Result<libc::stat> {
    let st = target.stat()?;
    if target.slash { Err(Errno::ENOTDIR) } else { Ok(st) }
}

/// Changes of a file's mode, owner, times or size: `change` on the queue, if the mount allows.
///
/// # Errors
///
/// EROFS; those of the change.
pub fn change(
    tls: &'static Tls,
    target: &Target,
    change: impl FnOnce(&Pinned) -> Result<usize>,
    natural: impl FnOnce() -> Result<usize>,
) -> Result<usize> {
    let st = existing(target)?;
    if target.is_read_only() {
        return Err(Errno::EROFS);
    }
    match queues::map_queue(tls, target.place.place(), st.st_ino, Some(st.st_dev)) {
        Ok(map) => change(&map),
        // Not this user's affair: the kernel says so.
        Err(_) => natural(),
    }
}

/// access(2).
///
/// # Errors
///
/// EROFS: writing, through a read-only mount. EACCES: executing. Those of access(2).
pub fn access(target: &Target, mode: i32, flags: i32) -> Result<usize> {
    existing(target)?;
    if mode & libc::W_OK != 0 && target.place.is_read_only() {
        return Err(Errno::EROFS);
    }
    let path = target.path();
    // SAFETY: the path is NUL-terminated.
    unsafe {
        if flags == 0 {
            syscall!(SYS_faccessat, target.dir.0, path.as_ptr(), mode)?;
        } else {
            syscall!(SYS_faccessat2, target.dir.0, path.as_ptr(), mode, flags)?;
        }
    }
    if mode & libc::W_OK != 0 && target.covered_read_only {
        return Err(Errno::EROFS);
    }
    if mode & libc::X_OK != 0 { Err(Errno::EACCES) } else { Ok(0) }
}
