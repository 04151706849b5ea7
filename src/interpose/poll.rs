//! The calls that poll.
//!
//! Where only queues are polled, and by what the table of `epoll` and the arguments tell, the answer comes from
//! the queues themselves; the kernel is asked to sleep, and believed only in that it is time to look again
//! (`queue::poll`). In all other cases the queues' packets follow them and the kernel knows.
//!
//! The calls are cancellation points: no frame above the one that sleeps has anything to destroy.

use core::ffi::{c_int, c_void};

use super::{next, ret};
use crate::abi::{Errno, Result};
use crate::desc;
use crate::epoll::{self, Member};
use crate::queue::notify;
use crate::queue::poll::{self, IN, OUT};
use crate::sys::fault;
use crate::sys::tls::{self, Tls};
use crate::syscall;

/// Most descriptors of a call of poll(2) that are looked at here.
const MOST: usize = 64;
/// How often in a row the kernel may have something to tell of a set, and nothing be found, before it is left to
/// the kernel.
const MOST_IN_VAIN: u32 = 8;
const MS: u64 = 1_000_000;
/// Shorter waits than this, ns, are not worth looking before they begin.
const WORTH_SPINNING: u64 = MS;

/// How long a call may sleep, ns; `None`: for ever.
type Timeout = Option<u64>;

/// What remains of a timeout.
struct Clock {
    timeout: Timeout,
    /// CLOCK_MONOTONIC, ns; 0: not begun.
    end: u64,
}

impl Clock {
    fn of(timeout: Timeout) -> Clock {
        Clock { timeout, end: 0 }
    }

    /// How long the next sleep may take; the first begins now.
    fn left(&mut self) -> Timeout {
        let timeout = self.timeout?;
        let now = monotonic_ns();
        if self.end == 0 {
            self.end = now.saturating_add(timeout).max(1);
            return Some(timeout);
        }
        Some(self.end.saturating_sub(now))
    }

    fn is_worth_spinning(&self) -> bool {
        self.timeout.is_none_or(|timeout| timeout >= WORTH_SPINNING)
    }
}

fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the result goes to a local.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Of milliseconds as poll(2) takes them: below 0 is for ever.
fn of_ms(ms: c_int) -> Timeout {
    u64::try_from(ms).ok().map(|ms| ms * MS)
}

/// The reverse, rounded up.
fn to_ms(timeout: Timeout) -> c_int {
    timeout.map_or(-1, |ns| ns.div_ceil(MS).min(c_int::MAX as u64) as c_int)
}

