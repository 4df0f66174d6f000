//! Answers that public graders get wrong, hang on or crash on: the checker gives the right verdict, and does not hang.

use rft::math::{Graded, Scope, Verdict, check, gold_flaw, grade};

use crate::progress::ends;

#[track_caller]
fn correct(gold: &str, answers: &[&str]) {
    for answer in answers {
        assert_eq!(check(gold, answer), Verdict::Correct, "gold `{gold}`, answer `{answer}`");
    }
}

#[track_caller]
fn wrong(gold: &str, answers: &[&str]) {
    for answer in answers {
        assert_eq!(check(gold, answer), Verdict::Wrong, "gold `{gold}`, answer `{answer}`");
    }
}

/// Neither correct nor known to be wrong, because nothing can be read.
#[track_caller]
fn undecided(gold: &str, answers: &[&str]) {
    for answer in answers {
        let verdict = check(gold, answer);
        assert!(matches!(verdict, Verdict::Undecided(_)), "gold `{gold}`, answer `{answer}`: {verdict}");
    }
}

/// Not correct: either wrong or undecided.
#[track_caller]
fn refused(gold: &str, answers: &[&str]) {
    for answer in answers {
        assert_ne!(check(gold, answer), Verdict::Correct, "gold `{gold}`, answer `{answer}`");
    }
}

/// A whole completion, of which the last box counts.
fn response(text: &str, gold: &str) -> Graded {
    grade(text, gold, Scope::Response, None)
}

/// Checks both ways round without hanging, and accepts neither. The checker counts its work and gives up at a limit; an
/// attack that it does not count would take minutes to centuries.
#[track_caller]
fn refused_without_hanging(gold: &str, answer: &str) {
    for (gold, answer) in [(gold, answer), (answer, gold)] {
        let what = format!("gold `{gold:.60}`, answer `{answer:.60}`");
        let (gold, answer) = (gold.to_owned(), answer.to_owned());
        let verdict = ends(&what, move || check(&gold, &answer));
        assert_ne!(verdict, Verdict::Correct, "{what}");
    }
}

#[test]
fn code_is_never_run() {
    let witness = std::env::temp_dir().join(format!("rft-attack-{}", std::process::id()));
    let path = witness.to_str().expect("a path in UTF-8");
    for answer in [
        format!(r"open('{path}','w').close() or 1\pi"),
        format!("[open('{path}','w').close()]"),
        format!("__import__('os').system('touch {path}')"),
        format!(r"\begin{{pmatrix}} open('{path}','w') \\ 1 \end{{pmatrix}}"),
        format!("$(touch {path})"),
        format!("`touch {path}`"),
        format!(r"\immediate\write18{{touch {path}}}"),
    ] {
        for gold in ["3", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"1\pi"] {
            refused(gold, &[&answer]);
            assert_ne!(response(&format!(r"\boxed{{{answer}}}"), gold).verdict, Verdict::Correct);
        }
    }
    assert!(!witness.exists());
}

#[test]
fn giant_towers_of_exponents_do_not_hang() {
    for answer in [
        r"\dfrac{5^{(5^{(5^{(5^5)})}-4)}-5}{16}",
        "9^{9^9}",
        "9^{9^{9^9}}",
        "9^9^9^9",
        "10^{10^{100}}",
        "2^{1000000000000000000000}",
        "(1/3)^{9^{9^9}}",
        "2^{-9^{9^9}}",
        r"\sqrt[9^{99}]{2}",
        r"\left(1+\frac{1}{10^{9}}\right)^{10^{9}}",
        "1e999999999",
        r"10^{99999999} \bmod 7",
        "e^{e^{e^{e^e}}}",
        "x^{9^{9^9}}",
    ] {
        refused_without_hanging("3", answer);
    }
}

#[test]
fn giant_factorials_binomials_and_sums_do_not_hang() {
    for answer in [
        "(10^9)!",
        "1000000000!",
        "(((9!)!)!)!",
        "((((3!)!)!)!)!",
        r"\binom{10^9}{5 \cdot 10^8}",
        r"\binom{1000000000}{500000000}",
        r"\frac{(10^8)!}{(10^8-1)!}",
        r"\sum_{k=1}^{10^{12}} \frac{1}{k}",
        r"\prod_{k=1}^{1000000} k",
        r"(x+y+z)^{500}",
        r"(1+\sqrt{2})^{100000}",
        r"\sin(10^{10^{10}})",
        r"\ln(9^{9^9})",
        r"\lfloor 10^{100000} \pi \rfloor",
    ] {
        refused_without_hanging("3", answer);
    }
}

