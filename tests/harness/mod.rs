//! Runs whole C programs for the tests: on the kernel's queues, or on ours in a process for which
//! the kernel has none.
//!
//! [`program`] compiles `tests/programs/NAME.c`; [`Run`] starts it in a [`Mode`], in a process
//! group of its own, and ends everything in that group when the program ends or is late.
//!
//! Safe to use from many test processes at a time.

// Each test target uses its own part.
#![allow(dead_code)]

pub mod row;

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::sync::{Mutex, Once, OnceLock};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// The library with named crash points, which `scripts/points` builds.
///
/// # Panics
///
/// If there is none. One that is older than its sources is reported on stderr, once.
pub fn library_with_points() -> &'static Path {
    static LIB: OnceLock<PathBuf> = OnceLock::new();
    LIB.get_or_init(|| {
        let target = profile_dir().parent().expect("a directory");
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let found = [target, &package.join("target")]
            .map(|t| t.join("crash-points/release/libmqns.so"))
            .into_iter()
            .find(|p| p.exists())
            .expect("no library with crash points: run scripts/points, which builds it");
        warn_if_old(&found, "scripts/points");
        found
    })
}

fn warn_if_old(library: &Path, remedy: &str) {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let built = modified(library);
    if ["src", "cshim", "build.rs", "Cargo.toml"].iter().any(|p| newest(&package.join(p)) > built) {
        eprintln!("warning: {} is older than its sources; {remedy}", library.display());
    }
}

/// Whose queues a program uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// The kernel's, in an IPC namespace of the run's own where the caller may make one.
    Native,
    /// libmqns.so's, with a fresh `MQNS_DIR`, under `nokernel`: a seccomp filter takes the
    /// kernel's queues and IPC namespaces away.
    Shim,
}

impl Mode {
    pub const ALL: [Mode; 2] = [Mode::Native, Mode::Shim];

    /// As it stands in the names of trials.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Native => "native",
            Mode::Shim => "shim",
        }
    }
}

/// The directory of C sources.
pub fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs")
}

/// `<target>/<profile>`, of this test executable (`<target>/<profile>/deps/NAME-HASH`).
fn profile_dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let exe = std::env::current_exe().expect("path of the test executable");
        let dir = exe.parent().expect("a directory");
        if dir.ends_with("deps") { dir.parent().expect("a directory").to_path_buf() } else { dir.to_path_buf() }
    })
}

/// Where compiled programs go: `<target>/tests-bin`.
pub fn binaries() -> PathBuf {
    profile_dir().parent().expect("a directory").join("tests-bin")
}

/// The library under test: `$MQNS_LIB`, else the release build in the target directory of this
/// test executable, else that of the package.
///
/// # Panics
///
/// If there is none. A library older than its sources is reported on stderr, once.
pub fn library() -> &'static Path {
    static LIB: OnceLock<PathBuf> = OnceLock::new();
    LIB.get_or_init(|| {
        if let Some(lib) = std::env::var_os("MQNS_LIB") {
            let lib = PathBuf::from(lib);
            return lib.canonicalize().unwrap_or_else(|e| panic!("MQNS_LIB {}: {e}", lib.display()));
        }
        let target = profile_dir().parent().expect("a directory");
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let lib = [target, &package.join("target")]
            .map(|t| t.join("release/libmqns.so"))
            .into_iter()
            .find(|p| p.exists())
            .expect("no libmqns.so: cargo build --release first, or set MQNS_LIB");
        warn_if_old(&lib, "cargo build --release");
        lib
    })
}

/// What `LD_PRELOAD` is to be: this library, behind those of `$MQNS_PRELOAD_FIRST` (a sanitizer's, `scripts/sanitize`).
pub fn preload(library: &Path) -> OsString {
    let mut all = std::env::var_os("MQNS_PRELOAD_FIRST").unwrap_or_default();
    if !all.is_empty() {
        all.push(":");
    }
    all.push(library);
    all
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|m| m.modified()).ok()
}

/// The latest modification in a tree.
fn newest(path: &Path) -> Option<SystemTime> {
    let inside = fs::read_dir(path).into_iter().flatten().flatten().map(|e| newest(&e.path()));
    inside.chain([if path.is_dir() { None } else { modified(path) }]).max().flatten()
}

