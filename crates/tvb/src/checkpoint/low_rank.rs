//! A tensor that is known by two small factors: Δ = s·L·R, as an adapter's s·B·A. Its rows are formed where they are read.

use super::Budget;
use super::budget::Charge;
use crate::error::{Error, Result};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use tvb_kernels::Factors;

/// Two factors in memory. Clones share them.
#[derive(Clone)]
pub struct LowRank {
    parts: Arc<Parts>,
    module: Option<Arc<Module>>,
}

/// The module whose weight two factors change, as an adapter knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// As PEFT calls it, in the whole model: `transformer.h.0.attn.c_attn`, without `base_model.model.` and `.weight`.
    pub name: String,
    /// What it does with its weight.
    pub form: Form,
}

/// What a module does with its weight, on which depends how an adapter's A and B lie in the left and the right factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// \[out, in\], as `torch.nn.Linear` keeps it: left = B, right = A.
    Linear,
    /// \[in, out\], as GPT-2's `Conv1D` keeps it (`fan_in_fan_out`): left = Aᵀ, right = Bᵀ.
    Transposed,
    /// \[entries, width\] of `torch.nn.Embedding`: left = Aᵀ, right = Bᵀ of `lora_embedding_A` and `lora_embedding_B`.
    Embedding,
    /// \[out, in, kernel…\]: left = B, right = A with its \[in, kernel…\] in one row.
    Convolution,
}

struct Parts {
    /// \[n, r\], row-major.
    left: Vec<f32>,
    /// \[r, m\], row-major.
    right: Vec<f32>,
    rank: usize,
    n_columns: usize,
    scale: f64,
    identity: OnceLock<u128>,
    _charge: Charge,
}

impl LowRank {
    /// `left` is \[n, rank\], `right` \[rank, m\], both row-major; the matrix is \[n, m\] = `scale`·`left`·`right`. What it takes
    /// is charged to `budget`; `path` is for messages.
    ///
    /// # Errors
    /// Rejected: lengths that do not fit together, a value that is not finite, too little memory.
    pub fn new(
        left: Vec<f32>,
        right: Vec<f32>,
        rank: usize,
        scale: f64,
        path: &Path,
        budget: &Budget,
    ) -> Result<LowRank> {
        let fits = rank > 0 && left.len().is_multiple_of(rank) && right.len().is_multiple_of(rank);
        if !fits {
            return Err(Error::rejected(format!(
                "{}: factors of rank {rank} expected, {} and {} numbers found",
                path.display(),
                left.len(),
                right.len()
            )));
        }
        if !(scale as f32).is_finite() || left.iter().chain(&right).any(|value| !value.is_finite()) {
            return Err(Error::rejected(format!("{}: a factor holds values that are not finite", path.display())));
        }
        let charge = budget.charge(path, "the factors of an adapter", 4 * (left.len() + right.len()) as u64)?.settled();
        let n_columns = right.len() / rank;
        let parts = Parts { left, right, rank, n_columns, scale, identity: OnceLock::new(), _charge: charge };
        Ok(LowRank { parts: Arc::new(parts), module: None })
    }

    /// Says whose weight the factors change.
    #[must_use]
    pub fn of_module(self, module: Module) -> LowRank {
        LowRank { module: Some(Arc::new(module)), ..self }
    }

    /// Whose weight the factors change, where that is known.
    pub fn module(&self) -> Option<&Module> {
        self.module.as_deref()
    }

    /// The first `n_rows` rows of the matrix.
    ///
    /// # Errors
    /// As [`new`](LowRank::new).
    pub fn first_rows(&self, n_rows: usize, path: &Path, budget: &Budget) -> Result<LowRank> {
        let Parts { left, right, rank, scale, .. } = &*self.parts;
        let left = left.get(..n_rows.saturating_mul(*rank)).unwrap_or(left);
        let cut = LowRank::new(left.to_vec(), right.clone(), *rank, *scale, path, budget)?;
        Ok(LowRank { module: self.module.clone(), ..cut })
    }

    /// \[n, r\], row-major.
    pub fn left(&self) -> &[f32] {
        &self.parts.left
    }

    /// \[r, m\], row-major.
    pub fn right(&self) -> &[f32] {
        &self.parts.right
    }

    /// r.
    pub fn rank(&self) -> usize {
        self.parts.rank
    }

    /// n, the rows of the matrix.
    pub fn n_rows(&self) -> usize {
        self.parts.left.len() / self.parts.rank
    }

    /// m, the columns of the matrix.
    pub fn n_columns(&self) -> usize {
        self.parts.n_columns
    }

    /// s.
    pub fn scale(&self) -> f64 {
        self.parts.scale
    }

    /// What tells its right factor from others, worked out by `of` once for all clones.
    pub(crate) fn identity(&self, of: impl FnOnce(&LowRank) -> u128) -> u128 {
        *self.parts.identity.get_or_init(|| of(self))
    }

    /// Forms elements of the matrix, row-major, from element `first` on.
    pub fn form(&self, first: usize, out: &mut [f32]) {
        let Parts { left, right, rank, n_columns, scale, .. } = &*self.parts;
        let factors = Factors { left, right, rank: *rank, n_columns: *n_columns, scale: *scale as f32 };
        tvb_kernels::form_low_rank(factors, first, out);
    }

    /// Its elements' bytes from `byte_offset` on, a multiple of 4.
    pub(super) fn read(&self, byte_offset: u64, out: &mut [u8]) {
        let first = (byte_offset / 4) as usize;
        match bytemuck::try_cast_slice_mut(out) {
            Ok(floats) if cfg!(target_endian = "little") => self.form(first, floats),
            _ => {
                let mut floats = vec![0.0f32; out.len().div_ceil(4)];
                self.form(first, &mut floats);
                for (out, value) in out.chunks_mut(4).zip(floats) {
                    out.copy_from_slice(value.to_le_bytes().get(..out.len()).unwrap_or_default());
                }
            }
        }
    }
}

impl PartialEq for LowRank {
    fn eq(&self, other: &LowRank) -> bool {
        let (own, other) = (&*self.parts, &*other.parts);
        own.rank == other.rank && own.scale == other.scale && own.left == other.left && own.right == other.right
    }
}

impl fmt::Debug for LowRank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LowRank([{}, {}] of rank {})", self.n_rows(), self.n_columns(), self.rank())
    }
}
