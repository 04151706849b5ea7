//! The epoll sets of this process that hold queue descriptors and nothing else: epoll_wait(2) then looks into
//! the queues, and asks the kernel only to sleep.
//!
//! A set is in the table from the first queue descriptor added to it on, if this process has made it and it was
//! empty then, until anything happens to it that the table does not tell: another kind of descriptor, edges
//! instead of levels, a duplicate, use by a fork child, exec. It is then left to the kernel ([`dissolve`]), and
//! its queues have their packets follow (`queue::poll`), as in all other sets.
//!
//! A fork child shares the sets of its parent. So the table is shared with it as well, and a child that is about
//! to use one of these sets says so there; for sets of its own it makes a new table.
//!
//! Async-signal-safe: no allocation; the table changes under a lock of the process's own that no handler
//! interrupts, and is read without it.

use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, AtomicU64, fence};

use crate::desc;
use crate::queue::poll::{IN, OUT};
use crate::sys::getpid;
use crate::sys::local::{LocalHeld, LocalLock};
use crate::sys::path::Path;
use crate::sys::tls::{self, Tls, generation};
use crate::syscall;

/// Most queues of a set: each is looked at in every epoll_wait.
pub const MEMBERS: usize = 16;
const SETS: usize = 32;
const NONE: i32 = -1;
/// How often a set that is being changed is looked at.
const MOST_LOOKS: u32 = 10_000;
/// Flags with which the kernel remembers more of a descriptor than whether it is ready.
const STATEFUL: u32 = (libc::EPOLLET | libc::EPOLLONESHOT | libc::EPOLLEXCLUSIVE | libc::EPOLLWAKEUP) as u32;

/// A queue descriptor in a set.
#[derive(Clone, Copy, Default)]
pub struct Member {
    /// The descriptor.
    pub fd: i32,
    /// What the program wants to know of.
    pub events: u32,
    /// What it wants to be told then.
    pub data: u64,
}

/// Members, copied.
pub struct Members {
    list: [Member; MEMBERS],
    len: usize,
}

impl Members {
    /// Of a set that has just been made.
    fn none() -> Members {
        Members { list: [Member::default(); MEMBERS], len: 0 }
    }

    /// All of them.
    pub fn as_slice(&self) -> &[Member] {
        &self.list[..self.len]
    }
}

/// A set.
pub struct Set {
    /// Its descriptor; [`NONE`]: not in use.
    epoll: AtomicI32,
    len: AtomicU32,
    /// Odd while it is being changed.
    version: AtomicU32,
    /// Which member is looked at first.
    turn: AtomicU32,
    /// Nonzero: somebody who shares it uses it.
    shared: AtomicU32,
    members: [(AtomicI32, AtomicU32, AtomicU64); MEMBERS],
}

/// The sets of a process, in memory that is shared with its fork children.
struct Table {
    sets: [Set; SETS],
    /// The parent's.
    inherited: *const Table,
    /// Process id of its maker.
    maker: u32,
}

/// The last table made, by this process or the one that has forked it; null: none. Tables stay.
static TABLE: AtomicPtr<Table> = AtomicPtr::new(core::ptr::null_mut());
/// Process generation of whoever has made it.
static MAKER: AtomicU64 = AtomicU64::new(0);
static LOCK: LocalLock = LocalLock::new();
/// Which process has made the set of each descriptor.
static MADE_BY: [AtomicU32; 1024] = [const { AtomicU32::new(0) }; 1024];

/// In a fork child: whoever held the lock is not here.
pub fn reset_after_fork() {
    LOCK.reset();
}

/// Whether the process has ever had such a set, or has inherited one.
#[inline(always)]
pub fn any() -> bool {
    !TABLE.load(Relaxed).is_null()
}

/// A set has been made.
pub fn made(epoll: i32) {
    if let Some(maker) = MADE_BY.get(epoll as u32 as usize) {
        maker.store(getpid(), Relaxed);
    }
}

fn is_ours(epoll: i32) -> bool {
    MADE_BY.get(epoll as u32 as usize).is_some_and(|maker| maker.load(Relaxed) == getpid())
}

impl Table {
    fn find(&self, epoll: i32) -> Option<&Set> {
        self.sets.iter().find(|set| set.epoll.load(Acquire) == epoll)
    }
}

/// The table of this process, and that of its parent.
fn tables() -> (Option<&'static Table>, Option<&'static Table>) {
    // SAFETY: tables stay for the life of the process, and are inherited by fork at the same address.
    let last = unsafe { TABLE.load(Acquire).as_ref() };
    if MAKER.load(Acquire) == generation() {
        // SAFETY: as above.
        (last, last.and_then(|table| unsafe { table.inherited.as_ref() }))
    } else {
        (None, last)
    }
}

fn own_sets() -> &'static [Set] {
    tables().0.map_or(&[], |table| &table.sets)
}

