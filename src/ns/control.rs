//! The small shared files: a namespace's limits and counts, and the accounts of RLIMIT_MSGQUEUE.

use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64};

use crate::abi::{DFLT_MSG, DFLT_MSGSIZE, DFLT_QUEUESMAX, Errno, Result};
use crate::sys::path::Path;
use crate::syscall;

const MAGIC: u64 = u64::from_ne_bytes(*b"mqnsctl\x01");
const ACCOUNTS_MAGIC: u64 = u64::from_ne_bytes(*b"mqnsacc\x01");

/// The file `control` of a namespace.
#[repr(C)]
pub struct Control {
    /// Shows the kind and version. SYNC: publish_control (the file is renamed into place complete).
    magic: AtomicU64,
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
    /// Queues that exist, unlinked but open ones included (`mq_queues_count`).
    pub queues_count: AtomicU32,
    /// Queues without a name that were open when somebody last looked: worth another look.
    pub nameless: AtomicU32,
    /// Zero.
    pub pad: AtomicU32,
}
const _: () = assert!(size_of::<Control>() == 40);

/// One uid's account.
#[repr(C)]
struct Account {
    /// 1 + uid, 0: free.
    key: AtomicU64,
    /// Bytes charged.
    bytes: AtomicU64,
}

const ACCOUNTS: usize = 1023;

/// The file `accounts` of a root directory: an open hash table.
#[repr(C)]
pub struct Accounts {
    magic: AtomicU64,
    pad: AtomicU64,
    table: [Account; ACCOUNTS],
}
const _: () = assert!(size_of::<Accounts>() == 16384);

/// Makes a file of `len` bytes beginning with `head`, complete when it appears; whoever comes
/// second finds it done.
fn make(path: &Path, mode: u32, len: u64, head: &[u64]) -> Result<()> {
    if path.stat().is_ok() {
        return Ok(());
    }
    let mut fresh = *path;
    fresh.push(b".")?;
    fresh.push_decimal(crate::sys::gettid() as u64)?;
    fresh.push(b".")?;
    fresh.push_hex(random())?;
    let file = fresh.open(libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW, 0o600)?;
    let done = (|| {
        file.truncate(len)?;
        // SAFETY: `head` is as long as said.
        unsafe { syscall!(SYS_pwrite64, file.0, head.as_ptr(), size_of_val(head), 0)? };
        file.chmod(mode)?;
        match fresh.rename(path, false) {
            Err(Errno::EEXIST) => fresh.unlink(),
            other => other,
        }
    })();
    if done.is_err() {
        let _ = fresh.unlink();
    }
    done
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

/// Maps a small file for good.
fn map(path: &Path, len: usize, magic: u64) -> Result<*const AtomicU64> {
    let file = path.open_own(libc::O_RDWR | libc::O_NOFOLLOW)?;
    if (file.stat()?.st_size as u64) < len as u64 {
        return Err(Errno::EIO);
    }
    // SAFETY: a new shared mapping of a file that is long enough.
    let at = unsafe { syscall!(SYS_mmap, 0, len, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, file.0, 0)? };
    let word = at as *const AtomicU64;
    // SAFETY: the mapping is at least a word long.
    if unsafe { (*word).load(Acquire) } != magic {
        // SAFETY: our own mapping, not handed out.
        let _ = unsafe { syscall!(SYS_munmap, at, len) };
        return Err(Errno::EIO);
    }
    Ok(word)
}

impl Control {
    /// Makes the file, with the limits at their defaults.
    ///
    /// # Errors
    ///
    /// Those of making a file.
    pub fn make(path: &Path, mode: u32) -> Result<()> {
        let pair = |low: u32, high: u32| low as u64 | (high as u64) << 32;
        make(
            path,
            mode,
            4096,
            &[MAGIC, pair(DFLT_QUEUESMAX as u32, DFLT_MSG), pair(DFLT_MSGSIZE, DFLT_MSG), pair(DFLT_MSGSIZE, 0)],
        )
    }

    /// Maps the file, for the life of the process.
    ///
    /// # Errors
    ///
    /// Those of open(2) and mmap(2); EIO: not such a file.
    pub fn map(path: &Path) -> Result<*const Control> {
        map(path, size_of::<Control>(), MAGIC).map(|at| at.cast())
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
    pub fn map(path: &Path) -> Result<*const Accounts> {
        map(path, size_of::<Accounts>(), ACCOUNTS_MAGIC).map(|at| at.cast())
    }

    fn account(&self, uid: u32, make: bool) -> Option<&Account> {
        let key = 1 + uid as u64;
        let start = (uid.wrapping_mul(0x9e37_79b9) >> 16) as usize % ACCOUNTS;
        for at in (start..ACCOUNTS).chain(0..start) {
            let account = &self.table[at];
            let found = account.key.load(Acquire);
            if found == key {
                return Some(account);
            }
            if found == 0 {
                if !make {
                    return None;
                }
                match account.key.compare_exchange(0, key, AcqRel, Acquire) {
                    Ok(_) => return Some(account),
                    Err(other) if other == key => return Some(account),
                    Err(_) => {}
                }
            }
        }
        None
    }

    /// Charges bytes to a uid, as long as its total stays within `limit`.
    ///
    /// # Errors
    ///
    /// EMFILE: it would not (RLIMIT_MSGQUEUE, mq_open(3)); the total as it is goes to `used`.
    pub fn charge(&self, uid: u32, bytes: u64, limit: u64, used: &mut u64) -> Result<()> {
        // A table full of uids charges nobody: better than refusing everybody.
        let Some(account) = self.account(uid, true) else { return Ok(()) };
        account
            .bytes
            .fetch_update(AcqRel, Acquire, |now| {
                *used = now;
                now.checked_add(bytes).filter(|&sum| sum <= limit)
            })
            .map(|_| ())
            .map_err(|_| Errno::EMFILE)
    }

    /// Gives bytes back.
    pub fn discharge(&self, uid: u32, bytes: u64) {
        if let Some(account) = self.account(uid, false) {
            let _ = account.bytes.fetch_update(AcqRel, Acquire, |now| Some(now.saturating_sub(bytes)));
        }
    }

    /// Bytes charged to a uid.
    pub fn used(&self, uid: u32) -> u64 {
        self.account(uid, false).map_or(0, |account| account.bytes.load(Relaxed))
    }

    /// Sets what is charged to a uid, after a recount.
    pub fn set(&self, uid: u32, bytes: u64) {
        if let Some(account) = self.account(uid, true) {
            account.bytes.store(bytes, Release);
        }
    }
}
