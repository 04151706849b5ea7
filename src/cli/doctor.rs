//! `mqns doctor`: what works here, what does not, and what to do about it.
//!
//! This process looks at the kernel, the directory, the library's file and the process that was asked about, as any
//! program without the library sees them. What only the library knows is told by a child with the library in it, which
//! may fail: that is a finding, too.

use std::ffi::{CStr, OsStr, OsString};
use std::fmt::{Display, Write as _};
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::elf::{Image, image};
use super::look::{self, cost};
use super::lsns::{id, user};
use super::namespace::adopt_directory;
use super::preloaded::{MARKER, OURSELVES, Preloaded, namespace_of};
use super::queue::Attributes;
use super::run::{Environment, Library, c_path};
use super::table::printable;
use super::{Cause, Doctor, Exit, Failure, limits, print};
use crate::look::Formats;

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Ok,
    /// Good to know.
    Note,
    /// Something will not work.
    Problem,
}

const STATES: [(State, &str); 3] = [(State::Ok, "ok"), (State::Note, "note"), (State::Problem, "problem")];

impl State {
    fn name(self) -> &'static str {
        STATES.iter().find(|(state, _)| *state == self).map_or("", |(_, name)| name)
    }
}

/// What has been found out.
struct Finding {
    state: State,
    /// What it is about.
    topic: String,
    text: String,
    remedy: Option<String>,
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn ok(&mut self, topic: &str, text: impl Display) {
        self.0.push(Finding { state: State::Ok, topic: topic.into(), text: text.to_string(), remedy: None });
    }

    fn note(&mut self, topic: &str, text: impl Display, remedy: impl Display) {
        self.add(State::Note, topic, text, remedy);
    }

    fn problem(&mut self, topic: &str, text: impl Display, remedy: impl Display) {
        self.add(State::Problem, topic, text, remedy);
    }

    fn add(&mut self, state: State, topic: &str, text: impl Display, remedy: impl Display) {
        let (text, remedy) = (text.to_string(), Some(remedy.to_string()));
        self.0.push(Finding { state, topic: topic.into(), text, remedy });
    }

    /// What a command would have said when it failed.
    fn failed(&mut self, topic: &str, failure: &Failure) {
        let (text, remedy) = failure.message.split_once("; ").unwrap_or((&failure.message, ""));
        self.problem(topic, text, remedy);
    }

    fn json(&self) -> Value {
        let object = |finding: &Finding| {
            json!({
                "state": finding.state.name(),
                "topic": finding.topic,
                "text": finding.text,
                "remedy": finding.remedy,
            })
        };
        self.0.iter().map(object).collect()
    }

    fn take(&mut self, list: &Value) {
        for one in list.as_array().into_iter().flatten() {
            let text = |key: &str| one[key].as_str().map(str::to_string);
            let state =
                STATES.iter().find(|(_, name)| one["state"] == *name).map_or(State::Problem, |(state, _)| *state);
            let (topic, remedy) = (text("topic").unwrap_or_default(), text("remedy"));
            self.0.push(Finding { state, topic, text: text("text").unwrap_or_default(), remedy });
        }
    }

    fn count(&self, state: State) -> usize {
        self.0.iter().filter(|finding| finding.state == state).count()
    }

    /// For people: a line each, and one for the remedy.
    fn sheet(&self) -> String {
        let mut text = String::new();
        for Finding { state, topic, text: said, remedy } in &self.0 {
            let _ = writeln!(text, "{:<7} {topic:<9} {}", state.name(), printable(said.as_bytes()));
            if let Some(remedy) = remedy {
                let _ = writeln!(text, "{:17} -> {}", "", printable(remedy.as_bytes()));
            }
        }
        let number = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        match (self.count(State::Problem), self.count(State::Note)) {
            (0, 0) => text.push_str("All is well.\n"),
            (problems, notes) => {
                let _ = writeln!(text, "{}, {}.", number(problems, "problem"), number(notes, "note"));
            }
        }
        text
    }
}

