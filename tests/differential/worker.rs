//! The unmodified client: a process that does one operation after another as it is told and
//! answers with a line that holds everything a program could see of the outcome.
//!
//! It calls libc only; whether the kernel's queues or the library's answer is not its business.
//! What differs from run to run by nature (process and user numbers) is marked (`<pid:7>`,
//! `<uid:7>`) for the coordinator to replace.

use std::ffi::CString;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicPtr, Ordering};

use libc::{c_char, c_int, c_long, c_uint, c_void, mqd_t, size_t, timespec};

use crate::shared::{
    self, FD_COMMAND, FD_MAIL_IN, FD_MAIL_OUT, FD_RESERVED, NOFILE, PHASE_BUSY, PHASE_IDLE, PHASE_MAY_SLEEP, Shared,
    Slot, errno, errno_name, sys,
};

unsafe extern "C" {
    /// What a program compiled with _FORTIFY_SOURCE calls for a two-argument mq_open.
    fn __mq_open_2(name: *const c_char, oflag: c_int) -> mqd_t;
}

/// Environment variable: what this process is.
pub const ENV_ROLE: &str = "MQNS_DIFF_ROLE";
/// Environment variable: the slot of a worker that executed itself.
pub const ENV_SLOT: &str = "MQNS_DIFF_SLOT";

/// Environment variable: the library for an image that may not read the one in LD_PRELOAD.
pub const ENV_PRELOAD: &str = "MQNS_DIFF_PRELOAD";

/// Handled without SA_RESTART.
pub const SIG_PLAIN: [i32; 2] = [libc::SIGUSR1, 35];
/// Handled with SA_RESTART.
pub const SIG_RESTART: [i32; 2] = [libc::SIGUSR2, 36];
/// Blocked, taken by sigtimedwait.
pub const SIG_WAITED: i32 = 37;
/// Ignored.
pub const SIG_IGNORED: i32 = 38;

/// Bytes that are mapped in front of the guard page.
const AREA: usize = 16384;
/// What untouched buffer bytes hold.
const FILL: u8 = 0xA5;

/// Where the signal handler writes to.
static LOG: AtomicPtr<Slot> = AtomicPtr::new(std::ptr::null_mut());

extern "C" fn on_signal(_signo: c_int, info: *mut libc::siginfo_t, _context: *mut c_void) {
    // SAFETY: the kernel hands a valid siginfo to an SA_SIGINFO handler, and LOG points into the
    // shared mapping, which is never unmapped, before any handler is installed.
    unsafe { (*LOG.load(Ordering::SeqCst)).log_signal(&*info) }
}

/// One worker.
pub struct Worker {
    slot: usize,
    shared: &'static Shared,
    /// Signals of the log that were already reported.
    reported: u32,
    /// [`AREA`] writable bytes; the next page is `bad`, the one after it `ro`.
    area: *mut u8,
    /// A page without access.
    bad: *mut u8,
    /// A page that can be read only.
    ro: *mut u8,
}

/// The error's name, or what `f` makes of the result.
fn show(result: i64, f: impl FnOnce(i64) -> String) -> String {
    if result == -1 { errno_name(errno()) } else { f(result) }
}

/// The error's name or `0`.
fn zero(result: i64) -> String {
    show(result, |n| n.to_string())
}

/// The error's name or `fd=N`.
fn new_fd(result: i64) -> String {
    show(result, |n| format!("fd={n}"))
}

fn hex(token: &str) -> i64 {
    u64::from_str_radix(token, 16).unwrap_or_else(|_| panic!("number {token}")) as i64
}

fn dec(token: &str) -> i64 {
    token.parse().unwrap_or_else(|_| panic!("number {token}"))
}

fn fd_of(token: &str) -> i32 {
    dec(token) as i32
}

/// FNV-1a, shortened.
fn hash(bytes: &[u8]) -> u32 {
    let mut h = 0xcbf2_9ce4_8422_2325_u64;
    for byte in bytes {
        h = (h ^ *byte as u64).wrapping_mul(0x100_0000_01b3);
    }
    (h ^ (h >> 32)) as u32
}

/// Is this number the tester's own?
fn is_reserved(fd: i32) -> bool {
    (0..3).contains(&fd) || fd >= FD_RESERVED
}

/// The queue name that a token stands for: percent escapes, or `@N` for a slash and N letters,
/// `@N/` for the same with a further slash in the middle.
fn name_of(token: &str) -> CString {
    let bytes = if let Some(spec) = token.strip_prefix('@') {
        let slash = spec.ends_with('/');
        let n = dec(spec.trim_end_matches('/')) as usize;
        let mut name = vec![b'x'; n + 1];
        name[0] = b'/';
        if slash {
            name[n / 2] = b'/';
        }
        name
    } else {
        let mut name = Vec::new();
        let mut rest = token.bytes();
        while let Some(byte) = rest.next() {
            if byte == b'%' {
                let digits = [rest.next(), rest.next()].map(|d| d.expect("escape") as char);
                let text: String = digits.iter().collect();
                name.push(u8::from_str_radix(&text, 16).expect("escape"));
            } else {
                name.push(byte);
            }
        }
        name
    };
    CString::new(bytes).expect("names hold no NUL")
}

/// Now, on the clock of mq_timedsend.
fn now() -> timespec {
    let mut ts = timespec { tv_sec: 0, tv_nsec: 0 };
    sys!(clock_gettime(libc::CLOCK_REALTIME, &mut ts));
    ts
}

