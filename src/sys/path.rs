//! Paths in a fixed buffer, and the file calls made on them: no allocation, no libc.

use core::ffi::c_char;

use crate::abi::{Errno, Result};
use crate::syscall;

/// Longest path we build, bytes with the NUL.
const MAX: usize = 768;

/// A NUL-terminated path under construction.
#[derive(Clone, Copy)]
pub struct Path {
    bytes: [u8; MAX],
    len: usize,
    /// Where the kernel begins: the working directory, or [`Path::from`]'s.
    dir: i32,
    /// How much of the path that saves it.
    skip: u16,
    /// If not 0: how much of the path is trusted. See [`Path::beneath`].
    trusted: u16,
}

impl Path {
    /// A path of these parts.
    ///
    /// # Errors
    ///
    /// ENAMETOOLONG.
    #[inline(always)]
    pub fn new(parts: &[&[u8]]) -> Result<Path> {
        Path::beneath_new(parts, 0)
    }

    /// The same, [`Path::beneath`] a directory.
    ///
    /// # Errors
    ///
    /// ENAMETOOLONG.
    pub fn beneath_new(parts: &[&[u8]], trusted: usize) -> Result<Path> {
        let mut path = Path::empty();
        path.trusted = trusted as u16;
        for part in parts {
            path.push(part)?;
        }
        Ok(path)
    }

    /// One without anything in it.
    pub fn empty() -> Path {
        Path { bytes: [0; MAX], len: 0, dir: libc::AT_FDCWD, skip: 0, trusted: 0 }
    }

    /// The same file for the methods of this type, found from a directory whose path, with a slash, is the first `skip`
    /// bytes: the kernel walks less far. For as long as that is open.
    pub fn from(mut self, dir: &Fd, skip: usize) -> Path {
        self.dir = dir.0;
        self.skip = skip.min(self.len) as u16;
        self
    }

    /// The same file for the methods of this type that do not say otherwise, found without following any symbolic link
    /// behind the first `trusted` bytes, which name a directory: what is beneath it others may rename, and put links
    /// in its place, at any moment. Each use walks there anew, by a descriptor for each directory.
    pub fn beneath(mut self, trusted: usize) -> Path {
        self.trusted = trusted as u16;
        self
    }

    /// Calls `act` with where the kernel shall begin, and the path from there.
    #[inline(always)]
    fn reach<T>(&self, act: impl FnOnce(i32, *const c_char) -> Result<T>) -> Result<T> {
        if self.trusted == 0 { act(self.dir, self.at()) } else { self.walk(act) }
    }

    /// [`Path::reach`] of a path that has been [`Path::beneath`] a directory: with the last directory on it, and the last
    /// component.
    #[cold]
    #[inline(never)]
    fn walk<T>(&self, act: impl FnOnce(i32, *const c_char) -> Result<T>) -> Result<T> {
        let (bytes, trusted) = (self.as_bytes(), self.trusted as usize);
        let last = bytes.iter().rposition(|&b| b == b'/').filter(|&at| at >= trusted).ok_or(Errno::EACCES)?;
        let mut dir = Path::new(&[&bytes[..trusted]])?.open_own(libc::O_PATH | libc::O_DIRECTORY)?;
        for name in bytes[trusted..last].split(|&b| b == b'/').filter(|name| !name.is_empty()) {
            if name == b".." {
                return Err(Errno::EACCES);
            }
            let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
            let name = Path::new(&[name])?;
            dir = match Fd::open_at(dir.0, name.as_ptr(), flags) {
                // A link, as a rule.
                Err(Errno::ENOTDIR | Errno::ELOOP) => return Err(Errno::EACCES),
                other => other?,
            };
        }
        act(dir.0, self.bytes[last + 1..].as_ptr().cast())
    }

    /// Appends bytes as they are.
    pub fn push(&mut self, part: &[u8]) -> Result<()> {
        let end = self.len + part.len();
        if end >= MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        self.bytes[self.len..end].copy_from_slice(part);
        self.bytes[end] = 0;
        self.len = end;
        Ok(())
    }

    /// Appends a number in hexadecimal.
    pub fn push_hex(&mut self, value: u64) -> Result<()> {
        let digits = (64 - (value | 1).leading_zeros() as usize).div_ceil(4);
        for at in (0..digits).rev() {
            self.push(&[b"0123456789abcdef"[(value >> (4 * at) & 15) as usize]])?;
        }
        Ok(())
    }

