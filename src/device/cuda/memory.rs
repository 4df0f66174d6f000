//! Device memory: copies to, from and on the device, and the memory that an arena allocates.
//!
//! All work goes to one stream, in the order of the calls, so a piece can be reused as soon as the last launch that
//! uses it has been issued. That is why [`Buffer`] can be a plain pointer: it is valid as long as its arena, and
//! nothing is freed during a run.

use super::element::Element;
use super::gpu::Gpu;
use super::room::{self, Room};
use crate::device::memory::arena::PieceAllocator;
use anyhow::{Context, Result, ensure};
use cudarc::driver::{CudaContext, CudaSlice, DevicePtr, PinnedHostSlice, result};
use half::bf16;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

pub use crate::device::memory::arena::{Arena, Buffer};

impl<T: Element> Buffer<T> {
    /// Copies from the host. `values` have been read when this returns: the driver stages memory that is not pinned.
    pub fn upload(self, gpu: &Gpu, values: &[T]) -> Result<()> {
        ensure!(values.len() <= self.len, "{} values do not fit in a buffer of {}", values.len(), self.len);
        if values.is_empty() {
            return Ok(());
        }
        // SAFETY: the range was checked, and the stream belongs to the context that owns the memory.
        unsafe { result::memcpy_htod_async(self.pointer, values, gpu.stream.cu_stream()) }.context("copy to the GPU")
    }

    /// Copies to the host, after all work that was issued before.
    pub fn download(self, gpu: &Gpu) -> Result<Vec<T>> {
        let mut values = Vec::with_capacity(self.len);
        if self.is_empty() {
            return Ok(values);
        }
        gpu.bind()?;
        // SAFETY: the vector has room for `len` values, all of which are written before its length is set; `Element`s
        // have no invalid bits.
        unsafe {
            let spare = std::slice::from_raw_parts_mut(values.as_mut_ptr(), self.len);
            result::memcpy_dtoh_async(spare, self.pointer, gpu.stream.cu_stream()).context("copy from the GPU")?;
            gpu.synchronize()?;
            values.set_len(self.len);
        }
        Ok(values)
    }

    /// Copies from another buffer on the device.
    pub fn copy_from(self, gpu: &Gpu, from: Self) -> Result<()> {
        ensure!(from.len <= self.len, "{} values do not fit in a buffer of {}", from.len, self.len);
        if from.is_empty() {
            return Ok(());
        }
        // SAFETY: both ranges are in live arenas of this context.
        unsafe {
            result::memcpy_dtod_async(self.pointer, from.pointer, from.len * size_of::<T>(), gpu.stream.cu_stream())
        }
        .context("copy on the GPU")
    }

    /// Sets every byte to zero.
    pub fn zero(self, gpu: &Gpu) -> Result<()> {
        self.fill(gpu, 0)
    }

    /// Sets every byte to 0xff, which is NaN in every format, so that reading an unwritten value has a visible effect.
    pub fn poison(self, gpu: &Gpu) -> Result<()> {
        self.fill(gpu, 0xff)
    }

    fn fill(self, gpu: &Gpu, byte: u8) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        // SAFETY: the range is in a live arena of this context.
        unsafe { result::memset_d8_async(self.pointer, byte, self.len * size_of::<T>(), gpu.stream.cu_stream()) }
            .context("fill GPU memory")
    }
}

impl Buffer<u32> {
    /// The same memory, as kernels that count with `int` read it.
    pub fn as_i32(self) -> Buffer<i32> {
        Buffer { pointer: self.pointer, len: self.len, element: PhantomData }
    }
}

impl Buffer<f32> {
    /// The same memory, read as twice as many bf16.
    pub fn as_bf16(self) -> Buffer<bf16> {
        Buffer { pointer: self.pointer, len: 2 * self.len, element: PhantomData }
    }
}

