//! Opening a basis: its small files are read and checked at once, its atoms when they are needed.

use super::atoms::plain::stem;
use super::atoms::{Atoms, ColumnRates, GeneratedAtoms, coded, factors, shared};
use super::coefficients::{self, StoredCoefficients};
use super::manifest::{self, CodedTensor, FactorsRecord, Manifest};
use crate::checkpoint::{
    Budget, Charge, Checkpoint, Inputs, OpenOptions, Sides, json_cost, read_capped_within, resolve_inside,
};
use crate::columns::plan::Task;
use crate::columns::tasks::recorded;
use crate::error::{Error, Result};
use crate::matrix::Matrix;
use crate::ops::decode::{AtomTensor, CodedAtoms};
use crate::solve::{Coding, Coefficients, Generated, Parts};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use tvb_kernels::Rate;

/// A basis whose small files were read and checked; atoms are opened when they are needed.
#[derive(Clone, Debug)]
pub struct Basis {
    /// The folder.
    pub folder: PathBuf,
    /// `basis.json`.
    pub manifest: Manifest,
    /// `coefficients.safetensors`.
    pub coefficients: StoredCoefficients,
    /// The sides that atoms share, of each stored tensor, once they were needed.
    sides: Arc<OnceLock<Vec<Option<Sides>>>>,
    /// For its atoms.
    budget: Budget,
    /// What manifest and coefficients take of it.
    _charges: Arc<[Charge; 2]>,
}

/// A manifest larger than this is not one of ours: two matrices of numbers for the most tasks there can be.
const MAX_MANIFEST_BYTES: u64 = 128 << 20;

impl Basis {
    /// Whether `path` looks like a basis folder.
    pub fn is_at(path: &Path) -> bool {
        path.join(manifest::FILE_NAME).is_file()
    }

    /// Reads and checks the manifest and the coefficients.
    ///
    /// # Errors
    /// Rejected: not a basis, damaged, or of another version. Failed: I/O.
    pub fn open(folder: &Path) -> Result<Basis> {
        Basis::open_within(folder, &Budget::default())
    }

    /// [`open`](Basis::open); what it and its atoms keep in memory is charged to `budget`.
    ///
    /// # Errors
    /// As [`open`](Basis::open). Rejected: too little memory. Interrupted.
    pub fn open_within(folder: &Path, budget: &Budget) -> Result<Basis> {
        let path = folder.join(manifest::FILE_NAME);
        if !path.exists() && folder.exists() {
            return Err(Error::rejected(format!(
                "{}: a basis folder expected, no {} found",
                folder.display(),
                manifest::FILE_NAME
            ))
            .hint("make one with `tvb compress`, or `tvb import` a published one"));
        }
        if !folder.exists() {
            let shown = folder.display();
            let missing = Error::rejected(format!("{shown}: a basis folder expected, nothing found"));
            let mut old = folder.as_os_str().to_owned();
            old.push(".partial.old");
            return Err(match Path::new(&old).exists() {
                true => missing.hint(format!(
                    "{shown}.partial.old is what a run that was killed had just put aside: rename it to {shown}"
                )),
                false => missing.hint("check the path"),
            });
        }
        // A basis may come from others: not even its manifest may be a link out of its folder.
        let path = resolve_inside(folder, manifest::FILE_NAME)?;
        let (bytes, mut text_charge) = read_capped_within(&path, "a manifest", MAX_MANIFEST_BYTES, budget)?;
        text_charge.take(json_cost(&bytes))?;
        let manifest = Manifest::from_bytes(&bytes, &path)?;
        drop(text_charge);
        let manifest_charge = budget.charge(&path, "a manifest", json_cost(&bytes) / 2 + bytes.len() as u64)?;
        drop(bytes);
        let (coefficients, coefficients_charge) = coefficients::read(folder, &manifest, budget)?;
        let _charges = Arc::new([manifest_charge, coefficients_charge.settled()]);
        Ok(Basis {
            folder: folder.to_owned(),
            manifest,
            coefficients,
            sides: Arc::default(),
            budget: budget.clone(),
            _charges,
        })
    }

