//! The weights of a Hugging Face folder: one safetensors file, or shards and their index.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::config::ModelConfig;
use super::safetensors::SafetensorsFile;
use super::weights::{Weights, check_shape, check_unused};
use crate::disk::regular;

pub const SINGLE: &str = "model.safetensors";
pub const INDEX: &str = "model.safetensors.index.json";

/// Every tensor of a folder and the file that contains it.
#[derive(Debug)]
pub struct Checkpoint {
    files: Vec<SafetensorsFile>,
    owner: BTreeMap<String, usize>,
}

impl Checkpoint {
    pub fn open(folder: &Path) -> Result<Self> {
        let mut files = Vec::new();
        let mut owner = BTreeMap::new();
        for path in weight_files(folder)? {
            let file = SafetensorsFile::open(&path)?;
            for name in file.tensors().keys() {
                let earlier = owner.insert(name.clone(), files.len());
                ensure!(earlier.is_none(), "tensor `{name}` is in two files of `{}`", folder.display());
            }
            files.push(file);
        }
        let checkpoint = Self { files, owner };
        if !present(folder, SINGLE) {
            for name in read_index(folder)?.weight_map.keys() {
                ensure!(checkpoint.contains(name), "`{INDEX}` lists tensor `{name}`, which is not in any file");
            }
        }
        Ok(checkpoint)
    }

    /// Returns an error if the decoder of the weights has a tensor that `config` does not have: it would be left out without a
    /// word, and another model computed. Tensors outside the decoder, such as a value head, do not change its logits.
    pub fn check_unused(&self, config: &ModelConfig) -> Result<()> {
        let read: BTreeSet<String> = config.tensors().into_iter().map(|(name, _)| name).collect();
        // Old Llama checkpoints store the frequencies of the rotary embedding, which follow from the configuration.
        let computed = |name: &str| name.ends_with(".rotary_emb.inv_freq");
        let decoder = self.owner.keys().filter(|name| name.starts_with("model."));
        check_unused(config, decoder.filter(|name| !read.contains(*name) && !computed(name)).map(String::as_str))
    }
}

impl Weights for Checkpoint {
    fn get(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        match self.owner.get(name) {
            Some(&file) => self.files[file].get(name, shape),
            None => check_shape(name, None, shape).map(|()| Vec::new()),
        }
    }

    fn bf16<'a>(&'a self, name: &str, shape: &[usize]) -> Result<Box<dyn Read + 'a>> {
        match self.owner.get(name) {
            Some(&file) => self.files[file].bf16(name, shape),
            None => check_shape(name, None, shape).map(|()| Box::new(std::io::empty()) as _),
        }
    }

    fn contains(&self, name: &str) -> bool {
        self.owner.contains_key(name)
    }
}

/// Whether the folder has an entry of this name, which may still not be a readable file: then reading it gives the reason.
fn present(folder: &Path, name: &str) -> bool {
    folder.join(name).symlink_metadata().is_ok()
}

/// The safetensors files that make up the checkpoint in `folder`, by name.
pub fn weight_files(folder: &Path) -> Result<Vec<PathBuf>> {
    if present(folder, SINGLE) {
        return Ok(vec![folder.join(SINGLE)]);
    }
    if present(folder, INDEX) {
        let index = read_index(folder)?;
        return shards(&index)?.into_iter().map(|name| inside(folder, name)).collect();
    }
    bail!(no_weights(folder))
}

#[derive(Deserialize)]
pub struct Index {
    /// Tensor ► file.
    pub weight_map: BTreeMap<String, String>,
}

/// The distinct files that an index names, after a check that each is a plain name.
pub fn shards(index: &Index) -> Result<BTreeSet<&str>> {
    let names: BTreeSet<&str> = index.weight_map.values().map(String::as_str).collect();
    for name in &names {
        let mut parts = Path::new(name).components();
        let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == *name);
        ensure!(
            plain && !name.contains(['/', '\\', '\0', ':']) && name.ends_with(".safetensors"),
            "`{INDEX}` names the file `{}`, expected only plain names of .safetensors files",
            name.escape_default()
        );
    }
    ensure!(!names.is_empty(), "`{INDEX}` does not name any file");
    Ok(names)
}

fn read_index(folder: &Path) -> Result<Index> {
    let path = folder.join(INDEX);
    let bytes = regular::read(&path, regular::JSON).with_context(|| format!("read `{}`", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("read `{}`", path.display()))
}

/// The path of a shard, after a check that no link leads out of the folder. A snapshot in the Hub's cache consists of
/// links into the `blobs` folder two levels up, so this one outside folder is allowed.
fn inside(folder: &Path, name: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    let real = path.canonicalize().with_context(|| format!("`{INDEX}` names `{name}`: read `{}`", path.display()))?;
    let folder = folder.canonicalize()?;
    let blobs = folder.parent().and_then(Path::parent).map(|it| it.join("blobs"));
    ensure!(
        real.starts_with(&folder) || blobs.is_some_and(|it| real.starts_with(it)),
        "`{}` is a link that leads out of its folder",
        path.display()
    );
    Ok(path)
}

/// Why a folder without safetensors cannot be used, judging by its files.
fn no_weights(folder: &Path) -> String {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries.flatten(),
        Err(error) => return format!("read the folder `{}`: {error}", folder.display()),
    };
    let names: BTreeSet<String> = entries.map(|it| it.file_name().to_string_lossy().into_owned()).collect();
    let folder = folder.display();
    if names.contains("adapter_model.safetensors") {
        return format!(
            "`{folder}` contains an adapter, not a model\nhint: pass the base model with --model and this folder with --adapter"
        );
    }
    let first_with = |endings: &[&str]| names.iter().find(|name| endings.iter().any(|end| name.ends_with(end)));
    if let Some(name) = first_with(&[".bin", ".pt", ".pth", ".ckpt"]) {
        return pickle_refused(name);
    }
    if let Some(name) = first_with(&[".gguf"]) {
        return format!("`{folder}` does not contain safetensors\nhint: pass the file itself: --model {folder}/{name}");
    }
    if let Some(name) = first_with(&[".safetensors"]) {
        return format!(
            "`{folder}` contains `{name}` but no `{INDEX}`\nhint: add the index, which a checkpoint in several files needs"
        );
    }
    format!("`{folder}` does not contain weights\nhint: pass a folder with `config.json` and `{SINGLE}`")
}

