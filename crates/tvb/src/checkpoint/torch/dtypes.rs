//! PyTorch's names for element types, read and written.

use crate::checkpoint::Dtype;

/// (type, `torch.NAME`, class of its typed storage where the type is old enough to have one).
const TABLE: [(Dtype, &str, Option<&str>); 16] = [
    (Dtype::F64, "float64", Some("DoubleStorage")),
    (Dtype::F32, "float32", Some("FloatStorage")),
    (Dtype::F16, "float16", Some("HalfStorage")),
    (Dtype::Bf16, "bfloat16", Some("BFloat16Storage")),
    (Dtype::I64, "int64", Some("LongStorage")),
    (Dtype::I32, "int32", Some("IntStorage")),
    (Dtype::I16, "int16", Some("ShortStorage")),
    (Dtype::I8, "int8", Some("CharStorage")),
    (Dtype::U64, "uint64", None),
    (Dtype::U32, "uint32", None),
    (Dtype::U16, "uint16", None),
    (Dtype::U8, "uint8", Some("ByteStorage")),
    (Dtype::Bool, "bool", Some("BoolStorage")),
    (Dtype::F8E4M3, "float8_e4m3fn", None),
    (Dtype::F8E5M2, "float8_e5m2", None),
    (Dtype::Complex64, "complex64", Some("ComplexFloatStorage")),
];

/// The type behind `torch.NAME`.
pub(super) fn from_name(name: &str) -> Option<Dtype> {
    TABLE.iter().find(|row| row.1 == name).map(|row| row.0)
}

/// The type of a typed storage class.
pub(super) fn from_storage_class(class: &str) -> Option<Dtype> {
    TABLE.iter().find(|row| row.2 == Some(class)).map(|row| row.0)
}

/// The name in the module `torch`.
#[allow(clippy::indexing_slicing, reason = "the table has a row for every type, in their order: a test compares")]
pub(super) fn name(dtype: Dtype) -> &'static str {
    TABLE[dtype as usize].1
}

/// The class of a typed storage, where there is one.
#[allow(clippy::indexing_slicing, reason = "the table has a row for every type, in their order: a test compares")]
pub(super) fn storage_class(dtype: Dtype) -> Option<&'static str> {
    TABLE[dtype as usize].2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_rows_stand_at_their_own_index() {
        for (index, (dtype, torch_name, class)) in TABLE.into_iter().enumerate() {
            assert_eq!(dtype as usize, index);
            assert_eq!(from_name(torch_name), Some(dtype));
            assert_eq!(name(dtype), torch_name);
            assert_eq!(class.and_then(from_storage_class), class.map(|_| dtype));
        }
    }
}
