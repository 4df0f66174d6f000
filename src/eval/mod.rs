//! Evaluation: benchmarks, prompting, sampling, grading and scores.
//!
//! A [`bench::Benchmark`] with a [`profile::Profile`] gives a [`profile::Style`]. [`asked`] renders its questions, a
//! [`engine::Completer`] generates samples, [`folder`] stores them, [`grade`] grades each, and [`score`] computes the
//! scores. [`run::evaluate`] does all of this, from top to bottom; [`session`] loads the
//! model and runs it on each benchmark.

pub mod asked;
pub mod bench;
pub mod choice;
pub mod compare;
pub mod endpoint;
pub mod engine;
pub mod folder;
pub mod grade;
pub mod local;
pub mod profile;
pub mod room;
pub mod run;
pub mod score;
pub mod sensitivity;
pub mod session;
