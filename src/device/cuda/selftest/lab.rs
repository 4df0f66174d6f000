//! The environment of a case: memory, random values, and comparisons.

use crate::device::cuda::Gpu;
use crate::device::cuda::element::Element;
use crate::device::cuda::memory::{Buffer, DeviceArena};
use crate::device::memory::layout::StridedRows;
use crate::rng::{Purpose, Stream, name_hash};
use anyhow::Result;
use half::bf16;
use std::rc::Rc;

/// How many times further from the f32 reference a result may be than the reference with the GPU's rounding.
pub const MARGIN: f64 = 3.0;
/// Bound for f32 results: sums in another order, and exponentials with an error of up to about 20 units in the last
/// place.
pub const F32: f64 = 1e-5;

/// Memory for a case.
const ARENA: usize = 512 << 20;
/// How much of the free memory is filled with NaN before an operation allocates scratch memory, which is less.
const SCRATCH: usize = 32 << 20;

/// The result of a check.
pub struct CheckOutcome {
    pub name: String,
    /// Norm of the difference divided by the norm of the reference, or the number that the name describes.
    pub error: f64,
    pub bar: f64,
    /// The reason, if the check could not be done.
    pub failure: Option<String>,
}

impl CheckOutcome {
    /// NaN is not below any bound.
    pub fn ok(&self) -> bool {
        self.failure.is_none() && self.error <= self.bar
    }
}

/// The CPU's results: in f32, and rounded to bf16 where the GPU rounds. The distance between the two is the error that
/// a GPU without faults may have.
#[derive(Clone)]
pub struct Twin {
    pub exact: Vec<f32>,
    pub rounded: Vec<f32>,
}

impl Twin {
    /// A result that is rounded once, when it is stored.
    pub fn stored(exact: &[f32]) -> Self {
        Self { exact: exact.to_vec(), rounded: exact.to_vec() }.when_stored()
    }

    /// The same after the last rounding, which stores the result.
    pub fn when_stored(mut self) -> Self {
        self.rounded.iter_mut().for_each(|value| *value = rounded(*value));
        self
    }

    /// Maximum distance of a result from the f32 reference.
    pub fn bar(&self) -> f64 {
        (MARGIN * distance(&self.rounded, &self.exact)).max(F32)
    }
}

pub struct Lab<'a> {
    pub gpu: Rc<Gpu>,
    pub arena: DeviceArena,
    group: &'static str,
    case: String,
    seed: u64,
    drawn: u64,
    tell: &'a mut dyn FnMut(&CheckOutcome),
}

impl<'a> Lab<'a> {
    pub fn new(gpu: Rc<Gpu>, group: &'static str, seed: u64, tell: &'a mut dyn FnMut(&CheckOutcome)) -> Result<Self> {
        let arena = DeviceArena::new(&gpu, ARENA, "the checks")?;
        Ok(Self { gpu, arena, group, case: String::new(), seed, drawn: 0, tell })
    }

    /// Starts a case, whose random values depend only on the seed, the group and its name.
    pub fn begin(&mut self, case: &str) {
        self.arena.clear();
        case.clone_into(&mut self.case);
        self.drawn = 0;
    }

    /// A separate stream for each call.
    pub fn stream(&mut self) -> Stream {
        self.drawn += 1;
        Stream::new(self.seed, Purpose::Test, &[name_hash(self.group), name_hash(&self.case), self.drawn])
    }

    /// Normal values that bf16 can hold.
    pub fn normals(&mut self, len: usize, deviation: f64) -> Vec<f32> {
        let stream = self.stream();
        (0..len as u64).map(|i| rounded((deviation * stream.normal(i)) as f32)).collect()
    }

    /// Integers below `bound`.
    pub fn below(&mut self, len: usize, bound: usize) -> Vec<u32> {
        let stream = self.stream();
        (0..len as u64).map(|i| stream.below(i, bound as u64) as u32).collect()
    }

    pub fn bf16(&mut self, values: &[f32]) -> Result<Buffer<bf16>> {
        let values: Vec<bf16> = values.iter().map(|&value| bf16::from_f32(value)).collect();
        self.put(&values)
    }

