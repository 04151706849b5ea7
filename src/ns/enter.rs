//! How tasks come into namespaces: unshare(2), setns(2), clone(2), in the kernel's order of checks.
//!
//! The kernel is asked as well: other flags are its own, and where it takes CLONE_NEWIPC System V IPC
//! is isolated, too. The virtual namespace is made first, so that nothing can fail after the kernel
//! has done its part, and goes again if the kernel refuses.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::member::{self, For, Membership};
use super::of_task::{Task, link_text, process_of_pidfd};
use super::{Place, has_capability, life, place};
use crate::abi::{Errno, Result};
use crate::sys::path::{Fd, Path, each_entry, stat_fd};
use crate::sys::tls::Tls;
use crate::sys::{gettid, namespace_inode};
use crate::syscall;

/// CLONE_NEWIPC.
pub const NEWIPC: i32 = libc::CLONE_NEWIPC;
const CLONE_NEWTIME: i32 = 0x80;
const CAP_SYS_ADMIN: u32 = 21;

/// What unshare(2) accepts.
const UNSHARABLE: i32 = libc::CLONE_THREAD
    | libc::CLONE_FS
    | libc::CLONE_NEWNS
    | libc::CLONE_SIGHAND
    | libc::CLONE_VM
    | libc::CLONE_FILES
    | libc::CLONE_SYSVSEM
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWCGROUP
    | CLONE_NEWTIME;

fn kernel_unshare(flags: i32) -> Result<()> {
    // SAFETY: no pointers.
    let done = unsafe { syscall!(SYS_unshare, flags) };
    crate::sys::forget_user_namespace();
    done.map(|_| ())
}

fn kernel_setns(fd: i32, kinds: i32) -> Result<()> {
    // SAFETY: no pointers.
    let done = unsafe { syscall!(SYS_setns, fd, kinds) };
    crate::sys::forget_user_namespace();
    done.map(|_| ())
}

/// "EPERM: not privileged": CAP_SYS_ADMIN in the caller's user namespace.
pub fn privileged() -> bool {
    super::generous() || has_capability(CAP_SYS_ADMIN)
}

/// Whether the kernel's refusal of CLONE_NEWIPC leaves the virtual namespace possible: it has none
/// ("EINVAL: specified in flags, but the kernel was not configured with CONFIG_IPC_NS"), or it asks
/// for a privilege that we don't.
pub fn may_go_without(errno: Errno) -> bool {
    errno == Errno::EINVAL || errno == Errno::EPERM && super::generous()
}

/// unshare(2).
///
/// # Errors
///
/// EINVAL, EPERM, ENOSPC as unshare(2); those of making files.
pub fn unshare(tls: &Tls, flags: i32) -> Result<()> {
    if flags & libc::CLONE_NEWUSER != 0 {
        let uid = super::kernel_uid(super::euid());
        let done = unshare_with(tls, flags);
        if done.is_ok() {
            super::UNMAPPED.store(uid, Release);
        }
        return done;
    }
    unshare_with(tls, flags)
}

fn unshare_with(tls: &Tls, flags: i32) -> Result<()> {
    if flags & NEWIPC == 0 {
        return kernel_unshare(flags);
    }
    if flags & !UNSHARABLE != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & libc::CLONE_NEWUSER == 0 && !privileged() {
        // These are checked before; where they are no error they do nothing.
        kernel_unshare(flags & (libc::CLONE_THREAD | libc::CLONE_SIGHAND | libc::CLONE_VM))?;
        return Err(Errno::EPERM);
    }
    super::real_at_start();
    let (membership, whom) = new_membership(tls)?;
    take_to_new(tls, membership, whom, flags)
}

/// The caller goes to a new namespace, in the kernel as well if that has any.
///
/// # Errors
///
/// What the kernel says of the flags.
pub fn take_to_new(tls: &Tls, membership: Membership, whom: For, flags: i32) -> Result<()> {
    let accepted = match kernel_unshare(flags) {
        Err(errno) if may_go_without(errno) => kernel_unshare(flags & !NEWIPC).map(|()| false)?,
        other => other.map(|()| true)?,
    };
    crate::crash_point!("ns.kernel");
    note_kernel_namespaces(membership.place(), accepted);
    membership.assume(tls, whom);
    Ok(())
}

