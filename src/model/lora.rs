//! LoRA adapters: a flat f32 storage with names by offset, which rollout and training both read.

use super::config::ModelConfig;
use crate::config::{ALL_LINEAR, LINEAR_MODULES, LoraSection};
use crate::ops::lora::{LoraGroup, LoraPart};
use crate::rng::{Purpose, Stream, name_hash};
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::ops::Range;

/// A linear layer that can be adapted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    Q,
    K,
    V,
    O,
    Gate,
    Up,
    Down,
}

impl Target {
    pub const ALL: [Self; 7] = [Self::Q, Self::K, Self::V, Self::O, Self::Gate, Self::Up, Self::Down];

    /// The module's name as in `target_modules`: the targets are in the order of [`LINEAR_MODULES`].
    pub fn name(self) -> &'static str {
        LINEAR_MODULES[self as usize]
    }

    /// The module's path in a model, without `.weight`.
    pub fn path(self, layer: usize) -> String {
        let parent = match self {
            Self::Q | Self::K | Self::V | Self::O => "self_attn",
            Self::Gate | Self::Up | Self::Down => "mlp",
        };
        format!("model.layers.{layer}.{parent}.{}", self.name())
    }

    /// (inputs, outputs)
    pub fn shape(self, config: &ModelConfig) -> (usize, usize) {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let (q, kv) = (config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim);
        match self {
            Self::Q => (hidden, q),
            Self::K | Self::V => (hidden, kv),
            Self::O => (q, hidden),
            Self::Gate | Self::Up => (hidden, inner),
            Self::Down => (inner, hidden),
        }
    }
}

/// The position of a tensor in [`Adapter::params`].
#[derive(Clone, Debug)]
pub struct Slot {
    pub range: Range<usize>,
    /// The shape in PEFT's layout: A (r, in), B (out, r).
    pub shape: [usize; 2],
    /// Whether the storage contains the transpose: B is stored as (r, out).
    transposed: bool,
}

/// The adapters of one decoder block, by the joined layers that they belong to.
#[derive(Clone, Debug, Default)]
pub struct BlockLora {
    pub qkv: LoraGroup,
    pub o: LoraGroup,
    pub gate_up: LoraGroup,
    pub down: LoraGroup,
}

/// A LoRA adapter of a whole decoder.
#[derive(Clone, Debug)]
pub struct Adapter {
    pub params: Vec<f32>,
    /// By PEFT's names.
    pub slots: BTreeMap<String, Slot>,
    pub blocks: Vec<BlockLora>,
    pub section: LoraSection,
}

impl Adapter {
    /// A new adapter: A uniform in ±1/√in (PEFT's Kaiming-uniform), B zero, so that it starts as the identity.
    pub fn new(config: &ModelConfig, section: &LoraSection, seed: u64) -> Result<Self> {
        let mut adapter = Self::zeros(config, section)?;
        for (name, slot) in adapter.slots.iter().filter(|(name, _)| name.contains(".lora_A.")) {
            let stream = Stream::new(seed, Purpose::AdapterInit, &[name_hash(name)]);
            let bound = 1.0 / (slot.shape[1] as f64).sqrt();
            for (i, value) in adapter.params[slot.range.clone()].iter_mut().enumerate() {
                *value = ((2.0 * stream.f64(i as u64) - 1.0) * bound) as f32;
            }
        }
        Ok(adapter)
    }

    /// An adapter that is zero.
    pub fn zeros(config: &ModelConfig, section: &LoraSection) -> Result<Self> {
        let (blocks, layout) = AdapterLayout::of(config, section)?;
        Ok(Self { params: vec![0.0; layout.len], slots: layout.slots, blocks, section: section.clone() })
    }

    /// The blocks of an adapter without creating it, and its number of values.
    pub fn shape(config: &ModelConfig, section: &LoraSection) -> Result<(Vec<BlockLora>, usize)> {
        let (blocks, layout) = AdapterLayout::of(config, section)?;
        Ok((blocks, layout.len))
    }

    /// An adapter with the values of `tensors`, in PEFT's names and layout.
    ///
    /// # Errors
    /// If a tensor is missing, unknown, or of another shape.
    pub fn from_tensors(
        config: &ModelConfig,
        section: &LoraSection,
        tensors: &BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    ) -> Result<Self> {
        let mut adapter = Self::zeros(config, section)?;
        if let Some(name) = tensors.keys().find(|name| !adapter.slots.contains_key(*name)) {
            bail!("the adapter has a tensor that does not belong to this model: `{name}`");
        }
        for (name, slot) in &adapter.slots {
            let (shape, values) = tensors.get(name).with_context(|| format!("the adapter has no tensor `{name}`"))?;
            ensure!(shape[..] == slot.shape, "`{name}`: expected shape {:?}, found {shape:?}", slot.shape);
            slot.write(values, &mut adapter.params);
        }
        Ok(adapter)
    }

