//! `mqns mount` and `mqns umount`.

use std::ffi::{CString, OsStr};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use clap::ValueEnum;

use super::namespace::{environment, second_image};
use super::preloaded::{Inode, Preloaded};
use super::run::{Library, c_path};
use super::{Cause, Exit, Failure, Mount, Umount, lsns};

/// What `-o` takes.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MountOption {
    Ro,
    Rw,
    Nosuid,
    Nodev,
    Noexec,
    Noatime,
    Relatime,
    Strictatime,
    Nodiratime,
}

impl MountOption {
    /// Adds its flag of mount(2); of those that exclude each other the last holds, as with mount(8).
    fn apply(self, flags: u64) -> u64 {
        const TIMES: u64 = libc::MS_NOATIME | libc::MS_RELATIME | libc::MS_STRICTATIME;
        match self {
            MountOption::Ro => flags | libc::MS_RDONLY,
            MountOption::Rw => flags & !libc::MS_RDONLY,
            MountOption::Nosuid => flags | libc::MS_NOSUID,
            MountOption::Nodev => flags | libc::MS_NODEV,
            MountOption::Noexec => flags | libc::MS_NOEXEC,
            MountOption::Noatime => flags & !TIMES | libc::MS_NOATIME,
            MountOption::Relatime => flags & !TIMES | libc::MS_RELATIME,
            MountOption::Strictatime => flags & !TIMES | libc::MS_STRICTATIME,
            MountOption::Nodiratime => flags | libc::MS_NODIRATIME,
        }
    }
}

/// Mounts the queues of a namespace; what is to be said about it.
pub fn mount(mount: Mount) -> Result<Option<String>, Failure> {
    let preloaded = second_image(mount.ns.as_ref(), mount.dir.as_deref(), mount.privileges)?;
    let place = Place::new(&preloaded, &mount.directory)?;
    let beneath = place.inodes();
    let flags = mount.options.iter().fold(0, |flags, option| option.apply(flags));
    let source = CString::new(mount.source.as_bytes())
        .map_err(|_| Failure::new(Exit::Failed, "--source", "a NUL in it", "leave it out"))?;
    place.mount(&source, flags)?;
    let is_virtual = matches!((beneath, place.inodes()), (Some((before, _)), Some((after, _))) if before == after);
    Ok((is_virtual && !mount.quiet).then(|| {
        format!(
            "{}: a virtual mount, seen by programs with the library only; do it as root for one that all see",
            mount.directory.display()
        )
    }))
}

/// Takes a mount off.
pub fn umount(umount: Umount) -> Result<(), Failure> {
    let library = Library::find()?;
    // In the second image it is not set any more.
    if is_shown_by_environment(&umount.directory) {
        let remedy = "unset MQNS_MOUNT (env -u MQNS_MOUNT …) to see what is mounted";
        return Err(Failure::new(Exit::Failed, umount.directory.display(), "shown by MQNS_MOUNT, not mounted", remedy));
    }
    let environment = environment(umount.dir.as_deref(), umount.privileges)?;
    let preloaded = Preloaded::here(&library, &environment)?;
    Place::new(&preloaded, &umount.directory)?.unmount(umount.lazy)
}

fn is_shown_by_environment(dir: &Path) -> bool {
    let Some(list) = std::env::var_os("MQNS_MOUNT") else { return false };
    let is_it = |shown: &[u8]| {
        let shown = Path::new(OsStr::from_bytes(shown));
        shown.is_absolute() && (std::path::absolute(dir).is_ok_and(|dir| dir == shown) || is_same(dir, shown))
    };
    list.as_bytes().split(|&b| b == b':').any(is_it)
}

fn is_same(a: &Path, b: &Path) -> bool {
    matches!((fs::canonicalize(a), fs::canonicalize(b)), (Ok(a), Ok(b)) if a == b)
}

/// A directory that is mounted on.
struct Place<'a> {
    preloaded: &'a Preloaded,
    dir: &'a Path,
    path: CString,
}

