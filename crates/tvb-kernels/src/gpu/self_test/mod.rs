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
//! - A merge may divide less exactly: by 2 units in the last place of an f32.
//! - Codes may differ where another order of additions brings a value to the other side of a bound: in 1 word of 64.
//!
//! Not tested: chunks beyond one dispatch, other devices' block sizes, and speed.

mod codes;
mod compare;
mod merges;
mod sums;
mod values;

use super::context::Context;
use super::eigh;
use super::shader::Kernel;
use crate::error::KernelError;
use std::sync::Arc;

/// Compares the device with the CPU engine on this kernel, if it has not passed that test yet.
pub(super) fn first_use(context: &Arc<Context>, kernel: Kernel) -> Result<(), KernelError> {
    if context.has_passed(kernel) {
        return Ok(());
    }
    match kernel {
        Kernel::Gram { .. } | Kernel::GramFold => sums::gram(context, kernel)?,
        Kernel::Project { .. } => sums::project(context, kernel)?,
        Kernel::Reconstruct { .. } => sums::reconstruct(context, kernel)?,
        Kernel::Merge(_) => merges::merge(context, kernel)?,
        Kernel::Code(_) | Kernel::CodeKept(_) | Kernel::Measure(_) => codes::code(context, kernel)?,
        Kernel::Decode(_) => codes::decode(context, kernel)?,
        Kernel::Eigh { .. } | Kernel::EighRound => eigh::self_test(context, kernel)?,
    }
    context.set_passed(kernel);
    Ok(())
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
                Kernel::Merge(_) | Kernel::Decode(_) | Kernel::Eigh { .. } | Kernel::EighRound => true,
            };
            assert!([Shape::SMALL, Shape::LARGE].into_iter().any(is_found), "{kernel:?}");
        }
    }
}
