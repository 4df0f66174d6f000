//! Small Parquet files for tests.

use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{
    ByteArray, ByteArrayType, DoubleType, FixedLenByteArray, FixedLenByteArrayType, FloatType, Int32Type, Int64Type,
};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

/// The values of a leaf of the schema, with their definition and repetition levels if it is not a plain required column.
pub struct Leaf {
    values: Values,
    levels: Option<(Vec<i16>, Vec<i16>)>,
}

enum Values {
    Text(Vec<ByteArray>),
    Fixed(Vec<FixedLenByteArray>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
}

impl Leaf {
    fn new(values: Values) -> Self {
        Self { values, levels: None }
    }

    pub fn text<T: AsRef<str>>(values: impl IntoIterator<Item = T>) -> Self {
        Self::bytes(values.into_iter().map(|it| it.as_ref().as_bytes().to_vec()))
    }

    pub fn bytes(values: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self::new(Values::Text(values.into_iter().map(ByteArray::from).collect()))
    }

    pub fn fixed(values: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self::new(Values::Fixed(values.into_iter().map(|it| ByteArray::from(it).into()).collect()))
    }

    pub fn i32(values: impl IntoIterator<Item = i32>) -> Self {
        Self::new(Values::I32(values.into_iter().collect()))
    }

    pub fn i64(values: impl IntoIterator<Item = i64>) -> Self {
        Self::new(Values::I64(values.into_iter().collect()))
    }

    pub fn f32(values: impl IntoIterator<Item = f32>) -> Self {
        Self::new(Values::F32(values.into_iter().collect()))
    }

    pub fn f64(values: impl IntoIterator<Item = f64>) -> Self {
        Self::new(Values::F64(values.into_iter().collect()))
    }

    /// With these levels: (definition, repetition) of each value, nulls included.
    pub fn levels(self, levels: &[(i16, i16)]) -> Self {
        Self { levels: Some(levels.iter().copied().unzip()), ..self }
    }
}

/// A file with this schema (`message m { ... }`), whose leaves have these values.
pub fn parquet(schema: &str, compression: Compression, leaves: &[Leaf]) -> Vec<u8> {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = WriterProperties::builder().set_compression(compression).build();
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, properties.into()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for Leaf { values, levels } in leaves {
        let mut column = group.next_column().unwrap().unwrap();
        let (definition, repetition) = match levels {
            Some((definition, repetition)) => (Some(&definition[..]), Some(&repetition[..])),
            None => (None, None),
        };
        match values {
            Values::Text(it) => column.typed::<ByteArrayType>().write_batch(it, definition, repetition),
            Values::Fixed(it) => column.typed::<FixedLenByteArrayType>().write_batch(it, definition, repetition),
            Values::I32(it) => column.typed::<Int32Type>().write_batch(it, definition, repetition),
            Values::I64(it) => column.typed::<Int64Type>().write_batch(it, definition, repetition),
            Values::F32(it) => column.typed::<FloatType>().write_batch(it, definition, repetition),
            Values::F64(it) => column.typed::<DoubleType>().write_batch(it, definition, repetition),
        }
        .unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
    bytes
}
