//! What the user named, matched: tasks and their places, then a plan of which tensors take part, from headers alone.

mod default_name;
pub mod tasks;
pub mod unfit;
pub mod open;
pub mod coded;
pub mod plan;
