//! The decoder of Qwen2, Qwen3 and Llama: weights, a forward and a backward made of the functions in [`crate::ops`].
//!
//! There is no autograd: the gradient pass is a loop over the blocks in reverse order, and with checkpointing a block's
//! saved values are dropped and recomputed.

use crate::grpo::learner::Keep;
use crate::model::config::ModelConfig;
use crate::model::lora::{Adapter, BlockLora, Target};
use crate::model::pack::Pack;
use crate::model::weights::{FiniteWeights, Weights};
use crate::ops::attention::{self, Heads};
use crate::ops::head::Head;
use crate::ops::linear::Linear;
use crate::ops::lora::LoraGroup;
use crate::ops::rope::RopeTable;
use crate::ops::{qk_norm, rms_norm, swiglu};
use anyhow::{Result, ensure};

/// How values are stored between two operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    F32,
    /// Rounded to bf16 wherever the CUDA path stores bf16. The self-test uses this to measure the effect of rounding
    /// alone.
    Bf16,
}

impl Precision {
    /// Rounds stored values.
    pub fn round(self, values: &mut [f32]) {
        if self == Self::Bf16 {
            values.iter_mut().for_each(|value| *value = half::bf16::from_f32(*value).to_f32());
        }
    }

    /// Attention over a pack. Its weights are rounded like stored values.
    fn attend(self, heads: Heads, qkv: &[f32], pack: &Pack) -> (Vec<f32>, Vec<f32>) {
        match self {
            Self::F32 => attention::forward(heads, qkv, &pack.parts),
            Self::Bf16 => attention::forward_of::<true>(heads, qkv, &pack.parts),
        }
    }

    fn rounded(self, mut values: Vec<f32>) -> Vec<f32> {
        self.round(&mut values);
        values
    }
}

/// The frozen weights of a decoder, in f32.
pub struct CpuDecoder {
    pub config: ModelConfig,
    /// F32, unless the self-test requests another precision.
    pub precision: Precision,
    /// (vocabulary, hidden)
    embedding: Vec<f32>,
    blocks: Vec<CpuBlock>,
    /// (hidden)
    norm: Vec<f32>,
    /// (hidden, vocabulary)
    head: Vec<f32>,
    rope: RopeTable,
}

struct CpuBlock {
    input_norm: Vec<f32>,
    /// hidden -> q, k and v side by side
    qkv: Linear,
    /// Weights of the norms on q and k.
    qk_norm: Option<(Vec<f32>, Vec<f32>)>,
    o: Linear,
    post_norm: Vec<f32>,
    /// hidden -> gate and up side by side
    gate_up: Linear,
    down: Linear,
}

/// A completed forward pass.
pub struct Activations {
    /// After the last norm: (rows, hidden)
    pub hidden: Vec<f32>,
    /// Before the last norm, with its 1/rms.
    last: (Vec<f32>, Vec<f32>),
    blocks: Vec<SavedBlock>,
}

enum SavedBlock {
    Nothing,
    Input(Vec<f32>),
    Everything(Box<BlockActivations>),
}

/// What a block's backward needs. Shapes: (rows, ...)
struct BlockActivations {
    input: Vec<f32>,
    input_scales: Vec<f32>,
    qkv_shrunk: Vec<f32>,
    qk_norm: Option<qk_norm::SavedQk>,
    /// Positions applied.
    qkv: Vec<f32>,
    attended: Vec<f32>,
    lse: Vec<f32>,
    o_shrunk: Vec<f32>,
    middle: Vec<f32>,
    middle_scales: Vec<f32>,
    gate_up_shrunk: Vec<f32>,
    gate_up: Vec<f32>,
    down_shrunk: Vec<f32>,
}

