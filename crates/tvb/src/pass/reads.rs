//! What the passes of one job share: the data that earlier passes have kept, and a count of the bytes read.

use super::kept::{Kept, KeptOnDevice};
use std::sync::atomic::{AtomicU64, Ordering};

/// Keeps nothing and counts, unless told otherwise. One for each job: what is kept is found again by tensor and row, so
/// every pass that shares it must be over the same checkpoints.
#[derive(Debug, Default)]
pub struct Reads {
    kept: Option<Kept>,
    kept_on_device: Option<KeptOnDevice>,
    n_bytes: AtomicU64,
}

impl Reads {
    /// Every pass reads the files.
    pub fn new() -> Reads {
        Reads::default()
    }

    /// What is read stays in the host's memory for the next pass.
    #[must_use]
    pub fn keeping(self) -> Reads {
        Reads { kept: Some(Kept::default()), ..self }
    }

    /// Of what is read, at most `most_bytes` stay on the GPU that has seen them.
    #[must_use]
    pub fn keeping_on_device(self, most_bytes: u64) -> Reads {
        Reads { kept_on_device: Some(KeptOnDevice::new(most_bytes)), ..self }
    }

    /// Where blocks are kept in the host's memory, if they are.
    pub fn kept(&self) -> Option<&Kept> {
        self.kept.as_ref()
    }

    /// Where chunks are kept on a GPU, if they are.
    pub fn kept_on_device(&self) -> Option<&KeptOnDevice> {
        self.kept_on_device.as_ref()
    }

    /// Bytes read out of files so far.
    pub fn n_bytes(&self) -> u64 {
        self.n_bytes.load(Ordering::Relaxed)
    }

    /// Counts bytes that were read.
    pub(crate) fn count(&self, n_bytes: u64) {
        self.n_bytes.fetch_add(n_bytes, Ordering::Relaxed);
    }
}
