//! Tests of the engine alone, on segments in anonymous shared memory: against a naive model, with
//! the books checked after every few operations; and with processes that die at every instruction
//! of an operation (single-stepped by ptrace(2), then killed), after which the survivors must find
//! everything in order.
//!
//! `MQNS_CRASH_EVERY=1` kills at every instruction instead of at a sample of them.

use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use super::wait::{self, Step, Wait};
use super::{Buffer, enter, notify, repair, try_receive, try_send};
use crate::abi::{Errno, MQ_PRIO_MAX, Result};
use crate::shm::Map;
use crate::shm::layout::{
    F_MIXED_PIDS, F_TAPPED, FILLING, FREE, GROUPS, NONE, READY, TAKEN, W_FREE, W_OUT, W_QUEUED, W_SERVED, WORD_ASLEEP,
};
use crate::sys::futex::Timespec;
use crate::sys::tls::{self, Tls};
use crate::syscall;

// ---------------------------------------------------------------------------------------------
// The books

/// What a quiet queue consists of.
#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
struct Census {
    ready: u32,
    filling: u32,
    taken: u32,
    receivers: u32,
    senders: u32,
    served: u32,
    out: u32,
}

/// Checks that lists, rings, bitmaps and counters agree with the states of slots and waiters, and
/// that each is in exactly one place. Nobody may be inside an operation.
fn census(map: &Map) -> Census {
    let h = map.header();
    assert_eq!(h.lock.load(SeqCst) & 0x7fff_ffff, 0, "the lock is free");
    let high = h.high.load(Relaxed);
    assert!(high <= map.slots());
    let mut place: HashMap<u32, &str> = HashMap::new();
    let mut put = |index: u32, what: &'static str| {
        assert!(index < high, "{what} holds slot {index} of {high}");
        if let Some(other) = place.insert(index, what) {
            panic!("slot {index} is in {other} and in {what}");
        }
    };
    // Free list.
    let mut at = h.free.load(Relaxed);
    while at != NONE {
        put(at, "the free list");
        let slot = map.slot(at).unwrap();
        assert_eq!(slot.state.load(Relaxed), FREE, "slot {at} of the free list");
        at = slot.next.load(Relaxed);
    }
    // Rings.
    let mut census = Census::default();
    let mut bytes = 0;
    let (mut level0, mut level1) = (0u32, [0u64; 8]);
    for g in 0..GROUPS {
        if h.level1[g as usize / 64].load(Relaxed) >> (g % 64) & 1 == 0 {
            continue;
        }
        let bits = map.group(g).bits.load(Relaxed);
        assert_ne!(bits, 0, "group {g} is marked and empty");
        level0 |= 1 << (g / 64);
        level1[g as usize / 64] |= 1 << (g % 64);
        for bit in (0..64).filter(|bit| bits >> bit & 1 == 1) {
            let tail = map.group(g).tails[bit as usize].load(Relaxed);
            let mut at = tail;
            let mut seq = 0;
            loop {
                at = map.slot(at).unwrap().next.load(Relaxed);
                put(at, "a ring");
                let slot = map.slot(at).unwrap();
                assert_eq!(slot.state.load(Relaxed), READY, "slot {at} of a ring");
                assert_eq!(slot.priority.load(Relaxed), g * 64 + bit);
                assert!(slot.seq.load(Relaxed) > seq, "priority {}: ring out of order", g * 64 + bit);
                seq = slot.seq.load(Relaxed);
                census.ready += 1;
                bytes += slot.len.load(Relaxed) as u64;
                if at == tail {
                    break;
                }
            }
        }
    }
    assert_eq!(h.level0.load(Relaxed), level0);
    for (word, expected) in h.level1.iter().zip(level1) {
        assert_eq!(word.load(Relaxed), expected);
    }
    assert_eq!(h.curmsgs.load(Relaxed), census.ready, "curmsgs");
    assert_eq!(h.qsize.load(Relaxed), bytes, "qsize");

    // Waiters.
    let waiter_high = h.waiter_high.load(Relaxed);
    let mut at_waiter: HashMap<u32, &str> = HashMap::new();
    let mut at = h.waiter_free.load(Relaxed);
    while at != NONE {
        assert!(at_waiter.insert(at, "free list").is_none(), "waiter {at} twice");
        let w = map.waiter(at).unwrap();
        assert_eq!(w.state.load(Relaxed), W_FREE, "waiter {at} of the free list");
        at = w.next.load(Relaxed);
    }
    for (kind, line) in [(0, &h.receivers), (1, &h.senders)] {
        let (mut prev, mut rank) = (NONE, i32::MIN);
        let mut at = line.head.load(Relaxed);
        while at != NONE {
            assert!(at_waiter.insert(at, "line").is_none(), "waiter {at} twice");
            let w = map.waiter(at).unwrap();
            assert_eq!(w.state.load(Relaxed), W_QUEUED, "waiter {at} in line");
            assert_eq!(w.kind.load(Relaxed), kind);
            assert_eq!(w.prev.load(Relaxed), prev);
            assert!(w.rank.load(Relaxed) >= rank, "line out of order");
            rank = w.rank.load(Relaxed);
            prev = at;
            at = w.next.load(Relaxed);
            *if kind == 1 { &mut census.senders } else { &mut census.receivers } += 1;
        }
        assert_eq!(line.tail.load(Relaxed), prev, "tail of line {kind}");
    }
    let (mut filling, mut taken) = (Vec::new(), Vec::new());
    for index in 0..waiter_high {
        let w = map.waiter(index).unwrap();
        let (state, kind) = (w.state.load(Relaxed), w.kind.load(Relaxed));
        match state {
            W_FREE | W_QUEUED => assert!(at_waiter.contains_key(&index), "waiter {index}, state {state}, is nowhere"),
            W_SERVED => census.served += 1,
            W_OUT => census.out += 1,
            other => panic!("waiter {index} has state {other}"),
        }
        if matches!(state, W_SERVED | W_OUT) {
            assert!(!at_waiter.contains_key(&index), "waiter {index}, state {state}, is in a list");
        }
        match (state, kind) {
            (W_QUEUED | W_OUT, 1) => filling.push(w.slot.load(Relaxed)),
            (W_SERVED, 0) => taken.push(w.slot.load(Relaxed)),
            _ => {}
        }
    }
    for index in filling {
        put(index, "the hands of a waiting sender");
        assert_eq!(map.slot(index).unwrap().state.load(Relaxed), FILLING);
    }
    // What a dead receiver was given may have been freed already.
    for index in taken {
        if index < high && map.slot(index).unwrap().state.load(Relaxed) == TAKEN {
            put(index, "the hands of a served receiver");
        }
    }
    for index in 0..high {
        match map.slot(index).unwrap().state.load(Relaxed) {
            FILLING => census.filling += 1,
            TAKEN => census.taken += 1,
            _ => assert!(place.contains_key(&index), "slot {index} is nowhere"),
        }
    }
    census
}

/// The lock was used by a thread that is gone: the next who takes it repairs.
fn take_lock_once(map: &Map, tls: &Tls) {
    drop(enter(map, tls).expect("the queue is usable"));
}

// ---------------------------------------------------------------------------------------------
// Against a model

/// Random numbers (xorshift64*), the same in every run.
struct Random(u64);

impl Random {
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

/// Contents of message `id`.
fn content(id: u64, len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..len).map(|i| (id as usize).wrapping_mul(131).wrapping_add(i * 7) as u8).collect();
    for (to, from) in bytes.iter_mut().zip(id.to_le_bytes()) {
        *to = from;
    }
    bytes
}

fn send(map: &Map, tls: &Tls, bytes: &[u8], priority: u32) -> Result<()> {
    // SAFETY: a slice is readable.
    unsafe { try_send(map, tls, -1, bytes.as_ptr(), bytes.len() as u32, priority) }
}

fn receive(map: &Map, tls: &Tls) -> Result<(Vec<u8>, u32)> {
    let mut bytes = vec![0xee; map.msgsize as usize];
    let mut priority = 0;
    // SAFETY: the buffer has room for the longest message.
    let len = unsafe { try_receive(map, tls, -1, Buffer { data: bytes.as_mut_ptr(), priority: &raw mut priority })? };
    assert!(bytes[len..].iter().all(|&b| b == 0xee), "only the message is written");
    bytes.truncate(len);
    Ok((bytes, priority))
}

/// A queue as the manual has it.
#[derive(Default)]
struct Model {
    by_priority: BTreeMap<u32, VecDeque<Vec<u8>>>,
    count: u32,
    bytes: u64,
}

impl Model {
    fn send(&mut self, bytes: Vec<u8>, priority: u32) {
        self.count += 1;
        self.bytes += bytes.len() as u64;
        self.by_priority.entry(priority).or_default().push_back(bytes);
    }

    fn receive(&mut self) -> Option<(Vec<u8>, u32)> {
        let mut last = self.by_priority.last_entry()?;
        let priority = *last.key();
        let bytes = last.get_mut().pop_front().expect("no empty list is kept");
        if last.get().is_empty() {
            last.remove();
        }
        self.count -= 1;
        self.bytes -= bytes.len() as u64;
        Some((bytes, priority))
    }
}

/// `priorities`: how many are used, spread over all; 0 = all.
fn against_model(maxmsg: u32, msgsize: u32, priorities: u32, operations: u32, seed: u64) {
    let tls = tls::ready().unwrap();
    let map = Map::anonymous(maxmsg, msgsize);
    let mut model = Model::default();
    let mut random = Random(seed | 1);
    // Phases of filling and draining reach both ends of deep queues.
    let mut bias = 50;
    for op in 0..operations {
        if op % 2000 == 0 {
            bias = [50, 80, 20, 95, 5][random.below(5) as usize];
        }
        if random.below(100) < bias {
            let len = match random.below(4) {
                0 => 0,
                1 => msgsize as u64,
                2 => random.below(msgsize as u64 + 1),
                _ => random.below(msgsize as u64 + 1).min(40),
            };
            let priority = match priorities {
                0 => random.below(MQ_PRIO_MAX as u64) as u32,
                n => (MQ_PRIO_MAX - 1) / n.max(2).saturating_sub(1) * random.below(n as u64) as u32,
            };
            let bytes = content(op as u64, len as usize);
            let sent = send(&map, tls, &bytes, priority);
            if model.count < maxmsg {
                assert_eq!(sent, Ok(()), "op {op}");
                model.send(bytes, priority);
            } else {
                assert_eq!(sent, Err(Errno::EAGAIN), "op {op}");
            }
        } else {
            let expected = model.receive().ok_or(Errno::EAGAIN);
            assert_eq!(receive(&map, tls), expected, "op {op}");
        }
        assert_eq!(map.header().curmsgs.load(Relaxed), model.count);
        assert_eq!(map.header().qsize.load(Relaxed), model.bytes);
        if op % 997 == 0 {
            let c = census(&map);
            assert_eq!(c, Census { ready: model.count, ..Census::default() });
            if op % 3 == 0 {
                // A rebuild changes nothing.
                map.header().lock.store(0x4000_0000, SeqCst);
                take_lock_once(&map, tls);
                assert_eq!(census(&map), c);
            }
        }
    }
    while let Some(expected) = model.receive() {
        assert_eq!(receive(&map, tls), Ok(expected));
    }
    assert_eq!(census(&map), Census::default());
    map.unmap();
}

