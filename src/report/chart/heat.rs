//! A matrix of values, each written into its cell.

use super::svg::{Anchor, LINE, Rect, Svg, TEXT, TITLE, fit, width_of};

/// What a cell's color means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Distance from zero: blue below, orange-red above.
    Diverging,
    /// Size: from zero to the largest value.
    Sequential,
}

/// Rows by columns; a missing value is an empty cell.
#[derive(Clone, Debug)]
pub struct HeatMap {
    pub title: String,
    pub description: String,
    /// What the numbers are, with their unit; printed below the map.
    pub legend: String,
    pub rows: Vec<String>,
    pub columns: Vec<String>,
    pub values: Vec<Vec<Option<f64>>>,
    pub decimals: usize,
    pub scale: Scale,
}

/// The highest opacity at which text on the cell is still readable.
const STRONGEST: f64 = 0.62;

impl HeatMap {
    /// The map as SVG, as wide as its columns need.
    ///
    /// # Panics
    /// If the values do not have one row per row and one value per column.
    pub fn svg(&self) -> String {
        self.svg_with(&|_, _, written| written.to_owned())
    }

    /// The same where `text` says what stands in a cell: it is given the row, the column, and the value as it would be written.
    ///
    /// # Panics
    /// As [`HeatMap::svg`].
    pub fn svg_with(&self, text: &dyn Fn(usize, usize, &str) -> String) -> String {
        assert_eq!(self.values.len(), self.rows.len(), "one row of values per row");
        let written = |row: usize, column: usize, value: f64| text(row, column, &self.written(value));
        let present = || self.values.iter().flatten().flatten().copied().filter(|value| value.is_finite());
        let labels = self.rows.iter().map(|row| width_of(row, TEXT)).fold(0.0, f64::max).min(200.0);
        let columns: Vec<(&str, &str)> = self.columns.iter().map(|column| halves(column)).collect();
        let head = |(above, below): &(&str, &str)| width_of(above, TEXT).max(width_of(below, TEXT));
        let heads = columns.iter().map(head).fold(0.0, f64::max).min(130.0);
        let cells =
            self.values.iter().enumerate().flat_map(|(r, row)| row.iter().enumerate().map(move |(c, it)| (r, c, *it)));
        let cells = cells.filter_map(|(r, c, value)| Some((r, c, value.filter(|it| it.is_finite())?)));
        let texts = cells.map(|(r, c, value)| width_of(&written(r, c, value), TEXT)).fold(0.0, f64::max);
        let (across, down) = (f64::max(heads, texts).max(40.0) + 12.0, LINE + 11.0);
        let lines = if columns.iter().all(|(above, _)| above.is_empty()) { 1.0 } else { 2.0 };
        let (left, top) = (labels + 10.0, TITLE + 12.0 + lines * LINE + 6.0);
        let titled = width_of(&self.title, TITLE).max(width_of(&self.legend, TEXT));
        let width = f64::max(left + across * self.columns.len() as f64, titled.min(720.0));
        let bottom = top + down * self.rows.len() as f64;
        let largest = present().map(f64::abs).fold(0.0, f64::max);

        let mut svg = Svg::default();
        for (i, (above, below)) in columns.iter().enumerate() {
            let at = left + (i as f64 + 0.5) * across;
            svg.text("muted", (at, top - 6.0), Anchor::Middle, &fit(below, TEXT, across - 4.0));
            if !above.is_empty() {
                svg.text("muted", (at, top - 6.0 - LINE), Anchor::Middle, &fit(above, TEXT, across - 4.0));
            }
        }
        for (r, (row, values)) in self.rows.iter().zip(&self.values).enumerate() {
            assert_eq!(values.len(), self.columns.len(), "one value per column");
            let y = top + r as f64 * down;
            svg.text("label", (left - 8.0, y + down / 2.0 + 0.35 * TEXT), Anchor::End, &fit(row, TEXT, labels));
            for (c, value) in values.iter().enumerate() {
                let Some(value) = value.filter(|value| value.is_finite()) else { continue };
                let cell = Rect { x: left + c as f64 * across, y, width: across - 2.0, height: down - 2.0 };
                let strength = if largest > 0.0 { STRONGEST * value.abs() / largest } else { 0.0 };
                let color = usize::from(self.scale == Scale::Diverging && value > 0.0);
                svg.cell(color, cell, strength, &format!("{row}, {}: {}", self.columns[c], written(r, c, value)));
                let middle = (cell.x + cell.width / 2.0, cell.y + cell.height / 2.0 + 0.35 * TEXT);
                svg.text("value number", middle, Anchor::Middle, &written(r, c, value));
            }
        }
        svg.text("muted", (0.0, bottom + LINE + 2.0), Anchor::Start, &fit(&self.legend, TEXT, width));
        svg.finish(width, bottom + LINE + 10.0, &self.title, &self.description)
    }

    /// A value as printed in its cell: differences have a sign.
    fn written(&self, value: f64) -> String {
        let decimals = self.decimals;
        let text = format!("{:.decimals$}", value.abs());
        let zero = text.chars().all(|c| c == '0' || c == '.');
        match (self.scale, value < 0.0) {
            _ if zero => text,
            (_, true) => format!("−{text}"),
            (Scale::Diverging, false) => format!("+{text}"),
            (Scale::Sequential, false) => text,
        }
    }
}

/// A heading on two lines, split at the space that makes them most equal in length; without a space the upper line is empty.
fn halves(head: &str) -> (&str, &str) {
    let spaces = head.match_indices(' ').map(|(at, _)| at);
    match spaces.min_by_key(|at| (2 * at + 1).abs_diff(head.len())) {
        Some(at) => (&head[..at], &head[at + 1..]),
        None => ("", head),
    }
}