fn before(a: &timespec, b: &timespec) -> bool {
    (a.tv_sec, a.tv_nsec) < (b.tv_sec, b.tv_nsec)
}

fn open_flags(fd: i32) -> String {
    show(sys!(fcntl(fd, libc::F_GETFL)) as i64, |f| format!("{f:x}"))
}

impl Worker {
    /// Sets this process up as the worker of a slot: buffers, handlers, users.
    fn new(slot: usize, shared: &'static Shared) -> Worker {
        let pages = sys!(mmap(
            std::ptr::null_mut(),
            AREA + 8192,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0
        ));
        assert_ne!(pages, libc::MAP_FAILED);
        let area = pages.cast::<u8>();
        let bad = area.wrapping_add(AREA);
        let ro = bad.wrapping_add(4096);
        sys!(mprotect(bad.cast(), 4096, libc::PROT_NONE));
        sys!(mprotect(ro.cast(), 4096, libc::PROT_READ));

        let own = &shared.slots[slot];
        LOG.store(std::ptr::from_ref(own).cast_mut(), Ordering::SeqCst);
        for (signals, flags) in [(SIG_PLAIN, 0), (SIG_RESTART, libc::SA_RESTART)] {
            for signo in signals {
                // SAFETY: all-zero is a valid sigaction; the fields that matter follow.
                let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
                action.sa_sigaction = on_signal as *const () as usize;
                action.sa_flags = libc::SA_SIGINFO | flags;
                sys!(sigaction(signo, &action, std::ptr::null_mut()));
            }
        }
        sys!(signal(SIG_IGNORED, libc::SIG_IGN));
        // SAFETY: sigset_t is plain data, set up by sigemptyset.
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        sys!(sigemptyset(&mut set));
        sys!(sigaddset(&mut set, SIG_WAITED));
        sys!(sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()));

