//! `mqns run`: puts libmqns.so in front of a command and becomes it.
//!
//! What the loader would ignore without a word (a static program, one that gains privilege, one
//! for another machine or C library) is found out before, and said.

use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::elf::{Elf, Image, image};
use super::namespace::{Missing, Namespace, adopt_directory, go_to};
use super::preloaded::Preloaded;
use super::{Cause, Exit, Failure, Poll, Privileges, Run, Settings, WhichLimits};

/// Runs the command in the place of this process; returns only if that was not possible.
pub fn run(run: Run) -> Failure {
    let start = || {
        let library = Library::find()?;
        let mut environment = run.settings.environment()?;
        if let (Some(Namespace::Process(pid)), None) = (&run.ns, &run.settings.dir) {
            adopt_directory(&library, *pid, &mut environment);
        }
        let ready = prepare(&library, environment, run.command)?;
        // The command's environment is this program's as well.
        let here = || Preloaded::here(&library, &ready.environment);
        if run.fresh {
            here()?.unshare()?;
        } else if let Some(namespace) = &run.ns {
            let own = &ready.environment;
            go_to(&library, &here()?, namespace, run.settings.dir.as_deref(), own, Missing::Make)?;
        }
        ready.execute()
    };
    match start() {
        Ok(never) => match never {},
        Err(failure) => failure,
    }
}

/// What a function gives that returns only if it fails.
pub enum Never {}

/// An environment for execve(2).
#[derive(Clone)]
pub struct Environment(Vec<(OsString, OsString)>);

impl Environment {
    /// That of this process.
    pub fn own() -> Environment {
        Environment(env::vars_os().collect())
    }

    pub fn set(&mut self, name: &str, value: impl Into<OsString>) {
        self.remove(name);
        self.0.push((name.into(), value.into()));
    }

    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(n, _)| n != name);
    }

    pub fn get(&self, name: &str) -> Option<OsString> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone())
    }

    /// For std's `Command`.
    pub fn variables(&self) -> impl Iterator<Item = (&OsString, &OsString)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    /// By `--privileges`, if given.
    pub fn set_privileges(&mut self, privileges: Option<Privileges>) {
        if let Some(privileges) = privileges {
            let generous = matches!(privileges, Privileges::Generous);
            self.set("MQNS_PRIVILEGES", if generous { "generous" } else { "exact" });
        }
    }

    /// Puts the library in front of what is preloaded anyway.
    pub fn preload(&mut self, library: &Library) {
        self.set("LD_PRELOAD", preload(&library.path, self.get("LD_PRELOAD")));
    }
}

impl Settings {
    /// The environment that a command gets by these options.
    pub fn environment(&self) -> Result<Environment, Failure> {
        let mut environment = Environment::own();
        environment.remove(super::preloaded::MARKER);
        if let Some(dir) = &self.dir {
            environment.set("MQNS_DIR", state_directory(dir)?);
        }
        environment.set_privileges(self.privileges);
        if let Some(limits) = self.limits {
            environment.set("MQNS_LIMITS", if let WhichLimits::Generous = limits { "generous" } else { "exact" });
        }
        if let Some(poll) = self.poll {
            environment.set("MQNS_POLL", if let Poll::Always = poll { "always" } else { "auto" });
        }
        if let Some(log) = &self.log {
            environment.set("MQNS_LOG", if log.as_os_str() == "stderr" { log.clone() } else { absolute(log)? });
        }
        if !self.mount.is_empty() {
            environment.set("MQNS_MOUNT", mount_list(&self.mount)?);
        }
        Ok(environment)
    }
}

/// The list for `MQNS_MOUNT`. The directories may be missing.
fn mount_list(dirs: &[PathBuf]) -> Result<OsString, Failure> {
    let mut list = OsString::new();
    for dir in dirs {
        let fail = |cause: &str, remedy: &str| Err(Failure::new(Exit::Failed, dir.display(), cause, remedy));
        let path = absolute(dir)?;
        if path.as_os_str().as_bytes().contains(&b':') {
            return fail("a colon in the path, which MQNS_MOUNT cannot hold", "name another directory by --mount");
        }
        if fs::metadata(&path).is_ok_and(|meta| !meta.is_dir()) {
            return fail("not a directory", "--mount takes a directory, or a name that does not exist");
        }
        if !list.is_empty() {
            list.push(":");
        }
        list.push(path);
    }
    Ok(list)
}

