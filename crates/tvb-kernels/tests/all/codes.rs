//! Codes against a decoder that follows the format's words and nothing else: what each task decodes to, how true that is, and
//! the same bits from every instruction set.

use tvb_kernels::{
    Base, Chunk, ChunkLayout, Code, CodeSlice, Codes, CpuEngine, Decode, Dtype, PANEL, Place, Rate, Segment, Slice,
    n_blocks, scale_from_bits,
};

/// A checkpoint's values, base first, and their chunk.
pub(crate) struct Made {
    pub(crate) layout: ChunkLayout,
    pub(crate) bytes: Vec<u8>,
    /// \[n_columns, rows of all segments\].
    values: Vec<Vec<f32>>,
}

/// Uniform numbers in \[0, 1).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(crate) fn gaussian(&mut self) -> f64 {
        (-2.0 * (1.0 - self.next()).ln()).sqrt() * (std::f64::consts::TAU * self.next()).cos()
    }
}

/// Columns of f32 in segments of these lengths; `delta(task, row, random)` is what a task adds to the base.
pub(crate) fn made(segments: &[usize], n_tasks: usize, delta: impl Fn(usize, usize, &mut Random) -> f64) -> Made {
    let n_rows: usize = segments.iter().sum();
    let mut random = Random(1);
    let base: Vec<f32> = (0..n_rows).map(|_| random.gaussian() as f32 * 0.0).collect();
    let mut values = vec![base.clone()];
    for task in 0..n_tasks {
        values.push((0..n_rows).map(|row| base[row] + delta(task, row, &mut random) as f32).collect());
    }
    let mut layout = ChunkLayout { n_columns: n_tasks + 1, ..ChunkLayout::default() };
    let mut start = 0;
    for (tensor, &n) in segments.iter().enumerate() {
        let place = Place { tensor: tensor as u32 + 5, first_row: 3 * PANEL as u64 };
        layout.segments.push(Segment { n_rows: n, place });
        for column in 0..=n_tasks {
            layout.slices.push(Slice::new((column * n_rows + start) * 4, Dtype::F32));
        }
        start += n;
    }
    let bytes: Vec<u8> = values.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
    layout.n_bytes = bytes.len();
    Made { layout, bytes, values }
}

pub(crate) fn gaussian_tasks(segments: &[usize], n_tasks: usize) -> Made {
    made(segments, n_tasks, |task, _, random| random.gaussian() * 1e-3 * (task + 1) as f64)
}

pub(crate) fn code(rate: Rate, kept: Option<Rate>, n_tasks: usize) -> Code {
    let n_kept = usize::from(kept.is_some());
    let q = 1.0 / (n_tasks as f32).sqrt();
    Code {
        rate,
        kept_rate: kept.unwrap_or(Rate::Signs),
        kept: vec![q; n_tasks * n_kept],
        n_kept,
        n_carried: 0,
        seed: 42,
    }
}

pub(crate) fn coded(engine: &CpuEngine, made: &Made, code: &Code) -> Codes {
    let mut out = Codes::default();
    let chunk = Chunk { layout: &made.layout, bytes: &made.bytes };
    engine.run(code, chunk, &mut engine.scratch(), &mut out).expect("coded");
    out
}

