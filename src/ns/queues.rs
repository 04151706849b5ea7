//! Queues of a namespace by name: open, create, unlink, and the end of a queue.
//!
//! A queue appears under its name by one rename, complete. It disappears by one rename as well: of
//! its file to a hidden name, then of its FIFO, so that whoever has read the name just before finds
//! no FIFO and looks again. From then on nobody can open it by name, and the number of its
//! descriptors only falls; the kernel knows it: opening a FIFO write-only fails with ENXIO when
//! nobody has it open. Whoever sees that last (the unlinker, the last to close, `collect`) takes
//! the rest away.
//!
//! Segment and FIFO are open to everybody who knows their name, which is a random key. It is read
//! from a file that those may read to whom the queue's mode grants anything, and it is seen in the
//! path of the FIFO by whoever has a descriptor of the queue: a descriptor works for any user that
//! it was passed to, as the kernel's.

use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use super::Place;
use super::control::random;
use super::ledger::{Change, Marks, Noted, Refused};
use crate::abi::{self, Errno, FILENT_SIZE, HARD_MSGMAX, HARD_MSGSIZEMAX, MqAttr, NAME_MAX, Result, msgqueue_cost};
use crate::desc;
use crate::log::refused;
use crate::maps::{self, Pinned};
use crate::queue;
use crate::shm::Map;
use crate::shm::layout::{F_DEAD, F_UNCHARGED, F_UNLINKED, Layout};
use crate::sys::path::{Fd, Growth, Path, may_grow_to};
use crate::sys::tls::Tls;
use crate::syscall;

/// The number under which segment and FIFO of a queue lie; nobody can guess it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key(pub [u64; 2]);

impl Key {
    /// A fresh one.
    fn new() -> Key {
        let mut key = [0u64; 2];
        // SAFETY: 16 bytes to a local.
        if unsafe { syscall!(SYS_getrandom, key.as_mut_ptr(), 16, 1) } != Ok(16) {
            key = [random(), random()];
        }
        Key(key)
    }
}

/// Bytes of a key in its file.
const KEY_SIZE: u64 = 16;

/// Path of the segment (`.s`) or FIFO (`.p`, or `.d` once the name is gone) of a key.
pub fn keyed(place: &Place, key: Key, kind: &[u8]) -> Result<Path> {
    let mut path = Path::beneath_new(&[place.dir(), b"/q/x/"], place.trusted())?;
    path.push_hex16(key.0[0])?;
    path.push_hex16(key.0[1])?;
    path.push(kind)?;
    Ok(path)
}

/// The key of a queue.
///
/// # Errors
///
/// ENOENT: no such queue. EACCES: not for this user.
fn read_key(place: &Place, ino: u64) -> Result<Key> {
    key_in(&hidden(place, ino, b".k")?)
}

fn key_in(path: &Path) -> Result<Key> {
    let file = path.open_own(libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK)?;
    let mut key = Key([0; 2]);
    // SAFETY: 16 bytes to a local.
    let got = unsafe { syscall!(SYS_pread64, file.0, key.0.as_mut_ptr(), 16, 0)? };
    if got == 16 { Ok(key) } else { Err(Errno::EIO) }
}

/// The paths of a queue, by the inode of its file: key (`.k`), file once the name is gone (`.x`).
pub fn hidden(place: &Place, ino: u64, kind: &[u8]) -> Result<Path> {
    let mut path = Path::beneath_new(&[place.dir(), b"/q/"], place.trusted())?;
    path.push_hex(ino)?;
    path.push(kind)?;
    Ok(path)
}

/// A namespace's directory, open while several of its files are dealt with: walking there costs the kernel as much as
/// most of what it does to them. Without a descriptor to spare it walks.
struct Near<'p> {
    place: &'p Place,
    dir: Option<Fd>,
}

