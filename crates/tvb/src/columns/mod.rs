//! What the user named, matched: tasks and their places, then a plan of which tensors take part, from headers alone.

mod default_name;
pub mod tasks;
pub mod unfit;
pub mod adapter;
pub mod open;
pub mod coded;
pub mod patterns;
pub mod layers;
pub mod rename;
pub mod selection;
pub mod names;
pub mod left_out;
pub mod fit;
pub mod heads;
pub mod matching;
pub mod mismatches;
pub mod tied;
mod common_rows;
pub mod plan;
mod probe;
pub mod record;
