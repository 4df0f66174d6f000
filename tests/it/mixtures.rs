//! Mixtures of prior prompts: every group draws one, which decides its prompt and its format reward, in training, in evaluations, in
//! sweeps and in reports.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use insta::assert_snapshot;
use rft::config::{ConfigLayers, MixEntry, PromptSection, resolve, to_toml};
use rft::disk::hash::sha256_ids;
use rft::eval::folder::EvalFolder;
use rft::eval::score::BenchmarkScores;
use rft::model::source::ModelSource;
use rft::prompt::{self, Mixture, PriorPrompt};
use rft::reward::{FormatReward, Tags};
use rft::rng::name_hash;
use rft::rollout::EVALUATION_STEP;
use rft::rollout::policy::Policy;
use rft::run::completions::{self, GroupRecord};
use rft::run::metrics;
use rft::run::{Manifest, RunDir};
use serde_json::Value;

use crate::cli::{error, folder, rft, with};
use crate::resume::{interrupt, job};
use crate::train::{SMALL, Trace};

/// Two prompts with the same tags as their strategies, one of them in another wording, and one without tags.
const MIX: &str = r#"
[prompt]
mix = [{ ppe = "null-example" }, { ppe = "planning@1", weight = 2 }, { ppe = "none", weight = 1.0 }]
"#;

/// The arguments of a short run with the mixture of `mix.toml`.
fn args(name: &str, threads: &'static str) -> Vec<String> {
    let set = |arg: &str| match arg {
        "run" => name.to_owned(),
        arg if arg.starts_with("--threads") => threads.to_owned(),
        arg => arg.to_owned(),
    };
    let args = SMALL.into_iter().filter(|arg| !arg.starts_with("--ppe")).map(set);
    args.chain(["--config=mix.toml".to_owned()]).collect()
}

#[track_caller]
fn train(folder: &Path, args: &[String]) -> (String, String) {
    let output = rft(folder).args(args).output().unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|it| String::from_utf8(it).unwrap());
    assert!(output.status.success(), "{stderr}");
    (stdout, stderr)
}

fn mixture(parts: &[(&str, f64)]) -> Mixture {
    let mix: Vec<MixEntry> =
        parts.iter().map(|(ppe, weight)| MixEntry { ppe: (*ppe).to_owned(), weight: *weight }).collect();
    Mixture::of_entries(&mix).unwrap()
}

fn policy() -> Policy {
    let config = resolve(&ConfigLayers { preset: Some("tiny".into()), ..ConfigLayers::default() }).unwrap().config;
    Policy::load(&ModelSource::open("tiny", "main").unwrap(), &config).unwrap()
}

fn format_of(prompt: &PriorPrompt) -> Option<FormatReward> {
    Tags::of(prompt).unwrap().map(|tags| FormatReward { tags })
}

/// Checks the prompt and the rewards of each group, and returns the names of the prompts.
fn check_groups(groups: &[GroupRecord], step: Option<u64>) -> BTreeSet<String> {
    let (mixture, policy) = (mixture(&[("null-example", 1.0), ("planning@1", 2.0), ("none", 1.0)]), policy());
    let mut names = BTreeSet::new();
    for group in groups {
        let drawn = mixture.draw(42, step.unwrap_or(group.step as u64), name_hash(&group.question_id));
        let prompt = &mixture.parts()[drawn].prompt;
        assert_eq!(group.ppe.as_ref(), Some(&prompt.name));
        names.insert(prompt.name.clone());
        let rendered = policy.render(prompt, &group.question, false).unwrap();
        assert_eq!(group.prompt_sha256, sha256_ids(&rendered.ids));
        for completion in &group.completions {
            let (format, accuracy) = (completion.rewards["format"], completion.rewards["accuracy"].unwrap());
            let expected =
                format_of(prompt).map(|it| if it.flaw(&completion.text, false).is_none() { 1.0 } else { 0.0 });
            assert_eq!(format, expected, "{}", completion.text);
            // Without a format to reward, a right answer has the whole weight.
            let reward = format.map_or(accuracy, |format| 0.5 * accuracy + 0.5 * format);
            assert_eq!(completion.reward, reward);
        }
    }
    names
}

