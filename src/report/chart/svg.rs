//! The drawing: shapes and text with coordinates in CSS pixels, written in the order of the calls.

use std::fmt::Write;

/// Font size, in pixels.
pub const TEXT: f64 = 12.0;
pub const TITLE: f64 = 15.0;

/// Distance between lines of text, in pixels.
pub const LINE: f64 = 15.0;

/// Number of series colors; later series reuse them with dashed lines.
const COLORS: usize = 7;

const STYLE: &str = "\
.rft-chart{--ink:#1b1b1b;--muted:#5f5f5f;--rule:#dedede;--paper:#fff;--s0:#0072b2;--s1:#d55e00;--s2:#009e73;--s3:#cc79a7;\
--s4:#e69f00;--s5:#56b4e9;--s6:#1b1b1b;font:12px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;\
max-width:100%;height:auto}\
@media (prefers-color-scheme:dark){.rft-chart{--ink:#ececec;--muted:#a6a6a6;--rule:#3a3a3a;--paper:#161616;--s0:#4a9fdc;\
--s1:#ee7733;--s2:#1fb98b;--s3:#dd93bb;--s4:#f0b440;--s5:#8fd3ff;--s6:#ececec}}\
@media print{.rft-chart{--ink:#000;--muted:#444;--rule:#ccc;--paper:#fff;--s0:#0072b2;--s1:#d55e00;--s2:#009e73;--s3:#cc79a7;\
--s4:#e69f00;--s5:#56b4e9;--s6:#000;print-color-adjust:exact;-webkit-print-color-adjust:exact}}\
.rft-chart text{fill:var(--ink)}.rft-chart .title{font-size:15px;font-weight:600}\
.rft-chart .heading{font-weight:600}.rft-chart .muted{fill:var(--muted)}\
.rft-chart .rule{stroke:var(--rule);stroke-width:1;fill:none}.rft-chart .axis{stroke:var(--muted);stroke-width:1;fill:none}\
.rft-chart .series{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}\
.rft-chart .band{stroke:none;fill-opacity:.16}.rft-chart .leader{fill:none;stroke-width:1;stroke-opacity:.6}\
.rft-chart .number{font-variant-numeric:tabular-nums}";

/// The anchor of a text.
#[derive(Clone, Copy)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rect {
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
}

impl Rect {
    pub fn right(&self) -> f64 {
        self.x + self.width
    }

    pub fn bottom(&self) -> f64 {
        self.y + self.height
    }
}

/// The body of a chart. Attributes are passed in by our own code; text is escaped here.
#[derive(Default)]
pub struct Svg {
    body: String,
}

