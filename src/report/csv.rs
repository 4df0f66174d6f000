//! All tables of the report in one file, with one line per cell.

use anyhow::{Context, Result};

use super::document::{Document, DocumentBlock};
use crate::run::printable::printable;

/// `table,row,column,text,value`: rows are numbered from 1; the value is empty if the cell is a text.
pub fn render(document: &Document) -> Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(["table", "row", "column", "text", "value"])?;
    let blocks = document.sections.iter().flat_map(|section| &section.blocks);
    for table in blocks.filter_map(|block| if let DocumentBlock::Table(table) = block { Some(table) } else { None }) {
        for (row, cells) in table.rows.iter().enumerate() {
            for (head, cell) in table.heads.iter().zip(cells) {
                let value = cell.value.map_or(String::new(), |value| value.to_string());
                writer.write_record([table.name, &(row + 1).to_string(), &inert(head), &inert(&cell.text), &value])?;
            }
        }
    }
    let bytes = writer.into_inner().context("write the tables")?;
    String::from_utf8(bytes).context("write the tables")
}

/// A text that a spreadsheet does not calculate: names come from files, and `=HYPERLINK(...)` would be a formula. Numbers with
/// their intervals stay as they are.
fn inert(text: &str) -> String {
    let is_number = |c: char| c.is_ascii_digit() || " .,[]()%+-\u{2212}".contains(c);
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']) && !text.chars().all(is_number);
    format!("{}{}", if is_formula { "'" } else { "" }, printable(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::document::{Section, Table, TableCell};

    #[test]
    fn texts_are_quoted() {
        let mut table = Table::new("results", "", ["arm", "math"]);
        table.rows.push(vec!["a,\"b\"\nc".into(), TableCell::number(0.5, "50.0")]);
        let section = Section { id: "x", title: "X", blocks: vec![DocumentBlock::Table(table)] };
        let text = render(&Document { title: String::new(), notes: vec![], sections: vec![section] }).unwrap();
        let mut lines = csv::Reader::from_reader(text.as_bytes());
        let rows: Vec<Vec<String>> =
            lines.records().map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect();
        assert_eq!(rows[0], ["results", "1", "arm", "a,\"b\"\nc", ""]);
        assert_eq!(rows[1], ["results", "1", "math", "50.0", "0.5"]);
    }

    #[test]
    fn formulas_are_texts() {
        for text in ["=1+1", "=HYPERLINK(\"http://x\")", "+cmd|' /C calc'!A0", "-2+A1", "@SUM(A1)", "\t=1+1"] {
            assert_eq!(inert(text), format!("'{text}"));
        }
        for text in ["-3.2 [-5.0, -1.4]", "+12 %", "a=1", "", "2.0", "-"] {
            assert_eq!(inert(text), text);
        }
        assert_eq!(inert("a\u{202e}b"), "a\\u{202e}b");
    }
}
