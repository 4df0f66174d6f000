//! The emulated GPU itself: it reports every kind of mistake, and accepts correct programs. Each case is one run of
//! tests/device/objections.cpp, linked with the driver and the kernels of tests/device/mistakes.cu.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use serde_json::{Value, json};

use super::{LIBRARIES, libraries};

/// The folder with the program and its libraries, or none and the test is skipped.
fn program() -> Option<&'static Path> {
    static PROGRAM: LazyLock<Option<PathBuf>> = LazyLock::new(|| LIBRARIES.as_deref().ok().map(build));
    libraries()?;
    PROGRAM.as_deref()
}

/// Builds the program, linked with the emulated device's libraries in `driver`, and returns its folder.
fn build(driver: &Path) -> PathBuf {
    let built = driver.join("objections");
    if built.exists() {
        return built;
    }
    let device = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/device");
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/device/cuda/kernels");
    let partial = tempfile::tempdir_in(driver).unwrap();
    let succeeds = |command: &mut Command| {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    succeeds(
        Command::new("sh")
            .args([&device.join("build.sh"), &device, partial.path(), driver])
            .env("EXTRA", format!("-I{}", kernels.display())),
    );
    fs::remove_dir_all(partial.path().join("build")).unwrap();
    succeeds(
        Command::new(std::env::var("CXX").unwrap_or_else(|_| "g++".to_owned()))
            .args(["-std=c++17", "-O1", "-o"])
            .args([partial.path().join("objections"), device.join("objections.cpp")])
            .arg("-L")
            .arg(partial.path())
            .arg("-l:libcuda.so.1"),
    );
    // Another process may have been faster.
    _ = fs::rename(partial.keep(), &built);
    built
}

/// The output of a case, with addresses as `0x...`, and its exit code.
fn run(folder: &Path, case: &str, settings: &[(&str, &str)]) -> (String, Option<i32>) {
    let mut command = Command::new(folder.join("objections"));
    command.arg(case).env("LD_LIBRARY_PATH", folder).envs(settings.iter().copied());
    let output = command.output().unwrap();
    let printed = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    let mut parts = printed.trim_end().split("0x");
    let mut said = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        said += "0x...";
        said += part.trim_start_matches(|c: char| c.is_ascii_hexdigit());
    }
    (said, output.status.code())
}

const DEFERRED: &[(&str, &str)] = &[("RFT_EMU_DEFERRED", "1")];
const TWO_DEVICES: &[(&str, &str)] = &[("RFT_EMU_DEVICES", "2")];

