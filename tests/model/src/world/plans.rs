//! The situations that are checked.

use super::Act::{Notify, Poll, Receive, ReceiveWait, Send, SendWait, Watch};
use super::*;

const FOREVER: Sleep = Sleep::Forever;
const TIMED: Sleep = Sleep::Deadline;
const KILL: Budget = Budget { kills: 1, cancels: 0, signals: 0, stops: 0 };
const CANCEL: Budget = Budget { kills: 0, cancels: 1, signals: 0, stops: 0 };
const SIGNAL: Budget = Budget { kills: 0, cancels: 0, signals: 1, stops: 0 };
const STOP: Budget = Budget { kills: 0, cancels: 0, signals: 0, stops: 1 };

/// Who got the message.
fn taker(calls: &[Call], id: u32) -> Option<usize> {
    calls.iter().find(|call| call.outcome == Outcome::Got(id)).map(|call| call.task)
}

fn got_by(calls: &[Call], pairs: &[(u32, usize)]) -> std::result::Result<(), String> {
    for &(id, task) in pairs {
        if taker(calls, id) != Some(task) {
            return Err(format!("message {id} is not task {task}'s: {calls:#?}"));
        }
    }
    Ok(())
}

fn asleep(act: Act) -> (i32, Vec<Act>) {
    (0, vec![act])
}

