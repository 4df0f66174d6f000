//! Values of Python, as they cross the border of the sandbox in either direction.

use std::fmt::{self, Write};
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use num_bigint::BigInt;
use num_traits::ToPrimitive;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value as Json;
use serde_json::value::RawValue;

/// A value of one of Python's plain types. Subclasses count as the type they derive from.
#[derive(Clone, Debug)]
pub enum Value {
    None,
    Bool(bool),
    Int(BigInt),
    Float(f64),
    Str(String),
    List(Vec<Value>),
    Tuple(Vec<Value>),
    /// In the order of insertion.
    Dict(Vec<(Value, Value)>),
    /// In any order.
    Set(Vec<Value>),
    /// Anything else, such as a generator or an object of the program's own. Equal to nothing.
    Opaque,
}

/// Equality as Python's `==` has it: `1 == 1.0 == True`, no list equals a tuple, NaN equals nothing.
impl PartialEq for Value {
    fn eq(&self, other: &Value) -> bool {
        use Value::*;
        match (self, other) {
            (None, None) => true,
            (Str(a), Str(b)) => a == b,
            (List(a), List(b)) | (Tuple(a), Tuple(b)) => a == b,
            (Set(a), Set(b)) => a.len() == b.len() && a.iter().all(|item| b.contains(item)),
            (Dict(a), Dict(b)) => a.len() == b.len() && a.iter().all(|pair| b.contains(pair)),
            (Float(a), Float(b)) => a == b,
            (Float(float), whole) | (whole, Float(float)) => whole.integer().is_some_and(|it| is_same(&it, *float)),
            (a, b) => matches!((a.integer(), b.integer()), (Some(a), Some(b)) if a == b),
        }
    }
}

/// Whether a float has exactly this whole value: no integer is rounded for the comparison.
fn is_same(integer: &BigInt, float: f64) -> bool {
    use num_traits::FromPrimitive;
    float.fract() == 0.0 && BigInt::from_f64(float).as_ref() == Some(integer)
}

impl Value {
    pub fn int(value: i64) -> Value {
        Value::Int(value.into())
    }

    pub fn str(text: &str) -> Value {
        Value::Str(text.to_owned())
    }

    /// The value of an integer; a truth value is one.
    fn integer(&self) -> Option<BigInt> {
        match self {
            Value::Int(value) => Some(value.clone()),
            Value::Bool(value) => Some(u8::from(*value).into()),
            _ => None,
        }
    }

    /// The nearest float to a number. Integers beyond the range of floats have none.
    pub fn number(&self) -> Option<f64> {
        match self {
            Value::Float(value) => Some(*value),
            other => other.integer()?.to_f64().filter(|it| it.is_finite()),
        }
    }

    /// Reads a value from JSON, numbers exactly: what has neither point nor exponent is an integer of any size.
    ///
    /// # Errors
    /// It is no JSON.
    pub fn from_json(text: &RawValue) -> Result<Value> {
        let text = text.get();
        Ok(match text.as_bytes()[0] {
            b'[' => Value::List(
                serde_json::from_str::<Vec<&RawValue>>(text)?
                    .into_iter()
                    .map(Value::from_json)
                    .collect::<Result<_>>()?,
            ),
            b'{' => {
                let pairs: Pairs = serde_json::from_str(text)?;
                let pair = |(key, value): &(String, Box<RawValue>)| Ok((Value::str(key), Value::from_json(value)?));
                Value::Dict(pairs.0.iter().map(pair).collect::<Result<_>>()?)
            }
            b'"' => Value::Str(serde_json::from_str(text)?),
            b't' | b'f' => Value::Bool(serde_json::from_str(text)?),
            b'n' => Value::None,
            _ if text.contains(['.', 'e', 'E']) => Value::Float(text.parse()?),
            _ => Value::Int(BigInt::from_str(text)?),
        })
    }

