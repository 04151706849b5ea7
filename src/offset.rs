//! File offsets of queue descriptors, as read(2) and lseek(2) know them.
//!
//! A FIFO has none, so they are kept here: each open file description gets a [`Cell`] in anonymous
//! shared memory, which dup and fork share. A table says which cell belongs to which descriptor.
//! A cell is reused once its maker has closed every descriptor that uses it; a fork child that
//! still has one finds by the cell's number of uses that the offset is lost.
//!
//! DEVIATION: an offset does not follow exec or SCM_RIGHTS; there it begins at 0 again, as it does
//! for a child's descriptor after its parent has closed its own. Nobody seeks in a queue's text.
//!
//! What is in a cell is input: a relative may write anything there. Async-signal-safe.

use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicI64, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize};

use crate::abi::{Errno, Result};
use crate::syscall;

/// One open file description.
#[repr(C)]
pub struct Cell {
    /// The offset, bytes.
    pub offset: AtomicI64,
    /// How often the cell has been given out.
    uses: AtomicU32,
    /// Descriptors of its maker that use it; 0: free. In other processes nobody counts.
    users: AtomicU32,
}
const _: () = assert!(size_of::<Cell>() == 16);

const CELLS: usize = 255;
/// A page of cells.
#[repr(C)]
struct Page {
    /// Generation of the process that has made the page (`sys::tls`), which alone gives out its
    /// cells: along a line of descent no two processes have the same.
    maker: AtomicU64,
    pad: AtomicU64,
    cells: [Cell; CELLS],
}
const _: () = assert!(size_of::<Page>() == 4096);

/// The pages of this process. A child has copies of the pointers, and replaces them as it needs
/// pages of its own; the pages themselves stay mapped.
static PAGES: [AtomicPtr<Page>; 256] = [const { AtomicPtr::new(core::ptr::null_mut()) }; 256];
/// Where the last cell was found or freed: page * CELLS + cell.
static HINT: AtomicUsize = AtomicUsize::new(0);

/// An entry of the table: address of the cell, and the low bits of its `uses`; 0: no cell.
const ADDRESS: u64 = 0x0000_ffff_ffff_fff0;
const USES_SHIFT: u32 = 48;

const CHUNK: usize = 1024;
type Chunk = [AtomicU64; CHUNK];
/// For the first descriptors, which are all that most programs have.
static FIRST: Chunk = [const { AtomicU64::new(0) }; CHUNK];
static MORE: [AtomicPtr<Chunk>; 1024] = [const { AtomicPtr::new(core::ptr::null_mut()) }; 1024];

fn map(flags: i32) -> Result<usize> {
    const { assert!(size_of::<Chunk>() == 8192) };
    let len = if flags == libc::MAP_SHARED { size_of::<Page>() } else { size_of::<Chunk>() };
    // SAFETY: a fresh mapping.
    unsafe {
        syscall!(SYS_mmap, 0, len, libc::PROT_READ | libc::PROT_WRITE, flags | libc::MAP_ANONYMOUS, usize::MAX, 0)
    }
}

/// Publishes a fresh mapping in `slot`, which held `seen`; whoever comes second takes the first's.
fn publish<T>(slot: &AtomicPtr<T>, seen: *mut T, fresh: usize) -> *mut T {
    match slot.compare_exchange(seen, fresh as *mut T, AcqRel, Acquire) {
        Ok(_) => fresh as *mut T,
        Err(other) => {
            // SAFETY: nobody else has seen it.
            let _ = unsafe { syscall!(SYS_munmap, fresh, size_of::<T>()) };
            other
        }
    }
}

fn entry(fd: i32, make: bool) -> Option<&'static AtomicU64> {
    let fd = fd as u32 as usize;
    if let Some(entry) = FIRST.get(fd) {
        return Some(entry);
    }
    let slot = MORE.get(fd / CHUNK)?;
    let mut chunk = slot.load(Acquire);
    if chunk.is_null() {
        if !make {
            return None;
        }
        chunk = publish(slot, core::ptr::null_mut(), map(libc::MAP_PRIVATE).ok()?);
    }
    // SAFETY: a chunk, once published, stays; the index is below its length.
    Some(unsafe { &(&*chunk)[fd % CHUNK] })
}

/// The cell of an entry, unless it has been given to another description since.
fn cell(entry: u64) -> Option<&'static Cell> {
    let at = (entry & ADDRESS) as *const Cell;
    // SAFETY: entries hold 0 or addresses of cells, whose pages stay mapped.
    let cell = unsafe { at.as_ref()? };
    (cell.uses.load(Relaxed) as u16 as u64 == entry >> USES_SHIFT).then_some(cell)
}

