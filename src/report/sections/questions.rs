//! The questions that each model solves.

use serde_json::json;

use super::{ReportPart, RowGroup, closed_if_long, groups};
use crate::report::aligned::Aligned;
use crate::report::chart::Mosaic;
use crate::report::document::{DocumentBlock, Table, TableCell};
use crate::report::load::Material;
use crate::stats::mean;

/// A question counts as solved if more than this share of its completions is correct.
const SOLVED: f64 = 0.5;

pub fn part(material: &Material, aligned: &Aligned) -> Option<ReportPart> {
    let groups = groups(material, aligned);
    if groups.is_empty() {
        return None;
    }
    let mut blocks = vec![DocumentBlock::Text(
        "Each column is a question, with the easiest on the left. A question counts as solved if more than half of its completions, \
         over all seeds, are correct."
            .to_owned(),
    )];
    let (mut counted, mut charts, mut data) = (Vec::new(), Vec::new(), Vec::new());
    for at in 0..aligned.benchmarks.len() {
        let shares: Vec<Vec<f64>> = groups.iter().map(|group| shares(group, at)).collect();
        let name = &aligned.benchmarks[at].name;
        charts.push(DocumentBlock::Chart(mosaic(name, &groups, &aligned.ids[at], &shares).svg()));
        counted.push(counts(&shares));
        let models = groups.iter().zip(&shares).map(|(group, shares)| json!({ "model": group.label, "right": shares }));
        data.push(json!({ "benchmark": name, "ids": aligned.ids[at], "models": models.collect::<Vec<_>>() }));
    }
    // Two stand side by side.
    let others = charts.split_off(charts.len().min(2));
    blocks.extend(charts);
    if !others.is_empty() {
        blocks.push(DocumentBlock::Closed { title: "The same for the other benchmarks".to_owned(), blocks: others });
    }
    let heads = ["solved by"].into_iter().chain(aligned.benchmarks.iter().map(|it| it.name.as_str()));
    let mut table =
        Table::new("questions", "Number of questions that all models, no model or only one model solves.", heads);
    let models = groups.iter().map(|group| format!("only {}", group.label));
    for (at, model) in ["all models", "no model"].map(String::from).into_iter().chain(models).enumerate() {
        let cells = counted.iter().map(|counts| TableCell::number(counts[at] as f64, counts[at].to_string()));
        table.rows.push([model.into()].into_iter().chain(cells).collect());
    }
    blocks.push(closed_if_long("Questions that all models, no model or only one model solves", table));
    Some(ReportPart::new("questions", "Solved questions", blocks, json!(data)))
}

/// Share of correct completions of each question, over the seeds.
fn shares(group: &RowGroup, benchmark: usize) -> Vec<f64> {
    let questions = group.rows[0].right[benchmark].len();
    let of = |question: usize| mean(&group.rows.iter().map(|row| row.right[benchmark][question]).collect::<Vec<_>>());
    (0..questions).map(of).collect()
}

fn mosaic(name: &str, groups: &[RowGroup], ids: &[String], shares: &[Vec<f64>]) -> Mosaic {
    let ease: Vec<f64> = (0..ids.len()).map(|q| mean(&shares.iter().map(|row| row[q]).collect::<Vec<_>>())).collect();
    let mut order: Vec<usize> = (0..ids.len()).collect();
    order.sort_by(|&a, &b| ease[b].total_cmp(&ease[a]).then(a.cmp(&b)));
    let told = |&q: &usize| {
        let solved: Vec<&str> = groups
            .iter()
            .zip(shares)
            .filter(|(_, row)| row[q] > SOLVED)
            .map(|(group, _)| group.label.as_str())
            .collect();
        let by = if solved.is_empty() { "none".to_owned() } else { solved.join("; ") };
        format!("{}: solved by {by}", ids[q])
    };
    Mosaic {
        title: format!("{name}: {} questions", ids.len()),
        description:
            "One row per model, one column per question. A stronger color means that more completions are correct."
                .to_owned(),
        legend: "stronger color: more completions are correct; easiest question on the left".to_owned(),
        rows: groups.iter().map(|group| group.label.clone()).collect(),
        columns: order.iter().map(told).collect(),
        values: shares.iter().map(|row| order.iter().map(|&q| row[q]).collect()).collect(),
    }
}

/// The number of questions that are solved by all models, by none, and by each model alone.
fn counts(shares: &[Vec<f64>]) -> Vec<usize> {
    let solvers: Vec<usize> =
        (0..shares[0].len()).map(|q| shares.iter().filter(|row| row[q] > SOLVED).count()).collect();
    let count = |wanted: &dyn Fn(usize) -> bool| (0..solvers.len()).filter(|&q| wanted(q)).count();
    let ends = [count(&|q| solvers[q] == shares.len()), count(&|q| solvers[q] == 0)];
    ends.into_iter().chain(shares.iter().map(|share| count(&|q| solvers[q] == 1 && share[q] > SOLVED))).collect()
}
