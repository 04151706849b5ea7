//! The library in this process, for what only it can do: the namespaces of tasks, their file systems, the remains
//! of the dead.
//!
//! The command is not linked with it. It executes itself again, with libmqns.so preloaded: libc's unshare,
//! setns, mount, open and readlink are the library's then, and execve takes the namespace along.

use std::env;
use std::ffi::{CStr, OsString, c_char, c_int, c_uint, c_void};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU32;

use super::run::{Environment, Library, Never, Ready};
use super::{Cause, Exit, Failure, doctor};
use crate::look::{Entry, Formats, Message, Sleeper, State, Tap, TapEvent, TappedMessage};

/// Variable that tells the second image that it is the second. No command ever gets it.
pub const MARKER: &str = "MQNS_SECOND_IMAGE";

/// This program. As a link, so that it is the same one even if its file has been replaced meanwhile.
pub const OURSELVES: &str = "/proc/self/exe";

/// The proof that the library is here, and its functions that libc has not.
pub struct Preloaded {
    /// `mqns_collect`.
    collect: unsafe extern "C" fn() -> isize,
    /// `mqns_queues`.
    queues: unsafe extern "C" fn(c_int) -> isize,
    /// `mqns_enter_named`.
    enter_named: unsafe extern "C" fn(*const c_char, c_int) -> isize,
    /// `mqns_name`.
    name: unsafe extern "C" fn(c_int, *mut u8, usize) -> isize,
    /// `mqns_formats`.
    formats: unsafe extern "C" fn(*mut Formats),
    /// `mqns_names`.
    names: Names,
    /// `mqns_charged`.
    charged: Charged,
    /// `mqns_state`.
    state: StateOf,
    /// `mqns_messages`.
    messages: Messages,
    /// `mqns_message`.
    message: MessageOf,
    /// `mqns_tap`.
    tap: StartTap,
    /// `mqns_tap_next`.
    tap_next: NextOfTap,
    /// `mqns_tap_wake`.
    tap_wake: unsafe extern "C" fn(c_int) -> isize,
    /// `mqns_tap_end`.
    tap_end: unsafe extern "C" fn(*const Tap) -> isize,
    /// `mqns_tap_alone`.
    tap_alone: unsafe extern "C" fn(c_int),
    /// statx(2) of libc, past the library.
    statx: Statx,
}

type Names = unsafe extern "C" fn(unsafe extern "C" fn(*mut c_void, *const Entry), *mut c_void) -> isize;
type Charged = unsafe extern "C" fn(unsafe extern "C" fn(*mut c_void, u32, u64), *mut c_void) -> isize;
type StateOf = unsafe extern "C" fn(c_int, *mut State, *mut Sleeper, usize) -> isize;
type Messages = unsafe extern "C" fn(c_int, *mut Message, usize) -> isize;
type MessageOf = unsafe extern "C" fn(c_int, *const Message, *mut u8) -> isize;
type StartTap = unsafe extern "C" fn(c_int, *mut Tap, *mut Message, usize) -> isize;
type NextOfTap = unsafe extern "C" fn(*mut Tap, *const AtomicU32, *mut TappedMessage, *mut u8) -> isize;
type Statx = unsafe extern "C" fn(c_int, *const c_char, c_int, c_uint, *mut libc::statx) -> c_int;

/// A queue's file: its name, without the leading slash, its mode and owner.
pub struct Named {
    pub name: Vec<u8>,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// Device and inode.
pub type Inode = (u32, u32, u64);

impl Preloaded {
    /// The library in this process. In the first image this does not return, unless it fails: the program
    /// is executed again, in an environment which becomes that of the second image.
    pub fn here(library: &Library, environment: &Environment) -> Result<Preloaded, Failure> {
        if env::var_os(MARKER).is_none() {
            let never = again(library, environment.clone())?;
            match never {}
        }
        Preloaded::present()
    }

    /// The library in this process, which is the second image.
    pub fn present() -> Result<Preloaded, Failure> {
        Preloaded::found().ok_or_else(|| {
            let object = env::current_exe().unwrap_or(PathBuf::from("mqns"));
            let remedy = "set MQNS_LIB to the libmqns.so of this version (`cargo build --release` makes both)";
            Failure::new(Exit::Failed, object.display(), "the loader has not preloaded libmqns.so into it", remedy)
        })
    }

