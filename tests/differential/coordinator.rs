//! Runs workers in lockstep and writes down what they answer.
//!
//! Nothing happens between two steps: a step ends when every worker either waits for its next
//! command or sleeps in its call. Whether a worker sleeps is seen from outside, as state S of its
//! only thread while it says that it is in a call that may sleep. The kernel makes a sleeper
//! runnable before the call that wakes it returns, so a worker that is still in state S after that
//! call was not woken: on the kernel the set of those that a step completes is exact.
//!
//! A replay knows from the record which workers a step completes and waits for them.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::generate::Generator;
use crate::shared::{
    self, FD_ANSWER, FD_COMMAND, FD_MAIL_IN, FD_MAIL_OUT, FD_PIDFD, FD_TRACE, MAX_WORKERS, NOFILE, PHASE_BUSY,
    PHASE_IDLE, PHASE_MAY_SLEEP, Shared, move_fd, sys,
};
use crate::worker;

/// Environment variables of a coordinator.
pub const ENV_TRACE: &str = "MQNS_DIFF_TRACE";
/// The record to replay; without it the operations are generated.
pub const ENV_SCRIPT: &str = "MQNS_DIFF_SCRIPT";
/// `1`: the script's results are to be expected; otherwise only its operations are taken.
pub const ENV_EXPECT: &str = "MQNS_DIFF_EXPECT";
/// Seed of the generator.
pub const ENV_SEED: &str = "MQNS_DIFF_SEED";
/// Number of operations to generate.
pub const ENV_OPS: &str = "MQNS_DIFF_OPS";
/// How long to wait for what must happen, milliseconds.
pub const ENV_PATIENCE: &str = "MQNS_DIFF_PATIENCE_MS";

/// One operation and what came of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Step {
    /// `w0 send …` or `c kill 1`.
    pub op: String,
    /// The worker's answer, or `sleeps`, `busy`, `dead`.
    pub result: String,
    /// Answers of workers that had been asleep: number and text.
    pub completed: Vec<(usize, String)>,
}

impl Step {
    /// Three kinds of lines: `@ operation`, `= result`, `+ worker result`.
    pub fn to_text(&self) -> String {
        let mut text = format!("@ {}\n= {}\n", self.op, self.result);
        for (worker, result) in &self.completed {
            let _ = writeln!(text, "+ {worker} {result}");
        }
        text
    }

    /// A trace of such lines; a last step that was not finished has an empty result.
    pub fn parse_all(text: &str) -> Vec<Step> {
        let mut steps: Vec<Step> = Vec::new();
        for line in text.lines() {
            let rest = line.get(2..).unwrap_or("").to_string();
            match (line.as_bytes().first(), steps.last_mut()) {
                (Some(b'@'), _) => steps.push(Step { op: rest, ..Step::default() }),
                (Some(b'='), Some(step)) => step.result = rest,
                (Some(b'+'), Some(step)) => {
                    let (worker, result) = rest.split_once(' ').unwrap_or((&rest, ""));
                    step.completed.push((worker.parse().unwrap_or(0), result.to_string()));
                }
                _ => {}
            }
        }
        steps
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// No process.
    Dead,
    /// Waits for a command.
    Idle,
    /// Has a command that it did not answer yet.
    Asleep,
}

struct Handle {
    pid: i32,
    pidfd: i32,
    state: State,
    stopped: bool,
    generation: u32,
}

enum Report {
    Answer(String),
    Died(String),
    Nothing,
}

struct Coordinator {
    shared: &'static Shared,
    workers: Vec<Handle>,
    labels: HashMap<i32, String>,
    patience: Duration,
    /// A replay ends at the first thing that should not have been.
    failed: bool,
}

/// State letter of a process's only thread (proc(5), field 3 of stat).
fn state_of(pid: i32) -> u8 {
    let text = std::fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    let close = text.iter().rposition(|b| *b == b')');
    close.and_then(|at| text.get(at + 2)).copied().unwrap_or(b'?')
}

/// Gives up the processor for a moment, between two looks at a state that no event announces.
fn breathe() {
    std::thread::sleep(Duration::from_micros(20));
}

impl Coordinator {
    fn new(shared: &'static Shared, count: usize, patience: Duration) -> Coordinator {
        let workers = (0..count)
            .map(|_| Handle { pid: 0, pidfd: -1, state: State::Dead, stopped: false, generation: 0 })
            .collect();
        let labels = HashMap::from([(sys!(getpid()), "coordinator".to_string())]);
        let mut this = Coordinator { shared, workers, labels, patience, failed: false };
        for w in 0..count {
            this.spawn(w);
        }
        this
    }

