//! The safetensors format: a checked, memory-mapped reader and a streaming writer, both around the format's own crate.
//!
//! A file is the length of its header (u64, little-endian), the header (JSON: name ► type, shape, offsets) and the values.
//! The crate checks that types are known, that sizes match shapes without overflow, and that the offsets cover all values
//! without holes or overlaps. [`parse`] also refuses what it lets pass, and explains its errors.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::io::{self, BufWriter, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use ::safetensors::tensor::{Metadata, TensorInfo};
use ::safetensors::{SafeTensorError, SafeTensors};
use anyhow::{Context, Result, anyhow, bail, ensure};
use half::{bf16, f16};
use memmap2::Mmap;
use serde::Deserialize;
use serde::de::value::{Error as ValueError, StrDeserializer};
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

use super::rounding::Rounding;
use super::weights::{Weights, check_shape};
use crate::disk::atomic::{with_suffix, write_error};
use crate::disk::files::{self, OpenFile};
use crate::disk::regular;

pub use ::safetensors::Dtype;

/// Longer headers are refused, as the crate does.
const MAX_HEADER: u64 = 100_000_000;
/// Bytes read at a time, so that reading a tensor needs no second copy of it.
const CHUNK: usize = 1 << 20;

/// One safetensors file, opened and checked. Values are read from the disk when they are used.
#[derive(Debug)]
pub struct SafetensorsFile {
    bytes: Bytes,
    /// Where the values begin, which offsets are relative to.
    data_start: usize,
    tensors: BTreeMap<String, TensorInfo>,
}

#[derive(Debug)]
enum Bytes {
    Mapped(Mmap),
    /// A file that is part of the program.
    Embedded(&'static [u8]),
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Embedded(bytes) => bytes,
        }
    }
}

impl Bytes {
    /// Hands the memory of a range that was read back to the system; a later access reads the disk again. Without this a
    /// process that loads a model would count the whole file as its memory.
    #[cfg_attr(not(unix), expect(unused_variables))]
    fn release(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Self::Mapped(map) = self {
            // SAFETY: the map is read-only and backed by a file, so what is dropped is read from the file again. A failure changes
            // nothing but the memory in use.
            _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len()) };
        }
    }
}

impl SafetensorsFile {
    /// Opens and checks the file at `path`. The file must not be shortened while it is open.
    pub fn open(path: &Path) -> Result<Self> {
        Self::map(path).and_then(Self::check).with_context(|| format!("read `{}`", path.display()))
    }

    /// A file that is part of the program.
    pub fn from_bytes(bytes: &'static [u8]) -> Result<Self> {
        Self::check(Bytes::Embedded(bytes))
    }

    fn map(path: &Path) -> Result<Bytes> {
        let file = regular::open(path)?;
        if file.metadata()?.len() == 0 {
            return Ok(Bytes::Embedded(&[])); // a map of no bytes is an error on some systems
        }
        // SAFETY: the file is read only through the map. Another program that shortens it ends this one with SIGBUS; one that
        // writes to it changes values, as it would while a file is read. The header is copied before it is checked.
        Ok(Bytes::Mapped(unsafe { Mmap::map(&file)? }))
    }

    fn check(bytes: Bytes) -> Result<Self> {
        let (header_len, metadata) = parse(&bytes)?;
        let tensors = metadata.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
        bytes.release(0..8 + header_len);
        Ok(Self { bytes, data_start: 8 + header_len, tensors })
    }

    pub fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    /// A tensor's values, widened to f32.
    pub fn read(&self, name: &str) -> Result<Vec<f32>> {
        let mut pieces = self.pieces(name)?;
        let mut values = Vec::with_capacity(self.info(name)?.shape.iter().product());
        while pieces.next(&mut values) {}
        Ok(values)
    }

    fn info(&self, name: &str) -> Result<&TensorInfo> {
        self.tensors.get(name).with_context(|| format!("the checkpoint has no tensor `{name}`"))
    }

