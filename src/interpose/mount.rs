//! mount(2), umount(2), and the calls that mount step by step (fsopen(2)).

use core::ffi::{CStr, c_char, c_int, c_uint, c_ulong, c_void};
use core::sync::atomic::{AtomicU32, Ordering};

use super::{next, nsfile, ret};
use crate::abi::{Errno, Result};
use crate::ns::{self, Referred};
use crate::sys::local::LocalLock;
use crate::sys::path::{Fd, Path, stat_path};
use crate::syscall;
use crate::vfs::{self, mount as fs};

const TYPE: &[u8] = b"mqueue";
const AT: c_int = libc::AT_FDCWD;

/// A string that the kernel has found readable.
///
/// # Errors
///
/// EFAULT.
///
/// # Safety
///
/// `text` is a user pointer.
unsafe fn string<'a>(text: *const c_char) -> Result<&'a [u8]> {
    match stat_path(AT, text, 0) {
        Err(Errno::EFAULT) => Err(Errno::EFAULT),
        // Longer than mount(2) takes.
        Err(Errno::ENAMETOOLONG) => Err(Errno::EINVAL),
        // SAFETY: the kernel has read it to its end, or a page of it.
        _ => Ok(unsafe { CStr::from_ptr(text) }.to_bytes()),
    }
}

/// mount(2).
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn mount(
    source: *const c_char,
    target: *const c_char,
    kind: *const c_char,
    flags: c_ulong,
    data: *const c_void,
) -> c_int {
    type Mount = unsafe extern "C" fn(*const c_char, *const c_char, *const c_char, c_ulong, *const c_void) -> c_int;
    const MS_MGC_MSK: c_ulong = 0xffff_0000;
    const MS_MGC_VAL: c_ulong = 0xc0ed_0000;
    let next = next!(c"mount": Mount);
    let asked = if flags & MS_MGC_MSK == MS_MGC_VAL { flags & !MS_MGC_MSK } else { flags };
    // SAFETY: the caller's contract; what is read here the kernel has read first.
    unsafe {
        if asked & libc::MS_BIND != 0
            && asked & libc::MS_REMOUNT == 0
            && let Some(bound) = nsfile::bind(source, |file| next(file, target, kind, flags, data))
        {
            return bound.unwrap_or_else(|errno| ret(Err(errno)) as c_int);
        }
        if asked & fs::OTHER_ACTIONS == 0 && !kind.is_null() && string(kind) == Ok(TYPE) {
            return ret(mount_queues(source, target, asked, data.cast()).map(|()| 0)) as c_int;
        }
        if asked & (fs::OTHER_ACTIONS & !libc::MS_BIND) == libc::MS_REMOUNT
            && vfs::any()
            && let Some((place, on)) = vfs::root_at(AT, target, true)
        {
            return ret(remount(&place, &on, asked, data.cast()).map(|()| 0)) as c_int;
        }
        let bound = if asked & (libc::MS_BIND | libc::MS_MOVE) != 0 && asked & libc::MS_REMOUNT == 0 && vfs::any() {
            known_mount(AT, source, false)
        } else {
            None
        };
        let result = next(source, target, kind, flags, data);
        vfs::look_again();
        if result == 0
            && let Some((record, place)) = bound
            && let Some((_, dir)) = vfs::root_at(AT, target, true)
        {
            // It shows the source of the mount that it is a copy of, or was.
            fs::attached(&place, &dir, &record);
        }
        if result != 0
            && ns::generous()
            && asked & fs::OTHER_ACTIONS == 0
            && kind.is_null()
            && kernel_says(Errno::EPERM)
        {
            return ret(Err(Errno::EINVAL)) as c_int;
        }
        if result != 0
            && ns::generous()
            && asked & fs::OTHER_ACTIONS == 0
            && !kind.is_null()
            && kernel_says(Errno::EPERM)
            && string(kind).is_ok_and(|kind| !is_known_type(kind))
        {
            return ret(Err(Errno::ENODEV)) as c_int;
        }
        result
    }
}

