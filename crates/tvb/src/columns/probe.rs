//! A few bytes of every column: enough to tell other weights of the same shape, and read in no time.

use super::plan::{Plan, PlannedTensor};
use crate::digest::{Digest, Digester};
use crate::error::Result;

/// Places that are looked at, of all columns together, about.
const N_PLACES: usize = 4096;
/// Places in each column, at least.
const LEAST_PLACES: usize = 4;
/// Elements of each place.
const N_ELEMENTS: usize = 16;

/// A digest of some elements of each column, base first. Where they lie depends on the tensors' names and sizes alone. No proof that
/// columns are the same: whoever has read all of them has better digests.
///
/// # Errors
/// Failed: I/O.
pub(super) fn probes(plan: &Plan) -> Result<Vec<Digest>> {
    let n_places = (N_PLACES / plan.n_columns().max(1)).max(LEAST_PLACES);
    let tensors: Vec<&PlannedTensor> = plan.tensors.iter().filter(|tensor| tensor.n_rows > 0).collect();
    let step = tensors.len().div_ceil(n_places).max(1);
    let probe = |column: usize| {
        let mut digester = Digester::default();
        for planned in tensors.iter().step_by(step) {
            let tensor = plan.column_tensor(planned, column);
            let n = N_ELEMENTS.min(planned.n_rows);
            let first = (Digest::of(planned.name.as_bytes()).0 % (planned.n_rows - n + 1) as u128) as u64;
            let size = tensor.dtype.size();
            let mut bytes = vec![0; n * size];
            plan.column_checkpoint(column).read(tensor, first * size as u64, &mut bytes)?;
            digester.push(&bytes);
        }
        Ok(digester.finish())
    };
    (0..plan.n_columns()).map(probe).collect()
}
