//! Descriptors: close, duplicates, fcntl, and descriptors that arrive.
//!
//! For a descriptor that is none of ours each hook costs a table look-up and goes on to the next
//! definition, cancellation point or not (hence `C-unwind`: pthread_cancel unwinds through these
//! frames, which hold nothing to destroy).

use core::ffi::{c_int, c_uint};

use super::{BYPASS, aside, jump, next, nsfile, raw_result, ret, sysctl};
use crate::abi::{self, Errno, FILENT_SIZE, Result};
use crate::desc::{self, Descriptor};
use crate::epoll;
use crate::ns::across;
use crate::queue::notify::{self, LOCK_BASE};
use crate::sys::fault;
use crate::sys::path::{Path, each_entry};
use crate::sys::tls;
use crate::syscall;
use crate::vfs::through;

jump! {
    /// fcntl(2).
    fcntl => cshim_fcntl;
    /// fcntl(2) for programs with 64-bit offsets.
    fcntl64 => cshim_fcntl;
}

/// close(2).
#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C-unwind" fn close(fd: c_int) -> c_int {
    if !desc::is_known(fd) && !nsfile::is_known(fd) {
        sysctl::forget(fd);
        epoll::closing(fd as c_uint, fd as c_uint);
        let result = next!(c"close": extern "C-unwind" fn(c_int) -> c_int)(fd);
        notify::other_closed();
        return result;
    }
    ret(crate::sys::check(mqns_close(fd))) as c_int
}

/// close(2) of anything.
#[unsafe(no_mangle)]
pub extern "C" fn mqns_close(fd: c_int) -> isize {
    epoll::closing(fd as c_uint, fd as c_uint);
    let closed = desc::forget(fd);
    through::forget(fd);
    // SAFETY: no pointers; what the caller closes is the caller's.
    let result = unsafe { syscall!(SYS_close, fd) };
    if nsfile::is_known(fd) {
        nsfile::closed(fd);
        super::mount::closed(fd);
    }
    match (closed, tls::ready()) {
        (Some(closed), Ok(tls)) => closed.finish(tls),
        _ => notify::other_closed(),
    }
    raw_result(result)
}

/// close_range(2).
#[unsafe(no_mangle)]
pub extern "C" fn mqns_close_range(first: c_uint, last: c_uint, flags: c_int) -> isize {
    const CLOSE_RANGE_CLOEXEC: c_int = 4;
    // SAFETY: no pointers; what the caller closes is the caller's.
    let close = |first: u32, last: u32| unsafe { syscall!(SYS_close_range, first, last, flags) };
    if flags & CLOSE_RANGE_CLOEXEC != 0 || first > last {
        return raw_result(close(first, last));
    }
    epoll::closing(first, last);
    // Queue descriptors singly, for what has to follow; then the rest.
    if let Some(closing) = desc::next_known(first, last) {
        let mut at = Some(closing);
        while let Some(fd) = at {
            mqns_close(fd);
            at = desc::next_known(fd as u32 + 1, last);
        }
    }
    let result = close(first, last);
    notify::other_closed();
    raw_result(result)
}

/// close_range(2).
#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    ret(crate::sys::check(mqns_close_range(first, last, flags))) as c_int
}

/// flock(2): a descriptor that can neither read nor write has no lock.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C-unwind" fn flock(fd: c_int, operation: c_int) -> c_int {
    if operation & libc::LOCK_UN == 0
        && desc::is_known(fd)
        && desc::known(fd).is_some_and(|d| !d.may_send() && !d.may_receive())
    {
        return ret(Err(Errno::EBADF)) as c_int;
    }
    next!(c"flock": extern "C-unwind" fn(c_int, c_int) -> c_int)(fd, operation)
}

/// closefrom(3).
#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn closefrom(low: c_int) {
    let first = low.max(0) as c_uint;
    if crate::sys::check(mqns_close_range(first, c_uint::MAX, 0)).is_err() {
        // A kernel without close_range: libc knows another way.
        next!(c"closefrom": extern "C" fn(c_int))(low);
        notify::other_closed();
    }
}

