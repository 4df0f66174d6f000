//! Every write of the program: files that are written completely or not at all, their hashes, locks on folders, free
//! space, and the cache folder. And reading regular files only, with limits on what they may take.

pub mod atomic;
pub mod budget;
pub mod cache;
pub mod files;
pub mod hash;
pub mod hash_cache;
pub mod lock;
pub mod presence;
pub mod regular;
pub mod space;
