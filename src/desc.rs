//! The descriptor table: which descriptors are message queue descriptors, of which queue.
//!
//! A message queue descriptor is the queue's FIFO, opened O_RDWR. What belongs to the open file
//! description the kernel keeps for us, so that it follows dup, fork, exec and SCM_RIGHTS:
//! O_NONBLOCK as itself; the access mode in two flags that can only be set at open and mean nothing
//! on a FIFO ([`mode_to_flags`]); flags that only F_GETFL shows in the signal number of F_SETSIG
//! ([`rare_to_signal`]).
//!
//! The table here is only a cache of that, private to the process, and may be forgotten at any
//! time: an entry of 0 means "ask the kernel". It is filled by mq_open and by the first mq_* call
//! on a descriptor that came from elsewhere.
//!
//! Async-signal-safe.

use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use crate::abi::{self, Errno, Result};
use crate::maps::{self, Pinned};
use crate::ns::{self, queues::Key};
use crate::queue::{self, notify};
use crate::shm::Map;
use crate::shm::layout::{F_DEAD, F_MIXED_PIDS, F_NOTIFY, F_UNLINKED};
use crate::sys::local::Hazard;
use crate::sys::path::{Path, stat_fd};
use crate::sys::tls::{self, Tls};
use crate::syscall;

const CHUNK: usize = 1024;
type Chunk = [AtomicU64; CHUNK];
static CHUNKS: [AtomicPtr<Chunk>; 1024] = [const { AtomicPtr::new(core::ptr::null_mut()) }; 1024];

/// An entry: a mapping's address (aligned to 64), the access mode, what is known of O_NONBLOCK, and
/// the low bits of the queue's epoch at which that was learnt.
const ACCESS: u64 = 0b11;
const NONBLOCK: u64 = 1 << 4;
const NONBLOCK_KNOWN: u64 = 1 << 5;
const ADDRESS: u64 = 0x0000_ffff_ffff_ffc0;
/// The descriptor was opened with O_PATH: it refers to the queue, and can do nothing with it. The
/// bits of the epoch then hold the low flags that it was opened with.
const PATH: u64 = 1 << 3;
const EPOCH_SHIFT: u32 = 48;

/// Access mode 0 (O_RDONLY): may receive.
pub const READ_ONLY: u32 = libc::O_RDONLY as u32;
/// Access mode 1 (O_WRONLY): may send.
pub const WRITE_ONLY: u32 = libc::O_WRONLY as u32;
/// Access mode 2 (O_RDWR): both.
pub const READ_WRITE: u32 = libc::O_RDWR as u32;

/// A message queue descriptor, as looked up. While it exists its mapping stays.
pub struct Descriptor {
    /// The number.
    pub fd: i32,
    /// The queue.
    pub map: &'static Map,
    entry: u64,
    hazard: &'static Hazard,
    /// What the record said before: this thread may be inside a handler that has interrupted
    /// another operation.
    outer: usize,
}

impl Drop for Descriptor {
    #[inline(always)]
    fn drop(&mut self) {
        self.hazard.set(self.outer);
    }
}

#[inline(always)]
fn entry(fd: i32) -> Option<&'static AtomicU64> {
    let fd = fd as u32 as usize;
    let chunk = CHUNKS.get(fd / CHUNK)?.load(Ordering::Acquire);
    if chunk.is_null() {
        return None;
    }
    // SAFETY: a chunk, once published, stays; the index is below its length.
    Some(unsafe { &(&*chunk)[fd % CHUNK] })
}

