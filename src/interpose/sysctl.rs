//! `/proc/sys/fs/mqueue/*` for this program: open(2), fopen(3) and what follows; and the streams of `cshim/`.
//!
//! The descriptor is that of a small file in memory with the text, which everything can read; a
//! write(2) to it sets the limit of the namespace in which it was opened. stdio writes behind our
//! hooks (`echo 20 > msg_max` in bash): what a write-only file has come to hold is taken over when
//! it is closed, and an error in it then goes unreported.

use core::ffi::{c_char, c_int};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::{BYPASS, jump, raw_result};
use crate::abi::{Errno, Result};
use crate::ns::sysctl::Limit;
use crate::ns::{self, Place};
use crate::sys::fault;
use crate::sys::path::Path;
use crate::syscall;

jump! {
    /// fopen(3).
    fopen => cshim_fopen;
    /// fopen(3) for programs with 64-bit offsets.
    fopen64 => cshim_fopen64;
    /// fdopen(3).
    fdopen => cshim_fdopen;
    /// fileno(3).
    fileno => cshim_fileno;
    /// fileno(3), without locking.
    fileno_unlocked => cshim_fileno;
    /// setmntent(3).
    setmntent => cshim_setmntent;
}

/// Descriptors of such files: 1 + descriptor, number of the limit, number of the place.
static OPEN: [AtomicU64; 64] = [const { AtomicU64::new(0) }; 64];
/// In an entry: opened for writing only.
const WRITE_ONLY: u64 = 1 << 63;
/// How many there are: a look at this is all that other descriptors cost.
static COUNT: AtomicUsize = AtomicUsize::new(0);

fn pack(fd: i32, limit: usize, place: usize) -> u64 {
    (fd as u64 + 1) | (limit as u64) << 32 | (place as u64) << 40
}

fn find(fd: i32) -> Option<(&'static AtomicU64, Limit, &'static Place)> {
    if COUNT.load(Ordering::Relaxed) == 0 {
        return None;
    }
    let slot = OPEN.iter().find(|slot| slot.load(Ordering::Acquire) as u32 == fd as u32 + 1)?;
    let packed = slot.load(Ordering::Acquire);
    let (_, limit) = *Limit::ALL.get((packed >> 32) as usize & 0xff)?;
    Some((slot, limit, Place::of((packed & !WRITE_ONLY) as usize >> 40).ok()?))
}

/// Whether a descriptor is such a file.
#[inline(always)]
pub fn is_known(fd: i32) -> bool {
    COUNT.load(Ordering::Relaxed) != 0 && find(fd).is_some()
}

/// `fd` is closed.
#[inline(always)]
pub fn forget(fd: i32) {
    if COUNT.load(Ordering::Relaxed) != 0 {
        forget_known(fd);
    }
}

#[cold]
#[inline(never)]
fn forget_known(fd: i32) {
    if let Some((slot, limit, place)) = find(fd) {
        let packed = slot.swap(0, Ordering::AcqRel);
        COUNT.fetch_sub(1, Ordering::Relaxed);
        let mut text = [0u8; 64];
        if packed & WRITE_ONLY != 0
            // SAFETY: the buffer is as long as said.
            && let Ok(len @ 1..) = unsafe { syscall!(SYS_pread64, fd, text.as_mut_ptr(), text.len(), 0) }
        {
            let _ = limit.write(place.control(), &text[..len]);
            // SAFETY: no pointers. Another descriptor of it has nothing to add.
            let _ = unsafe { syscall!(SYS_ftruncate, fd, 0) };
        }
        place.release();
    }
}

/// `to` is a duplicate of `from`.
pub fn duplicated(from: i32, to: i32) {
    forget(to);
    if let Some((slot, ..)) = find(from) {
        let packed = slot.load(Ordering::Acquire);
        remember(packed & !0xffff_ffff | (to as u64 + 1));
    }
}

fn remember(packed: u64) {
    for slot in &OPEN {
        if slot.compare_exchange(0, packed, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            COUNT.fetch_add(1, Ordering::Relaxed);
            if let Ok(place) = Place::of((packed & !WRITE_ONLY) as usize >> 40) {
                let _ = place.refer().keep();
            }
            return;
        }
    }
}

/// open(2) of a path; BYPASS: it is none of these files.
///
/// # Safety
///
/// `path` is a user pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mqns_sysctl_open(path: *const c_char, flags: c_int) -> isize {
    let path = path.cast::<u8>();
    let mut buffer = [0u8; 40];
    // A look at some bytes, before anything is set up for reading bad pointers.
    for (at, &expected) in ns::sysctl::DIRECTORY.iter().enumerate() {
        // SAFETY: the caller's contract; open(2) with a bad pointer is a crash for a byte or two
        // earlier than EFAULT only if the path begins like ours.
        if path.is_null() || unsafe { path.add(at).read() } != expected {
            return BYPASS;
        }
    }
    let mut open = || {
        let tls = super::mq::ready()?;
        // SAFETY: a user pointer, read with faults caught.
        let len = match unsafe { fault::copy_cstr(&mut buffer, path) } {
            Ok(len) => len,
            Err(_) => return Ok(None),
        };
        let Some(limit) = Limit::of_path(&buffer[..len]) else { return Ok(None) };
        open_limit(ns::current(tls)?, limit, flags).map(Some)
    };
    match open() {
        Ok(None) => BYPASS,
        Ok(Some(fd)) => fd as isize,
        Err(errno) => raw_result(Err(errno)),
    }
}