    fn found() -> Option<Preloaded> {
        let find = |name: &CStr| {
            // SAFETY: a NUL-terminated name.
            let at = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
            (!at.is_null()).then_some(at)
        };
        let (collect, queues) = (find(c"mqns_collect")?, find(c"mqns_queues")?);
        let formats = find(c"mqns_formats")?;
        let (enter_named, name) = (find(c"mqns_enter_named")?, find(c"mqns_name")?);
        let (names, charged, state) = (find(c"mqns_names")?, find(c"mqns_charged")?, find(c"mqns_state")?);
        let (messages, message) = (find(c"mqns_messages")?, find(c"mqns_message")?);
        let (tap, tap_next, tap_wake) = (find(c"mqns_tap")?, find(c"mqns_tap_next")?, find(c"mqns_tap_wake")?);
        let (tap_end, tap_alone) = (find(c"mqns_tap_end")?, find(c"mqns_tap_alone")?);
        // SAFETY: NUL-terminated names; it is loaded anyway.
        let statx = unsafe {
            let libc = libc::dlopen(c"libc.so.6".as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD);
            if libc.is_null() { libc } else { libc::dlsym(libc, c"statx".as_ptr()) }
        };
        if statx.is_null() {
            return None;
        }
        // SAFETY: functions of the library, and one of libc, of these names, with these types.
        unsafe {
            Some(Preloaded {
                collect: std::mem::transmute::<*mut c_void, unsafe extern "C" fn() -> isize>(collect),
                queues: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(c_int) -> isize>(queues),
                formats: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut Formats)>(formats),
                enter_named: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*const c_char, c_int) -> isize>(
                    enter_named,
                ),
                name: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(c_int, *mut u8, usize) -> isize>(name),
                names: std::mem::transmute::<*mut c_void, Names>(names),
                charged: std::mem::transmute::<*mut c_void, Charged>(charged),
                state: std::mem::transmute::<*mut c_void, StateOf>(state),
                messages: std::mem::transmute::<*mut c_void, Messages>(messages),
                message: std::mem::transmute::<*mut c_void, MessageOf>(message),
                tap: std::mem::transmute::<*mut c_void, StartTap>(tap),
                tap_next: std::mem::transmute::<*mut c_void, NextOfTap>(tap_next),
                tap_wake: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(c_int) -> isize>(tap_wake),
                tap_end: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*const Tap) -> isize>(tap_end),
                tap_alone: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(c_int)>(tap_alone),
                statx: std::mem::transmute::<*mut c_void, Statx>(statx),
            })
        }
    }

    /// Goes to a new IPC namespace.
    pub fn unshare(&self) -> Result<(), Failure> {
        // SAFETY: no pointers.
        let done = with_generous_privileges(|| match unsafe { libc::unshare(libc::CLONE_NEWIPC) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
        done.map_err(|error| directory_trouble("a new IPC namespace", &error))
    }

    /// Goes to the IPC namespace of that name, or, if there is none and `make`, to a new one with it.
    pub fn enter_named(&self, name: &CStr, make: bool) -> io::Result<()> {
        // SAFETY: the library's function; a NUL-terminated name.
        with_generous_privileges(|| count(unsafe { (self.enter_named)(name.as_ptr(), make.into()) })).map(drop)
    }

    /// The name of the namespace of a descriptor of `/proc/PID/ns/ipc`. `None`: it has none.
    pub fn name(&self, namespace: &OwnedFd) -> Option<String> {
        let mut name = vec![0; 256];
        // SAFETY: the library's function; a buffer as long as said.
        let len = count(unsafe { (self.name)(namespace.as_raw_fd(), name.as_mut_ptr(), name.len()) }).ok()?;
        name.truncate(len as usize);
        String::from_utf8(name).ok().filter(|name| !name.is_empty())
    }

    /// Which library this is.
    pub fn formats(&self) -> Formats {
        let mut formats =
            Formats { version: c"".as_ptr().cast(), version_len: 0, control: 0, accounts: 0, segment: 0, format: 0 };
        // SAFETY: the library's function; a structure for the result.
        unsafe { (self.formats)(&mut formats) };
        formats
    }

    /// Goes to the IPC namespace of a process, only to look.
    pub fn enter_freely(&self, pid: u32) -> Result<(), Failure> {
        with_generous_privileges(|| self.enter(pid))
    }

    /// Goes to the IPC namespace of a process.
    pub fn enter(&self, pid: u32) -> Result<(), Failure> {
        let fail = |cause: &dyn std::fmt::Display, remedy: &str| {
            Err(Failure::new(Exit::Failed, format_args!("process {pid}"), cause, remedy))
        };
        let not_there = || fail(&"no such process", "see `mqns lsns` or ps(1) for one that is there");
        let file = match fs::File::open(namespace_of(pid)) {
            Ok(file) => file,
            Err(e) => {
                return match e.raw_os_error() {
                    Some(libc::ENOENT | libc::ESRCH) => not_there(),
                    Some(libc::EACCES | libc::EPERM) => {
                        fail(&"it may not be looked into: it is another user's, or protected", "do it as root")
                    }
                    _ => fail(&Cause(&e), "check /proc and the directory of the queues"),
                };
            }
        };
        let Err(error) = self.join(&file) else { return Ok(()) };
        match error.raw_os_error() {
            Some(libc::EPERM) => Err(not_privileged(format_args!("the IPC namespace of process {pid}"))),
            // It has ended meanwhile.
            Some(libc::EINVAL | libc::ENOENT | libc::ESRCH) => not_there(),
            _ => Err(directory_trouble(format_args!("the IPC namespace of process {pid}"), &error)),
        }
    }

    /// Goes to the IPC namespace of a namespace file.
    pub fn join(&self, file: &fs::File) -> io::Result<()> {
        // SAFETY: an open descriptor, no pointers.
        match unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWIPC) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Executes the program once more, in another environment.
    pub fn again(&self, library: &Library, environment: Environment) -> Result<Never, Failure> {
        again(library, environment)
    }

    /// The number of queues in the namespace of a descriptor of `/proc/PID/ns/ipc`.
    pub fn queues(&self, namespace: &OwnedFd) -> io::Result<u64> {
        // SAFETY: the library's function, which takes any descriptor.
        count(unsafe { (self.queues)(namespace.as_raw_fd()) })
    }

    /// What a path leads to as programs without the library see it, and as those with it do: queues are on
    /// devices that the kernel has not. `None`: it cannot be looked at.
    pub fn inodes(&self, path: &CStr) -> Option<(Inode, Inode)> {
        Some((look(self.statx, path)?, look(libc::statx, path)?))
    }

    /// The queues of the namespace that have a name.
    pub fn names(&self) -> io::Result<Vec<Named>> {
        unsafe extern "C" fn see(to: *mut c_void, entry: *const Entry) {
            // SAFETY: `to` is the list below; the library passes an entry with a name of that length.
            unsafe {
                let entry = &*entry;
                let name = std::slice::from_raw_parts(entry.name, entry.len).to_vec();
                (*to.cast::<Vec<Named>>()).push(Named { name, mode: entry.mode, uid: entry.uid, gid: entry.gid });
            }
        }
        let mut list: Vec<Named> = Vec::new();
        // SAFETY: the library's function, which calls `see` with the list before it returns.
        count(unsafe { (self.names)(see, (&raw mut list).cast()) })?;
        list.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(list)
    }

    /// What is charged to whom under RLIMIT_MSGQUEUE: uid and bytes.
    pub fn charged(&self) -> io::Result<Vec<(u32, u64)>> {
        unsafe extern "C" fn see(to: *mut c_void, uid: u32, bytes: u64) {
            // SAFETY: `to` is the list below.
            unsafe { (*to.cast::<Vec<(u32, u64)>>()).push((uid, bytes)) };
        }
        let mut list: Vec<(u32, u64)> = Vec::new();
        // SAFETY: the library's function, which calls `see` with the list before it returns.
        count(unsafe { (self.charged)(see, (&raw mut list).cast()) })?;
        list.sort_unstable();
        Ok(list)
    }

    /// The state of a queue that is open for reading, and who sleeps on it.
    pub fn state(&self, mqd: c_int) -> io::Result<(State, Vec<Sleeper>)> {
        let mut state = State::default();
        // As many as a queue has records for.
        let mut sleepers = vec![Sleeper::default(); 8192];
        // SAFETY: the library's function; a structure, and a list as long as said.
        count(unsafe { (self.state)(mqd, &mut state, sleepers.as_mut_ptr(), sleepers.len()) })?;
        sleepers.truncate(state.receivers as usize + state.senders as usize);
        Ok((state, sleepers))
    }

    /// The messages of a queue that is open for reading and holds up to `room`, in the order in which they
    /// would be received.
    pub fn messages(&self, mqd: c_int, room: usize) -> io::Result<Vec<Message>> {
        let mut messages = vec![Message::default(); room];
        // SAFETY: the library's function; a list as long as said.
        let there = count(unsafe { (self.messages)(mqd, messages.as_mut_ptr(), room) })?;
        messages.truncate(there as usize);
        in_order(&mut messages);
        Ok(messages)
    }

    /// A copy of one of them. `None`: it has been received meanwhile.
    pub fn message(&self, mqd: c_int, message: &Message) -> io::Result<Option<Vec<u8>>> {
        let mut copy = vec![0; message.len as usize];
        // SAFETY: the library's function; room for as many bytes as the message says that it has.
        match count(unsafe { (self.message)(mqd, message, copy.as_mut_ptr()) }) {
            Ok(len) => {
                copy.truncate(len as usize);
                Ok(Some(copy))
            }
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Begins to tap a queue that is open for reading and holds up to `room` messages, by a descriptor of its own; and
    /// those, in the order in which they would be received.
    pub fn tap(&self, mqd: c_int, room: usize) -> io::Result<(Tap, Vec<Message>)> {
        let (mut tap, mut messages) = (Tap::default(), vec![Message::default(); room]);
        // SAFETY: the library's function; a structure, and a list as long as said.
        let there = count(unsafe { (self.tap)(mqd, &mut tap, messages.as_mut_ptr(), room) })?;
        messages.truncate(there as usize);
        in_order(&mut messages);
        Ok((tap, messages))
    }

    /// Waits for what comes next, which goes to `to`, a buffer of `msgsize` bytes. `stop`: see [`crate::look`].
    pub fn tap_next(&self, tap: &mut Tap, stop: &AtomicU32, to: &mut [u8]) -> io::Result<(TapEvent, TappedMessage)> {
        let mut message = TappedMessage::default();
        // SAFETY: the library's function; structures, a word, and a buffer for the longest message.
        let event = count(unsafe { (self.tap_next)(tap, stop, &mut message, to.as_mut_ptr()) })?;
        let known = [TapEvent::Over, TapEvent::Message, TapEvent::Unlinked];
        Ok((known.into_iter().find(|&known| known as u64 == event).unwrap_or(TapEvent::Over), message))
    }

    /// Has those who tap the queue look whether they are to stop.
    pub fn tap_wake(&self, fd: c_int) {
        // SAFETY: the library's function, which takes any descriptor.
        unsafe { (self.tap_wake)(fd) };
    }

    /// Ends tapping: how many messages were missed that nothing has told of.
    pub fn tap_end(&self, tap: &Tap) -> io::Result<u64> {
        // SAFETY: the library's function; a structure.
        count(unsafe { (self.tap_end)(tap) })
    }

    /// Waits until nobody has the queue open but those who tap it.
    pub fn tap_alone(&self, fd: c_int) {
        // SAFETY: the library's function, which takes any descriptor.
        unsafe { (self.tap_alone)(fd) }
    }

    /// What a path leads to, as the kernel sees it: a queue's descriptor is a FIFO there, of which every queue has
    /// its own.
    pub fn inode(&self, path: &CStr) -> Option<Inode> {
        look(self.statx, path)
    }

    /// Ends the namespaces that were left by violence, and takes away queues without a name that nobody has
    /// open. Returns how many namespaces.
    pub fn collect(&self) -> Result<u64, Failure> {
        // SAFETY: the library's function.
        count(unsafe { (self.collect)() }).map_err(|e| directory_trouble("the directory of the queues", &e))
    }
}

/// As they would be received.
fn in_order(messages: &mut [Message]) {
    messages.sort_by_key(|message| (std::cmp::Reverse(message.priority), message.number));
}

/// Runs `act` as if `--privileges generous` had been given. What is the user's own anyway takes no privilege: a
/// new namespace, as a new directory (`--dir`) takes none, and those that have a name.
fn with_generous_privileges<T>(act: impl FnOnce() -> T) -> T {
    const VARIABLE: &str = "MQNS_PRIVILEGES";
    let before = env::var_os(VARIABLE);
    // SAFETY: this process has one thread.
    unsafe { env::set_var(VARIABLE, "generous") };
    let done = act();
    match before {
        // SAFETY: as above.
        Some(value) => unsafe { env::set_var(VARIABLE, value) },
        // SAFETY: as above.
        None => unsafe { env::remove_var(VARIABLE) },
    }
    done
}

fn look(statx: Statx, path: &CStr) -> Option<Inode> {
    // SAFETY: plain integers; zero is valid for all of them.
    let mut x: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: a NUL-terminated path, a structure for the result.
    let got = unsafe { statx(libc::AT_FDCWD, path.as_ptr(), 0, libc::STATX_INO, &mut x) };
    (got == 0).then_some((x.stx_dev_major, x.stx_dev_minor, x.stx_ino))
}

/// A count, or a negated errno.
fn count(result: isize) -> io::Result<u64> {
    u64::try_from(result).map_err(|_| io::Error::from_raw_os_error(i32::try_from(-result).unwrap_or(libc::EIO)))
}

/// `/proc/PID/ns/ipc`.
pub fn namespace_of(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/ns/ipc"))
}

pub fn not_privileged(object: impl std::fmt::Display) -> Failure {
    let cause = "not permitted without CAP_SYS_ADMIN";
    Failure::new(Exit::Failed, object, cause, "do it as root, or give `--privileges generous`")
}

/// The directory of the queues, or what is in it, has refused what was asked for. `object` is that, unless the directory
/// itself is to blame: then the message names the directory.
pub fn directory_trouble(object: impl std::fmt::Display, error: &io::Error) -> Failure {
    let variable = env::var_os("MQNS_DIR").unwrap_or_default();
    if !variable.is_empty() && Path::new(&variable).is_relative() {
        let object = format_args!("MQNS_DIR={}", variable.display());
        return Failure::new(Exit::Failed, object, "not an absolute path", "write it out from /, or use --dir");
    }
    if error.raw_os_error() == Some(libc::EACCES) {
        let dir = doctor::root(&Environment::own()).0;
        let remedy = "do it as the user whose queues they are, or name another directory by --dir (see `mqns doctor`)";
        return Failure::new(Exit::Failed, dir.display(), "this user may not use the queues in this directory", remedy);
    }
    let which = if variable.is_empty() { "/dev/shm".into() } else { variable.display().to_string() };
    let remedy = format_args!("check {which}, or name another directory by --dir (MQNS_LOG=stderr may say more)");
    Failure::new(Exit::Failed, object, Cause(error), remedy)
}

/// Permission was denied for something: the failure, if that is so because the caller is kept out of all that is in the
/// directory.
pub fn kept_out() -> Option<Failure> {
    // Whoever may use a namespace may read its limits.
    let error = fs::File::open("/proc/sys/fs/mqueue/msg_max").err()?;
    (error.raw_os_error() == Some(libc::EACCES)).then(|| directory_trouble("the directory of the queues", &error))
}

/// Executes this program again, with the same arguments and the library.
fn again(library: &Library, mut environment: Environment) -> Result<Never, Failure> {
    library.check(Path::new(OURSELVES))?;
    environment.preload(library);
    environment.set(MARKER, "1");
    let arguments: Vec<OsString> = env::args_os().collect();
    Ready { program: OURSELVES.into(), arguments, environment }.execute()
}
