//! The rows of the tables: the ways in which a scenario's tasks are stored.

/// Rows that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// What the others are compared with.
    Reference,
    /// `tvb compress`: every task a coded atom.
    Coded,
    /// `tvb compress --method`: fewer atoms than tasks.
    Mixtures,
    Tvq,
    BitDelta,
}

/// How tasks are stored and come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// The fine-tunes themselves.
    Originals,
    /// Not at all: the base in place of every task.
    Nothing,
    /// By `tvb compress` with these words.
    Compress(Vec<String>),
    /// By `tvb-zoo control` of this name.
    Control(&'static str),
}

/// One way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// The same for any number of tasks.
    pub(super) label: String,
    pub(super) family: Family,
    pub(super) how: How,
}

/// A coded rung: bits of a task, bits of the kept sum.
const RUNGS: &[(&str, &str)] = &[
    ("0.25", "4"),
    ("0.5", "4"),
    ("1", "4"),
    ("1", "3"),
    ("1.6", "3"),
    ("2", "3"),
    ("3", "2"),
    ("4", "1"),
    ("8", "off"),
];
const RUNGS_QUICK: &[(&str, &str)] = &[("1", "4"), ("2", "3")];
/// What `tvb compress` does where nothing is said.
const DEFAULT_RUNG: (&str, &str) = ("2", "3");

const METHODS: &[&str] = &["anchored", "exact", "ae", "pca"];
/// How atoms are stored: the words, and the label.
const STORAGES: &[(&str, &str, &str)] =
    &[("--dtype", "f32", "f32"), ("--dtype", "bf16", "bf16"), ("--bits", "4", "4 bits")];
/// Methods for comparison, at T/2 in f32 only.
const OTHER_METHODS: &[&str] = &["cluster", "nmf", "sample"];

const CONTROLS: &[(&str, &str, Family)] = &[
    ("tvq-2", "TVQ, 2 bits", Family::Tvq),
    ("tvq-3", "TVQ, 3 bits", Family::Tvq),
    ("tvq-4", "TVQ, 4 bits", Family::Tvq),
    ("bitdelta", "BitDelta, 1 bit", Family::BitDelta),
];

/// The fine-tunes: what every other row is a part of, or differs from.
pub(super) fn originals() -> Row {
    Row { label: "task vectors in f32".into(), family: Family::Reference, how: How::Originals }
}

/// The default of `tvb compress`.
pub(super) fn default_row() -> Row {
    coded(DEFAULT_RUNG)
}

fn coded((bits, kept): (&str, &str)) -> Row {
    let unit = if bits == "1" { "bit" } else { "bits" };
    let sum = if kept == "off" { "sum not kept".to_owned() } else { format!("sum at {kept}") };
    let mark = if (bits, kept) == DEFAULT_RUNG { " (default)" } else { "" };
    let words = ["--bits", bits, "--keep-sum", kept].map(String::from).to_vec();
    Row { label: format!("{bits} {unit}, {sum}{mark}"), family: Family::Coded, how: How::Compress(words) }
}

fn mixture(method: &str, n_tasks: usize, divisor: usize, (flag, value, name): (&str, &str, &str)) -> Row {
    let n_atoms = n_tasks.div_ceil(divisor).to_string();
    let words = ["--method", method, "-m", &n_atoms, flag, value].map(String::from).to_vec();
    let label = format!("{method}, T/{divisor}, {name}");
    Row { label, family: Family::Mixtures, how: How::Compress(words) }
}

/// Every row of a scenario, the originals first.
pub(super) fn rows(n_tasks: usize, is_quick: bool) -> Vec<Row> {
    let nothing = Row { label: "the base alone".into(), family: Family::Reference, how: How::Nothing };
    let mut rows = vec![originals(), nothing];
    rows.extend((if is_quick { RUNGS_QUICK } else { RUNGS }).iter().map(|rung| coded(*rung)));
    let control = |(name, label, family): &(&'static str, &str, Family)| Row {
        label: (*label).into(),
        family: *family,
        how: How::Control(name),
    };
    if is_quick {
        rows.extend(CONTROLS.first().map(control));
        rows.extend(
            METHODS.first().zip(STORAGES.first()).map(|(method, storage)| mixture(method, n_tasks, 2, *storage)),
        );
        return rows;
    }
    rows.extend(CONTROLS.iter().map(control));
    for divisor in [2, 4] {
        for method in METHODS {
            rows.extend(STORAGES.iter().map(|storage| mixture(method, n_tasks, divisor, *storage)));
        }
        for method in OTHER_METHODS.iter().filter(|_| divisor == 2) {
            rows.extend(STORAGES.first().map(|storage| mixture(method, n_tasks, divisor, *storage)));
        }
    }
    rows
}

impl Row {
    /// The rotations that are tried: what is not coded has none.
    pub(super) fn seeds(&self, is_quick: bool) -> &'static [u64] {
        if self.family == Family::Coded && !is_quick { &[0, 1, 2] } else { &[0] }
    }

    /// The label as a part of a file's name.
    pub(super) fn file_name(&self) -> String {
        let words = self.label.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        words.collect::<Vec<_>>().join("-")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_files_are_different_and_the_same_in_every_scenario() {
        let labels = |n_tasks| rows(n_tasks, false).iter().map(|row| row.label.clone()).collect::<Vec<_>>();
        assert_eq!(labels(8), labels(20));
        let mut files: Vec<String> = rows(14, false).iter().map(Row::file_name).collect();
        let n_rows = files.len();
        files.sort();
        files.dedup();
        assert_eq!(files.len(), n_rows);
        assert!(rows(8, true).iter().all(|row| labels(8).contains(&row.label)));
    }

    #[test]
    fn only_rotations_have_seeds_and_one_rung_is_the_default() {
        for row in rows(8, false) {
            assert_eq!(row.seeds(false).len(), if row.family == Family::Coded { 3 } else { 1 }, "{}", row.label);
            assert_eq!(row.seeds(true).len(), 1);
        }
        assert!(rows(8, false).contains(&default_row()) && rows(8, true).contains(&default_row()));
    }
}
