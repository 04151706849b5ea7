//! Queues by name, opened by libc's mq_* calls, which are the library's here: with the rights of the caller.

use std::ffi::{CString, OsString};
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStringExt;

use super::namespace::second_image;
use super::preloaded::{Preloaded, directory_trouble, kept_out};
use super::table::printable;
use super::{Cause, Exit, Failure, Mk, Rm, Where, limits};

/// The library here, in the namespace that the arguments name.
pub fn go(to: &Where) -> Result<Preloaded, Failure> {
    second_image(to.ns.as_ref(), to.dir.as_deref(), to.privileges)
}

/// A queue's name, with its leading slash.
#[derive(Clone, PartialEq, Eq)]
pub struct Name(CString);

impl From<OsString> for Name {
    fn from(text: OsString) -> Name {
        let text = text.into_vec();
        Name::new(text.strip_prefix(b"/").unwrap_or(&text))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(self.0.as_bytes()))
    }
}

impl Name {
    /// Of one without the slash.
    pub fn new(rest: &[u8]) -> Name {
        // Neither arguments nor directories have names with a NUL.
        let text: Vec<u8> = b"/".iter().chain(rest).copied().filter(|&b| b != 0).collect();
        Name(CString::new(text).unwrap_or_default())
    }

    /// With the slash.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Without the slash.
    pub fn rest(&self) -> &[u8] {
        self.0.as_bytes().get(1..).unwrap_or_default()
    }

    /// Whether a queue can have it, as far as its characters go.
    fn is_possible(&self) -> bool {
        let rest = self.rest();
        !rest.is_empty() && rest != b"." && rest != b".." && !rest.contains(&b'/')
    }

    /// A call with this queue has failed.
    pub fn refused(&self, cause: impl fmt::Display, remedy: impl fmt::Display) -> Failure {
        Failure::new(Exit::Refused, self, cause, remedy)
    }

    /// The same, for what mq_open(3) and mq_unlink(3) say of names.
    pub fn failed(&self, error: &io::Error) -> Failure {
        match error.raw_os_error() {
            _ if !self.is_possible() => {
                self.refused("no queue can have this name", "name one as `mqns ls` shows them: one slash, in front")
            }
            Some(libc::ENOENT) => {
                self.refused("no such queue in this namespace", "see `mqns ls` (--ns, --dir), or make it: mqns mk")
            }
            Some(libc::EACCES) => kept_out().unwrap_or_else(|| {
                self.refused("permission denied", "see `mqns ls` for its owner and mode; root may use every queue")
            }),
            Some(libc::ENAMETOOLONG) => self.refused("the name is longer than 255 bytes", "shorten it"),
            Some(libc::EROFS) => {
                self.refused("the queues' file system is mounted read-only", "remount it: mount -o remount,rw")
            }
            Some(libc::EIO) => self.refused("the queue is damaged", "take it away: mqns rm"),
            _ => directory_trouble(self, error),
        }
    }
}

/// A queue that is open.
pub struct Queue {
    pub mqd: libc::mqd_t,
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: a descriptor of our own.
        unsafe { libc::mq_close(self.mqd) };
    }
}

/// mq_attr(3), as far as it says something.
#[derive(Clone, Copy)]
pub struct Attributes {
    pub maxmsg: u64,
    pub msgsize: u64,
    pub messages: u64,
}

impl Queue {
    /// Opens a queue that is there.
    pub fn open(name: &Name, flags: i32) -> io::Result<Queue> {
        // SAFETY: a NUL-terminated name; no further arguments without O_CREAT.
        match unsafe { libc::mq_open(name.0.as_ptr(), flags) } {
            -1 => Err(io::Error::last_os_error()),
            mqd => Ok(Queue { mqd }),
        }
    }

