//! The reference of the configuration: docs/configuration.md is made from the schema, and every key is explained.

use std::fs;
use std::path::Path;

use rft::config::{ConfigLayers, PRESETS, file_schema, reference, resolve, schema, to_json};
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

/// The committed schema, which the presets name for editors. Run with RFT_UPDATE_DOCS=1 to write it.
#[test]
fn the_schema_of_files_is_printed_and_committed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/rft.schema.json");
    let schema = file_schema();
    if std::env::var_os("RFT_UPDATE_DOCS").is_some() {
        fs::write(&path, format!("{}\n", serde_json::to_string_pretty(&schema).unwrap())).unwrap();
    }
    let committed: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert!(committed == schema, "configs/rft.schema.json is not the schema");
    let printed = rft(folder().path()).args(["config", "schema"]).output().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&printed.stdout).unwrap(), schema);
    for preset in PRESETS {
        assert_eq!(preset.text.lines().nth(1), Some("#:schema rft.schema.json"), "{}", preset.name);
    }
}

/// The first place at which `value` does not fit `schema`, by the keywords that our schema has.
fn misfit(schema: &Value, value: &Value, place: &str) -> Option<String> {
    let fits = |schema: &&Value| misfit(schema, value, place).is_none();
    for (keyword, rule) in schema.as_object().unwrap() {
        let number = || value.as_f64().zip(rule.as_f64());
        let length = || value.as_array().map(Vec::len).zip(rule.as_u64());
        let is_right = match keyword.as_str() {
            "type" => match rule.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "number" => value.is_number(),
                "integer" => value.is_i64() || value.is_u64(),
                other => panic!("type {other}"),
            },
            "const" => value == rule,
            "enum" => rule.as_array().unwrap().contains(value),
            "minimum" => number().is_none_or(|(value, rule)| value >= rule),
            "maximum" => number().is_none_or(|(value, rule)| value <= rule),
            "minItems" => length().is_none_or(|(length, rule)| length as u64 >= rule),
            "maxItems" => length().is_none_or(|(length, rule)| length as u64 <= rule),
            "anyOf" => rule.as_array().unwrap().iter().any(|it| fits(&it)),
            "oneOf" => rule.as_array().unwrap().iter().filter(fits).count() == 1,
            "required" => {
                let has = |name: &Value| value.get(name.as_str().unwrap()).is_some();
                !value.is_object() || rule.as_array().unwrap().iter().all(has)
            }
            "items" => {
                let items = value.as_array().into_iter().flatten().enumerate();
                match items.filter_map(|(at, item)| misfit(rule, item, &format!("{place}[{at}]"))).next() {
                    Some(inner) => return Some(inner),
                    None => true,
                }
            }
            "properties" => {
                let known = value.as_object().into_iter().flatten().filter_map(|(name, it)| Some((name, rule.get(name)?, it)));
                let inner = known.filter_map(|(name, rule, it)| misfit(rule, it, &format!("{place}.{name}"))).next();
                match inner {
                    Some(inner) => return Some(inner),
                    None => true,
                }
            }
            "additionalProperties" => {
                assert_eq!(rule, false);
                let unknown = |name: &String| schema["properties"].get(name).is_none();
                !value.as_object().is_some_and(|it| it.keys().any(unknown))
            }
            "description" | "title" | "$schema" | "default" | "format" => true,
            other => panic!("unknown keyword {other}"),
        };
        if !is_right {
            return Some(format!("{place}: {keyword}"));
        }
    }
    None
}

fn misfit_of(text: &str) -> Option<String> {
    let table: toml::Table = toml::from_str(text).unwrap();
    misfit(&file_schema(), &serde_json::to_value(table).unwrap(), "file")
}

#[test]
fn the_schema_accepts_presets_and_parts_of_them() {
    for preset in PRESETS {
        assert_eq!(misfit_of(preset.text), None, "{}", preset.name);
    }
    for part in ["", "preset = \"tiny\"\n[train]\nseed = 1\n", "[train]\nsteps = \"unset\"\n"] {
        assert_eq!(misfit_of(part), None, "{part}");
    }
}

/// Every key with a typing error, and every value of another type, is rejected.
#[test]
fn the_schema_rejects_wrong_keys_and_values() {
    for it in reference() {
        let (section, name) = it.key.rsplit_once('.').unwrap();
        let wrong = misfit_of(&format!("[{section}]\n{name}_ = 1\n"));
        assert!(wrong.is_some_and(|wrong| wrong.contains("additionalProperties")), "{section}.{name}_");
        assert!(misfit_of(&format!("[{section}]\n{name} = {{ no = 1 }}\n")).is_some(), "{}", it.key);
    }
    for wrong in [
        "[trian]\nseed = 1\n",
        "[lora]\nalpha = 16\n",
        "seed = 1\n",
        "preset = \"qwen2.5-7\"\n",
        "[train]\nsteps = \"many\"\n",
        "train.steps = 4.5",
        "train.seed = -1",
        "eval.greedy = 1",
        "[reward.format]\nweight = [0.5]\n",
        "train = 3",
        "[train.steps]\nfirst = 1",
        "grpo.loss_type = \"drgrpo\"",
        "reward.length.kind = \"overlong\"",
        "data.take = \"tail\"",
        "data.levels = [1, 2.5]",
        "[[reward.custom]]\nname = \"a\"\n",
        "[[reward.custom]]\nname = \"a\"\ncommand = [\"b\"]\nweight = 1\nsize = 1\n",
    ] {
        assert!(misfit_of(wrong).is_some(), "{wrong}");
    }
}

/// The schema has every key, and knows the values that are not allowed.
#[test]
fn the_schema_describes_presets() {
    let schema = schema();
    assert_eq!(schema["additionalProperties"], false);
    let rate = &schema["properties"]["train"]["properties"]["steps"];
    assert_eq!(rate["anyOf"][1]["const"], "unset");
}
