//! The operations of task vector bases on raw checkpoint bytes, on any GPU through WGSL or on the CPU.
//!
//! In the order in which data meets them:
//!
//! | operation | does | shape |
//! |---|---|---|
//! | `gram` | G += VᵀV of one chunk of rows | \[d', T+1\] bytes → \[T, T\] lower triangle, f64 |
//! | `eigh` | G = UΛUᵀ, one matrix or a batch | \[T, T\] → λ \[T\], U \[T, T\] |
//! | `project` | S = VB of one chunk | \[d', T+1\] bytes → \[M, d'\] rows |
//! | `reconstruct` | θ0 + S·W of one chunk | \[d', C+1\] bytes → \[K, d'\] rows |
//!
//! T tasks, M atoms, C columns beside the base, K outputs, d' rows (elements) of a chunk; base θ0, fine-tune θt, task
//! vector (delta) τt = θt − θ0, V = \[τ1 … τT\]; Gram G, encode B \[T, M\], atoms S, decode W.
//!
//! The crate knows no paths, tensor names or commands: a [`Chunk`] is bytes and a layout, a [`Work`] is what to do with it.

mod check;
mod chunk;
mod cpu;
mod device;
mod eigh;
mod engine;
mod error;
mod gpu;
mod limits;
mod params;
mod self_test;
mod upload;
mod work;

pub use check::MAX_TASKS;
pub use chunk::{Chunk, ChunkLayout, Dtype, Segment, Slice};
pub use cpu::{CpuEngine, RUN_ROWS, Scratch, convert, decode, locate_non_finite};
pub use device::{AdapterFacts, AdapterKind, Backend, DeviceChoice, choose, list_adapters};
pub use eigh::Eigh;
pub use engine::{Engine, Opened, open, open_as};
pub use error::KernelError;
pub use gpu::{DeviceCopy, DeviceSetup, GpuEngine, GpuStream, InjectedFault, KeptChunk, Resident};
pub use upload::{StagingSlot, staged_layout};
pub use work::{Base, Columns, GramPart, Output, Project, Reconstruct, Work, triangle_len};
