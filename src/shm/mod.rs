//! Segments: one file per queue, mapped by everybody who uses the queue.
//!
//! [`Map`] is the only owner of a base address. It hands out references to the atomics of
//! `layout`, and data pointers, for indexes it has checked; the sizes come from the attributes as
//! read once, at mapping time, never again from shared memory.

pub mod gone;
pub mod layout;
pub mod lock;

use crate::abi::{Errno, HARD_MSGMAX, HARD_MSGSIZEMAX, Result};
use crate::machine::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::syscall;
use layout::{FORMAT, Group, Header, Layout, MAGIC, NONE, RECORD_UNIT, Record, Slot, Waiter};

/// A mapped segment. Process-private; lives at a fixed address until [`Map::unmap`].
#[repr(C, align(64))]
pub struct Map {
    base: *mut u8,
    len: usize,
    /// `mq_maxmsg`.
    pub maxmsg: u32,
    /// `mq_msgsize`, bytes.
    pub msgsize: u32,
    slots: u32,
    waiters: u32,
    stride: usize,
    slots_at: *mut u8,
    /// Minus `maxmsg` slots, so that the index needs no correction.
    spare_slots_at: *mut u8,
    data_at: *mut u8,
    /// Minus `maxmsg` strides.
    spare_data_at: *mut u8,
    groups_at: *mut u8,
    waiters_at: *mut u8,
    /// Where the files of the queue lie: an index of `ns`'s directories.
    pub place: AtomicUsize,
    /// Inode of the queue's file.
    pub ino: u64,
    /// The number under which its segment and FIFO lie.
    pub key: crate::ns::queues::Key,
    /// Device and inode of the FIFO.
    pub dev: u64,
    /// See `dev`.
    pub fifo_ino: u64,
    /// Descriptors of this process that refer to the queue.
    pub fds: AtomicU32,
    /// Calls asleep in the queue, which need the mapping when they wake.
    pub pins: AtomicU32,
    /// Its entry in [`gone`], which replaces the mapping by zeros when an access finds no memory behind it
    /// (truncated, or the file system full).
    noted: usize,
    ring_at: *mut u8,
    /// Bytes of the ring of those who tap.
    pub ring_len: u64,
}

// SAFETY: the pointers lead into a shared mapping of which only atomics and raw bytes are
// accessed; the other fields are atomics or never change.
unsafe impl Sync for Map {}
// SAFETY: as above.
unsafe impl Send for Map {}

impl Map {
    /// Describes a segment of `len` bytes mapped at `base`.
    fn describe(base: *mut u8, layout: &Layout) -> Map {
        let at = |offset: u64| base.wrapping_add(offset as usize);
        let maxmsg = layout.maxmsg as usize;
        let stride = layout.stride as usize;
        Map {
            base,
            len: layout.len as usize,
            maxmsg: layout.maxmsg,
            msgsize: layout.msgsize,
            slots: layout.slots,
            waiters: layout::WAITERS,
            stride,
            slots_at: at(layout.slots_at),
            spare_slots_at: at(layout.spare_slots_at).wrapping_sub(maxmsg * size_of::<Slot>()),
            data_at: at(layout.data_at),
            spare_data_at: at(layout.spare_data_at).wrapping_sub(maxmsg * stride),
            groups_at: at(layout.groups_at),
            waiters_at: at(layout.waiters_at),
            place: AtomicUsize::new(0),
            ino: 0,
            key: crate::ns::queues::Key([0; 2]),
            dev: 0,
            fifo_ino: 0,
            fds: AtomicU32::new(0),
            pins: AtomicU32::new(0),
            noted: gone::note(base as usize, layout.len as usize, gone::Kind::Segment),
            ring_at: at(layout.ring_at),
            ring_len: layout.ring_len,
        }
    }

