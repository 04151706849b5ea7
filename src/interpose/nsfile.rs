//! `/proc/PID/ns/ipc` of tasks in virtual namespaces, and descriptors of it: open, readlink, stat,
//! ioctl, mount --bind.
//!
//! The kernel is asked first: it checks the path and the right to see the task, and answers for tasks
//! that have never left their first namespace. What it says is put right afterwards.
//!
//! The descriptor is one of the namespace's file `control`, with a shared flock, which keeps the
//! namespace alive wherever the descriptor goes.

use core::ffi::{CStr, c_char, c_int, c_ulong};
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use super::{BYPASS, raw_result};
use crate::abi::{Errno, Result};
use crate::ns::control::CONTROL_SIZE;
use crate::ns::of_task::{self, Task};
use crate::ns::{self, Place, enter, life, member, named};
use crate::sys::path::{Fd, Path, stat_fd};
use crate::syscall;

/// `NSFS_MAGIC` (linux/magic.h).
const NSFS_MAGIC: i64 = 0x6e73_6673;

/// Descriptors of namespaces that this process has opened, as far as their numbers fit: 1 + number of
/// the place. When the last is closed the namespace may end.
static OPEN: [AtomicU32; 4096] = [const { AtomicU32::new(0) }; 4096];
static COUNT: AtomicUsize = AtomicUsize::new(0);

