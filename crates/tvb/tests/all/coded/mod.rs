//! Bases whose atoms are coded: what they decode to, how good they are, what they depend on, and how damage is noticed.

mod damage;
mod decoder;
mod depends;
pub(crate) mod models;
mod numbers;