    /// Maps the segment file open as `fd` and fills in the header of a new queue. The file has
    /// been made `Layout::len` bytes long and is all zeros; nobody else knows it yet.
    ///
    /// # Errors
    ///
    /// ENOMEM, ENOSPC: no address space, or no memory for the first page.
    pub fn create(fd: i32, layout: &Layout, queue_id: u64) -> Result<Map> {
        let base = map_shared(fd, layout.len as usize)?;
        let map = Map::describe(base, layout);
        if let Err(errno) = map.commit(0, size_of::<Header>()) {
            map.unmap();
            return Err(errno);
        }
        let h = map.header();
        h.magic.store(MAGIC, Ordering::Relaxed);
        h.queue_id.store(queue_id, Ordering::Relaxed);
        h.maxmsg.store(layout.maxmsg, Ordering::Relaxed);
        h.msgsize.store(layout.msgsize, Ordering::Relaxed);
        for index in [&h.free, &h.waiter_free, &h.receivers.head, &h.receivers.tail, &h.senders.head, &h.senders.tail] {
            index.store(NONE, Ordering::Relaxed);
        }
        Ok(map)
    }

    /// Declares a created segment complete. SYNC: publish_segment.
    pub fn publish(&self) {
        self.header().format.store(FORMAT, Ordering::Release);
    }

    /// Maps the segment file open as `fd`, `file_len` bytes long, made by somebody else.
    ///
    /// # Errors
    ///
    /// EIO: not a complete segment of this version, or shorter than its attributes demand.
    /// ENOMEM: no address space.
    pub fn open(fd: i32, file_len: u64) -> Result<Map> {
        if file_len < size_of::<Header>() as u64 {
            return Err(Errno::EIO);
        }
        // The attributes are read through the file, not a mapping: a page that is gone is then an
        // error, not a signal.
        let head = Map::head(fd).ok_or(Errno::EIO)?;
        let (maxmsg, msgsize) = (head[3] as u32, (head[3] >> 32) as u32);
        if !(1..=HARD_MSGMAX).contains(&maxmsg) || !(1..=HARD_MSGSIZEMAX).contains(&msgsize) {
            return Err(Errno::EIO);
        }
        let layout = Layout::new(maxmsg, msgsize);
        if file_len < layout.len {
            return Err(Errno::EIO);
        }
        let base = map_shared(fd, layout.len as usize)?;
        Ok(Map { ino: head[4], fifo_ino: head[5], ..Map::describe(base, &layout) })
    }

    /// The first words of a complete segment of this version.
    fn head(fd: i32) -> Option<[u64; 6]> {
        const _: () =
            assert!(core::mem::offset_of!(Header, ino) == 32 && core::mem::offset_of!(Header, fifo_ino) == 40);
        let mut head = [0u64; 6];
        // SAFETY: the buffer is as long as said.
        let got = unsafe { syscall!(SYS_pread64, fd, head.as_mut_ptr(), size_of_val(&head), 0).ok()? };
        (got == size_of_val(&head) && head[0] == MAGIC && head[1] == FORMAT).then_some(head)
    }

    /// Whose segment a file says that it is, by the inode of the queue's file, if it is a segment.
    pub fn queue_of(fd: i32) -> Option<u64> {
        Map::head(fd).map(|head| head[4])
    }

    /// A segment in anonymous shared memory, for tests of the engine.
    #[cfg(test)]
    pub fn anonymous(maxmsg: u32, msgsize: u32) -> Map {
        let (map, fd) = Map::of_file(maxmsg, msgsize);
        // SAFETY: ours.
        unsafe { syscall!(SYS_close, fd).unwrap() };
        map
    }

    /// The same, and the descriptor of the file.
    #[cfg(test)]
    pub fn of_file(maxmsg: u32, msgsize: u32) -> (Map, i32) {
        let layout = Layout::new(maxmsg, msgsize);
        // SAFETY: a name and flags; then a length.
        let fd = unsafe {
            let fd = syscall!(SYS_memfd_create, c"mqns-test".as_ptr(), 1).unwrap();
            syscall!(SYS_ftruncate, fd, layout.len).unwrap();
            fd as i32
        };
        let map = Map::create(fd, &layout, 1).unwrap();
        map.publish();
        (map, fd)
    }

