//! Memory on an emulated GPU, and the host's memory while weights are loaded: what fits, and the errors if it does not.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Output;

use rustix::process::{Resource, Rlimit, setrlimit};
use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::cli::folder;
use crate::device::{TRAIN, on_device, succeeded};

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// One line that names the problem, and a hint; the exit code is 1.
#[track_caller]
fn refused(output: &Output) -> String {
    let said = said(output);
    assert_eq!(output.status.code(), Some(1), "{}: {said}", output.status);
    let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{said}");
    assert!(said.contains("\nhint: ") && !said.contains("panicked"), "{said}");
    errors[0].to_owned()
}

#[test]
fn too_little_gpu_memory_is_an_error_with_what_is_needed_and_free() {
    for (mib, want) in [
        (16, "error: start on GPU 0: the GPU has no memory left for CUDA itself"),
        (64, "error: not enough memory on Emulated H200 for the model and a sequence of 352 tokens (weights "),
        (540, "error: not enough memory on Emulated H200 for the model and a sequence of 352 tokens (weights "),
    ] {
        let folder = folder();
        let Some(mut command) = on_device(folder.path(), &[("RFT_EMU_MEMORY_MIB", &mib.to_string())]) else { return };
        let output = command.args(TRAIN).arg("--device=cuda").output().unwrap();
        let error = refused(&output);
        assert!(error.starts_with(want), "{mib}: {error}");
        assert!(!folder.path().join("runs").exists(), "a run started although it cannot fit");
        if mib > 16 {
            let free = format!("needed, {}.00 MiB of {mib}.00 MiB free", mib - 32);
            assert!(error.ends_with(&free), "{mib}: {error}");
        }
        let hint = if mib == 540 { "hint: set `train.gradient_checkpointing` to true" } else { "hint: " };
        assert!(said(&output).contains(hint), "{}", said(&output));
    }
}

/// The maximum completion length is accepted if one micro-batch has room for it, and is an error otherwise: the check
/// before the run agrees with the run.
#[test]
fn a_job_that_is_accepted_fits() {
    let train = |mib: usize| {
        let folder = folder();
        let mut command = on_device(folder.path(), &[("RFT_EMU_MEMORY_MIB", &mib.to_string())])?;
        let job = TRAIN.map(|arg| if arg == "--steps=2" { "--steps=1" } else { arg });
        Some(command.args(job).args(["--device=cuda", "--set=rollout.num_generations=2"]).output().unwrap())
    };
    let sizes: Vec<usize> = (552..=556).collect();
    let Some(outputs) = sizes.iter().map(|&mib| train(mib)).collect::<Option<Vec<Output>>>() else { return };
    let fits: Vec<bool> = outputs.iter().map(|output| output.status.success()).collect();
    assert!(fits.contains(&true) && fits.contains(&false) && fits.is_sorted(), "{fits:?}");
    for output in outputs.iter().filter(|output| !output.status.success()) {
        assert!(refused(output).contains(" for the model and a sequence of "), "{}", said(output));
    }
}

#[test]
fn an_allocation_that_fails_is_an_error_with_a_hint() {
    let folder = folder();
    let generate = ["generate", "--device=cuda", "--max-tokens=2", "What is 3 plus 4?"];
    let mut failed = 0;
    for n in 1..=6 {
        let Some(mut command) = on_device(folder.path(), &[("RFT_EMU_FAIL_ALLOCATION", &n.to_string())]) else {
            return;
        };
        let output = command.args(generate).output().unwrap();
        if output.status.success() {
            continue;
        }
        failed += 1;
        let error = refused(&output);
        assert!(error.contains("no memory left for CUDA itself") || error.contains(" needed, "), "{n}: {error}");
    }
    assert!((2..6).contains(&failed), "{failed} of 6 allocations failed");
}

/// In guarded mode every buffer is a separate allocation, and if one fails, the check fails.
#[test]
fn guarded_checks_allocate_every_buffer_separately() {
    let folder = folder();
    let report = folder.path().join("report.json");
    let checks = |flags: &[&str], settings: &[(&str, &str)]| -> Option<(Output, u64)> {
        let mut command = on_device(folder.path(), settings)?;
        command.env("RFT_EMU_REPORT", &report).args(["selftest", "--filter=swiglu"]).args(flags);
        let output = command.output().unwrap();
        let report: Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
        Some((output, report["allocations"].as_u64().unwrap()))
    };
    let Some((output, few)) = checks(&[], &[]) else { return };
    succeeded(output);
    // Aligned to 16 bytes, an allocation ends closer to the inaccessible page.
    let (output, many) = checks(&["--guarded"], &[("RFT_EMU_ALIGN", "16")]).unwrap();
    succeeded(output);
    assert!(many > few + 3, "{many} allocations guarded, {few} otherwise");

    let (output, _) = checks(&["--guarded"], &[("RFT_EMU_FAIL_ALLOCATION", &many.to_string())]).unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(
        printed.contains("FAILED") && printed.contains("not enough memory on Emulated H200 for a buffer"),
        "{printed}"
    );
}

