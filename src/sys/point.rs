//! Dying at a named point, for tests: in a library that is built with the feature `crash-points`, and in no other.
//!
//! `MQNS_CRASH=NAME` kills the process by SIGKILL when it passes that point, `NAME:N` when it does so for the Nth time.
//! `MQNS_STOP=NAME` stops it by SIGSTOP when it first does. `MQNS_CRASH_TRACE=FILE` appends the name of each point that
//! is passed. The environment is looked at each time, so that a program can set them just before a call.

/// A place in the code where a test may have the process die: a name of [`crate::points::ALL`].
#[macro_export]
macro_rules! crash_point {
    ($name:literal) => {{
        const _POINT: usize = $crate::points::index_of($name);
        #[cfg(feature = "crash-points")]
        $crate::sys::point::pass(_POINT);
    }};
}

/// The calling thread passes point number `at`.
///
/// Async-signal-safe, and safe inside critical sections: system calls and a walk through the environment.
#[cfg(feature = "crash-points")]
#[cold]
#[inline(never)]
pub fn pass(at: usize) {
    use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use crate::ns::environment;
    use crate::sys::path::Path;
    use crate::syscall;

    static PASSED: AtomicU32 = AtomicU32::new(0);
    static STOPPED: AtomicU32 = AtomicU32::new(0);
    let name = crate::points::ALL[at].0.as_bytes();
    if let Some(Ok(file)) = environment(c"MQNS_CRASH_TRACE").map(|file| Path::new(&[file]))
        && let Ok(file) = file.open(libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT, 0o666)
        && let Ok(mut line) = Path::new(&[name])
        && line.push(b"\n").is_ok()
    {
        let text = line.as_bytes();
        // SAFETY: as long as said.
        let _ = unsafe { syscall!(SYS_write, file.0, text.as_ptr(), text.len()) };
    }
    // SAFETY: no pointers.
    let raise = |signal: i32| unsafe { syscall!(SYS_kill, crate::sys::getpid(), signal) };
    if environment(c"MQNS_STOP") == Some(name) && STOPPED.swap(1, Relaxed) == 0 {
        let _ = raise(libc::SIGSTOP);
    }
    let Some(wanted) = environment(c"MQNS_CRASH") else { return };
    let mut parts = wanted.split(|&b| b == b':');
    if parts.next() != Some(name) {
        return;
    }
    let which = parts.next().and_then(|digits| core::str::from_utf8(digits).ok()?.parse().ok()).unwrap_or(1);
    if PASSED.fetch_add(1, Relaxed) + 1 == which {
        // Which does not return: the calling thread is one of those that are told at once.
        let _ = raise(libc::SIGKILL);
    }
}
