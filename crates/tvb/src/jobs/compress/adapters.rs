//! Tasks that are adapters: what each has of every tensor, and whether their factors take less than codes of all elements.

use crate::basis::atoms::factors::{self, Part, Parts};
use crate::checkpoint::Place;
use crate::columns::plan::{Plan, PlannedTensor};
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

/// The first column, from 1 on, that is no adapter.
pub(super) fn first_without_factors(plan: &Plan) -> Option<usize> {
    let is_adapter = |column: usize| {
        let mut places = plan.tensors.iter().map(|planned| &plan.column_tensor(planned, column).place);
        places.any(|place| matches!(place, Place::LowRank(_)))
    };
    (1..plan.n_columns()).find(|&column| !is_adapter(column))
}

/// What one task has of each of these tensors.
pub(super) fn parts_of<'a>(
    plan: &'a Plan,
    tensors: impl IntoIterator<Item = &'a PlannedTensor>,
    column: usize,
) -> Parts<'a> {
    let part = |planned: &'a PlannedTensor| {
        let part = match &plan.column_tensor(planned, column).place {
            Place::LowRank(factors) => Part::Factors(factors),
            Place::Unmoved => Part::Nothing,
            _ => Part::Dense,
        };
        (planned.name.as_str(), planned.shape.as_slice(), part)
    };
    tensors.into_iter().map(part).collect()
}