    /// The same without the file, between pages that nobody may touch: an access beyond either end is a crash.
    #[cfg(test)]
    pub fn guarded(maxmsg: u32, msgsize: u32) -> Map {
        const GUARD: usize = 16 << 20;
        let (map, fd) = Map::of_file(maxmsg, msgsize);
        gone::forget(map.noted);
        let layout = Layout::new(maxmsg, msgsize);
        let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh mapping without access, in the middle of which the file is mapped instead.
        let base = unsafe {
            syscall!(SYS_munmap, map.base, map.len).unwrap();
            let at = syscall!(SYS_mmap, 0, map.len + 2 * GUARD, libc::PROT_NONE, anonymous, usize::MAX, 0).unwrap();
            let shared = libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_NORESERVE;
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let base = syscall!(SYS_mmap, at + GUARD, map.len, access, shared, fd, 0).unwrap();
            syscall!(SYS_close, fd).unwrap();
            base as *mut u8
        };
        Map::describe(base, &layout)
    }

    /// Bytes mapped.
    #[cfg(test)]
    pub fn byte_len(&self) -> u64 {
        self.len as u64
    }

    /// Takes the mapping away. No thread may be using it.
    pub fn unmap(&self) {
        gone::forget(self.noted);
        // SAFETY: `base` and `len` are those of our mapping; the caller vouches that it is unused.
        let _ = unsafe { syscall!(SYS_munmap, self.base, self.len) };
    }

    /// Whether an address lies in the mapping.
    pub fn contains(&self, address: usize) -> bool {
        address.wrapping_sub(self.base as usize) < self.len
    }

    /// The first page.
    #[inline(always)]
    pub fn header(&self) -> &Header {
        // SAFETY: the mapping is longer than a header, page-aligned, and consists of atomics only.
        unsafe { &*(self.base as *const Header) }
    }

    /// The number of slots, spare ones included.
    #[inline(always)]
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// Slot `index`, or EIO: shared memory said a number that no slot has.
    #[inline(always)]
    pub fn slot(&self, index: u32) -> Result<&Slot> {
        if index >= self.slots {
            return Err(Errno::EIO);
        }
        let base = if index < self.maxmsg { self.slots_at } else { self.spare_slots_at };
        // SAFETY: `index` is below the number of slots for which the layout has room.
        Ok(unsafe { &*(base.wrapping_add(index as usize * size_of::<Slot>()) as *const Slot) })
    }

    /// Where the message of slot `index` lies: `msgsize` bytes.
    #[inline(always)]
    pub fn data(&self, index: u32) -> Result<*mut u8> {
        if index >= self.slots {
            return Err(Errno::EIO);
        }
        let base = if index < self.maxmsg { self.data_at } else { self.spare_data_at };
        Ok(base.wrapping_add(index as usize * self.stride))
    }

    /// Group `index` (0..512) of the priority index.
    #[inline(always)]
    pub fn group(&self, index: u32) -> &Group {
        let index = index as usize & (layout::GROUPS as usize - 1);
        // SAFETY: the layout has room for 512 groups.
        unsafe { &*(self.groups_at.wrapping_add(index * size_of::<Group>()) as *const Group) }
    }

    /// Waiter record `index`, or EIO.
    #[inline(always)]
    pub fn waiter(&self, index: u32) -> Result<&Waiter> {
        if index >= self.waiters {
            return Err(Errno::EIO);
        }
        // SAFETY: `index` is below the number of records for which the layout has room.
        Ok(unsafe { &*(self.waiters_at.wrapping_add(index as usize * size_of::<Waiter>()) as *const Waiter) })
    }

    /// The record at a position of the ring.
    pub fn record(&self, position: u64) -> &Record {
        let at = position % self.ring_len / RECORD_UNIT * RECORD_UNIT;
        // SAFETY: the ring's length is a multiple of the unit, in which a record fits; its beginning is aligned to
        // a page.
        unsafe { &*(self.ring_at.wrapping_add(at as usize) as *const Record) }
    }

    /// Where `len` bytes at a position of the ring lie, at most as many as it has: where it ends they go on at its
    /// beginning.
    pub fn ring(&self, position: u64, len: u32) -> [(*mut u8, usize); 2] {
        let at = position % self.ring_len;
        let first = (self.ring_len - at).min(len.into());
        let second = (u64::from(len) - first).min(self.ring_len);
        [(self.ring_at.wrapping_add(at as usize), first as usize), (self.ring_at, second as usize)]
    }

