//! The layout in which the method's reference code publishes its bases: read into a basis folder, written from one, and
//! checkpoints as PyTorch state dicts.
//!
//! | file | |
//! |---|---|
//! | `published.rs` | the small files of a published folder: tasks, B and W, what was odd about them |
//! | `import.rs` | a published folder → a basis |
//! | `export.rs` | a basis → a published folder; a checkpoint → a state dict |

mod export;
mod generated;
mod import;
mod published;

pub use export::{ExportOptions, Exported, export_basis, export_checkpoint};
pub use import::import;