/// All that execve(2) wants.
pub struct Ready {
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
    pub environment: Environment,
}

/// Finds a command, and finds out that the library can be preloaded into it.
pub fn prepare(library: &Library, mut environment: Environment, command: Vec<OsString>) -> Result<Ready, Failure> {
    let program = find_command(&command[0])?;
    let uses_asan = library.check(&program)?;
    environment.preload(library);
    if uses_asan && let Some(options) = asan_options(environment.get("ASAN_OPTIONS")) {
        environment.set("ASAN_OPTIONS", options);
    }
    Ok(Ready { program, arguments: command, environment })
}

pub fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|e| {
        Failure::new(Exit::Failed, path.display(), e, "give an absolute path, or go to a directory that exists")
    })
}

/// The directory for `MQNS_DIR`. It may be missing: the library makes it, with the right mode, but
/// not those above it.
fn state_directory(dir: &Path) -> Result<PathBuf, Failure> {
    let dir = absolute(dir)?;
    match directory(&dir, "--dir takes a directory, or a new name in a directory that exists") {
        Err((_, io::ErrorKind::NotFound)) if dir.parent().is_some_and(Path::is_dir) => Ok(dir),
        Err((failure, _)) => Err(failure),
        Ok(()) => Ok(dir),
    }
}

/// The environment in which mqns itself works on a directory that must be there.
pub fn environment_for(dir: Option<&Path>) -> Result<Environment, Failure> {
    let mut environment = Environment::own();
    environment.remove(super::preloaded::MARKER);
    if let Some(dir) = dir {
        let dir = absolute(dir)?;
        directory(&dir, "--dir takes the directory that programs were run with").map_err(|(failure, _)| failure)?;
        environment.set("MQNS_DIR", dir);
    }
    Ok(environment)
}

fn directory(dir: &Path, remedy: &str) -> Result<(), (Failure, io::ErrorKind)> {
    let fail = |cause: &dyn std::fmt::Display, kind| (Failure::new(Exit::Failed, dir.display(), cause, remedy), kind);
    match fs::metadata(dir) {
        Ok(meta) if meta.is_dir() => Ok(()),
        Ok(_) => Err(fail(&"not a directory", io::ErrorKind::NotADirectory)),
        Err(e) => Err(fail(&Cause(&e), e.kind())),
    }
}

/// The library that is preloaded.
pub struct Library {
    path: PathBuf,
    elf: Elf,
}

impl Library {
    /// `libmqns.so`: `$MQNS_LIB`, else where a build or an installation puts it.
    pub fn find() -> Result<Library, Failure> {
        let fail = |object: &Path, cause: &str| {
            let remedy = "set MQNS_LIB to the path of libmqns.so (`cargo build --release` makes target/release/libmqns.so), or \
                          put it in place by `scripts/install`";
            Failure::new(Exit::Failed, object.display(), cause, remedy)
        };
        let path = match env::var_os("MQNS_LIB").filter(|lib| !lib.is_empty()) {
            Some(lib) => absolute(Path::new(&lib))?,
            None => beside_us().ok_or_else(|| fail(Path::new("libmqns.so"), "not found beside mqns nor in ../lib"))?,
        };
        // "The items of the list can be separated by spaces or colons, and there is no support for
        // escaping either separator" (ld.so(8)).
        if path.as_os_str().as_bytes().iter().any(|b| matches!(b, b' ' | b':')) {
            return Err(fail(&path, "a blank or colon in the path, which LD_PRELOAD cannot hold"));
        }
        match image(&path) {
            Ok(Image::Elf(elf)) => Ok(Library { path, elf }),
            Ok(_) => Err(fail(&path, "not a shared library")),
            Err(e) => Err(fail(&path, &Cause(&e).to_string())),
        }
    }

    /// What the loader is told.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is in the list of a process's `LD_PRELOAD`, there or elsewhere.
    pub fn is_in(&self, list: &OsStr) -> bool {
        let same = |item: &[u8]| {
            let item = Path::new(OsStr::from_bytes(item));
            item == self.path || item.file_name().is_some_and(|name| name == "libmqns.so")
        };
        items(list).any(same)
    }

    /// Finds out whether it can be preloaded into a program, and whether that needs AddressSanitizer's
    /// runtime.
    pub fn check(&self, program: &Path) -> Result<bool, Failure> {
        Check { library: &self.elf }.file(program, 0)
    }
}