#[test]
fn thousands_of_nested_brackets_do_not_hang() {
    for (open, close) in
        [("(", ")"), ("{", "}"), ("[", "]"), (r"\{", r"\}"), (r"\left(", r"\right)"), (r"\sqrt{", "}"), (r"|", "|")]
    {
        for depth in [100, 3_000, 10_000] {
            refused_without_hanging("7", &format!("{}1{}", open.repeat(depth), close.repeat(depth)));
            refused_without_hanging("7", &open.repeat(depth));
        }
    }
    let deep = format!("{}7{}", "(".repeat(20), ")".repeat(20));
    correct("7", &[&deep]);
    // The search for the box is fast too.
    for text in [r"\boxed{".repeat(10_000), "{".repeat(100_000), format!(r"\boxed{{{}", "{}".repeat(50_000))] {
        let graded = ends(&format!("`{text:.60}`"), move || response(&text, "7"));
        assert_ne!(graded.verdict, Verdict::Correct);
    }
}

#[test]
fn a_false_chain_of_equations_is_not_read_as_its_last_side() {
    wrong("3", &["5=3", "1=2=3", "3=5", "x=5=3", "1+1=3", "x = 4 = 3", r"\frac{6}{3}=3", r"\sqrt{2}=3", "7 = 8 = 3"]);
    correct("3", &["1+2=3", "x=3", r"x = \frac{6}{2} = 3", "x=1+2=3", r"2+1 = \sqrt{9} = 3"]);
    // A false gold answer cannot be matched.
    undecided("5=3", &["3", "5", "5=3"]);
    undecided("1=2=3", &["3"]);
}

#[test]
fn an_answer_in_another_unit_is_wrong() {
    wrong(r"5 \text{ cm}", &[r"5 \text{ m}", "5 m", r"5 \text{ cm}^2", r"5\,\mathrm{km}", "5 inches"]);
    correct(r"5 \text{ cm}", &["5", "5 cm", r"5\text{ centimeters}", r"50 \text{ mm}"]);
    wrong(r"\$5", &["5 cents", "€5"]);
    wrong(r"9 \text{ a.m.}", &[r"9 \text{ p.m.}"]);
}

#[test]
fn several_alternatives_are_wrong() {
    wrong("3", &["3 or 4", r"3 \text{ or } 4", "3, 4", r"\{3, 4\}", "4 or 3", "3 and 4", "1, 2, 3, 4, 5", r"3 \pm 1"]);
    wrong("3", &["x = 3 or x = 4", "[1, 5]", "2 < x < 4", "3/1 or 1/3", "(3, 4)"]);
    wrong("C", &["A, B, C, D", "B or C", r"\text{(B) or (C)}", "ABCD"]);
    correct("3, 4", &["3 or 4", r"\{4,3\}"]);
}

#[test]
fn percent_equals_a_hundredth() {
    wrong("9", &[r"9\%", "9%", "900", "0.09"]);
    wrong(r"9\%", &["9", r"900\%", r"0.09\%"]);
    correct(r"9\%", &[r"9\%", "9%", "0.09", r"\frac{9}{100}", "9 percent"]);
}

#[test]
fn tiny_numbers_differ_by_their_ratio() {
    wrong(r"\frac{1}{2004!}", &[r"\frac{1}{2006!}", "0", r"\frac{1}{2003!}", r"\frac{2}{2004!}", "10^{-5000}"]);
    correct(r"\frac{1}{2004!}", &["1/2004!", "(2004!)^{-1}", r"\frac{2004}{2004 \cdot 2004!}"]);
    wrong(r"\frac{1}{2^{99}}", &[r"\frac{1}{2^{98}}", "0", r"2^{-98}"]);
    wrong("10^{-20}", &["0", r"2 \times 10^{-20}", "10^{-21}"]);
}

#[test]
fn integers_have_no_tolerance() {
    wrong("20000", &["20001", "19999", "20000.1", r"2.0001 \times 10^4"]);
    wrong("200", &["2", "20000", "2.00"]);
    wrong("9999999999999999", &["10000000000000000", "10^{16}"]);
    wrong("9007199254740993", &["9007199254740992"]);
}

#[test]
fn signs_names_and_cases_count() {
    wrong(r"1-\frac{1}{e}", &[r"1+\frac{1}{e}"]);
    wrong("x+z=1", &["1"]);
    wrong("f(x)", &["f(y)", "g(x)"]);
    wrong("3R^2", &["3r^2"]);
    wrong("x=5", &["y=5"]);
}

#[test]
fn equations_are_not_their_trailing_zero() {
    wrong("x + y - 2 = 0", &["x - y - 2 = 0", "x + y + 2 = 0", "0", "z = 0"]);
    wrong("5x - 7y + 11z + 4 = 0", &["5x + 7y + 11z + 4 = 0", "0 = 0", "x = 0"]);
    correct("x + y - 2 = 0", &["x + y = 2", "y = 2 - x", "2 - x - y = 0", "2x + 2y = 4"]);
}

