//! Namespaces: where the queues of a task lie, their limits, and what is charged to whom.
//!
//! ```text
//! ROOT/                         $MQNS_DIR, /dev/shm/mqns or /dev/shm/mqns-UID
//!   accounts                    RLIMIT_MSGQUEUE: bytes charged to each real uid
//!   i4026531839/                the initial namespace (of that ipc namespace of the kernel)
//!   u1000/n1234567890-SECRET/   a virtual one, ipc:[1234567890], made by uid 1000; nobody else can
//!                               list that directory, so that only members and root know where it is
//!   u1000/names                 which of them have a name ([`named`])
//!     control                   limits, number of queues ([`control::Control`]); membership ([`member`])
//!     sb/                       the superblock directory: a file per name
//!     q/                        hidden: per queue, by the inode of its file
//!       1f.k                    its key
//!       1f.x                    the queue's file once the name is gone
//!       x/KEY.s  x/KEY.p        segment and FIFO; the FIFO is KEY.d once the name is gone
//!       f/1f.UID.BYTES          a second link to that FIFO then: what is charged until it is unused
//! ```

pub mod across;
pub mod control;
pub mod enter;
pub mod ledger;
pub mod life;
pub mod member;
pub mod named;
pub mod of_task;
pub mod queues;
pub mod sysctl;

use core::ops::Deref;
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use crate::abi::{Errno, Result};
use crate::sys::local::LocalLock;
use crate::sys::path::{Fd, Path};
use crate::sys::tls::Tls;
use crate::syscall;
use control::{Accounts, Control, DEAD};

/// A namespace directory as this process knows it. The table entry is used again for another
/// namespace only when this one is dead and nobody in the process refers to it.
pub struct Place {
    /// 1: complete.
    ready: AtomicU32,
    /// Who refers to it: mappings of its queues, memberships, open limits files, lookups under way.
    users: AtomicU32,
    path: core::cell::UnsafeCell<[u8; PATH]>,
    len: AtomicUsize,
    control: AtomicUsize,
    accounts: AtomicUsize,
    /// 1: others may put links in the place of its directories ([`is_others`]).
    others: AtomicU32,
    /// Device and inode of the superblock's directory, once somebody has asked.
    superblock: [AtomicU64; 2],
}

const PATH: usize = 240;
const PLACES: usize = 4096;

// SAFETY: `path` is written under `LOCK` while `ready` is 0 and nobody refers to the entry.
unsafe impl Sync for Place {}

static TABLE: [Place; PLACES] = [const {
    Place {
        ready: AtomicU32::new(0),
        users: AtomicU32::new(0),
        path: core::cell::UnsafeCell::new([0; PATH]),
        len: AtomicUsize::new(0),
        control: AtomicUsize::new(0),
        accounts: AtomicUsize::new(0),
        others: AtomicU32::new(0),
        superblock: [const { AtomicU64::new(0) }; 2],
    }
}; PLACES];
/// Entries of the table ever taken. [`LOCK`].
static TAKEN: AtomicUsize = AtomicUsize::new(0);
/// Protects the table.
static LOCK: LocalLock = LocalLock::new();

impl Place {
    /// The directory, without a NUL.
    pub fn dir(&self) -> &[u8] {
        let len = self.len.load(Ordering::Acquire).min(PATH);
        // SAFETY: written before `len` was stored with Release, and not while anybody refers to it.
        unsafe { &(&*self.path.get())[..len] }
    }

    /// A path into the directory: these parts, each with its slash in front. Links that others may have put into it
    /// are not followed.
    ///
    /// # Errors
    ///
    /// ENAMETOOLONG.
    pub fn path(&self, parts: &[&[u8]]) -> Result<Path> {
        let mut path = Path::beneath_new(&[self.dir()], self.trusted())?;
        for part in parts {
            path.push(part)?;
        }
        Ok(path)
    }

    /// How much of a path into the directory is to be trusted: see [`Path::beneath`].
    #[inline(always)]
    pub fn trusted(&self) -> usize {
        if self.is_others() { self.root().len() } else { 0 }
    }

    /// Whether some other user could put links in the place of its directories.
    pub fn is_others(&self) -> bool {
        self.others.load(Ordering::Acquire) != 0
    }

