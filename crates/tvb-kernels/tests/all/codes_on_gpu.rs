//! Codes from a GPU against the CPU engine's, and edits that it decodes.
//!
//! The arithmetic is the CPU's, step by step, and the software adapter gives the same bits. Other GPUs may divide a little less
//! exactly or round a product and a sum together: then a value that lies on the border of two cells gets the other cell, a scale
//! the next step, and what is decoded agrees to 1e-6 but for those.

use crate::codes::{all_decoded, code, deltas, dot, made};
use crate::common::device::{device, gpu, turn};
use crate::common::{Case, Formats, Made, Random, make, store};
use tvb_kernels::{
    Base, Chunk, ChunkLayout, Code, CodeSlice, Codes, CpuEngine, Decode, DeviceSetup, Dtype, GpuEngine, PANEL, Place,
    Rate, Segment, Slice, Work, decode, n_blocks, scale_bits,
};

/// Whole panels; last ones with even and odd numbers of blocks, on either side of a workgroup's eight; parts of a block.
const SEGMENTS: [usize; 9] = [PANEL, 2 * PANEL + 700, 1, 255, 256, 257, 9 * 256, 0, 10 * 256 - 3];

fn on_cpu<W: Work>(work: &W, chunk: Chunk<'_>) -> W::Output {
    let cpu = CpuEngine::new();
    let mut out = W::Output::default();
    cpu.run(work, chunk, &mut cpu.scratch(), &mut out).expect("a sound chunk");
    out
}

/// The chunk's bytes as they lie, not packed.
fn as_it_lies<W: Work>(engine: &GpuEngine, work: &W, chunk: Chunk<'_>) -> W::Output {
    let mut stream = engine.stream(work, chunk.layout.n_bytes, 1).expect("a stream");
    let mut slot = stream.acquire().expect("a slot");
    slot.write(0, &chunk.bytes[..chunk.layout.n_bytes]).expect("a slot large enough");
    stream.submit(slot, chunk.layout).expect("a sound chunk");
    stream.next().expect("a result").expect("one chunk is in flight")
}

fn tasks(n_tasks: usize, segments: &[usize], formats: Formats, misaligned: bool) -> Made {
    let mut made = make(&Case { n_tasks, segments: segments.to_vec(), formats, misaligned, seed: 11 });
    for (at, segment) in made.layout.segments.iter_mut().enumerate() {
        segment.place = Place { tensor: at as u32 + 5, first_row: (at * PANEL) as u64 };
    }
    made
}

/// Panels of a chunk: the segment, blocks of the chunk before it, its blocks.
fn panels(layout: &ChunkLayout) -> Vec<(usize, usize, usize)> {
    let mut before = 0;
    let mut panels = Vec::new();
    for (at, segment) in layout.segments.iter().enumerate() {
        for start in (0..segment.n_rows).step_by(PANEL) {
            let n_blocks = n_blocks(PANEL.min(segment.n_rows - start));
            panels.push((at, before, n_blocks));
            before += n_blocks;
        }
    }
    panels
}

