//! The products of A and B that an adapter adds to the weights of its model.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use rayon::prelude::*;

use super::peft::{self, PeftConfig, Tensors};
use super::source::ModelSource;
use super::weights::{FiniteWeights, Weights};

/// The product that an adapter adds to one weight: scale · B A.
pub struct WeightDelta {
    /// (rank, in)
    pub a: (Vec<usize>, Vec<f32>),
    /// (out, rank)
    pub b: (Vec<usize>, Vec<f32>),
    scale: f32,
}

/// An adapter by the names of the weights that it changes, all of which the model has.
pub struct AdapterDeltas {
    pub config: PeftConfig,
    pub by_weight: BTreeMap<String, WeightDelta>,
}

impl AdapterDeltas {
    /// Reads the adapter in the folder `adapter`, for `source`.
    pub fn load(source: &ModelSource, adapter: &Path) -> Result<Self> {
        let (config, tensors) = peft::load(adapter)?;
        let by_weight = products(tensors, config.section().scale() as f32)
            .with_context(|| format!("read the adapter `{}`", adapter.display()))?;
        let names = source.config.tensors();
        if let Some(name) = by_weight.keys().find(|name| !names.iter().any(|(it, _)| it == *name)) {
            bail!(
                "the adapter changes `{name}`, which `{}` does not have\nhint: use the model that the adapter was trained on",
                source.name
            );
        }
        Ok(Self { config, by_weight })
    }

    /// A weight of `source` with its product added, once. `fits` is whether a value is finite in the type that it will be
    /// stored in, whose name is `kind`. The second value is whether the adapter changes the weight.
    pub fn merged(
        &mut self,
        source: &ModelSource,
        name: &str,
        shape: &[usize],
        kind: &str,
        fits: impl Fn(f32) -> bool + Sync,
    ) -> Result<(Vec<f32>, bool)> {
        let mut values = FiniteWeights(source.weights.as_ref()).get(name, shape)?;
        let product = self.by_weight.remove(name);
        if let Some(product) = &product {
            product.add_to(&mut values, shape).with_context(|| format!("merge into `{name}`"))?;
        }
        ensure!(
            values.par_iter().all(|&value| fits(value)),
            "with the adapter, tensor `{name}` has values that are infinite in {kind}\n\
             hint: use another checkpoint of the run; its training failed"
        );
        Ok((values, product.is_some()))
    }
}

impl WeightDelta {
    /// Checks that the product has the shape of its weight, (out, in).
    pub fn check_shape(&self, shape: &[usize]) -> Result<()> {
        let (a, b) = (&self.a.0, &self.b.0);
        ensure!(
            shape == [b[0], a[1]] && b[1] == a[0],
            "B {b:?} times A {a:?} does not have the weight's shape {shape:?}"
        );
        Ok(())
    }

    /// `weight` is (out, in).
    fn add_to(&self, weight: &mut [f32], shape: &[usize]) -> Result<()> {
        self.check_shape(shape)?;
        let ((a_shape, a), (_, b)) = (&self.a, &self.b);
        let (rank, columns) = (a_shape[0], a_shape[1]);
        weight.par_chunks_mut(columns).zip(b.par_chunks(rank)).for_each(|(row, b)| {
            for (b, a) in b.iter().zip(a.chunks(columns)) {
                let factor = self.scale * b;
                for (weight, a) in row.iter_mut().zip(a) {
                    *weight += factor * a;
                }
            }
        });
        Ok(())
    }
}

/// Pairs the A and B of an adapter by the name of the weight that they change.
fn products(tensors: Tensors, scale: f32) -> Result<BTreeMap<String, WeightDelta>> {
    type Halves = [Option<(Vec<usize>, Vec<f32>)>; 2];
    let mut halves: BTreeMap<String, Halves> = BTreeMap::new();
    for (name, tensor) in tensors {
        let inner = name.strip_prefix("base_model.model.");
        let split = inner.and_then(|it| {
            let a = it.strip_suffix(".lora_A.weight").map(|module| (module, 0));
            a.or_else(|| it.strip_suffix(".lora_B.weight").map(|module| (module, 1)))
        });
        let (module, half) = split.with_context(|| format!("tensor `{name}` is not named as in PEFT"))?;
        halves.entry(format!("{module}.weight")).or_default()[half] = Some(tensor);
    }
    let pair = |(weight, halves): (String, Halves)| match halves {
        [Some(a), Some(b)] => Ok((weight, WeightDelta { a, b, scale })),
        _ => bail!("only one of A and B exists for `{weight}`"),
    };
    halves.into_iter().map(pair).collect()
}
