//! Hostile memory: the engine on segments in which any word may change at any time. Shared memory is input, so
//! that every operation has to end, soon, with an error or a result that could have been; must touch nothing but the
//! segment and the caller's buffer; and must leave other queues alone.
//!
//! Seeds are fixed. `MQNS_HOSTILE_SEEDS=0..100000` runs others, `MQNS_HOSTILE_TRACE=1` says which seed runs.

use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::time::{Duration, Instant};

use super::notify::{self, Registration};
use super::wait::{self, Step, Wait};
use super::{Buffer, curmsgs, look, poll, ready_slots, repair, tap, try_receive, try_send};
use crate::abi::{Errno, MQ_PRIO_MAX, Result};
use crate::look::{Message, Tap, TapEvent, TappedMessage};
use crate::shm::Map;
use crate::shm::layout::{F_CORRUPT, F_MIXED_PIDS, F_NOTIFY, GROUPS, NONE, WAITERS};
use crate::sys::tls::{self, Tls};

#[path = "../../tests/harness/row.rs"]
mod row;
pub(super) use row::row;

/// What a call may take. (The lock of a living owner that is asleep takes one second, see `shm::lock`.)
const SOON: Duration = Duration::from_secs(5);

/// Random numbers (xorshift64*), the same in every run.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }
}

fn seeds(default: u64) -> std::ops::Range<u64> {
    let Some(range) = std::env::var("MQNS_HOSTILE_SEEDS").ok() else { return 0..default };
    let (from, to) = range.split_once("..").expect("MQNS_HOSTILE_SEEDS=FROM..TO");
    from.parse().expect("a number")..to.parse().expect("a number")
}

fn trace(what: &str, seed: u64) {
    if std::env::var_os("MQNS_HOSTILE_TRACE").is_some() {
        eprintln!("{what}: seed {seed}");
    }
}

/// A FIFO as queues have them, and a thread id that nobody has.
fn fifo() -> i32 {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Relaxed);
    let path = format!("/dev/shm/mqns-test-hostile-{}-{number}", std::process::id());
    let path = std::ffi::CString::new(path).unwrap();
    // SAFETY: a NUL-terminated path.
    unsafe {
        assert_eq!(libc::mkfifo(path.as_ptr(), 0o600), 0);
        let fd = libc::open(path.as_ptr(), libc::O_RDWR | libc::O_NONBLOCK | libc::O_CLOEXEC);
        // Without O_NONBLOCK, as a blocking mqd_t: what would block is to be seen.
        assert_eq!(libc::fcntl(fd, libc::F_SETFL, libc::O_DIRECT), 0);
        libc::unlink(path.as_ptr());
        fd
    }
}

// ---------------------------------------------------------------------------------------------
// What is done to a segment

/// The words of a segment that mean something, as a peer sees them.
struct Words<'a>(&'a Map);

