//! What a user asks for, from end to end.

pub mod bookmarks;
pub mod gram;
pub mod spectra;
pub mod tensor_spectra;
pub mod compress;
pub mod parts;
pub mod verify;
pub mod card;
pub mod edit;
pub mod apply;
pub mod in_memory;
pub mod recover;
pub mod merge;
mod values;
mod matrix_file;
pub mod method_options;
pub mod batch;
pub mod interop;
pub mod drop;
mod child_output;
pub mod evaluate;
pub mod extend;
pub mod report;
mod point_log;
mod trying;
pub mod sweep;
pub mod fit;
