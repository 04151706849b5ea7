//! `mqns ls` and `mqns stat`: the queues of a namespace, as they are.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fmt::Write;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;

use clap::ValueEnum;
use serde_json::{Value, json};

use super::lsns::{processes, user};
use super::preloaded::{Inode, Named, Preloaded, directory_trouble};
use super::queue::{Attributes, Name, Queue, go};
use super::table::{Heading, Kind, Table, human, printable, shown};
use super::{Failure, Ls, Stat};
use crate::look::{Sleeper, State};

/// A column.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "upper")]
pub enum Column {
    Name,
    Owner,
    Mode,
    Msgs,
    Bytes,
    Maxmsg,
    Msgsize,
    Recv,
    Send,
    Notify,
    Openers,
}

impl Column {
    /// Those that are shown if none are named.
    const ALL: [Column; 11] = [
        Column::Name,
        Column::Owner,
        Column::Mode,
        Column::Msgs,
        Column::Bytes,
        Column::Maxmsg,
        Column::Msgsize,
        Column::Recv,
        Column::Send,
        Column::Notify,
        Column::Openers,
    ];

    fn heading(self) -> Heading {
        let (name, kind) = match self {
            Column::Name => ("NAME", Kind::Text),
            Column::Owner => ("OWNER", Kind::Text),
            Column::Mode => ("MODE", Kind::Text),
            Column::Msgs => ("MSGS", Kind::Number),
            Column::Bytes => ("BYTES", Kind::Number),
            Column::Maxmsg => ("MAXMSG", Kind::Number),
            Column::Msgsize => ("MSGSIZE", Kind::Number),
            Column::Recv => ("RECV", Kind::Number),
            Column::Send => ("SEND", Kind::Number),
            Column::Notify => ("NOTIFY", Kind::Number),
            Column::Openers => ("OPENERS", Kind::Number),
        };
        Heading { name, kind }
    }

    /// `size` says how bytes are shown.
    fn value(self, queue: &Info, size: fn(u64) -> Value) -> Value {
        let state = queue.state.as_ref();
        match self {
            Column::Name => queue.shown_name().into(),
            Column::Owner => user(queue.file.uid).into(),
            Column::Mode => queue.mode().into(),
            Column::Msgs => queue.attributes.map(|a| a.messages).into(),
            Column::Bytes => state.map(|state| size(state.bytes)).into(),
            Column::Maxmsg => queue.attributes.map(|a| a.maxmsg).into(),
            Column::Msgsize => queue.attributes.map(|a| size(a.msgsize)).into(),
            Column::Recv => state.map(|state| state.receivers).into(),
            Column::Send => state.map(|state| state.senders).into(),
            Column::Notify => state.map(|state| state.notify_pid).filter(|&pid| pid >= 0).into(),
            Column::Openers => queue.openers.as_ref().map(Vec::len).into(),
        }
    }
}

/// What is known of a queue. `None`: not for this user to know.
struct Info {
    file: Named,
    attributes: Option<Attributes>,
    state: Option<State>,
    /// Receivers, then senders, each in the order in which they will be served.
    sleepers: Vec<Sleeper>,
    /// Processes.
    openers: Option<Vec<u32>>,
}

impl Info {
    /// `None`: it is gone.
    fn of(library: &Preloaded, openers: &Openers, file: Named) -> Option<Info> {
        let name = Name::new(&file.name);
        // With the right to send there is something to be seen, too.
        let opened = Queue::open(&name, libc::O_RDONLY).or_else(|e| match e.raw_os_error() {
            Some(libc::EACCES) => Queue::open(&name, libc::O_WRONLY),
            _ => Err(e),
        });
        let mut info = Info { file, attributes: None, state: None, sleepers: Vec::new(), openers: None };
        match opened {
            Ok(queue) => {
                info.attributes = queue.attributes().ok();
                if let Ok((state, sleepers)) = library.state(queue.mqd) {
                    // Both at the same moment.
                    info.attributes = info.attributes.map(|a| Attributes { messages: state.messages.into(), ..a });
                    (info.state, info.sleepers) = (Some(state), sleepers);
                }
                let inode = descriptor(&format!("/proc/self/fd/{}", queue.mqd), library);
                info.openers = inode.map(|inode| openers.0.get(&inode).cloned().unwrap_or_default());
            }
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return None,
            // For others to use, or damaged.
            Err(_) => {}
        }
        Some(info)
    }

