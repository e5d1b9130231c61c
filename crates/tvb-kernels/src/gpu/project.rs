//! project on the GPU: which variant of project.wgsl, with which weights (see combine.rs).

use super::combine::Combine;
use super::shader::Kernel;
use crate::Project;

/// The projection's weights and flags.
pub(crate) fn combine(project: &Project) -> Combine<'_> {
    Combine {
        weights: &project.encode,
        n_outputs: project.n_atoms,
        subtract_base: true,
        add_base: false,
        kernel: |format, outputs, skip_zeros| Kernel::Project { format, outputs, skip_zeros },
    }
}
