//! mqueue.h: decoding of arguments, in the kernel's order of checks.

use core::ffi::{c_char, c_int, c_uint};
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Relaxed, Release};

use super::{BYPASS, SLEEP, jump, raw_result, ret};
use crate::abi::{Errno, MQ_PRIO_MAX, MqAttr, Result};
use crate::desc::{self, Descriptor};
use crate::maps;
use crate::ns;
use crate::queue::notify::{Fate, Meaning, Registration};
use crate::queue::wait::{self, Step, Wait};
use crate::queue::{self, Buffer};
use crate::shm::Map;
use crate::sys::fault;
use crate::sys::futex::Timespec;
use crate::sys::tls::{self, Tls};
use crate::syscall;

jump! {
    /// mq_open(3).
    mq_open => cshim_mq_open;
    /// mq_open(3) with two arguments, fortified.
    __mq_open_2 => cshim___mq_open_2;
    /// mq_send(3).
    mq_send => cshim_mq_send;
    /// mq_timedsend(3).
    mq_timedsend => cshim_mq_timedsend;
    /// mq_receive(3).
    mq_receive => cshim_mq_receive;
    /// mq_timedreceive(3).
    mq_timedreceive => cshim_mq_timedreceive;
    /// mq_notify(3).
    mq_notify => cshim_mq_notify;
}

/// Sets the thread up, and at the first use in a process the signal handling as well.
#[inline(always)]
pub fn ready() -> Result<&'static Tls> {
    let tls = tls::ready()?;
    if tls::ON_DEFERRED.load(Relaxed).is_null() {
        first_use();
    }
    super::signal::activate();
    Ok(tls)
}

/// Tells the layers below whom to call back.
#[cold]
fn first_use() {
    tls::AFTER_FORK.store(after_fork as fn(u32) as *mut (), Release);
    super::signal::ON_HANDLER.store(handler_begins as extern "C" fn(c_int) as usize, Release);
    super::signal::ON_READY.store(on_ready as super::signal::ReadyHook as usize, Release);
    tls::ON_DEFERRED.store(super::signal::deliver_deferred as fn(&Tls) as *mut (), Release);
}

fn after_fork(parent: u32) {
    crate::maps::reset_after_fork();
    crate::epoll::reset_after_fork();
    ns::reset_after_fork();
    super::mount::reset_after_fork();
    ns::member::after_fork(parent);
}

extern "C" fn handler_begins(sa_flags: c_int) {
    wait::handler_begins(tls::tls(), sa_flags);
}

extern "C" fn on_ready(signo: c_int, fd: c_int, sender: &mut [u64; 2]) -> c_int {
    match queue::notify::on_signal(signo, fd) {
        Meaning::Itself => 0,
        Meaning::Notification(pid, uid, value) => {
            *sender = [u64::from(pid) | u64::from(uid) << 32, value];
            queue::notify::SI_MESGQ
        }
        Meaning::Nothing => 1,
    }
}

/// A timeout as the kernel takes it in: EFAULT, then EINVAL, before anything else.
#[inline(always)]
unsafe fn deadline(timeout: *const Timespec) -> Result<Option<Timespec>> {
    if timeout.is_null() {
        return Ok(None);
    }
    // SAFETY: a user pointer, read with faults caught.
    let deadline = unsafe { fault::read_user(timeout)? };
    // "EINVAL: tv_sec was less than zero, or tv_nsec was less than zero or greater than
    // 1,000 million" (mq_send(3)).
    if deadline.sec < 0 || !(0..1_000_000_000).contains(&deadline.nsec) {
        return Err(Errno::EINVAL);
    }
    Ok(Some(deadline))
}

fn is_past(deadline: &Timespec) -> bool {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // By the kernel's clock, which the sleep goes by, whatever a program puts in front of clock_gettime(3).
    // SAFETY: the result goes to a local.
    let _ = unsafe { syscall!(SYS_clock_gettime, libc::CLOCK_REALTIME, &raw mut now) };
    (now.tv_sec, now.tv_nsec) >= (deadline.sec, deadline.nsec)
}

