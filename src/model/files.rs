//! The files that a model consists of, for their hashes.

use std::collections::BTreeMap;

use anyhow::Result;

use super::checkpoint::weight_files;
use super::embedded;
use super::source::{ModelOrigin, ModelSource};
use crate::disk::hash;
use crate::disk::hash_cache::NamedFiles;

/// The files of a model folder besides its weights that change what a run computes.
const TEXTS: [&str; 5] =
    ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"];

/// The files of `source`: none for the embedded model, whose hashes are [`embedded_hashes`].
pub fn of(source: &ModelSource) -> Result<NamedFiles> {
    Ok(match &source.origin {
        ModelOrigin::Embedded => NamedFiles::default(),
        ModelOrigin::Gguf(path) => NamedFiles::of(vec![path.clone()]),
        ModelOrigin::Folder(folder) => {
            let texts = TEXTS.map(|name| folder.join(name)).into_iter().filter(|path| path.is_file());
            NamedFiles::of(texts.chain(weight_files(folder)?).collect())
        }
    })
}

/// SHA-256 of the embedded model's files.
pub fn embedded_hashes() -> BTreeMap<String, String> {
    let hash = |(name, content): &(&str, &[u8])| ((*name).to_owned(), hash::sha256(content));
    embedded::FILES.iter().map(hash).collect()
}
