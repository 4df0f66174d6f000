//! Axes: the tick values, and the position of a value.

/// What an axis measures.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    pub label: String,
    /// Empty for a plain number.
    pub unit: String,
}

impl Axis {
    pub fn new(label: &str, unit: &str) -> Self {
        Self { label: label.into(), unit: unit.into() }
    }

    /// `length (tokens)`.
    pub fn title(&self) -> String {
        if self.unit.is_empty() { self.label.clone() } else { format!("{} ({})", self.label, self.unit) }
    }
}

/// A linear map from values to pixels.
#[derive(Clone, Debug)]
pub struct LinearScale {
    pub ticks: Vec<f64>,
    step: f64,
    domain: (f64, f64),
    pixels: (f64, f64),
}

impl LinearScale {
    /// Covers `low` to `high`, extended to the next ticks. Ticks are round numbers (1, 2 or 5 times a power of ten), about `count`
    /// of them. The first tick is at the first of `pixels`, the last tick at the second.
    pub fn outward(low: f64, high: f64, count: usize, pixels: (f64, f64)) -> Self {
        let (low, high) = widened(low, high);
        let step = round_step((high - low) / count.max(1) as f64);
        // A value on a tick, up to rounding, does not need another tick.
        let first = (low / step + 1e-9).floor();
        let last = (high / step - 1e-9).ceil().max(first + 1.0);
        Self { ticks: ticks(first, last, step), step, domain: (first * step, last * step), pixels }
    }

    /// The same, but ends at `low` and `high`, with the ticks in between, at whole numbers.
    pub fn inward(low: f64, high: f64, count: usize, pixels: (f64, f64)) -> Self {
        let (low, high) = widened(low, high);
        let step = round_step((high - low) / count.max(1) as f64).max(1.0);
        let ticks = ticks((low / step - 1e-9).ceil(), (high / step + 1e-9).floor(), step);
        Self { ticks, step, domain: (low, high), pixels }
    }

    pub fn pixel(&self, value: f64) -> f64 {
        let ((low, high), (from, to)) = (self.domain, self.pixels);
        from + (value - low) / (high - low) * (to - from)
    }

    /// A tick's number with as many decimals as the step needs, a Unicode minus sign, and separated thousands.
    pub fn label(&self, tick: f64) -> String {
        let size = self.ticks.iter().fold(0.0f64, |size, tick| size.max(tick.abs()));
        if !(1e-4..1e7).contains(&size) {
            return if tick == 0.0 { "0".into() } else { format!("{tick:.1e}").replace('-', "−") };
        }
        let decimals = (-self.step.log10().floor()).max(0.0) as usize;
        grouped(&format!("{:.decimals$}", tick + 0.0))
    }
}

fn ticks(first: f64, last: f64, step: f64) -> Vec<f64> {
    (first as i64..=last as i64).map(|i| i as f64 * step).collect()
}

/// A range that is not empty.
fn widened(low: f64, high: f64) -> (f64, f64) {
    if !(low.is_finite() && high.is_finite()) {
        return (0.0, 1.0);
    }
    if high - low > 1e-12 * low.abs().max(high.abs()) {
        return (low, high);
    }
    let around = if low == 0.0 { 0.5 } else { 0.1 * low.abs() };
    (low - around, high + around)
}

/// The smallest of 1, 2, 5 and 10 times a power of ten that is not below `step`.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let times = [1.0, 2.0, 5.0].into_iter().find(|times| times * power >= step * (1.0 - 1e-9)).unwrap_or(10.0);
    times * power
}

/// Separates thousands from five digits on: `12 500`, with thin spaces.
fn grouped(number: &str) -> String {
    let (sign, number) = number.strip_prefix('-').map_or(("", number), |rest| ("−", rest));
    let (whole, rest) = number.split_at(number.find('.').unwrap_or(number.len()));
    let mut text = String::from(sign);
    for (i, digit) in whole.chars().enumerate() {
        if whole.len() > 4 && i > 0 && (whole.len() - i) % 3 == 0 {
            text.push('\u{2009}');
        }
        text.push(digit);
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(low: f64, high: f64) -> Vec<String> {
        let scale = LinearScale::outward(low, high, 5, (0.0, 100.0));
        scale.ticks.iter().map(|&tick| scale.label(tick)).collect()
    }

    #[test]
    fn ticks_are_round_and_cover_the_data() {
        assert_eq!(labels(0.0, 1.0), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels(-12.0, 31.0), ["−20", "−10", "0", "10", "20", "30", "40"]);
        assert_eq!(labels(0.0, 25.0), ["0", "5", "10", "15", "20", "25"]);
        assert_eq!(
            labels(0.0, 48_000.0),
            ["0", "10\u{2009}000", "20\u{2009}000", "30\u{2009}000", "40\u{2009}000", "50\u{2009}000"]
        );
        for (low, high) in
            [(0.13, 0.131), (-3e-9, 2e-9), (1e9, 3e9), (5.0, 5.0), (0.0, 0.0), (-7.0, -7.0), (1e6, 1e6 + 1.0)]
        {
            let scale = LinearScale::outward(low, high, 5, (20.0, 120.0));
            assert!((2..=12).contains(&scale.ticks.len()), "{low} {high}: {:?}", scale.ticks);
            for value in [low, high] {
                assert!((20.0 - 1e-6..=120.0 + 1e-6).contains(&scale.pixel(value)), "{low} {high} {:?}", scale.ticks);
            }
            let labels: Vec<String> = scale.ticks.iter().map(|&tick| scale.label(tick)).collect();
            assert!(labels.windows(2).all(|pair| pair[0] != pair[1]), "{labels:?}");
        }
        let inward = LinearScale::inward(0.0, 25.0, 3, (0.0, 100.0));
        assert_eq!((inward.ticks.as_slice(), inward.pixel(25.0)), ([0.0, 10.0, 20.0].as_slice(), 100.0));
        assert_eq!(LinearScale::inward(1.0, 3.0, 4, (0.0, 1.0)).ticks, [1.0, 2.0, 3.0]);
        assert_eq!(LinearScale::inward(1.0, 100.0, 5, (0.0, 1.0)).ticks, [20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(LinearScale::outward(f64::NAN, 1.0, 5, (0.0, 1.0)).ticks.len(), 6);
    }
}
