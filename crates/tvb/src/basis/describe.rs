//! Fills in `basis.json` from the Gram matrices and what the solver found.

use super::manifest::{
    AdditionRecord, AtomRecord, BaseRecord, CODE, CODED_VERSION, CodedRecord, CodedTensor, FITTED_VERSION, FORMAT,
    FactorsRecord, Fidelity, FileRecord, GENERATOR, GeneratedRecord, Manifest, MethodRecord, PLAIN_VERSION,
    StoredTensors, TaskRecord,
};
use super::seal::UNSEALED;
use crate::columns::coded::is_coded;
use crate::ops::code::Measured;
use crate::ops::{GramTensor, Grams};
use crate::solve::{Assessment, Coding, Gram, Method, Solved};
use serde_json::{Value, json};
use tvb_kernels::Dtype;

/// What a basis is described by.
#[derive(Clone, Debug)]
pub struct Described<'a> {
    /// The inputs.
    pub grams: &'a Grams,
    /// B, W and their errors.
    pub solved: &'a Solved,
    /// How they were found.
    pub method: &'a Method,
    /// How atoms are stored.
    pub dtype: Dtype,
    /// How they are coded, where they are.
    pub codes: Option<DescribedCodes<'a>>,
    /// The stored tensors, where atoms are adapters of which the factors are stored.
    pub factors: Option<FactorsRecord>,
}

/// What coded atoms are described by.
#[derive(Clone, Debug)]
pub struct DescribedCodes<'a> {
    /// How they are coded.
    pub coding: &'a Coding,
    /// The edits that are kept, as they were written.
    pub kept: Vec<String>,
    /// What came out of each atom.
    pub measured: &'a [Measured],
    /// Whether the atoms are the tasks, so that what was measured is about these.
    pub of_tasks: bool,
}

/// The manifest of a basis whose files are written.
pub fn describe(described: &Described<'_>, atoms: Vec<AtomRecord>, coefficients: FileRecord) -> Manifest {
    let Described { grams, solved, method, dtype, ref codes, ref factors } = *described;
    let assessment = &solved.assessment;
    let measured = |task: usize| {
        let codes = codes.as_ref().filter(|codes| codes.of_tasks)?;
        codes.measured.get(task)?.gain_and_noise()
    };
    let predicted = assessment.norms.iter().zip(&assessment.gains).zip(&assessment.noises);
    let with_errors = predicted.zip(&assessment.relative_errors);
    let tasks = grams.tasks.iter().zip(with_errors).enumerate().map(|(task, (origin, figures))| {
        let (((norm, gain), noise), error) = figures;
        let found = measured(task);
        TaskRecord {
            name: origin.name.clone(),
            source: Some(origin.source.clone()),
            fingerprint: Some(origin.fingerprint),
            norm: Some(*norm),
            relative_error: Some(found.map_or(*error, |(gain, noise)| (1.0 - gain).powi(2) + noise)),
            gain: Some(found.map_or(*gain, |(gain, _)| gain)),
            noise: Some(found.map_or(*noise, |(_, noise)| noise)),
            error_bound: None,
        }
    });
    let stored = grams.tensors.iter().filter(|tensor| !tensor.frozen);
    let fidelity = |of: crate::solve::Fidelity| Fidelity { cosine: of.cosine, norm_ratio: of.norm_ratio };
    let mut notes = solved.coefficients.notes.clone();
    notes.extend(rounding_note(described).filter(|_| factors.is_none()));
    Manifest {
        format: FORMAT.into(),
        version: match (grams.fit.is_plain() && factors.is_none(), codes) {
            (false, _) => FITTED_VERSION,
            (true, Some(_)) => CODED_VERSION,
            (true, None) => PLAIN_VERSION,
        },
        checksum: UNSEALED,
        tool: crate::TOOL.into(),
        method: MethodRecord { name: method.name().into(), options: method_options(solved, method) },
        base: BaseRecord { source: grams.base.source.clone(), fingerprint: grams.base_fingerprint() },
        tasks: tasks.collect(),
        stored: StoredTensors {
            name: StoredTensors::NAME.into(),
            tensors: stored.clone().map(|tensor| tensor.name.clone()).collect(),
            n_atoms: atoms.len(),
        },
        atoms,
        generated: solved.coefficients.generated.as_ref().map(|generated| GeneratedRecord {
            generator: GENERATOR.into(),
            seed: generated.seed,
            n_atoms: generated.mix.n_columns(),
            shapes: stored.map(|tensor| tensor.shape.clone()).collect(),
        }),
        coded: codes.as_ref().map(|codes| coded_record(codes, grams)),
        factors: factors.clone(),
        coefficients,
        frozen: grams.tensors.iter().filter(|tensor| tensor.frozen).map(|tensor| tensor.name.clone()).collect(),
        skipped: grams.skipped.clone(),
        carried: grams.carried.clone(),
        left_out: grams.left_out.clone(),
        fit: grams.fit.clone(),
        loss: Some(assessment.loss),
        spectral_bound: Some(assessment.spectral_bound),
        relative_loss: Some(assessment.relative_loss),
        addition: Some(AdditionRecord { projected: fidelity(assessment.projected), sum: fidelity(assessment.sum) }),
        diagnostics: diagnostics(&solved.gram, assessment, dtype, codes.as_ref()),
        notes,
        history: Vec::new(),
        estimates: None,
    }
}

