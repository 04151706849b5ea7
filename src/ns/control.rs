//! The small shared files: a namespace's limits and counts, and the accounts of RLIMIT_MSGQUEUE.

use core::sync::atomic::Ordering::{Acquire, Relaxed};
use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64};

use super::ledger::{Change, Ledger, Noted, Refused, Sum};
use super::member::OwnTls;
use crate::abi::{DFLT_MSG, DFLT_MSGSIZE, DFLT_QUEUESMAX, Errno, Result};
use crate::shm::gone;
use crate::sys::path::{Fd, Path, may_grow_to};
use crate::syscall;

/// First word of a file `control`.
pub const MAGIC: u64 = u64::from_ne_bytes(*b"mqnsctl\x03");
/// First word of the file `accounts`.
pub const ACCOUNTS_MAGIC: u64 = u64::from_ne_bytes(*b"mqnsacc\x04");

/// Size of the file `control`, bytes. No other file is likely to have it, so that a look at the size
/// tells most files that are no namespace descriptors.
pub const CONTROL_SIZE: u64 = 28017;

/// The file `control` of a namespace.
///
/// Its shared flock is what membership is: see [`super::member`].
#[repr(C)]
pub struct Control {
    /// Shows the kind and version. SYNC: publish_control (the file is renamed into place complete, or
    /// lies where nobody can find it yet).
    magic: AtomicU64,
    /// Queues that exist, unlinked but open ones included (`mq_queues_count`).
    pub queues_count: Sum,
    /// `/proc/sys/fs/mqueue/queues_max`.
    pub queues_max: AtomicI32,
    /// `/proc/sys/fs/mqueue/msg_max`.
    pub msg_max: AtomicU32,
    /// `/proc/sys/fs/mqueue/msgsize_max`, bytes.
    pub msgsize_max: AtomicU32,
    /// `/proc/sys/fs/mqueue/msg_default`.
    pub msg_default: AtomicU32,
    /// `/proc/sys/fs/mqueue/msgsize_default`, bytes.
    pub msgsize_default: AtomicU32,
    /// Queues without a name that were open when somebody last looked: worth another look.
    pub nameless: AtomicU32,
    /// [`DEAD`], [`BOUND`].
    pub state: AtomicU32,
    pad: AtomicU32,
    /// The number by which the namespace is known: `ipc:[ID]`.
    pub id: AtomicU64,
    /// The name of its directory below `n<ID>`, which nobody can guess; 0 for an initial namespace.
    pub secret: [AtomicU64; 2],
    /// Inode of the user namespace that owns it; 0: not known.
    pub user_ns: AtomicU64,
    /// Inode of the kernel's ipc namespace that was made with it, 0 if none was.
    pub real: AtomicU64,
    /// Uid of its maker, as the machine knows it.
    pub maker: AtomicU64,
}
const _: () = assert!(size_of::<Control>() == 96);

/// See [`Control::look`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Content {
    /// [`Control::queues_count`].
    pub queues: u64,
    /// [`Control::state`].
    pub state: u32,
}
const _: () = assert!(core::mem::offset_of!(Control, queues_count) == 8 && core::mem::offset_of!(Control, state) == 40);

/// Offset in the file of the path of its directory, NUL-terminated.
const OWN_PATH: u64 = 1024;

/// In [`Control::state`]: the last task has left. Set while nobody can be a member, and for good.
pub const DEAD: u32 = 1;
/// In [`Control::state`]: the file has been bind mounted somewhere, which keeps the namespace alive.
pub const BOUND: u32 = 2;
/// In [`Control::state`]: the superblock has been mounted somewhere, which keeps it when the namespace is
/// [`DEAD`]. For good.
pub const MOUNTED: u32 = 4;
/// In [`Control::state`]: the file system has been remounted read-only.
pub const READ_ONLY: u32 = 8;
/// In [`Control::state`]: it has been given a name ([`super::named`]).
pub const NAMED: u32 = 16;

/// The first bytes of a fresh file `control`, with the limits at their defaults.
fn head(id: u64, secret: [u64; 2], user_ns: u64, maker: u64) -> [u64; 12] {
    let pair = |low: u32, high: u32| low as u64 | (high as u64) << 32;
    let limits = [pair(DFLT_QUEUESMAX as u32, DFLT_MSG), pair(DFLT_MSGSIZE, DFLT_MSG), pair(DFLT_MSGSIZE, 0)];
    [MAGIC, 0, limits[0], limits[1], limits[2], 0, id, secret[0], secret[1], user_ns, 0, maker]
}

