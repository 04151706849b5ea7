//! The descriptor as a file: read, lseek, fstat, chmod… of queue descriptors, and the paths in
//! `/proc/self/fd` that lead to them.
//!
//! For anything else a hook costs a table look-up and goes on to the next definition, cancellation
//! point or not (hence `C-unwind`: pthread_cancel unwinds through these frames, which hold nothing
//! to destroy).
//!
//! stdio calls the kernel behind every hook: streams of queues get functions of their own (`cshim/stream.c`).

use core::ffi::{c_char, c_int, c_uint, c_ulong, c_void};

use super::path::Change;
use super::{BYPASS, aside, find_next, jump, next, nsfile, path, raw_result, ret, sysctl};
use crate::abi::{Errno, Result};
use crate::desc;
use crate::face::{self, From};
use crate::sys::fault;
use crate::syscall;
use crate::vfs::{self, ops};

jump! {
    /// open(2).
    open => cshim_open;
    /// open(2) for programs with 64-bit offsets.
    open64 => cshim_open64;
    /// open(2), by its older name.
    __open => cshim_open;
    /// open(2), by its older name.
    __open64 => cshim_open64;
    /// openat(2).
    openat => cshim_openat;
    /// openat(2) for programs with 64-bit offsets.
    openat64 => cshim_openat64;
    /// ioctl(2).
    ioctl => cshim_ioctl;
}

unsafe extern "C-unwind" {
    fn pthread_testcancel();
}

/// What the calls that may block are, even where they don't.
fn cancellation_point() {
    // SAFETY: no arguments; the frames above hold nothing to destroy.
    unsafe { pthread_testcancel() }
}

