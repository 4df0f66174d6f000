//! Checks of everything that runs on the GPU against its twin on the CPU, on fresh random inputs.
//!
//! The error of a check is the norm of the difference over the norm of the reference. The reference is computed in f32 from
//! the same inputs, which are rounded to bf16 first; what is to be written is filled with NaN before, so that a value that
//! was left out shows, and sizes are odd, so that the ends of tiles are there.

mod attention;
mod elementwise;
mod head;
mod lab;
mod lora;
mod model;
mod products;
mod rollout;
mod training;

pub use lab::Outcome;

use super::Gpu;
use anyhow::Result;
use lab::Lab;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

/// bf16 results: a rounding is 2⁻⁹ at most, and sums of products have some of them.
const BF16: f64 = 1e-2;
/// f32 results.
const F32: f64 = 1e-5;
/// Gradients of LoRA, through a whole decoder.
const GRADIENT: f64 = 2e-2;
/// What has to be equal to the last bit.
const EXACT: f64 = 0.0;

type Group = fn(&mut Lab) -> Result<()>;

/// In an order in which the first failure is the cause of those after it.
const GROUPS: [(&str, Group); 18] = [
    ("init", elementwise::init),
    ("products", products::products),
    ("rms-norm", elementwise::rms_norm),
    ("qk-norm", elementwise::qk_norm),
    ("rope", elementwise::rope),
    ("swiglu", elementwise::swiglu),
    ("rows", elementwise::rows),
    ("head", head::head),
    ("sampler", head::sampler),
    ("adamw", elementwise::adamw),
    ("lora", lora::lora),
    ("attention", attention::packed),
    ("decode-attention", attention::decode),
    ("decoder", model::decoder),
    ("checkpointing", model::checkpointing),
    ("rollout", rollout::rollout),
    ("memory", training::memory),
    ("training", training::training),
];

/// The names of the groups of checks.
pub fn groups() -> impl Iterator<Item = &'static str> {
    GROUPS.iter().map(|(name, _)| *name)
}

/// The group that is called `filter`, or else all whose name holds it.
fn chosen(filter: &str) -> impl Iterator<Item = &'static (&'static str, Group)> + '_ {
    let exact = groups().any(|name| name == filter);
    GROUPS.iter().filter(move |(name, _)| if exact { *name == filter } else { name.contains(filter) })
}

/// What to check, and how.
pub struct Options<'a> {
    /// The group of this name, or else all whose name holds it.
    pub filter: &'a str,
    /// Of the random inputs.
    pub seed: u64,
    /// Whether every buffer is an allocation of its own.
    pub guarded: bool,
}

/// Runs checks on GPU number `ordinal`, and tells of each as it is done.
///
/// # Errors
/// When the GPU cannot be opened. A group that fails is a failed check.
pub fn run(ordinal: usize, options: &Options, tell: &mut dyn FnMut(&Outcome)) -> Result<()> {
    let &Options { filter, seed, guarded } = options;
    let gpu = Rc::new(Gpu { guarded, ..Gpu::open(ordinal)? });
    for (name, group) in chosen(filter) {
        let mut lab = Lab::new(gpu.clone(), name, seed, tell)?;
        let checked = catch_unwind(AssertUnwindSafe(|| group(&mut lab).and_then(|()| lab.gpu.synchronize())));
        let failure = match checked {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => format!("{error:#}"),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
                format!("panicked: {}", text.unwrap_or("no message"))
            }
        };
        lab.failed(&failure);
    }
    Ok(())
}
