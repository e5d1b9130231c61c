//! The small files of a basis after tasks have joined or left: coefficients, and everything in the manifest that follows from them.

use super::coefficients::{self, GramErrors, Solution, Triangles};
use super::describe::{DescribedCodes, diagnostics};
use super::grown::{estimates_of, mark_grown};
use super::history::Happened;
use super::manifest::{AdditionRecord, AtomRecord, Fidelity, Manifest, TaskRecord};
use super::open::Basis;
use crate::error::Result;
use crate::matrix::Matrix;
use crate::ops::code::Measured;
use crate::solve::{Assessment, Coding, Solved};
use std::path::Path;
use tvb_kernels::Dtype;

/// What a basis is now.
pub(crate) struct Regrown<'a> {
    /// As it was.
    pub(crate) before: &'a Basis,
    /// B, W and their errors now.
    pub(crate) solved: &'a Solved,
    /// [n_slots, T(T+1)/2].
    pub(crate) triangles: &'a [f64],
    /// How far entries of the Gram matrix may be off.
    pub(crate) errors: Option<&'a GramErrors>,
    /// Whether what is estimated is off by noise alone.
    pub(crate) unbiased: bool,
    /// The tasks, in order.
    pub(crate) tasks: Vec<TaskRecord>,
    /// The atoms' files, in order.
    pub(crate) atoms: Vec<AtomRecord>,
    /// How they are coded, where they are, and what came out of each.
    pub(crate) codes: Option<(&'a Coding, Vec<String>, Vec<Measured>)>,
    /// B as it is recorded; empty where the atoms are no combination of the tasks that are left.
    pub(crate) encode: &'a Matrix,
    /// The Gram matrix of the tasks as they come back, of adapters in shared spaces.
    pub(crate) recovered: Option<&'a Matrix>,
    /// How the floats are stored, where they are.
    pub(crate) dtype: Dtype,
}

impl Regrown<'_> {
    /// Writes the coefficients into `folder` and answers the manifest, which is not written yet.
    ///
    /// # Errors
    /// Failed: the system cannot write.
    pub(crate) fn describe(
        self,
        folder: &Path,
        event: (Happened, Vec<String>),
        notes: Vec<String>,
    ) -> Result<Manifest> {
        let Solved { gram, coefficients, assessment } = self.solved;
        let n_tasks = gram.n_tasks();
        let kept = self.codes.as_ref().map(|(coding, ..)| &coding.kept).filter(|kept| kept.n_columns() > 0);
        let solution = Solution {
            encode: self.encode,
            decode: &coefficients.decode,
            mix: coefficients.generated.as_ref().map(|generated| &generated.mix),
            kept,
            recovered: self.recovered,
            eigenvalues: &gram.spectrum().values,
            gram_errors: self.errors.filter(|errors| errors.n_pairs() > 0),
        };
        let triangles = Triangles { n_tasks, values: self.triangles };
        let file = coefficients::write(folder, Some(triangles), &solution)?;
        let before = &self.before.manifest;
        let mut now = before.clone();
        now.tasks = self.tasks;
        now.stored.n_atoms = self.atoms.len();
        now.atoms = self.atoms;
        now.coefficients = file;
        let codes = self.codes.as_ref().map(|(coding, kept, measured)| DescribedCodes {
            coding,
            kept: kept.clone(),
            measured,
            of_tasks: true,
        });
        if let (Some(record), Some(codes)) = (&mut now.coded, &codes) {
            record.n_kept = codes.coding.n_kept();
            record.kept_bits = codes.coding.kept_rate.name().into();
            record.kept = codes.kept.clone();
            record.kept_errors = codes.coding.kept_errors.clone();
        }
        if let Some(options) = now.method.options.as_object_mut() {
            options.insert("n_atoms".into(), coefficients.n_atoms.into());
            options.insert("n_stored".into(), coefficients.n_stored().into());
        }
        let Assessment { loss, relative_loss, spectral_bound, projected, sum, .. } = assessment;
        let fidelity = |of: &crate::solve::Fidelity| Fidelity { cosine: of.cosine, norm_ratio: of.norm_ratio };
        (now.loss, now.relative_loss, now.spectral_bound) = (Some(*loss), Some(*relative_loss), Some(*spectral_bound));
        now.addition = Some(AdditionRecord { projected: fidelity(projected), sum: fidelity(sum) });
        now.diagnostics = diagnostics(gram, assessment, self.dtype, codes.as_ref());
        let estimates = self.errors.and_then(|errors| estimates_of(errors, gram.matrix(), self.unbiased));
        mark_grown(&mut now, before, event, estimates, notes);
        Ok(now)
    }
}
