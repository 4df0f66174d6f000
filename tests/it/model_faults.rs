//! Faults in the files of a model: each is one error that names it, before anything is computed with it where that is
//! possible, and never a result.

use std::fs;

use candle_core::quantized::gguf_file::Value as Gguf;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cli::{error, folder, rft};
use crate::tiny_model::{tiny_folder, with_json, with_weights, write_gguf};

const QUESTION: &str = "What is 2 + 3?";

/// Commands that use the model in `m`, for every kind of use.
const COMMANDS: [&[&str]; 3] = [
    &["generate", "--preset=tiny", "--model=m", "--ppe=none", "--max-tokens=4", QUESTION],
    &[
        "eval",
        "--preset=tiny",
        "--bench=arithmetic",
        "--model=m",
        "--ppe=none",
        "--max-tokens=4",
        "--limit=2",
        "--out=o",
    ],
    &[
        "train",
        "--preset=tiny",
        "--model=m",
        "--ppe=none",
        "--steps=1",
        "--set=rollout.prompts_per_step=2",
        "--set=rollout.num_generations=2",
        "--set=eval.questions=2",
    ],
];

/// The error of generating with the model in `m`.
#[track_caller]
pub fn refused(folder: &TempDir) -> String {
    error(folder, COMMANDS[0])
}