        let real = shared.real_uid.load(Ordering::SeqCst);
        if sys!(getuid()) == 0 && real != 0 {
            sys!(setresuid(real, 0, 0));
        }
        let reported = own.signals.load(Ordering::SeqCst);
        Worker { slot, shared, reported, area, bad, ro }
    }

    fn own(&self) -> &'static Slot {
        &self.shared.slots[self.slot]
    }

    fn command_fd(&self) -> i32 {
        FD_COMMAND + self.slot as i32
    }

    fn answer(&self, text: &str) {
        self.own().phase.store(PHASE_BUSY, Ordering::SeqCst);
        let n = sys!(send(self.command_fd(), text.as_ptr().cast(), text.len(), 0));
        assert_eq!(n, text.len() as isize, "answer: {}", std::io::Error::last_os_error());
        self.own().phase.store(PHASE_IDLE, Ordering::SeqCst);
    }

    /// Signals handled since the last report.
    fn take_signals(&mut self) -> String {
        let mut text = String::new();
        let upto = self.own().signals.load(Ordering::SeqCst);
        while self.reported != upto {
            let s = self.own().signal(self.reported);
            let code = match s.code.load(Ordering::SeqCst) as i32 {
                libc::SI_USER => "USER".to_string(),
                libc::SI_MESGQ => "MESGQ".to_string(),
                libc::SI_QUEUE => "QUEUE".to_string(),
                other => other.to_string(),
            };
            let _ = write!(
                text,
                " ~sig={} code={code} errno={} value={:x} pid=<pid:{}> uid=<uid:{}>",
                s.signo.load(Ordering::SeqCst),
                s.errno.load(Ordering::SeqCst),
                s.value.load(Ordering::SeqCst),
                s.pid.load(Ordering::SeqCst),
                s.uid.load(Ordering::SeqCst),
            );
            if s.handled_by.load(Ordering::SeqCst) != sys!(getpid()) as i64 {
                text.push_str(" in=child");
            }
            self.reported = self.reported.wrapping_add(1);
        }
        text
    }

    /// Does what comes in until it is killed.
    fn serve(mut self) -> ! {
        let mut buf = vec![0_u8; 16384];
        loop {
            let n = sys!(recv(self.command_fd(), buf.as_mut_ptr().cast(), buf.len(), 0));
            if n <= 0 {
                assert_eq!(errno(), libc::EINTR, "commands ended");
                continue;
            }
            let line = String::from_utf8_lossy(&buf[..n as usize]).into_owned();
            let tokens: Vec<&str> = line.split(' ').collect();
            let phase = if may_sleep(&tokens) { PHASE_MAY_SLEEP } else { PHASE_BUSY };
            self.own().phase.store(phase, Ordering::SeqCst);
            let mut answer = self.perform(&tokens);
            self.own().phase.store(PHASE_BUSY, Ordering::SeqCst);
            answer.push_str(&self.take_signals());
            self.answer(&answer);
        }
    }

    /// A buffer: `ok` at the start of the area, `end` up to the guard page, `half:N` with only
    /// N bytes in front of it, `null`, `bad`, `ro`.
    fn buffer(&self, kind: &str, len: usize) -> *mut u8 {
        match kind {
            "ok" => self.area,
            "end" => self.area.wrapping_add(AREA - len.min(AREA)),
            "null" => std::ptr::null_mut(),
            "bad" => self.bad,
            "ro" => self.ro,
            other => {
                let mapped = other.strip_prefix("half:").expect("buffer kind");
                self.area.wrapping_add(AREA - (dec(mapped) as usize).min(AREA))
            }
        }
    }

    /// The mapped part of such a buffer.
    fn visible(&mut self, at: *mut u8, len: usize) -> &mut [u8] {
        let offset = (at as usize).wrapping_sub(self.area as usize);
        if offset > AREA {
            return &mut [];
        }
        // SAFETY: within the writable area, which only this thread uses, one slice at a time.
        unsafe { std::slice::from_raw_parts_mut(at, len.min(AREA - offset)) }
    }

    /// `-` (untimed) and `null` are NULL.
    fn deadline(&self, kind: &str, at: &mut timespec) -> *const timespec {
        let day = 86400;
        let ts = now();
        let (sec, nsec) = match kind {
            "-" | "null" => return std::ptr::null(),
            "bad" => return self.bad.cast(),
            "zero" => (0, 0),
            "past" => (ts.tv_sec - 1, ts.tv_nsec),
            "far" => (ts.tv_sec + day, ts.tv_nsec),
            "soon" => match ts.tv_nsec + 8_000_000 {
                n if n >= 1_000_000_000 => (ts.tv_sec + 1, n - 1_000_000_000),
                n => (ts.tv_sec, n),
            },
            "max" => (i64::MAX, 0),
            "secneg" => (-1, 0),
            "nsecneg" => (ts.tv_sec + day, -1),
            "nsecbig" => (ts.tv_sec + day, 1_000_000_000),
            "nsecmin" => (0, i64::MIN),
            other => panic!("deadline {other}"),
        };
        *at = timespec { tv_sec: sec, tv_nsec: nsec };
        at
    }

    fn perform(&mut self, t: &[&str]) -> String {
        match t[0] {
            "open" => self.open(t[1], t[2], t[3], t[4], t[5]),
            "open2" => {
                let name = name_of(t[1]);
                // SAFETY: a C string; the flags do not ask for a mode.
                new_fd(unsafe { __mq_open_2(name.as_ptr(), hex(t[2]) as c_int) } as i64)
            }
            "close" => self.close(t[1], fd_of(t[2])),
            "unlink" => self.unlink(t[1], t[2]),
            "send" => self.send(&t[1..]),
            "recv" => self.receive(&t[1..]),
            "getattr" => self.getattr(t[1], fd_of(t[2]), t[3]),
            "setattr" => self.setattr(t[1], fd_of(t[2]), t[3], t[4], t[5]),
            "notify" => self.notify(t[1], fd_of(t[2]), t[3]),
            "dup" => new_fd(sys!(dup(fd_of(t[1]))) as i64),
            "dup2" | "dup3" if is_reserved(fd_of(t[2])) => "reserved".to_string(),
            "dup2" => new_fd(sys!(dup2(fd_of(t[1]), fd_of(t[2]))) as i64),
            "dup3" => new_fd(sys!(dup3(fd_of(t[1]), fd_of(t[2]), hex(t[3]) as i32)) as i64),
            "dupfd" => new_fd(sys!(fcntl(fd_of(t[1]), libc::F_DUPFD, fd_of(t[2]))) as i64),
            "dupfdc" => new_fd(sys!(fcntl(fd_of(t[1]), libc::F_DUPFD_CLOEXEC, fd_of(t[2]))) as i64),
            "getfl" => open_flags(fd_of(t[1])),
            "setfl" => zero(sys!(fcntl(fd_of(t[1]), libc::F_SETFL, hex(t[2]) as c_int)) as i64),
            "getfd" => zero(sys!(fcntl(fd_of(t[1]), libc::F_GETFD)) as i64),
            "setfd" => zero(sys!(fcntl(fd_of(t[1]), libc::F_SETFD, fd_of(t[2]))) as i64),
            "closerange" => {
                let (from, to) = (fd_of(t[1]).max(3), fd_of(t[2]).min(FD_RESERVED - 1));
                zero(sys!(close_range(from as c_uint, to as c_uint, fd_of(t[3]))) as i64)
            }
            "fstat" => fstat(fd_of(t[1])),
            "same" => same_file(fd_of(t[1]), fd_of(t[2])),
            "read" | "pread" => self.read(t),
            "write" => {
                let n = dec(t[2]) as usize;
                zero(sys!(write(fd_of(t[1]), self.area.cast(), n.min(AREA))) as i64)
            }
            "lseek" => zero(sys!(lseek(fd_of(t[1]), dec(t[2]), fd_of(t[3])))),
            "ftruncate" => zero(sys!(ftruncate(fd_of(t[1]), dec(t[2]))) as i64),
            "poll" => poll(t[1], fd_of(t[2])),
            "select" => select(t[1]),
            "epcreate" => new_fd(sys!(epoll_create1(0)) as i64),
            "epctl" => epoll_ctl(t),
            "epwait" => epoll_wait(fd_of(t[1]), fd_of(t[2])),
            "fchmod" => zero(sys!(fchmod(fd_of(t[1]), hex(t[2]) as u32)) as i64),
            "fchown" => {
                let user = self.shared.user_uid.load(Ordering::SeqCst);
                let uid = match t[2] {
                    "user" => user,
                    "root" => 0,
                    _ => u32::MAX,
                };
                zero(sys!(fchown(fd_of(t[1]), uid, u32::MAX)) as i64)
            }
            "futimens" => zero(sys!(futimens(fd_of(t[1]), std::ptr::null())) as i64),
            "fionread" => {
                let mut n = 0_i32;
                let r = sys!(ioctl(fd_of(t[1]), libc::FIONREAD, &raw mut n));
                show(r as i64, |_| n.to_string())
            }
            "fionbio" => {
                let mut n = fd_of(t[2]);
                zero(sys!(ioctl(fd_of(t[1]), libc::FIONBIO, &raw mut n)) as i64)
            }
            "fsync" => zero(sys!(fsync(fd_of(t[1]))) as i64),
            "isatty" => match sys!(isatty(fd_of(t[1]))) {
                1 => "1".to_string(),
                _ => errno_name(errno()),
            },
            "flock" => zero(sys!(flock(fd_of(t[1]), libc::LOCK_EX | libc::LOCK_NB)) as i64),
            "unflock" => zero(sys!(flock(fd_of(t[1]), libc::LOCK_UN)) as i64),
            "mmap" => {
                let at = sys!(mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, libc::MAP_SHARED, fd_of(t[1]), 0));
                zero(at as i64)
            }
            "fallocate" => zero(sys!(fallocate(fd_of(t[1]), 0, 0, 100)) as i64),
            "fchdir" => zero(sys!(fchdir(fd_of(t[1]))) as i64),
            "sockrecv" => {
                let r = sys!(recv(fd_of(t[1]), self.area.cast(), 1, libc::MSG_DONTWAIT));
                zero(r as i64)
            }
            "fstatfs" => fstatfs(fd_of(t[1])),
            "readlink" => read_link(fd_of(t[1])),
            "reopen" => {
                let path = CString::new(format!("/proc/self/fd/{}", t[1])).expect("no NUL");
                new_fd(sys!(open(path.as_ptr(), hex(t[2]) as c_int | libc::O_CLOEXEC)) as i64)
            }
            "passfd" => pass_fd(fd_of(t[1]), FD_MAIL_OUT + fd_of(t[2])),
            "takefd" => take_fd(FD_MAIL_IN + self.slot as i32, t[1] == "cloexec"),
            "seteuid" => self.set_effective_user(t[1]),
            "setuid" => {
                let user = self.shared.user_uid.load(Ordering::SeqCst);
                let groups = sys!(setgroups(0, std::ptr::null()));
                let gid = sys!(setresgid(user, user, user));
                let uid = sys!(setresuid(user, user, user));
                format!("{groups} {gid} {uid}")
            }
            "rlimit" => {
                let which = if t[1] == "nofile" { libc::RLIMIT_NOFILE } else { libc::RLIMIT_MSGQUEUE };
                zero(soft_limit(which, dec(t[2]) as u64) as i64)
            }
            "umask" => format!("{:o}", sys!(umask(hex(t[1]) as u32))),
            "nice" => zero(sys!(setpriority(libc::PRIO_PROCESS, 0, fd_of(t[1]))) as i64),
            "sigwait" => sigwait(),
            "mass" => self.mass(dec(t[1])),
            "massunlink" => {
                let gone = (0..dec(t[1])).filter(|i| {
                    let name = CString::new(format!("/mass{i}")).expect("no NUL");
                    sys!(mq_unlink(name.as_ptr())) == 0
                });
                format!("gone={}", gone.count())
            }
            "child" => self.child(&t[1..]),
            "forkinto" => self.fork_into(fd_of(t[1]) as usize),
            "exec" => self.exec(),
            "exit" => sys!(_exit(0)),
            other => panic!("operation {other}"),
        }
    }

    fn open(&mut self, via: &str, name: &str, flags: &str, mode: &str, attr: &str) -> String {
        let flags = hex(flags) as c_int;
        let text;
        let name = match name {
            "!edge" => {
                let last = self.area.wrapping_add(AREA - 1);
                self.visible(last, 1)[0] = b'/';
                last.cast_const().cast::<c_char>()
            }
            name => {
                text = name_of(name);
                text.as_ptr()
            }
        };
        let mut value: libc::mq_attr = zeroed_attr();
        let attr: *mut libc::mq_attr = match attr {
            "null" | "-" => std::ptr::null_mut(),
            "bad" => self.bad.cast(),
            "half" => self.area.wrapping_add(AREA - 16).cast(),
            list => {
                let mut n = list.split(',').map(dec);
                let mut next = || n.next().expect("four numbers");
                value.mq_flags = next();
                value.mq_maxmsg = next();
                value.mq_msgsize = next();
                value.mq_curmsgs = next();
                &mut value
            }
        };
        let fd = match (via, mode) {
            ("libc", "-") => sys!(mq_open(name, flags)) as i64,
            ("libc", mode) => sys!(mq_open(name, flags, hex(mode) as c_uint, attr)) as i64,
            (_, mode) => {
                // The system call's name has no slash.
                let at = if text_starts_with_slash(name) { name.wrapping_add(1) } else { name };
                let mode = if mode == "-" { 0 } else { hex(mode) };
                sys!(syscall(libc::SYS_mq_open, at, flags as c_long, mode, attr))
            }
        };
        new_fd(fd)
    }

    fn close(&self, via: &str, fd: i32) -> String {
        if is_reserved(fd) {
            return "reserved".to_string();
        }
        zero(match via {
            "mq" => sys!(mq_close(fd)) as i64,
            "sys" => sys!(syscall(libc::SYS_close, fd as c_long)),
            _ => sys!(close(fd)) as i64,
        })
    }

    fn unlink(&self, via: &str, name: &str) -> String {
        let name = name_of(name);
        zero(match via {
            "sys" => {
                let skip = usize::from(text_starts_with_slash(name.as_ptr()));
                sys!(syscall(libc::SYS_mq_unlink, name.as_ptr().wrapping_add(skip)))
            }
            _ => sys!(mq_unlink(name.as_ptr())) as i64,
        })
    }

    /// `via fd len prio buffer deadline tag`
    fn send(&mut self, t: &[&str]) -> String {
        let (fd, len) = (fd_of(t[1]), length(t[2]));
        let prio = dec(t[3]) as c_uint;
        let at = self.buffer(t[4], len);
        let mut seed = dec(t[6]) as u64;
        for byte in self.visible(at, len) {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            *byte = (seed >> 56) as u8;
        }
        let mut ts = timespec { tv_sec: 0, tv_nsec: 0 };
        let deadline = self.deadline(t[5], &mut ts);
        let at = at.cast::<c_char>();
        let r = match (t[0], t[5]) {
            ("sys", _) => {
                sys!(syscall(libc::SYS_mq_timedsend, fd as c_long, at, len, prio as c_long, deadline))
            }
            (_, "-") => sys!(mq_send(fd, at, len, prio)) as i64,
            _ => sys!(mq_timedsend(fd, at, len, prio, deadline)) as i64,
        };
        let early = too_early(r, t[5], &ts);
        zero(r) + early
    }

    /// `via fd len buffer prio deadline`
    fn receive(&mut self, t: &[&str]) -> String {
        let (fd, len) = (fd_of(t[1]), length(t[2]));
        let at = self.buffer(t[3], len);
        self.visible(self.area, AREA).fill(FILL);
        let mut prio: c_uint = 0xdead;
        let prio_at: *mut c_uint = match t[4] {
            "ok" => &mut prio,
            "null" => std::ptr::null_mut(),
            "bad" => self.bad.cast(),
            other => panic!("priority pointer {other}"),
        };
        let mut ts = timespec { tv_sec: 0, tv_nsec: 0 };
        let deadline = self.deadline(t[5], &mut ts);
        let r = match (t[0], t[5]) {
            ("sys", _) => {
                sys!(syscall(libc::SYS_mq_timedreceive, fd as c_long, at, len, prio_at, deadline))
            }
            (_, "-") => sys!(mq_receive(fd, at.cast(), len, prio_at)) as i64,
            _ => sys!(mq_timedreceive(fd, at.cast(), len, prio_at, deadline)) as i64,
        };
        let failure = errno();
        let early = too_early(r, t[5], &ts);
        let mut text = if r == -1 { errno_name(failure) } else { format!("n={r}") };
        if prio != 0xdead {
            let _ = write!(text, " prio={prio}");
        }
        let seen = &*self.visible(at, len);
        if r >= 0 {
            let body = &seen[..seen.len().min(r as usize)];
            let _ = write!(text, " body={:08x}", hash(body));
            if seen[body.len()..].iter().any(|byte| *byte != FILL) {
                text.push_str(" rest=written");
            }
        } else if failure != libc::EFAULT && seen.iter().any(|byte| *byte != FILL) {
            text.push_str(" buffer=written");
        }
        text + early
    }

    fn getattr(&self, via: &str, fd: i32, to: &str) -> String {
        let mut value = zeroed_attr();
        let at: *mut libc::mq_attr = match to {
            "ok" => &mut value,
            "null" => std::ptr::null_mut(),
            "bad" => self.bad.cast(),
            _ => self.ro.cast(),
        };
        let r = match via {
            "sys" => {
                let none = std::ptr::null::<c_void>();
                sys!(syscall(libc::SYS_mq_getsetattr, fd as c_long, none, at))
            }
            _ => sys!(mq_getattr(fd, at)) as i64,
        };
        show(r, |_| if to == "ok" { show_attr(&value) } else { "0".to_string() })
    }

    fn setattr(&self, via: &str, fd: i32, flags: &str, new: &str, old: &str) -> String {
        let mut value = zeroed_attr();
        value.mq_flags = hex(flags);
        // The other fields are to be ignored.
        value.mq_maxmsg = -7;
        value.mq_msgsize = 1 << 40;
        value.mq_curmsgs = 99;
        let mut before = zeroed_attr();
        let at = &raw mut value;
        let new_at: *const libc::mq_attr = match new {
            "ok" => at,
            "null" => std::ptr::null(),
            _ => self.bad.cast(),
        };
        let old_at: *mut libc::mq_attr = match old {
            "ok" => &mut before,
            "same" => at,
            "null" => std::ptr::null_mut(),
            "bad" => self.bad.cast(),
            _ => self.ro.cast(),
        };
        let r = match via {
            "sys" => sys!(syscall(libc::SYS_mq_getsetattr, fd as c_long, new_at, old_at)),
            _ => sys!(mq_setattr(fd, new_at, old_at)) as i64,
        };
        show(r, |_| match old {
            "ok" => show_attr(&before),
            "same" => show_attr(&value),
            _ => "0".to_string(),
        })
    }

    fn notify(&mut self, via: &str, fd: i32, how: &str) -> String {
        // SAFETY: sigevent is plain data.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        let mut elsewhere: Option<*const libc::sigevent> = None;
        let parts: Vec<&str> = how.split(':').collect();
        match parts[0] {
            "remove" => elsewhere = Some(std::ptr::null()),
            "none" => event.sigev_notify = libc::SIGEV_NONE,
            "sig" => {
                event.sigev_notify = libc::SIGEV_SIGNAL;
                event.sigev_signo = fd_of(parts[1]);
                event.sigev_value.sival_ptr = dec(parts[2]) as usize as *mut c_void;
            }
            "kind" => event.sigev_notify = fd_of(parts[1]),
            "bad" => elsewhere = Some(self.bad.cast_const().cast()),
            "half" => {
                // Up to sigev_notify (which libc reads) mapped, the rest not.
                let start = AREA - 16;
                self.visible(self.area.wrapping_add(start), 16).fill(0);
                elsewhere = Some(self.area.wrapping_add(start).cast_const().cast());
            }
            other => panic!("notification {other}"),
        }
        let at = elsewhere.unwrap_or(&raw const event);
        zero(match via {
            "sys" => sys!(syscall(libc::SYS_mq_notify, fd as c_long, at)),
            _ => sys!(mq_notify(fd, at)) as i64,
        })
    }

    /// `read fd len buffer` and `pread fd len buffer offset`, for the text a descriptor shows.
    fn read(&mut self, t: &[&str]) -> String {
        let (fd, len) = (fd_of(t[1]), (dec(t[2]) as usize).min(AREA));
        let at = self.buffer(t[3], len);
        self.visible(self.area, AREA).fill(FILL);
        let offset = match t[0] {
            "pread" => dec(t[4]),
            _ => sys!(lseek(fd, 0, libc::SEEK_CUR)),
        };
        let n = match t[0] {
            "pread" => sys!(pread(fd, at.cast(), len, offset)),
            _ => sys!(read(fd, at.cast(), len)),
        };
        if n < 0 {
            return errno_name(errno());
        }
        let bytes = &self.visible(at, len)[..n as usize];
        // The process number stands in bytes 53 to 58, left-aligned.
        let skip = 53 - offset;
        if skip >= 0 && skip + 7 <= n as i64 {
            let (head, tail) = bytes.split_at(skip as usize);
            let digits = tail.iter().take_while(|b| b.is_ascii_digit()).count();
            let pid = String::from_utf8_lossy(&tail[..digits]).into_owned();
            let blanks = tail[digits..].iter().take_while(|b| **b == b' ').count();
            let padded = digits + blanks == digits.max(6);
            let n = n - digits.saturating_sub(6) as isize;
            let end = tail[digits + blanks..].escape_ascii();
            format!("n={n} {}<pid:{pid}> padded={padded} {end}", head.escape_ascii())
        } else {
            let hidden = bytes.iter().zip(offset..).map(
                |(byte, position)| {
                    if (53..59).contains(&position) { b'*' } else { *byte }
                },
            );
            format!("n={n} {}", hidden.collect::<Vec<u8>>().escape_ascii())
        }
    }

    fn set_effective_user(&self, who: &str) -> String {
        let user = self.shared.user_uid.load(Ordering::SeqCst);
        if who == "user" {
            let gid = sys!(setegid(user));
            format!("{gid} {}", sys!(seteuid(user)))
        } else {
            let uid = sys!(seteuid(0));
            format!("{uid} {}", sys!(setegid(0)))
        }
    }

    /// Creates up to n small queues, to find the limit of their number.
    fn mass(&self, n: i64) -> String {
        let mut attr = zeroed_attr();
        attr.mq_maxmsg = 1;
        attr.mq_msgsize = 1;
        for i in 0..n {
            let name = CString::new(format!("/mass{i}")).expect("no NUL");
            let flags = libc::O_CREAT | libc::O_EXCL | libc::O_RDWR;
            let fd = sys!(mq_open(name.as_ptr(), flags, 0o600 as c_uint, &raw mut attr));
            if fd == -1 {
                return format!("made={i} then {}", errno_name(errno()));
            }
            sys!(mq_close(fd));
        }
        format!("made={n}")
    }

    /// Does an operation in a child and tells how it went, or what the child died of.
    fn child(&mut self, t: &[&str]) -> String {
        match sys!(fork()) {
            -1 => errno_name(errno()),
            0 => {
                let answer = self.perform(t);
                self.own().put_child_answer(&answer);
                sys!(_exit(0))
            }
            pid => {
                let mut status = 0;
                while sys!(waitpid(pid, &mut status, 0)) == -1 && errno() == libc::EINTR {}
                let answer = self.own().take_child_answer();
                if libc::WIFSIGNALED(status) { format!("killed by {}", libc::WTERMSIG(status)) } else { answer }
            }
        }
    }

    /// Forks; the child takes over another slot, with all descriptors of its parent.
    fn fork_into(&mut self, slot: usize) -> String {
        // What the child writes there must not be mistaken for an old state.
        self.shared.slots[slot].phase.store(PHASE_BUSY, Ordering::SeqCst);
        match sys!(fork()) {
            -1 => errno_name(errno()),
            0 => {
                let own = &self.shared.slots[slot];
                LOG.store(std::ptr::from_ref(own).cast_mut(), Ordering::SeqCst);
                self.slot = slot;
                self.reported = own.signals.load(Ordering::SeqCst);
                own.phase.store(PHASE_IDLE, Ordering::SeqCst);
                Worker { ..*self }.serve()
            }
            pid => format!("forked <pid:{pid}>"),
        }
    }

    /// Executes itself; the new image goes on in this slot.
    fn exec(&mut self) -> String {
        soft_limit(libc::RLIMIT_NOFILE, NOFILE);
        if sys!(getuid()) == self.shared.real_uid.load(Ordering::SeqCst) {
            // With different real and effective users the loader would forget its environment.
            sys!(seteuid(0));
            sys!(setresgid(0, 0, 0));
            sys!(setresuid(0, 0, 0));
        }
        let preload = std::env::var_os(ENV_PRELOAD);
        let mut env: Vec<CString> = std::env::vars_os()
            .filter(|(key, _)| key != ENV_ROLE && key != ENV_SLOT)
            .map(|(key, value)| match &preload {
                Some(path) if key == "LD_PRELOAD" => (key, path.clone()),
                _ => (key, value),
            })
            .map(|(key, value)| CString::new([key.as_bytes(), b"=", value.as_bytes()].concat()).expect("no NUL"))
            .collect();
        env.push(CString::new(format!("{ENV_ROLE}=worker")).expect("no NUL"));
        env.push(CString::new(format!("{ENV_SLOT}={}", self.slot)).expect("no NUL"));
        let mut envp: Vec<*const c_char> = env.iter().map(|e| e.as_ptr()).collect();
        envp.push(std::ptr::null());
        let argv = [c"worker".as_ptr(), std::ptr::null()];
        zero(sys!(execve(c"/proc/self/exe".as_ptr(), argv.as_ptr(), envp.as_ptr())) as i64)
    }
}

