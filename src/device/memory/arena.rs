//! The book-keeping of device memory: typed pieces of one arena, handed out and taken back like a stack.
//!
//! Nothing here touches a device: an arena is an address and a size. The same functions that lay out memory on a GPU lay it
//! out at no address at all, which is how the plan knows what they take.

use crate::grpo::learner::OutOfMemory;
use anyhow::{Result, ensure};
use std::marker::PhantomData;
use std::ops::Range;

/// `len` values on a device.
#[derive(Debug)]
pub struct Buffer<T> {
    pub(crate) pointer: u64,
    pub(crate) len: usize,
    pub(crate) element: PhantomData<T>,
}

impl<T> Clone for Buffer<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Buffer<T> {}

impl<T> Buffer<T> {
    /// A null pointer, for an operand that a kernel does not need.
    pub const NULL: Self = Self { pointer: 0, len: 0, element: PhantomData };

    pub fn len(self) -> usize {
        self.len
    }

    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// The address, as kernels take it.
    pub fn pointer(self) -> u64 {
        self.pointer
    }

    /// A part of it.
    ///
    /// # Panics
    /// When the range goes past its end.
    pub fn slice(self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {} values", self.len);
        let pointer = self.pointer + (range.start * size_of::<T>()) as u64;
        Self { pointer, len: range.len(), element: PhantomData }
    }
}

/// Memory that is handed out from its start to its end.
#[derive(Debug)]
pub struct Arena {
    base: u64,
    size: usize,
    used: usize,
    /// The most that was ever in use, for the plan to be held against.
    peak: usize,
}

/// How far an arena is in use; see [`Arena::reset`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(usize);

impl Arena {
    /// Rows and tiles are read 16 bytes at a time, and a line of memory is 128.
    pub const ALIGNMENT: usize = 256;

    /// An arena of `size` bytes from `base` on.
    pub fn at(base: u64, size: usize) -> Self {
        Self { base, size, used: 0, peak: 0 }
    }

    /// An arena without memory, which never ends: for what is laid out in it to be added up.
    pub fn endless() -> Self {
        Self::at(0, usize::MAX / 2)
    }

    /// `len` values, of no particular content.
    ///
    /// # Errors
    /// [`OutOfMemory`] where they do not fit.
    pub fn take<T>(&mut self, len: usize) -> Result<Buffer<T>> {
        let bytes = padded(len * size_of::<T>());
        ensure!(bytes <= self.size - self.used, OutOfMemory { wanted: bytes, left: self.size - self.used });
        let pointer = self.base + self.used as u64;
        self.used += bytes;
        self.peak = self.peak.max(self.used);
        Ok(Buffer { pointer, len, element: PhantomData })
    }

    /// Takes so many bytes and gives them back: they fit.
    ///
    /// # Errors
    /// [`OutOfMemory`] where they do not.
    pub fn reserve(&mut self, bytes: usize) -> Result<()> {
        let mark = self.mark();
        self.take::<u8>(bytes)?;
        self.reset(mark);
        Ok(())
    }

    /// Hands out `bytes` at most from now on, as if the device were smaller.
    pub fn limit(&mut self, bytes: usize) {
        self.size = self.size.min(bytes);
    }

    pub fn mark(&self) -> Mark {
        Mark(self.used)
    }

    /// Takes back all that was handed out since `mark`; or goes forward again to a mark that lies behind it.
    pub fn reset(&mut self, mark: Mark) {
        self.used = mark.0;
    }

    /// Takes back everything.
    pub fn clear(&mut self) {
        self.used = 0;
    }

    /// Bytes that are not in use.
    pub fn left(&self) -> usize {
        self.size - self.used
    }

    pub fn used(&self) -> usize {
        self.used
    }

    pub fn peak(&self) -> usize {
        self.peak
    }
}

/// What an arena gives for so many bytes.
pub fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(Arena::ALIGNMENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_follow_each_other_and_are_taken_back() {
        let mut arena = Arena::at(4096, 1024);
        let first = arena.take::<f32>(3).unwrap();
        let mark = arena.mark();
        let second = arena.take::<u8>(257).unwrap();
        assert_eq!((first.pointer(), second.pointer(), arena.left()), (4096, 4096 + 256, 256));
        assert_eq!(first.slice(1..3).pointer(), 4100);
        let error = arena.take::<u8>(300).unwrap_err();
        let OutOfMemory { wanted, left } = error.downcast().unwrap();
        assert_eq!((wanted, left), (512, 256));
        arena.reset(mark);
        assert_eq!(arena.take::<u8>(1).unwrap().pointer(), second.pointer());
        arena.reserve(512).unwrap();
        assert!(arena.reserve(513).is_err());
        arena.clear();
        assert_eq!((arena.used(), arena.peak()), (0, 1024));
        arena.limit(256);
        assert!(arena.take::<u8>(257).is_err());
    }
}