impl<'p> Near<'p> {
    fn new(place: &'p Place) -> Near<'p> {
        // Where others may put links into the way each path looks for itself.
        let dir = match place.is_others() {
            false => Path::new(&[place.dir()]).and_then(|path| path.open(libc::O_PATH | libc::O_DIRECTORY, 0)).ok(),
            true => None,
        };
        Near { place, dir }
    }

    /// A path into the directory, for the use while it is open.
    fn shorten(&self, path: Path) -> Path {
        match &self.dir {
            Some(dir) => path.from(dir, self.place.dir().len() + 1),
            None => path,
        }
    }

    /// [`keyed`].
    fn keyed(&self, key: Key, kind: &[u8]) -> Result<Path> {
        keyed(self.place, key, kind).map(|path| self.shorten(path))
    }

    /// [`hidden`].
    fn hidden(&self, ino: u64, kind: &[u8]) -> Result<Path> {
        hidden(self.place, ino, kind).map(|path| self.shorten(path))
    }
}

/// The path of the queue's file while it has its name.
pub fn visible(place: &Place, name: &[u8]) -> Result<Path> {
    Path::beneath_new(&[place.dir(), b"/sb/", name], place.trusted())
}

/// What is wrong with a name (without its leading slash) as the last component of a path, in the
/// kernel's order (`lookup_one_len`).
///
/// # Errors
///
/// ENOENT: empty. EACCES: `.`, `..` or a slash inside. ENAMETOOLONG: over 255 bytes.
pub fn check_name(name: &[u8]) -> Result<()> {
    if name.is_empty() {
        return Err(Errno::ENOENT);
    }
    if name == b"." || name == b".." || name.contains(&b'/') {
        return Err(Errno::EACCES);
    }
    if name.len() > NAME_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    Ok(())
}

/// mq_open(2): the descriptor, close-on-exec, entered into the descriptor table.
///
/// # Errors
///
/// As mq_open(3). EMFILE, ENFILE: also before the name is looked up, as in the kernel.
pub fn open(
    tls: &'static Tls,
    place: &'static Place,
    name: &[u8],
    oflag: i32,
    mode: u32,
    attr: Option<&MqAttr>,
) -> Result<i32> {
    if let Err(errno) = check_name(name) {
        if errno != Errno::ENOENT {
            // "EMFILE before looking the name up".
            drop(Path::new(&[b"/"])?.open(libc::O_PATH, 0)?);
        }
        return Err(errno);
    }
    let path = visible(place, name)?;
    let access = oflag & libc::O_ACCMODE;
    let create = oflag & libc::O_CREAT != 0;
    let exclusive = create && oflag & libc::O_EXCL != 0;
    // O_PATH asks for no permission: enough where the call fails if the queue exists.
    let probe = exclusive || access == libc::O_ACCMODE;
    let look = if probe { libc::O_PATH } else { access | libc::O_NONBLOCK | libc::O_NOCTTY } | libc::O_NOFOLLOW;
    let (mut again, mut gone) = (0, 0);
    // A name that is being replaced while we look leads here again; each turn somebody else has
    // made progress.
    loop {
        match path.open(look, 0) {
            Ok(file) => {
                if exclusive {
                    return Err(Errno::EEXIST);
                }
                if access == libc::O_ACCMODE {
                    return Err(Errno::EINVAL);
                }
                if access != libc::O_RDONLY && place.is_read_only() {
                    return Err(Errno::EROFS);
                }
                let st = file.stat()?;
                drop(file);
                if st.st_mode & libc::S_IFMT != libc::S_IFREG {
                    return Err(Errno::EACCES);
                }
                if oflag & (libc::O_DIRECT | libc::O_PATH) == libc::O_DIRECT {
                    return Err(Errno::EINVAL);
                }
                match open_queue(tls, place, &st, oflag) {
                    Err(Errno::ENOENT) => {}
                    other => return other,
                }
                // Gone meanwhile; made by somebody who knows nothing of queues; or damaged.
                if place.was_mounted()
                    && let Err(errno) = furnish(tls, place, name, &st)
                    && errno != Errno::ENOENT
                {
                    return Err(errno);
                }
                gone += 1;
                if gone == DAMAGED {
                    return Err(Errno::EIO);
                }
            }
            Err(Errno::ENOENT) if create => match create_queue(tls, place, name, &path, oflag, mode, attr) {
                Err(Errno::EEXIST) if !exclusive => continue,
                // The draft was taken for abandoned.
                Err(Errno::ENOENT) if again < PATIENCE => again += 1,
                other => return other,
            },
            Err(Errno::EACCES) if access != libc::O_RDONLY && !probe && place.is_read_only() => {
                return Err(Errno::EROFS);
            }
            // A symbolic link, which only a stranger can have put there.
            Err(Errno::ELOOP) => return Err(Errno::EACCES),
            Err(errno) => return Err(errno),
        }
    }
}

/// Opens the FIFO of an existing queue. ENOENT: the queue is gone meanwhile.
fn open_queue(tls: &'static Tls, place: &'static Place, st: &libc::stat, oflag: i32) -> Result<i32> {
    let map = map_queue(tls, place, st.st_ino, Some(st.st_dev))?;
    if oflag & libc::O_PATH != 0 {
        return open_path(place, &map, oflag);
    }
    let opened = open_named(tls, &map, oflag);
    if opened.is_err() {
        maps::tidy(tls, map);
    }
    opened
}

/// A new description of a queue that has its name, checked for what its mode allows.
///
/// # Errors
///
/// ENOENT: the name is gone.
pub fn open_named(tls: &'static Tls, map: &Pinned, oflag: i32) -> Result<i32> {
    let place = Place::of(map.place.load(Relaxed))?;
    crate::crash_point!("open.mapped");
    let fd = open_fifo(map, &keyed(place, map.key, b".p")?, oflag)?;
    crate::crash_point!("open.opened");
    // Who is taking the name away has looked whether the queue is open, and may not have seen this. Who has it open
    // already need not ask, and must not close what may carry his notification.
    if map.header().flags.load(Acquire) & F_UNLINKED != 0 && map.fds.load(Acquire) == 0 {
        drop(fd);
        destroy_if_unused(tls, map);
        return Err(Errno::ENOENT);
    }
    queue::poll::reopened(map, tls, fd.0)?;
    enter_table(map.map(), fd, oflag)
}

/// A new description of a queue that the caller has open, whether it has its name still or not
/// (open(2) of `/proc/self/fd/N`). What the queue's mode allows has been checked.
pub fn reopen(tls: &'static Tls, map: &'static Map, oflag: i32) -> Result<i32> {
    let place = Place::of(map.place.load(Relaxed))?;
    let fd = match open_fifo(map, &keyed(place, map.key, b".p")?, oflag) {
        Err(Errno::ENOENT) => open_fifo(map, &keyed(place, map.key, b".d")?, oflag)?,
        other => other?,
    };
    queue::poll::reopened(map, tls, fd.0)?;
    enter_table(map, fd, oflag)
}

/// A descriptor with O_PATH: that of the FIFO.
fn open_path(place: &Place, map: &Pinned, oflag: i32) -> Result<i32> {
    let fd = keyed(place, map.key, b".p")?.open(libc::O_PATH | libc::O_NOFOLLOW, 0)?;
    desc::make_room(fd.0)?;
    let fd = fd.release();
    desc::insert_path(fd, map.map(), oflag);
    Ok(fd)
}

/// Opens the FIFO of a queue. Whatever else lies under that name is a stranger's: packets must not be written to a file,
/// nor to where a link leads.
///
/// # Errors
///
/// ENOENT: it is not there. EIO: something else is.
fn open_fifo(map: &Map, path: &Path, oflag: i32) -> Result<Fd> {
    let is_it = |st: libc::stat| st.st_mode & libc::S_IFMT == libc::S_IFIFO && st.st_ino == map.fifo_ino;
    // O_NOFOLLOW is not for this: in a description of ours it stands for an access mode.
    if !is_it(path.stat()?) {
        return Err(Errno::EIO);
    }
    let fd = open_own_fifo(path, oflag)?;
    // It may have been replaced meanwhile.
    if is_it(fd.stat()?) { Ok(fd) } else { Err(Errno::EIO) }
}

/// The same of one that the caller has just made.
fn open_own_fifo(path: &Path, oflag: i32) -> Result<Fd> {
    let kept = oflag & (libc::O_NONBLOCK | libc::O_APPEND | libc::O_ASYNC);
    let access = desc::mode_to_flags(oflag & libc::O_ACCMODE);
    let fd = path.open(libc::O_RDWR | libc::O_NONBLOCK | libc::O_NOCTTY | kept | access, 0)?;
    // Packet mode, for `queue::poll`; open(2) itself refuses it where files cannot do direct I/O.
    // SAFETY: no pointers.
    unsafe { syscall!(SYS_fcntl, fd.0, libc::F_SETFL, kept | libc::O_DIRECT)? };
    Ok(fd)
}

fn enter_table(map: &'static Map, fd: Fd, oflag: i32) -> Result<i32> {
    desc::make_room(fd.0)?;
    let signal = desc::rare_to_signal(oflag);
    if signal != 0 {
        // SAFETY: no pointers.
        let _ = unsafe { syscall!(SYS_fcntl, fd.0, abi::F_SETSIG, signal) };
    }
    let fd = fd.release();
    desc::insert(fd, map, oflag & libc::O_ACCMODE, oflag & libc::O_NONBLOCK != 0);
    crate::crash_point!("open.entered");
    Ok(fd)
}

/// The mapping of a queue, made if this process doesn't have it yet.
///
/// # Errors
///
/// ENOENT: no such queue. EACCES: its files are not for this user. EIO: damaged.
pub fn map_queue(tls: &'static Tls, place: &'static Place, ino: u64, dev: Option<u64>) -> Result<Pinned> {
    if let Some(map) = maps::find(tls, place, ino, dev) {
        return Ok(map);
    }
    let map = map_key(tls, place, read_key(place, ino)?)?;
    if map.ino == ino { Ok(map) } else { Err(Errno::EIO) }
}

/// The same, by the key.
///
/// # Errors
///
/// As [`map_queue`].
pub fn map_key(tls: &'static Tls, place: &'static Place, key: Key) -> Result<Pinned> {
    let file = keyed(place, key, b".s")?.open_own(libc::O_RDWR | libc::O_NOFOLLOW | libc::O_NONBLOCK)?;
    let st = file.stat()?;
    if st.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Err(Errno::EIO);
    }
    let mut map = Map::open(file.0, st.st_size as u64)?;
    drop(file);
    map.place.store(place.index(), Relaxed);
    map.key = key;
    map.dev = st.st_dev;
    let map = maps::keep(tls, map)?;
    desc::note_pid_namespace(&map);
    Ok(map)
}

/// Mode of the key file: reading for each class to which the queue's mode grants reading or
/// writing, and for the owner.
pub fn key_mode(mode: u32) -> u32 {
    [3, 0].into_iter().filter(|shift| mode >> shift & 0o6 != 0).fold(0o400, |sum, shift| sum | 0o4 << shift)
}

/// How a file is made that nobody shall have made before.
const MADE: i32 = libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;

/// A queue under construction: what fails takes it away again.
struct Draft {
    file: Path,
    key: Key,
    rest: [Option<Path>; 3],
    uid: u32,
    cost: u64,
    place: &'static Place,
    made: bool,
    charged: bool,
    /// Until the file says so.
    noted: Option<Noted<'static>>,
    kept: bool,
    held: Hold,
}

/// The lock on a draft's file, held by its descriptor; by a mapping without access where the program has no second
/// descriptor left, so that one is enough.
#[derive(Default)]
struct Hold {
    file: Option<Fd>,
    mapping: Option<usize>,
}

/// ENOENT: somebody takes it for abandoned.
fn lock_draft(file: &Fd) -> Result<()> {
    super::member::lock(file, libc::LOCK_EX).map_err(|_| Errno::ENOENT)
}

impl Hold {
    /// Opens another file.
    fn beside(&mut self, open: impl Fn() -> Result<Fd>) -> Result<Fd> {
        match (open(), &self.file) {
            (Err(Errno::EMFILE), Some(file)) => {
                // SAFETY: a new mapping without access.
                let at = unsafe { syscall!(SYS_mmap, 0, 4096, libc::PROT_NONE, libc::MAP_SHARED, file.0, 0)? };
                self.mapping = Some(at);
                self.file = None;
                open()
            }
            (other, _) => other,
        }
    }

