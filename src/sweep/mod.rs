//! Sweeps: many runs and their evaluations from one file.
//!
//! [`file`] reads the sweep file, [`expand`] makes plain configurations from it, and [`folder`] stores them on disk and reads the
//! progress from there. [`task`] has the command of each task. [`local`] runs them in parallel on one machine; [`cluster`] submits
//! them to Slurm as the job arrays of [`slurm`], where [`starts`] stops jobs that make no progress. [`cost`] estimates the cost
//! beforehand. [`tune`] expands a file to the trials that choose a setting for each arm, [`choice`] makes the choice.

pub mod choice;
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
pub mod tune;
mod tune_section;

pub use expand::{Eval, Sweep, SweepRun, expand};
pub use file::SweepFile;
pub use folder::{SweepFolder, TaskState};
pub use tune::{Trials, trials};
