//! The tables as Markdown, and the main result in words.

use super::bar::BARS;
use super::found::{Found, Measured, Spread};
use super::mergers::Mergers;
use super::rows::{Family, default_row};

/// One number of tasks.
pub(super) struct Scenario {
    pub(super) n_tasks: usize,
    pub(super) rows: Vec<Found>,
    /// What the fine-tunes themselves reach.
    pub(super) originals: Measured,
    pub(super) merged: Mergers,
}

/// What a newcomer should know, in a few lines.
pub(super) fn headline(originals: (&Found, &Measured), coded: &Found) -> String {
    let (full, measured) = originals;
    let n_tasks = coded.n_tasks;
    let before = 100.0 * measured.addition.mean;
    let added = coded.added.first().map_or(f64::NAN, |added| added.mean);
    format!(
        "{n_tasks} fine-tuned models: {} of float32 task vectors, kept by `tvb compress` in {} (1/{:.1})\n\
         \x20 each task, recovered: {:.1} % of its fine-tune's accuracy (the worst task {:.1} %)\n\
         \x20 all tasks added:      {:.1} % accuracy, {before:.1} % with the task vectors themselves\n\
         \x20 one task removed:     {:.1} % left of it, {:.1} % with the task vectors themselves (lower is better)\n",
        size(full.bytes),
        size(coded.bytes),
        1.0 / coded.share,
        coded.individual.mean,
        coded.worst.mean,
        before + added,
        100.0 * measured.negated + coded.negated.mean,
        100.0 * measured.negated,
    )
}

/// All that is published.
pub(super) fn markdown(scenarios: &[Scenario]) -> String {
    let mut out = String::from("### Where the bar is met\n\n");
    out +=
        &row("coded tasks, of the float32 task vectors", scenarios.iter().map(|one| format!("{} tasks", one.n_tasks)));
    out += &format!("|---|{}\n", "---|".repeat(scenarios.len()));
    for bar in &BARS {
        out += &row(&bar.asked(), scenarios.iter().map(|one| bar.verdict(&one.rows)));
    }
    for scenario in scenarios {
        out += &format!("\n### {} tasks\n\n", scenario.n_tasks);
        out += &reference(scenario);
        let coded = |family| matches!(family, Family::Coded | Family::Tvq | Family::BitDelta);
        out += "\nCoded tasks, and the published ways:\n\n";
        out += &table(scenario, coded);
        out += "\nMixtures:\n\n";
        out += &table(scenario, |family| family == Family::Mixtures);
        out += "\nMergers, mean test accuracy in % (scale):\n\n";
        out += &mergers(&scenario.merged);
    }
    out
}

/// The references, in accuracies.
fn reference(scenario: &Scenario) -> String {
    let of = |family| scenario.rows.iter().filter(move |row| row.family == family);
    let measured = &scenario.originals;
    let n = measured.individual.len().max(1) as f64;
    let own = 100.0 * measured.individual.iter().sum::<f64>() / n;
    let sums: Vec<f64> =
        [&measured.addition].into_iter().chain(&measured.subsets).map(|added| 100.0 * added.mean).collect();
    let mut out =
        row("test accuracy", ["bytes", "individual", "all added", "pairs", "halves", "one removed"].map(String::from));
    out += &format!("|---|{}\n", "---|".repeat(6));
    for found in of(Family::Reference) {
        let mut cells = vec![size(found.bytes)];
        // Nothing but the originals is meaned as accuracy itself, so the base's is its part of theirs.
        cells.push(if found.bytes > 0 {
            format!("{own:.1} %")
        } else {
            format!("{:.1} % of it", found.individual.mean)
        });
        cells.extend(sums.iter().zip(&found.added).map(|(sum, added)| format!("{:.1} %", sum + added.mean)));
        let negated = 100.0 * measured.negated + found.negated.mean;
        cells.push(format!("{negated:.1} % (control {:.1} %)", found.control.mean));
        out += &row(&found.label, cells);
    }
    out
}

/// The rows of some families, as differences to the originals.
fn table(scenario: &Scenario, is_shown: impl Fn(Family) -> bool) -> String {
    let names = [
        "bytes",
        "of f32",
        "gain",
        "noise",
        "individual, %",
        "worst task, %",
        "all added",
        "pairs",
        "halves",
        "one removed",
        "control, %",
    ];
    let mut out = row("", names.map(String::from));
    out += &format!("|---|{}\n", "---|".repeat(names.len()));
    for found in scenario.rows.iter().filter(|found| is_shown(found.family)) {
        let spread = |value: &Spread, is_signed: bool| shown(value, found.n_seeds, is_signed);
        let (gain, noise) = match found.quality {
            Some((gain, noise)) => (format!("{gain:.3}"), format!("{noise:.3}")),
            None => ("-".to_owned(), "-".to_owned()),
        };
        let mut cells = vec![size(found.bytes), format!("1/{:.1}", 1.0 / found.share), gain, noise];
        cells.extend([&found.individual, &found.worst].map(|value| spread(value, false)));
        cells.extend(found.added.iter().map(|value| spread(value, true)));
        cells.push(spread(&found.negated, true));
        cells.push(format!("{:.1}", found.control.mean));
        let is_default = found.label == default_row().label;
        let label = if is_default { format!("**{}**", found.label) } else { found.label.clone() };
        out += &row(&label, cells);
    }
    out
}

