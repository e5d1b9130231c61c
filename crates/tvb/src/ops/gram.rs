//! Pass 1: chunks → per-tensor Gram matrices in f64, with the digests of everything that was read.

use crate::checkpoint::Dtype;
use crate::columns::plan::{Plan, Skipped};
use crate::digest::{Digest, TableOfDigests, fingerprint};
use crate::error::{Error, Result};
use crate::matrix::Matrix;
use crate::pass::bookmark::{Bookmark, Bookmarks, NoBookmarks, PassName};
use crate::pass::chunks::{Block, ChunkReader, Grid};
use crate::pass::stream::{Pass, Runtime};
use crate::progress::Progress;
use serde::{Deserialize, Serialize};
use tvb_kernels::{GramPart, Output, Work, triangle_len};

/// Per-tensor Grams are kept while they take less than this; beyond it, one Gram for each group.
pub const PER_TENSOR_BYTES: usize = 256 << 20;

/// What one Gram matrix is the sum over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// One tensor.
    Tensor,
    /// One group of tensors.
    Group,
}

/// Where a checkpoint came from and what it held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The name it goes by; `base` for the base.
    pub name: String,
    /// The path it was read from.
    pub source: String,
    /// Digest of the tensors that took part (names, types, shapes, data).
    pub fingerprint: Digest,
}

/// A tensor that took part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GramTensor {
    /// Its name in the base.
    pub name: String,
    /// Its stored type in the base, in safetensors' spelling.
    #[serde(with = "dtype_name")]
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<usize>,
    /// No task moved it: it is recorded and not stored.
    pub frozen: bool,
}

/// Tensors that share one encode B and one decode W.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its name; today's only group is `model`.
    pub name: String,
    /// Indices into the tensors.
    pub tensors: Vec<usize>,
}

/// The Gram matrices of a plan, and everything a later solve or projection must know of the inputs.
#[derive(Clone, Debug)]
pub struct Grams {
    /// The base.
    pub base: Origin,
    /// The tasks, in column order.
    pub tasks: Vec<Origin>,
    /// The tensors that took part, in the base's file order.
    pub tensors: Vec<GramTensor>,
    /// The groups.
    pub groups: Vec<Group>,
    /// What each matrix is the sum over.
    pub per: Per,
    /// [n_slots, T(T+1)/2]: packed lower triangles; a slot is a tensor or a group.
    pub triangles: Vec<f64>,
    /// Digest of every tensor in every column, base first.
    pub digests: TableOfDigests,
    /// Float tensors that were left out.
    pub skipped: Vec<Skipped>,
    /// Tensors that only the base supplies.
    pub carried: Vec<String>,
}

impl Grams {
    /// T.
    pub fn n_tasks(&self) -> usize {
        self.tasks.len()
    }

    /// Number of matrices kept.
    pub fn n_slots(&self) -> usize {
        match self.per {
            Per::Tensor => self.tensors.len(),
            Per::Group => self.groups.len(),
        }
    }

    /// The matrix of one slot, packed.
    pub fn triangle(&self, slot: usize) -> &[f64] {
        let len = triangle_len(self.n_tasks());
        &self.triangles[slot * len..(slot + 1) * len]
    }

    /// The T×T Gram matrix of one group: the sum over its tensors.
    pub fn group_gram(&self, group: usize) -> Matrix {
        let n = self.n_tasks();
        let mut sum = vec![0.0; triangle_len(n)];
        let slots: &[usize] = match self.per {
            Per::Tensor => &self.groups[group].tensors,
            Per::Group => &[group],
        };
        for &slot in slots {
            for (sum, value) in sum.iter_mut().zip(self.triangle(slot)) {
                *sum += value;
            }
        }
        unpack_triangle(&sum, n)
    }

    /// Bytes of one task vector's stored tensors in `dtype`.
    pub fn moved_bytes(&self, dtype: Dtype) -> u64 {
        self.n_moved_rows() * dtype.size() as u64
    }

