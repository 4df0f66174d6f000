//! The kernels, loaded, and how one is launched.

use super::Gpu;
use super::images;
use super::memory::{Buffer, Element};
use anyhow::{Context, Result, bail};
use cudarc::driver::{CudaContext, CudaFunction, CudaModule, result, sys};
use cudarc::nvrtc::Ptx;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::Arc;

/// Dynamic shared memory that a kernel may take without having asked for more.
const USUAL_SHARED: u32 = 48 << 10;

/// The compiled files of `src/device/cuda/kernels`, and the kernels used so far, by name.
pub struct Kernels {
    modules: Vec<Arc<CudaModule>>,
    found: RefCell<BTreeMap<&'static str, CudaFunction>>,
}

/// How many blocks of how many threads, with how many bytes of dynamic shared memory.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub blocks: [usize; 3],
    pub threads: usize,
    pub shared: usize,
}

impl Shape {
    pub fn new(blocks: usize, threads: usize) -> Self {
        Self { blocks: [blocks, 1, 1], threads, shared: 0 }
    }
}

/// An argument of a kernel: a pointer or a number.
#[derive(Clone, Copy, Debug)]
pub enum Argument {
    Pointer(u64),
    Int(i32),
    Long(u64),
    Float(f32),
    Double(f64),
}

impl<T: Element> From<Buffer<T>> for Argument {
    fn from(buffer: Buffer<T>) -> Self {
        Self::Pointer(buffer.pointer())
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
            Self::Pointer(value) | Self::Long(value) => (value as *mut u64).cast(),
            Self::Int(value) => (value as *mut i32).cast(),
            Self::Float(value) => (value as *mut f32).cast(),
            Self::Double(value) => (value as *mut f64).cast(),
        }
    }
}

impl Kernels {
    pub fn load(context: &Arc<CudaContext>) -> Result<Self> {
        let load = |image: images::Image| {
            let loaded = context.load_module(Ptx::from_binary(image.data));
            loaded
                .with_context(|| format!("load `{}.cu` ({})\nhint: update NVIDIA's driver", image.file, images::ORIGIN))
        };
        let images = images::for_capability(context.compute_capability()?)?;
        let modules = images.into_iter().map(load).collect::<Result<_>>()?;
        Ok(Self { modules, found: RefCell::default() })
    }

    fn find(&self, name: &str) -> Result<CudaFunction> {
        match self.modules.iter().find_map(|module| module.load_function(name).ok()) {
            Some(kernel) => Ok(kernel),
            None => bail!("there is no kernel `{name}`"),
        }
    }
}

impl Gpu {
    /// Issues a kernel. The caller vouches for `arguments` being what the kernel takes, and for the sizes of the buffers:
    /// the functions that call this are the only place where a kernel's signature stands on this side.
    pub fn launch(&self, name: &'static str, shape: Shape, arguments: &mut [Argument]) -> Result<()> {
        if shape.blocks.contains(&0) {
            return Ok(());
        }
        let mut found = self.kernels.found.borrow_mut();
        if !found.contains_key(name) {
            let kernel = self.kernels.find(name)?;
            let most = self.most_shared()?;
            if most > USUAL_SHARED {
                let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
                let fixed = kernel.shared_size_bytes()?;
                kernel.set_attribute(attribute, most as i32 - fixed)?;
            }
            found.insert(name, kernel);
        }
        let mut pointers: Vec<*mut c_void> = arguments.iter_mut().map(Argument::address).collect();
        let [x, y, z] = shape.blocks.map(|it| it as u32);
        // SAFETY: the kernel is loaded and the pointers are to values of the kinds that the caller vouches for.
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

    /// The most shared memory that a block may have on this device.
    fn most_shared(&self) -> Result<u32> {
        let attribute = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
        Ok(self.stream.context().attribute(attribute)? as u32)
    }
}

/// `launch!(gpu, "kernel", shape; a, b, c)`: issues a kernel with these arguments.
macro_rules! launch {
    ($gpu:expr, $name:expr, $shape:expr; $($argument:expr),* $(,)?) => {
        $gpu.launch($name, $shape, &mut [$($crate::device::cuda::launch::Argument::from($argument)),*])
    };
}
pub(super) use launch;
