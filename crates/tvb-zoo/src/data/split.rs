//! The three parts of a task's data.

/// Which part of a task's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// What is fine-tuned on.
    Train,
    /// What scales are chosen on.
    Val,
    /// What is reported.
    Test,
}

impl Split {
    /// "train", "val" or "test".
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Val => "val",
            Split::Test => "test",
        }
    }
}
