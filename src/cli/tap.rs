//! `mqns tap`: what is sent, while it goes by.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread;

use serde_json::json;

use super::look::local;
use super::message::line;
use super::preloaded::Preloaded;
use super::queue::{Name, Queue, go, trouble};
use super::signals::Signals;
use super::{Cause, Exit, Failure, Tap};
use crate::look::{Message, TapEvent};

/// Bytes of messages under way from the readers to standard output, at most, but one of each reader.
const UNDER_WAY: usize = 4 << 20;

/// What is told of a queue, by its number among the arguments.
enum Told {
    /// One that was there before has no time.
    Message {
        queue: usize,
        time_ns: Option<u64>,
        priority: u32,
        bytes: Vec<u8>,
    },
    Missed {
        queue: usize,
        count: u64,
    },
    /// Nothing more comes of it.
    Over {
        queue: usize,
        result: io::Result<()>,
    },
    /// A signal has come, or nobody reads standard output any more: SIGPIPE.
    Signal(i32),
}

/// One queue, and whether its reader is to stop (`queue::tap`).
struct Source {
    library: Arc<Preloaded>,
    queue: usize,
    tap: crate::look::Tap,
    stop: Arc<AtomicU32>,
    to: SyncSender<Told>,
}

const RUN_OUT: u32 = 1;
const STOP: u32 = 2;

impl Source {
    /// Tells all there is to tell. (Only main stops listening, and then the process ends.)
    fn run(mut self, there: Vec<Message>, msgsize: usize) {
        let result = self.follow(there, msgsize);
        let missed = self.library.tap_end(&self.tap).unwrap_or(0);
        self.missed(missed);
        let _ = self.to.send(Told::Over { queue: self.queue, result });
    }

    fn follow(&mut self, mut there: Vec<Message>, msgsize: usize) -> io::Result<()> {
        let queue = self.queue;
        for what in there.drain(..) {
            match self.library.message(self.tap.fd, &what)? {
                Some(bytes) => self.tell(Told::Message { queue, time_ns: None, priority: what.priority, bytes }),
                None => self.missed(1),
            }
        }
        let mut buffer = vec![0; msgsize];
        loop {
            let (event, message) = self.library.tap_next(&mut self.tap, &self.stop, &mut buffer)?;
            match event {
                TapEvent::Over => return Ok(()),
                TapEvent::Message => {
                    self.missed(message.missed);
                    let bytes = buffer[..message.len as usize].to_vec();
                    let (time_ns, priority) = (Some(message.time_ns), message.priority);
                    self.tell(Told::Message { queue, time_ns, priority, bytes });
                }
                TapEvent::Unlinked => {
                    // Nobody can open it any more: once nobody has it open, all has been sent.
                    let (library, fd, stop) = (self.library.clone(), self.tap.fd, self.stop.clone());
                    thread::spawn(move || {
                        library.tap_alone(fd);
                        if stop.compare_exchange(0, RUN_OUT, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                            library.tap_wake(fd);
                        }
                    });
                }
            }
        }
    }

    fn tell(&self, what: Told) {
        let _ = self.to.send(what);
    }

    fn missed(&self, count: u64) {
        if count > 0 {
            self.tell(Told::Missed { queue: self.queue, count });
        }
    }
}

