//! Checks of everything that runs on the GPU against its twin on the CPU, on fresh random inputs.
//!
//! One table for all of it: a group for each operation, and for the decoder, rollouts and training made of them; a group
//! has cases, each of which computes something on the GPU, through the functions that the product calls, and on the CPU.
//! `rft selftest` runs them on a GPU, the tests on the emulated device.
//!
//! The error of a check is the norm of the difference over the norm of the reference. The reference is computed in f32 from
//! the same inputs, which are rounded to bf16 first. How much of an error is right is measured: the reference is computed a
//! second time with roundings to bf16 where the GPU has them, and a result may be [`lab::MARGIN`] times as far off. What is to
//! be written is filled with NaN before, so that a value that was left out shows, and sizes are odd, so that the ends of
//! tiles are there.

mod attention;
mod case;
mod elementwise;
mod head;
mod lab;
mod launches;
mod lora;
mod model;
mod products;
mod rollout;
mod training;

pub use lab::Outcome;

use super::Gpu;
use anyhow::Result;
use case::Case;
use lab::Lab;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

struct Group {
    name: &'static str,
    cases: fn() -> Vec<Case>,
}

/// In an order in which the first failure is the cause of those after it.
const GROUPS: [Group; 20] = [
    Group { name: "launches", cases: launches::launches },
    Group { name: "init", cases: elementwise::init },
    Group { name: "products", cases: products::products },
    Group { name: "rms-norm", cases: elementwise::rms_norm },
    Group { name: "qk-norm", cases: elementwise::qk_norm },
    Group { name: "rope", cases: elementwise::rope },
    Group { name: "swiglu", cases: elementwise::swiglu },
    Group { name: "rows", cases: elementwise::rows },
    Group { name: "head", cases: head::head },
    Group { name: "sampler", cases: head::sampler },
    Group { name: "advance", cases: rollout::advance },
    Group { name: "adamw", cases: elementwise::adamw },
    Group { name: "lora", cases: lora::lora },
    Group { name: "attention", cases: attention::packed },
    Group { name: "decode-attention", cases: attention::decode },
    Group { name: "decoder", cases: model::decoder },
    Group { name: "checkpointing", cases: model::checkpointing },
    Group { name: "rollout", cases: rollout::rollout },
    Group { name: "memory", cases: training::memory },
    Group { name: "training", cases: training::training },
];

/// The names of the groups of checks.
pub fn groups() -> impl Iterator<Item = &'static str> {
    GROUPS.iter().map(|group| group.name)
}

/// The groups that `filter` names: parts of names, separated by commas; a part that is a whole name is that group alone.
pub fn chosen(filter: &str) -> impl Iterator<Item = &'static str> + '_ {
    groups().filter(move |name| {
        filter.split(',').any(|part| if groups().any(|it| it == part) { *name == part } else { name.contains(part) })
    })
}

/// What to check, and how.
pub struct Options<'a> {
    /// The groups that [`chosen`] gives for it.
    pub filter: &'a str,
    /// Of the random inputs.
    pub seed: u64,
    /// Whether every buffer is an allocation of its own.
    pub guarded: bool,
}

/// Runs checks on GPU number `ordinal`, and tells of each as it is done.
///
/// # Errors
/// When the GPU cannot be opened. A case that fails is a failed check.
pub fn run(ordinal: usize, options: &Options, tell: &mut dyn FnMut(&Outcome)) -> Result<()> {
    let &Options { filter, seed, guarded } = options;
    let gpu = Rc::new(Gpu { guarded, ..Gpu::open(ordinal)? });
    for group in GROUPS.iter().filter(|group| chosen(filter).any(|name| name == group.name)) {
        let mut lab = Lab::new(gpu.clone(), group.name, seed, tell)?;
        for case in (group.cases)() {
            lab.begin(&case.name);
            let checked =
                catch_unwind(AssertUnwindSafe(|| (case.check)(&mut lab).and_then(|()| lab.gpu.synchronize())));
            match checked {
                Ok(Ok(())) => {}
                Ok(Err(error)) => lab.failed(format!("{error:#}")),
                Err(panic) => {
                    let text = panic.downcast_ref::<String>().map(String::as_str);
                    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
                    lab.failed(format!("panicked: {}", text.unwrap_or("no message")));
                }
            }
        }
    }
    Ok(())
}