impl Svg {
    pub fn rule(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let (x1, y1, x2, y2) = (num(from.0), num(from.1), num(to.0), num(to.1));
        writeln!(self.body, r#"<path class="{class}" d="M{x1} {y1}L{x2} {y2}"/>"#).unwrap();
    }

    /// A line through `points` in the stroke of series `index`.
    pub fn stroke(&mut self, class: &str, index: usize, points: &[(f64, f64)]) {
        let (color, dash, d) = (color(index), dash(index), path(points));
        writeln!(self.body, r#"<path class="{class}" style="stroke:{color}{dash}" d="{d}"/>"#).unwrap();
    }

    /// The area between two lines that share their x, in the color of series `index`.
    pub fn band(&mut self, index: usize, low: &[(f64, f64)], high: &[(f64, f64)]) {
        let outline: Vec<_> = high.iter().chain(low.iter().rev()).copied().collect();
        let (color, d) = (color(index), path(&outline));
        writeln!(self.body, r#"<path class="band" style="fill:{color}" d="{d}Z"/>"#).unwrap();
    }

    /// A dot in the color of series `index`; `told` is its tooltip.
    pub fn dot(&mut self, index: usize, (x, y): (f64, f64), radius: f64, told: &str) {
        let (color, x, y, radius, told) = (color(index), num(x), num(y), num(radius), escape(told));
        writeln!(
            self.body,
            r#"<circle class="dot" style="fill:{color}" cx="{x}" cy="{y}" r="{radius}"><title>{told}</title></circle>"#
        )
        .unwrap();
    }

    /// A bar between two points in the color of series `index`.
    pub fn bar(&mut self, index: usize, from: (f64, f64), to: (f64, f64), width: f64) {
        let (color, width, d) = (color(index), num(width), path(&[from, to]));
        writeln!(self.body, r#"<path class="bar" style="stroke:{color};stroke-width:{width}" d="{d}"/>"#).unwrap();
    }

    /// A cell in the color of series `index`, with the given `opacity`.
    pub fn cell(&mut self, index: usize, at: Rect, opacity: f64, told: &str) {
        let (color, told) = (color(index), escape(told));
        let (x, y, width, height, opacity) = (num(at.x), num(at.y), num(at.width), num(at.height), num(opacity));
        writeln!(
            self.body,
            r#"<rect class="cell" style="fill:{color};fill-opacity:{opacity}" x="{x}" y="{y}" width="{width}" height="{height}"><title>{told}</title></rect>"#
        )
        .unwrap();
    }

    /// Shapes as one path, filled with the color of series `index`.
    pub fn area(&mut self, index: usize, opacity: f64, d: &str) {
        let (color, opacity) = (color(index), num(opacity));
        writeln!(self.body, r#"<path class="area" style="fill:{color};fill-opacity:{opacity}" d="{d}"/>"#).unwrap();
    }

    pub fn text(&mut self, class: &str, (x, y): (f64, f64), anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let (x, y, text) = (num(x), num(y), escape(text));
        writeln!(self.body, r#"<text class="{class}" x="{x}" y="{y}" text-anchor="{anchor}">{text}</text>"#).unwrap();
    }

    /// The whole chart, with `title` at the top. `description` is the text for screen readers; it is also the title of a chart
    /// without one.
    pub fn finish(mut self, width: f64, height: f64, title: &str, description: &str) -> String {
        if !title.is_empty() {
            self.text("title", (0.0, TITLE), Anchor::Start, &fit(title, TITLE, width));
        }
        let title = if title.is_empty() { description } else { title };
        let (width, height, title, description) = (num(width), num(height), escape(title), escape(description));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"rft-chart\" role=\"img\" viewBox=\"0 0 {width} {height}\" \
             width=\"{width}\" height=\"{height}\">\n<title>{title}</title>\n<desc>{description}</desc>\n\
             <style>{STYLE}</style>\n\
             <rect width=\"{width}\" height=\"{height}\" style=\"fill:var(--paper)\"/>\n{}</svg>\n",
            self.body
        )
    }
}

fn color(index: usize) -> String {
    format!("var(--s{})", index % COLORS)
}

fn dash(index: usize) -> &'static str {
    match index / COLORS {
        0 => "",
        1 => ";stroke-dasharray:6 4",
        _ => ";stroke-dasharray:2 4",
    }
}

fn path(points: &[(f64, f64)]) -> String {
    let mut d = String::new();
    for (i, (x, y)) in points.iter().enumerate() {
        write!(d, "{}{} {}", if i == 0 { 'M' } else { 'L' }, num(*x), num(*y)).unwrap();
    }
    d
}

/// A short stroke in the style of series `index`, to be placed next to its name.
pub fn swatch(index: usize) -> String {
    let (color, dash) = (color(index), dash(index));
    format!(
        "<svg class=\"rft-chart\" aria-hidden=\"true\" viewBox=\"0 0 20 8\" width=\"20\" height=\"8\">\
         <path style=\"stroke:{color}{dash};stroke-width:2.5\" d=\"M1 4L19 4\"/></svg>"
    )
}

/// A coordinate with at most two decimals, so that the text is the same on every machine and has no invisible digits.
pub fn num(value: f64) -> String {
    assert!(value.is_finite(), "a coordinate of {value}");
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".into() } else { text.into() }
}

/// Escapes text for XML. Characters that XML does not allow become U+FFFD.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\t' | '\n' => escaped.push(' '),
            c if c < ' ' || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// An upper estimate of the width of `text` in a sans-serif font of `size`: wide scripts need a whole em.
pub fn width_of(text: &str, size: f64) -> f64 {
    let em: f64 = text
        .chars()
        .map(|c| match c {
            'i' | 'j' | 'l' | 't' | 'f' | 'r' | ' ' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' | '(' | ')' | '['
            | ']' => 0.36,
            'm' | 'w' | 'M' | 'W' | '%' | '@' => 0.95,
            'A'..='Z' => 0.72,
            c if c.is_ascii() => 0.6,
            _ => 1.0,
        })
        .sum();
    em * size
}

/// `text`, truncated with an ellipsis if it is wider than `width`.
pub fn fit(text: &str, size: f64, width: f64) -> String {
    if width_of(text, size) <= width {
        return text.into();
    }
    let mut kept: String = text.into();
    while !kept.is_empty() && width_of(&kept, size) + size > width {
        kept.pop();
    }
    kept.trim_end().to_string() + "…"
}
