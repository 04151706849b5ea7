//! `/proc/PID/mounts`, `mountinfo` and `mountstats`: what the kernel shows as bind mounts of directories are
//! mounts of the mqueue file system.
//!
//! What a program opens is replaced by a file in memory with the text of the moment, if there is any such
//! mount in it.

use super::mount::{self, Record};
use crate::abi::Result;
use crate::face;
use crate::ns::{self, Place, Referred, of_task};
use crate::sys::path::{Fd, Path};
use crate::syscall;

/// Which of the tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Mounts,
    Mountinfo,
    Mountstats,
}

/// Whether a path may be that of a table, by its end: a look at most paths is enough.
pub fn is_candidate(path: &[u8]) -> bool {
    let last = path.rsplit(|&b| b == b'/').next().unwrap_or(b"");
    matches!(last, b"mounts" | b"mountinfo" | b"mountstats" | b"mtab")
}

/// The table that a path in proc(5) is, and the prefix of its directory.
fn kind_of(path: &[u8]) -> Option<(Kind, &[u8])> {
    let cut = path.iter().rposition(|&b| b == b'/')?;
    let kind = match &path[cut + 1..] {
        b"mounts" => Kind::Mounts,
        b"mountinfo" => Kind::Mountinfo,
        b"mountstats" => Kind::Mountstats,
        _ => return None,
    };
    path.starts_with(b"/proc/").then_some((kind, &path[..=cut]))
}

/// After open(2): `fd` may be a table. It then refers to the text that is to be shown.
///
/// # Errors
///
/// Those of making a file in memory.
pub fn opened(fd: i32) -> Result<()> {
    let path = Path::of_descriptor(fd)?;
    let Some((kind, directory)) = kind_of(path.as_bytes()) else { return Ok(()) };
    let info = Path::new(&[directory, b"mountinfo"])?;
    let mut any = false;
    crate::sys::proc::each_line(&info.open_own(libc::O_RDONLY)?, |line| any |= Mount::parse(line).is_some());
    // Virtual ones are seen in their mount namespace.
    let namespace = Path::new(&[directory, b"ns/mnt"])?.stat_at(libc::AT_FDCWD).map_or(0, |st| st.st_ino);
    super::virtuals::each(namespace, |_, _, _, _| any = true);
    if !any {
        return Ok(());
    }
    // As long as tables are as a rule.
    let _growth = crate::sys::path::may_grow_to(1 << 16)?;
    const MFD_CLOEXEC: u32 = 1;
    // SAFETY: a name and flags.
    let file = Fd(unsafe { syscall!(SYS_memfd_create, c"mounts".as_ptr(), MFD_CLOEXEC)? } as i32);
    write_table(kind, &info.open_own(libc::O_RDONLY)?, &path.open_own(libc::O_RDONLY)?, &file, namespace)?;
    let mut readable = Path::new(&[b"/proc/thread-self/fd/"])?;
    readable.push_decimal(file.0 as u64)?;
    // Only to be read.
    let text = readable.open_own(libc::O_RDONLY)?;
    // SAFETY: no pointers.
    let cloexec = unsafe { syscall!(SYS_fcntl, fd, libc::F_GETFD)? };
    let flags = if cloexec != 0 { libc::O_CLOEXEC } else { 0 };
    // SAFETY: no pointers; the caller has just opened it.
    unsafe { syscall!(SYS_dup3, text.0, fd, flags) }.map(|_| ())
}

/// Calls `see` with each mount of a superblock in the caller's mount namespace: its number, mount point,
/// namespace.
pub fn each_mounted(mut see: impl FnMut(u64, &[u8], &Referred)) {
    if let Ok(info) = Path::new(&[b"/proc/thread-self/mountinfo"]).and_then(|path| path.open_own(libc::O_RDONLY)) {
        crate::sys::proc::each_line(&info, |line| {
            if let Some(mount) = Mount::parse(line)
                && let Some(place) = mount.place()
            {
                see(mount.id(), mount.point, &place);
            }
        });
    }
}

/// A line of mountinfo that is a mount of a superblock.
struct Mount<'a> {
    ids: &'a [u8],
    point: &'a [u8],
    options: &'a [u8],
    optional: &'a [u8],
    /// The superblock's directory within its file system.
    root: &'a [u8],
}

