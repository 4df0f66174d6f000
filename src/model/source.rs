//! Opens a model: `tiny` (embedded), a Hugging Face folder, a GGUF file or a model on the Hub.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::checkpoint::{Checkpoint, pickle_refused, weight_files};
use super::config::ModelConfig;
use super::embedded;
use super::gguf::Gguf;
use super::hub::{HubConfig, Kind, Plan, Repo, is_hub_id, model_files, text_files};
use super::safetensors::SafetensorsFile;
use super::tokenizer::{GgufTokenizer, Tokenizer};
use super::tokenizer_file;
use super::weights::{NoWeights, Weights};
use crate::disk::{hash as digest, regular};

/// A model that is ready to be read: its shape, its weights and everything that its tokenizer needs.
pub struct ModelSource {
    /// The model's name: as the user wrote it; for a path, the last part.
    pub name: String,
    pub config: ModelConfig,
    pub weights: Box<dyn Weights>,
    pub tokenizer: TokenizerSource,
    /// The text of `tokenizer_config.json`; for a GGUF file, generated from its metadata.
    pub tokenizer_config: Option<String>,
    /// The text of `chat_template.jinja`, which overrides a template in `tokenizer_config`.
    pub chat_template: Option<String>,
    /// Hash of the weights, see [`content_hash`].
    pub hash: String,
    pub origin: ModelOrigin,
}

pub enum TokenizerSource {
    /// The contents of `tokenizer.json`.
    Json(Vec<u8>),
    Gguf(GgufTokenizer),
}

/// The files behind a [`ModelSource`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelOrigin {
    Embedded,
    Folder(PathBuf),
    Gguf(PathBuf),
}

impl ModelSource {
    /// Opens what `--model` names: `tiny`, a folder, a .gguf file or a Hub id, which is downloaded if it is not in the
    /// cache. `revision` applies to a Hub id.
    pub fn open(name: &str, revision: &str) -> Result<Self> {
        match ModelLocation::of(name)? {
            ModelLocation::Embedded => Self::open_embedded(),
            ModelLocation::Folder(path) => Self::open_folder(&path),
            ModelLocation::Gguf(path) => Self::open_gguf(&path),
            ModelLocation::Hub => Self::open_hub(&HubConfig::from_env()?, name, revision),
        }
    }

    /// The small embedded model.
    pub fn open_embedded() -> Result<Self> {
        let (file, weights) = (embedded::file, embedded::WEIGHTS);
        Ok(Self {
            name: embedded::NAME.to_owned(),
            config: ModelConfig::from_json(file("config.json"), Some(file("generation_config.json")))?,
            weights: Box::new(SafetensorsFile::from_bytes(weights)?),
            tokenizer: TokenizerSource::Json(file("tokenizer.json").to_vec()),
            tokenizer_config: Some(String::from_utf8(file("tokenizer_config.json").to_vec())?),
            chat_template: None,
            hash: format!("sha256:{}", digest::sha256(weights)),
            origin: ModelOrigin::Embedded,
        })
    }

    /// The download that opening `name` needs; `None` if it is not a Hub id. [`Plan::fetch`] downloads it and reports
    /// progress.
    pub fn plan(name: &str, revision: &str) -> Result<Option<Plan>> {
        match ModelLocation::of(name)? {
            ModelLocation::Hub => Ok(Some(plan(&HubConfig::from_env()?, name, revision)?)),
            _ => Ok(None),
        }
    }

    /// The shape of the model with a Hub id; only its configuration is downloaded.
    pub fn peek(id: &str, revision: &str) -> Result<ModelConfig> {
        let repo = Repo::new(Kind::Model, id, revision)?;
        let files = Plan::new(&HubConfig::from_env()?, repo, |_| Ok(vec!["config.json".to_owned()]))?;
        let paths = files.fetch(&mut |_| {})?;
        let bytes =
            regular::read(&paths[0], regular::JSON).with_context(|| format!("read `{}`", paths[0].display()))?;
        ModelConfig::from_json(&bytes, None).with_context(|| format!("open the model `{id}`"))
    }

    /// Opens a Hub id with the Hub and the cache of `config`.
    pub fn open_hub(config: &HubConfig, id: &str, revision: &str) -> Result<Self> {
        let plan = plan(config, id, revision)?;
        plan.fetch(&mut |_| {})?;
        Ok(Self { name: id.to_owned(), ..Self::open_folder(&plan.folder())? })
    }

