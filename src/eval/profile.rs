//! How a benchmark is asked: prompt, sampling, longest answer, and how the answer is found.
//!
//! A score means nothing without these, so the profile is part of every score's name.

use std::str::FromStr;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use super::bench::{AnswerKind, Benchmark};

/// A set of conventions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// The prior prompt and the question, nothing else; sampled.
    #[default]
    Study,
    /// The structure that lighteval gives its tasks, in our words; no prior prompt; greedy.
    Lighteval,
    /// The structure that evalplus gives chat models, in our words; no prior prompt; greedy.
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
            None => bail!("there is no profile `{name}`\nhint: it is `study`, `lighteval` or `evalplus`"),
        }
    }
}

/// How the answer is found in a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Extraction {
    /// The ladder of rules of math-verify: the last box, `the answer is ...`, the last expression.
    Math,
    /// A letter, or the text or value of exactly one option.
    Option,
    /// The letter of the last `Answer: X`.
    AnswerLine,
    /// The last fenced block within the last answer element, else anywhere.
    Fenced,
    /// The response goes on in a block that the prompt opened.
    Opened,
}

impl Extraction {
    /// Whether the answer is a program, which has to be run.
    pub fn is_program(self) -> bool {
        matches!(self, Extraction::Fenced | Extraction::Opened)
    }
}

/// A benchmark under a profile.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Style {
    pub profile: Profile,
    /// What the user says: `{question}`, and `{options}` where there are any.
    pub template: String,
    /// What the response is made to start with.
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
    /// The profile knows no such benchmark.
    pub fn new(profile: Profile, benchmark: &Benchmark) -> Result<Self> {
        match profile {
            Profile::Study => Ok(study(benchmark)),
            Profile::Lighteval => lighteval(benchmark),
            Profile::Evalplus => evalplus(benchmark),
        }
    }

    /// Whether the prior prompt is put before the question.
    pub fn takes_prior_prompt(&self) -> bool {
        self.profile == Profile::Study
    }

    /// The user's words for a question.
    pub fn ask(&self, question: &str, options: &[String]) -> String {
        let listed: Vec<String> = options
            .iter()
            .enumerate()
            .map(|(place, option)| format!("{}) {option}", super::bench::AnswerOptions::letter(place)))
            .collect();
        // The options first: a question may hold the other mark.
        let (before, after) = self.template.split_once("{question}").unwrap_or((&self.template, ""));
        let fill = |part: &str| part.replace("{options}", &listed.join("\n"));
        format!("{}{question}{}", fill(before), fill(after))
    }
}

const QUESTION: &str = "{question}";
const QUESTION_AND_OPTIONS: &str = "{question}\n\n{options}";

/// The samplings of the R1 report and of open-r1, which most later reports took over.
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
            bail!("lighteval has no `{name}`\nhint: use `--profile evalplus`, or `study`")
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
            "evalplus has no `{}`\nhint: it has `humaneval` and `humaneval+`; use `--profile study` or `lighteval`",
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
