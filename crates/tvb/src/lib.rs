//! Compress many fine-tuned checkpoints into a small task vector basis, and do task arithmetic from it.

pub mod checkpoint;
pub mod error;
pub mod progress;
pub mod tasks;
pub mod units;

pub use error::{Error, ErrorKind, Result};
