//! reconstruct on the GPU: which variant of reconstruct.wgsl, with which weights (see combine.rs).

use super::combine::Combine;
use super::shader::Kernel;
use crate::{Base, Columns, Reconstruct};

/// The reconstruction's weights and flags.
pub(crate) fn combine(reconstruct: &Reconstruct) -> Combine<'_> {
    Combine {
        weights: &reconstruct.weights,
        n_outputs: reconstruct.n_outputs,
        subtract_base: reconstruct.columns == Columns::Checkpoints,
        add_base: reconstruct.base == Base::Added,
        kernel: |format, outputs, skip_zeros| Kernel::Reconstruct { format, outputs, skip_zeros },
    }
}