    /// The namespace's own state.
    pub fn control(&self) -> &Control {
        // SAFETY: `add` has stored the address of a mapping of at least that size, which stays while
        // anybody refers to the entry.
        unsafe { &*(self.control.load(Ordering::Acquire) as *const Control) }
    }

    /// What is charged to whom, under this root.
    pub fn accounts(&self) -> &Accounts {
        // SAFETY: as in `control`; this mapping stays for good.
        unsafe { &*(self.accounts.load(Ordering::Acquire) as *const Accounts) }
    }

    /// The root directory that it lies in.
    pub fn root(&self) -> &[u8] {
        root_of(self.dir())
    }

    /// Whether it is one of those that `member` makes, and that end with their last task.
    pub fn is_virtual(&self) -> bool {
        self.control().secret[0].load(Ordering::Relaxed) != 0
    }

    /// Whether its last task has left.
    pub fn is_dead(&self) -> bool {
        self.control().state.load(Ordering::Acquire) & DEAD != 0
    }

    /// Device and inode of the directory in which the queues' files lie: the root of its mqueue file system.
    ///
    /// # Errors
    ///
    /// Those of stat(2).
    pub fn superblock(&self) -> Result<(u64, u64)> {
        let known = self.superblock[1].load(Ordering::Acquire);
        if known != 0 {
            return Ok((self.superblock[0].load(Ordering::Acquire), known));
        }
        let st = self.path(&[b"/sb"])?.stat()?;
        self.superblock[0].store(st.st_dev, Ordering::Release);
        self.superblock[1].store(st.st_ino, Ordering::Release);
        Ok((st.st_dev, st.st_ino))
    }

    /// Whether its file system has been remounted read-only.
    pub fn is_read_only(&self) -> bool {
        self.control().state.load(Ordering::Acquire) & control::READ_ONLY != 0
    }

    /// Whether its superblock has ever been mounted: others than the library may look at its files, and
    /// change them.
    pub fn was_mounted(&self) -> bool {
        self.control().state.load(Ordering::Acquire) & control::MOUNTED != 0
    }

    /// Its number in this process.
    pub fn index(&self) -> usize {
        (self as *const Place as usize - TABLE.as_ptr() as usize) / size_of::<Place>()
    }

    /// The place of that number, which the caller knows to be referred to.
    pub fn of(index: usize) -> Result<&'static Place> {
        TABLE.get(index).filter(|p| p.ready.load(Ordering::Acquire) == 1).ok_or(Errno::EIO)
    }

    /// One more refers to it, who must have found it by somebody who does.
    pub fn refer(&'static self) -> Referred {
        self.users.fetch_add(1, Ordering::AcqRel);
        Referred(self)
    }

    /// One less, whose [`Referred`] was forgotten.
    pub fn release(&self) {
        self.users.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A place that stays one while this exists.
pub struct Referred(&'static Place);

impl Deref for Referred {
    type Target = Place;
    fn deref(&self) -> &Place {
        self.0
    }
}

impl Drop for Referred {
    fn drop(&mut self) {
        self.0.release();
    }
}

impl Referred {
    /// The place, for as long as something else refers to it.
    pub fn place(&self) -> &'static Place {
        self.0
    }

    /// The reference goes to the caller, who gives it back by [`Place::release`].
    pub fn keep(self) -> &'static Place {
        let place = self.0;
        core::mem::forget(self);
        place
    }
}

/// The root directory of a namespace directory: `ROOT/iN` or `ROOT/uUID/nN-SECRET`.
fn root_of(dir: &[u8]) -> &[u8] {
    let above = |path: usize| dir[..path].iter().rposition(|&b| b == b'/').unwrap_or(0);
    let parent = above(dir.len());
    &dir[..if of_task::id_of(dir).is_some() { above(parent) } else { parent }]
}

/// The place of a directory that exists, known before or not.
///
/// # Errors
///
/// Those of opening its files; ENFILE: this process knows too many namespaces.
pub fn place(tls: &Tls, dir: &[u8]) -> Result<Referred> {
    let held = LOCK.lock(tls);
    let taken = &TABLE[..TAKEN.load(Ordering::Acquire)];
    let known = taken.iter().find(|p| p.ready.load(Ordering::Acquire) == 1 && p.dir() == dir);
    let found = match known {
        Some(place) => Ok(place.refer()),
        None => add(dir),
    };
    drop(held);
    found
}

