//! What the Gram pass yields: per-tensor Gram matrices, and everything a later solve or projection must know of the inputs.

use super::dtype_name;
use crate::checkpoint::Dtype;
use crate::columns::coded::is_coded;
use crate::columns::fit::Fit;
use crate::columns::left_out::{LeftOut, Skipped};
use crate::digest::{Digest, TableOfDigests, of_unread};
use crate::matrix::Matrix;
use crate::pass::add_to;
use serde::{Deserialize, Serialize};
use tvb_kernels::triangle_len;

/// Elements of all tensors together that can be worked with: eight bytes of each, in every column, still count in 64 bits.
pub const N_ROWS_MAX: u64 = 1 << 50;

/// Elements of tensors of these shapes, where they are few enough; shapes may come from a file.
pub fn countable_rows<'a>(shapes: impl IntoIterator<Item = &'a [usize]>) -> Option<u64> {
    let elements = |shape: &[usize]| shape.iter().try_fold(1_u64, |n, &side| n.checked_mul(u64::try_from(side).ok()?));
    let sum = shapes.into_iter().try_fold(0_u64, |sum, shape| sum.checked_add(elements(shape)?));
    sum.filter(|&sum| sum <= N_ROWS_MAX)
}

/// What one Gram matrix is the sum over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// One tensor.
    Tensor,
    /// All tensors: where one matrix for each would take too much room. Files call it `group`.
    #[serde(rename = "group")]
    Whole,
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

/// The Gram matrices of a plan, and everything a later solve or projection must know of the inputs.
#[derive(Clone, Debug)]
pub struct Grams {
    /// The base.
    pub base: Origin,
    /// The tasks, in column order.
    pub tasks: Vec<Origin>,
    /// The tensors that took part, in the base's file order.
    pub tensors: Vec<GramTensor>,
    /// What each matrix is the sum over.
    pub per: Per,
    /// [n_slots, T(T+1)/2]: packed lower triangles; a slot is a tensor, or everything.
    pub triangles: Vec<f64>,
    /// Digest of every tensor in every column, base first.
    pub digests: TableOfDigests,
    /// Float tensors that were left out.
    pub skipped: Vec<Skipped>,
    /// Tensors that only the base supplies.
    pub carried: Vec<String>,
    /// How much of the base and of the tasks takes no part.
    pub left_out: LeftOut,
    /// How the tensors fit the base.
    pub fit: Fit,
}

impl Grams {
    /// T.
    pub fn n_tasks(&self) -> usize {
        self.tasks.len()
    }

    /// The base's fingerprint; `None` where it was not read in full, since adapters say by themselves what they change.
    pub fn base_fingerprint(&self) -> Option<Digest> {
        let unread = of_unread();
        (!self.digests.column(0).any(|digest| digest == unread)).then_some(self.base.fingerprint)
    }

    /// Number of matrices kept.
    pub fn n_slots(&self) -> usize {
        match self.per {
            Per::Tensor => self.tensors.len(),
            Per::Whole => 1,
        }
    }

    /// The matrix of one slot, packed.
    pub fn triangle(&self, slot: usize) -> &[f64] {
        let len = triangle_len(self.n_tasks());
        &self.triangles[slot * len..(slot + 1) * len]
    }

    /// G \[T, T\]: the sum over all tensors.
    pub fn total(&self) -> Matrix {
        self.sum_of(0..self.n_slots())
    }

    /// The same over the tensors that a code takes and over the others, which it leaves in bf16. Where one matrix is all there
    /// is, all counts as coded: nearly all is.
    pub fn parted(&self) -> (Matrix, Matrix) {
        let is_raw = |slot: &usize| {
            self.per == Per::Tensor && self.tensors.get(*slot).is_some_and(|tensor| !is_coded(&tensor.shape))
        };
        let (raw, coded): (Vec<usize>, Vec<usize>) = (0..self.n_slots()).partition(is_raw);
        (self.sum_of(coded), self.sum_of(raw))
    }

    pub(crate) fn sum_of(&self, slots: impl IntoIterator<Item = usize>) -> Matrix {
        let n = self.n_tasks();
        let mut sum = vec![0.0; triangle_len(n)];
        slots.into_iter().for_each(|slot| add_to(&mut sum, self.triangle(slot)));
        unpack_triangle(&sum, n)
    }

    /// Shapes of the tensors that are stored.
    pub fn moved_shapes(&self) -> Vec<&[usize]> {
        self.tensors.iter().filter(|tensor| !tensor.frozen).map(|tensor| tensor.shape.as_slice()).collect()
    }

    /// Bytes of all task vectors' stored tensors in f32: what shares are shares of.
    pub fn full_bytes(&self) -> u64 {
        self.moved_bytes(Dtype::F32).saturating_mul(self.n_tasks() as u64)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::TensorDigests;

    #[test]
    fn coded_and_other_tensors_add_up_to_all() {
        let origin = || Origin { name: "t".into(), source: "t".into(), fingerprint: Digest::of(b"") };
        let tensor = |shape: &[usize], frozen| GramTensor {
            name: String::new(),
            dtype: Dtype::F32,
            shape: shape.to_vec(),
            frozen,
        };
        let mut grams = Grams {
            base: origin(),
            tasks: vec![origin(), origin()],
            tensors: vec![tensor(&[16, 16], false), tensor(&[16], false), tensor(&[32, 32], true)],
            per: Per::Tensor,
            triangles: vec![4.0, 1.0, 5.0, 2.0, -1.0, 3.0, 0.0, 0.0, 0.0],
            digests: TensorDigests::new(3).finish(0),
            skipped: Vec::new(),
            carried: Vec::new(),
            left_out: LeftOut::default(),
            fit: Fit::default(),
        };
        let (coded, raw) = grams.parted();
        assert_eq!(coded, Matrix::from_rows(&[[4.0, 1.0], [1.0, 5.0]]).unwrap());
        assert_eq!(raw, Matrix::from_rows(&[[2.0, -1.0], [-1.0, 3.0]]).unwrap());
        assert_eq!(grams.moved_shapes(), [&[16, 16][..], &[16]]);
        assert_eq!(grams.full_bytes(), 2 * 4 * 272);
        (grams.per, grams.triangles) = (Per::Whole, vec![6.0, 0.0, 8.0]);
        assert_eq!(grams.parted(), (grams.total(), Matrix::zeros(2, 2)));
    }

    #[test]
    fn only_what_can_be_counted_is() {
        let cases: [(&[&[usize]], Option<u64>); 7] = [
            (&[], Some(0)),
            (&[&[]], Some(1)),
            (&[&[2, 3], &[4]], Some(10)),
            (&[&[0, 7]], Some(0)),
            (&[&[1 << 40, 1 << 40]], None),
            (&[&[1 << 49], &[1 << 49], &[1]], None),
            (&[&[usize::MAX], &[usize::MAX]], None),
        ];
        for (shapes, expected) in cases {
            assert_eq!(countable_rows(shapes.iter().copied()), expected, "{shapes:?}");
        }
    }
}
