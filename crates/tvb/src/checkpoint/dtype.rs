//! Element types a checkpoint may store, and which of them take part in task arithmetic.

use std::fmt;

/// A stored element type. Only [`Dtype::float`] ones take part; the others are carried over from the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Dtype {
    F64,
    F32,
    F16,
    Bf16,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
    F8E4M3,
    F8E5M2,
    Complex64,
}

const TABLE: [(Dtype, &str, usize); 16] = [
    (Dtype::F64, "F64", 8),
    (Dtype::F32, "F32", 4),
    (Dtype::F16, "F16", 2),
    (Dtype::Bf16, "BF16", 2),
    (Dtype::I64, "I64", 8),
    (Dtype::I32, "I32", 4),
    (Dtype::I16, "I16", 2),
    (Dtype::I8, "I8", 1),
    (Dtype::U64, "U64", 8),
    (Dtype::U32, "U32", 4),
    (Dtype::U16, "U16", 2),
    (Dtype::U8, "U8", 1),
    (Dtype::Bool, "BOOL", 1),
    (Dtype::F8E4M3, "F8_E4M3", 1),
    (Dtype::F8E5M2, "F8_E5M2", 1),
    (Dtype::Complex64, "C64", 8),
];

/// Types of safetensors headers that only quantized weights have, and that this program does not carry.
const NARROW: [&str; 9] =
    ["F4", "F4_E2M1", "F6_E2M3", "F6_E3M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F8_E4M3B11FNUZ", "F8_E3M4"];

/// What the owner of weights in fewer bits can do.
pub const FLOATS_HINT: &str = "name the model that it was made from; or load it with transformers, model.dequantize() (or \
                               dequantize=True in its quantization config), and save_pretrained it in bfloat16";

/// Whether a safetensors header names floats of 8 bits or fewer that this program does not carry.
pub(crate) fn is_narrow(name: &str) -> bool {
    NARROW.contains(&name)
}

impl Dtype {
    /// Bytes per element.
    #[allow(clippy::indexing_slicing, reason = "the table has a row for every type, in their order: a test compares")]
    pub fn size(self) -> usize {
        TABLE[self as usize].2
    }

    /// The name in a safetensors header, for example `BF16`.
    #[allow(clippy::indexing_slicing, reason = "the table has a row for every type, in their order: a test compares")]
    pub fn safetensors_name(self) -> &'static str {
        TABLE[self as usize].1
    }

    /// The type a safetensors header names, if it is one we carry.
    pub fn from_safetensors_name(name: &str) -> Option<Dtype> {
        TABLE.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    /// The kernels' name for it, where it is a float that takes part in task arithmetic.
    pub fn float(self) -> Option<tvb_kernels::Dtype> {
        match self {
            Dtype::F64 => Some(tvb_kernels::Dtype::F64),
            Dtype::F32 => Some(tvb_kernels::Dtype::F32),
            Dtype::F16 => Some(tvb_kernels::Dtype::F16),
            Dtype::Bf16 => Some(tvb_kernels::Dtype::Bf16),
            _ => None,
        }
    }
}

impl From<tvb_kernels::Dtype> for Dtype {
    fn from(dtype: tvb_kernels::Dtype) -> Dtype {
        match dtype {
            tvb_kernels::Dtype::F64 => Dtype::F64,
            tvb_kernels::Dtype::F32 => Dtype::F32,
            tvb_kernels::Dtype::F16 => Dtype::F16,
            tvb_kernels::Dtype::Bf16 => Dtype::Bf16,
        }
    }
}

/// Lower case, as PyTorch users write it: `bf16`, `f32`, `i64`.
impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.safetensors_name().to_ascii_lowercase())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_rows_stand_at_their_own_index() {
        for (index, (dtype, name, _)) in TABLE.iter().enumerate() {
            assert_eq!(*dtype as usize, index);
            assert_eq!(Dtype::from_safetensors_name(name), Some(*dtype));
            assert!(!is_narrow(name));
        }
    }
}
