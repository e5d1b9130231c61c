//! code: chunks → codes of task vectors, mixtures of them, or one edit, written in order as they are formed.
//!
//! Task vectors are coded straight from the raw bytes, on the CPU in the pass that forms the Gram matrix: the inputs are
//! read once. Mixtures and edits are formed in f32 first. What comes out of a chunk is small, so it waits for its turn and is
//! written by one thread in long pieces; a tensor that turns out to be frozen is dropped again as it ends.

mod divided;
mod edit;
mod grow;
mod operations;
mod part;
mod run;
mod setup;
mod sink;

pub use divided::{CodedPart, DividedCodes, JoiningCodes};
pub use edit::{CodedEdit, EditParts};
pub use grow::{Growing, Grown, GrownSums, Write, grow};
pub use run::{Resumed, code, find_code_bookmark};
pub use setup::{Coded, CodedFrom, Measured, code_recipe};
pub use sink::{CodeSink, Piece};
