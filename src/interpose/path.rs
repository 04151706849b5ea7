//! Paths into the mqueue file system: what makes, removes and renames, extended attributes, sockets, and what
//! the calls of [`super::file`] do there.
//!
//! While no superblock has ever been mounted a hook costs a look at a shared counter and goes on to the next
//! definition.

use core::ffi::{c_char, c_int, c_uint, c_void};

use super::{BYPASS, aside, jump, next, raw_result, ret};
use crate::abi::{Errno, Result};
use crate::face;
use crate::ns::Referred;
use crate::sys::fault;
use crate::sys::path::{Fd, stat_fd, stat_path};
use crate::sys::tls::Tls;
use crate::vfs::{self, Target, ops};
use crate::{maps, syscall};

jump! {
    /// glob(3): libc opens directories behind every hook.
    glob => cshim_glob;
    /// glob(3) for programs with 64-bit offsets.
    glob64 => cshim_glob;
    /// scandir(3): as glob(3).
    scandir => cshim_scandir;
    /// scandir(3) for programs with 64-bit offsets.
    scandir64 => cshim_scandir;
    /// mkdtemp(3).
    mkdtemp => cshim_mkdtemp;
    /// mkstemp(3).
    mkstemp => cshim_mkstemp;
    /// mkstemp(3) for programs with 64-bit offsets.
    mkstemp64 => cshim_mkstemp;
    /// mkostemp(3).
    mkostemp => cshim_mkostemp;
    /// mkostemp(3) for programs with 64-bit offsets.
    mkostemp64 => cshim_mkostemp;
    /// mkstemps(3).
    mkstemps => cshim_mkstemps;
    /// mkstemps(3) for programs with 64-bit offsets.
    mkstemps64 => cshim_mkstemps;
    /// mkostemps(3).
    mkostemps => cshim_mkostemps;
    /// mkostemps(3) for programs with 64-bit offsets.
    mkostemps64 => cshim_mkostemps;
}

/// Whether a path leads into a superblock.
///
/// # Safety
///
/// `path` is NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mqns_is_target(path: Path) -> c_int {
    c_int::from(target(AT, path, false).is_some())
}

/// Whether directories may have to be read by our own opendir(3).
#[unsafe(no_mangle)]
pub extern "C" fn mqns_any_virtual() -> c_int {
    c_int::from(vfs::any_virtual())
}

/// The next glob (0), scandir (1), mkostemps (2) or mkdtemp (3).
#[unsafe(no_mangle)]
pub extern "C" fn mqns_next_directory(which: c_int) -> usize {
    super::find_next([c"glob", c"scandir", c"mkostemps", c"mkdtemp"][which as usize % 4])
}

type Path = *const c_char;
const AT: c_int = libc::AT_FDCWD;

/// The target of a path, if it leads into a superblock.
#[inline(always)]
fn target(at: c_int, path: Path, follow: bool) -> Option<Target> {
    // SAFETY: a user pointer, which the kernel reads first.
    if vfs::any() { unsafe { vfs::locate(at, path, follow) } } else { None }
}

/// A thread that may use queues.
fn ready() -> Result<&'static Tls> {
    super::mq::ready()
}

/// Hooks: `fn NAME(ARGUMENTS) { AT, PATH, FOLLOW => |target| answer }`, where the answer is a
/// `Result<usize>`, for functions that return 0 or -1.
macro_rules! hooks {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),*) { $at:expr, $path:expr, $follow:expr => |$t:pat_param| $answer:expr })*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        ///
        /// The C prototype's.
        #[cfg_attr(not(test), unsafe(no_mangle))]
        pub unsafe extern "C-unwind" fn $name($($arg: $type),*) -> c_int {
            if vfs::any() {
                let answer = aside(move || match target($at, $path, $follow) {
                    Some($t) => raw_result($answer),
                    None => BYPASS,
                });
                if answer != BYPASS {
                    return ret(crate::sys::check(answer)) as c_int;
                }
            }
            let next = next!($name: unsafe extern "C-unwind" fn($($type),*) -> c_int);
            // SAFETY: the caller's contract is its.
            unsafe { next($($arg),*) }
        }
    )*};
}

hooks! {
    /// unlink(2).
    fn unlink(path: Path) { AT, path, false => |t| ops::unlink(ready().unwrap_or(vfs::tls()), &t) }
    /// remove(3).
    fn remove(path: Path) { AT, path, false => |t| ops::unlink(ready().unwrap_or(vfs::tls()), &t) }
    /// mkdir(2).
    fn mkdir(path: Path, mode: c_uint) { AT, path, false => |t| ops::refuse_directory(&t) }
    /// mkdirat(2).
    fn mkdirat(dir: c_int, path: Path, mode: c_uint) { dir, path, false => |t| ops::refuse_directory(&t) }
    /// symlink(2).
    fn symlink(text: Path, path: Path) { AT, path, false => |t| ops::refuse(&t) }
    /// symlinkat(2).
    fn symlinkat(text: Path, dir: c_int, path: Path) { dir, path, false => |t| ops::refuse(&t) }
    /// mkfifo(3).
    fn mkfifo(path: Path, mode: c_uint) { AT, path, false => |t| ops::refuse(&t) }
    /// mkfifoat(3).
    fn mkfifoat(dir: c_int, path: Path, mode: c_uint) { dir, path, false => |t| ops::refuse(&t) }
    /// mknod(2).
    fn mknod(path: Path, mode: c_uint, device: u64) { AT, path, false => |t| make_node(&t, mode) }
    /// mknodat(2).
    fn mknodat(dir: c_int, path: Path, mode: c_uint, device: u64) { dir, path, false => |t| make_node(&t, mode) }
    /// mknod(2), as programs built with glibc before 2.33 call it.
    fn __xmknod(version: c_int, path: Path, mode: c_uint, device: *const u64) { AT, path, false => |t| make_node(&t, mode) }
    /// mknodat(2), as programs built with glibc before 2.33 call it.
    fn __xmknodat(version: c_int, dir: c_int, path: Path, mode: c_uint, device: *const u64) { dir, path, false => |t| make_node(&t, mode) }
    /// lchown(2).
    fn lchown(path: Path, uid: c_uint, gid: c_uint) { AT, path, false => |t| chown(&t, uid, gid) }
    /// lchmod(3).
    fn lchmod(path: Path, mode: c_uint) { AT, path, false => |t| chmod(&t, mode) }
    /// utime(2).
    fn utime(path: Path, times: *const libc::utimbuf) { AT, path, true => |t| set_times(&t, || of_utimbuf(times)) }
    /// utimes(2).
    fn utimes(path: Path, times: *const libc::timeval) { AT, path, true => |t| set_times(&t, || of_timeval(times)) }
    /// lutimes(3).
    fn lutimes(path: Path, times: *const libc::timeval) { AT, path, false => |t| set_times(&t, || of_timeval(times)) }
}

