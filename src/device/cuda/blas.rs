//! Matrix products by cuBLASLt: bf16 in, f32 sums, bf16 or f32 out.
//!
//! cuBLASLt works on column-major matrices, and a row-major matrix is its own transpose in column-major order. So
//! C = A · B in rows is asked for as Cᵀ = Bᵀ · Aᵀ, with the operands swapped.

use super::memory::{Buffer, Element};
use anyhow::{Context, Result, ensure};
use cudarc::cublaslt::{result, sys};
use cudarc::driver::{CudaSlice, CudaStream, DevicePtr};
use half::bf16;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::c_void;
use std::sync::Arc;

/// Scratch memory for algorithms that split the sum; what NVIDIA advises for Hopper.
const WORKSPACE: usize = 32 << 20;

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

/// What distinguishes one product from another for the choice of an algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Shape {
    m: usize,
    n: usize,
    k: usize,
    strides: [usize; 3],
    transposed: [bool; 2],
    accumulate: bool,
    f32_out: bool,
}

/// A product with its descriptors and the algorithm chosen for it.
struct Prepared {
    product: sys::cublasLtMatmulDesc_t,
    /// Of cuBLASLt's first and second operand and its output.
    layouts: [sys::cublasLtMatrixLayout_t; 3],
    algorithm: sys::cublasLtMatmulAlgo_t,
}

/// cuBLASLt with its scratch memory and the algorithms chosen so far.
pub struct Blas {
    handle: sys::cublasLtHandle_t,
    stream: Arc<CudaStream>,
    workspace: CudaSlice<u8>,
    /// An algorithm is chosen once for a shape and kept: another one may give other bits.
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
    pub fn new(stream: Arc<CudaStream>) -> Result<Self> {
        ensure!(library_is_present(), "cuBLASLt was not found\nhint: `rft doctor` names the package that brings it");
        let handle = result::create_handle().context("start cuBLASLt")?;
        // SAFETY: only cuBLASLt reads and writes it.
        let workspace = unsafe { stream.alloc::<u8>(WORKSPACE) }.context("take memory for cuBLASLt")?;
        Ok(Self { handle, stream, workspace, prepared: RefCell::default() })
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
        let prepared = match prepared.entry(shape) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                entry.insert(self.prepare(shape).with_context(|| format!("prepare a product {shape:?}"))?)
            }
        };
        let Prepared { product, layouts: [first, second, out], algorithm } = prepared;
        let (alpha, beta) = (1.0f32, if accumulate { 1.0f32 } else { 0.0 });
        let workspace = self.workspace.device_ptr(&self.stream).0;
        let output = c.buffer.pointer();
        // SAFETY: the descriptors live as long as `self`, and the extents of all operands were checked above.
        unsafe {
            result::matmul(
                self.handle,
                *product,
                (&raw const alpha).cast(),
                (&raw const beta).cast(),
                b.buffer.pointer() as *const c_void,
                *first,
                a.buffer.pointer() as *const c_void,
                *second,
                output as *const c_void,
                *out,
                output as *mut c_void,
                *out,
                algorithm,
                workspace as *mut c_void,
                WORKSPACE,
                self.stream.cu_stream().cast(),
            )
        }
        .context("multiply matrices on the GPU")
    }

    fn prepare(&self, shape: Shape) -> Result<Prepared> {
        let f32_type = sys::cudaDataType_t::CUDA_R_32F;
        let bf16_type = sys::cudaDataType_t::CUDA_R_16BF;
        let product = result::create_matmul_desc(sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, f32_type)?;
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
        let preference = result::create_matmul_pref()?;
        let workspace = WORKSPACE;
        // Sums that are split are added up in f32; in the output's bf16 every part would be rounded.
        let reduction = sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
        // SAFETY: the attributes are a size and a mask of 32 bits; all handles are live.
        let found = unsafe {
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
            let [first, second, out] = layouts;
            let found = result::get_matmul_algo_heuristic(self.handle, product, first, second, out, out, preference);
            result::destroy_matmul_pref(preference)?;
            found?
        };
        Ok(Prepared { product, layouts, algorithm: found.algo })
    }
}

impl Drop for Blas {
    fn drop(&mut self) {
        for prepared in self.prepared.get_mut().values() {
            // SAFETY: made by `prepare`, destroyed once. Nothing can be done about an error here.
            unsafe {
                let _ = result::destroy_matmul_desc(prepared.product);
                for layout in prepared.layouts {
                    let _ = result::destroy_matrix_layout(layout);
                }
            }
        }
        // SAFETY: as above.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}