/// Looks, and prints what has been found.
pub fn doctor(doctor: Doctor) -> Result<Exit, Failure> {
    if std::env::var_os(MARKER).is_some() {
        return print(&format!("{}\n", within(&doctor))).map(|()| Exit::Done);
    }
    let mut environment = Environment::own();
    if let Some(dir) = &doctor.dir {
        environment.set("MQNS_DIR", super::run::absolute(dir)?);
    }
    if let Some(pid) = doctor.pid
        && !Path::new(&format!("/proc/{pid}")).exists()
    {
        let remedy = "see ps(1), or `mqns lsns` for one that is there";
        return Err(Failure::new(Exit::Failed, format_args!("process {pid}"), "no such process", remedy));
    }
    let mut found = Findings::default();
    let library = library(&mut found);
    if let (Some(pid), None, Ok(library)) = (doctor.pid, &doctor.dir, &library) {
        adopt_directory(library, pid, &mut environment);
    }
    kernel(&mut found);
    let own = environment.variables().map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat());
    settings(&mut found, "settings", own);
    let is_usable = directory(&mut found, &environment);
    let told = library.as_ref().ok().map(|library| child(library, &environment));
    if let Some(Err(why)) = &told {
        found.problem(
            "library",
            format_args!("a program with it does not do what it should: {why}"),
            "set MQNS_LIB to the libmqns.so of this version (`cargo build --release` makes both)",
        );
    }
    let told = told.and_then(Result::ok);
    if let Some(told) = &told {
        found.take(&told["library"]);
        if is_usable {
            found.take(&told["directory"]);
        }
    }
    if let Some(pid) = doctor.pid {
        process(&mut found, pid, library.as_ref().ok());
        if let Some(told) = &told {
            found.take(&told["process"]);
        }
    }
    let problems = found.count(State::Problem) != 0;
    print(&if doctor.json { format!("{:#}\n", json!({ "findings": found.json() })) } else { found.sheet() })?;
    Ok(if problems { Exit::Refused } else { Exit::Done })
}

// ---- the library's file ----------------------------------------------------------------------

fn library(found: &mut Findings) -> Result<Library, ()> {
    const TOPIC: &str = "library";
    let libc = libc_version();
    if libc < (2, 34) {
        let text = format_args!("glibc {}.{}; libmqns.so needs 2.34 or later", libc.0, libc.1);
        found.problem(TOPIC, text, "use a newer system, or build a container of one");
    }
    let library = Library::find().map_err(|failure| found.failed(TOPIC, &failure))?;
    library.check(Path::new(OURSELVES)).map_err(|failure| found.failed(TOPIC, &failure))?;
    let path = library.path();
    let shown = path.display();
    let st = c_path(path).and_then(|path| statvfs(&path));
    if st.is_some_and(|st| st.f_flag & libc::ST_NOEXEC != 0) {
        let remedy = "move it to another file system, and set MQNS_LIB";
        found.problem(TOPIC, format_args!("{shown} is on a file system without execution (noexec)"), remedy);
        return Err(());
    }
    let for_all = fs::metadata(path).is_ok_and(|meta| meta.mode() & 0o444 == 0o444)
        && path.ancestors().skip(1).all(|dir| fs::metadata(dir).is_ok_and(|meta| meta.mode() & 0o001 != 0));
    if !for_all {
        let text = format_args!("{shown} cannot be read by all users: in their programs it is missing");
        found.note(TOPIC, text, "chmod it and the directories above, if programs change their user");
    }
    Ok(library)
}

fn libc_version() -> (u32, u32) {
    // SAFETY: no arguments; a string constant of libc's.
    let version = unsafe { CStr::from_ptr(libc::gnu_get_libc_version()) }.to_string_lossy();
    let mut numbers = version.split('.').map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// What the child tells, or why it does not.
fn child(library: &Library, environment: &Environment) -> Result<Value, String> {
    let mut environment = environment.clone();
    environment.preload(library);
    environment.set(MARKER, "1");
    environment.set("MQNS_LOG", "stderr");
    environment.remove("MQNS_MOUNT");
    let mut command = Command::new(OURSELVES);
    command.args(std::env::args_os().skip(1)).env_clear().envs(environment.variables());
    let output = command.output().map_err(|e| Cause(&e).to_string())?;
    let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    match serde_json::from_slice(&output.stdout) {
        Ok(told) if output.status.success() => Ok(told),
        _ if said.is_empty() => Err(output.status.to_string()),
        _ => Err(said),
    }
}

// ---- the kernel ------------------------------------------------------------------------------

/// Instead of an error: who has called was killed.
const KILLED: i32 = -1;

/// The error of a call that is made by a child of its own, 0 if there was none.
fn error_of(call: impl FnOnce() -> i64) -> i32 {
    // SAFETY: this process has one thread; the child makes a call and ends.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let error = if call() == -1 { io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO) } else { 0 };
        // SAFETY: no pointers.
        unsafe { libc::_exit(error) };
    }
    let mut status = 0;
    // SAFETY: a variable for the result.
    if pid == -1 || unsafe { libc::waitpid(pid, &mut status, 0) } != pid {
        return libc::EAGAIN;
    }
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { KILLED }
}

