//! mount(2) and umount(2) of superblocks.
//!
//! A mount is a bind mount of the superblock's directory, always noexec, as the kernel's file system is. What
//! the mount table is to say of it beyond that is kept beside the register of superblocks, by the number that
//! the kernel has given the mount: `ROOT/m/INODE.ID` holds its flags and source; `ROOT/m/INODE.0` those of the
//! last, which stand for copies.

use core::sync::atomic::Ordering;

use crate::abi::{Errno, Result};
use crate::ns::control::{MOUNTED, READ_ONLY};
use crate::ns::{self, Place, Referred, life};
use crate::sys::path::{Fd, Path, stat_fd};
use crate::syscall;

const CAP_SYS_ADMIN: u32 = 21;

/// `MS_SUBMOUNT` and all the flags that say what mount(2) is to do other than to mount something new.
pub const OTHER_ACTIONS: u64 = libc::MS_REMOUNT
    | libc::MS_BIND
    | libc::MS_MOVE
    | libc::MS_SHARED
    | libc::MS_PRIVATE
    | libc::MS_SLAVE
    | libc::MS_UNBINDABLE;

// mount_setattr(2).
const ATTR_RDONLY: u64 = 1;
const ATTR_NOSUID: u64 = 2;
const ATTR_NODEV: u64 = 4;
/// MOUNT_ATTR_NOEXEC.
pub const NOEXEC: u64 = 8;
const ATTR_NOEXEC: u64 = NOEXEC;
const ATTR_ATIME: u64 = 0x70;
const ATTR_NOATIME: u64 = 0x10;
const ATTR_STRICTATIME: u64 = 0x20;
const ATTR_NODIRATIME: u64 = 0x80;
const ATTR_NOSYMFOLLOW: u64 = 0x0020_0000;

/// The directory of the register, of this root.
fn register() -> Result<Path> {
    Path::new(&[ns::known_root().ok_or(Errno::ENOENT)?.as_bytes(), b"/m"])
}

/// Whether the register's directory is one that only root, or the caller's own user, can replace: its name is known
/// beforehand, and all may make it.
fn is_register(dir: &Path) -> bool {
    dir.stat().is_ok_and(|st| st.st_mode & libc::S_IFMT == libc::S_IFDIR && is_trusted(st.st_uid))
}

/// The namespace directory whose superblock has that inode, if it has ever been mounted: to be checked. Only by
/// root or the caller's own user: what lies in another user's directory may lead anywhere.
///
/// # Errors
///
/// ENOENT.
pub fn registered(ino: u64) -> Result<Path> {
    let mut link = register()?;
    if !is_register(&link) {
        return Err(Errno::ENOENT);
    }
    link.push(b"/")?;
    link.push_hex(ino)?;
    if is_trusted(link.stat()?.st_uid) { link.read_link_at(libc::AT_FDCWD) } else { Err(Errno::ENOENT) }
}

/// Whether the word of a user is taken.
pub fn is_trusted(uid: u32) -> bool {
    // In a user namespace root of the machine is nobody, as others are; who is there has no rights beyond it.
    const OVERFLOW: u32 = 65534;
    uid == 0 || uid == ns::euid() || uid == OVERFLOW && !ns::queues::in_initial_user_namespace()
}

/// Whether a file may be believed: a regular one of root's or the caller's own, and not by a second name that somebody
/// else has given it.
pub fn is_word_of_trust(st: &libc::stat) -> bool {
    st.st_mode & libc::S_IFMT == libc::S_IFREG && st.st_nlink == 1 && is_trusted(st.st_uid)
}

