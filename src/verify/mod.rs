//! Proofs that a user can run before a long run: [`resume`] shows on this machine that a killed and resumed run has the bytes of
//! one without interruption, and [`rehearse`] goes through all phases of a configuration with the embedded model.
//!
//! Both start `rft` as [`child`] processes, because a run that is killed has to be one. [`compare`] finds the first difference
//! between two runs.

pub mod child;
pub mod compare;
pub mod reduce;
pub mod rehearse;
pub mod resume;
