//! One who uses the queue, as the library does it for a program.

use crate::machine::atomic::AtomicU32;
use core::sync::atomic::Ordering::Relaxed;

use crate::abi::{Errno, MQ_PRIO_MAX, Result};
use crate::input::Input;
use crate::look::{Message, Sleeper, Tap, TapEvent, TappedMessage};
use crate::machine::kernel::{self, SURROUNDINGS};
use crate::machine::trace;
use crate::peer::{self, Deed};
use crate::queue::notify::{self, Registration};
use crate::queue::wait::{self, Step, Wait};
use crate::queue::{self, Buffer, look, poll, tap, try_receive, try_send};
use crate::shm::Map;
use crate::shm::layout::{F_CORRUPT, F_DEAD, F_MIXED_PIDS};
use crate::sys::tls::Tls;

const CANARY: u8 = 0xee;
/// Bytes behind a buffer that nobody writes to.
const BEHIND: usize = 64;
/// A priority that was not written.
const UNWRITTEN: u32 = u32::MAX;

/// What a call may fail with.
const KNOWN: [Errno; 10] = [
    Errno::EIO,
    Errno::EAGAIN,
    Errno::ENOMEM,
    Errno::ENOSPC,
    Errno::EDEADLK,
    Errno::EBUSY,
    Errno::EINTR,
    Errno::ETIMEDOUT,
    // Of a look at a message.
    Errno::ENOENT,
    // Where the caller's pointers are bad.
    Errno::EFAULT,
];

/// What a received message goes to.
struct Place {
    bytes: Vec<u8>,
    priority: Box<u32>,
}

impl Place {
    fn new(msgsize: u32) -> Place {
        Place { bytes: vec![CANARY; msgsize as usize + BEHIND], priority: Box::new(UNWRITTEN) }
    }

    fn buffer(&mut self) -> Buffer {
        Buffer { data: self.bytes.as_mut_ptr(), priority: &raw mut *self.priority }
    }

    /// No more than a message was written, and it is one that could have been.
    fn check(&self, received: Result<usize>) {
        let longest = self.bytes.len() - BEHIND;
        let len = received.unwrap_or(longest);
        assert!(len <= longest, "a message of {len} bytes");
        assert!(self.bytes[len..].iter().all(|&b| b == CANARY), "more than the message is written");
        assert!(*self.priority == UNWRITTEN || *self.priority < MQ_PRIO_MAX, "priority {}", *self.priority);
        assert!(received.is_err() || *self.priority != UNWRITTEN, "no priority");
    }
}

pub struct User<'a> {
    map: &'a Map,
    tls: &'static Tls,
    fd: i32,
    /// Calls that are blocked, each made from a signal handler that has interrupted the one before.
    blocked: Vec<(Box<Wait>, Option<Place>, Vec<u8>)>,
    tap: Option<Tap>,
    seen: Vec<Message>,
}

