//! The types of values on a GPU.

use cudarc::driver::DeviceRepr;
use half::bf16;

/// Types that can be stored in device memory.
pub trait Element: DeviceRepr + Copy + 'static {
    const ZERO: Self;

    /// The same values, if they are integers that kernels count with.
    fn integers(_values: &[Self]) -> Option<&[i32]> {
        None
    }
}

impl Element for bf16 {
    const ZERO: Self = bf16::ZERO;
}

impl Element for f32 {
    const ZERO: Self = 0.0;
}

impl Element for i32 {
    const ZERO: Self = 0;

    fn integers(values: &[Self]) -> Option<&[i32]> {
        Some(values)
    }
}

impl Element for u32 {
    const ZERO: Self = 0;
}

impl Element for u64 {
    const ZERO: Self = 0;
}

impl Element for u8 {
    const ZERO: Self = 0;
}
