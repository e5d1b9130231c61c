//! Serde for a dtype by its safetensors name: `#[serde(with = "dtype_name")]`.

use crate::checkpoint::Dtype;
use serde::{Deserialize, Deserializer, Serializer};

/// Writes the name.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(dtype: &Dtype, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(dtype.safetensors_name())
}

/// Reads the name.
///
/// # Errors
/// A name that no tensor type has; those of the deserializer.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Dtype, D::Error> {
    let name = String::deserialize(deserializer)?;
    Dtype::from_safetensors_name(&name)
        .ok_or_else(|| serde::de::Error::custom(format!("a tensor type expected, {name:?} found")))
}