/// What to do with a call that would block: EAGAIN, ETIMEDOUT, or (`Ok`) sleep.
#[inline(always)]
unsafe fn may_sleep(descriptor: &Descriptor, deadline: Option<Timespec>, wait: *mut Wait) -> Result<()> {
    if descriptor.nonblocking() {
        return Err(Errno::EAGAIN);
    }
    // SAFETY: `wait` is a local of the calling C frame.
    let wait = unsafe { &mut *wait };
    wait.timed = u32::from(deadline.is_some());
    if let Some(deadline) = deadline {
        if is_past(&deadline) {
            return Err(Errno::ETIMEDOUT);
        }
        wait.deadline = deadline;
    }
    Ok(())
}

#[inline(always)]
fn step(result: Result<Step>) -> isize {
    match result {
        Ok(Step::Done(n)) => n as isize,
        Ok(Step::Sleep) => SLEEP,
        Err(Errno(errno)) => -(errno as isize),
    }
}

/// mq_timedsend(2), up to the point where it would sleep.
///
/// # Safety
///
/// `wait` points to a `struct wait` that stays until the call is over; the other pointers are the
/// user's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mqns_send(
    fd: c_int,
    msg: *const u8,
    len: usize,
    priority: c_uint,
    timeout: *const Timespec,
    wait: *mut Wait,
) -> isize {
    // SAFETY: the caller's contract, all along.
    unsafe {
        let send = || {
            let tls = ready()?;
            let deadline = deadline(timeout)?;
            if priority >= MQ_PRIO_MAX {
                return Err(Errno::EINVAL);
            }
            let Some(descriptor) = desc::find(tls, fd)? else { return Ok(None) };
            if !descriptor.may_send() {
                return Err(Errno::EBADF);
            }
            let map = descriptor.map;
            if len > map.msgsize as usize {
                return Err(Errno::EMSGSIZE);
            }
            match queue::try_send(map, tls, fd, msg, len as u32, priority) {
                Ok(()) => Ok(Some(Step::Done(0))),
                Err(Errno::EAGAIN) => {
                    may_sleep(&descriptor, deadline, wait)?;
                    wait::send_or_wait(map, tls, fd, msg, len as u32, priority, &mut *wait).map(Some)
                }
                Err(errno) => Err(errno),
            }
        };
        match send() {
            Ok(None) => BYPASS,
            Ok(Some(done)) => step(Ok(done)),
            Err(errno) => step(Err(errno)),
        }
    }
}

/// mq_timedreceive(2), up to the point where it would sleep.
///
/// # Safety
///
/// As [`mqns_send`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mqns_receive(
    fd: c_int,
    msg: *mut u8,
    len: usize,
    priority: *mut u32,
    timeout: *const Timespec,
    wait: *mut Wait,
) -> isize {
    // SAFETY: the caller's contract, all along.
    unsafe {
        let receive = || {
            let tls = ready()?;
            let deadline = deadline(timeout)?;
            let Some(descriptor) = desc::find(tls, fd)? else { return Ok(None) };
            if !descriptor.may_receive() {
                return Err(Errno::EBADF);
            }
            let map = descriptor.map;
            if len < map.msgsize as usize {
                return Err(Errno::EMSGSIZE);
            }
            let buffer = Buffer { data: msg, priority };
            match queue::try_receive(map, tls, fd, buffer) {
                Ok(n) => Ok(Some(Step::Done(n))),
                Err(Errno::EAGAIN) => {
                    may_sleep(&descriptor, deadline, wait)?;
                    wait::receive_or_wait(map, tls, fd, buffer, &mut *wait).map(Some)
                }
                Err(errno) => Err(errno),
            }
        };
        match receive() {
            Ok(None) => BYPASS,
            Ok(Some(done)) => step(Ok(done)),
            Err(errno) => step(Err(errno)),
        }
    }
}

