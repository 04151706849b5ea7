//! Descriptors that were opened through a mount keep it busy, and their link in proc(5) is the path through
//! it.
//!
//! A queue descriptor is the queue's FIFO, which lies elsewhere. So the file itself is mapped, without access:
//! a mapping uses the mount as a descriptor does, and needs none. The kernel tells its path in
//! `/proc/self/maps`.
//!
//! DEVIATION: over exec, and to other processes, a descriptor goes without. So does one of a file that its
//! owner may not read.

use core::sync::atomic::{AtomicUsize, Ordering};

use super::Target;
use crate::abi::{Errno, Result};
use crate::sys::path::{Fd, Path};
use crate::syscall;

/// By descriptor, as far as numbers fit: the address of its mapping, and [`READ_ONLY`], [`VIRTUAL`].
static PINS: [AtomicUsize; 4096] = [const { AtomicUsize::new(0) }; 4096];
static COUNT: AtomicUsize = AtomicUsize::new(0);
/// The mount was read-only.
const READ_ONLY: usize = 1;
/// It was one of the library's own.
const VIRTUAL: usize = 2;
const PAGE: usize = 4096;

/// As many bits of an inode as fit into an offset.
pub const INODE: u64 = 0xf_ffff_ffff;

/// The offset of mappings that stand for a use of the virtual mount on a directory; it tells them from those of
/// other mounts.
pub fn offset_of(ino: u64) -> u64 {
    (ino & INODE) << 12
}

/// A mapping of a file, 0 if there can be none. `writing`: it counts as open for writing.
pub fn pin(file: &Fd, target: &Target, writing: bool) -> usize {
    let map = |fd: i32| -> Result<usize> {
        // Mapping would count as an access to the file; who does not own it cannot say so.
        // SAFETY: no pointers; a new mapping without access.
        unsafe {
            let flags = syscall!(SYS_fcntl, fd, libc::F_GETFL)? as i32;
            if !writing && flags & libc::O_ACCMODE != libc::O_RDONLY {
                return Err(Errno::EACCES);
            }
            let _ = syscall!(SYS_fcntl, fd, libc::F_SETFL, flags | libc::O_NOATIME);
            let at = syscall!(SYS_mmap, 0, PAGE, libc::PROT_NONE, libc::MAP_SHARED, fd, offset_of(target.cover));
            let _ = syscall!(SYS_fcntl, fd, libc::F_SETFL, flags);
            at
        }
    };
    let again = |access: i32| -> Result<usize> {
        let mut link = Path::new(&[b"/proc/thread-self/fd/"])?;
        link.push_decimal(file.0 as u64)?;
        map(link.open_own(access | libc::O_NONBLOCK)?.0)
    };
    let at = map(file.0).or_else(|_| if writing { again(libc::O_RDWR) } else { Err(Errno::EACCES) });
    let Ok(at) = at.or_else(|_| again(libc::O_RDONLY)) else { return 0 };
    at | if target.is_read_only() { READ_ONLY } else { 0 } | if target.cover != 0 { VIRTUAL } else { 0 }
}

/// Notes a mapping for a descriptor.
pub fn enter(fd: i32, at: usize) {
    if at == 0 {
        return;
    }
    forget(fd);
    match PINS.get(fd as usize) {
        Some(slot) => {
            slot.store(at, Ordering::Release);
            COUNT.fetch_add(1, Ordering::Relaxed);
        }
        None => unmap(at),
    }
}

/// A mapping that was made for nothing is given up.
pub fn unpin(at: usize) {
    if at != 0 {
        unmap(at);
    }
}

fn unmap(at: usize) {
    // SAFETY: a mapping of ours without access, which nobody looks into.
    let _ = unsafe { syscall!(SYS_munmap, at & !(PAGE - 1), PAGE) };
}

/// `fd` is closed.
#[inline(always)]
pub fn forget(fd: i32) {
    if COUNT.load(Ordering::Relaxed) != 0 {
        take_off(fd);
    }
}

#[cold]
fn take_off(fd: i32) {
    let at = PINS.get(fd as usize).map_or(0, |slot| slot.swap(0, Ordering::AcqRel));
    if at != 0 {
        COUNT.fetch_sub(1, Ordering::Relaxed);
        unmap(at);
    }
}

/// `to` is a duplicate of `from`.
#[inline(always)]
pub fn duplicated(from: i32, to: i32) {
    if COUNT.load(Ordering::Relaxed) != 0 {
        copy(from, to);
    }
}

