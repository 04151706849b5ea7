//! Membership: which namespace a task is in, and how it comes and goes.
//!
//! A member is whoever holds a shared flock on the namespace's file `control`. A task holds it by a
//! mapping of the file (without access, its descriptor closed): so it lives as long as the memory,
//! follows fork and raw clone without a hook, takes no descriptor, and falls with SIGKILL at any
//! instruction. Over exec, which drops the mapping, a descriptor carries it ([`super::across`]);
//! descriptors of namespaces (`/proc/PID/ns/ipc`) and operations under way hold it as well.
//!
//! The flocks are the namespace's count of tasks, kept by the kernel. "Drop, and test for zero under
//! the lock together with the state change" is [`super::life::teardown`]: whoever leaves drops its own, then tries
//! for the exclusive flock. It is granted exactly when nobody is left, and while it is held nobody can
//! become a member; under it the state becomes [`DEAD`] for good. A joiner takes the shared flock
//! first, without waiting, and then looks at the state.
//!
//! The offset of the mapping tells others who read `/proc/PID/maps` whose it is: 0 for the process
//! (all tasks without one of their own), `tid << 12` for one task.

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use super::control::{BOUND, Control, DEAD, random};
use super::life::{directory, directory_of_user, look, remove_directories, teardown};
use super::{Place, Referred, place};
use crate::abi::{Errno, Result};
use crate::sys::gettid;
use crate::sys::local::LocalLock;
use crate::sys::path::{Fd, Path};
use crate::sys::tls::{self, RobustHead, Tls};
use crate::syscall;

/// Length of the last part of the name of a namespace's directory, hexadecimal digits.
pub const SECRET: usize = 32;

/// 1 + number of the place of all tasks of the process without one of their own; 0: the initial one.
static PROCESS: AtomicUsize = AtomicUsize::new(0);
/// The mapping by which the process is a member, 0 if none.
static PROCESS_MAP: AtomicUsize = AtomicUsize::new(0);

/// A task with a namespace of its own: a thread that has called unshare or setns, one that such a
/// thread has created, or a process that shares this memory.
struct Own {
    /// 0: free, [`GONE`]: was used.
    tid: AtomicU32,
    /// 1 + number of the place.
    place: AtomicUsize,
    map: AtomicUsize,
}

const GONE: u32 = u32::MAX;
const OWNS: usize = 4096;
/// By thread id, open addressing.
static OWN: [Own; OWNS] =
    [const { Own { tid: AtomicU32::new(0), place: AtomicUsize::new(0), map: AtomicUsize::new(0) } }; OWNS];
/// Entries in use. While there are none, nobody has to ask for its thread id.
static OWN_COUNT: AtomicUsize = AtomicUsize::new(0);
/// Protects changes of all of the above.
static LOCK: LocalLock = LocalLock::new();

fn own(tid: u32) -> Option<&'static Own> {
    let start = tid as usize % OWNS;
    for own in OWN[start..].iter().chain(&OWN[..start]) {
        match own.tid.load(Ordering::Acquire) {
            0 => return None,
            found if found == tid => return Some(own),
            _ => {}
        }
    }
    None
}

/// 1 + number of the calling task's place; 0: that in which the process began.
#[inline]
pub fn current() -> usize {
    if OWN_COUNT.load(Ordering::Relaxed) != 0 {
        // SAFETY: no arguments.
        let known_by_libc = || unsafe { cshim_tid() };
        // A guest is where its maker is, whose block it has.
        let found = own(gettid()).or_else(|| own(tls::last_known_tid())).or_else(|| own(known_by_libc()));
        if let Some(own) = found {
            return own.place.load(Ordering::Relaxed);
        }
    }
    PROCESS.load(Ordering::Relaxed)
}

/// Whether all tasks of the process are where it began: nothing is to be passed on.
#[inline]
pub fn nobody_has_moved() -> bool {
    PROCESS.load(Ordering::Relaxed) == 0 && OWN_COUNT.load(Ordering::Relaxed) == 0
}

