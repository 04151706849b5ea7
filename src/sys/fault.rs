//! Copies to and from user memory that survive bad pointers.
//!
//! A caller of mq_* may pass any address; the contract is EFAULT, not a crash. Everything that
//! touches caller memory goes through the routines here. They are written in assembly and lie in
//! one contiguous *guarded range*; each is a leaf that leaves the stack pointer alone. When one of
//! its instructions raises SIGSEGV or SIGBUS, the signal handler (`interpose::signal`) asks
//! [`fixup`] where to go on, and the routine returns [`Fault`] to its caller. The same covers a
//! mapping that a peer has truncated under us (SIGBUS).
//!
//! The handler must be in place (`interpose::signal::activate`) and the signal unblocked in the
//! calling thread: the kernel kills a thread that faults with SIGSEGV blocked.
//!
//! Data that other processes may change meanwhile is copied as it is found; nothing here reads a
//! byte twice. Async-signal-safe: no allocation, no locks, no system calls, errno untouched.
//!
//! # Why not `rep movsb`
//!
//! On Zen 4, FSRM and ERMS or not, it is 28 times slower when the destination lies slightly ahead of
//! the source modulo 4096 (8 KiB: 2280 ns instead of 83), and user buffers have any alignment. A loop of 32-byte moves (AVX; 8 KiB: 70–83 ns at every alignment), or of
//! 16-byte moves where there is no AVX (139 ns), was never slower in a way that mattered.

use core::arch::global_asm;
use core::mem::MaybeUninit;
use core::ptr::addr_of;
#[cfg(target_arch = "x86_64")]
use core::sync::atomic::{AtomicU8, Ordering};

use crate::abi::{Errno, MqAttr};

/// An access to caller memory failed: EFAULT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault;

impl From<Fault> for Errno {
    fn from(_: Fault) -> Errno {
        Errno::EFAULT
    }
}

/// Why [`copy_cstr`] found no string.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CstrError {
    /// A byte before the end of the string could not be read.
    Fault,
    /// The destination was filled without meeting the terminating NUL.
    TooLong,
}

impl From<Fault> for CstrError {
    fn from(_: Fault) -> CstrError {
        CstrError::Fault
    }
}

/// What a guarded routine returns: in rax and rdx, or x0 and x1.
#[repr(C)]
struct Outcome {
    /// 0, or 1 when an access faulted. Upper half undefined.
    fault: u32,
    /// The value loaded, or the length of the string.
    value: u64,
}

impl Outcome {
    #[inline(always)]
    fn check(self) -> Result<u64, Fault> {
        if self.fault == 0 { Ok(self.value) } else { Err(Fault) }
    }
}

unsafe extern "C" {
    static mqns_guarded_start: u8;
    static mqns_guarded_end: u8;
    fn mqns_guarded_fixup();
    fn mqns_guarded_copy(dst: *mut u8, src: *const u8, n: usize) -> u32;
    fn mqns_guarded_cstr(dst: *mut u8, src: *const u8, n: usize) -> Outcome;
    fn mqns_guarded_get32(src: *const u32) -> Outcome;
    fn mqns_guarded_get64(src: *const u64) -> Outcome;
    fn mqns_guarded_put32(dst: *mut u32, value: u32) -> u32;
    fn mqns_guarded_put64(dst: *mut u64, value: u64) -> u32;
    fn mqns_guarded_put_attr(dst: *mut MqAttr, flags: i64, maxmsg: i64, msgsize: i64, curmsgs: i64) -> u32;
}

#[cfg(target_arch = "x86_64")]
unsafe extern "C" {
    static mqns_guarded_avx: u8;
    fn mqns_guarded_fixup_avx();
}

/// Whether copies of more than 64 bytes use AVX: 0 not asked yet (so no), 1 no, 2 yes. Read by the
/// assembly. The child of a fork inherits the answer.
#[cfg(target_arch = "x86_64")]
static USE_AVX: AtomicU8 = AtomicU8::new(0);

/// Picks the fastest way of copying for this CPU. Copies work before and without it.
pub fn init() {
    #[cfg(target_arch = "x86_64")]
    if USE_AVX.load(Ordering::Relaxed) == 0 {
        // Relaxed: either value is right at any time.
        USE_AVX.store(if has_avx() { 2 } else { 1 }, Ordering::Relaxed);
    }
}

