//! What the library tells the command `mqns` of queues, and what both have to say alike of names.

/// A queue's file, as stat(2) shows it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Entry {
    /// The name, without its leading slash.
    pub name: *const u8,
    /// Its length in bytes.
    pub len: usize,
    /// `st_mode`.
    pub mode: u32,
    /// `st_uid`.
    pub uid: u32,
    /// `st_gid`.
    pub gid: u32,
}

/// A queue at one moment.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct State {
    /// Bytes in the queue (`QSIZE`).
    pub bytes: u64,
    /// Seconds of creation.
    pub created: u64,
    /// Seconds of the last send or receive; of creation, if there was none.
    pub used: u64,
    /// Messages sent since it was made.
    pub sent: u64,
    /// Messages in the queue.
    pub messages: u32,
    /// Blocked receivers.
    pub receivers: u32,
    /// Blocked senders.
    pub senders: u32,
    /// `sigev_notify` of the registration for notification, if `notify_pid` is not -1.
    pub notify: i32,
    /// Its `sigev_signo`.
    pub signo: i32,
    /// Its owner's process id; 0: not to be seen from here; -1: nobody is registered.
    pub notify_pid: i32,
}

/// A blocked caller.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Sleeper {
    /// Thread id; 0: the queue is used from several pid namespaces, and it may be one of another.
    pub tid: u32,
    /// 0 receiver, 1 sender.
    pub sends: u32,
}

/// A message, known by its number, which is never given twice.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Message {
    /// The number, which grows with each message.
    pub number: u64,
    /// Where it lies.
    pub slot: u32,
    /// Bytes.
    pub len: u32,
    /// Priority.
    pub priority: u32,
}

/// What one who taps a queue remembers.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Tap {
    /// The descriptor that taps.
    pub fd: i32,
    /// 1: it has been told that the queue's name is gone.
    pub seen_unlinked: u32,
    /// Where the next record begins.
    pub at: u64,
    /// The number of the next message.
    pub next: u64,
}

/// What has happened to a queue that is tapped.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TapEvent {
    /// Tapping was stopped.
    Over = 0,
    /// A message was sent.
    Message = 1,
    /// The queue's name is gone.
    Unlinked = 2,
}

/// A message that was sent.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct TappedMessage {
    /// Its number.
    pub number: u64,
    /// When it was sent, CLOCK_REALTIME, ns.
    pub time_ns: u64,
    /// How many before it were missed.
    pub missed: u64,
    /// Bytes.
    pub len: u32,
    /// Priority.
    pub priority: u32,
}

/// Which library it is, and by what its files begin.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Formats {
    /// Its version, UTF-8.
    pub version: *const u8,
    /// The length of that in bytes.
    pub version_len: usize,
    /// First word of a namespace's file `control`.
    pub control: u64,
    /// First word of the file `accounts`.
    pub accounts: u64,
    /// First word of a queue's segment.
    pub segment: u64,
    /// Second word of a queue's segment, once that is complete.
    pub format: u64,
}

/// Longest name of a namespace, bytes.
pub const LONGEST_NAME: usize = 64;

/// Whether a namespace can have this name: letters, digits, `.`, `_`, `-`, `:`, the first a letter or `_`. So a name is
/// neither a number nor a path.
pub fn is_name(name: &[u8]) -> bool {
    let starts = name.first().is_some_and(|&b| b.is_ascii_alphabetic() || b == b'_');
    starts && name.len() <= LONGEST_NAME && name.iter().all(|&b| b.is_ascii_alphanumeric() || b"._-:".contains(&b))
}
