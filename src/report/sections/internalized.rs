//! Does the model need the prompt after training? The gains of each arm with its prompt, without any and with others, the share
//! of the gain that remains without a prompt, and what the completions look like then.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::json;

use super::{LONG, ReportPart, SEED, closed_if_long, columns};
use crate::behavior::summary::{ResponseCounts, Summary};
use crate::behavior::{Class, Classifier};
use crate::prompt::Mixture;
use crate::report::aligned::{AccuracyRow, Aligned, Subject};
use crate::report::chart::{Axis, Forest, ForestGroup};
use crate::report::document::{DocumentBlock, Table, TableCell, percent};
use crate::report::load::{Material, ReportedBenchmark, quoted};
use crate::report::study::retained::{RetainedShare, retained_shares};
use crate::report::study::text::{ends, points, signed_ends};
use crate::report::study::{self, ArmComparison, Paired, Study, StudyArm, StudyOutcome};
use crate::reward::{FormatReward, Tags};
use crate::stats::{Interval, RESAMPLES, RatioSet, accuracy_interval, mean};

/// The name of the empty prior prompt.
const NONE: &str = "none";

/// An arm under one test prompt.
struct Tested {
    prompt: String,
    arm: StudyArm,
    /// The untrained model under the same prompt, or without a prompt.
    base: StudyArm,
}

/// An arm that was trained with a prompt, and evaluated with it and without any.
struct Internalized {
    name: String,
    own: Tested,
    without: Tested,
    others: Vec<Tested>,
}

impl Internalized {
    /// With its prompt, without any, then with others.
    fn tests(&self) -> impl Iterator<Item = &Tested> {
        [&self.own, &self.without].into_iter().chain(&self.others)
    }

    /// The gain without a prompt and the gain with its prompt, over the same seeds.
    fn paired(&self, aligned: &Aligned) -> Option<[Paired<'_>; 2]> {
        let without = Paired::new(&self.without.arm, &self.without.base, &aligned.benchmarks).ok()?;
        Some([without, Paired::new(&self.own.arm, &self.own.base, &aligned.benchmarks).ok()?])
    }

    fn label(&self, test: &Tested) -> String {
        if test.prompt == self.own.prompt {
            format!("own prompt ({})", test.prompt)
        } else if test.prompt == NONE {
            "no prompt".to_owned()
        } else {
            format!("prompt {}", test.prompt)
        }
    }
}

/// The arms of the section, in the order of the runs. The untrained model must have been evaluated without a prompt.
fn internalized(material: &Material, aligned: &Aligned) -> Vec<Internalized> {
    let untrained = aligned.untrained();
    let base = |prompt: &str| untrained.iter().find(|row| row.prompt == prompt).copied();
    let Some(bare) = base(NONE) else { return Vec::new() };
    let tested = |arm: &str, prompt: &str, seeds: BTreeMap<u64, Vec<Vec<f64>>>| -> Tested {
        let row = base(prompt).unwrap_or(bare);
        // The untrained model is the same at every seed.
        let of_base = seeds.keys().map(|&seed| (seed, row.right.clone())).collect();
        Tested {
            prompt: prompt.to_owned(),
            arm: StudyArm { name: format!("{arm}, tested with {prompt}"), seeds },
            base: StudyArm { name: format!("untrained, {}", row.prompt), seeds: of_base },
        }
    };
    let of_arm = |name: String| -> Option<Internalized> {
        // Of an arm that distilled a prompt, that one, although it was trained without it.
        let prompt = &material.runs.iter().find(|run| run.arm == name)?.manifest.learned_prompt().name;
        let mut own = aligned.seeds(&name, |row| row.prompt == *prompt);
        let mut without = aligned.seeds(&name, |row| row.prompt == NONE);
        // The share is that of the same training runs.
        own.retain(|seed, _| without.contains_key(seed));
        without.retain(|seed, _| own.contains_key(seed));
        if prompt == NONE || own.is_empty() {
            return None;
        }
        let mut prompts: Vec<&String> = Vec::new();
        for row in rows_of(aligned, &name).filter(|row| row.prompt != *prompt && row.prompt != NONE) {
            if !prompts.contains(&&row.prompt) {
                prompts.push(&row.prompt);
            }
        }
        let other = |prompt: &&String| tested(&name, prompt, aligned.seeds(&name, |row| row.prompt == **prompt));
        Some(Internalized {
            own: tested(&name, prompt, own),
            without: tested(&name, NONE, without),
            others: prompts.iter().map(other).collect(),
            name,
        })
    };
    aligned.arms(material).into_iter().filter_map(of_arm).collect()
}