/// Enters a superblock into the register, before it can be seen mounted.
///
/// # Errors
///
/// Those of making a link.
pub fn enter(place: &Place) -> Result<()> {
    let (_, ino) = place.superblock()?;
    let root = Path::new(&[place.root()])?;
    let mut link = Path::new(&[root.as_bytes(), b"/m"])?;
    // As the root: for all, or for its owner.
    link.make_dir(if root.stat()?.st_mode & 0o002 != 0 { 0o1777 } else { 0o700 })?;
    if !is_register(&link) {
        crate::log::refused(format_args!(
            "mount: EACCES: {} belongs to somebody else",
            core::str::from_utf8(link.as_bytes()).unwrap_or("the register of mounts")
        ));
        return Err(Errno::EACCES);
    }
    link.push(b"/")?;
    link.push_hex(ino)?;
    let dir = Path::new(&[place.dir()])?;
    match link.make_link(&dir) {
        Err(Errno::EEXIST) if !(is_trusted(link.stat()?.st_uid) && leads_to(&link, &dir)) => {
            // Of one that has gone, whose inode this has now; or another user's, whose word nobody takes.
            take_away(&link)?;
            link.make_link(&dir)?;
        }
        Err(Errno::EEXIST) => {}
        other => other?,
    }
    crate::crash_point!("mount.registered");
    let mounts = &place.accounts().mounts;
    if mounts.load(Ordering::Acquire) == 0 {
        super::await_lookers();
    }
    mounts.fetch_add(1, Ordering::AcqRel);
    crate::crash_point!("mount.counted");
    place.control().state.fetch_or(MOUNTED, Ordering::AcqRel);
    Ok(())
}

fn leads_to(link: &Path, dir: &Path) -> bool {
    link.read_link_at(libc::AT_FDCWD).is_ok_and(|target| target.as_bytes() == dir.as_bytes())
}

/// Takes away whatever is under a name of the register; a directory goes out of the way, there may be something in it.
fn take_away(path: &Path) -> Result<()> {
    match path.unlink() {
        Err(Errno::EISDIR) => {
            let mut aside = *path;
            aside.push(b".")?;
            aside.push_hex(ns::control::random())?;
            path.rename(&aside, false)
        }
        other => other,
    }
}

/// Takes a superblock that is going out of the register.
pub fn leave(place: &Place) {
    let Ok((_, ino)) = place.superblock() else { return };
    let Ok(dir) = Path::new(&[place.root(), b"/m"]) else { return };
    let mut name = Path::empty();
    if name.push_hex(ino).is_err() {
        return;
    }
    let Ok(open) = dir.open_own(libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW) else { return };
    if !is_register(&dir) {
        return;
    }
    crate::sys::path::each_entry(&open, |entry| {
        let is_ours = entry.strip_prefix(name.as_bytes()).is_some_and(|rest| matches!(rest.first(), None | Some(b'.')));
        if is_ours {
            let _ = Path::new(&[dir.as_bytes(), b"/", entry]).and_then(|path| path.unlink());
        }
    });
}

/// What the mount table shows of a mount beyond what the kernel knows.
#[derive(Clone, Copy)]
pub struct Record {
    /// MS_NOEXEC was asked for.
    pub noexec: bool,
    source: [u8; 256],
    len: usize,
}

impl Record {
    fn new(noexec: bool, source: &[u8]) -> Record {
        let mut record = Record { noexec, source: [0; 256], len: source.len().min(256) };
        record.source[..record.len].copy_from_slice(&source[..record.len]);
        record
    }

    /// The source, as it was given.
    pub fn source(&self) -> &[u8] {
        &self.source[..self.len]
    }
}

/// The record of the mount of a superblock with that number; 0: of the last that was made.
fn record_path(place: &Place, id: u64) -> Result<Path> {
    let (_, ino) = place.superblock()?;
    let mut path = Path::new(&[place.root(), b"/m/"])?;
    path.push_hex(ino)?;
    path.push(b".")?;
    path.push_decimal(id)?;
    Ok(path)
}

/// The kernel's number of the mount that a descriptor lies in (statx(2)); 0: not known.
fn mount_id(fd: i32) -> u64 {
    const STATX_MNT_ID: u32 = 0x1000;
    // SAFETY: plain integers; zero is valid for all of them.
    let mut x: libc::statx = unsafe { core::mem::zeroed() };
    // SAFETY: a NUL-terminated path, the result goes to a local.
    let got = unsafe { syscall!(SYS_statx, fd, c"".as_ptr(), libc::AT_EMPTY_PATH, STATX_MNT_ID, &raw mut x) };
    if got.is_ok() && x.stx_mask & STATX_MNT_ID != 0 { x.stx_mnt_id } else { 0 }
}

/// A file of the register under a hidden name, held by a flock: complete when it appears. Those of the killed are told
/// by that nobody holds them ([`collect`]).
pub struct Draft {
    file: Fd,
    at: Path,
    path: Path,
}

