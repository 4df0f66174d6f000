//! The memory of a rollout, laid out once: caches, the state of the rows, and the buffers of a decode step.

use super::Gpu;
use super::decoder::{CudaDecoder, KeyStore};
use super::logits::{self, Logits};
use super::matrix::Matrix;
use super::memory::{Arena, Buffer, Pinned};
use super::ops::{self, DecodeRows};
use super::pack::{DevicePack, Tokens};
use crate::device::memory::layout::{
    BlockBuffers, Cache, DecodeSpans, DecodeState, SlabMemory, SlabSize, logits_stride,
};
use crate::device::memory::{DECODE_STEPS, PREFILL_TOKENS, REPORTED};
use crate::grpo::learner::OutOfMemory;
use crate::model::pack::Pack;
use crate::rollout::{Prompt, RolloutRequest, Sampling};
use anyhow::{Result, ensure};
use half::bf16;

/// Numbers of rows for which a step is captured; a batch uses the next larger one.
const ROWS: [usize; 13] = [1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256];

pub struct Slabs {
    /// Maximum number of rows decoded together; also the number of slots for completions.
    pub rows: usize,
    pub prompt_slots: usize,
    /// Maximum completion length.
    capacity: usize,
    /// Whether the adapter is applied.
    adapted: bool,
    /// For each block.
    prompt_cache: Vec<Cache>,
    completion_cache: Vec<Cache>,
    memory: SlabMemory,
    /// Where the report is copied to.
    reported: Pinned,
}

/// The parameters of a decode step's launches; a step is captured once for each value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DecodeBatch {
    pub rows: usize,
    /// Number of key spans for which attention has blocks; see [`DecodeSpans`].
    pub spans: usize,
}

impl DecodeBatch {
    /// For this number of rows with up to `keys` keys, or slightly more of both: few sizes cover all batches.
    fn of(rows: usize, keys: usize) -> Self {
        let spans = match DecodeSpans::of(keys) {
            few @ 0..4 => few.max(1),
            some @ 4..8 => some.next_multiple_of(2),
            many => many.next_multiple_of(4),
        };
        Self { rows: ROWS.into_iter().find(|&count| count >= rows).unwrap_or(rows), spans }
    }
}

/// A row as stored on the host.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    pub slot: usize,
    pub prompt_slot: usize,
    pub prompt_len: usize,
    /// Key of the completion's random numbers.
    pub key: [u32; 2],
    /// Number of tokens sampled so far, and the last of them.
    pub count: usize,
    pub last: u32,
}

/// The tokens sampled by the rows since they were set.
pub struct DecodeReport<'a> {
    /// (rows, [`SlabMemory::REPORT`])
    words: &'a [u32],
}

impl DecodeReport<'_> {
    /// How many tokens row `row` has.
    pub fn count(&self, row: usize) -> usize {
        self.words[row * SlabMemory::REPORT] as usize
    }

    /// The tokens of row `row` from number `first` on, with their log-probabilities.
    ///
    /// # Errors
    /// If there are none, or more than a report can contain.
    pub fn tokens(&self, row: usize, first: usize) -> Result<impl Iterator<Item = (u32, f32)>> {
        let count = self.count(row);
        ensure!(
            (first + 1..=first + REPORTED).contains(&count),
            "the GPU reports {count} tokens for a row that had {first}"
        );
        let row = &self.words[row * SlabMemory::REPORT..(row + 1) * SlabMemory::REPORT];
        let (tokens, logprobs) = row[1..].split_at(REPORTED);
        Ok((first..count).map(|i| (tokens[i % REPORTED], f32::from_bits(logprobs[i % REPORTED]))))
    }
}