/// Hooks: `fn NAME(ARGUMENTS) -> TYPE, KIND[POINT] { KEYS => |descriptor, tls| answer }`, where the
/// answer is a `Result<usize>`. POINT is `point` for a cancellation point. Kinds and keys:
///
/// - `fd { N }`: N is a queue descriptor;
/// - `path { D, P }`: path P, relative to directory D, leads to one;
/// - `at { D, P, F }`: the same with `AT_*` flags F, with which it may be D itself;
/// - `number { N }`: as `fd`, for functions that return the error number;
/// - `none {}`: nothing;
/// - `if_fd { C, … }`, `if_path { C, … }`: as above, where C holds.
macro_rules! hooks {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),*) -> $ret:ty,
        $kind:ident[$($point:ident)?] { $($key:tt)* })*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        ///
        /// The C prototype's.
        #[cfg_attr(not(test), unsafe(no_mangle))]
        #[allow(unused_unsafe)]
        pub unsafe extern "C-unwind" fn $name($($arg: $type),*) -> $ret {
            hooks!(@$kind [$($point)?] $ret, $($key)*);
            hooks!(@sysctl $name $($arg)*);
            hooks!(@target $name $($arg)*);
            let next = next!($name: unsafe extern "C-unwind" fn($($type),*) -> $ret);
            // SAFETY: the caller's contract is its.
            let result = unsafe { next($($arg),*) };
            hooks!(@after $name result $($arg)*);
            result
        }
    )*};
    // What the kernel has said of namespaces is put right.
    (@after fstat $result:ident $fd:ident $to:ident) => { hooks!(@descriptor $result $fd $to) };
    (@after fstat64 $result:ident $fd:ident $to:ident) => { hooks!(@descriptor $result $fd $to) };
    (@after __fxstat $result:ident $version:ident $fd:ident $to:ident) => { hooks!(@descriptor $result $fd $to) };
    (@after __fxstat64 $result:ident $version:ident $fd:ident $to:ident) => { hooks!(@descriptor $result $fd $to) };
    (@after stat $result:ident $path:ident $to:ident) => { hooks!(@status $result libc::AT_FDCWD, $path, 0, $to) };
    (@after stat64 $result:ident $path:ident $to:ident) => { hooks!(@status $result libc::AT_FDCWD, $path, 0, $to) };
    (@after lstat $result:ident $path:ident $to:ident) => {
        hooks!(@status $result libc::AT_FDCWD, $path, NO_FOLLOW, $to)
    };
    (@after lstat64 $result:ident $path:ident $to:ident) => {
        hooks!(@status $result libc::AT_FDCWD, $path, NO_FOLLOW, $to)
    };
    (@after __lxstat $result:ident $version:ident $path:ident $to:ident) => {
        hooks!(@status $result libc::AT_FDCWD, $path, NO_FOLLOW, $to)
    };
    (@after __lxstat64 $result:ident $version:ident $path:ident $to:ident) => {
        hooks!(@status $result libc::AT_FDCWD, $path, NO_FOLLOW, $to)
    };
    (@after __xstat $result:ident $version:ident $path:ident $to:ident) => {
        hooks!(@status $result libc::AT_FDCWD, $path, 0, $to)
    };
    (@after __xstat64 $result:ident $version:ident $path:ident $to:ident) => {
        hooks!(@status $result libc::AT_FDCWD, $path, 0, $to)
    };
    (@after fstatat $result:ident $dir:ident $path:ident $to:ident $flags:ident) => {
        hooks!(@status $result $dir, $path, $flags, $to)
    };
    (@after fstatat64 $result:ident $dir:ident $path:ident $to:ident $flags:ident) => {
        hooks!(@status $result $dir, $path, $flags, $to)
    };
    (@after __fxstatat $result:ident $version:ident $dir:ident $path:ident $to:ident $flags:ident) => {
        hooks!(@status $result $dir, $path, $flags, $to)
    };
    (@after __fxstatat64 $result:ident $version:ident $dir:ident $path:ident $to:ident $flags:ident) => {
        hooks!(@status $result $dir, $path, $flags, $to)
    };
    (@after statx $result:ident $dir:ident $path:ident $flags:ident $mask:ident $to:ident) => {
        // SAFETY: the kernel has accepted the pointers.
        if $result == 0 && unsafe { is_suspect_x(&*$to) } {
            let answer = aside(move || {
                // SAFETY: as above.
                if let Err(errno) = unsafe { nsfile::extended_status($dir, $path, $flags & NO_FOLLOW == 0, $to) } {
                    return raw_result(Err(errno));
                }
                let path = if $path.is_null() { c"".as_ptr() } else { $path };
                // SAFETY: as above.
                unsafe { path::extended_status($dir, path, $flags & NO_FOLLOW == 0, &mut *$to) };
                0
            });
            return ret(crate::sys::check(answer)) as c_int;
        }
    };
    (@after fstatfs $result:ident $fd:ident $to:ident) => { hooks!(@file_system $result $fd $to) };
    (@after fstatfs64 $result:ident $fd:ident $to:ident) => { hooks!(@file_system $result $fd $to) };
    (@after statfs $result:ident $path:ident $to:ident) => { hooks!(@file_system_at $result $path $to) };
    (@after statfs64 $result:ident $path:ident $to:ident) => { hooks!(@file_system_at $result $path $to) };
    (@after readlink $result:ident $path:ident $to:ident $len:ident) => {
        hooks!(@link $result libc::AT_FDCWD, $path, $to, $len)
    };
    (@after __readlink_chk $result:ident $path:ident $to:ident $len:ident $size:ident) => {
        hooks!(@link $result libc::AT_FDCWD, $path, $to, $len)
    };
    (@after readlinkat $result:ident $dir:ident $path:ident $to:ident $len:ident) => {
        hooks!(@link $result $dir, $path, $to, $len)
    };
    (@after __readlinkat_chk $result:ident $dir:ident $path:ident $to:ident $len:ident $size:ident) => {
        hooks!(@link $result $dir, $path, $to, $len)
    };
    (@after __open_2 $result:ident $path:ident $flags:ident) => { hooks!(@opened $result libc::AT_FDCWD, $path, $flags) };
    (@after __open64_2 $result:ident $path:ident $flags:ident) => { hooks!(@opened $result libc::AT_FDCWD, $path, $flags) };
    (@after __openat_2 $result:ident $dir:ident $path:ident $flags:ident) => { hooks!(@opened $result $dir, $path, $flags) };
    (@after __openat64_2 $result:ident $dir:ident $path:ident $flags:ident) => { hooks!(@opened $result $dir, $path, $flags) };
    (@after fstatvfs $result:ident $fd:ident $to:ident) => {
        if $result == 0 && path::is_mqueue($fd) {
            // SAFETY: the libc function has filled it in.
            unsafe { path::file_system_5($fd, &mut *$to) };
        }
    };
    (@after fstatvfs64 $result:ident $fd:ident $to:ident) => {
        if $result == 0 && path::is_mqueue($fd) {
            // SAFETY: the libc function has filled it in.
            unsafe { path::file_system_5($fd, &mut *$to) };
        }
    };
    (@after statvfs $result:ident $path:ident $to:ident) => {
        // SAFETY: the kernel has accepted the path.
        if $result == 0 && let Some(file) = unsafe { path::open_of($path) } {
            // SAFETY: the libc function has filled it in.
            unsafe { path::file_system_5(file.0, &mut *$to) };
        }
    };
    (@after statvfs64 $result:ident $path:ident $to:ident) => {
        // SAFETY: the kernel has accepted the path.
        if $result == 0 && let Some(file) = unsafe { path::open_of($path) } {
            // SAFETY: the libc function has filled it in.
            unsafe { path::file_system_5(file.0, &mut *$to) };
        }
    };
    (@after $($other:ident)*) => {};
    (@descriptor $result:ident $fd:ident $to:ident) => {
        // SAFETY: the kernel has filled it in.
        if $result == 0 && unsafe { is_suspect_descriptor(&*$to) } {
            let answer = aside(move || {
                // SAFETY: as above.
                unsafe {
                    if (*$to).st_mode == QUEUE_MODE {
                        // Perhaps a queue's that has come over exec under a high number.
                        desc::arrived($fd);
                        if let Some(result) = face::with_any($fd, |d, _| face::fstat(d, $to)) {
                            return raw_result(result);
                        }
                    }
                    nsfile::status_of_descriptor($fd, $to);
                    path::status_of_descriptor($fd, &mut *$to);
                }
                0
            });
            return ret(crate::sys::check(answer)) as c_int;
        }
    };
    (@status $result:ident $dir:expr, $path:ident, $flags:expr, $to:ident) => {
        // SAFETY: the kernel has accepted the pointers.
        if $result == 0 && unsafe { is_suspect(&*$to) } {
            let answer = aside(move || {
                let path = if $path.is_null() { c"".as_ptr() } else { $path };
                // SAFETY: as above.
                if let Err(errno) = unsafe { nsfile::status($dir, path, $flags & NO_FOLLOW == 0, $to) } {
                    return raw_result(Err(errno));
                }
                // SAFETY: as above.
                unsafe { path::status($dir, path, $flags & NO_FOLLOW == 0, &mut *$to) };
                // SAFETY: as above.
                if desc::any() && $flags & NO_FOLLOW != 0 && unsafe { (*$to).st_mode } & libc::S_IFMT == libc::S_IFLNK {
                    // SAFETY: as above.
                    unsafe { link_status($dir, path, &mut *$to) };
                }
                0
            });
            return ret(crate::sys::check(answer)) as c_int;
        }
    };
    (@file_system $result:ident $fd:ident $to:ident) => {
        if $result == 0 && path::is_mqueue($fd) {
            // SAFETY: the kernel has filled it in.
            return ret(unsafe { path::file_system($fd, $to) }) as c_int;
        }
        if $result == 0 && let Some(kind) = nsfile::kind_of_file_system($fd) {
            // SAFETY: the kernel has filled it in.
            unsafe { (*$to).f_type = kind };
        }
    };
    (@file_system_at $result:ident $path:ident $to:ident) => {
        // SAFETY: the kernel has accepted the path.
        if $result == 0 && let Some(file) = unsafe { path::open_of($path) } {
            // SAFETY: the kernel has filled it in.
            return ret(unsafe { path::file_system(file.0, $to) }) as c_int;
        }
        // SAFETY: the kernel has accepted the path.
        if $result == 0 && let Some(kind) = unsafe { nsfile::kind_of_file_system_at($path) } {
            // SAFETY: the kernel has filled it in.
            unsafe { (*$to).f_type = kind };
        }
    };
    (@link $result:ident $dir:expr, $path:ident, $to:ident, $len:ident) => {
        let readable = kernel_result($result) != -(libc::EFAULT as isize);
        // SAFETY: the kernel has accepted the pointers.
        if readable && unsafe { nsfile::may_be_link($path, $to, $len, $result) } {
            // SAFETY: as above.
            let linked = aside(move || unsafe { nsfile::linked($dir, $path, $to, $len, kernel_result($result)) });
            if linked != $result {
                return ret(crate::sys::check(linked));
            }
        }
    };
    (@opened $result:ident $dir:expr, $path:ident, $flags:ident) => {
        let kernel = kernel_result($result as isize) as c_int;
        if kernel >= 0 || kernel == -libc::ENOENT || kernel == -libc::EACCES {
            // SAFETY: the kernel has accepted the path.
            let opened = unsafe { nsfile::mqns_ns_opened($dir, $path, $flags, kernel) };
            if opened != BYPASS {
                return ret(crate::sys::check(opened)) as c_int;
            }
        }
    };
    // The two calls that matter to `/proc/sys/fs/mqueue`; and a namespace cannot be read.
    (@sysctl read $fd:ident $to:ident $len:ident) => {
        if nsfile::is_known($fd) {
            return ret(Err(Errno::EINVAL));
        }
        if sysctl::is_known($fd) {
            sysctl::refresh($fd);
        }
    };
    (@sysctl write $fd:ident $from:ident $len:ident) => {
        if sysctl::is_known($fd) {
            // SAFETY: the caller's contract; user pointers are accessed with faults caught.
            return ret(crate::sys::check(aside(move || raw_result(unsafe { sysctl::write($fd, $from.cast(), $len) }))));
        }
    };
    (@sysctl $($other:ident)*) => {};
    // Paths into the mqueue file system.
    (@target chmod $path:ident $mode:ident) => { hooks!(@at libc::AT_FDCWD, $path, FOLLOW, |t| path::chmod(&t, $mode), Change::Mode($mode)) };
    (@target fchmodat $dir:ident $path:ident $mode:ident $flags:ident) => {
        hooks!(@at $dir, $path, $flags, |t| path::chmod(&t, $mode), Change::Mode($mode))
    };
    (@target chown $path:ident $uid:ident $gid:ident) => {
        hooks!(@at libc::AT_FDCWD, $path, FOLLOW, |t| path::chown(&t, $uid, $gid), Change::Owner($uid, $gid))
    };
    (@target fchownat $dir:ident $path:ident $uid:ident $gid:ident $flags:ident) => {
        hooks!(@at $dir, $path, $flags, |t| path::chown(&t, $uid, $gid), Change::Owner($uid, $gid))
    };
    (@target utimensat $dir:ident $path:ident $times:ident $flags:ident) => {
        // SAFETY: user pointers, read with faults caught.
        hooks!(@at $dir, $path, $flags, |t| path::set_times(&t, || unsafe { user_times($times, Ok) }),
            Change::Times(user_times($times, Ok)))
    };
    (@target futimesat $dir:ident $path:ident $times:ident) => {
        // SAFETY: user pointers, read with faults caught.
        hooks!(@at $dir, $path, FOLLOW, |t| path::set_times(&t, || unsafe { user_times($times, from_timeval) }),
            Change::Times(user_times($times, from_timeval)))
    };
    (@target truncate $path:ident $len:ident) => {
        hooks!(@at libc::AT_FDCWD, $path, FOLLOW, |t| path::truncate(&t, $len), Change::Size)
    };
    (@target truncate64 $path:ident $len:ident) => {
        hooks!(@at libc::AT_FDCWD, $path, FOLLOW, |t| path::truncate(&t, $len), Change::Size)
    };
    (@target access $path:ident $mode:ident) => {
        hooks!(@look libc::AT_FDCWD, $path, FOLLOW, $mode, 0)
    };
    (@target faccessat $dir:ident $path:ident $mode:ident $flags:ident) => {
        hooks!(@look $dir, $path, $flags, $mode, $flags & libc::AT_EACCESS)
    };
    (@target __open_2 $path:ident $flags:ident) => { hooks!(@into libc::AT_FDCWD, $path, $flags, 0) };
    (@target __open64_2 $path:ident $flags:ident) => { hooks!(@into libc::AT_FDCWD, $path, $flags, 0) };
    (@target __openat_2 $dir:ident $path:ident $flags:ident) => { hooks!(@into $dir, $path, $flags, 0) };
    (@target __openat64_2 $dir:ident $path:ident $flags:ident) => { hooks!(@into $dir, $path, $flags, 0) };
    (@target creat $path:ident $mode:ident) => { hooks!(@into libc::AT_FDCWD, $path, CREAT, $mode) };
    (@target creat64 $path:ident $mode:ident) => { hooks!(@into libc::AT_FDCWD, $path, CREAT, $mode) };
    (@target stat $path:ident $to:ident) => { hooks!(@covered libc::AT_FDCWD, $path, FOLLOW, $to) };
    (@target stat64 $path:ident $to:ident) => { hooks!(@covered libc::AT_FDCWD, $path, FOLLOW, $to) };
    (@target __xstat $version:ident $path:ident $to:ident) => { hooks!(@covered libc::AT_FDCWD, $path, FOLLOW, $to) };
    (@target __xstat64 $version:ident $path:ident $to:ident) => { hooks!(@covered libc::AT_FDCWD, $path, FOLLOW, $to) };
    (@target lstat $path:ident $to:ident) => { hooks!(@covered libc::AT_FDCWD, $path, NO_FOLLOW, $to) };
    (@target lstat64 $path:ident $to:ident) => { hooks!(@covered libc::AT_FDCWD, $path, NO_FOLLOW, $to) };
    (@target __lxstat $version:ident $path:ident $to:ident) => { hooks!(@covered libc::AT_FDCWD, $path, NO_FOLLOW, $to) };
    (@target __lxstat64 $version:ident $path:ident $to:ident) => { hooks!(@covered libc::AT_FDCWD, $path, NO_FOLLOW, $to) };
    (@target fstatat $dir:ident $path:ident $to:ident $flags:ident) => { hooks!(@covered $dir, $path, $flags, $to) };
    (@target fstatat64 $dir:ident $path:ident $to:ident $flags:ident) => { hooks!(@covered $dir, $path, $flags, $to) };
    (@target __fxstatat $version:ident $dir:ident $path:ident $to:ident $flags:ident) => { hooks!(@covered $dir, $path, $flags, $to) };
    (@target __fxstatat64 $version:ident $dir:ident $path:ident $to:ident $flags:ident) => { hooks!(@covered $dir, $path, $flags, $to) };
    (@target statx $dir:ident $path:ident $flags:ident $mask:ident $to:ident) => {
        if vfs::any_virtual() {
            // SAFETY: the caller's contract.
            let result = aside(move || unsafe {
                path::covered_extended($dir, $path, $flags, $mask, $to).map_or(BYPASS, raw_result)
            });
            if result != BYPASS {
                return ret(crate::sys::check(result)) as c_int;
            }
        }
    };
    (@target readlink $path:ident $to:ident $len:ident) => { hooks!(@uncovered_link libc::AT_FDCWD, $path) };
    (@target readlinkat $dir:ident $path:ident $to:ident $len:ident) => { hooks!(@uncovered_link $dir, $path) };
    (@target statfs $path:ident $to:ident) => { hooks!(@covered_system $path $to) };
    (@target statfs64 $path:ident $to:ident) => { hooks!(@covered_system $path $to) };
    (@target statvfs $path:ident $to:ident) => { hooks!(@covered_system $path $to) };
    (@target statvfs64 $path:ident $to:ident) => { hooks!(@covered_system $path $to) };
    (@target $($other:ident)*) => {};
    (@at $dir:expr, $path:expr, $flags:expr, |$t:ident| $answer:expr, $change:expr) => {
        if vfs::any() {
            let answer = aside(move || {
                // SAFETY: a user pointer, which the kernel reads first.
                if let Some($t) = unsafe { vfs::locate($dir, $path, $flags & NO_FOLLOW == 0) } {
                    return raw_result($answer);
                }
                // SAFETY: user pointers, read with faults caught.
                let result = unsafe { path::change_root($dir, $path, $flags & NO_FOLLOW == 0, $change) };
                result.map_or(BYPASS, raw_result)
            });
            if answer != BYPASS {
                return ret(crate::sys::check(answer)) as c_int;
            }
        }
    };
    (@look $dir:expr, $path:expr, $flags:expr, $mode:expr, $access:expr) => {
        if vfs::any() {
            let answer = aside(move || {
                // SAFETY: a user pointer, which the kernel reads first.
                if let Some(t) = unsafe { vfs::locate($dir, $path, $flags & NO_FOLLOW == 0) } {
                    return raw_result(ops::access(&t, $mode, $access));
                }
                // SAFETY: as above.
                let result = unsafe { path::access_root($dir, $path, $flags & NO_FOLLOW == 0, $mode, $access) };
                result.map_or(BYPASS, raw_result)
            });
            if answer != BYPASS {
                return ret(crate::sys::check(answer)) as c_int;
            }
        }
    };
    (@covered $dir:expr, $path:expr, $flags:expr, $to:ident) => {
        if vfs::any_virtual() {
            // SAFETY: the caller's contract.
            let result = aside(move || unsafe {
                path::covered_status($dir, $path, $flags & NO_FOLLOW == 0, $to).map_or(BYPASS, raw_result)
            });
            if result != BYPASS {
                return ret(crate::sys::check(result)) as c_int;
            }
        }
    };
    (@covered_system $path:ident $to:ident) => {
        // SAFETY: the caller's contract.
        if vfs::any_virtual() && let Some(file) = unsafe { path::open_of($path) } {
            // SAFETY: the caller's contract.
            let result = unsafe { path::FileSystem::of_descriptor(file.0, $to) };
            // SAFETY: the kernel has accepted the path.
            if result == 0 && let Some(flags) = unsafe { path::covered_flags($path) } {
                // SAFETY: it has been filled in.
                unsafe { path::FileSystem::set_flags(&mut *$to, flags) };
            }
            return result;
        }
    };
    (@uncovered_link $dir:expr, $path:expr) => {
        if vfs::any_virtual() {
            // SAFETY: the caller's contract.
            let result = aside(move || unsafe {
                path::covered_link($dir, $path).map_or(BYPASS, |errno| raw_result(Err(errno)))
            });
            if result != BYPASS {
                return ret(crate::sys::check(result));
            }
        }
    };
    (@into $dir:expr, $path:expr, $flags:expr, $mode:expr) => {
        // SAFETY: the caller's contract.
        let opened = unsafe { path::mqns_vfs_open($dir, $path, $flags, $mode) };
        if opened != BYPASS {
            cancellation_point();
            return ret(crate::sys::check(opened)) as c_int;
        }
    };
    (@fd [$($point:ident)?] $ret:ty, $fd:expr => |$d:pat_param, $tls:pat_param| $answer:expr) => {
        if desc::is_known($fd) {
            $(hooks!(@$point);)?
            // SAFETY: the caller's contract; user pointers are accessed with faults caught.
            let answer = aside(move || face::with($fd, |$d, $tls| unsafe { $answer }).map_or(BYPASS, raw_result));
            if answer != BYPASS {
                return ret(crate::sys::check(answer)) as $ret;
            }
        }
    };
    (@none [] $ret:ty,) => {};
    (@any [$($point:ident)?] $ret:ty, $fd:expr => |$d:pat_param, $tls:pat_param| $answer:expr) => {
        if desc::is_known($fd) {
            $(hooks!(@$point);)?
            // SAFETY: the caller's contract; user pointers are accessed with faults caught.
            let answer = aside(move || face::with_any($fd, |$d, $tls| unsafe { $answer }).map_or(BYPASS, raw_result));
            if answer != BYPASS {
                return ret(crate::sys::check(answer)) as $ret;
            }
        }
    };
    (@number [] $ret:ty, $fd:expr => |$d:pat_param, $tls:pat_param| $answer:expr) => {
        if desc::is_known($fd)
            && let Some(result) = face::with($fd, |$d, $tls| $answer)
        {
            return match result {
                Ok(_) => 0,
                Err(Errno(errno)) => errno,
            };
        }
    };
    (@path [$($point:ident)?] $ret:ty, $dir:expr, $path:expr => |$d:pat_param, $tls:pat_param| $answer:expr) => {
        // SAFETY: a user pointer, read with faults caught.
        if let Some(fd) = unsafe { face::descriptor_of_path($dir, $path) } {
            hooks!(@any [$($point)?] $ret, fd => |$d, $tls| $answer);
        }
    };
    (@at [] $ret:ty, $dir:expr, $path:expr, $flags:expr => |$d:pat_param, $tls:pat_param| $answer:expr) => {
        // SAFETY: a user pointer, read with faults caught.
        if let Some(fd) = unsafe { descriptor_at($dir, $path, $flags) } {
            hooks!(@any [] $ret, fd => |$d, $tls| $answer);
        }
    };
    (@if_fd [$($point:ident)?] $ret:ty, $condition:expr, $($key:tt)*) => {
        if $condition {
            hooks!(@fd [$($point)?] $ret, $($key)*);
        }
    };
    (@if_path [$($point:ident)?] $ret:ty, $condition:expr, $($key:tt)*) => {
        if $condition {
            hooks!(@path [$($point)?] $ret, $($key)*);
        }
    };
    (@point) => { cancellation_point() };
}

