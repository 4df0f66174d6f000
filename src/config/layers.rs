//! Resolves layers to one configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use serde::Deserialize;
use toml::{Table, Value};

use super::entry::{Entry, flatten, of_environment, of_file, of_set};
use super::fault::{ConfigFault, read};
use super::known::{Known, nearest_name};
use super::optional::UNSET;
use super::place::ValueOrigin;
use super::presets::{CHECKPOINT, PRESETS, Preset, TINY};
use super::schema::RunConfig;

/// Everything that can set a value, lowest layer first.
#[derive(Clone, Debug, Default)]
pub struct ConfigLayers {
    /// The preset to start from. `None`: the top-level `preset = "..."` of a file, else `tiny`, or `qwen2.5-0.5b` if a layer
    /// selects a model other than the embedded one.
    pub preset: Option<String>,
    /// TOML files; later files override earlier ones.
    pub files: Vec<PathBuf>,
    /// Environment variables. Those named `RFT_SECTION__KEY` are used, all others are ignored.
    pub env: Vec<(String, String)>,
    /// Arguments of `--set`: `section.key=value`.
    pub sets: Vec<String>,
    /// The command's own flags: the key, the value, and the name of the flag as its origin.
    pub flags: Vec<(String, Value, String)>,
}

impl ConfigLayers {
    /// Sets `key` from the command's flag `name`, if the user passed it.
    pub fn flag(&mut self, key: &str, value: Option<impl Into<Value>>, name: &str) {
        self.flags.extend(value.map(|value| (key.to_owned(), value.into(), name.to_owned())));
    }

    /// Sets the prior prompt from the flag `--ppe`, if the user passed it. The wording in a file belongs to the file's prompt.
    pub fn prompt_flag(&mut self, ppe: Option<&str>) {
        self.flag("prompt.ppe", ppe, "--ppe");
        let is_set = self.sets.iter().any(|set| set.trim_start().starts_with("prompt.wording"));
        self.flag("prompt.wording", ppe.filter(|_| !is_set).map(|_| 0), "--ppe");
    }
}

/// A valid configuration, and the origin of each of its values.
#[derive(Clone, Debug)]
pub struct Resolved {
    pub config: RunConfig,
    /// By dotted key, for every key.
    pub origins: BTreeMap<String, ValueOrigin>,
}

/// Applies the layers in order, checks each key and type where it is set, and then checks the values together.
pub fn resolve(layers: &ConfigLayers) -> Result<Resolved> {
    let mut asked_preset = None;
    let mut entries = Vec::new();
    for path in &layers.files {
        let (preset, set) = split_preset(of_file(path)?)?;
        asked_preset = preset.or(asked_preset);
        entries.extend(checked_layer(set)?);
    }
    entries.extend(checked_layer(of_environment(&layers.env))?);
    let mut typed = Vec::new();
    for argument in &layers.sets {
        typed.extend(of_set(argument)?);
    }
    for (key, value, flag) in &layers.flags {
        typed.push(Entry::new(key, value.clone(), ValueOrigin::Flag(flag.clone())));
    }
    entries.extend(checked_layer(typed)?);

    let preset = match &layers.preset {
        Some(name) => Some(find_preset(name, "--preset")?),
        None => asked_preset,
    };
    MergedConfig::new(preset, &entries)?.finish()
}

/// The entries of one layer.
///
/// # Errors
/// The layer sets `prompt.mix` and what it replaces. A later layer may do that.
pub(crate) fn checked_layer(entries: Vec<Entry>) -> Result<Vec<Entry>> {
    let of = |key: &str| entries.iter().rev().find(|entry| entry.key() == key);
    if let Some(mix) = of("prompt.mix").filter(|entry| replaced_by(entry).is_some()) {
        for (key, neutral) in replaced_by(mix).into_iter().flatten() {
            if let Some(other) = of(key).filter(|entry| entry.value != neutral) {
                return Err(anyhow!(
                    "{}: `prompt.mix` and `{key}` (at {}) are both set\n\
                     hint: remove one of them; a wording is selected in the mixture, such as ppe = \"reasoning@2\"",
                    mix.origin.site(),
                    other.origin.site()
                ));
            }
        }
    }
    Ok(entries)
}

