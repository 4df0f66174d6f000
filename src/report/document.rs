//! A report as a list of sections, which is then written as a page, Markdown and CSV.
//!
//! Sentences may contain `` `quoted` `` names, see [`super::load::quoted`]; cells and captions are plain text. The output formats
//! escape them.

use super::load::ReportedSample;

/// Title, notes and sections.
pub struct Document {
    pub title: String,
    /// Important sentences, shown at the top.
    pub notes: Vec<String>,
    pub sections: Vec<Section>,
}

pub struct Section {
    /// The anchor for links within the page.
    pub id: &'static str,
    pub title: &'static str,
    pub blocks: Vec<DocumentBlock>,
}

pub enum DocumentBlock {
    /// A paragraph.
    Text(String),
    List(Vec<String>),
    Table(Table),
    /// A chart as SVG.
    Chart(String),
    /// Small charts that share their series, whose names are above the charts.
    Panels {
        names: Vec<String>,
        panels: Vec<String>,
    },
    /// Shell commands.
    Commands(Vec<String>),
    Completions(Vec<ShownQuestion>),
    /// Details. The page shows them when the reader opens them.
    Closed {
        title: String,
        blocks: Vec<DocumentBlock>,
    },
}

/// A question and its completions.
pub struct ShownQuestion {
    pub benchmark: String,
    pub id: String,
    pub text: String,
    pub gold: String,
    pub answers: Vec<ShownCompletion>,
    /// For each arm with completions from before and after training, its name and how they differ.
    pub changes: Vec<(String, QuestionChange)>,
}

/// Whether a question is solved before and after training, in the order in which questions are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum QuestionChange {
    Learned,
    Forgotten,
    Never,
    Always,
}

impl QuestionChange {
    pub fn new(before: bool, after: bool) -> Self {
        match (before, after) {
            (false, true) => Self::Learned,
            (true, false) => Self::Forgotten,
            (false, false) => Self::Never,
            (true, true) => Self::Always,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Learned => "learned",
            Self::Forgotten => "forgotten",
            Self::Never => "never",
            Self::Always => "always",
        }
    }
}

/// A completion and the model that generated it.
pub struct ShownCompletion {
    pub by: String,
    pub sample: ReportedSample,
}

/// Rows with column headings.
pub struct Table {
    /// The table's name on the page.
    pub name: &'static str,
    pub caption: String,
    pub heads: Vec<String>,
    pub rows: Vec<Vec<TableCell>>,
}

/// The text of a cell, and its numeric value.
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

    /// A number that may be missing.
    pub fn maybe(value: Option<f64>, text: impl Fn(f64) -> String) -> Self {
        Self { text: value.map_or("–".to_owned(), text), value }
    }
}

impl<T: Into<String>> From<T> for TableCell {
    fn from(text: T) -> Self {
        Self { text: text.into(), value: None }
    }
}

/// A share in percent, without the percent sign: `35.2`.
pub fn percent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}
