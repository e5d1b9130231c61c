//! The test of a device's kernels, each before its first use: small chunks that run exactly that variant, against the CPU engine.
//! Drivers have miscompiled shaders before, silently; a few milliseconds find that out before anything is made of a result.
//!
//! What is tested of a kernel follows from the kernel: `sums.rs` and `codes.rs` look for the work, and for the least and the largest
//! numbers of tasks and outputs, whose plan has it. What is required:
//!
//! - Where every sum is exact in f32, in whatever order, results are those of the CPU engine to the bit, but for the sign of zero:
//!   products and rows, f16 subnormals among them, ties and overflow of 16-bit results.
//! - A NaN is a NaN and an infinity an infinity of its sign. A weight of 0 leaves an infinite column out where the kernel is the one for such
//!   weights.
//! - An f32 below 2⁻¹²⁶, stored so or as bf16, may be taken for 0: WGSL leaves that to the device.
//! - Codes may differ where another order of additions brings a value to the other side of a bound: in 1 word of 64.
//!
//! Not tested: chunks beyond one dispatch, other devices' block sizes, and speed.

mod codes;
mod sums;
mod values;

use super::context::Context;
use super::plan::{Plan, Step};
use super::shader::Kernel;
use super::stream::FirstUse;
use super::variant::Format;
use super::{eigh, single};
use crate::chunk::{Chunk, ChunkLayout};
use crate::cpu::CpuEngine;
use crate::error::KernelError;
use crate::work::Work;
use std::sync::Arc;

/// A chunk for a test.
pub(super) struct Case {
    layout: ChunkLayout,
    bytes: Vec<u8>,
}

/// Compares the device with the CPU engine on this kernel, if it has not passed that test yet.
pub(super) fn first_use(context: &Arc<Context>, kernel: Kernel) -> Result<(), KernelError> {
    if context.has_passed(kernel) {
        return Ok(());
    }
    match kernel {
        Kernel::Gram { .. } | Kernel::GramFold => sums::gram(context, kernel)?,
        Kernel::Project { .. } => sums::project(context, kernel)?,
        Kernel::Reconstruct { .. } => sums::reconstruct(context, kernel)?,
        Kernel::Code(_) | Kernel::CodeKept(_) | Kernel::Measure(_) => codes::code(context, kernel)?,
        Kernel::Decode(_) => codes::decode(context, kernel)?,
        Kernel::Eigh { .. } | Kernel::EighRound => eigh::self_test(context, kernel)?,
    }
    context.set_passed(kernel);
    Ok(())
}

/// The format of the chunks that a kernel is for.
fn format_of(kernel: Kernel) -> Format {
    match kernel {
        Kernel::Gram { format, .. } | Kernel::Project { format, .. } | Kernel::Reconstruct { format, .. } => format,
        Kernel::Code(format) | Kernel::CodeKept(format) | Kernel::Measure(format) | Kernel::Decode(format) => format,
        // Neither reads a chunk.
        Kernel::GramFold | Kernel::Eigh { .. } | Kernel::EighRound => Format::F32,
    }
}

/// Whether a plan runs this kernel.
fn runs<P>(plan: Result<Plan<P>, KernelError>, kernel: Kernel) -> bool {
    plan.is_ok_and(|plan| {
        plan.steps.iter().any(|step| matches!(step, Step::Dispatch { kernel: found, .. } if *found == kernel))
    })
}

/// The first and the last of these numbers for which a plan has the kernel.
///
/// # Errors
/// [`KernelError::SelfTest`] where there is none: a kernel that nothing is known to call is not to be trusted.
fn ends(
    kernel: Kernel,
    numbers: impl Iterator<Item = usize>,
    has: impl Fn(usize) -> bool,
) -> Result<[usize; 2], KernelError> {
    let mut found = numbers.filter(|&number| has(number));
    match found.next() {
        Some(first) => Ok([first, found.last().unwrap_or(first)]),
        None => Err(failed(kernel, "there is no test for this variant".to_owned())),
    }
}

/// What the device and the CPU engine find, in this order.
fn both<W: Work>(context: &Arc<Context>, work: &W, case: &Case) -> Result<[W::Output; 2], KernelError> {
    let cpu = CpuEngine::new();
    let chunk = Chunk { layout: &case.layout, bytes: &case.bytes };
    let mut expected = W::Output::default();
    cpu.run(work, chunk, &mut cpu.scratch(), &mut expected)?;
    let found = single::run(Arc::clone(context), &cpu, work, chunk, FirstUse::IsTest)?;
    Ok([found, expected])
}

fn failed(kernel: Kernel, found: String) -> KernelError {
    KernelError::SelfTest { kernel: kernel.entry_point(), found }
}

/// Fails where what the device found differs from what was expected; a NaN is one whatever its bits. Where `may_flush`, 0 is right too.
fn same(
    kernel: Kernel,
    [found, expected]: [&[f64]; 2],
    may_flush: impl Fn(usize) -> bool,
    name: impl Fn(usize) -> String,
) -> Result<(), KernelError> {
    let format = format_of(kernel);
    if found.len() != expected.len() {
        let counts = format!("{} values where {} were expected ({format:?})", found.len(), expected.len());
        return Err(failed(kernel, counts));
    }
    let is_same = |at: usize| {
        let (found, expected) = (found[at], expected[at]);
        found == expected || (found.is_nan() && expected.is_nan()) || (found == 0.0 && may_flush(at))
    };
    match (0..found.len()).find(|&at| !is_same(at)) {
        Some(at) => {
            let what = format!("{} is {} where {} was expected ({format:?})", name(at), found[at], expected[at]);
            Err(failed(kernel, what))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::variant::Shape;

    /// A variant without a test would fail on every device.
    #[test]
    fn every_variant_has_a_test() {
        for kernel in Kernel::all() {
            let is_found = |shape: Shape| match kernel {
                Kernel::Gram { .. } | Kernel::GramFold => sums::gram_tasks(kernel, shape).is_ok(),
                Kernel::Project { .. } => sums::n_outputs(kernel, sums::projection).is_ok(),
                Kernel::Reconstruct { .. } => sums::n_outputs(kernel, sums::reconstruction).is_ok(),
                Kernel::Code(_) | Kernel::CodeKept(_) | Kernel::Measure(_) => !codes::coded(kernel).is_empty(),
                Kernel::Decode(_) | Kernel::Eigh { .. } | Kernel::EighRound => true,
            };
            assert!([Shape::SMALL, Shape::LARGE].into_iter().any(is_found), "{kernel:?}");
        }
    }
}
