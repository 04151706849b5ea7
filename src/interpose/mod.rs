//! The functions of libc that the library stands in for.
//!
//! A hook decodes its arguments and calls the layers below; it holds no logic of queues. Results
//! travel as `Result<T, Errno>` and become `-errno` at this boundary; the last step, storing
//! `errno`, is [`ret`] here or `finish` in `cshim/`.

pub mod fd;
pub mod file;
pub mod look;
pub mod mount;
pub mod mq;
pub mod nsfile;
pub mod path;
pub mod poll;
pub mod process;
pub mod signal;
pub mod symbols;
pub mod sysctl;
pub mod task;

use crate::abi::{Errno, Result};

/// `mqns_*` result: sleep, then resume. The same in `cshim/`.
pub const SLEEP: isize = isize::MIN;
/// `mqns_*` result: not ours, ask the kernel. The same in `cshim/`.
pub const BYPASS: isize = isize::MIN + 1;

/// A result for `cshim/`.
#[inline(always)]
pub fn raw_result(result: Result<usize>) -> isize {
    match result {
        Ok(value) => value as isize,
        Err(Errno(errno)) => -(errno as isize),
    }
}

/// Does out of the way what a hook rarely has to do, so that it needs no room on the stack, and saves no
/// registers, for what is not ours. As [`raw_result`], or [`BYPASS`]. Not to be unwound by pthread_cancel.
#[cold]
#[inline(never)]
pub fn aside(answer: impl FnOnce() -> isize) -> isize {
    answer()
}

unsafe extern "C" {
    fn cshim_errno() -> *mut i32;
}

/// A result for a C caller: the value, or -1 with errno set. Nothing may follow it.
#[inline(always)]
pub fn ret(result: Result<usize>) -> isize {
    match result {
        Ok(value) => value as isize,
        Err(Errno(errno)) => {
            // SAFETY: the address of the calling thread's errno.
            unsafe { *cshim_errno() = errno };
            -1
        }
    }
}