/// Whether an operation may sleep until somebody else does something.
pub fn may_sleep(t: &[&str]) -> bool {
    match t[0] {
        // With a deadline in the past the kernel sleeps too, but not for long.
        "send" | "recv" => !matches!(t[6], "soon" | "zero" | "past"),
        "poll" => t[2] == "-1",
        "epwait" => t[2] == "-1",
        _ => false,
    }
}

fn text_starts_with_slash(name: *const c_char) -> bool {
    // SAFETY: callers pass C strings, or the last byte of the area.
    unsafe { *name == b'/' as c_char }
}

fn length(token: &str) -> size_t {
    match token {
        "max" => usize::MAX,
        "ssize" => 1 << 63,
        n => dec(n) as usize,
    }
}

/// Did a call give up before its deadline? Leaves errno as it is.
fn too_early(result: i64, kind: &str, deadline: &timespec) -> &'static str {
    let timed_out = result == -1 && errno() == libc::ETIMEDOUT;
    if timed_out && kind == "soon" && before(&now(), deadline) { " EARLY" } else { "" }
}

fn zeroed_attr() -> libc::mq_attr {
    // SAFETY: mq_attr is eight longs.
    unsafe { std::mem::zeroed() }
}

fn show_attr(attr: &libc::mq_attr) -> String {
    // SAFETY: mq_attr is eight longs; the last four are private in the crate.
    let pads = unsafe { std::slice::from_raw_parts((&raw const *attr).cast::<i64>(), 8) };
    let pads = if pads[4..].iter().all(|p| *p == 0) { "" } else { " pads" };
    format!("{:x},{},{},{}{pads}", attr.mq_flags, attr.mq_maxmsg, attr.mq_msgsize, attr.mq_curmsgs)
}

