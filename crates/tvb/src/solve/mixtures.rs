//! How many atoms, and in how many bits each: few true atoms or many coarse ones, whichever a budget is better spent on.
//!
//! Every M is solved once, and what each way to store its atoms adds is predicted. Past [`TRY_ALL`] tasks a spread of M is
//! looked at.

use super::assess_coded::Parts;
use super::choose::MaxError;
use super::ladder::{LADDER, Rung};
use super::{Assessment, Coefficients, Gram, Method, SolveOptions, assess, solve};
use crate::error::{Error, Result};
use std::fmt;
use tvb_kernels::{Dtype, Rate};

/// Up to this many tasks every M is tried; beyond, about this many.
const TRY_ALL: usize = 64;

/// How atoms are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// As numbers of a format.
    Plain(Dtype),
    /// As codes.
    Coded(Rung),
}

impl Storage {
    /// What is chosen among where nothing is said: f32, bf16 and the rungs of one bit and more.
    pub fn all() -> Vec<Storage> {
        let rungs = LADDER.into_iter().filter(|rung| rung.rate >= Rate::Signs).map(Storage::Coded);
        [Storage::Plain(Dtype::F32), Storage::Plain(Dtype::Bf16)].into_iter().chain(rungs).collect()
    }

    /// Bytes of `n_stored` atoms over stored tensors of these shapes.
    pub fn bytes<S: AsRef<[usize]>>(self, n_stored: usize, shapes: &[S]) -> u64 {
        match self {
            Storage::Coded(rung) => rung.bytes(n_stored, shapes),
            Storage::Plain(dtype) => {
                let side = |n: u64, &side: &usize| n.saturating_mul(side as u64);
                let rows = shapes.iter().map(|shape| shape.as_ref().iter().fold(1, side));
                let rows = rows.fold(0, u64::saturating_add);
                rows.saturating_mul(dtype.size() as u64).saturating_mul(n_stored as u64)
            }
        }
    }
}

/// `f32`, `bf16`, `2+3`, …
impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Storage::Plain(Dtype::F32) => f.pad("f32"),
            Storage::Plain(Dtype::Bf16) => f.pad("bf16"),
            Storage::Plain(Dtype::F16) => f.pad("f16"),
            Storage::Plain(Dtype::F64) => f.pad("f64"),
            Storage::Coded(rung) => rung.fmt(f),
        }
    }
}

/// What a basis has to keep to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// At most this many bytes, with the least error.
    Bytes(u64),
    /// At most this error, with the fewest bytes.
    Error(MaxError),
}

/// A basis that keeps to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mixture {
    /// M.
    pub n_atoms: usize,
    /// How its atoms are stored.
    pub storage: Storage,
    /// What they take.
    pub bytes: u64,
    /// Predicted mean of ‖τ̂t − τt‖²/‖τt‖².
    pub mean: f64,
    /// The largest of them.
    pub worst: f64,
}

