//! No mutation of a valid input makes a reader panic or hang. `scripts/fuzz.sh` tries many more on the same entry points.

use std::cell::Cell;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use rft::model::embedded;
use serde_json::{Value, json};

use crate::entry_points::ENTRY_POINTS;
use crate::tiny_model::write_gguf;

/// A reader that takes longer hangs. Each takes milliseconds.
const HANG: Duration = Duration::from_secs(60);

/// Mutations of each entry point.
const MUTATIONS: u32 = 2000;

/// Valid inputs of an entry point.
fn seeds(entry: &str) -> Vec<Vec<u8>> {
    let embedded = |name: &str| {
        let (_, bytes) = embedded::FILES.into_iter().find(|(it, _)| *it == name).unwrap();
        bytes.to_vec()
    };
    match entry {
        "safetensors" => {
            let header = r#"{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]}}"#;
            let body: Vec<u8> = (0..32).collect();
            vec![[&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &body].concat()]
        }
        "gguf" => {
            let folder = tempfile::tempdir().unwrap();
            write_gguf(&folder.path().join("m.gguf"), &[]);
            vec![fs::read(folder.path().join("m.gguf")).unwrap()]
        }
        "tokenizer" => {
            let mut small: Value = serde_json::from_slice(&embedded("tokenizer.json")).unwrap();
            let merges = small["model"]["merges"].as_array_mut().unwrap();
            merges.truncate(20);
            vec![serde_json::to_vec(&small).unwrap(), embedded("tokenizer.json")]
        }
        "template" => {
            let all: Value = serde_json::from_str(include_str!("../fixtures/chat_templates.json")).unwrap();
            templates(&all).into_iter().map(String::into_bytes).collect()
        }
        "config" => ["configs/tiny.toml", "configs/qwen2.5-7b.toml"]
            .iter()
            .map(|name| fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap())
            .collect(),
        "data" => {
            let rows = "{\"question\": \"1+1?\", \"answer\": 2.50}\n{\"question\": \"é\", \"answer\": \"#### 7\"}\n";
            let table = "question,answer\n\"a, \"\"b\"\"\n\",1e3\nc,0x1\n";
            let list = json!([{"problem": "p", "solution": ["1"], "extra": {"deep": [[[]]]}}]).to_string();
            let zipped = |text: &str| {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(text.as_bytes()).unwrap();
                encoder.finish().unwrap()
            };
            let parquet = crate::data::parquet();
            [
                rows.as_bytes().to_vec(),
                list.into_bytes(),
                table.as_bytes().to_vec(),
                parquet,
                zipped(rows),
                zipped(table),
            ]
            .into_iter()
            .zip(0..)
            .map(|(bytes, format)| [vec![format], bytes].concat())
            .collect()
        }
        "answer" => [
            "\\frac{1}{2}\nSo **the answer** is \\boxed{0.5\\text{ m/s}}.",
            "(-\\infty, 3]\\cup\\{5\\}\nThe answer is $x \\le 3$ or $x = 5$",
            "\\begin{pmatrix} 1 & 2 \\\\ 3 & \\sqrt[3]{8}\\end{pmatrix}\n\\boxed{[[1,2],[3,2]]}",
            "x^2-3x+2=0\n\\boxed{(x-1)(x-2)=0} and \\boxed{\\sin^2\\theta+1}",
        ]
        .map(|it| it.as_bytes().to_vec())
        .to_vec(),
        "reply" => [
            json!({"choices": [{"text": "x</s>é", "finish_reason": "stop", "stop_reason": 7}],
                   "usage": {"prompt_tokens": 3, "completion_tokens": 2}}),
            json!({"data": [{"id": "m"}, {"id": "n"}]}),
        ]
        .map(|it| it.to_string().into_bytes())
        .to_vec(),
        _ => unreachable!("{entry}"),
    }
}

/// All texts in a value that look like a template.
fn templates(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) if text.contains("{%") => vec![text.clone()],
        Value::Array(items) => items.iter().flat_map(templates).collect(),
        Value::Object(fields) => fields.values().flat_map(templates).collect(),
        _ => Vec::new(),
    }
}

/// One change of some bytes. Positions and lengths are parts of 65,536 of the input; most are near its beginning, where headers are.
#[derive(Clone, Debug)]
enum Change {
    Flip {
        at: u16,
        bit: u8,
    },
    Set {
        at: u16,
        bytes: Vec<u8>,
    },
    Insert {
        at: u16,
        bytes: Vec<u8>,
    },
    Delete {
        at: u16,
        len: u16,
    },
    /// Copies bytes to another place.
    Copy {
        from: u16,
        len: u16,
        to: u16,
    },
    Truncate {
        at: u16,
    },
}

