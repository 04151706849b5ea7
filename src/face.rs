//! The descriptor as a file: what fstat, read, lseek, chmod… of a queue descriptor show and do.
//!
//! A queue descriptor is a FIFO, but it stands for the queue's file: the 80-byte regular file that
//! carries the queue's name, mode and owner ([`real`]). The text that read(2) gives is made on the
//! spot; the offset is kept by `offset`; times are the file's own, overridden by the stamps that
//! the queue keeps in its header ([`Times`]).
//!
//! DEVIATION: ftruncate(2) reaches the file by its path: who has lost the permission to write to it
//! since the descriptor was opened is refused (EACCES). What changes the file needs /proc.
//!
//! Async-signal-safe.

use core::ffi::c_char;
use core::fmt::Write;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{AcqRel, Relaxed};

use crate::abi::{Errno, FILENT_SIZE, MQUEUE_MAGIC, NAME_MAX, Result};
use crate::desc::{self, Descriptor};
use crate::ns::{Place, queues};
use crate::offset;
use crate::queue::{self, notify};
use crate::shm::Map;
use crate::shm::layout::Header;
use crate::sys::path::{Fd, Path, stat_fd};
use crate::sys::tls::{self, Tls};
use crate::sys::{fault, getpid};
use crate::syscall;
use crate::vfs::through;

/// `st_blksize` of every file of the mqueue file system, bytes.
const BLOCK: i64 = 4096;
/// ftruncate(2) goes no further with a descriptor opened without O_LARGEFILE, as mq_open does.
pub const MAX_NON_LFS: i64 = 0x7fff_ffff;

