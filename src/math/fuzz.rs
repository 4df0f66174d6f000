//! Laws of the checker on many generated texts: well-formed answers of every construct, and noise.
//!
//! By default 2,000 texts per law; `RFT_FUZZ=1000000 cargo test --release math::fuzz` is a long run, which also
//! compares the time of every check with [`LIMIT`].

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

/// Maximum time of a check in a long run.
const LIMIT: Duration = Duration::from_millis(20);
/// Maximum time in a short run, on a machine that is busy with other tests.
const WIDE_LIMIT: Duration = Duration::from_secs(1);

fn cases() -> Option<u32> {
    std::env::var("RFT_FUZZ").ok().map(|it| it.parse().expect("RFT_FUZZ is a number of texts"))
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: cases().unwrap_or(2_000), failure_persistence: None, ..ProptestConfig::default() }
}

/// Runs a check and fails if it is slow. A slow check is repeated, because other work can delay it, but not every time;
/// only the processor time of this thread counts then.
fn timely(gold: &str, answer: &str) -> Verdict {
    let limit = if cases().is_some() { LIMIT } else { WIDE_LIMIT };
    let start = Instant::now();
    let verdict = check(gold, answer);
    let mut least = start.elapsed();
    for _ in 0..5 {
        if least < limit {
            return verdict;
        }
        let (start, given) = (Instant::now(), processor_time());
        check(gold, answer);
        let elapsed = start.elapsed();
        least = least.min(processor_time().zip(given).map_or(elapsed, |(now, then)| now - then));
    }
    panic!("{least:?} for `{gold}` and `{answer}`");
}

/// The processor time of this thread; known on Linux.
fn processor_time() -> Option<Duration> {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    times.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

/// Choices that decide how a text is generated; when they are used up, the text ends.
struct FuzzChoices<'a>(std::slice::Iter<'a, u8>);

impl FuzzChoices<'_> {
    fn below(&mut self, count: usize) -> usize {
        self.0.next().map_or(0, |it| usize::from(*it) % count)
    }

    fn pick<'t>(&mut self, some: &[&'t str]) -> &'t str {
        some[self.below(some.len())]
    }

    fn many(&mut self, separator: &str, mut one: impl FnMut(&mut Self) -> String) -> String {
        let count = 2 + self.below(3);
        (0..count).map(|_| one(self)).collect::<Vec<_>>().join(separator)
    }
}

const NUMBERS: &[&str] = &[
    "1",
    "0",
    "2",
    "-3",
    "10",
    "1,000",
    "12{,}345",
    "1\\,000\\,000",
    "0.5",
    ".25",
    "3.14159",
    "-0.001",
    "1e5",
    "6.02 \\times 10^{23}",
    "18446744073709551617",
    "2\\frac{1}{3}",
    "\\frac12",
    "\\frac{3}{4}",
    "\\dfrac{-7}{5}",
    "22/7",
    "\\tfrac{1}{1000003}",
    "\\cfrac{1}{2}",
    "0.\\overline{3}",
    "1\\frac{1}{2}",
    "99999999999999999999999999999999",
];

/// A number without symbols.
fn number(choices: &mut FuzzChoices, depth: u32) -> String {
    if depth == 0 {
        return choices.pick(NUMBERS).to_string();
    }
    let inner = |choices: &mut FuzzChoices| number(choices, depth - 1);
    match choices.below(22) {
        0..6 => choices.pick(NUMBERS).to_string(),
        6 => format!("{}+{}", inner(choices), inner(choices)),
        7 => format!("{}-({})", inner(choices), inner(choices)),
        8 => format!("({})\\cdot({})", inner(choices), inner(choices)),
        9 => format!("\\frac{{{}}}{{{}}}", inner(choices), inner(choices)),
        10 => format!("({})/({})", inner(choices), inner(choices)),
        11 => format!("\\sqrt{{{}}}", inner(choices)),
        12 => format!("\\sqrt[{}]{{{}}}", choices.pick(&["3", "4", "5", "12"]), inner(choices)),
        13 => format!("({})^{{{}}}", inner(choices), choices.pick(&["2", "3", "-1", "\\frac{1}{2}", "10", "0", "1/3"])),
        14 => format!("2^{{{}}}", inner(choices)),
        15 => choices.pick(&["\\pi", "e", "\\binom{10}{3}", "7!", "\\ln 2", "e^{2}", "\\log_2 3", "\\phi"]).to_string(),
        16 => format!("\\{}({})", choices.pick(&["sin", "cos", "tan", "arctan", "ln", "exp", "log"]), inner(choices)),
        17 => format!("\\left|{}\\right|", inner(choices)),
        18 => format!("\\lfloor {} \\rfloor", inner(choices)),
        19 => format!("{}\\%", choices.pick(NUMBERS)),
        20 => format!("{}^\\circ", choices.pick(&["30", "45", "60.5", "360"])),
        _ => format!("{}\\pi", choices.pick(NUMBERS)),
    }
}

