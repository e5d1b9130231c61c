//! What the tests of all kernels share: which plans run a kernel, and a result on the device beside the CPU engine's.

use super::values::Case;
use crate::chunk::Chunk;
use crate::cpu::CpuEngine;
use crate::error::KernelError;
use crate::gpu::context::Context;
use crate::gpu::plan::{Plan, Step};
use crate::gpu::shader::Kernel;
use crate::gpu::single;
use crate::gpu::stream::FirstUse;
use crate::gpu::variant::Format;
use crate::work::Work;
use std::sync::Arc;

/// The format of the chunks that a kernel is for.
pub(super) fn format_of(kernel: Kernel) -> Format {
    match kernel {
        Kernel::Gram { format, .. } | Kernel::Project { format, .. } | Kernel::Reconstruct { format, .. } => format,
        Kernel::Merge(format) => format,
        Kernel::Code(format) | Kernel::CodeKept(format) | Kernel::Measure(format) | Kernel::Decode(format) => format,
        // Neither reads a chunk.
        Kernel::GramFold | Kernel::Eigh { .. } | Kernel::EighRound => Format::F32,
    }
}

/// Whether a plan runs this kernel.
pub(super) fn runs<P>(plan: Result<Plan<P>, KernelError>, kernel: Kernel) -> bool {
    plan.is_ok_and(|plan| {
        plan.steps.iter().any(|step| matches!(step, Step::Dispatch { kernel: found, .. } if *found == kernel))
    })
}

/// The first and the last of these numbers for which a plan has the kernel.
///
/// # Errors
/// [`KernelError::SelfTest`] where there is none: a kernel that nothing is known to call is not to be trusted.
pub(super) fn ends(
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
pub(super) fn both<W: Work>(context: &Arc<Context>, work: &W, case: &Case) -> Result<[W::Output; 2], KernelError> {
    let cpu = CpuEngine::new();
    let chunk = Chunk { layout: &case.layout, bytes: &case.bytes };
    let mut expected = W::Output::default();
    cpu.run(work, chunk, &mut cpu.scratch(), &mut expected)?;
    let found = single::run(Arc::clone(context), &cpu, work, chunk, FirstUse::IsTest)?;
    Ok([found, expected])
}

pub(super) fn failed(kernel: Kernel, found: String) -> KernelError {
    KernelError::SelfTest { kernel: kernel.entry_point(), found }
}

/// Fails where what the device found differs from what was expected; a NaN is one whatever its bits. Where `may_flush`, 0 is right too.
pub(super) fn same(
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
