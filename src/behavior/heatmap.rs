//! Shares of behaviors by model, as an SVG chart: one row per input, one column per class.

use std::fmt::Write;

use super::Class;
use super::summary::Summary;

const CELL_WIDTH: usize = 92;
const CELL_HEIGHT: usize = 44;
const HEAD: usize = 84;
const FOOT: usize = 34;
/// Estimated width of one character of a label in pixels, rounded up because the font is unknown.
const CHARACTER: usize = 8;
/// Longest label of a row, in characters.
const LONGEST: usize = 36;

/// A chart of the share of completions that show each class. The other rows are compared with the first: their color is the
/// change, orange for more and blue for less, which color-blind readers can distinguish. Every cell shows its numbers as
/// text. The chart follows the reader's light or dark setting.
pub fn heatmap(rows: &[(String, Summary)]) -> String {
    let names: Vec<String> = rows.iter().map(|(name, _)| shorten(name)).collect();
    let left = 24 + CHARACTER * names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let (width, height) = (left + CELL_WIDTH * Class::ALL.len() + 12, HEAD + CELL_HEIGHT * rows.len() + FOOT);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         role=\"img\" aria-label=\"Share of completions that show each behavior\">\n{STYLE}\
         <rect class=\"ground\" width=\"{width}\" height=\"{height}\"/>\n\
         <text class=\"title\" x=\"12\" y=\"24\">Completions with each behavior, %; change in percentage points</text>\n"
    );
    for (column, class) in Class::ALL.iter().enumerate() {
        let x = left + CELL_WIDTH * column + CELL_WIDTH / 2;
        let words = class.title();
        let (first, second) = words.split_once(' ').unwrap_or(("", words));
        let _ = writeln!(svg, "<text class=\"head\" x=\"{x}\" y=\"{}\">{first}</text>", HEAD - 26);
        let _ = writeln!(svg, "<text class=\"head\" x=\"{x}\" y=\"{}\">{second}</text>", HEAD - 10);
    }
    for (row, (name, (_, summary))) in names.iter().zip(rows).enumerate() {
        let y = HEAD + CELL_HEIGHT * row;
        let middle = y + CELL_HEIGHT / 2;
        let _ = writeln!(svg, "<text class=\"row\" x=\"{}\" y=\"{}\">{}</text>", left - 10, middle + 5, escape(name));
        for (column, class) in summary.classes.iter().enumerate() {
            let x = left + CELL_WIDTH * column;
            let share = 100.0 * class.presence.value;
            let change = share - 100.0 * rows[0].1.classes[column].presence.value;
            let (side, depth) = shade(change);
            let _ = writeln!(
                svg,
                "<rect class=\"cell\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/>\
                 <rect class=\"{side}\" fill-opacity=\"{depth:.2}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/>",
                x + 1,
                y + 1,
                CELL_WIDTH - 2,
                CELL_HEIGHT - 2,
                x + 1,
                y + 1,
                CELL_WIDTH - 2,
                CELL_HEIGHT - 2
            );
            let x = x + CELL_WIDTH / 2;
            if row == 0 {
                let _ = writeln!(svg, "<text class=\"value\" x=\"{x}\" y=\"{}\">{share:.0}</text>", middle + 5);
            } else {
                let _ = writeln!(
                    svg,
                    "<text class=\"value\" x=\"{x}\" y=\"{}\">{share:.0}</text>\
                     <text class=\"change\" x=\"{x}\" y=\"{}\">{}</text>",
                    middle - 1,
                    middle + 14,
                    signed(change)
                );
            }
        }
    }
    let _ = writeln!(
        svg,
        "<text class=\"note\" x=\"12\" y=\"{}\">Change from the first row. Orange: more; blue: less.</text>\n</svg>",
        height - 12
    );
    svg
}

/// The color of a change in percentage points, and its opacity, which is highest from 50 points on.
fn shade(change: f64) -> (&'static str, f64) {
    (if change < 0.0 { "less" } else { "more" }, 0.85 * (change.abs() / 50.0).min(1.0))
}

fn signed(change: f64) -> String {
    match change.round() as i64 {
        0 => "±0".to_owned(),
        points if points > 0 => format!("+{points}"),
        points => format!("\u{2212}{}", -points),
    }
}

/// The end of a long name, because names of runs usually differ there.
fn shorten(name: &str) -> String {
    let length = name.chars().count();
    match length.checked_sub(LONGEST) {
        None | Some(0) => name.to_owned(),
        Some(over) => format!("…{}", name.chars().skip(over + 1).collect::<String>()),
    }
}

fn escape(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
    plain.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

const STYLE: &str = "<style>
text { font: 13px system-ui, sans-serif; fill: #1b1f24 }
.title { font-size: 15px; font-weight: 600 }
.head, .value, .change { text-anchor: middle }
.row { text-anchor: end }
.change, .note { font-size: 11px }
.value { font-weight: 600 }
.ground { fill: #ffffff }
.cell { fill: #f3f4f6 }
.more { fill: #e69f00 }
.less { fill: #56b4e9 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .ground { fill: #0d1117 }
  .cell { fill: #21262d }
  .more { fill: #a85f00 }
  .less { fill: #1f6fa8 }
}
</style>
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::behavior::summary::Counted;

    fn summary(shown: usize) -> Summary {
        let responses = (0..4).map(|index| {
            let mut counts = [0; Class::ALL.len()];
            counts[Class::Planning as usize] = usize::from(index < shown);
            Counted { question: index.to_string(), tokens: None, counts }
        });
        Summary::new(&responses.collect::<Vec<_>>(), 1)
    }

    #[test]
    fn every_cell_shows_its_numbers() {
        let svg = heatmap(&[("base".into(), summary(1)), ("<plan> & more".into(), summary(3))]);
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("&lt;plan&gt; &amp; more") && !svg.contains("<plan>"));
        assert!(svg.contains(">25</text>") && svg.contains(">75</text>") && svg.contains(">+50</text>"), "{svg}");
        assert_eq!(svg.matches("class=\"cell\"").count(), 2 * Class::ALL.len());
        assert_eq!(svg.matches('<').count(), svg.matches('>').count());
        assert!(svg.contains("prefers-color-scheme: dark"));
    }

    #[test]
    fn a_long_name_keeps_its_end() {
        let name = format!("runs/{}-7", "x".repeat(50));
        let short = shorten(&name);
        assert!(short.starts_with('…') && short.ends_with("-7") && short.chars().count() == LONGEST);
    }
}
