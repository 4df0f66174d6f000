//! Lengths of completions, and the share that was truncated.

use std::collections::BTreeMap;

use serde_json::json;

use super::{ReportPart, RowGroup, SEED, closed_if_long, columns, groups};
use crate::report::aligned::Aligned;
use crate::report::document::{Table, TableCell, percent};
use crate::report::load::Material;
use crate::stats::{Interval, RESAMPLES, bootstrap_mean, mean};

pub fn part(material: &Material, aligned: &Aligned) -> Option<ReportPart> {
    let groups = groups(material, aligned);
    if groups.is_empty() {
        return None;
    }
    let heads = ["model".to_owned()]
        .into_iter()
        .chain(columns(aligned))
        .chain(["truncated, %", "no answer, %"].map(String::from));
    let caption = "Mean number of tokens of a completion with its 95 % interval over questions, and the shares of completions that \
                   were truncated at the maximum length or have no answer.";
    let mut table = Table::new("lengths", caption, heads);
    let mut data = Vec::new();
    for group in &groups {
        let of_benchmarks = aligned.benchmarks.iter().zip(&aligned.ids);
        let lengths: Vec<(f64, Interval)> =
            of_benchmarks.map(|(it, ids)| length(material, group, &it.name, ids)).collect();
        let average = mean(&lengths.iter().map(|it| it.0).collect::<Vec<_>>());
        let mut row: Vec<TableCell> = vec![group.label.as_str().into()];
        row.extend(
            lengths
                .iter()
                .map(|(tokens, it)| TableCell::number(*tokens, format!("{tokens:.0} [{:.0}, {:.0}]", it.low, it.high))),
        );
        if lengths.len() > 1 {
            row.push(TableCell::number(average, format!("{average:.0}")));
        }
        let cut = share(material, group, aligned, |scores| scores.truncated);
        let none = share(material, group, aligned, |scores| scores.no_answer);
        row.extend([cut, none].map(|share| TableCell::number(share, percent(share))));
        table.rows.push(row);
        data.push(json!({
            "model": group.label,
            "tokens": lengths.iter().map(|it| it.0).collect::<Vec<_>>(),
            "intervals": lengths.iter().map(|it| it.1).collect::<Vec<_>>(),
            "truncated": cut,
            "no_answer": none,
        }));
    }
    let table = closed_if_long("Tokens per completion, truncated completions and those without an answer", table);
    Some(ReportPart::new("lengths", "Lengths", vec![table], json!(data)))
}

/// Mean over seeds and questions; a question's length is its mean over seeds.
fn length(material: &Material, group: &RowGroup, benchmark: &str, ids: &[String]) -> (f64, Interval) {
    let benches: Vec<BTreeMap<&String, f64>> = group
        .benches(material, benchmark)
        .into_iter()
        .map(|bench| bench.ids.iter().zip(bench.tokens.iter().copied()).collect())
        .collect();
    let tokens: Vec<f64> =
        ids.iter().map(|id| mean(&benches.iter().map(|tokens| tokens[id]).collect::<Vec<_>>())).collect();
    (mean(&tokens), bootstrap_mean(&tokens, RESAMPLES, 0.95, SEED))
}

/// Mean of a share over benchmarks and seeds.
pub fn share(
    material: &Material,
    group: &RowGroup,
    aligned: &Aligned,
    of: fn(&crate::eval::score::BenchmarkScores) -> f64,
) -> f64 {
    let of_benchmark =
        |name: &str| group.benches(material, name).into_iter().map(|bench| of(&bench.scores)).collect::<Vec<_>>();
    mean(&aligned.benchmarks.iter().flat_map(|it| of_benchmark(&it.name)).collect::<Vec<_>>())
}