    /// Appends a number as 16 hexadecimal digits.
    pub fn push_hex16(&mut self, value: u64) -> Result<()> {
        self.push(&core::array::from_fn::<u8, 16, _>(|at| b"0123456789abcdef"[(value >> (60 - 4 * at) & 15) as usize]))
    }

    /// Appends a number in decimal.
    pub fn push_decimal(&mut self, value: u64) -> Result<()> {
        let mut text = [0u8; 20];
        let n = super::write_decimal(&mut text, value);
        self.push(&text[..n])
    }

    /// Without the NUL.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// For the kernel.
    pub fn as_ptr(&self) -> *const c_char {
        self.bytes.as_ptr().cast()
    }

    /// For the kernel, from `self.dir`.
    fn at(&self) -> *const c_char {
        self.bytes[self.skip as usize..].as_ptr().cast()
    }

    /// openat(2); `O_CLOEXEC` always.
    #[inline]
    pub fn open(&self, flags: i32, mode: u32) -> Result<Fd> {
        if self.trusted != 0 {
            return self.open_beneath(flags | libc::O_CLOEXEC, mode);
        }
        // SAFETY: the path is NUL-terminated.
        let fd = unsafe { syscall!(SYS_openat, self.dir, self.at(), flags | libc::O_CLOEXEC, mode)? };
        Ok(Fd(fd as i32))
    }

    /// A new file in the directory of this path, without a name: [`Fd::name`] gives it one.
    ///
    /// # Errors
    ///
    /// EOPNOTSUPP, EISDIR: the file system, or the kernel, has no such files.
    pub fn open_nameless(&self, mode: u32) -> Result<Fd> {
        let end = self.as_bytes().iter().rposition(|&b| b == b'/').ok_or(Errno::EINVAL)?;
        let mut dir = Path::new(&[&self.as_bytes()[..end]])?;
        // Of the trusted directory itself nothing is beneath that could be a link.
        dir.trusted = if end > self.trusted as usize { self.trusted } else { 0 };
        dir.open(libc::O_TMPFILE | libc::O_RDWR | if dir.trusted != 0 { libc::O_NOFOLLOW } else { 0 }, mode)
    }

    #[cold]
    #[inline(never)]
    fn open_beneath(&self, flags: i32, mode: u32) -> Result<Fd> {
        if flags & (libc::O_NOFOLLOW | libc::O_EXCL) == 0 {
            return self.open_held(flags, mode);
        }
        // SAFETY: the path is NUL-terminated.
        self.walk(|dir, at| Ok(Fd(unsafe { syscall!(SYS_openat, dir, at, flags, mode)? } as i32)))
    }

    /// The same of what exists and is no link, without O_NOFOLLOW, which would be seen in the descriptor's flags.
    #[cold]
    fn open_held(&self, flags: i32, mode: u32) -> Result<Fd> {
        let held = self.reach(|dir, at| Fd::open_at(dir, at, libc::O_PATH | libc::O_NOFOLLOW))?;
        if held.stat()?.st_mode & libc::S_IFMT == libc::S_IFLNK {
            return Err(Errno::ELOOP);
        }
        held.link()?.open(flags & !libc::O_CREAT, mode)
    }

    /// openat(2) of what exists, from a directory.
    pub fn open_at(&self, dir: i32, flags: i32) -> Result<Fd> {
        // SAFETY: the path is NUL-terminated.
        let fd = unsafe { syscall!(SYS_openat, dir, self.as_ptr(), flags | libc::O_CLOEXEC, 0)? };
        Ok(Fd(fd as i32))
    }

    /// readlinkat(2).
    pub fn read_link_at(&self, dir: i32) -> Result<Path> {
        let mut target = Path::empty();
        // SAFETY: the buffer is as long as said, less one for the NUL, which is there already.
        let got = unsafe { syscall!(SYS_readlinkat, dir, self.as_ptr(), target.bytes.as_mut_ptr(), MAX - 1)? };
        target.len = got;
        Ok(target)
    }

    /// [`Path::open`] of a file of our own, which must succeed even if the program has used up its
    /// descriptors: the soft limit is raised for the moment, if the hard one allows.
    pub fn open_own(&self, flags: i32) -> Result<Fd> {
        match self.open(flags, 0) {
            Err(Errno::EMFILE) => with_more_descriptors(|| self.open(flags, 0)),
            other => other,
        }
    }

