//! `libmqns.so`: POSIX message queues and IPC namespaces in user space.
#![deny(clippy::undocumented_unsafe_blocks)]

pub mod abi;
pub mod desc;
pub mod face;
pub mod interpose;
pub mod log;
pub mod maps;
pub mod ns;
pub mod offset;
pub mod queue;
pub mod shm;
pub mod sys;
