//! Where virtual namespaces lie, and how they end: by the last who leaves, or by the next who looks.
//!
//! Nobody is left when the exclusive flock on the file `control` is granted ([`super::member`]). Then the
//! state becomes [`DEAD`] for good, the names go, and what nobody has open; the directories when the last
//! queue is closed ([`bury`]).

use core::sync::atomic::{AtomicU32, Ordering};

use super::control::{Accounts, BOUND, Content, Control, DEAD, MOUNTED, NAMED, random};
use super::member::{lock, purge, tls};
use super::{Place, named, of_task, place, queues};
use crate::abi::{Errno, Result};
use crate::sys::path::{Fd, Path, each_entry, each_entry_until};
use crate::sys::proc;
use crate::sys::tls::Tls;
use crate::syscall;

/// `ROOT/uUID`, with the caller's uid as the machine knows it.
fn directory_of_caller(root: &Path) -> Result<Path> {
    directory_of_user(root, super::kernel_uid(super::euid()))
}

/// `ROOT/uUID`.
pub fn directory_of_user(root: &Path, uid: u32) -> Result<Path> {
    let mut own = *root;
    own.push(b"/u")?;
    own.push_decimal(uid as u64)?;
    Ok(own)
}

/// `DIR/nID-SECRET`.
pub fn directory(mut dir: Path, id: u64, secret: [u64; 2]) -> Result<Path> {
    dir.push(b"/n")?;
    dir.push_decimal(id)?;
    dir.push(b"-")?;
    dir.push_hex16(secret[0])?;
    dir.push_hex16(secret[1])?;
    Ok(dir)
}

/// The namespace directory to which a descriptor of a file `control` belongs.
pub fn directory_of(file: &Fd) -> Option<Path> {
    let (id, secret) = Control::peek(file.0)?;
    let st = file.stat().ok()?;
    if secret == Control::STAND_IN {
        // Bind mounted: only who may list the user's directory knows where it lies.
        return find_below(&super::root().ok()?, |own| {
            let mut stand_in = Path::new(&[own.as_bytes(), b"/b"]).ok()?;
            stand_in.push_decimal(id).ok()?;
            if !stand_in.stat().is_ok_and(|it| (it.st_ino, it.st_dev) == (st.st_ino, st.st_dev)) {
                return None;
            }
            let open = own.open_own(libc::O_RDONLY | libc::O_DIRECTORY).ok()?;
            let mut found = None;
            each_entry(&open, |name| {
                if of_task::id_of_name(name) == Some(id) {
                    found = Path::new(&[own.as_bytes(), b"/", name]).ok();
                }
            });
            found
        });
    }
    let is_it = |dir: &Path| is_directory_of(dir, file);
    if let Ok(path) = Path::of_descriptor(file.0)
        && let Some(dir) = path.as_bytes().strip_suffix(b"/control").and_then(|dir| Path::new(&[dir]).ok())
        && is_it(&dir)
    {
        return Some(dir);
    }
    // Opened where it was bind mounted.
    let mut root = super::root().ok()?;
    if secret[0] == 0 {
        root.push(b"/i").ok()?;
        root.push_decimal(id).ok()?;
        return is_it(&root).then_some(root);
    }
    find_below(&root, |own| directory(own, id, secret).ok().filter(|dir| is_it(dir)))
}

/// Whether a file `control` lies in a directory.
pub fn is_directory_of(dir: &Path, control: &Fd) -> bool {
    let there = Path::new(&[dir.as_bytes(), b"/control"]).and_then(|path| path.stat());
    match (there, control.stat()) {
        (Ok(it), Ok(st)) => (it.st_ino, it.st_dev) == (st.st_ino, st.st_dev),
        _ => false,
    }
}

/// The first that `look` finds in the directories of the users below a root.
fn find_below(root: &Path, look: impl Fn(Path) -> Option<Path>) -> Option<Path> {
    let open = root.open_own(libc::O_RDONLY | libc::O_DIRECTORY).ok()?;
    let mut found = None;
    each_entry(&open, |name| {
        if found.is_none() && is_of_user(name) {
            found = Path::new(&[root.as_bytes(), b"/", name]).ok().and_then(&look);
        }
    });
    found
}

/// The directory of a namespace under the caller's root, by its own name.
pub fn directory_named(name: &[u8]) -> Option<Path> {
    find_below(&super::root().ok()?, |own| {
        let dir = Path::new(&[own.as_bytes(), b"/", name]).ok()?;
        dir.stat().is_ok().then_some(dir)
    })
}

