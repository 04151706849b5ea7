//! `mqns enter` and `mqns gc`; how the other commands reach the namespace that `--ns` names.

use std::env;
use std::ffi::{CString, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::preloaded::{Preloaded, directory_trouble, namespace_of, not_privileged};
use super::run::{Environment, Library, environment_for, prepare};
use super::{Cause, Enter, Exit, Failure, Gc, Privileges, lsns};
use crate::look::is_name;

/// Runs a command, or a shell, in the place of this process and the namespace of another; returns only if
/// that was not possible.
pub fn enter(enter: Enter) -> Failure {
    let start = || {
        let library = Library::find()?;
        let dir = enter.settings.dir.as_deref();
        let mut environment = enter.settings.environment()?;
        let by_process = enter.target.map(Namespace::Process);
        if let (Some(pid), None) = (enter.target, dir) {
            adopt_directory(&library, pid, &mut environment);
        }
        let command = if enter.command.is_empty() { vec![shell()] } else { enter.command };
        let ready = prepare(&library, environment, command)?;
        let preloaded = Preloaded::here(&library, &ready.environment)?;
        // One of the two is required.
        if let Some(namespace) = by_process.as_ref().or(enter.ns.as_ref()) {
            go_to(&library, &preloaded, namespace, dir, &ready.environment, Missing::Refuse)?;
        }
        ready.execute()
    };
    match start() {
        Ok(never) => match never {},
        Err(failure) => failure,
    }
}

fn shell() -> OsString {
    env::var_os("SHELL").filter(|shell| !shell.is_empty()).unwrap_or("/bin/sh".into())
}

/// Takes `MQNS_DIR` from a process that was started with the library: by another directory its initial
/// namespace would be another one.
pub fn adopt_directory(library: &Library, pid: u32, environment: &mut Environment) {
    // Nothing, if it has ended or may not be looked into: then it cannot be entered either.
    let variables = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let variable = |name: &[u8]| {
        let value = |variable: &[u8]| Some(variable.strip_prefix(name)?.strip_prefix(b"=")?.to_vec());
        variables.split(|&b| b == 0).find_map(value).map(OsString::from_vec)
    };
    if variable(b"LD_PRELOAD").is_some_and(|list| library.is_in(&list)) {
        match variable(b"MQNS_DIR") {
            Some(dir) => environment.set("MQNS_DIR", dir),
            None => environment.remove("MQNS_DIR"),
        }
    }
}

/// Takes away what killed processes have left; what to say about it.
pub fn collect(gc: Gc) -> Result<String, Failure> {
    let library = Library::find()?;
    let environment = environment_for(gc.dir.as_deref())?;
    let ended = Preloaded::here(&library, &environment)?.collect()?;
    Ok(match ended {
        _ if gc.quiet => String::new(),
        1 => "ended 1 namespace that had no process left\n".into(),
        n => format!("ended {n} namespaces that had no process left\n"),
    })
}

/// Whose queues are to be seen.
#[derive(Clone)]
pub enum Namespace {
    Process(u32),
    /// The number of `mqns lsns`.
    Number(u64),
    /// The name that `mqns run --ns` has given it.
    Named(CString),
    File(PathBuf),
}

/// What becomes of a name that no namespace has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// A namespace is made that has it.
    Make,
    /// That is an error.
    Refuse,
}

/// Process ids do not go beyond (PID_MAX_LIMIT, proc(5)), and no namespace has so low a number.
const PID_MAX_LIMIT: u64 = 1 << 22;

impl From<std::ffi::OsString> for Namespace {
    fn from(text: std::ffi::OsString) -> Namespace {
        match text.to_str().filter(|text| text.bytes().all(|b| b.is_ascii_digit())).and_then(|t| t.parse::<u64>().ok())
        {
            Some(number) => match u32::try_from(number) {
                Ok(pid) if number <= PID_MAX_LIMIT => Namespace::Process(pid),
                _ => Namespace::Number(number),
            },
            None if is_name(text.as_bytes()) => Namespace::Named(CString::new(text.into_vec()).unwrap_or_default()),
            None => Namespace::File(text.into()),
        }
    }
}

/// The environment in which the second image works. `MQNS_MOUNT` is not for it: what a program is shown by that
/// would be in front of what is mounted.
pub fn environment(dir: Option<&Path>, privileges: Option<Privileges>) -> Result<Environment, Failure> {
    let mut environment = environment_for(dir)?;
    environment.set_privileges(privileges);
    environment.remove("MQNS_MOUNT");
    Ok(environment)
}