/// Fails unless codes are the same but for a few ties.
fn assert_same_codes(name: &str, code: &Code, layout: &ChunkLayout, found: &Codes, expected: &Codes) {
    assert_eq!(
        (found.words.len(), found.scales.len(), found.measured.len()),
        (expected.words.len(), expected.scales.len(), expected.measured.len()),
        "{name}"
    );
    let n_tasks = layout.n_tasks();
    let panels = panels(layout);
    let n_all: usize = panels.iter().map(|(.., n_blocks)| n_blocks).sum();
    // Blocks whose codes differ in some task, and segments that have some.
    let (mut other, mut other_segments) = (vec![false; n_all], vec![false; layout.segments.len()]);
    let (mut n_words, mut n_other_words, mut n_other_scales, mut column_at) = (0, 0, 0, 0);
    for column in 0..n_tasks + code.n_kept {
        let is_task = column < n_tasks;
        let rate = if is_task { code.rate } else { code.kept_rate };
        for &(segment, before, n_blocks) in &panels {
            for block in 0..n_blocks {
                // What is kept follows from what the tasks lack.
                if !is_task && other[before + block] {
                    continue;
                }
                let at = |word: usize| column_at + before * rate.words() + word * n_blocks + block;
                let n = (0..rate.words()).filter(|&word| found.words[at(word)] != expected.words[at(word)]).count();
                let scales = [found, expected].map(|codes| codes.scales[column * n_all + before + block]);
                assert!(scales[0].abs_diff(scales[1]) <= 1, "{name}: scales {scales:?} of column {column}");
                if n > 0 || scales[0] != scales[1] {
                    (other[before + block], other_segments[segment]) = (true, true);
                }
                n_words += rate.words();
                n_other_words += n;
                n_other_scales += usize::from(scales[0] != scales[1]);
            }
        }
        column_at += n_all * rate.words();
    }
    assert!(n_other_words <= 3 + n_words / 500, "{name}: {n_other_words} other words of {n_words}");
    assert!(n_other_scales <= 3 + n_all / 50, "{name}: {n_other_scales} other scales of {n_all} a column");
    for (at, (found, expected)) in found.measured.iter().zip(&expected.measured).enumerate() {
        let relative = if other_segments[at / n_tasks] { 2e-2 } else { 1e-5 };
        // Weights that are no directions make the decoded task far larger than the task.
        let tolerance = relative * (expected.energy + expected.decoded);
        for (found, expected) in
            [(found.energy, expected.energy), (found.product, expected.product), (found.decoded, expected.decoded)]
        {
            assert!((found - expected).abs() <= tolerance, "{name}, {at}: measured {found} against {expected}");
        }
    }
}

fn check(engine: &GpuEngine, made: &Made, code: &Code) {
    let Code { rate, kept_rate, n_kept, .. } = code;
    let name =
        format!("{rate:?}, {n_kept} {kept_rate:?} of {} {:?}", made.layout.n_tasks(), made.layout.slices.first());
    let found = engine.run(code, made.chunk()).expect("a sound chunk");
    assert_same_codes(&name, code, &made.layout, &found, &on_cpu(code, made.chunk()));
}

fn kept_twice(rate: Rate, kept_rate: Rate, n_tasks: usize) -> Code {
    let mut random = Random(3);
    Code { rate, kept_rate, kept: random.weights(2 * n_tasks), n_kept: 2, n_carried: 0, seed: 1 << 40 | 7 }
}

#[test]
fn codes_are_those_of_the_cpu() {
    let Some((engine, _turn)) = gpu() else { return };
    let made = tasks(3, &SEGMENTS, Formats::All(Dtype::F32), false);
    for (at, rate) in Rate::ALL.into_iter().enumerate() {
        check(&engine, &made, &code(rate, None, 3));
        check(&engine, &made, &code(rate, Some(Rate::ALL[(at + 4) % 10]), 3));
        check(&engine, &made, &kept_twice(rate, Rate::ALL[(at + 7) % 10], 3));
    }
    assert_eq!(engine.check(), Ok(()));
}

#[test]
fn columns_may_have_any_formats() {
    let Some((engine, _turn)) = gpu() else { return };
    let all = [Dtype::F16, Dtype::Bf16, Dtype::F64].map(Formats::All);
    for formats in all.into_iter().chain([Formats::Mixed]) {
        for misaligned in [false, true] {
            let made = tasks(3, &[PANEL, 9 * 256 - 5, 77], formats, misaligned);
            let code = code(Rate::Four, Some(Rate::Sixteen), 3);
            check(&engine, &made, &code);
            let has_f64 = made.layout.slices.iter().any(|slice| slice.dtype == Dtype::F64);
            if !has_f64 {
                let packed = engine.run(&code, made.chunk()).expect("a sound chunk");
                assert_eq!(packed, as_it_lies(&engine, &code, made.chunk()), "{formats:?}");
            }
        }
    }
}