fn remember(fd: i32, place: &'static Place) {
    if let Some(slot) = OPEN.get(fd as usize)
        && slot.compare_exchange(0, 1 + place.index() as u32, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    {
        COUNT.fetch_add(1, Ordering::Relaxed);
        let _ = place.refer().keep();
    }
}

/// Whether there are any.
#[inline(always)]
pub fn any() -> bool {
    COUNT.load(Ordering::Relaxed) != 0
}

/// Whether a descriptor is one of these.
#[inline(always)]
pub fn is_known(fd: i32) -> bool {
    COUNT.load(Ordering::Relaxed) != 0 && OPEN.get(fd as usize).is_some_and(|slot| slot.load(Ordering::Acquire) != 0)
}

/// Whether one of them has a number above 63.
pub fn has_high_numbers() -> bool {
    COUNT.load(Ordering::Relaxed) != 0 && OPEN[64..].iter().any(|slot| slot.load(Ordering::Acquire) != 0)
}

/// `fd` has been closed: its namespace goes if that was all that kept it.
#[cold]
pub fn closed(fd: i32) {
    let known = OPEN.get(fd as usize).map_or(0, |slot| slot.swap(0, Ordering::AcqRel));
    if known == 0 {
        return;
    }
    COUNT.fetch_sub(1, Ordering::Relaxed);
    if let Ok(place) = Place::of(known as usize - 1) {
        if place.is_virtual() {
            life::teardown(place.dir());
        }
        place.release();
    }
}

/// The process ends: what it has open keeps nothing alive any more.
pub fn close_all() {
    if COUNT.load(Ordering::Relaxed) == 0 {
        return;
    }
    for (fd, slot) in OPEN.iter().enumerate() {
        if slot.load(Ordering::Acquire) != 0 {
            // SAFETY: no pointers; nobody will use the descriptor any more.
            let _ = unsafe { syscall!(SYS_close, fd) };
            closed(fd as i32);
        }
    }
}

/// `to` is a duplicate of `from`.
pub fn duplicated(from: i32, to: i32) {
    if COUNT.load(Ordering::Relaxed) == 0 {
        return;
    }
    if is_known(to) {
        closed(to);
    }
    if let Some(known @ 1..) = OPEN.get(from as usize).map(|slot| slot.load(Ordering::Acquire))
        && let Ok(place) = Place::of(known as usize - 1)
    {
        remember(to, place);
    }
}

/// The path's bytes, if it may name an ipc namespace.
///
/// # Safety
///
/// `path` is NUL-terminated, as the kernel has found.
unsafe fn candidate<'a>(path: *const c_char) -> Option<&'a [u8]> {
    // SAFETY: the caller's contract.
    unsafe { of_task::is_candidate(path).then(|| CStr::from_ptr(path).to_bytes()) }
}

/// Whether this process, or the one it came from by fork, has bind mounted a namespace: then a file is
/// looked at as it is opened, and replaced by one that keeps the namespace alive beyond umount(2).
static MOUNTED: AtomicUsize = AtomicUsize::new(0);

/// A descriptor has come over a socket or exec.
pub fn arrived(fd: i32, flags: i32) {
    let telling = libc::O_ACCMODE | libc::O_NOFOLLOW | libc::O_DSYNC | libc::O_DIRECT | libc::O_PATH;
    if flags & telling == libc::O_NOFOLLOW
        && !is_known(fd)
        && let Some((dir, _)) = enter::directory_of_descriptor(fd)
        && let Ok(place) = ns::place(member::tls(), dir.as_bytes())
    {
        remember(fd, place.place());
    }
}

/// F_GETFL of a namespace descriptor.
pub fn visible_flags(flags: i32) -> i32 {
    let flags = flags & !libc::O_NOFOLLOW;
    if flags & enter::LOOKS_LIKE_PATH != 0 { libc::O_PATH } else { flags }
}

/// What the kernel has left to us: the directory of the task's virtual namespace. Where the kernel
/// has no ipc namespaces at all, that of the initial one.
fn directory_of(dir: c_int, path: &[u8], kernel_has_it: bool) -> Result<Option<Path>> {
    let Some(task) = Task::of_path(dir, path) else { return Ok(None) };
    if kernel_has_it {
        // Any file may be called ns/ipc.
        if Path::new(&[path])?.stat_at(dir)?.st_dev != kernel_file()?.st_dev {
            return Ok(None);
        }
    } else if ns::real_at_start() != 0 || !task.exists() {
        return Ok(None);
    }
    match task.namespace()? {
        None if !kernel_has_it && ns::real_at_start() == 0 => {
            Ok(Some(Path::new(&[ns::initial_of(member::tls(), 0)?.dir()])?))
        }
        found => Ok(found),
    }
}

/// The number to show for a namespace directory.
fn id_of(dir: &Path) -> u64 {
    /// The kernel's own, of its first (`PROC_IPC_INIT_INO`).
    const FIRST: u64 = 0xefff_ffff;
    of_task::id_of(dir.as_bytes()).unwrap_or(FIRST)
}

/// After open(2) of a path: `result` is the kernel's, a descriptor or -ENOENT. BYPASS: it stands.
///
/// # Safety
///
/// `path` is NUL-terminated, as the kernel has found.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mqns_ns_opened(dir: c_int, path: *const c_char, flags: c_int, result: c_int) -> isize {
    // SAFETY: the caller's contract.
    let name = unsafe { CStr::from_ptr(path) }.to_bytes();
    if !is_telling(name) && MOUNTED.load(Ordering::Relaxed) == 0 {
        return BYPASS;
    }
    // SAFETY: the caller's contract.
    super::aside(move || unsafe { put_right(dir, path, flags, result) })
}

/// Whether the end of a path is that of one of the files that are looked at after they have been opened.
#[inline(always)]
fn is_telling(name: &[u8]) -> bool {
    // ipc; msg_max and the like, msg_default; mounts, mountstats, mountinfo, mtab.
    const ENDS: [&[u8; 2]; 6] = [b"pc", b"ax", b"lt", b"ts", b"fo", b"ab"];
    let [.., a, b] = *name else { return false };
    ENDS.iter().fold(false, |found, &end| found | (u16::from_le_bytes([a, b]) == u16::from_le_bytes(*end)))
}