fn soft_limit(which: u32, value: u64) -> c_int {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    sys!(getrlimit(which, &mut limit));
    limit.rlim_cur = value;
    sys!(setrlimit(which, &limit))
}

fn stat_of(fd: i32) -> Option<libc::stat> {
    // SAFETY: stat is plain data.
    let mut st: libc::stat = unsafe { std::mem::zeroed() };
    (sys!(fstat(fd, &mut st)) == 0).then_some(st)
}

fn fstat(fd: i32) -> String {
    let Some(st) = stat_of(fd) else { return errno_name(errno()) };
    if st.st_mode & libc::S_IFMT != libc::S_IFREG {
        return format!("mode={:o}", st.st_mode);
    }
    let whole = st.st_atime_nsec == 0 && st.st_mtime_nsec == 0 && st.st_ctime_nsec == 0;
    format!(
        "mode={:o} nlink={} uid=<uid:{}> gid=<uid:{}> size={} blocks={} blksize={} whole={whole}",
        st.st_mode, st.st_nlink, st.st_uid, st.st_gid, st.st_size, st.st_blocks, st.st_blksize
    )
}

fn same_file(a: i32, b: i32) -> String {
    match (stat_of(a), stat_of(b)) {
        (Some(a), Some(b)) => format!("dev={} ino={}", a.st_dev == b.st_dev, a.st_ino == b.st_ino),
        _ => "EBADF".to_string(),
    }
}

