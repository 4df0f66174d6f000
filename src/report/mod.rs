//! The report of a study: what its numbers allow to say, and the pictures.
//!
//! [`load`] reads runs and evaluations, [`aligned`] puts those that can be compared side by side, [`study`] compares the arms,
//! [`paper`] does what can be done with published figures, [`chart`] draws. [`sections`] makes a [`document`] of it all, and
//! [`html`], [`markdown`] and [`csv`] write it out. The same input gives the same bytes: no times, no paths of a machine.

pub mod aligned;
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

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::disk::atomic;
use document::Document;

/// A report before it is written.
pub struct Report {
    pub document: Document,
    /// What the statistics allow to say.
    pub summary: Vec<String>,
    pub warnings: Vec<String>,
    /// All figures, for programs.
    pub data: Value,
}

impl Report {
    /// Writes `index.html`, `report.md`, `tables.csv` and `report.json`.
    pub fn write(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).with_context(|| format!("make `{}`", folder.display()))?;
        let mut data = serde_json::to_string_pretty(&self.data).context("encode the figures")?;
        data.push('\n');
        let files = [
            ("index.html", html::render(&self.document)?),
            ("report.md", markdown::render(&self.document)),
            ("tables.csv", csv::render(&self.document)?),
            ("report.json", data),
        ];
        for (name, text) in files {
            atomic::write(&folder.join(name), text.as_bytes())?;
        }
        Ok(())
    }
}