#[cold]
fn copy(from: i32, to: i32) {
    forget(to);
    let at = PINS.get(from as usize).map_or(0, |slot| slot.load(Ordering::Acquire));
    if at != 0 {
        const MREMAP_MAYMOVE: i32 = 1;
        // SAFETY: an old size of 0 makes a second mapping of a shared one (mremap(2)).
        if let Ok(second) = unsafe { syscall!(SYS_mremap, at & !(PAGE - 1), 0, PAGE, MREMAP_MAYMOVE) } {
            enter(to, second | at & (READ_ONLY | VIRTUAL));
        }
    }
}

/// Whether the descriptor was opened through a mount that is read-only.
pub fn is_read_only(fd: i32) -> bool {
    if COUNT.load(Ordering::Relaxed) == 0 {
        return false;
    }
    let pin = PINS.get(fd as usize).map_or(0, |slot| slot.load(Ordering::Acquire));
    if pin == 0 || pin & (READ_ONLY | VIRTUAL) != 0 {
        return pin & READ_ONLY != 0;
    }
    // It may have become so meanwhile. Who may not ask for the mapping's own file asks for its path.
    let own = link(pin & !(PAGE - 1)).and_then(|link| link.open_own(libc::O_PATH));
    let above = |path: Path| {
        let bytes = path.as_bytes();
        Path::new(&[&bytes[..bytes.iter().rposition(|&b| b == b'/').unwrap_or(0)], b"/"])?.open_own(libc::O_PATH)
    };
    own.or_else(|_| path(fd).and_then(above)).is_ok_and(|file| super::is_read_only(&file))
}

/// The link in proc(5) of a mapping.
fn link(at: usize) -> Result<Path> {
    let mut link = Path::new(&[b"/proc/self/map_files/"])?;
    link.push_hex(at as u64)?;
    link.push(b"-")?;
    link.push_hex((at + PAGE) as u64)?;
    Ok(link)
}

/// The path of the file by the mount through which a descriptor was opened, with what proc(5) puts behind
/// it.
///
/// # Errors
///
/// ENOENT: it was not opened through a mount.
pub fn path(fd: i32) -> Result<Path> {
    if COUNT.load(Ordering::Relaxed) == 0 {
        return Err(Errno::ENOENT);
    }
    let pin = PINS.get(fd as usize).map_or(0, |slot| slot.load(Ordering::Acquire));
    let at = pin & !(PAGE - 1);
    if at == 0 {
        return Err(Errno::ENOENT);
    }
    if pin & VIRTUAL != 0 {
        let (path, offset) = in_maps(at)?;
        return by_mount_point(&path, offset >> 12);
    }
    match link(at)?.read_link_at(libc::AT_FDCWD) {
        Ok(path) => Ok(path),
        Err(_) => in_maps(at).map(|(path, _)| path),
    }
}

/// The same with the mapping's offset from `/proc/self/maps`, for those who may not read the above (CAP_CHECKPOINT_RESTORE, or Linux
/// before 5.9).
fn in_maps(at: usize) -> Result<(Path, u64)> {
    let mut start = Path::empty();
    start.push_hex(at as u64)?;
    start.push(b"-")?;
    let file = Path::new(&[b"/proc/self/maps"])?.open_own(libc::O_RDONLY)?;
    let mut found = None;
    crate::sys::proc::each_line(&file, |line| {
        if line.starts_with(start.as_bytes())
            && let Some(slash) = line.iter().position(|&b| b == b'/')
        {
            // Address, permissions, offset.
            let offset = line.split(|&b| b == b' ').nth(2).and_then(|text| core::str::from_utf8(text).ok());
            let offset = offset.and_then(|text| u64::from_str_radix(text, 16).ok()).unwrap_or(0);
            found = Path::new(&[&line[slash..]]).ok().map(|path| (path, offset));
        }
    });
    found.ok_or(Errno::ENOENT)
}

/// The library's own path of a file as the path by the virtual mount on the directory with that inode.
fn by_mount_point(path: &Path, ino: u64) -> Result<Path> {
    let bytes = path.as_bytes();
    let cut = bytes.windows(4).rposition(|w| w == b"/sb/").or_else(|| bytes.windows(3).rposition(|w| w == b"/q/"));
    let place = crate::ns::place(super::tls(), &bytes[..cut.ok_or(Errno::ENOENT)?])?;
    let point = super::virtuals::point_of(&place, ino).ok_or(Errno::ENOENT)?;
    let name = bytes.rsplit(|&b| b == b'/').next().unwrap_or(b"");
    Path::new(&[point.as_bytes(), b"/", name])
}