fn new_membership(tls: &Tls) -> Result<(Membership, For)> {
    member::purge(tls);
    let whom = For::caller();
    if whom == For::Task && !Membership::has_room() {
        return Err(Errno::ENOSPC);
    }
    Ok((member::create(tls, whom)?, whom))
}

/// After the kernel has done its part: which of its namespaces belong to ours.
fn note_kernel_namespaces(place: &Place, newipc: bool) {
    let control = place.control();
    control.user_ns.store(crate::sys::user_namespace(), Release);
    if newipc {
        control.real.store(namespace_inode(c"/proc/thread-self/ns/ipc"), Release);
    }
}

/// setns(2).
///
/// # Errors
///
/// As setns(2).
pub fn setns(tls: &Tls, fd: i32, kinds: i32) -> Result<()> {
    if let Some((dir, _)) = directory_of_descriptor(fd) {
        // SAFETY: no pointers.
        let flags = unsafe { syscall!(SYS_fcntl, fd, libc::F_GETFL)? } as i32;
        if flags & (libc::O_PATH | LOOKS_LIKE_PATH) != 0 {
            return Err(Errno::EBADF);
        }
        if kinds != 0 && kinds != NEWIPC {
            return Err(Errno::EINVAL);
        }
        return enter_virtual(tls, &dir);
    }
    if kinds & NEWIPC != 0
        && let Ok(Some(pid)) = process_of_pidfd(fd)
    {
        return setns_of_process(tls, fd, pid, kinds);
    }
    const NS_GET_NSTYPE: u32 = 0xb703;
    // SAFETY: no pointers.
    let is_ipc = unsafe { syscall!(SYS_ioctl, fd, NS_GET_NSTYPE, 0) } == Ok(NEWIPC as usize);
    if !is_ipc {
        return kernel_setns(fd, kinds);
    }
    super::real_at_start();
    match kernel_setns(fd, kinds) {
        Err(Errno::EPERM) if super::generous() && is_in(fd) => {}
        other => other?,
    }
    enter_initial(tls)
}

/// Whether the caller is in that namespace of the kernel's anyway.
fn is_in(fd: i32) -> bool {
    stat_fd(fd).is_ok_and(|st| st.st_ino == namespace_inode(c"/proc/thread-self/ns/ipc"))
}

/// setns(2) by a pidfd: the namespaces of the process's leader.
fn setns_of_process(tls: &Tls, fd: i32, pid: u64, kinds: i32) -> Result<()> {
    super::real_at_start();
    match Task::of_pid(pid)?.namespace() {
        Ok(Some(dir)) => {
            // Which of its user namespaces counts is decided by the kernel's part.
            if kinds & !NEWIPC != 0 {
                kernel_setns(fd, kinds & !NEWIPC)?;
            }
            return match enter_virtual(tls, &dir) {
                Err(Errno::EINVAL | Errno::ENOENT) => Err(Errno::ESRCH),
                other => other,
            };
        }
        // It has left already, though the kernel has it still.
        Err(Errno::ENOENT) => {
            // Of a zombie the kernel says so, or whether the caller may know.
            if Task::of_pid(pid)?.is_zombie() {
                kernel_setns(fd, kinds)?;
            }
            return Err(if privileged() { Errno::ESRCH } else { Errno::EPERM });
        }
        // If not for this user, the kernel says so.
        Ok(None) | Err(_) => {}
    }
    match kernel_setns(fd, kinds) {
        // Where the kernel has no ipc namespaces.
        Err(errno) if may_go_without(errno) && namespace_inode(c"/proc/thread-self/ns/ipc") == 0 => {
            if kinds & !NEWIPC != 0 {
                kernel_setns(fd, kinds & !NEWIPC)?;
            } else if !privileged() {
                return Err(Errno::EPERM);
            }
        }
        Err(Errno::EPERM) if super::generous() && kinds == NEWIPC => {}
        other => other?,
    }
    enter_initial(tls)
}