fn reason(error: i32) -> String {
    if error == KILLED {
        return "who asks is killed".into();
    }
    Cause(&io::Error::from_raw_os_error(error)).to_string()
}

fn kernel(found: &mut Findings) {
    const TOPIC: &str = "kernel";
    // Some have mq_open and nothing else, so that the others have to be asked.
    // SAFETY: no memory is passed; a kernel that has the call says EBADF.
    match error_of(|| unsafe { libc::syscall(libc::SYS_mq_timedsend, -1, 0, 0, 0, 0) }) {
        libc::EBADF => found.ok(TOPIC, "has message queues of its own, which programs without the library use"),
        error => found.note(
            TOPIC,
            format_args!("has no message queues ({}): programs without the library have none", reason(error)),
            "start programs by `mqns run`",
        ),
    }
    // SAFETY: no pointers; in a process of its own.
    let unshare = |flags| error_of(|| unsafe { libc::unshare(flags).into() });
    match unshare(libc::CLONE_NEWIPC) {
        0 => found.ok(TOPIC, "makes IPC namespaces: new ones isolate System V IPC, too"),
        error => found.note(
            TOPIC,
            format_args!("makes no IPC namespace here ({}): those of the library hold queues only", reason(error)),
            "--fresh and --ns work nevertheless; unshare(2) and setns(2) of programs with `--privileges generous`",
        ),
    }
    // SAFETY: as above; the mount is seen in the child's own mount namespace only.
    match error_of(|| unsafe {
        let none = c"none".as_ptr();
        match libc::unshare(libc::CLONE_NEWNS) {
            0 => {
                let private = libc::MS_REC | libc::MS_PRIVATE;
                libc::mount(none, c"/".as_ptr(), std::ptr::null(), private, std::ptr::null());
                libc::mount(none, c"/proc".as_ptr(), c"tmpfs".as_ptr(), 0, std::ptr::null()).into()
            }
            _ => -1,
        }
    }) {
        0 => found.ok(TOPIC, "lets this user mount: `mqns mount` shows queues to programs without the library, too"),
        error => found.note(
            TOPIC,
            format_args!("lets this user mount nothing ({})", reason(error)),
            "`mqns run --mount DIR`, or `mqns mount --privileges generous`: for programs with the library",
        ),
    }
    if unshare(libc::CLONE_NEWUSER) == 0 {
        found.ok(TOPIC, "makes user namespaces");
    } else {
        found.ok(TOPIC, "makes no user namespaces here; nothing needs them");
    }
    if status_field("self", "Seccomp").as_deref() == Some("2") {
        // SAFETY: no memory is passed.
        match error_of(|| unsafe { libc::syscall(libc::SYS_futex_waitv, 0, 0, 0, 0, 0) }) {
            // Where it is missing or forbidden an older call is used.
            libc::EINVAL | libc::ENOSYS | libc::EPERM => {
                found.ok(TOPIC, "a seccomp filter is on; what sleepers need passes it")
            }
            error => {
                let text = format_args!("a seccomp filter refuses futex_waitv ({})", reason(error));
                found.problem(TOPIC, text, "allow it, or have it say ENOSYS or EPERM");
            }
        }
    }
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let of_proc = table.lines().filter(|line| line.split(' ').nth(4) == Some("/proc"));
    if of_proc.clone().any(|line| line.contains("hidepid=") && !line.contains("hidepid=0")) && euid() != 0 {
        let text = "/proc hides processes of others (hidepid): who else has a queue open is not to be seen";
        found.note(TOPIC, text, "ask as root");
    }
}

fn euid() -> u32 {
    // SAFETY: no arguments.
    unsafe { libc::geteuid() }
}

/// The rest of a line of /proc/PID/status.
fn status_field(pid: &str, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().to_string())
}

