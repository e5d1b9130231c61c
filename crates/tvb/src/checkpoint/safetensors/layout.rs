//! Where the tensors of a new safetensors file will lie: known completely before the first byte is written, so that
//! writers may come in any order and the length can be reserved.

use crate::checkpoint::Dtype;
use crate::checkpoint::limits::HEADER_BYTES_MAX;
use crate::checkpoint::shown::shown;
use crate::checkpoint::tensor::checked_bytes;
use crate::error::{Error, Result};
use std::collections::{BTreeMap, HashSet};
use std::fmt::Write;

/// A tensor to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// The full name.
    pub name: String,
    /// The stored element type.
    pub dtype: Dtype,
    /// Dimensions; empty for a scalar (0-d).
    pub shape: Vec<usize>,
}

/// A safetensors file before it is written: its header and the place of each tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SafetensorsLayout {
    header: Vec<u8>,
    /// Bytes from the file's start to each tensor, and at the end to the end of the file.
    offsets: Vec<u64>,
}

impl TensorSpec {
    /// Number of bytes of the elements.
    ///
    /// # Errors
    /// Rejected when the shape overflows.
    pub fn n_bytes(&self) -> Result<u64> {
        checked_bytes(self.dtype, &self.shape)
            .map_err(|why| Error::rejected(format!("tensor {} {why}", shown(&self.name))))
    }
}

impl From<&crate::checkpoint::Tensor> for TensorSpec {
    fn from(tensor: &crate::checkpoint::Tensor) -> TensorSpec {
        TensorSpec { name: tensor.name.clone(), dtype: tensor.dtype, shape: tensor.shape.clone() }
    }
}

/// The order the format's own library writes: large elements first, so that every tensor is aligned to its element,
/// then by name.
pub fn in_aligned_order(mut specs: Vec<TensorSpec>) -> Vec<TensorSpec> {
    specs.sort_by(|a, b| b.dtype.size().cmp(&a.dtype.size()).then_with(|| a.name.cmp(&b.name)));
    specs
}

impl SafetensorsLayout {
    /// Lays the tensors out one after another in the given order. The same arguments give the same bytes. The metadata
    /// says `"format": "pt"` unless it names another format, since some readers refuse files without it.
    ///
    /// # Errors
    /// Rejected when two tensors have one name, a shape overflows, or the header would be longer than readers accept.
    pub fn new(specs: &[TensorSpec], metadata: &BTreeMap<String, String>) -> Result<SafetensorsLayout> {
        let mut metadata = metadata.clone();
        metadata.entry("format".into()).or_insert_with(|| "pt".into());
        let mut json = format!("{{\"__metadata__\":{{{}}}", entries(&metadata));

        let mut names = HashSet::from(["__metadata__"]);
        let mut ends = Vec::with_capacity(specs.len());
        let mut begin = 0u64;
        for spec in specs {
            if !names.insert(&spec.name) {
                return Err(Error::rejected(format!("tensor {} would stand twice in one file", shown(&spec.name))));
            }
            let end = begin
                .checked_add(spec.n_bytes()?)
                .filter(|&end| end <= i64::MAX as u64)
                .ok_or_else(|| Error::rejected(format!("tensor {} makes the file too large", shown(&spec.name))))?;
            let _ = write!(
                json,
                ",{}:{{\"dtype\":\"{}\",\"shape\":{},\"data_offsets\":[{begin},{end}]}}",
                quoted(&spec.name),
                spec.dtype.safetensors_name(),
                dimensions(&spec.shape),
            );
            ends.push(end);
            begin = end;
        }
        json.push('}');
        // Data starts at a multiple of 8, the largest element.
        while json.len() % 8 != 0 {
            json.push(' ');
        }
        if json.len() as u64 > HEADER_BYTES_MAX {
            return Err(Error::rejected(format!(
                "the header of {} tensors would take {} bytes, readers accept at most {HEADER_BYTES_MAX}",
                specs.len(),
                json.len()
            )));
        }
        let mut header = (json.len() as u64).to_le_bytes().to_vec();
        header.extend_from_slice(json.as_bytes());
        let data_start = header.len() as u64;
        let offsets = std::iter::once(0).chain(ends).map(|end| data_start + end).collect();
        Ok(SafetensorsLayout { header, offsets })
    }

