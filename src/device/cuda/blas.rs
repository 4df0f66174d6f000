//! Matrix products with cuBLASLt: bf16 inputs, f32 sums, bf16 or f32 outputs.
//!
//! cuBLASLt works on column-major matrices, and a row-major matrix is its own transpose in column-major order. So
//! row-major C = A · B is computed as Cᵀ = Bᵀ · Aᵀ, with the operands swapped.

use super::choices::AlgorithmChoices;
use super::element::Element;
use super::matrix::{ALIGNMENT, Matrix, ProductShape, alignment};
use super::record::{Product, Recorder};
use crate::device::memory::arena::Buffer;
use anyhow::{Context, Result, bail, ensure};
use cudarc::cublaslt::{result, sys};
use cudarc::driver::sys::CUevent_flags;
use cudarc::driver::{CudaSlice, CudaStream, DevicePtr};
use half::bf16;
use std::cell::RefCell;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

/// Scratch memory for algorithms that split the sum; the size that NVIDIA recommends for Hopper.
const WORKSPACE: usize = 32 << 20;
/// Number of algorithms measured for a shape, repetitions of each, and the maximum share of the first one's time for
/// another to be chosen.
const CANDIDATES: usize = 8;
const REPETITIONS: usize = 5;
const MARGIN: f32 = 0.98;

/// An element type of an output.
pub trait ProductOutput: Element {
    const TYPE: sys::cudaDataType;
}

impl ProductOutput for bf16 {
    const TYPE: sys::cudaDataType = sys::cudaDataType_t::CUDA_R_16BF;
}

impl ProductOutput for f32 {
    const TYPE: sys::cudaDataType = sys::cudaDataType_t::CUDA_R_32F;
}

/// A product as described to cuBLASLt: the operation, and the layouts of its first and second operand and its output.
struct Description {
    product: sys::cublasLtMatmulDesc_t,
    layouts: [sys::cublasLtMatrixLayout_t; 3],
    alignments: [u32; 4],
}

/// A product with the algorithm chosen for it.
struct Prepared {
    description: Description,
    algorithm: sys::cublasLtMatmulAlgo_t,
}

/// cuBLASLt with the algorithms chosen so far.
pub struct Blas {
    // Dropped before the library.
    prepared: RefCell<BTreeMap<ProductShape, Prepared>>,
    target: BlasTarget,
    choices: RefCell<AlgorithmChoices>,
}

/// Where products go.
enum BlasTarget {
    Library(Library),
    Recorder(Rc<Recorder>),
}

/// cuBLASLt with its scratch memory.
struct Library {
    handle: sys::cublasLtHandle_t,
    stream: Arc<CudaStream>,
    workspace: CudaSlice<u8>,
}

/// Whether cuBLASLt can be loaded.
#[cfg(feature = "load-cuda")]
pub fn library_is_present() -> bool {
    // SAFETY: this only opens the library.
    unsafe { sys::is_culib_present() }
}

/// A binary that links to cuBLASLt would not start without it.
#[cfg(not(feature = "load-cuda"))]
pub fn library_is_present() -> bool {
    true
}

impl Blas {
    /// For the GPU with the name `gpu`.
    pub fn new(stream: Arc<CudaStream>, gpu: &str) -> Result<Self> {
        ensure!(
            library_is_present(),
            "cuBLASLt was not found\nhint: run `rft doctor`, which names the package to install"
        );
        let handle = result::create_handle().context("start cuBLASLt")?;
        // SAFETY: the library is loaded, and the call has no arguments.
        let version = unsafe { sys::cublasLtGetVersion() };
        let choices = AlgorithmChoices::tuned(format!("{gpu}, cuBLASLt {version}"))?;
        // SAFETY: only cuBLASLt reads and writes this memory.
        let workspace = unsafe { stream.alloc::<u8>(WORKSPACE) }.context("allocate memory for cuBLASLt")?;
        Ok(Self::on(BlasTarget::Library(Library { handle, stream, workspace }), choices))
    }

    /// Records products instead of multiplying.
    pub fn recorded(recorder: Rc<Recorder>) -> Self {
        Self::on(BlasTarget::Recorder(recorder), AlgorithmChoices::new("recorded".to_owned()))
    }

    fn on(target: BlasTarget, choices: AlgorithmChoices) -> Self {
        Self { target, choices: RefCell::new(choices), prepared: RefCell::default() }
    }

    /// The key of the choices: the GPU's name and the library's version.
    pub fn setup(&self) -> String {
        self.choices.borrow().setup().to_owned()
    }

    /// Uses these choices from now on.
    pub fn set_choices(&self, choices: AlgorithmChoices) {
        self.choices.replace(choices);
        self.prepared.take();
    }

    /// Uses the choices in a file and adds new ones to it; see [`AlgorithmChoices::keep_in`].
    pub fn keep_choices(&self, path: &Path) -> Result<Option<String>> {
        self.prepared.take();
        self.choices.borrow_mut().keep_in(path)
    }

