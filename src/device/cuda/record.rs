//! A GPU that issues nothing: it records what would be issued, so that the work of a step can be counted without a driver.
//!
//! Addresses are made up. The functions that launch are the same as on a real GPU, and so are their checks.
//! Bytes count each operand once, as if every later access came from a cache.

use super::element::Element;
use crate::device::memory::arena::{Buffer, padded};
use anyhow::{Context, Result, ensure};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;

/// Bytes of the memory that a recorded GPU seems to have: more than anything takes.
pub const MEMORY: usize = 1 << 45;
/// Where its addresses begin.
const FIRST_ADDRESS: u64 = 1 << 46;

/// Something that was issued.
#[derive(Clone, Debug, PartialEq)]
pub enum Issued {
    Launch(Launch),
    Product(Product),
    Copy(Copy),
}

/// A launch of a kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    pub kernel: &'static str,
    pub blocks: [usize; 3],
    pub threads: usize,
    /// Blocks that find nothing to do and end at once.
    pub idle_blocks: usize,
    /// Bytes.
    pub read: usize,
    pub written: usize,
    /// Operations on tensor cores; those of kernels without them are not counted.
    pub flops: f64,
}

/// A product (m, k) · (k, n).
#[derive(Clone, Debug, PartialEq)]
pub struct Product {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub transposed: [bool; 2],
    /// Whether the output is added to.
    pub adds: bool,
    pub f32_out: bool,
}

impl Product {
    /// Both operands and the output, which is read too where it is added to.
    pub fn bytes(&self) -> usize {
        let out = if self.f32_out { 4 } else { 2 };
        2 * (self.m * self.k + self.k * self.n) + self.m * self.n * out * if self.adds { 2 } else { 1 }
    }

    pub fn flops(&self) -> f64 {
        2.0 * self.m as f64 * self.n as f64 * self.k as f64
    }
}

/// Sizes, which operands are transposed, the type of the output, and whether it is added to.
impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { m, n, k, transposed, adds, f32_out } = self;
        let [first, second] = transposed.map(|it| if it { 't' } else { 'n' });
        let (kind, sign) = (if *f32_out { "f32" } else { "bf16" }, if *adds { " +=" } else { "" });
        write!(f, "{m}x{n}x{k} {first}{second} {kind}{sign}")
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Copy {
    pub kind: CopyKind,
    pub bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CopyKind {
    /// To the device.
    Up,
    /// To the host.
    Down,
    /// On the device.
    Across,
    /// Bytes set to one value.
    Fill,
}

/// The work that was issued, in order.
pub struct Recorder {
    issued: RefCell<Vec<Issued>>,
    next_address: Cell<u64>,
    /// Integers that were uploaded, by address: the work of some kernels depends on them.
    uploaded: RefCell<BTreeMap<u64, Vec<i32>>>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { issued: RefCell::default(), next_address: Cell::new(FIRST_ADDRESS), uploaded: RefCell::default() }
    }
}

impl Recorder {
    /// An address for `bytes` bytes that no other piece has.
    pub fn take(&self, bytes: usize) -> u64 {
        let address = self.next_address.get();
        self.next_address.set(address + padded(bytes) as u64);
        address
    }

    /// What was issued since the last call.
    pub fn drain(&self) -> Vec<Issued> {
        self.issued.take()
    }

    pub(super) fn launch(&self, launch: Launch) {
        self.issued.borrow_mut().push(Issued::Launch(launch));
    }

    /// Adds what cannot be derived from the arguments to the launch that was recorded last.
    pub(super) fn complete(&self, flops: f64, idle_blocks: usize) {
        if let Some(Issued::Launch(launch)) = self.issued.borrow_mut().last_mut() {
            launch.flops = flops;
            launch.idle_blocks = idle_blocks;
        }
    }

    pub(super) fn product(&self, product: Product) {
        self.issued.borrow_mut().push(Issued::Product(product));
    }

    pub(super) fn copy(&self, kind: CopyKind, bytes: usize) {
        self.issued.borrow_mut().push(Issued::Copy(Copy { kind, bytes }));
    }

    /// Records an upload, and keeps the values if they are integers.
    pub(super) fn upload<T: Element>(&self, to: Buffer<T>, values: &[T]) {
        self.copy(CopyKind::Up, size_of_val(values));
        if let Some(values) = T::integers(values) {
            self.uploaded.borrow_mut().insert(to.pointer(), values.to_vec());
        }
    }

    /// The first `len` integers of a buffer, as they were uploaded.
    pub(super) fn integers(&self, of: Buffer<i32>, len: usize) -> Result<Vec<i32>> {
        let uploaded = self.uploaded.borrow();
        let values = uploaded.get(&of.pointer()).context("record a launch whose lengths were not uploaded")?;
        ensure!(len <= values.len(), "record a launch: {} lengths were uploaded, expected {len}", values.len());
        Ok(values[..len].to_vec())
    }
}
