//! Where atoms come from and where they go: files of floats or of codes, or a seed.

pub mod coded;
pub mod factors;
pub mod generated;
pub mod join_rows;
pub mod part_rows;
mod pending;
pub mod plain;
pub mod shared;
pub mod shared_rows;

pub use coded::{CodeFiles, ColumnRates};
pub use generated::GeneratedAtoms;
pub use plain::AtomFiles;

use crate::columns::plan::Task;
use crate::ops::decode::CodedAtoms;

/// The atoms of a basis, open.
#[derive(Clone, Debug)]
pub enum Atoms {
    /// State dicts of deltas, each under the stem of its file.
    Plain(Vec<Task>),
    /// Made again from a seed wherever they are needed.
    Generated(GeneratedAtoms),
    /// Codes, with the shared columns after the atoms' own.
    Coded(CodedAtoms),
}
