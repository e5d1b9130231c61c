//! What one file says about modules: which it declares, what it defines, what it imports and which names its code uses.
//!
//! Code that is there for tests only is left out: nothing of the product depends on it.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::collections::BTreeSet;
use syn::visit::{self, Visit};

/// The segments of a path: `crate::a::B` is three.
pub(crate) type Name = Vec<String>;

/// A module as its text gives it.
#[derive(Debug, Default)]
pub(crate) struct Module {
    /// In the order of the text.
    pub children: Vec<Child>,
    /// Everything defined here, whatever its kind.
    pub items: BTreeSet<String>,
    pub imports: Vec<Import>,
    /// The paths in the code, of one segment or more.
    pub uses: BTreeSet<Name>,
}

/// `mod name;` or `mod name { … }`.
#[derive(Debug)]
pub(crate) struct Child {
    pub name: String,
    pub is_test: bool,
    /// The file of a `#[path]`.
    pub path: Option<String>,
    /// The body of an inline module.
    pub inline: Option<Module>,
}

/// One leaf of a `use`.
#[derive(Debug)]
pub(crate) struct Import {
    pub path: Name,
    /// The name it has here; a glob has none.
    pub name: Option<String>,
    /// Whether it is only passed on (`pub use`): then it is not used here until the code names it.
    pub is_reexport: bool,
}

impl Module {
    /// The module that makes up a file.
    pub(crate) fn of_file(file: &syn::File) -> Self {
        Self::of_items(&file.items)
    }

    fn of_items(items: &[syn::Item]) -> Self {
        let mut module = Self::default();
        for item in items {
            match item {
                syn::Item::Mod(child) => module.children.push(child_of(child)),
                item => module.visit_item(item),
            }
        }
        module
    }

    fn add_imports(&mut self, tree: &syn::UseTree, before: &mut Name, is_reexport: bool) {
        let mut add = |last: Option<String>, name: Option<String>| {
            let path = before.iter().cloned().chain(last).collect();
            self.imports.push(Import { path, name, is_reexport });
        };
        match tree {
            syn::UseTree::Name(leaf) if leaf.ident == "self" => add(None, before.last().cloned()),
            syn::UseTree::Name(leaf) => add(Some(text(&leaf.ident)), Some(text(&leaf.ident))),
            syn::UseTree::Rename(leaf) if leaf.ident == "self" => add(None, Some(text(&leaf.rename))),
            syn::UseTree::Rename(leaf) => add(Some(text(&leaf.ident)), Some(text(&leaf.rename))),
            syn::UseTree::Glob(_) => add(None, None),
            syn::UseTree::Path(path) => {
                before.push(text(&path.ident));
                self.add_imports(&path.tree, before, is_reexport);
                before.pop();
            }
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.add_imports(tree, before, is_reexport);
                }
            }
        }
    }

    /// The paths among the tokens of a macro call: what a macro does with them is not known, so each counts.
    fn add_tokens(&mut self, tokens: TokenStream) {
        let mut path = Name::new();
        let mut n_colons = 0;
        let mut is_member = false;
        for token in tokens {
            match &token {
                TokenTree::Ident(_) if n_colons == 2 && !path.is_empty() => path.push(token.to_string()),
                TokenTree::Ident(_) => {
                    self.add_use(std::mem::take(&mut path));
                    if n_colons < 2 && !is_member {
                        path.push(token.to_string());
                    }
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => {
                    n_colons += 1;
                    continue;
                }
                _ => self.add_use(std::mem::take(&mut path)),
            }
            is_member = matches!(&token, TokenTree::Punct(punct) if punct.as_char() == '.');
            n_colons = 0;
            if let TokenTree::Group(group) = token {
                self.add_tokens(group.stream());
            }
        }
        self.add_use(path);
    }

    fn add_use(&mut self, path: Name) {
        if !path.is_empty() {
            self.uses.insert(path);
        }
    }
}

