//! The stack machine: one opcode after another, everything bounded and nothing run.

use super::errors::{PickleError, Step, malformed};
use super::input::Input;
use super::reduce;
use super::stack::Stack;
use super::values::{Id, Node, StorageRef, Values};
use crate::checkpoint::Charge;
use crate::checkpoint::limits::{N_LINKS_MAX, N_OPCODES_MAX, N_VALUES_MAX};
use std::collections::HashMap;

/// Opcodes between two looks at the stack's memory and at whether to stop.
const N_OPCODES_UNSEEN: usize = 4096;
/// Memory for a reference in a container that grows.
const LINK_BYTES: u64 = 8;
/// Memory for a storage: here, in the table of those that are known, and its place in the file.
const STORAGE_BYTES: u64 = 512;

/// Reads one pickle from the front of `bytes`: its values, and how many bytes it took. `charge` pays for the values and is
/// kept with them, `stack_charge` for what is gone afterwards.
pub(in crate::checkpoint::torch) fn run(
    bytes: &[u8],
    charge: Charge,
    mut stack_charge: Charge,
) -> Result<(Values, usize), PickleError> {
    let mut machine = Machine::new(bytes, charge);
    let mut n_opcodes = 0usize;
    loop {
        let begin = machine.input.at;
        n_opcodes += 1;
        if n_opcodes.is_multiple_of(N_OPCODES_UNSEEN) {
            stack_charge.raise_to(machine.stack.n_bytes())?;
            stack_charge.budget().check()?;
            if n_opcodes > N_OPCODES_MAX {
                return malformed(format!("more than {N_OPCODES_MAX} opcodes"));
            }
        }
        let opcode = machine.input.u8()?;
        if opcode == b'.' {
            let root = machine.stack.pop().map_err(|error| located(error, begin))?;
            let values = Values { root, _charge: Some(machine.charge.settled()), ..machine.values };
            return Ok((values, machine.input.at));
        }
        machine.step(opcode).map_err(|error| located(error, begin))?;
    }
}

fn located(error: PickleError, at: usize) -> PickleError {
    match error {
        PickleError::Malformed(why) => PickleError::Malformed(format!("{why} at byte {at} of the pickle")),
        other => other,
    }
}

pub(super) struct Machine<'a> {
    input: Input<'a>,
    stack: Stack,
    pub(super) values: Values,
    storage_numbers: HashMap<StorageRef, u32>,
    pub(super) n_tensors: usize,
    n_links: usize,
    charge: Charge,
    none: Id,
    no: Id,
    yes: Id,
    empty_tuple: Id,
}