/// euidaccess(3).
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn euidaccess(path: Path, mode: c_int) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { super::file::faccessat(AT, path, mode, libc::AT_EACCESS) }
}

/// eaccess(3): see [`euidaccess`].
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn eaccess(path: Path, mode: c_int) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { euidaccess(path, mode) }
}

fn remove_at(t: &Target, flags: c_int) -> Result<usize> {
    if flags & !libc::AT_REMOVEDIR != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & libc::AT_REMOVEDIR != 0 {
        if t.is_read_only() {
            return Err(Errno::EROFS);
        }
        t.stat()?;
        let path = t.path();
        // It is no directory, so that the kernel only has to say what is wrong first.
        // SAFETY: the path is NUL-terminated.
        return unsafe { syscall!(SYS_unlinkat, t.dir.0, path.as_ptr(), libc::AT_REMOVEDIR) };
    }
    ops::unlink(ready()?, t)
}

fn make_node(t: &Target, mode: c_uint) -> Result<usize> {
    ops::make_node(ready()?, t, mode)
}

/// Access and modification; nothing: now.
pub type Times = Option<[libc::timespec; 2]>;

fn of_utimbuf(times: *const libc::utimbuf) -> Result<Times> {
    if times.is_null() {
        return Ok(None);
    }
    // SAFETY: a user pointer, read with faults caught.
    let times = unsafe { fault::read_user(times)? };
    Ok(Some([times.actime, times.modtime].map(|sec| libc::timespec { tv_sec: sec, tv_nsec: 0 })))
}

fn of_timeval(times: *const libc::timeval) -> Result<Times> {
    // SAFETY: a user pointer, read with faults caught.
    unsafe { super::file::user_times(times, super::file::from_timeval) }
}

/// chmod(2) of a target.
///
/// # Errors
///
/// As chmod(2).
pub fn chmod(t: &Target, mode: c_uint) -> Result<usize> {
    let path = t.path();
    ops::change(
        ready()?,
        t,
        |map| face::chmod(map, mode),
        || {
            // SAFETY: the path is NUL-terminated.
            unsafe { syscall!(SYS_fchmodat, t.dir.0, path.as_ptr(), mode) }
        },
    )
}

/// lchown(2) of a target.
///
/// # Errors
///
/// As chown(2).
pub fn chown(t: &Target, uid: c_uint, gid: c_uint) -> Result<usize> {
    let path = t.path();
    ops::change(
        ready()?,
        t,
        |map| face::chown(map, uid, gid),
        || {
            // SAFETY: the path is NUL-terminated.
            unsafe { syscall!(SYS_fchownat, t.dir.0, path.as_ptr(), uid, gid, libc::AT_SYMLINK_NOFOLLOW) }
        },
    )
}

/// utimensat(2) of a target.
///
/// # Errors
///
/// As utimensat(2).
pub fn set_times(t: &Target, times: impl FnOnce() -> Result<Times>) -> Result<usize> {
    let tls = ready()?;
    let times = times()?;
    let path = t.path();
    ops::change(
        tls,
        t,
        |map| face::set_times(map, times),
        || {
            let times = times.as_ref().map_or(core::ptr::null(), |times| times.as_ptr());
            // SAFETY: the path is NUL-terminated; null or a local.
            unsafe { syscall!(SYS_utimensat, t.dir.0, path.as_ptr(), times, 0) }
        },
    )
}

/// truncate(2) of a target: by the path no time changes.
///
/// # Errors
///
/// As truncate(2); EFBIG.
pub fn truncate(t: &Target, len: i64) -> Result<usize> {
    const EFBIG: Errno = Errno(libc::EFBIG);
    if len < 0 {
        return Err(Errno::EINVAL);
    }
    // First of all the permission to write, unlike other changes.
    ops::access(t, libc::W_OK, libc::AT_EACCESS)?;
    ops::change(
        ready()?,
        t,
        |map| if len > face::MAX_NON_LFS { Err(EFBIG) } else { face::set_size_only(map, len) },
        || Err(Errno::EACCES),
    )
}

/// A change of the file system's directory itself.
pub enum Change {
    /// chmod(2).
    Mode(c_uint),
    /// chown(2).
    Owner(c_uint, c_uint),
    /// utimensat(2).
    Times(Result<Times>),
    /// truncate(2).
    Size,
}

/// Changes of the directory itself: those of one that is mounted the kernel makes, unless the file system is
/// read-only; nothing: it is to be asked.
///
/// # Safety
///
/// `path` is a user pointer.
pub unsafe fn change_root(at: c_int, path: Path, follow: bool, change: Change) -> Option<Result<usize>> {
    if !vfs::any() {
        return None;
    }
    // SAFETY: only the kernel reads the path.
    let (place, dir, read_only) = unsafe { vfs::any_root_at(at, path, follow) }?;
    if read_only || place.is_read_only() {
        return Some(Err(Errno::EROFS));
    }
    let make = || -> Result<usize> {
        let mut link = crate::sys::path::Path::new(&[b"/proc/thread-self/fd/"])?;
        link.push_decimal(dir.0 as u64)?;
        // SAFETY: a NUL-terminated path; null or a local.
        unsafe {
            match change {
                Change::Mode(mode) => syscall!(SYS_fchmodat, AT, link.as_ptr(), mode),
                Change::Owner(uid, gid) => syscall!(SYS_fchownat, AT, link.as_ptr(), uid, gid, 0),
                Change::Times(times) => {
                    let times = times?;
                    let times = times.as_ref().map_or(core::ptr::null(), |times| times.as_ptr());
                    syscall!(SYS_utimensat, AT, link.as_ptr(), times, 0)
                }
                Change::Size => Err(Errno::EISDIR),
            }
        }
    };
    Some(make())
}

