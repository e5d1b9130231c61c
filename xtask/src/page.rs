//! Pages that are written by hand but for the tables of a command, which stand between two marks.

use crate::process::{Result, root};

const END: &str = "<!-- to here -->\n";

/// A page, by its path from the repository's root, and the command that writes to it.
pub(crate) struct Page {
    pub(crate) path: &'static str,
    pub(crate) command: &'static str,
}

impl Page {
    fn start(&self) -> String {
        format!("<!-- {} writes from here -->\n", self.command)
    }

    /// Puts `tables` into the page.
    pub(crate) fn write(&self, tables: &str) -> Result<()> {
        let path = root().join(self.path);
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        let page = std::fs::read_to_string(&path).map_err(failed)?;
        let page = self
            .replaced(&page, tables)
            .ok_or_else(|| format!("{}: the lines {:?} and {END:?} expected", self.path, self.start()))?;
        std::fs::write(&path, page).map_err(failed)
    }

    /// The page with `tables` in place of what stands between the marks; `None` where a mark is missing.
    fn replaced(&self, page: &str, tables: &str) -> Option<String> {
        let start = self.start();
        let (before, rest) = page.split_once(&start)?;
        let (_, after) = rest.split_once(END)?;
        Some(format!("{before}{start}\n{}\n\n{END}{after}", tables.trim()))
    }
}

/// Writes a picture, by its path from the repository's root.
pub(crate) fn write_picture(path: &str, svg: &str) -> Result<()> {
    let path = root().join(path);
    std::fs::write(&path, svg).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_marks_changes() {
        let of = Page { path: "a.md", command: "cargo xtask a" };
        let start = of.start();
        let page = format!("# A\n\n{start}old\n{END}tail\n");
        let new = of.replaced(&page, "\n| new |\n").unwrap();
        assert_eq!(new, format!("# A\n\n{start}\n| new |\n\n{END}tail\n"));
        assert_eq!(of.replaced(&new, "| new |"), Some(new.clone()));
        assert_eq!(of.replaced("no marks", ""), None);
        assert_eq!(of.replaced(&format!("{END}{start}"), ""), None);
    }

    #[test]
    fn the_pages_have_their_marks() {
        for of in [crate::demo::PAGE, crate::study::PAGE] {
            let page = std::fs::read_to_string(root().join(of.path)).unwrap();
            assert!(of.replaced(&page, "").is_some(), "{}", of.path);
        }
    }
}
