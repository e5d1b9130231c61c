//! What a recompressed edit lost: in each module, and over all.

use crate::shown::shown;
use crate::units;
use serde::Serialize;

/// One module of the adapter.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModuleReport {
    /// As PEFT calls it.
    pub module: String,
    /// Its rank in the adapter; 0 for one that is left out.
    pub rank: usize,
    /// The rank of the whole edit there.
    pub full_rank: usize,
    /// ‖Δ − Δ_K‖/‖Δ‖ of the module.
    pub error: f64,
}

/// An adapter that was written, or is about to be.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AdapterReport {
    /// In the base's order.
    pub modules: Vec<ModuleReport>,
    /// Share of the edit's squared norm that is kept, over all modules.
    pub kept_energy: f64,
    /// ‖Δ − Δ_K‖/‖Δ‖ over all modules: what the cut loses.
    pub error: f64,
    /// ‖Δ‖ over all modules.
    pub norm: f64,
    /// What storing the factors adds to it, as a share of ‖Δ‖; `None` before they are written.
    pub rounding: Option<f64>,
    /// Tensors that are saved whole.
    pub whole: Vec<String>,
    /// Bytes of the adapter's tensors.
    pub bytes: u64,
}

/// A cut that loses more is warned of.
const LARGE_ERROR: f64 = 0.1;

impl AdapterReport {
    /// From the singular values of each module and the ranks that are kept.
    pub(super) fn of(modules: impl Iterator<Item = (String, usize, Vec<f64>)>) -> AdapterReport {
        let (mut all, mut lost) = (0.0, 0.0);
        let mut report = AdapterReport {
            modules: Vec::new(),
            kept_energy: 1.0,
            error: 0.0,
            norm: 0.0,
            rounding: None,
            whole: Vec::new(),
            bytes: 0,
        };
        for (module, rank, values) in modules {
            // Small ones first.
            let squares = |values: &[f64]| values.iter().rev().map(|value| value * value).sum::<f64>();
            let (own, own_lost) = (squares(&values), squares(values.get(rank..).unwrap_or_default()));
            all += own;
            lost += own_lost;
            let error = if own > 0.0 { (own_lost / own).sqrt() } else { 0.0 };
            report.modules.push(ModuleReport { module, rank, full_rank: values.len(), error });
        }
        report.norm = all.sqrt();
        if all > 0.0 {
            report.kept_energy = 1.0 - lost / all;
            report.error = (lost / all).sqrt();
        }
        report
    }

    /// The module that loses the largest share of its own part.
    pub fn worst(&self) -> Option<&ModuleReport> {
        self.modules.iter().filter(|module| module.full_rank > 0).max_by(|a, b| a.error.total_cmp(&b.error))
    }

    /// Modules that the adapter has.
    pub fn n_modules(&self) -> usize {
        self.modules.iter().filter(|module| module.rank > 0).count()
    }

    /// Whether so much is lost that it should be warned of.
    pub fn is_far(&self) -> bool {
        self.error > LARGE_ERROR
    }

    /// One line of what is kept and lost.
    pub fn line(&self) -> String {
        let ranks = || self.modules.iter().map(|module| module.rank).filter(|rank| *rank > 0);
        let ranks = match (ranks().min(), ranks().max()) {
            (Some(least), Some(most)) if least < most => format!("ranks {least} to {most}"),
            (_, most) => format!("rank {}", most.unwrap_or(0)),
        };
        let lost = if self.error == 0.0 {
            "nothing is cut off".to_owned()
        } else {
            let worst = self.worst().map_or_else(String::new, |worst| {
                format!(
                    ", at most {:.2e} in {} at rank {} of {}",
                    worst.error,
                    shown(&worst.module),
                    worst.rank,
                    worst.full_rank
                )
            });
            let kept = 100.0 * self.kept_energy;
            format!("{kept:.2} % of the edit's squared norm is kept, relative error {:.2e}{worst}", self.error)
        };
        let rounding =
            self.rounding.map_or_else(String::new, |rounding| format!("; storing the factors adds {rounding:.1e}"));
        let n_left_out = self.modules.iter().filter(|module| module.rank == 0 && module.full_rank > 0).count();
        let left_out =
            if n_left_out == 0 { String::new() } else { format!("; {n_left_out} modules are left out whole") };
        let whole = match self.whole.len() {
            0 => String::new(),
            n => format!("; {n} tensors are saved whole"),
        };
        format!(
            "{} modules, {ranks}, {}: {lost}{rounding}{left_out}{whole}",
            self.n_modules(),
            units::bytes(self.bytes)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_said_of_each_and_of_all() {
        let modules = [("a", 1, vec![3.0, 4.0]), ("b", 1, vec![2.0]), ("c", 0, vec![1.0]), ("d", 0, vec![])];
        let modules = modules.into_iter().map(|(name, rank, values)| (name.to_owned(), rank, values));
        let report = AdapterReport::of(modules);
        let errors: Vec<f64> = report.modules.iter().map(|module| module.error).collect();
        assert_eq!(errors, [0.8, 0.0, 1.0, 0.0]);
        assert!((report.kept_energy - 13.0 / 30.0).abs() < 1e-12, "{report:?}");
        assert!((report.error - (17.0f64 / 30.0).sqrt()).abs() < 1e-12);
        assert_eq!((report.worst().unwrap().module.as_str(), report.n_modules()), ("c", 2));
        assert!(report.is_far() && report.line().contains("43.33 %"), "{}", report.line());
    }
}
