//! How a checkpoint lies on disk: one file or a folder, of which format, in how many shards.

/// How a checkpoint lies on disk; an edited copy keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One safetensors file, named directly.
    SafetensorsFile,
    /// A folder with `model.safetensors`, or an index with shards.
    SafetensorsFolder {
        /// The data files' names inside the folder, sorted: the order of the files of this checkpoint.
        shards: Vec<String>,
        /// Whether an index file binds them.
        indexed: bool,
    },
    /// One PyTorch file, named directly.
    TorchFile,
    /// A folder with `pytorch_model.bin`, or its index with shards.
    TorchFolder {
        /// The data files' names inside the folder, sorted: the order of the files of this checkpoint.
        shards: Vec<String>,
        /// Whether an index file binds them.
        indexed: bool,
    },
}