/// Page-locked host memory: the GPU writes to it directly, whereas the driver copies twice to other memory.
pub struct Pinned(PinnedHostSlice<u32>);

impl Pinned {
    pub fn new(gpu: &Gpu, len: usize) -> Result<Self> {
        // SAFETY: only values that a copy has written are read. No flags: the host reads this memory, so it is not
        // write-combined.
        let memory = unsafe { gpu.stream.context().alloc_pinned_with_flags(len.max(1), 0) };
        Ok(Self(memory.with_context(|| format!("allocate {} bytes of page-locked host memory", 4 * len))?))
    }

    /// Copies from the GPU, after all work that was issued before.
    pub fn download(&mut self, gpu: &Gpu, from: Buffer<u32>) -> Result<&[u32]> {
        ensure!(from.len <= self.0.len(), "{} values do not fit in {} of the host", from.len, self.0.len());
        gpu.bind()?;
        let to = self.0.as_mut_ptr().context("wait for a copy")?;
        // SAFETY: the memory has room for `len` values and is borrowed until all of them are written.
        unsafe {
            let to = std::slice::from_raw_parts_mut(to, from.len);
            result::memcpy_dtoh_async(to, from.pointer, gpu.stream.cu_stream()).context("copy from the GPU")?;
            gpu.synchronize()?;
            Ok(to)
        }
    }
}

/// An [`Arena`] with its memory.
pub struct DeviceArena {
    arena: Arena,
    /// One allocation for everything, unless each piece has its own.
    _memory: Option<CudaSlice<u8>>,
}

/// The allocations of a guarded arena.
#[derive(Debug)]
struct Allocations {
    context: Arc<CudaContext>,
    gpu: String,
    free_at_start: usize,
    addresses: Vec<u64>,
}

impl PieceAllocator for Allocations {
    fn take(&mut self, bytes: usize) -> Result<u64> {
        self.context.bind_to_thread()?;
        // SAFETY: all memory is written before it is read, and freed once, by `clear`.
        let address = unsafe { result::malloc_sync(bytes.max(1)) };
        let address = address.map_err(|error| {
            let room = Room::of(&self.context, self.free_at_start);
            room::cannot_take(error.into(), &self.gpu, room, bytes, "a buffer")
        })?;
        self.addresses.push(address);
        Ok(address)
    }

    fn clear(&mut self) {
        // Issued work may still use them. An error here cannot be handled.
        _ = self.context.synchronize();
        for address in self.addresses.drain(..) {
            // SAFETY: allocated by `malloc_sync`, freed once, and no work is running.
            _ = unsafe { result::free_sync(address) };
        }
    }
}

impl Drop for Allocations {
    fn drop(&mut self) {
        self.clear();
    }
}

impl DeviceArena {
    /// # Errors
    /// If the device does not have enough memory left.
    pub fn new(gpu: &Gpu, bytes: usize, what: &str) -> Result<Self> {
        if gpu.guarded {
            let pieces = Allocations {
                context: gpu.stream.context().clone(),
                gpu: gpu.name.clone(),
                free_at_start: gpu.free_at_start,
                addresses: Vec::new(),
            };
            return Ok(Self { arena: Arena::guarded(bytes, Box::new(pieces)), _memory: None });
        }
        // SAFETY: all memory is written before it is read.
        let memory = unsafe { gpu.stream.alloc::<u8>(bytes.max(1)) }
            .map_err(|error| room::cannot_take(error.into(), &gpu.name, gpu.room(), bytes, what))?;
        let base = memory.device_ptr(&gpu.stream).0;
        Ok(Self { arena: Arena::at(base, bytes), _memory: Some(memory) })
    }
}

impl Deref for DeviceArena {
    type Target = Arena;

    fn deref(&self) -> &Arena {
        &self.arena
    }
}

impl DerefMut for DeviceArena {
    fn deref_mut(&mut self) -> &mut Arena {
        &mut self.arena
    }
}
