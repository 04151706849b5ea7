//! The mqueue file system: superblocks where they are mounted, and what paths mean there.
//!
//! A namespace's superblock is the directory `sb` in which its queues' files lie. Mounted, it is bind mounted
//! ([`mount`]): the kernel resolves paths, checks permissions and counts who uses the mount. What it would do
//! differently in a directory of another file system is done here ([`ops`]).
//!
//! Whether a path leads into a superblock is told by the directory that holds its last component: by device
//! and inode, in a register of the superblocks that have been mounted (`ROOT/m/INODE`, a symbolic link
//! to the namespace's directory). While none has been under this root, a look at a shared counter is all that
//! a path costs, or at a clock where there is no counter yet.

pub mod mount;
pub mod ops;
pub mod table;
pub mod through;
pub mod virtuals;

use core::ffi::c_char;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::abi::{Errno, NAME_MAX, Result};
use crate::ns::control::Accounts;
use crate::ns::{self, Referred};
use crate::sys::path::{Fd, Path, stat_path};
use crate::sys::tls::Tls;
use crate::syscall;

/// The counter of mounts ([`Accounts::mounts`]), 0: not found yet.
static MOUNTS: AtomicUsize = AtomicUsize::new(0);
/// Device of the root directory.
static DEVICE: AtomicU64 = AtomicU64::new(0);

/// Until when nothing can have been mounted, because this process, or the one it came from by fork, has looked for the
/// counters and found none. 0: it has not.
static NONE_UNTIL: AtomicU64 = AtomicU64::new(0);
/// For so long, in ns, nothing can have been mounted after such a look: the first mount under a root directory
/// waits until the counters have been there for so long ([`await_lookers`]).
const GRACE: u64 = 10_000_000;

/// CLOCK_MONOTONIC_COARSE, which is read without a system call, and in 4 ns.
#[inline(always)]
fn now() -> u64 {
    let mut now = core::mem::MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: room for one; the kernel has had that clock since 2.6.32, so that it is filled in.
    let now = unsafe {
        libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, now.as_mut_ptr());
        now.assume_init()
    };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// The counters have been made: returns when no process goes by an earlier look any more. Everybody goes by the same
/// clock, which is read before the look there and after the making here, so that it does not matter how
/// coarse it is, nor where it stands still for a while.
pub fn await_lookers() {
    let made = now();
    while now().wrapping_sub(made) < GRACE {
        let tick = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        // SAFETY: a local; what is left of it nobody wants to know.
        let _ = unsafe { syscall!(SYS_nanosleep, &raw const tick, 0) };
    }
}

/// What has been seen is no use any more: the process may see other directories from now on.
pub fn look_again() {
    NONE_UNTIL.store(0, Ordering::Relaxed);
}

/// The counters of mounts and of virtual mounts, if this process knows them.
#[inline(always)]
fn found() -> Option<&'static [AtomicU64; 2]> {
    let at = MOUNTS.load(Ordering::Relaxed) as *const [AtomicU64; 2];
    // SAFETY: null or a mapping that stays; the second counter stands behind the first.
    unsafe { at.as_ref() }
}

/// The counters, if there are any.
#[inline(always)]
fn counters() -> Option<&'static [AtomicU64; 2]> {
    found().or_else(look)
}

/// Whether any superblock has ever been mounted under this root.
#[inline(always)]
pub fn any() -> bool {
    counters().is_some_and(|[mounts, _]| mounts.load(Ordering::Relaxed) != 0) || virtuals::by_environment()
}

/// The same without asking the kernel, for those who have just asked.
#[inline(always)]
pub fn any_known() -> bool {
    any_found() || virtuals::by_environment()
}

/// Whether any has been, as far as this process has asked.
#[inline(always)]
pub fn any_found() -> bool {
    found().is_some_and(|[mounts, _]| mounts.load(Ordering::Relaxed) != 0)
}

/// Whether there are virtual mounts: then a path may lead into a superblock though the kernel knows nothing of it.
#[inline(always)]
pub fn any_virtual() -> bool {
    any_in_table() || virtuals::by_environment()
}

/// Whether any has ever been made by mount(2).
#[inline(always)]
fn any_in_table() -> bool {
    counters().is_some_and(|[_, virtuals]| virtuals.load(Ordering::Relaxed) != 0)
}
const _: () = assert!(core::mem::offset_of!(Accounts, virtuals) == core::mem::offset_of!(Accounts, mounts) + 8);

