//! The sweep file: a configuration, and the sections `[sweep]` and `[slurm]`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::Serialize;
use toml::Value;

use super::keys::{Keys, leaf};
use super::shipped::{SHIPPED, Shipped};
use super::tune_section::{self, TuneSection};
use crate::config::{
    ConfigKey, Content, Entry, MergedConfig, Node, Preset, ValueOrigin, checked_layer, find_preset, of_set,
};

/// A sweep as it was written.
pub struct SweepFile {
    /// The file, or the path of a shipped sweep in the repository.
    pub path: PathBuf,
    /// The configuration that all runs share.
    pub(super) base: MergedConfig,
    pub sweep: SweepSection,
    pub slurm: SlurmSection,
}

/// `[sweep]`: the settings that vary.
#[derive(Clone, Debug)]
pub struct SweepSection {
    /// Name of the folder. Default: the file's name.
    pub name: String,
    /// Whether the sweep only demonstrates the tool. The report states this.
    pub demonstration: bool,
    /// Sentences that readers of the results need to know.
    pub notes: Vec<String>,
    /// Each arm is trained with each seed. Default: the configuration's seed.
    pub seeds: Vec<u64>,
    /// Runs at a time on one machine.
    pub jobs: Option<usize>,
    pub(super) grid: Vec<SweepAxis>,
    pub(super) zip: Vec<SweepAxis>,
    pub(super) list: Vec<Listed>,
    pub(super) when: Vec<When>,
    /// Evaluations of every run; `None` without `[sweep.eval]`.
    pub eval: Option<SweepEvalSection>,
    /// The setting that is chosen for each arm; `None` without `[sweep.tune]`.
    pub tune: Option<TuneSection>,
}

/// A key and its values.
#[derive(Clone, Debug)]
pub(super) struct SweepAxis {
    pub values: Vec<Entry>,
}

/// A single arm of `[[sweep.list]]`.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub name: Option<String>,
    pub entries: Vec<Entry>,
    /// Its own candidates of `[sweep.tune]`.
    pub candidates: Option<Vec<Entry>>,
    pub origin: ValueOrigin,
}

/// Values for the arms that meet a condition.
#[derive(Clone, Debug)]
pub(super) struct When {
    /// Keys and their allowed values: every key must have one of its values.
    pub conditions: Vec<Vec<Entry>>,
    pub set: Vec<Entry>,
}

/// `[sweep.eval]`: how every run and the untrained model are evaluated. Defaults are those of the profile `study`.
#[derive(Clone, Debug, Serialize)]
pub struct SweepEvalSection {
    /// In the form of `rft eval --bench`.
    pub benchmarks: Vec<String>,
    /// `own` (the training prompt), `all` (the prompts of all arms), names or files.
    pub test_prompts: Vec<String>,
    /// Also evaluate the untrained model, once under every prompt.
    pub base: bool,
    pub samples: Option<usize>,
    pub limit: Option<usize>,
    pub max_tokens: Option<usize>,
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    pub seed: u64,
}

/// `[slurm]`: the resources that every job of a sweep requests.
#[derive(Clone, Debug, Default)]
pub struct SlurmSection {
    pub partition: Option<String>,
    pub account: Option<String>,
    /// For example `gpu:1`.
    pub gres: Option<String>,
    /// Time limit of one job, in the form of sbatch. A run that needs longer is requeued and resumes.
    pub time: Option<String>,
    pub mem: Option<String>,
    pub cpus: Option<usize>,
    /// Jobs at a time.
    pub parallel: Option<usize>,
    /// Seconds before the time limit at which a run saves its state.
    pub signal: usize,
    /// Other options of sbatch, one per string.
    pub options: Vec<String>,
    /// Shell lines to run first, such as `module load cuda`.
    pub setup: Vec<String>,
}

/// Keys that the sweep sets for every run, with a hint for each.
const OWN_KEYS: [(&str, &str); 3] = [
    ("train.seed", "set the seeds in sweep.seeds"),
    ("run.name", "remove this key: a run is named after the settings that vary"),
    ("run.dir", "runs are stored in the sweep's folder; set it with --out"),
];

