//! What can go wrong in the kernels: plain facts, which the host turns into a message with a file, a tensor and a task.

use crate::chunk::Dtype;
use std::fmt;

/// An error of an engine. Every variant carries what was expected and what was found.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum KernelError {
    /// A layout has no base column, no column beside it, or more than [`MAX_TASKS`](crate::MAX_TASKS) beside it.
    ColumnCount {
        /// Columns beside the base that the work needs at least.
        least: usize,
        /// Columns beside the base that an engine takes at most.
        most: usize,
        /// Columns of the layout, the base counted.
        n_columns: usize,
    },
    /// A layout does not hold one slice for each segment and column.
    SliceCount {
        /// n_segments · n_columns.
        expected: usize,
        /// Slices in the layout.
        found: usize,
    },
    /// A slice does not lie within its chunk.
    SliceOutside {
        /// Which segment.
        segment: usize,
        /// Which column (0 is the base).
        column: usize,
        /// Bytes from the chunk's start.
        offset: usize,
        /// Rows of the segment.
        n_rows: usize,
        /// Format of the slice.
        dtype: Dtype,
        /// Bytes the layout gives the chunk.
        chunk_bytes: usize,
    },
    /// A slice's offset is not a multiple of its element size.
    SliceMisaligned {
        /// Which segment.
        segment: usize,
        /// Which column (0 is the base).
        column: usize,
        /// Bytes from the chunk's start.
        offset: usize,
        /// Format of the slice.
        dtype: Dtype,
    },
    /// A coded column's words or scales do not lie within the chunk, on multiples of their size.
    CodesOutside {
        /// Which segment.
        segment: usize,
        /// Which coded column.
        column: usize,
        /// Bytes of the chunk.
        chunk_bytes: usize,
    },
    /// Factors do not lie within the chunk, on multiples of 4 bytes, or are of no rank.
    FactorsOutside {
        /// Rows of the segment.
        n_rows: usize,
        /// Bytes of the chunk.
        chunk_bytes: usize,
    },
    /// A chunk holds fewer bytes than its layout says.
    ChunkShort {
        /// Bytes of the layout.
        expected: usize,
        /// Bytes of the chunk.
        found: usize,
    },
    /// Weights (encode B or reconstruction weights) have the wrong length for the layout.
    WeightCount {
        /// Columns beside the base · outputs.
        expected: usize,
        /// Weights given.
        found: usize,
    },
    /// Weights hold an infinity or a NaN.
    WeightNotFinite {
        /// Which column beside the base, from 0.
        column: usize,
        /// Which output.
        output: usize,
    },
    /// No output was asked for (`n_atoms` or `n_outputs` is 0).
    NoOutputs,
    /// The result, or the buffer for it, does not fit in memory.
    TooLarge {
        /// What was to be made.
        what: &'static str,
    },
    /// Matrices for the eigendecomposition have the wrong number of entries.
    MatrixSize {
        /// n_matrices · n².
        expected: usize,
        /// Entries given.
        found: usize,
    },
    /// A matrix for the eigendecomposition holds an infinity or a NaN.
    MatrixNotFinite {
        /// Which matrix of the batch.
        matrix: usize,
    },
    /// The eigendecomposition did not converge.
    EighFailed {
        /// Which matrix of the batch.
        matrix: usize,
    },
    /// No adapter fits what was asked for.
    NoAdapter {
        /// What was asked for.
        wanted: String,
        /// The adapters there are.
        found: Vec<String>,
    },
    /// A hardware adapter was asked for and there is none, but there is a software one.
    OnlySoftware {
        /// The software adapter's name.
        name: String,
    },
    /// The device reported an error, or could not be opened.
    Device {
        /// What was being done.
        what: &'static str,
        /// What the driver or wgpu said, on one line.
        message: String,
    },
    /// The device is out of memory.
    DeviceMemory {
        /// What the driver or wgpu said, on one line.
        message: String,
    },
    /// The device is gone (driver reset, unplugged, asleep).
    DeviceLost {
        /// What the driver or wgpu said, on one line.
        message: String,
    },
    /// The device has not finished a piece of work in a time in which many would have been.
    DeviceTimeout {
        /// How long it was waited for.
        seconds: u64,
    },
    /// The device reported work as done that was not (a mark is missing from the result).
    Unfinished {
        /// Which kernel.
        kernel: &'static str,
    },
    /// A kernel's result on the device differs from the CPU engine's.
    SelfTest {
        /// Which kernel.
        kernel: &'static str,
        /// What was found.
        found: String,
    },
    /// A shader's file does not declare a constant of its variants exactly once: a fault of the library.
    ShaderConstant {
        /// Which kernel.
        kernel: &'static str,
        /// Name of the constant.
        name: &'static str,
        /// How many declarations there are.
        found: usize,
    },
    /// A size is beyond what the device or its staging buffer takes.
    Limit {
        /// What is too large.
        what: &'static str,
        /// Its size.
        found: u64,
        /// The most there may be.
        most: u64,
    },
    /// This work is not done on the GPU: f64 results, an edit of an f64 base, or very many shared columns. The CPU engine does it.
    NotOnGpu,
    /// Every staging buffer of a stream is in its user's hands.
    NoFreeSlot,
    /// A staging buffer, or a result, that another stream has given out.
    ForeignSlot,
    /// A chunk that was kept on another device, or on this one before it was reopened.
    KeptElsewhere,
    /// A stream has no result for a chunk that was submitted to it: a fault of the library.
    NoResult,
}

