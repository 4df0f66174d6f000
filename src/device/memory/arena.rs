//! The book-keeping of device memory: typed pieces of one arena, handed out and taken back like a stack.
//!
//! Nothing here touches a device: an arena is an address and a size. The same functions that lay out memory on a GPU lay it
//! out at no address at all, which is how the plan knows what they take.

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
    /// Where each piece has memory of its own, what gives it.
    pieces: Option<Box<dyn PieceAllocator>>,
}

/// Allocations, one for each piece of an arena. A tool that watches allocations then sees what is read or written past the end
/// of a piece, which in one large allocation would be its neighbor's.
pub trait PieceAllocator: Debug {
    /// The address of `bytes` bytes, of no particular content.
    fn take(&mut self, bytes: usize) -> Result<u64>;

    /// Takes all of them back.
    fn clear(&mut self);
}

/// How far an arena is in use; see [`Arena::reset`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(usize);

impl Arena {
    /// Rows and tiles are read 16 bytes at a time, and a line of memory is 128.
    pub const ALIGNMENT: usize = 256;

    /// An arena of `size` bytes from `base` on.
    pub fn at(base: u64, size: usize) -> Self {
        Self { base, size, used: 0, peak: 0, pieces: None }
    }

    /// An arena of at most `size` bytes whose pieces are allocations of their own, kept until the arena is cleared.
    pub fn guarded(size: usize, pieces: Box<dyn PieceAllocator>) -> Self {
        Self { pieces: Some(pieces), ..Self::at(0, size) }
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
        self.check(bytes)?;
        let pointer = match &mut self.pieces {
            Some(pieces) => pieces.take(len * size_of::<T>())?,
            None => self.base + self.used as u64,
        };
        self.used += bytes;
        self.peak = self.peak.max(self.used);
        Ok(Buffer { pointer, len, element: PhantomData })
    }

    /// Checks that so many bytes fit, and counts them as used for a moment.
    ///
    /// # Errors
    /// [`OutOfMemory`] where they do not.
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

    /// Gives out the sizes asked for as addresses, three at most.
    #[derive(Debug, Default)]
    struct Three(Vec<usize>);

    impl PieceAllocator for Three {
        fn take(&mut self, bytes: usize) -> Result<u64> {
            self.0.push(bytes);
            ensure!(self.0.len() <= 3, "no fourth");
            Ok(bytes as u64)
        }

        fn clear(&mut self) {
            self.0.clear();
        }
    }

    #[test]
    fn guarded_pieces_are_allocations_of_their_own_until_the_arena_is_cleared() {
        let mut arena = Arena::guarded(4096, Box::new(Three::default()));
        // As long as what is asked for, so that its end is the allocation's.
        assert_eq!(arena.take::<f32>(5).unwrap().pointer(), 20);
        let mark = arena.mark();
        assert_eq!(arena.take::<u8>(300).unwrap().pointer(), 300);
        arena.reset(mark);
        arena.reserve(4096 - 256).unwrap();
        assert!(arena.reserve(4096 - 255).is_err());
        assert_eq!(arena.take::<u8>(1).unwrap().pointer(), 1);
        assert_eq!(arena.take::<u8>(1).unwrap_err().to_string(), "no fourth");
        arena.clear();
        assert_eq!((arena.take::<u8>(2).unwrap().pointer(), arena.used()), (2, 256));
    }
}
