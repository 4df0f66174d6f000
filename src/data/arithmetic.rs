//! The embedded data set: arithmetic word problems of one to fourteen steps.
//!
//! A number between 2 and 20 is changed in these steps (adding or subtracting 1 to 9, or doubling or tripling while it is
//! small), and written as a story. Only a problem's numbers, not its story, decide whether it is for training or held out, so
//! the two splits cannot share a problem.

use std::collections::HashSet;

use anyhow::{Context, Result};

use super::Question;
use crate::rng::{Cursor, Purpose, Stream, name_hash};

/// The name of the data set, in configurations and as the source of its questions.
pub const NAME: &str = "arithmetic";

/// The maximum number of steps of a problem. Levels are 1 to this number, which is also in [`crate::config`]: it is the largest
/// one at which a shipped prior prompt, a question and its longest worked solution fit the embedded model's context of 512 tokens.
pub const MAX_LEVEL: u8 = crate::config::MAX_ARITHMETIC_LEVEL;

/// Only numbers up to this one are multiplied, so that answers stay small.
const SMALL: i64 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// About seven eighths of the problems.
    Train,
    /// The others. The questions of the benchmarks are from here.
    HeldOut,
    /// An eighth of the problems, all of them from `Train`: for the choice of settings, which no benchmark may influence.
    Tuning,
    /// `Train` without `Tuning`.
    TrainWithoutTuning,
}

impl Split {
    fn contains(self, problem: &Problem) -> bool {
        match (self, problem.eighth()) {
            (Self::HeldOut, eighth) => eighth == 0,
            (Self::Train, eighth) => eighth != 0,
            (Self::Tuning, eighth) => eighth == 1,
            (Self::TrainWithoutTuning, eighth) => eighth > 1,
        }
    }
}

/// The operation of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Add(i64),
    Subtract(i64),
    Multiply(i64),
}

impl Operation {
    pub fn apply(self, number: i64) -> i64 {
        match self {
            Self::Add(by) => number + by,
            Self::Subtract(by) => number - by,
            Self::Multiply(by) => number * by,
        }
    }
}

/// A problem, in numbers and in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub start: i64,
    /// One step per level.
    pub steps: Vec<Operation>,
    pub answer: i64,
    pub text: String,
}

impl Problem {
    /// Whether the numbers are for training or held out.
    pub fn split(&self) -> Split {
        if Split::HeldOut.contains(self) { Split::HeldOut } else { Split::Train }
    }

    /// The eighth of all problems that the numbers belong to, 0 to 7.
    fn eighth(&self) -> u64 {
        // The debug text is a simple, unambiguous representation of the numbers.
        name_hash(&format!("{} {:?}", self.start, self.steps)) >> 61
    }

    /// The number before, the operation and the number after, for every step.
    pub fn trace(&self) -> Vec<(i64, Operation, i64)> {
        let mut number = self.start;
        let trace = self.steps.iter().map(|&step| {
            let before = number;
            number = step.apply(number);
            (before, step, number)
        });
        trace.collect()
    }

    /// A random problem with `level` steps.
    pub fn draw(draws: &mut Cursor, level: u8) -> Self {
        let start = draws.between(2, 20);
        let mut steps = Vec::with_capacity(level.into());
        let mut number = start;
        for _ in 0..level {
            let step = draw_step(draws, number);
            number = step.apply(number);
            steps.push(step);
        }
        let text = tell(draws, start, &steps);
        Self { start, steps, answer: number, text }
    }
}

/// A random step after which the number is at least zero.
fn draw_step(draws: &mut Cursor, number: i64) -> Operation {
    match draws.below(5) {
        0 if number <= SMALL => Operation::Multiply(draws.between(2, 3)),
        1 | 2 if number >= 1 => Operation::Subtract(draws.between(1, number.min(9))),
        _ => Operation::Add(draws.between(1, 9)),
    }
}

