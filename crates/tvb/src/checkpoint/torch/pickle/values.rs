//! What a pickle says: a list of values that refer to each other by their index.

use crate::checkpoint::shown::shown;
use crate::checkpoint::{Charge, Dtype};

/// Index of a value in [`Values`].
pub(in crate::checkpoint::torch) type Id = u32;

/// Everything one pickle made.
#[derive(Debug, Default)]
pub(in crate::checkpoint::torch) struct Values {
    pub(in crate::checkpoint::torch) nodes: Vec<Node>,
    pub(in crate::checkpoint::torch) root: Id,
    /// The storages that tensors refer to, in the order of their first mention.
    pub(in crate::checkpoint::torch) storages: Vec<StorageRef>,
    /// What they take of the budget.
    pub(in crate::checkpoint::torch) _charge: Option<Charge>,
}

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::checkpoint::torch) enum Node {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(Box<str>),
    Bytes(Box<[u8]>),
    List(Vec<Id>),
    Tuple(Box<[Id]>),
    Set(Vec<Id>),
    /// In the order of insertion; a key that stands twice has its last value.
    Dict(Vec<(Id, Id)>),
    /// A class or function that the pickle names: module and name. Nothing is imported.
    Global(Box<str>, Box<str>),
    /// An object of a class, or the result of a function, that is not known here.
    Object(Box<Object>),
    /// Index into [`Values::storages`].
    Storage(u32),
    Tensor(Box<RawTensor>),
    /// A tensor that cannot be read, and why; an error only where it is wanted.
    Unsupported(Box<str>),
}

/// An object that is kept, not understood.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::checkpoint::torch) struct Object {
    pub(in crate::checkpoint::torch) class: Id,
    /// What `__setstate__` or `__dict__` would get.
    pub(in crate::checkpoint::torch) state: Option<Id>,
    /// Items of a class that behaves like a list or a set.
    pub(in crate::checkpoint::torch) items: Vec<Id>,
    /// Entries of a class that behaves like a dict.
    pub(in crate::checkpoint::torch) entries: Vec<(Id, Id)>,
}

/// A tensor as the pickle describes it, before anybody looked whether its storage is there.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::checkpoint::torch) struct RawTensor {
    pub(in crate::checkpoint::torch) storage: u32,
    pub(in crate::checkpoint::torch) dtype: Dtype,
    /// Elements from the storage's start.
    pub(in crate::checkpoint::torch) offset: u64,
    pub(in crate::checkpoint::torch) shape: Vec<usize>,
    /// Steps in elements, one for each dimension.
    pub(in crate::checkpoint::torch) strides: Vec<usize>,
}

/// A storage as the pickle names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::checkpoint::torch) struct StorageRef {
    /// The entry of the archive: `data/KEY`.
    pub(in crate::checkpoint::torch) key: Box<str>,
    pub(in crate::checkpoint::torch) kind: StorageKind,
    /// Number of elements; of bytes for an untyped one.
    pub(in crate::checkpoint::torch) n_elements: u64,
}

/// The element type of a storage.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::checkpoint::torch) enum StorageKind {
    Typed(Dtype),
    /// Bytes; the tensor says what they are.
    Untyped,
    /// A type that no checkpoint here can hold.
    Unknown(Box<str>),
}

impl Node {
    /// Bytes of memory that it takes, but for what containers hold beyond their first items: that is paid for as it comes.
    pub(super) fn cost(&self) -> u64 {
        /// What an allocation takes beside its bytes.
        const BLOCK_BYTES: usize = 24;
        let block = |n_bytes: usize| if n_bytes == 0 { 0 } else { n_bytes + BLOCK_BYTES };
        let own = match self {
            Node::None | Node::Bool(_) | Node::Int(_) | Node::Float(_) | Node::Storage(_) => 0,
            Node::Str(text) => block(text.len()),
            Node::Unsupported(why) => block(why.len()),
            Node::Bytes(bytes) => block(bytes.len()),
            // The first item makes room for four.
            Node::List(_) | Node::Set(_) => block(4 * size_of::<Id>()),
            Node::Dict(_) => block(4 * size_of::<(Id, Id)>()),
            Node::Tuple(items) => block(size_of_val(&**items)),
            Node::Global(module, name) => block(module.len()) + block(name.len()),
            Node::Object(_) => block(size_of::<Object>()) + 2 * block(4 * size_of::<(Id, Id)>()),
            Node::Tensor(tensor) => {
                block(size_of::<RawTensor>()) + block(8 * tensor.shape.len()) + block(8 * tensor.strides.len())
            }
        };
        (size_of::<Node>() + own) as u64
    }
}

