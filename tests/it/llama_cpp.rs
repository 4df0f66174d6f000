//! GGUF files that `rft` writes, in llama.cpp: the same greedy tokens and logits as ours. Needs RFT_LLAMA_CPP, a Python with the
//! package xllamacpp, which `scripts/llama-cpp.sh` installs.

use std::fs;
use std::path::Path;

use rft::config::LoraSection;
use rft::device::cpu::decoder::CpuDecoder;
use rft::grpo::learner::Keep;
use rft::model::lora::Adapter;
use rft::model::pack::Pack;
use rft::model::peft::save_adapter;
use rft::model::source::ModelSource;
use rft::prompt::Message;
use rft::prompt::template::{ChatTemplate, encode_prompt};
use rft::rng::{Purpose, Stream};
use serde::Deserialize;
use serde_json::json;

use super::require::require;

const TOKENS: usize = 32;
/// The tokens before which all log-probabilities are compared.
const COMPARED: [usize; 2] = [0, TOKENS - 1];
const QUESTIONS: [&str; 5] = [
    "What is 12 + 5?",
    "Anna has 12 apples and buys 5 more. How many does she have?",
    "What is 7 times 8?",
    "List three prime numbers. Why isn't 1 one of them?",
    "Tom reads 14 pages a day for 6 days. How many pages are that?",
];

/// What tests/oracle/llama_cpp.py writes.
#[derive(Deserialize)]
struct Theirs {
    /// Greedy tokens for every prompt.
    tokens: Vec<Vec<u32>>,
    /// For every prompt and every compared position, the log-probabilities of the vocabulary.
    log_probs: Vec<Vec<Vec<f32>>>,
    /// Ids of the questions.
    ids: Vec<Vec<u32>>,
}

/// Our decoder with an adapter.
struct Ours {
    decoder: CpuDecoder,
    adapter: Option<Adapter>,
}

impl Ours {
    fn open(model: &str, adapter: Option<&Adapter>) -> Self {
        let source = ModelSource::open(model, "main").unwrap();
        let decoder = CpuDecoder::load(source.config.clone(), source.weights.as_ref(), 512).unwrap();
        Self { decoder, adapter: adapter.cloned() }
    }

    /// The logits before each of `tokens`, which follow `prompt`.
    fn logits(&self, prompt: &[u32], tokens: &[u32]) -> Vec<Vec<f32>> {
        let ids = [prompt, &tokens[..tokens.len() - 1]].concat();
        let mut pack = Pack::default();
        pack.push(&ids, &[]);
        let hidden = self.decoder.forward(self.adapter.as_ref(), &pack, Keep::Nothing).hidden;
        let width = hidden.len() / ids.len();
        hidden.chunks(width).skip(prompt.len() - 1).map(|row| self.decoder.head().logits(row)).collect()
    }
}

/// The index of the largest value, and its distance to the second.
fn largest(values: &[f32]) -> (u32, f32) {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    (order[0] as u32, values[order[0]] - values[order[1]])
}

fn log_softmax(logits: &[f32]) -> Vec<f32> {
    let most = logits.iter().copied().fold(f32::MIN, f32::max);
    let sum: f64 = logits.iter().map(|it| f64::from(it - most).exp()).sum();
    logits.iter().map(|it| it - most - sum.ln() as f32).collect()
}