/// What a libc function has returned, as the kernel said it: -1 is the negated errno.
fn kernel_result(result: isize) -> isize {
    unsafe extern "C" {
        fn cshim_errno() -> *mut i32;
    }
    // SAFETY: the address of the calling thread's errno.
    if result == -1 { -(unsafe { *cshim_errno() } as isize) } else { result }
}

/// Whether what stat(2) has said of a path may have to be put right.
#[inline(always)]
fn is_suspect(st: &Stat) -> bool {
    nsfile::may_be_namespace(st.st_mode, st.st_size as u64)
        || vfs::any_known() && vfs::is_device(st.st_dev)
        || desc::any() && st.st_mode & libc::S_IFMT == libc::S_IFLNK
}

/// The same for statx(2).
#[inline(always)]
fn is_suspect_x(x: &libc::statx) -> bool {
    nsfile::may_be_namespace(x.stx_mode.into(), x.stx_size) || vfs::any_known()
}

/// The same for fstat(2).
#[inline(always)]
fn is_suspect_descriptor(st: &Stat) -> bool {
    st.st_mode == QUEUE_MODE
        || nsfile::may_be_namespace(st.st_mode, st.st_size as u64)
        // Else it is none of the mqueue file system.
        || matches!(st.st_mode & libc::S_IFMT, libc::S_IFREG | libc::S_IFDIR) && vfs::any()
}

