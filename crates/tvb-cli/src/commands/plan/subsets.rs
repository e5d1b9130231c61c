//! `tvb plan --subset`: what bases of some of the tasks could keep at best, for several subsets side by side.

use crate::output::{Align, Table};
use serde_json::{Value, json};
use tvb::solve::Gram;
use tvb::{Result, arithmetic};

/// Some of the tasks, and their Gram matrix.
pub(super) struct Subset {
    pub(super) words: String,
    pub(super) gram: Gram,
}

impl Subset {
    /// Of names with commas between them.
    pub(super) fn parse(words: &str, tasks: &[String], gram: &Gram) -> Result<Subset> {
        let find = |name: &str| arithmetic::find_task(tasks, name.trim());
        let chosen: Vec<usize> = words.split(',').map(find).collect::<Result<_>>()?;
        Ok(Subset { words: words.to_owned(), gram: gram.subset(&chosen)? })
    }

    /// A quarter of its tasks, half and three quarters, each with the share of all squared norms that no basis of so many atoms keeps.
    fn least_losses(&self) -> [(usize, f64); 3] {
        let n = self.gram.n_tasks();
        let trace = self.gram.trace();
        [1, 2, 3].map(|quarters| {
            let n_atoms = (n * quarters).div_ceil(4);
            let lost = self.gram.spectrum().tail(n_atoms);
            (n_atoms, if trace > 0.0 { lost / trace } else { 0.0 })
        })
    }

    pub(super) fn json(&self) -> Value {
        let spectrum = self.gram.spectrum();
        json!({
            "subset": self.words,
            "n_tasks": self.gram.n_tasks(),
            "eigenvalues": spectrum.values,
            "effective_rank": crate::output::finite(spectrum.effective_rank()),
            "relative_bounds": (1..=self.gram.n_tasks())
                .map(|m| if self.gram.trace() > 0.0 { spectrum.tail(m) / self.gram.trace() } else { 0.0 })
                .collect::<Vec<f64>>(),
        })
    }
}

/// A row for each.
pub(super) fn table(subsets: &[Subset]) -> String {
    let mut table = Table::new([
        ("subset", Align::Left),
        ("T", Align::Right),
        ("effective rank", Align::Right),
        ("least loss, M = T/4", Align::Right),
        ("T/2", Align::Right),
        ("3T/4", Align::Right),
    ]);
    for subset in subsets {
        let [quarter, half, most] = subset.least_losses().map(|(n_atoms, lost)| format!("{lost:.4} ({n_atoms})"));
        table.row([
            subset.words.clone(),
            subset.gram.n_tasks().to_string(),
            format!("{:.2}", subset.gram.spectrum().effective_rank()),
            quarter,
            half,
            most,
        ]);
    }
    table.to_string()
}
