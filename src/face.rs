//! The descriptor as a file.