    /// Makes sure that there is memory behind the ring up to what `size` bytes at a position take, under the lock.
    pub fn commit_ring(&self, position: u64, size: u64) -> Result<()> {
        let end = (position % self.ring_len + size).min(self.ring_len);
        let committed = &self.header().taps.committed;
        let from = committed.load(Ordering::Relaxed).min(self.ring_len);
        if end <= from {
            return Ok(());
        }
        let to = (end.max(from + (1 << 16)) & !4095).max(end).min(self.ring_len);
        self.commit(self.ring_at as usize - self.base as usize + from as usize, (to - from) as usize)?;
        committed.store(to, Ordering::Relaxed);
        Ok(())
    }

    /// Gives the ring's memory back, under the lock: nobody taps.
    pub fn release_ring(&self) {
        self.header().taps.committed.store(0, Ordering::Relaxed);
        // SAFETY: inside our own mapping.
        let _ = unsafe { syscall!(SYS_madvise, self.ring_at, self.ring_len, libc::MADV_REMOVE) };
    }

    /// Makes sure that there is memory behind the group's page (under the lock, before a group's
    /// first use), so that a full file system is an error and not a SIGBUS.
    #[inline(always)]
    pub fn commit_group(&self, index: u32) -> Result<()> {
        let from = (self.groups_at as usize - self.base as usize) + index as usize * size_of::<Group>();
        let first = from / 4096 - (self.groups_at as usize - self.base as usize) / 4096;
        let last = (from + size_of::<Group>() - 1) / 4096 - (self.groups_at as usize - self.base as usize) / 4096;
        let bits = 1u64 << first | 1u64 << last;
        let committed = &self.header().groups_committed;
        if committed.load(Ordering::Relaxed) & bits == bits {
            return Ok(());
        }
        self.commit(from, size_of::<Group>())?;
        committed.fetch_or(bits, Ordering::Relaxed);
        Ok(())
    }

    /// The same for a slot that was never used before.
    #[inline(always)]
    pub fn commit_slot(&self, index: u32) -> Result<()> {
        let slot = self.slot(index)? as *const Slot as usize - self.base as usize;
        if index == 0 || index == self.maxmsg || slot % 4096 < size_of::<Slot>() {
            self.commit(slot, size_of::<Slot>())?;
        }
        Ok(())
    }

    /// The same for a waiter record that was never used before.
    pub fn commit_waiter(&self, index: u32) -> Result<()> {
        let waiter = self.waiter(index)? as *const Waiter as usize - self.base as usize;
        if waiter.is_multiple_of(4096) { self.commit(waiter, size_of::<Waiter>()) } else { Ok(()) }
    }

    /// The same for the first `len` bytes of a slot's data.
    #[inline(always)]
    pub fn commit_data(&self, slot: &Slot, index: u32, len: u32) -> Result<()> {
        if len <= slot.committed.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.commit_data_slow(slot, index, len)
    }

