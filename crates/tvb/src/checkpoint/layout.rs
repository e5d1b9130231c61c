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
    /// No file: a state dict in memory.
    InMemory,
    /// A diffusers pipeline: a folder with `model_index.json` and a folder for each component. Tensors are called
    /// `COMPONENT/NAME`.
    Pipeline {
        /// The components with weights, in the order of their names: the order of the files of this checkpoint.
        components: Vec<Component>,
        /// The names of the others, such as a scheduler and tokenizers.
        others: Vec<String>,
    },
}

/// A component of a pipeline: the weights in one of its folders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// Its name, which is its folder's.
    pub name: String,
    /// The data files' names inside the folder, sorted.
    pub shards: Vec<String>,
    /// The index file's name inside the folder, where shards are bound by one.
    pub index: Option<String>,
}

impl Component {
    /// What stands before the names of its tensors.
    pub fn prefix(&self) -> String {
        format!("{}/", self.name)
    }
}