/// access(2) of the directory itself, where the kernel does not see it, or that it is read-only.
///
/// # Safety
///
/// `path` is a user pointer.
pub unsafe fn access_root(at: c_int, path: Path, follow: bool, mode: c_int, flags: c_int) -> Option<Result<usize>> {
    if !vfs::any_known() {
        return None;
    }
    if mode & libc::W_OK != 0
        // SAFETY: only the kernel reads the path.
        && unsafe { vfs::any_root_at(at, path, follow) }.is_some_and(|(place, ..)| place.is_read_only())
    {
        return Some(Err(Errno::EROFS));
    }
    if !vfs::any_virtual() {
        return None;
    }
    // SAFETY: only the kernel reads the path.
    unsafe { vfs::cover_at(at, path, follow)? };
    // SAFETY: as above.
    let (_, dir, read_only) = unsafe { vfs::any_root_at(at, path, follow) }?;
    if read_only && mode & libc::W_OK != 0 {
        return Some(Err(Errno::EROFS));
    }
    let ask = || {
        let mut link = crate::sys::path::Path::new(&[b"/proc/thread-self/fd/"])?;
        link.push_decimal(dir.0 as u64)?;
        // SAFETY: a NUL-terminated path.
        unsafe { syscall!(SYS_faccessat2, AT, link.as_ptr(), mode, flags) }
    };
    Some(ask())
}

/// stat(2) of what the kernel does not see; nothing: it is to be asked.
///
/// # Safety
///
/// User pointers.
pub unsafe fn covered_status(at: c_int, path: Path, follow: bool, to: *mut libc::stat) -> Option<Result<usize>> {
    let st = covered(at, path, follow)?;
    Some(st.and_then(|st| {
        // SAFETY: the caller's contract.
        unsafe { fault::write_user(to, st)? };
        Ok(0)
    }))
}

/// The same for statx(2).
///
/// # Safety
///
/// User pointers.
pub unsafe fn covered_extended(
    at: c_int,
    path: Path,
    flags: c_int,
    mask: c_uint,
    to: *mut libc::statx,
) -> Option<Result<usize>> {
    if !vfs::any_virtual() || flags & libc::AT_EMPTY_PATH != 0 && path.is_null() {
        return None;
    }
    let follow = flags & libc::AT_SYMLINK_NOFOLLOW == 0;
    // SAFETY: only the kernel reads the path.
    let (dir, name) = match target(at, path, follow) {
        Some(t) => {
            let name = t.path();
            (t.dir, name)
        }
        None => {
            // SAFETY: as above.
            unsafe { vfs::cover_at(at, path, follow)? };
            // SAFETY: as above.
            let (_, dir, _) = unsafe { vfs::any_root_at(at, path, follow) }?;
            (dir, crate::sys::path::Path::empty())
        }
    };
    let ask = || -> Result<usize> {
        // SAFETY: plain integers; zero is valid for all of them.
        let mut x: libc::statx = unsafe { core::mem::zeroed() };
        let flags = flags | if name.as_bytes().is_empty() { libc::AT_EMPTY_PATH } else { 0 };
        // SAFETY: a NUL-terminated path, the result goes to a local.
        unsafe { syscall!(SYS_statx, dir.0, name.as_ptr(), flags, mask, &raw mut x)? };
        // SAFETY: a NUL-terminated path.
        unsafe { extended_status(dir.0, name.as_ptr(), follow, &mut x) };
        // SAFETY: the caller's contract.
        unsafe { fault::write_user(to, x)? };
        Ok(0)
    };
    Some(ask())
}

fn covered(at: c_int, path: Path, follow: bool) -> Option<Result<libc::stat>> {
    if !vfs::any_virtual() {
        return None;
    }
    if let Some(t) = target(at, path, follow) {
        return Some(t.stat().and_then(|mut st| {
            if t.slash {
                return Err(Errno::ENOTDIR);
            }
            dress(&t, &mut st);
            Ok(st)
        }));
    }
    // SAFETY: only the kernel reads the path.
    unsafe { vfs::cover_at(at, path, follow)? };
    // SAFETY: as above.
    let (place, dir, _) = unsafe { vfs::any_root_at(at, path, follow) }?;
    Some(dir.stat().map(|mut st| {
        face::dress_directory(&mut st, &place);
        st
    }))
}

/// readlink(2) of a queue's file: it is none.
///
/// # Safety
///
/// `path` is a user pointer.
pub unsafe fn covered_link(at: c_int, path: Path) -> Option<Errno> {
    if !vfs::any_virtual() {
        return None;
    }
    let t = target(at, path, false)?;
    Some(t.stat().map_or_else(|errno| errno, |_| Errno::EINVAL))
}

/// opendir(3): libc opens behind every hook.
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn opendir(path: Path) -> *mut c_void {
    unsafe extern "C" {
        fn fdopendir(fd: c_int) -> *mut c_void;
    }
    if vfs::any_virtual() {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC | libc::O_NONBLOCK;
        // SAFETY: the caller's contract.
        let opened = unsafe { mqns_vfs_open(AT, path, flags, 0) };
        if opened != BYPASS {
            let fd = ret(crate::sys::check(opened)) as c_int;
            // SAFETY: a fresh descriptor.
            return if fd < 0 { core::ptr::null_mut() } else { unsafe { fdopendir(fd) } };
        }
    }
    // SAFETY: the caller's contract.
    unsafe { next!(c"opendir": unsafe extern "C" fn(Path) -> *mut c_void)(path) }
}

