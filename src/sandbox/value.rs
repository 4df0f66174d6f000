//! Values of Python, as they cross the border of the sandbox in either direction.

use std::fmt::{self, Write};

use anyhow::{Context, Result, bail, ensure};
use num_bigint::BigInt;
use num_traits::ToPrimitive;

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

    /// Makes a value of what the runner has written: JSON in which all but plain numbers, texts and truth values are
    /// lists that begin with a tag.
    pub(super) fn from_wire(json: Value) -> Result<Value> {
        let items = match json {
            Value::List(items) => items,
            Value::Dict(_) => bail!("no value is an object"),
            plain => return Ok(plain),
        };
        let mut items = items.into_iter();
        let Some(Value::Str(tag)) = items.next() else { bail!("a value without its tag") };
        if tag == "int" {
            return match items.next() {
                Some(Value::Str(text)) => Ok(Value::Int(hexadecimal(&text)?)),
                other => bail!("{other:?} is no integer"),
            };
        }
        let mut items = items.map(Value::from_wire).collect::<Result<Vec<Value>>>()?;
        Ok(match tag.as_str() {
            "list" => Value::List(items),
            "tuple" => Value::Tuple(items),
            "set" => Value::Set(items),
            "dict" => {
                ensure!(items.len().is_multiple_of(2), "a key without its value");
                let mut rest = items.drain(..);
                Value::Dict(std::iter::from_fn(|| Some((rest.next()?, rest.next()?))).collect())
            }
            "opaque" => Value::Opaque,
            other => bail!("unknown tag `{other}`"),
        })
    }

    /// Appends the value in the form that [`read_wire`](Self::read_wire) reads.
    pub(crate) fn write_wire(&self, out: &mut String) {
        let mut tagged = |tag: &str, items: &mut dyn Iterator<Item = &Value>| {
            out.extend(["[\"", tag, "\""]);
            for item in items {
                out.push(',');
                item.write_wire(out);
            }
            out.push(']');
        };
        match self {
            Value::List(items) => tagged("list", &mut items.iter()),
            Value::Tuple(items) => tagged("tuple", &mut items.iter()),
            Value::Set(items) => tagged("set", &mut items.iter()),
            Value::Dict(pairs) => tagged("dict", &mut pairs.iter().flat_map(|(key, value)| [key, value])),
            Value::Opaque => tagged("opaque", &mut std::iter::empty()),
            Value::None => out.push_str("null"),
            Value::Bool(value) => out.push_str(&value.to_string()),
            Value::Int(value) if value.bits() < 64 => out.push_str(&value.to_string()),
            Value::Int(value) => out.push_str(&format!("[\"int\",\"{value:#x}\"]")),
            Value::Float(value) if value.is_nan() => out.push_str("NaN"),
            Value::Float(value) if value.is_infinite() => {
                out.push_str(if *value > 0.0 { "Infinity" } else { "-Infinity" });
            }
            Value::Float(value) => out.push_str(&format!("{value:?}")),
            Value::Str(text) => out.push_str(&serde_json::to_string(text).expect("text is JSON")),
        }
    }

    /// Reads what [`write_wire`](Self::write_wire) wrote.
    ///
    /// # Errors
    /// It did not.
    pub(crate) fn read_wire(text: &str) -> Result<Value> {
        Value::from_wire(Value::from_json(text)?)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(text: &str) -> Result<Value> {
        Value::read_wire(text)
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
        assert_ne!(Value::int(9_007_199_254_740_993), Value::Float(9007199254740992.0));
        assert_eq!(Value::Int(BigInt::from(10).pow(20)), Value::Float(1e20));
    }

    #[test]
    fn tagged_values_are_read_and_others_refused() {
        assert_eq!(wire(r#"["int","-0x10"]"#).unwrap(), Value::int(-16));
        assert_eq!(wire("Infinity").unwrap(), Value::Float(f64::INFINITY));
        assert!(matches!(wire("-0.0").unwrap(), Value::Float(it) if it.is_sign_negative()));
        assert!(matches!(wire("NaN").unwrap(), Value::Float(it) if it.is_nan()));
        assert!(matches!(wire(r#"["opaque"]"#).unwrap(), Value::Opaque));
        let value = wire(r#"["dict",1,["list",true,null,"x"],["tuple"],["set",3]]"#).unwrap();
        assert_eq!(python(&value), r#"{0x1:[True,None,"x",],():set([0x3,]),}"#);
        let odd = [f64::INFINITY, f64::NEG_INFINITY, f64::NAN, -0.0, 0.1, 5e-324, 1e300].map(Value::Float);
        let huge = Value::Int(BigInt::from(-7).pow(100));
        let more = [value, huge, Value::str("\n\u{1f600}"), Value::int(i64::MIN)];
        let value = Value::List(odd.into_iter().chain(more).collect());
        let mut text = String::new();
        value.write_wire(&mut text);
        assert_eq!(python(&Value::read_wire(&text).unwrap()), python(&value));
        for bad in [r#"["int","12"]"#, r#"["int","0x-1"]"#, "{}", "[]", r#"["dict",1]"#, r#"["other"]"#] {
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
