//! What coordinator and workers share: one page-aligned mapping (a memfd that survives fork and
//! exec), the numbers of the descriptors that carry commands and answers, and the errno names
//! that traces show.

use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU32, Ordering};

/// Calls a libc function.
///
/// The arguments are plain numbers, pointers into memory that this process owns for as long as
/// the call lasts, or pointers that are wrong on purpose and reach the kernel only, which
/// answers them with EFAULT.
macro_rules! sys {
    ($name:ident($($arg:expr),* $(,)?)) => {{
        // SAFETY: see the macro's description; each caller passes arguments of that kind.
        #[allow(unused_unsafe)]
        unsafe { libc::$name($($arg),*) }
    }};
}
pub(crate) use sys;

/// Most workers that a run has.
pub const MAX_WORKERS: usize = 4;
/// The lowest descriptor that belongs to the tester; all below are the operations' playground.
pub const FD_RESERVED: i32 = 880;
/// The memfd behind [`Shared`].
pub const FD_SHARED: i32 = 890;
/// Worker's end of the command channel, plus the slot's number.
pub const FD_COMMAND: i32 = 900;
/// End from which a worker takes descriptors that were passed to it, plus the slot's number.
pub const FD_MAIL_IN: i32 = 910;
/// End into which the others put them.
pub const FD_MAIL_OUT: i32 = 920;
/// The coordinator's trace file.
pub const FD_TRACE: i32 = 930;
/// Coordinator's end of the command channel, plus the slot's number.
pub const FD_ANSWER: i32 = 950;
/// The coordinator keeps pidfds from here on.
pub const FD_PIDFD: i32 = 960;
/// Soft RLIMIT_NOFILE that every process begins with.
pub const NOFILE: u64 = 1024;

/// A worker waits for a command, or has answered the last one.
pub const PHASE_IDLE: u32 = 0;
/// A worker is inside a call that may sleep until another worker does something.
pub const PHASE_MAY_SLEEP: u32 = 1;
/// A worker is busy with something that ends by itself.
pub const PHASE_BUSY: u32 = 2;

/// Signals that one slot's log holds; more than one step can produce.
const LOG: usize = 256;
/// Room for the answer of a forked child, bytes.
const CHILD_ANSWER: usize = 8192;

/// A signal as a handler saw it.
#[repr(C)]
pub struct SignalRecord {
    /// Process that handled it.
    pub handled_by: AtomicI64,
    /// Signal number.
    pub signo: AtomicI64,
    /// si_code.
    pub code: AtomicI64,
    /// si_errno.
    pub errno: AtomicI64,
    /// si_pid.
    pub pid: AtomicI64,
    /// si_uid.
    pub uid: AtomicI64,
    /// si_value.sival_ptr as a number.
    pub value: AtomicI64,
}

/// One worker's part of the mapping.
#[repr(C)]
pub struct Slot {
    /// One of the PHASE_ values.
    pub phase: AtomicU32,
    /// Signals handled so far; the log entry is this modulo its length.
    pub signals: AtomicU32,
    /// The log.
    pub log: [SignalRecord; LOG],
    /// Length of `child_answer`, bytes.
    pub child_len: AtomicU32,
    /// What a forked child found out.
    pub child_answer: [AtomicU8; CHILD_ANSWER],
}

impl Slot {
    /// Appends to the log. Async-signal-safe.
    pub fn log_signal(&self, info: &libc::siginfo_t) {
        let at = self.signals.load(Ordering::SeqCst) as usize % LOG;
        let entry = &self.log[at];
        // SAFETY: every signal that has a handler here is sent by kill, sigqueue or mq_notify,
        // whose siginfo has these members.
        let (pid, uid, value) = unsafe { (info.si_pid(), info.si_uid(), info.si_value().sival_ptr as i64) };
        let has_value = info.si_code != libc::SI_USER;
        entry.handled_by.store(sys!(getpid()) as i64, Ordering::SeqCst);
        entry.signo.store(info.si_signo as i64, Ordering::SeqCst);
        entry.code.store(info.si_code as i64, Ordering::SeqCst);
        entry.errno.store(info.si_errno as i64, Ordering::SeqCst);
        entry.pid.store(pid as i64, Ordering::SeqCst);
        entry.uid.store(uid as i64, Ordering::SeqCst);
        entry.value.store(if has_value { value } else { 0 }, Ordering::SeqCst);
        self.signals.fetch_add(1, Ordering::SeqCst);
    }

