//! Mergers of whole matrices: TSV-M (arXiv 2412.00081), Iso-C and Iso-CTS (arXiv 2502.04959).
//!
//! Matrices are row-major in f32, \[T\]\[m·n\]; all arithmetic is f64. Tasks are shared out among threads, and what one thread does is the
//! same however many there are, so the bits of the result are too. Where task matrices have fewer directions than they have room for
//! (adapters, tasks that are nearly the same), a full SVD fills up with directions that are not determined, and the published code
//! gives them weight; here they have none.

use super::spectral::{Triplets, polar, times, triplets};
use crate::error::{Error, Result};
use faer::Mat;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Task singular vectors, merged: of each task the 1/T largest triplets, their left and right vectors made orthogonal over all tasks.
///
/// # Errors
/// Failed: matrices of other sizes, no eigendecomposition.
pub fn tsv_m(tasks: &[&[f32]], m: usize, n: usize, n_threads: usize) -> Result<Vec<f32>> {
    check(tasks, m, n)?;
    let rank = m.min(n) / tasks.len().max(1);
    let parts = on_threads(tasks.len(), n_threads, |task| triplets(matrix(tasks, task, m, n).as_ref(), rank))?;
    let (left, right, values) = side_by_side(&parts, m, n, rank);
    let [left, right] = both_polar(left, right, n_threads)?;
    Ok(combined(&left, &values, &right))
}

/// The sum of all tasks with every singular value their mean.
///
/// # Errors
/// As [`tsv_m`].
pub fn iso_c(tasks: &[&[f32]], m: usize, n: usize) -> Result<Vec<f32>> {
    check(tasks, m, n)?;
    let sum = sum(tasks, m, n);
    let short = m.min(n);
    let found = triplets(sum.as_ref(), short)?;
    let mean = found.values.iter().sum::<f64>() / short.max(1) as f64;
    Ok(combined(&found.left, &vec![mean; short], &found.right))
}

/// The same in two parts: a share `common` of the directions is that of the sum, the rest is the tasks' own, outside of it.
///
/// # Errors
/// As [`tsv_m`]. Usage: a share outside (0, 1].
pub fn iso_cts(tasks: &[&[f32]], m: usize, n: usize, common: f64, n_threads: usize) -> Result<Vec<f32>> {
    check(tasks, m, n)?;
    if !(common > 0.0 && common <= 1.0) {
        return Err(Error::usage(format!("a share of common directions in (0, 1] expected, {common} found")));
    }
    let (short, n_tasks) = (m.min(n), tasks.len());
    // What is left is shared out in equal parts, so the common part takes what does not divide.
    let asked = (short as f64 * common) as usize;
    let per_task = (((short - asked) as f64 / n_tasks as f64).round_ties_even() as usize).min(short / n_tasks);
    let n_common = short - per_task * n_tasks;
    let whole = triplets(sum(tasks, m, n).as_ref(), n_common)?;
    let own = on_threads(n_tasks, n_threads, |task| {
        let tau = matrix(tasks, task, m, n);
        let inside = times(whole.left.as_ref(), times(whole.left.transpose(), tau.as_ref()).as_ref());
        triplets((tau - inside).as_ref(), per_task)
    })?;
    let (left, right, mut values) = side_by_side(&own, m, n, per_task);
    let beside = |a: &Mat<f64>, b: &Mat<f64>| {
        Mat::from_fn(a.nrows(), a.ncols() + b.ncols(), |row, at| match at.checked_sub(a.ncols()) {
            None => a[(row, at)],
            Some(at) => b[(row, at)],
        })
    };
    values.extend(whole.values.iter().take(n_common));
    let [left, right] = both_polar(beside(&left, &whole.left), beside(&right, &whole.right), n_threads)?;
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    Ok(combined(&left, &vec![mean; values.len()], &right))
}

fn check(tasks: &[&[f32]], m: usize, n: usize) -> Result<()> {
    let expected = m.checked_mul(n).ok_or_else(|| Error::failed("a matrix too large to count"))?;
    match tasks.iter().find(|task| task.len() != expected) {
        Some(task) => Err(Error::failed(format!("a matrix of {m} x {n} expected, {} values found", task.len()))),
        None if tasks.is_empty() || expected == 0 => Err(Error::failed("matrices of some tasks expected, none found")),
        None => Ok(()),
    }
}

