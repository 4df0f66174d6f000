//! Forest plot: each value is a row with a dot and its intervals, over the lines of an axis.

use super::axis::{Axis, LinearScale};
use super::svg::{Anchor, LINE, Svg, TEXT, TITLE, fit, num, width_of};
use crate::stats::Interval;

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub struct ForestRow {
    pub label: String,
    pub value: f64,
    /// The thick bar.
    pub interval: Option<Interval>,
    /// A thin line over the bar, for a second source of variation.
    pub second: Option<Interval>,
    /// The note at the right, such as a verdict.
    pub note: String,
}

/// Rows under one heading.
#[derive(Clone, Debug, PartialEq)]
pub struct ForestGroup {
    pub heading: String,
    pub rows: Vec<ForestRow>,
}

/// Values on one axis.
#[derive(Clone, Debug)]
pub struct Forest {
    pub title: String,
    pub description: String,
    pub axis: Axis,
    /// Whether the axis always includes zero, as it must for differences.
    pub zero: bool,
    /// What the lines mean; printed below the axis.
    pub legend: String,
    pub groups: Vec<ForestGroup>,
}

impl Forest {
    /// The chart as SVG, 560 pixels wide and as high as its rows need.
    pub fn svg(&self) -> String {
        let width = 560.0;
        let step = LINE + 5.0;
        let rows = || self.groups.iter().flat_map(|group| &group.rows);
        let widest = |text: fn(&ForestRow) -> &str, most: f64| {
            rows().map(|row| width_of(text(row), TEXT)).fold(0.0, f64::max).min(most)
        };
        let (labels, notes) = (widest(|row| &row.label, 180.0), widest(|row| &row.note, 200.0));
        let lines =
            self.groups.iter().map(|group| group.rows.len() + usize::from(!group.heading.is_empty())).sum::<usize>();
        let top = TITLE + 18.0;
        let bottom = top + lines as f64 * step + 4.0;

        let reach = rows().flat_map(|row| {
            let ends =
                [row.interval, row.second].into_iter().flatten().flat_map(|interval| [interval.low, interval.high]);
            ends.chain([row.value])
        });
        let reach = reach.filter(|value| value.is_finite());
        let start = if self.zero { (0.0, 0.0) } else { (f64::INFINITY, f64::NEG_INFINITY) };
        let (low, high) = reach.fold(start, |(low, high): (f64, f64), value| (low.min(value), high.max(value)));
        let (left, right) = (labels + 14.0, width - notes - 14.0);
        let scale = LinearScale::outward(low, high, ((right - left) / 70.0) as usize, (left + 6.0, right - 6.0));

        let mut svg = Svg::default();
        for &tick in &scale.ticks {
            svg.text("muted number", (scale.pixel(tick), bottom + LINE), Anchor::Middle, &scale.label(tick));
        }
        // Left and right of the axis there is space.
        let middle = (left + right) / 2.0;
        let axis = fit(&self.axis.title(), TEXT, 2.0 * middle.min(width - middle));
        svg.text("muted", (middle, bottom + 2.0 * LINE + 4.0), Anchor::Middle, &axis);

        let mut y = top + step / 2.0;
        for group in &self.groups {
            if !group.heading.is_empty() {
                svg.text("heading", (0.0, y + 0.35 * TEXT), Anchor::Start, &fit(&group.heading, TEXT, width));
                y += step;
            }
            // The lines are only next to rows, because they would cross a long heading.
            let (from, to) = (y - step / 2.0, y + (group.rows.len() as f64 - 0.5) * step);
            for &tick in &scale.ticks {
                let at = scale.pixel(tick);
                svg.rule(if tick == 0.0 { "axis" } else { "rule" }, (at, from), (at, to));
            }
            for row in &group.rows {
                self.row(&mut svg, row, &scale, y);
                svg.text("label", (4.0, y + 0.35 * TEXT), Anchor::Start, &fit(&row.label, TEXT, labels));
                svg.text("note", (right + 10.0, y + 0.35 * TEXT), Anchor::Start, &fit(&row.note, TEXT, notes));
                y += step;
            }
        }
        svg.text("muted", (0.0, bottom + 3.0 * LINE + 8.0), Anchor::Start, &fit(&self.legend, TEXT, width));
        svg.finish(width, bottom + 3.0 * LINE + 14.0, &self.title, &self.description)
    }

    fn row(&self, svg: &mut Svg, row: &ForestRow, scale: &LinearScale, y: f64) {
        // The thin line is on top, in the text color, because it is often inside the bar.
        for (interval, color, width) in [(row.interval, 0, 6.0), (row.second, 6, 1.5)] {
            let ends = interval.filter(|interval| interval.low.is_finite() && interval.high.is_finite());
            if let Some(Interval { low, high }) = ends {
                svg.bar(color, (scale.pixel(low), y), (scale.pixel(high), y), width);
            }
        }
        if row.value.is_finite() {
            let told = format!("{}: {} {}", row.label, num(row.value), self.axis.unit);
            svg.dot(6, (scale.pixel(row.value), y), 4.0, &told);
        }
    }
}
