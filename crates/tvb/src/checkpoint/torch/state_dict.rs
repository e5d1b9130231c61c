//! From a saved value to named tensors: a state dict, one nested under a key, or a whole pickled module.
//!
//! A module is an object whose state has `_parameters`, `_buffers` and `_modules`, whatever its class; names are the
//! path of attributes, in the order of `state_dict()`.

use super::TorchFile;
use super::errors::{Fault, rejected};
use super::pickle::{Id, Node, Values};
use super::views::check_total;
use super::walk::{Names, Tables, Walk, flat};
use crate::checkpoint::limits::{N_LINKS_MAX, NAME_BYTES_MAX};
use crate::checkpoint::shown::shown;
use crate::checkpoint::{Charge, NotTensor, Tensor};
use crate::error::{Error, Result};
use crate::shown::{escaped, shown_path};

/// Keys under which training programs keep the state dict or the module, in the order they are tried.
const NESTED_KEYS: [&str; 6] = ["state_dict", "model_state_dict", "model", "module", "net", "weights"];
/// How many of them may be nested in each other.
const NESTED_DEPTH_MAX: usize = 4;

/// Keys beside the one that is taken, which are looked at, and those of them that are told.
const N_BESIDE_SEEN: usize = 64;
const N_BESIDE_TOLD: usize = 3;

/// Memory for an entry that is no tensor, beside its texts.
const NOT_TENSOR_BYTES: usize = 128;

/// The tensors of a file by name, in the order of its state dict.
#[derive(Debug)]
pub(crate) struct StateDict {
    pub(crate) tensors: Vec<Tensor>,
    pub(crate) not_tensors: Vec<NotTensor>,
    /// What was taken where the file holds several of them and no key was given.
    pub(crate) note: Option<String>,
    /// What they take of the budget.
    pub(crate) charge: Charge,
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
    let of_file = |fault: Fault| fault.of(file.data_file());
    let mut finder = Finder::new(file);
    let names = match finder.find(root, 0).map_err(of_file)? {
        Some(found) => found.names(&mut finder.tables).map_err(of_file)?,
        None => return Err(nothing_found(file, root)),
    };
    let note = match key {
        Some(_) => None,
        None => finder.beside(root).map_err(of_file)?.map(|beside| beside.in_words(file)),
    };
    drop(finder);
    let mut charge = file.data_file().account("its tensors");
    let (mut tensors, mut not_tensors) = (Vec::with_capacity(names.list.len()), Vec::new());
    for (name, id) in &names.list {
        match values.node(*id) {
            Node::Tensor(raw) => {
                charge.take(Tensor::cost(name, raw.shape.len()))?;
                tensors.push(file.tensor(name, *id)?);
            }
            // Says why it cannot be read.
            Node::Unsupported(_) => drop(file.tensor(name, *id)?),
            _ => {
                let what = values.describe(*id);
                charge.take((NOT_TENSOR_BYTES + what.len() + name.len()) as u64)?;
                not_tensors.push(NotTensor { what, name: name.clone() });
            }
        }
    }
    check_total(file.storage_bytes(), &tensors).map_err(|why| rejected(file.data_file(), why))?;
    Ok(StateDict { tensors, not_tensors, note, charge })
}

/// Where a state dict was found.
enum Found {
    Module(Id),
    Dict(Id),
}

impl Found {
    fn names(self, tables: &mut Tables<'_>) -> Result<Names, Fault> {
        match self {
            Found::Module(id) => Walk::new(tables).run(id),
            Found::Dict(id) => flat(tables, id),
        }
    }
}

/// A search for the state dict. Dicts may be shared and cyclic, so what is looked at in all is bounded.
struct Finder<'a> {
    values: &'a Values,
    tables: Tables<'a>,
    n_left: usize,
}