impl<'a> Place<'a> {
    fn new(preloaded: &'a Preloaded, dir: &'a Path) -> Result<Place<'a>, Failure> {
        let path = c_path(dir)
            .ok_or_else(|| Failure::new(Exit::Failed, dir.display(), "a NUL in the path", "leave it out"))?;
        Ok(Place { preloaded, dir, path })
    }

    fn fail(&self, cause: impl std::fmt::Display, remedy: impl std::fmt::Display) -> Failure {
        Failure::new(Exit::Failed, self.dir.display(), cause, remedy)
    }

    fn mount(&self, source: &CString, flags: u64) -> Result<(), Failure> {
        // SAFETY: NUL-terminated strings, and no data.
        let mounted =
            unsafe { libc::mount(source.as_ptr(), self.path.as_ptr(), c"mqueue".as_ptr(), flags, std::ptr::null()) };
        if mounted == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        Err(match error.raw_os_error() {
            Some(libc::EPERM) => self.fail(
                "not permitted without CAP_SYS_ADMIN",
                "do it as root, or give `--privileges generous` for a mount that only programs with the library see",
            ),
            Some(libc::ENOENT) => self.fail("no such directory", "make it first (mkdir)"),
            Some(libc::ENOTDIR) => self.fail("not a directory", "name a directory"),
            Some(libc::EBUSY) => self.fail(
                "the queues of this namespace are mounted there already",
                "`mqns umount` it first, or name another directory",
            ),
            Some(libc::EACCES) => self.fail("permission to search the directories above it is denied", "do it as root"),
            _ => self.fail(
                Cause(&error),
                "check the directory, and that of the queues (--dir; MQNS_LOG=stderr may say more)",
            ),
        })
    }

    fn unmount(&self, lazy: bool) -> Result<(), Failure> {
        if let Err(e) = fs::metadata(self.dir) {
            return Err(self.fail(Cause(&e), "see `mqns run cat /proc/mounts`"));
        }
        // What else is mounted there is none of our business.
        if self.inodes().is_none_or(|(kernels, ours)| kernels == ours) || !is_queues(&self.path) {
            return Err(self.not_mounted());
        }
        let flags = if lazy { libc::MNT_DETACH } else { 0 };
        // SAFETY: a NUL-terminated path.
        if unsafe { libc::umount2(self.path.as_ptr(), flags) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        Err(match error.raw_os_error() {
            Some(libc::EPERM) => self.fail("not permitted without CAP_SYS_ADMIN", "do it as root"),
            Some(libc::EBUSY) => {
                let users = self.users();
                let cause = match users[..] {
                    [] if self.is_current_directory() => "in use: it is the current directory".to_string(),
                    [] => "in use".to_string(),
                    [pid] => format!("in use by process {pid}"),
                    _ => {
                        let list: Vec<_> = users.iter().map(u32::to_string).collect();
                        format!("in use by processes {}", list.join(", "))
                    }
                };
                self.fail(cause, "end these uses, or give --lazy: then it goes with the last of them")
            }
            // A mount of the kernel's, for somebody who may take off virtual ones only.
            Some(libc::EINVAL) if self.is_real() => {
                self.fail("mounted by somebody with the right to mount, which this takes, too", "do it as root")
            }
            Some(libc::EINVAL) => self.not_mounted(),
            _ => self.fail(Cause(&error), "see `mqns run cat /proc/mounts`"),
        })
    }

    fn not_mounted(&self) -> Failure {
        self.fail(
            "the library's queues are not mounted there",
            "see `mqns run cat /proc/mounts`, or name by --dir the directory that programs were run with",
        )
    }

    /// See [`Preloaded::inodes`].
    fn inodes(&self) -> Option<(Inode, Inode)> {
        self.preloaded.inodes(&self.path)
    }

    /// Whether the kernel has the mount.
    fn is_real(&self) -> bool {
        self.inodes().is_some_and(|(kernels, ours)| kernels.2 == ours.2)
    }

    /// Processes in whose mount namespace it is, and which are in the directory or have something of it open.
    /// Those that may not be looked into are missing.
    fn users(&self) -> Vec<u32> {
        let Ok(point) = fs::canonicalize(self.dir) else { return Vec::new() };
        let here = fs::read_link("/proc/self/ns/mnt").ok();
        let uses = |path: &Path| path.starts_with(&point) || self.is_file_beneath(path);
        let is_user = |pid: u32| {
            let of = |what: &str| format!("/proc/{pid}/{what}");
            if here.is_none() || fs::read_link(of("ns/mnt")).ok() != here {
                return false;
            }
            let links = fs::read_dir(of("fd")).into_iter().flatten().flatten().map(|entry| entry.path());
            let mut links = links.chain(["cwd", "root"].map(|link| of(link).into()));
            // A queue descriptor that was opened through it is a mapping of the file.
            links.any(|link| fs::read_link(link).is_ok_and(|path| uses(&path)))
                || fs::read(of("maps")).unwrap_or_default().split(|&b| b == b'\n').any(|line| {
                    line.iter()
                        .position(|&b| b == b'/')
                        .is_some_and(|at| uses(Path::new(OsStr::from_bytes(&line[at..]))))
                })
        };
        let own = std::process::id();
        lsns::processes().unwrap_or_default().into_iter().filter(|&pid| pid != own && is_user(pid)).collect()
    }

    fn is_current_directory(&self) -> bool {
        matches!((std::env::current_dir(), fs::canonicalize(self.dir)), (Ok(here), Ok(point)) if here.starts_with(&point))
    }

    /// Whether a path is that of a queue's file which is seen here by a virtual mount.
    fn is_file_beneath(&self, path: &Path) -> bool {
        use std::os::unix::fs::MetadataExt;
        let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else { return false };
        parent.ends_with("sb")
            && fs::symlink_metadata(self.dir.join(name))
                .is_ok_and(|seen| fs::symlink_metadata(path).is_ok_and(|file| file.ino() == seen.ino()))
    }
}

/// Whether a directory is one of queues, the library's or the kernel's.
fn is_queues(path: &CString) -> bool {
    const MQUEUE_MAGIC: i64 = 0x1980_0202;
    // SAFETY: plain integers; zero is valid for all of them.
    let mut fs: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: a NUL-terminated path, a structure for the result.
    unsafe { libc::statfs(path.as_ptr(), &mut fs) == 0 && fs.f_type == MQUEUE_MAGIC }
}
