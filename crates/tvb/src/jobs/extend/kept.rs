//! The shared columns carried on: which directions over all tasks are kept from now on, and what of the old columns they go on from.

use crate::arithmetic::expression;
use crate::basis::Basis;
use crate::error::{Error, Result};
use crate::matrix::Matrix;
use crate::shown::{shown, shown_path};
use crate::solve::Coding;
use tvb_kernels::Rate;

/// What is kept of all tasks, the newcomers last.
pub(super) struct Kept {
    /// How they are coded: Q' [T + n_new, K'].
    pub(super) coding: Coding,
    /// R [K, K'].
    pub(super) carried: Matrix,
    /// The edits, as they were written.
    pub(super) texts: Vec<String>,
    /// What the user should know.
    pub(super) notes: Vec<String>,
}

impl Kept {
    /// For `n_new` newcomers of this weight in a sum that is kept; other edits that are kept do not have them.
    ///
    /// # Errors
    /// Rejected: an edit that is kept and cannot be told from what the basis says.
    pub(super) fn of(basis: &Basis, coding: &Coding, n_new: usize, weight: f64, rate: Option<Rate>) -> Result<Kept> {
        let names = basis.task_names();
        let (n_old, n_kept) = (names.len(), coding.n_kept());
        let texts = match basis.manifest.coded.as_ref() {
            Some(record) if n_kept > 0 => record.kept.clone(),
            _ => Vec::new(),
        };
        let mut notes = Vec::new();
        let mut edits = Vec::new();
        for text in &texts {
            let mut alpha = match text.as_str() {
                "sum" => vec![1.0; n_old],
                "weighted sum" => {
                    notes.push(format!(
                        "the kept weighted sum: the newcomers' weight is {weight} where the old ones' root mean square is 1"
                    ));
                    let scale = (n_old as f64).sqrt();
                    let first: Vec<f64> = (0..n_old).map(|t| coding.kept[(t, 0)]).collect();
                    let length = first.iter().map(|value| value * value).sum::<f64>().sqrt();
                    first.iter().map(|value| value * scale / length.max(f64::MIN_POSITIVE)).collect()
                }
                text => expression(&names, text).map_err(|_| lost(basis, text))?,
            };
            let is_sum = ["sum", "weighted sum"].contains(&text.as_str());
            alpha.extend(vec![if is_sum { weight } else { 0.0 }; n_new]);
            edits.push(alpha);
        }
        if n_kept == 0 {
            notes.push(
                "no sum is kept, as before: single tasks come back as well, their sum no better than they do".into(),
            );
        }
        let is_first = basis.manifest.history.is_empty();
        let kept_rate = match rate {
            Some(rate) => rate,
            None if n_kept > 0 && is_first => {
                let finer = finer(coding.kept_rate);
                notes.push(format!(
                    "what is kept is stored at {} bits from now on: it is coded once more each time that tasks join, and finely so that little adds up (--keep-sum sets the bits)",
                    finer.name()
                ));
                finer
            }
            None => coding.kept_rate,
        };
        let now = Coding::new(coding.rate, kept_rate, n_old + n_new, &edits, coding.seed);
        let carried = coding.carried_into(&now).ok_or_else(|| lost(basis, &texts.join(", ")))?;
        Ok(Kept { coding: now, carried, texts, notes })
    }

    /// The newcomers' rows of Q'.
    pub(super) fn of_newcomers(&self, n_new: usize) -> Matrix {
        let n_old = self.coding.kept.n_rows().saturating_sub(n_new);
        Matrix::from_fn(n_new, self.coding.n_kept(), |new, k| self.coding.kept[(n_old + new, k)])
    }
}

/// The rate that the shared columns of a basis go on at when it begins to grow: each time they are coded once more, and what that loses
/// adds up. About two bits more lose a tenth.
fn finer(rate: Rate) -> Rate {
    let enough = rate.distortion() / 10.0;
    let finest = Rate::ALL.into_iter().next_back().unwrap_or(rate);
    Rate::ALL.into_iter().find(|finer| finer.distortion() <= enough).unwrap_or(finest)
}

/// The coarsest rate that goes on at this one when its basis begins to grow; this one where none does.
pub(super) fn coarser(rate: Rate) -> Rate {
    Rate::ALL.into_iter().find(|coarse| finer(*coarse) == rate).unwrap_or(rate)
}

fn lost(basis: &Basis, text: &str) -> Error {
    Error::rejected(format!(
        "{}: the kept edit {}: what its weights are cannot be told any more",
        shown_path(&basis.folder),
        shown(text)
    ))
    .hint("make the basis again from the originals with `tvb compress`")
}