    fn shown_name(&self) -> String {
        format!("/{}", shown(&self.file.name))
    }

    fn mode(&self) -> String {
        format!("{:04o}", self.file.mode & 0o7777)
    }
}

fn descriptor(path: &str, library: &Preloaded) -> Option<Inode> {
    library.inode(&CString::new(path).ok()?)
}

/// Which processes have which FIFO open, other processes than this one.
struct Openers(BTreeMap<Inode, Vec<u32>>);

impl Openers {
    fn find(library: &Preloaded) -> Result<Openers, Failure> {
        let mut found: BTreeMap<Inode, Vec<u32>> = BTreeMap::new();
        let own = std::process::id();
        for pid in processes()?.into_iter().filter(|&pid| pid != own) {
            // Nothing, if it has ended or may not be looked into.
            for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
                let path = CString::new(entry.path().into_os_string().into_vec()).ok();
                if let Some(inode) = path.and_then(|path| library.inode(&path)) {
                    let pids = found.entry(inode).or_default();
                    if pids.last() != Some(&pid) {
                        pids.push(pid);
                    }
                }
            }
        }
        Ok(Openers(found))
    }
}

fn names(library: &Preloaded) -> Result<Vec<Named>, Failure> {
    library.names().map_err(|e| directory_trouble("the directory of the queues", &e))
}

fn all(library: &Preloaded) -> Result<Vec<Info>, Failure> {
    let openers = Openers::find(library)?;
    Ok(names(library)?.into_iter().filter_map(|file| Info::of(library, &openers, file)).collect())
}

/// A queue at a glance; `None`: not for this user to know.
pub type Glance = (Name, Option<Attributes>, Option<State>);

/// All queues of the namespace.
pub fn glance(library: &Preloaded) -> Result<Vec<Glance>, Failure> {
    let nobody = Openers(BTreeMap::new());
    let queues = names(library)?.into_iter().filter_map(|file| Info::of(library, &nobody, file));
    Ok(queues.map(|info| (Name::new(&info.file.name), info.attributes, info.state)).collect())
}

/// The names of those in this namespace that a process has open.
pub fn opened_by(library: &Preloaded, pid: u32) -> Result<Vec<String>, Failure> {
    let is_open = |queue: &Info| queue.openers.as_ref().is_some_and(|pids| pids.contains(&pid));
    Ok(all(library)?.iter().filter(|queue| is_open(queue)).map(Info::shown_name).collect())
}

/// The list, as asked for.
pub fn ls(ls: Ls) -> Result<String, Failure> {
    let queues = all(&go(&ls.at)?)?;
    let columns = if ls.output.is_empty() { &Column::ALL[..] } else { &ls.output };
    let size = if ls.bytes || ls.json || ls.raw { Value::from } else { |bytes| Value::from(human(bytes)) };
    let row = |queue: &Info| columns.iter().map(|column| column.value(queue, size)).collect();
    let table = Table {
        name: "queues",
        headings: columns.iter().map(|column| column.heading()).collect(),
        rows: queues.iter().map(row).collect(),
    };
    Ok(if ls.json {
        table.json()
    } else if ls.raw {
        table.raw(!ls.noheadings)
    } else {
        table.aligned(!ls.noheadings, None)
    })
}

