//! How to reproduce the results: commands, versions, hashes, and differences between the configurations.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::json;

use super::{LONG, ReportPart, closed_if_long};
use crate::config::MixEntry;
use crate::report::document::{DocumentBlock, Table};
use crate::report::load::{Material, ReportedEvaluation, ReportedRun};

/// Keys that do not affect a run's results, such as its folder.
const PLACE: [&str; 3] = ["run.name", "run.dir", "train.threads"];

pub fn part(material: &Material) -> Option<ReportPart> {
    if material.runs.is_empty() && material.evaluations.is_empty() {
        return None;
    }
    let mut blocks = Vec::new();
    let commands: Vec<String> =
        material.runs.iter().map(train).chain(material.evaluations.iter().map(|it| ask(material, it))).collect();
    blocks.push(DocumentBlock::Text(
        "The commands that started the runs, then commands that repeat the evaluations. The same version on the same kind of \
         processor gives the same bytes."
            .to_owned(),
    ));
    let listed = DocumentBlock::Commands(commands.clone());
    blocks.push(match commands.len() {
        0..=LONG => listed,
        count => DocumentBlock::Closed { title: format!("The {count} commands"), blocks: vec![listed] },
    });
    blocks.extend(differences(material).map(|table| closed_if_long("Differences between the configurations", table)));
    blocks.push(closed_if_long("Versions and hardware", versions(material)));
    blocks.push(closed_if_long("Hashes of all inputs", hashes(material)));
    let data = json!({
        "commands": commands,
        "runs": material.runs.iter().map(|run| json!({
            "name": run.name,
            "arm": run.arm,
            "seed": run.seed,
            "varies": run.varies,
            "model": run.manifest.model.files,
            "data": run.manifest.data.files,
            "prompt": run.manifest.prompt,
            "adapter_sha256": run.adapter_sha256,
            "contamination": run.contamination,
        })).collect::<Vec<_>>(),
        "evaluations": material.evaluations.iter().map(|it| json!({
            "name": it.name,
            "run": it.run.map(|at| &material.runs[at].name),
            "tested_with": it.prompt,
            "identity": it.identity,
            "scores": it.benches.iter().map(|(name, bench)| (name.clone(), json!(bench.scores))).collect::<serde_json::Map<_, _>>(),
        })).collect::<Vec<_>>(),
    });
    Some(ReportPart::new("repeat", "How to reproduce the results", blocks, data))
}

/// The command that started a run. Sessions that resumed it are not needed.
fn train(run: &ReportedRun) -> String {
    let typed = run.manifest.sessions.first().map(|session| session.command.as_slice()).unwrap_or_default();
    typed.iter().map(|argument| shell(&portable(argument))).collect::<Vec<_>>().join(" ")
}

/// A command that repeats an evaluation.
fn ask(material: &Material, evaluation: &ReportedEvaluation) -> String {
    let identity = &evaluation.identity;
    let mut words = vec!["rft".to_owned(), "eval".to_owned()];
    let benches: Vec<&str> = evaluation.benches.keys().map(String::as_str).collect();
    words.extend(["--bench".to_owned(), benches.join(",")]);
    match evaluation.run.map(|at| &material.runs[at]) {
        Some(run) => words.extend(["--adapter".to_owned(), format!("runs/{}", run.name)]),
        None => words.extend(["--model".to_owned(), identity.model.clone()]),
    }
    words.extend(match identity.mix.is_empty() {
        true => ["--ppe".to_owned(), identity.ppe.clone()],
        false => ["--set".to_owned(), MixEntry::setting(&identity.mix)],
    });
    words.extend(["--profile".to_owned(), identity.profile.clone()]);
    // Only a value that all benchmarks share can be an option of the command.
    let of = |value: fn(&crate::report::load::ReportedBenchmark) -> String| {
        let values: BTreeSet<String> = evaluation.benches.values().map(value).collect();
        (values.len() == 1).then(|| values.into_iter().next()).flatten()
    };
    let samples = of(|bench| bench.scores.samples.to_string());
    let longest = of(|bench| bench.record.style.max_tokens.to_string());
    let limit =
        of(
            |bench| {
                if bench.scores.questions < bench.scores.of {
                    bench.scores.questions.to_string()
                } else {
                    String::new()
                }
            },
        );
    let flags = [("--samples", samples), ("--max-tokens", longest), ("--limit", limit)];
    for (flag, value) in flags {
        words.extend(value.filter(|value| !value.is_empty()).into_iter().flat_map(|value| [flag.to_owned(), value]));
    }
    words.extend([
        "--temperature".to_owned(),
        identity.temperature.to_string(),
        "--top-p".to_owned(),
        identity.top_p.to_string(),
    ]);
    words.extend(["--seed".to_owned(), identity.seed.to_string()]);
    words.iter().map(|word| shell(word)).collect::<Vec<_>>().join(" ")
}

/// An argument without paths of this machine: an absolute path is replaced by its last component.
fn portable(argument: &str) -> String {
    let (flag, value) = match argument.split_once('=') {
        Some((flag, value)) if flag.starts_with('-') || flag.contains('.') => (format!("{flag}="), value),
        _ => (String::new(), argument),
    };
    let last = Path::new(value).file_name().filter(|_| Path::new(value).is_absolute());
    last.map_or(argument.to_owned(), |last| format!("{flag}{}", last.to_string_lossy()))
}

