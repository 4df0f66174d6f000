//! Launches of kernels.

use super::element::Element;
use super::gpu::Gpu;
use super::memory::Buffer;
use crate::device::memory::layout::StridedRows;
use anyhow::{Context, Result, ensure};
use cudarc::driver::{CudaFunction, result, sys};
use std::ffi::c_void;

/// Dynamic shared memory that a kernel can use without requesting more.
const USUAL_SHARED: u32 = 48 << 10;

/// Number of blocks, threads per block, and bytes of dynamic shared memory.
#[derive(Clone, Copy, Debug)]
pub struct LaunchShape {
    pub blocks: [usize; 3],
    pub threads: usize,
    pub shared: usize,
}

impl LaunchShape {
    pub fn new(blocks: usize, threads: usize) -> Self {
        Self { blocks: [blocks, 1, 1], threads, shared: 0 }
    }
}

/// Maximum number of blocks of a grid in each dimension.
const MOST_BLOCKS: [usize; 3] = [(1 << 31) - 1, 65_535, 65_535];

/// An argument of a kernel: a pointer or a number.
#[derive(Clone, Copy, Debug)]
pub enum Argument {
    /// An address, the number of values there, and how many of them the kernel may use.
    Pointer {
        address: u64,
        len: usize,
        touched: usize,
    },
    Int(i32),
    Long(u64),
    Float(f32),
    Double(f64),
}

/// A pointer is passed with the number of values that the kernel reads or writes there, which a launch checks.
impl<T: Element> Buffer<T> {
    pub fn at_least(self, values: usize) -> Argument {
        Argument::Pointer { address: self.pointer(), len: self.len(), touched: values }
    }

    /// The same for a kernel that also accepts a null pointer.
    pub fn null_or_at_least(self, values: usize) -> Argument {
        self.at_least(if self.pointer() == 0 { 0 } else { values })
    }
}

/// A length: kernels count with `int`.
impl From<usize> for Argument {
    fn from(value: usize) -> Self {
        Self::Int(i32::try_from(value).expect("a dimension below 2^31"))
    }
}

impl From<i32> for Argument {
    fn from(value: i32) -> Self {
        Self::Int(value)
    }
}

impl From<u32> for Argument {
    fn from(value: u32) -> Self {
        Self::Int(value as i32)
    }
}

impl From<u64> for Argument {
    fn from(value: u64) -> Self {
        Self::Long(value)
    }
}

impl From<f32> for Argument {
    fn from(value: f32) -> Self {
        Self::Float(value)
    }
}

impl From<f64> for Argument {
    fn from(value: f64) -> Self {
        Self::Double(value)
    }
}

impl Argument {
    fn address(&mut self) -> *mut c_void {
        match self {
            Self::Pointer { address: value, .. } | Self::Long(value) => (value as *mut u64).cast(),
            Self::Int(value) => (value as *mut i32).cast(),
            Self::Float(value) => (value as *mut f32).cast(),
            Self::Double(value) => (value as *mut f64).cast(),
        }
    }

    /// Size in bytes of a kernel's parameter of this kind.
    fn width(&self) -> usize {
        match self {
            Self::Int(_) | Self::Float(_) => 4,
            Self::Pointer { .. } | Self::Long(_) | Self::Double(_) => 8,
        }
    }
}

impl StridedRows {
    /// `rows` rows of `width` values each; the values between them are not used.
    pub fn at_least(self, rows: usize, width: usize) -> Argument {
        self.buffer.at_least(if rows == 0 { 0 } else { (rows - 1) * self.stride + width })
    }
}

/// Whether the buffers are long enough and the grid is within the driver's limits.
fn check(name: &str, shape: LaunchShape, arguments: &[Argument]) -> Result<()> {
    for (i, argument) in arguments.iter().enumerate() {
        if let Argument::Pointer { len, touched, .. } = argument {
            ensure!(len >= touched, "launch `{name}`: argument {i} has {len} values, but the kernel uses {touched}");
        }
    }
    let fits = shape.blocks.iter().zip(MOST_BLOCKS).all(|(blocks, most)| *blocks <= most);
    ensure!(fits, "launch `{name}`: a grid of {:?} blocks exceeds the maximum of {MOST_BLOCKS:?}", shape.blocks);
    Ok(())
}