/// inotify_add_watch(2).
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn inotify_add_watch(fd: c_int, path: Path, mask: u32) -> c_int {
    let next = next!(c"inotify_add_watch": unsafe extern "C" fn(c_int, Path, u32) -> c_int);
    const IN_DONT_FOLLOW: u32 = 0x0200_0000;
    if vfs::any_virtual() {
        let follow = mask & IN_DONT_FOLLOW == 0;
        let real = match target(AT, path, follow) {
            Some(t) => crate::sys::path::Path::new(&[t.place.dir(), b"/sb/", t.name()]).ok(),
            // SAFETY: only the kernel reads the path.
            None => unsafe { vfs::cover_at(AT, path, follow) }
                .and_then(|cover| crate::sys::path::Path::new(&[cover.place.dir(), b"/sb"]).ok()),
        };
        if let Some(real) = real {
            // SAFETY: a NUL-terminated path.
            return unsafe { next(fd, real.as_ptr(), mask) };
        }
    }
    // SAFETY: the caller's contract.
    unsafe { next(fd, path, mask) }
}

/// realpath(3) of what the kernel does not see: descriptors of queues, and files by virtual mounts. Nothing: it is
/// to be asked.
fn resolve(path: Path) -> Option<Result<crate::sys::path::Path>> {
    // SAFETY: a user pointer, read with faults caught.
    if let Some(fd) = unsafe { face::descriptor_of_path(AT, path) } {
        let mut link = [0u8; 600];
        // SAFETY: the buffer is as long as said.
        let len = face::with_any(fd, |d, _| unsafe { face::readlink(d, link.as_mut_ptr(), link.len()) })?;
        let seen = len.and_then(|len| crate::sys::path::Path::new(&[&link[..len]])).and_then(|path| {
            covered(AT, path.as_ptr(), false).unwrap_or_else(|| path.stat())?;
            Ok(path)
        });
        return Some(seen);
    }
    if !vfs::any_virtual() {
        return None;
    }
    let t = target(AT, path, true).filter(|t| t.cover != 0)?;
    let point = vfs::virtuals::point_of(&t.place, t.cover)?;
    Some(t.stat().and_then(|_| crate::sys::path::Path::new(&[point.as_bytes(), b"/", t.name()])))
}

/// realpath(3).
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn realpath(path: Path, to: *mut c_char) -> *mut c_char {
    if !path.is_null()
        && (crate::desc::any() || vfs::any_virtual())
        && let Some(found) = resolve(path)
    {
        // SAFETY: a buffer of PATH_MAX bytes, by realpath(3).
        return unsafe { hand_over(found, to) };
    }
    // SAFETY: the caller's contract.
    unsafe { next!(c"realpath": unsafe extern "C" fn(Path, *mut c_char) -> *mut c_char)(path, to) }
}

/// realpath(3), fortified.
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn __realpath_chk(path: Path, to: *mut c_char, size: usize) -> *mut c_char {
    if size >= 4096 {
        // SAFETY: the caller's contract.
        return unsafe { realpath(path, to) };
    }
    type Chk = unsafe extern "C" fn(Path, *mut c_char, usize) -> *mut c_char;
    // SAFETY: the caller's contract.
    unsafe { next!(c"__realpath_chk": Chk)(path, to, size) }
}

/// canonicalize_file_name(3).
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn canonicalize_file_name(path: Path) -> *mut c_char {
    // SAFETY: the caller's contract.
    unsafe { realpath(path, core::ptr::null_mut()) }
}

/// # Safety
///
/// `to` is null or has room for any path.
unsafe fn hand_over(found: Result<crate::sys::path::Path>, to: *mut c_char) -> *mut c_char {
    let path = match found {
        Ok(path) => path,
        Err(errno) => {
            ret(Err(errno));
            return core::ptr::null_mut();
        }
    };
    let len = path.as_bytes().len() + 1;
    // SAFETY: malloc(3); the program frees it.
    let to = if to.is_null() { unsafe { libc::malloc(len) }.cast() } else { to };
    if !to.is_null() {
        // SAFETY: so many bytes are there, the NUL included.
        unsafe { core::ptr::copy_nonoverlapping(path.as_ptr(), to, len) };
    }
    to
}

/// unlinkat(2).
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn unlinkat(dir: c_int, path: Path, flags: c_int) -> c_int {
    if let Some(t) = target(dir, path, false) {
        return ret(remove_at(&t, flags)) as c_int;
    }
    // SAFETY: only the kernel reads the path.
    let is_covered = || unsafe { vfs::cover_at(dir, path, false) }.is_some() && !ends_with_dots(path);
    if flags == libc::AT_REMOVEDIR && vfs::any_virtual() && is_covered() {
        return ret(Err(Errno::EBUSY)) as c_int;
    }
    // SAFETY: the caller's contract.
    unsafe { next!(c"unlinkat": unsafe extern "C" fn(c_int, Path, c_int) -> c_int)(dir, path, flags) }
}

/// fchdir(2) to the directory of a superblock, opened by a virtual mount: to that mount.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn fchdir(fd: c_int) -> c_int {
    if vfs::any_virtual()
        && let Some(place) = vfs::mount::is_superblock(fd)
        && let Ok(path) = crate::sys::path::Path::of_descriptor(fd)
        && path.as_bytes().strip_suffix(b"/sb") == Some(place.dir())
        && let Some(point) = vfs::virtuals::point_of(&place, 0)
    {
        // SAFETY: a NUL-terminated path.
        return ret(unsafe { syscall!(SYS_chdir, point.as_ptr()) }) as c_int;
    }
    next!(c"fchdir": extern "C" fn(c_int) -> c_int)(fd)
}

/// Whether a program to be executed is a queue's file, by a virtual mount: EACCES, the file system being noexec.
///
/// # Safety
///
/// `path` is a user pointer.
pub unsafe fn is_covered_program(path: Path) -> bool {
    // SAFETY: a user pointer, which the kernel reads first.
    vfs::any_virtual() && unsafe { vfs::locate(AT, path, true) }.is_some_and(|t| t.cover != 0 && t.stat().is_ok())
}

