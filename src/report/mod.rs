//! The report of a study: what its numbers allow to say, and the pictures.
//!
//! [`study`] compares the arms, [`paper`] does what can be done with published figures, [`chart`] draws. All of it is pure: plain
//! values in, text out, the same bytes for the same input.

pub mod chart;
pub mod paper;
pub mod study;
