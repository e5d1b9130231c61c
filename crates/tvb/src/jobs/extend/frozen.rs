//! Tensors that no task of a basis moved: whether newcomers leave them alone too, and digests of them for the fingerprints.

use crate::checkpoint::Checkpoint;
use crate::columns::plan::{Plan, Task};
use crate::digest::{Digest, TensorDigests};
use crate::error::{Error, Result};
use crate::pass::{Folded, HostOperation, Pass, ReadChunk, Reads, Runtime, decode_deltas};
use crate::progress::Progress;
use crate::shown::shown;
use std::collections::HashMap;

/// Names that are listed before the others are counted.
const N_LISTED: usize = 5;

/// Digests of the tensors that do not move, by name: the base's, then each newcomer's.
pub(crate) type FrozenDigests = Vec<HashMap<String, Digest>>;

/// Reads the frozen tensors of the base and the newcomers once.
///
/// # Errors
/// Rejected: a newcomer that moves one. Failed: I/O. Interrupted.
pub(crate) fn frozen_digests(
    base: &Checkpoint,
    newcomers: &[Task],
    names: &[String],
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<FrozenDigests> {
    let n_columns = newcomers.len() + 1;
    if names.is_empty() {
        return Ok(vec![HashMap::new(); n_columns]);
    }
    let plan = Plan::of_columns(base.clone(), newcomers.to_vec(), names)?;
    let mut table = TensorDigests::new(n_columns);
    let mut moved = vec![None; plan.tensors.len()];
    let fold = |Folded { blocks, digests, part }: Folded<'_, Vec<Option<usize>>>| {
        for ((block, columns), mover) in blocks.iter().zip(digests.chunks_exact(n_columns)).zip(part) {
            table.push(block.tensor, columns);
            moved[block.tensor] = moved[block.tensor].or(mover);
        }
        Ok(())
    };
    let reads = Reads::new();
    Pass::over(&plan, runtime, &reads).visit(&Moves { n_new: newcomers.len() }, runtime, progress, fold)?;
    let movers: Vec<(&str, &str)> = (plan.tensors.iter().zip(&moved))
        .filter_map(|(tensor, mover)| Some((tensor.name.as_str(), newcomers.get((*mover)?)?.name.as_str())))
        .collect();
    if let Some((_, task)) = movers.first() {
        let listed: Vec<String> = movers.iter().take(N_LISTED).map(|(name, _)| shown(name).to_string()).collect();
        let more = match movers.len() - listed.len() {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        return Err(Error::rejected(format!(
            "task {}: it moves tensors that no task of the basis did, for which the old columns have no room: {}{more}",
            shown(task),
            listed.join(", ")
        ))
        .hint(
            "make the basis again from all originals with `tvb compress`, or put the newcomer into a basis of its own",
        ));
    }
    let table = table.finish(plan.tensors.len());
    let of_column = |column| plan.tensors.iter().map(|tensor| tensor.name.clone()).zip(table.column(column)).collect();
    Ok((0..n_columns).map(of_column).collect())
}

/// The operation: the first newcomer that moves each block.
struct Moves {
    n_new: usize,
}

impl HostOperation for Moves {
    /// \[n_blocks\]
    type Part = Vec<Option<usize>>;
    type Buffers = ();

    fn n_outputs(&self) -> usize {
        self.n_new + 1
    }

    fn on_chunk(&self, read: ReadChunk<'_>, _: &mut ()) -> Result<Vec<Option<usize>>> {
        let n_columns = self.n_new + 1;
        let mover = |(index, digests): (usize, &[Digest])| {
            if digests.iter().all(|digest| *digest == digests[0]) {
                return None;
            }
            // Other bytes may be the same numbers in another type.
            let deltas = decode_deltas(read.chunk, index, self.n_new);
            deltas.iter().position(|delta| delta.iter().any(|value| *value != 0.0))
        };
        Ok(read.digests.chunks_exact(n_columns).enumerate().map(mover).collect())
    }
}
