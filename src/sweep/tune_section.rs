//! `[sweep.tune]`: the setting that is chosen for each arm, its candidates and the budget of the choice.

use anyhow::{Context, Result, bail, ensure};
use toml::Value;

use super::keys::Keys;
use crate::config::{ConfigKey, Content, Entry, Node, ValueOrigin};

/// `[sweep.tune]`.
#[derive(Clone, Debug)]
pub struct TuneSection {
    /// The setting, such as `train.learning_rate`.
    pub key: String,
    /// The candidates.
    pub(super) values: Vec<Entry>,
    /// The seeds of the trials. Default: one that is not a seed of the study.
    pub seeds: Vec<u64>,
    /// Steps of each trial. Default: those of the study.
    pub steps: Option<usize>,
    /// Held-out questions of each trial.
    pub questions: usize,
    pub(super) origin: ValueOrigin,
}

/// The settings that can be tuned: numbers that say how to learn. Data, prompts, rewards and seeds say what to learn.
const TUNABLE: [&str; 17] = [
    "train.learning_rate",
    "train.min_lr_rate",
    "train.warmup_ratio",
    "train.adam_beta1",
    "train.adam_beta2",
    "train.adam_epsilon",
    "train.weight_decay",
    "train.max_grad_norm",
    "grpo.epsilon",
    "grpo.epsilon_high",
    "grpo.delta",
    "grpo.beta",
    "grpo.entropy_coef",
    "grpo.num_iterations",
    "grpo.steps_per_generation",
    "lora.r",
    "lora.lora_alpha",
];

/// Default number of held-out questions.
const QUESTIONS: usize = 128;

/// With fewer questions, the interval of an accuracy is wider than 34 points, and a choice is chance.
const FEWEST: usize = 32;

impl TuneSection {
    pub(super) fn read(node: &Node) -> Result<Self> {
        let mut keys = Keys::of(node, "sweep.tune")?;
        let key: String = keys.take("key")?.unwrap_or_else(|| TUNABLE[0].to_owned());
        let values = keys.node("values");
        let (seeds, steps): (Option<Vec<u64>>, _) = (keys.take("seeds")?, keys.take("steps")?);
        let questions = keys.take("questions")?.unwrap_or(QUESTIONS);
        let [of_key, of_seeds, of_steps, of_questions] =
            ["key", "seeds", "steps", "questions"].map(|name| keys.origin(name).site());
        keys.finish()?;
        ensure!(
            TUNABLE.contains(&key.as_str()),
            "{of_key}: `sweep.tune.key`: `{key}` cannot be tuned\nhint: use one of {}",
            TUNABLE.join(", ")
        );
        let values = values.with_context(|| {
            format!(
                "{}: `sweep.tune` requires `values`\nhint: for example values = [1e-4, 3e-4, 1e-3]",
                node.origin.site()
            )
        })?;
        let values = candidates(values, &key, "sweep.tune.values")?;
        if let Some(seeds) = &seeds {
            check_seeds(seeds, &of_seeds)?;
        }
        ensure!(
            steps != Some(0),
            "{of_steps}: `sweep.tune.steps`: expected at least 1, found 0\nhint: leave it out for the steps of the study"
        );
        ensure!(
            questions >= FEWEST,
            "{of_questions}: `sweep.tune.questions`: expected at least {FEWEST}, found {questions}\n\
             hint: with fewer questions the choice would be chance; {QUESTIONS} is the default"
        );
        Ok(Self { key, values, seeds: seeds.unwrap_or_default(), steps, questions, origin: node.origin.clone() })
    }
}

fn check_seeds(seeds: &[u64], site: &str) -> Result<()> {
    ensure!(
        !seeds.is_empty(),
        "{site}: `sweep.tune.seeds`: the list is empty\nhint: leave it out to use one seed that is not in sweep.seeds"
    );
    let repeated = (1..seeds.len()).find(|&at| seeds[..at].contains(&seeds[at]));
    if let Some(at) = repeated {
        bail!("{site}: `sweep.tune.seeds`: {} occurs twice\nhint: list each seed once", seeds[at]);
    }
    Ok(())
}

/// The candidates for `key`, at least two different numbers. `name` is the key of the list in the file.
pub(super) fn candidates(node: &Node, key: &str, name: &str) -> Result<Vec<Entry>> {
    let site = node.origin.site();
    let Content::List(values) = &node.content else {
        bail!("{site}: `{name}` is not a list\nhint: write values = [{}, ...]", node.to_value());
    };
    ensure!(
        values.len() >= 2,
        "{site}: `{name}`: expected at least two values, found {}\nhint: to train with one value, set `{key}` and remove [sweep.tune]",
        values.len()
    );
    let mut found: Vec<Entry> = Vec::new();
    for value in values {
        let site = value.origin.site();
        let number = |value: &Value| value.as_float().or_else(|| value.as_integer().map(|it| it as f64));
        let of_value = value.to_value();
        ensure!(
            number(&of_value).is_some_and(f64::is_finite),
            "{site}: `{name}`: expected a number, found {of_value}\nhint: list numbers, such as [1e-4, 3e-4, 1e-3]"
        );
        ensure!(
            !found.iter().any(|it| number(&it.value) == number(&of_value)),
            "{site}: `{name}`: {of_value} occurs twice\nhint: list each value once"
        );
        let key = ConfigKey { name: key.to_owned(), origin: value.origin.clone() };
        found.push(Entry::of_node(&[&key], value));
    }
    Ok(found)
}

/// The candidates of a single arm, in `tune.values` of its entry in [[sweep.list]].
pub(super) fn of_arm(node: &Node, tune: Option<&TuneSection>) -> Result<Vec<Entry>> {
    let site = node.origin.site();
    let mut keys = Keys::of(node, "sweep.list.tune")?;
    let values = keys.node("values");
    keys.finish()?;
    let key = tune.map(|it| it.key.as_str()).with_context(|| {
        format!("{site}: `sweep.list.tune`: nothing is tuned\nhint: add [sweep.tune], or remove tune.values")
    })?;
    let values = values.with_context(|| {
        format!("{site}: `sweep.list.tune` has no `values`\nhint: write tune.values = [1e-4, 1e-3]")
    })?;
    candidates(values, key, "sweep.list.tune.values")
}

/// Checks that no axis of the sweep varies the key. `varied` has the keys of [sweep.grid] and [sweep.zip].
pub(super) fn check_axes(tune: &TuneSection, varied: &[String]) -> Result<()> {
    ensure!(
        !varied.contains(&tune.key),
        "{}: `sweep.tune`: `{}` is varied by [sweep.grid] or [sweep.zip], so it cannot be tuned\n\
         hint: remove it there, or remove [sweep.tune]",
        tune.origin.site(),
        tune.key
    );
    Ok(())
}

/// The seeds of the trials, none of which is a seed of the study.
pub(super) fn seeds(tune: &TuneSection, study: &[u64]) -> Result<Vec<u64>> {
    if tune.seeds.is_empty() {
        let free = (101..).find(|seed| !study.contains(seed)).expect("there is always a free seed");
        return Ok(vec![free]);
    }
    if let Some(shared) = tune.seeds.iter().find(|seed| study.contains(seed)) {
        bail!(
            "{}: `sweep.tune.seeds`: {shared} is also a seed of the study, so a run would be both trial and result\n\
             hint: use seeds that are not in sweep.seeds",
            tune.origin.site()
        );
    }
    Ok(tune.seeds.clone())
}
