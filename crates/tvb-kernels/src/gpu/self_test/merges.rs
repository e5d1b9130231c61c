//! The test of merge: every rule, every way to keep, places and equals.

use super::compare::{both, failed, format_of};
use super::values::{Rows, case};
use crate::chunk::Dtype;
use crate::error::KernelError;
use crate::gpu::context::Context;
use crate::gpu::shader::Kernel;
use crate::merge::{Consensus, Edge, Keep, Merge, MergeTask};
use crate::signs::Place;
use std::sync::Arc;

const N_TASKS: usize = 4;
/// Several runs of rows, the last one short; an odd number; f16's subnormals; what is not finite.
const ROWS: [Rows; 7] = [
    Rows::Plain(299),
    Rows::Plain(31),
    Rows::Tiny(40),
    Rows::NotFinite(0),
    Rows::NotFinite(1),
    Rows::NotFinite(2),
    Rows::NotFinite(3),
];
/// Where the segments lie in their tensor: anywhere.
const PLACES: [u64; 3] = [0, 1000, 0xffff_0000];
/// Units in the last place by which a quotient may differ.
const UNITS: u32 = 2;

/// Every rule, and every way to keep with each.
fn works() -> Vec<Merge> {
    let edge = |value: f32, ties: std::ops::Range<u64>| Edge { bits: value.to_bits(), ties };
    let keeps = [
        Keep::All,
        Keep::Band { low: edge(0.25, 0..u64::MAX), high: None },
        Keep::Band { low: edge(0.1875, 100..1100), high: Some(edge(1.5, 40..0xffff_0007)) },
        Keep::Random { key: 0x1234_5678, chance: 1 << 31 },
    ];
    let rules = [
        Consensus::Sum,
        Consensus::Elected { divides: false },
        Consensus::Elected { divides: true },
        Consensus::Erased { floor: 0.125 },
        Consensus::Needed { k: 2, lambda: 0.5 },
        Consensus::NeededBy { task: 1, lambda: 0.25 },
        Consensus::Largest,
        Consensus::LargestFor { task: 2 },
    ];
    let mut works = Vec::new();
    for (at, consensus) in rules.into_iter().enumerate() {
        let task = |task: usize| MergeTask {
            // Powers of two: every sum is exact.
            factor: [1.0, 0.5, 2.0, -1.0][(task + at) % 4],
            weight: [1.0, 0.5, 2.0, 4.0][(task + at) % 4],
            keep: keeps[(task + at) % 4].clone(),
        };
        let variance = (at % 2 == 1).then(|| edge(0.140_625, 50..0xffff_0005));
        let tasks: Vec<MergeTask> = (0..N_TASKS).map(task).collect();
        let (base, lambda) = if at % 3 == 0 { (1.0, 1.0) } else { (0.5, 2.0) };
        for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
            let tasks = tasks.clone();
            works.push(Merge { tasks, variance: variance.clone(), consensus, base, lambda, dtype: Some(dtype) });
        }
    }
    works
}

pub(super) fn merge(context: &Arc<Context>, kernel: Kernel) -> Result<(), KernelError> {
    let mut case = case(N_TASKS + 1, &ROWS, format_of(kernel));
    for (segment, first_row) in case.layout.segments.iter_mut().zip(PLACES.into_iter().cycle()) {
        segment.place = Place { tensor: 0, first_row };
    }
    for work in works() {
        let dtype = work.dtype.unwrap_or(Dtype::F32);
        let [found, expected] = both(context, &work, &case)?.map(|rows| crate::cpu::decode(&rows, dtype));
        // The step between neighbours of the format, at a size of 1.
        let step = match dtype {
            Dtype::F16 => 2f32.powi(-10),
            Dtype::Bf16 => 2f32.powi(-7),
            Dtype::F32 | Dtype::F64 => 2f32.powi(-23) * UNITS as f32,
        };
        let is_close = |(found, expected): (&f32, &f32)| {
            found == expected
                || (found.is_nan() && expected.is_nan())
                || (found - expected).abs() <= step * expected.abs()
                || (found - expected).abs() < f32::MIN_POSITIVE
        };
        let wrong = found.iter().zip(&expected).position(|pair| !is_close(pair));
        if found.len() != expected.len() || wrong.is_some() {
            let at = wrong.unwrap_or(expected.len().min(found.len()));
            let of = |rows: &[f32]| rows.get(at).copied().unwrap_or(f32::NAN);
            return Err(failed(
                kernel,
                format!(
                    "row {at} by {:?} in {dtype} is {} where {} was expected",
                    work.consensus,
                    of(&found),
                    of(&expected)
                ),
            ));
        }
    }
    Ok(())
}
