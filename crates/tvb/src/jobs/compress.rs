//! The main job, from end to end: base and fine-tunes → Gram → coefficients → atoms → a basis folder.

use crate::basis::atom::AtomSink;
use crate::basis::bookmarks::{self, BookmarkFolder};
use crate::basis::coefficients::{self, GroupCoefficients};
use crate::basis::describe::{Described, describe};
use crate::basis::manifest::AtomRecord;
use crate::basis::random_atoms::RawColumns;
use crate::basis::{Basis, gram_file};
use crate::checkpoint::{Existing, Leftover, StagedOutput, free_bytes};
use crate::columns::plan::Plan;
use crate::error::{Error, ErrorKind, Result};
use crate::matrix::Matrix;
use crate::ops::gram::Grams;
use crate::ops::project::{Projection, check_same_inputs, find_bookmark, project_from};
use crate::pass::kept::{Keep, stays_slow};
use crate::pass::stream::Runtime;
use crate::progress::Progress;
use crate::solve::{self, AnchoredOptions, Coordinates, Gram, MaxError, Method, SolveOptions, Solved};
use crate::units;
use std::path::{Path, PathBuf};

/// How many atoms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Size {
    /// This many.
    Atoms(usize),
    /// This share of the number of tasks, rounded up: 0.5 of 9 tasks is 5.
    Ratio(f64),
    /// The fewest whose error stays under this.
    MaxError(MaxError),
    /// The most whose files stay under this many bytes together.
    MaxBytes(u64),
}

/// What to make of the inputs and where to put it.
#[derive(Clone, Debug)]
pub struct CompressOptions {
    /// How B and W are found.
    pub method: Method,
    /// How many atoms.
    pub size: Size,
    /// Solve with every task vector scaled to the same norm.
    pub balance: bool,
    /// Convex or orthogonal atoms of the same span.
    pub coordinates: Coordinates,
    /// How atoms are stored; `None` is f32.
    pub dtype: Option<tvb_kernels::Dtype>,
    /// A Gram file of these inputs: one read instead of two.
    pub gram: Option<PathBuf>,
    /// Whether inputs that fit in the host's memory are read once.
    pub keep: Keep,
    /// The basis folder.
    pub output: PathBuf,
    /// What to do with an output that is there already.
    pub existing: Existing,
}

impl CompressOptions {
    /// The defaults: `anchored`, half as many atoms as tasks, stored in f32, in a folder that is not there yet.
    pub fn new(output: impl Into<PathBuf>) -> CompressOptions {
        CompressOptions {
            method: Method::Anchored(AnchoredOptions::default()),
            size: Size::Ratio(0.5),
            balance: false,
            coordinates: Coordinates::Convex,
            dtype: None,
            gram: None,
            keep: Keep::Auto,
            output: output.into(),
            existing: Existing::Refuse,
        }
    }

    /// The same with [`Keep::Auto`] decided, once for whoever asks later: by reading a little where the inputs fit in memory.
    ///
    /// # Errors
    /// Usage: options that do not fit each other. Failed: an input that cannot be read.
    pub fn decided(self, plan: &Plan, memory_bytes: u64) -> Result<CompressOptions> {
        check_options(plan, &self)?;
        let keep = if keeps_on_host(plan, &self, memory_bytes)? { Keep::Always } else { Keep::Never };
        Ok(CompressOptions { keep, ..self })
    }

    fn solve_options(&self, n_atoms: usize) -> SolveOptions {
        SolveOptions { balance: self.balance, coordinates: self.coordinates, ..SolveOptions::atoms(n_atoms) }
    }
}

/// Compresses the task vectors of `plan` into a basis folder.
///
/// # Errors
/// Rejected: inputs that do not fit, a Gram file of other inputs, an existing output. Failed: I/O, device. Interrupted.
/// Nothing is left behind in either case, but an interrupted run that has left bookmarks keeps its partial output, and the
/// same call goes on from there with the same result.
pub fn compress(plan: &Plan, options: &CompressOptions, runtime: &Runtime, progress: &dyn Progress) -> Result<Basis> {
    check_options(plan, options)?;
    let kept = plan_that_keeps(plan, options, runtime)?;
    let plan = kept.as_ref().unwrap_or(plan);
    let staged = StagedOutput::folder(&options.output, options.existing, Leftover::Keep)?;
    let mut bookmarks = BookmarkFolder::new(staged.path().join(bookmarks::FOLDER), plan, runtime);
    match make(plan, options, runtime, progress, &staged, &mut bookmarks) {
        Ok(()) => {
            bookmarks.remove()?;
            staged.commit()?;
            Basis::open(&options.output)
        }
        Err(error) if error.kind() == ErrorKind::Interrupted && bookmarks.holds_any() => {
            staged.keep();
            Err(error.hint("the same command goes on where it stopped"))
        }
        Err(error) => Err(error),
    }
}