/// The first `n` problems of a split, with levels sampled uniformly from `levels`, without duplicate texts. A longer list starts
/// with the shorter one.
///
/// # Errors
/// There are fewer than `n` different texts.
///
/// # Panics
/// If `levels` is empty or contains a number outside 1 to [`MAX_LEVEL`].
pub fn problems(split: Split, seed: u64, levels: &[u8], n: usize) -> Result<Vec<Problem>> {
    assert!(!levels.is_empty(), "at least one level is required");
    let wrong = levels.iter().find(|level| !(1..=MAX_LEVEL).contains(*level));
    assert!(wrong.is_none(), "expected levels of 1 to {MAX_LEVEL}, found {levels:?}");
    let mut draws = Cursor::new(Stream::new(seed, Purpose::Generator, &[split as u64]));
    let mut told = HashSet::new();
    let mut problems = Vec::new();
    for _ in 0..n {
        let level = *draws.choose(levels);
        // Duplicates are replaced at the same level, so that levels with fewer problems keep their share.
        let fresh = (0..100_000)
            .map(|_| Problem::draw(&mut draws, level))
            .find(|problem| split.contains(problem) && told.insert(problem.text.clone()));
        problems.push(fresh.with_context(|| {
            format!(
                "`arithmetic` has fewer than {n} different problems of the levels {levels:?}\nhint: use fewer questions"
            )
        })?);
    }
    Ok(problems)
}

/// [`problems`] as questions of the data set [`NAME`].
///
/// # Errors
/// As for [`problems`].
pub fn questions(split: Split, seed: u64, levels: &[u8], n: usize) -> Result<Vec<Question>> {
    let label = match split {
        Split::Train | Split::TrainWithoutTuning => "train",
        Split::HeldOut => "held-out",
        Split::Tuning => "tuning",
    };
    let problems = problems(split, seed, levels, n)?.into_iter().enumerate();
    let question = |(i, problem): (usize, Problem)| Question {
        id: format!("{label}-{seed}-{i}"),
        text: problem.text,
        gold: problem.answer.to_string(),
        source: NAME.to_owned(),
        extra: serde_json::Map::new(),
    };
    Ok(problems.map(question).collect())
}

const NAMES: [&str; 16] =
    ["Mia", "Tom", "Ana", "Ben", "Lea", "Sam", "Eva", "Max", "Ida", "Jon", "Zoe", "Leo", "Amy", "Dan", "Kim", "Ray"];
const ITEMS: [&str; 12] =
    ["apples", "books", "coins", "cards", "pens", "stamps", "shells", "cups", "eggs", "keys", "balls", "stones"];

