//! `rft plan`: what fits, and what a measured run will take.

use insta::assert_snapshot;

use super::{folder, rft};

#[test]
fn plan_prints_what_fits() {
    let folder = tempfile::tempdir().unwrap();
    let output = rft(folder.path()).args(["plan", "--preset", "qwen2.5-7b"]).output().unwrap();
    assert!(output.status.success());
    assert_snapshot!(String::from_utf8(output.stdout).unwrap(), @r"
    Qwen/Qwen2.5-7B: 256 completions at a time, prompts of up to 1024 tokens, completions of up to 4096, micro-batches of 16384, activation checkpointing
     CUDA context and reserve                 1.25 GiB
     weights, bf16                           14.42 GiB
     adapter, gradient, optimizer             1.20 GiB
     rollout: KV cache of prompts             3.50 GiB
     rollout: KV cache of completions        56.00 GiB
     rollout: work buffers, logits            1.53 GiB
     training: saved for the backward pass    3.39 GiB
     training: work buffers                   2.77 GiB
     training: the head, separate phase     706.32 MiB
     peak                                    77.90 GiB
    24.00 GiB: does not fit; largest that fits: rollout.max_rows=24 train.max_tokens_per_micro_batch=16384
    48.00 GiB: does not fit; largest that fits: rollout.max_rows=127 train.max_tokens_per_micro_batch=16384
    80.00 GiB: fits
    141.00 GiB: fits
    ");
}

/// Some steps are trained and some questions evaluated; the estimate follows from them, and no files are left behind.
#[test]
fn a_measured_plan_forecasts_the_whole_run() {
    let folder = folder();
    let sizes = ["rollout.prompts_per_step=2", "rollout.num_generations=2", "rollout.max_completion_length=12"];
    let run = ["train.steps=10", "train.save_steps=1", "eval.questions=20", "eval.every=4", "eval.greedy=true"];
    let sets = sizes.into_iter().chain(run).flat_map(|set| ["--set", set]);
    let mut command = rft(folder.path());
    // 3,600 per hour: one second costs 1.
    command.args([
        "plan",
        "--measure",
        "0.2",
        "--device",
        "cpu",
        "--gpu-hour-price",
        "3600",
        "--output-format",
        "json",
    ]);
    let output = command.args(sets).env("TMPDIR", folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let measured = &plan["measured"];
    assert_eq!(measured["device"], "cpu");
    let number = |path: &str| measured.pointer(path).and_then(serde_json::Value::as_f64).unwrap_or(f64::NAN);
    let (steps, completions) = (number("/steps/units"), number("/evaluation/units"));
    assert!((1.0..=9.0).contains(&steps) && (2.0..=40.0).contains(&completions), "{measured:#}");
    // 10 steps; 20 questions, sampled and greedy, before, after, and after steps 4 and 8.
    assert_eq!((number("/forecast/steps"), number("/forecast/completions")), (10.0, 160.0));
    for (part, piece, factor) in
        [("training", "steps", 10.0 / steps), ("evaluation", "evaluation", 160.0 / completions)]
    {
        let (seconds, tokens) = (number(&format!("/{piece}/seconds")), number(&format!("/{piece}/tokens")));
        assert!(seconds > 0.0 && tokens > 0.0, "{measured:#}");
        assert!((number(&format!("/forecast/{part}/money")) / (factor * seconds) - 1.0).abs() < 1e-9, "{measured:#}");
        assert!((number(&format!("/forecast/{part}/tokens")) / (factor * tokens) - 1.0).abs() < 1e-9, "{measured:#}");
    }
    let sum = number("/forecast/training/money") + number("/forecast/evaluation/money");
    assert!((number("/forecast/whole/money") / sum - 1.0).abs() < 1e-9);
    assert_eq!(folder.path().read_dir().unwrap().count(), 0, "the measurement is removed");

    let output = rft(folder.path()).args(["plan", "--gpu-hour-price", "2"]).output().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains("--measure"), "a price without a measurement");
}