/// The part of the memory cap that is left to the buffers of the passes.
const BUFFERS_PART: u64 = 4;
/// Bytes that are read to see whether a file system caches.
const PROBE_BYTES: u64 = 1 << 20;

/// How often inputs are read whose keeping is [decided](CompressOptions::decided): once for the Gram matrix and once for the
/// atoms, unless one is there already or they are kept in memory.
pub fn n_reads(plan: &Plan, options: &CompressOptions, memory_bytes: u64) -> u64 {
    let is_kept = options.keep == Keep::Always && fits(plan, options, memory_bytes);
    if is_kept { 1 } else { n_passes(options) }
}

fn n_passes(options: &CompressOptions) -> u64 {
    if options.gram.is_some() { 1 } else { 2 }
}

/// Whether there is a second pass to keep the inputs for, and room for all of them.
fn fits(plan: &Plan, options: &CompressOptions, memory_bytes: u64) -> bool {
    n_passes(options) > 1 && plan.n_bytes() <= memory_bytes - memory_bytes / BUFFERS_PART
}

/// Whether the inputs are kept in the host's memory between the passes: where they fit and it pays.
fn keeps_on_host(plan: &Plan, options: &CompressOptions, memory_bytes: u64) -> Result<bool> {
    match options.keep {
        Keep::Never => Ok(false),
        Keep::Always => Ok(fits(plan, options, memory_bytes)),
        Keep::Auto => Ok(fits(plan, options, memory_bytes) && is_uncached(plan)?),
    }
}

/// The plan with a place where its data stays between the passes, where there is one: the device, and the host for what
/// the device has no room for. What the device keeps is for [`Runtime::device_memory_bytes`] alone to say: [`Keep`] is about
/// the host.
fn plan_that_keeps(plan: &Plan, options: &CompressOptions, runtime: &Runtime) -> Result<Option<Plan>> {
    // The columns of `random` are multiplied on the host.
    let has_passes = n_passes(options) > 1 && options.method.stores_atoms();
    let on_device = has_passes && runtime.keeps_on_device();
    let device_bytes = if on_device { runtime.device_memory_bytes } else { 0 };
    let on_host = plan.n_bytes() > device_bytes && keeps_on_host(plan, options, runtime.memory_bytes)?;
    let kept = on_host.then(|| plan.keeping());
    if !on_device {
        return Ok(kept);
    }
    Ok(Some(kept.as_ref().unwrap_or(plan).keeping_on_device(device_bytes)))
}

/// Whether the last task's file system reads the same bytes as slowly the second time.
fn is_uncached(plan: &Plan) -> Result<bool> {
    let column = plan.n_columns() - 1;
    let checkpoint = plan.column_checkpoint(column);
    let Some(planned) = plan.tensors.iter().max_by_key(|tensor| tensor.n_rows) else { return Ok(false) };
    let tensor = plan.column_tensor(planned, column);
    let mut bytes = vec![0; tensor.n_bytes().min(PROBE_BYTES) as usize];
    let n_bytes = bytes.len() as u64;
    stays_slow(n_bytes.max(PROBE_BYTES / 16), || checkpoint.read(tensor, 0, &mut bytes))
}

/// What can be told before anything is read.
fn check_options(plan: &Plan, options: &CompressOptions) -> Result<()> {
    solve::check_options(&options.method, options.balance, options.coordinates)?;
    match options.size {
        Size::MaxError(_) | Size::MaxBytes(_) if !options.method.stores_atoms() => Err(Error::usage(
            "a target with method 'random': its errors need the checkpoints, and its atoms take no space",
        )
        .hint("give the number of atoms: -m N or --ratio X")),
        Size::Atoms(n_atoms) if options.method.fixed_atoms(plan.tasks.len()).is_none() => {
            solve::check_atoms(n_atoms, plan.tasks.len())
        }
        _ => Ok(()),
    }
}