/// Whether the kernel has a file system of that name.
fn is_known_type(kind: &[u8]) -> bool {
    let line = Path::new(&[b"\t", kind, b"\n"]);
    let list = Path::new(&[b"/proc/filesystems"]);
    match (line, list) {
        (Ok(line), Ok(list)) => crate::sys::proc::mentions(&list, line.as_bytes()).unwrap_or(true),
        _ => false,
    }
}

/// The options in `data`; a source among them.
unsafe fn options<'a>(data: *const c_char, source_given: bool) -> Result<Option<&'a [u8]>> {
    if data.is_null() {
        return Ok(None);
    }
    let mut source = None;
    // SAFETY: the caller's contract.
    for word in unsafe { string(data)? }.split(|&b| b == b',') {
        match word.strip_prefix(b"source=") {
            Some(given) if !source_given && source.is_none() => source = Some(given),
            None if word.is_empty() || fs::is_general_option(word) => {}
            _ => return Err(Errno::EINVAL),
        }
    }
    Ok(source)
}

/// mount(2) of type mqueue.
unsafe fn mount_queues(source: *const c_char, target: *const c_char, flags: u64, data: *const c_char) -> Result<()> {
    // SAFETY: the caller's contract.
    unsafe {
        let given = if source.is_null() { None } else { Some(string(source)?) };
        if !data.is_null() {
            string(data)?;
        }
        let on = match Fd::open_at(AT, target, libc::O_PATH) {
            // A queue, by a mount that the kernel does not see.
            Err(Errno::ENOENT) if is_covered_file(target) => return Err(Errno::ENOTDIR),
            other => other?,
        };
        if !fs::may_mount_anything() {
            return Err(Errno::EPERM);
        }
        let found = options(data, given.is_some())?;
        let tls = super::mq::ready()?;
        let place = ns::current(tls)?;
        if !fs::may_mount(place) {
            return Err(Errno::EPERM);
        }
        fs::mount(place, &on, flags, given.or(found).unwrap_or(b"none"))
    }
}

/// Whether a path is that of a queue's file by a virtual mount.
///
/// # Safety
///
/// `path` is a user pointer.
unsafe fn is_covered_file(path: *const c_char) -> bool {
    // SAFETY: the caller's contract.
    vfs::any_virtual() && unsafe { vfs::locate(AT, path, true) }.is_some_and(|target| target.stat().is_ok())
}

unsafe fn remount(place: &Referred, on: &Fd, flags: u64, data: *const c_char) -> Result<()> {
    if !fs::may_mount_anything() {
        return Err(Errno::EPERM);
    }
    if flags & libc::MS_BIND == 0 {
        // SAFETY: the caller's contract.
        unsafe { options(data, true)? };
    }
    fs::remount(place, on, flags)
}

/// How often an unmount is tried again: others of us may be looking, at the end of a namespace, at what processes have
/// open (`ns::life::is_used`), which holds it for an instant.
const MOST_LOOKERS: u32 = 16;

