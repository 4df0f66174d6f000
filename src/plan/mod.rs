//! The time and cost of a run, estimated from a piece of it, which [`measure`] times. GPU memory is estimated in
//! [`crate::device::memory::plan`].

pub mod forecast;
pub mod measure;
