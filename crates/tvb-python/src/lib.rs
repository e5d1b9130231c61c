//! The extension `tvb._tvb`: what the package for Python asks of the library. Its users see the Python around it
//! (`python/tvb/`), which turns their words, models and arrays into what these functions take.
//!
//! | file | |
//! |---|---|
//! | `work.rs` | a job on a thread of its own, while Python's looks for signals and hears of the progress |
//! | `errors.rs` | errors as exceptions |
//! | `memory.rs` | tensors that Python holds |
//! | `commands.rs` | commands by their words |
//! | `basis.rs`, `gram.rs` | an open basis, a Gram file |
//! | `matrices.rs` | small matrices as bytes |

#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::indexing_slicing,
        clippy::string_slice
    )
)]

mod basis;
mod commands;
mod errors;
mod gram;
mod matrices;
mod memory;
mod work;

use pyo3::prelude::*;

/// What the Python package asks of the library; not for its users.
#[pymodule]
mod _tvb {
    #[pymodule_export]
    use super::basis::{Basis, open};
    #[pymodule_export]
    use super::commands::{answer, check_name, command, quiet_driver};
    #[pymodule_export]
    use super::gram::{Gram, read_gram};

    /// This program's version.
    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");
}
