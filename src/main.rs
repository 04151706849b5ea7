//! The command `mqns`.
//!
//! `main` is C's, without Rust's runtime before it: that would ignore SIGPIPE and open closed
//! standard descriptors, and `mqns run` hands both on as it got them.
#![no_main]

mod cli;
mod look;

use std::ffi::{c_char, c_int};

/// C's entry point; std has the arguments from the loader.
#[unsafe(no_mangle)]
extern "C" fn main(_argc: c_int, _argv: *const *const c_char) -> c_int {
    cli::main() as c_int
}
