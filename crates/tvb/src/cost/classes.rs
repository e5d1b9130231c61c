//! What is believed of a device that was never measured: by its kind alone, and on the cautious side.
//!
//! The CPU's figures are a good two-core machine's (AVX-512, per thread), so that a GPU has to beat a good CPU. A card's are far
//! below what the one card measured so far does (`benches/results`), since a card may sit behind few lanes in front of a
//! slow processor. Where memory is shared, or the driver does not say, a GPU is taken to win nothing.

use super::rates::{Rate, Rates};
use super::work::{Stage, Width};
use tvb_kernels::{AdapterFacts, AdapterKind};

/// Numbers of columns that the tables have figures for.
const COLUMNS: [usize; 3] = [8, 64, 256];

/// Figures of one stage and width at [`COLUMNS`].
struct Row(Stage, Width, [f64; 3], f64);

/// One thread of the CPU: bytes in, and out, in 1e9 a second.
const CPU_THREAD: [Row; 10] = [
    Row(Stage::Gram, Width::Four, [6.0, 3.3, 1.0], 1.0),
    Row(Stage::Gram, Width::Two, [5.5, 1.9, 0.52], 1.0),
    Row(Stage::Project, Width::Four, [5.5, 4.0, 2.0], 0.7),
    Row(Stage::Project, Width::Two, [5.0, 2.2, 1.1], 0.5),
    Row(Stage::Reconstruct, Width::Four, [6.0, 5.0, 4.0], 0.7),
    Row(Stage::Reconstruct, Width::Two, [5.5, 3.5, 3.0], 0.7),
    Row(Stage::Code, Width::Four, [2.3, 2.0, 1.2], 0.7),
    Row(Stage::Code, Width::Two, [1.2, 1.0, 0.6], 0.7),
    Row(Stage::Decode, Width::Four, [4.0, 6.0, 6.0], 0.7),
    Row(Stage::Decode, Width::Two, [4.0, 6.0, 6.0], 0.7),
];

/// A CPU reads no faster than this from its memory, however many threads it has; in 1e9 bytes a second.
const CPU_MOST: f64 = 60.0;

/// And it writes no faster than this, as files take it.
const CPU_MOST_OUT: f64 = 2.0;

/// A card with memory of its own.
const DISCRETE: [Row; 10] = [
    Row(Stage::Gram, Width::Four, [8.0, 8.0, 6.0], 1.0),
    Row(Stage::Gram, Width::Two, [8.0, 7.0, 4.0], 1.0),
    Row(Stage::Project, Width::Four, [8.0, 8.0, 6.0], 1.0),
    Row(Stage::Project, Width::Two, [8.0, 8.0, 6.0], 1.0),
    Row(Stage::Reconstruct, Width::Four, [8.0, 8.0, 8.0], 1.0),
    Row(Stage::Reconstruct, Width::Two, [8.0, 8.0, 8.0], 1.0),
    Row(Stage::Code, Width::Four, [3.0, 3.0, 2.5], 0.8),
    Row(Stage::Code, Width::Two, [3.0, 2.5, 1.5], 0.8),
    Row(Stage::Decode, Width::Four, [8.0, 8.0, 8.0], 0.8),
    Row(Stage::Decode, Width::Two, [8.0, 8.0, 8.0], 0.8),
];

/// What data that lies in a card's memory already is worth: this much faster than from files.
const KEPT_BY: f64 = 3.0;
/// Of a card's figures, what a GPU of any other kind is taken to have.
const OTHER_SHARE: f64 = 0.1;
/// And one that is emulated by the CPU.
const SOFTWARE_SHARE: f64 = 0.005;
/// Seconds to open and test a device, and to begin a pass.
const OPEN_S: f64 = 0.5;
const BEGIN_S: f64 = 0.02;

fn rates_of(
    rows: &[Row],
    begin_s: f64,
    each: impl Fn(f64) -> f64,
    out: impl Fn(f64) -> f64,
    kept_by: f64,
) -> Vec<Rate> {
    let of_row = |row: &Row| {
        let Row(stage, width, figures, out_rate) = *row;
        COLUMNS.into_iter().zip(figures).map(move |(n_columns, figure)| (stage, width, n_columns, figure, out_rate))
    };
    let made = rows.iter().flat_map(of_row).map(|(stage, width, n_columns, figure, out_rate)| Rate {
        stage,
        width,
        n_columns,
        begin_s,
        from_files: each(figure),
        kept: (kept_by > 0.0).then_some(figure * kept_by),
        out: out(out_rate),
    });
    made.collect()
}

/// The CPU engine on this many threads.
pub fn cpu(n_threads: usize) -> Rates {
    let all = |figure: f64| (figure * n_threads as f64).min(CPU_MOST);
    Rates { open_s: 0.0, rates: rates_of(&CPU_THREAD, 0.002, all, |out| all(out).min(CPU_MOST_OUT), 0.0) }
}

/// An adapter that this many threads feed.
pub fn adapter(facts: &AdapterFacts, n_threads: usize) -> Rates {
    of_kind(facts.kind, n_threads)
}

/// The best that any adapter is taken to be.
pub fn best(n_threads: usize) -> Rates {
    of_kind(AdapterKind::Discrete, n_threads)
}

fn of_kind(kind: AdapterKind, n_threads: usize) -> Rates {
    let (share, kept_by) = match kind {
        AdapterKind::Discrete => (1.0, KEPT_BY),
        AdapterKind::Integrated | AdapterKind::Virtual | AdapterKind::Other => (OTHER_SHARE, 0.0),
        AdapterKind::Software => (SOFTWARE_SHARE, 0.0),
    };
    let rates = rates_of(&DISCRETE, BEGIN_S, |figure| figure * share, |out| out * share.max(0.1), kept_by);
    Rates { open_s: OPEN_S, rates }.fed_by(n_threads)
}
