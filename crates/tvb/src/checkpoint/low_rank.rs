//! A tensor that is known by two small factors: Δ = s·L·R, as an adapter's s·B·A. Its rows are formed where they are read.

use super::Budget;
use super::budget::Charge;
use crate::error::{Error, Result};
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use tvb_kernels::Factors;

/// Two factors in memory, of which many matrices may share the right one. Clones share both.
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
    left: Left,
    right: Arc<Right>,
    rank: usize,
    n_rows: usize,
    scale: f64,
    _charge: Charge,
}

/// \[n, r\], row-major.
enum Left {
    Own(Vec<f32>),
    /// U·core, with U \[n, r\] and the core \[r, r\]: rows are formed where they are asked for.
    Product {
        sides: Sides,
        core: Vec<f32>,
    },
}

/// The right factor, which many matrices may share.
struct Right {
    /// \[r, m\], row-major.
    values: Vec<f32>,
    identity: OnceLock<u128>,
}

/// U \[n, p\] and V \[p, m\], which many matrices U·core·V share. Clones are the same ones.
#[derive(Clone)]
pub struct Sides {
    left: Arc<Vec<f32>>,
    right: Arc<Right>,
    rank: usize,
    _charge: Arc<Charge>,
}

impl Sides {
    /// `left` is \[n, rank\], `right` \[rank, m\], both row-major. What they take is charged to `budget`; `path` is for messages.
    ///
    /// # Errors
    /// Rejected: lengths that do not fit together, a value that is not finite, too little memory.
    pub fn new(left: Vec<f32>, right: Vec<f32>, rank: usize, path: &Path, budget: &Budget) -> Result<Sides> {
        check(&left, &right, rank, path)?;
        let n_bytes = 4 * (left.len() + right.len()) as u64;
        let charge = Arc::new(budget.charge(path, "the factors that adapters share", n_bytes)?.settled());
        let right = Arc::new(Right { values: right, identity: OnceLock::new() });
        Ok(Sides { left: Arc::new(left), right, rank, _charge: charge })
    }

    /// U, \[n, p\], row-major.
    pub fn left(&self) -> &[f32] {
        &self.left
    }

    /// V, \[p, m\], row-major.
    pub fn right(&self) -> &[f32] {
        &self.right.values
    }

    /// p.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Whether these are the very same.
    pub fn is(&self, other: &Sides) -> bool {
        Arc::ptr_eq(&self.left, &other.left) && Arc::ptr_eq(&self.right, &other.right)
    }
}

impl fmt::Debug for Sides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rank = self.rank;
        write!(f, "Sides([{}, {rank}], [{rank}, {}])", self.left.len() / rank, self.right.values.len() / rank)
    }
}

