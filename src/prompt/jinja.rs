//! Jinja for chat templates: the functions that transformers provides to templates, and limits on their cost.
//!
//! A chat template is an untrusted program that is part of a model. It can access only the conversation, cannot load
//! other templates, and stops when its limit of instructions or of output is reached.

use std::io::{self, Write};

use anyhow::Context;
use jiff::Timestamp;
use jiff::fmt::strtime;
use jiff::tz::Offset;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, State, escape_formatter};
use serde::Serialize;

use super::{percent, python};

/// The approximate limit of instructions, and 1/64 of the limit of bytes of intermediate values. The longest templates in use need
/// a few thousand instructions for our conversations.
const FUEL: u64 = 2_000_000;
/// Maximum number of bytes of a template's output.
const MAX_OUTPUT: usize = 2 << 20;
/// Maximum number of lists and maps within each other that `tojson` writes.
const DEEPEST: usize = 100;
const NAME: &str = "chat_template";

/// A compiled template.
pub(super) struct Jinja {
    environment: Environment<'static>,
}

impl Jinja {
    /// Compiles `source`. `now` is the time (seconds since 1970, UTC) for the template. Default: the current time.
    pub(super) fn new(source: &str, now: Option<i64>) -> anyhow::Result<Self> {
        let mut environment = Environment::new();
        // The two whitespace settings of jinja2 that transformers enables.
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().context("jinja syntax")?;
        environment.set_syntax(syntax);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(200);
        environment.set_formatter(python_formatter);
        python::add_to(&mut environment);
        environment.add_filter("tojson", tojson);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            // An error is one line; only this program writes hints.
            Err(Error::new(ErrorKind::InvalidOperation, message.replace(['\n', '\r'], " ")))
        });
        environment.add_function("strftime_now", move |format: String| {
            strftime(&format, now.unwrap_or_else(|| Timestamp::now().as_second()))
        });
        let source = without_generation_tags(source);
        let source = percent::without_operators(&source).into_owned();
        environment.add_template_owned(NAME, source).context("compile the chat template")?;
        Ok(Self { environment })
    }

    pub(super) fn render(&self, context: impl Serialize) -> anyhow::Result<String> {
        let mut output = Bounded { bytes: Vec::new() };
        let template = self.environment.get_template(NAME).expect("compiled by `new`");
        template.render_captured_to(Value::from(Serde(context)), &mut output).context("render the chat template")?;
        String::from_utf8(output.bytes).context("render the chat template")
    }
}

struct Bounded {
    bytes: Vec<u8>,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > MAX_OUTPUT {
            return Err(io::Error::other(format!("the output is longer than {MAX_OUTPUT} bytes")));
        }
        self.bytes.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes constants in Python's form.
fn python_formatter(output: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    match value.kind() {
        ValueKind::None => output.write_str("None").map_err(Error::from),
        ValueKind::Bool => output.write_str(if value.is_true() { "True" } else { "False" }).map_err(Error::from),
        _ => escape_formatter(output, state, value),
    }
}

/// `json.dumps(value, ensure_ascii=False)`, without HTML escapes.
fn tojson(value: &Value, options: Kwargs) -> Result<String, Error> {
    let ascii = options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    let sorted = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    let indent = options.get::<Option<usize>>("indent")?.map(|width| " ".repeat(width.min(16)));
    let separators = options.get::<Option<Vec<String>>>("separators")?;
    options.assert_all_used()?;
    let [between_items, after_key] = match separators {
        Some(separators) => <[String; 2]>::try_from(separators)
            .map_err(|_| Error::new(ErrorKind::InvalidOperation, "`separators` of tojson must be two strings"))?,
        None => [if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()],
    };
    let mut writer = JsonWriter { text: String::new(), ascii, sorted, indent, between_items, after_key };
    writer.value(value, 0)?;
    Ok(writer.text)
}

struct JsonWriter {
    text: String,
    ascii: bool,
    sorted: bool,
    indent: Option<String>,
    between_items: String,
    after_key: String,
}

impl JsonWriter {
    /// Values can contain themselves, so both depth and length are limited.
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        let refused = |what: &'static str| Err(Error::new(ErrorKind::InvalidOperation, what));
        if depth > DEEPEST {
            return refused("tojson: the value is nested too deeply");
        }
        if self.text.len() > MAX_OUTPUT {
            return refused("tojson: the text is too long");
        }
        match value.kind() {
            ValueKind::Undefined => return refused("tojson: the value is undefined"),
            ValueKind::Seq | ValueKind::Iterable => {
                self.text.push('[');
                let mut count = 0;
                for item in value.try_iter()? {
                    self.start_item(count, depth);
                    self.value(&item, depth + 1)?;
                    count += 1;
                }
                self.end_items(']', count, depth);
            }
            ValueKind::Map => {
                let mut keys: Vec<(String, Value)> = value
                    .try_iter()?
                    .map(|key| (key.as_str().map_or_else(|| json_key(&key), str::to_owned), key))
                    .collect();
                if self.sorted {
                    keys.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
                }
                self.text.push('{');
                for (count, (name, key)) in keys.iter().enumerate() {
                    self.start_item(count, depth);
                    self.string(name);
                    self.text.push_str(&self.after_key);
                    self.value(&value.get_item(key)?, depth + 1)?;
                }
                self.end_items('}', keys.len(), depth);
            }
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            _ => self.text.push_str(&json_scalar(value)?),
        }
        Ok(())
    }