/// The place whose superblock has this device and inode, if this process knows it.
pub fn known_superblock(tls: &Tls, dev: u64, ino: u64) -> Option<Referred> {
    let held = LOCK.lock(tls);
    let taken = &TABLE[..TAKEN.load(Ordering::Acquire)];
    let of = |p: &&Place| {
        p.ready.load(Ordering::Acquire) == 1
            && p.superblock[1].load(Ordering::Acquire) == ino
            && p.superblock[0].load(Ordering::Acquire) == dev
    };
    let found = taken.iter().find(of).map(|place| place.refer());
    drop(held);
    found
}

/// In a fork child: see [`LocalLock::reset`].
pub fn reset_after_fork() {
    LOCK.reset();
}

#[cold]
fn add(dir: &[u8]) -> Result<Referred> {
    if dir.len() > PATH {
        return Err(Errno::ENAMETOOLONG);
    }
    let taken = TAKEN.load(Ordering::Acquire);
    let root = root_of(dir);
    let others = is_others(dir);
    let same_root = TABLE[..taken].iter().find(|p| p.ready.load(Ordering::Acquire) == 1 && p.root() == root);
    let accounts = match same_root {
        Some(place) => place.accounts(),
        None => Accounts::map(&Path::new(&[root, b"/accounts"])?)?,
    };
    // By a description of its own: that of a membership has its flock, which a mapping would keep.
    let map = || {
        let control = Path::new(&[dir, b"/control"])?;
        Control::map(&if others { control.beneath(root.len()) } else { control })
    };
    let control = match map() {
        Ok(control) => control,
        Err(errno) => {
            if same_root.is_none() {
                Accounts::unmap(accounts);
            }
            return Err(errno);
        }
    };
    let unused = |p: &&Place| {
        p.users.load(Ordering::Acquire) == 0 && (p.ready.load(Ordering::Acquire) == 0 || p.is_virtual() && p.is_dead())
    };
    let place = match TABLE[..taken].iter().find(unused) {
        Some(place) => {
            if place.ready.swap(0, Ordering::AcqRel) == 1 {
                Control::unmap(place.control.load(Ordering::Acquire) as *const Control);
            }
            place
        }
        None if taken < PLACES => {
            TAKEN.store(taken + 1, Ordering::Release);
            &TABLE[taken]
        }
        None => {
            Control::unmap(control);
            if same_root.is_none() {
                Accounts::unmap(accounts);
            }
            return Err(Errno::ENFILE);
        }
    };
    // SAFETY: nobody refers to the entry, and nobody finds it until `ready` is stored.
    unsafe { (&mut *place.path.get())[..dir.len()].copy_from_slice(dir) };
    place.control.store(control as usize, Ordering::Relaxed);
    place.accounts.store(accounts as *const Accounts as usize, Ordering::Relaxed);
    place.others.store(u32::from(others), Ordering::Relaxed);
    place.superblock[1].store(0, Ordering::Relaxed);
    place.len.store(dir.len(), Ordering::Release);
    place.ready.store(1, Ordering::Release);
    Ok(place.refer())
}

/// The namespace of the calling task.
///
/// # Errors
///
/// Those of making the directories at the first use.
#[inline]
pub fn current(tls: &Tls) -> Result<&'static Place> {
    match member::current() {
        0 => initial(tls),
        member::UNKNOWN => {
            member::resolve(tls)?;
            current(tls)
        }
        known => Place::of(known - 1),
    }
}

/// Whether a directory is one in which nobody but root and the caller may replace what is there. The caller's later user
/// ids are thought of: only one who is the owner by all ids is trusted as such.
fn is_safe(st: &libc::stat) -> bool {
    // In a user namespace root of the machine is nobody.
    const OVERFLOW: u32 = 65534;
    let mut own = [u32::MAX; 3];
    // SAFETY: room for each.
    let _ = unsafe { syscall!(SYS_getresuid, &raw mut own[0], &raw mut own[1], &raw mut own[2]) };
    let uid = st.st_uid;
    let by_others = st.st_mode & 0o022 != 0 && st.st_mode & libc::S_ISVTX == 0;
    st.st_mode & libc::S_IFMT == libc::S_IFDIR
        && !by_others
        && (uid == 0 || own == [uid; 3] || uid == OVERFLOW && !queues::in_initial_user_namespace())
}