#[test]
fn behaves_as_the_model_1_x_1() {
    against_model(1, 1, 0, 20_000, 1);
}

#[test]
fn behaves_as_the_model_10_x_64() {
    against_model(10, 64, 3, 20_000, 2);
    against_model(10, 64, 0, 20_000, 3);
}

#[test]
fn behaves_as_the_model_10_x_8192() {
    against_model(10, 8192, 2, 10_000, 4);
}

#[test]
fn behaves_as_the_model_60_x_16() {
    against_model(60, 16, 5, 20_000, 5);
}

#[test]
fn behaves_as_the_model_65536_x_8() {
    against_model(65536, 8, 0, 60_000, 6);
    against_model(65536, 8, 1, 60_000, 7);
}

#[test]
fn behaves_as_the_model_5_x_100000() {
    against_model(5, 100_000, 2, 4_000, 8);
}

// ---------------------------------------------------------------------------------------------
// Blocking, as cshim/ does it

fn futex_sleep(wait: &Wait) -> i32 {
    let one = [wait.expected as u64, wait.word as u64, 2];
    let timeout = if wait.timed != 0 { &raw const wait.deadline as usize } else { 0 };
    // SAFETY: struct futex_waitv is 24 bytes: value, address, flags and a reserved word.
    match unsafe { syscall!(SYS_futex_waitv, one.as_ptr(), 1, 0, timeout, libc::CLOCK_REALTIME) } {
        Ok(_) => 0,
        Err(errno) => -errno.0,
    }
}

fn new_wait(timeout_ms: Option<u64>) -> Wait {
    // SAFETY: integers and raw pointers only; `init` of the engine fills it in.
    let mut wait: Wait = unsafe { core::mem::zeroed() };
    if let Some(ms) = timeout_ms {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: a local.
        unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &mut now) };
        let ns = now.tv_nsec + ms as i64 * 1_000_000;
        wait.timed = 1;
        wait.deadline = Timespec { sec: now.tv_sec + ns / 1_000_000_000, nsec: ns % 1_000_000_000 };
    }
    wait
}

fn sleep_until_done(tls: &Tls, wait: &mut Wait) -> Result<usize> {
    loop {
        let slept = futex_sleep(wait);
        // SAFETY: `wait` belongs to a call that said Sleep.
        match unsafe { wait::resume(tls, wait, slept)? } {
            Step::Done(n) => return Ok(n),
            Step::Sleep => {}
        }
    }
}

fn send_blocking(map: &Map, tls: &Tls, bytes: &[u8], priority: u32, timeout_ms: Option<u64>) -> Result<()> {
    match send(map, tls, bytes, priority) {
        Err(Errno::EAGAIN) => {}
        other => return other,
    }
    let mut wait = new_wait(timeout_ms);
    // SAFETY: a slice is readable; `wait` outlives the call.
    match unsafe { wait::send_or_wait(map, tls, -1, bytes.as_ptr(), bytes.len() as u32, priority, &mut wait)? } {
        Step::Done(_) => Ok(()),
        Step::Sleep => sleep_until_done(tls, &mut wait).map(|_| ()),
    }
}

fn receive_into(map: &Map, tls: &Tls, bytes: &mut [u8], timeout_ms: Option<u64>) -> Result<usize> {
    let buffer = Buffer { data: bytes.as_mut_ptr(), priority: core::ptr::null_mut() };
    // SAFETY: the buffer has room for the longest message.
    match unsafe { try_receive(map, tls, -1, buffer) } {
        Err(Errno::EAGAIN) => {}
        other => return other,
    }
    let mut wait = new_wait(timeout_ms);
    // SAFETY: as above; `wait` outlives the call.
    match unsafe { wait::receive_or_wait(map, tls, -1, buffer, &mut wait)? } {
        Step::Done(n) => Ok(n),
        Step::Sleep => sleep_until_done(tls, &mut wait),
    }
}

fn receive_blocking(map: &Map, tls: &Tls, timeout_ms: Option<u64>) -> Result<Vec<u8>> {
    let mut bytes = vec![0; map.msgsize as usize];
    let len = receive_into(map, tls, &mut bytes, timeout_ms)?;
    bytes.truncate(len);
    Ok(bytes)
}

/// Waits until so many (receivers, senders) are in line and asleep.
fn await_line(map: &Map, receivers: u32, senders: u32) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let high = map.header().waiter_high.load(SeqCst);
        let mut counts = [0, 0];
        for index in 0..high {
            let w = map.waiter(index).unwrap();
            if w.state.load(SeqCst) == W_QUEUED && w.word.load(SeqCst) & WORD_ASLEEP != 0 {
                counts[w.kind.load(SeqCst) as usize & 1] += 1;
            }
        }
        if counts == [receivers, senders] {
            return;
        }
        assert!(Instant::now() < deadline, "waiting for {receivers}, {senders} in line: {counts:?}");
        std::thread::yield_now();
    }
}

#[test]
fn many_waiters_are_served_in_order() {
    let map = Arc::new(Map::anonymous(4, 64));
    let n = 200;
    let mut threads = Vec::new();
    for i in 0..n {
        let for_thread = map.clone();
        threads.push(std::thread::spawn(move || receive_blocking(&for_thread, tls::ready().unwrap(), None).unwrap()));
        await_line(&map, i + 1, 0);
    }
    let tls = tls::ready().unwrap();
    for i in 0..n {
        send(&map, tls, &content(i as u64, 16), 0).unwrap();
    }
    for (i, thread) in threads.into_iter().enumerate() {
        assert_eq!(thread.join().unwrap(), content(i as u64, 16));
    }
    assert_eq!(census(&map), Census::default());
    map.unmap();
}

#[test]
fn sleeping_senders_come_in_one_for_one() {
    let map = Arc::new(Map::anonymous(2, 64));
    let tls = tls::ready().unwrap();
    for i in 0..2 {
        send(&map, tls, &content(i, 16), 0).unwrap();
    }
    let mut threads = Vec::new();
    for i in 2..50 {
        let for_thread = map.clone();
        threads.push(std::thread::spawn(move || {
            send_blocking(&for_thread, tls::ready().unwrap(), &content(i, 16), 0, None).unwrap()
        }));
        await_line(&map, 0, i as u32 - 1);
    }
    for i in 0..50 {
        assert_eq!(receive(&map, tls).unwrap().0, content(i, 16));
    }
    threads.into_iter().for_each(|t| t.join().unwrap());
    assert_eq!(census(&map), Census::default());
    map.unmap();
}

/// Two receivers are given messages, then cancelled, the later message's first: both go back to
/// their places.
#[test]
fn cancelled_receivers_give_messages_back_in_order() {
    let tls = tls::ready().unwrap();
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [2, 0, 1]] {
        let map = Map::anonymous(8, 64);
        // Leave slots with old numbers behind, in every arrangement.
        for round in 0..3u64 {
            for i in 0..3 + round {
                send(&map, tls, &content(100 + i, 16), 0).unwrap();
            }
            while receive(&map, tls).is_ok() {}
        }
        let mut buffers = vec![[0u8; 64]; 3];
        let mut waits: Vec<Wait> = (0..3).map(|_| new_wait(None)).collect();
        for (wait, buffer) in waits.iter_mut().zip(&mut buffers) {
            let buffer = Buffer { data: buffer.as_mut_ptr(), priority: core::ptr::null_mut() };
            // SAFETY: buffer and wait outlive the call.
            assert!(matches!(unsafe { wait::receive_or_wait(&map, tls, -1, buffer, wait) }, Ok(Step::Sleep)));
        }
        for i in 0..6 {
            send(&map, tls, &content(i, 16), 0).unwrap();
        }
        for at in order {
            // SAFETY: the call said Sleep and has not ended.
            unsafe { wait::cancel(tls, &mut waits[at]) };
        }
        census(&map);
        for i in 0..6 {
            assert_eq!(receive(&map, tls).unwrap().0, content(i, 16), "cancelled in order {order:?}");
        }
        assert_eq!(census(&map), Census::default());
        map.unmap();
    }
}

/// Threads that send, receive, block, time out and give up at random: nothing is lost or doubled.
#[test]
fn threads_lose_nothing() {
    for (maxmsg, msgsize, len) in [(1, 64, 16), (4, 64, 16), (3, 8192, 5000)] {
        let map = Arc::new(Map::anonymous(maxmsg, msgsize));
        let per_thread = 3000u64;
        let senders: Vec<_> = (0..3u64)
            .map(|n| {
                let map = map.clone();
                std::thread::spawn(move || {
                    let tls = tls::ready().unwrap();
                    let mut random = Random(n + 77);
                    for i in 0..per_thread {
                        let bytes = content(n << 32 | i, len);
                        loop {
                            let timeout = if random.below(2) == 0 { None } else { Some(random.below(2)) };
                            match send_blocking(&map, tls, &bytes, n as u32, timeout) {
                                Ok(()) => break,
                                Err(Errno::ETIMEDOUT) => {}
                                Err(errno) => panic!("send: {errno:?}"),
                            }
                        }
                    }
                })
            })
            .collect();
        let stop = Arc::new(AtomicU32::new(0));
        let receivers: Vec<_> = (0..3u64)
            .map(|n| {
                let (map, stop) = (map.clone(), stop.clone());
                std::thread::spawn(move || {
                    let tls = tls::ready().unwrap();
                    let mut random = Random(n + 99);
                    let mut got = Vec::new();
                    while stop.load(SeqCst) == 0 || map.header().curmsgs.load(SeqCst) > 0 {
                        match receive_blocking(&map, tls, Some(random.below(3))) {
                            Ok(bytes) => {
                                let id = u64::from_le_bytes(bytes[..8].try_into().unwrap());
                                assert_eq!(bytes, content(id, len));
                                got.push(id);
                            }
                            Err(Errno::ETIMEDOUT) => {}
                            Err(errno) => panic!("receive: {errno:?}"),
                        }
                    }
                    got
                })
            })
            .collect();
        senders.into_iter().for_each(|t| t.join().unwrap());
        stop.store(1, SeqCst);
        let mut all = Vec::new();
        for thread in receivers {
            let got = thread.join().unwrap();
            for n in 0..3 {
                let of_sender: Vec<u64> = got.iter().filter(|&&id| id >> 32 == n).copied().collect();
                assert!(of_sender.is_sorted(), "order of sender {n}");
            }
            all.extend(got);
        }
        all.sort_unstable();
        let expected: Vec<u64> = (0..3).flat_map(|n| (0..per_thread).map(move |i| n << 32 | i)).collect();
        assert!(all == expected, "{} of {} messages", all.len(), expected.len());
        assert_eq!(census(&map), Census::default());
        map.unmap();
    }
}