/// Goes on after a sleep.
///
/// # Safety
///
/// `wait` is that of a call which has returned SLEEP.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mqns_resume(wait: *mut Wait, slept: c_int) -> isize {
    // SAFETY: the caller's contract.
    step(tls::ready().and_then(|tls| unsafe { wait::resume(tls, &mut *wait, slept) }))
}

/// The thread is being cancelled in its sleep.
///
/// # Safety
///
/// As [`mqns_resume`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mqns_cancel(wait: *mut Wait) {
    if let Ok(tls) = tls::ready() {
        // SAFETY: the caller's contract.
        unsafe { wait::cancel(tls, &mut *wait) };
    }
}

/// Whether a sleep that a handler has ended is to be gone on with (SA_RESTART).
///
/// # Safety
///
/// As [`mqns_resume`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mqns_restarting(wait: *mut Wait) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { c_int::from((*wait).is_restarting()) }
}

/// mq_open(2); `raw`: by syscall(2), where the name has no leading slash.
///
/// # Safety
///
/// The pointers are the user's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mqns_open(name: *const u8, oflag: c_int, mode: u32, attr: *const MqAttr, raw: c_int) -> isize {
    // SAFETY: user pointers, read with faults caught.
    let open = || unsafe {
        let tls = ready()?;
        let mut buffer = [0u8; 4096];
        if raw == 0 && fault::read_user(name)? != b'/' {
            return Err(Errno::EINVAL);
        }
        // "attr is copied first": by the kernel always, by libc only with O_CREAT.
        let looked_at = oflag & libc::O_CREAT != 0 || raw != 0;
        let attr = if looked_at && !attr.is_null() { Some(fault::read_user(attr)?) } else { None };
        let name = user_name(&mut buffer, name, raw)?;
        if name.is_empty() {
            // Before descriptors are looked for, be it for the namespace.
            return Err(Errno::ENOENT);
        }
        ns::queues::open(tls, ns::current(tls)?, name, oflag, mode, attr.as_ref()).map(|fd| fd as usize)
    };
    raw_result(open())
}

/// A queue's name from user memory, without its leading slash.
unsafe fn user_name(buffer: &mut [u8; 4096], name: *const u8, raw: c_int) -> Result<&[u8]> {
    let start = name.wrapping_add(usize::from(raw == 0));
    // SAFETY: a user pointer, read with faults caught.
    match unsafe { fault::copy_cstr(buffer, start) } {
        Ok(len) => Ok(&buffer[..len]),
        Err(fault::CstrError::Fault) => Err(Errno::EFAULT),
        Err(fault::CstrError::TooLong) => Err(Errno::ENAMETOOLONG),
    }
}

/// mq_unlink(2); `raw`: by syscall(2), where the name has no leading slash and EPERM stays EPERM.
///
/// # Safety
///
/// The pointer is the user's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mqns_unlink(name: *const u8, raw: c_int) -> isize {
    // SAFETY: user pointers, read with faults caught.
    let unlink = || unsafe {
        let tls = ready()?;
        let mut buffer = [0u8; 4096];
        if raw == 0 && fault::read_user(name)? != b'/' {
            return Err(Errno::EINVAL);
        }
        let name = user_name(&mut buffer, name, raw)?;
        match ns::queues::unlink(tls, ns::current(tls)?, name) {
            Err(Errno::EPERM) if raw == 0 => Err(Errno::EACCES),
            other => other.map(|()| 0),
        }
    };
    raw_result(unlink())
}

/// mq_unlink(3).
///
/// # Safety
///
/// The pointer is the user's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn mq_unlink(name: *const c_char) -> c_int {
    // SAFETY: the caller's contract.
    let result = unsafe { mqns_unlink(name.cast(), 0) };
    ret(crate::sys::check(result)) as c_int
}

