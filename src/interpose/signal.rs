//! Signal dispositions, virtualised: our own handler stands in front of each of the program's.
//!
//! It is there for four things only, none of which the program can see:
//!
//! 1. SIGSEGV or SIGBUS raised by a copy to or from caller memory ([`fault`]) resumes that copy
//!    with EFAULT.
//! 2. A handler that would run while its thread is inside a critical section (`Tls::crit`) is put
//!    off to the end of that section, where [`deliver_deferred`] lets the kernel deliver the
//!    signal again. So handlers may call mq_* whatever they interrupt, and the fast path pays two
//!    plain stores instead of two system calls.
//! 3. Before a handler runs on a thread that waits in a queue (`Tls::waiter`), [`ON_HANDLER`] is
//!    called, which takes the thread out of its line.
//! 4. A signal that says that something is up with a descriptor may be a notification in disguise, or
//!    none of the program's business: [`ON_READY`] tells. The same goes for sigwaitinfo(2) and its
//!    like.
//!
//! Nothing of this exists before [`activate`], which the first queue operation calls: a process
//! that uses no queue keeps its dispositions, and its calls go to libc as they are.
//!
//! # How a disposition is represented
//!
//! **The kernel holds the truth.** What the program sets is installed with its own mask, flags and
//! libc's restorer; only the handler is replaced, by one of [`SLOTS`] entry points (*trampolines*).
//! The number of the entry point and that of the signal select a [`Record`]: the program's handler
//! and the few flag bits that we had to change ([`CHANGED`]). `SIG_DFL` and `SIG_IGN` go to the kernel
//! unchanged, except for SIGSEGV and SIGBUS, where they are records like any handler. It follows that
//!
//! * one system call switches handler, mask and flags together, and a handler that was chosen by
//!   the kernel under the old disposition still finds the old record: nothing is ever seen torn;
//! * what sigaction(2) returns as the old disposition is exactly the one it replaced, however many
//!   threads and handlers call it at the same time, without any lock;
//! * a child of vfork, which shares our memory but not its parent's dispositions, may reset signals
//!   without the parent noticing; a child of fork has a copy of both; exec discards both.
//!
//! Records are interned: as many as a signal has had different (handler, flags). Only a program
//! that goes through more than [`SLOTS`] of them for a single signal makes us reuse the oldest.
//!
//! The entry point calls [`decide`], drops its frame and *jumps* to the program's handler: return
//! address, stack, arguments and registers are those of a handler called by the kernel. Backtraces
//! show nothing of ours, and what unwinds through a handler (pthread_cancel, exceptions, longjmp)
//! meets no Rust frame. The price is that nothing can be done after a handler, and nothing needs to.
//!
//! # What differs all the same
//!
//! * The kernel kills a thread that faults while SIGSEGV (SIGBUS) is blocked: a bad pointer passed
//!   to mq_* by such a thread, or from inside a SIGSEGV handler without SA_NODEFER, is a crash
//!   instead of EFAULT.
//! * Two instances of one real-time signal that are both directed at the same *thread*: if the
//!   second is pending already when the first is put off, they are delivered in the other order.
//!   (Directed at the process, as by sigqueue(3) and kill(2), they keep their order: the kernel takes a
//!   thread's own signals first.)
//! * SA_RESETHAND is carried out by the first instructions of the handler instead of by the kernel
//!   (a signal put off must find its handler again). A second thread that meets the signal in these
//!   few hundred nanoseconds gets the default action all the same; a second thread that calls
//!   sigaction(2) for that signal in them may find it undone.
//! * SIGSEGV and SIGBUS with SIG_IGN, *sent* by kill(2): a handler of ours runs, which makes those
//!   few system calls that never restart return EINTR. Their SIG_IGN survives exec and spawn by
//!   [`exec_begin`].
//! * `/proc/<pid>/status` shows SIGSEGV and SIGBUS as caught; rt_sigaction(2) called by number shows
//!   our entry points. The latter may set what it likes: that handler then isn't put off.
//! * A vfork child that makes the first queue operation of the two activates for itself alone.
//!
//! Async-signal-safe throughout, but for the search of libc's `sigaction` at the first call.

use core::arch::global_asm;
use core::ffi::c_int;
use core::mem::{MaybeUninit, transmute};
use core::ptr::{addr_of, null, null_mut};
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

use libc::{SIG_DFL, SIG_ERR, SIG_IGN, SIGBUS, SIGKILL, SIGSEGV, SIGSTOP};

use crate::abi::{Errno, Result};
use crate::shm::gone;
use crate::sys::tls::{Tls, tls};
use crate::sys::{fault, getpid, gettid};
use crate::syscall;

/// Number of entry points, thus of different (handler, flags) remembered for each signal.
const SLOTS: usize = 8;
/// Highest signal number (`_NSIG` of the kernel).
const LAST: c_int = 64;

/// A function (as `usize`; 0 = none) to call before the program's handler runs on a thread whose
/// `Tls::waiter` is not 0, with the handler's `sa_flags`, of which SA_RESTART counts. All signals
/// that the handler blocks are blocked.
pub static ON_HANDLER: AtomicUsize = AtomicUsize::new(0);

/// What [`ON_READY`] is: called with the signal and the descriptor; returns 0 (the signal is what it says),
/// 1 (it is to be taken for nothing), or the si_code it shall have, with the payload stored.
pub type ReadyHook = extern "C" fn(c_int, c_int, &mut [u64; 2]) -> c_int;
/// A [`ReadyHook`] (as `usize`; 0 = none) to ask about signals with POLL_MSG or SI_SIGIO.
pub static ON_READY: AtomicUsize = AtomicUsize::new(0);

// ---------------------------------------------------------------------------------------------
// The kernel's interface

/// `struct sigaction` as rt_sigaction(2) has it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
struct Disposition {
    handler: usize,
    flags: u64,
    restorer: usize,
    mask: u64,
}

impl Disposition {
    const fn default() -> Disposition {
        Disposition { handler: SIG_DFL, flags: 0, restorer: 0, mask: 0 }
    }
}

/// `siginfo_t`, of which we only carry the contents about.
#[repr(C)]
#[derive(Clone, Copy)]
struct Info {
    signo: i32,
    errno: i32,
    code: i32,
    pad: i32,
    payload: [u64; 14],
}

impl Info {
    /// `payload`: si_pid and si_uid, or what else is there; si_value.
    fn new(signo: c_int, code: c_int, [sender, value]: [u64; 2]) -> Info {
        let mut payload = [0; 14];
        payload[0] = sender;
        payload[1] = value;
        Info { signo, errno: 0, code, pad: 0, payload }
    }
}
const _: () = assert!(size_of::<Info>() == 128 && size_of::<libc::siginfo_t>() == 128);

/// si_code of kill(2).
const SI_USER: c_int = 0;
/// si_code of a signal that says that the lease of a descriptor is broken (fcntl(2), F_SETLEASE).
const POLL_MSG: c_int = 3;
/// The same where small numbers mean something else.
const SI_SIGIO: c_int = -5;
/// SA_RESTORER of the kernel, which libcs add on x86-64 but not on aarch64.
#[cfg(target_arch = "x86_64")]
const SA_RESTORER: u32 = 0x0400_0000;
#[cfg(not(target_arch = "x86_64"))]
const SA_RESTORER: u32 = 0;
const SA_SIGINFO: u32 = libc::SA_SIGINFO as u32;
const SA_RESETHAND: u32 = libc::SA_RESETHAND as u32;
const SA_RESTART: u32 = libc::SA_RESTART as u32;
const SA_NODEFER: u32 = libc::SA_NODEFER as u32;
/// SA_INTERRUPT of signal.h: means nothing to the kernel.
const SA_INTERRUPT: u32 = 0x2000_0000;

/// Flag bits in which a disposition of ours may differ from what the program set; records have
/// the program's. SA_SIGINFO: we always need the siginfo. SA_RESETHAND: see the head of the file.
/// SA_RESTART: an ignored SIGSEGV shall disturb as little as possible. SA_RESTORER: we need one
/// even where the program never set a handler.
const CHANGED: u32 = SA_SIGINFO | SA_RESETHAND | SA_RESTART | SA_RESTORER;

