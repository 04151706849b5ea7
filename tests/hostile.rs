//! Whole programs whose queue files somebody damages (`tests/programs/hostile.c`): before they are opened, and while
//! they are in use. Whatever the files hold, or are, no call crashes, hangs or tells the process's memory; another
//! queue stays as it is, and so does a file outside. The engine alone: `src/queue/hostile.rs`.
//!
//! The seeds are fixed; `MQNS_HOSTILE_SEEDS=0..10000 cargo test --release --test hostile` runs others.

mod harness;

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use harness::StateDir;
use harness::row::row;

/// Random numbers (xorshift64*), the same in every run.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) % n
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len() as u64) as usize]
    }
}

fn seeds(default: u64) -> std::ops::Range<u64> {
    let Some(range) = std::env::var("MQNS_HOSTILE_SEEDS").ok() else { return 0..default };
    let (from, to) = range.split_once("..").expect("MQNS_HOSTILE_SEEDS=FROM..TO");
    from.parse().expect("a number")..to.parse().expect("a number")
}

/// A state directory with three queues, and a file outside that nothing leads to but what the test makes.
struct Stage {
    state: StateDir,
    outside: StateDir,
}

const SENTINEL: &[u8] = b"nobody's business\n";

impl Stage {
    fn new() -> Stage {
        let stage = Stage { state: StateDir::new(), outside: StateDir::new() };
        fs::write(stage.sentinel(), SENTINEL).unwrap();
        let made = stage.program(&["setup"]).output().expect("run");
        assert!(made.status.success(), "setup: {}", String::from_utf8_lossy(&made.stderr));
        stage
    }

    fn sentinel(&self) -> PathBuf {
        self.outside.path().join("sentinel")
    }

    /// `hostile` with the library, where the kernel has no queues.
    fn program(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(harness::program("nokernel"));
        let (preload, dir) = (harness::preload(harness::library()), self.state.path().as_os_str());
        for (name, value) in [("LD_PRELOAD", preload.as_os_str()), ("MQNS_DIR", dir)] {
            command.arg("-e").arg(format!("{name}={}", value.display()));
        }
        command.arg("-e").arg(format!("MQNS_MOUNT={}/mnt", self.outside.path().display()));
        command.arg(harness::program("hostile")).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn mqns(&self, arguments: &[&str]) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mqns"));
        command.args(arguments).env("MQNS_DIR", self.state.path()).env_remove("LD_PRELOAD");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run mqns")
    }

    /// What lies in the directory: files of the queue `/other`, and of everything else.
    fn files(&self) -> Files {
        let mut files = Files { root: self.state.path().to_path_buf(), victims: Vec::new(), other: Vec::new() };
        let all: Vec<_> = walk(self.state.path());
        let other = all.iter().find(|p| p.ends_with("sb/other")).expect("sb/other");
        let ino = format!("{:x}", fs::metadata(other).unwrap().ino());
        let key = other.parent().unwrap().parent().unwrap().join(format!("q/{ino}.k"));
        let key = fs::read(key).expect("the key of /other");
        let half = |at: usize| u64::from_ne_bytes(key[at..at + 8].try_into().unwrap());
        let name = format!("{:016x}{:016x}", half(0), half(8));
        for path in all {
            let last = path.file_name().unwrap().to_string_lossy().into_owned();
            let is_other = last == "other" || last.starts_with(&format!("{ino}.")) || last.starts_with(&name);
            if is_other { &mut files.other } else { &mut files.victims }.push(path);
        }
        // As long as the order is the same, so is the run.
        files.victims.sort_by_key(|path| (rank(path), fs::symlink_metadata(path).map_or(0, |m| m.ino())));
        files
    }
}

struct Files {
    root: PathBuf,
    victims: Vec<PathBuf>,
    other: Vec<PathBuf>,
}

/// Key files and segments are known by their kind only.
fn rank(path: &Path) -> String {
    match path.extension().map(|e| e.to_string_lossy().into_owned()) {
        Some(kind) => format!("x{kind}"),
        None => path.to_string_lossy().into_owned(),
    }
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            all.extend(walk(&path));
        }
        all.push(path);
    }
    all
}

