//! Compress many fine-tuned checkpoints of one model into a small task vector basis, and do task arithmetic from it.
//!
//! A *task vector* is what fine-tuning changed: τt = θt − θ0. T of them are compressed into M *atoms*, mixtures S = VB, from
//! which every task comes back as SW (Task Vector Bases, arXiv 2502.01015). Everything about errors and the choice of B and
//! W needs only the Gram matrix G = VᵀV, which is T×T; checkpoints of any size are streamed through it, on a GPU or on the
//! CPU alone, in a few chunks of memory.
//!
//! ```text
//! checkpoint files      chunk stream         T×T              coefficients        chunk stream       basis folder
//! base, T fine-tunes ─▶ same rows of all ─▶ Gram G = VᵀV ─▶  solve: B, W    ─▶  project S = VB ─▶ M atoms, manifest
//! (Plan)                columns (Pass)       (Grams)          (Method)                              (Basis)  │
//!                                                                                                            ▼
//! edited checkpoint ◀── reconstruct θ0 + S·Wα ◀── weights α over tasks → Wα over atoms ◀──────────────── expression
//! ```
//!
//! # Example
//!
//! Four fine-tunes become two atoms, and an edited copy of the base is written from them:
//!
//! ```
//! use tvb::{Basis, CompressOptions, Plan, Runtime, Silent, apply, compress};
//!
//! # fn main() -> tvb::Result<()> {
//! let models = |name: &str| format!("../tvb-zoo/checkpoints/{name}.safetensors");
//! let folder = std::env::temp_dir().join(format!("tvb-example-{}", std::process::id()));
//!
//! let runtime = Runtime::open("auto")?;
//! let plan = Plan::open(models("base"), ["digits", "letters", "mazes", "waves"].map(models))?;
//! let options = CompressOptions::mixtures(folder.join("basis")).atoms(2);
//! let basis = compress(&plan, &options, &runtime, &Silent)?.basis;
//! for task in &basis.manifest.tasks {
//!     println!("{}: relative squared error {:.3}", task.name, task.relative_error.unwrap_or(f64::NAN));
//! }
//!
//! let edited = folder.join("edited.safetensors");
//! let fidelity = apply(&basis, "0.4*digits + 0.4*letters - 0.2*waves", &plan.base, &edited, &runtime, &Silent)?;
//! println!("cosine to the same edit from the originals: {:.3}", fidelity.map_or(f64::NAN, |found| found.cosine));
//! # assert!(edited.is_file() && Basis::open(&folder.join("basis"))?.n_atoms() == 2);
//! # std::fs::remove_dir_all(&folder).expect("removed");
//! # Ok(())
//! # }
//! ```
//!
//! # Where to look
//!
//! The modules stand in the order in which data passes through them; each uses earlier ones only.
//!
//! | to | see |
//! |---|---|
//! | choose which tensors take part | [`Selection`], [`Plan::new`] |
//! | choose a device, threads and memory | [`Runtime`] |
//! | take the device that does a job soonest | [`Runtime::open_for`], [`cost`] |
//! | choose a method or a size | [`Method`], [`Size`], [`CompressOptions`] |
//! | know what would be done, before it is done | [`forecast`] |
//! | know what every method and size would lose | [`solve::plan_table`] |
//! | keep Gram matrices for later | [`jobs::gram::make_gram_file`], [`Grams`] |
//! | form other edits | [`jobs::edit`], [`jobs::recover`], [`jobs::sweep`], [`jobs::fit`] |
//! | check a basis | [`jobs::verify`] |
//! | show progress, or stop | [`Progress`] |
//! | handle errors | [`Error`]: whose fault it was, one line, a hint, [`source`](std::error::Error::source) |
//!
//! The library never prints, reads no environment, and executes nothing that it finds in a file.

// Nothing that a user or a file says may end in a panic. The rooms of numbers index by the algebra, with sizes that were
// checked when the data came in.
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

pub mod shown;
pub mod error;
pub mod nearest;
pub mod units;
pub mod progress;
#[allow(clippy::indexing_slicing, reason = "rows and columns of matrices this program sized")]
pub mod matrix;
pub mod checkpoint;
pub mod digest;
pub mod columns;
pub mod cost;
#[allow(clippy::indexing_slicing, reason = "blocks, chunks and columns of a grid this program cut")]
pub mod pass;
#[allow(clippy::indexing_slicing, reason = "matrices whose sizes `Gram::new` and `check_atoms` have checked")]
pub mod solve;
#[allow(clippy::indexing_slicing, reason = "triangles, rows and columns of a plan's own sizes")]
pub mod ops;
pub mod arithmetic;
pub mod basis;
pub mod jobs;

pub use basis::Basis;
pub use checkpoint::{Checkpoint, Dtype, Existing};
pub use columns::plan::{Plan, Selection, Task};
pub use error::{Error, ErrorKind, Result};
pub use jobs::apply::apply;
pub use jobs::compress::{CompressOptions, Compressed, Forecast, Size, compress, forecast};
pub use matrix::Matrix;
pub use ops::Grams;
pub use pass::Runtime;
pub use progress::{Progress, Silent};
pub use solve::{Coordinates, Fidelity, Method};
/// The formats in which atoms and edits are stored.
pub use tvb_kernels::Dtype as FloatDtype;
/// How many bits an element of a coded atom has.
pub use tvb_kernels::Rate;

/// This program and its version, as recorded in what it writes.
pub const TOOL: &str = concat!("tvb ", env!("CARGO_PKG_VERSION"));
