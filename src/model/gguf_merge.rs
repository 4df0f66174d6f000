//! A model with an adapter merged into its weights, as a GGUF file for llama.cpp.

use std::path::Path;

use anyhow::Result;

use super::config::ModelConfig;
use super::delta::AdapterDeltas;
use super::gguf::{ROPE_DIVISORS, gguf_name, in_file_order, llama3_divisors};
use super::gguf_adapter::check_new_file;
use super::gguf_metadata;
use super::gguf_writer::{GgufTensor, GgufType, GgufWriter};
use super::merge::MergedModel;
use super::source::ModelSource;
use super::weights::Weights;

/// Writes `source` with the adapter in the folder `adapter` merged into it to the new file `out`, with the weights as `kind`.
/// `name` is the model's name in the file. `progress` receives the number of tensors written and the total. One tensor at a time
/// is in memory.
pub fn merge(
    source: &ModelSource,
    adapter: &Path,
    out: &Path,
    name: &str,
    kind: GgufType,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<MergedModel> {
    check_new_file(out)?;
    let mut deltas = AdapterDeltas::load(source, adapter)?;
    let metadata = gguf_metadata::of_model(source, name, kind)?;
    let config = &source.config;
    let names = config.tensors();
    let announced =
        |name: String, shape: &[usize]| GgufTensor { name, shape: shape.to_vec(), kind: kind.of_tensor(shape) };
    let mut tensors: Vec<GgufTensor> = names.iter().map(|(name, shape)| announced(gguf_name(name), shape)).collect();
    let divisors = rope_divisors(config, source.weights.as_ref())?;
    if let Some(divisors) = &divisors {
        tensors.push(announced(ROPE_DIVISORS.to_owned(), &[divisors.len()]));
    }

    let bytes = tensors.iter().map(|it| it.kind.bytes(it.shape.iter().product()) as u64).sum();
    let mut merged = MergedModel { tensors: 0, adapted: 0, bytes };
    let total = tensors.len();
    let mut writer = GgufWriter::create(out, &metadata, tensors)?;
    for (name, shape) in &names {
        let stored = kind.of_tensor(shape);
        let (values, adapted) = deltas.merged(source, name, shape, stored.name(), |value| stored.fits(value))?;
        let columns = shape[shape.len() - 1];
        writer.write(&gguf_name(name), &in_file_order(config, name, values, columns))?;
        merged.adapted += usize::from(adapted);
        merged.tensors += 1;
        progress(merged.tensors, total);
    }
    if let Some(divisors) = divisors {
        writer.write(ROPE_DIVISORS, &divisors)?;
        merged.tensors += 1;
    }
    writer.finish()?;
    Ok(merged)
}

/// The divisors of the rotary frequencies, which llama.cpp reads from a tensor.
fn rope_divisors(config: &ModelConfig, weights: &dyn Weights) -> Result<Option<Vec<f32>>> {
    let Some(scaling) = config.rope_scaling else { return Ok(None) };
    if weights.contains(ROPE_DIVISORS) {
        return weights.get(ROPE_DIVISORS, &[config.head_dim / 2]).map(Some);
    }
    let divisors = llama3_divisors(&scaling, config.rope_theta, config.head_dim);
    Ok(Some(divisors.into_iter().map(|it| it as f32).collect()))
}