/// Variables with a value that the library takes for the default: misspelt, as a rule.
fn settings(found: &mut Findings, topic: &str, variables: impl Iterator<Item = Vec<u8>>) {
    const VALUES: [(&str, [&str; 2]); 3] = [
        ("MQNS_LIMITS", ["exact", "generous"]),
        ("MQNS_PRIVILEGES", ["exact", "generous"]),
        ("MQNS_POLL", ["auto", "always"]),
    ];
    for variable in variables {
        let text = String::from_utf8_lossy(&variable);
        let Some((name, value)) = text.split_once('=') else { continue };
        if let Some((_, values)) = VALUES.iter().find(|(known, values)| name == *known && !values.contains(&value)) {
            let [default, other] = values;
            let text = format_args!("{name}={value} means nothing, and counts as {default}");
            found.problem(topic, text, format_args!("set it to {default} or {other}"));
        }
    }
}

// ---- the directory ---------------------------------------------------------------------------

fn statvfs(path: &CStr) -> Option<libc::statvfs> {
    // SAFETY: all zeros is a value of this plain C structure.
    let mut st: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: a NUL-terminated path, and a structure for the result.
    (unsafe { libc::statvfs(path.as_ptr(), &mut st) } == 0).then_some(st)
}

/// Where the library goes with these variables, and whose that has to be. See the library's `ns::root`.
pub fn root(environment: &Environment) -> (PathBuf, Option<u32>) {
    if let Some(dir) = environment.get("MQNS_DIR").filter(|dir| !dir.is_empty()) {
        return (dir.into(), None);
    }
    let shared = PathBuf::from("/dev/shm/mqns");
    // SAFETY: no arguments.
    let uid = unsafe { libc::getuid() };
    let roots = fs::symlink_metadata(&shared).is_ok_and(|meta| meta.is_dir() && meta.uid() == 0);
    if uid == 0 || euid() == 0 || roots {
        return (shared, Some(0));
    }
    (format!("/dev/shm/mqns-{uid}").into(), Some(uid))
}

/// Bytes that a queue of default attributes needs at least, with its namespace.
const ROOM: u64 = 128 << 10;
/// Bytes of the longest file that such a queue has, most of them never touched.
const LENGTH: u64 = 34 << 20;

/// Whether the library can use it.
fn directory(found: &mut Findings, environment: &Environment) -> bool {
    let before = found.count(State::Problem);
    look_at_directory(found, environment);
    found.count(State::Problem) == before
}

fn look_at_directory(found: &mut Findings, environment: &Environment) {
    const TOPIC: &str = "directory";
    let (dir, owner) = root(environment);
    let shown = dir.display();
    let elsewhere = "name another directory by --dir (MQNS_DIR)";
    if dir.is_relative() {
        return found.problem(TOPIC, format_args!("MQNS_DIR={shown} is not an absolute path"), "write it out from /");
    }
    let is_writable = |path: &Path| {
        let may = |path: &CStr| {
            // SAFETY: a NUL-terminated path.
            unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), libc::W_OK | libc::X_OK, libc::AT_EACCESS) }
        };
        match c_path(path).map(|path| may(&path)) {
            Some(0) => Ok(()),
            _ => Err(Cause(&io::Error::last_os_error()).to_string()),
        }
    };
    let meta = match fs::metadata(&dir) {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let above = dir.parent().unwrap_or(Path::new("/"));
            return match is_writable(above) {
                Ok(()) => found.ok(TOPIC, format_args!("{shown}: not there yet; made when a queue is first used")),
                Err(why) => {
                    let text = format_args!("{shown}: not there, and cannot be made in {}: {why}", above.display());
                    found.problem(TOPIC, text, elsewhere);
                }
            };
        }
        Err(e) => return found.problem(TOPIC, format_args!("{shown}: {}", Cause(&e)), elsewhere),
    };
    if !meta.is_dir() {
        return found.problem(TOPIC, format_args!("{shown}: not a directory"), elsewhere);
    }
    if let Some(owner) = owner.filter(|&owner| meta.uid() != owner) {
        let text = format_args!("{shown} is {}'s, not {}'s: it is not used", user(meta.uid()), user(owner));
        return found.problem(TOPIC, text, format_args!("remove it, or {elsewhere}"));
    }
    if let Err(why) = is_writable(&dir) {
        return found.problem(TOPIC, format_args!("{shown}: {why}"), elsewhere);
    }
    if let Err((text, remedy)) = usable(&dir) {
        return found.problem(TOPIC, format_args!("{shown}: {text}"), remedy);
    }
    let mode = meta.mode() & 0o7777;
    let whose = user(meta.uid());
    if mode & 0o022 != 0 && mode & libc::S_ISVTX == 0 {
        let text = format_args!("{shown}: others may replace what is in it (mode {mode:04o})");
        found.note(TOPIC, text, format_args!("chmod 1777 {shown}, or 0700 for {whose} alone"));
    } else {
        let who = if mode & 0o002 != 0 { "for all users" } else { "for that user alone" };
        let free = c_path(&dir).and_then(|path| statvfs(&path)).map_or(0, |st| st.f_bavail * st.f_frsize);
        let free = super::table::human(free);
        found.ok(TOPIC, format_args!("{shown}: {whose}'s, {who} (mode {mode:04o}); {free} free"));
    }
}