/// Enters the virtual namespace in a directory.
fn enter_virtual(tls: &Tls, dir: &Path) -> Result<()> {
    if !privileged() {
        return Err(Errno::EPERM);
    }
    super::real_at_start();
    member::purge(tls);
    let whom = For::caller();
    if whom == For::Task && !Membership::has_room() {
        return Err(Errno::ENOSPC);
    }
    let place = place(tls, dir.as_bytes())?;
    // CAP_SYS_ADMIN is needed in the user namespace that owns the target, too: one who is in a child
    // of it does not have it.
    let owner = place.control().user_ns.load(Acquire);
    if !super::generous()
        && owner != 0
        && owner != crate::sys::user_namespace()
        && !super::queues::in_initial_user_namespace()
    {
        return Err(Errno::EPERM);
    }
    take_to(tls, member::join(place, whom).map_err(|_| Errno::EINVAL)?, whom);
    Ok(())
}

/// The caller goes to a namespace that exists, and to the kernel's that was made with it.
pub fn take_to(tls: &Tls, membership: Membership, whom: For) {
    let real = membership.place().control().real.load(Acquire);
    if real != 0 && real != namespace_inode(c"/proc/thread-self/ns/ipc") {
        join_in_kernel(real);
    }
    membership.assume(tls, whom);
}

/// Goes to the kernel's ipc namespace of that inode as well, by way of any process in it: for System
/// V IPC. Without one there is nothing in it to be found.
fn join_in_kernel(real: u64) {
    let Ok(link) = link_text(real) else { return };
    let Ok(proc) = Path::new(&[b"/proc"]).and_then(|p| p.open_own(libc::O_RDONLY | libc::O_DIRECTORY)) else { return };
    let mut done = false;
    each_entry(&proc, |name| {
        if !done
            && name.iter().all(u8::is_ascii_digit)
            && let Ok(path) = Path::new(&[b"/proc/", name, b"/ns/ipc"])
            && path.read_link_at(libc::AT_FDCWD).is_ok_and(|target| target.as_bytes() == link.as_bytes())
            && let Ok(file) = path.open_own(libc::O_RDONLY)
        {
            done = kernel_setns(file.0, NEWIPC).is_ok();
        }
    });
}

/// The caller is in another ipc namespace of the kernel's now, or is to leave a virtual one: its
/// queues are those that belong to the former.
fn enter_initial(tls: &Tls) -> Result<()> {
    let real = namespace_inode(c"/proc/thread-self/ns/ipc");
    let whom = For::caller();
    if real == super::real_at_start() && (whom == For::Process || member::nobody_has_moved()) {
        member::return_to_start(tls);
        return Ok(());
    }
    let membership = member::join(super::initial_of(tls, real)?, whom)?;
    membership.assume(tls, whom);
    Ok(())
}

/// Flag of a namespace descriptor that was opened with O_PATH: such a one keeps the namespace, too,
/// but a real O_PATH descriptor could hold no flock.
pub const LOOKS_LIKE_PATH: i32 = libc::O_APPEND;

/// The directory and id of the virtual namespace (or, where the kernel has none, of the initial one)
/// that a descriptor refers to: opened as `/proc/PID/ns/ipc`, or where that is bind mounted.
pub fn directory_of_descriptor(fd: i32) -> Option<(Path, u64)> {
    let st = stat_fd(fd).ok()?;
    if st.st_size as u64 != super::control::CONTROL_SIZE || st.st_mode & libc::S_IFMT != libc::S_IFREG {
        return None;
    }
    let file = core::mem::ManuallyDrop::new(Fd(fd));
    let mut reopened = None;
    // A descriptor with O_PATH, of a bind mount, cannot be read.
    let readable = match super::control::Control::peek(fd) {
        Some(_) => &*file,
        None => {
            let mut path = Path::new(&[b"/proc/thread-self/fd/"]).ok()?;
            path.push_decimal(fd as u64).ok()?;
            &*reopened.insert(path.open_own(libc::O_RDONLY).ok()?)
        }
    };
    let dir = life::directory_of(readable)?;
    let (id, _) = super::control::Control::peek(readable.0)?;
    Some((dir, id))
}

// ---- clone ------------------------------------------------------------------------------------

/// What is to be done for a task that is being created. The same in `cshim/task.c`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Birth {
    /// A membership, as [`Membership::release`] gives it; 0: none.
    place: usize,
    map: usize,
    /// Thread id of the maker.
    parent: u32,
    /// Whether the new task shares the maker's memory.
    shares_memory: u32,
}

