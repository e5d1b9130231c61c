//! The bar that coded tasks are held to, and the rungs that meet it.
//!
//! A sum may lose so many points, and a task that is taken away may keep so many more, than with the originals; better
//! than the originals is never a fault.

use super::found::Found;
use super::rows::Family;

/// What is asked at a size.
pub(super) struct Bar {
    /// At most one part in so many of the float32 task vectors.
    pub(super) divisor: f64,
    /// Percent of the fine-tunes' accuracy: mean, worst task.
    individual: f64,
    worst: f64,
    /// Points.
    addition: f64,
    negation: f64,
}

pub(super) const BARS: [Bar; 2] = [
    Bar { divisor: 20.0, individual: 99.0, worst: 96.0, addition: 0.3, negation: 0.5 },
    Bar { divisor: 13.0, individual: 99.5, worst: 98.0, addition: 0.15, negation: 0.3 },
];

impl Bar {
    /// What it asks, for a table.
    pub(super) fn asked(&self) -> String {
        format!(
            "at most 1/{}: mean ≥ {} %, worst ≥ {} %, all added ≥ −{}, one removed ≤ +{}",
            self.divisor, self.individual, self.worst, self.addition, self.negation
        )
    }

    /// What a row lacks.
    fn lacks(&self, found: &Found) -> Vec<String> {
        let added = found.added.first().map_or(f64::NAN, |added| added.mean);
        let mut lacks = Vec::new();
        let mut ask = |is_met: bool, what: String| {
            if !is_met {
                lacks.push(what);
            }
        };
        ask(found.individual.mean >= self.individual, format!("mean {:.2} %", found.individual.mean));
        ask(found.worst.mean >= self.worst, format!("worst {:.2} %", found.worst.mean));
        ask(added >= -self.addition, format!("all added {added:+.2}"));
        ask(found.negated.mean <= self.negation, format!("one removed {:+.2}", found.negated.mean));
        lacks
    }

    /// The rungs of a scenario that are small enough and meet it, or what the nearest one lacks.
    pub(super) fn verdict(&self, rows: &[Found]) -> String {
        let mut fitting: Vec<&Found> =
            rows.iter().filter(|row| row.family == Family::Coded && row.share * self.divisor <= 1.0).collect();
        fitting.sort_by_key(|row| row.bytes);
        let shown = |row: &Found| format!("{} (1/{:.1})", row.label, 1.0 / row.share);
        let met: Vec<String> = fitting.iter().filter(|row| self.lacks(row).is_empty()).map(|row| shown(row)).collect();
        if !met.is_empty() {
            return met.join("; ");
        }
        // Of equals the largest is the nearest.
        match fitting.iter().rev().min_by_key(|row| self.lacks(row).len()) {
            Some(row) => format!("none; nearest is {}, with {}", shown(row), self.lacks(row).join(", ")),
            None => "none is small enough".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::found::example;

    #[test]
    fn the_rungs_that_meet_it_are_named_and_so_is_what_the_nearest_lacks() {
        let originals = example(&[0.8, 0.8], 0.7, 0.2);
        let row = |label, bytes: u32, individual: [f64; 2], addition, negated| {
            let measured = [example(&individual, addition, negated)];
            let share = f64::from(bytes) / 1000.0;
            Found::new((label, Family::Coded, 2), (bytes.into(), share, None), &measured, &originals)
        };
        let bad = row("half a bit", 30, [0.8, 0.7], 0.7, 0.3);
        let good = row("1 bit", 45, [0.8, 0.79], 0.71, 0.15);
        let large = row("8 bits", 250, [0.8, 0.8], 0.7, 0.2);
        let bar = &BARS[0];
        assert_eq!(bar.verdict(&[large.clone(), good.clone(), bad.clone()]), "1 bit (1/22.2)");
        assert_eq!(
            bar.verdict(&[bad, large.clone()]),
            "none; nearest is half a bit (1/33.3), with mean 93.75 %, worst 87.50 %, one removed +10.00"
        );
        assert_eq!(bar.verdict(&[large]), "none is small enough");
    }
}