impl CpuDecoder {
    /// Reads the weights. `positions` is the maximum length of prompt and completion together.
    pub fn load(config: ModelConfig, weights: &dyn Weights, positions: usize) -> Result<Self> {
        let (hidden, vocab) = (config.hidden_size, config.vocab_size);
        ensure!(
            positions <= config.max_position_embeddings,
            "the maximum length of prompt and completion together is {positions} tokens, but the model supports {}\n\
             hint: lower `rollout.max_prompt_length` or `rollout.max_completion_length`",
            config.max_position_embeddings
        );
        let weights = &FiniteWeights(weights);
        let embedding = weights.get("model.embed_tokens.weight", &[vocab, hidden])?;
        let blocks =
            (0..config.num_hidden_layers).map(|i| CpuBlock::load(&config, weights, i)).collect::<Result<_>>()?;
        let norm = weights.get("model.norm.weight", &[hidden])?;
        let head = if config.tie_word_embeddings {
            Linear::join(hidden, &[(&embedding, None)]).weight
        } else {
            Linear::join(hidden, &[(&weights.get("lm_head.weight", &[vocab, hidden])?, None)]).weight
        };
        let rope = RopeTable::new(&config.rope_frequencies(), positions);
        Ok(Self { config, precision: Precision::F32, embedding, blocks, norm, head, rope })
    }

    pub fn head(&self) -> Head<'_> {
        Head { weight: &self.head, hidden: self.config.hidden_size, vocab: self.config.vocab_size }
    }

    pub fn heads(&self) -> Heads {
        self.config.heads()
    }

    /// Bytes of the weights that a decode step reads.
    pub fn weight_bytes(&self) -> usize {
        let block = |b: &CpuBlock| [&b.qkv, &b.o, &b.gate_up, &b.down].iter().map(|l| l.weight.len()).sum::<usize>();
        4 * (self.blocks.iter().map(block).sum::<usize>() + self.head.len())
    }

    /// Hidden rows (rows, hidden), after the last norm, of `tokens` at `positions`. `attend` receives a block's index
    /// and its q, k and v (rows, qkv_width) with positions applied, and returns the outputs (rows, out_width): over a
    /// cache, or over the rows themselves.
    pub fn infer(
        &self,
        adapter: Option<&Adapter>,
        tokens: &[u32],
        positions: &[u32],
        mut attend: impl FnMut(usize, &[f32]) -> Vec<f32>,
    ) -> Vec<f32> {
        let mut x = self.embed(tokens);
        for (i, block) in self.blocks.iter().enumerate() {
            let lora = adapter.map(|adapter| (&adapter.blocks[i], &adapter.params[..]));
            let attend = |qkv: &[f32]| (attend(i, qkv), Vec::new());
            x = block.forward(self, lora, x, positions, attend).0;
        }
        self.precision.rounded(rms_norm::forward(&x, &self.norm, self.config.rms_norm_eps as f32).0)
    }

    /// The forward pass of a packed micro-batch.
    pub fn forward(&self, adapter: Option<&Adapter>, pack: &Pack, keep: Keep) -> Activations {
        let mut x = self.embed(&pack.tokens);
        let mut blocks = Vec::with_capacity(self.blocks.len());
        for (i, block) in self.blocks.iter().enumerate() {
            let lora = adapter.map(|adapter| (&adapter.blocks[i], &adapter.params[..]));
            let attend = |qkv: &[f32]| self.precision.attend(self.heads(), qkv, pack);
            let (out, saved) = block.forward(self, lora, x, &pack.positions, attend);
            x = out;
            blocks.push(match keep {
                Keep::Nothing => SavedBlock::Nothing,
                Keep::Inputs => SavedBlock::Input(saved.input),
                Keep::Everything => SavedBlock::Everything(Box::new(saved)),
            });
        }
        let (hidden, scales) = rms_norm::forward(&x, &self.norm, self.config.rms_norm_eps as f32);
        Activations { hidden: self.precision.rounded(hidden), last: (x, scales), blocks }
    }

    /// Adds the adapter's gradients to `grads`, in the layout of its parameters, from the gradient of
    /// `activations.hidden`.
    ///
    /// # Panics
    /// If the forward pass kept nothing.
    pub fn backward(
        &self,
        adapter: &Adapter,
        pack: &Pack,
        activations: Activations,
        d_hidden: &[f32],
        grads: &mut [f32],
    ) {
        let (x, scales) = &activations.last;
        let mut dx = vec![0.0; d_hidden.len()];
        rms_norm::backward(d_hidden, x, scales, &self.norm, &mut dx);
        self.precision.round(&mut dx);
        for (i, saved) in activations.blocks.into_iter().enumerate().rev() {
            let block = &self.blocks[i];
            let lora = &adapter.blocks[i];
            let saved = match saved {
                SavedBlock::Everything(saved) => *saved,
                SavedBlock::Input(input) => {
                    let attend = |qkv: &[f32]| self.precision.attend(self.heads(), qkv, pack);
                    block.forward(self, Some((lora, &adapter.params)), input, &pack.positions, attend).1
                }
                SavedBlock::Nothing => panic!("a backward pass needs the values that a forward pass kept"),
            };
            dx = block.backward(self, lora, &adapter.params, saved, pack, dx, grads);
        }
    }

    fn embed(&self, tokens: &[u32]) -> Vec<f32> {
        let hidden = self.config.hidden_size;
        tokens.iter().flat_map(|&token| &self.embedding[token as usize * hidden..][..hidden]).copied().collect()
    }
}

