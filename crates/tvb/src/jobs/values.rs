//! Values of a job file's keys that serde has no word for: one or a list, finite numbers, dtypes. What each expects is the
//! text of its error.

use crate::solve::Anneal;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use toml::Value;
use tvb_kernels::{Dtype, Rate};

/// One text or a list of them.
pub(super) fn texts<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    one_or_many(from, "a text or a list of texts", |_| true)
}

/// One whole number or a list of them.
pub(super) fn counts<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<usize>, D::Error> {
    one_or_many(from, "a whole number or a list of them", |_| true)
}

/// One finite number or a list of them.
pub(super) fn numbers<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f64>, D::Error> {
    one_or_many(from, "a finite number or a list of them", |number: &f64| number.is_finite())
}

/// One dtype or a list of them.
pub(super) fn dtypes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Dtype>, D::Error> {
    texts(from)?.iter().map(|name| dtype_named(name).ok_or_else(|| D::Error::custom(DTYPES))).collect()
}

/// One dtype.
pub(super) fn dtype<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Dtype>, D::Error> {
    dtype_named(&String::deserialize(from)?).map(Some).ok_or_else(|| D::Error::custom(DTYPES))
}

/// A finite number.
pub(super) fn number<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    let number = f64::deserialize(from)?;
    if number.is_finite() { Ok(Some(number)) } else { Err(D::Error::custom("a finite number")) }
}

/// Finite numbers by name.
pub(super) fn named_numbers<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, f64>, D::Error> {
    let named = BTreeMap::<String, f64>::deserialize(from)?;
    if named.values().all(|number| number.is_finite()) { Ok(named) } else { Err(D::Error::custom("finite numbers")) }
}

/// `EVERY:FACTOR`, as the flag has it.
pub(super) fn anneal<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Anneal>, D::Error> {
    let parsed = String::deserialize(from)?.parse::<Anneal>().ok();
    parsed.filter(Anneal::is_usable).map(Some).ok_or_else(|| D::Error::custom("EVERY:FACTOR such as \"1000:0.5\""))
}

/// One number of bits or a list of them: numbers, or texts as flags have them.
pub(super) fn rates<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Rate>, D::Error> {
    let expected = format!("bits of a code ({}) or a list of them", rate_names());
    let items: Vec<Value> = one_or_many(from, &expected, |item| rate_of(item).is_some())?;
    Ok(items.iter().filter_map(rate_of).collect())
}

/// One number of bits, or `off`, which is a `None` in it.
pub(super) fn rate_or_off<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<Rate>>, D::Error> {
    match Value::deserialize(from)? {
        Value::String(text) if text == "off" => Ok(Some(None)),
        other => match rate_of(&other) {
            Some(rate) => Ok(Some(Some(rate))),
            None => Err(D::Error::custom(format!("bits of a code ({}) or \"off\"", rate_names()))),
        },
    }
}

fn rate_of(value: &Value) -> Option<Rate> {
    match value {
        Value::String(text) => Rate::from_name(text),
        Value::Integer(number) => Rate::from_name(&number.to_string()),
        Value::Float(number) => Rate::from_name(&number.to_string()),
        _ => None,
    }
}

fn rate_names() -> String {
    Rate::ALL.map(Rate::name).join(", ")
}

const DTYPES: &str = "f32, bf16 or f16";

fn dtype_named(name: &str) -> Option<Dtype> {
    match name {
        "f32" => Some(Dtype::F32),
        "f16" => Some(Dtype::F16),
        "bf16" => Some(Dtype::Bf16),
        _ => None,
    }
}

/// Empty lists are refused: no job is asked for nothing.
fn one_or_many<'de, T: DeserializeOwned, D: Deserializer<'de>>(
    from: D,
    expected: &str,
    is_fit: impl Fn(&T) -> bool,
) -> Result<Vec<T>, D::Error> {
    let items = match Value::deserialize(from)? {
        Value::Array(items) => items,
        one => vec![one],
    };
    let read: Option<Vec<T>> = items.into_iter().map(|item| T::deserialize(item).ok().filter(&is_fit)).collect();
    read.filter(|items| !items.is_empty()).ok_or_else(|| D::Error::custom(expected))
}
