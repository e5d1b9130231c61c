//! What the demo reads of `tvb compress --json`, which prints one object:
//!
//! ```text
//! tasks[]         name, relative_error   ‖τt − τ̂t‖² / ‖τt‖², exact
//! atoms[]         bytes                  size of each atom's file
//! loss, spectral_bound                   both divided by T²; no basis of M atoms has less than the bound
//! addition.projected    cosine, norm_ratio: Σ τ̂t against Σ τt
//! device          what computed it
//! ```

use crate::process::Result;
use serde::Deserialize;

/// The parts of `tvb compress --json` that are shown.
#[derive(Debug, Deserialize)]
pub(super) struct Compressed {
    pub(super) tasks: Vec<Task>,
    pub(super) atoms: Vec<Atom>,
    pub(super) loss: f64,
    pub(super) spectral_bound: f64,
    pub(super) addition: Addition,
    pub(super) device: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Task {
    pub(super) name: String,
    pub(super) relative_error: f64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Atom {
    pub(super) bytes: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Addition {
    pub(super) projected: Fidelity,
}

#[derive(Debug, Deserialize)]
pub(super) struct Fidelity {
    pub(super) cosine: f64,
    pub(super) norm_ratio: f64,
}

impl Compressed {
    /// From what the command printed.
    pub(super) fn parse(json: &str) -> Result<Self> {
        serde_json::from_str(json).map_err(|error| format!("tvb compress --json: {error}"))
    }
}

/// What the binary prints, as far as the demo expects it; fields it does not show are ignored.
#[cfg(test)]
pub(super) const EXAMPLE: &str = r#"{
    "format": "tvb-basis",
    "tasks": [{"name": "a", "norm": 2.0, "relative_error": 0.25}, {"name": "long name", "relative_error": 0.5}],
    "atoms": [{"file": "atom-00.safetensors", "bytes": 1000}],
    "loss": 0.3, "spectral_bound": 0.2,
    "addition": {"projected": {"cosine": 1.0, "norm_ratio": 1.0}, "sum": {"cosine": 0.9, "norm_ratio": 1.1}},
    "device": "cpu"
}"#;
