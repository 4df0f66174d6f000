//! One step of pretraining: gradients of groups of documents, summed in a fixed order, and AdamW.

use std::collections::BTreeMap;

use crate::reference::{Reference, log_probabilities};
use anyhow::{Context, Result, anyhow};
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use tokenizers::Tokenizer;

use crate::folder::{END, PAD};
use crate::text::{self, Group};

/// Groups per step, one for each shipped prompt, and documents per group.
const GROUPS: usize = 6;
const DOCUMENTS: usize = 12;

const WARM_UP: usize = 60;
const PEAK_RATE: f64 = 3e-3;
const BETAS: (f64, f64) = (0.9, 0.99);
const WEIGHT_DECAY: f64 = 0.05;
const MAX_NORM: f64 = 1.0;

/// AdamW's state: moments by tensor, flat.
pub struct Trainer {
    seed: u64,
    steps: usize,
    moments: BTreeMap<String, (Vec<f32>, Vec<f32>)>,
}

/// The results of a step.
pub struct Report {
    /// Mean negative log-likelihood of a completion token, in nats.
    pub loss: f64,
    /// Tokens of all documents; a shared prefix counts once per document.
    pub tokens: usize,
    pub norm: f64,
}

/// A group as tensors: prefix (1, p), rows (documents, len) padded at the end, and the completion tokens with the flat
/// index of the hidden row that predicts each.
struct Batch {
    prefix: Tensor,
    rows: Tensor,
    predictors: Tensor,
    targets: Tensor,
    tokens: usize,
}

impl Trainer {
    pub fn new(seed: u64, steps: usize) -> Self {
        Self { seed, steps, moments: BTreeMap::new() }
    }

    pub fn step(&mut self, model: &Reference, tokenizer: &Tokenizer, step: usize) -> Result<Report> {
        let batches: Vec<Batch> = (0..GROUPS)
            .into_par_iter()
            .map(|index| batch(tokenizer, &text::group(self.seed, step, index, DOCUMENTS)))
            .collect::<Result<_>>()?;
        let responses: usize = batches.iter().map(|batch| batch.targets.elem_count()).sum();
        // Each thread computes some groups; the sum below is by group, so that the number of threads does not change
        // any bit.
        let results: Vec<_> =
            batches.par_iter().map(|batch| gradients(model, batch, responses)).collect::<Result<_>>()?;

        let mut loss = 0.0;
        let mut total: BTreeMap<&str, Vec<f32>> = BTreeMap::new();
        for (part, gradients) in &results {
            loss += part;
            for (name, gradient) in gradients {
                match total.get_mut(name.as_str()) {
                    Some(sum) => sum.iter_mut().zip(gradient).for_each(|(sum, x)| *sum += x),
                    None => drop(total.insert(name, gradient.clone())),
                }
            }
        }
        let norm = self.update(model, &total, step)?;
        Ok(Report { loss, tokens: batches.iter().map(|batch| batch.tokens).sum(), norm })
    }

    /// AdamW with clipping by the global norm, which it returns. Vectors (norms and biases) have no weight decay.
    fn update(&mut self, model: &Reference, gradients: &BTreeMap<&str, Vec<f32>>, step: usize) -> Result<f64> {
        let norm = gradients.values().flatten().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        let clip = (MAX_NORM / norm).min(1.0) as f32;
        let rate = self.rate(step);
        let (b1, b2) = (BETAS.0 as f32, BETAS.1 as f32);
        let unbias = |beta: f64| (1.0 - beta.powi(step as i32 + 1)) as f32;
        let (unbias1, unbias2) = (unbias(BETAS.0), unbias(BETAS.1));
        for (name, var) in model.vars() {
            let gradient = gradients.get(name.as_str()).with_context(|| format!("`{name}` got no gradient"))?;
            let decay = if var.rank() > 1 { (1.0 - rate * WEIGHT_DECAY) as f32 } else { 1.0 };
            let mut weights = var.flatten_all()?.to_vec1::<f32>()?;
            let zeros = || vec![0.0; weights.len()];
            let (first, second) = self.moments.entry(name.clone()).or_insert_with(|| (zeros(), zeros()));
            for (((w, g), m), v) in weights.iter_mut().zip(gradient).zip(first).zip(second) {
                let g = g * clip;
                *m = b1 * *m + (1.0 - b1) * g;
                *v = b2 * *v + (1.0 - b2) * g * g;
                *w = *w * decay - rate as f32 * (*m / unbias1) / ((*v / unbias2).sqrt() + 1e-8);
            }
            var.set(&Tensor::from_vec(weights, var.dims(), &Device::Cpu)?)?;
        }
        Ok(norm)
    }

    /// A linear warm-up, then a cosine down to a twentieth of the peak.
    fn rate(&self, step: usize) -> f64 {
        let progress = step as f64 / self.steps as f64;
        let cosine = 0.525 + 0.475 * (std::f64::consts::PI * progress).cos();
        PEAK_RATE * cosine * ((step + 1) as f64 / WARM_UP as f64).min(1.0)
    }
}

/// A group's share of the mean loss over `responses` tokens, and of its gradient.
fn gradients(model: &Reference, batch: &Batch, responses: usize) -> Result<(f64, BTreeMap<String, Vec<f32>>)> {
    let (_, past) = model.hidden(&batch.prefix, None)?;
    let (hidden, _) = model.hidden(&batch.rows, Some(&past))?;
    let hidden = hidden.flatten_to(1)?.index_select(&batch.predictors, 0)?; // (responses of the group, hidden)
    let chosen = log_probabilities(&model.head(&hidden)?, &batch.targets)?;
    let loss = (chosen.sum_all()? * (-1.0 / responses as f64))?;
    let store = loss.backward()?;
    let mut gradients = BTreeMap::new();
    for (name, var) in model.vars() {
        let gradient = store.get(var).with_context(|| format!("`{name}` got no gradient"))?;
        gradients.insert(name.clone(), gradient.flatten_all()?.to_vec1()?);
    }
    Ok((f64::from(loss.to_scalar::<f32>()?), gradients))
}

fn batch(tokenizer: &Tokenizer, group: &Group) -> Result<Batch> {
    let prefix = encode(tokenizer, &group.prefix)?;
    let mut documents = Vec::with_capacity(group.documents.len());
    for (question, response) in &group.documents {
        let mut ids = encode(tokenizer, question)?;
        let start = ids.len();
        ids.extend(encode(tokenizer, response)?);
        ids.push(END);
        documents.push((start, ids));
    }
    let width = documents.iter().map(|(_, ids)| ids.len()).max().unwrap_or(0);
    let (mut rows, mut predictors, mut targets) = (Vec::new(), Vec::new(), Vec::new());
    for (row, (start, ids)) in documents.iter().enumerate() {
        predictors.extend((*start..ids.len()).map(|i| (row * width + i - 1) as u32));
        targets.extend_from_slice(&ids[*start..]);
        rows.extend_from_slice(ids);
        rows.resize((row + 1) * width, PAD);
    }
    let tokens = documents.iter().map(|(_, ids)| prefix.len() + ids.len()).sum();
    Ok(Batch {
        rows: Tensor::from_vec(rows, (documents.len(), width), &Device::Cpu)?,
        prefix: Tensor::new(prefix, &Device::Cpu)?.unsqueeze(0)?,
        predictors: Tensor::new(predictors, &Device::Cpu)?,
        targets: Tensor::new(targets, &Device::Cpu)?,
        tokens,
    })
}

pub fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    let encoding = tokenizer.encode(text, false).map_err(|e| anyhow!("encode a text: {e}"))?;
    Ok(encoding.get_ids().to_vec())
}
