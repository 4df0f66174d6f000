//! How a GPU's memory is laid out. The GPU lays it out at its addresses, and [`plan`] at no address, to add it up.

pub mod arena;
pub mod layout;
pub mod lora;
pub mod plan;

/// Left free for what the driver takes as kernels and graphs are loaded.
pub const RESERVE: usize = 512 << 20;
/// Rows of logits held at once in training.
pub const LOGITS_ROWS: usize = 1_024;
/// Most prompt tokens of one prefill.
pub const PREFILL_TOKENS: usize = 8_192;
/// Most steps of decoding that are issued at once, before the host reads what they have drawn. A row that ends among them
/// stays idle for the rest.
pub const DECODE_STEPS: usize = 16;
/// Tokens of a row that the host can read at once: those of the steps, and a first one that is drawn before them.
pub const REPORTED: usize = DECODE_STEPS + 1;

/// Prompts that are held at once while `rows` branches are decoded. Twice as many as whole groups would need, as the last
/// branch of a group may outlive the rest by far; never more than there are branches or prompts.
pub fn prompt_slots(rows: usize, num_generations: usize, prompts: usize) -> usize {
    (2 * rows.div_ceil(num_generations)).min(rows).min(prompts)
}