/// Values that some check may have forgotten.
const EDGES: [u64; 16] = [
    0,
    1,
    2,
    8,
    9,
    u64::MAX,
    u32::MAX as u64,
    u32::MAX as u64 - 1,
    1 << 31,
    1 << 30,
    0x3fff_ffff,
    4096,
    8192,
    0x7fff_ffff_ffff_ffff,
    0x0101_0101_0101_0101,
    65536,
];

/// Changes words of a file: mostly of the first page, where headers are.
fn scribble(path: &Path, random: &mut Random, words: u64) {
    let Ok(file) = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(path) else {
        return;
    };
    let len = file.metadata().map_or(0, |m| m.len()).max(8);
    for _ in 0..words {
        let within = *random.of(&[896, 896, 2048, 4096, 262_144]);
        let at = random.below(within.min(len)) & !3;
        // A lock, or a packet, of a living thread is waited for, for a second (`shm::lock`): not too often.
        if [57..68, 549..560].iter().any(|near| near.contains(&at)) && random.below(100) != 0 {
            continue;
        }
        let value = if random.below(3) == 0 { random.below(u64::MAX) } else { *random.of(&EDGES) };
        let bytes = value.to_ne_bytes();
        let _ = file.write_all_at(&bytes[..if random.below(2) == 0 { 4 } else { 8 }], at);
    }
}

fn make_node(path: &Path, kind: u32, dev: u64) {
    let path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: a NUL-terminated path.
    unsafe { libc::mknod(path.as_ptr(), kind | 0o666, dev) };
}

/// Puts something else in the place of a file or directory.
fn replace(stage: &Stage, path: &Path, random: &mut Random) -> &'static str {
    let aside = stage.outside.path().join(format!("aside-{}", random.below(1 << 40)));
    let _ = fs::rename(path, aside);
    match random.below(9) {
        0 => {
            let _ = fs::create_dir(path);
            "a directory"
        }
        1 => {
            let _ = symlink(stage.sentinel(), path);
            "a link to a file elsewhere"
        }
        2 => {
            let _ = symlink(stage.outside.path(), path);
            "a link to a directory elsewhere"
        }
        3 => {
            let _ = symlink(path.file_name().unwrap(), path);
            "a link to itself"
        }
        4 => {
            make_node(path, libc::S_IFIFO, 0);
            "a FIFO"
        }
        5 => {
            make_node(path, libc::S_IFSOCK, 0);
            "a socket"
        }
        6 => {
            make_node(path, libc::S_IFCHR, *random.of(&[libc::makedev(1, 3), libc::makedev(1, 5)]));
            "a device"
        }
        7 => {
            let _ = fs::hard_link(stage.sentinel(), path);
            "another file"
        }
        _ => "nothing",
    }
}

