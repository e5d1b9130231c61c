//! The stream: chunks of all columns, read once, worked on and folded in order.

pub mod chunks;
pub mod kept;
pub mod bookmark;
pub mod stream;
