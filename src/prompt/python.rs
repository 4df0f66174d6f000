//! Methods and tests of Python and jinja2 that templates use and that the template engine lacks, or that differ there.

use minijinja::formatting::{self, FormatStyle};
use minijinja::value::{Kwargs, Rest, Tuple, Value, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Environment, Error, ErrorKind, State};
use minijinja_contrib::pycompat;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::percent;

/// Maximum number of bytes that a method adds to a string.
const LONGEST: usize = 4 << 20;

pub(super) fn add_to(environment: &mut Environment<'_>) {
    environment.set_unknown_method_callback(method);
    environment.add_test("iterable", |value: &Value| value.is_undefined() || is_iterable(value));
    environment.add_test("sequence", |value: &Value| {
        value.is_undefined()
            || matches!(value.kind(), ValueKind::String | ValueKind::Seq | ValueKind::Map)
            || (value.kind() == ValueKind::Iterable && value.len().is_some())
    });
    environment.add_test("callable", |value: &Value| value.is_undefined() || value.kind() == ValueKind::Plain);
    environment.add_filter("center", |state: &State, text: String, width: Option<i64>| {
        pad(state, &text, "center", &[Value::from(width.unwrap_or(80))])
    });
    environment.add_filter("wordcount", |text: String| {
        text.split(|char: char| !(char.is_alphanumeric() || char == '_')).filter(|word| !word.is_empty()).count()
    });
    environment.add_filter("urlencode", |text: String| {
        const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');
        utf8_percent_encode(&text, ESCAPED).to_string()
    });
    environment.add_filter("truncate", truncate);
    environment.add_function(percent::FUNCTION, modulo);
    environment.add_filter("format", |state: &State, text: String, arguments: Rest<Value>| {
        formatted(state, FormatStyle::Printf, &text, &arguments)
    });
    environment.remove_global("debug");
}

fn is_iterable(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::String | ValueKind::Seq | ValueKind::Map | ValueKind::Iterable)
}

fn method(state: &mut State, value: &Value, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    match (value.as_str(), value.kind()) {
        (Some(text), _) => match string_method(state, text, name, arguments)? {
            Some(result) => Ok(result),
            None => pycompat::unknown_method_callback(state, value, name, arguments),
        },
        (None, ValueKind::Seq) if name == "index" => {
            let (wanted,): (&Value,) = from_args(arguments)?;
            let at = value.try_iter()?.position(|it| it == *wanted);
            at.map(Value::from).ok_or_else(|| error("the value is not in the list"))
        }
        (None, ValueKind::Seq | ValueKind::Map) if name == "copy" => {
            let () = from_args(arguments)?;
            Ok(value.clone())
        }
        _ => pycompat::unknown_method_callback(state, value, name, arguments),
    }
}