/// What breaks readers: extreme numbers in several forms, brackets, escapes, and pieces of the formats.
const PIECES: [&[u8]; 24] = [
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\0\0\0\0\0\0\0\0",
    b"\xff\xff\xff\x7f",
    b"9223372036854775807",
    b"-1",
    b"1e999",
    b"NaN",
    b"null",
    b"[[[[[[[[",
    b"{\"a\":",
    b"\"",
    b"\\u0000",
    b"\\ud800",
    b"\x1b[31m",
    b"\xc3",
    b"\n",
    b"{{",
    b"{% for x in range(9999) %}",
    b"{% endfor %}",
    b"\\frac{",
    b"\\boxed{",
    b"^{^{",
    b"999999999999",
    b"()",
];

fn change() -> impl Strategy<Value = Change> {
    let piece =
        || prop_oneof![prop::collection::vec(any::<u8>(), 1..9), (0..PIECES.len()).prop_map(|i| PIECES[i].to_vec())];
    prop_oneof![
        (any::<u16>(), 0..8u8).prop_map(|(at, bit)| Change::Flip { at, bit }),
        (any::<u16>(), piece()).prop_map(|(at, bytes)| Change::Set { at, bytes }),
        (any::<u16>(), piece()).prop_map(|(at, bytes)| Change::Insert { at, bytes }),
        (any::<u16>(), any::<u16>()).prop_map(|(at, len)| Change::Delete { at, len }),
        (any::<u16>(), any::<u16>(), any::<u16>()).prop_map(|(from, len, to)| Change::Copy { from, len, to }),
        any::<u16>().prop_map(|at| Change::Truncate { at }),
    ]
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    let place = |at: u16, bytes: &[u8]| {
        let part = f64::from(at) / 65536.0;
        (part * part * bytes.len() as f64) as usize
    };
    match change {
        Change::Flip { at, bit } => {
            let at = place(*at, bytes);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << bit;
            }
        }
        Change::Set { at, bytes: new } => {
            let at = place(*at, bytes);
            bytes[at..].iter_mut().zip(new).for_each(|(byte, new)| *byte = *new);
        }
        Change::Insert { at, bytes: new } => {
            let at = place(*at, bytes);
            bytes.splice(at..at, new.iter().copied());
        }
        Change::Delete { at, len } => {
            let (at, len) = (place(*at, bytes), place(*len, bytes) / 4);
            bytes.drain(at..(at + len).min(bytes.len()));
        }
        Change::Copy { from, len, to } => {
            let (from, len, to) = (place(*from, bytes), place(*len, bytes) / 4, place(*to, bytes));
            let copied = bytes[from..(from + len).min(bytes.len())].to_vec();
            bytes.splice(to..to, copied);
        }
        Change::Truncate { at } => bytes.truncate(bytes.len() - place(*at, bytes)),
    }
}

/// Tries mutations of the seeds of an entry point, the same ones each time.
fn mutate(name: &str) {
    let (_, entry) = ENTRY_POINTS.into_iter().find(|(it, _)| *it == name).unwrap();
    let seeds = seeds(name);
    seeds.iter().for_each(|seed| entry(seed));
    let config = Config { cases: MUTATIONS, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let strategy = (0..seeds.len(), prop::collection::vec(change(), 1..8));
    let slowest = Cell::new(Duration::ZERO);
    TestRunner::new_with_rng(config, rng)
        .run(&strategy, |(seed, changes)| {
            let mut bytes = seeds[seed].clone();
            changes.iter().for_each(|change| apply(&mut bytes, change));
            let start = Instant::now();
            entry(&bytes);
            let time = start.elapsed();
            slowest.set(slowest.get().max(time));
            prop_assert!(time < HANG, "it took {time:?}");
            Ok(())
        })
        .unwrap();
    println!("{name}: {MUTATIONS} mutations, the slowest took {:?}", slowest.get());
}

#[test]
fn safetensors() {
    mutate("safetensors");
}

#[test]
fn gguf() {
    mutate("gguf");
}

#[test]
fn tokenizer() {
    mutate("tokenizer");
}

#[test]
fn template() {
    mutate("template");
}

#[test]
fn config() {
    mutate("config");
}

#[test]
fn data() {
    mutate("data");
}

#[test]
fn answer() {
    mutate("answer");
}

#[test]
fn reply() {
    mutate("reply");
}

/// Every entry point has mutations, a fuzz target, and seeds that it reads.
#[test]
fn every_entry_point_is_fuzzed() {
    for (name, entry) in ENTRY_POINTS {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets").join(format!("{name}.rs"));
        let source = fs::read_to_string(&target).unwrap();
        assert!(source.contains(&format!("entry_points::{name}(")), "{}", target.display());
        seeds(name).iter().for_each(|seed| entry(seed));
        entry(b"");
    }
}

/// Writes the seeds as a corpus, for `scripts/fuzz.sh`.
#[test]
#[ignore = "scripts/fuzz.sh runs it"]
fn write_the_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, _) in ENTRY_POINTS {
        fs::create_dir_all(corpus.join(name)).unwrap();
        for (i, seed) in seeds(name).iter().enumerate() {
            fs::write(corpus.join(name).join(format!("seed-{i}")), seed).unwrap();
        }
    }
}
