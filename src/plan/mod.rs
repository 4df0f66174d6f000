//! The time and cost of a run, estimated from a piece of it, which [`measure`] times, or calculated from the work it issues
//! to a GPU ([`costs`]). GPU memory is estimated in
//! [`crate::device::memory::plan`].

pub mod costs;
pub mod forecast;
pub mod measure;
