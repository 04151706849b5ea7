//! The mappings of this process: one for each queue it knows, kept for a while after the last
//! close, because mapping is what opening a queue costs most.
//!
//! A mapping goes when no descriptor refers to it, no blocked call has it pinned and no thread is
//! inside an operation on it. The last is found out by hazard records (`sys::local`), so that the
//! fast path pays for it with one plain store.

use core::ops::Deref;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use crate::abi::Result;
use crate::ns::Place;
use crate::ns::queues::Key;
use crate::shm::Map;
use crate::shm::layout::F_DEAD;
use crate::sys::local::{LocalHeld, LocalLock, is_unused};
use crate::sys::tls::Tls;
use crate::syscall;

/// Mappings without descriptors that are kept.
const IDLE: usize = 64;
const BUCKETS: usize = 1024;

#[repr(C, align(64))]
struct Node {
    map: Map,
    /// The next of its bucket, or of the free list. [`LOCK`].
    next: AtomicPtr<Node>,
}

/// Protects the lists.
static LOCK: LocalLock = LocalLock::new();
static LISTS: [AtomicPtr<Node>; BUCKETS] = [const { AtomicPtr::new(core::ptr::null_mut()) }; BUCKETS];
static FREE: AtomicPtr<Node> = AtomicPtr::new(core::ptr::null_mut());
/// Mappings in the lists.
static MAPPED: AtomicUsize = AtomicUsize::new(0);
/// Those of them that some descriptor refers to.
static OPEN: AtomicUsize = AtomicUsize::new(0);

/// A mapping that stays while this exists.
pub struct Pinned(&'static Map);

impl Deref for Pinned {
    type Target = Map;
    fn deref(&self) -> &Map {
        self.0
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.0.pins.fetch_sub(1, Ordering::Release);
    }
}

impl Pinned {
    fn new(node: &'static Node) -> Pinned {
        node.map.pins.fetch_add(1, Ordering::Acquire);
        Pinned(&node.map)
    }

    /// A pin of a mapping that is pinned, in use, or referred to already.
    pub fn of(map: &'static Map) -> Pinned {
        map.pins.fetch_add(1, Ordering::Acquire);
        Pinned(map)
    }

    /// A pin that was made by [`Pinned::of`] and forgotten.
    pub fn adopt(map: &'static Map) -> Pinned {
        Pinned(map)
    }

    /// For a descriptor, which is counted by [`referred`].
    pub fn map(&self) -> &'static Map {
        self.0
    }
}

/// In a fork child: see [`LocalLock::reset`].
pub fn reset_after_fork() {
    LOCK.reset();
}

fn list(ino: u64) -> &'static AtomicPtr<Node> {
    &LISTS[ino as usize % BUCKETS]
}

/// Walks a list; the lock is held.
fn walk(_held: &LocalHeld<'_>, from: &'static AtomicPtr<Node>) -> impl Iterator<Item = &'static Node> {
    let mut at = from.load(Ordering::Relaxed);
    core::iter::from_fn(move || {
        // SAFETY: nodes in a list are complete, and are taken out only under the lock.
        let node: &'static Node = unsafe { at.as_ref()? };
        at = node.next.load(Ordering::Relaxed);
        Some(node)
    })
}

fn is_of(map: &Map, place: &Place) -> bool {
    map.place.load(Ordering::Relaxed) == place.index() && map.header().flags.load(Ordering::Relaxed) & F_DEAD == 0
}

/// The mapping of the queue whose file has inode `ino` in `place`, if this process has it; on device `dev`, where that
/// is known: the directory may have become another one, with the same numbers.
pub fn find(tls: &Tls, place: &Place, ino: u64, dev: Option<u64>) -> Option<Pinned> {
    let held = LOCK.lock(tls);
    let is_it = |map: &Map| map.ino == ino && dev.is_none_or(|dev| dev == map.dev) && is_of(map, place);
    walk(&held, list(ino)).find(|node| is_it(&node.map)).map(Pinned::new)
}

/// The same by the key, which takes longer.
pub fn find_key(tls: &Tls, place: &Place, key: Key) -> Option<Pinned> {
    let held = LOCK.lock(tls);
    LISTS
        .iter()
        .flat_map(|list| walk(&held, list))
        .find(|node| node.map.key == key && is_of(&node.map, place))
        .map(Pinned::new)
}

/// Keeps a mapping.
///
/// # Errors
///
/// ENOMEM; the mapping is gone then.
pub fn keep(tls: &'static Tls, map: Map) -> Result<Pinned> {
    match room(tls) {
        Ok(room) => Ok(room.keep(map)),
        Err(errno) => {
            map.unmap();
            Err(errno)
        }
    }
}

/// Room for a mapping, to be had before what could not be undone.
pub struct Room {
    node: *mut Node,
    tls: &'static Tls,
}

/// # Errors
///
/// ENOMEM.
pub fn room(tls: &'static Tls) -> Result<Room> {
    let held = LOCK.lock(tls);
    let node = take_node(&held);
    drop(held);
    Ok(Room { node: node?, tls })
}