/// Of a `struct timespec` of the user's; null is for ever.
///
/// # Errors
///
/// EFAULT, EINVAL: the kernel is to say so.
unsafe fn of_timespec(user: *const libc::timespec) -> Result<Timeout> {
    if user.is_null() {
        return Ok(None);
    }
    // SAFETY: a user pointer, read with faults caught.
    let time = unsafe { fault::read_user(user)? };
    if time.tv_sec < 0 || !(0..1_000_000_000).contains(&time.tv_nsec) {
        return Err(Errno::EINVAL);
    }
    Ok(Some((time.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(time.tv_nsec as u64)))
}

/// The reverse.
fn to_timespec(ns: u64) -> libc::timespec {
    libc::timespec { tv_sec: (ns / 1_000_000_000) as i64, tv_nsec: (ns % 1_000_000_000) as i64 }
}

fn fails(errno: Errno) -> c_int {
    ret(Err(errno)) as c_int
}

/// What a call that polls returns with, if the kernel has said so.
#[inline(always)]
fn settled(ready: c_int) -> c_int {
    notify::settle(ready);
    ready
}

/// The events that queue descriptor `fd` is ready for; `None`: it is none.
#[inline(always)]
fn readiness(fd: c_int) -> Option<u32> {
    let descriptor = desc::known(fd)?;
    if descriptor.is_path() { None } else { Some(poll::readiness(descriptor.map)) }
}

/// The same; should somebody have died who was at the queue, it is put right first.
#[inline(always)]
fn readiness_now(fd: c_int) -> Option<u32> {
    let descriptor = desc::known(fd)?;
    if descriptor.is_path() {
        return None;
    }
    if crate::queue::is_in_doubt(descriptor.map) {
        crate::queue::settle(descriptor.map, fd);
    }
    Some(poll::readiness(descriptor.map))
}

/// Before a sleep for `events` of a queue descriptor; false: it is not to begin.
#[inline(always)]
fn arm(tls: &'static Tls, fd: c_int, events: u32) -> bool {
    let Some(descriptor) = desc::known(fd) else { return true };
    if events & IN != 0 {
        return poll::arm(descriptor.map, tls, fd).unwrap_or(true);
    }
    if events & OUT != 0 {
        let _ = poll::watch(descriptor.map, tls, fd, false);
    }
    true
}

/// Whether the senders of queue descriptor `fd` ran on this CPU last.
fn is_sender_here(fd: c_int) -> bool {
    desc::known(fd).is_some_and(|descriptor| crate::queue::wait::is_peer_here(descriptor.map, false))
}

// ---- poll -----------------------------------------------------------------------------------

/// A call of poll(2) with queue descriptors.
struct Polled {
    fds: [libc::pollfd; MOST],
    len: usize,
    queues: usize,
    others: usize,
}

/// "EINVAL: the nfds value exceeds the RLIMIT_NOFILE value" (poll(2)). Of one descriptor nobody asks.
fn is_above_limit(count: libc::nfds_t) -> bool {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the result goes to a local.
    count > 1
        && unsafe { syscall!(SYS_prlimit64, 0, libc::RLIMIT_NOFILE, 0, &raw mut limit) }.is_ok()
        && count > limit.rlim_cur
}

const NOBODY: libc::pollfd = libc::pollfd { fd: -1, events: 0, revents: 0 };

impl Polled {
    /// Reads what is asked for; `None`: the kernel is to see to it.
    #[inline(always)]
    unsafe fn read(user: *const libc::pollfd, count: libc::nfds_t) -> Option<Polled> {
        if count == 0 || count as usize > MOST || is_above_limit(count) {
            return None;
        }
        let mut polled = Polled { fds: [NOBODY; MOST], len: count as usize, queues: 0, others: 0 };
        let size = polled.len * size_of::<libc::pollfd>();
        // SAFETY: a user pointer, read with faults caught; there is room.
        unsafe { fault::copy(polled.fds.as_mut_ptr().cast(), user.cast(), size).ok()? };
        for at in 0..polled.len {
            let fd = polled.fds[at].fd;
            if fd < 0 {
                continue;
            }
            if readiness(fd).is_some() { polled.queues += 1 } else { polled.others += 1 }
        }
        (polled.queues > 0 && polled.queues <= epoll::MEMBERS).then_some(polled)
    }

    /// Looks at the queues: how many have anything to tell.
    #[inline(always)]
    fn look(&mut self) -> usize {
        let mut ready = 0;
        for entry in &mut self.fds[..self.len] {
            if entry.fd >= 0
                && let Some(now) = readiness_now(entry.fd)
            {
                entry.revents = (now & entry.events as u32) as i16;
                ready += usize::from(entry.revents != 0);
            }
        }
        ready
    }

    fn of_queues(&self) -> impl Iterator<Item = &libc::pollfd> {
        self.fds[..self.len].iter().filter(|entry| entry.fd >= 0 && readiness(entry.fd).is_some())
    }

    /// Tells the user.
    unsafe fn write(&self, user: *mut libc::pollfd, ready: usize) -> c_int {
        for (at, entry) in self.fds[..self.len].iter().enumerate() {
            // SAFETY: user pointers, written with faults caught.
            let written = unsafe { fault::write_user(&raw mut (*user.wrapping_add(at)).revents, entry.revents) };
            if written.is_err() {
                return fails(Errno::EFAULT);
            }
        }
        ready as c_int
    }
}

/// poll(2) and its kin in a process that knows queues. `sleep` is the call itself, `as_is` the same as the program has
/// made it.
#[inline(always)]
unsafe fn poll_queues(
    fds: *mut libc::pollfd,
    count: libc::nfds_t,
    timeout: Result<Timeout>,
    sleep: impl Fn(*mut libc::pollfd, Timeout) -> c_int,
    as_is: impl FnOnce() -> c_int,
) -> c_int {
    let ready = (tls::ready(), timeout);
    // SAFETY: user pointers, accessed with faults caught.
    let (Ok(tls), Ok(timeout)) = ready else { return as_is() };
    // SAFETY: as above.
    let Some(mut polled) = (unsafe { Polled::read(fds, count) }) else {
        // SAFETY: as above.
        unsafe { about_to_poll(fds, count) };
        return settled(as_is());
    };
    polled.fds[..polled.len].iter().for_each(|entry| epoll::shared(entry.fd));
    if notify::any() {
        // SAFETY: as above.
        unsafe { about_to_poll(fds, count) };
        return settled(as_is());
    }
    let mut clock = Clock::of(timeout);
    loop {
        let ready = polled.look();
        if ready > 0 || timeout == Some(0) {
            let mut total = ready;
            if polled.others > 0 {
                let Some(others) = poll_others(&mut polled, &sleep) else { return -1 };
                total += others;
            }
            // SAFETY: as above.
            return unsafe { polled.write(fds, total) };
        }
        if polled.others == 0 && clock.is_worth_spinning() {
            let same_cpu = polled.of_queues().all(|entry| is_sender_here(entry.fd));
            crate::queue::wait::spin(tls, same_cpu, || {
                !polled.of_queues().any(|e| readiness(e.fd).is_some_and(|now| now & e.events as u32 != 0))
            });
            if polled.look() > 0 {
                continue;
            }
        }
        if !polled.of_queues().all(|entry| arm(tls, entry.fd, entry.events as u32)) {
            continue;
        }
        let left = clock.left();
        let result = sleep(fds, left);
        if result <= 0 {
            return result;
        }
        // What the kernel says of the others holds.
        // SAFETY: as above.
        let Some(mut now) = (unsafe { Polled::read(fds, count) }) else { return result };
        let is_told = |entry: &&libc::pollfd| entry.fd >= 0 && readiness(entry.fd).is_none() && entry.revents != 0;
        let total = now.look() + now.fds[..now.len].iter().filter(is_told).count();
        if total > 0 || left == Some(0) {
            // SAFETY: as above.
            return settled(unsafe { now.write(fds, total) });
        }
    }
}

/// Asks the kernel for the descriptors that are no queues: how many have anything to tell; `None`: -1.
fn poll_others(polled: &mut Polled, sleep: &impl Fn(*mut libc::pollfd, Timeout) -> c_int) -> Option<usize> {
    let mut others = polled.fds;
    for entry in &mut others[..polled.len] {
        if readiness(entry.fd).is_some() {
            entry.fd = -1;
        }
    }
    let ready = sleep(others.as_mut_ptr(), Some(0));
    for (entry, other) in polled.fds[..polled.len].iter_mut().zip(&others) {
        if other.fd >= 0 {
            entry.revents = other.revents;
        } else if entry.fd < 0 {
            entry.revents = 0;
        }
    }
    usize::try_from(ready).ok()
}

/// Queue descriptors among those about to be polled have their packets follow from now on.
unsafe fn about_to_poll(fds: *const libc::pollfd, count: libc::nfds_t) {
    for at in 0..count as usize {
        // SAFETY: a user pointer, read with faults caught.
        match unsafe { fault::read_user(fds.wrapping_add(at)) } {
            Ok(poll) => {
                epoll::shared(poll.fd);
                desc::about_to_poll(poll.fd, false);
            }
            Err(_) => return,
        }
    }
}

/// poll(2).
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C-unwind" fn poll(fds: *mut libc::pollfd, count: libc::nfds_t, timeout: c_int) -> c_int {
    let poll = next!(c"poll": Poll);
    // SAFETY: the caller's contract.
    unsafe { if desc::any() { poll_ours(poll, fds, count, timeout) } else { poll(fds, count, timeout) } }
}

