//! `libmqns.so`: POSIX message queues and IPC namespaces in user space.
//!
//! Without std, which unwinds with libgcc_s.so: loading that would double what the library adds to the
//! start of every program.
#![cfg_attr(not(test), no_std)]
#![deny(clippy::undocumented_unsafe_blocks)]

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("system calls, guarded copies and signal frames are in assembly, for x86-64 and AArch64");

pub mod abi;
pub mod desc;
pub mod epoll;
pub mod face;
pub mod interpose;
pub mod log;
pub mod look;
pub mod machine;
pub mod maps;
pub mod ns;
pub mod offset;
pub mod points;
pub mod queue;
pub mod shm;
pub mod sys;
pub mod vfs;

/// What std would do.
#[cfg(not(test))]
mod runtime {
    #[link(name = "c")]
    unsafe extern "C" {}

    #[panic_handler]
    fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
        crate::log::panicked(info);
        // SAFETY: no arguments.
        unsafe { libc::abort() }
    }

    // The personality routine of Rust's frames: what becomes of them when others unwind the stack. That is
    // pthread_cancel(3) of a thread that sleeps in a hook, and what a signal handler does there, such as
    // pthread_exit(3) or throwing a C++ exception. They are passed by (_URC_CONTINUE_UNWIND = 8): no frame
    // above a call that sleeps has anything to destroy, and the landing pads that the compiler makes round
    // such calls would only abort, for with panic = "abort" even a `C-unwind` function may not unwind. In
    // assembly, which can hide it: exported, it would become that of every Rust program.
    macro_rules! personality {
        ($set_result:literal) => {
            core::arch::global_asm!(
                ".globl rust_eh_personality",
                ".hidden rust_eh_personality",
                ".type rust_eh_personality, @function",
                "rust_eh_personality:",
                $set_result,
                "ret",
            );
        };
    }
    #[cfg(target_arch = "x86_64")]
    personality!("mov eax, 8");
    #[cfg(target_arch = "aarch64")]
    personality!("mov w0, 8");
}
