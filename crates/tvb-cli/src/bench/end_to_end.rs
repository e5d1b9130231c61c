//! From files to files: made-up checkpoints on disk are compressed by the very call that `tvb compress` makes.

mod coded;

use super::check::{self, Sum};
use super::threads::for_each;
use super::timing::{Budget, Timed, measure};
use super::values::Values;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use tvb::basis::Basis;
use tvb::checkpoint::{Checkpoint, Dtype, Existing, SafetensorsLayout, SafetensorsWriter, TensorSpec, free_bytes};
use tvb::columns::plan::{Plan, Selection, Task};
use tvb::digest::Digest;
use tvb::error::{Error, Result};
use tvb::jobs::compress::{CompressOptions, compress};
use tvb::pass::Runtime;
use tvb::progress::Progress;
use tvb::units;
use tvb_kernels::triangle_len;

/// Shapes of the model's tensors, over and over: a weight and a bias of odd length.
const SHAPES: [&[usize]; 2] = [&[512, 512], &[777]];

/// Elements of the smallest matrix.
const LEAST_MATRIX: usize = 512;

/// Rows written at a time.
const BLOCK_ROWS: usize = 1 << 18;

/// Files of a base and its fine-tunes in a temporary folder, which goes when this is dropped.
#[derive(Debug)]
pub(super) struct Files {
    folder: tempfile::TempDir,
    values: Values,
    n_tasks: usize,
    tensors: Vec<TensorSpec>,
}

/// What is timed, checked and hashed.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Whether everything that came out is right.
    pub(super) verdict: std::result::Result<(), check::Wrong>,
    /// Bytes of what a run reads and writes, each once for each of its jobs.
    pub(super) n_bytes: u64,
    /// Of what came out, from two runs.
    pub(super) hashes: [Digest; 2],
    /// How long one run takes; the files are in the page cache.
    pub(super) timed: Timed,
}

impl Files {
    /// Writes a base and `n_tasks` fine-tunes of about `n_bytes` together.
    ///
    /// # Errors
    /// Failed: no room, or the system cannot write.
    pub(super) fn write(values: Values, n_tasks: usize, n_bytes: u64, n_threads: usize) -> Result<Files> {
        let dtype = Dtype::from(values.dtype);
        let d = (usize::try_from(n_bytes).unwrap_or(usize::MAX) / ((n_tasks + 1) * dtype.size())).max(1);
        let temporary = std::env::temp_dir();
        let failed = |error: std::io::Error| Error::io("making a folder", &temporary, &error);
        let folder = tempfile::Builder::new().prefix("tvb-bench-").tempdir_in(&temporary).map_err(failed)?;
        // The inputs, and half as much again for the atoms.
        if let Some(free) = free_bytes(folder.path()).filter(|free| *free < n_bytes * 2) {
            return Err(Error::failed(format!(
                "{}: {} needed for the files of the measurement, {} free",
                tvb::shown::shown_path(&temporary),
                units::bytes(n_bytes * 2),
                units::bytes(free)
            ))
            .hint("--size measures with less; TMPDIR names another folder"));
        }
        let mut tensors = Vec::new();
        let mut left = d;
        while left > 0 {
            let shape = SHAPES[tensors.len() % SHAPES.len()];
            let n_rows = shape.iter().product::<usize>();
            let shape = match left {
                _ if n_rows <= left => shape.to_vec(),
                // What is left is a matrix, too, so that there is something to code in a model of any size.
                _ if left >= LEAST_MATRIX => vec![left / 16, 16],
                _ => vec![left],
            };
            left -= shape.iter().product::<usize>();
            tensors.push(TensorSpec { name: format!("layer.{:04}", tensors.len()), dtype, shape });
        }
        let files = Files { folder, values, n_tasks, tensors };
        let errors = Mutex::new(None);
        for_each(n_threads, (0..=n_tasks).collect(), |_, column| {
            if let Err(error) = files.write_column(column) {
                *errors.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
        });
        match errors.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(files),
        }
    }

    /// d: rows of a column.
    pub(super) fn n_rows(&self) -> usize {
        self.tensors.iter().map(|tensor| tensor.shape.iter().product::<usize>()).sum()
    }

    /// The file of a column; 0 is the base.
    pub(super) fn path(&self, column: usize) -> PathBuf {
        self.folder.path().join(format!("column-{column:03}.safetensors"))
    }

    fn write_column(&self, column: usize) -> Result<()> {
        let layout = SafetensorsLayout::new(&self.tensors, &BTreeMap::new())?;
        let writer = SafetensorsWriter::create(&self.path(column), layout)?;
        let size = self.values.dtype.size();
        let mut rows_before = 0;
        for (at, tensor) in self.tensors.iter().enumerate() {
            let n_rows: usize = tensor.shape.iter().product();
            for start in (0..n_rows).step_by(BLOCK_ROWS) {
                let mut bytes = vec![0; BLOCK_ROWS.min(n_rows - start) * size];
                self.values.store(column, rows_before + start, &mut bytes);
                writer.write_at(at, (start * size) as u64, &bytes)?;
            }
            rows_before += n_rows;
        }
        Ok(())
    }

