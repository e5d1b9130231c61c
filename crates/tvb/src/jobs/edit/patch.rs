//! An edit as a coded patch: a basis of one task, which can be added to the base, negated, and added to others.

use super::output::EditOutput;
use super::weights::{Edit, Source};
use crate::basis::atoms::{CodeFiles, ColumnRates};
use crate::basis::coefficients::{self, Solution, Triangles};
use crate::basis::describe::{Described, DescribedCodes, describe};
use crate::basis::{Basis, check_read};
use crate::checkpoint::{Dtype, Leftover, StagedOutput};
use crate::columns::tasks::check_name;
use crate::digest::{Digest, TableOfDigests, fingerprint};
use crate::error::{Error, Result};
use crate::jobs::compress::check_room;
use crate::matrix::Matrix;
use crate::ops::code::{CodedEdit, EditParts};
use crate::ops::{GramTensor, Grams, Origin, Per};
use crate::pass::Runtime;
use crate::progress::Progress;
use crate::solve::{Coding, Gram, Method, Solved, as_they_are, assess};
use std::path::Path;
use tvb_kernels::Rate;

/// What a patch's task is called where its output has no name that can be one.
const NAME: &str = "edit";

/// Forms an edit and writes it as a basis of one task, coded at `rate`. Of `output` its target, what to do with an existing one
/// and what to leave alone count.
///
/// # Errors
/// Usage: weights beyond f32, an edit of random atoms, a memory cap that is too low. Rejected: an output that exists, a
/// damaged basis, inputs that do not fit, an edit that is nothing or too large to be coded. Failed: I/O, device.
/// Interrupted.
pub fn write_patch(
    source: Source<'_>,
    edit: &Edit,
    rate: Rate,
    seed: u64,
    output: &EditOutput,
    runtime: &Runtime,
    progress: &dyn Progress,
) -> Result<Basis> {
    edit.check(source)?;
    let edits = edit.edits(source)?;
    edit.warn_if_far(source, progress)?;
    let blocks = edits.uniform();
    let parts = EditParts::of(&blocks)?;
    let tensors = parts.tensors();
    let inputs = output.protect.clone().with(&source.inputs());
    let staged = StagedOutput::folder(&output.target, output.existing, Leftover::Clear, &inputs)?;
    let rates = ColumnRates { rate, n_own: 1, kept_rate: rate, n_kept: 0 };
    check_room(&output.target, CodeFiles::n_bytes(rates, &tensors)?)?;
    let mut files = CodeFiles::create(staged.path(), rates, &tensors)?;
    let coded = parts.code(rate, seed, &mut files, runtime, progress)?;
    if let Source::Basis(basis) = source {
        check_read(&coded.read, basis, None)?;
    }
    if !coded.moved.contains(&true) {
        return Err(Error::rejected("an edit that changes something expected, one of zeros found")
            .hint("weights that cancel each other leave nothing to write"));
    }
    let grams = grams(source, &coded, &tensors, &output.target)?;
    let stored: Vec<_> =
        tensors.iter().zip(&coded.moved).filter(|(_, moved)| **moved).map(|(tensor, _)| tensor.clone()).collect();
    let atoms = files.finish(&stored, &coded.digests, progress)?;
    let coefficients = as_they_are(1);
    let gram = Gram::new(grams.total())?.over(grams.n_moved_rows());
    let assessment = assess(&gram, &coefficients)?;
    let coding = Coding { rate, kept_rate: rate, kept: Matrix::zeros(1, 0), seed, kept_errors: Vec::new() };
    let raw = Matrix::zeros(1, 1);
    let sizes = crate::solve::Parts { coded: grams.total(), raw }.sizes(&coefficients);
    let assessment = assessment.coded(&gram, &coefficients, &coding, &sizes)?;
    let solution = Solution {
        encode: &coefficients.encode,
        decode: &coefficients.decode,
        mix: None,
        kept: None,
        recovered: None,
        eigenvalues: &gram.spectrum().values,
        gram_errors: None,
    };
    let file = coefficients::write(staged.path(), Some(Triangles::of(&grams)), &solution)?;
    let solved = Solved { gram: gram.clone(), coefficients: coefficients.clone(), assessment };
    let measured = [coded.measured];
    let codes = DescribedCodes { coding: &coding, kept: Vec::new(), measured: &measured, of_tasks: true };
    let method = Method::Identity;
    let described = Described {
        grams: &grams,
        solved: &solved,
        method: &method,
        dtype: tvb_kernels::Dtype::F32,
        codes: Some(codes),
        factors: None,
    };
    let mut manifest = describe(&described, atoms, file);
    for task in &mut manifest.tasks {
        // An edit was never a checkpoint.
        (task.source, task.fingerprint) = (None, None);
    }
    if let Source::Basis(basis) = source {
        manifest.base = basis.manifest.base.clone();
        if let Some(fidelity) = edit.predict(basis)? {
            manifest.notes.push(format!(
                "an edit from a basis, predicted against the same edit from the originals: gain {:.4}, noise {:.4}; the gain and noise above are the patch's own",
                fidelity.gain(),
                fidelity.noise()
            ));
        }
    }
    if !output.command.is_empty() {
        manifest.notes.push(format!("made by: {}", output.command));
    }
    manifest.write(staged.path())?;
    staged.commit()?;
    Basis::open_within(&output.target, &runtime.budget)
}

/// What describes the inputs of a basis, of an edit.
fn grams(source: Source<'_>, coded: &CodedEdit, tensors: &[(String, Vec<usize>)], target: &Path) -> Result<Grams> {
    let name = target.file_name().and_then(|name| name.to_str()).filter(|name| check_name(name).is_ok());
    let origin =
        |name: &str, source: &str, fingerprint| Origin { name: name.into(), source: source.into(), fingerprint };
    let (base, skipped, carried, left_out, mut still) = match source {
        Source::Basis(basis) => {
            let manifest = &basis.manifest;
            let base = origin("base", &manifest.base.source, manifest.base.fingerprint.unwrap_or_default());
            let left_out = manifest.left_out.clone();
            (base, manifest.skipped.clone(), manifest.carried.clone(), left_out, manifest.frozen.clone())
        }
        Source::Checkpoints(plan) => {
            // In the plan's order, which blocks need not keep.
            let digests = plan.tensors.iter().filter_map(|planned| {
                let name = &planned.name;
                let tensor = plan.column_checkpoint(0).get(name)?;
                Some((name.as_str(), tensor.dtype, tensor.shape.as_slice(), *coded.read.base.get(name)?))
            });
            let base = origin("base", &plan.base.path().display().to_string(), fingerprint(digests));
            (base, plan.skipped.clone(), plan.carried.clone(), plan.left_out.clone(), Vec::new())
        }
    };
    let of_edit = tensors.iter().zip(&coded.moved).map(|((name, shape), moved)| GramTensor {
        name: name.clone(),
        dtype: Dtype::F32,
        shape: shape.clone(),
        frozen: !moved,
    });
    let mut all: Vec<GramTensor> = of_edit.collect();
    all.extend(still.drain(..).map(|name| GramTensor { name, dtype: Dtype::F32, shape: Vec::new(), frozen: true }));
    Ok(Grams {
        base,
        tasks: vec![origin(name.unwrap_or(NAME), "", Digest::default())],
        tensors: all,
        per: Per::Whole,
        triangles: vec![coded.measured.energy],
        digests: TableOfDigests { n_columns: 2, digests: Vec::new() },
        skipped,
        carried,
        left_out,
        fit: source.fit().clone(),
    })
}