/// The M and the storage, one of `storages`, with which `method` meets `limit` best, by prediction; `options.n_atoms` is not
/// looked at. `parts` are the Gram matrix's, `kept` \[n_kept\]\[n_tasks\] what codes keep, `shapes` those of the stored
/// tensors. `progress` is told the part done, 0 to 1, and stops the search by answering false.
///
/// # Errors
/// Usage: a target that is not a number of 0 or more. Rejected: nothing meets it; says what would. As [`solve`].
#[expect(clippy::too_many_arguments, reason = "one call for what a budget is about")]
pub fn mixture_for<S: AsRef<[usize]>>(
    gram: &Gram,
    parts: &Parts,
    method: &Method,
    options: &SolveOptions,
    storages: &[Storage],
    kept: &[Vec<f64>],
    shapes: &[S],
    limit: Limit,
    progress: &dyn Fn(f64) -> bool,
) -> Result<Mixture> {
    if let Limit::Error(target) = limit {
        target.check()?;
    }
    let n_tasks = gram.n_tasks();
    let n_extra = usize::from(matches!(method, Method::Pca));
    let ms = method.fixed_atoms(n_tasks).map_or_else(|| some_of(n_tasks), |n_atoms| vec![n_atoms]);
    let (mut best, mut nearest): (Option<Mixture>, Option<Mixture>) = (None, None);
    for (number, &n_atoms) in ms.iter().enumerate() {
        if let Limit::Bytes(most) = limit {
            let least = storages.iter().map(|storage| (storage.bytes(n_atoms + n_extra, shapes), *storage));
            let Some((bytes, storage)) = least.min_by_key(|(bytes, _)| *bytes) else { continue };
            if bytes > most {
                let (mean, worst) = (f64::NAN, f64::NAN);
                nearest = nearest.or(Some(Mixture { n_atoms, storage, bytes, mean, worst }));
                continue;
            }
        }
        let done = |part: f64| progress((number as f64 + part) / ms.len() as f64);
        let found = solve(gram, method, &SolveOptions { n_atoms, ..*options }, &done)?;
        let exact = assess(gram, &found)?;
        for &storage in storages {
            let bytes = storage.bytes(found.n_stored(), shapes);
            let (mean, worst) = errors(gram, parts, &found, &exact, storage, kept)?;
            let mixture = Mixture { n_atoms, storage, bytes, mean, worst };
            let (kept_to, better): (bool, fn(&Mixture, &Mixture) -> bool) = match limit {
                Limit::Bytes(most) => (bytes <= most, |a, b| (a.worst, a.bytes) < (b.worst, b.bytes)),
                Limit::Error(MaxError::Worst(_)) => {
                    (limit.allows(worst), |a, b| (a.bytes, a.worst) < (b.bytes, b.worst))
                }
                Limit::Error(MaxError::Mean(_)) => (limit.allows(mean), |a, b| (a.bytes, a.mean) < (b.bytes, b.mean)),
            };
            let place = if kept_to { &mut best } else { &mut nearest };
            let is_better = |than: &Mixture| if kept_to { better(&mixture, than) } else { mixture.worst < than.worst };
            if place.as_ref().is_none_or(is_better) {
                *place = Some(mixture);
            }
        }
    }
    best.ok_or_else(|| nothing_meets(method, limit, nearest))
}

impl Limit {
    fn allows(self, error: f64) -> bool {
        matches!(self, Limit::Error(target) if target.allows(error))
    }
}

/// Predicted mean and largest relative squared error of a basis stored so.
fn errors(
    gram: &Gram,
    parts: &Parts,
    found: &Coefficients,
    exact: &Assessment,
    storage: Storage,
    kept: &[Vec<f64>],
) -> Result<(f64, f64)> {
    match storage {
        Storage::Coded(rung) => {
            let coding = rung.coding(found, kept, 0);
            let coded = exact.clone().coded(gram, found, &coding, &parts.sizes(found))?;
            Ok((coded.mean, coded.worst))
        }
        Storage::Plain(dtype) => {
            let rounding = exact.rounding.iter().find(|rounding| rounding.dtype == dtype);
            let added = |t: usize| rounding.and_then(|rounding| rounding.relative_errors.get(t)).unwrap_or(&0.0);
            let errors: Vec<f64> =
                exact.relative_errors.iter().enumerate().map(|(t, error)| error + added(t)).collect();
            let worst = errors.iter().fold(0.0, |most: f64, error| most.max(*error));
            Ok((errors.iter().sum::<f64>() / errors.len() as f64, worst))
        }
    }
}

/// All of few, a spread of many.
fn some_of(n_tasks: usize) -> Vec<usize> {
    let step = n_tasks.div_ceil(TRY_ALL);
    (1..=n_tasks).filter(|m| m % step == 0 || *m == 1 || *m == n_tasks).collect()
}