    fn start_item(&mut self, before: usize, depth: usize) {
        if before > 0 {
            self.text.push_str(&self.between_items);
        }
        self.new_line(depth + 1);
    }

    fn end_items(&mut self, close: char, count: usize, depth: usize) {
        if count > 0 {
            self.new_line(depth);
        }
        self.text.push(close);
    }

    fn new_line(&mut self, depth: usize) {
        if let Some(indent) = &self.indent {
            self.text.push('\n');
            self.text.push_str(&indent.repeat(depth));
        }
    }

    fn string(&mut self, text: &str) {
        let quoted = serde_json::Value::from(text).to_string();
        if !self.ascii {
            return self.text.push_str(&quoted);
        }
        for char in quoted.chars() {
            if char.is_ascii() {
                self.text.push(char);
            } else {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    self.text.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
}

fn json_scalar(value: &Value) -> Result<String, Error> {
    serde_json::to_string(value)
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, "not a JSON value").with_source(error))
}

/// A key that is not a string, in Python's form.
fn json_key(key: &Value) -> String {
    json_scalar(key).unwrap_or_else(|_| key.to_string())
}

/// Replaces `{% generation %}` and `{% endgeneration %}`, which mark the assistant's text for masks that are not needed here,
/// with a block that has no effect except the tags' effect on surrounding whitespace.
fn without_generation_tags(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        text.push_str(before);
        let end = tag.find("%}").map_or(tag.len(), |end| end + 2);
        let (tag, after) = tag.split_at(end);
        match tag.trim_matches(['{', '%', '}', '-', '+']).trim() {
            "generation" => text.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => text.push_str(&tag.replace("endgeneration", "endif")),
            _ => text.push_str(tag),
        }
        rest = after;
    }
    text.push_str(rest);
    text
}

/// Formats a date and time with the directives of C's `strftime`, in UTC and in English.
fn strftime(format: &str, seconds: i64) -> Result<String, Error> {
    let time = Timestamp::from_second(seconds).map(|time| Offset::UTC.to_datetime(time));
    time.and_then(|time| strtime::format(format, time))
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {error}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render(source: &str) -> anyhow::Result<String> {
        Jinja::new(source, Some(951_782_400))?.render(json!({ "x": { "b": "<é\n\"", "a": [1, 2.5, null, true] } }))
    }

    #[test]
    fn json_is_written_as_in_python() {
        let check = |source, expected: &str| assert_eq!(render(source).unwrap(), expected);
        check("{{ x | tojson }}", r#"{"b": "<é\n\"", "a": [1, 2.5, null, true]}"#);
        check(
            "{{ x | tojson(sort_keys=true, ensure_ascii=true) }}",
            r#"{"a": [1, 2.5, null, true], "b": "<\u00e9\n\""}"#,
        );
        check("{{ x.a | tojson(separators=(',', ':')) }}", "[1,2.5,null,true]");
        check("{{ x.a[:2] | tojson(indent=2) }}", "[\n  1,\n  2.5\n]");
        check("{{ [] | tojson(indent=2) }}{{ {} | tojson }}", "[]{}");
    }

    #[test]
    fn constants_are_written_as_in_python() {
        assert_eq!(render("{{ none }} {{ true }} {{ 1 == 2 }} {{ missing }}|").unwrap(), "None True False |");
    }

    #[test]
    fn dates_follow_the_calendar() {
        assert_eq!(
            render("{{ strftime_now('%d %B %Y, %a %H:%M %-m %y %I %p') }}").unwrap(),
            "29 February 2000, Tue 00:00 2 00 12 AM"
        );
        assert_eq!(strftime("%Y-%m-%d %A", 1_764_547_200).unwrap(), "2025-12-01 Monday");
        assert_eq!(strftime("%Y-%m-%d %A", -1).unwrap(), "1969-12-31 Wednesday");
        assert!(render("{{ strftime_now('%Q') }}").is_err());
    }

    #[test]
    fn generation_tags_only_trim_whitespace() {
        assert_eq!(render("a\n{% generation %}\nb\n{% endgeneration %}\nc").unwrap(), "a\nb\nc");
        assert_eq!(render("a \n{%- generation -%}\n b {%- endgeneration +%}\nc").unwrap(), "ab\nc");
    }

    #[test]
    fn a_hostile_template_is_stopped() {
        for source in [
            "{% for i in range(100000) %}{% for j in range(100000) %}{{ j }}{% endfor %}{% endfor %}",
            "{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
            "{{ 'x' * 100000000000 }}",
            "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
            "{% include '/etc/passwd' %}",
            "{% set s = 'x' * 1000000 %}{% for i in range(10) %}{{ s }}{% endfor %}",
        ] {
            assert!(render(source).is_err(), "{source}");
        }
    }

    #[test]
    fn the_error_of_a_template_is_reported() {
        let error = render("{{ raise_exception('roles must alternate') }}").unwrap_err();
        assert!(format!("{error:#}").contains("roles must alternate"), "{error:#}");
    }
}
