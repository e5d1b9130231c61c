//! What an adapter has of each tensor.

use crate::basis::atoms::factors::{Part, Parts};
use crate::checkpoint::Place;
use crate::columns::plan::{Plan, PlannedTensor};

/// The first column, from 1 on, that is no adapter.
pub(crate) fn first_without_factors(plan: &Plan) -> Option<usize> {
    let is_adapter = |column: usize| {
        let mut places = plan.tensors.iter().map(|planned| &plan.column_tensor(planned, column).place);
        places.any(|place| matches!(place, Place::LowRank(_)))
    };
    (1..plan.n_columns()).find(|&column| !is_adapter(column))
}

/// What one task has of each of these tensors.
pub(crate) fn parts_of<'a>(
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
