//! TOML tables into structs by serde, with messages that say where a wrong value stands, what was expected and what was
//! found. A job's defaults are laid under its own keys first, so there is no place in the text to point at.

use crate::error::{Error, Result};
use crate::nearest::nearest;
use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;
use std::fmt;
use toml::{Table, Value};

/// Reads a table that messages call `place` (`job "vision"`).
///
/// # Errors
/// Rejected: an unknown key, with the nearest known one; a value of another kind.
pub(super) fn read<T: for<'t> Deserialize<'t>>(table: &Table, place: &str) -> Result<T> {
    check_keys(table, keys::<T>(), place)?;
    from_table(table.iter(), place)
}

/// Reads a table that holds the keys of two structs.
///
/// # Errors
/// As [`read`].
pub(super) fn read_both<A: for<'t> Deserialize<'t>, B: for<'t> Deserialize<'t>>(
    table: &Table,
    place: &str,
) -> Result<(A, B)> {
    check_keys(table, &[keys::<A>(), keys::<B>()].concat(), place)?;
    let (first, second): (Vec<_>, Vec<_>) = table.iter().partition(|(key, _)| keys::<A>().contains(&key.as_str()));
    Ok((from_table(first.into_iter(), place)?, from_table(second.into_iter(), place)?))
}

/// Whether every key of a table is one of `known`.
///
/// # Errors
/// Rejected: the first that is not, with the nearest known one.
pub(super) fn check_keys(table: &Table, known: &[&str], place: &str) -> Result<()> {
    let Some(unknown) = table.keys().find(|key| !known.contains(&key.as_str())) else { return Ok(()) };
    let error = Error::rejected(format!("{place}: unknown key {unknown:?}"));
    Err(match nearest(unknown, known.iter().copied()) {
        Some(near) => error.hint(format!("did you mean {near:?}?")),
        None => error.hint(format!("known keys: {}", known.join(", "))),
    })
}

fn from_table<'t, T: for<'a> Deserialize<'a>>(
    entries: impl Iterator<Item = (&'t String, &'t Value)>,
    place: &str,
) -> Result<T> {
    let entries = Entries::of(entries.map(|(key, value)| (key.clone(), value)));
    T::deserialize(MapAccessDeserializer::new(entries))
        .map_err(|wrong: Wrong| Error::rejected(format!("{place}{wrong}")))
}

/// The keys of a struct, as serde knows them.
pub(super) fn keys<T: for<'t> Deserialize<'t>>() -> &'static [&'static str] {
    struct Keys<'a>(&'a mut &'static [&'static str]);

    impl<'de> Deserializer<'de> for Keys<'_> {
        type Error = Wrong;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Wrong> {
            Err(Wrong::expected("a struct"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            keys: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Wrong> {
            *self.0 = keys;
            Err(Wrong::expected("its keys alone"))
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    let mut keys: &[&str] = &[];
    let _ = T::deserialize(Keys(&mut keys));
    keys
}

/// The values of a table or a list, each with its key; whatever goes wrong with one is told with that key.
struct Entries<'t, I> {
    rest: I,
    /// Whose key was given and whose value was not yet.
    current: Option<(String, &'t Value)>,
}

impl<'t, I: Iterator<Item = (String, &'t Value)>> Entries<'t, I> {
    fn of(rest: I) -> Entries<'t, I> {
        Entries { rest, current: None }
    }
}

impl<'de, 't, I: Iterator<Item = (String, &'t Value)>> MapAccess<'de> for Entries<'t, I> {
    type Error = Wrong;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Wrong> {
        self.current = self.rest.next();
        let Some((key, _)) = &self.current else { return Ok(None) };
        let key: StrDeserializer<'_, Wrong> = key.as_str().into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Wrong> {
        let (key, value) = self.current.take().ok_or_else(|| Wrong::expected("a value"))?;
        seed.deserialize(At(value)).map_err(|wrong| wrong.at(key, value))
    }
}

impl<'de, 't, I: Iterator<Item = (String, &'t Value)>> SeqAccess<'de> for Entries<'t, I> {
    type Error = Wrong;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Wrong> {
        let Some((key, value)) = self.rest.next() else { return Ok(None) };
        seed.deserialize(At(value)).map(Some).map_err(|wrong| wrong.at(key, value))
    }
}

/// A value.
struct At<'t>(&'t Value);

impl<'de> Deserializer<'de> for At<'_> {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.0 {
            Value::String(text) => visitor.visit_str(text),
            Value::Integer(number) => visitor.visit_i64(*number),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Boolean(flag) => visitor.visit_bool(*flag),
            Value::Datetime(time) => visitor.visit_string(time.to_string()),
            Value::Array(items) => {
                let items = items.iter().enumerate();
                visitor.visit_seq(Entries::of(items.map(|(index, value)| (format!("number {}", index + 1), value))))
            }
            Value::Table(table) => {
                visitor.visit_map(Entries::of(table.iter().map(|(key, value)| (key.clone(), value))))
            }
        }
    }

    /// What is there is given.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_some(self)
    }

    /// A word among several.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        words: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        match self.0 {
            Value::String(word) => visitor.visit_enum(word.as_str().into_deserializer()),
            _ => Err(Wrong::expected(words.join(" or "))),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

/// What was expected, and where something else was found.
#[derive(Debug)]
struct Wrong {
    /// Keys from the innermost out.
    path: Vec<String>,
    expected: String,
    found: Option<String>,
}

impl Wrong {
    fn expected(what: impl fmt::Display) -> Wrong {
        let what = what.to_string();
        let what = match what.as_str() {
            "a string" => "a text",
            "a boolean" => "true or false",
            "f64" => "a finite number",
            "usize" | "u64" => "a whole number from 0 on",
            "a map" => "a table",
            "a sequence" => "a list of tables",
            other => other,
        };
        Wrong { path: Vec::new(), expected: what.to_owned(), found: None }
    }

    fn at(mut self, key: String, value: &Value) -> Wrong {
        self.path.push(key);
        self.found.get_or_insert_with(|| shown(value));
        self
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for key in self.path.iter().rev() {
            write!(f, ", {key}")?;
        }
        write!(f, ": {} expected, {} found", self.expected, self.found.as_deref().unwrap_or("none"))
    }
}

impl std::error::Error for Wrong {}

impl serde::de::Error for Wrong {
    fn custom<T: fmt::Display>(expected: T) -> Wrong {
        Wrong::expected(expected)
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Wrong {
        Wrong::expected(expected)
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Wrong {
        Wrong::expected(expected)
    }

    fn unknown_variant(_: &str, words: &'static [&'static str]) -> Wrong {
        Wrong::expected(words.join(" or "))
    }
}

fn shown(value: &Value) -> String {
    let text = value.to_string().replace('\n', " ");
    if text.chars().count() > 60 { text.chars().take(57).collect::<String>() + "…" } else { text }
}
