//! DoRA: each row of θ0 + s·B·A gets the length that was learnt for it. A row's own length is measured once, in f64.

use super::factors::Turn;
use super::parsed::{Module, Parsed};
use super::values;
use crate::checkpoint::{Axis, Checkpoint, LowRank, Place, Rescaled, Tensor, shown};
use crate::error::{Error, Result};

/// Elements of the base that are read at a time.
const PIECE: u64 = 1 << 18;

/// The place of what DoRA makes of `tensor`, one of the base's, with `factors` in its order.
pub(super) fn place(
    parsed: &Parsed,
    module: &Module,
    magnitude: &Tensor,
    factors: LowRank,
    turn: Turn,
    base: &Checkpoint,
    tensor: &Tensor,
) -> Result<Place> {
    // As PEFT has it: the rows of B·A, which are columns where it is kept transposed.
    let axis = match turn {
        Turn::Not => Axis::Rows,
        Turn::Transposed => Axis::Columns,
    };
    let file = &parsed.file;
    let lengths = lengths(&factors, axis, base, tensor)?;
    let magnitudes = values::read_part_f64(file, magnitude, 0, magnitude.n_elements() as u64)?;
    let bad = |why: String| {
        let (path, name) = (file.path().display(), shown(&magnitude.name));
        Error::rejected(format!("{path}: tensor {name}: {why}"))
    };
    if magnitudes.len() != lengths.len() {
        return Err(bad(format!("{} numbers expected, shape {:?} found", lengths.len(), magnitude.shape)));
    }
    if lengths.contains(&0.0) || magnitudes.iter().any(|value| !value.is_finite()) {
        return Err(bad(format!("a row of module {} has no length to be given another", shown(&module.path))));
    }
    let gains = magnitudes.iter().zip(&lengths).map(|(magnitude, length)| magnitude / length).collect();
    let by = Rescaled::new(factors, gains, axis, file.path(), file.budget())?;
    Ok(Place::Rescaled { base: Box::new(behind(tensor, file.files().len())), by })
}

/// Lengths of the rows or columns of θ0 + s·B·A.
fn lengths(factors: &LowRank, axis: Axis, base: &Checkpoint, tensor: &Tensor) -> Result<Vec<f64>> {
    let n_columns = factors.n_columns().max(1) as u64;
    let n_lengths = match axis {
        Axis::Rows => factors.n_rows(),
        Axis::Columns => factors.n_columns(),
    };
    let mut squares = vec![0.0f64; n_lengths];
    let mut moved = Vec::new();
    let n = tensor.n_elements() as u64;
    let mut first = 0;
    while first < n {
        base.budget().check()?;
        let end = n.min(first + PIECE);
        moved.resize((end - first) as usize, 0.0f32);
        factors.form(first as usize, &mut moved);
        let values = values::read_part_f64(base, tensor, first, end)?;
        for (element, (value, moved)) in (first..end).zip(values.iter().zip(&moved)) {
            let at = match axis {
                Axis::Rows => element / n_columns,
                Axis::Columns => element % n_columns,
            };
            if let Some(square) = squares.get_mut(at as usize) {
                *square += (value + f64::from(*moved)).powi(2);
            }
        }
        first = end;
    }
    Ok(squares.into_iter().map(f64::sqrt).collect())
}

/// The base's tensor where its files follow `n_files` others.
fn behind(tensor: &Tensor, n_files: usize) -> Tensor {
    let mut tensor = tensor.clone();
    if let Place::Contiguous { file, .. } | Place::Strided { file, .. } = &mut tensor.place {
        *file += n_files;
    }
    tensor
}