/// umount2(2).
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn umount2(target: *const c_char, flags: c_int) -> c_int {
    let next = next!(c"umount2": unsafe extern "C" fn(*const c_char, c_int) -> c_int);
    let follow = flags & libc::UMOUNT_NOFOLLOW == 0;
    // The directory is not to be open meanwhile.
    // Looking at a mount would count as a use of it, for MNT_EXPIRE.
    let find = || {
        if !vfs::any() || flags & libc::MNT_EXPIRE != 0 {
            return None;
        }
        // SAFETY: a user pointer, which the kernel reads first.
        unsafe { vfs::root_at(AT, target, follow) }.map(|(place, dir)| fs::leaving(place, &dir))
    };
    const FLAGS: c_int = libc::MNT_FORCE | libc::MNT_DETACH | libc::MNT_EXPIRE | libc::UMOUNT_NOFOLLOW;
    let expiring = flags & libc::MNT_EXPIRE != 0 && flags & (libc::MNT_FORCE | libc::MNT_DETACH) != 0;
    if vfs::any_virtual()
        && flags & !FLAGS == 0
        && !expiring
        && let Ok(st) = stat_path(AT, target, if follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW })
        && let Some(result) = vfs::virtuals::unmount(st.st_dev, st.st_ino, flags)
    {
        return ret(result.map(|()| 0)) as c_int;
    }
    let known = find();
    // SAFETY: the caller's contract.
    let mut result = unsafe { next(target, flags) };
    for _ in 0..MOST_LOOKERS {
        if result == 0 || known.is_none() || !kernel_says(Errno::EBUSY) {
            break;
        }
        // SAFETY: no arguments; then the caller's contract.
        result = unsafe {
            let _ = crate::syscall!(SYS_sched_yield);
            next(target, flags)
        };
    }
    vfs::look_again();
    if result != 0
        && let Some(stays) = &known
    {
        fs::stays(stays);
    }
    // SAFETY: the kernel has read the path.
    let is_file = || unsafe { is_covered_file(target) };
    if result != 0 && ns::generous() && (kernel_says(Errno::EPERM) || kernel_says(Errno::ENOENT) && is_file()) {
        // Who may do it finds nothing to be done.
        return ret(Err(Errno::EINVAL)) as c_int;
    }
    if result == 0 {
        match known {
            Some(left) => fs::unmounted(&left),
            None if flags & libc::MNT_EXPIRE != 0 && vfs::any() => nsfile::look(),
            None => {}
        }
        nsfile::unmounted();
    }
    result
}

/// Whether a libc function has failed with that error.
fn kernel_says(errno: Errno) -> bool {
    // SAFETY: the address of the calling thread's errno.
    unsafe { *super::cshim_errno() == errno.0 }
}

/// move_mount(2): what is shown of the mount goes along.
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn move_mount(
    from_at: c_int,
    from: *const c_char,
    to_at: c_int,
    to: *const c_char,
    flags: c_uint,
) -> c_int {
    const F_EMPTY_PATH: c_uint = 4;
    const T_EMPTY_PATH: c_uint = 0x40;
    if flags & F_EMPTY_PATH != 0
        && flags & T_EMPTY_PATH == 0
        && ns::generous()
        // SAFETY: the caller's contract.
        && let Some(done) = unsafe { move_virtual(from_at, to_at, to) }
    {
        return ret(done.map(|()| 0)) as c_int;
    }
    // SAFETY: the caller's contract.
    let known = unsafe { known_mount(from_at, from, flags & F_EMPTY_PATH != 0) };
    type MoveMount = unsafe extern "C" fn(c_int, *const c_char, c_int, *const c_char, c_uint) -> c_int;
    // SAFETY: the caller's contract.
    let result = unsafe { next!(c"move_mount": MoveMount)(from_at, from, to_at, to, flags) };
    vfs::look_again();
    if result == 0
        && flags & T_EMPTY_PATH == 0
        && let Some((record, place)) = known
        // SAFETY: the kernel has accepted the path.
        && let Some((_, dir)) = unsafe { vfs::root_at(to_at, to, true) }
    {
        fs::attached(&place, &dir, &record);
    }
    result
}

/// The mount of a superblock that a path, or with `itself` a descriptor, stands for, and what is shown of it.
///
/// # Safety
///
/// `path` is a user pointer.
unsafe fn known_mount(at: c_int, path: *const c_char, itself: bool) -> Option<(fs::Record, Referred)> {
    if !vfs::any() {
        return None;
    }
    if itself {
        let dir = core::mem::ManuallyDrop::new(Fd(at));
        return vfs::root_of(&dir).map(|place| (fs::recorded_of(&place, &dir), place));
    }
    // SAFETY: the caller's contract.
    unsafe { vfs::root_at(at, path, true) }.map(|(place, dir)| (fs::recorded_of(&place, &dir), place))
}

