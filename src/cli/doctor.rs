//! `rft doctor`: what works on this machine.

use std::path::PathBuf;

use anyhow::Result;
use comfy_table::{Table, presets};
use indicatif::HumanBytes;
use serde::Serialize;

use super::output_format::OutputFormat;
use crate::cli::output;
use crate::code;
use crate::device::{Device, cuda};
use crate::disk::space;
use crate::model::hub::HubConfig;
use crate::sandbox::{Sandbox, SandboxLayers};

/// Check what works on this machine
///
/// Lists the device that `rft` selects by default; the CUDA driver, libraries and GPUs that were found, and what is missing;
/// the sandbox layers that work (each is tested) and the Python that runs programs in the sandbox; and the cache folders.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  rft doctor
  rft doctor --output-format json")]
pub struct DoctorArgs {
    /// Output format
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output_format: OutputFormat,
}

#[derive(Serialize)]
struct DoctorFindings {
    version: &'static str,
    cuda: cuda::probe::CudaFindings,
    /// The device that `--device auto` selects.
    device: String,
    threads: usize,
    sandbox: SandboxFindings,
    folders: Vec<FolderFindings>,
}

#[derive(Serialize)]
struct SandboxFindings {
    /// None if programs cannot be run safely.
    layers: Option<SandboxLayers>,
    python: Option<PathBuf>,
    /// What does not work, with the reason.
    failures: Vec<String>,
}

#[derive(Serialize)]
struct FolderFindings {
    what: &'static str,
    path: PathBuf,
    /// Bytes that this user may write; None if unknown.
    free: Option<u64>,
}

pub fn run(args: &DoctorArgs) -> Result<()> {
    let findings = DoctorFindings {
        version: env!("CARGO_PKG_VERSION"),
        cuda: cuda::probe::probe(),
        device: Device::choose("auto")?.to_string(),
        threads: std::thread::available_parallelism().map_or(1, |it| it.get()),
        sandbox: sandbox(),
        folders: folders(),
    };
    match args.output_format {
        OutputFormat::Text => print!("{}", text(&findings)),
        OutputFormat::Json => output::json(&findings),
    }
    Ok(())
}

fn sandbox() -> SandboxFindings {
    match Sandbox::probe(false) {
        Ok(sandbox) => SandboxFindings {
            layers: Some(sandbox.layers().clone()),
            python: Some(sandbox.python().executable.clone()),
            failures: sandbox.failures().to_vec(),
        },
        Err(error) => SandboxFindings { layers: None, python: None, failures: vec![format!("{error:#}")] },
    }
}

fn folders() -> Vec<FolderFindings> {
    let folder = |what, path: PathBuf| FolderFindings { what, free: space::free(&path), path };
    let hub = HubConfig::from_env().ok().map(|hub| folder("downloads", hub.cache));
    let code = code::cache().map(|path| folder("expected outputs", path));
    let here = std::env::current_dir().ok().map(|path| folder("this folder", path));
    hub.into_iter().chain(code).chain(here).collect()
}

fn text(findings: &DoctorFindings) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let mut row = |what: &str, found: String| _ = table.add_row([what.to_owned(), found]);
    row("version", findings.version.to_owned());
    row("default device", format!("{}, {} threads", findings.device, findings.threads));
    let cuda = &findings.cuda;
    row(
        "CUDA driver",
        cuda.driver.as_ref().map_or("not found".to_owned(), |version| format!("for CUDA up to {version}")),
    );
    if cuda.driver.is_some() {
        row("cuBLASLt", cuda.cublaslt.map_or("not found".to_owned(), |version| version.to_string()));
    }
    row("kernels", format!("for {}", cuda.kernels));
    for (ordinal, gpu) in cuda.gpus.iter().enumerate() {
        let memory = gpu.memory.map_or_else(String::new, |bytes| format!(", {}", HumanBytes(bytes as u64)));
        let (major, minor) = gpu.compute_capability;
        row(&format!("cuda:{ordinal}"), format!("{}, compute capability {major}.{minor}{memory}", gpu.name));
    }
    cuda.missing.iter().for_each(|missing| row("", missing.clone()));
    let sandbox = &findings.sandbox;
    match &sandbox.layers {
        None => row("sandbox", "unavailable; programs are not run".to_owned()),
        Some(layers) => {
            let yes = |works: bool| if works { "yes" } else { "no" }.to_owned();
            let python = sandbox.python.as_ref().map_or_else(String::new, |it| format!(", {}", it.display()));
            row("python", format!("{}{python}", layers.python));
            row("numpy", layers.numpy.clone().unwrap_or_else(|| "no".to_owned()));
            row("sandbox: namespaces", yes(layers.namespaces));
            row(
                "sandbox: Landlock",
                if layers.landlock > 0 { format!("version {}", layers.landlock) } else { yes(false) },
            );
            row("sandbox: seccomp", yes(layers.seccomp));
            row("sandbox: user", if layers.other_user { "nobody" } else { "same as caller" }.to_owned());
        }
    }
    for failure in &sandbox.failures {
        row("", failure.replace("\nhint: ", "; "));
    }
    for folder in &findings.folders {
        let free = folder.free.map_or_else(String::new, |free| format!(", {} free", HumanBytes(free)));
        row(folder.what, format!("{}{free}", folder.path.display()));
    }
    table.trim_fmt() + "\n"
}
