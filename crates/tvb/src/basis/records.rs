//! The records that `basis.json` consists of: what was given, what was found, which files hold it.

pub use super::adapter_records::{FactorTensor, FactorsRecord, FormRecord, ModuleRecord, SharedRecord};
use crate::checkpoint::Dtype;
use crate::digest::Digest;
use crate::ops::dtype_name;
use serde::{Deserialize, Serialize};

/// How B and W were found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MethodRecord {
    /// As `--method` spells it.
    pub name: String,
    /// Its options.
    pub options: serde_json::Value,
}

/// The base a basis belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseRecord {
    /// Where it was.
    pub source: String,
    /// Digest of its tensors that took part; unknown for imported bases, and where adapters did not need it.
    pub fingerprint: Option<Digest>,
}

/// One task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// Its name.
    pub name: String,
    /// Where its fine-tune was; unknown for imported bases.
    pub source: Option<String>,
    /// Digest of its tensors that took part.
    pub fingerprint: Option<Digest>,
    /// ‖τt‖.
    pub norm: Option<f64>,
    /// ‖τ̂t − τt‖²/‖τt‖², before storage rounding.
    pub relative_error: Option<f64>,
    /// ⟨τt, τ̂t⟩/‖τt‖²: 1 is right, less is shrunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gain: Option<f64>,
    /// ‖τ̂t − gain·τt‖²/‖τt‖².
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise: Option<f64>,
    /// The most that ‖τ̂t − τt‖/‖τt‖ can be, where tasks have joined or left since that was measured: the errors above are what is
    /// expected then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_bound: Option<f64>,
}

/// What is measured in f32 may be this much longer, as a part of it.
const ROUNDING: f64 = 1e-3;

impl TaskRecord {
    /// The most that ‖τ̂t − τt‖ can be; `None` where that is not known.
    pub fn error_length(&self) -> Option<f64> {
        let norm = self.norm.filter(|norm| *norm > 0.0)?;
        let measured = || Some((1.0 + ROUNDING) * self.relative_error?.max(0.0).sqrt());
        Some(norm * self.error_bound.or_else(measured)?)
    }
}

/// The tensors that the atoms have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredTensors {
    /// [`StoredTensors::NAME`]; ends the names of the matrices in the coefficients' file.
    pub name: String,
    /// Their names, in the base's file order.
    pub tensors: Vec<String>,
    /// How many atoms are stored.
    pub n_atoms: usize,
}

impl StoredTensors {
    /// The name this program gives.
    pub const NAME: &str = "model";
}

/// Version 1 has a list here, for bases with one B and W for each of several groups of tensors, which no program writes.
pub(super) mod list_of_one {
    use super::StoredTensors;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(in crate::basis) fn serialize<S: Serializer>(stored: &StoredTensors, serializer: S) -> Result<S::Ok, S::Error> {
        [stored].serialize(serializer)
    }

    pub(in crate::basis) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StoredTensors, D::Error> {
        let groups = Vec::<StoredTensors>::deserialize(deserializer)?;
        let n_groups = groups.len();
        let expected = || serde::de::Error::custom(format!("\"groups\": one group expected, {n_groups} found"));
        let [one] = <[StoredTensors; 1]>::try_from(groups).map_err(|_| expected())?;
        Ok(one)
    }
}

/// One atom: a state dict of deltas, in one file or in shards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AtomRecord {
    /// The file, or the index of the shards, inside the basis folder.
    pub file: String,
    /// The shards where there are any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shards: Vec<String>,
    /// Bytes of all its data files.
    pub bytes: u64,
    /// Digest over headers and tensor digests, in file order.
    pub checksum: Digest,
    /// How its elements are stored.
    #[serde(with = "dtype_name")]
    pub dtype: Dtype,
}

/// The generator that this program has.
pub const GENERATOR: &str = "chacha8-box-muller";

/// Atoms that are made from a seed; the matrix that makes them orthonormal is among the coefficients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GeneratedRecord {
    /// [`GENERATOR`].
    pub generator: String,
    /// Its seed.
    pub seed: u64,
    /// M.
    pub n_atoms: usize,
    /// Shapes of the stored tensors, in their order.
    pub shapes: Vec<Vec<usize>>,
}

/// How atoms are coded. The last `n_kept` of the listed atoms are the shared columns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CodedRecord {
    /// [`CODE`].
    pub code: String,
    /// Bits an element of the atoms' own columns, as `--bits` spells it.
    pub bits: String,
    /// The same of the shared columns.
    pub kept_bits: String,
    /// K: how many columns are shared.
    pub n_kept: usize,
    /// The edits that are kept, as the user wrote them.
    #[serde(default)]
    pub kept: Vec<String>,
    /// Where the signs of the rotation come from.
    pub seed: u64,
    /// The stored tensors, in their order.
    pub tensors: Vec<CodedTensor>,
    /// \[K\]: the squared length of what each shared column is off by, in a basis that tasks have joined or left; nothing where it is
    /// what its code loses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept_errors: Vec<f64>,
}

/// A stored tensor of a coded basis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodedTensor {
    /// Its shape.
    pub shape: Vec<usize>,
    /// What the signs of its codes depend on.
    pub number: u32,
    /// Whether it is coded, or stored in bf16.
    pub coded: bool,
}

/// The code that this program has.
pub const CODE: &str = "rotated-256";

/// A small file that belongs to the basis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Its name inside the folder.
    pub file: String,
    /// Digest of its bytes.
    pub checksum: Digest,
}

/// Cosine and norm ratio of the sum of all tasks.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fidelity {
    /// Cosine between the edit from the basis and the same edit from the originals.
    pub cosine: f64,
    /// Norm of the edit from the basis over the norm of the same edit from the originals; infinite where only the latter
    /// vanishes (tasks that cancel each other), for which JSON has `null`.
    #[serde(deserialize_with = "infinite_where_null")]
    pub norm_ratio: f64,
}

fn infinite_where_null<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<f64, D::Error> {
    Ok(<Option<f64>>::deserialize(deserializer)?.unwrap_or(f64::INFINITY))
}

/// Addition of all tasks with weight 1, by rule.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdditionRecord {
    /// V̂·1 against V·1.
    pub projected: Fidelity,
    /// S·1, the paper's unweighted sum of atoms, against V·1.
    pub sum: Fidelity,
}
