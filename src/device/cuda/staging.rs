//! Copies weights from a file to the device, through two pieces of pinned host memory: one is filled while the other is
//! copied. The host needs no other memory, for tensors of any size.

use super::Gpu;
use super::memory::Buffer;
use anyhow::{Context, Result, ensure};
use cudarc::driver::{CudaContext, CudaEvent, result};
use half::bf16;
use std::io::Read;
use std::sync::Arc;

/// Bytes of a piece.
const PIECE: usize = 16 << 20;

pub struct Staging {
    pieces: [StagingPiece; 2],
    /// The piece that is filled next.
    next: usize,
}

/// Pinned memory, and the last copy from it.
struct StagingPiece {
    memory: *mut u8,
    copied: Option<CudaEvent>,
    context: Arc<CudaContext>,
}

impl Staging {
    pub fn new(gpu: &Gpu) -> Result<Self> {
        Ok(Self { pieces: [StagingPiece::new(gpu)?, StagingPiece::new(gpu)?], next: 0 })
    }

    /// Copies `rows` rows of `width` bf16 values from `reader` to the start of `to`, where a row begins every `stride`
    /// values. The values between two rows become zero. Returns the number of values that are NaN or infinite.
    pub fn copy_rows(
        &mut self,
        gpu: &Gpu,
        reader: &mut dyn Read,
        rows: usize,
        width: usize,
        to: Buffer<bf16>,
        stride: usize,
    ) -> Result<usize> {
        let most = PIECE / size_of::<bf16>();
        ensure!(rows * width == 0 || (rows - 1) * stride + width <= to.len(), "a tensor does not fit in its buffer");
        // Without gaps the bytes are copied unchanged, and a piece may end within a row.
        let (rows, width, stride) = if stride == width { (rows * width, 1, 1) } else { (rows, width, stride) };
        ensure!((width..=most).contains(&stride), "rows of {width} values do not fit a stride of {stride} values");
        let (mut odd, mut row) = (0, 0);
        while row < rows {
            let count = (most / stride).min(rows - row);
            let piece = &mut self.pieces[self.next];
            self.next = 1 - self.next;
            let bytes = piece.free()?;
            let packed = &mut bytes[..2 * count * width];
            reader.read_exact(packed)?;
            odd += not_finite(packed);
            if stride > width {
                spread(bytes, count, 2 * width, 2 * stride);
            }
            // The last row may end with its buffer.
            let start = row * stride;
            piece.copy(gpu, to.slice(start..(start + count * stride).min(to.len())))?;
            row += count;
        }
        Ok(odd)
    }
}

/// Moves `rows` rows of `width` bytes so that they begin every `stride` bytes, with zeros in between.
fn spread(bytes: &mut [u8], rows: usize, width: usize, stride: usize) {
    for row in (0..rows).rev() {
        bytes.copy_within(row * width..(row + 1) * width, row * stride);
        bytes[row * stride + width..(row + 1) * stride].fill(0);
    }
}

/// How many of these bf16 values, little-endian, are NaN or infinite: all bits of the exponent are set.
fn not_finite(bytes: &[u8]) -> usize {
    const EXPONENT: u16 = 0x7f80;
    let values = bytes.chunks_exact(2).map(|value| u16::from_le_bytes([value[0], value[1]]));
    values.filter(|value| value & EXPONENT == EXPONENT).count()
}

impl StagingPiece {
    fn new(gpu: &Gpu) -> Result<Self> {
        gpu.bind()?;
        // SAFETY: the memory is freed once, when the piece is dropped.
        let memory = unsafe { result::malloc_host(PIECE, 0) }.context("allocate pinned host memory for the weights")?;
        // SAFETY: these `PIECE` bytes are not shared; only bytes that have been written are read.
        unsafe { memory.cast::<u8>().write_bytes(0, PIECE) };
        Ok(Self { memory: memory.cast(), copied: None, context: gpu.stream.context().clone() })
    }

    /// The memory, after the last copy from it is done.
    fn free(&mut self) -> Result<&mut [u8]> {
        if let Some(copied) = self.copied.take() {
            copied.synchronize().context("wait for a copy to the GPU")?;
        }
        // SAFETY: `PIECE` bytes that were written, and no copy from them is running.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.memory, PIECE) })
    }

    /// Starts the copy of the first values to `to`.
    fn copy(&mut self, gpu: &Gpu, to: Buffer<bf16>) -> Result<()> {
        let bytes = to.len() * size_of::<bf16>();
        assert!(bytes <= PIECE, "{bytes} bytes exceed a piece");
        // SAFETY: the piece has this many bytes, and is neither written nor freed before the event that is recorded
        // below.
        unsafe {
            let values = std::slice::from_raw_parts(self.memory, bytes);
            result::memcpy_htod_async(to.pointer(), values, gpu.stream.cu_stream()).context("copy to the GPU")?;
        }
        self.copied = Some(gpu.stream.record_event(None)?);
        Ok(())
    }
}

impl Drop for StagingPiece {
    fn drop(&mut self) {
        // An error here cannot be handled.
        _ = self.free();
        _ = self.context.bind_to_thread();
        // SAFETY: allocated by `malloc_host`, freed once, and no copy from it is running.
        _ = unsafe { result::free_host(self.memory.cast()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_moved_apart() {
        let mut bytes: Vec<u8> = (1..=9).chain([77; 6]).collect();
        spread(&mut bytes, 3, 3, 5);
        assert_eq!(bytes, [1, 2, 3, 0, 0, 4, 5, 6, 0, 0, 7, 8, 9, 0, 0]);
    }

    #[test]
    fn nan_and_infinity_are_counted() {
        let values = [0.0, 1.0, f32::NAN, f32::MAX, -f32::INFINITY, f32::MIN_POSITIVE, -3e38];
        let bytes: Vec<u8> = values.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()).collect();
        // The largest f32 is rounded to infinity.
        assert_eq!(not_finite(&bytes), 3);
    }
}