    /// A path of this name beside the files.
    pub(super) fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Their headers, matched.
    ///
    /// # Errors
    /// Those of [`Plan::new`].
    pub(super) fn plan(&self) -> Result<Plan> {
        let open = |column: usize| Checkpoint::open(&self.path(column));
        let tasks =
            (1..=self.n_tasks).map(|column| Ok(Task { name: format!("t{column:03}"), checkpoint: open(column)? }));
        Plan::new(open(0)?, tasks.collect::<Result<_>>()?, &Selection::default())
    }

    /// Compresses the files to `n_atoms` atoms again and again.
    ///
    /// # Errors
    /// Those of [`compress`].
    pub(super) fn run(
        &self,
        n_atoms: usize,
        runtime: &Runtime,
        progress: &dyn Progress,
        budget: Budget,
    ) -> Result<Outcome> {
        let plan = self.plan()?;
        let options = CompressOptions::mixtures(self.folder.path().join("basis"))
            .atoms(n_atoms)
            .dtype(self.values.dtype)
            .existing(Existing::Replace);
        let once = || Ok(compress(&plan, &options, runtime, &Quiet(progress))?.basis);
        let first = once()?;
        let verdict = self.check(&first, runtime.n_threads)?;
        let mut last = first.clone();
        let timed = measure(budget, || {
            last = once()?;
            Ok(())
        })?;
        let digest = |basis: &Basis| Digest::of_digests(basis.manifest.atoms.iter().map(|atom| atom.checksum));
        let out_bytes: u64 = first.manifest.atoms.iter().map(|atom| atom.bytes).sum();
        Ok(Outcome { verdict, n_bytes: plan.n_bytes() + out_bytes, hashes: [digest(&first), digest(&last)], timed })
    }

    /// Compares the Gram and the atoms of a basis with f64 sums over the values that the files were made from.
    fn check(&self, basis: &Basis, n_threads: usize) -> Result<std::result::Result<(), check::Wrong>> {
        let (n_tasks, n_rows) = (self.n_tasks, self.n_rows());
        if let Err(wrong) = self.check_gram(basis, n_threads) {
            return Ok(Err(wrong));
        }
        let encode = &basis.coefficients.encode;
        let n_atoms = basis.n_atoms();
        let atoms = (0..n_atoms).map(|index| basis.open_atom(index)).collect::<Result<Vec<_>>>()?;
        let weights: Vec<f32> = (0..n_tasks).flat_map(|t| (0..n_atoms).map(move |m| encode[(t, m)] as f32)).collect();
        let sum = Sum {
            values: &self.values,
            n_columns: n_tasks,
            weights: &weights,
            n_outputs: n_atoms,
            subtract_base: true,
            dtype: self.values.dtype,
        };
        Ok(check::rows(sum, n_rows, |k, x| self.row(&atoms[k], x)).map_err(|wrong| format!("atoms: {wrong}")))
    }

    fn check_gram(&self, basis: &Basis, n_threads: usize) -> std::result::Result<(), check::Wrong> {
        let n_tasks = self.n_tasks;
        let gram = basis.total_gram().ok_or("the basis has no Gram matrix")?;
        let mut triangle = Vec::with_capacity(triangle_len(n_tasks));
        (0..n_tasks).for_each(|i| triangle.extend((0..=i).map(|j| gram[(i, j)])));
        check::gram(&self.values, n_tasks, self.n_rows(), &triangle, n_threads)
            .map_err(|wrong| format!("Gram: {wrong}"))
    }

    /// Row x of a checkpoint of these tensors, read from its file.
    fn row(&self, atom: &Checkpoint, x: usize) -> Option<f64> {
        let mut row = x;
        for tensor in &self.tensors {
            let n_rows: usize = tensor.shape.iter().product();
            if row >= n_rows {
                row -= n_rows;
                continue;
            }
            let stored = atom.get(&tensor.name)?;
            let dtype = stored.dtype.float()?;
            let mut raw = vec![0; dtype.size()];
            atom.read(stored, (row * dtype.size()) as u64, &mut raw).ok()?;
            return tvb_kernels::decode(&raw, dtype).first().map(|value| f64::from(*value));
        }
        None
    }
}

/// Hears that the user asked to stop; shows nothing but what is worth knowing, since the bar is the measurement's.
pub(super) struct Quiet<'a>(pub(super) &'a dyn Progress);

impl Progress for Quiet<'_> {
    fn begin(&self, _stage: &'static str, _total_bytes: u64) {}
    fn advance(&self, _n_bytes: u64) {}
    fn finish(&self) {}

    fn note(&self, line: &str) {
        self.0.note(line);
    }

    fn warn(&self, line: &str) {
        self.0.warn(line);
    }

    fn cancelled(&self) -> bool {
        self.0.cancelled()
    }
}