    /// The shapes of all products so far for which algorithms are chosen.
    pub fn shapes(&self) -> BTreeSet<ProductShape> {
        self.prepared.borrow().keys().map(|shape| shape.class()).collect()
    }

    /// `to = a · b`: (m, k) · (k, n) -> (m, n).
    pub fn product<T: ProductOutput>(&self, a: Matrix<bf16>, b: Matrix<bf16>, to: Matrix<T>) -> Result<()> {
        self.multiply(1.0, a, b, None, to)
    }

    /// `to = scale · a · b + plus`, summed in f32 and rounded once. `plus` has the row stride of `to`, and may be `to`.
    pub fn add_product<T: ProductOutput>(
        &self,
        scale: f32,
        a: Matrix<bf16>,
        b: Matrix<bf16>,
        plus: Buffer<T>,
        to: Matrix<T>,
    ) -> Result<()> {
        self.multiply(scale, a, b, Some(plus), to)
    }

    fn multiply<T: ProductOutput>(
        &self,
        scale: f32,
        a: Matrix<bf16>,
        b: Matrix<bf16>,
        plus: Option<Buffer<T>>,
        to: Matrix<T>,
    ) -> Result<()> {
        let (m, n, k) = (to.rows, to.columns, a.columns);
        if m == 0 || n == 0 {
            return Ok(());
        }
        let c = plus.unwrap_or(to.buffer);
        ensure!(
            (a.rows, b.rows, b.columns) == (m, k, n) && !to.transposed,
            "a product of ({}, {}) and ({}, {}) into ({m}, {n})",
            a.rows,
            a.columns,
            b.rows,
            b.columns
        );
        ensure!(
            a.fits() && b.fits() && to.fits() && Matrix { buffer: c, ..to }.fits(),
            "a product ({m}, {k}) · ({k}, {n}) reads or writes past the end of a buffer"
        );
        let alignments = [a.buffer.pointer(), b.buffer.pointer(), c.pointer(), to.buffer.pointer()].map(alignment);
        let strides = [a.stride, b.stride, to.stride];
        ensure!(
            alignments.iter().all(|&bytes| bytes as usize >= ALIGNMENT)
                && strides
                    .iter()
                    .zip([2, 2, size_of::<T>()])
                    .all(|(stride, size)| (stride * size).is_multiple_of(ALIGNMENT)),
            "a product ({m}, {k}) · ({k}, {n}) has rows that are not aligned to {ALIGNMENT} bytes"
        );
        let shape = ProductShape {
            m,
            n,
            k,
            strides,
            transposed: [a.transposed, b.transposed],
            adds: plus.is_some(),
            f32_out: T::TYPE == f32::TYPE,
            alignments,
        };
        let library = match &self.target {
            BlasTarget::Library(library) => library,
            BlasTarget::Recorder(recorder) => {
                let ProductShape { transposed, adds, f32_out, .. } = shape;
                recorder.product(Product { m, n, k, transposed, adds, f32_out });
                return Ok(());
            }
        };
        let mut prepared = self.prepared.borrow_mut();
        let Prepared { description, algorithm } = match prepared.entry(shape) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                entry.insert(self.prepare(library, shape).with_context(|| format!("prepare the product {shape}"))?)
            }
        };
        let beta = if plus.is_some() { 1.0 } else { 0.0 };
        let operands = [a.buffer.pointer(), b.buffer.pointer(), c.pointer(), to.buffer.pointer()];
        // SAFETY: the extents of all operands were checked above.
        unsafe { library.issue(description, algorithm, [scale, beta], operands) }
    }

    /// Takes the algorithm that was chosen for the shape's class, or chooses cuBLASLt's first suggestion.
    fn prepare(&self, library: &Library, shape: ProductShape) -> Result<Prepared> {
        let (description, class) = (Description::new(shape)?, shape.class());
        let name = class.to_string();
        let chosen = self.choices.borrow().get(&name);
        let chosen = match chosen {
            Some(algorithm) => algorithm,
            None => {
                let first = library.suggestions(&Description::new(class)?, 1)?[0].data;
                self.choices.borrow_mut().insert(&name, first)?;
                first
            }
        };
        let chosen = sys::cublasLtMatmulAlgo_t { data: chosen };
        // An algorithm may be for the class and not for fewer rows.
        let algorithm =
            if library.can(&description, &chosen) { chosen } else { library.suggestions(&description, 1)?[0] };
        Ok(Prepared { description, algorithm })
    }

    /// Measures up to [`CANDIDATES`] algorithms for a shape and chooses the fastest. Another than the first suggestion has to be
    /// faster by a margin, so that chance does not choose. `operands` are as long as [`Shape::reach`] says; `before` comes
    /// before each measurement.
    pub fn tune(
        &self,
        shape: ProductShape,
        operands: (Buffer<bf16>, Buffer<bf16>, Buffer<f32>),
        before: &dyn Fn() -> Result<()>,
    ) -> Result<Tuned> {
        let BlasTarget::Library(library) = &self.target else {
            bail!("recorded products have no algorithms to measure")
        };
        let [a, b, c] = shape.reach();
        let bytes = c * if shape.f32_out { 4 } else { 2 };
        ensure!(a <= operands.0.len() && b <= operands.1.len() && bytes <= 4 * operands.2.len(), "operands too short");
        let at = [operands.0.pointer(), operands.1.pointer(), operands.2.pointer(), operands.2.pointer()];
        let beta = if shape.adds { 1.0 } else { 0.0 };
        let description = Description::new(shape)?;
        let algorithms = library.suggestions(&description, CANDIDATES)?;
        let timed = Some(CUevent_flags::CU_EVENT_DEFAULT);
        let mut milliseconds = Vec::new();
        for algorithm in &algorithms {
            let mut best = f32::INFINITY;
            // The first time loads the kernel.
            for repetition in 0..=REPETITIONS {
                before()?;
                let start = library.stream.record_event(timed)?;
                // SAFETY: the lengths of the operands were checked.
                unsafe { library.issue(&description, algorithm, [1.0, beta], at)? };
                let end = library.stream.record_event(timed)?;
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

impl Library {
    /// d = alpha · a · b + beta · c.
    ///
    /// # Safety
    /// The operands must have the lengths of the description.
    unsafe fn issue(
        &self,
        description: &Description,
        algorithm: &sys::cublasLtMatmulAlgo_t,
        [alpha, beta]: [f32; 2],
        [a, b, c, d]: [u64; 4],
    ) -> Result<()> {
        let Description { product, layouts: [first, second, out], .. } = description;
        let workspace = self.workspace.device_ptr(&self.stream).0;
        // SAFETY: the descriptors are live, and the caller guarantees the lengths of the operands.
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
                d as *mut c_void,
                *out,
                algorithm,
                workspace as *mut c_void,
                WORKSPACE,
                self.stream.cu_stream().cast(),
            )
        }
        .context("multiply matrices on the GPU")
    }

    /// cuBLASLt's suggestions, at most `most` and at least one: the one that it expects to be fastest comes first.
    fn suggestions(&self, description: &Description, most: usize) -> Result<Vec<sys::cublasLtMatmulAlgo_t>> {
        let Description { product, layouts: [first, second, out], .. } = *description;
        let preference = result::create_matmul_pref()?;
        let workspace = WORKSPACE;
        // Partial sums are added in f32; in the output's bf16 each one would be rounded.
        let reduction = sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
        // cuBLASLt's first operand is b.
        let [a, b, c, d] = description.alignments;
        let alignments = [
            (sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, b),
            (sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, a),
            (sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, c),
            (sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, d),
        ];
        let mut found: Vec<sys::cublasLtMatmulHeuristicResult_t> = Vec::with_capacity(most);
        let mut count = 0;
        // SAFETY: the attributes are a size, and a mask and alignments of 32 bits; all handles are live; the vector has
        // room for `most` results, of which `count` were written.
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
            for (attribute, bytes) in &alignments {
                let bytes: *const u32 = bytes;
                result::set_matmul_pref_attribute(preference, *attribute, bytes.cast(), size_of::<u32>())?;
            }
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
            status.result().context("request an algorithm from cuBLASLt")?;
            found.set_len(count as usize);
        }
        let works = |it: &sys::cublasLtMatmulHeuristicResult_t| it.state.result().is_ok();
        let algorithms: Vec<_> = found.iter().filter(|it| works(it)).map(|it| it.algo).collect();
        ensure!(!algorithms.is_empty(), "cuBLASLt has no algorithm for this product");
        Ok(algorithms)
    }

    /// Whether an algorithm works for a product and does not need more scratch memory than is available.
    fn can(&self, description: &Description, algorithm: &sys::cublasLtMatmulAlgo_t) -> bool {
        let Description { product, layouts: [first, second, out], .. } = *description;
        let mut found = MaybeUninit::<sys::cublasLtMatmulHeuristicResult_t>::uninit();
        // SAFETY: all handles are live, and the result is written if the status is success.
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
}

/// The measurements for a shape: the time of each suggestion, and which of them was chosen.
pub struct Tuned {
    pub shape: ProductShape,
    pub milliseconds: Vec<f32>,
    pub chosen: usize,
}

impl Description {
    fn new(shape: ProductShape) -> Result<Self> {
        let f32_type = sys::cudaDataType_t::CUDA_R_32F;
        let bf16_type = sys::cudaDataType_t::CUDA_R_16BF;
        // Rows and columns as stored in memory, column-major.
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
        let description = Self { product, layouts, alignments: shape.alignments };
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
        // SAFETY: created by `new`, destroyed once. An error here cannot be handled.
        unsafe {
            _ = result::destroy_matmul_desc(self.product);
            for layout in self.layouts {
                _ = result::destroy_matrix_layout(layout);
            }
        }
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: nothing uses the handle any more. An error here cannot be handled.
        _ = unsafe { result::destroy_handle(self.handle) };
    }
}
