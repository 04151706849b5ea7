//! Random operations with a memory: what was opened where, so that most operations hit something.
//!
//! The memory is a guess that steers chance; no result is judged by it. It sees to it that some
//! worker always stays awake, which is all that the coordinator needs to end every sleep.

use std::collections::BTreeMap;

use crate::coordinator::Step;
use crate::shared::MAX_WORKERS;
use crate::worker::{SIG_IGNORED, SIG_PLAIN, SIG_RESTART, SIG_WAITED};

/// Environment variable: classes of operations to leave out, separated by commas.
pub const ENV_WITHOUT: &str = "MQNS_DIFF_WITHOUT";

/// splitmix64: a few lines, and the same numbers everywhere for ever.
pub struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to n-1.
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// True in `percent` of the cases.
    fn chance(&mut self, percent: u32) -> bool {
        self.next() % 100 < percent as u64
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// One of the items, by weight.
    fn weighted<T: Copy>(&mut self, from: &[(u32, T)]) -> T {
        let total: u32 = from.iter().map(|(weight, _)| weight).sum();
        let mut at = (self.next() % total.max(1) as u64) as u32;
        for (weight, item) in from {
            if at < *weight {
                return *item;
            }
            at -= weight;
        }
        from[0].1
    }
}

/// An open description, as far as remembered.
#[derive(Clone, Copy)]
struct Description {
    queue: usize,
    access: i32,
    nonblock: bool,
}

#[derive(Clone, Copy)]
enum Kind {
    Queue(usize),
    Epoll,
    Other,
}

#[derive(Clone, Default)]
struct Worker {
    alive: bool,
    /// The operation it sleeps in.
    asleep: Option<String>,
    stopped: bool,
    /// Became the other user for good.
    user: bool,
    fds: BTreeMap<i32, (Kind, bool)>,
    low_files: bool,
    low_bytes: bool,
    mail: Vec<Kind>,
}

struct Queue {
    name: String,
    linked: bool,
    msgsize: i64,
}

/// The generator of one run.
pub struct Generator {
    rng: Rng,
    count: usize,
    workers: Vec<Worker>,
    queues: Vec<Queue>,
    descriptions: Vec<Description>,
    serial: u64,
    mass: bool,
    without: Vec<String>,
}

const NAMES: [&str; 3] = ["/a", "/b", "/c"];
const ODD_NAMES: [&str; 22] = [
    "/",
    "",
    "noslash",
    "/.",
    "/..",
    "/a/b",
    "/a/",
    "//a",
    "@255",
    "@256",
    "@300/",
    "@4094",
    "@4095",
    "@4096",
    "@4096/",
    "@5000",
    "/...",
    "/.x",
    "/%20",
    "/%0a%ff%25s",
    "/a%20",
    "a",
];

const O_NONBLOCK: i32 = libc::O_NONBLOCK;
const DESTROYING: [i32; 3] = [0, 65, -1];

impl Generator {
    /// Two to four workers, by the seed.
    pub fn new(seed: u64) -> Generator {
        let count = [2, 3, 4, 3, MAX_WORKERS][(seed % 5) as usize];
        let fresh = Worker { alive: true, ..Worker::default() };
        let without = std::env::var(ENV_WITHOUT).unwrap_or_default();
        Generator {
            rng: Rng(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x6d71_6e73),
            count,
            workers: vec![fresh; count],
            queues: Vec::new(),
            descriptions: Vec::new(),
            serial: 0,
            mass: false,
            without: without.split(',').map(str::to_string).collect(),
        }
    }

    /// Number of workers.
    pub fn workers(&self) -> usize {
        self.count
    }

    fn idle(&self) -> Vec<usize> {
        (0..self.count).filter(|w| self.workers[*w].alive && self.workers[*w].asleep.is_none()).collect()
    }

    fn sleepers(&self) -> Vec<usize> {
        (0..self.count).filter(|w| self.workers[*w].asleep.is_some()).collect()
    }

    /// The next step, as `w0 send …` or `c kill 1`.
    pub fn next_operation(&mut self) -> String {
        self.serial += 1;
        let idle = self.idle();
        let dead: Vec<usize> = (0..self.count).filter(|w| !self.workers[*w].alive).collect();
        if !dead.is_empty() && (idle.is_empty() || self.rng.chance(50)) {
            let w = self.rng.pick(&dead);
            if !idle.is_empty() && self.rng.chance(50) && self.allowed("fork") {
                return format!("w{} forkinto {w}", self.rng.pick(&idle));
            }
            return format!("c spawn {w}");
        }
        let sleepers = self.sleepers();
        if idle.is_empty() {
            let w = self.rng.pick(&sleepers);
            return format!("c kill {w}");
        }
        let stopped: Vec<usize> = sleepers.iter().copied().filter(|w| self.workers[*w].stopped).collect();
        if !stopped.is_empty() && self.rng.chance(25) {
            return format!("c cont {}", self.rng.pick(&stopped));
        }
        if !sleepers.is_empty() && self.rng.chance(35) {
            let w = self.rng.pick(&sleepers);
            if let Some(op) = self.disturb(w, &idle) {
                return op;
            }
        }
        let w = self.rng.pick(&idle);
        let op = self.operation(w, idle.len() >= 2);
        format!("w{w} {op}")
    }

