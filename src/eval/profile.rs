//! Profiles: the prompt, the sampling, the maximum completion length, and how the answer is extracted.
//!
//! A score depends on all of these, so it is always reported with its profile.

use std::str::FromStr;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use super::bench::{AnswerKind, Benchmark};

/// A set of conventions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Only the prior prompt and the question; sampled.
    #[default]
    Study,
    /// The structure of lighteval's tasks with our own wording; no prior prompt; greedy.
    Lighteval,
    /// The structure of evalplus for chat models with our own wording; no prior prompt; greedy.
    Evalplus,
}

impl Profile {
    pub fn name(self) -> &'static str {
        match self {
            Profile::Study => "study",
            Profile::Lighteval => "lighteval",
            Profile::Evalplus => "evalplus",
        }
    }
}

impl FromStr for Profile {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        match [Profile::Study, Profile::Lighteval, Profile::Evalplus].into_iter().find(|it| it.name() == name) {
            Some(profile) => Ok(profile),
            None => bail!("unknown profile `{name}`\nhint: use `study`, `lighteval` or `evalplus`"),
        }
    }
}

/// How the answer is extracted from a completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Extraction {
    /// The rules of math-verify, in order: the last box, `the answer is ...`, the last expression.
    Math,
    /// A letter, or the text or value of exactly one option.
    Option,
    /// The letter of the last `Answer: X`.
    AnswerLine,
    /// The last fenced block in the last answer element, else anywhere.
    Fenced,
    /// The completion continues a block that the prompt opened.
    Opened,
}

impl Extraction {
    /// Whether the answer is a program that has to be run.
    pub fn is_program(self) -> bool {
        matches!(self, Extraction::Fenced | Extraction::Opened)
    }
}

/// The settings of a benchmark with a profile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Style {
    pub profile: Profile,
    /// The template of the user message: `{question}`, and `{options}` if there are any.
    pub template: String,
    /// Text that the completion starts with.
    pub prefill: Option<String>,
    pub stop: Vec<String>,
    pub extraction: Extraction,
    pub temperature: f64,
    pub top_p: f64,
    pub max_tokens: usize,
    pub samples: usize,
}

impl Style {
    /// # Errors
    /// The profile does not support this benchmark.
    pub fn new(profile: Profile, benchmark: &Benchmark) -> Result<Self> {
        match profile {
            Profile::Study => Ok(study(benchmark)),
            Profile::Lighteval => lighteval(benchmark),
            Profile::Evalplus => evalplus(benchmark),
        }
    }

    /// Whether the prior prompt is used.
    pub fn takes_prior_prompt(&self) -> bool {
        self.profile == Profile::Study
    }

    /// The user message for a question.
    pub fn ask(&self, question: &str, options: &[String]) -> String {
        let listed: Vec<String> = options
            .iter()
            .enumerate()
            .map(|(place, option)| format!("{}) {option}", super::bench::AnswerOptions::letter(place)))
            .collect();
        // The options first, because a question may contain the other placeholder.
        let (before, after) = self.template.split_once("{question}").unwrap_or((&self.template, ""));
        let fill = |part: &str| part.replace("{options}", &listed.join("\n"));
        format!("{}{question}{}", fill(before), fill(after))
    }
}

const QUESTION: &str = "{question}";
const QUESTION_AND_OPTIONS: &str = "{question}\n\n{options}";

/// The sampling settings of the R1 report and of open-r1, which most later reports use.
fn study(benchmark: &Benchmark) -> Style {
    let (template, extraction) = match benchmark.kind {
        AnswerKind::Math => (QUESTION, Extraction::Math),
        AnswerKind::Choice => (QUESTION_AND_OPTIONS, Extraction::Option),
        AnswerKind::Code { .. } => (QUESTION, Extraction::Fenced),
    };
    Style {
        profile: Profile::Study,
        template: template.to_owned(),
        prefill: None,
        stop: Vec::new(),
        extraction,
        temperature: 0.6,
        top_p: 0.95,
        max_tokens: 8_192,
        samples: benchmark.samples,
    }
}

fn lighteval(benchmark: &Benchmark) -> Result<Style> {
    let box_it = "Work out the answer to this problem, step by step and in clear words. Let the last line of your reply give \
                  the final answer alone, inside \\boxed{}.\n\n{question}";
    let choose = "Which of the options answers this question? Reason first. Let the last line of your reply be `Answer: ` \
                  and then the letter of the option, A, B, C or D.\n\n{question}\n\n{options}";
    let (template, extraction, stop, max_tokens) = match (benchmark.kind, benchmark.name.as_str()) {
        (AnswerKind::Math, "gsm8k") => {
            ("Question: {question}\nAnswer:", Extraction::Math, vec!["Question:".to_owned()], 256)
        }
        (AnswerKind::Math, _) => (box_it, Extraction::Math, Vec::new(), 32_768),
        (AnswerKind::Choice, _) => (choose, Extraction::AnswerLine, Vec::new(), 32_768),
        (AnswerKind::Code { .. }, name) => {
            bail!(
                "the profile lighteval does not support `{name}`\nhint: use `--profile evalplus` or `--profile study`"
            )
        }
    };
    Ok(Style {
        profile: Profile::Lighteval,
        template: template.to_owned(),
        prefill: None,
        stop,
        extraction,
        temperature: 0.0,
        top_p: 1.0,
        max_tokens,
        samples: 1,
    })
}

fn evalplus(benchmark: &Benchmark) -> Result<Style> {
    let AnswerKind::Code { .. } = benchmark.kind else {
        bail!(
            "the profile evalplus only supports `humaneval` and `humaneval+`, found `{}`\nhint: use `--profile study` or `--profile lighteval`",
            benchmark.name
        );
    };
    Ok(Style {
        profile: Profile::Evalplus,
        template:
            "Write a complete Python script, in one fenced block, that does what this asks for:\n```\n{question}\n```"
                .to_owned(),
        prefill: Some(
            "Here is such a script, with a function that meets the description and its tests:\n```python\n".to_owned(),
        ),
        stop: ["\n```\n", "\nif __name__", "\ndef main(", "\nprint("].map(str::to_owned).to_vec(),
        extraction: Extraction::Opened,
        temperature: 0.0,
        top_p: 1.0,
        max_tokens: 768,
        samples: 1,
    })
}
