//! What a run is: one [`RunConfig`], resolved from layers.
//!
//! Later layers win: a compiled-in preset, files (`--config`, in order), the environment (`RFT_TRAIN__LEARNING_RATE`),
//! `--set train.learning_rate=1e-5`, the command's own flags. A layer names just the keys it changes; a list replaces the
//! list below it. [`resolve`] also says where each value came from, and every error names the place it was written at.

mod entry;
mod fault;
mod known;
mod layers;
mod node;
mod optional;
mod place;
mod presets;
mod render;
mod reward;
mod schema;
mod validate;

pub(crate) use entry::{Entry, of_set};
pub(crate) use fault::read as read_value;
pub(crate) use known::nearest_name;
pub use layers::{ConfigLayers, Resolved, resolve};
pub(crate) use layers::{MergedConfig, find_preset};
pub(crate) use node::{ConfigKey, Content, Node};
pub use place::ValueOrigin;
pub use presets::{PRESETS, Preset};
pub use render::{to_json, to_toml};
pub use reward::*;
pub use schema::*;
pub use validate::Invalid;
