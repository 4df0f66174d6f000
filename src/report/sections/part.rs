//! What sections are made of: a part with its figures, and the rows that tables and charts have in common.

use serde_json::Value;

use crate::report::aligned::{Aligned, Row, Subject};
use crate::report::document::{Block, Section};
use crate::report::load::{Bench, Material, Run};
use crate::report::study::AVERAGE;

/// The seed of every bootstrap: the same figures give the same intervals.
pub(super) const SEED: u64 = 0;

/// A section, and its figures.
pub(super) struct Part {
    pub(super) section: Section,
    pub(super) data: Value,
}

impl Part {
    pub(super) fn new(id: &'static str, title: &'static str, blocks: Vec<Block>, data: Value) -> Self {
        Self { section: Section { id, title, blocks }, data }
    }
}

/// The arms in the order of the runs, each with its runs.
pub(super) fn arms(material: &Material) -> Vec<(String, Vec<&Run>)> {
    let mut arms: Vec<(String, Vec<&Run>)> = Vec::new();
    for run in &material.runs {
        match arms.iter_mut().find(|(name, _)| *name == run.arm) {
            Some((_, runs)) => runs.push(run),
            None => arms.push((run.arm.clone(), vec![run])),
        }
    }
    arms
}

/// What a table's row is about: the untrained model under a prompt, or an arm under its own, with the rows of its seeds.
pub(super) struct Group<'a> {
    pub(super) label: String,
    pub(super) rows: Vec<&'a Row>,
}

/// The untrained model under every prompt, then the arms under their own.
pub(super) fn groups<'a>(material: &Material, aligned: &'a Aligned) -> Vec<Group<'a>> {
    let untrained = aligned
        .untrained()
        .into_iter()
        .map(|row| Group { label: format!("untrained, {}", row.prompt), rows: vec![row] });
    let trained = aligned.arms(material).into_iter().map(|arm| {
        let of = |row: &&Row| row.own && matches!(&row.subject, Subject::Trained { arm: name, .. } if *name == arm);
        Group { rows: aligned.rows.iter().filter(of).collect(), label: arm }
    });
    untrained.chain(trained).filter(|group| !group.rows.is_empty()).collect()
}

impl Group<'_> {
    /// Its evaluations on one benchmark.
    pub(super) fn benches<'m>(&self, material: &'m Material, name: &str) -> Vec<&'m Bench> {
        self.rows.iter().map(|row| &material.evaluations[row.evaluation].benches[name]).collect()
    }
}

/// The heads of benchmarks, and of their average where there are several.
pub(super) fn columns(aligned: &Aligned) -> Vec<String> {
    let mut columns: Vec<String> = aligned.benchmarks.iter().map(|benchmark| benchmark.name.clone()).collect();
    if columns.len() > 1 {
        columns.push(AVERAGE.to_owned());
    }
    columns
}
