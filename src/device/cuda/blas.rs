//! Matrix products by cuBLASLt: bf16 in, f32 sums, bf16 or f32 out.
//!
//! cuBLASLt works on column-major matrices, and a row-major matrix is its own transpose in column-major order. So
//! C = A · B in rows is asked for as Cᵀ = Bᵀ · Aᵀ, with the operands swapped.

use super::memory::{Buffer, Element};
use crate::device::memory::layout::Rows;
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

    /// `count` columns from `start` on.
    pub fn columns(self, start: usize, count: usize) -> Self {
        assert!(!self.transposed && start + count <= self.columns, "columns past the end of a matrix");
        Self { buffer: self.buffer.slice(start..self.buffer.len()), columns: count, ..self }
    }

    /// Values that the buffer must have.
    fn reach(&self) -> usize {
        let (lines, width) = if self.transposed { (self.columns, self.rows) } else { (self.rows, self.columns) };
        if lines == 0 { 0 } else { (lines - 1) * self.stride + width }
    }
}

impl Matrix<bf16> {
    /// The first `columns` values of `rows` rows.
    pub fn of(x: Rows, rows: usize, columns: usize) -> Matrix<bf16> {
        Matrix::new(x.buffer, rows, columns).with_stride(x.stride)
    }

    /// `columns` values of `rows` rows, from value `start` of each on.
    pub fn behind(x: Rows, rows: usize, start: usize, columns: usize) -> Matrix<bf16> {
        Matrix::new(x.buffer.slice(start..x.buffer.len()), rows, columns).with_stride(x.stride)
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
    adds: bool,
    f32_out: bool,
    /// What the addresses of a, b, what is added and the output are multiples of, in bytes: 256 at most.
    alignments: [u32; 4],
}

/// Rows and operands begin at multiples of so many bytes: kernels for tensor cores want it.
const ALIGNMENT: usize = 16;

/// The largest power of two up to 256 that an address is a multiple of.
fn alignment(address: u64) -> u32 {
    1 << address.trailing_zeros().min(8)
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

    /// `to = a · b`: (m, k) · (k, n) -> (m, n).
    pub fn product<T: Output>(&self, a: Matrix<bf16>, b: Matrix<bf16>, to: Matrix<T>) -> Result<()> {
        self.multiply(1.0, a, b, None, to)
    }

    /// `to = scale · a · b + plus`, summed in f32 and rounded once. Rows of `plus` lie as those of `to`, which it may be itself.
    pub fn add_product<T: Output>(
        &self,
        scale: f32,
        a: Matrix<bf16>,
        b: Matrix<bf16>,
        plus: Buffer<T>,
        to: Matrix<T>,
    ) -> Result<()> {
        self.multiply(scale, a, b, Some(plus), to)
    }

    fn multiply<T: Output>(
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
            a.reach() <= a.buffer.len() && b.reach() <= b.buffer.len() && to.reach() <= to.buffer.len().min(c.len()),
            "a product ({m}, {k}) · ({k}, {n}) reads or writes past a buffer"
        );
        let alignments = [a.buffer.pointer(), b.buffer.pointer(), c.pointer(), to.buffer.pointer()].map(alignment);
        let strides = [a.stride, b.stride, to.stride];
        ensure!(
            alignments.iter().all(|&bytes| bytes as usize >= ALIGNMENT)
                && strides
                    .iter()
                    .zip([2, 2, size_of::<T>()])
                    .all(|(stride, size)| (stride * size).is_multiple_of(ALIGNMENT)),
            "a product ({m}, {k}) · ({k}, {n}) of rows that do not begin at multiples of {ALIGNMENT} bytes"
        );
        let shape = Shape {
            m,
            n,
            k,
            strides,
            transposed: [a.transposed, b.transposed],
            adds: plus.is_some(),
            f32_out: T::TYPE == f32::TYPE,
            alignments,
        };
        let mut prepared = self.prepared.borrow_mut();
        let prepared = match prepared.entry(shape) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                entry.insert(self.prepare(shape).with_context(|| format!("prepare a product {shape:?}"))?)
            }
        };
        let Prepared { product, layouts: [first, second, out], algorithm } = prepared;
        let (alpha, beta) = (scale, if plus.is_some() { 1.0f32 } else { 0.0 });
        let workspace = self.workspace.device_ptr(&self.stream).0;
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
                c.pointer() as *const c_void,
                *out,
                to.buffer.pointer() as *mut c_void,
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
        // cuBLASLt's first operand is b.
        let [a, b, c, d] = shape.alignments;
        let alignments = [
            (sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, b),
            (sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, a),
            (sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, c),
            (sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, d),
        ];
        // SAFETY: the attributes are a size, and masks and alignments of 32 bits; all handles are live.
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
            for (attribute, bytes) in &alignments {
                let bytes: *const u32 = bytes;
                result::set_matmul_pref_attribute(preference, *attribute, bytes.cast(), size_of::<u32>())?;
            }
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