/// The counters, where this process has found none yet: a program without queues does not make them, and another
/// process may make them, and the first mount, at any time.
#[inline(never)]
fn look() -> Option<&'static [AtomicU64; 2]> {
    let now = now();
    let left = NONE_UNTIL.load(Ordering::Relaxed).wrapping_sub(now);
    // More is left on another clock only: that of a time namespace.
    if (1..=GRACE).contains(&left) { None } else { find(now) }
}

#[cold]
#[inline(never)]
fn find(now: u64) -> Option<&'static [AtomicU64; 2]> {
    match ns::counters() {
        Ok((mounts, device)) => {
            DEVICE.store(device, Ordering::Release);
            let _ = MOUNTS.compare_exchange(0, mounts as usize, Ordering::AcqRel, Ordering::Acquire);
            found()
        }
        Err(errno) => {
            // Whatever else is wrong, such as too many open files, does not mean that there are none.
            if errno == Errno::ENOENT {
                NONE_UNTIL.store(now + GRACE, Ordering::Relaxed);
            }
            None
        }
    }
}

/// Whether a file of that device can be of a superblock.
#[inline(always)]
pub fn is_device(dev: u64) -> bool {
    dev == DEVICE.load(Ordering::Relaxed)
}

/// The calling thread's block.
pub fn tls() -> &'static Tls {
    ns::member::tls()
}

/// What a path names in a superblock. It need not exist.
pub struct Target {
    /// The namespace whose superblock it is.
    pub place: Referred,
    /// The superblock's directory (O_PATH), by the mount that the path leads through.
    pub dir: Fd,
    name: [u8; NAME_MAX],
    len: usize,
    /// It ends with a slash: only a directory would do.
    pub slash: bool,
    /// The virtual mount that it was named through: the inode of the covered directory; 0: one of the kernel's.
    pub cover: u64,
    /// That is read-only.
    pub covered_read_only: bool,
    /// The path goes on behind the name.
    pub beneath: bool,
}

impl Target {
    /// The queue's name, without a slash.
    pub fn name(&self) -> &[u8] {
        &self.name[..self.len]
    }

    /// The name as a path, relative to the directory.
    pub fn path(&self) -> Path {
        // A name is shorter than any path.
        Path::new(&[self.name()]).unwrap_or(Path::empty())
    }

    /// stat(2) of the file.
    ///
    /// # Errors
    ///
    /// ENOENT; EACCES: the directory may not be searched. ENOTDIR: it is meant as one.
    pub fn stat(&self) -> Result<libc::stat> {
        if self.beneath {
            return Err(Errno::ENOTDIR);
        }
        stat_path(self.dir.0, self.path().as_ptr(), libc::AT_SYMLINK_NOFOLLOW)
    }

    /// Whether the mount, or the file system, is read-only.
    pub fn is_read_only(&self) -> bool {
        self.covered_read_only || self.place.is_read_only() || is_read_only(&self.dir)
    }
}

/// Whether a directory is seen through a read-only mount.
pub fn is_read_only(dir: &Fd) -> bool {
    // SAFETY: plain integers; zero is valid for all of them.
    let mut fs: libc::statfs = unsafe { core::mem::zeroed() };
    const ST_RDONLY: i64 = 1;
    // SAFETY: the result goes to a local.
    unsafe { syscall!(SYS_fstatfs, dir.0, &raw mut fs) }.is_ok() && flags_of(&fs) & ST_RDONLY != 0
}

/// Where in `struct statfs` of every 64-bit architecture the flags are, in words.
const FLAGS_AT: usize = 10;

/// Sets `f_flags`, which the libc crate hides.
pub fn set_flags(fs: &mut libc::statfs, flags: i64) {
    // SAFETY: as in `flags_of`.
    unsafe { (&raw mut *fs).cast::<i64>().add(FLAGS_AT).write(flags) };
}

/// `f_flags`, which the libc crate hides.
pub fn flags_of(fs: &libc::statfs) -> i64 {
    // SAFETY: `struct statfs` of every 64-bit architecture is 15 words; the flags are the eleventh.
    unsafe { (&raw const *fs).cast::<i64>().add(FLAGS_AT).read() }
}

/// Longest path that the kernel takes, bytes with the NUL (PATH_MAX).
const PATH_MAX: usize = 4096;
/// As many symbolic links as the kernel follows in a path.
const MAXSYMLINKS: usize = 40;

/// A path of any length.
struct Long {
    bytes: [u8; PATH_MAX],
    len: usize,
}

impl Long {
    /// # Safety
    ///
    /// `path` is NUL-terminated.
    unsafe fn copy(&mut self, path: *const c_char) -> bool {
        // SAFETY: the caller's contract.
        let text = unsafe { core::ffi::CStr::from_ptr(path) }.to_bytes();
        if text.len() >= PATH_MAX {
            return false;
        }
        self.bytes[..text.len()].copy_from_slice(text);
        self.len = text.len();
        true
    }
}

