//! Files that are written completely or not at all, their hashes, locks on folders, and the cache folder.

pub mod atomic;
pub mod cache;
pub mod hash;
pub mod hash_cache;
pub mod lock;
pub mod presence;
pub mod space;
