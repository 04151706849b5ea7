//! `MQNS_LOG`: says why a call was refused, in plain words and with the numbers.
//!
//! `MQNS_LOG=1` or `stderr` writes to standard error; an absolute path appends to that file. No
//! allocation, one write a line.

use core::fmt::Write;

use crate::ns::environment;
use crate::sys::path::Path;
use crate::syscall;

struct Line {
    bytes: [u8; 512],
    len: usize,
}

impl Write for Line {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        let room = self.bytes.len() - 1 - self.len;
        let take = s.len().min(room);
        self.bytes[self.len..self.len + take].copy_from_slice(&s.as_bytes()[..take]);
        self.len += take;
        Ok(())
    }
}

impl Line {
    fn new(text: core::fmt::Arguments<'_>) -> Line {
        let mut line = Line { bytes: [0; 512], len: 0 };
        let _ = write!(line, "mqns[{}]: {text}", crate::sys::getpid());
        line.bytes[line.len] = b'\n';
        line
    }

    fn write_to(&self, fd: i32) {
        // SAFETY: the text and the newline after it lie in the array.
        let _ = unsafe { syscall!(SYS_write, fd, self.bytes.as_ptr(), self.len + 1) };
    }
}

/// Writes a line, if the user has asked for it.
#[cold]
pub fn refused(why: core::fmt::Arguments<'_>) {
    let Some(target) = environment(c"MQNS_LOG").filter(|t| !t.is_empty() && *t != b"0") else { return };
    let line = Line::new(why);
    if target[0] == b'/' {
        let Ok(path) = Path::new(&[target]) else { return };
        let flags = libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT | libc::O_NOCTTY | libc::O_NONBLOCK;
        if let Ok(file) = path.open(flags, 0o600) {
            line.write_to(file.0);
        }
    } else {
        line.write_to(2);
    }
}

/// Says on standard error where and why the library gives up.
#[cfg(not(test))]
#[cold]
pub fn panicked(info: &core::panic::PanicInfo<'_>) {
    Line::new(format_args!("{info}")).write_to(2);
}
