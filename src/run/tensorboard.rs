//! TensorBoard's event files: protobuf messages in TFRecord frames, encoded here.
//!
//! The messages are `tensorflow.Event` (event.proto) and `tensorflow.Summary` (summary.proto); the frame format is from
//! tensorflow/core/lib/io/record_writer.h.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;

use crate::disk::atomic::write_error;
use crate::disk::files::{self, OpenFile};
use crate::disk::presence::Presence;

/// An event file open for appending.
pub struct EventFile {
    file: OpenFile,
    path: PathBuf,
    presence: Presence,
}

impl EventFile {
    /// Creates `events.out.tfevents.<seconds>.rft` in `folder`. Makes TensorBoard discard the values of older files in the folder
    /// for `first_step` and later steps, so that a resumed run shows one curve.
    pub fn create(folder: &Path, first_step: usize) -> Result<Self> {
        let mut seconds = now() as u64;
        let (file, path) = loop {
            let path = folder.join(format!("events.out.tfevents.{seconds:010}.rft"));
            match files::open(&path, OpenOptions::new().append(true).create_new(true)) {
                Ok(file) => break (file, path),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => seconds += 1,
                Err(error) => return Err(write_error(&path, &error)),
            }
        };
        let presence = Presence::of(&path).map_err(|error| write_error(&path, &error))?;
        let mut events = Self { file, path, presence };
        events.write(0, |event| bytes_field(event, 3, b"brain.Event:2"))?;
        // Event.session_log = 7 with SessionLog.status = 1 set to START = 1.
        events.write(first_step, |event| bytes_field(event, 7, &[0x08, 1]))?;
        Ok(events)
    }

    /// Appends the values of one step.
    pub fn append(&mut self, step: usize, values: &BTreeMap<String, f64>) -> Result<()> {
        let mut summary = Vec::new();
        for (name, &value) in values {
            let mut entry = Vec::new();
            bytes_field(&mut entry, 1, name.as_bytes());
            entry.push(2 << 3 | 5); // Summary.Value.simple_value, a float
            entry.extend((value as f32).to_le_bytes());
            bytes_field(&mut summary, 1, &entry);
        }
        self.write(step, |event| bytes_field(event, 5, &summary))
    }

    fn write(&mut self, step: usize, content: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        let mut event = vec![1 << 3 | 1]; // Event.wall_time, a double
        event.extend(now().to_le_bytes());
        event.push(2 << 3); // Event.step
        varint(&mut event, step as u64);
        content(&mut event);
        self.presence.check()?;
        self.file.write_all(&frame(&event)).map_err(|error| write_error(&self.path, &error))
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// Length (u64), checksum of the length, content, checksum of the content; little-endian.
fn frame(content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u64).to_le_bytes();
    [&length[..], &masked_crc(&length).to_le_bytes(), content, &masked_crc(content).to_le_bytes()].concat()
}

/// A field of bytes, text or an embedded message.
fn bytes_field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend(bytes);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Rotated and offset, as TFRecord requires: a checksum of data that contains checksums would be weak.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli; RFC 3720), bit by bit: an event has only a few kilobytes.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| crc >> 1 ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
    !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3720, appendix B.4.
    #[test]
    fn crc_matches_known_values() {
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(&(0..32).collect::<Vec<u8>>()), 0x46dd_794e);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn varints_use_seven_bits_per_byte() {
        let encode = |value| {
            let mut out = Vec::new();
            varint(&mut out, value);
            out
        };
        assert_eq!(encode(0), [0]);
        assert_eq!(encode(300), [0xac, 0x02]);
        assert_eq!(encode(u64::MAX).len(), 10);
    }

    /// Contents of the frames, after their checksums are verified.
    fn frames(mut bytes: &[u8]) -> Vec<&[u8]> {
        let mut contents = Vec::new();
        while !bytes.is_empty() {
            let (length, rest) = bytes.split_first_chunk::<8>().unwrap();
            let (length_crc, rest) = rest.split_first_chunk::<4>().unwrap();
            let (content, rest) = rest.split_at(u64::from_le_bytes(*length) as usize);
            let (content_crc, rest) = rest.split_first_chunk::<4>().unwrap();
            assert_eq!(u32::from_le_bytes(*length_crc), masked_crc(length));
            assert_eq!(u32::from_le_bytes(*content_crc), masked_crc(content));
            contents.push(content);
            bytes = rest;
        }
        contents
    }

    #[test]
    fn an_event_file_contains_version_session_and_values() {
        let dir = tempfile::tempdir().unwrap();
        let mut events = EventFile::create(dir.path(), 0).unwrap();
        events.append(300, &BTreeMap::from([("kl".into(), 0.25), ("reward".into(), -1.5)])).unwrap();
        let bytes = std::fs::read(&events.path).unwrap();
        let frames = frames(&bytes);
        assert_eq!(frames.len(), 3);
        // The step comes after nine bytes of wall time.
        assert_eq!(&frames[0][9..], b"\x10\x00\x1a\x0dbrain.Event:2");
        assert_eq!(&frames[1][9..], b"\x10\x00\x3a\x02\x08\x01");
        let values = b"\x0a\x09\x0a\x02kl\x15\x00\x00\x80\x3e\x0a\x0d\x0a\x06reward\x15\x00\x00\xc0\xbf";
        assert_eq!(frames[2][9..], [&b"\x10\xac\x02\x2a\x1a"[..], values].concat());
    }

    #[test]
    fn a_second_file_in_the_same_second_gets_its_own_name() {
        let dir = tempfile::tempdir().unwrap();
        let first = EventFile::create(dir.path(), 0).unwrap();
        let second = EventFile::create(dir.path(), 1).unwrap();
        assert!(first.path < second.path);
    }
}
