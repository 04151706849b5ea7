//! Plans: who does what on a queue, and what may happen meanwhile. Each is run through many schedules, and what has come
//! out of each is checked.

pub mod accounts;
pub mod plans;

use core::sync::atomic::Ordering::SeqCst;
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::machine::explore::{Mode, explore, path};
use crate::machine::kernel::{self, Budget, CANCELLED, Class, FIFO, Hooks, Sleep, Sleeper, fail};

use crate::abi::{Errno, Result};
use crate::queue::notify::{self, Fate, Registration};
use crate::queue::wait::{self, Step, Wait};
use crate::queue::{Buffer, enter, poll, try_receive, try_send};
use crate::shm::Map;
use crate::shm::layout::{
    F_MIXED_PIDS, F_NOTIFY, FIRED, FREE, Header, Layout, Mark, NONE, Slot, TID_MASK, W_FREE, W_OUT, W_QUEUED, W_SERVED,
    WAITERS, Waiter,
};
use crate::sys::futex::Timespec;
use crate::sys::tls::Tls;

/// What a thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Sends this message, of this priority, not blocking.
    Send(u32, u32),
    /// Receives, not blocking.
    Receive,
    /// Sends, blocking.
    SendWait(u32, u32, Sleep),
    /// Receives, blocking.
    ReceiveWait(Sleep),
    /// Polls until there is a message, and receives it.
    Poll,
    /// The same by a set of the kernel's: packets follow the queue.
    Watch,
    /// Registers for notification, as SIGEV_THREAD's helper does, and waits for it.
    Notify,
}

use Act::{Notify, Poll, Receive, ReceiveWait, Send, SendWait, Watch};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Sent,
    Got(u32),
    /// The queue was full, or empty.
    Again,
    /// It has not happened, and need not have been possible.
    Ended(Errno),
    Cancelled,
    /// Notified.
    Told,
    /// Its thread was killed in it.
    Killed,
}

/// A call, and what has become of it.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub task: usize,
    act: Act,
    began: u64,
    ended: u64,
    pub outcome: Outcome,
}

/// A situation.
#[derive(Clone)]
pub struct Plan {
    pub name: &'static str,
    pub maxmsg: u32,
    /// Length of messages.
    pub len: u32,
    /// Messages in the queue at the beginning: their priority is 0, their numbers 1, 2, ….
    pub before: u32,
    /// Threads that come first, one after the other, each until it sleeps or ends.
    pub first: Vec<(i32, Vec<Act>)>,
    /// Threads that run at once.
    pub then: Vec<Vec<Act>>,
    pub budget: Budget,
    /// Handlers restart calls.
    pub restarts: bool,
    /// Several pid namespaces use the queue.
    pub foreign: bool,
    /// Nobody is left asleep on a free lock, not even by one who is killed.
    pub prompt: bool,
    /// What else must hold, if nobody is killed.
    pub expect: fn(&[Call]) -> std::result::Result<(), String>,
    /// How far a search goes.
    pub preemptions: u32,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            name: "",
            maxmsg: 2,
            len: 8,
            before: 0,
            first: Vec::new(),
            then: Vec::new(),
            budget: Budget::default(),
            restarts: false,
            foreign: false,
            prompt: false,
            expect: |_| Ok(()),
            preemptions: 2,
        }
    }
}

/// What was found.
pub struct Failure {
    pub what: String,
    /// In which schedule.
    pub schedule: usize,
    pub path: Vec<u16>,
    pub preemptions: u32,
}

#[derive(Default, Clone, Copy)]
pub struct Summary {
    pub schedules: usize,
    /// In how many somebody was killed; in how many somebody waited for the lock until its time was over, for an owner
    /// whose death the kernel does not announce, or for a wake that one who was killed had got.
    pub killed: usize,
    pub unannounced: usize,
    pub swallowed: usize,
}

#[derive(Default)]
struct Scene {
    // Whose addresses stay when there are more.
    #[allow(clippy::vec_box)]
    tls: Vec<Box<Tls>>,
    calls: Vec<Call>,
    restarts: bool,
    waiters_at: usize,
    slots: (usize, usize, u32),
    base: usize,
    /// There was no message when somebody had registered.
    registered_when_empty: bool,
}

thread_local! {
    static SCENE: RefCell<Scene> = RefCell::default();
    static SUMMARY: Cell<Summary> = Cell::default();
    /// Of the plan that is being checked.
    static SEGMENT: RefCell<Option<Segment>> = const { RefCell::new(None) };
}

