//! From a saved value to named tensors: a state dict, one nested under a key, or a whole pickled module.
//!
//! A module is an object whose state has `_parameters`, `_buffers` and `_modules`, whatever its class; names are the
//! path of attributes, in the order of `state_dict()`.

use super::TorchFile;
use super::errors::rejected;
use super::pickle::{Id, Node, Values};
use crate::checkpoint::limits::{MODULE_DEPTH_MAX, N_LINKS_MAX, N_MODULES_MAX, N_TENSORS_MAX, NAME_BYTES_MAX};
use crate::checkpoint::shown::shown;
use crate::checkpoint::{NotTensor, Tensor};
use crate::error::{Error, Result};
use std::collections::HashMap;

/// Keys under which training programs keep the state dict or the module, in the order they are tried.
const NESTED_KEYS: [&str; 6] = ["state_dict", "model_state_dict", "model", "module", "net", "weights"];
/// How many of them may be nested in each other.
const NESTED_DEPTH_MAX: usize = 4;

/// The tensors of a file by name, in the order of its state dict.
#[derive(Debug, Default)]
pub(crate) struct StateDict {
    pub(crate) tensors: Vec<Tensor>,
    pub(crate) not_tensors: Vec<NotTensor>,
}

/// Finds the state dict of a file, under `key` where one is given.
///
/// # Errors
/// Rejected when there is none, naming what was found and where else tensors are, or when a tensor cannot be read.
pub(crate) fn state_dict(file: &TorchFile, key: Option<&str>) -> Result<StateDict> {
    let values = file.values();
    let root = match key {
        Some(key) => under_key(values, values.root, key).ok_or_else(|| no_such_key(file, key))?,
        None => values.root,
    };
    let names = match Finder::new(values).find(root, 0) {
        Some(found) => found.map_err(|why| rejected(file.data_file(), why))?,
        None => return Err(nothing_found(file, root)),
    };
    let mut dict = StateDict { tensors: Vec::with_capacity(names.len()), not_tensors: Vec::new() };
    for (name, id) in names {
        match values.node(id) {
            Node::Tensor(_) | Node::Unsupported(_) => dict.tensors.push(file.tensor(&name, id)?),
            _ => dict.not_tensors.push(NotTensor { what: values.describe(id), name }),
        }
    }
    Ok(dict)
}

/// Named values, not all of them tensors.
type Names = Vec<(String, Id)>;

/// A search for the state dict. Dicts may be shared and cyclic, so what is looked at in all is bounded.
struct Finder<'a> {
    values: &'a Values,
    n_left: usize,
}

impl<'a> Finder<'a> {
    fn new(values: &'a Values) -> Finder<'a> {
        Finder { values, n_left: 4 * N_LINKS_MAX }
    }

    /// The state dict in `id`: a module, a dict that holds one under a usual key, or a dict with tensors in it.
    fn find(&mut self, id: Id, depth: usize) -> Option<Result<Names, String>> {
        let values = self.values;
        if is_module(values, id) {
            return Some(Walk::new(values).run(id));
        }
        let entries = values.entries(id)?;
        self.n_left = self.n_left.checked_sub(entries.len() * (NESTED_KEYS.len() + 1))?;
        if depth < NESTED_DEPTH_MAX {
            for key in NESTED_KEYS {
                if let Some(found) = values.get(id, key).and_then(|inner| self.find(inner, depth + 1)) {
                    return Some(found);
                }
            }
        }
        let has_tensors = entries.iter().any(|&(key, value)| values.str(key).is_some() && is_tensor(values, value));
        has_tensors.then(|| flat(values, entries))
    }
}

fn is_tensor(values: &Values, id: Id) -> bool {
    matches!(values.node(id), Node::Tensor(_) | Node::Unsupported(_))
}

fn is_module(values: &Values, id: Id) -> bool {
    ["_parameters", "_modules"]
        .iter()
        .all(|name| values.attribute(id, name).is_some_and(|dict| values.entries(dict).is_some()))
}

/// The entries with text keys; of a key that stands twice the last value, at its first place, as Python has it.
fn named<'a>(values: &'a Values, entries: &[(Id, Id)]) -> Vec<(&'a str, Id)> {
    let mut named: Vec<(&str, Id)> = Vec::with_capacity(entries.len());
    let mut places: HashMap<&str, usize> = HashMap::new();
    for &(key, value) in entries {
        let Some(name) = values.str(key) else { continue };
        match places.get(name) {
            Some(&place) => named[place].1 = value,
            None => {
                places.insert(name, named.len());
                named.push((name, value));
            }
        }
    }
    named
}

/// The entries of a flat state dict.
fn flat(values: &Values, entries: &[(Id, Id)]) -> Result<Names, String> {
    let named = named(values, entries);
    named.into_iter().map(|(name, value)| check_name(name).map(|()| (name.to_owned(), value))).collect()
}

fn check_name(name: &str) -> Result<(), String> {
    match name.len() {
        n_bytes if n_bytes > NAME_BYTES_MAX => {
            Err(format!("tensor {}: a name of {n_bytes} bytes, expected at most {NAME_BYTES_MAX}", shown(name)))
        }
        _ => Ok(()),
    }
}

/// A walk over modules. A shared module has every name that leads to it; one inside itself is refused.
struct Walk<'a> {
    values: &'a Values,
    names: Names,
    /// The modules from the root to where we are.
    path: Vec<Id>,
    n_modules: usize,
    n_entries: usize,
}