type Poll = unsafe extern "C-unwind" fn(*mut libc::pollfd, libc::nfds_t, c_int) -> c_int;

#[inline(never)]
unsafe fn poll_ours(next: Poll, fds: *mut libc::pollfd, count: libc::nfds_t, timeout: c_int) -> c_int {
    // SAFETY: the caller's contract.
    unsafe {
        let sleep = |fds, timeout| next(fds, count, to_ms(timeout));
        poll_queues(fds, count, Ok(of_ms(timeout)), sleep, || next(fds, count, timeout))
    }
}

/// poll(2), fortified.
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C-unwind" fn __poll_chk(
    fds: *mut libc::pollfd,
    count: libc::nfds_t,
    timeout: c_int,
    size: usize,
) -> c_int {
    type PollChk = unsafe extern "C-unwind" fn(*mut libc::pollfd, libc::nfds_t, c_int, usize) -> c_int;
    // SAFETY: the caller's contract.
    unsafe {
        if size / size_of::<libc::pollfd>() < count as usize {
            // Ends the program.
            return next!(c"__poll_chk": PollChk)(fds, count, timeout, size);
        }
        poll(fds, count, timeout)
    }
}

/// ppoll(2).
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C-unwind" fn ppoll(
    fds: *mut libc::pollfd,
    count: libc::nfds_t,
    timeout: *const libc::timespec,
    mask: *const libc::sigset_t,
) -> c_int {
    let ppoll = next!(c"ppoll": Ppoll);
    // SAFETY: the caller's contract.
    unsafe { if desc::any() { ppoll_ours(ppoll, fds, count, timeout, mask) } else { ppoll(fds, count, timeout, mask) } }
}