    /// Lets go. What was opened beside gets the number, which was the lowest.
    fn hand_over(mut self, fd: Fd) -> Fd {
        match self.file.take() {
            // SAFETY: no pointers; both descriptors are ours.
            Some(file) if unsafe { syscall!(SYS_dup3, fd.0, file.0, libc::O_CLOEXEC) }.is_ok() => file,
            _ => fd,
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(at) = self.mapping {
            // SAFETY: our own mapping, which nobody looks into.
            let _ = unsafe { syscall!(SYS_munmap, at, 4096) };
        }
    }
}

impl Draft {
    /// Before anything is made; `cost` bytes will be charged to `uid`.
    fn new(place: &'static Place, key: Key, uid: u32, cost: u64) -> Result<Draft> {
        let mut draft = Draft {
            file: Path::empty(),
            key,
            rest: [None; 3],
            uid,
            cost,
            place,
            made: false,
            charged: false,
            noted: None,
            kept: false,
            held: Hold::default(),
        };
        draft.file = draft_path(place, key, uid, cost)?;
        Ok(draft)
    }

    /// Counts and charges the queue, within the limits: ENOSPC (others were faster), EMFILE.
    fn charge(&mut self, tls: &'static Tls) -> Result<()> {
        self.noted = Some(admit(tls, self.place, self.key.0[0], self.uid, self.cost)?);
        self.charged = true;
        Ok(())
    }

    /// The file says that it is charged.
    fn is_marked(&mut self) {
        if let Some(noted) = self.noted.take() {
            noted.settle();
        }
    }

    /// Makes segment and FIFO of the queue whose file is `st`.
    fn build(
        &mut self,
        near: &Near,
        st: &libc::stat,
        layout: Layout,
        name: &[u8],
        uid: u32,
        oflag: i32,
    ) -> Result<(Map, Fd)> {
        let segment = keyed(self.place, self.key, b".s")?;
        let file = self.held.beside(|| near.shorten(segment).open(libc::O_RDWR | MADE, 0o600))?;
        self.rest[1] = Some(segment);
        crate::crash_point!("create.segment_made");
        file.chmod(0o666)?;
        file.truncate(layout.len)?;
        crate::crash_point!("create.segment_sized");
        let mut map = Map::create(file.0, &layout, self.key.0[1])?;
        drop(file);
        match self.finish(near, st, &mut map, name, uid, oflag) {
            Ok(fd) => Ok((map, fd)),
            Err(errno) => {
                map.unmap();
                Err(errno)
            }
        }
    }

    /// Makes the FIFO, and completes the segment.
    fn finish(&mut self, near: &Near, st: &libc::stat, map: &mut Map, name: &[u8], uid: u32, oflag: i32) -> Result<Fd> {
        let fifo = keyed(self.place, self.key, b".p")?;
        near.shorten(fifo).make_fifo(0o666)?;
        self.rest[2] = Some(fifo);
        crate::crash_point!("create.fifo_made");
        let fifo = near.shorten(fifo);
        let fd = match self.held.beside(|| open_own_fifo(&fifo, oflag)) {
            // A umask that leaves nothing to the owner.
            Err(Errno::EACCES) => {
                fifo.chmod(0o666)?;
                self.held.beside(|| open_own_fifo(&fifo, oflag))?
            }
            other => other?,
        };
        let of_fifo = fd.stat()?;
        if of_fifo.st_mode & 0o777 != 0o666 {
            fd.chmod(0o666)?;
        }
        map.key = self.key;
        map.fifo_ino = of_fifo.st_ino;
        map.ino = st.st_ino;
        map.dev = st.st_dev;
        map.place.store(self.place.index(), Relaxed);

        let h = map.header();
        h.ino.store(map.ino, Relaxed);
        h.fifo_ino.store(map.fifo_ino, Relaxed);
        h.owner_uid.store(uid, Relaxed);
        h.pid_ns.store(crate::sys::pid_namespace(), Relaxed);
        let now = queue::coarse_seconds();
        for stamp in [&h.created_sec, &h.used_sec, &h.touched_sec] {
            stamp.store(now, Relaxed);
        }
        map.set_name(name);
        map.publish();
        Ok(fd)
    }
}

/// The file of a queue that is being made.
fn draft_path(place: &Place, key: Key, uid: u32, cost: u64) -> Result<Path> {
    let mut path = place.path(&[b"/q/t"])?;
    // Half of the key: everybody may list this directory, and the key is for those who may open the queue.
    path.push_hex16(key.0[0])?;
    for number in [uid as u64, cost] {
        path.push(b".")?;
        path.push_decimal(number)?;
    }
    Ok(path)
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        // Nobody else does, as long as the file is held. It goes last, and the key before it: by them the rest is found.
        for path in self.rest.iter().rev().flatten() {
            let _ = path.unlink();
        }
        crate::crash_point!("create.emptied");
        let given_back = if self.charged {
            self.place.accounts().give_back(&change(self.place, self.key.0[0], self.uid, self.cost), |_| true)
        } else {
            None
        };
        crate::crash_point!("create.given_back");
        if self.made {
            let _ = self.file.unlink();
        }
        if let Some(given_back) = given_back {
            given_back.settle();
        }
    }
}

/// What is charged for a queue, or given back. `number`: half of its key, which is in the name of its draft.
fn change(place: &Place, number: u64, uid: u32, cost: u64) -> Change<'_> {
    let control = place.control();
    Change { place: control.number(), count: &control.queues_count, uid, cost, queue: number, marks: place }
}

impl Marks for Place {
    /// The file of a draft goes when all is given back, a queue's files do after that.
    fn is_made(&self, queue: u64, uid: u32, cost: u64) -> bool {
        let is_gone = |path: Result<Path>| path.and_then(|path| path.stat()).err() == Some(Errno::ENOENT);
        is_gone(draft_path(self, Key([queue, 0]), uid, cost))
            && is_gone(hidden(self, queue, b".k"))
            && is_gone(link_of_charge(self, queue, uid, cost))
    }
}

/// Creates a queue with default attributes by the mqueue file system, as open(2) with O_CREAT does: the
/// descriptor, close-on-exec.
///
/// # Errors
///
/// As [`open`]; EEXIST: the name is not free any more.
pub fn create(tls: &'static Tls, place: &'static Place, name: &[u8], oflag: i32, mode: u32) -> Result<i32> {
    check_name(name)?;
    let path = visible(place, name)?;
    let mut again = 0;
    loop {
        match create_queue(tls, place, name, &path, oflag, mode, None) {
            Err(Errno::ENOENT) if again < PATIENCE => again += 1,
            other => return other,
        }
    }
}

/// How often a name may turn out to lead to no queue before it counts as damaged: nobody replaces it so often
/// while another looks.
const DAMAGED: u32 = 10_000;

/// How often a maker begins anew whose draft was taken for abandoned before it was held.
const PATIENCE: u32 = 20;