    /// Opens what `--model` names for its tokenizer and chat template only: no weights are downloaded or needed, and
    /// reading one is an error. For a model that runs on a server.
    pub fn open_texts(name: &str, revision: &str) -> Result<Self> {
        match ModelLocation::of(name)? {
            ModelLocation::Embedded => Self::open_embedded(),
            ModelLocation::Gguf(path) => Self::open_gguf(&path),
            ModelLocation::Folder(path) => Self::open_texts_of(&path),
            ModelLocation::Hub => {
                let plan = Plan::new(&HubConfig::from_env()?, Repo::new(Kind::Model, name, revision)?, text_files)?;
                plan.fetch(&mut |_| {})?;
                Ok(Self { name: name.to_owned(), ..Self::open_texts_of(&plan.folder())? })
            }
        }
    }

    fn open_texts_of(folder: &Path) -> Result<Self> {
        let texts = ["config.json", "tokenizer.json"].map(|name| folder.join(name));
        Self::read_folder(folder, |_| Ok((Box::new(NoWeights) as _, content_hash(&texts)?)))
    }

    /// Opens a model folder: `config.json`, safetensors, `tokenizer.json` and the other usual files that it has.
    pub fn open_folder(folder: &Path) -> Result<Self> {
        let files = weight_files(folder)?; // first, because its error describes the contents of a wrong folder best
        Self::read_folder(folder, |config| {
            let weights = Checkpoint::open(folder)?;
            if let Some((missing, _)) = config.tensors().into_iter().find(|(name, _)| !weights.contains(name)) {
                bail!("the weights in `{}` do not contain tensor `{missing}`", folder.display());
            }
            weights.check_unused(config).with_context(|| format!("open the model `{}`", folder.display()))?;
            Ok((Box::new(weights) as _, content_hash(&files)?))
        })
    }

    /// Reads a folder's text files; `weights` returns the weights for its configuration, and their hash.
    fn read_folder(
        folder: &Path,
        weights: impl FnOnce(&ModelConfig) -> Result<(Box<dyn Weights>, String)>,
    ) -> Result<Self> {
        let in_folder = || format!("open the model `{}`", folder.display());
        let config = read(folder, "config.json")?.with_context(|| {
            format!("`{}` has no `config.json`\nhint: pass a model folder, which contains this file", folder.display())
        })?;
        let generation_config = read(folder, "generation_config.json")?;
        let config = ModelConfig::from_json(&config, generation_config.as_deref()).with_context(in_folder)?;
        let (weights, hash) = weights(&config)?;
        let tokenizer = read(folder, "tokenizer.json")?.with_context(|| {
            format!(
                "`{}` has no `tokenizer.json`\nhint: write one with transformers' `AutoTokenizer.from_pretrained(..).save_pretrained(..)`",
                folder.display()
            )
        })?;
        Ok(Self {
            name: file_name(folder),
            config,
            weights,
            tokenizer: TokenizerSource::Json(tokenizer),
            tokenizer_config: read_text(folder, "tokenizer_config.json")?,
            chat_template: read_text(folder, "chat_template.jinja")?,
            hash,
            origin: ModelOrigin::Folder(folder.to_owned()),
        })
    }

    pub fn open_gguf(path: &Path) -> Result<Self> {
        let gguf = Gguf::open(path)?;
        let tokenizer = gguf.tokenizer()?;
        let token = |id: Option<u32>| id.and_then(|id| tokenizer.tokens.get(id as usize));
        let tokenizer_config = serde_json::json!({
            "add_bos_token": tokenizer.add_bos,
            "bos_token": token(tokenizer.bos),
            "eos_token": token(tokenizer.eos),
            "chat_template": gguf.chat_template(),
            "tokenizer_class": "PreTrainedTokenizerFast",
        });
        Ok(Self {
            name: gguf_name(path, gguf.model_name()),
            config: gguf.config().clone(),
            tokenizer: TokenizerSource::Gguf(tokenizer),
            tokenizer_config: Some(serde_json::to_string_pretty(&tokenizer_config)?),
            chat_template: None,
            hash: content_hash(&[path.to_owned()])?,
            origin: ModelOrigin::Gguf(path.to_owned()),
            weights: Box::new(gguf),
        })
    }