#[cold]
fn make_entry(fd: i32) -> Option<&'static AtomicU64> {
    let slot = CHUNKS.get(fd as u32 as usize / CHUNK)?;
    if slot.load(Ordering::Acquire).is_null() {
        // SAFETY: a fresh private mapping of zeros, which is an empty chunk.
        let fresh = unsafe {
            syscall!(
                SYS_mmap,
                0,
                size_of::<Chunk>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                usize::MAX,
                0
            )
            .ok()?
        };
        if slot
            .compare_exchange(core::ptr::null_mut(), fresh as *mut Chunk, Ordering::AcqRel, Ordering::Acquire)
            .is_err()
        {
            // SAFETY: the losing chunk is ours alone.
            let _ = unsafe { syscall!(SYS_munmap, fresh, size_of::<Chunk>()) };
        }
    }
    entry(fd)
}

/// Whether this process knows `fd` as a queue descriptor: a few instructions if it is none.
#[inline(always)]
pub fn is_known(fd: i32) -> bool {
    entry(fd).is_some_and(|entry| entry.load(Ordering::Relaxed) != 0)
}

/// The queue descriptor `fd`, if this process knows it as one.
#[inline(always)]
pub fn known(fd: i32) -> Option<Descriptor> {
    let slot = entry(fd)?;
    if slot.load(Ordering::Relaxed) == 0 {
        return None;
    }
    known_by(tls::ready().ok()?, fd, slot)
}

#[inline(always)]
fn known_by(tls: &'static Tls, fd: i32, slot: &AtomicU64) -> Option<Descriptor> {
    let hazard = tls.hazard();
    let outer = hazard.at.load(Ordering::Relaxed);
    loop {
        let entry = slot.load(Ordering::Acquire);
        if entry == 0 {
            hazard.set(outer);
            return None;
        }
        // First say so, then look again: whoever takes the mapping away clears the entry first and
        // reads the record after a barrier of all threads.
        hazard.set((entry & ADDRESS) as usize);
        if slot.load(Ordering::Acquire) == entry {
            // SAFETY: the entry holds the address of a mapping, which stays while the record says so.
            return Some(Descriptor { fd, map: unsafe { &*((entry & ADDRESS) as *const Map) }, entry, hazard, outer });
        }
    }
}

/// The same, asking the kernel where nothing is known. `None`: not a message queue descriptor of
/// ours.
///
/// # Errors
///
/// EMFILE, ENFILE, ENOMEM: that cannot be found out now. It is no EBADF: the descriptor may be good.
#[inline(always)]
pub fn find(tls: &'static Tls, fd: i32) -> Result<Option<Descriptor>> {
    if let Some(slot) = entry(fd)
        && let Some(descriptor) = known_by(tls, fd, slot)
    {
        return Ok(Some(descriptor));
    }
    try_to_identify(tls, fd)
}

impl Descriptor {
    /// `O_RDONLY`, `O_WRONLY`, `O_RDWR` or 3.
    #[inline(always)]
    pub fn access(&self) -> u32 {
        (self.entry & ACCESS) as u32
    }

    /// Whether it was opened with O_PATH.
    #[inline(always)]
    pub fn is_path(&self) -> bool {
        self.entry & PATH != 0
    }

    /// What F_GETFL shows of a descriptor that was opened with O_PATH: all that it was opened with.
    pub fn path_flags(&self) -> i32 {
        libc::O_PATH | (self.entry >> EPOCH_SHIFT) as i32
    }

    /// Whether it may be used to send.
    #[inline(always)]
    pub fn may_send(&self) -> bool {
        matches!(self.access(), WRITE_ONLY | READ_WRITE)
    }

    /// Whether it may be used to receive.
    #[inline(always)]
    pub fn may_receive(&self) -> bool {
        matches!(self.access(), READ_ONLY | READ_WRITE)
    }

    /// Whether O_NONBLOCK is set on the open file description. Asks the kernel only if some
    /// description of this queue has had it changed since the last time.
    #[inline(always)]
    pub fn nonblocking(&self) -> bool {
        let epoch = self.map.header().nonblock_epoch.load(Ordering::Acquire);
        if self.entry & NONBLOCK_KNOWN != 0 && (self.entry >> EPOCH_SHIFT) as u16 == epoch as u16 {
            return self.entry & NONBLOCK != 0;
        }
        self.ask_nonblocking(epoch)
    }