    /// mkdirat(2), then the mode exactly (umask or not); an existing directory is left as it is.
    pub fn make_dir(&self, mode: u32) -> Result<()> {
        match self.make_new_dir(mode) {
            Err(Errno::EEXIST) => Ok(()),
            other => other,
        }
    }

    /// mkdirat(2) of a directory that must not exist, then the mode exactly.
    pub fn make_new_dir(&self, mode: u32) -> Result<()> {
        // SAFETY: the path is NUL-terminated.
        self.reach(|dir, at| unsafe { syscall!(SYS_mkdirat, dir, at, mode & 0o777) })?;
        // Others may have put something else in its place, if the directory above is theirs.
        let made = self.open_own(libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW)?;
        if made.stat()?.st_mode & 0o7777 == mode { Ok(()) } else { made.set_mode(mode) }
    }

    /// rmdir(2).
    pub fn remove_dir(&self) -> Result<()> {
        // SAFETY: the path is NUL-terminated.
        self.reach(|dir, at| unsafe { syscall!(SYS_unlinkat, dir, at, libc::AT_REMOVEDIR) }).map(|_| ())
    }

    /// fchmodat(2), which follows links, whatever [`Path::beneath`] says.
    pub fn chmod(&self, mode: u32) -> Result<()> {
        // SAFETY: the path is NUL-terminated.
        unsafe { syscall!(SYS_fchmodat, self.dir, self.at(), mode) }.map(|_| ())
    }

    /// lchown(2).
    pub fn chown(&self, uid: u32, gid: u32) -> Result<()> {
        // SAFETY: the path is NUL-terminated.
        self.reach(|dir, at| unsafe { syscall!(SYS_fchownat, dir, at, uid, gid, libc::AT_SYMLINK_NOFOLLOW) })
            .map(|_| ())
    }

    /// unlinkat(2).
    pub fn unlink(&self) -> Result<()> {
        // SAFETY: the path is NUL-terminated.
        self.reach(|dir, at| unsafe { syscall!(SYS_unlinkat, dir, at, 0) }).map(|_| ())
    }

    /// link(2).
    pub fn link(&self, to: &Path) -> Result<()> {
        // SAFETY: both paths are NUL-terminated.
        self.reach(|dir, at| to.reach(|to_dir, to_at| unsafe { syscall!(SYS_linkat, dir, at, to_dir, to_at, 0) }))
            .map(|_| ())
    }

    /// renameat2(2); `replace` is false: EEXIST if the target exists.
    pub fn rename(&self, to: &Path, replace: bool) -> Result<()> {
        let flags = if replace { 0 } else { libc::RENAME_NOREPLACE };
        // SAFETY: both paths are NUL-terminated.
        let rename = |dir, at, to_dir, to_at| unsafe { syscall!(SYS_renameat2, dir, at, to_dir, to_at, flags) };
        self.reach(|dir, at| to.reach(|to_dir, to_at| rename(dir, at, to_dir, to_at))).map(|_| ())
    }

    /// symlink(2): this path becomes a link to `target`.
    ///
    /// # Errors
    ///
    /// EEXIST; those of symlink(2).
    pub fn make_link(&self, target: &Path) -> Result<()> {
        // SAFETY: both paths are NUL-terminated.
        self.reach(|dir, at| unsafe { syscall!(SYS_symlinkat, target.as_ptr(), dir, at) }).map(|_| ())
    }

    /// mkfifo(3).
    pub fn make_fifo(&self, mode: u32) -> Result<()> {
        // SAFETY: the path is NUL-terminated.
        self.reach(|dir, at| unsafe { syscall!(SYS_mknodat, dir, at, libc::S_IFIFO | mode, 0) }).map(|_| ())
    }

    /// lstat(2).
    pub fn stat(&self) -> Result<libc::stat> {
        self.reach(|dir, at| stat_path(dir, at, libc::AT_SYMLINK_NOFOLLOW))
    }

    /// stat(2), from a directory.
    pub fn stat_at(&self, dir: i32) -> Result<libc::stat> {
        stat_path(dir, self.as_ptr(), 0)
    }