/// Whether queues can lie there: what is in the way, and the remedy.
fn usable(dir: &Path) -> Result<(), (String, &'static str)> {
    let st = c_path(dir).and_then(|path| statvfs(&path)).ok_or((String::from("cannot be looked at"), "check it"))?;
    if st.f_flag & libc::ST_RDONLY != 0 {
        return Err(("on a file system that is mounted read-only".into(), "remount it, or name another by --dir"));
    }
    let make_room = "make room, mount it larger (-o remount,size=), or name another directory by --dir";
    if st.f_bavail * st.f_frsize < ROOM {
        let text = format!("full: {} of {} bytes are free", st.f_bavail * st.f_frsize, st.f_blocks * st.f_frsize);
        return Err((text, make_room));
    }
    if st.f_files != 0 && st.f_favail < 16 {
        return Err((format!("full: {} of {} inodes are free", st.f_favail, st.f_files), make_room));
    }
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a structure for the result.
    if unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit) } == 0 && limit.rlim_max < LENGTH {
        let text = format!("RLIMIT_FSIZE allows files of {} bytes; that of a queue is longer", limit.rlim_max);
        return Err((text, "raise the hard limit (ulimit -f)"));
    }
    // As the library does it, but without a name.
    let other = "use a tmpfs: --dir, MQNS_DIR";
    let open = fs::File::options().read(true).write(true).mode(0o600).custom_flags(libc::O_TMPFILE).open(dir);
    match open {
        // Not all have files without a name.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => {}
        Err(e) => return Err((format!("no file can be made in it: {}", Cause(&e)), other)),
        Ok(file) => {
            // SAFETY: an open descriptor, no pointers.
            let error = unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, 4096) };
            if error != 0 {
                return Err((format!("no room can be had in it: {}", reason(error)), make_room));
            }
            // SAFETY: a new mapping, of which nobody knows.
            let mapped = unsafe {
                let access = libc::PROT_READ | libc::PROT_WRITE;
                let at = libc::mmap(std::ptr::null_mut(), 4096, access, libc::MAP_SHARED, file.as_raw_fd(), 0);
                at != libc::MAP_FAILED && libc::munmap(at, 4096) == 0
            };
            if !mapped {
                return Err(("files in it cannot be mapped shared".into(), other));
            }
        }
    }
    Ok(())
}