fn rows_of<'a>(aligned: &'a Aligned, arm: &'a str) -> impl Iterator<Item = &'a AccuracyRow> {
    aligned.rows.iter().filter(move |row| matches!(&row.subject, Subject::Trained { arm: name, .. } if name == arm))
}

/// The section; `None` if no arm was evaluated with its prompt and without any, or the untrained model was not.
pub fn part(material: &Material, aligned: &Aligned) -> Option<ReportPart> {
    let arms = internalized(material, aligned);
    if arms.is_empty() {
        return None;
    }
    let columns = columns(aligned);
    let gains = gains(aligned, &arms)?;
    let back = put_back(aligned, &arms)?;
    let pairs: Option<Vec<_>> = arms.iter().map(|arm| arm.paired(aligned)).collect();
    let shares = retained_shares(&pairs?, &columns);
    let rates: Vec<PromptlessRates> =
        arms.iter().map(|arm| PromptlessRates::new(material, aligned, &arm.name)).collect();

    let text = "An arm has internalized its prompt if it keeps its gain when it is evaluated without a prompt. A gain is the \
                difference from the untrained model under the same test prompt, or without a prompt if that was not evaluated. \
                The retained share is the gain without a prompt divided by the gain with the prompt of training. Its 95 % set is \
                Fieller's. It is an interval only if the gain with the prompt differs significantly from zero; otherwise it is \
                unbounded, because no value of the share, or only few, can be excluded.";
    let mut sentences: Vec<String> = Vec::new();
    for (((arm, shares), rates), back) in
        arms.iter().zip(&shares).zip(&rates).zip(back.comparisons.chunks(columns.len()))
    {
        sentences.extend(shares.last().map(|share| share_sentence(&arm.name, share)));
        sentences.extend(back.last().map(|it| back_sentence(&arm.name, it)));
        sentences.extend(rates.sentence(&arm.name, &arm.own.prompt));
    }
    let caption = "Differences of accuracy with the prompt of training from accuracy without a prompt, in percentage points. \
                   \"Lower\" means that putting the prompt back hurts.";
    let is_long = sentences.len() > LONG;
    let mut list = DocumentBlock::List(sentences);
    if is_long {
        list = DocumentBlock::Closed { title: "Arm by arm".to_owned(), blocks: vec![list] };
    }
    let mut blocks = vec![
        DocumentBlock::Text(text.to_owned()),
        DocumentBlock::Chart(forest(&arms, &gains, &columns).svg()),
        list,
        closed_if_long("The retained shares", share_table(&arms, &shares)),
        closed_if_long("All gains", gain_table(&arms, &gains, &columns)),
        closed_if_long("With the prompt compared with without", back.comparisons("prompt_back", caption)),
    ];
    if rates.iter().any(|it| it.trained.is_some()) {
        blocks.push(closed_if_long("Tags and behaviors without a prompt", rate_table(&arms, &rates)));
    }
    let data: Vec<_> = arms
        .iter()
        .zip(&shares)
        .zip(&rates)
        .map(|((arm, shares), rates)| {
            json!({ "arm": arm.name, "prompt": arm.own.prompt, "retained": shares, "without_prompt": rates })
        })
        .collect();
    let data = json!({ "arms": data, "gains": gains, "prompt_back": back.comparisons });
    Some(ReportPart::new("internalized", "Does the model still need the prompt?", blocks, data))
}

/// All gains, arm by arm in the order of its tests, each in all columns.
fn gains(aligned: &Aligned, arms: &[Internalized]) -> Option<Vec<ArmComparison>> {
    let mut all: Vec<StudyArm> = Vec::new();
    for test in arms.iter().flat_map(Internalized::tests) {
        all.push(test.arm.clone());
        match all.iter_mut().find(|it| it.name == test.base.name) {
            Some(base) => base.seeds.extend(test.base.seeds.clone()),
            None => all.push(test.base.clone()),
        }
    }
    let study = Study { benchmarks: aligned.benchmarks.clone(), arms: all };
    let pairs: Vec<(&StudyArm, &StudyArm)> =
        arms.iter().flat_map(Internalized::tests).map(|test| (&test.arm, &test.base)).collect();
    study::comparisons(&study, &pairs, RESAMPLES, SEED).ok()
}

