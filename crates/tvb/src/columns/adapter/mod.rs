//! LoRA adapters as columns: Δ = s·B·A for each module that an adapter changes, under the names and shapes of a base.
//!
//! Read are folders as PEFT writes them, and files of kohya's trainer and of diffusers. Every tensor of an adapter finds its
//! place or the adapter is refused: A and B are never taken for weights.

mod names;
mod config;
mod values;
mod parsed;
mod factors;
mod matching;
mod open;
mod found;

pub use found::{Adapter, Found, ModuleFacts};
pub use parsed::{Parsed, Writer};
