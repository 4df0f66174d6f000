//! Every row of the table of answers, and the gold answers of published sets.
//!
//! `tests/oracle/math_verify.py` shows the results of another checker on the same table.

use std::collections::BTreeMap;
use std::path::Path;

use rft::eval::choice::{Chosen, stated};
use rft::math::{Verdict, check, check_for, gold_flaw, grade_lenient};
use rft::rng::{Purpose, Stream};

use crate::require::data;

const TABLE: &str = include_str!("../fixtures/answers.tsv");

struct Row {
    line: usize,
    category: &'static str,
    gold: &'static str,
    answer: &'static str,
    verdict: &'static str,
}

/// Every row: gold answer, answer, verdict and, if another checker differs for a reason, the reason. A line that starts
/// with `#` names the category of the lines below it.
fn rows() -> Vec<Row> {
    let (mut rows, mut category) = (Vec::new(), "");
    for (index, text) in TABLE.lines().enumerate() {
        let line = index + 1;
        if let Some(heading) = text.strip_prefix('#') {
            category = heading.trim();
            continue;
        }
        let fields: Vec<&str> = text.split('\t').collect();
        let [gold, answer, verdict, ..] = fields[..] else { panic!("line {line}: fewer than three columns") };
        assert!(fields.len() <= 4, "line {line}: more than four columns");
        assert!(["correct", "wrong", "undecided"].contains(&verdict), "line {line}: `{verdict}` is not a verdict");
        rows.push(Row { line, category, gold, answer, verdict });
    }
    rows
}

fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Correct => "correct",
        Verdict::Wrong => "wrong",
        Verdict::Undecided(_) => "undecided",
    }
}

#[test]
fn the_table_has_many_rows_of_each_kind() {
    let rows = rows();
    let count = |verdict: &str| rows.iter().filter(|it| it.verdict == verdict).count();
    let mut categories = BTreeMap::<&str, usize>::new();
    for row in &rows {
        *categories.entry(row.category).or_default() += 1;
    }
    assert!(rows.len() >= 4_000, "{} rows", rows.len());
    assert!(categories.len() >= 60, "{} categories", categories.len());
    assert!(categories.values().all(|rows| *rows >= 10), "{categories:?}");
    assert!(count("wrong") * 10 >= rows.len() * 4, "{} of {} wrong", count("wrong"), rows.len());
    assert!(count("undecided") * 20 <= rows.len(), "{} of {} undecided", count("undecided"), rows.len());
    let mut pairs: Vec<_> = rows.iter().map(|it| (it.gold, it.answer)).collect();
    pairs.sort_unstable();
    let twice = pairs.windows(2).find(|pair| pair[0] == pair[1]);
    assert_eq!(twice, None, "a pair occurs twice");
}

