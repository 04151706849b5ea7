//! Errors that can be switched on in the engine, to see whether they are found.

use std::cell::Cell;

thread_local! {
    static ON: Cell<Option<usize>> = const { Cell::new(None) };
}

/// For the engine: whether it has error number `number`.
pub fn on(number: usize) -> bool {
    ON.get() == Some(number)
}

/// Switches an error on, or all off.
pub fn switch(number: Option<usize>) {
    ON.set(number);
}

/// Names of the errors, by number, and in which plans each may be found.
pub const MUTANTS: &[(&str, &[&str])] = include!(concat!(env!("OUT_DIR"), "/mutants.rs"));