// ---------------------------------------------------------------------------------------------
// Blocked calls against a model

/// A blocked call, of which this thread has many at a time.
struct Call {
    wait: Box<Wait>,
    buffer: Vec<u8>,
    priority: Box<u32>,
    /// Its message, if it sends.
    sends: Option<Message>,
    fate: Fate,
    /// A handler has run: nothing of it is in the segment any more.
    let_go: bool,
}

#[derive(Debug, PartialEq, Eq, Clone)]
enum Fate {
    InLine,
    /// A handler has run.
    Out,
    /// Its message is in the queue, or this one was given to it.
    Served(Option<Message>),
}

#[derive(Debug, PartialEq, Eq, Clone)]
struct Message {
    id: u64,
    priority: u32,
    /// Order of entering the queue, or of being given away.
    age: u64,
}

/// What the queue and those who wait at it should look like.
#[derive(Default)]
struct World {
    maxmsg: usize,
    age: u64,
    queue: Vec<Message>,
    /// Calls in line, by key.
    receivers: VecDeque<u64>,
    senders: VecDeque<u64>,
    calls: BTreeMap<u64, Call>,
}

impl World {
    fn give_or_queue(&mut self, message: Message) {
        if let Some(first) = self.receivers.pop_front() {
            self.calls.get_mut(&first).unwrap().fate = Fate::Served(Some(message));
        } else {
            self.queue.push(message);
        }
    }

    fn sent(&mut self, mut message: Message) {
        self.age += 1;
        message.age = self.age;
        self.give_or_queue(message);
    }

    fn take_first(&mut self) -> Message {
        let best = self.queue.iter().max_by_key(|m| (m.priority, u64::MAX - m.age)).expect("not empty").clone();
        self.queue.retain(|m| *m != best);
        if self.queue.len() < self.maxmsg
            && let Some(first) = self.senders.pop_front()
        {
            let call = self.calls.get_mut(&first).unwrap();
            call.fate = Fate::Served(None);
            let mut message = call.sends.clone().unwrap();
            self.age += 1;
            message.age = self.age;
            self.queue.push(message);
        }
        best
    }

    fn leave(&mut self, key: u64) {
        self.receivers.retain(|&k| k != key);
        self.senders.retain(|&k| k != key);
    }

    fn census(&self) -> Census {
        let there = || self.calls.values().filter(|c| !c.let_go);
        let count = |test: &dyn Fn(&Call) -> bool| there().filter(|c| test(c)).count() as u32;
        Census {
            ready: self.queue.len() as u32,
            filling: count(&|c| c.sends.is_some() && !matches!(c.fate, Fate::Served(_))),
            taken: count(&|c| c.sends.is_none() && matches!(c.fate, Fate::Served(_))),
            receivers: self.receivers.len() as u32,
            senders: self.senders.len() as u32,
            served: count(&|c| matches!(c.fate, Fate::Served(_))),
            out: 0,
        }
    }
}

fn blocked_calls_against_model(maxmsg: u32, msgsize: u32, len: usize, operations: u32, seed: u64) {
    let tls = tls::ready().unwrap();
    let map = Map::anonymous(maxmsg, msgsize);
    let mut random = Random(seed);
    let mut world = World { maxmsg: maxmsg as usize, ..World::default() };
    for op in 0..operations {
        let key = op as u64;
        let some = |random: &mut Random, world: &World, test: &dyn Fn(&Call) -> bool| {
            let fit: Vec<u64> = world.calls.iter().filter(|(_, c)| test(c)).map(|(k, _)| *k).collect();
            if fit.is_empty() { None } else { Some(fit[random.below(fit.len() as u64) as usize]) }
        };
        match random.below(20) {
            0..5 => {
                let message = Message { id: key, priority: random.below(3) as u32 * 900, age: 0 };
                let mut call = Call {
                    wait: Box::new(new_wait(None)),
                    buffer: content(key, len),
                    priority: Box::new(0),
                    sends: Some(message.clone()),
                    fate: Fate::InLine,
                    let_go: false,
                };
                // SAFETY: buffer and wait live until the call has ended.
                let step = unsafe {
                    let (msg, wait) = (call.buffer.as_ptr(), &mut call.wait);
                    wait::send_or_wait(&map, tls, -1, msg, len as u32, message.priority, wait)
                };
                if world.queue.len() < maxmsg as usize {
                    assert!(matches!(step, Ok(Step::Done(0))), "op {op}");
                    world.sent(message);
                } else {
                    assert!(matches!(step, Ok(Step::Sleep)), "op {op}");
                    world.calls.insert(key, call);
                    world.senders.push_back(key);
                }
            }
            5..10 => {
                let mut call = Call {
                    wait: Box::new(new_wait(None)),
                    buffer: vec![0; msgsize as usize],
                    priority: Box::new(0),
                    sends: None,
                    fate: Fate::InLine,
                    let_go: false,
                };
                let buffer = Buffer { data: call.buffer.as_mut_ptr(), priority: &raw mut *call.priority };
                // SAFETY: as above.
                let step = unsafe { wait::receive_or_wait(&map, tls, -1, buffer, &mut call.wait) };
                if world.queue.is_empty() {
                    assert!(matches!(step, Ok(Step::Sleep)), "op {op}");
                    world.calls.insert(key, call);
                    world.receivers.push_back(key);
                } else {
                    let message = world.take_first();
                    assert!(matches!(step, Ok(Step::Done(n)) if n == len), "op {op}");
                    assert_eq!(
                        (&call.buffer[..len], *call.priority),
                        (&content(message.id, len)[..], message.priority)
                    );
                }
            }
            // The served go home.
            10..13 => {
                let Some(k) = some(&mut random, &world, &|c| matches!(c.fate, Fate::Served(_))) else { continue };
                let mut call = world.calls.remove(&k).unwrap();
                let slept = [0, -libc::EAGAIN, -libc::EINTR, -libc::ETIMEDOUT][random.below(4) as usize];
                // SAFETY: the call said Sleep and has not ended.
                let step = unsafe { wait::resume(tls, &mut call.wait, slept) };
                match call.fate {
                    Fate::Served(Some(message)) => {
                        assert!(matches!(step, Ok(Step::Done(n)) if n == len), "op {op}");
                        assert_eq!(call.buffer[..len], content(message.id, len)[..]);
                        assert_eq!(*call.priority, message.priority);
                    }
                    _ => assert!(matches!(step, Ok(Step::Done(0))), "op {op}"),
                }
            }
            // Time out, or are interrupted.
            13 => {
                let Some(k) = some(&mut random, &world, &|c| c.fate == Fate::InLine) else { continue };
                world.leave(k);
                let mut call = world.calls.remove(&k).unwrap();
                let errno = if random.below(2) == 0 { Errno::ETIMEDOUT } else { Errno::EINTR };
                // SAFETY: as above.
                assert!(unsafe { wait::resume(tls, &mut call.wait, -errno.0) }.is_err_and(|e| e == errno));
            }
            // Are woken for nothing.
            14 => {
                let Some(k) = some(&mut random, &world, &|c| c.fate == Fate::InLine) else { continue };
                let call = world.calls.get_mut(&k).unwrap();
                // SAFETY: as above.
                assert!(matches!(unsafe { wait::resume(tls, &mut call.wait, 0) }, Ok(Step::Sleep)));
            }
            // A handler runs on the thread of one.
            15 => {
                let Some(k) = some(&mut random, &world, &|_| true) else { continue };
                let call = world.calls.get_mut(&k).unwrap();
                tls.waiter.store(&raw const *call.wait as usize, SeqCst);
                wait::handler_begins(tls, libc::SA_RESTART);
                call.let_go = true;
                if call.fate == Fate::InLine {
                    call.fate = Fate::Out;
                    world.leave(k);
                }
            }
            // And is over: the call is made anew.
            16 => {
                let Some(k) = some(&mut random, &world, &|c| c.fate == Fate::Out) else { continue };
                let mut call = world.calls.remove(&k).unwrap();
                // SAFETY: as above.
                let step = unsafe { wait::resume(tls, &mut call.wait, -libc::EAGAIN) };
                match &call.sends {
                    Some(message) if world.queue.len() < maxmsg as usize => {
                        assert!(matches!(step, Ok(Step::Done(0))), "op {op}");
                        world.sent(message.clone());
                    }
                    None if !world.queue.is_empty() => {
                        assert!(matches!(step, Ok(Step::Done(n)) if n == len), "op {op}");
                        let message = world.take_first();
                        assert_eq!(call.buffer[..len], content(message.id, len)[..]);
                    }
                    sends => {
                        assert!(matches!(step, Ok(Step::Sleep)), "op {op}");
                        if sends.is_some() { &mut world.senders } else { &mut world.receivers }.push_back(k);
                        (call.fate, call.let_go) = (Fate::InLine, false);
                        world.calls.insert(k, call);
                    }
                }
            }
            // Are cancelled.
            17 => {
                let Some(k) = some(&mut random, &world, &|_| true) else { continue };
                let mut call = world.calls.remove(&k).unwrap();
                world.leave(k);
                // SAFETY: as above.
                unsafe { wait::cancel(tls, &mut call.wait) };
                if let Fate::Served(Some(message)) = call.fate
                    && !call.let_go
                {
                    world.give_or_queue(message);
                }
            }
            // Somebody died with the lock.
            18 => map.header().lock.store(0x4000_0000, SeqCst),
            _ => {
                assert_eq!(repair::sweep(&enter(&map, tls).unwrap()), Ok(0), "op {op}: nobody is dead");
            }
        }
        if random.below(8) == 0 {
            take_lock_once(&map, tls);
            assert_eq!(census(&map), world.census(), "op {op}");
        }
    }
    // What this thread pretended to be doing.
    for (_, mut call) in core::mem::take(&mut world.calls) {
        // SAFETY: as above.
        unsafe { wait::cancel(tls, &mut call.wait) };
    }
    tls.waiter.store(0, SeqCst);
    tls.robust().list_op_pending.store(0, SeqCst);
    let left = census(&map);
    assert_eq!(left, Census { ready: left.ready, ..Census::default() });
    map.unmap();
}

#[test]
fn blocked_calls_behave_as_the_model() {
    for seed in 1..6 {
        blocked_calls_against_model(1, 64, 24, 4000, u64::wrapping_mul(seed, 0x9e37_79b9_7f4a_7c15));
        blocked_calls_against_model(3, 64, 24, 4000, u64::wrapping_mul(seed, 0x9e37_79b9_7f4a_7c17));
        blocked_calls_against_model(2, 8192, 5000, 2000, u64::wrapping_mul(seed, 0x9e37_79b9_7f4a_7c19));
    }
}

// ---------------------------------------------------------------------------------------------
// Taps