/// `None` for methods that are defined elsewhere.
fn string_method(state: &State, text: &str, name: &str, arguments: &[Value]) -> Result<Option<Value>, Error> {
    Ok(Some(match name {
        "split" | "rsplit" => {
            let (separator, limit) = split_arguments(arguments)?;
            let mut parts = split(text, separator.as_deref(), limit, name == "rsplit");
            if name == "rsplit" {
                parts.reverse();
            }
            parts.into_iter().map(Value::from).collect()
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(arguments)?;
            not_empty(separator)?;
            let (found, missing) = match name {
                "partition" => (text.split_once(separator), [text, "", ""]),
                _ => (text.rsplit_once(separator), ["", "", text]),
            };
            let parts = found.map_or(missing, |(before, after)| [before, separator, after]);
            Value::from(Tuple::from(parts.map(Value::from)))
        }
        "removeprefix" | "removesuffix" => {
            let (part,): (&str,) = from_args(arguments)?;
            let rest = if name == "removeprefix" { text.strip_prefix(part) } else { text.strip_suffix(part) };
            Value::from(rest.unwrap_or(text))
        }
        "find" | "rfind" | "index" | "rindex" | "count" => return search(text, name, arguments).map(Some),
        "format" => Value::from(formatted(state, FormatStyle::StrFormat, text, arguments)?),
        "ljust" | "rjust" | "center" | "zfill" => pad(state, text, name, arguments)?,
        "startswith" | "endswith" if arguments.len() > 1 => {
            let (part, start, end): (Value, Option<i64>, Option<i64>) = from_args(arguments)?;
            let Some((_, text)) = slice(text, start, end) else { return Ok(Some(Value::from(false))) };
            return method_of(state, text, name, part).map(Some);
        }
        "strip" | "lstrip" | "rstrip" if arguments.first().is_none_or(Value::is_none) => {
            let (_,): (Option<Value>,) = from_args(arguments)?;
            let text = if name == "rstrip" { text } else { text.trim_start_matches(is_space) };
            Value::from(if name == "lstrip" { text } else { text.trim_end_matches(is_space) })
        }
        "splitlines" => {
            let (keep, options): (Option<bool>, Kwargs) = from_args(arguments)?;
            let keep = keep.or(options.get("keepends")?).unwrap_or(false);
            options.assert_all_used()?;
            split_lines(text, keep).into_iter().map(Value::from).collect()
        }
        "title" => {
            let () = from_args(arguments)?;
            Value::from(title(text))
        }
        "swapcase" => {
            let () = from_args(arguments)?;
            let swapped = |char: char| -> String {
                if char.is_uppercase() { char.to_lowercase().collect() } else { char.to_uppercase().collect() }
            };
            Value::from(text.chars().map(swapped).collect::<String>())
        }
        "casefold" => {
            let () = from_args(arguments)?;
            Value::from(text.to_lowercase().replace('ß', "ss"))
        }
        "expandtabs" => {
            let (width, options): (Option<usize>, Kwargs) = from_args(arguments)?;
            let width = width.or(options.get("tabsize")?).unwrap_or(8).min(LONGEST);
            options.assert_all_used()?;
            expand_tabs(state, text, width)?
        }
        "isdecimal" => {
            let () = from_args(arguments)?;
            Value::from(!text.is_empty() && text.chars().all(|it| it.is_ascii_digit()))
        }
        "isidentifier" => {
            let () = from_args(arguments)?;
            let starts = text.starts_with(|it: char| it.is_alphabetic() || it == '_');
            Value::from(starts && text.chars().all(|it| it.is_alphanumeric() || it == '_'))
        }
        "isprintable" => {
            let () = from_args(arguments)?;
            Value::from(text.chars().all(|it| !it.is_control() && (it == ' ' || !it.is_whitespace())))
        }
        "istitle" => {
            let () = from_args(arguments)?;
            Value::from(is_title(text))
        }
        _ => return Ok(None),
    }))
}

/// `startswith` and `endswith` of another text.
fn method_of(state: &State, text: &str, name: &str, part: Value) -> Result<Value, Error> {
    let parts = match part.as_str() {
        Some(part) => vec![part.to_owned()],
        None => part
            .try_iter()?
            .map(|it| it.as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .ok_or_else(|| error(format!("{name} needs a string or a tuple of strings")))?,
    };
    state.consume_fuel(parts.len() as u64)?;
    let holds = |part: &String| if name == "startswith" { text.starts_with(part) } else { text.ends_with(part) };
    Ok(Value::from(parts.iter().any(holds)))
}

fn split_arguments(arguments: &[Value]) -> Result<(Option<String>, Option<usize>), Error> {
    let (separator, limit, options): (Option<String>, Option<i64>, Kwargs) = from_args(arguments)?;
    let separator = separator.or(options.get("sep")?);
    let limit = limit.or(options.get("maxsplit")?);
    options.assert_all_used()?;
    separator.as_deref().map_or(Ok(()), not_empty)?;
    Ok((separator, limit.and_then(|limit| usize::try_from(limit).ok())))
}

fn not_empty(separator: &str) -> Result<(), Error> {
    if separator.is_empty() { Err(error("empty separator")) } else { Ok(()) }
}

/// The parts of a text, at most `limit + 1`; from its end if `from_end`. Without a separator, white space separates, and parts are
/// never empty.
fn split<'a>(text: &'a str, separator: Option<&str>, limit: Option<usize>, from_end: bool) -> Vec<&'a str> {
    let most = limit.unwrap_or(usize::MAX);
    match (separator, from_end) {
        (Some(separator), false) => text.splitn(most.saturating_add(1), separator).collect(),
        (Some(separator), true) => text.rsplitn(most.saturating_add(1), separator).collect(),
        (None, _) => {
            let mut parts = Vec::new();
            let mut rest = if from_end { text.trim_end_matches(is_space) } else { text.trim_start_matches(is_space) };
            while !rest.is_empty() {
                let at = if from_end { rest.rfind(is_space) } else { rest.find(is_space) };
                let Some(at) = at.filter(|_| parts.len() < most) else {
                    parts.push(rest);
                    break;
                };
                if from_end {
                    let space = rest[at..].chars().next().map_or(1, char::len_utf8);
                    parts.push(&rest[at + space..]);
                    rest = rest[..at].trim_end_matches(is_space);
                } else {
                    parts.push(&rest[..at]);
                    rest = rest[at..].trim_start_matches(is_space);
                }
            }
            parts
        }
    }
}

