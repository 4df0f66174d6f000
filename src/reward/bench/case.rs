//! Cases of the bench: a response, what kind it is of, and what the reward must say of it.

use serde::{Serialize, Serializer};

use super::gold::Gold;
use crate::config::RunConfig;
use crate::data::Question;
use crate::math::Scope;
use crate::prompt::PriorPrompt;
use crate::rng::{Cursor, Purpose, Stream, name_hash};

/// What is tried. The order is that of the report: rewritings, which must pass; near misses, attacks and broken formats,
/// which must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
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

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::AsItStands => "as it stands",
            Kind::Layout => "layout",
            Kind::Fraction => "fractions",
            Kind::Decimal => "decimals",
            Kind::Thousands => "thousands separators",
            Kind::Sign => "signs",
            Kind::Arithmetic => "arithmetic",
            Kind::Unit => "units kept or dropped",
            Kind::Text => "words in other dress",
            Kind::Order => "sets reordered",
            Kind::Corrected => "an earlier box corrected",
            Kind::OffByOne => "off by one",
            Kind::SignFlipped => "sign flipped",
            Kind::Digits => "digits changed",
            Kind::Scaled => "scaled",
            Kind::Reciprocal => "reciprocal",
            Kind::CutShort => "decimals cut short",
            Kind::OtherUnit => "another unit",
            Kind::OtherPart => "another element",
            Kind::OtherOrder => "another order",
            Kind::Openness => "another open end",
            Kind::OtherChoice => "another choice",
            Kind::OtherGold => "another row's gold",
            Kind::Empty => "empty",
            Kind::NoBox => "no box",
            Kind::UnclosedBox => "unclosed box",
            Kind::EarlierBox => "right in an earlier box",
            Kind::Hedge => "hedge",
            Kind::EveryOption => "every option",
            Kind::FalseChain => "false chain",
            Kind::Echo => "echo of the question",
            Kind::Placeholder => "placeholder",
            Kind::Tower => "giant numbers",
            Kind::Braces => "ten thousand braces",
            Kind::Characters => "control characters",
            Kind::Code => "code",
            Kind::Injection => "injected instruction",
            Kind::FormatOnly => "format only",
            Kind::BrokenTags => "broken tags",
        }
    }

    /// Whether the answer in it is right.
    pub fn is_rewriting(self) -> bool {
        self < Kind::OffByOne
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A response and what must be said of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    pub kind: Kind,
    pub response: String,
    /// The answer must count as right; otherwise it must not.
    pub right: bool,
    /// The tags stand as the prior prompt asks.
    pub formed: bool,
}

/// The form of a response: what stands where, under a prior prompt.
#[derive(Clone, Copy)]
pub struct Frame<'a> {
    pub prompt: &'a PriorPrompt,
    /// The opening tag is the prompt's, not the response's.
    pub prefilled: bool,
    /// Only a box in a closed answer element counts.
    pub in_answer: bool,
}

impl<'a> Frame<'a> {
    /// As `config` has it.
    pub fn new(config: &RunConfig, prompt: &'a PriorPrompt) -> Self {
        let in_answer = config.reward.accuracy.scope == Scope::Answer;
        Self { prompt, prefilled: config.prompt.prefill && prompt.tag.is_some(), in_answer }
    }

    /// A response with `reasoning` and `answer` where the prompt asks for them.
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

    /// Of both elements; none where the prompt asks for at most an answer.
    pub fn tags(&self) -> Option<[String; 4]> {
        let (tag, answer) = (self.prompt.tag.as_ref()?, self.prompt.answer_tag.as_ref()?);
        Some([format!("<{tag}>"), format!("</{tag}>"), format!("<{answer}>"), format!("</{answer}>")])
    }
}

pub const REASONING: &str = "Let me work this out step by step.";

/// The cases of one question, as they are made.
pub struct Cases<'a> {
    pub frame: Frame<'a>,
    pub question: &'a Question,
    /// The gold answer without what ends its sentence.
    pub text: &'a str,
    pub gold: Gold,
    /// Random choices; a function of the seed and the question.
    pub draws: Cursor,
    pub list: Vec<Case>,
}

impl<'a> Cases<'a> {
    pub fn new(frame: Frame<'a>, question: &'a Question, seed: u64) -> Self {
        let draws = Cursor::new(Stream::new(seed, Purpose::RewardBench, &[1, name_hash(&question.id)]));
        let text = question.gold.trim().trim_end_matches(['.', ',']);
        Self { frame, question, text, gold: Gold::read(text), draws, list: Vec::new() }
    }

    /// `content` in the one box of a response that is otherwise in order.
    pub fn boxed(&mut self, kind: Kind, content: impl AsRef<str>) {
        self.answered(kind, &format!(r"The answer is $\boxed{{{}}}$.", content.as_ref()));
    }

    /// A response in order with any text in place of the answer.
    pub fn answered(&mut self, kind: Kind, answer: &str) {
        let response = self.frame.response(REASONING, answer);
        self.list.push(Case { kind, response, right: kind.is_rewriting(), formed: true });
    }
}
