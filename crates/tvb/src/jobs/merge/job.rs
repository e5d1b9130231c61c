//! A merge from end to end: columns, surveys of the whole model where they are asked for, every tensor, and the folder around it.

use super::coefficients::{mix_of_tensor, products};
use super::della;
use super::elements::{Rules, Ties, is_whole, whole_bands};
use super::matrices::merged_matrix;
use super::method::{Family, Method};
use super::settings::{RowWise, TensorSettings};
use crate::basis::{OpenAtoms, check_read};
use crate::checkpoint::{Checkpoint, Inputs};
use crate::columns::fit::Rest;
use crate::columns::plan::PlannedTensor;
use crate::error::{Error, Result};
use crate::jobs::card::model_card;
use crate::jobs::edit::{EditOutput, Source, writer_for};
use crate::ops::edits::{Edits, Read};
use crate::ops::merge::{MergeColumns, MergePart, Stream};
use crate::ops::outputs::Outputs;
use crate::ops::range::{Clipped, RangeCheck};
use crate::ops::reconstruct::copy_part;
use crate::pass::Runtime;
use crate::progress::Progress;
use crate::shown::shown_path;
use crate::solve::Rule;
use crate::solve::merge::{Mix, meta_gpt, orthogonalise};
use std::collections::HashSet;
use tvb_kernels::{Consensus, Keep};

/// Settings of a tensor by its name and shape.
pub type SettingsOf<'a> = dyn Fn(&str) -> Result<TensorSettings> + 'a;

/// A merge that is to be written: what, from what, onto what, and where.
pub struct MergeJob<'a> {
    /// What task vectors are formed from.
    pub source: Source<'a>,
    /// Which tasks of the source, in the order of the settings.
    pub tasks: Vec<usize>,
    /// The merger.
    pub method: Method,
    /// What it is told of each tensor.
    pub settings: &'a SettingsOf<'a>,
    /// Whether the base is only where task vectors are taken from, and the merge is of whole models (recipes without a base).
    pub of_models: bool,
    /// Whether the base is one of the models that are merged (karcher).
    pub with_base: bool,
    /// How values that equal a threshold are dealt with.
    pub ties: Ties,
    /// mergekit's guards against division by little, in place of none.
    pub with_guards: bool,
    /// Seed of what is random.
    pub seed: u64,
    /// The task that the result is for (tall, emr).
    pub only_for: Option<usize>,
    /// Task vectors are made orthogonal to each other first.
    pub orthogonalise: bool,
    /// The base.
    pub base: &'a Checkpoint,
    /// Where it goes.
    pub output: &'a EditOutput,
    /// The recipe, for the model card.
    pub recipe: String,
}

/// What a merge found and wrote.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct MergeReport {
    /// What was written as the largest finite value of its type.
    pub clipped: Clipped,
    /// Tensors that were merged.
    pub n_merged: usize,
    /// Tensors that were taken from the base.
    pub n_copied: usize,
}