/// `fd:events` separated by commas; revents of each.
fn poll(list: &str, timeout_ms: i32) -> String {
    let mut fds: Vec<libc::pollfd> = list
        .split(',')
        .map(|item| {
            let (fd, events) = item.split_once(':').expect("fd:events");
            libc::pollfd { fd: fd_of(fd), events: hex(events) as i16, revents: 0 }
        })
        .collect();
    let n = sys!(poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, timeout_ms));
    show(n as i64, |n| {
        let each = fds.iter().map(|f| format!(" {}:{:x}", f.fd, f.revents));
        format!("n={n}{}", each.collect::<String>())
    })
}

/// Descriptors separated by commas, each in all three sets.
fn select(list: &str) -> String {
    // SAFETY: fd_set is plain data.
    let mut sets: [libc::fd_set; 3] = unsafe { std::mem::zeroed() };
    let fds: Vec<i32> = list.split(',').map(fd_of).collect();
    for set in &mut sets {
        for fd in &fds {
            sys!(FD_SET(*fd, set));
        }
    }
    let mut timeout = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let [r, w, x] = &mut sets;
    let n = sys!(select(FD_RESERVED, r, w, x, &mut timeout));
    show(n as i64, |n| {
        let mut text = format!("n={n}");
        for (name, set) in ["r", "w", "x"].into_iter().zip(&sets) {
            for fd in &fds {
                if sys!(FD_ISSET(*fd, set)) {
                    let _ = write!(text, " {name}{fd}");
                }
            }
        }
        text
    })
}

