//! Writes GGUF files tensor by tensor: candle's writer takes all tensors of a model at once.
//!
//! The format is described in <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>: metadata, a list of the tensors, then
//! their values.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use candle_core::quantized::gguf_file::Value;
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use half::{bf16, f16};
use rayon::prelude::*;

use crate::disk::atomic::{self, with_suffix, write_error};
use crate::disk::files::{self, OpenFile};

/// Metadata by key.
pub type Metadata = BTreeMap<String, Value>;

/// The values of a tensor start at a multiple of this number of bytes.
const ALIGNMENT: usize = 32;
/// Number of values that a thread encodes at a time: whole blocks of every type.
const PART: usize = 1 << 16;
/// Number of values that are encoded before they are written.
const BATCH: usize = 64 * PART;

/// The type of a tensor's values in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GgufType {
    F32,
    F16,
    BF16,
    /// 8 bits per value and an f16 scale for each block of 32.
    Q8_0,
}

impl GgufType {
    /// The type for a tensor of this shape in a file of the type `self`. Vectors (norms and biases) are f32, because llama.cpp
    /// computes with them in f32; rows that are not whole blocks are f16.
    pub fn of_tensor(self, shape: &[usize]) -> Self {
        match (self, shape) {
            (_, [] | [_]) => Self::F32,
            (Self::Q8_0, [.., columns]) if columns % GgmlDType::Q8_0.block_size() != 0 => Self::F16,
            _ => self,
        }
    }

    /// `general.file_type`: the number in `enum llama_ftype` (llama.h).
    pub fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8_0 => 7,
            Self::BF16 => 32,
        }
    }

    /// The number in `enum ggml_type` (ggml.h).
    fn number(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8_0 => 8,
            Self::BF16 => 30,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::Q8_0 => "q8_0",
        }
    }

    /// Bytes of a number of values, whole blocks.
    pub fn bytes(self, values: usize) -> usize {
        match self {
            Self::F32 => 4 * values,
            Self::F16 | Self::BF16 => 2 * values,
            Self::Q8_0 => values / GgmlDType::Q8_0.block_size() * GgmlDType::Q8_0.type_size(),
        }
    }

    /// Whether a value is finite in this type.
    pub fn fits(self, value: f32) -> bool {
        match self {
            Self::F32 => value.is_finite(),
            Self::F16 => f16::from_f32(value).is_finite(),
            Self::BF16 => bf16::from_f32(value).is_finite(),
            // The scale is the largest value of a block divided by 127.
            Self::Q8_0 => f16::from_f32(value / 127.0).is_finite(),
        }
    }

    fn encode(self, values: &[f32]) -> Result<Vec<u8>> {
        Ok(match self {
            Self::F32 => values.iter().flat_map(|it| it.to_le_bytes()).collect(),
            Self::F16 => values.iter().flat_map(|&it| f16::from_f32(it).to_le_bytes()).collect(),
            Self::BF16 => values.iter().flat_map(|&it| bf16::from_f32(it).to_le_bytes()).collect(),
            Self::Q8_0 => {
                let tensor = Tensor::from_slice(values, values.len(), &Device::Cpu)?;
                QTensor::quantize(&tensor, GgmlDType::Q8_0)?.data()?.into_owned()
            }
        })
    }
}

/// A tensor that a file will have.
#[derive(Clone, Debug)]
pub struct GgufTensor {
    /// llama.cpp's name.
    pub name: String,
    /// (rows, columns), as in Hugging Face's files; GGUF lists the dimensions in the other order.
    pub shape: Vec<usize>,
    pub kind: GgufType,
}

impl GgufTensor {
    fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Writes a file tensor by tensor, in the order announced. The file appears under its name only when it is complete.
pub struct GgufWriter {
    out: BufWriter<OpenFile>,
    path: PathBuf,
    temporary: PathBuf,
    pending: VecDeque<GgufTensor>,
    renamed: bool,
}

impl GgufWriter {
    pub fn create(path: &Path, metadata: &Metadata, tensors: Vec<GgufTensor>) -> Result<Self> {
        let failed = |error: std::io::Error| write_error(path, &error);
        if let Some(folder) = path.parent().filter(|it| *it != Path::new("")) {
            files::create_dir_all(folder).map_err(failed)?;
        }
        let temporary = with_suffix(path, ".partial");
        let mut out = BufWriter::new(files::create(&temporary).map_err(failed)?);
        out.write_all(&header(metadata, &tensors)).map_err(failed)?;
        Ok(Self { out, path: path.to_owned(), temporary, pending: tensors.into(), renamed: false })
    }