/// dup(2).
#[unsafe(no_mangle)]
pub extern "C" fn mqns_dup(fd: c_int) -> isize {
    epoll::shared(fd);
    // SAFETY: no pointers.
    let result = unsafe { syscall!(SYS_dup, fd) };
    if let Ok(new) = result {
        desc::duplicated(fd, new as i32);
        sysctl::duplicated(fd, new as i32);
        nsfile::duplicated(fd, new as i32);
        through::duplicated(fd, new as i32);
    }
    raw_result(result)
}

/// dup3(2), or with `same_allowed` dup2(2).
#[unsafe(no_mangle)]
pub extern "C" fn mqns_dup3(from: c_int, to: c_int, flags: c_int, same_allowed: c_int) -> isize {
    if from == to && same_allowed != 0 {
        // SAFETY: no pointers. dup2 of a descriptor to itself only checks it.
        return raw_result(unsafe { syscall!(SYS_fcntl, from, libc::F_GETFD) }.map(|_| to as usize));
    }
    epoll::shared(from);
    epoll::closing(to as c_uint, to as c_uint);
    // What has been written to a limits file is read from it while it is there.
    sysctl::forget(to);
    // SAFETY: no pointers; what the caller replaces is the caller's.
    let result = unsafe { syscall!(SYS_dup3, from, to, flags) };
    if result.is_ok() {
        let replaced = desc::forget(to);
        desc::duplicated(from, to);
        sysctl::duplicated(from, to);
        nsfile::duplicated(from, to);
        through::duplicated(from, to);
        match (replaced, tls::ready()) {
            (Some(closed), Ok(tls)) => closed.finish(tls),
            _ => notify::other_closed(),
        }
    }
    raw_result(result)
}

/// dup(2).
#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn dup(fd: c_int) -> c_int {
    ret(crate::sys::check(mqns_dup(fd))) as c_int
}

/// dup2(2).
#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn dup2(from: c_int, to: c_int) -> c_int {
    ret(crate::sys::check(mqns_dup3(from, to, 0, 1))) as c_int
}

/// dup3(2).
#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn dup3(from: c_int, to: c_int, flags: c_int) -> c_int {
    ret(crate::sys::check(mqns_dup3(from, to, flags, 0))) as c_int
}

/// fcntl(2); BYPASS: the kernel's answer is right as it is.
#[unsafe(no_mangle)]
pub extern "C" fn mqns_fcntl(fd: c_int, command: c_int, argument: isize) -> isize {
    if !desc::is_known(fd) && !nsfile::is_known(fd) {
        if matches!(command, libc::F_DUPFD | libc::F_DUPFD_CLOEXEC) {
            epoll::shared(fd);
        }
        return BYPASS;
    }
    aside(move || fcntl_ours(fd, command, argument))
}

fn fcntl_ours(fd: c_int, command: c_int, argument: isize) -> isize {
    let Some(descriptor) = desc::known(fd) else {
        if !nsfile::is_known(fd) || !matches!(command, libc::F_DUPFD | libc::F_DUPFD_CLOEXEC | libc::F_GETFL) {
            return BYPASS;
        }
        // SAFETY: no pointers.
        let result = unsafe { syscall!(SYS_fcntl, fd, command, argument) };
        return raw_result(result.map(|value| {
            if command == libc::F_GETFL {
                return nsfile::visible_flags(value as i32) as usize;
            }
            nsfile::duplicated(fd, value as i32);
            value
        }));
    };
    match command {
        libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => {
            // SAFETY: no pointers.
            let result = unsafe { syscall!(SYS_fcntl, fd, command, argument) };
            if let Ok(new) = result {
                desc::duplicated(fd, new as i32);
                through::duplicated(fd, new as i32);
            }
            raw_result(result)
        }
        libc::F_GETFL if descriptor.is_path() => descriptor.path_flags() as isize,
        _ if descriptor.is_path() => BYPASS,
        libc::F_GETFL => raw_result(get_flags(&descriptor).map(|flags| flags as usize)),
        libc::F_SETFL => raw_result(set_flags(&descriptor, argument as c_int).map(|()| 0)),
        libc::F_SETLK | libc::F_SETLKW | libc::F_GETLK | libc::F_OFD_SETLK | libc::F_OFD_SETLKW | libc::F_OFD_GETLK => {
            // SAFETY: a user pointer, accessed with faults caught.
            raw_result(unsafe { lock(&descriptor, command, argument as *mut libc::flock) })
        }
        // The signal number is where rare flags are kept; a queue never sends SIGIO.
        abi::F_GETSIG => 0,
        abi::F_SETSIG if (0..=64).contains(&argument) => 0,
        libc::F_GETPIPE_SZ | libc::F_SETPIPE_SZ => -(libc::EBADF as isize),
        _ => BYPASS,
    }
}

