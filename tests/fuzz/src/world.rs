//! One run: a segment, one who uses it, one who means harm, and a sound queue beside.

use core::cell::RefCell;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::OnceLock;

use crate::input::Input;
use crate::machine::kernel::{self, BASE, LEN, SURROUNDINGS};
use crate::machine::trace;
use crate::peer;
use crate::queue::notify::{self, Registration};
use crate::queue::{Buffer, try_receive, try_send};
use crate::shm::layout::{F_NOTIFY, Layout};
use crate::shm::{Map, gone};
use crate::sys::fault;
use crate::sys::tls::{self, Tls};
use crate::user::User;

/// The thread's state, as `cshim/` has it.
#[repr(C, align(64))]
struct Block([AtomicU64; 24]);
#[thread_local]
#[unsafe(no_mangle)]
static cshim_tls_block: Block = Block([const { AtomicU64::new(0) }; 24]);

#[unsafe(no_mangle)]
extern "C" fn cshim_tls() -> *const u8 {
    (&raw const cshim_tls_block).cast()
}

/// Attributes of the queue.
const SHAPES: [(u32, u32); 6] = [(4, 16), (1, 1), (10, 64), (10, 8192), (3, 100_000), (300, 100)];

/// What there is once.
struct World {
    tls: &'static Tls,
    bystander: Bystander,
    mapped: i64,
}

// SAFETY: there is one thread.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        take_faults();
        fault::init();
        let tls = tls::ready().unwrap();
        crate::sys::pid_namespace();
        // Whatever the process opens once is open by now.
        SURROUNDINGS.with(|around| around.state = Some(b'S'));
        assert_eq!(crate::shm::lock::task_state(1), Some(b'S'));
        SURROUNDINGS.with(|around| around.reset());
        let bystander = Bystander::new(tls);
        // What is different once a process has registered is so in each run.
        let what = Registration { kind: libc::SIGEV_SIGNAL, signo: 34, value: 0 };
        let (map, file) = segment(1, 1);
        let fifo = fifo();
        notify::register(&map, tls, fifo, what, 1, false).unwrap();
        notify::closed(&map, tls);
        map.unmap();
        for fd in [file, fifo] {
            // SAFETY: ours.
            unsafe { libc::close(fd) };
        }
        World { tls, bystander, mapped: SURROUNDINGS.with(|around| around.mapped) }
    })
}

fn lowest_free() -> i32 {
    // SAFETY: no pointers.
    unsafe {
        let fd = libc::dup(0);
        assert!(fd >= 0);
        libc::close(fd);
        fd
    }
}

/// A FIFO as queues have them.
fn fifo() -> i32 {
    let path = std::env::temp_dir().join(format!("mqns-fuzz-{}", std::process::id()));
    let path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: a NUL-terminated path.
    unsafe {
        assert_eq!(libc::mkfifo(path.as_ptr(), 0o600), 0);
        let fd = libc::open(path.as_ptr(), libc::O_RDWR | libc::O_NONBLOCK | libc::O_CLOEXEC);
        assert_eq!(libc::fcntl(fd, libc::F_SETFL, libc::O_DIRECT), 0);
        libc::unlink(path.as_ptr());
        fd
    }
}

/// A segment of its own file.
fn segment(maxmsg: u32, msgsize: u32) -> (Box<Map>, i32) {
    let layout = Layout::new(maxmsg, msgsize);
    // SAFETY: a name and flags; then a length.
    let fd = unsafe {
        let fd = libc::memfd_create(c"mqns-fuzz".as_ptr(), libc::MFD_CLOEXEC);
        assert_eq!(libc::ftruncate(fd, layout.len as i64), 0);
        fd
    };
    let map = Map::create(fd, &layout, 1).unwrap();
    map.set_name(b"hostile");
    map.publish();
    (Box::new(map), fd)
}

/// Where the map lies, and how long it is.
fn extent(map: &Map) -> (usize, usize) {
    let base = map.header() as *const _ as usize;
    let layout = Layout::new(map.maxmsg, map.msgsize);
    (base, layout.len as usize)
}

// ---------------------------------------------------------------------------------------------
// Faults

static OLD: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

fn slot_of(signal: i32) -> &'static AtomicUsize {
    &OLD[usize::from(signal == libc::SIGBUS)]
}

