//! Matrix products by cuBLASLt: bf16 in, f32 sums, bf16 or f32 out.
//!
//! cuBLASLt works on column-major matrices, and a row-major matrix is its own transpose in column-major order. So
//! C = A · B in rows is asked for as Cᵀ = Bᵀ · Aᵀ, with the operands swapped.

use super::choices::Choices;
use super::memory::{Buffer, Element};
use anyhow::{Context, Result, ensure};
use cudarc::cublaslt::{result, sys};
use cudarc::driver::sys::CUevent_flags;
use cudarc::driver::{CudaSlice, CudaStream, DevicePtr};
use half::bf16;
use std::cell::RefCell;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::c_void;
use std::fmt;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Scratch memory for algorithms that split the sum; what NVIDIA advises for Hopper.
const WORKSPACE: usize = 32 << 20;
/// Algorithms that are measured for a shape, how often each, and the share of the first one's time that another has to stay
/// below.
const CANDIDATES: usize = 8;
const REPETITIONS: usize = 5;
const MARGIN: f32 = 0.98;

/// An element type of an output.
pub trait Output: Element {
    const TYPE: sys::cudaDataType;
}

impl Output for bf16 {
    const TYPE: sys::cudaDataType = sys::cudaDataType_t::CUDA_R_16BF;
}

impl Output for f32 {
    const TYPE: sys::cudaDataType = sys::cudaDataType_t::CUDA_R_32F;
}

/// A row-major matrix whose rows may lie in wider ones.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<T> {
    pub buffer: Buffer<T>,
    pub rows: usize,
    pub columns: usize,
    /// Values from the start of one row to the next.
    pub stride: usize,
    transposed: bool,
}

impl<T: Element> Matrix<T> {
    pub fn new(buffer: Buffer<T>, rows: usize, columns: usize) -> Self {
        Self { buffer, rows, columns, stride: columns, transposed: false }
    }

    /// The same with rows that lie `stride` values apart.
    pub fn with_stride(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    /// The matrix read with rows and columns swapped; nothing is moved.
    pub fn t(self) -> Self {
        Self { rows: self.columns, columns: self.rows, transposed: !self.transposed, ..self }
    }

    /// Values that the buffer must have.
    fn reach(&self) -> usize {
        let (lines, width) = if self.transposed { (self.columns, self.rows) } else { (self.rows, self.columns) };
        if lines == 0 { 0 } else { (lines - 1) * self.stride + width }
    }
}

/// What distinguishes one product from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shape {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    strides: [usize; 3],
    transposed: [bool; 2],
    accumulate: bool,
    f32_out: bool,
}

/// As it is called in a file of choices: (m, k) · (k, n), which operands are transposed, and the strides of all three.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { m, n, k, strides: [a, b, c], transposed, accumulate, f32_out } = *self;
        let [first, second] = transposed.map(|it| if it { 't' } else { 'n' });
        let (kind, sign) = (if f32_out { "f32" } else { "bf16" }, if accumulate { "+=" } else { "=" });
        write!(f, "{m}x{n}x{k} {first}{second} {sign} {kind}, strides {a} {b} {c}")
    }
}

impl Shape {
    /// The shape that an algorithm is chosen for: the same with the number of rows rounded up to 2ⁱ or 3 · 2ⁱ, so that the rows of
    /// micro-batches, which are any number, do not need a choice each.
    fn class(self) -> Self {
        let power = self.m.next_power_of_two();
        let rows = if power >= 4 && self.m <= power / 4 * 3 { power / 4 * 3 } else { power };
        // The rows of a transposed operand are its stride.
        if self.transposed[0] { self } else { Self { m: rows, ..self } }
    }

    /// Values of the two operands and of the output, as they lie in memory.
    pub fn reach(&self) -> [usize; 3] {
        let matrix = |rows, columns, i: usize, transposed| {
            let whole = Matrix::<u8>::new(Buffer::NULL, rows, columns).with_stride(self.strides[i]);
            Matrix { transposed, ..whole }.reach()
        };
        let [first, second] = self.transposed;
        [matrix(self.m, self.k, 0, first), matrix(self.k, self.n, 1, second), matrix(self.m, self.n, 2, false)]
    }
}

/// A product as cuBLASLt describes it: the operation, and the layouts of its first and second operand and its output.
struct Description {
    product: sys::cublasLtMatmulDesc_t,
    layouts: [sys::cublasLtMatrixLayout_t; 3],
}

/// A product with the algorithm chosen for it.
struct Prepared {
    description: Description,
    algorithm: sys::cublasLtMatmulAlgo_t,
}

