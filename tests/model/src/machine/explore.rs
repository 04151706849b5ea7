//! Which schedules are run: all of them up to a number of preemptions, or many at random.

use std::cell::RefCell;

use shuttle::scheduler::{PctScheduler, RandomScheduler, Schedule, Scheduler, Task, TaskId};

use crate::machine::kernel;

/// How to choose.
#[derive(Clone, Debug)]
pub enum Mode {
    /// Every schedule in which a thread that could go on is made to wait at most so many times.
    Exhaustive { preemptions: u32 },
    /// shuttle's random scheduler.
    Random { schedules: usize, seed: u64 },
    /// shuttle's probabilistic concurrency testing: random priorities, changed so many times.
    Pct { schedules: usize, depth: usize, seed: u64 },
    /// Once, as a failure has said: the choices, and how many preemptions there could have been.
    Replay { path: Vec<u16>, preemptions: u32 },
}

/// A choice that has been made: which, of how many.
#[derive(Clone, Copy)]
struct Choice {
    taken: u16,
    of: u16,
}

/// What is left of a search, and the path of the current schedule.
#[derive(Default)]
pub struct Explorer {
    trail: Vec<Choice>,
    at: usize,
    pub preemptions_left: u32,
    /// All alternatives are tried, in order.
    exhaustive: bool,
    replays: bool,
    random: u64,
    /// In one of how many places something happens, in a schedule at random.
    seldom: usize,
    started: bool,
}

thread_local! {
    static EXPLORER: RefCell<Explorer> = RefCell::default();
}

fn with<T>(f: impl FnOnce(&mut Explorer) -> T) -> T {
    EXPLORER.with_borrow_mut(f)
}

impl Explorer {
    /// Takes one of `of` alternatives; `otherwise` decides where the search does not.
    fn take(&mut self, of: usize, otherwise: impl FnOnce(&mut Explorer) -> usize) -> usize {
        if of <= 1 {
            return 0;
        }
        let taken = if self.at < self.trail.len() {
            let choice = &mut self.trail[self.at];
            assert!(self.replays || choice.of as usize == of, "the model is not deterministic");
            choice.of = of as u16;
            choice.taken as usize % of
        } else {
            let taken = if self.exhaustive || self.replays { 0 } else { otherwise(self) };
            self.trail.push(Choice { taken: taken as u16, of: of as u16 });
            taken
        };
        self.at += 1;
        taken
    }

    /// Goes to the next path; false if there is none.
    fn advance(&mut self) -> bool {
        self.at = 0;
        if !core::mem::replace(&mut self.started, true) {
            return true;
        }
        if !self.exhaustive {
            self.trail.clear();
            return true;
        }
        while let Some(last) = self.trail.last_mut() {
            if last.taken + 1 < last.of {
                last.taken += 1;
                return true;
            }
            self.trail.pop();
        }
        false
    }

    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random >> 11
    }
}

/// Chooses one of `of` things that may happen now; 0 is that nothing does, and likely.
pub fn choose(of: usize) -> usize {
    with(|e| {
        e.take(of, |e| {
            let random = e.next_random() as usize;
            if random.is_multiple_of(e.seldom) { 1 + random / e.seldom % (of - 1) } else { 0 }
        })
    })
}

/// The same where they are alike.
pub fn choose_evenly(of: usize) -> usize {
    with(|e| e.take(of, |e| e.next_random() as usize % of))
}

/// The choices of the current schedule, for [`Mode::Replay`].
pub fn path() -> Vec<u16> {
    with(|e| e.trail[..e.at.min(e.trail.len())].iter().map(|choice| choice.taken).collect())
}

enum Inner {
    Search { preemptions: u32, once: bool },
    Random(RandomScheduler),
    Pct(PctScheduler),
}

/// shuttle's schedulers, restricted to whom the kernel lets run; and the search.
struct Model(Inner);

impl Scheduler for Model {
    fn new_execution(&mut self) -> Option<Schedule> {
        let schedule = match &mut self.0 {
            Inner::Search { preemptions, once } => {
                let go_on = with(|e| {
                    e.preemptions_left = *preemptions;
                    (!*once || !e.started) && e.advance()
                });
                return go_on.then(|| Schedule::new(0));
            }
            Inner::Random(inner) => inner.new_execution()?,
            Inner::Pct(inner) => inner.new_execution()?,
        };
        with(|e| {
            e.advance();
            e.random = schedule.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            e.seldom = 4 << (e.next_random() % 7);
        });
        Some(schedule)
    }

    fn next_task(&mut self, runnable: &[&Task], current: Option<TaskId>, _: bool) -> Option<TaskId> {
        if current.is_none() {
            return runnable.first().map(|task| task.id());
        }
        let pick = kernel::pick();
        let id = |at: usize| runnable.iter().find(|task| usize::from(task.id()) == at).map(|task| task.id());
        if pick.tasks.len() == 1 {
            return id(pick.tasks[0]);
        }
        if let Inner::Search { .. } = self.0 {
            let taken = with(|e| {
                let free = !pick.may_go_on || pick.yields;
                let of = if free || e.preemptions_left > 0 { pick.tasks.len() } else { 1 };
                let taken = e.take(of, |_| 0);
                if taken != 0 && !free {
                    e.preemptions_left -= 1;
                }
                taken
            });
            return id(pick.tasks[taken]);
        }
        let fit: Vec<&Task> =
            runnable.iter().copied().filter(|task| pick.tasks.contains(&usize::from(task.id()))).collect();
        let chosen = match &mut self.0 {
            Inner::Random(inner) => inner.next_task(&fit, current, pick.yields),
            Inner::Pct(inner) => inner.next_task(&fit, current, pick.yields),
            Inner::Search { .. } => None,
        }?;
        let taken = pick.tasks.iter().position(|&task| task == usize::from(chosen))?;
        with(|e| e.take(pick.tasks.len(), |_| taken));
        Some(chosen)
    }

    fn next_u64(&mut self) -> u64 {
        0
    }
}

/// Runs `body` through the schedules of `mode`; how many there were.
pub fn explore(mode: Mode, body: impl Fn() + Send + Sync + 'static) -> usize {
    let (inner, replayed) = match mode {
        Mode::Exhaustive { preemptions } => (Inner::Search { preemptions, once: false }, None),
        Mode::Random { schedules, seed } => (Inner::Random(RandomScheduler::new_from_seed(seed, schedules)), None),
        Mode::Pct { schedules, depth, seed } => (Inner::Pct(PctScheduler::new_from_seed(seed, depth, schedules)), None),
        Mode::Replay { path, preemptions } => (Inner::Search { preemptions, once: true }, Some(path)),
    };
    with(|e| {
        *e = Explorer { exhaustive: matches!(inner, Inner::Search { once: false, .. }), ..Explorer::default() };
        if let Some(path) = replayed {
            e.replays = true;
            e.trail = path.into_iter().map(|taken| Choice { taken, of: u16::MAX }).collect();
        }
    });
    let mut config = shuttle::Config::new();
    config.stack_size = 1 << 16;
    config.silence_warnings = true;
    config.failure_persistence = shuttle::FailurePersistence::None;
    shuttle::Runner::new(Model(inner), config).run(body)
}