impl Draft {
    /// What is to become `path`.
    ///
    /// # Errors
    ///
    /// Those of making a file.
    pub fn new(path: &Path, content: &[u8]) -> Result<Draft> {
        for _ in 0..20 {
            let mut at = *path;
            at.push(b".")?;
            at.push_hex(ns::control::random())?;
            let file = at.open(libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW, 0o600)?;
            // Unless it has been taken for one that was left.
            if ns::member::lock(&file, libc::LOCK_EX).is_ok() && file.stat()?.st_nlink != 0 {
                let draft = Draft { file, at, path: *path };
                draft.file.write_at(content, 0)?;
                draft.file.chmod(0o644)?;
                return Ok(draft);
            }
        }
        Err(Errno::EAGAIN)
    }

    /// Gives it its name; `replace` is false: EEXIST if there is something.
    ///
    /// # Errors
    ///
    /// Those of rename(2).
    pub fn publish(self, replace: bool) -> Result<()> {
        self.at.rename(&self.path, replace)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // It is not there any more, if it has got its name.
        let _ = self.at.unlink();
    }
}

/// Takes away what those have left in the register who were killed while they mounted something.
pub fn collect() {
    let Ok(dir) = register() else { return };
    if !is_register(&dir) {
        return;
    }
    let Ok(open) = dir.open_own(libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW) else { return };
    crate::sys::path::each_entry(&open, |name| {
        // `INODE.ID` and `vMNTNS.DEV.INODE.LEVEL` have one part less.
        let parts = if name.first() == Some(&b'v') { 5 } else { 3 };
        if name.split(|&b| b == b'.').count() != parts {
            return;
        }
        let Ok(path) = Path::new(&[dir.as_bytes(), b"/", name]) else { return };
        if let Ok(file) = path.open_own(libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK)
            && file.stat().is_ok_and(|st| is_word_of_trust(&st))
            && ns::member::lock(&file, libc::LOCK_EX).is_ok()
        {
            let _ = path.unlink();
        }
    });
}

fn write_record(path: &Path, record: &Record) -> Result<()> {
    // In the place of whatever is there: others may make files of that name.
    let mut bytes = [0u8; 257];
    bytes[0] = u8::from(record.noexec);
    bytes[1..=record.len].copy_from_slice(record.source());
    let draft = Draft::new(path, &bytes[..=record.len])?;
    crate::crash_point!("mount.drafted");
    if path.stat().is_ok_and(|st| st.st_mode & libc::S_IFMT == libc::S_IFDIR) {
        take_away(path)?;
    }
    draft.publish(true)
}

/// The same by the mount point, which copies in other mount namespaces have as well.
fn record_by_point(place: &Place, point: &[u8]) -> Result<Path> {
    // No number of a mount is as long.
    record_path(place, hash(point) | 1 << 63)
}

fn note(place: &Place, dir: &Fd, record: &Record) {
    let write = |path: Result<Path>| {
        let _ = path.and_then(|path| write_record(&path, record));
    };
    write(record_path(place, mount_id(dir.0)));
    write(record_path(place, 0));
    if let Ok(point) = Path::of_descriptor(dir.0)
        && point.as_bytes() != b"/"
    {
        write(record_by_point(place, point.as_bytes()));
    }
}

fn read_record(path: Result<Path>) -> Option<Record> {
    let file = path.ok()?.open_own(libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK).ok()?;
    if !is_word_of_trust(&file.stat().ok()?) {
        return None;
    }
    let mut bytes = [0u8; 257];
    // SAFETY: the buffer is as long as said.
    let got = unsafe { syscall!(SYS_pread64, file.0, bytes.as_mut_ptr(), bytes.len(), 0) }.ok()?;
    (got != 0).then(|| Record::new(bytes[0] != 0, &bytes[1..got]))
}

/// What is to be shown of the mount of a superblock with that number, at that mount point.
pub fn recorded(place: &Place, id: u64, point: &[u8]) -> Record {
    read_record(record_path(place, id))
        .or_else(|| read_record(record_by_point(place, point)))
        .or_else(|| read_record(record_path(place, 0)))
        .unwrap_or(Record::new(false, b"mqueue"))
}

