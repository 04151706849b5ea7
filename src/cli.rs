//! The command's surface: arguments, exit status, messages.

mod bench;
mod doctor;
mod elf;
mod generate;
mod limits;
mod look;
mod lsns;
mod message;
mod mount;
mod namespace;
mod preloaded;
mod queue;
mod run;
mod signals;
mod table;
mod tap;
mod top;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// How `mqns` ends by itself; when it has started a command, the exit status is the command's. The
/// numbers are those of env(1), nohup(1) and timeout(1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub enum Exit {
    /// Done: help, version or a list printed.
    Done = 0,
    /// A queue or a limit has refused what was asked for: there is no such queue, or there is one already; no
    /// permission; a limit is reached. Of `mqns doctor`: there is a problem.
    Refused = 1,
    /// The queue was full or empty, and was not to be waited for, or not so long.
    WouldBlock = 124,
    /// mqns itself failed: wrong arguments, no libmqns.so, an unusable directory.
    Failed = 125,
    /// The command was found but cannot be run, or cannot be run with the library in it.
    CannotRun = 126,
    /// The command was not found.
    NotFound = 127,
}

/// Why it was not done.
pub struct Failure {
    exit: Exit,
    /// The object concerned, the cause and the remedy.
    message: String,
}

impl Failure {
    fn new(exit: Exit, object: impl fmt::Display, cause: impl fmt::Display, remedy: impl fmt::Display) -> Failure {
        Failure { exit, message: format!("{object}: {cause}; {remedy}") }
    }

    fn say(&self) {
        eprintln!("mqns: {}", self.message);
    }
}

/// An error of the system without Rust's "(os error N)".
struct Cause<'a>(&'a io::Error);

impl fmt::Display for Cause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        f.write_str(text.split(" (os error").next().unwrap_or(&text))
    }
}

/// POSIX message queues and IPC namespaces in user space, for unmodified programs.
///
/// `mqns run -- CMD` starts CMD with libmqns.so preloaded: its mq_* calls, those that make and join IPC
/// namespaces, and those that mount the mqueue file system, are then answered by the library, in shared memory,
/// whatever the kernel has or lacks.
#[derive(Parser)]
#[command(name = "mqns", version, max_term_width = 100, after_help = EXIT_STATUS)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

const EXIT_STATUS: &str = "\
Exit status of `mqns run` and `mqns enter`:
  that of CMD  once it runs; signals reach it directly, mqns is no longer there
  125          mqns itself failed (wrong arguments, libmqns.so not found)
  126          CMD cannot be run, or the library cannot be preloaded into it
  127          CMD was not found
Of the others:
  0            done
  1            refused: no such queue, no permission, a limit is reached; doctor: there is a problem
  124          the queue was full, or empty, for as long as it was to be waited for
  125          mqns itself failed (wrong arguments, libmqns.so or the namespace not found)";

