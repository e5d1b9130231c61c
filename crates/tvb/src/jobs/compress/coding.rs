//! How atoms are coded, as the user says it.

use crate::arithmetic::{expression, find_task};
use crate::error::{Error, Result};
use crate::solve::{Coding, Coefficients, Rung};
use tvb_kernels::Rate;

/// How atoms are coded.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct CodingOptions {
    /// Bits of the atoms' own columns, and of the shared ones; without the latter nothing is kept.
    pub rung: Rung,
    /// The edits that are kept; `None` for the sum of all tasks.
    pub kept: Option<Vec<KeptEdit>>,
    /// Where the signs of the rotation come from.
    pub seed: u64,
}

/// An edit that is kept: all noise in it but that of its own shared column is taken out.
#[derive(Clone, Debug, PartialEq)]
pub struct KeptEdit {
    /// As it was written.
    pub text: String,
    /// \[n_tasks\]: weights over the tasks.
    pub alpha: Vec<f64>,
}

/// Codes as flags and job files say them; what is not said has its default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CodingWords {
    /// Bits of the atoms' own columns.
    pub bits: Option<Rate>,
    /// Bits of the column that keeps the sum; `Some(None)` keeps none.
    pub keep_sum: Option<Option<Rate>>,
    /// Expressions that are kept too, `EXPR` or `EXPR:BITS`.
    pub keep: Vec<String>,
}

/// The rate of that name.
///
/// # Errors
/// Usage: there is none; says which there are.
pub fn parse_rate(text: &str) -> Result<Rate> {
    Rate::from_name(text.trim()).ok_or_else(|| {
        let known: Vec<&str> = Rate::ALL.iter().map(|rate| rate.name()).collect();
        Error::usage(format!("bits: one of {} expected, {text:?} found", known.join(", ")))
    })
}

impl CodingWords {
    /// Whether anything was said.
    pub fn is_any(&self) -> bool {
        *self != CodingWords::default()
    }

    /// What was meant for tasks of these names: 2 bits and the sum kept at 3 where nothing was said. `weights` are those of
    /// tasks in the sum, 1 where none is given.
    ///
    /// # Errors
    /// Usage: expressions that name no task, unlike bits for what is kept.
    pub fn options(&self, names: &[String], weights: &[(String, f64)], seed: u64) -> Result<CodingOptions> {
        let default = CodingOptions::default();
        let mut kept = Vec::new();
        let mut bits = self.keep_sum.flatten();
        if self.keep_sum != Some(None) {
            kept.push(KeptEdit::sum(names, weights)?);
        }
        for text in &self.keep {
            let (edit, own) = match text.rsplit_once(':') {
                Some((edit, own)) => (edit, Some(parse_rate(own)?)),
                None => (text.as_str(), None),
            };
            if let (Some(bits), Some(own)) = (bits, own)
                && bits != own
            {
                return Err(Error::usage(format!(
                    "--keep: the same bits for all that is kept expected, {} and {} found",
                    bits.name(),
                    own.name()
                ))
                .hint("give the same bits to --keep-sum and every --keep"));
            }
            bits = bits.or(own);
            kept.push(KeptEdit::expression(names, edit)?);
        }
        let kept_rate = if kept.is_empty() { None } else { bits.or(default.rung.kept_rate) };
        let rate = self.bits.unwrap_or(default.rung.rate);
        Ok(default.bits(rate).keep_bits(kept_rate).keep(kept).seed(seed))
    }
}

impl Default for CodingOptions {
    fn default() -> CodingOptions {
        CodingOptions { rung: Rung::DEFAULT, kept: None, seed: 0 }
    }
}

impl CodingOptions {
    /// Sets the bits.
    #[must_use]
    pub fn rung(self, rung: Rung) -> CodingOptions {
        CodingOptions { rung, ..self }
    }

    /// Sets the bits of the atoms' own columns.
    #[must_use]
    pub fn bits(self, rate: Rate) -> CodingOptions {
        let rung = Rung { rate, ..self.rung };
        self.rung(rung)
    }

    /// Sets the bits of the shared columns; `None` keeps nothing.
    #[must_use]
    pub fn keep_bits(self, kept_rate: Option<Rate>) -> CodingOptions {
        let rung = Rung { kept_rate, ..self.rung };
        self.rung(rung)
    }

    /// Sets the edits that are kept.
    #[must_use]
    pub fn keep(self, kept: Vec<KeptEdit>) -> CodingOptions {
        CodingOptions { kept: Some(kept), ..self }
    }

    /// Sets where the signs come from.
    #[must_use]
    pub fn seed(self, seed: u64) -> CodingOptions {
        CodingOptions { seed, ..self }
    }

    /// Shared columns, at most.
    pub(super) fn n_kept_most(&self) -> usize {
        self.kept.as_ref().map_or(1, Vec::len)
    }

    /// The edits that are kept of `n_tasks` tasks.
    ///
    /// # Errors
    /// Usage: weights for another number of tasks, or more edits than tasks.
    pub fn kept_edits(&self, n_tasks: usize) -> Result<Vec<KeptEdit>> {
        if self.rung.kept_rate.is_none() {
            return Ok(Vec::new());
        }
        let sum = || vec![KeptEdit { text: "sum".to_owned(), alpha: vec![1.0; n_tasks] }];
        let edits = self.kept.clone().unwrap_or_else(sum);
        if let Some(edit) = edits.iter().find(|edit| edit.alpha.len() != n_tasks) {
            return Err(Error::usage(format!("{}: {n_tasks} weights expected, {} found", edit.text, edit.alpha.len())));
        }
        if edits.len() > n_tasks {
            return Err(Error::usage(format!("at most {n_tasks} kept edits expected, {} found", edits.len()))
                .hint("with as many shared columns as tasks, more --bits is simpler and smaller"));
        }
        Ok(edits)
    }

    /// How the atoms of these coefficients are coded, and the words for what is kept.
    pub(crate) fn coding(&self, coefficients: &Coefficients) -> Result<(Coding, Vec<String>)> {
        let edits = self.kept_edits(coefficients.n_tasks())?;
        let alphas: Vec<Vec<f64>> = edits.iter().map(|edit| edit.alpha.clone()).collect();
        let coding = self.rung.coding(coefficients, &alphas, self.seed);
        let texts = if coding.n_kept() > 0 { edits.into_iter().map(|edit| edit.text).collect() } else { Vec::new() };
        Ok((coding, texts))
    }
}

impl KeptEdit {
    /// The sum of all tasks with these weights, 1 where none is given.
    ///
    /// # Errors
    /// Usage: a name that no task has.
    pub fn sum(names: &[String], weights: &[(String, f64)]) -> Result<KeptEdit> {
        let mut alpha = vec![1.0; names.len()];
        for (name, weight) in weights {
            let task = find_task(names, name)?;
            if let Some(alpha) = alpha.get_mut(task) {
                *alpha = *weight;
            }
        }
        let text = if weights.is_empty() { "sum" } else { "weighted sum" };
        Ok(KeptEdit { text: text.to_owned(), alpha })
    }

    /// A linear expression in the tasks' names.
    ///
    /// # Errors
    /// Usage: an expression that is none, or names no task.
    pub fn expression(names: &[String], text: &str) -> Result<KeptEdit> {
        Ok(KeptEdit { text: text.to_owned(), alpha: expression(names, text)? })
    }
}
