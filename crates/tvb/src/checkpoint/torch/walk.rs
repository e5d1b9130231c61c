//! From a dict or a pickled module to named values.
//!
//! A pickle can name one dict or module a million times at the cost of two bytes each. So every dict is looked through once
//! and remembered, what is visited is counted, and every name is paid for before it is made.

use super::errors::Fault;
use super::pickle::{Id, Node, Values};
use crate::checkpoint::limits::{
    MODULE_DEPTH_MAX, N_LINKS_MAX, N_SHARED_LEAST, N_SHARED_MAX, N_TENSORS_MAX, NAME_BYTES_MAX,
};
use crate::checkpoint::shown::shown;
use crate::checkpoint::{Charge, DataFile};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// Memory for a remembered dict or set beside its entries.
const TABLE_BYTES: u64 = 160;
/// Memory for one entry of a remembered dict or set, with what is needed to make it.
const ENTRY_BYTES: u64 = 80;
/// Memory for a name beside its bytes.
const NAME_BYTES: u64 = 96;

/// Named values, not all of them tensors, in the order of a state dict.
pub(super) struct Names {
    pub(super) list: Vec<(String, Id)>,
    charge: Charge,
}

impl Names {
    fn new(file: &DataFile) -> Names {
        Names { list: Vec::new(), charge: file.account("the names of its tensors") }
    }

    fn push(&mut self, prefix: &str, name: &str, value: Id) -> Result<(), Fault> {
        let n_bytes = prefix.len() + name.len();
        if n_bytes > NAME_BYTES_MAX {
            return Err(too_long(prefix, name));
        }
        if self.list.len() >= N_TENSORS_MAX {
            return Err(format!("more than {N_TENSORS_MAX} tensors").into());
        }
        self.charge.take(NAME_BYTES + n_bytes as u64)?;
        self.list.push(([prefix, name].concat(), value));
        Ok(())
    }
}

fn too_long(prefix: &str, name: &str) -> Fault {
    let n_bytes = prefix.len() + name.len();
    let shown = shown(if prefix.is_empty() { name } else { prefix });
    format!("tensor {shown}: a name of {n_bytes} bytes, expected at most {NAME_BYTES_MAX}").into()
}

/// The entries of a flat state dict.
pub(super) fn flat(tables: &mut Tables<'_>, dict: Id) -> Result<Names, Fault> {
    let mut names = Names::new(tables.file);
    for &(name, value) in tables.named(dict)?.iter() {
        names.push("", name, value)?;
    }
    Ok(names)
}

/// What a module is made of: ids of its dicts, and of the set of buffers that are not saved.
#[derive(Clone, Copy)]
struct Module {
    parameters: Id,
    buffers: Option<Id>,
    modules: Id,
    transient: Option<Id>,
}

/// The attributes that make a module, in the order of [`Attributes`].
const ATTRIBUTES: [&str; 4] = ["_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"];
type Attributes = [Option<Id>; ATTRIBUTES.len()];

/// What was found out about dicts and sets, each of which is looked through once.
pub(super) struct Tables<'a> {
    file: &'a DataFile,
    values: &'a Values,
    named: HashMap<Id, Rc<[(&'a str, Id)]>>,
    texts: HashMap<Id, Rc<HashSet<&'a str>>>,
    attributes: HashMap<Id, Attributes>,
    charge: Charge,
}

impl<'a> Tables<'a> {
    pub(super) fn new(file: &'a DataFile, values: &'a Values) -> Tables<'a> {
        let charge = file.account("the dicts of its pickle");
        Tables { file, values, named: HashMap::new(), texts: HashMap::new(), attributes: HashMap::new(), charge }
    }

    /// The entries with text keys; of a key that stands twice the last value, at its first place, as Python has it.
    fn named(&mut self, dict: Id) -> Result<Rc<[(&'a str, Id)]>, Fault> {
        if let Some(known) = self.named.get(&dict) {
            return Ok(known.clone());
        }
        let values = self.values;
        let entries = values.entries(dict).unwrap_or_default();
        self.charge.take(TABLE_BYTES + ENTRY_BYTES * entries.len() as u64)?;
        let mut named: Vec<(&str, Id)> = Vec::with_capacity(entries.len());
        let mut places: HashMap<&str, usize> = HashMap::with_capacity(entries.len());
        for &(key, value) in entries {
            let Some(name) = values.str(key) else { continue };
            match places.get(name) {
                Some(&place) => named.get_mut(place).into_iter().for_each(|entry| entry.1 = value),
                None => {
                    places.insert(name, named.len());
                    named.push((name, value));
                }
            }
        }
        let named: Rc<[(&str, Id)]> = named.into();
        self.named.insert(dict, named.clone());
        Ok(named)
    }

    /// The texts among the items of a set.
    fn texts(&mut self, set: Id) -> Result<Rc<HashSet<&'a str>>, Fault> {
        if let Some(known) = self.texts.get(&set) {
            return Ok(known.clone());
        }
        let values = self.values;
        let items = values.items(set).unwrap_or_default();
        self.charge.take(TABLE_BYTES + ENTRY_BYTES * items.len() as u64)?;
        let texts: Rc<HashSet<&str>> = Rc::new(items.iter().filter_map(|&item| values.str(item)).collect());
        self.texts.insert(set, texts.clone());
        Ok(texts)
    }

    /// The attributes that a dict holds, each as [`Values::get`] finds it.
    fn attributes(&mut self, dict: Id) -> Result<Attributes, Fault> {
        if let Some(known) = self.attributes.get(&dict) {
            return Ok(*known);
        }
        self.charge.take(TABLE_BYTES)?;
        let mut found = Attributes::default();
        for &(key, value) in self.values.entries(dict).unwrap_or_default() {
            let name = self.values.str(key);
            let of_name = ATTRIBUTES.iter().zip(&mut found).find(|(attribute, _)| name == Some(**attribute));
            if let Some((_, place)) = of_name {
                *place = Some(value);
            }
        }
        self.attributes.insert(dict, found);
        Ok(found)
    }

    /// The module that an object is, whatever its class, by its state: a dict, or a pair of which one is a dict.
    fn module(&mut self, id: Id) -> Result<Option<Module>, Fault> {
        let values = self.values;
        let Node::Object(object) = values.node(id) else { return Ok(None) };
        let Some(state) = object.state else { return Ok(None) };
        let found = match values.node(state) {
            Node::Tuple(parts) => match **parts {
                [first, second] => {
                    let mut found = self.attributes(first)?;
                    for (found, other) in found.iter_mut().zip(self.attributes(second)?) {
                        *found = found.or(other);
                    }
                    found
                }
                _ => self.attributes(state)?,
            },
            _ => self.attributes(state)?,
        };
        let [Some(parameters), buffers, Some(modules), transient] = found else { return Ok(None) };
        let are_dicts = [parameters, modules].iter().all(|&dict| values.entries(dict).is_some());
        Ok(are_dicts.then_some(Module { parameters, buffers, modules, transient }))
    }

    /// Whether an object is a module.
    pub(super) fn is_module(&mut self, id: Id) -> Result<bool, Fault> {
        Ok(self.module(id)?.is_some())
    }
}

