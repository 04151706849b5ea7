//! Signals as events, for commands that go on until one comes.

use std::thread;

/// Signals that reach no handler, but [`Signals::watch`].
pub struct Signals(libc::sigset_t);

impl Signals {
    /// Keeps them off every thread, but those that were ignored all along. Before the first thread is made.
    pub fn block(signals: &[i32]) -> Signals {
        // SAFETY: all zeros is a value of these plain C structures; they are locals.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            for &signal in signals {
                let mut action: libc::sigaction = std::mem::zeroed();
                libc::sigaction(signal, std::ptr::null(), &mut action);
                if action.sa_sigaction != libc::SIG_IGN {
                    libc::sigaddset(&mut set, signal);
                }
            }
            libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
            Signals(set)
        }
    }

    /// Calls `see` with each that comes, in a thread of its own.
    pub fn watch(&self, see: impl Fn(i32) + Send + 'static) {
        let set = self.0;
        thread::spawn(move || {
            let mut signal = 0;
            // SAFETY: both are locals.
            while unsafe { libc::sigwait(&set, &mut signal) } == 0 {
                see(signal);
            }
        });
    }

    /// Ends the process, as the signal would have done.
    pub fn end_by(&self, signal: i32) {
        // SAFETY: a set, and no other pointers.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &self.0, std::ptr::null_mut());
            libc::raise(signal);
        }
    }
}
