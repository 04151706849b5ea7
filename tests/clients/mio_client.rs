//! nix's mqueue bindings in mio's event loop (edge-triggered epoll): two queues registered by `SourceFd`,
//! messages from threads and a child process, deregistration.

use std::os::fd::AsRawFd;
use std::process::{exit, Command};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::errno::Errno;
use nix::mqueue::{mq_close, mq_open, mq_receive, mq_send, mq_unlink, MQ_OFlag, MqAttr, MqdT};
use nix::sys::stat::Mode;

const MESSAGES: u32 = 500;

fn open(name: &str, flags: MQ_OFlag) -> MqdT {
    let attr = MqAttr::new(0, 5, 16, 0);
    mq_open(name, flags, Mode::S_IRUSR | Mode::S_IWUSR, Some(&attr)).unwrap()
}

/// Sends 0..MESSAGES, waiting whenever the queue is full.
fn produce(name: &str) {
    let queue = open(name, MQ_OFlag::O_WRONLY);
    for n in 0..MESSAGES {
        mq_send(&queue, &n.to_ne_bytes(), n % 3).unwrap();
    }
}

/// Receives until the queue is empty, as an edge-triggered loop must.
fn drain(queue: &MqdT) -> u32 {
    let mut body = [0; 16];
    let mut priority = 0;
    let mut got = 0;
    loop {
        match mq_receive(queue, &mut body, &mut priority) {
            Ok(4) => {
                let n = u32::from_ne_bytes(body[..4].try_into().unwrap());
                assert_eq!(n % 3, priority);
                got += 1;
            }
            Err(Errno::EAGAIN) => return got,
            other => panic!("mq_receive: {other:?}"),
        }
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args.len() == 2 {
        produce(&args[1]);
        return;
    }
    // A lost event shows as a failure, not as a hang.
    std::thread::spawn(|| {
        std::thread::sleep(Duration::from_secs(20));
        eprintln!("time is up");
        exit(1);
    });

    let pid = std::process::id();
    let names = [format!("/clients-mio-{pid}-a"), format!("/clients-mio-{pid}-b")];
    let flags = MQ_OFlag::O_CREAT | MQ_OFlag::O_EXCL | MQ_OFlag::O_RDWR | MQ_OFlag::O_NONBLOCK;
    let queues = [open(&names[0], flags), open(&names[1], flags)];

    let mut poll = Poll::new().unwrap();
    let mut events = Events::with_capacity(16);
    for (i, queue) in queues.iter().enumerate() {
        let fd = queue.as_raw_fd();
        poll.registry().register(&mut SourceFd(&fd), Token(i), Interest::READABLE).unwrap();
    }
    poll.poll(&mut events, Some(Duration::from_millis(50))).unwrap();
    assert!(events.is_empty(), "events on empty queues: {events:?}");

    // One queue is fed by a thread, the other by a new image of this program.
    let thread_name = names[0].clone();
    let thread = std::thread::spawn(move || produce(&thread_name));
    let mut child = Command::new(&args[0]).arg(&names[1]).spawn().unwrap();
    let mut got = [0, 0];
    while got != [MESSAGES, MESSAGES] {
        poll.poll(&mut events, None).unwrap();
        for event in &events {
            assert!(event.is_readable());
            let i = event.token().0;
            got[i] += drain(&queues[i]);
        }
    }
    thread.join().unwrap();
    assert!(child.wait().unwrap().success());

    // Room in a full queue, as an edge.
    for _ in 0..5 {
        mq_send(&queues[0], b"full", 0).unwrap();
    }
    assert_eq!(mq_send(&queues[0], b"full", 0), Err(Errno::EAGAIN));
    let fd = queues[0].as_raw_fd();
    poll.registry().reregister(&mut SourceFd(&fd), Token(2), Interest::WRITABLE).unwrap();
    poll.poll(&mut events, Some(Duration::from_millis(50))).unwrap();
    assert!(events.is_empty(), "a full queue is writable: {events:?}");
    let taker_name = names[0].clone();
    let taker = std::thread::spawn(move || {
        let queue = open(&taker_name, MQ_OFlag::O_RDONLY);
        mq_receive(&queue, &mut [0; 16], &mut 0).unwrap();
    });
    poll.poll(&mut events, None).unwrap();
    let event = events.iter().next().unwrap();
    assert!(event.token() == Token(2) && event.is_writable());
    taker.join().unwrap();

    // Nothing more once deregistered.
    for queue in &queues {
        poll.registry().deregister(&mut SourceFd(&queue.as_raw_fd())).unwrap();
    }
    mq_send(&queues[1], b"late", 0).unwrap();
    poll.poll(&mut events, Some(Duration::from_millis(50))).unwrap();
    assert!(events.is_empty());

    for (queue, name) in queues.into_iter().zip(names) {
        mq_close(queue).unwrap();
        mq_unlink(name.as_str()).unwrap();
    }
    println!("ok");
}
