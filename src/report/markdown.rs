//! The report as Markdown. Text from outside is escaped, so that names and completions cannot create a link, a tag or a table
//! column.

use std::fmt::Write;

use super::document::{Document, DocumentBlock, ShownCompletion, ShownQuestion, Table, TableCell};

pub fn render(document: &Document) -> String {
    let mut text = format!("# {}\n", escape(&document.title));
    for note in &document.notes {
        write!(text, "\n> **{}**\n", sentence(note)).unwrap();
    }
    for section in &document.sections {
        write!(text, "\n## {}\n", section.title).unwrap();
        for block in &section.blocks {
            text.push_str(&self::block(block));
        }
    }
    text
}

/// A block after an empty line; empty if Markdown cannot show it.
fn block(block: &DocumentBlock) -> String {
    match block {
        DocumentBlock::Text(text) => format!("\n{}\n", sentence(text)),
        DocumentBlock::List(items) => {
            items.iter().fold("\n".to_owned(), |text, item| text + "- " + &sentence(item) + "\n")
        }
        DocumentBlock::Table(it) => format!("\n{}\n\n{}", escape(&it.caption), table(it)),
        DocumentBlock::Chart(_) | DocumentBlock::Panels { .. } => String::new(),
        DocumentBlock::Commands(lines) => format!("\n{}", fenced(&lines.join("\n"))),
        DocumentBlock::Completions(questions) => questions.iter().map(question).collect(),
        DocumentBlock::Closed { blocks, .. } => blocks.iter().map(self::block).collect(),
    }
}

fn question(question: &ShownQuestion) -> String {
    let ShownQuestion { benchmark, id, text, gold, answers, .. } = question;
    let mut out =
        format!("\n### {} {}\n\n{}Gold answer: {}\n", escape(benchmark), escape(id), fenced(text), escape(gold));
    for ShownCompletion { by, sample } in answers {
        let verdict = escape(&sample.verdict.to_string());
        let (by, how) = (escape(by), escape(&sample.how));
        write!(out, "\n**{by}**: {verdict}, {how}, {} tokens\n\n{}", sample.tokens, fenced(&sample.text)).unwrap();
    }
    out
}

/// A table without padding between its columns.
pub fn table(table: &Table) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(table.heads.iter().map(|head| escape(head)).collect());
    text += &format!("|{}\n", "---|".repeat(table.heads.len()));
    for row in &table.rows {
        text += &line(row.iter().map(|TableCell { text, .. }| escape(text)).collect());
    }
    text
}

/// Escapes plain text, so that Markdown shows it unchanged on one line.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '~' | '$' | '!' => escaped.extend(['\\', c]),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A sentence of the report with names in backquotes. Names are not escaped, because Markdown does not interpret them.
fn sentence(text: &str) -> String {
    let parts = text.split('`').enumerate();
    parts.map(|(i, part)| if i % 2 == 0 { escape(part) } else { format!("`{part}`") }).collect()
}

/// Lines in a code fence that is longer than any fence in the text.
fn fenced(text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    let plain: String =
        text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect();
    format!("{fence}text\n{plain}\n{fence}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_in_cells() {
        let mut hostile = Table::new("t", "", ["a|b", "c"]);
        hostile.rows.push(vec!["x|y\n| z `c` <b>".into(), TableCell::number(1.0, "1")]);
        assert_eq!(table(&hostile), "| a\\|b | c |\n|---|---|\n| x\\|y \\| z \\`c\\` &lt;b&gt; | 1 |\n");
        assert_eq!(sentence("`a|b*` is *not* higher"), "`a|b*` is \\*not\\* higher");
    }

    #[test]
    fn fences_are_longer_than_those_in_the_text() {
        assert_eq!(fenced("a ```` b"), "`````text\na ```` b\n`````\n");
        assert_eq!(fenced("\u{1b}[1m"), "```text\n\u{fffd}[1m\n```\n");
    }
}
