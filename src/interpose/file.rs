//! The descriptor as a file: hooks.