/// `epctl ep op fd events`
fn epoll_ctl(t: &[&str]) -> String {
    let op = match t[2] {
        "add" => libc::EPOLL_CTL_ADD,
        "mod" => libc::EPOLL_CTL_MOD,
        _ => libc::EPOLL_CTL_DEL,
    };
    let fd = fd_of(t[3]);
    let mut event = libc::epoll_event { events: hex(t[4]) as u32, u64: fd as u64 };
    zero(sys!(epoll_ctl(fd_of(t[1]), op, fd, &mut event)) as i64)
}

/// Events sorted by what they were registered with: their order is nobody's promise.
fn epoll_wait(ep: i32, timeout_ms: i32) -> String {
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; 64];
    let n = sys!(epoll_wait(ep, events.as_mut_ptr(), 64, timeout_ms));
    show(n as i64, |n| {
        let mut each: Vec<(u64, u32)> = events[..n as usize].iter().map(|e| (e.u64, e.events)).collect();
        each.sort_unstable();
        let each = each.iter().map(|(data, events)| format!(" {data}:{events:x}"));
        format!("n={n}{}", each.collect::<String>())
    })
}

fn fstatfs(fd: i32) -> String {
    // SAFETY: statfs is plain data.
    let mut st: libc::statfs = unsafe { std::mem::zeroed() };
    show(sys!(fstatfs(fd, &mut st)) as i64, |_| {
        format!("type={:x} bsize={} blocks={} namelen={}", st.f_type, st.f_bsize, st.f_blocks, st.f_namelen)
    })
}

