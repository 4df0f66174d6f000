//! Line charts over steps, with a band for the variation between seeds.

use super::axis::{Axis, LinearScale};
use super::svg::{Anchor, LINE, Rect, Svg, TEXT, fit, width_of};

/// One value at one step. A value that is not finite leaves a gap.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChartPoint {
    pub x: f64,
    pub y: f64,
    /// The ends of the band.
    pub band: Option<(f64, f64)>,
}

/// A named line.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    pub name: String,
    pub points: Vec<ChartPoint>,
}

impl Series {
    /// The mean over seeds at every step that at least one seed has, with a band from the lowest to the highest. Each seed is a
    /// list of (step, value) in the order of steps.
    pub fn over_seeds(name: &str, seeds: &[Vec<(u64, f64)>]) -> Self {
        let mut steps = std::collections::BTreeMap::<u64, Vec<f64>>::new();
        for &(step, value) in seeds.iter().flatten().filter(|(_, value)| value.is_finite()) {
            steps.entry(step).or_default().push(value);
        }
        let point = |(step, values): (u64, Vec<f64>)| {
            let low = values.iter().copied().fold(f64::INFINITY, f64::min);
            let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let band = (values.len() > 1).then_some((low, high));
            ChartPoint { x: step as f64, y: values.iter().sum::<f64>() / values.len() as f64, band }
        };
        Self { name: name.into(), points: steps.into_iter().map(point).collect() }
    }
}

/// Lines in one coordinate system.
#[derive(Clone, Debug)]
pub struct LineChart {
    /// The text for screen readers.
    pub description: String,
    pub x: Axis,
    pub y: Axis,
    pub series: Vec<Series>,
}

impl LineChart {
    /// A small chart without a title and without names of series; the page shows them next to it.
    pub fn panel(&self) -> String {
        let (width, height) = (288.0, 180.0);
        let mut svg = Svg::default();
        self.draw(&mut svg, Rect { x: 0.0, y: 0.0, width, height: height - 8.0 });
        svg.finish(width, height, "", &self.description)
    }

    /// Draws axes and lines inside `area`.
    fn draw(&self, svg: &mut Svg, area: Rect) {
        let values = self.series.iter().flat_map(|series| &series.points).filter(|point| point.y.is_finite());
        let (mut xs, mut ys) = ((f64::INFINITY, f64::NEG_INFINITY), (f64::INFINITY, f64::NEG_INFINITY));
        for point in values {
            let (low, high) = point.band.filter(finite).unwrap_or((point.y, point.y));
            xs = (xs.0.min(point.x), xs.1.max(point.x));
            ys = (ys.0.min(low).min(point.y), ys.1.max(high).max(point.y));
        }

        let (top, bottom) = (area.y + LINE + 8.0, area.bottom() - 2.0 * LINE - 6.0);
        let y = LinearScale::outward(ys.0, ys.1, ((bottom - top) / 45.0) as usize, (bottom, top));
        let numbers = y.ticks.iter().map(|&tick| width_of(&y.label(tick), TEXT)).fold(0.0, f64::max);
        let (left, right) = (area.x + numbers + 8.0, area.right() - 14.0);
        let x = LinearScale::inward(xs.0, xs.1, ((right - left) / 60.0) as usize, (left, right));

        svg.text("muted", (area.x, area.y + TEXT), Anchor::Start, &fit(&self.y.title(), TEXT, area.width));
        for &tick in &y.ticks {
            let at = y.pixel(tick);
            svg.rule("rule", (left, at), (right, at));
            svg.text("muted number", (left - 6.0, at + 0.35 * TEXT), Anchor::End, &y.label(tick));
        }
        svg.rule("axis", (left, bottom), (right, bottom));
        for &tick in &x.ticks {
            let at = x.pixel(tick);
            svg.rule("axis", (at, bottom), (at, bottom + 4.0));
            svg.text("muted number", (at, bottom + LINE + 2.0), Anchor::Middle, &x.label(tick));
        }
        svg.text("muted", (right, bottom + 2.0 * LINE + 2.0), Anchor::End, &fit(&self.x.title(), TEXT, right - left));

        let place = |px: f64, py: f64| (x.pixel(px), y.pixel(py));
        for (index, series) in self.series.iter().enumerate() {
            for run in runs(&series.points, |point| point.y.is_finite() && point.band.is_some_and(|band| finite(&band)))
            {
                let side = |end: fn((f64, f64)) -> f64| -> Vec<_> {
                    run.iter().map(|point| place(point.x, end(point.band.unwrap_or_default()))).collect()
                };
                svg.band(index, &side(|band| band.0), &side(|band| band.1));
            }
        }
        for (index, series) in self.series.iter().enumerate() {
            for run in runs(&series.points, |point| point.y.is_finite()) {
                let line: Vec<_> = run.iter().map(|point| place(point.x, point.y)).collect();
                match line[..] {
                    [alone] => svg.dot(index, alone, 2.5, &series.name),
                    _ => svg.stroke("series", index, &line),
                }
            }
        }
    }
}

fn finite((low, high): &(f64, f64)) -> bool {
    low.is_finite() && high.is_finite()
}

/// The longest sequences of points for which `hold` is true.
fn runs(points: &[ChartPoint], hold: impl Fn(&ChartPoint) -> bool + Copy) -> impl Iterator<Item = &[ChartPoint]> {
    points.chunk_by(move |a, b| hold(a) && hold(b)).filter(move |run| hold(&run[0]))
}
