//! The report as one self-contained page. Reading it does not need a network, fonts or JavaScript.
//!
//! The template escapes every value. Values that are passed as markup are made here, from text that is escaped first.

use std::fmt::Write;
use std::sync::LazyLock;

use anyhow::{Context, Result};
use base64::prelude::{BASE64_STANDARD, Engine};
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Value, context};
use regex::Regex;
use sha2::{Digest, Sha256};

use super::chart::{svg_escape, swatch};
use super::document::{Document, DocumentBlock, ShownCompletion, ShownQuestion, Table, TableCell};
use crate::math::Verdict;
use crate::run::printable::is_harmful;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// Number of questions with completions that the page lists before the reader asks for all.
const SHOWN: usize = 6;

/// The same for the sentences of a list.
const SHOWN_ITEMS: usize = 8;

/// A longer name may be broken at the end of a line.
const LONG_NAME: usize = 40;

/// The page. Characters that HTML does not allow, and those that reorder or hide text, are replaced.
pub fn render(document: &Document) -> Result<String> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().context("jinja syntax")?;
    environment.set_syntax(syntax);
    environment.add_template("page", PAGE).context("parse the template of the page")?;
    let sections: Vec<Value> = document
        .sections
        .iter()
        .map(
            |it| context! { id => it.id, title => it.title, blocks => it.blocks.iter().flat_map(blocks).collect::<Vec<_>>() },
        )
        .collect();
    // Without space at its end, which some validators leave out when they check the hash.
    let script = SCRIPT.trim_end();
    let view = context! {
        title => document.title.as_str(),
        notes => document.notes.iter().map(|note| sentence(note)).collect::<Vec<_>>(),
        sections => sections,
        style => Value::from_safe_string(STYLE.to_owned()),
        script => Value::from_safe_string(script.to_owned()),
        // The browser runs no other script, and loads nothing, even if some text were not escaped.
        script_hash => Value::from_safe_string(format!("sha256-{}", BASE64_STANDARD.encode(Sha256::digest(script)))),
        version => env!("CARGO_PKG_VERSION"),
    };
    let page = environment.get_template("page").and_then(|page| page.render(view)).context("write the page")?;
    let plain = |c: char| if is_harmful(c) { '\u{fffd}' } else { c };
    Ok(page.chars().map(plain).collect())
}

/// A block as those of the template: usually one; closed blocks are between two of their own.
fn blocks(block: &DocumentBlock) -> Vec<Value> {
    let one = match block {
        DocumentBlock::Closed { title, blocks: inner } => {
            let mut all = vec![context! { kind => "open", title => title.as_str() }];
            all.extend(inner.iter().flat_map(blocks));
            all.push(context! { kind => "close" });
            return all;
        }
        DocumentBlock::Text(text) => context! { kind => "text", text => sentence(text) },
        DocumentBlock::List(items) => {
            let items: Vec<Value> = items.iter().map(|item| sentence(item)).collect();
            context! { kind => "list", shown => SHOWN_ITEMS, items => items }
        }
        DocumentBlock::Table(it) => table(it),
        DocumentBlock::Chart(svg) => context! { kind => "chart", svg => Value::from_safe_string(svg.clone()) },
        DocumentBlock::Panels { names, panels } => {
            let names = names.iter().enumerate().map(|(i, name)| {
                context! { name => name.as_str(), swatch => Value::from_safe_string(swatch(i)) }
            });
            let panels = panels.iter().map(|svg| Value::from_safe_string(svg.clone()));
            context! { kind => "panels", names => names.collect::<Vec<_>>(), panels => panels.collect::<Vec<_>>() }
        }
        DocumentBlock::Commands(lines) => context! { kind => "commands", text => lines.join("\n") },
        DocumentBlock::Completions(questions) => context! {
            kind => "completions",
            // The rest is in a closed element, so that the page stays short.
            shown => SHOWN,
            models => questions.iter().take(1).flat_map(|it| &it.answers).map(|it| it.by.clone()).collect::<Vec<_>>(),
            questions => questions.iter().map(question).collect::<Vec<_>>()
        },
    };
    vec![one]
}