/// Creates a queue under a name that was free a moment ago. EEXIST: it isn't any more.
fn create_queue(
    tls: &'static Tls,
    place: &'static Place,
    name: &[u8],
    path: &Path,
    oflag: i32,
    mode: u32,
    attr: Option<&MqAttr>,
) -> Result<i32> {
    if place.is_read_only() {
        return Err(Errno::EROFS);
    }
    if place.is_dead() {
        // "files in it keep working, creation fails with EACCES".
        return Err(Errno::EACCES);
    }
    let mounted = place.was_mounted();
    if place.control().nameless.load(Relaxed) != 0 {
        collect(tls, place);
    }
    super::life::glance_now_and_then(tls, place);
    may_create(place)?;
    let uid = real_uid();
    let (maxmsg, msgsize) = check_limits(tls, place, attr)?;
    let cost = msgqueue_cost(maxmsg, msgsize);
    let layout = Layout::new(maxmsg, msgsize);
    let _growth = may_have_files(&layout)?;
    // Once the queue has its name nothing may fail any more.
    let room = maps::room(tls)?;
    let mut draft = Draft::new(place, Key::new(), uid, cost)?;

    // The queue's file: "mode & ~umask & 07777", by the kernel itself. Whoever finds it later knows by its name and
    // size what was charged.
    let file = draft.file.open(libc::O_RDWR | MADE, mode & 0o7777)?;
    draft.made = true;
    crate::crash_point!("create.drafted");
    // As long as this is held it is not abandoned.
    lock_draft(&file)?;
    let st = file.stat()?;
    if st.st_nlink == 0 {
        // It was taken for abandoned.
        return Err(Errno::ENOENT);
    }
    crate::crash_point!("create.held");
    draft.charge(tls)?;
    crate::crash_point!("create.charged");
    file.truncate(FILENT_SIZE)?;
    crate::crash_point!("create.marked");
    draft.is_marked();
    crate::crash_point!("create.settled");
    if st.st_mode & 0o6000 != 0 {
        // Which a change of size has taken away, where the caller has no privilege.
        file.chmod(st.st_mode & 0o7777)?;
    }
    draft.held.file = Some(file);
    // After the draft's: its number, the lowest, will be the queue's.
    let near = Near::new(place);

    let path_of_key = hidden(place, st.st_ino, b".k")?;
    // Inode numbers can be guessed: another file gets another.
    let squatted = |errno| if errno == Errno::EEXIST { Errno::ENOENT } else { errno };
    write_key(&mut draft.held, &near.shorten(path_of_key), draft.key, st.st_mode).map_err(squatted)?;
    draft.rest[0] = Some(path_of_key);
    crate::crash_point!("create.keyed");
    let (map, fd) = draft.build(&near, &st, layout, name, uid, oflag)?;
    crate::crash_point!("create.published");

    // The number will be one of these two.
    let in_table =
        desc::make_room(fd.0).and_then(|()| draft.held.file.as_ref().map_or(Ok(()), |it| desc::make_room(it.0)));
    if let Err(errno) = in_table {
        map.unmap();
        return Err(errno);
    }
    // Where others may watch the directory they are to see that a file appears.
    let named = if mounted {
        draft.file.link(path).map(|()| {
            crate::crash_point!("create.linked");
            let _ = draft.file.unlink();
        })
    } else {
        near.shorten(draft.file).rename(&near.shorten(*path), false)
    };
    if let Err(errno) = named {
        map.unmap();
        return Err(errno);
    }
    draft.kept = true;
    crate::crash_point!("create.named");
    let fd = core::mem::take(&mut draft.held).hand_over(fd);
    let map = room.keep(map);
    if oflag & libc::O_DIRECT != 0 {
        // The kernel makes the queue, then finds that it cannot do direct I/O on it.
        return Err(Errno::EINVAL);
    }
    if oflag & libc::O_PATH != 0 {
        drop(fd);
        return open_path(place, &map, oflag);
    }
    if always_polled() {
        queue::poll::watch(&map, tls, fd.0, true)?;
    }
    enter_table(map.map(), fd, oflag)
}

/// The file with a queue's key, which must not exist.
fn write_key(held: &mut Hold, path: &Path, key: Key, mode: u32) -> Result<()> {
    let file = held.beside(|| path.open(libc::O_WRONLY | MADE, 0o400))?;
    crate::crash_point!("create.key_made");
    // SAFETY: the 16 bytes of the key.
    let written = unsafe { syscall!(SYS_pwrite64, file.0, key.0.as_ptr(), 16, 0) };
    // Unless it is what a umask has surely left.
    let done = if key_mode(mode) != 0o400 || mode & 0o400 == 0 {
        written.and_then(|_| file.chmod(key_mode(mode)).map(|()| 16))
    } else {
        written
    };
    if done.is_err() {
        let _ = path.unlink();
    }
    done.map(|_| ())
}

/// A file that some program without the library has made where the superblock is mounted becomes a queue
/// with default attributes, its owner's.
///
/// # Errors
///
/// ENOENT: it is one already, or gone. As [`open`] where a queue is made.
#[cold]
#[inline(never)]
pub fn furnish(tls: &'static Tls, place: &'static Place, name: &[u8], st: &libc::stat) -> Result<Pinned> {
    let is_there = || visible(place, name).and_then(|path| path.stat()).is_ok_and(|now| now.st_ino == st.st_ino);
    if hidden(place, st.st_ino, b".k")?.stat().is_ok() || !is_there() {
        return Err(Errno::ENOENT);
    }
    if place.is_dead() {
        return Err(Errno::EACCES);
    }
    let (maxmsg, msgsize) = check_limits(tls, place, None)?;
    let cost = msgqueue_cost(maxmsg, msgsize);
    let layout = Layout::new(maxmsg, msgsize);
    let _growth = may_have_files(&layout)?;
    let room = maps::room(tls)?;
    let mut draft = Draft::new(place, Key::new(), st.st_uid, cost)?;
    let file = draft.file.open(libc::O_RDWR | MADE, 0o600)?;
    draft.made = true;
    lock_draft(&file)?;
    if file.stat()?.st_nlink == 0 {
        return Err(Errno::ENOENT);
    }
    // SAFETY: the 16 bytes of the key.
    unsafe { syscall!(SYS_pwrite64, file.0, draft.key.0.as_ptr(), KEY_SIZE, 0)? };
    draft.charge(tls)?;
    file.truncate(KEY_SIZE + 1)?;
    crate::crash_point!("furnish.marked");
    draft.is_marked();
    draft.held.file = Some(file);
    let (map, fd) = draft.build(&Near::new(place), st, layout, name, st.st_uid, libc::O_RDWR)?;
    crate::crash_point!("furnish.published");
    // Whatever has been written to it.
    map.header().size.store(FILENT_SIZE + 1, Relaxed);
    let named = give_key(&draft.file, st).and_then(|()| draft.file.rename(&hidden(place, st.st_ino, b".k")?, false));
    if let Err(errno) = named {
        map.unmap();
        return Err(if errno == Errno::EEXIST { Errno::ENOENT } else { errno });
    }
    draft.kept = true;
    crate::crash_point!("furnish.named");
    drop(fd);
    Ok(room.keep(map))
}

/// Gives a key file the mode that goes with the queue's, whose classes are those of the queue's owner and group: as far
/// as the caller may give the file to them.
fn give_key(path: &Path, queue: &libc::stat) -> Result<()> {
    let file = path.open_own(libc::O_PATH | libc::O_NOFOLLOW)?;
    let own = file.stat()?;
    let mut mode = key_mode(queue.st_mode);
    if (own.st_uid, own.st_gid) != (queue.st_uid, queue.st_gid)
        && file.chown(queue.st_uid, queue.st_gid).is_err()
        && file.chown(u32::MAX, queue.st_gid).is_err()
    {
        mode &= !0o040;
    }
    file.set_mode(mode)
}

/// The caller's real uid as its parent user namespace knows it: that is who pays, wherever he is.
fn real_uid() -> u32 {
    // SAFETY: no pointers.
    let uid = unsafe { syscall!(SYS_getuid) }.unwrap_or(0) as u32;
    super::kernel_uid(uid)
}

/// Whether the caller's user namespace maps no uid yet.
pub fn maps_nobody() -> bool {
    uid_map(&mut [0; 8]).is_empty()
}

/// A uid as the parent of the caller's user namespace knows it.
pub fn outer_id(uid: u32) -> u32 {
    if in_initial_user_namespace() {
        return uid;
    }
    let mut text = [0u8; 4096];
    let map = uid_map(&mut text);
    for line in map.split(|&b| b == b'\n') {
        let mut numbers = line.split(|b| b.is_ascii_whitespace()).filter_map(decimal);
        if let (Some(inside), Some(outside), Some(count)) = (numbers.next(), numbers.next(), numbers.next())
            && (inside..inside + count).contains(&(uid as u64))
        {
            return (outside + (uid as u64 - inside)) as u32;
        }
    }
    uid
}

/// The caller's user namespace (user_namespaces(7)), as far as it fits.
fn uid_map(text: &mut [u8]) -> &[u8] {
    let Ok(file) = Path::new(&[b"/proc/thread-self/uid_map"]).and_then(|p| p.open_own(libc::O_RDONLY)) else {
        return b"";
    };
    // SAFETY: the buffer is as long as said.
    let got = unsafe { syscall!(SYS_read, file.0, text.as_mut_ptr(), text.len()) }.unwrap_or(0);
    &text[..got]
}

/// EOVERFLOW: the caller has no id in the user namespace that owns the namespace, because none has
/// been mapped yet (user_namespaces(7)).
fn may_create(place: &Place) -> Result<()> {
    let owner = place.control().user_ns.load(Relaxed);
    if owner == 0 || in_initial_user_namespace() || owner != crate::sys::user_namespace() {
        return Ok(());
    }
    for map in [&b"/proc/thread-self/uid_map"[..], b"/proc/thread-self/gid_map"] {
        let file = Path::new(&[map])?.open_own(libc::O_RDONLY)?;
        let mut byte = 0u8;
        // SAFETY: one byte to a local.
        if unsafe { syscall!(SYS_read, file.0, &raw mut byte, 1)? } == 0 {
            return Err(Errno::EOVERFLOW);
        }
    }
    Ok(())
}