type Ppoll =
    unsafe extern "C-unwind" fn(*mut libc::pollfd, libc::nfds_t, *const libc::timespec, *const libc::sigset_t) -> c_int;

#[inline(never)]
unsafe fn ppoll_ours(
    next: Ppoll,
    fds: *mut libc::pollfd,
    count: libc::nfds_t,
    timeout: *const libc::timespec,
    mask: *const libc::sigset_t,
) -> c_int {
    // SAFETY: the caller's contract.
    unsafe {
        let sleep = |fds, timeout: Timeout| {
            let time = timeout.map(to_timespec);
            next(fds, count, time.as_ref().map_or(core::ptr::null(), |time| time), mask)
        };
        poll_queues(fds, count, of_timespec(timeout), sleep, || next(fds, count, timeout, mask))
    }
}

/// ppoll(2), fortified.
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C-unwind" fn __ppoll_chk(
    fds: *mut libc::pollfd,
    count: libc::nfds_t,
    timeout: *const libc::timespec,
    mask: *const libc::sigset_t,
    size: usize,
) -> c_int {
    type PpollChk = unsafe extern "C-unwind" fn(
        *mut libc::pollfd,
        libc::nfds_t,
        *const libc::timespec,
        *const libc::sigset_t,
        usize,
    ) -> c_int;
    // SAFETY: the caller's contract.
    unsafe {
        if size / size_of::<libc::pollfd>() < count as usize {
            // Ends the program.
            return next!(c"__ppoll_chk": PpollChk)(fds, count, timeout, mask, size);
        }
        ppoll(fds, count, timeout, mask)
    }
}

// ---- select ---------------------------------------------------------------------------------

