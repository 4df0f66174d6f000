//! Sweeps: one file that stands for many runs and their evaluations.
//!
//! [`file`] reads what was asked for, [`expand`] makes plain configurations of it, [`folder`] keeps them on disk and tells from
//! there how far each is, [`task`] knows the command of each, [`local`] runs them side by side on one machine, [`cluster`] hands
//! them to Slurm as the arrays of [`slurm`], which [`starts`] keeps from going round in circles. [`cost`] says beforehand what all
//! of it takes.

pub mod cluster;
pub mod cost;
pub mod expand;
pub mod file;
pub mod folder;
mod keys;
pub mod local;
pub mod shipped;
pub mod slurm;
pub mod starts;
pub mod task;

pub use expand::{Eval, Sweep, SweepRun, expand};
pub use file::SweepFile;
pub use folder::{SweepFolder, TaskState};
