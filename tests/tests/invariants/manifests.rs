//! What the manifests must say: lints, what a library may depend on, and what a registry asks for.

use crate::repository::{Package, Repository};
use toml::{Table, Value};

/// Dependencies that are for a command: flags, signals, progress bars, a log on the terminal.
const FOR_COMMANDS: &[&str] = &["clap", "clap_complete", "ctrlc", "indicatif", "tracing-subscriber"];

/// The crates that others may build on.
const LIBRARIES: &[&str] = &["crates/tvb/", "crates/tvb-kernels/", "shaders/"];

/// Members that do not use the workspace's lints. A package that is a workspace of its own is none.
pub(crate) fn without_lints(repository: &Repository) -> Vec<String> {
    let members = repository.packages.iter().filter(|package| !package.manifest.contains_key("workspace"));
    let has_lints = |package: &&Package| is_inherited(package.manifest.get("lints"));
    members.filter(|package| !has_lints(package)).map(|package| format!("{}Cargo.toml", package.folder)).collect()
}

/// Packages beside the kernels that need wgpu.
pub(crate) fn with_wgpu(repository: &Repository) -> Vec<String> {
    let others = repository.packages.iter().filter(|package| package.folder != "crates/tvb-kernels/");
    others.flat_map(|package| repository.needed(package, &["wgpu"])).collect()
}

/// Libraries that need what only a command should.
pub(crate) fn libraries_for_commands(repository: &Repository) -> Vec<String> {
    let libraries = repository.packages.iter().filter(|package| LIBRARIES.contains(&package.folder.as_str()));
    libraries.flat_map(|package| repository.needed(package, FOR_COMMANDS)).collect()
}

/// What a package that is published lacks for it.
pub(crate) fn unpublishable(repository: &Repository) -> Vec<String> {
    let mut found = Vec::new();
    for package in &repository.packages {
        let Some(about) = package.manifest.get("package").and_then(Value::as_table) else { continue };
        if about.get("publish") == Some(&Value::Boolean(false)) {
            continue;
        }
        for key in ["description", "license"] {
            let value = about.get(key);
            let shared = || repository.shared("package")?.get(key);
            if !(value.is_some_and(Value::is_str) || is_inherited(value) && shared().is_some_and(Value::is_str)) {
                found.push(format!("{}Cargo.toml: no {key}", package.folder));
            }
        }
        for (name, needed) in repository.dependencies(package) {
            if needed.get("path").is_some() && needed.get("version").is_none() {
                found.push(format!("{}Cargo.toml: {name} has a path and no version", package.folder));
            }
        }
    }
    found
}

fn is_inherited(value: Option<&Value>) -> bool {
    value.and_then(|value| value.get("workspace")).and_then(Value::as_bool) == Some(true)
}

impl Repository {
    /// A table of the root's `[workspace]`.
    fn shared(&self, name: &str) -> Option<&Table> {
        let root = self.packages.iter().find(|package| package.folder.is_empty())?;
        root.manifest.get("workspace")?.get(name)?.as_table()
    }

    /// What a package needs to be built, tests apart: names, and what is said of them here or in the workspace.
    fn dependencies<'a>(&'a self, package: &'a Package) -> Vec<(&'a str, &'a Value)> {
        let platforms = package.manifest.get("target").and_then(Value::as_table).into_iter().flat_map(Table::values);
        let tables = platforms.filter_map(Value::as_table).chain([&package.manifest]);
        let kinds = ["dependencies", "build-dependencies"];
        let lists = tables.flat_map(|table| kinds.iter().filter_map(|kind| table.get(*kind)?.as_table()));
        let resolved = |(name, value): (&'a String, &'a Value)| {
            let shared = is_inherited(Some(value)).then(|| self.shared("dependencies")?.get(name)).flatten();
            (name.as_str(), shared.unwrap_or(value))
        };
        lists.flat_map(Table::iter).map(resolved).collect()
    }

    /// Those of the given packages that a package depends on, under whatever name.
    fn needed(&self, package: &Package, unwanted: &[&str]) -> Vec<String> {
        let real =
            |(name, value): (&str, &Value)| value.get("package").and_then(Value::as_str).unwrap_or(name).to_owned();
        let needed = self.dependencies(package).into_iter().map(real);
        let found = needed.filter(|name| unwanted.contains(&name.as_str()));
        found.map(|name| format!("{}Cargo.toml: {name}", package.folder)).collect()
    }
}

#[test]
fn what_a_registry_asks_for_may_stand_in_the_workspace() {
    let root = "[workspace.package]\nlicense = \"MIT\"\n[workspace.dependencies]\ny = { path = \"y\" }\n\
                z = { path = \"z\", version = \"1\" }";
    let whole = "[package]\ndescription = \"x\"\nlicense.workspace = true\n";
    let cases: [(&str, &[&str]); 5] = [
        ("[dependencies]\nz.workspace = true\n[dev-dependencies]\ny.workspace = true", &[]),
        ("[dependencies]\ny.workspace = true", &["x/Cargo.toml: y has a path and no version"]),
        ("[build-dependencies]\ny = { path = \"../y\" }", &["x/Cargo.toml: y has a path and no version"]),
        ("[target.'cfg(unix)'.dependencies]\ny = { path = \"../y\" }", &["x/Cargo.toml: y has a path and no version"]),
        ("[dependencies]\ny = \"1\"", &[]),
    ];
    for (dependencies, expected) in cases {
        let manifest = format!("{whole}{dependencies}");
        let repository = Repository::made_up(&[("Cargo.toml", root), ("x/Cargo.toml", &manifest)]);
        assert_eq!(unpublishable(&repository), expected, "{dependencies}");
    }
    let bare =
        Repository::made_up(&[("Cargo.toml", root), ("x/Cargo.toml", "[package]\ndescription.workspace = true")]);
    assert_eq!(unpublishable(&bare), ["x/Cargo.toml: no description", "x/Cargo.toml: no license"]);
    let private = Repository::made_up(&[("x/Cargo.toml", "[package]\npublish = false")]);
    assert!(unpublishable(&private).is_empty());
}
