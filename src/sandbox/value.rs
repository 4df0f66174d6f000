//! Python values, as they are passed into and out of the sandbox.

use std::fmt::{self, Write};

use anyhow::{Context, Result, bail, ensure};
use num_bigint::BigInt;
use num_traits::ToPrimitive;

/// A value of one of Python's plain types. Subclasses count as the type they are derived from.
#[derive(Clone, Debug)]
pub enum PythonValue {
    None,
    Bool(bool),
    Int(BigInt),
    Float(f64),
    Str(String),
    List(Vec<PythonValue>),
    Tuple(Vec<PythonValue>),
    /// In insertion order.
    Dict(Vec<(PythonValue, PythonValue)>),
    /// In any order.
    Set(Vec<PythonValue>),
    /// Anything else, such as a generator or an object of the program's own class. Not equal to anything.
    Opaque,
}

/// Equality as in Python's `==`: `1 == 1.0 == True`, a list does not equal a tuple, NaN does not equal anything.
impl PartialEq for PythonValue {
    fn eq(&self, other: &PythonValue) -> bool {
        use PythonValue::*;
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

/// Whether a float has exactly this integer value: the integer is not rounded for the comparison.
fn is_same(integer: &BigInt, float: f64) -> bool {
    use num_traits::FromPrimitive;
    float.fract() == 0.0 && BigInt::from_f64(float).as_ref() == Some(integer)
}

impl PythonValue {
    pub fn int(value: i64) -> PythonValue {
        PythonValue::Int(value.into())
    }

    pub fn str(text: &str) -> PythonValue {
        PythonValue::Str(text.to_owned())
    }

    /// The value of an integer or a Boolean.
    fn integer(&self) -> Option<BigInt> {
        match self {
            PythonValue::Int(value) => Some(value.clone()),
            PythonValue::Bool(value) => Some(u8::from(*value).into()),
            _ => None,
        }
    }

    /// The float closest to a number; none for integers outside the range of floats.
    pub fn number(&self) -> Option<f64> {
        match self {
            PythonValue::Float(value) => Some(*value),
            other => other.integer()?.to_f64().filter(|it| it.is_finite()),
        }
    }

    /// Converts the runner's output to a value: JSON in which everything except plain numbers, strings and Booleans is a
    /// list that starts with a tag.
    pub(super) fn from_wire(json: PythonValue) -> Result<PythonValue> {
        let items = match json {
            PythonValue::List(items) => items,
            PythonValue::Dict(_) => bail!("expected a value, found an object"),
            plain => return Ok(plain),
        };
        let mut items = items.into_iter();
        let Some(PythonValue::Str(tag)) = items.next() else { bail!("expected a tag") };
        if tag == "int" {
            return match items.next() {
                Some(PythonValue::Str(text)) => Ok(PythonValue::Int(hexadecimal(&text)?)),
                other => bail!("expected an integer, found {other:?}"),
            };
        }
        let mut items = items.map(PythonValue::from_wire).collect::<Result<Vec<PythonValue>>>()?;
        Ok(match tag.as_str() {
            "list" => PythonValue::List(items),
            "tuple" => PythonValue::Tuple(items),
            "set" => PythonValue::Set(items),
            "dict" => {
                ensure!(items.len().is_multiple_of(2), "expected a value for each key");
                let mut rest = items.drain(..);
                PythonValue::Dict(std::iter::from_fn(|| Some((rest.next()?, rest.next()?))).collect())
            }
            "opaque" => PythonValue::Opaque,
            other => bail!("unknown tag `{other}`"),
        })
    }

    /// Appends the value in the form that [`read_wire`](Self::read_wire) reads.
    pub(crate) fn write_wire(&self, out: &mut String) {
        let mut tagged = |tag: &str, items: &mut dyn Iterator<Item = &PythonValue>| {
            out.extend(["[\"", tag, "\""]);
            for item in items {
                out.push(',');
                item.write_wire(out);
            }
            out.push(']');
        };
        match self {
            PythonValue::List(items) => tagged("list", &mut items.iter()),
            PythonValue::Tuple(items) => tagged("tuple", &mut items.iter()),
            PythonValue::Set(items) => tagged("set", &mut items.iter()),
            PythonValue::Dict(pairs) => tagged("dict", &mut pairs.iter().flat_map(|(key, value)| [key, value])),
            PythonValue::Opaque => tagged("opaque", &mut std::iter::empty()),
            PythonValue::None => out.push_str("null"),
            PythonValue::Bool(value) => out.push_str(&value.to_string()),
            PythonValue::Int(value) if value.bits() < 64 => out.push_str(&value.to_string()),
            PythonValue::Int(value) => out.push_str(&format!("[\"int\",\"{value:#x}\"]")),
            PythonValue::Float(value) if value.is_nan() => out.push_str("NaN"),
            PythonValue::Float(value) if value.is_infinite() => {
                out.push_str(if *value > 0.0 { "Infinity" } else { "-Infinity" });
            }
            PythonValue::Float(value) => out.push_str(&format!("{value:?}")),
            PythonValue::Str(text) => out.push_str(&serde_json::to_string(text).expect("text is JSON")),
        }
    }

    /// Reads the output of [`write_wire`](Self::write_wire).
    ///
    /// # Errors
    /// The text was not written by it.
    pub(crate) fn read_wire(text: &str) -> Result<PythonValue> {
        PythonValue::from_wire(PythonValue::from_json(text)?)
    }

    /// Appends the value as a Python expression in ASCII on one line, for a context in which `inf`, `nan` and `set` are defined.
    pub(super) fn write_python(&self, out: &mut String) {
        match self {
            PythonValue::None | PythonValue::Opaque => out.push_str("None"),
            PythonValue::Bool(value) => out.push_str(if *value { "True" } else { "False" }),
            // Hexadecimal has no limit on the number of digits and takes linear time.
            PythonValue::Int(value) => out.push_str(&format!("{value:#x}")),
            PythonValue::Float(value) if value.is_finite() => out.push_str(&format!("{value:?}")),
            PythonValue::Float(value) => out.push_str(&value.to_string().to_lowercase()),
            PythonValue::Str(text) => quote(text, out),
            PythonValue::List(items) => write_items(out, "[", items, "]"),
            PythonValue::Tuple(items) => write_items(out, "(", items, ")"),
            PythonValue::Set(items) => write_items(out, "set([", items, "])"),
            PythonValue::Dict(pairs) => {
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

/// As Python would write it, but with integers in lists in hexadecimal, and very large ones as their size.
impl fmt::Display for PythonValue {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            PythonValue::Opaque => formatter.write_str("an object"),
            // The time for all digits grows with the square of their number.
            PythonValue::Int(value) if value.bits() > 4096 => write!(formatter, "an integer of {} bits", value.bits()),
            PythonValue::Int(value) => write!(formatter, "{value}"),
            PythonValue::Str(text) => write!(formatter, "{text:?}"),
            other => {
                let mut text = String::new();
                other.write_python(&mut text);
                formatter.write_str(&text)
            }
        }
    }
}

fn write_items(out: &mut String, open: &str, items: &[PythonValue], close: &str) {
    out.push_str(open);
    for item in items {
        item.write_python(out);
        out.push(',');
    }
    out.push_str(close);
}

/// A Python string literal.
fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            _ => write!(out, "\\U{:08x}", u32::from(c)).expect("writing to a string does not fail"),
        }
    }
    out.push('"');
}

/// `-0xff` and similar, as Python's `hex` writes integers.
fn hexadecimal(text: &str) -> Result<BigInt> {
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let digits = digits.strip_prefix("0x").context("expected a hexadecimal number")?;
    ensure!(digits.bytes().all(|it| it.is_ascii_hexdigit()), "expected a hexadecimal number");
    let value = BigInt::parse_bytes(digits.as_bytes(), 16).context("expected a hexadecimal number")?;
    Ok(if is_negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(text: &str) -> Result<PythonValue> {
        PythonValue::read_wire(text)
    }

    fn python(value: &PythonValue) -> String {
        let mut text = String::new();
        value.write_python(&mut text);
        text
    }

    #[test]
    fn a_very_large_integer_is_shown_as_its_size() {
        let large = PythonValue::Int(BigInt::from(1) << (1 << 28));
        assert_eq!(large.to_string(), "an integer of 268435457 bits");
        assert_eq!(PythonValue::int(-12).to_string(), "-12");
    }

    #[test]
    fn equality_is_that_of_python() {
        let (one, float) = (PythonValue::int(1), PythonValue::Float(1.0));
        assert_eq!(one, float);
        assert_eq!(PythonValue::Bool(true), float);
        assert_eq!(PythonValue::Bool(true), one);
        assert_ne!(one, PythonValue::str("1"));
        assert_ne!(one, PythonValue::None);
        assert_ne!(PythonValue::List(vec![one.clone()]), PythonValue::Tuple(vec![one.clone()]));
        assert_eq!(PythonValue::List(vec![one.clone()]), PythonValue::List(vec![float.clone()]));
        assert_ne!(PythonValue::Float(f64::NAN), PythonValue::Float(f64::NAN));
        assert_eq!(PythonValue::Float(-0.0), PythonValue::Float(0.0));
        assert_ne!(PythonValue::Opaque, PythonValue::Opaque);
        let two = PythonValue::int(2);
        assert_eq!(
            PythonValue::Set(vec![one.clone(), two.clone()]),
            PythonValue::Set(vec![two.clone(), float.clone()])
        );
        assert_ne!(PythonValue::Set(vec![one.clone()]), PythonValue::Set(vec![two.clone()]));
        let pair = |a: &PythonValue, b: &PythonValue| (a.clone(), b.clone());
        assert_eq!(
            PythonValue::Dict(vec![pair(&one, &two), pair(&two, &one)]),
            PythonValue::Dict(vec![pair(&two, &one), pair(&one, &two)])
        );
        assert_ne!(PythonValue::Dict(vec![pair(&one, &two)]), PythonValue::Dict(vec![pair(&one, &one)]));
        // The float closest to 2^53 + 1 is 2^53.
        assert_ne!(PythonValue::int(9_007_199_254_740_993), PythonValue::Float(9007199254740992.0));
        assert_eq!(PythonValue::Int(BigInt::from(10).pow(20)), PythonValue::Float(1e20));
    }

    #[test]
    fn tagged_values_are_read_and_others_are_errors() {
        assert_eq!(wire(r#"["int","-0x10"]"#).unwrap(), PythonValue::int(-16));
        assert_eq!(wire("Infinity").unwrap(), PythonValue::Float(f64::INFINITY));
        assert!(matches!(wire("-0.0").unwrap(), PythonValue::Float(it) if it.is_sign_negative()));
        assert!(matches!(wire("NaN").unwrap(), PythonValue::Float(it) if it.is_nan()));
        assert!(matches!(wire(r#"["opaque"]"#).unwrap(), PythonValue::Opaque));
        let value = wire(r#"["dict",1,["list",true,null,"x"],["tuple"],["set",3]]"#).unwrap();
        assert_eq!(python(&value), r#"{0x1:[True,None,"x",],():set([0x3,]),}"#);
        let odd = [f64::INFINITY, f64::NEG_INFINITY, f64::NAN, -0.0, 0.1, 5e-324, 1e300].map(PythonValue::Float);
        let huge = PythonValue::Int(BigInt::from(-7).pow(100));
        let more = [value, huge, PythonValue::str("\n\u{1f600}"), PythonValue::int(i64::MIN)];
        let value = PythonValue::List(odd.into_iter().chain(more).collect());
        let mut text = String::new();
        value.write_wire(&mut text);
        assert_eq!(python(&PythonValue::read_wire(&text).unwrap()), python(&value));
        for bad in [r#"["int","12"]"#, r#"["int","0x-1"]"#, "{}", "[]", r#"["dict",1]"#, r#"["other"]"#] {
            assert!(wire(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn python_expressions_are_one_line_of_ascii() {
        let value = PythonValue::Tuple(vec![
            PythonValue::str("a\n\u{1f600}\u{0}'"),
            PythonValue::Float(f64::NEG_INFINITY),
            PythonValue::int(-255),
        ]);
        assert_eq!(python(&value), r#"("a\U0000000a\U0001f600\U00000000'",-inf,-0xff,)"#);
    }
}