/// Some word: what it counts, and where it is.
enum Word<'a> {
    Narrow(&'a AtomicU32),
    Wide(&'a AtomicU64),
}

impl<'a> Words<'a> {
    fn header(&self, at: u64) -> Word<'a> {
        let h = self.0.header();
        match at {
            0 => Word::Narrow(&h.flags),
            1 => Word::Narrow(&h.lock),
            2 => Word::Narrow(&h.curmsgs),
            3 => Word::Narrow(&h.free),
            4 => Word::Narrow(&h.level0),
            5 => Word::Wide(&h.seq),
            6 => Word::Wide(&h.qsize),
            7 => Word::Narrow(&h.receivers.head),
            8 => Word::Narrow(&h.receivers.tail),
            9 => Word::Narrow(&h.senders.head),
            10 => Word::Narrow(&h.senders.tail),
            11 => Word::Narrow(&h.waiter_free),
            12..20 => Word::Wide(&h.level1[at as usize - 12]),
            20 => Word::Narrow(&h.high),
            21 => Word::Narrow(&h.tokens),
            22 => Word::Wide(&h.committed),
            23 => Word::Narrow(&h.waiter_high),
            24 => Word::Wide(&h.groups_committed),
            25 => Word::Narrow(&h.teller),
            26 => Word::Wide(&h.notify.ticket),
            27 => Word::Wide(&h.notify.lock),
            28 => Word::Narrow(&h.notify.word),
            29 => Word::Narrow(&h.notify.pid),
            30 => Word::Wide(&h.notify.pid_ns),
            31 => Word::Narrow(&h.notify.state),
            32 => Word::Narrow(&h.notify.proc_dev),
            33 => Word::Narrow(&h.notify.bell_uid),
            34 => Word::Narrow(&h.name_len),
            35 => Word::Narrow(&h.maxmsg),
            36 => Word::Narrow(&h.msgsize),
            37 => Word::Wide(&h.ino),
            38 => Word::Wide(&h.taps.head),
            39 => Word::Wide(&h.taps.tail),
            40 => Word::Wide(&h.taps.committed),
            41 => Word::Narrow(&h.taps.word),
            // The oldest record, and the next.
            42 => Word::Narrow(&self.0.record(h.taps.tail.load(Relaxed)).len),
            43 => Word::Wide(&self.0.record(h.taps.tail.load(Relaxed)).number),
            _ => Word::Wide(&h.notify.fired[at as usize % h.notify.fired.len()].ticket),
        }
    }

    /// One of the structures behind the header: mostly of those that are in use.
    fn other(&self, random: &mut Random) -> Word<'a> {
        let (h, used) = (self.0.header(), random.below(4) != 0);
        let upto = |used_up_to: u32, all: u32| if used { u64::from(used_up_to.clamp(1, all)) } else { u64::from(all) };
        match random.below(3) {
            0 => {
                let index = random.below(upto(h.high.load(Relaxed), self.0.slots())) as u32;
                let slot = self.0.slot(index).unwrap();
                match random.below(7) {
                    0 => Word::Narrow(&slot.state),
                    1 => Word::Narrow(&slot.holder),
                    2 => Word::Narrow(&slot.len),
                    3 => Word::Narrow(&slot.priority),
                    4 => Word::Wide(&slot.seq),
                    5 => Word::Narrow(&slot.next),
                    _ => Word::Narrow(&slot.committed),
                }
            }
            1 => {
                let group =
                    self.0.group(if used { random.below(2) as u32 * (GROUPS - 1) } else { random.next() as u32 });
                match random.below(2) {
                    0 => Word::Wide(&group.bits),
                    _ => Word::Narrow(&group.tails[random.below(64) as usize]),
                }
            }
            _ => {
                let index = random.below(upto(h.waiter_high.load(Relaxed), WAITERS)) as u32;
                let waiter = self.0.waiter(index).unwrap();
                match random.below(8) {
                    0 => Word::Narrow(&waiter.word),
                    1 => Word::Narrow(&waiter.state),
                    2 => Word::Narrow(&waiter.next),
                    3 => Word::Narrow(&waiter.prev),
                    4 => Word::Narrow(&waiter.kind),
                    5 => Word::Narrow(&waiter.slot),
                    6 => Word::Narrow(&waiter.tid),
                    _ => Word::Wide(&waiter.ticket),
                }
            }
        }
    }
}

/// A value that some check may have forgotten.
fn value(map: &Map, own_tid: u32, random: &mut Random) -> u64 {
    let h = map.header();
    let edges = [
        0,
        1,
        2,
        3,
        u64::from(NONE),
        u64::from(NONE) - 1,
        u64::MAX,
        1 << 31,
        1 << 30,
        0x3fff_ffff,
        u64::from(map.maxmsg),
        u64::from(map.maxmsg) - 1,
        u64::from(map.slots()),
        u64::from(map.slots()) - 1,
        u64::from(map.msgsize) + 1,
        u64::from(WAITERS),
        u64::from(h.high.load(Relaxed)),
        u64::from(own_tid),
        u64::from(own_tid) | 1 << 31,
        1 << 62,
    ];
    match random.below(8) {
        0..4 => edges[random.below(edges.len() as u64) as usize],
        // An index that is in use: cycles, and one thing in two places.
        4..7 => random.below(u64::from(h.high.load(Relaxed).clamp(1, 8))),
        _ => random.next(),
    }
}