    /// # Errors
    /// If it is damaged, not supported, or has a token without a row in the embedding.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        let in_model = || format!("read the tokenizer of `{}`", self.name);
        let tokenizer = match &self.tokenizer {
            TokenizerSource::Json(bytes) => Tokenizer::from_bytes(bytes),
            TokenizerSource::Gguf(gguf) => Tokenizer::from_gguf(gguf.clone()),
        }
        .with_context(in_model)?;
        self.check_rows(&tokenizer).with_context(in_model)?;
        self.check_specials(&tokenizer).with_context(in_model)?;
        Ok(tokenizer)
    }

    /// The special tokens that `tokenizer_config.json` lists are special in `tokenizer.json` too. Otherwise, another program adds
    /// them, and a template that writes them would give other ids here.
    fn check_specials(&self, tokenizer: &Tokenizer) -> Result<()> {
        #[derive(Deserialize)]
        struct Config {
            #[serde(default)]
            added_tokens_decoder: BTreeMap<String, AddedToken>,
        }
        #[derive(Deserialize)]
        struct AddedToken {
            content: String,
            #[serde(default)]
            special: bool,
        }
        let Some(text) = &self.tokenizer_config else { return Ok(()) };
        let Ok(config) = serde_json::from_str::<Config>(text.trim_start_matches('\u{feff}')) else { return Ok(()) };
        for (id, AddedToken { content, special }) in config.added_tokens_decoder {
            let is_added = tokenizer.id_of(&content).is_some_and(|id| tokenizer.is_added(id));
            ensure!(
                !special || is_added,
                "`tokenizer_config.json` lists the special token `{content}` (id {id}), which is not an added token of \
                 `tokenizer.json`\n\
                 hint: write the tokenizer again with transformers' `save_pretrained`"
            );
        }
        Ok(())
    }

    /// An embedding often has more rows than there are tokens, but never fewer.
    fn check_rows(&self, tokenizer: &Tokenizer) -> Result<()> {
        let (last, rows) = (tokenizer.last_id(), self.config.vocab_size);
        ensure!(
            (last as usize) < rows,
            "it has {} tokens with ids up to {last}, the last of them `{}`, but the model's embedding has {rows} rows\n\
             hint: use the tokenizer that belongs to the weights; a token that was added later needs \
             `model.resize_token_embeddings(len(tokenizer))` before the model is saved",
            tokenizer.vocab_size(),
            tokenizer.token(last).unwrap_or_default()
        );
        Ok(())
    }
}

fn plan(config: &HubConfig, id: &str, revision: &str) -> Result<Plan> {
    Plan::new(config, Repo::new(Kind::Model, id, revision)?, model_files)
}

/// The kind of model that `--model` names. A path that exists takes precedence over a Hub id of the same form.
enum ModelLocation {
    Embedded,
    Folder(PathBuf),
    Gguf(PathBuf),
    Hub,
}

impl ModelLocation {
    fn of(name: &str) -> Result<Self> {
        let path = Path::new(name);
        let extension = path.extension().and_then(|it| it.to_str()).unwrap_or_default();
        if name == embedded::NAME {
            return Ok(Self::Embedded);
        }
        if path.is_dir() {
            return Ok(Self::Folder(path.to_owned()));
        }
        if path.is_file() {
            match extension {
                "gguf" => return Ok(Self::Gguf(path.to_owned())),
                "bin" | "pt" | "pth" | "ckpt" => bail!(pickle_refused(&file_name(path))),
                "safetensors" => bail!("`{name}` is one file of a model\nhint: pass the folder that contains it"),
                _ => bail!("`{name}` is not a model\nhint: pass a model folder or a .gguf file"),
            }
        }
        if is_hub_id(name) && extension != "gguf" {
            return Ok(Self::Hub);
        }
        bail!(
            "there is no model `{name}`\nhint: pass `tiny`, a model folder, a .gguf file or a Hub id such as Qwen/Qwen2.5-0.5B"
        )
    }
}

/// Identity of some files: SHA-256 of their names and contents. Of a file above 256 MiB only the length and 256 evenly
/// spaced pieces of 64 KiB are read, which distinguishes checkpoints (training changes every weight) but does not
/// protect against someone who changes single bytes; such a hash begins with `sampled:`.
pub fn content_hash(files: &[PathBuf]) -> Result<String> {
    let mut hash = Sha256::new();
    let mut sampled = false;
    for path in files {
        hash.update(file_name(path));
        sampled |= hash_file(&mut hash, path).with_context(|| format!("read `{}`", path.display()))?;
    }
    Ok(format!("{}{}", if sampled { "sampled:" } else { "sha256:" }, hex::encode(hash.finalize())))
}