/// What the FIFO of a queue shows.
const QUEUE_MODE: u32 = libc::S_IFIFO | 0o666;
const FOLLOW: c_int = 0;
const NO_FOLLOW: c_int = libc::AT_SYMLINK_NOFOLLOW;
/// What creat(2) opens with.
const CREAT: c_int = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;

/// The queue descriptor that `dir`, `path` and `AT_*` flags stand for.
///
/// # Safety
///
/// `path` is a user pointer.
#[inline(always)]
unsafe fn descriptor_at(dir: c_int, path: *const c_char, flags: c_int) -> Option<c_int> {
    if !desc::any() {
        return None;
    }
    // SAFETY: the caller's contract.
    unsafe {
        if flags & libc::AT_EMPTY_PATH != 0 && desc::is_known(dir) {
            return (path.is_null() || fault::read_user(path) == Ok(0)).then_some(dir);
        }
        if flags & NO_FOLLOW != 0 { None } else { face::descriptor_of_path(dir, path) }
    }
}

/// lstat(2) of a queue descriptor's link in proc(5), whose mode tells what the descriptor is open for.
///
/// # Safety
///
/// `path` is NUL-terminated, as the kernel has found.
#[cold]
unsafe fn link_status(dir: c_int, path: *const c_char, st: &mut Stat) {
    // SAFETY: the caller's contract.
    if let Some(fd) = unsafe { face::descriptor_of_path(dir, path) }
        && let Some(d) = desc::known(fd)
        && !d.is_path()
    {
        let bits = |may: bool, mode: u32| if may { mode } else { 0 };
        st.st_mode = libc::S_IFLNK | 0o100 | bits(d.may_receive(), 0o400) | bits(d.may_send(), 0o200);
    }
}