    /// d without the frozen tensors.
    pub fn n_moved_rows(&self) -> u64 {
        let rows = |tensor: &GramTensor| tensor.shape.iter().product::<usize>() as u64;
        self.tensors.iter().filter(|tensor| !tensor.frozen).map(rows).sum()
    }
}

/// A packed lower triangle as a full symmetric matrix.
pub fn unpack_triangle(triangle: &[f64], n: usize) -> Matrix {
    Matrix::from_fn(n, n, |i, j| {
        let (i, j) = (i.max(j), i.min(j));
        triangle[triangle_len(i) + j]
    })
}

/// Reads every input once and forms the Gram matrices.
///
/// # Errors
/// Rejected: a non-finite delta (named by task, tensor and index), or an input that was written to meanwhile. Failed: I/O or
/// device errors. Interrupted.
pub fn gram(plan: &Plan, runtime: &Runtime, progress: &dyn Progress) -> Result<Grams> {
    gram_from(plan, runtime, progress, &mut NoBookmarks)
}

/// [`gram`], taken up where a bookmark says and leaving bookmarks on the way.
///
/// # Errors
/// As [`gram`]; Failed: a bookmark that cannot be written.
pub fn gram_from(
    plan: &Plan,
    runtime: &Runtime,
    progress: &dyn Progress,
    bookmarks: &mut dyn Bookmarks,
) -> Result<Grams> {
    let n_tasks = plan.tasks.len();
    let triangle = triangle_len(n_tasks);
    let per = if plan.tensors.len().saturating_mul(n_tasks * n_tasks * 8) <= PER_TENSOR_BYTES {
        Per::Tensor
    } else {
        Per::Group
    };
    let groups = vec![Group { name: "model".into(), tensors: (0..plan.tensors.len()).collect() }];
    let (slots, n_slots): (Vec<usize>, usize) = match per {
        Per::Tensor => ((0..plan.tensors.len()).collect(), plan.tensors.len()),
        Per::Group => (vec![0; plan.tensors.len()], groups.len()),
    };
    let tensor_rows = plan.tensors.iter().map(|tensor| tensor.n_rows);
    let grid = Grid::new(tensor_rows, runtime.rows_per_chunk(plan.n_columns()));
    let start = Bookmark::start(n_slots * triangle, &[plan.n_columns()]);
    let found = bookmarks.find(PassName::Gram, Digest::default());
    let mut state = found.filter(|found| found.fits(&start, grid.n_chunks(), plan.tensors.len())).unwrap_or(start);
    progress.begin("gram", plan.n_bytes());
    progress.advance(plan.n_bytes() / grid.n_chunks().max(1) as u64 * state.n_folded as u64);
    let pass = Pass { plan, grid: grid.after(state.n_folded), work: Work::Gram, slots };
    let each = |done: crate::pass::stream::Done<'_>| -> Result<(GramPart, Vec<Digest>)> {
        let Output::Gram(part) = done.output else {
            return Err(Error::failed("the engine answered a Gram pass with something else"));
        };
        if part.values.iter().any(|value| !value.is_finite()) {
            return Err(explain_non_finite(plan, done.blocks));
        }
        Ok((std::mem::take(part), done.digests.to_vec()))
    };
    let fold = |blocks: &[Block], (part, block_digests): (GramPart, Vec<Digest>)| {
        for (slot, values) in part.slots.iter().zip(part.values.chunks_exact(triangle)) {
            for (sum, value) in state.sums[slot * triangle..].iter_mut().zip(values) {
                *sum += value;
            }
        }
        for (block, columns) in blocks.iter().zip(block_digests.chunks_exact(plan.n_columns())) {
            state.digests[0].push(block.tensor, columns);
        }
        state.n_folded += 1;
        if bookmarks.is_due() { bookmarks.put(PassName::Gram, Digest::default(), &state) } else { Ok(()) }
    };
    pass.run(runtime, progress, each, fold)?;
    progress.finish();
    check_unchanged(plan)?;
    let digests = state.digests.swap_remove(0).finish(plan.tensors.len());
    Ok(assemble(plan, per, groups, state.sums, digests))
}