/// The sizes in bytes of a kernel's parameters; `None` if the driver does not report them (before CUDA 12.4).
fn parameter_widths(kernel: &CudaFunction) -> Option<Vec<usize>> {
    if !driver_tells_parameters() {
        return None;
    }
    let width = |index| {
        let (mut offset, mut width) = (0, 0);
        // SAFETY: the function is loaded, and the call writes two numbers. An index past the last parameter is an
        // error.
        let found = unsafe { sys::cuFuncGetParamInfo(kernel.cu_function(), index, &mut offset, &mut width) };
        found.result().ok().map(|()| width)
    };
    Some((0..).map_while(width).collect())
}

/// Whether the driver has `cuFuncGetParamInfo`: calling a missing function would panic.
#[cfg(feature = "load-cuda")]
pub(super) fn driver_tells_parameters() -> bool {
    // SAFETY: the symbol is looked up but not called.
    unsafe { sys::culib().get::<unsafe extern "C" fn()>(b"cuFuncGetParamInfo\0").is_ok() }
}

/// A binary that links to the driver would not start if this function were missing.
#[cfg(not(feature = "load-cuda"))]
pub(super) fn driver_tells_parameters() -> bool {
    true
}

impl Gpu {
    /// Issues a kernel, unless its grid is empty.
    ///
    /// # Errors
    /// If a buffer is shorter than the kernel requires, the grid is too large, or the number or the sizes of the
    /// arguments differ from those of the kernel's parameters.
    ///
    /// # Safety
    /// The arguments must be the kernel's, in its order, and the numbers that describe the buffers must be right: this
    /// function checks only that each buffer has the length that the caller states. Only functions that have a kernel's
    /// signature for their own call use this function.
    pub unsafe fn launch(&self, name: &'static str, shape: LaunchShape, arguments: &mut [Argument]) -> Result<()> {
        check(name, shape, arguments)?;
        if shape.blocks.contains(&0) {
            return Ok(());
        }
        let mut found = self.kernels.found.borrow_mut();
        if !found.contains_key(name) {
            found.insert(name, self.first_use(name, arguments)?);
        }
        let mut pointers: Vec<*mut c_void> = arguments.iter_mut().map(Argument::address).collect();
        let [x, y, z] = shape.blocks.map(|it| it as u32);
        // SAFETY: the kernel is loaded, and the pointers are to values of the kinds that the caller passed.
        unsafe {
            result::launch_kernel(
                found[name].cu_function(),
                (x, y, z),
                (shape.threads as u32, 1, 1),
                shape.shared as u32,
                self.stream.cu_stream(),
                &mut pointers,
            )
        }
        .with_context(|| format!("launch `{name}` as {shape:?}"))
    }

    /// Finds a kernel, compares its parameters with `arguments`, and allows it to use all of the device's shared
    /// memory.
    fn first_use(&self, name: &str, arguments: &[Argument]) -> Result<CudaFunction> {
        let kernel = self.kernels.find(name)?;
        if let Some(widths) = parameter_widths(&kernel) {
            let given: Vec<usize> = arguments.iter().map(Argument::width).collect();
            ensure!(
                given == widths,
                "launch `{name}`: the kernel's parameters have {widths:?} bytes, the arguments {given:?}"
            );
        }
        let most = self.most_shared()?;
        if most > USUAL_SHARED {
            let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let fixed = kernel.shared_size_bytes()?;
            kernel.set_attribute(attribute, most as i32 - fixed)?;
        }
        Ok(kernel)
    }

    /// Maximum shared memory of a block on this device.
    fn most_shared(&self) -> Result<u32> {
        let attribute = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
        Ok(self.stream.context().attribute(attribute)? as u32)
    }
}

/// `launch!(gpu, "kernel", shape; a, b, c)`: [`Gpu::launch`] with these arguments.
macro_rules! launch {
    ($gpu:expr, $name:expr, $shape:expr; $($argument:expr),* $(,)?) => {
        $gpu.launch($name, $shape, &mut [$($crate::device::cuda::launch::Argument::from($argument)),*])
    };
}
pub(super) use launch;