/// The file `accounts` of a root directory.
#[repr(C)]
pub struct Accounts {
    magic: AtomicU64,
    /// How far the last look at them has come, a position of lseek(2) in the root directory.
    pub looked: AtomicU64,
    /// How many mounts of superblocks have ever been made under this root: while there are none, no path
    /// leads into one. In the first page, which processes map that have no queue.
    pub mounts: AtomicU64,
    /// How many virtual mounts have ever been made.
    pub virtuals: AtomicU64,
    pad: [AtomicU64; 2],
    ledger: Ledger,
}
const _: () = assert!(size_of::<Accounts>() == 16384);

/// Makes a file of `len` bytes beginning with `head`, complete when it appears; whoever comes
/// second finds it done.
fn make(path: &Path, mode: u32, len: u64, head: &[u64]) -> Result<()> {
    if path.stat().is_ok() {
        return Ok(());
    }
    let fill = |file: &Fd| {
        let _growth = may_grow_to(len)?;
        file.truncate(len)?;
        // SAFETY: `head` is as long as said.
        unsafe { syscall!(SYS_pwrite64, file.0, head.as_ptr(), size_of_val(head), 0)? };
        file.chmod(mode)
    };
    let first = |done| if done == Err(Errno::EEXIST) { Ok(()) } else { done };
    // Without a name, so that nothing is left should this process be killed.
    if let Ok(file) = path.open_nameless(0o600) {
        fill(&file)?;
        crate::crash_point!("file.drafted");
        match first(file.name(path)) {
            // Without a proc file system it cannot get one.
            Err(Errno::ENOENT) => {}
            other => return other,
        }
    }
    let mut fresh = *path;
    fresh.push(b".")?;
    fresh.push_decimal(crate::sys::gettid() as u64)?;
    fresh.push(b".")?;
    fresh.push_hex(random())?;
    let file = fresh.open(libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW, 0o600)?;
    let done = fill(&file).and_then(|()| fresh.rename(path, false));
    if done.is_err() {
        let _ = fresh.unlink();
    }
    first(done)
}

/// A number that two callers don't share.
pub fn random() -> u64 {
    let mut value = 0u64;
    // SAFETY: eight bytes to a local.
    if unsafe { syscall!(SYS_getrandom, &raw mut value, 8, 1) } != Ok(8) {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the result goes to a local.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
        value = (now.tv_nsec as u64) << 32 ^ now.tv_sec as u64 ^ (crate::sys::gettid() as u64) << 20;
    }
    value
}

/// Whether a file is a regular one, and long enough.
fn is_file_of(st: &libc::stat, len: u64) -> bool {
    st.st_mode & libc::S_IFMT == libc::S_IFREG && st.st_size as u64 >= len
}

/// Maps a small file for good.
fn map(path: &Path, len: usize, magic: u64) -> Result<*const AtomicU64> {
    // Whatever others may have put there: a FIFO, or a file with a lease on it, keeps nobody waiting.
    let file = path.open_own(libc::O_RDWR | libc::O_NOFOLLOW | libc::O_NONBLOCK)?;
    if !is_file_of(&file.stat()?, len as u64) {
        return Err(Errno::EIO);
    }
    // SAFETY: a new shared mapping of a file that is long enough.
    let at = unsafe { syscall!(SYS_mmap, 0, len, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, file.0, 0)? };
    let word = at as *const AtomicU64;
    let noted = gone::note(at, len, gone::Kind::Other);
    // SAFETY: the mapping is at least a word long.
    if unsafe { (*word).load(Acquire) } != magic {
        gone::forget(noted);
        // SAFETY: our own mapping, not handed out.
        let _ = unsafe { syscall!(SYS_munmap, at, len) };
        return Err(Errno::EIO);
    }
    Ok(word)
}

