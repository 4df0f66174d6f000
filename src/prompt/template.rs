//! From a conversation to the tokens a model reads: chat templates.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::json;

use super::Message;
use super::jinja::Jinja;
use crate::model::tokenizer::Tokenizer;

/// The form for models without a template of their own: what stands before the question, the question, `Answer:`.
const PLAIN: &str = r"{% for message in messages %}
{% if message.role == 'system' %}
{{ message.content + '\n\n' }}
{%- elif message.role == 'user' %}
{{ 'Question: ' + message.content + '\n' }}
{%- else %}
{{ 'Answer: ' + message.content + '\n\n' }}
{%- endif %}
{% endfor %}
{% if add_generation_prompt %}Answer:{% endif %}";

/// Strings of tokens that a template may write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialStrings {
    pub bos: Option<String>,
    pub eos: Option<String>,
    pub pad: Option<String>,
    pub unk: Option<String>,
}

/// Turns a conversation into text.
pub struct ChatTemplate {
    jinja: Jinja,
    source: String,
    tokens: SpecialStrings,
    plain: bool,
}

/// A prompt as text and as ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    pub text: String,
    pub ids: Vec<u32>,
}

impl ChatTemplate {
    /// A template given as its Jinja source, as in the metadata of a GGUF file.
    ///
    /// # Errors
    /// A source that does not compile.
    pub fn new(source: &str, tokens: SpecialStrings) -> anyhow::Result<Self> {
        Ok(Self { jinja: Jinja::new(source, None)?, source: source.to_owned(), tokens, plain: false })
    }

    /// The template of a Hugging Face folder, from the text of its `chat_template.jinja`, else of its
    /// `tokenizer_config.json`; `None` where neither holds one.
    ///
    /// # Errors
    /// A `tokenizer_config.json` that is malformed, a template that does not compile.
    pub fn from_model(jinja: Option<&str>, tokenizer_config: Option<&str>) -> anyhow::Result<Option<Self>> {
        let config = tokenizer_config.map(TokenizerConfig::parse).transpose()?.unwrap_or_default();
        let source = match jinja {
            Some(source) => Some(source.to_owned()),
            None => config.chat_template.and_then(TemplateField::default_source),
        };
        source.map(|source| Self::new(&source, config.tokens)).transpose()
    }

    /// The template for models that have none:
    ///
    /// ```text
    /// (prior prompt)
    ///
    /// Question: (question)
    /// Answer:
    /// ```
    pub fn plain(tokens: SpecialStrings) -> Self {
        let template = Self::new(PLAIN, tokens).expect("our own template compiles");
        Self { plain: true, ..template }
    }

    /// A user's template.
    ///
    /// # Errors
    /// A file that cannot be read or does not compile.
    pub fn from_file(path: &Path, tokens: SpecialStrings) -> anyhow::Result<Self> {
        let source = std::fs::read_to_string(path)
            .with_context(|| format!("read `{}`", path.display()))
            .map_err(|error| anyhow::anyhow!("{error:#}\nhint: prompt.template is `model`, `plain` or a Jinja file"))?;
        Self::new(&source, tokens).with_context(|| format!("read `{}`", path.display()))
    }

    /// The template that `prompt.template` names: `model`, `plain` or a path.
    ///
    /// # Errors
    /// `model` where the model has none; see [`ChatTemplate::from_file`].
    pub fn choose(setting: &str, model: Option<Self>, tokens: SpecialStrings) -> anyhow::Result<Self> {
        match (setting, model) {
            ("model", Some(template)) => Ok(template),
            ("model", None) => bail!("the model has no chat template\nhint: --set prompt.template=plain"),
            ("plain", _) => Ok(Self::plain(tokens)),
            (path, _) => Self::from_file(Path::new(path), tokens),
        }
    }

    /// The same template at a fixed time (seconds since 1970): some templates write the date, and a run that goes on
    /// the next day should read the prompts that it read before.
    ///
    /// # Errors
    /// None that the first compilation did not have.
    pub fn at(self, seconds: i64) -> anyhow::Result<Self> {
        Ok(Self { jinja: Jinja::new(&self.source, Some(seconds))?, ..self })
    }