fn method_options(solved: &Solved, method: &Method) -> Value {
    let coefficients = &solved.coefficients;
    json!({
        "n_atoms": coefficients.n_atoms,
        "n_stored": coefficients.n_stored(),
        "balance": coefficients.balance,
        "coordinates": coefficients.coordinates,
        "options": method,
    })
}

/// Everything the Gram matrix alone tells, for `inspect` and other programs.
pub(crate) fn diagnostics(
    gram: &Gram,
    assessment: &Assessment,
    dtype: Dtype,
    codes: Option<&DescribedCodes<'_>>,
) -> Value {
    let finite = |value: f64| if value.is_finite() { json!(value) } else { Value::Null };
    let rounding: Vec<Value> = assessment
        .rounding
        .iter()
        .map(|rounding| {
            json!({
                "dtype": crate::checkpoint::Dtype::from(rounding.dtype).to_string().to_lowercase(),
                "stored": rounding.dtype == dtype,
                "relative_errors": rounding.relative_errors,
                "worst": finite(rounding.worst),
                "warned": rounding.warned,
            })
        })
        .collect();
    let mut diagnostics = json!({
        "mean_error": assessment.mean,
        "worst_error": assessment.worst,
        "worst_task": assessment.worst_task,
        "squared_errors": assessment.squared_errors,
        "effective_rank": finite(assessment.effective_rank),
        "epsilon": assessment.epsilon,
        "condition": finite(assessment.condition),
        "atom_norms": assessment.atom_norms,
        "recovered_norms": assessment.recovered_norms,
        "cosines": rows(&gram.cosines()),
        "leakage": rows(&assessment.leakage),
        "atoms_for_error": atoms_for_error(gram),
        "rounding": rounding,
    });
    if let (Some(codes), Some(all)) = (codes, diagnostics.as_object_mut()) {
        let found = codes.measured.iter().map(|measured| measured.gain_and_noise());
        let of_atoms: Vec<Value> = found
            .map(|found| found.map_or(Value::Null, |(gain, noise)| json!({ "gain": gain, "noise": noise })))
            .collect();
        all.insert("predicted_gains".to_owned(), json!(assessment.gains));
        all.insert("predicted_noises".to_owned(), json!(assessment.noises));
        all.insert("measured_atoms".to_owned(), Value::Array(of_atoms));
    }
    diagnostics
}

fn coded_record(codes: &DescribedCodes<'_>, grams: &Grams) -> CodedRecord {
    let Coding { rate, kept_rate, seed, .. } = codes.coding;
    let stored = grams.tensors.iter().enumerate().filter(|(_, tensor)| !tensor.frozen);
    let tensor = |(number, tensor): (usize, &GramTensor)| CodedTensor {
        shape: tensor.shape.clone(),
        number: number as u32,
        coded: is_coded(&tensor.shape),
    };
    CodedRecord {
        code: CODE.into(),
        bits: rate.name().into(),
        kept_bits: kept_rate.name().into(),
        n_kept: codes.coding.n_kept(),
        kept: codes.kept.clone(),
        seed: *seed,
        tensors: stored.map(tensor).collect(),
        kept_errors: Vec::new(),
    }
}

/// M that the spectrum needs for a relative loss: a bound below which no method gets.
fn atoms_for_error(gram: &Gram) -> Value {
    let trace = gram.trace();
    let n_tasks = gram.n_tasks();
    let needed = |target: f64| {
        (1..=n_tasks)
            .find(|&m| gram.spectral_bound(m) * (n_tasks * n_tasks) as f64 <= target * trace)
            .unwrap_or(n_tasks)
    };
    json!({ "0.2": needed(0.2), "0.1": needed(0.1), "0.05": needed(0.05), "0.01": needed(0.01) })
}

fn rows(matrix: &crate::matrix::Matrix) -> Vec<Vec<f64>> {
    (0..matrix.n_rows()).map(|i| (0..matrix.n_columns()).map(|j| matrix[(i, j)]).collect()).collect()
}

/// Says so where rounding the atoms to their storage format is a noticeable part of the error.
fn rounding_note(described: &Described<'_>) -> Option<String> {
    let Described { grams, solved, dtype, .. } = *described;
    let rounding = solved.assessment.rounding.iter().find(|rounding| rounding.dtype == dtype)?;
    if rounding.warned.is_empty() {
        return None;
    }
    let names: Vec<&str> =
        rounding.warned.iter().take(5).filter_map(|&task| Some(grams.tasks.get(task)?.name.as_str())).collect();
    let more = if rounding.warned.len() > names.len() { ", …" } else { "" };
    Some(format!(
        "storage in {} adds more than a tenth to the error of {} of {} tasks ({}{more}): --dtype f32 or --coordinates orthogonal avoids it",
        crate::checkpoint::Dtype::from(dtype).to_string().to_lowercase(),
        rounding.warned.len(),
        grams.tasks.len(),
        names.join(", ")
    ))
}
