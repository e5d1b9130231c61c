//! Gram matrix → coefficients: which mixtures of the task vectors are stored (B) and how tasks come back from them (W).
//!
//! Pure: no file, no device, no clock; the same input gives the same output. The legend of symbols: V [d, T] the task
//! vectors as columns, G = VᵀV, atoms S = VB, recovery V̂ = SW, C = BW. One file per method; what they share:
//!
//! | file | |
//! |---|---|
//! | `gram.rs` | G, checked once, with its eigenvalues |
//! | `spectra.rs` | the eigendecompositions that are known to be needed before a solve begins |
//! | `method.rs` | the methods and their options |
//! | `dispatch.rs`, `problem.rs` | what every method sees, and what is done with what it found |
//! | `simplex.rs` | from a positive vector and a subspace to B ≥ 0 |
//! | `weights.rs` | the best W for a B |
//! | `orthogonal.rs` | the same subspace in coordinates for 16-bit storage |
//! | `coefficients.rs` | what comes out |
//! | `coding.rs`, `alike.rs` | what coding the atoms adds |
//! | `assess.rs`, `rounding.rs` | every error, exactly, from G, B and W |
//! | `assess_coded.rs` | the same with what coding adds |
//! | `choose.rs`, `ladder.rs`, `mixtures.rs` | which M, which bits, or which of both together is enough |
//! | `join.rs` | tasks that join mixtures whose originals are gone |
//! | `recompress.rs`, `cut.rs` | a weighted sum of low-rank matrices as one, and the rank it is cut at |
//! | `shared.rs`, `shared_stacks.rs`, `shared_cores.rs` | low-rank matrices in one pair of spaces, with a small core each |
//! | `cmaes.rs` | the least of a function that can only be evaluated |
//! | `table.rs` | every M, method and rung side by side |
//!
//! Every method sees G/tr G, or with `balance` the Gram of the tasks scaled to one length. A task of length g then is g
//! times its scaled self, so a mixture b of the scaled tasks is the mixture b/g of the true ones (`Problem`). The best
//! W does not depend on how the tasks are scaled, so it is always computed on the true Gram.

pub mod ae;
pub mod merge;
pub mod random;

mod adam;
mod alike;
mod anchor;
mod anchored;
mod assess;
mod assess_coded;
mod checks;
mod choose;
mod cluster;
mod cmaes;
mod coding;
mod coefficients;
mod cut;
mod deflate;
mod dispatch;
mod exact;
mod gram;
mod identity;
mod join;
mod ladder;
mod linear;
mod method;
mod mixtures;
mod nmf;
mod orthogonal;
mod pca;
mod positive;
mod problem;
mod recompress;
mod rounding;
mod sample;
mod shared;
mod shared_cores;
mod shared_stacks;
mod simplex;
mod solved;
mod spectra;
mod table;
mod weights;

pub use assess::{
    Assessment, Fidelity, assess, assess_recovered, assess_remaining, edit_fidelity, edit_fidelity_in_parts,
    recovered_edit_fidelity,
};
pub use assess_coded::{Parts, coded_edit_fidelity, coded_edit_fidelity_in_parts};
pub use checks::{check_atoms, check_options};
pub use choose::{MaxError, atoms_for_error};
pub use cmaes::{CmaEs, DIMENSIONS_MAX};
pub(crate) use coding::BF16_NOISE;
pub use coding::{AtomSizes, Coding};
pub use coefficients::{Coefficients, Generated, Rule};
pub use cut::{Cut, Cuttable};
pub use dispatch::solve;
pub use gram::{Gram, Spectrum};
pub use identity::as_they_are;
pub use join::{JoinedAtoms, JoinedError, Joining, Old};
pub use ladder::{LADDER, Rung, rung_for_bytes, rung_for_error};
pub use method::{
    Activation, AeOptions, AnchoredOptions, Anneal, ClusterOptions, Coordinates, ExactOptions, Method, NmfOptions,
    SolveOptions,
};
pub use mixtures::{Limit, Mixture, Storage, mixture_for};
pub use random::{Generator, random_coefficients};
pub use recompress::{Product, Stack, Term, squared_difference};
pub use rounding::{Rounding, STORAGE_DTYPES};
pub use shared::{Member, SharedSides, shared_sides};
pub use shared_cores::{Core, Cores};
pub use shared_stacks::Stacks;
pub use solved::Solved;
pub use spectra::{WantedSpectrum, wanted_spectra};
pub use table::{PlanRow, TableCodes, TableOptions, plan_table};