/// An argument quoted for a shell.
fn shell(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./,:=+@%".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        argument.to_owned()
    } else {
        format!("'{}'", argument.replace('\'', "'\\''").replace(['\n', '\r'], " "))
    }
}

/// The keys of the configuration in which the runs differ, one row per arm.
fn differences(material: &Material) -> Option<Table> {
    let arms: BTreeMap<&str, Vec<&ReportedRun>> = material.runs.iter().fold(BTreeMap::new(), |mut arms, run| {
        arms.entry(run.arm.as_str()).or_insert_with(Vec::new).push(run);
        arms
    });
    let keys: BTreeSet<&String> = material.runs.iter().flat_map(|run| run.config.keys()).collect();
    let value = |run: &ReportedRun, key: &String| run.config.get(key).map_or("–".to_owned(), |value| portable(value));
    let values = |key: &String| material.runs.iter().map(|run| value(run, key)).collect::<BTreeSet<_>>();
    let differing: Vec<&String> =
        keys.into_iter().filter(|key| !PLACE.contains(&key.as_str()) && values(key).len() > 1).collect();
    if differing.is_empty() {
        return None;
    }
    let heads = ["arm".to_owned()].into_iter().chain(differing.iter().map(ToString::to_string));
    let mut table = Table::new("differences", "All differences between the configurations of the runs.", heads);
    let mut order: Vec<&str> = Vec::new();
    material.runs.iter().for_each(|run| {
        if !order.contains(&run.arm.as_str()) {
            order.push(&run.arm)
        }
    });
    for arm in order {
        let cell = |key: &&String| {
            let mut seen: Vec<String> = Vec::new();
            arms[arm].iter().for_each(|run| {
                let value = value(run, key);
                if !seen.contains(&value) {
                    seen.push(value);
                }
            });
            seen.join(", ").into()
        };
        table.rows.push([arm.into()].into_iter().chain(differing.iter().map(cell)).collect());
    }
    Some(table)
}

/// The versions and processors of the runs, each combination once.
fn versions(material: &Material) -> Table {
    let heads = ["rft", "commit", "target", "instruction sets", "features", "device", "runs"];
    let mut table = Table::new("versions", "Versions and hardware of the runs.", heads);
    let mut kinds: BTreeMap<[String; 6], BTreeSet<&str>> = BTreeMap::new();
    for run in &material.runs {
        for session in &run.manifest.sessions {
            let git = session.git.clone().unwrap_or_else(|| "–".to_owned());
            let (cpu, features) = (session.cpu.join(" "), session.features.join(" "));
            let kind = [session.rft.clone(), git, session.target.clone(), cpu, features, session.device.clone()];
            kinds.entry(kind).or_default().insert(&run.name);
        }
    }
    for (kind, runs) in kinds {
        let mut row: Vec<_> = kind.iter().map(|text| text.as_str().into()).collect();
        row.push(runs.len().to_string().into());
        table.rows.push(row);
    }
    table
}

/// The first digits of the hash of every input, each once.
fn hashes(material: &Material) -> Table {
    let mut table = Table::new(
        "hashes",
        "First digits of the SHA-256 of every input; report.json has the full hashes.",
        ["input", "name", "SHA-256"],
    );
    let mut seen: BTreeSet<[String; 3]> = BTreeSet::new();
    for run in &material.runs {
        let manifest = &run.manifest;
        for (what, source) in [("model", &manifest.model), ("training data", &manifest.data)] {
            for (file, hash) in &source.files {
                let name = if source.files.len() > 1 {
                    format!("{}, {file}", portable(&source.path))
                } else {
                    portable(&source.path)
                };
                seen.insert([what.to_owned(), name, short(hash)]);
            }
        }
        let prompt = manifest.learned_prompt();
        let mut add = |name: &String, sha256| seen.insert(["training prompt".to_owned(), name.clone(), short(sha256)]);
        if prompt.mixture.is_empty() {
            add(&manifest.prompt_label(), &prompt.sha256);
        }
        prompt.mixture.iter().for_each(|it| _ = add(&it.name, &it.sha256));
        if let Some(adapter) = &run.adapter_sha256 {
            seen.insert(["trained adapter".to_owned(), run.name.clone(), short(adapter)]);
        }
    }
    for evaluation in &material.evaluations {
        seen.insert([
            "chat template".to_owned(),
            evaluation.identity.model.clone(),
            short(&evaluation.identity.template_sha256),
        ]);
        for (name, bench) in &evaluation.benches {
            seen.insert(["benchmark".to_owned(), name.clone(), short(&bench.record.data_sha256)]);
        }
    }
    table.rows.extend(seen.into_iter().map(|row| row.iter().map(|text| text.as_str().into()).collect()));
    table
}

fn short(hash: &str) -> String {
    hash.trim_start_matches("sha256:").chars().take(16).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_do_not_contain_paths_of_the_machine() {
        let home = format!("{}home/ada/models/tiny", '/');
        assert_eq!(portable(&home), "tiny");
        assert_eq!(portable(&format!("--config={home}.toml")), "--config=tiny.toml");
        assert_eq!(portable(&format!("model.path={home}")), "model.path=tiny");
        assert_eq!(portable("runs/a"), "runs/a");
        assert_eq!(portable("a=/b"), "a=/b");
    }

    #[test]
    fn arguments_are_quoted_for_the_shell() {
        assert_eq!(shell("train.steps=5"), "train.steps=5");
        assert_eq!(shell("a b"), "'a b'");
        assert_eq!(shell("$(x) 'y'"), "'$(x) '\\''y'\\'''");
    }
}