impl MergeJob<'_> {
    /// What the output must leave alone.
    pub fn inputs(&self) -> Inputs {
        self.source.inputs().with(&self.base.inputs())
    }

    /// The task vectors, one output for each.
    fn edits(&self) -> Result<Edits> {
        let chosen = |n: usize| -> Result<Vec<Vec<f64>>> {
            self.tasks
                .iter()
                .map(|&task| {
                    let mut row = vec![0.0; n];
                    *row.get_mut(task).ok_or_else(|| Error::failed(format!("task number {task} of {n}")))? = 1.0;
                    Ok(row)
                })
                .collect()
        };
        match self.source {
            Source::Basis(basis) => {
                let solved = basis.solved()?;
                let rows = chosen(basis.task_names().len())?;
                let over_atoms: Vec<Vec<f64>> = rows.iter().map(|row| solved.weights(row, Rule::Projected)).collect();
                Ok(OpenAtoms::new(basis)?.edits(&over_atoms))
            }
            Source::Checkpoints(plan) => Ok(Edits::from_checkpoints(plan, &chosen(plan.tasks.len())?)),
        }
    }

    fn names(&self) -> Vec<String> {
        let all = self.source.task_names();
        self.tasks.iter().filter_map(|&task| all.get(task).cloned()).collect()
    }

    /// What is merged and how, before any data is read.
    ///
    /// # Errors
    /// As [`write`](Self::write), but for what only data tells.
    pub fn prepare(&self) -> Result<Prepared> {
        let edits = self.edits()?;
        let columns = MergeColumns::new(self.base, &edits)?;
        let mut tensors = Vec::new();
        for part in &columns.parts {
            for tensor in &part.plan.tensors {
                let settings = (self.settings)(&tensor.name)?;
                if settings.weight.len() != self.tasks.len() {
                    return Err(Error::failed(format!(
                        "settings of {} tasks expected, of {} found",
                        self.tasks.len(),
                        settings.weight.len()
                    )));
                }
                tensors.push(Planned { name: tensor.name.clone(), settings });
            }
        }
        if let (Some(first), true) = (tensors.first(), tensors.iter().any(|t| is_whole(self.method, &t.settings)))
            && let Some(other) = tensors.iter().find(|t| t.settings.density != first.settings.density)
        {
            return Err(Error::usage(format!(
                "one density for all tensors expected where thresholds are of whole task vectors, others found in {}",
                crate::shown::shown(&other.name)
            ))
            .hint("--trim tensor asks for thresholds of each tensor"));
        }
        let edited: HashSet<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        let n_copied = edits.fit.rest(self.base, &edited).len();
        if self.of_models && n_copied > 0 && self.tasks.len() > 1 && matches!(self.source, Source::Basis(_)) {
            return Err(Error::usage("a merge of whole models from a basis: checkpoints expected")
                .hint("a basis holds what moved; give it a base_model"));
        }
        Ok(Prepared { edits, columns, tensors, n_copied })
    }

    /// Merges and writes.
    ///
    /// # Errors
    /// Usage: settings that do not fit together, a memory cap that is too low. Rejected: an output that exists, a damaged basis,
    /// another base, inputs that do not fit or were written to meanwhile, values that are not finite or that the format cannot
    /// hold. Failed: I/O, device. Interrupted.
    pub fn write(&self, runtime: &Runtime, progress: &dyn Progress) -> Result<MergeReport> {
        let Prepared { mut edits, mut columns, tensors, n_copied } = self.prepare()?;
        let writers = [writer_for(&edits, Some(self.base), self.output, &self.inputs())?];
        let outputs = Outputs::files(&writers, self.output.format());
        let range = RangeCheck::new(self.output.clip);
        let edited: HashSet<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        let rest = edits.fit.rest(self.base, &edited);
        let n_bytes: u64 = columns.parts.iter().map(|part| part.plan.n_bytes()).sum();
        let n_passes = self.n_passes(&tensors);
        progress.begin("merge", n_bytes * n_passes + rest.iter().map(Rest::n_bytes).sum::<u64>());
        let mut report = MergeReport { n_merged: tensors.len(), n_copied, ..MergeReport::default() };
        if self.orthogonalise {
            let gram = self.gram(&columns, runtime, progress)?;
            edits.weights = mixed(&orthogonalise(&gram)?, &edits.weights);
            columns = MergeColumns::new(self.base, &edits)?;
        }
        let names = self.names();
        let rules = Rules {
            method: self.method,
            ties: self.ties,
            seed: self.seed,
            names: &names,
            only_for: self.only_for,
            dtype: self.output.dtype,
            with_guards: self.with_guards,
        };
        let whole = self.whole(&rules, &columns, &tensors, runtime, progress)?;
        let mut read = Read::default();
        let mut settings = tensors.iter().map(|tensor| &tensor.settings);
        for part in &columns.parts {
            for (one, tensor) in part.tensors().zip(&part.plan.tensors) {
                let Some(settings) = settings.next() else { continue };
                let stream = Stream { part: &one, runtime, progress };
                let merging = Merging { job: self, rules: &rules, whole: &whole, outputs, range: &range };
                let made = merging.tensor(&stream, tensor, settings);
                read.add(made.map_err(|error| error.context(crate::shown::shown(&tensor.name).to_string()))?);
            }
        }
        for part in rest {
            let digest = copy_part(self.base, &part, outputs, &range, progress)?;
            if part.is_seen {
                read.base.insert(part.name, digest);
            }
        }
        self.base.check_unchanged()?;
        progress.finish();
        report.clipped = range.finish(|_| shown_path(&self.output.target).to_string())?;
        if let Source::Basis(basis) = self.source {
            check_read(&read, basis, Some(self.base).filter(|_| !self.output.force))?;
        }
        let id = self.output.base_model.as_deref();
        for writer in writers {
            writer.add_card(&model_card(self.base, self.source, &self.recipe, &self.output.command, id))?;
            writer.commit()?;
        }
        if !report.clipped.is_none() {
            progress.warn(&format!("{}: {}", shown_path(&self.output.target), report.clipped));
        }
        Ok(report)
    }

    /// Passes over every tensor, about: for the progress bar, and for who asks before.
    pub fn n_passes(&self, tensors: &[Planned]) -> u64 {
        let settings = tensors.first().map(|tensor| &tensor.settings);
        let rescales = settings.is_some_and(|settings| settings.rescale == super::settings::Rescale::L1);
        let of_method = match self.method {
            Method::TaskArithmetic | Method::Linear | Method::SignConsensus | Method::Consensus | Method::Tall => 1,
            Method::DareLinear | Method::DareTies | Method::Emr | Method::MetaGpt => 1,
            Method::Sce => 4,
            _ => 2,
        };
        of_method + u64::from(rescales) + u64::from(self.orthogonalise)
    }

    /// Inner products of all task vectors over all tensors: \[T, T\].
    fn gram(&self, columns: &MergeColumns, runtime: &Runtime, progress: &dyn Progress) -> Result<faer::Mat<f64>> {
        let mut gram = faer::Mat::zeros(columns.n_tasks, columns.n_tasks);
        for part in &columns.parts {
            gram += products(&Stream { part, runtime, progress })?.of_tasks();
        }
        Ok(gram)
    }

    /// What is asked of whole task vectors.
    fn whole(
        &self,
        rules: &Rules<'_>,
        columns: &MergeColumns,
        tensors: &[Planned],
        runtime: &Runtime,
        progress: &dyn Progress,
    ) -> Result<Whole> {
        let streams: Vec<Stream<'_>> = columns.parts.iter().map(|part| Stream { part, runtime, progress }).collect();
        let mut whole = Whole::default();
        let Some(first) = tensors.first().map(|tensor| &tensor.settings) else { return Ok(whole) };
        if is_whole(self.method, first) {
            whole.keeps = Some(whole_bands(&streams, &first.density)?);
        }
        if self.method == Method::MetaGpt {
            let gram = self.gram(columns, runtime, progress)?;
            whole.scales = Some(meta_gpt(&gram)?);
        }
        if let (Method::Emr, Some(task)) = (self.method, self.only_for) {
            let merge = rules.plain(first, Consensus::Largest);
            let mut sums = tvb_kernels::MergeSums::default();
            for stream in &streams {
                sums.add(&stream.sums(&merge, false)?);
            }
            let at = |list: &[f64]| list.get(task).copied().unwrap_or(0.0);
            let (own, elected) = (at(&sums.kept_l1), at(&sums.elected_l1));
            whole.factor = if elected > 0.0 { own / elected } else { 1.0 };
        }
        Ok(whole)
    }
}

