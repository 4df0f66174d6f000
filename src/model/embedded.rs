//! The small embedded model, made by `examples/pretrain_tiny`.

/// Its name for `--model`.
pub const NAME: &str = "tiny";

/// The files of the model folder.
pub const FILES: [(&str, &[u8]); 5] = [
    ("config.json", include_bytes!("../../assets/tiny/config.json")),
    ("generation_config.json", include_bytes!("../../assets/tiny/generation_config.json")),
    ("model.safetensors", WEIGHTS),
    ("tokenizer.json", include_bytes!("../../assets/tiny/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("../../assets/tiny/tokenizer_config.json")),
];
pub const WEIGHTS: &[u8] = include_bytes!("../../assets/tiny/model.safetensors");

/// The contents of one of them.
pub(super) fn file(name: &str) -> &'static [u8] {
    FILES.iter().find(|it| it.0 == name).expect("a file of the embedded model").1
}