fn tls_of(task: usize) -> &'static Tls {
    // SAFETY: the boxes live until the next run begins, when nobody of this one is left.
    SCENE.with_borrow(|scene| unsafe { &*core::ptr::from_ref::<Tls>(&scene.tls[task]) })
}

// ---------------------------------------------------------------------------------------------
// What is where

const FIRED_AT: usize = core::mem::offset_of!(Header, notify.fired);

fn classify(offset: usize) -> Class {
    let (waiters_at, (slots_at, spare_at, maxmsg), base) = SCENE.with_borrow(|s| (s.waiters_at, s.slots, s.base));
    macro_rules! open {
        ($($field:ident $(. $inner:ident)?),*) => {
            $(if offset == core::mem::offset_of!(Header, $field $(. $inner)?) {
                return Class::Open(stringify!($field));
            })*
        };
    }
    if offset < size_of::<Header>() {
        open!(
            lock,
            flags,
            curmsgs,
            receivers.head,
            senders.head,
            sender_cpu,
            receiver_cpu,
            tokens,
            teller,
            firer,
            notify.word,
            notify.ticket,
            notify.pid
        );
        if (FIRED_AT..FIRED_AT + FIRED * size_of::<Mark>()).contains(&offset) {
            return Class::Open("fired");
        }
        return Class::Locked;
    }
    // SAFETY: words of the segment.
    let word = |at: usize| unsafe { &*((base + at) as *const core::sync::atomic::AtomicU32) }.load(SeqCst);
    if (waiters_at..waiters_at + WAITERS as usize * size_of::<Waiter>()).contains(&offset) {
        let inside = (offset - waiters_at) % size_of::<Waiter>();
        let record = offset - inside;
        return match inside {
            _ if inside == core::mem::offset_of!(Waiter, word) => Class::Open("word"),
            _ if inside == core::mem::offset_of!(Waiter, state) => Class::Open("state"),
            _ if inside == core::mem::offset_of!(Waiter, kind) => {
                Class::Kept(word(record + core::mem::offset_of!(Waiter, tid)))
            }
            _ => Class::Locked,
        };
    }
    let slot = |from: usize, len: usize| (from..from + len * size_of::<Slot>()).contains(&offset).then_some(from);
    if let Some(from) = slot(slots_at, maxmsg as usize).or_else(|| slot(spare_at, 1024)) {
        let inside = (offset - from) % size_of::<Slot>();
        if inside == core::mem::offset_of!(Slot, holder) {
            return Class::Open("holder");
        }
        if inside == core::mem::offset_of!(Slot, len) || inside == core::mem::offset_of!(Slot, priority) {
            return Class::Kept(word(offset - inside + core::mem::offset_of!(Slot, holder)) & TID_MASK);
        }
    }
    Class::Locked
}

fn takes_signals() -> bool {
    let tls = tls_of(kernel::current());
    tls.crit.load(SeqCst) == 0 && tls.waiter.load(SeqCst) != 0
}

fn handler() -> bool {
    let restarts = SCENE.with_borrow(|scene| scene.restarts);
    wait::handler_begins(tls_of(kernel::current()), if restarts { libc::SA_RESTART } else { 0 });
    restarts
}

// ---------------------------------------------------------------------------------------------
// Calls, as `cshim/` makes them

fn content(id: u32, len: u32) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..len).map(|at| (id as u8).wrapping_mul(31).wrapping_add(at as u8)).collect();
    bytes[..4].copy_from_slice(&id.to_ne_bytes());
    bytes
}

fn sleep_until_done(tls: &Tls, wait: &mut Wait, sleep: Sleep) -> Result<Option<usize>> {
    loop {
        // SAFETY: the word that the engine has named.
        let seen = unsafe { &*wait.word }.load(crate::machine::atomic::Ordering::Relaxed);
        let slept = if seen == wait.expected {
            kernel::futex_sleep(wait.word as usize, wait.expected, Sleeper { sleep, cancellable: true })
        } else {
            -libc::EAGAIN
        };
        if slept == CANCELLED {
            // SAFETY: the call said Sleep.
            unsafe { wait::cancel(tls, wait) };
            return Ok(None);
        }
        // SAFETY: as above.
        match unsafe { wait::resume(tls, wait, slept)? } {
            Step::Done(n) => return Ok(Some(n)),
            Step::Sleep => {}
        }
    }
}