/// The library in this process, in the namespace that is asked for, or that of the caller.
pub fn second_image(
    namespace: Option<&Namespace>,
    dir: Option<&Path>,
    privileges: Option<Privileges>,
) -> Result<Preloaded, Failure> {
    let library = Library::find()?;
    let own = environment(dir, privileges)?;
    let mut environment = own.clone();
    if let (Some(Namespace::Process(pid)), None) = (namespace, dir) {
        adopt_directory(&library, *pid, &mut environment);
    }
    let preloaded = Preloaded::here(&library, &environment)?;
    if let Some(namespace) = namespace {
        go_to(&library, &preloaded, namespace, dir, &own, Missing::Refuse)?;
    }
    Ok(preloaded)
}

/// Goes to a namespace. `own` is the environment of this image, before a process's directory was adopted.
pub fn go_to(
    library: &Library,
    preloaded: &Preloaded,
    namespace: &Namespace,
    dir: Option<&Path>,
    own: &Environment,
    missing: Missing,
) -> Result<(), Failure> {
    match namespace {
        Namespace::Process(pid) => preloaded.enter(*pid),
        Namespace::File(file) => enter_file(preloaded, file),
        Namespace::Named(name) => enter_named(preloaded, name, missing),
        Namespace::Number(number) => {
            let (pid, environment) = member(library, *number, own)?;
            if dir.is_none() && environment.get("MQNS_DIR") != own.get("MQNS_DIR") {
                // Whose state is in another directory.
                match preloaded.again(library, environment)? {}
            }
            preloaded.enter(pid)
        }
    }
}

fn enter_named(preloaded: &Preloaded, name: &CString, missing: Missing) -> Result<(), Failure> {
    let Err(error) = preloaded.enter_named(name, missing == Missing::Make) else { return Ok(()) };
    let object = format!("namespace {}", name.to_string_lossy());
    Err(match error.raw_os_error() {
        Some(libc::ENOENT) => {
            let remedy = "`mqns lsns` shows names; `mqns run --ns NAME -- CMD` makes one, for as long as CMD runs; \
                          files are named with a slash";
            Failure::new(Exit::Failed, object, "none of yours has this name", remedy)
        }
        Some(libc::EACCES) => {
            let cause = "your directory in that of the queues is somebody else's";
            Failure::new(Exit::Failed, object, cause, "remove it as root, or name another directory by --dir")
        }
        Some(libc::EDQUOT) => {
            let remedy = "end some (mqns lsns -o NAME,PID), or name another directory by --dir";
            Failure::new(Exit::Failed, object, "1024 of yours have names already", remedy)
        }
        _ => directory_trouble(object, &error),
    })
}

fn enter_file(preloaded: &Preloaded, path: &Path) -> Result<(), Failure> {
    let fail = |cause: &dyn std::fmt::Display, remedy: &str| {
        Err(Failure::new(Exit::Failed, format_args!("namespace {}", path.display()), cause, remedy))
    };
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return fail(
                &"no such file",
                "--ns takes a name or number of `mqns lsns`, a process id, or a namespace file (/proc/PID/ns/ipc)",
            );
        }
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return fail(&Cause(&e), "do it as root"),
        Err(e) => return fail(&Cause(&e), "check the file"),
    };
    match preloaded.join(&file) {
        Ok(()) => Ok(()),
        Err(e) => match e.raw_os_error() {
            Some(libc::EPERM) => Err(not_privileged(format_args!("namespace {}", path.display()))),
            Some(libc::EINVAL) => fail(
                &"not the file of an IPC namespace, or of one that has ended",
                "--ns takes /proc/PID/ns/ipc, or what that was bind mounted on; see `mqns lsns`",
            ),
            _ => fail(&Cause(&e), "check the file and the directory of the queues (--dir)"),
        },
    }
}

/// A process in the namespace with that number, and an environment with its directory: of several one that has
/// the caller's. (By each directory the initial namespace is another one; its number is the same.)
fn member(library: &Library, number: u64, own: &Environment) -> Result<(u32, Environment), Failure> {
    let mut found = None;
    for pid in lsns::processes()? {
        // Others have ended, or may not be looked into.
        let link = fs::read_link(namespace_of(pid)).ok();
        if link.and_then(|link| lsns::id(link.as_os_str().as_bytes())) != Some(number) {
            continue;
        }
        let mut environment = own.clone();
        adopt_directory(library, pid, &mut environment);
        let is_own = environment.get("MQNS_DIR") == own.get("MQNS_DIR");
        if is_own || found.is_none() {
            found = Some((pid, environment));
        }
        if is_own {
            break;
        }
    }
    found.ok_or_else(|| {
        let cause = "no process in it that may be looked into";
        let remedy = "see `mqns lsns`; of other users' processes only root finds the namespaces";
        Failure::new(Exit::Failed, format_args!("namespace {number}"), cause, remedy)
    })
}
