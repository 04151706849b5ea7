//! The kernel, as far as the engine asks it for anything: futexes, robust lists, task states, one FIFO, one record lock.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;

use crate::machine::explore;

const TID_MASK: u32 = 0x3fff_ffff;
const WAITERS: u32 = 0x8000_0000;
const OWNER_DIED: u32 = 0x4000_0000;
/// What the kernel has for a call that it begins anew, see `queue::wait`.
pub const RESTARTED: i32 = -512;
/// Result of [`futex_sleep`]: the thread was cancelled.
pub const CANCELLED: i32 = i32::MIN;
/// The one FIFO's descriptor.
pub const FIFO: i32 = 77;
/// What who polls the FIFO sleeps on.
const FIFO_KEY: usize = 8;
/// Descriptor of `/proc/TID/task/TID/stat`, less the thread id.
const STAT: usize = 100_000;

/// What a word of shared memory is there for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// For the owner of the lock alone.
    Locked,
    /// For anybody at any time; its name.
    Open(&'static str),
    /// For the task of this id, or the owner of the lock.
    Kept(u32),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    Load,
    Store,
}

/// How a sleep may end but by a wake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sleep {
    /// Not at all.
    Forever,
    /// By a deadline, which may be at any moment.
    Deadline,
    /// By a time that is long for a machine: when nobody else has anything to do.
    Late,
}

/// What else may happen to a sleeper.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sleeper {
    pub sleep: Sleep,
    /// pthread_cancel(3).
    pub cancellable: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Ready,
    Asleep {
        key: usize,
        order: u64,
        sleeper: Sleeper,
    },
    /// By SIGSTOP, in its sleep.
    Stopped,
    /// Has not begun.
    Parked,
    /// The one who looks on: goes on when nobody else can.
    LooksOn,
    /// Killed; the kernel has not come to see to it.
    Dying,
    Gone,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Event {
    Nothing,
    Killed,
    TimedOut,
    Cancelled,
    Stopped,
    Signal,
}

/// A thread of the model; number 0 looks on.
struct Task {
    tid: u32,
    /// Address of its `struct robust_list_head`.
    robust: usize,
    state: State,
    nice: i32,
    /// Unwinds: what it does has no effect.
    dead: bool,
    in_handler: bool,
    gone_at: u64,
}

/// How often what may happen.
#[derive(Clone, Copy, Default, Debug)]
pub struct Budget {
    pub kills: u32,
    pub cancels: u32,
    pub signals: u32,
    pub stops: u32,
}

/// What the kernel does not know of itself.
#[derive(Clone, Copy)]
pub struct Hooks {
    /// What is at an offset of the segment.
    pub classify: fn(usize) -> Class,
    /// Whether a handler may run in the current thread now.
    pub takes_signals: fn() -> bool,
    /// A handler: whether the call that it interrupts is restarted.
    pub handler: fn() -> bool,
}

struct Kernel {
    segment: Range<usize>,
    /// Address of the lock.
    lock: usize,
    hooks: Hooks,
    tasks: Vec<Task>,
    current: usize,
    clock: u64,
    budget: Budget,
    yields: bool,
    /// It is not the next to run, if anybody else can.
    gives_way: bool,
    packets: usize,
    /// Who holds the record lock on the FIFO.
    locks: Option<usize>,
    /// Sleeps that only their time has ended: on words that say somebody who is gone, and others.
    late: [u32; 2],
    killed: u32,
    /// Looks at the engine's memory so far, of which no call takes many.
    steps: u32,
    /// Nobody has started: the one who looks on prepares.
    preparing: bool,
    /// A failure, to be told by the one who looks on.
    log: Option<Vec<String>>,
}

thread_local! {
    static ACTIVE: Cell<bool> = const { Cell::new(false) };
    static KERNEL: RefCell<Option<Kernel>> = const { RefCell::new(None) };
    static TRACING: Cell<bool> = const { Cell::new(false) };
}

fn with<T>(f: impl FnOnce(&mut Kernel) -> T) -> T {
    KERNEL.with_borrow_mut(|k| f(k.as_mut().expect("a kernel is running")))
}

/// The payload of a thread that was killed.
struct Killed;

/// Fails the current schedule.
pub fn fail(what: String) -> ! {
    resume_unwind(Box::new(what))
}