#[test]
fn many_tasks_and_least_limits() {
    let _turn = turn();
    let setup = DeviceSetup { copies: true, least_limits: true, ..DeviceSetup::default() };
    let Some(engine) = device(setup) else { return };
    check(
        &engine,
        &tasks(70, &[300, 5], Formats::All(Dtype::Bf16), false),
        &kept_twice(Rate::Signs, Rate::Sixteen, 70),
    );
    check(&engine, &tasks(1024, &[260], Formats::All(Dtype::F16), false), &code(Rate::Three, Some(Rate::Four), 1024));
    check(
        &engine,
        &tasks(2, &[600], Formats::Mixed, true),
        &Code { kept: Random(1).weights(2 * 32), n_kept: 32, ..code(Rate::Four, None, 2) },
    );
    check(&engine, &tasks(1, &[], Formats::All(Dtype::F32), false), &code(Rate::Signs, None, 1));
    check(&engine, &tasks(2, &[0, 0], Formats::All(Dtype::F32), false), &code(Rate::Signs, Some(Rate::Four), 2));
    assert_eq!(engine.check(), Ok(()));
}

/// Subnormal numbers are left out: a GPU may take them for zeros.
#[test]
fn odd_blocks_are_coded_too() {
    let Some((engine, _turn)) = gpu() else { return };
    let cases: [(&str, fn(usize) -> f64); 6] = [
        ("zeros", |_| 0.0),
        ("constant", |_| 1e-3),
        ("a single element", |row| if row == 300 { 1.0 } else { 0.0 }),
        ("tiny", |row| 1e-30 * (row as f64 * 0.7).sin()),
        ("huge", |row| 1e30 * (row as f64 * 0.7).sin()),
        ("zeros with a few", |row| if row % 97 == 0 { -1e-4 } else { 0.0 }),
    ];
    for (name, delta) in cases {
        let made = made(&[PANEL, 600], 1, |_, row, _| delta(row));
        let chunk = Chunk { layout: &made.layout, bytes: &made.bytes };
        let x = deltas(&made).swap_remove(0);
        let energy = dot(&x, &x);
        for rate in [Rate::Quarter, Rate::Signs, Rate::Three, Rate::Four, Rate::Sixteen, Rate::TwoFiveSix] {
            let code = code(rate, None, 1);
            let (found, expected) = (engine.run(&code, chunk).expect("a sound chunk"), on_cpu(&code, chunk));
            for (found, expected) in found.scales.iter().zip(&expected.scales) {
                assert!(found.abs_diff(*expected) <= 1, "{name}, {rate:?}: scales {found} {expected}");
            }
            let back = all_decoded(&code, &made, &found).swap_remove(0);
            if energy == 0.0 {
                // A device does not say what its codes lose.
                let expected = Codes { lost: Vec::new(), ..expected };
                assert_eq!(found, expected, "{name}, {rate:?}");
                continue;
            }
            let gain = dot(&x, &back) / energy;
            assert!((gain - 1.0).abs() < 5e-3, "{name}, {rate:?}: gain {gain}");
            for (found, expected) in found.measured.iter().zip(&expected.measured) {
                let same = match expected.energy.is_finite() {
                    true => (found.energy - expected.energy).abs() <= 1e-5 * expected.energy,
                    false => !found.energy.is_finite(),
                };
                assert!(same, "{name}, {rate:?}: {found:?} {expected:?}");
            }
        }
    }
}

#[test]
fn what_is_not_finite_shows_in_the_measures() {
    let Some((engine, _turn)) = gpu() else { return };
    for (dtype, bad) in [
        (Dtype::F32, f64::NAN),
        (Dtype::F32, f64::NEG_INFINITY),
        (Dtype::F32, 3e38),
        (Dtype::F16, f64::INFINITY),
        (Dtype::Bf16, f64::NAN),
        (Dtype::Bf16, 3e38),
    ] {
        for (column, row) in [(2, 4200), (2, 4096 + 599), (0, 4097)] {
            let mut made = tasks(2, &[PANEL, 600], Formats::All(dtype), false);
            let slice = made.layout.slice(1, column);
            let at = slice.offset + (row - PANEL) * dtype.size();
            made.bytes[at..at + dtype.size()].copy_from_slice(&store(bad, dtype).0);
            for kept in [None, Some(Rate::Four)] {
                let found = engine.run(&code(Rate::Four, kept, 2), made.chunk()).expect("a sound chunk");
                let is_finite: Vec<bool> = found.measured.iter().map(|measured| measured.energy.is_finite()).collect();
                let first = column != 0;
                assert_eq!(is_finite, [true, true, first, false], "{dtype} {bad}, column {column}, row {row}");
            }
        }
    }
}

