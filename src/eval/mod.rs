//! Evaluation: benchmarks, how they are asked and graded, and what the scores say.
//!
//! A [`bench::Benchmark`] under a [`profile::Profile`] gives a [`profile::Style`]; [`asked`] renders its questions, a
//! [`engine::Completer`] draws samples of them, [`folder`] keeps every one, [`grade`] says what each is worth and [`score`] what
//! all of them say together. [`run::evaluate`] is the whole of it, from top to bottom; [`session`] loads the
//! model and runs it on each benchmark.

pub mod asked;
pub mod bench;
pub mod compare;
pub mod endpoint;
pub mod engine;
pub mod folder;
pub mod grade;
pub mod local;
pub mod profile;
pub mod run;
pub mod score;
pub mod session;
