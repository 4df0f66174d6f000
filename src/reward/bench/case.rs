//! Cases of the bench: a completion, its kind, and the expected verdict.

use serde::{Serialize, Serializer};

use super::gold::GoldForm;
use crate::config::RunConfig;
use crate::data::Question;
use crate::math::Scope;
use crate::prompt::PriorPrompt;
use crate::rng::{Cursor, Purpose, Stream, name_hash};

/// Kinds of cases, in the order of the report: rewritings, which must pass; near misses, attacks and broken formats,
/// which must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CaseKind {
    AsItStands,
    Layout,
    Fraction,
    Decimal,
    Thousands,
    Sign,
    Arithmetic,
    Unit,
    Text,
    Order,
    Corrected,
    PercentWords,
    PlainUnit,
    Dashes,
    Markup,
    Currency,
    Counting,
    Repeating,
    Remainder,
    Series,
    Quantifier,
    Vectors,
    Flipped,

    OffByOne,
    SignFlipped,
    Digits,
    Scaled,
    Reciprocal,
    CutShort,
    OtherUnit,
    OtherPart,
    OtherOrder,
    Openness,
    OtherChoice,
    OtherGold,
    OtherNotation,
    Added,
    Excepted,

    Infinity,
    TrailingWords,
    Empty,
    NoBox,
    UnclosedBox,
    EarlierBox,
    Hedge,
    EveryOption,
    FalseChain,
    Echo,
    Placeholder,
    Tower,
    Braces,
    Characters,
    Code,
    Injection,

    FormatOnly,
    BrokenTags,
}

impl CaseKind {
    pub fn name(self) -> &'static str {
        match self {
            CaseKind::AsItStands => "unchanged",
            CaseKind::Layout => "layout",
            CaseKind::Fraction => "fractions",
            CaseKind::Decimal => "decimals",
            CaseKind::Thousands => "thousands separators",
            CaseKind::Sign => "signs",
            CaseKind::Arithmetic => "arithmetic",
            CaseKind::Unit => "units kept or dropped",
            CaseKind::Text => "words reformatted",
            CaseKind::Order => "sets reordered",
            CaseKind::Corrected => "an earlier box corrected",
            CaseKind::PercentWords => "percent in words",
            CaseKind::PlainUnit => "plain units",
            CaseKind::Dashes => "dashes, invisible characters",
            CaseKind::Markup => "markup in the box",
            CaseKind::Currency => "currency codes",
            CaseKind::Counting => "combinations",
            CaseKind::Repeating => "repeating decimals",
            CaseKind::Remainder => "remainders",
            CaseKind::Series => "sums and products",
            CaseKind::Quantifier => "functions for all x",
            CaseKind::Vectors => "unit vectors, transposes",
            CaseKind::Flipped => "inequalities of -x",
            CaseKind::OffByOne => "off by one",
            CaseKind::SignFlipped => "sign flipped",
            CaseKind::Digits => "digits changed",
            CaseKind::Scaled => "scaled",
            CaseKind::Reciprocal => "reciprocal",
            CaseKind::CutShort => "decimals truncated",
            CaseKind::OtherUnit => "another unit",
            CaseKind::OtherPart => "another element",
            CaseKind::OtherOrder => "another order",
            CaseKind::Openness => "other open endpoint",
            CaseKind::OtherChoice => "another choice",
            CaseKind::OtherGold => "another row's gold",
            CaseKind::OtherNotation => "notation of another value",
            CaseKind::Added => "constants and conditions added",
            CaseKind::Excepted => "all numbers but the answer",
            CaseKind::Infinity => "indeterminate forms",
            CaseKind::TrailingWords => "words after the number",
            CaseKind::Empty => "empty",
            CaseKind::NoBox => "no box",
            CaseKind::UnclosedBox => "unclosed box",
            CaseKind::EarlierBox => "right in an earlier box",
            CaseKind::Hedge => "hedge",
            CaseKind::EveryOption => "every option",
            CaseKind::FalseChain => "false chain",
            CaseKind::Echo => "echo of the question",
            CaseKind::Placeholder => "placeholder",
            CaseKind::Tower => "giant numbers",
            CaseKind::Braces => "ten thousand braces",
            CaseKind::Characters => "control characters",
            CaseKind::Code => "code",
            CaseKind::Injection => "injected instruction",
            CaseKind::FormatOnly => "format only",
            CaseKind::BrokenTags => "broken tags",
        }
    }

    /// Whether a case of this kind contains the right answer.
    pub fn is_rewriting(self) -> bool {
        self < CaseKind::OffByOne
    }
}