/// What a path, relative to descriptor `at`, names in a superblock. `follow`: symbolic links at its end are
/// followed. Nothing: it leads elsewhere, or nowhere; the kernel will say so.
///
/// # Safety
///
/// `path` is a user pointer.
#[cold]
#[inline(never)]
pub unsafe fn locate(at: i32, path: *const c_char, follow: bool) -> Option<Target> {
    // The kernel looks first: whether the path can be read at all, and what it is.
    let mut is_link = true;
    match stat_path(at, path, libc::AT_SYMLINK_NOFOLLOW) {
        Err(Errno::EFAULT | Errno::ENAMETOOLONG) => return None,
        Err(_) => {}
        Ok(st) => {
            is_link = st.st_mode & libc::S_IFMT == libc::S_IFLNK;
            if if is_link { !follow } else { !is_device(st.st_dev) && !any_virtual() } {
                return None;
            }
        }
    }
    let mut long = Long { bytes: [0; PATH_MAX], len: 0 };
    // SAFETY: the kernel has read it.
    if !unsafe { long.copy(path) } {
        return None;
    }
    let mut from = None::<Fd>;
    for _ in 0..MAXSYMLINKS {
        let start = from.as_ref().map_or(at, |dir| dir.0);
        let (dir, name) = match split(start, &mut long)? {
            Last::Ours(target) => return Some(target),
            Last::Elsewhere(..) if !follow || !is_link => return None,
            Last::Elsewhere(dir, name) => (dir, name),
        };
        // Of what a link leads to nothing is known yet.
        long.len = read_link(&dir, &name, &mut long.bytes)?;
        from = Some(dir);
    }
    None
}

/// The last component of a path.
#[allow(clippy::large_enum_variant)]
enum Last {
    /// In a superblock.
    Ours(Target),
    /// In another directory; it may be a link.
    Elsewhere(Fd, Path),
}

/// Opens the directory that holds the last component of a path.
#[inline(never)]
fn split(at: i32, long: &mut Long) -> Option<Last> {
    let whole = &long.bytes[..long.len];
    let trimmed = whole.len() - whole.iter().rev().take_while(|&&b| b == b'/').count();
    let cut = whole[..trimmed].iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1);
    let slash = trimmed < whole.len();
    let name = &whole[cut..trimmed];
    if (name == b"." || name == b"..") && cut != 0 && any_virtual() {
        long.len = cut;
        return beneath(at, long);
    }
    if name.is_empty() || name == b"." || name == b".." || name.len() > NAME_MAX {
        return None;
    }
    let mut copy = [0u8; NAME_MAX];
    let len = name.len();
    copy[..len].copy_from_slice(name);
    // The rest in place.
    let parent: *const u8 = if cut == 0 { c".".as_ptr().cast() } else { long.bytes.as_ptr() };
    if cut != 0 {
        long.bytes[cut] = 0;
    }
    let kernels =
        |place, dir| Target { place, dir, name: copy, len, slash, cover: 0, covered_read_only: false, beneath: false };
    let covered = |cover: virtuals::Cover| -> Option<Last> {
        let dir = open_superblock(&cover.place).ok()?;
        let (cover, place, covered_read_only) = (cover.ino, cover.place, cover.flags & libc::MS_RDONLY != 0);
        Some(Last::Ours(Target { cover, covered_read_only, ..kernels(place, dir) }))
    };
    let dir = match Fd::open_at(at, parent.cast(), libc::O_PATH | libc::O_DIRECTORY) {
        Ok(dir) => dir,
        Err(Errno::ENOENT) if any_virtual() => {
            if let Some(cover) = virtuals::covering_path(&long.bytes[..cut]) {
                return covered(cover);
            }
            // Perhaps it is a queue's name that is taken for a directory's.
            long.len = cut;
            return beneath(at, long);
        }
        Err(_) => return None,
    };
    let st = dir.stat().ok()?;
    if any_virtual()
        && let Some(cover) = virtuals::covering(st.st_dev, st.st_ino)
    {
        return covered(cover);
    }
    Some(match superblock(st.st_dev, st.st_ino) {
        Some(place) => Last::Ours(kernels(place, dir)),
        None => Last::Elsewhere(dir, Path::new(&[&copy[..len]]).ok()?),
    })
}

/// Whether the directory exists that a path, which the kernel has read, would have its last component in.
///
/// # Safety
///
/// `path` is NUL-terminated.
pub unsafe fn has_parent(at: i32, path: *const c_char) -> bool {
    let mut long = Long { bytes: [0; PATH_MAX], len: 0 };
    // SAFETY: the caller's contract.
    unsafe { long.copy(path) && split(at, &mut long).is_some() }
}