/// Runs `op` on `fd`, if that is a queue descriptor, and not one opened with O_PATH: with that the
/// kernel refuses by itself what it has to refuse.
#[inline(always)]
pub fn with(fd: i32, op: impl FnOnce(&Descriptor, &'static Tls) -> Result<usize>) -> Option<Result<usize>> {
    let descriptor = desc::known(fd).filter(|descriptor| !descriptor.is_path())?;
    Some(tls::ready().and_then(|tls| op(&descriptor, tls)))
}

/// Runs `op` on `fd`, if that is a queue descriptor.
#[inline(always)]
pub fn with_any(fd: i32, op: impl FnOnce(&Descriptor, &'static Tls) -> Result<usize>) -> Option<Result<usize>> {
    let descriptor = desc::known(fd)?;
    Some(tls::ready().and_then(|tls| op(&descriptor, tls)))
}

// ---- The file behind ---------------------------------------------------------------------------

/// A queue's file.
struct Real {
    path: Path,
    st: libc::stat,
    /// It has its name still.
    named: bool,
}

/// Seconds of the last change that concerns neither message nor text (chmod, chown, utimes,
/// truncate): `st_ctime` only.
fn changed_sec(h: &Header) -> &AtomicU64 {
    &h.changed_sec
}

/// Where the queue's file is: under its name, or under its inode once the name is gone. `None`: it
/// has been taken away by somebody who knows nothing of queues, or is on its way.
fn real(map: &Map) -> Option<Real> {
    let place = Place::of(map.place.load(Relaxed)).ok()?;
    let mut buffer = [0; NAME_MAX];
    let len = map.name(&mut buffer);
    let name = &buffer[..len];
    let look = |path: Result<Path>, named| {
        let path = path.ok()?;
        let st = path.stat().ok()?;
        let same = st.st_ino == map.ino && st.st_dev == map.dev && st.st_mode & libc::S_IFMT == libc::S_IFREG;
        same.then_some(Real { path, st, named })
    };
    // mq_unlink takes the file from the one place to the other by way of a third.
    for _ in 0..3 {
        if queues::check_name(name).is_ok()
            && let Some(found) = look(queues::visible(place, name), true)
        {
            return Some(found);
        }
        if let Some(found) = look(queues::hidden(place, map.ino, b".x"), false) {
            return Some(found);
        }
    }
    None
}

/// Whole seconds since the epoch: the mqueue file system knows nothing finer.
struct Times {
    access: i64,
    modification: i64,
    change: i64,
}

impl Times {
    /// Send and receive change all three; setattr, notify and read all but the modification.
    /// Stamps of 0: none since the file's own times were set.
    fn of(map: &Map, st: &libc::stat, named: bool) -> Times {
        let h = map.header();
        let (used, touched) = (h.used_sec.load(Relaxed), h.touched_sec.load(Relaxed));
        let last = used.max(touched);
        let mut change = last.max(changed_sec(h).load(Relaxed)) as i64;
        // Giving the file its name and taking it away changes its own time, which the kernel's
        // queues don't show. What is later comes from a chmod of the file itself.
        if change == 0 || named && st.st_ctime > h.created_sec.load(Relaxed) as i64 + 1 {
            change = change.max(st.st_ctime);
        }
        Times {
            access: if last != 0 { last as i64 } else { st.st_atime },
            modification: if used != 0 { used as i64 } else { st.st_mtime },
            change,
        }
    }
}

/// From now on the file's own times count again, but for the change, which is now.
fn reset_stamps(map: &Map) {
    let h = map.header();
    changed_sec(h).store(queue::coarse_seconds(), Relaxed);
    h.used_sec.swap(0, AcqRel);
    h.touched_sec.swap(0, AcqRel);
}

fn stamp_change(map: &Map) {
    changed_sec(map.header()).store(queue::coarse_seconds(), Relaxed);
}

/// The queue's file as fstat(2) shows it.
///
/// # Errors
///
/// Those of fstat(2) on the FIFO, which stands in for a file that somebody has taken away.
pub fn stat(d: &Descriptor) -> Result<libc::stat> {
    let (mut st, named) = match real(d.map) {
        Some(real) => (real.st, real.named),
        None => {
            let mut st = stat_fd(d.fd)?;
            let h = d.map.header();
            st.st_mode = libc::S_IFREG | st.st_mode & 0o666;
            st.st_ino = d.map.ino;
            st.st_size = FILENT_SIZE as i64;
            st.st_ctime = h.created_sec.load(Relaxed) as i64;
            (st.st_atime, st.st_mtime) = (st.st_ctime, st.st_ctime);
            (st, false)
        }
    };
    dress(&mut st, Some(d.map), named);
    if let Ok(place) = Place::of(d.map.place.load(Relaxed)) {
        st.st_dev = device(place);
    }
    Ok(st)
}

/// The device that the files of a namespace show: each superblock has its own, though all lie on one. Its major
/// number is 0, as that of every file system without one.
pub fn device(place: &Place) -> u64 {
    let (dev, ino) = place.superblock().unwrap_or((0, 0));
    let mixed = (ino ^ dev << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // Far from those that the kernel gives out, from 1 on.
    libc::makedev(0, 0x8_0000 | (mixed >> 45) as u32)
}

/// Makes what the kernel says of a superblock's directory that of the mqueue file system.
pub fn dress_directory(st: &mut libc::stat, place: &Place) {
    const BASE: i64 = 40;
    const ENTRY: i64 = 20;
    st.st_dev = device(place);
    if st.st_blocks != 0 || (st.st_size - BASE) % ENTRY != 0 {
        // Not on tmpfs, which counts as the mqueue file system does.
        let mut entries = 0;
        if let Ok(dir) = place.path(&[b"/sb"]).and_then(|path| path.open_own(libc::O_RDONLY | libc::O_DIRECTORY)) {
            crate::sys::path::each_entry(&dir, |_| entries += 1);
        }
        st.st_size = BASE + ENTRY * entries;
        st.st_blocks = 0;
    }
    if st.st_mtime > st.st_atime && st.st_mtime == st.st_ctime {
        // A file has been made or removed, which sets all three.
        st.st_atime = st.st_mtime;
    }
    st.st_nlink = 2;
    st.st_blksize = BLOCK as _;
    (st.st_atime_nsec, st.st_mtime_nsec, st.st_ctime_nsec) = (0, 0, 0);
}

/// Makes what the kernel says of a queue's file that of the mqueue file system. Without its mapping, which
/// takes some permission on the queue, the times may be old.
pub fn dress(st: &mut libc::stat, map: Option<&Map>, named: bool) {
    if let Some(map) = map {
        let times = Times::of(map, st, named);
        (st.st_atime, st.st_mtime, st.st_ctime) = (times.access, times.modification, times.change);
        if let Some(size) = map.header().size.load(Relaxed).checked_sub(1) {
            st.st_size = size as i64;
        }
    }
    (st.st_atime_nsec, st.st_mtime_nsec, st.st_ctime_nsec) = (0, 0, 0);
    st.st_nlink = named.into();
    st.st_blocks = 0;
    st.st_blksize = BLOCK as _;
    st.st_rdev = 0;
}

/// fstat(2).
///
/// # Errors
///
/// EFAULT.
///
/// # Safety
///
/// `to` is a user pointer.
pub unsafe fn fstat(d: &Descriptor, to: *mut libc::stat) -> Result<usize> {
    let st = stat(d)?;
    // SAFETY: the caller's contract.
    unsafe { fault::write_user(to, st)? };
    Ok(0)
}

/// Puts into what statx(2) has said of some file what stat(2) says of a queue's.
pub fn extend(x: &mut libc::statx, st: &libc::stat) {
    /// What the mqueue file system has: the basic set, and whatever the mount itself tells.
    const MASK: u32 = libc::STATX_BASIC_STATS | STATX_MNT_ID | STATX_MNT_ID_UNIQUE;
    const STATX_MNT_ID: u32 = 0x1000;
    const STATX_MNT_ID_UNIQUE: u32 = 0x4000;
    /// STATX_ATTR_AUTOMOUNT, _MOUNT_ROOT and _DAX, which the kernel itself answers for.
    const ATTRIBUTES: u64 = 0x20_3000;
    const MOUNT_ROOT: u64 = 0x2000;
    x.stx_mask = x.stx_mask & MASK | libc::STATX_BASIC_STATS;
    x.stx_attributes &= if st.st_mode & libc::S_IFMT == libc::S_IFDIR { MOUNT_ROOT } else { 0 };
    x.stx_attributes_mask &= ATTRIBUTES;
    x.stx_blksize = BLOCK as u32;
    x.stx_nlink = st.st_nlink as u32;
    if st.st_mode & libc::S_IFMT == libc::S_IFREG && x.stx_mode as u32 & libc::S_IFMT != libc::S_IFREG {
        // It was asked of a queue's FIFO.
        (x.stx_uid, x.stx_gid, x.stx_mode, x.stx_ino) = (st.st_uid, st.st_gid, st.st_mode as u16, st.st_ino);
    }
    x.stx_size = st.st_size as u64;
    x.stx_blocks = 0;
    x.stx_dev_major = libc::major(st.st_dev);
    x.stx_dev_minor = libc::minor(st.st_dev);
    (x.stx_rdev_major, x.stx_rdev_minor) = (0, 0);
    let time = |seconds| {
        // SAFETY: plain integers; zero is valid for all of them.
        let mut time: libc::statx_timestamp = unsafe { core::mem::zeroed() };
        time.tv_sec = seconds;
        time
    };
    (x.stx_atime, x.stx_mtime, x.stx_ctime) = (time(st.st_atime), time(st.st_mtime), time(st.st_ctime));
    x.stx_btime = time(0);
}

/// statx(2).
///
/// # Errors
///
/// EFAULT, EINVAL.
///
/// # Safety
///
/// `to` is a user pointer.
pub unsafe fn statx(d: &Descriptor, flags: i32, mask: u32, to: *mut libc::statx) -> Result<usize> {
    let st = stat(d)?;
    // SAFETY: plain integers; zero is valid for all of them.
    let mut x: libc::statx = unsafe { core::mem::zeroed() };
    // The kernel checks the arguments and fills in what concerns the mount; it may be asked for the
    // FIFO as well as for the file.
    // SAFETY: a NUL-terminated path, the result goes to a local.
    unsafe { syscall!(SYS_statx, d.fd, c"".as_ptr(), flags | libc::AT_EMPTY_PATH, mask, &raw mut x)? };
    extend(&mut x, &st);
    // SAFETY: the caller's contract.
    unsafe { fault::write_user(to, x)? };
    Ok(0)
}

/// What statfs(2) says of the mqueue file system whose files show device `dev`; `flags` of the mount.
pub fn file_system(dev: u64, flags: i64) -> libc::statfs {
    /// `struct statfs` of every 64-bit architecture; the libc crate lacks the flags.
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Statfs {
        kind: i64,
        block: i64,
        counts: [u64; 5],
        fsid: u64,
        name_len: i64,
        fragment: i64,
        flags: i64,
        spare: [i64; 4],
    }
    const _: () = assert!(size_of::<Statfs>() == size_of::<libc::statfs>());
    let fs = Statfs {
        kind: MQUEUE_MAGIC,
        block: BLOCK,
        counts: [0; 5],
        fsid: dev,
        name_len: NAME_MAX as i64,
        fragment: BLOCK,
        flags,
        spare: [0; 4],
    };
    // SAFETY: both are plain words, of one size.
    unsafe { core::mem::transmute::<Statfs, libc::statfs>(fs) }
}

/// fstatfs(2).
///
/// # Errors
///
/// EFAULT.
///
/// # Safety
///
/// `to` is a user pointer.
pub unsafe fn fstatfs(d: &Descriptor, to: *mut libc::statfs) -> Result<usize> {
    const ST_VALID: i64 = 0x20;
    let fs = file_system(stat(d)?.st_dev, ST_VALID);
    // SAFETY: the caller's contract.
    unsafe { fault::write_user(to, fs)? };
    Ok(0)
}

/// fstatvfs(3).
///
/// # Errors
///
/// EFAULT.
///
/// # Safety
///
/// `to` is a user pointer.
pub unsafe fn fstatvfs(d: &Descriptor, to: *mut libc::statvfs) -> Result<usize> {
    // SAFETY: plain integers; zero is valid for all of them.
    let mut fs: libc::statvfs = unsafe { core::mem::zeroed() };
    fs.f_bsize = BLOCK as u64;
    fs.f_frsize = BLOCK as u64;
    fs.f_namemax = NAME_MAX as u64;
    fs.f_fsid = stat(d)?.st_dev;
    // SAFETY: the caller's contract.
    unsafe { fault::write_user(to, fs)? };
    Ok(0)
}

// ---- The text ----------------------------------------------------------------------------------

struct Text {
    bytes: [u8; 96],
    len: usize,
}

impl Write for Text {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        let take = s.len().min(self.bytes.len() - self.len);
        self.bytes[self.len..self.len + take].copy_from_slice(&s.as_bytes()[..take]);
        self.len += take;
        Ok(())
    }
}

/// What read(2) shows (mq_overview(7)).
fn text(d: &Descriptor, tls: &'static Tls) -> Result<Text> {
    if queue::is_in_doubt(d.map) {
        queue::settle(d.map, d.fd);
    }
    let (mut kind, mut signo, mut pid) = (0, 0, 0);
    if let Some((what, owner)) = notify::current(d.map, tls, d.fd)? {
        (kind, pid) = (what.kind, owner);
        if kind == libc::SIGEV_SIGNAL {
            signo = what.signo;
        }
    }
    let mut text = Text { bytes: [0; 96], len: 0 };
    let qsize = d.map.header().qsize.load(Relaxed);
    let _ = writeln!(text, "QSIZE:{qsize:<10} NOTIFY:{kind:<5} SIGNO:{signo:<5} NOTIFY_PID:{pid:<6}");
    Ok(text)
}

/// Where to read.
#[derive(Clone, Copy)]
pub enum From {
    /// At the description's offset, which moves.
    Here,
    /// At that offset.
    Offset(i64),
}

/// Whether a buffer lies in user space (`access_ok`).
fn is_user(at: usize, len: usize) -> bool {
    at as isize >= 0 && at.checked_add(len).is_some_and(|end| end as isize >= 0)
}

/// Copies as much as goes, as the kernel's copy_to_user does.
///
/// # Safety
///
/// `to` is a user pointer.
unsafe fn copy_out(to: *mut u8, from: &[u8]) -> usize {
    // SAFETY: the caller's contract.
    unsafe {
        if fault::copy(to, from.as_ptr(), from.len()).is_ok() {
            return from.len();
        }
        from.iter().enumerate().take_while(|&(at, &byte)| fault::write_user(to.wrapping_add(at), byte).is_ok()).count()
    }
}

/// read(2), pread(2): the text.
///
/// # Errors
///
/// EBADF: not open for reading. EFAULT. EINVAL: a negative offset. EIO: damaged.
///
/// # Safety
///
/// `to` is a user pointer.
pub unsafe fn read(d: &Descriptor, tls: &'static Tls, from: From, to: *mut u8, len: usize) -> Result<usize> {
    let one = [libc::iovec { iov_base: to.cast(), iov_len: len }];
    // SAFETY: the caller's contract; `one` is a local.
    unsafe { readv(d, tls, from, one.as_ptr(), 1) }
}

/// readv(2), preadv(2).
///
/// # Errors
///
/// As [`read`]; EINVAL: a length is negative, or there are too many of them.
///
/// # Safety
///
/// `vector`, and what it points to, are user pointers.
pub unsafe fn readv(
    d: &Descriptor,
    tls: &'static Tls,
    from: From,
    vector: *const libc::iovec,
    count: usize,
) -> Result<usize> {
    if let From::Offset(at) = from
        && at < 0
    {
        return Err(Errno::EINVAL);
    }
    if !d.may_receive() {
        return Err(Errno::EBADF);
    }
    if count > libc::UIO_MAXIOV as usize {
        return Err(Errno::EINVAL);
    }
    let mut wanted = 0usize;
    for at in 0..count {
        // SAFETY: the caller's contract.
        let part = unsafe { fault::read_user(vector.wrapping_add(at))? };
        // Of one buffer only its place is checked, of several each length first (`import_iovec`).
        if count > 1 && (part.iov_len as isize) < 0 {
            return Err(Errno::EINVAL);
        }
        if !is_user(part.iov_base as usize, part.iov_len) {
            return Err(Errno::EFAULT);
        }
        wanted = wanted.saturating_add(part.iov_len);
    }
    let start = match from {
        From::Here => offset::get(d.fd),
        From::Offset(at) => at,
    };
    if start < 0 || start.checked_add_unsigned(wanted.min(isize::MAX as usize) as u64).is_none() {
        return Err(Errno::EINVAL);
    }
    if wanted == 0 {
        return Ok(0);
    }
    let text = text(d, tls)?;
    let mut at = (start as u64).min(text.len as u64) as usize;
    let mut done = 0;
    for index in 0..count {
        // SAFETY: the caller's contract.
        let part = unsafe { fault::read_user(vector.wrapping_add(index))? };
        let chunk = &text.bytes[at..at + part.iov_len.min(text.len - at)];
        // SAFETY: the caller's contract.
        let copied = unsafe { copy_out(part.iov_base.cast(), chunk) };
        at += copied;
        done += copied;
        if copied < chunk.len() {
            if done == 0 {
                return Err(Errno::EFAULT);
            }
            break;
        }
    }
    if done > 0 {
        if let From::Here = from {
            offset::set(d.fd, start + done as i64)?;
        }
        d.map.header().touched_sec.store(queue::coarse_seconds(), Relaxed);
    }
    Ok(done)
}

/// preadv2(2): an offset of -1 is the description's.
///
/// # Errors
///
/// As [`readv`]; EOPNOTSUPP: flags that a file with the oldest of operations cannot heed.
///
/// # Safety
///
/// As [`readv`].
pub unsafe fn readv2(
    d: &Descriptor,
    tls: &'static Tls,
    at: i64,
    vector: *const libc::iovec,
    count: usize,
    flags: i32,
) -> Result<usize> {
    const RWF_HIPRI: i32 = 1;
    if d.may_receive() && flags & !RWF_HIPRI != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    // SAFETY: the caller's contract.
    unsafe { readv(d, tls, if at == -1 { From::Here } else { From::Offset(at) }, vector, count) }
}

/// write(2) and all of its kind: a queue is not written to.
///
/// # Errors
///
/// EINVAL; EBADF: not open for writing.
pub fn write(d: &Descriptor) -> Result<usize> {
    Err(if d.may_send() { Errno::EINVAL } else { Errno::EBADF })
}

/// pwrite(2) and all of its kind.
///
/// # Errors
///
/// As [`write`]; EINVAL: a negative offset, first of all.
pub fn pwrite(d: &Descriptor, at: i64) -> Result<usize> {
    if at < 0 { Err(Errno::EINVAL) } else { write(d) }
}

/// The descriptor's offset, bytes.
pub fn offset(d: &Descriptor) -> i64 {
    offset::get(d.fd)
}

/// lseek(2).
///
/// # Errors
///
/// EINVAL: a negative result, or no such `whence`. ENXIO: data or hole behind the end.
pub fn lseek(d: &Descriptor, by: i64, whence: i32) -> Result<usize> {
    let size = || stat(d).map(|st| st.st_size);
    let to = match whence {
        libc::SEEK_SET => Some(by),
        libc::SEEK_CUR => offset::get(d.fd).checked_add(by),
        libc::SEEK_END => size()?.checked_add(by),
        libc::SEEK_DATA | libc::SEEK_HOLE => {
            if by >= size()? {
                return Err(Errno::ENXIO);
            }
            if whence == libc::SEEK_DATA || by < 0 { Some(by) } else { Some(size()?) }
        }
        _ => None,
    };
    let to = to.filter(|&to| to >= 0).ok_or(Errno::EINVAL)?;
    if whence != libc::SEEK_CUR || by != 0 {
        offset::set(d.fd, to)?;
    }
    Ok(to as usize)
}

/// ioctl(2): what a regular file answers. `None`: the kernel's answer for a FIFO is right.
///
/// # Safety
///
/// `argument` is what the request takes, a user pointer for those answered here.
pub unsafe fn ioctl(d: &Descriptor, request: u32, argument: usize) -> Option<Result<usize>> {
    const FIOQSIZE: u32 = 0x5460;
    let answer = || -> Result<Option<usize>> {
        // SAFETY: the caller's contract.
        unsafe {
            match request {
                r if r == libc::FIONREAD as u32 => {
                    let rest = stat(d)?.st_size.wrapping_sub(offset::get(d.fd));
                    fault::write_user(argument as *mut i32, rest as i32)?;
                }
                r if r == libc::FIONBIO as u32 => {
                    let on = fault::read_user(argument as *const i32)? != 0;
                    crate::interpose::mq::set_nonblocking(d, on)?;
                }
                // No queue sends SIGIO; turning that off is no error.
                r if r == libc::FIOASYNC as u32 => {
                    if fault::read_user(argument as *const i32)? != 0 {
                        return Err(Errno(libc::ENOTTY));
                    }
                }
                // `inode_get_bytes`: no blocks.
                FIOQSIZE => fault::write_user(argument as *mut i64, 0)?,
                _ => return Ok(None),
            }
        }
        Ok(Some(0))
    };
    answer().transpose()
}

/// mmap(2): whether it is refused before the kernel finds out that it cannot map a queue (ENODEV).
///
/// # Errors
///
/// EACCES: not open for what the mapping would do. EPERM: executable; the file system is noexec.
pub fn check_mapping(d: &Descriptor, protection: i32, flags: i32) -> Result<usize> {
    let kind = flags & libc::MAP_TYPE;
    let shared = kind == libc::MAP_SHARED || kind == libc::MAP_SHARED_VALIDATE;
    let known = shared || kind == libc::MAP_PRIVATE;
    if known && (!d.may_receive() || shared && protection & libc::PROT_WRITE != 0 && !d.may_send()) {
        return Err(Errno::EACCES);
    }
    if known && protection & libc::PROT_EXEC != 0 { Err(Errno::EPERM) } else { Ok(0) }
}

// ---- Changes -----------------------------------------------------------------------------------

/// A file that is known to be the right one, and cannot be replaced by another meanwhile: anybody
/// may put links into the directories where queues lie.
struct Held {
    _file: Fd,
    /// Leads to the file, to be followed.
    link: Path,
}

/// `None`: it isn't the right one.
fn hold(path: &Path, is_right: impl Fn(&libc::stat) -> bool) -> Result<Option<Held>> {
    let file = path.open_own(libc::O_PATH | libc::O_NOFOLLOW)?;
    if !is_right(&file.stat()?) {
        return Ok(None);
    }
    let mut link = Path::new(&[b"/proc/thread-self/fd/"])?;
    link.push_decimal(file.0 as u64)?;
    Ok(Some(Held { _file: file, link }))
}

/// The queue's file, held; `None`: there is none any more.
fn hold_real(map: &Map) -> Result<Option<(Real, Held)>> {
    for _ in 0..3 {
        let Some(real) = real(map) else { break };
        match hold(&real.path, |st| st.st_ino == map.ino && st.st_dev == map.dev) {
            Ok(Some(held)) => return Ok(Some((real, held))),
            // Unlinked just now.
            Ok(None) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(None)
}

/// Runs `change` on a file that goes with the queue's, if it belongs to whom the queue belongs.
fn change_companion(path: Result<Path>, owner: u32, change: impl Fn(&Path) -> Result<()>) {
    let is_right =
        |st: &libc::stat| st.st_uid == owner && st.st_nlink == 1 && st.st_mode & libc::S_IFMT == libc::S_IFREG;
    if let Ok(Some(held)) = path.and_then(|path| hold(&path, is_right)) {
        let _ = change(&held.link);
    }
}

impl Held {
    /// utimensat(2).
    fn set_times(&self, times: Option<&[libc::timespec; 2]>) -> Result<()> {
        let times = times.map_or(core::ptr::null(), |times| times.as_ptr());
        // SAFETY: a NUL-terminated path; null or a local.
        unsafe { syscall!(SYS_utimensat, libc::AT_FDCWD, self.link.as_ptr(), times, 0) }.map(|_| ())
    }
}

/// Whether a descriptor's file may be changed at all.
///
/// # Errors
///
/// EROFS: it was opened through a read-only mount, or the file system is read-only.
pub fn writable(d: &Descriptor) -> Result<()> {
    let read_only = Place::of(d.map.place.load(Relaxed)).is_ok_and(Place::is_read_only);
    if read_only || through::is_read_only(d.fd) { Err(Errno::EROFS) } else { Ok(()) }
}

/// chown(2).
fn chown_at(path: &Path, uid: u32, gid: u32) -> Result<()> {
    // SAFETY: a NUL-terminated path.
    unsafe { syscall!(SYS_fchownat, libc::AT_FDCWD, path.as_ptr(), uid, gid, 0) }.map(|_| ())
}

fn exact(seconds: i64) -> libc::timespec {
    libc::timespec { tv_sec: seconds, tv_nsec: 0 }
}

/// futimens(3), utimensat(2): access, then modification.
///
/// # Errors
///
/// EPERM, EACCES: neither owner nor (for the current time) allowed to write. EINVAL: nanoseconds
/// out of range.
pub fn set_times(map: &Map, times: Option<[libc::timespec; 2]>) -> Result<usize> {
    let Some((real, held)) = hold_real(map)? else { return Ok(0) };
    let Some(mut times) = times else {
        held.set_times(None)?;
        reset_stamps(map);
        return Ok(0);
    };
    let omitted = times.map(|time| time.tv_nsec == libc::UTIME_OMIT);
    if omitted == [true; 2] {
        return Ok(0);
    }
    let now = Times::of(map, &real.st, real.named);
    if omitted[0] {
        times[0] = exact(now.access);
    }
    if omitted[1] {
        times[1] = exact(now.modification);
    }
    held.set_times(Some(&times))?;
    reset_stamps(map);
    Ok(0)
}

/// ftruncate(2): changes `st_size`, and nothing of the queue.
///
/// # Errors
///
/// EINVAL: negative, too long, or not open for writing.
pub fn truncate(d: &Descriptor, len: i64) -> Result<usize> {
    if !d.may_send() || len < 0 {
        return Err(Errno::EINVAL);
    }
    if len > MAX_NON_LFS {
        // "EFBIG: larger than the maximum file size"; without O_LARGEFILE it is checked before.
        let large = desc::visible_flags(d.fd, 0) & desc::LARGEFILE != 0;
        return Err(if large { Errno(libc::EFBIG) } else { Errno::EINVAL });
    }
    match set_size(d.map, len) {
        // A descriptor is enough for the kernel: permission was checked when it was opened.
        Err(Errno::EACCES | Errno::EPERM) => {
            let h = d.map.header();
            h.size.store(len as u64 + 1, Relaxed);
            h.used_sec.store(queue::coarse_seconds(), Relaxed);
            Ok(0)
        }
        other => other,
    }
}

/// truncate(2): the size of the file, with its modification and change time.
///
/// # Errors
///
/// EINVAL: negative. EACCES: not allowed to write.
pub fn set_size(map: &Map, len: i64) -> Result<usize> {
    let Some((real, held)) = hold_real(map)? else { return Ok(0) };
    let before = Times::of(map, &real.st, real.named);
    // SAFETY: a NUL-terminated path.
    unsafe { syscall!(SYS_truncate, held.link.as_ptr(), len)? };
    map.header().size.store(0, Relaxed);
    let now = libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_NOW };
    match held.set_times(Some(&[exact(before.access), now])) {
        Ok(()) => reset_stamps(map),
        // Not the owner, who alone may set times: the access time goes along.
        Err(_) => map.header().used_sec.store(queue::coarse_seconds(), Relaxed),
    }
    Ok(0)
}

/// truncate(2): the size alone, as the kernel has it by the path.
///
/// # Errors
///
/// EACCES: not allowed to write.
pub fn set_size_only(map: &Map, len: i64) -> Result<usize> {
    let Some((real, held)) = hold_real(map)? else { return Ok(0) };
    let before = Times::of(map, &real.st, real.named);
    // SAFETY: a NUL-terminated path.
    unsafe { syscall!(SYS_truncate, held.link.as_ptr(), len)? };
    let h = map.header();
    h.size.store(0, Relaxed);
    let _ = held.set_times(Some(&[exact(before.access), exact(before.modification)]));
    h.used_sec.store(0, Relaxed);
    h.touched_sec.store(0, Relaxed);
    changed_sec(h).store(before.change as u64, Relaxed);
    Ok(0)
}

/// fchmod(2): the queue's mode, and with it who finds the way to its segment.
///
/// # Errors
///
/// EPERM: neither owner nor privileged.
pub fn chmod(map: &Map, mode: u32) -> Result<usize> {
    let Some((real, held)) = hold_real(map)? else { return Ok(0) };
    let mode = mode & 0o7777;
    held.link.chmod(mode)?;
    let key = Place::of(map.place.load(Relaxed)).and_then(|place| queues::hidden(place, map.ino, b".k"));
    change_companion(key, real.st.st_uid, |key| key.chmod(queues::key_mode(mode)));
    stamp_change(map);
    Ok(0)
}

/// fchown(2): the queue's owner and group, and those of the files beside it, so that the new owner
/// can take them away.
///
/// # Errors
///
/// EPERM: not privileged, or not in that group.
pub fn chown(map: &Map, uid: u32, gid: u32) -> Result<usize> {
    let Some((real, held)) = hold_real(map)? else { return Ok(0) };
    chown_at(&held.link, uid, gid)?;
    if let Ok(place) = Place::of(map.place.load(Relaxed)) {
        let change = |path: &Path| chown_at(path, uid, gid);
        change_companion(queues::hidden(place, map.ino, b".k"), real.st.st_uid, change);
        change_companion(queues::keyed(place, map.key, b".s"), real.st.st_uid, change);
        for fifo in [b".p", b".d"] {
            let _ = queues::keyed(place, map.key, fifo).and_then(|fifo| fifo.chown(uid, gid));
        }
    }
    stamp_change(map);
    Ok(0)
}

/// access(2), faccessat(2) of a path that leads to a queue descriptor.
///
/// # Errors
///
/// EACCES: not allowed; for X_OK always, as the file system is mounted so. EINVAL.
pub fn access(d: &Descriptor, mode: i32, flags: i32) -> Result<usize> {
    let Some((_, held)) = hold_real(d.map)? else { return Ok(0) };
    // SAFETY: a NUL-terminated path.
    unsafe {
        if flags == 0 {
            syscall!(SYS_faccessat, libc::AT_FDCWD, held.link.as_ptr(), mode)?;
        } else {
            syscall!(SYS_faccessat2, libc::AT_FDCWD, held.link.as_ptr(), mode, flags)?;
        }
    }
    if mode & libc::X_OK != 0 { Err(Errno::EACCES) } else { Ok(0) }
}

/// fallocate(2).
///
/// # Errors
///
/// EINVAL: a negative offset or a length that is not positive. EBADF: not open for writing.
/// EOPNOTSUPP otherwise.
pub fn fallocate(d: &Descriptor, mode: i32, offset: i64, len: i64) -> Result<usize> {
    if offset < 0 || len <= 0 {
        return Err(Errno::EINVAL);
    }
    Err(if mode == 0 && !d.may_send() { Errno::EBADF } else { Errno::EOPNOTSUPP })
}

/// posix_fallocate(3), as libc does it where the file system cannot: it writes a zero into each
/// block, unless it reads something else there.
///
/// # Errors
///
/// EINVAL: arguments out of range, or the write's. EBADF: not open for both.
pub fn posix_fallocate(d: &Descriptor, tls: &'static Tls, offset: i64, len: i64) -> Result<usize> {
    if offset < 0 || len <= 0 {
        return Err(Errno::EINVAL);
    }
    if !d.may_send() || !d.may_receive() {
        return Err(Errno::EBADF);
    }
    let last = offset.saturating_add((len - 1) % BLOCK);
    if len <= BLOCK && last < text(d, tls)?.len as i64 { Ok(0) } else { Err(Errno::EINVAL) }
}

// ---- /proc/self/fd -----------------------------------------------------------------------------

/// The queue descriptor that a path names: `/proc/self/fd/N` and its other spellings, or `N` in that
/// directory. For any other path this costs next to nothing, and nothing at all in a process that
/// has never had a queue.
///
/// # Safety
///
/// `path` is a user pointer.
#[inline(always)]
pub unsafe fn descriptor_of_path(dir: i32, path: *const c_char) -> Option<i32> {
    if !desc::any() {
        return None;
    }
    // SAFETY: the caller's contract.
    unsafe { look_at_path(dir, path.cast()) }
}

/// # Safety
///
/// `path` is a user pointer.
#[cold]
unsafe fn look_at_path(dir: i32, path: *const u8) -> Option<i32> {
    let mut buffer = [0u8; 64];
    if path.is_null() {
        return None;
    }
    // SAFETY: the caller's contract.
    unsafe {
        match fault::read_user(path).ok()? {
            b'/' if !matches!(fault::read_user(path.wrapping_add(1)), Ok(b'p' | b'd')) => return None,
            b'/' | b'0'..=b'9' => {}
            _ => return None,
        }
    }
    // SAFETY: the caller's contract.
    let len = unsafe { fault::copy_cstr(&mut buffer, path).ok()? };
    let path = &buffer[..len];
    let fd = match path.strip_prefix(b"/dev/") {
        Some(b"stdin") => 0,
        Some(b"stdout") => 1,
        Some(b"stderr") => 2,
        Some(rest) => number(rest.strip_prefix(b"fd/")?)?,
        None if path[0] == b'/' => in_proc(path)?,
        None => {
            let fd = number(path).filter(|&fd| dir >= 0 && desc::is_known(fd))?;
            let mut whole = Path::of_descriptor(dir).ok()?;
            whole.push(b"/").ok()?;
            whole.push_decimal(fd as u64).ok()?;
            in_proc(whole.as_bytes())?
        }
    };
    desc::is_known(fd).then_some(fd)
}

/// `/proc/self/fd/N`, `/proc/thread-self/fd/N`, `/proc/OWN-PID/fd/N`.
fn in_proc(path: &[u8]) -> Option<i32> {
    let rest = path.strip_prefix(b"/proc/")?;
    let (who, rest) = rest.split_at(rest.iter().position(|&b| b == b'/')?);
    let fd = number(rest.strip_prefix(b"/fd/")?)?;
    (who == b"self" || who == b"thread-self" || number(who)? as u32 == getpid()).then_some(fd)
}

/// A decimal number as proc(5) has it: without leading zeros.
fn number(text: &[u8]) -> Option<i32> {
    if text.len() > 1 && text[0] == b'0' || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    core::str::from_utf8(text).ok()?.parse().ok()
}

/// readlink(2) of `/proc/self/fd/N`.
///
/// # Errors
///
/// EINVAL: no room. EFAULT.
///
/// # Safety
///
/// `to` is a user pointer.
pub unsafe fn readlink(d: &Descriptor, to: *mut u8, len: usize) -> Result<usize> {
    if len as i32 <= 0 {
        return Err(Errno::EINVAL);
    }
    let link = match through::path(d.fd) {
        Ok(path) => path,
        Err(_) => {
            let mut buffer = [0; NAME_MAX];
            let name_len = d.map.name(&mut buffer);
            let named = real(d.map).is_some_and(|real| real.named);
            Path::new(&[b"/", &buffer[..name_len], if named { b"" } else { b" (deleted)" }])?
        }
    };
    let bytes = &link.as_bytes()[..link.as_bytes().len().min(len)];
    // SAFETY: the caller's contract.
    unsafe { fault::copy(to, bytes.as_ptr(), bytes.len())? };
    Ok(bytes.len())
}

/// open(2) of `/proc/self/fd/N`: a new description of the same queue, if its mode allows.
///
/// # Errors
///
/// As open(2): EACCES, EPERM (O_NOATIME), EEXIST (O_EXCL), ENOTDIR (O_DIRECTORY), EINVAL (O_DIRECT),
/// EMFILE.
pub fn reopen(d: &Descriptor, tls: &'static Tls, flags: i32) -> Result<usize> {
    const EXCLUSIVE: i32 = libc::O_CREAT | libc::O_EXCL;
    if flags & libc::O_PATH == 0 && flags & EXCLUSIVE == EXCLUSIVE {
        return Err(Errno::EEXIST);
    }
    let keep_over_exec = |fd: i32| {
        if flags & libc::O_CLOEXEC == 0 {
            // SAFETY: no pointers.
            let _ = unsafe { syscall!(SYS_fcntl, fd, libc::F_SETFD, 0) };
        }
        fd as usize
    };
    if flags & libc::O_PATH != 0 {
        let file = real(d.map).ok_or(Errno::ENOENT)?.path.open(flags & libc::O_DIRECTORY | libc::O_PATH, 0)?;
        let is_right = file.stat()?.st_ino == d.map.ino;
        return if is_right { Ok(keep_over_exec(file.release())) } else { Err(Errno::ENOENT) };
    }
    let truncating = flags & libc::O_TRUNC != 0;
    // The kernel checks what the queue's mode says, on the queue's file.
    // "O_RDONLY | O_TRUNC" needs the permission to write as well.
    let access = match flags & libc::O_ACCMODE {
        libc::O_RDONLY if truncating => libc::O_RDWR,
        access => access,
    };
    if access != libc::O_RDONLY {
        writable(d)?;
    }
    let checked = access | flags & (libc::O_DIRECTORY | libc::O_NOATIME);
    while let Some(file) = real(d.map) {
        match file.path.open(checked | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY, 0) {
            Ok(file) if file.stat()?.st_ino == d.map.ino => break,
            // Unlinked just now, and perhaps replaced.
            Ok(_) | Err(Errno::ENOENT | Errno::ELOOP) => {}
            Err(errno) => return Err(errno),
        }
    }
    if flags & libc::O_DIRECT != 0 {
        return Err(Errno::EINVAL);
    }
    if truncating {
        set_size(d.map, 0)?;
    }
    const GONE: i32 = EXCLUSIVE | libc::O_TRUNC | libc::O_NOCTTY | libc::O_CLOEXEC | libc::O_DIRECTORY;
    let fd = queues::reopen(tls, d.map, flags & !GONE | desc::LARGEFILE)?;
    through::duplicated(d.fd, fd);
    Ok(keep_over_exec(fd))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_to_descriptors_are_told_from_others() {
        let own = std::format!("/proc/{}/fd/7", std::process::id());
        for path in ["/proc/self/fd/7", "/proc/thread-self/fd/7", &own] {
            assert_eq!(in_proc(path.as_bytes()), Some(7), "{path}");
        }
        for path in ["/proc/self/fd/07", "/proc/self/fd/", "/proc/self/fd/7/", "/proc/self/fdinfo/7", "/proc/1x/fd/7"] {
            assert_eq!(in_proc(path.as_bytes()), None, "{path}");
        }
        assert_eq!(number(b"4294967296"), None);
    }
}
