//! Files of a basis that stay what they are when it changes, brought into the folder that replaces it or stands beside it.

use super::manifest::{self, AtomRecord, Manifest};
use super::open::Basis;
use crate::checkpoint::{Existing, Inputs, Leftover, StagedOutput, resolve_inside};
use crate::error::{Error, Result};
use crate::progress::Progress;
use std::path::{Path, PathBuf};

/// Where new files are written before they get their names.
const NEW: &str = "new";

/// A basis that is being changed: a new folder on its way, in place of the old one or beside it.
#[derive(Debug)]
pub(crate) struct Changing<'a> {
    basis: &'a Basis,
    staged: StagedOutput,
    in_place: bool,
}

impl<'a> Changing<'a> {
    /// Prepares the new folder: at `output`, or in place of `basis` where that is `None`. It is made from `inputs` too.
    ///
    /// # Errors
    /// As [`StagedOutput::folder`].
    pub(crate) fn new(
        basis: &'a Basis,
        output: Option<&Path>,
        existing: Existing,
        inputs: &Inputs,
    ) -> Result<Changing<'a>> {
        let in_place = output.is_none();
        let staged = match output {
            Some(output) => {
                StagedOutput::folder(output, existing, Leftover::Clear, &inputs.clone().with(&basis.inputs()))?
            }
            None => StagedOutput::folder(&basis.folder, Existing::Replace, Leftover::Clear, inputs)?,
        };
        Ok(Changing { basis, staged, in_place })
    }

    /// Where new files go.
    pub(crate) fn path(&self) -> &Path {
        self.staged.path()
    }

    /// Where the basis will be.
    pub(crate) fn target(&self) -> PathBuf {
        self.staged.target().to_owned()
    }

    /// Brings a file of the old basis, its bytes as they are. In place it is the same file under another name, so that
    /// nothing is written; beside it a copy, since either basis may go.
    ///
    /// # Errors
    /// Rejected: a link that leads out of the folder. Failed: the system cannot copy. Interrupted.
    pub(crate) fn carry(&self, file: &str, progress: &dyn Progress) -> Result<()> {
        progress.check()?;
        let from = resolve_inside(&self.basis.folder, file)?;
        let to = self.staged.path().join(file);
        if self.in_place && std::fs::hard_link(&from, &to).is_ok() {
            return Ok(());
        }
        // Where the file system can, it shares the blocks.
        std::fs::copy(&from, &to).map(drop).map_err(|error| Error::io("copying to", &to, &error))
    }

    /// Brings every file of an atom.
    ///
    /// # Errors
    /// As [`carry`](Self::carry).
    pub(crate) fn carry_atom(&self, atom: &AtomRecord, progress: &dyn Progress) -> Result<()> {
        std::iter::once(&atom.file).chain(&atom.shards).try_for_each(|file| self.carry(file, progress))
    }

    /// Stems of atoms' files that no file of the old basis begins with: a copy that is half old and half new must not look whole.
    pub(crate) fn free_stems(&self) -> impl Iterator<Item = String> {
        let used: Vec<&str> = self.basis.manifest.file_names().collect();
        let stems = (0_usize..).map(|number| format!("atom-{number:02}"));
        stems.filter(move |stem| !used.iter().any(|name| name.starts_with(stem.as_str())))
    }

    /// A folder in the new one for files that have no names yet; see [`adopt`](Self::adopt).
    ///
    /// # Errors
    /// Failed: the system cannot make it.
    pub(crate) fn room(&self) -> Result<PathBuf> {
        let folder = self.path().join(NEW);
        std::fs::create_dir(&folder).map_err(|error| Error::io("creating", &folder, &error))?;
        Ok(folder)
    }

    /// Gives new files, written to `folder` in the new one, names that no file of the old basis has, and answers their records
    /// under these.
    ///
    /// # Errors
    /// Failed: the system cannot rename.
    pub(crate) fn adopt(&self, folder: &Path, records: Vec<AtomRecord>) -> Result<Vec<AtomRecord>> {
        let mut adopted = Vec::with_capacity(records.len());
        for (record, stem) in records.into_iter().zip(self.free_stems()) {
            let name = format!("{stem}.safetensors");
            let to = self.path().join(&name);
            std::fs::rename(folder.join(&record.file), &to).map_err(|error| Error::io("renaming to", &to, &error))?;
            adopted.push(AtomRecord { file: name, ..record });
        }
        std::fs::remove_dir(folder).map_err(|error| Error::io("removing", folder, &error))?;
        Ok(adopted)
    }

    /// Lets the new folder appear, where it is a basis and the old one is still what was read.
    ///
    /// # Errors
    /// Rejected: another program has changed the basis meanwhile. Failed: the system cannot write, or what was written cannot be read.
    pub(crate) fn commit(self) -> Result<()> {
        // In place the old basis goes: what nobody could open must not replace it.
        Basis::open_within(self.staged.path(), self.basis.budget())?;
        if self.in_place {
            self.check_unchanged()?;
        }
        self.staged.commit()
    }

    fn check_unchanged(&self) -> Result<()> {
        let path = resolve_inside(&self.basis.folder, manifest::FILE_NAME)?;
        let bytes = std::fs::read(&path).map_err(|error| Error::io("reading", &path, &error))?;
        let found = Manifest::from_bytes(&bytes, &path)?.checksum;
        if found == self.basis.manifest.checksum {
            return Ok(());
        }
        Err(Error::rejected(format!(
            "{}: it was changed while this ran: checksum {} expected, {found} found",
            path.display(),
            self.basis.manifest.checksum
        ))
        .hint("nothing was written: run the same command again"))
    }
}
