//! `/proc/sys/fs/mqueue/*`: the limits of the caller's namespace, as text.

use core::sync::atomic::Ordering::Relaxed;

use super::control::Control;
use crate::abi::{Errno, HARD_MSGMAX, HARD_MSGSIZEMAX, MIN_MSGMAX, MIN_MSGSIZEMAX, Result};

/// Where the files lie.
pub const DIRECTORY: &[u8] = b"/proc/sys/fs/mqueue/";

/// One of the files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limit {
    /// `queues_max`: any number; below zero is practically no limit.
    QueuesMax,
    /// `msg_max`: 1..=65536.
    MsgMax,
    /// `msgsize_max`: 128..=16777216 bytes.
    MsgsizeMax,
    /// `msg_default`: 1..=65536.
    MsgDefault,
    /// `msgsize_default`: 128..=16777216 bytes.
    MsgsizeDefault,
}

impl Limit {
    /// All of them, with their names.
    pub const ALL: [(&'static [u8], Limit); 5] = [
        (b"queues_max", Limit::QueuesMax),
        (b"msg_max", Limit::MsgMax),
        (b"msgsize_max", Limit::MsgsizeMax),
        (b"msg_default", Limit::MsgDefault),
        (b"msgsize_default", Limit::MsgsizeDefault),
    ];

    /// The limit behind a path, if it is one.
    pub fn of_path(path: &[u8]) -> Option<Limit> {
        let name = path.strip_prefix(DIRECTORY)?;
        Limit::ALL.iter().find(|(known, _)| *known == name).map(|&(_, limit)| limit)
    }

    /// Its value.
    pub fn get(self, control: &Control) -> i32 {
        match self {
            Limit::QueuesMax => control.queues_max.load(Relaxed),
            Limit::MsgMax => control.msg_max.load(Relaxed) as i32,
            Limit::MsgsizeMax => control.msgsize_max.load(Relaxed) as i32,
            Limit::MsgDefault => control.msg_default.load(Relaxed) as i32,
            Limit::MsgsizeDefault => control.msgsize_default.load(Relaxed) as i32,
        }
    }

    /// Sets it.
    ///
    /// # Errors
    ///
    /// EINVAL: out of range (`mq_sysctls` of the kernel: `proc_dointvec_minmax`).
    pub fn set(self, control: &Control, value: i32) -> Result<()> {
        let (low, high) = match self {
            Limit::QueuesMax => (i32::MIN, i32::MAX),
            Limit::MsgMax | Limit::MsgDefault => (MIN_MSGMAX as i32, HARD_MSGMAX as i32),
            Limit::MsgsizeMax | Limit::MsgsizeDefault => (MIN_MSGSIZEMAX as i32, HARD_MSGSIZEMAX as i32),
        };
        if !(low..=high).contains(&value) {
            return Err(Errno::EINVAL);
        }
        match self {
            Limit::QueuesMax => control.queues_max.store(value, Relaxed),
            Limit::MsgMax => control.msg_max.store(value as u32, Relaxed),
            Limit::MsgsizeMax => control.msgsize_max.store(value as u32, Relaxed),
            Limit::MsgDefault => control.msg_default.store(value as u32, Relaxed),
            Limit::MsgsizeDefault => control.msgsize_default.store(value as u32, Relaxed),
        }
        Ok(())
    }

    /// Its text, a line; returns how many bytes.
    pub fn text(self, control: &Control, to: &mut [u8; 16]) -> usize {
        let value = self.get(control);
        let mut at = 0;
        if value < 0 {
            to[0] = b'-';
            at = 1;
        }
        at += crate::sys::write_decimal(&mut to[at..15], value.unsigned_abs() as u64);
        to[at] = b'\n';
        at + 1
    }

    /// A write(2) of `text` to the file; returns the bytes taken.
    ///
    /// # Errors
    ///
    /// EINVAL: not a number, over 32 bits, or out of range.
    pub fn write(self, control: &Control, text: &[u8]) -> Result<usize> {
        let (value, taken) = parse(text)?;
        if let Some(value) = value {
            self.set(control, value)?;
        }
        Ok(taken)
    }
}

/// A number as the kernel's sysctls read it: blanks, sign, decimal, octal or hexadecimal digits, one
/// run of blanks; what follows is left. Nothing: nothing is set.
fn parse(text: &[u8]) -> Result<(Option<i32>, usize)> {
    let blanks = |from: usize| from + text[from..].iter().take_while(|b| b.is_ascii_whitespace()).count();
    let mut at = blanks(0);
    if text.is_empty() {
        return Ok((None, 0));
    }
    if at == text.len() {
        return Err(Errno::EINVAL);
    }
    let negative = text[at] == b'-';
    at += usize::from(negative);
    let rest = &text[at..];
    let (radix, skip) = match rest {
        [b'0', b'x' | b'X', digit, ..] if digit.is_ascii_hexdigit() => (16, 2),
        [b'0', ..] => (8, 0),
        _ => (10, 0),
    };
    let digits = rest[skip..].iter().take_while(|&&b| (b as char).is_digit(radix)).count();
    if digits == 0 {
        return Err(Errno::EINVAL);
    }
    let mut value = 0i64;
    for &digit in &rest[skip..skip + digits] {
        value = value * radix as i64 + (digit as char).to_digit(radix).unwrap_or(0) as i64;
        if value > u32::MAX as i64 {
            return Err(Errno::EINVAL);
        }
    }
    at += skip + digits;
    // A number ends at a blank or at the end.
    if at < text.len() && !text[at].is_ascii_whitespace() && text[at] != 0 {
        return Err(Errno::EINVAL);
    }
    let value = i32::try_from(if negative { -value } else { value }).map_err(|_| Errno::EINVAL)?;
    Ok((Some(value), blanks(at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_by_the_kernel() {
        assert_eq!(parse(b"20\n"), Ok((Some(20), 3)));
        assert_eq!(parse(b" 20"), Ok((Some(20), 3)));
        assert_eq!(parse(b"3 4"), Ok((Some(3), 2)));
        assert_eq!(parse(b"0x20"), Ok((Some(32), 4)));
        assert_eq!(parse(b"-1"), Ok((Some(-1), 2)));
        assert_eq!(parse(b""), Ok((None, 0)));
        for bad in [&b"x"[..], b" ", b"+5", b"3x", b"4294967296", b"2147483648", b"-"] {
            assert_eq!(parse(bad), Err(Errno::EINVAL), "{bad:?}");
        }
    }
}
