//! For the command `mqns`, which runs itself with the library preloaded: what libc has no call for. Rights are those
//! of the calls that there are: who may list the queues' directory sees names and modes, who has a queue open for
//! reading sees what is in it.

use core::ffi::{c_int, c_void};
use core::slice;
use core::sync::atomic::AtomicU32;

use super::{mq, raw_result};
use crate::abi::{Errno, Result};
use crate::desc;
use crate::look::{Entry, Formats, Message, Sleeper, State, Tap, TappedMessage};
use crate::ns::{self, control};
use crate::queue::{look, tap};
use crate::shm::{Map, layout};
use crate::sys::path::Path;
use crate::sys::tls::Tls;

/// Fills in which library this is.
///
/// # Safety
///
/// `to` points to such a structure.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mqns_formats(to: *mut Formats) {
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    let formats = Formats {
        version: VERSION.as_ptr(),
        version_len: VERSION.len(),
        control: control::MAGIC,
        accounts: control::ACCOUNTS_MAGIC,
        segment: layout::MAGIC,
        format: layout::FORMAT,
    };
    // SAFETY: the caller's contract.
    unsafe { *to = formats };
}

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

/// Begins to tap a queue, by a descriptor of its own, which is put into `tap`: `fd` is not needed any more. Fills in
/// the messages that are there, up to `room` of them; returns how many there are.
///
/// # Safety
///
/// `tap` points to a structure, `messages` to so many.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mqns_tap(fd: c_int, tap: *mut Tap, messages: *mut Message, room: usize) -> isize {
    let start = |map: &'static Map, tls: &Tls| {
        let mut path = Path::new(&[b"/proc/thread-self/fd/"])?;
        path.push_decimal(fd as u64)?;
        // For reading alone: so it does not keep others from being the last.
        let own = path.open_own(libc::O_RDONLY)?;
        // SAFETY: the caller's contract.
        let messages = unsafe { slice::from_raw_parts_mut(messages, room) };
        let (started, count) = tap::start(map, tls, own.0, messages)?;
        desc::make_room(own.0)?;
        desc::insert(own.0, map, libc::O_RDONLY, false);
        core::mem::forget(own);
        // SAFETY: the caller's contract.
        unsafe { *tap = started };
        Ok(count)
    };
    raw_result(readable(fd, start))
}

/// Waits for what comes next: [`crate::look::TapEvent`]. See [`tap::next`].
///
/// # Safety
///
/// `tap` is what [`mqns_tap`] has filled in; `stop` and `message` point to a word and a structure, `to` to room for the
/// longest message.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mqns_tap_next(
    tap: *mut Tap,
    stop: *const AtomicU32,
    message: *mut TappedMessage,
    to: *mut u8,
) -> isize {
    // SAFETY: the caller's contract.
    let (tap, stop, message) = unsafe { (&mut *tap, &*stop, &mut *message) };
    // SAFETY: the caller's contract.
    raw_result(readable(tap.fd, |map, _| Ok(unsafe { tap::next(map, tap, stop, message, to)? } as usize)))
}

/// Has those who tap the queue of a descriptor look whether they are to stop.
#[unsafe(no_mangle)]
pub extern "C" fn mqns_tap_wake(fd: c_int) -> isize {
    raw_result(readable(fd, |map, _| {
        tap::wake(map);
        Ok(0)
    }))
}

/// Ends tapping; how many messages were missed that nothing has told of. The descriptor stays open.
///
/// # Safety
///
/// As [`mqns_tap_next`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mqns_tap_end(tap: *const Tap) -> isize {
    // SAFETY: the caller's contract.
    let tap = unsafe { &*tap };
    raw_result(readable(tap.fd, |map, tls| Ok(tap::end(map, tls, tap)? as usize)))
}

/// Waits until nobody has the queue open but those who tap it.
#[unsafe(no_mangle)]
pub extern "C" fn mqns_tap_alone(fd: c_int) {
    tap::wait_until_alone(fd);
}

/// Does something with the queue of a descriptor that may receive.
fn readable(fd: c_int, with: impl FnOnce(&'static Map, &Tls) -> Result<usize>) -> Result<usize> {
    let tls = mq::ready()?;
    match desc::find(tls, fd)? {
        Some(descriptor) if descriptor.may_receive() => with(descriptor.map, tls),
        _ => Err(Errno::EBADF),
    }
}
