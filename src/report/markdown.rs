//! The report as Markdown. What comes from outside is escaped, so that no name and no text of a model makes a link, a tag or a
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

/// A block with an empty line before it; nothing where Markdown cannot show it.
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
    }
}

fn question(question: &ShownQuestion) -> String {
    let ShownQuestion { benchmark, id, text, gold, answers } = question;
    let mut out = format!("\n### {} {}\n\n{}Right: {}\n", escape(benchmark), escape(id), fenced(text), escape(gold));
    for ShownCompletion { by, sample } in answers {
        let verdict = escape(&sample.verdict.to_string());
        let (by, how) = (escape(by), escape(&sample.how));
        write!(out, "\n**{by}**: {verdict}, {how}, {} tokens\n\n{}", sample.tokens, fenced(&sample.text)).unwrap();
    }
    out
}

/// Columns, aligned in no way: readers do that.
pub fn table(table: &Table) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(table.heads.iter().map(|head| escape(head)).collect());
    text += &format!("|{}\n", "---|".repeat(table.heads.len()));
    for row in &table.rows {
        text += &line(row.iter().map(|TableCell { text, .. }| escape(text)).collect());
    }
    text
}

/// Plain text that Markdown shows as it is, on one line.
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

/// A sentence of ours with names in backquotes: the names stay as they are, for Markdown reads nothing into them.
fn sentence(text: &str) -> String {
    let parts = text.split('`').enumerate();
    parts.map(|(i, part)| if i % 2 == 0 { escape(part) } else { format!("`{part}`") }).collect()
}

/// Lines as they are, in a fence that is longer than any within.
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
    fn no_text_leaves_its_cell() {
        let mut hostile = Table::new("t", "", ["a|b", "c"]);
        hostile.rows.push(vec!["x|y\n| z `c` <b>".into(), TableCell::number(1.0, "1")]);
        assert_eq!(table(&hostile), "| a\\|b | c |\n|---|---|\n| x\\|y \\| z \\`c\\` &lt;b&gt; | 1 |\n");
        assert_eq!(sentence("`a|b*` is *not* higher"), "`a|b*` is \\*not\\* higher");
    }

    #[test]
    fn no_text_closes_its_fence() {
        assert_eq!(fenced("a ```` b"), "`````text\na ```` b\n`````\n");
        assert_eq!(fenced("\u{1b}[1m"), "```text\n\u{fffd}[1m\n```\n");
    }
}