    fn allowed(&self, class: &str) -> bool {
        !self.without.iter().any(|c| c == class)
    }

    /// Something that ends a sleep, or tries to.
    fn disturb(&mut self, w: usize, idle: &[usize]) -> Option<String> {
        let op = self.workers[w].asleep.clone()?;
        let tokens: Vec<&str> = op.split(' ').collect();
        let queue = match tokens[0] {
            "send" | "recv" => self.queue_of(w, tokens[2].parse().ok()?),
            "poll" => self.queue_of(w, tokens[1].split(':').next()?.parse().ok()?),
            _ => None,
        };
        let choice = self.rng.weighted(&[
            (60, "answer"),
            (15, "join"),
            (6, "plain"),
            (6, "restart"),
            (3, "ignored"),
            (4, "kill"),
            (if self.allowed("stop") { 3 } else { 0 }, "stop"),
        ]);
        match choice {
            "answer" | "join" => {
                let queue = queue?;
                let receive = (tokens[0] == "recv") == (choice == "join");
                let useless = if receive { libc::O_WRONLY } else { libc::O_RDONLY };
                let mut able = Vec::new();
                for other in idle {
                    for (fd, (kind, _)) in &self.workers[*other].fds {
                        let Kind::Queue(d) = kind else { continue };
                        if self.descriptions[*d].queue == queue && self.fits(*d, useless) {
                            able.push((*other, *fd));
                        }
                    }
                }
                if able.is_empty() {
                    let other = self.rng.pick(idle);
                    let q = &self.queues[queue];
                    return q.linked.then(|| format!("w{other} open libc {} 2 - -", q.name));
                }
                let (other, fd) = self.rng.pick(&able);
                let sleepy = idle.len() >= 2;
                let op = if tokens[0] == "poll" && self.rng.chance(50) || receive {
                    self.receive(other, fd, sleepy, true)
                } else {
                    self.send(other, fd, sleepy, true)
                };
                Some(format!("w{other} {op}"))
            }
            "plain" => Some(format!("c sig {w} {}", self.rng.pick(&SIG_PLAIN))),
            "restart" => Some(format!("c sig {w} {}", self.rng.pick(&SIG_RESTART))),
            "ignored" => {
                let signo = self.rng.pick(&[SIG_IGNORED, libc::SIGWINCH, libc::SIGCONT, SIG_WAITED]);
                Some(format!("c sig {w} {signo}"))
            }
            "stop" => Some(format!("c stop {w}")),
            _ => Some(format!("c kill {w}")),
        }
    }

    fn queue_of(&self, w: usize, fd: i32) -> Option<usize> {
        match self.workers[w].fds.get(&fd) {
            Some((Kind::Queue(d), _)) => Some(self.descriptions[*d].queue),
            _ => None,
        }
    }

    /// Descriptors of queues that a worker has.
    fn queue_fds(&self, w: usize) -> Vec<i32> {
        let fds = self.workers[w].fds.iter();
        fds.filter(|(_, (kind, _))| matches!(kind, Kind::Queue(_))).map(|(fd, _)| *fd).collect()
    }

    /// Mostly a queue's descriptor, sometimes anything.
    fn some_fd(&mut self, w: usize) -> i32 {
        let queues = self.queue_fds(w);
        if queues.is_empty() || self.rng.chance(6) {
            let all: Vec<i32> = self.workers[w].fds.keys().copied().collect();
            match self.rng.below(4) {
                0 => -1,
                1 => 0,
                2 if !all.is_empty() => self.rng.pick(&all),
                _ => 3 + self.rng.below(30) as i32,
            }
        } else {
            self.rng.pick(&queues)
        }
    }

    /// Mostly a queue's descriptor that was not opened in a certain way.
    fn fd_for(&mut self, w: usize, useless: i32) -> i32 {
        let fd = self.some_fd(w);
        match self.workers[w].fds.get(&fd) {
            Some((Kind::Queue(d), _)) if !self.fits(*d, useless) && self.rng.chance(85) => {
                let fds = self.workers[w].fds.iter();
                let able = fds.filter(|(_, (kind, _))| matches!(kind, Kind::Queue(d) if self.fits(*d, useless)));
                let able: Vec<i32> = able.map(|(fd, _)| *fd).collect();
                if able.is_empty() { fd } else { self.rng.pick(&able) }
            }
            _ => fd,
        }
    }

    /// Is the description neither for the other direction nor for none?
    fn fits(&self, d: usize, useless: i32) -> bool {
        let access = self.descriptions[d].access;
        access != useless && access != libc::O_ACCMODE
    }

