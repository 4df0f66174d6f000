//! A report as a list of sections, before it is a page, Markdown or CSV.
//!
//! Sentences may hold `` `quoted` `` names, see [`super::load::quoted`]; cells and captions are plain text. Whoever writes them out
//! escapes them.

use super::load::ReportedSample;

/// Title, sections, and what stands above all.
pub struct Document {
    pub title: String,
    /// Sentences that must not be overlooked.
    pub notes: Vec<String>,
    pub sections: Vec<Section>,
}

pub struct Section {
    /// For links within the page.
    pub id: &'static str,
    pub title: &'static str,
    pub blocks: Vec<DocumentBlock>,
}

pub enum DocumentBlock {
    /// A paragraph.
    Text(String),
    List(Vec<String>),
    Table(Table),
    /// A picture as SVG.
    Chart(String),
    /// Small pictures that share their series, which are named above them.
    Panels {
        names: Vec<String>,
        panels: Vec<String>,
    },
    /// Lines to be typed.
    Commands(Vec<String>),
    Completions(Vec<ShownQuestion>),
}

/// A question, and what was answered.
pub struct ShownQuestion {
    pub benchmark: String,
    pub id: String,
    pub text: String,
    pub gold: String,
    pub answers: Vec<ShownCompletion>,
}

/// A completion, and whose it is.
pub struct ShownCompletion {
    pub by: String,
    pub sample: ReportedSample,
}

/// Rows under heads.
pub struct Table {
    /// What tables.csv calls it.
    pub name: &'static str,
    pub caption: String,
    pub heads: Vec<String>,
    pub rows: Vec<Vec<TableCell>>,
}

/// What stands in a table, and the number behind it.
#[derive(Clone, Debug, PartialEq)]
pub struct TableCell {
    pub text: String,
    pub value: Option<f64>,
}

impl Table {
    pub fn new<H: Into<String>>(name: &'static str, caption: &str, heads: impl IntoIterator<Item = H>) -> Self {
        Self { name, caption: caption.to_owned(), heads: heads.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }
}

impl TableCell {
    pub fn number(value: f64, text: impl Into<String>) -> Self {
        Self { text: text.into(), value: value.is_finite().then_some(value) }
    }

    /// A number that there may not be.
    pub fn maybe(value: Option<f64>, text: impl Fn(f64) -> String) -> Self {
        Self { text: value.map_or("–".to_owned(), text), value }
    }
}

impl<T: Into<String>> From<T> for TableCell {
    fn from(text: T) -> Self {
        Self { text: text.into(), value: None }
    }
}

/// A share in percent, without its sign: `35.2`.
pub fn percent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}
