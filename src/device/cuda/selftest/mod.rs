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

pub use lab::CheckOutcome;

use super::Gpu;
use anyhow::Result;
use case::SelftestCase;
use lab::Lab;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

struct CheckGroup {
    name: &'static str,
    cases: fn() -> Vec<SelftestCase>,
}

/// In an order in which the first failure is the cause of later ones.
const GROUPS: [CheckGroup; 22] = [
    CheckGroup { name: "launches", cases: launches::launches },
    CheckGroup { name: "init", cases: elementwise::init },
    CheckGroup { name: "products", cases: products::products },
    CheckGroup { name: "rms-norm", cases: elementwise::rms_norm },
    CheckGroup { name: "qk-norm", cases: elementwise::qk_norm },
    CheckGroup { name: "rope", cases: elementwise::rope },
    CheckGroup { name: "swiglu", cases: elementwise::swiglu },
    CheckGroup { name: "rows", cases: elementwise::rows },
    CheckGroup { name: "head", cases: head::head },
    CheckGroup { name: "head-distill", cases: head::distill },
    CheckGroup { name: "sampler", cases: head::sampler },
    CheckGroup { name: "advance", cases: rollout::advance },
    CheckGroup { name: "adamw", cases: elementwise::adamw },
    CheckGroup { name: "lora", cases: lora::lora },
    CheckGroup { name: "attention", cases: attention::packed },
    CheckGroup { name: "decode-attention", cases: attention::decode },
    CheckGroup { name: "decoder", cases: model::decoder },
    CheckGroup { name: "checkpointing", cases: model::checkpointing },
    CheckGroup { name: "distillation", cases: model::distillation },
    CheckGroup { name: "rollout", cases: rollout::rollout },
    CheckGroup { name: "memory", cases: training::memory },
    CheckGroup { name: "training", cases: training::training },
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
pub struct SelftestOptions<'a> {
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
pub fn run(ordinal: usize, options: &SelftestOptions, tell: &mut dyn FnMut(&CheckOutcome)) -> Result<()> {
    let &SelftestOptions { filter, seed, guarded } = options;
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
