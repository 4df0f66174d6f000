//! The safetensors format: a checked reader and a streaming writer.
//!
//! A file is the length of its header (u64, little-endian), the header (JSON: name ► type, shape, offsets) and the values.
//! A header comes from strangers, so nothing in it is used before all of it is checked: see [`Header::parse`].

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::json;

use super::rounding::Rounding;
use super::weights::{Weights, check_shape};
use crate::disk::atomic::with_suffix;

/// Longer headers are refused, as the format's own library does.
const MAX_HEADER: u64 = 100_000_000;
/// Bytes widened at a time, so that reading a tensor needs no second copy of it.
const CHUNK: usize = 1 << 20;

/// The types we read. Files may hold others; asking for such a tensor is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    F32,
    F16,
    Bf16,
    /// A type that is not a weight here, with its bits per element.
    Other(&'static str, u64),
}

impl Dtype {
    const OTHERS: [(&str, u64); 13] = [
        ("F64", 64),
        ("I64", 64),
        ("U64", 64),
        ("I32", 32),
        ("U32", 32),
        ("I16", 16),
        ("U16", 16),
        ("I8", 8),
        ("U8", 8),
        ("BOOL", 8),
        ("F8_E4M3", 8),
        ("F8_E5M2", 8),
        ("F8_E8M0", 8),
    ];

    fn named(name: &str) -> Option<Self> {
        match name {
            "F32" => Some(Self::F32),
            "F16" => Some(Self::F16),
            "BF16" => Some(Self::Bf16),
            _ => Self::OTHERS.iter().find(|it| it.0 == name).map(|&(name, bits)| Self::Other(name, bits)),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Other(name, _) => name,
        }
    }

    /// Bytes of one element.
    pub fn size(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Other(_, bits) => bits / 8,
        }
    }
}

/// Where a tensor's values stand, relative to the end of the header.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorInfo {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub start: u64,
    pub end: u64,
}

/// The checked header of a file.
#[derive(Debug)]
pub struct Header {
    pub tensors: BTreeMap<String, TensorInfo>,
    pub metadata: BTreeMap<String, String>,
}

impl Header {
    /// Checks everything a reader relies on: one JSON object, no name twice (parsers disagree on which one counts), known
    /// types, sizes that match the shapes without overflow, and offsets that cover the `data_len` bytes of values
    /// without holes or overlaps, tensors of no elements included.
    fn parse(json: &[u8], data_len: u64) -> Result<Self> {
        ensure!(json.first() == Some(&b'{'), "the header is not a JSON object");
        let raw: RawHeader = serde_json::from_slice(json).context("the header is not valid")?;
        let mut tensors = BTreeMap::new();
        for (name, RawTensor { dtype, shape, data_offsets: [start, end] }) in raw.tensors {
            let dtype =
                Dtype::named(&dtype).with_context(|| format!("tensor `{name}` has the unknown type `{dtype}`"))?;
            let bytes = shape.iter().try_fold(dtype.size(), |size, &dim| size.checked_mul(dim as u64));
            ensure!(
                start <= end && bytes == Some(end - start),
                "tensor `{name}`: shape {shape:?} of {} does not fill bytes {start} to {end}",
                dtype.name()
            );
            tensors.insert(name, TensorInfo { dtype, shape, start, end });
        }

        let mut in_order: Vec<_> = tensors.iter().collect();
        in_order.sort_by_key(|(_, info)| (info.start, info.end));
        let mut covered = 0;
        for (name, info) in in_order {
            ensure!(info.start == covered, "tensor `{name}` begins at byte {}, not at {covered}", info.start);
            covered = info.end;
        }
        ensure!(
            covered <= data_len,
            "the file is truncated: {} of {covered} bytes of values are missing\nhint: download or copy it again",
            covered - data_len
        );
        ensure!(covered == data_len, "{} bytes at the end of the file belong to no tensor", data_len - covered);
        Ok(Self { tensors, metadata: raw.metadata })
    }
}

/// One safetensors file, opened and checked. Values are read when asked for.
#[derive(Debug)]
pub struct SafetensorsFile {
    storage: Storage,
    data_start: u64,
    header: Header,
}

