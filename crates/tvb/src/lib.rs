//! Compress many fine-tuned checkpoints into a small task vector basis, and do task arithmetic from it.

pub mod checkpoint;
pub mod error;
pub mod solve;

pub use error::{Error, ErrorKind, Result};