    /// Reads what the runner has written.
    pub(super) fn from_wire(json: &Json) -> Result<Value> {
        let items = match json {
            Json::Null => return Ok(Value::None),
            Json::Bool(value) => return Ok(Value::Bool(*value)),
            Json::Number(number) => return Ok(Value::Int(number.as_i64().context("no integer")?.into())),
            Json::String(text) => return Ok(Value::Str(text.clone())),
            Json::Array(items) => items,
            Json::Object(_) => bail!("no value is an object"),
        };
        let (tag, items) = items.split_first().context("a value without its tag")?;
        let text = || items.first().and_then(Json::as_str).context("a number is written as text");
        let all = || items.iter().map(Value::from_wire).collect::<Result<Vec<Value>>>();
        Ok(match tag.as_str().unwrap_or_default() {
            "int" => Value::Int(hexadecimal(text()?)?),
            "float" => Value::Float(text()?.parse()?),
            "list" => Value::List(all()?),
            "tuple" => Value::Tuple(all()?),
            "set" => Value::Set(all()?),
            "dict" => {
                ensure!(items.len().is_multiple_of(2), "a key without its value");
                let mut rest = all()?.into_iter();
                Value::Dict(std::iter::from_fn(|| Some((rest.next()?, rest.next()?))).collect())
            }
            "opaque" => Value::Opaque,
            other => bail!("unknown tag `{other}`"),
        })
    }

    /// As [`from_wire`](Self::from_wire) reads it.
    fn to_wire(&self) -> Json {
        let tagged = |tag: &str, items: Vec<Json>| Json::Array([Json::from(tag)].into_iter().chain(items).collect());
        let all = |items: &[Value]| items.iter().map(Value::to_wire).collect();
        match self {
            Value::None => Json::Null,
            Value::Bool(value) => Json::from(*value),
            Value::Int(value) => match value.to_i64() {
                Some(small) => Json::from(small),
                None => tagged("int", vec![Json::from(format!("{value:#x}"))]),
            },
            Value::Float(value) => tagged("float", vec![Json::from(format!("{value:?}"))]),
            Value::Str(text) => Json::from(text.as_str()),
            Value::List(items) => tagged("list", all(items)),
            Value::Tuple(items) => tagged("tuple", all(items)),
            Value::Set(items) => tagged("set", all(items)),
            Value::Dict(pairs) => {
                tagged("dict", pairs.iter().flat_map(|(key, value)| [key.to_wire(), value.to_wire()]).collect())
            }
            Value::Opaque => tagged("opaque", Vec::new()),
        }
    }

    /// Appends the value as an expression of Python in ASCII on one line, where `inf`, `nan` and `set` are known.
    pub(super) fn write_python(&self, out: &mut String) {
        match self {
            Value::None | Value::Opaque => out.push_str("None"),
            Value::Bool(value) => out.push_str(if *value { "True" } else { "False" }),
            // Hexadecimal has no limit on the number of digits and takes linear time.
            Value::Int(value) => out.push_str(&format!("{value:#x}")),
            Value::Float(value) if value.is_finite() => out.push_str(&format!("{value:?}")),
            Value::Float(value) => out.push_str(&value.to_string().to_lowercase()),
            Value::Str(text) => quote(text, out),
            Value::List(items) => write_items(out, "[", items, "]"),
            Value::Tuple(items) => write_items(out, "(", items, ")"),
            Value::Set(items) => write_items(out, "set([", items, "])"),
            Value::Dict(pairs) => {
                out.push('{');
                for (key, value) in pairs {
                    key.write_python(out);
                    out.push(':');
                    value.write_python(out);
                    out.push(',');
                }
                out.push('}');
            }
        }
    }
}

/// As Python would write it, but integers in hexadecimal.
impl fmt::Display for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Value::Opaque => formatter.write_str("an object"),
            Value::Int(value) => write!(formatter, "{value}"),
            Value::Str(text) => write!(formatter, "{text:?}"),
            other => {
                let mut text = String::new();
                other.write_python(&mut text);
                formatter.write_str(&text)
            }
        }
    }
}

/// A value keeps its type and all its digits in JSON.
impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_wire().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::from_wire(&Json::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

fn write_items(out: &mut String, open: &str, items: &[Value], close: &str) {
    out.push_str(open);
    for item in items {
        item.write_python(out);
        out.push(',');
    }
    out.push_str(close);
}

/// A string literal of Python.
fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            _ => write!(out, "\\U{:08x}", u32::from(c)).expect("a string takes all"),
        }
    }
    out.push('"');
}

/// `-0xff` and the like, as Python's `hex` writes integers.
fn hexadecimal(text: &str) -> Result<BigInt> {
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let digits = digits.strip_prefix("0x").context("no hexadecimal number")?;
    ensure!(digits.bytes().all(|it| it.is_ascii_hexdigit()), "no hexadecimal number");
    let value = BigInt::parse_bytes(digits.as_bytes(), 16).context("no hexadecimal number")?;
    Ok(if is_negative { -value } else { value })
}