/// # Safety
///
/// As [`mqns_ns_opened`].
unsafe fn put_right(dir: c_int, path: *const c_char, flags: c_int, result: c_int) -> isize {
    if result >= 0 && crate::vfs::any_known() {
        // SAFETY: the caller's contract.
        let name = unsafe { CStr::from_ptr(path) }.to_bytes();
        if crate::vfs::table::is_candidate(name) {
            let _ = crate::vfs::table::opened(result);
            return BYPASS;
        }
    }
    // SAFETY: the caller's contract.
    let limit = unsafe { super::sysctl::opened(path, flags, result) };
    if let Some(opened) = limit {
        return raw_result(opened.map(|fd| fd as usize));
    }
    // O_NOFOLLOW: the link itself.
    if result == -libc::EACCES || flags & libc::O_NOFOLLOW != 0 {
        return BYPASS;
    }
    if result >= 0
        && MOUNTED.load(Ordering::Relaxed) != 0
        && let Some((dir, _)) = enter::directory_of_descriptor(result)
    {
        // SAFETY: the kernel has just given it to us.
        let _ = unsafe { syscall!(SYS_close, result) };
        return raw_result(open(&dir, flags).map(|fd| fd as usize));
    }
    // SAFETY: the caller's contract.
    let Some(path) = (unsafe { candidate(path) }) else { return BYPASS };
    let found = directory_of(dir, path, result >= 0);
    if let Ok(None) = found {
        return BYPASS;
    }
    if result >= 0 {
        // First, so that ours gets its number.
        // SAFETY: the kernel has just given it to us.
        let _ = unsafe { syscall!(SYS_close, result) };
    }
    raw_result(found.and_then(|dir| open(&dir.ok_or(Errno::ENOENT)?, flags)).map(|fd| fd as usize))
}

fn open(dir: &Path, flags: c_int) -> Result<i32> {
    open_place(ns::place(member::tls(), dir.as_bytes())?.place(), flags)
}

/// A descriptor that keeps a namespace alive.
///
/// # Errors
///
/// ENOENT: it has ended. EMFILE.
pub fn open_place(place: &'static Place, flags: c_int) -> Result<i32> {
    let file = member::hold(place, if flags & libc::O_PATH != 0 { enter::LOOKS_LIKE_PATH } else { 0 })?;
    // Nothing to be read by those who read behind our hooks.
    // SAFETY: no pointers.
    unsafe { syscall!(SYS_lseek, file.0, 0, libc::SEEK_END)? };
    if flags & libc::O_CLOEXEC == 0 {
        // SAFETY: no pointers.
        unsafe { syscall!(SYS_fcntl, file.0, libc::F_SETFD, 0)? };
    }
    let fd = file.release();
    remember(fd, place);
    Ok(fd)
}

/// After readlink(2): `got` bytes have been stored. Returns how many there are now.
///
/// # Safety
///
/// `path` is NUL-terminated, `to` has `len` bytes, as the kernel has found.
pub unsafe fn linked(dir: c_int, path: *const c_char, to: *mut u8, len: usize, got: isize) -> isize {
    if got < 0 && got != -(libc::ENOENT as isize) {
        return got;
    }
    let answer = || -> Result<Option<u64>> {
        // SAFETY: the kernel has stored so many bytes; the path is NUL-terminated.
        let (text, name) = unsafe { (core::slice::from_raw_parts(to, got.max(0) as usize), CStr::from_ptr(path)) };
        if name.is_empty() && text.starts_with(b"ipc") {
            // Of a descriptor of the link.
            return Ok(directory_of(libc::AT_FDCWD, Path::of_descriptor(dir)?.as_bytes(), true)?.map(|dir| id_of(&dir)));
        }
        // SAFETY: the caller's contract.
        if let Some(path) = unsafe { candidate(path) } {
            return Ok(directory_of(dir, path, got >= 0)?.map(|dir| id_of(&dir)));
        }
        // A descriptor of one, in /proc/PID/fd. What is seen may be cut off.
        let whole;
        let text = if text.len() == len && text.contains(&b'/') {
            whole = Path::new(&[name.to_bytes()])?.read_link_at(dir)?;
            whole.as_bytes()
        } else {
            text
        };
        let text = text.strip_suffix(b" (deleted)").unwrap_or(text);
        Ok(text.strip_suffix(b"/control").and_then(of_task::id_of))
    };
    match answer().and_then(|id| id.map(of_task::link_text).transpose()) {
        Ok(None) => got,
        Ok(Some(text)) => {
            let n = text.as_bytes().len().min(len);
            // SAFETY: `to` has `len` bytes.
            unsafe { core::ptr::copy_nonoverlapping(text.as_bytes().as_ptr(), to, n) };
            n as isize
        }
        Err(_) if got < 0 => got,
        Err(errno) => raw_result(Err(errno)),
    }
}

