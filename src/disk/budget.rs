//! How much a file or a reply may take when it is read. Compressed data and declared lengths can ask for any amount of memory.

use std::io::{self, ErrorKind, Read};

/// Not more than a large computer has.
const MOST: u64 = 16 << 30;

/// A limit in bytes, and how much of it has been used.
#[derive(Debug)]
pub struct Budget {
    limit: u64,
    used: u64,
}

/// More was needed than the limit.
#[derive(Debug, thiserror::Error)]
#[error(
    "it takes more than {} when it is read, the limit\nhint: check where it comes from; if it is what you expect, use a smaller one, \
     such as a part of it",
    size(*.limit)
)]
pub struct BudgetExceeded {
    limit: u64,
}

impl Budget {
    pub fn new(limit: u64) -> Budget {
        Budget { limit, used: 0 }
    }

    /// For what a file of `bytes` decompresses to: as much as text that compresses very well.
    pub fn of_file(bytes: u64) -> Budget {
        Budget::new(bytes.saturating_mul(64).clamp(256 << 20, MOST))
    }

    /// For the rows in a text of `bytes`: each value takes more memory than its text.
    pub fn of_rows(bytes: u64) -> Budget {
        Budget::new(bytes.saturating_mul(16).clamp(512 << 20, MOST))
    }

    /// # Errors
    /// The limit is exceeded.
    pub fn take(&mut self, bytes: u64) -> Result<(), BudgetExceeded> {
        self.used = self.used.saturating_add(bytes);
        if self.used > self.limit { Err(self.exceeded()) } else { Ok(()) }
    }

    /// Reads to the end.
    ///
    /// # Errors
    /// The reader fails, or the limit is exceeded; not more than that is read.
    pub fn read(&mut self, reader: impl Read) -> io::Result<Vec<u8>> {
        let rest = self.limit.saturating_sub(self.used);
        let mut bytes = Vec::new();
        reader.take(rest.saturating_add(1)).read_to_end(&mut bytes)?;
        self.take(bytes.len() as u64).map_err(|error| io::Error::new(ErrorKind::FileTooLarge, error))?;
        Ok(bytes)
    }

    pub fn exceeded(&self) -> BudgetExceeded {
        BudgetExceeded { limit: self.limit }
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        _ if bytes >= 1 << 30 && bytes.is_multiple_of(1 << 30) => format!("{} GiB", bytes >> 30),
        _ if bytes >= 1 << 20 => format!("{} MiB", bytes >> 20),
        _ => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_is_read_up_to_the_limit() {
        assert_eq!(Budget::new(3).read(&b"abc"[..]).unwrap(), b"abc");
        let error = Budget::new(3).read(io::repeat(0)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FileTooLarge);
        assert!(
            error.to_string().starts_with("it takes more than 3 bytes when it is read, the limit\nhint: "),
            "{error}"
        );
        let mut budget = Budget::new(10);
        budget.read(&b"abc"[..]).unwrap();
        assert!(budget.take(7).is_ok() && budget.take(1).is_err());
        assert!(Budget::new(5).take(u64::MAX).is_err());
    }

    #[test]
    fn a_file_may_become_64_times_as_large() {
        for (bytes, limit) in [(0, 256 << 20), (5 << 20, 320 << 20), (u64::MAX, 16 << 30)] {
            assert_eq!(Budget::of_file(bytes).limit, limit);
        }
        assert_eq!(
            (size(16 << 30), size(320 << 20), size(1000)),
            ("16 GiB".into(), "320 MiB".into(), "1000 bytes".into())
        );
    }
}
