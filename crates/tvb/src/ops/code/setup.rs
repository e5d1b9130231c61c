//! What a coding pass is: what is coded, over which tensors and chunks, with which operation, and what is added up.

use super::operations::{CodeTasks, FormAndCode, GramAndCode};
use super::part::{CodedChunk, Coder, N_MEASURED};
use crate::columns::plan::Plan;
use crate::digest::{Digest, TableOfDigests};
use crate::error::Result;
use crate::matrix::Matrix;
use crate::ops::gram::{assemble, per, slots};
use crate::ops::grams::{Grams, Per};
use crate::ops::project::encode_in_f32;
use crate::ops::same_inputs::check_digests;
use crate::pass::bookmark::Bookmark;
use crate::pass::{Folded, Grid, Pass, Reads, Runtime, add_to};
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
    /// The Gram matrices, where they are known.
    pub fn grams(self) -> Option<&'a Grams> {
        match self {
            CodedFrom::Tasks(grams) => grams,
            CodedFrom::Mixtures(grams, _) => Some(grams),
        }
    }

    /// Columns that are coded, without the shared ones.
    pub fn n_own(self, plan: &Plan) -> usize {
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

/// The pieces of a pass that depend on what is coded.
#[derive(Debug)]
pub(super) struct Setup<'a> {
    /// The tensors that are read: all, or those that are known to move.
    pub(super) plan: Plan,
    pub(super) grid: Grid,
    pub(super) from: CodedFrom<'a>,
    coding: &'a Coding,
    /// Columns that are coded, without the shared ones.
    n_own: usize,
    /// Sums of a block: its Gram triangle where it is formed, then what was measured.
    pub(super) n_values: usize,
    pub(super) n_slots: usize,
    slot_of: fn(usize) -> usize,
    pub(super) per: Per,
    pub(super) n_measured: usize,
    pub(super) start: Bookmark,
    pub(super) recipe: Digest,
}

impl<'a> Setup<'a> {
    pub(super) fn new(plan: &Plan, from: CodedFrom<'a>, coding: &'a Coding, runtime: &Runtime) -> Setup<'a> {
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
        let recipe = code_recipe(from, coding);
        let n_own = from.n_own(plan);
        Setup { plan: moved, grid, from, coding, n_own, n_values, n_slots, slot_of, per, n_measured, start, recipe }
    }

    /// Where among the sums the flags of the tensors begin.
    pub(super) fn flags_at(&self) -> usize {
        self.n_slots * self.n_values + self.n_measured
    }

    /// Adds the sums of a tensor that has passed.
    pub(super) fn add_tensor(&self, sums: &mut [f64], tensor: usize, values: &[f64]) {
        let (triangle, measured) = values.split_at(self.n_values);
        add_to(&mut sums[(self.slot_of)(tensor) * self.n_values..][..self.n_values], triangle);
        add_to(&mut sums[self.n_slots * self.n_values..][..self.n_measured], measured);
    }

    /// Runs the pass over `grid`, and hands what comes out of each chunk to `fold`, in order.
    ///
    /// # Errors
    /// Those of a pass, of `fold`, and a coefficient beyond f32.
    pub(super) fn run(
        &self,
        grid: Grid,
        reads: &Reads,
        runtime: &Runtime,
        progress: &dyn Progress,
        mut fold: impl FnMut(&Coder<'_>, Folded<'_, CodedChunk>) -> Result<()> + Send,
    ) -> Result<()> {
        let Setup { plan, from, coding, n_own, .. } = self;
        let n_own = *n_own;
        let at = (0..n_own).flat_map(|m| (0..coding.n_kept()).map(move |k| (m, k)));
        let code = Code {
            rate: coding.rate,
            kept_rate: coding.kept_rate,
            kept: at.map(|at| coding.kept[at] as f32).collect(),
            n_kept: coding.n_kept(),
            n_carried: 0,
            seed: coding.seed,
        };
        let task_name = |task: usize| plan.column_name(task + 1);
        let atom_name = |atom: usize| format!("atom {atom}");
        let coder = |name| Coder { plan, code: code.clone(), n_own, name };
        let pass = Pass { plan, grid, reads };
        let same = coder(&task_name);
        let fold = |folded: Folded<'_, CodedChunk>| fold(&same, folded);
        // For what is done on the host whatever the device.
        let engine = if let Engine::Cpu(engine) = &runtime.engine { *engine } else { CpuEngine::new() };
        match from {
            CodedFrom::Tasks(None) => {
                let operation = GramAndCode { coder: coder(&task_name), reads, engine };
                pass.visit(&operation, runtime, progress, fold)
            }
            CodedFrom::Tasks(Some(_)) => {
                pass.run(&CodeTasks { coder: coder(&task_name), reads }, runtime, progress, fold)
            }
            CodedFrom::Mixtures(_, encode) => {
                let at = (0..encode.n_rows()).flat_map(|t| (0..n_own).map(move |m| (t, m)));
                let encode = at.map(|at| encode_in_f32(plan, encode, at)).collect::<Result<_>>()?;
                let work = Project { encode, n_atoms: n_own, dtype: Dtype::F32 };
                let operation = FormAndCode { coder: coder(&atom_name), work, engine, first_tensor: None };
                pass.run(&operation, runtime, progress, fold)
            }
        }
    }

    /// What one block adds to the sums: its Gram triangle where it is formed, then what was measured.
    pub(super) fn values_of<'p>(&self, part: &'p CodedChunk, index: usize) -> (&'p [f64], &'p [f64]) {
        let triangle = &part.triangles[(index * self.n_values).min(part.triangles.len())..][..self.n_values];
        (triangle, &part.measured[index * self.n_measured..][..self.n_measured])
    }

    /// What the sums and digests of all blocks come to; `plan` is the whole one.
    ///
    /// # Errors
    /// Rejected: an input that is not what it was when the Gram matrices were formed.
    pub(super) fn coded(
        &self,
        plan: &Plan,
        mut sums: Vec<f64>,
        inputs: TableOfDigests,
        mut written: TableOfDigests,
    ) -> Result<Coded> {
        let measured = &sums[self.n_slots * self.n_values..][..self.n_measured];
        let measured = measured
            .chunks_exact(N_MEASURED)
            .map(|sums| Measured { energy: sums[0], product: sums[1], decoded: sums[2] })
            .collect();
        if let Some(grams) = self.from.grams() {
            check_digests(plan, grams, &inputs)?;
            return Ok(Coded { grams: None, measured, digests: written });
        }
        sums.truncate(self.n_slots * self.n_values);
        let grams = assemble(plan, self.per, sums, inputs);
        let rows = written.digests.chunks_exact(written.n_columns.max(1)).zip(&grams.tensors);
        let stored: Vec<Digest> = rows.filter(|(_, tensor)| !tensor.frozen).flat_map(|(row, _)| row.to_vec()).collect();
        written.digests = stored;
        Ok(Coded { grams: Some(grams), measured, digests: written })
    }
}

/// The digest of everything beside the input files that decides the codes.
pub fn code_recipe(from: CodedFrom<'_>, coding: &Coding) -> Digest {
    let Coding { rate, kept_rate, kept, seed, .. } = coding;
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