impl SweepFile {
    /// Reads the file at `path`, or the shipped sweep with that name, and applies `sets` (`section.key=value`).
    ///
    /// # Errors
    /// The file does not exist or is not TOML; an invalid key or value, with its position.
    pub fn read(path: &str, sets: &[String]) -> Result<SweepFile> {
        let (path, text) = find(path)?;
        let mut root = Node::of_text(&text, &path)?;
        let mut own = Vec::new();
        for argument in sets {
            for entry in of_set(argument)? {
                match entry.path[0].as_str() {
                    "sweep" | "slurm" => insert(&mut root, &entry.path, Node::of_value(&entry.value, &entry.origin))?,
                    _ => own.push(entry),
                }
            }
        }
        let sweep = take(&mut root, "sweep");
        let slurm = take(&mut root, "slurm");
        let preset = take(&mut root, "preset").map(|node| preset(&node)).transpose()?;
        let mut entries = checked_layer(root.entries())?;
        entries.extend(checked_layer(own.clone())?);
        let base = MergedConfig::new(preset, &entries)?;
        let file = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let sweep = sweep.with_context(|| {
            let path = path.display();
            format!("`{path}` has no section [sweep]\nhint: run `rft train --config {path}` to train a single run")
        })?;
        let sweep = SweepSection::read(&sweep, &file)?;
        for entry in &own {
            let key = entry.key();
            ensure!(
                !sweep.varied().contains(&key),
                "{}: this sweep varies `{key}`\nhint: set its values in [sweep.grid], [sweep.zip] or [[sweep.list]]",
                entry.origin.site()
            );
            ensure!(
                sweep.tune.as_ref().is_none_or(|tune| tune.key != key),
                "{}: this sweep tunes `{key}`\nhint: set its candidates in sweep.tune.values",
                entry.origin.site()
            );
        }
        let slurm = slurm.map_or_else(|| Ok(SlurmSection::standard()), |node| SlurmSection::read(&node))?;
        Ok(SweepFile { path, base, sweep, slurm })
    }
}

/// The path for error messages, and the text.
fn find(path: &str) -> Result<(PathBuf, String)> {
    if Path::new(path).is_file() {
        let text = std::fs::read_to_string(path).with_context(|| format!("read `{path}`"))?;
        return Ok((PathBuf::from(path), text));
    }
    match Shipped::find(path) {
        Some(shipped) => Ok((format!("configs/sweeps/{path}.toml").into(), shipped.text.to_owned())),
        None => bail!(
            "there is no sweep `{path}`\nhint: pass a TOML file with a section [sweep], or one of {}",
            SHIPPED.map(|it| it.name).join(", ")
        ),
    }
}

fn preset(node: &Node) -> Result<Preset> {
    find_preset(&leaf::<String>(node, "preset")?, &node.origin.site())
}

fn take(root: &mut Node, name: &str) -> Option<Node> {
    let Content::Table(members) = &mut root.content else { return None };
    let at = members.iter().position(|(key, _)| key.name == name)?;
    Some(members.remove(at).1)
}

/// Sets the value at `path` and creates the tables in between. A key may contain dots, as in a file.
fn insert(node: &mut Node, path: &[String], value: Node) -> Result<()> {
    let Content::Table(members) = &mut node.content else {
        bail!("{}: `{}` is not in a table", value.origin.site(), path[0]);
    };
    let whole = path.join(".");
    if let Some((_, old)) = members.iter_mut().find(|(key, _)| key.name == whole) {
        *old = value;
        return Ok(());
    }
    let at = members.iter().position(|(key, _)| key.name == path[0]).unwrap_or_else(|| {
        let key = ConfigKey { name: path[0].clone(), origin: value.origin.clone() };
        members.push((key, Node { origin: value.origin.clone(), content: Content::Table(Vec::new()) }));
        members.len() - 1
    });
    match path.len() {
        1 => members[at].1 = value,
        _ => insert(&mut members[at].1, &path[1..], value)?,
    }
    Ok(())
}