/// `MQNS_POLL=always`: for programs that poll by means that are not intercepted.
fn always_polled() -> bool {
    super::environment(c"MQNS_POLL").is_some_and(|value| value == b"always")
}

/// `MQNS_LIMITS=generous`: no limit but the hard ceilings.
pub fn generous() -> bool {
    super::environment(c"MQNS_LIMITS").is_some_and(|value| value == b"generous")
}

/// Whether the caller has CAP_SYS_RESOURCE in the initial user namespace, where it lifts the
/// namespace's limits (`mqueue_create_attr`, `mq_attr_ok`).
fn may_exceed() -> bool {
    const CAP_SYS_RESOURCE: u32 = 24;
    super::has_capability(CAP_SYS_RESOURCE) && in_initial_user_namespace()
}

/// The initial user namespace maps every id to itself (user_namespaces(7)).
pub fn in_initial_user_namespace() -> bool {
    /// Of a kernel that numbers as Linux does (`PROC_USER_INIT_INO`).
    const FIRST: u64 = 0xefff_fffd;
    let own = crate::sys::user_namespace();
    if own == FIRST || own == 0 {
        return true;
    }
    let mut text = [0u8; 64];
    let mut words = uid_map(&mut text).split(|b| b.is_ascii_whitespace()).filter(|w| !w.is_empty());
    let want: [&[u8]; 3] = [b"0", b"0", b"4294967295"];
    want.iter().all(|w| words.next() == Some(w))
}

/// Checks the limits in the kernel's order, as far as nothing is charged: ENOSPC, then EINVAL. The attributes.
fn check_limits(tls: &'static Tls, place: &'static Place, attr: Option<&MqAttr>) -> Result<(u32, u32)> {
    let control = place.control();
    let mut asked = None;
    let mut exempt = || generous() || *asked.get_or_insert_with(may_exceed);
    let is_full = || control.queues_count.get() >= control.queues_max.load(Relaxed) as u32 as u64;
    if is_full() && !exempt() {
        // Some may only be waiting to be taken away.
        collect_orphans(tls, place);
        collect(tls, place);
        place.accounts().catch_up(&change(place, u64::MAX, 0, 0));
        if is_full() {
            return Err(too_many(place));
        }
    }
    attributes(control, attr, &mut exempt)
}

fn too_many(place: &Place) -> Errno {
    let control = place.control();
    refused(format_args!(
        "mq_open: ENOSPC: {} queues exist in this namespace, queues_max is {}",
        control.queues_count.get(),
        control.queues_max.load(Relaxed)
    ));
    Errno::ENOSPC
}

/// Counts and charges a new queue: ENOSPC (others were faster), EMFILE.
fn admit(tls: &'static Tls, place: &'static Place, number: u64, uid: u32, cost: u64) -> Result<Noted<'static>> {
    let mut limit = if generous() { u64::MAX } else { soft_limit()? };
    let mut queues_max = place.control().queues_max.load(Relaxed) as u32;
    let what = change(place, number, uid, cost);
    let mut again = false;
    loop {
        match place.accounts().charge(&what, limit, queues_max) {
            Ok(noted) => return Ok(noted),
            Err(Refused::TooMany) if queues_max != u32::MAX && (generous() || may_exceed()) => queues_max = u32::MAX,
            Err(Refused::TooMany) => return Err(too_many(place)),
            Err(Refused::TooMuch(_)) if !again => {
                // The account may include queues of processes that were killed, and of namespaces that ended with them.
                super::life::look(place.root(), place.accounts(), usize::MAX);
                collect_orphans(tls, place);
                collect(tls, place);
                crate::vfs::mount::collect();
                again = true;
                // Which may have taken its time.
                limit = if generous() { u64::MAX } else { soft_limit()? };
            }
            Err(Refused::TooMuch(used)) => {
                refused(format_args!(
                    "mq_open: EMFILE: RLIMIT_MSGQUEUE of uid {uid}: need {cost} bytes, used {used} of {limit} \
                     (this is not the limit on open files)"
                ));
                return Err(Errno::EMFILE);
            }
        }
    }
}

/// ENOSPC: RLIMIT_FSIZE forbids the segment, its longest file.
fn may_have_files(layout: &Layout) -> Result<Growth> {
    may_grow_to(layout.len).inspect_err(|_| {
        refused(format_args!("mq_open: ENOSPC: need a file of {} bytes, RLIMIT_FSIZE is less", layout.len));
    })
}

/// The attributes of a new queue: the caller's, or the namespace's defaults.
fn attributes(
    control: &super::control::Control,
    attr: Option<&MqAttr>,
    exempt: &mut impl FnMut() -> bool,
) -> Result<(u32, u32)> {
    // The limits are input as well: nothing beyond the hard ones can be mapped.
    let msg_max = control.msg_max.load(Relaxed).min(HARD_MSGMAX);
    let msgsize_max = control.msgsize_max.load(Relaxed).min(HARD_MSGSIZEMAX);
    let Some(attr) = attr else {
        return Ok((
            control.msg_default.load(Relaxed).min(msg_max).clamp(1, HARD_MSGMAX),
            control.msgsize_default.load(Relaxed).min(msgsize_max).clamp(1, HARD_MSGSIZEMAX),
        ));
    };
    let (maxmsg, msgsize) = (attr.mq_maxmsg, attr.mq_msgsize);
    let fits = |msg: u32, size: u32| (1..=msg as i64).contains(&maxmsg) && (1..=size as i64).contains(&msgsize);
    if fits(msg_max, msgsize_max) || (fits(HARD_MSGMAX, HARD_MSGSIZEMAX) && exempt()) {
        return Ok((maxmsg as u32, msgsize as u32));
    }
    refused(format_args!(
        "mq_open: EINVAL: mq_maxmsg {maxmsg} (1..={msg_max} allowed), mq_msgsize {msgsize} (1..={msgsize_max} allowed)"
    ));
    Err(Errno::EINVAL)
}

/// The caller's RLIMIT_MSGQUEUE, bytes.
fn soft_limit() -> Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the result goes to a local.
    unsafe { syscall!(SYS_prlimit64, 0, libc::RLIMIT_MSGQUEUE, 0, &raw mut limit)? };
    Ok(limit.rlim_cur)
}

/// mq_unlink(2).
///
/// # Errors
///
/// ENOENT, ENAMETOOLONG; EPERM: neither the owner nor privileged, the directory being sticky
/// (mq_unlink(3) reports EACCES); EACCES: no name for a queue.
pub fn unlink(tls: &'static Tls, place: &'static Place, name: &[u8]) -> Result<()> {
    check_name(name)?;
    if place.is_read_only() {
        return Err(Errno::EROFS);
    }
    let near = Near::new(place);
    let path = near.shorten(visible(place, name)?);
    // The file's new name says which one it is; should the name have come to mean another file just now, that one was
    // renamed, and gets the right one.
    let mut turns = 0;
    let (mut ino, dev, aside) = loop {
        let st = path.stat()?;
        let ino = st.st_ino;
        let aside = near.hidden(ino, b".x")?;
        match take_aside(place, &path, &aside) {
            // Somebody else was faster, and the name means another file by now.
            Err(Errno::EEXIST) if turns < PATIENCE => turns += 1,
            // Or a stranger has put another file there: who has the right takes it away.
            Err(Errno::EEXIST) if turns > DAMAGED => return Err(Errno::EIO),
            Err(Errno::EEXIST) => {
                turns += 1;
                let is_strange = aside.stat().is_ok_and(|st| st.st_ino != ino);
                let cleared = is_strange && turns < 2 * PATIENCE && aside.unlink().is_ok();
                if is_strange && !cleared && path.stat()?.st_ino == ino {
                    return unlink_in_sight(tls, place, &near, &path, ino);
                }
            }
            // Sticky directories and foreign files: the kernel's queue directory answers EPERM.
            Err(Errno::EACCES) => return Err(Errno::EPERM),
            Ok(()) => break (ino, st.st_dev, aside),
            Err(errno) => return Err(errno),
        }
    };
    crate::crash_point!("unlink.aside");
    let renamed = match aside.stat() {
        // Taken away by somebody who looks for such.
        Err(Errno::ENOENT) => return Ok(()),
        other => other?.st_ino,
    };
    if renamed != ino {
        match rename_aside(place, ino, renamed) {
            // As above.
            Err(Errno::ENOENT) => return Ok(()),
            other => other?,
        }
        ino = renamed;
    }
    match map_queue(tls, place, ino, Some(dev)) {
        Ok(map) => {
            retire(tls, &near, &map)?;
            maps::tidy(tls, map);
        }
        // Not a queue, or a damaged one: nothing but files to take away.
        Err(Errno::ENOENT | Errno::EIO) => remove_files(&near, ino, key_to_remove(place, ino)),
        // Somebody else's, unlinked by the owner of the directory; or there is no descriptor or memory to spare for a
        // look at it. `collect` does the rest, at the next creation.
        Err(_) => {
            place.control().nameless.fetch_add(1, AcqRel);
        }
    }
    Ok(())
}