    #[cold]
    fn ask_nonblocking(&self, epoch: u32) -> bool {
        // SAFETY: no pointers.
        let flags = unsafe { syscall!(SYS_fcntl, self.fd, libc::F_GETFL) }.unwrap_or(0) as i32;
        let set = flags & libc::O_NONBLOCK != 0;
        let fresh = self.entry & (ADDRESS | ACCESS)
            | NONBLOCK_KNOWN
            | if set { NONBLOCK } else { 0 }
            | (epoch as u16 as u64) << EPOCH_SHIFT;
        if let Some(entry) = entry(self.fd) {
            let _ = entry.compare_exchange(self.entry, fresh, Ordering::AcqRel, Ordering::Relaxed);
        }
        set
    }

    /// O_NONBLOCK of some description of this queue may have changed.
    pub fn nonblock_changed(&self, on: bool) {
        self.map.header().nonblock_epoch.fetch_add(1, Ordering::AcqRel);
        if on && let Ok(tls) = tls::ready() {
            queue::wait::nonblocking_set(self.map, tls);
        }
    }
}

/// How the access mode is kept in a FIFO's open-time flags; O_RDWR needs none.
pub fn mode_to_flags(access: i32) -> i32 {
    let code = access ^ libc::O_RDWR;
    (if code & 1 != 0 { libc::O_DSYNC } else { 0 }) | (if code & 2 != 0 { libc::O_NOFOLLOW } else { 0 })
}

/// The reverse, from F_GETFL.
pub fn flags_to_mode(flags: i32) -> i32 {
    if flags & libc::O_ACCMODE != libc::O_RDWR {
        // Not opened by mq_open, but by way of /proc/self/fd.
        return flags & libc::O_ACCMODE;
    }
    libc::O_RDWR ^ (i32::from(flags & libc::O_DSYNC != 0) | i32::from(flags & libc::O_NOFOLLOW != 0) << 1)
}

/// `O_SYNC` without the `O_DSYNC` in it.
const O_SYNC_ONLY: i32 = libc::O_SYNC & !libc::O_DSYNC;
/// Flags that mq_open accepts, that mean nothing to a queue and that a FIFO cannot keep.
const RARE: [i32; 6] =
    [libc::O_CLOEXEC, libc::O_NOFOLLOW, libc::O_DSYNC, O_SYNC_ONLY, libc::O_NOATIME, libc::O_DIRECTORY];
/// `O_TMPFILE` comes with `O_DIRECTORY`; one number is left for it alone.
const TMPFILE_SIGNAL: i32 = 64;

/// Set by open(2), as opposed to mq_open; comes with few others.
pub const LARGEFILE: i32 = 0o100000;
/// Its place among the numbers: O_SYNC's own bit does not come without O_DSYNC's.
const LARGEFILE_SIGNAL: i32 = 0b1000;

/// Flags that mq_open accepts and F_GETFL shows, as a signal number for F_SETSIG (0..=64).
pub fn rare_to_signal(oflag: i32) -> i32 {
    if oflag & libc::O_TMPFILE == libc::O_TMPFILE {
        return TMPFILE_SIGNAL;
    }
    if oflag & LARGEFILE != 0 {
        let others = oflag & !(LARGEFILE | libc::O_SYNC);
        return LARGEFILE_SIGNAL | rare_to_signal(others);
    }
    RARE.iter().enumerate().map(|(bit, &flag)| i32::from(oflag & flag == flag) << bit).sum()
}

/// The reverse.
fn signal_to_rare(signal: i32) -> i32 {
    if signal == TMPFILE_SIGNAL {
        return libc::O_TMPFILE;
    }
    if signal & 0b1100 == LARGEFILE_SIGNAL {
        return LARGEFILE | signal_to_rare(signal & !LARGEFILE_SIGNAL);
    }
    RARE.iter().enumerate().filter(|&(bit, _)| signal >> bit & 1 == 1).map(|(_, &flag)| flag).sum()
}