fn run(act: Act, map: &Map, tls: &Tls, len: u32, fd: i32) -> Outcome {
    let mut bytes = vec![0u8; map.msgsize as usize];
    if let Send(id, _) | SendWait(id, ..) = act {
        bytes[..len as usize].copy_from_slice(&content(id, len));
    }
    let message = bytes.as_mut_ptr();
    let buffer = Buffer { data: message, priority: core::ptr::null_mut() };
    // SAFETY: integers and raw pointers only; the engine fills it in.
    let mut wait: Wait = unsafe { core::mem::zeroed() };
    wait.deadline = Timespec { sec: 0, nsec: 0 };
    // SAFETY: buffer and wait outlive the calls.
    let result = unsafe {
        match act {
            Send(_, priority) => try_send(map, tls, fd, message, len, priority).map(|()| Some(0)),
            Receive => try_receive(map, tls, fd, buffer).map(Some),
            SendWait(_, priority, sleep) => match try_send(map, tls, fd, message, len, priority) {
                Err(Errno::EAGAIN) => match wait::send_or_wait(map, tls, fd, message, len, priority, &mut wait) {
                    Ok(Step::Sleep) => sleep_until_done(tls, &mut wait, sleep),
                    Ok(Step::Done(n)) => Ok(Some(n)),
                    Err(errno) => Err(errno),
                },
                other => other.map(|()| Some(0)),
            },
            ReceiveWait(sleep) => match try_receive(map, tls, fd, buffer) {
                Err(Errno::EAGAIN) => match wait::receive_or_wait(map, tls, fd, buffer, &mut wait) {
                    Ok(Step::Sleep) => sleep_until_done(tls, &mut wait, sleep),
                    Ok(Step::Done(n)) => Ok(Some(n)),
                    Err(errno) => Err(errno),
                },
                other => other.map(Some),
            },
            Notify => {
                let what = Registration { kind: libc::SIGEV_THREAD, signo: 0, value: 0 };
                notify::register(map, tls, fd, what, 1, false).map(|ticket| {
                    let h = map.header();
                    kernel::peek(|| {
                        // (Whoever has the lock may be about to die.)
                        let empty = h.lock.load(SeqCst) == 0 && h.curmsgs.load(SeqCst) == 0;
                        SCENE.with_borrow_mut(|scene| scene.registered_when_empty = empty);
                    });
                    loop {
                        match notify::fate(map, ticket) {
                            Fate::Waits(value) => kernel::wait_for(&map.header().notify.word, value),
                            Fate::Fired => break Some(0),
                            Fate::Over => fail("the registration is gone".into()),
                        }
                    }
                })
            }
            Poll | Watch => loop {
                let slept = if act == Watch {
                    poll::watch(map, tls, fd, false).map(|()| true)
                } else {
                    poll::arm(map, tls, fd)
                };
                match slept {
                    Ok(true) => kernel::poll_fifo(),
                    Ok(false) => {}
                    Err(errno) => break Err(errno),
                }
                match try_receive(map, tls, fd, buffer) {
                    Err(Errno::EAGAIN) => {}
                    other => break other.map(Some),
                }
            },
        }
    };
    match (act, result) {
        (_, Ok(None)) => Outcome::Cancelled,
        (_, Err(Errno::EAGAIN)) | (Notify, Err(Errno::EBUSY)) => Outcome::Again,
        (_, Err(errno @ (Errno::ETIMEDOUT | Errno::EINTR))) => Outcome::Ended(errno),
        (_, Err(errno)) => fail(format!("{act:?} fails with {errno:?}")),
        (Send(..) | SendWait(..), Ok(Some(_))) => Outcome::Sent,
        (Notify, Ok(Some(_))) => Outcome::Told,
        (_, Ok(Some(n))) => {
            let id = u32::from_ne_bytes(bytes[..4].try_into().expect("four bytes"));
            if n != len as usize || bytes[..n] != content(id, len) {
                fail(format!("{act:?}: a torn message, {:?}", &bytes[..n]));
            }
            Outcome::Got(id)
        }
    }
}

