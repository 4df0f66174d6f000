//! The reference of the configuration: docs/configuration.md is made from the schema, and every key is explained.

use std::fs;
use std::path::Path;

use rft::config::{ConfigLayers, PRESETS, reference, resolve, schema, to_json};
use serde_json::Value;

use crate::cli::{error, folder, rft};

/// The page, one table per section.
fn page() -> String {
    let mut text = "# Configuration\n\nEvery key of a configuration file, of `--set` and of the `RFT_*` environment variables. `rft config explain KEY` prints the \
                    same. Optional keys can be `\"unset\"`. Defaults are those of the preset `tiny`; `rft config show --preset NAME` prints those of another one. \
                    The column TRL has the option of TRL or PEFT with the same meaning.\n"
        .to_owned();
    let mut section = "";
    let keys = reference();
    for it in &keys {
        let (of, name) = it.key.rsplit_once('.').unwrap();
        if of != section {
            section = of;
            text += &format!(
                "\n## `[{section}]`\n\n| key | type | default | meaning | allowed | TRL |\n|---|---|---|---|---|---|\n"
            );
        }
        let cell = |text: &str| text.replace('|', "\\|");
        let allowed = it.allowed.as_deref().unwrap_or_default();
        let trl = it.trl.map_or_else(String::new, |name| format!("`{name}`"));
        text += &format!(
            "| `{name}` | {} | `{}` | {} | {} | {trl} |\n",
            it.kind,
            cell(&it.default),
            cell(&it.meaning),
            cell(allowed)
        );
    }
    text
}

/// Run with RFT_UPDATE_DOCS=1 to write the page.
#[test]
fn the_page_is_made_from_the_schema() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    if std::env::var_os("RFT_UPDATE_DOCS").is_some() {
        fs::write(&path, page()).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), page(), "docs/configuration.md is not the schema's");
}

#[test]
fn every_key_has_a_meaning() {
    let tiny = resolve(&ConfigLayers { preset: Some("tiny".into()), ..ConfigLayers::default() }).unwrap().config;
    let mut keys = Vec::new();
    fn collect(values: &Value, prefix: &str, keys: &mut Vec<String>) {
        for (name, value) in values.as_object().unwrap() {
            match value {
                Value::Object(_) => collect(value, &format!("{prefix}{name}."), keys),
                _ => keys.push(format!("{prefix}{name}")),
            }
        }
    }
    collect(&to_json(&tiny), "", &mut keys);
    let explained = reference();
    assert_eq!(explained.iter().map(|it| it.key.clone()).collect::<Vec<_>>(), keys);
    for it in &explained {
        assert!(
            it.meaning.len() > 8 && it.meaning.ends_with('.') && !it.meaning.contains("[`"),
            "{}: {}",
            it.key,
            it.meaning
        );
    }
}

#[test]
fn keys_are_explained_on_the_command_line() {
    let explain = |keys: &[&str]| {
        let output = rft(folder().path()).args(["config", "explain"]).args(keys).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let rate = explain(&["learning_rate"]);
    assert!(rate.starts_with("train.learning_rate (number), default 0.001\n"), "{rate}");
    assert!(rate.contains("allowed: 0.000000000001 to 1") && rate.contains("in TRL: learning_rate"), "{rate}");
    assert!(explain(&["grpo.loss_type"]).contains("allowed: grpo, dapo, dr_grpo, bnpo, gspo, cispo"));
    assert!(explain(&["train.steps"]).contains("in TRL: max_steps"));
    assert_eq!(explain(&[]).matches(", default ").count(), reference().len());
    let said = error(&folder(), &["config", "explain", "train.learning_rat"]);
    assert_eq!(said, "error: unknown key `train.learning_rat`\nhint: did you mean `train.learning_rate`?\n");
}

/// What `config show` prints is a configuration file, with and without its comments.
#[test]
fn the_configuration_is_shown_with_the_meaning_of_every_key() {
    let folder = folder();
    let shown = |args: &[&str]| {
        let output = rft(folder.path()).args(["config", "show"]).args(args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let set = r##"--set=rollout.stop=["\nmin_p = 1", "#"]"##;
    let (commented, plain) = (shown(&[set]), shown(&[set, "--no-comments"]));
    for key in reference() {
        let last = key.key.rsplit('.').next().unwrap();
        assert!(commented.contains(&format!("# {}\n{last} = ", key.meaning)), "{}", key.key);
    }
    assert!(!plain.lines().any(|line| line.starts_with('#')), "{plain}");
    for (name, text) in [("commented.toml", &commented), ("plain.toml", &plain)] {
        fs::write(folder.path().join(name), text).unwrap();
        assert_eq!(shown(&["--config", name]), commented);
    }
    assert!(shown(&["--origin"]).contains("# Seed of all random numbers.\nseed = 42"));
}

/// The options of other tools lead to the keys.
#[test]
fn an_unknown_flag_names_the_key() {
    for (flag, key) in [("--lr", "train.learning_rate"), ("--num-generations", "rollout.num_generations")] {
        let output = rft(folder().path()).args(["train", flag, "4"]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(said.contains(&format!("--set {key}=VALUE")), "{said}");
    }
    let json = rft(folder().path()).args(["runs", "--json"]).output().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&json.stdout).unwrap(), serde_json::json!([]));
}

#[test]
fn the_shell_completes_commands() {
    let output = rft(folder().path()).args(["completions", "bash"]).output().unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().contains("verify-resume"));
    let man = folder();
    rft(man.path()).args(["completions", "--man", "man1"]).assert().success();
    assert!(fs::read_to_string(man.path().join("man1/rft-train.1")).unwrap().contains("GRPO"));
}

/// The schema has every key, and knows the values that are not allowed.
#[test]
fn the_schema_describes_presets() {
    let schema = schema();
    assert_eq!(schema["additionalProperties"], false);
    let rate = &schema["properties"]["train"]["properties"]["steps"];
    assert_eq!(rate["anyOf"][1]["const"], "unset");
    let printed = rft(folder().path()).args(["config", "schema"]).output().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&printed.stdout).unwrap(), schema);
    assert!(!PRESETS.is_empty());
}