/// Whether [`linked`] may say otherwise than the kernel, which has returned `got`, or -1.
///
/// # Safety
///
/// As [`linked`].
#[inline(always)]
pub unsafe fn may_be_link(path: *const c_char, to: *const u8, len: usize, got: isize) -> bool {
    // SAFETY: the kernel has stored so many bytes; the path is NUL-terminated.
    unsafe {
        // A part of it; `/control`, `(deleted)`; `ipc:[...]`.
        got > 0 && (got as usize == len || matches!(*to.add(got as usize - 1), b'l' | b')' | b']'))
            || of_task::is_candidate(path)
    }
}

/// The number to show for what stat(2) has been asked about, if it is a virtual namespace.
///
/// # Safety
///
/// `path` is NUL-terminated, as the kernel has found.
unsafe fn id_of_path(dir: c_int, path: *const c_char, follow: bool, size: i64) -> Result<Option<u64>> {
    // SAFETY: the caller's contract.
    unsafe {
        if let Some(path) = candidate(path).filter(|_| follow) {
            return Ok(directory_of(dir, path, true)?.map(|dir| id_of(&dir)));
        }
        if size as u64 != CONTROL_SIZE {
            return Ok(None);
        }
        let path = CStr::from_ptr(path).to_bytes();
        if path.is_empty() {
            return Ok(enter::directory_of_descriptor(dir).map(|(dir, _)| id_of(&dir)));
        }
        let file = Path::new(&[path])?.open_at(dir, libc::O_PATH)?;
        Ok(enter::directory_of_descriptor(file.0).map(|(dir, _)| id_of(&dir)))
    }
}

/// What the files of the kernel's namespaces have in common.
fn kernel_file() -> Result<libc::stat> {
    Path::new(&[b"/proc/thread-self/ns/mnt"])?.open(libc::O_RDONLY, 0)?.stat()
}

/// Whether a file may be a namespace, the kernel's or one of ours, by its mode and size.
#[inline(always)]
pub fn may_be_namespace(mode: u32, size: u64) -> bool {
    size == CONTROL_SIZE || size == 0 && mode == libc::S_IFREG | 0o444
}

/// After stat(2) has succeeded.
///
/// # Safety
///
/// `path` is NUL-terminated, `to` filled in, as the kernel has found.
pub unsafe fn status(dir: c_int, path: *const c_char, follow: bool, to: *mut libc::stat) -> Result<usize> {
    // SAFETY: the caller's contract.
    unsafe {
        if let Some(id) = id_of_path(dir, path, follow, (*to).st_size)? {
            show(to, id);
        }
    }
    Ok(0)
}

/// # Safety
///
/// `to` is valid.
unsafe fn show(to: *mut libc::stat, id: u64) {
    if let Ok(st) = kernel_file() {
        // SAFETY: the caller's contract.
        unsafe { *to = st };
    }
    // SAFETY: the caller's contract.
    unsafe { (*to).st_ino = id };
}

/// After fstat(2) has succeeded.
///
/// # Safety
///
/// `to` is filled in.
pub unsafe fn status_of_descriptor(fd: c_int, to: *mut libc::stat) {
    // SAFETY: the caller's contract.
    unsafe {
        if (*to).st_size as u64 == CONTROL_SIZE
            && let Some((dir, _)) = enter::directory_of_descriptor(fd)
        {
            show(to, id_of(&dir));
        }
    }
}