    /// The inode of an epoll instance is that of every other one on the machine: its locks, owner
    /// and times are not this run's.
    fn is_queue_or_closed(&self, w: usize, fd: i32) -> bool {
        !matches!(self.workers[w].fds.get(&fd), Some((Kind::Epoll | Kind::Other, _)))
    }

    /// A descriptor number that closes nothing of the tester's.
    fn closable(&mut self, w: usize) -> i32 {
        let all: Vec<i32> = self.workers[w].fds.keys().copied().collect();
        if all.is_empty() || self.rng.chance(5) { self.rng.pick(&[-1, 3, 4, 5, 20, 77]) } else { self.rng.pick(&all) }
    }

    fn via(&mut self) -> &'static str {
        if self.allowed("syscall") && self.rng.chance(15) { "sys" } else { "libc" }
    }

    fn operation(&mut self, w: usize, sleepy: bool) -> String {
        if self.mass && self.rng.chance(10) {
            self.mass = false;
            return "massunlink 260".to_string();
        }
        let poor = self.queue_fds(w).is_empty();
        let many = self.workers[w].fds.len() > 14;
        let worker = &self.workers[w];
        let limited = worker.low_files || worker.low_bytes;
        let mailed = !worker.mail.is_empty();
        let user = worker.user;
        let on = |class: &str, weight: u32| if self.allowed(class) { weight } else { 0 };
        let classes = [
            (if poor { 120 } else { 13 }, "open"),
            (on("oddname", 3), "oddname"),
            (if many { 40 } else { 7 }, "close"),
            (4, "unlink"),
            (34, "send"),
            (26, "recv"),
            (5, "getattr"),
            (6, "setattr"),
            (on("notify", 9), "notify"),
            (on("dup", 5), "dup"),
            (on("flags", 6), "flags"),
            (on("stat", 3), "stat"),
            (on("text", 6), "text"),
            (on("file", 6), "file"),
            (on("poll", 6), "poll"),
            (on("select", 2), "select"),
            (on("epoll", 10), "epoll"),
            (on("pollsleep", if sleepy { 3 } else { 0 }), "pollsleep"),
            (on("child", 4), "child"),
            (on("exec", 2), "exec"),
            (1, "exit"),
            (on("pass", if mailed { 20 } else { 3 }), "pass"),
            (on("user", if user { 0 } else { 3 }), "user"),
            (on("limit", if limited { 14 } else { 2 }), "limit"),
            (on("umask", 1), "umask"),
            (on("nice", 2), "nice"),
            (on("signal", 2), "signal"),
            (2, "sigwait"),
            (on("mass", 1), "mass"),
            (on("closerange", 1), "closerange"),
        ];
        match self.rng.weighted(&classes) {
            "open" => self.open(w, false),
            "oddname" => {
                if self.rng.chance(30) {
                    let name = self.rng.pick(&ODD_NAMES);
                    format!("unlink {} {name}", self.via())
                } else {
                    self.open(w, true)
                }
            }
            "close" => {
                let how = self.rng.pick(&["mq", "mq", "close", "sys"]);
                let how = if how == "sys" && !self.allowed("syscall") { "mq" } else { how };
                format!("close {how} {}", self.closable(w))
            }
            "unlink" => {
                let name = self.rng.pick(&NAMES);
                format!("unlink {} {name}", self.via())
            }
            "send" => {
                let fd = self.fd_for(w, libc::O_RDONLY);
                self.send(w, fd, sleepy, false)
            }
            "recv" => {
                let fd = self.fd_for(w, libc::O_WRONLY);
                self.receive(w, fd, sleepy, false)
            }
            "getattr" => {
                let to = self.rng.weighted(&[(20, "ok"), (1, "null"), (1, "bad"), (1, "ro")]);
                format!("getattr {} {} {to}", self.via(), self.some_fd(w))
            }
            "setattr" => {
                let flags = self.rng.weighted(&[
                    (10, "800"),
                    (10, "0"),
                    (1, "1"),
                    (1, "c00"),
                    (1, "100000000"),
                    (1, "8000000000000800"),
                ]);
                let new = self.rng.weighted(&[(20, "ok"), (1, "null"), (1, "bad")]);
                let old = self.rng.weighted(&[(10, "ok"), (4, "null"), (2, "same"), (1, "bad"), (1, "ro")]);
                format!("setattr {} {} {flags} {new} {old}", self.via(), self.some_fd(w))
            }
            "notify" => self.notify(w),
            "dup" => self.dup(w),
            "flags" => self.flags(w),
            "stat" => {
                if self.rng.chance(30) {
                    format!("same {} {}", self.some_fd(w), self.some_fd(w))
                } else {
                    format!("fstat {}", self.some_fd(w))
                }
            }
            "text" => self.text(w),
            "file" => self.file(w),
            "poll" => format!("poll {} 0", self.poll_list(w)),
            "select" => {
                let fds = self.queue_fds(w);
                let n = 1 + self.rng.below(3);
                let mut list: Vec<i32> = (0..n).map(|_| if fds.is_empty() { 0 } else { self.rng.pick(&fds) }).collect();
                list.sort_unstable();
                list.dedup();
                let text: Vec<String> = list.iter().map(i32::to_string).collect();
                format!("select {}", text.join(","))
            }
            "epoll" => self.epoll(w, sleepy),
            "pollsleep" => {
                let fd = self.some_fd(w);
                if fd < 3 {
                    return format!("poll {fd}:1 0");
                }
                let events = self.rng.pick(&[1, 4, 0x40, 0x100]);
                format!("poll {fd}:{events:x} -1")
            }
            "child" => self.child(w),
            "exec" => "exec".to_string(),
            "exit" => "exit".to_string(),
            "pass" => {
                if mailed || self.rng.chance(20) {
                    let how = self.rng.pick(&["plain", "cloexec"]);
                    format!("takefd {how}")
                } else {
                    let fd = self.some_fd(w);
                    let fd = if fd == 0 { -1 } else { fd };
                    format!("passfd {fd} {}", self.rng.below(self.count))
                }
            }
            "user" => self.rng.weighted(&[(4, "seteuid user"), (5, "seteuid root"), (2, "setuid")]).to_string(),
            "limit" => self.limit(w),
            "umask" => format!("umask {:x}", self.rng.pick(&[0o22, 0, 0o77, 0o777, 0o27])),
            "nice" => format!("nice {}", self.rng.pick(&[0, 0, 5, 10, -5])),
            "signal" => {
                // To itself; the handler runs at once.
                let signo = self.rng.pick(&[SIG_PLAIN[0], SIG_RESTART[1], SIG_WAITED, SIG_IGNORED]);
                let fd = self.some_fd(w);
                if fd < 3 { "sigwait".to_string() } else { format!("notify libc {fd} sig:{signo}:5") }
            }
            "sigwait" => "sigwait".to_string(),
            "mass" => {
                self.mass = true;
                format!("mass {}", self.rng.pick(&[3, 260, 260]))
            }
            _ => {
                let from = 3 + self.rng.below(12);
                let flags = self.rng.pick(&[0, 0, 4]);
                format!("closerange {from} {} {flags}", from + self.rng.below(4))
            }
        }
    }

    fn open(&mut self, w: usize, odd: bool) -> String {
        let name = if odd { self.rng.pick(&ODD_NAMES) } else { self.rng.pick(&NAMES) };
        let via = self.via();
        let mut flags = self.rng.weighted(&[(12, 2), (3, 0), (3, 1), (1, 3)]);
        let mut create = self.rng.chance(75);
        if !odd && self.queue_fds(w).is_empty() && self.rng.chance(70) {
            (create, flags) = (true, 2);
        }
        if create {
            flags |= libc::O_CREAT;
        }
        if self.rng.chance(8) {
            flags |= libc::O_EXCL;
        }
        if self.rng.chance(30) {
            flags |= O_NONBLOCK;
        }
        if self.allowed("oddflag") && self.rng.chance(10) {
            flags |= self.rng.pick(&[
                libc::O_CLOEXEC,
                libc::O_CLOEXEC,
                libc::O_APPEND,
                libc::O_TRUNC,
                libc::O_NOCTTY,
                libc::O_SYNC,
                libc::O_ASYNC,
                libc::O_NOATIME,
                libc::O_DIRECTORY,
                libc::O_NOFOLLOW,
                libc::O_TMPFILE,
                libc::O_DIRECT,
                libc::O_PATH,
            ]);
        }
        if flags & libc::O_CREAT == 0 && self.rng.chance(10) && !odd {
            return format!("open2 {name} {flags:x}");
        }
        if flags & libc::O_CREAT == 0 && self.rng.chance(80) {
            return format!("open {via} {name} {flags:x} - -");
        }
        let mode = self.rng.weighted(&[
            (12, 0o600),
            (6, 0o666),
            (3, 0o644),
            (1, 0),
            (1, 0o7777),
            (1, 0o400),
            (1, 0o200),
            (1, 0o066),
            (1, 0o060),
            (1, 0o100644),
        ]);
        let attr = match self.rng.below(20) {
            0 | 1 => "null".to_string(),
            2 if self.rng.chance(50) => self.rng.pick(&["bad", "half"]).to_string(),
            3 => {
                let bad = [0, -1, 11, 65536, 1 << 32, i64::MAX, i64::MIN];
                let size = [0, -5, 8193, 1 << 24, 1 << 32, i64::MAX];
                match self.rng.below(3) {
                    0 => format!("0,{},8,0", self.rng.pick(&bad)),
                    1 => format!("0,2,{},0", self.rng.pick(&size)),
                    _ => format!("0,{},{},0", self.rng.pick(&bad), self.rng.pick(&size)),
                }
            }
            _ => {
                let maxmsg = self.rng.weighted(&[(6, 1), (8, 2), (4, 3), (1, 7), (2, 10)]);
                let msgsize = self.rng.weighted(&[(1, 1), (6, 8), (4, 64), (2, 128), (1, 5000), (2, 8192)]);
                let flags = self.rng.pick(&[0, 0, 0, 0x800, 77]);
                format!("{flags},{maxmsg},{msgsize},{}", self.rng.pick(&[0, 0, 3]))
            }
        };
        format!("open {via} {name} {flags:x} {mode:x} {attr}")
    }

    fn deadline(&mut self, sleepy: bool) -> &'static str {
        let valid = self.rng.weighted(&[
            (if sleepy { 40 } else { 0 }, "-"),
            (if sleepy { 4 } else { 0 }, "null"),
            (if sleepy { 8 } else { 0 }, "far"),
            (if sleepy { 2 } else { 0 }, "max"),
            (10, "zero"),
            (6, "past"),
            (if self.allowed("timeout") { 4 } else { 0 }, "soon"),
        ]);
        if self.rng.chance(6) { self.rng.pick(&["bad", "secneg", "nsecneg", "nsecbig", "nsecmin"]) } else { valid }
    }

    /// What to take as the message size of the queue behind a descriptor.
    fn msgsize(&self, w: usize, fd: i32) -> i64 {
        self.queue_of(w, fd).map_or(8, |q| self.queues[q].msgsize)
    }

    fn is_nonblock(&self, w: usize, fd: i32) -> bool {
        match self.workers[w].fds.get(&fd) {
            Some((Kind::Queue(d), _)) => self.descriptions[*d].nonblock,
            _ => false,
        }
    }

    fn send(&mut self, w: usize, fd: i32, sleepy: bool, sane: bool) -> String {
        let size = self.msgsize(w, fd);
        let plain = sane || self.rng.chance(80);
        let len = if plain {
            (size - self.rng.below(4) as i64).max(0)
        } else {
            self.rng.pick(&[0, 0, 1, size / 2, size, size + 1, 4096.min(size), 16000])
        };
        let prio = if sane || self.rng.chance(90) {
            self.rng.weighted(&[
                (10, 0_u32),
                (8, 1),
                (4, 2),
                (2, 31),
                (2, 63),
                (1, 64),
                (1, 1000),
                (1, 4095),
                (1, 4096),
                (1, 32766),
                (2, 32767),
            ])
        } else {
            self.rng.pick(&[32768, 32769, 65536, 1 << 31, u32::MAX, 32767])
        };
        let buffer = if sane {
            "ok"
        } else {
            self.rng.weighted(&[
                (30, "ok"),
                (6, "end"),
                (1, "half:3"),
                (1, "half:4090"),
                (1, "null"),
                (1, "bad"),
                (1, "ro"),
            ])
        };
        let buffer = if buffer == "ro" && len > 4096 { "ok" } else { buffer };
        let deadline = if sane && self.rng.chance(80) {
            if sleepy { "-" } else { "zero" }
        } else {
            self.deadline(sleepy || self.is_nonblock(w, fd))
        };
        let via = self.via();
        format!("send {via} {fd} {len} {prio} {buffer} {deadline} {}", self.serial)
    }

    fn receive(&mut self, w: usize, fd: i32, sleepy: bool, sane: bool) -> String {
        let size = self.msgsize(w, fd);
        let len = if sane || self.rng.chance(85) {
            self.rng.pick(&[size, size, 8192, 16384]).to_string()
        } else {
            let small = (size - 1).max(0).to_string();
            match self.rng.below(5) {
                0 => "0".to_string(),
                1 => "max".to_string(),
                2 => "ssize".to_string(),
                _ => small,
            }
        };
        let buffer = if sane {
            "ok"
        } else {
            self.rng.weighted(&[
                (40, "ok"),
                (6, "end"),
                (1, "half:3"),
                (1, "half:4090"),
                (1, "null"),
                (1, "bad"),
                (1, "ro"),
            ])
        };
        let buffer = if len == "max" || len == "ssize" { "ok" } else { buffer };
        let prio = if sane { "ok" } else { self.rng.weighted(&[(30, "ok"), (6, "null"), (1, "bad")]) };
        let deadline = if sane && self.rng.chance(80) {
            if sleepy { "-" } else { "zero" }
        } else {
            self.deadline(sleepy || self.is_nonblock(w, fd))
        };
        let via = self.via();
        format!("recv {via} {fd} {len} {buffer} {prio} {deadline}")
    }

    fn notify(&mut self, w: usize) -> String {
        let via = self.via();
        let fd = self.some_fd(w);
        let signals = [SIG_PLAIN[0], SIG_PLAIN[1], SIG_RESTART[0], SIG_RESTART[1], SIG_WAITED, SIG_IGNORED];
        let how = match self.rng.below(20) {
            0..=2 => "remove".to_string(),
            3 | 4 => "none".to_string(),
            5 => format!("sig:{}:9", self.rng.pick(&DESTROYING)),
            6 if via == "sys" => self.rng.pick(&["bad", "half"]).to_string(),
            6 => "half".to_string(),
            7 => format!("kind:{}", self.rng.pick(&[3, 4, 5, -1, 77])),
            _ => format!("sig:{}:{}", self.rng.pick(&signals), self.serial),
        };
        format!("notify {via} {fd} {how}")
    }

    fn dup(&mut self, w: usize) -> String {
        let fd = self.some_fd(w);
        let fd = if fd == 0 { -1 } else { fd };
        let to = 3 + self.rng.below(14) as i32;
        match self.rng.below(6) {
            0 | 1 => format!("dup {fd}"),
            2 => format!("dup2 {fd} {to}"),
            3 => format!("dup3 {fd} {to} {:x}", self.rng.pick(&[0, libc::O_CLOEXEC, 1])),
            4 => format!("dupfd {fd} {to}"),
            _ => format!("dupfdc {fd} {to}"),
        }
    }

    fn flags(&mut self, w: usize) -> String {
        let fd = self.some_fd(w);
        match self.rng.below(8) {
            0 | 1 => format!("getfl {fd}"),
            2 => format!("getfd {fd}"),
            3 | 4 => format!("setfd {} {}", if fd < 3 { 3 } else { fd }, self.rng.pick(&[0, 0, 1])),
            5 if self.allowed("fionbio") => {
                format!("fionbio {} {}", if fd < 3 { 3 } else { fd }, self.rng.pick(&[0, 1]))
            }
            _ => {
                let mut flags = self.rng.pick(&[0, O_NONBLOCK, O_NONBLOCK]);
                if self.allowed("oddflag") && self.rng.chance(25) {
                    flags |= self.rng.pick(&[
                        libc::O_APPEND,
                        libc::O_NOATIME,
                        libc::O_SYNC,
                        libc::O_ASYNC,
                        libc::O_CREAT,
                        libc::O_WRONLY,
                        libc::O_DIRECT,
                    ]);
                }
                format!("setfl {} {flags:x}", if fd < 3 { 3 } else { fd })
            }
        }
    }

    /// What reading, writing and seeking on a queue's descriptor show.
    fn text(&mut self, w: usize) -> String {
        let fd = self.some_fd(w);
        let fd = if fd < 3 { -1 } else { fd };
        if !self.is_queue_or_closed(w, fd) {
            return format!("fstat {fd}");
        }
        match self.rng.below(8) {
            0 | 1 => {
                let len = self.rng.pick(&[100, 100, 100, 16, 0]);
                format!("read {fd} {len} {}", self.rng.weighted(&[(9, "ok"), (1, "bad")]))
            }
            2 | 3 => {
                let offset = self.rng.pick(&[0, 0, 5, 30, 64, 80, 1000, -1]);
                format!("pread {fd} 100 ok {offset}")
            }
            4 => format!("write {fd} {}", self.rng.pick(&[0, 1, 100])),
            5 | 6 => {
                let offset = self.rng.pick(&[0, 0, 5, 80, 1000, -1, -80]);
                format!("lseek {fd} {offset} {}", self.rng.pick(&[0, 0, 1, 2, 2, 9]))
            }
            _ => format!("ftruncate {fd} {}", self.rng.pick(&[0, 80, 200, 200, -1])),
        }
    }

    /// What else files can do.
    fn file(&mut self, w: usize) -> String {
        let fd = self.some_fd(w);
        let fd = if fd < 3 { -1 } else { fd };
        if !self.is_queue_or_closed(w, fd) {
            return format!("fstat {fd}");
        }
        match self.rng.below(16) {
            0 | 1 => format!("fchmod {fd} {:x}", self.rng.pick(&[0o600, 0o666, 0, 0o4755])),
            2 => format!("fchown {fd} {}", self.rng.pick(&["root", "user", "none"])),
            3 => format!("futimens {fd}"),
            4 => format!("fionread {fd}"),
            5 => format!("fsync {fd}"),
            6 => format!("isatty {fd}"),
            7 => format!("flock {fd}"),
            8 => format!("unflock {fd}"),
            9 => format!("mmap {fd}"),
            10 => format!("fallocate {fd}"),
            11 => format!("fchdir {fd}"),
            12 => format!("sockrecv {fd}"),
            13 => format!("fstatfs {fd}"),
            14 => format!("readlink {fd}"),
            _ => format!("reopen {fd} {:x}", self.rng.pick(&[0, 1, 2, O_NONBLOCK])),
        }
    }

    fn poll_list(&mut self, w: usize) -> String {
        let n = 1 + self.rng.below(4);
        let each: Vec<String> = (0..n)
            .map(|_| {
                let fd = self.some_fd(w);
                let fd = if fd == 0 { -1 } else { fd };
                let events = self.rng.pick(&[1, 4, 5, 0x145, 0x40, 0x100, 0, 0x2002, 0x1f]);
                format!("{fd}:{events:x}")
            })
            .collect();
        each.join(",")
    }

    fn epoll(&mut self, w: usize, sleepy: bool) -> String {
        let fds = self.workers[w].fds.iter();
        let eps: Vec<i32> = fds.filter(|(_, (kind, _))| matches!(kind, Kind::Epoll)).map(|(fd, _)| *fd).collect();
        if eps.is_empty() || self.rng.chance(4) {
            return "epcreate".to_string();
        }
        let ep = self.rng.pick(&eps);
        if self.rng.chance(50) {
            let sleepy = sleepy && self.allowed("pollsleep") && self.rng.chance(20);
            return format!("epwait {ep} {}", if sleepy { -1 } else { 0 });
        }
        let fd = self.some_fd(w);
        let fd = if fd == 0 { -1 } else { fd };
        let edge = libc::EPOLLET as u32;
        let once = libc::EPOLLONESHOT as u32;
        let events: u32 = self.rng.pick(&[1, 4, 5, edge | 1, edge | 4, edge | 5, edge | 0x145, once | 1, once | 5]);
        let op = self.rng.weighted(&[(8, "add"), (3, "mod"), (1, "del")]);
        format!("epctl {ep} {op} {fd} {events:x}")
    }

    /// Something in a child that ends.
    fn child(&mut self, w: usize) -> String {
        let fd = self.some_fd(w);
        let op = match self.rng.below(12) {
            // Names and notifications that libc itself would fault on are left out: the kernel never
            // sees them.
            0 | 1 => "open libc !edge 2 - -".to_string(),
            2 => format!("notify libc {fd} {}", self.rng.pick(&["half", "remove", "none", "sig:35:1"])),
            3 => format!("close mq {}", if fd < 3 { -1 } else { fd }),
            4 => self.open(w, false),
            5 => format!("getattr libc {fd} ok"),
            6 => format!("setattr libc {fd} {} ok ok", self.rng.pick(&["0", "800"])),
            7 => format!("unlink libc {}", self.rng.pick(&NAMES)),
            8 | 9 => {
                let size = self.msgsize(w, fd);
                format!("send libc {fd} {size} 1 ok zero {}", self.serial)
            }
            _ => format!("recv libc {fd} 8192 ok ok zero"),
        };
        format!("child {op}")
    }

    fn limit(&mut self, w: usize) -> String {
        let worker = &self.workers[w];
        if worker.low_files {
            return "rlimit nofile 1024".to_string();
        }
        if worker.low_bytes {
            return "rlimit msgqueue 819200".to_string();
        }
        if self.rng.chance(50) {
            let next = (3..).find(|fd| !worker.fds.contains_key(fd)).unwrap_or(3);
            let limit = (next + self.rng.pick(&[0, 0, 1, 1, 2, 3])).max(3);
            format!("rlimit nofile {limit}")
        } else {
            let bytes = [0, 96, 97, 448, 1000, 82_879, 82_880, 165_760];
            format!("rlimit msgqueue {}", self.rng.pick(&bytes))
        }
    }

    /// Learns from what happened.
    pub fn observe(&mut self, step: &Step) {
        let (target, rest) = step.op.split_once(' ').unwrap_or((&step.op, ""));
        let tokens: Vec<&str> = rest.split(' ').collect();
        if target == "c" {
            self.observe_coordinator(&tokens, &step.result);
        } else {
            let w: usize = target[1..].parse().unwrap_or(0);
            if step.result == "sleeps" {
                self.workers[w].asleep = Some(rest.to_string());
            } else {
                self.observe_worker(w, &tokens, &step.result);
            }
        }
        for (w, result) in &step.completed {
            let Some(op) = self.workers[*w].asleep.take() else { continue };
            self.workers[*w].stopped = false;
            let tokens: Vec<&str> = op.split(' ').collect();
            self.observe_worker(*w, &tokens, result);
        }
    }

    fn observe_coordinator(&mut self, t: &[&str], result: &str) {
        let w: usize = t[1].parse().unwrap_or(0);
        match t[0] {
            "spawn" => {
                let mail = std::mem::take(&mut self.workers[w].mail);
                self.workers[w] = Worker { alive: true, mail, ..Worker::default() };
            }
            "kill" => self.bury(w),
            "stop" if result == "0" => self.workers[w].stopped = true,
            "cont" => self.workers[w].stopped = false,
            "sig" if t[2] == libc::SIGCONT.to_string() => self.workers[w].stopped = false,
            _ => {}
        }
    }

    fn bury(&mut self, w: usize) {
        let mail = std::mem::take(&mut self.workers[w].mail);
        self.workers[w] = Worker { mail, ..Worker::default() };
    }

    fn observe_worker(&mut self, w: usize, t: &[&str], result: &str) {
        if result.starts_with("exited") || result.starts_with("died") {
            self.bury(w);
            return;
        }
        let first = result.split(' ').next().unwrap_or("");
        let fd = first.strip_prefix("fd=").and_then(|n| n.parse::<i32>().ok());
        let number = |i: usize| t.get(i).and_then(|n| n.parse::<i32>().ok()).unwrap_or(-1);
        match t[0] {
            "open" | "open2" => {
                if let Some(fd) = fd {
                    let (name, flags) = if t[0] == "open" { (t[2], t[3]) } else { (t[1], t[2]) };
                    let flags = i32::from_str_radix(flags, 16).unwrap_or(0);
                    let attr = t.get(5).copied().unwrap_or("-");
                    self.opened(w, fd, name, flags, attr);
                }
            }
            "unlink" if result == "0" => {
                let name = t[2];
                for q in self.queues.iter_mut().filter(|q| q.name == name) {
                    q.linked = false;
                }
            }
            "close" if first == "0" => {
                self.workers[w].fds.remove(&number(2));
            }
            "closerange" if first == "0" => {
                let (from, to) = (number(1), number(2));
                if t[3] == "0" {
                    self.workers[w].fds.retain(|fd, _| !(from..=to).contains(fd));
                }
            }
            "dup" | "dup2" | "dup3" | "dupfd" | "dupfdc" => {
                if let (Some(new), Some((kind, _))) = (fd, self.workers[w].fds.get(&number(1)).copied()) {
                    let cloexec = t[0] == "dupfdc";
                    self.workers[w].fds.insert(new, (kind, cloexec));
                }
            }
            "reopen" => {
                if let (Some(new), Some((Kind::Queue(d), _))) = (fd, self.workers[w].fds.get(&number(1)).copied()) {
                    let flags = i32::from_str_radix(t[2], 16).unwrap_or(0);
                    let queue = self.descriptions[d].queue;
                    let d = self.description(queue, flags);
                    self.workers[w].fds.insert(new, (Kind::Queue(d), true));
                }
            }
            "epcreate" => {
                if let Some(fd) = fd {
                    self.workers[w].fds.insert(fd, (Kind::Epoll, false));
                }
            }
            "setfd" if first == "0" => {
                let cloexec = t[2] == "1";
                if let Some(entry) = self.workers[w].fds.get_mut(&number(1)) {
                    entry.1 = cloexec;
                }
            }
            "setattr" => {
                let done = result.contains(',') || first == "0" || t[5] == "bad" || t[5] == "ro";
                if done && t[4] == "ok" && (t[3] == "0" || t[3] == "800") {
                    self.set_nonblock(w, number(2), t[3] == "800");
                }
            }
            "setfl" if first == "0" => {
                let flags = i32::from_str_radix(t[2], 16).unwrap_or(0);
                self.set_nonblock(w, number(1), flags & O_NONBLOCK != 0);
            }
            "fionbio" if first == "0" => self.set_nonblock(w, number(1), t[2] == "1"),
            "passfd" if first == "1" => {
                let kind = self.workers[w].fds.get(&number(1)).map_or(Kind::Other, |e| e.0);
                let to = number(2) as usize;
                self.workers[to].mail.push(kind);
            }
            "takefd" => {
                let worker = &mut self.workers[w];
                if first == "EAGAIN" || worker.mail.is_empty() {
                    return;
                }
                let kind = worker.mail.remove(0);
                if let Some(fd) = fd {
                    worker.fds.insert(fd, (kind, t[1] == "cloexec"));
                }
            }
            "setuid" => self.workers[w].user = true,
            "rlimit" if first == "0" => {
                let low = number(2) != 1024 && number(2) != 819_200;
                if t[1] == "nofile" {
                    self.workers[w].low_files = low;
                } else {
                    self.workers[w].low_bytes = low;
                }
            }
            "forkinto" if first == "forked" => {
                let slot = number(1) as usize;
                let mail = std::mem::take(&mut self.workers[slot].mail);
                let copy = self.workers[w].clone();
                self.workers[slot] = Worker { mail, asleep: None, stopped: false, ..copy };
            }
            "exec" => {
                self.workers[w].fds.retain(|_, (_, cloexec)| !*cloexec);
                self.workers[w].low_files = false;
            }
            _ => {}
        }
    }

    fn description(&mut self, queue: usize, flags: i32) -> usize {
        let nonblock = flags & O_NONBLOCK != 0;
        self.descriptions.push(Description { queue, access: flags & 3, nonblock });
        self.descriptions.len() - 1
    }

    fn opened(&mut self, w: usize, fd: i32, name: &str, flags: i32, attr: &str) {
        let known = self.queues.iter().position(|q| q.linked && q.name == name);
        let queue = known.unwrap_or_else(|| {
            let list: Vec<i64> = attr.split(',').filter_map(|n| n.parse().ok()).collect();
            let msgsize = if list.len() == 4 { list[2] } else { 8192 };
            let name = name.to_string();
            self.queues.push(Queue { name, linked: true, msgsize });
            self.queues.len() - 1
        });
        let d = self.description(queue, flags);
        self.workers[w].fds.insert(fd, (Kind::Queue(d), true));
    }

    fn set_nonblock(&mut self, w: usize, fd: i32, on: bool) {
        if let Some((Kind::Queue(d), _)) = self.workers[w].fds.get(&fd) {
            self.descriptions[*d].nonblock = on;
        }
    }
}
