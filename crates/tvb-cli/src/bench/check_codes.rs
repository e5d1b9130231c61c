//! Are codes right, and what is decoded from them? Compared with f64 sums over the values that they were made from, by a decoder
//! of the measurement's own.
//!
//! Codes on two devices may differ where a value lies on a bound, so codes are not compared bit by bit. A code is right where
//! every block has the scale that its format asks for, where all together are as noisy as their rate says, and where what
//! was measured beside them is what they decode to.

use super::check::{Wrong, is_above, tolerance};
use super::codes::{Panel, Piece};
use super::threads::for_each;
use super::values::Values;
use std::sync::{Mutex, PoisonError};
use tvb_kernels::{BLOCK, Code, Codes, Dtype, Measured, PANEL};

/// A scale keeps nine bits; what comes on top is f32's rounding of the sums that it is made of.
const SCALE_TOLERANCE: f64 = 1.0 / 512.0 + 1e-4;

/// Largest error of a measured sum, in parts of the task's energy.
const SUM_TOLERANCE: f64 = 1e-5;

/// Elements of all tasks that codes are checked on, about, where they come in several chunks.
const MOST_CODED: usize = 1 << 23;

/// Elements of all columns that are decoded for a check, about: a tenth of a second.
const MOST_DECODED: usize = 1 << 22;

/// Compares the codes of a spread of chunks of `chunk_rows` rows each with the values, and their measured sums with f64's.
///
/// # Errors
/// The first chunk that is wrong, with what was expected.
pub(super) fn codes(
    values: &Values,
    code: &Code,
    chunks: &[Codes],
    chunk_rows: usize,
    n_threads: usize,
) -> Result<(), Wrong> {
    let n_tasks = code.kept.len() / code.n_kept;
    for at in spread(chunks.len(), MOST_CODED / (chunk_rows * n_tasks)) {
        let wrong = |what: Wrong| format!("rows from {} on: {what}", at * chunk_rows);
        let codes = &chunks[at];
        let piece = Piece::of_chunk(code, codes, at * chunk_rows, chunk_rows);
        let piece =
            piece.ok_or_else(|| wrong("as many words and scales as the rate has expected, others found".into()))?;
        let sums = sums(values, code, &piece, n_threads).map_err(wrong)?;
        measured(&codes.measured, &sums).map_err(wrong)?;
    }
    Ok(())
}

/// Compares what was measured of each task with sums in f64.
fn measured(found: &[Measured], expected: &[Measured]) -> Result<(), Wrong> {
    if found.len() != expected.len() {
        return Err(format!("sums of {} tasks where {} were expected", found.len(), expected.len()));
    }
    for (task, (found, expected)) in found.iter().zip(expected).enumerate() {
        let sums = [
            ("energy", found.energy, expected.energy),
            ("product", found.product, expected.product),
            ("decoded energy", found.decoded, expected.decoded),
        ];
        for (name, found, sum) in sums {
            if is_above((found - sum).abs(), SUM_TOLERANCE * (expected.energy + expected.decoded)) {
                return Err(format!("{name} of task {task} is {found:e} where f64 gives {sum:e}"));
            }
        }
    }
    Ok(())
}

/// The part of what tasks lack that a shared column leaves, at most: 0.25 was seen of 256 tasks that are half alike. Codes
/// that have nothing to do with it leave all.
const MOST_LEFT: f64 = 0.4;

/// Energies over a piece: of the tasks and of their codes' errors, of what the tasks lack and of what the shared columns
/// leave of it.
#[derive(Clone, Copy, Debug, Default)]
struct Noise {
    n_blocks: usize,
    energy: f64,
    error: f64,
    lacking: f64,
    left: f64,
}

impl Noise {
    fn add(&mut self, other: Noise) {
        self.n_blocks += other.n_blocks;
        self.energy += other.energy;
        self.error += other.error;
        self.lacking += other.lacking;
        self.left += other.left;
    }