/// Changes a word or a few; how many.
fn corrupt(map: &Map, own_tid: u32, random: &mut Random) -> u32 {
    let words = Words(map);
    let count = 1 + random.below(3) as u32;
    for _ in 0..count {
        let word = if random.below(2) == 0 { words.header(random.below(46)) } else { words.other(random) };
        let value = value(map, own_tid, random);
        match word {
            Word::Narrow(word) => word.store(value as u32, Relaxed),
            Word::Wide(word) => word.store(value, Relaxed),
        }
    }
    let h = map.header();
    // Damage found is for good: most of the time there is to be more to look at than that.
    if random.below(8) != 0 {
        h.flags.fetch_and(!(F_CORRUPT | F_MIXED_PIDS), Relaxed);
    }
    // An owner that lives is waited for: `a_lock_that_nobody_holds_is_given_up`.
    let owner = h.lock.load(Relaxed);
    if owner & 1 << 30 == 0 && owner & 0x3fff_ffff != 0 && owner & 0x3fff_ffff != own_tid {
        h.lock.store(if random.below(4) == 0 { 0x4000_0000 } else { 0 }, Relaxed);
    }
    // A packet that a living thread is about to write, too, is waited for, for a second.
    if random.below(500) != 0 {
        h.teller.store(if random.below(4) == 0 { 0x4000_0000 } else { 0 }, Relaxed);
    }
    count
}

// ---------------------------------------------------------------------------------------------
// What is called

/// The calls of one user of a queue.
struct User<'a> {
    map: &'a Map,
    tls: &'static Tls,
    fd: i32,
    /// Calls that are blocked: the last was made from a signal handler of the one before, so to say.
    blocked: Vec<(Box<Wait>, Vec<u8>)>,
    calls: u64,
    failed: u64,
    tap: Option<Tap>,
    /// Messages that it has seen.
    taps: u64,
}

/// When the call under way has begun, ms, and 1; 0: none.
static SINCE: AtomicU64 = AtomicU64::new(0);

const CANARY: u8 = 0xee;