/// rmdir(2): of what the kernel does not see.
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn rmdir(path: Path) -> c_int {
    if vfs::any_virtual() {
        if let Some(t) = target(AT, path, false) {
            return ret(remove_at(&t, libc::AT_REMOVEDIR)) as c_int;
        }
        // SAFETY: only the kernel reads the path.
        if unsafe { vfs::cover_at(AT, path, false) }.is_some() && !ends_with_dots(path) {
            return ret(Err(Errno::EBUSY)) as c_int;
        }
    }
    // SAFETY: the caller's contract.
    unsafe { next!(c"rmdir": unsafe extern "C" fn(Path) -> c_int)(path) }
}

// ---- link, rename -------------------------------------------------------------------------------

/// What of a call with two paths is ours: both in one mount. Between mounts the kernel says EXDEV.
fn pair(from: (c_int, Path, bool), to: (c_int, Path)) -> Option<(Target, Target)> {
    let from = target(from.0, from.1, from.2)?;
    let to = target(to.0, to.1, false)?;
    same_mount(&from, &to).then_some((from, to))
}

/// What rename(2) and link(2) across virtual mounts say: EBUSY of the mount point, EXDEV.
fn refused_across(from: (c_int, Path), to: (c_int, Path), renaming: bool) -> Option<Errno> {
    if !vfs::any_virtual() {
        return None;
    }
    // SAFETY: only the kernel reads the paths.
    let is_covered = |(at, path): (c_int, Path)| unsafe { vfs::cover_at(at, path, false) }.is_some();
    if renaming && (is_covered(from) || is_covered(to)) {
        return Some(Errno::EBUSY);
    }
    let (source, over) = (target(from.0, from.1, false), target(to.0, to.1, false));
    if source.is_none() && over.is_none() {
        return None;
    }
    if renaming && source.is_none() && stat_path(from.0, from.1, 0).is_ok() && ends_with_dots(from.1) {
        return Some(Errno::EBUSY);
    }
    if !renaming {
        // What is linked is looked up first, then where to.
        let missing = match &source {
            Some(source) => source.stat().err(),
            None => stat_path(from.0, from.1, libc::AT_SYMLINK_NOFOLLOW).err(),
        };
        let taken = match &over {
            Some(over) => over.stat(),
            None => stat_path(to.0, to.1, libc::AT_SYMLINK_NOFOLLOW),
        };
        match (missing, taken) {
            (Some(errno), _) => return Some(errno),
            (None, Ok(_)) => return Some(Errno::EEXIST),
            // SAFETY: the kernel has read it.
            (None, Err(Errno::ENOENT)) if over.is_some() || unsafe { vfs::has_parent(to.0, to.1) } => {}
            (None, Err(errno)) => return Some(errno),
        }
    }
    Some(Errno(libc::EXDEV))
}

/// Whether the last component of a path, which the kernel has read, is `.` or `..`.
fn ends_with_dots(path: Path) -> bool {
    // SAFETY: the caller's word.
    let text = unsafe { core::ffi::CStr::from_ptr(path) }.to_bytes();
    let end = text.iter().rposition(|&b| b != b'/').map_or(0, |at| at + 1);
    matches!(text[..end].rsplit(|&b| b == b'/').next(), Some(b"." | b".."))
}

fn same_mount(a: &Target, b: &Target) -> bool {
    let mount = |t: &Target| -> Option<u64> {
        const STATX_MNT_ID: u32 = 0x1000;
        // SAFETY: plain integers; zero is valid for all of them.
        let mut x: libc::statx = unsafe { core::mem::zeroed() };
        // SAFETY: a NUL-terminated path, the result goes to a local.
        unsafe { syscall!(SYS_statx, t.dir.0, c"".as_ptr(), libc::AT_EMPTY_PATH, STATX_MNT_ID, &raw mut x).ok()? };
        Some(x.stx_mnt_id)
    };
    core::ptr::eq(a.place.place(), b.place.place()) && a.cover == b.cover && mount(a) == mount(b)
}

/// link(2) where either path is a mount's: what it says, or nothing if it is the kernel's business.
fn link_at(from_dir: c_int, from: Path, to_dir: c_int, to: Path, flags: c_int) -> Option<c_int> {
    if vfs::any() {
        let follow = flags & libc::AT_SYMLINK_FOLLOW != 0;
        if let Some((from, to)) = pair((from_dir, from, follow), (to_dir, to)) {
            return Some(ret(ops::link(&from, &to)) as c_int);
        }
        // SAFETY: a user pointer, read with faults caught.
        let is_descriptor = || unsafe { face::descriptor_of_path(from_dir, from) }.is_some();
        // A descriptor's file, which lies in another directory.
        if let Some(to) = target(to_dir, to, false)
            && follow
            && is_descriptor()
        {
            return Some(ret(ops::refuse(&to)) as c_int);
        }
    }
    refused_across((from_dir, from), (to_dir, to), false).map(|errno| ret(Err(errno)) as c_int)
}

/// The same of rename(2).
fn rename_at(from_dir: c_int, from: Path, to_dir: c_int, to: Path, flags: c_uint) -> Option<c_int> {
    if vfs::any()
        && let Some((from, to)) = pair((from_dir, from, false), (to_dir, to))
    {
        return Some(ret(ops::rename(&from, &to, flags)) as c_int);
    }
    refused_across((from_dir, from), (to_dir, to), true).map(|errno| ret(Err(errno)) as c_int)
}

/// linkat(2).
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn linkat(from_dir: c_int, from: Path, to_dir: c_int, to: Path, flags: c_int) -> c_int {
    if let Some(result) = link_at(from_dir, from, to_dir, to, flags) {
        return result;
    }
    // SAFETY: the caller's contract.
    unsafe {
        next!(c"linkat": unsafe extern "C" fn(c_int, Path, c_int, Path, c_int) -> c_int)(
            from_dir, from, to_dir, to, flags,
        )
    }
}