/// A case of the program, settings of the emulated device, and the expected output.
type Case = (&'static str, &'static [(&'static str, &'static str)], &'static str);

/// A case, settings of the device, and the reported mistake, which ends the program with exit code 70. If it ends with
/// `...`, the message continues.
#[rustfmt::skip]
const OBJECTIONS: &[Case] = &[
    ("copy from freed memory", &[], "copy from the device: 0x... is memory that was freed"),
    ("kernel on freed memory", &[], "sum_with_barriers: argument 0: 0x... is memory that was freed"),
    ("kernel on freed memory, in the order of the stream", &[], "sum_with_barriers: argument 0: 0x... is memory that was freed"),
    ("kernel on freed memory, in the order of the stream", DEFERRED, "sum_with_barriers: argument 0: 0x... is memory that was freed"),
    ("fill of foreign memory", &[], "fill: 0x... is not device memory"),
    ("kernel on foreign memory", &[], "sum_with_barriers: argument 0: 0x... is not device memory"),
    ("memory of another device", TWO_DEVICES, "sum_with_barriers: argument 0: memory of device 0 on device 1"),
    ("free twice", &[], "free of 0x..., which was freed before"),
    ("free in the middle", &[], "free of 0x..., which is not the start of an allocation"),
    ("free of foreign host memory", &[], "free of 0x..., which is not pinned host memory"),
    ("copy past the end", &[], "copy to the device: 260 bytes from byte 0 of an allocation of 256"),
    ("fill past the end", &[], "fill: 256 bytes from byte 16 of an allocation of 256"),
    ("copy between overlapping ranges", &[], "copy on the device: the ranges overlap"),
    ("host reads freed memory", &[], "the host touches byte 0 of a freed allocation of 256 bytes on the device"),
    ("kernel writes past the end", &[], "writes_past_the_end: an access to byte 256 of an allocation of 256 bytes; block (0, 0, 0), thread (63, 0, 0)"),
    ("kernel reads past the end", &[], "reads_past_the_end: an access to byte 256 of an allocation of 256 bytes; block (0, 0, 0), thread (63, 0, 0)"),
    ("kernel writes past an end that is not aligned, found when it is freed", &[], "byte 252 of an allocation of 252 bytes was written"),
    ("kernel writes past an end that is not aligned, found when the program ends", &[], "byte 252 of an allocation of 252 bytes was written"),
    ("kernel reads past an end that is not aligned", &[("RFT_EMU_ALIGN", "4")], "sum_with_barriers: an access to byte 252 of an allocation of 252 bytes; block (0, 0, 0), thread (63, 0, 0)"),
    ("kernel writes to a constant", &[("RFT_EMU_CONST", "1")], "writes_to_a_constant: an access to byte 0 of a constant allocation of 256 bytes; block (0, 0, 0), thread (0, 0, 0)"),
    ("argument that is not aligned", &[], "sum_with_barriers: argument 0: 0x... is not aligned to 4 bytes"),
    ("access that is not aligned", &[], "misaligned: an index out of bounds, an address that is not aligned, or an overflow of a signed integer; block (0, 0, 0), thread (0, 0, 0)"),
    ("index out of bounds", &[], "index_out_of_bounds: an index out of bounds, an address that is not aligned, or an overflow of a signed integer; block (0, 0, 0), thread (32, 0, 0)"),
    ("attributes", &[("RFT_EMU_GPU", "h100")], "RFT_EMU_GPU=h100: expected h200, a100, l40s, b200 or rtx5090"),
    ("attributes", &[("RFT_EMU_MEMORY_MIB", "much")], "RFT_EMU_MEMORY_MIB=much: expected a number"),
    ("sum with barriers", &[("RFT_EMU_ORDER", "random")], "RFT_EMU_ORDER=random: expected forward, reverse or shuffled"),
    ("grid without blocks", &[], "sum_with_barriers: a grid of 0 x 1 x 1 blocks; expected 1 to 2147483647 x 65535 x 65535"),
    ("grid too high", &[], "sum_with_barriers: a grid of 1 x 65536 x 1 blocks; expected 1 to 2147483647 x 65535 x 65535"),
    ("block too large", &[], "sum_with_barriers: a block of 1056 threads; the kernel is compiled for 1 to 1024"),
    ("block larger than the kernel's bound", &[], "at_most_128_threads: a block of 160 threads; the kernel is compiled for 1 to 128"),
    ("half a warp", &[], "sum_with_barriers: a block of 48 threads, which is not a multiple of 32"),
    ("too much shared memory", &[], "sum_with_barriers: 49168 bytes of dynamic shared memory; at most 49152 are allowed"),
    ("kernel of an unloaded module", &[], "a function is used after its module was unloaded"),
    ("module unloaded while its kernel is under way", DEFERRED, "a module is unloaded while its kernel sum_with_barriers is under way"),
    ("stream of another device", TWO_DEVICES, "sum_with_barriers: a stream of device 0 on device 1"),
    ("barrier for some", &[], "barrier_for_some: deadlock: 63 of 64 threads wait for others that have ended or wait elsewhere; thread 0 waits at __syncthreads in line 30; ..."),
    ("barriers in two branches", &[], "barriers_in_two_branches: threads meet at different barriers, in lines 38 and 36; block (0, 0, 0), thread (32, 0, 0)"),
    ("shuffle for some", &[], "shuffle_for_some: deadlock: 31 of 64 threads wait for others that have ended or wait elsewhere; thread 0 waits at __shfl_xor_sync in line 43; ..."),
    ("shuffle from outside", &[], "shuffle_from_outside: __shfl_sync in line 47: lane 0 reads lane 20, which the mask leaves out; block (0, 0, 0), thread (15, 0, 0)"),
    ("mask without the caller", &[], "mask_without_the_caller: __shfl_xor_sync in line 156: the mask 0000ffff is without lane 16 that calls it; block (0, 0, 0), thread (16, 0, 0)"),
    ("lane that does not exist", &[], "lane_that_does_not_exist: __shfl_down_sync in line 160: there is no lane 32; block (0, 0, 0), thread (31, 0, 0)"),
    ("different warp functions", &[], "different_warp_functions: lane 16 is at __any_sync in line 54, lane 0 at __shfl_xor_sync in line 52; block (0, 0, 0), thread (16, 0, 0)"),
    ("write past shared memory", &[], "writes_past_shared_memory: an access to byte 256 of the dynamic shared memory, which has 256; block (0, 0, 0), thread (0, 0, 0)"),
    ("copy without a wait", &[], "copy_without_a_wait: the thread ends with a cp.async that it never waited for; block (0, 0, 0), thread (0, 0, 0)"),
    ("copy to global memory", &[], "copy_to_global_memory: cp_async16 in line 170: the address is outside of shared memory; block (0, 0, 0), thread (0, 0, 0)"),
    ("rows that are not aligned", &[], "rows_that_are_not_aligned: ldmatrix_x4 in line 178: the address is not a multiple of 16; block (0, 0, 0), thread (1, 0, 0)"),
    ("allocation in a captured stream", &[], "an allocation while the stream is captured"),
    ("memory is freed in a captured stream", &[], "memory is freed while the stream is captured"),
    ("stream is destroyed while it is captured", &[], "a stream is destroyed while it is captured"),
    ("graph within a graph", &[], "a graph within a graph is not emulated"),
    ("event in a captured stream", &[], "an event in a stream that is captured is not emulated"),
    ("launch of a destroyed graph", &[], "a destroyed executable graph is used"),
    ("graph with memory that was freed", &[], "sum_with_barriers: argument 0: 0x... is memory that was freed"),
    ("graph with pinned memory that was freed", &[], "pinned memory was freed before the copy that uses it was done"),
    ("use of a destroyed stream", &[], "a destroyed stream is used"),
    ("not a stream", &[], "0x... is not a valid stream"),
    ("use of a destroyed event", &[], "a destroyed event is used"),
    ("context that was released", &[], "use of a context that was released"),
    ("pinned memory is freed before the wait", DEFERRED, "pinned memory was freed before the copy that uses it was done"),
    ("product: layouts that do not match", &[], "product: the layouts do not match"),
    ("product: a leading dimension that is too small", &[], "product: the layouts do not match"),
    ("product: a leading dimension that is not aligned", &[], "product: the leading dimension of second operand, 513, is not a multiple of 16 bytes"),
    ("product: an operand that is not aligned", &[], "product: first operand at 0x... is not aligned to 256 bytes"),
    ("product: an operand that is too short", &[], "product: second operand: 49152 bytes from byte 0 of an allocation of 48128"),
    ("product: an output that is too short", &[], "product: output: 12288 bytes from byte 0 of an allocation of 12284"),
    ("product: the output overlaps an operand", &[], "product: the output overlaps the first operand"),
    ("product: an algorithm for another product", &[], "product: the algorithm was chosen for another product"),
    ("product: a workspace that is too small", &[], "product: a workspace of 1024 bytes is too small for the algorithm"),
    ("product: a destroyed layout", &[], "a destroyed matrix layout is used"),
    ("product: the handle of another device", TWO_DEVICES, "product: the cuBLASLt handle belongs to another device"),
];

const SPOILED: &str = "end of the capture: CUDA_ERROR_STREAM_CAPTURE_INVALIDATED";

/// A case, settings of the device, and the output of the program, which succeeds.
#[rustfmt::skip]
const RESULTS: &[Case] = &[
    ("fresh memory is NaN", &[], "1"),
    ("kernel writes to a constant", &[], ""),
    ("kernel reads past an end that is not aligned", &[], "nothing was found"),
    ("sum with barriers", &[("RFT_EMU_CONST", "1")], "0 NaN, first 4.74389, hash bd5fc536225d89a5"),
    ("reads unwritten memory", &[], "64 NaN, first nan"),
    ("copy read too early", &[], "64 NaN, first nan"),
    ("tensor cores multiply", &[], "right right"),
    ("more memory than there is", &[], "143771 MiB\nall and one byte: CUDA_ERROR_OUT_OF_MEMORY\nall: CUDA_SUCCESS\none byte more: CUDA_ERROR_OUT_OF_MEMORY\nafter it was freed: CUDA_SUCCESS"),
    ("more memory than there is", &[("RFT_EMU_MEMORY_MIB", "64")], "64 MiB\nall and one byte: CUDA_ERROR_OUT_OF_MEMORY\nall: CUDA_SUCCESS\none byte more: CUDA_ERROR_OUT_OF_MEMORY\nafter it was freed: CUDA_SUCCESS"),
    ("third allocation fails", &[("RFT_EMU_FAIL_ALLOCATION", "3")], "first: CUDA_SUCCESS\nsecond: CUDA_SUCCESS\nthird: CUDA_ERROR_OUT_OF_MEMORY\nfourth: CUDA_SUCCESS"),
    ("third allocation fails", &[("RFT_EMU_FAIL_ALLOCATION", "1")], "first: CUDA_ERROR_OUT_OF_MEMORY\nsecond: CUDA_SUCCESS\nthird: CUDA_SUCCESS\nfourth: CUDA_SUCCESS"),
    ("attributes", &[], "Emulated H200, 9.0, 232448 bytes per block, 132 multiprocessors, pools 1, 143771 MiB\n100 KiB of shared memory: CUDA_SUCCESS\nallocation in a pool: CUDA_SUCCESS"),
    ("attributes", &[("RFT_EMU_GPU", "a100")], "Emulated A100, 8.0, 166912 bytes per block, 108 multiprocessors, pools 1, 81920 MiB\n100 KiB of shared memory: CUDA_SUCCESS\nallocation in a pool: CUDA_SUCCESS"),
    ("attributes", &[("RFT_EMU_GPU", "l40s")], "Emulated L40S, 8.9, 101376 bytes per block, 142 multiprocessors, pools 1, 46068 MiB\n100 KiB of shared memory: CUDA_ERROR_INVALID_VALUE\nallocation in a pool: CUDA_SUCCESS"),
    ("attributes", &[("RFT_EMU_GPU", "b200")], "Emulated B200, 10.0, 232448 bytes per block, 148 multiprocessors, pools 1, 183359 MiB\n100 KiB of shared memory: CUDA_SUCCESS\nallocation in a pool: CUDA_SUCCESS"),
    ("attributes", &[("RFT_EMU_GPU", "rtx5090"), ("RFT_EMU_POOLS", "0")], "Emulated RTX 5090, 12.0, 101376 bytes per block, 170 multiprocessors, pools 0, 32607 MiB\n100 KiB of shared memory: CUDA_ERROR_INVALID_VALUE\nallocation in a pool: CUDA_ERROR_NOT_SUPPORTED"),
    ("as much shared memory as requested", &[], "launched"),
    ("parameters of a kernel", &[], "8 at 0, 8 at 8, 8 at 16, 4 at 24, then: CUDA_ERROR_INVALID_VALUE"),
    ("unknown kernel", &[], "no_such_kernel: CUDA_ERROR_NOT_FOUND"),
    ("not an image", &[], "an image: CUDA_ERROR_INVALID_IMAGE"),
    ("allocation during a capture", &[], "allocation: CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED\nSPOILED"),
    ("allocation of host memory during a capture", &[], "allocation: CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED\nSPOILED"),
    ("wait during a capture", &[], "wait: CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED\nSPOILED"),
    ("wait for all during a capture", &[], "wait: CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED\nSPOILED"),
    ("query during a capture", &[], "query: CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED\nSPOILED"),
    ("copy of pageable memory during a capture", &[], "up: CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED\nSPOILED\ndown: CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED\nSPOILED\nnow: CUDA_ERROR_STREAM_CAPTURE_IMPLICIT\nSPOILED"),
    ("capture that succeeds", &[], "captured: 0, launched: 64, again: 65"),
    ("capture that succeeds", DEFERRED, "captured: 0, launched: 64, again: 65"),
    ("time between events", &[], "before the wait: CUDA_SUCCESS\npositive 1, the parts make the whole 1\nwithout times: CUDA_ERROR_INVALID_HANDLE\nnot recorded: CUDA_ERROR_INVALID_HANDLE"),
    ("time between events", DEFERRED, "before the wait: CUDA_ERROR_NOT_READY\npositive 1, the parts make the whole 1\nwithout times: CUDA_ERROR_INVALID_HANDLE\nnot recorded: CUDA_ERROR_INVALID_HANDLE"),
    ("host memory is read before the wait", &[], "1, stream: CUDA_SUCCESS\n1, stream: CUDA_SUCCESS"),
    ("host memory is read before the wait", DEFERRED, "-1, stream: CUDA_ERROR_NOT_READY\n1, stream: CUDA_SUCCESS"),
    ("pinned memory is changed before the wait", &[], "pinned 0, pageable 0"),
    ("pinned memory is changed before the wait", DEFERRED, "pinned 1, pageable 0"),
    ("events order two streams", DEFERRED, "without an event: 0\nwith an event: 2080\nthe first stream: CUDA_SUCCESS"),
    ("event is queried repeatedly", DEFERRED, "done at query 3"),
    ("product", &[], "right, right, right, 3 candidates, other bits, other bits, 1 without a workspace"),
    ("product: layouts that do not match", &[], "heuristic: 7"),
    ("product: an algorithm for another product", &[], "check: 15"),
    ("product: a type that is not known", &[], "heuristic: 15"),
];

/// Kernels without a necessary barrier, and correct ones.
const MISSING_BARRIERS: [&str; 4] = [
    "sum without a barrier",
    "shared memory written again too early",
    "copy without a barrier",
    "blocks that depend on each other",
];
const NO_BARRIER_MISSING: [&str; 3] = ["sum with barriers", "copy with barriers", "tensor cores multiply"];

#[test]
fn every_mistake_is_reported() {
    let Some(folder) = program() else { return };
    let mut wrong = Vec::new();
    for (case, settings, expected) in OBJECTIONS {
        let (said, code) = run(folder, case, settings);
        let got = said.lines().last().and_then(|line| line.strip_prefix("emulated device: "));
        let same = |got: &str| match expected.strip_suffix("...") {
            Some(start) => got.starts_with(start),
            None => got == *expected,
        };
        if !got.is_some_and(same) || code != Some(70) {
            wrong.push(format!("{case}: expected {expected:?}, found {said:?}, exit code {code:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn correct_programs_pass() {
    let Some(folder) = program() else { return };
    let mut wrong = Vec::new();
    for (case, settings, expected) in RESULTS {
        let (said, code) = run(folder, case, settings);
        let expected = expected.replace("SPOILED", SPOILED);
        // Two of the cases about products end with a reported mistake.
        let (got, objection) = said.split_once("\nemulated device: ").unwrap_or((&said, ""));
        if got != expected || code != Some(if objection.is_empty() { 0 } else { 70 }) {
            wrong.push(format!("{case}: expected {expected:?}, found {said:?}, exit code {code:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A kernel without a necessary barrier gives different bits when its threads or blocks run in another order.
#[test]
fn a_missing_barrier_changes_results_with_the_order_of_threads() {
    let Some(folder) = program() else { return };
    let results = |case| {
        let orders = ["forward", "reverse", "shuffled"];
        orders.map(|order| run(folder, case, &[("RFT_EMU_ORDER", order)])).into_iter().collect::<BTreeSet<_>>()
    };
    for case in MISSING_BARRIERS {
        assert!(results(case).len() > 1, "{case}: the same bits in all orders");
    }
    for case in NO_BARRIER_MISSING {
        assert_eq!(results(case).len(), 1, "{case}");
    }
    // Threads and blocks on one core give the same bits as on all cores.
    for case in NO_BARRIER_MISSING {
        assert_eq!(
            run(folder, case, &[("RFT_EMU_THREADS", "1")]),
            run(folder, case, &[("RFT_EMU_THREADS", "3")]),
            "{case}"
        );
    }
}

#[test]
fn the_report_counts_what_was_done() {
    let Some(folder) = program() else { return };
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("report-%p.json");
    assert_eq!(run(folder, "report", &[("RFT_EMU_REPORT", path.to_str().unwrap())]), (String::new(), Some(0)));
    let [file] =
        fs::read_dir(out.path()).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>().try_into().unwrap();
    let id = file.file_stem().unwrap().to_str().unwrap().strip_prefix("report-").unwrap();
    assert!(id.parse::<u32>().is_ok(), "{id} is not the id of a process");
    let mut report: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    for kind in ["kernels", "products"] {
        for (name, count) in report[kind].as_object_mut().unwrap() {
            let seconds = count.as_object_mut().unwrap().remove("seconds").unwrap();
            assert!(seconds.as_f64().unwrap() >= 0.0, "{name}: {seconds} s");
        }
    }
    // 64 values of 4 bytes; a product of (64, 512) and (512, 48).
    let (operands, output) = (2 * (64 * 512 + 512 * 48), 4 * 64 * 48);
    let expected = json!({
        "gpu": "Emulated H200",
        "waits": 1,
        "graphs": 1,
        "graph_nodes": 3,
        "graphs_instantiated": 1,
        "graph_launches": 2,
        "allocations": 6,
        "allocations_left": 6,
        "peak_bytes": 2 * 256 + operands + output + (4 << 20),
        "kernels": {"sum_with_barriers": {"times": 3, "from_graphs": 2, "blocks": 3 + 2 * 2}},
        "products": {
            "64x48x512 tn f32": {
                "times": 2, "from_graphs": 2, "bytes": 2 * (operands + output), "flops": 2 * 2 * 64 * 48 * 512,
            },
        },
        "copies": {
            "up": {"times": 3, "from_graphs": 0, "bytes": 256 + operands},
            "down": {"times": 1, "from_graphs": 0, "bytes": 256},
            "across": {"times": 2, "from_graphs": 2, "bytes": 2 * 256},
            "fills": {"times": 1, "from_graphs": 0, "bytes": 256},
        },
    });
    assert_eq!(report, expected);
}

/// The lists above contain every case of the program.
#[test]
fn every_case_is_run() {
    let Some(folder) = program() else { return };
    let (usage, code) = run(folder, "", &[]);
    assert_eq!(code, Some(2));
    let cases: BTreeSet<&str> = usage.lines().skip(1).map(str::trim).collect();
    let mut here: BTreeSet<&str> = OBJECTIONS.iter().chain(RESULTS).map(|(case, ..)| *case).collect();
    here.extend(MISSING_BARRIERS.iter().chain(&NO_BARRIER_MISSING).chain(&["report"]));
    assert_eq!(here, cases);
}