macro_rules! log {
    ($($arg:tt)*) => {
        if TRACING.get() {
            let line = format!($($arg)*);
            with(|k| {
                let current = k.current;
                k.log.get_or_insert_default().push(format!("{current}: {line}"));
            });
        }
    };
}

/// What has happened in the schedule so far, if that was asked for.
pub fn log() -> Vec<String> {
    KERNEL.with_borrow(|k| k.as_ref().and_then(|k| k.log.clone()).unwrap_or_default())
}

/// Has schedules be written down.
pub fn trace(on: bool) {
    TRACING.set(on);
}

/// Begins a run on a segment whose lock is at `lock`.
pub fn boot(segment: Range<usize>, lock: usize, hooks: Hooks, budget: Budget) {
    let kernel = Kernel {
        segment,
        lock,
        hooks,
        tasks: Vec::new(),
        current: 0,
        clock: 0,
        budget,
        yields: false,
        gives_way: false,
        packets: 0,
        locks: None,
        late: [0; 2],
        killed: 0,
        steps: 0,
        preparing: true,
        log: None,
    };
    KERNEL.with_borrow_mut(|k| *k = Some(kernel));
    ACTIVE.set(true);
}

/// Ends it.
pub fn shut_down() {
    ACTIVE.set(false);
}

/// Adds a task; its number, and thread id.
pub fn add_task(robust: usize, nice: i32) -> (usize, u32) {
    with(|k| {
        let at = k.tasks.len();
        let tid = 101 + at as u32;
        let state = if at == 0 { State::Ready } else { State::Parked };
        k.tasks.push(Task { tid, robust, state, nice, dead: false, in_handler: false, gone_at: 0 });
        (at, tid)
    })
}

/// Everything is set up.
pub fn start() {
    with(|k| k.preparing = false);
}

/// Number of the running task.
pub fn current() -> usize {
    if ACTIVE.get() { with(|k| k.current) } else { 0 }
}

/// A time that passes with each step.
pub fn now() -> u64 {
    with(|k| {
        k.clock += 1;
        k.clock
    })
}

/// Sleeps so far that only their time has ended: for the owner of the word was gone without a sign, and for others.
pub fn late() -> [u32; 2] {
    with(|k| k.late)
}

/// Tasks killed so far.
pub fn killed() -> u32 {
    with(|k| k.killed)
}

/// What may still happen from here on.
pub fn set_budget(budget: Budget) {
    with(|k| k.budget = budget);
}

/// Packets in the FIFO.
pub fn packets() -> usize {
    with(|k| k.packets)
}

/// What a task sleeps on, if it does.
pub fn sleeps_on(task: usize) -> Option<usize> {
    with(|k| match k.tasks[task].state {
        State::Asleep { key, .. } => Some(key),
        _ => None,
    })
}

pub fn is_polling(task: usize) -> bool {
    sleeps_on(task) == Some(FIFO_KEY)
}

pub fn is_gone(task: usize) -> bool {
    with(|k| k.tasks[task].state == State::Gone)
}

/// When it ended.
pub fn gone_at(task: usize) -> u64 {
    with(|k| k.tasks[task].gone_at)
}

pub fn is_stopped(task: usize) -> bool {
    with(|k| k.tasks[task].state == State::Stopped)
}

pub fn tid(task: usize) -> u32 {
    with(|k| k.tasks[task].tid)
}

/// Who may run.
pub struct Pick {
    /// The current task first, if it may go on.
    pub tasks: Vec<usize>,
    pub may_go_on: bool,
    /// It would rather not.
    pub yields: bool,
}

impl Kernel {
    fn events(&self, at: usize, idle: bool) -> Vec<Event> {
        let mut events = Vec::new();
        let State::Asleep { sleeper, .. } = self.tasks[at].state else { return events };
        if sleeper.sleep == Sleep::Deadline || sleeper.sleep == Sleep::Late && idle {
            events.push(Event::TimedOut);
        }
        if at == 0 {
            return events;
        }
        if self.budget.kills > 0 {
            events.push(Event::Killed);
        }
        if sleeper.cancellable && self.budget.cancels > 0 {
            events.push(Event::Cancelled);
        }
        if sleeper.cancellable && self.budget.stops > 0 {
            events.push(Event::Stopped);
        }
        if sleeper.cancellable && self.budget.signals > 0 && !self.tasks[at].in_handler {
            events.push(Event::Signal);
        }
        events
    }