    /// The conversation as text, up to where the assistant's answer begins, and `prefill` as the answer's beginning.
    ///
    /// # Errors
    /// What the template itself refuses, or more work or output than a template may cost.
    pub fn render(&self, messages: &[Message], prefill: Option<&str>) -> anyhow::Result<String> {
        let mut text = self.conversation(&serde_json::to_value(messages)?, true)?;
        if let Some(prefill) = prefill {
            if self.plain {
                text.push(' ');
            }
            text.push_str(prefill);
        }
        Ok(text)
    }

    /// Any conversation (a list of objects with `role` and `content`), with or without the beginning of an answer.
    ///
    /// # Errors
    /// See [`ChatTemplate::render`].
    pub fn conversation(&self, messages: &serde_json::Value, add_generation_prompt: bool) -> anyhow::Result<String> {
        // Absent is not the same as null to a template that asks whether a name is defined: a token that the model
        // does not have is left out, the two lists that transformers always passes are not.
        let mut context = json!({
            "messages": messages,
            "tools": null,
            "documents": null,
            "add_generation_prompt": add_generation_prompt,
        });
        let SpecialStrings { bos, eos, pad, unk } = &self.tokens;
        for (name, token) in [("bos_token", bos), ("eos_token", eos), ("pad_token", pad), ("unk_token", unk)] {
            if let Some(token) = token {
                context[name] = json!(token);
            }
        }
        self.jinja.render(context)
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    pub fn tokens(&self) -> &SpecialStrings {
        &self.tokens
    }

    /// Strings that end an answer: in the plain form, where the model goes on with a question of its own.
    pub fn stop_strings(&self) -> &'static [&'static str] {
        if self.plain { &["\nQuestion:"] } else { &[] }
    }

    /// The tokens that end an answer: the tokenizer's end of sequence, and what the template itself puts after an
    /// assistant's turn (Qwen2.5's base models end a text with `<|endoftext|>`, but their template a turn with
    /// `<|im_end|>`). Ascending.
    pub fn end_ids(&self, tokenizer: &Tokenizer) -> Vec<u32> {
        let mut ids: BTreeSet<u32> = self.tokens.eos.iter().filter_map(|eos| tokenizer.id_of(eos)).collect();
        ids.extend(self.turn_end(tokenizer));
        ids.into_iter().collect()
    }

    /// The special token that directly follows an assistant's words.
    fn turn_end(&self, tokenizer: &Tokenizer) -> Option<u32> {
        const WORDS: &str = "\u{f0000}";
        let turns = json!([{ "role": "user", "content": "?" }, { "role": "assistant", "content": WORDS }]);
        let text = self.conversation(&turns, false).ok()?;
        let (_, after) = text.rsplit_once(WORDS)?;
        tokenizer.encode_around(after.trim_start(), &[]).first().copied().filter(|&id| tokenizer.is_special(id))
    }

    /// The system line that the template writes by itself where the conversation has none.
    pub fn default_system_line(&self) -> Option<String> {
        const LINE: &str = "\u{f0000}";
        let user = json!({ "role": "user", "content": "?" });
        let with = self.conversation(&json!([{ "role": "system", "content": LINE }, user]), true).ok()?;
        let without = self.conversation(&json!([user]), true).ok()?;
        let (before, after) = with.split_once(LINE)?;
        let line = without.strip_prefix(before)?.strip_suffix(after)?;
        (!line.is_empty()).then(|| line.to_owned())
    }
}

/// Renders a conversation and encodes it: special tokens are those that the template wrote, while their strings inside a
/// message are text. Everything else gets the ids that the whole text has when it is encoded at once.
///
/// # Errors
/// See [`ChatTemplate::render`].
pub fn encode_prompt(
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    messages: &[Message],
    prefill: Option<&str>,
) -> anyhow::Result<Rendered> {
    let mut slots = Slots::default();
    let specials = tokenizer.special_tokens();
    let mut masked = Vec::with_capacity(messages.len());
    for message in messages {
        masked.push(Message { role: message.role, content: slots.mask(&message.content, &specials)? });
    }
    let (text, literal) = slots.unmask(&template.render(&masked, prefill)?);
    let mut rendered = Rendered { ids: tokenizer.encode_around(&text, &literal), text };
    if template.plain
        && let Some(bos) = tokenizer.bos()
    {
        rendered.ids.insert(0, bos);
        rendered.text.insert_str(0, &tokenizer.token(bos).unwrap_or_default());
    }
    Ok(rendered)
}

