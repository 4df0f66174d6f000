//! The configuration of a run: one [`RunConfig`], resolved from layers.
//!
//! Later layers override earlier ones: a compiled-in preset, files (`--config`, in order), environment variables
//! (`RFT_TRAIN__LEARNING_RATE`), `--set train.learning_rate=1e-5`, the command's own flags. A layer contains only the keys
//! that it changes; an array replaces the array below it. [`resolve`] also returns the origin of each value, and every error
//! has its place.

mod entry;
mod fault;
mod known;
mod layers;
mod node;
mod optional;
mod place;
mod presets;
mod ranges;
mod reference;
mod render;
mod reward;
mod schema;
mod validate;

pub(crate) use entry::{Entry, of_set};
pub(crate) use fault::read as read_value;
pub(crate) use known::nearest_name;
pub use layers::{ConfigLayers, Resolved, resolve};
pub(crate) use layers::{MergedConfig, checked_layer, find_preset};
pub(crate) use node::{ConfigKey, Content, Node};
pub use place::ValueOrigin;
pub use presets::{PRESETS, Preset};
pub use reference::{KeyReference, find as find_key, reference, schema, to_explained_toml};
pub use render::{to_json, to_toml};
pub use reward::*;
pub use schema::*;
pub use validate::Invalid;
