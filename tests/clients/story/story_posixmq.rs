//! The story (story.cpp) on the crate posixmq.
use std::io::ErrorKind;
use std::time::Duration;

fn main() -> std::io::Result<()> {
    let queue = posixmq::OpenOptions::readwrite().mode(0o600).capacity(4).max_msg_len(64).create_new().open("/story")?;
    queue.send(1, b"low")?;
    queue.send(9, b"high")?;
    let (mut said, mut text) = (Vec::new(), [0; 64]);
    for _ in 0..2 {
        let (priority, length) = queue.recv(&mut text)?;
        said.push(format!("{} {priority}", String::from_utf8_lossy(&text[..length])));
    }
    match queue.recv_timeout(&mut text, Duration::from_millis(10)) {
        Err(error) if error.kind() == ErrorKind::TimedOut => said.push("timeout".into()),
        other => said.push(format!("{other:?}")),
    }
    posixmq::remove_queue("/story")?;
    println!("{}", said.join(" "));
    Ok(())
}
