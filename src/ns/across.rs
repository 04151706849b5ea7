//! How a membership comes over exec, which drops the memory that holds it: by a descriptor of the
//! namespace's file `control`, left open for the new image, which adopts and closes it. In an image
//! without the library it stays open, keeps the namespace alive, and passes on to what that one starts.
//!
//! The environment helps where a descriptor may not arrive or not be found ([`Environment`]).

use core::ffi::c_char;

use super::control::Control;
use super::{life, member, place};
use crate::abi::{Errno, Result};
use crate::sys::getpid;
use crate::sys::path::{Fd, Path, with_more_descriptors};
use crate::sys::tls::{self, Tls};
use crate::syscall;

/// How such a descriptor is opened: flags that F_GETFL shows, and that nobody else combines.
pub const FLAGS: i32 = libc::O_RDONLY | libc::O_DSYNC | libc::O_NOFOLLOW;
/// Where it lies, if there is room: out of the way of programs that count on low numbers.
pub const LOWEST: i32 = 40;
/// Below this a new image looks for it.
pub const HIGHEST: i32 = 64;

/// For whom a bridge is, as its file offset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Across {
    /// exec: the process keeps its id.
    Exec,
    /// posix_spawn and the like: a child of the process, whose id is not known yet.
    Child,
}

/// In the offset: the image that is replaced has queues without a name open, which nobody closes but the
/// kernel.
const UNTIDY: u64 = 1 << 41;

/// In the offset: the new image inherits queues or namespaces under numbers that it does not look at by
/// itself.
const HIGH: u64 = 1 << 42;

impl Across {
    fn mark(self, pid: u32) -> u64 {
        match self {
            Across::Exec => pid as u64,
            Across::Child => pid as u64 | 1 << 40,
        }
    }
}

/// The descriptor that takes the calling task's membership along; closed when dropped, because exec
/// has failed or the child has started.
pub struct Bridge {
    fd: Fd,
    /// What has made room for it.
    replaced: Option<Fd>,
    dir: Path,
}

impl Drop for Bridge {
    fn drop(&mut self) {
        if let Some(replaced) = &self.replaced {
            // SAFETY: no pointers; it was there before.
            let _ = unsafe { syscall!(SYS_dup3, replaced.0, self.fd.0, libc::O_CLOEXEC) };
            core::mem::forget(core::mem::replace(&mut self.fd, Fd(-1)));
        }
    }
}

/// A bridge for the calling task; `high`: descriptors that the new image would not find by itself go with
/// it. Nothing, if nobody in the process has ever left its first namespace.
pub fn bridge(tls: &Tls, across: Across, high: bool) -> Option<Bridge> {
    if member::nobody_has_moved() {
        return None;
    }
    let dir = member::own_directory(tls).ok()?;
    let file = match member::hold_by(&dir, FLAGS) {
        Err(Errno::EMFILE) if across == Across::Exec => sacrificing(|| member::hold_by(&dir, FLAGS)),
        other => other,
    }
    .ok()?;
    let untidy = if across == Across::Exec && crate::desc::any_passing() { UNTIDY } else { 0 };
    let high = if high { HIGH } else { 0 };
    // SAFETY: no pointers.
    unsafe { syscall!(SYS_lseek, file.0, across.mark(getpid()) | untidy | high, libc::SEEK_SET).ok()? };
    for lowest in [LOWEST, 3] {
        // SAFETY: no pointers.
        if let Ok(fd) = unsafe { syscall!(SYS_fcntl, file.0, libc::F_DUPFD, lowest) } {
            let fd = Fd(fd as i32);
            if fd.0 < HIGHEST {
                return Some(Bridge { fd, replaced: None, dir });
            }
        }
    }
    if across == Across::Exec
        && let Some(bridge) = replacing(&file, dir)
    {
        return Some(bridge);
    }
    // It is one of the low numbers by chance, or the environment says which it is.
    // SAFETY: no pointers.
    unsafe { syscall!(SYS_fcntl, file.0, libc::F_SETFD, 0).ok()? };
    Some(Bridge { fd: file, replaced: None, dir })
}