/// Whether the file was sampled.
fn hash_file(hash: &mut Sha256, path: &Path) -> std::io::Result<bool> {
    const WHOLE: u64 = 256 << 20;
    const PIECES: u64 = 256;
    const PIECE: u64 = 64 << 10;
    let mut file = regular::open(path)?;
    let len = file.metadata()?.len();
    hash.update(len.to_le_bytes());
    if len <= WHOLE {
        digest::update(hash, file)?;
        return Ok(false);
    }
    for number in 0..PIECES {
        file.seek(SeekFrom::Start((len - PIECE) * number / (PIECES - 1)))?;
        digest::update(hash, (&file).take(PIECE))?;
    }
    Ok(true)
}

/// A file of a model folder; `None` if the folder does not have it.
fn read(folder: &Path, name: &str) -> Result<Option<Vec<u8>>> {
    let path = folder.join(name);
    let limit = if name == "tokenizer.json" { tokenizer_file::LONGEST } else { regular::JSON };
    match regular::read(&path, limit) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read `{}`", path.display())),
    }
}

fn read_text(folder: &Path, name: &str) -> Result<Option<String>> {
    let text = read(folder, name)?.map(String::from_utf8).transpose();
    text.with_context(|| format!("read `{}`", folder.join(name).display()))
}

/// The name of the model in a GGUF file: that of the file, unless this says nothing, such as `model.gguf`. Then it is the one in the
/// metadata, else that of the folder.
fn gguf_name(path: &Path, own: Option<&str>) -> String {
    let file = file_name(path);
    if !file.starts_with("model") && !file.starts_with("ggml-model") {
        return file;
    }
    let folder = path.canonicalize().ok().and_then(|path| Some(file_name(path.parent()?)));
    own.map(str::to_owned).or(folder).filter(|name| !name.is_empty()).unwrap_or(file)
}

fn file_name(path: &Path) -> String {
    let full = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    full.file_name().map_or_else(|| path.display().to_string(), |it| it.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn the_hash_distinguishes_contents_and_names() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let hash = |files: &[PathBuf]| content_hash(files).unwrap();
        let first = hash(&[write("a", "one"), write("b", "two")]);
        assert!(first.starts_with("sha256:") && first.len() == 71);
        assert_eq!(first, hash(&[write("a", "one"), write("b", "two")]));
        assert_ne!(first, hash(&[write("a", "one"), write("b", "twx")]));
        assert_ne!(first, hash(&[write("a", "onet"), write("b", "wo")]));
        assert_ne!(first, hash(&[write("c", "one"), write("b", "two")]));
    }

    #[test]
    fn a_large_file_is_sampled_over_its_whole_length() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("big");
        let file = File::create(&path).unwrap();
        file.set_len(300 << 20).unwrap(); // sparse: takes no space
        let before = content_hash(std::slice::from_ref(&path)).unwrap();
        assert!(before.starts_with("sampled:"));
        use std::io::{Seek, Write};
        (&file).seek(SeekFrom::End(-1)).unwrap();
        (&file).write_all(b"x").unwrap();
        assert_ne!(before, content_hash(&[path]).unwrap());
    }

    #[test]
    fn kinds_of_model_names_are_distinguished() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, "x").unwrap();
            path.to_str().unwrap().to_owned()
        };
        let refused = |name: &str| ModelLocation::of(name).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(matches!(ModelLocation::of("tiny"), Ok(ModelLocation::Embedded)));
        assert!(matches!(ModelLocation::of("Qwen/Qwen2.5-0.5B"), Ok(ModelLocation::Hub)));
        assert!(matches!(ModelLocation::of(folder.path().to_str().unwrap()), Ok(ModelLocation::Folder(_))));
        assert!(matches!(ModelLocation::of(&file("a.gguf")), Ok(ModelLocation::Gguf(_))));
        assert!(refused(&file("pytorch_model.bin")).contains("pickle"));
        assert!(refused(&file("model.safetensors")).contains("pass the folder"));
        assert!(refused(&file("notes.txt")).contains("is not a model"));
        for name in ["qwen", "models/x.gguf", "./models/x", "/no/such/folder"] {
            assert!(refused(name).contains("there is no model"), "{name}");
        }
    }
}