/// What a path beneath that of a queue's file leads to: nothing, but the error is another one.
fn beneath(at: i32, long: &mut Long) -> Option<Last> {
    match split(at, long)? {
        Last::Ours(target) => target.stat().is_ok().then_some(Last::Ours(Target { beneath: true, ..target })),
        Last::Elsewhere(..) => None,
    }
}

/// The superblock's directory, by the library's own path.
pub fn open_superblock(place: &Referred) -> Result<Fd> {
    place.path(&[b"/sb"])?.open_own(libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW)
}

/// readlink(2) into `to`; nothing: it is none.
fn read_link(dir: &Fd, name: &Path, to: &mut [u8; PATH_MAX]) -> Option<usize> {
    // SAFETY: the buffer is as long as said.
    let got = unsafe { syscall!(SYS_readlinkat, dir.0, name.as_ptr(), to.as_mut_ptr(), PATH_MAX - 1) }.ok()?;
    Some(got)
}

/// The namespace whose superblock a directory is.
pub fn superblock(dev: u64, ino: u64) -> Option<Referred> {
    // Not all who ask have looked for the counters, and with them for the device.
    if counters().is_none() || !is_device(dev) {
        return None;
    }
    let tls = tls();
    if let Some(place) = ns::known_superblock(tls, dev, ino) {
        return Some(place);
    }
    let dir = mount::registered(ino).ok()?;
    let place = ns::place(tls, dir.as_bytes()).ok()?;
    // It is what it says.
    (place.superblock().ok()? == (dev, ino)).then_some(place)
}

/// The namespace whose superblock's root a path names by a mount of the kernel's.
///
/// # Safety
///
/// `path` is a user pointer.
pub unsafe fn root_at(at: i32, path: *const c_char, follow: bool) -> Option<(Referred, Fd)> {
    let flags = libc::O_PATH | if follow { 0 } else { libc::O_NOFOLLOW };
    let dir = Fd::open_at(at, path, flags).ok()?;
    let place = root_of(&dir)?;
    Some((place, dir))
}

/// The same by any mount; the directory is the superblock's, and whether the mount is read-only.
///
/// # Safety
///
/// `path` is a user pointer.
pub unsafe fn any_root_at(at: i32, path: *const c_char, follow: bool) -> Option<(Referred, Fd, bool)> {
    if any_virtual()
        // SAFETY: the caller's contract.
        && let Some(cover) = unsafe { cover_at(at, path, follow) }
    {
        let dir = open_superblock(&cover.place).ok()?;
        return Some((cover.place, dir, cover.flags & libc::MS_RDONLY != 0));
    }
    // SAFETY: the caller's contract.
    let (place, dir) = unsafe { root_at(at, path, follow) }?;
    let read_only = is_read_only(&dir);
    Some((place, dir, read_only))
}

/// The virtual mount on the directory that a path names.
///
/// # Safety
///
/// `path` is a user pointer.
pub unsafe fn cover_at(at: i32, path: *const c_char, follow: bool) -> Option<virtuals::Cover> {
    if !any_virtual() {
        return None;
    }
    match stat_path(at, path, if follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW }) {
        Ok(st) if st.st_mode & libc::S_IFMT == libc::S_IFDIR => virtuals::covering(st.st_dev, st.st_ino),
        Err(Errno::ENOENT) if virtuals::by_environment() => {
            // SAFETY: the kernel has read it.
            virtuals::covering_path(unsafe { core::ffi::CStr::from_ptr(path) }.to_bytes())
        }
        _ => None,
    }
}

/// The namespace whose superblock's root a descriptor refers to.
pub fn root_of(dir: &Fd) -> Option<Referred> {
    let st = dir.stat().ok()?;
    if st.st_mode & libc::S_IFMT != libc::S_IFDIR {
        return None;
    }
    superblock(st.st_dev, st.st_ino)
}

/// What a descriptor that the library knows nothing about refers to in a superblock: a file that was opened
/// with O_PATH, or by others.
pub fn target_of_descriptor(fd: i32) -> Option<Target> {
    let path = Path::of_descriptor(fd).ok()?;
    let path = match path.as_bytes().strip_suffix(b" (deleted)") {
        Some(name) if stat_path(libc::AT_FDCWD, path.as_ptr(), 0).is_err() => Path::new(&[name]).ok()?,
        _ => path,
    };
    // SAFETY: NUL-terminated.
    unsafe { locate(libc::AT_FDCWD, path.as_ptr(), false) }
}