/// Task vectors mixed: row t of the answer is Σ_j C\[j, t\]·weights\[j\].
fn mixed(mixing: &faer::Mat<f64>, weights: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let n = weights.len();
    let row = |task: usize| {
        let mut sum = vec![0.0; weights.first().map_or(0, Vec::len)];
        for (from, weights) in weights.iter().enumerate() {
            sum.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += mixing[(from, task)] * weight);
        }
        sum
    };
    (0..n).map(row).collect()
}

/// A merge before any data is read.
#[derive(Clone, Debug)]
pub struct Prepared {
    edits: Edits,
    columns: MergeColumns,
    /// Tensors that are merged, in order.
    pub tensors: Vec<Planned>,
    /// Tensors that are taken from the base as they are.
    pub n_copied: usize,
}

impl Prepared {
    /// Bytes of one pass over all that is merged.
    pub fn n_bytes(&self) -> u64 {
        self.columns.parts.iter().map(|part: &MergePart| part.plan.n_bytes()).sum()
    }
}

/// A tensor and what the merger is told of it.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Its name.
    pub name: String,
    /// The settings.
    pub settings: TensorSettings,
}

/// What was found of whole task vectors.
#[derive(Debug)]
struct Whole {
    /// Which values of each stay.
    keeps: Option<Vec<Keep>>,
    /// Scales of the tasks.
    scales: Option<Vec<f64>>,
    /// Factor of one task's part.
    factor: f64,
}