fn call(task: usize, act: Act, map: &Map, len: u32, fd: i32) -> Outcome {
    let began = kernel::now();
    let at = SCENE.with_borrow_mut(|scene| {
        scene.calls.push(Call { task, act, began, ended: u64::MAX, outcome: Outcome::Killed });
        scene.calls.len() - 1
    });
    let outcome = run(act, map, tls_of(task), len, fd);
    let ended = kernel::now();
    SCENE.with_borrow_mut(|scene| {
        scene.calls[at].outcome = outcome;
        scene.calls[at].ended = ended;
    });
    outcome
}

// ---------------------------------------------------------------------------------------------
// A run

fn add_task(nice: i32) -> usize {
    let tls = Box::new(Tls::blank());
    let robust = &raw const tls.own_robust as usize;
    tls.robust.store(robust, SeqCst);
    let (at, tid) = kernel::add_task(robust, nice);
    tls.tid.store(tid, SeqCst);
    SCENE.with_borrow_mut(|scene| scene.tls.push(tls));
    at
}

/// A segment for one run after the other, and what its pages are like when nobody has used it.
struct Segment {
    map: &'static Map,
    layout: Layout,
    pages: Vec<(usize, Vec<u8>)>,
}

impl Segment {
    fn new(maxmsg: u32, msgsize: u32) -> Segment {
        let layout = Layout::new(maxmsg, msgsize);
        // SAFETY: a name and flags; then a length.
        let fd = unsafe {
            let fd = libc::memfd_create(c"mqns-model".as_ptr(), 0);
            assert!(fd >= 0 && libc::ftruncate(fd, layout.len as i64) == 0);
            fd
        };
        let map: &'static Map = Box::leak(Box::new(Map::create(fd, &layout, 1).expect("room for a segment")));
        // SAFETY: ours.
        unsafe { libc::close(fd) };
        let base = map.header() as *const Header as usize;
        // Runs use the first few of everything, and begin with pages that are there.
        let places = [0, layout.slots_at, layout.groups_at, layout.waiters_at, layout.spare_slots_at];
        let mut pages: Vec<usize> =
            places.iter().flat_map(|at| [*at as usize / 4096, *at as usize / 4096 + 1]).collect();
        pages.sort_unstable();
        pages.dedup();
        let pages = pages
            .into_iter()
            // SAFETY: a page of the mapping.
            .map(|page| (page * 4096, unsafe { *((base + page * 4096) as *const [u8; 4096]) }.to_vec()))
            .collect();
        Segment { map, layout, pages }
    }

    fn reset(&self) {
        let base = self.map.header() as *const Header as usize;
        for (at, bytes) in &self.pages {
            // SAFETY: a page of the mapping, which nobody uses now.
            unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), (base + at) as *mut u8, bytes.len()) };
        }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.map.unmap();
    }
}

/// Runs the plan through one schedule.
fn perform(plan: &Plan) {
    kernel::shut_down();
    let msgsize = plan.len.max(16);
    let (map, layout) = SEGMENT.with_borrow_mut(|segment| {
        let segment = segment.get_or_insert_with(|| Segment::new(plan.maxmsg, msgsize));
        segment.reset();
        (segment.map, segment.layout)
    });
    let h = map.header();
    let base = h as *const Header as usize;
    SCENE.with_borrow_mut(|scene| {
        *scene = Scene {
            restarts: plan.restarts,
            waiters_at: layout.waiters_at as usize,
            slots: (layout.slots_at as usize, layout.spare_slots_at as usize, plan.maxmsg),
            base,
            ..Scene::default()
        }
    });
    let hooks = Hooks { classify, takes_signals, handler };
    kernel::boot(base..base + layout.len as usize, h.lock.as_ptr() as usize, hooks, Budget::default());
    add_task(0);
    if plan.foreign {
        h.flags.store(F_MIXED_PIDS, SeqCst);
    }
    let polled = plan.first.iter().map(|(_, acts)| acts).chain(&plan.then).flatten();
    let fd = if polled.into_iter().any(|act| matches!(act, Poll | Watch | Notify)) { FIFO } else { -1 };
    kernel::start();
    for id in 1..=plan.before {
        call(0, Send(id, 0), map, plan.len, fd);
    }
    let len = plan.len;
    let spawn = |nice: i32, acts: &Vec<Act>| {
        let task = add_task(nice);
        let acts = acts.clone();
        shuttle::thread::spawn(move || {
            kernel::live(task, || {
                for act in acts {
                    call(task, act, map, len, fd);
                }
            });
        });
        task
    };
    for (nice, acts) in &plan.first {
        kernel::begin(spawn(*nice, acts));
        kernel::look_on();
    }
    let then: Vec<usize> = plan.then.iter().map(|acts| spawn(0, acts)).collect();
    kernel::set_budget(plan.budget);
    then.iter().for_each(|&task| kernel::begin(task));
    kernel::look_on();
    kernel::set_budget(Budget::default());
    let tasks = 1..1 + plan.first.len() + plan.then.len();
    let killed = kernel::killed() > 0;
    wind_up(map, tasks, killed, len, fd);
    let mut calls = SCENE.with_borrow(|scene| scene.calls.clone());
    if plan.budget.kills == 1 {
        // What the dead do they have done before they are gone. (With two, one may be served by the repair after the other.)
        for call in calls.iter_mut().filter(|call| call.outcome == Outcome::Killed) {
            call.ended = kernel::gone_at(call.task);
        }
    }
    // What one of another pid namespace had in hand when it died with the lock nobody can tell from what the living have.
    check_books(map, killed, if plan.foreign { kernel::killed() } else { 0 });
    check_told(&calls);
    check_calls(&calls, plan);
    let late = kernel::late();
    if late[0] > 0 && !killed || late[1] > 0 && (!killed || plan.prompt) {
        fail("a sleeper on the lock was woken by time alone".into());
    }
    if !killed && let Err(what) = (plan.expect)(&calls) {
        fail(what);
    }
    let mut summary = SUMMARY.get();
    summary.killed += usize::from(killed);
    summary.unannounced += usize::from(late[0] > 0);
    summary.swallowed += usize::from(late[1] > 0);
    SUMMARY.set(summary);
    kernel::shut_down();
}