/// Times as the user has them; null is now.
///
/// # Errors
///
/// EFAULT; those of `convert`.
///
/// # Safety
///
/// `times` is null or a user pointer to two of them.
pub unsafe fn user_times<T: Copy>(
    times: *const T,
    convert: fn(T) -> Result<libc::timespec>,
) -> Result<Option<[libc::timespec; 2]>> {
    if times.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's contract.
    let times = unsafe { [fault::read_user(times)?, fault::read_user(times.wrapping_add(1))?] };
    Ok(Some([convert(times[0])?, convert(times[1])?]))
}

/// # Errors
///
/// EINVAL: microseconds out of range.
pub fn from_timeval(time: libc::timeval) -> Result<libc::timespec> {
    if !(0..1_000_000).contains(&time.tv_usec) {
        return Err(Errno::EINVAL);
    }
    Ok(libc::timespec { tv_sec: time.tv_sec, tv_nsec: time.tv_usec * 1000 })
}

type Stat = libc::stat;
type Path = *const c_char;
type Vector = *const libc::iovec;

/// Whether open(2) with these flags opens what a link of `/proc/self/fd` leads to, not the link, and
/// nothing that libc has an opinion on.
fn is_reopening(flags: c_int) -> bool {
    flags & (libc::O_NOFOLLOW | libc::O_CREAT) == 0
}

// fstat and its relations. `struct stat64` is `struct stat` on every 64-bit architecture; the
// functions with a version number are those of glibc before 2.33.
hooks! {
    /// fstat(2).
    fn fstat(fd: c_int, to: *mut Stat) -> c_int, any[] { fd => |d, _| face::fstat(d, to) }
    /// fstat(2).
    fn fstat64(fd: c_int, to: *mut Stat) -> c_int, any[] { fd => |d, _| face::fstat(d, to) }
    /// fstat(2).
    fn __fxstat(version: c_int, fd: c_int, to: *mut Stat) -> c_int, any[] { fd => |d, _| face::fstat(d, to) }
    /// fstat(2).
    fn __fxstat64(version: c_int, fd: c_int, to: *mut Stat) -> c_int, any[] { fd => |d, _| face::fstat(d, to) }
    /// stat(2).
    fn stat(path: Path, to: *mut Stat) -> c_int, path[] { libc::AT_FDCWD, path => |d, _| face::fstat(d, to) }
    /// stat(2).
    fn stat64(path: Path, to: *mut Stat) -> c_int, path[] { libc::AT_FDCWD, path => |d, _| face::fstat(d, to) }
    /// stat(2).
    fn __xstat(version: c_int, path: Path, to: *mut Stat) -> c_int, path[] { libc::AT_FDCWD, path => |d, _| face::fstat(d, to) }
    /// stat(2).
    fn __xstat64(version: c_int, path: Path, to: *mut Stat) -> c_int, path[] { libc::AT_FDCWD, path => |d, _| face::fstat(d, to) }
    /// lstat(2): of a bind mounted namespace.
    fn lstat(path: Path, to: *mut Stat) -> c_int, none[] { }
    /// lstat(2).
    fn lstat64(path: Path, to: *mut Stat) -> c_int, none[] { }
    /// lstat(2).
    fn __lxstat(version: c_int, path: Path, to: *mut Stat) -> c_int, none[] { }
    /// lstat(2).
    fn __lxstat64(version: c_int, path: Path, to: *mut Stat) -> c_int, none[] { }
    /// fstatat(2).
    fn fstatat(dir: c_int, path: Path, to: *mut Stat, flags: c_int) -> c_int, at[] { dir, path, flags => |d, _| face::fstat(d, to) }
    /// fstatat(2).
    fn fstatat64(dir: c_int, path: Path, to: *mut Stat, flags: c_int) -> c_int, at[] { dir, path, flags => |d, _| face::fstat(d, to) }
    /// fstatat(2).
    fn __fxstatat(version: c_int, dir: c_int, path: Path, to: *mut Stat, flags: c_int) -> c_int, at[] { dir, path, flags => |d, _| face::fstat(d, to) }
    /// fstatat(2).
    fn __fxstatat64(version: c_int, dir: c_int, path: Path, to: *mut Stat, flags: c_int) -> c_int, at[] { dir, path, flags => |d, _| face::fstat(d, to) }
    /// statx(2).
    fn statx(dir: c_int, path: Path, flags: c_int, mask: c_uint, to: *mut libc::statx) -> c_int, at[] { dir, path, flags => |d, _| face::statx(d, flags, mask, to) }
    /// fstatfs(2).
    fn fstatfs(fd: c_int, to: *mut libc::statfs) -> c_int, any[] { fd => |d, _| face::fstatfs(d, to) }
    /// fstatfs(2).
    fn fstatfs64(fd: c_int, to: *mut libc::statfs) -> c_int, any[] { fd => |d, _| face::fstatfs(d, to) }
    /// statfs(2): of a namespace.
    fn statfs(path: Path, to: *mut libc::statfs) -> c_int, none[] { }
    /// statfs(2).
    fn statfs64(path: Path, to: *mut libc::statfs) -> c_int, none[] { }
    /// statvfs(3): of the mqueue file system.
    fn statvfs(path: Path, to: *mut libc::statvfs) -> c_int, none[] { }
    /// statvfs(3).
    fn statvfs64(path: Path, to: *mut libc::statvfs) -> c_int, none[] { }
    /// fstatvfs(3).
    fn fstatvfs(fd: c_int, to: *mut libc::statvfs) -> c_int, any[] { fd => |d, _| face::fstatvfs(d, to) }
    /// fstatvfs(3).
    fn fstatvfs64(fd: c_int, to: *mut libc::statvfs) -> c_int, any[] { fd => |d, _| face::fstatvfs(d, to) }
}

