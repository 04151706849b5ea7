//! `libmqns.so`: POSIX message queues and IPC namespaces in user space.
#![deny(clippy::undocumented_unsafe_blocks)]

pub mod abi;
pub mod sys;
