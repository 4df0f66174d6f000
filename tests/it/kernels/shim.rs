//! Compiles a kernel's file with the emulator of `tests/device` and runs single launches of it in a process of its own.

use rft::rng::{Purpose, Stream, name_hash};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

/// No contraction to fused operations: where a kernel needs one it says so. Casts between vector types are everyday life
/// in kernels.
const FLAGS: &[&str] = &["-std=c++17", "-O1", "-w", "-ffp-contract=off", "-fno-strict-aliasing"];
/// Used where the compiler has them.
const SANITIZERS: &[&str] =
    &["-fsanitize=address,alignment,bounds,shift,signed-integer-overflow", "-fno-sanitize-recover=all"];

/// Most of the time that a launch takes is spent in the fibers; a kernel that never ends is stopped.
const SECONDS: u32 = 120;

/// The kernels of one file, compiled.
pub struct Module {
    program: PathBuf,
}

/// One argument of a kernel.
#[derive(Clone)]
pub enum Arg {
    Null,
    Buffer(Vec<u8>),
    Scalar(Vec<u8>),
}

/// The shape of a launch.
#[derive(Clone, Copy)]
pub struct Shape {
    pub blocks: [u32; 3],
    pub threads: u32,
    /// Bytes of dynamic shared memory.
    pub shared: u32,
}

/// What the buffers hold after a launch, by the position of their argument.
pub struct Outputs(Vec<Vec<u8>>);

/// The kernels `names` of src/device/cuda/kernels/`file`.cu. `None`, with the reason printed, where they cannot be compiled.
pub fn module(file: &str, names: &[&str]) -> Option<Module> {
    module_of(&root().join(format!("src/device/cuda/kernels/{file}.cu")), names)
}

/// [`module`] of any file.
pub fn module_of(file: &Path, names: &[&str]) -> Option<Module> {
    let Some(compiler) = COMPILER.as_ref() else {
        eprintln!("skipped: no C++ compiler for the emulated device (`CXX`, g++, c++ or clang++ on Linux)");
        return None;
    };
    let kernels = root().join("src/device/cuda/kernels");
    let headers = root().join("tests/device");
    let program = format!("#include \"driver.h\"\n#include \"{}\"\nKERNELS({})\n", file.display(), names.join(", "));

    // A program is kept for as long as nothing that it is made of has changed.
    let mut made_of = format!("{compiler:?}{program}{}", fs::read_to_string(file).expect("read the kernels"));
    for (directory, extension) in [(&headers, "h"), (&headers, "cpp"), (&kernels, "cuh")] {
        let mut paths: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|it| it == extension));
        paths.sort();
        paths.iter().for_each(|path| made_of += &fs::read_to_string(path).unwrap());
    }
    let stem = file.file_stem().unwrap().to_str().unwrap();
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("shim-{stem}-{:016x}", name_hash(&made_of)));
    if !path.exists() {
        let unfinished = path.with_extension(std::process::id().to_string());
        let include = [format!("-I{}", headers.display()), format!("-I{}", kernels.display())];
        let output = compiler.compile(&program, &include, &unfinished);
        assert!(output.status.success(), "compile {}:\n{}", file.display(), String::from_utf8_lossy(&output.stderr));
        fs::rename(&unfinished, &path).unwrap();
    }
    Some(Module { program: path })
}

impl Module {
    /// Runs `kernel`, and panics with the emulator's words where it breaks a rule.
    pub fn launch(&self, kernel: &str, shape: Shape, arguments: &[Arg]) -> Outputs {
        self.try_launch(kernel, shape, arguments).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Runs `kernel`; the error is what the emulator has to object to.
    pub fn try_launch(&self, kernel: &str, shape: Shape, arguments: &[Arg]) -> Result<Outputs, String> {
        let mut request = Vec::new();
        let mut word = |value: u32| request.extend(value.to_ne_bytes());
        word(kernel.len() as u32);
        request.extend(kernel.bytes());
        let [x, y, z] = shape.blocks;
        for value in [x, y, z, shape.threads, 1, 1, shape.shared, arguments.len() as u32] {
            request.extend(value.to_ne_bytes());
        }
        for argument in arguments {
            let (kind, bytes): (u32, &[u8]) = match argument {
                Arg::Null => (0, &[]),
                Arg::Buffer(bytes) => (1, bytes),
                Arg::Scalar(bytes) => (2, bytes),
            };
            request.extend(kind.to_ne_bytes());
            request.extend((bytes.len() as u64).to_ne_bytes());
            request.extend(bytes);
        }

        let Output { status, stdout, stderr } = run(Command::new(&self.program).arg(SECONDS.to_string()), request);
        if !status.success() {
            return Err(format!("{status}: {}", String::from_utf8_lossy(&stderr)));
        }
        let mut rest = &stdout[..];
        let buffers = arguments.iter().map(|argument| match argument {
            Arg::Buffer(bytes) => rest.split_off(..bytes.len()).expect("a whole answer").to_vec(),
            _ => Vec::new(),
        });
        let outputs = Outputs(buffers.collect());
        assert!(rest.is_empty(), "{} bytes too many in the answer", rest.len());
        Ok(outputs)
    }
}

impl Outputs {
    fn words<const N: usize>(&self, argument: usize) -> impl Iterator<Item = [u8; N]> {
        self.0[argument].as_chunks::<N>().0.iter().copied()
    }

    pub fn bf16(&self, argument: usize) -> Vec<f32> {
        self.words(argument).map(|bytes| f32::from_bits(u32::from(u16::from_ne_bytes(bytes)) << 16)).collect()
    }