    fn spawn(&mut self, w: usize) {
        self.shared.slots[w].phase.store(PHASE_BUSY, Ordering::SeqCst);
        match sys!(fork()) {
            -1 => panic!("fork: {}", std::io::Error::last_os_error()),
            0 => worker::start(w, self.shared),
            pid => self.adopt(w, pid),
        }
    }

    /// A new process lives in slot `w`.
    fn adopt(&mut self, w: usize, pid: i32) {
        let opened = sys!(syscall(libc::SYS_pidfd_open, pid as libc::c_long, 0_i64)) as i32;
        assert!(opened >= 0, "pidfd_open: {}", std::io::Error::last_os_error());
        let pidfd = sys!(fcntl(opened, libc::F_DUPFD_CLOEXEC, FD_PIDFD));
        sys!(close(opened));
        let handle = &mut self.workers[w];
        if handle.pidfd >= 0 {
            sys!(close(handle.pidfd));
        }
        let generation = handle.generation + 1;
        *handle = Handle { pid, pidfd, state: State::Idle, stopped: false, generation };
        self.labels.insert(pid, format!("w{w}.{generation}"));
    }

    /// Waits for an answer or death.
    fn report(&mut self, w: usize, timeout: Duration) -> Report {
        let fd = FD_ANSWER + w as i32;
        let mut fds = [
            libc::pollfd { fd, events: libc::POLLIN, revents: 0 },
            libc::pollfd { fd: self.workers[w].pidfd, events: libc::POLLIN, revents: 0 },
        ];
        sys!(poll(fds.as_mut_ptr(), 2, timeout.as_millis() as i32));
        if fds[0].revents != 0 {
            let mut buf = vec![0_u8; 16384];
            let n = sys!(recv(fd, buf.as_mut_ptr().cast(), buf.len(), libc::MSG_DONTWAIT));
            assert!(n > 0, "answer of worker {w}");
            let text = String::from_utf8_lossy(&buf[..n as usize]).into_owned();
            if self.workers[w].state == State::Asleep {
                self.workers[w].state = State::Idle;
            }
            // A child that takes over a slot must be known before its number is replaced.
            return Report::Answer(text);
        }
        if fds[1].revents != 0 {
            return Report::Died(self.bury(w));
        }
        Report::Nothing
    }

    /// What a process that is gone died of, where it was our child.
    fn bury(&mut self, w: usize) -> String {
        self.workers[w].state = State::Dead;
        self.workers[w].stopped = false;
        let mut status = 0;
        if sys!(waitpid(self.workers[w].pid, &mut status, libc::WNOHANG)) <= 0 {
            "died".to_string()
        } else if libc::WIFSIGNALED(status) {
            format!("died of signal {}", libc::WTERMSIG(status))
        } else {
            format!("exited {}", libc::WEXITSTATUS(status))
        }
    }

    fn phase(&self, w: usize) -> u32 {
        self.shared.slots[w].phase.load(Ordering::SeqCst)
    }

    /// Is the worker asleep in its call (and, if stopped, stopped)?
    fn sleeps(&self, w: usize) -> bool {
        let letter = if self.workers[w].stopped { b'T' } else { b'S' };
        self.phase(w) == PHASE_MAY_SLEEP && state_of(self.workers[w].pid) == letter
    }

