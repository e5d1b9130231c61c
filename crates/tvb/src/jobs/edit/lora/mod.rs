//! An edit as a LoRA adapter in PEFT's layout: the factors of the tasks, weighted, added and recompressed once.

mod names;
mod gather;
mod layout;
mod config;
mod digests;
mod dense;
mod report;
mod recompress;
mod job;

pub use job::write_adapter;
pub use report::{AdapterReport, ModuleReport};
