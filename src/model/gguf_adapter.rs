//! An adapter as a GGUF file, which llama.cpp applies to a model with `--lora`.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_core::quantized::gguf_file::Value;

use super::delta::{AdapterDeltas, WeightDelta};
use super::gguf::{architecture_name, gguf_name, in_file_order};
use super::gguf_metadata::set_file;
use super::gguf_writer::{GgufTensor, GgufType, GgufWriter, Metadata};
use super::source::ModelSource;

/// The result of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportedAdapter {
    /// Number of weights that the adapter changes.
    pub adapted: usize,
    /// Size of A and B.
    pub bytes: u64,
}

/// Writes the adapter in the folder `adapter`, of the model `source`, to the new file `out`. `name` is the adapter's name in the
/// file. Only the configuration of `source` is used, not its weights.
pub fn export(source: &ModelSource, adapter: &Path, out: &Path, name: &str, kind: GgufType) -> Result<ExportedAdapter> {
    check_new_file(out)?;
    let deltas = AdapterDeltas::load(source, adapter)?;
    let in_adapter = || format!("export the adapter `{}`", adapter.display());
    check(&deltas, source).with_context(in_adapter)?;

    let tensor = |weight: &str, half: &str, shape: &[usize]| GgufTensor {
        name: format!("{}.{half}", gguf_name(weight)),
        shape: shape.to_vec(),
        kind,
    };
    let tensors: Vec<GgufTensor> = deltas
        .by_weight
        .iter()
        .flat_map(|(weight, WeightDelta { a, b, .. })| [tensor(weight, "lora_a", &a.0), tensor(weight, "lora_b", &b.0)])
        .collect();
    let bytes = tensors.iter().map(|it| kind.bytes(it.shape.iter().product()) as u64).sum();
    let mut writer = GgufWriter::create(out, &metadata(&deltas, source, name, kind), tensors)?;
    for (weight, WeightDelta { a, b, .. }) in &deltas.by_weight {
        for (_, values) in [a, b] {
            ensure!(
                values.iter().all(|&value| kind.fits(value)),
                "the adapter of `{weight}` has values that are infinite in {}\nhint: leave out --dtype",
                kind.name()
            );
        }
        let file_name = gguf_name(weight);
        writer.write(&format!("{file_name}.lora_a"), &a.1)?;
        // The outputs of B are those of the weight, so they have its order.
        writer.write(&format!("{file_name}.lora_b"), &in_file_order(&source.config, weight, b.1.clone(), b.0[1]))?;
    }
    writer.finish()?;
    Ok(ExportedAdapter { adapted: deltas.by_weight.len(), bytes })
}

/// Checks a path for a new GGUF file.
pub(super) fn check_new_file(out: &Path) -> Result<()> {
    ensure!(
        out.extension().is_some_and(|it| it == "gguf"),
        "`{}` is not the name of a GGUF file\nhint: pass a name that ends in .gguf",
        out.display()
    );
    ensure!(!out.exists(), "`{}` exists already\nhint: choose a new file", out.display());
    Ok(())
}

/// Checks that llama.cpp applies every part of the adapter.
fn check(deltas: &AdapterDeltas, source: &ModelSource) -> Result<()> {
    ensure!(
        !deltas.by_weight.is_empty(),
        "it has no tensors, and llama.cpp does not load it\nhint: check that this is the folder of the adapter"
    );
    let shapes = source.config.tensors();
    for (weight, delta) in &deltas.by_weight {
        // llama.cpp reads the A and B of an embedding in another layout.
        ensure!(
            weight != "model.embed_tokens.weight",
            "it adapts the embedding, which is supported only in merged models\nhint: use `rft merge --gguf`"
        );
        let (_, shape) = shapes.iter().find(|(name, _)| name == weight).context("a weight that the model has")?;
        delta.check_shape(shape).with_context(|| {
            format!("the adapter of `{weight}`\nhint: pass the model that it was trained on with --model")
        })?;
    }
    ensure!(
        alpha(deltas) != 0.0,
        "its `lora_alpha` is 0, which llama.cpp reads as a scale of 1\nhint: use the model without the adapter"
    );
    Ok(())
}

/// llama.cpp multiplies B A by alpha divided by the rank, also for an adapter that was trained with rank-stabilized LoRA.
fn alpha(deltas: &AdapterDeltas) -> f32 {
    (deltas.config.section().scale() * deltas.config.r as f64) as f32
}

fn metadata(deltas: &AdapterDeltas, source: &ModelSource, name: &str, kind: GgufType) -> Metadata {
    let text = |text: &str| Value::String(text.to_owned());
    let mut metadata: Metadata = [
        ("general.type", text("adapter")),
        ("general.architecture", text(architecture_name(source.config.architecture))),
        ("general.base_model.count", Value::U32(1)),
        ("general.base_model.0.name", text(&source.name)),
        ("adapter.type", text("lora")),
        ("adapter.lora.alpha", Value::F32(alpha(deltas))),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    set_file(&mut metadata, name, kind);
    metadata
}