impl CpuBlock {
    fn load(config: &ModelConfig, weights: &dyn Weights, layer: usize) -> Result<Self> {
        let hidden = config.hidden_size;
        let name = |name: &str| format!("model.layers.{layer}.{name}.weight");
        let linear = |targets: &[Target], bias: bool| -> Result<Linear> {
            let mut parts = Vec::new();
            for target in targets {
                let (inputs, outputs) = target.shape(config);
                let weight = weights.get(&format!("{}.weight", target.path(layer)), &[outputs, inputs])?;
                let bias =
                    bias.then(|| weights.get(&format!("{}.bias", target.path(layer)), &[outputs])).transpose()?;
                parts.push((weight, bias));
            }
            let parts: Vec<_> = parts.iter().map(|(weight, bias)| (&weight[..], bias.as_deref())).collect();
            Ok(Linear::join(targets[0].shape(config).0, &parts))
        };
        let head_norm = |which: &str| weights.get(&name(&format!("self_attn.{which}_norm")), &[config.head_dim]);
        Ok(Self {
            input_norm: weights.get(&name("input_layernorm"), &[hidden])?,
            qkv: linear(&[Target::Q, Target::K, Target::V], config.qkv_bias)?,
            qk_norm: config.qk_norm.then(|| anyhow::Ok((head_norm("q")?, head_norm("k")?))).transpose()?,
            o: linear(&[Target::O], false)?,
            post_norm: weights.get(&name("post_attention_layernorm"), &[hidden])?,
            gate_up: linear(&[Target::Gate, Target::Up], false)?,
            down: linear(&[Target::Down], false)?,
        })
    }

    /// `x` (rows, hidden) -> (rows, hidden), and what the backward needs.
    fn forward(
        &self,
        decoder: &CpuDecoder,
        lora: Option<(&BlockLora, &[f32])>,
        x: Vec<f32>,
        positions: &[u32],
        attend: impl FnOnce(&[f32]) -> (Vec<f32>, Vec<f32>),
    ) -> (Vec<f32>, BlockActivations) {
        let (heads, precision) = (decoder.heads(), decoder.precision);
        let eps = decoder.config.rms_norm_eps as f32;
        let adapted = |linear: &Linear, group: fn(&BlockLora) -> &LoraGroup, x: &[f32]| {
            let mut y = linear.forward(x);
            let lora_forward = match precision {
                Precision::F32 => LoraGroup::forward,
                Precision::Bf16 => LoraGroup::forward_of::<true>,
            };
            let shrunk = lora
                .map(|(block, params)| lora_forward(group(block), params, x, linear.inputs, &mut y, linear.outputs));
            (y, shrunk.unwrap_or_default())
        };

        let (normed, input_scales) = rms_norm::forward(&x, &self.input_norm, eps);
        let normed = precision.rounded(normed);
        let (mut qkv, qkv_shrunk) = adapted(&self.qkv, |b| &b.qkv, &normed);
        precision.round(&mut qkv);
        let qk_norm = self.qk_norm.as_ref().map(|(q, k)| qk_norm::forward(heads, &mut qkv, q, k, eps));
        decoder.rope.forward(&mut qkv, heads.qkv_width(), heads.query + heads.kv, positions);
        precision.round(&mut qkv);
        let (attended, lse) = attend(&qkv);
        let attended = precision.rounded(attended);
        let (o, o_shrunk) = adapted(&self.o, |b| &b.o, &attended);

        let mut middle = x.clone();
        let (normed, middle_scales) = rms_norm::forward_residual(&mut middle, &o, &self.post_norm, eps);
        precision.round(&mut middle);
        let normed = precision.rounded(normed);
        let (mut gate_up, gate_up_shrunk) = adapted(&self.gate_up, |b| &b.gate_up, &normed);
        precision.round(&mut gate_up);
        let activated = precision.rounded(swiglu::forward(&gate_up, self.down.inputs));
        let (mut out, down_shrunk) = adapted(&self.down, |b| &b.down, &activated);
        out.iter_mut().zip(&middle).for_each(|(out, middle)| *out += middle);
        precision.round(&mut out);

        let saved = BlockActivations {
            input: x,
            input_scales,
            qkv_shrunk,
            qk_norm,
            qkv,
            attended,
            lse,
            o_shrunk,
            middle,
            middle_scales,
            gate_up_shrunk,
            gate_up,
            down_shrunk,
        };
        (out, saved)
    }