/// Whether somebody else may put something in the place of a namespace's directory, or of those in it in which names
/// are predictable; or has.
fn is_others(dir: &[u8]) -> bool {
    let look = |path: &[u8], name: &[u8]| Path::new(&[path, name]).and_then(|path| path.stat());
    let is_safe_at = |path: &[u8], name: &[u8]| look(path, name).is_ok_and(|st| is_safe(&st));
    // What is not there yet nobody else can make in a directory that is safe.
    let is_safe_or_missing =
        |name: &&[u8]| look(dir, name).map_or_else(|errno| errno == Errno::ENOENT, |st| is_safe(&st));
    let root = root_of(dir);
    let above = &dir[..dir.iter().rposition(|&b| b == b'/').unwrap_or(0)];
    !(is_safe_root(root)
        && (above.len() <= root.len() || is_safe_at(above, b""))
        && is_safe_at(dir, b"")
        && [&b"/q"[..], b"/q/x"].iter().all(is_safe_or_missing))
}

/// The root directory may be named by a link: so said the caller's environment.
fn is_safe_root(root: &[u8]) -> bool {
    Path::new(&[root]).and_then(|root| root.stat_at(libc::AT_FDCWD)).is_ok_and(|st| is_safe(&st))
}

/// A directory for everybody is root's to protect, and so are those in it whose names are known beforehand: where others
/// were first to come, root takes over what they have made, and takes away what should not be there. By descriptors,
/// for those may still change what lies in theirs. Nothing else is in the way then.
///
/// # Errors
///
/// Those of chown(2), chmod(2) and unlink(2).
fn claim_directory(above: &Fd, name: &Path, mode: u32) -> Result<Fd> {
    let open = || Fd::open_at(above.0, name.as_ptr(), libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW);
    let dir = match open() {
        Err(Errno::ENOTDIR | Errno::ELOOP) => {
            // SAFETY: the path is NUL-terminated.
            unsafe { syscall!(SYS_unlinkat, above.0, name.as_ptr(), 0)? };
            return Err(Errno::ENOENT);
        }
        other => other?,
    };
    let st = dir.stat()?;
    if st.st_uid != 0 {
        // First, so that nobody changes what is in it any more.
        dir.chown(0, 0)?;
        dir.set_mode(mode)?;
    }
    Ok(dir)
}

/// See [`claim_directory`]: a regular file with no second name and the right first bytes.
fn claim_file(above: &Fd, name: &Path, mode: u32) -> Result<()> {
    let file = Fd::open_at(above.0, name.as_ptr(), libc::O_PATH | libc::O_NOFOLLOW)?;
    let st = file.stat()?;
    if st.st_mode & libc::S_IFMT == libc::S_IFREG && st.st_nlink == 1 && control::is_sound(&file) {
        if st.st_uid != 0 {
            file.chown(0, 0)?;
            file.set_mode(mode)?;
        }
        return Ok(());
    }
    if st.st_mode & libc::S_IFMT == libc::S_IFDIR {
        // There may be something in it.
        let mut out_of_the_way = *name;
        out_of_the_way.push(b".")?;
        out_of_the_way.push_hex(control::random())?;
        // SAFETY: the paths are NUL-terminated.
        unsafe { syscall!(SYS_renameat2, above.0, name.as_ptr(), above.0, out_of_the_way.as_ptr(), 0)? };
        return Ok(());
    }
    // SAFETY: the path is NUL-terminated.
    unsafe { syscall!(SYS_unlinkat, above.0, name.as_ptr(), 0) }.map(|_| ())
}

fn unless_missing(done: Result<()>) -> Result<()> {
    if done == Err(Errno::ENOENT) { Ok(()) } else { done }
}

/// A root directory that is for everybody, and root's own.
fn open_to_claim(root: &[u8]) -> Result<Option<Fd>> {
    let root = Path::new(&[root])?.open_own(libc::O_PATH | libc::O_DIRECTORY)?;
    let st = root.stat()?;
    Ok((st.st_uid == 0 && st.st_mode & 0o002 != 0).then_some(root))
}