fn check(left: &[f32], right: &[f32], rank: usize, path: &Path) -> Result<()> {
    if rank == 0 || !left.len().is_multiple_of(rank) || !right.len().is_multiple_of(rank) {
        let (left, right) = (left.len(), right.len());
        let path = path.display();
        return Err(Error::rejected(format!(
            "{path}: factors of rank {rank} expected, {left} and {right} numbers found"
        )));
    }
    if left.iter().chain(right).any(|value| !value.is_finite()) {
        return Err(Error::rejected(format!("{}: a factor holds values that are not finite", path.display())));
    }
    Ok(())
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
        check(&left, &right, rank, path)?;
        if !(scale as f32).is_finite() {
            return Err(Error::rejected(format!("{}: a scale that is not finite", path.display())));
        }
        let charge = budget.charge(path, "the factors of an adapter", 4 * (left.len() + right.len()) as u64)?.settled();
        let right = Arc::new(Right { values: right, identity: OnceLock::new() });
        let n_rows = left.len() / rank;
        let parts = Parts { left: Left::Own(left), right, rank, n_rows, scale, _charge: charge };
        Ok(LowRank { parts: Arc::new(parts), module: None })
    }

    /// The matrix U·`core`·V with the core \[p, p\], row-major. Only the core is charged to `budget`.
    ///
    /// # Errors
    /// Rejected: a core of another size, values that are not finite or too large, too little memory.
    pub fn of_core(sides: &Sides, core: Vec<f32>, path: &Path, budget: &Budget) -> Result<LowRank> {
        let rank = sides.rank;
        if core.len() != rank * rank {
            let (path, found) = (path.display(), core.len());
            return Err(Error::rejected(format!("{path}: a core of {rank} by {rank} numbers expected, {found} found")));
        }
        // No row of U·core may leave f32.
        let largest = |values: &[f32]| values.iter().fold(0.0_f64, |most, value| most.max(f64::from(*value).abs()));
        let bound = largest(&core) * largest(&sides.left) * rank as f64;
        if core.iter().any(|value| !value.is_finite()) || bound > f64::from(f32::MAX) {
            return Err(Error::rejected(format!("{}: a core holds values that are not finite", path.display())));
        }
        let charge = budget.charge(path, "the core of an adapter", 4 * core.len() as u64)?.settled();
        let left = Left::Product { sides: sides.clone(), core };
        let (n_rows, right) = (sides.left.len() / rank, Arc::clone(&sides.right));
        let parts = Parts { left, right, rank, n_rows, scale: 1.0, _charge: charge };
        Ok(LowRank { parts: Arc::new(parts), module: None })
    }

    /// The sides that it shares with others and its core, where it has them.
    pub fn core(&self) -> Option<(&Sides, &[f32])> {
        match &self.parts.left {
            Left::Own(_) => None,
            Left::Product { sides, core } => Some((sides, core)),
        }
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
        let left = self.left(0..n_rows.min(self.n_rows())).into_owned();
        let cut = LowRank::new(left, self.right().to_vec(), self.rank(), self.scale(), path, budget)?;
        Ok(LowRank { module: self.module.clone(), ..cut })
    }

    /// Rows of the left factor \[n, r\], row-major: those of `rows` that there are.
    pub fn left(&self, rows: Range<usize>) -> Cow<'_, [f32]> {
        let rank = self.parts.rank;
        let of = |values: &[f32]| {
            let end = rows.end.saturating_mul(rank).min(values.len());
            rows.start.saturating_mul(rank).min(end)..end
        };
        match &self.parts.left {
            Left::Own(left) => Cow::Borrowed(left.get(of(left)).unwrap_or_default()),
            Left::Product { sides, core } => {
                let left = sides.left.get(of(&sides.left)).unwrap_or_default();
                let mut out = vec![0.0; left.len()];
                let factors = Factors { left, right: core, rank, n_columns: rank, scale: 1.0 };
                tvb_kernels::form_low_rank(factors, 0, &mut out);
                Cow::Owned(out)
            }
        }
    }

    /// \[r, m\], row-major.
    pub fn right(&self) -> &[f32] {
        &self.parts.right.values
    }

    /// r.
    pub fn rank(&self) -> usize {
        self.parts.rank
    }

    /// n, the rows of the matrix.
    pub fn n_rows(&self) -> usize {
        self.parts.n_rows
    }

    /// m, the columns of the matrix.
    pub fn n_columns(&self) -> usize {
        self.right().len() / self.parts.rank
    }

    /// s.
    pub fn scale(&self) -> f64 {
        self.parts.scale
    }

    /// What tells its right factor from others, worked out by `of` once for all that share it.
    pub(crate) fn identity(&self, of: impl FnOnce(&LowRank) -> u128) -> u128 {
        *self.parts.right.identity.get_or_init(|| of(self))
    }

    /// Forms elements of the matrix, row-major, from element `first` on.
    pub fn form(&self, first: usize, out: &mut [f32]) {
        let (rank, n_columns) = (self.rank(), self.n_columns().max(1));
        let first_row = first / n_columns;
        let left = self.left(first_row..first.saturating_add(out.len()).div_ceil(n_columns));
        let factors = Factors { left: &left, right: self.right(), rank, n_columns, scale: self.scale() as f32 };
        tvb_kernels::form_low_rank(factors, first - first_row * n_columns, out);
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
        let all = 0..usize::MAX;
        let is_same = (self.rank(), self.scale()) == (other.rank(), other.scale()) && self.right() == other.right();
        is_same && self.left(all.clone()) == other.left(all)
    }
}

impl fmt::Debug for LowRank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LowRank([{}, {}] of rank {})", self.n_rows(), self.n_columns(), self.rank())
    }
}