const fn bit(sig: c_int) -> u64 {
    1 << (sig - 1)
}

/// The two signals that the guarded copies raise.
const FAULTS: u64 = bit(SIGSEGV) | bit(SIGBUS);
/// What stays blocked from the moment a signal is put off to the end of the critical section: all
/// but those two (the section may copy from caller memory), less what cannot be blocked.
const DEFERRAL: u64 = !(FAULTS | bit(SIGKILL) | bit(SIGSTOP));

fn is_fault(sig: c_int) -> bool {
    sig == SIGSEGV || sig == SIGBUS
}

/// Whether libc lets programs set the disposition (glibc and musl keep 32 and 33 for themselves).
fn is_settable(sig: c_int) -> bool {
    (1..=LAST).contains(&sig) && sig != 32 && sig != 33
}

/// rt_sigaction(2): returns the old disposition.
fn set_disposition(sig: c_int, new: &Disposition) -> Result<Disposition> {
    let mut old = Disposition::default();
    // SAFETY: both structures are laid out as the kernel's; what is installed is a disposition that
    // the program chose, or an entry point of ours with the restorer that belongs to it.
    unsafe { syscall!(SYS_rt_sigaction, sig, &raw const *new, &raw mut old, 8)? };
    Ok(old)
}

/// rt_sigaction(2): the disposition as it is.
fn disposition(sig: c_int) -> Result<Disposition> {
    let mut old = Disposition::default();
    // SAFETY: the structure is laid out as the kernel's.
    unsafe { syscall!(SYS_rt_sigaction, sig, 0, &raw mut old, 8)? };
    Ok(old)
}

/// rt_sigprocmask(2) of the calling thread: returns the old mask. Cannot fail.
fn change_mask(how: c_int, set: u64) -> u64 {
    let mut old = 0u64;
    // SAFETY: both masks are of the size the kernel wants.
    let _ = unsafe { syscall!(SYS_rt_sigprocmask, how, &raw const set, &raw mut old, 8) };
    old
}

/// Queues `info` to the calling thread. To itself a thread may send any si_code.
fn send_to_self(info: &Info) -> Result<usize> {
    // SAFETY: the structure is a siginfo_t, as received from the kernel or made up like one.
    unsafe { syscall!(SYS_rt_tgsigqueueinfo, getpid(), gettid(), info.signo, &raw const *info) }
}

// ---------------------------------------------------------------------------------------------
// Records

/// What stands behind one entry point for one signal.
struct Record {
    /// Even: stable, 0 = never used; odd: being written. Grows with every change.
    sequence: AtomicU32,
    /// The program's flags; those in [`CHANGED`] count.
    flags: AtomicU32,
    /// The program's handler, or SIG_DFL or SIG_IGN.
    handler: AtomicUsize,
}

/// The contents of a [`Record`].
#[derive(Clone, Copy, PartialEq, Eq)]
struct Wanted {
    handler: usize,
    flags: u32,
}

impl Record {
    const fn new() -> Record {
        Record { sequence: AtomicU32::new(0), flags: AtomicU32::new(0), handler: AtomicUsize::new(0) }
    }

    /// The contents and their sequence number, unless the record is empty or being written.
    fn read(&self) -> Option<(Wanted, u32)> {
        let before = self.sequence.load(Ordering::Acquire);
        let wanted = self.read_unchecked();
        fence(Ordering::Acquire);
        let after = self.sequence.load(Ordering::Relaxed);
        (before == after && before != 0 && before.is_multiple_of(2)).then_some((wanted, before))
    }

    fn read_unchecked(&self) -> Wanted {
        Wanted { handler: self.handler.load(Ordering::Relaxed), flags: self.flags.load(Ordering::Relaxed) }
    }

