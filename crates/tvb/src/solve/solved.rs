//! A solution with the matrix it was found for and everything that is known of its errors.

use super::{Assessment, Coefficients, Gram};

/// Coefficients with the Gram matrix they were found for and everything known of them from it.
#[derive(Clone, Debug)]
pub struct Solved {
    /// G.
    pub gram: Gram,
    /// B and W.
    pub coefficients: Coefficients,
    /// Their exact errors.
    pub assessment: Assessment,
}