impl StorageRef {
    /// Bytes that the storage must have; `None` for an unknown type or an overflow.
    pub(in crate::checkpoint::torch) fn n_bytes(&self) -> Option<u64> {
        match self.kind {
            StorageKind::Typed(dtype) => self.n_elements.checked_mul(dtype.size() as u64),
            StorageKind::Untyped => Some(self.n_elements),
            StorageKind::Unknown(_) => None,
        }
    }
}

impl Values {
    #[allow(clippy::indexing_slicing, reason = "ids are given out for the nodes of this very list, which only grows")]
    pub(in crate::checkpoint::torch) fn node(&self, id: Id) -> &Node {
        &self.nodes[id as usize]
    }

    #[allow(clippy::indexing_slicing, reason = "as above")]
    pub(super) fn node_mut(&mut self, id: Id) -> &mut Node {
        &mut self.nodes[id as usize]
    }

    /// The text of a string.
    pub(in crate::checkpoint::torch) fn str(&self, id: Id) -> Option<&str> {
        match self.node(id) {
            Node::Str(text) => Some(text),
            _ => None,
        }
    }

    /// Items of a list, tuple, set or of an object that behaves like one.
    pub(in crate::checkpoint::torch) fn items(&self, id: Id) -> Option<&[Id]> {
        match self.node(id) {
            Node::List(items) | Node::Set(items) => Some(items),
            Node::Tuple(items) => Some(items),
            Node::Object(object) if !object.items.is_empty() => Some(&object.items),
            _ => None,
        }
    }

    /// Entries of a dict or of an object that behaves like one.
    pub(in crate::checkpoint::torch) fn entries(&self, id: Id) -> Option<&[(Id, Id)]> {
        match self.node(id) {
            Node::Dict(entries) => Some(entries),
            Node::Object(object) if !object.entries.is_empty() => Some(&object.entries),
            _ => None,
        }
    }

    /// The value under a text key; the last one, as Python would have it.
    pub(in crate::checkpoint::torch) fn get(&self, id: Id, key: &str) -> Option<Id> {
        self.entries(id)?.iter().rev().find(|(found, _)| self.str(*found) == Some(key)).map(|(_, value)| *value)
    }

    /// An attribute of an object, from its state: a dict, or a pair of which one is a dict.
    pub(in crate::checkpoint::torch) fn attribute(&self, id: Id, name: &str) -> Option<Id> {
        let Node::Object(object) = self.node(id) else { return None };
        let state = object.state?;
        match self.node(state) {
            Node::Tuple(parts) if parts.len() == 2 => parts.iter().find_map(|&part| self.get(part, name)),
            _ => self.get(state, name),
        }
    }

    /// What a value is, in a few words of a message.
    pub(in crate::checkpoint::torch) fn describe(&self, id: Id) -> String {
        match self.node(id) {
            Node::None => "None".into(),
            Node::Bool(_) => "a truth value".into(),
            Node::Int(_) | Node::Float(_) => "a number".into(),
            Node::Str(_) => "text".into(),
            Node::Bytes(_) => "bytes".into(),
            Node::List(items) => format!("a list of {}", items.len()),
            Node::Tuple(items) => format!("a tuple of {}", items.len()),
            Node::Set(items) => format!("a set of {}", items.len()),
            Node::Dict(entries) => format!("a dict of {}", entries.len()),
            Node::Global(..) => format!("the name {}", shown(&self.global(id))),
            Node::Object(object) => match self.node(object.class) {
                Node::Global(..) => {
                    format!("an object made by {}, which is not run", shown(&self.global(object.class)))
                }
                _ => "an object of an unknown class".into(),
            },
            Node::Storage(_) => "a storage".into(),
            Node::Tensor(_) => "a tensor".into(),
            Node::Unsupported(why) => why.to_string(),
        }
    }

    /// `module.name` of a global.
    pub(in crate::checkpoint::torch) fn global(&self, id: Id) -> String {
        match self.node(id) {
            Node::Global(module, name) => format!("{module}.{name}"),
            _ => String::new(),
        }
    }
}