/// One who taps, by a file of its own.
struct Tapping<'a> {
    map: &'a Map,
    tls: &'static Tls,
    tap: crate::look::Tap,
    before: u64,
    stop: AtomicU32,
    seen: Vec<u64>,
    missed: u64,
    last: (crate::look::TappedMessage, Vec<u8>),
}

impl<'a> Tapping<'a> {
    fn new(map: &'a Map, tls: &'static Tls) -> Tapping<'a> {
        // SAFETY: a NUL-terminated name.
        Tapping::by(map, tls, unsafe { libc::memfd_create(c"mqns-test-tap".as_ptr(), 0) })
    }

    /// By that descriptor.
    fn by(map: &'a Map, tls: &'static Tls, fd: i32) -> Tapping<'a> {
        let (tap, _) = super::tap::start(map, tls, fd, &mut []).unwrap();
        let (stop, before) = (AtomicU32::new(1), map.header().seq.load(Relaxed));
        Tapping { map, tls, tap, before, stop, seen: Vec::new(), missed: 0, last: Default::default() }
    }

    /// The next message, if there is one (or, if it is not to stop, waits for it): its content and priority.
    fn next(&mut self) -> Option<(Vec<u8>, u32)> {
        let mut message = crate::look::TappedMessage::default();
        let mut bytes = vec![0xee; self.map.msgsize as usize + 1];
        // SAFETY: a buffer for the longest message.
        let event = unsafe { super::tap::next(self.map, &mut self.tap, &self.stop, &mut message, bytes.as_mut_ptr()) };
        match event.unwrap() {
            crate::look::TapEvent::Message => {}
            _ => return None,
        }
        // A record that was overwritten while it was copied may have been longer.
        let most = if self.map.header().taps.tail.load(Relaxed) == 0 { message.len } else { self.map.msgsize };
        assert!(bytes[most as usize..].iter().all(|&b| b == 0xee), "only the message is written");
        bytes.truncate(message.len as usize);
        self.missed += message.missed;
        self.last = (message, bytes.clone());
        Some((bytes, message.priority))
    }

    /// All that is there, by numbers as `fill` has them.
    fn read(&mut self) {
        while let Some((bytes, priority)) = self.next() {
            let id = u64::from_le_bytes(bytes[..8].try_into().unwrap());
            let mut expected = vec![0; bytes.len()];
            fill(&mut expected, id, bytes.len());
            assert!(bytes == expected && priority == priority_of(id), "message {id} is torn");
            self.seen.push(id);
        }
    }
}

impl Drop for Tapping<'_> {
    fn drop(&mut self) {
        // SAFETY: ours.
        unsafe { libc::close(self.tap.fd) };
    }
}

fn wait_for_end(tap: &Tapping<'_>) -> u64 {
    super::tap::end(tap.map, tap.tls, &tap.tap).unwrap()
}

#[test]
fn taps_see_what_is_sent() {
    let tls = tls::ready().unwrap();
    let map = Map::anonymous(4, 64);
    let is_tapped = || map.header().flags.load(Relaxed) & F_TAPPED != 0;
    send(&map, tls, b"before", 0).unwrap();
    let mut tap = Tapping::new(&map, tls);
    let file = tap.tap.fd;
    // SAFETY: a NUL-terminated path; descriptions of their own of the same file.
    let open = || unsafe { libc::open(format!("/proc/self/fd/{file}\0").as_ptr().cast(), libc::O_RDWR) };
    let mut other = Tapping::by(&map, tls, open());
    assert_eq!(tap.next(), None);
    for (text, priority) in [(b"one", 1), (b"two", 2)] {
        send(&map, tls, text, priority).unwrap();
    }
    while receive(&map, tls).is_ok() {}
    // Into the hands of one who waits.
    std::thread::scope(|scope| {
        let receiver = scope.spawn(|| receive_blocking(&map, tls::ready().unwrap(), None));
        await_line(&map, 1, 0);
        send(&map, tls, b"given", 3).unwrap();
        assert_eq!(receiver.join().unwrap(), Ok(b"given".to_vec()));
    });
    // For one who waits for room.
    for _ in 0..4 {
        send(&map, tls, b"", 0).unwrap();
    }
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| send_blocking(&map, tls::ready().unwrap(), b"let in", 4, None));
        await_line(&map, 0, 1);
        receive(&map, tls).unwrap();
        assert_eq!(sender.join().unwrap(), Ok(()));
    });
    let text = |text: &str, priority| Some((text.as_bytes().to_vec(), priority));
    for tap in [&mut tap, &mut other] {
        for expected in [text("one", 1), text("two", 2), text("given", 3)] {
            assert_eq!(tap.next(), expected);
        }
        for _ in 0..4 {
            assert_eq!(tap.next(), text("", 0));
        }
        assert_eq!((tap.next(), tap.next(), tap.missed), (text("let in", 4), None, 0));
    }
    assert_eq!(map.header().seq.load(Relaxed), 9, "as many as were sent");
    // It is over with the last.
    assert_eq!(wait_for_end(&tap), 0);
    assert!(is_tapped());
    assert_eq!(wait_for_end(&other), 0);
    assert!(!is_tapped());
    // One that is gone without a word is noticed by those who send.
    while receive(&map, tls).is_ok() {}
    let gone = [Tapping::by(&map, tls, open()), Tapping::by(&map, tls, open())];
    let sender = open();
    let pair = |map: &Map| {
        // SAFETY: a slice is readable.
        unsafe { try_send(map, tls, sender, b"x".as_ptr(), 1, 9) }.unwrap();
        receive(map, tls).unwrap();
    };
    let [first, second] = gone;
    drop(first);
    (0..40).for_each(|_| pair(&map));
    assert!(is_tapped(), "there is another one");
    drop(second);
    (0..40).for_each(|_| pair(&map));
    assert!(!is_tapped());
    // SAFETY: ours.
    unsafe { libc::close(sender) };
    map.unmap();
}

#[test]
fn taps_that_are_too_slow_know_what_they_missed() {
    let tls = tls::ready().unwrap();
    for (msgsize, len) in [(64, 1), (4096, 4096), (4096, 777), (300_000, 300_000)] {
        let map = Map::anonymous(2, msgsize);
        let mut tap = Tapping::new(&map, tls);
        let mut random = Random(len as u64);
        let (mut id, mut seen) = (0u64, 0u64);
        for _ in 0..10 {
            for _ in 0..random.below(if len == 1 { 60_000 } else { 1200 }) {
                id += 1;
                send(&map, tls, &content(id, len.max(8) as usize), 0).unwrap();
                receive(&map, tls).unwrap();
            }
            for _ in 0..random.below(1000) {
                let Some((bytes, _)) = tap.next() else { break };
                seen += 1;
                let number = tap.last.0.number;
                assert_eq!(number, seen + tap.missed);
                assert!(bytes == content(number, len.max(8) as usize), "message {number} is torn");
            }
        }
        while tap.next().is_some() {
            seen += 1;
        }
        assert_eq!((seen + tap.missed, wait_for_end(&tap)), (id, 0), "{msgsize}, {len}");
        assert!(tap.missed > 0, "{msgsize}, {len}: {seen} seen, none missed");
        map.unmap();
    }
}

/// Two who send, two who receive, and one who taps: it accounts for all, once, in order, and nothing is torn.
#[test]
fn taps_lose_nothing_silently() {
    const EACH: u64 = 20_000;
    let map = Map::anonymous(8, 2000);
    let begin = tls::ready().unwrap();
    let mut tap = Tapping::new(&map, begin);
    tap.stop.store(0, SeqCst);
    let (sent, stop) = (AtomicU32::new(0), Arc::new(AtomicU32::new(0)));
    std::thread::scope(|scope| {
        for sender in 0..2u64 {
            let (map, sent) = (&map, &sent);
            scope.spawn(move || {
                let tls = tls::ready().unwrap();
                for i in 0..EACH {
                    let bytes = content(sender << 32 | i, 8 + (i % 1900) as usize);
                    send_blocking(map, tls, &bytes, (i % 3) as u32, None).unwrap();
                }
                if sent.fetch_add(1, SeqCst) == 1 {
                    // One for each who receives.
                    for _ in 0..2 {
                        send_blocking(map, tls, b"", 0, None).unwrap();
                    }
                }
            });
        }
        for _ in 0..2 {
            let map = &map;
            scope.spawn(move || {
                let tls = tls::ready().unwrap();
                while !receive_blocking(map, tls, None).unwrap().is_empty() {}
            });
        }
        let (map, tap, stop) = (&map, &mut tap, stop.clone());
        scope.spawn(move || {
            tls::ready().unwrap();
            let (mut seen, mut empty) = (0u64, 0);
            let mut last = [[None; 3]; 2];
            while seen + tap.missed < 2 * EACH + 2 {
                let (bytes, priority) = tap.next().unwrap();
                seen += 1;
                assert_eq!(tap.last.0.number, seen + tap.missed);
                if bytes.is_empty() {
                    empty += 1;
                    continue;
                }
                let id = u64::from_le_bytes(bytes[..8].try_into().unwrap());
                assert_eq!(bytes, content(id, bytes.len()), "message {id} is torn");
                let last = &mut last[(id >> 32) as usize][priority as usize];
                assert!(*last < Some(id), "{id} after {last:?}");
                *last = Some(id);
            }
            assert!(empty <= 2);
            eprintln!("{seen} seen, {} missed", tap.missed);
            stop.store(1, SeqCst);
        });
        let _ = map;
    });
    assert_eq!(stop.load(SeqCst), 1);
    assert_eq!(wait_for_end(&tap), 0);
    assert_eq!(census(&map), Census::default());
    map.unmap();
}

