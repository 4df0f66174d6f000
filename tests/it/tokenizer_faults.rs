//! Faults in the tokenizer of a model: damaged files, and parts that crash the library or that no supported model needs.

use std::fs;

use serde_json::{Value, json};

use crate::model_faults::{accepted, contains, refused};
use crate::tiny_model::{tiny_folder, with_json};

#[test]
fn a_damaged_tokenizer_is_an_error_and_not_a_panic() {
    type Damage = fn(&mut Value);
    let damages: [(&str, Damage); 9] = [
        ("the part `decoder` of the tokenizer: a step without a `type`", |it| it["decoder"] = json!(3)),
        ("the part `normalizer` of the tokenizer: `Precompiled` is not supported, expected NFC", |it| {
            it["normalizer"] =
                json!({"type": "Precompiled", "precompiled_charsmap": "////////////////////////////////"});
        }),
        ("the table `special_tokens` does not have `NOPE`", |it| {
            it["post_processor"] = json!({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "NOPE", "type_id": 0}}],
                "pair": [], "special_tokens": {}});
        }),
        ("only byte-pair tokenizers are supported", |it| {
            it["model"] = json!({"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"})
        }),
        ("two tokens of the vocabulary have the id 7", |it| it["model"]["vocab"]["a"] = json!(7)),
        ("the added token `<|im_end|>` has the id 9, expected 2", |it| it["added_tokens"][2]["id"] = json!(9)),
        ("the added token `What` has the id 4294967295", |it| {
            let mut token = it["added_tokens"][2].clone();
            (token["id"], token["content"]) = (json!(u32::MAX), json!("What"));
            it["added_tokens"].as_array_mut().unwrap().push(token);
        }),
        ("ids up to 10769", |it| {
            for id in it["model"]["vocab"].as_object_mut().unwrap().values_mut() {
                *id = json!(id.as_u64().unwrap() + 10_000);
            }
            for token in it["added_tokens"].as_array_mut().unwrap() {
                token["id"] = json!(token["id"].as_u64().unwrap() + 10_000);
            }
        }),
        ("characters more) ...", |it| it["model"]["merges"][0][0] = json!("(".repeat(100_000))),
    ];
    for (reason, damage) in damages {
        let error = refused(&with_json("tokenizer.json", damage));
        contains(&error, &["read the tokenizer of `m`", reason]);
        assert!(error.len() < 3000, "{} bytes", error.len());
    }
    let folder = tiny_folder();
    let path = folder.path().join("m/tokenizer.json");
    let text = fs::read_to_string(&path).unwrap();
    let at = text.find("\"decoder\"").unwrap();
    fs::write(&path, format!("{}{}", &text[..at], text[at..].replacen("\"type\": ", "\"type\" ", 1))).unwrap();
    contains(&refused(&folder), &["read the tokenizer of `m`: not a tokenizer: expected `:`"]);

    // Padding is for batches and is not used here.
    let padded = |length: u64| {
        with_json("tokenizer.json", |it| {
            it["padding"] = json!({"strategy": {"Fixed": length}, "direction": "Right", "pad_to_multiple_of": null,
                "pad_id": 0, "pad_type_id": 0, "pad_token": "x"});
        })
    };
    accepted(&padded(128));
    contains(&refused(&padded(1 << 62)), &["`padding.strategy.Fixed` is 4611686018427387904, expected at most"]);
}

/// A step of the kind that splits a text at the matches of a pattern.
fn split(pattern: &str) -> Value {
    json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false})
}

fn sequence(name: &str, steps: Vec<Value>) -> Value {
    json!({"type": "Sequence", name: steps})
}

fn token(id: u64, content: &str) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true})
}

fn replace(pattern: &Value, content: &str) -> Value {
    json!({"type": "Replace", "pattern": pattern, "content": content})
}

fn template(pieces: &Value, ids: &[u64]) -> Value {
    json!({"type": "TemplateProcessing", "single": pieces, "pair": [],
        "special_tokens": {"a": {"id": "a", "ids": ids, "tokens": ["a"]}}})
}

