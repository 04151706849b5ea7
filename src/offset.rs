//! File offsets of queue descriptors, as read(2) and lseek(2) know them.
//!
//! A FIFO has none, so the offset is kept as the length of a lock that belongs to the open file
//! description (F_OFD_SETLK) on the FIFO: the kernel carries it along with dup, fork, exec and
//! SCM_RIGHTS, and drops it with the last close. Each description with an offset other than 0 has a
//! slot of [`SLOT`] bytes, far out where no other lock is (`queue::notify`), and in it a write lock
//! of offset bytes. Nothing is cached; an offset costs two system calls or three, and a queue of
//! which nobody reads the text costs nothing.
//!
//! DEVIATION: offsets end at [`MAX`]; what is beyond counts as that.
//!
//! Async-signal-safe.

use crate::abi::{Errno, Result};
use crate::queue::notify::LOCK_BASE;
use crate::syscall;

/// Bytes of a slot.
const SLOT: i64 = 1 << 45;
/// Largest offset kept, bytes.
pub const MAX: i64 = SLOT - 1;
/// Where slots begin.
const START: i64 = LOCK_BASE + (1 << 61);
/// How many there are: up to the end of what fcntl(2) can lock.
const SLOTS: i64 = (i64::MAX - START) / SLOT;
/// Locks of other descriptions looked at before giving up.
const PATIENCE: usize = 256;

/// fcntl(2) with a lock of `len` bytes from `start`. For F_*GETLK: what is in the way, as first
/// byte and length.
fn lock(fd: i32, command: i32, kind: i32, start: i64, len: i64) -> Result<Option<(i64, i64)>> {
    // SAFETY: plain integers; zero is valid for all of them.
    let mut lock: libc::flock = unsafe { core::mem::zeroed() };
    lock.l_type = kind as i16;
    lock.l_whence = libc::SEEK_SET as i16;
    (lock.l_start, lock.l_len) = (start, len);
    // SAFETY: the structure is a local of the right type.
    unsafe { syscall!(SYS_fcntl, fd, command, &raw mut lock)? };
    let len = if lock.l_len == 0 { i64::MAX - lock.l_start } else { lock.l_len };
    Ok((lock.l_type != libc::F_UNLCK as i16).then_some((lock.l_start, len)))
}

/// The slot and offset of the description behind `fd`, if it has one.
fn own(fd: i32) -> Option<(i64, i64)> {
    // To a process's query (F_GETLK) every description is a stranger, the descriptor's own included;
    // to the description's (F_OFD_GETLK) only the others are. Ranges yet to be looked at:
    let mut ranges = [(0, 0); 32];
    ranges[0] = (START, SLOTS * SLOT);
    let mut left = 1;
    for _ in 0..PATIENCE {
        left = usize::checked_sub(left, 1)?;
        let (from, len) = ranges[left];
        let Some((start, locked)) = lock(fd, libc::F_GETLK, libc::F_WRLCK, from, len).ok()? else { continue };
        let is_slot = (start - START) % SLOT == 0 && locked <= MAX;
        if is_slot && lock(fd, libc::F_OFD_GETLK, libc::F_WRLCK, start, 1).ok()?.is_none() {
            // Unless it was another's, who has just closed his.
            if lock(fd, libc::F_GETLK, libc::F_WRLCK, start, 1).ok()?.is_some() {
                return Some((start, locked));
            }
            ranges[left] = (from, len);
            left += 1;
            continue;
        }
        let (end, locked_end) = (from + len, start.saturating_add(locked));
        for (from, end) in [(from, start), (locked_end, end)] {
            if from < end && left < ranges.len() {
                ranges[left] = (from, end - from);
                left += 1;
            }
        }
    }
    None
}

/// The offset of a queue descriptor, bytes.
pub fn get(fd: i32) -> i64 {
    own(fd).map_or(0, |(_, offset)| offset)
}

/// Sets it; not negative.
///
/// # Errors
///
/// ENOLCK: the kernel has no room for the lock, or somebody leaves none.
pub fn set(fd: i32, offset: i64) -> Result<()> {
    let offset = offset.min(MAX);
    let set = |kind, start, len| lock(fd, libc::F_OFD_SETLK, kind, start, len).map(|_| ());
    match own(fd) {
        Some((slot, old)) if offset < old => set(libc::F_UNLCK, slot + offset, old - offset),
        Some((slot, _)) => set(libc::F_WRLCK, slot, offset),
        None if offset == 0 => Ok(()),
        None => {
            for _ in 0..PATIENCE {
                let slot = START + (crate::ns::control::random() % SLOTS as u64) as i64 * SLOT;
                match set(libc::F_WRLCK, slot, offset) {
                    Err(Errno::EAGAIN | Errno::EACCES) => {}
                    other => return other,
                }
            }
            Err(Errno(libc::ENOLCK))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::path::{Fd, Path};

    #[test]
    fn each_description_has_its_own_offset() {
        let name = std::format!("{}/mqns-offset-{}", std::env::temp_dir().display(), std::process::id());
        let path = Path::new(&[name.as_bytes()]).unwrap();
        path.make_fifo(0o600).unwrap();
        let fds: Vec<Fd> = (0..20).map(|_| path.open(libc::O_RDWR, 0).unwrap()).collect();
        path.unlink().unwrap();
        for turn in [1, 3, 2, 0, MAX + 1, 5] {
            for (n, fd) in fds.iter().enumerate() {
                set(fd.0, n as i64 * turn).unwrap();
            }
            for (n, fd) in fds.iter().enumerate() {
                assert_eq!(get(fd.0), (n as i64 * turn).min(MAX));
            }
        }
        // SAFETY: no pointers.
        let dup = Fd(unsafe { syscall!(SYS_dup, fds[7].0).unwrap() } as i32);
        set(dup.0, 99).unwrap();
        assert_eq!((get(fds[7].0), get(fds[8].0)), (99, 40));
    }
}