/// What F_GETFL shows of a queue descriptor whose FIFO says `flags`: "oflag less O_CREAT, O_EXCL,
/// O_TRUNC, O_NOCTTY".
pub fn visible_flags(fd: i32, flags: i32) -> i32 {
    let kept = flags & (libc::O_NONBLOCK | libc::O_APPEND | libc::O_ASYNC | libc::O_NOATIME);
    // SAFETY: no pointers.
    let signal = unsafe { syscall!(SYS_fcntl, fd, abi::F_GETSIG) }.unwrap_or(0) as i32;
    flags_to_mode(flags) | kept | signal_to_rare(signal)
}

/// Whether `fd` can be entered: ENOMEM, if there is no memory for its part of the table. An unknown descriptor would be
/// a FIFO to the hooks, and read(2) would wait for ever. (Numbers beyond the table are never entered.)
pub fn make_room(fd: i32) -> Result<()> {
    if make_entry(fd).is_some() || fd as u32 as usize / CHUNK >= CHUNKS.len() { Ok(()) } else { Err(Errno::ENOMEM) }
}

/// Enters a descriptor that mq_open has made.
pub fn insert(fd: i32, map: &'static Map, access: i32, nonblocking: bool) {
    ANY.store(1, Ordering::Relaxed);
    let Some(entry) = make_entry(fd) else { return };
    let epoch = map.header().nonblock_epoch.load(Ordering::Acquire);
    maps::referred(map);
    let value = map as *const Map as u64
        | access as u64 & ACCESS
        | NONBLOCK_KNOWN
        | if nonblocking { NONBLOCK } else { 0 }
        | (epoch as u16 as u64) << EPOCH_SHIFT;
    replace(entry, value);
}

/// Enters a descriptor that mq_open has made with O_PATH.
pub fn insert_path(fd: i32, map: &'static Map, oflag: i32) {
    ANY.store(1, Ordering::Relaxed);
    let Some(entry) = make_entry(fd) else { return };
    maps::referred(map);
    let value = map as *const Map as u64 | ACCESS | PATH | (oflag as u16 as u64) << EPOCH_SHIFT;
    replace(entry, value);
}

/// Changes an entry, whose mapping has been counted for it, and takes back the count of the last.
fn replace(entry: &AtomicU64, value: u64) {
    let last = entry.swap(value, Ordering::AcqRel);
    if last != 0 {
        // SAFETY: an entry's mapping stays as long as it is counted for the entry.
        drop(maps::released(unsafe { &*((last & ADDRESS) as *const Map) }));
    }
}

/// `to` is a duplicate of `from` now (or has been closed, if `from` is none of ours).
pub fn duplicated(from: i32, to: i32) {
    let Some(descriptor) = known(from) else {
        if let Some(entry) = entry(to) {
            replace(entry, 0);
        }
        return;
    };
    if let Some(entry) = make_entry(to) {
        maps::referred(descriptor.map);
        replace(entry, descriptor.entry);
    }
}

/// `fd` is about to be closed: forgets it. What is to be done afterwards is [`Closed::finish`]ed.
#[inline(always)]
pub fn forget(fd: i32) -> Option<Closed> {
    let entry = entry(fd)?;
    if entry.load(Ordering::Relaxed) == 0 {
        return None;
    }
    let value = entry.swap(0, Ordering::AcqRel);
    if value == 0 {
        return None;
    }
    // SAFETY: an entry's mapping stays as long as it is counted for the entry, which `finish` undoes.
    Some(Closed { map: unsafe { &*((value & ADDRESS) as *const Map) }, path: value & PATH != 0 })
}

/// A descriptor that was one of ours.
pub struct Closed {
    map: &'static Map,
    path: bool,
}