/// Exports `$name` as a jump to a C function of `cshim/`, with all arguments untouched.
macro_rules! jump {
    ($($(#[$doc:meta])* $name:ident => $target:ident;)*) => {
        $(
            $(#[$doc])*
            ///
            /// # Safety
            ///
            /// The C prototype's.
            #[cfg(not(test))]
            #[unsafe(naked)]
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name() {
                unsafe extern "C" {
                    fn $target();
                }
                #[cfg(target_arch = "x86_64")]
                core::arch::naked_asm!("jmp {}", sym $target);
                #[cfg(target_arch = "aarch64")]
                core::arch::naked_asm!("b {}", sym $target);
            }
        )*
    };
}
pub(crate) use jump;

/// syscall(2). Numbers in `cshim_intercepted` go to `cshim_syscall`; for all others this is what libc
/// does, to the instruction: such a call may return twice, or on another stack. So may clone(2) and
/// clone3(2), which go to `cshim_syscall` only without CLONE_VM and without a stack for the child.
///
/// # Safety
///
/// The C prototype's.
#[cfg(all(not(test), target_arch = "x86_64"))]
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn syscall() {
    unsafe extern "C" {
        static cshim_intercepted: [u8; 512];
        fn cshim_syscall();
        fn cshim_fail();
    }
    core::arch::naked_asm!(
        "cmp rdi, 512",
        "jae 2f",
        "lea rax, [rip + {intercepted}]",
        "cmp byte ptr [rax + rdi], 0",
        "je 2f",
        // clone: flags are the first argument.
        "cmp edi, 56",
        "jne 4f",
        "test esi, 0x100",
        "jne 2f",
        "test rdx, rdx",
        "jne 2f",
        "jmp {ours}",
        // clone3: the first word behind the first argument, if there is a structure.
        "4:",
        "cmp edi, 435",
        "jne {ours}",
        "test rsi, rsi",
        "je 2f",
        "cmp rdx, 64",
        "jb 2f",
        "test dword ptr [rsi], 0x100",
        "jne 2f",
        "cmp qword ptr [rsi + 40], 0",
        "je {ours}",
        "2:",
        "mov rax, rdi",
        "mov rdi, rsi",
        "mov rsi, rdx",
        "mov rdx, rcx",
        "mov r10, r8",
        "mov r8, r9",
        "mov r9, qword ptr [rsp + 8]",
        "syscall",
        "cmp rax, -4095",
        "jae 3f",
        "ret",
        "3:",
        "mov rdi, rax",
        "jmp {fail}",
        intercepted = sym cshim_intercepted,
        ours = sym cshim_syscall,
        fail = sym cshim_fail,
    );
}

/// syscall(2): see above.
///
/// # Safety
///
/// The C prototype's.
#[cfg(all(not(test), target_arch = "aarch64"))]
#[unsafe(naked)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn syscall() {
    unsafe extern "C" {
        static cshim_intercepted: [u8; 512];
        fn cshim_syscall();
        fn cshim_fail();
    }
    core::arch::naked_asm!(
        "cmp x0, #512",
        "b.hs 2f",
        "adrp x9, {intercepted}",
        "add x9, x9, :lo12:{intercepted}",
        "ldrb w9, [x9, x0]",
        "cbz w9, 2f",
        // clone: flags are the first argument.
        "cmp w0, #220",
        "b.ne 4f",
        "tbnz w1, #8, 2f",
        "cbnz x2, 2f",
        "b {ours}",
        // clone3: the first word behind the first argument, if there is a structure.
        "4:",
        "cmp w0, #435",
        "b.ne {ours}",
        "cbz x1, 2f",
        "cmp x2, #64",
        "b.lo 2f",
        "ldr w9, [x1]",
        "tbnz w9, #8, 2f",
        "ldr x9, [x1, #40]",
        "cbz x9, {ours}",
        "2:",
        "mov x8, x0",
        "mov x0, x1",
        "mov x1, x2",
        "mov x2, x3",
        "mov x3, x4",
        "mov x4, x5",
        "mov x5, x6",
        "svc 0",
        "cmn x0, #4095",
        "b.hs 3f",
        "ret",
        "3:",
        "b {fail}",
        intercepted = sym cshim_intercepted,
        ours = sym cshim_syscall,
        fail = sym cshim_fail,
    );
}

/// The next definition of a symbol after ours, found at its first use.
///
/// `next!(name: type)`, where the name is a C string or the symbol itself, evaluates to the function. dlsym(3) neither
/// allocates nor fails for symbols that libc has (glibc 2.34 and later).
macro_rules! next {
    ($name:literal: $type:ty) => {
        $crate::interpose::next!(@found $name, $type)
    };
    ($name:ident: $type:ty) => {{
        const NAME: &core::ffi::CStr =
            match core::ffi::CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                Ok(name) => name,
                Err(_) => panic!(),
            };
        $crate::interpose::next!(@found NAME, $type)
    }};
    (@found $name:expr, $type:ty) => {{
        static NEXT: core::sync::atomic::AtomicUsize = core::sync::atomic::AtomicUsize::new(0);
        let mut at = NEXT.load(core::sync::atomic::Ordering::Relaxed);
        if at == 0 {
            at = $crate::interpose::find_next($name);
            NEXT.store(at, core::sync::atomic::Ordering::Relaxed);
        }
        #[allow(unused_unsafe)]
        // SAFETY: the symbol's prototype is the type named, by its man page.
        unsafe {
            core::mem::transmute::<usize, $type>(at)
        }
    }};
}
pub(crate) use next;

/// The address of a symbol's next definition. Ends the program if there is none: the program was
/// linked against it, so a libc without it cannot have loaded the program.
#[cold]
pub fn find_next(name: &core::ffi::CStr) -> usize {
    // SAFETY: a NUL-terminated name.
    let at = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    if at.is_null() {
        // SAFETY: no arguments.
        unsafe { libc::abort() };
    }
    at as usize
}
