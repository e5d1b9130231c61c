//! What the user named, matched: tasks and their places, then a plan of which tensors take part, from headers alone.

pub mod tasks;
pub mod adapter;
pub mod open;
pub mod coded;
pub mod patterns;
pub mod rename;
pub mod selection;
pub mod names;
pub mod matching;
pub mod mismatches;
pub mod left_out;
pub mod fit;
pub mod tied;
mod common_rows;
pub mod plan;
