//! A value to be saved and its pickle, in the opcodes of protocol 2 that PyTorch's restricted loader knows.

use crate::checkpoint::Dtype;
use crate::checkpoint::limits::PICKLE_BYTES_MAX;
use crate::checkpoint::tensor::checked_bytes;
use crate::checkpoint::torch::{dtypes, views};
use crate::error::{Error, Result};

/// What `torch.load` will give back.
#[derive(Clone, Debug, PartialEq)]
pub enum SaveValue {
    /// `None`.
    None,
    /// A truth value.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A float.
    Float(f64),
    /// Text.
    Str(String),
    /// A list.
    List(Vec<SaveValue>),
    /// A tuple.
    Tuple(Vec<SaveValue>),
    /// A dict.
    Dict(Vec<(SaveValue, SaveValue)>),
    /// A `collections.OrderedDict`.
    OrderedDict(Vec<(SaveValue, SaveValue)>),
    /// A `torch.Size`.
    Size(Vec<usize>),
    /// A tensor.
    Tensor(SaveTensor),
}

/// A tensor: a view into one of the storages of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaveTensor {
    /// Number of the storage.
    pub storage: usize,
    /// The element type, which must be its storage's.
    pub dtype: Dtype,
    /// Elements from the storage's start.
    pub offset: u64,
    /// Dimensions; empty for a scalar (0-d).
    pub shape: Vec<usize>,
    /// Steps in elements, one for each dimension.
    pub strides: Vec<usize>,
}

/// A run of elements that one or more tensors lie in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaveStorage {
    /// The element type.
    pub dtype: Dtype,
    /// Number of elements.
    pub n_elements: u64,
}

impl SaveTensor {
    /// A row-major tensor from element `offset` of a storage on.
    pub fn contiguous(storage: usize, offset: u64, dtype: Dtype, shape: &[usize]) -> SaveTensor {
        // Of a tensor without elements the sides may be of any size; where its elements would lie does not matter.
        let most = usize::try_from(i64::MAX).unwrap_or(usize::MAX);
        let mut step = 1_usize;
        let mut strides: Vec<usize> = shape
            .iter()
            .rev()
            .map(|side| {
                let own = step;
                step = step.saturating_mul((*side).max(1)).min(most);
                own
            })
            .collect();
        strides.reverse();
        SaveTensor { storage, dtype, offset, shape: shape.to_vec(), strides }
    }
}

impl SaveStorage {
    /// Number of bytes.
    ///
    /// # Errors
    /// Rejected when that overflows.
    pub fn n_bytes(&self) -> Result<u64> {
        usize::try_from(self.n_elements)
            .map_err(|_| "has too many elements".to_owned())
            .and_then(|n_elements| checked_bytes(self.dtype, &[n_elements]))
            .map_err(|why| Error::rejected(format!("a storage {why}")))
    }
}

impl From<&str> for SaveValue {
    fn from(text: &str) -> SaveValue {
        SaveValue::Str(text.to_owned())
    }
}

/// The pickle of a value.
///
/// # Errors
/// Why it cannot be written: a tensor outside its storage or of another type, an element type PyTorch lacks, text or a
/// pickle that is too long.
pub(super) fn pickle(value: &SaveValue, storages: &[SaveStorage]) -> Result<Vec<u8>, String> {
    let mut pickler = Pickler { out: vec![0x80, 2], storages, memo: Vec::new() };
    pickler.value(value)?;
    pickler.out.push(b'.');
    match pickler.out.len() as u64 {
        n_bytes if n_bytes > PICKLE_BYTES_MAX => {
            Err(format!("a pickle of {n_bytes} bytes, readers accept at most {PICKLE_BYTES_MAX}"))
        }
        _ => Ok(pickler.out),
    }
}

struct Pickler<'a> {
    out: Vec<u8>,
    storages: &'a [SaveStorage],
    /// Globals that have been written, by their place in the memo.
    memo: Vec<String>,
}

