//! The tables that shaders read beside a chunk's bytes, laid one after another in one buffer.

use crate::chunk::{ChunkLayout, Dtype, Slice};
use crate::error::KernelError;
use crate::limits::BINDING_ALIGNMENT;
use crate::params;
use std::ops::Range;

/// Builds the tables: each part on its own binding alignment.
#[derive(Default)]
pub(super) struct Tables {
    bytes: Vec<u8>,
}

impl Tables {
    /// Appends a part and returns its byte range.
    pub(super) fn push<T: bytemuck::Pod>(&mut self, part: &[T]) -> Range<usize> {
        let start = self.bytes.len().next_multiple_of(BINDING_ALIGNMENT);
        self.bytes.resize(start, 0);
        self.bytes.extend_from_slice(bytemuck::cast_slice(part));
        start..self.bytes.len()
    }

    /// Appends the parameters of a dispatch and returns their byte.
    pub(super) fn push_params<T: bytemuck::Pod>(&mut self, params: T) -> u32 {
        // Tables hold a few bytes per run and slice of a chunk that itself is below 4 GiB.
        self.push(&[params]).start as u32
    }

    /// The bytes; the last part padded, as every dispatch's parameters are bound with one fixed size.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let end = (self.bytes.len() + BINDING_ALIGNMENT).next_multiple_of(BINDING_ALIGNMENT);
        self.bytes.resize(end, 0);
        self.bytes
    }
}

/// The table of slices. Behind it stand three entries for each that is formed from factors: where these lie, their rank and row
/// length, the first element and the scale.
///
/// # Errors
/// [`KernelError::NotOnGpu`] for f64 rows; [`KernelError::Limit`] where an offset is beyond 32 bits.
pub(super) fn slices(layout: &ChunkLayout) -> Result<Vec<params::Slice>, KernelError> {
    let too_far = KernelError::Limit { what: "chunk bytes", found: layout.n_bytes as u64, most: u64::from(u32::MAX) };
    u32::try_from(layout.n_bytes).map_err(|_| too_far)?;
    let n_slices = layout.slices.len();
    let mut factors: Vec<params::Slice> = Vec::new();
    let of_slice = |(at, slice): (usize, &Slice)| match layout.factors.get(at) {
        Some(Some(from)) => {
            let entry = params::Slice { offset_bytes: (n_slices + factors.len()) as u32, dtype: params::LOW_RANK };
            let pairs = [
                (from.left, from.right as u32),
                (from.rank, from.n_columns as u32),
                (from.first, from.scale.to_bits()),
            ];
            factors.extend(pairs.map(|(first, second)| params::Slice { offset_bytes: first as u32, dtype: second }));
            Ok(entry)
        }
        _ => Ok(params::Slice { offset_bytes: slice.offset as u32, dtype: slice_code(*slice)? }),
    };
    let mut all = layout.slices.iter().enumerate().map(of_slice).collect::<Result<Vec<_>, KernelError>>()?;
    all.extend(factors);
    Ok(all)
}

/// The number of a slice's format in the shaders.
fn slice_code(slice: Slice) -> Result<u32, KernelError> {
    match (slice.is_delta, slice.dtype) {
        (true, Dtype::F32) => Ok(params::DELTA),
        (true, _) => Err(KernelError::NotOnGpu),
        (false, dtype) => dtype_code(dtype),
    }
}

/// A format's number in the shaders.
pub(super) fn dtype_code(dtype: Dtype) -> Result<u32, KernelError> {
    match dtype {
        Dtype::F32 => Ok(params::F32),
        Dtype::F16 => Ok(params::F16),
        Dtype::Bf16 => Ok(params::BF16),
        Dtype::F64 => Err(KernelError::NotOnGpu),
    }
}