/// The values that the prompts of `entry` replace in lower layers; `None` if it does not set prompts.
fn replaced_by(entry: &Entry) -> Option<Vec<(&'static str, Value)>> {
    match (entry.key().as_str(), &entry.value) {
        ("prompt.ppe", Value::String(name)) if name != UNSET => Some(vec![("prompt.mix", Value::Array(Vec::new()))]),
        ("prompt.mix", Value::Array(mix)) if !mix.is_empty() => {
            Some(vec![("prompt.ppe", Value::from(UNSET)), ("prompt.wording", Value::Integer(0))])
        }
        _ => None,
    }
}

/// The preset that a file selects, and the file's other entries.
fn split_preset(mut entries: Vec<Entry>) -> Result<(Option<Preset>, Vec<Entry>)> {
    let Some(position) = entries.iter().position(|it| it.path == ["preset"]) else { return Ok((None, entries)) };
    let Entry { value, origin, .. } = entries.remove(position);
    let site = origin.site();
    let wrong_type = || anyhow!("{site}: `preset`: expected string, found {}", value.type_str());
    let preset = find_preset(value.as_str().ok_or_else(wrong_type)?, &site)?;
    Ok((Some(preset), entries))
}

pub(crate) fn find_preset(name: &str, site: &str) -> Result<Preset> {
    let names = || PRESETS.iter().map(|it| it.name);
    Preset::find(name).ok_or_else(|| {
        let known = names().collect::<Vec<_>>().join(", ");
        let hint = match nearest_name(name, names()) {
            Some(meant) => format!("did you mean `{meant}`? the presets are {known}"),
            None => format!("the presets are {known}; to use your own file, pass --config"),
        };
        anyhow!("{site}: unknown preset `{name}`\nhint: {hint}")
    })
}

fn default_preset(entries: &[Entry]) -> Preset {
    let model = entries.iter().rev().find(|it| it.path == ["model", "path"]).and_then(|it| it.value.as_str());
    if model.is_none_or(|it| it == "tiny") { TINY } else { CHECKPOINT }
}

/// A complete table of values that is extended layer by layer and stays valid, so that an error is attributed to the entry
/// that causes it.
#[derive(Clone)]
pub(crate) struct MergedConfig {
    known: Known,
    table: Table,
    origins: BTreeMap<String, ValueOrigin>,
}

impl MergedConfig {
    /// Applies `entries` on top of `preset`, or of the default preset for them if `preset` is `None`.
    pub fn new(preset: Option<Preset>, entries: &[Entry]) -> Result<MergedConfig> {
        let mut merged = MergedConfig::of_preset(preset.unwrap_or_else(|| default_preset(entries)))?;
        entries.iter().try_for_each(|entry| merged.lay(entry))?;
        Ok(merged)
    }

    fn of_preset(preset: Preset) -> Result<MergedConfig> {
        let of_preset = |error: toml::de::Error| anyhow!("preset {}: {error}", preset.name);
        let config: RunConfig = toml::from_str(preset.text).map_err(of_preset)?;
        let table = Table::try_from(config).context("write the preset as TOML")?;
        let mut origins = BTreeMap::new();
        flatten(&table, &mut Vec::new(), &mut |path, _| {
            origins.insert(path.join("."), ValueOrigin::Preset(preset.name.to_owned()));
        });
        Ok(MergedConfig { known: Known::of(&table), table, origins })
    }

