//! From layers to one configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use serde::Deserialize;
use toml::{Table, Value};

use super::entry::{Entry, flatten, of_environment, of_file, of_set};
use super::fault::{ConfigFault, read};
use super::known::{Known, nearest_name};
use super::place::ValueOrigin;
use super::presets::{CHECKPOINT, PRESETS, Preset, TINY};
use super::schema::RunConfig;

/// Everything that can set a value, lowest first.
#[derive(Clone, Debug, Default)]
pub struct ConfigLayers {
    /// The preset to start from. `None`: the one that a file asks for with a top-level `preset = "..."`; where none does,
    /// `tiny`, or `qwen2.5-0.5b` where a layer names another model than the embedded one.
    pub preset: Option<String>,
    /// TOML files; a later one wins.
    pub files: Vec<PathBuf>,
    /// Environment variables; those named `RFT_SECTION__KEY` count, all others are passed over.
    pub env: Vec<(String, String)>,
    /// Arguments of `--set`: `section.key=value`.
    pub sets: Vec<String>,
    /// The command's own flags: the key, the value, and the flag's name for the origin.
    pub flags: Vec<(String, Value, String)>,
}

impl ConfigLayers {
    /// Sets `key` from the command's flag called `name`, where the user gave it.
    pub fn flag(&mut self, key: &str, value: Option<impl Into<Value>>, name: &str) {
        self.flags.extend(value.map(|value| (key.to_owned(), value.into(), name.to_owned())));
    }
}

/// A configuration that can be run, and where each of its values came from.
#[derive(Clone, Debug)]
pub struct Resolved {
    pub config: RunConfig,
    /// By dotted key; every key has one.
    pub origins: BTreeMap<String, ValueOrigin>,
}

/// Lay the layers over one another, check each key and type where it stands, then the values together.
pub fn resolve(layers: &ConfigLayers) -> Result<Resolved> {
    let mut asked_preset = None;
    let mut entries = Vec::new();
    for path in &layers.files {
        let (preset, set) = split_preset(of_file(path)?)?;
        asked_preset = preset.or(asked_preset);
        entries.extend(set);
    }
    entries.extend(of_environment(&layers.env));
    for argument in &layers.sets {
        entries.extend(of_set(argument)?);
    }
    for (key, value, flag) in &layers.flags {
        entries.push(Entry::new(key, value.clone(), ValueOrigin::Flag(flag.clone())));
    }

    let preset = match &layers.preset {
        Some(name) => Some(find_preset(name, "--preset")?),
        None => asked_preset,
    };
    MergedConfig::new(preset, &entries)?.finish()
}

/// The preset that a file asks for, and what else the file sets.
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
            Some(meant) => format!("did you mean `{meant}`? there are {known}"),
            None => format!("there are {known}; a file of your own is taken by --config"),
        };
        anyhow!("{site}: unknown preset `{name}`\nhint: {hint}")
    })
}

fn default_preset(entries: &[Entry]) -> Preset {
    let model = entries.iter().rev().find(|it| it.path == ["model", "path"]).and_then(|it| it.value.as_str());
    if model.is_none_or(|it| it == "tiny") { TINY } else { CHECKPOINT }
}

/// A complete table of values that grows layer by layer and stays valid, so that a fault is blamed on the entry that
/// brings it in.
#[derive(Clone)]
pub(crate) struct MergedConfig {
    known: Known,
    table: Table,
    origins: BTreeMap<String, ValueOrigin>,
}

impl MergedConfig {
    /// `entries` over `preset`, or over the one that suits them where none is asked for.
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

    /// Lays one value over the others.
    ///
    /// # Errors
    /// There is no such key, or its value is of another type.
    pub fn lay(&mut self, entry: &Entry) -> Result<()> {
        let key = entry.key();
        if !self.known.has_key(&key) {
            return self.check_section(entry);
        }
        let typed_as_string =
            || entry.raw.as_ref().and_then(|raw| self.with(&entry.path, Value::String(raw.clone())).ok());
        let table = match self.with(&entry.path, entry.value.clone()) {
            Ok(table) => table,
            // `--set data.revision=1234567` means a string: the key knows best.
            Err(fault) => typed_as_string().ok_or_else(|| fault.at(&entry.origin, &key))?,
        };
        self.table = table;
        self.origins.insert(key, entry.origin.clone());
        Ok(())
    }

    /// An entry whose key holds no value is in order only as the empty header of a section.
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
        // Blame the first part of the key that is wrong.
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
            "sweep" | "slurm" => "this file is a sweep of many runs; `rft sweep` runs it".to_owned(),
            _ => self.known.hint(&key),
        };
        Err(anyhow!("{site}: unknown {kind} `{name}`\nhint: {hint}"))
    }

    /// The table with one value changed, if that is a configuration still.
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

    /// The value under a dotted key.
    pub fn value(&self, key: &str) -> Option<&Value> {
        let (name, sections) = key.rsplit_once('.').map_or((key, ""), |(sections, name)| (name, sections));
        let sections = sections.split('.').filter(|it| !it.is_empty());
        sections.into_iter().try_fold(&self.table, |table, section| table.get(section)?.as_table())?.get(name)
    }

    /// # Errors
    /// Values that cannot be run, alone or together.
    pub fn finish(self) -> Result<Resolved> {
        let config = RunConfig::deserialize(self.table).context("read the merged configuration")?;
        config.validate().map_err(|invalid| {
            let site = self.origins.get(invalid.key).map(|it| it.site() + ": ").unwrap_or_default();
            anyhow!("{site}{invalid}")
        })?;
        Ok(Resolved { config, origins: self.origins })
    }
}

#[cfg(test)]
#[path = "layers_tests.rs"]
mod tests;
