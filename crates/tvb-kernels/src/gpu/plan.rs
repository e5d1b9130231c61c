//! What one chunk's submit consists of, whatever the operation: tables for the shaders, dispatches and copies, and what
//! is read back. Each operation makes its own plans and puts its own results together (`gram.rs`, `combine.rs`).

use super::shader::Kernel;
use crate::error::KernelError;
use std::ops::Range;

/// One command of a submit. Places and lengths in words.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Runs a kernel with the parameters at a byte of the tables.
    Dispatch { kernel: Kernel, params: u32, groups: [u32; 3] },
    /// Copies from the output to the readback buffer.
    Copy { from: usize, to: usize, n_words: usize },
}

/// Everything about one submit but the chunk's bytes.
#[derive(Debug)]
pub struct Plan<Parts> {
    /// Parameters of every dispatch, then the tables below.
    pub(super) tables: Vec<u8>,
    /// Byte range of the slices in `tables`.
    pub(super) slices: Range<usize>,
    /// Byte range of the runs.
    pub(super) runs: Range<usize>,
    /// Byte range of the folds, where there are any.
    pub(super) folds: Option<Range<usize>>,
    /// The commands, in order; none where there is nothing to do.
    pub(super) steps: Vec<Step>,
    /// Words of the output buffer.
    pub(super) out_words: usize,
    /// Words read back.
    pub(super) readback_words: usize,
    /// Where in them the marks lie, and what each must be.
    pub(super) marks: Vec<Range<usize>>,
    pub(super) stamp: u32,
    /// Where in them the parts of the result lie.
    pub(super) parts: Parts,
}

/// What was read back of a submit that is known to have been finished.
#[derive(Clone, Copy, Debug)]
pub struct Readback<'a> {
    bytes: &'a [u8],
    kernel: &'static str,
}

impl<Parts> Plan<Parts> {
    /// Its kernels, in order; some more than once.
    pub(super) fn kernels(&self) -> impl Iterator<Item = Kernel> {
        self.steps.iter().filter_map(|step| match step {
            Step::Dispatch { kernel, .. } => Some(*kernel),
            Step::Copy { .. } => None,
        })
    }

    /// What was read back, whose marks have been checked.
    pub(super) fn readback<'a>(&self, bytes: &'a [u8]) -> Readback<'a> {
        Readback { bytes, kernel: self.kernels().next().map_or("nothing", Kernel::entry_point) }
    }

    /// Checks the marks.
    ///
    /// # Errors
    /// [`KernelError::Unfinished`] where one is missing.
    pub(super) fn finished<'a>(&self, bytes: &'a [u8]) -> Result<Readback<'a>, KernelError> {
        let readback = self.readback(bytes);
        for marks in &self.marks {
            if readback.words(marks.clone())?.iter().any(|mark| u32::from_le_bytes(*mark) != self.stamp) {
                return Err(readback.unfinished());
            }
        }
        Ok(readback)
    }
}

impl<'a> Readback<'a> {
    fn unfinished(self) -> KernelError {
        KernelError::Unfinished { kernel: self.kernel }
    }

    /// Some of its bytes.
    pub(super) fn bytes(self, range: Range<usize>) -> Result<&'a [u8], KernelError> {
        self.bytes.get(range).ok_or_else(|| self.unfinished())
    }

    /// Some of its words. Their order in mapped memory is that of every platform wgpu runs on: little-endian.
    pub(super) fn words(self, range: Range<usize>) -> Result<&'a [[u8; 4]], KernelError> {
        self.bytes.as_chunks::<4>().0.get(range).ok_or_else(|| self.unfinished())
    }
}