impl<'a> Finder<'a> {
    fn new(file: &'a TorchFile) -> Finder<'a> {
        let values = file.values();
        Finder { values, tables: Tables::new(file.data_file(), values), n_left: 4 * N_LINKS_MAX }
    }

    /// The state dict in `id`: a module, a dict that holds one under a usual key, or a dict with tensors in it.
    fn find(&mut self, id: Id, depth: usize) -> Result<Option<Found>, Fault> {
        let values = self.values;
        if self.tables.is_module(id)? {
            return Ok(Some(Found::Module(id)));
        }
        let Some(entries) = values.entries(id) else { return Ok(None) };
        match self.n_left.checked_sub(entries.len() * (NESTED_KEYS.len() + 1)) {
            Some(n_left) => self.n_left = n_left,
            None => return Ok(None),
        }
        if depth < NESTED_DEPTH_MAX {
            for key in NESTED_KEYS {
                if let Some(inner) = values.get(id, key)
                    && let Some(found) = self.find(inner, depth + 1)?
                {
                    return Ok(Some(found));
                }
            }
        }
        let has_tensors = entries.iter().any(|&(key, value)| values.str(key).is_some() && is_tensor(values, value));
        Ok(has_tensors.then_some(Found::Dict(id)))
    }

    /// State dicts beside the one that [`find`](Self::find) takes, as large as that: weights' moving averages, another network.
    fn beside(&mut self, root: Id) -> Result<Option<Beside>, Fault> {
        let values = self.values;
        let (mut id, mut taken, mut beside) = (root, String::new(), Vec::new());
        for depth in 1..=NESTED_DEPTH_MAX {
            if self.tables.is_module(id)? {
                break;
            }
            let mut inner = None;
            for key in NESTED_KEYS {
                if let Some(found) = values.get(id, key)
                    && self.find(found, depth)?.is_some()
                {
                    inner = Some((key, found));
                    break;
                }
            }
            let Some((key, found)) = inner else { break };
            for &(other, value) in values.entries(id).unwrap_or_default().iter().take(N_BESIDE_SEEN) {
                let Some(name) = values.str(other).filter(|name| *name != key && value != found) else { continue };
                if name.len() <= NAME_BYTES_MAX && self.find(value, depth)?.is_some() {
                    beside.push((format!("{taken}{name}"), value));
                }
            }
            taken.push_str(key);
            taken.push('.');
            id = found;
        }
        let n_taken = self.n_tensors(id)?;
        let mut others = Vec::new();
        for (key, value) in beside {
            let n_tensors = self.n_tensors(value)?;
            if n_tensors.zip(n_taken).is_none_or(|(n, n_taken)| 2 * n >= n_taken) {
                others.push(key);
            }
        }
        taken.pop();
        Ok((!others.is_empty()).then_some(Beside { taken, others }))
    }

    /// Tensors of a state dict; `None` of a module, and of one that lies deeper.
    fn n_tensors(&mut self, id: Id) -> Result<Option<usize>, Fault> {
        if self.tables.is_module(id)? {
            return Ok(None);
        }
        let entries = self.values.entries(id).unwrap_or_default();
        let n_tensors = entries.iter().filter(|&&(_, value)| is_tensor(self.values, value)).count();
        Ok((n_tensors > 0).then_some(n_tensors))
    }
}

/// State dicts beside the one that is taken.
struct Beside {
    taken: String,
    /// Their keys, as `PATH::KEY` has them.
    others: Vec<String>,
}

impl Beside {
    fn in_words(&self, file: &TorchFile) -> String {
        let path = shown_path(&file.data_file().path);
        let others: Vec<String> = self.others.iter().take(N_BESIDE_TOLD).map(|key| shown(key).to_string()).collect();
        let first = self.others.first().map(|key| escaped(key).to_string()).unwrap_or_default();
        let more = if self.others.len() > others.len() { ", …" } else { "" };
        let hold = if self.others.len() == 1 { "holds another" } else { "hold others" };
        format!("{path}: {} is taken, {}{more} {hold}: {path}::{first}", shown(&self.taken), others.join(", "))
    }
}

fn is_tensor(values: &Values, id: Id) -> bool {
    matches!(values.node(id), Node::Tensor(_) | Node::Unsupported(_))
}

/// Follows `a.b.c`, where a part may contain dots itself: the longest key that is there is taken first.
fn under_key(values: &Values, id: Id, key: &str) -> Option<Id> {
    if let Some(found) = values.get(id, key).or_else(|| values.attribute(id, key)) {
        return Some(found);
    }
    key.rmatch_indices('.').find_map(|(at, _)| {
        let (first, rest) = key.split_at_checked(at)?;
        let inner = values.get(id, first).or_else(|| values.attribute(id, first))?;
        under_key(values, inner, rest.strip_prefix('.')?)
    })
}

fn no_such_key(file: &TorchFile, key: &str) -> Error {
    let error = rejected(file.data_file(), format!("no key {} in it", shown(key)));
    match text_keys(file.values(), file.values().root, |_| true) {
        keys if keys.is_empty() => error,
        keys => error.hint(format!("it has {keys}; PATH::KEY gives one file a key of its own")),
    }
}

fn nothing_found(file: &TorchFile, root: Id) -> Error {
    let values = file.values();
    let error =
        rejected(file.data_file(), format!("expected a state dict or a module, found {}", values.describe(root)));
    let mut finder = Finder::new(file);
    let promising = text_keys(values, root, |value| matches!(finder.find(value, NESTED_DEPTH_MAX), Ok(Some(_))));
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
