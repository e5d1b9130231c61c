//! Output that appears whole or not at all: everything is written beside its final place, as `NAME.partial`, and
//! renamed when it is complete.
//!
//! Nothing but what a run made is removed or replaced: an output that is an input or holds one is refused, and so is a folder
//! with anything in it that this program does not write.
//!
//! A kill at any moment leaves the old output, the complete new one, or `NAME.partial`, which the next run clears or
//! resumes. A lock file `NAME.partial.lock` keeps two runs from writing one output; the system lets go of the lock when its
//! process dies, so a file that is left over locks nobody out.

mod files;
mod inputs;
mod lock;
mod output;
mod replace;
mod whole;

pub(crate) use files::{open_itself, read_itself, true_place};
pub use inputs::Inputs;
pub(crate) use lock::{has_no_locks, say_without_lock};
pub use output::{
    Existing, Leftover, OutputKind, StagedOutput, check_output, commit_all, remove_stale_lock, write_whole,
};

#[cfg(test)]
mod tests;