/// The directory under the caller's root that has the last name of a path which leads nowhere.
///
/// # Errors
///
/// ENOENT: there is none.
pub fn directory_of_name(path: &[u8]) -> Result<Path> {
    let name = path.rsplit(|&b| b == b'/').next().unwrap_or(b"");
    if of_task::id_of_name(name).is_some() {
        return directory_named(name).ok_or(Errno::ENOENT);
    }
    let dir = Path::new(&[super::root()?.as_bytes(), b"/", name])?;
    if name.starts_with(b"i") { dir.stat().map(|_| dir) } else { Err(Errno::ENOENT) }
}

/// `u` and a uid.
fn is_of_user(name: &[u8]) -> bool {
    name.len() > 1 && name[0] == b'u' && name[1..].iter().all(u8::is_ascii_digit)
}

/// Ends the virtual namespace in a directory, if it has no member any more: from then on it is
/// [`DEAD`], its names are gone, and what nobody has open is taken away. Returns whether it is dead.
#[cold]
#[inline(never)]
pub fn teardown(dir: &[u8]) -> bool {
    as_owner(dir, || {
        loop {
            let ended = teardown_here(dir);
            // Who has unmounted it meanwhile has found it locked, and left it to us.
            if ended != Ended::Mounted || place(tls(), dir).is_ok_and(|place| is_mounted(&place)) {
                return ended == Ended::Gone;
            }
        }
    })
    .unwrap_or(false)
}

/// What [`teardown_here`] has come to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// It has members, or somebody else is at it, or queues of it are open.
    No,
    /// It is dead, and its superblock was mounted a moment ago.
    Mounted,
    /// It is gone.
    Gone,
}

/// Runs `act` on a directory; where the caller is root, and the directory another user's, or in another user's, with no
/// more rights to files than that user has, who may put links into the way at any moment. Nothing: that is not
/// possible.
fn as_owner<T>(dir: &[u8], act: impl FnOnce() -> T) -> Option<T> {
    let stat = |dir: &[u8]| Path::new(&[dir]).and_then(|path| path.stat()).ok();
    // The one above first: whose that is may put anything in the place of this one, after a look, too.
    let above = &dir[..dir.iter().rposition(|&b| b == b'/').unwrap_or(0)];
    let above = stat(above).filter(|above| above.st_uid != 0 && of_task::id_of(dir).is_some());
    let st = above.or_else(|| stat(dir))?;
    // SAFETY: no pointers; an invalid id only asks.
    let is = |uid: u32| unsafe { syscall!(SYS_setfsuid, u32::MAX) }.is_ok_and(|now| now as u32 == uid);
    if super::euid() != 0 || is(st.st_uid) {
        return Some(act());
    }
    // SAFETY: no pointers; setfsuid(2) returns the id before, and changes the calling thread's alone.
    let set = |uid: u32, gid: u32| unsafe {
        let before = (syscall!(SYS_setfsuid, u32::MAX), syscall!(SYS_setfsgid, gid));
        let _ = syscall!(SYS_setfsuid, uid);
        before
    };
    let (Ok(uid), Ok(gid)) = set(st.st_uid, st.st_gid) else { return None };
    let done = is(st.st_uid).then(act);
    let _ = set(uid as u32, gid as u32);
    done
}

fn teardown_here(dir: &[u8]) -> Ended {
    let Ok(control) = Path::new(&[dir, b"/control"]) else { return Ended::No };
    let file = match control.open_own(libc::O_RDWR | libc::O_NOFOLLOW | libc::O_NONBLOCK) {
        Ok(file) => file,
        Err(errno) => return if errno == Errno::ENOENT { Ended::Gone } else { Ended::No },
    };
    if lock(&file, libc::LOCK_EX).is_err() {
        return Ended::No;
    }
    crate::crash_point!("end.locked");
    match Control::look(&file) {
        // Its maker was killed before there was anything in it.
        None => {
            remove_directories(dir);
            return Ended::Gone;
        }
        // As a rule there is nothing but the directories.
        Some(Content { queues: 0, state: 0 }) => {
            if Control::declare_dead(&file).is_ok() && remove_empty_directories(dir) {
                return Ended::Gone;
            }
        }
        Some(_) => {}
    }
    let Ok(place) = place(tls(), dir) else { return Ended::No };
    let state = &place.control().state;
    if state.load(Ordering::Acquire) & BOUND != 0 && is_bound(&place) {
        return Ended::No;
    }
    let before = state.fetch_or(DEAD, Ordering::AcqRel);
    crate::crash_point!("end.declared");
    if before & NAMED != 0 {
        named::forget(dir);
    }
    if state.load(Ordering::Acquire) & MOUNTED != 0 && is_mounted(&place) {
        return Ended::Mounted;
    }
    if release(&place) { Ended::Gone } else { Ended::No }
}

