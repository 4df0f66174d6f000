//! Checks everything that runs on the GPU against the same computation on the CPU, with random inputs.
//!
//! There is one table: a group for each operation, and for the decoder, rollouts and training made of them. A group has
//! cases, each of which computes something on the GPU, with the functions that the product uses, and on the CPU.
//! `rft selftest` runs them on a GPU, the tests on the emulated GPU.
//!
//! The error of a check is the norm of the difference over the norm of the reference. The reference is computed in f32
//! from the same inputs, which are rounded to bf16 first. The permitted error is measured: the reference is computed a
//! second time with rounding to bf16 where the GPU rounds, and a result may be [`lab::MARGIN`] times as far off.
//! Outputs are filled with NaN before, so that missing values are noticed, and sizes are odd, so that incomplete tiles
//! occur.

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

/// In an order in which the first failure is the cause of later ones.
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

/// The groups that `filter` selects: comma-separated parts of names; a part that is a whole name selects only that
/// group.
pub fn chosen(filter: &str) -> impl Iterator<Item = &'static str> + '_ {
    groups().filter(move |name| {
        filter.split(',').any(|part| if groups().any(|it| it == part) { *name == part } else { name.contains(part) })
    })
}

/// What to check, and how.
pub struct Options<'a> {
    /// A filter as for [`chosen`].
    pub filter: &'a str,
    /// Seed of the random inputs.
    pub seed: u64,
    /// Whether every buffer is a separate allocation.
    pub guarded: bool,
}

/// Runs checks on GPU number `ordinal`, and reports each when it is done.
///
/// # Errors
/// If the GPU cannot be opened. A case with an error is a failed check.
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
