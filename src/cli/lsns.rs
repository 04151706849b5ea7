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
    Name,
    Command,
}

impl Column {
    /// Those that are shown if none are named.
    pub const ALL: [Column; 7] =
        [Column::Ns, Column::Nprocs, Column::Pid, Column::User, Column::Queues, Column::Name, Column::Command];

    fn heading(self) -> Heading {
        let (name, kind) = match self {
            Column::Ns => ("NS", Kind::Number),
            Column::Nprocs => ("NPROCS", Kind::Number),
            Column::Pid => ("PID", Kind::Number),
            Column::User => ("USER", Kind::Text),
            Column::Queues => ("QUEUES", Kind::Number),
            Column::Name => ("NAME", Kind::Text),
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
            Column::Name => namespace.name.clone().into(),
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
    /// `None`: it has none.
    name: Option<String>,
    /// The namespace in which the first process has come into being: the nearest other one that an ancestor is in.
    above: Option<u64>,
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
    let row = |namespace: &Namespace| columns.iter().map(|column| column.value(namespace)).collect::<Vec<_>>();
    let mut headings: Vec<_> = columns.iter().map(|column| column.heading()).collect();
    let mut rows: Vec<_> = namespaces.iter().map(row).collect();
    if lsns.tree {
        let tree = Tree::of(&namespaces);
        if lsns.json {
            let children = tree.json(&headings, &rows, None);
            return Ok(format!("{:#}\n", serde_json::json!({ "namespaces": children })));
        }
        // As in lsns(8), the branches are drawn in front of the numbers.
        let art = if lsns.raw { &ASCII } else { &BOXES };
        let at = columns.iter().position(|&column| column == Column::Ns);
        let mut drawn = Vec::new();
        tree.each(None, &mut String::new(), art, &mut |branch, index| {
            let mut row = rows[index].clone();
            if let Some(at) = at {
                row[at] = format!("{branch}{}", namespaces[index].id).into();
            }
            drawn.push(row);
        });
        rows = drawn;
        if let Some(at) = at {
            headings[at].kind = Kind::Text;
        }
    }
    let table = Table { name: "namespaces", headings, rows };
    Ok(if lsns.json {
        table.json()
    } else if lsns.raw {
        table.raw(!lsns.noheadings)
    } else {
        table.aligned(!lsns.noheadings, if lsns.notruncate { None } else { terminal_width() })
    })
}

/// What branches are drawn with: a child, the last child, and below them.
type Art = [&'static str; 4];
const BOXES: Art = ["├─", "└─", "│ ", "  "];
const ASCII: Art = ["|-", "`-", "| ", "  "];

/// Which namespaces have come into being in which: by index, in the order of their numbers.
struct Tree(BTreeMap<Option<usize>, Vec<usize>>);

impl Tree {
    fn of(namespaces: &[Namespace]) -> Tree {
        let index = |id| namespaces.binary_search_by_key(&id, |namespace| namespace.id).ok();
        let above: Vec<_> = namespaces.iter().map(|namespace| namespace.above.and_then(index)).collect();
        let mut children: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for at in 0..namespaces.len() {
            // Two can each have processes below the other's: then the one with the lower number stands above.
            let mut line = vec![at];
            while let Some(next) = above[line[line.len() - 1]].filter(|next| !line.contains(next)) {
                line.push(next);
            }
            let ring = above[line[line.len() - 1]].and_then(|back| line.iter().position(|&one| one == back));
            let is_first = ring.is_some_and(|from| from == 0 && line.iter().min() == Some(&at));
            children.entry(above[at].filter(|_| !is_first)).or_default().push(at);
        }
        Tree(children)
    }

    fn children(&self, of: Option<usize>) -> &[usize] {
        self.0.get(&of).map_or(&[], Vec::as_slice)
    }

    /// Calls `see` with what is to be drawn before each, and its index, from above.
    fn each(&self, of: Option<usize>, before: &mut String, art: &Art, see: &mut impl FnMut(&str, usize)) {
        let children = self.children(of);
        for (at, &child) in children.iter().enumerate() {
            let is_last = at + 1 == children.len();
            let len = before.len();
            let [branch, below] = match of {
                None => ["", ""],
                Some(_) => [art[usize::from(is_last)], art[2 + usize::from(is_last)]],
            };
            see(&format!("{before}{branch}"), child);
            before.push_str(below);
            self.each(Some(child), before, art, see);
            before.truncate(len);
        }
    }

    /// Each with the list of its `children`, if it has any.
    fn json(&self, headings: &[Heading], rows: &[Vec<Value>], of: Option<usize>) -> Value {
        let object = |&child: &usize| {
            let keys = headings.iter().map(|heading| heading.name.to_lowercase());
            let mut object: serde_json::Map<_, _> = keys.zip(rows[child].iter().cloned()).collect();
            if !self.children(Some(child)).is_empty() {
                object.insert("children".into(), self.json(headings, rows, Some(child)));
            }
            Value::Object(object)
        };
        self.children(of).iter().map(object).collect()
    }
}

/// By their numbers.
fn namespaces(library: &Preloaded) -> Result<Vec<Namespace>, Failure> {
    let mut members: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
    let mut of = BTreeMap::new();
    for pid in processes()? {
        // Others have ended, or may not be looked into.
        if let Some(id) = namespace_number(pid) {
            members.entry(id).or_default().push(pid);
            of.insert(pid, id);
        }
    }
    Ok(members.into_iter().filter_map(|(id, pids)| namespace(library, id, &pids, &of)).collect())
}

/// The namespace of the nearest ancestor of a process that is in another one than `id`.
fn above(pid: u32, id: u64, of: &BTreeMap<u32, u64>) -> Option<u64> {
    let mut pid = pid;
    // Nobody has more ancestors, but they may change while they are looked for.
    for _ in 0..10_000 {
        pid = parent(pid)?;
        if let Some(&other) = of.get(&pid).filter(|&&other| other != id) {
            return Some(other);
        }
    }
    None
}

/// `None`: it has ended, or has none that can be seen.
fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // Behind the name, in parentheses: state, parent.
    let behind = &stat[stat.iter().rposition(|&b| b == b')')? + 1..];
    let field = behind.split(|&b| b == b' ').nth(2)?;
    std::str::from_utf8(field).ok()?.parse().ok().filter(|&pid| pid != 0)
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
fn namespace(library: &Preloaded, id: u64, pids: &[u32], of: &BTreeMap<u32, u64>) -> Option<Namespace> {
    for (at, &pid) in pids.iter().enumerate() {
        let (queues, name) = match fs::File::open(namespace_of(pid)) {
            Ok(file) if file.metadata().is_ok_and(|meta| meta.ino() == id) => {
                let file = file.into();
                (library.queues(&file).ok(), library.name(&file))
            }
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => (None, None),
            _ => continue,
        };
        if let Some(first) = process(pid) {
            let above = above(pid, id, of);
            return Some(Namespace { id, processes: pids.len() - at, first, queues, name, above });
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
