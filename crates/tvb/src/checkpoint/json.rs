//! JSON objects from files, read strictly: a key that stands twice is refused, since two readers could then see two
//! different checkpoints in one file. Lists and objects are bounded while they are read.

use super::limits::{N_TENSORS_MAX, RANK_MAX};
use super::shown::shown;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

/// Memory that reading `json` takes at most beside what is kept of it: every entry is looked up among those before it, and
/// in a hostile file nearly every byte begins one.
pub(crate) fn cost(json: &[u8]) -> u64 {
    const VALUE_BYTES: u64 = 192;
    let n_values = json.iter().filter(|byte| matches!(byte, b',' | b':' | b'[' | b'{')).count() as u64;
    n_values.saturating_mul(VALUE_BYTES)
}

/// A value whose form may depend on the key it stands under.
pub(crate) trait EntryValue: Sized {
    /// Reads the value that stands under `key`.
    fn read<'de, D: Deserializer<'de>>(key: &str, deserializer: D) -> Result<Self, D::Error>;
}

impl EntryValue for String {
    fn read<'de, D: Deserializer<'de>>(_key: &str, deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)
    }
}

/// Calls `each(key, value)` for every entry of the JSON object `text`, in the file's order.
///
/// # Errors
/// One line: where the text is not JSON, which key stands twice, or under which key a value is of another form.
pub(crate) fn for_each_entry<T: EntryValue>(
    text: &str,
    mut each: impl FnMut(String, T) -> Result<(), String>,
) -> Result<(), String> {
    let mut reader = serde_json::Deserializer::from_str(text);
    reader.deserialize_map(Entries { each: &mut each, value: PhantomData }).map_err(one_line)?;
    reader.end().map_err(one_line)
}

/// A JSON object whose keys are unique, in the file's order; for an object inside another.
pub(crate) struct UniqueMap<T>(pub(crate) Vec<(String, T)>);

impl<'de, T: EntryValue> Deserialize<'de> for UniqueMap<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut entries = Vec::new();
        let mut each = |key, value| {
            entries.push((key, value));
            Ok(())
        };
        deserializer.deserialize_map(Entries { each: &mut each, value: PhantomData })?;
        Ok(UniqueMap(entries))
    }
}

struct Entries<'a, T> {
    each: &'a mut dyn FnMut(String, T) -> Result<(), String>,
    value: PhantomData<T>,
}

impl<'de, T: EntryValue> Visitor<'de> for Entries<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            // Every tensor, and `__metadata__`.
            if seen.len() > N_TENSORS_MAX {
                return Err(A::Error::custom(format!("more than {N_TENSORS_MAX} entries")));
            }
            let value = map.next_value_seed(UnderKey { key: &key, value: PhantomData })?;
            if !seen.insert(key.clone()) {
                return Err(A::Error::custom(format!("{} stands twice", shown(&key))));
            }
            (self.each)(key, value).map_err(A::Error::custom)?;
        }
        Ok(())
    }
}

/// Reads a value and says under which key it stood when it is of another form.
struct UnderKey<'a, T> {
    key: &'a str,
    value: PhantomData<T>,
}

impl<'de, T: EntryValue> DeserializeSeed<'de> for UnderKey<'_, T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        T::read(self.key, deserializer).map_err(|error| D::Error::custom(format!("{}: {error}", shown(self.key))))
    }
}

/// For `#[serde(deserialize_with)]`: a list of at most [`RANK_MAX`] dimensions.
pub(crate) fn bounded_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<usize>, D::Error> {
    struct List;
    impl<'de> Visitor<'de> for List {
        type Value = Vec<usize>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of dimensions")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<usize>, A::Error> {
            let mut list = Vec::new();
            while let Some(item) = items.next_element()? {
                if list.len() == RANK_MAX {
                    return Err(A::Error::custom(format!("more than {RANK_MAX} dimensions")));
                }
                list.push(item);
            }
            Ok(list)
        }
    }
    deserializer.deserialize_seq(List)
}

/// A JSON error as one short line, whatever strings of the file it repeats.
fn one_line(error: serde_json::Error) -> String {
    const CHARS_MAX: usize = 400;
    error.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).take(CHARS_MAX).collect()
}
