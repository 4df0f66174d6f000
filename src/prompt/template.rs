//! Chat templates: from a conversation to the tokens of a model's input.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::json;

use super::Message;
use super::renderer::Renderer;
use super::text_file;
use crate::model::tokenizer::Tokenizer;

/// The form for models without a chat template: prior prompt, question, `Answer:`.
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

/// Strings of special tokens that a template may write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialStrings {
    pub bos: Option<String>,
    pub eos: Option<String>,
    pub pad: Option<String>,
    pub unk: Option<String>,
}

/// Turns a conversation into text.
pub struct ChatTemplate {
    renderer: Renderer,
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
    /// A template from its Jinja source, as in the metadata of a GGUF file.
    ///
    /// # Errors
    /// A source that does not compile.
    pub fn new(source: &str, tokens: SpecialStrings) -> anyhow::Result<Self> {
        let source = text_file::plain(source);
        Ok(Self { renderer: Renderer::untrusted(&source, None)?, source, tokens, plain: false })
    }

    /// The template of a Hugging Face folder, from the text of its `chat_template.jinja`, or else of its
    /// `tokenizer_config.json`; `None` if neither has one.
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

    /// The template for models without a chat template:
    ///
    /// ```text
    /// (prior prompt)
    ///
    /// Question: (question)
    /// Answer:
    /// ```
    pub fn plain(tokens: SpecialStrings) -> Self {
        let renderer = Renderer::own(PLAIN, None).expect("the plain template compiles");
        Self { renderer, source: PLAIN.to_owned(), tokens, plain: true }
    }

    /// A user's template.
    ///
    /// # Errors
    /// A file that cannot be read or does not compile.
    pub fn from_file(path: &Path, tokens: SpecialStrings) -> anyhow::Result<Self> {
        let source = text_file::read(path).with_context(|| format!("read `{}`", path.display())).map_err(|error| {
            anyhow::anyhow!("{error:#}\nhint: set prompt.template to `model`, `plain` or a Jinja file")
        })?;
        Self::new(&source, tokens).with_context(|| format!("read `{}`", path.display()))
    }

    /// The template selected by `prompt.template`: `model`, `plain` or a path.
    ///
    /// # Errors
    /// `model` if the model does not have a template; see [`ChatTemplate::from_file`].
    pub fn choose(setting: &str, model: Option<Self>, tokens: SpecialStrings) -> anyhow::Result<Self> {
        match (setting, model) {
            ("model", Some(template)) => Ok(template),
            ("model", None) => bail!("the model has no chat template\nhint: pass --set prompt.template=plain"),
            ("plain", _) => Ok(Self::plain(tokens)),
            (path, _) => Self::from_file(Path::new(path), tokens),
        }
    }

    /// The same template at a fixed time (seconds since 1970). Some templates write the date, and a run that is resumed
    /// the next day must use the same prompts.
    ///
    /// # Errors
    /// The same as when the template was first compiled.
    pub fn at(self, seconds: i64) -> anyhow::Result<Self> {
        if self.plain {
            return Ok(self);
        }
        Ok(Self { renderer: Renderer::untrusted(&self.source, Some(seconds))?, ..self })
    }

    /// The conversation as text, up to the start of the assistant's turn, followed by `prefill`.
    ///
    /// # Errors
    /// An error that the template raises, or a template that exceeds its limits.
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

    /// Renders any conversation (a list of objects with `role` and `content`), with or without the start of the assistant's turn.
    ///
    /// # Errors
    /// See [`ChatTemplate::render`].
    pub fn conversation(&self, messages: &serde_json::Value, add_generation_prompt: bool) -> anyhow::Result<String> {
        // Templates can test whether a name is defined, so a missing name differs from null: a token that the model
        // does not have is omitted; the two lists that transformers always passes are null.
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
        self.renderer.render(&context)
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    pub fn tokens(&self) -> &SpecialStrings {
        &self.tokens
    }

    /// Strings that end a completion: in the plain form, in which a model may continue with another question.
    pub fn stop_strings(&self) -> &'static [&'static str] {
        if self.plain { &["\nQuestion:"] } else { &[] }
    }

    /// The tokens that end a completion: the tokenizer's end of sequence, and the token that the template writes after an
    /// assistant's turn (Qwen2.5's base models end a text with `<|endoftext|>`, but their template ends a turn with
    /// `<|im_end|>`). Ascending.
    pub fn end_ids(&self, tokenizer: &Tokenizer) -> Vec<u32> {
        let mut ids: BTreeSet<u32> = self.tokens.eos.iter().filter_map(|eos| tokenizer.id_of(eos)).collect();
        ids.extend(self.turn_end(tokenizer));
        ids.into_iter().collect()
    }

    /// The special token that directly follows the assistant's text.
    fn turn_end(&self, tokenizer: &Tokenizer) -> Option<u32> {
        const WORDS: &str = "\u{f0000}";
        let turns = json!([{ "role": "user", "content": "?" }, { "role": "assistant", "content": WORDS }]);
        let text = self.conversation(&turns, false).ok()?;
        let (_, after) = text.rsplit_once(WORDS)?;
        tokenizer.encode_around(after.trim_start(), &[]).first().copied().filter(|&id| tokenizer.is_special(id))
    }

    /// The system message that the template adds if the conversation does not have one.
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

/// Renders a conversation and encodes it. Only special tokens that the template writes become special tokens; their strings in a
/// message are encoded as text. Everything else has the ids that the whole text has when it is encoded at once.
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

/// Strings that are hidden from a template. During rendering, each is one character of plane 15 (private use), so
/// that the origin of a string is known whatever the template does with a message (trims, splits or quotes it).
#[derive(Default)]
struct Slots {
    kept: Vec<String>,
}

impl Slots {
    const FIRST: u32 = 0xf_0000;
    const LAST: u32 = 0xf_fffd;

    /// Replaces every special string, and every character that could be mistaken for a slot, with a slot.
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
            masked.push(char::from_u32(slot).expect("plane 15 has no surrogates"));
            self.kept.push(rest[..kept].to_owned());
            rest = &rest[kept..];
        }
        Ok(masked)
    }

    /// The text with every slot replaced by its string, and the positions of these strings.
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

/// A chat template in `tokenizer_config.json` is a string, or a list of named templates.
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
        /// A token is a string, or an object with matching options.
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

        let file: TokenizerConfigFile =
            serde_json::from_str(text.trim_start_matches('\u{feff}')).context("read `tokenizer_config.json`")?;
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