/// Base rows and codes of every rate, made up: any words are codes of something.
struct Coded {
    layout: ChunkLayout,
    bytes: Vec<u8>,
    rates: Vec<Rate>,
}

impl Coded {
    fn chunk(&self) -> Chunk<'_> {
        Chunk { layout: &self.layout, bytes: &self.bytes }
    }
}

fn coded(segments: &[usize], rates: &[Rate], base: Formats, codes_first: bool) -> Coded {
    let mut random = Random(5);
    let mut layout = ChunkLayout { n_columns: 1, ..ChunkLayout::default() };
    layout.segments = segments
        .iter()
        .enumerate()
        .map(|(at, &n_rows)| Segment { n_rows, place: Place { tensor: at as u32, first_row: 5 * PANEL as u64 } })
        .collect();
    let mut bytes = Vec::new();
    for turn in 0..2 {
        if (turn == 0) == codes_first {
            for &n_rows in segments {
                for rate in rates {
                    bytes.resize(bytes.len().next_multiple_of(4), 0xff);
                    let words = bytes.len();
                    bytes.extend(
                        (0..rate.words() * n_blocks(n_rows)).flat_map(|_| (random.next() as u32).to_le_bytes()),
                    );
                    // Anywhere, even in the middle of a word.
                    bytes.extend([0xff; 2]);
                    let scales = bytes.len();
                    let scale = |random: &mut Random| scale_bits(1e-2 * (2.0 + random.signed() as f32));
                    bytes.extend((0..n_blocks(n_rows)).flat_map(|_| scale(&mut random).to_le_bytes()));
                    layout.codes.push(CodeSlice { words, scales });
                }
            }
        } else {
            for (at, &n_rows) in segments.iter().enumerate() {
                let dtype = match base {
                    Formats::All(dtype) => dtype,
                    Formats::Mixed => [Dtype::F32, Dtype::Bf16, Dtype::F16][at % 3],
                };
                bytes.resize(bytes.len().next_multiple_of(dtype.size()), 0xff);
                layout.slices.push(Slice::new(bytes.len(), dtype));
                bytes.extend((0..n_rows).flat_map(|_| store(random.signed(), dtype).0));
            }
        }
    }
    layout.n_bytes = bytes.len();
    Coded { layout, bytes, rates: rates.to_vec() }
}

/// Fails unless rows agree to 1e-6 of what they are made of, and to a rounding of their format.
fn assert_same_rows(name: &str, coded: &Coded, work: &Decode, found: &[u8], expected: &[u8]) {
    assert_eq!(found.len(), expected.len(), "{name}");
    let mut at = 0;
    for _ in 0..work.n_outputs {
        for (segment, slice) in coded.layout.segments.iter().zip(&coded.layout.slices) {
            let dtype = work.dtype.unwrap_or(slice.dtype);
            let rows = at..at + segment.n_rows * dtype.size();
            at = rows.end;
            let [found, expected] = [found, expected].map(|bytes| decode(&bytes[rows.clone()], dtype));
            for (row, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let step = if dtype == Dtype::F32 { 0.0 } else { 2.0 * dtype.unit_roundoff() as f32 * expected.abs() };
                assert!((found - expected).abs() <= 2e-6 + step, "{name}, row {row}: {found} against {expected}");
            }
        }
    }
}

