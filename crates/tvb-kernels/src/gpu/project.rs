//! project on the GPU: which variant of project.wgsl, with which weights (see combine.rs).

use super::combine::{Combine, variant};
use super::shader::Kernel;
use crate::Project;

/// The projection's weights and flags.
pub(crate) fn combine(project: &Project) -> Combine<'_> {
    let (outputs, skip_zeros) = variant(&project.encode, project.n_atoms);
    Combine {
        weights: &project.encode,
        n_outputs: project.n_atoms,
        subtract_base: true,
        add_base: false,
        kernel: Kernel::Project { outputs, skip_zeros },
    }
}
