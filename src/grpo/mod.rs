//! The math of an update, and the diagnoses of one that learns nothing.
//!
//! Plain functions on slices. One optimizer update uses them in this order: [`advantage`] turns a rollout's rewards
//! into one number per completion, [`objective`] turns log-probabilities and advantages into a loss and its derivative
//! with respect to each log-probability, the gradient pass backpropagates these to the adapter, [`schedule`] and
//! [`adamw`] update it, and [`guard`] reports what went wrong.

pub mod adamw;
pub mod advantage;
pub mod guard;
pub mod importance;
pub mod learner;
pub mod objective;
pub mod pass;
pub mod recompute;
pub mod schedule;
pub mod totals;
