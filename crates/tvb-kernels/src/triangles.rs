//! Packed lower triangles: how Gram matrices are stored.

use crate::error::KernelError;

/// Gram matrices of a chunk's segments, one for each segment in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Triangles {
    /// [n_segments, T(T+1)/2]: packed lower triangles, entry (i, j ≤ i) at i(i+1)/2 + j. f64 sums of f32 runs of rows. A
    /// segment without rows has zeros.
    pub values: Vec<f64>,
}

/// Entries of a packed lower triangle of order n: n(n+1)/2.
pub const fn triangle_len(n: usize) -> usize {
    n * (n + 1) / 2
}

impl Triangles {
    /// Makes this `n_segments` zeroed triangles of order `n_tasks`, keeping its memory.
    pub(crate) fn clear(&mut self, n_segments: usize, n_tasks: usize) -> Result<(), KernelError> {
        let too_large = || KernelError::TooLarge { what: "Gram matrices" };
        let n_values = n_segments.checked_mul(triangle_len(n_tasks)).ok_or_else(too_large)?;
        self.values.clear();
        self.values.try_reserve_exact(n_values).map_err(|_| too_large())?;
        self.values.resize(n_values, 0.0);
        Ok(())
    }
}
