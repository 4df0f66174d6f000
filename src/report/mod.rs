//! The report of a study: findings that its statistics support, tables and charts.
//!
//! [`load`] reads runs and evaluations, [`aligned`] aligns those that can be compared, [`study`] compares the arms, [`paper`]
//! analyzes published figures, and [`chart`] draws. [`sections`] puts everything into a [`document`], and
//! [`html`], [`markdown`] and [`csv`] write it; [`card`] writes the model card of a run. The same input gives the same bytes: no times and no absolute paths.

pub mod aligned;
pub mod card;
pub mod chart;
pub mod compare;
pub mod csv;
pub mod document;
pub mod html;
pub mod load;
pub mod markdown;
pub mod paper;
pub mod sections;
pub mod study;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::disk::{atomic, files};
use csv::Observation;
use document::Document;

/// A report before it is written.
pub struct Report {
    pub document: Document,
    /// The findings.
    pub summary: Vec<String>,
    pub warnings: Vec<String>,
    /// All figures, for programs.
    pub data: Value,
    pub observations: Vec<Observation>,
}

impl Report {
    /// Whether `folder` has a report of other runs and evaluations.
    ///
    /// # Errors
    /// `folder` has a `report.json` that cannot be read.
    pub fn replaces_another(&self, folder: &Path) -> Result<bool> {
        let path = folder.join("report.json");
        if !path.is_file() {
            return Ok(false);
        }
        let text = fs::read(&path).with_context(|| format!("read `{}`", path.display()))?;
        let old: Value = serde_json::from_slice(&text).with_context(|| format!("parse `{}`", path.display()))?;
        Ok(old["input"] != self.data["input"])
    }

    /// Writes `index.html`, `report.md`, `tables.csv` and `report.json`.
    pub fn write(&self, folder: &Path) -> Result<()> {
        files::create_dir_all(folder).map_err(|error| atomic::write_error(folder, &error))?;
        let mut data = serde_json::to_string_pretty(&self.data).context("encode the figures")?;
        data.push('\n');
        let files = [
            ("index.html", html::render(&self.document)?),
            ("report.md", markdown::render(&self.document)),
            ("tables.csv", csv::render(&self.observations)?),
            ("report.json", data),
        ];
        for (name, text) in files {
            atomic::write(&folder.join(name), text.as_bytes())?;
        }
        Ok(())
    }
}