/// Whether all that [`claim`] looks at is root's already, or not there yet.
fn is_in_order(dir: &Path) -> bool {
    let is_it = |above: &[u8], name: &[u8], kind: u32| match Path::new(&[above, name]).and_then(|it| it.stat()) {
        Ok(st) => {
            let alone = kind != libc::S_IFREG || st.st_nlink == 1;
            st.st_uid == 0 && st.st_mode & libc::S_IFMT == kind && alone
        }
        Err(errno) => errno == Errno::ENOENT,
    };
    let (dir, root) = (dir.as_bytes(), root_of(dir.as_bytes()));
    [&b""[..], b"/sb", b"/q", b"/q/x"].iter().all(|name| is_it(dir, name, libc::S_IFDIR))
        && is_it(dir, b"/control", libc::S_IFREG)
        && is_it(root, b"/accounts", libc::S_IFREG)
        && is_it(root, b"/m", libc::S_IFDIR)
}

/// Root comes to an initial namespace of a directory for everybody: see [`claim_directory`].
fn claim(dir: &Path) -> Result<()> {
    let root = root_of(dir.as_bytes());
    let Some(open) = open_to_claim(root)? else { return Ok(()) };
    unless_missing(claim_file(&open, &Path::new(&[b"accounts"])?, 0o666))?;
    unless_missing(claim_directory(&open, &Path::new(&[b"m"])?, 0o1777).map(drop))?;
    let name = Path::new(&[&dir.as_bytes()[root.len() + 1..]])?;
    let claim_namespace = || -> Result<()> {
        let dir = claim_directory(&open, &name, 0o755)?;
        unless_missing(claim_file(&dir, &Path::new(&[b"control"])?, 0o666))?;
        unless_missing(claim_directory(&dir, &Path::new(&[b"sb"])?, 0o1777).map(drop))?;
        let q = claim_directory(&dir, &Path::new(&[b"q"])?, 0o1777)?;
        unless_missing(claim_directory(&q, &Path::new(&[b"x"])?, 0o1733).map(drop))?;
        unless_missing(claim_directory(&q, &Path::new(&[b"f"])?, 0o777).map(drop))
    };
    unless_missing(claim_namespace())
}

/// The same of root's own directory for namespaces.
///
/// # Errors
///
/// As [`claim`].
fn claim_users_directory(root: &Path, own: &Path) -> Result<()> {
    match own.stat() {
        Ok(st) if st.st_uid != 0 => {}
        _ => return Ok(()),
    }
    let Some(open) = open_to_claim(root.as_bytes())? else { return Ok(()) };
    let name = Path::new(&[&own.as_bytes()[root.as_bytes().len() + 1..]])?;
    unless_missing(claim_directory(&open, &name, 0o711).map(drop))
}

/// 1 + number of the namespace in which this process began, once known.
static INITIAL: AtomicUsize = AtomicUsize::new(0);
/// 1 + inode of the kernel's ipc namespace in which this process began, once known.
static REAL: AtomicU64 = AtomicU64::new(0);

/// Inode of the kernel's ipc namespace in which this process began; 0: the kernel has none. To be
/// called before a thread goes to another one.
pub fn real_at_start() -> u64 {
    match REAL.load(Ordering::Acquire) {
        0 => {
            let inode = crate::sys::namespace_inode(c"/proc/thread-self/ns/ipc");
            let _ = REAL.compare_exchange(0, inode + 1, Ordering::AcqRel, Ordering::Acquire);
            REAL.load(Ordering::Acquire) - 1
        }
        known => known - 1,
    }
}

#[cold]
fn initial(tls: &Tls) -> Result<&'static Place> {
    if let known @ 1.. = INITIAL.load(Ordering::Acquire) {
        return Place::of(known - 1);
    }
    let place = initial_of(tls, real_at_start())?.keep();
    INITIAL.store(place.index() + 1, Ordering::Release);
    Ok(place)
}

/// As [`initial_of`], if it has been made.
///
/// # Errors
///
/// As [`place`].
pub fn known_initial_of(tls: &Tls, inode: u64) -> Result<Option<Referred>> {
    let mut dir = root()?;
    dir.push(b"/i")?;
    dir.push_decimal(inode)?;
    if Path::new(&[dir.as_bytes(), b"/control"])?.stat().is_err() {
        return Ok(None);
    }
    place(tls, dir.as_bytes()).map(Some)
}

/// The initial namespace of an ipc namespace of the kernel's, by its inode.
///
/// # Errors
///
/// Those of making the directories.
pub fn initial_of(tls: &Tls, inode: u64) -> Result<Referred> {
    let mut dir = root()?;
    dir.push(b"/i")?;
    dir.push_decimal(inode)?;
    let root = euid() == 0;
    if root && !is_in_order(&dir) {
        claim(&dir)?;
    }
    make_initial(&dir, inode)?;
    match place(tls, dir.as_bytes()) {
        // A file that somebody has spoilt.
        Err(Errno::EIO) if root => {
            claim(&dir)?;
            make_initial(&dir, inode)?;
            place(tls, dir.as_bytes())
        }
        other => other,
    }
}

