//! System calls, and what happens before an access.

use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicU32, AtomicUsize};

use super::{Alone, trace};
use crate::peer::{self, Deed};

/// What the engine does to a word.
pub enum Access {
    Load,
    Store,
}

/// The segment in use.
pub static BASE: AtomicUsize = AtomicUsize::new(0);
pub static LEN: AtomicUsize = AtomicUsize::new(0);
/// Accesses to it until the peer does something; 0: it does nothing.
static UNTIL: AtomicU32 = AtomicU32::new(0);

/// What the peer is going to do, one after the other: after so many accesses.
static PENDING: Alone<Vec<(u32, Deed)>> = Alone::new(Vec::new());

/// Has the peer do something after so many accesses more than what it does before.
pub fn pend(after: u32, deed: Deed) {
    PENDING.with(|pending| pending.push((after + 1, deed)));
    if UNTIL.load(Relaxed) == 0 {
        UNTIL.store(after + 1, Relaxed);
    }
}

/// The peer does nothing any more.
pub fn calm() {
    PENDING.with(Vec::clear);
    UNTIL.store(0, Relaxed);
}

/// Before an access to a word; true: it is made.
pub fn before(address: usize, access: Access) -> bool {
    let offset = address.wrapping_sub(BASE.load(Relaxed));
    if offset >= LEN.load(Relaxed) {
        return true;
    }
    if UNTIL.load(Relaxed) != 0 {
        let left = UNTIL.load(Relaxed) - 1;
        UNTIL.store(left, Relaxed);
        if left == 0 {
            let (deed, next) = PENDING.with(|pending| {
                let deed = pending.remove(0).1;
                (deed, pending.first().map_or(0, |next| next.0))
            });
            UNTIL.store(next, Relaxed);
            peer::does(&deed, address);
        }
    }
    if trace::is_on() {
        // SAFETY: the word that is about to be accessed, or the aligned one that has it.
        let there = unsafe { &*((address & !3) as *const AtomicU32) }.load(Relaxed);
        trace::note(match access {
            Access::Load => [0, offset as u64, there.into()],
            Access::Store => [1, offset as u64, there.into()],
        });
    }
    true
}

/// What a word holds, by no access of the engine's: the peer does nothing before it.
pub fn peek(word: &super::atomic::AtomicU32) -> u32 {
    // SAFETY: an atomic word.
    unsafe { &*word.as_ptr().cast::<AtomicU32>() }.load(Relaxed)
}

/// The process and its one thread, as the engine knows them: the same in each run. So are all numbers that it gets.
const ID: u32 = 54321;

/// What the kernel, and other tasks, are like.
pub struct Surroundings {
    /// How the next sleeps end; then their time is up.
    pub sleeps: Vec<i32>,
    /// How many a wake finds asleep.
    pub woken: u32,
    /// The state of a task, as proc(5) shows it; none if there is no such task.
    pub state: Option<u8>,
    /// Its CPU time, ns: more with every look.
    cpu_time_ns: u64,
    /// So many requests for memory are granted.
    pub room: u32,
    /// Whether signals may be sent to others.
    pub may_signal: bool,
    /// Mappings: base and length, and those of the reservation round it.
    segments: Vec<[usize; 4]>,
    /// Mappings made, less those taken away.
    pub mapped: i64,
    /// A file whose contents are made up.
    made_up: i32,
    /// The page that the kernel wipes on fork.
    wiped: usize,
    /// What the clocks say, ns: more with every look.
    now_ns: i64,
}

pub static SURROUNDINGS: Alone<Surroundings> = Alone::new(Surroundings {
    sleeps: Vec::new(),
    woken: 0,
    state: None,
    cpu_time_ns: 0,
    room: u32::MAX,
    may_signal: true,
    segments: Vec::new(),
    mapped: 0,
    made_up: -1,
    wiped: 0,
    now_ns: 0,
});

impl Surroundings {
    /// As they are in the beginning of each run.
    pub fn reset(&mut self) {
        self.sleeps.clear();
        (self.woken, self.state, self.cpu_time_ns) = (0, None, 0);
        (self.room, self.may_signal) = (u32::MAX, true);
        self.now_ns = 1_000_000_000_000_000_000;
    }

    /// What a fork child finds: the engine takes nothing that it has found out before for true.
    pub fn fork(&mut self) {
        if self.wiped != 0 {
            // SAFETY: the engine's page, which the kernel would wipe.
            unsafe { *(self.wiped as *mut u64) = 0 };
        }
    }

    fn segment(&mut self, at: usize, len: usize) -> Option<[usize; 4]> {
        let holds = |s: &&[usize; 4]| at >= s[0] && at.saturating_add(len) <= s[0] + s[1];
        self.segments.iter().find(holds).copied()
    }