/// Whether what lies in the directory is of the library's version.
fn versions(found: &mut Findings, dir: &Path, formats: &Formats) -> bool {
    let head = |path: &Path| {
        let mut words = [0u8; 16];
        let mut file =
            fs::File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(path).ok()?;
        let is_file = file.metadata().is_ok_and(|meta| meta.is_file());
        is_file.then(|| io::Read::read_exact(&mut file, &mut words).ok())??;
        let word = |at: usize| words[at..at + 8].iter().rev().fold(0u64, |sum, &byte| sum << 8 | u64::from(byte));
        Some((word(0), word(8)))
    };
    let list = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let named =
        |path: &PathBuf, first: u8| path.file_name().is_some_and(|name| name.as_bytes().first() == Some(&first));
    let spaces = list(dir).filter(|path| named(path, b'i'));
    let users =
        list(dir).filter(|path| named(path, b'u')).flat_map(|user| list(&user).filter(|path| named(path, b'n')));
    let mut others = Vec::new();
    let mut see = |path: PathBuf, is_it: &dyn Fn((u64, u64)) -> bool| {
        if head(&path).is_some_and(|words| !is_it(words)) {
            others.push(path);
        }
    };
    see(dir.join("accounts"), &|(magic, _)| formats.accounts == magic);
    for space in spaces.chain(users) {
        see(space.join("control"), &|(magic, _)| formats.control == magic);
        for segment in list(&space.join("q/x")).filter(|path| path.extension().is_some_and(|e| e == "s")) {
            // 0: it is being made.
            let is_format = |format| format == 0 || formats.format == format;
            see(segment, &|(magic, format)| magic == 0 || formats.segment == magic && is_format(format));
        }
    }
    let Some(first) = others.first() else { return true };
    let more = if others.len() == 1 { String::new() } else { format!(" and {} more", others.len() - 1) };
    found.problem(
        "directory",
        format_args!("{}{more}: of another version of the library, or damaged", first.display()),
        format_args!("end what uses it and remove {}, or name another directory by --dir", dir.display()),
    );
    false
}

// ---- a process -------------------------------------------------------------------------------

/// Whether the library is in a process, with which settings, and if not why.
fn process(found: &mut Findings, pid: u32, library: Option<&Library>) {
    const TOPIC: &str = "process";
    let read = |name: &str| fs::read(format!("/proc/{pid}/{name}"));
    let program = fs::read_link(format!("/proc/{pid}/exe"));
    let maps = match read("maps") {
        Ok(maps) => maps,
        Err(e) => {
            let text = format_args!("{pid} may not be looked into: {}", Cause(&e));
            return found.problem(TOPIC, text, "ask as root, or as the user whose it is");
        }
    };
    let loaded = maps.split(|&b| b == b'\n').find_map(|line| {
        let at = line.iter().position(|&b| b == b'/')?;
        let path = Path::new(OsStr::from_bytes(&line[at..]));
        let name = path.file_name()?.as_bytes();
        name.starts_with(b"libmqns.so").then(|| path.to_path_buf())
    });
    let environ = read("environ").unwrap_or_default();
    let variables: Vec<_> = environ.split(|&b| b == 0).filter(|variable| !variable.is_empty()).collect();
    let variable = |name: &str| {
        let value = |variable: &&[u8]| Some(variable.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?.to_vec());
        variables.iter().find_map(value).map(OsString::from_vec)
    };
    let name = program.as_ref().map_or_else(|_| String::from("?"), |path| path.display().to_string());
    if let Some(path) = loaded {
        let text = path.display().to_string();
        match text.strip_suffix(" (deleted)") {
            Some(gone) => found.note(
                TOPIC,
                format_args!("{pid} ({name}) has a library that has been replaced meanwhile: {gone}"),
                "start it again to have the new one",
            ),
            None => found.ok(TOPIC, format_args!("{pid} ({name}) has the library: {text}")),
        }
        let of_ours = || variables.iter().filter(|variable| variable.starts_with(b"MQNS_"));
        let shown: Vec<_> = of_ours().map(|variable| printable(variable)).collect();
        let text = if shown.is_empty() { "none: all is by default".into() } else { shown.join(" ") };
        found.ok(TOPIC, format_args!("its settings: {text}"));
        return settings(found, TOPIC, of_ours().map(|variable| variable.to_vec()));
    }
    let in_list = variable("LD_PRELOAD").is_some_and(|list| match library {
        Some(library) => library.is_in(&list),
        None => list.as_bytes().windows(10).any(|part| part == b"libmqns.so"),
    });
    let without = |why: &dyn Display| format!("{pid} ({name}) runs without the library: {why}");
    // A process of the kernel's own has no program.
    let Ok(program) = program else {
        return found.problem(TOPIC, without(&"it is the kernel's own, or ending"), "ask about a program's");
    };
    // Even if its file has been replaced meanwhile.
    let exe = PathBuf::from(format!("/proc/{pid}/exe"));
    let run = "start it by `mqns run`, or as a child of a program that was";
    if let Ok(Image::Elf(elf)) = image(&exe)
        && elf.loader.is_none()
    {
        let remedy = "link it dynamically (without -static; Rust: -C target-feature=-crt-static; Go: with cgo)";
        return found.problem(TOPIC, without(&"it is statically linked"), remedy);
    }
    const AT_SECURE: u64 = 23;
    let auxv = read("auxv").unwrap_or_default();
    let words: Vec<_> =
        auxv.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap_or_default())).collect();
    if words.chunks_exact(2).any(|pair| pair == [AT_SECURE, 1]) {
        let why = "it has gained privilege when it was started (set-user-ID, set-group-ID, capabilities)";
        return found.problem(
            TOPIC,
            without(&why),
            "run it as that user to begin with, or a copy without the privilege",
        );
    }
    if let Some(Err(failure)) = library.map(|library| library.check(&program)) {
        let (text, remedy) = failure.message.split_once("; ").unwrap_or((&failure.message, run));
        return found.problem(TOPIC, without(&text), remedy);
    }
    if in_list {
        let why = "LD_PRELOAD names it, but the loader did not find it then, or it has been unset and set again";
        return found.problem(TOPIC, without(&why), "check that file, then start it again");
    }
    let preloads = |variable: &[u8]| {
        variable.starts_with(b"LD_PRELOAD=") && variable.windows(10).any(|part| part == b"libmqns.so")
    };
    let parents = std::iter::successors(parent(pid), |&pid| parent(pid));
    let has_it = |pid: &u32| {
        fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environment| environment.split(|&b| b == 0).any(preloads))
    };
    match parents.take(100).find(has_it) {
        Some(ancestor) => found.problem(
            TOPIC,
            without(&format_args!(
                "LD_PRELOAD was taken out of its environment, which process {ancestor} above it has"
            )),
            "keep LD_PRELOAD and MQNS_* (sudo, env -i, su - and service managers drop them), or use `mqns run` there",
        ),
        None => found.problem(TOPIC, without(&"it was started without LD_PRELOAD"), run),
    }
}

