//! One engine, two implementations of the same operations.

use crate::CpuEngine;

/// What the work runs on.
#[derive(Clone, Debug)]
pub enum Engine {
    /// Native code, one chunk on each worker thread.
    Cpu(CpuEngine),
}
