//! Tasks that are adapters: whether their factors take less than codes of all elements.

use super::of_adapter::{first_without_factors, parts_of};
use crate::basis::atoms::factors;
use crate::columns::plan::Plan;
use crate::error::Result;
use crate::units;

/// Bytes of the files of adapters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weighed {
    /// Where the factors are kept as they are.
    pub(super) factors: u64,
    /// Where all elements are coded, at most.
    pub(super) codes: u64,
}

impl Weighed {
    /// Which is done, and why.
    pub(super) fn in_words(self) -> String {
        let [factors, codes] = [self.factors, self.codes].map(units::bytes);
        match self.keeps_factors() {
            true => format!(
                "all tasks are adapters: their factors are kept as they are ({factors}); codes would take {codes}"
            ),
            false => format!(
                "all tasks are adapters, and their factors would take {factors}: all elements are coded ({codes})"
            ),
        }
    }

    pub(super) fn keeps_factors(self) -> bool {
        self.factors <= self.codes
    }
}

/// What either way takes where all tasks are adapters. `code_bytes` come from the options.
pub(super) fn weigh(plan: &Plan, code_bytes: impl FnOnce() -> Result<u64>) -> Result<Option<Weighed>> {
    if first_without_factors(plan).is_some() {
        return Ok(None);
    }
    let mut n_bytes = 0_u64;
    for column in 1..plan.n_columns() {
        n_bytes = n_bytes.saturating_add(factors::n_bytes(&parts_of(plan, &plan.tensors, column))?);
    }
    Ok(Some(Weighed { factors: n_bytes, codes: code_bytes()? }))
}