fn parent(pid: u32) -> Option<u32> {
    status_field(&pid.to_string(), "PPid")?.parse().ok().filter(|&pid| pid != 0)
}

// ---- with the library ------------------------------------------------------------------------

/// What the child tells: findings of the library, of the directory and of the process.
fn within(doctor: &Doctor) -> Value {
    let [mut found, mut of_directory, mut of_process] = [(); 3].map(|()| Findings::default());
    let library = match Preloaded::present() {
        Ok(library) => library,
        Err(failure) => {
            found.failed("library", &failure);
            return json!({ "library": found.json() });
        }
    };
    let formats = library.formats();
    // SAFETY: a string constant of the library's, as long as said.
    let version = unsafe { std::slice::from_raw_parts(formats.version, formats.version_len) };
    let version = String::from_utf8_lossy(version);
    let path = Library::find().map_or_else(|_| "libmqns.so".into(), |library| library.path().display().to_string());
    let libc = libc_version();
    let text = format!("{path}, version {version}; glibc {}.{}", libc.0, libc.1);
    if version == env!("CARGO_PKG_VERSION") {
        found.ok("library", text);
    } else {
        let ours = env!("CARGO_PKG_VERSION");
        found.note("library", format_args!("{text}; mqns itself is {ours}"), "set MQNS_LIB to that of this version");
    }
    // A look makes no directory; and root, at its first queue, would put right what is of no use.
    let dir = root(&Environment::own()).0;
    let is_there = dir.is_dir() && versions(&mut of_directory, &dir, &formats);
    if is_there && let Err(failure) = room(&mut of_directory, &library, doctor.pid) {
        of_directory.failed("limits", &failure);
    }
    if let Some(pid) = doctor.pid
        && let Err(failure) = queues_of(&mut of_process, &library, pid, is_there)
    {
        of_process.failed("process", &failure);
    }
    json!({
        "library": found.json(),
        "directory": of_directory.json(),
        "process": of_process.json(),
    })
}

