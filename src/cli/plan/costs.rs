//! `rft plan --costs`: the cost of a step as tables.

use std::collections::BTreeSet;

use comfy_table::{CellAlignment, Table, presets};

use crate::plan::costs::{BANDWIDTH, Cost, FLOPS, Rule};

/// One line per step, then a table of each step, then the assumptions.
pub fn text(costs: &[Cost]) -> String {
    let mut text = format!(
        "estimated costs on an H200 (copy bandwidth {:.1} TB/s, matrix products {:.0} TFLOP/s); not measured\n\n{}\n",
        BANDWIDTH / 1e12,
        FLOPS / 1e12,
        summary(costs)
    );
    for cost in costs {
        text += &format!("\n{}\n{}\n", cost.name, items(cost));
    }
    let rules: BTreeSet<Rule> = costs.iter().flat_map(|cost| &cost.items).map(|item| item.rule).collect();
    let mut table = table(["", "assumption of the estimate"]);
    for rule in rules {
        table.add_row([name(rule), rule.assumption().to_owned()]);
    }
    text + &format!("\n{}\n", table.trim_fmt())
}

fn summary(costs: &[Cost]) -> String {
    let header = ["", "launches", "floor GB", "floor TFLOP", "floor ms", "estimate ms", "floor/estimate", "tokens/s"];
    let mut table = table(header);
    for cost in costs {
        table.add_row([
            cost.name.clone(),
            cost.launches.to_string(),
            format!("{:.1}", cost.floor_bytes / 1e9),
            format!("{:.2}", cost.floor_flops / 1e12),
            format!("{:.2}", 1e3 * cost.floor_seconds),
            format!("{:.2}", 1e3 * cost.seconds),
            format!("{:.1} %", 100.0 * cost.share),
            format!("{:.0}", cost.tokens_per_second),
        ]);
    }
    right(&mut table, 1..header.len());
    table.trim_fmt()
}

/// By kernel and matrix product, the slowest first.
fn items(cost: &Cost) -> String {
    let header = ["", "times", "GB", "TFLOP", "ms", "share", "estimated as"];
    let mut table = table(header);
    for item in &cost.items {
        table.add_row([
            item.name.clone(),
            item.times.to_string(),
            format!("{:.3}", item.bytes / 1e9),
            format!("{:.3}", item.flops / 1e12),
            format!("{:.3}", 1e3 * item.seconds),
            format!("{:.1} %", 100.0 * item.seconds / cost.seconds),
            name(item.rule),
        ]);
    }
    right(&mut table, 1..header.len() - 1);
    table.trim_fmt()
}

/// The rule's name, as in the JSON output.
fn name(rule: Rule) -> String {
    serde_json::to_value(rule).ok().and_then(|it| it.as_str().map(str::to_owned)).unwrap_or_default()
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    table
}

fn right(table: &mut Table, columns: std::ops::Range<usize>) {
    for index in columns {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}