    /// Does the worker wait for a command?
    fn rests(&self, w: usize) -> bool {
        self.phase(w) == PHASE_IDLE && state_of(self.workers[w].pid) == b'S'
    }

    /// What a worker that does not answer is doing.
    fn stuck(&mut self, w: usize) -> String {
        self.failed = true;
        let pid = self.workers[w].pid;
        let call = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
        let call = call.split(' ').next().unwrap_or("").trim().to_string();
        let (state, phase) = (state_of(pid) as char, self.phase(w));
        format!("no answer in {:?}: state {state}, phase {phase}, system call {call}", self.patience)
    }

    /// Process and user numbers as names.
    fn normalise(&self, text: &str) -> String {
        let real = self.shared.real_uid.load(Ordering::SeqCst);
        let user = self.shared.user_uid.load(Ordering::SeqCst);
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find("<pid:").or_else(|| rest.find("<uid:")) {
            let at = rest.find("<uid:").map_or(at, |other| other.min(at));
            let Some(end) = rest[at..].find('>') else { break };
            let number = rest[at + 5..at + end].parse::<i64>().unwrap_or(-1);
            out.push_str(&rest[..at]);
            if rest[at..].starts_with("<pid:") {
                match self.labels.get(&(number as i32)) {
                    Some(label) => out.push_str(label),
                    None if number == 0 => out.push('0'),
                    None => out.push_str("unknown"),
                }
            } else if number == 0 {
                out.push_str("root");
            } else if number == real as i64 {
                out.push_str("real");
            } else if number == user as i64 {
                out.push_str("user");
            } else {
                let _ = write!(out, "{number}");
            }
            rest = &rest[at + end + 1..];
        }
        out + rest
    }

    /// Waits until nothing moves any more; answers of workers that a step completed.
    fn settle(&mut self, expected: Option<&Step>) -> Vec<(usize, String)> {
        let mut completed = Vec::new();
        if let Some(step) = expected {
            for (w, _) in &step.completed {
                match self.report(*w, self.patience) {
                    Report::Answer(text) => completed.push((*w, self.normalise(&text))),
                    Report::Died(how) => completed.push((*w, how)),
                    Report::Nothing => completed.push((*w, self.stuck(*w))),
                }
            }
        }
        let end = Instant::now() + self.patience;
        let mut w = 0;
        while w < self.workers.len() {
            let calm = match self.workers[w].state {
                State::Dead => true,
                State::Idle => self.rests(w),
                State::Asleep => self.sleeps(w),
            };
            if calm && self.workers[w].state != State::Asleep {
                w += 1;
                continue;
            }
            match self.report(w, Duration::ZERO) {
                Report::Answer(text) => completed.push((w, self.normalise(&text))),
                Report::Died(how) => completed.push((w, how)),
                Report::Nothing if calm => {
                    w += 1;
                    continue;
                }
                Report::Nothing if Instant::now() > end => {
                    completed.push((w, self.stuck(w)));
                    break;
                }
                Report::Nothing => breathe(),
            }
            // This one moved, and may have moved others: a sender that went on after SIGCONT
            // wakes a receiver that was found asleep.
            w = 0;
        }
        completed.sort();
        completed
    }

    /// Sends a command to an idle worker and waits for the answer, or until it sleeps.
    fn command(&mut self, w: usize, op: &str, expected: Option<&Step>) -> String {
        let n = sys!(send(FD_ANSWER + w as i32, op.as_ptr().cast(), op.len(), 0));
        assert_eq!(n, op.len() as isize, "command: {}", std::io::Error::last_os_error());
        let tokens: Vec<&str> = op.split(' ').collect();
        let must_answer = match expected {
            Some(step) => step.result != "sleeps",
            None => !worker::may_sleep(&tokens),
        };
        let first = if must_answer { self.patience } else { Duration::from_millis(1) };
        let end = Instant::now() + self.patience;
        let mut wait = first;
        loop {
            match self.report(w, wait) {
                Report::Answer(text) => {
                    if let Some(at) = text.find("forked <pid:") {
                        let digits = text[at + 12..].split('>').next().unwrap_or("");
                        let pid = digits.parse().expect("pid of a forked worker");
                        let slot = tokens[1].parse().expect("slot of a forked worker");
                        self.adopt(slot, pid);
                    }
                    return self.normalise(&text);
                }
                Report::Died(how) => return how,
                Report::Nothing => {}
            }
            if must_answer || Instant::now() > end {
                return self.stuck(w);
            }
            if self.sleeps(w) {
                // An answer may have come between the two looks.
                if let Report::Answer(text) = self.report(w, Duration::ZERO) {
                    return self.normalise(&text);
                }
                self.workers[w].state = State::Asleep;
                return "sleeps".to_string();
            }
            wait = Duration::ZERO;
            breathe();
        }
    }