impl Closed {
    /// After the close: the queue goes if it was the last descriptor and the name is gone.
    #[cold]
    pub fn finish(self, tls: &'static Tls) {
        crate::crash_point!("close.closed");
        let flags = self.map.header().flags.load(Ordering::Acquire);
        // To the kernel a descriptor of O_PATH is none of the queue's.
        if !self.path && (flags & F_NOTIFY != 0 || notify::any()) {
            notify::closed(self.map, tls);
        }
        crate::crash_point!("close.unregistered");
        let pinned = maps::released(self.map);
        if flags & F_UNLINKED != 0 && flags & F_DEAD == 0 {
            ns::queues::destroy_if_unused(tls, &pinned);
        } else if let Ok(place) = ns::Place::of(pinned.place.load(Ordering::Relaxed))
            && place.is_dead()
        {
            ns::life::release(place);
        }
        maps::tidy(tls, pinned);
    }
}

/// Finds out whether a descriptor that came from elsewhere (exec, SCM_RIGHTS, a raw call) is a
/// queue's FIFO: by the place where the kernel says it lies, and the segment beside it.
#[cold]
pub fn identify(tls: &'static Tls, fd: i32) -> Option<Descriptor> {
    try_to_identify(tls, fd).ok().flatten()
}

/// The same.
///
/// # Errors
///
/// As [`find`].
#[cold]
fn try_to_identify(tls: &'static Tls, fd: i32) -> Result<Option<Descriptor>> {
    let Ok(st) = stat_fd(fd) else { return Ok(None) };
    if st.st_mode & libc::S_IFMT == libc::S_IFREG && crate::vfs::any() && crate::vfs::is_device(st.st_dev) {
        return Ok(crate::vfs::ops::convert(tls, fd, &st).and_then(|()| known(fd)));
    }
    if st.st_mode & libc::S_IFMT != libc::S_IFIFO {
        return Ok(None);
    }
    // SAFETY: no pointers.
    let Ok(flags) = (unsafe { syscall!(SYS_fcntl, fd, libc::F_GETFL) }) else { return Ok(None) };
    let flags = flags as i32;
    let map = match map_of_fifo(tls, fd, &st) {
        Err(errno @ (Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM)) => return Err(errno),
        Err(_) => return Ok(None),
        Ok(map) => map,
    };
    // Without an entry it would be as good as none.
    make_room(fd)?;
    if flags & libc::O_PATH != 0 {
        insert_path(fd, map.map(), flags);
    } else {
        insert(fd, map.map(), flags_to_mode(flags), flags & libc::O_NONBLOCK != 0);
    }
    Ok(known(fd))
}

fn map_of_fifo(tls: &'static Tls, fd: i32, st: &libc::stat) -> Result<Pinned> {
    // DIR/q/x/KEY.p, or KEY.d once the name is gone.
    let path = Path::of_descriptor(fd)?;
    let bytes = path.as_bytes();
    let dir_len = bytes.len().checked_sub(b"/q/x/".len() + 34).ok_or(Errno::EBADF)?;
    let (dir, rest) = bytes.split_at(dir_len);
    let digits = rest.strip_prefix(b"/q/x/").and_then(|r| r.strip_suffix(b".p").or(r.strip_suffix(b".d")));
    let mut key = [0u64; 2];
    for (at, &digit) in digits.ok_or(Errno::EBADF)?.iter().enumerate() {
        let value = (digit as char).to_digit(16).ok_or(Errno::EBADF)?;
        key[at / 16] = key[at / 16] << 4 | value as u64;
    }
    let place = match ns::place(tls, dir) {
        // Opened in a mount namespace that is no more: the path is one within the file system.
        Err(Errno::ENOENT) => ns::place(tls, ns::life::directory_of_name(dir)?.as_bytes())?,
        other => other?,
    };
    // Known under its inode, if at all; the key tells whether it is the same.
    let map = match maps::find_key(tls, &place, Key(key)) {
        Some(map) => map,
        None => ns::queues::map_key(tls, place.place(), Key(key))?,
    };
    if map.fifo_ino != st.st_ino || map.dev != st.st_dev {
        return Err(Errno::EBADF);
    }
    Ok(map)
}