/// mq_unlink(2) of a queue whose hidden name is taken by somebody else's file, which stays: the name goes without a
/// stop on the way. Who is killed in the middle of it leaves files behind.
#[cold]
fn unlink_in_sight(tls: &'static Tls, place: &'static Place, near: &Near, path: &Path, ino: u64) -> Result<()> {
    let map = map_queue(tls, place, ino, None);
    match path.unlink() {
        Err(Errno::EACCES) => return Err(Errno::EPERM),
        other => other?,
    }
    match map {
        Ok(map) => {
            retire(tls, near, &map)?;
            maps::tidy(tls, map);
        }
        Err(_) => remove_files(near, ino, key_to_remove(place, ino)),
    }
    Ok(())
}

/// Takes the name of a queue's file away; the file is `aside` then. Where others may watch the directory they
/// are to see that it disappears.
fn take_aside(place: &Place, path: &Path, aside: &Path) -> Result<()> {
    let is_owner = || path.stat().is_ok_and(|st| st.st_uid == super::euid()) || super::euid() == 0;
    if place.was_mounted() && is_owner() {
        match path.link(aside) {
            Ok(()) => {
                crate::crash_point!("unlink.linked");
                let removed = path.unlink();
                if removed.is_err() {
                    let _ = aside.unlink();
                }
                return removed;
            }
            // Somebody else is about to, unless it is another file.
            Err(Errno::EEXIST) if path.stat()?.st_ino == aside.stat()?.st_ino => return path.unlink(),
            Err(Errno::EEXIST) => return Err(Errno::EEXIST),
            Err(Errno::ENOENT) => return Err(Errno::ENOENT),
            Err(_) => {}
        }
    }
    // What is aside already is not to be lost; a second link to the same file may be.
    path.rename(aside, place.was_mounted())
}

/// Gives a file that has lost its name, and was taken for another, the hidden name that is its own.
fn rename_aside(place: &Place, taken_for: u64, ino: u64) -> Result<()> {
    hidden(place, taken_for, b".x")?.rename(&hidden(place, ino, b".x")?, true)
}

/// A path into a namespace's directory by way of what any user may have made there, or put in its place.
fn beside(place: &Place, dir: &[u8], name: &[u8]) -> Result<Path> {
    Ok(place.path(&[dir, name])?.beneath(place.root().len()))
}

/// The link that stands for what is charged for a queue without a name.
fn charge_link(place: &Place, map: &Map) -> Result<Path> {
    link_of_charge(place, map.ino, map.header().owner_uid.load(Relaxed), msgqueue_cost(map.maxmsg, map.msgsize))
}

fn link_of_charge(place: &Place, ino: u64, uid: u32, cost: u64) -> Result<Path> {
    let mut path = beside(place, b"/q/f/", b"")?;
    path.push_hex(ino)?;
    for number in [uid as u64, cost] {
        path.push(b".")?;
        path.push_decimal(number)?;
    }
    Ok(path)
}

/// The name of a queue is gone. As a rule nobody has it open: then it goes at once.
fn retire(tls: &'static Tls, near: &Near, map: &Map) -> Result<()> {
    // Whoever opens the FIFO from now on sees this afterwards, and gives up; who did so before is seen here.
    map.header().flags.fetch_or(F_UNLINKED, AcqRel);
    crate::crash_point!("unlink.marked");
    if map.fds.load(Acquire) == 0 && ask(&near.keyed(map.key, b".p")?) == Err(Errno::ENXIO) {
        crate::crash_point!("unlink.unused");
        forget_draft(near.place, map);
        destroy(near, map, None);
        return Ok(());
    }
    nameless(near.place, map)?;
    destroy_if_unused(tls, map);
    Ok(())
}

/// What a maker has left who was killed as soon as the queue had its name where it is mounted: it would be taken off
/// the accounts a second time.
fn forget_draft(place: &Place, map: &Map) {
    if place.was_mounted() {
        let cost = msgqueue_cost(map.maxmsg, map.msgsize);
        let _ = draft_path(place, map.key, map.header().owner_uid.load(Relaxed), cost).and_then(|path| path.unlink());
    }
}

/// The name of a queue is gone, which is open: its FIFO must follow. May be repeated.
fn nameless(place: &Place, map: &Map) -> Result<()> {
    forget_draft(place, map);
    let fifo = keyed(place, map.key, b".d")?;
    let _ = keyed(place, map.key, b".p")?.rename(&fifo, true);
    crate::crash_point!("nameless.moved");
    let link = charge_link(place, map)?;
    let linked = match fifo.link(&link) {
        Err(Errno::ENOENT) => {
            // The first: whoever finds such a queue unused may take its charge off, so that the directory is
            // for all who may use the namespace.
            let make = || -> Result<()> {
                let all = place.path(&[b"/q"])?.stat()?.st_mode & 0o777;
                beside(place, b"/q/f", b"")?.make_dir(all)
            };
            make().and_then(|()| fifo.link(&link))
        }
        other => other,
    };
    crate::crash_point!("nameless.linked");
    // On a full file system there may be no room for it. The name is gone all the same: the last close takes the charge
    // off, or whoever looks.
    if linked != Err(Errno::EEXIST) {
        place.control().nameless.fetch_add(1, AcqRel);
    }
    map.header().flags.fetch_or(F_UNLINKED, AcqRel);
    crate::queue::tap::look_again(map);
    Ok(())
}

/// Gives back what is charged for a queue without a name, if nobody has yet, as the flag in its header says; without the
/// queue the link does. `ino`: of its file.
fn uncharge(place: &Place, map: Option<&Map>, link: Option<&Path>, ino: u64, uid: u32, cost: u64) {
    let is_due = |_| match map {
        Some(map) => map.header().flags.load(Acquire) & F_UNCHARGED == 0,
        None => link.is_some_and(|link| link.stat().is_ok()),
    };
    // Not by the key, which those without the queue do not know.
    let noted = place.accounts().give_back(&change(place, ino, uid, cost), is_due);
    if let Some(map) = map {
        map.header().flags.fetch_or(F_UNCHARGED, AcqRel);
    }
    crate::crash_point!("destroy.marked");
    let unlinked = link.is_some_and(|link| link.unlink().is_ok());
    if let Some(noted) = noted {
        noted.settle();
    }
    if unlinked {
        let _ = place.control().nameless.fetch_update(AcqRel, Acquire, |n| Some(n.saturating_sub(1)));
    }
}

/// The key of a queue whose files are to be taken away though it cannot be mapped: not if the file says another queue's,
/// which it may, having been written by anybody who owns it.
fn key_to_remove(place: &Place, ino: u64) -> Option<Key> {
    let path = hidden(place, ino, b".k").ok()?;
    let key = key_in(&path).ok()?;
    is_key_of(place, key, ino, path.stat().ok()?.st_uid).then_some(key)
}

/// Whether what lies under a key is nobody else's: of the same owner as what says the key, and no segment of
/// another queue that has that key. (That of a draft may be a file's whose key it is to be, see `furnish`.)
fn is_key_of(place: &Place, key: Key, ino: u64, owner: u32) -> bool {
    let is_owned = |kind| match keyed(place, key, kind).and_then(|path| path.stat()) {
        Ok(st) => st.st_uid == owner,
        Err(errno) => errno == Errno::ENOENT,
    };
    let segment =
        keyed(place, key, b".s").and_then(|path| path.open_own(libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK));
    let said = segment.ok().and_then(|file| Map::queue_of(file.0));
    [&b".s"[..], b".p", b".d"].into_iter().all(is_owned)
        && said.is_none_or(|of| of == ino || read_key(place, of) != Ok(key))
}