/// Nobody runs: nobody sleeps whom somebody ought to have woken.
fn check_sleepers(map: &Map, tasks: core::ops::Range<usize>) {
    let h = map.header();
    let waiter = |key: usize| {
        (0..h.waiter_high.load(SeqCst)).find(|&at| map.waiter(at).is_ok_and(|w| w.word.as_ptr() as usize == key))
    };
    kernel::peek(|| {
        for task in tasks {
            let served = |at: u32| {
                map.waiter(at)
                    .is_ok_and(|w| w.state.load(SeqCst) == W_SERVED && w.tid.load(SeqCst) == kernel::tid(task))
            };
            if kernel::is_stopped(task) && (0..h.waiter_high.load(SeqCst)).any(served) {
                fail(format!("task {task} was served while it was stopped"));
            }
            let Some(key) = kernel::sleeps_on(task) else { continue };
            let curmsgs = h.curmsgs.load(SeqCst);
            if kernel::is_polling(task) {
                if curmsgs > 0 {
                    fail(format!("task {task} polls beside a message"));
                }
                continue;
            }
            if key == h.notify.word.as_ptr() as usize {
                let stands = h.flags.load(SeqCst) & F_NOTIFY != 0;
                if !stands || curmsgs > 0 && SCENE.with_borrow(|scene| scene.registered_when_empty) {
                    fail(format!("task {task} is not notified of a message"));
                }
                continue;
            }
            let Some(w) = waiter(key).and_then(|at| map.waiter(at).ok()) else {
                fail(format!("task {task} sleeps on the lock, which is {:#x}", h.lock.load(SeqCst)));
            };
            let (word, state, sends) = (w.word.load(SeqCst), w.state.load(SeqCst), w.kind.load(SeqCst) == 1);
            let what = match state {
                _ if word == 0 => "though it was served",
                W_SERVED => "marked as served",
                W_OUT => "out of the line",
                W_QUEUED if sends && curmsgs < map.maxmsg => "though there is room for its message",
                W_QUEUED if !sends && curmsgs > 0 => "though there is a message",
                W_QUEUED => continue,
                _ => "in a record that is not in use",
            };
            fail(format!("task {task} sleeps {what}: word {word:#x}, {curmsgs} messages"));
        }
    });
}