impl Slabs {
    /// Allocates the memory for `request` from the arena: for `max_rows` rows, or as many as fit.
    ///
    /// # Errors
    /// If not even one row fits.
    pub fn new(
        gpu: &Gpu,
        arena: &mut Arena,
        decoder: &CudaDecoder,
        adapted: bool,
        request: &RolloutRequest,
        max_rows: usize,
    ) -> Result<Self> {
        let mut rows = max_rows.min(request.prompts.len() * request.num_generations);
        loop {
            arena.clear();
            match Self::layout(gpu, arena, decoder, adapted, request, rows) {
                // Fewer rows at a time give the same tokens, but take longer.
                Err(error) if error.is::<OutOfMemory>() && rows > 1 => rows = rows * 3 / 4,
                Err(error) if error.is::<OutOfMemory>() => {
                    arena.clear();
                    let size = Self::size(request, 1);
                    let wanted = decoder.layout(adapted).rollout_bytes(size);
                    let error = anyhow::Error::from(OutOfMemory { wanted, left: arena.left() });
                    return Err(error.context(format!(
                        "not enough memory for one completion of {} tokens after a prompt of {}\n\
                         hint: lower `rollout.max_completion_length` or `rollout.max_prompt_length`",
                        size.completion, size.prompt
                    )));
                }
                slabs => return slabs,
            }
        }
    }

    fn layout(
        gpu: &Gpu,
        arena: &mut Arena,
        decoder: &CudaDecoder,
        adapted: bool,
        request: &RolloutRequest,
        rows: usize,
    ) -> Result<Self> {
        let size = Self::size(request, rows);
        let layout = decoder.layout(adapted);
        let prompt_cache = layout.caches(arena, size.prompt_slots, size.prompt)?;
        let completion_cache = layout.caches(arena, rows, size.completion)?;
        let memory = layout.slabs(arena, size)?;
        memory.stops.upload(gpu, request.stop_tokens)?;
        // A prefill of the longest prompt has to fit in addition.
        arena.reserve(layout.prefill_bytes(size.prompt))?;
        let reported = Pinned::new(gpu, memory.report.len())?;
        let (prompt_slots, capacity) = (size.prompt_slots, size.completion);
        Ok(Self { rows, prompt_slots, capacity, adapted, prompt_cache, completion_cache, memory, reported })
    }

    fn size(request: &RolloutRequest, rows: usize) -> SlabSize {
        let prompts = request.prompts;
        SlabSize {
            rows,
            prompt_slots: crate::device::memory::prompt_slots(rows, request.num_generations, prompts.len()),
            prompt: prompts.iter().map(|prompt| prompt.ids.len()).max().unwrap_or(0),
            completion: request.max_completion_length,
            stops: request.stop_tokens.len(),
        }
    }

    /// All keys and values.
    pub fn caches(&self) -> impl Iterator<Item = Buffer<bf16>> {
        self.prompt_cache.iter().chain(&self.completion_cache).flat_map(|cache| [cache.keys, cache.values])
    }

    /// Number of steps to issue before the host reads the sampled tokens: after the last of them every row has reached
    /// its maximum length, or there are [`DECODE_STEPS`].
    pub fn steps(&self, rows: &[Start]) -> usize {
        // A first token is sampled before the steps.
        let left = |row: &Start| self.capacity.saturating_sub(row.count.max(1));
        rows.iter().map(left).max().unwrap_or(0).min(DECODE_STEPS)
    }

    /// The batch for decoding `rows`, for `steps` steps.
    pub fn batch(&self, rows: &[Start], steps: usize) -> DecodeBatch {
        // The last step sees the tokens of those before it and a first one, but at most a whole completion.
        let keys = |row: &Start| row.prompt_len + (row.count.max(1) + steps).min(self.capacity);
        let batch = DecodeBatch::of(rows.len(), rows.iter().map(keys).max().unwrap_or(0));
        DecodeBatch { rows: batch.rows.min(self.rows), spans: batch.spans.min(self.memory.work.attention.spans) }
    }

    /// Runs packed prompts, and stores their keys, values and last rows in their slots.
    pub fn prefill(
        &self,
        gpu: &Gpu,
        arena: &mut Arena,
        decoder: &CudaDecoder,
        prompts: &[(usize, &Prompt)],
    ) -> Result<()> {
        let mut rest = prompts;
        while !rest.is_empty() {
            let mut total = 0;
            let mut fits = |(_, prompt): &(usize, &Prompt)| {
                total += prompt.ids.len();
                total <= PREFILL_TOKENS && decoder.layout(self.adapted).prefill_bytes(total) <= arena.left()
            };
            let count = rest.iter().take_while(|it| fits(it)).count().max(1);
            let (batch, later) = rest.split_at(count);
            self.prefill_batch(gpu, arena, decoder, batch)?;
            rest = later;
        }
        Ok(())
    }

