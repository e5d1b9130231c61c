//! Recipes of merges: mergekit's YAML, or words of a command line, as settings of each tensor.

mod card;
mod definition;
mod factors;
mod layers;
mod read;
mod reference;
mod resolve;
mod setting;
mod words;
mod write;
mod yaml;

pub use card::{of_card, paper_of};
pub use definition::{BaseRole, Found, Model, Own, Recipe, Slice};
pub use factors::Factors;
pub use layers::Layers;
pub use reference::{Places, Reference};
pub use resolve::ByTensor;
pub use setting::{Filtered, Setting, Settings};
pub use words::{Typed, Words};
pub use yaml::MAX_BYTES;

#[cfg(test)]
mod tests;