impl Serialize for CaseKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A completion and its expected verdict.
#[derive(Clone, Debug, PartialEq)]
pub struct RewardCase {
    pub kind: CaseKind,
    pub response: String,
    /// The answer must count as right; otherwise it must not.
    pub right: bool,
    /// The tags are as the prior prompt asks.
    pub formed: bool,
}

/// The format of a completion under a prior prompt.
#[derive(Clone, Copy)]
pub struct Frame<'a> {
    pub prompt: &'a PriorPrompt,
    /// The opening tag is part of the prompt, not of the completion.
    pub prefilled: bool,
    /// Only a box in a closed answer element counts.
    pub in_answer: bool,
}

impl<'a> Frame<'a> {
    /// The setting of `config`.
    pub fn new(config: &RunConfig, prompt: &'a PriorPrompt) -> Self {
        let in_answer = config.reward.accuracy.scope == Scope::Answer;
        Self { prompt, prefilled: config.prompt.prefill && prompt.tag.is_some(), in_answer }
    }

    /// A completion with `reasoning` and `answer` in the format that the prompt asks for.
    pub fn response(&self, reasoning: &str, answer: &str) -> String {
        let Some([open, close, open_answer, close_answer]) = self.tags() else {
            return match &self.prompt.answer_tag {
                Some(tag) => format!("<{tag}>\n{reasoning}\n{answer}\n</{tag}>"),
                None => format!("{reasoning}\n{answer}"),
            };
        };
        let open = if self.prefilled { "" } else { &open };
        format!("{open}\n{reasoning}\n{close}\n{open_answer}\n{answer}\n{close_answer}")
    }

    /// Tags of both elements; `None` if the prompt asks for at most an answer.
    pub fn tags(&self) -> Option<[String; 4]> {
        let (tag, answer) = (self.prompt.tag.as_ref()?, self.prompt.answer_tag.as_ref()?);
        Some([format!("<{tag}>"), format!("</{tag}>"), format!("<{answer}>"), format!("</{answer}>")])
    }
}

pub const REASONING: &str = "Let me work this out step by step.";

/// Collects the cases of one question.
pub struct Cases<'a> {
    pub frame: Frame<'a>,
    pub question: &'a Question,
    /// The gold answer without the punctuation that ends its sentence.
    pub text: &'a str,
    pub gold: GoldForm,
    /// Random choices; a function of the seed and the question.
    pub draws: Cursor,
    pub list: Vec<RewardCase>,
}

impl<'a> Cases<'a> {
    pub fn new(frame: Frame<'a>, question: &'a Question, seed: u64) -> Self {
        let draws = Cursor::new(Stream::new(seed, Purpose::RewardBench, &[1, name_hash(&question.id)]));
        let text = question.gold.trim().trim_end_matches(['.', ',']);
        Self { frame, question, text, gold: GoldForm::read(text), draws, list: Vec::new() }
    }

    /// `content` in the only box of a completion that is otherwise in order.
    pub fn boxed(&mut self, kind: CaseKind, content: impl AsRef<str>) {
        self.answered(kind, &format!(r"The answer is $\boxed{{{}}}$.", content.as_ref()));
    }

    /// A completion in the right format, with any text as the answer.
    pub fn answered(&mut self, kind: CaseKind, answer: &str) {
        let response = self.frame.response(REASONING, answer);
        self.list.push(RewardCase { kind, response, right: kind.is_rewriting(), formed: true });
    }
}