/// After everything: whoever still sleeps is woken by what it waits for, and the queue is emptied.
fn wind_up(map: &Map, tasks: core::ops::Range<usize>, killed: bool, len: u32, fd: i32) {
    if killed {
        // Somebody comes to the queue, and finds out.
        drop(enter(map, tls_of(0)).unwrap_or_else(|errno| fail(format!("the lock: {errno:?}"))));
        kernel::look_on();
    }
    let notified = map.header().notify.word.as_ptr() as usize;
    let is_to_be_told = |task| kernel::is_polling(task) || kernel::sleeps_on(task) == Some(notified);
    if killed && tasks.clone().any(is_to_be_told) {
        // Who dies between its message and telling those who poll, or are registered, leaves that to the next who does
        // anything.
        call(0, Send(999, 0), map, len, fd);
        kernel::look_on();
    }
    check_sleepers(map, tasks.clone());
    kernel::continue_all();
    kernel::look_on();
    check_sleepers(map, tasks.clone());
    while call(0, Receive, map, len, fd) != Outcome::Again {
        kernel::look_on();
        check_sleepers(map, tasks.clone());
    }
    for extra in 0.. {
        let Some(asleep) = tasks.clone().find(|&task| !kernel::is_gone(task)) else { break };
        if extra as usize > tasks.len() {
            fail(format!("task {asleep} does not end"));
        }
        call(0, Send(1000 + extra, 0), map, len, fd);
        kernel::look_on();
        check_sleepers(map, tasks.clone());
    }
    while call(0, Receive, map, len, fd) != Outcome::Again {}
    kernel::look_on();
}

/// Nobody is there any more, and nothing is in the queue: every record and slot is where it was.
fn check_books(map: &Map, killed: bool, gone: u32) {
    let h = map.header();
    if killed {
        // Records of the dead that nobody has met.
        kernel::peek(|| h.lock.store(0x4000_0000, SeqCst));
        drop(enter(map, tls_of(0)).unwrap_or_else(|errno| fail(format!("the lock: {errno:?}"))));
    }
    kernel::peek(|| {
        let lock = h.lock.load(SeqCst);
        if lock != 0 {
            fail(format!("the lock is {lock:#x} at the end"));
        }
        let (mut at, mut free) = (h.waiter_free.load(SeqCst), 0);
        while at != NONE && free <= WAITERS {
            at = map.waiter(at).map_or(NONE, |w| w.next.load(SeqCst));
            free += 1;
        }
        let high = h.waiter_high.load(SeqCst);
        let in_use = (0..high).filter(|&at| map.waiter(at).is_ok_and(|w| w.state.load(SeqCst) != W_FREE)).count();
        if free + in_use as u32 != high || in_use > gone as usize {
            fail(format!("{free} of {high} waiter records are free at the end"));
        }
        let (mut at, mut free) = (h.free.load(SeqCst), 0);
        while at != NONE && free <= map.slots() {
            at = map.slot(at).map_or(NONE, |slot| slot.next.load(SeqCst));
            free += 1;
        }
        let high = h.high.load(SeqCst);
        let in_use = (0..high).filter(|&at| map.slot(at).is_ok_and(|slot| slot.state.load(SeqCst) != FREE)).count();
        if free + in_use as u32 != high || in_use > gone as usize {
            fail(format!("{free} of {high} slots are free at the end"));
        }
        for line in [&h.receivers, &h.senders] {
            if (line.head.load(SeqCst), line.tail.load(SeqCst)) != (NONE, NONE) {
                fail("somebody is in line at the end".into());
            }
        }
    });
}

/// Nobody is told of a message that has not come in.
fn check_told(calls: &[Call]) {
    let told = calls.iter().filter(|call| call.outcome == Outcome::Told).count();
    let came = |call: &&Call| match call.outcome {
        Outcome::Got(_) => true,
        Outcome::Killed => !matches!(call.act, Send(..) | SendWait(..)),
        _ => false,
    };
    if told > calls.iter().filter(came).count() {
        fail(format!("somebody was told of nothing: {calls:#?}"));
    }
}

/// Whether the calls could have been made one after the other on a queue as the manual has it, each at some moment
/// between its beginning and its end. A killed one may have been made or not.
fn check_calls(calls: &[Call], plan: &Plan) {
    // To be told takes nothing away.
    let calls: Vec<Call> = calls.iter().filter(|call| call.act != Notify).copied().collect();
    let calls = &calls[..];
    let mut sent = HashSet::new();
    let mut got = HashSet::new();
    for call in calls {
        match (call.act, call.outcome) {
            (Send(id, _) | SendWait(id, ..), Outcome::Sent) => drop(sent.insert(id)),
            (_, Outcome::Got(id)) if !got.insert(id) => fail(format!("message {id} was received twice: {calls:#?}")),
            _ => {}
        }
    }
    let killed_receivers = calls
        .iter()
        .filter(|call| call.outcome == Outcome::Killed && !matches!(call.act, Send(..) | SendWait(..)))
        .count();
    let lost: Vec<_> = sent.difference(&got).collect();
    if lost.len() > killed_receivers {
        fail(format!("lost: {lost:?}; {calls:#?}"));
    }
    // A service that is undone (for its receiver was cancelled or stopped) takes a moment.
    if plan.budget.cancels + plan.budget.stops > 0 {
        return;
    }
    let mut seen = HashSet::new();
    if !fits(calls, plan.maxmsg as usize, 0, &[], &mut seen) {
        fail(format!("in no order: {calls:#?}"));
    }
}

