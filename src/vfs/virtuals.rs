//! Mounts where the kernel permits none: kept in a table, seen by programs with the library.
//!
//! Such a mount covers a directory, which is told by device and inode wherever a path leads to it: so relative
//! paths, links, chdir(2) and openat(2) need nothing of their own. `ROOT/m/vMNTNS.DEV.INODE.LEVEL` holds flags,
//! namespace directory, mount point and source; of several on one directory the last covers the others. MNTNS is
//! the mount namespace in which it is seen. Whoever may list the table may have put something into it, so that
//! only mounts of the user's own and of root's count.
//!
//! `MQNS_MOUNT=DIR:DIR…`: on those directories a program sees the queues of its own namespace.

use core::sync::atomic::{AtomicU32, Ordering};

use super::{mount, through, tls};
use crate::abi::{Errno, Result};
use crate::ns::{self, Place, Referred, life};
use crate::sys::path::{Fd, Path, each_entry};
use crate::sys::proc;
use crate::syscall;

/// Whether `MQNS_MOUNT` is set: 0 not looked yet, 1 no, 2 yes.
static BY_ENVIRONMENT: AtomicU32 = AtomicU32::new(0);

/// Whether directories are covered by the environment.
#[inline(always)]
pub fn by_environment() -> bool {
    match BY_ENVIRONMENT.load(Ordering::Relaxed) {
        0 => look_at_environment(),
        known => known == 2,
    }
}

#[cold]
fn look_at_environment() -> bool {
    let set = directories().next().is_some();
    BY_ENVIRONMENT.store(if set { 2 } else { 1 }, Ordering::Relaxed);
    set
}

/// The directories of `MQNS_MOUNT`.
fn directories() -> impl Iterator<Item = &'static [u8]> {
    let list = ns::environment(c"MQNS_MOUNT").unwrap_or(b"");
    list.split(|&b| b == b':').filter(|dir| dir.first() == Some(&b'/')).map(|dir| {
        let end = dir.iter().rposition(|&b| b != b'/').map_or(1, |at| at + 1);
        &dir[..end]
    })
}

/// What covers a directory.
pub struct Cover {
    /// The namespace whose queues are seen there.
    pub place: Referred,
    /// Flags of mount(2).
    pub flags: u64,
    /// Inode of the directory.
    pub ino: u64,
}

fn of_environment(ino: u64) -> Option<Cover> {
    let place = ns::current(super::super::interpose::mq::ready().ok()?).ok()?;
    if !place.was_mounted() {
        mount::enter(place).ok()?;
    }
    Some(Cover { place: place.refer(), flags: 0, ino })
}

/// What covers a directory that does not exist: by its path as it stands in `MQNS_MOUNT`.
pub fn covering_path(path: &[u8]) -> Option<Cover> {
    let end = path.iter().rposition(|&b| b != b'/').map_or(1, |at| at + 1);
    let path = path.get(..end)?;
    if by_environment() && directories().any(|dir| dir == path) { of_environment(1) } else { None }
}

/// What covers the directory with that device and inode.
#[cold]
#[inline(never)]
pub fn covering(dev: u64, ino: u64) -> Option<Cover> {
    if by_environment() {
        let is_it = |dir: &[u8]| {
            Path::new(&[dir])
                .and_then(|path| path.stat_at(libc::AT_FDCWD))
                .is_ok_and(|st| (st.st_dev, st.st_ino) == (dev, ino))
        };
        if directories().any(is_it) {
            return of_environment(ino);
        }
    }
    if !super::any_in_table() {
        return None;
    }
    let (_, entry) = top(dev, ino)?;
    Some(Cover { place: entry.place()?, flags: entry.flags, ino })
}

/// An entry of the table.
struct Entry {
    flags: u64,
    text: [u8; 1024],
    /// Where namespace directory, mount point and source end.
    ends: [usize; 3],
}

impl Entry {
    fn directory(&self) -> &[u8] {
        &self.text[..self.ends[0]]
    }

    fn point(&self) -> &[u8] {
        &self.text[self.ends[0] + 1..self.ends[1]]
    }

    fn source(&self) -> &[u8] {
        &self.text[self.ends[1] + 1..self.ends[2]]
    }

    fn place(&self) -> Option<Referred> {
        ns::place(tls(), self.directory()).ok()
    }

    /// Reads an entry, if it is one that counts.
    fn read(path: &Path) -> Option<Entry> {
        let file = path.open_own(libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK).ok()?;
        if !mount::is_word_of_trust(&file.stat().ok()?) {
            return None;
        }
        let mut entry = Entry { flags: 0, text: [0; 1024], ends: [0; 3] };
        // SAFETY: the buffers are as long as said.
        let got = unsafe {
            syscall!(SYS_pread64, file.0, &raw mut entry.flags, 8, 0).ok()?;
            syscall!(SYS_pread64, file.0, entry.text.as_mut_ptr(), entry.text.len(), 8).ok()?
        };
        let mut zeros = entry.text[..got].iter().enumerate().filter(|&(_, &b)| b == 0).map(|(at, _)| at);
        entry.ends = [zeros.next()?, zeros.next()?, zeros.next()?];
        Some(entry)
    }
}