/// mq_getsetattr(2): what mq_getattr(3) and mq_setattr(3) are made of.
///
/// # Safety
///
/// The pointers are the user's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mqns_getsetattr(fd: c_int, new: *const MqAttr, old: *mut MqAttr) -> isize {
    // SAFETY: user pointers, accessed with faults caught; the raw call passes them on.
    let getsetattr = || unsafe {
        let tls = ready()?;
        let mut flags = None;
        if !new.is_null() {
            let attr = fault::read_user(new)?;
            if attr.mq_flags & !(libc::O_NONBLOCK as i64) != 0 {
                return Err(Errno::EINVAL);
            }
            flags = Some(attr.mq_flags as i32);
        }
        let Some(descriptor) = desc::find(tls, fd)? else {
            return match syscall!(SYS_mq_getsetattr, fd, new, old) {
                Err(Errno::ENOSYS) => Err(Errno::EBADF),
                other => other,
            };
        };
        if descriptor.is_path() {
            return Err(Errno::EBADF);
        }
        let nonblocking = descriptor.nonblocking();
        if let Some(flags) = flags {
            set_nonblocking(&descriptor, flags != 0)?;
            descriptor.map.header().touched_sec.store(queue::coarse_seconds(), Relaxed);
        }
        if !old.is_null() {
            let flags = if nonblocking { libc::O_NONBLOCK as i64 } else { 0 };
            let map = descriptor.map;
            if queue::is_in_doubt(map) {
                queue::settle(map, fd);
            }
            fault::put_attr(old, flags, map.maxmsg, map.msgsize, queue::curmsgs(map))?;
        }
        Ok(0)
    };
    raw_result(getsetattr())
}

/// Sets or clears O_NONBLOCK of an open file description.
pub fn set_nonblocking(descriptor: &Descriptor, on: bool) -> Result<()> {
    // SAFETY: no pointers.
    unsafe {
        let flags = syscall!(SYS_fcntl, descriptor.fd, libc::F_GETFL)? as i32 & !libc::O_NONBLOCK;
        syscall!(SYS_fcntl, descriptor.fd, libc::F_SETFL, flags | if on { libc::O_NONBLOCK } else { 0 })?;
    }
    descriptor.nonblock_changed(on);
    Ok(())
}

/// mq_getattr(3).
///
/// # Safety
///
/// The pointer is the user's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn mq_getattr(fd: c_int, attr: *mut MqAttr) -> c_int {
    // SAFETY: the caller's contract.
    let result = unsafe { mqns_getsetattr(fd, core::ptr::null(), attr) };
    ret(crate::sys::check(result)) as c_int
}

/// mq_setattr(3).
///
/// # Safety
///
/// The pointers are the user's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn mq_setattr(fd: c_int, new: *const MqAttr, old: *mut MqAttr) -> c_int {
    // SAFETY: the caller's contract.
    let result = unsafe { mqns_getsetattr(fd, new, old) };
    ret(crate::sys::check(result)) as c_int
}

/// `struct sigevent` as far as it is of interest here.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Sigevent {
    value: u64,
    signo: i32,
    notify: i32,
    function: usize,
    attributes: usize,
    rest: [u64; 4],
}
const _: () = assert!(size_of::<Sigevent>() == size_of::<libc::sigevent>());

/// What `cshim/` keeps of a registration with SIGEV_THREAD.
#[repr(C)]
pub struct Registered {
    map: *const Map,
    ticket: u64,
    word: *const AtomicU32,
}

/// Whether somebody may send who cannot signal this process: others may open the queue, or inherit it
/// from a process that gives up privileges.
fn may_be_foreign(descriptor: &Descriptor) -> bool {
    let [mut real, mut effective, mut saved] = [0u32; 3];
    // SAFETY: the results go to locals.
    let known = unsafe { syscall!(SYS_getresuid, &raw mut real, &raw mut effective, &raw mut saved) }.is_ok();
    let one_ordinary_user = known && real != 0 && real == effective && real == saved;
    !one_ordinary_user
        || crate::face::stat(descriptor).is_ok_and(|st| st.st_mode & (libc::S_IWGRP | libc::S_IWOTH) != 0)
}