/// Fills the partial output with a basis.
fn make(
    plan: &Plan,
    options: &CompressOptions,
    runtime: &Runtime,
    progress: &dyn Progress,
    staged: &StagedOutput,
    bookmarks: &mut BookmarkFolder,
) -> Result<()> {
    let grams = match &options.gram {
        Some(path) => gram_file::read(path)?,
        None => {
            // What an interrupted run reserved is no longer free and need not be.
            if !staged.resumed() {
                check_room_before_reading(plan, options)?;
            }
            bookmarks.gram(plan, runtime, progress)?
        }
    };
    check_same_inputs(plan, &grams)?;
    let dtype = options.dtype.unwrap_or(tvb_kernels::Dtype::F32);
    let stored = grams.tensors.iter().filter(|tensor| !tensor.frozen);
    let tensors: Vec<_> = stored.map(|tensor| (tensor.name.clone(), tensor.shape.clone())).collect();
    let (solved, atoms) = match options.method {
        Method::Random { seed } => (solve_random(plan, &grams, tensors, seed, options, runtime, progress)?, Vec::new()),
        _ => {
            let solved = solve_for(&grams, options, progress)?;
            let projection = Projection { plan, grams: &grams, encode: &solved.coefficients.encode, dtype };
            let atoms = make_atoms(&projection, &tensors, options, runtime, progress, staged, bookmarks)?;
            (solved, atoms)
        }
    };
    let coefficients = &solved.coefficients;
    let group = GroupCoefficients {
        name: grams.groups[0].name.clone(),
        encode: if coefficients.encode.n_columns() == 0 { Matrix::empty() } else { coefficients.encode.clone() },
        decode: coefficients.decode.clone(),
        mix: coefficients.generated.as_ref().map_or_else(Matrix::empty, |generated| generated.mix.clone()),
        eigenvalues: solved.gram.spectrum().values.clone(),
    };
    let file = coefficients::write(staged.path(), Some(&grams), &[group])?;
    let described = Described { grams: &grams, solved: &solved, method: &options.method, dtype };
    let manifest = describe(&described, atoms, file);
    manifest.write(staged.path())
}

/// Projects onto B, from where an interrupted run of the same projection stopped, where there is one.
fn make_atoms(
    projection: &Projection<'_>,
    tensors: &[(String, Vec<usize>)],
    options: &CompressOptions,
    runtime: &Runtime,
    progress: &dyn Progress,
    staged: &StagedOutput,
    bookmarks: &mut BookmarkFolder,
) -> Result<Vec<AtomRecord>> {
    let (n_atoms, dtype) = (projection.encode.n_columns(), projection.dtype);
    let bookmark = find_bookmark(projection, runtime, bookmarks);
    let reopened = bookmark.and_then(|bookmark| {
        let sink = AtomSink::reopen(staged.path(), n_atoms, tensors, dtype.into())?;
        Some((sink, Some(bookmark)))
    });
    let (sink, bookmark) = match reopened {
        Some(taken_up) => taken_up,
        None => {
            bookmarks.clear_beside()?;
            check_room(&options.output, n_atoms as u64 * projection.grams.moved_bytes(dtype.into()))?;
            (AtomSink::create(staged.path(), n_atoms, tensors, dtype.into())?, None)
        }
    };
    project_from(projection, sink, bookmark, runtime, progress, bookmarks)
}

/// Bytes beside the atoms themselves: headers, coefficients, manifest.
const SMALL_FILES_BYTES: u64 = 1 << 20;

/// Whether the disk of `output` has room for `atom_bytes` of atoms.
///
/// # Errors
/// Failed, with the bytes needed and free.
pub fn check_room(output: &Path, atom_bytes: u64) -> Result<()> {
    let needed_bytes = atom_bytes.saturating_add(SMALL_FILES_BYTES);
    match free_bytes(output) {
        Some(free_bytes) if free_bytes < needed_bytes => Err(Error::failed(format!(
            "{}: {} needed on this disk, {} free",
            output.display(),
            units::bytes(needed_bytes),
            units::bytes(free_bytes)
        ))
        .hint("free some space, choose an output on another disk, fewer atoms, or --dtype bf16")),
        _ => Ok(()),
    }
}

/// The same from headers alone, where the number of atoms is known: at most this much is needed.
fn check_room_before_reading(plan: &Plan, options: &CompressOptions) -> Result<()> {
    let Some(n_atoms) = predict_atoms(plan, options)? else { return Ok(()) };
    let dtype = options.dtype.unwrap_or(tvb_kernels::Dtype::F32);
    let n_stored = if options.method.stores_atoms() { n_atoms as u64 } else { 0 };
    let atom_bytes = n_stored.saturating_mul(plan.n_rows()).saturating_mul(dtype.size() as u64);
    check_room(&options.output, atom_bytes).map_err(|error| {
        error.hint(
            "free some space, choose another disk, fewer atoms, or --dtype bf16; if no task moves most of the tensors, \
             less is needed: make a Gram file with `tvb gram` and give it with --gram",
        )
    })
}