/// Whether a descriptor with O_PATH is that of such a file, with its first bytes.
pub fn is_sound(file: &Fd) -> bool {
    let open = || file.link()?.open_own(libc::O_RDONLY | libc::O_NONBLOCK);
    let Ok(file) = open() else { return false };
    let mut magic = 0u64;
    // SAFETY: eight bytes to a local.
    let got = unsafe { syscall!(SYS_pread64, file.0, &raw mut magic, 8, 0) };
    let len = match magic {
        MAGIC => CONTROL_SIZE,
        ACCOUNTS_MAGIC => size_of::<Accounts>() as u64,
        _ => return false,
    };
    got == Ok(8) && file.stat().is_ok_and(|st| is_file_of(&st, len))
}

impl Control {
    /// A number that no other namespace under the root has. It tells nobody the secret.
    pub(super) fn number(&self) -> u64 {
        let mix =
            |sum: u64, word: &AtomicU64| (sum ^ word.load(Relaxed)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        [&self.id, &self.secret[0], &self.secret[1]].into_iter().fold(0, mix)
    }

    /// Makes the file, with the limits at their defaults.
    ///
    /// # Errors
    ///
    /// Those of making a file.
    pub fn make(path: &Path, mode: u32, id: u64) -> Result<()> {
        make(path, mode, CONTROL_SIZE, &head(id, [0; 2], 0, 0))
    }

    /// Where a file `control` says that it lies. It may have been moved, or be out of sight.
    pub fn own_path(file: &Fd) -> Option<Path> {
        let mut path = [0u8; 512];
        // SAFETY: the buffer is as long as said.
        let got = unsafe { syscall!(SYS_pread64, file.0, path.as_mut_ptr(), path.len(), OWN_PATH).ok()? };
        let len = path[..got].iter().position(|&b| b == 0)?;
        Path::new(&[&path[..len]]).ok().filter(|_| len != 0)
    }

    /// What a namespace holds, by its file, before anybody looks closer. Nothing: the file is not complete.
    pub fn look(file: &Fd) -> Option<Content> {
        let mut head = [0u64; 6];
        // SAFETY: the buffer is as long as said.
        let got = unsafe { syscall!(SYS_pread64, file.0, head.as_mut_ptr(), size_of_val(&head), 0).ok()? };
        (got == size_of_val(&head) && head[0] == MAGIC)
            .then_some(Content { queues: Sum::of(head[1]), state: head[5] as u32 })
    }

    /// Sets the state to [`DEAD`], in the file.
    ///
    /// # Errors
    ///
    /// Those of pwrite(2).
    pub fn declare_dead(file: &Fd) -> Result<()> {
        let state = DEAD;
        let at = core::mem::offset_of!(Control, state);
        file.write_at(&state.to_ne_bytes(), at as u64)
    }

    /// The secret of a stand-in, see [`Control::make_stand_in`].
    pub const STAND_IN: [u64; 2] = [u64::MAX, 0];

    /// Makes a file that can be told to stand for namespace `id`, and says nothing else.
    ///
    /// # Errors
    ///
    /// Those of making a file.
    pub fn make_stand_in(path: &Path, id: u64) -> Result<()> {
        make(path, 0o444, CONTROL_SIZE, &head(id, Control::STAND_IN, 0, 0))
    }

    /// Fills the file in directory `dir`, which nobody can find yet.
    ///
    /// # Errors
    ///
    /// ENOSPC.
    pub fn fill(file: &Fd, dir: &[u8], id: u64, secret: [u64; 2], user_ns: u64, maker: u32) -> Result<()> {
        let _growth = may_grow_to(CONTROL_SIZE)?;
        file.truncate(CONTROL_SIZE)?;
        // SAFETY: `dir` is as long as said.
        unsafe { syscall!(SYS_pwrite64, file.0, dir.as_ptr(), dir.len(), OWN_PATH)? };
        let head = head(id, secret, user_ns, maker.into());
        // SAFETY: `head` is as long as said.
        unsafe { syscall!(SYS_pwrite64, file.0, head.as_ptr(), size_of_val(&head), 0) }.map(|_| ())
    }

    /// Id and secret of the namespace whose file `control` a descriptor refers to, if it does: its own
    /// word, to be checked.
    pub fn peek(fd: i32) -> Option<(u64, [u64; 2])> {
        let mut head = [0u64; 12];
        // SAFETY: the buffer is as long as said.
        let got = unsafe { syscall!(SYS_pread64, fd, head.as_mut_ptr(), size_of_val(&head), 0).ok()? };
        (got == size_of_val(&head) && head[0] == MAGIC).then_some((head[6], [head[7], head[8]]))
    }

    /// Maps the file.
    ///
    /// # Errors
    ///
    /// Those of open(2) and mmap(2); EIO: not such a file.
    pub fn map(path: &Path) -> Result<*const Control> {
        map(path, size_of::<Control>(), MAGIC).map(|at| at.cast())
    }

    /// Undoes [`Control::map`]: nobody may use it any more.
    pub fn unmap(at: *const Control) {
        gone::forget(gone::entry_of(at as usize));
        // SAFETY: a mapping that `map` has made, by the caller's word unused.
        let _ = unsafe { syscall!(SYS_munmap, at, size_of::<Control>()) };
    }
}

impl Accounts {
    /// Makes the file, empty.
    ///
    /// # Errors
    ///
    /// Those of making a file.
    pub fn make(path: &Path, mode: u32) -> Result<()> {
        make(path, mode, size_of::<Accounts>() as u64, &[ACCOUNTS_MAGIC])
    }