impl SweepSection {
    fn read(node: &Node, file: &str) -> Result<Self> {
        let mut keys = Keys::of(node, "sweep")?;
        let tune = keys.node("tune").map(TuneSection::read).transpose()?;
        let section = Self {
            name: keys.take("name")?.unwrap_or_else(|| file.to_owned()),
            demonstration: keys.take("demonstration")?.unwrap_or(false),
            notes: keys.take("notes")?.unwrap_or_default(),
            seeds: keys.take("seeds")?.unwrap_or_default(),
            jobs: keys.take("jobs")?,
            grid: keys.node("grid").map_or_else(|| Ok(Vec::new()), |node| axes(node, "sweep.grid"))?,
            zip: keys.node("zip").map_or_else(|| Ok(Vec::new()), |node| axes(node, "sweep.zip"))?,
            list: keys.list("list", |node| Listed::read(node, tune.as_ref()))?,
            when: keys.list("when", When::read)?,
            eval: keys.node("eval").map(SweepEvalSection::read).transpose()?,
            tune,
        };
        let name = keys.origin("name");
        keys.finish()?;
        let plain = !section.name.is_empty() && section.name.chars().all(is_plain) && !section.name.starts_with('.');
        ensure!(
            plain,
            "{}: `sweep.name`: `{}` is not a valid folder name\nhint: use letters, digits, `-`, `_` and `.`",
            name.site(),
            section.name
        );
        let site = node.origin.site();
        let repeated = (1..section.seeds.len()).find(|&at| section.seeds[..at].contains(&section.seeds[at]));
        if let Some(at) = repeated {
            bail!("{site}: `sweep.seeds`: {} occurs twice\nhint: list each seed once", section.seeds[at]);
        }
        ensure!(
            section.jobs != Some(0),
            "{site}: `sweep.jobs`: expected at least 1, found 0\nhint: set the number of runs at a time"
        );
        section.check_axes()?;
        Ok(section)
    }

    /// Checks that the lists of `zip` have the same length, that no key occurs twice, and that no key is set by the sweep itself.
    fn check_axes(&self) -> Result<()> {
        if let Some(odd) = self.zip.iter().find(|it| it.values.len() != self.zip[0].values.len()) {
            let (first, odd) = (&self.zip[0].values, &odd.values);
            bail!(
                "{}: `{}` has {} values, `{}` has {}\nhint: give all lists of [sweep.zip] the same length, or use [sweep.grid] \
                 to combine every value with every other",
                odd[0].origin.site(),
                odd[0].key(),
                odd.len(),
                first[0].key(),
                first.len()
            );
        }
        let mut seen: Vec<String> = Vec::new();
        for axis in self.grid.iter().chain(&self.zip) {
            let entry = &axis.values[0];
            ensure!(
                !seen.contains(&entry.key()),
                "{}: `{}` varies twice\nhint: list the key once, in [sweep.grid] or in [sweep.zip]",
                entry.origin.site(),
                entry.key()
            );
            seen.push(entry.key());
        }
        self.tune.as_ref().map_or(Ok(()), |tune| tune_section::check_axes(tune, &seen))?;
        let listed = self.list.iter().flat_map(|it| &it.entries);
        let set = self.when.iter().flat_map(|it| &it.set);
        for entry in self.grid.iter().chain(&self.zip).flat_map(|it| &it.values).chain(listed).chain(set) {
            if let Some((key, hint)) = OWN_KEYS.into_iter().find(|(key, _)| *key == entry.key()) {
                bail!("{}: `{key}` cannot vary\nhint: {hint}", entry.origin.site());
            }
        }
        Ok(())
    }

    /// Every key that differs between arms.
    pub(super) fn varied(&self) -> Vec<String> {
        let axes = self.grid.iter().chain(&self.zip).map(|axis| axis.values[0].key());
        let listed = self.list.iter().flat_map(|it| &it.entries).map(Entry::key);
        let mut keys = Vec::new();
        for key in axes.chain(listed) {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        keys
    }
}

/// Whether a name is a valid folder name.
pub(super) fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_.".contains(c)
}

/// The keys of [sweep.grid] or [sweep.zip], each with a list of values.
fn axes(node: &Node, section: &str) -> Result<Vec<SweepAxis>> {
    ensure!(matches!(node.content, Content::Table(_)), "{}: `{section}` is not a table", node.origin.site());
    let axis = |(path, node): (Vec<&ConfigKey>, &Node)| {
        let key = path.iter().map(|it| it.name.as_str()).collect::<Vec<_>>().join(".");
        let Content::List(values) = &node.content else {
            let found = node.to_value();
            bail!(
                "{}: `{section}`: the values of `{key}` are not a list\nhint: write {key} = [{found}, ...]",
                node.origin.site()
            );
        };
        ensure!(!values.is_empty(), "{}: `{section}`: no values for `{key}`", node.origin.site());
        Ok(SweepAxis { values: values.iter().map(|value| Entry::of_node(&path, value)).collect() })
    };
    node.leaves().into_iter().map(axis).collect()
}

