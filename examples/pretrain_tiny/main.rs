//! Makes the embedded model in `assets/tiny` from scratch: `cargo run --release --example pretrain_tiny`.
//!
//! The text is generated, the tokenizer is learned from it, and a Qwen2 decoder of 0.9 M parameters learns the
//! completions. The result is intentionally a base model: it can do the calculations and has seen the answer formats
//! that the prior prompts ask for, but mixes them with many others, so that reinforcement learning has something to
//! improve. Checkpoints are measured during training, which ends at the first one inside the window: with seed 0 that
//! is step 1000, after 20 to 40 minutes on two cores. The result depends only on the seed, not on the number of
//! threads.

mod folder;
mod measure;
#[allow(dead_code, reason = "the tests share it")]
#[path = "../../tests/reference/mod.rs"]
mod reference;
mod text;
mod train;

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use crate::reference::{Reference, random_weights};
use anyhow::{Context, Result, bail};
use clap::Parser;
use rft::prompt::shipped;
use tokenizers::Tokenizer;

use measure::{Measure, measure};

const VOCABULARY: usize = 1024;

#[derive(Parser)]
struct Args {
    /// Number of steps of the learning rate schedule, and maximum number of steps.
    #[arg(long, default_value_t = 1500)]
    steps: usize,
    /// Steps between checkpoints.
    #[arg(long, default_value_t = 250)]
    every: usize,
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder for the model; its checkpoints are written to `target/pretrain_tiny`.
    #[arg(long, default_value = "assets/tiny")]
    out: PathBuf,
    /// Number of held-out questions per measurement.
    #[arg(long, default_value_t = 512)]
    questions: usize,
    /// Measure the existing model, also with greedy decoding, and show some completions.
    #[arg(long)]
    measure: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if std::env::var_os("CANDLE_NUM_THREADS").is_none() {
        // Each thread computes whole groups. candle's own pool would only spin in addition, and it reads this variable
        // once.
        let mut again = Command::new(std::env::current_exe()?);
        again.args(std::env::args_os().skip(1)).env("CANDLE_NUM_THREADS", "1");
        std::process::exit(again.status()?.code().unwrap_or(1));
    }
    if args.measure {
        return show(&args);
    }
    let tokenizer = folder::train_tokenizer(args.seed, VOCABULARY)?;
    let config = folder::config(tokenizer.get_vocab_size(true));
    folder::write_static(&args.out, &tokenizer, &config)?;
    let weights = random_weights(&config, args.seed, 0.04)?;
    let model = Reference::new(config, &weights)?;
    let parameters: usize = model.vars().values().map(|var| var.elem_count()).sum();
    println!("{parameters} parameters, {} tokens in the vocabulary", model.config().vocab_size);

    let checkpoints = PathBuf::from("target/pretrain_tiny");
    std::fs::create_dir_all(&checkpoints).with_context(|| format!("create `{}`", checkpoints.display()))?;
    let mut trainer = train::Trainer::new(args.seed, args.steps);
    let (start, mut tokens) = (Instant::now(), 0);
    for step in 0..args.steps {
        let report = trainer.step(&model, &tokenizer, step)?;
        tokens += report.tokens;
        if step % 20 == 0 {
            let seconds = start.elapsed().as_secs_f64();
            let (loss, norm) = (report.loss, report.norm);
            println!(
                "step {step:5}  loss {loss:.4}  norm {norm:.2}  tokens {:.2} M  {seconds:.0} s",
                tokens as f64 / 1e6
            );
        }
        if (step + 1) % args.every == 0 || step + 1 == args.steps {
            let path = checkpoints.join(format!("step-{}.safetensors", step + 1));
            let weights = model.vars().iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
            folder::write_weights(&path, &weights)?;
            // Measured as written: in half precision.
            let half = Reference::new(model.config().clone(), &folder::read_weights(&path)?)?;
            if table(&half, &tokenizer, args.questions, false)?.iter().all(|(name, m)| in_window(name, *m)) {
                std::fs::copy(&path, args.out.join("model.safetensors")).context("copy the checkpoint")?;
                println!("inside the window: {} is in `{}`", path.display(), args.out.display());
                return Ok(());
            }
        }
    }
    bail!("no checkpoint was inside the window")
}

/// A base model with room to improve: it solves some questions, and rarely follows the format.
fn in_window(prompt: &str, measure: Measure) -> bool {
    (0.25..=0.50).contains(&measure.accuracy) && (prompt == "none" || (0.15..0.40).contains(&measure.format))
}

/// Measures and prints every shipped prompt.
fn table(
    model: &Reference,
    tokenizer: &Tokenizer,
    questions: usize,
    greedy: bool,
) -> Result<Vec<(&'static str, Measure)>> {
    let mut rows = Vec::new();
    for prompt in shipped() {
        let (m, _) = measure(model, tokenizer, prompt, questions, greedy)?;
        let how = if greedy { "greedy" } else { "sampled" };
        println!("{how} {:14} accuracy {:5.1} %  format {:5.1} %", prompt.name, 100.0 * m.accuracy, 100.0 * m.format);
        rows.push((prompt.name.as_str(), m));
    }
    Ok(rows)
}

fn show(args: &Args) -> Result<()> {
    let path = args.out.join("tokenizer.json");
    let tokenizer = Tokenizer::from_file(&path).map_err(|e| anyhow::anyhow!("read `{}`: {e}", path.display()))?;
    let weights = folder::read_weights(&args.out.join("model.safetensors"))?;
    let model = Reference::new(folder::config(tokenizer.get_vocab_size(true)), &weights)?;
    table(&model, &tokenizer, args.questions, false)?;
    table(&model, &tokenizer, args.questions, true)?;
    for prompt in shipped() {
        let (_, texts) = measure(&model, &tokenizer, prompt, 6, false)?;
        println!("--- {}\n{}", prompt.name, texts.join("\n\n"));
    }
    Ok(())
}