/// The inode of the caller's mount namespace.
fn mount_namespace() -> u64 {
    crate::sys::namespace_inode(c"/proc/thread-self/ns/mnt")
}

fn entry_path(namespace: u64, dev: u64, ino: u64, level: u64) -> Result<Path> {
    let mut path = Path::new(&[ns::known_root().ok_or(Errno::ENOENT)?.as_bytes(), b"/m/v"])?;
    path.push_decimal(namespace)?;
    for number in [dev, ino] {
        path.push(b".")?;
        path.push_hex(number)?;
    }
    path.push(b".")?;
    path.push_decimal(level)?;
    Ok(path)
}

/// The uppermost of the mounts on a directory, and its level.
fn top(dev: u64, ino: u64) -> Option<(u64, Entry)> {
    let namespace = mount_namespace();
    let mut found = None;
    for level in 0.. {
        match entry_path(namespace, dev, ino, level).ok().and_then(|path| Entry::read(&path)) {
            Some(entry) => found = Some((level, entry)),
            None => break,
        }
    }
    found
}

/// mount(2).
///
/// # Errors
///
/// EBUSY: the same queues are mounted there, on top. As [`attach`].
pub fn mount(place: &'static Place, on: &Fd, flags: u64, source: &[u8]) -> Result<()> {
    let st = on.stat()?;
    if let Some((_, above)) = top(st.st_dev, st.st_ino)
        && above.directory() == place.dir()
    {
        return Err(Errno::EBUSY);
    }
    attach(place, on, flags, source)
}

/// move_mount(2): on top of whatever is there.
///
/// # Errors
///
/// Those of making a file.
pub fn attach(place: &'static Place, on: &Fd, flags: u64, source: &[u8]) -> Result<()> {
    let st = on.stat()?;
    mount::enter(place)?;
    let point = Path::of_descriptor(on.0)?;
    let mut text = [0u8; 1032];
    text[..8].copy_from_slice(&flags.to_ne_bytes());
    let mut at = 8;
    for part in [place.dir(), point.as_bytes(), &source[..source.len().min(255)]] {
        let room = text.get_mut(at..at + part.len()).ok_or(Errno::ENAMETOOLONG)?;
        room.copy_from_slice(part);
        at += part.len() + 1;
    }
    if at > text.len() {
        return Err(Errno::ENAMETOOLONG);
    }
    let namespace = mount_namespace();
    // First: of an entry that nobody has counted nobody would know.
    place.accounts().virtuals.fetch_add(1, Ordering::AcqRel);
    crate::crash_point!("virtual.counted");
    for level in 0..1000 {
        let path = entry_path(namespace, st.st_dev, st.st_ino, level)?;
        // Complete when it appears.
        let draft = mount::Draft::new(&path, &text[..at])?;
        crate::crash_point!("virtual.drafted");
        match draft.publish(false) {
            Err(Errno::EEXIST) => {}
            other => {
                crate::crash_point!("virtual.entered");
                return other;
            }
        }
    }
    Err(Errno::ENOSPC)
}

/// umount2(2) of what covers a directory. Nothing: nothing does.
///
/// # Errors
///
/// EPERM; EBUSY: somebody is in it, or has something of it open.
pub fn unmount(dev: u64, ino: u64, flags: i32) -> Option<Result<()>> {
    if !super::any_in_table() {
        return None;
    }
    let (level, entry) = top(dev, ino)?;
    let unmount = || {
        if !mount::may_mount_anything() {
            return Err(Errno::EPERM);
        }
        let place = entry.place();
        if flags & libc::MNT_DETACH == 0
            && let Some(place) = &place
            && is_busy(place, dev, ino)
        {
            return Err(Errno::EBUSY);
        }
        entry_path(mount_namespace(), dev, ino, level)?.unlink()?;
        crate::crash_point!("umount.done");
        if let Some(place) = place
            && place.is_dead()
        {
            life::teardown(place.dir());
        }
        Ok(())
    };
    Some(unmount())
}

