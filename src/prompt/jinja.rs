//! Jinja for chat templates: the functions that transformers provides to templates, and limits on their cost.
//!
//! A chat template is an untrusted program that is part of a model. It can access only the conversation, cannot load
//! other templates, and stops when its limit of instructions or of output is reached.

use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, State, escape_formatter};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde::Serialize;

/// The approximate limit of instructions, and 1/64 of the limit of bytes of intermediate values. The longest templates in use need
/// a few thousand instructions for our conversations.
const FUEL: u64 = 2_000_000;
/// Maximum number of bytes of a template's output.
const MAX_OUTPUT: usize = 4 << 20;
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
        environment.set_unknown_method_callback(unknown_method_callback);
        environment.add_filter("tojson", tojson);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_function("strftime_now", move |format: String| {
            strftime(&format, now.unwrap_or_else(seconds_since_1970))
        });
        environment.add_template_owned(NAME, without_generation_tags(source)).context("compile the chat template")?;
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
    let value = serde_json::to_value(value)
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, "not a JSON value").with_source(error))?;
    let mut writer = JsonWriter { text: String::new(), ascii, sorted, indent, between_items, after_key };
    writer.value(&value, 0);
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
    fn value(&mut self, value: &serde_json::Value, depth: usize) {
        use serde_json::Value::{Array, Object, String};
        match value {
            Array(items) => self.items('[', ']', items.len(), depth, |it, i| it.value(&items[i], depth + 1)),
            Object(map) => {
                let mut entries: Vec<_> = map.iter().collect();
                if self.sorted {
                    entries.sort_unstable_by_key(|(key, _)| *key);
                }
                self.items('{', '}', entries.len(), depth, |it, i| {
                    it.string(entries[i].0);
                    let after_key = it.after_key.clone();
                    it.text.push_str(&after_key);
                    it.value(entries[i].1, depth + 1);
                });
            }
            String(text) => self.string(text),
            scalar => self.text.push_str(&scalar.to_string()),
        }
    }

    fn items(&mut self, open: char, close: char, count: usize, depth: usize, mut item: impl FnMut(&mut Self, usize)) {
        self.text.push(open);
        for i in 0..count {
            if i > 0 {
                let between_items = self.between_items.clone();
                self.text.push_str(&between_items);
            }
            self.new_line(depth + 1);
            item(self, i);
        }
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

fn seconds_since_1970() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs() as i64)
}

/// Formats a date with the directives of C's `strftime` that prompts use, in UTC and in English.
fn strftime(format: &str, seconds: i64) -> Result<String, Error> {
    write_date(format, seconds).map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
}

fn write_date(format: &str, seconds: i64) -> anyhow::Result<String> {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil_date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let (month_name, day_name) = (MONTHS[month as usize - 1], DAYS[days.rem_euclid(7) as usize]);

    let mut text = String::new();
    let mut chars = format.chars();
    while let Some(char) = chars.next() {
        if char != '%' {
            text.push(char);
            continue;
        }
        let directive = chars.next();
        let (directive, padded) = if directive == Some('-') { (chars.next(), false) } else { (directive, true) };
        let number = |value: i64| if padded { format!("{value:02}") } else { value.to_string() };
        text.push_str(&match directive {
            Some('Y') => year.to_string(),
            Some('y') => number(year.rem_euclid(100)),
            Some('m') => number(month),
            Some('d') => number(day),
            Some('B') => month_name.to_owned(),
            Some('b') => month_name[..3].to_owned(),
            Some('A') => day_name.to_owned(),
            Some('a') => day_name[..3].to_owned(),
            Some('H') => number(hour),
            Some('I') => number((hour + 11) % 12 + 1),
            Some('M') => number(minute),
            Some('S') => number(second),
            Some('p') => if hour < 12 { "AM" } else { "PM" }.to_owned(),
            Some('%') => "%".to_owned(),
            _ => bail!("strftime_now does not support all directives of `{format}`"),
        });
    }
    Ok(text)
}

/// Year, month and day (proleptic Gregorian) of a number of days since 1970-01-01. Years are counted from March, so that
/// the leap day is the last day of a year, and in eras of 400 years, which all have the same length.
fn civil_date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468; // since 0000-03-01
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
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
        assert_eq!(write_date("%Y-%m-%d %A", 1_764_547_200).unwrap(), "2025-12-01 Monday");
        assert_eq!(write_date("%Y-%m-%d %A", -1).unwrap(), "1969-12-31 Wednesday");
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