fn remove_files(near: &Near, ino: u64, key: Option<Key>) {
    if let Some(key) = key {
        let gone = |kind| near.keyed(key, kind).and_then(|path| path.unlink()).is_ok();
        let _ = gone(b".p") || gone(b".d");
        crate::crash_point!("destroy.fifo");
        let _ = gone(b".s");
        crate::crash_point!("destroy.segment");
    }
    let _ = near.hidden(ino, b".k").and_then(|path| path.unlink());
    crate::crash_point!("destroy.key");
    // Unless it has been taken away by somebody else already, and another file mistaken for it (see `unlink`).
    if let Ok(aside) = near.hidden(ino, b".x")
        && aside.stat().is_ok_and(|st| st.st_ino == ino)
    {
        let _ = aside.unlink();
    }
}

/// Opens a FIFO for writing. ENXIO: no process has it open.
fn ask(fifo: &Path) -> Result<()> {
    fifo.open_own(libc::O_WRONLY | libc::O_NONBLOCK | libc::O_NOFOLLOW).map(drop)
}

/// Whether any process has a FIFO open whose queue's name is gone, so that nobody can open it any
/// more.
fn is_open(fifo: &Path) -> bool {
    !is_unused(ask(fifo))
}

/// What [`ask`] says of a FIFO that nobody can open any more. Otherwise it is open, or not to be found out now:
/// `collect` will.
fn is_unused(answer: Result<()>) -> bool {
    matches!(answer, Err(Errno::ENXIO | Errno::ENOENT))
}

/// Takes a queue away whose name is gone, if nobody has it open: charge, memory, files.
#[cold]
pub fn destroy_if_unused(_tls: &'static Tls, map: &Map) {
    let Ok(place) = Place::of(map.place.load(Relaxed)) else { return };
    // Not by asking where this process has it open itself: closing what was opened to ask would
    // end its notification.
    if map.fds.load(Acquire) != 0 {
        return;
    }
    let near = Near::new(place);
    let (Ok(named), Ok(fifo)) = (near.keyed(map.key, b".p"), near.keyed(map.key, b".d")) else { return };
    let mut answer = ask(&fifo);
    if answer == Err(Errno::ENOENT) {
        let is_named = named.stat().is_ok();
        if is_named {
            // Who took the name away may have had no right to the FIFO; nor, then, has this caller.
            let _ = nameless(place, map);
        }
        // Once more: it may have come from the one name to the other between the two looks.
        answer = ask(&fifo);
        if is_named && answer == Err(Errno::ENOENT) {
            return;
        }
    }
    if is_unused(answer) {
        destroy(&near, map, charge_link(place, map).ok().as_ref());
    }
}

/// Takes a queue away that nobody has open, nor can open any more; with the link that stands for what is charged,
/// if it may have one.
fn destroy(near: &Near, map: &Map, link: Option<&Path>) {
    let (place, h) = (near.place, map.header());
    h.flags.fetch_or(F_DEAD, AcqRel);
    crate::crash_point!("destroy.dead");
    uncharge(place, Some(map), link, map.ino, h.owner_uid.load(Relaxed), msgqueue_cost(map.maxmsg, map.msgsize));
    crate::crash_point!("destroy.uncharged");
    queue::notify::bell::remove(map);
    // Of another user the files stay for its owner's `collect`; the memory goes now, but for the
    // page that says that the queue is dead.
    map.release_memory();
    remove_files(near, map.ino, Some(map.key));
    if place.is_dead() {
        super::life::release(place);
    }
}

/// Whether anybody has a queue of a namespace open. That keeps the superblock of a dead one, with all that is
/// in it, as in the kernel.
pub fn any_open(tls: &Tls, place: &Place) -> bool {
    let mut open = false;
    each(place, b"/q/x", |name| {
        if open || !(name.ends_with(b".p") || name.ends_with(b".d")) {
            return;
        }
        let Ok(path) = place.path(&[b"/q/x/", name]) else { return };
        // Ours are not asked about: see `destroy_if_unused`.
        let known = key_of_name(name).and_then(|key| maps::find_key(tls, place, key));
        open = known.is_some_and(|map| map.fds.load(Acquire) != 0) || is_open(&path);
    });
    open
}

/// The key in the name of a segment or FIFO.
fn key_of_name(name: &[u8]) -> Option<Key> {
    let half = |digits: &[u8]| core::str::from_utf8(digits).ok().and_then(|text| u64::from_str_radix(text, 16).ok());
    Some(Key([half(name.get(..16)?)?, half(name.get(16..32)?)?]))
}

/// The end of a namespace: its names go, and the queues that nobody has open. Nobody is a member.
#[cold]
#[inline(never)]
pub fn end(place: &Place) {
    let tls = super::member::tls();
    let Ok(place) = Place::of(place.index()) else { return };
    // Though it be read-only.
    place.control().state.fetch_and(!super::control::READ_ONLY, AcqRel);
    // What those have left who were killed while they made a queue; of some that have got their names a second
    // link, which comes first.
    each(place, b"/q", |name| {
        if name.first() == Some(&b't') {
            abandoned(place, name, true);
        }
    });
    each(place, b"/sb", |name| {
        let _ = unlink(tls, place, name);
    });
    collect_orphans(tls, place);
    collect(tls, place);
    crate::crash_point!("end.names");
    each(place, b"/q/x", |name| {
        let beside = |kind: &[u8]| place.path(&[b"/q/x/", &name[..name.len().min(32)], kind]);
        let held = [&b".d"[..], b".p"].iter().any(|kind| beside(kind).is_ok_and(|fifo| is_open(&fifo)));
        if !held {
            let _ = place.path(&[b"/q/x/", name]).and_then(|path| path.unlink());
        }
    });
    // Notes of its queues are nobody's from now on.
    place.accounts().catch_up(&change(place, u64::MAX, 0, 0));
}

/// Takes away the queues of a namespace whose name is gone and that nobody has open: what processes
/// have left that were killed, or that exited without closing. Another user's are only taken off the
/// accounts. Returns how many.
#[cold]
#[inline(never)]
pub fn collect(tls: &'static Tls, place: &'static Place) -> usize {
    let mut removed = 0;
    // What an unlinker that was killed has left half done, or a maker.
    each(place, b"/q", |name| {
        if name.first() == Some(&b't') {
            removed += usize::from(abandoned(place, name, false));
        }
        let Some(named) = name.strip_suffix(b".x").and_then(hex) else { return };
        let aside = hidden(place, named, b".x");
        let Ok(ino) = aside.and_then(|path| path.stat()).map(|st| st.st_ino) else { return };
        if ino != named && rename_aside(place, named, ino).is_err() {
            return;
        }
        let found = map_queue(tls, place, ino, None);
        if let Err(Errno::ENOENT | Errno::EIO) = found {
            // Of one that was being taken away there is no more than this.
            remove_files(&Near::new(place), ino, key_to_remove(place, ino));
        }
        if let Ok(map) = found {
            if map.header().flags.load(Acquire) & F_UNLINKED == 0 {
                if is_being_unlinked(place, &map) {
                    return;
                }
                let _ = nameless(place, &map);
            }
            destroy_if_unused(tls, &map);
            maps::tidy(tls, map);
        }
    });
    let mut left = 0;
    each(place, b"/q/f", |name| {
        let mut parts = name.split(|&b| b == b'.');
        let (Some(ino), Some(uid), Some(cost)) =
            (parts.next().and_then(hex), parts.next().and_then(decimal), parts.next().and_then(decimal))
        else {
            return;
        };
        let Ok(link) = beside(place, b"/q/f/", name) else { return };
        // Ours are not asked about: see `destroy_if_unused`.
        let held = maps::find(tls, place, ino, None).is_some_and(|map| map.fds.load(Acquire) != 0);
        if held || is_open(&link) {
            left += 1;
            return;
        }
        match map_queue(tls, place, ino, None) {
            Ok(map) => {
                uncharge(place, Some(&map), Some(&link), ino, uid as u32, cost);
                maps::tidy(tls, map);
            }
            // Its files go after the charge has been taken off: the link was made by one of several who found it
            // without a name, too late.
            Err(Errno::ENOENT) => drop(link.unlink()),
            // Another user's.
            Err(_) => uncharge(place, None, Some(&link), ino, uid as u32, cost),
        }
        removed += 1;
    });
    place.control().nameless.store(left, Relaxed);
    removed
}

