//! Values that are copied to a device that computes in bf16.

use half::bf16;
use rayon::prelude::*;
use std::io::{self, Read};

/// Number of values that a thread rounds at a time.
const BLOCK: usize = 16 << 10;

/// Appends the next values; appends nothing at the end.
type Next<'a> = Box<dyn FnMut(&mut Vec<f32>) -> io::Result<()> + 'a>;

/// f32 values, read as little-endian bf16: each is rounded to nearest, ties to even.
pub struct Rounding<'a> {
    next: Next<'a>,
    values: Vec<f32>,
    rounded: Vec<u8>,
    /// Number of bytes of `rounded` that were read.
    read: usize,
}

impl<'a> Rounding<'a> {
    pub fn new(next: impl FnMut(&mut Vec<f32>) -> io::Result<()> + 'a) -> Self {
        Self { next: Box::new(next), values: Vec::new(), rounded: Vec::new(), read: 0 }
    }

    /// Rounds values in memory.
    pub fn of(values: Vec<f32>) -> Self {
        let mut start = 0;
        Self::new(move |next| {
            let end = (start + 64 * BLOCK).min(values.len());
            next.extend_from_slice(&values[start..end]);
            start = end;
            Ok(())
        })
    }
}

impl Read for Rounding<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.read == self.rounded.len() {
            self.values.clear();
            (self.next)(&mut self.values)?;
            self.rounded.resize(2 * self.values.len(), 0);
            self.read = 0;
            let blocks = self.rounded.par_chunks_mut(2 * BLOCK).zip(self.values.par_chunks(BLOCK));
            blocks.for_each(|(bytes, values)| {
                for (bytes, &value) in bytes.chunks_exact_mut(2).zip(values) {
                    bytes.copy_from_slice(&bf16::from_f32(value).to_le_bytes());
                }
            });
        }
        let rest = &self.rounded[self.read..];
        let len = to.len().min(rest.len());
        to[..len].copy_from_slice(&rest[..len]);
        self.read += len;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_rounded_in_order_for_any_size_of_read() {
        let values: Vec<f32> = (0..100_003).map(|i| (i as f32 - 5e4) * 1.234_567e-3).collect();
        let want: Vec<u8> = values.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()).collect();
        for len in [1, 7, 4096, 1 << 20] {
            let mut reader = Rounding::of(values.clone());
            let (mut got, mut piece) = (Vec::new(), vec![0; len]);
            loop {
                match reader.read(&mut piece).unwrap() {
                    0 => break,
                    count => got.extend_from_slice(&piece[..count]),
                }
            }
            assert!(got == want, "{len} bytes at a time");
        }
    }
}
