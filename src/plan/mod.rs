//! What a run takes of time and money: forecast from a piece of it, which [`measure`] times. What it takes of a GPU's memory is
//! [`crate::device::memory::plan`]'s.

pub mod forecast;
pub mod measure;