    fn prefill_batch(
        &self,
        gpu: &Gpu,
        arena: &mut Arena,
        decoder: &CudaDecoder,
        prompts: &[(usize, &Prompt)],
    ) -> Result<()> {
        let mark = arena.mark();
        let (mut pack, mut slots, mut cells, mut last) = (Pack::default(), Vec::new(), Vec::new(), Vec::new());
        for &(slot, Prompt { ids, .. }) in prompts {
            pack.push(ids, &[]);
            slots.extend(std::iter::repeat_n(slot as i32, ids.len()));
            cells.extend(0..ids.len() as i32);
            last.push(pack.tokens.len() as i32 - 1);
        }
        let hidden_size = decoder.config.hidden_size;
        let put = |arena: &mut Arena, values: &[i32]| -> Result<Buffer<i32>> {
            let buffer = arena.take(values.len())?;
            buffer.upload(gpu, values)?;
            Ok(buffer)
        };
        let (slots, cells, last) = (put(arena, &slots)?, put(arena, &cells)?, put(arena, &last)?);
        let device_pack = DevicePack::new(gpu, arena, &pack, decoder.heads())?;
        let hidden = decoder.prefill(gpu, arena, self.adapted, &device_pack, &self.prompt_cache, slots, cells)?;
        for (i, &(slot, _)) in prompts.iter().enumerate() {
            let to = self.memory.prompt_hidden.slice(slot * hidden_size..(slot + 1) * hidden_size);
            ops::gather_rows(gpu, hidden, last.slice(i..i + 1), to, hidden_size)?;
        }
        arena.reset(mark);
        Ok(())
    }

    /// Copies the state of the rows to the device. The rest of a batch is finished rows without a slot.
    pub fn set(&self, gpu: &Gpu, rows: &[Start]) -> Result<()> {
        ensure!(rows.len() <= self.rows, "{} rows exceed the maximum of {}", rows.len(), self.rows);
        let idle = self.rows - rows.len();
        let put = |buffer: Buffer<i32>, value: fn(&Start) -> i32, rest: i32| {
            let values: Vec<i32> = rows.iter().map(value).chain(std::iter::repeat_n(rest, idle)).collect();
            buffer.upload(gpu, &values)
        };
        let DecodeState { prompt_slots, prompt_lens, slots, counts, done, positions, cells, .. } = self.memory.state;
        put(prompt_slots, |row| row.prompt_slot as i32, 0)?;
        put(prompt_lens, |row| row.prompt_len as i32, 1)?;
        put(slots, |row| row.slot as i32, -1)?;
        put(counts, |row| row.count as i32, 0)?;
        put(done, |_| 0, 1)?;
        put(positions, |row| (row.prompt_len + row.count) as i32 - 1, 0)?;
        put(cells, |row| row.count as i32 - 1, -1)?;
        let tokens: Vec<u32> = rows.iter().map(|row| row.last).chain(std::iter::repeat_n(0, idle)).collect();
        self.memory.state.tokens.upload(gpu, &tokens)?;
        let keys: Vec<u32> = rows.iter().flat_map(|row| row.key).chain(std::iter::repeat_n(0, 2 * idle)).collect();
        self.memory.state.keys.upload(gpu, &keys)
    }

    /// Samples the first token of the rows without tokens, from their prompts' last rows. Those rows are the last ones.
    pub fn draw_first(&self, gpu: &Gpu, decoder: &CudaDecoder, sampling: &Sampling, rows: &[Start]) -> Result<()> {
        let first = rows.iter().position(|row| row.count == 0).unwrap_or(rows.len());
        let new = first..rows.len();
        if new.is_empty() {
            return Ok(());
        }
        let hidden = decoder.config.hidden_size;
        let prompt_slots = self.memory.state.prompt_slots.slice(new.clone());
        ops::gather_rows(gpu, self.memory.prompt_hidden, prompt_slots, self.memory.work.pass.hidden, hidden)?;
        self.draw(gpu, decoder, sampling, new)
    }