fn fits(
    calls: &[Call],
    maxmsg: usize,
    done: u32,
    queue: &[(u32, u32)],
    seen: &mut HashSet<(u32, Vec<(u32, u32)>)>,
) -> bool {
    let left = || (0..calls.len()).filter(|at| done >> at & 1 == 0);
    if left().all(|at| calls[at].outcome == Outcome::Killed) {
        return true;
    }
    if !seen.insert((done, queue.to_vec())) {
        return false;
    }
    // The dead need not be waited for.
    let first_end =
        left().filter(|&at| calls[at].outcome != Outcome::Killed).map(|at| calls[at].ended).min().unwrap_or(u64::MAX);
    let last_begin = (0..calls.len()).filter(|at| done >> at & 1 == 1).map(|at| calls[at].began).max().unwrap_or(0);
    for at in left() {
        let Call { act, outcome, began, ended, .. } = calls[at];
        if began > first_end || ended < last_begin {
            continue;
        }
        let best = || {
            let priority = queue.iter().map(|&(priority, _)| priority).max()?;
            queue.iter().position(|&(other, _)| other == priority)
        };
        let mut after = queue.to_vec();
        let possible = match (act, outcome) {
            (_, Outcome::Ended(_) | Outcome::Cancelled | Outcome::Told) => true,
            (Send(..) | SendWait(..), Outcome::Again) => queue.len() == maxmsg,
            (_, Outcome::Again) => queue.is_empty(),
            (Send(id, priority) | SendWait(id, priority, _), _) => {
                after.push((priority, id));
                queue.len() < maxmsg
            }
            (_, Outcome::Got(id)) => best().is_some_and(|at| after.remove(at).1 == id),
            (..) => best().map(|at| after.remove(at)).is_some(),
        };
        if possible && fits(calls, maxmsg, done | 1 << at, &after, seen) {
            return true;
        }
    }
    false
}

/// Runs a plan through the schedules of `mode`.
pub fn check(plan: &Plan, mode: Mode) -> std::result::Result<Summary, Failure> {
    SEGMENT.set(None);
    let plan = plan.clone();
    through(mode, move || perform(&plan))
}

/// Runs something through the schedules of `mode`.
fn through(
    mode: Mode,
    perform: impl Fn() + std::marker::Send + Sync + 'static,
) -> std::result::Result<Summary, Failure> {
    SUMMARY.set(Summary::default());
    let runs = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = runs.clone();
    let preemptions = match mode {
        Mode::Exhaustive { preemptions } => preemptions,
        _ => u32::MAX,
    };
    let result = catch_unwind(AssertUnwindSafe(|| {
        explore(mode, move || {
            count.fetch_add(1, SeqCst);
            perform();
        })
    }));
    kernel::shut_down();
    match result {
        Ok(schedules) => Ok(Summary { schedules, ..SUMMARY.get() }),
        Err(payload) => {
            let what = payload
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| payload.downcast_ref::<&str>().map(|text| text.to_string()))
                .unwrap_or_else(|| "something".into());
            Err(Failure { what, schedule: runs.load(SeqCst), path: path(), preemptions })
        }
    }
}

/// A failure of `check`, with what happened on the way.
pub fn explain(name: &str, check: impl Fn(Mode) -> std::result::Result<Summary, Failure>, failure: &Failure) -> String {
    kernel::trace(true);
    let _ = check(Mode::Replay { path: failure.path.clone(), preemptions: failure.preemptions });
    kernel::trace(false);
    let log = kernel::log();
    let from = log.len().saturating_sub(400);
    format!(
        "{name}: schedule {}: {}\n{}\npath: {:?}, {} preemptions",
        failure.schedule,
        failure.what,
        log[from..].join("\n"),
        failure.path,
        failure.preemptions
    )
}