/// Whether some task of the process has a namespace of its own.
pub fn anybody_for_itself() -> bool {
    OWN_COUNT.load(Ordering::Relaxed) != 0
}

/// Whether the calling task has a namespace of its own, which the threads that it creates inherit.
pub fn has_own() -> bool {
    OWN_COUNT.load(Ordering::Relaxed) != 0 && own(gettid()).is_some()
}

unsafe extern "C" {
    fn cshim_tid() -> u32;
    fn cshim_track_threads();
    fn cshim_track_thread();
}

/// Whether the calling task is a process that shares its maker's memory (vfork, CLONE_VM): libc
/// has another's thread id in the memory that is taken for the task's own. So it has in the child
/// of a raw clone with a copy of the memory; the kernel knows which it is (kcmp(2)), and where it doesn't
/// say, the page that is wiped in copies does as a rule.
pub fn is_guest() -> bool {
    const KCMP_VM: i32 = 1;
    // SAFETY: no arguments.
    let known_by_libc = unsafe { cshim_tid() };
    if known_by_libc == gettid() {
        return false;
    }
    // SAFETY: no pointers.
    let shares_memory = |with: usize| unsafe { syscall!(SYS_kcmp, crate::sys::getpid(), with, KCMP_VM, 0, 0) };
    // SAFETY: no pointers.
    let parent = unsafe { syscall!(SYS_getppid) }.unwrap_or(0);
    match (shares_memory(parent), shares_memory(known_by_libc as usize)) {
        // A parent whose first thread has ended has no memory that could be compared.
        (Ok(0), _) | (_, Ok(0)) => true,
        (Ok(_), _) | (_, Ok(_)) => false,
        _ => !tls::is_own_process(),
    }
}

/// A block for the calling task: its own, or, for a guest ([`is_guest`]), whose own is another's, one for the moment, with a
/// robust list.
pub struct OwnTls(Option<Tls>);

impl OwnTls {
    #[allow(clippy::new_without_default)]
    pub fn new() -> OwnTls {
        OwnTls(is_guest().then(Tls::blank))
    }

    /// Nothing: there is none.
    pub fn tls(&self) -> Option<&Tls> {
        let Some(tls) = &self.0 else { return tls::ready().ok() };
        let own = &tls.own_robust;
        own.next.store(&raw const *own as usize, Ordering::Relaxed);
        // SAFETY: the head stays where it is until `drop` takes it back: the caller borrows it.
        unsafe { syscall!(SYS_set_robust_list, &raw const *own, size_of::<RobustHead>()).ok()? };
        tls.robust.store(&raw const *own as usize, Ordering::Relaxed);
        tls.tid.store(gettid(), Ordering::Relaxed);
        Some(tls)
    }
}

impl Drop for OwnTls {
    fn drop(&mut self) {
        if self.0.is_some() {
            // SAFETY: no pointer. Such a task has had no list before: libc makes none for it.
            let _ = unsafe { syscall!(SYS_set_robust_list, 0, size_of::<RobustHead>()) };
        }
    }
}

/// The calling task's own block; for a guest, whose memory says another one's, a stand-in.
pub fn tls() -> &'static Tls {
    static GUEST: Tls = Tls::blank();
    if is_guest() { &GUEST } else { tls::tls() }
}

/// Whether the calling task is the only one of its process.
fn is_alone() -> bool {
    // "." "..", and a directory for each.
    Path::new(&[b"/proc/self/task"]).and_then(|task| task.stat()).map_or(single_threaded(), |st| st.st_nlink == 3)
}

fn single_threaded() -> bool {
    unsafe extern "C" {
        static __libc_single_threaded: core::ffi::c_char;
    }
    // SAFETY: a variable of libc's (2.32 and later).
    unsafe { (&raw const __libc_single_threaded).read_volatile() != 0 }
}

/// Whom a membership is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum For {
    /// The process.
    Process,
    /// The calling task alone.
    Task,
    /// A task that is being created.
    Newborn,
}

impl For {
    /// For the calling task, and those that go with it.
    pub fn caller() -> For {
        if !is_guest() && !has_own() && is_alone() { For::Process } else { For::Task }
    }

