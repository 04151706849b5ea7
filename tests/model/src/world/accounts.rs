//! Plans of what is charged for queues (`src/ns/ledger.rs`): who makes and takes away queues at a time, and is killed.
//!
//! Nobody waits for anybody there, so that one who is stopped is one who is overtaken: every schedule has those.

use super::*;
use crate::ledger::{Change, Ledger, Marks, Refused, Sum};
use crate::machine::atomic::AtomicU32;

/// What a thread does with a queue, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Makes it: charges, marks.
    Make(usize),
    /// Takes it away, as everybody may who finds it: gives back if it is due, marks.
    Take(usize),
}

use self::Act::{Make, Take};

const QUEUES: usize = 4;
/// What others have charged already.
const BASE: u64 = 1000;
const BASE_COUNT: u64 = 10;
/// Of one queue.
const COST: u64 = 7;
const UID: u32 = 5;

/// Marks of a queue.
const CHARGED: u32 = 1;
const GONE: u32 = 2;

/// A situation. Queues 0 and 1 are in one namespace, 2 and 3 in another.
#[derive(Clone)]
pub struct Plan {
    pub name: &'static str,
    /// Queues that are there at the beginning.
    pub before: &'static [usize],
    pub then: Vec<Vec<Act>>,
    pub kills: u32,
    /// There is room for so many more, by bytes and by queues.
    pub room: (u64, u64),
    /// At the beginning the sums have marks of these uses of the first note.
    pub marks: u64,
    pub preemptions: u32,
}

#[repr(C)]
struct World {
    ledger: Ledger,
    counts: [Sum; 2],
    marks: [AtomicU32; QUEUES],
}

impl Marks for World {
    fn is_made(&self, queue: u64, _: u32, _: u64) -> bool {
        self.marks[queue as usize].load(SeqCst) == GONE
    }
}

thread_local! {
    /// Of every run: what has become of the calls that have ended.
    static MADE: RefCell<Vec<(usize, bool)>> = const { RefCell::new(Vec::new()) };
    static ROOM: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
    static WORLD: &'static World = {
        // SAFETY: plain words, of which 0 is a value; never freed.
        unsafe { &*std::alloc::alloc_zeroed(std::alloc::Layout::new::<World>()).cast() }
    };
}

fn of(world: &World, queue: usize) -> Change<'_> {
    let place = queue / 2;
    Change {
        place: 1 + place as u64,
        count: &world.counts[place],
        uid: UID,
        cost: COST,
        queue: queue as u64,
        marks: world,
    }
}

fn perform_act(act: Act, world: &'static World, tls: &Tls) {
    match act {
        Make(queue) => {
            world.marks[queue].store(0, SeqCst);
            let (bytes, queues) = ROOM.get();
            let charged =
                world.ledger.charge(Some(tls), &of(world, queue), BASE + bytes * COST, (BASE_COUNT + queues) as u32);
            let made = charged.is_ok();
            match charged {
                Ok(noted) => {
                    world.marks[queue].store(CHARGED, SeqCst);
                    noted.settle();
                }
                Err(Refused::TooMany | Refused::TooMuch(_)) => world.marks[queue].store(GONE, SeqCst),
            }
            MADE.with_borrow_mut(|made_so_far| made_so_far.push((queue, made)));
        }
        Take(queue) => {
            let mark = &world.marks[queue];
            let is_due = |noted| match mark.load(SeqCst) {
                GONE => false,
                CHARGED => true,
                _ => noted,
            };
            let given = world.ledger.give_back(Some(tls), &of(world, queue), is_due);
            mark.store(GONE, SeqCst);
            if let Some(noted) = given {
                noted.settle();
            }
        }
    }
}

fn classify(_: usize) -> Class {
    Class::Open("ledger")
}

