//! The tests of code and decode.

use super::compare::{both, failed, format_of, runs, same};
use super::values::{Case, Rows, case};
use crate::chunk::{ChunkLayout, CodeSlice, Dtype};
use crate::code::{Code, Codes, Measured};
use crate::decode::Decode;
use crate::error::KernelError;
use crate::gpu::context::Context;
use crate::gpu::shader::Kernel;
use crate::gpu::variant::Shape;
use crate::panel::{PANEL, n_blocks, scale_bits};
use crate::rate::Rate;
use crate::reconstruct::Base;
use crate::work::OnGpu;
use std::sync::Arc;

/// A whole panel and one of an odd number of blocks; less than a block; f16's subnormals.
const CODED_ROWS: [Rows; 3] = [Rows::Plain(PANEL + 2200), Rows::Plain(31), Rows::Tiny(300)];

const N_TASKS: usize = 3;

/// Work that runs this kernel: every rate, alone and with a shared column of every rate.
pub(super) fn coded(kernel: Kernel) -> Vec<Code> {
    let layout = case(N_TASKS + 1, &CODED_ROWS, format_of(kernel)).layout;
    let alone =
        Rate::ALL.map(|rate| Code { rate, kept_rate: rate, kept: Vec::new(), n_kept: 0, n_carried: 0, seed: 5 });
    let shared = Rate::ALL.into_iter().zip(Rate::ALL.into_iter().rev()).map(|(rate, kept_rate)| Code {
        rate,
        kept_rate,
        kept: vec![0.5, -0.625, 0.75],
        n_kept: 1,
        n_carried: 0,
        seed: 5,
    });
    let works = alone.into_iter().chain(shared);
    let has =
        |work: &Code| [Shape::LARGE, Shape::SMALL].into_iter().any(|shape| runs(work.plan(&layout, shape, 1), kernel));
    works.filter(has).collect()
}

/// Every rate that the variant is for.
pub(super) fn code(context: &Arc<Context>, kernel: Kernel) -> Result<(), KernelError> {
    let sound = case(N_TASKS + 1, &CODED_ROWS, format_of(kernel));
    let unsound = case(N_TASKS + 1, &[Rows::NotFinite(0), Rows::NotFinite(2)], format_of(kernel));
    let works = coded(kernel);
    if works.is_empty() {
        return Err(failed(kernel, "there is no test for this variant".to_owned()));
    }
    for work in works {
        let rate = work.rate.name();
        let wrong = |what: &str| Err(failed(kernel, format!("{what} at {rate} bits are not those expected")));
        let [found, expected] = both(context, &work, &sound)?;
        let n_other = found.words.iter().zip(&expected.words).filter(|(found, expected)| found != expected).count();
        if found.words.len() != expected.words.len() || n_other > expected.words.len() / 64 {
            return wrong("words");
        }
        // One step of a scale is 1/256 of it, or less.
        let n_far =
            found.scales.iter().zip(&expected.scales).filter(|(found, expected)| found.abs_diff(**expected) > 1);
        if found.scales.len() != expected.scales.len() || n_far.count() > 0 {
            return wrong("scales");
        }
        if !all_measured(&found, &expected, |found, expected| {
            let far = |(found, wanted): (f64, f64)| (found - wanted).abs() > 1e-2 * expected.energy;
            !sums(found).into_iter().zip(sums(expected)).any(far) && found.energy.is_finite()
        }) {
            return wrong("measures");
        }
        // What no code can say shows in the measures.
        let [found, expected] = both(context, &work, &unsound)?;
        if !all_measured(&found, &expected, |found, expected| found.energy.is_finite() == expected.energy.is_finite()) {
            return wrong("measures of what is not finite");
        }
    }
    Ok(())
}

fn sums(measured: &Measured) -> [f64; 3] {
    [measured.energy, measured.product, measured.decoded]
}

fn all_measured(found: &Codes, expected: &Codes, is_right: impl Fn(&Measured, &Measured) -> bool) -> bool {
    found.measured.len() == expected.measured.len()
        && found.measured.iter().zip(&expected.measured).all(|(found, expected)| is_right(found, expected))
}

/// One column of every rate, with whatever codes; then columns of scale 0, which leave the base as it is to be rounded.
pub(super) fn decode(context: &Arc<Context>, kernel: Kernel) -> Result<(), KernelError> {
    let format = format_of(kernel);
    let mut coded = case(1, &CODED_ROWS, format);
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 16
    };
    add_codes(&mut coded, |is_scale| match is_scale {
        true => u32::from(scale_bits(8.0 + (next() % 9) as f32)),
        false => next() << 16 | next(),
    });
    let mut bare =
        case(1, &[Rows::Plain(300), Rows::Odd, Rows::Tiny(33), Rows::NotFinite(2), Rows::NotFinite(3)], format);
    add_codes(&mut bare, |_| 0);
    let weights = (0..2 * Rate::ALL.len()).map(|at| ((at * 29) % 17) as f32 / 8.0 - 1.0).collect();
    let mut work = Decode {
        rates: Rate::ALL.to_vec(),
        weights,
        n_outputs: 2,
        base: Base::Added,
        dtype: Some(Dtype::F32),
        seed: 5,
    };
    for (dtype, tolerance) in [(Dtype::F32, 1e-4), (Dtype::F16, 0.02), (Dtype::Bf16, 0.1)] {
        work.dtype = Some(dtype);
        let [found, expected] = both(context, &work, &coded)?.map(|rows| crate::cpu::decode(&rows, dtype));
        let is_close = |(found, expected): (&f32, &f32)| (found - expected).abs() < tolerance;
        if found.len() != expected.len() || !found.iter().zip(&expected).all(is_close) {
            return Err(failed(kernel, format!("rows in {dtype} are not those expected")));
        }
        let [found, expected] = both(context, &work, &bare)?
            .map(|rows| crate::cpu::decode(&rows, dtype).into_iter().map(f64::from).collect::<Vec<f64>>());
        same(kernel, [&found, &expected], |_| false, |at| format!("row {at} without codes in {dtype}"))?;
    }
    Ok(())
}

/// Codes of every rate for each segment: words and scales from `next`, which is told which is wanted.
fn add_codes(case: &mut Case, mut next: impl FnMut(bool) -> u32) {
    let Case { layout: ChunkLayout { segments, codes, n_bytes, .. }, bytes } = case;
    for segment in segments.iter() {
        let n_blocks = n_blocks(segment.n_rows);
        for rate in Rate::ALL {
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            let words = bytes.len();
            bytes.extend((0..rate.words() * n_blocks).flat_map(|_| next(false).to_le_bytes()));
            let scales = bytes.len();
            bytes.extend((0..n_blocks).flat_map(|_| (next(true) as u16).to_le_bytes()));
            codes.push(CodeSlice { words, scales });
        }
    }
    *n_bytes = bytes.len();
}