/// open_tree(2): a copy shows the source of the mount that it is a copy of.
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn open_tree(at: c_int, path: *const c_char, flags: c_uint) -> c_int {
    const OPEN_TREE_CLONE: c_uint = 1;
    // SAFETY: the caller's contract.
    let tree =
        unsafe { next!(c"open_tree": unsafe extern "C" fn(c_int, *const c_char, c_uint) -> c_int)(at, path, flags) };
    if tree >= 0 && flags & OPEN_TREE_CLONE != 0 && vfs::any() {
        let copy = core::mem::ManuallyDrop::new(Fd(tree));
        // SAFETY: the kernel has accepted the path.
        let original = unsafe { known_mount(at, path, flags & libc::AT_EMPTY_PATH as c_uint != 0) };
        if let Some((record, place)) = original {
            fs::attached(&place, &copy, &record);
        }
    }
    tree
}

/// umount(2): see [`umount2`].
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn umount(target: *const c_char) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { umount2(target, 0) }
}

// ---- step by step -------------------------------------------------------------------------------

/// What has been said of a file system that is being mounted. Its descriptor is one of the namespace, which
/// it keeps alive.
struct Context {
    /// 1 + descriptor; 0: free.
    fd: AtomicU32,
    said: core::cell::UnsafeCell<Said>,
}

#[derive(Clone, Copy)]
struct Said {
    state: State,
    read_only: Option<bool>,
    source: Option<fs::Record>,
    place: Option<&'static ns::Place>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// fsopen(2).
    Open,
    /// FSCONFIG_CMD_CREATE.
    Created,
    /// fsmount(2).
    Mounted,
    /// fspick(2).
    Picked,
    /// What fsmount(2) has given where the kernel permits no mounts: a directory of the superblock.
    Detached(u64),
}

// SAFETY: `said` is touched under `LOCK` alone.
unsafe impl Sync for Context {}

static LOCK: LocalLock = LocalLock::new();
static CONTEXTS: [Context; 32] = [const {
    Context {
        fd: AtomicU32::new(0),
        said: core::cell::UnsafeCell::new(Said { state: State::Open, read_only: None, source: None, place: None }),
    }
}; 32];

/// Runs `with` on what has been said by way of a descriptor; nothing: it is none of these.
fn context<T>(fd: c_int, with: impl FnOnce(&mut Said) -> T) -> Option<T> {
    let tls = vfs::tls();
    let found = CONTEXTS.iter().find(|context| context.fd.load(Ordering::Acquire) == fd as u32 + 1)?;
    let held = LOCK.lock(tls);
    // SAFETY: the lock is held.
    let result = with(unsafe { &mut *found.said.get() });
    drop(held);
    Some(result)
}

/// In a fork child: see [`LocalLock::reset`].
pub fn reset_after_fork() {
    LOCK.reset();
}

/// `fd` is closed.
pub fn closed(fd: c_int) {
    for context in &CONTEXTS {
        let _ = context.fd.compare_exchange(fd as u32 + 1, 0, Ordering::AcqRel, Ordering::Relaxed);
    }
}

fn open_context(place: &'static ns::Place, state: State, cloexec: bool) -> Result<usize> {
    let fd = nsfile::open_place(place, if cloexec { libc::O_CLOEXEC } else { 0 })?;
    if !remember(fd, Said { state, read_only: None, source: None, place: Some(place) }) {
        super::fd::mqns_close(fd);
        return Err(Errno::ENFILE);
    }
    Ok(fd as usize)
}

/// Notes what is said by way of a descriptor, if there is room.
fn remember(fd: c_int, said: Said) -> bool {
    closed(fd);
    let held = LOCK.lock(vfs::tls());
    let free = CONTEXTS.iter().find(|context| context.fd.load(Ordering::Acquire) == 0);
    if let Some(context) = free {
        // SAFETY: the lock is held.
        unsafe { *context.said.get() = said };
        context.fd.store(fd as u32 + 1, Ordering::Release);
    }
    drop(held);
    free.is_some()
}

/// Flags of mount(2) for attributes of fsmount(2).
fn flags_of(attributes: u64) -> u64 {
    let atime = match attributes & 0x70 {
        0x10 => libc::MS_NOATIME,
        0x20 => libc::MS_STRICTATIME,
        _ => 0,
    };
    // The first four bits are the same.
    attributes & 0xf | atime | if attributes & 0x80 != 0 { libc::MS_NODIRATIME } else { 0 }
}