fn perform(plan: &Plan) {
    kernel::shut_down();
    let world: &'static World = WORLD.with(|world| *world);
    let base = world as *const World as usize;
    // SAFETY: nobody of the last run is left.
    unsafe { core::ptr::write_bytes(base as *mut u8, 0, size_of::<World>()) };
    SCENE.with_borrow_mut(|scene| *scene = Scene::default());
    MADE.with_borrow_mut(Vec::clear);
    let hooks = Hooks { classify, takes_signals: || false, handler: || false };
    kernel::boot(base..base + size_of::<World>(), base, hooks, Budget::default());
    add_task(0);
    let tls = tls_of(0);
    ROOM.set((u64::MAX / 2 / COST - BASE, 1_000_000));
    // What others have.
    let others = |place: usize, cost: u64| {
        for _ in 0..BASE_COUNT {
            let mut what = of(world, 2 * place);
            what.cost = cost;
            let charged = world.ledger.charge(Some(tls), &what, u64::MAX, u32::MAX);
            charged.unwrap_or_else(|_| fail("there is room".into())).settle();
        }
    };
    others(0, BASE / BASE_COUNT);
    others(1, 0);
    for &queue in plan.before {
        perform_act(Make(queue), world, tls);
    }
    if plan.marks > 0 {
        // One of another uid uses the note, as often as that.
        for _ in 0..plan.marks {
            let mut what = of(world, 0);
            (what.uid, what.place) = (UID + 1, 3);
            let elsewhere = Sum::default();
            what.count = &elsewhere;
            if let Ok(noted) = world.ledger.charge(Some(tls), &what, u64::MAX, u32::MAX) {
                noted.settle();
            }
        }
    }
    MADE.with_borrow_mut(Vec::clear);
    ROOM.set(plan.room);
    kernel::start();
    let then: Vec<usize> = plan
        .then
        .iter()
        .map(|acts| {
            let task = add_task(0);
            let acts = acts.clone();
            shuttle::thread::spawn(move || {
                kernel::live(task, || acts.iter().for_each(|&act| perform_act(act, world, tls_of(task))));
            });
            task
        })
        .collect();
    kernel::set_budget(Budget { kills: plan.kills, ..Budget::default() });
    then.iter().for_each(|&task| kernel::begin(task));
    kernel::look_on();
    kernel::set_budget(Budget::default());
    let killed = kernel::killed() > 0;
    // Whoever comes next finds account and counts right, as far as the marks say: what is marked by no one is not known yet.
    for queue in [0, 2] {
        world.ledger.catch_up(Some(tls), &of(world, queue));
    }
    let marked = |places: core::ops::Range<usize>, marks: &[u32]| {
        (2 * places.start..2 * places.end).filter(|&q| marks.contains(&world.marks[q].load(SeqCst))).count() as u64
    };
    let touched =
        |queue: usize| plan.before.contains(&queue) || plan.then.iter().flatten().any(|act| *act == Make(queue));
    // Dead makers and takers may have come to the change and not to the mark.
    let unsure = |places: core::ops::Range<usize>| {
        let dead = (2 * places.start..2 * places.end).filter(|&q| touched(q) && killed);
        dead.count() as u64
    };
    let check = |what: &str, places: core::ops::Range<usize>, have: u64, base: u64, each: u64| {
        let want = marked(places.clone(), &[CHARGED]);
        let (least, most) = (want.saturating_sub(unsure(places.clone())), want + unsure(places));
        if have < base + least * each || have > base + most * each || !(have - base).is_multiple_of(each) {
            fail(format!("{what}: {have}, and {want} queues are marked"));
        }
    };
    check("account", 0..2, world.ledger.used(UID), BASE, COST);
    check("count", 0..1, world.counts[0].get(), BASE_COUNT, 1);
    check("the other count", 1..2, world.counts[1].get(), BASE_COUNT, 1);
    if !killed {
        let made = MADE.with_borrow(|made| made.iter().filter(|(_, ok)| *ok).count() as u64);
        let tried = MADE.with_borrow(|made| made.len() as u64);
        let taken = plan.then.iter().flatten().any(|act| matches!(act, Take(_)));
        if !taken && (made > plan.room.0.min(plan.room.1) || made == 0 && tried > 0) {
            fail(format!("{made} of {tried} queues were made"));
        }
    }
    // All that is there is taken away.
    for queue in (0..QUEUES).filter(|&queue| touched(queue)) {
        if world.marks[queue].load(SeqCst) != GONE {
            perform_act(Take(queue), world, tls);
        }
    }
    for queue in [0, 2] {
        world.ledger.catch_up(Some(tls), &of(world, queue));
    }
    let (bytes, counts) = (world.ledger.used(UID), [world.counts[0].get(), world.counts[1].get()]);
    if bytes != BASE || counts != [BASE_COUNT; 2] {
        fail(format!("left: {bytes} bytes instead of {BASE}, queues {counts:?} instead of {BASE_COUNT} each"));
    }
    let left = world.ledger.notes_in_use();
    if left > 0 {
        fail(format!("{left} notes are left"));
    }
    let mut summary = SUMMARY.get();
    summary.killed += usize::from(killed);
    SUMMARY.set(summary);
    kernel::shut_down();
}