    pub fn f32(&self, argument: usize) -> Vec<f32> {
        self.words(argument).map(f32::from_ne_bytes).collect()
    }

    pub fn f64(&self, argument: usize) -> Vec<f64> {
        self.words(argument).map(f64::from_ne_bytes).collect()
    }

    pub fn u32(&self, argument: usize) -> Vec<u32> {
        self.words(argument).map(u32::from_ne_bytes).collect()
    }

    /// The buffer as it is, for the next launch.
    pub fn buffer(&self, argument: usize) -> Arg {
        Arg::Buffer(self.0[argument].clone())
    }
}

// ---- Arguments ----

/// `blocks` blocks of `threads` threads.
pub fn grid(blocks: usize, threads: usize) -> Shape {
    Shape { blocks: [blocks as u32, 1, 1], threads: threads as u32, shared: 0 }
}

/// Values in bf16, rounded to nearest.
pub fn bf16(values: &[f32]) -> Arg {
    Arg::Buffer(values.iter().flat_map(|value| bf16_bits(*value).to_ne_bytes()).collect())
}

/// Rows of `width` values, with NaN in the `columns` behind each.
pub fn rows(values: &[f32], width: usize, columns: usize) -> Arg {
    let behind = vec![f32::NAN; columns];
    bf16(&values.chunks(width).flat_map(|row| row.iter().chain(&behind)).copied().collect::<Vec<_>>())
}

/// Rows of `width` values of those that lie `width` + `columns` apart, behind which nothing was written.
pub fn in_rows(values: &[f32], width: usize, columns: usize) -> Vec<f32> {
    let rows = values.chunks(width + columns);
    assert!(
        rows.clone().all(|row| row[width..].iter().all(|value| value.is_nan())),
        "something was written behind a row"
    );
    rows.flat_map(|row| &row[..width]).copied().collect()
}

pub fn f32s(values: &[f32]) -> Arg {
    Arg::Buffer(values.iter().flat_map(|value| value.to_ne_bytes()).collect())
}

pub fn u32s(values: &[u32]) -> Arg {
    Arg::Buffer(values.iter().flat_map(|value| value.to_ne_bytes()).collect())
}

/// A buffer of `bytes` bytes full of NaN, for a kernel to fill.
pub fn out(bytes: usize) -> Arg {
    Arg::Buffer(vec![0xff; bytes])
}

pub fn i32s(values: &[i32]) -> Arg {
    Arg::Buffer(values.iter().flat_map(|value| value.to_ne_bytes()).collect())
}

pub fn int(value: usize) -> Arg {
    Arg::Scalar((value as i32).to_ne_bytes().into())
}

pub fn float(value: f32) -> Arg {
    Arg::Scalar(value.to_ne_bytes().into())
}

pub fn size(value: usize) -> Arg {
    Arg::Scalar(value.to_ne_bytes().into())
}

pub fn double(value: f64) -> Arg {
    Arg::Scalar(value.to_ne_bytes().into())
}

// ---- Data and comparison ----

fn bf16_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// The nearest value that bf16 has.
pub fn rounded(value: f32) -> f32 {
    f32::from_bits(u32::from(bf16_bits(value)) << 16)
}

/// Standard normal values that bf16 has, different for every `path`.
pub fn normal(path: u64, len: usize) -> Vec<f32> {
    let stream = Stream::new(31, Purpose::Test, &[path]);
    (0..len as u64).map(|i| rounded(stream.normal(i) as f32)).collect()
}

/// Asserts that the norm of the difference is below `tolerance` times that of `expected`, and prints the ratio.
pub fn close(what: &str, got: &[f32], expected: &[f32], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{what}: number of values");
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut got.iter().zip(expected).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    let error = difference / norm(&mut expected.iter().map(|x| f64::from(*x)));
    println!("{what}: {error:.1e}");
    assert!(error < tolerance, "{what}: error {error:.2e}, where {tolerance:.0e} is allowed");
}

// ---- Compiler ----

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[derive(Debug)]
struct Compiler {
    command: String,
    flags: Vec<&'static str>,
}

impl Compiler {
    fn compile(&self, source: &str, include: &[String], to: &Path) -> Output {
        let mut command = Command::new(&self.command);
        command.args(&self.flags).args(include).args(["-x", "c++", "-", "-o"]).arg(to);
        run(&mut command, source.into())
    }
}

/// The first compiler whose programs run here, with sanitizers if it has them.
static COMPILER: LazyLock<Option<Compiler>> = LazyLock::new(|| {
    if !cfg!(target_os = "linux") {
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    let probe = directory.path().join("probe");
    let runs = |compiler: &Compiler| {
        let there = Command::new(&compiler.command).arg("--version").output().is_ok();
        there
            && compiler.compile("#include <vector>\nint main() {}\n", &[], &probe).status.success()
            && Command::new(&probe).status().is_ok_and(|status| status.success())
    };
    let named = std::env::var("CXX").ok();
    let commands = named.into_iter().chain(["g++", "c++", "clang++"].map(String::from));
    // clang links its sanitizer into the program, where its thread-local variables would be taken for shared memory.
    let choices = commands.flat_map(|command| {
        let all = (!command.contains("clang")).then(|| [FLAGS, SANITIZERS].concat());
        [all, Some(FLAGS.to_vec())].into_iter().flatten().map(move |flags| Compiler { command: command.clone(), flags })
    });
    choices.into_iter().find(runs)
});

fn run(command: &mut Command, input: Vec<u8>) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A program that has stopped early says why; that its input is not read to the end is nothing to report.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}