/// A walk over modules. A shared module has every name that leads to it; one inside itself is refused.
pub(super) struct Walk<'w, 'a> {
    tables: &'w mut Tables<'a>,
    names: Names,
    /// The modules from the root to where we are.
    path: Vec<Id>,
    n_modules: usize,
    n_entries: usize,
    /// The most modules, and the most names.
    n_shared_max: usize,
}

impl<'w, 'a> Walk<'w, 'a> {
    pub(super) fn new(tables: &'w mut Tables<'a>) -> Walk<'w, 'a> {
        let names = Names::new(tables.file);
        let n_shared_max = N_SHARED_LEAST + N_SHARED_MAX * tables.values.nodes.len();
        Walk { tables, names, path: Vec::new(), n_modules: 0, n_entries: 0, n_shared_max }
    }

    /// The names of everything below the module at `root`.
    ///
    /// # Errors
    /// Modules that are too many, too deep or inside themselves; names that are too long. Too little memory. Interrupted.
    pub(super) fn run(mut self, root: Id) -> Result<Names, Fault> {
        match self.tables.module(root)? {
            Some(module) => self.module(root, module, "")?,
            None => return Err("expected a module, found another value".to_owned().into()),
        }
        Ok(self.names)
    }

    fn module(&mut self, id: Id, module: Module, prefix: &str) -> Result<(), Fault> {
        let here = || shown(prefix.trim_end_matches('.'));
        if prefix.len() > NAME_BYTES_MAX {
            return Err(too_long(prefix, ""));
        }
        if self.path.contains(&id) {
            return Err(format!("module {} contains itself", here()).into());
        }
        if self.path.len() >= MODULE_DEPTH_MAX {
            return Err(format!("module {} is nested more than {MODULE_DEPTH_MAX} deep", here()).into());
        }
        self.n_modules += 1;
        if self.n_modules.max(self.names.list.len()) > self.n_shared_max {
            return Err(format!("modules that share each other, with more than {} names", self.n_shared_max).into());
        }
        self.tables.file.budget().check()?;
        self.path.push(id);

        for &(name, value) in self.visit(Some(module.parameters))?.iter() {
            self.tensor(prefix, name, value)?;
        }
        let buffers = self.visit(module.buffers)?;
        let transient = match module.transient {
            Some(set) if !buffers.is_empty() => self.tables.texts(set)?,
            _ => Rc::default(),
        };
        for &(name, value) in buffers.iter() {
            if !transient.contains(name) {
                self.tensor(prefix, name, value)?;
            }
        }
        for &(name, value) in self.visit(Some(module.modules))?.iter() {
            match (self.tables.values.node(value), self.tables.module(value)?) {
                (Node::None, _) => {}
                (_, Some(inner)) => self.module(value, inner, &format!("{prefix}{name}."))?,
                (_, None) => self.names.push(prefix, name, value)?,
            }
        }
        self.path.pop();
        Ok(())
    }

    fn tensor(&mut self, prefix: &str, name: &str, value: Id) -> Result<(), Fault> {
        match self.tables.values.node(value) {
            // A registered parameter that is not there, such as the bias of a layer without one.
            Node::None => Ok(()),
            _ => self.names.push(prefix, name, value),
        }
    }

    /// The entries of one of a module's dicts. Shared modules make a small pickle mean a lot of work; all of it together is
    /// bounded.
    fn visit(&mut self, dict: Option<Id>) -> Result<Rc<[(&'a str, Id)]>, Fault> {
        let entries = match dict {
            Some(dict) => self.tables.named(dict)?,
            None => Rc::default(),
        };
        self.n_entries += entries.len();
        if self.n_entries > N_LINKS_MAX {
            return Err(format!("modules with more than {N_LINKS_MAX} entries in all").into());
        }
        Ok(entries)
    }
}
