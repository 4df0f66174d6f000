//! Behaviors in completions: the share of each, and its change from the untrained model.

use serde_json::json;

use super::{ReportPart, RowGroup, SEED, closed_if_long, groups};
use crate::behavior::summary::{ResponseCounts, Summary};
use crate::behavior::{Class, Classifier};
use crate::report::aligned::Aligned;
use crate::report::chart::{HeatMap, Scale, behavior_changes};
use crate::report::document::{DocumentBlock, Table, TableCell};
use crate::report::load::Material;

/// The row with which the others are compared.
const BASE: &str = "untrained, none";

pub fn part(material: &Material, aligned: &Aligned) -> Option<ReportPart> {
    let mut rows: Vec<(String, Summary)> = groups(material, aligned)
        .iter()
        .filter_map(|group| Some((group.label.clone(), summary(material, aligned, group)?)))
        .collect();
    if rows.is_empty() {
        return None;
    }
    rows.sort_by_key(|(name, _)| name != BASE);
    let rules = Classifier::built_in();
    let head = |class: Class| match rules.is_doubtful(class) {
        true => format!("{}\u{a0}*", class.title()),
        false => class.title().to_owned(),
    };
    let heads: Vec<String> = Class::ALL.into_iter().map(head).collect();
    let base = rows.iter().find(|(name, _)| name == BASE).map(|(_, summary)| summary);
    let mut text = format!(
        "Found by rules (version {}) in the completions of these evaluations, each arm under its training prompt. Tags that a prompt \
         asks for are not counted as behaviors.",
        rules.version
    );
    if Class::ALL.into_iter().any(|class| rules.is_doubtful(class)) {
        text +=
            " An asterisk marks a behavior on which the rules agree too rarely with the labels of a language model.";
    }
    let chart = match base {
        Some(_) if rows.len() > 1 => behavior_changes(&rows, &heads),
        _ => shares(&rows, &heads).svg(),
    };
    let table = closed_if_long("The same with intervals", table(&rows, &heads, base));
    let blocks = vec![DocumentBlock::Text(text), DocumentBlock::Chart(chart), table];
    let data = rows.iter().map(|(name, summary)| json!({ "model": name, "summary": summary })).collect::<Vec<_>>();
    let data = json!({ "rules": rules.version, "change_from": base.map(|_| BASE), "models": data });
    Some(ReportPart::new("behaviors", "Behaviors", blocks, data))
}

fn summary(material: &Material, aligned: &Aligned, group: &RowGroup) -> Option<Summary> {
    let counted: Vec<ResponseCounts> = aligned
        .benchmarks
        .iter()
        .flat_map(|it| group.benches(material, &it.name))
        .flat_map(|bench| bench.behaviors.iter().cloned())
        .collect();
    (!counted.is_empty()).then(|| Summary::new(&counted, SEED))
}

fn shares(rows: &[(String, Summary)], heads: &[String]) -> HeatMap {
    let values = |summary: &Summary| summary.classes.iter().map(|it| Some(100.0 * it.presence.value)).collect();
    HeatMap {
        title: "Completions with each behavior".to_owned(),
        description: "Share of completions with each behavior, in percent, by model.".to_owned(),
        legend: "percent of completions".to_owned(),
        rows: rows.iter().map(|(name, _)| name.clone()).collect(),
        columns: heads.to_vec(),
        values: rows.iter().map(|(_, summary)| values(summary)).collect(),
        decimals: 0,
        scale: Scale::Sequential,
    }
}

fn table(rows: &[(String, Summary)], heads: &[String], base: Option<&Summary>) -> Table {
    let caption = "Percentage of completions with each behavior, with its 95 % interval over questions. In parentheses: the change from the \
                   untrained model without a prompt, in percentage points, if that model was evaluated.";
    let heads = ["model", "completions"].map(String::from).into_iter().chain(heads.iter().cloned());
    let mut table = Table::new("behaviors", caption, heads);
    for (name, summary) in rows {
        let mut row = vec![
            TableCell::from(name.as_str()),
            TableCell::number(summary.responses as f64, summary.responses.to_string()),
        ];
        for (at, it) in summary.classes.iter().enumerate() {
            let [value, low, high] =
                [it.presence.value, it.presence.interval.low, it.presence.interval.high].map(|it| 100.0 * it);
            let change = base.filter(|_| name != BASE).map(|base| value - 100.0 * base.classes[at].presence.value);
            let change = change.map_or(String::new(), |change| format!(" ({})", signed(change)));
            row.push(TableCell::number(it.presence.value, format!("{value:.0} [{low:.0}, {high:.0}]{change}")));
        }
        table.rows.push(row);
    }
    table
}

/// Percentage points, rounded, with a sign.
fn signed(points: f64) -> String {
    match points.round() as i64 {
        0 => "±0".to_owned(),
        more if more > 0 => format!("+{more}"),
        less => format!("−{}", -less),
    }
}
