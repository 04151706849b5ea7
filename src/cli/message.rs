//! `mqns send`, `recv`, `peek` and `purge`: messages, as bytes.

use std::fmt::Write as _;
use std::io::{self, Read, Write as _};
use std::os::unix::ffi::OsStringExt;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::queue::{Name, Queue, go, trouble};
use super::table::{Heading, Kind, Table, printable, shown, terminal_width};
use super::{Cause, Exit, Failure, Peek, Purge, Recv, Send, Shape};

/// As mq_timedsend(3) and mq_timedreceive(3) take it. `None`: beyond all time.
fn deadline(timeout: Duration) -> Option<libc::timespec> {
    let at = SystemTime::now().checked_add(timeout)?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(libc::timespec { tv_sec: i64::try_from(at.as_secs()).ok()?, tv_nsec: at.subsec_nanos().into() })
}

/// For clap: seconds, with a fraction.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds")?;
    Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())
}

fn pointer(deadline: &Option<libc::timespec>) -> *const libc::timespec {
    deadline.as_ref().map_or(std::ptr::null(), std::ptr::from_ref)
}

fn blocking(nonblock: bool) -> i32 {
    if nonblock { libc::O_NONBLOCK } else { 0 }
}

/// The call would block, or has waited long enough.
fn is_over(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ETIMEDOUT))
}

/// Sends a message.
pub fn send(send: Send) -> Result<(), Failure> {
    go(&send.at)?;
    let queue =
        Queue::open(&send.queue, libc::O_WRONLY | blocking(send.nonblock)).map_err(|e| send.queue.failed(&e))?;
    let message = match send.message {
        Some(message) => message.into_vec(),
        None => input()?,
    };
    let deadline = send.timeout.and_then(deadline);
    // SAFETY: a message of that length, a time or null.
    let sent = unsafe {
        libc::mq_timedsend(queue.mqd, message.as_ptr().cast(), message.len(), send.priority, pointer(&deadline))
    };
    if sent == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    Err(match error.raw_os_error() {
        _ if is_over(&error) => {
            let remedy = "receive from it (mqns recv, mqns purge), or wait longer (--timeout)";
            Failure::new(Exit::WouldBlock, send.queue, "the queue is full", remedy)
        }
        Some(libc::EMSGSIZE) => {
            let most = queue.attributes().map_or(0, |a| a.msgsize);
            let cause = format_args!("a message of {} bytes is longer than its msgsize of {most}", message.len());
            send.queue.refused(cause, "send less, or make the queue anew: mqns mk --msgsize")
        }
        _ => trouble(&send.queue, &error),
    })
}

/// All of standard input.
fn input() -> Result<Vec<u8>, Failure> {
    let mut message = Vec::new();
    io::stdin()
        .read_to_end(&mut message)
        .map_err(|e| Failure::new(Exit::Failed, "standard input", Cause(&e), "give it a file or a pipe"))?;
    Ok(message)
}

/// Writes a message in the form that is asked for, at once: what was received is nowhere else.
fn write(shape: &Shape, index: Option<usize>, priority: u32, message: &[u8]) -> Result<(), Failure> {
    let object = index.map_or(json!({}), |index| json!({ "index": index }));
    let mut out = io::stdout().lock();
    out.write_all(&line(shape, object, priority, message))
        .and_then(|()| out.flush())
        .map_err(|e| Failure::new(Exit::Failed, "standard output", Cause(&e), "make room, or send it elsewhere"))
}

/// A message in that form; `object` is what comes first in JSON.
pub fn line(shape: &Shape, mut object: Value, priority: u32, message: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    if shape.json {
        object["priority"] = priority.into();
        object["bytes"] = message.len().into();
        match std::str::from_utf8(message) {
            Ok(text) => object["text"] = text.into(),
            Err(_) => object["hex"] = hex(message).into(),
        }
        bytes.extend_from_slice(object.to_string().as_bytes());
    } else if shape.hex {
        bytes.extend_from_slice(hex(message).as_bytes());
    } else if shape.raw {
        bytes.extend_from_slice(message);
    } else {
        bytes.extend_from_slice(printable(message).as_bytes());
    }
    if !shape.raw {
        bytes.push(b'\n');
    }
    bytes
}