/// The `random` method: its atoms are no mixtures of the tasks, so one more pass measures them on the data.
fn solve_random(
    plan: &Plan,
    grams: &Grams,
    tensors: Vec<(String, Vec<usize>)>,
    seed: u64,
    options: &CompressOptions,
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<Solved> {
    let gram = Gram::new(grams.group_gram(0))?;
    let raw = RawColumns::new(seed, choose_atoms(&gram, grams, options, progress)?, tensors)?;
    let (raw_gram, raw_task) = raw.products(plan, grams, runtime, progress)?;
    let coefficients = solve::random_coefficients(&gram, seed, &raw_gram, &raw_task)?;
    let assessment = solve::assess(&gram, &coefficients)?;
    Ok(Solved { gram, coefficients, assessment })
}

/// Chooses M and solves, from the Gram matrices alone.
///
/// # Errors
/// Rejected: M outside 1..T, or a target that no M meets. Interrupted.
pub fn solve_for(grams: &Grams, options: &CompressOptions, progress: &dyn Progress) -> Result<Solved> {
    let gram = Gram::new(grams.group_gram(0))?;
    let go_on = |_: f64| !progress.cancelled();
    let n_atoms = choose_atoms(&gram, grams, options, progress)?;
    let coefficients = solve::solve(&gram, &options.method, &options.solve_options(n_atoms), &go_on)?;
    let assessment = solve::assess(&gram, &coefficients)?;
    Ok(Solved { gram, coefficients, assessment })
}

/// M, as the size says.
fn choose_atoms(gram: &Gram, grams: &Grams, options: &CompressOptions, progress: &dyn Progress) -> Result<usize> {
    let go_on = |_: f64| !progress.cancelled();
    let n_tasks = gram.n_tasks();
    Ok(match options.size {
        _ if options.method.fixed_atoms(n_tasks).is_some() => n_tasks,
        Size::Atoms(n_atoms) => n_atoms,
        Size::Ratio(ratio) => atoms_for_ratio(ratio, n_tasks)?,
        Size::MaxError(target) => {
            solve::atoms_for_error(gram, &options.method, &options.solve_options(1), target, &go_on)?
        }
        Size::MaxBytes(limit) => {
            let dtype = options.dtype.unwrap_or(tvb_kernels::Dtype::F32);
            atoms_for_bytes(limit, grams.moved_bytes(dtype.into()), n_tasks, &options.method)?
        }
    })
}

/// The number of atoms `compress` would make, where headers (or a Gram file) are enough to tell.
///
/// # Errors
/// As [`solve_for`].
pub fn predict_atoms(plan: &Plan, options: &CompressOptions) -> Result<Option<usize>> {
    check_options(plan, options)?;
    let n_tasks = plan.tasks.len();
    Ok(match (options.size, &options.gram) {
        (_, Some(path)) => {
            let grams = gram_file::read(path)?;
            check_same_inputs(plan, &grams)?;
            if !options.method.stores_atoms() {
                let gram = Gram::new(grams.group_gram(0))?;
                return choose_atoms(&gram, &grams, options, &crate::progress::Silent).map(Some);
            }
            Some(solve_for(&grams, options, &crate::progress::Silent)?.coefficients.n_stored())
        }
        _ if options.method.fixed_atoms(n_tasks).is_some() => Some(n_tasks),
        (Size::Atoms(n_atoms), None) => Some(n_atoms),
        (Size::Ratio(ratio), None) => Some(atoms_for_ratio(ratio, n_tasks)?),
        (Size::MaxError(_) | Size::MaxBytes(_), None) => None,
    })
}

/// The number of atoms a share of the tasks stands for, rounded up.
///
/// # Errors
/// Usage: a share outside (0, 1].
pub fn atoms_for_ratio(ratio: f64, n_tasks: usize) -> Result<usize> {
    if !(ratio > 0.0 && ratio <= 1.0) {
        return Err(Error::usage(format!("a ratio above 0 and at most 1 expected, {ratio} found"))
            .hint("--ratio 0.5 stores half as many atoms as there are tasks"));
    }
    // A hair less than the product, so that 0.7 of 10 tasks is 7 whatever the last bit of 0.7·10.
    Ok(((ratio * n_tasks as f64 - 1e-9).ceil() as usize).clamp(1, n_tasks))
}

fn atoms_for_bytes(limit: u64, bytes_each: u64, n_tasks: usize, method: &Method) -> Result<usize> {
    // The mean of `pca` is stored beside its M components.
    let n_extra = u64::from(matches!(method, Method::Pca));
    let affordable = limit.checked_div(bytes_each.max(1)).unwrap_or(0).saturating_sub(n_extra);
    if affordable == 0 {
        return Err(Error::rejected(format!(
            "at most {limit} bytes asked for, {} needed for the smallest basis",
            (1 + n_extra) * bytes_each
        ))
        .hint("--dtype bf16 halves an atom; --exclude leaves tensors out"));
    }
    Ok(usize::try_from(affordable).unwrap_or(n_tasks).min(n_tasks))
}