    /// Rows of `width` values, with NaN in the `columns` after each.
    pub fn rows(&mut self, values: &[f32], width: usize, columns: usize) -> Result<StridedRows> {
        let behind = vec![f32::NAN; columns];
        let wide: Vec<f32> = values.chunks(width).flat_map(|row| row.iter().chain(&behind)).copied().collect();
        Ok(StridedRows { buffer: self.bf16(&wide)?, stride: width + columns })
    }

    /// The first `width` values of each row.
    pub fn read_rows(&self, rows: StridedRows, width: usize) -> Result<Vec<f32>> {
        let wide = self.read(rows.buffer)?;
        Ok(wide.chunks(rows.stride).flat_map(|row| &row[..width]).copied().collect())
    }

    pub fn put<T: Element>(&mut self, values: &[T]) -> Result<Buffer<T>> {
        let buffer = self.arena.take(values.len())?;
        buffer.upload(&self.gpu, values)?;
        Ok(buffer)
    }

    pub fn int(&mut self, values: &[u32]) -> Result<Buffer<i32>> {
        self.put(&values.iter().map(|&value| value as i32).collect::<Vec<_>>())
    }

    /// Memory filled with NaN.
    pub fn poisoned<T: Element>(&mut self, len: usize) -> Result<Buffer<T>> {
        let buffer = self.arena.take(len)?;
        buffer.poison(&self.gpu)?;
        Ok(buffer)
    }

    /// Fills the next memory of the arena with NaN.
    pub fn poison_scratch(&mut self) -> Result<()> {
        let mark = self.arena.mark();
        let left = self.arena.left().min(SCRATCH);
        self.arena.take::<u8>(left)?.poison(&self.gpu)?;
        self.arena.reset(mark);
        Ok(())
    }

    pub fn read(&self, buffer: Buffer<bf16>) -> Result<Vec<f32>> {
        Ok(buffer.download(&self.gpu)?.into_iter().map(bf16::to_f32).collect())
    }

    /// A result that was rounded several times.
    pub fn near(&mut self, what: &str, got: &[f32], twin: &Twin) {
        self.value(what, distance(got, &twin.exact), twin.bar());
    }

    /// The bf16 result of one operation, which computes in f32 and rounds its output.
    pub fn stored(&mut self, what: &str, got: Buffer<bf16>, want: &[f32]) -> Result<()> {
        let got = self.read(got)?;
        self.near(what, &got, &Twin::stored(want));
        Ok(())
    }

    /// An f32 result.
    pub fn close(&mut self, what: &str, got: Buffer<f32>, want: &[f32]) -> Result<()> {
        let got = got.download(&self.gpu)?;
        self.value(what, distance(&got, want), F32);
        Ok(())
    }

    /// Values that must be equal.
    pub fn same(&mut self, what: &str, got: &[f32], want: &[f32]) {
        self.value(what, distance(got, want), 0.0);
    }

    /// A number that should not exceed `bar`.
    pub fn value(&mut self, what: &str, error: f64, bar: f64) {
        self.tell(what, error, bar, None);
    }

    /// A check that something holds.
    pub fn holds(&mut self, what: &str, is_so: bool) {
        self.value(what, if is_so { 0.0 } else { 1.0 }, 0.0);
    }

    pub fn failed(&mut self, why: String) {
        self.tell("not finished", f64::NAN, 0.0, Some(why));
    }

    fn tell(&mut self, what: &str, error: f64, bar: f64, failure: Option<String>) {
        let name = [self.group, &self.case, what].iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>();
        (self.tell)(&CheckOutcome { name: name.join(": "), error, bar, failure });
    }
}

/// The nearest value that bf16 can hold.
pub fn rounded(value: f32) -> f32 {
    bf16::from_f32(value).to_f32()
}

/// ‖got - want‖ / ‖want‖; NaN if anything is not finite or the lengths differ.
pub fn distance(got: &[f32], want: &[f32]) -> f64 {
    if got.len() != want.len() {
        return f64::NAN;
    }
    let square = |x: f64| x * x;
    let difference: f64 = got.iter().zip(want).map(|(&a, &b)| square(f64::from(a) - f64::from(b))).sum();
    let reference: f64 = want.iter().map(|&b| square(f64::from(b))).sum();
    // Two zero vectors do not differ.
    if difference == 0.0 { 0.0 } else { (difference / reference).sqrt() }
}