impl<'a> User<'a> {
    fn new(map: &'a Map, fd: i32) -> User<'a> {
        User { map, tls: tls::ready().unwrap(), fd, blocked: Vec::new(), calls: 0, failed: 0, tap: None, taps: 0 }
    }

    fn buffer(&self) -> Vec<u8> {
        vec![CANARY; self.map.msgsize as usize + 64]
    }

    /// No more than a message was written.
    fn check(&self, bytes: &[u8], received: Result<usize>) {
        let len = received.unwrap_or(self.map.msgsize as usize);
        assert!(len <= self.map.msgsize as usize, "a message of {len} bytes");
        assert!(bytes[len..].iter().all(|&b| b == CANARY), "only the message is written");
    }

    fn call(&mut self, random: &mut Random) {
        let start = Instant::now();
        let result = self.call_inner(random);
        let took = start.elapsed();
        assert!(took < SOON, "a call took {took:?}");
        self.calls += 1;
        if let Err(errno) = result {
            self.failed += 1;
            let known = [
                Errno::EIO,
                Errno::EAGAIN,
                Errno::ENOMEM,
                Errno::ENOSPC,
                Errno::EDEADLK,
                Errno::EBUSY,
                Errno::EINTR,
                Errno::ETIMEDOUT,
            ];
            assert!(known.contains(&errno), "{errno:?}");
        }
    }

    fn call_inner(&mut self, random: &mut Random) -> Result<()> {
        let (map, tls, fd) = (self.map, self.tls, self.fd);
        let len = random.below(u64::from(map.msgsize) + 1) as u32;
        let priority = [0, 1, 63, 64, MQ_PRIO_MAX - 1][random.below(5) as usize];
        match random.below(22) {
            20 => {
                if let Some(tap) = self.tap.take() {
                    return tap::end(map, tls, &tap).map(|_| ());
                }
                let (started, _) = tap::start(map, tls, fd, &mut [])?;
                self.tap = Some(started);
                Ok(())
            }
            21 => {
                let Some(tapping) = &mut self.tap else { return Ok(()) };
                let mut bytes = vec![CANARY; map.msgsize as usize + 64];
                let mut message = TappedMessage::default();
                for _ in 0..random.below(4) {
                    // SAFETY: the buffer has room for the longest message.
                    let event =
                        unsafe { tap::next(map, tapping, &AtomicU32::new(1), &mut message, bytes.as_mut_ptr()) };
                    let seen = event? == TapEvent::Message;
                    self.taps += u64::from(seen);
                    let longest = map.msgsize as usize;
                    assert!(!seen || message.len as usize <= longest, "a message of {} bytes", message.len);
                    assert!(message.priority < MQ_PRIO_MAX, "priority {}", message.priority);
                    assert!(bytes[longest..].iter().all(|&b| b == CANARY), "only the message is written");
                }
                Ok(())
            }
            0..4 => {
                let bytes = vec![0x55u8; len as usize];
                // SAFETY: a slice is readable.
                unsafe { try_send(map, tls, fd, bytes.as_ptr(), len, priority) }
            }
            4..8 => {
                let mut bytes = self.buffer();
                let mut priority = 0;
                let buffer = Buffer { data: bytes.as_mut_ptr(), priority: &raw mut priority };
                // SAFETY: the buffer has room for the longest message.
                let got = unsafe { try_receive(map, tls, fd, buffer) };
                self.check(&bytes, got);
                assert!(priority < MQ_PRIO_MAX, "priority {priority}");
                got.map(|_| ())
            }
            8..11 if self.blocked.len() < 6 => {
                // SAFETY: integers and raw pointers only; `init` of the engine fills it in.
                let mut wait: Box<Wait> = Box::new(unsafe { core::mem::zeroed() });
                let mut bytes = self.buffer();
                let step = if random.below(2) == 0 {
                    // SAFETY: the buffer is readable; the `Wait` stays in its box until the call is over.
                    unsafe { wait::send_or_wait(map, tls, fd, bytes.as_ptr(), len, priority, &mut wait) }
                } else {
                    let buffer = Buffer { data: bytes.as_mut_ptr(), priority: core::ptr::null_mut() };
                    // SAFETY: the buffer has room for the longest message, and stays beside the `Wait`.
                    unsafe { wait::receive_or_wait(map, tls, fd, buffer, &mut wait) }
                };
                match step? {
                    Step::Sleep => self.blocked.push((wait, bytes)),
                    Step::Done(len) => self.check(&bytes, Ok(len)),
                }
                Ok(())
            }
            8..14 => {
                let slept = [0, -512, -libc::EINTR, -libc::ETIMEDOUT][random.below(4) as usize];
                self.go_on(slept)
            }
            14 => {
                if let Some((mut wait, _)) = self.blocked.pop() {
                    // SAFETY: filled in by a call that has blocked, and not finished.
                    unsafe { wait::cancel(tls, &mut wait) }
                }
                Ok(())
            }
            15 => {
                assert!(curmsgs(map) <= map.maxmsg);
                ready_slots(map, |_, _| {});
                let _ = (wait::count(map), poll::readiness(map), map.name(&mut [0; 255]));
                let ticket = random.below(40);
                let _ = notify::fate(map, ticket) == notify::Fate::Over;
                wait::nonblocking_set(map, tls);
                Ok(())
            }
            16 => poll::arm(map, tls, fd).map(|_| ()).and(poll::show(map, tls, fd)),
            17 => poll::watch(map, tls, fd, random.below(2) == 0).and(poll::reopened(map, tls, fd)),
            18 => {
                let what = Registration { kind: libc::SIGEV_THREAD, signo: 0, value: 0 };
                let registered = notify::register(map, tls, fd, what, 1, false).map(|_| ());
                registered.and(notify::current(map, tls, fd).map(|_| ()))
            }
            _ => {
                let removed = notify::unregister(map, tls, fd);
                notify::closed(map, tls);
                removed
            }
        }
    }

    /// The last blocked call goes on.
    fn go_on(&mut self, slept: i32) -> Result<()> {
        let Some((wait, bytes)) = self.blocked.last_mut() else { return Ok(()) };
        // SAFETY: filled in by a call that has blocked, and not finished.
        let step = unsafe { wait::resume(self.tls, wait, slept) };
        if let Ok(Step::Sleep) = step {
            return Ok(());
        }
        let bytes = core::mem::take(bytes);
        self.blocked.pop();
        if let Ok(Step::Done(len)) = step {
            self.check(&bytes, Ok(len));
        }
        step.map(|_| ())
    }

    /// Nothing is blocked any more.
    fn end(&mut self) {
        let mut rounds = 0;
        while !self.blocked.is_empty() {
            let _ = self.go_on(-libc::ETIMEDOUT);
            rounds += 1;
            assert!(rounds < 100, "a call whose time is over goes on sleeping");
        }
    }
}

/// Ends the process if a call hangs: then there is nobody to say so.
fn watch(seed: &'static AtomicU64, over: &'static AtomicBool) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut last = (u64::MAX, Instant::now());
        while !over.load(SeqCst) {
            let now = seed.load(SeqCst) << 20 | SINCE.load(SeqCst) & 0xf_ffff;
            if now != last.0 {
                last = (now, Instant::now());
            }
            if last.1.elapsed() > 2 * SOON {
                eprintln!("hostile: seed {} hangs", seed.load(SeqCst));
                std::process::abort();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    })
}