/// move_mount(2) of what stands for a mount where the kernel permits none.
///
/// # Safety
///
/// `to` is a user pointer.
unsafe fn move_virtual(from: c_int, to_at: c_int, to: *const c_char) -> Option<Result<()>> {
    let (attributes, source, place) = context(from, |said| match said.state {
        State::Detached(attributes) => Some((attributes, said.source, said.place)),
        _ => None,
    })??;
    let (source, place) = (source?, place?);
    if fs::is_superblock(from).is_none_or(|there| !core::ptr::eq(there.place(), place)) {
        // The number means another file by now.
        return None;
    }
    let mount = || {
        let on = Fd::open_at(to_at, to, libc::O_PATH)?;
        if on.stat()?.st_mode & libc::S_IFMT != libc::S_IFDIR {
            return Err(Errno::EINVAL);
        }
        vfs::virtuals::attach(place, &on, flags_of(attributes), source.source())
    };
    let done = mount();
    if done.is_ok() {
        closed(from);
    }
    Some(done)
}

/// fsopen(2).
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn fsopen(kind: *const c_char, flags: c_uint) -> c_int {
    const FSOPEN_CLOEXEC: c_uint = 1;
    // SAFETY: the caller's contract.
    if kind.is_null() || unsafe { string(kind) } != Ok(TYPE) {
        // SAFETY: the caller's contract.
        return unsafe { next!(c"fsopen": unsafe extern "C" fn(*const c_char, c_uint) -> c_int)(kind, flags) };
    }
    let open = || {
        if !fs::may_mount_anything() {
            return Err(Errno::EPERM);
        }
        if flags & !FSOPEN_CLOEXEC != 0 {
            return Err(Errno::EINVAL);
        }
        let place = ns::current(super::mq::ready()?)?;
        open_context(place, State::Open, flags & FSOPEN_CLOEXEC != 0)
    };
    ret(open()) as c_int
}

/// fspick(2).
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn fspick(at: c_int, path: *const c_char, flags: c_uint) -> c_int {
    const FSPICK_CLOEXEC: c_uint = 1;
    const FSPICK_SYMLINK_NOFOLLOW: c_uint = 2;
    if vfs::any()
        // SAFETY: a user pointer, which the kernel reads first.
        && let Some((place, _)) = unsafe { vfs::root_at(at, path, flags & FSPICK_SYMLINK_NOFOLLOW == 0) }
    {
        let pick = || {
            if !fs::may_mount_anything() {
                return Err(Errno::EPERM);
            }
            if flags & !0xf != 0 {
                return Err(Errno::EINVAL);
            }
            open_context(place.place(), State::Picked, flags & FSPICK_CLOEXEC != 0)
        };
        return ret(pick()) as c_int;
    }
    // SAFETY: the caller's contract.
    unsafe { next!(c"fspick": unsafe extern "C" fn(c_int, *const c_char, c_uint) -> c_int)(at, path, flags) }
}

/// fsconfig(2).
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn fsconfig(
    fd: c_int,
    command: c_uint,
    key: *const c_char,
    value: *const c_void,
    aux: c_int,
) -> c_int {
    // SAFETY: the caller's contract.
    if let Some(result) = context(fd, |said| unsafe { configure(said, command, key, value.cast()) }) {
        return ret(result.map(|()| 0)) as c_int;
    }
    type Fsconfig = unsafe extern "C" fn(c_int, c_uint, *const c_char, *const c_void, c_int) -> c_int;
    // SAFETY: the caller's contract.
    unsafe { next!(c"fsconfig": Fsconfig)(fd, command, key, value, aux) }
}

