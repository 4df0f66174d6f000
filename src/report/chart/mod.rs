//! Charts as SVG: lines with bands, dots with intervals, heat maps and mosaics.
//!
//! Each chart is one self-contained `<svg>` for a page or a file. Colors are CSS variables, so a chart follows the reader's light
//! or dark mode and prints on white. The palette is from Okabe and Ito ("Color Universal Design", 2008). Color-blind readers can
//! distinguish its colors. Its yellow is omitted because it is hard to see on white. Text always has the text color; a series'
//! name is next to a short stroke in the series' color.

mod axis;
mod behaviors;
mod forest;
mod heat;
mod line;
mod mosaic;
mod svg;

pub use axis::Axis;
pub use behaviors::behavior_changes;
pub use forest::{Forest, ForestGroup, ForestRow};
pub use heat::{HeatMap, Scale};
pub use line::{ChartPoint, LineChart, Series};
pub use mosaic::Mosaic;
pub use svg::{escape as svg_escape, swatch};

#[cfg(test)]
mod tests;