const SHAPES: [(u32, u32); 6] = [(1, 1), (4, 16), (10, 64), (10, 8192), (3, 100_000), (300, 100)];

/// A queue that nobody touches lies beside: it must stay as it is.
struct Bystander(Map);

impl Bystander {
    fn new(tls: &Tls) -> Bystander {
        let map = Map::anonymous(8, 32);
        for n in 0..3 {
            // SAFETY: a slice is readable.
            unsafe { try_send(&map, tls, -1, b"bystander".as_ptr(), 9, n).unwrap() };
        }
        Bystander(map)
    }

    fn check(&self, tls: &Tls) {
        for n in [2, 1, 0] {
            let (mut bytes, mut priority) = ([0u8; 32], 9);
            let buffer = Buffer { data: bytes.as_mut_ptr(), priority: &raw mut priority };
            // SAFETY: the buffer has room for the longest message.
            let got = unsafe { try_receive(&self.0, tls, -1, buffer) };
            assert_eq!((got, &bytes[..9], priority), (Ok(9), &b"bystander"[..], n));
        }
        self.0.unmap();
    }
}

#[test]
fn any_word_may_be_anything_before_a_call() {
    static SEED: AtomicU64 = AtomicU64::new(0);
    static OVER: AtomicBool = AtomicBool::new(false);
    let watcher = watch(&SEED, &OVER);
    let (mut corruptions, mut calls, mut failed, mut taps) = (0u64, 0, 0, 0);
    let fd = fifo();
    for seed in seeds(1000) {
        SEED.store(seed, SeqCst);
        trace("word by word", seed);
        let mut random = Random::new(seed);
        let (maxmsg, msgsize) = SHAPES[seed as usize % SHAPES.len()];
        let map = Map::guarded(maxmsg, msgsize);
        let mut user = User::new(&map, fd);
        let tid = user.tls.tid.load(Relaxed);
        let bystander = Bystander::new(user.tls);
        for _ in 0..random.below(20) {
            user.call(&mut random);
        }
        for _ in 0..10 {
            corruptions += u64::from(corrupt(&map, tid, &mut random));
            for _ in 0..random.below(6) {
                user.call(&mut random);
                SINCE.fetch_add(1, SeqCst);
            }
        }
        // Repair, too, has to come to an end.
        map.header().flags.fetch_and(!F_MIXED_PIDS, Relaxed);
        map.header().lock.store(libc::FUTEX_OWNER_DIED, Relaxed);
        user.call(&mut random);
        if let Ok(section) = super::enter(&map, user.tls) {
            let _ = repair::sweep(&section);
        }
        map.header().lock.store(0, Relaxed);
        user.end();
        map.header().flags.fetch_and(!F_NOTIFY, Relaxed);
        (calls, failed, taps) = (calls + user.calls, failed + user.failed, taps + user.taps);
        bystander.check(user.tls);
        map.unmap();
    }
    OVER.store(true, SeqCst);
    watcher.join().unwrap();
    // SAFETY: ours.
    unsafe { libc::close(fd) };
    assert!(taps > 0, "nobody has seen a message");
    row(
        "any word of a segment is anything",
        "header, slots, index, waiters, ring of taps: extremes, indices in use, random; before a call, blocked ones included",
        &format!("{corruptions} words, {calls} calls"),
        &format!(
            "{failed} calls fail, with a known error; nothing but the segment and the buffer is touched; a queue beside it is as it was"
        ),
        None,
    );
}