/// Ends the superblock of a dead namespace, with all queues, unless it is mounted or some queue is open. Whether
/// it is gone.
pub fn release(place: &Place) -> bool {
    // "Its superblock lives until it is unmounted."
    let mounted = place.control().state.load(Ordering::Acquire) & MOUNTED != 0;
    if mounted && is_used(place) || queues::any_open(tls(), place) {
        return false;
    }
    queues::end(place);
    crate::crash_point!("end.queues");
    bury(place);
    true
}

/// The file that is bind mounted in a namespace's place: `ROOT/uUID/bID`. Mount tables are for all to
/// read, so that it neither lies in the namespace's directory nor says where that is.
fn bound_file(place: &Place) -> Result<Path> {
    let dir = place.dir();
    let mut path = Path::new(&[&dir[..dir.iter().rposition(|&b| b == b'/').unwrap_or(0)], b"/b"])?;
    path.push_decimal(place.control().id.load(Ordering::Relaxed))?;
    Ok(if place.is_others() { path.beneath(place.root().len()) } else { path })
}

/// Prepares a namespace, which the caller holds, for being bind mounted: the file to be mounted.
///
/// # Errors
///
/// Those of making a file.
pub fn bindable(place: &Place) -> Result<Path> {
    let path = bound_file(place)?;
    let id = place.control().id.load(Ordering::Relaxed);
    // Before anybody can see it mounted.
    place.control().state.fetch_or(BOUND, Ordering::AcqRel);
    Control::make_stand_in(&path, id)?;
    Ok(path)
}

/// Takes away what is left of a dead namespace that has been released.
fn bury(place: &Place) {
    let state = place.control().state.load(Ordering::Acquire);
    if state & BOUND != 0 {
        let _ = bound_file(place).and_then(|path| path.unlink());
    }
    // First: nobody would look for it there when the directories are gone.
    if state & MOUNTED != 0 {
        crate::vfs::mount::leave(place);
    }
    remove_directories(place.dir());
}

/// Removes the directories of a virtual namespace, unless queues are still there. Whether they are gone.
pub fn remove_directories(dir: &[u8]) -> bool {
    remove_all(dir, empty)
}

/// The same, unless somebody was killed who was making the first queue: he may be charged for it.
fn remove_empty_directories(dir: &[u8]) -> bool {
    remove_all(dir, |_| ())
}

/// The same; `empty` is to take away what is left in one of them.
fn remove_all(dir: &[u8], empty: impl Fn(&Path)) -> bool {
    // In another user's namespace one is not led elsewhere.
    let trusted = if super::is_others(dir) { super::root_of(dir).len() } else { 0 };
    let sub = |name: &[u8]| Path::new(&[dir, name]).map(|path| path.beneath(trusted));
    let remove = || -> Result<()> {
        let gone = |path: Path| match path.remove_dir() {
            Err(Errno::ENOENT) => Ok(()),
            other => other,
        };
        let emptied = |name: &[u8]| match gone(sub(name)?) {
            Err(Errno::ENOTEMPTY) => {
                empty(&sub(name)?);
                gone(sub(name)?)
            }
            other => other,
        };
        gone(sub(b"/q/x")?)?;
        gone(sub(b"/q/f")?)?;
        emptied(b"/q")?;
        emptied(b"/sb")?;
        crate::crash_point!("end.directories");
        let _ = sub(b"/control")?.unlink();
        crate::crash_point!("end.control");
        sub(b"")?.remove_dir()
    };
    remove().is_ok()
}

/// Unlinks the files of a directory: leftovers of those who were killed.
fn empty(path: &Path) {
    let Ok(open) = path.open_own(libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW) else { return };
    each_entry(&open, |name| {
        // From the descriptor: the directory may have been replaced meanwhile.
        if let Ok(file) = Path::new(&[b"/", name]) {
            let _ = file.from(&open, 1).unlink();
        }
    });
}

/// Whether the file of a namespace is bind mounted anywhere that can be seen.
fn is_bound(place: &Place) -> bool {
    // As the mount table shows it: the end of a path within its file system.
    let Ok(mut tail) = Path::new(&[b"/b"]) else { return true };
    let _ = tail.push_decimal(place.control().id.load(Ordering::Relaxed)).and_then(|()| tail.push(b" "));
    in_mount_tables(tail.as_bytes())
}

