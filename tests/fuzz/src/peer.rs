//! What somebody does who may use the queue, and means harm.

use core::sync::atomic::Ordering::Relaxed;
use std::mem::offset_of;

use crate::input::Input;
use crate::machine::Alone;
use crate::machine::kernel::{BASE, LEN};
use crate::shm::Map;
use crate::shm::layout::{GROUPS, Group, Header, NONE, Slot, WAITERS, Waiter};
use crate::sys::fault;

/// A value, as wide as that.
#[derive(Clone, Copy)]
pub struct Value {
    value: u64,
    is_wide: bool,
}

pub enum Deed {
    /// The word that is about to be accessed gets a value.
    Here(Value),
    /// The word at an offset does.
    There(usize, Value),
    /// Words alike are exchanged: one thing is in two places.
    Same(usize, usize),
    /// The file gets a length.
    Length(u64),
}

/// The file behind the segment.
pub static FILE: Alone<i32> = Alone::new(-1);

pub fn does(deed: &Deed, address: usize) {
    match *deed {
        Deed::Here(value) => write(address.wrapping_sub(BASE.load(Relaxed)), value),
        Deed::There(offset, value) => write(offset, value),
        Deed::Same(from, to) => {
            let mut value = 0u32;
            // SAFETY: inside the segment, of which any byte may be anything at any time; a local.
            let read = unsafe { fault::copy((&raw mut value).cast(), at(from, 4), 4) };
            if read.is_ok() {
                write(to, Value { value: value.into(), is_wide: false });
            }
        }
        Deed::Length(len) => {
            // SAFETY: no pointers.
            unsafe { libc::ftruncate(FILE.with(|file| *file), len as i64) };
        }
    }
}

fn at(offset: usize, width: usize) -> *mut u8 {
    let last = LEN.load(Relaxed) - 8;
    (BASE.load(Relaxed) + (offset.min(last) & !(width - 1))) as *mut u8
}

/// Writes, or finds that nothing is there any more.
fn write(offset: usize, value: Value) {
    let (width, value) = (if value.is_wide { 8 } else { 4 }, value.value);
    // SAFETY: inside the segment, of which any byte may be anything at any time.
    let _ = unsafe { fault::copy(at(offset, width), (&raw const value).cast(), width) };
}

/// A word that means something, mostly: its offset.
pub fn place(map: &Map, input: &mut Input<'_>) -> usize {
    let offset_of = |address: usize| address - BASE.load(Relaxed);
    let words = |size: usize, n: u8| usize::from(n) * 4 % size;
    let h = map.header();
    match input.byte() {
        n @ 0..224 => words(size_of::<Header>(), n),
        n @ 224..232 => {
            let index = u32::from(input.byte());
            // The last ones are those beyond `maxmsg`, and those that nobody has used.
            let index = if index < 192 { index } else { map.maxmsg + index - 192 };
            let slot = map.slot(index % map.slots()).unwrap();
            offset_of(slot as *const Slot as usize) + words(size_of::<Slot>(), n)
        }
        n @ 232..242 => {
            let waiter = map.waiter(u32::from(input.byte()) % WAITERS).unwrap();
            offset_of(waiter as *const Waiter as usize) + words(size_of::<Waiter>(), n - 232)
        }
        n @ 242..248 => {
            let group = map.group([0, 0, 1, GROUPS - 1, 255, 256][usize::from(n - 242)]);
            offset_of(group as *const Group as usize) + words(size_of::<Group>(), input.byte())
        }
        n @ 248..251 => {
            let position = if n == 248 { h.taps.tail.load(Relaxed) } else { u64::from(input.byte()) * 32 };
            offset_of(map.record(position) as *const _ as usize) + words(32, input.byte())
        }
        251 => offset_of!(Header, notify) + words(600, input.byte()),
        _ => input.word() as usize % LEN.load(Relaxed),
    }
}

/// A value that some check may have forgotten, or any.
pub fn value(map: &Map, own_tid: u32, input: &mut Input<'_>) -> Value {
    let chosen = input.byte();
    let edges = [
        0,
        u64::from(NONE),
        u64::MAX,
        u64::from(NONE) - 1,
        1 << 31,
        1 << 30,
        3 << 30,
        0x3fff_ffff,
        u64::from(map.maxmsg),
        u64::from(map.maxmsg) - 1,
        u64::from(map.slots()),
        u64::from(map.slots()) - 1,
        u64::from(map.msgsize),
        u64::from(map.msgsize) + 1,
        u64::from(WAITERS),
        u64::from(WAITERS) - 1,
        u64::from(own_tid),
        u64::from(own_tid) | 1 << 31,
        u64::from(own_tid) | 1 << 30,
        u64::from(own_tid) | 3 << 30,
        1 << 62,
        1 << 63,
        32768,
        32767,
        map.ring_len,
        map.ring_len - 32,
        u64::MAX - 31,
    ];
    let value = match chosen & 0x7f {
        n @ 0..64 => u64::from(n),
        n @ 64..91 => edges[usize::from(n) - 64],
        // One bit.
        n @ 91..123 => 1 << (n - 91),
        123 => u64::from(input.byte()) << 8,
        124 => u64::from(input.word() & 0xffff),
        125 | 126 => input.word().into(),
        _ => input.wide(),
    };
    Value { value, is_wide: chosen & 0x80 != 0 }
}

/// A length of the file.
pub fn length(whole: usize, input: &mut Input<'_>) -> u64 {
    let whole = whole as u64;
    match input.byte() {
        0 => 0,
        1 => 4096,
        2 => whole,
        3 => whole - 4096,
        4 => whole - 1,
        5 => 1 << 40,
        n @ 6..128 => u64::from(n) * 64,
        n @ 128..192 => u64::from(n - 128) * 4096,
        n => u64::from(n - 192) * (whole / 64),
    }
}