fn table(table: &Table) -> Value {
    let cell =
        |cell: &TableCell| context! { text => cell.text.as_str(), value => cell.value.map(|value| value.to_string()) };
    // A column is numeric if any of its cells has a number.
    let numeric = |at: usize| table.rows.iter().any(|row| row[at].value.is_some());
    let heads: Vec<Value> = table
        .heads
        .iter()
        .enumerate()
        .map(|(at, head)| context! { text => head.as_str(), numeric => numeric(at) })
        .collect();
    let rows: Vec<Vec<Value>> = table.rows.iter().map(|row| row.iter().map(cell).collect()).collect();
    context! { kind => "table", name => table.name, caption => joined(&table.caption), heads => heads, rows => rows }
}

fn question(question: &ShownQuestion) -> Value {
    let answers: Vec<Value> = question.answers.iter().map(answer).collect();
    let right = question.answers.iter().filter(|it| it.sample.verdict == Verdict::Correct).count();
    context! {
        benchmark => question.benchmark.as_str(),
        id => question.id.as_str(),
        text => question.text.as_str(),
        gold => question.gold.as_str(),
        right => right,
        answers => answers,
        changes => question
            .changes
            .iter()
            .map(|(arm, change)| context! { arm => arm.as_str(), change => change.name() })
            .collect::<Vec<_>>(),
    }
}

fn answer(ShownCompletion { by, sample }: &ShownCompletion) -> Value {
    let verdict = match sample.verdict {
        Verdict::Correct => "correct",
        Verdict::Wrong => "wrong",
        Verdict::Undecided(_) => "undecided",
    };
    context! {
        by => by.as_str(),
        verdict => verdict,
        reason => if let Verdict::Undecided(reason) = &sample.verdict { format!("{reason}; {}", sample.how) } else { sample.how.clone() },
        answer => sample.answer.as_deref(),
        tokens => sample.tokens,
        finish => sample.finish.as_str(),
        text => Value::from_safe_string(tagged(&sample.text)),
    }
}

/// A sentence of the report, with names in backquotes as code.
fn sentence(text: &str) -> Value {
    let mut html = String::new();
    for (i, part) in text.split('`').enumerate() {
        let part = svg_escape(&joined(part));
        if i % 2 == 0 {
            html.push_str(&part)
        } else {
            let class = if part.chars().count() > LONG_NAME { " class=\"long\"" } else { "" };
            write!(html, "<code{class}>{part}</code>").expect("writing to a string does not fail")
        }
    }
    Value::from_safe_string(html)
}

/// `text` in which a line does not end within an interval, or between a number and its percent sign.
fn joined(text: &str) -> String {
    static INTERVAL: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\[([^\[\], ]{1,12}), ").expect("the pattern is valid"));
    INTERVAL.replace_all(text, "[$1,\u{a0}").replace(" %", "\u{a0}%")
}

/// A completion with its tags and boxes marked.
fn tagged(text: &str) -> String {
    static TAG: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"</?[A-Za-z][A-Za-z0-9_-]{0,30}>|\\boxed\{").expect("the pattern is valid"));
    let (mut html, mut last) = (String::new(), 0);
    for found in TAG.find_iter(text) {
        html.push_str(&lines(&text[last..found.start()]));
        let name = found.as_str().trim_matches(['<', '/', '>', '\\', '{']);
        let class = match name {
            "answer" => "answer",
            "boxed" => "boxed",
            _ => "tag",
        };
        write!(html, "<b class=\"{class}\">{}</b>", lines(found.as_str())).expect("writing to a string does not fail");
        last = found.end();
    }
    html.push_str(&lines(&text[last..]));
    html
}