    /// `d_out` (rows, hidden) -> gradient of the block's input; the adapter's gradients are added to `grads`.
    #[allow(clippy::too_many_arguments, reason = "all operands of the chain rule")]
    fn backward(
        &self,
        decoder: &CpuDecoder,
        lora: &BlockLora,
        params: &[f32],
        saved: BlockActivations,
        pack: &Pack,
        d_out: Vec<f32>,
        grads: &mut [f32],
    ) -> Vec<f32> {
        let (heads, precision) = (decoder.heads(), decoder.precision);
        let mut adapted = |linear: &Linear, group: &LoraGroup, x: &[f32], shrunk: &[f32], dy: &[f32]| {
            let mut dx = linear.backward(dy);
            let lora_backward = match precision {
                Precision::F32 => LoraGroup::backward,
                Precision::Bf16 => LoraGroup::backward_of::<true>,
            };
            lora_backward(group, params, x, linear.inputs, shrunk, dy, linear.outputs, &mut dx, grads);
            precision.rounded(dx)
        };

        let BlockActivations { input, middle, mut gate_up, .. } = saved;
        let activated = precision.rounded(swiglu::forward(&gate_up, self.down.inputs));
        let d_activated = adapted(&self.down, &lora.down, &activated, &saved.down_shrunk, &d_out);
        swiglu::backward(&d_activated, &mut gate_up, self.down.inputs);
        precision.round(&mut gate_up);
        let normed = precision.rounded(rms_norm::recompute(&middle, &saved.middle_scales, &self.post_norm));
        let d_normed = adapted(&self.gate_up, &lora.gate_up, &normed, &saved.gate_up_shrunk, &gate_up);
        let mut d_middle = d_out;
        rms_norm::backward(&d_normed, &middle, &saved.middle_scales, &self.post_norm, &mut d_middle);
        precision.round(&mut d_middle);

        let d_attended = adapted(&self.o, &lora.o, &saved.attended, &saved.o_shrunk, &d_middle);
        let attention_backward = match precision {
            Precision::F32 => attention::backward,
            Precision::Bf16 => attention::backward_of::<true>,
        };
        let mut d_qkv = attention_backward(heads, &saved.qkv, &pack.parts, &saved.attended, &saved.lse, &d_attended);
        precision.round(&mut d_qkv);
        decoder.rope.backward(&mut d_qkv, heads.qkv_width(), heads.query + heads.kv, &pack.positions);
        if let (Some(norm), Some((q, k))) = (&saved.qk_norm, &self.qk_norm) {
            qk_norm::backward(heads, norm, &mut d_qkv, q, k);
        }
        precision.round(&mut d_qkv);
        let normed = precision.rounded(rms_norm::recompute(&input, &saved.input_scales, &self.input_norm));
        let d_normed = adapted(&self.qkv, &lora.qkv, &normed, &saved.qkv_shrunk, &d_qkv);
        let mut d_input = d_middle;
        rms_norm::backward(&d_normed, &input, &saved.input_scales, &self.input_norm, &mut d_input);
        precision.rounded(d_input)
    }
}