    /// What an output must leave alone: every file of the basis, and the checkpoints it was made from, as far as they are where
    /// it says: nobody wants to lose an original to something that was made of it.
    pub fn inputs(&self) -> Inputs {
        let names = std::iter::once(manifest::FILE_NAME).chain(self.manifest.file_names());
        let own =
            names.fold(Inputs::none().and_folder(&self.folder), |inputs, name| inputs.and(&self.folder.join(name)));
        let tasks = self.manifest.tasks.iter().filter_map(|task| task.source.as_deref());
        let sources = std::iter::once(self.manifest.base.source.as_str()).chain(tasks).map(recorded);
        sources.fold(own, |inputs, (path, _)| if path.is_dir() { inputs.and_all_of(&path) } else { inputs.and(&path) })
    }

    /// The tasks' names, in column order.
    pub fn task_names(&self) -> Vec<String> {
        self.manifest.tasks.iter().map(|task| task.name.clone()).collect()
    }

    /// Whether each atom is the code of one task, as `compress` makes them: what tasks can join and leave one by one.
    ///
    /// # Errors
    /// Rejected: a basis that says so and is another.
    pub(crate) fn check_coded_tasks(&self) -> Result<()> {
        let n_tasks = self.n_tasks();
        let StoredCoefficients { encode, decode, .. } = &self.coefficients;
        let single = Matrix::identity(n_tasks);
        if self.manifest.coded.is_some() && self.n_atoms() == n_tasks && *encode == single && *decode == single {
            return Ok(());
        }
        Err(Error::rejected(format!(
            "{}: a coded atom for each of the {n_tasks} tasks expected, another basis found",
            self.folder.display()
        ))
        .hint("make the basis again from the originals with `tvb compress`"))
    }

    /// What its atoms are charged to.
    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// M, the stored atoms; shared columns are not among them.
    pub fn n_atoms(&self) -> usize {
        self.manifest.n_stored_atoms()
    }

    /// How its atoms are coded; `None` where they are stored as floats.
    pub fn coding(&self) -> Option<Coding> {
        let record = self.manifest.coded.as_ref()?;
        let kept = match record.n_kept {
            0 => Matrix::zeros(self.n_atoms(), 0),
            _ => self.coefficients.kept.clone(),
        };
        let [rate, kept_rate] = [&record.bits, &record.kept_bits].map(|bits| Rate::from_name(bits));
        let kept_errors = record.kept_errors.clone();
        Some(Coding { rate: rate?, kept_rate: kept_rate?, kept, seed: record.seed, kept_errors })
    }

    /// T.
    pub fn n_tasks(&self) -> usize {
        self.manifest.tasks.len()
    }

    /// B and W as the solver made them.
    ///
    /// # Errors
    /// Rejected: coefficients that do not fit together.
    pub fn solved(&self) -> Result<Coefficients> {
        let StoredCoefficients { encode, decode, mix, .. } = &self.coefficients;
        let solved = Coefficients::from_parts(&self.manifest.method.name, encode.clone(), decode.clone())
            .map_err(|error| error.context(self.folder.display()))?;
        let generated = self.manifest.generated.as_ref();
        Ok(Coefficients {
            generated: generated.map(|record| Generated { seed: record.seed, mix: mix.clone() }),
            ..solved
        })
    }

    /// What it is, in a line: `8 tasks, coded at 2 bits, sum kept at 3 bits`.
    pub fn in_words(&self) -> String {
        let manifest = &self.manifest;
        let n_tasks = self.n_tasks();
        let plural = if n_tasks == 1 { "" } else { "s" };
        if manifest.factors.is_some() {
            return match manifest.shared() {
                Some(shared) => format!("{n_tasks} adapter{plural} in shared spaces of rank {}", shared.rank),
                None => format!("{n_tasks} adapter{plural}, their factors as they are"),
            };
        }
        let Some(coded) = &manifest.coded else {
            return format!("{n_tasks} task{plural} in {} atoms ({})", manifest.n_vectors(), manifest.method.name);
        };
        let kept = match coded.n_kept {
            0 => String::new(),
            _ => format!(", {} kept at {} bits", coded.kept.join(" and "), coded.kept_bits),
        };
        match manifest.method.name.as_str() {
            "identity" => format!("{n_tasks} task{plural}, coded at {} bits{kept}", coded.bits),
            method => format!(
                "{n_tasks} task{plural} in {} atoms ({method}), coded at {} bits{kept}",
                manifest.n_vectors(),
                coded.bits
            ),
        }
    }