#[test]
fn any_word_may_change_during_a_call() {
    static SEED: AtomicU64 = AtomicU64::new(0);
    static OVER: AtomicBool = AtomicBool::new(false);
    let watcher = watch(&SEED, &OVER);
    let (mut corruptions, mut calls, mut failed, mut taps) = (0u64, 0, 0, 0);
    let fd = fifo();
    for seed in seeds(120) {
        SEED.store(seed, SeqCst);
        trace("meanwhile", seed);
        let mut random = Random::new(seed ^ 0x5eed);
        let (maxmsg, msgsize) = SHAPES[seed as usize % SHAPES.len()];
        let map = Map::guarded(maxmsg, msgsize);
        let mut user = User::new(&map, fd);
        let tid = user.tls.tid.load(Relaxed);
        let bystander = Bystander::new(user.tls);
        let stop = AtomicBool::new(false);
        corruptions += std::thread::scope(|scope| {
            let peer = scope.spawn(|| {
                let mut random = Random::new(!seed);
                let mut count = 0;
                while !stop.load(Relaxed) {
                    count += u64::from(corrupt(&map, tid, &mut random));
                    if random.below(4) == 0 {
                        std::thread::yield_now();
                    }
                }
                count
            });
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(60) {
                user.call(&mut random);
                SINCE.fetch_add(1, SeqCst);
            }
            stop.store(true, Relaxed);
            peer.join().unwrap()
        });
        map.header().lock.store(0, Relaxed);
        user.end();
        (calls, failed, taps) = (calls + user.calls, failed + user.failed, taps + user.taps);
        bystander.check(user.tls);
        map.unmap();
    }
    OVER.store(true, SeqCst);
    watcher.join().unwrap();
    // SAFETY: ours.
    unsafe { libc::close(fd) };
    assert!(taps > 0, "nobody has seen a message");
    row(
        "any word of a segment is anything",
        "the same, by a second thread during the calls",
        &format!("{corruptions} words, {calls} calls"),
        &format!(
            "{failed} calls fail, with a known error; nothing but the segment and the buffer is touched; a queue beside it is as it was"
        ),
        None,
    );
}

