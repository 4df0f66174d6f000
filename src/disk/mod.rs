//! Files that are written completely or not at all, their hashes, locks on folders, reading regular files only, and the cache folder.

pub mod atomic;
pub mod cache;
pub mod hash;
pub mod lock;
pub mod regular;
