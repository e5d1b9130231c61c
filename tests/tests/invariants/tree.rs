//! A crate as a tree of modules, and what a name in one of them stands for.

use crate::names::Module;
use std::collections::{BTreeMap, BTreeSet};

/// Every parsed file, by path.
pub(crate) type Files = BTreeMap<String, Module>;

/// A crate's modules; the first is its root.
pub(crate) struct Crate<'a> {
    pub modules: Vec<Node<'a>>,
}

/// One module at its place in the tree.
pub(crate) struct Node<'a> {
    pub text: &'a Module,
    /// The file it stands in.
    pub file: String,
    pub is_test: bool,
    parent: Option<usize>,
    /// Names and modules in the order of the text.
    pub children: Vec<(&'a str, usize)>,
    /// Where the files of its children are looked for.
    folder: String,
}

/// What a name can stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Meaning {
    Module(usize),
    /// Something defined in this module.
    ItemOf(usize),
}

/// One use of something defined in another module.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Edge {
    pub from: usize,
    pub to: usize,
    /// As the code of `from` writes it.
    pub name: String,
}

impl<'a> Crate<'a> {
    /// The crate whose root is this file. Children whose file is not there are left out.
    pub(crate) fn new(files: &'a Files, root: &str) -> Option<Self> {
        let (path, text) = files.get_key_value(root)?;
        let folder = folder_of(path).to_owned();
        let root = Node { text, file: path.clone(), is_test: false, parent: None, children: Vec::new(), folder };
        let mut tree = Self { modules: vec![root] };
        let mut at = 0;
        while at < tree.modules.len() {
            tree.add_children(files, at);
            at += 1;
        }
        Some(tree)
    }

    fn add_children(&mut self, files: &'a Files, parent: usize) {
        let text = self.modules[parent].text;
        for child in &text.children {
            let Node { file, folder, is_test, .. } = &self.modules[parent];
            let is_test = *is_test || child.is_test;
            let beside = |name: &str| format!("{folder}{name}");
            let (text, file, folder) = if let Some(inline) = &child.inline {
                (inline, file.clone(), beside(&format!("{}/", child.name)))
            } else {
                let candidates = match &child.path {
                    Some(path) => vec![plain(&format!("{}{path}", folder_of(file)))],
                    None => vec![beside(&format!("{}.rs", child.name)), beside(&format!("{}/mod.rs", child.name))],
                };
                let Some((path, text)) = candidates.iter().find_map(|path| files.get_key_value(path)) else { continue };
                let is_folder = path.ends_with("/mod.rs") || child.path.is_some();
                let folder = if is_folder { folder_of(path).to_owned() } else { beside(&format!("{}/", child.name)) };
                (text, path.clone(), folder)
            };
            let index = self.modules.len();
            self.modules[parent].children.push((&child.name, index));
            self.modules.push(Node { text, file, is_test, parent: Some(parent), children: Vec::new(), folder });
        }
    }

    /// Every use, in code that is not for tests, of what another module defines. What is imported is used by its import.
    pub(crate) fn edges(&self) -> BTreeSet<Edge> {
        let mut edges = BTreeSet::new();
        for (from, Node { text, .. }) in self.modules.iter().enumerate().filter(|(_, node)| !node.is_test) {
            let mut add = |path: &[String]| {
                let meanings = self.resolve(from, path, &mut BTreeSet::new());
                for meaning in &meanings {
                    if let Meaning::ItemOf(to) = *meaning
                        && to != from
                    {
                        edges.insert(Edge { from, to, name: path.join("::") });
                    }
                }
                meanings
            };
            let mut imported_items = BTreeSet::new();
            for import in text.imports.iter().filter(|import| !import.is_reexport) {
                let meanings = add(&import.path);
                if meanings.iter().all(|meaning| matches!(meaning, Meaning::ItemOf(_))) {
                    imported_items.extend(import.name.as_deref());
                }
            }
            for path in text.uses.iter().filter(|path| !imported_items.contains(path[0].as_str())) {
                add(path);
            }
        }
        edges
    }

    /// What a path means in a module; nothing where it leads out of the crate.
    fn resolve(&self, from: usize, path: &[String], seen: &mut BTreeSet<(usize, String)>) -> BTreeSet<Meaning> {
        let Some((first, rest)) = path.split_first() else { return BTreeSet::new() };
        let mut meanings = match first.as_str() {
            "crate" => BTreeSet::from([Meaning::Module(0)]),
            "self" => BTreeSet::from([Meaning::Module(from)]),
            "super" => self.parent(from),
            name => self.look_up(from, name, seen),
        };
        for name in rest {
            meanings = self.step(&meanings, name, seen);
        }
        meanings
    }

    /// One segment further. What belongs to an item (a variant, a method) is that item; what a module is not seen to
    /// define, some macro of its does.
    fn step(&self, before: &BTreeSet<Meaning>, name: &str, seen: &mut BTreeSet<(usize, String)>) -> BTreeSet<Meaning> {
        let mut found = BTreeSet::new();
        for meaning in before {
            if let Meaning::Module(module) = *meaning {
                found.extend(if name == "super" { self.parent(module) } else { self.look_up(module, name, seen) });
            }
        }
        if !found.is_empty() {
            return found;
        }
        let items: BTreeSet<Meaning> =
            before.iter().filter(|meaning| matches!(meaning, Meaning::ItemOf(_))).copied().collect();
        if !items.is_empty() {
            return items;
        }
        before
            .iter()
            .map(|meaning| match *meaning {
                Meaning::Module(module) | Meaning::ItemOf(module) => Meaning::ItemOf(module),
            })
            .collect()
    }

    /// What a name means in a module: what stands there itself first, then what globs bring. A name that is being looked
    /// up already (`use check::check`) has only its own meaning.
    fn look_up(&self, module: usize, name: &str, seen: &mut BTreeSet<(usize, String)>) -> BTreeSet<Meaning> {
        let Node { text, children, .. } = &self.modules[module];
        let named = children.iter().filter(|(child, _)| *child == name);
        let mut found: BTreeSet<Meaning> = named.map(|&(_, child)| Meaning::Module(child)).collect();
        if text.items.contains(name) {
            found.insert(Meaning::ItemOf(module));
        }
        if !seen.insert((module, name.to_owned())) {
            return found;
        }
        for import in text.imports.iter().filter(|import| import.name.as_deref() == Some(name)) {
            found.extend(self.resolve(module, &import.path, seen));
        }
        if found.is_empty() {
            for glob in text.imports.iter().filter(|import| import.name.is_none()) {
                for meaning in self.resolve(module, &glob.path, seen) {
                    if let Meaning::Module(from) = meaning {
                        found.extend(self.look_up(from, name, seen));
                    }
                }
            }
        }
        seen.remove(&(module, name.to_owned()));
        found
    }

    fn parent(&self, module: usize) -> BTreeSet<Meaning> {
        self.modules[module].parent.map(Meaning::Module).into_iter().collect()
    }

    /// The child of the root that a module is or lies in.
    pub(crate) fn top_level(&self, module: usize) -> Option<usize> {
        match self.modules[module].parent? {
            0 => Some(module),
            parent => self.top_level(parent),
        }
    }
}

/// The folder of a path, with its slash; empty at the root.
fn folder_of(path: &str) -> &str {
    &path[..path.rfind('/').map_or(0, |slash| slash + 1)]
}

/// The path without `..`.
fn plain(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}
