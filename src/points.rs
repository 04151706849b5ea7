//! The named crash points: where a test may have a process die, between two changes that belong together.
//!
//! Only a library that is built with the feature `crash-points` has them (`crate::sys::point`); in any other
//! [`crash_point!`](crate::crash_point) is nothing. `tests/points.rs` reads this list: each point has to be passed by
//! one of its operations, and to stand in `docs/faults.md`.

/// Name of each point, and what it stands between: what has been done, and what has not.
pub const ALL: &[(&str, &str)] = &[
    // Creating a queue (`ns::queues`).
    ("create.drafted", "the queue's file is there, under a hidden name; it is not locked"),
    ("create.held", "it is locked; nothing is charged"),
    ("ledger.taken", "a note is taken; nothing is on it"),
    ("ledger.asked", "it says that something is to be given back, by whoever is the only one"),
    ("ledger.noted", "it says what is charged or given back; account and count are as before"),
    ("ledger.account", "the account is changed, and says by which note; the count of queues is not"),
    ("ledger.count", "both are; the note does not say so yet"),
    ("ledger.settled", "the note says so, and is taken"),
    ("ledger.unlocked", "it is let go; the queue itself does not say that it is charged (or not any more)"),
    ("create.charged", "as before, in a maker"),
    ("create.marked", "the hidden file's size says that it is charged; the note is there still"),
    ("create.settled", "the note is gone; there is no key"),
    ("create.key_made", "the key's file is there, and empty"),
    ("create.keyed", "it holds the key; there is no segment"),
    ("create.segment_made", "the segment's file is there, and empty"),
    ("create.segment_sized", "it has its size; no header"),
    ("create.fifo_made", "the FIFO is there; the segment is not complete"),
    ("create.published", "the segment is complete; the queue has no name"),
    ("create.linked", "it has its name, and the hidden one as well (where it is mounted)"),
    ("create.named", "it has its name; its maker has no descriptor"),
    ("create.emptied", "a failed creation: segment, FIFO and key are gone; it is charged"),
    ("create.given_back", "the charge is given back; the hidden file is there"),
    ("furnish.marked", "of a file that a program without the library has made: charged; no segment"),
    ("furnish.published", "segment and FIFO are complete; the key is under a hidden name"),
    ("furnish.named", "it is a queue; the maker has no descriptor"),
    // Opening.
    ("open.mapped", "the queue is mapped; the FIFO is not open"),
    ("open.opened", "the FIFO is open; whether the name was gone is not looked at"),
    ("open.entered", "the descriptor is known; the call has not returned"),
    // Removing.
    ("unlink.linked", "the queue's file has a hidden name beside its own (where it is mounted)"),
    ("unlink.aside", "it has the hidden name alone; the segment does not say so"),
    ("unlink.marked", "the segment says that the name is gone; nobody has looked whether it is open"),
    ("unlink.unused", "it is not open; everything is there"),
    ("nameless.moved", "it is open: the FIFO has its new name; there is no link for what is charged"),
    ("nameless.linked", "there is; nobody has counted it"),
    ("destroy.dead", "the segment says that the queue is dead; it is charged"),
    ("destroy.marked", "the segment says that the charge is given back; the note is there still"),
    ("destroy.uncharged", "the link for what was charged is gone as well; the files are there"),
    ("destroy.fifo", "the FIFO is gone; the segment is there"),
    ("destroy.segment", "the segment is gone; the key is there"),
    ("destroy.key", "the key is gone; the hidden name is there"),
    ("abandoned.emptied", "of what a dead maker has left only the hidden file is there; it is charged"),
    ("abandoned.given_back", "the charge is given back; the file is there"),
    ("close.closed", "the descriptor is closed; a registration for notification is there, and the queue"),
    ("close.unregistered", "the registration is gone; the queue is there, which nobody has open"),
    // The engine (`queue`).
    ("send.filled", "the message is in a slot of the sender's"),
    ("send.linked", "it is in its ring; the slot does not say so"),
    ("send.ready", "the slot says that the message is in the queue; the counts do not"),
    ("send.committed", "it is in the queue; the lock is held, nobody has been told"),
    ("handover.taken", "the message is for a sleeping receiver; none is marked"),
    ("handover.marked", "the sleeper is marked as served; its word does not say so"),
    ("handover.served", "its word says so; the lock is held"),
    ("wake.unlocked", "the lock is free; the sleeper has not been woken"),
    ("tell.unlocked", "the lock is free; the packet for those who poll has not been written"),
    ("tell.written", "it has; its writer is still named"),
    ("packets.added", "a packet was written under the lock; it is not counted"),
    ("packets.removed", "a packet was taken out under the lock; it is not counted"),
    ("receive.copied", "the message is with the receiver, and in the queue"),
    ("receive.unlinked", "it is in no ring; the slot says that it is in the queue"),
    ("receive.freed", "it is gone from the queue; no sleeping sender has been let in, nobody has been told"),
    ("receive.taken", "a large message is the receiver's; it has not been copied"),
    ("receive.delivered", "it has; the slot is not free"),
    ("letin.served", "the sleeping sender's word says that it is served; its message is not in the queue"),
    ("wait.queued", "the caller is in line; the lock is held"),
    ("wait.unlocked", "the lock is free; its word does not say that it sleeps"),
    ("wait.asleep", "its word says that it sleeps; it does not yet"),
    ("wait.woken", "it is awake; it has not looked why"),
    ("wait.taken", "it was served, and has the message; the slot is not free"),
    ("wait.left", "its time is up: it is out of the line; record and slot are its own still"),
    ("lock.inherited", "the lock of a dead owner is taken over; nothing is repaired"),
    ("repair.waiters", "those who were being served are put right; the slots are not"),
    ("repair.slots", "the slots of the dead are free; the order is gone"),
    ("repair.rebuilt", "order and counts are rebuilt; the lines are not"),
    ("repair.lines", "the lines are gone, records looked at; nobody is in line"),
    ("repair.done", "all is in order; the lock is held, pollers have not been told"),
    // mq_notify (`queue::notify`).
    ("notify.locked", "the record lock is taken; nothing is recorded"),
    ("notify.recorded", "all is recorded; it does not count yet"),
    ("notify.registered", "it counts; the lock is held"),
    ("notify.unlocked", "the record lock is dropped; the record counts"),
    ("notify.fired", "a message is about to use the registration up; it is not in the queue, no signal is sent"),
    ("firer.unlocked", "the lock is free; the registered process has not been told"),
    (
        "notify.marked",
        "the message is in the queue; the owner's helper thread could see that it is to be told, and sleeps",
    ),
    ("notify.signalled", "the signal is sent, or the helper thread's word changed; the call has not returned"),
    ("bell.made", "the file of the bell is there; no lease"),
    ("bell.hung", "the lease is there; it is not recorded"),
    ("bell.rung", "the bell was rung; the call has not returned"),
    // Namespaces (`ns`).
    ("initial.directories", "the directories of the first namespace are there; no accounts"),
    ("initial.accounts", "the accounts are there; no limits"),
    ("file.drafted", "accounts or limits are there under a hidden name"),
    ("ns.directory", "the directory of a new namespace is there, and empty"),
    ("ns.control", "its file `control` is there, and empty; nobody holds it"),
    ("ns.held", "its maker holds it; it is empty"),
    ("ns.filled", "it says which namespace it is; there are no directories"),
    ("ns.directories", "they are there; its maker is no member"),
    ("ns.joined", "the caller is a member, by a mapping that it has not noted"),
    ("ns.kernel", "the kernel has moved the caller; it has not noted its namespace"),
    ("ns.assumed", "it has; the last namespace is not left"),
    ("leave.unmapped", "the last namespace is left; nobody has looked whether it is empty"),
    ("fork.begun", "a fork child runs; its maker's thread has a namespace of its own, the child has none"),
    ("exec.bridged", "the descriptor that takes the membership over exec is open"),
    ("exec.adopted", "the new image is a member; the descriptor is open"),
    ("exit.left", "the process is in no namespace any more; nobody has looked whether one is empty"),
    ("end.locked", "nobody is a member, and nobody can become one; it is not declared dead"),
    ("end.declared", "it is declared dead; names and queues are there"),
    ("end.names", "the names are gone; other files are there"),
    ("end.queues", "all queues are gone; the directories are there"),
    ("end.directories", "the directories are gone, but for the one with `control`"),
    ("end.control", "`control` is gone; the directory is there"),
    // Mounts (`vfs`).
    ("mount.registered", "the superblock is in the register; it is not counted"),
    ("mount.counted", "it is counted; the namespace does not know"),
    ("mount.detached", "there is a mount, which is attached nowhere"),
    ("mount.attached", "it is mounted; nothing is recorded of it"),
    ("mount.drafted", "its record is there, under a hidden name"),
    ("umount.forgotten", "its record is gone; it is mounted"),
    ("umount.done", "it is unmounted; a namespace that has ended is there"),
    ("virtual.counted", "a virtual mount is counted; there is no entry"),
    ("virtual.drafted", "its entry is there, under a hidden name"),
    ("virtual.entered", "it is mounted; the call has not returned"),
];

/// The number of a point. A name that is not in the list does not compile.
pub const fn index_of(name: &str) -> usize {
    let mut at = 0;
    while at < ALL.len() {
        if is_same(ALL[at].0.as_bytes(), name.as_bytes()) {
            return at;
        }
        at += 1;
    }
    panic!("no such crash point")
}

const fn is_same(a: &[u8], b: &[u8]) -> bool {
    let mut at = 0;
    while at < a.len() && at < b.len() && a[at] == b[at] {
        at += 1;
    }
    at == a.len() && at == b.len()
}