    pub fn attributes(&self) -> io::Result<Attributes> {
        // SAFETY: all zeros is a value of this plain C structure.
        let mut attr: libc::mq_attr = unsafe { std::mem::zeroed() };
        // SAFETY: a structure for the result.
        if unsafe { libc::mq_getattr(self.mqd, &mut attr) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let number = |value: libc::c_long| u64::try_from(value).unwrap_or(0);
        Ok(Attributes {
            maxmsg: number(attr.mq_maxmsg),
            msgsize: number(attr.mq_msgsize),
            messages: number(attr.mq_curmsgs),
        })
    }
}

/// A failure that is not one of a queue's name.
pub fn trouble(name: &Name, error: &io::Error) -> Failure {
    name.refused(Cause(error), "see `mqns stat` of it, and `mqns limits`")
}

/// Makes a queue.
pub fn mk(mk: Mk) -> Result<(), Failure> {
    let library = go(&mk.at)?;
    let (name, mode) = (&mk.queue, mk.mode.unwrap_or(0o666));
    let value = |given: Option<i64>, default, most| match given {
        Some(value) => Ok(value),
        None => Ok::<i64, Failure>(limits::get(default)?.min(limits::get(most)?).into()),
    };
    // SAFETY: all zeros is a value of this plain C structure.
    let mut attr: libc::mq_attr = unsafe { std::mem::zeroed() };
    attr.mq_maxmsg = value(mk.maxmsg, "msg_default", "msg_max")?;
    attr.mq_msgsize = value(mk.msgsize, "msgsize_default", "msgsize_max")?;
    if mk.mode.is_some() {
        // As mkfifo(1): what is said holds.
        // SAFETY: no pointers; this process makes nothing else.
        unsafe { libc::umask(0) };
    }
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
    // SAFETY: a NUL-terminated name, a mode, and a structure with the attributes.
    let mqd = unsafe { libc::mq_open(name.0.as_ptr(), flags, mode, &raw const attr) };
    if mqd != -1 {
        drop(Queue { mqd });
        return Ok(());
    }
    let error = io::Error::last_os_error();
    let attributes = Attributes { maxmsg: attr.mq_maxmsg as u64, msgsize: attr.mq_msgsize as u64, messages: 0 };
    Err(match error.raw_os_error() {
        Some(libc::EEXIST) => name.refused("there is one already", "take another name, or `mqns rm` it first"),
        Some(libc::EINVAL) => {
            let (most, longest) = (limits::get("msg_max")?, limits::get("msgsize_max")?);
            let cause = format_args!(
                "{} messages of {} bytes are not within msg_max ({most}) and msgsize_max ({longest})",
                attr.mq_maxmsg, attr.mq_msgsize
            );
            name.refused(cause, "make it smaller, raise them (mqns limits msg_max=N), or set MQNS_LIMITS=generous")
        }
        Some(libc::EMFILE) => {
            let (used, limit) = (limits::used(&library)?, limits::rlimit().unwrap_or(u64::MAX));
            let cause = format_args!(
                "RLIMIT_MSGQUEUE: it takes {} bytes, and {used} of {limit} are charged already",
                super::look::cost(attributes)
            );
            name.refused(cause, "see `mqns limits`; remove queues, raise it (ulimit -q), or set MQNS_LIMITS=generous")
        }
        Some(libc::ENOSPC) => {
            let (there, most) = (limits::queues(&library)?, limits::get("queues_max")?);
            let is_limit = u64::try_from(most).is_ok_and(|most| there >= most);
            if is_limit {
                name.refused(format_args!("there are {there} queues, and queues_max is {most}"), "see `mqns limits`")
            } else {
                name.refused(Cause(&error), "make room in the directory of the queues")
            }
        }
        _ => name.failed(&error),
    })
}

/// For clap: an octal mode.
pub fn mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8).ok().filter(|&mode| mode <= 0o7777).ok_or_else(|| "not an octal mode".into())
}

/// Takes queues' names away, of as many as it can; the first failure.
pub fn rm(rm: Rm) -> Result<(), Failure> {
    go(&rm.at)?;
    let mut first = Ok(());
    for name in &rm.queues {
        // SAFETY: a NUL-terminated name.
        if unsafe { libc::mq_unlink(name.0.as_ptr()) } == 0 {
            continue;
        }
        let failure = match io::Error::last_os_error() {
            e if e.raw_os_error() == Some(libc::EACCES) && name.is_possible() => kept_out().unwrap_or_else(|| {
                name.refused("it is another user's", "only its owner and root may take it away, whatever its mode")
            }),
            e => name.failed(&e),
        };
        match first {
            Ok(()) => first = Err(failure),
            Err(_) => failure.say(),
        }
    }
    first
}