/// Whether the caller may mount the file system of a namespace: "CAP_SYS_ADMIN in the user namespace that owns
/// it".
pub fn may_mount(place: &Place) -> bool {
    ns::generous()
        || ns::has_capability(CAP_SYS_ADMIN) && {
            let owner = place.control().user_ns.load(Ordering::Acquire);
            owner != 0 && owner == crate::sys::user_namespace() || ns::queues::in_initial_user_namespace()
        }
}

/// Whether the caller may mount anything in its mount namespace, as far as that can be told.
pub fn may_mount_anything() -> bool {
    ns::generous() || ns::has_capability(CAP_SYS_ADMIN)
}

/// Options of mount(2) and fsconfig(2) that any file system takes (`vfs_parse_sb_flag`). The kernel's mqueue
/// file system has none of its own.
pub fn is_general_option(word: &[u8]) -> bool {
    matches!(word, b"ro" | b"rw" | b"sync" | b"async" | b"dirsync" | b"lazytime" | b"nolazytime" | b"mand" | b"nomand")
}

/// The attributes of mount_setattr(2) that flags of mount(2) stand for.
pub fn attributes_of(flags: u64) -> u64 {
    let map = [
        (libc::MS_RDONLY, ATTR_RDONLY),
        (libc::MS_NOSUID, ATTR_NOSUID),
        (libc::MS_NODEV, ATTR_NODEV),
        (libc::MS_NOEXEC, ATTR_NOEXEC),
        (libc::MS_NODIRATIME, ATTR_NODIRATIME),
        (256, ATTR_NOSYMFOLLOW),
    ];
    let atime = if flags & libc::MS_STRICTATIME != 0 {
        ATTR_STRICTATIME
    } else if flags & libc::MS_NOATIME != 0 {
        ATTR_NOATIME
    } else {
        0
    };
    map.iter().filter(|(flag, _)| flags & flag != 0).fold(atime, |sum, (_, attribute)| sum | attribute)
}

/// Whether fsmount(2) accepts these attributes.
pub fn are_attributes(attributes: u64) -> bool {
    let known = ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC | ATTR_ATIME | ATTR_NODIRATIME | ATTR_NOSYMFOLLOW;
    attributes & !known == 0 && matches!(attributes & ATTR_ATIME, 0 | ATTR_NOATIME | ATTR_STRICTATIME)
}

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

/// A mount of a superblock that is attached nowhere yet: what fsmount(2) gives.
///
/// # Errors
///
/// EPERM; ENOSYS: the kernel has no such mounts.
pub fn detached(place: &Place, attributes: u64) -> Result<Fd> {
    const OPEN_TREE_CLONE: i32 = 1;
    // By a descriptor: in another user's namespace the path may lead anywhere a moment later.
    let superblock = place.path(&[b"/sb"])?.open_own(libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW)?;
    enter(place)?;
    let flags = OPEN_TREE_CLONE | libc::AT_EMPTY_PATH | libc::O_CLOEXEC;
    // SAFETY: a NUL-terminated path.
    let tree = unsafe { syscall!(SYS_open_tree, superblock.0, c"".as_ptr(), flags)? };
    let tree = Fd(tree as i32);
    let all = ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC | ATTR_ATIME | ATTR_NODIRATIME;
    let attr = MountAttr {
        set: attributes | ATTR_NOEXEC,
        clear: all & !(attributes | ATTR_NOEXEC) | ATTR_ATIME,
        propagation: libc::MS_PRIVATE,
        userns: 0,
    };
    let set = |attr: &MountAttr| {
        // SAFETY: the structure is as long as said.
        unsafe {
            syscall!(
                SYS_mount_setattr,
                tree.0,
                c"".as_ptr(),
                libc::AT_EMPTY_PATH,
                &raw const *attr,
                size_of::<MountAttr>()
            )
        }
    };
    if set(&attr) == Err(Errno::EPERM) {
        // What an outer user namespace has set stays.
        set(&MountAttr { clear: 0, ..attr })?;
    }
    Ok(tree)
}