/// link(2).
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn link(from: Path, to: Path) -> c_int {
    if let Some(result) = link_at(AT, from, AT, to, 0) {
        return result;
    }
    // SAFETY: the caller's contract.
    unsafe { next!(c"link": unsafe extern "C" fn(Path, Path) -> c_int)(from, to) }
}

/// renameat2(2).
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn renameat2(from_dir: c_int, from: Path, to_dir: c_int, to: Path, flags: c_uint) -> c_int {
    if let Some(result) = rename_at(from_dir, from, to_dir, to, flags) {
        return result;
    }
    // SAFETY: the caller's contract.
    unsafe {
        next!(c"renameat2": unsafe extern "C" fn(c_int, Path, c_int, Path, c_uint) -> c_int)(
            from_dir, from, to_dir, to, flags,
        )
    }
}

/// renameat(2).
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn renameat(from_dir: c_int, from: Path, to_dir: c_int, to: Path) -> c_int {
    if let Some(result) = rename_at(from_dir, from, to_dir, to, 0) {
        return result;
    }
    // SAFETY: the caller's contract.
    unsafe { next!(c"renameat": unsafe extern "C" fn(c_int, Path, c_int, Path) -> c_int)(from_dir, from, to_dir, to) }
}

/// rename(2).
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn rename(from: Path, to: Path) -> c_int {
    if let Some(result) = rename_at(AT, from, AT, to, 0) {
        return result;
    }
    // SAFETY: the caller's contract.
    unsafe { next!(c"rename": unsafe extern "C" fn(Path, Path) -> c_int)(from, to) }
}

// ---- sockets, extended attributes ---------------------------------------------------------------

/// What the path of a UNIX socket's address leads to in a superblock.
///
/// # Safety
///
/// `address` is a user pointer.
unsafe fn target_of_address(address: *const libc::sockaddr, len: libc::socklen_t) -> Option<Target> {
    let path_at = core::mem::offset_of!(libc::sockaddr_un, sun_path);
    let len = len as usize;
    if len <= path_at || len > size_of::<libc::sockaddr_un>() {
        return None;
    }
    ready().ok()?;
    // SAFETY: plain bytes; zero is valid for all of them.
    let mut copy: libc::sockaddr_un = unsafe { core::mem::zeroed() };
    // SAFETY: a user pointer, read with faults caught, to a local that is long enough.
    unsafe { fault::copy((&raw mut copy).cast(), address.cast(), len).ok()? };
    if copy.sun_family != libc::AF_UNIX as u16 || copy.sun_path[0] == 0 {
        return None;
    }
    let mut path = [0u8; size_of::<libc::sockaddr_un>() + 1];
    for (to, from) in path.iter_mut().zip(&copy.sun_path[..len - path_at]) {
        *to = *from as u8;
    }
    target(AT, path.as_ptr().cast(), true)
}

/// bind(2) of a UNIX socket to a path.
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn bind(fd: c_int, address: *const libc::sockaddr, len: libc::socklen_t) -> c_int {
    if vfs::any()
        // SAFETY: the caller's contract.
        && let Some(t) = unsafe { target_of_address(address, len) }
    {
        return ret(match ops::refuse(&t) {
            Err(Errno::EEXIST) => Err(Errno(libc::EADDRINUSE)),
            other => other,
        }) as c_int;
    }
    // SAFETY: the caller's contract.
    unsafe {
        next!(c"bind": unsafe extern "C" fn(c_int, *const libc::sockaddr, libc::socklen_t) -> c_int)(fd, address, len)
    }
}

/// connect(2) of a UNIX socket to a path: a queue is none.
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C-unwind" fn connect(fd: c_int, address: *const libc::sockaddr, len: libc::socklen_t) -> c_int {
    if vfs::any_virtual()
        // SAFETY: the caller's contract.
        && let Some(t) = unsafe { target_of_address(address, len) }
    {
        return ret(t.stat().and(Err(Errno(libc::ECONNREFUSED)))) as c_int;
    }
    type Connect = unsafe extern "C-unwind" fn(c_int, *const libc::sockaddr, libc::socklen_t) -> c_int;
    // SAFETY: the caller's contract.
    unsafe { next!(c"connect": Connect)(fd, address, len) }
}

/// chdir(2): to a queue's file that the kernel does not see.
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn chdir(path: Path) -> c_int {
    if vfs::any_virtual()
        && let Some(t) = target(AT, path, true)
    {
        return ret(t.stat().and(Err(Errno::ENOTDIR))) as c_int;
    }
    // SAFETY: the caller's contract.
    unsafe { next!(c"chdir": unsafe extern "C" fn(Path) -> c_int)(path) }
}

/// Whether a path is that of a queue's file, or of the directory; an error if it leads nowhere.
#[inline(always)]
fn is_of_file_system(path: Path, follow: bool) -> bool {
    vfs::any() && leads_to_file_system(path, follow)
}

#[cold]
#[inline(never)]
fn leads_to_file_system(path: Path, follow: bool) -> bool {
    match target(AT, path, follow) {
        Some(t) => t.stat().is_ok(),
        // SAFETY: only the kernel reads the path.
        None => unsafe { vfs::any_root_at(AT, path, follow) }.is_some(),
    }
}

fn is_of_file_system_fd(fd: c_int) -> bool {
    crate::desc::is_known(fd) || vfs::any() && vfs::mount::is_superblock(fd).is_some()
}

/// The calls of xattr(7): the file system has none.
macro_rules! attributes {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),*) -> $ret:ty { $is_ours:expr => $answer:expr })*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        ///
        /// The C prototype's.
        #[cfg_attr(not(test), unsafe(no_mangle))]
        pub unsafe extern "C" fn $name($($arg: $type),*) -> $ret {
            if $is_ours {
                let answer: Result<usize> = $answer;
                return ret(answer) as $ret;
            }
            let next = next!($name: unsafe extern "C" fn($($type),*) -> $ret);
            // SAFETY: the caller's contract is its.
            unsafe { next($($arg),*) }
        }
    )*};
}

