//! The live view of `rft watch`: a local page that follows a run, or the runs of a folder or a sweep.
//!
//! It only reads run directories, so it also shows finished runs and runs of other machines on a shared disk, and it cannot disturb
//! the process that trains. [`server`] answers the browser; [`run_feed`] and [`table_feed`] turn what is new on the disk into
//! events, which the page draws.

mod event;
mod growth;
mod run_feed;
mod server;
mod table_feed;
mod watched;

pub use server::serve;
pub use watched::Watched;