/// The process has every descriptor open that it may have: one that exec closes goes before. Should exec
/// fail, it is missed; but the new image would find itself in another namespace.
fn sacrificing(open: impl FnOnce() -> Result<Fd>) -> Result<Fd> {
    for fd in (3..HIGHEST).rev() {
        // SAFETY: no pointers; the descriptor ends with this image.
        unsafe {
            if syscall!(SYS_fcntl, fd, libc::F_GETFD).is_ok_and(|flags| flags & libc::FD_CLOEXEC as usize != 0) {
                syscall!(SYS_close, fd)?;
                return open();
            }
        }
    }
    Err(Errno::EMFILE)
}

/// All low numbers are taken: the place of one that exec closes.
fn replacing(file: &Fd, dir: Path) -> Option<Bridge> {
    for fd in (3..HIGHEST).rev() {
        // SAFETY: no pointers.
        unsafe {
            if !syscall!(SYS_fcntl, fd, libc::F_GETFD).is_ok_and(|flags| flags & libc::FD_CLOEXEC as usize != 0) {
                continue;
            }
            let keep = || syscall!(SYS_fcntl, fd, libc::F_DUPFD_CLOEXEC, HIGHEST);
            let kept = Fd(with_more_descriptors(keep).ok()? as i32);
            syscall!(SYS_dup3, file.0, fd, 0).ok()?;
            return Some(Bridge { fd: Fd(fd), replaced: Some(kept), dir });
        }
    }
    None
}

type Strings = *const *const c_char;
const NAME: &[u8] = b"MQNS_NS=";

/// An environment with `MQNS_NS=FD DIR` in it: for a child whose file actions may close the bridge, and
/// for one that would not find it.
pub struct Environment {
    at: usize,
    len: usize,
}

impl Drop for Environment {
    fn drop(&mut self) {
        // SAFETY: our own mapping; whoever was passed it has no use for it any more.
        let _ = unsafe { syscall!(SYS_munmap, self.at, self.len) };
    }
}

impl Environment {
    /// That of `before` with the bridge's variable.
    ///
    /// # Safety
    ///
    /// `before` is an environment as execve(2) takes it.
    pub unsafe fn new(before: Strings, bridge: &Bridge) -> Option<Environment> {
        let mut text = Path::new(&[NAME]).ok()?;
        text.push_decimal(bridge.fd.0 as u64).ok()?;
        text.push(b" ").ok()?;
        text.push(bridge.dir.as_bytes()).ok()?;
        // SAFETY: a null pointer ends it; the mapping has room for the pointers, one more, their end, and
        // the text with its NUL, which was zero before.
        unsafe {
            let mut count = 0;
            while !before.is_null() && !(*before.add(count)).is_null() {
                count += 1;
            }
            let words = (count + 2) * size_of::<*const c_char>();
            let len = words + text.as_bytes().len() + 1;
            let at = syscall!(
                SYS_mmap,
                0,
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                usize::MAX,
                0
            )
            .ok()?;
            let strings = at as *mut *const c_char;
            let mut to = 0;
            for from in 0..count {
                let string = *before.add(from);
                if !is_ours(string) {
                    *strings.add(to) = string;
                    to += 1;
                }
            }
            let copy = (at + words) as *mut u8;
            core::ptr::copy_nonoverlapping(text.as_bytes().as_ptr(), copy, text.as_bytes().len());
            *strings.add(to) = copy.cast();
            Some(Environment { at, len })
        }
    }

    /// For execve(2).
    pub fn as_ptr(&self) -> Strings {
        self.at as Strings
    }
}

impl Bridge {
    /// Whether a new image would look for it where it is.
    pub fn is_in_sight(&self) -> bool {
        self.fd.0 < HIGHEST
    }
}

