//! The CUDA path on an emulated GPU: this binary loads the library of tests/device as its driver.

mod objections;

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;

use safetensors::SafeTensors;
use serde_json::Value;

use crate::cli::{folder, rft_path};
use crate::progress::{held_reward, hold_after, release, until};
use crate::require::require;
use crate::train::Trace;

/// The folder of the emulated device's libraries, built once for its sources; an error if there is no C++ compiler.
static LIBRARIES: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (device, kernels) = (root.join("tests/device"), root.join("src/device/cuda/kernels"));
    let mut hash = DefaultHasher::new();
    for folder in [&device, &kernels] {
        let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files.iter().for_each(|file| (file.file_name(), fs::read(file).unwrap()).hash(&mut hash));
    }
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("device-{:016x}", hash.finish()));
    if built.exists() {
        return Ok(built);
    }
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "g++".to_owned());
    if !Command::new(&compiler).arg("--version").output().is_ok_and(|it| it.status.success()) {
        return Err(format!("the C++ compiler `{compiler}` was not found"));
    }
    let partial = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let output =
        Command::new("sh").args([device.join("build.sh").as_path(), &kernels, partial.path()]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::remove_dir_all(partial.path().join("build")).unwrap();
    // Another process may have built it first.
    _ = fs::rename(partial.keep(), &built);
    Ok(built)
});

/// The folder of the emulated device's libraries, or none and the test is skipped.
pub fn libraries() -> Option<&'static Path> {
    require("emulated-gpu", LIBRARIES.as_deref())
}

/// `rft` in `folder` on an emulated GPU, with `settings` for it (see tests/device/driver.cpp), or none and the test is skipped.
pub fn on_device(folder: &Path, settings: &[(&str, &str)]) -> Option<Command> {
    let libraries = libraries()?;
    let mut command = Command::new(rft_path());
    command.current_dir(folder).env("LD_LIBRARY_PATH", libraries).env("XDG_CACHE_HOME", folder);
    command.envs(settings.iter().copied()).stdin(Stdio::null());
    Some(command)
}

/// A job of two steps that takes some seconds on the emulated device.
pub const TRAIN: [&str; 8] = [
    "train",
    "--ppe=null-example",
    "--set=rollout.prompts_per_step=2",
    "--set=rollout.num_generations=4",
    "--set=eval.questions=0",
    "--set=train.save_steps=1",
    "--steps=2",
    "--name=run",
];

/// The output on stderr of a command that must fail.
#[track_caller]
pub fn failed(output: Output) -> String {
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    said
}

#[track_caller]
pub fn succeeded(output: Output) -> String {
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{}: {said}", output.status);
    said
}

pub fn lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The texts of a run's completions, in order.
fn texts(run: &Path) -> Vec<String> {
    let groups = lines(&run.join("completions.jsonl"));
    let text = |it: &Value| it["text"].as_str().unwrap().to_owned();
    groups.iter().flat_map(|group| group["completions"].as_array().unwrap().iter().map(text)).collect()
}

/// The values of a trained adapter, in the order of its tensors' names.
fn trained(run: &Path) -> Vec<f32> {
    let bytes = fs::read(run.join("adapter/adapter_model.safetensors")).unwrap();
    let mut tensors = SafeTensors::deserialize(&bytes).unwrap().tensors();
    tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
    let words = tensors.iter().flat_map(|(_, tensor)| tensor.data().as_chunks::<4>().0);
    words.map(|word| f32::from_le_bytes(*word)).collect()
}

/// Norm of the difference divided by the norm of `b`.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| f64::from(a - b))) / norm(&mut b.iter().map(|b| f64::from(*b)))
}

/// Two steps on a GPU agree with the CPU: the same completions except for ties within bf16's rounding, and nearly the same
/// adapter.
#[test]
fn training_on_a_gpu_agrees_with_the_cpu() {
    agrees(&[], "grad_norm");
}

/// The divergence from the teacher over the whole vocabulary, and its estimate from the sampled tokens.
#[test]
fn distilling_on_a_gpu_agrees_with_the_cpu() {
    let distill = "--set=train.method=distill";
    agrees(&[distill], "distill/kl");
    agrees(&[distill, "--set=distill.kl=sampled"], "distill/kl");
}

/// Trains on both, and compares completions, metrics and adapters.
#[track_caller]
fn agrees(more: &[&str], metric: &str) {
    let (on_gpu, on_cpu) = (folder(), folder());
    let Some(mut command) = on_device(on_gpu.path(), &[]) else { return };
    let said = succeeded(command.args(TRAIN).args(more).arg("--device=cuda").output().unwrap());
    assert!(said.contains("bf16 on GPU 0"), "{said}");
    let mut command = Command::new(rft_path());
    succeeded(command.args(TRAIN).args(more).arg("--device=cpu").current_dir(on_cpu.path()).output().unwrap());

    let (gpu, cpu) = (on_gpu.path().join("runs/run"), on_cpu.path().join("runs/run"));
    let (got, want) = (texts(&gpu), texts(&cpu));
    assert_eq!(got.len(), 16);
    let same = got.iter().zip(&want).filter(|(got, want)| got == want).count();
    assert!(same >= 12, "{same} of 16 completions equal the CPU's");
    for (got, want) in lines(&gpu.join("metrics.jsonl")).iter().zip(&lines(&cpu.join("metrics.jsonl"))) {
        let value = |line: &Value, name: &str| line[name].as_f64().unwrap_or_else(|| panic!("no `{name}`"));
        let norms = ["grad_norm", "entropy", metric].map(|name| (value(got, name) / value(want, name) - 1.0).abs());
        assert!(norms.iter().all(|it| *it < 0.1), "gradient norm, entropy and {metric} differ by {norms:?}");
        // The sampler's recorded values equal those of training, up to rounding to bf16.
        assert!(value(got, "sampling/sampling_logp_difference/mean") < 0.02, "{got}");
    }
    let (got, want) = (trained(&gpu), trained(&cpu));
    let apart = distance(&got, &want);
    assert!(apart < 0.05, "the adapters differ by {apart}");
}