/// Small ones, for every schedule.
pub fn small() -> Vec<Plan> {
    let base = Plan::default;
    vec![
        Plan {
            name: "a send meets a receive",
            then: vec![vec![Send(10, 0)], vec![ReceiveWait(FOREVER)]],
            preemptions: 3,
            ..base()
        },
        Plan {
            name: "a send meets a timed receive",
            then: vec![vec![Send(10, 0)], vec![ReceiveWait(TIMED)]],
            preemptions: 2,
            ..base()
        },
        Plan {
            name: "two sends meet two receives",
            then: vec![vec![Send(10, 0), Send(11, 1)], vec![ReceiveWait(FOREVER), ReceiveWait(FOREVER)]],
            ..base()
        },
        Plan {
            name: "a receive from a full queue meets a send",
            maxmsg: 1,
            before: 1,
            then: vec![vec![SendWait(10, 0, FOREVER)], vec![ReceiveWait(FOREVER)]],
            preemptions: 2,
            ..base()
        },
        Plan {
            name: "a receive from a full queue meets a timed send",
            maxmsg: 1,
            before: 1,
            then: vec![vec![SendWait(10, 0, TIMED)], vec![Receive]],
            preemptions: 2,
            ..base()
        },
        Plan {
            name: "two at the lock",
            maxmsg: 4,
            then: vec![vec![Send(10, 0)], vec![Send(11, 0)]],
            preemptions: 3,
            ..base()
        },
        Plan {
            name: "three at the lock",
            maxmsg: 4,
            then: vec![vec![Send(10, 0)], vec![Send(11, 0)], vec![Send(12, 0)]],
            ..base()
        },
        Plan {
            name: "one message for two receivers",
            first: vec![asleep(ReceiveWait(FOREVER))],
            then: vec![vec![Send(10, 0)], vec![ReceiveWait(TIMED)]],
            preemptions: 1,
            ..base()
        },
        Plan {
            name: "the longest asleep is first",
            first: vec![asleep(ReceiveWait(FOREVER)), asleep(ReceiveWait(FOREVER))],
            then: vec![vec![Send(10, 0), Send(11, 0)]],
            expect: |calls| got_by(calls, &[(10, 1), (11, 2)]),
            ..base()
        },
        Plan {
            name: "the less nice is first",
            first: vec![(5, vec![ReceiveWait(FOREVER)]), (0, vec![ReceiveWait(FOREVER)])],
            then: vec![vec![Send(10, 0), Send(11, 0)]],
            expect: |calls| got_by(calls, &[(10, 2), (11, 1)]),
            ..base()
        },
        Plan {
            name: "the longest blocked sender is first",
            maxmsg: 1,
            before: 1,
            first: vec![asleep(SendWait(10, 0, FOREVER)), asleep(SendWait(11, 0, FOREVER))],
            then: vec![vec![ReceiveWait(FOREVER), ReceiveWait(FOREVER), ReceiveWait(FOREVER)]],
            expect: |calls| {
                let got: Vec<_> = calls.iter().filter(|call| matches!(call.outcome, Outcome::Got(_))).collect();
                let ids: Vec<_> = got.iter().map(|call| call.outcome).collect();
                if ids == [Outcome::Got(1), Outcome::Got(10), Outcome::Got(11)] {
                    Ok(())
                } else {
                    Err(format!("{ids:?}"))
                }
            },
            ..base()
        },
        Plan { name: "a long message", len: 5000, then: vec![vec![Send(10, 0)], vec![ReceiveWait(FOREVER)]], ..base() },
        // Killed.
        Plan {
            name: "killed: sender or sleeping receiver",
            first: vec![asleep(ReceiveWait(FOREVER))],
            then: vec![vec![Send(10, 0)]],
            budget: KILL,
            preemptions: 3,
            ..base()
        },
        Plan {
            name: "killed: sender or one of two sleeping receivers",
            first: vec![asleep(ReceiveWait(FOREVER)), asleep(ReceiveWait(FOREVER))],
            then: vec![vec![Send(10, 0)]],
            budget: KILL,
            ..base()
        },
        Plan {
            name: "killed: receiver or sleeping sender",
            maxmsg: 1,
            before: 1,
            first: vec![asleep(SendWait(10, 0, FOREVER))],
            then: vec![vec![Receive]],
            budget: KILL,
            preemptions: 3,
            ..base()
        },
        Plan {
            name: "killed: receiver or one of two sleeping senders",
            maxmsg: 1,
            before: 1,
            first: vec![asleep(SendWait(10, 0, FOREVER)), asleep(SendWait(11, 0, FOREVER))],
            then: vec![vec![Receive]],
            budget: KILL,
            ..base()
        },
        Plan {
            name: "killed: one that comes or one that sends",
            then: vec![vec![Send(10, 0)], vec![ReceiveWait(FOREVER)]],
            budget: KILL,
            preemptions: 1,
            ..base()
        },
        Plan {
            name: "killed: two at the lock",
            prompt: true,
            maxmsg: 4,
            then: vec![vec![Send(10, 0)], vec![Send(11, 0)]],
            budget: KILL,
            ..base()
        },
        Plan {
            name: "killed: one that comes, while one sleeps",
            first: vec![asleep(ReceiveWait(FOREVER))],
            then: vec![vec![Send(10, 0)], vec![ReceiveWait(TIMED)]],
            budget: KILL,
            preemptions: 0,
            ..base()
        },
        Plan {
            name: "killed: three at the lock",
            prompt: true,
            maxmsg: 4,
            then: vec![vec![Send(10, 0)], vec![Send(11, 0)], vec![Send(12, 0)]],
            budget: KILL,
            preemptions: 0,
            ..base()
        },
        Plan {
            name: "killed, of several pid namespaces",
            foreign: true,
            first: vec![asleep(ReceiveWait(FOREVER))],
            then: vec![vec![Send(10, 0)]],
            budget: KILL,
            ..base()
        },
        Plan {
            name: "killed: one of two sleeping receivers, of several pid namespaces",
            foreign: true,
            first: vec![asleep(ReceiveWait(FOREVER)), asleep(ReceiveWait(FOREVER))],
            then: vec![vec![Send(10, 0)]],
            budget: KILL,
            ..base()
        },
        Plan {
            name: "killed, with a long message",
            len: 5000,
            first: vec![asleep(ReceiveWait(FOREVER))],
            then: vec![vec![Send(10, 0)]],
            budget: KILL,
            ..base()
        },
        // Cancelled.
        Plan {
            name: "cancelled: one of two receivers",
            first: vec![asleep(ReceiveWait(FOREVER)), asleep(ReceiveWait(FOREVER))],
            then: vec![vec![Send(10, 0)]],
            budget: CANCEL,
            ..base()
        },
        Plan {
            name: "cancelled: one of two senders",
            maxmsg: 1,
            before: 1,
            first: vec![asleep(SendWait(10, 0, FOREVER)), asleep(SendWait(11, 0, FOREVER))],
            then: vec![vec![Receive]],
            budget: CANCEL,
            ..base()
        },
        Plan {
            name: "cancelled and interrupted: receiver",
            first: vec![asleep(ReceiveWait(FOREVER))],
            then: vec![vec![Send(10, 0)]],
            budget: Budget { cancels: 1, ..SIGNAL },
            ..base()
        },
        // Interrupted.
        Plan {
            name: "interrupted: receiver",
            first: vec![asleep(ReceiveWait(FOREVER)), asleep(ReceiveWait(FOREVER))],
            then: vec![vec![Send(10, 0)]],
            budget: SIGNAL,
            ..base()
        },
        Plan {
            name: "interrupted and restarted: receiver",
            restarts: true,
            first: vec![asleep(ReceiveWait(FOREVER)), asleep(ReceiveWait(FOREVER))],
            then: vec![vec![Send(10, 0)]],
            budget: SIGNAL,
            ..base()
        },
        Plan {
            name: "interrupted and restarted: sender",
            maxmsg: 1,
            before: 1,
            restarts: true,
            first: vec![asleep(SendWait(10, 0, FOREVER)), asleep(SendWait(11, 0, FOREVER))],
            then: vec![vec![Receive]],
            budget: SIGNAL,
            ..base()
        },
        // Stopped.
        Plan {
            name: "stopped: one of two receivers",
            first: vec![asleep(ReceiveWait(FOREVER)), asleep(ReceiveWait(FOREVER))],
            then: vec![vec![Send(10, 0)]],
            budget: STOP,
            ..base()
        },
        Plan {
            name: "stopped: one of two senders",
            maxmsg: 1,
            before: 1,
            first: vec![asleep(SendWait(10, 0, FOREVER)), asleep(SendWait(11, 0, FOREVER))],
            then: vec![vec![Receive]],
            budget: STOP,
            ..base()
        },
        // Pollers.
        Plan { name: "polled", then: vec![vec![Send(10, 0)], vec![Poll]], preemptions: 3, ..base() },
        Plan {
            name: "polled by two",
            first: vec![asleep(Poll)],
            then: vec![vec![Send(10, 0), Send(11, 0)], vec![Poll]],
            preemptions: 1,
            ..base()
        },
        Plan {
            name: "polled, and somebody else takes it",
            first: vec![asleep(Poll)],
            then: vec![vec![Send(10, 0)], vec![Receive], vec![Send(11, 0)]],
            preemptions: 1,
            ..base()
        },
        Plan { name: "watched", then: vec![vec![Send(10, 0)], vec![Watch]], preemptions: 3, ..base() },
        Plan {
            name: "polled, and killed",
            first: vec![asleep(Poll)],
            then: vec![vec![Send(10, 0)]],
            budget: KILL,
            preemptions: 2,
            ..base()
        },
        // Notified.
        Plan {
            name: "notified",
            first: vec![asleep(Notify)],
            then: vec![vec![Send(10, 0)], vec![Send(11, 0)]],
            ..base()
        },
        Plan {
            name: "notified, and killed",
            first: vec![asleep(Notify)],
            then: vec![vec![Send(10, 0)], vec![Receive]],
            budget: KILL,
            preemptions: 1,
            ..base()
        },
        Plan {
            name: "notified at once, and killed",
            then: vec![vec![Notify], vec![Send(10, 0)]],
            budget: KILL,
            preemptions: 2,
            ..base()
        },
        Plan {
            name: "notified at once, and registered again meanwhile",
            then: vec![vec![Notify], vec![Send(10, 0)], vec![Receive, Notify]],
            preemptions: 1,
            ..base()
        },
        Plan {
            name: "notified twice, and killed",
            first: vec![(0, vec![Notify, Notify])],
            then: vec![vec![Send(10, 0)], vec![Receive, Send(11, 0)]],
            budget: KILL,
            preemptions: 1,
            ..base()
        },
        Plan {
            name: "notified, and two killed",
            first: vec![asleep(Notify)],
            then: vec![vec![Send(10, 0)], vec![Send(11, 0)]],
            budget: Budget { kills: 2, ..KILL },
            preemptions: 0,
            ..base()
        },
        Plan {
            name: "notified, and two killed, of several pid namespaces",
            foreign: true,
            first: vec![asleep(Notify)],
            then: vec![vec![Send(10, 0)], vec![Receive]],
            budget: Budget { kills: 2, ..KILL },
            preemptions: 0,
            ..base()
        },
    ]
}

