//! A saved value from outside: a cursor that looks into containers and hands out tensors.
//!
//! Values may be shared and cyclic, so there is no tree to walk: a cursor is a position, costs nothing, and goes only
//! where it is told.

use super::TorchFile;
use super::pickle::{Id, Node};
use crate::checkpoint::Tensor;
use crate::error::Result;

/// One value of a [`TorchFile`].
#[derive(Clone, Copy, Debug)]
pub struct ValueRef<'a> {
    file: &'a TorchFile,
    id: Id,
}

impl TorchFile {
    /// The value that was saved.
    pub fn root(&self) -> ValueRef<'_> {
        ValueRef { file: self, id: self.values().root }
    }
}

impl<'a> ValueRef<'a> {
    /// Whether it is `None`.
    pub fn is_none(self) -> bool {
        *self.node() == Node::None
    }

    /// A truth value.
    pub fn as_bool(self) -> Option<bool> {
        match self.node() {
            Node::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// An integer of at most 64 bits.
    pub fn as_i64(self) -> Option<i64> {
        match self.node() {
            Node::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// A float, or an integer as one.
    pub fn as_f64(self) -> Option<f64> {
        match self.node() {
            Node::Float(value) => Some(*value),
            Node::Int(value) => Some(*value as f64),
            _ => None,
        }
    }

    /// Text.
    pub fn as_str(self) -> Option<&'a str> {
        self.file.values().str(self.id)
    }

    /// Items of a list, tuple, set or `torch.Size`.
    pub fn items(self) -> Option<impl ExactSizeIterator<Item = ValueRef<'a>>> {
        let file = self.file;
        let items = file.values().items(self.id)?;
        Some(items.iter().map(move |&id| ValueRef { file, id }))
    }

    /// (key, value) of a dict, in the order of insertion.
    pub fn entries(self) -> Option<impl ExactSizeIterator<Item = (ValueRef<'a>, ValueRef<'a>)>> {
        let file = self.file;
        let entries = file.values().entries(self.id)?;
        Some(entries.iter().map(move |&(key, value)| (ValueRef { file, id: key }, ValueRef { file, id: value })))
    }

    /// The value of a dict under a text key.
    pub fn get(self, key: &str) -> Option<ValueRef<'a>> {
        let id = self.file.values().get(self.id, key)?;
        Some(ValueRef { file: self.file, id })
    }

    /// Whether it is a tensor, readable or not.
    pub fn is_tensor(self) -> bool {
        matches!(self.node(), Node::Tensor(_) | Node::Unsupported(_))
    }

    /// The tensor under the name that messages call it by; its bytes come from [`TorchFile::read`].
    ///
    /// # Errors
    /// Rejected when it is no tensor, or one that cannot be read; names it and says why.
    pub fn tensor(self, name: &str) -> Result<Tensor> {
        self.file.tensor(name, self.id)
    }

    /// What it is, in a few words of a message: "a dict of 3".
    pub fn describe(self) -> String {
        self.file.values().describe(self.id)
    }

    fn node(self) -> &'a Node {
        self.file.values().node(self.id)
    }
}
