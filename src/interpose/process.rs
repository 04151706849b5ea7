//! The end of a process and of an image: exec, _exit, the return from main.
//!
//! A registration of mq_notify that survives exec (every descriptor of its queue does) must not
//! signal the new image; an ignored SIGSEGV, which is ours to handle here, must be ignored in the
//! new image too; a process that ends politely takes the queues with it that only it had open.

use core::ffi::{c_char, c_int, c_void};
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

use super::{jump, next};
use crate::desc;
use crate::ns::across::{self, Across, Environment};
use crate::ns::member;
use crate::queue::notify;

jump! {
    /// execl(3).
    execl => cshim_execl;
    /// execlp(3).
    execlp => cshim_execlp;
    /// execle(3).
    execle => cshim_execle;
}

type Strings = *const *const c_char;

/// Runs an exec call that only returns if it fails. It is passed the environment, which is `envp` but
/// for rare needs of ours.
///
/// # Safety
///
/// `envp` is an environment as execve(2) takes it.
unsafe fn replacing_image(envp: Strings, exec: impl FnOnce(Strings) -> c_int) -> c_int {
    super::signal::exec_begin();
    notify::exec_begins();
    crate::epoll::exec_begins();
    let result = if member::nobody_has_moved() {
        exec(envp)
    } else {
        let tls = member::tls();
        // The bridge first: one of the two holds the namespace all the time.
        let bridge = across::bridge(tls, Across::Exec, super::fd::has_high_numbers());
        crate::crash_point!("exec.bridged");
        let guest = member::guest_execs(tls);
        let out_of_sight = bridge.as_ref().filter(|bridge| !bridge.is_in_sight());
        // SAFETY: the caller's contract.
        let environment = out_of_sight.and_then(|bridge| unsafe { Environment::new(envp, bridge) });
        let result = exec(environment.as_ref().map_or(envp, |environment| environment.as_ptr()));
        if let Some(left) = guest {
            member::guest_stays(tls, left);
        }
        result
    };
    notify::exec_failed();
    super::signal::exec_end();
    result
}

/// The environment of the process.
fn environ() -> Strings {
    unsafe extern "C" {
        static mut environ: Strings;
    }
    // SAFETY: read as execv(3) reads it.
    unsafe { environ }
}

/// execve(2).
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn execve(path: *const c_char, argv: Strings, envp: Strings) -> c_int {
    let next = next!(c"execve": unsafe extern "C" fn(*const c_char, Strings, Strings) -> c_int);
    // SAFETY: the caller's contract.
    if unsafe { super::path::is_covered_program(path) } {
        return super::ret(Err(crate::abi::Errno::EACCES)) as c_int;
    }
    // SAFETY: the caller's contract.
    unsafe { replacing_image(envp, |envp| next(path, argv, envp)) }
}

/// execv(3).
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn execv(path: *const c_char, argv: Strings) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { execve(path, argv, environ()) }
}

/// execvp(3).
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn execvp(file: *const c_char, argv: Strings) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { execvpe(file, argv, environ()) }
}

/// execvpe(3).
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn execvpe(file: *const c_char, argv: Strings, envp: Strings) -> c_int {
    let next = next!(c"execvpe": unsafe extern "C" fn(*const c_char, Strings, Strings) -> c_int);
    // SAFETY: the caller's contract.
    if unsafe { super::path::is_covered_program(file) } {
        return super::ret(Err(crate::abi::Errno::EACCES)) as c_int;
    }
    // SAFETY: the caller's contract.
    unsafe { replacing_image(envp, |envp| next(file, argv, envp)) }
}

/// fexecve(3).
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn fexecve(fd: c_int, argv: Strings, envp: Strings) -> c_int {
    let next = next!(c"fexecve": unsafe extern "C" fn(c_int, Strings, Strings) -> c_int);
    // SAFETY: the caller's contract.
    unsafe { replacing_image(envp, |envp| next(fd, argv, envp)) }
}

/// execveat(2).
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn execveat(
    dir: c_int,
    path: *const c_char,
    argv: Strings,
    envp: Strings,
    flags: c_int,
) -> c_int {
    let next = next!(c"execveat": unsafe extern "C" fn(c_int, *const c_char, Strings, Strings, c_int) -> c_int);
    // SAFETY: the caller's contract.
    unsafe { replacing_image(envp, |envp| next(dir, path, argv, envp, flags)) }
}

type Spawn = unsafe extern "C" fn(*mut c_int, *const c_char, *const c_void, *const c_void, Strings, Strings) -> c_int;

