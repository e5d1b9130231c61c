//! `docs/growing-results.md`: the tables of the last full study, between two marks of a page that is written by hand. Beside it the charts.

use crate::process::{Result, root};

pub(super) const PAGE: &str = "docs/growing-results.md";
const START: &str = "<!-- cargo xtask study writes from here -->\n";
const END: &str = "<!-- to here -->\n";

/// Puts `tables` into the page.
pub(super) fn write(tables: &str) -> Result<()> {
    let path = root().join(PAGE);
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let page = std::fs::read_to_string(&path).map_err(failed)?;
    let page = replaced(&page, tables).ok_or_else(|| format!("{PAGE}: the lines {START:?} and {END:?} expected"))?;
    std::fs::write(&path, page).map_err(failed)
}

/// Writes a chart beside the page.
pub(super) fn write_chart(name: &str, svg: &str) -> Result<()> {
    let path = root().join("docs").join(name);
    std::fs::write(&path, svg).map_err(|error| format!("{}: {error}", path.display()))
}

/// The page with `tables` in place of what stands between the marks; `None` where a mark is missing.
fn replaced(page: &str, tables: &str) -> Option<String> {
    let (before, rest) = page.split_once(START)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{START}\n{}\n\n{END}{after}", tables.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_its_marks_and_only_what_stands_between_them_changes() {
        let page = std::fs::read_to_string(root().join(PAGE)).unwrap();
        let new = replaced(&page, "| new |").unwrap();
        assert_eq!(replaced(&new, "| new |"), Some(new.clone()));
        let head = page.split(START).next().unwrap();
        assert!(new.starts_with(head) && new.contains("| new |"));
        assert_eq!(replaced("no marks", ""), None);
    }
}
