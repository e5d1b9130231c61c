//! Where atoms come from and where they go: files, or a seed.

pub mod generated;
pub mod plain;

pub use generated::GeneratedAtoms;
pub use plain::AtomFiles;

use crate::columns::plan::Task;

/// The atoms of a basis, open.
#[derive(Clone, Debug)]
pub enum Atoms {
    /// State dicts of deltas, each under the stem of its file.
    Plain(Vec<Task>),
    /// Made again from a seed wherever they are needed.
    Generated(GeneratedAtoms),
}