    fn offset(self) -> u64 {
        match self {
            For::Process => 0,
            For::Task => (gettid() as u64) << 12,
            For::Newborn => 1 << 40,
        }
    }
}

/// A membership that is nobody's yet: given up when dropped.
pub struct Membership {
    place: &'static Place,
    map: usize,
}

impl Drop for Membership {
    fn drop(&mut self) {
        give_up(self.map, self.place.index() + 1);
    }
}

fn unmap(map: usize) {
    if map != 0 {
        // SAFETY: a mapping of ours without access, which nobody looks into.
        let _ = unsafe { syscall!(SYS_munmap, map, 4096) };
    }
}

/// Leaves a namespace, and ends it if nobody is left.
fn give_up(map: usize, place: usize) {
    unmap(map);
    crate::crash_point!("leave.unmapped");
    if place == UNKNOWN {
        if let Some(dir) = adopted_directory() {
            teardown(dir);
        }
        return;
    }
    if place != 0
        && let Ok(place) = Place::of(place - 1)
    {
        if map != 0 && place.is_virtual() {
            teardown(place.dir());
        }
        place.release();
    }
}

/// flock(2), without waiting.
///
/// # Errors
///
/// EAGAIN: others have it.
pub fn lock(file: &Fd, operation: i32) -> Result<()> {
    // SAFETY: no pointers.
    unsafe { syscall!(SYS_flock, file.0, operation | libc::LOCK_NB) }.map(|_| ())
}

/// Opens a file `control`, which others may have replaced by a FIFO: not to wait there.
fn open_control(path: &Path, flags: i32) -> Result<Fd> {
    let file = path.open_own(libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK | flags)?;
    if file.stat()?.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Err(Errno::EIO);
    }
    // What was not asked for would be seen.
    // SAFETY: no pointers.
    unsafe { syscall!(SYS_fcntl, file.0, libc::F_SETFL, flags)? };
    Ok(file)
}

/// A shared lock, once whoever has it to himself lets go: he takes a moment to look. Everybody who may read the file
/// can hold it, so that this is not for ever.
///
/// # Errors
///
/// ENOENT: he does not let go.
fn await_lock(file: &Fd) -> Result<()> {
    const LOOKS: u32 = 2000;
    for _ in 0..LOOKS {
        match lock(file, libc::LOCK_SH) {
            Err(Errno::EAGAIN) => {}
            other => return other,
        }
        let moment = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        // SAFETY: the time is a local.
        let _ = unsafe { syscall!(SYS_nanosleep, &raw const moment, 0) };
    }
    Err(Errno::ENOENT)
}

/// Holds a namespace by a descriptor: it stays while that is open anywhere.
///
/// # Errors
///
/// ENOENT: it is ending, or has ended.
pub fn hold(place: &Place, flags: i32) -> Result<Fd> {
    let file = open_control(&place.path(&[b"/control"])?, flags)?;
    match lock(&file, libc::LOCK_SH) {
        // Who has the lock to himself may be about to find out that it is bind mounted.
        Err(Errno::EAGAIN) if place.control().state.load(Ordering::Acquire) & (BOUND | DEAD) == BOUND => {
            await_lock(&file)?;
        }
        // Else he is about to end it.
        Err(Errno::EAGAIN) => return Err(Errno::ENOENT),
        other => other?,
    }
    if place.is_dead() { Err(Errno::ENOENT) } else { Ok(file) }
}

/// In [`PROCESS`]: the place is that of [`ADOPTED`], which nobody has asked for yet.
pub const UNKNOWN: usize = usize::MAX;

/// The directory of the namespace in which the image was started.
struct Adopted(core::cell::UnsafeCell<Option<Path>>);
// SAFETY: written by `begin` alone, before there are threads.
unsafe impl Sync for Adopted {}
static ADOPTED: Adopted = Adopted(core::cell::UnsafeCell::new(None));

/// The same, while the process is there and has not looked closer.
fn adopted() -> Option<&'static [u8]> {
    if PROCESS.load(Ordering::Acquire) == UNKNOWN { adopted_directory() } else { None }
}