    /// Writes the values of the next tensor, row by row.
    pub fn write(&mut self, name: &str, values: &[f32]) -> Result<()> {
        let next = self.pending.pop_front().filter(|next| next.name == name && next.len() == values.len());
        let GgufTensor { kind, .. } = next.with_context(|| format!("tensor `{name}` was not announced as the next"))?;
        let failed = |error: std::io::Error| write_error(&self.path, &error);
        for batch in values.chunks(BATCH) {
            let parts: Vec<Vec<u8>> = batch.par_chunks(PART).map(|part| kind.encode(part)).collect::<Result<_>>()?;
            parts.iter().try_for_each(|part| self.out.write_all(part)).map_err(failed)?;
        }
        self.out.write_all(&vec![0; padding(kind.bytes(values.len()))]).map_err(failed)
    }

    pub fn finish(mut self) -> Result<()> {
        ensure!(self.pending.is_empty(), "{} announced tensors were never written", self.pending.len());
        let failed = |error: std::io::Error| write_error(&self.path, &error);
        self.out.flush().map_err(failed)?;
        self.out.get_ref().sync().map_err(failed)?;
        atomic::rename_file(&self.temporary, &self.path)?;
        self.renamed = true;
        Ok(())
    }
}

impl Drop for GgufWriter {
    fn drop(&mut self) {
        if !self.renamed {
            // The first error is returned; an incomplete file is never read.
            let _ = files::remove_file(&self.temporary);
        }
    }
}

/// Everything before the values.
fn header(metadata: &Metadata, tensors: &[GgufTensor]) -> Vec<u8> {
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(3u32.to_le_bytes()); // the version of the format
    bytes.extend((tensors.len() as u64).to_le_bytes());
    bytes.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        push_text(&mut bytes, key);
        bytes.extend(type_number(value).to_le_bytes());
        push_value(&mut bytes, value);
    }
    let mut offset = 0;
    for tensor in tensors {
        push_text(&mut bytes, &tensor.name);
        bytes.extend((tensor.shape.len() as u32).to_le_bytes());
        for &dimension in tensor.shape.iter().rev() {
            bytes.extend((dimension as u64).to_le_bytes());
        }
        bytes.extend(tensor.kind.number().to_le_bytes());
        bytes.extend((offset as u64).to_le_bytes());
        let length = tensor.kind.bytes(tensor.len());
        offset += length + padding(length);
    }
    bytes.resize(bytes.len() + padding(bytes.len()), 0);
    bytes
}

