//! Shares of behaviors by model, and their change from the first.

use super::heat::{HeatMap, Scale};
use crate::behavior::summary::Summary;

/// Maximum length of a row's label, in characters.
const LONGEST: usize = 26;

/// A chart of the share of completions that show each class, one row per input; `heads` are the names of the classes. The other
/// rows are compared with the first: their color shows the change, which is also in parentheses after the share.
pub fn behavior_changes(rows: &[(String, Summary)], heads: &[String]) -> String {
    let share = |row: usize, class: usize| 100.0 * rows[row].1.classes[class].presence.value;
    let change = |row: usize| (0..heads.len()).map(|class| Some(share(row, class) - share(0, class))).collect();
    let map = HeatMap {
        title: "Completions with each behavior, %; change in percentage points".to_owned(),
        description: "Share of completions with each behavior, and its change from the first row.".to_owned(),
        legend: "Change from the first row. Orange: more; blue: less.".to_owned(),
        rows: rows.iter().map(|(name, _)| shorten(name)).collect(),
        columns: heads.to_vec(),
        values: (0..rows.len()).map(change).collect(),
        decimals: 0,
        scale: Scale::Diverging,
    };
    map.svg_with(&|row, class, change| match row {
        0 => format!("{:.0}", share(row, class)),
        _ => format!("{:.0} ({change})", share(row, class)),
    })
}

/// The end of a long name, because names of runs usually differ there.
fn shorten(name: &str) -> String {
    match name.chars().count().checked_sub(LONGEST) {
        None | Some(0) => name.to_owned(),
        Some(over) => format!("…{}", name.chars().skip(over + 1).collect::<String>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::behavior::Class;
    use crate::behavior::summary::ResponseCounts;

    fn summary(shown: usize) -> Summary {
        let responses = (0..4).map(|index| {
            let mut counts = [0; Class::ALL.len()];
            counts[Class::Planning as usize] = usize::from(index < shown);
            ResponseCounts { question: index.to_string(), tokens: None, counts }
        });
        Summary::new(&responses.collect::<Vec<_>>(), 1)
    }

    #[test]
    fn every_cell_holds_its_numbers() {
        let heads = Class::ALL.map(|class| class.title().to_owned());
        let svg = behavior_changes(&[("base".into(), summary(1)), ("<plan> & more".into(), summary(3))], &heads);
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("&lt;plan&gt; &amp; more") && !svg.contains("<plan>"));
        assert!(svg.contains(">25</text>") && svg.contains(">75 (+50)</text>"), "{svg}");
        assert_eq!(svg.matches("class=\"cell\"").count(), 2 * Class::ALL.len());
        assert!(svg.contains("prefers-color-scheme:dark"));
    }

    #[test]
    fn a_long_name_keeps_its_end() {
        let name = format!("runs/{}-7", "x".repeat(50));
        let short = shorten(&name);
        assert!(short.starts_with('…') && short.ends_with("-7") && short.chars().count() == LONGEST);
    }
}