/// cuBLASLt with its scratch memory and the algorithms chosen so far.
pub struct Blas {
    handle: sys::cublasLtHandle_t,
    stream: Arc<CudaStream>,
    workspace: CudaSlice<u8>,
    choices: RefCell<Choices>,
    prepared: RefCell<BTreeMap<Shape, Prepared>>,
}

/// Whether there is a cuBLASLt to load.
#[cfg(feature = "load-cuda")]
pub fn library_is_present() -> bool {
    // SAFETY: this opens the library and nothing else.
    unsafe { sys::is_culib_present() }
}

/// A binary that links to cuBLASLt does not start without it.
#[cfg(not(feature = "load-cuda"))]
pub fn library_is_present() -> bool {
    true
}

impl Blas {
    /// For the GPU that is called `gpu`.
    pub fn new(stream: Arc<CudaStream>, gpu: &str) -> Result<Self> {
        ensure!(library_is_present(), "cuBLASLt was not found\nhint: `rft doctor` names the package that brings it");
        let handle = result::create_handle().context("start cuBLASLt")?;
        // SAFETY: the library is loaded, and the call takes nothing.
        let version = unsafe { sys::cublasLtGetVersion() };
        let choices = Choices::tuned(format!("{gpu}, cuBLASLt {version}"))?;
        // SAFETY: only cuBLASLt reads and writes it.
        let workspace = unsafe { stream.alloc::<u8>(WORKSPACE) }.context("take memory for cuBLASLt")?;
        Ok(Self { handle, stream, workspace, choices: RefCell::new(choices), prepared: RefCell::default() })
    }

    /// What choices are for: the GPU's name and the library's version.
    pub fn setup(&self) -> String {
        self.choices.borrow().setup().to_owned()
    }

    /// Works with these choices from now on.
    pub fn set_choices(&self, choices: Choices) {
        self.choices.replace(choices);
        self.prepared.take();
    }

    /// Works with the choices in a file and adds new ones to it; see [`Choices::keep_in`].
    pub fn keep_choices(&self, path: &Path) -> Result<Option<String>> {
        self.prepared.take();
        self.choices.borrow_mut().keep_in(path)
    }

    /// The shapes of all products so far that algorithms are chosen for.
    pub fn shapes(&self) -> BTreeSet<Shape> {
        self.prepared.borrow().keys().map(|shape| shape.class()).collect()
    }