    /// The same with a header of `n_bytes`, blanks at its end: where room was left for more.
    ///
    /// # Errors
    /// Failed: the header is longer than that.
    pub fn with_header_bytes(mut self, n_bytes: u64) -> Result<SafetensorsLayout> {
        let more = n_bytes.checked_sub(self.header.len() as u64).filter(|more| more % 8 == 0);
        let more = more.ok_or_else(|| {
            Error::failed(format!("a header of at most {n_bytes} bytes expected, {} found", self.header.len()))
        })?;
        self.header.resize(self.header.len() + more as usize, b' ');
        let json_bytes = (self.header.len() as u64 - 8).to_le_bytes();
        self.header.splice(..8, json_bytes);
        self.offsets.iter_mut().for_each(|offset| *offset += more);
        Ok(self)
    }

    /// The file's first bytes: length and JSON.
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// Number of tensors.
    pub fn n_tensors(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Bytes from the file's start to the data of tensor number `tensor`.
    pub fn offset(&self, tensor: usize) -> u64 {
        self.offsets.get(tensor).copied().unwrap_or_else(|| self.file_bytes())
    }

    /// Number of bytes of tensor number `tensor`.
    pub fn n_bytes(&self, tensor: usize) -> u64 {
        self.offset(tensor + 1) - self.offset(tensor)
    }

    /// Length of the whole file.
    pub fn file_bytes(&self) -> u64 {
        self.offsets.last().copied().unwrap_or_default()
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn entries(metadata: &BTreeMap<String, String>) -> String {
    let entries: Vec<String> =
        metadata.iter().map(|(key, value)| format!("{}:{}", quoted(key), quoted(value))).collect();
    entries.join(",")
}

fn dimensions(shape: &[usize]) -> String {
    let numbers: Vec<String> = shape.iter().map(usize::to_string).collect();
    format!("[{}]", numbers.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::SafetensorsHeader;

    fn spec(name: &str, dtype: Dtype, shape: &[usize]) -> TensorSpec {
        TensorSpec { name: name.into(), dtype, shape: shape.into() }
    }

    #[test]
    fn the_header_is_what_readers_expect() {
        let metadata = BTreeMap::from([("tool".to_owned(), "a \"quoted\"\nword".to_owned())]);
        let specs = [spec("b", Dtype::Bf16, &[2, 3]), spec("ü\"", Dtype::F32, &[]), spec("none", Dtype::F64, &[0, 4])];
        let layout = SafetensorsLayout::new(&specs, &metadata).unwrap();
        assert_eq!(layout, SafetensorsLayout::new(&specs, &metadata).unwrap());
        assert_eq!(layout.header().len() % 8, 0);
        assert_eq!(layout.file_bytes(), layout.header().len() as u64 + 12 + 4);
        assert_eq!((layout.offset(1), layout.n_bytes(1)), (layout.offset(0) + 12, 4));

        let header = SafetensorsHeader::parse(&layout.header()[8..], 16).unwrap();
        assert_eq!(header.metadata["format"], "pt");
        assert_eq!(header.metadata["tool"], metadata["tool"]);
        assert_eq!(header.tensors.iter().map(TensorSpec::from).collect::<Vec<_>>(), specs);
        // The format's own library agrees.
        let mut file = layout.header().to_vec();
        file.resize(layout.file_bytes() as usize, 0);
        let read = safetensors::SafeTensors::deserialize(&file).unwrap();
        assert_eq!(read.tensor("b").unwrap().shape(), [2, 3]);

        let flax = BTreeMap::from([("format".to_owned(), "flax".to_owned())]);
        let layout = SafetensorsLayout::new(&specs, &flax).unwrap();
        assert_eq!(SafetensorsHeader::parse(&layout.header()[8..], 16).unwrap().metadata, flax);
    }

    #[test]
    fn impossible_layouts_are_refused() {
        let cases = [
            (vec![spec("a", Dtype::F32, &[1]), spec("a", Dtype::F32, &[1])], "`a` would stand twice"),
            (vec![spec("__metadata__", Dtype::F32, &[1])], "would stand twice"),
            (vec![spec("a", Dtype::F32, &[usize::MAX, 2])], "more bytes than any file"),
            (vec![spec("a", Dtype::U8, &[1 << 62]), spec("b", Dtype::U8, &[1 << 62])], "`b` makes the file too large"),
        ];
        for (specs, expected) in cases {
            let error = SafetensorsLayout::new(&specs, &BTreeMap::new()).unwrap_err();
            assert!(error.message().contains(expected), "{error}");
        }
    }

    #[test]
    fn aligned_order_puts_large_elements_first() {
        let specs = vec![spec("a", Dtype::F16, &[1]), spec("c", Dtype::F32, &[1]), spec("b", Dtype::F32, &[1])];
        let names: Vec<_> = in_aligned_order(specs).into_iter().map(|spec| spec.name).collect();
        assert_eq!(names, ["b", "c", "a"]);
    }
}