    fn raw(&self, info: &TensorInfo) -> Raw<'_> {
        let (start, end) = info.data_offsets;
        Raw { bytes: &self.bytes, left: self.data_start + start..self.data_start + end }
    }

    fn pieces(&self, name: &str) -> Result<Pieces<'_>> {
        let info = self.info(name)?;
        let widen: fn(&[u8], &mut Vec<f32>) = match info.dtype {
            Dtype::F32 => |bytes, out| out.extend(words(bytes).map(f32::from_le_bytes)),
            Dtype::F16 => |bytes, out| out.extend(words(bytes).map(|it| f16::from_le_bytes(it).to_f32())),
            Dtype::BF16 => |bytes, out| out.extend(words(bytes).map(|it| bf16::from_le_bytes(it).to_f32())),
            dtype => bail!("tensor `{name}` is stored as {dtype}\nhint: weights are read from F32, F16 and BF16"),
        };
        Ok(Pieces { raw: self.raw(info), widen })
    }
}

/// The bytes of a tensor from first to last. What was read is released.
struct Raw<'a> {
    bytes: &'a Bytes,
    /// What is still to be read.
    left: Range<usize>,
}

impl Raw<'_> {
    /// Gives `take` the next bytes, `most` at most.
    fn next(&mut self, most: usize, take: impl FnOnce(&[u8])) -> usize {
        let piece = self.left.start..self.left.end.min(self.left.start + most.min(CHUNK));
        take(&self.bytes[piece.clone()]);
        self.left.start = piece.end;
        let len = piece.len();
        self.bytes.release(piece);
        len
    }
}

impl Read for Raw<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        Ok(self.next(to.len(), |bytes| to[..bytes.len()].copy_from_slice(bytes)))
    }
}

/// The values of a tensor, some at a time.
struct Pieces<'a> {
    raw: Raw<'a>,
    widen: fn(&[u8], &mut Vec<f32>),
}

impl Pieces<'_> {
    /// Appends the next values, widened to f32; `false` at the end.
    fn next(&mut self, values: &mut Vec<f32>) -> bool {
        let widen = self.widen;
        self.raw.next(CHUNK, |bytes| widen(bytes, values)) > 0
    }
}

impl Weights for SafetensorsFile {
    fn get(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        check_shape(name, self.tensors.get(name).map(|info| info.shape.as_slice()), shape)?;
        self.read(name)
    }

    fn bf16<'a>(&'a self, name: &str, shape: &[usize]) -> Result<Box<dyn Read + 'a>> {
        check_shape(name, self.tensors.get(name).map(|info| info.shape.as_slice()), shape)?;
        let info = self.info(name)?;
        if info.dtype == Dtype::BF16 {
            return Ok(Box::new(self.raw(info)));
        }
        let mut pieces = self.pieces(name)?;
        Ok(Box::new(Rounding::new(move |values| {
            pieces.next(values);
            Ok(())
        })))
    }

    fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }
}

/// Reads the header of a whole file with the format's crate; the length of the header comes first. Beyond what the crate
/// checks, no name may appear twice (parsers disagree on which one counts) and a tensor has no unknown fields.
fn parse(bytes: &[u8]) -> Result<(usize, Metadata)> {
    let truncated = || format!("the file is truncated at {} bytes\nhint: download or copy it again", bytes.len());
    let (prefix, rest) = bytes.split_first_chunk().with_context(truncated)?;
    let header_len = u64::from_le_bytes(*prefix);
    ensure!(
        header_len <= MAX_HEADER,
        "this is not a safetensors file: it announces a header of {header_len} bytes\nhint: a file that begins with text may be a Git LFS pointer or an error page; download it again"
    );
    let json = rest.get(..header_len as usize).with_context(truncated)?;
    ensure!(json.first() == Some(&b'{'), "the header is not a JSON object");
    let header: StrictHeader = serde_json::from_slice(json).context("the header is not valid")?;
    SafeTensors::read_metadata(bytes).map_err(|error| header.explain(error, rest.len() - json.len()))
}