fn mix(x: u32) -> u32 {
    let x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    let x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

/// One column's elements from its words and scales, as the format's description has it, in f64.
fn decoded(code: &Code, rate: Rate, layout: &ChunkLayout, words: &[u32], scales: &[u16]) -> Vec<f64> {
    let (mut out, mut word_at, mut scale_at) = (Vec::new(), 0, 0);
    let levels = rate.levels();
    for segment in &layout.segments {
        let mut key = mix(code.seed as u32).wrapping_add((code.seed >> 32) as u32);
        key = mix(mix(key).wrapping_add(segment.place.tensor));
        for start in (0..segment.n_rows).step_by(PANEL) {
            let n = PANEL.min(segment.n_rows - start);
            let k = n.div_ceil(256);
            let panel = (segment.place.first_row as usize + start) / PANEL;
            let panel_key = mix(key.wrapping_add(panel as u32));
            let sign_word = |at: usize| mix(panel_key.wrapping_add((at as u32).wrapping_mul(0x9e37_79b9)));
            let part = sign_word(128);
            let (first, step) = ((part & 0xff) as usize, (part >> 8 & 0xff | 1) as usize);
            let words = &words[word_at..][..rate.words() * k];
            let mut x = vec![0.0; n];
            for block in 0..k {
                let scale = f64::from(scale_from_bits(scales[scale_at + block]));
                let mut y = [0.0f64; 256];
                for at in 0..rate.n_lines() {
                    let line = if rate.n_lines() == 256 { at } else { (first + at * step) % 256 };
                    y[line] = scale
                        * if rate == Rate::Three {
                            let digits = words[at / 20 * k + block] >> (8 * (at % 20 / 5)) & 0xff;
                            match digits / 3u32.pow(at as u32 % 5) % 3 {
                                0 => 0.0,
                                1 => f64::from(levels[1]),
                                _ => -f64::from(levels[1]),
                            }
                        } else {
                            let bit =
                                |p: usize| words[(p * rate.n_lines() / 32 + at / 32) * k + block] >> (at % 32) & 1;
                            let cell = (1..rate.n_planes()).fold(0, |cell, plane| 2 * cell + bit(plane) as usize);
                            f64::from(levels[cell]) * if bit(0) == 1 { -1.0 } else { 1.0 }
                        };
                }
                for line in 0..256 {
                    let element = line * k + block;
                    if element < n {
                        let sum: f64 = (0..256)
                            .map(|other: usize| if (line & other).count_ones() % 2 == 1 { -y[other] } else { y[other] })
                            .sum();
                        let minus = sign_word(line / 32 * k + block) >> (line % 32) & 1 == 1;
                        x[element] = if minus { -sum } else { sum } / 256.0;
                    }
                }
            }
            out.extend(x);
            word_at += rate.words() * k;
            scale_at += k;
        }
    }
    out
}

/// Every column of a chunk's codes.
pub(crate) fn all_decoded(code: &Code, made: &Made, codes: &Codes) -> Vec<Vec<f64>> {
    let n_tasks = made.layout.n_tasks();
    let blocks: usize = made.layout.segments.iter().map(|segment| n_blocks(segment.n_rows)).sum();
    let mut word_at = 0;
    (0..n_tasks + code.n_kept)
        .map(|column| {
            let rate = if column < n_tasks { code.rate } else { code.kept_rate };
            let words = &codes.words[word_at..][..blocks * rate.words()];
            word_at += words.len();
            decoded(code, rate, &made.layout, words, &codes.scales[column * blocks..][..blocks])
        })
        .collect()
}

pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

pub(crate) fn deltas(made: &Made) -> Vec<Vec<f64>> {
    let base = &made.values[0];
    let delta = |values: &Vec<f32>| values.iter().zip(base).map(|(value, base)| f64::from(value - base)).collect();
    made.values[1..].iter().map(delta).collect()
}

#[test]
fn every_rate_is_unbiased_and_loses_what_it_says() {
    let made = gaussian_tasks(&[16 * PANEL], 2);
    for rate in Rate::ALL {
        let code = code(rate, None, 2);
        let codes = coded(&CpuEngine::new(), &made, &code);
        for (x, back) in deltas(&made).iter().zip(all_decoded(&code, &made, &codes)) {
            let energy = dot(x, x);
            let gain = dot(x, &back) / energy;
            let noise = (dot(&back, &back) - gain * gain * energy) / energy;
            let expected = rate.noise();
            assert!((gain - 1.0).abs() < 2e-3, "{rate:?}: gain {gain}");
            assert!((noise / expected - 1.0).abs() < 0.03, "{rate:?}: noise {noise}, expected {expected}");
        }
    }
}

#[test]
fn what_is_measured_is_what_decodes() {
    let made = gaussian_tasks(&[PANEL, 3000, 256, 7], 3);
    for (rate, kept) in [(Rate::Signs, None), (Rate::Signs, Some(Rate::Sixteen)), (Rate::Four, Some(Rate::Eight))] {
        let code = code(rate, kept, 3);
        let codes = coded(&CpuEngine::new(), &made, &code);
        let columns = all_decoded(&code, &made, &codes);
        for (task, x) in deltas(&made).iter().enumerate() {
            let mut back = columns[task].clone();
            for kept in 0..code.n_kept {
                let q = f64::from(code.kept[task * code.n_kept + kept]);
                back.iter_mut().zip(&columns[3 + kept]).for_each(|(back, shared)| *back += q * shared);
            }
            let mut row = 0;
            for (segment, of) in made.layout.segments.iter().enumerate() {
                let rows = row..row + of.n_rows;
                let measured = codes.measured[segment * 3 + task];
                let energy = dot(&x[rows.clone()], &x[rows.clone()]);
                assert!((measured.energy / 256.0 / energy - 1.0).abs() < 1e-4, "{rate:?} {task} {segment}");
                let product = dot(&x[rows.clone()], &back[rows.clone()]);
                assert!((measured.product / 256.0 - product).abs() < 1e-3 * energy, "{rate:?} {task} {segment}");
                // A last panel's missing elements decode to noise that is measured and never seen.
                let decoded = dot(&back[rows.clone()], &back[rows.clone()]);
                if of.n_rows % 256 == 0 {
                    assert!((measured.decoded / 256.0 / decoded - 1.0).abs() < 1e-3, "{rate:?} {task} {segment}");
                }
                row += of.n_rows;
            }
        }
    }
}

#[test]
fn the_kept_expression_has_only_the_shared_columns_error() {
    let n_tasks = 16;
    let made = made(&[4 * PANEL], n_tasks, |_, _, random| random.gaussian() * 1e-3);
    let code = code(Rate::Signs, Some(Rate::Sixteen), n_tasks);
    let codes = coded(&CpuEngine::new(), &made, &code);
    let columns = all_decoded(&code, &made, &codes);
    let sum = |columns: &[Vec<f64>]| -> Vec<f64> {
        (0..columns[0].len()).map(|row| columns.iter().map(|column| column[row]).sum()).collect()
    };
    let x = sum(&deltas(&made));
    let mut back = sum(&columns[..n_tasks]);
    // Each task takes q = 1/4 of the shared column.
    back.iter_mut().zip(&columns[n_tasks]).for_each(|(back, shared)| *back += 16.0 * 0.25 * shared);
    let error: Vec<f64> = x.iter().zip(&back).map(|(x, back)| x - back).collect();
    let expected = Rate::Signs.noise() * Rate::Sixteen.distortion();
    let found = dot(&error, &error) / dot(&x, &x);
    assert!((found / expected - 1.0).abs() < 0.05, "{found} {expected}");
}

#[test]
fn every_instruction_set_gives_the_same_bits() {
    let made = gaussian_tasks(&[PANEL, 2 * PANEL + 700, 1, 255, 256, 257], 3);
    let engines = CpuEngine::each();
    for rate in Rate::ALL {
        let code = code(rate, Some(Rate::Four), 3);
        let first = coded(&engines[0], &made, &code);
        for engine in &engines[1..] {
            assert!(coded(engine, &made, &code) == first, "{rate:?} on {}", engine.instruction_set());
        }
    }
}

/// The codes of a chunk, laid out for a decoding one after the base's rows.
pub(crate) fn with_codes(made: &Made, code: &Code, codes: &Codes) -> (ChunkLayout, Vec<u8>, Vec<Rate>) {
    let (n_tasks, segments) = (made.layout.n_tasks(), &made.layout.segments);
    let n_rows: usize = segments.iter().map(|segment| segment.n_rows).sum();
    let rates: Vec<Rate> =
        (0..n_tasks + code.n_kept).map(|column| if column < n_tasks { code.rate } else { code.kept_rate }).collect();
    let mut bytes = made.bytes[..4 * n_rows].to_vec();
    let words_at = bytes.len();
    bytes.extend(codes.words.iter().flat_map(|word| word.to_le_bytes()));
    let scales_at = bytes.len();
    bytes.extend(codes.scales.iter().flat_map(|scale| scale.to_le_bytes()));
    let blocks: Vec<usize> = segments.iter().map(|segment| n_blocks(segment.n_rows)).collect();
    let all: usize = blocks.iter().sum();
    let mut layout = ChunkLayout { n_columns: 1, segments: segments.clone(), ..ChunkLayout::default() };
    let (mut row, mut before) = (0, 0);
    for (segment, &n_blocks) in segments.iter().zip(&blocks) {
        layout.slices.push(Slice::new(4 * row, Dtype::F32));
        let mut column_at = 0;
        for (column, rate) in rates.iter().enumerate() {
            let words = words_at + 4 * (column_at + before * rate.words());
            layout.codes.push(CodeSlice { words, scales: scales_at + 2 * (column * all + before) });
            column_at += all * rate.words();
        }
        row += segment.n_rows;
        before += n_blocks;
    }
    layout.n_bytes = bytes.len();
    (layout, bytes, rates)
}

#[test]
fn decoded_edits_are_those_of_the_format() {
    let made = gaussian_tasks(&[PANEL, 300, 1, 5000], 3);
    for rate in Rate::ALL {
        let code = code(rate, Some(Rate::Eight), 3);
        let codes = coded(&CpuEngine::new(), &made, &code);
        let (layout, bytes, rates) = with_codes(&made, &code, &codes);
        let columns = all_decoded(&code, &made, &codes);
        for n_outputs in [1, 3] {
            let weights: Vec<f32> = (0..4 * n_outputs).map(|at| [0.5, -1.0, 0.0, 2.0, 0.25][at % 5]).collect();
            let decode = Decode {
                rates: rates.clone(),
                weights: weights.clone(),
                n_outputs,
                base: Base::Added,
                dtype: None,
                seed: code.seed,
            };
            for engine in CpuEngine::each() {
                let mut out = vec![0xff; 7];
                engine
                    .run(&decode, Chunk { layout: &layout, bytes: &bytes }, &mut engine.scratch(), &mut out)
                    .expect("decoded");
                let rows: Vec<f32> = out.as_chunks::<4>().0.iter().map(|row| f32::from_le_bytes(*row)).collect();
                let n_rows = made.values[0].len();
                assert_eq!(rows.len(), n_outputs * n_rows);
                for (at, &found) in rows.iter().enumerate() {
                    let (output, row) = (at / n_rows, at % n_rows);
                    let sum: f64 = columns
                        .iter()
                        .enumerate()
                        .map(|(column, values)| values[row] * f64::from(weights[column * n_outputs + output]))
                        .sum();
                    let expected = f64::from(made.values[0][row]) + sum;
                    assert!((f64::from(found) - expected).abs() < 2e-6, "{rate:?} {output} {row}: {found} {expected}");
                }
            }
        }
    }
}

#[test]
fn odd_blocks_are_coded_too() {
    let cases: [(&str, fn(usize) -> f64); 7] = [
        ("zeros", |_| 0.0),
        ("constant", |_| 1e-3),
        ("a single element", |row| if row == 300 { 1.0 } else { 0.0 }),
        ("tiny", |row| 1e-30 * (row as f64 * 0.7).sin()),
        ("huge", |row| 1e30 * (row as f64 * 0.7).sin()),
        ("subnormal", |row| 1e-40 * (row as f64 * 0.7).sin()),
        ("zeros with a few", |row| if row % 97 == 0 { -1e-4 } else { 0.0 }),
    ];
    for (name, delta) in cases {
        let made = made(&[PANEL, 600], 1, |_, row, _| delta(row));
        let x = deltas(&made).swap_remove(0);
        for rate in [Rate::Quarter, Rate::Signs, Rate::Three, Rate::Four, Rate::Sixteen, Rate::TwoFiveSix] {
            let code = code(rate, None, 1);
            let codes = coded(&CpuEngine::new(), &made, &code);
            let back = all_decoded(&code, &made, &codes).swap_remove(0);
            let energy = dot(&x, &x);
            if energy == 0.0 {
                assert!(back.iter().all(|&value| value == 0.0) && codes.words.iter().all(|&word| word == 0), "{name}");
                continue;
            }
            let gain = dot(&x, &back) / energy;
            // A subnormal scale has few bits.
            let tolerance = if name == "subnormal" { 0.2 } else { 5e-3 };
            assert!((gain - 1.0).abs() < tolerance, "{name}, {rate:?}: gain {gain}");
        }
    }
}

#[test]
fn what_is_not_finite_shows_in_the_measures() {
    for bad in [f64::NAN, f64::INFINITY, 3e38] {
        let made = made(&[PANEL, 100], 2, |task, row, _| if (task, row) == (1, 4097) { bad } else { 1e-3 });
        let codes = coded(&CpuEngine::new(), &made, &code(Rate::Signs, Some(Rate::Four), 2));
        let is_finite = |at: usize| codes.measured[at].energy.is_finite();
        assert!(is_finite(0) && is_finite(1) && is_finite(2), "{bad}");
        assert!(!is_finite(3), "{bad}");
    }
}

#[test]
fn codes_that_do_not_fit_their_chunk_are_refused() {
    let made = gaussian_tasks(&[PANEL], 1);
    let code = code(Rate::Signs, None, 1);
    let codes = coded(&CpuEngine::new(), &made, &code);
    let (layout, bytes, rates) = with_codes(&made, &code, &codes);
    let engine = CpuEngine::new();
    let decode = Decode { rates, weights: vec![1.0], n_outputs: 1, base: Base::Left, dtype: None, seed: 42 };
    let run = |layout: &ChunkLayout, decode: &Decode| {
        engine.run(decode, Chunk { layout, bytes: &bytes }, &mut engine.scratch(), &mut Vec::new())
    };
    assert!(run(&layout, &decode).is_ok());
    for change in 0..5 {
        let mut layout = layout.clone();
        match change {
            0 => layout.codes.clear(),
            1 => layout.codes[0].words = layout.n_bytes - 4,
            2 => layout.codes[0].words += 2,
            3 => layout.codes[0].scales = usize::MAX - 1,
            _ => layout.codes[0].scales += 1,
        }
        assert!(run(&layout, &decode).is_err(), "{change}");
    }
    assert!(run(&layout, &Decode { weights: vec![f32::NAN], ..decode.clone() }).is_err());
    assert!(run(&layout, &Decode { weights: vec![1.0, 1.0], ..decode }).is_err());
}
