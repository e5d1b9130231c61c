//! The operations of task vector bases on raw checkpoint bytes, on any GPU through WGSL or on the CPU.
//!
//! In the order in which data meets them:
//!
//! | operation | does | shape |
//! |---|---|---|
//! | [`Gram`] | G = VᵀV of each segment of a chunk | \[d', T+1\] bytes → \[n_segments, T(T+1)/2\] lower triangles, f64 |
//! | `eigh` | G = UΛUᵀ, one matrix or a batch | \[T, T\] → λ \[T\], U \[T, T\] |
//! | [`Project`] | S = VB of one chunk | \[d', T+1\] bytes → \[M, d'\] rows |
//! | [`Reconstruct`] | θ0 + S·W of one chunk | \[d', C+1\] bytes → \[K, d'\] rows |
//! | [`Code`] | task vectors into a few bits an element | \[d', T+1\] bytes → words and scales of T+K columns |
//! | [`Decode`] | θ0 + Σ w·x̂ from codes | \[d', 1\] bytes and codes → \[K, d'\] rows |
//! | [`Merge`] | θ0 + what a merge rule makes of all tasks | \[d', T+1\] bytes → \[1, d'\] rows |
//!
//! T tasks, M atoms, C columns beside the base, K outputs, d' rows (elements) of a chunk; base θ0, fine-tune θt, task
//! vector (delta) τt = θt − θ0, V = \[τ1 … τT\]; Gram G, encode B \[T, M\], atoms S, decode W.
//!
//! The crate knows no paths, tensor names or commands: a [`Chunk`] is bytes and a layout, a [`Work`] is what to do with it,
//! and the type of the work says what comes out.
//!
//! ```
//! use tvb_kernels::{Chunk, ChunkLayout, CpuEngine, Dtype, Gram, Segment, Slice, Triangles};
//!
//! // Three rows of a base and of two fine-tunes, one after another.
//! let values = [[1.0f32, 2.0, 3.0], [1.5, 2.0, 3.0], [1.0, 3.0, 5.0]];
//! let bytes: Vec<u8> = values.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
//! let layout = ChunkLayout {
//!     n_columns: 3,
//!     segments: vec![Segment::new(3)],
//!     slices: (0..3).map(|column| Slice::new(column * 12, Dtype::F32)).collect(),
//!     codes: Vec::new(),
//!     factors: Vec::new(),
//!     n_bytes: bytes.len(),
//! };
//! let (engine, mut gram) = (CpuEngine::new(), Triangles::default());
//! engine.run(&Gram::ALL, Chunk { layout: &layout, bytes: &bytes }, &mut engine.scratch(), &mut gram)?;
//! assert_eq!(gram.values, [0.25, 0.0, 5.0]);
//! # Ok::<(), tvb_kernels::KernelError>(())
//! ```
//!
//! `cargo test -p tvb-kernels` runs this crate's tests. Those that need a GPU run on Mesa's software adapter where it is
//! installed (`TVB_REQUIRE_GPU=1` makes them fail where it is not) or on the one that `TVB_TEST_DEVICE` names. The WGSL
//! files are a crate of their own: `cargo test -p tvb-shaders`.

// Here the algebra indexes; chunks are checked against their layout before it does.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable))]

mod check;
mod chunk;
mod code;
mod cpu;
mod decode;
mod device;
mod eigh;
mod engine;
mod error;
mod gpu;
mod gram;
mod limits;
mod merge;
mod panel;
mod params;
mod project;
mod rate;
mod reconstruct;
mod signs;
mod triangles;
mod upload;
mod work;

pub use chunk::{Chunk, ChunkLayout, CodeSlice, Columns, Dtype, FactorSlice, Segment, Slice};
pub use code::{Code, Codes, Measured};
pub use cpu::{
    Bin, Bracket, CpuEngine, Factors, Found, MergeSums, Score, Scratch, convert, count_non_finite, decode,
    form_low_rank, largest_finite, locate_non_finite,
};
pub use decode::Decode;
pub use device::{AdapterFacts, AdapterKind, Backend, DeviceChoice, Twin, choose, list_adapters};
pub use eigh::Eigh;
pub use engine::{Adapters, Engine, Opened, open, open_as};
pub use error::KernelError;
pub use gpu::{
    DeviceCopy, DeviceSetup, Finished, GpuEngine, GpuStream, InjectedFault, KeptChunk, RawEigh, Resident,
    ShaderVariant, shader_variants,
};
pub use gram::Gram;
pub use limits::{MAX_TASKS, RUN_ROWS, SLICE_ALIGNMENT};
pub use merge::{Consensus, Edge, Keep, Merge, MergeTask, random_word};
pub use panel::{PANEL, n_blocks, scale_bits, scale_from_bits};
pub use project::Project;
pub use rate::{BLOCK, Rate};
pub use reconstruct::{Base, Reconstruct};
pub use signs::Place;
pub use triangles::{Triangles, triangle_len};
pub use upload::{StagingSlot, staged_layout};
pub use work::Work;
