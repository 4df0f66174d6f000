//! Solved questions: a row for each model, a column for each question, darker if more completions are right.

use std::fmt::Write;

use super::svg::{Anchor, LINE, Rect, Svg, TEXT, TITLE, fit, num, width_of};

/// Shades of a cell; nothing is drawn for 0.
const SHADES: usize = 4;

/// Shares by row and column.
#[derive(Clone, Debug)]
pub struct Mosaic {
    pub title: String,
    pub description: String,
    /// What the color means; printed below the chart.
    pub legend: String,
    pub rows: Vec<String>,
    /// The tooltip of each column.
    pub columns: Vec<String>,
    /// From 0 to 1, a row for each row.
    pub values: Vec<Vec<f64>>,
}

impl Mosaic {
    /// The chart as SVG, 560 pixels wide.
    ///
    /// # Panics
    /// If the values do not have one row per row and one value per column.
    pub fn svg(&self) -> String {
        assert_eq!(self.values.len(), self.rows.len(), "one row of values per row");
        let width = 560.0;
        let labels = self.rows.iter().map(|row| width_of(row, TEXT)).fold(0.0, f64::max).min(200.0);
        let (left, top, down) = (labels + 10.0, TITLE + 14.0, LINE);
        let across = ((width - left) / self.columns.len().max(1) as f64).min(14.0);
        let bottom = top + down * self.rows.len() as f64;
        // Thin columns touch each other, because a gap would hide their color.
        let gap = if across > 4.0 { 1.0 } else { 0.0 };

        let mut svg = Svg::default();
        for (r, (row, values)) in self.rows.iter().zip(&self.values).enumerate() {
            assert_eq!(values.len(), self.columns.len(), "one value per column");
            let y = top + r as f64 * down;
            svg.text("label", (left - 8.0, y + down / 2.0 + 0.35 * TEXT), Anchor::End, &fit(row, TEXT, labels));
            svg.rule("rule", (left, y + down - 1.0), (left + across * values.len() as f64, y + down - 1.0));
            for shade in 1..=SHADES {
                let mut d = String::new();
                for c in (0..values.len()).filter(|&c| (values[c] * SHADES as f64).ceil() as usize == shade) {
                    let x = left + c as f64 * across;
                    let (from, to, y, low) = (num(x), num(x + across - gap), num(y), num(y + down - 2.0));
                    write!(d, "M{from} {y}L{to} {y}L{to} {low}L{from} {low}Z")
                        .expect("writing to a string does not fail");
                }
                if !d.is_empty() {
                    svg.area(0, shade as f64 / SHADES as f64, &d);
                }
            }
        }
        for (c, column) in self.columns.iter().enumerate() {
            let at = Rect { x: left + c as f64 * across, y: top, width: across, height: bottom - top };
            svg.cell(0, at, 0.0, column);
        }
        svg.text("muted", (0.0, bottom + LINE + 4.0), Anchor::Start, &fit(&self.legend, TEXT, width));
        svg.finish(width, bottom + LINE + 12.0, &self.title, &self.description)
    }
}