fn adopted_directory() -> Option<&'static [u8]> {
    // SAFETY: written before any thread was there, and never again.
    unsafe { (*ADOPTED.0.get()).as_ref().map(|dir| dir.as_bytes()) }
}

/// The process is a member from its start on, by a descriptor that has come over exec. All else waits
/// until it is needed: most programs use no queue.
pub fn begin(file: &Fd, dir: &Path) {
    if let Ok(map) = map_membership(file, For::Process) {
        // SAFETY: no thread is there yet.
        unsafe { *ADOPTED.0.get() = Some(*dir) };
        PROCESS_MAP.store(map, Ordering::Release);
        PROCESS.store(UNKNOWN, Ordering::Release);
    }
}

/// Finds the place of [`UNKNOWN`].
///
/// # Errors
///
/// Those of [`super::place`].
pub fn resolve(tls: &Tls) -> Result<()> {
    let Some(dir) = adopted() else { return Ok(()) };
    let place = place(tls, dir)?;
    if PROCESS.compare_exchange(UNKNOWN, place.index() + 1, Ordering::AcqRel, Ordering::Acquire).is_ok() {
        let _ = place.keep();
    }
    Ok(())
}

/// The offset of a mapping that only says that a process is ending.
pub const LEAVING: u64 = 1 << 41;

/// The directory of the calling task's namespace.
///
/// # Errors
///
/// Those of [`super::current`].
pub fn own_directory(tls: &Tls) -> Result<Path> {
    if current() == UNKNOWN
        && let Some(dir) = adopted()
    {
        return Path::new(&[dir]);
    }
    Path::new(&[super::current(tls)?.dir()])
}

/// A descriptor that holds the calling task's own namespace, which needs no closer look.
///
/// # Errors
///
/// Those of open(2).
pub fn hold_by(dir: &Path, flags: i32) -> Result<Fd> {
    let file = open_control(&Path::new(&[dir.as_bytes(), b"/control"])?, flags)?;
    lock(&file, libc::LOCK_SH)?;
    Ok(file)
}

fn map_membership(file: &Fd, whom: For) -> Result<usize> {
    // SAFETY: a new mapping without access; the flock of the open file description stays with it.
    unsafe { syscall!(SYS_mmap, 0, 4096, libc::PROT_NONE, libc::MAP_SHARED, file.0, whom.offset()) }
}

/// A membership in a namespace that exists.
///
/// # Errors
///
/// ENOENT: it is ending, or has ended.
pub fn join(place: Referred, whom: For) -> Result<Membership> {
    let map = map_membership(&hold(&place, 0)?, whom)?;
    crate::crash_point!("ns.joined");
    Ok(Membership { place: place.keep(), map })
}

/// Makes a namespace, with a membership in it.
///
/// # Errors
///
/// Those of making directories and files.
pub fn create(tls: &Tls, whom: For) -> Result<Membership> {
    let root = super::root()?;
    let everybody = super::is_for_everybody(&root)?;
    super::make_accounts(&root, everybody)?;
    let owner = FileIds::of_caller();
    // Somebody who looks for what the dead have left may take a directory for such in which nothing
    // is yet.
    for _ in 0..100 {
        match create_once(tls, &root, everybody, whom) {
            Err(Errno::ENOENT | Errno::EEXIST) => {}
            Ok(membership) => {
                owner.give(&membership)?;
                look(root.as_bytes(), membership.place.accounts(), 3);
                return Ok(membership);
            }
            other => return other,
        }
    }
    Err(Errno::EAGAIN)
}

/// The ids by which a caller makes files (setfsuid(2)). The kernel makes the root of a namespace's file system
/// by them; ours lies in a directory of the effective user.
struct FileIds {
    uid: u32,
    gid: u32,
    /// They were put aside.
    aside: bool,
}

