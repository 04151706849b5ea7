//! `mqns limits`: what a namespace allows, what is charged to whom, and what is left.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};

use serde_json::{Value, json};

use super::look::cost;
use super::lsns::user;
use super::preloaded::{Preloaded, directory_trouble, kept_out};
use super::queue::{Attributes, go};
use super::table::{Heading, Kind, Table};
use super::{Cause, Exit, Failure, Limits};

/// The files in /proc/sys/fs/mqueue, which are the library's here.
pub const NAMES: [&str; 5] = ["msg_max", "msgsize_max", "queues_max", "msg_default", "msgsize_default"];

/// `NAME` or `NAME=VALUE`.
#[derive(Clone)]
pub struct Request {
    name: &'static str,
    value: Option<i32>,
}

/// For clap.
pub fn request(text: &str) -> Result<Request, String> {
    let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
    let name = NAMES.into_iter().find(|&known| known == name);
    let name = name.ok_or_else(|| format!("no such limit; there are {}", NAMES.join(", ")))?;
    let value = value.map(|value| value.parse().map_err(|_| "not a number of 32 bits")).transpose()?;
    Ok(Request { name, value })
}

fn path(name: &str) -> String {
    format!("/proc/sys/fs/mqueue/{name}")
}

/// The value of a limit.
pub fn get(name: &str) -> Result<i32, Failure> {
    let read = || fs::read_to_string(path(name))?.trim().parse().map_err(io::Error::other);
    read().map_err(|e| directory_trouble("the limits of the namespace", &e))
}

fn set(name: &str, value: i32) -> Result<(), Failure> {
    let write = || fs::File::options().write(true).open(path(name))?.write_all(format!("{value}\n").as_bytes());
    let refuse = |cause: &dyn std::fmt::Display, remedy| Err(Failure::new(Exit::Refused, name, cause, remedy));
    match write() {
        Ok(()) => Ok(()),
        Err(e) => match e.raw_os_error() {
            Some(libc::EACCES | libc::EPERM) => kept_out().map_or_else(
                || refuse(&"only root of the namespace may set it", "do it as root, or give `--privileges generous`"),
                Err,
            ),
            Some(libc::EINVAL) if name.starts_with("msgsize") => {
                refuse(&format_args!("{value} is out of range"), "it may be 128 to 16777216 bytes")
            }
            Some(libc::EINVAL) => refuse(&format_args!("{value} is out of range"), "it may be 1 to 65536 messages"),
            _ => refuse(&Cause(&e), "check the directory of the queues (--dir)"),
        },
    }
}

/// RLIMIT_MSGQUEUE of this process. `None`: unlimited.
pub fn rlimit() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a structure for the result.
    unsafe { libc::getrlimit(libc::RLIMIT_MSGQUEUE, &mut limit) };
    (limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

/// The user that is charged for what this process makes.
pub fn payer() -> u32 {
    // SAFETY: no arguments.
    unsafe { libc::getuid() }
}

/// What is charged to whom, the caller included.
pub fn charged(library: &Preloaded) -> Result<Vec<(u32, u64)>, Failure> {
    let mut list = library.charged().map_err(|e| directory_trouble("the accounts of RLIMIT_MSGQUEUE", &e))?;
    if let Err(at) = list.binary_search_by_key(&payer(), |&(uid, _)| uid) {
        list.insert(at, (payer(), 0));
    }
    Ok(list)
}

/// Bytes charged to the caller.
pub fn used(library: &Preloaded) -> Result<u64, Failure> {
    Ok(charged(library)?.into_iter().find(|&(uid, _)| uid == payer()).map_or(0, |(_, bytes)| bytes))
}

/// Queues in the caller's namespace, those without a name included.
pub fn queues(library: &Preloaded) -> Result<u64, Failure> {
    let count = || library.queues(&fs::File::open("/proc/self/ns/ipc")?.into());
    count().map_err(|e| directory_trouble("the namespace", &e))
}

/// Shows or sets limits; what is to be printed.
pub fn limits(limits: Limits) -> Result<String, Failure> {
    let library = go(&limits.at)?;
    let mut text = String::new();
    for request in &limits.limits {
        match request.value {
            Some(value) => set(request.name, value)?,
            None => {
                let _ = writeln!(text, "{}", get(request.name)?);
            }
        }
    }
    if limits.limits.is_empty() { show(&library, limits.json) } else { Ok(text) }
}

fn show(library: &Preloaded, as_json: bool) -> Result<String, Failure> {
    let mut values = Vec::new();
    for name in NAMES {
        values.push((name, get(name)?));
    }
    let queues = queues(library)?;
    let own = |uid: u32, value: Value| if uid == payer() { value } else { Value::Null };
    let limit = rlimit().map_or("unlimited".into(), Value::from);
    let accounts = charged(library)?;
    let rows = |bytes: u64| rlimit().map_or("unlimited".into(), |limit| Value::from(limit.saturating_sub(bytes)));
    let accounts = Table {
        name: "rlimit_msgqueue",
        headings: vec![
            Heading { name: "USER", kind: Kind::Text },
            Heading { name: "CHARGED", kind: Kind::Number },
            Heading { name: "LIMIT", kind: Kind::Number },
            Heading { name: "LEFT", kind: Kind::Number },
        ],
        rows: accounts
            .iter()
            .map(|&(uid, bytes)| vec![user(uid).into(), bytes.into(), own(uid, limit.clone()), own(uid, rows(bytes))])
            .collect(),
    };
    if as_json {
        let values: Value = values.iter().map(|&(name, value)| (name.to_string(), Value::from(value))).collect();
        let accounts: Value = serde_json::from_str(&accounts.json()).unwrap_or_default();
        let all = json!({ "limits": values, "queues": queues, "rlimit_msgqueue": accounts["rlimit_msgqueue"] });
        return Ok(format!("{all:#}\n"));
    }
    let table = Table {
        name: "limits",
        headings: vec![
            Heading { name: "LIMIT", kind: Kind::Text },
            Heading { name: "VALUE", kind: Kind::Number },
            Heading { name: "USED", kind: Kind::Number },
        ],
        rows: values
            .iter()
            .map(|&(name, value)| {
                let used = if name == "queues_max" { queues.into() } else { Value::Null };
                vec![name.into(), value.into(), used]
            })
            .collect(),
    };
    let value = |name| values.iter().find(|(known, _)| *known == name).map_or(0, |&(_, value)| value.max(0) as u64);
    let default = Attributes {
        maxmsg: value("msg_default").min(value("msg_max")),
        msgsize: value("msgsize_default").min(value("msgsize_max")),
        messages: 0,
    };
    let mut text = format!("{}\nRLIMIT_MSGQUEUE, bytes:\n{}", table.aligned(true, None), accounts.aligned(true, None));
    if std::env::var_os("MQNS_LIMITS").is_some_and(|which| which == "generous") {
        text.push_str("MQNS_LIMITS=generous: who makes a queue here is bound by none of these.\n");
    } else if let Some(limit) = rlimit() {
        let fit = limit.saturating_sub(used(library)?) / cost(default).max(1);
        let _ = writeln!(
            text,
            "A default queue, {} x {}, is charged {} bytes: {fit} more can be made, then mq_open is EMFILE.",
            default.maxmsg,
            default.msgsize,
            cost(default)
        );
    }
    Ok(text)
}
