//! Compiles the CUDA kernels; without the feature `cuda` there is nothing to do.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "cuda")]
    kernels::build();
}

#[cfg(feature = "cuda")]
mod kernels {
    use std::fmt::Write;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    const SOURCES: &str = "src/ops/kernels";
    /// Ampere and Hopper; newer GPUs translate the PTX of the last one when they load it.
    const ARCHS: &str = "80,90";

    /// One fat binary for each `.cu`, with machine code for every architecture of `RFT_CUDA_ARCHS`, and a list of them.
    pub fn build() {
        println!("cargo::rerun-if-changed={SOURCES}");
        println!("cargo::rerun-if-env-changed=RFT_CUDA_ARCHS");
        let toolkit = cudaforge::CudaToolkit::detect().unwrap_or_else(|error| {
            panic!("the feature `cuda` needs a CUDA toolkit: {error}\nhint: set CUDA_HOME to it, or build without the feature")
        });
        let archs = std::env::var("RFT_CUDA_ARCHS").unwrap_or_else(|_| ARCHS.to_owned());
        let out = PathBuf::from(std::env::var("OUT_DIR").expect("cargo sets OUT_DIR"));
        let mut sources: Vec<PathBuf> = std::fs::read_dir(SOURCES)
            .expect("the folder of the kernels")
            .map(|entry| entry.expect("a readable folder").path())
            .filter(|path| path.extension().is_some_and(|it| it == "cu"))
            .collect();
        sources.sort();
        let mut list = String::from("pub const MODULES: &[(&str, &[u8])] = &[\n");
        std::thread::scope(|scope| {
            for source in &sources {
                let (archs, out, nvcc) = (&archs, &out, &toolkit.nvcc_path);
                scope.spawn(move || compile(nvcc, source, archs, &fatbin(out, source)));
            }
        });
        for source in &sources {
            let name = source.file_stem().expect("a file").display();
            writeln!(list, "    ({name:?}, include_bytes!({:?})),", fatbin(&out, source)).expect("memory");
        }
        std::fs::write(out.join("kernels.rs"), list + "];\n").expect("write the list of kernels");
    }

    fn fatbin(out: &Path, source: &Path) -> PathBuf {
        out.join(source.with_extension("fatbin").file_name().expect("a file"))
    }

    fn compile(nvcc: &Path, source: &Path, archs: &str, to: &Path) {
        let mut command = Command::new(nvcc);
        command.args(["-fatbin", "-O3", "-std=c++17", "-o"]).arg(to).arg(source);
        let archs: Vec<&str> = archs.split(',').map(str::trim).collect();
        for arch in &archs {
            command.arg(format!("-gencode=arch=compute_{arch},code=sm_{arch}"));
        }
        let newest = archs.last().expect("an architecture");
        command.arg(format!("-gencode=arch=compute_{newest},code=compute_{newest}"));
        let output = command.output().unwrap_or_else(|error| panic!("run {}: {error}", nvcc.display()));
        assert!(output.status.success(), "{}: {}", source.display(), String::from_utf8_lossy(&output.stderr));
    }
}
