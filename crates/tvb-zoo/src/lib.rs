//! A small family of trained models with their evaluator: what tvb's demo, tests and docs run on.
//!
//! One vision encoder of some fifty thousand parameters with frozen class embeddings, a base trained on a mixture, and
//! twenty tasks fine-tuned from it. Nothing of tvb is used here; tvb's tests use the checkpoints.
//!
//! In reading order: [`tasks`] (what is asked), [`data`] (the images), [`model`], [`checkpoint`], [`eval`],
//! [`survey`] (what task arithmetic does on all of it), [`controls`] (two published ways to store task vectors),
//! [`measure`] (what stored task vectors are still worth), [`sheet`] (a picture of the data), and `train`, which needs a
//! tensor library and is there only with the feature of that name.

pub mod error;
mod parallel;
pub mod random;
pub mod image;
pub mod tasks;
pub mod data;
pub mod model;
pub mod checkpoint;
pub mod eval;
pub mod survey;
pub mod controls;
pub mod measure;
pub mod serve;
pub mod sheet;
#[cfg(feature = "train")]
pub mod train;

pub use error::{Error, ErrorKind, Result};