/// Whether the superblock of a namespace is mounted anywhere that can be seen.
pub fn is_mounted(place: &Place) -> bool {
    let dir = place.dir();
    let name = &dir[dir.iter().rposition(|&b| b == b'/').unwrap_or(0)..];
    Path::new(&[name, b"/sb "]).is_ok_and(|tail| in_mount_tables(tail.as_bytes()))
        || crate::vfs::virtuals::is_mounted(place)
}

fn in_mount_tables(what: &[u8]) -> bool {
    let own = (!is_ending()).then(|| Path::new(&[b"/proc/thread-self/mountinfo"]));
    if own.is_some_and(|own| own.is_ok_and(|own| proc::mentions(&own, what) != Ok(false))) {
        return true;
    }
    // Most processes are in a few mount namespaces, of which one look is enough.
    let mut seen = [0u64; 32];
    let mut count = 0;
    any_other_process(|pid| {
        let namespace =
            proc::path(pid, b"ns/mnt").and_then(|path| path.stat_at(libc::AT_FDCWD)).map_or(0, |st| st.st_ino);
        if namespace != 0 && seen[..count].contains(&namespace) {
            return false;
        }
        // What is not for the caller to see may be the one.
        let mentioned = proc::path(pid, b"mountinfo").and_then(|path| proc::mentions(&path, what));
        if mentioned == Ok(false) && namespace != 0 && count < seen.len() {
            seen[count] = namespace;
            count += 1;
        }
        !matches!(mentioned, Ok(false) | Err(Errno::ENOENT | Errno::ESRCH | Errno::EINVAL))
    })
}

/// 1 + id of the process that is ending, 0: none; so that a vfork child, whose memory this may be, is told from
/// its maker.
static ENDING: AtomicU32 = AtomicU32::new(0);

/// The process ends: what it alone still sees counts no more.
pub fn process_ends() {
    ENDING.store(crate::sys::getpid() + 1, Ordering::Release);
}

fn is_ending() -> bool {
    let ending = ENDING.load(Ordering::Acquire);
    ending != 0 && ending == crate::sys::getpid() + 1
}

/// [`proc::any_process`] without the calling process, if that is ending.
fn any_other_process(mut see: impl FnMut(&[u8]) -> bool) -> bool {
    let mut own = [0u8; 20];
    let len = if is_ending() { crate::sys::write_decimal(&mut own, crate::sys::getpid() as u64) } else { 0 };
    proc::any_process(|pid| pid != &own[..len] && see(pid))
}

/// The process ends: superblocks of dead namespaces that are mounted nowhere but in its mount namespace go with
/// that, if nobody else is in it.
pub fn mount_namespace_ends() {
    let inode = |path: Path| path.stat_at(libc::AT_FDCWD).map(|st| st.st_ino);
    let own = || inode(Path::new(&[b"/proc/self/ns/mnt"])?);
    let parents = || {
        let mut path = Path::new(&[b"/proc/"])?;
        // SAFETY: no pointers.
        path.push_decimal(unsafe { syscall!(SYS_getppid)? } as u64)?;
        path.push(b"/ns/mnt")?;
        inode(path)
    };
    if own() == parents() {
        return;
    }
    crate::vfs::table::each_mounted(|_, _, place| {
        if place.is_dead() {
            teardown(place.dir());
        }
    });
}

/// Whether anybody uses the superblock of a dead namespace: it is mounted, or was, and is a working directory
/// or open still.
fn is_used(place: &Place) -> bool {
    if is_mounted(place) {
        return true;
    }
    let Ok((dev, ino)) = place.superblock() else { return false };
    let is_it = |path: Result<Path>| {
        path.and_then(|path| path.stat_at(libc::AT_FDCWD)).is_ok_and(|st| (st.st_dev, st.st_ino) == (dev, ino))
    };
    let mut tail = [0u8; 300];
    any_other_process(|pid| {
        if is_it(proc::path(pid, b"cwd")) || is_it(proc::path(pid, b"root")) {
            return true;
        }
        let mut used = false;
        proc::each_descriptor(pid, |fd| {
            let len = fd.len().min(tail.len() - 3);
            tail[..3].copy_from_slice(b"fd/");
            tail[3..3 + len].copy_from_slice(&fd[..len]);
            used |= is_it(proc::path(pid, &tail[..3 + len]));
        });
        used
    })
}