/// The library of the build tree or installation that this executable belongs to; else the one built together with it.
fn beside_us() -> Option<PathBuf> {
    let command = env::current_exe().ok()?;
    let bin = command.parent()?.to_path_buf();
    let lib = bin.parent()?.join("lib");
    let mut candidates = vec![bin.join("libmqns.so"), lib.join("libmqns.so"), lib.join("mqns/libmqns.so")];
    // Debian's multiarch directories, lib/x86_64-linux-gnu.
    let mut multiarch: Vec<_> = fs::read_dir(&lib).into_iter().flatten().flatten().map(|e| e.path()).collect();
    multiarch.sort();
    candidates.extend(multiarch.into_iter().map(|dir| dir.join("mqns/libmqns.so")));
    candidates.into_iter().find(|path| path.is_file()).or_else(|| built_with(&command))
}

/// The library where the build has left it, for `cargo install` (build.rs). Not somebody else's, who has since made that
/// path his own.
fn built_with(command: &Path) -> Option<PathBuf> {
    let library = PathBuf::from(option_env!("MQNS_BUILT_LIBRARY")?);
    let owner = |path: &Path| fs::metadata(path).ok().filter(|meta| meta.is_file()).map(|meta| meta.uid());
    let theirs = owner(&library)?;
    (theirs == 0 || Some(theirs) == owner(command)).then_some(library)
}

/// The library, then what was to be preloaded before. Once is enough: `mqns run` may be nested.
fn preload(library: &Path, before: Option<OsString>) -> OsString {
    let mut list = library.as_os_str().to_owned();
    for item in items(&before.unwrap_or_default()) {
        if item != library.as_os_str().as_bytes() {
            list.push(":");
            list.push(OsStr::from_bytes(item));
        }
    }
    list
}

/// The items of `LD_PRELOAD`.
fn items(list: &OsStr) -> impl Iterator<Item = &[u8]> {
    list.as_bytes().split(|b| matches!(b, b' ' | b':')).filter(|item| !item.is_empty())
}

/// AddressSanitizer's runtime refuses to start behind a preloaded library. Standing behind ours is
/// no harm to it: it finds the next definitions as usual. The alternative, preloading the runtime
/// too, would put it into every program that the command starts.
fn asan_options(before: Option<OsString>) -> Option<OsString> {
    const OPTION: &str = "verify_asan_link_order";
    let mut options = before.unwrap_or_default();
    if options.to_string_lossy().contains(OPTION) {
        return None;
    }
    if !options.is_empty() {
        options.push(":");
    }
    options.push(OPTION);
    options.push("=0");
    Some(options)
}

/// Where execvp(3) would find the command.
fn find_command(name: &OsStr) -> Result<PathBuf, Failure> {
    let not_found =
        |cause: &dyn std::fmt::Display, remedy: &str| Failure::new(Exit::NotFound, name.display(), cause, remedy);
    if name.is_empty() {
        return Err(Failure::new(Exit::NotFound, "''", "no such command", "give one after `--`"));
    }
    if name.as_bytes().contains(&b'/') {
        let path = PathBuf::from(name);
        return match fs::metadata(&path) {
            Ok(meta) if meta.is_dir() => {
                Err(Failure::new(Exit::CannotRun, name.display(), "is a directory", "name a program"))
            }
            Ok(_) if executable(&path) => Ok(path),
            Ok(_) => Err(no_permission(&path)),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Err(no_permission(&path)),
            Err(e) => Err(not_found(&Cause(&e), "check the path")),
        };
    }
    // execvp(3): a file that may not be executed is passed over, and remembered.
    let mut refused = None;
    for dir in env::split_paths(&env::var_os("PATH").unwrap_or("/bin:/usr/bin".into())) {
        // An empty item is the current directory.
        let path = if dir.as_os_str().is_empty() { Path::new(".").join(name) } else { dir.join(name) };
        if path.is_file() {
            if executable(&path) {
                return Ok(path);
            }
            refused.get_or_insert(path);
        }
    }
    match refused {
        Some(path) => Err(no_permission(&path)),
        None => Err(not_found(&"no such command in PATH", "check its name, or give a path with a slash")),
    }
}

fn no_permission(path: &Path) -> Failure {
    let cause = "permission to execute is denied";
    Failure::new(Exit::CannotRun, path.display(), cause, "chmod +x the file, or check its directories and mount")
}

