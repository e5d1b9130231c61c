//! Inputs kept in memory from one pass to the next, so that they are read once where reading again would be slow.
//!
//! Only inputs that fit whole, beside the buffers of a pass, are kept, and by default only where the file system does not
//! cache them itself. What is kept are the bytes as they were read, with their digests, block by block; a later pass,
//! whatever its chunks, copies them from here.
//!
//! Tried and lost: keeping whatever fits. With files in the page cache (two cores, AVX-512), `compress` of nine f32
//! checkpoints of 87 M parameters took 5.0 to 5.7 s reading twice and 9.7 to 10.3 s keeping 3.1 GB; of five of 17 M
//! parameters 0.6 to 0.8 s against 1.1 to 1.4 s. Touching as much new memory costs more than the system's second copy out
//! of memory it has already filled, digests included. The page cache is the better keeper wherever there is one.

mod on_device;

pub use on_device::{DeviceChunk, KeptOnDevice};

use crate::digest::Digest;
use crate::error::Result;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Bytes a second below which a read did not come out of memory.
const MEMORY_RATE: f64 = 300e6;

/// Whether inputs that fit in memory are kept there between the passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// Where the file system does not cache them: reading the same bytes again is no faster than reading from a disk.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Whether reading the same `n_bytes` again and again stays slow: the best of three, after a first that may fill a cache.
///
/// # Errors
/// Those of `read`.
pub fn stays_slow(n_bytes: u64, mut read: impl FnMut() -> Result<()>) -> Result<bool> {
    read()?;
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let started = Instant::now();
        read()?;
        best = best.min(started.elapsed().as_secs_f64());
    }
    Ok(n_bytes as f64 / best.max(1e-9) < MEMORY_RATE)
}

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
    /// The columns' bytes, one after another, base first.
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn only_reads_that_stay_slow_are_slow() {
        let mut n_reads = 0;
        let warms_up = || {
            n_reads += 1;
            std::thread::sleep(Duration::from_millis(if n_reads == 1 { 50 } else { 0 }));
            Ok(())
        };
        assert!(!stays_slow(1 << 30, warms_up).unwrap());
        let slow = || {
            std::thread::sleep(Duration::from_millis(5));
            Ok(())
        };
        assert!(stays_slow(1 << 20, slow).unwrap());
        assert!(stays_slow(1, || Err(crate::Error::failed("gone"))).is_err());
    }
}
