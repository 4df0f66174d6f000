//! The bookkeeping of device memory: typed pieces of one arena, allocated and freed like a stack.
//!
//! Nothing here uses a device: an arena is an address and a size. The functions that lay out memory on a GPU can also
//! lay it out without an address, which is how the plan calculates its size.

use crate::grpo::learner::OutOfMemory;
use anyhow::{Result, ensure};
use std::fmt::Debug;
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

    /// The address, as kernels receive it.
    pub fn pointer(self) -> u64 {
        self.pointer
    }

    /// A part of it.
    ///
    /// # Panics
    /// If the range exceeds its end.
    pub fn slice(self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {} values", self.len);
        let pointer = self.pointer + (range.start * size_of::<T>()) as u64;
        Self { pointer, len: range.len(), element: PhantomData }
    }
}

/// Memory that is allocated from its start to its end.
#[derive(Debug)]
pub struct Arena {
    base: u64,
    size: usize,
    used: usize,
    /// Peak of the memory in use, which is compared with the plan.
    peak: usize,
    /// The allocator of separate pieces, if each piece is an allocation.
    pieces: Option<Box<dyn PieceAllocator>>,
}

/// Separate allocations, one for each piece of an arena. A tool that watches allocations can then detect reads and
/// writes past the end of a piece; in one large allocation they would be in the next piece.
pub trait PieceAllocator: Debug {
    /// The address of `bytes` bytes with undefined contents.
    fn take(&mut self, bytes: usize) -> Result<u64>;

    /// Frees all of them.
    fn clear(&mut self);
}

/// A position up to which an arena is in use; see [`Arena::reset`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(usize);

impl Arena {
    /// Rows and tiles are read 16 bytes at a time, and a cache line is 128 bytes.
    pub const ALIGNMENT: usize = 256;

    /// An arena of `size` bytes, starting at `base`.
    pub fn at(base: u64, size: usize) -> Self {
        Self { base, size, used: 0, peak: 0, pieces: None }
    }

    /// An arena of at most `size` bytes whose pieces are separate allocations, kept until the arena is cleared.
    pub fn guarded(size: usize, pieces: Box<dyn PieceAllocator>) -> Self {
        Self { pieces: Some(pieces), ..Self::at(0, size) }
    }

    /// An unlimited arena without memory, to calculate the size of what is laid out in it.
    pub fn endless() -> Self {
        Self::at(0, usize::MAX / 2)
    }

    /// `len` values with undefined contents.
    ///
    /// # Errors
    /// [`OutOfMemory`] if they do not fit.
    pub fn take<T>(&mut self, len: usize) -> Result<Buffer<T>> {
        let bytes = padded(len * size_of::<T>());
        self.check(bytes)?;
        let pointer = match &mut self.pieces {
            Some(pieces) => pieces.take(len * size_of::<T>())?,
            None => self.base + self.used as u64,
        };
        self.used += bytes;
        self.peak = self.peak.max(self.used);
        Ok(Buffer { pointer, len, element: PhantomData })
    }

    /// Checks that this many bytes fit, and counts them in the peak.
    ///
    /// # Errors
    /// [`OutOfMemory`] if they do not fit.
    pub fn reserve(&mut self, bytes: usize) -> Result<()> {
        let bytes = padded(bytes);
        self.check(bytes)?;
        self.peak = self.peak.max(self.used + bytes);
        Ok(())
    }

    fn check(&self, bytes: usize) -> Result<()> {
        ensure!(bytes <= self.left(), OutOfMemory { wanted: bytes, left: self.left() });
        Ok(())
    }

    /// Allocates at most `bytes` bytes from now on, as if the device were smaller.
    pub fn limit(&mut self, bytes: usize) {
        self.size = self.size.min(bytes);
    }

    pub fn mark(&self) -> Mark {
        Mark(self.used)
    }

    /// Frees everything allocated since `mark`; or moves forward again to a mark after the current position.
    pub fn reset(&mut self, mark: Mark) {
        self.used = mark.0;
    }

    /// Frees everything.
    pub fn clear(&mut self) {
        if let Some(pieces) = &mut self.pieces {
            pieces.clear();
        }
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

/// The number of bytes that an arena allocates for a request.
pub fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(Arena::ALIGNMENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_consecutive_and_can_be_freed() {
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

    /// Returns the requested sizes as addresses, three at most.
    #[derive(Debug, Default)]
    struct Three(Vec<usize>);

    impl PieceAllocator for Three {
        fn take(&mut self, bytes: usize) -> Result<u64> {
            self.0.push(bytes);
            ensure!(self.0.len() <= 3, "no fourth allocation");
            Ok(bytes as u64)
        }

        fn clear(&mut self) {
            self.0.clear();
        }
    }

    #[test]
    fn guarded_pieces_are_separate_allocations_until_the_arena_is_cleared() {
        let mut arena = Arena::guarded(4096, Box::new(Three::default()));
        // Exactly the requested length, so that its end is the allocation's.
        assert_eq!(arena.take::<f32>(5).unwrap().pointer(), 20);
        let mark = arena.mark();
        assert_eq!(arena.take::<u8>(300).unwrap().pointer(), 300);
        arena.reset(mark);
        arena.reserve(4096 - 256).unwrap();
        assert!(arena.reserve(4096 - 255).is_err());
        assert_eq!(arena.take::<u8>(1).unwrap().pointer(), 1);
        assert_eq!(arena.take::<u8>(1).unwrap_err().to_string(), "no fourth allocation");
        arena.clear();
        assert_eq!((arena.take::<u8>(2).unwrap().pointer(), arena.used()), (2, 256));
    }
}