    /// Takes the record for writing if it still is at `sequence` (even).
    fn claim(&self, sequence: u32) -> bool {
        let claimed = sequence.wrapping_add(1);
        // SeqCst: see `intern`.
        self.sequence.compare_exchange(sequence, claimed, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    /// Ends what `claim(sequence)` began; returns the new sequence number.
    fn publish(&self, sequence: u32) -> u32 {
        // Never 0, which means "never used".
        let published = match sequence.wrapping_add(2) {
            0 => 2,
            next => next,
        };
        self.sequence.store(published, Ordering::Release);
        published
    }

    fn write(&self, wanted: Wanted) {
        fence(Ordering::Release);
        self.handler.store(wanted.handler, Ordering::Relaxed);
        self.flags.store(wanted.flags, Ordering::Relaxed);
    }
}

/// The records of all signals. A child of fork has a copy; a child of vfork shares them and may
/// add to them, which does no harm.
static RECORDS: [[Record; SLOTS]; LAST as usize + 1] = [const { [const { Record::new() }; SLOTS] }; LAST as usize + 1];
/// Where the search for a record to reuse goes on.
static REUSE: AtomicU32 = AtomicU32::new(0);

/// The records of `sig`; of signal 0, which nobody has, when there is no such signal.
fn records(sig: c_int) -> &'static [Record; SLOTS] {
    usize::try_from(sig).ok().and_then(|index| RECORDS.get(index)).unwrap_or(&RECORDS[0])
}

/// A record that has been found or made: its entry point is to be installed.
struct Interned {
    slot: usize,
    sequence: u32,
}

impl Interned {
    /// Whether the record is still what it was. Asked *after* installing the entry point.
    fn holds(&self, sig: c_int) -> bool {
        fence(Ordering::SeqCst);
        records(sig)[self.slot].sequence.load(Ordering::SeqCst) == self.sequence
    }
}

/// Finds a record of `sig` with these contents, or makes one.
///
/// Reuse is Dekker's: the reuser claims the record and then looks whether the kernel has its entry
/// point; the installer installs the entry point and then looks whether the record has been
/// claimed ([`Interned::holds`]) and starts again if so. One of them sees the other.
fn intern(sig: c_int, wanted: Wanted) -> Interned {
    let wanted = Wanted { flags: wanted.flags & CHANGED, ..wanted };
    let records = records(sig);
    loop {
        for (slot, record) in records.iter().enumerate() {
            if let Some((found, sequence)) = record.read()
                && found == wanted
            {
                return Interned { slot, sequence };
            }
        }
        for (slot, record) in records.iter().enumerate() {
            if record.sequence.load(Ordering::Relaxed) == 0 && record.claim(0) {
                record.write(wanted);
                return Interned { slot, sequence: record.publish(0) };
            }
        }
        // All in use. Signals stay blocked while a used record is claimed, so that a trampoline
        // never waits for the very code it has interrupted.
        let slot = REUSE.fetch_add(1, Ordering::Relaxed) as usize % SLOTS;
        let record = &records[slot];
        let mask = change_mask(libc::SIG_SETMASK, !0);
        let sequence = record.sequence.load(Ordering::Relaxed);
        let mut made = None;
        if sequence.is_multiple_of(2) && record.claim(sequence) {
            let active = disposition(sig).ok().and_then(|now| slot_of(now.handler));
            if active != Some(slot) {
                record.write(wanted);
                made = Some(Interned { slot, sequence: 0 });
            }
            let sequence = record.publish(sequence);
            if let Some(made) = &mut made {
                made.sequence = sequence;
            }
        }
        change_mask(libc::SIG_SETMASK, mask);
        if let Some(made) = made {
            return made;
        }
    }
}

/// What the program has set for `sig`, when the kernel has entry point `slot`.
fn recorded(sig: c_int, slot: usize) -> Wanted {
    let records = records(sig);
    let record = &records[slot % SLOTS];
    for _ in 0..100 {
        if let Some((wanted, _)) = record.read() {
            return wanted;
        }
        core::hint::spin_loop();
    }
    // It is being reused: the disposition has changed since. What holds now?
    let now = disposition(sig).ok().and_then(|now| slot_of(now.handler));
    match now.map(|now| &records[now]) {
        Some(other) if !core::ptr::eq(other, record) => other.read_unchecked(),
        // Still this one: then the claim will be given up, and the contents stand.
        _ => record.read_unchecked(),
    }
}

/// The flags to install for `wanted`, given all the flags of the program.
fn flags_to_install(wanted: Wanted) -> u32 {
    let restart = if wanted.handler == SIG_IGN { SA_RESTART } else { 0 };
    (wanted.flags | SA_SIGINFO | SA_RESTORER | restart) & !SA_RESETHAND
}

/// The flags as the program set them, from those that are installed.
fn flags_of_program(installed: u32, wanted: Wanted) -> u32 {
    installed & !CHANGED | wanted.flags & CHANGED
}

/// The disposition as the program set it, from the kernel's, and its entry point if it is ours.
fn seen_by_program(sig: c_int, now: &Disposition) -> (Disposition, Option<usize>) {
    let Some(slot) = slot_of(now.handler) else { return (*now, None) };
    let wanted = recorded(sig, slot);
    let flags = flags_of_program(now.flags as u32, wanted);
    let restorer = if flags & SA_RESTORER == SA_RESTORER { now.restorer } else { 0 };
    (Disposition { handler: wanted.handler, flags: flags.into(), restorer, mask: now.mask }, Some(slot))
}

/// Whether a disposition with this handler is installed with an entry point of ours.
fn is_wrapped(sig: c_int, handler: usize) -> bool {
    is_fault(sig) || (handler != SIG_DFL && handler != SIG_IGN)
}

// ---------------------------------------------------------------------------------------------
// Entry points

// `mqns_trampolines` is SLOTS entry points of 16 bytes, called by the kernel with (signal,
// siginfo, ucontext). Each adds its number as the fourth argument of `decide`, which returns the
// handler to jump to, or 0 to return from the signal.
//
// x86-64: rsp is 8 less than a multiple of 16, the return address is the restorer's; rax is 0
// for the handler, as the kernel leaves it.
#[cfg(target_arch = "x86_64")]
global_asm!(
    r#"
    .pushsection .text.mqns_signal,"ax",@progbits
    .globl mqns_trampolines, mqns_sigaction_restorer
    .hidden mqns_trampolines, mqns_sigaction_restorer
    .type mqns_trampolines,@function
    .p2align 4
mqns_trampolines:
    .cfi_startproc
    .irp slot, 0, 1, 2, 3, 4, 5, 6, 7
    mov ecx, \slot
    jmp .Lmqns_trampoline
    .p2align 4
    .endr
.Lmqns_trampoline:
    push rdi
    .cfi_adjust_cfa_offset 8
    push rsi
    .cfi_adjust_cfa_offset 8
    push rdx
    .cfi_adjust_cfa_offset 8
    call {decide}
    pop rdx
    .cfi_adjust_cfa_offset -8
    pop rsi
    .cfi_adjust_cfa_offset -8
    pop rdi
    .cfi_adjust_cfa_offset -8
    test rax, rax
    jz .Lmqns_trampoline_done
    mov r11, rax
    xor eax, eax
    jmp r11
.Lmqns_trampoline_done:
    ret
    .cfi_endproc
    .size mqns_trampolines, . - mqns_trampolines

    // Unwinders know a signal frame by the code at its return address, which must be just this,
    // and must belong to no frame description, nor may the byte before it: hence the padding.
    // gdb wants "sigaction" in the name.
    .type mqns_sigaction_restorer,@function
    .p2align 4
    .skip 16, 0x90
mqns_sigaction_restorer:
    .byte 0x48, 0xc7, 0xc0, 0x0f, 0x00, 0x00, 0x00  // mov rax, SYS_rt_sigreturn
    .byte 0x0f, 0x05                                // syscall
    .size mqns_sigaction_restorer, . - mqns_sigaction_restorer
    .popsection
    "#,
    decide = sym decide,
);

// aarch64: the link register is the restorer's (the vDSO's).
#[cfg(target_arch = "aarch64")]
global_asm!(
    r#"
    .pushsection .text.mqns_signal,"ax",@progbits
    .globl mqns_trampolines
    .hidden mqns_trampolines
    .type mqns_trampolines,%function
    .p2align 4
mqns_trampolines:
    .cfi_startproc
    .irp slot, 0, 1, 2, 3, 4, 5, 6, 7
    bti c
    mov w3, #\slot
    b .Lmqns_trampoline
    .p2align 4
    .endr
.Lmqns_trampoline:
    stp x29, x30, [sp, #-48]!
    .cfi_def_cfa_offset 48
    .cfi_offset 29, -48
    .cfi_offset 30, -40
    stp x0, x1, [sp, #16]
    str x2, [sp, #32]
    mov x29, sp
    bl {decide}
    mov x16, x0
    ldp x0, x1, [sp, #16]
    ldr x2, [sp, #32]
    ldp x29, x30, [sp], #48
    .cfi_restore 29
    .cfi_restore 30
    .cfi_def_cfa_offset 0
    cbz x16, .Lmqns_trampoline_done
    br x16
.Lmqns_trampoline_done:
    ret
    .cfi_endproc
    .size mqns_trampolines, . - mqns_trampolines
    .popsection
    "#,
    decide = sym decide,
);

/// Bytes from one entry point to the next.
const TRAMPOLINE_SIZE: usize = 16;
const _: () = assert!(SLOTS == 8, "the assembly has eight entry points");

unsafe extern "C" {
    static mqns_trampolines: u8;
    #[cfg(target_arch = "x86_64")]
    static mqns_sigaction_restorer: u8;
}

/// Address of entry point `slot`.
fn trampoline(slot: usize) -> usize {
    addr_of!(mqns_trampolines) as usize + slot * TRAMPOLINE_SIZE
}

/// Which entry point of ours `handler` is.
fn slot_of(handler: usize) -> Option<usize> {
    let offset = handler.wrapping_sub(addr_of!(mqns_trampolines) as usize);
    (offset < SLOTS * TRAMPOLINE_SIZE && offset.is_multiple_of(TRAMPOLINE_SIZE)).then_some(offset / TRAMPOLINE_SIZE)
}

/// A restorer to use when libc's isn't known: 0 = the kernel provides one.
fn own_restorer() -> usize {
    #[cfg(target_arch = "x86_64")]
    return addr_of!(mqns_sigaction_restorer) as usize;
    #[cfg(not(target_arch = "x86_64"))]
    return 0;
}

/// The interrupted code's program counter.
unsafe fn program_counter(context: *mut libc::ucontext_t) -> *mut usize {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller passes the ucontext of a signal frame.
    return unsafe { &raw mut (*context).uc_mcontext.gregs[libc::REG_RIP as usize] }.cast();
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    return unsafe { &raw mut (*context).uc_mcontext.pc }.cast();
}

/// Whether the signal was raised by the very instruction that it interrupted.
fn is_synchronous(sig: c_int, code: c_int) -> bool {
    // BUS_MCEERR_AO: a memory error that somebody else's access found.
    const BUS_MCEERR_AO: c_int = 5;
    match sig {
        SIGBUS => code > 0 && code != BUS_MCEERR_AO,
        SIGSEGV | libc::SIGFPE | libc::SIGILL | libc::SIGTRAP | libc::SIGSYS => code > 0,
        _ => false,
    }
}

/// What is to be done with a signal: returns the program's handler, or 0 to go back to the
/// interrupted code. Leaves errno alone: makes no libc calls.
unsafe extern "C" fn decide(sig: c_int, info: *mut Info, context: *mut libc::ucontext_t, slot: u32) -> usize {
    // SAFETY: the kernel passes its siginfo; all our dispositions have SA_SIGINFO.
    let synchronous = is_synchronous(sig, unsafe { (*info).code });
    if synchronous && is_fault(sig) {
        // A mapping of ours that somebody has cut short.
        // SAFETY: as above.
        let replaced = sig == SIGBUS && gone::replace(unsafe { (*info).payload[0] } as usize);
        // SAFETY: the kernel passes its ucontext, which it loads again at our return.
        unsafe {
            let pc = program_counter(context);
            if let Some(resume) = fault::fixup(*pc) {
                *pc = resume;
                return 0;
            }
        }
        if replaced {
            return 0;
        }
    }
    let slot = slot as usize;
    let wanted = recorded(sig, slot);
    if wanted.handler == SIG_IGN && !synchronous {
        return 0;
    }
    // SAFETY: as above; the handler gets the same.
    let info = unsafe { &mut *info };
    if wanted.handler == SIG_DFL || wanted.handler == SIG_IGN {
        die_by(sig, info);
        return 0;
    }
    let tls = tls();
    if tls.crit.load(Ordering::Relaxed) != 0 && !synchronous {
        // SAFETY: uc_sigmask of the kernel is the first 8 bytes of libc's.
        put_off(tls, info, unsafe { &mut *(&raw mut (*context).uc_sigmask).cast::<u64>() });
        return 0;
    }
    if is_nothing(info) {
        return 0;
    }
    if wanted.flags & SA_RESETHAND != 0 && !reset_handler(sig, slot) {
        // Another thread was first: for us the disposition is SIG_DFL.
        if !synchronous {
            let _ = send_to_self(info);
        }
        return 0;
    }
    if tls.waiter.load(Ordering::Relaxed) != 0 {
        let hook = ON_HANDLER.load(Ordering::Acquire);
        if hook != 0 {
            // SAFETY: the kernel's ucontext; whoever stored the hook stored a function of this type.
            unsafe {
                let flags = first_flags(wanted.flags, context);
                transmute::<usize, extern "C" fn(c_int)>(hook)(flags as c_int);
            }
        }
    }
    wanted.handler
}

/// The flags of the handler that has interrupted the thread. Signals that come at the same time pile up: each
/// frame but the first, which is at the bottom and runs last, interrupts the entry point of the one below. It
/// is the first that decides whether a system call restarts.
unsafe fn first_flags(flags: u32, context: *mut libc::ucontext_t) -> u32 {
    let (mut flags, mut context) = (flags, context);
    // SAFETY: the caller passes the ucontext of a signal frame; at an entry point the registers are
    // the kernel's arguments to it.
    unsafe {
        while let Some(slot) = slot_of(*program_counter(context)) {
            let [sig, below] = entry_arguments(context);
            flags = recorded(sig as c_int, slot).flags;
            context = below as *mut libc::ucontext_t;
        }
    }
    flags
}

/// The signal and the ucontext that an entry point has been called with, and has not looked at yet.
unsafe fn entry_arguments(context: *mut libc::ucontext_t) -> [usize; 2] {
    // SAFETY: the caller passes the ucontext of a signal frame.
    unsafe {
        let machine = &(*context).uc_mcontext;
        #[cfg(target_arch = "x86_64")]
        return [machine.gregs[libc::REG_RDI as usize] as usize, machine.gregs[libc::REG_RDX as usize] as usize];
        #[cfg(target_arch = "aarch64")]
        return [machine.regs[0] as usize, machine.regs[2] as usize];
    }
}

/// Asks [`ON_READY`] about a signal, and makes a notification of it if it is one. True: it is to be taken for
/// nothing.
fn is_nothing(info: &mut Info) -> bool {
    let ready = match info.signo {
        SIGSEGV | SIGBUS | libc::SIGILL | libc::SIGFPE | libc::SIGTRAP | libc::SIGCHLD | libc::SIGSYS => {
            info.code == SI_SIGIO
        }
        _ => info.code == POLL_MSG,
    };
    ready && ask_ready(info)
}

#[cold]
fn ask_ready(info: &mut Info) -> bool {
    let hook = ON_READY.load(Ordering::Acquire);
    if hook == 0 {
        return false;
    }
    let mut sender = [0; 2];
    // SAFETY: whoever stored it stored a function of this type.
    let hook = unsafe { transmute::<usize, ReadyHook>(hook) };
    // si_band, then si_fd.
    match hook(info.signo, info.payload[1] as u32 as c_int, &mut sender) {
        0 => false,
        1 => true,
        code => {
            *info = Info::new(info.signo, code, sender);
            false
        }
    }
}

/// The default action of SIGSEGV and SIGBUS: ends the process at our return, with the core dump
/// and wait status of the original signal, sent or raised.
///
/// An ignored signal that an instruction raises ends the process as well: the kernel forces it.
#[cold]
fn die_by(sig: c_int, info: &Info) {
    if let Ok(now) = disposition(sig) {
        let (seen, slot) = seen_by_program(sig, &now);
        // Else the program has set a new handler meanwhile, which gets the signal.
        if slot.is_some() && (seen.handler == SIG_DFL || seen.handler == SIG_IGN) {
            let _ = set_disposition(sig, &Disposition { handler: SIG_DFL, ..seen });
        }
    }
    // Pending until the mask of the interrupted code is back. (Sent also when the instruction would
    // raise it again: some crash handlers queue themselves a siginfo that looks like a fault.)
    let _ = send_to_self(info);
    if getpid() == 1 {
        // The first process of a PID namespace doesn't die of signals from inside it. If it lives,
        // we are needed further on.
        change_mask(libc::SIG_UNBLOCK, bit(sig));
        adopt(sig);
    }
}

/// SA_RESETHAND: what the kernel does when it delivers. Returns false if the handler had been
/// reset already.
#[cold]
fn reset_handler(sig: c_int, slot: usize) -> bool {
    loop {
        let Ok(now) = disposition(sig) else { return true };
        let (seen, current) = seen_by_program(sig, &now);
        if current != Some(slot) {
            // Reset by another thread, or set anew since the kernel chose this handler, which then
            // had been reset before.
            return seen.handler != SIG_DFL;
        }
        // The kernel only clears the handler.
        let mut reset = Disposition { handler: SIG_DFL, ..seen };
        let mut interned = None;
        if is_fault(sig) {
            let wanted = Wanted { handler: SIG_DFL, flags: seen.flags as u32 };
            let found = intern(sig, wanted);
            reset = wrap(wanted, found.slot, &seen);
            interned = Some(found);
        }
        let Ok(old) = set_disposition(sig, &reset) else { return true };
        if interned.is_some_and(|interned| !interned.holds(sig)) {
            continue;
        }
        if old != now {
            let (seen, _) = seen_by_program(sig, &old);
            if seen.handler == SIG_DFL {
                return false;
            }
            if slot_of(old.handler) != Some(slot) {
                // Set anew between our two looks: that stands.
                let _ = set_disposition(sig, &old);
            }
        }
        return true;
    }
}

// ---------------------------------------------------------------------------------------------
// Putting off

/// `Tls::reserved`: one signal held back with its siginfo (three words: signal number and si_code,
/// si_pid and si_uid, si_value; 0 = none) ...
const HELD: usize = 0;
/// ... and the set of those held back without.
const HELD_BARE: usize = 3;

/// Puts a signal off to the end of the critical section: queues it once more to this thread and
/// blocks all signals in the interrupted code. `mask` is the signal mask that our return restores.
///
/// Which mask to save: several frames may pile up before the first of them gets here, because the
/// kernel delivers a second signal on the first instruction of our entry point. The last frame is
/// on top and runs first; its `mask` is that of the *entry point below*, which has the first signal's
/// sa_mask added. The frame at the bottom, whose `mask` is the critical section's own, runs
/// last. Hence each overwrites what was saved before. The exception are SIGSEGV and SIGBUS, which
/// stay unblocked and may come after that: these find the mask that we ourselves have put there.
///
/// SIGSEGV and SIGBUS cannot be queued right away, for they would come back at once; they are held
/// in the thread block. (Only sent ones get here. Further ones merge with the one held, as standard
/// signals do.) The same goes for a signal that cannot be queued because RLIMIT_SIGPENDING has been
/// reached in the meantime.
#[cold]
fn put_off(tls: &Tls, info: &Info, mask: &mut u64) {
    change_mask(libc::SIG_SETMASK, !0);
    let ours = *mask | FAULTS == DEFERRAL | FAULTS;
    if tls.deferred.load(Ordering::Relaxed) == 0 || !ours {
        tls.saved_mask.store(*mask, Ordering::Relaxed);
        tls.deferred.store(1, Ordering::Relaxed);
    }
    *mask = DEFERRAL | *mask & FAULTS;
    if is_fault(info.signo) || send_to_self(info).is_err() {
        hold(tls, info);
    }
}

fn hold(tls: &Tls, info: &Info) {
    let [first, second, third] = [0, 1, 2].map(|word| &tls.reserved[HELD + word]);
    let held = first.load(Ordering::Relaxed) as u32 as c_int;
    if held == 0 {
        second.store(info.payload[0], Ordering::Relaxed);
        third.store(info.payload[1], Ordering::Relaxed);
        first.store(u64::from(info.signo as u32) | u64::from(info.code as u32) << 32, Ordering::Relaxed);
    } else if held != info.signo || !is_fault(held) {
        tls.reserved[HELD_BARE].fetch_or(bit(info.signo), Ordering::Relaxed);
    }
}

/// Queues what was held back, all signals being blocked.
fn release_held(tls: &Tls) {
    let first = tls.reserved[HELD].swap(0, Ordering::Relaxed);
    let mut bare = tls.reserved[HELD_BARE].swap(0, Ordering::Relaxed);
    if first != 0 {
        let payload = [HELD + 1, HELD + 2].map(|word| tls.reserved[word].load(Ordering::Relaxed));
        let info = Info::new(first as u32 as c_int, (first >> 32) as c_int, payload);
        if send_to_self(&info).is_err() {
            bare |= bit(info.signo);
        }
    }
    while bare != 0 {
        // A signal of kill(2) is the one kind that can always be queued, if need be without siginfo.
        let _ = send_to_self(&Info::new(bare.trailing_zeros() as c_int + 1, SI_USER, [0; 2]));
        bare &= bare - 1;
    }
}

/// Ends the putting off of signals: to be called when `tls.deferred` is found set after the end of
/// the critical section (`tls.crit` 0). The handlers run before it returns.
#[cold]
pub fn deliver_deferred(tls: &Tls) {
    // SIGSEGV and SIGBUS too: their handlers must not see the mask we have made.
    change_mask(libc::SIG_SETMASK, !0);
    release_held(tls);
    let mask = tls.saved_mask.load(Ordering::Relaxed);
    tls.deferred.store(0, Ordering::Relaxed);
    change_mask(libc::SIG_SETMASK, mask);
}

// ---------------------------------------------------------------------------------------------
// Switching on

const OFF: u8 = 0;
/// Dispositions are being taken over; new ones are installed with our entry points already.
const STARTING: u8 = 1;
const ON: u8 = 2;
/// Inherited by fork, with the dispositions it describes.
static STATE: AtomicU8 = AtomicU8::new(OFF);

/// Puts our handler in front of the program's: once, before the first queue operation touches
/// caller memory or enters a critical section. Afterwards it costs a load and a branch.
///
/// Async-signal-safe and thread-safe. Threads that come at the same time, and a child forked in
/// the middle of it, each do all of the work, which changes nothing that is done already: nobody waits.
#[inline(always)]
pub fn activate() {
    if STATE.load(Ordering::Acquire) != ON {
        take_over();
    }
}

#[cold]
#[inline(never)]
fn take_over() {
    let mask = change_mask(libc::SIG_SETMASK, !0);
    fault::init();
    // SeqCst: a call that went to libc before this is seen by `adopt` below, or sees this and
    // adopts for itself.
    let _ = STATE.compare_exchange(OFF, STARTING, Ordering::SeqCst, Ordering::SeqCst);
    for sig in 1..=LAST {
        if is_settable(sig) && sig != SIGKILL && sig != SIGSTOP {
            adopt(sig);
        }
    }
    STATE.store(ON, Ordering::Release);
    change_mask(libc::SIG_SETMASK, mask);
}

/// Our form of the program's disposition `seen`, with entry point `slot` for `wanted`.
fn wrap(wanted: Wanted, slot: usize, seen: &Disposition) -> Disposition {
    let restorer = if seen.restorer != 0 { seen.restorer } else { own_restorer() };
    let flags = flags_to_install(Wanted { flags: seen.flags as u32, ..wanted });
    Disposition { handler: trampoline(slot), flags: flags.into(), restorer, mask: seen.mask }
}

/// Makes sure that the disposition of `sig` in the kernel goes through us if it has to.
fn adopt(sig: c_int) {
    let Ok(mut now) = disposition(sig) else { return };
    loop {
        let install = if slot_of(now.handler).is_some() || !is_wrapped(sig, now.handler) {
            None
        } else {
            let wanted = Wanted { handler: now.handler, flags: now.flags as u32 };
            let interned = intern(sig, wanted);
            Some((wrap(wanted, interned.slot, &now), interned))
        };
        let Some((new, interned)) = install else { return };
        let Ok(old) = set_disposition(sig, &new) else { return };
        if old != now {
            // Another thread has been setting it at the same time: its setting counts, not the one
            // that we have just installed in its place.
            if slot_of(old.handler).is_some() || !is_wrapped(sig, old.handler) {
                let _ = set_disposition(sig, &old);
                return;
            }
            now = old;
        } else if interned.holds(sig) {
            return;
        }
    }
}

/// To be called before exec and spawn calls (in the process, or vfork child, that makes the call):
/// gives the kernel back an ignored SIGSEGV and SIGBUS, because the new program inherits that.
pub fn exec_begin() {
    if STATE.load(Ordering::Acquire) == OFF {
        return;
    }
    for sig in [SIGSEGV, SIGBUS] {
        if let Ok(now) = disposition(sig)
            && let (seen, Some(_)) = seen_by_program(sig, &now)
            && seen.handler == SIG_IGN
        {
            let _ = set_disposition(sig, &seen);
        }
    }
}

/// To be called when that call has returned: undoes [`exec_begin`].
pub fn exec_end() {
    if STATE.load(Ordering::Acquire) != OFF {
        adopt(SIGSEGV);
        adopt(SIGBUS);
    }
}

// ---------------------------------------------------------------------------------------------
// The calls

type SigactionFn = unsafe extern "C" fn(c_int, *const libc::sigaction, *mut libc::sigaction) -> c_int;

/// libc's sigaction: the next one in the search order.
fn next_sigaction() -> Option<SigactionFn> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let mut next = NEXT.load(Ordering::Relaxed);
    if next == 0 {
        // SAFETY: a constant name.
        next = unsafe { libc::dlsym(libc::RTLD_NEXT, c"sigaction".as_ptr()) } as usize;
        NEXT.store(next, Ordering::Relaxed);
    }
    // SAFETY: the symbol is libc's function of that type; null is None.
    unsafe { transmute::<usize, Option<SigactionFn>>(next) }
}

/// Sets errno and returns -1.
fn fail(errno: Errno) -> c_int {
    // SAFETY: libc's per-thread variable.
    unsafe { *libc::__errno_location() = errno.0 };
    -1
}

/// Replaces in `*old`, which libc has filled in, what is ours by what the program had set.
unsafe fn show_program(sig: c_int, old: *mut libc::sigaction) {
    // SAFETY: the caller passes a structure that can be read and written.
    unsafe {
        let Some(slot) = slot_of((*old).sa_sigaction) else { return };
        let wanted = recorded(sig, slot);
        let flags = flags_of_program((*old).sa_flags as u32, wanted);
        (*old).sa_sigaction = wanted.handler;
        (*old).sa_flags = flags as c_int;
        if flags & SA_RESTORER != SA_RESTORER {
            (*old).sa_restorer = None;
        }
    }
}

/// sigaction(2).
///
/// # Safety
///
/// As libc's: `act` and `oact` are null or valid.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn sigaction(sig: c_int, act: *const libc::sigaction, oact: *mut libc::sigaction) -> c_int {
    let Some(next) = next_sigaction() else { return fail(Errno::ENOSYS) };
    if STATE.load(Ordering::SeqCst) == OFF || !is_settable(sig) {
        // SAFETY: the caller's arguments, unchanged.
        let ret = unsafe { next(sig, act, oact) };
        if ret == 0 && is_settable(sig) && STATE.load(Ordering::SeqCst) != OFF {
            // Switched on by another thread while we were in there.
            if !act.is_null() {
                adopt(sig);
            }
            if !oact.is_null() {
                // SAFETY: libc has just written it.
                unsafe { show_program(sig, oact) };
            }
        }
        return ret;
    }
    let mut old = MaybeUninit::<libc::sigaction>::uninit();
    let mut seen_old = false;
    loop {
        // A local copy, because `act` and `oact` may be the same.
        let mut new = MaybeUninit::<libc::sigaction>::uninit();
        let mut new_ptr = null();
        let mut interned = None;
        if !act.is_null() {
            // SAFETY: the caller passes a valid structure; libc would read it likewise.
            let new = new.write(unsafe { *act });
            // A disposition obtained past us, by rt_sigaction(2) or inside libc, may be ours.
            // SAFETY: a local.
            unsafe { show_program(sig, new) };
            let wanted = Wanted { handler: new.sa_sigaction, flags: new.sa_flags as u32 | SA_RESTORER };
            if is_wrapped(sig, wanted.handler) && sig != SIGKILL && sig != SIGSTOP {
                let found = intern(sig, wanted);
                new.sa_sigaction = trampoline(found.slot);
                new.sa_flags = flags_to_install(wanted) as c_int;
                interned = Some(found);
            }
            new_ptr = &raw const *new;
        }
        let old_ptr = if seen_old { null_mut() } else { old.as_mut_ptr() };
        // SAFETY: locals, or null.
        let ret = unsafe { next(sig, new_ptr, old_ptr) };
        if ret != 0 {
            return ret;
        }
        seen_old = true;
        if interned.is_none_or(|interned| interned.holds(sig)) {
            break;
        }
    }
    if !oact.is_null() {
        // SAFETY: libc has filled in `old`; the caller passes a valid `oact`, and if it doesn't, we
        // crash as libc would, with the new disposition in force.
        unsafe {
            show_program(sig, old.as_mut_ptr());
            oact.write(old.assume_init());
        }
    }
    0
}

/// libc's other name for [`sigaction`].
///
/// # Safety
///
/// As [`sigaction`].
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn __sigaction(sig: c_int, act: *const libc::sigaction, oact: *mut libc::sigaction) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { sigaction(sig, act, oact) }
}

/// Signals for which siginterrupt(3) has asked that signal(2) set no SA_RESTART: bit (signal - 1).
/// libc's own set stays unused, since whoever reads it is here.
static INTERRUPTING: AtomicU64 = AtomicU64::new(0);

/// `sigaction` with these; returns the old handler, or SIG_ERR with errno set.
unsafe fn set_simple(sig: c_int, handler: usize, flags: u32, mask: u64) -> usize {
    // SAFETY: zero is a valid sigaction. The kernel's mask is the first 8 bytes of libc's.
    let (ret, old) = unsafe {
        let mut new: libc::sigaction = core::mem::zeroed();
        let mut old: libc::sigaction = core::mem::zeroed();
        new.sa_sigaction = handler;
        new.sa_flags = flags as c_int;
        (&raw mut new.sa_mask).cast::<u64>().write(mask);
        (sigaction(sig, &new, &mut old), old)
    };
    if ret == 0 { old.sa_sigaction } else { SIG_ERR }
}

/// signal(2), BSD semantics: the signal is blocked while its handler runs, system calls restart
/// unless siginterrupt(3) says otherwise.
///
/// # Safety
///
/// `handler` is SIG_DFL, SIG_IGN or a function that may be called as a handler.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn signal(sig: c_int, handler: usize) -> usize {
    if handler == SIG_ERR || !is_settable(sig) {
        fail(Errno::EINVAL);
        return SIG_ERR;
    }
    let interrupting = INTERRUPTING.load(Ordering::Relaxed) & bit(sig) != 0;
    // SAFETY: the caller's contract.
    unsafe { set_simple(sig, handler, if interrupting { 0 } else { SA_RESTART }, bit(sig)) }
}

/// [`signal`] under its BSD name.
///
/// # Safety
///
/// As [`signal`].
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn bsd_signal(sig: c_int, handler: usize) -> usize {
    // SAFETY: the caller's contract.
    unsafe { signal(sig, handler) }
}

/// [`signal`] under its SVID name.
///
/// # Safety
///
/// As [`signal`].
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn ssignal(sig: c_int, handler: usize) -> usize {
    // SAFETY: the caller's contract.
    unsafe { signal(sig, handler) }
}

/// sysv_signal(3): the handler is reset when called, the signal isn't blocked, system calls are
/// interrupted. What `signal` is to programs compiled for X/Open only.
///
/// # Safety
///
/// As [`signal`].
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn __sysv_signal(sig: c_int, handler: usize) -> usize {
    if handler == SIG_ERR || !is_settable(sig) {
        fail(Errno::EINVAL);
        return SIG_ERR;
    }
    // SAFETY: the caller's contract.
    unsafe { set_simple(sig, handler, SA_RESETHAND | SA_NODEFER | SA_INTERRUPT, 0) }
}

/// [`__sysv_signal`] under its public name.
///
/// # Safety
///
/// As [`signal`].
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn sysv_signal(sig: c_int, handler: usize) -> usize {
    // SAFETY: the caller's contract.
    unsafe { __sysv_signal(sig, handler) }
}

/// SIG_HOLD of signal.h.
const SIG_HOLD: usize = 2;

/// sigset(3): like signal(2), but SIG_HOLD blocks the signal, and anything else unblocks it.
///
/// # Safety
///
/// As [`signal`], or SIG_HOLD.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn sigset(sig: c_int, handler: usize) -> usize {
    if handler == SIG_ERR || !is_settable(sig) {
        fail(Errno::EINVAL);
        return SIG_ERR;
    }
    let hold = handler == SIG_HOLD;
    let previous = if hold {
        // SAFETY: zero is a valid sigaction.
        unsafe {
            let mut now: libc::sigaction = core::mem::zeroed();
            if sigaction(sig, null(), &mut now) == 0 { now.sa_sigaction } else { SIG_ERR }
        }
    } else {
        // SAFETY: the caller's contract.
        unsafe { set_simple(sig, handler, 0, 0) }
    };
    if previous == SIG_ERR {
        return SIG_ERR;
    }
    let mask = change_mask(if hold { libc::SIG_BLOCK } else { libc::SIG_UNBLOCK }, bit(sig));
    if mask & bit(sig) != 0 { SIG_HOLD } else { previous }
}

/// sigignore(3).
///
/// # Safety
///
/// Always safe; `unsafe` like the others.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn sigignore(sig: c_int) -> c_int {
    // SAFETY: SIG_IGN is a valid handler.
    if unsafe { set_simple(sig, SIG_IGN, 0, 0) } == SIG_ERR { -1 } else { 0 }
}