/// A living thread that is asleep is said to hold the lock, and is never going to let go.
#[test]
fn a_lock_that_nobody_holds_is_given_up() {
    let tls = tls::ready().unwrap();
    let map = Map::guarded(4, 16);
    // SAFETY: a slice is readable.
    let send = || unsafe { try_send(&map, tls, -1, b"x".as_ptr(), 1, 0) };
    let (tx, rx) = std::sync::mpsc::channel::<()>();
    let (tell, told) = std::sync::mpsc::channel();
    let sleeper = std::thread::spawn(move || {
        // SAFETY: no arguments.
        tell.send(unsafe { libc::gettid() } as u32).unwrap();
        let _ = rx.recv();
    });
    let owner = told.recv().unwrap();
    map.header().lock.store(owner, Relaxed);
    let start = Instant::now();
    assert_eq!(send(), Err(Errno::EIO));
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    // The word is as it was, but for the mark of the sleeper: had it been a true owner, nothing had happened.
    assert_eq!(map.header().lock.load(Relaxed) & 0x3fff_ffff, owner);
    map.header().flags.fetch_or(F_MIXED_PIDS, Relaxed);
    let start = Instant::now();
    assert_eq!(send(), Err(Errno::EIO));
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    map.header().flags.fetch_and(!F_MIXED_PIDS, Relaxed);
    map.header().lock.store(0, Relaxed);
    assert_eq!(send(), Ok(()));
    drop(tx);
    sleeper.join().unwrap();
    map.unmap();
    let how = "the lock word names a thread that lives and never lets go";
    row("a lock that nobody holds", how, "2", "EIO, within 5 s; once it is free the queue works", None);
}

/// Who receives, looks or taps is told a priority that there is, whatever a slot or a record says, and when.
#[test]
fn priorities_are_those_that_there_are() {
    let tls = tls::ready().unwrap();
    let fd = fifo();
    let map = Map::guarded(2, 16);
    let slot = map.slot(0).unwrap();
    let (mut tapping, _) = tap::start(&map, tls, fd, &mut []).unwrap();
    // SAFETY: a slice is readable.
    let send = || unsafe { try_send(&map, tls, fd, b"x".as_ptr(), 1, 3) };
    send().unwrap();
    map.record(0).priority.store(1 << 31, Relaxed);
    let (mut message, mut bytes) = (TappedMessage::default(), [0u8; 16]);
    // SAFETY: the buffer has room for the longest message.
    let event = unsafe { tap::next(&map, &mut tapping, &AtomicU32::new(1), &mut message, bytes.as_mut_ptr()) };
    assert!(event == Ok(TapEvent::Message) && message.priority < MQ_PRIO_MAX, "tapped: {message:?}");
    tap::end(&map, tls, &tapping).unwrap();
    slot.priority.store(1 << 31, Relaxed);
    let mut there = [Message::default()];
    assert_eq!(look::messages(&map, tls, &mut there), Ok(1));
    assert!(there[0].priority < MQ_PRIO_MAX, "shown: {}", there[0].priority);
    slot.priority.store(3, Relaxed);
    // What was right when it was looked at may be wrong when it is told.
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Relaxed) {
                slot.priority.store(1 << 31 | 3, Relaxed);
                slot.priority.store(3, Relaxed);
            }
        });
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(300) {
            let mut priority = 0;
            let buffer = Buffer { data: bytes.as_mut_ptr(), priority: &raw mut priority };
            // SAFETY: the buffer has room for the longest message.
            let got = unsafe { try_receive(&map, tls, fd, buffer) };
            if priority >= MQ_PRIO_MAX {
                over.store(true, Relaxed);
                panic!("received: {got:?}, priority {priority}");
            }
            // Damage that was found is no reason to stop here.
            map.header().flags.fetch_and(!F_CORRUPT, Relaxed);
            let _ = send();
        }
        over.store(true, Relaxed);
    });
    map.unmap();
    // SAFETY: ours.
    unsafe { libc::close(fd) };
}

/// A registration is its owner's, and goes with it, whatever a peer says meanwhile whose it is.
#[test]
fn a_registration_does_not_keep_the_mapping() {
    let tls = tls::ready().unwrap();
    let fd = fifo();
    let map = Map::guarded(2, 16);
    let own = &map.header().notify.pid;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Relaxed) {
                own.store(u32::MAX, Relaxed);
                core::hint::spin_loop();
            }
        });
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(300) {
            let what = Registration { kind: libc::SIGEV_SIGNAL, signo: 34, value: 0 };
            let _ = notify::register(&map, tls, fd, what, 1, false);
            notify::closed(&map, tls);
            map.header().flags.fetch_and(!F_NOTIFY, Relaxed);
            if map.pins.load(Relaxed) != 0 {
                over.store(true, Relaxed);
                panic!("it is pinned for good");
            }
        }
        over.store(true, Relaxed);
    });
    map.unmap();
    // SAFETY: ours.
    unsafe { libc::close(fd) };
}