/// The texts of one kind of story: `#` is a number, `@` a person and `%` a kind of thing.
struct Story {
    opening: &'static str,
    add: [&'static str; 3],
    subtract: [&'static str; 3],
    /// Texts for multiplying by two and by three.
    multiply: [&'static str; 2],
    question: [&'static str; 2],
}

const STORIES: [Story; 5] = [
    Story {
        opening: "@ has # %.",
        add: ["@ buys # more.", "@ gets # as a gift.", "A friend gives @ # %."],
        subtract: ["@ gives away #.", "@ loses #.", "@ sells # of the %."],
        multiply: ["The number of % doubles.", "The number of % triples."],
        question: ["How many % does @ have now?", "How many % are left with @?"],
    },
    Story {
        opening: "A box holds # %.",
        add: ["# more are put in.", "@ adds # %.", "# % are added."],
        subtract: ["# are taken out.", "@ removes #.", "# % are lost."],
        multiply: ["Then the box is filled to twice as many.", "Then the box is filled to three times as many."],
        question: ["How many % are in the box?", "How many % does the box hold in the end?"],
    },
    Story {
        opening: "A bus starts with # riders.",
        add: ["# people get on.", "At a stop, # get on.", "@ and friends, # in all, get on."],
        subtract: ["# people get off.", "At a stop, # get off.", "# riders leave."],
        multiply: ["The number of riders doubles.", "The number of riders triples."],
        question: ["How many riders are on the bus?", "How many riders does the bus have now?"],
    },
    Story {
        opening: "Take the number #.",
        add: ["Add #.", "Increase it by #.", "Then add #."],
        subtract: ["Subtract #.", "Decrease it by #.", "Then take away #."],
        multiply: ["Multiply it by 2.", "Multiply it by 3."],
        question: ["What is the result?", "Which number do you get?"],
    },
    Story {
        opening: "@ scores # points in a game.",
        add: ["In the next round @ wins # points.", "@ earns # more.", "A bonus gives # points."],
        subtract: ["A mistake costs # points.", "@ loses # points.", "Then # points are taken away."],
        multiply: ["A star doubles the points.", "A star triples the points."],
        question: ["How many points does @ have?", "What is the score of @ now?"],
    },
];

/// The text of the problem.
fn tell(draws: &mut Cursor, start: i64, steps: &[Operation]) -> String {
    let story = draws.choose(&STORIES);
    let (name, item) = (*draws.choose(&NAMES), *draws.choose(&ITEMS));
    let fill = |words: &str, number: i64| words.replace('@', name).replace('%', item).replace('#', &number.to_string());
    let mut text = fill(story.opening, start);
    for &step in steps {
        let (words, number) = match step {
            Operation::Add(by) => (*draws.choose(&story.add), by),
            Operation::Subtract(by) => (*draws.choose(&story.subtract), by),
            Operation::Multiply(by) => (story.multiply[by as usize - 2], by),
        };
        text = format!("{text} {}", fill(words, number));
    }
    let question = *draws.choose(&story.question);
    format!("{text} {}", fill(question, 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn numbers(problems: &[Problem]) -> HashSet<(i64, String)> {
        problems.iter().map(|p| (p.start, format!("{:?}", p.steps))).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn the_splits_share_no_problem(seed: u64, other: u64, level in 1u8..=MAX_LEVEL) {
            let train = numbers(&problems(Split::Train, seed, &[level], 300).unwrap());
            let held_out = numbers(&problems(Split::HeldOut, other, &[level], 300).unwrap());
            prop_assert!(train.is_disjoint(&held_out));
            let tuning = numbers(&problems(Split::Tuning, other, &[level], 300).unwrap());
            let rest = numbers(&problems(Split::TrainWithoutTuning, seed, &[level], 300).unwrap());
            prop_assert!(tuning.is_disjoint(&held_out) && tuning.is_disjoint(&rest) && rest.is_disjoint(&held_out));
        }

        #[test]
        fn answers_follow_from_the_steps(seed: u64, level in 1u8..=MAX_LEVEL) {
            for problem in problems(Split::Train, seed, &[level], 100).unwrap() {
                prop_assert_eq!(problem.steps.len(), usize::from(level));
                prop_assert!((2..=20).contains(&problem.start));
                let mut number = problem.start;
                for (before, step, after) in problem.trace() {
                    prop_assert_eq!(before, number);
                    let (expected, fits) = match step {
                        Operation::Add(by) => (number + by, (1..=9).contains(&by)),
                        Operation::Subtract(by) => (number - by, (1..=9).contains(&by)),
                        Operation::Multiply(by) => (number * by, number <= SMALL && (2..=3).contains(&by)),
                    };
                    prop_assert!(fits && expected >= 0);
                    prop_assert_eq!(after, expected);
                    number = after;
                }
                prop_assert_eq!(problem.answer, number);
            }
        }

        #[test]
        fn a_question_is_told_once_and_completely(seed: u64) {
            let problems = problems(Split::HeldOut, seed, &[1, 2, 3], 512).unwrap();
            let texts: HashSet<_> = problems.iter().map(|p| &p.text).collect();
            prop_assert_eq!(texts.len(), 512);
            for problem in &problems {
                prop_assert!(!problem.text.contains(['#', '@', '%']), "{}", problem.text);
                prop_assert!(problem.text.ends_with('?'));
            }
            for level in 1..=3 {
                let share = problems.iter().filter(|p| p.steps.len() == level).count();
                prop_assert!((120..=220).contains(&share), "{share} of level {level}");
            }
        }
    }

    #[test]
    fn questions_depend_only_on_seed_and_split() {
        let few = questions(Split::Train, 1, &[1, 2, 3], 10).unwrap();
        assert_eq!(few, questions(Split::Train, 1, &[1, 2, 3], 50).unwrap()[..10]);
        assert_ne!(few[0].text, questions(Split::Train, 2, &[1, 2, 3], 10).unwrap()[0].text);
        assert_ne!(few[0].text, questions(Split::HeldOut, 1, &[1, 2, 3], 10).unwrap()[0].text);
        assert_eq!((few[0].id.as_str(), few[0].source.as_str()), ("train-1-0", NAME));
    }

    #[test]
    #[should_panic(expected = "expected levels of 1 to 14, found [15]")]
    fn an_unknown_level_panics() {
        let _ = problems(Split::Train, 1, &[15], 1);
    }
}