#[derive(Debug)]
enum Storage {
    File(PathBuf),
    Bytes(&'static [u8]),
}

impl Storage {
    fn open_at(&self, position: u64) -> Result<Box<dyn Read + '_>> {
        match self {
            Self::File(path) => {
                let mut file = File::open(path).with_context(|| format!("open `{}`", path.display()))?;
                file.seek(SeekFrom::Start(position))?;
                Ok(Box::new(file))
            }
            Self::Bytes(bytes) => Ok(Box::new(bytes.get(position as usize..).unwrap_or_default())),
        }
    }
}

impl SafetensorsFile {
    pub fn open(path: &Path) -> Result<Self> {
        let len = std::fs::metadata(path).with_context(|| format!("read `{}`", path.display()))?.len();
        Self::check(Storage::File(path.to_owned()), len).with_context(|| format!("read `{}`", path.display()))
    }

    /// A file that is part of the program.
    pub fn from_bytes(bytes: &'static [u8]) -> Result<Self> {
        Self::check(Storage::Bytes(bytes), bytes.len() as u64)
    }

    fn check(storage: Storage, len: u64) -> Result<Self> {
        let truncated = || format!("the file is truncated at {len} bytes\nhint: download or copy it again");
        ensure!(len >= 8, truncated());
        let mut reader = storage.open_at(0)?;
        let mut prefix = [0; 8];
        reader.read_exact(&mut prefix)?;
        let header_len = u64::from_le_bytes(prefix);
        ensure!(
            header_len <= MAX_HEADER,
            "this is not a safetensors file: it announces a header of {header_len} bytes\nhint: a file that begins with text may be a Git LFS pointer or an error page; download it again"
        );
        ensure!(header_len <= len - 8, truncated());
        let mut json = vec![0; header_len as usize];
        reader.read_exact(&mut json)?;
        drop(reader);
        let header = Header::parse(&json, len - 8 - header_len)?;
        Ok(Self { storage, data_start: 8 + header_len, header })
    }

    pub fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.header.tensors
    }

    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.header.metadata
    }

    /// A tensor's values, widened to f32.
    pub fn read(&self, name: &str) -> Result<Vec<f32>> {
        let mut pieces = self.pieces(name)?;
        let mut values = Vec::with_capacity(pieces.left / self.tensors()[name].dtype.size() as usize);
        while pieces.left > 0 {
            pieces.next(&mut values).with_context(|| format!("read tensor `{name}`"))?;
        }
        Ok(values)
    }

    fn info(&self, name: &str) -> Result<&TensorInfo> {
        self.tensors().get(name).with_context(|| format!("the checkpoint has no tensor `{name}`"))
    }

    fn pieces(&self, name: &str) -> Result<Pieces<'_>> {
        let info = self.info(name)?;
        let widen: fn(&[u8], &mut Vec<f32>) = match info.dtype {
            Dtype::F32 => |bytes, out| out.extend(words(bytes).map(f32::from_le_bytes)),
            Dtype::F16 => |bytes, out| out.extend(words(bytes).map(|it| f16_to_f32(u16::from_le_bytes(it)))),
            Dtype::Bf16 => |bytes, out| out.extend(words(bytes).map(|it| bf16_to_f32(u16::from_le_bytes(it)))),
            Dtype::Other(dtype, _) => {
                bail!("tensor `{name}` is stored as {dtype}\nhint: weights are read from F32, F16 and BF16")
            }
        };
        let left = (info.end - info.start) as usize;
        let reader = self.storage.open_at(self.data_start + info.start)?;
        Ok(Pieces { reader, left, widen, buffer: vec![0; CHUNK.min(left)] })
    }
}

/// The values of a tensor, some at a time.
struct Pieces<'a> {
    reader: Box<dyn Read + 'a>,
    /// Bytes that are still to be read.
    left: usize,
    widen: fn(&[u8], &mut Vec<f32>),
    buffer: Vec<u8>,
}