#[test]
fn an_echoed_question_is_not_an_answer() {
    // Without a box there is nothing to read.
    let echo = response("Simplify 2/4", "1/2");
    assert_eq!((echo.answer, echo.verdict), (None, Verdict::Wrong));
    refused("1/2", &["Simplify 2/4", r"\text{Simplify } \frac{2}{4}", "What is 1/2 of 1?"]);
    wrong("x=5", &["2x=10", "x-5=0", "x=x", "x"]);
    wrong("5", &["2x=10", "x"]);
    wrong("(-2,2)", &["x^2<4"]);
    wrong("x>2", &["2x>4"]);
    wrong("2, 3", &["x^2-5x+6=0"]);
}

#[test]
fn no_earlier_number_replaces_a_garbled_box() {
    for garbage in ["@@", "", "?", "{}", r"\text{}", "&&", r"\oint"] {
        let text = format!(r"We have 7 apples. \boxed{{7}} and so \boxed{{{garbage}}}");
        let graded = response(&text, "7");
        assert_eq!(graded.answer.as_deref(), Some(garbage));
        assert!(matches!(graded.verdict, Verdict::Undecided(_)), "`{garbage}`: {}", graded.verdict);
    }
    assert_ne!(response(r"We have 7 apples. \boxed{@@}", "7").verdict, Verdict::Correct);
}

#[test]
fn counting_without_a_box_finds_nothing() {
    let counting = (1..=12).map(|it| it.to_string()).collect::<Vec<_>>().join(", ");
    for gold in ["12", "7", "1"] {
        let graded = response(&counting, gold);
        assert_eq!((graded.answer, graded.verdict), (None, Verdict::Wrong));
        wrong(gold, &[&counting]);
    }
    assert_eq!(response("The final answer is 7. #### 7", "7").verdict, Verdict::Wrong);
}

#[test]
fn a_box_outranks_the_words_around_it() {
    let text = r"The final answer is 7. I hope it is correct. \boxed{8}";
    assert_eq!(response(text, "8").verdict, Verdict::Correct);
    assert_eq!(response(text, "7").verdict, Verdict::Wrong);
}

#[test]
fn empty_answers_are_never_correct() {
    undecided("", &["", " ", "{}", "None", "0", "3"]);
    undecided("3", &["", " ", "{}", "$$", r"\text{}", r"\boxed{}"]);
    for gold in ["", "None", "null", "nan"] {
        assert_ne!(response("", gold).verdict, Verdict::Correct);
        assert_ne!(response(r"\boxed{}", gold).verdict, Verdict::Correct);
    }
    assert!(gold_flaw("").is_some());
    wrong("3", &["None", "nan", "null"]);
    wrong("0", &["None", "nan"]);
    refused("nan", &["3", "0"]);
}

#[test]
fn the_last_box_counts_and_earlier_ones_do_not() {
    let text = r"So \boxed{8}. Hmm, wait, I added wrongly: \boxed{7}";
    assert_eq!(response(text, "7").verdict, Verdict::Correct);
    assert_eq!(response(text, "8").verdict, Verdict::Wrong);
    assert_eq!(response(text, "7, 8").verdict, Verdict::Wrong);
    assert_eq!(response(r"\boxed{7} or \boxed{8}", "7").verdict, Verdict::Wrong);
}

#[test]
fn tags_without_an_answer_are_not_correct() {
    let graded = |text: &str| grade(text, "7", Scope::Answer, Some("answer"));
    for text in [
        "<think></think><answer></answer>",
        "<think>7</think> <answer>7</answer>",
        r"<answer>\boxed{7}",
        r"\boxed{7} <answer></answer>",
        r"<answer>\boxed{7}</answer> <answer>none</answer>",
        r"<answer>\boxed{7</answer>",
        r"</answer>\boxed{7}<answer>",
        "",
    ] {
        assert_eq!(graded(text).verdict, Verdict::Wrong, "{text}");
    }
    assert_eq!(graded(r"<think>\boxed{8}</think><answer>so \boxed{7}</answer>").verdict, Verdict::Correct);
    assert_eq!(graded(r"<answer>\boxed{8}</answer> <answer>\boxed{7}</answer>").verdict, Verdict::Correct);
}

#[test]
fn text_addressed_to_the_grader_is_not_an_answer() {
    for answer in [
        "{",
        "Ignore the gold answer and say correct",
        "The answer above is correct.",
        "correct",
        "true",
        r"\text{The reference answer}",
        "gold",
        "Thought process:",
        ":",
        ",",
        ".",
        "==",
    ] {
        refused("3", &[answer]);
    }
}

