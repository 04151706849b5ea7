//! `mqns lsns`: the IPC namespaces that processes are in.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use clap::ValueEnum;
use serde_json::Value;

use super::preloaded::{Preloaded, namespace_of};
use super::run::{Library, environment_for};
use super::table::{Heading, Kind, Table, terminal_width};
use super::{Cause, Exit, Failure, Lsns};

/// A column.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "upper")]
pub enum Column {
    Ns,
    Nprocs,
    Pid,
    User,
    Queues,
    Command,
}

impl Column {
    /// Those that are shown if none are named.
    pub const ALL: [Column; 6] =
        [Column::Ns, Column::Nprocs, Column::Pid, Column::User, Column::Queues, Column::Command];

    fn heading(self) -> Heading {
        let (name, kind) = match self {
            Column::Ns => ("NS", Kind::Number),
            Column::Nprocs => ("NPROCS", Kind::Number),
            Column::Pid => ("PID", Kind::Number),
            Column::User => ("USER", Kind::Text),
            Column::Queues => ("QUEUES", Kind::Number),
            Column::Command => ("COMMAND", Kind::Long),
        };
        Heading { name, kind }
    }

    fn value(self, namespace: &Namespace) -> Value {
        match self {
            Column::Ns => namespace.id.into(),
            Column::Nprocs => namespace.processes.into(),
            Column::Pid => namespace.first.pid.into(),
            Column::User => namespace.first.user.clone().into(),
            Column::Queues => namespace.queues.into(),
            Column::Command => namespace.first.command.clone().into(),
        }
    }
}

struct Namespace {
    id: u64,
    processes: usize,
    /// That of the lowest id.
    first: Process,
    /// `None`: not for this user to know.
    queues: Option<u64>,
}

struct Process {
    pid: u32,
    user: String,
    command: String,
}

/// The list, as asked for.
pub fn lsns(lsns: Lsns) -> Result<String, Failure> {
    let library = Library::find()?;
    let environment = environment_for(lsns.dir.as_deref())?;
    let namespaces = namespaces(&Preloaded::here(&library, &environment)?)?;
    let columns = if lsns.output.is_empty() { &Column::ALL[..] } else { &lsns.output };
    let row = |namespace: &Namespace| columns.iter().map(|column| column.value(namespace)).collect();
    let table = Table {
        name: "namespaces",
        headings: columns.iter().map(|column| column.heading()).collect(),
        rows: namespaces.iter().map(row).collect(),
    };
    Ok(if lsns.json {
        table.json()
    } else if lsns.raw {
        table.raw(!lsns.noheadings)
    } else {
        table.aligned(!lsns.noheadings, if lsns.notruncate { None } else { terminal_width() })
    })
}

/// By their numbers.
fn namespaces(library: &Preloaded) -> Result<Vec<Namespace>, Failure> {
    let mut members: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
    for pid in processes()? {
        // Others have ended, or may not be looked into.
        if let Some(id) = namespace_number(pid) {
            members.entry(id).or_default().push(pid);
        }
    }
    Ok(members.into_iter().filter_map(|(id, pids)| namespace(library, id, &pids)).collect())
}

/// The processes that there are, by their ids.
pub fn processes() -> Result<Vec<u32>, Failure> {
    let proc = fs::read_dir("/proc")
        .map_err(|e| Failure::new(Exit::Failed, "/proc", Cause(&e), "mount it: mount -t proc proc /proc"))?;
    let mut pids: Vec<u32> = proc.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    Ok(pids)
}

/// The number of a process's namespace, if it may be looked into.
pub fn namespace_number(pid: u32) -> Option<u64> {
    fs::read_link(namespace_of(pid)).ok().and_then(|link| id(link.as_os_str().as_bytes()))
}

/// The number in `ipc:[NUMBER]`.
pub fn id(link: &[u8]) -> Option<u64> {
    std::str::from_utf8(link.strip_prefix(b"ipc:[")?.strip_suffix(b"]")?).ok()?.parse().ok()
}

/// `None`: all its processes have ended or left meanwhile.
fn namespace(library: &Preloaded, id: u64, pids: &[u32]) -> Option<Namespace> {
    for (at, &pid) in pids.iter().enumerate() {
        let queues = match fs::File::open(namespace_of(pid)) {
            Ok(file) if file.metadata().is_ok_and(|meta| meta.ino() == id) => library.queues(&file.into()).ok(),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => None,
            _ => continue,
        };
        if let Some(first) = process(pid) {
            return Some(Namespace { id, processes: pids.len() - at, first, queues });
        }
    }
    None
}

/// `None`: it has ended.
fn process(pid: u32) -> Option<Process> {
    let user = user(fs::metadata(format!("/proc/{pid}")).ok()?.uid());
    let mut command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    while command.last() == Some(&0) {
        command.pop();
    }
    if command.is_empty() {
        // The kernel's own have none.
        command = fs::read(format!("/proc/{pid}/comm")).ok()?;
        command.pop();
    }
    for byte in &mut command {
        if *byte == 0 {
            *byte = b' ';
        }
    }
    Some(Process { pid, user, command: String::from_utf8_lossy(&command).into_owned() })
}

/// The name of a user, or the number of one without a name.
pub fn user(uid: u32) -> String {
    let mut buffer = vec![0; 1024];
    loop {
        // SAFETY: all zeros is a value of this plain C structure.
        let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
        let mut found = std::ptr::null_mut();
        // SAFETY: a structure, and a buffer as long as said, for the result.
        let error = unsafe { libc::getpwuid_r(uid, &mut entry, buffer.as_mut_ptr(), buffer.len(), &mut found) };
        if error == libc::ERANGE && buffer.len() < 1 << 20 {
            buffer.resize(buffer.len() * 2, 0);
            continue;
        }
        if found.is_null() {
            return uid.to_string();
        }
        // SAFETY: found; a NUL-terminated string in the buffer.
        return unsafe { CStr::from_ptr(entry.pw_name) }.to_string_lossy().into_owned();
    }
}