/// siginterrupt(3): whether system calls that `sig` interrupts return EINTR or restart.
///
/// # Safety
///
/// Always safe; `unsafe` like the others.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn siginterrupt(sig: c_int, interrupt: c_int) -> c_int {
    // SAFETY: zero is a valid sigaction.
    unsafe {
        let mut action: libc::sigaction = core::mem::zeroed();
        if sigaction(sig, null(), &mut action) != 0 {
            return -1;
        }
        if interrupt != 0 {
            INTERRUPTING.fetch_or(bit(sig), Ordering::Relaxed);
            action.sa_flags &= !libc::SA_RESTART;
        } else {
            INTERRUPTING.fetch_and(!bit(sig), Ordering::Relaxed);
            action.sa_flags |= libc::SA_RESTART;
        }
        sigaction(sig, &action, null_mut())
    }
}

// ---------------------------------------------------------------------------------------------
// Waiting for signals

type SigtimedwaitFn = unsafe extern "C-unwind" fn(*const libc::sigset_t, *mut Info, *const libc::timespec) -> c_int;

fn monotonic() -> libc::timespec {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the result goes to a local.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now
}

/// What is left of a timeout that began at `start`; zero when it is over.
fn left(timeout: libc::timespec, start: libc::timespec) -> libc::timespec {
    let nanoseconds = |t: libc::timespec| i128::from(t.tv_sec) * 1_000_000_000 + i128::from(t.tv_nsec);
    let left = (nanoseconds(timeout) + nanoseconds(start) - nanoseconds(monotonic())).max(0);
    libc::timespec { tv_sec: (left / 1_000_000_000) as _, tv_nsec: (left % 1_000_000_000) as _ }
}

