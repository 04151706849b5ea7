//! The namespace of any task, as its directory in proc(5) tells: by the mappings that make it a
//! member ([`super::member`]). Who may read them may also read the kernel's `ns/ipc`.

use core::ffi::c_char;

use super::across;
use super::member::SECRET;
use crate::abi::{Errno, Result};
use crate::sys::path::{Fd, Path};
use crate::sys::proc::each_line;
use crate::syscall;

/// The task's directory in proc(5), as a prefix of a path that is relative to `dir`.
#[derive(Clone, Copy)]
pub struct Task {
    dir: i32,
    prefix: Path,
}

impl Task {
    /// The task of which a path names the ipc namespace: `…/ns/ipc`, or `ipc` in a directory `ns`.
    pub fn of_path(dir: i32, path: &[u8]) -> Option<Task> {
        let before = path.strip_suffix(b"ipc")?;
        let mut above = before;
        while let Some(shorter) = above.strip_suffix(b"/").or(above.strip_suffix(b"/.")) {
            above = shorter;
        }
        let prefix = if before.is_empty() || above == b"." {
            &b"../"[..]
        } else {
            above.strip_suffix(b"ns").filter(|prefix| prefix.is_empty() || prefix.ends_with(b"/"))?
        };
        Some(Task { dir, prefix: Path::new(&[prefix]).ok()? })
    }

    /// The task of a process id.
    pub fn of_pid(pid: u64) -> Result<Task> {
        let mut prefix = Path::new(&[b"/proc/"])?;
        prefix.push_decimal(pid)?;
        prefix.push(b"/")?;
        Ok(Task { dir: libc::AT_FDCWD, prefix })
    }

    /// Whether there is such a task.
    pub fn exists(&self) -> bool {
        self.open(b"maps").is_ok()
    }

    fn path(&self, name: &[u8]) -> Result<Path> {
        let mut path = self.prefix;
        path.push(name)?;
        Ok(path)
    }

    fn open(&self, name: &[u8]) -> Result<Fd> {
        self.path(name)?.open_at(self.dir, libc::O_RDONLY)
    }

    /// The directory of the virtual namespace that the task is in, if it is in one.
    ///
    /// # Errors
    ///
    /// ENOENT: it has ended. EACCES: not for this user.
    pub fn namespace(&self) -> Result<Option<Path>> {
        for _ in 0..1000 {
            match self.namespace_now() {
                // In the middle of exec.
                Err(Errno::EAGAIN) => {}
                other => return other,
            }
            // SAFETY: no arguments.
            let _ = unsafe { syscall!(SYS_sched_yield) };
        }
        Err(Errno::ENOENT)
    }

    /// Whether it has ended, and waits to be reaped.
    pub fn is_zombie(&self) -> bool {
        let mut zombie = false;
        if let Ok(stat) = self.open(b"stat") {
            each_line(&stat, |line| {
                let name_ends = line.iter().rposition(|&b| b == b')').unwrap_or(0);
                zombie = line[name_ends..].starts_with(b") Z");
            });
        }
        zombie
    }

    /// A task without memory: it is ending (ENOENT), between two images (EAGAIN), or the kernel's own.
    fn without_memory(&self) -> Result<Option<Path>> {
        const PF_EXITING: u64 = 4;
        const PF_KTHREAD: u64 = 0x0020_0000;
        let mut flags = PF_EXITING;
        each_line(&self.open(b"stat").map_err(|_| Errno::ENOENT)?, |line| {
            // Behind the name, in parentheses: state, five ids, flags.
            let rest = &line[line.iter().rposition(|&b| b == b')').unwrap_or(0)..];
            let field = rest.split(|&b| b == b' ').nth(7).and_then(|field| core::str::from_utf8(field).ok());
            flags = field.and_then(|text| text.parse().ok()).unwrap_or(PF_EXITING);
        });
        match flags {
            _ if flags & PF_KTHREAD != 0 => Ok(None),
            _ if flags & PF_EXITING != 0 => Err(Errno::ENOENT),
            _ => Err(Errno::EAGAIN),
        }
    }