/// The same for the sets of select(2).
unsafe fn about_to_select(count: c_int, sets: [*const libc::fd_set; 2]) {
    if !desc::any() {
        return;
    }
    for set in sets {
        if set.is_null() {
            continue;
        }
        for word in 0..(count.max(0) as usize).div_ceil(64) {
            // SAFETY: a user pointer, read with faults caught.
            let Ok(mut bits) = (unsafe { fault::read_user(set.cast::<u64>().wrapping_add(word)) }) else { break };
            while bits != 0 {
                let fd = (word * 64) as i32 + bits.trailing_zeros() as i32;
                epoll::shared(fd);
                desc::about_to_poll(fd, false);
                bits &= bits - 1;
            }
        }
    }
}

/// select(2).
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C-unwind" fn select(
    count: c_int,
    read: *mut libc::fd_set,
    write: *mut libc::fd_set,
    except: *mut libc::fd_set,
    timeout: *mut libc::timeval,
) -> c_int {
    type Select = unsafe extern "C-unwind" fn(
        c_int,
        *mut libc::fd_set,
        *mut libc::fd_set,
        *mut libc::fd_set,
        *mut libc::timeval,
    ) -> c_int;
    // SAFETY: the caller's contract.
    unsafe {
        about_to_select(count, [read, write]);
        settled(next!(c"select": Select)(count, read, write, except, timeout))
    }
}

/// pselect(2).
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C-unwind" fn pselect(
    count: c_int,
    read: *mut libc::fd_set,
    write: *mut libc::fd_set,
    except: *mut libc::fd_set,
    timeout: *const libc::timespec,
    mask: *const libc::sigset_t,
) -> c_int {
    type Pselect = unsafe extern "C-unwind" fn(
        c_int,
        *mut libc::fd_set,
        *mut libc::fd_set,
        *mut libc::fd_set,
        *const libc::timespec,
        *const libc::sigset_t,
    ) -> c_int;
    // SAFETY: the caller's contract.
    unsafe {
        about_to_select(count, [read, write]);
        settled(next!(c"pselect": Pselect)(count, read, write, except, timeout, mask))
    }
}

// ---- epoll ----------------------------------------------------------------------------------

/// epoll_create(2).
#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn epoll_create(size: c_int) -> c_int {
    let epoll = next!(c"epoll_create": extern "C" fn(c_int) -> c_int)(size);
    epoll::made(epoll);
    epoll
}

/// epoll_create1(2).
#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn epoll_create1(flags: c_int) -> c_int {
    let epoll = next!(c"epoll_create1": extern "C" fn(c_int) -> c_int)(flags);
    epoll::made(epoll);
    epoll
}

/// epoll_ctl(2).
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn epoll_ctl(epoll: c_int, op: c_int, fd: c_int, event: *mut libc::epoll_event) -> c_int {
    // SAFETY: the caller's contract.
    let ask = || unsafe { syscall!(SYS_epoll_ctl, epoll, op, fd, event.cast::<c_void>()) };
    ret(if desc::any() {
        // SAFETY: a user pointer, read with faults caught.
        control(epoll, op, fd, unsafe { fault::read_user(event) }.ok(), ask)
    } else {
        ask()
    }) as c_int
}