    /// Makes the product of scale, B and A of every layer that of `given`, an adapter of the same layers whose rank is not
    /// larger: its A are the first rows here, and its B the first columns, multiplied by the ratio of the scales. The other rows
    /// of A keep their values, those of a new adapter, and the other columns of B are zero: they do not change the product, and
    /// training reaches them, because the gradient of a zero column of B is that of a new adapter.
    pub fn start_from(&mut self, given: &Self) {
        let ratio = given.section.scale() / self.section.scale();
        for (name, slot) in &self.slots {
            let from = &given.slots[name];
            let (old, mut new) = (from.read(&given.params), slot.read(&self.params));
            if name.contains(".lora_A.") {
                new[..old.len()].copy_from_slice(&old);
            } else {
                new.fill(0.0);
                for (old, new) in old.chunks_exact(from.shape[1]).zip(new.chunks_exact_mut(slot.shape[1])) {
                    old.iter().zip(new).for_each(|(old, new)| *new = (f64::from(*old) * ratio) as f32);
                }
            }
            slot.write(&new, &mut self.params);
        }
    }

    /// Every tensor by name, in PEFT's layout, from `storage`: the parameters, or any data of the same layout.
    pub fn tensors(&self, storage: &[f32]) -> Vec<(String, [usize; 2], Vec<f32>)> {
        self.slots.iter().map(|(name, slot)| (name.clone(), slot.shape, slot.read(storage))).collect()
    }

    /// The positions of all tensors, in the order of their names.
    pub fn ranges(&self) -> Vec<Range<usize>> {
        self.slots.values().map(|slot| slot.range.clone()).collect()
    }
}

impl Slot {
    /// The tensor in PEFT's layout.
    pub fn read(&self, storage: &[f32]) -> Vec<f32> {
        let values = &storage[self.range.clone()];
        let [rows, cols] = self.shape;
        if !self.transposed {
            return values.to_vec();
        }
        (0..rows * cols).map(|i| values[i % cols * rows + i / cols]).collect()
    }

    /// Writes a tensor in PEFT's layout to the storage.
    pub fn write(&self, values: &[f32], storage: &mut [f32]) {
        let [rows, cols] = self.shape;
        let to = &mut storage[self.range.clone()];
        if !self.transposed {
            return to.copy_from_slice(values);
        }
        for (i, value) in values.iter().enumerate() {
            to[i % cols * rows + i / cols] = *value;
        }
    }
}

/// `target_modules` as targets, in their fixed order.
pub fn targets(modules: &[String]) -> Result<Vec<Target>> {
    if modules.iter().any(|module| module == ALL_LINEAR) {
        return Ok(Target::ALL.to_vec());
    }
    for module in modules {
        if !Target::ALL.iter().any(|target| target.name() == module) {
            let names = LINEAR_MODULES.join(", ");
            bail!("unknown module `{module}` in `lora.target_modules`\nhint: use `{ALL_LINEAR}`, or any of {names}");
        }
    }
    ensure!(
        !modules.is_empty(),
        "`lora.target_modules` is empty\nhint: use `[\"{ALL_LINEAR}\"]` to adapt every linear layer"
    );
    Ok(Target::ALL.into_iter().filter(|target| modules.iter().any(|module| module == target.name())).collect())
}

/// Assigns positions in the flat storage.
struct AdapterLayout<'a> {
    config: &'a ModelConfig,
    rank: usize,
    scale: f32,
    slots: BTreeMap<String, Slot>,
    len: usize,
}

impl<'a> AdapterLayout<'a> {
    /// Positions for all blocks.
    fn of(config: &'a ModelConfig, section: &LoraSection) -> Result<(Vec<BlockLora>, Self)> {
        let targets = targets(&section.target_modules)?;
        ensure!(section.r > 0, "`lora.r` must be at least 1\nhint: use a common rank such as 8, 16 or 32");
        let mut layout =
            AdapterLayout { config, rank: section.r, scale: section.scale() as f32, slots: BTreeMap::new(), len: 0 };
        let blocks = (0..config.num_hidden_layers)
            .map(|layer| {
                let mut group = |members: &[Target]| layout.group(layer, members, &targets);
                BlockLora {
                    qkv: group(&[Target::Q, Target::K, Target::V]),
                    o: group(&[Target::O]),
                    gate_up: group(&[Target::Gate, Target::Up]),
                    down: group(&[Target::Down]),
                }
            })
            .collect();
        Ok((blocks, layout))
    }

    /// Positions for the adapted ones of `members`: their A matrices are contiguous, so that one product reads the
    /// shared input once, then their B matrices.
    fn group(&mut self, layer: usize, members: &[Target], adapted: &[Target]) -> LoraGroup {
        let rank = self.rank;
        let first = self.len;
        let present: Vec<Target> = members.iter().copied().filter(|target| adapted.contains(target)).collect();
        for target in &present {
            let (inputs, _) = target.shape(self.config);
            self.take(layer, *target, "lora_A", [rank, inputs], false);
        }
        let a = first..self.len;
        let mut column = 0;
        let mut parts = Vec::new();
        for target in members {
            let (_, outputs) = target.shape(self.config);
            if present.contains(target) {
                let b = self.take(layer, *target, "lora_B", [outputs, rank], true);
                parts.push(LoraPart { b, columns: column..column + outputs });
            }
            column += outputs;
        }
        LoraGroup { rank, scale: self.scale, a, parts }
    }

    fn take(&mut self, layer: usize, target: Target, kind: &str, shape: [usize; 2], transposed: bool) -> Range<usize> {
        let range = self.len..self.len + shape[0] * shape[1];
        self.len = range.end;
        let name = format!("base_model.model.{}.{kind}.weight", target.path(layer));
        self.slots.insert(name, Slot { range: range.clone(), shape, transposed });
        range
    }
}
