//! The engine on segments that hold anything, change at any access, and are of any length: libFuzzer says what. See
//! `docs/faults.md`, "Hostile memory".
//!
//! `abi`, `look`, `sys`, `shm` and `queue` are the library's own sources; [`machine`] is what they run on. An input is a
//! program: calls, and what a peer does between them and during them. Whatever it says, each call ends, with a known error or
//! a result that could have been; nothing is touched but the segment and the caller's buffer, nothing is left behind, and
//! the queue beside it stays as it is.

#![no_main]
#![feature(thread_local)]
// Much of the engine is for others.
#![allow(dead_code, unused_imports, macro_expanded_macro_exports_accessed_by_absolute_paths)]

#[path = "../../../src/abi.rs"]
mod abi;
mod input;
#[path = "../../../src/look.rs"]
mod look;
pub mod machine;
#[path = "../../model/src/ns.rs"]
mod ns;
mod peer;
#[path = "../../../src/points.rs"]
mod points;
#[path = "../../../src/queue/mod.rs"]
mod queue;
#[path = "../../../src/shm/mod.rs"]
mod shm;
#[path = "../../../src/sys/mod.rs"]
mod sys;
mod user;
mod world;

libfuzzer_sys::fuzz_target!(|data: &[u8]| world::run(data));