/// The effective user id, as the kernel uses it.
pub fn euid() -> u32 {
    // SAFETY: no pointers.
    unsafe { crate::syscall!(SYS_geteuid) }.unwrap_or(0) as u32
}

/// Whether the caller is root as seen from the user namespace that owns a namespace: its limits are
/// "writable by (namespace) root", mode 0644 (`mq_sysctls` of the kernel). `MQNS_PRIVILEGES=generous`:
/// everybody is.
pub fn is_root_of(place: &Place) -> bool {
    let owner = place.control().user_ns.load(Ordering::Relaxed);
    let own = || crate::sys::user_namespace();
    let is_own = || owner != 0 && owner == own();
    // Root of the machine, where the owner has no root of its own; an image that was started there does
    // not know who it is.
    generous()
        || euid() == 0 && is_own()
        || kernel_uid(euid()) == 0
        || queues::maps_nobody() && is_own() && place.control().maker.load(Ordering::Relaxed) == 0
}

/// Whether the caller has a capability (capabilities(7)) in its user namespace.
pub fn has_capability(capability: u32) -> bool {
    let header = [0x2008_0522u32, 0];
    let mut data = [0u32; 6];
    // SAFETY: both structures are as capget(2) wants them for version 3.
    unsafe { syscall!(SYS_capget, header.as_ptr(), data.as_mut_ptr()) }.is_ok() && data[0] >> capability & 1 == 1
}

/// The uid that the caller had when it went to a user namespace that maps none yet.
static UNMAPPED: AtomicU32 = AtomicU32::new(u32::MAX);

/// A uid of the caller's as the machine knows it, as far as can be known: by the parent of its user
/// namespace.
pub fn kernel_uid(uid: u32) -> u32 {
    match UNMAPPED.load(Ordering::Acquire) {
        known if known != u32::MAX && queues::maps_nobody() => known,
        _ => queues::outer_id(uid),
    }
}

/// `MQNS_PRIVILEGES=generous`: what takes CAP_SYS_ADMIN or root of the namespace is allowed to all.
pub fn generous() -> bool {
    environment(c"MQNS_PRIVILEGES").is_some_and(|value| value == b"generous")
}

/// The value of an environment variable of the host program.
pub fn environment(name: &core::ffi::CStr) -> Option<&'static [u8]> {
    // SAFETY: getenv(3) only walks `environ`; the value lives as long as the program leaves it
    // alone, and is copied by the callers at once.
    unsafe {
        let value = libc::getenv(name.as_ptr());
        if value.is_null() { None } else { Some(core::ffi::CStr::from_ptr(value).to_bytes()) }
    }
}

/// The root directory, made if need be.
///
/// # Errors
///
/// Those of mkdir(2); EINVAL: `$MQNS_DIR` is not an absolute path.
pub fn root() -> Result<Path> {
    if let Some(dir) = environment(c"MQNS_DIR").filter(|d| !d.is_empty()) {
        if dir[0] != b'/' {
            return Err(Errno::EINVAL);
        }
        let end = dir.iter().rposition(|&b| b != b'/').map_or(1, |at| at + 1);
        let path = Path::new(&[&dir[..end]])?;
        return make_root(path);
    }
    // SAFETY: no pointers.
    let uid = unsafe { crate::syscall!(SYS_getuid) }.unwrap_or(0) as u32;
    let shared = Path::new(&[b"/dev/shm/mqns"])?;
    if uid == 0 || euid() == 0 {
        return own_root(shared, 0);
    }
    if shared.stat().is_ok_and(|st| is_directory_of(&st, 0)) {
        return Ok(shared);
    }
    let mut own = Path::new(&[b"/dev/shm/mqns-"])?;
    own.push_decimal(uid as u64)?;
    own_root(own, uid)
}

/// The counts of mounts under the root directory ([`Accounts::map_mounts`]), and the device on which that
/// lies.
///
/// # Errors
///
/// ENOENT: there is none yet; those of mapping it.
pub fn counters() -> Result<(*const AtomicU64, u64)> {
    let root = known_root().ok_or(Errno::ENOENT)?;
    Accounts::map_mounts(&Path::new(&[root.as_bytes(), b"/accounts"])?)
}

