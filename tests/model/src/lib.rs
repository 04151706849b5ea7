//! The engine of mqns on a model of the machine, through many schedules. See `docs/faults.md`, "Wake-ups, model-checked".
//!
//! `abi`, `sys`, `shm` and `queue` are the library's own sources. `build.rs` copies them, and at some places puts a
//! choice between what stands there and something wrong ([`mutants`]); nothing else is changed.

// Much of the engine is for others. Its modules come in by a macro.
#![allow(dead_code, unused_imports, macro_expanded_macro_exports_accessed_by_absolute_paths)]

include!(concat!(env!("OUT_DIR"), "/engine.rs"));
pub mod machine;
pub mod mutants;
mod ns;
pub mod world;