impl Pickler<'_> {
    fn value(&mut self, value: &SaveValue) -> Result<(), String> {
        match value {
            SaveValue::None => self.out.push(b'N'),
            SaveValue::Bool(false) => self.out.push(0x89),
            SaveValue::Bool(true) => self.out.push(0x88),
            SaveValue::Int(value) => self.int(*value),
            SaveValue::Float(value) => {
                self.out.push(b'G');
                self.out.extend_from_slice(&value.to_be_bytes());
            }
            SaveValue::Str(text) => self.text(text)?,
            SaveValue::List(items) => {
                self.out.extend_from_slice(b"](");
                self.values(items)?;
                self.out.push(b'e');
            }
            SaveValue::Tuple(items) => self.tuple(items)?,
            SaveValue::Dict(entries) => {
                self.out.push(b'}');
                self.entries(entries)?;
            }
            SaveValue::OrderedDict(entries) => {
                self.empty_ordered_dict();
                self.entries(entries)?;
            }
            SaveValue::Size(shape) => {
                self.global("torch", "Size");
                self.dimensions(shape)?;
                self.out.extend_from_slice(b"\x85R");
            }
            SaveValue::Tensor(tensor) => self.tensor(tensor)?,
        }
        Ok(())
    }

    fn values(&mut self, values: &[SaveValue]) -> Result<(), String> {
        values.iter().try_for_each(|value| self.value(value))
    }

    fn tuple(&mut self, items: &[SaveValue]) -> Result<(), String> {
        self.out.push(b'(');
        self.values(items)?;
        self.out.push(b't');
        Ok(())
    }

    fn entries(&mut self, entries: &[(SaveValue, SaveValue)]) -> Result<(), String> {
        self.out.push(b'(');
        for (key, value) in entries {
            self.value(key)?;
            self.value(value)?;
        }
        self.out.push(b'u');
        Ok(())
    }

    fn int(&mut self, value: i64) {
        match value {
            0..=0xff => self.out.extend_from_slice(&[b'K', value as u8]),
            0x100..=0xffff => {
                self.out.push(b'M');
                self.out.extend_from_slice(&(value as u16).to_le_bytes());
            }
            _ => match i32::try_from(value) {
                Ok(value) => {
                    self.out.push(b'J');
                    self.out.extend_from_slice(&value.to_le_bytes());
                }
                Err(_) => {
                    self.out.extend_from_slice(&[0x8a, 8]);
                    self.out.extend_from_slice(&value.to_le_bytes());
                }
            },
        }
    }

    fn text(&mut self, text: &str) -> Result<(), String> {
        let n_bytes = u32::try_from(text.len()).map_err(|_| format!("text of {} bytes", text.len()))?;
        self.out.push(b'X');
        self.out.extend_from_slice(&n_bytes.to_le_bytes());
        self.out.extend_from_slice(text.as_bytes());
        Ok(())
    }

    /// A class or function; the second time by its place in the memo, as every tensor names the same few.
    fn global(&mut self, module: &str, name: &str) {
        let line = format!("c{module}\n{name}\n");
        match self.memo.iter().position(|known| *known == line) {
            Some(index) => self.out.extend_from_slice(&[b'h', index as u8]),
            None => {
                self.out.extend_from_slice(line.as_bytes());
                self.out.extend_from_slice(&[b'q', self.memo.len() as u8]);
                self.memo.push(line);
            }
        }
    }

    fn empty_ordered_dict(&mut self) {
        self.global("collections", "OrderedDict");
        self.out.extend_from_slice(b")R");
    }

    fn dimensions(&mut self, dimensions: &[usize]) -> Result<(), String> {
        self.out.push(b'(');
        for &dimension in dimensions {
            self.int(i64::try_from(dimension).map_err(|_| format!("a dimension of {dimension}"))?);
        }
        self.out.push(b't');
        Ok(())
    }

    fn tensor(&mut self, tensor: &SaveTensor) -> Result<(), String> {
        let SaveTensor { storage: number, dtype, offset, shape, strides } = tensor;
        let storage = *self
            .storages
            .get(*number)
            .ok_or_else(|| format!("a tensor in storage {number} of {}", self.storages.len()))?;
        if storage.dtype != *dtype || shape.len() != strides.len() {
            return Err(format!(
                "a {dtype} tensor of shape {shape:?} and strides {strides:?} in a storage of {}",
                storage.dtype
            ));
        }
        let storage_bytes = storage.n_bytes().map_err(|error| error.to_string())?;
        views::check_view(*dtype, *offset, shape, strides, storage_bytes)?;
        let save_int = |value: u64| i64::try_from(value).map_err(|_| format!("an offset of {value}"));

        // Types that came after typed storages lie in plain bytes, and the tensor says what they are.
        let class = dtypes::storage_class(*dtype);
        let rebuild = if class.is_some() { "_rebuild_tensor_v2" } else { "_rebuild_tensor_v3" };
        self.global("torch._utils", rebuild);
        self.out.push(b'(');
        self.out.push(b'(');
        self.text("storage")?;
        match class {
            Some(class) => self.global("torch", class),
            None => self.global("torch.storage", "UntypedStorage"),
        }
        self.text(&number.to_string())?;
        self.text("cpu")?;
        self.int(save_int(if class.is_some() { storage.n_elements } else { storage_bytes })?);
        self.out.extend_from_slice(b"tQ");
        self.int(save_int(*offset)?);
        self.dimensions(shape)?;
        self.dimensions(strides)?;
        // No gradient, no hooks.
        self.out.push(0x89);
        self.empty_ordered_dict();
        if class.is_none() {
            self.global("torch", dtypes::name(*dtype));
        }
        self.out.extend_from_slice(b"tR");
        Ok(())
    }
}
