//! Where edits go, to files or to memory, and how their float tensors are stored.

use crate::checkpoint::{CheckpointWriter, Lent, shown};
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use tvb_kernels::Dtype;

/// How edited and copied float tensors are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Format {
    /// Their type; `None` keeps each tensor's.
    pub dtype: Option<Dtype>,
    /// Write the largest finite value of the type in place of one beyond it. Otherwise that is an error.
    pub clip: bool,
}

/// Where edits go, every float tensor in one format.
#[derive(Clone, Copy, Debug)]
pub struct Outputs<'a> {
    /// Where the rows of each output go.
    pub to: Destination<'a>,
    /// How float tensors are stored.
    pub format: Format,
}

/// Where the rows of edits go.
#[derive(Clone, Copy, Debug)]
pub enum Destination<'a> {
    /// Checkpoints, one for each output.
    Files(&'a [CheckpointWriter]),
    /// Memory, one set of tensors for each output.
    Memory(&'a [MemoryWriter]),
    /// The base's own memory: one output. What the edit leaves alone stays as it is.
    Base(&'a MemoryWriter),
    /// Nowhere: rows of one output are formed and looked at. The name is for messages.
    Nowhere(&'a str),
}

/// Tensors in lent memory that are written by position from many threads.
#[derive(Debug, Default)]
pub struct MemoryWriter {
    label: String,
    /// Each tensor's places: several where several names are one tensor.
    places: HashMap<String, Vec<Lent>>,
    has_begun: AtomicBool,
}

impl MemoryWriter {
    /// Of no tensor yet; `label` is what messages call it.
    pub fn new(label: impl Into<String>) -> MemoryWriter {
        MemoryWriter { label: label.into(), ..MemoryWriter::default() }
    }

    /// From now on what is written of the tensor `name` goes to `place` too.
    pub fn add(&mut self, name: &str, place: Lent) {
        self.places.entry(name.to_owned()).or_default().push(place);
    }

    /// What messages call it.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Whether anything has been written.
    pub fn has_begun(&self) -> bool {
        self.has_begun.load(Ordering::Relaxed)
    }

    fn write(&self, name: &str, byte_offset: u64, bytes: &[u8]) -> Result<()> {
        let places = self.places.get(name).map_or(&[][..], Vec::as_slice);
        if !places.is_empty() {
            self.has_begun.store(true, Ordering::Relaxed);
            if places.iter().all(|place| place.write(byte_offset, bytes)) {
                return Ok(());
            }
        }
        let what = if places.is_empty() { "is not one of the output's" } else { "has less room than rows" };
        Err(Error::failed(format!("{}: tensor {} {what}", self.label, shown(name))))
    }
}

impl<'a> Outputs<'a> {
    /// One checkpoint for each output.
    pub fn files(writers: &'a [CheckpointWriter], format: Format) -> Outputs<'a> {
        Outputs { to: Destination::Files(writers), format }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match self.to {
            Destination::Files(writers) => writers.len(),
            Destination::Memory(writers) => writers.len(),
            Destination::Base(_) | Destination::Nowhere(_) => 1,
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether what edits leave alone is copied from the base.
    pub(super) fn takes_rest(&self) -> bool {
        matches!(self.to, Destination::Files(_) | Destination::Memory(_))
    }

    /// How messages name an output.
    pub(super) fn name(&self, output: usize) -> String {
        match self.to {
            Destination::Files(writers) => {
                writers.get(output).map_or_else(String::new, |writer| writer.target().display().to_string())
            }
            Destination::Memory(writers) => writers.get(output).map_or_else(String::new, |writer| writer.label.clone()),
            Destination::Base(writer) => writer.label.clone(),
            Destination::Nowhere(label) => label.to_owned(),
        }
    }

    /// Writes a part of the tensor called `name` of one output; several threads at once.
    pub(super) fn write(&self, output: usize, name: &str, byte_offset: u64, bytes: &[u8]) -> Result<()> {
        let none = || Error::failed(format!("output {output}: one of {} expected", self.len()));
        match self.to {
            Destination::Files(writers) => writers.get(output).ok_or_else(none)?.write(name, byte_offset, bytes),
            Destination::Memory(writers) => writers.get(output).ok_or_else(none)?.write(name, byte_offset, bytes),
            Destination::Base(writer) => writer.write(name, byte_offset, bytes),
            Destination::Nowhere(_) => Ok(()),
        }
    }
}
