//! Output that appears whole or not at all: everything is written beside its final place, as `NAME.partial`, and
//! renamed when it is complete.
//!
//! A kill at any moment leaves the old output, the complete new one, or `NAME.partial`, which the next run clears or
//! resumes. A lock file `NAME.partial.lock` keeps two runs from writing one output; the system lets go of the lock when its
//! process dies, so a file that is left over locks nobody out.

mod files;
mod lock;
mod output;
mod replace;

pub use output::{Existing, Leftover, StagedOutput, remove_stale_lock, write_whole};

#[cfg(test)]
mod tests;
