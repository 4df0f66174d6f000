//! LoRA on a device: the columns that adapters have next to the frozen weights and the activations.
//!
//! The layers of a group read the same input, and their weights are joined. Their adapters are joined too, in one
//! storage with the weight: [W | scale·B] above [A | unused], (outputs + p) rows of (inputs + p) values. Rows of
//! activations that a group reads, and of gradients of its output, also have p more values: for x·Aᵀ, and for
//! scale·dy·B.

use crate::model::config::ModelConfig;
use crate::model::lora::{BlockLora, Target};
use crate::ops::lora::LoraGroup;

/// Columns of a block's adapters by group: p. All of them are 0 if nothing is adapted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoraColumns {
    pub qkv: usize,
    pub o: usize,
    pub gate_up: usize,
    pub down: usize,
}

impl LoraColumns {
    pub fn of(block: &BlockLora) -> Self {
        let columns = |group: &LoraGroup| group.parts.len() * padded_rank(group.rank);
        Self {
            qkv: columns(&block.qkv),
            o: columns(&block.o),
            gate_up: columns(&block.gate_up),
            down: columns(&block.down),
        }
    }

    /// Number of values that a block's storages have in addition to the frozen weights.
    pub fn values(&self, config: &ModelConfig) -> usize {
        let beside = |columns: usize, members: &[Target]| {
            let outputs: usize = members.iter().map(|target| target.shape(config).1).sum();
            columns * (members[0].shape(config).0 + outputs + columns)
        };
        beside(self.qkv, &[Target::Q, Target::K, Target::V])
            + beside(self.o, &[Target::O])
            + beside(self.gate_up, &[Target::Gate, Target::Up])
            + beside(self.down, &[Target::Down])
    }
}

/// Columns of one adapted layer. Rows and operands of products begin at multiples of 16 bytes.
pub fn padded_rank(rank: usize) -> usize {
    rank.next_multiple_of(8)
}