const NONE: Result<usize> = Err(Errno::EOPNOTSUPP);

attributes! {
    /// setxattr(2).
    fn setxattr(path: Path, name: Path, value: *const c_void, len: usize, flags: c_int) -> c_int { is_of_file_system(path, true) => NONE }
    /// lsetxattr(2).
    fn lsetxattr(path: Path, name: Path, value: *const c_void, len: usize, flags: c_int) -> c_int { is_of_file_system(path, false) => NONE }
    /// fsetxattr(2).
    fn fsetxattr(fd: c_int, name: Path, value: *const c_void, len: usize, flags: c_int) -> c_int { is_of_file_system_fd(fd) => NONE }
    /// getxattr(2).
    fn getxattr(path: Path, name: Path, value: *mut c_void, len: usize) -> isize { is_of_file_system(path, true) => NONE }
    /// lgetxattr(2).
    fn lgetxattr(path: Path, name: Path, value: *mut c_void, len: usize) -> isize { is_of_file_system(path, false) => NONE }
    /// fgetxattr(2).
    fn fgetxattr(fd: c_int, name: Path, value: *mut c_void, len: usize) -> isize { is_of_file_system_fd(fd) => NONE }
    /// listxattr(2).
    fn listxattr(path: Path, names: *mut c_char, len: usize) -> isize { is_of_file_system(path, true) => Ok(0) }
    /// llistxattr(2).
    fn llistxattr(path: Path, names: *mut c_char, len: usize) -> isize { is_of_file_system(path, false) => Ok(0) }
    /// flistxattr(2).
    fn flistxattr(fd: c_int, names: *mut c_char, len: usize) -> isize { is_of_file_system_fd(fd) => Ok(0) }
    /// removexattr(2).
    fn removexattr(path: Path, name: Path) -> c_int { is_of_file_system(path, true) => NONE }
    /// lremovexattr(2).
    fn lremovexattr(path: Path, name: Path) -> c_int { is_of_file_system(path, false) => NONE }
    /// fremovexattr(2).
    fn fremovexattr(fd: c_int, name: Path) -> c_int { is_of_file_system_fd(fd) => NONE }
}

// ---- what the calls of `file` do here -----------------------------------------------------------

/// open(2) of a path; BYPASS: it leads elsewhere.
///
/// # Safety
///
/// `path` is a user pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mqns_vfs_open(at: c_int, path: Path, flags: c_int, mode: c_uint) -> isize {
    if !vfs::any() {
        return BYPASS;
    }
    // SAFETY: the caller's contract.
    unsafe { open(at, path, flags, mode) }
}

#[cold]
#[inline(never)]
unsafe fn open(at: c_int, path: Path, flags: c_int, mode: c_uint) -> isize {
    if flags & libc::O_TMPFILE == libc::O_TMPFILE {
        // SAFETY: only the kernel reads the path.
        let there = unsafe { vfs::any_root_at(at, path, true) };
        return match there {
            Some((place, _, read_only)) if read_only || place.is_read_only() => raw_result(Err(Errno::EROFS)),
            Some(_) => raw_result(NONE),
            None => BYPASS,
        };
    }
    if vfs::any_virtual()
        // SAFETY: only the kernel reads the path.
        && let Some(cover) = unsafe { vfs::cover_at(at, path, flags & libc::O_NOFOLLOW == 0) }
    {
        let open = || {
            let held = vfs::open_superblock(&cover.place)?;
            // SAFETY: a NUL-terminated path.
            unsafe { syscall!(SYS_openat, held.0, c".".as_ptr(), flags, mode) }
        };
        return raw_result(open());
    }
    // O_EXCL with O_CREAT does not follow links.
    let exclusive = libc::O_CREAT | libc::O_EXCL;
    let follow = flags & libc::O_NOFOLLOW == 0 && flags & exclusive != exclusive;
    let Some(t) = target(at, path, follow) else { return BYPASS };
    raw_result(ready().and_then(|tls| ops::open(tls, &t, flags, mode)))
}

/// Puts right what stat(2) has said of a file.
///
/// # Safety
///
/// `path` is NUL-terminated, as the kernel has found.
pub unsafe fn status(at: c_int, path: Path, follow: bool, st: &mut libc::stat) {
    if !vfs::any_known() || !vfs::is_device(st.st_dev) {
        return;
    }
    match st.st_mode & libc::S_IFMT {
        libc::S_IFREG => {
            // SAFETY: the caller's contract.
            let empty = unsafe { path.read() } == 0;
            let t = if empty { vfs::target_of_descriptor(at) } else { target(at, path, follow) };
            if let Some(t) = t {
                if empty && t.stat().is_ok_and(|now| now.st_ino != st.st_ino) || t.stat().is_err() {
                    // The name is gone, or another's.
                    st.st_nlink = 0;
                }
                dress(&t, st);
            }
        }
        libc::S_IFDIR => {
            if let Some(place) = vfs::superblock(st.st_dev, st.st_ino) {
                face::dress_directory(st, &place);
            }
        }
        _ => {}
    }
}

/// The same after fstat(2).
pub fn status_of_descriptor(fd: c_int, st: &mut libc::stat) {
    // SAFETY: NUL-terminated.
    unsafe { status(fd, c"".as_ptr(), true, st) }
}

fn dress(t: &Target, st: &mut libc::stat) {
    let tls = ready().unwrap_or(vfs::tls());
    let named = st.st_nlink != 0;
    match crate::ns::queues::map_queue(tls, t.place.place(), st.st_ino, Some(st.st_dev)) {
        Ok(map) => {
            face::dress(st, Some(&map), named);
            maps::tidy(tls, map);
        }
        Err(_) => face::dress(st, None, named),
    }
    st.st_dev = face::device(&t.place);
}

