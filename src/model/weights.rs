//! The weights of a checkpoint, one tensor at a time.

use anyhow::{Result, bail, ensure};
use rayon::prelude::*;

use super::config::ModelConfig;
use super::rounding::Rounding;
use crate::rng::{Purpose, Stream, name_hash};
use std::io::Read;

/// Named tensors of a checkpoint, in Hugging Face's names and (out, in) layout.
///
/// A tensor is read when it is requested and not kept, so that loading a model holds little more than one copy of it.
pub trait Weights: Send + Sync {
    /// The tensor's values in row-major order; an error where it is missing or has another shape.
    fn get(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>>;

    /// The same values as bf16, little-endian, to be read from the first to the last. What the checkpoint has as bf16 comes as
    /// it is, without a copy of the tensor in memory; other values are rounded once.
    fn bf16<'a>(&'a self, name: &str, shape: &[usize]) -> Result<Box<dyn Read + 'a>> {
        Ok(Box::new(Rounding::of(self.get(name, shape)?)))
    }

    fn contains(&self, name: &str) -> bool;
}

/// Of a model that is elsewhere: there is nothing to read.
pub struct NoWeights;

impl Weights for NoWeights {
    fn get(&self, name: &str, _shape: &[usize]) -> Result<Vec<f32>> {
        bail!("the model was opened without its weights, and `{name}` is one of them")
    }

    fn contains(&self, _name: &str) -> bool {
        false
    }
}

/// The initial weights of a model that is trained from nothing: matrices and biases normal with deviation 0.02, norms 1.
pub struct RandomWeights {
    config: ModelConfig,
    seed: u64,
}

impl RandomWeights {
    pub fn new(config: &ModelConfig, seed: u64) -> Self {
        Self { config: config.clone(), seed }
    }
}

impl Weights for RandomWeights {
    fn get(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let known = self.config.tensors().into_iter().find(|(it, _)| it == name);
        let found = known.map(|(_, shape)| shape);
        check_shape(name, found.as_deref(), shape)?;
        let len = shape.iter().product();
        if name.ends_with("norm.weight") {
            return Ok(vec![1.0; len]);
        }
        let stream = Stream::new(self.seed, Purpose::ModelInit, &[name_hash(name)]);
        Ok((0..len).into_par_iter().map(|index| (0.02 * stream.normal(index as u64)) as f32).collect())
    }

    fn contains(&self, name: &str) -> bool {
        self.config.tensors().iter().any(|(it, _)| it == name)
    }
}

/// Weights to compute with: a NaN or an infinity in them is an error.
pub struct FiniteWeights<'a>(pub &'a dyn Weights);

impl Weights for FiniteWeights<'_> {
    fn get(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let values = self.0.get(name, shape)?;
        let odd = values.par_chunks(1 << 16).map(|values| values.iter().filter(|it| !it.is_finite()).count()).sum();
        check_odd(name, odd, "")?;
        Ok(values)
    }

    fn contains(&self, name: &str) -> bool {
        self.0.contains(name)
    }
}

/// Returns an error if a tensor has `odd` values that are NaN or infinite. `format` is appended: ` in bf16`, or nothing.
pub fn check_odd(name: &str, odd: usize, format: &str) -> Result<()> {
    ensure!(
        odd == 0,
        "tensor `{name}` has {odd} values that are NaN or infinite{format}\n\
         hint: download the checkpoint again or use another; it is damaged, or its training failed"
    );
    Ok(())
}

/// The error for tensors, by name, that a model of this configuration does not read.
pub(super) fn check_unused<'a>(config: &ModelConfig, unused: impl Iterator<Item = &'a str>) -> Result<()> {
    let unused: Vec<&str> = unused.collect();
    let Some(first) = unused.first() else { return Ok(()) };
    let more = if unused.len() > 1 { format!(" and {} others", unused.len() - 1) } else { String::new() };
    bail!(
        "the weights contain tensor `{first}`{more}, which a {:?} model of {} layers does not have\n\
         hint: use the configuration that belongs to the weights: check `architectures` and `num_hidden_layers`",
        config.architecture,
        config.num_hidden_layers
    )
}

/// The error every kind of checkpoint gives for a tensor that is missing (`found` is none) or has another shape.
pub(super) fn check_shape(name: &str, found: Option<&[usize]>, wanted: &[usize]) -> Result<()> {
    match found {
        None => anyhow::bail!("the checkpoint has no tensor `{name}`"),
        Some(found) => {
            ensure!(
                found == wanted,
                "tensor `{name}` has shape {found:?}, the model configuration asks for {wanted:?}"
            );
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::tests::tiny;
    use super::*;

    #[test]
    fn random_weights_are_a_function_of_seed_and_name() {
        let config = tiny();
        let shape = [config.hidden_size, config.intermediate_size];
        let get = |seed, name: &str| RandomWeights::new(&config, seed).get(name, &shape).unwrap();
        let weight = get(1, "model.layers.0.mlp.down_proj.weight");
        assert_eq!(weight, get(1, "model.layers.0.mlp.down_proj.weight"));
        assert_ne!(weight, get(2, "model.layers.0.mlp.down_proj.weight"));
        assert_ne!(weight, get(1, "model.layers.1.mlp.down_proj.weight"));
        let deviation = (weight.iter().map(|x| x * x).sum::<f32>() / weight.len() as f32).sqrt();
        assert!((deviation - 0.02).abs() < 0.002, "deviation {deviation}");
    }

    #[test]
    fn every_listed_tensor_is_there_and_nothing_else() {
        let config = tiny();
        let weights = RandomWeights::new(&config, 0);
        for (name, shape) in config.tensors() {
            assert!(weights.contains(&name));
            assert_eq!(weights.get(&name, &shape).unwrap().len(), shape.iter().product::<usize>());
        }
        assert!(!weights.contains("lm_head.weight"));
        assert!(weights.get("model.norm.weight", &[1]).unwrap_err().to_string().contains("has shape"));
        assert!(weights.get("lm_head.weight", &[1]).unwrap_err().to_string().contains("no tensor"));
    }
}
