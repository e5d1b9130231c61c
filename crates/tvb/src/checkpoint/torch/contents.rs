//! What either container of a PyTorch file comes down to.

use super::pickle::Values;
use super::views::Location;

/// What a container holds: the pickle's values and the places of their storages.
pub(super) struct Contents {
    pub(super) values: Values,
    /// The location of each of the values' storages, or why it has none.
    pub(super) locations: Vec<Result<Location, String>>,
    /// Bytes of the storages that were decompressed.
    pub(super) held_bytes: u64,
}