/// Whether any process is in a covered directory, or has the superblock's directory or files of it open.
fn is_busy(place: &Place, dev: u64, ino: u64) -> bool {
    let Ok(superblock) = place.superblock() else { return false };
    let Ok(files) = Path::new(&[place.dir(), b"/sb/"]) else { return false };
    let is_in = |path: Result<Path>| {
        path.and_then(|path| path.stat_at(libc::AT_FDCWD))
            .is_ok_and(|st| (st.st_dev, st.st_ino) == (dev, ino) || (st.st_dev, st.st_ino) == superblock)
    };
    proc::any_process(|pid| {
        let mut busy = is_in(proc::path(pid, b"cwd"));
        proc::each_descriptor(pid, |fd| {
            let link = Path::new(&[b"/proc/", pid, b"/fd/", fd]);
            busy |=
                link.and_then(|link| link.stat_at(libc::AT_FDCWD)).is_ok_and(|st| (st.st_dev, st.st_ino) == superblock);
            // O_PATH.
            let target = Path::new(&[b"/proc/", pid, b"/fd/", fd]).and_then(|link| link.read_link_at(libc::AT_FDCWD));
            busy |= target.is_ok_and(|target| target.as_bytes().starts_with(files.as_bytes()));
        });
        if !busy && let Ok(maps) = proc::path(pid, b"maps").and_then(|maps| maps.open_own(libc::O_RDONLY)) {
            proc::each_line(&maps, |line| {
                let mut fields = line.split(|&b| b == b' ');
                let offset = fields.nth(2).and_then(|text| core::str::from_utf8(text).ok());
                let offset = offset.and_then(|text| u64::from_str_radix(text, 16).ok());
                let path = line.iter().position(|&b| b == b'/').map_or(&b""[..], |at| &line[at..]);
                busy |= path.starts_with(files.as_bytes()) && offset == Some(through::offset_of(ino));
            });
        }
        busy
    })
}

/// Calls `see` with each mount that is seen in a mount namespace: mount point, source, flags.
pub fn each(namespace: u64, mut see: impl FnMut(&[u8], &[u8], u64, Option<&Place>)) {
    if by_environment() {
        let cover = of_environment(1);
        for dir in directories() {
            see(dir, b"mqueue", 0, cover.as_ref().map(|cover| &*cover.place));
        }
    }
    if !super::any_in_table() {
        return;
    }
    // Those below first.
    let mut more = true;
    for level in 0.. {
        if !core::mem::take(&mut more) {
            break;
        }
        each_file(|path, of| {
            let digits = path.as_bytes().rsplit(|&b| b == b'.').next().unwrap_or(b"");
            let own = core::str::from_utf8(digits).ok().and_then(|text| text.parse::<u64>().ok());
            if of != namespace || own.is_none_or(|own| own < level) {
                return;
            }
            more = true;
            if own == Some(level)
                && let Some(entry) = Entry::read(path)
            {
                let place = entry.place();
                see(entry.point(), entry.source(), entry.flags, place.as_deref());
            }
        });
    }
}

/// Calls `see` with each file of the table, and the mount namespace that it is for.
fn each_file(mut see: impl FnMut(&Path, u64)) {
    let Some(dir) = ns::known_root().and_then(|root| Path::new(&[root.as_bytes(), b"/m"]).ok()) else { return };
    let Ok(open) = dir.open_own(libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW) else { return };
    each_entry(&open, |name| {
        let mut parts = name.split(|&b| b == b'.');
        let number = parts.next().and_then(|first| first.strip_prefix(b"v"));
        let namespace = number.and_then(|digits| core::str::from_utf8(digits).ok()?.parse().ok());
        if let (Some(namespace), 3) = (namespace, parts.count())
            && let Ok(path) = Path::new(&[dir.as_bytes(), b"/", name])
        {
            see(&path, namespace);
        }
    });
}

/// Whether a namespace's superblock is mounted so anywhere.
pub fn is_mounted(place: &Place) -> bool {
    let mut found = false;
    if super::any_in_table() {
        each_file(|path, namespace| {
            found |= !found
                && Entry::read(path).is_some_and(|entry| entry.directory() == place.dir())
                && is_alive(namespace);
        });
    }
    found
}

/// Whether any process that can be seen is in a mount namespace.
fn is_alive(namespace: u64) -> bool {
    namespace == mount_namespace()
        || proc::any_process(|pid| {
            proc::path(pid, b"ns/mnt")
                .and_then(|path| path.stat_at(libc::AT_FDCWD))
                .is_ok_and(|st| st.st_ino == namespace)
        })
}

/// Takes away what is left of mount namespaces that are no more.
pub fn collect() {
    if super::any_in_table() {
        each_file(|path, namespace| {
            if !is_alive(namespace) {
                let _ = path.unlink();
            }
        });
    }
}

/// The path by which a directory is covered, with that inode, or with any where that is 0, in the caller's mount
/// namespace.
pub fn point_of(place: &Place, ino: u64) -> Option<Path> {
    let namespace = mount_namespace();
    let mut found = None;
    if super::any_in_table() {
        each_file(|path, of| {
            let is_it = ino == 0 || {
                let digits = path.as_bytes().rsplit(|&b| b == b'.').nth(1);
                digits
                    .and_then(|text| u64::from_str_radix(core::str::from_utf8(text).ok()?, 16).ok())
                    .map(|own| own & through::INODE)
                    == Some(ino & through::INODE)
            };
            if of == namespace
                && is_it
                && let Some(entry) = Entry::read(path)
                && entry.directory() == place.dir()
            {
                found = Path::new(&[entry.point()]).ok();
            }
        });
    }
    if found.is_none() && by_environment() {
        found = directories().next().and_then(|dir| Path::new(&[dir]).ok());
    }
    found
}