/// The message for weights in Python's pickle format.
pub fn pickle_refused(name: &str) -> String {
    format!(
        "`{name}` is a pickle file, which is not supported because loading it can run code\nhint: use the checkpoint in safetensors, or convert it with `save_pretrained(..., safe_serialization=True)`"
    )
}

#[cfg(test)]
mod tests {
    use super::super::config::tests::tiny;
    use super::super::safetensors::{Dtype, Writer};
    use super::super::weights::RandomWeights;
    use super::*;

    /// Writes the tiny random model as `shards` files and an index.
    fn write_sharded(folder: &Path, shards: usize) {
        let config = tiny();
        let weights = RandomWeights::new(&config, 5);
        let tensors = config.tensors();
        let mut map = serde_json::Map::new();
        for (number, part) in tensors.chunks(tensors.len().div_ceil(shards)).enumerate() {
            let name = format!("model-{number}.safetensors");
            let mut writer = Writer::create(&folder.join(&name), part, Dtype::F32).unwrap();
            for (tensor, shape) in part {
                writer.write(tensor, &weights.get(tensor, shape).unwrap()).unwrap();
                map.insert(tensor.clone(), name.clone().into());
            }
            writer.finish().unwrap();
        }
        write_index(folder, map.into());
    }

    fn write_index(folder: &Path, weight_map: serde_json::Value) {
        std::fs::write(folder.join(INDEX), serde_json::json!({"weight_map": weight_map}).to_string()).unwrap();
    }

    fn error(folder: &Path) -> String {
        format!("{:#}", Checkpoint::open(folder).unwrap_err())
    }

    #[test]
    fn shards_are_read_as_one_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        write_sharded(folder.path(), 3);
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        let random = RandomWeights::new(&tiny(), 5);
        for (name, shape) in tiny().tensors() {
            assert_eq!(checkpoint.get(&name, &shape).unwrap(), random.get(&name, &shape).unwrap(), "{name}");
        }
        std::fs::remove_file(folder.path().join("model-1.safetensors")).unwrap();
        assert!(error(folder.path()).contains("model-1.safetensors"));
    }

    #[test]
    fn an_index_cannot_lead_out_of_its_folder() {
        let outer = tempfile::tempdir().unwrap();
        write_sharded(outer.path(), 1);
        let folder = outer.path().join("model");
        std::fs::create_dir(&folder).unwrap();
        for name in [
            "../model-0.safetensors",
            "/etc/passwd",
            "..",
            "a\\b.safetensors",
            "a\0.safetensors",
            "x.bin",
            "./a.safetensors",
            "",
        ] {
            write_index(&folder, serde_json::json!({"t": name}));
            assert!(error(&folder).contains("expected only plain names"), "{name:?}: {}", error(&folder));
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("../model-0.safetensors", folder.join("a.safetensors")).unwrap();
            write_index(&folder, serde_json::json!({"model.norm.weight": "a.safetensors"}));
            assert!(error(&folder).contains("leads out of its folder"), "{}", error(&folder));
        }
    }

    #[test]
    fn the_index_and_the_files_must_agree() {
        let folder = tempfile::tempdir().unwrap();
        write_sharded(folder.path(), 1);
        write_index(folder.path(), serde_json::json!({"missing": "model-0.safetensors"}));
        assert!(error(folder.path()).contains("`missing`"));
        std::fs::copy(folder.path().join("model-0.safetensors"), folder.path().join("model-1.safetensors")).unwrap();
        write_index(folder.path(), serde_json::json!({"a": "model-0.safetensors", "b": "model-1.safetensors"}));
        assert!(error(folder.path()).contains("is in two files"));
    }

    #[test]
    fn errors_of_folders_without_safetensors_name_their_contents() {
        for (file, reason) in [
            ("pytorch_model.bin", "pickle file"),
            ("consolidated.00.pth", "pickle file"),
            ("model-q4.gguf", "pass the file itself"),
            ("adapter_model.safetensors", "contains an adapter"),
            ("model-00001-of-00002.safetensors", "no `model.safetensors.index.json`"),
            ("README.md", "does not contain weights"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join(file), b"x").unwrap();
            let error = error(folder.path());
            assert!(error.contains(reason) && error.contains("\nhint: "), "{file}: {error}");
        }
    }
}