    #[cold]
    fn commit_data_slow(&self, slot: &Slot, index: u32, len: u32) -> Result<()> {
        let from = self.data(index)? as usize - self.base as usize;
        if index < self.maxmsg && self.stride <= 4096 {
            // Many slots share a page: remember how far the area is committed, and grow it by an
            // eighth, so that filling a queue is not one system call a page.
            let area = self.data_at as usize - self.base as usize;
            let end = from - area + self.stride;
            let committed = self.header().committed.load(Ordering::Relaxed) as usize;
            if end > committed {
                let whole = self.maxmsg as usize * self.stride;
                let ahead = (committed / 8).min(1 << 20);
                let to = (end + ahead).min(whole).max(end);
                let start = committed.min(end);
                if self.commit(area + start, to - start).is_err() {
                    self.commit(area + start, end - start)?;
                    self.header().committed.store(end as u64, Ordering::Relaxed);
                } else {
                    self.header().committed.store(to as u64, Ordering::Relaxed);
                }
            }
            slot.committed.store(self.stride as u32, Ordering::Relaxed);
        } else {
            self.commit(from, len as usize)?;
            // Up to the end of the page, but never into the next slot's claim.
            let end = (from + len as usize).next_multiple_of(4096) - from;
            slot.committed.store(end.min(self.stride) as u32, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Has the kernel put memory behind part of the mapping, at once.
    ///
    /// # Errors
    ///
    /// ENOSPC: the file system is full. ENOMEM: no memory.
    fn commit(&self, offset: usize, len: usize) -> Result<()> {
        let from = offset & !4095;
        let to = (offset + len).next_multiple_of(4096).min(self.len);
        // SAFETY: inside our own mapping.
        match unsafe { syscall!(SYS_madvise, self.base.wrapping_add(from), to - from, libc::MADV_POPULATE_WRITE) } {
            Ok(_) => Ok(()),
            // A page that would raise SIGBUS: no room.
            Err(Errno::EFAULT) => Err(Errno::ENOSPC),
            // A kernel without it (before 5.14): touch the pages by copies that survive SIGBUS.
            Err(Errno::EINVAL) => {
                for page in (from..to).step_by(4096) {
                    let at = self.base.wrapping_add(page);
                    // SAFETY: inside our own mapping; tmpfs puts memory behind a page that is read.
                    unsafe { crate::sys::fault::read_user(at) }.map_err(|_| Errno::ENOSPC)?;
                }
                Ok(())
            }
            Err(errno) => Err(errno),
        }
    }

    /// Gives the memory of a dead queue back, all but the header's page; later accesses see zeros.
    /// Little is left to go with the last mapping.
    pub fn release_memory(&self) {
        let used = self.header().high.load(Ordering::Relaxed) as usize * self.stride;
        if used <= 1 << 16 {
            return;
        }
        // SAFETY: inside our own mapping.
        let _ = unsafe { syscall!(SYS_madvise, self.base.wrapping_add(4096), self.len - 4096, libc::MADV_REMOVE) };
    }

    /// Notes the name under which the queue is created. Before [`Map::publish`].
    pub fn set_name(&self, name: &[u8]) {
        let len = name.len().min(crate::abi::NAME_MAX);
        let to = self.base.wrapping_add(core::mem::offset_of!(Header, name));
        // SAFETY: the header has room for NAME_MAX bytes; nobody else knows the segment yet.
        unsafe { core::ptr::copy_nonoverlapping(name.as_ptr(), to, len) };
        self.header().name_len.store(len as u32, Ordering::Relaxed);
    }

    /// The name under which the queue was created, without the slash; how long it is. It is input: whatever the
    /// segment holds is taken once.
    pub fn name(&self, buffer: &mut [u8; crate::abi::NAME_MAX]) -> usize {
        let h = self.header();
        let len = (h.name_len.load(Ordering::Relaxed) as usize).min(buffer.len());
        // SAFETY: the header has room for NAME_MAX bytes.
        unsafe { core::ptr::copy_nonoverlapping((&raw const h.name).cast::<u8>(), buffer.as_mut_ptr(), len) };
        len
    }

    /// A number that no other queue has.
    pub fn queue_id(&self) -> &AtomicU64 {
        &self.header().queue_id
    }
}

/// Has the CPU fetch the cache line of `at` for writing while it goes on. A hint; any address will do.
#[inline(always)]
pub fn prefetch_for_write<T>(at: &T) {
    let at = &raw const *at;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: prefetches change nothing and never fault.
    unsafe {
        core::arch::asm!("prefetchw [{}]", in(reg) at, options(nostack, preserves_flags, readonly))
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        core::arch::asm!("prfm pstl1keep, [{}]", in(reg) at, options(nostack, preserves_flags, readonly))
    }
}

fn map_shared(fd: i32, len: usize) -> Result<*mut u8> {
    // SAFETY: a new mapping at an address of the kernel's choice.
    let at = unsafe {
        syscall!(SYS_mmap, 0, len, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_NORESERVE, fd, 0)?
    };
    Ok(at as *mut u8)
}