/// A sender that dies when its message has used up a registration, and before it has told the owner: the next
/// sender tells it, and so does the next who registers.
#[test]
fn who_comes_after_a_killed_sender_tells_whom_it_was_to_notify() {
    let status = Process::fork(|| {
        let told = std::panic::catch_unwind(|| {
            let tls = tls::ready().unwrap();
            let map = Map::anonymous(4, 64);
            let fd = fifo("firing");
            let mut signals = 0u64;
            // SAFETY: sets of signals are plain memory; what is not stored to is not read.
            let (set, none) = unsafe {
                let mut set: libc::sigset_t = core::mem::zeroed();
                libc::sigaddset(&mut set, libc::SIGUSR1);
                libc::sigprocmask(libc::SIG_BLOCK, &set, core::ptr::null_mut());
                (set, core::mem::zeroed())
            };
            let told = || {
                // SAFETY: locals.
                unsafe { libc::sigtimedwait(&set, core::ptr::null_mut(), &none) == libc::SIGUSR1 }
            };
            let what = notify::Registration { kind: libc::SIGEV_SIGNAL, signo: libc::SIGUSR1, value: 0 };
            let killed_sender = || {
                let dead = Process::fork(|| {
                    let tls = tls::ready().unwrap();
                    let section = enter(&map, tls).unwrap();
                    // SAFETY: a slice is readable.
                    let (index, slot) = unsafe { super::fill(&section, b"x".as_ptr(), 1, 0) }.unwrap();
                    let after = super::commit_send(&section, fd, index, slot).unwrap();
                    assert!(after.fire.is_some());
                    drop(section);
                });
                assert_eq!(dead.poll(0), Some(0));
            };
            // SAFETY: a slice is readable.
            let send = || unsafe { try_send(&map, tls, fd, b"y".as_ptr(), 1, 0) };
            let mut buffer = [0u8; 64];
            let to = Buffer { data: buffer.as_mut_ptr(), priority: core::ptr::null_mut() };

            notify::register(&map, tls, fd, what, crate::sys::pid_namespace(), false).unwrap();
            killed_sender();
            assert!(!told(), "the dead have told nobody");
            assert_eq!(super::curmsgs(&map), 1);
            assert_eq!(send(), Ok(()));
            assert!(told());
            assert_eq!(send(), Ok(()));
            assert!(!told(), "once");
            for _ in 0..3 {
                // SAFETY: the buffer is as long as a message can be.
                assert_eq!(unsafe { try_receive(&map, tls, fd, to) }, Ok(1));
            }
            signals += 1;

            // One who finds the queue full, and one who registers.
            for other in 0..2 {
                notify::register(&map, tls, fd, what, crate::sys::pid_namespace(), false).unwrap();
                killed_sender();
                if other == 0 {
                    map.header().curmsgs.store(4, Relaxed);
                    assert_eq!(send(), Err(Errno::EAGAIN));
                    map.header().curmsgs.store(1, Relaxed);
                } else {
                    let next = Process::fork(|| {
                        let tls = tls::ready().unwrap();
                        notify::register(&map, tls, fd, what, crate::sys::pid_namespace(), false).unwrap();
                    });
                    assert_eq!(next.poll(0), Some(0));
                }
                assert!(told(), "{other}");
                // SAFETY: as above.
                assert_eq!(unsafe { try_receive(&map, tls, fd, to) }, Ok(1));
                signals += 1;
            }

            // One who dies before its message is in the queue: the registration stands.
            notify::register(&map, tls, fd, what, crate::sys::pid_namespace(), false).unwrap();
            let dead = Process::fork(|| {
                let tls = tls::ready().unwrap();
                let section = enter(&map, tls).unwrap();
                assert!(notify::take(&section, fd).is_some());
                core::mem::forget(section);
            });
            assert_eq!(dead.poll(0), Some(0));
            assert_eq!(send(), Ok(()));
            assert!(told());
            signals
        });
        // SAFETY: ends the child without running exit handlers of the test.
        unsafe { libc::_exit(if told.is_ok_and(|signals| signals == 3) { 0 } else { 1 }) }
    })
    .poll(0);
    assert_eq!(status, Some(0));
}

/// An owner of the lock that gets hardly any CPU time is waited for: a machine may be as busy as it likes.
#[test]
fn an_owner_that_gets_no_time_is_waited_for() {
    use std::sync::atomic::AtomicBool;
    let map = Map::anonymous(4, 64);
    let (over, held) = (AtomicBool::new(false), AtomicBool::new(false));
    // All but the one who waits share a CPU.
    let share = || {
        // SAFETY: a set of CPUs is plain memory; the calling thread is meant.
        unsafe {
            let mut one: libc::cpu_set_t = core::mem::zeroed();
            libc::sched_getaffinity(0, size_of_val(&one), &mut one);
            let first = (0..libc::CPU_SETSIZE as usize).find(|&cpu| libc::CPU_ISSET(cpu, &one)).unwrap();
            one = core::mem::zeroed();
            libc::CPU_SET(first, &mut one);
            libc::sched_setaffinity(0, size_of_val(&one), &one);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            share();
            let section = enter(&map, tls::ready().unwrap()).unwrap();
            held.store(true, SeqCst);
            // SAFETY: a local; the calling thread is meant.
            unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &libc::sched_param { sched_priority: 0 }) };
            while !over.load(SeqCst) {
                core::hint::spin_loop();
            }
            drop(section);
        });
        while !held.load(SeqCst) {
            std::thread::yield_now();
        }
        let busy = |until: Instant| {
            share();
            while Instant::now() < until {
                core::hint::spin_loop();
            }
        };
        let begun = Instant::now();
        let until = begun + Duration::from_millis(3500);
        for _ in 0..3 {
            scope.spawn(move || busy(until));
        }
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(3400));
            over.store(true, SeqCst);
        });
        // SAFETY: a slice is readable.
        let sent = unsafe { try_send(&map, tls::ready().unwrap(), -1, b"x".as_ptr(), 1, 0) };
        assert_eq!((sent, begun.elapsed() >= Duration::from_millis(3400)), (Ok(()), true));
    });
    map.unmap();
}

/// A sender that dies with its message in the queue and no packet in the FIFO: the next who polls
/// sees the message.
#[test]
fn who_looks_gets_whole_messages_or_none() {
    use super::look::{message, messages};
    use crate::look::Message;
    let tls = tls::ready().unwrap();
    let map = Map::anonymous(4, 64);
    let list = || {
        let mut list = vec![Message::default(); 4];
        let there = messages(&map, tls, &mut list).unwrap();
        list.truncate(there);
        list.sort_by_key(|message| message.number);
        list
    };
    let copy = |what: Message| {
        let mut bytes = vec![0; what.len as usize];
        // SAFETY: as many bytes as the message says that it has.
        unsafe { message(&map, tls, what, bytes.as_mut_ptr()) }.map(|_| bytes)
    };
    assert!(list().is_empty());
    send(&map, tls, b"first", 1).unwrap();
    send(&map, tls, b"second", 2).unwrap();
    let before = list();
    let seen: Vec<_> = before.iter().map(|&what| (copy(what).unwrap(), what.priority)).collect();
    assert_eq!(seen, [(b"first".to_vec(), 1), (b"second".to_vec(), 2)]);
    assert_eq!(receive(&map, tls), Ok((b"second".to_vec(), 2)));
    assert_eq!(copy(before[1]), Err(Errno::ENOENT));
    // In its place, and equal: it is another one.
    send(&map, tls, b"second", 2).unwrap();
    assert_eq!(list()[1].slot, before[1].slot);
    assert_eq!(copy(before[1]), Err(Errno::ENOENT));
    assert_eq!(copy(before[0]), Ok(b"first".to_vec()));
    // What shared memory never said.
    assert_eq!(copy(Message { slot: u32::MAX, ..before[0] }), Err(Errno::EIO));
    // No more than there is room for.
    assert_eq!(messages(&map, tls, &mut []), Ok(2));
    assert_eq!((receive(&map, tls).unwrap().1, receive(&map, tls).unwrap().1), (2, 1));
}

/// So is one whose cgroup is frozen, though it seems to be asleep. (The freezer of cgroup v1 shows it in state D.)
#[test]
fn an_owner_that_is_frozen_is_waited_for() {
    let groups =
        ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(|at| format!("{at}/mqns-test-{}", std::process::id()));
    let Some(group) = groups.iter().find(|group| {
        std::fs::create_dir(group).is_ok()
            && (std::path::Path::new(&format!("{group}/cgroup.freeze")).exists() || std::fs::remove_dir(group).is_err())
    }) else {
        return eprintln!("skipped: no cgroup can be made");
    };
    let set = |file: &str, what: &str| std::fs::write(format!("{group}/{file}"), what).unwrap();
    let map = Map::anonymous(4, 64);
    let owner = Process::fork(|| {
        let section = enter(&map, tls::ready().unwrap()).unwrap();
        while map.header().changed_sec.load(SeqCst) == 0 {
            core::hint::spin_loop();
        }
        drop(section);
    });
    while map.header().lock.load(SeqCst) == 0 {
        std::thread::yield_now();
    }
    set("cgroup.procs", &owner.0.to_string());
    set("cgroup.freeze", "1");
    while !std::fs::read_to_string(format!("{group}/cgroup.events")).unwrap().contains("frozen 1") {
        std::thread::yield_now();
    }
    map.header().changed_sec.store(1, SeqCst);
    let begun = Instant::now();
    let waited = Duration::from_millis(1800);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(waited);
            set("cgroup.freeze", "0");
        });
        // SAFETY: a slice is readable.
        let sent = unsafe { try_send(&map, tls::ready().unwrap(), -1, b"x".as_ptr(), 1, 0) };
        assert_eq!((sent, begun.elapsed() >= waited), (Ok(()), true));
    });
    drop(owner);
    std::fs::remove_dir(group).unwrap();
    map.unmap();
}

/// A word that somebody has written may name a thread of the kernel's: idle ones are no owners, and whoever was found to be none
/// once need not be waited for so long again.
#[test]
fn threads_of_the_kernel_are_no_owners() {
    let state = |tid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{tid}/stat")).unwrap_or_default();
        stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next())
    };
    // Behind the first of them all; in a pid namespace of its own a program sees none.
    let found = |wanted: char| (2..200).find(|&tid| state(tid) == Some(wanted));
    let (Some(idle), Some(asleep)) = (found('I'), found('S')) else {
        return eprintln!("skipped: no threads of the kernel are to be seen");
    };
    let tls = tls::ready().unwrap();
    let map = Map::anonymous(4, 64);
    let lock_named = |tid: u32| {
        map.header().lock.store(tid, SeqCst);
        let begun = Instant::now();
        // SAFETY: a slice is readable.
        (unsafe { try_send(&map, tls, -1, b"x".as_ptr(), 1, 0) }, begun.elapsed())
    };
    assert_eq!(lock_named(idle).0, Ok(()));
    let (first, took) = lock_named(asleep);
    assert_eq!((first, took >= Duration::from_secs(1)), (Err(Errno::EIO), true));
    let (again, took) = lock_named(asleep);
    assert_eq!(again, Err(Errno::EIO));
    assert!(took < Duration::from_secs(1), "{took:?}");
    // Another one may be.
    assert_eq!(lock_named(idle).0, Ok(()));
    assert!(receive(&map, tls).is_ok() && receive(&map, tls).is_ok());
    map.unmap();
}

/// A queue's FIFO.
fn fifo(name: &str) -> i32 {
    let path = std::ffi::CString::new(format!("/dev/shm/mqns-test-fifo-{name}-{}", std::process::id())).unwrap();
    // SAFETY: a NUL-terminated path.
    unsafe {
        assert_eq!(libc::mkfifo(path.as_ptr(), 0o600), 0);
        let fd = libc::open(path.as_ptr(), libc::O_RDWR | libc::O_NONBLOCK);
        assert_eq!(libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK | libc::O_DIRECT), 0);
        libc::unlink(path.as_ptr());
        assert!(fd >= 0);
        fd
    }
}