impl KernelError {
    /// What the user can do about it, where there is something.
    pub fn hint(&self) -> Option<String> {
        match self {
            KernelError::NoAdapter { found, .. } if found.is_empty() => {
                Some("install a Vulkan, Metal or DirectX 12 driver, or use the CPU engine (`cpu`)".to_owned())
            }
            KernelError::NoAdapter { found, .. } => Some(format!("there are: {}", found.join(", "))),
            KernelError::OnlySoftware { name } => {
                Some(format!("name the software adapter to use it ({name}), or use the CPU engine (`cpu`)"))
            }
            KernelError::Device { .. }
            | KernelError::DeviceLost { .. }
            | KernelError::DeviceTimeout { .. }
            | KernelError::Unfinished { .. }
            | KernelError::SelfTest { .. } => Some("try the CPU engine (`cpu`), or update the driver".to_owned()),
            KernelError::DeviceMemory { .. } => Some("use less memory at a time, or the CPU engine (`cpu`)".to_owned()),
            _ => None,
        }
    }

    /// Whether the device is at fault: the same work may succeed on a device reopened, or on the CPU engine.
    pub fn is_device_fault(&self) -> bool {
        matches!(
            self,
            KernelError::Device { .. }
                | KernelError::DeviceMemory { .. }
                | KernelError::DeviceLost { .. }
                | KernelError::DeviceTimeout { .. }
                | KernelError::Unfinished { .. }
        )
    }
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KernelError::ColumnCount { least, most, n_columns } => {
                write!(f, "a chunk of {n_columns} columns: expected the base and {least} to {most} columns beside it")
            }
            KernelError::SliceCount { expected, found } => {
                write!(f, "a chunk layout with {found} slices: expected {expected} (segments × columns)")
            }
            KernelError::SliceOutside { segment, column, offset, n_rows, dtype, chunk_bytes } => write!(
                f,
                "segment {segment}, column {column}: {n_rows} {dtype} rows at byte {offset} do not lie within the \
                 chunk's {chunk_bytes} bytes"
            ),
            KernelError::SliceMisaligned { segment, column, offset, dtype } => write!(
                f,
                "segment {segment}, column {column}: byte {offset} is not a multiple of {} ({dtype})",
                dtype.size()
            ),
            KernelError::CodesOutside { segment, column, chunk_bytes } => write!(
                f,
                "segment {segment}, coded column {column}: its codes do not lie within the chunk's {chunk_bytes} bytes, \
                 on multiples of their size"
            ),
            KernelError::FactorsOutside { n_rows, chunk_bytes } => write!(
                f,
                "the factors of {n_rows} rows do not lie within the chunk's {chunk_bytes} bytes, on multiples of 4"
            ),
            KernelError::ChunkShort { expected, found } => {
                write!(f, "a chunk of {found} bytes: its layout needs {expected}")
            }
            KernelError::WeightCount { expected, found } => {
                write!(f, "{found} weights: expected {expected} (columns beside the base × outputs)")
            }
            KernelError::WeightNotFinite { column, output } => {
                write!(f, "the weight of column {column} for output {output} is not finite")
            }
            KernelError::NoOutputs => write!(f, "no output was asked for: expected at least one"),
            KernelError::TooLarge { what } => write!(f, "{what}: too large for this machine's memory"),
            KernelError::MatrixSize { expected, found } => {
                write!(f, "{found} matrix entries for an eigendecomposition: expected {expected}")
            }
            KernelError::MatrixNotFinite { matrix } => {
                write!(f, "matrix {matrix} of the eigendecomposition has a non-finite entry")
            }
            KernelError::EighFailed { matrix } => {
                write!(f, "the eigendecomposition of matrix {matrix} did not converge")
            }
            KernelError::NoAdapter { wanted, .. } => write!(f, "no adapter found for device {wanted:?}"),
            KernelError::OnlySoftware { name } => {
                write!(f, "no hardware adapter found, only a software one: {name}")
            }
            KernelError::Device { what, message } => write!(f, "{what}: {message}"),
            KernelError::DeviceMemory { message } => write!(f, "the device is out of memory: {message}"),
            KernelError::DeviceLost { message } => write!(f, "the device was lost: {message}"),
            KernelError::DeviceTimeout { seconds } => {
                write!(f, "the device hangs: work that takes less than a second was not done after {seconds} s")
            }
            KernelError::Unfinished { kernel } => {
                write!(f, "the device reported `{kernel}` as done, but part of its result is missing")
            }
            KernelError::SelfTest { kernel, found } => {
                write!(f, "the device fails the self-test of `{kernel}`: {found}")
            }
            KernelError::ShaderConstant { kernel, name, found } => {
                write!(f, "the shader of `{kernel}` declares the constant {name} {found} times: expected once")
            }
            KernelError::Limit { what, found, most } => {
                write!(f, "{what}: {found} is more than this device takes ({most})")
            }
            KernelError::NotOnGpu => {
                write!(f, "f64 results, f64 bases and very many shared columns are done by the CPU engine only")
            }
            KernelError::NoFreeSlot => write!(f, "every staging buffer is taken: submit one first"),
            KernelError::ForeignSlot => write!(f, "a staging buffer of this stream expected, one of another found"),
            KernelError::KeptElsewhere => {
                write!(f, "a chunk kept on this device expected, one of another or from before it was reopened found")
            }
            KernelError::NoResult => write!(f, "the result of a submitted chunk expected, none found"),
        }
    }
}

impl std::error::Error for KernelError {}
