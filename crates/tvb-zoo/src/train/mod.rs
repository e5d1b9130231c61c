//! Training, which needs a tensor library (candle) for its gradients; with the feature `train` only.

mod graph;
mod steps;
mod untrained;

pub use graph::{Graph, Variables, pixels_tensor, variables};
pub use steps::{BASE, FINE_TUNE, OnStep, SEED, Schedule, fine_tune, train_base};
