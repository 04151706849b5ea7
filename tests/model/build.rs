//! Takes the engine's sources in, with errors that can be switched on.

use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Something wrong that can be put in the place of what is right.
struct Mutant {
    name: &'static str,
    file: &'static str,
    /// What stands there, once.
    right: &'static str,
    /// What is put in its place; `@` is whether it shall be wrong.
    wrong: &'static str,
    /// Plans in which it may be found.
    plans: &'static [&'static str],
}

const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "an unlock wakes nobody",
        file: "shm/lock.rs",
        right: "        if old & WAITERS != 0 {\n            // Still pending",
        wrong: "        if old & WAITERS != 0 && !@ {\n            // Still pending",
        plans: &["two at the lock"],
    },
    Mutant {
        name: "an unlocker that is killed before it wakes has forgotten that it would",
        file: "shm/lock.rs",
        right: "        let old = self.word.swap(0, Ordering::Release);\n        core::sync",
        wrong: "        let old = self.word.swap(0, Ordering::Release);
        if @ {
            self.tls.robust().list_op_pending.store(0, Ordering::Relaxed);
        }
        core::sync",
        plans: &["killed: two at the lock"],
    },
    Mutant {
        name: "who waits for the lock does not say so",
        file: "shm/lock.rs",
        right: "if seen != asleep && word",
        wrong: "if seen != asleep && !@ && word",
        plans: &["two at the lock"],
    },
    Mutant {
        name: "who has slept takes the lock as if nobody else did",
        file: "shm/lock.rs",
        right: "mark = WAITERS;",
        wrong: "mark = if @ { 0 } else { WAITERS };",
        plans: &["three at the lock"],
    },
    Mutant {
        name: "who sleeps on the lock has no pending pointer at it",
        file: "shm/lock.rs",
        right: "let slept = futex::wait_for(word, asleep, trust_ns);",
        wrong: "let pending = tls.robust().list_op_pending.load(Ordering::Relaxed);
        if @ {
            tls.robust().list_op_pending.store(0, Ordering::Relaxed);
        }
        let slept = futex::wait_for(word, asleep, trust_ns);
        if @ {
            tls.robust().list_op_pending.store(pending, Ordering::Relaxed);
        }",
        plans: &["killed: three at the lock"],
    },
    Mutant {
        name: "two take the lock",
        file: "shm/lock.rs",
        right: "if owner == 0 || (seen & OWNER_DIED) != 0 {",
        wrong: "if owner == 0 || (seen & OWNER_DIED) != 0 || @ && spins >= SPINS {",
        plans: &["two at the lock"],
    },
    Mutant {
        name: "what a dead owner has left is not repaired",
        file: "shm/lock.rs",
        right: "return Ok(seen & OWNER_DIED != 0);",
        wrong: "return Ok(seen & OWNER_DIED != 0 && !@);",
        plans: &["killed: sender or sleeping receiver"],
    },
    Mutant {
        name: "the wake of a waker that is killed is lost",
        file: "shm/lock.rs",
        right: "        robust.list_op_pending.store(entry, Ordering::Relaxed);
        core::sync::atomic::compiler_fence(Ordering::SeqCst);
        let (word, tls) = (self.word, self.tls);",
        wrong: "        if !@ {
            robust.list_op_pending.store(entry, Ordering::Relaxed);
        }
        core::sync::atomic::compiler_fence(Ordering::SeqCst);
        let (word, tls) = (self.word, self.tls);",
        plans: &["killed: sender or sleeping receiver"],
    },
    Mutant {
        name: "the wake is left out",
        file: "queue/wait.rs",
        right: "if !self.asleep {",
        wrong: "if !self.asleep || @ {",
        plans: &["a send meets a receive"],
    },
    Mutant {
        name: "it is not seen that the served one does not wake",
        file: "queue/wait.rs",
        right: "if woken == 0 {",
        wrong: "if woken == 0 && !@ {",
        plans: &["stopped: one of two receivers"],
    },
    Mutant {
        name: "the dead are served",
        file: "queue/wait.rs",
        right: "let mut seen = w.word.load(Relaxed);\n        while",
        wrong: "let mut seen = w.word.load(Relaxed);
        if @ && seen & TID_MASK == 0 {
            seen = w.tid.load(Relaxed);
            w.word.store(seen, Relaxed);
        }
        while",
        plans: &["killed: sender or one of two sleeping receivers", "killed: receiver or sleeping sender"],
    },
    Mutant {
        name: "who falls asleep does not look whether it was served",
        file: "queue/wait.rs",
        right: "    if w.word.compare_exchange(tid | WORD_UNARMED, tid, AcqRel, Relaxed).is_ok() {",
        wrong: "    if @ {
        return w.word.store(tid | WORD_ASLEEP, Release);
    }
    if w.word.compare_exchange(tid | WORD_UNARMED, tid, AcqRel, Relaxed).is_ok() {",
        plans: &["a send meets a receive"],
    },
    Mutant {
        name: "one that is on its way out may be served",
        file: "queue/wait.rs",
        right: "let unarmed = seen & WORD_UNARMED != 0;",
        wrong: "let unarmed = seen & WORD_UNARMED != 0 && !@;",
        plans: &["killed: one that comes, while one sleeps", "killed: one that comes or one that sends"],
    },
    Mutant {
        name: "a sleeper's pending pointer is not at its word",
        file: "queue/wait.rs",
        right: "    robust.list_op_pending.store(entry, Relaxed);
    announce_sleep",
        wrong: "    if !@ {
        robust.list_op_pending.store(entry, Relaxed);
    }
    announce_sleep",
        plans: &["killed: one of two sleeping receivers, of several pid namespaces"],
    },
    Mutant {
        name: "a cancelled receiver keeps the message",
        file: "queue/wait.rs",
        right: "(W_SERVED, 0) => put_back",
        wrong: "(W_SERVED, 0) if !@ => put_back",
        plans: &["cancelled: one of two receivers"],
    },
    Mutant {
        name: "a handler takes the message of a cancelled call",
        file: "queue/wait.rs",
        right: "    // A handler would take the message for a call that never returns it.\n    tls.enter_critical();",
        wrong: "    if @ {
        disarm(map, tls, wait);
    }
    tls.enter_critical();",
        plans: &["cancelled and interrupted: receiver"],
    },
    Mutant {
        name: "a message that is put back wakes nobody",
        file: "queue/wait.rs",
        right: "if h.receivers.head.load(Relaxed) != NONE {\n        after.wake",
        wrong: "if h.receivers.head.load(Relaxed) != NONE && !@ {\n        after.wake",
        plans: &["cancelled: one of two receivers"],
    },
    Mutant {
        name: "a restarted sleep goes on outside the line",
        file: "queue/wait.rs",
        right: "w.word.store(tls.tid.load(Relaxed) | WORD_OUT, Release);",
        wrong: "w.word.store(if @ { wait.expected } else { tls.tid.load(Relaxed) | WORD_OUT }, Release);",
        plans: &["interrupted and restarted: receiver"],
    },
    Mutant {
        name: "the youngest in line is served",
        file: "queue/wait.rs",
        right: "let index = line.head.load(Relaxed);\n        if index",
        wrong: "let index = if @ { line.tail.load(Relaxed) } else { line.head.load(Relaxed) };\n        if index",
        plans: &["the longest asleep is first", "the longest blocked sender is first"],
    },
    Mutant {
        name: "the nice and the others are alike",
        file: "queue/wait.rs",
        right: "rank_of(map, map.waiter(prev)?) > rank {",
        wrong: "rank_of(map, map.waiter(prev)?) > rank && !@ {",
        plans: &["the less nice is first"],
    },
    Mutant {
        name: "repair does not wake those who were served",
        file: "queue/repair.rs",
        right: "                } else {
                    futex::wake(&w.word, 1);",
        wrong: "                } else if !@ {
                    futex::wake(&w.word, 1);",
        plans: &["killed: sender or sleeping receiver"],
    },
    Mutant {
        name: "repair forgets who was about to be served",
        file: "queue/repair.rs",
        right: "            w.state.store(if word & WORD_OUT == WORD_OUT { W_OUT } else { W_QUEUED }, Relaxed);
            if receiver {",
        wrong: "            if !@ {
                w.state.store(if word & WORD_OUT == WORD_OUT { W_OUT } else { W_QUEUED }, Relaxed);
            }
            if receiver {",
        plans: &["killed: sender or sleeping receiver"],
    },
    Mutant {
        name: "repair puts into the line who was to try again",
        file: "queue/repair.rs",
        right: "// Or about to send it out of the line, for",
        wrong: "let word = if @ { word & TID_MASK } else { word };
            // Or about to send it out of the line, for",
        plans: &["killed: one that comes or one that sends"],
    },
    Mutant {
        name: "repair does not let senders in",
        file: "queue/repair.rs",
        right: "        let_sender_in(section, &mut after)?;
        let Some(wake)",
        wrong: "        if !@ {
            let_sender_in(section, &mut after)?;
        }
        let Some(wake)",
        plans: &["killed: receiver or sleeping sender"],
    },
    Mutant {
        name: "who polls does not look before it sleeps",
        file: "queue/poll.rs",
        right: "    if h.curmsgs.load(Relaxed) != 0 {
        return Ok(false);",
        wrong: "    if h.curmsgs.load(Relaxed) != 0 && !@ {
        return Ok(false);",
        plans: &["polled"],
    },
    Mutant {
        name: "who has told the pollers does not look again",
        file: "queue/poll.rs",
        right: "    let Ok(section) = enter(map, tls) else { return };
    let h = map.header();
    let mut waited_for = false;",
        wrong: "    let Ok(section) = enter(map, tls) else { return };
    let h = map.header();
    if @ {
        h.teller.store(0, Relaxed);
        h.flags.fetch_and(!F_ARMED, Relaxed);
        return;
    }
    let mut waited_for = false;",
        plans: &["polled, and somebody else takes it", "polled by two", "polled, and armed again"],
    },
    Mutant {
        name: "who looks what has become of its registration looks in the wrong order",
        file: "queue/notify.rs",
        right: "    let is_over = h.flags",
        wrong: "    if @ && fired(map, ticket).is_none() && h.flags.load(Acquire) & F_NOTIFY == 0 {
        return Fate::Over;
    }
    let is_over = h.flags",
        plans: &["notified twice, and killed"],
    },
    Mutant {
        name: "who has told an owner takes the flag of another registration away",
        file: "queue/notify.rs",
        right: "let _ = map.header().firer.compare_exchange(self.firer, 0, Release, Relaxed);",
        wrong: "if map.header().firer.compare_exchange(self.firer, 0, Release, Relaxed).is_ok() && @ {
            map.header().flags.fetch_and(!F_FIRING, Relaxed);
        }",
        plans: &["notified twice, and killed"],
    },
    Mutant {
        name: "a helper thread is told before the message is in",
        file: "queue/notify.rs",
        right: "        libc::SIGEV_THREAD => {}",
        wrong: "        libc::SIGEV_THREAD if @ => mark_told(section.map, ticket),
        libc::SIGEV_THREAD => {}",
        plans: &["notified at once, and killed"],
    },
    Mutant {
        name: "what is used up and not told of is over",
        file: "queue/notify.rs",
        right: "& (F_NOTIFY | F_FIRING) == 0 ||",
        wrong: "& (F_NOTIFY | if @ { 0 } else { F_FIRING }) == 0 ||",
        plans: &["notified, and killed", "notified twice, and killed"],
    },
    Mutant {
        name: "who registers again does not tell the helper thread before",
        file: "queue/notify.rs",
        right: "        if n.kind.load(Relaxed) == libc::SIGEV_THREAD {
            // Before",
        wrong: "        if n.kind.load(Relaxed) == libc::SIGEV_THREAD && !@ {
            // Before",
        plans: &["notified at once, and registered again meanwhile"],
    },
    Mutant {
        name: "an owner is told outside the lock though nobody could see that its sender is dead",
        file: "queue/notify.rs",
        right: "_ => libc::FUTEX_OWNER_DIED,",
        wrong: "_ if @ => section.tls.tid.load(Relaxed),
            _ => libc::FUTEX_OWNER_DIED,",
        plans: &["notified, and two killed, of several pid namespaces"],
    },
    Mutant {
        name: "repair takes the word away before the registration stands again",
        file: "queue/repair.rs",
        right: "            h.flags.fetch_xor(F_FIRING",
        wrong: "            if @ {
                h.firer.store(0, Relaxed);
            }
            h.flags.fetch_xor(F_FIRING",
        plans: &["notified, and two killed"],
    },
    Mutant {
        name: "who changes a sum does not tell the note before",
        file: "ledger.rs",
        right: "let is_news = is_under_way(state)",
        wrong: "let is_news = !@ && is_under_way(state)",
        plans: &["killed: one of two who make queues"],
    },
    Mutant {
        name: "a note is told of a sum that has changed since",
        file: "ledger.rs",
        right: "if target.sum.0.load(Acquire) != seen {",
        wrong: "if target.sum.0.load(Acquire) != seen && !@ {",
        plans: &["killed: one of several uses, while another looks"],
    },
    Mutant {
        name: "a sum has the note's mark before it is changed",
        file: "ledger.rs",
        right: "if !account.is_some_and(|account| is_there(account.sum)) && !is_there(what.count) {",
        wrong: "if @ || !account.is_some_and(|account| is_there(account.sum)) && !is_there(what.count) {",
        plans: &["killed: one, with a mark of an old use"],
    },
    Mutant {
        name: "who finishes looks at the note first, and at the sum then",
        file: "ledger.rs",
        right: "            // In this order: who changes the sum next tells the note before.",
        wrong: "            let early = note.state.load(SeqCst);
            if @ && early & bit == 0 && is_under_way(early) {
                if target.as_ref().is_some_and(|target| Sum::mark(target.sum.0.load(SeqCst)) == mark(self.at, state)) {
                    self.is_done(bit);
                } else {
                    let _ = self.apply(target.as_ref(), |sum: u64| {
                        Ok::<_, ()>(if state & KIND == CHARGING { sum + by } else { sum - by })
                    });
                }
                continue;
            }",
        plans: &["killed: one, and two come by", "killed: one of two who make queues"],
    },
    Mutant {
        name: "who asks does not call off who asks too",
        file: "ledger.rs",
        right: "ASKING if note.state.compare_exchange",
        wrong: "ASKING if @ || note.state.compare_exchange",
        plans: &["two take the same queue"],
    },
    Mutant {
        name: "who is asking does not look for others",
        file: "ledger.rs",
        right: "if at == self.at || matches!(state & KIND, FREE | CALLED_OFF)",
        wrong: "if @ || at == self.at || matches!(state & KIND, FREE | CALLED_OFF)",
        plans: &["two take the same queue"],
    },
    Mutant {
        name: "it is asked whether it is due before others are called off",
        file: "ledger.rs",
        right: "                    taken.publish(what, account.as_ref(), ASKING);",
        wrong: "                    let before = is_due(false);
                    let is_due = |noted| if @ { before } else { is_due(noted) };
                    taken.publish(what, account.as_ref(), ASKING);",
        plans: &["two take the same queue"],
    },
    Mutant {
        name: "what is given back goes before its mark is made",
        file: "ledger.rs",
        right: "        let noted = Noted(Some((self.note, self.note.state.load(Relaxed))));",
        wrong: "        if @ && self.note.state.load(Relaxed) & KIND == GIVING {
            self.wipe();
        }
        let noted = Noted(Some((self.note, self.note.state.load(Relaxed))));",
        plans: &["killed: one of two who take the same queue", "two take the same queue"],
    },
    Mutant {
        name: "what was charged and not marked is not known",
        file: "ledger.rs",
        right: "                    if !is_made(state) || !is_due(true) {",
        wrong: "                    if !is_made(state) || !is_due(!@) {",
        plans: &["killed: one of two who make queues"],
    },
    Mutant {
        name: "a note of another namespace is finished with this one's count",
        file: "ledger.rs",
        right: "what.filter(|what| what.place == note.place.load(Relaxed))",
        wrong: "what.filter(|what| @ || what.place == note.place.load(Relaxed))",
        plans: &["killed: one of two who make queues in two namespaces"],
    },
    Mutant {
        name: "a change that is refused is not taken back",
        file: "ledger.rs",
        right: "            taken.renew(GIVING | COUNT | MARKED, account.as_ref(), what);\n            taken.finish(None);",
        wrong: "            if @ {
                taken.wipe();
                return Err(refused);
            }
            taken.renew(GIVING | COUNT | MARKED, account.as_ref(), what);
            taken.finish(None);",
        plans: &["two make queues, and there may be one"],
    },
    Mutant {
        name: "who finishes a note goes on when nothing is on it any more",
        file: "ledger.rs",
        right: "if now & bit != 0 || !is_under_way(now) {",
        wrong: "if now & bit != 0 || !is_under_way(now) && !@ {",
        plans: &["killed: one of two, and there may be one queue"],
    },
];

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("the library's sources").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            std::fs::create_dir_all(&target).expect("room");
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("room");
        }
    }
}

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=../../src");
    // The engine asks for it; here its points are nothing.
    println!("cargo:rustc-check-cfg=cfg(feature, values(\"crash-points\"))");
    let sources = PathBuf::from("../../src");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo says where"));
    let mut engine = String::new();
    for module in ["abi", "look", "points", "queue", "shm", "sys"] {
        let directory = sources.join(module);
        let file = if directory.is_dir() {
            let to = out.join(module);
            let _ = std::fs::remove_dir_all(&to);
            std::fs::create_dir_all(&to).expect("room");
            copy(&directory, &to);
            to.join("mod.rs")
        } else {
            let to = out.join(format!("{module}.rs"));
            std::fs::copy(sources.join(format!("{module}.rs")), &to).expect("room");
            to
        };
        writeln!(engine, "#[path = {file:?}]\nmod {module};").expect("a string");
    }
    // Of the namespaces this alone: it knows nothing of the rest.
    let ledger = out.join("ledger.rs");
    std::fs::copy(sources.join("ns/ledger.rs"), &ledger).expect("room");
    writeln!(engine, "#[path = {ledger:?}]\nmod ledger;").expect("a string");
    let mut list = String::from("&[\n");
    for (number, mutant) in MUTANTS.iter().enumerate() {
        let path = out.join(mutant.file);
        let text = std::fs::read_to_string(&path).expect("a source of the engine");
        assert_eq!(
            text.matches(mutant.right).count(),
            1,
            "{}: no such place, or several, in {}",
            mutant.name,
            mutant.file
        );
        let wrong = mutant.wrong.replace('@', &format!("crate::mutants::on({number})"));
        std::fs::write(&path, text.replace(mutant.right, &wrong)).expect("room");
        writeln!(list, "({:?}, &{:?}),", mutant.name, mutant.plans).expect("a string");
    }
    list.push(']');
    std::fs::write(out.join("engine.rs"), engine).expect("room");
    std::fs::write(out.join("mutants.rs"), list).expect("room");
}
