//! How a path is read.

use super::Budget;

/// How a path is read; the default suits everything but a PyTorch file that holds several state dicts.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// The key of a PyTorch file under which its state dict lies; dots separate nested keys.
    pub key: Option<String>,
    /// What the headers of everything that is opened with it may take of memory together.
    pub budget: Budget,
}