/// The executable made of `tests/programs/NAME.c`, compiled if it is missing or older than its
/// source or a header there.
///
/// A line with `cc-flags:` at the top of the source adds flags.
///
/// # Panics
///
/// If it doesn't compile.
pub fn program(name: &str) -> PathBuf {
    let source = sources().join(format!("{name}.c"));
    let bin = binaries().join(name);
    let headers = fs::read_dir(sources()).into_iter().flatten().flatten().map(|e| e.path());
    let inputs = headers.filter(|p| p.extension() == Some(OsStr::new("h"))).chain([source.clone()]);
    let newest = inputs.filter_map(|p| modified(&p)).max();
    let fresh = || modified(&bin).is_some_and(|built| Some(built) >= newest);
    if fresh() {
        return bin;
    }
    fs::create_dir_all(binaries()).expect("create tests-bin");
    // One compiler at a time for each program; the others wait and find it done.
    let lock = File::create(binaries().join(format!(".{name}.lock"))).expect("create a lock file");
    // SAFETY: the descriptor is open.
    assert_eq!(unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX) }, 0, "flock: {}", io::Error::last_os_error());
    if fresh() {
        return bin;
    }
    let text = fs::read_to_string(&source).unwrap_or_else(|e| panic!("{}: {e}", source.display()));
    let flags = text.lines().take(5).find_map(|l| l.split_once("cc-flags:")).map_or("", |(_, f)| f);
    let flags = flags.split("*/").next().unwrap_or("").split_whitespace();
    let new = binaries().join(format!(".{name}.{}", std::process::id()));
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let output = Command::new(compiler)
        .args(["-O1", "-g", "-Wall", "-pthread"])
        .args(flags)
        .arg(&source)
        .arg("-o")
        .arg(&new)
        .output()
        .expect("run the C compiler");
    assert!(output.status.success(), "{}:\n{}", source.display(), String::from_utf8_lossy(&output.stderr));
    // A program may be running: replaced whole, never written into.
    fs::rename(&new, &bin).expect("rename the compiled program");
    bin
}

/// Does the running kernel have message queues that work? Some have mq_open and nothing else.
pub fn kernel_has_queues() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| {
        // SAFETY: no memory is passed; a kernel that has the call says EBADF.
        unsafe { libc::syscall(libc::SYS_mq_timedsend, -1, 0, 0, 0, 0) };
        io::Error::last_os_error().raw_os_error() == Some(libc::EBADF)
    })
}

/// May this process mount anything, in a mount namespace of its own?
pub fn may_mount() -> bool {
    let inner = "mount -t tmpfs none /proc";
    let unshare = Command::new("unshare").args(["--mount", "sh", "-c", inner]).output();
    unshare.is_ok_and(|output| output.status.success())
}

/// What a test process must take with it when it is told to end (Ctrl-C, a timeout's SIGTERM): the
/// process groups, which the terminal doesn't reach, and the state directories.
#[derive(Default)]
struct Running {
    groups: Vec<u32>,
    dirs: Vec<PathBuf>,
}

static RUNNING: Mutex<Running> = Mutex::new(Running { groups: Vec::new(), dirs: Vec::new() });
/// The pipe that [`on_signal`] writes to.
static SIGNALLED: AtomicI32 = AtomicI32::new(-1);

extern "C" fn on_signal(signal: i32) {
    let byte = signal as u8;
    // SAFETY: write is async-signal-safe; one byte of a local.
    unsafe { libc::write(SIGNALLED.load(Ordering::Relaxed), (&raw const byte).cast(), 1) };
}

fn running() -> std::sync::MutexGuard<'static, Running> {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        let mut pipe = [0; 2];
        // SAFETY: room for two descriptors.
        assert_eq!(unsafe { libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
        SIGNALLED.store(pipe[1], Ordering::Relaxed);
        // SAFETY: just opened, nobody else's.
        let mut pipe = unsafe { File::from_raw_fd(pipe[0]) };
        thread::spawn(move || {
            let mut signal = [0];
            if pipe.read_exact(&mut signal).is_err() {
                return;
            }
            let running = running();
            for group in &running.groups {
                // SAFETY: no memory is passed; the leader is not reaped while it is listed.
                unsafe { libc::kill(-(*group as i32), libc::SIGKILL) };
            }
            for dir in &running.dirs {
                let _ = fs::remove_dir_all(dir);
            }
            std::process::exit(128 + i32::from(signal[0]));
        });
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            // SAFETY: the handler does what handlers may.
            unsafe { libc::signal(signal, on_signal as *const () as libc::sighandler_t) };
        }
    });
    RUNNING.lock().unwrap_or_else(|e| e.into_inner())
}