fn get_flags(descriptor: &Descriptor) -> Result<i32> {
    // SAFETY: no pointers.
    let flags = unsafe { syscall!(SYS_fcntl, descriptor.fd, libc::F_GETFL)? } as i32;
    Ok(desc::visible_flags(descriptor.fd, flags))
}

/// F_SETFL: O_NONBLOCK, O_APPEND and O_NOATIME change, O_DIRECT is refused, the rest is ignored.
fn set_flags(descriptor: &Descriptor, wanted: i32) -> Result<()> {
    if wanted & libc::O_DIRECT != 0 {
        return Err(Errno::EINVAL);
    }
    // SAFETY: no pointers.
    unsafe {
        let now = syscall!(SYS_fcntl, descriptor.fd, libc::F_GETFL)? as i32;
        let visible = desc::visible_flags(descriptor.fd, now);
        let kept = now & (libc::O_DIRECT | libc::O_ASYNC);
        let mut changed = wanted & (libc::O_NONBLOCK | libc::O_APPEND);
        if wanted & !visible & libc::O_NOATIME != 0 {
            // The kernel knows who may set it: the FIFO's owner is the queue's.
            changed |= libc::O_NOATIME;
        } else if visible & !wanted & libc::O_NOATIME != 0 {
            syscall!(SYS_fcntl, descriptor.fd, abi::F_SETSIG, desc::rare_to_signal(visible & !libc::O_NOATIME))?;
        } else {
            changed |= now & libc::O_NOATIME;
        }
        syscall!(SYS_fcntl, descriptor.fd, libc::F_SETFL, kept | changed)?;
    }
    descriptor.nonblock_changed(wanted & libc::O_NONBLOCK != 0);
    Ok(())
}

/// Record locks of the program, kept apart from those that notifications are tied to.
unsafe fn lock(descriptor: &Descriptor, command: c_int, user: *mut libc::flock) -> Result<usize> {
    let fd = descriptor.fd;
    // SAFETY: a user pointer, accessed with faults caught; the kernel gets a local.
    unsafe {
        let mut lock = fault::read_user(user)?;
        // "EBADF: cmd is F_SETLK and the file descriptor open mode doesn't match with the type of lock
        // requested" (fcntl(2)); the FIFO itself is open for both.
        if !matches!(command, libc::F_GETLK | libc::F_OFD_GETLK)
            && (lock.l_type == libc::F_WRLCK as i16 && !descriptor.may_send()
                || lock.l_type == libc::F_RDLCK as i16 && !descriptor.may_receive())
        {
            return Err(Errno::EBADF);
        }
        if lock.l_whence == libc::SEEK_END as i16 {
            lock.l_whence = libc::SEEK_SET as i16;
            lock.l_start += FILENT_SIZE as i64;
        }
        if lock.l_len == 0 {
            lock.l_len = LOCK_BASE - lock.l_start.clamp(0, LOCK_BASE - 1);
        }
        if lock.l_start >= LOCK_BASE || lock.l_start.saturating_add(lock.l_len) > LOCK_BASE {
            return Err(Errno::EOVERFLOW);
        }
        let result = syscall!(SYS_fcntl, fd, command, &raw mut lock)?;
        if command == libc::F_GETLK || command == libc::F_OFD_GETLK {
            if lock.l_start + lock.l_len == LOCK_BASE {
                lock.l_len = 0;
            }
            fault::write_user(user, lock)?;
        }
        Ok(result)
    }
}

/// A descriptor has come from elsewhere. If it is a queue's, user memory may be touched on its behalf
/// from now on.
#[cfg_attr(test, allow(dead_code))]
fn arrived(fd: c_int) {
    // SAFETY: no pointers.
    let flags = unsafe { syscall!(SYS_fcntl, fd, libc::F_GETFL) }.unwrap_or(0) as i32;
    nsfile::arrived(fd, flags);
    desc::arrived(fd);
    if desc::is_known(fd) {
        let _ = super::mq::ready();
    }
}