impl<'a> Mount<'a> {
    fn parse(line: &'a [u8]) -> Option<Mount<'a>> {
        let mut at = 0;
        let mut field = || {
            let rest = line.get(at..)?;
            let len = rest.iter().position(|&b| b == b' ')?;
            at += len + 1;
            Some(&rest[..len])
        };
        let (id, parent, device, root) = (field()?, field()?, field()?, field()?);
        let (point, options) = (field()?, field()?);
        let ids = &line[..id.len() + 1 + parent.len()];
        let rest = &line[at..];
        let optional = &rest[..rest.windows(2).position(|w| w == b"- ")?];
        let root = root.strip_suffix(b"//deleted").unwrap_or(root);
        let mut numbers = device.split(|&b| b == b':').map(|n| core::str::from_utf8(n).ok()?.parse::<u32>().ok());
        let device = libc::makedev(numbers.next()??, numbers.next()??);
        let namespace = root.strip_suffix(b"/sb")?;
        let name = namespace.rsplit(|&b| b == b'/').next()?;
        let is_namespace = of_task::id_of_name(name).is_some()
            || name.len() > 1 && name[0] == b'i' && name[1..].iter().all(u8::is_ascii_digit);
        (is_namespace && super::is_device(device)).then_some(Mount { ids, point, options, optional, root: namespace })
    }

    /// The kernel's number of it.
    fn id(&self) -> u64 {
        let digits = self.ids.split(|&b| b == b' ').next().unwrap_or(b"");
        core::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// The namespace, if the caller may look at it.
    fn place(&self) -> Option<Referred> {
        // Below the root directory: iN, or uUID/nN-SECRET.
        let mut parts = self.root.rsplitn(3, |&b| b == b'/');
        let (last, above) = (parts.next()?, parts.next()?);
        let root = ns::known_root()?;
        let dir = if last.starts_with(b"i") {
            Path::new(&[root.as_bytes(), b"/", last])
        } else {
            Path::new(&[root.as_bytes(), b"/", above, b"/", last])
        };
        ns::place(super::tls(), dir.ok()?.as_bytes()).ok()
    }
}

/// A file in memory that is written in pieces.
struct Output<'a> {
    file: &'a Fd,
    buffer: [u8; 1024],
    len: usize,
}

impl Output<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        for &byte in bytes {
            if self.len == self.buffer.len() {
                self.flush()?;
            }
            self.buffer[self.len] = byte;
            self.len += 1;
        }
        Ok(())
    }

    /// As the kernel writes names in tables: what separates fields in octal.
    fn put_escaped(&mut self, bytes: &[u8]) -> Result<()> {
        for &byte in bytes {
            if matches!(byte, b' ' | b'\t' | b'\n' | b'\\' | b'#') {
                self.put(&[b'\\', b'0' + (byte >> 6), b'0' + (byte >> 3 & 7), b'0' + (byte & 7)])?;
            } else {
                self.put(&[byte])?;
            }
        }
        Ok(())
    }

    fn put_decimal(&mut self, value: u64) -> Result<()> {
        let mut text = [0u8; 20];
        let len = crate::sys::write_decimal(&mut text, value);
        self.put(&text[..len])
    }

    fn flush(&mut self) -> Result<()> {
        let mut from = 0;
        while from < self.len {
            // SAFETY: the rest of the buffer is as long as said.
            from += unsafe { syscall!(SYS_write, self.file.0, self.buffer.as_ptr().add(from), self.len - from)? };
        }
        self.len = 0;
        Ok(())
    }
}

/// The lines of a file, one after the other.
struct Lines<'a> {
    file: &'a Fd,
    buffer: [u8; 6144],
    from: usize,
    have: usize,
}

