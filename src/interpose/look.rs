//! For the command `mqns`, which runs itself with the library preloaded: what libc has no call for. Rights are those
//! of the calls that there are: who may list the queues' directory sees names and modes, who has a queue open for
//! reading sees what is in it.

use core::ffi::{c_int, c_void};
use core::slice;

use super::{mq, raw_result};
use crate::abi::{Errno, Result};
use crate::desc;
use crate::look::{Entry, Message, Sleeper, State};
use crate::ns;
use crate::queue::look;
use crate::shm::Map;
use crate::sys::tls::Tls;

/// Calls `see` for each queue of the caller's namespace that has a name.
///
/// # Safety
///
/// `see` may be called with `to`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mqns_names(see: unsafe extern "C" fn(*mut c_void, *const Entry), to: *mut c_void) -> isize {
    let list = || {
        let place = ns::current(mq::ready()?)?;
        ns::queues::each_name(place, |name, st| {
            let (mode, uid, gid) = (st.st_mode, st.st_uid, st.st_gid);
            let entry = Entry { name: name.as_ptr(), len: name.len(), mode, uid, gid };
            // SAFETY: the caller's contract; the entry lives during the call.
            unsafe { see(to, &entry) };
        })?;
        Ok(0)
    };
    raw_result(list())
}

/// Calls `see` with each uid that RLIMIT_MSGQUEUE charges something to, and with how many bytes.
///
/// # Safety
///
/// `see` may be called with `to`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mqns_charged(see: unsafe extern "C" fn(*mut c_void, u32, u64), to: *mut c_void) -> isize {
    let list = || {
        let place = ns::current(mq::ready()?)?;
        // SAFETY: the caller's contract.
        place.accounts().each(|uid, bytes| unsafe { see(to, uid, bytes) });
        Ok(0)
    };
    raw_result(list())
}

/// The state of a queue, and up to `room` of its sleepers.
///
/// # Safety
///
/// `state` and `sleepers` point to so many structures.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mqns_state(fd: c_int, state: *mut State, sleepers: *mut Sleeper, room: usize) -> isize {
    let look = |map: &Map, tls: &Tls| {
        // SAFETY: the caller's contract.
        let sleepers = unsafe { slice::from_raw_parts_mut(sleepers, room) };
        let found = look::state(map, tls, fd, sleepers)?;
        // SAFETY: the caller's contract.
        unsafe { *state = found };
        Ok(0)
    };
    raw_result(readable(fd, look))
}

/// The messages of a queue, up to `room` of them; returns how many there are.
///
/// # Safety
///
/// `messages` points to so many structures.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mqns_messages(fd: c_int, messages: *mut Message, room: usize) -> isize {
    // SAFETY: the caller's contract.
    raw_result(readable(fd, |map, tls| look::messages(map, tls, unsafe { slice::from_raw_parts_mut(messages, room) })))
}

/// Copies one of them, and leaves it where it is; returns its length, or -ENOENT if it is gone.
///
/// # Safety
///
/// `to` has room for `message.len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mqns_message(fd: c_int, message: *const Message, to: *mut u8) -> isize {
    // SAFETY: the caller's contract.
    raw_result(readable(fd, |map, tls| unsafe { look::message(map, tls, *message, to) }))
}

/// Does something with the queue of a descriptor that may receive.
fn readable(fd: c_int, with: impl FnOnce(&Map, &Tls) -> Result<usize>) -> Result<usize> {
    let tls = mq::ready()?;
    match desc::find(tls, fd)? {
        Some(descriptor) if descriptor.may_receive() => with(descriptor.map, tls),
        _ => Err(Errno::EBADF),
    }
}
