//! An edit as an adapter from end to end: what it changes, where it is cut, what that loses, and the folder.

use super::config::{Common, Config};
use super::dense::{Whole, prefixes};
use super::digests;
use super::gather::{Gathered, Used, gather, nothing};
use super::layout::specs;
use super::recompress::Work;
use super::report::AdapterReport;
use crate::basis::check_read;
use crate::checkpoint::names::{ADAPTER_CONFIG, CARD};
use crate::checkpoint::{
    Checkpoint, Dtype, Form, Leftover, OutputKind, SafetensorsLayout, SafetensorsWriter, StagedOutput, TensorSpec,
    check_output,
};
use crate::error::{Error, Result};
use crate::jobs::card::{adapter_card, check_model_id};
use crate::jobs::edit::output::EditOutput;
use crate::jobs::edit::weights::{Edit, Source};
use crate::pass::Runtime;
use crate::progress::Progress;
use crate::shown::{shown, shown_path};
use crate::solve::{Cut, Cuttable};
use std::path::Path;

/// Forms an edit of adapters and writes it as one adapter, in the layout that PEFT reads. `base` is needed where adapters give
/// tensors whole and `source` is a basis. Of `output` its target, type (f32 where none is given), command, what to do with an
/// existing folder and what to leave alone count.
///
/// # Errors
/// Usage: a cut that makes no sense, weights beyond f32. Rejected: an output that exists, columns that are no adapters, an edit
/// of nothing, factors that the type cannot hold, inputs that were written to meanwhile. Failed: I/O. Interrupted.
pub fn write_adapter(
    source: Source<'_>,
    edit: &Edit,
    cut: Cut,
    base: Option<&Checkpoint>,
    output: &EditOutput,
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<AdapterReport> {
    cut.check()?;
    if !source.fit().common_rows.is_empty() {
        return Err(Error::rejected(
            "an adapter of whole tensors expected, an edit of the first rows of an embedding found",
        )
        .hint("leave out --vocab common, or write the edited checkpoint with -o"));
    }
    let dtype = output.dtype.unwrap_or(tvb_kernels::Dtype::F32);
    let inputs = base.iter().fold(output.protect.clone().with(&source.inputs()), |all, base| all.with(&base.inputs()));
    check_output(OutputKind::Folder, &output.target, output.existing, &inputs)?;
    let edits = edit.edits(source)?;
    let used = Used::of(&edits)?;
    if let Source::Basis(basis) = source {
        check_read(&digests::read(&used)?, basis, None)?;
    }
    let base = base.or(used.origin);
    let gathered = gather(&edits, &used)?;
    refuse_pipeline(&gathered)?;
    let whole = Whole::of(&gathered, &edits, base)?;
    let work = Work { changes: &gathered.changes, target: &output.target, runtime, progress };
    let spectra = work.spectra()?;
    let ranks = cut.ranks(&cuttable(&gathered, &spectra));
    if ranks.iter().all(|rank| *rank == 0) {
        // PEFT takes no adapter without a module.
        return Err(nothing());
    }
    let names = gathered.changes.iter().map(|change| change.module.name.clone());
    let mut report =
        AdapterReport::of(names.zip(&ranks).zip(spectra).map(|((name, rank), values)| (name, *rank, values)));
    report.whole = whole.tensors.iter().map(|tensor| tensor.own.clone()).collect();
    let all = tensors(&gathered, &ranks, &whole, base, output);
    report.bytes = all.iter().map(TensorSpec::n_bytes).sum::<Result<u64>>()?;
    say(&report, &output.target, progress);

    let staged = StagedOutput::folder(&output.target, output.existing, Leftover::Clear, &inputs)?;
    let layout = SafetensorsLayout::new(&all, &Default::default())?;
    let writer = SafetensorsWriter::create(&staged.path().join("adapter_model.safetensors"), layout)?;
    let lost = work.write(&ranks, dtype, &writer)?;
    report.rounding = Some(lost.sqrt() / report.norm);
    if let Some(base) = base.filter(|_| !whole.tensors.is_empty()) {
        let first = all.len() - whole.tensors.len();
        whole.write(base, &used, output.dtype, first, &writer)?;
        base.check_unchanged()?;
    }
    for task in &used.columns {
        task.checkpoint.check_unchanged()?;
    }
    writer.finish()?;
    let config = config(&gathered, &ranks, &whole, base, &used, runtime);
    let text = format!("{:#}\n", config.json());
    staged.put(ADAPTER_CONFIG, &text)?;
    let id = output.base_model.clone().or(config.common.base_model.clone().filter(|id| check_model_id(id).is_ok()));
    let card = adapter_card(base, source, edit, &output.command, id.as_deref(), &report.line());
    staged.put(CARD, &card)?;
    staged.commit()?;
    Ok(report)
}

/// One adapter is one of one model.
fn refuse_pipeline(gathered: &Gathered) -> Result<()> {
    match gathered.changes.iter().find(|change| change.tensor.contains('/')) {
        None => Ok(()),
        Some(change) => Err(Error::rejected(format!(
            "tensor {}: adapters of one model expected, one of a pipeline's component found",
            shown(&change.tensor)
        ))
        .hint("name the component that the adapters belong to as the base, such as PIPELINE/unet")),
    }
}

fn cuttable<'a>(gathered: &Gathered, spectra: &'a [Vec<f64>]) -> Vec<Cuttable<'a>> {
    let each = gathered.changes.iter().zip(spectra).map(|(change, values)| {
        let (n, m) = change.size();
        Cuttable { values, n_numbers: n.saturating_add(m) }
    });
    each.collect()
}

/// Every tensor of the adapter: A and B of the modules whose rank is not 0, then those that are saved whole.
fn tensors(
    gathered: &Gathered,
    ranks: &[usize],
    whole: &Whole,
    base: Option<&Checkpoint>,
    output: &EditOutput,
) -> Vec<TensorSpec> {
    let dtype = output.dtype.map(Dtype::from);
    let kept = gathered.changes.iter().zip(ranks).filter(|(_, rank)| **rank > 0);
    let factors = kept.flat_map(|(change, rank)| specs(change, *rank, dtype.unwrap_or(Dtype::F32)));
    factors.chain(whole.specs(base, dtype)).collect()
}

/// Warns of a cut that loses much before anything is written; what is lost otherwise is in the report.
fn say(report: &AdapterReport, target: &Path, progress: &dyn Progress) {
    if report.is_far() {
        let percent = 100.0 * report.error;
        progress.warn(&format!(
            "{}: the cut loses {percent:.1} % of the edit's norm; a higher rank, or more of its energy, keeps more",
            shown_path(target)
        ));
    }
}

fn config(
    gathered: &Gathered,
    ranks: &[usize],
    whole: &Whole,
    base: Option<&Checkpoint>,
    used: &Used<'_>,
    runtime: &Runtime,
) -> Config {
    let kept = || gathered.changes.iter().zip(ranks).filter(|(_, rank)| **rank > 0);
    let names = base.iter().flat_map(|base| base.tensors()).flat_map(|tensor| prefixes(&tensor.name));
    Config {
        ranks: kept().map(|(change, rank)| (change.module.name.clone(), *rank)).collect(),
        all_modules: names.map(|name| gathered.rule.apply(name)).collect(),
        fan_in_fan_out: kept().any(|(change, _)| change.module.form == Form::Transposed),
        modules_to_save: whole.modules.clone(),
        has_biases: whole.has_biases,
        common: Common::of(&used.columns, &runtime.budget),
    }
}