impl Listed {
    fn read(node: &Node, tune: Option<&TuneSection>) -> Result<Self> {
        let mut rest = node.clone();
        let name = take(&mut rest, "name");
        let candidates = take(&mut rest, "tune").map(|own| tune_section::of_arm(&own, tune)).transpose()?;
        let name = match &name {
            Some(node) => {
                let name: String = leaf(node, "sweep.list.name")?;
                ensure!(
                    !name.is_empty() && name.chars().all(is_plain) && !name.starts_with('.'),
                    "{}: `sweep.list.name`: `{name}` is not a valid folder name\nhint: use letters, digits, `-`, `_` and `.`",
                    node.origin.site()
                );
                Some(name)
            }
            None => None,
        };
        let entries = checked_layer(rest.entries())?;
        if let Some(tune) = tune.filter(|_| candidates.is_some())
            && let Some(set) = entries.iter().find(|it| it.key() == tune.key)
        {
            bail!(
                "{}: this arm sets `{}` and has candidates for it\nhint: remove one of the two",
                set.origin.site(),
                tune.key
            );
        }
        Ok(Self { name, entries, candidates, origin: node.origin.clone() })
    }
}

impl When {
    fn read(node: &Node) -> Result<Self> {
        let mut keys = Keys::of(node, "sweep.when")?;
        let (condition, set) = (keys.node("if"), keys.node("set"));
        keys.finish()?;
        let both = condition.zip(set).filter(|(a, b)| !a.entries().is_empty() && !b.entries().is_empty());
        let (condition, set) = both.with_context(|| {
            let site = node.origin.site();
            format!(
                "{site}: `sweep.when` requires `if` and `set`\n\
                 hint: for example if = {{ \"prompt.ppe\" = \"none\" }} and set = {{ \"train.learning_rate\" = 2e-3 }}"
            )
        })?;
        let any = |(path, node): (Vec<&ConfigKey>, &Node)| match &node.content {
            Content::List(values) => values.iter().map(|value| Entry::of_node(&path, value)).collect(),
            _ => vec![Entry::of_node(&path, node)],
        };
        Ok(Self { conditions: condition.leaves().into_iter().map(any).collect(), set: checked_layer(set.entries())? })
    }
}

impl SweepEvalSection {
    fn read(node: &Node) -> Result<Self> {
        let mut keys = Keys::of(node, "sweep.eval")?;
        let section = Self {
            benchmarks: keys.take("benchmarks")?.unwrap_or_default(),
            test_prompts: keys.take("test_prompts")?.unwrap_or_else(|| vec!["own".to_owned()]),
            base: keys.take("base")?.unwrap_or(true),
            samples: keys.take("samples")?,
            limit: keys.take("limit")?,
            max_tokens: keys.take("max_tokens")?,
            temperature: keys.take("temperature")?,
            top_p: keys.take("top_p")?,
            seed: keys.take("seed")?.unwrap_or(42),
        };
        let (benchmarks, prompts) = (keys.origin("benchmarks"), keys.origin("test_prompts"));
        keys.finish()?;
        ensure!(
            !section.benchmarks.is_empty(),
            "{}: `sweep.eval.benchmarks`: the list is empty\nhint: run `rft eval list` to see the benchmarks, or remove [sweep.eval] to skip \
             evaluation",
            benchmarks.site()
        );
        for name in &section.benchmarks {
            crate::eval::bench::find(name)
                .map_err(|error| anyhow!("{}: `sweep.eval.benchmarks`: {error}", benchmarks.site()))?;
        }
        ensure!(
            !section.test_prompts.is_empty(),
            "{}: `sweep.eval.test_prompts`: the list is empty\nhint: use \"own\" to evaluate each run under its training prompt",
            prompts.site()
        );
        Ok(section)
    }
}

impl SlurmSection {
    fn standard() -> Self {
        Self { signal: 120, ..Self::default() }
    }

    fn read(node: &Node) -> Result<Self> {
        let mut keys = Keys::of(node, "slurm")?;
        let section = Self {
            partition: keys.take("partition")?,
            account: keys.take("account")?,
            gres: keys.take("gres")?,
            time: keys.take("time")?,
            mem: keys.take("mem")?,
            cpus: keys.take("cpus")?,
            parallel: keys.take("parallel")?,
            signal: keys.take("signal")?.unwrap_or(Self::standard().signal),
            options: keys.take("options")?.unwrap_or_default(),
            setup: keys.take("setup")?.unwrap_or_default(),
        };
        keys.finish()?;
        let words = [&section.partition, &section.account, &section.gres, &section.time, &section.mem];
        let lines = words.into_iter().flatten().chain(&section.options).chain(&section.setup);
        if let Some(broken) = lines.into_iter().find(|it| it.contains('\n')) {
            bail!("{}: `slurm`: {} has more than one line", node.origin.site(), Value::from(broken.as_str()));
        }
        Ok(section)
    }
}
