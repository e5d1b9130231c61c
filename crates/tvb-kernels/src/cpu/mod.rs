//! The CPU engine: the same operations as the GPU's, native, one chunk on the calling thread.
//!
//! A chunk is taken to lie in the core's cache already (the reader has just put it there), so each kernel goes over it in
//! blocks of a few hundred rows: decode and difference the block into the nearest cache, then do the arithmetic on
//! registers. The instruction set (AVX-512, AVX2, NEON or plain) is found at run time.

mod block;
mod code;
mod combine;
mod convert;
mod decode;
mod eigh;
mod engine;
mod finite;
mod floats;
mod float;
mod gram;
mod locate;
mod low_rank;
mod merge;
mod output;
mod panels;
mod project;
mod quantise;
mod reconstruct;
mod rotate;
mod rows;
mod survey;
pub(crate) mod scratch;

pub use convert::{convert, decode};
pub use engine::CpuEngine;
pub use finite::{count_non_finite, largest_finite};
pub use locate::locate_non_finite;
pub use low_rank::{Factors, form_low_rank};
pub use scratch::Scratch;
pub use survey::{Bin, Bracket, Found, MergeSums, Score};