/// epoll_ctl(2) in a process that knows queues. `ask` is the call itself.
fn control(
    epoll: c_int,
    op: c_int,
    fd: c_int,
    event: Option<libc::epoll_event>,
    ask: impl FnOnce() -> Result<usize>,
) -> Result<usize> {
    let tls = tls::ready()?;
    // Those who share it hear of it.
    epoll::find(tls, epoll);
    if readiness(fd).is_none() {
        if op == libc::EPOLL_CTL_ADD {
            epoll::shared(epoll);
            epoll::shared(fd);
        }
        return ask();
    }
    let Some(event) = event.filter(|_| op == libc::EPOLL_CTL_ADD || op == libc::EPOLL_CTL_MOD) else {
        let result = ask();
        if result.is_ok() && op == libc::EPOLL_CTL_DEL {
            epoll::remove(tls, epoll, fd);
        }
        return result;
    };
    let (events, data) = (event.events, event.u64);
    if !epoll::is_plain(events) || notify::any() || !epoll::prepare(tls, epoll) {
        epoll::shared(epoll);
        desc::about_to_poll(fd, events & libc::EPOLLET as u32 != 0);
        return ask();
    }
    let result = ask()?;
    if epoll::put(tls, epoll, Member { fd, events, data }) {
        // For those asleep already.
        if let Some(descriptor) = desc::known(fd) {
            let _ = poll::show(descriptor.map, tls, fd);
        }
    } else {
        epoll::shared(epoll);
        desc::about_to_poll(fd, false);
    }
    Ok(result)
}

/// epoll_wait(2) and its kin. `sleep` is the call itself, `as_is` the same as the program has made it.
#[inline(always)]
unsafe fn epoll_queues(
    epoll: c_int,
    events: *mut libc::epoll_event,
    count: c_int,
    timeout: Result<Timeout>,
    sleep: impl Fn(Timeout) -> c_int,
    as_is: impl FnOnce() -> c_int,
) -> c_int {
    if notify::any() {
        // A notification of such a queue has to come first, see `settled`.
        epoll::dissolve_each(|_, _| true);
    }
    let (Ok(tls), Ok(timeout), 1..) = (tls::ready(), timeout, count) else { return settled(as_is()) };
    let Some(set) = epoll::find(tls, epoll) else { return settled(as_is()) };
    let mut clock = Clock::of(timeout);
    let mut in_vain = 0;
    loop {
        let Some(members) = set.members(epoll) else { return settled(sleep(clock.left())) };
        let members = members.as_slice();
        // SAFETY: the caller's contract.
        match unsafe { report(set, members, events, count as usize) } {
            Ok(0) if timeout != Some(0) => {}
            Ok(ready) => return settled(ready as c_int),
            Err(errno) => return fails(errno),
        }
        let is_ready = |m: &Member| readiness(m.fd).is_some_and(|now| now & m.events != 0);
        if clock.is_worth_spinning() {
            let same_cpu = members.iter().all(|member| is_sender_here(member.fd));
            crate::queue::wait::spin(tls, same_cpu, || !members.iter().any(is_ready));
            if members.iter().any(is_ready) {
                continue;
            }
        }
        if !members.iter().all(|member| arm(tls, member.fd, member.events)) {
            continue;
        }
        let left = clock.left();
        let result = sleep(left);
        if result <= 0 {
            return result;
        }
        let found = set.members(epoll).is_some_and(|members| members.as_slice().iter().any(is_ready));
        if !found {
            // Another has taken the message; or the set is more than the table knows.
            in_vain += 1;
            if in_vain == MOST_IN_VAIN {
                epoll::dissolve(tls, epoll);
            }
            if left == Some(0) {
                return 0;
            }
        }
    }
}

/// Tells the user which members are ready: how many.
///
/// # Errors
///
/// EFAULT.
#[inline(always)]
unsafe fn report(set: &epoll::Set, members: &[Member], events: *mut libc::epoll_event, count: usize) -> Result<usize> {
    let mut ready = 0;
    let first = if members.len() > 1 { set.begin(count < members.len()) } else { 0 };
    for at in 0..members.len() {
        let member = &members[(first + at) % members.len()];
        let now = readiness_now(member.fd).unwrap_or(0) & member.events;
        if now == 0 {
            continue;
        }
        if ready == count {
            break;
        }
        let event = libc::epoll_event { events: now, u64: member.data };
        // SAFETY: a user pointer, written with faults caught.
        unsafe { fault::write_user(events.wrapping_add(ready), event)? };
        ready += 1;
    }
    Ok(ready)
}

