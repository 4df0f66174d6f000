//! Checks the header of a GGUF file before candle reads it: every length against the file, the memory that all values take, and
//! the types of the tensors. candle trusts the alignment, and keeps each number of a list in 32 bytes.

use std::fs::File;
use std::io::{BufReader, Read, Seek};

use anyhow::{Context, Result, bail, ensure};

use super::ggml_types::unsupported_type;
use crate::disk::budget::Budget;

/// Maximum memory of the metadata. A vocabulary of 260,000 tokens with its merges takes 60 MiB.
const MEMORY: u64 = 256 << 20;
/// Bytes of memory for a value in a list, besides its text.
const VALUE: u64 = 32;
/// Maximum number of bytes of a key, and of the name of a tensor.
const LONGEST_NAME: u64 = 1 << 16;
/// Maximum number of lists within each other.
const DEEPEST: usize = 4;

/// # Errors
/// It is not a GGUF file, is truncated, needs too much memory, or has tensors of an unsupported type. The file is left at its
/// start.
pub(super) fn check(mut file: &File) -> Result<()> {
    let len = file.metadata()?.len();
    let checked = Header { file: BufReader::new(file), len, at: 0, wide: true, budget: Budget::new(MEMORY) }.check();
    file.rewind()?;
    checked
}

struct Header<'a> {
    file: BufReader<&'a File>,
    /// Length of the file.
    len: u64,
    at: u64,
    /// Whether lengths have eight bytes, not four.
    wide: bool,
    budget: Budget,
}

const AGAIN: &str = "hint: download or copy it again";

impl Header<'_> {
    fn check(mut self) -> Result<()> {
        let magic = self.bytes::<4>().unwrap_or_default();
        ensure!(magic != *b"FUGG", "a GGUF file for big-endian machines\nhint: convert it with llama.cpp's scripts");
        ensure!(magic == *b"GGUF", "not a GGUF file: it does not start with `GGUF`\n{AGAIN}");
        ensure!(self.len >= 24, "the file is truncated: it has only {} bytes\n{AGAIN}", self.len);
        let version = self.number()?;
        ensure!((1..=3).contains(&version), "GGUF version {version} is not supported, expected 1 to 3");
        self.wide = version > 1;
        let (tensors, entries) = (self.length()?, self.length()?);
        for _ in 0..entries {
            let key = self.text(LONGEST_NAME).context("the name of a value")?;
            let kind = self.number()?;
            let number = self.value(kind, 0).with_context(|| format!("the value `{key}`"))?;
            if key == "general.alignment" {
                let alignment = number.filter(|it| (1..=1 << 20).contains(it) && it.is_power_of_two());
                ensure!(
                    alignment.is_some(),
                    "`{key}` is {}, expected a power of two\n{AGAIN}; it is damaged",
                    number.map_or_else(|| "not a positive number".to_owned(), |it| it.to_string())
                );
            }
        }
        for _ in 0..tensors {
            let name = self.text(LONGEST_NAME).context("the name of a tensor")?;
            let dimensions = self.number()?;
            ensure!(
                (1..=4).contains(&dimensions),
                "tensor `{name}` has {dimensions} dimensions, expected 1 to 4\n{AGAIN}"
            );
            for _ in 0..dimensions {
                self.length()?;
            }
            let kind = self.number()?;
            if let Some(kind) = unsupported_type(kind) {
                bail!(
                    "the quantization {kind} is not supported\n\
                     hint: use a file of the same model in Q4_K_M, Q5_K_M, Q6_K, Q8_0, F16 or BF16"
                );
            }
            self.bytes::<8>()?;
        }
        Ok(())
    }

    /// Reads a value and returns it if it is a number of at least 0.
    fn value(&mut self, kind: u32, depth: usize) -> Result<Option<u64>> {
        let signed = |number: i64| u64::try_from(number).ok();
        Ok(match kind {
            0 => Some(u8::from_le_bytes(self.bytes()?).into()),
            1 => signed(i8::from_le_bytes(self.bytes()?).into()),
            2 => Some(u16::from_le_bytes(self.bytes()?).into()),
            3 => signed(i16::from_le_bytes(self.bytes()?).into()),
            4 => Some(self.number()?.into()),
            5 => signed(i32::from_le_bytes(self.bytes()?).into()),
            6 => self.bytes::<4>().map(|_| None)?,
            7 => self.bytes::<1>().map(|_| None)?,
            8 => {
                let length = self.length()?;
                self.skip(length, 1)?;
                None
            }
            9 => {
                ensure!(depth < DEEPEST, "more than {DEEPEST} lists within each other\n{AGAIN}; it is damaged");
                let (kind, count) = (self.number()?, self.length()?);
                self.budget.take(count.saturating_mul(VALUE))?;
                match fixed_size(kind) {
                    Some(size) => self.skip(count, size)?,
                    None => (0..count).try_for_each(|_| self.value(kind, depth + 1).map(drop))?,
                }
                None
            }
            10 => Some(u64::from_le_bytes(self.bytes()?)),
            11 => signed(i64::from_le_bytes(self.bytes()?)),
            12 => self.bytes::<8>().map(|_| None)?,
            kind => bail!("unknown type {kind} of a value\n{AGAIN}; it is damaged"),
        })
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.advance(N as u64)?;
        let mut bytes = [0; N];
        self.file.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn number(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    fn length(&mut self) -> Result<u64> {
        if self.wide { Ok(u64::from_le_bytes(self.bytes()?)) } else { Ok(self.number()?.into()) }
    }

    fn text(&mut self, longest: u64) -> Result<String> {
        let length = self.length()?;
        ensure!(length <= longest, "{length} bytes are too long, expected at most {longest}\n{AGAIN}; it is damaged");
        self.advance(length)?;
        self.budget.take(length + VALUE)?;
        let mut bytes = vec![0; length as usize];
        self.file.read_exact(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Skips values of one size.
    fn skip(&mut self, count: u64, size: u64) -> Result<()> {
        let bytes = count.checked_mul(size).context("a length overflows")?;
        self.advance(bytes)?;
        if size == 1 {
            self.budget.take(bytes)?;
        }
        Ok(self.file.seek_relative(i64::try_from(bytes)?)?)
    }

    /// Checks that the file has this number of further bytes.
    fn advance(&mut self, bytes: u64) -> Result<()> {
        let end = self.at.checked_add(bytes).filter(|end| *end <= self.len);
        self.at = end.with_context(|| {
            format!("the file is truncated: its header needs more than the {} bytes that it has\n{AGAIN}", self.len)
        })?;
        Ok(())
    }
}

/// Bytes of a value of a type; none for texts and lists.
fn fixed_size(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}
