//! `docs/results.md`: the tables of the last full demo, between two marks of a page that is written by hand. Beside it the
//! chart.

use crate::process::{Result, root};

const PAGE: &str = "docs/results.md";
const CHART: &str = "docs/accuracy-over-bytes.svg";
const START: &str = "<!-- cargo xtask demo writes from here -->\n";
const END: &str = "<!-- to here -->\n";

/// Puts `tables` into the page and answers with its path from the repository's root.
pub(super) fn write(tables: &str) -> Result<&'static str> {
    let path = root().join(PAGE);
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let page = std::fs::read_to_string(&path).map_err(failed)?;
    let page = replaced(&page, tables).ok_or_else(|| format!("{PAGE}: the lines {START:?} and {END:?} expected"))?;
    std::fs::write(&path, page).map_err(failed)?;
    Ok(PAGE)
}

/// Writes the chart and answers with its path from the repository's root.
pub(super) fn write_chart(svg: &str) -> Result<&'static str> {
    let path = root().join(CHART);
    std::fs::write(&path, svg).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(CHART)
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
    fn only_what_stands_between_the_marks_changes() {
        let page = format!("# A\n\n{START}old\n{END}tail\n");
        let new = replaced(&page, "\n| new |\n").unwrap();
        assert_eq!(new, format!("# A\n\n{START}\n| new |\n\n{END}tail\n"));
        assert_eq!(replaced(&new, "| new |"), Some(new.clone()));
        assert_eq!(replaced("no marks", ""), None);
        assert_eq!(replaced(&format!("{END}{START}"), ""), None);
    }

    #[test]
    fn the_page_has_its_marks() {
        let page = std::fs::read_to_string(root().join(PAGE)).unwrap();
        assert!(replaced(&page, "").is_some());
    }
}
