//! Merging, pure: weights from the inner products of whole models and task vectors.
//!
//! Inner products are those of \[θ0, τ1 … τT\], base first ([`Products`]); whole models θt = θ0 + τt have theirs by linearity. So no
//! method here sees an element. mergekit forms the same quantities from the elements, in f32.

mod karcher;
mod linear;
mod matrices;
mod model_stock;
mod orthogonalise;
mod products;
mod scales;
mod slerp;
mod spectral;

pub use karcher::karcher;
pub use linear::{linear, task_sum};
pub use matrices::{iso_c, iso_cts, tsv_m};
pub use model_stock::model_stock;
pub use orthogonalise::orthogonalise;
pub use products::{Mix, Of, Products};
pub use scales::meta_gpt;
pub use slerp::{Interpolated, multislerp, nuslerp, slerp};
