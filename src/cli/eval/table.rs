//! Scores as tables.

use comfy_table::{CellAlignment, Table, presets};

use crate::cli::fitted::fitted;
use crate::eval::bench::{self, AnswerKind, QuestionOrigin};
use crate::eval::folder::Identity;
use crate::eval::score::{BenchmarkScores, PromptAccuracy, ShareEstimate};
use crate::eval::sensitivity::{self, ScaleEnd};

/// One line that describes the model and the evaluation settings.
pub fn title(identity: &Identity) -> String {
    let adapter = identity.adapter.as_ref().map(|it| format!(" with the adapter `{it}`")).unwrap_or_default();
    let words = if identity.wording == "rft" { String::new() } else { format!(" (wording: {})", identity.wording) };
    format!(
        "{}{adapter}, prior prompt `{}`{words}, profile `{}`, temperature {}, top-p {}, seed {}",
        identity.model, identity.ppe, identity.profile, identity.temperature, identity.top_p, identity.seed
    )
}

/// The model and the settings, the scores, and notes about the questions.
pub fn report(identity: &Identity, all: &[(BenchmarkScores, Option<f64>)]) -> String {
    let mut text = format!("{}\n{}", title(identity), fitted(scores(all)));
    for (scores, _) in all {
        for note in &scores.notes {
            text.push_str(&format!("\nnote: `{}`: {note}", scores.benchmark));
        }
        for warning in &scores.warnings {
            text.push_str(&format!("\nwarning: `{}`: {warning}", scores.benchmark));
        }
    }
    text
}

/// One row per benchmark, with the tokens per second of this process if it generated any.
fn scores(all: &[(BenchmarkScores, Option<f64>)]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    let several = all.iter().any(|(scores, _)| scores.samples > 1);
    let mut header = vec!["benchmark", "questions", "accuracy, 95 % interval"];
    if several {
        header.extend(["pass@k", "maj@k"]);
    }
    header.extend(["truncated", "no answer", "undecided", "tokens / max", "tokens/s"]);
    table.set_header(header);
    for (it, speed) in all {
        let mut row = vec![it.benchmark.clone(), questions(it), estimate(&it.accuracy)];
        if several {
            row.push(
                it.pass_at
                    .last_key_value()
                    .map(|(k, value)| format!("{} (k={k})", percent(*value)))
                    .unwrap_or_default(),
            );
            row.push(it.majority.map_or_else(|| "-".to_owned(), percent));
        }
        row.extend([percent(it.truncated), percent(it.no_answer), percent(it.undecided)]);
        let limit = if it.max_tokens > 0 { format!(" / {}", it.max_tokens) } else { String::new() };
        row.push(format!("{:.0} ({:.0} to {:.0}){limit}", it.tokens.mean, it.tokens.p10, it.tokens.p90));
        row.push(speed.map_or_else(|| "-".to_owned(), |speed| format!("{speed:.0}")));
        table.add_row(row);
        for (name, PromptAccuracy { questions, accuracy }) in &it.by_prompt {
            table.add_row([format!("  {name}"), questions.to_string(), estimate(accuracy)]);
        }
        for (what, other) in [("base tests", &it.base_accuracy), ("letter given", &it.letter_accuracy)] {
            if let Some(other) = other {
                table.add_row([format!("  {what}"), String::new(), estimate(other)]);
            }
        }
        if let Some(share) = it.unparsable {
            table.add_row(["  not Python".to_owned(), String::new(), percent(share)]);
        }
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// `first 20 of 500 x 4`
fn questions(scores: &BenchmarkScores) -> String {
    let of = if scores.questions < scores.of {
        format!("first {} of {}", scores.questions, scores.of)
    } else {
        scores.of.to_string()
    };
    if scores.samples > 1 { format!("{of} x {}", scores.samples) } else { of }
}

fn estimate(it: &ShareEstimate) -> String {
    format!("{:.1} % [{:.1}, {:.1}]", 100.0 * it.value, 100.0 * it.interval.low, 100.0 * it.interval.high)
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// The shipped benchmarks.
pub fn benchmarks() -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["benchmark", "other names", "questions", "samples", "answer", "source", "7B", "detectable"]);
    for it in bench::all() {
        let source = match &it.origin {
            QuestionOrigin::Hub(set) => set.id.to_owned(),
            QuestionOrigin::Arithmetic { .. } => "generated".to_owned(),
            QuestionOrigin::File(file) => file.path.display().to_string(),
        };
        let answer = match it.kind {
            AnswerKind::Math => "a value",
            AnswerKind::Choice => "an option",
            AnswerKind::Code { .. } => "a program",
        };
        let questions = it.questions().unwrap_or(0);
        let row = [
            it.name,
            it.aliases.join(", "),
            questions.to_string(),
            it.samples.to_string(),
            answer.to_owned(),
            source,
            it.level_7b.map_or_else(|| "-".to_owned(), |level| format!("{:.0} %", 100.0 * level)),
            it.level_7b.map_or_else(|| "-".to_owned(), |level| sensitivity_of(level, questions, it.samples)),
        ];
        table.add_row(row);
    }
    let note = "7B: the accuracy that a model of 7 billion parameters is assumed to have. detectable: the smallest difference \
                between two such models\nthat a paired comparison finds in four of five studies, in points; near an end of the \
                scale it says little.";
    format!("{}\n{note}", fitted(table))
}

/// `5.4`, or `4.1, near the floor`.
fn sensitivity_of(level: f64, questions: usize, samples: usize) -> String {
    let points = sensitivity::detectable(level, questions, samples)
        .map_or_else(|| "-".to_owned(), |it| format!("{:.1}", 100.0 * it));
    match sensitivity::near_limit(level, questions) {
        Some(ScaleEnd::Floor) => format!("{points}, near the floor"),
        Some(ScaleEnd::Ceiling) => format!("{points}, near the ceiling"),
        None => points,
    }
}