/// Number of bytes up to the next multiple of [`ALIGNMENT`].
fn padding(length: usize) -> usize {
    length.next_multiple_of(ALIGNMENT) - length
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

/// The number in `enum gguf_type`.
fn type_number(value: &Value) -> u32 {
    match value {
        Value::U8(_) => 0,
        Value::I8(_) => 1,
        Value::U16(_) => 2,
        Value::I16(_) => 3,
        Value::U32(_) => 4,
        Value::I32(_) => 5,
        Value::F32(_) => 6,
        Value::Bool(_) => 7,
        Value::String(_) => 8,
        Value::Array(_) => 9,
        Value::U64(_) => 10,
        Value::I64(_) => 11,
        Value::F64(_) => 12,
    }
}

fn push_value(bytes: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(it) => bytes.push(*it),
        Value::I8(it) => bytes.extend(it.to_le_bytes()),
        Value::U16(it) => bytes.extend(it.to_le_bytes()),
        Value::I16(it) => bytes.extend(it.to_le_bytes()),
        Value::U32(it) => bytes.extend(it.to_le_bytes()),
        Value::I32(it) => bytes.extend(it.to_le_bytes()),
        Value::F32(it) => bytes.extend(it.to_le_bytes()),
        Value::Bool(it) => bytes.push(u8::from(*it)),
        Value::String(it) => push_text(bytes, it),
        Value::Array(values) => {
            // candle does not keep the type of an empty list; any is right.
            bytes.extend(values.first().map_or(4, type_number).to_le_bytes());
            bytes.extend((values.len() as u64).to_le_bytes());
            values.iter().for_each(|it| push_value(bytes, it));
        }
        Value::U64(it) => bytes.extend(it.to_le_bytes()),
        Value::I64(it) => bytes.extend(it.to_le_bytes()),
        Value::F64(it) => bytes.extend(it.to_le_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::quantized::gguf_file::Content;

    use super::*;

    fn tensor(name: &str, shape: &[usize], kind: GgufType) -> GgufTensor {
        GgufTensor { name: name.to_owned(), shape: shape.to_vec(), kind }
    }

    /// candle reads what was written: values, shapes and metadata of every type.
    #[test]
    fn candle_reads_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/m.gguf");
        let list = |values: &[&str]| Value::Array(values.iter().map(|it| Value::String((*it).into())).collect());
        let metadata: Metadata = [
            ("a", Value::U8(200)),
            ("b", Value::I8(-3)),
            ("c", Value::U16(60_000)),
            ("d", Value::I16(-300)),
            ("e", Value::U32(4_000_000_000)),
            ("f", Value::I32(-5)),
            ("g", Value::F32(1e-6)),
            ("h", Value::Bool(true)),
            ("i", Value::String("ä\n".into())),
            ("j", list(&["x", "", "yz"])),
            ("k", Value::U64(1 << 40)),
            ("l", Value::I64(-1 << 40)),
            ("m", Value::F64(0.1)),
            ("n", Value::Array(Vec::new())),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        // More values than one batch; a length that needs padding.
        let values =
            |length: usize| -> Vec<f32> { (0..length).map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0).collect() };
        let shapes: [(&str, &[usize], GgufType); 5] = [
            ("odd", &[3], GgufType::F32),
            ("f16", &[3, 5], GgufType::F16),
            ("bf16", &[7, 3], GgufType::BF16),
            ("q8", &[3 + BATCH / 32, 32], GgufType::Q8_0),
            ("f32", &[2, 3], GgufType::F32),
        ];
        let tensors = shapes.map(|(name, shape, kind)| tensor(name, shape, kind)).to_vec();
        let mut writer = GgufWriter::create(&path, &metadata, tensors).unwrap();
        for (name, shape, _) in shapes {
            writer.write(name, &values(shape.iter().product())).unwrap();
        }
        assert!(!path.exists());
        writer.finish().unwrap();

        let mut file = std::fs::File::open(&path).unwrap();
        let content = Content::read(&mut file).unwrap();
        for (key, value) in &metadata {
            assert_eq!(format!("{:?}", content.metadata[key]), format!("{value:?}"));
        }
        assert_eq!(content.tensor_data_offset % 32, 0);
        for (name, shape, kind) in shapes {
            assert_eq!(content.tensor_infos[name].offset % 32, 0);
            let read = content.tensor(&mut file, name, &Device::Cpu).unwrap().dequantize(&Device::Cpu).unwrap();
            assert_eq!(read.dims(), shape);
            let read: Vec<f32> = read.flatten_all().unwrap().to_vec1().unwrap();
            let gap = read.iter().zip(values(read.len())).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            let most = [0.0, 3e-4, 4e-3, 4.5e-3][[GgufType::F32, GgufType::F16, GgufType::BF16, GgufType::Q8_0]
                .iter()
                .position(|it| *it == kind)
                .unwrap()];
            assert!(gap <= most, "{name}: {gap}");
        }
        let length = std::fs::metadata(&path).unwrap().len();
        assert_eq!(length % 32, 0);
    }

    #[test]
    fn an_incomplete_file_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.gguf");
        let announced = || vec![tensor("a", &[2], GgufType::F32), tensor("b", &[2], GgufType::F32)];
        let mut writer = GgufWriter::create(&path, &Metadata::new(), announced()).unwrap();
        writer.write("a", &[1.0, 2.0]).unwrap();
        assert!(writer.finish().unwrap_err().to_string().contains("1 announced tensors"));
        let mut writer = GgufWriter::create(&path, &Metadata::new(), announced()).unwrap();
        assert!(writer.write("b", &[1.0, 2.0]).is_err());
        drop(writer);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn vectors_are_f32_and_rows_of_q8_0_are_whole_blocks() {
        assert_eq!(GgufType::Q8_0.of_tensor(&[64]), GgufType::F32);
        assert_eq!(GgufType::Q8_0.of_tensor(&[2, 64]), GgufType::Q8_0);
        assert_eq!(GgufType::Q8_0.of_tensor(&[2, 48]), GgufType::F16);
        assert_eq!(GgufType::BF16.of_tensor(&[2, 48]), GgufType::BF16);
        assert!(GgufType::F16.fits(65_504.0) && !GgufType::F16.fits(70_000.0));
        assert!(GgufType::Q8_0.fits(8e6) && !GgufType::Q8_0.fits(1e7) && GgufType::BF16.fits(1e38));
    }
}