    /// `c = a · b`, or `c += a · b` where `accumulate`: (m, k) · (k, n) -> (m, n).
    pub fn product<T: Output>(&self, a: Matrix<bf16>, b: Matrix<bf16>, c: Matrix<T>, accumulate: bool) -> Result<()> {
        let (m, n, k) = (c.rows, c.columns, a.columns);
        if m == 0 || n == 0 {
            return Ok(());
        }
        ensure!(
            (a.rows, b.rows, b.columns) == (m, k, n) && !c.transposed,
            "a product of ({}, {}) and ({}, {}) into ({m}, {n})",
            a.rows,
            a.columns,
            b.rows,
            b.columns
        );
        ensure!(
            a.reach() <= a.buffer.len() && b.reach() <= b.buffer.len() && c.reach() <= c.buffer.len(),
            "a product ({m}, {k}) · ({k}, {n}) reads or writes past a buffer"
        );
        let shape = Shape {
            m,
            n,
            k,
            strides: [a.stride, b.stride, c.stride],
            transposed: [a.transposed, b.transposed],
            accumulate,
            f32_out: T::TYPE == f32::TYPE,
        };
        let mut prepared = self.prepared.borrow_mut();
        let Prepared { description, algorithm } = match prepared.entry(shape) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                entry.insert(self.prepare(shape).with_context(|| format!("prepare the product {shape}"))?)
            }
        };
        let operands = [a.buffer.pointer(), b.buffer.pointer(), c.buffer.pointer()];
        // SAFETY: the extents of all operands were checked above.
        unsafe { self.issue(description, algorithm, operands, accumulate) }
    }

    /// # Safety
    /// The operands, those of our order of factors and the output, have to be as long as the description says.
    unsafe fn issue(
        &self,
        description: &Description,
        algorithm: &sys::cublasLtMatmulAlgo_t,
        [a, b, c]: [u64; 3],
        accumulate: bool,
    ) -> Result<()> {
        let Description { product, layouts: [first, second, out] } = description;
        let (alpha, beta) = (1.0f32, if accumulate { 1.0f32 } else { 0.0 });
        let workspace = self.workspace.device_ptr(&self.stream).0;
        // SAFETY: the descriptors are live, and the caller vouches for the operands.
        unsafe {
            result::matmul(
                self.handle,
                *product,
                (&raw const alpha).cast(),
                (&raw const beta).cast(),
                b as *const c_void,
                *first,
                a as *const c_void,
                *second,
                c as *const c_void,
                *out,
                c as *mut c_void,
                *out,
                algorithm,
                workspace as *mut c_void,
                WORKSPACE,
                self.stream.cu_stream().cast(),
            )
        }
        .context("multiply matrices on the GPU")
    }

    /// Takes the algorithm that was chosen for the shape's class, or chooses cuBLASLt's first suggestion.
    fn prepare(&self, shape: Shape) -> Result<Prepared> {
        let (description, class) = (Description::new(shape)?, shape.class());
        let name = class.to_string();
        let chosen = self.choices.borrow().get(&name);
        let chosen = match chosen {
            Some(algorithm) => algorithm,
            None => {
                let first = self.suggestions(&Description::new(class)?, 1)?[0].data;
                self.choices.borrow_mut().insert(&name, first)?;
                first
            }
        };
        let chosen = sys::cublasLtMatmulAlgo_t { data: chosen };
        // An algorithm may be for the class and not for fewer rows.
        let algorithm = if self.can(&description, &chosen) { chosen } else { self.suggestions(&description, 1)?[0] };
        Ok(Prepared { description, algorithm })
    }

    /// cuBLASLt's suggestions, at most `most` and at least one: the one that it expects to be the fastest comes first.
    fn suggestions(&self, description: &Description, most: usize) -> Result<Vec<sys::cublasLtMatmulAlgo_t>> {
        let Description { product, layouts: [first, second, out] } = *description;
        let preference = result::create_matmul_pref()?;
        let workspace = WORKSPACE;
        // Sums that are split are added up in f32; in the output's bf16 every part would be rounded.
        let reduction = sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
        let mut found: Vec<sys::cublasLtMatmulHeuristicResult_t> = Vec::with_capacity(most);
        let mut count = 0;
        // SAFETY: the attributes are a size and a mask of 32 bits; all handles are live; the vector has room for `most` results,
        // of which `count` were written.
        unsafe {
            result::set_matmul_pref_attribute(
                preference,
                sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                (&raw const workspace).cast(),
                size_of::<usize>(),
            )?;
            result::set_matmul_pref_attribute(
                preference,
                sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                (&raw const reduction).cast(),
                size_of::<u32>(),
            )?;
            let status = sys::cublasLtMatmulAlgoGetHeuristic(
                self.handle,
                product,
                first,
                second,
                out,
                out,
                preference,
                most as i32,
                found.as_mut_ptr(),
                &mut count,
            );
            result::destroy_matmul_pref(preference)?;
            status.result().context("ask cuBLASLt for an algorithm")?;
            found.set_len(count as usize);
        }
        let works = |it: &sys::cublasLtMatmulHeuristicResult_t| it.state.result().is_ok();
        let algorithms: Vec<_> = found.iter().filter(|it| works(it)).map(|it| it.algo).collect();
        ensure!(!algorithms.is_empty(), "cuBLASLt has no algorithm for it");
        Ok(algorithms)
    }

    /// Whether an algorithm works for a product and needs no more scratch memory than there is.
    fn can(&self, description: &Description, algorithm: &sys::cublasLtMatmulAlgo_t) -> bool {
        let Description { product, layouts: [first, second, out] } = *description;
        let mut found = MaybeUninit::<sys::cublasLtMatmulHeuristicResult_t>::uninit();
        // SAFETY: all handles are live, and the result was written where the status is success.
        unsafe {
            let status = sys::cublasLtMatmulAlgoCheck(
                self.handle,
                product,
                first,
                second,
                out,
                out,
                algorithm,
                found.as_mut_ptr(),
            );
            status.result().is_ok() && found.assume_init().workspaceSize <= WORKSPACE
        }
    }

    /// Measures up to [`CANDIDATES`] algorithms for a shape and chooses the fastest. Another than the first suggestion has to be
    /// faster by a margin, so that chance does not choose. `operands` are as long as [`Shape::reach`] says; `before` comes
    /// before each measurement.
    pub fn tune(
        &self,
        shape: Shape,
        operands: (Buffer<bf16>, Buffer<bf16>, Buffer<f32>),
        before: &dyn Fn() -> Result<()>,
    ) -> Result<Tuned> {
        let [a, b, c] = shape.reach();
        let bytes = c * if shape.f32_out { 4 } else { 2 };
        ensure!(a <= operands.0.len() && b <= operands.1.len() && bytes <= 4 * operands.2.len(), "operands too short");
        let at = [operands.0.pointer(), operands.1.pointer(), operands.2.pointer()];
        let description = Description::new(shape)?;
        let algorithms = self.suggestions(&description, CANDIDATES)?;
        let timed = Some(CUevent_flags::CU_EVENT_DEFAULT);
        let mut milliseconds = Vec::new();
        for algorithm in &algorithms {
            let mut best = f32::INFINITY;
            // The first time loads the kernel.
            for repetition in 0..=REPETITIONS {
                before()?;
                let start = self.stream.record_event(timed)?;
                // SAFETY: the lengths of the operands were checked.
                unsafe { self.issue(&description, algorithm, at, shape.accumulate)? };
                let end = self.stream.record_event(timed)?;
                let taken = start.elapsed_ms(&end)?;
                best = if repetition > 0 { best.min(taken) } else { best };
            }
            milliseconds.push(best);
        }
        let fastest = (1..milliseconds.len()).min_by(|&i, &j| milliseconds[i].total_cmp(&milliseconds[j]));
        let chosen = fastest.filter(|&i| milliseconds[i] < MARGIN * milliseconds[0]).unwrap_or(0);
        self.choices.borrow_mut().insert(&shape.to_string(), algorithms[chosen].data)?;
        Ok(Tuned { shape, milliseconds, chosen })
    }

    /// Adds the choices to those that later runs begin with, and returns the file they are in.
    pub fn save_as_tuned(&self) -> Result<PathBuf> {
        self.choices.borrow().save_as_tuned()
    }
}