#[test]
fn every_row_of_the_table_gets_its_verdict() {
    let rows = rows();
    let (mut wrong, mut by_category) = (Vec::new(), BTreeMap::<&str, usize>::new());
    for row in &rows {
        let verdict = check(row.gold, row.answer);
        if word(&verdict) != row.verdict {
            wrong.push(format!("{}: {} | {} | {}, but {verdict}", row.line, row.gold, row.answer, row.verdict));
            *by_category.entry(row.category).or_default() += 1;
        }
    }
    assert!(wrong.is_empty(), "{} of {} rows, {by_category:#?}\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}

#[test]
fn every_readable_answer_equals_itself() {
    for row in rows() {
        for text in [row.gold, row.answer].into_iter().filter(|it| gold_flaw(it).is_none()) {
            assert_eq!(check(text, text), Verdict::Correct, "line {}: {text}", row.line);
        }
    }
}

/// The ends of completions as models write them. Of a value: whether the lenient extraction finds the gold answer. Of a
/// question with options: what is stated, a letter, a letter with `v` if by its value, `several`, `other` or `none`.
const ENDINGS: &str = include_str!("../fixtures/endings.jsonl");

#[test]
fn answers_are_found_in_the_endings_that_models_write() {
    let (mut faults, mut values, mut choices) = (Vec::new(), 0, 0);
    for line in ENDINGS.lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let field = |name: &str| row[name].as_str().unwrap_or_else(|| panic!("{name}: {line}"));
        let text = field("text");
        let (got, expected) = match row["options"].as_array() {
            Some(options) => {
                choices += 1;
                let options: Vec<String> = options.iter().map(|it| it.as_str().unwrap().to_owned()).collect();
                (statement(text, &options), field("states").to_owned())
            }
            None => {
                values += 1;
                let graded = grade_lenient(text, field("gold"));
                let right = graded.verdict == Verdict::Correct;
                (if right { "correct" } else { "not correct" }.to_owned(), field("verdict").to_owned())
            }
        };
        if got != expected {
            faults.push(format!("{text:?}: {expected}, but {got}"));
        }
    }
    assert!(values >= 100 && choices >= 100, "{values} and {choices}");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn statement(text: &str, options: &[String]) -> String {
    let letter = |place: usize| char::from(b'A' + place as u8);
    match stated(text, options).map(|it| it.chosen) {
        None => "none".to_owned(),
        Some(Chosen::Letter(place)) => letter(place).to_string(),
        Some(Chosen::Value(place)) => format!("{}v", letter(place)),
        Some(Chosen::Several(_)) => "several".to_owned(),
        Some(Chosen::Other(_)) => "other".to_owned(),
    }
}

/// GSM8K leaves the sign out of its gold answers. Only a question that asks for a percentage makes 60 % the same as 60, and
/// never 0.6.
#[test]
fn a_percent_sign_after_a_bare_gold_answer_needs_its_question() {
    for question in [
        "What percentage of the apples did she sell?",
        "He sold 20% of the 50 cars. What percent of the rest was blue?",
        "How many percent of the students passed?",
        "Find the profit as a percentage. Round to a whole number.",
        "Express this as a percent.",
        "By what percent did the price increase?",
    ] {
        for right in [r"60\%", "60%", "60", "60 percent", r"60\text{ per cent}", "60.0\\%"] {
            assert_eq!(check_for(question, "60", right), Verdict::Correct, "{question} {right}");
        }
        for wrong in ["0.6", r"0.6\%", r"6\%", r"6000\%", "61%", r"\frac{3}{5}"] {
            assert_eq!(check_for(question, "60", wrong), Verdict::Wrong, "{question} {wrong}");
        }
        // The sign of a gold answer counts as it does without a question.
        assert_eq!(check_for(question, r"60\%", "0.6"), Verdict::Correct);
        assert_eq!(check_for(question, r"60\%", "60"), Verdict::Wrong);
    }
    for question in [
        "",
        "How many apples are left?",
        "She sold 40% of 100 apples. How many are left?",
        "How much is 20 percent of 300?",
    ] {
        for answer in [r"60\%", "60 percent", "0.6"] {
            assert_eq!(check_for(question, "60", answer), Verdict::Wrong, "{question} {answer}");
        }
        assert_eq!(check_for(question, "60", "60"), Verdict::Correct);
    }
}

/// Names come from the question, and only the gold answer's count: `17` may be answered by `a + b = 17`, but not vice
/// versa.
#[test]
fn the_order_of_numbers_does_not_matter() {
    let number = |text: &str| !text.contains(['=', ':', '\\']) && !text.contains(|c: char| c.is_ascii_alphabetic());
    for Row { line, gold, answer, .. } in rows() {
        if [gold, answer].into_iter().all(|it| number(it) && gold_flaw(it).is_none()) {
            assert_eq!(word(&check(gold, answer)), word(&check(answer, gold)), "line {line}: {gold} | {answer}");
        }
    }
}

/// The gold answers of a set in JSON lines or in one JSON array; of GSM8K what follows `####`.
fn golds(folder: &Path, name: &str) -> Vec<String> {
    let path = folder.join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let rows: Vec<serde_json::Value> = match text.starts_with('[') {
        true => serde_json::from_str(&text).unwrap(),
        false => text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
    };
    let gold = |row: &serde_json::Value| match &row["answer"] {
        serde_json::Value::String(text) => text.rsplit("####").next().unwrap_or_default().trim().to_string(),
        number => number.to_string(),
    };
    rows.iter().map(gold).collect()
}

const SETS: [(&str, usize); 4] =
    [("math500.jsonl", 500), ("gsm8k_test.jsonl", 1_319), ("aime2024.jsonl", 30), ("amc12.json", 83)];

/// Needs RFT_DATA_DIR.
#[test]
fn published_golds_are_read_and_equal_themselves() {
    let Some(folder) = data() else { return };
    for (name, rows) in SETS {
        let golds = golds(&folder, name);
        assert_eq!(golds.len(), rows, "{name}");
        let unread: Vec<&String> = golds.iter().filter(|gold| gold_flaw(gold).is_some()).collect();
        assert!(unread.is_empty(), "{name}: {unread:?}");
        for gold in &golds {
            assert_eq!(check(gold, gold), Verdict::Correct, "{name}: {gold}");
        }
    }
}

/// The larger sets may have a few unreadable rows: their answers are unedited.
#[test]
fn nearly_all_golds_of_the_larger_sets_are_read() {
    let Some(folder) = data() else { return };
    for name in ["math_level3to5.json", "gsm8k_train.jsonl"] {
        let golds = golds(&folder, name);
        let unread: Vec<&String> = golds.iter().filter(|gold| gold_flaw(gold).is_some()).collect();
        assert!(unread.len() * 200 <= golds.len(), "{name}: {} cannot be read: {unread:?}", unread.len());
        for gold in golds.iter().filter(|it| gold_flaw(it).is_none()) {
            assert_eq!(check(gold, gold), Verdict::Correct, "{name}: {gold}");
        }
    }
}

/// Different texts among the pairs below that have the same meaning; each was checked by a person.
const EQUAL_PAIRS: [(&str, &str); 12] = [
    ("14,000", "14000"),
    (r"10,\!080", "10080"),
    ("1,-2", "-2,1"),
    ("x=5", "5"),
    (r"\frac14", r"\frac{1}{4}"),
    (r"2 \sqrt{5}", r"2\sqrt{5}"),
    (r"30^\circ", "30"),
    (r"36^\circ", "36"),
    (r"90^\circ", "90"),
    (r"120^\circ", "120"),
    (r"\$36", "36"),
    (r"15\mbox{ cm}^2", "15"),
];

/// Ten thousand pairs of gold answers with different texts, and all pairs of MATH-500, where most forms occur: one is
/// accepted for the other only if they are equal.
#[test]
fn different_gold_answers_are_not_equal() {
    let Some(folder) = data() else { return };
    let distinct = |sets: &[(&str, usize)]| {
        let mut pool: Vec<String> = sets.iter().flat_map(|(name, _)| golds(&folder, name)).collect();
        pool.sort_unstable();
        pool.dedup();
        pool
    };
    let mut accepted = Vec::new();
    let mut compare = |one: &str, other: &str| {
        let equal = EQUAL_PAIRS.iter().any(|pair| *pair == (one, other) || *pair == (other, one));
        if check(one, other) == Verdict::Correct && !equal {
            accepted.push(format!("{one} | {other}"));
        }
    };

    let (pool, stream) = (distinct(&SETS), Stream::new(0, Purpose::Test, &[]));
    let draws = (0..).map(|draw| stream.block(draw, 0)).map(|words| [words[0], words[1]]);
    let pairs = draws.map(|words| words.map(|word| &pool[word as usize % pool.len()]));
    for [one, other] in pairs.filter(|[one, other]| one != other).take(10_000) {
        compare(one, other);
    }
    let pool = distinct(&SETS[..1]);
    for (index, one) in pool.iter().enumerate() {
        for other in &pool[..index] {
            compare(one, other);
            compare(other, one);
        }
    }
    assert!(accepted.is_empty(), "{accepted:#?}");
}
