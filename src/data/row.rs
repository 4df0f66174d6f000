//! The rows of a data file, whatever its format: values by column, as JSON text. A number therefore keeps the digits that it has in
//! the file: `Number` of serde_json would round integers above 64 bits.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// The rows of one file.
#[derive(Debug)]
pub struct FileRows {
    /// The word for a row in messages.
    pub unit: &'static str,
    /// The number of each row in the file, from 1, and its columns.
    pub rows: Vec<(usize, Row)>,
}

impl FileRows {
    /// The position of a row in messages: `line 17`.
    pub fn place(&self, number: usize) -> String {
        format!("{} {number}", self.unit)
    }

    /// The positions of several rows, in ascending order: `lines 3, 7-9`.
    pub fn places(&self, numbers: &[usize]) -> String {
        /// Maximum number of listed ranges.
        const LISTED: usize = 40;
        let mut ranges: Vec<(usize, usize)> = Vec::new();
        for &number in numbers {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == number => *last = number,
                _ => ranges.push((number, number)),
            }
        }
        let listed = ranges.iter().take(LISTED).map(|(first, last)| match last - first {
            0 => first.to_string(),
            _ => format!("{first}-{last}"),
        });
        let more = if ranges.len() > LISTED { ", ..." } else { "" };
        let plural = if numbers.len() > 1 { "s" } else { "" };
        format!("{}{plural} {}{more}", self.unit, listed.collect::<Vec<_>>().join(", "))
    }
}

/// The columns of a row, in the order of the file.
#[derive(Debug)]
pub struct Row(Vec<(String, Box<RawValue>)>);

impl Row {
    /// # Errors
    /// Two columns have the same name.
    pub fn new(columns: Vec<(String, Box<RawValue>)>) -> Result<Self, String> {
        distinct(columns.iter().map(|(name, _)| name.as_str()))?;
        Ok(Self(columns))
    }

    /// A row from the text of a JSON object.
    ///
    /// # Errors
    /// Text that is not a JSON object, or an object that has a key twice.
    pub fn from_json(text: &str) -> serde_json::Result<Self> {
        Ok(Self(object(text)?.into_iter().map(|(name, value)| (name, value.to_owned())).collect()))
    }

    /// Bytes of memory, approximately.
    pub fn memory(&self) -> u64 {
        /// Of the list entry, and of the blocks of the two texts.
        const COLUMN: usize = 176;
        let columns = self.0.iter().map(|(name, value)| COLUMN + name.len() + value.get().len());
        columns.sum::<usize>() as u64
    }

    /// The names of the columns.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// The names of the columns for messages: at most 20 of them, and 60 characters of each.
    pub fn listed(&self) -> String {
        let mut listed: Vec<String> = self.names().take(20).map(|name| name.chars().take(60).collect()).collect();
        let more = self.0.len() - listed.len();
        if more > 0 {
            listed.push(format!("and {more} more"));
        }
        listed.join(", ")
    }

    pub fn columns(&self) -> impl Iterator<Item = (&str, &RawValue)> {
        self.0.iter().map(|(name, value)| (name.as_str(), &**value))
    }

    /// The value of a column, or a value within it: `reward_model.ground_truth` is the column of this name, or else the
    /// field `ground_truth` of the object in the column `reward_model`.
    pub fn get(&self, path: &str) -> Option<&RawValue> {
        find(&mut self.columns(), path)
    }

    /// Sets a column, which is added at the end if it does not exist.
    pub fn set(&mut self, name: &str, value: Box<RawValue>) {
        match self.0.iter_mut().find(|(found, _)| found == name) {
            Some((_, found)) => *found = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

fn find<'a>(columns: &mut dyn Iterator<Item = (&str, &'a RawValue)>, path: &str) -> Option<&'a RawValue> {
    let mut outer = None;
    for (name, value) in columns {
        match path.strip_prefix(name) {
            Some("") => return Some(value),
            Some(rest) if rest.starts_with('.') => outer = Some((value, &rest[1..])),
            _ => {}
        }
    }
    let (value, rest) = outer?;
    let fields = object(value.get()).ok()?;
    find(&mut fields.iter().map(|(name, value)| (name.as_str(), *value)), rest)
}