impl<'a> User<'a> {
    pub fn new(map: &'a Map, tls: &'static Tls, fd: i32) -> User<'a> {
        User { map, tls, fd, blocked: Vec::new(), tap: None, seen: Vec::new() }
    }

    /// What comes next; false: the segment is to be opened anew.
    pub fn step(&mut self, input: &mut Input<'_>) -> bool {
        let (map, tls) = (self.map, self.tls);
        let tid = tls.tid.load(Relaxed);
        let what = input.below(32);
        if trace::tells_steps() {
            let h = map.header();
            // Not by an access that counts: what is told of a run is not to change it.
            let [flags, lock] = [&h.flags, &h.lock].map(kernel::peek);
            eprintln!("step {what}, flags {flags:#x}, lock {lock:#x}");
        }
        match what {
            24 => peer::does(&Deed::There(peer::place(map, input), peer::value(map, tid, input)), 0),
            25 => kernel::pend(input.byte().into(), Deed::Here(peer::value(map, tid, input))),
            26 => {
                let after = input.byte();
                let deed = Deed::There(peer::place(map, input), peer::value(map, tid, input));
                kernel::pend(after.into(), deed);
            }
            27 => peer::does(&Deed::Same(peer::place(map, input), peer::place(map, input)), 0),
            28 => {
                let (after, deed) = (input.byte(), Deed::Length(peer::length(self.len(), input)));
                if after >= 128 { peer::does(&deed, 0) } else { kernel::pend(after.into(), deed) }
            }
            29 => self.surround(input),
            30 => self.meddle_with_fifo(input),
            31 => match input.below(4) {
                0 => return false,
                // Who has died has left the lock.
                1 => map.header().lock.store(libc::FUTEX_OWNER_DIED, Relaxed),
                // Damage found is for good: there is to be more to look at than that.
                _ => {
                    map.header().flags.fetch_and(!(F_CORRUPT | F_DEAD | F_MIXED_PIDS), Relaxed);
                    map.header().lock.store(0, Relaxed);
                }
            },
            call => {
                if let Err(errno) = self.call(call, input) {
                    if trace::tells_steps() {
                        eprintln!("  {errno:?}");
                    }
                    assert!(KNOWN.contains(&errno), "{errno:?}");
                }
            }
        }
        true
    }

    fn len(&self) -> usize {
        kernel::LEN.load(Relaxed)
    }

    /// What the kernel and other tasks are like from now on.
    fn surround(&self, input: &mut Input<'_>) {
        let (kind, value) = (input.below(5), input.byte());
        SURROUNDINGS.with(|around| match kind {
            0 => {
                let ends = [0, -libc::EINTR, -libc::EAGAIN, -libc::ETIMEDOUT];
                around.sleeps = (0..8).step_by(2).map(|at| ends[usize::from(value >> at & 3)]).collect();
            }
            1 => around.woken = u32::from(value & 3),
            // (Who was stopped is waited for for as long as it is that.)
            2 => around.state = [None, Some(b'S'), Some(b'R'), Some(b'Z'), Some(b'?')][usize::from(value % 5)],
            3 => around.room = u32::from(value % 16),
            _ => around.may_signal = value & 1 == 0,
        });
    }

    /// Whoever may use the queue may write to its FIFO, and read from it, and change its size.
    fn meddle_with_fifo(&self, input: &mut Input<'_>) {
        let bytes = [0u8; 4096];
        let mut one = libc::pollfd { fd: self.fd, events: libc::POLLIN | libc::POLLOUT, revents: 0 };
        let what = input.byte();
        // SAFETY: locals as long as said.
        unsafe {
            libc::poll(&mut one, 1, 0);
            match what {
                0..96 if one.revents & libc::POLLOUT != 0 => {
                    let len = [1, 2, 17, 4096][usize::from(what & 3)];
                    libc::write(self.fd, bytes.as_ptr().cast(), len);
                }
                96..160 if one.revents & libc::POLLIN != 0 => {
                    let mut bytes = bytes;
                    libc::read(self.fd, bytes.as_mut_ptr().cast(), bytes.len());
                }
                160.. => {
                    libc::fcntl(self.fd, libc::F_SETPIPE_SZ, if what & 1 == 0 { 4096 } else { 8192 });
                }
                _ => {}
            }
        }
    }

    fn message(&self, input: &mut Input<'_>) -> (Vec<u8>, u32) {
        let most = self.map.msgsize;
        let len = match input.byte() {
            n @ 0..160 => u32::from(n) % (most + 1),
            n @ 160..200 => most - u32::from(n - 160).min(most),
            n @ 200..230 => (4096 + u32::from(n) - 215).min(most),
            n => u32::from(n - 229) * (most / 26),
        };
        let priority = match input.byte() {
            n @ 0..200 => u32::from(n),
            n => MQ_PRIO_MAX - 1 - u32::from(n - 200) * 64,
        };
        (vec![0x55; len as usize], priority)
    }

    fn call(&mut self, call: u8, input: &mut Input<'_>) -> Result<()> {
        let (map, tls, fd) = (self.map, self.tls, self.fd);
        match call {
            0..4 => {
                let (bytes, priority) = self.message(input);
                // SAFETY: a slice is readable.
                unsafe { try_send(map, tls, fd, bytes.as_ptr(), bytes.len() as u32, priority) }
            }
            4..7 => {
                let mut place = Place::new(map.msgsize);
                let buffer = place.buffer();
                // SAFETY: the buffer has room for the longest message.
                let got = unsafe { try_receive(map, tls, fd, buffer) };
                place.check(got);
                got.map(|_| ())
            }
            7 => {
                // A bad pointer.
                let buffer = Buffer { data: 8 as *mut u8, priority: core::ptr::null_mut() };
                // SAFETY: it may be anything.
                unsafe {
                    if input.bit() {
                        try_send(map, tls, fd, buffer.data, map.msgsize, 0)
                    } else {
                        try_receive(map, tls, fd, buffer).map(|_| ())
                    }
                }
            }
            8 | 9 if self.blocked.len() < 6 => self.block(call == 8, input),
            8..12 => {
                let slept = [0, -512, -libc::EINTR, -libc::ETIMEDOUT][usize::from(input.below(4))];
                self.go_on(slept)
            }
            12 => {
                if let Some((mut wait, ..)) = self.blocked.pop() {
                    // SAFETY: filled in by a call that has blocked, and not finished.
                    unsafe { wait::cancel(tls, &mut wait) }
                }
                Ok(())
            }
            13 => {
                // A handler runs, and returns.
                wait::handler_begins(tls, if input.bit() { libc::SA_RESTART } else { 0 });
                Ok(())
            }
            14 | 15 => self.look(),
            16 => poll::arm(map, tls, fd).map(|_| ()).and(poll::show(map, tls, fd)),
            17 => poll::watch(map, tls, fd, input.bit()).and(poll::reopened(map, tls, fd)),
            18 | 19 => {
                let kinds = [libc::SIGEV_SIGNAL, libc::SIGEV_THREAD, libc::SIGEV_NONE];
                let what = Registration { kind: kinds[usize::from(input.below(3))], signo: 34, value: 7 };
                let pid_ns = if input.bit() { 1 } else { crate::sys::pid_namespace() };
                let ticket = notify::register(map, tls, fd, what, pid_ns, input.bit())?;
                let _ = notify::fate(map, ticket) == notify::Fate::Over;
                notify::current(map, tls, fd).map(|_| ())
            }
            20 => {
                if input.bit() {
                    notify::closed(map, tls);
                }
                let removed = notify::unregister(map, tls, fd);
                let _ = notify::fate(map, input.byte().into()) == notify::Fate::Over;
                removed
            }
            21 => {
                if let Some(tap) = self.tap.take() {
                    return tap::end(map, tls, &tap).map(|_| ());
                }
                let mut there = [Message::default(); 4];
                let (started, count) = tap::start(map, tls, fd, &mut there)?;
                self.tap = Some(started);
                self.check_messages(&there, count);
                Ok(())
            }
            22 => self.tapped(input),
            _ => {
                if queue::is_in_doubt(map) || input.bit() {
                    queue::settle(map, fd);
                }
                notify::settle(fd);
                wait::nonblocking_set(map, tls);
                tap::look_again(map);
                Ok(())
            }
        }
    }

    fn block(&mut self, sends: bool, input: &mut Input<'_>) -> Result<()> {
        let (map, tls, fd) = (self.map, self.tls, self.fd);
        if !self.blocked.is_empty() {
            wait::handler_begins(tls, if input.bit() { libc::SA_RESTART } else { 0 });
        }
        // SAFETY: integers and raw pointers only; `init` of the engine fills it in.
        let mut wait: Box<Wait> = Box::new(unsafe { core::mem::zeroed() });
        let (mut place, mut bytes) = (None, Vec::new());
        let step = if sends {
            let priority;
            (bytes, priority) = self.message(input);
            // SAFETY: the buffer is readable; the `Wait` stays in its box until the call is over.
            unsafe { wait::send_or_wait(map, tls, fd, bytes.as_ptr(), bytes.len() as u32, priority, &mut wait) }
        } else {
            let buffer = place.insert(Place::new(map.msgsize)).buffer();
            // SAFETY: the buffer has room for the longest message, and stays beside the `Wait`.
            unsafe { wait::receive_or_wait(map, tls, fd, buffer, &mut wait) }
        };
        match step {
            Ok(Step::Sleep) => self.blocked.push((wait, place, bytes)),
            Ok(Step::Done(len)) => check(&place, Ok(len)),
            Err(errno) => check(&place, Err(errno)),
        }
        step.map(|_| ())
    }

    /// The last blocked call goes on.
    fn go_on(&mut self, slept: i32) -> Result<()> {
        let Some((wait, ..)) = self.blocked.last_mut() else { return Ok(()) };
        // SAFETY: filled in by a call that has blocked, and not finished.
        let step = unsafe { wait::resume(self.tls, wait, slept) };
        if let Ok(Step::Sleep) = step {
            return Ok(());
        }
        let (_, place, _) = self.blocked.pop().unwrap();
        match step {
            Ok(Step::Done(len)) => check(&place, Ok(len)),
            Err(errno) => check(&place, Err(errno)),
            Ok(Step::Sleep) => {}
        }
        step.map(|_| ())
    }

    /// What those who look into a queue see.
    fn look(&mut self) -> Result<()> {
        let (map, tls, fd) = (self.map, self.tls, self.fd);
        assert!(queue::curmsgs(map) <= map.maxmsg);
        let _ = poll::readiness(map);
        let mut name = [CANARY; 255];
        assert!(map.name(&mut name) <= name.len());
        let mut sleepers = [Sleeper::default(); 4];
        let state = look::state(map, tls, fd, &mut sleepers)?;
        assert!(state.messages <= map.maxmsg, "{} messages", state.messages);
        let mut there = [Message::default(); 4];
        let count = look::messages(map, tls, &mut there)?;
        self.check_messages(&there, count);
        self.seen = there[..count.min(there.len())].to_vec();
        let (receivers, senders) = wait::count(map);
        assert!(u64::from(receivers) + u64::from(senders) <= 8192);
        for message in &self.seen {
            let mut place = Place::new(map.msgsize);
            // SAFETY: the buffer has room for the longest message.
            let got = unsafe { look::message(map, tls, *message, place.bytes.as_mut_ptr()) };
            *place.priority = 0;
            place.check(got);
            assert!(got.is_ok() || KNOWN.contains(&got.unwrap_err()));
        }
        Ok(())
    }

    fn check_messages(&self, there: &[Message], count: usize) {
        assert!(count <= self.map.slots() as usize);
        for message in &there[..count.min(there.len())] {
            assert!(message.len <= self.map.msgsize, "a message of {} bytes is there", message.len);
            assert!(message.priority < MQ_PRIO_MAX, "a message of priority {} is there", message.priority);
        }
    }

    fn tapped(&mut self, input: &mut Input<'_>) -> Result<()> {
        let map = self.map;
        let Some(tapping) = &mut self.tap else { return Ok(()) };
        for _ in 0..input.below(4) {
            let (mut place, mut message) = (Place::new(map.msgsize), TappedMessage::default());
            // SAFETY: the buffer has room for the longest message.
            let event = unsafe { tap::next(map, tapping, &AtomicU32::new(1), &mut message, place.bytes.as_mut_ptr()) };
            *place.priority = message.priority;
            if event == Ok(TapEvent::Message) {
                // What was there before it was overwritten may have been longer.
                place.check(Err(Errno::EAGAIN));
                assert!(message.len <= map.msgsize, "a message of {} bytes was sent", message.len);
            }
            event?;
        }
        Ok(())
    }

    /// All calls end, and the tap.
    pub fn end(&mut self) {
        let mut rounds = 0;
        while !self.blocked.is_empty() {
            let _ = self.go_on(-libc::ETIMEDOUT);
            rounds += 1;
            assert!(rounds < 100, "a call whose time is over goes on sleeping");
        }
        if let Some(tap) = self.tap.take() {
            let _ = tap::end(self.map, self.tls, &tap);
        }
    }
}

fn check(place: &Option<Place>, received: Result<usize>) {
    if let Some(place) = place {
        place.check(received);
    }
}