/// # Safety
///
/// `string` is NUL-terminated.
unsafe fn is_ours(string: *const c_char) -> bool {
    // SAFETY: the caller's contract; compared as far as it is equal.
    NAME.iter().enumerate().all(|(at, &byte)| unsafe { *string.cast::<u8>().add(at) == byte })
}

/// At the start of an image: becomes a member by the descriptor that the last image or the parent
/// left, and closes all such. `candidates` have [`FLAGS`]. Returns what [`bridge`] was told.
pub fn adopt(candidates: &[i32]) -> bool {
    let named = take_variable();
    // SAFETY: no pointers.
    let parent = unsafe { syscall!(SYS_getppid) }.unwrap_or(0) as u32;
    // SAFETY: no pointers.
    let mark = |fd: i32| unsafe { syscall!(SYS_lseek, fd, 0, libc::SEEK_CUR) }.unwrap_or(0) as u64;
    let rank = |fd: i32| {
        match mark(fd) & !(UNTIDY | HIGH) {
            0 => 0,
            mark if mark == Across::Exec.mark(getpid()) => 3,
            mark if mark == Across::Child.mark(parent) => 2,
            // By way of programs without the library.
            _ => 1,
        }
    };
    let mut best: Option<(i32, Fd)> = None;
    let out_of_sight = named.as_ref().map(|(fd, _)| *fd).filter(|&fd| fd >= HIGHEST);
    for fd in candidates.iter().copied().chain(out_of_sight) {
        let rank = rank(fd);
        if rank != 0 && Control::peek(fd).is_some() {
            let file = Fd(fd);
            if best.as_ref().is_none_or(|(known, _)| *known < rank) {
                best = Some((rank, file));
            }
        }
    }
    let file = match (best, named) {
        (Some((_, file)), _) => file,
        // The bridge was closed on the way; the maker of this process was a member a moment ago.
        (None, Some((_, dir))) => {
            let held = place(tls::tls(), dir.as_bytes()).and_then(|place| member::hold(&place, 0));
            let Ok(file) = held else { return false };
            file
        }
        (None, None) => return false,
    };
    let Some((id, secret)) = Control::peek(file.0) else { return false };
    if secret[0] == 0 && id == super::real_at_start() {
        return false;
    }
    // Not by proc(5), as a rule: what has been looked up there costs more at the end of the process.
    let dir = Control::own_path(&file).filter(|dir| life::is_directory_of(dir, &file));
    let mark = mark(file.0);
    if let Some(dir) = dir.or_else(|| life::directory_of(&file)) {
        member::begin(&file, &dir);
        crate::crash_point!("exec.adopted");
        drop(file);
        if mark & UNTIDY != 0
            && let Ok(tls) = tls::ready()
            && let Ok(place) = super::current(tls)
        {
            life::look(place.root(), place.accounts(), usize::MAX);
            super::queues::collect(tls, place);
        }
    }
    mark & HIGH != 0
}

/// Takes `MQNS_NS` out of the environment, which it is for this image alone.
fn take_variable() -> Option<(i32, Path)> {
    unsafe extern "C" {
        static mut environ: *mut *const c_char;
    }
    // SAFETY: no other thread is there yet; a null pointer ends the environment.
    unsafe {
        let mut at = environ;
        while !at.is_null() && !(*at).is_null() && !is_ours(*at) {
            at = at.add(1);
        }
        if at.is_null() || (*at).is_null() {
            return None;
        }
        let value = core::ffi::CStr::from_ptr((*at).add(NAME.len())).to_bytes();
        while !(*at).is_null() {
            *at = *at.add(1);
            at = at.add(1);
        }
        let space = value.iter().position(|&b| b == b' ')?;
        let fd = core::str::from_utf8(&value[..space]).ok()?.parse().ok()?;
        Some((fd, Path::new(&[&value[space + 1..]]).ok()?))
    }
}