/// A run that is killed after its first checkpoint and resumed ends with the bytes of one that was not killed.
#[test]
fn a_killed_run_resumes_to_the_same_bytes() {
    let (whole, broken) = (folder(), folder());
    let can_be_held = format!("--set={}", held_reward());
    let Some(mut command) = on_device(whole.path(), &[]) else { return };
    succeeded(command.args(TRAIN).args(["--device=cuda", &can_be_held]).output().unwrap());

    hold_after(broken.path(), 8); // the completions of a step
    let mut command = on_device(broken.path(), &[]).unwrap();
    command.args(TRAIN).args(["--device=cuda", &can_be_held]).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let first = broken.path().join("runs/run/checkpoints/step-000001");
    until("the first checkpoint", || (first.exists() || child.try_wait().unwrap().is_some()).then_some(()));
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9), "the run ended by itself");
    release(broken.path());
    let mut command = on_device(broken.path(), &[]).unwrap();
    let said = succeeded(command.args(["train", "--resume", "runs/run"]).output().unwrap());
    assert!(said.contains("step 2/2"), "{said}");
    let [whole, broken] = [&whole, &broken].map(|folder| Trace::of(&folder.path().join("runs/run")));
    broken.assert_same(&whole);
}

/// A micro-batch that does not fit is halved, and the result is the same except for the order of sums.
#[test]
fn cutting_a_micro_batch_in_half_does_not_change_the_result() {
    let (ample, scarce) = (folder(), folder());
    let Some(mut command) = on_device(ample.path(), &[]) else { return };
    let job = TRAIN.map(|arg| if arg == "--steps=2" { "--steps=1" } else { arg });
    succeeded(command.args(job).arg("--device=cuda").output().unwrap());
    let mut command = on_device(scarce.path(), &[("RFT_EMU_MEMORY_MIB", "556")]).unwrap();
    let said = succeeded(command.args(job).arg("--device=cuda").output().unwrap());
    assert!(said.contains("did not fit") && said.contains("split in half"), "{said}");
    let (ample, scarce) = (ample.path().join("runs/run"), scarce.path().join("runs/run"));
    assert_eq!(texts(&scarce), texts(&ample));
    let apart = distance(&trained(&scarce), &trained(&ample));
    assert!(apart < 1e-2, "the adapters differ by {apart}");
}

#[test]
fn evaluation_on_a_gpu_agrees_with_the_cpu() {
    let (on_gpu, on_cpu) = (folder(), folder());
    let args =
        ["eval", "--bench=arithmetic-1", "--limit=8", "--temperature=0", "--samples=1", "--max-tokens=60", "--out=e"];
    let Some(mut command) = on_device(on_gpu.path(), &[]) else { return };
    succeeded(command.args(args).arg("--device=cuda").output().unwrap());
    let mut command = Command::new(rft_path());
    succeeded(command.args(args).arg("--device=cpu").current_dir(on_cpu.path()).output().unwrap());
    let samples = |folder: &Path| lines(&folder.join("e/arithmetic-1/samples.jsonl"));
    let (got, want) = (samples(on_gpu.path()), samples(on_cpu.path()));
    assert_eq!(got.len(), 8);
    let same = got.iter().zip(&want).filter(|(got, want)| got["text"] == want["text"]).count();
    assert!(same >= 7, "{same} of 8 greedy completions equal the CPU's");
}

#[test]
fn doctor_lists_the_gpus() {
    let folder = folder();
    let settings = [("RFT_EMU_GPU", "l40s"), ("RFT_EMU_DEVICES", "2"), ("RFT_EMU_MEMORY_MIB", "45000")];
    let Some(mut command) = on_device(folder.path(), &settings) else { return };
    let output = command.args(["doctor", "--output-format=json"]).output().unwrap();
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let cuda = &found["cuda"];
    assert!(
        cuda["driver"].is_string() && cuda["cublaslt"].is_u64() && cuda["missing"].as_array().unwrap().is_empty(),
        "{cuda}"
    );
    assert_eq!(cuda["gpus"].as_array().unwrap().len(), 2);
    assert_eq!(cuda["gpus"][1]["compute_capability"], serde_json::json!([8, 9]));
    assert_eq!(cuda["gpus"][1]["memory"], 45_000u64 << 20);
    assert_eq!(found["device"], "cuda:0");
}