    /// Whether it is what the rates say, for blocks of values that are close to Gaussian.
    fn check(&self, code: &Code) -> Result<(), Wrong> {
        // One block is as noisy as it happens to be; the mean of many is known.
        let slack = 0.1 + 1.0 / (self.n_blocks.max(1) as f64).sqrt();
        let (noise, expected) = (self.error / self.energy, code.rate.noise());
        if is_above((noise / expected - 1.0).abs(), slack) {
            return Err(format!("the noise of codes is {noise:.4} where about {expected:.4} was expected"));
        }
        // Errors are less Gaussian than tasks, the less so the more tasks are alike: where they all are large, what each lacks
        // adds up, to a few values far beyond the others.
        let (left, expected) = (self.left / self.lacking, code.kept_rate.distortion());
        if is_above(left, MOST_LEFT.max(expected * (2.0 + slack))) {
            return Err(format!(
                "shared columns leave {left:.4} of what they code where about {expected:.4} was expected"
            ));
        }
        Ok(())
    }
}

/// Checks every scale of a piece and how noisy it is, and answers with the sums of each task, as they are measured.
///
/// # Errors
/// What is wrong.
pub(super) fn sums(values: &Values, code: &Code, piece: &Piece<'_>, n_threads: usize) -> Result<Vec<Measured>, Wrong> {
    let n_tasks = code.kept.len() / code.n_kept;
    let all = Mutex::new((vec![Measured::default(); n_tasks], Noise::default(), Ok(())));
    for_each(n_threads, piece.panels(), |_, start| {
        let panel = piece.panel(code.seed, start);
        let deltas = values.deltas(n_tasks, piece.row + start, panel.n_rows);
        let of_panel = of_panel(&panel, code, piece, &deltas);
        let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
        match of_panel {
            Ok((sums, noise)) => {
                all.1.add(noise);
                for (all, own) in all.0.iter_mut().zip(sums) {
                    all.energy += own.energy;
                    all.product += own.product;
                    all.decoded += own.decoded;
                }
            }
            Err(wrong) => all.2 = Err(format!("panel at {start}: {wrong}")),
        }
    });
    let (sums, noise, verdict) = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    verdict.and_then(|()| noise.check(code)).map(|()| sums)
}

fn of_panel(panel: &Panel, code: &Code, piece: &Piece<'_>, deltas: &[f32]) -> Result<(Vec<Measured>, Noise), Wrong> {
    let n_tasks = code.kept.len() / code.n_kept;
    let (own, shared) = piece.columns.split_at(n_tasks);
    let shared: Vec<Vec<f64>> = shared.iter().map(|column| panel.coded(*column)).collect();
    let mut lacking: Vec<Vec<f64>> = shared.iter().map(|lines| vec![0.0; lines.len()]).collect();
    let mut noise = Noise { n_blocks: n_tasks * panel.width, ..Noise::default() };
    let mut sums = Vec::with_capacity(n_tasks);
    for (task, (column, deltas)) in own.iter().zip(deltas.chunks_exact(panel.n_rows)).enumerate() {
        let lines = panel.rotated(deltas);
        let mut decoded = panel.coded(*column);
        // The unbiased scale: ⟨y, ŷ⟩ = ‖y‖².
        let energies = panel.products(&lines, &lines);
        right_scales(&panel.products(&lines, &decoded), &energies).map_err(|wrong| format!("task {task}, {wrong}"))?;
        let directions = &code.kept[task * code.n_kept..][..code.n_kept];
        for (&direction, lacking) in directions.iter().zip(&mut lacking) {
            for (lacking, (line, decoded)) in lacking.iter_mut().zip(lines.iter().zip(&decoded)) {
                *lacking += f64::from(direction) * (line - decoded);
            }
        }
        noise.error += lines.iter().zip(&decoded).map(|(line, decoded)| (line - decoded).powi(2)).sum::<f64>();
        for (&direction, shared) in directions.iter().zip(&shared) {
            decoded.iter_mut().zip(shared).for_each(|(decoded, shared)| *decoded += f64::from(direction) * shared);
        }
        let total = |blocks: Vec<f64>| blocks.iter().sum::<f64>();
        sums.push(Measured {
            energy: total(energies),
            product: total(panel.products(&lines, &decoded)),
            decoded: total(panel.products(&decoded, &decoded)),
        });
    }
    noise.energy = sums.iter().map(|sums| sums.energy).sum();
    for (at, (lacking, shared)) in lacking.iter().zip(&shared).enumerate() {
        // The scale of least squares: ⟨e, ê⟩ = ‖ê‖².
        right_scales(&panel.products(lacking, shared), &panel.products(shared, shared))
            .map_err(|wrong| format!("shared column {at}, {wrong}"))?;
        noise.lacking += lacking.iter().map(|line| line.powi(2)).sum::<f64>();
        noise.left += lacking.iter().zip(shared).map(|(line, shared)| (line - shared).powi(2)).sum::<f64>();
    }
    Ok((sums, noise))
}

