//! `Option` in a format without null: `None` is the string `"unset"`.

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(super) const UNSET: &str = "unset";

pub(super) fn serialize<T: Serialize, S: Serializer>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => value.serialize(serializer),
        None => serializer.serialize_str(UNSET),
    }
}

pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: DeserializeOwned,
    D: Deserializer<'de>,
{
    let value = toml::Value::deserialize(deserializer)?;
    if value.as_str() == Some(UNSET) {
        return Ok(None);
    }
    T::deserialize(value).map(Some).map_err(|error| D::Error::custom(error.message()))
}