/// Before clone(2). `None`: nothing is to be done for the child.
///
/// # Errors
///
/// EPERM, EINVAL, ENOSPC as clone(2); those of making files.
pub fn clone_begins(tls: &Tls, flags: u64) -> Result<Option<Birth>> {
    let flags = flags as i32;
    let shares_memory = flags & libc::CLONE_VM != 0;
    let birth = Birth { parent: gettid(), shares_memory: u32::from(shares_memory), ..Birth::default() };
    if flags & NEWIPC == 0 {
        if shares_memory {
            return if flags & libc::CLONE_THREAD != 0 { thread_begins(tls) } else { Ok(None) };
        }
        // A child with a copy of the memory may have to tell itself from a guest later on.
        return Ok(crate::sys::tls::is_in_use().then_some(birth));
    }
    // What clone(2) finds wrong before it asks for privileges.
    let both = |a: i32, b: i32| flags & a != 0 && flags & b != 0;
    let without = |a: i32, b: i32| flags & a != 0 && flags & b == 0;
    if both(libc::CLONE_NEWNS | libc::CLONE_NEWUSER, libc::CLONE_FS)
        || without(libc::CLONE_THREAD, libc::CLONE_SIGHAND)
        || without(libc::CLONE_SIGHAND, libc::CLONE_VM)
        || both(libc::CLONE_THREAD, libc::CLONE_NEWUSER | libc::CLONE_NEWPID)
    {
        return Err(Errno::EINVAL);
    }
    if flags & libc::CLONE_NEWUSER == 0 && !privileged() {
        return Err(Errno::EPERM);
    }
    // "EINVAL: both CLONE_NEWIPC and CLONE_SYSVSEM were specified".
    if flags & libc::CLONE_SYSVSEM != 0 {
        return Err(Errno::EINVAL);
    }
    super::real_at_start();
    member::purge(tls);
    if shares_memory && !Membership::has_room() {
        return Err(Errno::ENOSPC);
    }
    let (place, map) = member::create(tls, For::Newborn)?.release();
    Ok(Some(Birth { place, map, ..birth }))
}

/// Before pthread_create(3): a thread of a process with one namespace needs nothing.
///
/// # Errors
///
/// ENOSPC, ENOENT.
pub fn thread_begins(tls: &Tls) -> Result<Option<Birth>> {
    if !member::has_own() {
        return Ok(None);
    }
    member::purge(tls);
    if !Membership::has_room() {
        return Err(Errno::ENOSPC);
    }
    let (place, map) = member::join(super::current(tls)?.refer(), For::Newborn)?.release();
    Ok(Some(Birth { place, map, parent: gettid(), shares_memory: 1 }))
}

/// In the new task, before anything else.
pub fn clone_in_child(tls: &Tls, birth: &Birth) {
    if birth.place == 0 {
        member::after_fork(birth.parent);
        let _ = crate::sys::tls::ready();
        return;
    }
    let Ok(membership) = Membership::adopt(birth.place, birth.map) else { return };
    if membership.place().control().real.load(Relaxed) == 0 {
        note_kernel_namespaces_of_child(membership.place());
    }
    if birth.shares_memory == 0 {
        membership.assume_in_child(tls, birth.parent);
    } else if let Ok(own) = member::join(membership.place().refer(), For::Task) {
        own.assume(tls, For::Task);
    }
}

/// A fresh namespace's: its first task is the child.
fn note_kernel_namespaces_of_child(place: &Place) {
    if place.is_virtual() && place.control().queues_count.get() == 0 {
        let real = namespace_inode(c"/proc/thread-self/ns/ipc");
        note_kernel_namespaces(place, real != 0 && real != super::real_at_start());
    }
}

/// In the maker, after clone(2).
pub fn clone_in_parent(birth: &Birth, succeeded: bool) {
    // Of a child with the same memory it is the child's to give up.
    if birth.place != 0 && (birth.shares_memory == 0 || !succeeded) {
        drop(Membership::adopt(birth.place, birth.map));
    }
}

/// A task made by clone(2) ends without exit(3).
pub fn clone_ends(tls: &Tls, birth: &Birth) {
    if birth.shares_memory == 0 {
        member::process_ends(tls);
    } else {
        member::task_ends(tls);
    }
}