/// Whether CPU and kernel do AVX. (The standard library asks for everything: that takes more than
/// ten cpuid instructions, each of which a hypervisor traps. This is one.)
#[cfg(target_arch = "x86_64")]
fn has_avx() -> bool {
    const OSXSAVE: u32 = 1 << 27;
    const AVX: u32 = 1 << 28;
    // State components of SSE and of AVX in XCR0.
    const ENABLED: u32 = 0b110;
    if core::arch::x86_64::__cpuid(1).ecx & (OSXSAVE | AVX) != OSXSAVE | AVX {
        return false;
    }
    let enabled: u32;
    // SAFETY: with OSXSAVE set, xgetbv may be executed and XCR0 exists.
    unsafe {
        core::arch::asm!("xgetbv", in("ecx") 0, lateout("eax") enabled, lateout("edx") _,
            options(nomem, nostack, preserves_flags));
    }
    enabled & ENABLED == ENABLED
}

/// Where to resume when an instruction at `pc` raised SIGSEGV or SIGBUS: inside the guarded range
/// the address at which the routine returns its failure, else `None`.
#[inline]
pub fn fixup(pc: usize) -> Option<usize> {
    let start = addr_of!(mqns_guarded_start) as usize;
    let end = addr_of!(mqns_guarded_end) as usize;
    if !(start..end).contains(&pc) {
        return None;
    }
    #[cfg(target_arch = "x86_64")]
    if pc >= addr_of!(mqns_guarded_avx) as usize {
        return Some(mqns_guarded_fixup_avx as *const () as usize);
    }
    Some(mqns_guarded_fixup as *const () as usize)
}

/// Copies `n` bytes from `src` to `dst`; either may be an address of the caller's making.
///
/// Long copies go upwards. After a fault an unspecified part has been copied, possibly none.
///
/// # Safety
///
/// What can be accessed at `src` may be read, and at `dst` written, by this thread (that is, the
/// caller of the library asked for it); the two do not overlap.
#[inline(always)]
pub unsafe fn copy(dst: *mut u8, src: *const u8, n: usize) -> Result<(), Fault> {
    // SAFETY: the caller's contract; inaccessible memory ends in the fixup.
    if unsafe { mqns_guarded_copy(dst, src, n) } == 0 { Ok(()) } else { Err(Fault) }
}

/// Reads a `T` at `src`, at any alignment.
///
/// # Safety
///
/// As [`copy`]; every bit pattern is a valid `T`.
#[inline(always)]
pub unsafe fn read_user<T: Copy>(src: *const T) -> Result<T, Fault> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the destination is ours and as long as T; the source is the caller's business.
    unsafe { copy(value.as_mut_ptr().cast(), src.cast(), size_of::<T>())? };
    // SAFETY: all bytes were written, and any bytes make a T.
    Ok(unsafe { value.assume_init() })
}

/// Writes `value` to `dst`, at any alignment, padding included.
///
/// # Safety
///
/// As [`copy`]; `T` has no padding that holds anything secret.
#[inline(always)]
pub unsafe fn write_user<T: Copy>(dst: *mut T, value: T) -> Result<(), Fault> {
    // SAFETY: the source is ours and as long as T; the destination is the caller's business.
    unsafe { copy(dst.cast(), (&raw const value).cast(), size_of::<T>()) }
}

/// Reads a u32, at any alignment.
///
/// # Safety
///
/// As [`copy`].
#[inline(always)]
pub unsafe fn get_u32(src: *const u32) -> Result<u32, Fault> {
    // SAFETY: the caller's contract.
    unsafe { mqns_guarded_get32(src) }.check().map(|v| v as u32)
}

/// Reads a u64, at any alignment.
///
/// # Safety
///
/// As [`copy`].
#[inline(always)]
pub unsafe fn get_u64(src: *const u64) -> Result<u64, Fault> {
    // SAFETY: the caller's contract.
    unsafe { mqns_guarded_get64(src) }.check()
}

/// Writes a u32, at any alignment.
///
/// # Safety
///
/// As [`copy`].
#[inline(always)]
pub unsafe fn put_u32(dst: *mut u32, value: u32) -> Result<(), Fault> {
    // SAFETY: the caller's contract.
    if unsafe { mqns_guarded_put32(dst, value) } == 0 { Ok(()) } else { Err(Fault) }
}

