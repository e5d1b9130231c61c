//! `basis.json`: everything about a basis that is small, readable by people and other programs.

pub use super::adapter_records::{FactorTensor, FactorsRecord, FormRecord, ModuleRecord, SharedRecord};
use super::head::{Head, Scalar};
use super::seal;
use crate::checkpoint::Dtype;
use crate::columns::coded::is_coded;
use crate::columns::fit::Fit;
use crate::columns::left_out::{LeftOut, Skipped};
use crate::columns::tasks::check_names;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::ops::{countable_rows, dtype_name};
use crate::solve::Method;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::path::Path;
use tvb_kernels::{MAX_TASKS, Rate};

/// The manifest's file name inside a basis folder.
pub const FILE_NAME: &str = crate::checkpoint::names::MANIFEST;
/// What [`Manifest::format`] must say.
pub const FORMAT: &str = "tvb-basis";
/// The newest version that this program writes and reads: of a basis of factors, or with tied tensors or common rows, which an
/// older program would write to the base as if they were whole.
pub const VERSION: u32 = 3;
/// What a basis of codes is that fits its base by names alone.
pub const CODED_VERSION: u32 = 2;
/// What a basis without codes is: programs of the first version read it.
pub const PLAIN_VERSION: u32 = 1;

/// The manifest of a basis folder.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// `tvb-basis`.
    pub format: String,
    /// Version of the format.
    pub version: u32,
    /// Digest of this file with these digits as zeros.
    pub checksum: Digest,
    /// The program that wrote it, for example `tvb 0.1.0`.
    pub tool: String,
    /// How B and W were found.
    pub method: MethodRecord,
    /// The base.
    pub base: BaseRecord,
    /// The tasks, in column order.
    pub tasks: Vec<TaskRecord>,
    /// The tensors that the atoms have. A list of one in the file, where it is called `groups`.
    #[serde(rename = "groups", with = "list_of_one")]
    pub stored: StoredTensors,
    /// The atoms, in column order of B; none where they are generated.
    pub atoms: Vec<AtomRecord>,
    /// How atoms that are not stored are made again; `None` where they are stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generated: Option<GeneratedRecord>,
    /// How the atoms are coded; `None` where they are stored as floats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coded: Option<CodedRecord>,
    /// The tensors of atoms that are adapters, of which the factors are stored; `None` for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factors: Option<FactorsRecord>,
    /// The coefficients' file.
    pub coefficients: FileRecord,
    /// Tensors no task moved: zero in every atom, not stored.
    pub frozen: Vec<String>,
    /// Float tensors that were left out, and why.
    pub skipped: Vec<Skipped>,
    /// Tensors that only the base supplies.
    pub carried: Vec<String>,
    /// How much of the base and of the tasks takes no part; nothing in an older basis, which did not count.
    #[serde(default)]
    pub left_out: LeftOut,
    /// How the tensors fit the base: tied ones, and those of which only the first rows take part.
    #[serde(default, skip_serializing_if = "Fit::is_plain")]
    pub fit: Fit,
    /// tr((I−C)ᵀG(I−C))/T²; unknown for imported bases.
    pub loss: Option<f64>,
    /// The least loss any B and W of this many atoms can have.
    pub spectral_bound: Option<f64>,
    /// loss·T²/tr G.
    pub relative_loss: Option<f64>,
    /// How faithful addition of all tasks is, for both rules.
    pub addition: Option<AdditionRecord>,
    /// Everything else known from the Gram matrix alone; see MATH "Errors".
    pub diagnostics: serde_json::Value,
    /// What the user should know of how it was made.
    pub notes: Vec<String>,
}

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
mod list_of_one {
    use super::StoredTensors;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(stored: &StoredTensors, serializer: S) -> Result<S::Ok, S::Error> {
        [stored].serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StoredTensors, D::Error> {
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

impl Manifest {
    /// The sealed bytes of `basis.json`.
    ///
    /// # Errors
    /// Failed: a value that JSON cannot hold.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let unsealed = Manifest { checksum: seal::UNSEALED, ..self.clone() };
        let mut bytes = serde_json::to_vec_pretty(&unsealed)
            .map_err(|error| Error::failed(format!("{FILE_NAME}: could not be written: {error}")))?;
        bytes.push(b'\n');
        seal::seal(&mut bytes);
        Ok(bytes)
    }

    /// Writes `basis.json` into a basis folder that is being made.
    ///
    /// # Errors
    /// Failed: the system cannot write.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(FILE_NAME);
        std::fs::write(&path, self.to_bytes()?).map_err(|error| Error::io("writing", &path, &error))
    }

    /// Parses and checks the bytes of `basis.json`; `path` is for messages.
    ///
    /// # Errors
    /// Rejected: not JSON, another format or version, a damaged file, or file names that leave the folder.
    pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Manifest> {
        let rejected = |what: String| Error::rejected(format!("{}: {what}", path.display()));
        // Nothing is built of a file before it is known to be whole, and one of ours.
        let head = Head::read(bytes).map_err(|error| rejected(format!("not a basis manifest: {error}")))?;
        if head.format != Some(Scalar::Text(FORMAT.into())) {
            return Err(rejected(format!("\"format\": {FORMAT:?} expected, {} found", shown(head.format.as_ref()))));
        }
        let is_known = (PLAIN_VERSION..=VERSION).any(|version| head.version == Some(Scalar::Number(version.into())));
        if !is_known {
            return Err(rejected(format!(
                "\"version\": {PLAIN_VERSION} to {VERSION} expected, {} found",
                shown(head.version.as_ref())
            ))
            .hint("use the tvb that wrote it, or a newer one"));
        }
        let checksum = match &head.checksum {
            Some(Scalar::Text(text)) => text.parse::<Digest>(),
            other => Err(format!("a digest expected, {} found", shown(other.as_ref()))),
        };
        let checksum = checksum.map_err(|error| rejected(format!("\"checksum\": {error}")))?;
        if !seal::is_intact(bytes, checksum) {
            return Err(rejected("its checksum does not match: the file was damaged or edited".into())
                .hint("make the basis again, or copy it again"));
        }
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(|error| rejected(error.to_string()))?;
        for name in manifest.file_names() {
            if !is_plain_file_name(name) {
                return Err(rejected(format!("file name {name:?}: a name inside the basis folder expected")));
            }
        }
        manifest.check_counts().map_err(rejected)?;
        manifest.check_coded().map_err(rejected)?;
        manifest.check_factors().map_err(rejected)?;
        manifest.check_fit().map_err(rejected)?;
        let method = &manifest.method.name;
        if Method::parse(method).is_err() {
            return Err(rejected(format!("\"method\": {method:?} is not known to this program"))
                .hint("use the tvb that wrote it, or a newer one"));
        }
        Ok(manifest)
    }

    /// Every file beside the manifest.
    pub(super) fn file_names(&self) -> impl Iterator<Item = &str> {
        let atoms = self.atoms.iter().flat_map(|atom| std::iter::once(&atom.file).chain(&atom.shards));
        let shared = self.shared().map(|shared| &shared.file);
        atoms.chain(std::iter::once(&self.coefficients.file)).chain(shared).map(String::as_str)
    }

    /// The spaces that atoms share, where they are adapters that do.
    pub fn shared(&self) -> Option<&SharedRecord> {
        self.factors.as_ref()?.shared.as_ref()
    }

    /// Bytes of all atoms' files and of what these share.
    pub fn stored_bytes(&self) -> u64 {
        let atoms = self.atoms.iter().map(|atom| atom.bytes);
        atoms.chain(self.shared().map(|shared| shared.bytes)).fold(0, u64::saturating_add)
    }

    /// Vectors that a recovery needs: stored atoms, or generated ones.
    pub fn n_vectors(&self) -> usize {
        self.generated.as_ref().map_or(self.n_stored_atoms(), |generated| generated.n_atoms)
    }

    /// Atoms on disk, the shared columns of coded ones not counted.
    pub fn n_stored_atoms(&self) -> usize {
        self.atoms.len().saturating_sub(self.coded.as_ref().map_or(0, |coded| coded.n_kept))
    }

    /// Whether tied tensors and common rows are about tensors that take part.
    fn check_fit(&self) -> std::result::Result<(), String> {
        let known: HashSet<&str> = self.stored.tensors.iter().chain(&self.frozen).map(String::as_str).collect();
        self.fit.check(&known)
    }

    /// Whether the codes' description is one that this program understands, and fits the rest.
    fn check_coded(&self) -> std::result::Result<(), String> {
        let Some(coded) = &self.coded else { return Ok(()) };
        if coded.code != CODE {
            return Err(format!("atoms coded as {CODE:?} expected, {:?} found", coded.code));
        }
        for bits in [&coded.bits, &coded.kept_bits] {
            if Rate::from_name(bits).is_none() {
                let known: Vec<&str> = Rate::ALL.iter().map(|rate| rate.name()).collect();
                return Err(format!("bits of a code: one of {} expected, {bits:?} found", known.join(", ")));
            }
        }
        if coded.n_kept >= self.atoms.len() || coded.n_kept > self.tasks.len() {
            return Err(format!(
                "shared columns: fewer than the {} atoms expected, {} found",
                self.atoms.len(),
                coded.n_kept
            ));
        }
        if coded.tensors.len() != self.stored.tensors.len() || self.generated.is_some() {
            let (expected, found) = (self.stored.tensors.len(), coded.tensors.len());
            return Err(format!("coded tensors: {expected} expected, {found} found"));
        }
        if countable_rows(coded.tensors.iter().map(|tensor| tensor.shape.as_slice())).is_none() {
            return Err("coded tensors of a size that can be counted expected".into());
        }
        match coded.tensors.iter().zip(&self.stored.tensors).find(|(tensor, _)| tensor.coded != is_coded(&tensor.shape))
        {
            Some((tensor, name)) => {
                let words = |coded: bool| if coded { "codes" } else { "bf16" };
                Err(format!(
                    "tensor {}: {} expected for shape {:?}, {} found",
                    crate::shown::shown(name),
                    words(is_coded(&tensor.shape)),
                    tensor.shape,
                    words(tensor.coded)
                ))
            }
            None => Ok(()),
        }
    }

    /// Whether the description of adapters fits the rest.
    fn check_factors(&self) -> std::result::Result<(), String> {
        let Some(factors) = &self.factors else { return Ok(()) };
        let (expected, found) = (self.stored.tensors.len(), factors.tensors.len());
        if expected != found || self.generated.is_some() || self.coded.is_some() {
            return Err(format!("factors of {expected} tensors and nothing else expected, of {found} found"));
        }
        if self.atoms.iter().any(|atom| !atom.shards.is_empty() || atom.dtype != Dtype::F32) {
            return Err("one file of f32 for each adapter expected".into());
        }
        factors.check_shared()?;
        let shapes = factors.tensors.iter().map(|tensor| tensor.shape.as_slice());
        countable_rows(shapes).map(drop).ok_or_else(|| "tensors of a size that can be counted expected".into())
    }

    fn check_counts(&self) -> std::result::Result<(), String> {
        if let Some(generated) = &self.generated {
            let n_tensors = self.stored.tensors.len();
            if generated.generator != GENERATOR {
                return Err(format!("atoms made by {GENERATOR:?} expected, by {:?} found", generated.generator));
            }
            if !self.atoms.is_empty()
                || generated.n_atoms == 0
                || generated.n_atoms > self.tasks.len()
                || generated.shapes.len() != n_tensors
            {
                return Err(format!(
                    "generated atoms: 1 to {} of {n_tensors} tensors and no stored ones expected",
                    self.tasks.len()
                ));
            }
        }
        let stored = &self.stored;
        if stored.n_atoms != self.atoms.len() {
            return Err(format!(
                "group {}: {} atoms expected (as many as are listed), {} found",
                stored.name,
                self.atoms.len(),
                stored.n_atoms
            ));
        }
        if !(1..=MAX_TASKS).contains(&self.tasks.len()) {
            return Err(format!("1 to {MAX_TASKS} tasks expected, {} found", self.tasks.len()));
        }
        // The mean of the tasks is one more where `pca` was imported.
        if self.n_stored_atoms() > MAX_TASKS + 1 {
            return Err(format!("at most {} atoms expected, {} found", MAX_TASKS + 1, self.n_stored_atoms()));
        }
        if self.n_vectors() == 0 {
            return Err("at least one atom expected".into());
        }
        let bytes = self.atoms.iter().try_fold(0_u64, |sum, atom| sum.checked_add(atom.bytes));
        if bytes.and_then(|bytes| bytes.checked_mul(self.tasks.len() as u64)).is_none() {
            return Err("atoms of a size that can be counted expected".into());
        }
        check_names(self.tasks.iter().map(|task| task.name.as_str()))
    }
}

fn shown(value: Option<&Scalar>) -> String {
    const CHARS_SHOWN: usize = 60;
    match value {
        None => "nothing".to_owned(),
        Some(Scalar::Text(text)) => {
            let end = if text.chars().count() > CHARS_SHOWN { "…" } else { "" };
            format!("\"{}\"{end}", text.chars().take(CHARS_SHOWN).flat_map(char::escape_debug).collect::<String>())
        }
        Some(Scalar::Number(number)) => number.to_string(),
        Some(Scalar::Other) => "another value".to_owned(),
    }
}

/// One path component that stays in its folder.
pub fn is_plain_file_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', '\0', ':'])
}