#[test]
fn a_group_has_the_prompt_and_the_format_that_it_drew() {
    let folder = with("mix.toml", MIX.as_bytes());
    let (printed, said) = train(folder.path(), &args("run", "--threads=1"));
    for line in [
        "prompt   null-example (<examples>, rft wording, weight 1)\n",
        "prompt   planning@1 (<plan>, rft wording, weight 2)\n",
        "prompt   none (no tags, rft wording, weight 1)\n",
    ] {
        assert!(said.contains(line), "{said}");
    }
    let path = folder.path().join("runs/run");
    let groups = completions::read(&path.join("completions.jsonl")).unwrap();
    assert_eq!(groups.len(), 16);
    let names = check_groups(&groups, None);
    assert_eq!(names.iter().map(String::as_str).collect::<Vec<_>>(), ["none", "null-example", "planning@1"]);
    assert!(groups.iter().flat_map(|it| &it.completions).any(|it| it.rewards["format"] == Some(1.0)));

    // The metrics of a step: for each prompt that was drawn, and for no other.
    let lines = metrics::read(&path.join("metrics.jsonl")).unwrap();
    for line in lines.iter().filter(|line| line.values.contains_key("reward")) {
        let mut expected: BTreeMap<String, f64> = BTreeMap::new();
        for name in &names {
            let of: Vec<&GroupRecord> =
                groups.iter().filter(|it| it.step == line.step && it.ppe.as_ref() == Some(name)).collect();
            let completions = || of.iter().flat_map(|group| &group.completions);
            let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
            if of.is_empty() {
                continue;
            }
            expected.insert(format!("prompt/{name}/groups"), of.len() as f64);
            expected.insert(format!("prompt/{name}/reward"), mean(completions().map(|it| it.reward.into()).collect()));
            for reward in ["accuracy", "format"] {
                let values: Vec<f64> = completions().filter_map(|it| Some(it.rewards[reward]?.into())).collect();
                if !values.is_empty() {
                    expected.insert(format!("prompt/{name}/{reward}"), mean(values));
                }
            }
        }
        let logged = line.values.iter().filter(|(name, _)| name.starts_with("prompt/"));
        let logged: BTreeMap<String, f64> = logged.map(|(name, value)| (name.clone(), value.unwrap())).collect();
        assert_eq!(logged.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "step {}", line.step);
        for (name, value) in &logged {
            assert!((value - expected[name]).abs() < 1e-6, "{name}: {value}, expected {}", expected[name]);
        }
        assert!(line.values.contains_key("rewards/format/mean") && line.values.contains_key("rewards/accuracy/mean"));
    }
    let events = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path());
    let events = events.into_iter().find(|it| it.to_string_lossy().contains("tfevents")).unwrap();
    assert!(String::from_utf8_lossy(&fs::read(events).unwrap()).contains("prompt/planning@1/reward"));

    // The held-out questions draw the same prompts before and after training.
    let [before, after] = [0, 4].map(|step| {
        let groups = completions::read(&path.join(format!("eval/step-{step:06}-sampled.jsonl"))).unwrap();
        assert_eq!(groups.len(), 16);
        check_groups(&groups, Some(EVALUATION_STEP));
        groups
    });
    let drawn = |groups: &[GroupRecord]| groups.iter().map(|it| it.ppe.clone()).collect::<Vec<_>>();
    assert_eq!(drawn(&before), drawn(&after));
    let right = |name: Option<&str>| {
        let of = after.iter().filter(|it| name.is_none_or(|name| it.ppe.as_deref() == Some(name)));
        let right: Vec<bool> = of.map(GroupRecord::is_solved).collect();
        right.iter().filter(|it| **it).count() as f64 / right.len() as f64
    };
    let value = |name: &str| lines.iter().rev().find_map(|line| line.values.get(name)).copied().flatten();
    assert_eq!(value("eval/sampled/accuracy"), Some(right(None)));
    let name = "eval/sampled/prompt/planning@1/accuracy";
    assert_eq!(value(name), Some(right(Some("planning@1"))));
    assert!(value("eval/sampled/prompt/none/accuracy").is_some() && value("eval/sampled/prompt/none/format").is_none());
    assert!(printed.lines().any(|line| line.starts_with(" sampled accuracy, planning@1 ")), "{printed}");
    let summary: Value = serde_json::from_slice(&fs::read(path.join("summary.json")).unwrap()).unwrap();
    let after = &summary["held_out"]["sampled"]["by_prompt"]["planning@1"]["accuracy"]["after"]["value"];
    assert_eq!(after.as_f64(), value(name));
}

