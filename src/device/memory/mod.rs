//! The layout of GPU memory. The GPU uses it with addresses, and [`plan`] without, to calculate sizes. [`cpu`] and
//! [`machine`] are for runs on the CPU.

pub mod arena;
pub mod cpu;
pub mod layout;
pub mod lora;
pub mod machine;
pub mod plan;

/// Left free for the memory that the driver uses when kernels and graphs are loaded.
pub const RESERVE: usize = 512 << 20;
/// Rows of logits in memory at once in training.
pub const LOGITS_ROWS: usize = 1_024;
/// Maximum prompt tokens per prefill.
pub const PREFILL_TOKENS: usize = 8_192;
/// Maximum number of decode steps issued at once, before the host reads the sampled tokens. A row that ends during them
/// stays idle for the rest.
pub const DECODE_STEPS: usize = 16;
/// Number of tokens of a row that the host can read at once: those of the steps, and a first one sampled before them.
pub const REPORTED: usize = DECODE_STEPS + 1;

/// Prompts in memory while `rows` completions are decoded. Twice as many as whole groups would need, because the last
/// completion of a group may be much longer than the others; never more than there are completions or prompts.
pub fn prompt_slots(rows: usize, num_generations: usize, prompts: usize) -> usize {
    (2 * rows.div_ceil(num_generations)).min(rows).min(prompts)
}