/// posix_spawn(3).
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn posix_spawn(
    pid: *mut c_int,
    path: *const c_char,
    actions: *const c_void,
    attributes: *const c_void,
    argv: Strings,
    envp: Strings,
) -> c_int {
    super::signal::exec_begin();
    let next = next!(c"posix_spawn": Spawn);
    let result = super::task::spawning(|bridge| {
        // The file actions may close the bridge.
        // SAFETY: the caller's contract.
        let environment = bridge.and_then(|bridge| unsafe { Environment::new(envp, bridge) });
        let envp = environment.as_ref().map_or(envp, |environment| environment.as_ptr());
        // SAFETY: the caller's contract.
        unsafe { next(pid, path, actions, attributes, argv, envp) }
    });
    super::signal::exec_end();
    result
}

/// posix_spawnp(3).
///
/// # Safety
///
/// The C prototype's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn posix_spawnp(
    pid: *mut c_int,
    file: *const c_char,
    actions: *const c_void,
    attributes: *const c_void,
    argv: Strings,
    envp: Strings,
) -> c_int {
    super::signal::exec_begin();
    let next = next!(c"posix_spawnp": Spawn);
    let result = super::task::spawning(|bridge| {
        // The file actions may close the bridge.
        // SAFETY: the caller's contract.
        let environment = bridge.and_then(|bridge| unsafe { Environment::new(envp, bridge) });
        let envp = environment.as_ref().map_or(envp, |environment| environment.as_ptr());
        // SAFETY: the caller's contract.
        unsafe { next(pid, file, actions, attributes, argv, envp) }
    });
    super::signal::exec_end();
    result
}

/// Closes what would be lost with this process: descriptors of queues whose name, or namespace, is gone.
pub fn close_passing() {
    if desc::any() {
        desc::close_passing();
    }
}

/// Who ends a namespace needs some descriptors, which a process may have used up: of its queues it needs none
/// any more.
fn leave_room() {
    use crate::sys::path::Path;
    let is_full = || Path::new(&[b"/"]).and_then(|path| path.open_own(libc::O_PATH)).is_err();
    let mut from = 0;
    while is_full() {
        for _ in 0..4 {
            let Some(fd) = desc::next_known(from, u32::MAX) else { return };
            from = fd as u32 + 1;
            super::fd::mqns_close(fd);
        }
    }
}

/// The process that the image began in.
static BEGAN_IN: AtomicU32 = AtomicU32::new(0);

/// Before the program begins: what the end of a fork child asks for, so that it finds it in the memory that it
/// inherits. Each page that the kernel had to give it for that would cost as much as several system calls.
pub fn begin() {
    BEGAN_IN.store(crate::sys::getpid(), Relaxed);
    core::hint::black_box(knows_something());
    NEXT_EXIT.store(next_in_libc(c"_exit"), Relaxed);
}

/// Whether this process has anything that its end matters to, as far as it knows.
#[inline(always)]
fn knows_something() -> bool {
    !member::nobody_has_moved() || super::nsfile::any() || desc::any() || crate::vfs::any_found()
}

/// The same for certain, but that a fork child does not look for mounts that nobody before it has known.
#[inline(always)]
fn has_something() -> bool {
    knows_something() || BEGAN_IN.load(Relaxed) == crate::sys::getpid() && crate::vfs::any()
}

/// The process ends: it takes with it what only it has.
extern "C" fn mqns_process_ends() {
    if has_something() {
        process_ends();
    }
}

#[cold]
#[inline(never)]
fn process_ends() {
    // A handler that calls _exit(2) in the middle of this finds locks held by its own thread.
    static ENDING: AtomicU32 = AtomicU32::new(0);
    if ENDING.swap(1, Relaxed) != 0 {
        return;
    }
    crate::ns::life::process_ends();
    if !member::nobody_has_moved() {
        leave_room();
    }
    super::nsfile::close_all();
    if !member::nobody_has_moved() {
        member::process_ends(member::tls());
    }
    // Some may have lost their name by that.
    close_passing();
    if crate::vfs::any() {
        crate::ns::life::mount_namespace_ends();
    }
    // The memory may be a vfork child's maker's.
    ENDING.store(0, Relaxed);
}

#[cfg(not(test))]
#[used]
#[unsafe(link_section = ".fini_array")]
static AT_EXIT: extern "C" fn() = mqns_process_ends;

/// The next _exit.
static NEXT_EXIT: AtomicUsize = AtomicUsize::new(0);