    /// readlink(2) of `/proc/self/fd/N`.
    pub fn of_descriptor(fd: i32) -> Result<Path> {
        let mut link = Path::new(&[b"/proc/thread-self/fd/"])?;
        link.push_decimal(fd as u64)?;
        link.read_link_at(libc::AT_FDCWD)
    }
}

/// Runs `open` with the soft limit on descriptors raised to the hard one.
pub fn with_more_descriptors<T>(open: impl FnOnce() -> Result<T>) -> Result<T> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is a local.
    unsafe { syscall!(SYS_prlimit64, 0, libc::RLIMIT_NOFILE, 0, &raw mut limit)? };
    let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
    // SAFETY: as above.
    unsafe { syscall!(SYS_prlimit64, 0, libc::RLIMIT_NOFILE, &raw const raised, 0)? };
    let opened = open();
    // SAFETY: as above.
    let _ = unsafe { syscall!(SYS_prlimit64, 0, libc::RLIMIT_NOFILE, &raw const limit, 0) };
    opened
}

/// As long as this exists the process may write the file that it was asked for.
pub struct Growth(Option<libc::rlimit>);

/// Lets the process write a file up to `len` bytes: where RLIMIT_FSIZE's soft limit is lower it is raised to the hard
/// one meanwhile.
///
/// # Errors
///
/// ENOSPC: that is lower, too. To be asked before, since the kernel would send SIGXFSZ, by which a program ends that
/// has written no file of its own.
pub fn may_grow_to(len: u64) -> Result<Growth> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is a local.
    unsafe { syscall!(SYS_prlimit64, 0, libc::RLIMIT_FSIZE, 0, &raw mut limit)? };
    if len <= limit.rlim_cur {
        return Ok(Growth(None));
    }
    if len > limit.rlim_max {
        return Err(Errno::ENOSPC);
    }
    let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
    // SAFETY: as above.
    unsafe { syscall!(SYS_prlimit64, 0, libc::RLIMIT_FSIZE, &raw const raised, 0)? };
    Ok(Growth(Some(limit)))
}

impl Drop for Growth {
    fn drop(&mut self) {
        if let Some(limit) = &self.0 {
            // SAFETY: the structure is ours.
            let _ = unsafe { syscall!(SYS_prlimit64, 0, libc::RLIMIT_FSIZE, core::ptr::from_ref(limit), 0) };
        }
    }
}

/// newfstatat(2).
///
/// # Errors
///
/// Those of stat(2); EFAULT: a bad pointer.
pub fn stat_path(dir: i32, path: *const c_char, flags: i32) -> Result<libc::stat> {
    // SAFETY: plain integers; zero is valid for all of them.
    let mut st: libc::stat = unsafe { core::mem::zeroed() };
    // SAFETY: the result goes to a local; the caller's path is NUL-terminated.
    unsafe { syscall!(SYS_newfstatat, dir, path, &raw mut st, flags)? };
    Ok(st)
}

/// fstat(2).
pub fn stat_fd(fd: i32) -> Result<libc::stat> {
    stat_path(fd, c"".as_ptr(), libc::AT_EMPTY_PATH)
}

/// A descriptor of our own, closed when dropped.
pub struct Fd(pub i32);

impl Fd {
    /// openat(2) of what exists; close-on-exec. The kernel checks the pointer.
    ///
    /// # Errors
    ///
    /// Those of open(2).
    pub fn open_at(dir: i32, path: *const c_char, flags: i32) -> Result<Fd> {
        // SAFETY: only the kernel reads the path.
        let open = || unsafe { syscall!(SYS_openat, dir, path, flags | libc::O_CLOEXEC, 0) }.map(|fd| Fd(fd as i32));
        match open() {
            Err(Errno::EMFILE) => with_more_descriptors(open),
            other => other,
        }
    }

    /// Keeps it open; it is the caller's now.
    pub fn release(self) -> i32 {
        let fd = self.0;
        core::mem::forget(self);
        fd
    }

    /// fstat(2).
    pub fn stat(&self) -> Result<libc::stat> {
        stat_fd(self.0)
    }

    /// fchmod(2).
    pub fn chmod(&self, mode: u32) -> Result<()> {
        // SAFETY: no pointers.
        unsafe { syscall!(SYS_fchmod, self.0, mode) }.map(|_| ())
    }

