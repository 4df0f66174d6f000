//! The first sentences of a summary: what was measured, before what can be concluded from it.

use super::{SEED, held_out};
use crate::report::aligned::{AccuracyRow, Aligned};
use crate::report::document::percent;
use crate::report::load::{Material, quoted};
use crate::report::study::{self, StudyArm, StudyOutcome, text::ends};

/// A sentence for each arm: its accuracy on the benchmarks, and on the held-out questions, before and after training. Of several
/// benchmarks, it has only the average; the table of results has the rest.
pub fn sentences(material: &Material, aligned: &Aligned, held_out: Option<&StudyOutcome>) -> Vec<String> {
    let what = match aligned.benchmarks.as_slice() {
        [one] => format!("accuracy on {}", quoted(&one.name)),
        _ => "average accuracy".to_owned(),
    };
    let accuracy = |arm: &StudyArm| {
        let cells = study::cells(arm, &aligned.benchmarks, SEED);
        cells.last().map_or(String::new(), |cell| format!("{} % {}", percent(cell.accuracy), ends(cell.interval)))
    };
    let untrained =
        |row: &AccuracyRow| accuracy(&StudyArm { name: row.prompt.clone(), seeds: [(0, row.right.clone())].into() });
    let prompt = |arm: &StudyArm| {
        material.runs.iter().find(|run| run.arm == arm.name).map(|run| run.manifest.prompt.name.as_str())
    };
    let arms = aligned.study(material).arms;
    let mut said = Vec::new();
    for arm in &arms {
        let before = aligned.untrained().into_iter().find(|row| prompt(arm) == Some(&row.prompt));
        let before = before.map_or(String::new(), |row| format!("{} before training, ", untrained(row)));
        said.push(format!(
            "{}: {what} {before}{} after{} ({} seed{}).",
            quoted(&arm.name),
            accuracy(arm),
            if before.is_empty() { " training" } else { "" },
            arm.seeds.len(),
            if arm.seeds.len() == 1 { "" } else { "s" }
        ));
    }
    let alone = aligned.untrained().into_iter().filter(|row| !arms.iter().any(|arm| prompt(arm) == Some(&row.prompt)));
    said.extend(
        alone.map(|row| format!("The untrained model with {}: {what} {}.", quoted(&row.prompt), untrained(row))),
    );
    if let Some(outcome) = held_out {
        said.extend(held_out::known(material, outcome));
    }
    said
}