/// Each arm with its prompt compared with itself without a prompt.
fn put_back(aligned: &Aligned, arms: &[Internalized]) -> Option<StudyOutcome> {
    let all = arms.iter().flat_map(|arm| [arm.own.arm.clone(), arm.without.arm.clone()]).collect();
    let study = Study { benchmarks: aligned.benchmarks.clone(), arms: all };
    let pairs: Vec<(&StudyArm, &StudyArm)> = arms.iter().map(|arm| (&arm.own.arm, &arm.without.arm)).collect();
    study::compare_pairs(&study, &pairs, SEED).ok()
}

/// The gains of one test in all columns, with the test and its arm.
fn by_test<'a>(
    arms: &'a [Internalized],
    gains: &'a [ArmComparison],
    columns: &[String],
) -> impl Iterator<Item = (&'a Internalized, &'a Tested, &'a [ArmComparison])> {
    let tests = arms.iter().flat_map(|arm| arm.tests().map(move |test| (arm, test)));
    tests.zip(gains.chunks(columns.len())).map(|((arm, test), gains)| (arm, test, gains))
}

/// The gains on the average, or on the only benchmark.
fn forest(arms: &[Internalized], gains: &[ArmComparison], columns: &[String]) -> Forest {
    let mut groups: Vec<ForestGroup> = Vec::new();
    for (arm, test, gains) in by_test(arms, gains, columns) {
        let Some(gain) = gains.last() else { continue };
        if groups.last().is_none_or(|group| group.heading != arm.name) {
            groups.push(ForestGroup { heading: arm.name.clone(), rows: Vec::new() });
        }
        if let Some(group) = groups.last_mut() {
            group.rows.push(gain.chart_row(arm.label(test), "seed"));
        }
    }
    let column = columns.last().map_or("", String::as_str);
    let legend = match groups.iter().flat_map(|group| &group.rows).any(|row| row.interval.is_some()) {
        true => "Thick bar: 95 % interval over training seeds. Thin line: over questions.",
        false => "Line: 95 % interval over questions.",
    };
    Forest {
        title: "Gains with and without the prompt".to_owned(),
        description: format!("Gain over the untrained model by arm and test prompt, {column}. {legend}"),
        axis: Axis::new("gain of accuracy", "points"),
        zero: true,
        legend: legend.to_owned(),
        groups,
    }
}

fn gain_table(arms: &[Internalized], gains: &[ArmComparison], columns: &[String]) -> Table {
    let heads = [
        "arm",
        "tested with",
        "difference from",
        "benchmark",
        "gain",
        "verdict",
        "over seeds, 95\u{a0}%",
        "over questions, 95\u{a0}%",
    ];
    let caption =
        "Gains from the untrained model, in percentage points. Holm's correction covers all gains of this table.";
    let mut table = Table::new("gains_by_prompt", caption, heads);
    for (arm, test, gains) in by_test(arms, gains, columns) {
        table.rows.extend(gains.iter().map(|it| {
            vec![
                arm.name.as_str().into(),
                test.prompt.as_str().into(),
                test.base.name.as_str().into(),
                it.column.as_str().into(),
                TableCell::number(it.seeds.difference, points(it.seeds.difference)),
                it.told("seed").into(),
                it.seeds.interval.map_or("one seed".into(), signed_ends).into(),
                signed_ends(it.questions).into(),
            ]
        }));
    }
    table
}

fn share_table(arms: &[Internalized], shares: &[Vec<RetainedShare>]) -> Table {
    let heads = [
        "arm",
        "benchmark",
        "gain with the prompt",
        "gain without a prompt",
        "retained share",
        "over seeds, 95\u{a0}%",
        "over questions, 95\u{a0}%",
        "gain with the prompt is",
    ];
    let caption = "The share of the gain that remains without a prompt, with the values that are not excluded for other training \
                   runs and for other questions. The last column has the sign of the gain with the prompt, if it is significant. \
                   If that gain is negative, the share is that of a loss.";
    let mut table = Table::new("retained", caption, heads);
    for (arm, shares) in arms.iter().zip(shares) {
        table.rows.extend(shares.iter().map(|it| {
            vec![
                arm.name.as_str().into(),
                it.column.as_str().into(),
                TableCell::number(it.gain_with, points(it.gain_with)),
                TableCell::number(it.gain_without, points(it.gain_without)),
                TableCell::maybe(it.share, whole_percent),
                it.seeds.map_or("one seed".into(), values).into(),
                values(it.questions).into(),
                sign(it).into(),
            ]
        }));
    }
    table
}

