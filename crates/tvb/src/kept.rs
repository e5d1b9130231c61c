//! Inputs kept in memory from one pass to the next, so that small ones are read once.
//!
//! Only inputs that fit whole, beside the buffers of a pass, are kept: the system's page cache does the same for larger
//! ones without taking memory from anybody, and a part that is kept makes the other part no faster. What is kept are the
//! bytes as they were read, with their digests, block by block; a later pass, whatever its chunks, copies them from here.
//!
//! Measured (two cores, AVX-512, files in the page cache): see `benches/results/`. The gain is the second read and its
//! digests; the price is touching that much new memory.

use crate::digest::Digest;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Blocks that were read, by tensor and first row.
#[derive(Debug, Default)]
pub struct Kept {
    blocks: Mutex<HashMap<BlockKey, Arc<KeptBlock>>>,
}

/// The tensor's index in the base's file, and the block's first row.
pub type BlockKey = (u32, usize);

/// The same rows of every column.
#[derive(Debug)]
pub struct KeptBlock {
    /// The columns' bytes, one behind the other, base first.
    pub bytes: Vec<u8>,
    /// \[n_columns\]: digest of each column's bytes.
    pub digests: Vec<Digest>,
}

impl Kept {
    fn lock(&self) -> MutexGuard<'_, HashMap<BlockKey, Arc<KeptBlock>>> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of these blocks, or `None` where any has not been kept.
    pub fn find(&self, keys: impl IntoIterator<Item = BlockKey>) -> Option<Vec<Arc<KeptBlock>>> {
        let blocks = self.lock();
        keys.into_iter().map(|key| blocks.get(&key).cloned()).collect()
    }

    /// Keeps one block.
    pub fn keep(&self, key: BlockKey, block: KeptBlock) {
        self.lock().insert(key, Arc::new(block));
    }
}
