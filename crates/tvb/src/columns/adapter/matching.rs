//! Which tensor of the base each module of an adapter means.
//!
//! An adapter and its base rarely write the same paths: one is wrapped (`module.`), headless (`bert.`), a part of a pipeline
//! (`unet/`), or has underscores for dots. So the first words of the adapter's paths are dropped, one by one, and others are put
//! before them, the same for all modules, until every module finds a tensor of its shape; two ways of doing so are refused.

use super::names::PREFIXES;
use super::parsed::{LISTED, Module};
use crate::checkpoint::{Checkpoint, Tensor, shown};
use crate::error::{Error, Result};
use std::collections::HashMap;

/// Modules that are tried as the one by which all others are found.
const N_ANCHORS: usize = 8;
/// Ways of matching that are tried for each.
const N_WAYS_MAX: usize = 1000;
/// Modules by which a way is judged before all are looked up.
const N_JUDGES: usize = 64;

/// What models are wrapped in: `encoder.` in the place of `decoder.` would be another module.
const WRAPPERS: [&str; 7] =
    ["module", "model", "_orig_mod", "base_model", "language_model", "transformer", "diffusion_model"];

/// How an adapter's paths become the base's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Way {
    /// What an adapter's path begins with and the base's does not.
    pub(super) dropped: String,
    /// What the base's begins with, as it is written there.
    pub(super) added: String,
}

impl Way {
    /// What is dropped may be replaced by a wrapper or the name of a part, and by nothing else.
    fn is_likely(&self) -> bool {
        self.dropped.is_empty()
            || self.added.is_empty()
            || self.added.trim_end_matches('.').split(['.', '/']).all(|word| WRAPPERS.contains(&word))
            || self.added.ends_with('/')
    }

    /// The base's name of one of the adapter's other tensors.
    pub(super) fn apply(&self, name: &str, base: &Checkpoint) -> String {
        let rest = name.strip_prefix(&self.dropped).unwrap_or(name);
        let found = format!("{}{rest}", self.added);
        if base.get(&found).is_none() && base.get(name).is_some() { name.to_owned() } else { found }
    }
}

/// The base's weights by the paths of their modules.
struct Paths<'a> {
    base: &'a Checkpoint,
    separator: char,
    /// (path with one kind of separator, index of the tensor, bytes of its true name that are its path).
    paths: Vec<(String, usize, usize)>,
    by_path: HashMap<String, Vec<usize>>,
}

/// Finds the tensor of each of `modules`, all of one part. `fits` judges a tensor by its shape.
///
/// # Errors
/// Rejected: modules without a place, with expected and found shapes, or with two.
pub(super) fn find<'a>(
    modules: &[&Module],
    base: &'a Checkpoint,
    fits: &dyn Fn(&Module, &Tensor) -> bool,
) -> Result<(Vec<&'a Tensor>, Way)> {
    let Some(first) = modules.first() else { return Ok((Vec::new(), Way::default())) };
    let paths = Paths::new(base, first);
    let n_common = n_common_words(modules, paths.separator);
    let mut best: (usize, Option<Way>) = (0, None);
    // The fewer words are dropped the more of the path agrees, so the first number that fits is taken.
    for anchor in modules.iter().take(N_ANCHORS) {
        for n_dropped in 0..=n_common {
            let dropped = first_words(&anchor.path, n_dropped, paths.separator);
            let mut fitting: Vec<(Way, Vec<&Tensor>)> = Vec::new();
            for way in paths.ways(&anchor.path, dropped) {
                let judges = modules.iter().take(N_JUDGES);
                let n_judged = judges.clone().filter(|m| paths.look_up(m, &way, fits).is_some()).count();
                if n_judged < judges.len() {
                    if n_judged > best.0 || best.1.is_none() {
                        best = (n_judged, Some(way));
                    }
                    continue;
                }
                let found: Vec<Option<&Tensor>> = modules.iter().map(|m| paths.look_up(m, &way, fits)).collect();
                let n_found = found.iter().flatten().count();
                match found.into_iter().collect::<Option<Vec<_>>>() {
                    Some(all) => fitting.push((way, all)),
                    None if n_found > best.0 || best.1.is_none() => best = (n_found, Some(way)),
                    None => {}
                }
            }
            match fitting.len() {
                0 => {}
                1 => {
                    let (way, all) = fitting.swap_remove(0);
                    no_tensor_twice(modules, &all)?;
                    return Ok((all, way));
                }
                n => return Err(ambiguous(&anchor.path, n, &fitting)),
            }
        }
    }
    Err(paths.without_place(modules, best.1.unwrap_or_default(), fits))
}