/// One way to damage a state directory; what it was.
fn damage(stage: &Stage, files: &Files, random: &mut Random) -> String {
    let is_key = |p: &&PathBuf| p.extension().is_some_and(|e| e == "k");
    // Each kind as often, however many there are.
    let mut kinds: Vec<String> = files.victims.iter().map(|p| rank(p)).collect();
    kinds.dedup();
    let kind = random.of(&kinds).clone();
    let of_kind: Vec<&PathBuf> = files.victims.iter().filter(|p| rank(p) == kind).collect();
    let path: &PathBuf = random.of::<&PathBuf>(&of_kind);
    let shown = path.strip_prefix(&files.root).unwrap_or(path).display().to_string();
    let how = match random.below(12) {
        0..3 => {
            scribble(path, random, 1);
            "a word changed"
        }
        3 => {
            scribble(path, random, 200);
            "200 words changed"
        }
        4 => {
            if let Ok(file) = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(path) {
                let len = *random.of(&[0, 1, 15, 17, 79, 81, 896, 4095, 4096, 8192, 600_000]);
                let _ = file.set_len(len);
            }
            "cut short"
        }
        5 => {
            if let Ok(file) = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(path) {
                let _ = file.set_len(1 << *random.of(&[20, 40, 62]));
            }
            "made huge"
        }
        6 => {
            // Wrong version; a foreign kind.
            if let Ok(file) = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(path) {
                let _ = file.write_all_at(&[random.below(256) as u8], *random.of(&[0, 7, 8, 14]));
            }
            "another version"
        }
        7 => {
            let mode = *random.of(&[0, 0o444, 0o777, 0o4755]);
            let _ = fs::set_permissions(path, fs::Permissions::from_mode(mode));
            let _ = std::os::unix::fs::chown(path, Some(12345), Some(12345));
            "another owner"
        }
        8 => {
            // Files that nobody has asked for.
            let dir = if path.is_dir() { path.as_path() } else { path.parent().unwrap() };
            let other = files.other.iter().find(is_key).expect("a key");
            let victim = files.victims.iter().find(|p| p.ends_with("sb/target"));
            let ino = victim.and_then(|p| fs::metadata(p).ok()).map_or(0, |m| m.ino());
            let key = fs::read(other).unwrap();
            match random.below(5) {
                // The key of another queue, for a draft that somebody else is to clear away.
                0 => {
                    let _ = fs::write(other.with_file_name("t0123456789abcdef.0.700"), &key);
                }
                1 => {
                    let _ = fs::write(other.with_file_name(format!("{ino:x}.x")), b"in the way");
                }
                2 => {
                    let _ = fs::write(other.with_file_name(format!("{ino:x}.k")), &key);
                }
                3 => make_node(&dir.join("1.0"), libc::S_IFIFO, 0),
                _ => {
                    let _ = symlink(stage.sentinel(), dir.join("fresh"));
                }
            }
            "something beside it"
        }
        _ => replace(stage, path, random),
    };
    format!("{shown}: {how}")
}

