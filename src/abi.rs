//! What the man pages define: limits, structures and error numbers shared by every layer.
//!
//! Sources: mq_overview(7), mqueue.h of glibc, `ipc_namespace.h` of the kernel for the names
//! `MIN_`, `DFLT_` and `HARD_`.
#![deny(unsafe_code)]

/// An error number as in errno(3). Inside the library results are `Result<T, Errno>`; only
/// `interpose` stores it into the C variable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Errno(pub i32);

macro_rules! errnos {
    ($($name:ident),* $(,)?) => {
        #[allow(missing_docs)]
        impl Errno { $(pub const $name: Errno = Errno(libc::$name);)* }
    };
}
errnos!(
    EACCES,
    EAGAIN,
    EBADF,
    EBUSY,
    EDEADLK,
    EDQUOT,
    EEXIST,
    EFAULT,
    EINTR,
    EINVAL,
    EIO,
    EISDIR,
    ELOOP,
    EMFILE,
    EMSGSIZE,
    ENAMETOOLONG,
    ENFILE,
    ENODEV,
    ENOENT,
    ENOMEM,
    ENOSPC,
    ENOSYS,
    ENOTDIR,
    ENOTEMPTY,
    ENXIO,
    EOPNOTSUPP,
    EOVERFLOW,
    EPERM,
    EROFS,
    ESPIPE,
    ESRCH,
    ETIMEDOUT,
);

/// Result of everything below `interpose`.
pub type Result<T> = core::result::Result<T, Errno>;

/// `struct mq_attr` of mqueue.h: eight longs, of which four are named.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct MqAttr {
    /// O_NONBLOCK or 0.
    pub mq_flags: i64,
    /// Messages that fit.
    pub mq_maxmsg: i64,
    /// Bytes of the longest message.
    pub mq_msgsize: i64,
    /// Messages in the queue.
    pub mq_curmsgs: i64,
    /// Reserved, zero.
    pub pad: [i64; 4],
}
const _: () = assert!(core::mem::size_of::<MqAttr>() == 64);

/// Priorities go from 0 to one less than this (POSIX `MQ_PRIO_MAX`).
pub const MQ_PRIO_MAX: u32 = 32768;
/// Default of `/proc/sys/fs/mqueue/queues_max`.
pub const DFLT_QUEUESMAX: i32 = 256;
/// Default of `msg_max` and `msg_default`.
pub const DFLT_MSG: u32 = 10;
/// Default of `msgsize_max` and `msgsize_default`, bytes.
pub const DFLT_MSGSIZE: u32 = 8192;
/// Lowest value that `msg_*` may be set to.
pub const MIN_MSGMAX: u32 = 1;
/// Lowest value that `msgsize_*` may be set to, bytes.
pub const MIN_MSGSIZEMAX: u32 = 128;
/// Ceiling of `mq_maxmsg`, for those with CAP_SYS_RESOURCE as well.
pub const HARD_MSGMAX: u32 = 65536;
/// Ceiling of `mq_msgsize` in bytes, for those with CAP_SYS_RESOURCE as well.
pub const HARD_MSGSIZEMAX: u32 = 16 * 1024 * 1024;
/// `st_size` of a fresh queue file, bytes.
pub const FILENT_SIZE: u64 = 80;
/// `f_type` of statfs(2) on the mqueue file system.
pub const MQUEUE_MAGIC: i64 = 0x1980_0202;
/// fcntl(2) commands that the libc crate lacks.
pub const F_SETSIG: i32 = 10;
/// See [`F_SETSIG`].
pub const F_GETSIG: i32 = 11;
/// Longest queue name after the slash, bytes.
pub const NAME_MAX: usize = 255;

/// What a queue costs its owner under RLIMIT_MSGQUEUE, bytes (getrlimit(2), Linux 3.5 and later):
/// `maxmsg * msgsize + maxmsg * 48 + min(maxmsg, 32768) * 48`.
pub const fn msgqueue_cost(maxmsg: u32, msgsize: u32) -> u64 {
    let nodes = if maxmsg < MQ_PRIO_MAX { maxmsg } else { MQ_PRIO_MAX };
    maxmsg as u64 * msgsize as u64 + maxmsg as u64 * 48 + nodes as u64 * 48
}

#[cfg(test)]
mod tests {
    use super::msgqueue_cost;

    #[test]
    fn cost_is_what_the_kernel_charges() {
        assert_eq!(msgqueue_cost(1, 1), 97);
        assert_eq!(msgqueue_cost(4, 16), 448);
        assert_eq!(msgqueue_cost(10, 128), 2240);
        assert_eq!(msgqueue_cost(10, 8192), 82880);
    }
}