    /// pwrite(2) of plain bytes, all of them.
    ///
    /// # Errors
    ///
    /// As [`may_grow_to`]; those of pwrite(2).
    pub fn write_at(&self, bytes: &[u8], at: u64) -> Result<()> {
        let _growth = may_grow_to(at + bytes.len() as u64)?;
        // SAFETY: `bytes` is as long as said.
        let written = unsafe { syscall!(SYS_pwrite64, self.0, bytes.as_ptr(), bytes.len(), at)? };
        if written == bytes.len() { Ok(()) } else { Err(Errno::ENOSPC) }
    }

    /// linkat(2): the file of [`Path::open_nameless`] gets its name.
    ///
    /// # Errors
    ///
    /// EEXIST. ENOENT: there is no proc file system.
    pub fn name(&self, to: &Path) -> Result<()> {
        let link = self.link()?;
        let flags = libc::AT_SYMLINK_FOLLOW;
        // SAFETY: both paths are NUL-terminated.
        to.reach(|dir, at| unsafe { syscall!(SYS_linkat, libc::AT_FDCWD, link.as_ptr(), dir, at, flags) }).map(|_| ())
    }

    /// `/proc/thread-self/fd/N`, which leads to the file, to be followed.
    pub fn link(&self) -> Result<Path> {
        let mut link = Path::new(&[b"/proc/thread-self/fd/"])?;
        link.push_decimal(self.0 as u64)?;
        Ok(link)
    }

    /// chmod(2), also of a descriptor opened with O_PATH.
    pub fn set_mode(&self, mode: u32) -> Result<()> {
        // SAFETY: the path is NUL-terminated.
        match unsafe { syscall!(SYS_fchmodat2, self.0, c"".as_ptr(), mode, libc::AT_EMPTY_PATH) } {
            Ok(_) => Ok(()),
            // Before Linux 6.6, or a sandbox that does not know it.
            Err(_) => self.link()?.chmod(mode),
        }
    }

    /// chown(2), also of a descriptor opened with O_PATH.
    pub fn chown(&self, uid: u32, gid: u32) -> Result<()> {
        // SAFETY: the path is NUL-terminated.
        unsafe { syscall!(SYS_fchownat, self.0, c"".as_ptr(), uid, gid, libc::AT_EMPTY_PATH) }.map(|_| ())
    }

    /// ftruncate(2); [`may_grow_to`] is to be asked first.
    pub fn truncate(&self, len: u64) -> Result<()> {
        // SAFETY: no pointers.
        unsafe { syscall!(SYS_ftruncate, self.0, len) }.map(|_| ())
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        // SAFETY: the descriptor is ours.
        let _ = unsafe { syscall!(SYS_close, self.0) };
    }
}

/// Calls `see` with each name in a directory but `.` and `..`.
pub fn each_entry(dir: &Fd, mut see: impl FnMut(&[u8])) {
    each_entry_until(dir, |name, _| {
        see(name);
        true
    });
}

/// Calls `see` with each name and the position behind it, until it returns false; then returns that
/// position.
// Its buffer shall not lie in the frames of those who call it now and then: threads may have little stack.
#[inline(never)]
pub fn each_entry_until(dir: &Fd, mut see: impl FnMut(&[u8], u64) -> bool) -> Option<u64> {
    #[repr(align(8))]
    struct Buffer([u8; 4096]);
    let mut buffer = Buffer([0; 4096]);
    loop {
        // SAFETY: the buffer is as long as said.
        let got = unsafe { syscall!(SYS_getdents64, dir.0, buffer.0.as_mut_ptr(), buffer.0.len()).unwrap_or(0) };
        if got == 0 {
            return None;
        }
        let mut at = 0;
        // struct linux_dirent64: inode and offset of 8 bytes each, length of 2, type of 1, name.
        while at + 19 <= got {
            let length = u16::from_ne_bytes([buffer.0[at + 16], buffer.0[at + 17]]) as usize;
            let mut position = [0; 8];
            position.copy_from_slice(&buffer.0[at + 8..at + 16]);
            let position = u64::from_ne_bytes(position);
            let name = &buffer.0[at + 19..(at + length.max(20)).min(got)];
            let name = &name[..name.iter().position(|&b| b == 0).unwrap_or(name.len())];
            if name != b"." && name != b".." && !see(name, position) {
                return Some(position);
            }
            at += length.max(24);
        }
    }
}
