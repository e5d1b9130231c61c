//! How far a long pass has come, so that an interrupted one resumes where it stopped.
//!
//! A bookmark is taken between two chunks: results are folded in chunk order, so what is folded up to a chunk is the same
//! in every run, and a pass that resumes there ends with the same bits as one that was never stopped. Passes know nothing
//! of files; whoever runs them hands in a [`Bookmarks`].

use super::spans::TensorSums;
use crate::digest::{Digest, TensorDigests};
use crate::error::Result;

/// A pass that can resume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassName {
    /// Pass 1, the Gram matrices.
    Gram,
    /// Pass 2, the atoms.
    Atoms,
    /// Codes, alone or with the Gram matrices.
    Codes,
}

/// Everything that was folded before a chunk.
#[derive(Clone, Debug, PartialEq)]
pub struct Bookmark {
    /// Chunks folded so far: the number of the next one.
    pub n_folded: usize,
    /// Sums over the tensors that have passed; their meaning and number is the pass's.
    pub sums: Vec<f64>,
    /// Sums of the tensor that is passing.
    pub passing: TensorSums,
    /// Digests of what was read, then of what was written, where something was.
    pub digests: Vec<TensorDigests>,
}

impl Bookmark {
    /// The start of a pass with `n_sums` sums, `n_tensor_sums` for each block, and a table of digests for each of `columns`.
    pub fn start(n_sums: usize, n_tensor_sums: usize, columns: &[usize]) -> Bookmark {
        let digests = columns.iter().map(|&n_columns| TensorDigests::new(n_columns)).collect();
        Bookmark { n_folded: 0, sums: vec![0.0; n_sums], passing: TensorSums::new(n_tensor_sums), digests }
    }

    /// Whether it can belong to a pass of `n_chunks` chunks over `n_tensors` tensors that starts as `start`.
    pub fn fits(&self, start: &Bookmark, n_chunks: usize, n_tensors: usize) -> bool {
        let columns = |bookmark: &Bookmark| -> Vec<usize> { bookmark.digests.iter().map(|d| d.size().0).collect() };
        self.n_folded <= n_chunks
            && self.sums.len() == start.sums.len()
            && self.passing.parts().2.len() == start.passing.parts().2.len()
            && self.passing.parts().0.parts().0.is_none_or(|span| span.tensor < n_tensors)
            && self.passing.parts().1.is_none_or(|tensor| tensor < n_tensors)
            && columns(self) == columns(start)
            && self.digests.iter().all(|digests| digests.size().1 <= n_tensors)
    }
}

/// Where bookmarks are kept.
pub trait Bookmarks: Send {
    /// The bookmark that an interrupted run left of the same pass over the same inputs. `recipe` stands for everything
    /// else that the pass depends on.
    fn find(&mut self, pass: PassName, recipe: Digest) -> Option<Bookmark>;

    /// Whether it is time for the next one.
    fn is_due(&self) -> bool;

    /// Keeps a bookmark in place of the one before. What it counts as written is on the disk already.
    ///
    /// # Errors
    /// Failed: the system cannot write it.
    fn put(&mut self, pass: PassName, recipe: Digest, bookmark: &Bookmark) -> Result<()>;
}

/// For passes that never resume.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoBookmarks;

impl Bookmarks for NoBookmarks {
    fn find(&mut self, _pass: PassName, _recipe: Digest) -> Option<Bookmark> {
        None
    }

    fn is_due(&self) -> bool {
        false
    }

    fn put(&mut self, _pass: PassName, _recipe: Digest, _bookmark: &Bookmark) -> Result<()> {
        Ok(())
    }
}