fn rft(arguments: &[&str]) {
    let output = crate::cli::rft(Path::new(".")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// How llama.cpp's results differ from ours.
struct Difference {
    /// Number of tokens before the first that differs, of all prompts, and the gap of the two largest logits there.
    equal: usize,
    first_gap: Option<f32>,
    /// Of the logits. llama.cpp's server reports log-probabilities, which are logits up to a constant for each position; the
    /// constant is chosen that makes the largest difference of a position smallest.
    largest: f32,
}

fn compare(theirs: &Theirs, ours: &Ours, prompts: &[Vec<u32>]) -> Difference {
    let mut difference = Difference { equal: 0, first_gap: None, largest: 0.0 };
    for ((prompt, tokens), log_probs) in prompts.iter().zip(&theirs.tokens).zip(&theirs.log_probs) {
        assert_eq!((tokens.len(), log_probs.len()), (TOKENS, COMPARED.len()));
        let logits = ours.logits(prompt, tokens);
        let equal = logits.iter().zip(tokens).position(|(logits, token)| largest(logits).0 != *token);
        difference.equal += equal.unwrap_or(TOKENS);
        if let Some(at) = equal {
            let gap = largest(&logits[at]).1;
            difference.first_gap = Some(difference.first_gap.unwrap_or(0.0).max(gap));
        }
        for (position, theirs) in COMPARED.into_iter().zip(log_probs) {
            let ours = log_softmax(&logits[position]);
            assert_eq!(ours.len(), theirs.len());
            let gaps = ours.iter().zip(theirs).map(|(a, b)| a - b);
            let (low, high) = gaps.fold((f32::MAX, f32::MIN), |(low, high), gap| (low.min(gap), high.max(gap)));
            difference.largest = difference.largest.max((high - low) / 2.0);
        }
    }
    difference
}

/// Compares every file of one model. `deviation` is that of the adapter's values, `f16_limit` the largest difference of the logits
/// with f16 files.
fn check(python: &str, model: &str, deviation: f64, f16_limit: f32) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let source = ModelSource::open(model, "main").unwrap();
    let tokenizer = source.tokenizer().unwrap();
    let template = ChatTemplate::from_model(source.chat_template.as_deref(), source.tokenizer_config.as_deref());
    let template = template.unwrap().unwrap();
    let prompt = |question: &&str| {
        let message = Message { role: "user", content: (*question).to_owned() };
        encode_prompt(&tokenizer, &template, &[message], None).unwrap().ids
    };
    let prompts: Vec<Vec<u32>> = QUESTIONS.iter().map(prompt).collect();

    let section = LoraSection { lora_alpha: 12.0, use_rslora: true, ..LoraSection::all_linear(8) };
    let new = Adapter::new(&source.config, &section, 1).unwrap();
    save_adapter(&new, Path::new(&path("none")), model).unwrap();
    let stream = Stream::new(6, Purpose::Test, &[]);
    let mut adapter = new;
    for (i, value) in adapter.params.iter_mut().enumerate() {
        *value += (deviation * stream.normal(i as u64)) as f32;
    }
    save_adapter(&adapter, Path::new(&path("adapter")), model).unwrap();
    for kind in ["f32", "f16", "q8_0"] {
        for of in ["none", "adapter"] {
            let out = path(&format!("{of}-{kind}.gguf"));
            rft(&["merge", &path(of), "--model", model, "--gguf", "--dtype", kind, "--out", &out]);
        }
        if kind != "q8_0" {
            let out = path(&format!("lora-{kind}.gguf"));
            rft(&["export", &path("adapter"), "--model", model, "--gguf", "--dtype", kind, "--out", &out]);
        }
    }

    println!("{}, adapter of rank 8 on all linear layers:", source.name);
    let exact = Ours::open(model, Some(&adapter));
    for (base, lora, kind) in [
        ("none-f32", Some("lora-f32"), "f32"),
        ("none-f16", Some("lora-f16"), "f16"),
        ("none-q8_0", Some("lora-f16"), "q8_0"),
        ("adapter-f32", None, "f32"),
        ("adapter-f16", None, "f16"),
        ("adapter-q8_0", None, "q8_0"),
    ] {
        let job = json!({
            "model": path(&format!("{base}.gguf")),
            "lora": lora.map(|it| path(&format!("{it}.gguf"))),
            "prompts": prompts,
            "tokens": TOKENS,
            "compared": COMPARED,
            "texts": QUESTIONS,
            "out": path("theirs.json"),
        });
        fs::write(path("job.json"), job.to_string()).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/llama_cpp.py");
        let output = std::process::Command::new(python).arg(script).arg(path("job.json")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let theirs: Theirs = serde_json::from_slice(&fs::read(path("theirs.json")).unwrap()).unwrap();
        for (question, ids) in QUESTIONS.iter().zip(&theirs.ids) {
            assert_eq!(*ids, tokenizer.encode(question), "{question}");
        }
        let all = compare(&theirs, &exact, &prompts);
        // The same with the weights of the file, so that their rounding does not count.
        let file = path(&format!("{base}.gguf"));
        let rounded = compare(&theirs, &Ours::open(&file, lora.map(|_| &adapter)), &prompts);
        println!(
            "  {:<22} {}/{} greedy tokens equal, logits differ by up to {:.1e}; {:.1e} from the same file in rft{}",
            format!("{base}{}", lora.map_or(String::new(), |lora| format!(" + {lora}"))),
            all.equal,
            TOKENS * QUESTIONS.len(),
            all.largest,
            rounded.largest,
            all.first_gap
                .map_or(String::new(), |gap| format!(" (the two largest logits where they differ: {gap:.1e})"))
        );
        match kind {
            "f32" => {
                assert_eq!(all.equal, TOKENS * QUESTIONS.len());
                assert!(all.largest < 1e-3);
            }
            "f16" => assert!(rounded.largest < f16_limit),
            _ => assert!(rounded.largest < 1.0),
        }
    }
}

#[test]
fn llama_cpp_computes_the_same_from_our_files() {
    let python = std::env::var("RFT_LLAMA_CPP").map_err(|_| "RFT_LLAMA_CPP is not set");
    let Some(python) = require("llama-cpp", python) else { return };
    check(&python, "tiny", 0.05, 1e-2);
    // Other models, separated by commas.
    for model in std::env::var("RFT_LLAMA_CPP_MODELS").unwrap_or_default().split(',').filter(|it| !it.is_empty()) {
        // llama.cpp also rounds the activations to f16, in each of more and wider blocks.
        check(&python, model, 0.01, 5e-2);
    }
}