/// Larger ones, for schedules at random.
pub fn large() -> Vec<Plan> {
    let base = Plan::default;
    let all = Budget { kills: 1, cancels: 1, signals: 1, stops: 1 };
    let streams = |wait: Sleep| {
        vec![
            vec![SendWait(10, 0, wait), SendWait(11, 1, wait), SendWait(12, 0, wait)],
            vec![SendWait(20, 0, wait), SendWait(21, 1, wait)],
            vec![ReceiveWait(wait), ReceiveWait(wait), ReceiveWait(wait)],
            vec![ReceiveWait(wait), ReceiveWait(wait)],
        ]
    };
    vec![
        Plan { name: "streams", maxmsg: 1, then: streams(FOREVER), ..base() },
        Plan { name: "timed streams", maxmsg: 1, then: streams(TIMED), ..base() },
        Plan { name: "streams with a death", maxmsg: 1, then: streams(FOREVER), budget: KILL, ..base() },
        Plan {
            name: "timed streams with two deaths",
            maxmsg: 2,
            then: streams(TIMED),
            budget: Budget { kills: 2, ..KILL },
            ..base()
        },
        Plan {
            name: "streams with signals",
            maxmsg: 1,
            restarts: true,
            then: streams(FOREVER),
            budget: Budget { signals: 3, ..SIGNAL },
            ..base()
        },
        Plan { name: "streams with everything", maxmsg: 1, then: streams(TIMED), budget: all, ..base() },
        Plan {
            name: "long streams with everything",
            maxmsg: 1,
            len: 5000,
            then: streams(TIMED),
            budget: all,
            ..base()
        },
        Plan {
            name: "streams and pollers",
            maxmsg: 2,
            then: vec![
                vec![SendWait(10, 0, FOREVER), SendWait(11, 0, FOREVER)],
                vec![SendWait(20, 0, FOREVER), SendWait(21, 0, FOREVER)],
                vec![Poll, Poll],
                vec![Poll, Receive],
            ],
            ..base()
        },
        Plan {
            name: "streams and pollers with a death",
            maxmsg: 2,
            then: vec![
                vec![SendWait(10, 0, FOREVER), SendWait(11, 0, FOREVER)],
                vec![SendWait(20, 0, FOREVER), SendWait(21, 0, FOREVER)],
                vec![Poll, Watch],
            ],
            budget: KILL,
            ..base()
        },
    ]
}