/// After statx(2) has succeeded.
///
/// # Safety
///
/// `path` is NUL-terminated or, with AT_EMPTY_PATH, null; `to` filled in.
pub unsafe fn extended_status(dir: c_int, path: *const c_char, follow: bool, to: *mut libc::statx) -> Result<usize> {
    let path = if path.is_null() { c"".as_ptr() } else { path };
    // SAFETY: the caller's contract.
    unsafe {
        if let Some(id) = id_of_path(dir, path, follow, (*to).stx_size as i64)? {
            if let Ok(st) = kernel_file() {
                (*to).stx_mode = st.st_mode as u16;
                (*to).stx_uid = st.st_uid;
                (*to).stx_gid = st.st_gid;
                (*to).stx_nlink = st.st_nlink as u32;
                (*to).stx_size = st.st_size as u64;
                (*to).stx_blocks = st.st_blocks as u64;
                (*to).stx_dev_major = libc::major(st.st_dev);
                (*to).stx_dev_minor = libc::minor(st.st_dev);
            }
            (*to).stx_ino = id;
        }
    }
    Ok(0)
}

/// After fstatfs(2) has succeeded: whether the type is to be `NSFS_MAGIC`.
pub fn kind_of_file_system(fd: c_int) -> Option<i64> {
    let st = stat_fd(fd).ok()?;
    (st.st_size as u64 == CONTROL_SIZE && enter::directory_of_descriptor(fd).is_some()).then_some(NSFS_MAGIC)
}

/// After statfs(2) has succeeded: the same, of a namespace that is bind mounted.
///
/// # Safety
///
/// `path` is NUL-terminated, as the kernel has found.
pub unsafe fn kind_of_file_system_at(path: *const c_char) -> Option<i64> {
    // SAFETY: the caller's contract.
    let path = unsafe { CStr::from_ptr(path) };
    let file = Path::new(&[path.to_bytes()]).and_then(|path| path.open(libc::O_PATH, 0)).ok()?;
    kind_of_file_system(file.0)
}

/// After umount(2): what a bind mount has kept alive may end.
pub fn unmounted() {
    if MOUNTED.load(Ordering::Relaxed) != 0 {
        look();
    }
}

/// Looks at the caller's namespaces, some of which may end.
pub fn look() {
    if let Ok(place) = ns::current(member::tls()) {
        life::look(place.root(), place.accounts(), usize::MAX);
    }
}

/// A descriptor keeps its namespace alive no longer.
pub fn let_go(fd: i32) {
    // SAFETY: no pointers.
    let _ = unsafe { syscall!(SYS_flock, fd, libc::LOCK_UN) };
    if let Some(known @ 1..) = OPEN.get(fd as usize).map(|slot| slot.load(Ordering::Acquire))
        && let Ok(place) = Place::of(known as usize - 1)
        && place.is_virtual()
    {
        life::teardown(place.dir());
    }
}

/// ioctl(2) with one of the requests of ioctl_ns(2). BYPASS: not ours.
#[unsafe(no_mangle)]
pub extern "C" fn mqns_ns_ioctl(fd: c_int, request: c_ulong) -> isize {
    const NS_GET_USERNS: u32 = 0xb701;
    const NS_GET_NSTYPE: u32 = 0xb703;
    let Some((dir, _)) = enter::directory_of_descriptor(fd) else { return BYPASS };
    // SAFETY: no pointers.
    if unsafe { syscall!(SYS_fcntl, fd, libc::F_GETFL) }.is_ok_and(|flags| flags as i32 & enter::LOOKS_LIKE_PATH != 0) {
        return raw_result(Err(Errno::EBADF));
    }
    raw_result(match request as u32 {
        NS_GET_NSTYPE => Ok(enter::NEWIPC as usize),
        NS_GET_USERNS => owner(&dir),
        _ => Err(Errno::EINVAL),
    })
}

