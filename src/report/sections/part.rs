//! The parts of sections: a section with its figures, and the rows that tables and charts share.

use serde_json::Value;

use crate::report::aligned::{AccuracyRow, Aligned, Subject};
use crate::report::chart::{Forest, ForestGroup};
use crate::report::document::{DocumentBlock, Section, Table};
use crate::report::load::{Material, ReportedBenchmark, ReportedRun};
use crate::report::study::AVERAGE;

/// The seed of every bootstrap. It is fixed, so that the same data gives the same intervals.
pub(super) const SEED: u64 = 0;

/// A longer table or list is closed, if it only has details.
pub(super) const LONG: usize = 6;

/// A section, and its figures for report.json.
pub(super) struct ReportPart {
    pub(super) section: Section,
    pub(super) data: Value,
}

impl ReportPart {
    pub(super) fn new(id: &'static str, title: &'static str, blocks: Vec<DocumentBlock>, data: Value) -> Self {
        Self { section: Section { id, title, blocks }, data }
    }
}

/// The arms in the order of the runs, each with its runs.
pub(super) fn arms(material: &Material) -> Vec<(String, Vec<&ReportedRun>)> {
    let mut arms: Vec<(String, Vec<&ReportedRun>)> = Vec::new();
    for run in &material.runs {
        match arms.iter_mut().find(|(name, _)| *name == run.arm) {
            Some((_, runs)) => runs.push(run),
            None => arms.push((run.arm.clone(), vec![run])),
        }
    }
    arms
}

/// The subject of a table's row: the untrained model under a prompt, or an arm under its training prompt, with a row per seed.
pub(super) struct RowGroup<'a> {
    pub(super) label: String,
    pub(super) rows: Vec<&'a AccuracyRow>,
}

/// The untrained model under every prompt, then the arms under their training prompts.
pub(super) fn groups<'a>(material: &Material, aligned: &'a Aligned) -> Vec<RowGroup<'a>> {
    let untrained = aligned
        .untrained()
        .into_iter()
        .map(|row| RowGroup { label: format!("untrained, {}", row.prompt), rows: vec![row] });
    let trained = aligned.arms(material).into_iter().map(|arm| {
        let of =
            |row: &&AccuracyRow| row.own && matches!(&row.subject, Subject::Trained { arm: name, .. } if *name == arm);
        RowGroup { rows: aligned.rows.iter().filter(of).collect(), label: arm }
    });
    untrained.chain(trained).filter(|group| !group.rows.is_empty()).collect()
}

impl RowGroup<'_> {
    /// Its evaluations on one benchmark.
    pub(super) fn benches<'m>(&self, material: &'m Material, name: &str) -> Vec<&'m ReportedBenchmark> {
        self.rows.iter().map(|row| &material.evaluations[row.evaluation].benches[name]).collect()
    }
}

/// The column headings: benchmarks, and their average if there are several.
pub(super) fn columns(aligned: &Aligned) -> Vec<String> {
    let mut columns: Vec<String> = aligned.benchmarks.iter().map(|benchmark| benchmark.name.clone()).collect();
    if columns.len() > 1 {
        columns.push(AVERAGE.to_owned());
    }
    columns
}

/// A table of details, such as the figures of a chart above it.
pub(super) fn closed_if_long(title: &str, table: Table) -> DocumentBlock {
    if table.rows.len() <= LONG {
        return DocumentBlock::Table(table);
    }
    DocumentBlock::Closed { title: title.to_owned(), blocks: vec![DocumentBlock::Table(table)] }
}

/// Charts of the average over the benchmarks, then those of the benchmarks, which are closed. Without an average, all are open.
pub(super) fn charts(forests: Vec<Forest>) -> Vec<DocumentBlock> {
    let (mut open, mut closed) = (Vec::new(), Vec::new());
    for mut forest in forests {
        let average = forest.groups.pop_if(|last| last.heading == AVERAGE);
        if let Some(average) = average {
            open.push(DocumentBlock::Chart(Forest { groups: vec![average], ..forest.clone() }.svg()));
            let of_benchmark = |group: &_| Forest { groups: vec![ForestGroup::clone(group)], ..forest.clone() }.svg();
            closed.extend(forest.groups.iter().map(of_benchmark).map(DocumentBlock::Chart));
        } else {
            open.push(DocumentBlock::Chart(forest.svg()));
        }
    }
    if !closed.is_empty() {
        open.push(DocumentBlock::Closed { title: "The same for each benchmark".to_owned(), blocks: closed });
    }
    open
}
