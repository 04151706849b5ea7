//! `mqns enter` and `mqns gc`.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;

use super::preloaded::Preloaded;
use super::run::{Environment, Library, environment_for, prepare};
use super::{Enter, Failure, Gc};

/// Runs a command, or a shell, in the place of this process and the namespace of another; returns only if
/// that was not possible.
pub fn enter(enter: Enter) -> Failure {
    let start = || {
        let library = Library::find()?;
        let mut environment = enter.settings.environment()?;
        if enter.settings.dir.is_none() {
            adopt_directory(&library, enter.target, &mut environment);
        }
        let command = if enter.command.is_empty() { vec![shell()] } else { enter.command };
        let ready = prepare(&library, environment, command)?;
        Preloaded::here(&library, &ready.environment)?.enter(enter.target)?;
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