    fn is_idle(&self) -> bool {
        !self.tasks.iter().any(|task| matches!(task.state, State::Ready | State::Dying))
    }

    fn pick(&mut self) -> Pick {
        let runs = |task: &Task| matches!(task.state, State::Ready | State::Dying);
        let others_run = (0..self.tasks.len()).any(|at| at != self.current && runs(&self.tasks[at]));
        // Who lets others run does.
        let may_go_on = runs(&self.tasks[self.current]) && !(self.gives_way && others_run);
        let mut tasks = Vec::new();
        if may_go_on {
            tasks.push(self.current);
        }
        tasks.extend((0..self.tasks.len()).filter(|&at| at != self.current && runs(&self.tasks[at])));
        let idle = tasks.is_empty();
        let mut late = false;
        for at in 0..self.tasks.len() {
            late |= matches!(self.tasks[at].state, State::Asleep { sleeper: Sleeper { sleep: Sleep::Late, .. }, .. });
            if self.tasks[at].state == State::Stopped || !self.events(at, idle).is_empty() {
                tasks.push(at);
            }
        }
        if idle && !late && self.tasks[0].state == State::LooksOn {
            tasks.push(0);
        }
        Pick { tasks, may_go_on, yields: self.yields }
    }

    fn wake(&mut self, key: usize, count: usize) -> usize {
        let mut sleepers: Vec<(u64, usize)> = (0..self.tasks.len())
            .filter_map(|at| match self.tasks[at].state {
                State::Asleep { key: other, order, .. } if other == key => Some((order, at)),
                _ => None,
            })
            .collect();
        sleepers.sort_unstable();
        sleepers.truncate(count);
        for &(_, at) in &sleepers {
            self.tasks[at].state = State::Ready;
        }
        sleepers.len()
    }
}

/// Who may run next; for the scheduler.
pub fn pick() -> Pick {
    with(Kernel::pick)
}

/// Lets the scheduler say who goes on, and returns when it is the caller.
fn switch(yields: bool) {
    switch_how(yields, false);
}

fn switch_how(yields: bool, gives_way: bool) {
    let (me, alone) = with(|k| {
        (k.yields, k.gives_way) = (yields, gives_way);
        let pick = k.pick();
        if pick.tasks.is_empty() {
            return (k.current, None);
        }
        (k.current, Some(pick.tasks == [k.current]))
    });
    match alone {
        None => fail("nobody can go on, not even who looks on".into()),
        Some(true) => return,
        Some(false) => {}
    }
    shuttle::thread::yield_now();
    with(|k| k.current = me);
}

/// See `src/machine.rs`: others run.
pub fn give_way() {
    if with(|k| k.preparing || k.tasks[k.current].dead) {
        return;
    }
    switch_how(true, true);
}

fn die() -> ! {
    log!("killed");
    with(|k| {
        let me = k.current;
        k.budget.kills = k.budget.kills.saturating_sub(1);
        k.killed += 1;
        k.tasks[me].dead = true;
        k.tasks[me].state = State::Dying;
    });
    resume_unwind(Box::new(Killed))
}

/// The current task may be killed here.
fn may_die() {
    if with(|k| k.budget.kills > 0 && k.current != 0) && explore::choose(2) == 1 {
        die();
    }
}

/// A handler may run here.
fn may_be_interrupted() {
    let (possible, takes) = with(|k| {
        let me = k.current;
        (k.budget.signals > 0 && me != 0 && !k.tasks[me].in_handler, k.hooks.takes_signals)
    });
    if possible && takes() && explore::choose(2) == 1 {
        handle_signal();
    }
}

fn handle_signal() -> bool {
    log!("signal");
    let handler = with(|k| {
        k.budget.signals -= 1;
        let me = k.current;
        k.tasks[me].in_handler = true;
        k.hooks.handler
    });
    let restarts = handler();
    with(|k| {
        let me = k.current;
        k.tasks[me].in_handler = false;
    });
    log!("handler over");
    restarts
}