fn take_faults() {
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        // SAFETY: structures of the right type; zero is valid for them.
        unsafe {
            let mut old: Box<libc::sigaction> = Box::new(core::mem::zeroed());
            let mut action: libc::sigaction = core::mem::zeroed();
            action.sa_sigaction = on_fault as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
            assert_eq!(libc::sigaction(signal, &action, &mut *old), 0);
            slot_of(signal).store(Box::into_raw(old) as usize, Relaxed);
        }
    }
}

/// As `interpose::signal` does it; others are the sanitizer's.
extern "C" fn on_fault(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::ucontext_t) {
    // SAFETY: the kernel passes its siginfo and ucontext, which it loads again at our return; `slot_of` holds what
    // sigaction(2) has said.
    unsafe {
        let replaced = signal == libc::SIGBUS && gone::replace((*info).si_addr() as usize);
        #[cfg(target_arch = "x86_64")]
        let pc = &mut (*context).uc_mcontext.gregs[libc::REG_RIP as usize];
        #[cfg(target_arch = "aarch64")]
        let pc = &mut (*context).uc_mcontext.pc;
        if let Some(resume) = fault::fixup(*pc as usize) {
            *pc = resume as _;
            return;
        }
        if replaced {
            return;
        }
        let old = &*(slot_of(signal).load(Relaxed) as *const libc::sigaction);
        if old.sa_sigaction > libc::SIG_IGN {
            let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::ucontext_t) =
                core::mem::transmute(old.sa_sigaction);
            handler(signal, info, context);
        } else {
            libc::sigaction(signal, old, core::ptr::null_mut());
        }
    }
}

// ---------------------------------------------------------------------------------------------
// A queue beside

struct Bystander {
    map: Box<Map>,
    /// Its first page.
    was: RefCell<Vec<u8>>,
}

impl Bystander {
    fn new(tls: &Tls) -> Bystander {
        let (map, file) = segment(8, 32);
        // SAFETY: ours.
        unsafe { libc::close(file) };
        for priority in 0..3 {
            // SAFETY: a slice is readable.
            unsafe { try_send(&map, tls, -1, b"bystander".as_ptr(), 9, priority).unwrap() };
        }
        let was = RefCell::new(Bystander::bytes(&map).to_vec());
        Bystander { map, was }
    }

    /// Header, slots, messages: what three messages have touched.
    fn bytes(map: &Map) -> &[u8] {
        // SAFETY: a mapping of its own, longer than that, that nobody writes to.
        unsafe { core::slice::from_raw_parts(extent(map).0 as *const u8, 4096) }
    }

    fn check(&self) {
        assert!(Bystander::bytes(&self.map) == *self.was.borrow(), "the queue beside it has changed");
    }

    /// It works as well.
    fn use_it(&self, tls: &Tls) {
        for n in [2, 1, 0] {
            let (mut bytes, mut priority) = ([0u8; 32], 9);
            let buffer = Buffer { data: bytes.as_mut_ptr(), priority: &raw mut priority };
            // SAFETY: the buffer has room for the longest message.
            let got = unsafe { try_receive(&self.map, tls, -1, buffer) };
            assert_eq!((got, &bytes[..9], priority), (Ok(9), &b"bystander"[..], n));
        }
        for priority in 0..3 {
            // SAFETY: a slice is readable.
            unsafe { try_send(&self.map, tls, -1, b"bystander".as_ptr(), 9, priority).unwrap() };
        }
        self.was.replace(Bystander::bytes(&self.map).to_vec());
    }
}

// ---------------------------------------------------------------------------------------------
// A run

/// Says which segment the peer has before it.
fn expose(map: &Map, file: i32) {
    let (base, len) = extent(map);
    BASE.store(base, Relaxed);
    LEN.store(len, Relaxed);
    peer::FILE.with(|known| *known = file);
}

/// Nothing of earlier runs has a part in what comes: the thread's block is as if it had never been used, and the process is a
/// fork child, to the engine, which finds out anew whatever it remembers of a process.
fn start_anew() {
    for word in &cshim_tls_block.0 {
        word.store(0, Relaxed);
    }
    SURROUNDINGS.with(|around| {
        around.reset();
        around.fork();
    });
    kernel::calm();
    tls::ready().unwrap();
}

