//! Small multiples: the same series by several measures, a panel each, named once above them.

use super::line::LineChart;
use super::svg::{Anchor, LINE, Rect, Svg, TEXT, TITLE, fit, width_of};

/// Panels that share their series, in rows of `columns`.
#[derive(Clone, Debug)]
pub struct Grid {
    pub title: String,
    pub description: String,
    /// Their own titles and descriptions are not drawn: the axis says what a panel shows.
    pub panels: Vec<LineChart>,
    pub columns: usize,
}

impl Grid {
    /// The grid as SVG, 960 pixels wide.
    pub fn svg(&self) -> String {
        let width = 960.0;
        let columns = self.columns.max(1);
        let mut svg = Svg::default();
        let top = self.legend(&mut svg, width, TITLE + 12.0) + 8.0;
        let (across, down) = (width / columns as f64, 190.0);
        for (i, panel) in self.panels.iter().enumerate() {
            let (column, row) = ((i % columns) as f64, (i / columns) as f64);
            panel.draw(
                &mut svg,
                Rect { x: column * across, y: top + row * down, width: across - 10.0, height: down - 14.0 },
            );
        }
        let rows = self.panels.len().div_ceil(columns);
        svg.finish(width, top + rows as f64 * down, &self.title, &self.description)
    }

    /// Names the series, in as many lines as they need, and tells where the next thing may begin.
    fn legend(&self, svg: &mut Svg, width: f64, top: f64) -> f64 {
        let (mut x, mut y) = (0.0, top + LINE);
        let names = self.panels.first().map(|panel| panel.series.as_slice()).unwrap_or_default();
        for (index, series) in names.iter().enumerate() {
            let name = fit(&series.name, TEXT, 260.0);
            let needed = 25.0 + width_of(&name, TEXT);
            if x > 0.0 && x + needed > width {
                (x, y) = (0.0, y + LINE + 3.0);
            }
            svg.stroke("series", index, &[(x + 1.0, y - 4.0), (x + 19.0, y - 4.0)]);
            svg.text("label", (x + 24.0, y), Anchor::Start, &name);
            x += needed + 16.0;
        }
        y + 6.0
    }
}