unsafe fn configure(said: &mut Said, command: c_uint, key: *const c_char, value: *const c_char) -> Result<()> {
    const SET_FLAG: c_uint = 0;
    const SET_STRING: c_uint = 1;
    const CMD_CREATE: c_uint = 6;
    const CMD_RECONFIGURE: c_uint = 7;
    let place = said.place.ok_or(Errno::EINVAL)?;
    match command {
        SET_FLAG | SET_STRING => {
            if key.is_null() || (command == SET_FLAG) != value.is_null() {
                return Err(Errno::EINVAL);
            }
            // SAFETY: the caller's contract.
            let key = unsafe { string(key)? };
            if !matches!(said.state, State::Open | State::Picked) {
                return Err(Errno::EBUSY);
            }
            match (command, key) {
                (SET_STRING, b"source") if said.source.is_none() => {
                    // SAFETY: the caller's contract.
                    said.source = Some(fs::record(false, unsafe { string(value)? }));
                }
                (SET_FLAG, b"ro") => said.read_only = Some(true),
                (SET_FLAG, b"rw") => said.read_only = Some(false),
                (SET_FLAG, word) if fs::is_general_option(word) => {}
                _ => return Err(Errno::EINVAL),
            }
            Ok(())
        }
        CMD_CREATE => {
            if said.state != State::Open {
                return Err(Errno::EBUSY);
            }
            if !fs::may_mount(place) {
                return Err(Errno::EPERM);
            }
            said.state = State::Created;
            Ok(())
        }
        CMD_RECONFIGURE => {
            if said.state != State::Picked {
                return Err(Errno::EBUSY);
            }
            match said.read_only.take() {
                Some(read_only) => fs::set_read_only(&place.refer(), read_only),
                None => Ok(()),
            }
        }
        2..=5 | 8 => Err(Errno::EINVAL),
        _ => Err(Errno::EOPNOTSUPP),
    }
}

/// fsmount(2).
#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn fsmount(fd: c_int, flags: c_uint, attributes: c_uint) -> c_int {
    const FSMOUNT_CLOEXEC: c_uint = 1;
    let mut virtually = None;
    let mount = |said: &mut Said| -> Result<usize> {
        if flags & !FSMOUNT_CLOEXEC != 0 || !fs::are_attributes(attributes as u64) {
            return Err(Errno::EINVAL);
        }
        let place = said.place.ok_or(Errno::EINVAL)?;
        match said.state {
            State::Open => return Err(Errno::EINVAL),
            State::Mounted | State::Picked | State::Detached(_) => return Err(Errno::EBUSY),
            State::Created => {}
        }
        let tree = match fs::detached(place, attributes as u64) {
            Err(Errno::EPERM) if ns::generous() => {
                let source = said.source.unwrap_or(fs::record(false, b"none"));
                let tree = vfs::open_superblock(&place.refer())?;
                virtually = Some((tree.0, place, source));
                said.state = State::Mounted;
                nsfile::let_go(fd);
                return Ok(tree.release() as usize);
            }
            other => other?,
        };
        let noexec = attributes as u64 & fs::NOEXEC != 0;
        let source = said.source.as_ref().map_or(&b"none"[..], |record| record.source());
        fs::attached(&place.refer(), &tree, &fs::record(noexec, source));
        said.state = State::Mounted;
        // From now on the mount keeps the superblock, and nothing the namespace.
        nsfile::let_go(fd);
        if flags & FSMOUNT_CLOEXEC == 0 {
            // SAFETY: no pointers.
            unsafe { syscall!(SYS_fcntl, tree.0, libc::F_SETFD, 0)? };
        }
        Ok(tree.release() as usize)
    };
    if let Some(result) = context(fd, mount) {
        if let Some((tree, place, source)) = virtually {
            let said = Said {
                state: State::Detached(attributes.into()),
                read_only: None,
                source: Some(source),
                place: Some(place),
            };
            remember(tree, said);
            let cloexec = if flags & FSMOUNT_CLOEXEC != 0 { libc::FD_CLOEXEC } else { 0 };
            // SAFETY: no pointers.
            let _ = unsafe { syscall!(SYS_fcntl, tree, libc::F_SETFD, cloexec) };
        }
        return ret(result) as c_int;
    }
    next!(c"fsmount": extern "C" fn(c_int, c_uint, c_uint) -> c_int)(fd, flags, attributes)
}
