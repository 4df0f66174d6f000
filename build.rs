//! Lists the compiled CUDA kernels that the binary embeds, for `src/device/cuda/images.rs`: those of `assets/kernels`, or with
//! `RFT_BUILD_KERNELS=1` those that nvcc compiles from the source tree.

use std::env;
use std::ffi::OsStr;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCES: &str = "src/device/cuda/kernels";
const COMMITTED: &str = "assets/kernels";
/// Ampere and Hopper. Later GPUs compile the PTX of the last one when they load it.
const ARCHITECTURES: &str = "80,90";

/// A compiled file of kernels.
struct Image {
    /// The source without its extension.
    file: String,
    /// `sm_80`, or `compute_90` for PTX; `all` for a fat binary, from which the driver chooses.
    target: String,
    path: PathBuf,
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={COMMITTED}");
    println!("cargo::rerun-if-env-changed=RFT_BUILD_KERNELS");
    let (origin, images) =
        if env::var("RFT_BUILD_KERNELS").is_ok_and(|it| it == "1") { compile() } else { committed() };

    let mut list = format!("pub const ORIGIN: &str = {origin:?};\npub const IMAGES: &[(&str, &str, &[u8])] = &[\n");
    for Image { file, target, path } in images {
        writeln!(list, "    ({file:?}, {target:?}, include_bytes!({path:?})),").expect("memory");
    }
    fs::write(out_dir().join("kernels.rs"), list + "];\n").expect("write the list of kernels");
}

fn out_dir() -> PathBuf {
    env::var("OUT_DIR").expect("cargo sets OUT_DIR").into()
}

/// Files of `folder` with this extension, sorted.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("read {folder}: {error}"));
    let paths = entries.map(|entry| entry.expect("a readable folder").path());
    let mut paths: Vec<PathBuf> = paths.filter(|it| it.extension() == Some(OsStr::new(extension))).collect();
    paths.sort();
    paths
}

/// The images of `assets/kernels`, and the compiler that their manifest records.
fn committed() -> (String, Vec<Image>) {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(format!("{COMMITTED}/manifest.toml")).expect("read the manifest of the kernels");
    let toolkit = manifest.lines().find_map(|line| line.strip_prefix("toolkit = "));
    let toolkit = toolkit.expect("the manifest names the toolkit").trim_matches('"');
    let images = files(COMMITTED, "gz").into_iter().map(|path| {
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        let mut parts = name.split('.').map(str::to_owned);
        let mut part = || parts.next().expect("FILE.TARGET.KIND.gz");
        Image { file: part(), target: part(), path: root.join(path) }
    });
    (format!("sm_80, sm_90 and PTX for later ones, by {toolkit}"), images.collect())
}

/// Compiles every file of kernels to a fat binary, with machine code for the architectures of `RFT_CUDA_ARCHS`.
fn compile() -> (String, Vec<Image>) {
    println!("cargo::rerun-if-changed={SOURCES}");
    for variable in ["RFT_CUDA_ARCHS", "CUDA_HOME", "CUDA_PATH"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let nvcc = nvcc();
    let architectures = env::var("RFT_CUDA_ARCHS").unwrap_or_else(|_| ARCHITECTURES.to_owned());
    let sources = files(SOURCES, "cu");
    std::thread::scope(|scope| {
        for source in &sources {
            scope.spawn(|| compile_file(&nvcc, source, &architectures));
        }
    });
    let images = sources.iter().map(|source| Image {
        file: source.file_stem().expect("a file").to_string_lossy().into_owned(),
        target: "all".to_owned(),
        path: fat_binary(source),
    });
    (format!("{architectures}, by {}", nvcc.display()), images.collect())
}

fn fat_binary(source: &Path) -> PathBuf {
    out_dir().join(source.with_extension("fatbin").file_name().expect("a file"))
}

fn compile_file(nvcc: &Path, source: &Path, architectures: &str) {
    let mut command = Command::new(nvcc);
    command
        .args(["-fatbin", "-O3", "-std=c++17", "-Xfatbin", "-compress-all", "-o"])
        .arg(fat_binary(source))
        .arg(source);
    let architectures: Vec<&str> = architectures.split(',').map(str::trim).collect();
    for it in &architectures {
        command.arg(format!("-gencode=arch=compute_{it},code=sm_{it}"));
    }
    let newest = architectures.last().expect("an architecture");
    command.arg(format!("-gencode=arch=compute_{newest},code=compute_{newest}"));
    let output = command.output().unwrap_or_else(|error| panic!("run {}: {error}", nvcc.display()));
    assert!(output.status.success(), "{}: {}", source.display(), String::from_utf8_lossy(&output.stderr));
}

/// The compiler in CUDA_HOME, in CUDA_PATH, on PATH, or in its usual folder.
fn nvcc() -> PathBuf {
    let homes = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(env::var_os).map(|home| Path::new(&home).join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = homes.chain(env::split_paths(&path)).chain(["/usr/local/cuda/bin".into()]);
    let found = folders.map(|folder| folder.join(format!("nvcc{}", env::consts::EXE_SUFFIX))).find(|it| it.is_file());
    found.expect("RFT_BUILD_KERNELS=1 needs nvcc: set CUDA_HOME to a CUDA toolkit, or unset RFT_BUILD_KERNELS")
}
