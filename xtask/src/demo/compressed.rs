//! What the demo reads of `tvb compress --json`, which prints one object:
//!
//! ```text
//! tasks[]         gain       ⟨τt, τ̂t⟩ / ‖τt‖²
//!                 noise      ‖τ̂t − gain·τt‖² / ‖τt‖²
//! atoms[]         bytes      size of each atom's file
//! ```

use crate::process::Result;
use serde::Deserialize;

/// The parts of `tvb compress --json` that are shown.
#[derive(Debug, Deserialize)]
pub(super) struct Compressed {
    tasks: Vec<Task>,
    atoms: Vec<Atom>,
}

#[derive(Debug, Deserialize)]
struct Task {
    gain: f64,
    noise: f64,
}

#[derive(Debug, Deserialize)]
struct Atom {
    bytes: u64,
}

impl Compressed {
    /// From what the command printed.
    pub(super) fn parse(json: &str) -> Result<Self> {
        serde_json::from_str(json).map_err(|error| format!("tvb compress --json: {error}"))
    }

    /// Bytes of the atoms' files.
    pub(super) fn bytes(&self) -> u64 {
        self.atoms.iter().map(|atom| atom.bytes).sum()
    }

    /// Mean gain and mean noise of the tasks.
    pub(super) fn quality(&self) -> (f64, f64) {
        let mean = |value: fn(&Task) -> f64| self.tasks.iter().map(value).sum::<f64>() / self.tasks.len().max(1) as f64;
        (mean(|task| task.gain), mean(|task| task.noise))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_shown_is_ignored() {
        let text = r#"{
            "format": "tvb-basis",
            "tasks": [{"name": "a", "gain": 1.0, "noise": 0.25}, {"name": "b", "gain": 0.5, "noise": 0.75}],
            "atoms": [{"file": "atom-00.safetensors", "bytes": 1000}, {"file": "atom-01.safetensors", "bytes": 24}]
        }"#;
        let compressed = Compressed::parse(text).unwrap();
        assert_eq!((compressed.bytes(), compressed.quality()), (1024, (0.75, 0.5)));
        assert!(Compressed::parse("{}").is_err());
    }
}
