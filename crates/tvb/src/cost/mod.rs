//! How long a job takes on each device, and which device `auto` takes for it.
//!
//! ```text
//! headers ─▶ Work: passes, bytes, T ──┐
//! class table, or a saved `tvb bench` ─▶ Rates: of the CPU and of each adapter ──┴─▶ seconds each ─▶ Choice
//! ```
//!
//! A job is a few passes, a pass is bytes through one stage at a number of columns. The rates are those of *whole* passes, from
//! files in the page cache to files: what is read, digested, uploaded, computed and written overlaps in ways that no sum of
//! parts foretells, so the whole is what is measured. A pass takes
//!
//! `begin + bytes read / rate in + bytes written / rate out`, and never less than the disk takes where the files are on one.
//!
//! The CPU engine is taken unless a gain is predicted. Rates of a saved `tvb bench` are believed when they say a tenth;
//! those of the class table ([`classes`]), which knows the kind of an adapter and no more, when they say a third.
//!
//! Left out: the solve and the eigendecompositions, which take milliseconds; what is formed from adapters' factors.

pub mod classes;
mod choice;
mod rates;
mod saved;
mod work;

pub use choice::{Believed, Choice, Estimate, Origin, choose};
pub use rates::{Rate, Rates};
pub use saved::{Machine, SAVED_BYTES_MAX, Saved, SavedDevice};
pub use work::{Stage, Step, Width, Work};
