//! Compress many fine-tuned checkpoints into a small task vector basis, and do task arithmetic from it.

pub mod error;
pub mod progress;
pub mod tasks;
pub mod units;
pub mod checkpoint;
pub mod digest;
pub mod kept;
pub mod plan;
pub mod chunks;
pub mod stream;
pub mod bookmark;
pub mod gram;
pub mod solve;
pub mod project;
pub mod basis;
pub mod random_atoms;
pub mod compress;
pub mod verify;
pub mod arithmetic;
pub mod reconstruct;
pub mod card;
pub mod edit;
pub mod recover;
pub mod batch;
pub mod interop;
pub mod evaluate;
pub mod report;
pub mod sweep;
pub mod bench;

pub use error::{Error, ErrorKind, Result};

/// This program and its version, as recorded in what it writes.
pub const TOOL: &str = concat!("tvb ", env!("CARGO_PKG_VERSION"));