/// What Python's `str.isspace` accepts.
fn is_space(char: char) -> bool {
    char.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&char)
}

/// `find`, `index`, `count` and their variants from the end. Positions are in characters.
fn search(text: &str, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    let (part, start, end): (&str, Option<i64>, Option<i64>) = from_args(arguments)?;
    let slice = slice(text, start, end);
    if name == "count" {
        let count = |text: &str| match part.is_empty() {
            true => text.chars().count() + 1,
            false => text.matches(part).count(),
        };
        return Ok(Value::from(slice.map_or(0, |(_, text)| count(text))));
    }
    let found = slice.and_then(|(before, text)| {
        let at = if name.starts_with('r') { text.rfind(part) } else { text.find(part) };
        at.map(|at| before + text[..at].chars().count())
    });
    match found {
        Some(at) => Ok(Value::from(at)),
        None if name.ends_with("index") => Err(error("substring not found")),
        None => Ok(Value::from(-1)),
    }
}

/// `text[start:end]`, and the number of characters before it; none if `start` is after its end.
fn slice(text: &str, start: Option<i64>, end: Option<i64>) -> Option<(usize, &str)> {
    if (start, end) == (None, None) {
        return Some((0, text));
    }
    let count = text.chars().count();
    let place = |index: i64| match usize::try_from(index) {
        Ok(index) => index,
        Err(_) => count.saturating_sub(usize::try_from(index.unsigned_abs()).unwrap_or(usize::MAX)),
    };
    let (start, end) = (start.map_or(0, place), end.map_or(count, place).min(count));
    if start > count || start > end {
        return None;
    }
    let byte = |index: usize| text.char_indices().nth(index).map_or(text.len(), |(at, _)| at);
    Some((start, &text[byte(start)..byte(end)]))
}

/// `ljust`, `rjust`, `center` and `zfill`.
fn pad(state: &State, text: &str, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    let (width, fill): (i64, Option<char>) = from_args(arguments)?;
    let width = usize::try_from(width).unwrap_or(0);
    let missing = width.saturating_sub(text.chars().count());
    if missing > LONGEST {
        return Err(error("the padding is too long"));
    }
    state.consume_fuel(missing as u64 / 64)?;
    let fill = fill.unwrap_or(if name == "zfill" { '0' } else { ' ' });
    let padding = |count: usize| std::iter::repeat_n(fill, count).collect::<String>();
    Ok(Value::from(match name {
        "ljust" => format!("{text}{}", padding(missing)),
        "rjust" => format!("{}{text}", padding(missing)),
        "zfill" => {
            let sign = usize::from(text.starts_with(['+', '-']));
            format!("{}{}{}", &text[..sign], padding(missing), &text[sign..])
        }
        // As in Python: the odd character is on the left if the width is odd.
        _ => {
            let left = missing / 2 + (missing & width & 1);
            format!("{}{text}{}", padding(left), padding(missing - left))
        }
    }))
}

fn expand_tabs(state: &State, text: &str, width: usize) -> Result<Value, Error> {
    let mut result = String::new();
    let mut column = 0;
    for char in text.chars() {
        if char == '\t' {
            let count = if width == 0 { 0 } else { width - column % width };
            state.consume_fuel(1 + count as u64 / 64)?;
            if result.len() + count > LONGEST {
                return Err(error("the text is too long"));
            }
            result.extend(std::iter::repeat_n(' ', count));
            column += count;
        } else {
            result.push(char);
            column = if matches!(char, '\n' | '\r') { 0 } else { column + 1 };
        }
    }
    Ok(Value::from(result))
}

