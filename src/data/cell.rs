//! A value of a data file as text: a question, a gold answer or an identity.

use serde_json::value::RawValue;

use super::row::{items, object};

/// Largest exponent of a number that is written out.
const MAX_EXPONENT: i64 = 400;

/// Text, or a number in its usual form; `None` if it is empty. A list of one such value counts as the value.
///
/// # Errors
/// Another kind of value. The error follows the name of the column.
pub fn text(raw: &RawValue) -> Result<Option<String>, String> {
    match items(raw.get()) {
        Ok(list) if list.is_empty() => Ok(None),
        Ok(list) if list.len() == 1 => scalar(list[0]),
        _ => scalar(raw),
    }
}

/// A question: text, or a conversation that consists of one message of the user, optionally after a system message.
/// The second value is whether there is a system message, which is left out.
///
/// # Errors
/// See [`text`]; other conversations.
pub fn question(raw: &RawValue) -> Result<(Option<String>, bool), String> {
    let Some(turns) = turns(raw)? else { return Ok((text(raw)?, false)) };
    let roles: Vec<&str> = turns.iter().map(|(role, _)| role.as_str()).collect();
    match roles[..] {
        ["user"] | ["system" | "developer", "user"] => {
            let has_system = turns.len() == 2 && !turns[0].1.trim().is_empty();
            let text = turns.last().map(|(_, content)| content.trim().to_owned()).unwrap_or_default();
            Ok(((!text.is_empty()).then_some(text), has_system))
        }
        _ => Err(format!(
            "expected a conversation of one user message, found the roles {}\n\
             hint: write the question to a separate column, as text",
            roles.join(", ")
        )),
    }
}

/// A gold answer: text, or a conversation that consists of one message of the assistant.
///
/// # Errors
/// See [`text`]; other conversations.
pub fn answer(raw: &RawValue) -> Result<Option<String>, String> {
    match turns(raw)?.as_deref() {
        None => text(raw),
        Some([(role, content)]) if role == "assistant" => {
            Ok(Some(content.trim().to_owned()).filter(|text| !text.is_empty()))
        }
        Some(turns) => {
            let roles: Vec<&str> = turns.iter().map(|(role, _)| role.as_str()).collect();
            Err(format!(
                "expected one assistant message, found the roles {}\n\
                 hint: write the answer to a separate column, as text",
                roles.join(", ")
            ))
        }
    }
}

/// The role and content of the messages of a conversation; `None` if the value is not one.
fn turns(raw: &RawValue) -> Result<Option<Vec<(String, String)>>, String> {
    let Ok(list) = items(raw.get()) else { return Ok(None) };
    let mut turns = Vec::new();
    for message in list {
        let Ok(fields) = object(message.get()) else { return Ok(None) };
        let field = |name: &str| fields.iter().find(|(found, _)| found == name).map(|(_, value)| *value);
        let (Some(role), Some(content)) = (field("role"), field("content")) else { return Ok(None) };
        turns.push((scalar(role)?.unwrap_or_default(), content_text(content)?));
    }
    Ok((!turns.is_empty()).then_some(turns))
}

/// The content of a message: text, or a list of parts that are text.
fn content_text(raw: &RawValue) -> Result<String, String> {
    let Ok(parts) = items(raw.get()) else { return Ok(scalar(raw)?.unwrap_or_default()) };
    let mut text = String::new();
    for part in parts {
        let fields = object(part.get()).unwrap_or_default();
        let field = |name: &str| fields.iter().find(|(found, _)| found == name).map(|(_, value)| *value);
        match field("text").filter(|_| field("type").is_some_and(|it| it.get() == "\"text\"")) {
            Some(part) => text.push_str(&scalar(part)?.unwrap_or_default()),
            None => return Err("a message has a part that is not text".to_owned()),
        }
    }
    Ok(text)
}

/// Text, or a number in its usual form; `None` if it is empty.
fn scalar(raw: &RawValue) -> Result<Option<String>, String> {
    let json = raw.get();
    let found = match json.bytes().next() {
        Some(b'"') => {
            let text: String = serde_json::from_str(json).map_err(|error| error.to_string())?;
            let text = text.trim();
            return Ok((!text.is_empty()).then(|| text.to_owned()));
        }
        Some(b'n') => return Ok(None),
        Some(b't' | b'f') => "a boolean\nhint: convert the column to text",
        Some(b'[') => "a list\nhint: write one text or number, or a list of one",
        Some(b'{') => "an object\nhint: name one of its fields after a dot, such as `reward_model.ground_truth`",
        _ => return Ok(Some(number(json))),
    };
    Err(format!("expected text or a number, found {found}"))
}

/// A JSON number in its usual form: some data sets store integers as `142.0` or `1e3`. All other digits are as in the file.
pub fn number(json: &str) -> String {
    let (mantissa, exponent) = json.split_once(['e', 'E']).unwrap_or((json, "0"));
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let Some(exponent) = exponent.parse::<i64>().ok().filter(|it| it.abs() <= MAX_EXPONENT) else {
        return json.to_owned();
    };
    let digits = format!("{whole}{fraction}");
    let point = whole.len() as i64 + exponent;
    let (whole, fraction) = if point <= 0 {
        ("0".to_owned(), format!("{}{digits}", "0".repeat(-point as usize)))
    } else if point as usize >= digits.len() {
        (format!("{digits}{}", "0".repeat(point as usize - digits.len())), String::new())
    } else {
        (digits[..point as usize].to_owned(), digits[point as usize..].to_owned())
    };
    let whole = Some(whole.trim_start_matches('0')).filter(|it| !it.is_empty()).unwrap_or("0");
    if fraction.bytes().all(|digit| digit == b'0') {
        return if whole == "0" { whole.to_owned() } else { format!("{sign}{whole}") };
    }
    format!("{sign}{whole}.{fraction}")
}

/// Whether a number has as many digits as the results of computations with rounding, such as `0.30000000000000004` for 0.1 + 0.2.
pub fn is_rounded(number: &str) -> bool {
    let Some((whole, fraction)) = number.trim_start_matches('-').split_once('.') else { return false };
    let is_number =
        !whole.is_empty() && [whole, fraction].iter().all(|part| part.bytes().all(|it| it.is_ascii_digit()));
    is_number && format!("{whole}{fraction}").trim_start_matches('0').len() >= 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_digits() {
        for (json, text) in [
            ("142.0", "142"),
            ("1e3", "1000"),
            ("1.5E+3", "1500"),
            ("-2.50", "-2.50"),
            ("-0.0", "0"),
            ("1e-7", "0.0000001"),
            ("-1.25e1", "-12.5"),
            ("12.50e1", "125"),
            ("1124000727777607680000", "1124000727777607680000"),
            ("0.1234567890123456789012", "0.1234567890123456789012"),
            ("1e999", "1e999"),
        ] {
            assert_eq!(number(json), text, "{json}");
        }
    }

    #[test]
    fn results_of_computations_are_recognized() {
        assert!(is_rounded("0.30000000000000004") && is_rounded("-3333.3333333333335"));
        assert!(!is_rounded("0.3") && !is_rounded("1124000727777607680000") && !is_rounded("0.000000000000000001"));
        assert!(!is_rounded("x.1234567890123456789"));
    }
}