/// mount(2) of the caller's queues on a directory.
///
/// # Errors
///
/// As mount(2): EBUSY: they are mounted there, on top. ENOTDIR. EPERM.
pub fn mount(place: &'static Place, on: &Fd, flags: u64, source: &[u8]) -> Result<()> {
    let st = on.stat()?;
    if st.st_mode & libc::S_IFMT != libc::S_IFDIR {
        return Err(Errno::ENOTDIR);
    }
    if place.superblock()? == (st.st_dev, st.st_ino) {
        return Err(Errno::EBUSY);
    }
    if super::any_virtual() && super::virtuals::covering(st.st_dev, st.st_ino).is_some() {
        return super::virtuals::mount(place, on, flags, source);
    }
    let record = Record::new(flags & libc::MS_NOEXEC != 0, source);
    let done = match detached(place, attributes_of(flags)) {
        Ok(tree) => {
            crate::crash_point!("mount.detached");
            const F_EMPTY_PATH: u32 = 4;
            const T_EMPTY_PATH: u32 = 0x40;
            // SAFETY: NUL-terminated paths.
            unsafe { syscall!(SYS_move_mount, tree.0, c"".as_ptr(), on.0, c"".as_ptr(), F_EMPTY_PATH | T_EMPTY_PATH)? };
            Ok(tree)
        }
        Err(Errno(libc::ENOSYS)) => by_the_old_calls(place, on, flags),
        Err(errno) => Err(errno),
    };
    if matches!(done, Err(Errno::EPERM)) && ns::generous() {
        return super::virtuals::mount(place, on, flags, source);
    }
    crate::crash_point!("mount.attached");
    note(place, &done?, &record);
    Ok(())
}

/// The same before Linux 5.12, in two steps.
fn by_the_old_calls(place: &Place, on: &Fd, flags: u64) -> Result<Fd> {
    let held = place.path(&[b"/sb"])?.open_own(libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW)?;
    let superblock = held.link()?;
    let mut point = Path::new(&[b"/proc/thread-self/fd/"])?;
    point.push_decimal(on.0 as u64)?;
    // SAFETY: NUL-terminated paths.
    unsafe { syscall!(SYS_mount, superblock.as_ptr(), point.as_ptr(), 0, libc::MS_BIND, 0)? };
    // What is mounted now lies on the directory, not under the descriptor.
    let point = Path::of_descriptor(on.0)?;
    let flags = flags | libc::MS_NOEXEC | libc::MS_REMOUNT | libc::MS_BIND;
    // SAFETY: NUL-terminated paths.
    let done = unsafe { syscall!(SYS_mount, 0, point.as_ptr(), 0, flags, 0) };
    if done.is_err() {
        // SAFETY: as above.
        let _ = unsafe { syscall!(SYS_umount2, point.as_ptr(), libc::MNT_DETACH) };
    }
    done?;
    point.open_own(libc::O_PATH)
}

/// What is to be shown of the mount with that root.
pub fn recorded_of(place: &Place, dir: &Fd) -> Record {
    let point = Path::of_descriptor(dir.0).unwrap_or(Path::empty());
    recorded(place, mount_id(dir.0), point.as_bytes())
}

/// A mount has been made: what is to be shown of it.
pub fn attached(place: &Place, dir: &Fd, record: &Record) {
    note(place, dir, record);
}

/// A record of what is given step by step.
pub fn record(noexec: bool, source: &[u8]) -> Record {
    Record::new(noexec, source)
}

/// mount(2) with MS_REMOUNT at a mount of a superblock. The kernel is asked to change the mount only: the
/// superblock beneath it belongs to others.
///
/// # Errors
///
/// EBUSY: queues are open, and it is to become read-only. Those of mount(2).
pub fn remount(place: &Referred, on: &Fd, flags: u64) -> Result<()> {
    let point = Path::of_descriptor(on.0)?;
    if flags & libc::MS_BIND == 0 {
        if !may_mount(place) {
            return Err(Errno::EPERM);
        }
        set_read_only(place, flags & libc::MS_RDONLY != 0)?;
    }
    // Which keeps how times are kept, if nothing is said of it.
    let forced = flags | libc::MS_REMOUNT | libc::MS_BIND | libc::MS_NOEXEC;
    // SAFETY: NUL-terminated paths.
    unsafe { syscall!(SYS_mount, 0, point.as_ptr(), 0, forced, 0)? };
    let old = recorded_of(place, on);
    note(place, on, &Record { noexec: flags & libc::MS_NOEXEC != 0, ..old });
    Ok(())
}