/// After open(2), which came to `result`: a descriptor, or a negated errno. Nothing: it is none of these files.
/// (Before, nobody has read the path, and it may be a bad pointer.)
///
/// # Safety
///
/// `path` is NUL-terminated, as the kernel has found.
pub unsafe fn opened(path: *const c_char, flags: c_int, result: c_int) -> Option<Result<i32>> {
    // SAFETY: the caller's contract.
    let path = unsafe { core::ffi::CStr::from_ptr(path) }.to_bytes();
    if !matches!(path.last(), Some(b'x' | b't')) || !Limit::ALL.iter().any(|(name, _)| path.ends_with(name)) {
        return None;
    }
    let limit = if result >= 0 {
        let limit = Limit::of_path(Path::of_descriptor(result).ok()?.as_bytes())?;
        // SAFETY: the kernel has just given it to us.
        let _ = unsafe { syscall!(SYS_close, result) };
        limit
    } else {
        // A kernel without queues, or a namespace of which the caller is root.
        Limit::of_path(path)?
    };
    Some(super::mq::ready().and_then(|tls| open_limit(ns::current(tls)?, limit, flags)))
}

fn open_limit(place: &'static Place, limit: Limit, flags: i32) -> Result<i32> {
    if flags & libc::O_ACCMODE != libc::O_RDONLY && !ns::is_root_of(place) {
        return Err(Errno::EACCES);
    }
    drop(crate::sys::path::may_grow_to(64)?);
    const MFD_CLOEXEC: u32 = 1;
    // SAFETY: a name and flags.
    let fd = unsafe {
        syscall!(SYS_memfd_create, c"mqueue".as_ptr(), if flags & libc::O_CLOEXEC != 0 { MFD_CLOEXEC } else { 0 })?
    } as i32;
    let number = Limit::ALL.iter().position(|&(_, known)| known == limit).unwrap_or(0);
    let write_only = if flags & libc::O_ACCMODE == libc::O_WRONLY { WRITE_ONLY } else { 0 };
    remember(pack(fd, number, place.index()) | write_only);
    refresh(fd);
    Ok(fd)
}

/// Puts the text of the moment into the file.
pub fn refresh(fd: i32) {
    let Some((slot, limit, place)) = find(fd) else { return };
    if slot.load(Ordering::Relaxed) & WRITE_ONLY != 0 {
        return;
    }
    let mut text = [0u8; 16];
    let len = limit.text(place.control(), &mut text);
    let Ok(_growth) = crate::sys::path::may_grow_to(len as u64) else { return };
    // SAFETY: the text is as long as said.
    unsafe {
        let _ = syscall!(SYS_pwrite64, fd, text.as_ptr(), len, 0);
        let _ = syscall!(SYS_ftruncate, fd, len);
    }
}

/// write(2) to such a file.
///
/// # Errors
///
/// EFAULT, EINVAL.
///
/// # Safety
///
/// `from` is a user pointer.
pub unsafe fn write(fd: i32, from: *const u8, len: usize) -> Result<usize> {
    let (_, limit, place) = find(fd).ok_or(Errno::EBADF)?;
    let mut text = [0u8; 64];
    let len = len.min(text.len());
    // SAFETY: the caller's contract.
    unsafe { fault::copy(text.as_mut_ptr(), from, len)? };
    let taken = limit.write(place.control(), &text[..len])?;
    refresh(fd);
    // SAFETY: no pointers.
    unsafe { syscall!(SYS_lseek, fd, taken, libc::SEEK_CUR)? };
    Ok(taken)
}

/// For the streams of `cshim/`: write(2).
///
/// # Safety
///
/// `from` has `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mqns_sysctl_write(fd: c_int, from: *const u8, len: usize) -> isize {
    // SAFETY: the caller's contract.
    raw_result(unsafe { write(fd, from, len) })
}

/// For the streams of `cshim/`: before a read(2).
#[unsafe(no_mangle)]
pub extern "C" fn mqns_sysctl_refresh(fd: c_int) {
    refresh(fd);
}

/// The next fopen and so on, by its number in `cshim/`.
#[unsafe(no_mangle)]
pub extern "C" fn mqns_next_stream(which: c_int) -> usize {
    const NAMES: [&core::ffi::CStr; 5] = [c"fopen", c"fopen64", c"setmntent", c"fdopen", c"fileno"];
    static NEXT: [AtomicUsize; NAMES.len()] = [const { AtomicUsize::new(0) }; NAMES.len()];
    let which = which as usize % NAMES.len();
    let slot = &NEXT[which];
    let mut at = slot.load(Ordering::Relaxed);
    if at == 0 {
        at = super::find_next(NAMES[which]);
        slot.store(at, Ordering::Relaxed);
    }
    at
}

/// Whether what fopen(3) opens may be a table of mounts, and there are mounts of queues.
///
/// # Safety
///
/// `path` is NUL-terminated: it has been opened, or will be by libc.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mqns_is_mount_table(path: *const c_char) -> c_int {
    if path.is_null() || !crate::vfs::any() {
        return 0;
    }
    // SAFETY: the caller's contract.
    c_int::from(crate::vfs::table::is_candidate(unsafe { core::ffi::CStr::from_ptr(path) }.to_bytes()))
}

/// Whether a descriptor is a queue's.
#[unsafe(no_mangle)]
pub extern "C" fn mqns_is_queue(fd: c_int) -> c_int {
    c_int::from(crate::desc::is_known(fd))
}
