//! Names of virtual namespaces, for `mqns run --ns NAME`.
//!
//! They are in a file `names` of the user's directory, which nobody else may read: the directory of a namespace is secret.
//! A name is the user's own, and is gone as soon as its namespace is dead: whoever finds that out takes it away
//! ([`forget`]). Where he is killed, or finds the file locked, a record is left that leads to a dead namespace. It counts as
//! none, and the next who makes a name takes it away, or `mqns gc`.
//!
//! Two who come at once meet at the lock on the file: the second finds the first's namespace, of which the first is a
//! member already.

use core::sync::atomic::Ordering;

use super::control::NAMED;
use super::enter::{NEWIPC, privileged, take_to, take_to_new};
use super::life::{directory_of_user, teardown};
use super::member::{self, For, Membership};
use super::{Place, of_task, place};
use crate::abi::{Errno, Result};
use crate::look::{LONGEST_NAME, is_name};
use crate::sys::path::{Fd, Path};
use crate::sys::tls::Tls;
use crate::syscall;

/// A name, and the last component of the path of its namespace's directory; both end with a NUL. All zero: free. It is written
/// at one blow, and does not cross a page, so that no killed writer leaves half of one.
#[repr(C)]
#[derive(Clone, Copy)]
struct Record {
    name: [u8; LONGEST_NAME + 1],
    dir: [u8; 63],
}
const _: () = assert!(size_of::<Record>() == 128);

const FREE: Record = Record { name: [0; LONGEST_NAME + 1], dir: [0; 63] };

/// So many names a user can have at a time.
const MOST: u64 = 1024;

fn text(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|&b| b == 0).unwrap_or(0)]
}

impl Record {
    fn new(name: &[u8], dir: &[u8]) -> Option<Record> {
        let mut record = FREE;
        record.name.get_mut(..name.len()).filter(|_| is_name(name))?.copy_from_slice(name);
        record.dir.get_mut(..dir.len()).filter(|_| of_task::id_of_name(dir).is_some())?.copy_from_slice(dir);
        Some(record)
    }

    /// Whether its words are such as [`Record::new`] takes.
    fn is_sound(&self) -> bool {
        is_name(text(&self.name)) && of_task::id_of_name(text(&self.dir)).is_some()
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: bytes without padding.
        unsafe { core::slice::from_raw_parts((self as *const Record).cast(), size_of::<Record>()) }
    }
}

/// Takes the caller to the namespace of that name, as setns(2) does; if there is none and `make`, to a new one that
/// gets it, as unshare(2) does. Returns whether it is new.
///
/// # Errors
///
/// ENOENT: there is none. EINVAL: it is no name. EDQUOT: the user has too many. EACCES: the user's directory is somebody
/// else's. Those of setns(2) and unshare(2).
pub fn enter(tls: &Tls, name: &[u8], make: bool) -> Result<bool> {
    if !is_name(name) {
        return Err(Errno::EINVAL);
    }
    if !privileged() {
        return Err(Errno::EPERM);
    }
    super::real_at_start();
    member::purge(tls);
    let whom = For::caller();
    if whom == For::Task && !Membership::has_room() {
        return Err(Errno::ENOSPC);
    }
    let root = super::root()?;
    let uid = super::kernel_uid(super::euid());
    let own = if make { member::users_directory(&root)? } else { directory_of_user(&root, uid)? };
    let names = Names::lock(&own, make)?;
    if let Some((at, record)) = names.find(|record| text(&record.name) == name) {
        let dir = Path::new(&[own.as_bytes(), b"/", text(&record.dir)])?;
        // Of one whose last process was killed this is the end.
        teardown(dir.as_bytes());
        match place(tls, dir.as_bytes()).and_then(|place| member::join(place, whom)) {
            Err(Errno::ENOENT) => names.file.write_at(FREE.bytes(), at)?,
            other => {
                drop(names);
                take_to(tls, other?, whom);
                return Ok(false);
            }
        }
    }
    if !make {
        return Err(Errno::ENOENT);
    }
    names.sweep(&own);
    let membership = member::create(tls, whom)?;
    names.give(name, membership.place())?;
    // Before anything can fail: who gives the membership up takes the name away.
    drop(names);
    take_to_new(tls, membership, whom, NEWIPC)?;
    Ok(true)
}

