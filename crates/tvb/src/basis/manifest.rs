//! `basis.json`: everything about a basis that is small, readable by people and other programs.

use super::head::{Head, Scalar};
pub use super::history::{Estimates, Event, Happened};
use super::records::list_of_one;
pub use super::records::*;
use super::seal;
use crate::checkpoint::Dtype;
use crate::columns::coded::is_coded;
use crate::columns::fit::Fit;
use crate::columns::left_out::{LeftOut, Skipped};
use crate::columns::tasks::check_names;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::ops::countable_rows;
use crate::solve::Method;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::path::Path;
use tvb_kernels::{MAX_TASKS, Rate};

/// The manifest's file name inside a basis folder.
pub const FILE_NAME: &str = crate::checkpoint::names::MANIFEST;
/// What [`Manifest::format`] must say.
pub const FORMAT: &str = "tvb-basis";
/// The newest version that this program writes and reads: of a basis that tasks have joined or left, whose errors an older program
/// would take for smaller than they are.
pub const VERSION: u32 = 4;
/// What a basis of factors is, or one with tied tensors or common rows, which an older program would write to the base as if they
/// were whole.
pub const FITTED_VERSION: u32 = 3;
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
    /// How it came to be what it is, oldest first; nothing in a basis that was made in one go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Event>,
    /// What is known of the entries of its Gram matrix that are estimates; `None` where all of it is exact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimates: Option<Estimates>,
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
        manifest.check_grown().map_err(rejected)?;
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

    /// Whether what a basis says of its growth is possible.
    fn check_grown(&self) -> std::result::Result<(), String> {
        if let Some(coded) = &self.coded {
            let (expected, found) = (coded.n_kept, coded.kept_errors.len());
            if found != 0 && found != expected {
                return Err(format!("errors of {expected} shared columns expected, of {found} found"));
            }
            if coded.kept_errors.iter().any(|error| !error.is_finite() || *error < 0.0) {
                return Err("errors of shared columns that are squared lengths expected".into());
            }
        }
        self.estimates.iter().try_for_each(|estimates| estimates.check(self.tasks.len()))
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