/// Strings kept out of a template's sight. Each is one character of plane 15 (private use) while the template works, so
/// that whatever the template does with a message (trim it, split it, quote it) does not lose what came from where.
#[derive(Default)]
struct Slots {
    kept: Vec<String>,
}

impl Slots {
    const FIRST: u32 = 0xf_0000;
    const LAST: u32 = 0xf_fffd;

    /// Puts a slot in the place of every special string, and of every character that could be taken for a slot.
    fn mask(&mut self, content: &str, specials: &[(u32, &str)]) -> anyhow::Result<String> {
        let mut masked = String::with_capacity(content.len());
        let mut rest = content;
        while let Some(first) = rest.chars().next() {
            let special = specials.iter().map(|(_, token)| *token).filter(|token| rest.starts_with(token));
            let kept = match special.max_by_key(|token| token.len()) {
                Some(token) => token.len(),
                None if (Self::FIRST..=Self::LAST).contains(&u32::from(first)) => first.len_utf8(),
                None => {
                    masked.push(first);
                    rest = &rest[first.len_utf8()..];
                    continue;
                }
            };
            let slot = Self::FIRST + self.kept.len() as u32;
            if slot > Self::LAST {
                bail!("more than 65,534 strings of special tokens in one conversation");
            }
            masked.push(char::from_u32(slot).expect("plane 15 holds no surrogates"));
            self.kept.push(rest[..kept].to_owned());
            rest = &rest[kept..];
        }
        Ok(masked)
    }

    /// The text with every slot filled again, and where the filled ones stand.
    fn unmask(&self, masked: &str) -> (String, Vec<Range<usize>>) {
        let mut text = String::with_capacity(masked.len());
        let mut literal = Vec::new();
        for char in masked.chars() {
            let slot = u32::from(char).checked_sub(Self::FIRST).and_then(|slot| self.kept.get(slot as usize));
            match slot {
                Some(kept) => {
                    literal.push(text.len()..text.len() + kept.len());
                    text.push_str(kept);
                }
                None => text.push(char),
            }
        }
        (text, literal)
    }
}

/// The part of `tokenizer_config.json` that matters here.
#[derive(Default)]
struct TokenizerConfig {
    chat_template: Option<TemplateField>,
    tokens: SpecialStrings,
}

/// A chat template stands in `tokenizer_config.json` as a string, or as a list of named ones.
#[derive(Deserialize)]
#[serde(untagged)]
enum TemplateField {
    One(String),
    Named(Vec<NamedTemplate>),
}

#[derive(Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

impl TemplateField {
    fn default_source(self) -> Option<String> {
        match self {
            Self::One(source) => Some(source),
            Self::Named(list) => list.into_iter().find(|it| it.name == "default").map(|it| it.template),
        }
    }
}

impl SpecialStrings {
    /// The tokens that a `tokenizer_config.json` names.
    ///
    /// # Errors
    /// Malformed JSON.
    pub fn from_config(tokenizer_config: &str) -> anyhow::Result<Self> {
        Ok(TokenizerConfig::parse(tokenizer_config)?.tokens)
    }
}

impl TokenizerConfig {
    fn parse(text: &str) -> anyhow::Result<Self> {
        /// A token is a string, or an object that says how it is matched.
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum TokenField {
            Text(String),
            Described { content: String },
        }

        #[derive(Deserialize)]
        struct TokenizerConfigFile {
            chat_template: Option<TemplateField>,
            bos_token: Option<TokenField>,
            eos_token: Option<TokenField>,
            pad_token: Option<TokenField>,
            unk_token: Option<TokenField>,
        }

        let file: TokenizerConfigFile = serde_json::from_str(text).context("read `tokenizer_config.json`")?;
        let string = |token: Option<TokenField>| {
            token.map(|token| match token {
                TokenField::Text(text) | TokenField::Described { content: text } => text,
            })
        };
        Ok(Self {
            chat_template: file.chat_template,
            tokens: SpecialStrings {
                bos: string(file.bos_token),
                eos: string(file.eos_token),
                pad: string(file.pad_token),
                unk: string(file.unk_token),
            },
        })
    }
}