/// Waits for a process, for at most that long.
fn finish(mut child: Child, limit: Duration, what: &str) -> (std::process::ExitStatus, String) {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().expect("wait") {
            let mut said = String::new();
            let _ = child.stdout.take().map(|mut out| out.read_to_string(&mut said));
            let _ = child.stderr.take().map(|mut err| err.read_to_string(&mut said));
            return (status, said);
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{what}: does not end");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[derive(Default, Debug)]
struct Sum {
    damages: u64,
    calls: u64,
    failed: u64,
}

/// One program, one state directory.
fn round(seed: u64, in_use: bool, sum: &mut Sum) {
    let mut random = Random::new(seed);
    let stage = Stage::new();
    let files = stage.files();
    let mut what = format!("seed {seed}{}", if in_use { ", in use" } else { "" });
    if std::env::var_os("MQNS_HOSTILE_TRACE").is_some() {
        eprintln!("{what}");
    }
    let mut shared = false;
    let mut one = |random: &mut Random, what: &mut String| {
        let done = damage(&stage, &files, random);
        // What all queues share: the other one may be out of reach, then, but is not to be damaged.
        shared |= !done.contains("/q/") && !done.contains("/sb/") || done.contains("sb: ") || done.contains("q: ");
        shared |= done.contains("/q/x: ") || done.contains("/q/f: ");
        what.push_str("; ");
        what.push_str(&done);
    };
    let run = |milliseconds: &str| stage.program(&["use", &seed.to_string(), milliseconds]).spawn().expect("run");
    let child = if in_use {
        let mut child = run("40");
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let _ = out.read_line(&mut line);
        for _ in 0..1 + random.below(3) {
            one(&mut random, &mut what);
            sum.damages += 1;
        }
        // A peer that goes on.
        if random.below(2) == 0 {
            let is = |p: &&PathBuf| p.extension().is_some_and(|e| e == "s") || p.ends_with("control");
            let targets: Vec<&PathBuf> = files.victims.iter().filter(is).collect();
            shared = true;
            let end = Instant::now() + Duration::from_millis(40);
            while Instant::now() < end {
                let target: &PathBuf = random.of::<&PathBuf>(&targets);
                scribble(target, &mut random, 20);
                sum.damages += 20;
            }
        }
        let mut rest = String::new();
        let (status, said) = finish(child, Duration::from_secs(60), &what);
        let _ = out.read_to_string(&mut rest);
        assert!(status.success(), "{what}: {status} {:?}: {rest}{said}", status.signal());
        rest
    } else {
        for _ in 0..1 + random.below(3) {
            one(&mut random, &mut what);
            sum.damages += 1;
        }
        let (status, said) = finish(run("0"), Duration::from_secs(60), &what);
        assert!(status.success(), "{what}: {status} {:?}: {said}", status.signal());
        said
    };
    let numbers = child.lines().rev().find_map(|line| {
        let (calls, failed) = line.split_once(' ')?;
        Some((calls.parse::<u64>().ok()?, failed.parse::<u64>().ok()?))
    });
    let (calls, failed) = numbers.unwrap_or_else(|| panic!("{what}: {child}"));
    (sum.calls, sum.failed) = (sum.calls + calls, sum.failed + failed);
    // For people, and for those who clear away.
    for arguments in [&["lsns"][..], &["gc"]] {
        let (status, said) = finish(stage.mqns(arguments), Duration::from_secs(20), &what);
        assert!(status.signal().is_none(), "{what}: mqns {arguments:?}: {status}: {said}");
        sum.calls += 1;
    }
    let said = fs::read(stage.sentinel()).expect("the sentinel");
    assert_eq!(said, SENTINEL, "{what}: a file elsewhere");
    if !shared {
        let (status, said) = finish(stage.program(&["check"]).spawn().expect("run"), Duration::from_secs(20), &what);
        assert!(status.success(), "{what}: {status}: {said}");
    }
}

fn rounds(in_use: bool, default: u64, how: &str) {
    let mut sum = Sum::default();
    let seeds = seeds(default);
    for seed in seeds.clone() {
        round(seed, in_use, &mut sum);
    }
    let Sum { damages, calls, failed } = sum;
    let times = format!("{} programs, {damages} damages, {calls} calls", seeds.count());
    let outcome = format!(
        "{failed} calls fail, none crashes or takes 5 s; the file outside and the other queue are as they were; no byte of \
         the program's memory is in a message; mqns lsns and gc end"
    );
    row("files of a queue and namespace are anything", how, &times, &outcome, None);
}

#[test]
fn files_may_be_anything_before_they_are_opened() {
    rounds(
        false,
        60,
        "before they are opened: words changed, cut short, huge, another version or owner; directory, link, FIFO, socket, \
         device, another file, nothing in their place; others beside them",
    );
}

#[test]
fn files_may_become_anything_while_in_use() {
    rounds(true, 40, "while they are in use: the same, half of the time by a peer that goes on");
}

/// A FIFO that is a link to a file of the opener's would have packets written into that file.
#[test]
fn a_fifo_that_leads_elsewhere_is_refused() {
    let stage = Stage::new();
    let before = fs::metadata(stage.sentinel()).unwrap();
    for path in stage.files().victims.iter().filter(|p| p.extension().is_some_and(|e| e == "p")) {
        fs::remove_file(path).unwrap();
        symlink(stage.sentinel(), path).unwrap();
    }
    let (status, said) = finish(stage.program(&["use", "1", "100"]).spawn().unwrap(), Duration::from_secs(30), "links");
    assert!(status.success(), "{status}: {said}");
    let after = fs::metadata(stage.sentinel()).unwrap();
    assert_eq!((before.len(), before.mtime_nsec()), (after.len(), after.mtime_nsec()));
    let mut text = Vec::new();
    File::open(stage.sentinel()).unwrap().read_to_end(&mut text).unwrap();
    assert_eq!(text, SENTINEL);
    row("the FIFO leads elsewhere", "a link to a file of the opener's", "1", "refused; the file is as it was", None);
}
