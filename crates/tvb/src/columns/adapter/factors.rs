//! From an adapter's tensors to two factors of the base's matrix: read, turned, and folded where there are three.

use super::parsed::{Module, Parsed};
use super::values::read;
use crate::checkpoint::{LowRank, Tensor, shown};
use crate::error::Result;

/// Which way the product of the factors lies in the base's tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// The base's \[out, in, …\] is B·A.
    Not,
    /// The base's \[in, out\] is (B·A)ᵀ: embeddings, and GPT-2's `Conv1D`.
    Transposed,
}

/// The factors of one module, in the base's order.
pub(super) fn low_rank(parsed: &Parsed, module: &Module, turn: Turn) -> Result<LowRank> {
    let file = &parsed.file;
    let rank = module.rank;
    let mut down = read(file, &module.down)?;
    let mut up = read(file, &module.up)?;
    if let Some(middle) = &module.middle {
        down = folded(&read(file, middle)?, &down, rank);
    }
    let (left, right) = match turn {
        Turn::Not => (up, down),
        Turn::Transposed => {
            down = transposed(&down, rank);
            let n_rows = up.len() / rank.max(1);
            up = transposed(&up, n_rows);
            (down, up)
        }
    };
    LowRank::new(left, right, rank, module.scale, file.path(), file.budget())
        .map_err(|error| error.context(format!("module {}", shown(&module.path))))
}

/// The difference of a bias: `scale` times the bias of B.
pub(super) fn bias(parsed: &Parsed, tensor: &Tensor, scale: f64) -> Result<LowRank> {
    let values = read(&parsed.file, tensor)?;
    LowRank::new(values, vec![1.0], 1, scale, parsed.file.path(), parsed.file.budget())
        .map_err(|error| error.context(format!("tensor {}", shown(&tensor.name))))
}

/// \[rows, columns\] → \[columns, rows\].
fn transposed(values: &[f32], n_rows: usize) -> Vec<f32> {
    let n_columns = values.len() / n_rows.max(1);
    (0..n_columns).flat_map(|column| values.iter().skip(column).step_by(n_columns.max(1)).copied()).collect()
}

/// The core \[r, r, k\] of a Tucker form and A \[r, in\] as one factor \[r, in·k\], summed in f64 and rounded once.
fn folded(core: &[f32], down: &[f32], rank: usize) -> Vec<f32> {
    let rank = rank.max(1);
    let n_kernel = core.len() / (rank * rank);
    let n_in = down.len() / rank;
    let mut out = Vec::with_capacity(rank * n_in * n_kernel);
    for core in core.chunks_exact((rank * n_kernel).max(1)) {
        for input in 0..n_in {
            for at in 0..n_kernel {
                let core = core.iter().skip(at).step_by(n_kernel.max(1));
                let down = down.iter().skip(input).step_by(n_in);
                out.push(core.zip(down).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() as f32);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_are_turned() {
        assert_eq!(transposed(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    }

    #[test]
    fn a_core_is_folded_into_the_factor_below_it() {
        // Rank 2, two inputs, a kernel of 2: out[a][i][k] = Σ_b core[a][b][k]·down[b][i].
        let core = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
        let down = [1.0, 10.0, 100.0, 1000.0];
        let expected = [301.0, 402.0, 3010.0, 4020.0, 705.0, 806.0, 7050.0, 8060.0];
        assert_eq!(folded(&core, &down, 2), expected);
    }
}