impl<'a> Walk<'a> {
    fn new(values: &'a Values) -> Walk<'a> {
        Walk { values, names: Vec::new(), path: Vec::new(), n_modules: 0, n_entries: 0 }
    }

    fn run(mut self, root: Id) -> Result<Names, String> {
        self.module(root, "")?;
        Ok(self.names)
    }

    fn module(&mut self, id: Id, prefix: &str) -> Result<(), String> {
        let here = || shown(prefix.trim_end_matches('.'));
        check_name(prefix)?;
        if self.path.contains(&id) {
            return Err(format!("module {} contains itself", here()));
        }
        if self.path.len() >= MODULE_DEPTH_MAX {
            return Err(format!("module {} is nested more than {MODULE_DEPTH_MAX} deep", here()));
        }
        self.n_modules += 1;
        if self.n_modules > N_MODULES_MAX {
            return Err(format!("more than {N_MODULES_MAX} modules"));
        }
        self.path.push(id);

        let transient = self.attribute(id, "_non_persistent_buffers_set")?;
        let transient: Vec<&str> = transient
            .and_then(|set| self.values.items(set))
            .unwrap_or_default()
            .iter()
            .filter_map(|&name| self.values.str(name))
            .collect();
        self.charge(transient.len())?;
        for (name, value) in self.dict(id, "_parameters")? {
            self.tensor(prefix, name, value)?;
        }
        for (name, value) in self.dict(id, "_buffers")? {
            if !transient.contains(&name) {
                self.tensor(prefix, name, value)?;
            }
        }
        for (name, value) in self.dict(id, "_modules")? {
            match self.values.node(value) {
                Node::None => {}
                _ if is_module(self.values, value) => self.module(value, &format!("{prefix}{name}."))?,
                _ => self.names.push((format!("{prefix}{name}"), value)),
            }
        }
        self.path.pop();
        Ok(())
    }

    fn tensor(&mut self, prefix: &str, name: &str, value: Id) -> Result<(), String> {
        if *self.values.node(value) == Node::None {
            // A registered parameter that is not there, such as the bias of a layer without one.
            return Ok(());
        }
        let name = format!("{prefix}{name}");
        check_name(&name)?;
        if self.names.len() >= N_TENSORS_MAX {
            return Err(format!("more than {N_TENSORS_MAX} tensors"));
        }
        self.names.push((name, value));
        Ok(())
    }

    /// An attribute of a module; looking it up costs as much as its state is long.
    fn attribute(&mut self, id: Id, name: &str) -> Result<Option<Id>, String> {
        if let Node::Object(object) = self.values.node(id) {
            let state = object.state.and_then(|state| self.values.entries(state)).map_or(2, <[_]>::len);
            self.charge(state)?;
        }
        Ok(self.values.attribute(id, name))
    }

    /// The named entries of one of a module's dicts, as in a flat state dict.
    fn dict(&mut self, id: Id, attribute: &str) -> Result<Vec<(&'a str, Id)>, String> {
        let values = self.values;
        let entries = self.attribute(id, attribute)?.and_then(|dict| values.entries(dict)).unwrap_or_default();
        self.charge(entries.len())?;
        Ok(named(values, entries))
    }

    /// Shared modules make a small pickle mean a lot of work; all of it together is bounded.
    fn charge(&mut self, n: usize) -> Result<(), String> {
        self.n_entries += n;
        if self.n_entries > N_LINKS_MAX {
            return Err(format!("modules with more than {N_LINKS_MAX} entries in all"));
        }
        Ok(())
    }
}

/// Follows `a.b.c`, where a part may contain dots itself: the longest key that is there is taken first.
fn under_key(values: &Values, id: Id, key: &str) -> Option<Id> {
    if let Some(found) = values.get(id, key).or_else(|| values.attribute(id, key)) {
        return Some(found);
    }
    key.rmatch_indices('.').find_map(|(at, _)| {
        let inner = values.get(id, &key[..at]).or_else(|| values.attribute(id, &key[..at]))?;
        under_key(values, inner, &key[at + 1..])
    })
}

fn no_such_key(file: &TorchFile, key: &str) -> Error {
    let error = rejected(file.data_file(), format!("no key {} in it", shown(key)));
    match text_keys(file.values(), file.values().root, |_| true) {
        keys if keys.is_empty() => error,
        keys => error.hint(format!("it has {keys}")),
    }
}

fn nothing_found(file: &TorchFile, root: Id) -> Error {
    let values = file.values();
    let error =
        rejected(file.data_file(), format!("expected a state dict or a module, found {}", values.describe(root)));
    let mut finder = Finder::new(values);
    let promising = text_keys(values, root, |value| finder.find(value, NESTED_DEPTH_MAX).is_some());
    match promising.is_empty() {
        true => error.hint("save the state dict: torch.save(model.state_dict(), \"model.pt\")"),
        false => error.hint(format!("choose what is meant with --key: {promising}")),
    }
}

/// The first few text keys of a dict whose values are `wanted`.
fn text_keys(values: &Values, id: Id, mut wanted: impl FnMut(Id) -> bool) -> String {
    const N_SHOWN: usize = 8;
    const N_SEEN: usize = 64;
    let entries = values.entries(id).unwrap_or_default();
    let keys: Vec<String> = entries
        .iter()
        .take(N_SEEN)
        .filter(|&&(_, value)| wanted(value))
        .filter_map(|&(key, _)| values.str(key).map(shown))
        .take(N_SHOWN)
        .collect();
    keys.join(", ")
}
