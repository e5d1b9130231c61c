//! Documents name paths that exist.

use crate::source::{Source, root};

/// Paths in backticks or links of a Markdown text that are not there. A path in backticks is one that begins with a
/// folder of the repository's root.
pub(crate) fn dead_paths(source: &Source) -> Vec<String> {
    let root = root();
    let folder = root.join(&source.path).parent().map(std::path::Path::to_path_buf).unwrap_or_default();
    let is_path = |word: &str| {
        let first = word.split('/').next().unwrap_or_default();
        word.contains('/')
            && !first.is_empty()
            && !word.contains(['*', '<', '{', ' ', '…'])
            && root.join(first).is_dir()
    };
    let quoted = source.text.split('`').skip(1).step_by(2).filter(|word| is_path(word)).map(|word| root.join(word));
    let links = source.text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let is_local = |link: &&str| !link.contains("://") && !link.starts_with('#') && !link.is_empty();
    let linked = links.filter(is_local).map(|link| folder.join(link.split('#').next().unwrap_or_default()));
    let missing = quoted.chain(linked).filter(|path| !path.exists());
    missing.map(|path| format!("{}: {} is not there", source.path, path.display())).collect()
}