    /// A mapping of a file, between pages that nobody may touch.
    fn map_guarded(&mut self, len: usize, access: usize, flags: usize, fd: usize) -> isize {
        const GUARD: usize = 16 << 20;
        let nobodys = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE) as usize;
        let whole = len.next_multiple_of(4096) + 2 * GUARD;
        let around = real(libc::SYS_mmap, [0, whole, libc::PROT_NONE as usize, nobodys, usize::MAX, 0]);
        if around < 0 {
            return around;
        }
        let fixed = flags | libc::MAP_FIXED as usize;
        let at = real(libc::SYS_mmap, [around as usize + GUARD, len, access, fixed, fd, 0]);
        if at < 0 {
            real(libc::SYS_munmap, [around as usize, whole, 0, 0, 0, 0]);
            return at;
        }
        self.segments.push([at as usize, len, around as usize, whole]);
        self.mapped += 1;
        at
    }

    fn unmap(&mut self, at: usize, len: usize) -> isize {
        self.mapped -= 1;
        match self.segments.iter().position(|s| s[0] == at) {
            Some(index) => {
                let [_, mapped, around, whole] = self.segments.remove(index);
                assert_eq!(len, mapped, "part of a segment is unmapped");
                real(libc::SYS_munmap, [around, whole, 0, 0, 0, 0])
            }
            None => real(libc::SYS_munmap, [at, len, 0, 0, 0, 0]),
        }
    }

    /// A file with these contents.
    fn file(&mut self, text: &str, flags: usize) -> isize {
        // SAFETY: a name; a buffer as long as said; a path.
        unsafe {
            if self.made_up < 0 {
                self.made_up = libc::memfd_create(c"made-up".as_ptr(), libc::MFD_CLOEXEC);
                assert!(self.made_up >= 0);
            }
            libc::ftruncate(self.made_up, 0);
            libc::pwrite(self.made_up, text.as_ptr().cast(), text.len(), 0);
            let path = std::ffi::CString::new(format!("/proc/self/fd/{}", self.made_up)).unwrap();
            real(libc::SYS_openat, [libc::AT_FDCWD as usize, path.as_ptr() as usize, flags, 0, 0, 0])
        }
    }

    fn open(&mut self, a: [usize; 6]) -> isize {
        // SAFETY: the engine passes a path.
        let path = unsafe { std::ffi::CStr::from_ptr(a[1] as *const libc::c_char) }.to_str().unwrap_or("?");
        assert_eq!(a[2] as i32 & (libc::O_ACCMODE | libc::O_CREAT), libc::O_RDONLY, "{path} is opened for writing");
        let task = path.strip_prefix("/proc/").filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        // Its own, or those in `task` of its process.
        let parts = task.and_then(|rest| Some((rest.split_once('/')?.0, rest.rsplit_once('/')?.1)));
        match parts {
            Some((task, "stat")) => match self.state {
                Some(state) => self.file(&format!("{task} (x) y) {} 0", state as char), a[2]),
                None => -libc::ENOENT as isize,
            },
            Some((_, "schedstat")) => {
                self.cpu_time_ns += 100_000_000;
                self.file(&format!("{} 0 0", self.cpu_time_ns), a[2])
            }
            Some((_, "cgroup")) => self.file("0::/x\n", a[2]),
            _ if path == "/proc/self/status" => self.file(&format!("Name:\tx\nNSpid:\t{ID}\n"), a[2]),
            _ if path.starts_with("/sys/fs/cgroup/") => -libc::ENOENT as isize,
            _ => panic!("{path} is opened"),
        }
    }

    fn futex(&mut self, word: usize, operation: i32, value: u32) -> isize {
        match operation & !libc::FUTEX_PRIVATE_FLAG {
            libc::FUTEX_WAIT => {
                // SAFETY: a word of the segment, or of the process.
                if unsafe { &*(word as *const AtomicU32) }.load(Relaxed) != value {
                    return -libc::EAGAIN as isize;
                }
                self.sleeps.pop().unwrap_or(-libc::ETIMEDOUT) as isize
            }
            libc::FUTEX_WAKE => self.woken.min(value) as isize,
            other => panic!("operation {other} of futex(2)"),
        }
    }
}

/// What a link in `/proc` says.
fn link(path: usize, buffer: usize, len: usize) -> isize {
    // SAFETY: the engine passes a path.
    let path = unsafe { std::ffi::CStr::from_ptr(path as *const libc::c_char) }.to_str().unwrap_or("?");
    let text = match path {
        "/proc/self" => ID.to_string(),
        "/proc/thread-self/ns/pid" => "pid:[4026531836]".to_string(),
        "/proc/thread-self/ns/user" => "user:[4026531837]".to_string(),
        _ => panic!("link {path} is read"),
    };
    assert!(text.len() <= len);
    // SAFETY: the engine passes a buffer as long as said.
    unsafe { core::ptr::copy_nonoverlapping(text.as_ptr(), buffer as *mut u8, text.len()) };
    text.len() as isize
}

/// What a clock says.
pub fn clock(_: libc::clockid_t) -> libc::timespec {
    SURROUNDINGS.with(|around| {
        // Some of what happens in a row does so in the same second.
        around.now_ns += 100_000_000;
        libc::timespec { tv_sec: around.now_ns / 1_000_000_000, tv_nsec: around.now_ns % 1_000_000_000 }
    })
}

