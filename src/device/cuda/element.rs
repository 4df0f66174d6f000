//! The types of values on a GPU.

use cudarc::driver::DeviceRepr;
use half::bf16;

/// Types that can be stored in device memory.
pub trait Element: DeviceRepr + Copy + 'static {}
impl Element for bf16 {}
impl Element for f32 {}
impl Element for i32 {}
impl Element for u32 {}
impl Element for u64 {}
impl Element for u8 {}