/// The members of a JSON object in their order, values untouched.
struct Pairs(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> serde::de::Visitor<'de> for Members {
            type Value = Pairs;

            fn expecting(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Value {
        Value::from_json(&serde_json::from_str::<Box<RawValue>>(text).unwrap()).unwrap()
    }

    fn wire(text: &str) -> Result<Value> {
        Value::from_wire(&serde_json::from_str(text).unwrap())
    }

    fn python(value: &Value) -> String {
        let mut text = String::new();
        value.write_python(&mut text);
        text
    }

    #[test]
    fn equality_is_pythons() {
        let (one, float) = (Value::int(1), Value::Float(1.0));
        assert_eq!(one, float);
        assert_eq!(Value::Bool(true), float);
        assert_eq!(Value::Bool(true), one);
        assert_ne!(one, Value::str("1"));
        assert_ne!(one, Value::None);
        assert_ne!(Value::List(vec![one.clone()]), Value::Tuple(vec![one.clone()]));
        assert_eq!(Value::List(vec![one.clone()]), Value::List(vec![float.clone()]));
        assert_ne!(Value::Float(f64::NAN), Value::Float(f64::NAN));
        assert_eq!(Value::Float(-0.0), Value::Float(0.0));
        assert_ne!(Value::Opaque, Value::Opaque);
        let two = Value::int(2);
        assert_eq!(Value::Set(vec![one.clone(), two.clone()]), Value::Set(vec![two.clone(), float.clone()]));
        assert_ne!(Value::Set(vec![one.clone()]), Value::Set(vec![two.clone()]));
        let pair = |a: &Value, b: &Value| (a.clone(), b.clone());
        assert_eq!(
            Value::Dict(vec![pair(&one, &two), pair(&two, &one)]),
            Value::Dict(vec![pair(&two, &one), pair(&one, &two)])
        );
        assert_ne!(Value::Dict(vec![pair(&one, &two)]), Value::Dict(vec![pair(&one, &one)]));
        // The nearest float of 2^53 + 1 is 2^53.
        assert_ne!(json("9007199254740993"), Value::Float(9007199254740992.0));
        assert_eq!(json("100000000000000000000"), Value::Float(1e20));
    }

    #[test]
    fn json_is_read_exactly() {
        let value =
            json(r#"[1, -2.50, 123456789012345678901234567890, true, null, "a\"\u00e9", {"b": [], "a": 1e-3}]"#);
        assert_eq!(
            python(&value),
            r#"[0x1,-2.5,0x18ee90ff6c373e0ee4e3f0ad2,True,None,"a\"\U000000e9",{"b":[],"a":0.001,},]"#
        );
        // The digits that a fast reader rounds wrongly.
        assert_eq!(python(&json("0.10215110330888037")), "0.10215110330888037");
    }

    #[test]
    fn tagged_values_are_read_and_others_refused() {
        assert_eq!(wire(r#"["int","-0x10"]"#).unwrap(), Value::int(-16));
        assert_eq!(wire(r#"["float","inf"]"#).unwrap(), Value::Float(f64::INFINITY));
        assert!(matches!(wire(r#"["float","-0.0"]"#).unwrap(), Value::Float(it) if it.is_sign_negative()));
        assert!(matches!(wire(r#"["float","nan"]"#).unwrap(), Value::Float(it) if it.is_nan()));
        assert!(matches!(wire(r#"["opaque"]"#).unwrap(), Value::Opaque));
        let value = wire(r#"["dict",1,["list",true,null,"x"],["tuple"],["set",3]]"#).unwrap();
        assert_eq!(python(&value), r#"{0x1:[True,None,"x",],():set([0x3,]),}"#);
        let json = serde_json::to_string(&value).unwrap();
        assert_eq!(python(&serde_json::from_str(&json).unwrap()), python(&value));
        for bad in
            [r#"["int","12"]"#, r#"["int","0x-1"]"#, "1.5", "{}", "[]", r#"["dict",1]"#, r#"["float"]"#, r#"["other"]"#]
        {
            assert!(wire(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_python_reads_is_one_line_of_ascii() {
        let value =
            Value::Tuple(vec![Value::str("a\n\u{1f600}\u{0}'"), Value::Float(f64::NEG_INFINITY), Value::int(-255)]);
        assert_eq!(python(&value), r#"("a\U0000000a\U0001f600\U00000000'",-inf,-0xff,)"#);
    }
}