/// The file `names` of a user's directory.
struct Names {
    file: Fd,
}

/// The path of the file in a user's directory. Whoever is not that user follows no links there.
fn path_in(own: &Path) -> Result<Path> {
    let mut path = *own;
    path.push(b"/names")?;
    Ok(path)
}

impl Names {
    /// The caller's own, locked: with the file that goes, too.
    ///
    /// # Errors
    ///
    /// ENOENT: the user has no directory, or no such file and does not `make` one. EACCES: it is somebody else's.
    fn lock(own: &Path, make: bool) -> Result<Names> {
        let dir = own.open_own(libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW)?;
        if dir.stat()?.st_uid != super::euid() {
            return Err(Errno::EACCES);
        }
        let name = Path::new(&[b"names"])?;
        let name = name.from(&dir, 0);
        // Whoever has made this directory, before root has taken it over, may have put anything there.
        for _ in 0..100 {
            let flags = libc::O_RDWR | libc::O_NOFOLLOW | libc::O_NONBLOCK;
            let file = match name.open(if make { flags | libc::O_CREAT } else { flags }, 0o600) {
                Err(Errno::EACCES | Errno::ELOOP | Errno::ENXIO | Errno::EISDIR | Errno::EAGAIN) => {
                    put_away(&name, &dir)?;
                    continue;
                }
                other => other?,
            };
            let st = file.stat()?;
            let is_own = st.st_mode & (libc::S_IFMT | 0o077) == libc::S_IFREG && st.st_uid == super::euid();
            if !is_own || st.st_nlink != 1 {
                put_away(&name, &dir)?;
                continue;
            }
            if st.st_mode & 0o600 != 0o600 {
                // By the umask.
                file.chmod(0o600)?;
            }
            // No other user can have it open, so that it is waited for without an end.
            // SAFETY: no pointers.
            while let Err(errno) = unsafe { syscall!(SYS_flock, file.0, libc::LOCK_EX) } {
                if errno != Errno::EINTR {
                    return Err(errno);
                }
            }
            if name.stat().is_ok_and(|now| (now.st_ino, now.st_dev) == (st.st_ino, st.st_dev)) {
                return Ok(Names { file });
            }
        }
        Err(Errno::EAGAIN)
    }

    /// Those in the directory of a user who need not be the caller, and may have put anything there. Nothing: there are
    /// none.
    fn open(own: &Path, flags: i32) -> Option<Names> {
        let file = path_in(own).ok()?.open_own(flags | libc::O_NOFOLLOW | libc::O_NONBLOCK).ok()?;
        let is_file = file.stat().is_ok_and(|st| st.st_mode & libc::S_IFMT == libc::S_IFREG);
        is_file.then_some(Names { file })
    }

    /// The same with the lock, if nobody has that.
    fn try_lock(own: &Path) -> Option<Names> {
        Names::open(own, libc::O_RDWR).filter(|names| member::lock(&names.file, libc::LOCK_EX).is_ok())
    }

    /// The first record that is sound and for which `is_it` holds, and where it lies.
    fn find(&self, mut is_it: impl FnMut(&Record) -> bool) -> Option<(u64, Record)> {
        self.each(|record| record.is_sound() && is_it(record))
    }

    fn each(&self, mut is_it: impl FnMut(&Record) -> bool) -> Option<(u64, Record)> {
        for at in (0..MOST).map(|index| index * size_of::<Record>() as u64) {
            let mut record = FREE;
            // SAFETY: the record is as long as said.
            let got = unsafe { syscall!(SYS_pread64, self.file.0, &raw mut record, size_of::<Record>(), at) };
            if got != Ok(size_of::<Record>()) {
                return None;
            }
            if is_it(&record) {
                return Some((at, record));
            }
        }
        None
    }