/// A descriptor of the user namespace that owns a namespace, found by way of some process in it.
fn owner(dir: &Path) -> Result<usize> {
    let wanted = ns::place(member::tls(), dir.as_bytes())?.control().user_ns.load(Ordering::Acquire);
    let open = |path: &Path| -> Option<Fd> {
        let file = path.open_own(libc::O_RDONLY).ok()?;
        (file.stat().ok()?.st_ino == wanted).then_some(file)
    };
    let mut found = open(&Path::new(&[b"/proc/thread-self/ns/user"])?);
    if found.is_none() && wanted != 0 {
        let proc = Path::new(&[b"/proc"])?.open_own(libc::O_RDONLY | libc::O_DIRECTORY)?;
        crate::sys::path::each_entry(&proc, |name| {
            if found.is_none()
                && name.iter().all(u8::is_ascii_digit)
                && let Ok(path) = Path::new(&[b"/proc/", name, b"/ns/user"])
            {
                found = open(&path);
            }
        });
    }
    found.map(|file| file.release() as usize).ok_or(Errno::EPERM)
}

/// mount(2) with MS_BIND of a virtual namespace, which it keeps alive: `bind` is done with the file that
/// stands for it. Nothing: the source is none.
///
/// # Safety
///
/// `source` is NUL-terminated or null.
pub unsafe fn bind(source: *const c_char, bind: impl FnOnce(*const c_char) -> c_int) -> Option<Result<c_int>> {
    // SAFETY: the caller's contract.
    let path = unsafe { if source.is_null() { None } else { candidate(source) } }?;
    let dir = directory_of(libc::AT_FDCWD, path, true).transpose()?;
    let done = || {
        let place = ns::place(member::tls(), dir?.as_bytes())?;
        let held = member::hold(&place, 0)?;
        let file = life::bindable(&place)?;
        MOUNTED.store(1, Ordering::Relaxed);
        let result = bind(file.as_ptr());
        drop(held);
        Ok(result)
    };
    Some(done())
}

// For the command `mqns`, which runs itself with the library preloaded.

/// Ends all namespaces that were left by violence, and takes away queues without a name that nobody
/// has open. Returns how many namespaces, or a negated errno.
#[unsafe(no_mangle)]
pub extern "C" fn mqns_collect() -> isize {
    raw_result(super::mq::ready().and_then(life::collect_all))
}

/// Takes the caller to the namespace of that name; if there is none, and `make` is not 0, to a new one that gets it.
/// Returns 1 if it is new, 0 if not, or a negated errno.
///
/// # Safety
///
/// `name` is NUL-terminated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mqns_enter_named(name: *const c_char, make: c_int) -> isize {
    // SAFETY: the caller's contract.
    let name = unsafe { CStr::from_ptr(name) }.to_bytes();
    raw_result(super::mq::ready().and_then(|tls| named::enter(tls, name, make != 0)).map(usize::from))
}

/// The name of the namespace that a descriptor of `/proc/PID/ns/ipc` refers to, without a NUL: its length, 0 if it has
/// none, or a negated errno.
///
/// # Safety
///
/// `to` has room for so many bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mqns_name(fd: c_int, to: *mut u8, room: usize) -> isize {
    let name = || {
        let (dir, _) = enter::directory_of_descriptor(fd)?;
        named::of(&dir)
    };
    let name = name().unwrap_or(Path::empty());
    if name.as_bytes().len() > room {
        return raw_result(Err(Errno::ENAMETOOLONG));
    }
    // SAFETY: the caller's contract.
    unsafe { to.copy_from_nonoverlapping(name.as_bytes().as_ptr(), name.as_bytes().len()) };
    name.as_bytes().len() as isize
}

/// The number of queues in the namespace that a descriptor of `/proc/PID/ns/ipc` refers to, those without
/// a name included, or a negated errno.
#[unsafe(no_mangle)]
pub extern "C" fn mqns_queues(fd: c_int) -> isize {
    let count = || {
        let tls = member::tls();
        let place = match enter::directory_of_descriptor(fd) {
            Some((dir, _)) => ns::place(tls, dir.as_bytes())?,
            None => match ns::known_initial_of(tls, stat_fd(fd)?.st_ino)? {
                Some(place) => place,
                None => return Ok(0),
            },
        };
        Ok(place.control().queues_count.get() as usize)
    };
    raw_result(count())
}