fn right_scales(products: &[f64], energies: &[f64]) -> Result<(), Wrong> {
    for (block, (product, energy)) in products.iter().zip(energies).enumerate() {
        // Nothing is coded as nothing.
        if is_above((product - energy).abs(), SCALE_TOLERANCE * energy) {
            return Err(format!("block {block}: a gain of {:.5} where 1 was expected", product / energy));
        }
    }
    Ok(())
}

/// An edit from codes: the base and coded columns with these weights, stored as `dtype`.
#[derive(Clone, Copy, Debug)]
pub(super) struct CodedEdit<'a> {
    /// The base is column 0.
    pub(super) values: &'a Values,
    /// Where the signs come from.
    pub(super) seed: u64,
    /// Of the tasks' columns, then of the shared ones.
    pub(super) weights: &'a [f32],
    /// How results are stored.
    pub(super) dtype: Dtype,
}

/// Compares edited rows of a spread of chunks with what the codes decode to; `row(x)` is row x as it was found.
///
/// # Errors
/// The first wrong row, with what was expected.
pub(super) fn edited(
    edit: CodedEdit<'_>,
    code: &Code,
    chunks: &[Codes],
    chunk_rows: usize,
    row: impl Fn(usize) -> Option<f64>,
) -> Result<(), Wrong> {
    let most_panels = (MOST_DECODED / (PANEL * edit.weights.len())).max(2);
    for at in spread(chunks.len(), most_panels) {
        let piece = Piece::of_chunk(code, &chunks[at], at * chunk_rows, chunk_rows);
        let piece = piece.ok_or_else(|| "codes of another size".to_owned())?;
        edited_piece(edit, &piece, most_panels.div_ceil(chunks.len()), &row)?;
    }
    Ok(())
}

/// The same for a spread of a piece's panels.
///
/// # Errors
/// The first wrong row, with what was expected.
pub(super) fn edited_piece(
    edit: CodedEdit<'_>,
    piece: &Piece<'_>,
    most_panels: usize,
    row: impl Fn(usize) -> Option<f64>,
) -> Result<(), Wrong> {
    let n_terms = edit.weights.len() + 10;
    let starts = piece.panels();
    for at in spread(starts.len(), most_panels) {
        let start = starts[at];
        let panel = piece.panel(edit.seed, start);
        let mut base = vec![0.0f32; panel.n_rows];
        edit.values.fill(0, piece.row + start, &mut base);
        let mut lines = vec![0.0; BLOCK * panel.width];
        // What rounding can do to an element of a block goes by the mean size of the block's terms.
        let mut sizes = vec![0.0; panel.width];
        for (column, &weight) in piece.columns.iter().zip(edit.weights) {
            for (at, (line, coded)) in lines.iter_mut().zip(panel.coded(*column)).enumerate() {
                let term = f64::from(weight) * coded;
                *line += term;
                sizes[at % panel.width] += term.abs() / BLOCK as f64;
            }
        }
        for (at, (value, base)) in panel.elements(lines).iter().zip(&base).enumerate() {
            let x = piece.row + start + at;
            let expected = f64::from(*base) + value;
            let tolerance = tolerance(edit.dtype, expected, n_terms, sizes[at % panel.width] + f64::from(base.abs()));
            match row(x) {
                None => return Err(format!("row {x} is missing")),
                Some(found) if is_above((found - expected).abs(), tolerance) => {
                    return Err(format!("row {x} is {found:e} where f64 gives {expected:e}"));
                }
                Some(_) => {}
            }
        }
    }
    Ok(())
}

