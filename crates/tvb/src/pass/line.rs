//! Results waiting their turn: whatever order chunks are finished in, they are folded in chunk order.

use super::chunks::Grid;
use super::op::Folded;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::progress::Progress;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Results waiting their turn.
pub(super) struct Line<'a, R, F> {
    grid: &'a Grid,
    state: Mutex<LineState<R, F>>,
    moved: Condvar,
}

struct LineState<R, F> {
    fold: F,
    /// Chunks folded so far: the number of the next in line.
    n_folded: usize,
    /// Digests and parts of the chunks that were finished ahead of their turn.
    waiting: BTreeMap<usize, (Vec<Digest>, R)>,
    error: Option<Error>,
    /// Chunks taken by a worker and neither folded nor waiting.
    n_taken: usize,
}

/// Chunks that are left to do, in order. Nothing is held for each of them, of which there may be millions.
#[derive(Clone, Debug)]
pub(super) struct Left {
    chunks: Range<usize>,
    /// Those among them that wait for their turn already.
    done: BTreeSet<usize>,
}

impl Left {
    /// Every chunk of a grid.
    pub(super) fn all(grid: &Grid) -> Left {
        Left { chunks: 0..grid.n_chunks(), done: BTreeSet::new() }
    }

    /// How many there are.
    pub(super) fn n_chunks(&self) -> usize {
        self.chunks.len() - self.done.range(self.chunks.clone()).count()
    }
}

impl Iterator for Left {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let Left { chunks, done } = self;
        chunks.find(|chunk| !done.contains(chunk))
    }
}

impl<'a, R: Send, F: FnMut(Folded<'_, R>) -> Result<()> + Send> Line<'a, R, F> {
    pub(super) fn new(grid: &'a Grid, fold: F) -> Self {
        let state = LineState { fold, n_folded: 0, waiting: BTreeMap::new(), error: None, n_taken: 0 };
        Line { grid, state: Mutex::new(state), moved: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, LineState<R, F>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until fewer than `limit` results are ahead of the next in line; false when the pass is over.
    pub(super) fn wait_for_room(&self, limit: usize, progress: &dyn Progress) -> bool {
        if progress.cancelled() {
            self.fail(Error::interrupted());
        }
        let mut state = self.lock();
        while state.waiting.len() + state.n_taken >= limit && state.n_taken > 0 && state.error.is_none() {
            state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.n_taken += 1;
        state.error.is_none()
    }

    /// Hands in the digests and the part of one chunk, and folds whatever is next in line.
    pub(super) fn put(&self, chunk: usize, digests: &[Digest], part: R) -> Result<()> {
        let mut state = self.lock();
        state.n_taken -= 1;
        let state = &mut *state;
        let mut next = match chunk == state.n_folded {
            true => Some(part),
            false => {
                state.waiting.insert(chunk, (digests.to_vec(), part));
                None
            }
        };
        let mut digests = std::borrow::Cow::Borrowed(digests);
        while let Some(part) = next.take() {
            let blocks = self.grid.blocks(state.n_folded);
            (state.fold)(Folded { blocks: &blocks, digests: &digests, part })?;
            state.n_folded += 1;
            if let Some((waiting_digests, waiting)) = state.waiting.remove(&state.n_folded) {
                digests = waiting_digests.into();
                next = Some(waiting);
            }
        }
        self.moved.notify_all();
        Ok(())
    }

    /// The chunks that have not been handed in, in order: what is left to do when a device is lost.
    pub(super) fn missing(&self) -> Left {
        let mut state = self.lock();
        state.n_taken = 0;
        Left { chunks: state.n_folded..self.grid.n_chunks(), done: state.waiting.keys().copied().collect() }
    }

    /// Counts a chunk as taken without waiting for room: for a thread that bounds its own chunks.
    pub(super) fn take(&self) {
        self.lock().n_taken += 1;
    }

    /// Whether a fold or another worker failed.
    pub(super) fn has_failed(&self) -> bool {
        self.lock().error.is_some()
    }

    /// Keeps the first error and stops every worker.
    pub(super) fn fail(&self, error: Error) {
        self.lock().error.get_or_insert(error);
        self.moved.notify_all();
    }

    pub(super) fn finish(self) -> Result<()> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        match state.error {
            Some(error) => Err(error),
            None if state.n_folded < self.grid.n_chunks() => {
                Err(Error::failed("a worker stopped before its chunk was done"))
            }
            None => Ok(()),
        }
    }
}
