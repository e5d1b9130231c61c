//! Public functions that can fail say when, under `# Errors`.

use crate::names::{attributes, is_test};
use syn::visit::{self, Visit};

/// The public functions of a file that return a `Result` without saying when it is an error.
pub(crate) fn silent_functions(file: &syn::File) -> Vec<String> {
    let mut functions = Functions::default();
    functions.visit_file(file);
    functions.silent
}

#[derive(Default)]
struct Functions {
    silent: Vec<String>,
    /// `Type::` inside an impl or a trait.
    owner: String,
}

impl Functions {
    fn check(&mut self, attributes: &[syn::Attribute], signature: &syn::Signature) {
        if returns_result(&signature.output) && !has_errors_section(attributes) && !is_test(attributes) {
            self.silent.push(format!("{}{}", self.owner, signature.ident));
        }
    }
}

impl Visit<'_> for Functions {
    fn visit_item(&mut self, item: &syn::Item) {
        if !is_test(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_fn(&mut self, function: &syn::ItemFn) {
        if is_public(&function.vis) {
            self.check(&function.attrs, &function.sig);
        }
    }

    fn visit_item_impl(&mut self, item: &syn::ItemImpl) {
        if let (None, syn::Type::Path(of)) = (&item.trait_, &*item.self_ty) {
            self.owner = of.path.segments.last().map(|segment| format!("{}::", segment.ident)).unwrap_or_default();
            visit::visit_item_impl(self, item);
            self.owner.clear();
        }
    }

    fn visit_impl_item_fn(&mut self, function: &syn::ImplItemFn) {
        if is_public(&function.vis) {
            self.check(&function.attrs, &function.sig);
        }
    }

    fn visit_item_trait(&mut self, item: &syn::ItemTrait) {
        if is_public(&item.vis) {
            self.owner = format!("{}::", item.ident);
            visit::visit_item_trait(self, item);
            self.owner.clear();
        }
    }

    fn visit_trait_item_fn(&mut self, function: &syn::TraitItemFn) {
        self.check(&function.attrs, &function.sig);
    }
}

fn is_public(visibility: &syn::Visibility) -> bool {
    matches!(visibility, syn::Visibility::Public(_))
}

fn returns_result(output: &syn::ReturnType) -> bool {
    let syn::ReturnType::Type(_, kind) = output else { return false };
    let syn::Type::Path(path) = &**kind else { return false };
    path.path.segments.last().is_some_and(|segment| segment.ident.to_string().ends_with("Result"))
}

fn has_errors_section(attributes: &[syn::Attribute]) -> bool {
    let is_heading = |attribute: &syn::Attribute| match &attribute.meta {
        syn::Meta::NameValue(pair) => match &pair.value {
            syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => {
                text.value().lines().any(|line| line.trim() == "# Errors")
            }
            _ => false,
        },
        _ => false,
    };
    attributes.iter().any(is_heading)
}

#[test]
fn silent_functions_are_found() {
    let text = "
        /// Does.
        pub fn a() -> Result<()> {}
        /// Does.
        ///
        /// # Errors
        /// Never.
        pub fn b() -> Result<()> {}
        pub(crate) fn c() -> Result<()> {}
        pub fn d() -> Option<Result<()>> {}
        impl S { pub fn e(&self) -> std::io::Result<()> {} fn f() -> Result<()> {} }
        impl Display for S { fn fmt(&self) -> fmt::Result {} }
        pub trait T { fn g() -> Result<()>; }
        trait U { fn h() -> Result<()>; }
        #[cfg(test)] mod tests { pub fn i() -> Result<()> {} }";
    let file = syn::parse_file(text).expect("Rust");
    assert_eq!(silent_functions(&file), ["a", "S::e", "T::g"]);
}
