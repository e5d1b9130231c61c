//! A coding pass from end to end: which operation, what is folded in order, where it resumes.

use super::operations::{CodeTasks, FormAndCode, GramAndCode};
use super::part::{CodedChunk, Coder, N_MEASURED};
use super::sink::CodeSink;
use crate::columns::plan::Plan;
use crate::digest::{Digest, TableOfDigests, TensorDigests};
use crate::error::{Error, Result};
use crate::matrix::Matrix;
use crate::ops::gram::{assemble, per, slots};
use crate::ops::grams::{Grams, Per};
use crate::ops::project::encode_in_f32;
use crate::ops::same_inputs::check_digests;
use crate::pass::bookmark::{Bookmark, Bookmarks, PassName};
use crate::pass::{Block, Folded, Grid, Pass, Reads, Runtime, add_to};
use crate::progress::Progress;
use crate::solve::Coding;
use tvb_kernels::{Code, CpuEngine, Dtype, Engine, Project, triangle_len};

/// What is coded.
#[derive(Clone, Copy, Debug)]
pub enum CodedFrom<'a> {
    /// The task vectors; with their Gram matrices where they are known, else these are formed in the same pass (on the CPU).
    Tasks(Option<&'a Grams>),
    /// Mixtures S = VB of them, B \[T, M\].
    Mixtures(&'a Grams, &'a Matrix),
}

impl<'a> CodedFrom<'a> {
    fn grams(self) -> Option<&'a Grams> {
        match self {
            CodedFrom::Tasks(grams) => grams,
            CodedFrom::Mixtures(grams, _) => Some(grams),
        }
    }

    /// Columns that are coded, without the shared ones.
    fn n_own(self, plan: &Plan) -> usize {
        match self {
            CodedFrom::Tasks(_) => plan.tasks.len(),
            CodedFrom::Mixtures(_, encode) => encode.n_columns(),
        }
    }
}

/// What a column has come out as, measured on all of its elements.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured {
    /// ‖s‖².
    pub energy: f64,
    /// ⟨s, ŝ⟩.
    pub product: f64,
    /// ‖ŝ‖².
    pub decoded: f64,
}

impl Measured {
    /// ⟨s, ŝ⟩/‖s‖² and ‖ŝ − gain·s‖²/‖s‖²; `None` for a column of zeros, or of numbers whose squares f32 cannot hold.
    pub fn gain_and_noise(self) -> Option<(f64, f64)> {
        let gain = self.product / self.energy;
        let noise = self.decoded / self.energy - gain * gain;
        (self.energy > 0.0 && gain.is_finite() && noise.is_finite()).then_some((gain, noise.max(0.0)))
    }
}

/// What a coding pass answers.
#[derive(Clone, Debug)]
pub struct Coded {
    /// The Gram matrices, where they were formed on the way.
    pub grams: Option<Grams>,
    /// What came out of every column but the shared ones.
    pub measured: Vec<Measured>,
    /// [n_stored_tensors, n_columns] digests of what was written.
    pub digests: TableOfDigests,
}

/// How far an interrupted pass had come, for the sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resumed {
    /// For each tensor of the plan whose last block has been folded, whether it stays.
    pub ended: Vec<Option<bool>>,
    /// The tensor and the row that come next; `None` at the end.
    pub next: Option<(usize, usize)>,
}

/// Of a tensor that is passing or has passed, in a bookmark's sums: a task's bytes differ from the base's; a task moves;
/// it has ended and stays, or was dropped.
const DIFFERS: u8 = 1;
const MOVES: u8 = 2;
const STAYS: u8 = 4;
const DROPPED: u8 = 8;

/// The pieces of a pass that depend on what is coded.
struct Setup<'a> {
    /// The tensors that are read: all, or those that are known to move.
    plan: Plan,
    grid: Grid,
    from: CodedFrom<'a>,
    /// Sums of a block: its Gram triangle where it is formed, then what was measured.
    n_values: usize,
    n_slots: usize,
    slot_of: fn(usize) -> usize,
    per: Per,
    n_measured: usize,
    start: Bookmark,
    recipe: Digest,
}