/// What was measured of a shape: the time of each suggestion, and which of them was chosen.
pub struct Tuned {
    pub shape: Shape,
    pub milliseconds: Vec<f32>,
    pub chosen: usize,
}

impl Description {
    fn new(shape: Shape) -> Result<Self> {
        let f32_type = sys::cudaDataType_t::CUDA_R_32F;
        let bf16_type = sys::cudaDataType_t::CUDA_R_16BF;
        // Rows and columns as they lie in memory, column-major.
        let lying = |rows: usize, columns: usize, transposed: bool| {
            if transposed { (rows as u64, columns as u64) } else { (columns as u64, rows as u64) }
        };
        let layout = |kind, (rows, columns): (u64, u64), stride: usize| {
            result::create_matrix_layout(kind, rows, columns, stride as i64)
        };
        let out_type = if shape.f32_out { f32_type } else { bf16_type };
        let layouts = [
            layout(bf16_type, lying(shape.k, shape.n, shape.transposed[1]), shape.strides[1])?,
            layout(bf16_type, lying(shape.m, shape.k, shape.transposed[0]), shape.strides[0])?,
            layout(out_type, (shape.n as u64, shape.m as u64), shape.strides[2])?,
        ];
        let product = result::create_matmul_desc(sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, f32_type)?;
        let description = Self { product, layouts };
        let transposes = [
            (sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSA, shape.transposed[1]),
            (sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_TRANSB, shape.transposed[0]),
        ];
        for (attribute, transposed) in transposes {
            let operation = i32::from(transposed);
            // SAFETY: the attribute is an i32, and 0 and 1 are CUBLAS_OP_N and CUBLAS_OP_T.
            unsafe {
                result::set_matmul_desc_attribute(product, attribute, (&raw const operation).cast(), size_of::<i32>())?;
            }
        }
        Ok(description)
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        // SAFETY: made by `new`, destroyed once. Nothing can be done about an error here.
        unsafe {
            _ = result::destroy_matmul_desc(self.product);
            for layout in self.layouts {
                _ = result::destroy_matrix_layout(layout);
            }
        }
    }
}

impl Drop for Blas {
    fn drop(&mut self) {
        self.prepared.take();
        // SAFETY: nothing uses the handle any more. Nothing can be done about an error here.
        _ = unsafe { result::destroy_handle(self.handle) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(m: usize) -> Shape {
        let (transposed, strides) = ([false, true], [64, 80, 32]);
        Shape { m, n: 32, k: 64, strides, transposed, accumulate: false, f32_out: false }
    }

    #[test]
    fn rows_are_rounded_up_to_a_class() {
        let classes: Vec<usize> = (1..=2_048).map(|m| shape(m).class().m).collect();
        assert!(classes.iter().zip(1..).all(|(&class, m)| m <= class && 2 * class <= 3 * m.max(2)));
        let distinct: BTreeSet<usize> = classes.into_iter().collect();
        let few = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1_024, 1_536, 2_048];
        assert!(distinct.iter().eq(&few), "{distinct:?}");
    }

    #[test]
    fn a_shape_has_its_name_and_its_extents() {
        let accumulated = Shape { accumulate: true, f32_out: true, ..shape(5) };
        assert_eq!(accumulated.to_string(), "5x32x64 nt += f32, strides 64 80 32");
        assert_eq!(shape(5).reach(), [5 * 64, 31 * 80 + 64, 5 * 32]);
    }
}