impl FileIds {
    fn of_caller() -> FileIds {
        // SAFETY: no pointers; an invalid id only asks.
        let (uid, gid) = unsafe { (syscall!(SYS_setfsuid, u32::MAX), syscall!(SYS_setfsgid, u32::MAX)) };
        // SAFETY: no pointers.
        let egid = unsafe { syscall!(SYS_getegid) }.unwrap_or(0) as u32;
        let ids = FileIds { uid: uid.unwrap_or(0) as u32, gid: gid.unwrap_or(0) as u32, aside: false };
        let euid = super::euid();
        let aside = (ids.uid, ids.gid) != (euid, egid);
        if aside {
            FileIds::set(euid, egid);
        }
        FileIds { aside, ..ids }
    }

    fn set(uid: u32, gid: u32) {
        // SAFETY: no pointers; of the calling thread alone.
        unsafe {
            let _ = syscall!(SYS_setfsgid, gid);
            let _ = syscall!(SYS_setfsuid, uid);
        }
    }

    fn give(&self, to: &Membership) -> Result<()> {
        if !self.aside {
            return Ok(());
        }
        to.place.path(&[b"/sb"])?.chown(self.uid, self.gid)
    }
}

impl Drop for FileIds {
    fn drop(&mut self) {
        if self.aside {
            FileIds::set(self.uid, self.gid);
        }
    }
}

/// The directory in which the caller's namespaces lie, made if need be.
///
/// # Errors
///
/// EACCES: it is somebody else's; those of making directories.
pub fn users_directory(root: &Path) -> Result<Path> {
    let own = directory_of_user(root, super::kernel_uid(super::euid()))?;
    // Nobody else may list it.
    if super::euid() == 0 {
        super::claim_users_directory(root, &own)?;
    }
    own.make_dir(if super::is_for_everybody(root)? { 0o711 } else { 0o700 })?;
    if own.stat()?.st_uid != super::euid() {
        crate::log::refused(format_args!(
            "unshare: EACCES: {} belongs to somebody else",
            core::str::from_utf8(own.as_bytes()).unwrap_or("the user's directory")
        ));
        return Err(Errno::EACCES);
    }
    Ok(own)
}

fn create_once(tls: &Tls, root: &Path, everybody: bool, whom: For) -> Result<Membership> {
    let uid = super::kernel_uid(super::euid());
    // Numbers that the kernel does not give to namespaces (those begin at 4026531840), with as many
    // digits.
    let id = 1_000_000_000 + random() % 2_900_000_000;
    let secret = [random() | 1, random()];
    let dir = directory(users_directory(root)?, id, secret)?;
    let made = (|| {
        dir.make_new_dir(if everybody { 0o755 } else { 0o700 })?;
        crate::crash_point!("ns.directory");
        let made = libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
        let file = Path::new(&[dir.as_bytes(), b"/control"])?.open(libc::O_RDWR | made, 0o600)?;
        crate::crash_point!("ns.control");
        lock(&file, libc::LOCK_SH).map_err(|_| Errno::ENOENT)?;
        crate::crash_point!("ns.held");
        file.chmod(if everybody { 0o666 } else { 0o600 })?;
        let user_ns = crate::sys::user_namespace();
        Control::fill(&file, dir.as_bytes(), id, secret, user_ns, uid)?;
        crate::crash_point!("ns.filled");
        super::make_directories(&dir, everybody)?;
        crate::crash_point!("ns.directories");
        let place = place(tls, dir.as_bytes())?;
        let map = map_membership(&file, whom)?;
        crate::crash_point!("ns.joined");
        Ok(Membership { place: place.keep(), map })
    })();
    if made.is_err() {
        remove_directories(dir.as_bytes());
    }
    made
}