impl<'a> Setup<'a> {
    fn new(plan: &Plan, from: CodedFrom<'a>, coding: &Coding, runtime: &Runtime) -> Setup<'a> {
        let grid = Grid::new(plan.tensors.iter().map(|tensor| tensor.n_rows), runtime.chunk_size(plan));
        let (grid, moved) = match from.grams() {
            // The chunks of the Gram pass: those that were kept on a device are found again.
            Some(grams) => {
                let moves = |tensor: usize| !grams.tensors[tensor].frozen;
                (grid.only(moves), plan.only(moves))
            }
            None => (grid, plan.clone()),
        };
        let n_values = if from.grams().is_none() { triangle_len(plan.tasks.len()) } else { 0 };
        let per = per(plan);
        let (n_slots, slot_of) = slots(plan, per);
        let n_measured = N_MEASURED * from.n_own(plan);
        let n_sums = n_slots * n_values + n_measured + moved.tensors.len();
        let n_columns = from.n_own(plan) + coding.n_kept();
        let start = Bookmark::start(n_sums, n_values + n_measured, &[plan.n_columns(), n_columns]);
        let recipe = recipe(from, coding);
        Setup { plan: moved, grid, from, n_values, n_slots, slot_of, per, n_measured, start, recipe }
    }

    /// Where among the sums the flags of the tensors begin.
    fn flags_at(&self) -> usize {
        self.n_slots * self.n_values + self.n_measured
    }

    /// Adds the sums of a tensor that has passed.
    fn add_tensor(&self, sums: &mut [f64], tensor: usize, values: &[f64]) {
        let (triangle, measured) = values.split_at(self.n_values);
        add_to(&mut sums[(self.slot_of)(tensor) * self.n_values..][..self.n_values], triangle);
        add_to(&mut sums[self.n_slots * self.n_values..][..self.n_measured], measured);
    }

    /// Whether a tensor whose blocks have all been seen is stored: as the Gram pass says which are frozen.
    fn stays(&self, tensor: usize, flags: u8) -> bool {
        if self.from.grams().is_some() {
            return true;
        }
        let planned = &self.plan.tensors[tensor];
        let dtype = |column| self.plan.column_tensor(planned, column).dtype;
        let is_same = flags & DIFFERS == 0 && (1..self.plan.n_columns()).all(|column| dtype(column) == dtype(0));
        !(is_same || (self.per == Per::Tensor && flags & MOVES == 0))
    }
}

/// The digest of everything beside the input files that decides the codes.
fn recipe(from: CodedFrom<'_>, coding: &Coding) -> Digest {
    let Coding { rate, kept_rate, kept, seed } = coding;
    let words = format!("{} {} {seed} {} {}\n", rate.name(), kept_rate.name(), kept.n_rows(), kept.n_columns());
    let mut bytes = words.into_bytes();
    let mut add = |matrix: &Matrix| {
        let at = (0..matrix.n_rows()).flat_map(|i| (0..matrix.n_columns()).map(move |j| (i, j)));
        bytes.extend(at.flat_map(|at| matrix[at].to_le_bytes()));
    };
    add(kept);
    if let CodedFrom::Mixtures(_, encode) = from {
        add(encode);
    }
    if let Some(grams) = from.grams() {
        bytes.extend(grams.tensors.iter().map(|tensor| u8::from(tensor.frozen)));
        bytes.extend(grams.digests.digests.iter().flat_map(|digest| digest.0.to_le_bytes()));
    }
    Digest::of(&bytes)
}

/// The bookmark of an interrupted run of the same pass, where there is one, and what it says to the sink.
pub fn find_code_bookmark(
    plan: &Plan,
    from: CodedFrom<'_>,
    coding: &Coding,
    runtime: &Runtime,
    bookmarks: &mut dyn Bookmarks,
) -> Option<(Bookmark, Resumed)> {
    let setup = Setup::new(plan, from, coding, runtime);
    let found = bookmarks.find(PassName::Codes, setup.recipe)?;
    let n_tensors = setup.plan.tensors.len();
    let found = Some(found).filter(|found| found.fits(&setup.start, setup.grid.n_chunks(), n_tensors))?;
    let flags = found.sums.get(setup.flags_at()..)?;
    let ended = flags.iter().map(|&flags| match flags as u8 {
        flags if flags & STAYS != 0 => Some(true),
        flags if flags & DROPPED != 0 => Some(false),
        _ => None,
    });
    let ended = ended.collect();
    let next = setup.grid.blocks(found.n_folded).first().map(|block| (block.tensor, block.first_row));
    Some((found, Resumed { ended, next }))
}

/// Codes what is asked for and hands it to `sink`, whose tensors are those of the plan that are not known to be frozen.
/// Resumes at `bookmark`, with `sink` holding what was written before it, and leaves bookmarks on the way.
///
/// # Errors
/// Rejected: a delta that is not finite or too large to be coded, an input that is not what it was when the Gram matrices
/// were formed, or was written to meanwhile. Failed: I/O, device, a bookmark that cannot be written. Interrupted.
#[expect(clippy::too_many_arguments, reason = "a pass' usual company, and what is coded")]
pub fn code(
    plan: &Plan,
    from: CodedFrom<'_>,
    coding: &Coding,
    reads: &Reads,
    sink: &mut dyn CodeSink,
    bookmark: Option<Bookmark>,
    runtime: &Runtime,
    progress: &dyn Progress,
    bookmarks: &mut dyn Bookmarks,
) -> Result<Coded> {
    let setup = Setup::new(plan, from, coding, runtime);
    let mut state = bookmark.unwrap_or_else(|| setup.start.clone());
    let n_bytes = setup.plan.n_bytes();
    let n_chunks = setup.grid.n_chunks();
    progress.begin("code", n_bytes);
    progress.advance(n_bytes / n_chunks.max(1) as u64 * state.n_folded as u64);
    let n_own = from.n_own(plan);
    let at = (0..n_own).flat_map(|m| (0..coding.n_kept()).map(move |k| (m, k)));
    let code = Code {
        rate: coding.rate,
        kept_rate: coding.kept_rate,
        kept: at.map(|at| coding.kept[at] as f32).collect(),
        n_kept: coding.n_kept(),
        seed: coding.seed,
    };
    let task_name = |task: usize| setup.plan.column_name(task + 1);
    let atom_name = |atom: usize| format!("atom {atom}");
    let coder = |name| Coder { plan: &setup.plan, code: code.clone(), n_own, name };
    let pass = Pass { plan: &setup.plan, grid: setup.grid.clone().after(state.n_folded), reads };
    let same = coder(&task_name);
    let fold = |folded: Folded<'_, CodedChunk>| fold_chunk(&setup, &same, &mut state, sink, bookmarks, folded);
    // For what is done on the host whatever the device.
    let engine = if let Engine::Cpu(engine) = &runtime.engine { *engine } else { CpuEngine::new() };
    match from {
        CodedFrom::Tasks(None) => {
            let operation = GramAndCode { coder: coder(&task_name), reads, engine };
            pass.visit(&operation, runtime, progress, fold)?;
        }
        CodedFrom::Tasks(Some(_)) => {
            pass.run(&CodeTasks { coder: coder(&task_name), reads }, runtime, progress, fold)?;
        }
        CodedFrom::Mixtures(_, encode) => {
            let at = (0..encode.n_rows()).flat_map(|t| (0..n_own).map(move |m| (t, m)));
            let encode = at.map(|at| encode_in_f32(plan, encode, at)).collect::<Result<_>>()?;
            let work = Project { encode, n_atoms: n_own, dtype: Dtype::F32 };
            let operation = FormAndCode { coder: coder(&atom_name), work, engine, first_tensor: None };
            pass.run(&operation, runtime, progress, fold)?;
        }
    }
    progress.finish();
    finish(&setup, plan, state)
}

/// Writes a chunk's codes and adds up its sums, in its turn.
fn fold_chunk(
    setup: &Setup<'_>,
    coder: &Coder<'_>,
    state: &mut Bookmark,
    sink: &mut dyn CodeSink,
    bookmarks: &mut dyn Bookmarks,
    Folded { blocks, digests, part }: Folded<'_, CodedChunk>,
) -> Result<()> {
    let n_columns = setup.plan.n_columns();
    let mut values = Vec::with_capacity(setup.n_values + setup.n_measured);
    let mut index = 0;
    coder.each_block(&part, blocks, |block: &Block, pieces| {
        let inputs = &digests[index * n_columns..][..n_columns];
        state.digests[0].push(block.tensor, inputs);
        state.digests[1].push(block.tensor, &part.digests[index * pieces.len()..][..pieces.len()]);
        let triangle = &part.triangles[(index * setup.n_values).min(part.triangles.len())..][..setup.n_values];
        values.clear();
        values.extend_from_slice(triangle);
        values.extend_from_slice(&part.measured[index * setup.n_measured..][..setup.n_measured]);
        let sums = &mut state.sums;
        state.passing.add(block, &values, |tensor, values| setup.add_tensor(sums, tensor, values));
        let differs = inputs.iter().any(|digest| *digest != inputs[0]);
        let moves = (0..setup.plan.tasks.len()).any(|task| {
            let at = triangle_len(task) + task;
            triangle.get(at).is_some_and(|square| *square != 0.0)
        });
        let flags = &mut state.sums[setup.flags_at() + block.tensor];
        let mut now = *flags as u8 | if differs { DIFFERS } else { 0 } | if moves { MOVES } else { 0 };
        sink.put(block, pieces)?;
        if block.first_row + block.n_rows == setup.plan.tensors[block.tensor].n_rows {
            let stays = setup.stays(block.tensor, now);
            sink.end(block.tensor, stays)?;
            now |= if stays { STAYS } else { DROPPED };
        }
        *flags = f64::from(now);
        index += 1;
        Ok(())
    })?;
    state.n_folded += 1;
    if bookmarks.is_due() {
        // A bookmark must not get ahead of the disk.
        sink.sync()?;
        bookmarks.put(PassName::Codes, setup.recipe, state)?;
    }
    Ok(())
}

fn finish(setup: &Setup<'_>, plan: &Plan, state: Bookmark) -> Result<Coded> {
    let Bookmark { mut sums, mut passing, digests, .. } = state;
    passing.close(|tensor, values| setup.add_tensor(&mut sums, tensor, values));
    let [inputs, written] = <[TensorDigests; 2]>::try_from(digests)
        .map_err(|_| Error::failed("the bookmark of the codes has no digests of codes"))?;
    let n_tensors = setup.plan.tensors.len();
    let (inputs, mut written) = (inputs.finish(n_tensors), written.finish(n_tensors));
    let measured = &sums[setup.n_slots * setup.n_values..][..setup.n_measured];
    let measured = measured
        .chunks_exact(N_MEASURED)
        .map(|sums| Measured { energy: sums[0], product: sums[1], decoded: sums[2] })
        .collect();
    if let Some(grams) = setup.from.grams() {
        check_digests(plan, grams, &inputs)?;
        return Ok(Coded { grams: None, measured, digests: written });
    }
    sums.truncate(setup.n_slots * setup.n_values);
    let grams = assemble(plan, setup.per, sums, inputs);
    let rows = written.digests.chunks_exact(written.n_columns.max(1)).zip(&grams.tensors);
    let stored: Vec<Digest> = rows.filter(|(_, tensor)| !tensor.frozen).flat_map(|(row, _)| row.to_vec()).collect();
    written.digests = stored;
    Ok(Coded { grams: Some(grams), measured, digests: written })
}