/// All about some queues.
pub fn stat(stat: Stat) -> Result<String, Failure> {
    let library = go(&stat.at)?;
    if stat.prometheus {
        return Ok(metrics(&all(&library)?));
    }
    let openers = Openers::find(&library)?;
    let mut queues = Vec::new();
    for name in stat.queues {
        let is_it = |file: &Named| file.name == name.rest();
        let info = names(&library)?.into_iter().find(is_it).and_then(|file| Info::of(&library, &openers, file));
        queues.push(info.ok_or_else(|| name.failed(&io::Error::from_raw_os_error(libc::ENOENT)))?);
    }
    Ok(if stat.json {
        let list: Vec<_> = queues.iter().map(object).collect();
        format!("{:#}\n", json!({ "queues": list }))
    } else {
        queues.iter().map(sheet).collect::<Vec<_>>().join("\n")
    })
}

/// `sigev_notify` by its name.
fn kind(state: &State) -> &'static str {
    match state.notify {
        libc::SIGEV_SIGNAL => "SIGEV_SIGNAL",
        libc::SIGEV_THREAD => "SIGEV_THREAD",
        _ => "SIGEV_NONE",
    }
}

fn signal(state: &State) -> Option<i32> {
    (state.notify == libc::SIGEV_SIGNAL).then_some(state.signo)
}

/// The sleepers of one kind: thread ids, as far as known.
fn threads(queue: &Info, sends: bool) -> Vec<Option<u32>> {
    queue
        .sleepers
        .iter()
        .filter(|sleeper| (sleeper.sends == 1) == sends)
        .map(|sleeper| Some(sleeper.tid).filter(|&tid| tid != 0))
        .collect()
}

fn object(queue: &Info) -> Value {
    let state = queue.state.as_ref();
    let sleepers = |sends| state.map(|_| threads(queue, sends));
    let notify = state
        .filter(|state| state.notify_pid >= 0)
        .map(|state| json!({ "pid": state.notify_pid, "kind": kind(state), "signal": signal(state) }));
    json!({
        "name": queue.shown_name(),
        "owner": user(queue.file.uid),
        "uid": queue.file.uid,
        "gid": queue.file.gid,
        "mode": queue.mode(),
        "msgs": queue.attributes.map(|a| a.messages),
        "bytes": state.map(|state| state.bytes),
        "maxmsg": queue.attributes.map(|a| a.maxmsg),
        "msgsize": queue.attributes.map(|a| a.msgsize),
        "charged": queue.attributes.map(cost),
        "receivers": sleepers(false),
        "senders": sleepers(true),
        "notify": notify,
        "openers": queue.openers,
        "sent": state.map(|state| state.sent),
        "received": state.map(received),
        "created": state.map(|state| state.created),
        "used": state.map(|state| state.used),
    })
}

/// Messages received since it was made: all that were sent, and are not there.
fn received(state: &State) -> u64 {
    state.sent.saturating_sub(state.messages.into())
}

/// What a queue costs under RLIMIT_MSGQUEUE (getrlimit(2)).
pub fn cost(a: Attributes) -> u64 {
    a.maxmsg * a.msgsize + a.maxmsg * 48 + a.maxmsg.min(32768) * 48
}