fn split_lines(text: &str, keep: bool) -> Vec<&str> {
    const BREAKS: [char; 10] =
        ['\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}', '\u{2029}'];
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(BREAKS) {
        let width =
            if rest[at..].starts_with("\r\n") { 2 } else { rest[at..].chars().next().map_or(1, char::len_utf8) };
        lines.push(if keep { &rest[..at + width] } else { &rest[..at] });
        rest = &rest[at + width..];
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}

/// Each run of letters starts with a capital letter and continues with small ones.
fn title(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut within_word = false;
    for char in text.chars() {
        match within_word {
            true => result.extend(char.to_lowercase()),
            false => result.extend(char.to_uppercase()),
        }
        within_word = char.is_alphabetic();
    }
    result
}

/// jinja2's filter: a text that is longer than `length` and a tolerance of five characters is cut at the last space.
fn truncate(text: String, arguments: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let arguments = arguments.into_values();
    let (unnamed, named): (&[Value], Kwargs) = from_args(&arguments)?;
    let argument = |place: usize, name: &str| match unnamed.get(place) {
        Some(value) => Ok(Some(value.clone())),
        None => named.get::<Option<Value>>(name),
    };
    let length = argument(0, "length")?.map_or(Ok(255), usize::try_from)?;
    let kill_words = argument(1, "killwords")?.is_some_and(|it| it.is_true());
    let end = argument(2, "end")?.map_or_else(|| "...".to_owned(), |it| it.to_string());
    let leeway = argument(3, "leeway")?.map_or(Ok(5), usize::try_from)?;
    named.assert_all_used()?;
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(text);
    }
    let kept: String = text.chars().take(length.saturating_sub(end.chars().count())).collect();
    let kept = match kept.rsplit_once(' ') {
        Some((before, _)) if !kill_words => before,
        _ => &kept,
    };
    Ok(format!("{kept}{end}"))
}

fn is_title(text: &str) -> bool {
    let (mut within_word, mut has_word) = (false, false);
    for char in text.chars() {
        let is_cased = char.is_uppercase() || char.is_lowercase();
        if (char.is_uppercase() && within_word) || (char.is_lowercase() && !within_word) {
            return false;
        }
        within_word = is_cased;
        has_word |= is_cased;
    }
    has_word
}

/// Python's `left % right`: of a string, formats values; of numbers, the remainder with the sign of `right`.
fn modulo(state: &State, left: Value, right: Value) -> Result<Value, Error> {
    if let Some(text) = left.as_str() {
        let arguments = match right.downcast_object_ref::<Tuple>() {
            Some(values) => values.to_vec(),
            None => vec![right],
        };
        return formatted(state, FormatStyle::Printf, text, &arguments).map(Value::from);
    }
    if let (Ok(left), Ok(right)) = (i128::try_from(left.clone()), i128::try_from(right.clone())) {
        let remainder = left.checked_rem(right).ok_or_else(|| error("modulo by zero"))?;
        let is_other_sign = remainder != 0 && (remainder < 0) != (right < 0);
        return Ok(Value::from(if is_other_sign { remainder + right } else { remainder }));
    }
    let number = |value: Value| {
        let kind = value.kind();
        f64::try_from(value).map_err(|_| error(format!("unsupported operand for %: {kind}")))
    };
    let (left, right) = (number(left)?, number(right)?);
    if right == 0.0 {
        return Err(error("modulo by zero"));
    }
    let remainder = left % right;
    let is_other_sign = remainder != 0.0 && (remainder < 0.0) != (right < 0.0);
    Ok(Value::from(if is_other_sign { remainder + right } else { remainder }))
}

/// Values in the places of a format. Widths and precisions have at most four digits: the library fails for very large ones.
fn formatted(state: &State, style: FormatStyle, format: &str, arguments: &[Value]) -> Result<String, Error> {
    const WIDEST: u64 = 9999;
    let start = if style == FormatStyle::Printf { '%' } else { '{' };
    let mut fields = 0;
    for field in format.split(start).skip(1) {
        let field = match style {
            FormatStyle::Printf => {
                let field = if field.starts_with('(') { field.split_once(')').map_or("", |it| it.1) } else { field };
                let end = field.find(|char: char| !"#0123456789- +.*".contains(char)).unwrap_or(field.len());
                &field[..end]
            }
            FormatStyle::StrFormat => field.split('}').next().unwrap_or_default(),
        };
        let digits = field.split(|char: char| !char.is_ascii_digit()).map(str::len).max().unwrap_or(0);
        // The star is a width that is an argument.
        if digits > 4 || (style == FormatStyle::Printf && field.contains('*')) {
            return Err(error("a width or a precision in a format is too large"));
        }
        fields += 1;
    }
    state.consume_fuel(fields * WIDEST / 64)?;
    formatting::format(style, format, arguments)
}

fn error(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}
