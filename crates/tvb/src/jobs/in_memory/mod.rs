//! Edits whose result stays in memory: formed into arrays that a program lends, or added to the model that it holds.

mod apply;
mod form;
mod model;

pub use apply::{Applied, apply_in_place};
pub use form::{Formed, edit_tensors, form};

/// What can be said of an edit in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct InMemoryOptions {
    /// Write the largest finite value of the type in place of one beyond it; otherwise that is an error.
    pub clip: bool,
}

impl InMemoryOptions {
    /// Sets whether values beyond the type are written as its largest finite one.
    #[must_use]
    pub fn clip(self, clip: bool) -> InMemoryOptions {
        InMemoryOptions { clip }
    }
}