/// A directory of its own for the shim's state, open to every user, removed at the end.
pub struct StateDir(PathBuf);

/// Uids to which something is charged, and bytes (`struct Accounts` of src/ns/control.rs: six words, then `Ledger` of
/// src/ns/ledger.rs: 32 notes of five, then uid + 1 and a sum, above 15 bits, of each).
pub fn charged(state: &StateDir) -> Vec<(u32, u64)> {
    let accounts = std::fs::read(state.path().join("accounts")).expect("accounts");
    let word = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().expect("eight bytes"));
    let words: Vec<u64> = accounts.chunks_exact(8).map(word).collect();
    let all = words[6 + 32 * 5..].chunks_exact(2).map(|pair| (pair[0].wrapping_sub(1) as u32, pair[1] >> 15));
    all.filter(|&(_, bytes)| bytes != 0).collect()
}

impl StateDir {
    #[allow(clippy::new_without_default)]
    pub fn new() -> StateDir {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let shm = Path::new("/dev/shm");
        let base = if shm.is_dir() { shm.to_path_buf() } else { std::env::temp_dir() };
        loop {
            let n = NUMBER.fetch_add(1, Ordering::Relaxed);
            let dir = base.join(format!("mqns-test-{}-{n}", std::process::id()));
            let mut running = running();
            match fs::create_dir(&dir) {
                Ok(()) => running.dirs.push(dir.clone()),
                // Left by a killed test process which had our number.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(e) => panic!("{}: {e}", dir.display()),
            }
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o1777)).expect("chmod the state directory");
            return StateDir(dir);
        }
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Everything in it that isn't a directory, with its size and allocated bytes, sorted.
    pub fn files(&self) -> Vec<(PathBuf, u64, u64)> {
        use std::os::unix::fs::MetadataExt;
        fn walk(dir: &Path, out: &mut Vec<(PathBuf, u64, u64)>) {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                let Ok(meta) = entry.path().symlink_metadata() else { continue };
                if meta.is_dir() {
                    walk(&entry.path(), out);
                } else {
                    out.push((entry.path(), meta.len(), meta.blocks() * 512));
                }
            }
        }
        let mut out = Vec::new();
        walk(&self.0, &mut out);
        for (path, ..) in &mut out {
            *path = path.strip_prefix(&self.0).expect("below the directory").to_path_buf();
        }
        out.sort();
        out
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
        running().dirs.retain(|d| *d != self.0);
    }
}

/// How a program ended.
#[derive(Debug)]
pub struct Outcome {
    /// Of the program itself. Killed by SIGKILL if `timed_out`.
    pub status: ExitStatus,
    pub timed_out: bool,
    pub stdout: String,
    pub stderr: String,
    pub elapsed: Duration,
    /// What lies in the state directory afterwards, below it, directories left out. Empty natively.
    pub files: Vec<PathBuf>,
}

impl Outcome {
    /// Exit status 0, in time.
    pub fn ok(&self) -> bool {
        !self.timed_out && self.status.success()
    }

    /// `Ok` if [`Outcome::ok`], else everything there is to say.
    pub fn check(&self) -> Result<(), String> {
        if self.ok() {
            return Ok(());
        }
        let how = if self.timed_out {
            format!("still running after {:?}", self.elapsed)
        } else if let Some(signal) = self.status.signal() {
            format!("killed by signal {signal}")
        } else {
            format!("exit status {}", self.status.code().unwrap_or(-1))
        };
        Err(format!("{how}\n{}{}", self.stdout, self.stderr))
    }
}

/// One run of a program.
///
/// ```ignore
/// Run::new(Mode::Shim, program("conf_open")).arg("--list").run().check()?;
/// ```
pub struct Run {
    mode: Mode,
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    timeout: Duration,
    dir: Option<PathBuf>,
    library: Option<PathBuf>,
}