    /// Gives a namespace, of which the caller is the only member, a name that no other has.
    fn give(&self, name: &[u8], to: &Place) -> Result<()> {
        let record = Record::new(name, last(to.dir())).ok_or(Errno::EINVAL)?;
        let mut behind = 0;
        let free = self.each(|record| {
            behind += size_of::<Record>() as u64;
            !record.is_sound()
        });
        let at = free.map_or(behind, |(at, _)| at);
        if at >= MOST * size_of::<Record>() as u64 {
            return Err(Errno::EDQUOT);
        }
        to.control().state.fetch_or(NAMED, Ordering::AcqRel);
        self.file.write_at(record.bytes(), at)
    }

    /// Takes away the names of those that are gone.
    fn sweep(&self, own: &Path) {
        let is_gone = |record: &Record| {
            let dir = || {
                let mut dir = *own;
                dir.push(b"/")?;
                dir.push(text(&record.dir))?;
                dir.stat()
            };
            dir().is_err_and(|errno| errno == Errno::ENOENT)
        };
        while let Some((at, _)) = self.find(is_gone) {
            if self.file.write_at(FREE.bytes(), at).is_err() {
                return;
            }
        }
    }
}

/// The last component of a path.
fn last(path: &[u8]) -> &[u8] {
    path.rsplit(|&b| b == b'/').next().unwrap_or(b"")
}

/// Takes a file away; a directory, which may have something in it, is renamed.
fn put_away(name: &Path, dir: &Fd) -> Result<()> {
    match name.unlink() {
        Err(Errno::EISDIR) => {
            let mut other = Path::new(&[b"names."])?;
            other.push_hex(super::control::random())?;
            name.rename(&other.from(dir, 0), false)
        }
        Err(Errno::ENOENT) => Ok(()),
        other => other,
    }
}

/// The user's directory in which that of a namespace lies.
fn users_directory_of(dir: &[u8]) -> Result<Path> {
    let own = Path::new(&[&dir[..dir.iter().rposition(|&b| b == b'/').unwrap_or(0)]])?;
    Ok(if super::is_others(dir) { own.beneath(super::root_of(dir).len()) } else { own })
}

/// `mqns gc`: takes away the names in a user's directory that are left of killed processes.
pub fn collect(own: &Path) {
    if let Some(names) = Names::try_lock(own) {
        names.sweep(own);
    }
}

/// A namespace with a name has been declared dead: that is free again.
pub fn forget(dir: &[u8]) {
    let Some(names) = users_directory_of(dir).ok().and_then(|own| Names::try_lock(&own)) else { return };
    if let Some((at, _)) = names.find(|record| text(&record.dir) == last(dir)) {
        let _ = names.file.write_at(FREE.bytes(), at);
    }
}

/// The name of a namespace, for its user and root.
pub fn of(dir: &Path) -> Option<Path> {
    let names = Names::open(&users_directory_of(dir.as_bytes()).ok()?, libc::O_RDONLY)?;
    let (_, record) = names.find(|record| text(&record.dir) == last(dir.as_bytes()))?;
    Path::new(&[text(&record.name)]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_neither_numbers_nor_paths() {
        for name in ["ci", "_", "a.b-c:d_9", &"x".repeat(LONGEST_NAME)] {
            assert!(is_name(name.as_bytes()), "{name}");
        }
        for name in ["", "1", "42a", "-t", ".", "..", "a/b", "a b", "\u{e4}", "a\n", &"x".repeat(LONGEST_NAME + 1)] {
            assert!(!is_name(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn records_hold_the_longest_name_and_no_path() {
        let dir = b"n3899999999-0123456789abcdef0123456789abcdef";
        let name = [b'x'; LONGEST_NAME];
        let record = Record::new(&name, dir).expect("a record");
        assert!(record.is_sound() && !FREE.is_sound());
        assert_eq!((text(&record.name), text(&record.dir)), (&name[..], &dir[..]));
        for dir in [&b"../u0/n1-0123456789abcdef0123456789abcdef"[..], b"i1", b"n1", b""] {
            assert!(Record::new(b"ci", dir).is_none());
        }
        assert!(Record::new(b"c/i", dir).is_none());
    }
}
