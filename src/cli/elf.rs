//! What a file to be executed is: an ELF program, of which kind, or a script.
//!
//! Source: elf(5), execve(2).

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What a file begins with.
pub enum Image {
    /// An ELF file.
    Elf(Elf),
    /// `#!` with an interpreter, and one argument for it if there is any.
    Script { interpreter: PathBuf, argument: Option<OsString> },
    /// Anything else that could be text: execvp(3) gives it to the shell.
    Text,
    /// Anything else.
    Unknown,
}

/// What of an ELF file tells whether a library can be preloaded into it.
pub struct Elf {
    /// Class, data encoding and machine: equal for files that fit together.
    pub target: (u8, u8, u16),
    /// The loader (`PT_INTERP`); none in a static program, and in a library.
    pub loader: Option<PathBuf>,
    /// `DT_NEEDED`: the names of the libraries it is linked with.
    pub needed: Vec<String>,
}

/// A C library, of which a process can have only one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Libc {
    Glibc,
    Musl,
    /// Bionic, uClibc or one that we do not know.
    Other,
}

impl Libc {
    pub fn name(self) -> &'static str {
        match self {
            Libc::Glibc => "glibc",
            Libc::Musl => "musl",
            Libc::Other => "another C library",
        }
    }
}

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
/// Longest table or string that is looked at, bytes; those of real programs are far shorter.
const ENOUGH: u64 = 1 << 20;

/// `#!` and what follows are looked at so far (`BINPRM_BUF_SIZE` of the kernel), bytes.
const HEAD: usize = 256;

/// Looks at a file.
///
/// # Errors
///
/// Those of open(2) and read(2).
pub fn image(path: &Path) -> io::Result<Image> {
    let file = File::open(path)?;
    let mut head = [0; HEAD];
    let mut len = 0;
    while len < HEAD {
        match file.read_at(&mut head[len..], len as u64)? {
            0 => break,
            n => len += n,
        }
    }
    let head = &head[..len];
    if head.starts_with(b"\x7fELF") {
        return Ok(read_elf(&file, head).map_or(Image::Unknown, Image::Elf));
    }
    let Some(line) = head.strip_prefix(b"#!") else {
        return Ok(if head.contains(&0) { Image::Unknown } else { Image::Text });
    };
    let line = line.split(|&b| b == b'\n').next().unwrap_or(line).trim_ascii();
    let end = line.iter().position(|b| matches!(b, b' ' | b'\t')).unwrap_or(line.len());
    let (interpreter, argument) = (&line[..end], line[end..].trim_ascii());
    if interpreter.is_empty() {
        return Ok(Image::Text);
    }
    Ok(Image::Script {
        interpreter: PathBuf::from(OsString::from_vec(interpreter.to_vec())),
        argument: (!argument.is_empty()).then(|| OsString::from_vec(argument.to_vec())),
    })
}

/// A field of a record, in the byte order of this machine.
fn word<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    word(bytes, at).map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    word(bytes, at).map(u32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    word(bytes, at).map(u64::from_ne_bytes)
}

fn read(file: &File, at: u64, len: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(len.min(ENOUGH)).ok()?];
    file.read_exact_at(&mut bytes, at).ok()?;
    Some(bytes)
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&b| b == 0).next().unwrap_or(bytes)
}

/// `None`: damaged. Of a file for other machines only `target` is filled in.
fn read_elf(file: &File, head: &[u8]) -> Option<Elf> {
    let (class, data) = (*head.get(4)?, *head.get(5)?);
    let machine = word(head, 18)?;
    let machine = if data == 2 { u16::from_be_bytes(machine) } else { u16::from_le_bytes(machine) };
    let mut elf = Elf { target: (class, data, machine), loader: None, needed: Vec::new() };
    let own_order = if cfg!(target_endian = "big") { 2 } else { 1 };
    if class != 2 || data != own_order {
        return Some(elf);
    }
    let (table_at, entry_len, entries) = (u64_at(head, 32)?, u16_at(head, 54)?, u16_at(head, 56)?);
    if entry_len < 56 {
        return None;
    }
    let table = read(file, table_at, entry_len as u64 * entries as u64)?;
    let mut loads = Vec::new();
    let mut dynamic = Vec::new();
    for entry in table.chunks_exact(entry_len as usize) {
        let (kind, at, address, len) = (u32_at(entry, 0)?, u64_at(entry, 8)?, u64_at(entry, 16)?, u64_at(entry, 32)?);
        match kind {
            PT_LOAD => loads.push((address, len, at)),
            PT_DYNAMIC => dynamic = read(file, at, len)?,
            PT_INTERP => {
                let name = read(file, at, len)?;
                elf.loader = Some(PathBuf::from(OsString::from_vec(until_nul(&name).to_vec())));
            }
            _ => {}
        }
    }
    let offset = |address: u64| {
        loads.iter().find_map(|&(start, len, at)| {
            let into = address.checked_sub(start).filter(|&into| into < len)?;
            at.checked_add(into)
        })
    };
    let tagged =
        |tag: u64| dynamic.chunks_exact(16).filter(move |d| u64_at(d, 0) == Some(tag)).filter_map(|d| u64_at(d, 8));
    if let Some(strings) = tagged(DT_STRTAB).next().and_then(offset) {
        for name in tagged(DT_NEEDED) {
            // A library's name is short; the last string of a file may end before 256 bytes do.
            let mut bytes = [0; 256];
            let got = file.read_at(&mut bytes, strings.checked_add(name)?).ok()?;
            elf.needed.push(String::from_utf8_lossy(until_nul(&bytes[..got])).into_owned());
        }
    }
    Some(elf)
}

impl Elf {
    /// The C library it runs with: by the loader of a program, by the names a library needs.
    pub fn libc(&self) -> Libc {
        match &self.loader {
            Some(loader) => {
                let name = loader.file_name().unwrap_or_default().to_string_lossy();
                if name.starts_with("ld-musl") {
                    Libc::Musl
                } else if name.starts_with("ld-linux") || name.starts_with("ld64.so") || name.starts_with("ld.so") {
                    Libc::Glibc
                } else {
                    Libc::Other
                }
            }
            None if self.needs("libc.so.6") => Libc::Glibc,
            None if self.needs("libc.so") || self.needs("libc.musl-") => Libc::Musl,
            None => Libc::Other,
        }
    }

    /// Whether it is linked with a library whose name begins so.
    pub fn needs(&self, name: &str) -> bool {
        self.needed.iter().any(|n| n.starts_with(name))
    }

    /// Its target in words.
    pub fn target_name(&self) -> String {
        let (class, data, machine) = self.target;
        let machine = match machine {
            3 => "x86".into(),
            8 => "MIPS".into(),
            21 => "POWER".into(),
            22 => "s390".into(),
            40 => "ARM".into(),
            62 => "x86-64".into(),
            183 => "AArch64".into(),
            243 => "RISC-V".into(),
            other => format!("ELF machine {other}"),
        };
        let bits = if class == 1 { 32 } else { 64 };
        format!("{bits}-bit {machine}{}", if data == 2 { ", big-endian" } else { "" })
    }
}
