//! The stages in order, each checked, hashed twice and then timed.

use super::BenchOptions;
use super::check::{self, Sum, Wrong};
use super::check_codes::{self, CodedEdit};
use super::data::Data;
use super::end_to_end::{Files, Outcome};
use super::moves::{self, Upload};
use super::resident::{Loaded, StageResult, cut, digest, row, total_gram};
use super::timing::{Timed, measure};
use super::values::Values;
use tvb::digest::Digest;
use tvb::error::{ErrorKind, Result};
use tvb::ops::grams::unpack_triangle;
use tvb::pass::{Runtime, device_error};
use tvb::progress::Progress;
use tvb_kernels::{Base, Code, Codes, Columns, Decode, Dtype, Engine, Gram, Project, Rate, Reconstruct, Work};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub(crate) enum Stage {
    Copy,
    Upload,
    Gram,
    Eigh,
    Project,
    Reconstruct,
    Code,
    Decode,
    EndToEnd,
    EndToEndCoded,
}

impl Stage {
    /// Its name in tables and JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Stage::Copy => "copy",
            Stage::Upload => "upload",
            Stage::Gram => "gram",
            Stage::Eigh => "eigh",
            Stage::Project => "project",
            Stage::Reconstruct => "reconstruct",
            Stage::Code => "code",
            Stage::Decode => "decode",
            Stage::EndToEnd => "end-to-end",
            Stage::EndToEndCoded => "end-to-end-coded",
        }
    }
}

/// What became of one measurement.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// Right, and so fast.
    Right {
        /// Its time.
        timed: Timed,
        /// A hash of the result's bits, where it has any worth keeping.
        hash: Option<Digest>,
        /// Whether a second run gave the same bits.
        repeats: Option<bool>,
    },
    /// The result is not what f64 arithmetic gives; one line says what differs.
    Wrong(String),
    /// It could not be done; one line says why.
    Failed(String),
}

/// One measurement.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    /// What is measured.
    pub(crate) stage: Stage,
    /// Format of the data; `None` where it does not matter.
    pub(crate) dtype: Option<Dtype>,
    /// T; `None` where it does not matter.
    pub(crate) n_tasks: Option<usize>,
    /// M of a projection, K of a reconstruction.
    pub(crate) n_outputs: Option<usize>,
    /// Bits of the tasks' own codes; `None` where nothing is coded.
    pub(crate) bits: Option<Rate>,
    /// d.
    pub(crate) n_rows: Option<usize>,
    /// Cores that work on codes; `None` on a GPU and for other work.
    pub(crate) n_cores: Option<usize>,
    /// Bytes read and written, each once; `None` where bytes are not what counts.
    pub(crate) n_bytes: Option<u64>,
    /// What became of it.
    pub(crate) verdict: Verdict,
}

impl Row {
    /// Bytes per second, in 1e9.
    pub(crate) fn gb_per_s(&self) -> Option<f64> {
        match (&self.verdict, self.n_bytes) {
            (Verdict::Right { timed, .. }, Some(n_bytes)) => Some(n_bytes as f64 / timed.seconds / 1e9),
            _ => None,
        }
    }

    /// Coded elements of all tasks per second and core, in 1e9.
    pub(crate) fn g_elements_per_s_per_core(&self) -> Option<f64> {
        let Verdict::Right { timed, .. } = &self.verdict else { return None };
        let n_elements = (self.n_tasks? * self.n_rows?) as f64;
        Some(n_elements / timed.seconds / self.n_cores? as f64 / 1e9)
    }

    /// Whether the result was right.
    pub(crate) fn is_right(&self) -> bool {
        matches!(self.verdict, Verdict::Right { .. })
    }
}

/// All measurements of one device.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Report {
    /// In the order they were taken; the copy first.
    pub(crate) rows: Vec<Row>,
}

impl Report {
    /// A row's speed in parts of the device's own copy.
    pub(crate) fn share_of_copy(&self, row: &Row) -> Option<f64> {
        let copy = self.rows.iter().find(|row| row.stage == Stage::Copy)?.gb_per_s()?;
        Some(row.gb_per_s()? / copy)
    }
}

/// A result with the verdict on it, its hashes and its time, or one line on why there is none.
type Measured = Result<(std::result::Result<(), Wrong>, Option<[Digest; 2]>, Timed)>;

