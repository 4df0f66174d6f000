//! Reads a value of a configuration. Errors use the types of TOML, not those of Rust.

use std::fmt::{self, Display};

use anyhow::anyhow;
use serde::de::value::{MapDeserializer, SeqDeserializer, StrDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Error, Expected, IntoDeserializer, Unexpected, Visitor};
use serde::forward_to_deserialize_any;
use toml::Value;

use super::known::nearest_name;
use super::place::ValueOrigin;

/// A value of the wrong type, or a word that is not one of the choices.
#[derive(Debug)]
pub(crate) struct ConfigFault {
    problem: String,
    hint: Option<String>,
    /// The place within the value that was read: `.prompt.mix[1].weight`.
    place: String,
}

impl ConfigFault {
    pub fn at(self, origin: &ValueOrigin, key: &str) -> anyhow::Error {
        let hint = self.hint.map(|it| format!("\nhint: {it}")).unwrap_or_default();
        // The value that was read is that of the key, or a whole configuration.
        let place = self.place.strip_prefix('.').and_then(|it| it.strip_prefix(key)).unwrap_or(&self.place);
        anyhow!("{}: `{key}{place}`: {}{hint}", origin.site(), self.problem)
    }

    fn new(problem: String, hint: Option<String>) -> ConfigFault {
        ConfigFault { problem, hint, place: String::new() }
    }

    /// An error for a value of another type. If the value of a choice is not a string, the value is included.
    fn not_a_word(value: &Value) -> ConfigFault {
        ConfigFault::new(format!("expected string, found {} {value}", value.type_str()), None)
    }
}

/// Reads a `T` from a value.
pub(crate) fn read<T: DeserializeOwned>(value: &Value) -> Result<T, ConfigFault> {
    T::deserialize(ValueDeserializer { value, part: Part::Whole })
}

impl Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.problem)
    }
}

impl std::error::Error for ConfigFault {}

impl Error for ConfigFault {
    fn custom<T: Display>(message: T) -> ConfigFault {
        ConfigFault::new(message.to_string(), None)
    }

    fn invalid_type(found: Unexpected, expected: &dyn Expected) -> ConfigFault {
        let expected = expected.to_string();
        let hint = (expected == "a sequence").then(|| r#"write an array as ["one", "two"]"#.to_owned());
        ConfigFault::new(format!("expected {}, found {}", in_toml(&expected), shown(found)), hint)
    }

    fn invalid_value(found: Unexpected, expected: &dyn Expected) -> ConfigFault {
        let range = match expected.to_string().as_str() {
            "u8" => "an integer from 0 to 255".to_owned(),
            "usize" | "u64" => "an integer of at least 0".to_owned(),
            other => other.to_owned(),
        };
        ConfigFault::new(format!("expected {range}, found {}", shown(found)), None)
    }

    fn unknown_variant(found: &str, choices: &'static [&'static str]) -> ConfigFault {
        let meant = nearest_name(found, choices.iter().copied());
        let question = meant.map(|it| format!("did you mean `{it}`? ")).unwrap_or_default();
        let hint = format!("{question}use one of {}", choices.join(", "));
        ConfigFault::new(format!("unknown value `{found}`"), Some(hint))
    }
}

/// The TOML name of a Rust type.
fn in_toml(expected: &str) -> &str {
    match expected {
        "usize" | "u64" | "u8" => "integer",
        "f64" => "number",
        "a string" => "string",
        "a boolean" => "boolean",
        "a sequence" => "array",
        other => other,
    }
}

/// A value with its type.
fn shown(found: Unexpected) -> String {
    match found {
        Unexpected::Bool(it) => format!("boolean {it}"),
        Unexpected::Signed(it) => format!("integer {it}"),
        Unexpected::Unsigned(it) => format!("integer {it}"),
        // With a decimal point, as TOML writes it.
        Unexpected::Float(it) => format!("float {it:?}"),
        Unexpected::Seq => "array".to_owned(),
        Unexpected::Map => "table".to_owned(),
        other => other.to_string(),
    }
}

/// Passes a value to serde; its errors are [`ConfigFault`]s.
struct ValueDeserializer<'de> {
    value: &'de Value,
    part: Part<'de>,
}

/// Which part of the value around it a value is.
#[derive(Clone, Copy)]
enum Part<'de> {
    Whole,
    Member(&'de str),
    Element(usize),
}

impl ValueDeserializer<'_> {
    /// The result with this value's part in the place of its error.
    fn located<T>(part: Part, result: Result<T, ConfigFault>) -> Result<T, ConfigFault> {
        result.map_err(|fault| {
            let place = match part {
                Part::Whole => fault.place,
                Part::Member(name) => format!(".{name}{}", fault.place),
                Part::Element(index) => format!("[{index}]{}", fault.place),
            };
            ConfigFault { place, ..fault }
        })
    }
}

impl<'de> IntoDeserializer<'de, ConfigFault> for ValueDeserializer<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for ValueDeserializer<'de> {
    type Error = ConfigFault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigFault> {
        let Self { value, part } = self;
        let read = || match value {
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Integer(number) => visitor.visit_i64(*number),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Boolean(flag) => visitor.visit_bool(*flag),
            Value::Datetime(_) => Err(ConfigFault::invalid_type(Unexpected::Other(value.type_str()), &visitor)),
            Value::Array(items) => {
                let element = |(at, value)| ValueDeserializer { value, part: Part::Element(at) };
                let mut items = SeqDeserializer::new(items.iter().enumerate().map(element));
                let value = visitor.visit_seq(&mut items)?;
                items.end().map(|()| value)
            }
            Value::Table(table) => {
                let member = |(name, value): (&'de String, &'de Value)| {
                    (name.as_str(), ValueDeserializer { value, part: Part::Member(name) })
                };
                let mut members = MapDeserializer::new(table.iter().map(member));
                let value = visitor.visit_map(&mut members)?;
                members.end().map(|()| value)
            }
        };
        Self::located(part, read())
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigFault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, ConfigFault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConfigFault> {
        let read = match self.value {
            Value::String(word) => visitor.visit_enum(StrDeserializer::new(word)),
            other => Err(ConfigFault::not_a_word(other)),
        };
        Self::located(self.part, read)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}