// Reading: the text.
hooks! {
    /// read(2).
    fn read(fd: c_int, to: *mut u8, len: usize) -> isize, fd[point] { fd => |d, tls| face::read(d, tls, From::Here, to, len) }
    /// read(2), by its older name.
    fn __read(fd: c_int, to: *mut u8, len: usize) -> isize, fd[point] { fd => |d, tls| face::read(d, tls, From::Here, to, len) }
    /// read(2), fortified.
    fn __read_chk(fd: c_int, to: *mut u8, len: usize, size: usize) -> isize, if_fd[point] { len <= size, fd => |d, tls| face::read(d, tls, From::Here, to, len) }
    /// pread(2).
    fn pread(fd: c_int, to: *mut u8, len: usize, at: i64) -> isize, fd[point] { fd => |d, tls| face::read(d, tls, From::Offset(at), to, len) }
    /// pread(2).
    fn pread64(fd: c_int, to: *mut u8, len: usize, at: i64) -> isize, fd[point] { fd => |d, tls| face::read(d, tls, From::Offset(at), to, len) }
    /// pread(2), by its older name.
    fn __pread64(fd: c_int, to: *mut u8, len: usize, at: i64) -> isize, fd[point] { fd => |d, tls| face::read(d, tls, From::Offset(at), to, len) }
    /// pread(2), fortified.
    fn __pread_chk(fd: c_int, to: *mut u8, len: usize, at: i64, size: usize) -> isize, if_fd[point] { len <= size, fd => |d, tls| face::read(d, tls, From::Offset(at), to, len) }
    /// pread(2), fortified.
    fn __pread64_chk(fd: c_int, to: *mut u8, len: usize, at: i64, size: usize) -> isize, if_fd[point] { len <= size, fd => |d, tls| face::read(d, tls, From::Offset(at), to, len) }
    /// readv(2).
    fn readv(fd: c_int, vector: Vector, count: c_int) -> isize, fd[point] { fd => |d, tls| face::readv(d, tls, From::Here, vector, count as usize) }
    /// preadv(2).
    fn preadv(fd: c_int, vector: Vector, count: c_int, at: i64) -> isize, fd[point] { fd => |d, tls| face::readv(d, tls, From::Offset(at), vector, count as usize) }
    /// preadv(2).
    fn preadv64(fd: c_int, vector: Vector, count: c_int, at: i64) -> isize, fd[point] { fd => |d, tls| face::readv(d, tls, From::Offset(at), vector, count as usize) }
    /// preadv2(2).
    fn preadv2(fd: c_int, vector: Vector, count: c_int, at: i64, flags: c_int) -> isize, fd[point] { fd => |d, tls| face::readv2(d, tls, at, vector, count as usize, flags) }
    /// preadv2(2).
    fn preadv64v2(fd: c_int, vector: Vector, count: c_int, at: i64, flags: c_int) -> isize, fd[point] { fd => |d, tls| face::readv2(d, tls, at, vector, count as usize, flags) }
    /// lseek(2).
    fn lseek(fd: c_int, by: i64, whence: c_int) -> i64, fd[] { fd => |d, _| face::lseek(d, by, whence) }
    /// lseek(2), by its older name.
    fn __lseek(fd: c_int, by: i64, whence: c_int) -> i64, fd[] { fd => |d, _| face::lseek(d, by, whence) }
    /// lseek(2).
    fn lseek64(fd: c_int, by: i64, whence: c_int) -> i64, fd[] { fd => |d, _| face::lseek(d, by, whence) }
}

// Writing: always refused.
hooks! {
    /// write(2).
    fn write(fd: c_int, from: *const c_void, len: usize) -> isize, fd[point] { fd => |d, _| face::write(d) }
    /// write(2), by its older name.
    fn __write(fd: c_int, from: *const c_void, len: usize) -> isize, fd[point] { fd => |d, _| face::write(d) }
    /// pwrite(2).
    fn pwrite(fd: c_int, from: *const c_void, len: usize, at: i64) -> isize, fd[point] { fd => |d, _| face::pwrite(d, at) }
    /// pwrite(2).
    fn pwrite64(fd: c_int, from: *const c_void, len: usize, at: i64) -> isize, fd[point] { fd => |d, _| face::pwrite(d, at) }
    /// pwrite(2), by its older name.
    fn __pwrite64(fd: c_int, from: *const c_void, len: usize, at: i64) -> isize, fd[point] { fd => |d, _| face::pwrite(d, at) }
    /// writev(2).
    fn writev(fd: c_int, vector: Vector, count: c_int) -> isize, fd[point] { fd => |d, _| face::write(d) }
    /// pwritev(2).
    fn pwritev(fd: c_int, vector: Vector, count: c_int, at: i64) -> isize, fd[point] { fd => |d, _| face::pwrite(d, at) }
    /// pwritev(2).
    fn pwritev64(fd: c_int, vector: Vector, count: c_int, at: i64) -> isize, fd[point] { fd => |d, _| face::pwrite(d, at) }
    /// pwritev2(2).
    fn pwritev2(fd: c_int, vector: Vector, count: c_int, at: i64, flags: c_int) -> isize, fd[point] { fd => |d, _| face::pwrite(d, at.max(0)) }
    /// pwritev2(2).
    fn pwritev64v2(fd: c_int, vector: Vector, count: c_int, at: i64, flags: c_int) -> isize, fd[point] { fd => |d, _| face::pwrite(d, at.max(0)) }
    /// fsync(2): no such operation on a queue.
    fn fsync(fd: c_int) -> c_int, fd[point] { fd => |_, _| Err(Errno::EINVAL) }
    /// fdatasync(2): no such operation on a queue.
    fn fdatasync(fd: c_int) -> c_int, fd[point] { fd => |_, _| Err(Errno::EINVAL) }
    /// sync_file_range(2): nothing to do.
    fn sync_file_range(fd: c_int, at: i64, len: i64, flags: c_uint) -> c_int, fd[] { fd => |_, _| if at < 0 || len < 0 || flags & !7 != 0 { Err(Errno::EINVAL) } else { Ok(0) } }
    /// fallocate(2).
    fn fallocate(fd: c_int, mode: c_int, at: i64, len: i64) -> c_int, fd[point] { fd => |d, _| face::fallocate(d, mode, at, len) }
    /// fallocate(2).
    fn fallocate64(fd: c_int, mode: c_int, at: i64, len: i64) -> c_int, fd[point] { fd => |d, _| face::fallocate(d, mode, at, len) }
    /// posix_fallocate(3).
    fn posix_fallocate(fd: c_int, at: i64, len: i64) -> c_int, number[] { fd => |d, tls| face::posix_fallocate(d, tls, at, len) }
    /// posix_fallocate(3).
    fn posix_fallocate64(fd: c_int, at: i64, len: i64) -> c_int, number[] { fd => |d, tls| face::posix_fallocate(d, tls, at, len) }
    /// posix_fadvise(2): taken note of.
    fn posix_fadvise(fd: c_int, at: i64, len: i64, advice: c_int) -> c_int, number[] { fd => |_, _| if len < 0 || !(0..=5).contains(&advice) { Err(Errno::EINVAL) } else { Ok(0) } }
    /// posix_fadvise(2): taken note of.
    fn posix_fadvise64(fd: c_int, at: i64, len: i64, advice: c_int) -> c_int, number[] { fd => |_, _| if len < 0 || !(0..=5).contains(&advice) { Err(Errno::EINVAL) } else { Ok(0) } }
    /// readahead(2): nothing to do.
    fn readahead(fd: c_int, at: i64, len: usize) -> isize, fd[] { fd => |d, _| if d.may_receive() { Ok(0) } else { Err(Errno::EBADF) } }
}