/// Steps that fail in the library, or take all memory or time there, and such that no supported model needs.
#[test]
fn a_part_of_a_tokenizer_that_is_not_supported_is_named() {
    let nested = (0..50).fold(json!({"type": "NFC"}), |inner, _| sequence("normalizers", vec![inner]));
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    let special = json!({"SpecialToken": {"id": "a", "type_id": 0}});
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
    let doubling = vec![replace(&json!({"String": "a"}), "aaaaaaaaaaaaaaaa"); 16];
    let cases: [(&str, Value, &str); 34] = [
        ("normalizer", replace(&json!({"String": ""}), "zz"), "an empty pattern"),
        ("normalizer", replace(&json!({"Regex": "x*"}), "zz"), "may match an empty text"),
        ("normalizer", replace(&json!({"Regex": "(?=x)"}), "zz"), "may match an empty text"),
        ("normalizer", sequence("normalizers", doubling), "more than 256 times as long"),
        ("normalizer", sequence("normalizers", vec![json!({"type": "NFC"}); 17]), "more than 16 steps"),
        ("normalizer", nested, "more than 3 sequences within each other"),
        ("normalizer", json!({"type": "Prepend", "prepend": "a".repeat(300)}), "`prepend` has 300 bytes"),
        ("normalizer", json!({"type": "Prepend", "prepend": "a".repeat(2_000_000)}), "expected at most 1048576"),
        ("normalizer", json!({"type": "Nmt"}), "`Nmt` is not supported"),
        ("normalizer", json!([1]), "a step without a `type`"),
        ("pre_tokenizer", json!({"type": "FixedLength", "length": 0}), "`FixedLength` is not supported"),
        ("pre_tokenizer", split(""), "an empty pattern"),
        ("pre_tokenizer", split("("), "without closing"),
        ("pre_tokenizer", split(&"a|".repeat(10_000)), "a pattern of 20000 bytes"),
        ("pre_tokenizer", split(r"(?=a)\p{L}{1000}{1000}"), "a pattern with 2000 repetitions"),
        ("pre_tokenizer", split(&"(?=".repeat(1000)), "too deeply nested"),
        ("pre_tokenizer", sequence("pretokenizers", vec![byte_level; 9]), "more than 256 times as long"),
        (
            "decoder",
            json!({"type": "Strip", "content": "a", "start": 0, "stop": 1u64 << 62}),
            "`Strip` with start 0 and stop",
        ),
        ("decoder", json!({"type": "Strip", "content": "a", "start": -1, "stop": 0}), "`Strip` with start -1"),
        (
            "decoder",
            json!({"type": "CTC", "pad_token": "", "word_delimiter_token": "", "cleanup": true}),
            "`CTC` is not",
        ),
        ("decoder", replace(&json!({"String": ""}), "x"), "an empty pattern"),
        ("post_processor", template(&json!([special, special, text]), &[0]), "places the ids [0, 0] before a text"),
        (
            "post_processor",
            template(&json!([special, text]), &[4_000_000_000]),
            "has the id 4000000000, which is not a token",
        ),
        ("post_processor", template(&json!([special, text]), &[0; 100]), "`a` has 100 ids"),
        ("post_processor", template(&json!([special]), &[0]), "contains the text 0 times"),
        ("post_processor", template(&json!([text, text]), &[0]), "contains the text 2 times"),
        (
            "post_processor",
            json!({"type": "BertProcessing", "sep": ["a", 1], "cls": ["b", 88_888]}),
            "has the id 88888",
        ),
        ("post_processor", json!({"type": "Evil"}), "`Evil` is not supported"),
        (
            "truncation",
            json!({"direction": "Right", "max_length": 1u64 << 62, "strategy": "LongestFirst", "stride": 0}),
            "`truncation.max_length`",
        ),
        (
            "padding",
            json!({"strategy": "BatchLongest", "pad_to_multiple_of": 1u64 << 62}),
            "`padding.pad_to_multiple_of`",
        ),
        ("added_tokens", json!([]), "lists the special token `<|endoftext|>` (id 0), which is not an added token"),
        ("added_tokens", json!([token(0, "<|endoftext|>"), token(0, "ZZ")]), "two added tokens have the id 0"),
        ("added_tokens", json!([token(0, "<|endoftext|>"), token(770, "<|endoftext|>")]), "is listed twice"),
        (
            "added_tokens",
            (770..30_000).map(|id| token(id, &id.to_string())).collect(),
            "29230 added tokens, expected at most",
        ),
    ];
    for (part, value, reason) in cases {
        let error = refused(&with_json("tokenizer.json", |it| it[part] = value.clone()));
        contains(&error, &["error: read the tokenizer of `m`: ", reason]);
        assert!(error.len() < 3000 && !error.contains("WARN"), "{error}");
    }
    for (name, value, reason) in [
        ("continuing_subword_prefix", json!("é"), "`model.continuing_subword_prefix` is `é`"),
        ("end_of_word_suffix", json!("</w>"), "`model.end_of_word_suffix` is `</w>`"),
        ("type", json!("Unigram"), "of kind Unigram; only byte-pair"),
        ("vocab", json!([["a", 0]]), "expected a table of tokens and ids"),
        ("vocab", json!({"a": 1u64 << 40}), "expected u32"),
        ("merges", json!(["a b c"]), "Merges text file invalid"),
    ] {
        contains(&refused(&with_json("tokenizer.json", |it| it["model"][name] = value.clone())), &[reason]);
    }
}