#[test]
fn poll_sees_what_the_dead_have_sent() {
    let tls = tls::ready().unwrap();
    let map = Map::anonymous(4, 64);
    let fd = fifo("poll");
    let readable = || {
        let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd.
        unsafe { libc::poll(&mut poll, 1, 0) == 1 }
    };
    super::poll::watch(&map, tls, fd, false).unwrap();
    assert!(!readable());
    let send_without_packet = |id: u64| {
        let section = enter(&map, tls).unwrap();
        let (index, slot) = super::store::take_free(&map, 8, tls.tid.load(Relaxed)).unwrap();
        slot.len.store(0, Relaxed);
        slot.priority.store(id as u32, Relaxed);
        super::store::link(&map, index, slot).unwrap();
        drop(section);
    };
    send_without_packet(1);
    super::poll::watch(&map, tls, fd, false).unwrap();
    assert!(readable(), "in spite of a stale number of packets");
    let mut bytes = [0u8; 64];
    let buffer = Buffer { data: bytes.as_mut_ptr(), priority: core::ptr::null_mut() };
    // SAFETY: the buffer has room for the longest message.
    assert_eq!(unsafe { try_receive(&map, tls, fd, buffer) }, Ok(0));
    super::poll::watch(&map, tls, fd, false).unwrap();
    assert!(!readable());
    // Dead before the count is right as well.
    send_without_packet(2);
    map.header().curmsgs.store(0, Relaxed);
    map.header().lock.store(0x4000_0000, SeqCst);
    super::poll::watch(&map, tls, fd, false).unwrap();
    assert!(readable(), "in spite of a stale count");
    census(&map);
    // SAFETY: ours.
    unsafe { libc::close(fd) };
    map.unmap();
}

// ---------------------------------------------------------------------------------------------
// Death at every instruction

/// An operation of a process that is going to die, or of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// Sends message `id`, not blocking.
    Send(u64),
    /// Receives, not blocking.
    Receive,
    /// Sends, blocking, with a timeout in ms.
    SendWait(u64, Option<u64>),
    /// Receives, blocking.
    ReceiveWait(Option<u64>),
    /// Blocks, is cancelled after the first sleep.
    SendCancelled(u64),
    /// See `SendCancelled`.
    ReceiveCancelled,
    /// Blocks; after the first sleep a handler begins, then the call is restarted.
    ReceiveRestarted,
    /// See `ReceiveRestarted`.
    SendRestarted(u64),
}

impl Act {
    fn sends(self) -> Option<u64> {
        match self {
            Act::Send(id) | Act::SendWait(id, _) | Act::SendCancelled(id) | Act::SendRestarted(id) => Some(id),
            _ => None,
        }
    }

    fn is_timed(self) -> bool {
        matches!(self, Act::SendWait(_, Some(_)) | Act::ReceiveWait(Some(_)))
    }

    /// Fills the buffer with what is to be sent.
    fn prepare(self, bytes: &mut [u8], len: usize) {
        if let Some(id) = self.sends() {
            fill(bytes, id, len);
        }
    }

    /// Does it; allocates nothing. Returns the message's id where one was received.
    fn run(self, map: &Map, tls: &Tls, bytes: &mut [u8], len: usize) -> Result<Option<u64>> {
        let ptr = bytes.as_mut_ptr();
        let buffer = Buffer { data: ptr, priority: core::ptr::null_mut() };
        let got = |n: usize, bytes: &[u8]| {
            assert_eq!(n, len);
            Some(u64::from_le_bytes(bytes[..8].try_into().unwrap()))
        };
        match self {
            Act::Send(id) => send(map, tls, &bytes[..len], priority_of(id)).map(|()| None),
            // SAFETY: the buffer has room for the longest message.
            Act::Receive => unsafe { try_receive(map, tls, -1, buffer) }.map(|n| got(n, bytes)),
            Act::SendWait(id, timeout) => {
                send_blocking(map, tls, &bytes[..len], priority_of(id), timeout).map(|()| None)
            }
            Act::ReceiveWait(timeout) => receive_into(map, tls, bytes, timeout).map(|n| got(n, bytes)),
            Act::SendCancelled(_) | Act::SendRestarted(_) | Act::ReceiveCancelled | Act::ReceiveRestarted => {
                let mut wait = new_wait(None);
                // SAFETY: buffers and wait outlive the call.
                let step = unsafe {
                    match self.sends() {
                        Some(id) => wait::send_or_wait(map, tls, -1, ptr, len as u32, priority_of(id), &mut wait)?,
                        None => wait::receive_or_wait(map, tls, -1, buffer, &mut wait)?,
                    }
                };
                if matches!(step, Step::Done(_)) {
                    return Ok(None);
                }
                let slept = futex_sleep(&wait);
                if matches!(self, Act::SendCancelled(_) | Act::ReceiveCancelled) {
                    // SAFETY: the call said Sleep.
                    unsafe { wait::cancel(tls, &mut wait) };
                    return Ok(None);
                }
                wait::handler_begins(tls, libc::SA_RESTART);
                // SAFETY: the call said Sleep.
                match unsafe { wait::resume(tls, &mut wait, slept)? } {
                    Step::Done(_) => Ok(None),
                    Step::Sleep => sleep_until_done(tls, &mut wait).map(|_| None),
                }
            }
        }
    }
}

/// Messages from this number on are sent to wake those who still wait at the end.
const EXTRA: u64 = 90_000;

/// Priorities of messages: a few, by number.
fn priority_of(id: u64) -> u32 {
    if id >= EXTRA { 0 } else { (id / 100) as u32 * 5000 }
}

fn fill(bytes: &mut [u8], id: u64, len: usize) {
    for (i, to) in bytes[..len].iter_mut().enumerate() {
        *to = (id as usize).wrapping_mul(131).wrapping_add(i * 7) as u8;
    }
    bytes[..8].copy_from_slice(&id.to_le_bytes());
}

/// What happens when the victim falls asleep for the first time.
#[derive(Clone, Copy, Debug)]
enum OnSleep {
    Nothing,
    /// The survivor sends.
    Send(u64),
    /// The survivor receives.
    Receive,
    /// It is woken for nothing.
    Wake,
}

/// One situation in which a process dies.
#[derive(Clone)]
struct Scenario {
    name: &'static str,
    maxmsg: u32,
    msgsize: u32,
    /// Length of all messages.
    len: usize,
    /// Messages there at the beginning.
    before: Vec<u64>,
    /// What peers are blocked in, in order of arrival.
    peers: Vec<Act>,
    /// Peers that are stopped (SIGSTOP) once they sleep; processes, not threads.
    stopped: Vec<Act>,
    victim: Act,
    on_sleep: OnSleep,
    foreign: bool,
    /// Somebody taps, and must be able to account for all that was sent.
    tapped: bool,
}

impl Default for Scenario {
    fn default() -> Scenario {
        Scenario {
            name: "",
            maxmsg: 4,
            msgsize: 64,
            len: 24,
            before: Vec::new(),
            peers: Vec::new(),
            stopped: Vec::new(),
            victim: Act::Receive,
            on_sleep: OnSleep::Nothing,
            foreign: false,
            tapped: false,
        }
    }
}

/// A child process; killed and reaped when dropped.
struct Process(i32);

impl Process {
    /// Runs `body` in a child.
    fn fork(body: impl FnOnce()) -> Process {
        // SAFETY: the child runs code that takes no lock another thread may have held.
        match unsafe { libc::fork() } {
            0 => {
                // SAFETY: no memory is passed.
                unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
                body();
                // SAFETY: ends the child without running exit handlers of the test.
                unsafe { libc::_exit(0) }
            }
            pid if pid > 0 => Process(pid),
            _ => panic!("fork: {}", std::io::Error::last_os_error()),
        }
    }

    /// waitpid, returning the status if there is one.
    fn poll(&self, flags: i32) -> Option<i32> {
        let mut status = 0;
        // SAFETY: a local.
        let got = unsafe { libc::waitpid(self.0, &mut status, flags | libc::__WALL) };
        assert!(got >= 0, "waitpid: {}", std::io::Error::last_os_error());
        (got > 0).then_some(status)
    }

    fn state(&self) -> u8 {
        let text = std::fs::read(format!("/proc/{}/stat", self.0)).unwrap_or_default();
        let close = text.iter().rposition(|&b| b == b')').map_or(0, |at| at + 2);
        text.get(close).copied().unwrap_or(b'X')
    }

    /// Whether the next instruction of a stopped tracee is a system call, in which it may fall asleep.
    fn is_at_system_call(&self) -> bool {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the child is stopped and traced by this thread; the results are plain words.
        unsafe {
            let pc = libc::ptrace(libc::PTRACE_PEEKUSER, self.0, core::mem::offset_of!(libc::user_regs_struct, rip), 0);
            libc::ptrace(libc::PTRACE_PEEKTEXT, self.0, pc, 0) & 0xffff == 0x050f
        }
        #[cfg(not(target_arch = "x86_64"))]
        true
    }

    fn signal(&self, sig: i32) {
        // SAFETY: no memory is passed; the child is not reaped yet.
        unsafe { libc::kill(self.0, sig) };
    }

    /// Kills it and waits for its end, without reaping: a zombie is harder to tell from the living.
    fn kill(&self) {
        self.signal(libc::SIGKILL);
        // SAFETY: plain integers; zero is valid.
        let mut info: libc::siginfo_t = unsafe { core::mem::zeroed() };
        // SAFETY: a local.
        unsafe { libc::waitid(libc::P_PID, self.0 as u32, &mut info, libc::WEXITED | libc::WNOWAIT) };
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(libc::SIGKILL);
        let mut status = 0;
        // SAFETY: a local.
        while unsafe { libc::waitpid(self.0, &mut status, libc::__WALL) } == self.0
            && !libc::WIFEXITED(status)
            && !libc::WIFSIGNALED(status)
        {}
    }
}

