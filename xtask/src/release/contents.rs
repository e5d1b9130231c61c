//! What a package should hold: the crate's sources, what cargo adds, a page for its readers and the licences.

use crate::process::Result;
use std::path::Path;

/// Files beside the sources, which every package holds.
const BESIDE: &[&str] = &["Cargo.lock", "Cargo.toml", "Cargo.toml.orig", "LICENSE-APACHE", "LICENSE-MIT", "README.md"];

/// Which commit the package was made from: only where there is a repository.
const COMMIT: &str = ".cargo_vcs_info.json";

/// Folders of sources that only the repository needs.
const LEFT_OUT: &[&str] = &["benches", "examples", "tests"];

/// Rust and WGSL files below a crate's folder that make the crate, as paths from there with `/`.
pub(super) fn sources(folder: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(inner) = folders.pop() {
        let path = folder.join(&inner);
        let io = |error: std::io::Error| format!("{}: {error}", path.display());
        for entry in std::fs::read_dir(&path).map_err(io)? {
            let entry = entry.map_err(io)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if inner.is_empty() { name } else { format!("{inner}/{name}") };
            if !entry.file_type().map_err(io)?.is_dir() {
                found.push(path);
            } else if !LEFT_OUT.contains(&path.as_str()) {
                folders.push(path);
            }
        }
    }
    found.retain(|path| path.ends_with(".rs") || path.ends_with(".wgsl"));
    found.sort();
    Ok(found)
}

/// What should be among the files and is not.
pub(super) fn missing<'a>(sources: &'a [String], files: &[&str]) -> Vec<&'a str> {
    let wanted = sources.iter().map(String::as_str).chain(BESIDE.iter().copied());
    wanted.filter(|wanted| !files.contains(wanted)).collect()
}

/// The files that should not be there.
pub(super) fn unwanted<'a>(sources: &[String], files: &[&'a str]) -> Vec<&'a str> {
    let is_wanted =
        |file: &str| file == COMMIT || BESIDE.contains(&file) || sources.iter().any(|source| source == file);
    files.iter().copied().filter(|file| !is_wanted(file)).collect()
}

#[cfg(test)]
mod tests {
    use super::{BESIDE, missing, sources, unwanted};
    use std::path::Path;

    #[test]
    fn a_shader_that_is_left_out_and_data_that_is_not_are_found() {
        let sources = ["src/lib.rs".to_owned(), "src/gram.wgsl".to_owned()];
        let whole = [BESIDE, &["src/lib.rs", "src/gram.wgsl"]].concat();
        assert_eq!((missing(&sources, &whole), unwanted(&sources, &whole)), (vec![], vec![]));
        let files = [BESIDE, &["src/lib.rs", "src/data.csv"]].concat();
        assert_eq!(
            (missing(&sources, &files), unwanted(&sources, &files)),
            (vec!["src/gram.wgsl"], vec!["src/data.csv"])
        );
        assert_eq!(missing(&sources, &whole[1..]), [BESIDE[0]]);
    }

    #[test]
    fn tests_are_no_sources_of_a_package() {
        let found = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/tvb-cli")).unwrap();
        assert!(found.iter().any(|file| file == "src/main.rs"), "{found:?}");
        assert!(found.iter().all(|file| file.starts_with("src/")), "{found:?}");
    }
}
