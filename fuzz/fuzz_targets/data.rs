#![no_main]
#[allow(dead_code, reason = "each target calls one function")]
#[path = "../../tests/it/entry_points.rs"]
mod entry_points;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| entry_points::data(bytes));
