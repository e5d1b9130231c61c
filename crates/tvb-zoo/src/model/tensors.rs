//! A model's tensors as a checkpoint holds them: plain numbers by name.

use std::collections::BTreeMap;

/// The numbers of a tensor, row by row.
#[derive(Clone, Debug, PartialEq)]
pub enum Elements {
    /// Parameters.
    F32(Vec<f32>),
    /// An integer buffer.
    I64(Vec<i64>),
}

/// One tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Shape; empty for a scalar.
    pub shape: Vec<usize>,
    /// As many as the shape says.
    pub elements: Elements,
}

impl Tensor {
    /// The parameters; none of an integer buffer.
    pub fn floats(&self) -> Option<&[f32]> {
        match &self.elements {
            Elements::F32(values) => Some(values),
            Elements::I64(_) => None,
        }
    }
}

/// The tensors of one model by name: f32, but for the integer buffer.
pub type Tensors = BTreeMap<String, Tensor>;