/// An expression with symbols.
fn expression(choices: &mut FuzzChoices, depth: u32) -> String {
    if depth == 0 {
        return match choices.below(2) {
            0 => choices.pick(&["x", "y", "n", "a", "t", "\\theta", "x_1", "i", "2x", "3xy", "-x^2"]).to_string(),
            _ => choices.pick(NUMBERS).to_string(),
        };
    }
    let inner = |choices: &mut FuzzChoices| expression(choices, depth - 1);
    match choices.below(14) {
        0 => format!("{} + {}", inner(choices), inner(choices)),
        1 => format!("{} - {}", inner(choices), inner(choices)),
        2 => format!("({})({})", inner(choices), inner(choices)),
        3 => format!("\\frac{{{}}}{{{}}}", inner(choices), inner(choices)),
        4 => format!("({})^{{{}}}", inner(choices), choices.pick(&["2", "3", "-2", "n", "\\frac12"])),
        5 => format!("\\sqrt{{{}}}", inner(choices)),
        6 => format!("\\left({}\\right)", inner(choices)),
        7 => format!(
            "{} {}",
            choices.pick(&["\\sin", "\\cos", "\\ln", "\\tan", "\\sec"]),
            choices.pick(&["x", "2x", "(x+1)"])
        ),
        8 => format!("e^{{{}}}", inner(choices)),
        9 => format!("|{}|", choices.pick(&["x", "x-1", "-3"])),
        10 => format!("\\binom{{n}}{{{}}}", choices.pick(&["2", "k", "3"])),
        11 => format!("{}!", choices.pick(&["n", "5", "20"])),
        12 => format!("\\log_{{{}}} {}", choices.pick(&["2", "10", "b"]), choices.pick(&["x", "8", "9"])),
        _ => number(choices, depth - 1),
    }
}

/// An answer of any kind.
fn answer(choices: &mut FuzzChoices) -> String {
    let deep = 3;
    match choices.below(26) {
        0..4 => number(choices, deep),
        4..8 => expression(choices, deep),
        8 => format!("x = {}", expression(choices, 2)),
        9 => format!("f(x) = {}", expression(choices, 2)),
        10 => format!("{} = {}", expression(choices, 2), expression(choices, 2)),
        11 => format!("\\{{{}\\}}", choices.many(", ", |it| number(it, 1))),
        12 => format!("({})", choices.many(", ", |it| expression(it, 1))),
        13 => choices.many(choices_separator(choices.0.len()), |it| number(it, 1)),
        14 => {
            let ends = [choices.pick(&["(", "["]), choices.pick(&[")", "]"])];
            let [from, to] = [choices.pick(&["-\\infty", "-5", "0"]), choices.pick(&["3", "\\infty", "\\frac{7}{2}"])];
            format!("{}{from}, {to}{}", ends[0], ends[1])
        }
        15 => format!("(-\\infty, {}) \\cup [{}, 9]", choices.pick(&["-1", "0"]), choices.pick(&["2", "3/2"])),
        16 => format!(
            "{} {} {}",
            expression(choices, 1),
            choices.pick(&["<", ">", "\\le", "\\geq", "\\neq"]),
            number(choices, 1)
        ),
        17 => format!("{} \\le x < {}", number(choices, 0), number(choices, 1)),
        18 => {
            let name = choices.pick(&["pmatrix", "bmatrix", "vmatrix", "matrix"]);
            let row = |it: &mut FuzzChoices| format!("{} & {}", expression(it, 1), number(it, 0));
            format!("\\begin{{{name}}} {} \\\\ {} \\end{{{name}}}", row(choices), row(choices))
        }
        19 => format!("\\text{{({})}}", choices.pick(&["A", "B", "C", "D", "E"])),
        20 => choices
            .pick(&["\\text{even}", "yes", "Monday", "\\text{no solution}", "B", "\\emptyset", "\\mathbb{R}"])
            .to_string(),
        21 => format!(
            "{}{}",
            number(choices, 1),
            choices.pick(&[
                "\\text{ cm}^2",
                " \\mathrm{ m/s}",
                " meters",
                "\\,\\text{dollars}",
                " \\text{ hours}",
                " square units"
            ])
        ),
        22 => format!("{}_{{{}}}", choices.pick(&["1011", "255", "12"]), choices.pick(&["2", "8", "16", "7"])),
        23 => choices
            .pick(&["10:30", "7:05 \\text{ p.m.}", "12^{\\text{th}}", "3^{rd}", "\\$5.50", "\\$1,000", "45^\\circ 30'"])
            .to_string(),
        24 => format!("{} \\pm {}", number(choices, 1), number(choices, 1)),
        _ => format!("{} \\text{{ or }} x = {}", format_args!("x = {}", number(choices, 1)), number(choices, 1)),
    }
}

