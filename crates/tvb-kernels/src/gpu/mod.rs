//! The GPU engine: the kernels of `shaders/` on wgpu.

mod book;
mod code;
mod combine;
mod context;
mod decode;
mod eigh;
mod engine;
mod finished;
mod gram;
mod kept;
mod merge;
pub(crate) mod plan;
mod panels;
mod project;
mod reconstruct;
mod record;
mod refine;
mod resident;
mod self_test;
mod shader;
#[cfg(test)]
mod shader_tests;
mod single;
mod stream;
mod tables;
pub(crate) mod variant;

pub use context::{DeviceSetup, InjectedFault};
pub use eigh::RawEigh;
pub use engine::GpuEngine;
pub use finished::Finished;
pub use kept::KeptChunk;
pub use resident::{DeviceCopy, Resident};
pub use shader::{ShaderVariant, shader_variants};
pub use stream::GpuStream;