impl<'a> Paths<'a> {
    fn new(base: &'a Checkpoint, module: &Module) -> Paths<'a> {
        let separator = if module.is_joined { '_' } else { '.' };
        // Of a pipeline only the part that the prefix names.
        let folders = PREFIXES.into_iter().find(|(prefix, _)| module.part.as_deref() == Some(*prefix));
        let folders = folders.map_or(&[][..], |(_, folders)| folders);
        let is_inside = |name: &str| {
            folders.iter().any(|folder| name.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')))
        };
        let has_part = base.tensors().iter().any(|tensor| is_inside(&tensor.name));
        let (mut paths, mut by_path) = (Vec::new(), HashMap::<String, Vec<usize>>::new());
        for (index, tensor) in base.tensors().iter().enumerate() {
            let path = tensor.name.strip_suffix(".weight");
            let Some(path) = path.filter(|_| tensor.dtype.float().is_some()) else { continue };
            if has_part && !is_inside(&tensor.name) {
                continue;
            }
            let joined: String = path.chars().map(|c| if matches!(c, '.' | '/') { separator } else { c }).collect();
            by_path.entry(joined.clone()).or_default().push(index);
            paths.push((joined, index, path.len()));
        }
        Paths { base, separator, paths, by_path }
    }

    /// The ways in which `path` without `dropped` is the end of a path of the base.
    fn ways(&self, path: &str, dropped: &str) -> Vec<Way> {
        let end = path.strip_prefix(dropped).unwrap_or(path);
        let mut ways: Vec<Way> = Vec::new();
        for (found, index, n_bytes) in &self.paths {
            let Some(before) = found.strip_suffix(end) else { continue };
            if !(before.is_empty() || before.ends_with(self.separator)) {
                continue;
            }
            if ways.len() == N_WAYS_MAX {
                break;
            }
            let name = self.base.tensors().get(*index).and_then(|tensor| tensor.name.get(..*n_bytes));
            let added = name.and_then(|name| name.get(..before.len())).unwrap_or_default().to_owned();
            let way = Way { dropped: dropped.to_owned(), added };
            if way.is_likely() && !ways.contains(&way) {
                ways.push(way);
            }
        }
        ways
    }

    /// The one tensor of that path and a fitting shape.
    fn look_up(&self, module: &Module, way: &Way, fits: &dyn Fn(&Module, &Tensor) -> bool) -> Option<&'a Tensor> {
        let mut fitting = self.at(module, way).filter(|tensor| fits(module, tensor));
        fitting.next().filter(|_| fitting.next().is_none())
    }

    fn at(&self, module: &Module, way: &Way) -> impl Iterator<Item = &'a Tensor> {
        let rest = module.path.strip_prefix(&way.dropped).unwrap_or(&module.path);
        let added: String =
            way.added.chars().map(|c| if matches!(c, '.' | '/') { self.separator } else { c }).collect();
        let found = self.by_path.get(&format!("{added}{rest}")).cloned().unwrap_or_default();
        let base = self.base;
        found.into_iter().filter_map(move |index| base.tensors().get(index))
    }

    /// The message about the best way there was.
    fn without_place(&self, modules: &[&Module], way: Way, fits: &dyn Fn(&Module, &Tensor) -> bool) -> Error {
        let lines: Vec<String> = modules
            .iter()
            .filter(|module| self.look_up(module, &way, fits).is_none())
            .map(|module| match self.at(module, &way).next() {
                Some(tensor) => format!(
                    "module {}: shape {} expected in the base, {:?} found in its tensor {}",
                    shown(&module.path),
                    shape_in_words(module),
                    tensor.shape,
                    shown(&tensor.name)
                ),
                None => format!(
                    "module {}: shape {} expected, no such tensor in the base",
                    shown(&module.path),
                    shape_in_words(module)
                ),
            })
            .collect();
        let n_more = lines.len().saturating_sub(LISTED);
        let n = lines.len();
        let listed = lines.into_iter().take(LISTED);
        Error::rejected(format!(
            "{n} of {} modules of the adapter have no place in {}",
            modules.len(),
            self.base.path().display()
        ))
        .below(listed.chain((n_more > 0).then(|| format!("… and {n_more} more"))))
        .hint("name the model that the adapter was trained on as the base, in the layout that its names follow")
    }
}

/// The shape of the weight that the factors make.
fn shape_in_words(module: &Module) -> String {
    let (up, down) = (module.up.shape.first().copied().unwrap_or(0), module.down.shape.get(1..).unwrap_or_default());
    let mut shape = vec![up];
    shape.extend(down);
    if module.is_embedding {
        shape.reverse();
    }
    if let Some(middle) = &module.middle {
        shape.truncate(2);
        shape.extend(middle.shape.get(2..).unwrap_or_default());
    }
    format!("[{}]", shape.iter().map(usize::to_string).collect::<Vec<_>>().join(", "))
}

/// How many words all paths begin with; one is left of each.
fn n_common_words(modules: &[&Module], separator: char) -> usize {
    let Some((first, rest)) = modules.split_first() else { return 0 };
    let first: Vec<&str> = first.path.split(separator).collect();
    // The name of a list stays with its number: `layers.7`.
    let n_until_list = first.iter().skip(1).position(|word| word.parse::<u64>().is_ok()).unwrap_or(first.len());
    rest.iter().fold(first.len().saturating_sub(1).min(n_until_list), |n, module| {
        let n_same = module.path.split(separator).zip(&first).take_while(|(own, first)| own == *first).count();
        n.min(n_same).min(module.path.split(separator).count().saturating_sub(1))
    })
}

/// The first words of a path, with the separator after them.
fn first_words(path: &str, n_words: usize, separator: char) -> &str {
    let n_bytes: usize = path.split_inclusive(separator).take(n_words).map(str::len).sum();
    path.get(..n_bytes).unwrap_or_default()
}

fn no_tensor_twice(modules: &[&Module], found: &[&Tensor]) -> Result<()> {
    let mut seen: HashMap<&str, &str> = HashMap::new();
    for (module, tensor) in modules.iter().zip(found) {
        if let Some(other) = seen.insert(&tensor.name, &module.path) {
            let (tensor, other, module) = (shown(&tensor.name), shown(other), shown(&module.path));
            return Err(Error::rejected(format!("modules {other} and {module} both mean the base's tensor {tensor}")));
        }
    }
    Ok(())
}

fn ambiguous(path: &str, n: usize, fitting: &[(Way, Vec<&Tensor>)]) -> Error {
    let examples = fitting.iter().take(LISTED).filter_map(|(_, found)| found.first());
    Error::rejected(format!("{n} tensors of the base could each be the adapter's module {}", shown(path)))
        .below(examples.map(|tensor| shown(&tensor.name).to_string()))
        .hint("name the model, or the part of it, that the adapter was trained on as the base")
}
