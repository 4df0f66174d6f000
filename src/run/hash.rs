//! SHA-256 in hexadecimal, of bytes and of files.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// SHA-256 of `bytes`: 64 hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    let mut sink = Sha256Sink::default();
    sink.0.update(bytes);
    sink.finish()
}

/// SHA-256 of a file, read in pieces.
pub fn sha256_file(path: &Path) -> Result<String> {
    let mut sink = Sha256Sink::default();
    File::open(path)
        .and_then(|mut file| io::copy(&mut file, &mut sink))
        .with_context(|| format!("read `{}`", path.display()))?;
    Ok(sink.finish())
}

/// SHA-256 of a rendered prompt: its token ids, each as four little-endian bytes.
pub fn sha256_ids(ids: &[u32]) -> String {
    let mut sink = Sha256Sink::default();
    for id in ids {
        sink.0.update(id.to_le_bytes());
    }
    sink.finish()
}

#[derive(Default)]
struct Sha256Sink(Sha256);

impl Sha256Sink {
    fn finish(self) -> String {
        self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Write for Sha256Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-2, appendix B.1.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn bytes_ids_and_files_give_the_published_digest() {
        assert_eq!(sha256(b"abc"), ABC);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("abc");
        std::fs::write(&path, "abc").unwrap();
        assert_eq!(sha256_file(&path).unwrap(), ABC);
        assert_eq!(sha256_ids(&[0x0403_0201, 5]), sha256(&[1, 2, 3, 4, 5, 0, 0, 0]));
    }
}