/// Memory shared with children.
fn shared_page<T>() -> &'static T {
    // SAFETY: a fresh mapping of zeros, which stays.
    unsafe {
        let at = libc::mmap(
            core::ptr::null_mut(),
            size_of::<T>(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        &*at.cast::<T>()
    }
}

/// Runs the scenario with a victim that dies after `steps` instructions, or at its end. Returns after
/// how many.
fn die_after(scenario: &Scenario, steps: u64, report: &mut Vec<String>) -> u64 {
    let tls = tls::ready().unwrap();
    let map: &'static Map = Box::leak(Box::new(Map::anonymous(scenario.maxmsg, scenario.msgsize)));
    let done = run_one(scenario, map, tls, steps, report);
    map.unmap();
    done
}

fn run_one(scenario: &Scenario, map: &'static Map, tls: &'static Tls, steps: u64, report: &mut Vec<String>) -> u64 {
    let len = scenario.len;
    if scenario.foreign {
        map.header().flags.fetch_or(F_MIXED_PIDS, SeqCst);
    }
    let mut sent: Vec<u64> = scenario.before.clone();
    for &id in &scenario.before {
        let mut bytes = vec![0; len];
        fill(&mut bytes, id, len);
        send(map, tls, &bytes, priority_of(id)).unwrap();
    }
    let mut tap = scenario.tapped.then(|| Tapping::new(map, tls));
    let line = |acts: &[Act], kind: bool| acts.iter().filter(|a| a.sends().is_some() == kind).count() as u32;
    // Stopped peers come first.
    let results: &'static [AtomicU32; 1024] = shared_page();
    let mut stopped = Vec::new();
    for (i, &act) in scenario.stopped.iter().enumerate() {
        stopped.push((
            act,
            Process::fork(|| {
                let tls = tls::ready().unwrap();
                let mut bytes = [0u8; 1 << 14];
                act.prepare(&mut bytes, len);
                match act.run(map, tls, &mut bytes, len) {
                    Ok(id) => results[i].store(id.unwrap_or(0) as u32 + 1, SeqCst),
                    Err(errno) => results[i].store(1 << 31 | errno.0 as u32, SeqCst),
                }
            }),
        ));
        let so_far = &scenario.stopped[..i + 1];
        await_line(map, line(so_far, false), line(so_far, true));
        let process = &stopped[i].1;
        while process.state() != b'S' {
            std::thread::yield_now();
        }
    }
    let mut peers = Vec::new();
    for (i, &act) in scenario.peers.iter().enumerate() {
        let (tell, told) = mpsc::channel();
        let map_address = map as *const Map as usize;
        std::thread::spawn(move || {
            let tls = tls::ready().unwrap();
            let mut bytes = vec![0; 1 << 14];
            act.prepare(&mut bytes, len);
            // SAFETY: the mapping stays until every peer has answered (or the test has failed).
            let map = unsafe { &*(map_address as *const Map) };
            let _ = tell.send(act.run(map, tls, &mut bytes, len));
        });
        peers.push((act, told));
        let so_far = &scenario.peers[..i + 1];
        await_line(
            map,
            line(so_far, false) + line(&scenario.stopped, false),
            line(so_far, true) + line(&scenario.stopped, true),
        );
    }
    for (_, process) in &stopped {
        process.signal(libc::SIGSTOP);
        while process.state() != b'T' {
            std::thread::yield_now();
        }
    }

    // The victim, under ptrace from the beginning of its operation.
    let victim = Process::fork(|| {
        let tls = tls::ready().unwrap();
        let mut bytes = [0u8; 1 << 14];
        scenario.victim.prepare(&mut bytes, len);
        // SAFETY: no memory is passed.
        unsafe {
            libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
            libc::raise(libc::SIGSTOP);
        }
        let _ = scenario.victim.run(map, tls, &mut bytes, len);
    });
    let status = victim.poll(0).unwrap();
    assert!(libc::WIFSTOPPED(status) && libc::WSTOPSIG(status) == libc::SIGSTOP);
    let mut on_sleep = scenario.on_sleep;
    let mut taken_before = 0u64;
    let mut slept = false;
    let mut done = 0;
    'steps: for _ in 0..steps {
        let may_sleep = victim.is_at_system_call();
        // SAFETY: the child is stopped and traced by this thread.
        let r = unsafe { libc::ptrace(libc::PTRACE_SINGLESTEP, victim.0, 0, 0) };
        assert_eq!(r, 0);
        let mut polls = 0u32;
        let status = loop {
            if let Some(status) = victim.poll(if may_sleep { libc::WNOHANG } else { 0 }) {
                break status;
            }
            polls += 1;
            std::thread::yield_now();
            if polls.is_multiple_of(64) && victim.state() == b'S' {
                if !slept {
                    slept = true;
                    match core::mem::replace(&mut on_sleep, OnSleep::Nothing) {
                        OnSleep::Nothing => {}
                        OnSleep::Send(id) => {
                            sent.push(id);
                            let mut bytes = vec![0; len];
                            fill(&mut bytes, id, len);
                            send(map, tls, &bytes, priority_of(id)).unwrap();
                        }
                        OnSleep::Receive => {
                            let (bytes, _) = receive(map, tls).unwrap();
                            let id = u64::from_le_bytes(bytes[..8].try_into().unwrap());
                            sent.retain(|&s| s != id);
                            taken_before += 1;
                        }
                        OnSleep::Wake => {
                            for index in 0..map.header().waiter_high.load(SeqCst) {
                                crate::sys::futex::wake(&map.waiter(index).unwrap().word, 9);
                            }
                        }
                    }
                }
                let for_good = slept && matches!(on_sleep, OnSleep::Nothing) && !scenario.victim.is_timed();
                if polls > if for_good { 1_000 } else { 20_000 } {
                    // Asleep for good.
                    break 'steps;
                }
            }
        };
        if !libc::WIFSTOPPED(status) {
            break;
        }
        done += 1;
    }
    victim.kill();

    // The survivors.
    let mut complain = |what: String| report.push(format!("{}, {steps} steps: {what}", scenario.name));
    let begin = Instant::now();
    match enter(map, tls) {
        Ok(section) => drop(section),
        Err(errno) => {
            complain(format!("{errno:?} from the next operation"));
            return done;
        }
    }
    let took = begin.elapsed();
    if took > Duration::from_millis(500) {
        complain(format!("the lock was free after {took:?} only"));
    }
    let may_vanish = scenario.victim.sends();
    if let Some(id) = may_vanish {
        sent.push(id);
    }
    for act in scenario.peers.iter().chain(&scenario.stopped) {
        sent.extend(act.sends());
    }
    let mut got: Vec<u64> = Vec::new();
    let mut pending: Vec<_> = peers.into_iter().map(Some).collect();
    // Stopped peers go on.
    for (_, process) in &stopped {
        process.signal(libc::SIGCONT);
    }
    #[allow(clippy::type_complexity)]
    let collect = |pending: &mut Vec<Option<(Act, mpsc::Receiver<Result<Option<u64>>>)>>,
                   got: &mut Vec<u64>,
                   wait: Duration|
     -> std::result::Result<(), String> {
        for peer in pending.iter_mut() {
            let Some((act, told)) = peer else { continue };
            match told.recv_timeout(wait) {
                Ok(Ok(id)) => {
                    got.extend(id);
                    *peer = None;
                }
                Ok(Err(errno)) => return Err(format!("peer in {act:?} got {errno:?}")),
                Err(_) => {}
            }
        }
        Ok(())
    };
    let drain = |got: &mut Vec<u64>| -> std::result::Result<(), String> {
        let mut last: Option<u64> = None;
        loop {
            match receive(map, tls) {
                Ok((bytes, priority)) => {
                    let id = u64::from_le_bytes(bytes[..8].try_into().unwrap());
                    let mut expected = vec![0; len];
                    fill(&mut expected, id, len);
                    if bytes != expected || priority != priority_of(id) {
                        return Err(format!("message {id} is torn"));
                    }
                    if let Some(last) = last
                        && last / 100 == id / 100
                        && last > id
                    {
                        return Err(format!("{id} came after {last}"));
                    }
                    last = Some(id);
                    got.push(id);
                }
                Err(Errno::EAGAIN) => return Ok(()),
                Err(errno) => return Err(format!("receive: {errno:?}")),
            }
        }
    };
    let settled = (|| {
        drain(&mut got)?;
        // Sleeping senders came in meanwhile; now those who wait for messages.
        let mut rounds = 0;
        let mut extra = EXTRA;
        loop {
            let patience = Duration::from_millis(if rounds == 0 { 3 } else { 300 });
            collect(&mut pending, &mut got, patience)?;
            let until = Instant::now() + patience;
            while Instant::now() < until
                && stopped.iter().enumerate().any(|(i, (act, _))| act.sends().is_none() && results[i].load(SeqCst) == 0)
            {
                std::thread::sleep(Duration::from_millis(1));
            }
            drain(&mut got)?;
            let stopped_waiting = stopped
                .iter()
                .enumerate()
                .filter(|&(i, (act, _))| act.sends().is_none() && results[i].load(SeqCst) == 0)
                .count();
            let waiting = pending.iter().flatten().filter(|(act, _)| act.sends().is_none()).count() + stopped_waiting;
            if waiting == 0 && pending.iter().flatten().count() == 0 {
                break;
            }
            rounds += 1;
            if rounds > 6 {
                return Err(format!(
                    "{waiting} receivers and {:?} stuck",
                    pending.iter().flatten().map(|p| p.0).collect::<Vec<_>>()
                ));
            }
            for _ in 0..waiting.min(scenario.maxmsg as usize) {
                extra += 1;
                sent.push(extra);
                let mut bytes = vec![0; len];
                fill(&mut bytes, extra, len);
                match send(map, tls, &bytes, priority_of(extra)) {
                    Ok(()) => {}
                    Err(Errno::EAGAIN) => {
                        sent.pop();
                    }
                    Err(errno) => return Err(format!("send: {errno:?}")),
                }
            }
        }
        let deadline = Instant::now() + Duration::from_secs(2);
        for (i, (act, _)) in stopped.iter().enumerate() {
            loop {
                match results[i].load(SeqCst) {
                    0 if Instant::now() > deadline => return Err(format!("stopped peer in {act:?} is stuck")),
                    0 => std::thread::sleep(Duration::from_millis(1)),
                    r if r >> 31 == 1 => return Err(format!("stopped peer in {act:?} got errno {}", r & 0xffff)),
                    r => {
                        if act.sends().is_none() {
                            got.push(r as u64 - 1);
                        }
                        break;
                    }
                }
            }
        }
        drain(&mut got)?;
        Ok::<(), String>(())
    })();
    if let Err(what) = settled {
        complain(what);
        return done;
    }
    let mut missing: Vec<u64> = sent.iter().filter(|id| !got.contains(id)).copied().collect();
    let unexpected: Vec<u64> = got.iter().filter(|id| !sent.contains(id)).copied().collect();
    got.sort_unstable();
    if got.windows(2).any(|w| w[0] == w[1]) || !unexpected.is_empty() {
        complain(format!("received twice, or never sent: {got:?}"));
    }
    missing.retain(|&id| Some(id) != may_vanish);
    // What the victim itself had received, or was given: one message that was sent while it lived.
    let allowed = if may_vanish.is_some() { 0 } else { 1 };
    if missing.len() > allowed || missing.iter().any(|&id| id > EXTRA) {
        complain(format!("lost: {missing:?}"));
    }
    // Numbers tell how many have been sent: those that the dead one has received, too, and one that it had sent to a
    // receiver that was stopped, and was about to take back.
    let count = map.header().seq.load(Relaxed) - map.header().retracted.load(Relaxed);
    let received = got.len() as u64 + taken_before;
    let one_more = may_vanish.is_none() || scenario.foreign || !scenario.stopped.is_empty();
    if !(received..=received + u64::from(one_more)).contains(&count) {
        complain(format!("{count} messages are said to have been sent, of which {received} were received"));
    }
    if let Some(tap) = &mut tap {
        tap.read();
        let all = map.header().seq.load(Relaxed) - tap.before;
        let unrecorded = wait_for_end(tap);
        if tap.seen.len() as u64 + tap.missed + unrecorded != all || tap.missed + unrecorded > 1 {
            complain(format!("of {all} messages tapped {:?}, missed {} and {unrecorded}", tap.seen, tap.missed));
        }
        if let Some(id) = tap.seen.iter().find(|id| !sent.contains(id)) {
            complain(format!("tapped {id}, which was not sent"));
        }
        let mut at_once = tap.seen.clone();
        at_once.sort_unstable();
        if map.header().retracted.load(Relaxed) == 0 && at_once.windows(2).any(|w| w[0] == w[1]) {
            complain(format!("tapped twice: {:?}", tap.seen));
        }
    }
    // The books, before and after the victim is reaped and swept up after.
    let books = std::panic::catch_unwind(|| {
        census(map);
        drop(victim);
        repair::sweep(&enter(map, tls).unwrap()).unwrap();
        census(map)
    });
    match books {
        Ok(left) if left == Census::default() => {}
        // Thread ids of several pid namespaces: the dead cannot be told from the living.
        Ok(_) if scenario.foreign => {}
        Ok(left) => complain(format!("left behind: {left:?}")),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "?".into());
            complain(format!("books: {text}"));
        }
    }
    // It holds as much as ever.
    for i in 0..scenario.maxmsg as u64 {
        let mut bytes = vec![0; len];
        fill(&mut bytes, i, len);
        if let Err(errno) = send(map, tls, &bytes, 0) {
            complain(format!("afterwards, send {i}: {errno:?}"));
            break;
        }
    }
    done
}

