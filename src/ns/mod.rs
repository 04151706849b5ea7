//! Namespaces: where the queues of a task lie, their limits, and what is charged to whom.
//!
//! ```text
//! ROOT/                         $MQNS_DIR, /dev/shm/mqns or /dev/shm/mqns-UID
//!   accounts                    RLIMIT_MSGQUEUE: bytes charged to each real uid
//!   i4026531839/                the initial namespace (of that ipc namespace of the kernel)
//!     control                   limits, number of queues ([`control::Control`])
//!     sb/                       the superblock directory: a file per name
//!     q/                        hidden: per queue, by the inode of its file
//!       1f.k                    its key
//!       1f.x                    the queue's file once the name is gone
//!       x/KEY.s  x/KEY.p        segment and FIFO; the FIFO is KEY.d once the name is gone
//!       f/1f.UID.BYTES          a second link to that FIFO then: what is charged until it is unused
//! ```

pub mod control;
pub mod queues;
pub mod sysctl;

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use crate::abi::{Errno, Result};
use crate::sys::path::Path;
use crate::sys::tls::Tls;
use control::{Accounts, Control};

/// A namespace directory as this process knows it. Never freed: a task may change namespaces at any
/// time, and queues stay where they are.
pub struct Place {
    /// 1: complete.
    ready: AtomicU32,
    path: core::cell::UnsafeCell<[u8; PATH]>,
    len: AtomicUsize,
    control: AtomicUsize,
    accounts: AtomicUsize,
}

const PATH: usize = 248;
const PLACES: usize = 4096;

// SAFETY: `path` is written once, before `ready` is stored with Release.
unsafe impl Sync for Place {}

static TABLE: [Place; PLACES] = [const {
    Place {
        ready: AtomicU32::new(0),
        path: core::cell::UnsafeCell::new([0; PATH]),
        len: AtomicUsize::new(0),
        control: AtomicUsize::new(0),
        accounts: AtomicUsize::new(0),
    }
}; PLACES];
/// Entries of the table taken; entry 0 is the process's initial namespace.
static TAKEN: AtomicUsize = AtomicUsize::new(0);

impl Place {
    /// The directory, without a NUL.
    pub fn dir(&self) -> &[u8] {
        let len = self.len.load(Ordering::Acquire).min(PATH);
        // SAFETY: written before `len` was stored with Release, and never again.
        unsafe { &(&*self.path.get())[..len] }
    }

    /// The namespace's own state.
    pub fn control(&self) -> &Control {
        // SAFETY: `add` has stored the address of a mapping that stays, of at least that size.
        unsafe { &*(self.control.load(Ordering::Acquire) as *const Control) }
    }

    /// What is charged to whom, under this root.
    pub fn accounts(&self) -> &Accounts {
        // SAFETY: as in `control`.
        unsafe { &*(self.accounts.load(Ordering::Acquire) as *const Accounts) }
    }

    /// Its number in this process.
    pub fn index(&self) -> usize {
        (self as *const Place as usize - TABLE.as_ptr() as usize) / size_of::<Place>()
    }

    /// The place of that number.
    pub fn of(index: usize) -> Result<&'static Place> {
        TABLE.get(index).filter(|p| p.ready.load(Ordering::Acquire) == 1).ok_or(Errno::EIO)
    }
}

/// The place of a directory that exists, known before or not.
///
/// # Errors
///
/// Those of opening its files; ENFILE: this process has met too many namespaces.
pub fn place(tls: &Tls, dir: &[u8]) -> Result<&'static Place> {
    for place in &TABLE[..TAKEN.load(Ordering::Acquire).min(PLACES)] {
        if place.ready.load(Ordering::Acquire) == 1 && place.dir() == dir {
            return Ok(place);
        }
    }
    add(tls, dir)
}