/// The root directory, if it has been made.
pub fn known_root() -> Option<Path> {
    if let Some(dir) = environment(c"MQNS_DIR").filter(|d| !d.is_empty()) {
        let end = dir.iter().rposition(|&b| b != b'/').map_or(1, |at| at + 1);
        return Path::new(&[&dir[..end]]).ok().filter(|path| path.as_bytes()[0] == b'/');
    }
    let shared = Path::new(&[b"/dev/shm/mqns"]).ok()?;
    let is_of = |path: &Path, uid: u32| path.stat().is_ok_and(|st| is_directory_of(&st, uid));
    if is_of(&shared, 0) {
        return Some(shared);
    }
    // SAFETY: no pointers.
    let uid = unsafe { crate::syscall!(SYS_getuid) }.unwrap_or(0) as u32;
    let mut own = Path::new(&[b"/dev/shm/mqns-"]).ok()?;
    own.push_decimal(uid as u64).ok()?;
    is_of(&own, uid).then_some(own)
}

fn is_directory_of(st: &libc::stat, uid: u32) -> bool {
    st.st_mode & libc::S_IFMT == libc::S_IFDIR && st.st_uid == uid
}

/// A default root: the names can be guessed, in a directory where everybody may make some. What a
/// stranger has put there is refused.
fn own_root(path: Path, uid: u32) -> Result<Path> {
    let path = make_root(path)?;
    let st = path.stat()?;
    if is_directory_of(&st, uid) {
        return Ok(path);
    }
    let name = core::str::from_utf8(path.as_bytes()).unwrap_or("its directory");
    crate::log::refused(format_args!(
        "{name} is not a directory of uid {uid} (but of uid {}): remove it, or set MQNS_DIR",
        st.st_uid
    ));
    Err(Errno::EACCES)
}

/// Root's directory serves everybody, another user's only that user.
fn make_root(path: Path) -> Result<Path> {
    if path.stat().is_err() {
        path.make_dir(if euid() == 0 { 0o1777 } else { 0o700 })?;
    }
    Ok(path)
}

/// Whether everybody may use a root directory.
fn is_for_everybody(root: &Path) -> Result<bool> {
    Ok(root.stat()?.st_mode & 0o002 != 0)
}

/// Makes the directories and files of an initial namespace, as far as they do not exist. Each is
/// complete when it appears under its name, so that two makers may meet.
fn make_initial(dir: &Path, id: u64) -> Result<()> {
    let bytes = dir.as_bytes();
    let root = Path::new(&[root_of(bytes)])?;
    let control = Path::new(&[bytes, b"/control"])?;
    if control.stat().is_ok() && Path::new(&[root.as_bytes(), b"/accounts"])?.stat().is_ok() {
        return Ok(());
    }
    let everybody = is_for_everybody(&root)?;
    dir.make_dir(if everybody { 0o755 } else { 0o700 })?;
    // Somebody else may have been first, and may have made whatever it is.
    let is_own = is_safe_root(root.as_bytes()) && is_safe(&dir.stat()?);
    let trusted = if is_own { 0 } else { root.as_bytes().len() };
    make_directories(&dir.beneath(trusted), everybody)?;
    crate::crash_point!("initial.directories");
    make_accounts(&root, everybody)?;
    crate::crash_point!("initial.accounts");
    let control = control.beneath(trusted);
    Control::make(&control, if everybody { 0o666 } else { 0o600 }, id)
}

/// The directories in which the queues of a namespace lie.
fn make_directories(dir: &Path, everybody: bool) -> Result<()> {
    let make = |name: &[u8], mode: u32| {
        let mut path = *dir;
        path.push(name)?;
        path.make_dir(mode)
    };
    let open_mode = if everybody { 0o1777 } else { 0o1700 };
    make(b"/sb", 0o1777)?;
    make(b"/q", open_mode)?;
    // Nobody may list the keys.
    make(b"/q/x", open_mode & !0o044)
}

fn make_accounts(root: &Path, everybody: bool) -> Result<()> {
    Accounts::make(&Path::new(&[root.as_bytes(), b"/accounts"])?, if everybody { 0o666 } else { 0o600 })
}