/// A path as system calls take it; `None`: it has a NUL.
pub fn c_path(path: &Path) -> Option<CString> {
    CString::new(path.as_os_str().as_bytes()).ok()
}

/// Whether this process may execute it.
pub fn executable(path: &Path) -> bool {
    // SAFETY: a NUL-terminated path; nothing else is accessed.
    c_path(path)
        .is_some_and(|p| unsafe { libc::faccessat(libc::AT_FDCWD, p.as_ptr(), libc::X_OK, libc::AT_EACCESS) } == 0)
}

/// Finds out whether the loader will preload the library into a program.
struct Check<'a> {
    library: &'a Elf,
}

/// Interpreters of scripts may be scripts, so deep (execve(2): ELOOP).
const DEEPEST: u32 = 5;

impl Check<'_> {
    /// Whether the program needs AddressSanitizer's runtime.
    fn file(&self, path: &Path, depth: u32) -> Result<bool, Failure> {
        let refuse = |cause: &str, remedy: &str| Err(Failure::new(Exit::CannotRun, path.display(), cause, remedy));
        match image(path) {
            Ok(Image::Elf(elf)) => self.elf(path, &elf),
            Ok(Image::Script { .. }) if depth == DEEPEST => {
                refuse("too many interpreters that are scripts themselves", "name a program in the first line")
            }
            Ok(Image::Script { interpreter, argument }) => {
                if !interpreter.exists() {
                    return Err(Failure::new(
                        Exit::NotFound,
                        path.display(),
                        format_args!("its interpreter {} does not exist", interpreter.display()),
                        "install it, or correct the first line of the script",
                    ));
                }
                let asan = self.file(&interpreter, depth + 1)?;
                match started_by_env(&interpreter, argument.as_deref()) {
                    Some(program) => self.file(&program, depth + 1),
                    None => Ok(asan),
                }
            }
            Ok(Image::Text) => self.file(Path::new("/bin/sh"), DEEPEST),
            Ok(Image::Unknown) => {
                refuse("neither an ELF program nor a script", "run it by its interpreter: mqns run -- INTERPRETER FILE")
            }
            // It may be executed without being readable; then nothing can be checked.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(false),
            Err(e) => Err(Failure::new(Exit::CannotRun, path.display(), Cause(&e), "check the file")),
        }
    }

    fn elf(&self, path: &Path, elf: &Elf) -> Result<bool, Failure> {
        let refuse = |cause: &dyn std::fmt::Display, remedy: &dyn std::fmt::Display| {
            Err(Failure::new(Exit::CannotRun, path.display(), cause, remedy))
        };
        if elf.target != self.library.target {
            return refuse(
                &format_args!("a program for {}, libmqns.so is for {}", elf.target_name(), self.library.target_name()),
                &"build libmqns.so for that target and set MQNS_LIB to it",
            );
        }
        let Some(loader) = &elf.loader else {
            return refuse(
                &"statically linked, so that no library can be preloaded into it",
                &"link it dynamically (without -static; Rust: -C target-feature=-crt-static; Go: with cgo)",
            );
        };
        if elf.libc() != self.library.libc() {
            return refuse(
                &format_args!(
                    "runs with {} ({}), libmqns.so with {}",
                    elf.libc().name(),
                    loader.display(),
                    self.library.libc().name()
                ),
                &"build libmqns.so with the same C library and set MQNS_LIB to it",
            );
        }
        if !loader.exists() {
            return Err(Failure::new(
                Exit::NotFound,
                path.display(),
                format_args!("its loader {} does not exist", loader.display()),
                "install the C library it was built for",
            ));
        }
        if let Some(gain) = gains_privilege(path) {
            return refuse(
                &format_args!("{gain}: the loader preloads nothing into a program that gains privilege"),
                &"run it as that user to begin with, or run a copy without the privilege",
            );
        }
        Ok(elf.needs("libasan.so"))
    }
}