/// epoll_wait(2).
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C-unwind" fn epoll_wait(
    epoll: c_int,
    events: *mut libc::epoll_event,
    count: c_int,
    timeout: c_int,
) -> c_int {
    let wait = next!(c"epoll_wait": EpollWait);
    // SAFETY: the caller's contract.
    unsafe {
        if is_concerned() {
            wait_ours(wait, epoll, events, count, timeout)
        } else {
            wait(epoll, events, count, timeout)
        }
    }
}

type EpollWait = unsafe extern "C-unwind" fn(c_int, *mut libc::epoll_event, c_int, c_int) -> c_int;

/// Whether an epoll_wait can be any of our business.
#[inline(always)]
fn is_concerned() -> bool {
    epoll::any() || notify::any()
}

#[inline(never)]
unsafe fn wait_ours(
    next: EpollWait,
    epoll: c_int,
    events: *mut libc::epoll_event,
    count: c_int,
    timeout: c_int,
) -> c_int {
    // SAFETY: the caller's contract.
    unsafe {
        let sleep = |timeout| next(epoll, events, count, to_ms(timeout));
        epoll_queues(epoll, events, count, Ok(of_ms(timeout)), sleep, || next(epoll, events, count, timeout))
    }
}

/// epoll_pwait(2).
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C-unwind" fn epoll_pwait(
    epoll: c_int,
    events: *mut libc::epoll_event,
    count: c_int,
    timeout: c_int,
    mask: *const libc::sigset_t,
) -> c_int {
    let wait = next!(c"epoll_pwait": EpollPwait);
    // SAFETY: the caller's contract.
    unsafe {
        if is_concerned() {
            pwait_ours(wait, epoll, events, count, timeout, mask)
        } else {
            wait(epoll, events, count, timeout, mask)
        }
    }
}

type EpollPwait =
    unsafe extern "C-unwind" fn(c_int, *mut libc::epoll_event, c_int, c_int, *const libc::sigset_t) -> c_int;

#[inline(never)]
unsafe fn pwait_ours(
    next: EpollPwait,
    epoll: c_int,
    events: *mut libc::epoll_event,
    count: c_int,
    timeout: c_int,
    mask: *const libc::sigset_t,
) -> c_int {
    // SAFETY: the caller's contract.
    unsafe {
        let sleep = |timeout| next(epoll, events, count, to_ms(timeout), mask);
        epoll_queues(epoll, events, count, Ok(of_ms(timeout)), sleep, || next(epoll, events, count, timeout, mask))
    }
}

/// epoll_pwait2(2).
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C-unwind" fn epoll_pwait2(
    epoll: c_int,
    events: *mut libc::epoll_event,
    count: c_int,
    timeout: *const libc::timespec,
    mask: *const libc::sigset_t,
) -> c_int {
    let wait = next!(c"epoll_pwait2": EpollPwait2);
    // SAFETY: the caller's contract.
    unsafe {
        if is_concerned() {
            pwait2_ours(wait, epoll, events, count, timeout, mask)
        } else {
            wait(epoll, events, count, timeout, mask)
        }
    }
}

type EpollPwait2 = unsafe extern "C-unwind" fn(
    c_int,
    *mut libc::epoll_event,
    c_int,
    *const libc::timespec,
    *const libc::sigset_t,
) -> c_int;

#[inline(never)]
unsafe fn pwait2_ours(
    next: EpollPwait2,
    epoll: c_int,
    events: *mut libc::epoll_event,
    count: c_int,
    timeout: *const libc::timespec,
    mask: *const libc::sigset_t,
) -> c_int {
    // SAFETY: the caller's contract.
    unsafe {
        let sleep = |timeout: Timeout| {
            let time = timeout.map(to_timespec);
            next(epoll, events, count, time.as_ref().map_or(core::ptr::null(), |time| time), mask)
        };
        let as_is = || next(epoll, events, count, timeout, mask);
        epoll_queues(epoll, events, count, of_timespec(timeout), sleep, as_is)
    }
}