/// Runs a plan through the schedules of `mode`.
pub fn check(plan: &Plan, mode: Mode) -> std::result::Result<Summary, Failure> {
    let plan = plan.clone();
    through(mode, move || perform(&plan))
}

/// The situations that are checked.
pub fn small() -> Vec<Plan> {
    let plan =
        |name, then, kills, preemptions| Plan { name, before: &[], then, kills, room: (10, 10), marks: 0, preemptions };
    vec![
        plan("two make queues", vec![vec![Make(0)], vec![Make(1)]], 0, 2),
        plan("two make and take queues", vec![vec![Make(0), Take(0)], vec![Make(1), Take(1)]], 0, 2),
        plan("two make queues in two namespaces", vec![vec![Make(0)], vec![Make(2)]], 0, 2),
        Plan {
            room: (1, 10),
            ..plan("two make queues, and there is memory for one", vec![vec![Make(0)], vec![Make(1)]], 0, 2)
        },
        Plan {
            room: (10, 1),
            ..plan("two make queues, and there may be one", vec![vec![Make(0)], vec![Make(1)]], 0, 2)
        },
        Plan { before: &[0], ..plan("two take the same queue", vec![vec![Take(0)], vec![Take(0)]], 0, 3) },
        Plan {
            before: &[0],
            ..plan("three take the same queue", vec![vec![Take(0)], vec![Take(0)], vec![Take(0)]], 0, 2)
        },
        plan("killed: one of two who make queues", vec![vec![Make(0)], vec![Make(1)]], 1, 2),
        plan("killed: one of two who make queues in two namespaces", vec![vec![Make(0)], vec![Make(2)]], 1, 1),
        Plan {
            before: &[0],
            ..plan("killed: one of two who take the same queue", vec![vec![Take(0)], vec![Take(0)]], 1, 2)
        },
        Plan { before: &[0], ..plan("killed: both who take the same queue", vec![vec![Take(0)], vec![Take(0)]], 2, 1) },
        Plan {
            before: &[0, 1],
            ..plan("killed: one of two who take two queues", vec![vec![Take(0)], vec![Take(1)]], 1, 1)
        },
        Plan {
            before: &[0],
            ..plan("killed: one who makes a queue or one who takes another", vec![vec![Make(1)], vec![Take(0)]], 1, 1)
        },
        Plan {
            room: (10, 1),
            ..plan("killed: one of two, and there may be one queue", vec![vec![Make(0)], vec![Make(1)]], 1, 2)
        },
        Plan {
            room: (1, 10),
            ..plan("killed: one of two, and there is memory for one", vec![vec![Make(0)], vec![Make(1)]], 1, 1)
        },
        Plan {
            before: &[0],
            ..plan("three, and notes for two", vec![vec![Make(1)], vec![Take(0)], vec![Make(2)]], 0, 1)
        },
        plan("killed: one, and two come by", vec![vec![Make(0)], vec![Make(1)], vec![Make(2)]], 1, 1),
        plan(
            "killed: one of several uses, while another looks",
            vec![vec![Make(0), Make(1), Take(0), Make(0)], vec![Make(2)]],
            1,
            1,
        ),
        Plan { marks: 3, ..plan("killed: one, with a mark of an old use", vec![vec![Make(0)]], 1, 1) },
        Plan { marks: 2, ..plan("killed: one, with a mark of an older use", vec![vec![Make(0)]], 1, 1) },
    ]
}
