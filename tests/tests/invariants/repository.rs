//! The repository as the rules see it: its text files, its packages, and the crates that these are made of.

use crate::error_sections::silent_functions;
use crate::names::Module;
use crate::source::{Source, files};
use crate::tree::{Crate, Files};
use std::collections::BTreeSet;
use std::sync::OnceLock;
use toml::{Table, Value};

/// Text files and what is read from them.
pub(crate) struct Repository {
    /// Rust, WGSL, manifests and documents, sorted by path.
    pub sources: Vec<Source>,
    pub packages: Vec<Package>,
    parsed: OnceLock<Parsed>,
}

/// What is kept of the Rust files' syntax: reading it is what takes time, and threads cannot share it.
#[derive(Default)]
struct Parsed {
    modules: Files,
    /// Paths with the public functions that do not say when they fail.
    silent: Vec<(String, Vec<String>)>,
}

/// A folder with a manifest.
pub(crate) struct Package {
    /// With its slash; empty at the root.
    pub folder: String,
    pub manifest: Table,
}

impl Repository {
    /// The one these tests belong to, or the one at `TVB_INVARIANTS_ROOT`.
    pub(crate) fn here() -> &'static Self {
        static HERE: OnceLock<Repository> = OnceLock::new();
        HERE.get_or_init(|| Self::new(files(&[".rs", ".wgsl", ".md", "Cargo.toml"])))
    }

    /// Made-up files.
    pub(crate) fn made_up(files: &[(&str, &str)]) -> Self {
        Self::new(files.iter().map(|(path, text)| Source::new(path, text)).collect())
    }

    fn new(sources: Vec<Source>) -> Self {
        let manifests = sources.iter().filter(|source| source.path.ends_with("Cargo.toml"));
        let packages = manifests.map(|source| Package {
            folder: source.path.trim_end_matches("Cargo.toml").to_owned(),
            manifest: source.text.parse().unwrap_or_else(|error| panic!("{}: {error}", source.path)),
        });
        Self { packages: packages.collect(), sources, parsed: OnceLock::new() }
    }

    /// Files of Rust and WGSL.
    pub(crate) fn code(&self) -> impl Iterator<Item = &Source> {
        self.sources.iter().filter(|source| source.path.ends_with(".rs") || source.path.ends_with(".wgsl"))
    }

    /// Every target of every package, with the path of its root.
    pub(crate) fn crates(&self) -> Vec<(String, Crate<'_>)> {
        let roots = self.packages.iter().flat_map(|package| self.roots(package));
        roots.filter_map(|root| Some((root.clone(), Crate::new(&self.parsed().modules, &root)?))).collect()
    }

    /// Public functions without an `# Errors` section that can fail, in the files that are meant.
    pub(crate) fn silent_functions(&self, is_meant: impl Fn(&Source) -> bool) -> Vec<String> {
        let meant: BTreeSet<&str> = self.code().filter(|source| is_meant(source)).map(|s| s.path.as_str()).collect();
        let files = self.parsed().silent.iter().filter(|(path, _)| meant.contains(path.as_str()));
        files.flat_map(|(path, names)| names.iter().map(move |name| format!("{path}: {name}"))).collect()
    }

    fn parsed(&self) -> &Parsed {
        self.parsed.get_or_init(|| {
            let rust: Vec<&Source> = self.code().filter(|source| source.path.ends_with(".rs")).collect();
            let n_threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            let parts: Vec<Parsed> = std::thread::scope(|scope| {
                let parts = rust.chunks(rust.len().div_ceil(n_threads).max(1));
                let threads: Vec<_> = parts.map(|part| scope.spawn(|| Parsed::new(part))).collect();
                threads.into_iter().map(|thread| thread.join().expect("Rust files")).collect()
            });
            parts.into_iter().fold(Parsed::default(), |mut all, part| {
                all.modules.extend(part.modules);
                all.silent.extend(part.silent);
                all
            })
        })
    }

    /// Where cargo looks for crates, and where the manifest says they are.
    fn roots(&self, package: &Package) -> Vec<String> {
        let is_root = |path: &str| {
            let parts: Vec<&str> = path.split('/').collect();
            match parts[..] {
                ["build.rs"] | ["src", "lib.rs" | "main.rs"] => true,
                ["tests" | "benches" | "examples", file] | ["src", "bin", file] => file.ends_with(".rs"),
                ["tests" | "benches" | "examples", _, "main.rs"] | ["src", "bin", _, "main.rs"] => true,
                _ => false,
            }
        };
        let inside = self.sources.iter().filter_map(|source| source.path.strip_prefix(&package.folder));
        let targets = ["lib", "bin", "test", "bench", "example"].iter().filter_map(|kind| package.manifest.get(*kind));
        let targets = targets.flat_map(|found| found.as_array().map_or(std::slice::from_ref(found), Vec::as_slice));
        let named = targets.filter_map(|target| target.get("path").and_then(Value::as_str));
        let mut found: Vec<String> =
            inside.filter(|path| is_root(path)).chain(named).map(|path| format!("{}{path}", package.folder)).collect();
        found.sort();
        found.dedup();
        found
    }
}

impl Parsed {
    fn new(sources: &[&Source]) -> Self {
        let mut parsed = Self::default();
        for source in sources {
            let file = source.syntax();
            parsed.modules.insert(source.path.clone(), Module::of_file(&file));
            parsed.silent.push((source.path.clone(), silent_functions(&file)));
        }
        parsed
    }
}