    /// Sets one value.
    ///
    /// # Errors
    /// The key is unknown, or its value has another type.
    pub fn lay(&mut self, entry: &Entry) -> Result<()> {
        let key = entry.key();
        if !self.known.has_key(&key) {
            return self.check_section(entry);
        }
        let typed_as_string =
            || entry.raw.as_ref().and_then(|raw| self.with(&entry.path, Value::String(raw.clone())).ok());
        let table = match self.with(&entry.path, entry.value.clone()) {
            Ok(table) => table,
            // `--set data.revision=1234567` means a string: the key determines the type.
            Err(fault) => typed_as_string().ok_or_else(|| fault.at(&entry.origin, &key))?,
        };
        self.table = table;
        self.origins.insert(key, entry.origin.clone());
        for (key, value) in replaced_by(entry).into_iter().flatten() {
            if self.value(key) != Some(&value) {
                let other = Entry::new(key, value, entry.origin.clone());
                self.table = self.with(&other.path, other.value).map_err(|fault| fault.at(&entry.origin, key))?;
                self.origins.insert(key.to_owned(), entry.origin.clone());
            }
        }
        Ok(())
    }

    /// An entry without a value is valid only as the header of an empty section.
    fn check_section(&self, entry: &Entry) -> Result<()> {
        let key = entry.key();
        let empty = entry.value.as_table().is_some_and(Table::is_empty);
        if self.known.has_section(&key) {
            if empty {
                return Ok(());
            }
            let site = entry.origin.site();
            return Err(anyhow!(
                "{site}: `{key}` is a section, not a value\nhint: write it as [{key}] and set its keys"
            ));
        }
        // Report the first part of the key that is wrong.
        let prefix = |parts: usize| entry.path[..parts].join(".");
        let depth = (1..entry.path.len()).find(|&parts| !self.known.has_section(&prefix(parts)));
        let wrong = depth.unwrap_or(entry.path.len());
        let site = entry.parts.get(wrong - 1).unwrap_or(&entry.origin).site();
        let name = prefix(wrong);
        if self.known.has_key(&name) {
            return Err(anyhow!("{site}: `{name}` is a value, not a section\nhint: write it as {name} = ..."));
        }
        let kind = if wrong < entry.path.len() || empty { "section" } else { "key" };
        let hint = match entry.path[0].as_str() {
            "sweep" | "slurm" => "this is a sweep file; run it with `rft sweep`".to_owned(),
            _ => self.known.hint(&key),
        };
        Err(anyhow!("{site}: unknown {kind} `{name}`\nhint: {hint}"))
    }

    /// The table with one value changed, if the result is still a configuration.
    fn with(&self, path: &[String], value: Value) -> Result<Table, ConfigFault> {
        let mut changed = self.table.clone();
        let (name, sections) = path.split_last().expect("a key has at least one part");
        let section = sections.iter().fold(&mut changed, |table, section| {
            table.get_mut(section).and_then(Value::as_table_mut).expect("the key is known, so its sections are")
        });
        section.insert(name.clone(), value);
        let whole = Value::Table(changed);
        read::<RunConfig>(&whole)?;
        let Value::Table(changed) = whole else { unreachable!("it was made a table above") };
        Ok(changed)
    }

    /// The value of a dotted key.
    pub fn value(&self, key: &str) -> Option<&Value> {
        let (name, sections) = key.rsplit_once('.').map_or((key, ""), |(sections, name)| (name, sections));
        let sections = sections.split('.').filter(|it| !it.is_empty());
        sections.into_iter().try_fold(&self.table, |table, section| table.get(section)?.as_table())?.get(name)
    }

    /// # Errors
    /// A value is invalid, alone or together with others.
    pub fn finish(self) -> Result<Resolved> {
        let config = RunConfig::deserialize(self.table).context("read the merged configuration")?;
        config.validate().map_err(|invalid| {
            // `prompt.mix[1].weight` is a part of the value of `prompt.mix`.
            let key = invalid.key.split('[').next().unwrap_or_default();
            let site = self.origins.get(key).map(|it| it.site() + ": ").unwrap_or_default();
            anyhow!("{site}{invalid}")
        })?;
        Ok(Resolved { config, origins: self.origins })
    }
}

#[cfg(test)]
#[path = "layers_tests.rs"]
mod tests;