fn choices_separator(left: usize) -> &'static str {
    [", ", " \\text{ and } ", " or ", ","][left % 4]
}

/// Pieces that the lexer supports, in an order without meaning.
fn noise(choices: &[u8]) -> String {
    const PIECES: &[&str] = &[
        "{",
        "}",
        "(",
        ")",
        "[",
        "]",
        "\\{",
        "\\}",
        "^",
        "_",
        "\\frac",
        "\\sqrt",
        "\\sqrt[",
        "\\left",
        "\\right",
        "|",
        "\\begin{pmatrix}",
        "\\end{pmatrix}",
        "&",
        "\\\\",
        "1",
        "2",
        "9",
        "0",
        ".",
        ",",
        "x",
        "y",
        "\\pi",
        "e",
        "i",
        "+",
        "-",
        "*",
        "/",
        "=",
        "<",
        ">",
        "\\le",
        "\\cup",
        "\\infty",
        "\\text{",
        "\\text{ cm}",
        " ",
        "$",
        "%",
        "\\%",
        "!",
        "\\binom",
        "\\log",
        "\\ln",
        "\\sin",
        "\\circ",
        "^\\circ",
        "\\pm",
        "\\cdot",
        "\\times",
        "99999999999",
        "^{99}",
        "^{9^9}",
        "\\overline{",
        "\\lfloor",
        "\\rceil",
        "\\mathbb{R}",
        "\\in",
        "\\to",
        "é",
        "−",
        "½",
        "√",
        "\u{202e}",
        "\0",
        "\t",
        ":",
        ";",
        "'",
        "\"",
        "@",
        "#",
        "~",
        "\\",
        "\\unknown",
        "sqrt",
        "and",
        "or",
        "\\\\%",
    ];
    choices.iter().map(|it| PIECES[usize::from(*it) % PIECES.len()]).collect()
}

/// Laws that hold for any two texts.
fn laws(gold: &str, other: &str) -> Result<(), TestCaseError> {
    timely(gold, other);
    if gold_flaw(gold).is_none() {
        prop_assert_eq!(timely(gold, gold), Verdict::Correct, "`{}`", gold);
    }
    Ok(())
}

/// A box around an answer changes nothing, even if the answer has its own box.
fn equals_itself_in_a_box(gold: &str) -> Result<(), TestCaseError> {
    if gold_flaw(gold).is_none() {
        let boxed = format!("\\boxed{{{gold}}}");
        prop_assert_eq!(timely(gold, &boxed), Verdict::Correct, "`{}`", gold);
        prop_assert_eq!(timely(&boxed, &format!("\\fbox{{ {boxed} }}")), Verdict::Correct, "`{}`", gold);
    }
    Ok(())
}

fn bytes(count: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..count)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn well_formed_answers(one in bytes(30), other in bytes(30)) {
        let [one, other] = [&one, &other].map(|it| answer(&mut FuzzChoices(it.iter())));
        laws(&one, &other)?;
        equals_itself_in_a_box(&one)?;
    }

    #[test]
    fn numbers_are_symmetric(one in bytes(16), other in bytes(16)) {
        let [one, other] = [&one, &other].map(|it| number(&mut FuzzChoices(it.iter()), 2));
        if gold_flaw(&one).is_none() && gold_flaw(&other).is_none() {
            let same = |a: &Verdict, b: &Verdict| std::mem::discriminant(a) == std::mem::discriminant(b);
            let (there, back) = (timely(&one, &other), timely(&other, &one));
            prop_assert!(same(&there, &back), "`{one}` `{other}`: {there}, but {back}");
        }
    }

    #[test]
    fn noise_is_survived(one in bytes(60), other in bytes(40)) {
        laws(&noise(&one), &noise(&other))?;
    }

    /// An answer with a few pieces of noise in it is closer to what a model writes.
    #[test]
    fn broken_answers_are_survived(text in bytes(30), piece in bytes(3), place in any::<prop::sample::Index>()) {
        let whole = answer(&mut FuzzChoices(text.iter()));
        let at = whole.floor_char_boundary(place.index(whole.len() + 1));
        laws(&format!("{}{}{}", &whole[..at], noise(&piece), &whole[at..]), &whole)?;
    }
}