#[track_caller]
pub fn accepted(folder: &TempDir) -> String {
    let output = rft(folder.path()).args(COMMANDS[0]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
pub fn contains(error: &str, words: &[&str]) {
    for word in words {
        assert!(error.contains(word), "`{word}` is not in: {error}");
    }
}

#[test]
fn weights_that_are_not_finite_are_an_error_with_the_tensor() {
    for (tensor, odd) in [("model.norm.weight", f32::NAN), ("model.layers.2.mlp.up_proj.weight", f32::NEG_INFINITY)] {
        let folder = with_weights(|tensors| tensors.get_mut(tensor).unwrap().1[7] = odd);
        for command in COMMANDS {
            let error = error(&folder, command);
            contains(
                &error,
                &[&format!("tensor `{tensor}` has 1 values that are NaN or infinite"), "\nhint: download"],
            );
        }
        let path = folder.path().join("model.gguf");
        write_gguf(&path, &[]);
        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.len() - 4;
        bytes[last..].copy_from_slice(&odd.to_le_bytes());
        fs::write(&path, bytes).unwrap();
        contains(
            &error(&folder, &["generate", "--preset=tiny", "--model=model.gguf", QUESTION]),
            &["has 1 values that are NaN or infinite"],
        );
    }
}

/// Finite weights whose products, or whose squares, are too large for f32.
#[test]
fn logits_that_are_not_finite_are_an_error_of_every_command() {
    for size in [1e12f32, 1e25, 3e38] {
        let folder = with_weights(|tensors| {
            tensors.values_mut().for_each(|(_, values)| values.iter_mut().for_each(|it| *it = size.copysign(*it)));
        });
        for command in &COMMANDS[..2] {
            let want = "the model's logits are NaN or infinite: first at token 1 of completion 1 of prompt 1";
            contains(&error(&folder, command), &[want, "\nhint: check the model's files"]);
        }
        // Training first checks that gradients arrive.
        contains(&error(&folder, COMMANDS[2]), &["no finite gradient reaches", "\nhint: check the model's files"]);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn logits_that_are_not_finite_are_an_error_on_a_gpu() {
    for size in [1e12f32, 1e25] {
        let folder = with_weights(|tensors| tensors.values_mut().for_each(|(_, values)| values.fill(size)));
        let Some(mut command) = crate::device::on_device(folder.path(), &[]) else { return };
        let said = crate::device::failed(command.args(COMMANDS[0]).arg("--device=cuda").output().unwrap());
        contains(
            &said,
            &["error: the model's logits are NaN or infinite: first at token 1 of completion 1 of prompt 1"],
        );
    }
}

#[test]
fn tensors_that_the_configuration_does_not_have_are_an_error() {
    for (key, value, tensor) in [
        ("num_hidden_layers", json!(3), "`model.layers.3.input_layernorm.weight` and 11 others"),
        ("num_hidden_layers", json!(1), "`model.layers.1.input_layernorm.weight` and 35 others"),
        ("architectures", json!(["LlamaForCausalLM"]), "`model.layers.0.self_attn.k_proj.bias` and 11 others"),
    ] {
        let folder = with_json("config.json", |config| config[key] = value);
        contains(&refused(&folder), &[tensor, "does not have\nhint: use the configuration that belongs"]);
    }
    let quantized = with_weights(|tensors| {
        tensors.insert("model.layers.0.mlp.up_proj.weight_scale".to_owned(), (vec![1], vec![2.0]));
    });
    contains(&refused(&quantized), &["`model.layers.0.mlp.up_proj.weight_scale`, which a Qwen2 model of 4 layers"]);
    let folder = folder();
    write_gguf(&folder.path().join("model.gguf"), &[("qwen2.block_count", Gguf::U32(3))]);
    let error = error(&folder, &["generate", "--preset=tiny", "--model=model.gguf", QUESTION]);
    contains(&error, &["read `model.gguf`", "`blk.3.attn_k.bias` and 11 others", "a Qwen2 model of 3 layers"]);

    // A value head is outside the decoder, and the frequencies are computed from the configuration.
    let harmless = with_weights(|tensors| {
        tensors.insert("v_head.summary.weight".to_owned(), (vec![1], vec![2.0]));
        tensors.insert("model.layers.0.self_attn.rotary_emb.inv_freq".to_owned(), (vec![1], vec![2.0]));
    });
    accepted(&harmless);
}

#[test]
fn a_token_without_a_row_in_the_embedding_is_an_error_when_the_model_is_opened() {
    let added = with_json("tokenizer.json", |tokenizer| {
        let mut token = tokenizer["added_tokens"][0].clone();
        (token["id"], token["content"]) = (json!(770), json!("<new>"));
        tokenizer["added_tokens"].as_array_mut().unwrap().push(token);
    });
    let smaller = with_weights(|tensors| {
        let (shape, values) = tensors.get_mut("model.embed_tokens.weight").unwrap();
        shape[0] = 700;
        values.truncate(700 * shape[1]);
    });
    crate::tiny_model::edit_json(&smaller.path().join("m/config.json"), |config| config["vocab_size"] = json!(700));
    for (folder, tokens, rows) in [
        (&added, "771 tokens with ids up to 770, the last of them `<new>`", "770 rows"),
        (&smaller, "770 tokens with ids up to 769", "700 rows"),
    ] {
        for command in COMMANDS {
            contains(&error(folder, command), &["read the tokenizer of `m`", tokens, rows, "\nhint: "]);
        }
    }
    // An embedding with more rows than tokens is usual.
    let padded = with_weights(|tensors| {
        let (shape, values) = tensors.get_mut("model.embed_tokens.weight").unwrap();
        values.resize(values.len() + 6 * shape[1], 0.0);
        shape[0] += 6;
    });
    crate::tiny_model::edit_json(&padded.path().join("m/config.json"), |config| config["vocab_size"] = json!(776));
    accepted(&padded);
}

#[test]
fn values_of_the_configuration_that_no_model_has_are_an_error() {
    let llama3 = |factor: f64, low: f64, high: f64, context: u64| {
        json!({"rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high,
            "original_max_position_embeddings": context})
    };
    for (key, value, reason) in [
        ("rope_theta", json!(1e-320), "`rope_theta` of the model configuration is 1e-320"),
        ("rope_theta", json!(1e300), "`rope_theta` of the model configuration is 1e300"),
        ("rope_theta", json!(0.0), "`rope_theta`"),
        ("rms_norm_eps", json!(1e308), "`rms_norm_eps` of the model configuration is 1e308"),
        ("rms_norm_eps", json!(1e-308), "`rms_norm_eps`"),
        ("rms_norm_eps", json!(1.0), "`rms_norm_eps`"),
        ("rms_norm_eps", json!(-1e-6), "`rms_norm_eps`"),
        ("rope_scaling", llama3(1e308, -1e308, 1e308, 1 << 63), "the scaling of the rotary embedding has the factors"),
        ("rope_scaling", llama3(0.0, 1.0, 4.0, 8192), "the scaling of the rotary embedding"),
        ("rope_scaling", llama3(8.0, 4.0, 1.0, 8192), "the scaling of the rotary embedding"),
        ("rope_scaling", llama3(8.0, 1.0, 4.0, 0), "the scaling of the rotary embedding"),
        ("rope_scaling", json!({"type": "\u{1b}[31m"}), "type `\\u{1b}[31m` is not supported"),
        ("quantization_config", json!({"quant_method": "\u{1b}[31m"}), "quantized (\\u{1b}[31m)"),
        ("architectures", json!(["\u{1b}]0;x\u{7}"]), "the architecture `\\u{1b}]0;x\\u{7}` is not supported"),
    ] {
        let folder = with_json("config.json", |config| config[key] = value);
        contains(&refused(&folder), &[reason]);
    }
}

#[test]
fn rope_parameters_by_layer_type_are_those_of_all_layers() {
    let with = |parameters: Value| {
        with_json("config.json", |config| {
            config.as_object_mut().unwrap().remove("rope_theta");
            config["rope_parameters"] = parameters;
        })
    };
    let rope = |theta: f64| json!({"rope_type": "default", "rope_theta": theta});
    let yarn = json!({"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0});
    let greedy = |folder: &TempDir| {
        let args = [COMMANDS[0], &["--temperature=0", "--max-tokens=20"]].concat();
        let args: Vec<&str> = args.into_iter().filter(|arg| *arg != "--max-tokens=4").collect();
        let output = rft(folder.path()).args(args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    for theta in [1e4, 1e6] {
        let flat = greedy(&with(rope(theta)));
        assert_eq!(greedy(&with(json!({"full_attention": rope(theta)}))), flat);
        let both = json!({"full_attention": rope(theta), "sliding_attention": rope(theta)});
        assert_eq!(greedy(&with(both)), flat);
    }
    assert_ne!(greedy(&with(rope(100.0))), greedy(&with(rope(1e6))), "the base of the rotary embedding is not used");
    for (parameters, reason) in [
        (json!({"full_attention": yarn}), "`rope_scaling` of type `yarn` is not supported"),
        (json!({"full_attention": rope(1e4), "sliding_attention": rope(1e6)}), "differ between layers of the types"),
        (json!({"full_attention": rope(1e4), "rope_theta": 1e6}), "`rope_theta` is 1000000.0"),
        (json!({"full_attention": {"rope_type": "yarn", "factor": "4"}}), "`rope_parameters` are not valid"),
    ] {
        contains(&refused(&with(parameters)), &[reason]);
    }
}

/// The prompt that `rft generate --show-prompt` prints, with the plain template.
#[track_caller]
fn plain_prompt(folder: &TempDir, model: &str) -> String {
    let args = [
        "generate",
        "--preset=tiny",
        "--ppe=none",
        "--max-tokens=2",
        "--show-prompt",
        "--set=prompt.template=plain",
        "--model",
        model,
    ];
    let output = rft(folder.path()).args(args).arg(QUESTION).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    said.lines().find(|line| line.contains("Question:")).unwrap().to_owned()
}

#[test]
fn only_a_token_before_the_text_is_a_beginning_of_sequence_token() {
    let token = |name: &str| json!({"SpecialToken": {"id": name, "type_id": 0}});
    let sequence = json!({"Sequence": {"id": "A", "type_id": 0}});
    let (start, end) = (token("<|endoftext|>"), token("<|im_end|>"));
    for (single, prompt) in [
        (json!([sequence, end]), Some("Question: ")),
        (json!([start, sequence]), Some("<|endoftext|>Question: ")),
        (json!([start, sequence, end]), Some("<|endoftext|>Question: ")),
        (json!([start, start, sequence]), None),
    ] {
        let folder = with_json("tokenizer.json", |tokenizer| {
            let special = |id: u32, name: &str| json!({"id": name, "ids": [id], "tokens": [name]});
            tokenizer["post_processor"] = json!({"type": "TemplateProcessing", "single": single, "pair": [],
                "special_tokens": {"<|endoftext|>": special(0, "<|endoftext|>"), "<|im_end|>": special(2, "<|im_end|>")}});
        });
        match prompt {
            Some(prompt) => assert!(plain_prompt(&folder, "m").starts_with(prompt), "{single}"),
            None => contains(&refused(&folder), &["read the tokenizer of `m`", "before a text, expected at most one"]),
        }
    }
}

#[test]
fn a_gguf_file_with_the_rule_of_llama_3_expects_the_beginning_of_sequence_token() {
    let folder = folder();
    let add = |add: bool| ("tokenizer.ggml.add_bos_token", Gguf::Bool(add));
    let pre = |name: &str| ("tokenizer.ggml.pre", Gguf::String(name.to_owned()));
    let bos = ("tokenizer.ggml.bos_token_id", Gguf::U32(0));
    for (changes, has_bos) in [
        (vec![pre("llama-bpe"), bos.clone()], true),
        (vec![pre("llama3"), bos.clone()], true),
        (vec![pre("llama-v3"), bos.clone()], true),
        (vec![pre("falcon3"), bos.clone()], true),
        (vec![pre("llama-bpe"), bos.clone(), add(true)], true),
        (vec![pre("llama-bpe"), bos.clone(), add(false)], false),
        (vec![pre("qwen2"), bos.clone()], false),
        (vec![pre("qwen2"), bos.clone(), add(true)], true),
    ] {
        write_gguf(&folder.path().join("model.gguf"), &changes);
        let prompt = plain_prompt(&folder, "model.gguf");
        assert_eq!(prompt.starts_with("<|endoftext|>"), has_bos, "{changes:?}: {prompt}");
    }
    let beyond = [pre("llama-bpe"), ("tokenizer.ggml.bos_token_id", Gguf::U32(5000))];
    write_gguf(&folder.path().join("model.gguf"), &beyond);
    let error = error(&folder, &["generate", "--preset=tiny", "--model=model.gguf", QUESTION]);
    contains(&error, &["`tokenizer.ggml.bos_token_id` is 5000, which is not a token"]);
}

#[test]
fn an_unsupported_quantization_is_named() {
    let folder = folder();
    let path = folder.path().join("model.gguf");
    write_gguf(&path, &[]);
    let bytes = fs::read(&path).unwrap();
    // After a tensor's name come the number of its dimensions (u32), the dimensions (u64) and the type (u32).
    let name = b"blk.0.attn_q.weight";
    let at = bytes.windows(name.len()).position(|it| it == name).unwrap() + name.len() + 4 + 16;
    assert_eq!(bytes[at..at + 4], [0; 4], "the type is not F32");
    for (number, name) in
        [(16, "IQ2_XXS"), (20, "IQ4_NL"), (23, "IQ4_XS"), (35, "TQ2_0"), (39, "MXFP4"), (137, "number 137 of ggml")]
    {
        let mut bytes = bytes.clone();
        bytes[at..at + 4].copy_from_slice(&u32::to_le_bytes(number));
        fs::write(&path, bytes).unwrap();
        let error = error(&folder, &["generate", "--preset=tiny", "--model=model.gguf", QUESTION]);
        contains(
            &error,
            &[&format!("the quantization {name} is not supported\nhint: use a file of the same model in Q4_K_M")],
        );
        assert!(!error.contains("download"), "{error}");
    }
    let mut damaged = bytes;
    damaged[at..at + 4].copy_from_slice(&0x5f5f_5f5fu32.to_le_bytes());
    fs::write(&path, damaged).unwrap();
    contains(
        &error(&folder, &["generate", "--preset=tiny", "--model=model.gguf", QUESTION]),
        &["\nhint: download or copy it again"],
    );
}

/// A file that is too large for its kind, which takes no space on the disk.
#[test]
fn a_text_of_a_model_that_is_too_large_is_refused_before_it_is_read() {
    for (name, limit) in [("tokenizer.json", "64 MiB"), ("config.json", "16 MiB"), ("tokenizer_config.json", "16 MiB")]
    {
        let folder = tiny_folder();
        fs::OpenOptions::new().write(true).open(folder.path().join("m").join(name)).unwrap().set_len(1 << 40).unwrap();
        let limit = format!("read `m/{name}`: it takes more than {limit} when it is read, the limit\nhint: ");
        contains(&refused(&folder), &[&limit]);
    }
}

/// A GGUF header: the number of tensors and of values, and then these bytes.
fn gguf_header(tensors: u64, values: u64, rest: &[&[u8]]) -> Vec<u8> {
    let counts = [tensors.to_le_bytes(), values.to_le_bytes()].concat();
    [b"GGUF".as_slice(), &3u32.to_le_bytes(), &counts, &rest.concat()].concat()
}

fn gguf_text(text: &str) -> Vec<u8> {
    [(text.len() as u64).to_le_bytes().as_slice(), text.as_bytes()].concat()
}

#[test]
fn a_gguf_header_is_read_within_the_file_and_a_limit_of_memory() {
    let key = gguf_text("k");
    let kind = |kind: u32| kind.to_le_bytes();
    let long = |number: u64| number.to_le_bytes();
    let list = |inner: u32, count: u64| [kind(inner).as_slice(), &long(count)].concat();
    let nested = list(9, 1).repeat(1000);
    let alignment = gguf_text("general.alignment");
    let tensor = gguf_text("t");
    let shape = |dimensions: u32| [kind(dimensions).as_slice(), &long(32).repeat(dimensions as usize)].concat();
    // What a file has after its header takes no space on the disk.
    let cases: [(Vec<u8>, u64, &str); 19] = [
        (b"GGML".to_vec(), 100, "it does not start with `GGUF`"),
        (b"FUGG".to_vec(), 100, "big-endian"),
        (b"GGUF".to_vec(), 0, "the file is truncated: it has only 4 bytes"),
        ([b"GGUF".as_slice(), &kind(9), &[0; 16]].concat(), 0, "GGUF version 9 is not supported"),
        (gguf_header(0, 1, &[&long(1 << 62)]), 100, "bytes are too long"),
        (gguf_header(0, 1 << 60, &[]), 100, "truncated"),
        (gguf_header(1 << 60, 0, &[]), 100, "has 0 dimensions"),
        (gguf_header(0, 1, &[&key, &kind(8), &long(1 << 61)]), 100, "the file is truncated"),
        (gguf_header(0, 1, &[&key, &kind(8), &long(1 << 33)]), 1 << 40, "it takes more than 256 MiB"),
        (gguf_header(0, 1, &[&key, &kind(9), &list(0, 1 << 30)]), 1 << 40, "it takes more than 256 MiB"),
        (gguf_header(0, 1, &[&key, &kind(9), &list(8, 1 << 28)]), 1 << 40, "it takes more than 256 MiB"),
        (gguf_header(0, 1, &[&key, &kind(9), &list(12, u64::MAX)]), 1 << 40, "it takes more than 256 MiB"),
        (gguf_header(0, 1, &[&key, &kind(9), &nested]), 100, "more than 4 lists within each other"),
        (gguf_header(0, 1, &[&key, &kind(77)]), 100, "unknown type 77 of a value"),
        (
            gguf_header(0, 1, &[&alignment, &kind(4), &kind(0)]),
            100,
            "`general.alignment` is 0, expected a power of two",
        ),
        (gguf_header(0, 1, &[&alignment, &kind(10), &long(0)]), 100, "`general.alignment` is 0, expected"),
        (gguf_header(0, 1, &[&alignment, &kind(8), &gguf_text("32")]), 100, "is not a positive number"),
        (gguf_header(1, 0, &[&tensor, &shape(9)]), 100, "tensor `t` has 9 dimensions"),
        (
            gguf_header(1, 0, &[&tensor, &shape(2), &kind(23), &long(0)]),
            100,
            "the quantization IQ4_XS is not supported",
        ),
    ];
    for (bytes, more, reason) in cases {
        let folder = folder();
        let path = folder.path().join("m.gguf");
        fs::write(&path, &bytes).unwrap();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(bytes.len() as u64 + more).unwrap();
        let error = error(&folder, &["generate", "--preset=tiny", "--model=m.gguf", QUESTION]);
        contains(&error, &["error: read `m.gguf`: ", reason]);
        assert!(error.lines().count() <= 2, "{error}");
    }
}

/// The header of a safetensors file, as text, with `values` bytes after it.
fn weights_file(folder: &TempDir, header: &str, values: usize) {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + values, 0);
    fs::write(folder.path().join("m/model.safetensors"), bytes).unwrap();
}

#[test]
fn names_in_files_reach_a_terminal_without_control_characters_and_in_part() {
    let folder = tiny_folder();
    let long = "n".repeat(1_000_000);
    for name in ["\u{1b}[31mred", "\u{9b}31mred", "a\u{7}b\u{8}c\u{0}", "\r\u{1b}]0;title\u{7}", long.as_str()] {
        let name = serde_json::Value::from(name).to_string();
        for header in [
            format!("{{{name}:{{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}}}"),
            format!("{{\"t\":{{\"dtype\":{name},\"shape\":[1],\"data_offsets\":[0,4]}}}}"),
            format!("{{\"t\":{{{name}:1,\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}}}"),
        ] {
            weights_file(&folder, &header, 4);
            let error = refused(&folder);
            assert!(!error.chars().any(|c| c.is_control() && c != '\n'), "{error:?}");
            assert!(error.len() < 3000, "{} bytes", error.len());
        }
    }
    fs::remove_file(folder.path().join("m/model.safetensors")).unwrap();
    let index = json!({"weight_map": {"a\u{1b}[31m": "\u{1b}[31m.safetensors"}});
    fs::write(folder.path().join("m/model.safetensors.index.json"), index.to_string()).unwrap();
    let error = refused(&folder);
    assert!(!error.contains('\u{1b}'), "{error:?}");
}

#[cfg(unix)]
#[test]
fn what_is_not_a_regular_file_is_refused_without_waiting() {
    use std::os::unix::fs::symlink;
    use std::process::Command;
    for name in [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "model.safetensors",
        "model.safetensors.index.json",
    ] {
        let folder = tiny_folder();
        let path = folder.path().join("m").join(name);
        _ = fs::remove_file(&path);
        if name == "model.safetensors.index.json" {
            fs::remove_file(folder.path().join("m/model.safetensors")).unwrap();
        }
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        let pipe = refused(&folder);
        fs::remove_file(&path).unwrap();
        symlink("/dev/zero", &path).unwrap();
        let device = refused(&folder);
        for error in [pipe, device] {
            contains(&error, &[&format!("read `m/{name}`: not a regular file\nhint: ")]);
        }
    }
    let folder = folder();
    assert!(Command::new("mkfifo").arg(folder.path().join("model.gguf")).status().unwrap().success());
    contains(&error(&folder, &["generate", "--preset=tiny", "--model=./model.gguf", QUESTION]), &["there is no model"]);
}