/// The file system as a whole becomes read-only, or writable again.
///
/// # Errors
///
/// EBUSY: queues are open for writing, or without a name.
pub fn set_read_only(place: &Referred, read_only: bool) -> Result<()> {
    if !read_only {
        place.control().state.fetch_and(!READ_ONLY, Ordering::AcqRel);
        return Ok(());
    }
    if ns::queues::any_open_for_change(place) {
        return Err(Errno::EBUSY);
    }
    place.control().state.fetch_or(READ_ONLY, Ordering::AcqRel);
    Ok(())
}

/// A mount that is about to be taken off: what [`unmounted`] has to know.
pub struct Leaving {
    place: Referred,
    path: Result<Path>,
    record: Option<Record>,
}

/// The mount with that root is about to be taken off. Its record goes before it: should this process be killed in
/// between, that by mount point says the same. (That one stays: there may be copies.)
pub fn leaving(place: Referred, dir: &Fd) -> Leaving {
    let path = record_path(&place, mount_id(dir.0));
    let record = path.as_ref().ok().and_then(|path| read_record(Ok(*path)));
    if let (Ok(path), Some(_)) = (&path, &record) {
        let _ = path.unlink();
    }
    crate::crash_point!("umount.forgotten");
    Leaving { place, path, record }
}

/// umount(2) has failed.
pub fn stays(left: &Leaving) {
    if let (Ok(path), Some(record)) = (&left.path, &left.record) {
        let _ = write_record(path, record);
    }
}

/// After umount(2): what that was the last of goes.
pub fn unmounted(left: &Leaving) {
    crate::crash_point!("umount.done");
    if left.place.is_dead() {
        life::teardown(left.place.dir());
    }
}

/// The mounts of superblocks in the caller's mount namespace, before they are copied to another: their numbers,
/// and what tells them from others.
pub struct Copied {
    originals: [(u64, u64); 128],
    len: usize,
}

impl Copied {
    /// Before unshare(2) with CLONE_NEWNS.
    pub fn new() -> Copied {
        let mut copied = Copied { originals: [(0, 0); 128], len: 0 };
        super::table::each_mounted(|id, point, place| {
            if let Some(slot) = copied.originals.get_mut(copied.len) {
                *slot = (id, Copied::key(point, place));
                copied.len += 1;
            }
        });
        copied
    }

    fn key(point: &[u8], place: &Place) -> u64 {
        hash(point) ^ place.superblock().map_or(0, |(_, ino)| ino)
    }

    /// After it: the copies show what the originals do. Of several on one directory the order is the same.
    pub fn done(mut self) {
        super::table::each_mounted(|id, point, place| {
            let key = Copied::key(point, place);
            let Some(found) = self.originals[..self.len].iter_mut().find(|(id, of)| *of == key && *id != 0) else {
                return;
            };
            let original = core::mem::take(&mut found.0);
            if original != id
                && let Some(record) = read_record(record_path(place, original))
            {
                let _ = record_path(place, id).and_then(|path| write_record(&path, &record));
            }
        });
    }
}

impl Default for Copied {
    fn default() -> Copied {
        Copied::new()
    }
}

/// FNV-1a.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, &b| (h ^ b as u64).wrapping_mul(0x100_0000_01b3))
}

/// Whether a descriptor is that of a mount's root.
pub fn is_superblock(fd: i32) -> Option<Referred> {
    let st = stat_fd(fd).ok()?;
    if st.st_mode & libc::S_IFMT != libc::S_IFDIR {
        return None;
    }
    super::superblock(st.st_dev, st.st_ino)
}

/// `f_flags` of statfs(2) for the mount of `place` that a descriptor lies in, less what it has only because it
/// is a bind mount.
pub fn visible_flags(place: &Place, fd: i32, flags: i64) -> i64 {
    const ST_RDONLY: i64 = 1;
    const ST_NOEXEC: i64 = 8;
    let dir = core::mem::ManuallyDrop::new(Fd(fd));
    let hidden = if recorded_of(place, &dir).noexec { 0 } else { ST_NOEXEC };
    flags & !hidden | if place.is_read_only() { ST_RDONLY } else { 0 }
}