impl<'a> Lines<'a> {
    fn new(file: &'a Fd) -> Lines<'a> {
        Lines { file, buffer: [0; 6144], from: 0, have: 0 }
    }

    /// The next, without its end; longer ones than the buffer come in pieces.
    fn next(&mut self) -> Option<&[u8]> {
        loop {
            let ready = &self.buffer[self.from..self.have];
            if let Some(len) = ready.iter().position(|&b| b == b'\n') {
                let start = self.from;
                self.from += len + 1;
                return Some(&self.buffer[start..start + len]);
            }
            self.buffer.copy_within(self.from..self.have, 0);
            self.have -= self.from;
            self.from = 0;
            let room = self.buffer.len() - self.have;
            // SAFETY: the rest of the buffer is as long as said.
            let got = unsafe { syscall!(SYS_read, self.file.0, self.buffer.as_mut_ptr().add(self.have), room) };
            match got {
                Ok(got @ 1..) => self.have += got,
                _ if self.have == 0 => return None,
                _ => {
                    let len = self.have;
                    self.have = 0;
                    return Some(&self.buffer[..len]);
                }
            }
        }
    }
}

/// Writes the table. All of them list the same mounts in the same order; mountinfo alone says what is mounted.
#[inline(never)]
fn write_table(kind: Kind, info: &Fd, original: &Fd, file: &Fd, namespace: u64) -> Result<()> {
    let mut output = Output { file, buffer: [0; 1024], len: 0 };
    let mut infos = Lines::new(info);
    let mut originals = Lines::new(original);
    while let Some(original) = originals.next() {
        let is_mount =
            kind != Kind::Mountstats || original.starts_with(b"device ") || original.starts_with(b"no device ");
        match is_mount.then(|| infos.next()).flatten().and_then(Mount::parse) {
            Some(mount) => write_mount(&mut output, kind, &mount)?,
            None => output.put(original)?,
        }
        output.put(b"\n")?;
    }
    let mut number = 0;
    let mut done = Ok(());
    super::virtuals::each(namespace, |point, source, flags, place| {
        number += 1;
        let result = write_virtual(&mut output, kind, number, point, source, flags, place);
        done = done.and(result);
    });
    done?;
    output.flush()
}

/// A virtual mount, with a number beyond the kernel's.
fn write_virtual(
    output: &mut Output<'_>,
    kind: Kind,
    number: u64,
    point: &[u8],
    source: &[u8],
    flags: u64,
    place: Option<&Place>,
) -> Result<()> {
    const FIRST: u64 = 1 << 24;
    let read_only = place.is_some_and(Place::is_read_only);
    match kind {
        Kind::Mountinfo => {
            let device = place.map_or(0, face::device);
            output.put_decimal(FIRST + number)?;
            output.put(b" 1 ")?;
            output.put_decimal(libc::major(device) as u64)?;
            output.put(b":")?;
            output.put_decimal(libc::minor(device) as u64)?;
            output.put(b" / ")?;
            output.put_escaped(point)?;
            output.put(b" ")?;
            put_flags(output, flags, false)?;
            output.put(b" - mqueue ")?;
            output.put_escaped(source)?;
            output.put(if read_only { b" ro" } else { b" rw" })?;
        }
        Kind::Mounts => {
            output.put_escaped(source)?;
            output.put(b" ")?;
            output.put_escaped(point)?;
            output.put(b" mqueue ")?;
            put_flags(output, flags, read_only)?;
            output.put(b" 0 0")?;
        }
        Kind::Mountstats => {
            output.put(b"device ")?;
            output.put_escaped(source)?;
            output.put(b" mounted on ")?;
            output.put_escaped(point)?;
            output.put(b" with fstype mqueue")?;
        }
    }
    output.put(b"\n")
}

/// Flags of mount(2) as a table shows them.
fn put_flags(output: &mut Output<'_>, flags: u64, read_only: bool) -> Result<()> {
    let has = |flag| flags & flag != 0;
    output.put(if read_only || has(libc::MS_RDONLY) { b"ro" } else { b"rw" })?;
    let words: [(bool, &[u8]); 6] = [
        (has(libc::MS_NOSUID), b",nosuid"),
        (has(libc::MS_NODEV), b",nodev"),
        (has(libc::MS_NOEXEC), b",noexec"),
        (has(libc::MS_NOATIME) && !has(libc::MS_STRICTATIME), b",noatime"),
        (has(libc::MS_NODIRATIME), b",nodiratime"),
        (!has(libc::MS_NOATIME) && !has(libc::MS_STRICTATIME), b",relatime"),
    ];
    for (_, word) in words.iter().filter(|(set, _)| *set) {
        output.put(word)?;
    }
    Ok(())
}

fn write_mount(output: &mut Output<'_>, kind: Kind, mount: &Mount<'_>) -> Result<()> {
    let place = mount.place();
    let record = match &place {
        Some(place) => mount::recorded(place, mount.id(), mount.point),
        None => mount::record(false, b"mqueue"),
    };
    let read_only = place.as_ref().is_some_and(|place| place.is_read_only());
    match kind {
        Kind::Mountinfo => {
            let device = place.as_ref().map_or(0, |place| face::device(place));
            output.put(mount.ids)?;
            output.put(b" ")?;
            output.put_decimal(libc::major(device) as u64)?;
            output.put(b":")?;
            output.put_decimal(libc::minor(device) as u64)?;
            output.put(b" / ")?;
            output.put(mount.point)?;
            output.put(b" ")?;
            put_options(output, mount.options, &record, false)?;
            output.put(b" ")?;
            output.put(mount.optional)?;
            output.put(b"- mqueue ")?;
            output.put_escaped(record.source())?;
            output.put(if read_only { b" ro" } else { b" rw" })
        }
        Kind::Mounts => {
            output.put_escaped(record.source())?;
            output.put(b" ")?;
            output.put(mount.point)?;
            output.put(b" mqueue ")?;
            put_options(output, mount.options, &record, read_only)?;
            output.put(b" 0 0")
        }
        Kind::Mountstats => {
            output.put(b"device ")?;
            output.put_escaped(record.source())?;
            output.put(b" mounted on ")?;
            output.put(mount.point)?;
            output.put(b" with fstype mqueue")
        }
    }
}

/// The options of the mount, less what it has only because it is a bind mount.
fn put_options(output: &mut Output<'_>, options: &[u8], record: &Record, read_only: bool) -> Result<()> {
    for (index, option) in options.split(|&b| b == b',').filter(|&o| o != b"noexec" || record.noexec).enumerate() {
        if index != 0 {
            output.put(b",")?;
        }
        output.put(if read_only && option == b"rw" { b"ro" } else { option })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_told_by_their_paths() {
        assert_eq!(kind_of(b"/proc/17/mounts"), Some((Kind::Mounts, &b"/proc/17/"[..])));
        assert_eq!(kind_of(b"/proc/17/task/18/mountinfo"), Some((Kind::Mountinfo, &b"/proc/17/task/18/"[..])));
        assert_eq!(kind_of(b"/home/mounts"), None);
        assert!(is_candidate(b"/etc/mtab") && is_candidate(b"mountinfo") && !is_candidate(b"/proc/mountinfos"));
    }
}