/// Checks that no name occurs twice.
pub fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), String> {
    let mut seen = HashSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(format!("two columns have the name `{name}`"));
        }
    }
    Ok(())
}

/// The fields of a JSON object, with their values as text.
///
/// # Errors
/// Text that is not a JSON object, or an object that has a key twice.
pub fn object(text: &str) -> serde_json::Result<Vec<(String, &RawValue)>> {
    struct Fields;
    impl<'de> Visitor<'de> for Fields {
        type Value = Vec<(String, &'de RawValue)>;

        fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
            formatter.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut fields = Vec::new();
            while let Some(field) = map.next_entry()? {
                fields.push(field);
            }
            distinct(fields.iter().map(|(name, _): &(String, _)| name.as_str())).map_err(serde::de::Error::custom)?;
            Ok(fields)
        }
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let fields = deserializer.deserialize_map(Fields)?;
    deserializer.end()?;
    Ok(fields)
}

/// The items of a JSON list.
///
/// # Errors
/// Text that is not a JSON list.
pub fn items(text: &str) -> serde_json::Result<Vec<&RawValue>> {
    serde_json::from_str(text)
}

/// A value for rewards. An integer above 64 bits becomes text, because a JSON number would round it.
///
/// # Errors
/// Text that is not valid, or nested too deeply.
pub fn value(raw: &RawValue) -> serde_json::Result<Value> {
    let value: Value = serde_json::from_str(raw.get())?;
    Ok(if has_long_number(raw.get()) { keep_integers(value, raw) } else { value })
}

/// Whether there may be an integer above 64 bits, which has at least 19 digits.
fn has_long_number(text: &str) -> bool {
    text.as_bytes().split(|byte| !byte.is_ascii_digit()).any(|digits| digits.len() >= 19)
}

/// `value` with the source text of integers that it has as floats. The depth is limited, because serde_json limits that of `value`.
fn keep_integers(value: Value, raw: &RawValue) -> Value {
    let text = raw.get();
    match value {
        Value::Number(number) if number.is_f64() && !text.contains(['.', 'e', 'E']) => text.into(),
        Value::Array(values) => match items(text) {
            Ok(raw) => values.into_iter().zip(raw).map(|(value, raw)| keep_integers(value, raw)).collect(),
            Err(_) => Value::Array(values),
        },
        Value::Object(values) => match object(text) {
            Ok(raw) => {
                values.into_iter().zip(raw).map(|((name, value), (_, raw))| (name, keep_integers(value, raw))).collect()
            }
            Err(_) => Value::Object(values),
        },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_listed_as_ranges() {
        let file = FileRows { unit: "line", rows: Vec::new() };
        assert_eq!(file.places(&[3]), "line 3");
        assert_eq!(file.places(&[3, 7, 8, 9]), "lines 3, 7-9");
        let many: Vec<usize> = (0..100).map(|i| 2 * i).collect();
        assert!(file.places(&many).ends_with(", 78, ..."));
    }

    #[test]
    fn values_keep_large_integers() {
        let raw = RawValue::from_string(
            r#"{"a": [18446744073709551616, 2, "18446744073709551616"], "b": 18446744073709551615, "c": 1.50}"#
                .to_owned(),
        );
        let expected = serde_json::json!({
            "a": ["18446744073709551616", 2, "18446744073709551616"], "b": 18446744073709551615_u64, "c": 1.5
        });
        assert_eq!(value(&raw.unwrap()).unwrap(), expected);
    }

    #[test]
    fn a_path_finds_a_column_or_a_field() {
        let row = Row::from_json(r#"{"a.b": 1, "c": {"d": {"e": 2}}, "f": 3}"#).unwrap();
        let get = |path| row.get(path).map(RawValue::get);
        assert_eq!(
            [get("a.b"), get("c.d.e"), get("f"), get("c.d.x"), get("f.x")],
            [Some("1"), Some("2"), Some("3"), None, None]
        );
    }
}
