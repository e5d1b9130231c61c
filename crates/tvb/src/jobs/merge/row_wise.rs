//! Model Stock and nuslerp with an answer for each row of a matrix, or for each column.

use super::coefficients::vectors_of;
use super::method::Method;
use super::settings::{RowWise, TensorSettings};
use crate::error::{Error, Result};
use crate::ops::merge::{RowGroup, Rows, Stream};
use crate::ops::outputs::Outputs;
use crate::ops::range::RangeCheck;
use crate::solve::merge::{Interpolated, Of, model_stock};

/// Merges the stream's one tensor and writes it.
///
/// # Errors
/// Usage: a method that has no such form. Else as [`Stream::for_rows`].
pub(super) fn merge(
    stream: &Stream<'_>,
    method: Method,
    of_models: bool,
    shape: &[usize],
    settings: &TensorSettings,
    outputs: Outputs<'_>,
    range: &RangeCheck,
) -> Result<()> {
    let rows = Rows::of_shape(shape);
    let t = Interpolated::t(&settings.weight);
    let of = vectors_of(of_models);
    match (method, settings.rows) {
        (Method::ModelStock, _) => stream.for_rows(
            rows,
            |group| {
                let delta = by_row(&group, rows, stock_of_row);
                stream.write_rows(&group, rows, &delta, 1.0, outputs, range)
            },
            |()| Ok(()),
        ),
        (Method::NuSlerp, RowWise::Rows) => stream.for_rows(
            rows,
            |group| {
                let (vectors, base) = vectors(&group, of);
                let between = |row: usize, out: &mut [f32]| {
                    let own = |vector: &Vec<f32>| part(vector, row, rows.length).to_vec();
                    let (a, b) = match vectors.as_slice() {
                        [a, b] => (own(a), own(b)),
                        _ => return,
                    };
                    let at = Interpolated::new(dot(&a, &a), dot(&a, &b), dot(&b, &b), t);
                    let of_base = part(&base, row, rows.length);
                    form(&a, &b, at, of_base, of, out);
                };
                let mut delta = vec![0.0; rows.length * (vectors.first().map_or(0, Vec::len) / rows.length)];
                delta.chunks_exact_mut(rows.length).enumerate().for_each(|(row, out)| between(row, out));
                stream.write_rows(&group, rows, &delta, 1.0, outputs, range)
            },
            |()| Ok(()),
        ),
        (Method::NuSlerp, _) => by_column(stream, shape, t, of, outputs, range),
        _ => Err(Error::usage(format!("{method}: it has no form by rows"))),
    }
}

/// Element runs of one row.
fn part(vector: &[f32], row: usize, length: usize) -> &[f32] {
    vector.get(row * length..(row + 1) * length).unwrap_or(&[])
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// The vectors that are turned, and the base in f32.
fn vectors(group: &RowGroup, of: Of) -> (Vec<Vec<f32>>, Vec<f32>) {
    let base = tvb_kernels::decode(&group.base, group.dtype);
    let whole = |task: &Vec<f32>| task.iter().zip(&base).map(|(delta, base)| delta + base).collect();
    let vectors = match of {
        Of::Tasks => group.tasks.clone(),
        Of::Models => group.tasks.iter().map(whole).collect(),
    };
    (vectors, base)
}

/// The difference from the base of a point between two vectors.
fn form(a: &[f32], b: &[f32], at: Interpolated, base: &[f32], of: Of, out: &mut [f32]) {
    for (((out, a), b), base) in out.iter_mut().zip(a).zip(b).zip(base) {
        let value = at.first * f64::from(*a) + at.second * f64::from(*b);
        *out = (value - if of == Of::Models { f64::from(*base) } else { 0.0 }) as f32;
    }
}

/// What a row of all tasks becomes.
fn by_row(group: &RowGroup, rows: Rows, merged: impl Fn(&[&[f32]], &mut [f32])) -> Vec<f32> {
    let mut delta = vec![0.0; group.tasks.first().map_or(0, Vec::len)];
    for (row, out) in delta.chunks_exact_mut(rows.length).enumerate() {
        let own: Vec<&[f32]> = group.tasks.iter().map(|task| part(task, row, rows.length)).collect();
        merged(&own, out);
    }
    delta
}

fn stock_of_row(tasks: &[&[f32]], out: &mut [f32]) {
    let t = model_stock(tasks.len(), |a, b| match (tasks.get(a), tasks.get(b)) {
        (Some(a), Some(b)) => dot(a, b),
        _ => 0.0,
    });
    let share = t / tasks.len().max(1) as f64;
    for task in tasks {
        out.iter_mut().zip(*task).for_each(|(out, value)| *out += (share * f64::from(*value)) as f32);
    }
}

/// nuslerp along the first dimension: each element's place in the rest of the tensor has an answer of its own.
fn by_column(
    stream: &Stream<'_>,
    shape: &[usize],
    t: f64,
    of: Of,
    outputs: Outputs<'_>,
    range: &RangeCheck,
) -> Result<()> {
    // A vector is transposed into itself: one answer for all of it.
    let length = match shape {
        [] | [_] => 1,
        [_, rest @ ..] => rest.iter().product::<usize>().max(1),
    };
    let rows = Rows { length, n: shape.iter().product::<usize>() / length };
    let mut sums = vec![[0.0_f64; 3]; length];
    stream.for_rows(
        rows,
        |group| {
            let (vectors, _) = vectors(&group, of);
            let mut own = vec![[0.0_f64; 3]; length];
            if let [a, b] = vectors.as_slice() {
                for (a, b) in a.chunks_exact(length).zip(b.chunks_exact(length)) {
                    for ((sums, a), b) in own.iter_mut().zip(a).zip(b) {
                        let (a, b) = (f64::from(*a), f64::from(*b));
                        let [aa, ab, bb] = sums;
                        (*aa, *ab, *bb) = (*aa + a * a, *ab + a * b, *bb + b * b);
                    }
                }
            }
            Ok(own)
        },
        |own| {
            for (sums, own) in sums.iter_mut().zip(own) {
                sums.iter_mut().zip(own).for_each(|(sum, own)| *sum += own);
            }
            Ok(())
        },
    )?;
    let at: Vec<Interpolated> = sums.iter().map(|[aa, ab, bb]| Interpolated::new(*aa, *ab, *bb, t)).collect();
    stream.for_rows(
        rows,
        |group| {
            let (vectors, base) = vectors(&group, of);
            let mut delta = vec![0.0; base.len()];
            if let [a, b] = vectors.as_slice() {
                let elements = delta.iter_mut().zip(a).zip(b).zip(&base).zip(at.iter().cycle());
                for ((((out, a), b), base), at) in elements {
                    form(&[*a], &[*b], *at, &[*base], of, std::slice::from_mut(out));
                }
            }
            stream.write_rows(&group, rows, &delta, 1.0, outputs, range)
        },
        |()| Ok(()),
    )
}