/// mq_notify(2). `registered`: filled in for a registration with SIGEV_THREAD, which libc makes out
/// of a thread of its own; null by syscall(2), where the kernel wants a socket instead.
///
/// # Safety
///
/// `event` is the user's pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mqns_notify(fd: c_int, event: *const Sigevent, registered: *mut Registered) -> isize {
    // SAFETY: a user pointer, read with faults caught; the raw call passes it on.
    let notify = || unsafe {
        let tls = ready()?;
        let mut wanted = None;
        if !event.is_null() {
            let event = fault::read_user(event)?;
            if !matches!(event.notify, libc::SIGEV_NONE | libc::SIGEV_SIGNAL | libc::SIGEV_THREAD) {
                return Err(Errno::EINVAL);
            }
            // `valid_signal`: 0 is accepted.
            if event.notify == libc::SIGEV_SIGNAL && !(0..=64).contains(&event.signo) {
                return Err(Errno::EINVAL);
            }
            if event.notify == libc::SIGEV_THREAD && registered.is_null() {
                return Err(Errno::EBADF);
            }
            wanted = Some(Registration { kind: event.notify, signo: event.signo, value: event.value });
        }
        let Some(descriptor) = desc::find(tls, fd)? else {
            return match syscall!(SYS_mq_notify, fd, event) {
                Err(Errno::ENOSYS) => Err(Errno::EBADF),
                other => other,
            };
        };
        if descriptor.is_path() {
            return Err(Errno::EBADF);
        }
        match wanted {
            None => queue::notify::unregister(descriptor.map, tls, fd)?,
            Some(what) => {
                let map = descriptor.map;
                let foreign = what.kind == libc::SIGEV_SIGNAL
                    && what.signo > 0
                    && (queue::notify::wants_bell(map) || may_be_foreign(&descriptor));
                let ticket = queue::notify::register(map, tls, fd, what, crate::sys::pid_namespace(), foreign)?;
                if what.kind == libc::SIGEV_THREAD {
                    // Until `mqns_notify_done`: the helper looks at the queue when it is closed, too.
                    core::mem::forget(maps::Pinned::of(map));
                    *registered = Registered { map, ticket, word: &map.header().notify.word };
                }
            }
        }
        Ok(0)
    };
    raw_result(notify())
}

/// Copies from the user; nonzero: EFAULT.
///
/// # Safety
///
/// `to` has room for `n` bytes; `from` is the user's pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mqns_copy(to: *mut u8, from: *const u8, n: usize) -> c_int {
    if ready().is_err() {
        return 1;
    }
    // SAFETY: the caller's contract.
    c_int::from(unsafe { fault::copy(to, from, n) }.is_err())
}

/// The helper thread of a registration is done with its queue.
///
/// # Safety
///
/// `registered` was filled in by [`mqns_notify`]; this is its last use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mqns_notify_done(registered: *const Registered) {
    if let Ok(tls) = tls::ready() {
        // SAFETY: the caller's contract; the mapping is pinned since then.
        maps::tidy(tls, unsafe { maps::Pinned::adopt(&*(*registered).map) });
    }
}

/// What a helper thread of SIGEV_THREAD is to do: 0 sleep while the word holds `*expected`, 1 call
/// the user's function, 2 end.
///
/// # Safety
///
/// `registered` was filled in by [`mqns_notify`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mqns_notify_fate(registered: *const Registered, expected: *mut u32) -> c_int {
    // SAFETY: the caller's contract; mappings stay.
    let (map, ticket) = unsafe { (&*(*registered).map, (*registered).ticket) };
    match queue::notify::fate(map, ticket) {
        Fate::Waits(word) => {
            // SAFETY: a local of the caller.
            unsafe { *expected = word };
            0
        }
        Fate::Fired => 1,
        Fate::Over => 2,
    }
}

/// mq_close(3): close(2), whatever the descriptor is.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn mq_close(fd: c_int) -> c_int {
    ret(crate::sys::check(super::fd::mqns_close(fd))) as c_int
}