/// sigtimedwait(2). A cancellation point: the frame holds nothing to destroy.
///
/// # Safety
///
/// As libc's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C-unwind" fn sigtimedwait(
    set: *const libc::sigset_t,
    user: *mut libc::siginfo_t,
    timeout: *const libc::timespec,
) -> c_int {
    let next = super::next!(c"sigtimedwait": SigtimedwaitFn);
    let mut own = MaybeUninit::<Info>::uninit();
    let info = if user.is_null() { own.as_mut_ptr() } else { user.cast::<Info>() };
    // SAFETY: the caller's contract; `info` is the caller's or a local, and filled in when a signal
    // has come.
    unsafe {
        let start = if timeout.is_null() { None } else { Some(monotonic()) };
        let mut sig = next(set, info, timeout);
        while sig > 0 && is_nothing(&mut *info) {
            // As long as is left of it.
            let left = start.map(|start| left(*timeout, start));
            sig = next(set, info, left.as_ref().map_or(null(), |left| &raw const *left));
        }
        sig
    }
}

/// sigwaitinfo(2).
///
/// # Safety
///
/// As libc's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C-unwind" fn sigwaitinfo(set: *const libc::sigset_t, info: *mut libc::siginfo_t) -> c_int {
    // SAFETY: the caller's contract.
    unsafe { sigtimedwait(set, info, null()) }
}