/// `most` numbers below `n`, two at least and all where there are no more, from the first to the last.
pub(super) fn spread(n: usize, most: usize) -> Vec<usize> {
    let n_taken = most.max(2).min(n);
    (0..n_taken).map(|step| step * (n - 1) / (n_taken - 1).max(1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tvb_kernels::{Base, Chunk, ChunkLayout, CodeSlice, CpuEngine, Decode, Place, Rate, Segment, Slice, n_blocks};

    const VALUES: Values = Values { dtype: Dtype::F32 };
    const N_TASKS: usize = 3;

    fn code(rate: Rate) -> Code {
        let kept = vec![1.0 / (N_TASKS as f32).sqrt(); N_TASKS];
        Code { rate, kept_rate: Rate::Eight, kept, n_kept: 1, n_carried: 0, seed: 1 << 40 | 5 }
    }

    fn coded(code: &Code, n_rows: usize) -> Vec<Codes> {
        let mut bytes = vec![0; (N_TASKS + 1) * 4 * n_rows];
        bytes.chunks_exact_mut(4 * n_rows).enumerate().for_each(|(column, out)| VALUES.store(column, 0, out));
        let slices = (0..=N_TASKS).map(|column| Slice::new(column * 4 * n_rows, Dtype::F32));
        let layout = ChunkLayout {
            n_columns: N_TASKS + 1,
            segments: vec![Segment { n_rows, place: Place::default() }],
            slices: slices.collect(),
            n_bytes: bytes.len(),
            ..ChunkLayout::default()
        };
        let (engine, mut codes) = (CpuEngine::new(), Codes::default());
        let chunk = Chunk { layout: &layout, bytes: &bytes };
        engine.run(code, chunk, &mut engine.scratch(), &mut codes).expect("codes");
        vec![codes]
    }

    #[test]
    fn wrong_codes_are_found() {
        let n_rows = 3 * PANEL + 320;
        for rate in [Rate::Signs, Rate::Four] {
            let code = code(rate);
            let right = coded(&code, n_rows);
            assert_eq!(codes(&VALUES, &code, &right, n_rows, 2), Ok(()), "{rate:?}");
            let last = right[0].words.len() - 1;
            let changes: [(&str, &dyn Fn(&mut Codes)); 8] = [
                ("a word of the first task", &|codes| codes.words[3] ^= 0x0101_0101),
                ("a word of the shared column", &|codes| codes.words[last] ^= 0x0101_0101),
                ("a scale", &|codes| codes.scales[7] += 2),
                ("a scale that is none", &|codes| codes.scales[7] = 0xffff),
                ("the energy", &|codes| codes.measured[1].energy *= 1.0001),
                ("the product", &|codes| codes.measured[2].product *= 0.9999),
                ("the decoded energy", &|codes| codes.measured[0].decoded = f64::NAN),
                ("too short", &|codes| codes.words.truncate(last)),
            ];
            for (what, change) in changes {
                let mut wrong = right.clone();
                change(&mut wrong[0]);
                assert!(codes(&VALUES, &code, &wrong, n_rows, 1).is_err(), "{rate:?}: {what}");
            }
            // Right codes of something else: another seed, other rows.
            assert!(codes(&VALUES, &Code { seed: 5, ..code.clone() }, &right, n_rows, 1).is_err(), "{rate:?}");
            assert!(codes(&VALUES, &code, &coded(&code, n_rows - 64), n_rows, 1).is_err(), "{rate:?}");
        }
        // Unbiased codes that are noisier than they need be: the larger of two magnitudes everywhere.
        let code = code(Rate::Four);
        let mut noisy = coded(&code, n_rows);
        let n = n_blocks(n_rows) * Rate::Four.words();
        let piece = Piece::of_chunk(&code, &noisy[0], 0, n_rows).expect("a piece");
        assert_eq!(piece.columns[1].words.len(), n);
        noisy[0].words[..n].fill(0);
        assert!(codes(&VALUES, &code, &noisy, n_rows, 1).is_err());
    }

    #[test]
    fn wrong_edits_are_found() {
        let n_rows = PANEL + 640;
        let code = code(Rate::Four);
        let right = coded(&code, n_rows);
        let weights = [0.5, -0.25, 1.0, 0.7];
        let edit = CodedEdit { values: &VALUES, seed: code.seed, weights: &weights, dtype: Dtype::F32 };
        let mut bytes = vec![0; 4 * n_rows];
        VALUES.store(0, 0, &mut bytes);
        bytes.extend(right[0].words.iter().flat_map(|word| word.to_le_bytes()));
        let scales_at = bytes.len();
        bytes.extend(right[0].scales.iter().flat_map(|scale| scale.to_le_bytes()));
        let blocks = n_blocks(n_rows);
        let place = |column: usize| CodeSlice {
            words: 4 * (n_rows + column * blocks * code.rate.words()),
            scales: scales_at + column * 2 * blocks,
        };
        let layout = ChunkLayout {
            n_columns: 1,
            segments: vec![Segment { n_rows, place: Place::default() }],
            slices: vec![Slice::new(0, Dtype::F32)],
            codes: (0..=N_TASKS).map(place).collect(),
            factors: Vec::new(),
            n_bytes: bytes.len(),
        };
        let work = Decode {
            rates: vec![Rate::Four, Rate::Four, Rate::Four, Rate::Eight],
            weights: weights.to_vec(),
            n_outputs: 1,
            base: Base::Added,
            dtype: None,
            seed: code.seed,
        };
        let (engine, mut rows) = (CpuEngine::new(), Vec::new());
        engine
            .run(&work, Chunk { layout: &layout, bytes: &bytes }, &mut engine.scratch(), &mut rows)
            .expect("edited rows");
        let rows = tvb_kernels::decode(&rows, Dtype::F32);
        let row = |x: usize| rows.get(x).map(|row| f64::from(*row));
        assert_eq!(edited(edit, &code, &right, n_rows, row), Ok(()));
        for wrong in [1e-5, f64::NAN] {
            let off = |x: usize| row(x).map(|row| if x == n_rows - 1 { row + wrong } else { row });
            assert!(edited(edit, &code, &right, n_rows, off).is_err_and(|wrong| wrong.contains("where f64 gives")));
        }
        assert!(
            edited(edit, &code, &right, n_rows, |x| row(x).filter(|_| x < n_rows - 1)).is_err(),
            "a row is missing"
        );
        let others = [0.5, 1.0, -0.25, 0.7];
        assert!(edited(CodedEdit { weights: &others, ..edit }, &code, &right, n_rows, row).is_err(), "other weights");
    }

    #[test]
    fn spreads_have_both_ends() {
        assert_eq!((spread(0, 5), spread(1, 5), spread(3, 0)), (vec![], vec![0], vec![0, 2]));
        assert_eq!((spread(10, 4), spread(4, 10)), (vec![0, 3, 6, 9], vec![0, 1, 2, 3]));
    }
}