    /// What the coordinator does itself: `spawn w`, `kill w`, `sig w n`, `stop w`, `cont w`.
    fn own_operation(&mut self, t: &[&str]) -> String {
        let w: usize = t[1].parse().expect("worker");
        if t[0] == "spawn" {
            if self.workers[w].state != State::Dead {
                return "alive".to_string();
            }
            self.spawn(w);
            return "ok".to_string();
        }
        if self.workers[w].state == State::Dead {
            return "dead".to_string();
        }
        let pid = self.workers[w].pid;
        match t[0] {
            "kill" => {
                sys!(kill(pid, libc::SIGKILL));
                match self.report(w, self.patience) {
                    Report::Died(how) => how,
                    Report::Answer(text) => format!("answered: {}", self.normalise(&text)),
                    Report::Nothing => self.stuck(w),
                }
            }
            "sig" => {
                let signo: i32 = t[2].parse().expect("signal");
                if signo == libc::SIGCONT {
                    self.workers[w].stopped = false;
                }
                sys!(kill(pid, signo)).to_string()
            }
            // Only those asleep in a call: where an idle worker stops is nobody's business.
            "stop" if self.workers[w].state == State::Asleep => {
                self.workers[w].stopped = true;
                sys!(kill(pid, libc::SIGSTOP)).to_string()
            }
            "cont" => {
                self.workers[w].stopped = false;
                sys!(kill(pid, libc::SIGCONT)).to_string()
            }
            _ => "idle".to_string(),
        }
    }

    fn step(&mut self, op: &str, expected: Option<&Step>) -> Step {
        let (target, rest) = op.split_once(' ').expect("target and operation");
        let tokens: Vec<&str> = rest.split(' ').collect();
        let result = if target == "c" {
            self.own_operation(&tokens)
        } else {
            let w: usize = target[1..].parse().expect("worker");
            let taken = tokens[0] == "forkinto" && {
                let slot: usize = tokens[1].parse().expect("slot");
                slot >= self.workers.len() || self.workers[slot].state != State::Dead
            };
            match self.workers.get(w).map(|h| h.state) {
                None | Some(State::Dead) => "dead".to_string(),
                Some(State::Asleep) => "busy".to_string(),
                Some(State::Idle) if taken => "taken".to_string(),
                Some(State::Idle) => self.command(w, rest, expected),
            }
        };
        let completed = self.settle(expected);
        Step { op: op.to_string(), result, completed }
    }