/// `#!/usr/bin/env PROGRAM` and `#!/usr/bin/env -S PROGRAM …`: the program, if it is to be found.
fn started_by_env(interpreter: &Path, argument: Option<&OsStr>) -> Option<PathBuf> {
    if interpreter.file_name()? != "env" {
        return None;
    }
    let argument = argument?.as_bytes();
    let split = argument.strip_prefix(b"-S").or_else(|| argument.strip_prefix(b"--split-string="));
    let mut words: Box<dyn Iterator<Item = &[u8]>> = match split {
        Some(rest) => Box::new(rest.split(|b| b.is_ascii_whitespace()).filter(|w| !w.is_empty())),
        None => Box::new([argument].into_iter()),
    };
    let program = words.find(|word| !word.starts_with(b"-") && !word.contains(&b'='))?;
    find_command(OsStr::from_bytes(program)).ok()
}

/// What makes the kernel start a program in secure mode (`AT_SECURE` in getauxval(3)), in words.
fn gains_privilege(path: &Path) -> Option<String> {
    let meta = fs::metadata(path).ok()?;
    // SAFETY: no arguments, or numbers only.
    let (uid, euid, gid, egid, no_new_privs) = unsafe {
        (
            libc::getuid(),
            libc::geteuid(),
            libc::getgid(),
            libc::getegid(),
            libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0),
        )
    };
    let path = c_path(path)?;
    // SAFETY: all zeros is a value of this plain C structure.
    let mut fs: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: a NUL-terminated path, and a structure for the result.
    let nosuid = unsafe { libc::statvfs(path.as_ptr(), &mut fs) } == 0 && fs.f_flag & libc::ST_NOSUID != 0;
    let heeded = no_new_privs != 1 && !nosuid;
    let set_uid = heeded && meta.mode() & libc::S_ISUID != 0;
    let set_gid = heeded && meta.mode() & (libc::S_ISGID | libc::S_IXGRP) == libc::S_ISGID | libc::S_IXGRP;
    if set_uid && meta.uid() != uid {
        return Some(format!("set-user-ID, to uid {}", meta.uid()));
    }
    if set_gid && meta.gid() != gid {
        return Some(format!("set-group-ID, to gid {}", meta.gid()));
    }
    if (!set_uid && euid != uid) || (!set_gid && egid != gid) {
        return Some("mqns itself runs with an effective user or group that is not the real one".into());
    }
    // SAFETY: NUL-terminated strings, and no buffer: only the length is asked for.
    let capabilities =
        unsafe { libc::getxattr(path.as_ptr(), c"security.capability".as_ptr(), std::ptr::null_mut(), 0) };
    (heeded && euid != 0 && capabilities > 0).then(|| "has file capabilities".into())
}

impl Ready {
    /// execve(2). Not by std's `Command`, which would reset SIGPIPE and the signal mask.
    pub fn execute(self) -> Result<Never, Failure> {
        let fail = |cause: &dyn std::fmt::Display, remedy: &str| {
            Failure::new(Exit::CannotRun, self.program.display(), cause, remedy)
        };
        let strings = |list: Vec<Vec<u8>>| list.into_iter().map(CString::new).collect::<Result<Vec<_>, _>>();
        let pointers = |list: &[CString]| list.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>();
        let variable = |(name, value): &(OsString, OsString)| [name.as_bytes(), b"=", value.as_bytes()].concat();
        let arguments = self.arguments.into_iter().map(OsString::into_vec).collect();
        let environment = self.environment.0.iter().map(variable).collect();
        let (Some(path), Ok(mut arguments), Ok(environment)) =
            (c_path(&self.program), strings(arguments), strings(environment))
        else {
            return Err(fail(&"a NUL in its path, an argument or a variable", "leave it out"));
        };
        let env = pointers(&environment);
        // SAFETY: NUL-terminated strings, lists ended by a null pointer; all of it outlives the call.
        unsafe { libc::execve(path.as_ptr(), pointers(&arguments).as_ptr(), env.as_ptr()) };
        let mut error = io::Error::last_os_error();
        if error.raw_os_error() == Some(libc::ENOEXEC) {
            // execvp(3): "these functions will execute the shell with the path of the file as its
            // first argument".
            arguments.splice(0..1, [c"sh".to_owned(), path]);
            // SAFETY: as above.
            unsafe { libc::execve(c"/bin/sh".as_ptr(), pointers(&arguments).as_ptr(), env.as_ptr()) };
            error = io::Error::last_os_error();
        }
        let too_long = error.raw_os_error() == Some(libc::E2BIG);
        let remedy =
            if too_long { "pass less in arguments and environment" } else { "check the file and where it lies" };
        Err(fail(&Cause(&error), remedy))
    }
}