    /// Maps the file, for the life of the process.
    ///
    /// # Errors
    ///
    /// Those of open(2) and mmap(2); EIO: not such a file.
    pub fn map(path: &Path) -> Result<&'static Accounts> {
        // SAFETY: a mapping of that size, taken away only by `unmap`, when nobody uses it.
        map(path, size_of::<Accounts>(), ACCOUNTS_MAGIC).map(|at| unsafe { &*at.cast() })
    }

    /// Undoes [`Accounts::map`]: nobody may use it any more.
    pub fn unmap(at: *const Accounts) {
        // SAFETY: a mapping that `map` has made, by the caller's word unused.
        let _ = unsafe { syscall!(SYS_munmap, at, size_of::<Accounts>()) };
    }

    /// The counts of mounts and of virtual mounts, mapped to be read only, for the life of the process; and the device on which the
    /// root lies.
    ///
    /// # Errors
    ///
    /// Those of open(2) and mmap(2); EIO: not such a file.
    pub fn map_mounts(path: &Path) -> Result<(*const AtomicU64, u64)> {
        let file = path.open_own(libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK)?;
        let st = file.stat()?;
        if !is_file_of(&st, size_of::<Accounts>() as u64) {
            return Err(Errno::EIO);
        }
        // SAFETY: a new shared mapping of a file that is long enough.
        let at = unsafe { syscall!(SYS_mmap, 0, 4096, libc::PROT_READ, libc::MAP_SHARED, file.0, 0)? };
        let noted = gone::note(at, 4096, gone::Kind::Other);
        // SAFETY: the mapping is a page long.
        if unsafe { (*(at as *const AtomicU64)).load(Acquire) } != ACCOUNTS_MAGIC {
            gone::forget(noted);
            // SAFETY: our own mapping, not handed out.
            let _ = unsafe { syscall!(SYS_munmap, at, 4096) };
            return Err(Errno::EIO);
        }
        Ok(((at + core::mem::offset_of!(Accounts, mounts)) as *const AtomicU64, st.st_dev))
    }

    /// See [`Ledger::charge`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn charge(&self, what: &Change<'_>, limit: u64, queues_max: u32) -> core::result::Result<Noted<'_>, Refused> {
        self.ledger.charge(OwnTls::new().tls(), what, limit, queues_max)
    }

    /// See [`Ledger::give_back`].
    pub fn give_back(&self, what: &Change<'_>, is_due: impl Fn(bool) -> bool) -> Option<Noted<'_>> {
        self.ledger.give_back(OwnTls::new().tls(), what, is_due)
    }

    /// See [`Ledger::catch_up`].
    pub fn catch_up(&self, what: &Change<'_>) {
        self.ledger.catch_up(OwnTls::new().tls(), what);
    }

    /// Bytes charged to a uid.
    pub fn used(&self, uid: u32) -> u64 {
        self.ledger.used(uid)
    }

    /// Calls `see` with each uid that something is charged to, and how many bytes.
    pub fn each(&self, see: impl FnMut(u32, u64)) {
        self.ledger.each(see);
    }
}