impl Membership {
    /// The namespace.
    pub fn place(&self) -> &'static Place {
        self.place
    }

    /// Whether there is room to note it for a task.
    pub fn has_room() -> bool {
        OWN_COUNT.load(Ordering::Relaxed) < OWNS / 4 * 3
    }

    /// Makes it that of the calling task (`For::Task`) or of the process; the namespace in which that
    /// was is left.
    pub fn assume(self, tls: &Tls, whom: For) {
        let (place, map) = (self.place.index() + 1, self.map);
        core::mem::forget(self);
        let held = LOCK.lock(tls);
        let left = if whom == For::Process {
            let map = PROCESS_MAP.swap(map, Ordering::AcqRel);
            (map, PROCESS.swap(place, Ordering::AcqRel))
        } else {
            let tid = gettid();
            match own(tid) {
                Some(own) => (own.map.swap(map, Ordering::AcqRel), own.place.swap(place, Ordering::AcqRel)),
                None => {
                    insert(tid, place, map);
                    (0, 0)
                }
            }
        };
        drop(held);
        if whom == For::Task && !is_guest() {
            // SAFETY: no arguments.
            unsafe {
                cshim_track_threads();
                cshim_track_thread();
            }
        }
        crate::crash_point!("ns.assumed");
        give_up(left.0, left.1);
    }

    /// The same for the calling process, which has just been made by thread `parent`, with a copy of
    /// its memory.
    pub fn assume_in_child(self, tls: &Tls, parent: u32) {
        after_fork(parent);
        // So that a child with this memory is told from this process.
        let _ = tls::ready();
        if let Ok(membership) = join(self.place.refer(), For::Process) {
            membership.assume(tls, For::Process);
        }
    }

    /// Hands it over as a number, to be taken by [`Membership::adopt`].
    pub fn release(self) -> (usize, usize) {
        let parts = (self.place.index() + 1, self.map);
        core::mem::forget(self);
        parts
    }

    /// Takes what [`Membership::release`] has handed over.
    pub fn adopt(place: usize, map: usize) -> Result<Membership> {
        Ok(Membership { place: Place::of(place.wrapping_sub(1))?, map })
    }
}

fn insert(tid: u32, place: usize, map: usize) {
    let start = tid as usize % OWNS;
    for own in OWN[start..].iter().chain(&OWN[..start]) {
        if matches!(own.tid.load(Ordering::Acquire), 0 | GONE) {
            own.place.store(place, Ordering::Relaxed);
            own.map.store(map, Ordering::Relaxed);
            own.tid.store(tid, Ordering::Release);
            OWN_COUNT.fetch_add(1, Ordering::AcqRel);
            return;
        }
    }
}

fn remove(own: &Own) -> (usize, usize) {
    own.tid.store(GONE, Ordering::Release);
    let parts = (own.map.swap(0, Ordering::AcqRel), own.place.swap(0, Ordering::AcqRel));
    if OWN_COUNT.fetch_sub(1, Ordering::AcqRel) == 1 {
        for own in &OWN {
            own.tid.store(0, Ordering::Release);
        }
    }
    parts
}

/// The calling task, which has a namespace of its own, ends.
pub fn task_ends(tls: &Tls) {
    let held = LOCK.lock(tls);
    let left = own(gettid()).map(remove);
    drop(held);
    if let Some((map, place)) = left {
        give_up(map, place);
    }
}

/// A guest is about to replace its image: a bridge takes its membership along, and the memory that it
/// leaves behind is another's. What is returned goes to [`guest_stays`] if exec fails.
pub fn guest_execs(tls: &Tls) -> Option<(usize, usize)> {
    if OWN_COUNT.load(Ordering::Relaxed) == 0 || !is_guest() {
        return None;
    }
    let held = LOCK.lock(tls);
    let (map, place) = own(gettid()).map(remove)?;
    drop(held);
    unmap(map);
    Some((map, place))
}

/// See [`guest_execs`].
pub fn guest_stays(tls: &Tls, (_, place): (usize, usize)) {
    if let Ok(place) = Place::of(place.wrapping_sub(1)) {
        if let Ok(membership) = join(place.refer(), For::Task) {
            membership.assume(tls, For::Task);
        }
        place.release();
    }
}

/// The process goes back to where it began.
pub fn return_to_start(tls: &Tls) {
    let held = LOCK.lock(tls);
    let left = (PROCESS_MAP.swap(0, Ordering::AcqRel), PROCESS.swap(0, Ordering::AcqRel));
    drop(held);
    give_up(left.0, left.1);
}

