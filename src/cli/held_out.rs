//! The held-out questions before and after training, as a table.

use comfy_table::{CellAlignment, Table, presets};

use crate::stats::{PairedComparison, Proportion};
use crate::train::evaluate::{HeldOutEvaluation, HeldOutScores};

/// A caption with one row per measure, at most 80 columns wide.
pub fn table(before: Option<&HeldOutEvaluation>, after: &HeldOutEvaluation) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["", "before", "after", "change"]);
    let mut rows = |kind: &str, before: Option<&HeldOutScores>, after: &HeldOutScores| {
        let change = |of: fn(&HeldOutScores, &HeldOutScores) -> Option<PairedComparison>| {
            before.and_then(|before| of(after, before)).map_or_else(String::new, |it| points(&it))
        };
        let mut row = |name: &str, value: &dyn Fn(&HeldOutScores) -> Option<String>, change: String| {
            let Some(after) = value(after) else { return };
            let before = before.and_then(value).unwrap_or_else(|| "-".to_owned());
            table.add_row([format!("{kind} {name}"), before, after, change]);
        };
        row("accuracy", &|it| Some(share(&it.accuracy)), change(HeldOutScores::accuracy_change));
        row("format", &|it| it.format.as_ref().map(share), change(HeldOutScores::format_change));
        for (name, after) in &after.by_prompt {
            let change = before.and_then(|it| after.accuracy_change(it.by_prompt.get(name)?));
            let accuracy = |it: &HeldOutScores| it.by_prompt.get(name).map(|it| share(&it.accuracy));
            row(&format!("accuracy, {name}"), &accuracy, change.map_or_else(String::new, |it| points(&it)));
        }
        row("length", &|it| Some(format!("{:.1} tokens", it.mean_length)), String::new());
        row("truncated", &|it| Some(format!("{:.1}", 100.0 * it.truncated)), String::new());
    };
    rows("sampled", before.map(|it| &it.sampled), &after.sampled);
    if let Some(greedy) = &after.greedy {
        rows("greedy", before.and_then(|it| it.greedy.as_ref()), greedy);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let n = after.sampled.accuracy.n;
    let lines = table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
    format!("{n} held-out questions, one completion each, in percent with 95 % intervals\n{lines}")
}

/// The sampled shares whose change is not significant.
pub fn undecided(before: &HeldOutEvaluation, after: &HeldOutEvaluation) -> Vec<String> {
    let (before, after) = (&before.sampled, &after.sampled);
    let changes = [("accuracy", after.accuracy_change(before)), ("format", after.format_change(before))];
    let chance = |(name, change): (&str, Option<PairedComparison>)| {
        let p = change?.p_value;
        (p > 0.05).then(|| format!("{name}: the change may be chance (exact McNemar test, p = {p:.2})"))
    };
    changes.into_iter().filter_map(chance).collect()
}

/// `38.1 [34.0, 42.4]`
fn share(it: &Proportion) -> String {
    let [value, low, high] = [it.value(), it.interval.low, it.interval.high].map(|it| 100.0 * it);
    format!("{value:.1} [{low:.1}, {high:.1}]")
}

/// `+55.8 [51.2, 60.0]`, in percentage points.
fn points(change: &PairedComparison) -> String {
    let [difference, low, high] = [change.difference, change.interval.low, change.interval.high].map(|it| 100.0 * it);
    format!("{difference:+.1} [{low:.1}, {high:.1}]")
}