#[cold]
fn add(_tls: &Tls, dir: &[u8]) -> Result<&'static Place> {
    if dir.len() > PATH {
        return Err(Errno::ENAMETOOLONG);
    }
    let root_len = dir.iter().rposition(|&b| b == b'/').ok_or(Errno::EINVAL)?;
    let control = Control::map(&Path::new(&[dir, b"/control"])?)?;
    let accounts = Accounts::map(&Path::new(&[&dir[..root_len], b"/accounts"])?)?;
    let index = TAKEN.fetch_add(1, Ordering::AcqRel);
    let Some(place) = TABLE.get(index) else {
        TAKEN.fetch_sub(1, Ordering::AcqRel);
        return Err(Errno::ENFILE);
    };
    // SAFETY: the entry is ours alone until `ready` is stored.
    unsafe { (&mut *place.path.get())[..dir.len()].copy_from_slice(dir) };
    place.control.store(control as usize, Ordering::Relaxed);
    place.accounts.store(accounts as usize, Ordering::Relaxed);
    place.len.store(dir.len(), Ordering::Release);
    place.ready.store(1, Ordering::Release);
    Ok(place)
}

/// The namespace of the calling thread.
///
/// # Errors
///
/// Those of making the directories at the first use.
#[inline]
pub fn current(tls: &'static Tls) -> Result<&'static Place> {
    match tls.namespace.load(Ordering::Relaxed) {
        0 => initial(tls),
        known => Place::of(known - 1),
    }
}

/// The kernel's queue directory is root's: where another user was first to come, its owner could
/// unlink everybody's queues. Root takes it over.
fn claim(dir: &Path) {
    for part in [&b""[..], b"/sb", b"/q", b"/q/x", b"/q/f", b"/control"] {
        if let Ok(path) = Path::new(&[dir.as_bytes(), part])
            && path.stat().is_ok_and(|st| st.st_uid != 0)
        {
            let _ = path.chown(0, 0);
        }
    }
}

/// 1 + number of the initial namespace, once known.
static INITIAL: AtomicUsize = AtomicUsize::new(0);

#[cold]
fn initial(tls: &'static Tls) -> Result<&'static Place> {
    if let known @ 1.. = INITIAL.load(Ordering::Acquire) {
        tls.namespace.store(known, Ordering::Relaxed);
        return Place::of(known - 1);
    }
    let mut dir = root()?;
    dir.push(b"/i")?;
    dir.push_decimal(crate::sys::namespace_inode(c"/proc/self/ns/ipc"))?;
    make_namespace(&dir)?;
    if euid() == 0 {
        claim(&dir);
    }
    let place = place(tls, dir.as_bytes())?;
    INITIAL.store(place.index() + 1, Ordering::Release);
    tls.namespace.store(place.index() + 1, Ordering::Relaxed);
    Ok(place)
}

/// The effective user id, as the kernel uses it.
fn euid() -> u32 {
    // SAFETY: no pointers.
    unsafe { crate::syscall!(SYS_geteuid) }.unwrap_or(0) as u32
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

/// Makes the directories and files of a namespace, as far as they do not exist. Each is complete
/// when it appears under its name, so that two makers may meet.
fn make_namespace(dir: &Path) -> Result<()> {
    let bytes = dir.as_bytes();
    let root_len = bytes.iter().rposition(|&b| b == b'/').unwrap_or(0);
    let control = Path::new(&[bytes, b"/control"])?;
    if control.stat().is_ok() {
        return Ok(());
    }
    let everybody = Path::new(&[&bytes[..root_len]])?.stat()?.st_mode & 0o002 != 0;
    let (dir_mode, open_mode) = if everybody { (0o755, 0o1777) } else { (0o700, 0o1700) };
    dir.make_dir(dir_mode)?;
    Path::new(&[bytes, b"/sb"])?.make_dir(0o1777)?;
    Path::new(&[bytes, b"/q"])?.make_dir(open_mode)?;
    // What is charged for queues without a name: whoever finds one unused may take it off.
    Path::new(&[bytes, b"/q/f"])?.make_dir(open_mode & 0o777)?;
    // Nobody may list the keys.
    Path::new(&[bytes, b"/q/x"])?.make_dir(open_mode & !0o044)?;
    let file_mode = if everybody { 0o666 } else { 0o600 };
    Accounts::make(&Path::new(&[&bytes[..root_len], b"/accounts"])?, file_mode)?;
    Control::make(&control, file_mode)
}