impl Run {
    /// `program`: a path, or a name looked up in `PATH`.
    pub fn new(mode: Mode, program: impl AsRef<OsStr>) -> Run {
        Run {
            mode,
            program: program.as_ref().into(),
            args: Vec::new(),
            env: Vec::new(),
            timeout: Duration::from_secs(60),
            dir: None,
            library: None,
        }
    }

    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Run {
        self.args.push(arg.as_ref().into());
        self
    }

    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Run {
        self.args.extend(args.into_iter().map(|a| a.as_ref().into()));
        self
    }

    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Run {
        self.env.push((name.as_ref().into(), value.as_ref().into()));
        self
    }

    /// Kills it after so long; 60 s by default.
    pub fn timeout(mut self, timeout: Duration) -> Run {
        self.timeout = timeout;
        self
    }

    /// Another library than [`library`].
    pub fn library(mut self, library: &Path) -> Run {
        self.library = Some(library.into());
        self
    }

    /// A state directory which outlives the run, to be shared by several.
    pub fn dir(mut self, dir: &StateDir) -> Run {
        self.dir = Some(dir.path().into());
        self
    }

    /// The command itself: the program, or the launcher with it.
    fn command(&self, dir: &Path) -> Command {
        let mut command = match self.mode {
            Mode::Native => {
                let mut command = Command::new(&self.program);
                // SAFETY: a single system call between fork and exec.
                unsafe {
                    command.pre_exec(|| {
                        // Without privilege the program shares the machine's namespace.
                        libc::unshare(libc::CLONE_NEWIPC);
                        Ok(())
                    });
                }
                command
            }
            Mode::Shim => {
                let mut preload = OsString::from("LD_PRELOAD=");
                preload.push(self::preload(self.library.as_deref().unwrap_or_else(|| library())));
                let mut root = OsString::from("MQNS_DIR=");
                root.push(dir);
                let mut command = Command::new(program("nokernel"));
                command.arg("-e").arg(preload).arg("-e").arg(root).arg(&self.program);
                command
            }
        };
        command.args(&self.args);
        // The caller's own settings of the library must not leak in.
        for (name, _) in std::env::vars_os() {
            if name.as_bytes().starts_with(b"MQNS_") {
                command.env_remove(name);
            }
        }
        command.env_remove("LD_PRELOAD").envs(self.env.iter().map(|(n, v)| (n, v)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        command
    }

    /// Runs it to its end, or to the timeout. Nothing that it started is left when this returns.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn run(&self) -> Outcome {
        let own = (self.mode == Mode::Shim && self.dir.is_none()).then(StateDir::new);
        let dir = own.as_ref().map(|d| d.path().to_path_buf()).or(self.dir.clone()).unwrap_or_default();
        let start = Instant::now();
        let mut command = self.command(&dir);
        let mut child = {
            // Listed before anybody can be told to end it.
            let mut running = running();
            let child = command.spawn();
            let child = child.unwrap_or_else(|e| panic!("cannot start {}: {e}", self.program.to_string_lossy()));
            running.groups.push(child.id());
            child
        };
        let stdout = reader(child.stdout.take().expect("piped"));
        let stderr = reader(child.stderr.take().expect("piped"));
        let timed_out = !wait_until(&child, start + self.timeout);
        // The leader is not reaped yet, so the group's number is still ours.
        // SAFETY: no memory is passed.
        unsafe { libc::kill(-(child.id() as i32), libc::SIGKILL) };
        running().groups.retain(|g| *g != child.id());
        let status = child.wait().expect("wait for the program");
        let outcome = Outcome {
            status,
            timed_out,
            stdout: stdout.join().expect("reader thread"),
            stderr: stderr.join().expect("reader thread"),
            elapsed: start.elapsed(),
            files: Vec::new(),
        };
        match own {
            Some(dir) => Outcome { files: dir.files().into_iter().map(|(p, ..)| p).collect(), ..outcome },
            None => outcome,
        }
    }
}

fn reader(mut from: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Waits until the child has ended, without reaping it. False if it hasn't by the deadline.
fn wait_until(child: &Child, deadline: Instant) -> bool {
    // SAFETY: no memory is passed; the result is a new descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) } as i32;
    assert!(fd >= 0, "pidfd_open: {}", io::Error::last_os_error());
    // SAFETY: just opened, nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let ms = left.as_millis().min(i32::MAX as u128) as i32;
        let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd, valid for the call.
        match unsafe { libc::poll(&mut poll, 1, ms) } {
            1 => return true,
            0 if Instant::now() >= deadline => return false,
            _ => {}
        }
    }
}