/// The same after statx(2).
///
/// # Safety
///
/// `path` is NUL-terminated or, with AT_EMPTY_PATH, null.
pub unsafe fn extended_status(at: c_int, path: Path, follow: bool, x: &mut libc::statx) {
    let dev = libc::makedev(x.stx_dev_major, x.stx_dev_minor);
    if !vfs::any_known() || !vfs::is_device(dev) {
        return;
    }
    // SAFETY: plain integers; zero is valid for all of them.
    let mut st: libc::stat = unsafe { core::mem::zeroed() };
    st.st_dev = dev;
    st.st_ino = x.stx_ino;
    st.st_mode = x.stx_mode as u32;
    st.st_size = x.stx_size as i64;
    st.st_nlink = x.stx_nlink as u64;
    (st.st_atime, st.st_atime_nsec) = (x.stx_atime.tv_sec, x.stx_atime.tv_nsec as i64);
    (st.st_mtime, st.st_mtime_nsec) = (x.stx_mtime.tv_sec, x.stx_mtime.tv_nsec as i64);
    (st.st_ctime, st.st_ctime_nsec) = (x.stx_ctime.tv_sec, x.stx_ctime.tv_nsec as i64);
    let before = st;
    // SAFETY: the caller's contract.
    unsafe { status(at, path, follow, &mut st) };
    if st.st_dev != before.st_dev {
        face::extend(x, &st);
    }
}

/// After statfs(2): the namespace whose file system a descriptor lies in.
fn place_of(fd: c_int) -> Option<Referred> {
    if !vfs::any() {
        return None;
    }
    let st = stat_fd(fd).ok().filter(|st| vfs::is_device(st.st_dev))?;
    match st.st_mode & libc::S_IFMT {
        libc::S_IFDIR => vfs::superblock(st.st_dev, st.st_ino),
        libc::S_IFREG => vfs::target_of_descriptor(fd).map(|t| t.place),
        _ => None,
    }
}

/// After statfs(2): whether it is of the mqueue file system.
pub fn is_mqueue(fd: c_int) -> bool {
    place_of(fd).is_some()
}

/// A descriptor that stands for a path, if that is of the mqueue file system.
///
/// # Safety
///
/// `path` is a user pointer.
pub unsafe fn open_of(path: Path) -> Option<Fd> {
    if !vfs::any() {
        return None;
    }
    if vfs::any_virtual() {
        // SAFETY: only the kernel reads the path.
        match target(AT, path, true) {
            Some(t) => return t.stat().is_ok().then_some(t.dir),
            None => {
                // SAFETY: as above.
                if unsafe { vfs::cover_at(AT, path, true) }.is_some() {
                    // SAFETY: as above.
                    return unsafe { vfs::any_root_at(AT, path, true) }.map(|(_, dir, _)| dir);
                }
            }
        }
    }
    Fd::open_at(AT, path, libc::O_PATH).ok().filter(|fd| is_mqueue(fd.0))
}

/// Makes statfs(2)'s answer for a file of the mqueue file system of the one for the directory beneath.
///
/// # Errors
///
/// EFAULT.
///
/// # Safety
///
/// `to` has been filled in by the kernel.
pub unsafe fn file_system(fd: c_int, to: *mut libc::statfs) -> Result<usize> {
    if let Some(place) = place_of(fd) {
        // SAFETY: the caller's contract.
        unsafe {
            let flags = vfs::mount::visible_flags(&place, fd, vfs::flags_of(&*to));
            (*to) = face::file_system(face::device(&place), flags);
        }
    }
    Ok(0)
}

/// The same for statvfs(3).
pub fn file_system_5(fd: c_int, to: &mut libc::statvfs) {
    let Some(place) = place_of(fd) else { return };
    let flags = vfs::mount::visible_flags(&place, fd, to.f_flag as i64) as u64;
    // SAFETY: plain integers; zero is valid for all of them.
    let mut fs: libc::statvfs = unsafe { core::mem::zeroed() };
    (fs.f_bsize, fs.f_frsize, fs.f_namemax) = (4096, 4096, 255);
    (fs.f_fsid, fs.f_flag) = (face::device(&place), flags);
    *to = fs;
}

/// `f_flag` of statvfs(3) for the virtual mount that a path leads into.
///
/// # Safety
///
/// `path` is a user pointer.
pub unsafe fn covered_flags(path: Path) -> Option<u64> {
    // SAFETY: only the kernel reads the path.
    let cover = unsafe { vfs::cover_at(AT, path, true) };
    let flags = match cover {
        Some(cover) => cover.flags,
        None => target(AT, path, true).filter(|t| t.cover != 0)?.covered_read_only.into(),
    };
    const ST_RELATIME: u64 = 4096;
    let kept =
        libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC | libc::MS_NOATIME | libc::MS_NODIRATIME;
    let relative = flags & (libc::MS_NOATIME | libc::MS_STRICTATIME) == 0;
    // Of the same values, but for how times are kept.
    Some(flags & kept | if relative { ST_RELATIME } else { 0 })
}

/// `struct statfs` and `struct statvfs`.
pub trait FileSystem: Copy {
    /// Sets the flags of the mount.
    fn set_flags(&mut self, flags: u64);

    /// The libc function for a descriptor, through our hook.
    ///
    /// # Safety
    ///
    /// `to` is a user pointer.
    unsafe fn of_descriptor(fd: c_int, to: *mut Self) -> c_int;
}

impl FileSystem for libc::statfs {
    fn set_flags(&mut self, flags: u64) {
        const ST_VALID: u64 = 0x20;
        vfs::set_flags(self, (flags | ST_VALID) as i64);
    }

    unsafe fn of_descriptor(fd: c_int, to: *mut Self) -> c_int {
        // SAFETY: the caller's contract.
        unsafe { super::file::fstatfs(fd, to) }
    }
}

impl FileSystem for libc::statvfs {
    fn set_flags(&mut self, flags: u64) {
        self.f_flag = flags;
    }

    unsafe fn of_descriptor(fd: c_int, to: *mut Self) -> c_int {
        // SAFETY: the caller's contract.
        unsafe { super::file::fstatvfs(fd, to) }
    }
}