/// The header as we accept it.
struct StrictHeader(BTreeMap<String, StrictTensor>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StrictTensor {
    #[serde(deserialize_with = "known_dtype")]
    dtype: Dtype,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

impl StrictHeader {
    /// What is wrong with a header that the crate refuses with `error`, where `data_len` bytes follow it.
    fn explain(&self, error: SafeTensorError, data_len: usize) -> anyhow::Error {
        let mut in_order: Vec<_> = self.0.iter().collect();
        in_order.sort_by_key(|(_, tensor)| tensor.data_offsets);
        let mut covered = 0;
        for (name, StrictTensor { dtype, shape, data_offsets: (start, end) }) in in_order {
            let bits = shape.iter().try_fold(dtype.bitsize(), |size, &dim| size.checked_mul(dim));
            if end.checked_sub(*start).and_then(|bytes| bytes.checked_mul(8)) != bits || bits.is_none() {
                return anyhow!("tensor `{name}`: shape {shape:?} of {dtype} does not fill bytes {start} to {end}");
            }
            if *start != covered {
                return anyhow!("tensor `{name}` begins at byte {start}, not at {covered}");
            }
            covered = *end;
        }
        if covered > data_len {
            let missing = covered - data_len;
            return anyhow!(
                "the file is truncated: {missing} of {covered} bytes of values are missing\nhint: download or copy it again"
            );
        }
        if covered < data_len {
            return anyhow!("{} bytes at the end of the file belong to no tensor", data_len - covered);
        }
        error.into()
    }
}

fn known_dtype<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Dtype, D::Error> {
    let name = String::deserialize(deserializer)?;
    let known = Dtype::deserialize(StrDeserializer::<ValueError>::new(&name));
    known.map_err(|_| D::Error::custom(format!("unknown type `{name}`")))
}

impl<'de> Deserialize<'de> for StrictHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = StrictHeader;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<StrictHeader, A::Error> {
                let mut tensors = BTreeMap::new();
                let mut metadata = None;
                while let Some(name) = map.next_key::<String>()? {
                    let repeated = if name == "__metadata__" {
                        metadata.replace(map.next_value::<BTreeMap<String, String>>()?).is_some()
                    } else {
                        let in_tensor = |error| A::Error::custom(format!("tensor `{name}`: {error}"));
                        let tensor: StrictTensor = map.next_value().map_err(in_tensor)?;
                        tensors.insert(name.clone(), tensor).is_some()
                    };
                    if repeated {
                        return Err(A::Error::custom(format!("`{name}` occurs twice")));
                    }
                }
                Ok(StrictHeader(tensors))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// Writes a file tensor by tensor, in the order announced. The file appears under its name only when it is whole.
pub struct Writer {
    out: BufWriter<OpenFile>,
    path: PathBuf,
    dtype: Dtype,
    /// What is still to be written: name and number of elements.
    pending: VecDeque<(String, usize)>,
}

impl Writer {
    /// `dtype` is F32 or BF16.
    pub fn create(path: &Path, tensors: &[(String, Vec<usize>)], dtype: Dtype) -> Result<Self> {
        assert!(matches!(dtype, Dtype::F32 | Dtype::BF16), "weights are written as F32 or BF16");
        let (mut pending, mut infos, mut names) = (VecDeque::new(), Vec::new(), BTreeSet::new());
        let mut end = 0;
        for (name, shape) in tensors {
            let len: usize = shape.iter().product();
            ensure!(names.insert(name), "tensor `{name}` is announced twice");
            let start = end;
            end += dtype.bitsize() / 8 * len;
            infos.push((name.clone(), TensorInfo { dtype, shape: shape.clone(), data_offsets: (start, end) }));
            pending.push_back((name.clone(), len));
        }
        let metadata = [("format".to_owned(), "pt".to_owned())].into(); // transformers refuses a file without it
        let mut json = serde_json::to_vec(&Metadata::new(Some(metadata), infos)?)?;
        json.resize(json.len().next_multiple_of(8), b' ');

        let file = files::create(&with_suffix(path, ".partial")).map_err(|error| write_error(path, &error))?;
        let mut out = BufWriter::new(file);
        let header = [&(json.len() as u64).to_le_bytes(), &json[..]].concat();
        out.write_all(&header).map_err(|error| write_error(path, &error))?;
        Ok(Self { out, path: path.to_owned(), dtype, pending })
    }

    pub fn write(&mut self, name: &str, values: &[f32]) -> Result<()> {
        let next = self.pending.pop_front();
        ensure!(next == Some((name.to_owned(), values.len())), "tensor `{name}` comes where {next:?} was announced");
        let mut buffer = Vec::with_capacity(CHUNK);
        for chunk in values.chunks(CHUNK / 4) {
            buffer.clear();
            match self.dtype {
                Dtype::BF16 => buffer.extend(chunk.iter().flat_map(|&it| bf16::from_f32(it).to_le_bytes())),
                _ => buffer.extend(chunk.iter().flat_map(|it| it.to_le_bytes())),
            }
            self.out.write_all(&buffer).map_err(|error| write_error(&self.path, &error))?;
        }
        Ok(())
    }

    pub fn finish(mut self) -> Result<()> {
        ensure!(self.pending.is_empty(), "{} announced tensors were never written", self.pending.len());
        let mut write = || {
            self.out.flush()?;
            self.out.get_ref().sync()?;
            files::rename(&with_suffix(&self.path, ".partial"), &self.path)
        };
        write().map_err(|error| write_error(&self.path, &error))
    }
}

fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.chunks_exact(N).map(|word| word.try_into().expect("chunks of N bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A file of the given header and `data` bytes of zeros.
    fn file(header: &str, data: usize) -> Result<SafetensorsFile> {
        with_data(header, &vec![0; data])
    }

    fn with_data(header: &str, data: &[u8]) -> Result<SafetensorsFile> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.bytes().chain(data.iter().copied()));
        SafetensorsFile::from_bytes(bytes.leak())
    }

    #[test]
    fn hostile_headers_are_refused() {
        let a = r#""a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#;
        assert!(file(&format!("{{{a}}}   "), 8).is_ok());
        for (header, data, reason) in [
            (format!("[{{{a}}}]"), 8, "not a JSON object"),
            (format!("{{{a},{a}}}"), 8, "`a` occurs twice"),
            (r#"{"__metadata__":{},"__metadata__":{}}"#.into(), 0, "`__metadata__` occurs twice"),
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
        for (ours, theirs) in [(Dtype::F16, DType::F16), (Dtype::BF16, DType::BF16)] {
            let header =
                json!({"w": {"dtype": ours, "shape": [1 << 16], "data_offsets": [0, bytes.len()]}}).to_string();
            let file = with_data(&header, &bytes).unwrap();
            let tensor = Tensor::from_raw_buffer(&bytes, theirs, &[1 << 16], &Device::Cpu).unwrap();
            let theirs = tensor.to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap();
            for (bits, (our, their)) in file.read("w").unwrap().into_iter().zip(theirs).enumerate() {
                assert!(our.is_nan() && their.is_nan() || our.to_bits() == their.to_bits(), "{ours} {bits:#06x}");
            }
        }
        let values: Vec<f32> = (0..100_000).map(|i| f32::from_bits(i * 42_949 + 7)).collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let mut writer = Writer::create(&path, &[("w".to_owned(), vec![values.len()])], Dtype::BF16).unwrap();
        writer.write("w", &values).unwrap();
        writer.finish().unwrap();
        let written = SafetensorsFile::open(&path).unwrap().read("w").unwrap();
        let tensor = Tensor::new(values.as_slice(), &Device::Cpu).unwrap();
        let rounded = tensor.to_dtype(DType::BF16).unwrap().to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap();
        for ((value, rounded), ours) in values.into_iter().zip(rounded).zip(written) {
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
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(metadata.metadata().as_ref().unwrap()["format"], "pt");
        assert!(ours.get("b", &[3, 2]).unwrap_err().to_string().contains("has shape [2, 3]"));
    }

    #[test]
    fn bf16_comes_as_it_is_and_other_types_rounded() {
        let data: Vec<u8> = (0..96_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for (dtype, size) in [("BF16", 2), ("F16", 2), ("F32", 4)] {
            let shape = [3, data.len() / size / 3];
            let header = json!({"w": {"dtype": dtype, "shape": shape, "data_offsets": [0, data.len()]}}).to_string();
            let file = with_data(&header, &data).unwrap();
            let mut got = Vec::new();
            file.bf16("w", &shape).unwrap().read_to_end(&mut got).unwrap();
            let values = file.get("w", &shape).unwrap();
            let rounded: Vec<u8> = values.iter().flat_map(|&it| half::bf16::from_f32(it).to_le_bytes()).collect();
            let want = if dtype == "BF16" { &data } else { &rounded };
            assert!(&got == want, "{dtype}");
            assert!(file.bf16("w", &[1]).is_err_and(|error| error.to_string().contains("has shape")));
        }
    }

    #[cfg(unix)]
    #[test]
    fn what_is_not_a_regular_file_is_refused_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("model.safetensors");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for path in [pipe.as_path(), folder.path()] {
            let error = format!("{:#}", SafetensorsFile::open(path).unwrap_err());
            assert!(error.contains("not a regular file") && error.contains("\nhint: "), "{error}");
        }
        let empty = folder.path().join("empty");
        std::fs::write(&empty, "").unwrap();
        assert!(format!("{:#}", SafetensorsFile::open(&empty).unwrap_err()).contains("truncated at 0 bytes"));
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