    /// Decodes one token of each of the first rows, as many as `batch` has.
    pub fn step(&self, gpu: &Gpu, decoder: &CudaDecoder, sampling: &Sampling, batch: DecodeBatch) -> Result<()> {
        let DecodeBatch { rows, spans } = batch;
        let (heads, work, state) = (decoder.heads(), &self.memory.work, &self.memory.state);
        let slots = state.slots.slice(0..rows);
        let tokens = Tokens { ids: state.tokens.slice(0..rows).as_i32(), positions: state.positions };
        let places = DecodeRows {
            rows,
            prompt_slots: state.prompt_slots,
            prompt_lens: state.prompt_lens,
            slots,
            counts: state.counts,
        };
        let store = |i: usize| KeyStore { cache: self.completion_cache[i], slots, cells: state.cells };
        let attend = |i: usize, saved: &BlockBuffers| {
            let (prompt, own) = (self.prompt_cache[i], self.completion_cache[i]);
            let spans = DecodeSpans { spans, ..work.attention };
            ops::decode_attention(gpu, saved.qkv, prompt, own, places, spans, saved.attended, heads)
        };
        decoder.through_blocks(gpu, self.adapted, tokens, &work.pass, store, attend)?;
        self.draw(gpu, decoder, sampling, 0..rows)
    }

    /// Samples a token for the rows of `range` from their final hidden rows, which are at the start of
    /// `work.pass.hidden`.
    fn draw(&self, gpu: &Gpu, decoder: &CudaDecoder, sampling: &Sampling, range: std::ops::Range<usize>) -> Result<()> {
        let (vocab, hidden, rows) = (decoder.config.vocab_size, decoder.config.hidden_size, range.len());
        let stride = logits_stride(&decoder.config);
        let logits = Logits { buffer: self.memory.work.logits, rows, vocab, stride };
        let head = Matrix::new(decoder.frozen.head, vocab, hidden);
        let out = Matrix::new(self.memory.work.logits, rows, vocab).with_stride(stride);
        gpu.blas.product(Matrix::new(self.memory.work.pass.hidden, rows, hidden), head.t(), out)?;
        let state = &self.memory.state;
        let (tokens, logprobs) = (state.tokens.slice(range.clone()), state.logprobs.slice(range.clone()));
        let keys = state.keys.slice(2 * range.start..2 * range.end);
        let (counts, done) = (state.counts.slice(range.clone()), state.done.slice(range.clone()));
        logits::sample(gpu, logits, keys, counts, done, tokens, logprobs, sampling)?;
        ops::rollout_advance(
            gpu,
            tokens,
            logprobs,
            counts,
            done,
            state.positions.slice(range.clone()),
            state.cells.slice(range.clone()),
            self.memory.report.slice(range.start * SlabMemory::REPORT..range.end * SlabMemory::REPORT),
            self.memory.stops,
            self.capacity,
            rows,
        )
    }

    /// The sampled tokens of the first `rows` rows.
    pub fn report(&mut self, gpu: &Gpu, rows: usize) -> Result<DecodeReport<'_>> {
        Ok(DecodeReport { words: self.reported.download(gpu, self.memory.report.slice(0..rows * SlabMemory::REPORT))? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_have_few_sizes() {
        let spans = |keys| DecodeBatch::of(1, keys).spans;
        assert_eq!([0, 1, 256, 257, 768, 769, 1024].map(spans), [1, 1, 1, 2, 3, 4, 4]);
        assert_eq!([1025, 1537, 2048, 2049, 3073, 5121].map(spans), [6, 8, 8, 12, 16, 24]);
        assert_eq!([1, 3, 17, 200, 256, 300].map(|rows| DecodeBatch::of(rows, 1).rows), [1, 4, 24, 256, 256, 300]);
    }
}