fn nothing_meets(method: &Method, limit: Limit, nearest: Option<Mixture>) -> Error {
    let name = method.name();
    let basis = |mixture: &Mixture| {
        let plural = if mixture.n_atoms == 1 { "" } else { "s" };
        format!("{} atom{plural} in {}", mixture.n_atoms, mixture.storage)
    };
    match (limit, nearest) {
        (Limit::Bytes(most), Some(least)) => Error::rejected(format!(
            "at most {most} bytes asked for, {} needed for the smallest basis of method '{name}' ({})",
            least.bytes,
            basis(&least)
        ))
        .hint("allow more bytes; --exclude leaves tensors out"),
        (Limit::Error(target), Some(nearest)) => Error::rejected(format!(
            "method '{name}' does not reach an error of {} with any M: {} have {:.1e}",
            target.limit(),
            basis(&nearest),
            match target {
                MaxError::Mean(_) => nearest.mean,
                MaxError::Worst(_) => nearest.worst,
            }
        ))
        .hint("allow a larger error or choose another method"),
        (_, None) => Error::usage(format!("method '{name}': a way to store its atoms expected, none found")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::matrix::Matrix;

    const SHAPES: [[usize; 2]; 1] = [[64, 64]];

    fn case() -> (Gram, Parts) {
        let n = 6;
        let gram = Gram::new(Matrix::from_fn(n, n, |i, j| if i == j { 1.0 + i as f64 } else { 0.3 })).unwrap();
        let parts = Parts { coded: gram.matrix().clone(), raw: Matrix::zeros(n, n) };
        (gram.over(4096), parts)
    }

    fn found(method: &str, limit: Limit, storages: &[Storage]) -> Result<Mixture> {
        let (gram, parts) = case();
        let (method, options, kept) = (Method::parse(method)?, SolveOptions::atoms(1), [vec![1.0; 6]]);
        mixture_for(&gram, &parts, &method, &options, storages, &kept, &SHAPES, limit, &|_| true)
    }

    #[test]
    fn no_other_choice_within_the_limit_is_better() {
        let (gram, parts) = case();
        for method in ["exact", "anchored", "sample", "pca"] {
            let parsed = Method::parse(method).unwrap();
            let mut all = Vec::new();
            for n_atoms in 1..=6 {
                let basis = solve(&gram, &parsed, &SolveOptions::atoms(n_atoms), &|_| true).unwrap();
                let exact = assess(&gram, &basis).unwrap();
                for storage in Storage::all() {
                    let of = errors(&gram, &parts, &basis, &exact, storage, &[vec![1.0; 6]]).unwrap();
                    all.push((storage.bytes(basis.n_stored(), &SHAPES), of));
                }
            }
            for share in [0.04, 0.06, 0.1, 0.3, 0.6, 1.5] {
                let most = (share * 6.0 * 16384.0) as u64;
                let Ok(chosen) = found(method, Limit::Bytes(most), &Storage::all()) else {
                    assert!(all.iter().all(|(bytes, _)| *bytes > most), "{method} {share}");
                    continue;
                };
                assert!(chosen.bytes <= most, "{method} {share}");
                let least = all.iter().filter(|(bytes, _)| *bytes <= most).map(|(_, (_, worst))| *worst);
                assert_eq!(chosen.worst, least.fold(f64::INFINITY, f64::min), "{method} {share}");
            }
            for limit in [0.9, 0.5, 0.2, 0.02, 0.001] {
                let chosen = found(method, Limit::Error(MaxError::Mean(limit)), &Storage::all()).unwrap();
                assert!(chosen.mean <= limit, "{method} {limit}");
                let fewest = all.iter().filter(|(_, (mean, _))| *mean <= limit).map(|(bytes, _)| *bytes).min();
                assert_eq!(Some(chosen.bytes), fewest, "{method} {limit}");
            }
        }
    }

    #[test]
    fn the_storage_may_be_given() {
        let plain = found("exact", Limit::Bytes(3 * 16384), &[Storage::Plain(Dtype::F32)]).unwrap();
        assert_eq!((plain.n_atoms, plain.storage.to_string().as_str(), plain.bytes), (3, "f32", 3 * 16384));
        let free = found("exact", Limit::Bytes(3 * 16384), &Storage::all()).unwrap();
        assert!(free.n_atoms == 6 && free.worst < plain.worst / 100.0, "{free:?}");
        let identity = found("identity", Limit::Error(MaxError::Worst(0.2)), &Storage::all()).unwrap();
        assert_eq!((identity.n_atoms, identity.storage.to_string().as_str()), (6, "2+3"));
    }

    #[test]
    fn what_nothing_meets_is_refused_with_the_facts() {
        let error = found("exact", Limit::Bytes(500), &Storage::all()).unwrap_err();
        assert_eq!(
            error.message(),
            "at most 500 bytes asked for, 544 needed for the smallest basis of method 'exact' (1 atom in 1+3)"
        );
        let coarse = [Storage::Coded(Rung::DEFAULT)];
        let error = found("exact", Limit::Error(MaxError::Worst(1e-3)), &coarse).unwrap_err();
        assert!(error.message().contains("with any M: 6 atoms in 2+3 have 1."), "{error}");
        let bad = found("exact", Limit::Error(MaxError::Worst(-1.0)), &coarse).unwrap_err();
        assert_eq!(bad.kind(), ErrorKind::Usage);
        assert_eq!(found("exact", Limit::Bytes(u64::MAX), &[]).unwrap_err().kind(), ErrorKind::Usage);
        assert_eq!(found("random", Limit::Bytes(u64::MAX), &coarse).unwrap_err().kind(), ErrorKind::Usage);
    }
}