/// Descriptors that have come with a message are looked at: they may be polled before anything else
/// is done with them.
unsafe fn look_at_rights(message: *mut libc::msghdr) {
    // SAFETY: the kernel has just filled in the header and the control data it points to.
    unsafe {
        if (*message).msg_controllen == 0 {
            return;
        }
        let mut control = libc::CMSG_FIRSTHDR(message);
        while !control.is_null() {
            if (*control).cmsg_level == libc::SOL_SOCKET && (*control).cmsg_type == libc::SCM_RIGHTS {
                let data = libc::CMSG_DATA(control);
                let count = ((*control).cmsg_len - (data as usize - control as usize)) / size_of::<c_int>();
                for at in 0..count {
                    arrived(data.cast::<c_int>().add(at).read_unaligned());
                }
            }
            control = libc::CMSG_NXTHDR(message, control);
        }
    }
}

/// recvmsg(2).
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C-unwind" fn recvmsg(socket: c_int, message: *mut libc::msghdr, flags: c_int) -> isize {
    // SAFETY: the caller's contract.
    unsafe {
        let got = next!(c"recvmsg": unsafe extern "C-unwind" fn(c_int, *mut libc::msghdr, c_int) -> isize)(
            socket, message, flags,
        );
        if got >= 0 {
            look_at_rights(message);
        }
        got
    }
}

/// recvmmsg(2).
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C-unwind" fn recvmmsg(
    socket: c_int,
    messages: *mut libc::mmsghdr,
    count: c_uint,
    flags: c_int,
    timeout: *mut libc::timespec,
) -> c_int {
    type Recvmmsg = unsafe extern "C-unwind" fn(c_int, *mut libc::mmsghdr, c_uint, c_int, *mut libc::timespec) -> c_int;
    // SAFETY: the caller's contract.
    unsafe {
        let got = next!(c"recvmmsg": Recvmmsg)(socket, messages, count, flags, timeout);
        for at in 0..got.max(0) as usize {
            look_at_rights(&raw mut (*messages.add(at)).msg_hdr);
        }
        got
    }
}

/// Queue descriptors that have survived exec: known from the start, because they may be polled or
/// read before any mq_* call. One fcntl(2) for each low number; nothing else is done in a program
/// that has inherited none.
#[cfg_attr(test, allow(dead_code))]
extern "C" fn look_at_inherited() {
    super::process::begin();
    const TELLING: i32 = libc::O_ACCMODE | libc::O_DSYNC | libc::O_NOFOLLOW | libc::O_DIRECT | libc::O_PATH;
    let (mut bridges, mut count) = ([0; 64], 0);
    for fd in 0..64 {
        // SAFETY: no pointers.
        let flags = unsafe { syscall!(SYS_fcntl, fd, libc::F_GETFL) }.unwrap_or(0) as i32;
        if flags & TELLING == across::FLAGS {
            bridges[count] = fd;
            count += 1;
        }
        nsfile::arrived(fd, flags);
        let ours = flags & (libc::O_ACCMODE | libc::O_DIRECT) == libc::O_RDWR | libc::O_DIRECT;
        if ours || flags & libc::O_PATH != 0 {
            arrived(fd);
        }
    }
    if across::adopt(&bridges[..count]) {
        look_at_high_numbers();
    }
    if (0..3).any(desc::is_known) {
        // SAFETY: no other thread is there yet, and nothing has been read or written.
        unsafe { cshim_standard_streams() };
    }
}

unsafe extern "C" {
    fn cshim_standard_streams();
}

/// Whether the process knows of such descriptors under higher numbers.
pub fn has_high_numbers() -> bool {
    desc::next_known(64, c_uint::MAX).is_some() || nsfile::has_high_numbers()
}

/// Has a look at those.
fn look_at_high_numbers() {
    let Ok(own) = Path::new(&[b"/proc/thread-self/fd"]).and_then(|path| path.open_own(libc::O_RDONLY)) else { return };
    each_entry(&own, |name| {
        let fd = core::str::from_utf8(name).ok().and_then(|digits| digits.parse().ok()).unwrap_or(0);
        if fd >= 64 && !desc::is_known(fd) && !nsfile::is_known(fd) {
            arrived(fd);
        }
    });
}

#[cfg(not(test))]
#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = look_at_inherited;
