//! What a run takes of time and money: forecast from a piece of it, which [`measure`] times, or estimated from what it issues
//! to a GPU ([`costs`]). What it takes of a GPU's memory is
//! [`crate::device::memory::plan`]'s.

pub mod costs;
pub mod forecast;
pub mod measure;
