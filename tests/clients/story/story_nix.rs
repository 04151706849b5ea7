//! The story (story.cpp) on the crate nix.
use nix::errno::Errno;
use nix::mqueue::*;
use nix::sys::stat::Mode;
use nix::sys::time::{TimeSpec, TimeValLike};

fn main() -> nix::Result<()> {
    let flags = MQ_OFlag::O_CREAT | MQ_OFlag::O_EXCL | MQ_OFlag::O_RDWR;
    let queue = mq_open("/story", flags, Mode::S_IRUSR | Mode::S_IWUSR, Some(&MqAttr::new(0, 4, 64, 0)))?;
    mq_send(&queue, b"low", 1)?;
    mq_send(&queue, b"high", 9)?;
    let (mut said, mut text, mut priority) = (Vec::new(), [0; 64], 0);
    for _ in 0..2 {
        let length = mq_receive(&queue, &mut text, &mut priority)?;
        said.push(format!("{} {priority}", String::from_utf8_lossy(&text[..length])));
    }
    match mq_timedreceive(&queue, &mut text, &mut priority, &TimeSpec::seconds(1)) {
        Err(Errno::ETIMEDOUT) => said.push("timeout".into()),
        other => said.push(format!("{other:?}")),
    }
    mq_close(queue)?;
    mq_unlink("/story")?;
    println!("{}", said.join(" "));
    Ok(())
}