/// Looks at some of the caller's virtual namespaces under a root, each time at others, and ends those
/// whose last tasks have died without leaving. Root looks at everybody's, now and then. Returns how many
/// it has found dead.
#[cold]
#[inline(never)]
pub fn look(root: &[u8], accounts: &Accounts, most: usize) -> usize {
    let mut dead = 0;
    let Ok(own) = Path::new(&[root]).and_then(|root| directory_of_caller(&root)) else { return 0 };
    dead += look_into(&own, accounts, most);
    if super::euid() == 0
        && (most == usize::MAX || random().is_multiple_of(16))
        && let Ok(dir) = Path::new(&[root]).and_then(|p| p.open_own(libc::O_RDONLY | libc::O_DIRECTORY))
    {
        each_entry(&dir, |name| {
            if is_of_user(name)
                && let Ok(others) = Path::new(&[root, b"/", name])
                && others.as_bytes() != own.as_bytes()
            {
                dead += look_into(&others, accounts, most);
            }
        });
    }
    dead
}

fn look_into(own: &Path, accounts: &Accounts, most: usize) -> usize {
    let Ok(dir) = own.open_own(libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW) else { return 0 };
    let from = accounts.looked.load(Ordering::Relaxed);
    let (mut seen, mut dead) = (0, 0);
    let mut see = |from: u64, to: u64| {
        // SAFETY: no pointers.
        let _ = unsafe { syscall!(SYS_lseek, dir.0, from, libc::SEEK_SET) };
        each_entry_until(&dir, |name, at| {
            if seen == most {
                return false;
            }
            if of_task::id_of_name(name).is_some() {
                seen += 1;
                dead += usize::from(probe(own, name));
            }
            seen < most && at != to
        })
    };
    let mut stopped_at = see(from, u64::MAX);
    if stopped_at.is_none() && from != 0 {
        // From the beginning, as far as the last look had come.
        stopped_at = see(0, from);
    }
    accounts.looked.store(stopped_at.unwrap_or(0), Ordering::Relaxed);
    if most == usize::MAX {
        as_owner(own.as_bytes(), || named::collect(own));
    }
    dead
}

/// Ends the namespace `name` in a user's directory if it is without members.
fn probe(own: &Path, name: &[u8]) -> bool {
    let Ok(dir) = Path::new(&[own.as_bytes(), b"/", name]) else { return false };
    let dead = teardown(dir.as_bytes());
    if dead {
        // Without its file `control`: what a killed maker or remover has left.
        as_owner(own.as_bytes(), || dir.remove_dir());
    }
    dead
}

/// Looks at all virtual namespaces under the caller's root.
///
/// # Errors
///
/// Those of finding the root.
pub fn collect_all(tls: &'static Tls) -> Result<usize> {
    let root = super::root()?;
    let initial = super::initial(tls)?;
    let accounts = initial.accounts();
    accounts.looked.store(0, Ordering::Relaxed);
    crate::vfs::virtuals::collect();
    crate::vfs::mount::collect();
    let dead = look(root.as_bytes(), accounts, usize::MAX);
    // In those of the caller that live on, what the killed had open without a name.
    find_below(&root, |own| {
        if own.stat().ok()?.st_uid != super::euid() {
            return None;
        }
        let open = own.open_own(libc::O_RDONLY | libc::O_DIRECTORY).ok()?;
        each_entry(&open, |name| {
            let dir = Path::new(&[own.as_bytes(), b"/", name]).ok().filter(|_| of_task::id_of_name(name).is_some());
            if let Some(place) = dir.and_then(|dir| place(tls, dir.as_bytes()).ok()) {
                queues::collect_orphans(tls, place.place());
                queues::collect(tls, place.place());
            }
        });
        None
    });
    queues::collect_orphans(tls, initial);
    queues::collect(tls, initial);
    Ok(dead)
}

/// [`glance`], by a process's first caller and each eighth after it.
pub fn glance_now_and_then(tls: &Tls, place: &Place) {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    if CALLS.fetch_add(1, Ordering::Relaxed).is_multiple_of(8) {
        glance(tls, place);
    }
}

/// Before something new is made in a place: a look at what the dead may have left, if the caller has
/// any namespace but this.
fn glance(tls: &Tls, place: &Place) {
    purge(tls);
    let own = Path::new(&[place.root()]).and_then(|root| directory_of_caller(&root));
    // A directory has a link for each directory in it; or, in some file systems, one link and that's it.
    let links = own.and_then(|own| own.stat()).map_or(2, |st| st.st_nlink);
    if links == 1 || links > 2 + u64::from(place.is_virtual()) {
        look(place.root(), place.accounts(), 4);
    }
}