/// Before an access to `address`. False: it has no effect, for it is made by one who is dead.
pub fn before(address: usize, access: Access) -> bool {
    if !ACTIVE.get() {
        return true;
    }
    enum At {
        Dead,
        Elsewhere,
        Pending,
        Segment(Class, usize),
    }
    let at = with(|k| {
        if k.preparing {
            return At::Elsewhere;
        }
        let task = &k.tasks[k.current];
        if task.dead {
            At::Dead
        } else if k.segment.contains(&address) {
            let offset = address - k.segment.start;
            At::Segment((k.hooks.classify)(offset), offset)
        } else if address == task.robust + 16 && access == Access::Store {
            At::Pending
        } else {
            At::Elsewhere
        }
    });
    let steps = with(|k| {
        k.steps += 1;
        k.steps
    });
    if steps > 100_000 && !matches!(at, At::Dead) {
        fail("somebody goes round and round".into());
    }
    match at {
        At::Dead => return false,
        At::Elsewhere => {}
        At::Pending => {
            may_be_interrupted();
            may_die();
        }
        At::Segment(class @ (Class::Locked | Class::Kept(_)), offset) => {
            let (owner, tid) = with(|k| {
                // SAFETY: the lock is a word of the segment, which is mapped.
                let lock = unsafe { &*(k.lock as *const AtomicU32) };
                (lock.load(SeqCst) & TID_MASK, k.tasks[k.current].tid)
            });
            if owner != tid && class != Class::Kept(tid) {
                fail(format!("{access:?} of the word at {offset} by {tid}, but the lock is {owner}'s"));
            }
            if access == Access::Store {
                may_die();
            }
        }
        At::Segment(Class::Open(name), offset) => {
            may_be_interrupted();
            switch(false);
            if access == Access::Store {
                may_die();
            }
            log!("{access:?} {name} ({offset})");
        }
    }
    true
}

/// Sleeps on the futex word at `key` while it holds `expected`: futex_waitv(2).
pub fn futex_sleep(key: usize, expected: u32, sleeper: Sleeper) -> i32 {
    if with(|k| k.tasks[k.current].dead) {
        return 0;
    }
    loop {
        may_be_interrupted();
        switch(false);
        may_die();
        let looked = if key == FIFO_KEY {
            packets() as u32
        } else {
            // SAFETY: a word of the segment, which is mapped.
            unsafe { &*(key as *const AtomicU32) }.load(SeqCst)
        };
        if looked != expected {
            log!("does not sleep");
            return -libc::EAGAIN;
        }
        log!("sleeps on {key:#x}");
        let me = with(|k| {
            k.clock += 1;
            let me = k.current;
            k.tasks[me].state = State::Asleep { key, order: k.clock, sleeper };
            me
        });
        switch(false);
        let (woken, idle) = with(|k| (k.tasks[me].state == State::Ready, k.is_idle()));
        let event = if woken {
            let (kills, cancels) =
                with(|k| (k.budget.kills > 0 && me != 0, sleeper.cancellable && k.budget.cancels > 0));
            let mut events = vec![Event::Nothing];
            events.extend(kills.then_some(Event::Killed));
            events.extend(cancels.then_some(Event::Cancelled));
            events[explore::choose(events.len())]
        } else {
            let events = with(|k| k.events(me, idle));
            let event = events[explore::choose_evenly(events.len())];
            with(|k| k.tasks[me].state = State::Ready);
            event
        };
        log!("woken: {woken}, {event:?}");
        match event {
            Event::Nothing => return 0,
            Event::Killed => die(),
            Event::TimedOut => {
                if sleeper.sleep == Sleep::Late {
                    // SAFETY: as above.
                    let owner = unsafe { &*(key as *const AtomicU32) }.load(SeqCst) & TID_MASK;
                    with(|k| {
                        let gone = |task: &Task| task.tid == owner && task.state == State::Gone;
                        k.late[usize::from(!k.tasks.iter().any(gone))] += 1;
                    });
                }
                return -libc::ETIMEDOUT;
            }
            Event::Cancelled => {
                with(|k| k.budget.cancels -= 1);
                return CANCELLED;
            }
            Event::Stopped => {
                with(|k| {
                    k.budget.stops -= 1;
                    k.tasks[me].state = State::Stopped;
                });
                switch(false);
                with(|k| k.tasks[me].state = State::Ready);
                log!("continued");
                return RESTARTED;
            }
            Event::Signal => {
                if !handle_signal() {
                    return -libc::EINTR;
                }
            }
        }
    }
}

/// Sleeps on a word until it is woken.
pub fn wait_for(word: &crate::machine::atomic::AtomicU32, value: u32) {
    futex_sleep(word.as_ptr() as usize, value, Sleeper { sleep: Sleep::Forever, cancellable: false });
}