// Size, mode, owner, times.
hooks! {
    /// ftruncate(2).
    fn ftruncate(fd: c_int, len: i64) -> c_int, fd[] { fd => |d, _| face::truncate(d, len) }
    /// ftruncate(2).
    fn ftruncate64(fd: c_int, len: i64) -> c_int, fd[] { fd => |d, _| face::truncate(d, len) }
    /// truncate(2).
    fn truncate(path: Path, len: i64) -> c_int, path[] { libc::AT_FDCWD, path => |d, _| face::set_size(d.map, len) }
    /// truncate(2).
    fn truncate64(path: Path, len: i64) -> c_int, path[] { libc::AT_FDCWD, path => |d, _| face::set_size(d.map, len) }
    /// fchmod(2).
    fn fchmod(fd: c_int, mode: c_uint) -> c_int, fd[] { fd => |d, _| { face::writable(d)?; face::chmod(d.map, mode) } }
    /// chmod(2).
    fn chmod(path: Path, mode: c_uint) -> c_int, path[] { libc::AT_FDCWD, path => |d, _| { face::writable(d)?; face::chmod(d.map, mode) } }
    /// fchmodat(2).
    fn fchmodat(dir: c_int, path: Path, mode: c_uint, flags: c_int) -> c_int, at[] { dir, path, flags => |d, _| { face::writable(d)?; face::chmod(d.map, mode) } }
    /// fchown(2).
    fn fchown(fd: c_int, uid: c_uint, gid: c_uint) -> c_int, fd[] { fd => |d, _| { face::writable(d)?; face::chown(d.map, uid, gid) } }
    /// chown(2).
    fn chown(path: Path, uid: c_uint, gid: c_uint) -> c_int, path[] { libc::AT_FDCWD, path => |d, _| { face::writable(d)?; face::chown(d.map, uid, gid) } }
    /// fchownat(2).
    fn fchownat(dir: c_int, path: Path, uid: c_uint, gid: c_uint, flags: c_int) -> c_int, at[] { dir, path, flags => |d, _| { face::writable(d)?; face::chown(d.map, uid, gid) } }
    /// futimens(3).
    fn futimens(fd: c_int, times: *const libc::timespec) -> c_int, fd[] { fd => |d, _| { face::writable(d)?; face::set_times(d.map, user_times(times, Ok)?) } }
    /// utimensat(2).
    fn utimensat(dir: c_int, path: Path, times: *const libc::timespec, flags: c_int) -> c_int, at[] { dir, path, flags => |d, _| { face::writable(d)?; face::set_times(d.map, user_times(times, Ok)?) } }
    /// futimes(3).
    fn futimes(fd: c_int, times: *const libc::timeval) -> c_int, fd[] { fd => |d, _| { face::writable(d)?; face::set_times(d.map, user_times(times, from_timeval)?) } }
    /// futimesat(2): with a null path the descriptor itself.
    fn futimesat(dir: c_int, path: Path, times: *const libc::timeval) -> c_int, at[] { dir, path, if path.is_null() { libc::AT_EMPTY_PATH } else { FOLLOW } => |d, _| { face::writable(d)?; face::set_times(d.map, user_times(times, from_timeval)?) } }
    /// access(2).
    fn access(path: Path, mode: c_int) -> c_int, path[] { libc::AT_FDCWD, path => |d, _| face::access(d, mode, 0) }
    /// faccessat(2).
    fn faccessat(dir: c_int, path: Path, mode: c_int, flags: c_int) -> c_int, at[] { dir, path, flags => |d, _| face::access(d, mode, flags & libc::AT_EACCESS) }
}

// Links and paths.
hooks! {
    /// readlink(2).
    fn readlink(path: Path, to: *mut u8, len: usize) -> isize, path[] { libc::AT_FDCWD, path => |d, _| face::readlink(d, to, len) }
    /// readlink(2), fortified.
    fn __readlink_chk(path: Path, to: *mut u8, len: usize, size: usize) -> isize, if_path[] { len <= size, libc::AT_FDCWD, path => |d, _| face::readlink(d, to, len) }
    /// readlinkat(2).
    fn readlinkat(dir: c_int, path: Path, to: *mut u8, len: usize) -> isize, path[] { dir, path => |d, _| face::readlink(d, to, len) }
    /// readlinkat(2), fortified.
    fn __readlinkat_chk(dir: c_int, path: Path, to: *mut u8, len: usize, size: usize) -> isize, if_path[] { len <= size, dir, path => |d, _| face::readlink(d, to, len) }
    /// open(2), fortified.
    fn __open_2(path: Path, flags: c_int) -> c_int, if_path[point] { is_reopening(flags), libc::AT_FDCWD, path => |d, tls| face::reopen(d, tls, flags) }
    /// open(2), fortified.
    fn __open64_2(path: Path, flags: c_int) -> c_int, if_path[point] { is_reopening(flags), libc::AT_FDCWD, path => |d, tls| face::reopen(d, tls, flags) }
    /// openat(2), fortified.
    fn __openat_2(dir: c_int, path: Path, flags: c_int) -> c_int, if_path[point] { is_reopening(flags), dir, path => |d, tls| face::reopen(d, tls, flags) }
    /// openat(2), fortified.
    fn __openat64_2(dir: c_int, path: Path, flags: c_int) -> c_int, if_path[point] { is_reopening(flags), dir, path => |d, tls| face::reopen(d, tls, flags) }
    /// creat(2).
    fn creat(path: Path, mode: c_uint) -> c_int, path[point] { libc::AT_FDCWD, path => |d, tls| face::reopen(d, tls, libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC) }
    /// creat(2).
    fn creat64(path: Path, mode: c_uint) -> c_int, path[point] { libc::AT_FDCWD, path => |d, tls| face::reopen(d, tls, libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC) }
}

/// lockf(3): as fcntl(2) does it, within the bounds of a program's own locks.
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C-unwind" fn lockf(fd: c_int, command: c_int, len: i64) -> c_int {
    if !desc::is_known(fd) {
        return next!(c"lockf": extern "C-unwind" fn(c_int, c_int, i64) -> c_int)(fd, command, len);
    }
    let (fcntl, kind) = match command {
        libc::F_ULOCK => (libc::F_SETLK, libc::F_UNLCK),
        libc::F_LOCK => (libc::F_SETLKW, libc::F_WRLCK),
        libc::F_TLOCK => (libc::F_SETLK, libc::F_WRLCK),
        libc::F_TEST => (libc::F_GETLK, libc::F_WRLCK),
        _ => return ret(Err(Errno::EINVAL)) as c_int,
    };
    // SAFETY: plain integers; zero is valid for all of them.
    let mut lock: libc::flock = unsafe { core::mem::zeroed() };
    lock.l_type = kind as i16;
    // From the offset on; negative lengths go backwards, as in fcntl(2).
    lock.l_start = face::with(fd, |d, _| Ok(face::offset(d) as usize)).map_or(0, |at| at.unwrap_or(0)) as i64;
    lock.l_len = len;
    let result = crate::sys::check(super::fd::mqns_fcntl(fd, fcntl, &raw mut lock as isize));
    let is_free = lock.l_type == libc::F_UNLCK as i16 || lock.l_pid == crate::sys::getpid() as i32;
    let taken = command == libc::F_TEST && !is_free;
    ret(result.and(if taken { Err(Errno::EACCES) } else { Ok(0) })) as c_int
}

/// lockf(3): see [`lockf`].
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C-unwind" fn lockf64(fd: c_int, command: c_int, len: i64) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { lockf(fd, command, len) }
}