/// Writes a u64, at any alignment.
///
/// # Safety
///
/// As [`copy`].
#[inline(always)]
pub unsafe fn put_u64(dst: *mut u64, value: u64) -> Result<(), Fault> {
    // SAFETY: the caller's contract.
    if unsafe { mqns_guarded_put64(dst, value) } == 0 { Ok(()) } else { Err(Fault) }
}

/// Writes what mq_getattr(3) has to say: from registers, for a copy would have to wait for what has just been
/// stored.
///
/// # Safety
///
/// As [`copy`].
#[inline(always)]
pub unsafe fn put_attr(dst: *mut MqAttr, flags: i64, maxmsg: u32, msgsize: u32, curmsgs: u32) -> Result<(), Fault> {
    // SAFETY: the caller's contract; the routine writes 64 bytes, the size of MqAttr.
    let fault = unsafe { mqns_guarded_put_attr(dst, flags, maxmsg.into(), msgsize.into(), curmsgs.into()) };
    if fault == 0 { Ok(()) } else { Err(Fault) }
}

/// Copies a NUL-terminated string to `dst` and returns its length without the NUL, which is copied
/// too. Reads no byte beyond the NUL, and at most `dst.len()` bytes.
///
/// # Errors
///
/// [`CstrError::TooLong`] when `dst` was filled before a NUL came: `dst` then holds the beginning of
/// the string. [`CstrError::Fault`] when a byte could not be read before either happened.
///
/// # Safety
///
/// As [`copy`], for `src`.
#[inline]
pub unsafe fn copy_cstr(dst: &mut [u8], src: *const u8) -> Result<usize, CstrError> {
    // SAFETY: the routine writes at most `dst.len()` bytes; `src` is the caller's business.
    let len = unsafe { mqns_guarded_cstr(dst.as_mut_ptr(), src, dst.len()) }.check()? as usize;
    if len < dst.len() { Ok(len) } else { Err(CstrError::TooLong) }
}