const ENVIRONMENT: &str = "\
Environment:
  MQNS_LIB     libmqns.so to preload; else it is looked for beside mqns, in ../lib,
               ../lib/mqns and ../lib/*/mqns, and where it was built
  MQNS_DIR, MQNS_PRIVILEGES, MQNS_LIMITS, MQNS_POLL, MQNS_LOG, MQNS_MOUNT
               what the options set; they hold for everything that CMD starts, too
  LD_PRELOAD   kept, behind the library";

const RUN_EXAMPLES: &str = "\
Examples:
  mqns run -- ./server
  mqns run --limits generous --log stderr -- ./server --queue-depth 50000
  mqns run --dir /dev/shm/test1 -- sh -c './sender & ./receiver'
  mqns run --fresh -- ./test         # queues of its own, gone at its end; takes no privilege
  mqns run --ns ci -- ./server       # the same for all who name `ci`, until the last of them ends
  mqns run --mount /dev/mqueue -- ls -l /dev/mqueue  # its queues as files; no mount, no privilege";

const ENTER_HELP: &str = "\
A process that runs without the library is in the initial namespace, which all such processes share.
Needed are the right to look into PID (as with strace: the same user, or root), and
CAP_SYS_ADMIN, unless `--privileges generous` is given. A namespace with a name is the user's own, and
takes neither.

Examples:
  mqns enter -t 4711 -- ./client
  mqns enter --ns ci -- ./client
  mqns enter --target $(pidof -s server) --privileges generous   # a shell";

const LSNS_HELP: &str = "\
Columns:
  NS       number of the namespace, as in /proc/PID/ns/ipc
  NPROCS   how many processes are in it; of each, its first thread counts
  PID      the lowest of their ids
  USER     effective user of that process
  QUEUES   queues in it, those included whose name is gone and that are still open; - if unknown
  NAME     name that `mqns run --ns` has given it; - if it has none
  COMMAND  command line of that process

Processes of other users are seen by root only.

Examples:
  mqns lsns
  mqns lsns -T -o NS,NAME,COMMAND
  mqns lsns --json | jq '.namespaces[] | select(.queues > 0)'
  mqns lsns -n -r -o NS,PID,QUEUES
  kill $(mqns lsns -nro NS,PID | awk '$1 == 1234567890 { print $2 }')";

const LS_HELP: &str = "\
Columns:
  NAME     as mq_open(3) takes it
  OWNER    user that owns it
  MODE     its permissions, octal
  MSGS     messages in it
  BYTES    bytes in it
  MAXMSG   messages that fit
  MSGSIZE  bytes of the longest message
  RECV     threads that wait to receive
  SEND     threads that wait to send
  NOTIFY   process registered for notification
  OPENERS  processes that have it open, as far as the caller may look into them
What the caller may not know is shown as -; BYTES, RECV, SEND and NOTIFY take permission to read.

Examples:
  mqns ls
  mqns ls --ns 4711
  mqns ls --ns ci
  mqns ls --json | jq -r '.queues[] | select(.msgs == .maxmsg) | .name'
  mqns ls -nro NAME,MSGS";

const STAT_HELP: &str = "\
With --prometheus, all queues of the namespace in the format of node_exporter's textfile collector.

Examples:
  mqns stat /jobs
  mqns stat --json /jobs | jq '.queues[0].openers'
  mqns stat --prometheus > /var/lib/node_exporter/mqns.prom.new &&
    mv /var/lib/node_exporter/mqns.prom.new /var/lib/node_exporter/mqns.prom";

const MK_HELP: &str = "\
The queue must not exist. Attributes that are not given are the namespace's defaults.

Examples:
  mqns mk /jobs
  mqns mk --maxmsg 10 --msgsize 512 --mode 620 /jobs
  mqns mk --privileges generous --ns 4711 /jobs";

const RM_HELP: &str = "\
Who has the queue open can go on using it; it ends with the last of them.

Examples:
  mqns rm /jobs
  mqns ls -nro NAME,OPENERS | awk '$2 == 0 { print $1 }' | xargs -r mqns rm";

const SEND_HELP: &str = "\
If the queue is full it waits, unless --timeout or --nonblock is given: then the exit status is 124.

Examples:
  mqns send /jobs 'build 7'
  mqns send --priority 9 --timeout 0.5 /jobs -- --urgent
  head -c 100 /dev/urandom | mqns send --stdin /jobs";

const RECV_HELP: &str = "\
If the queue is empty it waits, unless --timeout or --nonblock is given: then the exit status is 124.
With --all it takes what there is and ends; with --timeout as well, when nothing has come for so long.

Examples:
  mqns recv /jobs
  mqns recv --count 10 --timeout 5 --json /jobs | jq .priority
  mqns recv --raw /jobs > message
  mqns recv --all --hex /jobs";

const PEEK_HELP: &str = "\
Messages stay where they are, in the order in which they would be received; 0 is the next. What
others receive while it looks is left out. Needed is permission to read. Nobody waits for it: the
list is made under the queue's lock; messages are copied without, and taken for whole only if they
are in the queue still.

Examples:
  mqns peek /jobs
  mqns peek --index 0 --raw /jobs | file -
  mqns peek --json /jobs | jq -s 'map(.bytes) | add'";

const TAP_HELP: &str = "\
Messages stay where they are, or go where they go: a tap takes nothing away, and nobody waits for it.
First comes what is in the queue, in the order in which it would be received, then each message as it
is sent, also those that a waiting receiver is given at once. The last 1 MiB is kept for those who tap:
who is slower is told how many messages it has missed (on standard error; with --json an object).
It ends when the queue's name is gone and nobody else has the queue open. Needed is permission to read.

Examples:
  mqns tap /jobs
  mqns tap --timestamps --priority /jobs /replies
  mqns tap --from-now --json /jobs | jq -r 'select(.priority > 5) | .text'
  mqns tap --count 1 --timeout 10 --raw /jobs > message";

const TOP_HELP: &str = "\
IN/s and OUT/s are messages sent and received a second, DEPTH how full the queue is, RECV and SEND
threads that wait, NOTIFY the process registered for notification. What the caller may not know is
shown as -. Below, the selected queue's depth and rates of the last samples.

Keys:
  q                quit
  / TEXT Enter     only queues with TEXT in their names; Esc: all
  r d b w n        sort by rate, depth, bytes, waiters, name; R: the other way round
  Up Down j k PageUp PageDown Home End   select
  Tab              the next namespace; a: all of them, or one
  g                graph on or off
  Ctrl-Z Ctrl-L    suspend, draw anew
There are no colours if NO_COLOR is set.

Examples:
  mqns top
  mqns top --all -d 0.5
  mqns top --batch -n 3 --sort depth | grep /jobs";

const PURGE_HELP: &str = "\
It receives until the queue is empty, also what threads that wait to send have for it.

Examples:
  mqns purge /jobs
  mqns purge --quiet --ns 4711 /jobs";

const LIMITS_HELP: &str = "\
Limits of a namespace, with their ranges:
  msg_max          messages that a queue may be made for (1 to 65536)
  msgsize_max      bytes of a message, likewise (128 to 16777216)
  queues_max       queues; those without a name that are still open count
  msg_default, msgsize_default   for who asks for nothing, but not more than the maximum
Who has CAP_SYS_RESOURCE is not bound by the first three, nor who has MQNS_LIMITS=generous.

mq_open fails with EMFILE if RLIMIT_MSGQUEUE does not suffice: a queue is charged
MAXMSG * (MSGSIZE + 96) bytes, to the user who makes it, in all namespaces together.
`ulimit -q` raises it as far as the hard limit goes.

Examples:
  mqns limits
  mqns limits msg_max
  mqns limits msg_max=100 msgsize_max=65536
  mqns limits --json --ns 4711 | jq .limits.queues_max";

const BENCH_HELP: &str = "\
The same client runs on the kernel's queues and on the library's, in turn, each time in new processes. Nothing
else should run meanwhile. It takes about 25 seconds; as root in IPC namespaces of its own, else within the
kernel's limits, which leave out what does not fit.

Examples:
  mqns bench
  mqns bench pingpong stream-10
  mqns bench --rounds 9 --ms 200 --plot queues.svg
  mqns bench --json pair-64 | jq '.workloads[0].times'";

const MOUNT_HELP: &str = "\
What is mounted shows the queues of one IPC namespace, whoever looks: as files that ls, cat, rm
and chmod work on. With CAP_SYS_ADMIN it is a mount of the kernel's, which programs without the
library see, too; without, and with `--privileges generous`, a virtual one, seen by programs with
the library.

OPTIONS: ro, rw, nosuid, nodev, noexec, noatime, relatime, strictatime, nodiratime.
Later: `mqns run -- mount -o remount,ro DIR` (all of mount(8) works on it).

Examples:
  mqns mount /dev/mqueue
  mqns mount --ns 4711 -o ro /mnt/queues-of-4711
  mqns mount --ns ci /mnt/queues-of-ci
  mqns mount --privileges generous ~/queues && mqns run ls -l ~/queues";

const UMOUNT_HELP: &str = "\
Takes off mounts of the library's queues only, and of these the one on top.

Examples:
  mqns umount /dev/mqueue
  mqns umount --lazy /mnt/server   # out of the tree now, out of memory with its last use
  mqns umount --privileges generous ~/queues";

const DOCTOR_HELP: &str = "\
A line for each finding: `ok`, `note` (good to know) or `problem` (something will not work), each
note and problem with what to do about it. Exit status 1 if there is a problem.

Examples:
  mqns doctor
  mqns doctor $(pidof -s server)
  mqns doctor --json | jq -r '.findings[] | select(.state == \"problem\") | .text'";

const GC_HELP: &str = "\
Nobody needs to call this: what a killed process has left also goes when others make queues
and namespaces. Root takes away what is left of every user, others only what is their own.

Examples:
  mqns gc
  mqns gc --dir /dev/shm/test1 --quiet";

const GENERATE_HELP: &str = "\
For who packages or installs mqns. Pages are mqns.1, one for each command, and libmqns.7. The
completions call mqns for each answer, so that they know its options and, for QUEUE, the queues
that there are. Where they go:
  bash  /usr/share/bash-completion/completions/mqns, or ~/.bashrc: source <(mqns generate --completions bash)
  zsh   /usr/share/zsh/vendor-completions/_mqns, or any directory of $fpath
  fish  /usr/share/fish/vendor_completions.d/mqns.fish, or ~/.config/fish/completions/mqns.fish

Examples:
  mqns generate --man /usr/local/share/man
  mqns generate --completions fish > ~/.config/fish/completions/mqns.fish";

#[derive(Subcommand)]
enum Verb {
    /// Run a command, and all that it starts, on the library's message queues
    #[command(
        after_help = format!("{ENVIRONMENT}\n\n{RUN_EXAMPLES}"),
        after_long_help = format!("{EXIT_STATUS}\n\n{ENVIRONMENT}\n\n{RUN_EXAMPLES}"),
    )]
    Run(Run),

    /// Run a command in the IPC namespace of a process
    #[command(after_help = ENTER_HELP, after_long_help = format!("{EXIT_STATUS}\n\n{ENVIRONMENT}\n\n{ENTER_HELP}"))]
    Enter(Enter),

    /// List the IPC namespaces that processes are in
    #[command(after_help = LSNS_HELP)]
    Lsns(Lsns),

    /// List the queues of an IPC namespace
    #[command(after_help = LS_HELP)]
    Ls(Ls),

    /// Show all that is known of a queue
    #[command(after_help = STAT_HELP)]
    Stat(Stat),

    /// Make a queue
    #[command(after_help = MK_HELP)]
    Mk(Mk),

    /// Take queues away
    #[command(after_help = RM_HELP)]
    Rm(Rm),

    /// Send a message
    #[command(after_help = SEND_HELP)]
    Send(Send),

    /// Receive messages and print them
    #[command(after_help = RECV_HELP)]
    Recv(Recv),

    /// Show messages without receiving them
    #[command(after_help = PEEK_HELP)]
    Peek(Peek),

    /// Follow what is sent, without receiving it
    #[command(after_help = TAP_HELP)]
    Tap(Tap),

    /// Watch the queues: how full they are, and how much goes through them
    #[command(after_help = TOP_HELP)]
    Top(Top),

    /// Empty a queue
    #[command(after_help = PURGE_HELP)]
    Purge(Purge),

    /// Show or set the limits of an IPC namespace
    #[command(after_help = LIMITS_HELP)]
    Limits(Limits),

    /// Measure the library's queues beside the kernel's
    #[command(after_help = BENCH_HELP)]
    Bench(Bench),

    /// What `mqns bench` measures
    #[command(hide = true, disable_help_flag = true)]
    BenchClient {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },

    /// Mount the queues of an IPC namespace on a directory
    #[command(after_help = MOUNT_HELP)]
    Mount(Mount),

    /// Take such a mount off
    #[command(after_help = UMOUNT_HELP)]
    Umount(Umount),

    /// Say what works here and what does not, and why a process has not the library
    #[command(after_help = DOCTOR_HELP)]
    Doctor(Doctor),

    /// Take away namespaces and queues that killed processes have left
    #[command(after_help = GC_HELP)]
    Gc(Gc),

    /// Write man pages, or print what a shell needs to complete command lines
    #[command(after_help = GENERATE_HELP)]
    Generate(Generate),
}

/// Arguments of `mqns run`.
#[derive(Args)]
struct Run {
    /// In a new IPC namespace, which is gone with the last process in it; takes no privilege. --ipc is the same
    #[arg(long, alias = "ipc")]
    fresh: bool,

    /// In the IPC namespace of that name, made if there is none, and gone with the last process in it; takes no
    /// privilege. Or in another one, as `mqns enter`
    #[arg(long, value_name = "NAME|PID|FILE|NUMBER", conflicts_with = "fresh")]
    ns: Option<namespace::Namespace>,

    #[command(flatten)]
    settings: Settings,

    /// The command and its arguments
    #[arg(trailing_var_arg = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Arguments of `mqns enter`.
#[derive(Args)]
struct Enter {
    /// The process. If it was started with the library, MQNS_DIR is taken from it, too
    #[arg(short, long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    target: Option<u32>,

    /// The namespace: its name, a process in it, its file, or its number
    #[arg(long, value_name = "NAME|PID|FILE|NUMBER", conflicts_with = "target", required_unless_present = "target")]
    ns: Option<namespace::Namespace>,

    #[command(flatten)]
    settings: Settings,

    /// The command and its arguments; without one, $SHELL
    #[arg(trailing_var_arg = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// What a command gets by the environment. Without an option its variable stays as it is.
#[derive(Args)]
struct Settings {
    /// Directory of the queues, shared by all who name the same [MQNS_DIR; default /dev/shm/mqns, or
    /// /dev/shm/mqns-UID where root has not made that]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Who may make, join and mount IPC namespaces, and write their limits [MQNS_PRIVILEGES]
    #[arg(long, value_enum, value_name = "WHICH")]
    privileges: Option<Privileges>,

    /// Show CMD the queues of its own namespace as files in this directory, which need not exist; may be
    /// repeated [MQNS_MOUNT]
    #[arg(long, value_name = "DIR")]
    mount: Vec<PathBuf>,

    /// Which limits hold when a queue is created [MQNS_LIMITS]
    #[arg(long, value_enum, value_name = "WHICH")]
    limits: Option<WhichLimits>,

    /// Which programs may poll queues [MQNS_POLL]
    #[arg(long, value_enum, value_name = "WHEN")]
    poll: Option<Poll>,

    /// Say why calls are refused, to `stderr` or at the end of a file [MQNS_LOG]
    #[arg(long, value_name = "stderr|FILE")]
    log: Option<PathBuf>,
}

/// Arguments of `mqns lsns`.
#[derive(Args)]
struct Lsns {
    /// Directory of the queues [MQNS_DIR]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// As JSON
    #[arg(short = 'J', long, conflicts_with_all = ["noheadings", "raw"])]
    json: bool,

    /// Without the line of headings
    #[arg(short, long)]
    noheadings: bool,

    /// Which columns, in this order [default: all]
    #[arg(short, long, value_name = "LIST", value_delimiter = ',', ignore_case = true)]
    output: Vec<lsns::Column>,

    /// For scripts: a blank between columns; blanks within, backslashes and bytes that are not text as \xHH
    #[arg(short, long)]
    raw: bool,

    /// As a tree: a namespace below the one from which its first process was started
    #[arg(short = 'T', long)]
    tree: bool,

    /// Do not cut commands off to fit the terminal
    #[arg(short = 'u', long)]
    notruncate: bool,
}

/// Whose queues.
#[derive(Args)]
struct Where {
    /// The namespace: its name (`mqns run --ns`), a process in it, a file (/proc/PID/ns/ipc, or what that was
    /// bind mounted on), or a number of `mqns lsns` [default: that of the caller]
    #[arg(long, value_name = "NAME|PID|FILE|NUMBER")]
    ns: Option<namespace::Namespace>,

    /// Directory of the queues [MQNS_DIR; with a process as --ns: as it was started]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Who may join IPC namespaces and write their limits [MQNS_PRIVILEGES]
    #[arg(long, value_enum, value_name = "WHICH")]
    privileges: Option<Privileges>,
}

/// Arguments of `mqns ls`.
#[derive(Args)]
struct Ls {
    #[command(flatten)]
    at: Where,

    /// As JSON
    #[arg(short = 'J', long, conflicts_with_all = ["noheadings", "raw"])]
    json: bool,

    /// Without the line of headings
    #[arg(short, long)]
    noheadings: bool,

    /// Which columns, in this order [default: all]
    #[arg(short, long, value_name = "LIST", value_delimiter = ',', ignore_case = true)]
    output: Vec<look::Column>,

    /// For scripts: a blank between columns; blanks within, backslashes and bytes that are not text as \xHH
    #[arg(short, long)]
    raw: bool,

    /// Sizes in bytes, as always in JSON and with --raw
    #[arg(short, long)]
    bytes: bool,
}

/// Arguments of `mqns stat`.
#[derive(Args)]
struct Stat {
    /// Which queues; the leading slash may be left out
    #[arg(value_name = "QUEUE", required_unless_present = "prometheus", conflicts_with = "prometheus")]
    queues: Vec<queue::Name>,

    #[command(flatten)]
    at: Where,

    /// As JSON
    #[arg(short = 'J', long, conflicts_with = "prometheus")]
    json: bool,

    /// All queues, as metrics
    #[arg(long)]
    prometheus: bool,
}

/// Arguments of `mqns mk`.
#[derive(Args)]
struct Mk {
    /// Its name; the leading slash may be left out
    #[arg(value_name = "QUEUE")]
    queue: queue::Name,

    /// How many messages fit [default: msg_default]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    maxmsg: Option<i64>,

    /// How many bytes a message may have [default: msgsize_default]
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true)]
    msgsize: Option<i64>,

    /// Permissions, octal, whatever the umask [default: 666 less the umask]
    #[arg(long, value_name = "MODE", value_parser = queue::mode)]
    mode: Option<u32>,

    #[command(flatten)]
    at: Where,
}

/// Arguments of `mqns rm`.
#[derive(Args)]
struct Rm {
    /// Which queues; the leading slash may be left out
    #[arg(value_name = "QUEUE", required = true)]
    queues: Vec<queue::Name>,

    #[command(flatten)]
    at: Where,
}

/// Arguments of `mqns send`.
#[derive(Args)]
struct Send {
    /// Which queue; the leading slash may be left out
    #[arg(value_name = "QUEUE")]
    queue: queue::Name,

    /// The message
    #[arg(value_name = "MESSAGE", required_unless_present = "stdin", conflicts_with = "stdin")]
    message: Option<OsString>,

    /// The message is all that comes from standard input, whatever its bytes
    #[arg(long)]
    stdin: bool,

    /// Higher ones are received first
    #[arg(short, long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..32768))]
    priority: u32,

    /// Do not wait longer for room
    #[arg(short, long, value_name = "SECONDS", value_parser = message::seconds, conflicts_with = "nonblock")]
    timeout: Option<Duration>,

    /// Do not wait
    #[arg(long)]
    nonblock: bool,

    #[command(flatten)]
    at: Where,
}

/// How messages are printed.
#[derive(Args)]
#[group(id = "shape", multiple = false)]
struct Shape {
    /// A line of JSON each: priority, bytes, and text, or hex if it is no UTF-8
    #[arg(short = 'J', long)]
    json: bool,

    /// Their bytes, and nothing between them
    #[arg(long)]
    raw: bool,

    /// A line of hexadecimal digits each
    #[arg(long)]
    hex: bool,

    /// A line each; what is no text as \xHH
    #[arg(long)]
    text: bool,
}

impl Shape {
    fn is_given(&self) -> bool {
        self.json || self.raw || self.hex || self.text
    }
}

/// Arguments of `mqns recv`.
#[derive(Args)]
struct Recv {
    /// Which queue; the leading slash may be left out
    #[arg(value_name = "QUEUE")]
    queue: queue::Name,

    /// How many messages
    #[arg(short, long, value_name = "N", default_value_t = 1, conflicts_with = "all")]
    count: u64,

    /// All that are there
    #[arg(short, long, conflicts_with = "nonblock")]
    all: bool,

    /// Do not wait longer for each
    #[arg(short, long, value_name = "SECONDS", value_parser = message::seconds, conflicts_with = "nonblock")]
    timeout: Option<Duration>,

    /// Do not wait
    #[arg(long)]
    nonblock: bool,

    #[command(flatten)]
    shape: Shape,

    #[command(flatten)]
    at: Where,
}

/// Arguments of `mqns peek`.
#[derive(Args)]
struct Peek {
    /// Which queue; the leading slash may be left out
    #[arg(value_name = "QUEUE")]
    queue: queue::Name,

    /// Only this message; 0 is the next to be received [default: all]
    #[arg(short, long, value_name = "N")]
    index: Option<usize>,

    #[command(flatten)]
    shape: Shape,

    #[command(flatten)]
    at: Where,
}

/// Arguments of `mqns tap`.
#[derive(Args)]
struct Tap {
    /// Which queues; the leading slash may be left out. Of several, each line begins with the name
    #[arg(value_name = "QUEUE", required = true)]
    queues: Vec<queue::Name>,

    /// Without what is in the queue already
    #[arg(long)]
    from_now: bool,

    /// End after so many messages
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// End when nothing has been sent for so long; the exit status is 124 then
    #[arg(short, long, value_name = "SECONDS", value_parser = message::seconds)]
    timeout: Option<Duration>,

    /// When each was sent; - for what was there before. JSON has it always
    #[arg(short = 'T', long, conflicts_with = "raw")]
    timestamps: bool,

    /// The priority of each. JSON has it always
    #[arg(short, long, conflicts_with = "raw")]
    priority: bool,

    #[command(flatten)]
    shape: Shape,

    #[command(flatten)]
    at: Where,
}

/// Arguments of `mqns top`.
#[derive(Args)]
struct Top {
    /// Seconds from one look to the next
    #[arg(short, long, value_name = "SECONDS", value_parser = top::delay, default_value = "2")]
    delay: Duration,

    /// End after so many intervals
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    iterations: Option<u64>,

    /// Print a table after each interval; no terminal is needed
    #[arg(short, long)]
    batch: bool,

    /// The queues of all namespaces
    #[arg(short, long)]
    all: bool,

    /// What comes first
    #[arg(short, long, value_enum, value_name = "BY", default_value_t = TopSort::Rate)]
    sort: TopSort,

    #[command(flatten)]
    at: Where,
}

/// What `mqns top` sorts by.
#[derive(Clone, Copy, ValueEnum)]
enum TopSort {
    Rate,
    Depth,
    Bytes,
    Waiters,
    Name,
}

/// Arguments of `mqns purge`.
#[derive(Args)]
struct Purge {
    /// Which queue; the leading slash may be left out
    #[arg(value_name = "QUEUE")]
    queue: queue::Name,

    #[command(flatten)]
    at: Where,

    /// Do not say how many messages there were
    #[arg(short, long)]
    quiet: bool,
}

/// Arguments of `mqns limits`.
#[derive(Args)]
struct Limits {
    /// Which to set; without a value, which to print [default: show all, and what is in use]
    #[arg(value_name = "NAME[=VALUE]", value_parser = limits::request, conflicts_with = "json")]
    limits: Vec<limits::Request>,

    #[command(flatten)]
    at: Where,

    /// As JSON
    #[arg(short = 'J', long)]
    json: bool,
}

/// Arguments of `mqns bench`.
#[derive(Args)]
struct Bench {
    /// What to measure: names of `--list`, or their first words [default: all]
    #[arg(value_name = "WORKLOAD", conflicts_with = "list")]
    workloads: Vec<String>,

    /// How often on each side
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,

    /// How long each time, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    ms: u64,

    /// Draw the times, as SVG
    #[arg(long, value_name = "FILE", conflicts_with = "list")]
    plot: Option<PathBuf>,

    /// As JSON: all figures, in nanoseconds
    #[arg(short = 'J', long)]
    json: bool,

    /// List the workloads
    #[arg(long)]
    list: bool,
}

/// Arguments of `mqns mount`.
#[derive(Args)]
struct Mount {
    /// The directory to mount on
    #[arg(value_name = "DIR")]
    directory: PathBuf,

    /// The namespace: its name (`mqns run --ns`), a process in it, a file (/proc/PID/ns/ipc, or what that was
    /// bind mounted on), or a number of `mqns lsns` [default: that of the caller]
    #[arg(long, value_name = "NAME|PID|FILE|NUMBER")]
    ns: Option<namespace::Namespace>,

    /// Options, separated by commas
    #[arg(short, long, value_enum, value_name = "OPTIONS", value_delimiter = ',', hide_possible_values = true)]
    options: Vec<mount::MountOption>,

    /// What mount tables are to show as the source
    #[arg(long, value_name = "NAME", default_value = "mqueue")]
    source: OsString,

    /// Directory of the queues [MQNS_DIR; with a process as --ns: as it was started]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Who may mount: root, or everybody what programs with the library see [MQNS_PRIVILEGES]
    #[arg(long, value_enum, value_name = "WHICH")]
    privileges: Option<Privileges>,

    /// Do not say that the mount is a virtual one
    #[arg(short, long)]
    quiet: bool,
}

/// Arguments of `mqns umount`.
#[derive(Args)]
struct Umount {
    /// The directory that is mounted on
    #[arg(value_name = "DIR")]
    directory: PathBuf,

    /// Even if it is in use: then it goes with the last use
    #[arg(short, long)]
    lazy: bool,

    /// Directory of the queues [MQNS_DIR]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Who may: root, or everybody what programs with the library see [MQNS_PRIVILEGES]
    #[arg(long, value_enum, value_name = "WHICH")]
    privileges: Option<Privileges>,
}

/// Arguments of `mqns doctor`.
#[derive(Args)]
struct Doctor {
    /// A process: whether it has the library, with which settings, and if not why
    #[arg(value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pid: Option<u32>,

    /// Directory of the queues [MQNS_DIR; with a process: as it was started]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// As JSON
    #[arg(short = 'J', long)]
    json: bool,
}

/// Arguments of `mqns gc`.
#[derive(Args)]
struct Gc {
    /// Directory of the queues [MQNS_DIR]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Say nothing
    #[arg(short, long)]
    quiet: bool,
}

/// Arguments of `mqns generate`.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct Generate {
    /// Write the man pages to man1 and man7 in this directory
    #[arg(long, value_name = "DIR")]
    man: Option<PathBuf>,

    /// Print completions for a shell
    #[arg(long, value_enum, value_name = "SHELL")]
    completions: Option<Shell>,
}

/// Shells with completions.
#[derive(Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// `MQNS_PRIVILEGES`.
#[derive(Clone, Copy, ValueEnum)]
enum Privileges {
    /// As in the kernel: unshare, clone, setns and mount take CAP_SYS_ADMIN, the limits root
    Exact,
    /// Everybody may
    Generous,
}

/// `MQNS_LIMITS`.
#[derive(Clone, Copy, ValueEnum)]
enum WhichLimits {
    /// The kernel's: msg_max, msgsize_max, queues_max and RLIMIT_MSGQUEUE
    Exact,
    /// None but the ceilings, 65536 messages of 16 MiB; no privilege needed
    Generous,
}

/// `MQNS_POLL`.
#[derive(Clone, Copy, ValueEnum)]
enum Poll {
    /// Those that call poll, select or epoll_ctl of libc
    Auto,
    /// Also those that make these system calls themselves (Go); each message costs more
    Always,
}

/// The command, from the arguments to the exit status.
pub fn main() -> Exit {
    match generate::complete() {
        Ok(false) => {}
        Ok(true) => return Exit::Done,
        Err(error) => {
            let _ = error.print();
            return Exit::Failed;
        }
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { Exit::Failed } else { Exit::Done };
        }
    };
    let done = match cli.verb {
        Verb::Doctor(arguments) => match doctor::doctor(arguments) {
            Ok(exit) => return exit,
            Err(failure) => Err(failure),
        },
        Verb::Run(arguments) => Err(run::run(arguments)),
        Verb::Enter(arguments) => Err(namespace::enter(arguments)),
        Verb::Lsns(arguments) => lsns::lsns(arguments).and_then(|text| print(&text)),
        Verb::Ls(arguments) => look::ls(arguments).and_then(|text| print(&text)),
        Verb::Stat(arguments) => look::stat(arguments).and_then(|text| print(&text)),
        Verb::Mk(arguments) => queue::mk(arguments),
        Verb::Rm(arguments) => queue::rm(arguments),
        Verb::Send(arguments) => message::send(arguments),
        Verb::Recv(arguments) => message::recv(arguments),
        Verb::Peek(arguments) => message::peek(arguments).and_then(|text| print(&text)),
        Verb::Tap(arguments) => tap::tap(arguments),
        Verb::Top(arguments) => top::top(arguments),
        Verb::Purge(arguments) => message::purge(arguments).and_then(|text| print(&text)),
        Verb::Limits(arguments) => limits::limits(arguments).and_then(|text| print(&text)),
        Verb::Bench(arguments) => bench::bench(arguments).and_then(|text| print(&text)),
        Verb::BenchClient { arguments } => std::process::exit(bench::client(arguments)),
        Verb::Mount(arguments) => mount::mount(arguments).map(|word| {
            if let Some(word) = word {
                eprintln!("mqns: {word}");
            }
        }),
        Verb::Umount(arguments) => mount::umount(arguments),
        Verb::Gc(arguments) => namespace::collect(arguments).and_then(|text| print(&text)),
        Verb::Generate(arguments) => generate::generate(arguments).and_then(|text| print(&text)),
    };
    match done {
        Ok(()) => Exit::Done,
        Err(failure) => {
            failure.say();
            failure.exit
        }
    }
}

fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|e| Failure::new(Exit::Failed, "standard output", Cause(&e), "make room, or send it elsewhere"))
}
