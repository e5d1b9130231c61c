//! The basis folder: a manifest, the coefficients, and one plain state dict of deltas for each atom.

mod adapter_records;
pub mod atoms;
mod base;
pub(crate) mod carry;
mod check_read;
pub mod coefficients;
pub mod describe;
mod edits;
pub mod gram_file;
pub(crate) mod grown;
mod head;
pub(crate) mod held;
pub mod history;
pub mod manifest;
mod matrix_file;
mod open;
pub mod part_file;
pub mod records;
pub(crate) mod regrown;
pub mod seal;

pub use check_read::check_read;
pub use edits::{OpenAtoms, edits};
pub use open::Basis;