impl Pieces<'_> {
    /// Appends the next values, widened to f32; none at the end.
    fn next(&mut self, values: &mut Vec<f32>) -> std::io::Result<()> {
        let chunk = &mut self.buffer[..CHUNK.min(self.left)];
        self.reader.read_exact(chunk)?;
        (self.widen)(chunk, values);
        self.left -= chunk.len();
        Ok(())
    }
}

impl Weights for SafetensorsFile {
    fn get(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        check_shape(name, self.tensors().get(name).map(|info| info.shape.as_slice()), shape)?;
        self.read(name)
    }

    fn bf16<'a>(&'a self, name: &str, shape: &[usize]) -> Result<Box<dyn Read + 'a>> {
        check_shape(name, self.tensors().get(name).map(|info| info.shape.as_slice()), shape)?;
        let info = self.info(name)?;
        if info.dtype == Dtype::Bf16 {
            let reader = self.storage.open_at(self.data_start + info.start)?;
            return Ok(Box::new(reader.take(info.end - info.start)));
        }
        let mut pieces = self.pieces(name)?;
        Ok(Box::new(Rounding::new(move |values| pieces.next(values))))
    }

    fn contains(&self, name: &str) -> bool {
        self.tensors().contains_key(name)
    }
}

/// Writes a file tensor by tensor, in the order announced. The file appears under its name only when it is whole.
pub struct Writer {
    out: BufWriter<File>,
    path: PathBuf,
    dtype: Dtype,
    /// What is still to be written: name and number of elements.
    pending: VecDeque<(String, usize)>,
}

impl Writer {
    /// `dtype` is F32 or BF16.
    pub fn create(path: &Path, tensors: &[(String, Vec<usize>)], dtype: Dtype) -> Result<Self> {
        assert!(matches!(dtype, Dtype::F32 | Dtype::Bf16), "weights are written as F32 or BF16");
        let mut header = serde_json::Map::new();
        header.insert("__metadata__".into(), json!({"format": "pt"})); // transformers refuses a file without it
        let mut end = 0;
        for (name, shape) in tensors {
            let start = end;
            end += dtype.size() * shape.iter().product::<usize>() as u64;
            let info = json!({"dtype": dtype.name(), "shape": shape, "data_offsets": [start, end]});
            ensure!(header.insert(name.clone(), info).is_none(), "tensor `{name}` is announced twice");
        }
        let mut json = serde_json::to_vec(&header)?;
        json.resize(json.len().next_multiple_of(8), b' ');

        let file =
            File::create(with_suffix(path, ".partial")).with_context(|| format!("create `{}`", path.display()))?;
        let mut out = BufWriter::new(file);
        out.write_all(&(json.len() as u64).to_le_bytes())?;
        out.write_all(&json)?;
        let pending = tensors.iter().map(|(name, shape)| (name.clone(), shape.iter().product())).collect();
        Ok(Self { out, path: path.to_owned(), dtype, pending })
    }

    pub fn write(&mut self, name: &str, values: &[f32]) -> Result<()> {
        let next = self.pending.pop_front();
        ensure!(next == Some((name.to_owned(), values.len())), "tensor `{name}` comes where {next:?} was announced");
        let mut buffer = Vec::with_capacity(CHUNK);
        for chunk in values.chunks(CHUNK / 4) {
            buffer.clear();
            match self.dtype {
                Dtype::Bf16 => buffer.extend(chunk.iter().flat_map(|&it| f32_to_bf16(it).to_le_bytes())),
                _ => buffer.extend(chunk.iter().flat_map(|it| it.to_le_bytes())),
            }
            self.out.write_all(&buffer).with_context(|| format!("write `{}`", self.path.display()))?;
        }
        Ok(())
    }

    pub fn finish(mut self) -> Result<()> {
        ensure!(self.pending.is_empty(), "{} announced tensors were never written", self.pending.len());
        let write = || format!("write `{}`", self.path.display());
        self.out.flush().with_context(write)?;
        self.out.get_ref().sync_all().with_context(write)?;
        std::fs::rename(with_suffix(&self.path, ".partial"), &self.path).with_context(write)
    }
}

fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.chunks_exact(N).map(|word| word.try_into().expect("chunks of N bytes"))
}

fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Rounds to nearest, ties to even.
fn f32_to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        return (bits >> 16) as u16 | 0x40; // quiet, so that cutting the payload cannot make it infinite
    }
    ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

fn f16_to_f32(bits: u16) -> f32 {
    let sign = u32::from(bits >> 15) << 31;
    let exponent = u32::from(bits >> 10) & 0x1f;
    let fraction = u32::from(bits) & 0x3ff;
    match exponent {
        0 => f32::from_bits(sign | (fraction as f32 / 16_777_216.0).to_bits()), // subnormal: fraction / 2^24
        31 => f32::from_bits(sign | 0x7f80_0000 | fraction << 13),
        _ => f32::from_bits(sign | (exponent + 112) << 23 | fraction << 13),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTensor {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [u64; 2],
}

#[derive(Default)]
struct RawHeader {
    tensors: BTreeMap<String, RawTensor>,
    metadata: BTreeMap<String, String>,
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = RawHeader;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
                let mut header = RawHeader::default();
                let mut metadata_seen = false;
                while let Some(name) = map.next_key::<String>()? {
                    let repeated = if name == "__metadata__" {
                        header.metadata = map.next_value()?;
                        std::mem::replace(&mut metadata_seen, true)
                    } else {
                        header.tensors.insert(name.clone(), map.next_value()?).is_some()
                    };
                    if repeated {
                        return Err(A::Error::custom(format!("`{name}` stands twice")));
                    }
                }
                Ok(header)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of the given header and `data` bytes of zeros.
    fn file(header: &str, data: usize) -> Result<SafetensorsFile> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        SafetensorsFile::from_bytes(bytes.leak())
    }

    #[test]
    fn hostile_headers_are_refused() {
        let a = r#""a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#;
        assert!(file(&format!("{{{a}}}   "), 8).is_ok());
        for (header, data, reason) in [
            (format!("[{{{a}}}]"), 8, "not a JSON object"),
            (format!("{{{a},{a}}}"), 8, "`a` stands twice"),
            (r#"{"__metadata__":{},"__metadata__":{}}"#.into(), 0, "`__metadata__` stands twice"),
            (a.replacen("\"a\"", "{\"a\"", 1).replace("F32", "F33") + "}", 8, "unknown type `F33`"),
            (format!("{{{a}}}").replace("[2]", "[3]"), 8, "does not fill"),
            (format!("{{{a}}}").replace("[2]", "[4611686018427387904, 4]"), 8, "does not fill"),
            (format!("{{{a}}}").replace("[0,8]", "[8,0]"), 8, "does not fill"),
            (format!("{{{a}}}").replace("[0,8]", "[8,16]"), 16, "begins at byte 8, not at 0"),
            (format!("{{{a},{}}}", a.replace("\"a\"", "\"b\"")), 8, "begins at byte 0, not at 8"),
            (
                format!("{{{a},\"z\":{{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[4,4]}}}}"),
                8,
                "begins at byte 4, not at 8",
            ),
            (format!("{{{a}}}"), 12, "4 bytes at the end"),
            (format!("{{{a}}}"), 4, "truncated: 4 of 8 bytes"),
            (format!("{{{a}}}").replace("[2]", "[-2]"), 8, "invalid value"),
            (format!("{{{a}}}").replace("}}", ",\"dtype\":\"F16\"}}"), 8, "duplicate field"),
        ] {
            let error = format!("{:#}", file(&header, data).unwrap_err());
            assert!(error.contains(reason), "{header}: {error}");
        }
        assert!(file(r#"{"z":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#, 0).is_ok());
    }

    #[test]
    fn lengths_are_checked_before_the_header_is_read() {
        for (bytes, reason) in [
            (b"abc".to_vec(), "truncated"),
            (100u64.to_le_bytes().to_vec(), "truncated"),
            (u64::MAX.to_le_bytes().to_vec(), "not a safetensors file"),
            (b"version https://git-lfs.github.com/spec/v1".to_vec(), "Git LFS pointer"),
        ] {
            let error = SafetensorsFile::from_bytes(bytes.leak()).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn half_precision_matches_candle_on_every_pattern() {
        use candle_core::{DType, Device, Tensor};
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        let widened = |dtype| {
            let tensor = Tensor::from_raw_buffer(&bytes, dtype, &[1 << 16], &Device::Cpu).unwrap();
            tensor.to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap()
        };
        for (bits, (f16, bf16)) in widened(DType::F16).into_iter().zip(widened(DType::BF16)).enumerate() {
            let ours = (f16_to_f32(bits as u16), bf16_to_f32(bits as u16));
            assert!(f16.is_nan() && ours.0.is_nan() || f16.to_bits() == ours.0.to_bits(), "f16 {bits:#06x}");
            assert!(bf16.is_nan() && ours.1.is_nan() || bf16.to_bits() == ours.1.to_bits(), "bf16 {bits:#06x}");
        }
        let values: Vec<f32> = (0..100_000).map(|i| f32::from_bits(i * 42_949 + 7)).collect();
        let tensor = Tensor::new(values.as_slice(), &Device::Cpu).unwrap();
        let rounded = tensor.to_dtype(DType::BF16).unwrap().to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap();
        for (value, rounded) in values.into_iter().zip(rounded) {
            let ours = bf16_to_f32(f32_to_bf16(value));
            assert!(value.is_nan() && ours.is_nan() || ours.to_bits() == rounded.to_bits(), "{value}");
        }
    }

    #[test]
    fn the_formats_own_library_reads_what_we_write() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let tensors = [("b".to_owned(), vec![2, 3]), ("a".to_owned(), vec![1])];
        let mut writer = Writer::create(&path, &tensors, Dtype::F32).unwrap();
        writer.write("b", &[1.0, 2.0, 3.0, 4.0, 5.0, 6.5]).unwrap();
        assert!(!path.exists());
        writer.write("a", &[-1.0]).unwrap();
        writer.finish().unwrap();

        let bytes = std::fs::read(&path).unwrap();
        let theirs = ::safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(theirs.tensor("b").unwrap().shape(), [2, 3]);
        assert_eq!(theirs.tensor("a").unwrap().data(), (-1f32).to_le_bytes());
        let ours = SafetensorsFile::open(&path).unwrap();
        assert_eq!(ours.get("b", &[2, 3]).unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.5]);
        assert_eq!(ours.metadata()["format"], "pt");
        assert!(ours.get("b", &[3, 2]).unwrap_err().to_string().contains("has shape [2, 3]"));
    }

    #[test]
    fn bf16_comes_as_it_is_and_other_types_rounded() {
        let data: Vec<u8> = (0..96_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for (dtype, size) in [("BF16", 2), ("F16", 2), ("F32", 4)] {
            let shape = [3, data.len() / size / 3];
            let header = json!({"w": {"dtype": dtype, "shape": shape, "data_offsets": [0, data.len()]}}).to_string();
            let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
            bytes.extend(header.bytes().chain(data.iter().copied()));
            let file = SafetensorsFile::from_bytes(bytes.leak()).unwrap();
            let mut got = Vec::new();
            file.bf16("w", &shape).unwrap().read_to_end(&mut got).unwrap();
            let values = file.get("w", &shape).unwrap();
            let rounded: Vec<u8> = values.iter().flat_map(|&it| half::bf16::from_f32(it).to_le_bytes()).collect();
            let want = if dtype == "BF16" { &data } else { &rounded };
            assert!(&got == want, "{dtype}");
            assert!(file.bf16("w", &[1]).is_err_and(|error| error.to_string().contains("has shape")));
        }
    }

    #[test]
    fn the_writer_keeps_its_announcement() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let tensors = [("a".to_owned(), vec![2]), ("b".to_owned(), vec![1])];
        assert!(Writer::create(&path, &tensors, Dtype::F32).unwrap().write("b", &[0.0]).is_err());
        assert!(Writer::create(&path, &tensors, Dtype::F32).unwrap().write("a", &[0.0]).is_err());
        assert!(Writer::create(&path, &tensors, Dtype::F32).unwrap().finish().is_err());
        assert!(!path.exists());
    }
}