    /// Bytes of all task vectors' stored tensors in f32; `None` where the atoms' headers cannot be read.
    pub fn full_bytes(&self) -> Option<u64> {
        let n_elements = |shape: &Vec<usize>| shape.iter().product::<usize>() as u64;
        let n_rows: u64 = match (&self.manifest.coded, &self.manifest.factors) {
            (Some(coded), _) => coded.tensors.iter().map(|tensor| n_elements(&tensor.shape)).sum(),
            (None, Some(factors)) => factors.tensors.iter().map(|tensor| n_elements(&tensor.shape)).sum(),
            (None, None) => self.open_atom(0).ok()?.tensors().iter().map(|tensor| tensor.n_elements() as u64).sum(),
        };
        n_rows.checked_mul(4)?.checked_mul(self.n_tasks() as u64)
    }

    /// Names of the tensors that the atoms have, in order.
    pub fn stored_tensors(&self) -> &[String] {
        &self.manifest.stored.tensors
    }

    /// The atoms: opened and checked, or ready to be made.
    ///
    /// # Errors
    /// As [`open_atom`](Basis::open_atom).
    pub fn atoms(&self) -> Result<Atoms> {
        if let Some(generated) = GeneratedAtoms::of(&self.manifest, &self.coefficients.mix)? {
            return Ok(Atoms::Generated(generated));
        }
        let n_files = self.manifest.atoms.len();
        if self.manifest.coded.is_some() {
            return self.coded_atoms(0..n_files).map(Atoms::Coded);
        }
        let open = |index| Ok(Task { name: stem(index, n_files), checkpoint: self.open_atom(index)? });
        Ok(Atoms::Plain((0..n_files).map(open).collect::<Result<_>>()?))
    }

    /// Some of the columns of coded atoms, open: the atoms' own come before the shared ones.
    ///
    /// # Errors
    /// As [`open_atom`](Basis::open_atom). Rejected: a basis whose atoms are not coded.
    pub fn coded_atoms(&self, which: Range<usize>) -> Result<CodedAtoms> {
        let (Some(record), Some(coding)) = (&self.manifest.coded, self.coding()) else {
            return Err(Error::rejected(format!("{}: coded atoms expected, others found", self.folder.display())));
        };
        let n_files = self.manifest.atoms.len();
        let (rate, kept_rate) = (coding.rate, coding.kept_rate);
        let rates = ColumnRates { rate, n_own: self.n_atoms(), kept_rate, n_kept: record.n_kept };
        let open = |index| Ok(Task { name: stem(index, n_files), checkpoint: self.open_atom(index)? });
        Ok(CodedAtoms {
            folder: self.folder.clone(),
            columns: which.clone().map(open).collect::<Result<_>>()?,
            n_own: which.clone().filter(|&column| column < self.n_atoms()).count(),
            rates: which.map(|column| rates.rate_of(column)).collect(),
            seed: record.seed,
            tensors: self.coded_tensors(),
        })
    }

    /// The tensors of coded atoms, in order; none where they are not coded.
    pub(super) fn coded_tensors(&self) -> Vec<AtomTensor> {
        let tensors = self.manifest.coded.as_ref().map_or(&[][..], |record| &record.tensors);
        let tensor = |(name, tensor): (&String, &CodedTensor)| AtomTensor {
            name: name.clone(),
            shape: tensor.shape.clone(),
            number: tensor.number,
            coded: tensor.coded,
        };
        self.stored_tensors().iter().zip(tensors).map(tensor).collect()
    }

    /// The Gram matrix of all tensors together, where it is known.
    pub fn total_gram(&self) -> Option<Matrix> {
        let (first, rest) = self.coefficients.grams.split_first()?;
        let entry = |i, j| rest.iter().fold(first[(i, j)], |sum, gram| sum + gram[(i, j)]);
        Some(Matrix::from_fn(first.n_rows(), first.n_columns(), entry))
    }

    /// The Gram matrix of each stored tensor, in their order; `None` where they are not known one by one.
    pub fn tensor_grams(&self) -> Option<Vec<&Matrix>> {
        let grams = &self.coefficients.grams;
        let n_stored = self.stored_tensors().len();
        if let Some(record) = &self.manifest.coded {
            // A single one is that of everything, unless there is no other tensor.
            let is_each = grams.len() > 1 || n_stored + self.manifest.frozen.len() == 1;
            let each = record.tensors.iter().map(|tensor| grams.get(tensor.number as usize));
            return each.collect::<Option<Vec<_>>>().filter(|found| is_each && found.len() == n_stored);
        }
        // Tensors that no task moves have a Gram of zeros and are not among those stored.
        let is_moved = |gram: &&Matrix| (0..gram.n_rows()).any(|t| gram[(t, t)] > 0.0);
        let moved: Vec<&Matrix> = grams.iter().filter(is_moved).collect();
        (moved.len() == n_stored).then_some(moved)
    }