/// The set of descriptor `epoll` in the table of this process.
fn entry(epoll: i32) -> Option<&'static Set> {
    if epoll < 0 { None } else { tables().0?.find(epoll) }
}

/// The table of this process, made if need be; the lock is held.
fn make_table(_held: &LocalHeld<'_>) -> Option<&'static Table> {
    let (own, inherited) = tables();
    if own.is_some() {
        return own;
    }
    // SAFETY: fresh zeros; a table consists of atomics, for which all bytes are valid, and a pointer that nobody else
    // has seen yet.
    unsafe {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        let at = syscall!(SYS_mmap, 0, size_of::<Table>(), protection, flags, usize::MAX, 0).ok()? as *mut Table;
        (*at).inherited = inherited.map_or(core::ptr::null(), |table| table);
        (*at).maker = getpid();
        for set in &(*at).sets {
            set.epoll.store(NONE, Relaxed);
        }
        // First the table: nobody may take the parent's for our own. (Ours taken for the parent's is empty.)
        TABLE.store(at, Release);
        MAKER.store(generation(), Release);
        Some(&*at)
    }
}

/// The set of descriptor `epoll`, if it is in the table.
#[inline(always)]
pub fn find(tls: &'static Tls, epoll: i32) -> Option<&'static Set> {
    if !any() || epoll < 0 {
        return None;
    }
    let (own, inherited) = tables();
    if let Some(set) = own.and_then(|table| table.find(epoll)) {
        if set.shared.load(Acquire) == 0 {
            return Some(set);
        }
        dissolve(tls, epoll);
    } else if inherited.is_some() {
        leave_inherited(epoll);
    }
    None
}

/// Tells those who have inherited the set as well, and the one who has made it, that it is used here.
#[cold]
fn leave_inherited(epoll: i32) {
    let mut next = tables().1;
    while let Some(table) = next {
        if let Some(set) = table.find(epoll)
            && set.shared.swap(1, AcqRel) == 0
            && let Some(members) = set.members(epoll)
        {
            // Under the numbers that they have in the maker; as a rule they are the same here.
            follow(&members);
        }
        // SAFETY: as in `tables`.
        next = unsafe { table.inherited.as_ref() };
    }
}

fn follow(members: &Members) {
    for member in members.as_slice() {
        desc::about_to_poll(member.fd, false);
    }
}

impl Set {
    /// The members; `None`: it is not in the table any more.
    pub fn members(&self, epoll: i32) -> Option<Members> {
        for _ in 0..MOST_LOOKS {
            let version = self.version.load(Acquire);
            if version & 1 == 0 {
                let members = self.copy();
                let still = self.epoll.load(Relaxed) == epoll;
                fence(Acquire);
                if self.version.load(Relaxed) == version {
                    return still.then_some(members);
                }
            }
            // SAFETY: no arguments.
            let _ = unsafe { syscall!(SYS_sched_yield) };
        }
        // Its process died changing it.
        None
    }

    fn copy(&self) -> Members {
        let mut members = Members::none();
        members.len = (self.len.load(Relaxed) as usize).min(MEMBERS);
        for (to, (fd, events, data)) in members.list[..members.len].iter_mut().zip(&self.members) {
            *to = Member { fd: fd.load(Relaxed), events: events.load(Relaxed), data: data.load(Relaxed) };
        }
        members
    }

    /// With which member to begin, so that all get their turn where there is not room for all.
    pub fn begin(&self, more: bool) -> usize {
        (if more { self.turn.fetch_add(1, Relaxed) } else { self.turn.load(Relaxed) }) as usize
    }

    /// Changes it; the lock is held.
    fn change(&self, _held: &LocalHeld<'_>, epoll: i32, members: &Members) {
        let version = self.version.load(Relaxed);
        self.version.store(version.wrapping_add(1), Relaxed);
        fence(Release);
        self.epoll.store(epoll, Relaxed);
        self.len.store(members.len as u32, Relaxed);
        for (member, (fd, events, data)) in members.as_slice().iter().zip(&self.members) {
            fd.store(member.fd, Relaxed);
            events.store(member.events, Relaxed);
            data.store(member.data, Relaxed);
        }
        self.version.store(version.wrapping_add(2), Release);
    }
}

/// Whether a descriptor that is wanted for `events` can be in the table: for levels, and if there is to be any
/// sleep, for messages.
pub fn is_plain(events: u32) -> bool {
    events & STATEFUL == 0 && (events & IN != 0 || events & OUT == 0)
}

/// Whether the set is in the table, or is now: it is ours, and empty.
pub fn prepare(tls: &'static Tls, epoll: i32) -> bool {
    if find(tls, epoll).is_some() {
        return true;
    }
    if !is_ours(epoll) {
        return false;
    }
    {
        let held = LOCK.lock(tls);
        if entry(epoll).is_some() {
            return true;
        }
        let Some(set) = make_table(&held).and_then(|table| table.find(NONE)) else { return false };
        set.shared.store(0, Relaxed);
        set.change(&held, epoll, &Members::none());
    }
    // What is added from here on passes by the table.
    let empty = is_empty(epoll);
    if !empty {
        forget(tls, epoll);
    }
    empty
}

/// Whether the kernel says that a set has nothing in it (proc(5), fdinfo: a line `tfd:` for each).
fn is_empty(epoll: i32) -> bool {
    let look = || {
        let mut path = Path::new(&[b"/proc/self/fdinfo/"])?;
        path.push_decimal(epoll as u32 as u64)?;
        let file = path.open_own(libc::O_RDONLY)?;
        let mut text = [0u8; 512];
        // SAFETY: the buffer is as long as said.
        let got = unsafe { syscall!(SYS_read, file.0, text.as_mut_ptr(), text.len())? };
        Ok::<bool, crate::abi::Errno>(got < text.len() && !text[..got].windows(4).any(|part| part == b"tfd:"))
    };
    look().unwrap_or(false)
}

/// The kernel has taken `member` into the set, or changed it; false: there is no room in the table.
pub fn put(tls: &'static Tls, epoll: i32, member: Member) -> bool {
    let held = LOCK.lock(tls);
    let Some(set) = entry(epoll) else { return false };
    let mut members = set.copy();
    let at = members.as_slice().iter().position(|other| other.fd == member.fd).unwrap_or(members.len);
    let Some(place) = members.list.get_mut(at) else { return false };
    *place = member;
    members.len = members.len.max(at + 1);
    set.change(&held, epoll, &members);
    true
}

/// The kernel has taken `fd` out of the set.
pub fn remove(tls: &'static Tls, epoll: i32, fd: i32) {
    if !any() {
        return;
    }
    let held = LOCK.lock(tls);
    let Some(set) = entry(epoll) else { return };
    let mut members = set.copy();
    if let Some(at) = members.as_slice().iter().position(|other| other.fd == fd) {
        members.len -= 1;
        members.list[at] = members.list[members.len];
        set.change(&held, epoll, &members);
    }
}

/// Descriptor `epoll` is closed: it is no set of ours any more.
pub fn forget(tls: &'static Tls, epoll: i32) -> Option<Members> {
    let held = LOCK.lock(tls);
    let set = entry(epoll)?;
    let members = set.copy();
    set.change(&held, NONE, &Members::none());
    Some(members)
}

/// Leaves a set, if `epoll` is one, to the kernel.
#[cold]
pub fn dissolve(tls: &'static Tls, epoll: i32) {
    if let Some(members) = forget(tls, epoll) {
        follow(&members);
    }
}

/// The same for each set for which `is_meant` says so.
#[cold]
pub fn dissolve_each(is_meant: impl Fn(i32, &Members) -> bool) {
    let Ok(tls) = tls::ready() else { return };
    for set in own_sets() {
        let epoll = set.epoll.load(Acquire);
        if epoll != NONE && set.members(epoll).is_some_and(|members| is_meant(epoll, &members)) {
            dissolve(tls, epoll);
        }
    }
}

/// Descriptors from `first` to `last` are about to be closed. A queue stays in its sets for the kernel if it is
/// open elsewhere.
#[inline(always)]
pub fn closing(first: u32, last: u32) {
    for maker in MADE_BY.get(first as usize..=(last as usize).min(MADE_BY.len() - 1)).unwrap_or(&[]) {
        if maker.load(Relaxed) != 0 {
            maker.store(0, Relaxed);
        }
    }
    if any() {
        closing_some(first, last);
    }
}

#[cold]
fn closing_some(first: u32, last: u32) {
    let Ok(tls) = tls::ready() else { return };
    // What a vfork child closes, whose memory this is as well, stays open here.
    if tables().0.is_none_or(|table| table.maker != getpid()) {
        return;
    }
    let closes = |fd: i32| (first..=last).contains(&(fd as u32));
    dissolve_each(|_, members| members.as_slice().iter().any(|member| closes(member.fd)));
    for set in own_sets() {
        let epoll = set.epoll.load(Acquire);
        if epoll != NONE && closes(epoll) {
            forget(tls, epoll);
        }
    }
}

/// Descriptor `fd` is about to be shared, or to be polled itself.
#[inline(always)]
pub fn shared(fd: i32) {
    if any() && fd >= 0 {
        share(fd);
    }
}

#[cold]
fn share(fd: i32) {
    if let Ok(tls) = tls::ready() {
        dissolve(tls, fd);
        leave_inherited(fd);
    }
}

/// exec is about to be called: the new image knows nothing of the table.
pub fn exec_begins() {
    if any() {
        // SAFETY: no pointers.
        let stays = |fd| unsafe { syscall!(SYS_fcntl, fd, libc::F_GETFD) }.is_ok_and(|flags| flags == 0);
        dissolve_each(|epoll, _| stays(epoll));
    }
}
