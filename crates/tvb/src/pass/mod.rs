//! The stream: chunks of all columns, read once, worked on, and folded in order.
//!
//! ```text
//! Plan ─▶ Grid: chunks of blocks ─▶ ChunkReader (files, or Reads: what an earlier pass has kept), digests
//!                                        │
//!                                        ▼
//!                          Operation (engine) or HostOperation ─▶ part ─▶ Line: in chunk order ─▶ fold, by Span
//! ```

mod auto;
mod block;
pub mod bookmark;
mod chunks;
mod delta;
mod gpu;
pub mod kept;
mod line;
mod memory;
mod on_host;
mod op;
pub mod part;
#[expect(clippy::module_inception, reason = "the stage and its one entry have one name")]
mod pass;
mod pieces;
mod reader;
mod reads;
mod run;
mod runtime;
mod spans;
mod staged;

pub use auto::Auto;
pub use block::Block;
pub use chunks::{ChunkSize, Grid};
pub use delta::{decode_deltas, decode_rows};
pub use memory::{check_memory, least_bytes};
pub use op::{DigestOnly, Done, Folded, HostOperation, Operation, ReadChunk};
pub use part::Part;
pub use pass::Pass;
pub use reader::ChunkReader;
pub use reads::Reads;
pub use runtime::{Runtime, device_error, usual_device_memory};
pub use spans::{SPAN_ROWS, Span, SpanSums, TensorSums, TotalSums, add_to};