impl Visit<'_> for Module {
    fn visit_item(&mut self, item: &syn::Item) {
        if is_test(attributes(item)) {
            return;
        }
        self.items.extend(defined(item));
        visit::visit_item(self, item);
    }

    fn visit_impl_item(&mut self, item: &syn::ImplItem) {
        let attributes = match item {
            syn::ImplItem::Fn(function) => &function.attrs[..],
            syn::ImplItem::Const(constant) => &constant.attrs,
            _ => &[],
        };
        if !is_test(attributes) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &syn::ItemUse) {
        if item.leading_colon.is_none() {
            let is_reexport = !matches!(item.vis, syn::Visibility::Inherited);
            self.add_imports(&item.tree, &mut Name::new(), is_reexport);
        }
    }

    fn visit_visibility(&mut self, _: &syn::Visibility) {}

    fn visit_path(&mut self, path: &syn::Path) {
        if path.leading_colon.is_none() {
            self.add_use(path.segments.iter().map(|segment| text(&segment.ident)).collect());
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &syn::Macro) {
        self.visit_path(&call.path);
        self.add_tokens(call.tokens.clone());
    }

    /// Names in attributes, those in serde's strings too; doc comments use nothing.
    fn visit_attribute(&mut self, attribute: &syn::Attribute) {
        let syn::Meta::List(list) = &attribute.meta else { return };
        self.add_tokens(list.tokens.clone());
        if list.path.is_ident("serde") {
            // A module's name stands for its functions.
            let paths = serde_paths(list.tokens.clone());
            self.uses.extend(paths.map(|path| path.split("::").chain(["serialize"]).map(str::to_owned).collect()));
        }
    }
}

fn child_of(item: &syn::ItemMod) -> Child {
    let path = item.attrs.iter().filter(|attribute| attribute.path().is_ident("path")).find_map(string_value);
    let inline = item.content.as_ref().map(|(_, items)| Module::of_items(items));
    Child { name: text(&item.ident), is_test: is_test(&item.attrs), path, inline }
}

fn text(ident: &syn::Ident) -> String {
    ident.to_string().trim_start_matches("r#").to_owned()
}

fn string_value(attribute: &syn::Attribute) -> Option<String> {
    let syn::Meta::NameValue(pair) = &attribute.meta else { return None };
    match &pair.value {
        syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => Some(text.value()),
        _ => None,
    }
}

/// `#[test]`, `#[cfg(test)]` and `#[cfg(all(test, …))]`.
pub(crate) fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::Path(path) => path.is_ident("test"),
        syn::Meta::List(list) => list.path.is_ident("cfg") && asks_for_test(list.tokens.clone()),
        syn::Meta::NameValue(_) => false,
    })
}

fn asks_for_test(condition: TokenStream) -> bool {
    let tokens: Vec<TokenTree> = condition.into_iter().collect();
    tokens.iter().enumerate().any(|(at, token)| match token {
        TokenTree::Ident(ident) => ident == "test",
        TokenTree::Group(group) => {
            let is_all = at > 0 && matches!(&tokens[at - 1], TokenTree::Ident(ident) if ident == "all");
            is_all && asks_for_test(group.stream())
        }
        _ => false,
    })
}

/// The strings of `with = "…"`, `default = "…"` and their like.
fn serde_paths(tokens: TokenStream) -> impl Iterator<Item = String> {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let is_path_key = |key: &str| ["with", "serialize_with", "deserialize_with", "default"].contains(&key);
    let triples: Vec<String> = tokens
        .windows(3)
        .filter(|triple| is_path_key(&triple[0].to_string()))
        .map(|triple| triple[2].to_string())
        .filter(|value| value.starts_with('"'))
        .collect();
    triples.into_iter().map(|value| value.trim_matches('"').to_owned())
}

pub(crate) fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Union(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn defined(item: &syn::Item) -> Vec<String> {
    let ident = match item {
        syn::Item::Const(item) => &item.ident,
        syn::Item::Enum(item) => &item.ident,
        syn::Item::Fn(item) => &item.sig.ident,
        syn::Item::Static(item) => &item.ident,
        syn::Item::Struct(item) => &item.ident,
        syn::Item::Trait(item) => &item.ident,
        syn::Item::Type(item) => &item.ident,
        syn::Item::Union(item) => &item.ident,
        syn::Item::Macro(syn::ItemMacro { ident: Some(ident), .. }) => ident,
        syn::Item::Macro(item) => return defined_by_macro(item.mac.tokens.clone()),
        _ => return Vec::new(),
    };
    vec![text(ident)]
}

/// What the body of an item macro defines, as far as it looks like Rust: `struct Name`, `const NAME`.
fn defined_by_macro(tokens: TokenStream) -> Vec<String> {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut found = Vec::new();
    for pair in tokens.windows(2) {
        let keyword = pair[0].to_string();
        if ["struct", "enum", "fn", "const", "static", "trait", "type"].contains(&keyword.as_str())
            && let TokenTree::Ident(ident) = &pair[1]
        {
            found.push(ident.to_string());
        }
    }
    for token in tokens {
        if let TokenTree::Group(group) = token
            && group.delimiter() == Delimiter::Brace
        {
            found.extend(defined_by_macro(group.stream()));
        }
    }
    found
}