/// Whether every file is still the one that was opened: what was read of it belongs together then.
fn check_unchanged(plan: &Plan) -> Result<()> {
    (0..plan.n_columns()).try_for_each(|column| plan.column_checkpoint(column).check_unchanged())
}

fn assemble(plan: &Plan, per: Per, groups: Vec<Group>, triangles: Vec<f64>, digests: TableOfDigests) -> Grams {
    let n_tasks = plan.tasks.len();
    let len = triangle_len(n_tasks);
    let frozen = |index: usize| {
        let planned = &plan.tensors[index];
        let columns = digests.tensor(index);
        let dtype = |column| plan.column_tensor(planned, column).dtype;
        let same = (1..=n_tasks).all(|column| columns[column] == columns[0] && dtype(column) == dtype(0));
        let still = per == Per::Tensor && {
            let triangle = &triangles[index * len..(index + 1) * len];
            (0..n_tasks).all(|task| triangle[triangle_len(task) + task] == 0.0)
        };
        same || still
    };
    let tensors = plan.tensors.iter().enumerate().map(|(index, planned)| GramTensor {
        name: planned.name.clone(),
        dtype: plan.column_tensor(planned, 0).dtype,
        shape: planned.shape.clone(),
        frozen: frozen(index),
    });
    let origin = |column: usize, name: &str| Origin {
        name: name.to_owned(),
        source: plan.column_checkpoint(column).path().display().to_string(),
        fingerprint: column_fingerprint(plan, &digests, column),
    };
    Grams {
        base: origin(0, "base"),
        tasks: plan.tasks.iter().enumerate().map(|(task, named)| origin(task + 1, &named.name)).collect(),
        tensors: tensors.collect(),
        groups,
        per,
        triangles,
        skipped: plan.skipped.clone(),
        carried: plan.carried.clone(),
        digests,
    }
}

/// The fingerprint of one column over the tensors of a plan.
pub fn column_fingerprint(plan: &Plan, digests: &TableOfDigests, column: usize) -> Digest {
    fingerprint(plan.tensors.iter().zip(digests.column(column)).map(|(planned, digest)| {
        (planned.name.as_str(), plan.column_tensor(planned, column).dtype, planned.shape.as_slice(), digest)
    }))
}

/// Reads the blocks again and names the first delta that is not finite.
fn explain_non_finite(plan: &Plan, blocks: &[Block]) -> Error {
    let mut reader = ChunkReader::default();
    for block in blocks {
        if let Err(error) = reader.read(plan, std::slice::from_ref(block), |_| 0) {
            return error;
        }
        let Some((_, row, column)) = tvb_kernels::locate_non_finite(reader.chunk()) else { continue };
        let tensor = &plan.tensors[block.tensor].name;
        return Error::rejected(format!(
            "{}, tensor {tensor}: a finite delta expected, an infinite or NaN one found at element {}",
            plan.column_name(column),
            block.first_row + row
        ))
        .hint("repair or leave out this checkpoint, or leave out the tensor with --exclude");
    }
    let tensors: Vec<&str> = blocks.iter().map(|block| plan.tensors[block.tensor].name.as_str()).collect();
    Error::rejected(format!("the deltas of {} are too large to be squared in f32", tensors.join(", ")))
        .hint("leave these tensors out with --exclude")
}

/// Serde for a dtype by its safetensors name.
pub mod dtype_name {
    use crate::checkpoint::Dtype;
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes the name.
    pub fn serialize<S: Serializer>(dtype: &Dtype, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(dtype.safetensors_name())
    }

    /// Reads the name.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Dtype, D::Error> {
        let name = String::deserialize(deserializer)?;
        Dtype::from_safetensors_name(&name)
            .ok_or_else(|| serde::de::Error::custom(format!("a tensor type expected, {name:?} found")))
    }
}
