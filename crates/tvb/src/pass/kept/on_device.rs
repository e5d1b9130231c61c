//! Chunks kept in the memory of a GPU from one pass to the next: neither read nor uploaded a second time.
//!
//! As many as fit are kept, from the first on; the others are read again. A later pass finds a chunk by its blocks, also
//! where it leaves some of them out (frozen tensors). Only adapters with memory of their own keep: where memory is shared
//! the system's file cache does the same for free (see the module above).

use super::BlockKey;
use crate::digest::Digest;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tvb_kernels::{ChunkLayout, KeptChunk, Slice};

/// Chunks on a device.
#[derive(Debug)]
pub struct KeptOnDevice {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    left_bytes: u64,
    /// By every block that a chunk holds.
    chunks: BTreeMap<BlockKey, Arc<DeviceChunk>>,
}

/// A chunk, or a part of one, with what was found out when it was read.
#[derive(Clone, Debug)]
pub struct DeviceChunk {
    /// Its bytes, on the device.
    pub chunk: KeptChunk,
    /// Its blocks.
    pub keys: Vec<BlockKey>,
    /// How it lay when it was read.
    pub layout: ChunkLayout,
    /// How it lies on the device.
    pub staged: ChunkLayout,
    /// [n_blocks, n_columns] digests of the bytes that were read.
    pub digests: Vec<Digest>,
}

impl KeptOnDevice {
    /// Nothing yet, and room for `most_bytes`.
    pub fn new(most_bytes: u64) -> KeptOnDevice {
        KeptOnDevice { state: Mutex::new(State { left_bytes: most_bytes, chunks: BTreeMap::new() }) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a chunk of `n_bytes` may still be kept.
    pub fn has_room(&self, n_bytes: usize) -> bool {
        n_bytes as u64 <= self.lock().left_bytes
    }

    /// The device had no room for a chunk: no more are kept, and the last ones are given up until `headroom_bytes` are free,
    /// since the next pass wants buffers too.
    pub fn set_full(&self, headroom_bytes: u64) {
        let mut state = self.lock();
        state.left_bytes = 0;
        let mut freed_bytes = 0;
        while freed_bytes < headroom_bytes
            && let Some((_, last)) = state.chunks.pop_last()
        {
            freed_bytes += last.chunk.n_bytes();
            for key in &last.keys {
                state.chunks.remove(key);
            }
        }
    }

    /// Keeps one chunk.
    pub fn keep(&self, chunk: DeviceChunk) {
        let mut state = self.lock();
        state.left_bytes = state.left_bytes.saturating_sub(chunk.chunk.n_bytes());
        let chunk = Arc::new(chunk);
        for key in &chunk.keys {
            state.chunks.insert(*key, Arc::clone(&chunk));
        }
    }

    /// The part of a kept chunk that consists of these blocks; `None` where no one chunk has all of them, in this order.
    pub fn find(&self, keys: &[BlockKey]) -> Option<DeviceChunk> {
        let chunk = Arc::clone(self.lock().chunks.get(keys.first()?)?);
        let mut own = chunk.keys.iter().enumerate();
        let places: Option<Vec<usize>> =
            keys.iter().map(|key| own.find(|(_, own)| *own == key).map(|(at, _)| at)).collect();
        Some(chunk.part(&places?))
    }
}

impl DeviceChunk {
    /// Bytes that reading it has taken.
    pub fn read_bytes(&self) -> usize {
        let n_columns = self.layout.n_columns;
        let of_slice = |(at, slice): (usize, &Slice)| self.layout.segments[at / n_columns].n_rows * slice.dtype.size();
        self.layout.slices.iter().enumerate().map(of_slice).sum()
    }

    /// The blocks at these places alone.
    fn part(&self, places: &[usize]) -> DeviceChunk {
        let n_columns = self.layout.n_columns;
        let rows = |at: &usize| at * n_columns..(at + 1) * n_columns;
        let part = |layout: &ChunkLayout| ChunkLayout {
            segments: places.iter().map(|at| layout.segments[*at]).collect(),
            slices: places.iter().flat_map(|at| layout.slices[rows(at)].iter().copied()).collect(),
            codes: Vec::new(),
            factors: places
                .iter()
                .flat_map(|at| layout.factors.get(rows(at)).unwrap_or_default().iter().copied())
                .collect(),
            n_columns: layout.n_columns,
            n_bytes: layout.n_bytes,
        };
        DeviceChunk {
            chunk: self.chunk.clone(),
            keys: places.iter().map(|at| self.keys[*at]).collect(),
            layout: part(&self.layout),
            staged: part(&self.staged),
            digests: places.iter().flat_map(|at| self.digests[rows(at)].iter().copied()).collect(),
        }
    }
}
