//! Parts → what one run would have written.

use super::compress::join_basis;
use super::gram::join_grams;
use super::options::JoinOptions;
use super::set::PartSet;
use super::undivided::join_undivided;
use crate::basis::part_file::PartKind;
use crate::basis::{Basis, gram_file};
use crate::checkpoint::StagedOutput;
use crate::error::Result;
use crate::ops::Grams;
use crate::pass::Runtime;
use crate::progress::Progress;
use std::path::PathBuf;

/// What the parts have come to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Joined {
    /// Gram matrices, in their file.
    Grams(Box<Grams>),
    /// A basis, in its folder.
    Basis(Box<Basis>),
}

/// Makes of all parts of a job, named in any order, what one run would have written, byte for byte. The inputs need not be at hand.
///
/// # Errors
/// Usage: none is named. Rejected: the output exists; a part that is damaged, there twice or missing, or parts of other jobs.
/// Failed: I/O. Interrupted. Nothing is left behind.
pub fn join(parts: &[PathBuf], options: &JoinOptions, runtime: &Runtime, progress: &dyn Progress) -> Result<Joined> {
    let set = PartSet::read(parts, options.copies, &runtime.budget)?;
    tell_devices(&set, progress);
    match set.record.kind {
        PartKind::Gram => {
            let staged = StagedOutput::file(&options.output, options.existing, &set.inputs())?;
            let grams = join_grams(&set, runtime, progress)?;
            staged.commit_bytes(&gram_file::to_bytes(&grams)?)?;
            Ok(Joined::Grams(Box::new(grams)))
        }
        PartKind::Codes | PartKind::Atoms | PartKind::Products => {
            Ok(Joined::Basis(Box::new(join_basis(&set, options, runtime, progress)?)))
        }
        PartKind::Undivided => Ok(Joined::Basis(Box::new(join_undivided(&set, options, runtime, progress)?))),
    }
}

/// Sums from several kinds of devices are as good, but not the bits of one run.
fn tell_devices(set: &PartSet, progress: &dyn Progress) {
    let devices = set.devices();
    if devices.len() > 1 {
        let devices = crate::shown::escaped(&devices.join(", ")).into_owned();
        progress.note(&format!("parts made on several kinds of devices differ from one run by rounding: {devices}"));
    }
}