    /// The Gram matrix by what a code does with a tensor; `None` where it is not known, or the atoms are not coded. Where one
    /// matrix for everything is all there is, all counts as coded.
    pub fn parts(&self) -> Option<Parts> {
        let record = self.manifest.coded.as_ref()?;
        let grams = &self.coefficients.grams;
        let total = self.total_gram()?;
        if grams.len() < 2 {
            let raw = Matrix::zeros(total.n_rows(), total.n_columns());
            return Some(Parts { coded: total, raw });
        }
        let raw: Vec<&Matrix> = record
            .tensors
            .iter()
            .filter(|tensor| !tensor.coded)
            .filter_map(|tensor| grams.get(tensor.number as usize))
            .collect();
        let sum = |i, j| raw.iter().map(|gram| gram[(i, j)]).sum::<f64>();
        let raw = Matrix::from_fn(total.n_rows(), total.n_columns(), sum);
        let coded = Matrix::from_fn(total.n_rows(), total.n_columns(), |i, j| total[(i, j)] - raw[(i, j)]);
        Some(Parts { coded, raw })
    }

    /// The sides that atoms share, one for each stored tensor: read and checked once.
    ///
    /// # Errors
    /// Rejected: missing, damaged, or not the tensors the manifest lists; too little memory. Failed: I/O.
    pub(crate) fn sides(&self) -> Result<&[Option<Sides>]> {
        if let Some(sides) = self.sides.get() {
            return Ok(sides);
        }
        let sides = match &self.manifest.factors {
            Some(FactorsRecord { tensors, shared: Some(record) }) => {
                shared::read(&self.folder, record, self.stored_tensors(), tensors, &self.budget)?
            }
            _ => Vec::new(),
        };
        Ok(self.sides.get_or_init(|| sides))
    }

    /// Opens one atom's header and checks it against the manifest.
    ///
    /// # Errors
    /// Rejected: missing, malformed, or not the tensors the manifest lists.
    pub fn open_atom(&self, index: usize) -> Result<Checkpoint> {
        let record = self.manifest.atoms.get(index).ok_or_else(|| {
            Error::rejected(format!("{}: atom {index} expected, {} found", self.folder.display(), self.n_atoms()))
        })?;
        // A basis may come from others: no link in it may lead out of its folder.
        let options = OpenOptions { budget: self.budget.clone(), ..OpenOptions::default() };
        let atom = Checkpoint::open_with(&resolve_inside(&self.folder, &record.file)?, &options)?;
        let rejected = |what: String| {
            Error::rejected(format!("{}: {what}", atom.path().display())).hint("make the basis again, or copy it again")
        };
        if let Some(record) = &self.manifest.coded {
            let is_own = index < self.n_atoms();
            let bits = if is_own { &record.bits } else { &record.kept_bits };
            let rate =
                Rate::from_name(bits).ok_or_else(|| rejected(format!("bits of a code expected, {bits:?} found")))?;
            return coded::parts(&atom, &self.coded_tensors(), rate, is_own);
        }
        if let Some(record) = &self.manifest.factors {
            let sides = match &record.shared {
                Some(shared) => Some((self.sides()?, shared.dtype)),
                None => None,
            };
            return factors::parts(&atom, self.stored_tensors(), &record.tensors, sides, &self.budget);
        }
        let expected = self.stored_tensors().len();
        if atom.tensors().len() != expected {
            return Err(rejected(format!("{expected} tensors expected, {} found", atom.tensors().len())));
        }
        for name in self.stored_tensors() {
            match atom.get(name) {
                None => return Err(rejected(format!("tensor {name} expected, none found"))),
                Some(tensor) if tensor.dtype != record.dtype => {
                    return Err(rejected(format!("tensor {name}: {} expected, {} found", record.dtype, tensor.dtype)));
                }
                Some(_) => {}
            }
        }
        Ok(atom)
    }
}
