//! Queues by name, opened by libc's mq_* calls, which are the library's here: with the rights of the caller.

use std::ffi::{CString, OsString};
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStringExt;

use super::namespace::second_image;
use super::preloaded::{Preloaded, directory_trouble};
use super::table::printable;
use super::{Exit, Failure, Where};

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
            Some(libc::EACCES) => {
                self.refused("permission denied", "see `mqns ls` for its owner and mode; root may use every queue")
            }
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