/// What the caller, or a process, may still make.
fn room(found: &mut Findings, library: &Preloaded, pid: Option<u32>) -> Result<(), Failure> {
    const TOPIC: &str = "limits";
    if let Some(pid) = pid {
        // Others' are not to be seen then: said elsewhere.
        if fs::File::open(namespace_of(pid)).is_err() || library.enter_freely(pid).is_err() {
            return Ok(());
        }
    }
    let most = limits::get("queues_max")?;
    let queues = limits::queues(library)?;
    let small = |name, most| Ok(u64::try_from(limits::get(name)?.min(limits::get(most)?)).unwrap_or(0));
    let default = Attributes {
        maxmsg: small("msg_default", "msg_max")?,
        msgsize: small("msgsize_default", "msgsize_max")?,
        messages: 0,
    };
    let (msg_max, msgsize_max) = (limits::get("msg_max")?, limits::get("msgsize_max")?);
    let (payer, limit) = match pid {
        Some(pid) => (real_uid(pid), msgqueue_limit(pid)),
        None => (limits::payer(), limits::rlimit()),
    };
    let accounts = limits::charged(library)?;
    let used = accounts.iter().find(|&&(uid, _)| uid == payer).map_or(0, |&(_, bytes)| bytes);
    let generous = match pid {
        Some(pid) => fs::read(format!("/proc/{pid}/environ"))
            .is_ok_and(|all| all.split(|&b| b == 0).any(|variable| variable == b"MQNS_LIMITS=generous")),
        None => std::env::var_os("MQNS_LIMITS").is_some_and(|which| which == "generous"),
    };
    if generous {
        found.ok(TOPIC, "MQNS_LIMITS=generous: none hold for queues that are made with it");
        return Ok(());
    }
    let remedy = "see `mqns limits`; remove queues (mqns ls, mqns rm), or give `--limits generous`";
    if u64::try_from(most).is_ok_and(|most| queues >= most) {
        found.problem(TOPIC, format_args!("{queues} queues, and queues_max is {most}: mq_open is ENOSPC"), remedy);
    } else {
        let sizes = format_args!("msg_max {msg_max}, msgsize_max {msgsize_max}");
        found.ok(TOPIC, format_args!("{queues} of {most} queues (queues_max) in the namespace; {sizes}"));
    }
    let shown = limit.map_or("unlimited".to_string(), |limit| limit.to_string());
    let (cost, name) = (cost(default), user(payer));
    let others: Vec<_> = accounts
        .iter()
        .filter(|&&(uid, _)| uid != payer)
        .map(|&(uid, bytes)| format!("{} {bytes}", user(uid)))
        .collect();
    let others = if others.is_empty() { String::new() } else { format!(" (others: {})", others.join(", ")) };
    if limit.is_some_and(|limit| limit.saturating_sub(used) < cost) {
        let text = format_args!(
            "RLIMIT_MSGQUEUE: {used} of {shown} bytes are charged to {name}, a default queue takes {cost}: mq_open is EMFILE{others}"
        );
        found.problem(
            TOPIC,
            text,
            "remove queues (mqns ls, mqns rm), raise it (ulimit -q), or give `--limits generous`",
        );
    } else {
        let text = format_args!(
            "RLIMIT_MSGQUEUE: {used} of {shown} bytes are charged to {name}, a default queue takes {cost}{others}"
        );
        found.ok(TOPIC, text);
    }
    Ok(())
}

fn real_uid(pid: u32) -> u32 {
    let ids = status_field(&pid.to_string(), "Uid").unwrap_or_default();
    ids.split_whitespace().next().and_then(|uid| uid.parse().ok()).unwrap_or_else(limits::payer)
}

/// The soft limit. `None`: unlimited.
fn msgqueue_limit(pid: u32) -> Option<u64> {
    let all = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = all.lines().find_map(|line| line.strip_prefix("Max msgqueue size"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// In which namespace a process is, and which queues of it it has open.
fn queues_of(found: &mut Findings, library: &Preloaded, pid: u32, is_there: bool) -> Result<(), Failure> {
    const TOPIC: &str = "process";
    // Who may not look into it has been told.
    let Ok(file) = fs::File::open(namespace_of(pid)) else { return Ok(()) };
    let number = fs::read_link(namespace_of(pid)).ok().and_then(|link| id(link.as_os_str().as_bytes())).unwrap_or(0);
    let name = library.name(&file.into()).map(|name| format!(", with the name {name}")).unwrap_or_default();
    found.ok(TOPIC, format_args!("it is in IPC namespace {number}{name}"));
    let open = if is_there { look::opened_by(library, pid)? } else { Vec::new() };
    if !open.is_empty() {
        found.ok(TOPIC, format_args!("it has open: {}", open.join(" ")));
    }
    Ok(())
}
