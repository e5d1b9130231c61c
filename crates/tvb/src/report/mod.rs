//! Pictures and pages for people, as text: SVG plots and the self-contained report.

mod pareto;

pub use pareto::{Pareto, pareto_svg};

use crate::checkpoint::{Existing, StagedOutput};
use crate::error::{Error, Result};
use std::path::Path;

/// Writes a text file that appears whole or not at all.
///
/// # Errors
/// Rejected: the file exists and is not to be replaced. Failed: the system refuses.
pub fn write_text(path: &Path, text: &str, existing: Existing) -> Result<()> {
    let staged = StagedOutput::file(path, existing)?;
    std::fs::write(staged.path(), text).map_err(|error| Error::io("writing", staged.path(), &error))?;
    staged.commit()
}
