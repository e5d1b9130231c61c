//! The few members of `basis.json` that say whether the rest is worth reading: format, version and checksum.
//!
//! A manifest is read in full only after its checksum was found to hold. Until then nothing is built of it: a reader of JSON
//! that keeps everything would need sixty times the file's bytes.

use crate::checkpoint::{EntryValue, for_each_entry};
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;

/// What stands at the top of a manifest.
#[derive(Debug, Default)]
pub(super) struct Head {
    pub(super) format: Option<Scalar>,
    pub(super) version: Option<Scalar>,
    pub(super) checksum: Option<Scalar>,
}

/// A short value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scalar {
    Text(String),
    Number(u64),
    Other,
}

impl Head {
    /// Looks through the whole of a JSON object and keeps these.
    pub(super) fn read(json: &[u8]) -> Result<Head, String> {
        let text = std::str::from_utf8(json).map_err(|error| format!("not UTF-8: {error}"))?;
        let mut head = Head::default();
        for_each_entry(text, |key, value: Member| {
            match key.as_str() {
                "format" => head.format = value.0,
                "version" => head.version = value.0,
                "checksum" => head.checksum = value.0,
                _ => {}
            }
            Ok(())
        })?;
        Ok(head)
    }
}

/// A member's value, where it is one that is kept.
struct Member(Option<Scalar>);

impl EntryValue for Member {
    fn read<'de, D: Deserializer<'de>>(key: &str, deserializer: D) -> Result<Member, D::Error> {
        match key {
            "format" | "version" | "checksum" => Scalar::deserialize(deserializer).map(|scalar| Member(Some(scalar))),
            _ => IgnoredAny::deserialize(deserializer).map(|_| Member(None)),
        }
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Scalar, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar::Text(text.to_owned()))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Scalar, E> {
                Ok(Scalar::Number(number))
            }

            fn visit_i64<E>(self, _: i64) -> Result<Scalar, E> {
                Ok(Scalar::Other)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Scalar, E> {
                Ok(Scalar::Other)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Scalar, E> {
                Ok(Scalar::Other)
            }

            fn visit_unit<E>(self) -> Result<Scalar, E> {
                Ok(Scalar::Other)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Scalar, A::Error> {
                while items.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Scalar, A::Error> {
                while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other)
            }
        }
        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_head_is_kept() {
        let head = Head::read(br#"{"a": [[{}]], "version": 7, "format": "x", "checksum": [1, {"b": null}], "c": 1.5}"#)
            .unwrap();
        assert_eq!(head.format, Some(Scalar::Text("x".into())));
        assert_eq!((head.version, head.checksum), (Some(Scalar::Number(7)), Some(Scalar::Other)));
        for broken in ["", "[]", "{", r#"{"version": 1, "version": 1}"#, "{} x", "{\"a\": [}"] {
            assert!(Head::read(broken.as_bytes()).is_err(), "{broken}");
        }
        assert!(Head::read(b"{\"a\": \"\xff\"}").is_err());
    }
}