fn edit(coded: &Coded, n_outputs: usize, base: Base, dtype: Option<Dtype>) -> Decode {
    let weights = (0..coded.rates.len() * n_outputs).map(|at| [0.5, -1.0, 0.0, 2.0, 0.25][at % 5]).collect();
    Decode { rates: coded.rates.clone(), weights, n_outputs, base, dtype, seed: 42 }
}

#[test]
fn decoded_edits_are_those_of_the_cpu() {
    let Some((engine, _turn)) = gpu() else { return };
    for rate in Rate::ALL {
        let coded = coded(&SEGMENTS, &[rate, Rate::Eight], Formats::All(Dtype::F32), false);
        for n_outputs in [1, 3] {
            let work = edit(&coded, n_outputs, Base::Added, None);
            let found = engine.run(&work, coded.chunk()).expect("a sound chunk");
            assert_same_rows(&format!("{rate:?}"), &coded, &work, &found, &on_cpu(&work, coded.chunk()));
        }
    }
    assert_eq!(engine.check(), Ok(()));
}

#[test]
fn edits_have_any_format_and_codes_lie_anywhere() {
    let Some((engine, _turn)) = gpu() else { return };
    let bases = [Dtype::F32, Dtype::F16, Dtype::Bf16].map(Formats::All);
    for base_formats in bases.into_iter().chain([Formats::Mixed]) {
        for codes_first in [false, true] {
            let coded = coded(&SEGMENTS, &Rate::ALL, base_formats, codes_first);
            for (base, dtype) in [
                (Base::Added, None),
                (Base::Left, Some(Dtype::F32)),
                (Base::Added, Some(Dtype::F16)),
                (Base::Left, Some(Dtype::Bf16)),
            ] {
                let work = edit(&coded, 2, base, dtype);
                let name = format!("{base_formats:?}, {codes_first}, {base:?}, {dtype:?}");
                let found = engine.run(&work, coded.chunk()).expect("a sound chunk");
                assert_same_rows(&name, &coded, &work, &found, &on_cpu(&work, coded.chunk()));
                assert_eq!(found, as_it_lies(&engine, &work, coded.chunk()), "{name}");
            }
        }
    }
}

#[test]
fn many_columns_are_decoded() {
    let Some((engine, _turn)) = gpu() else { return };
    let rates: Vec<Rate> = (0..230).map(|at| Rate::ALL[(at * 7) % 10]).collect();
    let coded = coded(&[700, 9 * 256], &rates, Formats::All(Dtype::Bf16), false);
    // Weights small enough that 230 columns add up to a few.
    let weights = (0..460).map(|at| [0.02, -0.03, 0.0, 0.05][at % 4]).collect();
    let work = Decode { weights, ..edit(&coded, 2, Base::Added, Some(Dtype::F32)) };
    let found = engine.run(&work, coded.chunk()).expect("a sound chunk");
    assert_same_rows("230 columns", &coded, &work, &found, &on_cpu(&work, coded.chunk()));
}

#[test]
fn the_cpu_decodes_what_is_f64() {
    let Some((engine, _turn)) = gpu() else { return };
    for (base, dtype) in [(Dtype::F64, None), (Dtype::F64, Some(Dtype::F32)), (Dtype::F32, Some(Dtype::F64))] {
        let coded = coded(&[300], &[Rate::Four], Formats::All(base), false);
        let work = edit(&coded, 1, Base::Added, dtype);
        assert_eq!(engine.run(&work, coded.chunk()), Ok(on_cpu(&work, coded.chunk())));
        assert!(!engine.stream(&work, coded.layout.n_bytes, 1).expect("a stream").takes(&coded.layout));
    }
}

#[test]
fn codes_can_stay_on_the_device() {
    let Some((engine, _turn)) = gpu() else { return };
    let coded = coded(&[PANEL, 300], &[Rate::Four, Rate::Signs], Formats::All(Dtype::F32), false);
    let work = edit(&coded, 1, Base::Added, None);
    let resident = engine.resident(&work, coded.chunk()).expect("a sound chunk");
    assert_eq!(resident.result(), engine.run(&work, coded.chunk()));
}
