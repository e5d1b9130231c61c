//! One file per operation on a chunk.

pub mod gram;
pub mod project;
pub mod reconstruct;