fn hex(message: &[u8]) -> String {
    message.iter().fold(String::with_capacity(2 * message.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Receives a message into a buffer of `msgsize` bytes: its length and priority.
fn receive(queue: &Queue, buffer: &mut [u8], deadline: &Option<libc::timespec>) -> io::Result<(usize, u32)> {
    let mut priority = 0;
    // SAFETY: a buffer of that length, a variable for the priority, a time or null.
    let got = unsafe {
        libc::mq_timedreceive(queue.mqd, buffer.as_mut_ptr().cast(), buffer.len(), &mut priority, pointer(deadline))
    };
    usize::try_from(got).map(|len| (len, priority)).map_err(|_| io::Error::last_os_error())
}

fn buffer(name: &Name, queue: &Queue) -> Result<Vec<u8>, Failure> {
    let attributes = queue.attributes().map_err(|e| trouble(name, &e))?;
    Ok(vec![0; attributes.msgsize as usize])
}

/// Receives messages and prints them.
pub fn recv(recv: Recv) -> Result<(), Failure> {
    go(&recv.at)?;
    let nonblock = recv.nonblock || recv.all && recv.timeout.is_none();
    let queue = Queue::open(&recv.queue, libc::O_RDONLY | blocking(nonblock)).map_err(|e| recv.queue.failed(&e))?;
    let mut buffer = buffer(&recv.queue, &queue)?;
    let mut left = if recv.all { u64::MAX } else { recv.count };
    while left > 0 {
        match receive(&queue, &mut buffer, &recv.timeout.and_then(deadline)) {
            Ok((len, priority)) => write(&recv.shape, None, priority, &buffer[..len])?,
            Err(e) if is_over(&e) && recv.all => break,
            Err(e) if is_over(&e) => {
                let remedy = "send to it (mqns send), or wait longer (--timeout)";
                return Err(Failure::new(Exit::WouldBlock, recv.queue, "the queue is empty", remedy));
            }
            Err(e) => return Err(trouble(&recv.queue, &e)),
        }
        left -= 1;
    }
    Ok(())
}

/// Receives all that is there, and throws it away; what is to be said.
pub fn purge(purge: Purge) -> Result<String, Failure> {
    go(&purge.at)?;
    let flags = libc::O_RDONLY | libc::O_NONBLOCK;
    let queue = Queue::open(&purge.queue, flags).map_err(|e| purge.queue.failed(&e))?;
    let mut buffer = buffer(&purge.queue, &queue)?;
    let mut count = 0u64;
    loop {
        match receive(&queue, &mut buffer, &None) {
            Ok(_) => count += 1,
            Err(e) if is_over(&e) => break,
            Err(e) => return Err(trouble(&purge.queue, &e)),
        }
    }
    let plural = if count == 1 { "" } else { "s" };
    Ok(if purge.quiet { String::new() } else { format!("{}: took away {count} message{plural}\n", purge.queue) })
}

/// Shows messages, and leaves them where they are; a table to be printed, or nothing more.
pub fn peek(peek: Peek) -> Result<String, Failure> {
    let library = go(&peek.at)?;
    let name = &peek.queue;
    // Opening is what is checked; nothing waits.
    let queue = Queue::open(name, libc::O_RDONLY).map_err(|e| name.failed(&e))?;
    let attributes = queue.attributes().map_err(|e| trouble(name, &e))?;
    let list = library.messages(queue.mqd, attributes.maxmsg as usize).map_err(|e| trouble(name, &e))?;
    let mut wanted: Vec<_> = list.iter().enumerate().collect();
    if let Some(index) = peek.index {
        let Some(&one) = wanted.get(index) else {
            let cause = match list.len() {
                0 => "it has no message".to_string(),
                1 => format!("it has no message {index}, only message 0"),
                n => format!("it has no message {index}, only 0 to {}", n - 1),
            };
            return Err(name.refused(cause, "see `mqns peek` of it without --index"));
        };
        wanted = vec![one];
    }
    let mut rows = Vec::new();
    for (index, message) in wanted {
        let Some(copy) = library.message(queue.mqd, message).map_err(|e| trouble(name, &e))? else {
            if peek.index.is_some() {
                return Err(name.refused("somebody has received that message meanwhile", "look again"));
            }
            continue;
        };
        if peek.shape.is_given() {
            write(&peek.shape, Some(index), message.priority, &copy)?;
        } else {
            rows.push(vec![index.into(), message.priority.into(), copy.len().into(), Value::from(shown(&copy))]);
        }
    }
    if peek.shape.is_given() {
        return Ok(String::new());
    }
    let headings =
        [("INDEX", Kind::Number), ("PRIORITY", Kind::Number), ("BYTES", Kind::Number), ("MESSAGE", Kind::Long)];
    let headings = headings.map(|(name, kind)| Heading { name, kind }).into();
    Ok(Table { name: "messages", headings, rows }.aligned(true, terminal_width()))
}
