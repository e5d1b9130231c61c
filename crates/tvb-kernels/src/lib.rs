//! The operations of task vector bases on raw checkpoint bytes, on any GPU through WGSL or on the CPU.

mod chunk;
mod work;

pub use chunk::{Chunk, ChunkLayout, Dtype, Segment, Slice};
pub use work::{Base, Columns, GramPart, Output, Project, Reconstruct, Work, triangle_len};