    fn namespace_now(&self) -> Result<Option<Path>> {
        let mut found = self.mapped()?;
        if found.is_none() {
            found = self.bridge();
        }
        if found.is_none() {
            // A new image may have crossed the bridge just now.
            found = self.mapped()?;
        }
        let Some(dir) = found.filter(|dir| id_of(dir.as_bytes()).is_some()) else { return Ok(None) };
        if dir.stat().is_err() {
            // Mapped in a mount namespace that is no more: the path is one within the file system.
            let name = dir.as_bytes().rsplit(|&b| b == b'/').next().unwrap_or(b"");
            return Ok(Some(super::life::directory_named(name).unwrap_or(dir)));
        }
        Ok(Some(dir))
    }

    /// The directory in which the task is a member by a mapping.
    fn mapped(&self) -> Result<Option<Path>> {
        let maps = match self.open(b"maps") {
            Err(Errno::ESRCH) => return Err(Errno::ENOENT),
            other => other?,
        };
        let mut process = None;
        let mut own = None;
        let mut tid = None;
        let mut leaving = false;
        let any = each_line(&maps, |line| {
            let Some((offset, dir)) = membership(line) else { return };
            if offset == super::member::LEAVING {
                leaving = true;
            } else if offset == 0 {
                process = Path::new(&[dir]).ok();
            } else if offset >> 12 == *tid.get_or_insert_with(|| self.innermost_id().unwrap_or(0)) {
                own = Path::new(&[dir]).ok();
            }
        });
        let mut byte = 0u8;
        // SAFETY: one byte to a local.
        let is_there = unsafe { syscall!(SYS_pread64, maps.0, &raw mut byte, 1, 0) } == Ok(1);
        if !any || !is_there {
            // What was read may be a part only: the memory has gone meanwhile.
            return self.without_memory();
        }
        if leaving {
            return Err(Errno::ENOENT);
        }
        Ok(own.or(process))
    }

    /// The task's id as it sees it itself.
    fn innermost_id(&self) -> Option<u64> {
        let mut id = None;
        each_line(&self.open(b"status").ok()?, |line| {
            if let Some(ids) = line.strip_prefix(b"NSpid:") {
                let last = ids.rsplit(|&b| b == b'\t').next();
                id = last.and_then(|digits| core::str::from_utf8(digits).ok()).and_then(|text| text.parse().ok());
            }
        });
        id
    }

    /// In the middle of exec, or in a program without the library, the descriptor that carries the
    /// membership over.
    fn bridge(&self) -> Option<Path> {
        for fd in across::LOWEST..across::HIGHEST {
            let mut name = self.path(b"fd/").ok()?;
            name.push_decimal(fd as u64).ok()?;
            let target = name.read_link_at(self.dir).ok()?;
            let Some(dir) = target.as_bytes().strip_suffix(b"/control") else { continue };
            let mut info = self.path(b"fdinfo/").ok()?;
            info.push_decimal(fd as u64).ok()?;
            let mut marked = false;
            each_line(&info.open_at(self.dir, libc::O_RDONLY).ok()?, |line| {
                let flags = line.strip_prefix(b"flags:\t").and_then(|octal| core::str::from_utf8(octal).ok());
                let flags = flags.and_then(|octal| i32::from_str_radix(octal, 8).ok()).unwrap_or(0);
                marked |= flags & across::FLAGS == across::FLAGS;
            });
            if marked {
                return Path::new(&[dir]).ok();
            }
        }
        None
    }

    /// readlink(2) of its `ns/ipc` by the kernel.
    pub fn kernel_link(&self) -> Result<Path> {
        self.path(b"ns/ipc")?.read_link_at(self.dir)
    }
}

/// The id in the name of a virtual namespace's directory, `ROOT/uUID/nID-SECRET`.
pub fn id_of(dir: &[u8]) -> Option<u64> {
    id_of_name(&dir[1 + dir.iter().rposition(|&b| b == b'/')?..])
}

