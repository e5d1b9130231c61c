//! A pickle machine that runs nothing.
//!
//! A pickle is a program for a stack machine, and Python's machine may be told to import and call anything. This one
//! knows values (numbers, text, containers), PyTorch's tensors and storages, and objects of unknown classes, which it
//! keeps as their class, arguments and state. A call of an unknown function is such an object too: its result is
//! never computed. `machine` reads the opcodes (from an
//! `input`, with a `stack`), `reduce` knows the few callables that mean something, `values` is what
//! comes out.
//!
//! Values lie in one list and refer to each other by index. So shared and cyclic values cost nothing, nothing is
//! copied, and no depth of nesting can overflow the call stack.

mod errors;
mod input;
mod machine;
mod reduce;
mod stack;
mod values;

pub(super) use errors::PickleError;
pub(super) use machine::run;
pub(super) use values::{Id, Node, RawTensor, StorageKind, StorageRef, Values};
