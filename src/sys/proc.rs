//! What proc(5) tells of other processes.

use super::path::{Fd, Path, each_entry};
use crate::abi::Result;
use crate::syscall;

/// Calls `see` with each line of a file, without its end; of longer ones the last 4 KiB. Whether there
/// was any.
#[inline(never)]
pub fn each_line(file: &Fd, mut see: impl FnMut(&[u8])) -> bool {
    let mut buffer = [0u8; 8192];
    let mut have = 0;
    let mut any = false;
    loop {
        // SAFETY: the rest of the buffer is as long as said.
        let got = unsafe { syscall!(SYS_read, file.0, buffer.as_mut_ptr().add(have), buffer.len() - have) };
        let Ok(got @ 1..) = got else { return any };
        have += got;
        let mut from = 0;
        while let Some(len) = buffer[from..have].iter().position(|&b| b == b'\n') {
            any = true;
            see(&buffer[from..from + len]);
            from += len + 1;
        }
        if from == 0 && have == buffer.len() {
            from = have / 2;
        }
        buffer.copy_within(from..have, 0);
        have -= from;
    }
}

/// Calls `see` with the process id, in decimal, of each process that can be seen, until it returns true.
/// Whether it did.
pub fn any_process(mut see: impl FnMut(&[u8]) -> bool) -> bool {
    let proc = Path::new(&[b"/proc"]).and_then(|proc| proc.open_own(libc::O_RDONLY | libc::O_DIRECTORY));
    let Ok(proc) = proc else { return false };
    super::path::each_entry_until(&proc, |name, _| !(name.iter().all(u8::is_ascii_digit) && see(name))).is_some()
}

/// `/proc/PID/NAME`.
///
/// # Errors
///
/// ENAMETOOLONG.
pub fn path(pid: &[u8], name: &[u8]) -> Result<Path> {
    Path::new(&[b"/proc/", pid, b"/", name])
}

/// Calls `see` with the number of each descriptor of a process.
pub fn each_descriptor(pid: &[u8], mut see: impl FnMut(&[u8])) {
    if let Ok(dir) = path(pid, b"fd").and_then(|path| path.open_own(libc::O_RDONLY | libc::O_DIRECTORY)) {
        each_entry(&dir, &mut see);
    }
}

/// Whether a file contains these bytes.
///
/// # Errors
///
/// Those of open(2) and read(2).
pub fn mentions(file: &Path, what: &[u8]) -> Result<bool> {
    let file = file.open_own(libc::O_RDONLY)?;
    let mut buffer = [0u8; 4096];
    let mut kept = 0;
    loop {
        // SAFETY: the rest of the buffer is as long as said.
        let got = unsafe { syscall!(SYS_read, file.0, buffer.as_mut_ptr().add(kept), buffer.len() - kept) };
        let have = kept + got?;
        if have == kept {
            return Ok(false);
        }
        if buffer[..have].windows(what.len()).any(|window| window == what) {
            return Ok(true);
        }
        kept = have.min(what.len());
        buffer.copy_within(have - kept..have, 0);
    }
}
