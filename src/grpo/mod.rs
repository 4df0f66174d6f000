//! The mathematics of an update, and the words for one that teaches nothing.
//!
//! Plain functions on slices. One optimiser update goes through them in this order: [`advantage`] turns a rollout's
//! rewards into one number a completion, [`objective`] turns log-probabilities and advantages into a loss and its derivative
//! by each log-probability, the gradient pass carries those into the adapter, [`schedule`] and [`adamw`] move it, and
//! [`guard`] says in words what went wrong.

pub mod adamw;
pub mod advantage;
pub mod guard;
pub mod learner;
pub mod objective;
pub mod pass;
pub mod schedule;
pub mod totals;