fn matrix(tasks: &[&[f32]], task: usize, m: usize, n: usize) -> Mat<f64> {
    let rows = tasks.get(task).copied().unwrap_or(&[]);
    Mat::from_fn(m, n, |i, j| rows.get(i * n + j).map_or(0.0, |value| f64::from(*value)))
}

fn sum(tasks: &[&[f32]], m: usize, n: usize) -> Mat<f64> {
    let mut sum = Mat::zeros(m, n);
    (0..tasks.len()).for_each(|task| sum += matrix(tasks, task, m, n));
    sum
}

/// The triplets of all tasks side by side.
fn side_by_side(parts: &[Triplets], m: usize, n: usize, rank: usize) -> (Mat<f64>, Mat<f64>, Vec<f64>) {
    let of = |column: usize| parts.get(column / rank.max(1));
    let left = Mat::from_fn(m, rank * parts.len(), |row, at| of(at).map_or(0.0, |part| part.left[(row, at % rank)]));
    let right = Mat::from_fn(n, rank * parts.len(), |row, at| of(at).map_or(0.0, |part| part.right[(row, at % rank)]));
    (left, right, parts.iter().flat_map(|part| part.values.iter().take(rank).copied()).collect())
}

/// Polar factors of left and right vectors.
fn both_polar(left: Mat<f64>, right: Mat<f64>, n_threads: usize) -> Result<[Mat<f64>; 2]> {
    let sides = [left, right];
    let made =
        on_threads(2, n_threads, |side| polar(sides.get(side).map_or(Mat::<f64>::zeros(1, 1).as_ref(), Mat::as_ref)))?;
    made.try_into().map_err(|_| Error::failed("two sides expected"))
}

/// left · diag(values) · rightᵀ, row-major.
fn combined(left: &Mat<f64>, values: &[f64], right: &Mat<f64>) -> Vec<f32> {
    let value = |at: usize| values.get(at).copied().unwrap_or(0.0);
    let scaled = Mat::from_fn(left.nrows(), left.ncols(), |row, at| left[(row, at)] * value(at));
    let product = times(scaled.as_ref(), right.transpose());
    let of_row = |row: usize| (0..product.ncols()).map(move |column| (row, column));
    (0..product.nrows()).flat_map(of_row).map(|(row, column)| product[(row, column)] as f32).collect()
}