/// poll(2) of the FIFO, for a packet.
pub fn poll_fifo() {
    while packets() == 0 {
        futex_sleep(FIFO_KEY, 0, Sleeper { sleep: Sleep::Forever, cancellable: false });
    }
}

/// The one who looks on waits until nobody else can go on.
pub fn look_on() {
    with(|k| k.tasks[0].state = State::LooksOn);
    switch(false);
    with(|k| k.tasks[0].state = State::Ready);
}

/// Looks at the engine's memory without being anybody.
pub fn peek(look: impl FnOnce()) {
    ACTIVE.set(false);
    look();
    ACTIVE.set(true);
}

/// Lets a task begin.
pub fn begin(task: usize) {
    with(|k| k.tasks[task].state = State::Ready);
}

/// Continues everybody who is stopped.
pub fn continue_all() {
    with(|k| {
        for task in k.tasks.iter_mut().filter(|task| task.state == State::Stopped) {
            task.state = State::Ready;
        }
    });
}

/// Runs a thread's life; whether it has lived to its end. Then what the kernel does at the end of each.
pub fn live(me: usize, body: impl FnOnce()) -> bool {
    with(|k| k.current = me);
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
    let killed = match ended {
        Ok(()) => false,
        Err(payload) if payload.is::<Killed>() => true,
        Err(other) => resume_unwind(other),
    };
    if killed {
        switch(false);
        handle_robust_list(me);
        switch(false);
    }
    log!("gone");
    with(|k| {
        k.clock += 1;
        k.tasks[me].gone_at = k.clock;
        k.tasks[me].state = State::Gone;
    });
    !killed
}

/// `exit_robust_list`, of which only the pending entry is used here, and `handle_futex_death`.
fn handle_robust_list(me: usize) {
    let (robust, tid) = with(|k| (k.tasks[me].robust, k.tasks[me].tid));
    // SAFETY: the task's robust_list_head, which lives as long as the run.
    let [_, offset, pending] = unsafe { *(robust as *const [usize; 3]) };
    if pending == 0 {
        return;
    }
    let address = pending.wrapping_add(offset);
    // SAFETY: the engine has said that this is a word of the segment.
    let word = unsafe { &*(address as *const AtomicU32) };
    loop {
        let value = word.load(SeqCst);
        if value == 0 {
            let woken = with(|k| k.wake(address, 1));
            log!("kernel wakes {woken} at {address:#x}");
            return;
        }
        if value & TID_MASK != tid {
            return;
        }
        if word.compare_exchange(value, value & WAITERS | OWNER_DIED, SeqCst, SeqCst).is_ok() {
            log!("kernel marks {address:#x}");
            if value & WAITERS != 0 {
                switch(false);
                with(|k| k.wake(address, 1));
            }
            return;
        }
    }
}