pub fn run(bytes: &[u8]) {
    let world = world();
    let input = &mut Input::new(bytes);
    trace::begin();
    let free = lowest_free();
    start_anew();
    let fifo = fifo();
    let (maxmsg, msgsize) = SHAPES[usize::from(input.below(SHAPES.len() as u8))];
    let (mut map, file) = segment(maxmsg, msgsize);
    expose(&map, file);
    loop {
        let mut user = User::new(&map, world.tls, fifo);
        // Not longer than a run should take.
        let mut calls = 0;
        let reopened = loop {
            if input.is_over() || calls == 200 {
                break false;
            }
            calls += 1;
            if !user.step(input) {
                break true;
            }
            assert_eq!(world.tls.crit.load(Relaxed), 0, "a call has not left its critical section");
        };
        kernel::calm();
        user.end();
        end(world, &map, fifo);
        if !reopened {
            break;
        }
        // The file as it is now, or as somebody else makes it, is mapped by one who comes new.
        let len = damage(&map, world, file, input);
        map.unmap();
        match Map::open(file, len) {
            Ok(opened) => *map = opened,
            Err(errno) => {
                assert!([libc::EIO, libc::ENOMEM].contains(&errno.0), "{errno:?}");
                let (other, unused) = segment(maxmsg, msgsize);
                // SAFETY: ours.
                unsafe { libc::dup2(unused, file) };
                // SAFETY: ours.
                unsafe { libc::close(unused) };
                map = other;
            }
        }
        expose(&map, file);
    }
    BASE.store(0, Relaxed);
    LEN.store(0, Relaxed);
    map.unmap();
    for fd in [file, fifo] {
        // SAFETY: ours.
        unsafe { libc::close(fd) };
    }
    trace::end(bytes);
    world.bystander.check();
    static RUNS: AtomicU64 = AtomicU64::new(0);
    if RUNS.fetch_add(1, Relaxed).is_multiple_of(64) {
        world.bystander.use_it(world.tls);
    }
    assert_eq!(SURROUNDINGS.with(|around| around.mapped), world.mapped, "a mapping is left");
    assert_eq!(lowest_free(), free, "a descriptor is left");
}

/// The process leaves the queue: nothing is left of it.
fn end(world: &World, map: &Map, fifo: i32) {
    let tls = world.tls;
    // Its registration goes with its descriptor; the segment need not agree.
    let h = map.header();
    h.lock.store(0, Relaxed);
    SURROUNDINGS.with(|around| around.reset());
    notify::closed(map, tls);
    h.flags.fetch_and(!F_NOTIFY, Relaxed);
    assert_eq!(map.pins.load(Relaxed), 0, "the mapping stays for good");
    assert_eq!(tls.waiter.load(Relaxed), 0, "a call that is over is still known");
    assert_eq!(tls.robust().list_op_pending.load(Relaxed), 0, "the kernel would mark a word");
    assert_eq!(tls.crit.load(Relaxed), 0);
    // What a close does to the FIFO.
    // SAFETY: locals as long as said.
    unsafe {
        for command in [libc::F_SETLK, libc::F_OFD_SETLK] {
            let mut lock: libc::flock = core::mem::zeroed();
            lock.l_type = libc::F_UNLCK as i16;
            assert_eq!(libc::fcntl(fifo, command, &raw mut lock), 0);
        }
        let (mut left, mut bytes) = (0i32, [0u8; 4096]);
        while libc::ioctl(fifo, libc::FIONREAD, &raw mut left) == 0 && left > 0 {
            libc::read(fifo, bytes.as_mut_ptr().cast(), bytes.len());
        }
    }
}

/// What is done to the file before it is opened; its length then.
fn damage(map: &Map, world: &World, file: i32, input: &mut Input<'_>) -> u64 {
    for _ in 0..input.below(4) {
        let offset = peer::place(map, input);
        peer::does(&peer::Deed::There(offset, peer::value(map, world.tls.tid.load(Relaxed), input)), 0);
    }
    // Attributes that Map::open believes, or not.
    if input.byte() >= 192 {
        let attributes = [input.word() >> 14, input.word() >> 10];
        // SAFETY: as long as said.
        unsafe { libc::pwrite(file, attributes.as_ptr().cast(), 8, 24) };
    }
    if input.byte() >= 128 {
        peer::does(&peer::Deed::Length(peer::length(extent(map).1, input)), 0);
    }
    // SAFETY: a local.
    unsafe {
        let mut st: libc::stat = core::mem::zeroed();
        assert_eq!(libc::fstat(file, &mut st), 0);
        st.st_size as u64
    }
}