/// A folder with the embedded model and one value of one tensor changed.
fn spoiled(folder: &Path, tensor: &str, bits: u16) {
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/tiny");
    for entry in fs::read_dir(tiny).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
    }
    let path = folder.join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let start = SafeTensors::deserialize(&bytes).unwrap().tensor(tensor).unwrap().data().as_ptr() as usize;
    let at = start - bytes.as_ptr() as usize + 14;
    bytes[at..at + 2].copy_from_slice(&bits.to_le_bytes());
    fs::write(path, bytes).unwrap();
}

#[test]
fn weights_that_are_not_finite_are_an_error_with_the_tensor() {
    let tensor = "model.layers.2.mlp.down_proj.weight";
    for (bits, fails) in [(0x7e00u16, true), (0xfc00, true), (0x7bff, false)] {
        let folder = folder();
        spoiled(folder.path(), tensor, bits);
        let Some(mut command) = on_device(folder.path(), &[]) else { return };
        let arguments = ["generate", "--device=cuda", "--max-tokens=2", "--model=.", "What is 3 plus 4?"];
        let output = command.args(arguments).output().unwrap();
        if fails {
            let want = format!("error: tensor `{tensor}` has 1 values that are NaN or infinite in bf16");
            assert_eq!(refused(&output), want);
        } else {
            succeeded(output);
        }
    }
}

/// A model whose embedding alone has 156 MB in bf16.
fn write_large(folder: &Path) {
    let (hidden, inner, vocab) = (512, 1_024, 152_064);
    let config = json!({
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": hidden, "intermediate_size": inner,
        "num_attention_heads": 8, "num_key_value_heads": 2, "num_hidden_layers": 1, "vocab_size": vocab,
        "rms_norm_eps": 1e-6, "rope_theta": 1e6, "max_position_embeddings": 4096, "tie_word_embeddings": true,
        "eos_token_id": 0,
    });
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/tiny/tokenizer.json");
    fs::copy(tokenizer, folder.join("tokenizer.json")).unwrap();
    let block = "model.layers.0.";
    let shards = [
        vec![("model.embed_tokens.weight".to_owned(), vec![vocab, hidden])],
        [
            ("input_layernorm.weight", vec![hidden]),
            ("self_attn.q_proj.weight", vec![hidden, hidden]),
            ("self_attn.q_proj.bias", vec![hidden]),
            ("self_attn.k_proj.weight", vec![hidden / 4, hidden]),
            ("self_attn.k_proj.bias", vec![hidden / 4]),
            ("self_attn.v_proj.weight", vec![hidden / 4, hidden]),
            ("self_attn.v_proj.bias", vec![hidden / 4]),
            ("self_attn.o_proj.weight", vec![hidden, hidden]),
            ("post_attention_layernorm.weight", vec![hidden]),
            ("mlp.gate_proj.weight", vec![inner, hidden]),
            ("mlp.up_proj.weight", vec![inner, hidden]),
            ("mlp.down_proj.weight", vec![hidden, inner]),
        ]
        .map(|(name, shape)| (format!("{block}{name}"), shape))
        .into_iter()
        .chain([("model.norm.weight".to_owned(), vec![hidden])])
        .collect(),
    ];
    let mut places = serde_json::Map::new();
    for (number, tensors) in shards.into_iter().enumerate() {
        let file = format!("model-{number}.safetensors");
        let (mut header, mut end) = (serde_json::Map::new(), 0);
        for (name, shape) in tensors {
            let start = end;
            end += 2 * shape.iter().product::<usize>();
            header.insert(name.clone(), json!({"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}));
            places.insert(name, file.clone().into());
        }
        let header = serde_json::to_vec(&header).unwrap();
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header);
        // Finite values: no exponent is above that of 1.
        let value = |i: usize| ((i as u32).wrapping_mul(2_654_435_761) >> 16) as u16 & 0xbf7f;
        bytes.extend((0..end / 2).flat_map(|i| value(i).to_le_bytes()));
        fs::write(folder.join(file), bytes).unwrap();
    }
    fs::write(folder.join("model.safetensors.index.json"), json!({"weight_map": places}).to_string()).unwrap();
}

/// However large a tensor is, the host needs no copy of it. The process may allocate 300 MiB, of which the emulated GPU takes 185
/// for the weights and itself: that leaves room for what is needed to load them, and not for a copy of the embedding.
#[test]
fn weights_are_loaded_in_little_memory_of_the_host() {
    let folder = folder();
    write_large(folder.path());
    // With a NaN as its last value, the embedding is refused as soon as all of it is on the GPU.
    let path = folder.path().join("model-0.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 2;
    bytes[last..].copy_from_slice(&0x7fc0u16.to_le_bytes());
    fs::write(path, bytes).unwrap();

    // One thread, so that the stacks of threads do not count.
    let Some(mut command) = on_device(folder.path(), &[("RFT_EMU_THREADS", "1")]) else { return };
    command.env("RAYON_NUM_THREADS", "1");
    command.args(["generate", "--device=cuda", "--model=.", "--set=prompt.template=plain", "What is 3 plus 4?"]);
    let limit = Rlimit { current: Some(300 << 20), maximum: Some(300 << 20) };
    // SAFETY: the closure makes one system call and allocates nothing.
    unsafe {
        command.pre_exec(move || Ok(setrlimit(Resource::Data, limit)?));
    }
    let output = command.output().unwrap();
    let want = "error: tensor `model.embed_tokens.weight` has 1 values that are NaN or infinite in bf16";
    assert_eq!(refused(&output), want);
}