/// Whether a queue has its name still beside the hidden one: somebody is unlinking it, or was killed in the middle
/// of that, and has done nothing.
fn is_being_unlinked(place: &Place, map: &Map) -> bool {
    const OLD: i64 = 10;
    let mut name = [0; NAME_MAX];
    let len = map.name(&mut name);
    let is_it = |path: Result<Path>| path.and_then(|path| path.stat()).is_ok_and(|st| st.st_ino == map.ino);
    if !is_it(visible(place, &name[..len])) {
        return false;
    }
    if let Ok(hidden) = hidden(place, map.ino, b".x")
        && hidden.stat().is_ok_and(|st| queue::coarse_seconds() as i64 - st.st_ctime >= OLD)
    {
        let _ = hidden.unlink();
    }
    true
}

/// Takes away what programs without the library have left that removed queues' files where the superblock is
/// mounted: a look at each queue, so that it is for those who are short of room, and for `mqns gc`.
#[cold]
#[inline(never)]
pub fn collect_orphans(tls: &'static Tls, place: &'static Place) {
    if place.was_mounted() {
        each(place, b"/q", |name| {
            if let Some(ino) = name.strip_suffix(b".k").and_then(hex) {
                orphaned(tls, place, ino);
            }
        });
    }
}

/// Takes a queue's segment and FIFO away whose file was removed by somebody who knows nothing of them,
/// unless it is open. Whether it was one.
fn orphaned(tls: &'static Tls, place: &'static Place, ino: u64) -> bool {
    let Ok(map) = map_queue(tls, place, ino, None) else { return false };
    let h = map.header();
    let exists = |path: Result<Path>| path.and_then(|path| path.stat()).is_ok_and(|st| st.st_ino == ino);
    let cost = msgqueue_cost(map.maxmsg, map.msgsize);
    let draft = draft_path(place, map.key, h.owner_uid.load(Relaxed), cost);
    let mut name = [0; NAME_MAX];
    let len = map.name(&mut name);
    // In the order in which a file goes from one to the next.
    if h.flags.load(Acquire) & F_UNLINKED != 0
        || draft.and_then(|path| path.stat()).is_ok()
        || exists(visible(place, &name[..len]))
        || exists(hidden(place, ino, b".x"))
    {
        return false;
    }
    // Or it has another name by now.
    let mut renamed = false;
    each(place, b"/sb", |name| renamed |= exists(visible(place, name)));
    if renamed {
        return false;
    }
    let _ = nameless(place, &map);
    destroy_if_unused(tls, &map);
    maps::tidy(tls, map);
    true
}

/// Whether queues of a place are open: those without a name, and those that are open for writing. As far as
/// the caller may see what processes have open.
pub fn any_open_for_change(place: &Place) -> bool {
    use crate::sys::proc;
    let Ok(dir) = Path::new(&[place.dir(), b"/q/x/"]) else { return false };
    proc::any_process(|pid| {
        let mut found = false;
        proc::each_descriptor(pid, |fd| {
            let file = |of: &[u8]| Path::new(&[b"/proc/", pid, of, fd]);
            let Ok(target) = file(b"/fd/").and_then(|link| link.read_link_at(libc::AT_FDCWD)) else { return };
            let Some(name) = target.as_bytes().strip_prefix(dir.as_bytes()) else { return };
            let mut access = libc::O_RDONLY;
            if let Ok(info) = file(b"/fdinfo/").and_then(|info| info.open_own(libc::O_RDONLY)) {
                proc::each_line(&info, |line| {
                    let flags = line.strip_prefix(b"flags:\t").and_then(|text| core::str::from_utf8(text).ok());
                    if let Some(flags) = flags.and_then(|flags| i32::from_str_radix(flags, 8).ok()) {
                        access = if flags & libc::O_PATH != 0 { libc::O_RDONLY } else { desc::flags_to_mode(flags) };
                    }
                });
            }
            found |= name.ends_with(b".d") || matches!(access, libc::O_WRONLY | libc::O_RDWR);
        });
        found
    })
}

/// Takes a queue away whose maker was killed before it had its name: nobody holds its file. (A maker who finds his
/// file taken away has not come far, and begins anew.) `nobody`: nobody can be making one. Whether it was one.
fn abandoned(place: &Place, name: &[u8], nobody: bool) -> bool {
    /// Seconds, for files whose mode forbids to ask; making a queue takes well under a millisecond.
    const OLD: i64 = 10;
    let mut parts = name.split(|&b| b == b'.');
    let half = parts.next().and_then(|first| first.strip_prefix(b"t")).and_then(hex);
    let (Some(number), Some(uid), Some(cost)) = (half, parts.next().and_then(decimal), parts.next().and_then(decimal))
    else {
        return false;
    };
    let Ok(path) = place.path(&[b"/q/", name]) else { return false };
    let Ok(st) = path.stat() else { return false };
    let file = path.open_own(libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let is_left = match &file {
        Ok(file) => super::member::lock(file, libc::LOCK_EX).is_ok(),
        Err(_) => nobody || queue::coarse_seconds() as i64 - st.st_ctime >= OLD,
    };
    // Its maker may have come to the end before it was locked: then it has its name, and not this one any more.
    let Ok(now) = path.stat() else { return false };
    if !is_left || now.st_ino != st.st_ino {
        return false;
    }
    // The directory is sticky. What cannot be taken away now is left as it is, for its owner or root: it would be taken
    // off the accounts again with each look.
    let euid = super::euid();
    let is_owner = |uid: u32| uid == euid;
    if euid != 0
        && !is_owner(now.st_uid)
        && !place.path(&[b"/q"]).and_then(|q| q.stat()).is_ok_and(|q| is_owner(q.st_uid))
    {
        return false;
    }
    if now.st_nlink > 1 {
        // It had got its name, and its maker was killed before he could take this one away.
        let _ = path.unlink();
        return false;
    }
    // It is a queue's file, with a file for the key, or (see `furnish`) that file itself.
    if let Ok(key) = read_key(place, st.st_ino).or_else(|_| key_in(&path))
        && is_key_of(place, key, st.st_ino, st.st_uid)
    {
        for kind in [b".s", b".p"] {
            // Whoever knows the key of another's queue may have written it here.
            if let Ok(path) = keyed(place, key, kind)
                && path.stat().is_ok_and(|part| part.st_uid == now.st_uid)
            {
                let _ = path.unlink();
            }
        }
    }
    if let Ok(path) = hidden(place, st.st_ino, b".k")
        && path.stat().is_ok_and(|part| part.st_uid == now.st_uid)
    {
        let _ = path.unlink();
    }
    crate::crash_point!("abandoned.emptied");
    // The size is that which a file gets once it is charged for: a queue's, or a key's and more.
    let is_due = |noted| {
        let is_marked = |st: libc::stat| st.st_size as u64 != 0 && st.st_size as u64 != KEY_SIZE;
        path.stat().is_ok_and(|it| it.st_ino == st.st_ino && (noted || is_marked(it)))
    };
    let given_back = place.accounts().give_back(&change(place, number, uid as u32, cost), is_due);
    crate::crash_point!("abandoned.given_back");
    // Last what the rest is found by.
    let _ = path.unlink();
    if let Some(given_back) = given_back {
        given_back.settle();
    }
    true
}

/// Calls `see` with the name of each queue and what stat(2) says of its file.
///
/// # Errors
///
/// Those of opening the directory.
pub fn each_name(place: &Place, mut see: impl FnMut(&[u8], &libc::stat)) -> Result<()> {
    let dir = beside(place, b"/sb", b"")?.open_own(libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW)?;
    crate::sys::path::each_entry(&dir, |name| {
        // Others are gone meanwhile, or no queues.
        if let Ok(st) = visible(place, name).and_then(|path| path.stat())
            && st.st_mode & libc::S_IFMT == libc::S_IFREG
        {
            see(name, &st);
        }
    });
    Ok(())
}

fn each(place: &Place, dir: &[u8], see: impl FnMut(&[u8])) {
    let dir =
        beside(place, dir, b"").and_then(|path| path.open_own(libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW));
    if let Ok(dir) = dir {
        crate::sys::path::each_entry(&dir, see);
    }
}

fn hex(digits: &[u8]) -> Option<u64> {
    core::str::from_utf8(digits).ok().and_then(|text| u64::from_str_radix(text, 16).ok())
}

fn decimal(digits: &[u8]) -> Option<u64> {
    core::str::from_utf8(digits).ok().and_then(|text| text.parse().ok())
}
