//! The machine's working memory: a stack of values with marks in it, and the memo.

use super::errors::{Step, malformed};
use super::values::Id;
use crate::checkpoint::limits::N_VALUES_MAX;
use std::collections::HashMap;

#[derive(Default)]
pub(super) struct Stack {
    items: Vec<Id>,
    /// Heights of the stack at the open marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl Stack {
    /// Bytes of memory that it has.
    pub(super) fn n_bytes(&self) -> u64 {
        // The memo's table has a control byte for each place, and an eighth of its places is free.
        let memo_bytes = self.memo.capacity() * (size_of::<(u32, Id)>() + 2);
        let mark_bytes = self.marks.capacity() * size_of::<usize>();
        (self.items.capacity() * size_of::<Id>() + mark_bytes + memo_bytes) as u64
    }

    fn check(&self) -> Step<()> {
        match self.items.len().max(self.marks.len()) {
            n if n > N_VALUES_MAX => malformed(format!("more than {N_VALUES_MAX} values on the stack")),
            _ => Ok(()),
        }
    }

    pub(super) fn push(&mut self, id: Id) -> Step<()> {
        self.items.push(id);
        self.check()
    }

    pub(super) fn mark(&mut self) -> Step<()> {
        self.marks.push(self.items.len());
        self.check()
    }

    /// The last value, unless a mark lies on it: what is below the last mark may not be touched.
    pub(super) fn top(&self) -> Step<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.items.get(floor..).and_then(<[Id]>::last) {
            Some(&id) => Ok(id),
            None => malformed("a value is missing on the stack"),
        }
    }

    pub(super) fn pop(&mut self) -> Step<Id> {
        let top = self.top()?;
        self.items.pop();
        Ok(top)
    }

    /// The values above the last mark, which goes with them.
    pub(super) fn pop_mark(&mut self) -> Step<Vec<Id>> {
        match self.marks.pop() {
            Some(floor) => Ok(self.items.split_off(floor)),
            None => malformed("a mark is missing on the stack"),
        }
    }

    /// Remembers the last value.
    pub(super) fn put(&mut self, index: u32) -> Step<()> {
        let top = self.top()?;
        self.memo.insert(index, top);
        match self.memo.len() {
            n if n > N_VALUES_MAX => malformed(format!("more than {N_VALUES_MAX} values in the memo")),
            _ => Ok(()),
        }
    }

    /// Remembers the last value under the next free number.
    pub(super) fn put_next(&mut self) -> Step<()> {
        self.put(self.memo.len() as u32)
    }

    /// Puts a remembered value on the stack.
    pub(super) fn get(&mut self, index: u32) -> Step<()> {
        match self.memo.get(&index) {
            Some(&id) => self.push(id),
            None => malformed(format!("nothing in the memo under {index}")),
        }
    }
}
