//! What the engine takes from the namespaces: where the files of a queue lie. Here they lie nowhere.

use crate::abi::{Errno, Result};

pub struct Place;

impl Place {
    pub fn of(_: usize) -> Result<&'static Place> {
        Err(Errno::ENOENT)
    }
}

pub mod queues {
    use super::Place;
    use crate::abi::Result;
    use crate::sys::path::Path;

    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Key(pub [u64; 2]);

    pub fn keyed(_: &Place, _: Key, _: &[u8]) -> Result<Path> {
        Path::new(&[b"/"])
    }
}