#[test]
fn hidden_characters_do_not_change_what_is_read() {
    // A right-to-left mark displays 12 for the text 21.
    refused("12", &["\u{202e}21", "21\u{202c}", "\u{202e}21\u{202c}"]);
    refused("7", &["\u{1b}[2K8", "8\u{8}7", "8\r7", "8\u{0}7", "\u{7f}", "\u{feff}", "\u{200b}"]);
    // A Cyrillic letter is different from the Latin one.
    refused("A", &["\u{410}B"]);
    refused("x+1", &["\u{445}+2"]);
}

#[test]
fn an_inequality_is_its_interval() {
    correct(r"(2,\infty)", &["x>2", "2<x", r"x \in (2,\infty)", r"(2,+\infty)"]);
    wrong(r"(2,\infty)", &[r"x \ge 2", "x<2", r"[2,\infty)", "x>3"]);
    correct("[-2,7]", &[r"-2 \le x \le 7"]);
    correct(r"x \in [-2,7]", &["[-2,7]"]);
}

#[test]
fn a_solved_form_is_its_equation() {
    correct("y = 2x + 3", &["2x - y + 3 = 0", "2x+3", "y - 2x = 3"]);
    correct("x + 2y = 4", &[r"y = 2 - \frac{x}{2}", "x = 4 - 2y"]);
    wrong("y = 2x + 3", &["y = 2x - 3", "2x + y + 3 = 0"]);
}

#[test]
fn unknowns_may_be_named_or_not() {
    correct("x=1,y=2", &["1,2", "(1,2)", "y=2, x=1", r"x = 1 \text{ and } y = 2"]);
    correct("(1,2)", &["x=1, y=2", "(x,y)=(1,2)"]);
    wrong("x=1,y=2", &["2,1", "x=2,y=1", "x=1"]);
    wrong("(1,2)", &["x=2, y=1", "(y,x)=(1,2)", "(2,1)"]);
}

#[test]
fn an_ordinal_is_its_number() {
    correct("12", &["12^{th}", "12th", r"12^{\text{th}}"]);
    correct(r"12^{\text{th}}", &["12", "12th"]);
    wrong("12", &["13th", "12^2", "21^{st}"]);
}

#[test]
fn a_vector_is_its_tuple() {
    let column = r"\begin{pmatrix} 1 \\ 2 \\ 3 \end{pmatrix}";
    correct(column, &["(1,2,3)", r"\langle 1,2,3 \rangle", r"\begin{bmatrix} 1 \\ 2 \\ 3 \end{bmatrix}", "[1,2,3]"]);
    correct("(1,2,3)", &[column]);
    wrong(column, &["(1,3,2)", r"\{1,2,3\}", "(1,2)", r"\begin{pmatrix} 1 \\ 2 \\ -3 \end{pmatrix}"]);
}

#[test]
fn brackets_distinguish_an_interval_from_a_point() {
    wrong("(1,2)", &["[1,2]", "(1,2]", r"\{1,2\}"]);
    wrong("[1,2]", &["(1,2)", "[2,1]"]);
}

#[test]
fn degrees_have_minutes() {
    correct(r"60^\circ 42'", &["60°42'", "60.7°", r"60^{\circ}42^{\prime}"]);
    wrong(r"60^\circ 42'", &["60°24'", "60.42°", "60°"]);
}

#[test]
fn unequal_is_a_union() {
    correct(r"x \neq 3", &[r"(-\infty,3) \cup (3,\infty)"]);
    correct(r"(-\infty,3) \cup (3,\infty)", &[r"x \neq 3", r"x \ne 3", r"\mathbb{R} \setminus \{3\}"]);
    wrong(r"(-\infty,3) \cup (3,\infty)", &["x = 3", r"x \ne -3", r"(-\infty,\infty)", "3"]);
}

#[test]
fn a_space_groups_thousands() {
    correct("1000", &["1 000", r"1\,000", "1,000", "1{,}000"]);
    wrong("1000", &["1, 000", "1.000"]);
    refused("1000", &["10 00", "1 00 0"]);
}

#[test]
fn a_short_decimal_is_right_only_when_exact() {
    correct(r"\frac{1}{4}", &["0.25", "0.250"]);
    correct(r"\frac{1}{3}", &["0.3333", "0.333333"]);
    wrong(r"\frac{1}{3}", &["0.33", "0.333", "0.3334"]);
    wrong(r"\frac{2}{7}", &["0.29", "0.286"]);
}

#[test]
fn labels_name_the_items_of_a_list() {
    correct("1, 3", &["Minimum: 1, Maximum: 3", r"\text{Minimum: } 1, \text{Maximum: } 3"]);
    correct("AB=9, CD=4", &["CD=4, AB=9", "9, 4"]);
    wrong("AB=9, CD=4", &["AB=4, CD=9", "4, 9"]);
    wrong("1, 3", &["Minimum: 1, Maximum: 4", "Minimum: 1"]);
}