/// Measures one device.
///
/// # Errors
/// Interrupted. What goes wrong on the device or on the disk stands in the report.
pub(crate) fn run(options: &BenchOptions, runtime: &Runtime, progress: &dyn Progress) -> Result<Report> {
    let n_cases = (options.dtypes.len() * options.task_counts.len()) as u64;
    let size_bytes = options.resident_bytes(&runtime.engine, runtime.memory_bytes);
    progress.begin("bench", (9 * n_cases + 1) * size_bytes);
    let mut bench = Bench { options, runtime, progress, size_bytes, rows: Vec::new() };
    bench.moves()?;
    for (at, &dtype) in options.dtypes.iter().enumerate() {
        for &n_tasks in &options.task_counts {
            let with_eigh = at == 0 && options.has_eigh(&runtime.engine, n_tasks);
            bench.resident(dtype, n_tasks, with_eigh)?;
            bench.end_to_end(dtype, n_tasks)?;
        }
    }
    progress.finish();
    Ok(Report { rows: bench.rows })
}

struct Bench<'a> {
    options: &'a BenchOptions,
    runtime: &'a Runtime,
    progress: &'a dyn Progress,
    size_bytes: u64,
    rows: Vec<Row>,
}

/// The atoms that T tasks are projected to: half as many, as `tvb compress` does.
pub(super) fn n_atoms(n_tasks: usize) -> usize {
    n_tasks.div_ceil(2)
}

/// The rates of the tasks' own columns that `code` and `decode` are measured at.
const RATES: [Rate; 2] = [Rate::Signs, Rate::Four];

/// How T tasks are coded: the sum of all is kept at 3 bits, as `tvb compress` does.
pub(super) fn code(rate: Rate, n_tasks: usize) -> Code {
    let kept = vec![1.0 / (n_tasks as f32).sqrt(); n_tasks];
    Code { rate, kept_rate: Rate::Eight, kept, n_kept: 1, n_carried: 0, seed: 0 }
}

/// Weights of both signs, none of them zero.
fn weights(n: usize) -> Vec<f32> {
    (0..n).map(|at| ((at * 29) % 17) as f32 / 16.0 - 0.53).collect()
}

