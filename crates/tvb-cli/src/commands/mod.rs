//! One file per command: flags become options of the library, its answer becomes text or JSON.

pub(crate) mod apply;
pub(crate) mod batch;
pub(crate) mod bench;
pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod compress;
pub(crate) mod devices;
pub(crate) mod drop;
pub(crate) mod edit;
pub(crate) mod export;
pub(crate) mod extend;
pub(crate) mod fit;
pub(crate) mod gram;
pub(crate) mod import;
pub(crate) mod inspect;
pub(crate) mod join;
pub(crate) mod lora;
pub(crate) mod merge;
pub(crate) mod mistaken;
pub(crate) mod plan;
pub(crate) mod rates;
pub(crate) mod recover;
pub(crate) mod report;
pub(crate) mod sweep;
pub(crate) mod tensor_weights;
pub(crate) mod verify;