/// Follows queues until there is a reason to end.
pub fn tap(arguments: Tap) -> Result<(), Failure> {
    let library = Arc::new(go(&arguments.at)?);
    let signals = Signals::block(&[libc::SIGINT, libc::SIGTERM, libc::SIGHUP]);
    let mut started = Vec::new();
    for name in &arguments.queues {
        let queue = Queue::open(name, libc::O_RDONLY).map_err(|e| name.failed(&e))?;
        let attributes = queue.attributes().map_err(|e| trouble(name, &e))?;
        let (tap, mut there) = library.tap(queue.mqd, attributes.maxmsg as usize).map_err(|e| trouble(name, &e))?;
        if arguments.from_now {
            there.clear();
        }
        started.push((tap, there, attributes.msgsize as usize));
    }
    let longest = started.iter().map(|&(_, _, msgsize)| msgsize).max().unwrap_or(1);
    let (to, from) = sync_channel((UNDER_WAY / longest.max(1)).clamp(1, 1024));
    let tell = to.clone();
    signals.watch(move |signal| drop(tell.send(Told::Signal(signal))));
    watch_output(to.clone());
    let mut taps = Vec::new();
    for (queue, (tap, there, msgsize)) in started.into_iter().enumerate() {
        let stop = Arc::new(AtomicU32::new(0));
        taps.push((tap.fd, stop.clone()));
        let source = Source { library: library.clone(), queue, tap, stop, to: to.clone() };
        thread::spawn(move || source.run(there, msgsize));
    }
    drop(to);

    let stop = || {
        for (fd, stop) in &taps {
            stop.store(STOP, Ordering::Release);
            library.tap_wake(*fd);
        }
    };
    let mut output = Output { arguments: &arguments, bytes: Vec::new() };
    let (mut left, mut open) = (arguments.count.unwrap_or(u64::MAX), taps.len());
    let mut ended = Ok(());
    let mut signal = None;
    while open > 0 {
        let told = match from.try_recv() {
            Err(TryRecvError::Empty) => {
                output.flush()?;
                match arguments.timeout.filter(|_| ended.is_ok()) {
                    Some(timeout) => from.recv_timeout(timeout),
                    None => from.recv().map_err(|_| RecvTimeoutError::Disconnected),
                }
            }
            other => other.map_err(|_| RecvTimeoutError::Disconnected),
        };
        match told {
            Ok(Told::Message { queue, time_ns, priority, bytes }) => {
                output.message(&arguments.queues[queue], time_ns, priority, &bytes)?;
                left -= 1;
                if left == 0 {
                    break;
                }
            }
            Ok(Told::Missed { queue, count }) => output.missed(&arguments.queues[queue], count)?,
            Ok(Told::Over { queue, result }) => {
                open -= 1;
                if let Err(e) = result {
                    ended = Err(trouble(&arguments.queues[queue], &e));
                    stop();
                }
            }
            Ok(Told::Signal(number)) => {
                signal = Some(number);
                if number == libc::SIGPIPE {
                    break;
                }
                stop();
            }
            Err(RecvTimeoutError::Timeout) => {
                let names: Vec<_> = arguments.queues.iter().map(Name::to_string).collect();
                let remedy = "send to it (mqns send), or wait longer (--timeout)";
                ended = Err(Failure::new(Exit::WouldBlock, names.join(" "), "nothing was sent", remedy));
                stop();
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    match signal {
        Some(number) if number == libc::SIGPIPE => signals.end_by(number),
        _ => output.flush()?,
    }
    if let Some(number) = signal {
        signals.end_by(number);
    }
    ended
}

/// What is printed, and not written yet.
struct Output<'a> {
    arguments: &'a Tap,
    bytes: Vec<u8>,
}

impl Output<'_> {
    fn message(&mut self, name: &Name, time_ns: Option<u64>, priority: u32, message: &[u8]) -> Result<(), Failure> {
        let arguments = self.arguments;
        let mut object = json!({});
        if arguments.shape.json {
            object = json!({ "queue": name.to_string(), "time": time_ns.map(time) });
        } else if !arguments.shape.raw {
            if arguments.queues.len() > 1 {
                self.bytes.extend(format!("{name} ").bytes());
            }
            if arguments.timestamps {
                self.bytes.extend(format!("{} ", time_ns.map_or("-".into(), time)).bytes());
            }
            if arguments.priority {
                self.bytes.extend(format!("{priority} ").bytes());
            }
        }
        self.bytes.extend(line(&arguments.shape, object, priority, message));
        if self.bytes.len() > 1 << 16 { self.flush() } else { Ok(()) }
    }

    fn missed(&mut self, name: &Name, count: u64) -> Result<(), Failure> {
        let plural = if count == 1 { "" } else { "s" };
        if self.arguments.shape.json {
            self.bytes.extend(format!("{}\n", json!({ "queue": name.to_string(), "missed": count })).bytes());
            return Ok(());
        }
        // Where it belongs among the messages, if both go to the same place.
        self.flush()?;
        let whose = if self.arguments.queues.len() > 1 { format!("{name}: ") } else { String::new() };
        eprintln!("-- {whose}{count} message{plural} missed");
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        let written = out.write_all(&self.bytes).and_then(|()| out.flush());
        self.bytes.clear();
        written.map_err(|e| Failure::new(Exit::Failed, "standard output", Cause(&e), "make room, or send it elsewhere"))
    }
}

/// Local time, with its distance from UTC, and without blanks.
fn time(time_ns: u64) -> String {
    let (seconds, micros) = (time_ns / 1_000_000_000, time_ns / 1000 % 1_000_000);
    format!("{}.{micros:06}{}", local(seconds, c"%FT%T"), local(seconds, c"%z"))
}

/// Whoever reads standard output may go away while there is nothing to write.
fn watch_output(to: SyncSender<Told>) {
    thread::spawn(move || {
        let mut one = libc::pollfd { fd: 1, events: 0, revents: 0 };
        // SAFETY: one structure, a local.
        while unsafe { libc::poll(&mut one, 1, -1) } <= 0 {}
        if one.revents & libc::POLLERR != 0 {
            let _ = to.send(Told::Signal(libc::SIGPIPE));
        }
    });
}