// Register use as in the System V ABI: rdi, rsi, rdx in; rax (and rdx) out. No routine touches rsp,
// so that the fixup can return from wherever the fault struck, and the default CFA holds throughout.
// Up to 128 bytes all loads come before all stores, overlapping in the middle, so that each size
// class has a single path.
#[cfg(target_arch = "x86_64")]
global_asm!(
    r#"
    .pushsection .text.mqns_guarded,"ax",@progbits
    .globl mqns_guarded_start, mqns_guarded_end, mqns_guarded_avx
    .globl mqns_guarded_fixup, mqns_guarded_fixup_avx
    .globl mqns_guarded_copy, mqns_guarded_cstr
    .globl mqns_guarded_get32, mqns_guarded_get64, mqns_guarded_put32, mqns_guarded_put64, mqns_guarded_put_attr
    .hidden mqns_guarded_start, mqns_guarded_end, mqns_guarded_avx
    .hidden mqns_guarded_fixup, mqns_guarded_fixup_avx
    .hidden mqns_guarded_copy, mqns_guarded_cstr
    .hidden mqns_guarded_get32, mqns_guarded_get64, mqns_guarded_put32, mqns_guarded_put64, mqns_guarded_put_attr
    .type mqns_guarded_copy,@function
    .type mqns_guarded_cstr,@function
    .type mqns_guarded_get32,@function
    .type mqns_guarded_get64,@function
    .type mqns_guarded_put32,@function
    .type mqns_guarded_put64,@function
    .type mqns_guarded_put_attr,@function
    .type mqns_guarded_fixup,@function
    .type mqns_guarded_fixup_avx,@function
    .p2align 6
mqns_guarded_start:
    .cfi_startproc
mqns_guarded_copy:
    cmp rdx, 16
    jb .Lmqns_below16
    cmp rdx, 32
    ja .Lmqns_above32
    movups xmm0, [rsi]
    movups xmm1, [rsi + rdx - 16]
    movups [rdi], xmm0
    movups [rdi + rdx - 16], xmm1
    xor eax, eax
    ret
.Lmqns_below16:
    cmp edx, 8
    jb .Lmqns_below8
    mov rax, [rsi]
    mov rcx, [rsi + rdx - 8]
    mov [rdi], rax
    mov [rdi + rdx - 8], rcx
    xor eax, eax
    ret
.Lmqns_below8:
    cmp edx, 4
    jb .Lmqns_below4
    mov eax, [rsi]
    mov ecx, [rsi + rdx - 4]
    mov [rdi], eax
    mov [rdi + rdx - 4], ecx
    xor eax, eax
    ret
.Lmqns_below4:
    test edx, edx
    jz .Lmqns_copied
    // One to three bytes: the first, the middle and the last, some of which coincide.
    mov r8d, edx
    shr r8d, 1
    movzx eax, byte ptr [rsi]
    movzx ecx, byte ptr [rsi + r8]
    movzx r9d, byte ptr [rsi + rdx - 1]
    mov [rdi], al
    mov [rdi + r8], cl
    mov [rdi + rdx - 1], r9b
.Lmqns_copied:
    xor eax, eax
    ret
    .p2align 4
.Lmqns_above32:
    cmp rdx, 64
    ja .Lmqns_above64
    movups xmm0, [rsi]
    movups xmm1, [rsi + 16]
    movups xmm2, [rsi + rdx - 32]
    movups xmm3, [rsi + rdx - 16]
    movups [rdi], xmm0
    movups [rdi + 16], xmm1
    movups [rdi + rdx - 32], xmm2
    movups [rdi + rdx - 16], xmm3
    xor eax, eax
    ret
    .p2align 4
.Lmqns_above64:
    cmp byte ptr [rip + {use_avx}], 2
    je mqns_guarded_avx
    cmp rdx, 128
    ja .Lmqns_above128
    movups xmm0, [rsi]
    movups xmm1, [rsi + 16]
    movups xmm2, [rsi + 32]
    movups xmm3, [rsi + 48]
    movups xmm4, [rsi + rdx - 64]
    movups xmm5, [rsi + rdx - 48]
    movups xmm6, [rsi + rdx - 32]
    movups xmm7, [rsi + rdx - 16]
    movups [rdi], xmm0
    movups [rdi + 16], xmm1
    movups [rdi + 32], xmm2
    movups [rdi + 48], xmm3
    movups [rdi + rdx - 64], xmm4
    movups [rdi + rdx - 48], xmm5
    movups [rdi + rdx - 32], xmm6
    movups [rdi + rdx - 16], xmm7
    xor eax, eax
    ret
    .p2align 4
.Lmqns_above128:
    // r8, r9: ends of destination and source. After the first vector, go on where the destination
    // is aligned; the last 64 (with AVX: 128) bytes are copied by position from the end.
    lea r8, [rdi + rdx]
    lea r9, [rsi + rdx]
    movups xmm0, [rsi]
    movups [rdi], xmm0
    mov rax, rdi
    and rax, 15
    sub rax, 16
    sub rsi, rax
    sub rdi, rax
    lea r10, [r8 - 64]
    .p2align 4
.Lmqns_sse_loop:
    movups xmm0, [rsi]
    movups xmm1, [rsi + 16]
    movups xmm2, [rsi + 32]
    movups xmm3, [rsi + 48]
    movaps [rdi], xmm0
    movaps [rdi + 16], xmm1
    movaps [rdi + 32], xmm2
    movaps [rdi + 48], xmm3
    add rsi, 64
    add rdi, 64
    cmp rdi, r10
    jb .Lmqns_sse_loop
    movups xmm0, [r9 - 64]
    movups xmm1, [r9 - 48]
    movups xmm2, [r9 - 32]
    movups xmm3, [r9 - 16]
    movups [r8 - 64], xmm0
    movups [r8 - 48], xmm1
    movups [r8 - 32], xmm2
    movups [r8 - 16], xmm3
    xor eax, eax
    ret

    .p2align 4
mqns_guarded_cstr:
    xor ecx, ecx
.Lmqns_cstr_loop:
    cmp rcx, rdx
    je .Lmqns_cstr_done
    movzx eax, byte ptr [rsi + rcx]
    mov [rdi + rcx], al
    test al, al
    jz .Lmqns_cstr_done
    inc rcx
    jmp .Lmqns_cstr_loop
.Lmqns_cstr_done:
    mov rdx, rcx
    xor eax, eax
    ret

    .p2align 4
mqns_guarded_get32:
    mov edx, [rdi]
    xor eax, eax
    ret
    .p2align 4
mqns_guarded_get64:
    mov rdx, [rdi]
    xor eax, eax
    ret
    .p2align 4
mqns_guarded_put32:
    mov [rdi], esi
    xor eax, eax
    ret
    .p2align 4
mqns_guarded_put64:
    mov [rdi], rsi
    xor eax, eax
    ret
    .p2align 4
mqns_guarded_put_attr:
    xorps xmm0, xmm0
    mov [rdi], rsi
    mov [rdi + 8], rdx
    mov [rdi + 16], rcx
    mov [rdi + 24], r8
    movups [rdi + 32], xmm0
    movups [rdi + 48], xmm0
    xor eax, eax
    ret

    // From here on the upper halves of vector registers may be dirty.
    .p2align 6
mqns_guarded_avx:
    cmp rdx, 128
    ja .Lmqns_avx_above128
    vmovups ymm0, [rsi]
    vmovups ymm1, [rsi + 32]
    vmovups ymm2, [rsi + rdx - 64]
    vmovups ymm3, [rsi + rdx - 32]
    vmovups [rdi], ymm0
    vmovups [rdi + 32], ymm1
    vmovups [rdi + rdx - 64], ymm2
    vmovups [rdi + rdx - 32], ymm3
    vzeroupper
    xor eax, eax
    ret
    .p2align 4
.Lmqns_avx_above128:
    lea r8, [rdi + rdx]
    lea r9, [rsi + rdx]
    vmovups ymm0, [rsi]
    vmovups [rdi], ymm0
    mov rax, rdi
    and rax, 31
    sub rax, 32
    sub rsi, rax
    sub rdi, rax
    lea r10, [r8 - 128]
    cmp rdi, r10
    jae .Lmqns_avx_tail
    .p2align 4
.Lmqns_avx_loop:
    vmovups ymm0, [rsi]
    vmovups ymm1, [rsi + 32]
    vmovups ymm2, [rsi + 64]
    vmovups ymm3, [rsi + 96]
    vmovaps [rdi], ymm0
    vmovaps [rdi + 32], ymm1
    vmovaps [rdi + 64], ymm2
    vmovaps [rdi + 96], ymm3
    sub rsi, -128
    sub rdi, -128
    cmp rdi, r10
    jb .Lmqns_avx_loop
.Lmqns_avx_tail:
    vmovups ymm0, [r9 - 128]
    vmovups ymm1, [r9 - 96]
    vmovups ymm2, [r9 - 64]
    vmovups ymm3, [r9 - 32]
    vmovups [r8 - 128], ymm0
    vmovups [r8 - 96], ymm1
    vmovups [r8 - 64], ymm2
    vmovups [r8 - 32], ymm3
    vzeroupper
    xor eax, eax
    ret
mqns_guarded_end:
mqns_guarded_fixup_avx:
    vzeroupper
mqns_guarded_fixup:
    mov eax, 1
    ret
    .cfi_endproc
    .popsection
    "#,
    use_avx = sym USE_AVX,
);

