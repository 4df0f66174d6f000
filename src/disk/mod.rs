//! Files that are whole or absent, their hashes, and who works on a folder.

pub mod atomic;
pub mod hash;
pub mod lock;
