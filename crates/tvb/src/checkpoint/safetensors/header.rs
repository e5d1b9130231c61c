//! The safetensors header, and every check of a hostile one.
//!
//! A file is an 8-byte little-endian length, that many bytes of JSON, and the tensors' bytes without holes. All
//! validation happens in [`SafetensorsHeader::parse`] with checked arithmetic, so that everything after it may rely on
//! shapes, sizes and offsets.

use crate::checkpoint::dtype::{FLOATS_HINT, is_narrow};
use crate::checkpoint::json::{self, UniqueMap};
use crate::checkpoint::limits::{HEADER_BYTES_MAX, N_METADATA_MAX, N_TENSORS_MAX, NAME_BYTES_MAX};
use crate::checkpoint::shown::shown;
use crate::checkpoint::tensor::checked_bytes;
use crate::checkpoint::{Charge, DataFile, Dtype, Place, Tensor};
use crate::error::{Error, Result};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;

/// Memory for an entry of the metadata beside its texts.
const METADATA_BYTES: u64 = 160;
/// The length field before the JSON.
const PREFIX_BYTES: u64 = 8;

/// A checked safetensors header.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SafetensorsHeader {
    /// The tensors in the header's order; places are offsets from the start of the file, file number 0.
    pub tensors: Vec<Tensor>,
    /// The `__metadata__` strings.
    pub metadata: BTreeMap<String, String>,
}

/// What the JSON holds under a tensor's name; other keys are ignored, as the format's own library does.
#[derive(Deserialize)]
struct Entry {
    dtype: String,
    #[serde(deserialize_with = "json::bounded_list")]
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

/// A header's value is a tensor, except under one key.
enum Value {
    Tensor(Entry),
    Metadata(UniqueMap<String>),
}

impl json::EntryValue for Value {
    fn read<'de, D: Deserializer<'de>>(key: &str, deserializer: D) -> Result<Self, D::Error> {
        match key {
            "__metadata__" => UniqueMap::deserialize(deserializer).map(Value::Metadata),
            _ => Entry::deserialize(deserializer).map(Value::Tensor),
        }
    }
}

impl SafetensorsHeader {
    /// Reads the header of an open file; no tensor data is touched.
    ///
    /// # Errors
    /// Rejected, naming the file, the tensor, what was expected and what was found.
    pub fn read(file: &DataFile) -> Result<SafetensorsHeader> {
        SafetensorsHeader::read_charged(file).map(|(header, _)| header)
    }

    /// [`read`](SafetensorsHeader::read), and what the header takes of the file's budget.
    ///
    /// # Errors
    /// As [`read`](SafetensorsHeader::read). Rejected: too little memory. Interrupted.
    pub(crate) fn read_charged(file: &DataFile) -> Result<(SafetensorsHeader, Charge)> {
        let rejected = |message: String| Error::rejected(format!("{}: {message}", file.path.display()));
        if file.len < PREFIX_BYTES {
            return Err(rejected(format!("expected a safetensors file of at least 8 bytes, found {} bytes", file.len)));
        }
        let mut prefix = [0; PREFIX_BYTES as usize];
        file.read_at(0, &mut prefix)?;
        let header_bytes = u64::from_le_bytes(prefix);
        if header_bytes > HEADER_BYTES_MAX {
            return Err(rejected(format!(
                "is not a safetensors file, or a damaged one: its header claims {header_bytes} bytes, expected at most {HEADER_BYTES_MAX}"
            )));
        }
        let data_start = PREFIX_BYTES + header_bytes;
        if data_start > file.len {
            return Err(rejected(format!(
                "truncated: expected a header of {header_bytes} bytes after the first 8, found {}",
                file.len - PREFIX_BYTES
            ))
            .hint("download or copy the file again"));
        }
        let mut json_charge = file.charge("its header", header_bytes)?;
        let mut json = vec![0; header_bytes as usize];
        file.read_at(PREFIX_BYTES, &mut json)?;
        json_charge.take(json::cost(&json))?;
        let mut charge = file.account("its tensors");
        let header = SafetensorsHeader::parse(&json, file.len - data_start)
            .map_err(|error| error.context(file.path.display()))?;
        // Reading took at least as much, and gives it back.
        drop((json, json_charge));
        for tensor in &header.tensors {
            charge.take(Tensor::cost(&tensor.name, tensor.shape.len()))?;
        }
        for (key, value) in &header.metadata {
            charge.take(METADATA_BYTES + (key.len() + value.len()) as u64)?;
        }
        Ok((header, charge))
    }