/// For people.
fn sheet(queue: &Info) -> String {
    const UNKNOWN: &str = "not for this user to know";
    let mut text = String::new();
    let mut line = |title: &str, value: String| {
        let _ = writeln!(text, "{title:<11}{value}");
    };
    line("Queue", printable(queue.shown_name().as_bytes()));
    line("Owner", format!("{}, group {}, mode {}", user(queue.file.uid), queue.file.gid, queue.mode()));
    match queue.attributes {
        Some(a) => {
            line("Messages", format!("{} of {}, of up to {} bytes", a.messages, a.maxmsg, a.msgsize));
            line("Charged", format!("{} bytes, to its maker's RLIMIT_MSGQUEUE", cost(a)));
        }
        None => line("Messages", UNKNOWN.into()),
    }
    let Some(state) = &queue.state else {
        line("Content", UNKNOWN.into());
        return text;
    };
    line("Content", format!("{} bytes", state.bytes));
    for (title, sends) in [("Receivers", false), ("Senders", true)] {
        let tids: Vec<_> = threads(queue, sends).into_iter().map(shown_id).collect();
        line(
            title,
            if tids.is_empty() { "none wait".into() } else { format!("{} wait: {}", tids.len(), tids.join(" ")) },
        );
    }
    line(
        "Notify",
        match (state.notify_pid, signal(state)) {
            (-1, _) => "nobody is registered".into(),
            (pid, Some(signo)) => format!(
                "process {}, {}, signal {signo}",
                shown_id(u32::try_from(pid).ok().filter(|&pid| pid != 0)),
                kind(state)
            ),
            (pid, None) => {
                format!("process {}, {}", shown_id(u32::try_from(pid).ok().filter(|&pid| pid != 0)), kind(state))
            }
        },
    );
    let openers: Vec<_> = queue.openers.iter().flatten().map(u32::to_string).collect();
    line("Openers", if openers.is_empty() { "none to be seen".into() } else { openers.join(" ") });
    line("Sent", format!("{} messages; {} received", state.sent, received(state)));
    line("Created", time(state.created));
    line("Used", time(state.used));
    text
}

/// Those of another pid namespace are not known.
fn shown_id(id: Option<u32>) -> String {
    id.map_or("elsewhere".into(), |id| id.to_string())
}

fn time(seconds: u64) -> String {
    local(seconds, c"%F %T %z")
}

/// Local time, as strftime(3) has it.
pub fn local(seconds: u64, format: &CStr) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    // SAFETY: all zeros is a value of this plain C structure.
    let mut parts: libc::tm = unsafe { std::mem::zeroed() };
    let mut text = [0u8; 64];
    // SAFETY: a number, and a structure for the result; a buffer as long as said, and a NUL-terminated format.
    let len = unsafe {
        if libc::localtime_r(&seconds, &mut parts).is_null() {
            return seconds.to_string();
        }
        libc::strftime(text.as_mut_ptr().cast(), text.len(), format.as_ptr(), &parts)
    };
    String::from_utf8_lossy(&text[..len]).into_owned()
}

/// The text format of Prometheus.
fn metrics(queues: &[Info]) -> String {
    type Reading = fn(&Info) -> Option<u64>;
    const METRICS: [(&str, &str, Reading); 10] = [
        ("messages", "Messages in the queue.", |q| q.attributes.map(|a| a.messages)),
        ("bytes", "Bytes in the queue.", |q| q.state.map(|state| state.bytes)),
        ("max_messages", "Messages that fit.", |q| q.attributes.map(|a| a.maxmsg)),
        ("max_message_bytes", "Bytes of the longest message.", |q| q.attributes.map(|a| a.msgsize)),
        ("receivers_waiting", "Threads that wait to receive.", |q| q.state.map(|state| state.receivers.into())),
        ("senders_waiting", "Threads that wait to send.", |q| q.state.map(|state| state.senders.into())),
        ("openers", "Processes that have it open.", |q| q.openers.as_ref().map(|pids| pids.len() as u64)),
        ("sent_total", "Messages sent since it was made.", |q| q.state.map(|state| state.sent)),
        ("received_total", "Messages received since it was made.", |q| q.state.as_ref().map(received)),
        ("used_seconds", "Time of the last send or receive, or of creation.", |q| q.state.map(|state| state.used)),
    ];
    let mut text = String::new();
    for (name, help, reading) in METRICS {
        let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
        let _ = writeln!(text, "# HELP mqns_queue_{name} {help}\n# TYPE mqns_queue_{name} {kind}");
        for queue in queues {
            if let Some(value) = reading(queue) {
                let label = queue.shown_name().replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                let _ = writeln!(text, "mqns_queue_{name}{{queue=\"{label}\"}} {value}");
            }
        }
    }
    text
}