    /// The log entry of the `n`th signal.
    pub fn signal(&self, n: u32) -> &SignalRecord {
        &self.log[n as usize % LOG]
    }

    /// Leaves a child's answer for its parent.
    pub fn put_child_answer(&self, text: &str) {
        let bytes = text.as_bytes();
        let len = bytes.len().min(CHILD_ANSWER);
        for (cell, byte) in self.child_answer.iter().zip(bytes) {
            cell.store(*byte, Ordering::SeqCst);
        }
        self.child_len.store(len as u32, Ordering::SeqCst);
    }

    /// Takes it.
    pub fn take_child_answer(&self) -> String {
        let len = self.child_len.swap(0, Ordering::SeqCst) as usize;
        let bytes = self.child_answer.iter().take(len).map(|c| c.load(Ordering::SeqCst)).collect();
        String::from_utf8(bytes).unwrap_or_else(|_| "?".to_string())
    }
}

/// The mapping.
#[repr(C)]
pub struct Shared {
    /// Real uid of the workers; unique to this run, so that RLIMIT_MSGQUEUE counts this run only.
    pub real_uid: AtomicU32,
    /// The unprivileged user of this run.
    pub user_uid: AtomicU32,
    /// One for each worker.
    pub slots: [Slot; MAX_WORKERS],
}

/// Makes the memfd (in the coordinator) and puts it at [`FD_SHARED`].
pub fn create() {
    let fd = sys!(memfd_create(c"differential".as_ptr(), 0));
    assert!(fd >= 0, "memfd_create: {}", std::io::Error::last_os_error());
    assert_eq!(sys!(ftruncate(fd, size_of::<Shared>() as i64)), 0);
    move_fd(fd, FD_SHARED);
}

/// Maps [`FD_SHARED`]; in every process once.
pub fn map() -> &'static Shared {
    let at = sys!(mmap(
        std::ptr::null_mut(),
        size_of::<Shared>(),
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_SHARED,
        FD_SHARED,
        0
    ));
    assert_ne!(at, libc::MAP_FAILED, "mapping the shared page");
    // SAFETY: a mapping of that size which is never unmapped; all members are atomics, for which
    // zero is a value.
    unsafe { &*at.cast::<Shared>() }
}

/// Moves a descriptor to a given number, without FD_CLOEXEC.
pub fn move_fd(from: i32, to: i32) {
    assert_eq!(sys!(dup2(from, to)), to, "dup2({from}, {to})");
    sys!(close(from));
}

/// errno of the calling thread.
pub fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// errno as its name.
pub fn errno_name(number: i32) -> String {
    macro_rules! names {
        ($($name:ident)*) => {
            match number {
                $(libc::$name => stringify!($name).to_string(),)*
                other => format!("E{other}"),
            }
        };
    }
    names!(
        EACCES EAGAIN EBADF EBUSY ECHILD EEXIST EFAULT EFBIG EINTR EINVAL EIO EISDIR ELOOP EMFILE
        EMSGSIZE ENAMETOOLONG ENFILE ENODEV ENOENT ENOMEM ENOSPC ENOSYS ENOTDIR ENOTTY ENOTSOCK
        ENXIO EOPNOTSUPP EOVERFLOW EPERM EPIPE ERANGE EROFS ESPIPE ESRCH ETIMEDOUT ETXTBSY
    )
}
