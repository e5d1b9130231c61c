//! The model card of an edited folder, in the form the Hugging Face hub reads: where it came from, what it may be used for,
//! and the command that makes it again.

mod front_matter;
mod origin;
mod text;

pub use origin::check_model_id;
pub use text::{adapter_card, combination_in_words, model_card, weights_in_words};