/// See `src/machine.rs`.
///
/// # Safety
///
/// As there.
pub unsafe fn raw6(nr: i64, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> isize {
    let error = |errno: i32| -errno as isize;
    let passed_on = matches!(nr, libc::SYS_mmap | libc::SYS_munmap | libc::SYS_ftruncate | libc::SYS_memfd_create);
    if nr == libc::SYS_madvise && ACTIVE.get() {
        // There is memory behind every page.
        return 0;
    }
    if passed_on || !ACTIVE.get() {
        // SAFETY: the caller's contract.
        let result = unsafe { libc::syscall(nr, a, b, c, d, e, f) };
        // SAFETY: libc's own.
        return if result < 0 { error(unsafe { *libc::__errno_location() }) } else { result as isize };
    }
    if with(|k| k.preparing || k.tasks[k.current].dead) {
        return 0;
    }
    match nr {
        libc::SYS_futex => match b as i32 & 0x7f {
            libc::FUTEX_WAIT => {
                let sleep = if d == 0 { Sleep::Forever } else { Sleep::Late };
                futex_sleep(a, c as u32, Sleeper { sleep, cancellable: false }) as isize
            }
            libc::FUTEX_WAKE => {
                may_be_interrupted();
                switch(false);
                may_die();
                let woken = with(|k| k.wake(a, c));
                log!("wakes {woken} at {a:#x}");
                woken as isize
            }
            other => fail(format!("futex operation {other}")),
        },
        libc::SYS_sched_yield => {
            switch(true);
            0
        }
        libc::SYS_sched_getattr => {
            let nice = with(|k| {
                let tid = if a == 0 { k.tasks[k.current].tid } else { a as u32 };
                k.tasks.iter().find(|task| task.tid == tid).map_or(0, |task| task.nice)
            });
            // SAFETY: the caller's buffer of 48 bytes: size, policy, flags, nice, priority.
            unsafe { *(b as *mut [u32; 12]) = [48, 0, 0, 0, nice as u32, 0, 0, 0, 0, 0, 0, 0] };
            0
        }
        libc::SYS_tkill => {
            let lives = with(|k| k.tasks.iter().any(|task| task.tid == a as u32 && task.state != State::Gone));
            if lives { 0 } else { error(libc::ESRCH) }
        }
        libc::SYS_openat => {
            // SAFETY: a path of the engine's, NUL-terminated.
            let path = unsafe { std::ffi::CStr::from_ptr(b as *const libc::c_char) }.to_string_lossy().into_owned();
            match path.strip_suffix("/stat").and_then(|rest| rest.rsplit_once("/task/")) {
                Some((_, tid)) => (STAT + tid.parse::<usize>().expect("a number")) as isize,
                None => fail(format!("open of {path}")),
            }
        }
        libc::SYS_read if a >= STAT => {
            let state = with(|k| match k.tasks.iter().find(|task| STAT + task.tid as usize == a) {
                Some(Task { state: State::Asleep { .. }, .. }) => Some('S'),
                Some(Task { state: State::Stopped, .. }) => Some('T'),
                Some(Task { state: State::Gone, .. }) | None => None,
                Some(_) => Some('R'),
            });
            let Some(state) = state else { return error(libc::ESRCH) };
            let text = format!("{} (x) {state} 1", a - STAT);
            // SAFETY: the caller's buffer, of 256 bytes.
            unsafe { core::ptr::copy_nonoverlapping(text.as_ptr(), b as *mut u8, text.len()) };
            text.len() as isize
        }
        libc::SYS_close => 0,
        // Signals that a thread raises itself, of which there are none here.
        libc::SYS_rt_sigprocmask => 0,
        libc::SYS_fcntl if b as i32 == libc::F_GETFL => libc::O_RDWR as isize,
        libc::SYS_fcntl if b as i32 == libc::F_GETPIPE_SZ => 8192,
        libc::SYS_getpid => with(|k| k.tasks[k.current].tid) as isize,
        libc::SYS_fcntl if matches!(b as i32, libc::F_SETLK | libc::F_OFD_GETLK) => {
            switch(false);
            may_die();
            // SAFETY: the caller's structure.
            let lock = unsafe { &mut *(c as *mut libc::flock) };
            with(|k| {
                let holder = k.locks.filter(|&at| k.tasks[at].state != State::Gone);
                if b as i32 == libc::F_OFD_GETLK {
                    lock.l_type = if holder.is_some() { libc::F_WRLCK } else { libc::F_UNLCK } as i16;
                    lock.l_pid = holder.map_or(0, |at| k.tasks[at].tid as i32);
                } else if lock.l_type == libc::F_WRLCK as i16 {
                    if holder.is_some_and(|at| at != k.current) {
                        return error(libc::EAGAIN);
                    }
                    k.locks = Some(k.current);
                } else if holder == Some(k.current) {
                    k.locks = None;
                }
                0
            })
        }
        libc::SYS_ioctl => {
            switch(false);
            // SAFETY: FIONREAD's result.
            unsafe { *(c as *mut i32) = packets() as i32 };
            0
        }
        libc::SYS_ppoll => {
            switch(false);
            if packets() >= 2 {
                return 0;
            }
            // SAFETY: one pollfd of the caller's.
            unsafe { (*(a as *mut libc::pollfd)).revents = libc::POLLOUT };
            1
        }
        libc::SYS_write => {
            switch(false);
            may_die();
            let packets = with(|k| {
                k.packets += 1;
                k.wake(FIFO_KEY, usize::MAX);
                k.packets
            });
            if packets > 2 {
                fail("a third packet in the FIFO".into());
            }
            log!("writes a packet");
            1
        }
        libc::SYS_read => {
            switch(false);
            may_die();
            log!("takes a packet");
            with(|k| match k.packets {
                0 => error(libc::EAGAIN),
                _ => {
                    k.packets -= 1;
                    1
                }
            })
        }
        other => fail(format!("system call {other}")),
    }
}