/// sigwait(3): goes on after a handler of another signal.
///
/// # Safety
///
/// As libc's.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C-unwind" fn sigwait(set: *const libc::sigset_t, sig: *mut c_int) -> c_int {
    loop {
        // SAFETY: the caller's contract; libc's per-thread variable.
        unsafe {
            let got = sigtimedwait(set, null_mut(), null());
            if got > 0 {
                sig.write(got);
                return 0;
            }
            match *libc::__errno_location() {
                libc::EINTR => {}
                errno => return errno,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::compiler_fence;
    use core::time::Duration;
    use std::time::Instant;

    /// Dispositions belong to the process, and other tests have theirs: runs `test` in a child. It
    /// returns the line number of what failed, or 0.
    fn in_child(test: fn() -> u32) {
        // SAFETY: glibc lets the child of a threaded process allocate and make threads; the child
        // takes no lock of the test harness and ends in _exit.
        unsafe {
            let pid = libc::fork();
            assert!(pid >= 0);
            if pid == 0 {
                libc::prctl(libc::PR_SET_PDEATHSIG, SIGKILL);
                let line = test();
                if line != 0 {
                    let digits = [1000, 100, 10, 1].map(|unit| b'0' + (line / unit % 10) as u8);
                    libc::write(2, c"failed in line ".as_ptr().cast(), 15);
                    libc::write(2, digits.as_ptr().cast(), 4);
                }
                libc::_exit(i32::from(line != 0));
            }
            let mut status = 0;
            assert_eq!(libc::waitpid(pid, &mut status, 0), pid);
            assert_eq!(status, 0, "wait status of the child (see its last words)");
        }
    }

    macro_rules! expect {
        ($condition:expr) => {
            if !$condition {
                return line!();
            }
        };
    }

    fn enter() {
        let tls = tls();
        tls.crit.store(tls.crit.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
    }

    fn leave() {
        compiler_fence(Ordering::SeqCst);
        let tls = tls();
        tls.crit.store(tls.crit.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        if tls.crit.load(Ordering::Relaxed) == 0 && tls.deferred.load(Ordering::Relaxed) != 0 {
            deliver_deferred(tls);
        }
    }

    fn mask() -> u64 {
        change_mask(libc::SIG_BLOCK, 0)
    }

    /// Sets a handler as a program would.
    fn set(sig: c_int, handler: usize, flags: c_int, blocked: u64) -> bool {
        // SAFETY: zero is a valid sigaction; the handlers of these tests are async-signal-safe.
        unsafe {
            let mut action: libc::sigaction = core::mem::zeroed();
            action.sa_sigaction = handler;
            action.sa_flags = flags;
            (&raw mut action.sa_mask).cast::<u64>().write(blocked);
            sigaction(sig, &action, null_mut()) == 0
        }
    }

    fn handler_of(sig: c_int) -> usize {
        // SAFETY: zero is a valid sigaction.
        unsafe {
            let mut action: libc::sigaction = core::mem::zeroed();
            if sigaction(sig, null(), &mut action) == 0 { action.sa_sigaction } else { SIG_ERR }
        }
    }

    fn send(sig: c_int, code: c_int, value: u64) -> bool {
        send_to_self(&Info::new(sig, code, [getpid().into(), value])).is_ok()
    }

    /// Where nothing is mapped.
    const NOWHERE: *const u64 = core::ptr::without_provenance(0x10);
    static RUNS: [AtomicU32; 65] = [const { AtomicU32::new(0) }; 65];
    static IN_CRITICAL: AtomicU32 = AtomicU32::new(0);
    static SUM: AtomicU64 = AtomicU64::new(0);
    static LAST_CODE: AtomicU32 = AtomicU32::new(0);
    static LAST_MASK: AtomicU64 = AtomicU64::new(0);
    const RT: c_int = 40;

    fn runs(sig: c_int) -> u32 {
        RUNS[sig as usize].load(Ordering::Relaxed)
    }

    /// The handler of these tests: counts, and uses a critical section of its own.
    extern "C" fn handler(sig: c_int, info: *const Info, context: *mut libc::ucontext_t) {
        if tls().crit.load(Ordering::Relaxed) != 0 {
            IN_CRITICAL.fetch_add(1, Ordering::Relaxed);
        }
        enter();
        RUNS[sig as usize].fetch_add(1, Ordering::Relaxed);
        // SAFETY: the kernel's siginfo and ucontext.
        unsafe {
            SUM.fetch_add((*info).payload[1], Ordering::Relaxed);
            LAST_CODE.store((*info).code as u32, Ordering::Relaxed);
            LAST_MASK.store(*(&raw const (*context).uc_sigmask).cast::<u64>(), Ordering::Relaxed);
        }
        leave();
    }

    fn handler_address() -> usize {
        handler as *const () as usize
    }

    #[test]
    fn a_handler_is_put_off_to_the_end_of_the_critical_section() {
        in_child(|| {
            let before = mask();
            expect!(set(RT, handler_address(), libc::SA_SIGINFO, 0));
            activate();
            enter();
            enter();
            expect!(send(RT, libc::SI_QUEUE, 17));
            expect!(runs(RT) == 0);
            leave();
            expect!(runs(RT) == 0);
            leave();
            expect!(runs(RT) == 1 && SUM.load(Ordering::Relaxed) == 17);
            expect!(LAST_CODE.load(Ordering::Relaxed) as c_int == libc::SI_QUEUE);
            expect!(LAST_MASK.load(Ordering::Relaxed) == before && mask() == before);
            expect!(send(RT, libc::SI_QUEUE, 1));
            expect!(runs(RT) == 2);
            0
        });
    }

    #[test]
    fn signals_that_pile_up_before_the_first_is_put_off_are_all_delivered() {
        in_child(|| {
            const SIGS: [c_int; 5] = [libc::SIGUSR1, libc::SIGUSR2, libc::SIGTERM, RT, RT + 1];
            activate();
            let all = SIGS.iter().fold(0, |set, &sig| set | bit(sig));
            let before = mask() | bit(libc::SIGHUP);
            for flags in [0, libc::SA_NODEFER] {
                for sig in SIGS {
                    RUNS[sig as usize].store(0, Ordering::Relaxed);
                    expect!(set(sig, handler_address(), libc::SA_SIGINFO | flags, bit(libc::SIGALRM)));
                }
                change_mask(libc::SIG_SETMASK, before | all);
                for sig in SIGS {
                    expect!(send(sig, libc::SI_QUEUE, 1));
                }
                expect!(send(RT, libc::SI_QUEUE, 1));
                enter();
                change_mask(libc::SIG_SETMASK, before);
                expect!(SIGS.iter().all(|&sig| runs(sig) == 0));
                expect!(mask() & !FAULTS == DEFERRAL);
                leave();
                expect!(SIGS.iter().all(|&sig| runs(sig) == if sig == RT { 2 } else { 1 }));
                expect!(mask() == before);
            }
            expect!(IN_CRITICAL.load(Ordering::Relaxed) == 0);
            0
        });
    }

    #[test]
    fn a_sent_segv_is_held_while_faults_are_still_caught() {
        in_child(|| {
            expect!(set(SIGSEGV, handler_address(), libc::SA_SIGINFO, 0));
            expect!(set(SIGBUS, handler_address(), libc::SA_SIGINFO, 0));
            expect!(set(RT, handler_address(), libc::SA_SIGINFO, 0));
            activate();
            let before = mask();
            enter();
            expect!(send(SIGSEGV, libc::SI_QUEUE, 100));
            expect!(send(SIGSEGV, libc::SI_QUEUE, 200)); // merges
            expect!(send(RT, libc::SI_QUEUE, 1));
            expect!(send(SIGBUS, libc::SI_QUEUE, 400)); // loses its siginfo
            // SAFETY: nothing is mapped there.
            expect!(unsafe { fault::get_u64(NOWHERE) } == Err(fault::Fault));
            expect!(runs(SIGSEGV) == 0 && runs(RT) == 0 && runs(SIGBUS) == 0);
            leave();
            expect!(runs(SIGSEGV) == 1 && runs(RT) == 1 && runs(SIGBUS) == 1);
            expect!(SUM.load(Ordering::Relaxed) == 101);
            expect!(mask() == before);
            // SAFETY: as above.
            expect!(unsafe { fault::get_u64(NOWHERE) } == Err(fault::Fault));
            expect!(runs(SIGSEGV) == 1);
            0
        });
    }

    #[test]
    fn a_signal_that_cannot_be_queued_again_is_not_lost() {
        in_child(|| {
            expect!(set(RT, handler_address(), libc::SA_SIGINFO, 0));
            activate();
            let before = mask();
            change_mask(libc::SIG_BLOCK, bit(RT));
            expect!(send(RT, libc::SI_QUEUE, 3));
            enter();
            let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            // SAFETY: a valid structure.
            expect!(unsafe { libc::setrlimit(libc::RLIMIT_SIGPENDING, &none) } == 0);
            change_mask(libc::SIG_SETMASK, before);
            expect!(runs(RT) == 0);
            leave();
            expect!(runs(RT) == 1 && mask() == before);
            0
        });
    }

    #[test]
    fn resethand_survives_being_put_off() {
        in_child(|| {
            activate();
            expect!(set(RT, handler_address(), libc::SA_SIGINFO | libc::SA_RESETHAND, 0));
            enter();
            expect!(send(RT, libc::SI_QUEUE, 1));
            expect!(handler_of(RT) == handler_address());
            leave();
            expect!(runs(RT) == 1 && handler_of(RT) == SIG_DFL);
            0
        });
    }

    #[test]
    fn ignored_and_default_signals_do_not_disturb_a_critical_section() {
        in_child(|| {
            activate();
            let before = mask();
            expect!(set(SIGSEGV, SIG_IGN, 0, 0));
            enter();
            expect!(send(SIGSEGV, libc::SI_QUEUE, 1) && send(libc::SIGURG, libc::SI_QUEUE, 1));
            expect!(tls().deferred.load(Ordering::Relaxed) == 0 && mask() == before);
            leave();
            0
        });
    }

    #[test]
    fn the_waiter_hook_runs_before_the_handler_of_a_waiting_thread_only() {
        static HOOKED: AtomicU32 = AtomicU32::new(0);
        extern "C" fn hook(_: c_int) {
            HOOKED.store(1 + runs(RT), Ordering::Relaxed);
            tls().waiter.store(0, Ordering::Relaxed);
        }
        in_child(|| {
            ON_HANDLER.store(hook as *const () as usize, Ordering::Release);
            expect!(set(RT, handler_address(), libc::SA_SIGINFO, 0));
            activate();
            expect!(send(RT, libc::SI_QUEUE, 1));
            expect!(runs(RT) == 1 && HOOKED.load(Ordering::Relaxed) == 0);
            tls().waiter.store(1, Ordering::Relaxed);
            expect!(send(RT, libc::SI_QUEUE, 1));
            expect!(runs(RT) == 2 && HOOKED.load(Ordering::Relaxed) == 2);
            expect!(send(RT, libc::SI_QUEUE, 1));
            expect!(runs(RT) == 3 && HOOKED.load(Ordering::Relaxed) == 2);
            0
        });
    }

    #[test]
    fn an_ignored_segv_is_given_back_for_exec() {
        in_child(|| {
            expect!(set(SIGSEGV, SIG_IGN, libc::SA_RESTART, 0));
            activate();
            expect!(disposition(SIGSEGV).is_ok_and(|now| slot_of(now.handler).is_some()));
            exec_begin();
            expect!(disposition(SIGSEGV).is_ok_and(|now| now.handler == SIG_IGN));
            expect!(disposition(SIGBUS).is_ok_and(|now| slot_of(now.handler).is_some()));
            exec_end();
            expect!(disposition(SIGSEGV).is_ok_and(|now| slot_of(now.handler).is_some()));
            expect!(handler_of(SIGSEGV) == SIG_IGN);
            // SAFETY: nothing is mapped there.
            expect!(unsafe { fault::get_u64(NOWHERE) } == Err(fault::Fault));
            0
        });
    }

    #[test]
    fn the_restorer_is_the_code_that_unwinders_look_for() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: nine bytes of code, and the one before.
        unsafe {
            let code = core::slice::from_raw_parts((own_restorer() - 1) as *const u8, 10);
            assert_eq!(code, [0x90, 0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05]);
        }
        assert_eq!(slot_of(trampoline(0)), Some(0));
        assert_eq!(slot_of(trampoline(SLOTS - 1)), Some(SLOTS - 1));
        assert_eq!(slot_of(trampoline(SLOTS)), None);
        assert_eq!(slot_of(trampoline(1) + 1), None);
        assert_eq!(slot_of(trampoline(0) - 1), None);
    }

    /// How many signals of each kind the storm sends.
    const STORM: u32 = 2_000;
    static VICTIM: AtomicU32 = AtomicU32::new(0);

    fn send_to_victim(info: &Info) {
        // SAFETY: a siginfo_t of the process's own.
        while unsafe {
            syscall!(SYS_rt_tgsigqueueinfo, getpid(), VICTIM.load(Ordering::Relaxed), info.signo, &raw const *info)
        }
        .is_err()
        {
            std::thread::yield_now(); // EAGAIN: RLIMIT_SIGPENDING
        }
    }

    /// One thread goes in and out of critical sections while others send it real-time signals as
    /// fast as they can, and standard signals one at a time.
    #[test]
    fn a_storm_delivers_each_signal_once_and_none_in_a_critical_section() {
        in_child(|| {
            VICTIM.store(gettid(), Ordering::Relaxed);
            expect!(set(RT, handler_address(), libc::SA_SIGINFO, 0));
            expect!(set(libc::SIGUSR1, handler_address(), libc::SA_SIGINFO, bit(RT)));
            activate();
            expect!(set(RT + 1, handler_address(), libc::SA_SIGINFO, 0));
            // (The flood must not nest, or the frames fill the stack.)
            expect!(set(libc::SIGUSR2, handler_address(), libc::SA_SIGINFO | libc::SA_NODEFER, 0));
            let before = mask();
            let senders = [RT, RT + 1, libc::SIGUSR1, libc::SIGUSR2].map(|sig| {
                std::thread::spawn(move || {
                    change_mask(libc::SIG_SETMASK, !0);
                    for n in 1..=STORM {
                        send_to_victim(&Info::new(sig, libc::SI_QUEUE, [0, n.into()]));
                        // Standard signals merge: wait until the handler has run.
                        while sig < 32 && runs(sig) < n {
                            std::thread::yield_now();
                        }
                    }
                })
            });
            let sigs = [RT, RT + 1, libc::SIGUSR1, libc::SIGUSR2];
            let start = Instant::now();
            let mut put_off = 0u32;
            while sigs.iter().any(|&sig| runs(sig) < STORM) {
                enter();
                for _ in 0..50 {
                    core::hint::spin_loop();
                }
                put_off += u32::from(tls().deferred.load(Ordering::Relaxed) != 0);
                leave();
                expect!(start.elapsed() < Duration::from_secs(120));
            }
            for sender in senders {
                expect!(sender.join().is_ok());
            }
            let each = u64::from(STORM) * u64::from(STORM + 1) / 2;
            expect!(sigs.iter().all(|&sig| runs(sig) == STORM));
            expect!(SUM.load(Ordering::Relaxed) == 4 * each);
            expect!(IN_CRITICAL.load(Ordering::Relaxed) == 0);
            expect!(put_off > 0);
            expect!(mask() == before);
            0
        });
    }
}