/// Mergers from each source.
fn mergers(merged: &Mergers) -> String {
    let mut out = row("from", merged.sources.iter().cloned());
    out += &format!("|---|{}\n", "---|".repeat(merged.sources.len()));
    for merger in &merged.rows {
        let cell = |(accuracy, scale): &(f64, f64)| format!("{:.1} ({scale})", 100.0 * accuracy);
        out += &row(merger.label, merger.found.iter().map(cell));
    }
    out
}

fn row(label: &str, cells: impl IntoIterator<Item = String>) -> String {
    let cells: Vec<String> = cells.into_iter().collect();
    format!("| {label} | {} |\n", cells.join(" | "))
}

/// `99.5 ± 0.2`, or the number alone where there is one rotation only.
fn shown(value: &Spread, n_seeds: usize, is_signed: bool) -> String {
    let mean = match is_signed {
        // Without the sign of a zero.
        true => format!("{:+.2}", value.mean + 0.0).replace("-0.00", "+0.00").replace('-', "−"),
        false => format!("{:.1}", value.mean),
    };
    match (n_seeds > 1, is_signed) {
        (true, true) => format!("{mean} ± {:.2}", value.most),
        (true, false) => format!("{mean} ± {:.1}", value.most),
        _ => mean,
    }
}

/// Bytes as people read them.
fn size(bytes: u64) -> String {
    match bytes {
        0 => "0".to_owned(),
        1..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.2} MB", bytes as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::found::example;
    use crate::demo::mergers::Merged;
    use crate::demo::rows::originals;

    fn scenario() -> Scenario {
        let measured = example(&[0.8, 0.5], 0.7, 0.2);
        let found = |label: &str, family, bytes: u64, seeds: &[Measured]| {
            Found::new((label, family, 8), (bytes, bytes as f64 / 1e6, Some((1.0, 0.1))), seeds, &measured)
        };
        let full = found(&originals().label, Family::Reference, 1_000_000, std::slice::from_ref(&measured));
        let coded = [example(&[0.8, 0.49], 0.69, 0.21), example(&[0.8, 0.5], 0.71, 0.21)];
        let coded = found(&default_row().label, Family::Coded, 70_000, &coded);
        let mixture = found("exact", Family::Mixtures, 500_000, std::slice::from_ref(&measured));
        let merged = Mergers {
            sources: vec!["a".to_owned(), "b".to_owned()],
            rows: vec![Merged { label: "ties", found: vec![(0.7, 1.0), (0.65, 0.8)] }],
        };
        Scenario { n_tasks: 8, rows: vec![full, coded, mixture], originals: measured, merged }
    }

    #[test]
    fn tables_show_spreads_where_there_are_rotations() {
        let text = markdown(&[scenario()]);
        for line in [
            "| task vectors in f32 | 1.00 MB | 65.0 % | 70.0 % | 80.0 % | 75.0 % | 20.0 % (control 90.0 %) |",
            "| **2 bits, sum at 3 (default)** | 70.0 kB | 1/14.3 | 1.000 | 0.100 | 99.5 ± 0.5 | 99.0 ± 1.0 | +0.00 ± 1.00 | +0.00 ± 1.00 | +0.00 ± 1.00 | +1.00 ± 0.00 | 90.0 |",
            "| from | a | b |",
            "| ties | 70.0 (1) | 65.0 (0.8) |",
            "| exact | 500.0 kB | 1/2.0 | 1.000 | 0.100 | 100.0 | 100.0 | +0.00 | +0.00 | +0.00 | +0.00 | 90.0 |",
        ] {
            assert!(text.contains(line), "{line}\nis not in\n{text}");
        }
    }

    #[test]
    fn the_main_result_is_plain() {
        let scenario = scenario();
        let text = headline((&scenario.rows[0], &scenario.originals), &scenario.rows[1]);
        assert!(text.starts_with(
            "8 fine-tuned models: 1.00 MB of float32 task vectors, kept by `tvb compress` in 70.0 kB (1/14.3)\n"
        ));
        assert!(text.contains("99.5 % of its fine-tune's accuracy (the worst task 99.0 %)"));
        assert!(text.contains("21.0 % left of it, 20.0 % with"));
    }
}