// Registers as in AAPCS64: x0, x1, x2 in; x0 (and x1) out; x3 to x6 are scratch. sp and the link
// register stay untouched, so that the fixup can return from wherever the fault struck.
#[cfg(target_arch = "aarch64")]
global_asm!(
    r#"
    .pushsection .text.mqns_guarded,"ax",@progbits
    .globl mqns_guarded_start, mqns_guarded_end, mqns_guarded_fixup
    .globl mqns_guarded_copy, mqns_guarded_cstr
    .globl mqns_guarded_get32, mqns_guarded_get64, mqns_guarded_put32, mqns_guarded_put64, mqns_guarded_put_attr
    .hidden mqns_guarded_start, mqns_guarded_end, mqns_guarded_fixup
    .hidden mqns_guarded_copy, mqns_guarded_cstr
    .hidden mqns_guarded_get32, mqns_guarded_get64, mqns_guarded_put32, mqns_guarded_put64, mqns_guarded_put_attr
    .type mqns_guarded_copy,%function
    .type mqns_guarded_cstr,%function
    .type mqns_guarded_get32,%function
    .type mqns_guarded_get64,%function
    .type mqns_guarded_put32,%function
    .type mqns_guarded_put64,%function
    .type mqns_guarded_put_attr,%function
    .type mqns_guarded_fixup,%function
    .p2align 6
mqns_guarded_start:
    .cfi_startproc
mqns_guarded_copy:
.Lmqns_words:
    cmp x2, #16
    b.lo .Lmqns_bytes
    ldp x3, x4, [x1], #16
    stp x3, x4, [x0], #16
    sub x2, x2, #16
    b .Lmqns_words
.Lmqns_bytes:
    cbz x2, .Lmqns_copied
    ldrb w3, [x1], #1
    strb w3, [x0], #1
    sub x2, x2, #1
    b .Lmqns_bytes
.Lmqns_copied:
    mov w0, #0
    ret
mqns_guarded_cstr:
    mov x4, #0
.Lmqns_cstr_loop:
    cmp x4, x2
    b.eq .Lmqns_cstr_done
    ldrb w3, [x1, x4]
    strb w3, [x0, x4]
    cbz w3, .Lmqns_cstr_done
    add x4, x4, #1
    b .Lmqns_cstr_loop
.Lmqns_cstr_done:
    mov x1, x4
    mov w0, #0
    ret
mqns_guarded_get32:
    ldr w1, [x0]
    mov w0, #0
    ret
mqns_guarded_get64:
    ldr x1, [x0]
    mov w0, #0
    ret
mqns_guarded_put32:
    str w1, [x0]
    mov w0, #0
    ret
mqns_guarded_put64:
    str x1, [x0]
    mov w0, #0
    ret
mqns_guarded_put_attr:
    stp x1, x2, [x0]
    stp x3, x4, [x0, #16]
    stp xzr, xzr, [x0, #32]
    stp xzr, xzr, [x0, #48]
    mov w0, #0
    ret
mqns_guarded_end:
mqns_guarded_fixup:
    mov w0, #1
    ret
    .cfi_endproc
    .popsection
    "#
);

#[cfg(test)]
mod tests {
    use super::*;
    use core::ptr::{null, null_mut};
    use std::sync::{Mutex, Once};

    /// A handler as a program would have it that does nothing but the fixup.
    extern "C" fn handler(sig: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
        let context = context.cast::<libc::ucontext_t>();
        // SAFETY: the kernel passes a valid ucontext to an SA_SIGINFO handler.
        unsafe {
            #[cfg(target_arch = "x86_64")]
            let pc = &mut (*context).uc_mcontext.gregs[libc::REG_RIP as usize];
            #[cfg(target_arch = "aarch64")]
            let pc = &mut (*context).uc_mcontext.pc;
            match fixup(*pc as usize) {
                Some(resume) => *pc = resume as _,
                None => {
                    libc::signal(sig, libc::SIG_DFL);
                }
            }
        }
    }

    fn install() {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            init();
            // SAFETY: zero is a valid sigaction; the handler is async-signal-safe.
            unsafe {
                let mut action: libc::sigaction = core::mem::zeroed();
                action.sa_sigaction = handler as *const () as usize;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
                libc::sigaction(libc::SIGSEGV, &action, null_mut());
                libc::sigaction(libc::SIGBUS, &action, null_mut());
            }
        });
    }

    const PAGE: usize = 4096;

    /// Two readable pages, then one that is not accessible.
    struct Fence(*mut u8);

    impl Fence {
        fn new() -> Fence {
            install();
            // SAFETY: a fresh anonymous mapping.
            unsafe {
                let map = libc::mmap(
                    null_mut(),
                    3 * PAGE,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                    -1,
                    0,
                );
                assert_ne!(map, libc::MAP_FAILED);
                assert_eq!(libc::mprotect(map.cast::<u8>().add(2 * PAGE).cast(), PAGE, libc::PROT_NONE), 0);
                Fence(map.cast())
            }
        }

        /// The address `n` bytes before the inaccessible page.
        fn before_end(&self, n: usize) -> *mut u8 {
            assert!(n <= 2 * PAGE);
            // SAFETY: inside the mapping.
            unsafe { self.0.add(2 * PAGE - n) }
        }
    }

    impl Drop for Fence {
        fn drop(&mut self) {
            // SAFETY: our own mapping, unused from here on.
            unsafe { libc::munmap(self.0.cast(), 3 * PAGE) };
        }
    }

    /// Both ways of copying long blocks, one after the other.
    fn with_each_method(test: impl Fn()) {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        install();
        test();
        #[cfg(target_arch = "x86_64")]
        {
            // Other tests run meanwhile; either method is right for them at any time.
            let chosen = USE_AVX.swap(1, Ordering::Relaxed);
            test();
            USE_AVX.store(chosen, Ordering::Relaxed);
        }
    }

    #[test]
    fn every_size_and_alignment_is_copied_exactly() {
        let source: Vec<u8> = (0..1400u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        with_each_method(|| {
            let mut target = vec![0u8; 1400];
            for n in 0..=1100 {
                for align in 0..16 {
                    let (from, to) = (align, (align * 7 + n) % 16 + 32);
                    target.fill(0xa5);
                    // SAFETY: both ranges lie in the vectors.
                    unsafe { copy(target.as_mut_ptr().add(to), source.as_ptr().add(from), n) }.unwrap();
                    assert_eq!(target[to..to + n], source[from..from + n], "{n} bytes from {from} to {to}");
                    assert!(target[..to].iter().chain(&target[to + n..]).all(|&b| b == 0xa5), "{n} bytes spilt");
                }
            }
        });
    }

    #[test]
    fn long_copies_of_odd_sizes_are_exact() {
        let source: Vec<u8> = (0..70_000u32).map(|i| (i.wrapping_mul(40_503) >> 7) as u8).collect();
        with_each_method(|| {
            let mut target = vec![0u8; 70_000];
            for n in [1101, 2047, 2048, 4095, 4097, 8192, 65_536, 65_539, 69_000] {
                for (from, to) in [(0, 0), (3, 17), (31, 1), (8, 0), (0, 8)] {
                    target.fill(0);
                    // SAFETY: both ranges lie in the vectors.
                    unsafe { copy(target.as_mut_ptr().add(to), source.as_ptr().add(from), n) }.unwrap();
                    assert_eq!(target[to..to + n], source[from..from + n]);
                    assert_eq!(target[to + n..].iter().filter(|&&b| b != 0).count(), 0);
                }
            }
        });
    }

    #[test]
    fn reading_across_an_inaccessible_page_fails_and_up_to_it_works() {
        let fence = Fence::new();
        with_each_method(|| {
            let mut target = vec![0u8; 2 * PAGE];
            for n in (1..=1100).chain([2048, 4096, 5000, 8000]) {
                // SAFETY: the source may fault; the target is long enough.
                unsafe {
                    assert_eq!(copy(target.as_mut_ptr(), fence.before_end(n), n), Ok(()), "{n}");
                    for missing in [1, n.div_ceil(2), n] {
                        let from = fence.before_end(n - missing);
                        assert_eq!(copy(target.as_mut_ptr(), from, n), Err(Fault), "{n} less {missing}");
                    }
                }
            }
        });
    }

    #[test]
    fn writing_across_an_inaccessible_page_fails_and_up_to_it_works() {
        let fence = Fence::new();
        with_each_method(|| {
            let source = vec![7u8; 2 * PAGE];
            for n in (1..=1100).chain([2048, 4096, 5000, 8000]) {
                // SAFETY: the destination may fault; the source is long enough.
                unsafe {
                    assert_eq!(copy(fence.before_end(n), source.as_ptr(), n), Ok(()), "{n}");
                    for missing in [1, n.div_ceil(2), n] {
                        let to = fence.before_end(n - missing);
                        assert_eq!(copy(to, source.as_ptr(), n), Err(Fault), "{n} less {missing}");
                    }
                }
            }
        });
    }

    #[test]
    fn a_long_copy_keeps_what_came_before_the_fault() {
        let fence = Fence::new();
        with_each_method(|| {
            let source: Vec<u8> = (0..8192u32).map(|i| (i / 32) as u8).collect();
            // SAFETY: the destination faults after 4000 bytes.
            unsafe {
                core::ptr::write_bytes(fence.before_end(4000), 0xee, 4000);
                assert_eq!(copy(fence.before_end(4000), source.as_ptr(), 8192), Err(Fault));
                let got = core::slice::from_raw_parts(fence.before_end(4000), 4000);
                // All but the tail of less than two rounds of the loop.
                assert_eq!(got[..4000 - 256], source[..4000 - 256]);
            }
        });
    }

    #[test]
    fn wild_addresses_fail() {
        install();
        let mut target = [0u8; 4096];
        let wild: [usize; 6] = [0, 1, 0xfff, 0x8000_0000_0000, 0xffff_8000_0000_0000, usize::MAX - 4096];
        for address in wild {
            for n in [1, 3, 4, 8, 16, 33, 65, 129, 600, 4096] {
                // SAFETY: nothing is mapped at any of these addresses.
                unsafe {
                    assert_eq!(copy(target.as_mut_ptr(), address as *const u8, n), Err(Fault), "{address:#x} {n}");
                    assert_eq!(copy(address as *mut u8, target.as_ptr(), n), Err(Fault), "{address:#x} {n}");
                }
            }
        }
        // SAFETY: nothing is accessed.
        unsafe { assert_eq!(copy(null_mut(), null(), 0), Ok(())) };
    }

    #[test]
    fn scalars_are_read_and_written_or_fail() {
        let fence = Fence::new();
        // SAFETY: addresses in the fence; the inaccessible page faults.
        unsafe {
            let end = fence.before_end(0);
            let (p4, p8) = (fence.before_end(4), fence.before_end(8));
            assert_eq!(put_u64(p8.cast(), 0x1122_3344_5566_7788), Ok(()));
            assert_eq!(get_u64(p8.cast()), Ok(0x1122_3344_5566_7788));
            assert_eq!(put_u32(p4.cast(), 0xdead_beef), Ok(()));
            assert_eq!(get_u32(p4.cast()), Ok(0xdead_beef));
            assert_eq!(get_u64(p4.cast()), Err(Fault));
            assert_eq!(put_u64(p4.cast(), 0), Err(Fault));
            assert_eq!(get_u32(end.cast()), Err(Fault));
            assert_eq!(put_u32(end.sub(1).cast(), 0), Err(Fault));
            let odd = fence.before_end(33);
            assert_eq!(write_user(odd.cast::<[i64; 4]>(), [1, -2, 3, -4]), Ok(()));
            assert_eq!(read_user(odd.cast::<[i64; 4]>()), Ok([1, -2, 3, -4]));
            assert_eq!(read_user(p8.cast::<[i64; 4]>()), Err(Fault));
            assert_eq!(write_user(p8.cast::<[i64; 4]>(), [0; 4]), Err(Fault));
        }
    }

    #[test]
    fn strings_end_at_nul_fault_or_length() {
        let fence = Fence::new();
        let mut name = [0xffu8; 8];
        // SAFETY: addresses in the fence; the inaccessible page faults.
        unsafe {
            copy(fence.before_end(5), c"/abc".as_ptr().cast(), 5).unwrap();
            assert_eq!(copy_cstr(&mut name, fence.before_end(5)), Ok(4));
            assert_eq!(&name, b"/abc\0\xff\xff\xff");
            assert_eq!(copy_cstr(&mut name[..5], fence.before_end(5)), Ok(4));
            assert_eq!(copy_cstr(&mut name[..4], fence.before_end(5)), Err(CstrError::TooLong));
            assert_eq!(copy_cstr(&mut name[..0], null()), Err(CstrError::TooLong));
            copy(fence.before_end(1), b"/".as_ptr(), 1).unwrap();
            assert_eq!(copy_cstr(&mut name, fence.before_end(1)), Err(CstrError::Fault));
            assert_eq!(copy_cstr(&mut name[..1], fence.before_end(1)), Err(CstrError::TooLong));
            assert_eq!(copy_cstr(&mut name, null()), Err(CstrError::Fault));
        }
    }

    #[test]
    fn a_truncated_mapping_fails() {
        install();
        // SAFETY: a private memory file; mapped memory beyond its end raises SIGBUS.
        unsafe {
            let fd = libc::memfd_create(c"fault".as_ptr(), 0);
            assert!(fd >= 0);
            assert_eq!(libc::ftruncate(fd, 2 * PAGE as i64), 0);
            let map = libc::mmap(null_mut(), 2 * PAGE, libc::PROT_READ, libc::MAP_SHARED, fd, 0);
            assert_ne!(map, libc::MAP_FAILED);
            let second = map.cast::<u64>().add(PAGE / 8);
            assert_eq!(get_u64(second), Ok(0));
            assert_eq!(libc::ftruncate(fd, PAGE as i64), 0);
            assert_eq!(get_u64(second), Err(Fault));
            libc::munmap(map, 2 * PAGE);
            libc::close(fd);
        }
    }

    #[test]
    fn only_the_guarded_range_is_fixed_up() {
        let start = addr_of!(mqns_guarded_start) as usize;
        let end = addr_of!(mqns_guarded_end) as usize;
        assert_eq!(fixup(start - 1), None);
        assert_eq!(fixup(end), None);
        assert!(fixup(start).is_some() && fixup(end - 1).is_some());
        assert_eq!(fixup(only_the_guarded_range_is_fixed_up as *const () as usize), None);
    }
}