/// _exit(2).
#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn _exit(status: c_int) -> ! {
    mqns_process_ends();
    let next = match NEXT_EXIT.load(Relaxed) {
        // Called before the constructor.
        0 => super::find_next(c"_exit"),
        known => known,
    };
    // SAFETY: the symbol's prototype.
    let next = unsafe { core::mem::transmute::<usize, extern "C" fn(c_int) -> !>(next) };
    next(status)
}

/// _Exit(3).
#[allow(non_snake_case)]
#[cfg_attr(not(test), unsafe(no_mangle))]
pub extern "C" fn _Exit(status: c_int) -> ! {
    _exit(status)
}

/// Looks a symbol up for a program that does so by handle (dlsym(libc, "mq_open"), as ctypes does),
/// which would pass by the preload: our function, if it is one of mqueue.h.
///
/// # Safety
///
/// `name` is what the program passed to dlsym.
#[cfg(not(test))]
unsafe extern "C" fn ours_by_name(handle: *mut c_void, name: *const c_char) -> usize {
    const RTLD_NEXT: *mut c_void = -1isize as *mut c_void;
    if handle == RTLD_NEXT || name.is_null() {
        return 0;
    }
    // SAFETY: the caller's contract: a NUL-terminated string. A name is compared only as far as it
    // matches.
    unsafe {
        let begins = |with: &[u8]| with.iter().enumerate().all(|(at, &byte)| *name.cast::<u8>().add(at) == byte);
        if !begins(b"mq_") && !begins(b"unshare") && !begins(b"setns") {
            return 0;
        }
        let name = core::ffi::CStr::from_ptr(name).to_bytes();
        use super::mq;
        match name {
            b"mq_open" => mq::mq_open as *const () as usize,
            b"mq_close" => mq::mq_close as *const () as usize,
            b"mq_unlink" => mq::mq_unlink as *const () as usize,
            b"mq_send" => mq::mq_send as *const () as usize,
            b"mq_timedsend" => mq::mq_timedsend as *const () as usize,
            b"mq_receive" => mq::mq_receive as *const () as usize,
            b"mq_timedreceive" => mq::mq_timedreceive as *const () as usize,
            b"mq_getattr" => mq::mq_getattr as *const () as usize,
            b"mq_setattr" => mq::mq_setattr as *const () as usize,
            b"mq_notify" => mq::mq_notify as *const () as usize,
            b"unshare" => super::task::unshare as *const () as usize,
            b"setns" => super::task::setns as *const () as usize,
            _ => 0,
        }
    }
}

/// The next definition of a function that libc has always had, without dlsym, which is ours. 0: there is none, where
/// libc itself is preloaded before the library; then nobody calls us.
fn next_in_libc(name: &core::ffi::CStr) -> usize {
    for version in [c"GLIBC_2.34", c"GLIBC_2.2.5", c"GLIBC_2.17"] {
        // SAFETY: NUL-terminated names.
        let at = unsafe { libc::dlvsym(libc::RTLD_NEXT, name.as_ptr(), version.as_ptr()) } as usize;
        if at != 0 {
            return at;
        }
    }
    0
}

/// libc's dlsym.
#[cfg(not(test))]
extern "C" fn real_dlsym() -> usize {
    static REAL: AtomicUsize = AtomicUsize::new(0);
    let mut at = REAL.load(Relaxed);
    if at == 0 {
        at = next_in_libc(c"dlsym");
        REAL.store(at, Relaxed);
    }
    at
}

/// dlsym(3). Goes on by a jump, because libc's looks at the return address to know its caller.
///
/// With a sanitizer in this library it is left out: the sanitizer itself begins by calling it, before anything here may
/// run (`scripts/sanitize`).
///
/// # Safety
///
/// The C prototype's.
#[cfg(all(not(test), target_arch = "x86_64"))]
#[unsafe(naked)]
#[cfg_attr(not(sanitized), unsafe(no_mangle))]
pub unsafe extern "C" fn dlsym() {
    core::arch::naked_asm!(
        "push rdi",
        "push rsi",
        "sub rsp, 8",
        "call {ours}",
        "test rax, rax",
        "jne 2f",
        "call {real}",
        "mov r11, rax",
        "add rsp, 8",
        "pop rsi",
        "pop rdi",
        "jmp r11",
        "2:",
        "add rsp, 24",
        "ret",
        ours = sym ours_by_name,
        real = sym real_dlsym,
    );
}