#[test]
fn a_mixture_does_not_depend_on_threads_or_a_stop() {
    let folder = with("mix.toml", MIX.as_bytes());
    let path = folder.path();
    train(path, &args("one", "--threads=1"));
    let whole = Trace::of(&path.join("runs/one"));
    train(path, &args("two", "--threads=2"));
    whole.assert_same(&Trace::of(&path.join("runs/two")));
    let shorter: Vec<String> =
        args("half", "--threads=1").into_iter().map(|it| it.replace("steps=4", "steps=2")).collect();
    train(path, &shorter);
    rft(path).args(["train", "--threads=1", "--resume=runs/half", "--steps=4"]).assert().success();
    whole.assert_same(&Trace::of(&path.join("runs/half")));
}

#[test]
fn a_killed_mixture_resumes_to_the_same_bytes() {
    let sets = ["--set=prompt.mix=[{ppe='null-example'},{ppe='planning@1',weight=2}]", "--set=train.save_steps=2"];
    let whole = folder();
    rft(whole.path()).args(job(&sets)).assert().success();
    let killed = folder();
    assert_eq!(interrupt(killed.path(), &sets, 5, "KILL"), None);
    let output = rft(killed.path()).args(["train", "--resume", "runs/run"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let [whole, killed] = [&whole, &killed].map(|folder| Trace::of(&folder.path().join("runs/run")));
    whole.assert_same(&killed);
}

/// A user's files are needed only when the run starts.
#[test]
fn a_run_keeps_all_its_prompts() {
    let own = "name = \"own\"\ntext = \"Count in <steps> </steps>, then <answer> </answer>.\"\ntag = \"steps\"\nanswer_tag = \"answer\"\n";
    let folder = with("own.toml", own.as_bytes());
    let path = folder.path();
    fs::write(path.join("mix.toml"), "prompt.mix = [{ ppe = \"own.toml\", weight = 3 }, { ppe = \"reasoning\" }]\n")
        .unwrap();
    let shorter: Vec<String> =
        args("run", "--threads=1").into_iter().map(|it| it.replace("steps=4", "steps=2")).collect();
    train(path, &shorter);
    train(path, &args("whole", "--threads=1"));
    let run = path.join("runs/run");

    let kept = Mixture::read(&run.join("prompt.toml")).unwrap();
    assert_eq!(kept.name(), "3 own + 1 reasoning");
    let manifest = Manifest::read(&RunDir::open(&run).unwrap()).unwrap();
    assert_eq!(manifest.prompt.name, "3 own + 1 reasoning");
    let parts: Vec<(&str, f64)> = manifest.prompt.mixture.iter().map(|it| (it.name.as_str(), it.weight)).collect();
    assert_eq!(parts, [("own", 3.0), ("reasoning", 1.0)]);
    assert!(manifest.prompt.mixture[0].wording.starts_with("own.toml "));

    fs::remove_file(path.join("own.toml")).unwrap();
    let changed = fs::read_to_string(run.join("prompt.toml")).unwrap();
    fs::write(run.join("prompt.toml"), changed.replace("Count", "Think")).unwrap();
    let said = error(&folder, &["train", "--threads=1", "--resume=runs/run", "--steps=4"]);
    assert!(said.contains("have changed since it was started: `prompt.toml` of the run"), "{said}");
    fs::remove_file(run.join("prompt.toml")).unwrap();
    let said = error(&folder, &["train", "--threads=1", "--resume=runs/run", "--steps=4"]);
    assert!(said.contains("prompt.toml"), "{said}");
    fs::write(run.join("prompt.toml"), changed).unwrap();
    rft(path).args(["train", "--threads=1", "--resume=runs/run", "--steps=4"]).assert().success();
    Trace::of(&path.join("runs/whole")).assert_same(&Trace::of(&run));

    // An evaluation reads the run's copy too, and the file can be used for another run.
    let eval = ["eval", "--bench=arithmetic-1", "--adapter=runs/run", "--samples=1", "--max-tokens=8", "--limit=8"];
    let output = rft(path).args(eval).args(["--output-format", "json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["identity"]["ppe"], "3 own + 1 reasoning");
    let said = rft(path).args(["prompts", "render", "runs/run/prompt.toml", "--question=2 + 2?"]).output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.starts_with("── own, weight 3 of 4\n") && said.contains("── reasoning, weight 1 of 4\n"), "{said}");
}

#[test]
fn a_question_must_fit_under_every_prompt() {
    let policy = policy();
    let question = "A box has 12 apples. How many apples are in 3 boxes?";
    let length = |name: &str| policy.render(&prompt::find(name).unwrap(), question, false).unwrap().ids.len();
    let (short, long) = (length("none"), length("planning"));
    assert!(short + 20 < long);
    let folder = folder();
    let row = serde_json::json!({ "question": question, "answer": "36" });
    fs::write(folder.path().join("data.jsonl"), format!("{row}\n").repeat(20)).unwrap();
    let limit = format!("--set=rollout.max_prompt_length={}", short + 1);
    let small = ["train", "--threads=1", "--steps=1", "--data=data.jsonl", "--set=eval.questions=0", &limit];
    let step = ["--set=rollout.prompts_per_step=2", "--set=rollout.num_generations=2"];
    rft(folder.path()).args(small).args(step).arg("--ppe=none").assert().success();
    let mix = "--set=prompt.mix=[{ppe='none'},{ppe='planning'}]";
    let said = error(&folder, &[&small[..], &step[..], &[mix]].concat());
    assert!(said.contains("20 training questions left out because their prompt is longer than"), "{said}");
}

fn wrong(text: &str) -> String {
    let folder = with("lab.toml", text.as_bytes());
    let layers = ConfigLayers { files: vec![folder.path().join("lab.toml")], ..ConfigLayers::default() };
    let error = format!("{:#}", resolve(&layers).expect_err("an invalid mixture"));
    error.replace(&format!("{}/", folder.path().display()), "")
}

#[test]
fn a_wrong_mixture_is_an_error_with_its_place() {
    assert_snapshot!(wrong("prompt.mix = [{ ppe = \"reasoning\" }]\n"), @r"
    lab.toml:1:14: `prompt.mix`: expected at least 2 prompts, found 1
    hint: use prompt.ppe for a single prompt
    ");
    assert_snapshot!(wrong("prompt.mix = [{ ppe = \"reasoning\" }, { ppe = \"planning\", weight = 0 }]\n"), @r"
    lab.toml:1:14: `prompt.mix[1].weight`: expected a number above 0, found 0
    hint: use a number above 0; the probabilities are proportional to the weights
    ");
    assert_snapshot!(wrong("[[prompt.mix]]\nppe = \"reasoning\"\n[[prompt.mix]]\nppe = \"planning\"\nweight = inf\n"), @r"
    lab.toml:1:10: `prompt.mix[1].weight`: expected a number above 0, found inf
    hint: use a number above 0; the probabilities are proportional to the weights
    ");
    assert_snapshot!(wrong("prompt.mix = [{ ppe = \"reasoning\", weight = \"2\" }]\n"), @r#"lab.toml:1:14: `prompt.mix[0].weight`: expected number, found string "2""#);
    assert_snapshot!(wrong("prompt.mix = [{ ppe = \"none\" }, { weight = 2 }]\n"), @"lab.toml:1:14: `prompt.mix[1]`: missing field `ppe`");
    assert_snapshot!(wrong("prompt.mix = [{ ppe = \"none\", wieght = 2 }]\n"), @"lab.toml:1:14: `prompt.mix[0]`: unknown field `wieght`, expected `ppe` or `weight`");
    assert_snapshot!(wrong("prompt.mix = [{ ppe = \"none\" }, { ppe = \"\" }]\n"), @r"
    lab.toml:1:14: `prompt.mix[1].ppe`: expected a value, found an empty string
    hint: use reasoning, planning, code, recall, null-example or none, or the path of a file
    ");
    assert_snapshot!(wrong("prompt.mix = [{ ppe = \"code\" }, { ppe = \"none\" }, { ppe = \"code\" }]\n"), @r"
    lab.toml:1:14: `prompt.mix[2].ppe`: `code` is already prompt.mix[0]
    hint: name each prompt once; its weight determines how often it is drawn
    ");
    assert_snapshot!(wrong("prompt.mix = []\nprompt.ppe = \"unset\"\n"), @r"
    lab.toml:2:14: `prompt.ppe`: it is unset, and `prompt.mix` has no prompts
    hint: set one of the two
    ");
    assert_snapshot!(wrong("[prompt]\nppe = \"none\"\nmix = [{ ppe = \"code\" }, { ppe = \"none\" }]\n"), @r#"
    lab.toml:3:7: `prompt.mix` and `prompt.ppe` (at lab.toml:2:7) are both set
    hint: remove one of them; a wording is selected in the mixture, such as ppe = "reasoning@2"
    "#);
    assert_snapshot!(wrong("[prompt]\nwording = 1\nmix = [{ ppe = \"code\" }, { ppe = \"none\" }]\n"), @r#"
    lab.toml:3:7: `prompt.mix` and `prompt.wording` (at lab.toml:2:11) are both set
    hint: remove one of them; a wording is selected in the mixture, such as ppe = "reasoning@2"
    "#);
    // `none` has no tags.
    assert_snapshot!(wrong("reward.gate = \"format\"\nprompt.mix = [{ ppe = \"code\" }, { ppe = \"none\" }]\n"), @r"
    lab.toml:1:15: `reward.gate`: the prior prompt `none` has no format to reward
    hint: remove it, or choose a prior prompt with tags
    ");
    let folder = folder();
    let said = error(&folder, &["train", "--ppe=none", "--set=prompt.mix=[{ppe='code'},{ppe='none'}]"]);
    assert!(said.contains("`prompt.mix` and `prompt.ppe` (at --ppe) are both set"), "{said}");
    let said = error(&folder, &["train", "--set=prompt.mix=[{ppe='code'},{ppe='cod'}]"]);
    assert!(said.starts_with("error: `prompt.mix[1].ppe`: unknown prior prompt `cod`"), "{said}");
    let said = error(&folder, &["train", "--set=prompt.mix=[{ppe='think'},{ppe='reasoning'}]"]);
    assert!(said.contains("`prompt.mix[1].ppe`: `reasoning` is a prompt with the name `reasoning`, as prompt.mix[0]"));
}

#[test]
fn later_layers_replace_a_mixture_or_a_prompt() {
    let file = |name: &str, text: &str| {
        let folder = with(name, text.as_bytes());
        let path = folder.path().join(name);
        (folder, path)
    };
    let (_mix, mix) = file("mix.toml", MIX);
    let (_worded, worded) = file("worded.toml", "[prompt]\nppe = \"recall\"\nwording = 3\n");
    let of = |files: &[&Path], set: Option<&str>, flag: Option<&str>, env: &[(&str, &str)]| {
        let mut layers = ConfigLayers {
            files: files.iter().map(|it| it.to_path_buf()).collect(),
            sets: set.into_iter().map(str::to_owned).collect(),
            env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            ..ConfigLayers::default()
        };
        layers.prompt_flag(flag);
        resolve(&layers).unwrap()
    };
    let names = |section: &PromptSection| section.entries().into_iter().map(|it| it.ppe).collect::<Vec<_>>();
    let mixed = of(&[&worded, &mix], None, None, &[]);
    let prompt = &mixed.config.prompt;
    assert_eq!((prompt.ppe.as_ref(), prompt.wording), (None, 0));
    assert_eq!(names(prompt), ["null-example", "planning@1", "none"]);
    assert_eq!(prompt.mix.iter().map(|it| it.weight).collect::<Vec<_>>(), [1.0, 2.0, 1.0]);
    assert_eq!(mixed.origins["prompt.ppe"], mixed.origins["prompt.mix"]);

    assert_eq!(names(&of(&[&mix, &worded], None, None, &[]).config.prompt), ["recall@3"]);
    assert_eq!(names(&of(&[&mix], Some("prompt.ppe=code"), None, &[]).config.prompt), ["code"]);
    let by_flag = of(&[&mix], None, Some("code"), &[]);
    assert_eq!(names(&by_flag.config.prompt), ["code"]);
    assert_eq!(by_flag.origins["prompt.mix"].to_string(), "--ppe");
    let variable = [("RFT_PROMPT__MIX", "[{ppe = 'code'}, {ppe = 'none'}]")];
    assert_eq!(names(&of(&[&worded], None, None, &variable).config.prompt), ["code", "none"]);

    // A resolved configuration resolves to itself.
    let (_written, written) = file("written.toml", &to_toml(&mixed.config, None));
    assert_eq!(of(&[&written], None, None, &[]).config, mixed.config);
    assert_eq!(of(&[&written], Some("prompt.ppe=code"), None, &[]).config.prompt.mix, []);
}

#[test]
fn rendering_shows_every_prompt() {
    let folder = with("mix.toml", MIX.as_bytes());
    let render = |args: &[&str]| {
        let output = rft(folder.path()).args(["prompts", "render", "--question=2 + 2?"]).args(args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let shown = render(&["--config=mix.toml"]);
    let headings: Vec<&str> = shown.lines().filter(|line| line.starts_with("── ")).collect();
    assert_eq!(headings, ["── null-example, weight 1 of 4", "── planning@1, weight 2 of 4", "── none, weight 1 of 4"]);
    assert!(shown.contains("<examples>") && shown.contains("<plan>"), "{shown}");
    let alone = render(&["--config=mix.toml", "planning@1"]);
    assert!(!alone.contains("──") && shown.contains(&alone), "{alone}");
    assert_eq!(alone, render(&["planning@1"]));
}

/// A grid with two mixtures beside single prompts, and an arm of a list.
#[test]
fn a_mixture_is_an_arm_of_a_sweep() {
    let folder = with(
        "lab.toml",
        br#"
        [prompt]
        ppe = "recall"
        [sweep.grid]
        "prompt.mix" = [
            [{ ppe = "reasoning" }, { ppe = "planning@1" }],
            [{ ppe = "reasoning", weight = 3 }, { ppe = "none" }],
        ]
        [[sweep.list]]
        "prompt.ppe" = "reasoning@2"
        [[sweep.list]]
        name = "both"
        prompt.mix = [{ ppe = "code" }, { ppe = "none" }]
        [sweep.eval]
        benchmarks = ["arithmetic-1"]
        test_prompts = ["own", "none"]
        "#,
    );
    let path = folder.path().join("lab.toml");
    let file = rft::sweep::SweepFile::read(path.to_str().unwrap(), &[]).unwrap();
    let sweep = rft::sweep::expand(&file).unwrap();
    let names: Vec<&str> = sweep.runs.iter().map(|it| it.arm.as_str()).collect();
    assert_eq!(names, ["reasoning+planning-1", "reasoning=3+none=1", "reasoning-2", "both"]);
    let of = |run: Option<&str>| {
        let evals = sweep.evals.iter().filter(|it| it.run.as_deref() == run);
        evals.map(|it| (it.test_prompt.as_str(), it.ppe.as_deref(), it.mix.len())).collect::<Vec<_>>()
    };
    assert_eq!(
        of(None),
        [
            ("reasoning + planning@1", None, 2),
            ("3 reasoning + 1 none", None, 2),
            ("reasoning@2", Some("reasoning@2"), 0),
            ("code + none", None, 2),
            ("none", Some("none"), 0),
        ]
    );
    let first = format!("{}-s42", names[0]);
    assert_eq!(of(Some(&first)), [("reasoning + planning@1", None, 0), ("none", Some("none"), 0)]);
    fs::write(
        &path,
        "[sweep]\n[[sweep.list]]\nprompt.ppe = \"code\"\nprompt.mix = [{ ppe = \"code\" }, { ppe = \"none\" }]\n",
    )
    .unwrap();
    let said = rft::sweep::SweepFile::read(path.to_str().unwrap(), &[]).err().unwrap().to_string();
    assert!(said.contains("`prompt.mix` and `prompt.ppe` (at ") && said.contains("are both set"), "{said}");
}

const SWEEP: &str = r#"
preset = "tiny"
rollout.prompts_per_step = 2
rollout.num_generations = 4
train.steps = 2
eval.questions = 8
[sweep]
name = "mixed"
seeds = [1, 2]
jobs = 2
[[sweep.list]]
"prompt.ppe" = "planning"
[[sweep.list]]
"prompt.mix" = [{ ppe = "reasoning" }, { ppe = "planning@1" }]
[sweep.eval]
benchmarks = ["arithmetic-1"]
test_prompts = ["own", "none", "all"]
limit = 12
samples = 2
max_tokens = 48
"#;

#[test]
fn a_sweep_with_a_mixture_is_evaluated_and_reported() {
    let folder = with("sweep.toml", SWEEP.as_bytes());
    let run = |args: &[&str]| {
        let output = rft(folder.path()).args(args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    run(&["sweep", "sweep.toml"]);
    let sweep = folder.path().join("sweeps/mixed");
    let arm = "reasoning+planning-1";

    // Each question draws a prompt from the seed of the evaluation and its id, for the untrained model too.
    let mixture = mixture(&[("reasoning", 1.0), ("planning@1", 1.0)]);
    let own = |name: &str| {
        let path = sweep.join("evals").join(name);
        let folder = EvalFolder::open(&path).unwrap();
        assert_eq!(folder.identity.ppe, "reasoning + planning@1", "{name}");
        let bench = folder.bench("arithmetic-1");
        let questions = bench.questions().unwrap();
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for question in &questions {
            let drawn = mixture.draw(42, EVALUATION_STEP, name_hash(&question.id));
            let prompt = &mixture.parts()[drawn].prompt;
            assert_eq!(question.ppe.as_ref(), Some(&prompt.name));
            assert!(question.prompt_text.contains(&format!("<{}>", prompt.tag.as_ref().unwrap())));
        }
        let samples = bench.samples().unwrap();
        assert_eq!(samples.len(), 24);
        for sample in &samples {
            let question = questions.iter().find(|it| it.id == sample.question_id).unwrap();
            assert_eq!(sample.ppe, question.ppe);
            *counts.entry(sample.ppe.clone().unwrap()).or_default() += 1;
        }
        let scores: BenchmarkScores = serde_json::from_slice(&fs::read(bench.results()).unwrap()).unwrap();
        let by_prompt: BTreeMap<String, usize> =
            scores.by_prompt.iter().map(|(name, it)| (name.clone(), 2 * it.questions)).collect();
        assert_eq!(by_prompt, counts);
        let total: f64 = scores.by_prompt.values().map(|it| it.accuracy.value * it.questions as f64).sum();
        assert!((total / 12.0 - scores.accuracy.value).abs() < 1e-12, "{scores:?}");
        questions
    };
    let base = own("base-under-reasoning---planning-1");
    for name in [format!("{arm}-s1-under-reasoning---planning-1"), "planning-s2-under-reasoning---planning-1".into()] {
        assert_eq!(own(&name), base);
    }
    let single = EvalFolder::open(&sweep.join("evals").join(format!("{arm}-s1-under-planning"))).unwrap();
    assert!(single.bench("arithmetic-1").samples().unwrap().iter().all(|it| it.ppe.is_none()));

    // The same command without a sweep uses the mixture of the run, and `--ppe` one prompt.
    let run_path = sweep.join("runs").join(format!("{arm}-s2")).display().to_string();
    let eval = ["eval", "--bench=arithmetic-1", "--limit=12", "--samples=2", "--max-tokens=48", "--adapter", &run_path];
    let text = String::from_utf8(run(&[&eval[..], &["--out=mixed"]].concat())).unwrap();
    assert!(text.contains("prior prompt `reasoning + planning@1`") && text.contains("  planning@1 "), "{text}");
    let [again, planned] =
        [folder.path().join("mixed"), sweep.join(format!("evals/{arm}-s2-under-reasoning---planning-1"))]
            .map(|path| fs::read(path.join("arithmetic-1/samples.jsonl")).unwrap());
    assert!(again == planned, "the samples differ");
    let text = String::from_utf8(run(&[&eval[..], &["--out=single", "--ppe=reasoning"]].concat())).unwrap();
    assert!(text.contains("prior prompt `reasoning`") && !text.contains("planning"), "{text}");

    run(&["report", sweep.to_str().unwrap()]);
    let report: Value = serde_json::from_slice(&fs::read(sweep.join("report/report.json")).unwrap()).unwrap();
    let mixtures = report["mixtures"].as_array().unwrap();
    assert_eq!(mixtures.len(), 2);
    assert_eq!((&mixtures[1]["arm"], &mixtures[1]["prompt"]), (&arm.into(), &"planning@1".into()));
    assert!(mixtures[1]["accuracies"][0]["untrained"].is_number(), "{mixtures:?}");
    assert!(report.get("wordings").is_none(), "a mixture is not a wording");
    let internalized = &report["internalized"]["arms"];
    assert!(
        internalized.as_array().unwrap().iter().any(|it| it["prompt"] == "reasoning + planning@1"),
        "{internalized}"
    );
    let page = fs::read_to_string(sweep.join("report/report.md")).unwrap();
    assert!(page.contains("Several prompts in one run") && page.contains("1 of 2"), "{page}");
    assert!(page.contains("own prompt (reasoning + planning@1)") || page.contains("reasoning + planning@1"), "{page}");
    assert!(page.contains("--set 'prompt.mix=[{ ppe = \"reasoning\", weight = 1.0 }"), "{page}");
}