/// Does `each` for 0 to n − 1 on several threads; the answers in order.
fn on_threads<T: Send>(n: usize, n_threads: usize, each: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let made: Mutex<Vec<(usize, Result<T>)>> = Mutex::default();
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= n {
                break;
            }
            let answer = each(at);
            made.lock().unwrap_or_else(PoisonError::into_inner).push((at, answer));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..n_threads.min(n) {
            scope.spawn(work);
        }
        work();
    });
    let mut made = made.into_inner().unwrap_or_else(PoisonError::into_inner);
    made.sort_by_key(|(at, _)| *at);
    made.into_iter().map(|(_, answer)| answer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use faer::MatRef;

    fn tasks(n_tasks: usize, m: usize, n: usize) -> Vec<Vec<f32>> {
        let value = |task: usize, at: usize| ((at * at % 97 * (task + 3)) as f32 * 0.61 + task as f32).sin();
        (0..n_tasks).map(|task| (0..m * n).map(|at| value(task, at)).collect()).collect()
    }

    fn svd(a: MatRef<'_, f64>) -> (Mat<f64>, Vec<f64>, Mat<f64>) {
        let found = a.thin_svd().unwrap();
        let values = (0..a.nrows().min(a.ncols())).map(|at| found.S().column_vector()[at]).collect();
        (found.U().to_owned(), values, found.V().to_owned())
    }

    fn close(found: &[f32], expected: &Mat<f64>) {
        let n = expected.ncols();
        let largest = expected.norm_max();
        for (at, value) in found.iter().enumerate() {
            let expected = expected[(at / n, at % n)];
            assert!((f64::from(*value) - expected).abs() < 1e-5 * largest, "{at}: {value} {expected}");
        }
    }

    /// The published steps, each by a full SVD.
    #[test]
    fn tsv_m_is_what_full_svds_make() {
        for (m, n) in [(12, 8), (8, 12)] {
            let all = tasks(3, m, n);
            let all: Vec<&[f32]> = all.iter().map(Vec::as_slice).collect();
            let rank = 8 / 3;
            let parts: Vec<_> = (0..3).map(|task| svd(matrix(&all, task, m, n).as_ref())).collect();
            let left = Mat::from_fn(m, 3 * rank, |row, at| parts[at / rank].0[(row, at % rank)]);
            let right = Mat::from_fn(n, 3 * rank, |row, at| parts[at / rank].2[(row, at % rank)]);
            let whole = |a: &Mat<f64>| {
                let (u, _, v) = svd(a.as_ref());
                u * v.transpose()
            };
            let values =
                Mat::from_fn(3 * rank, 3 * rank, |a, b| if a == b { parts[a / rank].1[a % rank] } else { 0.0 });
            let expected = whole(&left) * values * whole(&right).transpose();
            let found = tsv_m(&all, m, n, 1).unwrap();
            close(&found, &expected);
            // Threads change nothing.
            assert_eq!(found, tsv_m(&all, m, n, 3).unwrap());
        }
    }

    #[test]
    fn iso_c_makes_all_singular_values_one() {
        let all = tasks(3, 10, 6);
        let all: Vec<&[f32]> = all.iter().map(Vec::as_slice).collect();
        let (u, s, v) = svd(sum(&all, 10, 6).as_ref());
        let expected = u * v.transpose() * faer::Scale(s.iter().sum::<f64>() / 6.0);
        close(&iso_c(&all, 10, 6).unwrap(), &expected);
    }

    #[test]
    fn iso_cts_keeps_own_directions_of_tasks() {
        let (m, n) = (12, 9);
        let all = tasks(2, m, n);
        let all: Vec<&[f32]> = all.iter().map(Vec::as_slice).collect();
        // 9 · 0.5 = 4; 5 / 2 rounds to 2 for each, so 5 are common.
        let (per_task, n_common) = (2, 5);
        let (u, s, v) = svd(sum(&all, m, n).as_ref());
        let common = u.subcols(0, n_common).to_owned();
        let mut columns_left = Vec::new();
        let mut columns_right = Vec::new();
        let mut values = Vec::new();
        for task in 0..2 {
            let tau = matrix(&all, task, m, n);
            let (u, s, v) = svd((&tau - &common * common.transpose() * &tau).as_ref());
            for at in 0..per_task {
                columns_left.push((0..m).map(|row| u[(row, at)]).collect::<Vec<_>>());
                columns_right.push((0..n).map(|row| v[(row, at)]).collect::<Vec<_>>());
                values.push(s[at]);
            }
        }
        for at in 0..n_common {
            columns_left.push((0..m).map(|row| u[(row, at)]).collect());
            columns_right.push((0..n).map(|row| v[(row, at)]).collect());
            values.push(s[at]);
        }
        let whole = |columns: &[Vec<f64>], rows: usize| {
            let a = Mat::from_fn(rows, columns.len(), |row, at| columns[at][row]);
            let (u, _, v) = svd(a.as_ref());
            u * v.transpose()
        };
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let expected = whole(&columns_left, m) * whole(&columns_right, n).transpose() * faer::Scale(mean);
        close(&iso_cts(&all, m, n, 0.5, 2).unwrap(), &expected);
        assert!(iso_cts(&all, m, n, 0.0, 1).is_err());
        assert!(tsv_m(&[&[1.0; 3]], 2, 2, 1).is_err());
    }

    /// Two tasks that are one, and adapters: directions that are not there have no weight.
    #[test]
    fn directions_that_are_not_there_stay_out() {
        let one: Vec<f32> = (0..24).map(|at| ((at / 4 + 1) * (at % 4 + 2)) as f32).collect();
        let all = [one.as_slice(), one.as_slice()];
        let found = Mat::from_fn(6, 4, |i, j| f64::from(iso_c(&all, 6, 4).unwrap()[i * 4 + j]));
        let (_, s, _) = svd(found.as_ref());
        assert!(s[0] > 0.0 && s[1] < 1e-6 * s[0], "{s:?}");
    }
}
