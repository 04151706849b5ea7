//! Tables as those of util-linux: aligned, raw, JSON.

use std::fmt::Write;
use std::io::{self, IsTerminal};
use std::os::fd::AsRawFd;

use serde_json::Value;

/// What a column looks like.
pub struct Heading {
    /// In capitals; the key in JSON is the same in small letters.
    pub name: &'static str,
    pub kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// To the right.
    Number,
    /// To the left.
    Text,
    /// To the left, and cut off where the terminal ends.
    Long,
}

/// A table of a list, `name` in JSON; each row has a value for each heading.
pub struct Table {
    pub name: &'static str,
    pub headings: Vec<Heading>,
    pub rows: Vec<Vec<Value>>,
}

/// Shown where there is no value.
const NONE: &str = "-";

/// As it stands in a table: what would move the cursor, or is no text, as `\xHH`; in raw tables also what
/// would end the column.
fn text(value: &Value, raw: bool) -> String {
    let text = match value {
        Value::Null => return NONE.into(),
        Value::String(text) => text,
        other => return other.to_string(),
    };
    let mut shown = String::new();
    for c in text.chars() {
        if c.is_control() || raw && (c.is_whitespace() || c == '\\') {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                let _ = write!(shown, "\\x{byte:02x}");
            }
        } else {
            shown.push(c);
        }
    }
    shown
}

impl Table {
    /// `{"NAME": [{"COLUMN": VALUE, …}, …]}`.
    pub fn json(self) -> String {
        let keys: Vec<_> = self.headings.iter().map(|heading| heading.name.to_lowercase()).collect();
        let objects = self.rows.into_iter().map(|row| Value::Object(keys.iter().cloned().zip(row).collect()));
        let list: Value = objects.collect();
        let mut text = format!("{:#}", serde_json::json!({ self.name: list }));
        text.push('\n');
        text
    }

    /// A blank between columns, none within one.
    pub fn raw(&self, headings: bool) -> String {
        let mut lines: Vec<Vec<String>> = Vec::new();
        if headings {
            lines.push(self.headings.iter().map(|heading| heading.name.into()).collect());
        }
        lines.extend(self.rows.iter().map(|row| row.iter().map(|value| text(value, true)).collect()));
        lines.iter().map(|line| line.join(" ") + "\n").collect()
    }

    /// Aligned; not wider than `width`, as far as long columns can be cut off.
    pub fn aligned(&self, headings: bool, width: Option<usize>) -> String {
        let mut lines: Vec<Vec<String>> = Vec::new();
        if headings {
            lines.push(self.headings.iter().map(|heading| heading.name.into()).collect());
        }
        lines.extend(self.rows.iter().map(|row| row.iter().map(|value| text(value, false)).collect()));
        let len = |text: &String| text.chars().count();
        let mut widths: Vec<_> =
            (0..self.headings.len()).map(|at| lines.iter().map(|line| len(&line[at])).max().unwrap_or(0)).collect();
        let whole = widths.iter().sum::<usize>() + widths.len().saturating_sub(1);
        let mut excess = whole.saturating_sub(width.unwrap_or(usize::MAX));
        for (heading, column) in self.headings.iter().zip(&mut widths) {
            if heading.kind == Kind::Long {
                let shorter = column.saturating_sub(excess).max(heading.name.len()).min(*column);
                excess -= *column - shorter;
                *column = shorter;
            }
        }
        let mut out = String::new();
        for line in &lines {
            let start = out.len();
            for (at, ((cell, heading), &width)) in line.iter().zip(&self.headings).zip(&widths).enumerate() {
                if out.len() != start {
                    out.push(' ');
                }
                // Not by format!, whose widths end at 65535.
                let padding = std::iter::repeat_n(' ', width - len(cell).min(width));
                if heading.kind == Kind::Number {
                    out.extend(padding);
                    out.push_str(cell);
                } else {
                    out.extend(cell.chars().take(width));
                    if at + 1 < line.len() {
                        out.extend(padding);
                    }
                }
            }
            out.truncate(start + out[start..].trim_end().len());
            out.push('\n');
        }
        out
    }
}

/// Bytes as text, those that are none as `\xHH`.
pub fn shown(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// The same without control characters.
pub fn printable(bytes: &[u8]) -> String {
    text(&shown(bytes).into(), false)
}

/// Bytes for people, as lsipc(1) shows them.
pub fn human(bytes: u64) -> String {
    let mut size = bytes as f64;
    for unit in ["B", "K", "M", "G"] {
        if size < 1024.0 {
            let whole = size.fract() == 0.0 || size >= 100.0;
            return if whole { format!("{size:.0}{unit}") } else { format!("{size:.1}{unit}") };
        }
        size /= 1024.0;
    }
    format!("{size:.1}T")
}

/// Columns of the terminal that standard output is, if it is one.
pub fn terminal_width() -> Option<usize> {
    let out = io::stdout();
    if !out.is_terminal() {
        return None;
    }
    // SAFETY: all zeros is a value of this plain C structure.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: an open descriptor, and a structure for the result.
    let known = unsafe { libc::ioctl(out.as_raw_fd(), libc::TIOCGWINSZ, &mut size) } == 0;
    (known && size.ws_col != 0).then_some(size.ws_col.into())
}