/// Whether this process counts the users of a cell.
fn is_own(cell: &Cell) -> bool {
    let page = (cell as *const Cell as usize & !4095) as *const Page;
    // SAFETY: a cell lies in a page, which stays mapped.
    unsafe { (*page).maker.load(Relaxed) == crate::sys::tls::generation() }
}

/// Gives out a cell, with offset 0. Only in a process that `sys::tls` has set up.
fn take() -> Result<&'static Cell> {
    let generation = crate::sys::tls::generation();
    let hint = HINT.load(Relaxed) % (PAGES.len() * CELLS);
    for turn in 0..=PAGES.len() {
        let at = (hint / CELLS + turn) % PAGES.len();
        let slot = &PAGES[at];
        let mut page = slot.load(Acquire);
        // SAFETY: pages, once published, stay mapped.
        if unsafe { page.as_ref() }.is_none_or(|page| page.maker.load(Relaxed) != generation) {
            let fresh = map(libc::MAP_SHARED)?;
            // SAFETY: ours alone until it is published; all of it is atomics.
            unsafe { (*(fresh as *const Page)).maker.store(generation, Relaxed) };
            page = publish(slot, page, fresh);
        }
        // SAFETY: as above.
        let cells = unsafe { &(*page).cells };
        let from = if turn == 0 { hint % CELLS } else { 0 };
        for (index, cell) in cells.iter().enumerate().skip(from) {
            if cell.users.load(Relaxed) == 0 && cell.users.compare_exchange(0, 1, Acquire, Relaxed).is_ok() {
                cell.uses.fetch_add(1, Relaxed);
                cell.offset.store(0, Relaxed);
                HINT.store(at * CELLS + index, Relaxed);
                return Ok(cell);
            }
        }
    }
    Err(Errno::ENFILE)
}

fn word(cell: &Cell) -> u64 {
    cell as *const Cell as u64 | (cell.uses.load(Relaxed) as u16 as u64) << USES_SHIFT
}

/// One user less, if the cell is this process's.
fn leave(entry: u64) {
    let Some(cell) = cell(entry).filter(|cell| is_own(cell)) else { return };
    if cell.users.fetch_update(Release, Relaxed, |n| n.checked_sub(1)) == Ok(1) {
        // The next one opened takes the same line of cache.
        let page = (cell as *const Cell as usize & !4095) as *mut Page;
        if let Some(at) = PAGES.iter().position(|slot| slot.load(Relaxed) == page) {
            HINT.store(at * CELLS + ((cell as *const Cell as usize & 4095) / size_of::<Cell>() - 1), Relaxed);
        }
    }
}

/// `fd` is a new open file description of a queue.
pub fn opened(fd: i32) {
    let Some(entry) = entry(fd, true) else { return };
    // Without memory the offset is made at its first use, or not at all.
    let last = entry.swap(take().map_or(0, word), AcqRel);
    leave(last);
}

/// `to` is a duplicate of `from` now.
pub fn duplicated(from: i32, to: i32) {
    let Some(from) = entry(from, false) else { return };
    let value = from.load(Acquire);
    if let Some(cell) = cell(value).filter(|cell| is_own(cell)) {
        cell.users.fetch_add(1, Relaxed);
    }
    if let Some(to) = entry(to, true) {
        leave(to.swap(value, AcqRel));
    }
}

/// `fd` is no queue descriptor any more.
pub fn closed(fd: i32) {
    if let Some(entry) = entry(fd, false)
        && entry.load(Relaxed) != 0
    {
        leave(entry.swap(0, AcqRel));
    }
}

/// The offset of a queue descriptor.
///
/// # Errors
///
/// ENOMEM, ENFILE: there is none yet, and no memory for it.
pub fn of(fd: i32) -> Result<&'static AtomicI64> {
    let entry = entry(fd, true).ok_or(Errno::ENOMEM)?;
    let seen = entry.load(Acquire);
    if let Some(cell) = cell(seen) {
        return Ok(&cell.offset);
    }
    let fresh = take()?;
    match entry.compare_exchange(seen, word(fresh), AcqRel, Acquire) {
        Ok(_) => Ok(&fresh.offset),
        Err(other) => {
            leave(word(fresh));
            cell(other).map(|cell| &cell.offset).ok_or(Errno::EBADF)
        }
    }
}