/// Takes off those tasks that have ended without a word: killed guests, raw exits of threads.
pub fn purge(tls: &Tls) {
    if OWN_COUNT.load(Ordering::Relaxed) == 0 {
        return;
    }
    for own in &OWN {
        let tid = own.tid.load(Ordering::Acquire);
        // SAFETY: signal 0 only asks.
        if matches!(tid, 0 | GONE) || unsafe { syscall!(SYS_tkill, tid, 0) } != Err(Errno::ESRCH) {
            continue;
        }
        let held = LOCK.lock(tls);
        let left = (own.tid.load(Ordering::Acquire) == tid).then(|| remove(own));
        drop(held);
        if let Some((map, place)) = left {
            give_up(map, place);
        }
    }
}

/// The process ends: it leaves all namespaces at once.
pub fn process_ends(tls: &Tls) {
    if nobody_has_moved() {
        return;
    }
    if is_guest() {
        return task_ends(tls);
    }
    // The tables stay as they are: threads may go on for a moment. No lock: this may be a signal handler
    // that has interrupted anything.
    let map = PROCESS_MAP.swap(0, Ordering::AcqRel);
    if leave_a_sign(map).is_err() {
        unmap(map);
    }
    let owns = if anybody_for_itself() { &OWN[..] } else { &[] };
    for own in owns {
        unmap(own.map.swap(0, Ordering::AcqRel));
    }
    crate::crash_point!("exit.left");
    if let Some(dir) = adopted() {
        teardown(dir);
    }
    for place in core::iter::once(&PROCESS).chain(owns.iter().map(|own| &own.place)) {
        if let known @ 1.. = place.load(Ordering::Acquire)
            && let Ok(place) = Place::of(known - 1)
            && place.is_virtual()
            && !place.is_dead()
        {
            teardown(place.dir());
        }
    }
}

/// Puts a mapping without a flock in the place of the process's membership, at one blow: whoever asks
/// where it is shall not take it for a process that never left its first namespace.
fn leave_a_sign(map: usize) -> Result<()> {
    let dir = match adopted() {
        Some(dir) => dir,
        None => Place::of(PROCESS.load(Ordering::Acquire).wrapping_sub(1))?.dir(),
    };
    if map == 0 {
        return Err(Errno::ENOENT);
    }
    let file = open_control(&Path::new(&[dir, b"/control"])?, 0)?;
    let flags = libc::MAP_SHARED | libc::MAP_FIXED;
    // SAFETY: in the place of a mapping of ours that nobody looks into.
    unsafe { syscall!(SYS_mmap, map, 4096, libc::PROT_NONE, flags, file.0, LEAVING) }.map(|_| ())
}

/// In a fork child, whose maker was thread `parent`: it is in that thread's namespace, and the other
/// threads' memberships, which came with the memory, are not its own.
pub fn after_fork(parent: u32) {
    LOCK.reset();
    if OWN_COUNT.load(Ordering::Relaxed) == 0 {
        return;
    }
    crate::crash_point!("fork.begun");
    if let Some(mine) = own(parent) {
        let (map, place) = (mine.map.load(Ordering::Relaxed), mine.place.load(Ordering::Relaxed));
        let left = (PROCESS_MAP.load(Ordering::Relaxed), PROCESS.load(Ordering::Relaxed));
        // Under the offset of the process.
        let joined = Place::of(place.wrapping_sub(1)).and_then(|place| join(place.refer(), For::Process));
        let (place, map) = match joined {
            Ok(membership) => membership.release(),
            Err(_) => {
                mine.map.store(0, Ordering::Relaxed);
                mine.place.store(0, Ordering::Relaxed);
                (place, map)
            }
        };
        PROCESS.store(place, Ordering::Relaxed);
        PROCESS_MAP.store(map, Ordering::Relaxed);
        give_up(left.0, left.1);
    }
    // Of several in one namespace the last ends it.
    for own in &OWN {
        if !matches!(own.tid.swap(0, Ordering::Relaxed), 0 | GONE) {
            give_up(own.map.swap(0, Ordering::Relaxed), own.place.swap(0, Ordering::Relaxed));
        }
    }
    OWN_COUNT.store(0, Ordering::Relaxed);
}