/// The sign of the gain with the prompt, over seeds or, for a single seed, over questions.
fn sign(share: &RetainedShare) -> &'static str {
    match share.seeds.unwrap_or(share.questions).is_bounded() {
        true if share.gain_with > 0.0 => "positive",
        true => "negative",
        false => "not significant",
    }
}

/// A share in whole percent.
fn whole_percent(share: f64) -> String {
    let text = format!("{:.0}\u{a0}%", 100.0 * share.abs());
    if share < 0.0 && !text.starts_with("0\u{a0}") { format!("−{text}") } else { text }
}

/// The values of a set of shares.
fn values(set: RatioSet) -> String {
    let [low, high] = match set {
        RatioSet::Within(Interval { low, high }) | RatioSet::Outside(Interval { low, high }) => {
            [low, high].map(whole_percent)
        }
        RatioSet::Any => return "any value".to_owned(),
    };
    match set {
        RatioSet::Outside(_) => format!("at most {low} or at least {high}"),
        RatioSet::Within(it) if it.low.is_infinite() => format!("at most {high}"),
        RatioSet::Within(it) if it.high.is_infinite() => format!("at least {low}"),
        _ => format!("{low} to {high}"),
    }
}

fn share_sentence(arm: &str, it: &RetainedShare) -> String {
    let share = it.share.map_or("not defined".to_owned(), whole_percent);
    let over_seeds = it.seeds.map_or("unknown, because there is one seed".to_owned(), values);
    format!(
        "{}: gain {} points with its prompt, {} without a prompt; retained share {share} (95 % over seeds: {over_seeds}; over \
         questions: {}).",
        quoted(arm),
        points(it.gain_with),
        points(it.gain_without),
        values(it.questions)
    )
}

fn back_sentence(arm: &str, it: &ArmComparison) -> String {
    let difference = points(it.seeds.difference);
    let what = format!("{}: accuracy with its prompt, compared with that without a prompt", quoted(arm));
    match it.corrected.filter(|_| it.decided()) {
        Some(interval) if it.seeds.difference < 0.0 => {
            format!("{what}: lower by {difference} points {}, so putting the prompt back hurts.", signed_ends(interval))
        }
        Some(interval) => format!("{what}: higher by {difference} points {}.", signed_ends(interval)),
        None => format!("{what}: {difference} points, {}.", it.told("seed")),
    }
}

/// A share of completions with its 95 % interval over questions.
#[derive(Clone, Copy, Serialize)]
struct FormatRate {
    value: f64,
    interval: Interval,
}

/// Completions without a prompt, of an arm and of the untrained model.
#[derive(Serialize)]
struct PromptlessRates {
    /// Completions with the tags that the arm's prompt asks for, or one of its prompts; `None` if none asks for any.
    format: Option<FormatRate>,
    untrained_format: Option<FormatRate>,
    trained: Option<Summary>,
    untrained: Option<Summary>,
}

impl PromptlessRates {
    fn new(material: &Material, aligned: &Aligned, arm: &str) -> Self {
        let mixture = material.runs.iter().find(|run| run.arm == arm).and_then(|run| run.mixture.as_ref());
        let benches = |rows: Vec<&AccuracyRow>| -> Vec<&ReportedBenchmark> {
            let of = |row: &AccuracyRow| {
                let evaluation = &material.evaluations[row.evaluation];
                aligned.benchmarks.iter().map(move |it| &evaluation.benches[&it.name])
            };
            rows.into_iter().filter(|row| row.prompt == NONE).flat_map(of).collect()
        };
        let trained = benches(rows_of(aligned, arm).collect());
        let untrained = benches(aligned.untrained());
        Self {
            format: format_rate(mixture, &trained),
            untrained_format: format_rate(mixture, &untrained),
            trained: summary(&trained),
            untrained: summary(&untrained),
        }
    }

