//! JSON as Python values, with exact numbers: a number without a point and an exponent is an integer of any size.
//! (`serde_json` returns such numbers as floats, unless configured otherwise for the whole binary.) Infinities and NaN are
//! written as Python writes them.

use std::str::FromStr;

use anyhow::{Result, bail, ensure};
use num_bigint::BigInt;

use super::PythonValue;

/// Maximum nesting depth.
const DEEPEST: usize = 100;

impl PythonValue {
    /// Reads one value from a JSON text, which must contain nothing else.
    ///
    /// # Errors
    /// The text is not valid JSON.
    pub fn from_json(text: &str) -> Result<PythonValue> {
        let mut reader = JsonReader { text, at: 0 };
        let value = reader.value(0)?;
        ensure!(reader.peek().is_none(), "unexpected text after the value, at byte {}", reader.at);
        Ok(value)
    }
}

struct JsonReader<'a> {
    text: &'a str,
    at: usize,
}

impl JsonReader<'_> {
    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        let rest = &self.text.as_bytes()[self.at..];
        self.at += rest.iter().take_while(|it| b" \t\r\n".contains(it)).count();
        self.text.as_bytes().get(self.at).copied()
    }

    fn accept(&mut self, byte: u8) -> bool {
        let is_there = self.peek() == Some(byte);
        self.at += usize::from(is_there);
        is_there
    }

    fn expect(&mut self, byte: u8) -> Result<()> {
        ensure!(self.accept(byte), "expected `{}` at byte {}", char::from(byte), self.at);
        Ok(())
    }

    fn value(&mut self, depth: usize) -> Result<PythonValue> {
        ensure!(depth < DEEPEST, "nested too deeply at byte {}", self.at);
        match self.peek() {
            Some(b'[') => {
                self.at += 1;
                let mut items = Vec::new();
                while !self.accept(b']') {
                    if !items.is_empty() {
                        self.expect(b',')?;
                    }
                    items.push(self.value(depth + 1)?);
                }
                Ok(PythonValue::List(items))
            }
            Some(b'{') => {
                self.at += 1;
                let mut pairs = Vec::new();
                while !self.accept(b'}') {
                    if !pairs.is_empty() {
                        self.expect(b',')?;
                    }
                    let key = self.string()?;
                    self.expect(b':')?;
                    pairs.push((PythonValue::Str(key), self.value(depth + 1)?));
                }
                Ok(PythonValue::Dict(pairs))
            }
            Some(b'"') => Ok(PythonValue::Str(self.string()?)),
            _ => self.word(),
        }
    }

    fn string(&mut self) -> Result<String> {
        ensure!(self.peek() == Some(b'"'), "expected a string at byte {}", self.at);
        let start = self.at;
        let mut is_escaped = false;
        for (length, byte) in self.text.as_bytes()[start + 1..].iter().enumerate() {
            match byte {
                b'"' if !is_escaped => {
                    self.at = start + length + 2;
                    return Ok(serde_json::from_str(&self.text[start..self.at])?);
                }
                b'\\' => is_escaped = !is_escaped,
                _ => is_escaped = false,
            }
        }
        bail!("unterminated string at byte {start}")
    }

    fn word(&mut self) -> Result<PythonValue> {
        let start = self.at;
        let rest = &self.text.as_bytes()[start..];
        self.at += rest.iter().take_while(|it| it.is_ascii_alphanumeric() || b"+-.".contains(it)).count();
        Ok(match &self.text[start..self.at] {
            "null" => PythonValue::None,
            "true" => PythonValue::Bool(true),
            "false" => PythonValue::Bool(false),
            "NaN" => PythonValue::Float(f64::NAN),
            "Infinity" => PythonValue::Float(f64::INFINITY),
            "-Infinity" => PythonValue::Float(f64::NEG_INFINITY),
            number if number.trim_start_matches('-').starts_with(|it: char| it.is_ascii_digit()) => {
                match number.contains(['.', 'e', 'E']) {
                    true => PythonValue::Float(number.parse()?),
                    false => PythonValue::Int(BigInt::from_str(number)?),
                }
            }
            other => bail!("expected a value at byte {start}, found `{other}`"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_exactly() {
        let text =
            r#" [1, -2.50, 123456789012345678901234567890 , true,null,"a\"\u00e9\\", {"b": [], "a" :1e-3}, {}, ""]"#;
        assert_eq!(
            PythonValue::from_json(text).unwrap().to_string(),
            r#"[0x1,-2.5,0x18ee90ff6c373e0ee4e3f0ad2,True,None,"a\"\U000000e9\\",{"b":[],"a":0.001,},{},"",]"#
        );
        // Digits that a fast parser rounds incorrectly.
        assert_eq!(PythonValue::from_json("0.10215110330888037").unwrap().to_string(), "0.10215110330888037");
    }

    #[test]
    fn invalid_json_is_an_error() {
        for text in ["", "[1 2]", "[1,", "{\"a\" 1}", "{a: 1}", "\"a", "tru", "1 2", "-", "[1]]", "--1", "0x1"] {
            assert!(PythonValue::from_json(text).is_err(), "{text}");
        }
        assert!(PythonValue::from_json(&"[".repeat(200_000)).is_err());
    }
}