fn real(nr: libc::c_long, a: [usize; 6]) -> isize {
    // SAFETY: what the engine asks for.
    unsafe { machine::raw6(nr, a[0], a[1], a[2], a[3], a[4], a[5]) }
}

/// The real one.
#[path = "../../../../src/machine.rs"]
mod machine;

/// Whether a FIFO is ready for reading or writing: then a call of one byte, or with room for all that is there, does not block.
fn is_ready(fd: usize, events: i16) -> bool {
    let mut one = libc::pollfd { fd: fd as i32, events, revents: 0 };
    // SAFETY: one structure.
    unsafe { libc::poll(&mut one, 1, 0) == 1 && one.revents & events != 0 }
}

/// See `src/machine.rs`.
///
/// # Safety
///
/// As there.
pub unsafe fn raw6(nr: i64, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> isize {
    let result = call(nr, [a, b, c, d, e, f]);
    // Addresses may be any.
    trace::note([2, nr as u64, if nr == libc::SYS_mmap { result.min(0) } else { result } as u64]);
    result
}

fn call(nr: i64, all: [usize; 6]) -> isize {
    let [a, b, c, _, e, _] = all;
    SURROUNDINGS.with(|around| match nr {
        libc::SYS_futex => around.futex(a, b as i32, c as u32),
        libc::SYS_sched_yield => 0,
        libc::SYS_mmap if a == 0 && e as i32 >= 0 => around.map_guarded(b, c, all[3], e),
        libc::SYS_mmap if a == 0 => {
            around.mapped += 1;
            real(nr, all)
        }
        libc::SYS_mmap => {
            assert!(around.segment(a, b).is_some_and(|s| s[0] == a && s[1] == b), "other memory is replaced");
            real(nr, all)
        }
        libc::SYS_munmap => around.unmap(a, b),
        libc::SYS_madvise if c as i32 == libc::MADV_WIPEONFORK => {
            around.wiped = a;
            real(nr, all)
        }
        libc::SYS_madvise => {
            assert!(around.segment(a, b).is_some(), "advice on other memory");
            if c as i32 == libc::MADV_POPULATE_WRITE {
                assert!(b <= 64 << 20, "{b} bytes at once");
                around.room = around.room.saturating_sub(1);
                if around.room == 0 {
                    return -libc::EFAULT as isize;
                }
            }
            real(nr, all)
        }
        // Whether there is such a task.
        libc::SYS_tkill | libc::SYS_kill => {
            assert!((c == 0 && nr == libc::SYS_tkill || nr == libc::SYS_kill) && b == 0, "a signal is sent");
            if around.state.is_none() { -libc::ESRCH as isize } else { 0 }
        }
        libc::SYS_sched_getattr => -libc::ESRCH as isize,
        libc::SYS_rt_sigqueueinfo => {
            assert_eq!(a as u32, ID, "a signal to who is not registered");
            // SAFETY: the engine passes a structure of 128 bytes.
            let info = unsafe { &*(c as *const [u32; 32]) };
            assert!(info[3] == 0 && info[8..].iter().all(|&word| word == 0), "more than a notification is told");
            if around.may_signal { 0 } else { -libc::EPERM as isize }
        }
        libc::SYS_openat => around.open(all),
        libc::SYS_read => {
            assert!(is_ready(a, libc::POLLIN), "a read that blocks");
            real(nr, all)
        }
        libc::SYS_write => {
            assert!(is_ready(a, libc::POLLOUT), "a write that blocks");
            real(nr, all)
        }
        libc::SYS_fcntl => {
            let harmless = [
                libc::F_OFD_GETLK,
                libc::F_OFD_SETLK,
                libc::F_SETLK,
                libc::F_GETFL,
                libc::F_GETPIPE_SZ,
                libc::F_SETPIPE_SZ,
            ];
            assert!(harmless.contains(&(b as i32)), "command {b} of fcntl(2)");
            let result = real(nr, all);
            if b as i32 == libc::F_OFD_GETLK && result == 0 {
                // SAFETY: the engine passes such a structure.
                let lock = unsafe { &mut *(c as *mut libc::flock) };
                if lock.l_pid == std::process::id() as i32 {
                    lock.l_pid = ID as i32;
                }
            }
            result
        }
        libc::SYS_readlinkat => link(b, c, all[3]),
        libc::SYS_newfstatat => {
            let result = real(nr, all);
            if result == 0 {
                // SAFETY: the engine passes such a structure.
                unsafe { (*(c as *mut libc::stat)).st_dev = 23 };
            }
            result
        }
        libc::SYS_getpid | libc::SYS_gettid => ID as isize,
        libc::SYS_getuid | libc::SYS_geteuid => 1000,
        libc::SYS_close
        | libc::SYS_pread64
        | libc::SYS_ppoll
        | libc::SYS_ioctl
        | libc::SYS_rt_sigprocmask
        | libc::SYS_get_robust_list
        | libc::SYS_set_robust_list => real(nr, all),
        _ => panic!("system call {nr}"),
    })
}
