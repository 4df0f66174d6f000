//! Files from the Hugging Face hub, in the cache that Python's library shares.
//!
//! The crate `hf-hub` lays out the cache and asks for listings. A repository's folder has `refs/` (branch ► commit),
//! `snapshots/COMMIT/` (links under the files' names) and `blobs/` (the files under their hashes, `.incomplete` during a
//! download). We add `.rft/COMMIT.json`, what the hub listed, so that a snapshot is known to be complete without a request.
//!
//! Files are downloaded by our own code ([`http`]), because the crate's (0.5) sends the token to the host that a file is
//! redirected to, fails if a server ignores `Range`, has no timeouts, waits no longer than five seconds for another download
//! of the same file, and checks neither size nor SHA-256.

mod config;
mod dataset;
mod http;
mod plan;
mod repo;
mod upload;

pub use config::{HubConfig, Token};
pub use dataset::{dataset_file, dataset_file_from, dataset_files, dataset_files_from};
pub use http::HubError;
pub use plan::{Plan, adapter_files, model_files, text_files};
pub use repo::{Kind, Repo, is_hub_id};
pub use upload::{Pushed, UploadFile, push};