impl<'a> Machine<'a> {
    fn new(bytes: &'a [u8], charge: Charge) -> Machine<'a> {
        // The values that a pickle repeats without end take one place each.
        let nodes = vec![Node::None, Node::Bool(false), Node::Bool(true), Node::Tuple(Box::default())];
        Machine {
            input: Input::new(bytes),
            stack: Stack::default(),
            values: Values { nodes, ..Values::default() },
            storage_numbers: HashMap::new(),
            n_tensors: 0,
            n_links: 0,
            charge,
            none: 0,
            no: 1,
            yes: 2,
            empty_tuple: 3,
        }
    }

    fn step(&mut self, opcode: u8) -> Step<()> {
        match opcode {
            // Protocol, frame: lengths that say nothing new.
            0x80 => drop(self.input.take(1)?),
            0x95 => drop(self.input.take(8)?),
            b'(' => self.stack.mark()?,
            b'0' => match self.stack.pop() {
                Ok(_) => {}
                Err(_) => drop(self.pop_mark()?),
            },
            b'1' => drop(self.pop_mark()?),
            b'2' => {
                let top = self.stack.top()?;
                self.stack.push(top)?;
            }

            b'N' => self.stack.push(self.none)?,
            0x88 => self.stack.push(self.yes)?,
            0x89 => self.stack.push(self.no)?,
            b'J' => {
                let value = i32::from_le_bytes(self.input.array()?);
                self.make(Node::Int(i64::from(value)))?;
            }
            b'K' => {
                let value = self.input.u8()?;
                self.make(Node::Int(i64::from(value)))?;
            }
            b'M' => {
                let value = self.input.u16()?;
                self.make(Node::Int(i64::from(value)))?;
            }
            b'I' => {
                let line = self.input.line()?;
                match line {
                    "00" => self.stack.push(self.no)?,
                    "01" => self.stack.push(self.yes)?,
                    _ => self.int_text(line)?,
                }
            }
            b'L' => {
                let line = self.input.line()?;
                self.int_text(line.strip_suffix('L').unwrap_or(line))?;
            }
            0x8a => {
                let length = self.input.u8()?;
                self.long(u64::from(length))?;
            }
            0x8b => {
                let length = self.input.u32()?;
                self.long(u64::from(length))?;
            }
            b'F' => {
                let line = self.input.line()?;
                match line.parse() {
                    Ok(value) => self.make(Node::Float(value))?,
                    Err(_) => return malformed("a float that is none"),
                }
            }
            b'G' => {
                let value = f64::from_be_bytes(self.input.array()?);
                self.make(Node::Float(value))?;
            }

            // Text; Python 2 wrote byte strings where text was meant.
            b'X' => {
                let length = self.input.u32()?;
                self.text(u64::from(length))?;
            }
            0x8c => {
                let length = self.input.u8()?;
                self.text(u64::from(length))?;
            }
            0x8d => {
                let length = self.input.u64()?;
                self.text(length)?;
            }
            b'T' => {
                let length = self.input.u32()?;
                self.text(u64::from(length))?;
            }
            b'U' => {
                let length = self.input.u8()?;
                self.text(u64::from(length))?;
            }
            b'S' => {
                let line = self.input.line()?;
                let inner = ['\'', '"'].iter().find_map(|&quote| line.strip_prefix(quote)?.strip_suffix(quote));
                match inner {
                    Some(inner) => self.make(Node::Str(inner.into()))?,
                    None => return malformed("text without quotes"),
                }
            }
            b'V' => {
                let line = self.input.line()?;
                self.make(Node::Str(line.into()))?;
            }
            b'B' => {
                let length = self.input.u32()?;
                self.byte_string(u64::from(length))?;
            }
            b'C' => {
                let length = self.input.u8()?;
                self.byte_string(u64::from(length))?;
            }
            0x8e | 0x96 => {
                let length = self.input.u64()?;
                self.byte_string(length)?;
            }

            b'}' => self.make(Node::Dict(Vec::new()))?,
            b']' => self.make(Node::List(Vec::new()))?,
            b')' => self.stack.push(self.empty_tuple)?,
            0x8f => self.make(Node::Set(Vec::new()))?,
            b'l' => {
                let items = self.pop_mark()?;
                self.make(Node::List(items))?;
            }
            b't' => {
                let items = self.pop_mark()?;
                self.make(Node::Tuple(items.into()))?;
            }
            0x91 => {
                let items = self.pop_mark()?;
                self.make(Node::Set(items))?;
            }
            b'd' => {
                let items = self.pop_mark()?;
                self.make(Node::Dict(pairs(&items)?))?;
            }
            0x85..=0x87 => {
                let n = usize::from(opcode - 0x84);
                let mut items = vec![0; n];
                for item in items.iter_mut().rev() {
                    *item = self.stack.pop()?;
                }
                self.link(n)?;
                self.make(Node::Tuple(items.into()))?;
            }
            b'a' => {
                let item = self.stack.pop()?;
                self.link(1)?;
                self.extend(&[item])?;
            }
            b'e' | 0x90 => {
                let items = self.pop_mark()?;
                self.extend(&items)?;
            }
            b's' => {
                let value = self.stack.pop()?;
                let key = self.stack.pop()?;
                self.link(2)?;
                self.insert(&[(key, value)])?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.insert(&pairs(&items)?)?;
            }

            b'c' => {
                let module = self.input.line()?.into();
                let name = self.input.line()?.into();
                self.make(Node::Global(module, name))?;
            }
            0x93 => {
                let (name, module) = (self.stack.pop()?, self.stack.pop()?);
                match (self.values.str(module), self.values.str(name)) {
                    (Some(module), Some(name)) => {
                        // A name that is copied from other values instead of read from the input costs as much as
                        // references.
                        let n_links = (module.len() + name.len()) / 4;
                        let global = Node::Global(module.into(), name.into());
                        self.n_links += n_links;
                        self.check_links()?;
                        self.make(global)?;
                    }
                    _ => return malformed("a global whose name is no text"),
                }
            }
            b'R' | 0x81 => {
                let (args, callable) = (self.stack.pop()?, self.stack.pop()?);
                self.call(callable, args)?;
            }
            0x92 => {
                let (_keywords, args, callable) = (self.stack.pop()?, self.stack.pop()?, self.stack.pop()?);
                self.call(callable, args)?;
            }
            b'i' => {
                let class = Node::Global(self.input.line()?.into(), self.input.line()?.into());
                let class = self.add(class)?;
                let args = self.pop_mark()?;
                let args = self.add(Node::Tuple(args.into()))?;
                self.call(class, args)?;
            }
            b'o' => {
                let items = self.pop_mark()?;
                let Some((&class, args)) = items.split_first() else { return malformed("an object without a class") };
                let args = self.add(Node::Tuple(args.into()))?;
                self.call(class, args)?;
            }
            b'b' => {
                let state = self.stack.pop()?;
                let object = self.stack.top()?;
                // Attributes of tensors and containers (hooks, `_metadata`) say nothing about numbers.
                if let Node::Object(object) = self.values.node_mut(object) {
                    object.state = Some(state);
                }
            }
            b'Q' => {
                let id = self.stack.pop()?;
                let value = reduce::persistent(self, id)?;
                self.stack.push(value)?;
            }
            b'P' => return malformed("a persistent id in text form, which PyTorch never writes"),
            0x82..=0x84 => return malformed("a class by extension number, which only its author's program knows"),
            0x97 | 0x98 => return malformed("a buffer outside the pickle, which PyTorch never writes"),

            b'q' => {
                let index = self.input.u8()?;
                self.stack.put(u32::from(index))?;
            }
            b'r' => {
                let index = self.input.u32()?;
                self.stack.put(index)?;
            }
            0x94 => self.stack.put_next()?,
            b'p' => {
                let index = self.input.index_line()?;
                self.stack.put(index)?;
            }
            b'h' => {
                let index = self.input.u8()?;
                self.stack.get(u32::from(index))?;
            }
            b'j' => {
                let index = self.input.u32()?;
                self.stack.get(index)?;
            }
            b'g' => {
                let index = self.input.index_line()?;
                self.stack.get(index)?;
            }
            other => return malformed(format!("unknown opcode 0x{other:02x}")),
        }
        Ok(())
    }

    // Values.

    /// Adds a value without putting it on the stack.
    pub(super) fn add(&mut self, node: Node) -> Step<Id> {
        if self.values.nodes.len() >= N_VALUES_MAX {
            return malformed(format!("more than {N_VALUES_MAX} values"));
        }
        self.charge.take(node.cost())?;
        self.values.nodes.push(node);
        Ok((self.values.nodes.len() - 1) as Id)
    }

    fn make(&mut self, node: Node) -> Step<()> {
        let id = self.add(node)?;
        self.stack.push(id)
    }

    /// Accounts for references that a container is about to hold.
    pub(super) fn link(&mut self, n: usize) -> Step<()> {
        self.n_links += n;
        self.check_links()?;
        self.charge.take(n as u64 * LINK_BYTES)?;
        Ok(())
    }

    fn check_links(&self) -> Step<()> {
        match self.n_links {
            n if n > N_LINKS_MAX => malformed(format!("more than {N_LINKS_MAX} references")),
            _ => Ok(()),
        }
    }

    /// The number of a storage; every mention of one has the same.
    pub(super) fn storage(&mut self, storage: StorageRef) -> Step<u32> {
        if let Some(&number) = self.storage_numbers.get(&storage) {
            return Ok(number);
        }
        self.charge.take(STORAGE_BYTES)?;
        let number = self.values.storages.len() as u32;
        self.storage_numbers.insert(storage.clone(), number);
        self.values.storages.push(storage);
        Ok(number)
    }

    fn int_text(&mut self, line: &str) -> Step<()> {
        match line.trim().parse() {
            Ok(value) => self.make(Node::Int(value)),
            Err(_) => malformed("an integer that is none, or too large"),
        }
    }

    /// A little-endian integer of any length; one that is too large becomes bytes, since nothing here needs it.
    fn long(&mut self, length: u64) -> Step<()> {
        let bytes = self.input.take(length)?;
        let mut wide = match bytes.last() {
            Some(last) if last & 0x80 != 0 => [0xff; 8],
            _ => [0; 8],
        };
        if bytes.len() > wide.len() {
            return self.make(Node::Bytes(bytes.into()));
        }
        wide.iter_mut().zip(bytes).for_each(|(wide, byte)| *wide = *byte);
        self.make(Node::Int(i64::from_le_bytes(wide)))
    }

    fn text(&mut self, length: u64) -> Step<()> {
        let bytes = self.input.take(length)?;
        // Lone surrogates (Python's `surrogatepass`) and Latin-1 text are not names of tensors: shown, not kept.
        self.make(Node::Str(String::from_utf8_lossy(bytes).into()))
    }

    fn byte_string(&mut self, length: u64) -> Step<()> {
        let bytes = self.input.take(length)?;
        self.make(Node::Bytes(bytes.into()))
    }

    fn extend(&mut self, items: &[Id]) -> Step<()> {
        let target = self.stack.top()?;
        match self.values.node_mut(target) {
            Node::List(list) | Node::Set(list) => list.extend_from_slice(items),
            Node::Object(object) => object.items.extend_from_slice(items),
            _ => return malformed("items for a value that holds none"),
        }
        Ok(())
    }

    fn insert(&mut self, entries: &[(Id, Id)]) -> Step<()> {
        let target = self.stack.top()?;
        match self.values.node_mut(target) {
            Node::Dict(dict) => dict.extend_from_slice(entries),
            Node::Object(object) => object.entries.extend_from_slice(entries),
            _ => return malformed("entries for a value that holds none"),
        }
        Ok(())
    }

    fn call(&mut self, callable: Id, args: Id) -> Step<()> {
        let result = reduce::call(self, callable, args)?;
        self.stack.push(result)
    }

    /// The values above the last mark, as a container takes them up.
    fn pop_mark(&mut self) -> Step<Vec<Id>> {
        let items = self.stack.pop_mark()?;
        self.link(items.len())?;
        Ok(items)
    }
}

fn pairs(items: &[Id]) -> Step<Vec<(Id, Id)>> {
    let (pairs, rest) = items.as_chunks::<2>();
    match rest {
        [] => Ok(pairs.iter().map(|&[key, value]| (key, value)).collect()),
        _ => malformed("a key without a value"),
    }
}