    fn finish(&mut self) {
        for w in 0..self.workers.len() {
            if self.workers[w].state != State::Dead {
                sys!(kill(self.workers[w].pid, libc::SIGKILL));
                while let Report::Answer(_) = self.report(w, self.patience) {}
            }
        }
    }
}

/// Gives up CAP_SYS_RESOURCE for good, so that limits mean the same to every user of the tester.
fn drop_sys_resource() {
    const CAP_SYS_RESOURCE: u32 = 24;
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    sys!(prctl(libc::PR_CAPBSET_DROP, CAP_SYS_RESOURCE, 0, 0, 0));
    let mut header = Header { version: 0x2008_0522, pid: 0 };
    let mut data = [Data { effective: 0, permitted: 0, inheritable: 0 }; 2];
    sys!(syscall(libc::SYS_capget, &raw mut header, &raw mut data));
    for set in [&mut data[0].effective, &mut data[0].permitted, &mut data[0].inheritable] {
        *set &= !(1 << CAP_SYS_RESOURCE);
    }
    assert_eq!(sys!(syscall(libc::SYS_capset, &raw mut header, &raw const data)), 0, "capset");
}

/// Two user numbers that only this run uses, so that what other runs queue is not counted.
fn choose_users(shared: &Shared) {
    let pid = std::process::id();
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let mapped: u64 = map.split_whitespace().nth(2).and_then(|n| n.parse().ok()).unwrap_or(0);
    let (real, user) = if mapped > 1 << 31 {
        (1_000_000_000 + pid, 1_500_000_000 + pid)
    } else {
        (20_000 + pid % 20_000, 40_000 + pid % 20_000)
    };
    shared.real_uid.store(real, Ordering::SeqCst);
    shared.user_uid.store(user, Ordering::SeqCst);
}

fn socket_pair(kind: i32, a: i32, b: i32) {
    let mut ends = [0; 2];
    assert_eq!(sys!(socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr())), 0);
    move_fd(ends[0], a);
    move_fd(ends[1], b);
}

fn write_trace(text: &str) {
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        let n = sys!(write(FD_TRACE, rest.as_ptr().cast(), rest.len()));
        assert!(n > 0, "trace: {}", std::io::Error::last_os_error());
        rest = &rest[n as usize..];
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The whole life of a coordinator process.
pub fn run() {
    let seed = number(ENV_SEED, 1);
    let ops = number(ENV_OPS, 300);
    let patience = Duration::from_millis(number(ENV_PATIENCE, 20_000));
    let script =
        std::env::var(ENV_SCRIPT).ok().map(|path| Step::parse_all(&std::fs::read_to_string(path).expect("script")));
    let expect = std::env::var(ENV_EXPECT).is_ok_and(|v| v == "1");
    let trace = std::ffi::CString::new(std::env::var(ENV_TRACE).expect("trace")).expect("no NUL");

    // Nothing but 0, 1 and 2 below the reserved numbers: workers compare descriptor numbers.
    sys!(close_range(3, 9999, 0));
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    sys!(getrlimit(libc::RLIMIT_NOFILE, &mut limit));
    limit.rlim_cur = NOFILE;
    assert_eq!(sys!(setrlimit(libc::RLIMIT_NOFILE, &limit)), 0);
    drop_sys_resource();
    sys!(umask(0o022));
    // A worker whose parent was a killed worker still has somebody to bury it.
    sys!(prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC;
    let fd = sys!(open(trace.as_ptr(), flags, 0o644));
    assert!(fd >= 0, "trace: {}", std::io::Error::last_os_error());
    move_fd(fd, FD_TRACE);
    shared::create();
    let shared = shared::map();
    choose_users(shared);
    for w in 0..MAX_WORKERS as i32 {
        socket_pair(libc::SOCK_SEQPACKET, FD_ANSWER + w, FD_COMMAND + w);
        socket_pair(libc::SOCK_DGRAM, FD_MAIL_OUT + w, FD_MAIL_IN + w);
    }

    let mut generator = Generator::new(seed);
    let mut coordinator = Coordinator::new(shared, generator.workers(), patience);
    // The start of the workers is not part of the trace.
    coordinator.settle(None);
    match script {
        None => {
            for _ in 0..ops {
                let op = generator.next_operation();
                let step = coordinator.step(&op, None);
                write_trace(&step.to_text());
                generator.observe(&step);
                assert!(!coordinator.failed, "the kernel does not answer: {step:?}");
            }
        }
        Some(steps) => {
            for wanted in steps {
                let expected = expect.then_some(&wanted);
                let step = coordinator.step(&wanted.op, expected);
                write_trace(&step.to_text());
                if coordinator.failed || expect && step != wanted {
                    break;
                }
            }
        }
    }
    coordinator.finish();
}