impl Default for Whole {
    fn default() -> Whole {
        Whole { keeps: None, scales: None, factor: 1.0 }
    }
}

/// A merge on its way.
struct Merging<'a> {
    job: &'a MergeJob<'a>,
    rules: &'a Rules<'a>,
    whole: &'a Whole,
    outputs: Outputs<'a>,
    range: &'a RangeCheck,
}

impl Merging<'_> {
    /// What was read, where a basis says what it should be: rows and matrices are read in pieces that no digest is of.
    fn digests(&self, stream: &Stream<'_>) -> Result<Read> {
        match self.job.source {
            Source::Basis(_) => stream.digests(),
            Source::Checkpoints(_) => Ok(Read::default()),
        }
    }

    /// Merges one tensor and writes it.
    fn tensor(&self, stream: &Stream<'_>, tensor: &PlannedTensor, settings: &TensorSettings) -> Result<Read> {
        let Merging { job, rules, whole, outputs, range } = *self;
        match job.method.family() {
            Family::Elements if matches!(job.method, Method::Della | Method::DellaLinear) => {
                della::merge(stream, rules, (&tensor.name, &tensor.shape), settings, outputs, range)?;
                self.digests(stream)
            }
            Family::Elements => {
                let mut merge = rules.of_tensor(stream, &tensor.name, settings, whole.keeps.as_deref())?;
                merge.lambda *= whole.factor as f32;
                stream.write(&merge, outputs, range)
            }
            Family::Coefficients if settings.rows != RowWise::Whole => {
                super::row_wise::merge(stream, job.method, job.of_models, &tensor.shape, settings, outputs, range)?;
                self.digests(stream)
            }
            Family::Coefficients => {
                let mix = match &whole.scales {
                    Some(scales) => {
                        let scaled = scales.iter().zip(&settings.weight).map(|(scale, w)| scale * w * settings.lambda);
                        Mix { base: 1.0, tasks: scaled.collect() }
                    }
                    None => mix_of_tensor(stream, job.method, job.of_models, job.with_base, settings)?,
                };
                let mut merge = rules.plain(settings, Consensus::Sum);
                merge.tasks.iter_mut().zip(&mix.tasks).for_each(|(task, weight)| task.factor = *weight as f32);
                (merge.base, merge.lambda) = (mix.base as f32, 1.0);
                stream.write(&merge, outputs, range)
            }
            Family::Matrices => {
                let merged = merged_matrix(stream, job.method, &tensor.shape, settings)?;
                match merged {
                    Some(delta) => {
                        stream.write_whole(&delta, settings.lambda as f32, outputs, range)?;
                        self.digests(stream)
                    }
                    None => {
                        // No matrix: the mean of the task vectors, as the papers do.
                        let mut merge = rules.plain(settings, Consensus::Sum);
                        merge.lambda /= settings.weight.len().max(1) as f32;
                        stream.write(&merge, outputs, range)
                    }
                }
            }
        }
    }
}
