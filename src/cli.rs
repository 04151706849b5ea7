//! The command's surface: arguments, exit status, messages.

mod elf;
mod run;

use std::fmt;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// How `mqns` ends by itself; when it has started a command, the exit status is the command's. The
/// numbers are those of env(1), nohup(1) and timeout(1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub enum Exit {
    /// Help or version was asked for, and printed.
    Done = 0,
    /// mqns itself failed: wrong arguments, no libmqns.so, an unusable directory.
    Failed = 125,
    /// The command was found but cannot be run, or cannot be run with the library in it.
    CannotRun = 126,
    /// The command was not found.
    NotFound = 127,
}

/// Why nothing was run.
pub struct Failure {
    exit: Exit,
    /// The object concerned, the cause and the remedy.
    message: String,
}

impl Failure {
    fn new(exit: Exit, object: impl fmt::Display, cause: impl fmt::Display, remedy: impl fmt::Display) -> Failure {
        Failure { exit, message: format!("{object}: {cause}; {remedy}") }
    }
}

/// POSIX message queues in user space, for unmodified programs.
///
/// `mqns run -- CMD` starts CMD with libmqns.so preloaded: its mq_* calls are then answered by the
/// library, in shared memory, whatever the kernel has or lacks.
#[derive(Parser)]
#[command(name = "mqns", version, max_term_width = 100, after_help = EXIT_STATUS)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

const EXIT_STATUS: &str = "\
Exit status of `mqns run`:
  that of CMD  once it runs; signals reach it directly, mqns is no longer there
  125          mqns itself failed (wrong arguments, libmqns.so not found)
  126          CMD cannot be run, or the library cannot be preloaded into it
  127          CMD was not found";

const RUN_HELP: &str = "\
Environment:
  MQNS_LIB     libmqns.so to preload; else it is looked for beside mqns, in ../lib,
               ../lib/mqns and ../lib/*/mqns
  MQNS_DIR, MQNS_LIMITS, MQNS_POLL, MQNS_LOG
               what the options set; they hold for everything that CMD starts, too
  LD_PRELOAD   kept, behind the library

Examples:
  mqns run -- ./server
  mqns run --limits generous --log stderr -- ./server --queue-depth 50000
  mqns run --dir /dev/shm/test1 -- sh -c './sender & ./receiver'";

#[derive(Subcommand)]
enum Verb {
    /// Run a command, and all that it starts, on the library's message queues
    #[command(after_help = RUN_HELP, after_long_help = format!("{EXIT_STATUS}\n\n{RUN_HELP}"))]
    Run(Run),
}

/// Arguments of `mqns run`. Without an option its environment variable stays as it is.
#[derive(Args)]
struct Run {
    /// Directory of the queues, shared by all who name the same [MQNS_DIR; default /dev/shm/mqns, or
    /// /dev/shm/mqns-UID where root has not made that]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Which limits hold when a queue is created [MQNS_LIMITS]
    #[arg(long, value_enum, value_name = "WHICH")]
    limits: Option<Limits>,

    /// Which programs may poll queues [MQNS_POLL]
    #[arg(long, value_enum, value_name = "WHEN")]
    poll: Option<Poll>,

    /// Say why calls are refused, to `stderr` or at the end of a file [MQNS_LOG]
    #[arg(long, value_name = "stderr|FILE")]
    log: Option<PathBuf>,

    /// The command and its arguments
    #[arg(trailing_var_arg = true, required = true, value_name = "CMD")]
    command: Vec<std::ffi::OsString>,
}

/// `MQNS_LIMITS`.
#[derive(Clone, Copy, ValueEnum)]
enum Limits {
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
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { Exit::Failed } else { Exit::Done };
        }
    };
    let Verb::Run(arguments) = cli.verb;
    let failure = run::run(arguments);
    eprintln!("mqns: {}", failure.message);
    failure.exit
}
