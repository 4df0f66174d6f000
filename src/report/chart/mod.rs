//! Charts as SVG: lines with bands, dots with intervals, heat maps and mosaics.
//!
//! Each chart is one self-contained `<svg>` for a page or a file. Colours are CSS variables, so it follows the reader's light or
//! dark mode and prints on white; the palette is that of Okabe and Ito ("Color Universal Design", 2008), which colour-blind
//! readers can tell apart, without its yellow, which is lost on white. Text is always in the ink's colour: series are named
//! beside a stroke of their own.

mod axis;
mod behaviors;
mod forest;
mod heat;
mod labels;
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
