//! Files that are whole or absent, their hashes, who works on a folder, and where a cache is.

pub mod atomic;
pub mod cache;
pub mod hash;
pub mod lock;