/// Marks the queue as used from several pid namespaces, if this process is in another one than its
/// creator.
pub fn note_pid_namespace(map: &Map) {
    let h = map.header();
    if h.pid_ns.load(Ordering::Relaxed) != crate::sys::pid_namespace() {
        h.flags.fetch_or(F_MIXED_PIDS, Ordering::Relaxed);
    }
}

/// Has the packets of the FIFO follow the queue, because somebody is about to poll `fd`.
#[inline(always)]
pub fn about_to_poll(fd: i32, edge: bool) {
    if let Some(descriptor) = known(fd)
        && !descriptor.is_path()
        && let Ok(tls) = tls::ready()
    {
        let _ = queue::poll::watch(descriptor.map, tls, fd, edge);
    }
}

/// A descriptor has come from elsewhere (SCM_RIGHTS, exec): whatever was known under the number
/// before is void; if it looks like a queue's FIFO, which is opened O_RDWR and in packet mode,
/// finds out.
pub fn arrived(fd: i32) {
    if let Some(entry) = entry(fd)
        && entry.load(Ordering::Relaxed) != 0
    {
        replace(entry, 0);
    }
    // SAFETY: no pointers.
    let flags = unsafe { syscall!(SYS_fcntl, fd, libc::F_GETFL) }.unwrap_or(0) as i32;
    let ours = libc::O_RDWR | libc::O_DIRECT;
    if (flags & (libc::O_ACCMODE | libc::O_DIRECT) == ours || flags & libc::O_PATH != 0)
        && let Ok(tls) = tls::ready()
    {
        identify(tls, fd);
    }
}

/// Whether this process has ever had a queue descriptor.
#[inline(always)]
pub fn any() -> bool {
    ANY.load(Ordering::Relaxed) != 0
}

static ANY: AtomicU64 = AtomicU64::new(0);

/// The lowest known queue descriptor from `first` to `last`.
pub fn next_known(first: u32, last: u32) -> Option<i32> {
    if !any() {
        return None;
    }
    let mut fd = first as usize;
    while fd <= last as usize {
        let chunk = CHUNKS.get(fd / CHUNK)?.load(Ordering::Acquire);
        if chunk.is_null() {
            fd = (fd / CHUNK + 1) * CHUNK;
        } else if entry(fd as i32).is_some_and(|entry| entry.load(Ordering::Relaxed) != 0) {
            return Some(fd as i32);
        } else {
            fd += 1;
        }
    }
    None
}

/// Whether a queue may be gone with its last descriptor: its name is, or its namespace.
fn is_passing(map: &Map) -> bool {
    map.header().flags.load(Ordering::Relaxed) & F_UNLINKED != 0
        || ns::Place::of(map.place.load(Ordering::Relaxed)).is_ok_and(ns::Place::is_dead)
}

/// Whether such a queue is among the known descriptors.
pub fn any_passing() -> bool {
    let mut from = 0;
    while let Some(fd) = next_known(from, u32::MAX) {
        from = fd as u32 + 1;
        if known(fd).is_some_and(|d| is_passing(d.map)) {
            return true;
        }
    }
    false
}

/// Closes the descriptors of such queues: the process is ending.
pub fn close_passing() {
    let mut from = 0;
    while let Some(fd) = next_known(from, u32::MAX) {
        from = fd as u32 + 1;
        if known(fd).is_some_and(|d| is_passing(d.map))
            && let Some(closed) = forget(fd)
            && let Ok(tls) = tls::ready()
        {
            // SAFETY: no pointers; nobody will use the descriptor any more.
            let _ = unsafe { syscall!(SYS_close, fd) };
            closed.finish(tls);
        }
    }
}
