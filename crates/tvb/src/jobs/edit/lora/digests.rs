//! Digests of the columns that an adapter is formed from: as a pass would have taken them, although none streams by.

use super::gather::Used;
use crate::checkpoint::{Checkpoint, Place, Tensor};
use crate::columns::plan::Task;
use crate::digest::{BLOCK_ROWS, Digest, of_factors, of_unmoved};
use crate::error::Result;
use crate::ops::reconstruct::Read;

/// Every column that takes part, with the digests of all its tensors.
///
/// # Errors
/// Failed: I/O.
pub(super) fn read(used: &Used<'_>) -> Result<Read> {
    let column = |task: &&Task| {
        let digests = task.checkpoint.tensors().iter().map(|tensor| of_tensor(&task.checkpoint, tensor).map(Some));
        Ok(((*task).clone(), digests.collect::<Result<_>>()?))
    };
    Ok(Read { columns: used.columns.iter().map(column).collect::<Result<_>>()?, ..Read::default() })
}

fn of_tensor(checkpoint: &Checkpoint, tensor: &Tensor) -> Result<Digest> {
    let size = tensor.dtype.size();
    let mut blocks = Vec::new();
    for first in (0..tensor.n_elements()).step_by(BLOCK_ROWS) {
        let n_rows = BLOCK_ROWS.min(tensor.n_elements() - first);
        blocks.push(match &tensor.place {
            Place::LowRank(factors) => of_factors(factors, first, n_rows),
            Place::Unmoved => of_unmoved(n_rows),
            _ => {
                let mut bytes = vec![0; n_rows * size];
                checkpoint.read(tensor, (first * size) as u64, &mut bytes)?;
                Digest::of(&bytes)
            }
        });
    }
    Ok(Digest::of_digests(blocks))
}
