//! Errors that a launch reports before it reaches the device.

use super::SelftestCase;
use crate::device::cuda::launch::{LaunchShape, driver_tells_parameters, launch};
use crate::device::cuda::ops;

pub fn launches() -> Vec<SelftestCase> {
    let short_buffer = SelftestCase::new("a buffer that is too short", |lab| {
        let (from, to) = (lab.poisoned(5 * 8)?, lab.poisoned(2 * 8 - 1)?);
        let index = lab.int(&[4, 0])?;
        let error = ops::gather_rows(&lab.gpu, from, index, to, 8).err().map(|error| error.to_string());
        let found = error.is_some_and(|it| it.contains("argument 2 has 15 values, but the kernel uses 16"));
        lab.holds("is an error", found);
        Ok(())
    });
    let large_grid = SelftestCase::new("a grid that is too large", |lab| {
        let shape = LaunchShape { blocks: [1, 65_536, 1], threads: 32, shared: 0 };
        // SAFETY: the launch fails because of its shape.
        let launched = unsafe { launch!(lab.gpu, "gather_rows", shape; 0, 0, 0, 8) };
        lab.holds("is an error", launched.is_err_and(|error| error.to_string().contains("65535")));
        Ok(())
    });
    let other_arguments = SelftestCase::new("arguments that differ from the parameters", |lab| {
        // If the driver does not report a kernel's parameters, the launch would run.
        if driver_tells_parameters() {
            // SAFETY: the launch fails because of its arguments.
            let launched = unsafe { launch!(lab.gpu, "scatter_rows", LaunchShape::new(1, 32); 0u64, 0u64, 0u64, 8) };
            let found = launched.err().map(|error| error.to_string()).unwrap_or_default();
            let told = found.contains("parameters have [8, 8, 8, 8, 4] bytes, the arguments [8, 8, 8, 4]");
            lab.holds("is an error", told);
        }
        Ok(())
    });
    vec![short_buffer, large_grid, other_arguments]
}