/// Kills a victim at instructions of the scenario: at each n-th if `MQNS_CRASH_EVERY` is n, else at
/// [`SAMPLE`] of them, spread evenly.
fn every_instruction(scenario: Scenario) {
    let mut report = Vec::new();
    // How many there are: one run to the end.
    let all = die_after(&scenario, u64::MAX, &mut report);
    let every = match std::env::var("MQNS_CRASH_EVERY") {
        Ok(n) => n.parse::<u64>().expect("MQNS_CRASH_EVERY is a number").max(1),
        Err(_) => (all / SAMPLE).max(1),
    };
    let mut steps = 1 + scenario.name.len() as u64 % every;
    let mut deaths = 0;
    while steps <= all && report.len() < 200 {
        die_after(&scenario, steps, &mut report);
        deaths += 1;
        steps += every;
    }
    eprintln!("{}: {deaths} deaths in {all} instructions", scenario.name);
    assert!(report.is_empty(), "{} of {deaths} deaths left disorder:\n{}", report.len(), summary(&report));
    super::hostile::row(
        "killed at an instruction of the engine",
        "ptrace, single steps, in each scenario: sending, receiving, waiting, being served",
        &format!("{deaths} deaths"),
        "no message lost, doubled or torn; nobody hangs; no slot or place in the line is left behind",
        None,
    );
}

/// Deaths in each scenario, unless the environment says otherwise. (Unoptimised code has several times the
/// instructions to step through.)
const SAMPLE: u64 = if cfg!(debug_assertions) { 5 } else { 12 };

/// Runs of equal complaints, shortened.
fn summary(report: &[String]) -> String {
    let mut out = String::new();
    let mut last = "";
    let mut count = 0;
    for line in report {
        let what = line.split_once(": ").map_or("", |(_, what)| what);
        if what == last {
            count += 1;
            continue;
        }
        if count > 0 {
            out += &format!("  (and {count} more after that)\n");
        }
        out += line;
        out += "\n";
        (last, count) = (what, 0);
    }
    if count > 0 {
        out += &format!("  (and {count} more after that)\n");
    }
    out
}

macro_rules! deaths {
    ($($name:ident { $($field:ident: $value:expr),* $(,)? })*) => {
        $(
            #[test]
            fn $name() {
                every_instruction(Scenario { name: stringify!($name), $($field: $value,)* ..Scenario::default() });
            }
        )*
    };
}

const LARGE: u32 = 8192;

deaths! {
    death_in_send_to_an_empty_queue { victim: Act::Send(100) }
    death_in_send { before: vec![100, 101, 200], victim: Act::Send(102) }
    death_in_send_of_a_large_message { msgsize: LARGE, len: 5000, before: vec![100, 200], victim: Act::Send(102) }
    death_in_receive { before: vec![100, 101, 200, 201], victim: Act::Receive }
    death_in_receive_of_the_last { before: vec![100], victim: Act::Receive }
    death_in_receive_of_a_large_message { msgsize: LARGE, len: 5000, before: vec![100, 200], victim: Act::Receive }
    death_in_hand_over { peers: vec![Act::ReceiveWait(None)], victim: Act::Send(100) }
    death_in_hand_over_to_one_of_two {
        peers: vec![Act::ReceiveWait(None), Act::ReceiveWait(None)],
        victim: Act::Send(100),
    }
    death_in_hand_over_of_a_large_message {
        msgsize: LARGE, len: 5000, peers: vec![Act::ReceiveWait(None)], victim: Act::Send(100),
    }
    death_in_receive_that_lets_a_sender_in {
        maxmsg: 2, before: vec![100, 101], peers: vec![Act::SendWait(102, None)], victim: Act::Receive,
    }
    death_in_receive_that_lets_one_of_two_in {
        maxmsg: 2, before: vec![100, 101],
        peers: vec![Act::SendWait(102, None), Act::SendWait(103, None)], victim: Act::Receive,
    }
    death_in_large_receive_that_lets_a_sender_in {
        maxmsg: 2, msgsize: LARGE, len: 5000, before: vec![100, 101],
        peers: vec![Act::SendWait(102, None)], victim: Act::Receive,
    }
    death_in_receive_that_joins_the_line { victim: Act::ReceiveWait(None) }
    death_in_receive_that_joins_the_line_in_front_of_none { peers: vec![Act::ReceiveWait(None)], victim: Act::ReceiveWait(None) }
    death_in_send_that_joins_the_line { maxmsg: 2, before: vec![100, 101], victim: Act::SendWait(102, None) }
    death_in_large_send_that_joins_the_line {
        maxmsg: 2, msgsize: LARGE, len: 5000, before: vec![100, 101], victim: Act::SendWait(102, None),
    }
    death_in_receive_that_is_served { victim: Act::ReceiveWait(None), on_sleep: OnSleep::Send(100) }
    death_in_large_receive_that_is_served {
        msgsize: LARGE, len: 5000, victim: Act::ReceiveWait(None), on_sleep: OnSleep::Send(100),
    }
    death_in_receive_that_is_served_before_another {
        victim: Act::ReceiveWait(None), on_sleep: OnSleep::Send(100),
    }
    death_in_send_that_is_let_in {
        maxmsg: 2, before: vec![100, 101], victim: Act::SendWait(102, None), on_sleep: OnSleep::Receive,
    }
    death_in_receive_that_times_out { victim: Act::ReceiveWait(Some(5)) }
    death_in_send_that_times_out { maxmsg: 2, before: vec![100, 101], victim: Act::SendWait(102, Some(5)) }
    death_in_receive_woken_for_nothing { victim: Act::ReceiveWait(None), on_sleep: OnSleep::Wake }
    death_in_cancelled_receive { victim: Act::ReceiveCancelled, on_sleep: OnSleep::Wake }
    death_in_cancelled_receive_that_was_served { victim: Act::ReceiveCancelled, on_sleep: OnSleep::Send(100) }
    death_in_cancelled_receive_with_another_in_line {
        peers: vec![], victim: Act::ReceiveCancelled, on_sleep: OnSleep::Send(100),
    }
    death_in_cancelled_send { maxmsg: 2, before: vec![100, 101], victim: Act::SendCancelled(102), on_sleep: OnSleep::Wake }
    death_in_restarted_receive { victim: Act::ReceiveRestarted, on_sleep: OnSleep::Wake }
    death_in_restarted_receive_that_was_served { victim: Act::ReceiveRestarted, on_sleep: OnSleep::Send(100) }
    death_in_restarted_send {
        maxmsg: 2, before: vec![100, 101], victim: Act::SendRestarted(102), on_sleep: OnSleep::Wake,
    }
    death_in_send_to_a_stopped_receiver { stopped: vec![Act::ReceiveWait(None)], victim: Act::Send(100) }
    death_in_send_to_a_stopped_receiver_before_another {
        stopped: vec![Act::ReceiveWait(None)], peers: vec![Act::ReceiveWait(None)], victim: Act::Send(100),
    }
    death_in_receive_with_a_stopped_sender {
        maxmsg: 2, before: vec![100, 101], stopped: vec![Act::SendWait(102, None)], victim: Act::Receive,
    }
    death_in_tapped_send { tapped: true, before: vec![100, 101, 200], victim: Act::Send(102) }
    death_in_tapped_send_of_a_large_message {
        tapped: true, msgsize: LARGE, len: 5000, before: vec![100, 200], victim: Act::Send(102),
    }
    death_in_tapped_hand_over { tapped: true, peers: vec![Act::ReceiveWait(None)], victim: Act::Send(100) }
    death_in_tapped_receive_that_lets_a_sender_in {
        tapped: true, maxmsg: 2, before: vec![100, 101], peers: vec![Act::SendWait(102, None)], victim: Act::Receive,
    }
    death_in_tapped_send_to_a_stopped_receiver_before_another {
        tapped: true, stopped: vec![Act::ReceiveWait(None)], peers: vec![Act::ReceiveWait(None)],
        victim: Act::Send(100),
    }
    death_in_tapped_receive_with_a_stopped_sender {
        tapped: true, maxmsg: 2, before: vec![100, 101], stopped: vec![Act::SendWait(102, None)],
        victim: Act::Receive,
    }
    death_among_pid_namespaces_in_send { foreign: true, before: vec![100, 101, 200], victim: Act::Send(102) }
    death_among_pid_namespaces_in_hand_over {
        foreign: true, peers: vec![Act::ReceiveWait(None), Act::ReceiveWait(None)], victim: Act::Send(100),
    }
    death_among_pid_namespaces_in_receive_that_lets_a_sender_in {
        foreign: true, maxmsg: 2, before: vec![100, 101], peers: vec![Act::SendWait(102, None)], victim: Act::Receive,
    }
    death_among_pid_namespaces_in_receive_that_is_served {
        foreign: true, victim: Act::ReceiveWait(None), on_sleep: OnSleep::Send(100),
    }
    death_among_pid_namespaces_in_send_that_is_let_in {
        foreign: true, maxmsg: 2, before: vec![100, 101], victim: Act::SendWait(102, None), on_sleep: OnSleep::Receive,
    }
    death_among_pid_namespaces_in_receive_that_times_out { foreign: true, victim: Act::ReceiveWait(Some(5)) }
    death_among_pid_namespaces_in_cancelled_receive { foreign: true, victim: Act::ReceiveCancelled, on_sleep: OnSleep::Wake }
    death_among_pid_namespaces_in_restarted_receive { foreign: true, victim: Act::ReceiveRestarted, on_sleep: OnSleep::Wake }
}
