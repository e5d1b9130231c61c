//! Made-up checkpoints: any element of any column from its place alone, so that a check needs no second copy of the data.

use tvb_kernels::Dtype;

/// The values of a base and its fine-tunes, stored in one format. Column 0 is the base θ0 with values in (−1, 1); columns
/// 1, 2, … are fine-tunes that share a direction and differ by a few hundredths.
#[derive(Clone, Copy, Debug)]
pub(super) struct Values {
    /// How every column is stored.
    pub(super) dtype: Dtype,
}

impl Values {
    /// Rows `first_row..` of one column as they are stored, read back as f32.
    pub(super) fn fill(&self, column: usize, first_row: usize, out: &mut [f32]) {
        let strength = if column == 0 { 0.0 } else { 0.02 + 0.002 * (column % 7) as f32 };
        let own = if column == 0 { 0.0 } else { 0.03 };
        for (at, value) in out.iter_mut().enumerate() {
            let row = first_row + at;
            let exact = noise(row, 0) + strength * noise(row, 1) + own * noise(row, column + 1);
            *value = match self.dtype {
                Dtype::F64 | Dtype::F32 => exact,
                Dtype::F16 => half::f16::from_f32(exact).to_f32(),
                Dtype::Bf16 => half::bf16::from_f32(exact).to_f32(),
            };
        }
    }

    /// Rows of one column as bytes; `out` is a whole number of elements long.
    pub(super) fn store(&self, column: usize, first_row: usize, out: &mut [u8]) {
        const ROWS: usize = 1024;
        let mut rows = [0.0f32; ROWS];
        let size = self.dtype.size();
        for (at, block) in out.chunks_mut(ROWS * size).enumerate() {
            let rows = &mut rows[..block.len() / size];
            self.fill(column, first_row + at * ROWS, rows);
            for (raw, &row) in block.chunks_exact_mut(size).zip(rows.iter()) {
                match self.dtype {
                    Dtype::F64 => raw.copy_from_slice(&f64::from(row).to_le_bytes()),
                    Dtype::F32 => raw.copy_from_slice(&row.to_le_bytes()),
                    Dtype::F16 => raw.copy_from_slice(&half::f16::from_f32(row).to_le_bytes()),
                    Dtype::Bf16 => raw.copy_from_slice(&half::bf16::from_f32(row).to_le_bytes()),
                }
            }
        }
    }

    /// Task vectors (differences to the base, formed in f32 as the kernels do) of rows `first_row..`, one task after another.
    pub(super) fn deltas(&self, n_tasks: usize, first_row: usize, n_rows: usize) -> Vec<f32> {
        let mut base = vec![0.0; n_rows];
        self.fill(0, first_row, &mut base);
        let mut deltas = vec![0.0; n_tasks * n_rows];
        for (task, rows) in deltas.chunks_exact_mut(n_rows.max(1)).enumerate() {
            self.fill(task + 1, first_row, rows);
            rows.iter_mut().zip(&base).for_each(|(row, base)| *row -= base);
        }
        deltas
    }
}

/// A number in (−1, 1) for a place (a 32-bit finaliser by Mueller).
fn noise(row: usize, column: usize) -> f32 {
    let mut x =
        (row as u32).wrapping_mul(0x9e37_79b9) ^ (column as u32).wrapping_mul(0x85eb_ca6b).wrapping_add(0x1656_67b1);
    x = (x ^ (x >> 16)).wrapping_mul(0x45d9_f3b3);
    x = (x ^ (x >> 16)).wrapping_mul(0x45d9_f3b3);
    x ^= x >> 16;
    (x >> 8) as f32 / (1u32 << 23) as f32 - 1.0
}