impl Bench<'_> {
    /// Puts a row into the report; an interruption ends everything.
    fn put(&mut self, mut row: Row, measured: Measured) -> Result<()> {
        row.verdict = match measured {
            Ok((Ok(()), hashes, timed)) => {
                let (hash, repeats) = (hashes.map(|[first, _]| first), hashes.map(|[first, second]| first == second));
                Verdict::Right { timed, hash, repeats }
            }
            Ok((Err(wrong), ..)) => Verdict::Wrong(wrong),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
            Err(error) => Verdict::Failed(error.to_string()),
        };
        self.rows.push(row);
        self.progress.advance(self.size_bytes);
        self.progress.check()
    }

    fn row(&self, stage: Stage, n_bytes: Option<u64>) -> Row {
        let verdict = Verdict::Failed(String::new());
        let n_tasks = None;
        Row { stage, dtype: None, n_tasks, n_outputs: None, bits: None, n_rows: None, n_cores: None, n_bytes, verdict }
    }

    fn moves(&mut self) -> Result<()> {
        let (budget, n_bytes) = (self.options.budget(), self.size_bytes);
        let copied = match &self.runtime.engine {
            Engine::Cpu(_) => moves::copy_on_cpu(n_bytes as usize, self.runtime.n_threads, budget),
            Engine::Gpu(engine) => moves::copy_on_gpu(engine, n_bytes, budget),
        };
        let row = self.row(Stage::Copy, Some(2 * n_bytes));
        self.put(row, copied.map(|(verdict, timed)| (verdict, None, timed)))?;
        let Engine::Gpu(engine) = &self.runtime.engine else { return Ok(()) };
        let facts = engine.facts();
        let upload = Upload::new(n_bytes, facts.max_binding_bytes.min(self.runtime.memory_bytes / 8));
        let uploaded = upload.run(engine, self.runtime.n_threads, budget);
        let row = self.row(Stage::Upload, Some(upload.n_bytes()));
        self.put(row, uploaded.map(|(verdict, timed)| (verdict, None, timed)))
    }

    /// The stages on data in memory; `with_eigh` once for each T, as the matrix hardly depends on the format.
    fn resident(&mut self, dtype: Dtype, n_tasks: usize, with_eigh: bool) -> Result<()> {
        let data = Data::new(Values { dtype }, n_tasks, self.size_bytes, cut(self.runtime), self.runtime.n_threads);
        let n_atoms = n_atoms(n_tasks);
        let result_bytes = |n_outputs: usize| (n_outputs * data.n_rows * dtype.size()) as u64;
        let case = |row: Row, n_outputs: Option<usize>| Row {
            dtype: Some(dtype),
            n_tasks: Some(n_tasks),
            n_outputs,
            n_rows: Some(data.n_rows),
            ..row
        };

        let mut triangle = None;
        let n_threads = self.runtime.n_threads;
        let gram = self.work(&Gram::ALL, &data, |results| {
            let total = total_gram(results);
            let verdict = check::gram(&data.values, n_tasks, data.n_rows, &total, n_threads);
            triangle = Some(total).filter(|_| verdict.is_ok());
            verdict
        });
        self.put(case(self.row(Stage::Gram, Some(data.n_bytes())), None), gram)?;

        if let Some(triangle) = triangle.filter(|_| with_eigh) {
            let decomposed = self.eigh(&triangle, n_tasks);
            let row = Row { n_tasks: Some(n_tasks), ..self.row(Stage::Eigh, None) };
            self.put(row, decomposed)?;
        }

        let encode = weights(n_tasks * n_atoms);
        let project = Project { encode: encode.clone(), n_atoms, dtype };
        let sum = |weights, n_outputs, subtract_base| Sum {
            values: &data.values,
            n_columns: n_tasks,
            weights,
            n_outputs,
            subtract_base,
            dtype,
        };
        let check_rows = |sum: Sum<'_>, results: &[Vec<u8>]| {
            check::rows(sum, data.n_rows, |k, x| row(results, data.chunk_rows(), dtype, k, x))
        };
        let projected = self.work(&project, &data, |results| check_rows(sum(&encode, n_atoms, true), results));
        let n_bytes = data.n_bytes() + result_bytes(n_atoms);
        self.put(case(self.row(Stage::Project, Some(n_bytes)), Some(n_atoms)), projected)?;

        let weights = weights(n_tasks);
        let reconstruct = Reconstruct {
            weights: weights.clone(),
            n_outputs: 1,
            columns: Columns::Deltas,
            base: Base::Added,
            dtype: None,
        };
        let formed = self.work(&reconstruct, &data, |results| check_rows(sum(&weights, 1, false), results));
        let n_bytes = data.n_bytes() + result_bytes(1);
        self.put(case(self.row(Stage::Reconstruct, Some(n_bytes)), Some(1)), formed)?;
        RATES.into_iter().try_for_each(|rate| self.codes(&data, n_tasks, rate))
    }

    /// `code`, and `decode` from what came out of it.
    fn codes(&mut self, data: &Data, n_tasks: usize, rate: Rate) -> Result<()> {
        let (dtype, chunk_rows, n_threads) = (data.values.dtype, data.chunk_rows(), self.runtime.n_threads);
        let n_cores = match &self.runtime.engine {
            Engine::Cpu(_) => Some(n_threads.min(data.chunks().len())),
            Engine::Gpu(_) => None,
        };
        let case = |row: Row, n_outputs: Option<usize>| Row {
            dtype: Some(dtype),
            n_tasks: Some(n_tasks),
            n_outputs,
            bits: Some(rate),
            n_rows: Some(data.n_rows),
            n_cores,
            ..row
        };
        let code = code(rate, n_tasks);
        let mut codes: Option<Vec<Codes>> = None;
        let coded = self.work(&code, data, |results| {
            let verdict = check_codes::codes(&data.values, &code, results, chunk_rows, n_threads);
            codes = verdict.is_ok().then(|| results.to_vec());
            verdict
        });
        let stored = |codes: &Codes| (4 * codes.words.len() + 2 * codes.scales.len()) as u64;
        let code_bytes = codes.iter().flatten().map(stored).sum::<u64>();
        self.put(case(self.row(Stage::Code, Some(data.n_bytes() + code_bytes)), None), coded)?;

        let Some(codes) = codes else { return Ok(()) };
        let from_codes = data.coded(&code, &codes);
        // A shared column goes into an edit with what the edit has of its direction.
        let mut weights = weights(n_tasks);
        weights.push(weights.iter().zip(&code.kept).map(|(weight, kept)| weight * kept).sum());
        let mut rates = vec![code.rate; n_tasks];
        rates.push(code.kept_rate);
        let decode =
            Decode { rates, weights: weights.clone(), n_outputs: 1, base: Base::Added, dtype: None, seed: code.seed };
        let edit = CodedEdit { values: &data.values, seed: code.seed, weights: &weights, dtype };
        let decoded = self.work(&decode, &from_codes, |results| {
            check_codes::edited(edit, &code, &codes, chunk_rows, |x| row(results, chunk_rows, dtype, 0, x))
        });
        let n_bytes = from_codes.n_bytes() + (data.n_rows * dtype.size()) as u64;
        self.put(case(self.row(Stage::Decode, Some(n_bytes)), Some(1)), decoded)
    }

    /// Does `work` twice, has the result checked, and times it where it is right.
    fn work<W: Work<Output: StageResult>>(
        &self,
        work: &W,
        data: &Data,
        check: impl FnOnce(&[W::Output]) -> std::result::Result<(), Wrong>,
    ) -> Measured {
        let mut loaded = Loaded::new(self.runtime, work, data)?;
        let first = loaded.results()?;
        let verdict = check(&first);
        let hash = digest(&first);
        drop(first);
        if verdict.is_err() {
            return Ok((verdict, None, Timed { seconds: 0.0, n_samples: 0 }));
        }
        let again = digest(&loaded.results()?);
        Ok((verdict, Some([hash, again]), loaded.time(self.options.budget())?))
    }

    fn eigh(&self, triangle: &[f64], n: usize) -> Measured {
        let gram = unpack_triangle(triangle, n);
        let entries: Vec<f64> = (0..n * n).map(|at| gram[(at % n, at / n)]).collect();
        let engine = &self.runtime.engine;
        let once = || engine.eigh(&entries, n, 1).map_err(device_error);
        let digest = |found: &[tvb_kernels::Eigh]| {
            let parts = found.iter().flat_map(|eigh| [&eigh.values, &eigh.vectors]);
            Digest::of_digests(parts.map(|part| Digest::of(bytemuck::cast_slice(part))))
        };
        let on_host = || if let Engine::Gpu(engine) = engine { engine.n_eigh_on_host() } else { 0 };
        let before = on_host();
        let first = once()?;
        let verdict = match &first[..] {
            [_] if on_host() > before => Err("the device got it wrong, and the CPU did it".to_owned()),
            [found] => check::eigh(triangle, n, found),
            other => Err(format!("{} results where 1 was expected", other.len())),
        };
        if verdict.is_err() {
            return Ok((verdict, None, Timed { seconds: 0.0, n_samples: 0 }));
        }
        let hashes = [digest(&first), digest(&once()?)];
        let timed = measure(self.options.budget(), || once().map(drop))?;
        Ok((verdict, Some(hashes), timed))
    }

    fn end_to_end(&mut self, dtype: Dtype, n_tasks: usize) -> Result<()> {
        let n_atoms = n_atoms(n_tasks);
        // Half as much as resident data: files are read twice and written.
        let files = Files::write(Values { dtype }, n_tasks, self.size_bytes / 2, self.runtime.n_threads);
        let n_rows = files.as_ref().ok().map(Files::n_rows);
        let (runtime, progress, budget) = (self.runtime, self.progress, self.options.file_budget());
        let mut put = |stage: Stage, of_stage: (Option<usize>, Option<Rate>), done: Result<Outcome>| {
            let (n_outputs, bits) = of_stage;
            let n_bytes = done.as_ref().ok().map(|outcome| outcome.n_bytes);
            let (dtype, n_tasks) = (Some(dtype), Some(n_tasks));
            let row = Row { dtype, n_tasks, n_outputs, bits, n_rows, ..self.row(stage, n_bytes) };
            self.put(row, done.map(|outcome| (outcome.verdict, Some(outcome.hashes), outcome.timed)))
        };
        match files {
            Ok(files) => {
                let done = files.run(n_atoms, runtime, progress, budget);
                put(Stage::EndToEnd, (Some(n_atoms), None), done)?;
                let done = files.run_coded(&code(Rate::Four, n_tasks), runtime, progress, budget);
                put(Stage::EndToEndCoded, (None, Some(Rate::Four)), done)
            }
            Err(error) => put(Stage::EndToEnd, (Some(n_atoms), None), Err(error)),
        }
    }
}
