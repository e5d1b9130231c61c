//! The two passes over an edit's modules: their singular values, then their products at the ranks that were chosen. Several
//! modules at a time, as many as memory has room for.

use super::gather::Change;
use super::layout;
use crate::checkpoint::{Dtype, SafetensorsWriter, shown, values_of};
use crate::error::{Error, Result};
use crate::pass::Runtime;
use crate::progress::Progress;
use crate::solve::{Stack, Term, squared_difference};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What both passes need.
pub(super) struct Work<'a> {
    /// The modules.
    pub changes: &'a [Change],
    /// Where the output appears, for messages.
    pub target: &'a Path,
    pub runtime: &'a Runtime,
    pub progress: &'a dyn Progress,
}

impl Work<'_> {
    /// The singular values of every module's edit.
    pub(super) fn spectra(&self) -> Result<Vec<Vec<f64>>> {
        self.progress.begin("singular values", self.n_bytes());
        let spectra = self.each(|change, _| stack(change)?.singular_values())?;
        self.progress.finish();
        Ok(spectra)
    }

    /// Writes every module at its rank, tensors 2k and 2k + 1 of the file for the k-th module whose rank is not 0. Answers
    /// ‖Δ_K − what was stored‖² over all.
    pub(super) fn write(&self, ranks: &[usize], dtype: tvb_kernels::Dtype, writer: &SafetensorsWriter) -> Result<f64> {
        let mut firsts = Vec::with_capacity(ranks.len());
        let mut n_tensors = 0;
        for rank in ranks {
            firsts.push(n_tensors);
            n_tensors += if *rank > 0 { 2 } else { 0 };
        }
        self.progress.begin("recompress", self.n_bytes());
        let lost = self.each(|change, number| {
            let (rank, first) = (ranks.get(number).copied().unwrap_or(0), firsts.get(number).copied().unwrap_or(0));
            if rank == 0 {
                return Ok(0.0);
            }
            let exact = stack(change)?.product(rank)?;
            if exact.left.n_columns() != rank {
                return Err(Error::failed(format!(
                    "a product of rank {rank} expected, {} found",
                    exact.left.n_columns()
                )));
            }
            let mut stored = Vec::with_capacity(2);
            for (place, values) in layout::values(change, &exact).into_iter().enumerate() {
                let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                let bytes = tvb_kernels::convert(&bytes, tvb_kernels::Dtype::F64, dtype);
                if tvb_kernels::count_non_finite(&bytes, dtype) > 0 {
                    return Err(Error::rejected(format!("a factor beyond what {} holds", Dtype::from(dtype)))
                        .hint("--dtype f32 or bf16 holds larger numbers"));
                }
                writer.write_at(first + place, 0, &bytes)?;
                stored.push(values_of(&bytes, dtype));
            }
            let [a, b] = [stored.first(), stored.get(1)].map(|values| values.map_or(&[][..], Vec::as_slice));
            Ok(squared_difference(&exact, &layout::product(change, rank, a, b)))
        })?;
        self.progress.finish();
        Ok(lost.into_iter().sum())
    }

    /// Bytes of all factors, for the progress of a pass.
    fn n_bytes(&self) -> u64 {
        self.changes.iter().map(factor_bytes).sum()
    }

    /// Does one thing for every module, in their order.
    fn each<T: Send>(&self, one: impl Fn(&Change, usize) -> Result<T> + Sync) -> Result<Vec<T>> {
        let bytes = |change: &Change| {
            let (n, m) = change.size();
            Stack::bytes(n, m, change.stacked_rank())
        };
        let largest = self.changes.iter().map(bytes).max().unwrap_or(0).max(1);
        let n_fitting = usize::try_from(self.runtime.budget.left() / largest).unwrap_or(usize::MAX);
        let n_threads = self.runtime.n_threads.min(n_fitting).min(self.changes.len()).max(1);
        let next = AtomicUsize::new(0);
        let work = || -> Result<Vec<(usize, T)>> {
            let mut done = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(change) = self.changes.get(number) else { return Ok(done) };
                self.progress.check()?;
                let _charge = self.runtime.budget.charge(self.target, "the factors of a module", bytes(change))?;
                let found =
                    one(change, number).map_err(|error| error.context(format!("tensor {}", shown(&change.tensor))))?;
                done.push((number, found));
                self.progress.advance(factor_bytes(change));
            }
        };
        let mut done = Vec::with_capacity(self.changes.len());
        std::thread::scope(|scope| -> Result<()> {
            let threads: Vec<_> = (0..n_threads).map(|_| scope.spawn(work)).collect();
            for thread in threads {
                let gone = |_| Error::failed("a worker stopped before its module was done");
                done.extend(thread.join().map_err(gone)??);
            }
            Ok(())
        })?;
        done.sort_by_key(|(number, _)| *number);
        Ok(done.into_iter().map(|(_, found)| found).collect())
    }
}

fn factor_bytes(change: &Change) -> u64 {
    let each =
        change.terms.iter().map(|(factors, _)| 4 * (factors.rank() * (factors.n_rows() + factors.n_columns())) as u64);
    each.sum()
}

fn stack(change: &Change) -> Result<Stack> {
    let (n, m) = change.size();
    let lefts: Vec<_> = change.terms.iter().map(|(factors, _)| factors.left(0..n)).collect();
    let terms: Vec<Term<'_>> = change
        .terms
        .iter()
        .zip(&lefts)
        .map(|((factors, weight), left)| Term {
            left,
            right: factors.right(),
            rank: factors.rank(),
            weight: weight * factors.scale(),
        })
        .collect();
    Stack::new(n, m, &terms)
}
