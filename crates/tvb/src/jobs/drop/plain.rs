//! Tasks leave a basis that is not coded. Where each atom is a task, its file goes. Mixtures stay as they are: they have something of
//! every task, and what is left of the weights says what they give back of the others.

use super::options::{DropOptions, Dropped, Promise};
use super::stays::Stays;
use crate::basis::Basis;
use crate::basis::carry::Changing;
use crate::basis::history::Happened;
use crate::basis::manifest::{AtomRecord, Fidelity, TaskRecord};
use crate::basis::regrown::Regrown;
use crate::checkpoint::Inputs;
use crate::error::{Error, Result};
use crate::matrix::Matrix;
use crate::progress::Progress;
use crate::shown::shown_path;
use crate::solve::{
    Assessment, Coefficients, Gram, Rule, Solved, as_they_are, assess, assess_recovered, assess_remaining,
    edit_fidelity,
};
use tvb_kernels::triangle_len;

pub(super) fn drop_plain(
    basis: &Basis,
    stays: &Stays,
    options: &DropOptions,
    progress: &dyn Progress,
) -> Result<Dropped> {
    let manifest = &basis.manifest;
    let unknown = || {
        Error::rejected(format!(
            "{}: a basis that knows its Gram matrix expected, one that does not found",
            shown_path(&basis.folder)
        ))
        .hint("make it again from the originals with `tvb compress`")
    };
    let whole = Gram::new(basis.total_gram().ok_or_else(unknown)?)?;
    let solved = basis.solved()?;
    let of_single_tasks = manifest.method.name == "identity" && basis.n_atoms() == basis.n_tasks();
    let changing = Changing::new(basis, options.output.as_deref(), options.existing, &Inputs::none())?;
    let mut atoms: Vec<AtomRecord> = Vec::new();
    for (number, record) in manifest.atoms.iter().enumerate() {
        if of_single_tasks && !stays.left.contains(&number) {
            continue;
        }
        changing.carry_atom(record, progress)?;
        atoms.push(record.clone());
    }
    if let Some(shared) = manifest.shared() {
        changing.carry(&shared.file, progress)?;
    }
    let (coefficients, assessment, recovered) = left(basis, stays, &whole, &solved, of_single_tasks)?;
    let gram = whole.subset(&stays.left)?;
    let triangles = triangles_of(basis, &stays.left);
    let is_mixed = !of_single_tasks && manifest.generated.is_none();
    let mut notes = Vec::new();
    if is_mixed {
        notes.push(format!(
            "the atoms are mixtures and keep their bytes: they hold something of {} still",
            stays.names.join(", ")
        ));
    }
    let tasks = stays.left.iter().zip(&assessment.relative_errors).map(|(&task, error)| {
        let record = &manifest.tasks[task];
        // What a single task is off by does not change with the others.
        TaskRecord { relative_error: record.relative_error.or(Some(*error)), ..record.clone() }
    });
    let tasks: Vec<TaskRecord> = tasks.collect();
    let promise = Promise {
        edit: "sum of the tasks that stay".into(),
        before: before(basis, &whole, &solved, stays),
        after: Some(Fidelity { cosine: assessment.projected.cosine, norm_ratio: assessment.projected.norm_ratio }),
    };
    let errors = basis.coefficients.gram_errors.as_ref().map(|errors| errors.subset(&stays.left));
    let no_encode = Matrix::empty();
    let solved = Solved { gram, coefficients, assessment };
    let dtype = manifest.atoms.first().and_then(|atom| atom.dtype.float()).unwrap_or(tvb_kernels::Dtype::F32);
    let regrown = Regrown {
        before: basis,
        solved: &solved,
        triangles: &triangles,
        errors: errors.as_ref(),
        unbiased: manifest.estimates.as_ref().is_none_or(|estimates| estimates.unbiased),
        tasks,
        atoms,
        codes: None,
        encode: if is_mixed || solved.coefficients.encode.n_columns() == 0 {
            &no_encode
        } else {
            &solved.coefficients.encode
        },
        recovered: recovered.as_ref(),
        dtype,
    };
    let now = regrown.describe(changing.path(), (Happened::Dropped, stays.names.clone()), notes.clone())?;
    now.write(changing.path())?;
    let target = changing.target();
    changing.commit()?;
    let basis = Basis::open_within(&target, basis.budget())?;
    Ok(Dropped { basis, promises: vec![promise], remade: false, notes })
}

/// B, W and the errors of the tasks that are left.
fn left(
    basis: &Basis,
    stays: &Stays,
    whole: &Gram,
    solved: &Coefficients,
    of_single_tasks: bool,
) -> Result<(Coefficients, Assessment, Option<Matrix>)> {
    let n = stays.left.len();
    if of_single_tasks {
        let (coefficients, gram) = (as_they_are(n), whole.subset(&stays.left)?);
        if basis.manifest.shared().is_some() {
            let all = &basis.coefficients.recovered;
            let recovered = Matrix::from_fn(n, n, |i, j| all[(stays.left[i], stays.left[j])]);
            let assessment = assess_recovered(&gram, &recovered, &recovered)?;
            return Ok((coefficients, assessment, Some(recovered)));
        }
        let assessment = assess(&gram, &coefficients)?;
        return Ok((coefficients, assessment, None));
    }
    let decode = Matrix::from_fn(solved.n_stored(), n, |m, t| solved.decode[(m, stays.left[t])]);
    let now = Coefficients { decode, encode: Matrix::empty(), ..solved.clone() };
    let assessment = if solved.generated.is_some() {
        assess(&whole.subset(&stays.left)?, &now)?
    } else if solved.encode.n_columns() > 0 {
        assess_remaining(whole, solved, &stays.left)?
    } else {
        return Err(Error::rejected(format!(
            "{}: tasks cannot leave it: how its atoms were mixed is not known",
            shown_path(&basis.folder)
        ))
        .hint("make the basis again from the originals with `tvb compress`"));
    };
    Ok((now, assessment, None))
}

/// How true the sum of the tasks that stay was.
fn before(basis: &Basis, whole: &Gram, solved: &Coefficients, stays: &Stays) -> Option<Fidelity> {
    if basis.manifest.shared().is_some() {
        return None;
    }
    let alpha: Vec<f64> = (0..whole.n_tasks()).map(|task| if stays.left.contains(&task) { 1.0 } else { 0.0 }).collect();
    let found = edit_fidelity(whole, solved, &alpha, Rule::Projected).ok()?;
    Some(Fidelity { cosine: found.cosine, norm_ratio: found.norm_ratio })
}

/// The Gram matrices of the tasks that are left, packed, slot by slot.
pub(super) fn triangles_of(basis: &Basis, left: &[usize]) -> Vec<f64> {
    let mut triangles = Vec::with_capacity(basis.coefficients.grams.len() * triangle_len(left.len()));
    for gram in &basis.coefficients.grams {
        for (i, &a) in left.iter().enumerate() {
            triangles.extend(left.iter().take(i + 1).map(|&b| gram[(a, b)]));
        }
    }
    triangles
}