/// The same, of its last component.
pub fn id_of_name(name: &[u8]) -> Option<u64> {
    let (number, secret) = name.split_at(name.len().checked_sub(1 + SECRET)?);
    if secret[0] != b'-' || !secret[1..].iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    core::str::from_utf8(number.strip_prefix(b"n")?).ok()?.parse().ok()
}

/// Offset and directory, if a line of `maps` is a membership: `START-END ---s OFFSET DEV INODE PATH`.
fn membership(line: &[u8]) -> Option<(u64, &[u8])> {
    let line = line.strip_suffix(b" (deleted)").unwrap_or(line);
    let dir = line.strip_suffix(b"/control")?;
    let mut fields = dir.split(|&b| b == b' ').filter(|field| !field.is_empty());
    let (_, access, offset) = (fields.next()?, fields.next()?, fields.next()?);
    if access != b"---s" {
        return None;
    }
    let offset = u64::from_str_radix(core::str::from_utf8(offset).ok()?, 16).ok()?;
    Some((offset, &dir[dir.iter().position(|&b| b == b'/')?..]))
}

/// The process that a pidfd refers to (`Pid:` in its fdinfo); nothing if the descriptor is none.
///
/// # Errors
///
/// ESRCH: it has been reaped.
pub fn process_of_pidfd(fd: i32) -> Result<Option<u64>> {
    let mut path = Path::new(&[b"/proc/thread-self/fdinfo/"])?;
    path.push_decimal(fd as u64)?;
    let mut pid = None;
    each_line(&path.open(libc::O_RDONLY, 0)?, |line| {
        if let Some(text) = line.strip_prefix(b"Pid:\t") {
            pid = core::str::from_utf8(text).ok().and_then(|text| text.trim().parse::<i64>().ok());
        }
    });
    match pid {
        Some(pid) if pid < 0 => Err(Errno::ESRCH),
        Some(pid) => Ok(Some(pid as u64)),
        None => Ok(None),
    }
}

/// `ipc:[ID]`, as readlink(2) shows a namespace.
///
/// # Errors
///
/// None: it is short.
pub fn link_text(id: u64) -> Result<Path> {
    let mut text = Path::new(&[b"ipc:["])?;
    text.push_decimal(id)?;
    text.push(b"]")?;
    Ok(text)
}

/// The user's path, as far as it can be one of these: its last bytes.
///
/// # Safety
///
/// `path` is NUL-terminated, which the kernel has just found out.
pub unsafe fn is_candidate(path: *const c_char) -> bool {
    if path.is_null() {
        return false;
    }
    // SAFETY: the caller's contract.
    let bytes = unsafe { core::ffi::CStr::from_ptr(path) }.to_bytes();
    bytes.ends_with(b"ipc") && (bytes.len() == 3 || bytes.ends_with(b"/ipc"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_maps() {
        let dir = "/dev/shm/mqns/u0/n123-0123456789abcdef0123456789abcdef";
        let line = format!("7f0000000000-7f0000001000 ---s 00005000 00:1b 77                         {dir}/control");
        assert_eq!(membership(line.as_bytes()), Some((0x5000, dir.as_bytes())));
        assert_eq!(membership(format!("{line} (deleted)").as_bytes()), Some((0x5000, dir.as_bytes())));
        assert_eq!(membership(line.replace("---s", "rw-s").as_bytes()), None);
        assert_eq!(id_of(dir.as_bytes()), Some(123));
        assert_eq!(id_of(b"/dev/shm/mqns/i123"), None);
        assert_eq!(id_of(dir.replace("/n", "/x").as_bytes()), None);
    }

    #[test]
    fn paths_that_name_a_namespace() {
        for path in ["/proc/self/ns/ipc", "ns/ipc", "ipc", "self/ns/ipc", "./ipc", "./ns/../ns//ipc"] {
            assert!(Task::of_path(0, path.as_bytes()).is_some(), "{path}");
        }
        for path in ["/proc/self/ns/pid", "xns/ipc", "aipc", ""] {
            assert!(Task::of_path(0, path.as_bytes()).is_none(), "{path}");
        }
    }
}
