//! Compress many fine-tuned checkpoints into a small task vector basis, and do task arithmetic from it.

pub mod error;
pub mod matrix;
pub mod units;
pub mod progress;
pub mod checkpoint;
pub mod digest;
pub mod columns;
pub mod pass;
pub mod solve;
pub mod ops;
pub mod arithmetic;
pub mod basis;
pub mod jobs;

pub use error::{Error, ErrorKind, Result};

/// This program and its version, as recorded in what it writes.
pub const TOOL: &str = concat!("tvb ", env!("CARGO_PKG_VERSION"));
