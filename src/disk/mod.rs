//! Files that are whole or absent, and their hashes.

pub mod atomic;
pub mod hash;