    fn sentence(&self, arm: &str, prompt: &str) -> Option<String> {
        let (trained, untrained) = (self.format?, self.untrained_format?);
        let shown = |rate: FormatRate| format!("{} % {}", percent(rate.value), ends(rate.interval));
        Some(format!(
            "{}: without a prompt, {} of completions have the tags of {}; of the untrained model, {}.",
            quoted(arm),
            shown(trained),
            quoted(prompt),
            shown(untrained)
        ))
    }
}

fn summary(benches: &[&ReportedBenchmark]) -> Option<Summary> {
    let counted: Vec<ResponseCounts> = benches.iter().flat_map(|bench| bench.behaviors.iter().cloned()).collect();
    (!counted.is_empty()).then(|| Summary::new(&counted, SEED))
}

/// The share of completions with the format of one of the prompts. Without a prompt, no tag is prefilled.
fn format_rate(mixture: Option<&Mixture>, benches: &[&ReportedBenchmark]) -> Option<FormatRate> {
    let format = |tags| FormatReward { tags };
    let formats: Vec<FormatReward> =
        mixture?.prompts().filter_map(|prompt| Tags::of(prompt).ok()?.map(format)).collect();
    if formats.is_empty() {
        return None;
    }
    let mut questions: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for bench in benches {
        for (response, tags) in bench.behaviors.iter().zip(&bench.tags) {
            let has_format = f64::from(u8::from(formats.iter().any(|it| it.flaw(tags, false).is_none())));
            questions.entry(&response.question).or_default().push(has_format);
        }
    }
    let samples = questions.values().map(Vec::len).max()?;
    let means: Vec<f64> = questions.values().map(|it| mean(it)).collect();
    Some(FormatRate { value: mean(&means), interval: accuracy_interval(&means, samples, SEED) })
}

/// Rates without a prompt, in percent, each with that of the untrained model.
fn rate_table(arms: &[Internalized], rates: &[PromptlessRates]) -> Table {
    let rules = Classifier::built_in();
    let head = |class: Class| match rules.is_doubtful(class) {
        true => format!("{}\u{a0}*", class.title()),
        false => class.title().to_owned(),
    };
    let heads = ["arm", "completions", "tags"].map(String::from).into_iter().chain(Class::ALL.into_iter().map(head));
    let caption = "Completions without a prompt that have the tags of the arm's prompt, or a behavior, in percent with a 95 % interval \
                   over questions; then the rate of the untrained model without a prompt. An asterisk marks a behavior on which the \
                   rules agree too rarely with the labels of a language model.";
    let mut table = Table::new("without_prompt", caption, heads);
    let cell = |value: f64, Interval { low, high }: Interval, untrained: Option<f64>| {
        let [rate, low, high] = [value, low, high].map(|it| 100.0 * it);
        let untrained = untrained.map_or(String::new(), |it| format!("; untrained {:.0}", 100.0 * it));
        TableCell::number(value, format!("{rate:.0} [{low:.0}, {high:.0}]{untrained}"))
    };
    for (arm, rates) in arms.iter().zip(rates) {
        let Some(trained) = &rates.trained else { continue };
        let mut row = vec![
            TableCell::from(arm.name.as_str()),
            TableCell::number(trained.responses as f64, trained.responses.to_string()),
        ];
        row.push(match rates.format {
            Some(rate) => cell(rate.value, rate.interval, rates.untrained_format.map(|it| it.value)),
            None => "–".into(),
        });
        for (at, it) in trained.classes.iter().enumerate() {
            let untrained = rates.untrained.as_ref().map(|it| it.classes[at].presence.value);
            row.push(cell(it.presence.value, it.presence.interval, untrained));
        }
        table.rows.push(row);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_shares_in_words() {
        let within = |low, high| values(RatioSet::Within(Interval { low, high }));
        assert_eq!(within(0.404, 1.25), "40\u{a0}% to 125\u{a0}%");
        assert_eq!(within(-0.25, -0.001), "−25\u{a0}% to 0\u{a0}%");
        assert_eq!(within(f64::NEG_INFINITY, 0.5), "at most 50\u{a0}%");
        assert_eq!(within(0.5, f64::INFINITY), "at least 50\u{a0}%");
        let outside = values(RatioSet::Outside(Interval { low: -0.2, high: 3.1 }));
        assert_eq!(outside, "at most −20\u{a0}% or at least 310\u{a0}%");
        assert_eq!(values(RatioSet::Any), "any value");
    }
}