/// Escaped text that keeps its line breaks.
fn lines(text: &str) -> String {
    text.split('\n').map(svg_escape).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::document::{QuestionChange, Section};
    use crate::report::load::ReportedSample;

    const HOSTILE: &str = "</pre><script>alert(1)</script>\u{1b}[31m <think>\"'&amp; \\boxed{4}</think>";

    #[test]
    fn text_from_outside_is_escaped() {
        let sample = ReportedSample {
            id: HOSTILE.into(),
            question: String::new(),
            gold: String::new(),
            text: HOSTILE.into(),
            tokens: 3,
            finish: HOSTILE.into(),
            answer: Some(HOSTILE.into()),
            verdict: Verdict::Undecided(HOSTILE.into()),
            how: HOSTILE.into(),
        };
        let question = ShownQuestion {
            benchmark: HOSTILE.into(),
            id: HOSTILE.into(),
            text: HOSTILE.into(),
            gold: HOSTILE.into(),
            answers: vec![ShownCompletion { by: HOSTILE.into(), sample }],
            changes: vec![(HOSTILE.into(), QuestionChange::Learned)],
        };
        let mut table = Table::new("t", HOSTILE, [HOSTILE]);
        table.rows.push(vec![HOSTILE.into()]);
        let blocks = vec![
            DocumentBlock::Text(HOSTILE.into()),
            DocumentBlock::List(vec![format!("`{HOSTILE}`")]),
            DocumentBlock::Closed { title: HOSTILE.into(), blocks: vec![DocumentBlock::Table(table)] },
            DocumentBlock::Panels { names: vec![HOSTILE.into()], panels: vec![] },
            DocumentBlock::Commands(vec![HOSTILE.into()]),
            DocumentBlock::Completions(vec![question]),
        ];
        let sections = vec![Section { id: "x", title: "X", blocks }];
        let document = Document { title: HOSTILE.into(), notes: vec![HOSTILE.into()], sections };
        let page = render(&document).unwrap();
        assert!(!page.contains("<script>alert") && !page.contains("</pre><script>"), "{page}");
        assert!(!page.contains('\u{1b}') && !page.contains("<think>"));
        // The only script is the report's own.
        assert_eq!(page.matches("<script").count(), 1);
        assert!(
            page.contains("<b class=\"tag\">&lt;think&gt;</b>") && page.contains("<b class=\"boxed\">\\boxed{</b>")
        );
    }

    #[test]
    fn details_and_the_rest_of_long_lists_are_closed() {
        let items = (0..SHOWN_ITEMS + 2).map(|at| format!("item {at}, 5 % [1.0, 2.0]")).collect();
        let table = DocumentBlock::Table(Table::new("t", "caption", ["head"]));
        let blocks =
            vec![DocumentBlock::List(items), DocumentBlock::Closed { title: "the rest".into(), blocks: vec![table] }];
        let sections = vec![Section { id: "x", title: "X", blocks }];
        let page = render(&Document { title: "t".into(), notes: vec![], sections }).unwrap();
        let parts: Vec<&str> = page.split("<details class=\"data\">").collect();
        assert!(parts[0].contains("item 7, 5\u{a0}% [1.0,\u{a0}2.0]") && !parts[0].contains("item 8"), "{page}");
        assert!(parts[1].contains("<summary>2 more</summary>") && parts[1].contains("item 9"), "{page}");
        assert!(parts[2].contains("<summary>the rest</summary>") && parts[2].contains("caption"), "{page}");
        assert_eq!(page.matches("</details>").count(), 2);
    }

    #[test]
    fn completions_keep_their_line_breaks() {
        assert_eq!(
            tagged("a\n<plan>b\n\n</plan>"),
            "a\n<b class=\"tag\">&lt;plan&gt;</b>b\n\n<b class=\"tag\">&lt;/plan&gt;</b>"
        );
    }
}
