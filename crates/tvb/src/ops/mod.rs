//! One file for each operation on a chunk, and what it yields.

pub mod code;
pub mod decode;
pub mod dtype_name;
pub mod edits;
mod exact_gram;
pub mod extend_gram;
mod factor_gram;
pub mod generate;
pub mod generated;
pub mod gram;
pub mod gram_part;
pub mod grams;
mod in_f32;
pub mod measure;
pub mod outputs;
pub mod products;
pub mod project;
pub mod project_part;
pub mod range;
pub mod reconstruct;
pub mod same_inputs;
pub mod survey;
pub mod merge;

pub(crate) use grams::unpack_triangle;
pub use grams::{GramTensor, Grams, N_ROWS_MAX, Origin, Per, countable_rows};
