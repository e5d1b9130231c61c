//! PyTorch files: state dicts and whole pickled modules, read without PyTorch and without running anything.
//!
//! Data flows from the container (`archive` in a `zip`, or `legacy` for what PyTorch before 1.6 wrote) through the `pickle` machine
//! to values; `views` finds the bytes of the tensors among them, `state_dict` their names. Tensor bytes stay where
//! they are and are read by position, as with every other format. `write` is the way back.

mod archive;
mod contents;
mod dtypes;
mod errors;
mod file;
mod legacy;
mod pickle;
mod state_dict;
mod value;
mod views;
mod walk;
mod write;
mod zip;

pub use file::TorchFile;
pub(super) use state_dict::{StateDict, state_dict};
pub use value::ValueRef;
pub(super) use views::check_total;
pub use write::{SaveStorage, SaveTensor, SaveValue, TorchWriter};

#[cfg(test)]
mod tests;