    /// Checks the JSON part of a header of a file with `data_bytes` bytes after it.
    ///
    /// # Errors
    /// Rejected, naming the tensor, what was expected and what was found.
    pub fn parse(json: &[u8], data_bytes: u64) -> Result<SafetensorsHeader> {
        check(json, data_bytes)
    }
}

/// All validation of a header. Memory is bounded by the JSON's own length.
fn check(json: &[u8], data_bytes: u64) -> Result<SafetensorsHeader> {
    if json.first() != Some(&b'{') {
        return Err(Error::rejected("is not a safetensors file, or a damaged one: its header does not start with `{`"));
    }
    let text = std::str::from_utf8(json)
        .map_err(|error| Error::rejected(format!("the header is not UTF-8 at its byte {}", error.valid_up_to())))?;

    let data_start = PREFIX_BYTES + json.len() as u64;
    let mut header = SafetensorsHeader::default();
    // (begin, end) of each tensor, relative to the data's start.
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    let mut has_narrow = false;
    let read = json::for_each_entry(text, |name, value| {
        let entry = match value {
            Value::Tensor(entry) => entry,
            Value::Metadata(map) => {
                if map.0.len() > N_METADATA_MAX {
                    return Err(format!("more than {N_METADATA_MAX} entries in `__metadata__`"));
                }
                header.metadata = map.0.into_iter().collect();
                return Ok(());
            }
        };
        if name.len() > NAME_BYTES_MAX {
            let n_bytes = name.len();
            return Err(format!("{}: a name of {n_bytes} bytes, expected at most {NAME_BYTES_MAX}", shown(&name)));
        }
        if header.tensors.len() == N_TENSORS_MAX {
            return Err(format!("more than {N_TENSORS_MAX} tensors"));
        }
        let dtype = Dtype::from_safetensors_name(&entry.dtype).ok_or_else(|| {
            has_narrow = is_narrow(&entry.dtype);
            match has_narrow {
                true => {
                    format!("{}: quantized weights ({}), which take no part", shown(&name), entry.dtype.to_lowercase())
                }
                false => format!("{}: unknown dtype {}", shown(&name), shown(&entry.dtype)),
            }
        })?;
        let expected = checked_bytes(dtype, &entry.shape).map_err(|why| format!("{} {why}", shown(&name)))?;
        let (begin, end) = entry.data_offsets;
        match end.checked_sub(begin) {
            Some(found) if found == expected => {}
            Some(found) => {
                return Err(format!(
                    "{}: {dtype} {:?} takes {expected} bytes, found data_offsets of {found} bytes",
                    shown(&name),
                    entry.shape
                ));
            }
            None => return Err(format!("{}: data_offsets end at {end}, before their begin {begin}", shown(&name))),
        }
        // Whether it lies inside the file is checked below, once all ranges are known to be without holes.
        let offset = data_start.checked_add(begin).ok_or_else(|| format!("{}: offset {begin}", shown(&name)))?;
        ranges.push((begin, end));
        header.tensors.push(Tensor { name, dtype, shape: entry.shape, place: Place::Contiguous { file: 0, offset } });
        Ok(())
    });
    read.map_err(|why| {
        let error = Error::rejected(format!("header: {why}"));
        if has_narrow { error.hint(FLOATS_HINT) } else { error }
    })?;

    // In the order of the data, every tensor must begin where the one before ended.
    let mut by_offset: Vec<_> = ranges.iter().zip(&header.tensors).collect();
    by_offset.sort_by_key(|(range, _)| **range);
    let mut covered = 0;
    for (&(begin, end), tensor) in by_offset {
        let name = shown(&tensor.name);
        if begin != covered {
            let what = if begin < covered { "overlaps the tensor before it" } else { "leaves a hole before it" };
            return Err(Error::rejected(format!("{name} {what}: expected offset {covered}, found {begin}")));
        }
        covered = end;
    }
    let file_bytes = |data_bytes: u64| u128::from(data_start) + u128::from(data_bytes);
    let (expected, found) = (file_bytes(covered), file_bytes(data_bytes));
    if covered > data_bytes {
        return Err(Error::rejected(format!("truncated: expected {expected} bytes, found {found}"))
            .hint("download or copy the file again"));
    }
    if covered < data_bytes {
        return Err(Error::rejected(format!("expected {expected} bytes, found {found}: bytes after the last tensor")));
    }
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::checkpoint::limits::RANK_MAX;

    const W: &str = r#""w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}"#;

    /// A header of one entry more than `W`.
    fn with(entry: &str) -> String {
        format!("{{{W},{entry}}}")
    }

    fn one(name: &str, dtype: &str, shape: &str, offsets: &str) -> String {
        format!(r#"{{"{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
    }

    #[test]
    fn any_length_of_the_data_is_said() {
        for data_bytes in [1, u64::MAX - 9, u64::MAX] {
            let error = SafetensorsHeader::parse(b"{}", data_bytes).unwrap_err();
            let found = u128::from(PREFIX_BYTES) + 2 + u128::from(data_bytes);
            assert!(error.message().contains(&format!("found {found}: bytes after")), "{error}");
        }
    }

    #[test]
    fn hostile_headers_are_refused_with_the_facts() {
        let big = u64::MAX;
        let cases: Vec<(String, u64, &str)> = vec![
            (String::new(), 0, "does not start with `{`"),
            (" {}".into(), 0, "does not start with `{`"),
            ("[]".into(), 0, "does not start with `{`"),
            ("{".into(), 0, "EOF"),
            ("{}{}".into(), 0, "trailing"),
            ("{}\0".into(), 0, "trailing"),
            (with(W), 24, "`w` stands twice"),
            (with(r#""v":{"dtype":"F32","shape":[1],"data_offsets":[20,24]}"#), 24, "`v` overlaps"),
            (
                with(r#""v":{"dtype":"F32","shape":[1],"data_offsets":[28,32]}"#),
                32,
                "`v` leaves a hole before it: expected offset 24, found 28",
            ),
            (with(r#""v":{"dtype":"F32","shape":[0],"data_offsets":[12,12]}"#), 24, "overlaps"),
            (with(r#""v":{"dtype":"F32","shape":[1]}"#), 24, "`v`: missing field `data_offsets`"),
            (with(r#""v":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[24,28]}"#), 28, "duplicate field"),
            (with(r#""__metadata__":{"a":"1","a":"2"}"#), 24, "`a` stands twice"),
            (with(r#""__metadata__":{"a":1}"#), 24, "`__metadata__`: `a`: invalid type"),
            (with(r#""__metadata__":[]"#), 24, "expected a JSON object"),
            (with(r#""__metadata__":{},"__metadata__":{}"#), 24, "`__metadata__` stands twice"),
            (with(r#""v":3"#), 24, "`v`: invalid type"),
            (one("w", "F33", "[1]", "[0,4]"), 4, "`w`: unknown dtype `F33`"),
            (one("w", "F4", "[8]", "[0,4]"), 4, "`w`: quantized weights (f4), which take no part"),
            (one("w", "F8_E8M0", "[4]", "[0,4]"), 4, "`w`: quantized weights (f8_e8m0), which take no part"),
            (one("w", "F32", "[1.5]", "[0,4]"), 4, "`w`: invalid type"),
            (one("w", "F32", "[-1]", "[0,4]"), 4, "`w`: invalid value"),
            (one("w", "F32", "[2]", "[0,4]"), 4, "`w`: f32 [2] takes 8 bytes, found data_offsets of 4 bytes"),
            (one("w", "F32", "[2]", "[8,0]"), 8, "`w`: data_offsets end at 0, before their begin 8"),
            (one("w", "F32", "[2]", "[0,8,9]"), 8, "`w`: "),
            (one("w", "F32", "[1]", "[0,4]"), 3, "truncated: expected 66 bytes, found 65"),
            (one("w", "F32", "[1]", "[0,4]"), 5, "expected 66 bytes, found 67: bytes after the last tensor"),
            (one("w", "F32", "[1]", "[4,8]"), 8, "leaves a hole before it: expected offset 0, found 4"),
            (one("w", "U8", &format!("[{big}]"), &format!("[0,{big}]")), 8, "more bytes than any file can hold"),
            (one("w", "F64", "[4294967296,4294967296,0]", "[0,0]"), 0, "more bytes than any file can hold"),
            (one("w", "F64", &format!("[{}]", 1u64 << 61), "[0,0]"), 0, "more bytes than any file can hold"),
            (one("w", "U8", "[0]", &format!("[{big},{big}]")), 0, "`w`: offset"),
            (one("w", "U8", &format!("[{}]", i64::MAX), &format!("[0,{}]", i64::MAX)), 8, "truncated"),
            (one("w", "F32", &format!("[{}1]", "1,".repeat(RANK_MAX)), "[0,4]"), 4, "`w`: more than 64 dimensions"),
            (one("w", "F32", "[18446744073709551616]", "[0,4]"), 4, "`w`: invalid type"),
            (one(&"n".repeat(5000), "F32", "[1]", "[0,4]"), 4, "a name of 5000 bytes"),
            (one("w", &"D".repeat(5000), "[1]", "[0,4]"), 4, "unknown dtype"),
            (format!("{{\"w\":{}", "[".repeat(1_000_000)), 0, "`w`: invalid type"),
            (with(&format!(r#""v":{{"x":{}"#, "[".repeat(1_000_000))), 24, "header: `v`"),
        ];
        for (json, data_bytes, expected) in cases {
            let error = SafetensorsHeader::parse(json.as_bytes(), data_bytes).unwrap_err();
            let start: String = json.chars().take(200).collect();
            let is_told = error.hint_text().is_some_and(|hint| hint.contains("model.dequantize()"));
            assert_eq!(is_told, expected.contains("quantized"), "{error}");
            assert!(error.message().contains(expected), "{start}\nexpected {expected:?} in: {error}");
            assert!(error.message().len() < 1000 && !error.message().contains('\n'), "{error}");
            assert_eq!(error.kind(), ErrorKind::Rejected);
        }
        let error = SafetensorsHeader::parse(b"{\"\xff\":{}}", 0).unwrap_err();
        assert!(error.message().contains("not UTF-8 at its byte 2"), "{error}");
    }

    #[test]
    fn reads_what_a_header_says() {
        let json = concat!(
            r#"{"__metadata__":{"format":"pt","dtype":"x"},"#,
            r#""b":{"dtype":"BF16","shape":[2],"data_offsets":[8,12],"later":[{}]},"#,
            r#""a":{"dtype":"I64","shape":[],"data_offsets":[0,8]},"#,
            r#""empty":{"dtype":"F32","shape":[0,7],"data_offsets":[8,8]}}    "#
        );
        let header = SafetensorsHeader::parse(json.as_bytes(), 12).unwrap();
        assert_eq!(header.metadata["format"], "pt");
        let start = 8 + json.len() as u64;
        let found: Vec<_> = header
            .tensors
            .iter()
            .map(|t| (t.name.as_str(), t.dtype, t.n_bytes(), t.place.sort_key().1 - start))
            .collect();
        assert_eq!(found, [("b", Dtype::Bf16, 4, 8), ("a", Dtype::I64, 8, 0), ("empty", Dtype::F32, 0, 8)]);
        assert_eq!(SafetensorsHeader::parse(b"{}", 0).unwrap(), SafetensorsHeader::default());
    }
}