impl Room {
    /// Keeps a mapping.
    pub fn keep(self, map: Map) -> Pinned {
        let node = self.node;
        let held = LOCK.lock(self.tls);
        core::mem::forget(self);
        let head = list(map.ino);
        let first = head.load(Ordering::Relaxed);
        // SAFETY: the node came from the free list or a fresh page: it is ours alone.
        unsafe { node.write(Node { map, next: AtomicPtr::new(first) }) };
        head.store(node, Ordering::Release);
        // SAFETY: as above; complete by now.
        if let Ok(place) = Place::of(unsafe { (*node).map.place.load(Ordering::Relaxed) }) {
            let _ = place.refer().keep();
        }
        MAPPED.fetch_add(1, Ordering::Relaxed);
        // SAFETY: complete, and in a list.
        let pinned = Pinned::new(unsafe { &*node });
        drop(held);
        pinned
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let held = LOCK.lock(self.tls);
        push_free(self.node);
        drop(held);
    }
}

/// A node that is in no list; carved out of pages, so that a thousand queues cost little.
fn take_node(_held: &LocalHeld<'_>) -> Result<*mut Node> {
    if FREE.load(Ordering::Relaxed).is_null() {
        // SAFETY: a fresh private mapping.
        let page = unsafe {
            syscall!(
                SYS_mmap,
                0,
                4096,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                usize::MAX,
                0
            )?
        };
        for at in 0..4096 / size_of::<Node>() {
            push_free((page + at * size_of::<Node>()) as *mut Node);
        }
    }
    let node = FREE.load(Ordering::Relaxed);
    // SAFETY: nodes in the free list have a valid `next`; the lock is held.
    FREE.store(unsafe { (*node).next.load(Ordering::Relaxed) }, Ordering::Relaxed);
    Ok(node)
}

fn push_free(node: *mut Node) {
    // SAFETY: the node is ours alone; only its `next` is written.
    unsafe { (&raw mut (*node).next).write(AtomicPtr::new(FREE.load(Ordering::Relaxed))) };
    FREE.store(node, Ordering::Relaxed);
}

/// One more descriptor refers to the mapping, which is pinned, in use, or referred to already.
pub fn referred(map: &Map) {
    if map.fds.fetch_add(1, Ordering::Relaxed) == 0 {
        OPEN.fetch_add(1, Ordering::Relaxed);
    }
}

/// One less. Returns the mapping pinned instead.
pub fn released(map: &'static Map) -> Pinned {
    map.pins.fetch_add(1, Ordering::Acquire);
    if map.fds.fetch_sub(1, Ordering::Release) == 1 {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
    Pinned(map)
}

/// Where the search for an idle mapping goes on.
static HAND: AtomicUsize = AtomicUsize::new(0);

/// An idle mapping, another one than `but`; the lock is held. In turn, so that the queue that is opened again and
/// again stays mapped, however many there are.
fn idle_one(held: &LocalHeld<'_>, but: &Map) -> Option<Pinned> {
    let is_idle = |map: &Map| map.fds.load(Ordering::Acquire) == 0 && map.pins.load(Ordering::Acquire) == 0;
    (0..BUCKETS).find_map(|_| {
        let bucket = HAND.fetch_add(1, Ordering::Relaxed) % BUCKETS;
        walk(held, &LISTS[bucket]).find(|node| is_idle(&node.map) && !core::ptr::eq(&node.map, but)).map(Pinned::new)
    })
}

/// After a close: takes the mapping away if its queue is dead, or another one if enough idle ones are kept.
#[cold]
pub fn tidy(tls: &Tls, mut pinned: Pinned) {
    let mut map = pinned.0;
    if map.fds.load(Ordering::Acquire) != 0 {
        return;
    }
    let dead = map.header().flags.load(Ordering::Relaxed) & F_DEAD != 0;
    let idle = MAPPED.load(Ordering::Relaxed).saturating_sub(OPEN.load(Ordering::Relaxed));
    if !dead && idle <= IDLE {
        return;
    }
    let held = LOCK.lock(tls);
    if !dead && let Some(other) = idle_one(&held, map) {
        pinned = other;
        map = pinned.0;
    }
    let node = (&raw const *map).cast::<Node>().cast_mut();
    // Out of its list, so that nobody finds it any more (a node is its map first).
    let mut link = list(map.ino);
    loop {
        let at = link.load(Ordering::Relaxed);
        if at == node {
            break;
        }
        // SAFETY: as in `walk`.
        match unsafe { at.as_ref() } {
            Some(other) => link = &other.next,
            // Somebody else has taken it away.
            None => return,
        }
    }
    // The pin is our own.
    if map.fds.load(Ordering::Acquire) != 0 || map.pins.load(Ordering::Acquire) != 1 {
        return;
    }
    // SAFETY: the node is in the list.
    let next = unsafe { (*node).next.load(Ordering::Relaxed) };
    link.store(next, Ordering::Relaxed);
    if !is_unused(map as *const Map as usize) || map.pins.load(Ordering::Acquire) != 1 {
        // A thread is inside: back into the list, for the next who tidies up.
        link.store(node, Ordering::Relaxed);
        return;
    }
    MAPPED.fetch_sub(1, Ordering::Relaxed);
    core::mem::forget(pinned);
    if let Ok(place) = Place::of(map.place.load(Ordering::Relaxed)) {
        place.release();
    }
    map.unmap();
    push_free(node);
    drop(held);
}