/// mmap(2): a queue cannot be mapped, but which error says so depends on how it was opened. All
/// else goes straight to the kernel, as libc does: looking for the next definition here could wait
/// for the dynamic loader in the middle of an allocation.
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn mmap(
    at: *mut c_void,
    len: usize,
    prot: c_int,
    flags: c_int,
    fd: c_int,
    offset: i64,
) -> *mut c_void {
    let check = || {
        if desc::is_known(fd)
            && flags & libc::MAP_ANONYMOUS == 0
            && len != 0
            && offset % 4096 == 0
            && let Some(result) = face::with(fd, |d, _| face::check_mapping(d, prot, flags))
        {
            result?;
        }
        // SAFETY: the caller's contract.
        unsafe { syscall!(SYS_mmap, at, len, prot, flags, fd, offset) }
    };
    ret(check()) as *mut c_void
}

/// mmap(2): see [`mmap`].
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn mmap64(
    at: *mut c_void,
    len: usize,
    prot: c_int,
    flags: c_int,
    fd: c_int,
    offset: i64,
) -> *mut c_void {
    // SAFETY: the caller's contract.
    unsafe { mmap(at, len, prot, flags, fd, offset) }
}

// What copies between descriptors by itself: a queue is neither read nor written so.

/// splice(2), tee(2), sendfile(2): EINVAL; BYPASS: no queue.
#[unsafe(no_mangle)]
pub extern "C" fn mqns_splice(from: c_int, to: c_int) -> isize {
    if desc::is_known(from) || desc::is_known(to) { raw_result(Err(Errno::EINVAL)) } else { BYPASS }
}

/// copy_file_range(2): EXDEV, or within the file system EINVAL; BYPASS: no queue.
#[unsafe(no_mangle)]
pub extern "C" fn mqns_copy_file_range(from: c_int, to: c_int) -> isize {
    match (desc::is_known(from), desc::is_known(to)) {
        (false, false) => BYPASS,
        (true, true) => raw_result(Err(Errno::EINVAL)),
        _ => raw_result(Err(Errno(libc::EXDEV))),
    }
}

macro_rules! copies {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),*), $asked:expr;)*) => {$(
        $(#[$doc])*
        ///
        /// # Safety
        ///
        /// The C prototype's.
        #[cfg_attr(not(test), unsafe(no_mangle))]
        pub unsafe extern "C-unwind" fn $name($($arg: $type),*) -> isize {
            let answer = $asked;
            if answer != BYPASS {
                return ret(crate::sys::check(answer));
            }
            let next = next!($name: unsafe extern "C-unwind" fn($($type),*) -> isize);
            // SAFETY: the caller's contract is its.
            unsafe { next($($arg),*) }
        }
    )*};
}

copies! {
    /// sendfile(2).
    fn sendfile(to: c_int, from: c_int, at: *mut i64, len: usize), mqns_splice(from, to);
    /// sendfile(2).
    fn sendfile64(to: c_int, from: c_int, at: *mut i64, len: usize), mqns_splice(from, to);
    /// splice(2).
    fn splice(from: c_int, at: *mut i64, to: c_int, to_at: *mut i64, len: usize, flags: c_uint), mqns_splice(from, to);
    /// tee(2).
    fn tee(from: c_int, to: c_int, len: usize, flags: c_uint), mqns_splice(from, to);
    /// copy_file_range(2).
    fn copy_file_range(from: c_int, at: *mut i64, to: c_int, to_at: *mut i64, len: usize, flags: c_uint), mqns_copy_file_range(from, to);
}

// For cshim/: the variadic ones, and syscall(2).

/// open(2) of a path that leads to a queue descriptor; BYPASS: it doesn't.
///
/// # Safety
///
/// `path` is a user pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn mqns_reopen(dir: c_int, path: Path, flags: c_int) -> isize {
    if flags & libc::O_NOFOLLOW != 0 {
        return BYPASS;
    }
    // SAFETY: the caller's contract.
    let Some(fd) = (unsafe { face::descriptor_of_path(dir, path) }) else { return BYPASS };
    cancellation_point();
    face::with_any(fd, |d, tls| face::reopen(d, tls, flags)).map_or(BYPASS, raw_result)
}

/// open(2) of whatever is ours; BYPASS: nothing is.
///
/// # Safety
///
/// `path` is a user pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn mqns_open_ours(dir: c_int, path: Path, flags: c_int, mode: c_uint) -> isize {
    // SAFETY: the caller's contract.
    unsafe {
        if desc::any() {
            let opened = mqns_reopen(dir, path, flags);
            if opened != BYPASS {
                return opened;
            }
        }
        path::mqns_vfs_open(dir, path, flags, mode)
    }
}

/// ioctl(2) of a queue descriptor; BYPASS: the kernel's answer is right.
///
/// # Safety
///
/// `argument` is what the request takes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mqns_ioctl(fd: c_int, request: c_ulong, argument: usize) -> isize {
    if !desc::is_known(fd) {
        return BYPASS;
    }
    aside(move || {
        let Some(descriptor) = desc::known(fd).filter(|descriptor| !descriptor.is_path()) else { return BYPASS };
        // SAFETY: the caller's contract.
        unsafe { face::ioctl(&descriptor, request as u32, argument) }.map_or(BYPASS, raw_result)
    })
}

/// What of syscall(2) concerns a queue descriptor; BYPASS: it is none, or the kernel is right.
///
/// # Safety
///
/// As system call `nr`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mqns_file(nr: i64, fd: c_int, a: usize, b: usize, c: usize) -> isize {
    if !desc::is_known(fd) {
        return BYPASS;
    }
    // SAFETY: the caller's contract; user pointers are accessed with faults caught.
    let result = face::with(fd, |d, tls| unsafe {
        match nr {
            libc::SYS_read => face::read(d, tls, From::Here, a as *mut u8, b),
            libc::SYS_pread64 => face::read(d, tls, From::Offset(c as i64), a as *mut u8, b),
            libc::SYS_write => face::write(d),
            libc::SYS_pwrite64 => face::pwrite(d, c as i64),
            libc::SYS_lseek => face::lseek(d, a as i64, b as i32),
            libc::SYS_fstat => face::fstat(d, a as *mut Stat),
            libc::SYS_ftruncate => face::truncate(d, a as i64),
            libc::SYS_fchmod => face::writable(d).and_then(|()| face::chmod(d.map, a as u32)),
            libc::SYS_fchown => face::writable(d).and_then(|()| face::chown(d.map, a as u32, b as u32)),
            libc::SYS_fsync | libc::SYS_fdatasync => Err(Errno::EINVAL),
            _ => Err(Errno::ENOSYS),
        }
    });
    result.map_or(BYPASS, raw_result)
}

/// The next definition of a variadic function, by its number in `cshim/`.
#[unsafe(no_mangle)]
pub extern "C" fn mqns_find_next(which: c_int) -> usize {
    const NAMES: [&core::ffi::CStr; 5] = [c"open", c"open64", c"openat", c"openat64", c"ioctl"];
    find_next(NAMES[which as usize % NAMES.len()])
}
