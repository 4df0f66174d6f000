//! The self-test on the emulated GPU: every operation, decoder and step of training computes what the CPU computes.

use crate::cli::folder;
use crate::device::on_device;

/// Runs groups of checks and returns the lines of those that failed.
fn failed(groups: &[&str], settings: &[(&str, &str)]) -> Option<Vec<String>> {
    let folder = folder();
    let mut failed = Vec::new();
    for group in groups {
        let output = on_device(folder.path(), settings)?.args(["selftest", "--filter", group]).output().unwrap();
        let (checks, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(said.contains(" checks, "), "`{group}` did not end: {said}");
        failed.extend(checks.lines().filter(|line| line.starts_with("FAILED")).map(str::to_owned));
    }
    Some(failed)
}

/// What runs kernels of its own, apart from whole decoders.
const OPERATIONS: [&str; 13] = [
    "init",
    "products",
    "rms-norm",
    "qk-norm",
    "rope",
    "swiglu",
    "rows",
    "head",
    "sampler",
    "adamw",
    "lora",
    "attention",
    "decode-attention",
];

/// In each order of blocks and threads, which shows a missing barrier, and with each buffer between guard pages.
#[test]
fn operations_are_those_of_the_cpu() {
    for order in ["forward", "reverse", "shuffled"] {
        let Some(failed) = failed(&OPERATIONS, &[("RFT_EMU_ORDER", order)]) else { return };
        assert!(failed.is_empty(), "{order}: {failed:#?}");
    }
}

#[test]
fn recomputation_and_small_memory_change_no_gradient() {
    let Some(failed) = failed(&["checkpointing", "memory"], &[]) else { return };
    assert!(failed.is_empty(), "{failed:#?}");
}
