//! Writes a model's logits for `tests/oracle/same_logits.py`, which compares them with PEFT's or transformers', and an
//! adapter's gradient for `same_gradient.py`.
//!
//! ```console
//! $ cargo run --release --example logits -- --model model.gguf --draw-adapter adapter --out logits.json
//! $ python tests/oracle/same_logits.py logits.json model.gguf adapter
//! $ cargo run --release --example logits -- --model model.gguf --adapter adapter --gradient gradient --out logits.json
//! $ python tests/oracle/same_gradient.py gradient model.gguf adapter
//! ```

use anyhow::{Context, Result};
use clap::Parser;
use rft::config::LoraSection;
use rft::device::cpu::decoder::CpuDecoder;
use rft::device::cpu::learner::CpuLearner;
use rft::grpo::learner::Keep;
use rft::grpo::learner::Learner;
use rft::model::lora::Adapter;
use rft::model::pack::Pack;
use rft::model::peft::{load_adapter, save_adapter};
use rft::model::source::ModelSource;
use rft::rng::{Purpose, Stream};
use serde_json::json;
use std::path::PathBuf;

#[derive(Parser)]
struct Args {
    /// A Hub id, a Hugging Face folder or a .gguf file
    #[arg(long)]
    model: String,
    /// An adapter to apply
    #[arg(long, conflicts_with = "draw_adapter")]
    adapter: Option<PathBuf>,
    /// Generate a random adapter on all linear layers (standard deviation of B: 0.02), write it to this folder and
    /// apply it
    #[arg(long)]
    draw_adapter: Option<PathBuf>,
    /// Also write a gradient of the adapter to this folder, in PEFT's format: that of the log-probabilities of two
    /// completions after a prompt of about a hundred tokens, those of the first minus those of the second
    #[arg(long)]
    gradient: Option<PathBuf>,
    #[arg(long)]
    out: PathBuf,
}

const TEXTS: [&str; 2] =
    ["What is 47 + 38? Think step by step.", "def area(radius):\n    return 3.14159 * radius ** 2"];

fn main() -> Result<()> {
    let args = Args::parse();
    let source = ModelSource::open(&args.model, "main")?;
    let tokenizer = source.tokenizer()?;
    let decoder = CpuDecoder::load(source.config.clone(), source.weights.as_ref(), 512)?;
    let adapter = match (&args.adapter, &args.draw_adapter) {
        (Some(folder), _) => Some(load_adapter(folder, &decoder.config, None)?),
        (None, Some(folder)) => {
            let adapter = drawn(&decoder)?;
            save_adapter(&adapter, folder, &args.model)?;
            Some(adapter)
        }
        (None, None) => None,
    };
    let sequences = TEXTS.map(|text| {
        let ids = tokenizer.encode(text);
        let mut pack = Pack::default();
        pack.push(&ids, &[]);
        let hidden = decoder.forward(adapter.as_ref(), &pack, Keep::Nothing).hidden;
        let logits = decoder.head().logits(&hidden);
        let rows: Vec<&[f32]> = logits.chunks(decoder.config.vocab_size).collect();
        json!({"ids": ids, "logits": rows})
    });
    if let (Some(folder), Some(adapter)) = (&args.gradient, &adapter) {
        let [first, second] = TEXTS.map(|text| tokenizer.encode(text));
        let prompt = tokenizer.encode(&TEXTS.join("\n").repeat(4));
        let grads = gradient(&decoder, adapter, &prompt, [&first, &second])?;
        save_adapter(&Adapter { params: grads, ..adapter.clone() }, folder, &args.model)?;
        let pack = json!({"prompt": prompt, "completions": [first, second]});
        std::fs::write(folder.join("pack.json"), pack.to_string())?;
    }
    std::fs::write(&args.out, serde_json::to_vec(&sequences)?)
        .with_context(|| format!("write `{}`", args.out.display()))
}

/// Gradient of Σ log-probability of the first completion minus that of the second, in the layout of the adapter's
/// parameters.
fn gradient(decoder: &CpuDecoder, adapter: &Adapter, prompt: &[u32], completions: [&[u32]; 2]) -> Result<Vec<f32>> {
    let mut pack = Pack::default();
    let ranges = pack.push(prompt, &completions);
    let mut coefficients = vec![1.0; pack.pairs.len()];
    coefficients[ranges[1].clone()].fill(-1.0);
    let mut learner = CpuLearner::new(decoder);
    learner.begin(adapter)?;
    learner.forward(Some(adapter), &pack, Keep::Everything)?;
    learner.head_backward(&pack, 1.0, &coefficients, 0.0)?;
    learner.backward(adapter, &pack)?;
    learner.gradient()
}

fn drawn(decoder: &CpuDecoder) -> Result<Adapter> {
    let mut adapter = Adapter::new(&decoder.config, &LoraSection::all_linear(8), 0)?;
    let stream = Stream::new(0, Purpose::Test, &[]);
    for (_, slot) in adapter.slots.iter().filter(|(name, _)| name.contains(".lora_B.")) {
        for i in slot.range.clone() {
            adapter.params[i] = (0.02 * stream.normal(i as u64)) as f32;
        }
    }
    Ok(adapter)
}