/// Whoever may use a queue may write to its FIFO, and read from it; the packets are put right, and no operation
/// waits for one that does not come.
#[test]
fn foreign_packets_block_nobody() {
    let tls = tls::ready().unwrap();
    let fd = fifo();
    for (packets, size, shrunk) in [(1, 100, false), (2, 1, false), (1, 4096, false), (2, 4096, false), (1, 3, true)] {
        let map = Map::guarded(2, 16);
        // SAFETY: a slice is readable; a buffer of the longest message is writable; no pointers.
        unsafe {
            let mut bytes = [0u8; 16];
            let buffer = Buffer { data: bytes.as_mut_ptr(), priority: core::ptr::null_mut() };
            poll::watch(&map, tls, fd, true).unwrap();
            assert!(libc::fcntl(fd, libc::F_SETPIPE_SZ, if shrunk { 4096 } else { 8192 }) > 0);
            for _ in 0..packets {
                assert_eq!(libc::write(fd, vec![0u8; size].as_ptr().cast(), size), size as isize);
            }
            for _ in 0..4 {
                map.header().tokens.store(0, Relaxed);
                let _ = try_send(&map, tls, fd, b"x".as_ptr(), 1, 0);
                let _ = poll::arm(&map, tls, fd);
                let _ = try_receive(&map, tls, fd, buffer);
                let _ = try_receive(&map, tls, fd, buffer);
            }
            let mut left = 0i32;
            assert_eq!(libc::ioctl(fd, libc::FIONREAD, &raw mut left), 0);
            assert_eq!(left, 0, "{packets} packets of {size}: an empty queue has none");
        }
        map.unmap();
    }
    // SAFETY: ours.
    unsafe { libc::close(fd) };
    let how = "too long, too many; the FIFO made smaller";
    row("packets of strangers in the FIFO", how, "5", "put right; no read or write that blocks", None);
}

/// A peer cuts the segment short, to any length, before an access and between two.
#[test]
fn a_segment_that_was_cut_short_is_an_error() {
    crate::interpose::signal::activate();
    let tls = tls::ready().unwrap();
    let fd = fifo();
    let mut cut = 0;
    for seed in seeds(600) {
        trace("cut short", seed);
        let mut random = Random::new(seed ^ 0xc07);
        let (maxmsg, msgsize) = SHAPES[seed as usize % SHAPES.len()];
        let (map, file) = Map::of_file(maxmsg, msgsize);
        let mut user = User::new(&map, fd);
        let bystander = Bystander::new(tls);
        for _ in 0..random.below(20) {
            user.call(&mut random);
        }
        let len = [0, 1, 100, 4095, 4096, 8192, random.below(1 << 20), random.below(map.byte_len())];
        let len = len[random.below(len.len() as u64) as usize];
        // SAFETY: no pointers.
        assert_eq!(unsafe { libc::ftruncate(file, len as i64) }, 0);
        cut += 1;
        for _ in 0..20 {
            user.call(&mut random);
        }
        user.end();
        if len == 0 {
            // SAFETY: a slice is readable.
            let sent = unsafe { try_send(&map, tls, fd, b"x".as_ptr(), 1, 0) };
            assert_eq!(sent, Err(Errno::EIO), "damaged for good");
        }
        bystander.check(tls);
        map.unmap();
        // SAFETY: ours.
        unsafe { libc::close(file) };
    }
    // SAFETY: ours.
    unsafe { libc::close(fd) };
    let how = "the segment's file, while mapped, to any length";
    row(
        "a segment is cut short",
        how,
        &format!("{cut} times"),
        "EIO, for good; no SIGBUS; a queue beside it is as it was",
        None,
    );
}
