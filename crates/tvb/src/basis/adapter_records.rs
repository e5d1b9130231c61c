//! What a manifest says of atoms that are adapters.

use crate::checkpoint::{Dtype, Form, Module};
use crate::digest::Digest;
use crate::ops::dtype_name;
use serde::{Deserialize, Serialize};

/// Atoms that are adapters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FactorsRecord {
    /// The stored tensors, in their order.
    pub tensors: Vec<FactorTensor>,
    /// The spaces that some tensors of all adapters share; `None` where none do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared: Option<SharedRecord>,
}

impl FactorsRecord {
    /// Whether tensors that are shared and the spaces go together.
    pub(super) fn check_shared(&self) -> Result<(), String> {
        let n_shared = self.tensors.iter().filter(|tensor| tensor.shared).count();
        match &self.shared {
            Some(shared) if n_shared == 0 || shared.rank == 0 || shared.dtype.float().is_none() => {
                Err(format!("spaces that tensors share expected, of rank {} for {n_shared} found", shared.rank))
            }
            None if n_shared > 0 => Err(format!("the spaces of {n_shared} tensors expected, none found")),
            _ => Ok(()),
        }
    }
}

/// Spaces that adapters share: one file with U and V of each tensor, beside which an adapter has a core.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedRecord {
    /// p, columns of U and rows of V.
    pub rank: usize,
    /// The file inside the basis folder.
    pub file: String,
    /// Its bytes.
    pub bytes: u64,
    /// Digest of its header and of each of its tensors.
    pub checksum: Digest,
    /// How its numbers and those of the cores are stored.
    #[serde(with = "dtype_name")]
    pub dtype: Dtype,
}

/// A stored tensor of a basis of adapters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FactorTensor {
    /// Its shape.
    pub shape: Vec<usize>,
    /// The module whose weight it is, as the adapters know it; `None` where none has factors of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<ModuleRecord>,
    /// Whether adapters have a core of it, between sides that all share.
    #[serde(default, skip_serializing_if = "is_not")]
    pub shared: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_not(said: &bool) -> bool {
    !said
}

/// A module as adapters know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleRecord {
    /// As PEFT calls it.
    pub name: String,
    /// What it does with its weight.
    pub form: FormRecord,
}

/// What a module does with its weight; see [`Form`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "as there")]
pub enum FormRecord {
    Linear,
    Transposed,
    Embedding,
    Convolution,
}

impl ModuleRecord {
    /// What a manifest says of a module.
    pub fn of(module: &Module) -> ModuleRecord {
        let form = match module.form {
            Form::Linear => FormRecord::Linear,
            Form::Transposed => FormRecord::Transposed,
            Form::Embedding => FormRecord::Embedding,
            Form::Convolution => FormRecord::Convolution,
        };
        ModuleRecord { name: module.name.clone(), form }
    }

    /// The module that it is about.
    pub fn module(&self) -> Module {
        let form = match self.form {
            FormRecord::Linear => Form::Linear,
            FormRecord::Transposed => Form::Transposed,
            FormRecord::Embedding => Form::Embedding,
            FormRecord::Convolution => Form::Convolution,
        };
        Module { name: self.name.clone(), form }
    }
}
