//! What a manifest says of atoms that are adapters.

use crate::checkpoint::{Form, Module};
use serde::{Deserialize, Serialize};

/// Atoms that are adapters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FactorsRecord {
    /// The stored tensors, in their order.
    pub tensors: Vec<FactorTensor>,
}

/// A stored tensor of a basis of adapters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FactorTensor {
    /// Its shape.
    pub shape: Vec<usize>,
    /// The module whose weight it is, as the adapters know it; `None` where none has factors of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<ModuleRecord>,
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
