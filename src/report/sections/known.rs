//! The first sentences of a summary: what was measured, before what can be concluded from it.

use super::{SEED, columns, held_out};
use crate::report::aligned::Aligned;
use crate::report::document::percent;
use crate::report::load::{Material, quoted};
use crate::report::study::{self, AVERAGE, StudyArm, StudyCell, StudyOutcome, text::ends};

/// A sentence for each arm: its accuracies on the benchmarks, and before and after training on the held-out questions.
pub fn sentences(material: &Material, aligned: &Aligned, held_out: Option<&StudyOutcome>) -> Vec<String> {
    let mut said = Vec::new();
    for row in aligned.untrained() {
        let arm = StudyArm { name: row.prompt.clone(), seeds: [(0, row.right.clone())].into() };
        let cells = study::cells(&arm, &aligned.benchmarks, SEED);
        said.push(format!(
            "The untrained model with the prompt {}: {}.",
            quoted(&row.prompt),
            accuracies(aligned, &cells)
        ));
    }
    for arm in aligned.study(material).arms {
        let cells = study::cells(&arm, &aligned.benchmarks, SEED);
        said.push(format!(
            "Trained, {}{}: {}.",
            quoted(&arm.name),
            seeds(arm.seeds.len()),
            accuracies(aligned, &cells)
        ));
    }
    if let Some(outcome) = held_out {
        said.extend(held_out::known(material, outcome));
    }
    said
}

fn seeds(count: usize) -> String {
    format!(" ({count} seed{})", if count == 1 { "" } else { "s" })
}

fn accuracies(aligned: &Aligned, cells: &[StudyCell]) -> String {
    let one = |(column, cell): (String, &StudyCell)| {
        let place = if column == AVERAGE { "on average".to_owned() } else { format!("on {}", quoted(&column)) };
        format!("{} % {} {place}", percent(cell.accuracy), ends(cell.interval))
    };
    let list: Vec<String> = columns(aligned).into_iter().zip(cells).map(one).collect();
    format!("accuracy {}", list.join(", "))
}