fn read_link(fd: i32) -> String {
    let path = CString::new(format!("/proc/self/fd/{fd}")).expect("no NUL");
    let mut to = [0_u8; 600];
    let n = sys!(readlink(path.as_ptr(), to.as_mut_ptr().cast(), to.len()));
    show(n as i64, |n| to[..n as usize].escape_ascii().to_string())
}

/// Room for one descriptor in a control message.
#[repr(C, align(8))]
struct Control([u8; 24]);

fn message(iov: &mut libc::iovec, control: &mut Control) -> libc::msghdr {
    // SAFETY: msghdr is plain data.
    let mut msg: libc::msghdr = unsafe { std::mem::zeroed() };
    msg.msg_iov = iov;
    msg.msg_iovlen = 1;
    msg.msg_control = control.0.as_mut_ptr().cast();
    msg.msg_controllen = control.0.len();
    msg
}

fn pass_fd(fd: i32, to: i32) -> String {
    let mut byte = 1_u8;
    let mut iov = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let mut control = Control([0; 24]);
    let msg = message(&mut iov, &mut control);
    // SAFETY: `msg` describes `control`, which has room for a header and one descriptor.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&msg);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(4) as usize;
        libc::CMSG_DATA(header).cast::<i32>().write_unaligned(fd);
    }
    zero(sys!(sendmsg(to, &msg, libc::MSG_DONTWAIT)) as i64)
}

fn take_fd(from: i32, cloexec: bool) -> String {
    let mut byte = 0_u8;
    let mut iov = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let mut control = Control([0; 24]);
    let mut msg = message(&mut iov, &mut control);
    let flags = libc::MSG_DONTWAIT | if cloexec { libc::MSG_CMSG_CLOEXEC } else { 0 };
    let n = sys!(recvmsg(from, &mut msg, flags));
    if n == -1 {
        return errno_name(errno());
    }
    let cut = if msg.msg_flags & libc::MSG_CTRUNC != 0 { " cut" } else { "" };
    // SAFETY: the kernel filled `control` as `msg` says; the header is read only if there is one
    // with a descriptor.
    let fd = unsafe {
        let header = libc::CMSG_FIRSTHDR(&msg);
        if header.is_null() || (*header).cmsg_len < libc::CMSG_LEN(4) as usize {
            None
        } else {
            Some(libc::CMSG_DATA(header).cast::<i32>().read_unaligned())
        }
    };
    match fd {
        Some(fd) => format!("fd={fd}{cut}"),
        None => format!("none{cut}"),
    }
}

/// Takes the blocked signal, if it is pending.
fn sigwait() -> String {
    // SAFETY: sigset_t and siginfo_t are plain data; the signal comes from mq_notify or kill, whose
    // siginfo has these members.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, SIG_WAITED);
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let none = timespec { tv_sec: 0, tv_nsec: 0 };
        let n = libc::sigtimedwait(&set, &mut info, &none);
        show(n as i64, |n| {
            let value = if info.si_code == libc::SI_USER { 0 } else { info.si_value().sival_ptr as usize };
            let (pid, uid) = (info.si_pid(), info.si_uid());
            format!("sig={n} code={} value={value:x} pid=<pid:{pid}> uid=<uid:{uid}>", info.si_code)
        })
    }
}

/// In a process just forked by the coordinator.
pub fn start(slot: usize, shared: &'static Shared) -> ! {
    let worker = Worker::new(slot, shared);
    // After the change of users, which clears it.
    sys!(prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL));
    worker.own().phase.store(PHASE_IDLE, Ordering::SeqCst);
    worker.serve()
}

/// In an image that a worker executed.
pub fn resume() -> ! {
    let slot: usize = std::env::var(ENV_SLOT).expect("slot").parse().expect("slot number");
    let shared = shared::map();
    let worker = Worker::new(slot, shared);
    worker.answer("exec ok");
    worker.serve()
}
