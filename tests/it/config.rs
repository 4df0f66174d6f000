//! A wrong configuration is reported in one line, with the place and a hint; a valid one is shown with its origins.

use std::path::PathBuf;

use clap::Parser;
use insta::assert_snapshot;
use rft::cli::config::ConfigCommandArgs;
use rft::cli::config_args::ConfigArgs;
use rft::config::{ConfigLayers, resolve, to_toml};

/// The error for a file `lab.toml` with this text.
fn of_file(text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lab.toml");
    std::fs::write(&path, text).unwrap();
    let error = of_layers(&ConfigLayers { files: vec![path], ..ConfigLayers::default() });
    error.replace(&format!("{}/", folder.path().display()), "")
}

fn of_set(argument: &str) -> String {
    of_layers(&ConfigLayers { sets: vec![argument.to_owned()], ..ConfigLayers::default() })
}

fn of_layers(layers: &ConfigLayers) -> String {
    format!("{:#}", resolve(layers).expect_err("these layers are wrong"))
}

#[test]
fn an_unknown_key_is_reported_with_the_nearest_one() {
    assert_snapshot!(of_file("[train]\nsteps = 3\n  learning_rat = 1e-4\n"), @r"
    lab.toml:3:3: unknown key `train.learning_rat`
    hint: did you mean `train.learning_rate`?
    ");
    assert_snapshot!(of_file("[trian]\nsteps = 3\n"), @r"
    lab.toml:1:2: unknown section `trian`
    hint: did you mean `train.steps`?
    ");
    assert_snapshot!(of_file("[roll]\n"), @r"
    lab.toml:1:2: unknown section `roll`
    hint: did you mean `rollout`?
    ");
    assert_snapshot!(of_file("grpo.num_generations = 8"), @r"
    lab.toml:1:6: unknown key `grpo.num_generations`
    hint: did you mean `rollout.num_generations`?
    ");
    assert_snapshot!(of_file("learning_rate = 1e-4"), @r"
    lab.toml:1:1: unknown key `learning_rate`
    hint: did you mean `train.learning_rate`?
    ");
    assert_snapshot!(of_set("lora.dropout=0.1"), @r"
    --set lora.dropout=0.1: unknown key `lora.dropout`
    hint: the keys of [lora] are r, lora_alpha, target_modules, use_rslora, init_adapter
    ");
    assert_snapshot!(of_set("color=red"), @r"
    --set color=red: unknown key `color`
    hint: `rft config show` prints all keys
    ");
    let env = vec![("RFT_LORA__ALPHA".to_owned(), "1".to_owned())];
    assert_snapshot!(of_layers(&ConfigLayers { env, ..ConfigLayers::default() }), @r"
    RFT_LORA__ALPHA: unknown key `lora.alpha`
    hint: did you mean `lora.lora_alpha`?
    ");
}

#[test]
fn a_wrong_type_is_reported_with_the_right_one() {
    assert_snapshot!(
        of_file("[train]\nsteps = \"many\"\n"),
        @r#"lab.toml:2:9: `train.steps`: expected integer, found string "many""#
    );
    assert_snapshot!(of_file("train.steps = 4.5"), @"lab.toml:1:15: `train.steps`: expected integer, found float 4.5");
    assert_snapshot!(
        of_file("train.seed = -1"),
        @"lab.toml:1:14: `train.seed`: expected an integer of at least 0, found integer -1"
    );
    assert_snapshot!(of_file("eval.greedy = 1"), @"lab.toml:1:15: `eval.greedy`: expected boolean, found integer 1");
    assert_snapshot!(
        of_file("[reward.format]\nweight = [0.5]\n"),
        @"lab.toml:2:10: `reward.format.weight`: expected number, found array"
    );
    assert_snapshot!(of_set("lora.target_modules=q_proj"), @r#"
    --set lora.target_modules=q_proj: `lora.target_modules`: expected array, found string "q_proj"
    hint: write an array as ["one", "two"]
    "#);
    assert_snapshot!(of_set("train=3"), @r"
    --set train=3: `train` is a section, not a value
    hint: write it as [train] and set its keys
    ");
    assert_snapshot!(of_file("[train.steps]\nfirst = 1"), @r"
    lab.toml:1:8: `train.steps` is a value, not a section
    hint: write it as train.steps = ...
    ");
}

#[test]
fn an_unknown_choice_is_an_error_with_the_choices() {
    assert_snapshot!(of_set("grpo.loss_type=drgrpo"), @r"
    --set grpo.loss_type=drgrpo: `grpo.loss_type`: unknown value `drgrpo`
    hint: did you mean `dr_grpo`? use one of grpo, dapo, dr_grpo, bnpo, gspo, cispo
    ");
    assert_snapshot!(of_set("reward.length.kind=overlong"), @r"
    --set reward.length.kind=overlong: `reward.length.kind`: unknown value `overlong`
    hint: did you mean `soft-overlong`? use one of cosine, soft-overlong
    ");
    assert_snapshot!(of_set("data.take=tail"), @r"
    --set data.take=tail: `data.take`: unknown value `tail`
    hint: use one of head, shuffle
    ");
    assert_snapshot!(of_file("grpo.loss_type = 3"), @"lab.toml:1:18: `grpo.loss_type`: expected string, found integer 3");
    assert_snapshot!(of_set("data.levels=[1, 2.5]"), @"--set data.levels=[1, 2.5]: `data.levels[1]`: expected integer, found float 2.5");
    assert_snapshot!(of_file("preset = \"qwen2.5-7\""), @r"
    lab.toml:1:10: unknown preset `qwen2.5-7`
    hint: did you mean `qwen2.5-7b`? the presets are tiny, qwen2.5-0.5b, qwen2.5-7b
    ");
    assert_snapshot!(of_layers(&ConfigLayers { preset: Some("gigantic".into()), ..ConfigLayers::default() }), @r"
    --preset: unknown preset `gigantic`
    hint: the presets are tiny, qwen2.5-0.5b, qwen2.5-7b; to use your own file, pass --config
    ");
}

#[test]
fn syntax_errors_are_reported_with_their_place() {
    assert_snapshot!(
        of_file("[train]\nsteps = \n"),
        @"lab.toml:2:9: invalid TOML: string values must be quoted, expected literal string"
    );
    assert_snapshot!(of_file("[train]\nseed = 1\nseed = 2\n"), @"lab.toml:3:1: invalid TOML: duplicate key");
    assert_snapshot!(of_set("train.steps"), @r"
    --set train.steps: expected `=`
    hint: write --set section.key=value
    ");
    let missing = ConfigLayers { files: vec![PathBuf::from("no-such.toml")], ..ConfigLayers::default() };
    assert_snapshot!(of_layers(&missing), @"read `no-such.toml`: No such file or directory (os error 2)");
}

#[test]
fn an_invalid_value_is_an_error_with_a_hint() {
    assert_snapshot!(of_file("[rollout]\nnum_generations = 1\n"), @r"
    lab.toml:2:19: `rollout.num_generations`: a group of size 1 has nothing to compare
    hint: use 2 or more; the study uses 8
    ");
    assert_snapshot!(of_set("grpo.steps_per_generation=6"), @r"
    --set grpo.steps_per_generation=6: `grpo.steps_per_generation`: 16 prompts x 8 completions = 128 cannot be split into 6 equal mini-batches
    hint: use a divisor of 128: 2, 4, 8, 16
    ");
    assert_snapshot!(of_set("rollout.temperature=0"), @r"
    --set rollout.temperature=0: `rollout.temperature`: expected a number above 0, found 0
    hint: use a number above 0; 1 samples from the unchanged policy, and eval.greedy evaluates with greedy decoding
    ");
    assert_snapshot!(of_set(r#"lora.target_modules=["q_proj", "lm_head"]"#), @r#"
    --set lora.target_modules=["q_proj", "lm_head"]: `lora.target_modules`: unknown module `lm_head`
    hint: use all-linear, or any of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj
    "#);
    // The problem is in a key that another layer sets: that layer is named.
    assert_snapshot!(of_set("rollout.max_completion_length=9000"), @r"
    preset tiny: `train.max_tokens_per_micro_batch`: 2048 tokens are too few for a prompt and a completion of up to 9256 tokens together
    hint: raise it to at least 9256, or lower rollout.max_completion_length
    ");
}

#[test]
fn an_invalid_reward_is_an_error_with_a_hint() {
    assert_snapshot!(of_file("[reward.format-strict]\nweight = 1\n"), @r"
    lab.toml:1:9: unknown section `reward.format-strict`
    hint: did you mean `reward.format_strict.weight`?
    ");
    assert_snapshot!(of_set("reward.repetition.weight=-1"), @r"
    --set reward.repetition.weight=-1: `reward.repetition.weight`: -1 is not a valid weight
    hint: use a number of 0 or more; 0 measures without rewarding
    ");
    assert_snapshot!(of_set("reward.repetition.max_penalty=1"), @r"
    --set reward.repetition.max_penalty=1: `reward.repetition.max_penalty`: 1 would reward repetition
    hint: use 0 or less; -1 is usual
    ");
    assert_snapshot!(of_set("reward.length.soft_punish_cache=97"), @r"
    --set reward.length.soft_punish_cache=97: `reward.length.soft_punish_cache`: 97 is out of range
    hint: use 1 to 96, the length limit; unset uses a fifth of it
    ");
    assert_snapshot!(of_set("reward.length.min_value_wrong=0"), @r"
    --set reward.length.min_value_wrong=0: `reward.length.min_value_wrong`: the range from 0 to -0.5 is empty
    hint: put the smaller value first; open-r1 uses 0.5 to 1 for right answers and -1 to -0.5 for wrong ones
    ");
    assert_snapshot!(of_file("reward.accuracy.weight = 0\nreward.format.weight = 0\n"), @r"
    lab.toml:1:26: `reward.accuracy.weight`: all rewards have weight 0
    hint: set a weight above 0; unset uses the study's weights, 0.5 for accuracy and 0.5 for format
    ");
    assert_snapshot!(of_file("prompt.ppe = \"none\"\nreward.gate = \"format\"\n"), @r"
    lab.toml:2:15: `reward.gate`: the prior prompt `none` has no format to reward
    hint: remove it, or choose a prior prompt with tags
    ");
    let judge = |fields: &str| of_file(&format!("[[reward.custom]]\nname = \"judge\"\n{fields}"));
    assert_snapshot!(judge("weight = 1.0\n"), @"lab.toml:1:1: `reward.custom[0]`: missing field `command`");
    assert_snapshot!(judge("command = [\"judge\"]\n"), @"lab.toml:1:1: `reward.custom[0]`: missing field `weight`");
    assert_snapshot!(judge("command = \"judge --fast\"\nweight = 1.0\n"), @r#"
    lab.toml:1:1: `reward.custom[0].command`: expected array, found string "judge --fast"
    hint: write an array as ["one", "two"]
    "#);
    assert_snapshot!(judge("command = [\"judge\"]\nweight = 1.0\nseconds = 3\n"), @"lab.toml:1:1: `reward.custom[0]`: unknown field `seconds`, expected one of `name`, `command`, `weight`, `timeout`, `env`");
    assert_snapshot!(judge("command = []\nweight = 1.0\n"), @r#"
    lab.toml:1:1: `reward.custom`: `judge` has no command
    hint: set it, such as command = ["python3", "judge.py"]
    "#);
    assert_snapshot!(judge("command = [\"judge\"]\nweight = 1.0\ntimeout = 0\n"), @r"
    lab.toml:1:1: `reward.custom`: 0 seconds is not a valid time limit for `judge`
    hint: use a number above 0; the default is 60
    ");
    let twice = "command = [\"judge\"]\nweight = 1.0\n[[reward.custom]]\nname = \"judge\"\ncommand = [\"jury\"]\nweight = 1.0\n";
    assert_snapshot!(judge(twice), @r"
    lab.toml:1:1: `reward.custom`: duplicate name `judge`
    hint: use a different name for each component
    ");
    assert_snapshot!(of_set("reward.custom.name=judge"), @r"
    --set reward.custom.name=judge: `reward.custom` is a value, not a section
    hint: write it as reward.custom = ...
    ");
}

#[test]
fn a_custom_reward_is_written_and_shown_like_every_value() {
    let text = "[[reward.custom]]\nname = \"judge\"\ncommand = [\"python3\", \"judge.py\"]\nweight = 0.5\n";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lab.toml");
    std::fs::write(&path, text).unwrap();
    let config = resolve(&ConfigLayers { files: vec![path], ..ConfigLayers::default() }).unwrap().config;
    assert_eq!(config.reward.custom[0].timeout, 60.0);
    let written = to_toml(&config, None);
    assert_snapshot!(written.lines().find(|line| line.starts_with("custom")).unwrap(), @r#"custom = [{ name = "judge", command = ["python3", "judge.py"], weight = 0.5, timeout = 60.0 }]"#);
    assert_eq!(toml::from_str::<rft::config::RunConfig>(&written).unwrap(), config);
}

#[derive(Parser)]
struct Train {
    #[command(flatten)]
    config: ConfigArgs,
}

#[test]
fn the_flags_of_a_command_become_layers_and_show_their_origins() {
    let args = ["train", "--preset", "tiny", "--set", "train.steps=3", "--set", "train.threads=2"];
    let mut layers = Train::parse_from(args).config.layers();
    layers.env = vec![("RFT_LORA__R".into(), "4".into())];
    layers.prompt_flag(Some("none"));
    let resolved = resolve(&layers).unwrap();
    let shown = to_toml(&resolved.config, Some(&resolved.origins));
    let section = |name: &str| shown.split("\n\n").find(|it| it.starts_with(name)).unwrap().to_owned();
    assert_snapshot!(section("[prompt]"), @r#"
    [prompt]
    ppe = "none"        # from --ppe
    wording = 0         # from --ppe
    mix = []            # from preset tiny
    template = "model"  # from preset tiny
    prefill = false     # from preset tiny
    "#);
    assert_snapshot!(section("[lora]"), @r#"
    [lora]
    r = 4                            # from RFT_LORA__R
    lora_alpha = 32.0                # from preset tiny
    target_modules = ["all-linear"]  # from preset tiny
    use_rslora = false               # from preset tiny
    init_adapter = "unset"           # from preset tiny
    "#);
    assert!(shown.contains("\nsteps = 3 "), "{shown}");
}

#[derive(Parser)]
struct Config {
    #[command(flatten)]
    args: ConfigCommandArgs,
}

#[test]
fn config_check_reports_every_wrong_file() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.into_os_string().into_string().unwrap()
    };
    let good = write("good.toml", "preset = \"qwen2.5-7b\"\ntrain.seed = 1\n");
    let check = |files: &[&String]| {
        let arguments = ["config", "check"].into_iter().chain(files.iter().map(|it| it.as_str()));
        rft::cli::config::run(Config::parse_from(arguments).args)
    };
    check(&[&good]).unwrap();
    let (first, second) = (write("first.toml", "trian.seed = 1"), write("second.toml", "train.sed = 1"));
    let error = check(&[&first, &good, &second]).unwrap_err().to_string();
    assert!(error.contains("first.toml:1:1: unknown section `trian`"), "{error}");
    assert!(error.contains("second.toml:1:7: unknown key `train.sed`\nhint: did you mean `train.seed`?"), "{error}");
}

/// Values that would crash, hang, fill the memory or end in weights that are not finite.
#[test]
fn an_absurd_value_is_an_error_with_its_range() {
    for (set, problem) in [
        ("train.threads=1000000", "1000000 is out of range, expected 1 to 512"),
        ("lora.r=1000000000", "1000000000 is out of range, expected 1 to 1024"),
        ("rollout.num_generations=1000000000", "1000000000 is out of range, expected 2 to 65536"),
        ("rollout.prompts_per_step=1000000000", "1000000000 is out of range, expected 1 to 65536"),
        ("rollout.max_rows=1000000000", "1000000000 is out of range, expected 1 to 65536"),
        ("rollout.max_completion_length=9000000000", "9000000000 is out of range, expected 1 to 1048576"),
        ("grpo.num_iterations=1000000000", "1000000000 is out of range, expected 1 to 1000"),
        ("grpo.max_refills=1000000000", "1000000000 is out of range, expected 0 to 1000"),
        ("train.steps=9223372036854775807", "9223372036854775807 is out of range, expected 1 to 100000000"),
        ("train.epochs=9223372036854775807", "9223372036854775807 is out of range, expected 1 to 1000000"),
        ("data.max_questions=9223372036854775807", "expected 1 to 10000000"),
        ("eval.questions=9223372036854775807", "expected 0 to 1000000"),
        ("rollout.temperature=1e-30", "1e-30 is out of range, expected 0.01 to 100.0"),
        ("rollout.temperature=1e308", "1e308 is out of range, expected 0.01 to 100.0"),
        ("rollout.top_p=1e-300", "1e-300 is out of range, expected 1e-6 to 1.0"),
        ("lora.lora_alpha=1e308", "1e308 is out of range, expected 1e-6 to 100000.0"),
        ("train.learning_rate=1e308", "1e308 is out of range, expected 1e-12 to 1.0"),
        ("train.learning_rate=1000", "1000.0 is out of range, expected 1e-12 to 1.0"),
        ("train.weight_decay=1e308", "1e308 is out of range, expected 0.0 to 1.0"),
        ("train.adam_epsilon=1e-300", "1e-300 is out of range, expected 1e-30 to 1.0"),
        ("train.adam_beta2=0.9999999999999999", "is out of range, expected 0.0 to 0.999999"),
        ("train.max_grad_norm=1e308", "1e308 is out of range, expected 0.0 to 1000000.0"),
        ("grpo.beta=1e308", "1e308 is out of range, expected 0.0 to 1000.0"),
        ("grpo.entropy_coef=1e308", "1e308 is out of range, expected 0.0 to 1000.0"),
        ("grpo.truncation_penalty=1e308", "1e308 is out of range, expected 0.0 to 1000.0"),
        ("reward.accuracy.weight=1e308", "1e308 is out of range, expected 0.0 to 1000.0"),
        ("reward.repetition.max_penalty=-1e308", "-1e308 is out of range, expected -1000.0 to 0.0"),
        ("run.name=\"\\u001b[31m\"", "`\\u{1b}[31m` contains control characters"),
        ("run.name=\"a\\u0000b\"", "`a\\0b` contains control characters"),
        ("run.device=\"\\u001b[31m\"", "`\\u{1b}[31m` contains control characters"),
        ("run.device=x", "expected a device, found `x`"),
        ("data.path=\"a\\nb\"", "`a\\nb` contains control characters"),
    ] {
        let key = set.split('=').next().unwrap();
        let error = of_set(set);
        assert!(error.contains(&format!("`{key}`: ")) && error.contains(problem), "{set}: {error}");
        let line = error.lines().next().unwrap();
        assert!(line.len() < 300 && error.lines().count() == 2, "{error}");
    }
    let name = format!("run.name={}", "a".repeat(300));
    assert!(of_set(&name).contains("300 bytes is too long"), "{}", of_set(&name));
    let product = ConfigLayers {
        sets: vec!["rollout.num_generations=65536".into(), "rollout.prompts_per_step=65536".into()],
        ..ConfigLayers::default()
    };
    assert!(of_layers(&product).contains("4294967296 completions per step are too many"));
    let endless = ConfigLayers { files: vec![PathBuf::from("/dev/zero")], ..ConfigLayers::default() };
    assert!(of_layers(&endless).contains("expected a TOML file of at most 1 MiB"));
    let error = rft::prompt::find("/dev/zero").unwrap_err().to_string();
    assert_eq!(error, "read the prior prompt `/dev/zero`: expected a TOML file of at most 1 MiB");
}
